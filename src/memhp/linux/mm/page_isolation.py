# SPDX-License-Identifier: GPL-2.0-only
"""
Isolating pageblocks: their free pages are set aside, and what is freed there from now on is not handed out again.

The parts. `start_isolate_page_range()` turns every pageblock of a range to MIGRATE_ISOLATE, unless one holds a page that cannot
leave; then those turned so far are turned back. `test_pages_isolated()` says whether all pages are free by now, and
`undo_isolate_page_range()` gives the pageblocks back.

C takes a pageblock at a time. Here pageblocks of a section that are alike (pages there throughout, of one zone) are taken
together: the cost goes with sections and with free blocks, not with pages.

How trees differ. v4.9: inside a MAX_ORDER block pfn_valid_within() is asked, which is a test only where zones may have holes; a
pageblock of type MOVABLE is taken at its word (mm/page_alloc.c has_unmovable_pages()). Later every page of online memory is
looked at, reserved ones first, and who is in the way is dumped. From v5.19 on the pageblocks at both ends come first.

Locks: zone->lock around each pageblock.

Source: mm/page_isolation.c [v4.9, v5.10, v6.1, v6.12].
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
from memhp.linux.include.memory_hotplug import online_runs
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import FLAGS, KIND, NODE, REFCOUNT, ZONE, PageColumns
from memhp.linux.include.mmzone import MIGRATE_CMA, MIGRATE_ISOLATE
from memhp.linux.include.notifier import notifier_to_errno
from memhp.linux.include.page_flags import KIND_HUGETLB, PG_HWPOISON, PG_LRU, PG_OFFLINE, PG_RESERVED
from memhp.linux.mm import debug, internal, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

MEMORY_OFFLINE = 1 << 0
"""Isolate to take memory offline: pages that failed, or are PageOffline, are not in the way (v4.9: skip_hwpoisoned_pages)."""
REPORT_FAILURE = 1 << 1


def _runs(k: Kernel, start: int, end: int) -> list[tuple[int, int]]:
    """The runs of [start, end) with struct pages that count: online ones, in v4.9 those of pfn_valid_within(). Source: none"""
    return online_runs(k, start, end) if k.tree.has_online_sections else internal.within_runs(k, start, end)


def _alike(k: Kernel, start: int, end: int) -> bool:
    """Whether [start, end), inside one section, has struct pages throughout, and all of one zone. Source: none"""
    section = k.mem_section.get(start >> k.PFN_SECTION_SHIFT)
    memmap = None if section is None else section.memmap
    if memmap is None or memmap.uniform(ZONE) is None or memmap.uniform(NODE) is None:
        return False
    return _runs(k, start, end) == [(start, end)]


def _pieces(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range at sections, and into pageblocks where the pageblocks of a section are not alike. Source: none"""
    while start < end:
        stop = min(end, (start | (k.PAGES_PER_SECTION - 1)) + 1)
        if stop - start > k.pageblock_nr_pages and not _alike(k, start, stop):
            stop = start + k.pageblock_nr_pages
        yield start, stop
        start = stop


# Who cannot leave [v5.10]


_REFERENCED = bytes(1 if count else 0 for count in range(256))
_RESERVED = bytes(1 if flags & PG_RESERVED else 0 for flags in range(256))
_MOVABLE = bytes(1 if flags & PG_LRU else 0 for flags in range(256))
_LEAVES = bytes(1 if flags & (PG_LRU | PG_HWPOISON | PG_OFFLINE) else 0 for flags in range(256))
_HUGETLB = bytes(1 if kind == KIND_HUGETLB else 0 for kind in range(256))


def has_unmovable_pages(k: Kernel, start_pfn: int, end_pfn: int, migratetype: int, flags: int) -> int | None:
    """
    Return the first page of a range that cannot leave, or None. The range lies in one section; in C, in one pageblock.

    In C's order: a pageblock of CMA's, unless it is isolated for CMA; a reserved page, be it in ZONE_MOVABLE; there everything
    else may leave. Elsewhere huge pages may, and pages on the LRU lists, and, to take memory offline, pages that have failed and
    pages that are PageOffline (their driver may give them up when it hears of it). Any other page in use may not.

    Source: mm/page_alloc.c has_unmovable_pages() [v5.10]; mm/page_isolation.c [v6.1, v6.12]
    """
    zone = mm.page_zone(k, start_pfn)
    cma = None
    if k.config.CMA:
        for low, _, found in page_alloc._pageblock_type_runs(k, start_pfn, end_pfn):
            if found == MIGRATE_CMA:
                if migratetype == MIGRATE_CMA:
                    return None
                cma, end_pfn = low, low
                break
    for low, high in _runs(k, start_pfn, end_pfn):
        for columns, a, b, first in page_ranges(k, low, high - low):
            at = _first_unmovable(columns, a, b, zone.idx == k.ZONE_MOVABLE, flags)
            if at >= 0:
                return first + at - a
    return cma


