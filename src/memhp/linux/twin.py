# SPDX-License-Identifier: GPL-2.0-only
"""
Booting as the twin of a recorded machine: each page is used for what it was used for there.

A kernel that has booted by itself has its pages free, but for those that boot reserved. `take_pages()` then gives every page that
was recorded (`Hardware.pages`) its kind: free pages lie on the free lists of their zone, so that each zone has as many free pages
as it had; others are reserved, offline, or allocated, for slab, page tables, processes, files. Pages that the recording does not
tell of stay as boot left them.

Two things /proc/kpageflags does not tell. One is which migratetype a pageblock has: /proc/pagetypeinfo says how many there are of
each, and those with the most unmovable pages are taken to be the unmovable ones. The other is which pages without any flag lie on
a CPU's own free lists: in ZONE_MOVABLE, where nothing else could be, they are free here; elsewhere they count as the kernel's.

No C file has a twin; so nothing here has one. Source: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import comb
from typing import TYPE_CHECKING

from memhp.hardware import PAGE_TAIL, PageKind, RecordedPages
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory_model import page_columns_rw
from memhp.linux.include.mm_types import FLAGS, KIND, REFCOUNT
from memhp.linux.include.mmzone import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, Zone
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_FILE,
    KIND_HUGE,
    KIND_HUGETLB,
    KIND_KERNEL,
    KIND_NONE,
    KIND_OTHER,
    KIND_PAGE_TABLE,
    KIND_SLAB,
    PAGE_INITIALISED,
    PG_HEAD,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PG_RESERVED,
    PG_SLAB,
)
from memhp.linux.mm import internal, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

_LOOKS = {
    PageKind.FREE: (0, KIND_NONE),
    PageKind.RESERVED: (PG_RESERVED, KIND_NONE),
    PageKind.OFFLINE: (PG_OFFLINE, KIND_NONE),
    PageKind.SLAB: (PG_SLAB, KIND_KERNEL),
    PageKind.PAGE_TABLE: (0, KIND_PAGE_TABLE),
    PageKind.ANON: (PG_LRU, KIND_ANON),
    PageKind.FILE: (PG_LRU, KIND_FILE),
    PageKind.HUGE: (PG_LRU | PG_HEAD, KIND_HUGE),
    PageKind.HUGETLB: (PG_HEAD, KIND_HUGETLB),
    PageKind.KERNEL: (0, KIND_OTHER),
    PageKind.HWPOISON: (PG_HWPOISON, KIND_OTHER),
}
"""Flags of a page of each kind, and what it is used for."""
_UNMANAGED = frozenset((PageKind.RESERVED, PageKind.OFFLINE))
"""Kinds that a zone does not count as managed."""
_UNMOVABLE = (PageKind.SLAB, PageKind.PAGE_TABLE, PageKind.KERNEL)
_MOVABLE = (PageKind.ANON, PageKind.FILE, PageKind.HUGE, PageKind.HUGETLB)

_PLAIN = bytes(value & ~PAGE_TAIL for value in range(256))
_FLAGS = bytes(
    _LOOKS.get(value & ~PAGE_TAIL, (0, 0))[0] & ~(PG_HEAD if value & PAGE_TAIL else 0)  # type: ignore[call-overload]
    for value in range(256))
_USES = bytes(_LOOKS.get(value & ~PAGE_TAIL, (0, 0))[1] for value in range(256))  # type: ignore[call-overload]
_INITIALISED = bytes(value & PAGE_INITIALISED for value in range(256))
_REFERENCES = bytes(not value & PAGE_TAIL and value != PageKind.FREE for value in range(256))
_IS_FREE = bytes(value == PageKind.FREE for value in range(256))
_IS_PAGE = bytes(value & ~PAGE_TAIL != PageKind.NOPAGE for value in range(256))
_IS_UNMANAGED = bytes(value & ~PAGE_TAIL in _UNMANAGED for value in range(256))
_FREE_IN_MOVABLE = bytes(PageKind.FREE if value == PageKind.KERNEL else value for value in range(256))

_TRIES = 10000

Piece = tuple[Zone, int, bytes]
"""Recorded pages of one section and one zone: the zone, the first pfn, their kinds."""


def take_pages(k: Kernel) -> None:
    """Give every recorded page its kind, those of DIMMs aside, which are not plugged yet. Source: none"""
    spans = [(dimm.start >> k.PAGE_SHIFT, (dimm.start + dimm.size) >> k.PAGE_SHIFT) for dimm in k.hardware.dimms]
    _take(k, [
        piece for piece in _pieces(k) if not any(start <= piece[1] < end for start, end in spans)])


def make_room(k: Kernel, pages: int) -> None:
    """
    Free pages of the kernel's own, for what plugging a DIMM will take: what it took was recorded as the kernel's.

    The memmap takes what a PMD maps, so pieces of that size come first; the rest are single pages, at first those whose buddies
    are in use, for these will be taken first. Source: none
    """
    order = k.arch.PMD_SHIFT(k.config) - k.PAGE_SHIFT
    pages -= _free_kernel_pages(k, order, pages >> order) << order
    pages -= _free_kernel_pages(k, 0, pages)
    _free_kernel_pages(k, 0, pages, merging=True)


def _free_kernel_pages(k: Kernel, order: int, number: int, *, merging: bool = False) -> int:
    """
    Free up to `number` blocks of pages that are all the kernel's own; returns how many there were.

    Args:
        merging: Also single pages that will merge with a free buddy.

    Source: none
    """
    piece = bytes((KIND_OTHER,)) * (1 << order)
    left = number
    for nr in sorted(k.mem_section, reverse=True):
        memmap = k.mem_section[nr].memmap
        if not left or memmap is None or memmap.uniform(KIND) is not None:
            continue
        kinds = memmap.values(KIND, 0, memmap.nr_pages)
        position = kinds.find(piece)
        while position >= 0 and left:
            buddy = position ^ (1 << order)
            alone = order > 0 or merging or kinds[buddy] != KIND_NONE
            if position % (1 << order) or not alone:
                position = kinds.find(piece, position + 1)
                continue
            page_alloc.__free_pages(k, (nr << k.PFN_SECTION_SHIFT) + position, order)
            left -= 1
            kinds = memmap.values(KIND, 0, memmap.nr_pages)
            position = kinds.find(piece, position + (1 << order))
    return number - left


def take_dimm_pages(k: Kernel) -> None:
    """Give the pages of DIMMs their kinds, those that are free once the blocks are online. Source: none"""
    found: list[Piece] = []
    for dimm in k.hardware.dimms:
        start, end = dimm.start >> k.PAGE_SHIFT, (dimm.start + dimm.size) >> k.PAGE_SHIFT
        for zone, pfn, kinds in _pieces(k):
            if start <= pfn < end:
                free = internal.free_mask(k, pfn, pfn + len(kinds))
                found += [(zone, a, kinds[a - pfn : b - pfn]) for a, b in internal.runs(free, pfn)]
    if found:
        _take(k, found)


def _take(k: Kernel, pieces: list[Piece]) -> None:
    """Give the pages of some pieces their kinds. Source: none"""
    covered = [(pfn, pfn + len(kinds)) for _, pfn, kinds in pieces]
    for zone in page_alloc._zones(k):
        if zone.free_area is not None:
            left = list(_without(list(page_alloc.free_ranges(k, zone)), covered))
            page_alloc.zone_init_free_lists(k, zone)
            zone.nr_free_pages = 0
            for start, end in left:
                page_alloc._free_pages_range(k, zone, start, end)
    _choose_migratetypes(k, pieces)
    free: list[tuple[Zone, int, int]] = []
    for zone, pfn, kinds in pieces:
        _store(k, zone, pfn, kinds)
        for start, end in internal.runs(kinds.translate(_IS_FREE), pfn):
            if free and free[-1][0] is zone and free[-1][2] == start:
                free[-1] = (zone, free[-1][1], end)
            else:
                free.append((zone, start, end))
    for zone, start, end in free:
        page_alloc._free_pages_range(k, zone, start, end)
    huge = sum(kinds.count(PageKind.HUGETLB) for _, _, kinds in pieces)
    k.hstate = replace(k.hstate, nr_huge_pages=k.hstate.nr_huge_pages + huge)


def _pieces(k: Kernel) -> Iterator[Piece]:
    """Cut what was recorded at sections and zones, and leave out what has no struct page here. Source: none"""
    for recorded in k.hardware.pages:
        pfn = recorded.start
        while pfn < recorded.end:
            stop = min(recorded.end, (pfn | k.PAGES_PER_SECTION - 1) + 1)
            section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
            if section is not None and section.memmap is not None:
                yield from _by_zone(k, recorded, pfn, stop)
            pfn = stop


def _by_zone(k: Kernel, recorded: RecordedPages, start: int, end: int) -> Iterator[Piece]:
    """The pieces of [start, end), inside one section; struct pages beside a zone, which are no memory, are one of their own."""
    edges = {pfn for zone in page_alloc._zones(k) for pfn in (zone.zone_start_pfn, mmzone.zone_end_pfn(zone))}
    for low, high, valid in mmzone.pfn_valid_runs(k, start, end):
        if not valid:
            continue
        cuts = sorted({low, high, *(pfn for pfn in edges if low < pfn < high)})
        for first, stop in pairwise(cuts):
            zone = mm.page_zone(k, first)
            if zone.free_area is None:
                continue
            kinds = recorded.kinds[first - recorded.start : stop - recorded.start]
            for a, b in internal.runs(kinds.translate(_IS_PAGE), first):
                piece = kinds[a - first : b - first]
                yield zone, a, piece.translate(_FREE_IN_MOVABLE) if zone.idx == k.ZONE_MOVABLE else piece


def _without(ranges: list[tuple[int, int]], covered: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of `ranges` that no covered range touches. Source: none"""
    covered = sorted(covered)
    for start, end in sorted(ranges):
        for low, high in covered:
            if high <= start:
                continue
            if low >= end:
                break
            if start < low:
                yield start, low
            start = max(start, high)
        if start < end:
            yield start, end


