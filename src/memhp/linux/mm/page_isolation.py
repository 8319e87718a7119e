# SPDX-License-Identifier: GPL-2.0-only
"""
Isolating pageblocks: the readers. Inside a MAX_ORDER block they ask pfn_valid_within(), which is a test only where zones may
have holes (HOLES_IN_ZONE).

Source: mm/page_isolation.c [v4.9].
"""

from __future__ import annotations

from errno import EBUSY
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.mmzone import MIGRATE_ISOLATE
from memhp.linux.include.page_flags import PG_HWPOISON
from memhp.linux.mm import internal, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def __first_valid_page(k: Kernel, pfn: int, nr_pages: int) -> int | None:
    """Return the first pfn of a range with pfn_valid_within(). Source: mm/page_isolation.c __first_valid_page() [v4.9]"""
    return next((start for start, _ in internal.within_runs(k, pfn, pfn + nr_pages)), None)


def unset_migratetype_isolate(k: Kernel, pfn: int, migratetype: int) -> None:
    """
    Give an isolated pageblock its type back, and move its free pages there.

    Source: mm/page_isolation.c unset_migratetype_isolate() [v4.9], without the merge of blocks larger than a pageblock
    """
    zone = mm.page_zone(k, pfn)
    if page_alloc.get_pageblock_migratetype(k, pfn) != MIGRATE_ISOLATE:
        return
    moved = page_alloc.move_freepages_block(k, zone, pfn, migratetype)
    zone.nr_free_pages += moved
    page_alloc.set_pageblock_migratetype(k, pfn, migratetype)
    zone.nr_isolate_pageblock -= 1


def __test_page_isolated_in_pageblock(k: Kernel, pfn: int, end_pfn: int, skip_hwpoisoned_pages: bool) -> int:
    """
    Return the first pfn of a range that is neither free nor (if so wished) poisoned.

    Source: mm/page_isolation.c __test_page_isolated_in_pageblock() [v4.9]
    """
    for start, end in internal.within_runs(k, pfn, end_pfn):
        free = internal.free_mask(k, start, end)
        for columns, low, high, first in page_ranges(k, start, end - start):
            flags = columns.values(FLAGS, low, high)
            for i, flag in enumerate(flags):
                if not free[first - start + i] and not (skip_hwpoisoned_pages and flag & PG_HWPOISON):
                    return first + i
    return end_pfn


def test_pages_isolated(k: Kernel, start_pfn: int, end_pfn: int, skip_hwpoisoned_pages: bool) -> None:
    """
    See that every page of a range is free and isolated.

    Raises:
        KernelError: EBUSY if one is not, or none is valid.

    Source: mm/page_isolation.c test_pages_isolated() [v4.9]
    """
    for pfn in range(start_pfn, end_pfn, k.pageblock_nr_pages):
        page = __first_valid_page(k, pfn, k.pageblock_nr_pages)
        if page is not None and page_alloc.get_pageblock_migratetype(k, page) != MIGRATE_ISOLATE:
            raise KernelError(EBUSY, "a pageblock is not isolated", pfn=page)
    page = __first_valid_page(k, start_pfn, end_pfn - start_pfn)
    if page is None:
        raise KernelError(EBUSY, "no page is valid", pfn=start_pfn)
    mm.page_zone(k, page)
    pfn = __test_page_isolated_in_pageblock(k, start_pfn, end_pfn, skip_hwpoisoned_pages)
    if pfn < end_pfn:
        raise KernelError(EBUSY, "a page is in use", pfn=pfn)


def start_isolate_page_range(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """
    Isolate pageblocks, free pages and all.

    Raises:
        KernelError: EBUSY if one holds pages that cannot be moved; those isolated by then are given back.

    Source: mm/page_isolation.c start_isolate_page_range(), set_migratetype_isolate() [v4.9]
    """
    for pfn in range(start_pfn, end_pfn, k.pageblock_nr_pages):
        page = __first_valid_page(k, pfn, k.pageblock_nr_pages)
        if page is None:
            continue
        zone = mm.page_zone(k, page)
        if page_alloc.has_unmovable_pages(k, zone, page, 0, True):
            for undo in range(start_pfn, pfn, k.pageblock_nr_pages):
                unset_migratetype_isolate(k, undo, mmzone.MIGRATE_MOVABLE)
            raise KernelError(EBUSY, "pages that cannot be moved", pfn=page)
        page_alloc.set_pageblock_migratetype(k, page, MIGRATE_ISOLATE)
        zone.nr_isolate_pageblock += 1
        zone.nr_free_pages -= page_alloc.move_freepages_block(k, zone, page, MIGRATE_ISOLATE)


def undo_isolate_page_range(k: Kernel, start_pfn: int, end_pfn: int, migratetype: int) -> None:
    """
    Give the isolated pageblocks of a range their type back; their free pages go to the tail of the free lists, ascending.

    Sections that are isolated throughout are dealt with whole.

    Source: mm/page_isolation.c undo_isolate_page_range() [v4.9, v5.10]
    """
    pfn = start_pfn
    while pfn < end_pfn:
        stop = min(end_pfn, pfn - pfn % k.PAGES_PER_SECTION + k.PAGES_PER_SECTION)
        section = k.mem_section[pfn >> k.PFN_SECTION_SHIFT]
        if stop - pfn == k.PAGES_PER_SECTION and section.pageblock_flags == MIGRATE_ISOLATE and k.tree.onlines_isolated:
            _unset_section(k, pfn, stop, migratetype)
        else:
            for block in range(pfn, stop, k.pageblock_nr_pages):
                page = __first_valid_page(k, block, k.pageblock_nr_pages)
                if page is not None and page_alloc.get_pageblock_migratetype(k, page) == MIGRATE_ISOLATE:
                    unset_migratetype_isolate(k, page, migratetype)
        pfn = stop


def _unset_section(k: Kernel, pfn: int, end_pfn: int, migratetype: int) -> None:
    """
    unset_migratetype_isolate() for every pageblock of a section.

    Source: mm/page_isolation.c unset_migratetype_isolate() [v5.10]
    """
    zone = mm.page_zone(k, pfn)
    area = k.free_area_rw(zone)
    page_alloc.set_pageblock_migratetype(k, pfn, migratetype, end_pfn - pfn)
    for order, types in enumerate(area.free_list):
        if types[MIGRATE_ISOLATE]:
            for page in sorted(page for page in types[MIGRATE_ISOLATE] if pfn <= page < end_pfn):
                del types[MIGRATE_ISOLATE][page]
                types[migratetype][page] = None
                types[migratetype].move_to_end(page, last=False)
                zone.nr_free_pages += 1 << order
    for start, end in area.blocks[MIGRATE_ISOLATE].take(pfn, end_pfn):
        area.blocks[migratetype].add_tail(start, end)
        zone.nr_free_pages += end - start
    zone.nr_isolate_pageblock -= (end_pfn - pfn) // k.pageblock_nr_pages