def _first_unmovable(columns: PageColumns, start: int, end: int, movable_zone: bool, flags: int) -> int:
    """The offset of the first page of [start, end) that cannot leave, or -1. Source: has_unmovable_pages()"""
    reserved = columns.find(FLAGS, start, end, PG_RESERVED, PG_RESERVED)
    if movable_zone or columns.uniform(REFCOUNT) == 0:
        return reserved
    end = end if reserved < 0 else reserved
    counts = columns.values(REFCOUNT, start, end).translate(_REFERENCED)
    if counts.find(1) < 0:
        return reserved
    leaves = columns.values(FLAGS, start, end).translate(_LEAVES if flags & MEMORY_OFFLINE else _MOVABLE)
    in_use = internal.without(counts, leaves)
    if columns.uniform(KIND) is None or columns.uniform(KIND) == KIND_HUGETLB:
        in_use = internal.without(in_use, columns.values(KIND, start, end).translate(_HUGETLB))
    at = in_use.find(1)
    return reserved if at < 0 else start + at


# Isolating


def __first_valid_page(k: Kernel, pfn: int, nr_pages: int) -> int | None:
    """
    Return the first pfn of a range with a struct page that counts.

    Source: mm/page_isolation.c __first_valid_page() [v4.9: pfn_valid_within(); v4.13: pfn_to_online_page()]
    """
    return next((start for start, _ in _runs(k, pfn, pfn + nr_pages)), None)


def set_migratetype_isolate(k: Kernel, pfn: int, migratetype: int, isol_flags: int, nr_pages: int = 1) -> None:
    """
    Isolate the pageblock of a page (with `nr_pages`: all pageblocks of a range, which are alike).

    Args:
        migratetype: For whom: CMA's pageblocks are isolated for CMA only.
        isol_flags: MEMORY_OFFLINE, REPORT_FAILURE.

    Raises:
        KernelError: EBUSY if a pageblock is isolated already, or holds a page that cannot leave (v4.9: more such pages than
            drivers lay claim to); `pfn` says which. Those before it are isolated by then.

    Source: mm/page_isolation.c set_migratetype_isolate() [v4.9, v5.10, v6.12]
    """
    if not k.tree.isolation_reports_page:
        _set_migratetype_isolate_v4_9(k, pfn, bool(isol_flags & MEMORY_OFFLINE), nr_pages)
        return
    end = pfn + nr_pages
    isolated = next((low for low, _, found in page_alloc._pageblock_type_runs(k, pfn, end) if found == MIGRATE_ISOLATE), end)
    unmovable = has_unmovable_pages(k, pfn, isolated, migratetype, isol_flags) if isolated > pfn else None
    stop = isolated if unmovable is None else max(pfn, unmovable & ~(k.pageblock_nr_pages - 1))
    if stop > pfn:
        _isolate(k, pfn, stop)
    if unmovable is not None:
        if isol_flags & REPORT_FAILURE:
            debug.dump_page(k, unmovable, "unmovable page")
        raise KernelError(EBUSY, f"page {unmovable:#x} ({debug._describe_page(k, unmovable)}) cannot be moved", pfn=unmovable)
    if stop < end:
        raise KernelError(EBUSY, "a pageblock is isolated already", pfn=stop)


def _set_migratetype_isolate_v4_9(k: Kernel, pfn: int, skip_hwpoisoned_pages: bool, nr_pages: int) -> None:
    """set_migratetype_isolate(). Source: mm/page_isolation.c set_migratetype_isolate() [v4.9]"""
    zone = mm.page_zone(k, pfn)
    arg = MemoryIsolateNotify(pfn, k.pageblock_nr_pages)
    ret = notifier_to_errno(memory.memory_isolate_notify(k, MEM_ISOLATE_COUNT, arg))
    end = pfn + nr_pages
    stop = pfn if ret else page_alloc._first_unmovable_block(k, zone, pfn, end, arg.pages_found, skip_hwpoisoned_pages)
    if stop > pfn:
        _isolate(k, pfn, stop)
    if stop < end:
        raise KernelError(EBUSY, "a pageblock holds pages that cannot be moved", pfn=stop)


