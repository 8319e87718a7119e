# SPDX-License-Identifier: GPL-2.0-only
"""
/proc/iomem, read: the tree of address ranges. Ends are inclusive, as in the file.

A reader without CAP_SYS_ADMIN is shown the names with every address 0; that is told by `hidden`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from memhp.abi import files as abi
from memhp.abi.files import Files
from memhp.errors import UsageError
from memhp.hardware import Region

IOMEM = "/proc/iomem"
SYSTEM_RAM = "System RAM"
_LINE = re.compile(r"( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")
_DEPTH = 16
# Bus resources are windows that devices lie in; the kernel does not mark them busy.
_WINDOWS = ("PCI Bus", "PCI ECAM")


@dataclass(frozen=True, slots=True)
class Iomem:
    """
    The resource tree.

    Attributes:
        regions: The outermost ranges in order of address.
        hidden: True if every address is shown as 0, as to a reader without privilege.
    """

    regions: tuple[Region, ...]
    hidden: bool = False

    def walk(self) -> Iterator[tuple[int, Region]]:
        """Yield (depth, range) in the order of the file."""
        stack = [(0, region) for region in reversed(self.regions)]
        while stack:
            depth, region = stack.pop()
            yield depth, region
            stack.extend((depth + 1, child) for child in reversed(region.children))

    def system_ram(self) -> list[Region]:
        """Return every range of memory: "System RAM", and those of a driver, "System RAM (virtio_mem)", inside its device."""
        return [region for _, region in self.walk() if region.name == SYSTEM_RAM or region.name.startswith(SYSTEM_RAM + " (")]


def parse_iomem(text: str, path: str = IOMEM) -> Iomem:
    """Return the tree; UsageError on a line of another form, a range that ends before it starts, or one outside its parent."""
    rows: list[tuple[int, int, int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UsageError(f"{path}:{number}: not a line of iomem: {abi.shorten(line)!r}")
        depth, odd = divmod(len(match[1]), 2)
        if odd or depth > (rows[-1][0] + 1 if rows else 0) or depth > _DEPTH:
            raise UsageError(f"{path}:{number}: indented by {len(match[1])}, which fits no line above")
        start, end = int(match[2], 16), int(match[3], 16)
        if end < start:
            raise UsageError(f"{path}:{number}: {match[2]}-{match[3]} ends before it starts")
        rows.append((depth, start, end, match[4]))
    hidden = bool(rows) and all(start == end == 0 for _, start, end, _ in rows)
    return Iomem(_tree(rows, path), hidden)


def _tree(rows: list[tuple[int, int, int, str]], path: str) -> tuple[Region, ...]:
    """Fold the rows into a tree, the last row first, so that each range finds its children complete."""
    waiting: list[list[Region]] = [[] for _ in range(_DEPTH + 2)]
    for depth, start, end, name in reversed(rows):
        children = tuple(reversed(waiting[depth + 1]))
        waiting[depth + 1] = []
        for child in children:
            if child.start < start or child.end > end:
                raise UsageError(f"{path}: {child.start:#x}-{child.end:#x} lies outside of {start:#x}-{end:#x} around it")
        above = waiting[depth][-1].start if waiting[depth] else None
        if above is not None and end >= above and end:
            raise UsageError(f"{path}: {start:#x}-{end:#x} is not below {above:#x}, which comes next")
        waiting[depth].append(Region(start, end, name, children, busy=not name.startswith(_WINDOWS)))
    return tuple(reversed(waiting[0]))


def read_iomem(files: Files) -> Iomem:
    """Read /proc/iomem."""
    return parse_iomem(abi.read_text(files, IOMEM))