def _store(k: Kernel, zone: Zone, pfn: int, kinds: bytes) -> None:
    """Write the columns of a piece; a zone manages what is neither reserved nor offline. Source: none"""
    columns = page_columns_rw(k, pfn)
    start = pfn & (k.PAGES_PER_SECTION - 1)
    end = start + len(kinds)
    before = end - start - columns.count(FLAGS, start, end, PG_RESERVED | PG_OFFLINE, 0)
    change = before - kinds.translate(_IS_UNMANAGED).count(1)
    zone.managed_pages += change
    k.totalram_pages += change
    made = int.from_bytes(columns.values(FLAGS, start, end).translate(_INITIALISED), "little")
    flags = int.from_bytes(kinds.translate(_FLAGS), "little") | made
    columns.store(FLAGS, start, flags.to_bytes(len(kinds), "little"))
    columns.store(REFCOUNT, start, kinds.translate(_REFERENCES))
    columns.store(KIND, start, _uses(k, pfn, kinds))


def _uses(k: Kernel, pfn: int, kinds: bytes) -> bytes:
    """What each page is used for: slab of a reclaimable pageblock is reclaimable slab. Source: none"""
    uses = bytearray(kinds.translate(_USES))
    size = k.pageblock_nr_pages
    for block in range(pfn - pfn % size, pfn + len(kinds), size):
        if page_alloc.get_pageblock_migratetype(k, block) == MIGRATE_RECLAIMABLE:
            low, high = max(block - pfn, 0), min(block + size - pfn, len(kinds))
            uses[low:high] = uses[low:high].replace(bytes((KIND_KERNEL,)), bytes((KIND_SLAB,)))
    return bytes(uses)