def _isolate(k: Kernel, pfn: int, end: int) -> None:
    """
    Turn the pageblocks of [pfn, end) to MIGRATE_ISOLATE, free pages and all.

    Source: mm/page_isolation.c set_migratetype_isolate()
    """
    zone = mm.page_zone(k, pfn)
    if k.tree.isolation_splits_blocks:
        zone.nr_isolate_pageblock += -(-(end - pfn) >> k.pageblock_order)
        moved = page_alloc.move_freepages_block_isolate(k, zone, pfn, MIGRATE_ISOLATE, end - pfn)
        zone.nr_free_pages -= moved
        return
    page_alloc.set_pageblock_migratetype(k, pfn, MIGRATE_ISOLATE, end - pfn)
    zone.nr_isolate_pageblock += -(-(end - pfn) >> k.pageblock_order)
    zone.nr_free_pages -= page_alloc.move_freepages_block(k, zone, pfn, MIGRATE_ISOLATE, end - pfn)
    if not k.tree.offline_disables_pcp:
        page_alloc.drain_all_pages(k, zone)


def unset_migratetype_isolate(k: Kernel, pfn: int, migratetype: int, nr_pages: int = 1) -> None:
    """
    Give an isolated pageblock its type back, and move its free pages there (with `nr_pages`: all pageblocks of a range, which are
    alike, and isolated).

    A free block as large as the pageblock, or larger, could not merge with a neighbour that is not isolated; it is freed anew,
    and can.

    Source: mm/page_isolation.c unset_migratetype_isolate() [v4.9, v5.10, v6.12]
    """
    zone = mm.page_zone(k, pfn)
    if page_alloc.get_pageblock_migratetype(k, pfn) != MIGRATE_ISOLATE:
        return
    if k.pageblock_order == k.MAX_ORDER - 1:
        if k.tree.isolation_splits_blocks:
            zone.nr_free_pages += page_alloc.move_freepages_block_isolate(k, zone, pfn, migratetype, nr_pages)
        else:
            zone.nr_free_pages += page_alloc.move_freepages_block(k, zone, pfn, migratetype, nr_pages)
            page_alloc.set_pageblock_migratetype(k, pfn, migratetype, nr_pages)
    else:
        page_alloc._move_isolated_back(k, zone, pfn, migratetype, nr_pages)
    zone.nr_isolate_pageblock -= -(-nr_pages >> k.pageblock_order)


def isolate_single_pageblock(
    k: Kernel, boundary_pfn: int, flags: int, isolate_before: bool, skip_isolation: bool, migratetype: int,
) -> None:
    """
    Isolate the pageblock that begins, or with `isolate_before` ends, at `boundary_pfn`.

    A free block that reaches across the boundary is split (until v6.9 here, then by set_migratetype_isolate()). A page in use
    that does would be moved out of the way (until v6.9), or refused. None does here: blocks
    that are handed out do not cross the ends of sections, nor that of a memmap that lies on its own memory.

    Raises:
        KernelError: EBUSY.

    Source: mm/page_isolation.c isolate_single_pageblock() [v5.19]
    """
    isolate_pageblock = boundary_pfn - k.pageblock_nr_pages if isolate_before else boundary_pfn
    if not skip_isolation:
        set_migratetype_isolate(k, isolate_pageblock, migratetype, flags, k.pageblock_nr_pages)
    if not k.tree.isolation_splits_blocks:
        page_alloc._split_free_page_across(k, mm.page_zone(k, isolate_pageblock), boundary_pfn)


def start_isolate_page_range(k: Kernel, start_pfn: int, end_pfn: int, migratetype: int, flags: int) -> None:
    """
    Isolate the pageblocks of a range, free pages and all: all of them, or none.

    Args:
        migratetype: What pageblocks become that are given back because another one could not be isolated.
        flags: MEMORY_OFFLINE, REPORT_FAILURE.

    Raises:
        KernelError: EBUSY if one holds pages that cannot be moved.

    Source: mm/page_isolation.c start_isolate_page_range() [v4.9, v5.10, v6.12]
    """
    if k.tree.isolates_single_pageblocks:
        _start_isolate_page_range_v5_19(k, start_pfn, end_pfn, migratetype, flags)
        return
    BUG_ON(k.log, start_pfn & (k.pageblock_nr_pages - 1))
    BUG_ON(k.log, end_pfn & (k.pageblock_nr_pages - 1))
    for pfn, stop in _pieces(k, start_pfn, end_pfn):
        page = __first_valid_page(k, pfn, stop - pfn)
        if page is None:
            continue
        try:
            set_migratetype_isolate(k, page, migratetype, flags, stop - page)
        except KernelError as err:
            _undo_until(k, start_pfn, err, migratetype)
            raise


