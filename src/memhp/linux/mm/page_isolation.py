# SPDX-License-Identifier: GPL-2.0-only
"""
Isolating pageblocks: their free pages are set aside, and what is freed there from now on is not handed out again.

The parts. `start_isolate_page_range()` turns every pageblock of a range to MIGRATE_ISOLATE, unless one holds a page that cannot
leave (has_unmovable_pages()); then those turned so far are turned back. `test_pages_isolated()` says whether all pages are free
by now, and `undo_isolate_page_range()` gives the pageblocks back.

C takes a pageblock at a time. Here, pageblocks of a section that are alike (pages valid throughout, of one zone) are taken
together: the cost goes with sections and with free blocks, not with pages.

How trees differ. v4.9: pageblocks come one after the other; inside a MAX_ORDER block pfn_valid_within() is asked, which is a test
only where zones may have holes. A pageblock of type MOVABLE is taken at its word. From v5.5 on every page is looked at, and who
is in the way is dumped.

Locks: zone->lock around each pageblock.

Source: mm/page_isolation.c [v4.9].
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EBUSY
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.bug import BUG_ON
from memhp.linux.drivers.base import memory
from memhp.linux.include import mm
from memhp.linux.include.memory import MEM_ISOLATE_COUNT, MemoryIsolateNotify
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import FLAGS, NODE, ZONE
from memhp.linux.include.mmzone import MIGRATE_ISOLATE
from memhp.linux.include.notifier import notifier_to_errno
from memhp.linux.include.page_flags import PG_HWPOISON
from memhp.linux.mm import internal, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def _alike(k: Kernel, start: int, end: int) -> bool:
    """Whether [start, end), inside one section, has struct pages throughout, and all of one zone. Source: none"""
    section = k.mem_section.get(start >> k.PFN_SECTION_SHIFT)
    memmap = None if section is None else section.memmap
    if memmap is None or memmap.uniform(ZONE) is None or memmap.uniform(NODE) is None:
        return False
    return internal.within_runs(k, start, end) == [(start, end)]


def _pieces(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range at sections, and into pageblocks where the pageblocks of a section are not alike. Source: none"""
    while start < end:
        stop = min(end, (start | (k.PAGES_PER_SECTION - 1)) + 1)
        if not _alike(k, start, stop):
            stop = start + k.pageblock_nr_pages
        yield start, stop
        start = stop


def __first_valid_page(k: Kernel, pfn: int, nr_pages: int) -> int | None:
    """Return the first pfn of a range with pfn_valid_within(). Source: mm/page_isolation.c __first_valid_page() [v4.9]"""
    return next((start for start, _ in internal.within_runs(k, pfn, pfn + nr_pages)), None)


def set_migratetype_isolate(k: Kernel, pfn: int, skip_hwpoisoned_pages: bool, nr_pages: int = 1) -> None:
    """
    Isolate the pageblock of a page (with `nr_pages`: all pageblocks of a range, which are alike).

    Raises:
        KernelError: EBUSY, with the pageblock's first page, if one holds more unmovable pages than drivers lay claim to; those
            before it are isolated by then.

    Source: mm/page_isolation.c set_migratetype_isolate() [v4.9]
    """
    zone = mm.page_zone(k, pfn)
    arg = MemoryIsolateNotify(pfn, k.pageblock_nr_pages)
    ret = notifier_to_errno(memory.memory_isolate_notify(k, MEM_ISOLATE_COUNT, arg))
    end = pfn + nr_pages
    stop = pfn if ret else page_alloc._first_unmovable_block(k, zone, pfn, end, arg.pages_found, skip_hwpoisoned_pages)
    if stop > pfn:
        blocks = -(-(stop - pfn) >> k.pageblock_order)
        page_alloc.set_pageblock_migratetype(k, pfn, MIGRATE_ISOLATE, stop - pfn)
        zone.nr_isolate_pageblock += blocks
        zone.nr_free_pages -= page_alloc.move_freepages_block(k, zone, pfn, MIGRATE_ISOLATE, stop - pfn)
        page_alloc.drain_all_pages(k, zone)
    if stop < end:
        raise KernelError(EBUSY, "a pageblock holds pages that cannot be moved", pfn=stop)


