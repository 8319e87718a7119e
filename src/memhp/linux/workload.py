# SPDX-License-Identifier: GPL-2.0-only
"""
Workloads: who holds pages, beside the kernel itself and the processes of `boot.user_space()`.

A workload has a name and holds pages of one kind. `alloc()` takes them where the page allocator hands them out, or from the free
pages of one memory block; `free()` gives them back; `pin()` holds on to them so that they can no longer be moved.

Kinds, and what taking a block offline does about them:

====================  =======================================================================================================
movable, anon         a process's memory: moved away
file                  the page cache: moved away
huge                  transparent huge pages: moved away, whole or in parts
hugetlb               huge pages of the pool in use: moved to others of the pool, if there are any
hugetlb-free          free huge pages of the pool: dissolved
hugetlb-reserved      free huge pages that are promised to somebody: EBUSY
unmovable             the kernel's own: EBUSY
slab, reclaimable     the kernel's small objects, which it may or may not give back on its own: EBUSY
page-table            EBUSY
cma                   handed out to a driver from CMA's area, which cannot go offline at all: EBUSY
reserved              PG_reserved, as drivers mark pages: EBUSY, even in ZONE_MOVABLE [v5.5]
poisoned              pages that have failed: left where they are
offline               PageOffline, of a driver that does not give them up (a balloon's, for instance): EBUSY [v5.8]
====================  =======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from errno import ENOMEM
from functools import partial
from typing import TYPE_CHECKING

from memhp.errors import KernelError, UsageError
from memhp.linux.include import mm, mmzone
from memhp.linux.include.gfp import (
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_KERNEL_RECLAIMABLE,
    GFP_USER_NOWARN,
    Gfp,
)
from memhp.linux.include.memory import MEM_ONLINE
from memhp.linux.include.memory_model import page_columns, page_ranges, page_ranges_rw
from memhp.linux.include.mm_types import KIND, REFCOUNT
from memhp.linux.include.mmzone import MIGRATE_CMA
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_CMA,
    KIND_FILE,
    KIND_HUGE,
    KIND_HUGETLB,
    KIND_KERNEL,
    KIND_NONE,
    KIND_PAGE_TABLE,
    KIND_SLAB,
    PG_HEAD,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PG_RESERVED,
    PG_SLAB,
    set_page_kind,
)
from memhp.linux.mm import hugetlb, migrate, page_alloc
from memhp.linux.state import Workload
from memhp.units import format_size

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

Runs = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Kind:
    """
    A kind of pages.

    Attributes:
        kind: Value of the KIND column.
        gfp: What is asked for.
        flags: Flags that go with it.
        large: Huge pages.
        kernel: The kernel's own: never in ZONE_MOVABLE, nor in CMA's area.
        pins: May be pinned.
    """

    kind: int
    gfp: Gfp = GFP_HIGHUSER_MOVABLE
    flags: int = 0
    large: bool = False
    kernel: bool = False
    pins: bool = False


KINDS = {
    "movable": _Kind(KIND_ANON, flags=PG_LRU, pins=True),
    "anon": _Kind(KIND_ANON, flags=PG_LRU, pins=True),
    "file": _Kind(KIND_FILE, flags=PG_LRU, pins=True),
    "huge": _Kind(KIND_HUGE, flags=PG_LRU, large=True, pins=True),
    "hugetlb": _Kind(KIND_HUGETLB, large=True, pins=True),
    "hugetlb-free": _Kind(KIND_HUGETLB, large=True),
    "hugetlb-reserved": _Kind(KIND_HUGETLB, large=True),
    "unmovable": _Kind(KIND_KERNEL, GFP_KERNEL, PG_SLAB, kernel=True),
    "slab": _Kind(KIND_KERNEL, GFP_KERNEL, PG_SLAB, kernel=True),
    "reclaimable": _Kind(KIND_SLAB, GFP_KERNEL_RECLAIMABLE, PG_SLAB, kernel=True),
    "page-table": _Kind(KIND_PAGE_TABLE, GFP_KERNEL, kernel=True),
    "cma": _Kind(KIND_CMA),
    "reserved": _Kind(KIND_NONE, GFP_KERNEL, PG_RESERVED),
    "poisoned": _Kind(KIND_NONE, flags=PG_HWPOISON),
    "offline": _Kind(KIND_NONE, GFP_KERNEL, PG_OFFLINE),
}
"""By name, as in a scenario."""


# Taking pages


def alloc(k: Kernel, name: str, kind: str, size: int, block: int | None = None) -> None:
    """
    Let a workload take pages: all of them, or none.

    Args:
        name: Its name, not in use.
        kind: One of `KINDS`.
        size: Bytes; whole pages of that kind.
        block: The N of memoryN to take them from; None: wherever they are handed out.

    Raises:
        KernelError: ENOMEM.
        UsageError: what this kernel does not have, or a block that cannot have it; nothing was taken.
    """
    what = KINDS[kind]
    _check(k, name, kind, size)
    nr_pages = size >> k.PAGE_SHIFT
    if block is None:
        runs = _anywhere(k, what, nr_pages)
    else:
        runs = _in_block(k, kind, what, nr_pages, block)
    _prepare(k, kind, what, runs)
    k.workloads[name] = Workload(kind, tuple(migrate._joined(runs)))


def _unit(k: Kernel, what: _Kind) -> int:
    """Bytes of a page of that kind."""
    return k.PAGE_SIZE << hugetlb.huge_page_order(k) if what.large else k.PAGE_SIZE


def _check(k: Kernel, name: str, kind: str, size: int) -> None:
    """Refuse what makes no sense. Raises UsageError."""
    what = KINDS[kind]
    if name in k.workloads:
        raise UsageError(f"there is a workload {name!r} already, of {kind} pages; free it first, or give another name")
    if size % _unit(k, what):
        raise UsageError(f"size {format_size(size)}: {kind} pages come in {format_size(_unit(k, what))}")
    if what.kind == KIND_HUGETLB and not hugetlb.hugepages_supported(k):
        raise UsageError(f"kind {kind!r}: CONFIG_HUGETLB_PAGE is off in {k.tree.name}/{k.arch.name}")
    if kind == "huge" and not k.config.TRANSPARENT_HUGEPAGE:
        raise UsageError(f"kind {kind!r}: CONFIG_TRANSPARENT_HUGEPAGE is off in {k.tree.name}/{k.arch.name}")
    if kind == "cma" and not k.config.CMA:
        raise UsageError(f"kind {kind!r}: CONFIG_CMA is off in {k.tree.name}/{k.arch.name}")
    if kind == "offline" and not k.tree.offline_checks_ram:
        raise UsageError(f"kind {kind!r}: {k.tree.name} does not know PageOffline")


def _no_memory(what: str) -> KernelError:
    return KernelError(ENOMEM, f"out of memory: {what}", where="")


def _anywhere(k: Kernel, what: _Kind, nr_pages: int) -> Runs:
    """Take pages where they are handed out. Raises KernelError ENOMEM; what was taken is given back then."""
    nid = min(k.nodes)
    gfp = replace(what.gfp, nowarn=True)
    runs: Runs = []
    if what.kind == KIND_CMA:
        runs = _from_cma(k, nr_pages)
    elif what.large:
        order = hugetlb.huge_page_order(k)
        for _ in range(nr_pages >> order):
            pfn = page_alloc.__alloc_pages_nodemask(k, gfp, order, nid)
            if pfn < 0:
                break
            runs.append((pfn, pfn + (1 << order)))
    else:
        runs = page_alloc._alloc_base_pages(k, gfp, nid, nr_pages)
    got = sum(end - start for start, end in runs)
    if got < nr_pages:
        for start, end in runs:
            page_alloc._free_used_pages(k, start, end - start)
        raise _no_memory(f"{got} of {nr_pages} pages were to be had")
    return runs


def _from_cma(k: Kernel, nr_pages: int) -> Runs:
    """Take free pages of CMA's area, as cma_alloc() would. Source: mm/cma.c cma_alloc()"""
    runs: Runs = []
    for zone in page_alloc._zones(k):
        wanted = min(nr_pages, zone.nr_free_cma_pages)
        taken = page_alloc._take_smallest(k, zone, MIGRATE_CMA, wanted) if wanted else []
        got = sum(end - start for start, end in taken)
        zone.nr_free_cma_pages -= got
        zone.nr_free_pages -= got
        nr_pages -= got
        runs += taken
    return runs


