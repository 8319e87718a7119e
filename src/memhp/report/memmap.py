# SPDX-License-Identifier: GPL-2.0-only
"""
Memory drawn as strips: what memblock, the sections, the memory blocks and the struct pages say of one address range.

::

    0x40000000      0x80000000
    |===============|NNNNNNNNNNNNNNN  memblock
    |MMMMMMMMMMMMMMM|MMMMMMMMMMMMMMM  sections
    |+++++++++++++++|...............  blocks
    |ffffffffffffffR|iiiiiiiiiiiiiii  pages

Each character stands for the same number of bytes. The four strips are four answers to "is there memory?", and where they
disagree lies the story of a hot-add.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from memhp.errors import UsageError
from memhp.linux.include import mmzone
from memhp.linux.include.memblock import MEMBLOCK_NOMAP
from memhp.linux.include.memory import MEM_OFFLINE, MEM_ONLINE
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.page_flags import PAGE_INITIALISED, PG_RESERVED
from memhp.linux.mm import page_alloc
from memhp.units import format_size

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

LEGEND = {
    "memblock": {"=": "memory", "N": "NOMAP", "-": "partly memory", "n": "partly NOMAP", ".": "not in memblock"},
    "sections": {"M": "memmap", "p": "present, no memmap", "m": "some have a memmap", ".": "absent"},
    "blocks": {"+": "online", "-": "offline", "~": "changing or mixed", ".": "none"},
    "pages": {
        ".": "no struct pages", "0": "uninitialised", "i": "initialised", "R": "Reserved", "f": "free (buddy)", "u": "in use",
    },
}  # fmt: skip
"""What the characters of each strip mean. A character of `pages` is what most of its pages are."""


@dataclass(frozen=True, slots=True)
class Strips:
    """
    The strips of [start, end), in bytes.

    Attributes:
        start: First byte.
        end: One past the last byte.
        cell: Bytes that one character stands for.
        memblock, sections, blocks, pages: The strips; their characters are in `LEGEND`.
    """

    start: int
    end: int
    cell: int
    memblock: str
    sections: str
    blocks: str
    pages: str

    def json(self) -> dict[str, object]:
        """Return the strips as plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def draw(k: Kernel, start: int, end: int, *, width: int = 64) -> Strips:
    """
    Draw what a kernel holds of [start, end) at this moment.

    Args:
        k: The kernel.
        start: First byte, page aligned.
        end: One past the last byte, page aligned.
        width: Characters; made smaller until every character stands for whole pages.

    Raises:
        UsageError: an empty range, or one that is not page aligned.
    """
    if start >= end or start % k.PAGE_SIZE or end % k.PAGE_SIZE or width < 1:
        raise UsageError(f"{start:#x}-{end:#x} cannot be drawn: it wants whole pages of {format_size(k.PAGE_SIZE)}, one at least")
    pages = (end - start) >> k.PAGE_SHIFT
    while pages % width:
        width -= 1
    cell = (end - start) // width
    bounds = [start + i * cell for i in range(width + 1)]
    cells = list(pairwise(bounds))
    free = _free(k, start >> k.PAGE_SHIFT, end >> k.PAGE_SHIFT)
    return Strips(
        start=start,
        end=end,
        cell=cell,
        memblock="".join(_memblock(k, *c) for c in cells),
        sections="".join(_sections(k, *c) for c in cells),
        blocks="".join(_blocks(k, *c) for c in cells),
        pages="".join(_pages(k, a >> k.PAGE_SHIFT, b >> k.PAGE_SHIFT, free) for a, b in cells),
    )


def _memblock(k: Kernel, start: int, end: int) -> str:
    known = nomap = 0
    for region in k.memblock.memory.regions:
        shared = min(end, region.base + region.size) - max(start, region.base)
        if shared > 0:
            known += shared
            nomap += shared if region.flags & MEMBLOCK_NOMAP else 0
    if nomap:
        return "N" if nomap == end - start else "n"
    return "=" if known == end - start else "-" if known else "."


