# SPDX-License-Identifier: GPL-2.0-only
"""
The page allocator: zones being set up, free lists, watermarks.

The parts. A zone's free pages lie in `free_area[order].free_list[migratetype]`; freeing merges buddies upwards, allocating
splits downwards. A pageblock (2^pageblock_order pages) has a migratetype, and an allocation that finds no free page of its own
type steals from another, taking the whole pageblock with it when it can: that is how one kernel allocation makes a hot-added
block unremovable. Watermarks keep some pages of each zone back; they are recomputed whenever memory goes online.

The per-cpu page lists of C are not kept: a freed page goes to the buddy lists at once, as if the lists were drained, which is
what a quiet machine looks like.

Locks: free lists under zone->lock; zonelists_mutex around rebuilding zonelists and watermarks.

Source: mm/page_alloc.c [v4.9].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from errno import EBUSY, ENOMEM
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, NoReturn

from memhp.errors import KernelError
from memhp.linux import bug, sched
from memhp.linux.bug import BUG_ON, WARN_ON, printk
from memhp.linux.include import mm, mmzone
from memhp.linux.include.gfp import Gfp
from memhp.linux.include.memory_model import page_columns, page_ranges, page_ranges_rw
from memhp.linux.include.mm_types import FLAGS, KIND, NODE, REFCOUNT, ZONE, PageColumns
from memhp.linux.include.mmzone import (
    MEMINIT_HOTPLUG,
    MIGRATE_CMA,
    MIGRATE_ISOLATE,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    FreeArea,
    PglistData,
    Zone,
)
from memhp.linux.include.numa import MAX_NUMNODES
from memhp.linux.include.page_flags import (
    KIND_HUGETLB,
    KIND_NONE,
    PAGE_INITIALISED,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PG_RESERVED,
    ClearPageReserved,
    SetPageReserved,
)
from memhp.linux.mm import compaction, khugepaged, migrate, page_isolation, sparse, vmstat

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

MEMMAP_EARLY = "MEMMAP_EARLY"
MEMMAP_HOTPLUG = "MEMMAP_HOTPLUG"

_FALLBACKS = {
    MIGRATE_UNMOVABLE: (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE),
    MIGRATE_RECLAIMABLE: (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE),
    MIGRATE_MOVABLE: (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE),
}
_WATERMARK_SCALE_FACTOR = 10
_SWAP_CLUSTER_MAX = 32
_LOWMEM_RESERVE_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32, "Movable": 32, "Device": 32}


# Pageblocks


def _no_usemap(k: Kernel, pfn: int) -> NoReturn:
    """The usemap of an absent section is a NULL pointer. Source: mm/page_alloc.c get_pageblock_bitmap()"""
    arm64 = "Unable to handle kernel NULL pointer dereference at virtual address 00000000"
    text = arm64 if k.arch.name == "arm64" else "BUG: unable to handle kernel NULL pointer dereference"
    bug.oops(k.log, text, f"the migratetype of pfn {pfn:#x} was wanted, but its section has no usemap")


def get_pageblock_migratetype(k: Kernel, pfn: int) -> int:
    """
    Return the migratetype of the pageblock a pfn lies in.

    Raises:
        KernelBugError: its section is absent.
    """
    section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
    usemap = None if section is None else section.pageblock_flags
    if usemap is None:
        _no_usemap(k, pfn)
    if isinstance(usemap, int):
        return usemap
    return usemap[(pfn & (k.PAGES_PER_SECTION - 1)) >> k.pageblock_order]


def set_pfnblock_flags_mask(k: Kernel, pfn: int, nr_pages: int, migratetype: int) -> None:
    """
    Write the migratetype of every pageblock that begins in [pfn, pfn + nr_pages), within one section.

    Raises:
        KernelBugError: the section is absent.
    """
    nr = pfn >> k.PFN_SECTION_SHIFT
    if nr not in k.mem_section or k.mem_section[nr].pageblock_flags is None:
        _no_usemap(k, pfn)
    section = k.section_rw(nr)
    if nr_pages == k.PAGES_PER_SECTION:
        section.pageblock_flags = migratetype
        return
    usemap = section.pageblock_flags
    first = (pfn & (k.PAGES_PER_SECTION - 1)) >> k.pageblock_order
    if usemap is None or usemap == migratetype:
        return
    if isinstance(usemap, int):
        usemap = section.pageblock_flags = bytearray([usemap]) * (k.PAGES_PER_SECTION >> k.pageblock_order)
    count = -(-nr_pages >> k.pageblock_order)
    usemap[first : first + count] = bytes([migratetype]) * count


def set_pageblock_migratetype(k: Kernel, pfn: int, migratetype: int, nr_pages: int = 1) -> None:
    """
    Give a pageblock (with `nr_pages`: all that begin in the range, inside one section) a migratetype.

    Source: mm/page_alloc.c set_pageblock_migratetype()
    """
    if k.page_group_by_mobility_disabled and migratetype < MIGRATE_PCPTYPES:
        migratetype = MIGRATE_UNMOVABLE
    set_pfnblock_flags_mask(k, pfn, nr_pages, migratetype)


def _pageblock_type_runs(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """
    The runs (start, end, migratetype) of pageblocks of one type in [start, end), which has sections throughout.

    Raises:
        KernelBugError: it has not.

    Source: none
    """
    while start < end:
        stop = min(end, (start | (k.PAGES_PER_SECTION - 1)) + 1)
        found = get_pageblock_migratetype(k, start)
        usemap = k.mem_section[start >> k.PFN_SECTION_SHIFT].pageblock_flags
        if isinstance(usemap, bytearray):
            index = (start & (k.PAGES_PER_SECTION - 1)) >> k.pageblock_order
            last = (stop - 1 & (k.PAGES_PER_SECTION - 1)) >> k.pageblock_order
            while index < last and usemap[index + 1] == found:
                index += 1
            stop = min(stop, (start & ~(k.PAGES_PER_SECTION - 1)) + ((index + 1) << k.pageblock_order))
        yield start, stop, found
        start = stop


# Freeing


def _take_buddy(lists: list[OrderedDict[int, None]], pfn: int, likely: int) -> bool:
    """
    Take `pfn` off whichever list of its order it is on, `likely` first; False if it is on none.

    Source: page_is_buddy() and list_del()
    """
    if pfn in lists[likely]:
        del lists[likely][pfn]
        return True
    for pages in lists:
        if pfn in pages:
            del pages[pfn]
            return True
    return False


def _has_isolate_pageblock(k: Kernel, zone: Zone, pfn: int, buddy: int, migratetype: int) -> bool:
    """Whether merging with `buddy` would join an isolated pageblock with another. Source: __free_one_page()"""
    if not zone.nr_isolate_pageblock:
        return False
    other = get_pageblock_migratetype(k, buddy)
    return migratetype != other and MIGRATE_ISOLATE in (migratetype, other)


def __free_one_page(k: Kernel, pfn: int, zone: Zone, order: int, migratetype: int, *, to_tail: bool = False) -> None:
    """
    Put 2^order pages on the free lists, merging with free buddies.

    Args:
        to_tail: At the tail of the list; else where they are likely to stay (FPI_TO_TAIL).

    Context: zone->lock held.
    Source: mm/page_alloc.c __free_one_page() [v4.9]
    """
    area = k.free_area_rw(zone)
    if migratetype != MIGRATE_ISOLATE:
        zone.nr_free_pages += 1 << order
        if migratetype == MIGRATE_CMA:
            zone.nr_free_cma_pages += 1 << order
    free_list = area.free_list
    nr_free = area.nr_free
    top = k.MAX_ORDER - 1
    while order < top:
        buddy = pfn ^ (1 << order)
        if order >= k.pageblock_order and _has_isolate_pageblock(k, zone, pfn, buddy, migratetype):
            break
        if not _take_buddy(free_list[order], buddy, migratetype):
            break
        nr_free[order] -= 1
        pfn &= buddy
        order += 1
    nr_free[order] += 1
    if order == top:
        if to_tail:
            area.blocks[migratetype].add_tail(pfn, pfn + (1 << order))
        else:
            area.blocks[migratetype].add(pfn, pfn + (1 << order))
        return
    pages = free_list[order][migratetype]
    pages[pfn] = None
    if to_tail:
        pages.move_to_end(pfn, last=False)
    elif order < k.MAX_ORDER - 2:
        # If the next-higher buddy is free too, the two are likely to merge soon: use this one last.
        combined = pfn & ~(1 << order)
        higher_buddy = combined ^ (1 << (order + 1))
        if any(higher_buddy in lists for lists in free_list[order + 1]):
            pages.move_to_end(pfn, last=False)


def free_one_page(k: Kernel, zone: Zone, pfn: int, order: int, migratetype: int) -> None:
    """Source: mm/page_alloc.c free_one_page()"""
    __free_one_page(k, pfn, zone, order, migratetype)


def __free_pages_ok(k: Kernel, pfn: int, order: int) -> None:
    """Source: mm/page_alloc.c __free_pages_ok()"""
    nr_pages = 1 << order
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.fill(REFCOUNT, start, end, 0)
        columns.fill(KIND, start, end, KIND_NONE)
        columns.clear_bits(FLAGS, start, end, 0xFF & ~(PAGE_INITIALISED | PG_HWPOISON))
    free_one_page(k, mm.page_zone(k, pfn), pfn, order, get_pageblock_migratetype(k, pfn))


def __free_pages(k: Kernel, pfn: int, order: int) -> None:
    """
    Give back what __alloc_pages_nodemask() handed out.

    Source: mm/page_alloc.c __free_pages()
    """
    __free_pages_ok(k, pfn, order)


def _free_used_pages(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Free pages that were in use, one after the other in ascending order.

    Source: none; a loop over __free_pages() for order 0
    """
    for start, stop in _zone_pieces(k, pfn, pfn + nr_pages):
        for columns, low, high, _ in page_ranges_rw(k, start, stop - start):
            columns.fill(REFCOUNT, low, high, 0)
            columns.fill(KIND, low, high, KIND_NONE)
            columns.clear_bits(FLAGS, low, high, 0xFF & ~(PAGE_INITIALISED | PG_HWPOISON))
        _free_pages_range(k, mm.page_zone(k, start), start, stop)