def _start_isolate_page_range_v5_19(k: Kernel, start_pfn: int, end_pfn: int, migratetype: int, flags: int) -> None:
    """start_isolate_page_range(). Source: mm/page_isolation.c start_isolate_page_range() [v6.1, v6.12]"""
    blocks = k.pageblock_nr_pages
    isolate_start, isolate_end = start_pfn & ~(blocks - 1), -(-end_pfn // blocks) * blocks
    isolate_single_pageblock(k, isolate_start, flags, False, False, migratetype)
    skip_isolation = isolate_start == isolate_end - blocks
    try:
        isolate_single_pageblock(k, isolate_end, flags, True, skip_isolation, migratetype)
    except KernelError:
        unset_migratetype_isolate(k, isolate_start, migratetype)
        raise
    for pfn, stop in _pieces(k, isolate_start + blocks, isolate_end - blocks):
        page = __first_valid_page(k, pfn, stop - pfn)
        if page is None:
            continue
        try:
            set_migratetype_isolate(k, page, migratetype, flags, stop - page)
        except KernelError as err:
            _undo_until(k, isolate_start, err, migratetype)
            unset_migratetype_isolate(k, isolate_end - blocks, migratetype)
            raise


def _undo_until(k: Kernel, start_pfn: int, err: KernelError, migratetype: int) -> None:
    """Give the pageblocks back that were isolated before one could not be. Source: start_isolate_page_range()"""
    failed = err.facts["pfn"]
    assert isinstance(failed, int)
    undo_isolate_page_range(k, start_pfn, failed & ~(k.pageblock_nr_pages - 1), migratetype)


def undo_isolate_page_range(k: Kernel, start_pfn: int, end_pfn: int, migratetype: int) -> None:
    """
    Make isolated pageblocks available again; from v5.10 on their free pages go to the tail of the free lists.

    Source: mm/page_isolation.c undo_isolate_page_range() [v4.9, v5.10, v6.12]
    """
    if k.tree.isolates_single_pageblocks:
        start_pfn &= ~(k.pageblock_nr_pages - 1)
        end_pfn = -(-end_pfn // k.pageblock_nr_pages) * k.pageblock_nr_pages
    BUG_ON(k.log, start_pfn & (k.pageblock_nr_pages - 1))
    BUG_ON(k.log, end_pfn & (k.pageblock_nr_pages - 1))
    for pfn, stop in _pieces(k, start_pfn, end_pfn):
        page = __first_valid_page(k, pfn, stop - pfn)
        if page is None:
            continue
        for low, high, found in page_alloc._pageblock_type_runs(k, page, stop):
            if found == MIGRATE_ISOLATE:
                unset_migratetype_isolate(k, low, migratetype, high - low)


# Is everything free?


def __test_page_isolated_in_pageblock(k: Kernel, pfn: int, end_pfn: int, flags: int) -> int:
    """
    Return the first pfn of a range that is neither free nor, to take memory offline, poisoned or PageOffline without references.

    Source: mm/page_isolation.c __test_page_isolated_in_pageblock() [v4.9, v5.10]
    """
    for start, end in internal.within_runs(k, pfn, end_pfn):
        free = internal.free_mask(k, start, end)
        for columns, low, high, first in page_ranges(k, start, end - start):
            position = free.find(0, first - start, first - start + high - low)
            while position >= 0:
                offset = position - (first - start) + low
                flag = columns.get(FLAGS, offset)
                skipped = flag & PG_HWPOISON or (flag & PG_OFFLINE and not columns.get(REFCOUNT, offset))
                if not (flags & MEMORY_OFFLINE and skipped):
                    return start + position
                position = free.find(0, position + 1, first - start + high - low)
    return end_pfn


def test_pages_isolated(k: Kernel, start_pfn: int, end_pfn: int, isol_flags: int) -> None:
    """
    See that every page of a range is free and isolated.

    Raises:
        KernelError: EBUSY if one is not, or none is valid.

    Source: mm/page_isolation.c test_pages_isolated() [v4.9, v5.10]
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
    pfn = __test_page_isolated_in_pageblock(k, start_pfn, end_pfn, isol_flags)
    if pfn < end_pfn:
        raise KernelError(EBUSY, "a page is in use", pfn=pfn)
