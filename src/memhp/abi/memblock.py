# SPDX-License-Identifier: GPL-2.0-only
"""
/sys/kernel/debug/memblock/{memory,reserved}, read.

v4.9 to v6.1 print ranges only; later kernels add the node and the names of the flags. arm64 keeps memblock after boot,
x86_64 drops it and has no such files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memhp.abi import files as abi
from memhp.abi.files import MEMBLOCK, Files
from memhp.errors import UsageError

LINE = re.compile(
    r" *([0-9]{1,9}): (?:0x)?([0-9a-f]{1,16})\.\.(?:0x)?([0-9a-f]{1,16})(?: +([0-9]{1,9}|x)(?: +([A-Z_|]{1,120}))?)? *"
)
_LIMIT = 1 << 64
_NAMES = {"DRIVER_MANAGED": "DRV_MNG"}


@dataclass(frozen=True, slots=True)
class MemblockRegion:
    """
    One region of memblock.

    Attributes:
        base: First byte.
        size: Bytes.
        nid: Node; None where the kernel shows none.
        flags: Names of the flags, as the kernel writes them ("NOMAP", "HOTPLUG", "MIRROR", "DRV_MNG", …); None = this kernel
            does not show them.
    """

    base: int
    size: int
    nid: int | None = None
    flags: tuple[str, ...] | None = None

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.base + self.size


def parse_memblock(text: str, path: str = f"{MEMBLOCK}/memory") -> list[MemblockRegion]:
    """Return the regions in order; UsageError on a line of another form, or on regions that are not sorted and apart."""
    regions: list[MemblockRegion] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise UsageError(f"{path}:{number}: not a line of memblock: {abi.shorten(line)!r}")
        start, last = int(match[2], 16), int(match[3], 16)
        if int(match[1]) != len(regions):
            raise UsageError(f"{path}:{number}: region {match[1]} where {len(regions)} comes next; a line is missing")
        if last < start or last >= _LIMIT:
            raise UsageError(f"{path}:{number}: {start:#x}..{last:#x} ends before it starts")
        if regions and start < regions[-1].end:
            raise UsageError(f"{path}:{number}: {start:#x} lies in or below the region before it")
        nid = None if match[4] in (None, "x") else int(match[4])
        names = None if match[5] is None else tuple(n for n in match[5].split("|") if n not in ("", "NONE"))
        flags = None if names is None else tuple(_NAMES.get(n, n) for n in names)
        regions.append(MemblockRegion(start, last - start + 1, nid, flags))
    return regions


def read_memblock(files: Files, kind: str = "memory") -> list[MemblockRegion] | None:
    """
    Read the regions of one kind.

    Args:
        files: The machine.
        kind: "memory" or "reserved".

    Returns:
        The regions, or None if the kernel has no such file (x86_64, or debugfs is not mounted).
    """
    path = f"{MEMBLOCK}/{kind}"
    text = abi.read_optional(files, path)
    return None if text is None else parse_memblock(text, path)