def _migratetype_runs(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """
    Cut largest blocks [start, end) where the list they go to changes: (start, end, migratetype).

    A block that spans pageblocks of different types goes to the list of its last, whose pages are freed last. Source: none
    """
    mask = k.PAGES_PER_SECTION - 1
    step = max(k.pageblock_nr_pages, 1 << (k.MAX_ORDER - 1))
    while start < end:
        stop = min(end, (start | mask) + 1)
        section = k.mem_section.get(start >> k.PFN_SECTION_SHIFT)
        if section is None or isinstance(section.pageblock_flags, bytearray):
            stop = min(stop, (start | (step - 1)) + 1)
        yield start, stop, get_pageblock_migratetype(k, stop - 1)
        start = stop


def _free_pages_range(k: Kernel, zone: Zone, start: int, end: int) -> None:
    """
    Free every page of [start, end), all of `zone`, in ascending order; refcounts and flags are dealt with already.

    The same lists come out as from freeing page by page: largest blocks land on the list's head one after the other, the
    unaligned rest merges as __free_one_page() does. Source: none
    """
    size = 1 << (k.MAX_ORDER - 1)
    first, last = -(-start // size) * size, end // size * size
    if first >= last:
        _free_small(k, zone, start, end)
        return
    if start < first:
        _free_small(k, zone, start, first)
    area = k.free_area_rw(zone)
    for run_start, run_end, migratetype in _migratetype_runs(k, first, last):
        area.blocks[migratetype].add(run_start, run_end)
        area.nr_free[k.MAX_ORDER - 1] += (run_end - run_start) // size
        if migratetype != MIGRATE_ISOLATE:
            zone.nr_free_pages += run_end - run_start
            if migratetype == MIGRATE_CMA:
                zone.nr_free_cma_pages += run_end - run_start
    if last < end:
        _free_small(k, zone, last, end)


def _free_small(k: Kernel, zone: Zone, start: int, end: int) -> None:
    """
    Free [start, end) in the largest aligned pieces; each ends up where its last page would, were it freed page by page.

    Source: mm/nobootmem.c __free_pages_memory()
    """
    while start < end:
        order = min(k.MAX_ORDER - 1, (start & -start).bit_length() - 1) if start else k.MAX_ORDER - 1
        while start + (1 << order) > end:
            order -= 1
        __free_one_page(k, start, zone, order, get_pageblock_migratetype(k, start + (1 << order) - 1))
        start += 1 << order


def __free_pages_core(k: Kernel, pfn: int, nr_pages: int, context: str) -> None:
    """
    Give pages, all of one zone, to the buddy: they count as managed from here on.

    Args:
        context: MEMINIT_EARLY for boot memory, MEMINIT_HOTPLUG for what goes online.

    Source: mm/page_alloc.c __free_pages_core() [v5.10, v6.12], which is called for each block
    """
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.clear_bits(FLAGS, start, end, PG_RESERVED | PG_OFFLINE)
        columns.fill(REFCOUNT, start, end, 0)
    zone = mm.page_zone(k, pfn)
    zone.managed_pages += nr_pages
    if context == MEMINIT_HOTPLUG:
        k.totalram_pages += nr_pages
    _free_pages_range(k, zone, pfn, pfn + nr_pages)


def zone_pcp_disable(k: Kernel, zone: Zone) -> None:
    """Let freed pages go to the buddy at once; here they always do. Source: mm/page_alloc.c zone_pcp_disable() [v5.11]"""
    drain_all_pages(k, zone)


def zone_pcp_enable(k: Kernel, zone: Zone) -> None:
    """Source: mm/page_alloc.c zone_pcp_enable() [v5.11]"""


def drain_all_pages(k: Kernel, zone: Zone) -> None:
    """Give the pages of the per-cpu lists back; there are none here. Source: mm/page_alloc.c drain_all_pages()"""


def adjust_managed_page_count(k: Kernel, pfn: int, count: int) -> None:
    """Source: mm/page_alloc.c adjust_managed_page_count()"""
    mm.page_zone(k, pfn).managed_pages += count
    k.totalram_pages += count


def __free_reserved_page(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Turn reserved pages into free ones: a range of one zone, in ascending order.

    Source: include/linux/mm.h __free_reserved_page()
    """
    zone = mm.page_zone(k, pfn)
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.clear_bits(FLAGS, start, end, 0xFF & ~(PAGE_INITIALISED | PG_HWPOISON))
        columns.fill(REFCOUNT, start, end, 0)
        columns.fill(KIND, start, end, KIND_NONE)
    _free_pages_range(k, zone, pfn, pfn + nr_pages)


def free_reserved_area(k: Kernel, start: int, end: int, s: str) -> int:
    """
    Give back memory that boot no longer needs, bytes [start, end), whole pages only; returns the number of pages.

    Source: mm/page_alloc.c free_reserved_area()
    """
    pfn, end_pfn = -(-start >> k.PAGE_SHIFT), end >> k.PAGE_SHIFT
    if pfn >= end_pfn:
        return 0
    for piece, stop in _zone_pieces(k, pfn, end_pfn):
        ClearPageReserved(k, piece, stop - piece)
        __free_reserved_page(k, piece, stop - piece)
        adjust_managed_page_count(k, piece, stop - piece)
    printk(k.log, f"Freeing {s} memory: {(end_pfn - pfn) << (k.PAGE_SHIFT - 10)}K")
    return end_pfn - pfn


def _zone_pieces(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut [start, end) where the pages' zone changes. Source: none"""
    while start < end:
        zone = mm.page_zone(k, start)
        stop = min(end, mmzone.zone_end_pfn(zone)) if mmzone.zone_spans_pfn(zone, start) else end
        yield start, stop
        start = stop


# Allocating


def _first_free(area: FreeArea, order: int, migratetype: int, top: int) -> int:
    """Return the head of a free list, or -1. Source: list_first_entry_or_null()"""
    if order == top:
        blocks = area.blocks[migratetype]
        return blocks.first() if blocks else -1
    pages = area.free_list[order][migratetype]
    return next(reversed(pages)) if pages else -1


def _del_page(area: FreeArea, order: int, migratetype: int, pfn: int, top: int) -> None:
    """list_del() from a known list. Source: none"""
    if order == top:
        area.blocks[migratetype].remove(pfn)
    else:
        del area.free_list[order][migratetype][pfn]
    area.nr_free[order] -= 1


def expand(area: FreeArea, pfn: int, low: int, high: int, migratetype: int) -> None:
    """Split a block of order `high` down to `low`; the upper halves go on the free lists. Source: mm/page_alloc.c expand()"""
    while high > low:
        high -= 1
        area.free_list[high][migratetype][pfn + (1 << high)] = None
        area.nr_free[high] += 1


def take_page_off_buddy(k: Kernel, pfn: int) -> bool:
    """
    Take one page out of the free block it lies in; the rest stays free. False if it is not free.

    Source: mm/page_alloc.c take_page_off_buddy(), break_down_buddy_pages() [v5.10]
    """
    zone = mm.page_zone(k, pfn)
    for order in range(k.MAX_ORDER):
        head = pfn & ~((1 << order) - 1)
        found = page_order(k, head) if mm.page_zone(k, head) is zone else -1
        if found < order:
            continue
        migratetype = get_pageblock_migratetype(k, head)
        area = k.free_area_rw(zone)
        _del_page(area, found, migratetype, head, k.MAX_ORDER - 1)
        high = found
        while high > 0:
            high -= 1
            middle = head + (1 << high)
            kept = head if pfn >= middle else middle
            area.free_list[high][migratetype][kept] = None
            area.nr_free[high] += 1
            head = middle if pfn >= middle else head
        if migratetype != MIGRATE_ISOLATE:
            zone.nr_free_pages -= 1
        return True
    return False


def __rmqueue_smallest(k: Kernel, zone: Zone, order: int, migratetype: int) -> int:
    """Take the smallest block that fits from the lists of one migratetype; -1 if there is none."""
    area = k.free_area_rw(zone)
    top = k.MAX_ORDER - 1
    for current_order in range(order, k.MAX_ORDER):
        if not area.nr_free[current_order]:
            continue
        pfn = _first_free(area, current_order, migratetype, top)
        if pfn < 0:
            continue
        _del_page(area, current_order, migratetype, pfn, top)
        if current_order > order:
            expand(area, pfn, order, current_order, migratetype)
        return pfn
    return -1


def can_steal_fallback(k: Kernel, order: int, start_mt: int) -> bool:
    """Source: mm/page_alloc.c can_steal_fallback() [v4.9]"""
    if order >= k.pageblock_order:
        return True
    return (
        order >= k.pageblock_order // 2
        or start_mt in (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE)
        or k.page_group_by_mobility_disabled
    )


def find_suitable_fallback(k: Kernel, area: FreeArea, order: int, migratetype: int) -> tuple[int, bool]:
    """Return (another migratetype with a free block of this order or -1, whether its pageblock may be taken over)."""
    if area.nr_free[order] == 0:
        return -1, False
    top = k.MAX_ORDER - 1
    for fallback_mt in _FALLBACKS[migratetype]:
        if _first_free(area, order, fallback_mt, top) >= 0:
            return fallback_mt, can_steal_fallback(k, order, migratetype)
    return -1, False


def _pull_range(area: FreeArea, start: int, end: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """
    Take the free blocks that begin in [start, end) off their lists.

    Returns:
        Those below the largest order as (first pfn, order), and runs [first, last + 1) of the largest; both in ascending order.

    Source: none
    """
    small: list[tuple[int, int]] = []
    for order, types in enumerate(area.free_list):
        if not area.nr_free[order]:
            continue
        for pages in types:
            found = [pfn for pfn in pages if start <= pfn < end]
            for pfn in found:
                del pages[pfn]
                small.append((pfn, order))
            area.nr_free[order] -= len(found)
    small.sort()
    size = area.blocks[0].size
    low, high = -(-start // size) * size, -(-end // size) * size
    runs = sorted(run for blocks in area.blocks if blocks for run in blocks.take(low, high)) if low < high else []
    if runs:
        area.nr_free[-1] -= sum(high - low for low, high in runs) // size
    return small, runs


def move_freepages(k: Kernel, zone: Zone, start: int, end: int, migratetype: int) -> int:
    """
    Move the free blocks that begin in [start, end) to the head (from v5.10 on: the tail) of a migratetype's lists; returns their
    pages.

    In C the range is one pageblock. Blocks are moved in ascending order, also those on these lists already. Under DEBUG_VM the
    first and the last page must name one zone; where one of them was never initialised, it does not.

    Raises:
        KernelBugError: they do not, or a page has no memmap.

    Source: mm/page_alloc.c move_freepages() [v4.9]
    """
    if k.config.DEBUG_VM and not k.config.HOLES_IN_ZONE:
        BUG_ON(
            k.log, mm.page_zone(k, start) is not mm.page_zone(k, end - 1),
            f"pages {start:#x} and {end - 1:#x} of one pageblock name different zones")
    if k.page_watch is not None:
        for low, high, valid in _within_runs(k, start, end):
            for _ in page_ranges(k, low, high - low) if valid else ():
                pass
    area = k.free_area_rw(zone)
    small, runs = _pull_range(area, start, end)
    return _link_range(k, area, small, runs, migratetype)


def _link_range(
    k: Kernel, area: FreeArea, small: list[tuple[int, int]], runs: list[tuple[int, int]], migratetype: int,
) -> int:
    """
    Put free blocks that _pull_range() took on a migratetype's lists, in ascending order; returns their pages.

    Source: mm/page_alloc.c move_to_free_list(), which from v5.10 on adds to the tail
    """
    tail = k.tree.free_pages_move_to_tail
    moved = 0
    for pfn, order in small:
        pages = area.free_list[order][migratetype]
        pages[pfn] = None
        if tail:
            pages.move_to_end(pfn, last=False)
        area.nr_free[order] += 1
        moved += 1 << order
    blocks = area.blocks[migratetype]
    for low, high in runs:
        if tail:
            blocks.add_tail(low, high)
        else:
            blocks.add(low, high)
        area.nr_free[-1] += (high - low) // blocks.size
        moved += high - low
    return moved


def move_freepages_block(k: Kernel, zone: Zone, pfn: int, migratetype: int, nr_pages: int = 1) -> int:
    """
    Move the free pages of a pageblock (with `nr_pages`: of all that the range touches) to a migratetype's lists.

    Source: mm/page_alloc.c move_freepages_block() [v4.9]
    """
    start_pfn = pfn & ~(k.pageblock_nr_pages - 1)
    end_pfn = (pfn + nr_pages - 1) | (k.pageblock_nr_pages - 1)
    start = start_pfn if mmzone.zone_spans_pfn(zone, start_pfn) else pfn
    if not mmzone.zone_spans_pfn(zone, end_pfn):
        return 0
    return move_freepages(k, zone, start, end_pfn + 1, migratetype)


def move_freepages_block_isolate(k: Kernel, zone: Zone, pfn: int, migratetype: int, nr_pages: int = 1) -> int:
    """
    Move the free pages of a pageblock (with `nr_pages`: of all that the range touches) that is to be isolated, or not any more,
    and set its type. Returns how many.

    A free block that reaches across an end of the range is split into pageblocks. In C all that are larger than a pageblock are;
    here those inside go along whole, which comes to the same once the range is isolated, or given back.

    Source: mm/page_alloc.c move_freepages_block_isolate() [v6.10]
    """
    area = k.free_area_rw(zone)
    start = pfn & ~(k.pageblock_nr_pages - 1)
    end = (pfn + nr_pages - 1 | (k.pageblock_nr_pages - 1)) + 1
    split = _pull_straddling(k, zone, start, end)
    small, runs = _pull_range(area, start, end)
    set_pageblock_migratetype(k, pfn, migratetype, nr_pages)
    moved = _link_range(k, area, small, runs, migratetype)
    for head in split:
        split_large_buddy(k, zone, head, k.MAX_ORDER - 1)
    return moved


def _pull_straddling(k: Kernel, zone: Zone, *edges: int) -> list[int]:
    """Take the free blocks that reach across one of some pfns off their lists; returns their first pfns. Source: none"""
    area = k.free_area_rw(zone)
    size = 1 << k.MAX_ORDER - 1
    found: list[int] = []
    for head in dict.fromkeys(edge & -size for edge in edges if edge & size - 1):
        for migratetype, blocks in enumerate(area.blocks):
            if head not in blocks:
                continue
            blocks.remove(head)
            area.nr_free[-1] -= 1
            if migratetype != MIGRATE_ISOLATE:
                zone.nr_free_pages -= size
            if migratetype == MIGRATE_CMA:
                zone.nr_free_cma_pages -= size
            found.append(head)
            break
    return found


def _split_free_page_across(k: Kernel, zone: Zone, pfn: int) -> None:
    """
    Split the free block that reaches across a pfn, if there is one.

    Source: mm/page_isolation.c isolate_single_pageblock() [v5.19]
    """
    for head in _pull_straddling(k, zone, pfn):
        split_large_buddy(k, zone, head, k.MAX_ORDER - 1)


def split_large_buddy(k: Kernel, zone: Zone, pfn: int, order: int) -> None:
    """
    Free what was one free block pageblock by pageblock, each to the lists of its own type.

    Source: mm/page_alloc.c split_large_buddy() [v6.10], split_free_page() [v5.19]
    """
    for block in range(pfn, pfn + (1 << order), k.pageblock_nr_pages):
        __free_one_page(k, block, zone, k.pageblock_order, get_pageblock_migratetype(k, block))


def _move_isolated_back(k: Kernel, zone: Zone, pfn: int, migratetype: int, nr_pages: int) -> None:
    """
    Give isolated pageblocks their type back, and their free pages to that type's lists, in ascending order.

    Where a free block may be larger than a pageblock: one as large as a pageblock, whose buddy is not isolated any more, is freed
    anew, and so may merge with it. Larger ones have nothing to merge with.

    Source: mm/page_isolation.c unset_migratetype_isolate() [v4.9, v5.10, v6.12]
    """
    area = k.free_area_rw(zone)
    start = pfn & ~(k.pageblock_nr_pages - 1)
    end = (pfn + nr_pages - 1 | (k.pageblock_nr_pages - 1)) + 1
    small, runs = _pull_range(area, start, end)
    set_pageblock_migratetype(k, pfn, migratetype, nr_pages)
    at = 0
    for block, order in small:
        buddy = block ^ (1 << order)
        if order >= k.pageblock_order and (
                start <= buddy < block
                or (not start <= buddy < end and get_pageblock_migratetype(k, buddy) != MIGRATE_ISOLATE)):
            while at < len(runs) and runs[at][0] < block:
                zone.nr_free_pages += _link_range(k, area, [], [runs[at]], migratetype)
                at += 1
            __free_one_page(k, block, zone, order, migratetype, to_tail=k.tree.free_pages_move_to_tail)
        else:
            zone.nr_free_pages += _link_range(k, area, [(block, order)], [], migratetype)
    zone.nr_free_pages += _link_range(k, area, [], runs[at:], migratetype)


def change_pageblock_range(k: Kernel, pfn: int, start_order: int, migratetype: int) -> None:
    """Source: mm/page_alloc.c change_pageblock_range()"""
    for block in range(pfn, pfn + (1 << start_order), k.pageblock_nr_pages):
        set_pageblock_migratetype(k, block, migratetype)


def steal_suitable_fallback(k: Kernel, zone: Zone, pfn: int, current_order: int, start_type: int) -> None:
    """Take over the pageblock of a free page of another type, whole or in part. Source: steal_suitable_fallback() [v4.9]"""
    if current_order >= k.pageblock_order:
        change_pageblock_range(k, pfn, current_order, start_type)
        return
    pages = move_freepages_block(k, zone, pfn, start_type)
    if pages >= 1 << (k.pageblock_order - 1) or k.page_group_by_mobility_disabled:
        set_pageblock_migratetype(k, pfn, start_type)


def __rmqueue_fallback(k: Kernel, zone: Zone, order: int, start_migratetype: int) -> int:
    """Take from the largest free block of another migratetype; -1 if there is none. Source: __rmqueue_fallback() [v4.9]"""
    area = k.free_area_rw(zone)
    top = k.MAX_ORDER - 1
    for current_order in range(top, order - 1, -1):
        fallback_mt, can_steal = find_suitable_fallback(k, area, current_order, start_migratetype)
        if fallback_mt == -1:
            continue
        pfn = _first_free(area, current_order, fallback_mt, top)
        if can_steal:
            steal_suitable_fallback(k, zone, pfn, current_order, start_migratetype)
        on = start_migratetype if can_steal and current_order < k.pageblock_order else fallback_mt
        if current_order == top:
            if pfn not in area.blocks[on]:
                on = fallback_mt
        elif pfn not in area.free_list[current_order][on]:
            on = fallback_mt
        _del_page(area, current_order, on, pfn, top)
        expand(area, pfn, order, current_order, start_migratetype)
        return pfn
    return -1


def __rmqueue_cma_fallback(k: Kernel, zone: Zone, order: int) -> int:
    """Take from CMA; -1 if there is none. Source: mm/page_alloc.c __rmqueue_cma_fallback()"""
    pfn = __rmqueue_smallest(k, zone, order, MIGRATE_CMA)
    if pfn >= 0:
        zone.nr_free_cma_pages -= 1 << order
    return pfn


def __rmqueue(k: Kernel, zone: Zone, order: int, migratetype: int) -> int:
    """
    Take from the lists of one migratetype, or from others'.

    Movable allocations may have CMA's pages, and have them first as long as those are more than half of all that is free.

    Source: mm/page_alloc.c __rmqueue() [all]
    """
    alloc_cma = migratetype == MIGRATE_MOVABLE and zone.nr_free_cma_pages
    if alloc_cma and zone.nr_free_cma_pages > zone.nr_free_pages // 2:
        pfn = __rmqueue_cma_fallback(k, zone, order)
        if pfn >= 0:
            return pfn
    pfn = __rmqueue_smallest(k, zone, order, migratetype)
    if pfn < 0 and alloc_cma:
        pfn = __rmqueue_cma_fallback(k, zone, order)
    if pfn < 0:
        pfn = __rmqueue_fallback(k, zone, order, migratetype)
    return pfn


def __zone_watermark_ok(k: Kernel, z: Zone, order: int, mark: int, classzone_idx: int, alloc_cma: bool = False) -> bool:
    """
    Whether an allocation leaves the zone above `mark` and finds a block of its order.

    Args:
        alloc_cma: The allocation may have CMA's pages.

    Source: mm/page_alloc.c __zone_watermark_ok() [v4.9]
    """
    free_pages = z.nr_free_pages if alloc_cma else z.nr_free_pages - z.nr_free_cma_pages
    if free_pages - ((1 << order) - 1) <= mark + z.lowmem_reserve[classzone_idx]:
        return False
    if not order:
        return True
    area = z.free_area
    if area is None:
        return False
    for o in range(order, k.MAX_ORDER - 1):
        if area.nr_free[o]:
            for mt in range(MIGRATE_PCPTYPES):
                if area.free_list[o][mt]:
                    return True
            if alloc_cma and k.config.CMA and area.free_list[o][MIGRATE_CMA]:
                return True
    types = (*range(MIGRATE_PCPTYPES), MIGRATE_CMA) if alloc_cma and k.config.CMA else range(MIGRATE_PCPTYPES)
    return any(area.blocks[mt] for mt in types)


def get_page_from_freelist(
    k: Kernel, gfp: Gfp, order: int, nid: int, mark: int, nodemask: frozenset[int] | None = None,
) -> int:
    """
    Walk the node's zonelist for 2^order pages; returns the first pfn, or -1.

    Args:
        mark: WMARK_LOW or WMARK_MIN.
        nodemask: Only zones of these nodes.

    Source: mm/page_alloc.c get_page_from_freelist()
    """
    high_zoneidx = k.ZONE_MOVABLE if gfp.movable_zone else k.ZONE_NORMAL
    classzone_idx = -1
    for zone_nid, idx in k.nodes[nid].node_zonelist:
        if idx > high_zoneidx or (nodemask is not None and zone_nid not in nodemask):
            continue
        zone = k.nodes[zone_nid].node_zones[idx]
        if classzone_idx < 0:
            classzone_idx = idx
        alloc_cma = gfp.migratetype == MIGRATE_MOVABLE
        if not __zone_watermark_ok(k, zone, order, zone.watermark[mark], classzone_idx, alloc_cma):
            continue
        pfn = __rmqueue(k, zone, order, gfp.migratetype)
        if pfn >= 0:
            zone.nr_free_pages -= 1 << order
            prep_new_page(k, pfn, order)
            return pfn
    return -1


def prep_new_page(k: Kernel, pfn: int, order: int) -> None:
    """Give the first page of a block its reference. Source: mm/page_alloc.c prep_new_page()"""
    if k.mem_section[pfn >> k.PFN_SECTION_SHIFT].owner is not k.token:
        k.section_rw(pfn >> k.PFN_SECTION_SHIFT)
    page_columns(k, pfn).fill(REFCOUNT, pfn & (k.PAGES_PER_SECTION - 1), (pfn & (k.PAGES_PER_SECTION - 1)) + 1, 1)


def __alloc_pages_nodemask(k: Kernel, gfp: Gfp, order: int, nid: int, nodemask: frozenset[int] | None = None) -> int:
    """
    Allocate 2^order pages, near `nid` (and on the nodes of `nodemask`); returns the first pfn, or -1 when memory ran out.

    Nothing can be reclaimed in the model, so the slow path is one more attempt down to the minimum watermark. (Order-0
    requests would wake the OOM killer on a real machine; here they fail.)

    Source: mm/page_alloc.c __alloc_pages_nodemask(), __alloc_pages_slowpath()
    """
    pfn = get_page_from_freelist(k, gfp, order, nid, WMARK_LOW, nodemask)
    if pfn < 0:
        pfn = get_page_from_freelist(k, gfp, order, nid, WMARK_MIN, nodemask)
    if pfn < 0 and not gfp.nowarn:
        printk(k.log, f"page allocation failure: order:{order}, mode:{gfp.name}")
    return pfn


def _alloc_base_pages(
    k: Kernel, gfp: Gfp, nid: int, nr_pages: int, nodemask: frozenset[int] | None = None,
) -> list[tuple[int, int]]:
    """
    Allocate single pages, as many calls of __alloc_pages_nodemask() for order 0 would, one after the other.

    Args:
        nodemask: Only zones of these nodes.

    Returns:
        Runs [start, end) in the order they were handed out; fewer than `nr_pages` pages if memory ran out.

    Source: none
    """
    runs: list[tuple[int, int]] = []
    for mark in (WMARK_LOW, WMARK_MIN):
        while nr_pages:
            taken = _take_from_freelist(k, gfp, nid, mark, nr_pages, nodemask)
            if not taken:
                break
            for start, end in taken:
                nr_pages -= end - start
                if runs and runs[-1][1] == start:
                    runs[-1] = (runs[-1][0], end)
                else:
                    runs.append((start, end))
    for start, end in runs:
        mm.set_page_count(k, start, end - start, 1)
    if nr_pages and not gfp.nowarn:
        printk(k.log, f"page allocation failure: order:0, mode:{gfp.name}")
    return runs


def _take_from_freelist(
    k: Kernel, gfp: Gfp, nid: int, mark: int, nr_pages: int, nodemask: frozenset[int] | None,
) -> list[tuple[int, int]]:
    """
    Take single pages from the first zone of the zonelist that has any to spare: at most `nr_pages`, as runs.

    Source: mm/page_alloc.c get_page_from_freelist()
    """
    high_zoneidx = k.ZONE_MOVABLE if gfp.movable_zone else k.ZONE_NORMAL
    classzone_idx = -1
    for zone_nid, idx in k.nodes[nid].node_zonelist:
        if idx > high_zoneidx or (nodemask is not None and zone_nid not in nodemask):
            continue
        zone = k.nodes[zone_nid].node_zones[idx]
        if classzone_idx < 0:
            classzone_idx = idx
        spare = zone.nr_free_pages - zone.watermark[mark] - zone.lowmem_reserve[classzone_idx]
        if gfp.migratetype != MIGRATE_MOVABLE:
            spare -= zone.nr_free_cma_pages
        if spare <= 0:
            continue
        runs = _rmqueue_runs(k, zone, gfp.migratetype, min(spare, nr_pages))
        if runs:
            zone.nr_free_pages -= sum(end - start for start, end in runs)
            return runs
    return []


def _rmqueue_runs(k: Kernel, zone: Zone, migratetype: int, nr_pages: int) -> list[tuple[int, int]]:
    """
    Take single pages, some at once: off CMA's lists as long as movable ones come from there first, or off one migratetype's; from
    others' lists one page, if there are none. Source: mm/page_alloc.c __rmqueue()
    """
    cma = zone.nr_free_cma_pages if migratetype == MIGRATE_MOVABLE else 0
    from_cma = min(nr_pages, 2 * cma - zone.nr_free_pages)
    runs: list[tuple[int, int]] = []
    if from_cma > 0:
        runs = _take_smallest(k, zone, MIGRATE_CMA, from_cma)
    if not runs:
        from_cma = 0
        runs = _take_smallest(k, zone, migratetype, nr_pages)
    if not runs and cma:
        from_cma = nr_pages
        runs = _take_smallest(k, zone, MIGRATE_CMA, nr_pages)
    if from_cma:
        zone.nr_free_cma_pages -= sum(end - start for start, end in runs)
    if not runs:
        pfn = __rmqueue(k, zone, 0, migratetype)
        return [(pfn, pfn + 1)] if pfn >= 0 else []
    return runs


def _take_smallest(k: Kernel, zone: Zone, migratetype: int, nr_pages: int) -> list[tuple[int, int]]:
    """
    Take single pages off one migratetype's lists, smallest block first, until there are none or `nr_pages` are taken.

    A block that is split for the first page gives all the following ones, so it is taken at once. Source: __rmqueue_smallest()
    """
    area = k.free_area_rw(zone)
    top = k.MAX_ORDER - 1
    runs: list[tuple[int, int]] = []
    while nr_pages:
        for order in range(k.MAX_ORDER):
            pfn = _first_free(area, order, migratetype, top) if area.nr_free[order] else -1
            if pfn >= 0:
                break
        else:
            return runs
        _del_page(area, order, migratetype, pfn, top)
        end = pfn + min(nr_pages, 1 << order)
        runs.append((pfn, end))
        nr_pages -= end - pfn
        _link_pieces(area, end, pfn + (1 << order), migratetype)
    return runs


def _take_free_range(k: Kernel, zone: Zone, start: int, end: int) -> None:
    """
    Take free pages [start, end) of a zone off the lists; what else their blocks hold stays free, in smaller blocks.

    Source: none
    """
    area = k.free_area_rw(zone)
    size = area.blocks[0].size
    low, high = -(-start // size) * size, end // size * size
    parts = [(start, end)] if low >= high else [(start, low), (low, high), (high, end)]
    for first, last in parts:
        while first < last:
            if first % size == 0 and last % size == 0:
                for migratetype, blocks in enumerate(area.blocks):
                    pages = sum(b - a for a, b in blocks.take(first, last))
                    area.nr_free[-1] -= pages // size
                    _count_taken(zone, migratetype, pages)
                break
            first = _take_part(k, zone, area, first, last)


def _take_part(k: Kernel, zone: Zone, area: FreeArea, first: int, last: int) -> int:
    """Take what the free block at page `first` holds of [first, last); returns where that ends. Source: none"""
    top = k.MAX_ORDER - 1
    for order in range(k.MAX_ORDER):
        head = first & ~((1 << order) - 1)
        for migratetype in k.migratetypes:
            if order == top:
                found = head in area.blocks[migratetype]
            else:
                found = head in area.free_list[order][migratetype]
            if not found:
                continue
            _del_page(area, order, migratetype, head, top)
            stop = min(last, head + (1 << order))
            _count_taken(zone, migratetype, stop - first)
            for low, high in ((head, first), (stop, head + (1 << order))):
                _link_pieces(area, low, high, migratetype)
            return stop
    raise AssertionError(f"page {first:#x} is not free")


def _count_taken(zone: Zone, migratetype: int, pages: int) -> None:
    """Pages of a type are free no more. Source: __mod_zone_freepage_state()"""
    if migratetype != MIGRATE_ISOLATE:
        zone.nr_free_pages -= pages
        if migratetype == MIGRATE_CMA:
            zone.nr_free_cma_pages -= pages


def _link_pieces(area: FreeArea, start: int, end: int, migratetype: int) -> None:
    """Put [start, end), less than a largest block, on the lists in the largest aligned pieces. Source: expand()"""
    while start < end:
        piece = (start & -start).bit_length() - 1 if start else len(area.free_list) - 1
        while start + (1 << piece) > end:
            piece -= 1
        area.free_list[piece][migratetype][start] = None
        area.nr_free[piece] += 1
        start += 1 << piece


# Zones and their memmap


def __init_single_page(k: Kernel, pfn: int, nr_pages: int, zone: int, nid: int) -> None:
    """
    Initialise a range of struct pages of one section: links, refcount 1, mapcount reset, empty LRU head.

    Source: mm/page_alloc.c __init_single_page() [v4.9]
    """
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.fill(ZONE, start, end, zone)
        columns.fill(NODE, start, end, nid)
        columns.fill(REFCOUNT, start, end, 1)
        columns.set_bits(FLAGS, start, end, PAGE_INITIALISED)


def _not_early(k: Kernel, start: int, end: int, zone: int, nid: int, migratetype: int = MIGRATE_MOVABLE) -> None:
    """The label `not_early` of memmap_init_zone(), for pfns [start, end). Source: mm/page_alloc.c memmap_init_zone()"""
    mask = k.PAGES_PER_SECTION - 1
    blocks = k.pageblock_nr_pages
    if not start & mask and end - start == mask + 1:
        __init_single_page(k, start, end - start, zone, nid)
        set_pageblock_migratetype(k, start, migratetype, end - start)
        return
    while start < end:
        stop = min(end, (start | mask) + 1)
        __init_single_page(k, start, stop - start, zone, nid)
        first = -(-start // blocks) * blocks
        if first < stop:
            set_pageblock_migratetype(k, first, migratetype, stop - first)
        start = stop


def memmap_init_zone(k: Kernel, size: int, nid: int, zone: int, start_pfn: int, context: str) -> None:
    """
    Initialise the struct pages of a range.

    With MEMMAP_EARLY a pfn is skipped unless early_pfn_valid() and of this node. With MEMMAP_HOTPLUG control goes to
    `not_early` before either is asked: every page is initialised, whatever pfn_valid() would say.

    Source: mm/page_alloc.c memmap_init_zone() [v4.9]
    """
    end_pfn = start_pfn + size
    if k.highest_memmap_pfn < end_pfn - 1:
        k.highest_memmap_pfn = end_pfn - 1
    if context != MEMMAP_EARLY:
        _not_early(k, start_pfn, end_pfn, zone, nid)
        return
    for run_start, run_end, valid in mmzone.early_pfn_valid(k, start_pfn, end_pfn):
        if not valid:
            continue
        for piece_start, piece_end in _early_pfn_in_nid(k, run_start, run_end, nid):
            _not_early(k, piece_start, piece_end, zone, nid)


def _early_pfn_in_nid(k: Kernel, start: int, end: int, nid: int) -> Iterator[tuple[int, int]]:
    """The parts of [start, end) that no other node's memory covers. Source: mm/page_alloc.c early_pfn_in_nid()"""
    for region in k.memblock.memory.regions:
        if region.nid == nid or region.nid >= MAX_NUMNODES:
            continue
        low, high = region.base >> k.PAGE_SHIFT, (region.base + region.size) >> k.PAGE_SHIFT
        if high <= start or low >= end:
            continue
        if start < low:
            yield start, low
        start = max(start, high)
        if start >= end:
            return
    if start < end:
        yield start, end





def zone_init_free_lists(k: Kernel, zone: Zone) -> None:
    """Source: mm/page_alloc.c zone_init_free_lists()"""
    zone.free_area = FreeArea(k.MAX_ORDER, len(k.migratetypes), k.token)


def init_currently_empty_zone(k: Kernel, zone: Zone, zone_start_pfn: int, size: int) -> None:
    """
    Make an empty zone usable.

    Source: mm/page_alloc.c init_currently_empty_zone() [v4.9]
    """
    pgdat = k.nodes[zone.nid]
    pgdat.nr_zones = max(pgdat.nr_zones, zone.idx + 1) if k.tree.zones_chosen_at_online else zone.idx + 1
    zone.zone_start_pfn = zone_start_pfn
    zone_init_free_lists(k, zone)
    zone.initialized = True


def calc_memmap_size(k: Kernel, spanned_pages: int, present_pages: int) -> int:
    """Return how many pages the memmap of a zone takes. Source: mm/page_alloc.c calc_memmap_size()"""
    pages = present_pages if spanned_pages > present_pages + (present_pages >> 4) else spanned_pages
    return -(-pages * 64 // k.PAGE_SIZE)


def free_area_init_core(k: Kernel, pgdat: PglistData) -> None:
    """
    Set up the zones of a node whose spans are known: free lists, memmap, a first guess of managed pages.

    Source: mm/page_alloc.c free_area_init_core() [v4.9]
    """
    for zone in pgdat.node_zones:
        size = zone.spanned_pages
        freesize = zone.present_pages
        memmap_pages = calc_memmap_size(k, size, freesize)
        if freesize >= memmap_pages:
            freesize -= memmap_pages
        if zone.idx == 0 and freesize > k.dma_reserve:
            freesize -= k.dma_reserve
        zone.managed_pages = freesize
        if not size:
            continue
        start = zone.zone_start_pfn
        init_currently_empty_zone(k, zone, start, size)
        memmap_init_zone(k, size, pgdat.node_id, zone.idx, start, MEMMAP_EARLY)


def free_area_init_node(
    k: Kernel, nid: int, node_start_pfn: int, spans: list[tuple[int, int]], present: list[int],
) -> None:
    """
    Set up a node.

    Args:
        spans: [start, end) pfns of each zone; equal ends for an empty one.
        present: Pages of each zone that memblock calls memory.

    Source: mm/page_alloc.c free_area_init_node(), calculate_node_totalpages() [v4.9]
    """
    pgdat = k.nodes[nid]
    pgdat.node_start_pfn = node_start_pfn
    pgdat.node_spanned_pages = sum(end - start for start, end in spans)
    pgdat.node_present_pages = sum(present)
    for zone, (start, end), pages in zip(pgdat.node_zones, spans, present, strict=True):
        zone.zone_start_pfn = start if end > start else 0
        zone.spanned_pages = end - start
        zone.present_pages = pages
    free_area_init_core(k, pgdat)


def __pageblock_pfn_to_page(k: Kernel, start_pfn: int, end_pfn: int, zone: Zone) -> int | None:
    """
    Return the first pfn of a pageblock if its ends are valid and in `zone`, else None.

    Source: mm/page_alloc.c __pageblock_pfn_to_page()
    """
    end_pfn -= 1
    if not mmzone.pfn_valid(k, start_pfn) or not mmzone.pfn_valid(k, end_pfn):
        return None
    if mm.page_zone(k, start_pfn) is not zone:
        return None
    if mm.page_zone(k, end_pfn) is not zone:
        return None
    return start_pfn


def set_zone_contiguous(k: Kernel, zone: Zone) -> None:
    """
    Find out whether a zone has no hole: the ends of every pageblock are valid and in the zone.

    Sections whose pages all have one zone are judged whole, by the runs of pfn_valid(); others pageblock by pageblock. What was
    found without hole before is not looked at again, if pfn_valid() asks nothing that could have changed there (memblock).

    Source: mm/page_alloc.c set_zone_contiguous() [v4.9]
    """
    zone_end = mmzone.zone_end_pfn(zone)
    start = zone.zone_start_pfn
    step = k.PAGES_PER_SECTION
    if start < zone.contiguous_end <= zone_end and all(
            part.cuts is None or part is mmzone.SUB for part in k.pfn_valid.ingredients()):
        start = zone.contiguous_end
    while start < zone_end:
        end = min(zone_end, start - start % step + step)
        if not _section_contiguous(k, start, end, zone):
            zone.contiguous_end = start
            return
        start = end
    zone.contiguous = True
    zone.contiguous_end = zone_end


def _section_contiguous(k: Kernel, start: int, end: int, zone: Zone) -> bool:
    """The part of set_zone_contiguous() for [start, end), inside one section. Source: none"""
    section = k.mem_section.get(start >> k.PFN_SECTION_SHIFT)
    runs = mmzone.pfn_valid_runs(k, start, end)
    columns = None if section is None else section.memmap
    if columns is not None and len(runs) == 1 and columns.uniform(ZONE) == zone.idx and columns.uniform(NODE) == zone.nid:
        return __pageblock_pfn_to_page(k, start, end, zone) is not None
    blocks = k.pageblock_nr_pages
    while start < end:
        stop = min(end, start - start % blocks + blocks)
        if __pageblock_pfn_to_page(k, start, stop, zone) is None:
            return False
        start = stop
    return True


def clear_zone_contiguous(zone: Zone) -> None:
    """Source: mm/page_alloc.c clear_zone_contiguous()"""
    zone.contiguous = False


# What the sizes of zones decide: zonelists, per-cpu lists, watermarks


def _zones(k: Kernel) -> list[Zone]:
    """for_each_zone(): of online nodes, lowest first. Source: include/linux/mmzone.h"""
    online = k.node_states[mmzone.N_ONLINE]
    if len(online) == 1:
        return k.nodes[min(online)].node_zones
    return [zone for nid in sorted(online) for zone in k.nodes[nid].node_zones]


def nr_free_zone_pages(k: Kernel, offset: int) -> int:
    """Count managed pages above the high watermark in zones up to index `offset`. Source: nr_free_zone_pages()"""
    nid = min(k.nodes)
    total = 0
    nodes = k.nodes
    for zone_nid, idx in nodes[nid].node_zonelist:
        if idx <= offset:
            zone = nodes[zone_nid].node_zones[idx]
            above = zone.managed_pages - zone.watermark[WMARK_HIGH]
            if above > 0:
                total += above
    return total


def nr_free_buffer_pages(k: Kernel) -> int:
    """Source: mm/page_alloc.c nr_free_buffer_pages()"""
    return nr_free_zone_pages(k, k.ZONE_NORMAL)


def nr_free_pagecache_pages(k: Kernel) -> int:
    """Source: mm/page_alloc.c nr_free_pagecache_pages()"""
    return nr_free_zone_pages(k, k.ZONE_MOVABLE)


def build_zonelists_node(k: Kernel, pgdat: PglistData) -> list[tuple[int, int]]:
    """
    The zones of one node that have pages, highest first.

    Source: mm/page_alloc.c build_zonelists_node() [v4.9], build_zonerefs_node() [v6.1]; check_highest_zone()
    """
    found = []
    has_pages = mmzone.populated_zone if k.tree.zonelists_of_populated else mmzone.managed_zone
    for zone in reversed(pgdat.node_zones):
        if has_pages(zone):
            found.append((pgdat.node_id, zone.idx))
            if zone.idx > k.policy_zone and zone.idx != k.ZONE_MOVABLE:
                k.policy_zone = zone.idx
    return found


def find_next_best_node(k: Kernel, node: int, used_node_mask: set[int]) -> int:
    """
    Return the node to fall back to next, or -1: the node itself, then others with memory, the next by number first.

    Source: mm/page_alloc.c find_next_best_node() [v4.9, v6.7], with all nodes equally far
    """
    memory = k.node_states[mmzone.N_MEMORY]
    if node not in used_node_mask and (not k.tree.memoryless_node_is_skipped or node in memory):
        used_node_mask.add(node)
        return node
    left = [n for n in memory if n not in used_node_mask]
    if not left:
        return -1
    best = min(left, key=lambda n: (n < node, n))
    used_node_mask.add(best)
    return best


def build_zonelists(k: Kernel, pgdat: PglistData) -> None:
    """
    Order the zones a node allocates from: its own, then the others'.

    Source: mm/page_alloc.c build_zonelists() [v4.9, v5.16]
    """
    if not k.tree.zones_chosen_at_online:
        nids = sorted(nid for nid in k.nodes if nid in k.node_states[mmzone.N_ONLINE])
        node_order = [pgdat.node_id, *(n for n in nids if n > pgdat.node_id), *(n for n in nids if n < pgdat.node_id)]
    else:
        used: set[int] = set()
        node_order = []
        while (nid := find_next_best_node(k, pgdat.node_id, used)) >= 0:
            node_order.append(nid)
        if k.tree.prints_fallback_order and k.config.NUMA:
            printk(k.log, f"Fallback order for Node {pgdat.node_id}: " + "".join(f"{nid} " for nid in node_order))
    pgdat.node_zonelist = tuple(entry for nid in node_order for entry in build_zonelists_node(k, k.nodes[nid]))


def zone_batchsize(k: Kernel, zone: Zone) -> int:
    """Source: mm/page_alloc.c zone_batchsize() [all]"""
    batch = min(zone.managed_pages // 1024, k.tree.pcp_batch_max // k.PAGE_SIZE)
    batch = max(1, batch // 4)
    return (1 << ((batch + batch // 2).bit_length() - 1)) - 1


def pageset_set_high_and_batch(k: Kernel, zone: Zone) -> None:
    """Source: mm/page_alloc.c pageset_set_high_and_batch() [v4.9], zone_set_pageset_high_and_batch() [v5.14]"""
    batch = zone_batchsize(k, zone)
    if k.tree.pcp_high_by_watermark:
        zone.pcp_high = max(zone.watermark[WMARK_LOW] // k.hardware.cpus, max(1, batch) << 2)
    else:
        zone.pcp_high = 6 * batch
    zone.pcp_batch = max(1, batch)


def zone_pageset_init(k: Kernel, zone: Zone) -> None:
    """Source: mm/page_alloc.c zone_pageset_init()"""
    pageset_set_high_and_batch(k, zone)


def setup_zone_pageset(k: Kernel, zone: Zone) -> None:
    """Source: mm/page_alloc.c setup_zone_pageset()"""
    zone_pageset_init(k, zone)


def zone_pcp_update(k: Kernel, zone: Zone) -> None:
    """Source: mm/page_alloc.c zone_pcp_update()"""
    pageset_set_high_and_batch(k, zone)


def zone_pcp_reset(zone: Zone) -> None:
    """Source: mm/page_alloc.c zone_pcp_reset()"""
    zone.pcp_high = 0
    zone.pcp_batch = 1


def build_all_zonelists(k: Kernel, pgdat: PglistData | None, zone: Zone | None) -> None:
    """
    Rebuild the zonelists of every node (and of `pgdat`, which is not online yet); give `zone` its per-cpu lists first.

    Context: zonelists_mutex held, or boot.
    Source: mm/page_alloc.c build_all_zonelists() [v4.9]
    """
    if k.system_running and zone is not None:
        setup_zone_pageset(k, zone)
    if pgdat is not None and pgdat.node_id not in k.node_states[mmzone.N_ONLINE]:
        build_zonelists(k, pgdat)
    for nid in sorted(k.node_states[mmzone.N_ONLINE]):
        build_zonelists(k, k.nodes[nid])
    k.zonelist_generation += 1
    k.vm_total_pages = nr_free_pagecache_pages(k)
    k.page_group_by_mobility_disabled = k.vm_total_pages < k.pageblock_nr_pages * len(k.migratetypes)
    order = "Node" if k.config.NUMA else "Zone"
    grouping = "off" if k.page_group_by_mobility_disabled else "on"
    nodes = len(k.node_states[mmzone.N_ONLINE])
    how = "" if k.tree.zones_chosen_at_online else f" in {order} order"
    printk(k.log, f"Built {nodes} zonelists{how}, mobility grouping {grouping}.  Total pages: {k.vm_total_pages}")
    if k.config.NUMA:
        printk(k.log, f"Policy zone: {k.config.zones[k.policy_zone]}")


def calculate_totalreserve_pages(k: Kernel) -> None:
    """Source: mm/page_alloc.c calculate_totalreserve_pages()"""
    for nid in k.node_states[mmzone.N_ONLINE]:
        pgdat = k.nodes[nid]
        total = 0
        for zone in pgdat.node_zones:
            if zone.managed_pages:
                # lowmem_reserve grows with the class zone, so its last entry is its largest.
                total += min(zone.managed_pages, zone.lowmem_reserve[-1] + zone.watermark[WMARK_HIGH])
        pgdat.totalreserve_pages = total


def __setup_per_zone_wmarks(k: Kernel) -> None:
    """
    Share min_free_kbytes out among the zones.

    Context: zonelists_mutex held.
    Source: mm/page_alloc.c __setup_per_zone_wmarks() [all]
    """
    pages_min = k.min_free_kbytes >> (k.PAGE_SHIFT - 10)
    zones = _zones(k)
    small = k.ZONE_MOVABLE if k.tree.movable_watermark_small else -1
    lowmem_pages = sum([zone.managed_pages for zone in zones if zone.idx != small])
    for zone in zones:
        managed = zone.managed_pages
        if not managed and zone.idx != small:
            zone.watermark = (0, 0, 0)
            continue
        low = pages_min * managed // max(1, lowmem_pages)
        step = max(low >> 2, managed * _WATERMARK_SCALE_FACTOR // 10000)
        if zone.idx == small:
            low = max(_SWAP_CLUSTER_MAX, min(managed // 1024, 128))
        zone.watermark = (low, low + step, low + step * 2)
    calculate_totalreserve_pages(k)


def setup_per_zone_wmarks(k: Kernel) -> None:
    """Source: mm/page_alloc.c setup_per_zone_wmarks() [v4.9]"""
    lock_zonelists(k)
    __setup_per_zone_wmarks(k)
    unlock_zonelists(k)
    if k.tree.pcp_high_by_watermark:
        for zone in _zones(k):
            zone_pcp_update(k, zone)


def setup_per_zone_lowmem_reserve(k: Kernel) -> None:
    """Source: mm/page_alloc.c setup_per_zone_lowmem_reserve()"""
    for nid in k.node_states[mmzone.N_ONLINE]:
        zones = k.nodes[nid].node_zones
        managed = [zone.managed_pages for zone in zones]
        for i in range(len(zones) - 1):
            above = 0
            ratio = _LOWMEM_RESERVE_RATIO[zones[i].name]
            reserve = [0] * len(zones)
            if k.tree.lowmem_reserve_keeps_managed and (not managed[i] or i == k.ZONE_MOVABLE):
                zones[i].lowmem_reserve = tuple(reserve)
                continue
            for j in range(i + 1, len(zones)):
                above += managed[j]
                reserve[j] = above // ratio
            zones[i].lowmem_reserve = tuple(reserve)
    calculate_totalreserve_pages(k)


def init_per_zone_wmark_min(k: Kernel) -> None:
    """
    Choose min_free_kbytes from the memory there is, then set watermarks, counters' thresholds and reserves.

    Source: mm/page_alloc.c init_per_zone_wmark_min() [all]
    """
    lowmem_kbytes = nr_free_buffer_pages(k) * (k.PAGE_SIZE >> 10)
    k.min_free_kbytes = min(k.tree.min_free_kbytes_max, max(128, isqrt(lowmem_kbytes * 16)))
    setup_per_zone_wmarks(k)
    vmstat.refresh_zone_stat_thresholds(k)
    setup_per_zone_lowmem_reserve(k)
    if k.khugepaged:
        khugepaged.khugepaged_min_free_kbytes_update(k)


# What offlining would meet


def has_unmovable_pages(k: Kernel, zone: Zone, pfn: int, count: int, skip_hwpoisoned_pages: bool) -> bool:
    """
    Whether a pageblock holds more than `count` pages that cannot be moved away.

    Source: mm/page_alloc.c has_unmovable_pages() [v4.9]
    """
    if zone.idx == k.ZONE_MOVABLE:
        return False
    if get_pageblock_migratetype(k, pfn) == MIGRATE_MOVABLE:
        return False
    found = 0
    for start, stop, valid in _within_runs(k, pfn, pfn + k.pageblock_nr_pages):
        if not valid:
            continue
        for columns, low, high, _ in page_ranges(k, start, stop - start):
            referenced = high - low - columns.count(REFCOUNT, low, high, 0xFF, 0)
            if not referenced:
                continue
            flags = columns.values(FLAGS, low, high)
            counts = columns.values(REFCOUNT, low, high)
            kinds = columns.values(KIND, low, high)
            skip = PG_LRU | (PG_HWPOISON if skip_hwpoisoned_pages else 0)
            found += sum(
                1 for flag, references, kind in zip(flags, counts, kinds, strict=True)
                if references and not flag & skip and kind != KIND_HUGETLB)
            if found > count:
                return True
    return False


def _first_unmovable_block(k: Kernel, zone: Zone, pfn: int, end: int, count: int, skip_hwpoisoned_pages: bool) -> int:
    """
    Ask has_unmovable_pages() of each pageblock of [pfn, end), all of one section and zone; returns the first that has, or `end`.

    Where it is known at a glance that none can have any, only the first is asked. Source: none
    """
    section = k.mem_section[pfn >> k.PFN_SECTION_SHIFT]
    memmap = section.memmap
    clean = (
        zone.idx == k.ZONE_MOVABLE or section.pageblock_flags == MIGRATE_MOVABLE
        or (memmap is not None and memmap.uniform(REFCOUNT) == 0))
    while pfn < end:
        if has_unmovable_pages(k, zone, pfn, count, skip_hwpoisoned_pages):
            return pfn
        pfn = end if clean else (pfn | (k.pageblock_nr_pages - 1)) + 1
    return end


def _within_runs(k: Kernel, start: int, end: int) -> list[tuple[int, int, bool]]:
    """pfn_valid_within() over a range. Source: none"""
    return mmzone.pfn_valid_runs(k, start, end) if k.config.HOLES_IN_ZONE else [(start, end, True)]


def is_pageblock_removable_nolock(k: Kernel, pfn: int) -> bool:
    """Source: mm/page_alloc.c is_pageblock_removable_nolock() [v4.9]"""
    if mm.page_to_nid(k, pfn) not in k.node_states[mmzone.N_ONLINE]:
        return False
    zone = mm.page_zone(k, pfn)
    if not mmzone.zone_spans_pfn(zone, pfn):
        return False
    return not has_unmovable_pages(k, zone, pfn, 0, True)


def __offline_isolated_pages(k: Kernel, start_pfn: int, end_pfn: int) -> int:
    """
    Take every page of a range off the free lists; its sections are offline from here on. (v4.9 marks no sections, but pages
    reserved.)

    Pages that have failed need not be free, nor PageOffline pages that their drivers have given up.

    Returns:
        How many pages count as managed no more: from v6.11 on all but those that were PageOffline already.

    Raises:
        KernelBugError: another page is in use.

    Source: mm/page_alloc.c __offline_isolated_pages() [v4.9, v5.10, v6.12]
    """
    if not k.tree.has_online_sections:
        runs = [(start, end) for start, end, valid in mmzone.pfn_valid_runs(k, start_pfn, end_pfn) if valid]
        if not runs:
            return 0
    else:
        sparse.offline_mem_sections(k, start_pfn, end_pfn)
        runs = [(start_pfn, end_pfn)]
    zone = mm.page_zone(k, runs[0][0])
    small, blocks = _pull_range(k.free_area_rw(zone), start_pfn, end_pfn)
    free = sorted([*((pfn, pfn + (1 << order)) for pfn, order in small), *blocks])
    already_offline = 0
    for start, end in _gaps(runs, free):
        for columns, low, high, first in page_ranges(k, start, end - start):
            already_offline += _skipped_pages(k, columns, low, high, first)
    if not k.tree.has_online_sections:
        for start, end in runs:
            SetPageReserved(k, start, end - start)
    return end_pfn - start_pfn - (already_offline if k.tree.hotplug_pages_offline else 0)


def _skipped_pages(k: Kernel, columns: PageColumns, low: int, high: int, pfn: int) -> int:
    """
    See that pages that are not free have failed, or are PageOffline without a reference; returns how many of those there are.

    Raises:
        KernelBugError: one is neither.

    Source: mm/page_alloc.c __offline_isolated_pages() [v4.9, v5.10, v6.12]
    """
    good = columns.find(FLAGS, low, high, PG_HWPOISON, 0)
    offline = 0
    while good >= 0:
        stop = columns.find(FLAGS, good, high, PG_HWPOISON, PG_HWPOISON)
        stop = high if stop < 0 else stop
        held = columns.count(REFCOUNT, good, stop, 0xFF, 0) < stop - good
        other = columns.find(FLAGS, good, stop, PG_OFFLINE, 0)
        BUG_ON(k.log, held or other >= 0, f"a page of {pfn + good - low:#x}-{pfn + stop - low - 1:#x} is in use")
        offline += stop - good
        good = columns.find(FLAGS, stop, high, PG_HWPOISON, 0) if stop < high else -1
    return offline


def _gaps(runs: list[tuple[int, int]], taken: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts of ascending `runs` that no one of ascending `taken` covers. Source: none"""
    position = 0
    for start, end in runs:
        while position < len(taken) and taken[position][1] <= start:
            position += 1
        at = position
        while at < len(taken) and taken[at][0] < end:
            if start < taken[at][0]:
                yield start, taken[at][0]
            start = max(start, taken[at][1])
            at += 1
        if start < end:
            yield start, end


def page_order(k: Kernel, pfn: int) -> int:
    """
    Return the order of the free block that begins at `pfn`, or -1 if none does (PageBuddy() is false).

    Source: mm/internal.h page_order(), include/linux/page-flags.h PageBuddy()
    """
    area = mm.page_zone(k, pfn).free_area
    if area is None:
        return -1
    for order, lists in enumerate(area.free_list):
        if any(pfn in pages for pages in lists):
            return order
    return k.MAX_ORDER - 1 if any(pfn in blocks for blocks in area.blocks) else -1


def free_ranges(k: Kernel, zone: Zone) -> Iterator[tuple[int, int]]:
    """Every free block of a zone as pfns [start, end), largest order as runs; in no order. Source: none"""
    area = zone.free_area
    if area is None:
        return
    for order, lists in enumerate(area.free_list):
        for pages in lists:
            for pfn in pages:
                yield pfn, pfn + (1 << order)
    for blocks in area.blocks:
        yield from blocks.ranges()


def reserve_bootmem_region(k: Kernel, start: int, end: int) -> None:
    """
    Mark the pages that bytes [start, end) touch as reserved, where they have a struct page.

    Source: mm/page_alloc.c reserve_bootmem_region() [v4.9]
    """
    first, last = start >> k.PAGE_SHIFT, -(-end >> k.PAGE_SHIFT)
    for run_start, run_end, valid in mmzone.pfn_valid_runs(k, first, last):
        if valid:
            SetPageReserved(k, run_start, run_end - run_start)


def lock_zonelists(k: Kernel) -> None:
    """mutex_lock(&zonelists_mutex). Source: none"""
    sched.mutex_lock(k.tasks, k.zonelists_mutex)


def unlock_zonelists(k: Kernel) -> None:
    """mutex_unlock(&zonelists_mutex). Source: none"""
    sched.mutex_unlock(k.zonelists_mutex)




# Contiguous ranges


def __alloc_contig_migrate_range(k: Kernel, start: int, end: int) -> None:
    """
    Move what can be moved out of a range, in up to five attempts.

    Raises:
        KernelError: EBUSY if something did not move; ENOMEM.

    Source: mm/page_alloc.c __alloc_contig_migrate_range() [v6.1]
    """
    nid = mm.page_to_nid(k, start)
    mtc = migrate.MigrationTargetControl(nid, k.node_states[mmzone.N_MEMORY])
    source = migrate.Source([])
    compaction.isolate_migratepages_range(k, source, start, end)
    tries = 0
    while source:
        tries += 1
        if tries == 6:
            migrate.putback_movable_pages(k, source)
            raise KernelError(EBUSY, "pages that are in use cannot be moved", pfn=start)
        if migrate.migrate_pages(k, source, partial(migrate.alloc_migration_target, mtc=mtc)) == -ENOMEM:
            migrate.putback_movable_pages(k, source)
            raise KernelError(ENOMEM, "no memory to move pages to", pfn=start)


def find_large_buddy(k: Kernel, start_pfn: int) -> int:
    """
    Return the first pfn of the free block that a page lies in; the page itself if it lies in none.

    Source: mm/page_alloc.c find_large_buddy() [v6.7], alloc_contig_range() before
    """
    pfn = start_pfn
    for order in range(k.MAX_ORDER):
        pfn &= -1 << order
        found = page_order(k, pfn)
        if found >= 0:
            return pfn if pfn + (1 << found) > start_pfn else start_pfn
    return start_pfn


def alloc_contig_range(k: Kernel, start: int, end: int, migratetype: int) -> None:
    """
    Allocate every page of [start, end): what is in use there is moved away. Each page has a reference afterwards.

    Args:
        start, end: pfns, in one zone.
        migratetype: What the pageblocks become: MIGRATE_MOVABLE, or MIGRATE_CMA.

    Raises:
        KernelError: EBUSY if a page stays in use, with its pfn; ENOMEM.

    Source: mm/page_alloc.c alloc_contig_range() [v5.10, v6.1, v6.12]
    """
    size = 1 if k.tree.isolates_single_pageblocks else max(k.pageblock_nr_pages, 1 << k.MAX_ORDER - 1)
    isolate_start, isolate_end = start // size * size, -(-end // size) * size
    page_isolation.start_isolate_page_range(k, isolate_start, isolate_end, migratetype, 0)
    try:
        drain_all_pages(k, mm.page_zone(k, start))
        try:
            __alloc_contig_migrate_range(k, start, end)
        except KernelError as err:
            if err.errno != EBUSY:
                raise
        outer_start = find_large_buddy(k, start)
        try:
            page_isolation.test_pages_isolated(k, outer_start, end, 0)
        except KernelError:
            if k.tree.alloc_contig_names_busy:
                printk(k.log, f"alloc_contig_range: [{outer_start:x}, {end:x}) PFNs busy")
            raise
        outer_end = compaction.isolate_freepages_range(k, outer_start, end)
        if not outer_end:
            raise KernelError(EBUSY, "a page is in use again", pfn=start)
        mm.set_page_count(k, outer_start, outer_end - outer_start, 1)
        if start != outer_start:
            free_contig_range(k, outer_start, start - outer_start)
        if end != outer_end:
            free_contig_range(k, end, outer_end - end)
    finally:
        page_isolation.undo_isolate_page_range(k, isolate_start, isolate_end, migratetype)


def free_contig_range(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Give back pages that alloc_contig_range() handed out.

    Source: mm/page_alloc.c free_contig_range()
    """
    in_use = 0
    for columns, start, end, _ in page_ranges(k, pfn, nr_pages):
        in_use += end - start - columns.count(REFCOUNT, start, end, 0xFF, 1)
    _free_used_pages(k, pfn, nr_pages)
    WARN_ON(k.log, in_use)