def _in_block(k: Kernel, kind: str, what: _Kind, nr_pages: int, block: int) -> Runs:
    """Take free pages of one block, lowest first. Raises KernelError ENOMEM, UsageError."""
    mem = k.memory_blocks.get(block)
    if mem is None:
        raise UsageError(f"block {block}: there is no memory{block}")
    if mem.state != MEM_ONLINE:
        raise UsageError(f"block {block}: memory{block} is offline, so nobody can have pages of it")
    start = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    end = start + k.PAGES_PER_SECTION * k.sections_per_block
    unit = _unit(k, what) >> k.PAGE_SHIFT
    free = list(_free_pieces(k, start, end))
    pieces = free
    if what.kernel:
        pieces = [piece for piece in free if piece[0].idx != k.ZONE_MOVABLE and piece[3] != MIGRATE_CMA]
        if free and not pieces:
            raise UsageError(f"kind {kind!r}: memory{block} is movable memory; the kernel takes no pages of its own from there")
    elif kind == "cma":
        pieces = [piece for piece in free if piece[3] == MIGRATE_CMA]
        if not pieces:
            raise UsageError(f"kind {kind!r}: no free part of CMA's area lies in memory{block}")
    chosen: list[tuple[mmzone.Zone, int, int]] = []
    left = nr_pages
    for zone, low, high, _ in pieces:
        low, high = -(-low // unit) * unit, high // unit * unit
        take = min(left, high - low)
        if take > 0:
            chosen.append((zone, low, low + take))
            left -= take
    if left:
        raise _no_memory(f"memory{block} has {nr_pages - left} free pages for {nr_pages} that are wanted")
    if what.kernel:
        for zone, low, high in chosen:
            _claim_pageblocks(k, zone, low, high, what.gfp.migratetype)
    for zone, low, high in chosen:
        page_alloc._take_free_range(k, zone, low, high)
        mm.set_page_count(k, low, high - low, 1)
    return [(low, high) for _, low, high in chosen]


def _free_pieces(k: Kernel, start: int, end: int) -> Iterator[tuple[mmzone.Zone, int, int, int]]:
    """The free pages of [start, end), ascending, as (zone, first, end, migratetype); neighbours are joined where they may be."""
    for pgdat in k.nodes.values():
        for zone in pgdat.node_zones:
            if zone.free_area is None or zone.zone_start_pfn >= end or mmzone.zone_end_pfn(zone) <= start:
                continue
            free = migrate._joined([
                (max(low, start), min(high, end)) for low, high in page_alloc.free_ranges(k, zone) if low < end and high > start])
            for low, high in free:
                for first, last, found in page_alloc._pageblock_type_runs(k, low, high):
                    if found != mmzone.MIGRATE_ISOLATE:
                        yield zone, first, last, found


def _claim_pageblocks(k: Kernel, zone: mmzone.Zone, start: int, end: int, migratetype: int) -> None:
    """
    Do to the pageblocks of [start, end) what an allocation of another type does to those it falls back on.

    Source: mm/page_alloc.c steal_suitable_fallback()
    """
    blocks = k.pageblock_nr_pages
    for pfn in range(start & ~(blocks - 1), end, blocks):
        if page_alloc.get_pageblock_migratetype(k, pfn) != migratetype:
            pages = page_alloc.move_freepages_block(k, zone, pfn, migratetype)
            if pages >= blocks >> 1 or k.page_group_by_mobility_disabled:
                page_alloc.set_pageblock_migratetype(k, pfn, migratetype)


def _prepare(k: Kernel, kind: str, what: _Kind, runs: Runs) -> None:
    """Make what was taken what it is to be."""
    order = hugetlb.huge_page_order(k)
    for start, end in runs:
        set_page_kind(k, start, end - start, what.kind, what.flags)
        if what.large:
            mm.set_page_count(k, start, end - start, 0)
            for head in range(start, end, 1 << order):
                if what.kind == KIND_HUGETLB:
                    hugetlb.prep_new_huge_page(k, head)
                else:
                    mm.set_page_count(k, head, 1, 1)
                    set_page_kind(k, head, 1, what.kind, PG_HEAD)
                if kind in ("hugetlb-free", "hugetlb-reserved"):
                    hugetlb.free_huge_page(k, head)
        if kind == "poisoned" and k.tree.memory_block_counts_poison:
            for pfn in range(start, end):
                k.block_rw((pfn >> k.PFN_SECTION_SHIFT) // k.sections_per_block).nr_hwpoison += 1
    if kind == "hugetlb-reserved":
        pages = sum(end - start for start, end in runs) >> order
        k.hstate = replace(k.hstate, resv_huge_pages=k.hstate.resv_huge_pages + pages)


# Giving them back, and holding on to them


def _find(k: Kernel, name: str) -> Workload:
    if name not in k.workloads:
        known = ", ".join(sorted(k.workloads)) or "there are none"
        raise UsageError(f"no workload {name!r}: {known}")
    return k.workloads[name]


def free(k: Kernel, name: str) -> None:
    """
    Let a workload go, and its pages; those that have failed stay behind.

    Raises:
        UsageError: there is no such workload.
    """
    work = _find(k, name)
    del k.workloads[name]
    if work.kind == "poisoned":
        return
    if work.kind in ("hugetlb-free", "hugetlb-reserved"):
        _shrink_pool(k, work)
        return
    order = hugetlb.huge_page_order(k)
    for start, end in work.runs:
        while start < end:
            what = page_columns(k, start).get(KIND, start & (k.PAGES_PER_SECTION - 1))
            if what == KIND_HUGETLB:
                hugetlb.update_and_free_page(k, start)
                start += 1 << order
            elif what == KIND_HUGE:
                page_alloc.__free_pages(k, start, order)
                start += 1 << order
            else:
                stop = _same_kind(k, start, end, what)
                page_alloc._free_used_pages(k, start, stop - start)
                start = stop


def _same_kind(k: Kernel, start: int, end: int, kind: int) -> int:
    """Where the run of pages of one kind ends that begins at `start`."""
    for columns, low, high, first in page_ranges(k, start, end - start):
        if columns.uniform(KIND) == kind:
            continue
        kinds = columns.values(KIND, low, high)
        other = len(kinds) - len(kinds.lstrip(bytes([kind])))
        if other < high - low:
            return first + other
    return end


def _shrink_pool(k: Kernel, work: Workload) -> None:
    """Make the pool of huge pages smaller by as many free ones as the workload added, if there are that many left."""
    order = hugetlb.huge_page_order(k)
    pages = sum(end - start for start, end in work.runs) >> order
    if work.kind == "hugetlb-reserved":
        k.hstate = replace(k.hstate, resv_huge_pages=max(0, k.hstate.resv_huge_pages - pages))
    for pfn in k.hstate.free[::-1][:pages]:
        hugetlb.dissolve_free_huge_page(k, pfn)


def pin(k: Kernel, name: str) -> None:
    """
    Let a workload hold on to its pages for long (FOLL_LONGTERM, as RDMA and VFIO do): they can no longer be moved.

    From v5.13 on, pages in ZONE_MOVABLE or CMA's area are moved out of there first.

    Raises:
        KernelError: ENOMEM if there is nowhere to move them to.
        UsageError: there is no such workload, it is pinned already, or its pages cannot be pinned.

    Source: mm/gup.c check_and_migrate_movable_pages() [v5.13]
    """
    work = _find(k, name)
    if work.pinned:
        raise UsageError(f"workload {name!r} is pinned already")
    if not KINDS[work.kind].pins:
        raise UsageError(f"workload {name!r}: {work.kind} pages are nobody's memory, so they are not pinned")
    if k.tree.longterm_pins_leave_movable:
        _leave_movable(k, work)
        work = k.workloads[name]
    for start, end in work.runs:
        for columns, low, high, _ in page_ranges_rw(k, start, end - start):
            counts = columns.values(REFCOUNT, low, high)
            columns.store(REFCOUNT, low, counts.translate(_PINNED))
    k.workloads[name] = replace(work, pinned=True)


_PINNED = bytes([0, *(min(count + 1, 255) for count in range(1, 256))])


def _leave_movable(k: Kernel, work: Workload) -> None:
    """Move the pages of a workload that are not to stay where they are. Raises KernelError ENOMEM."""
    source = migrate.Source([])
    order = hugetlb.huge_page_order(k)
    for start, end in work.runs:
        for low, high, found in page_alloc._pageblock_type_runs(k, start, end):
            if mm.page_zonenum(k, low) != k.ZONE_MOVABLE and found not in (MIGRATE_CMA, mmzone.MIGRATE_ISOLATE):
                continue
            if KINDS[work.kind].large and page_columns(k, low).get(KIND, low & (k.PAGES_PER_SECTION - 1)) != KIND_ANON:
                for head in range(low, high, 1 << order):
                    source.add(head, head + (1 << order), order)
            else:
                source.add(low, high)
    if source:
        nid = mm.page_to_nid(k, source.items[0][0])
        if migrate.migrate_pages(k, source, partial(_unmovable_target, nid=nid)):
            raise _no_memory("pages of movable memory cannot be pinned there, and there is no other memory for them")


def _unmovable_target(k: Kernel, page: int, nr_pages: int, order: int, nid: int) -> Runs:
    """alloc_migration_target() for GFP_USER: new pages outside of ZONE_MOVABLE. Source: mm/gup.c [v5.13]"""
    if order and hugetlb.PageHuge(k, page):
        pfn = page_alloc.__alloc_pages_nodemask(k, GFP_USER_NOWARN, order, nid)
        if pfn >= 0:
            hugetlb.prep_new_huge_page(k, pfn)
        return [(pfn, pfn + (1 << order))] if pfn >= 0 else []
    if order:
        pfn = page_alloc.__alloc_pages_nodemask(k, GFP_USER_NOWARN, order, nid)
        return [(pfn, pfn + (1 << order))] if pfn >= 0 else []
    return page_alloc._alloc_base_pages(k, GFP_USER_NOWARN, nid, nr_pages)
