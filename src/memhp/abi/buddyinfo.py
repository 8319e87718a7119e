# SPDX-License-Identifier: GPL-2.0-only
"""/proc/buddyinfo and /proc/pagetypeinfo, read: free blocks by order, pageblocks by migratetype."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from memhp.abi import files as abi
from memhp.errors import UsageError

BUDDYINFO = "/proc/buddyinfo"
PAGETYPEINFO = "/proc/pagetypeinfo"
_FREE = re.compile(r"Node +([0-9]{1,9}), zone +(\w{1,32})((?: +[0-9]{1,20})+)")
_BY_TYPE = re.compile(r"Node +([0-9]{1,9}), zone +(\w{1,32}), type +(\w{1,32})((?: +>?[0-9]{1,20})+)")
_PAGES = re.compile(r"Pages per block: +([0-9]{1,9})")
_TYPES = re.compile(r"Number of blocks type((?: +\w{1,32})+)")


@dataclass(frozen=True, slots=True)
class PageTypes:
    """
    /proc/pagetypeinfo.

    Attributes:
        pages_per_block: Pages of a pageblock.
        free: (node, zone, migratetype) -> free blocks by order.
        blocks: (node, zone, migratetype) -> pageblocks of that type.
    """

    pages_per_block: int
    free: dict[tuple[int, str, str], tuple[int, ...]] = field(default_factory=dict)
    blocks: dict[tuple[int, str, str], int] = field(default_factory=dict)

    def used(self, kind: str) -> int:
        """Pages of pageblocks of a migratetype that are not free, on all zones."""
        pages = sum(n for (_, _, name), n in self.blocks.items() if name == kind) * self.pages_per_block
        return pages - sum(free_pages(orders) for (_, _, name), orders in self.free.items() if name == kind)


def free_pages(orders: tuple[int, ...]) -> int:
    """Pages in free blocks, counted by order."""
    return sum(count << order for order, count in enumerate(orders))


def parse_buddyinfo(text: str, path: str = BUDDYINFO) -> dict[tuple[int, str], tuple[int, ...]]:
    """Return (node, zone) -> free blocks by order."""
    found: dict[tuple[int, str], tuple[int, ...]] = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        match = _FREE.fullmatch(line.rstrip())
        if match is None:
            raise UsageError(f"{path}: not a line of buddyinfo: {abi.shorten(line)!r}")
        found[int(match[1]), match[2]] = tuple(map(int, match[3].split()[:64]))
    return found


def parse_pagetypeinfo(text: str, path: str = PAGETYPEINFO) -> PageTypes:
    """Return free blocks and pageblocks by migratetype. A count that the kernel cut short (">100000") is taken as it stands."""
    pages = _PAGES.search(text)
    if pages is None:
        raise UsageError(f"{path}: no line 'Pages per block:'")
    result = PageTypes(int(pages[1]))
    kinds: list[str] = []
    for line in text.split("\n"):
        words = line.rstrip()
        if match := _BY_TYPE.fullmatch(words):
            counts = tuple(int(n.lstrip(">")) for n in match[4].split()[:64])
            result.free[int(match[1]), match[2], match[3]] = counts
        elif match := _TYPES.fullmatch(words):
            kinds = match[1].split()
        elif kinds and (match := _FREE.fullmatch(words)):
            for kind, count in zip(kinds, match[3].split(), strict=False):
                result.blocks[int(match[1]), match[2], kind] = int(count)
    return result