def unset_migratetype_isolate(k: Kernel, pfn: int, migratetype: int, nr_pages: int = 1) -> None:
    """
    Give an isolated pageblock its type back, and move its free pages there (with `nr_pages`: all pageblocks of a range, which are
    alike, and isolated).

    A free block as large as the pageblock, or larger, could not merge with a neighbour that is not isolated; it is freed anew,
    and can.

    Source: mm/page_isolation.c unset_migratetype_isolate() [v4.9]
    """
    zone = mm.page_zone(k, pfn)
    if page_alloc.get_pageblock_migratetype(k, pfn) != MIGRATE_ISOLATE:
        return
    moved, merging = page_alloc._move_isolated_back(k, zone, pfn, migratetype, nr_pages)
    zone.nr_free_pages += moved
    page_alloc.set_pageblock_migratetype(k, pfn, migratetype, nr_pages)
    zone.nr_isolate_pageblock -= -(-nr_pages >> k.pageblock_order)
    for block, order in merging:
        page_alloc.free_one_page(k, zone, block, order, page_alloc.get_pageblock_migratetype(k, block))


def start_isolate_page_range(k: Kernel, start_pfn: int, end_pfn: int, migratetype: int, skip_hwpoisoned_pages: bool) -> None:
    """
    Isolate the pageblocks of a range, free pages and all.

    Args:
        migratetype: What pageblocks become that are given back because another one could not be isolated.
        skip_hwpoisoned_pages: Pages that have failed are not in the way.

    Raises:
        KernelError: EBUSY if one holds pages that cannot be moved.

    Source: mm/page_isolation.c start_isolate_page_range() [v4.9]
    """
    BUG_ON(k.log, start_pfn & (k.pageblock_nr_pages - 1))
    BUG_ON(k.log, end_pfn & (k.pageblock_nr_pages - 1))
    for pfn, stop in _pieces(k, start_pfn, end_pfn):
        page = __first_valid_page(k, pfn, stop - pfn)
        if page is None:
            continue
        try:
            set_migratetype_isolate(k, page, skip_hwpoisoned_pages, stop - page)
        except KernelError as err:
            undo_pfn = int(str(err.facts["pfn"])) & ~(k.pageblock_nr_pages - 1)
            for low, high in _pieces(k, start_pfn, undo_pfn):
                unset_migratetype_isolate(k, low, migratetype, high - low)
            raise


def undo_isolate_page_range(k: Kernel, start_pfn: int, end_pfn: int, migratetype: int) -> None:
    """
    Make isolated pageblocks available again.

    Source: mm/page_isolation.c undo_isolate_page_range() [v4.9]
    """
    BUG_ON(k.log, start_pfn & (k.pageblock_nr_pages - 1))
    BUG_ON(k.log, end_pfn & (k.pageblock_nr_pages - 1))
    for pfn, stop in _pieces(k, start_pfn, end_pfn):
        page = __first_valid_page(k, pfn, stop - pfn)
        if page is None:
            continue
        for low, high, found in page_alloc._pageblock_type_runs(k, page, stop):
            if found == MIGRATE_ISOLATE:
                unset_migratetype_isolate(k, low, migratetype, high - low)


def __test_page_isolated_in_pageblock(k: Kernel, pfn: int, end_pfn: int, skip_hwpoisoned_pages: bool) -> int:
    """
    Return the first pfn of a range that is neither free nor (if so wished) poisoned.

    Source: mm/page_isolation.c __test_page_isolated_in_pageblock() [v4.9]
    """
    for start, end in internal.within_runs(k, pfn, end_pfn):
        free = internal.free_mask(k, start, end)
        for columns, low, high, first in page_ranges(k, start, end - start):
            position = free.find(0, first - start, first - start + high - low)
            while position >= 0:
                offset = position - (first - start) + low
                if not (skip_hwpoisoned_pages and columns.get(FLAGS, offset) & PG_HWPOISON):
                    return start + position
                position = free.find(0, position + 1, first - start + high - low)
    return end_pfn


def test_pages_isolated(k: Kernel, start_pfn: int, end_pfn: int, skip_hwpoisoned_pages: bool) -> None:
    """
    See that every page of a range is free and isolated.

    Raises:
        KernelError: EBUSY if one is not, or none is valid.

    Source: mm/page_isolation.c test_pages_isolated() [v4.9]
    """
    for pfn, stop in _pieces(k, start_pfn, end_pfn):
        page = __first_valid_page(k, pfn, stop - pfn)
        if page is None:
            continue
        for low, _, found in page_alloc._pageblock_type_runs(k, page, stop):
            if found != MIGRATE_ISOLATE:
                raise KernelError(EBUSY, "a pageblock is not isolated", pfn=low)
    page = __first_valid_page(k, start_pfn, end_pfn - start_pfn)
    if page is None:
        raise KernelError(EBUSY, "no page is valid", pfn=start_pfn)
    mm.page_zone(k, page)
    pfn = __test_page_isolated_in_pageblock(k, start_pfn, end_pfn, skip_hwpoisoned_pages)
    if pfn < end_pfn:
        raise KernelError(EBUSY, "a page is in use", pfn=pfn)