def _sections(k: Kernel, start: int, end: int) -> str:
    numbers = range(start >> k.SECTION_SIZE_BITS, ((end - 1) >> k.SECTION_SIZE_BITS) + 1)
    valid = sum(mmzone.valid_section(k.mem_section.get(nr)) for nr in numbers)
    if valid:
        return "M" if valid == len(numbers) else "m"
    return "p" if any(mmzone.present_section_nr(k, nr) for nr in numbers) else "."


def _blocks(k: Kernel, start: int, end: int) -> str:
    size = k.sections_per_block << k.SECTION_SIZE_BITS
    found = {k.memory_blocks[n].state for n in range(start // size, (end - 1) // size + 1) if n in k.memory_blocks}
    if not found:
        return "."
    return {MEM_ONLINE: "+", MEM_OFFLINE: "-"}.get(found.pop(), "~") if len(found) == 1 else "~"


def _free(k: Kernel, start: int, end: int) -> list[tuple[int, int]]:
    """Return the free ranges inside [start, end), in pfns, sorted."""
    found = []
    for pgdat in k.nodes.values():
        for zone in pgdat.node_zones:
            if zone.free_area is not None:
                found += [(max(a, start), min(b, end)) for a, b in page_alloc.free_ranges(k, zone) if a < end and b > start]
    return sorted(found)


def _pages(k: Kernel, start: int, end: int, free: Sequence[tuple[int, int]]) -> str:
    counts = dict.fromkeys(LEGEND["pages"], 0)
    pfn = start
    while pfn < end:
        section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
        stop = min(end, (pfn | (k.PAGES_PER_SECTION - 1)) + 1)
        if section is None or section.memmap is None:
            counts["."] += stop - pfn
        else:
            first = pfn & (k.PAGES_PER_SECTION - 1)
            last = first + stop - pfn
            initialised = section.memmap.count(FLAGS, first, last, PAGE_INITIALISED, PAGE_INITIALISED)
            counts["0"] += stop - pfn - initialised
            reserved = section.memmap.count(FLAGS, first, last, PG_RESERVED, PG_RESERVED)
            counts["R"] += reserved
            available = _shared(free, pfn, stop)
            counts["f"] += available
            rest = initialised - reserved - available
            counts["u" if _online(k, pfn) else "i"] += max(0, rest)
        pfn = stop
    return max(counts, key=lambda state: counts[state])


def _online(k: Kernel, pfn: int) -> bool:
    """Whether the memory block of a pfn is online; at boot, before blocks exist, all memory is."""
    block = k.memory_blocks.get((pfn >> k.PFN_SECTION_SHIFT) // k.sections_per_block)
    return block.state == MEM_ONLINE if block is not None else not k.memory_blocks


def _shared(ranges: Sequence[tuple[int, int]], start: int, end: int) -> int:
    """Return how much of [start, end) lies in sorted ranges."""
    total = 0
    i = max(0, bisect_right(ranges, (start, 0)) - 1)
    while i < len(ranges) and ranges[i][0] < end:
        total += max(0, min(end, ranges[i][1]) - max(start, ranges[i][0]))
        i += 1
    return total


def lines(strips: Strips, *, names: Sequence[str] = ("memblock", "sections", "blocks", "pages")) -> list[str]:
    """Return strips as text: addresses above, one strip a line with its name, and what its characters mean."""
    width = len(strips.memblock)
    first, last = f"{strips.start:#x}", f"{strips.end:#x}"
    ruler = first + last.rjust(max(0, width - len(first)))
    text = [ruler.ljust(width) + f"  one character: {format_size(strips.cell)}"]
    for name in names:
        strip: str = getattr(strips, name)
        meaning = ", ".join(f"{char} {LEGEND[name][char]}" for char in LEGEND[name] if char in strip)
        text.append(f"{strip}  {name}: {meaning}")
    return text