@dataclass(frozen=True, slots=True)
class _Block:
    """A pageblock: its first pfn, and how many of its pages stay where they are, move, are slab, are reserved, are not free."""

    pfn: int
    stay: int
    move: int
    slab: int
    reserved: int
    used: int


def _choose_migratetypes(k: Kernel, pieces: list[Piece]) -> None:
    """
    Give each pageblock a migratetype that fits what lies in it.

    As many as were recorded are unmovable and reclaimable, those with the most pages that do not move first. Whether reserved
    pages count among these depends on the kernel: as it fits the pages in use that were recorded. Without such a record a
    pageblock is unmovable if fewer pages in it move than do not. Isolated ones and others of a kind of their own stay what they
    are. Source: none
    """
    found: dict[tuple[int, str], list[_Block]] = {}
    for zone, pfn, kinds in _blocks(k, pieces):
        if page_alloc.get_pageblock_migratetype(k, pfn) in (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE):
            plain = kinds.translate(_PLAIN)
            stay, move = (sum(map(plain.count, group)) for group in (_UNMOVABLE, _MOVABLE))
            block = _Block(
                pfn, stay, move, plain.count(PageKind.SLAB), plain.count(PageKind.RESERVED),
                k.pageblock_nr_pages - plain.count(PageKind.FREE))
            found.setdefault((zone.nid, zone.name), []).append(block)
    for (nid, name), blocks in found.items():
        unmovable, used_unmovable = k.hardware.pageblocks.get((nid, name, "Unmovable"), (-1, 0))
        reclaimable, used = k.hardware.pageblocks.get((nid, name, "Reclaimable"), (-1, 0))
        if unmovable < 0 or reclaimable < 0:
            unmovable, reclaimable = sum(block.stay > block.move for block in blocks), 0
        orders = [
            sorted(blocks, key=lambda block: (block.move - block.stay, block.pfn)),
            sorted(blocks, key=lambda block: (block.move - block.stay - block.reserved, block.pfn)),
        ]
        number, total = unmovable + reclaimable, used_unmovable + used
        order = min(orders, key=lambda order: abs(sum(block.used for block in order[:number]) - total))
        chosen = _reclaimable(order[:number], reclaimable, used)
        for place, block in enumerate(order):
            stays = MIGRATE_RECLAIMABLE if block in chosen else MIGRATE_UNMOVABLE
            page_alloc.set_pageblock_migratetype(k, block.pfn, stays if place < number else MIGRATE_MOVABLE)


def _reclaimable(blocks: list[_Block], number: int, used: int) -> list[_Block]:
    """
    Return which of some pageblocks are the reclaimable ones: those that have the pages in use that were recorded of them.

    Where there are too many to try, the ones in which slab outweighs the rest most. Source: none
    """
    if number <= 0 or comb(len(blocks), number) > _TRIES:
        return sorted(blocks, key=lambda block: (block.stay - 2 * block.slab, block.pfn))[: max(number, 0)]
    return list(min(combinations(blocks, number), key=lambda some: abs(sum(block.used for block in some) - used)))


def _blocks(k: Kernel, pieces: list[Piece]) -> Iterator[Piece]:
    """Cut pieces at pageblocks: (zone, first pfn of the pageblock, kinds of its pages that were recorded). Source: none"""
    size = k.pageblock_nr_pages
    last: Piece | None = None
    for zone, pfn, kinds in pieces:
        for block in range(pfn - pfn % size, pfn + len(kinds), size):
            part = kinds[max(block - pfn, 0) : block + size - pfn]
            if last is not None and last[0] is zone and last[1] == block:
                last = (zone, block, last[2] + part)
                continue
            if last is not None:
                yield last
            last = (zone, block, part)
    if last is not None:
        yield last
