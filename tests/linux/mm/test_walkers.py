# SPDX-License-Identifier: GPL-2.0-only
"""Those who walk the memmap: each held against a walk page by page, or against what it promises."""

from __future__ import annotations

import dataclasses
from errno import EBUSY, EIO, ENXIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.linux.tiny import SECTION, add_sections, tiny_kernel

from memhp.errors import KernelBugError, KernelError
from memhp.linux.drivers.base import memory
from memhp.linux.include import mm, mmzone
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mmzone import MIGRATE_ISOLATE, MIGRATE_MOVABLE, Definition, Ingredient, Zone
from memhp.linux.include.page_flags import KIND_ANON, PG_LRU, PageHWPoison, PageReserved, SetPageReserved, set_page_kind
from memhp.linux.mm import (
    compaction,
    hugetlb,
    hwpoison_inject,
    internal,
    kmemleak,
    memory_failure,
    memory_hotplug,
    page_alloc,
    page_idle,
    page_isolation,
    page_owner,
    vmstat,
)
from memhp.linux.state import Kernel


def normal(k: Kernel) -> Zone:
    return k.zone(0, k.ZONE_NORMAL)


def online(k: Kernel, first: int, count: int) -> None:
    """Free the pages of sections, as onlining does."""
    for nr in range(first, first + count):
        memory_hotplug.generic_online_page(k, nr * SECTION, SECTION)
    zone = normal(k)
    zone.present_pages += count * SECTION
    page_alloc.build_all_zonelists(k, None, None)


@pytest.fixture
def k() -> Kernel:
    """Four sections of ZONE_NORMAL, the first three online."""
    kernel = tiny_kernel()
    add_sections(kernel, 4, 4)
    online(kernel, 4, 3)
    return kernel


def take(k: Kernel, order: int = 0) -> int:
    pfn = page_alloc.__alloc_pages_nodemask(k, GFP_HIGHUSER_MOVABLE, order, 0)
    assert pfn >= 0
    set_page_kind(k, pfn, 1 << order, KIND_ANON, PG_LRU)
    return pfn


def only(*spans: tuple[int, int]) -> Definition:
    """A definition that holds for pfns in `spans`."""

    def cuts(k: Kernel, start: int, end: int) -> list[int]:
        return sorted({pfn for span in spans for pfn in span if start < pfn < end})

    return Definition("only", "here", (Ingredient("only", lambda k, pfn: any(a <= pfn < b for a, b in spans), cuts),))


@given(orders=st.lists(st.integers(0, 4), max_size=20), start=st.integers(256, 511), length=st.integers(1, 255))
def test_masks_against_single_pages(orders: list[int], start: int, length: int) -> None:
    """The masks of a range say of each page what its free list and its links say."""
    k = tiny_kernel()
    add_sections(k, 4, 4)
    online(k, 4, 3)
    taken = {pfn + i for order in orders for pfn in [page_alloc.__alloc_pages_nodemask(k, GFP_HIGHUSER_MOVABLE, order, 0)]
             for i in range(1 << order) if pfn >= 0}
    end = min(start + length, 512)
    free = internal.free_mask(k, start, end)
    assert [pfn < 448 and pfn not in taken for pfn in range(start, end)] == [bool(byte) for byte in free]
    assert [mm.page_zone(k, pfn) is normal(k) for pfn in range(start, end)] == \
        [bool(byte) for byte in internal.zone_mask(k, normal(k), start, end)]
    covered = [pfn for a, b in internal.runs(free, start) for pfn in range(a, b)]
    assert [pfn for pfn in range(start, end) if free[pfn - start]] == covered
    assert [int(not byte) for byte in free] == list(internal.neither(free, free))


def test_page_owner_counts_pages_in_use(k: Kernel) -> None:
    """Pages in use are found, free and reserved ones are not."""
    assert 0 == page_owner.init_pages_in_zone(k, normal(k)), "three sections are free, the fourth is reserved"
    first = {take(k), take(k), take(k)}
    assert 3 == page_owner.init_pages_in_zone(k, normal(k))
    k.max_pfn = 8 * SECTION
    found, ppos = set(), 0
    while (ppos := page_owner.read_page_owner(k, ppos) + 1) and ppos <= 7 * SECTION:
        found.add(ppos - 1)
    assert first == found, "the file names them one after the other"


def test_walkers_ask_at_each_pageblock(k: Kernel) -> None:
    """What pfn_valid() denies is passed over: of the 32 pageblocks of 8 pages, those of the denied section do not count."""
    everything = compaction.__reset_isolation_suitable(k, normal(k))
    assert 32 == everything == sum(vmstat.pagetypeinfo_showblockcount_print(k, normal(k)))
    k.pfn_valid = only((4 * SECTION, 5 * SECTION), (6 * SECTION, 8 * SECTION))
    assert 24 == compaction.__reset_isolation_suitable(k, normal(k))
    assert 24 == sum(vmstat.pagetypeinfo_showblockcount_print(k, normal(k)))
    assert SECTION == kmemleak.kmemleak_scan(k), "in use is the fourth section alone: reserved pages have a reference"


def test_pageblock_pfn_to_page(k: Kernel) -> None:
    """A zone known to be contiguous is believed; else the ends are looked at."""
    zone = normal(k)
    assert zone.contiguous
    k.pfn_valid = only()
    assert 4 * SECTION == compaction.pageblock_pfn_to_page(k, 4 * SECTION, 4 * SECTION + 8, zone)
    page_alloc.clear_zone_contiguous(zone)
    assert None is compaction.pageblock_pfn_to_page(k, 4 * SECTION, 4 * SECTION + 8, zone)


def test_isolating_and_giving_back(k: Kernel) -> None:
    """Isolated free pages do not count as free; given back they do, on the list they came from."""
    zone = normal(k)
    before = zone.nr_free_pages
    start, end = 5 * SECTION, 6 * SECTION
    page_isolation.start_isolate_page_range(k, start, end, MIGRATE_MOVABLE, True)
    assert before - SECTION == zone.nr_free_pages
    assert MIGRATE_ISOLATE == page_alloc.get_pageblock_migratetype(k, start)
    page_isolation.test_pages_isolated(k, start, end, True)
    for pfn in range(start, end, k.pageblock_nr_pages):
        page_isolation.unset_migratetype_isolate(k, pfn, MIGRATE_MOVABLE)
    assert before == zone.nr_free_pages
    assert 0 == zone.nr_isolate_pageblock
    with pytest.raises(KernelError) as caught:
        page_isolation.test_pages_isolated(k, start, end, True)
    assert EBUSY == caught.value.errno


def test_a_page_in_use_is_not_isolated(k: Kernel) -> None:
    """test_pages_isolated() finds the page that is neither free nor poisoned."""
    pfn = take(k)
    start = pfn - pfn % SECTION
    page_isolation.start_isolate_page_range(k, start, start + SECTION, MIGRATE_MOVABLE, True)
    with pytest.raises(KernelError, match="in use") as caught:
        page_isolation.test_pages_isolated(k, start, start + SECTION, True)
    assert pfn == caught.value.facts["pfn"]


def test_moving_a_block_that_two_zones_claim(k: Kernel) -> None:
    """
    VM_BUG_ON(page_zone(start_page) != page_zone(end_page)), with DEBUG_VM and without HOLES_IN_ZONE.

         | Normal Normal Normal … never initialised |
    """
    start = 5 * SECTION
    mm.set_page_links(k, start + 7, 1, 0, 0)
    page_alloc.move_freepages_block(k, normal(k), start, MIGRATE_MOVABLE)
    k.config = dataclasses.replace(k.config, DEBUG_VM=True)
    with pytest.raises(KernelBugError, match="name different zones"):
        page_alloc.move_freepages_block(k, normal(k), start, MIGRATE_MOVABLE)
    k.config = dataclasses.replace(k.config, HOLES_IN_ZONE=True)
    page_alloc.move_freepages_block(k, normal(k), start, MIGRATE_MOVABLE)


def test_gigantic(k: Kernel) -> None:
    """Free pages of the zone, all of them: one in use, reserved, of another zone or denied by pfn_valid() ends it."""
    zone = normal(k)
    start = 5 * SECTION
    assert hugetlb.pfn_range_valid_gigantic(k, zone, start, SECTION)
    assert not hugetlb.pfn_range_valid_gigantic(k, zone, 7 * SECTION, SECTION), "reserved"
    assert not hugetlb.pfn_range_valid_gigantic(k, zone, 3 * SECTION, 2 * SECTION), "no section"
    mm.set_page_links(k, start + 1, 1, 0, 0)
    assert not hugetlb.pfn_range_valid_gigantic(k, zone, start, SECTION)
    pfn = take(k)
    assert not hugetlb.pfn_range_valid_gigantic(k, zone, pfn - pfn % SECTION, SECTION)


def test_failing_memory(k: Kernel) -> None:
    """A page in use, a free one, one that is poisoned already, one outside; and a pfn that pfn_valid() promised wrongly."""
    pfn = take(k)
    assert "in use" == memory_failure.memory_failure(k, pfn)
    assert PageHWPoison(k, pfn)
    assert "already" == memory_failure.memory_failure(k, pfn)
    assert "free" == memory_failure.memory_failure(k, 5 * SECTION)
    with pytest.raises(KernelError) as caught:
        memory_failure.memory_failure(k, 100 * SECTION)
    assert ENXIO == caught.value.errno
    assert "Memory failure: 0x1900: memory outside kernel control" == k.log.lines[-1]
    k.pfn_valid = only((100 * SECTION, 101 * SECTION))
    with pytest.raises(KernelBugError, match="memmap was never made"):
        memory_failure.memory_failure(k, 100 * SECTION)


def test_soft_offline(k: Kernel) -> None:
    """By physical address; free pages and pages of processes, others are an I/O error."""
    memory.store_soft_offline_page(k, hex(5 * SECTION << k.PAGE_SHIFT))
    assert PageHWPoison(k, 5 * SECTION)
    with pytest.raises(KernelError) as caught:
        memory.store_soft_offline_page(k, hex(5 * SECTION << k.PAGE_SHIFT))
    assert EBUSY == caught.value.errno
    assert PageReserved(k, 7 * SECTION)
    with pytest.raises(KernelError) as caught:
        memory.store_soft_offline_page(k, hex(7 * SECTION << k.PAGE_SHIFT))
    assert EIO == caught.value.errno
    with pytest.raises(KernelError) as caught:
        memory.store_soft_offline_page(k, hex(100 * SECTION << k.PAGE_SHIFT))
    assert ENXIO == caught.value.errno
    memory.store_hard_offline_page(k, hex(6 * SECTION << k.PAGE_SHIFT))
    assert PageHWPoison(k, 6 * SECTION)


def test_injecting(k: Kernel) -> None:
    """Only a page with references is poisoned."""
    assert "" == hwpoison_inject.hwpoison_inject(k, 5 * SECTION)
    assert "in use" == hwpoison_inject.hwpoison_inject(k, take(k))
    with pytest.raises(KernelError):
        hwpoison_inject.hwpoison_inject(k, 1 << 52)


def test_idle_pages(k: Kernel) -> None:
    """Process pages below max_pfn."""
    pfn = take(k)
    assert not page_idle.page_idle_bitmap_read(k, pfn), "max_pfn is 0 here"
    k.max_pfn = 8 * SECTION
    assert page_idle.page_idle_bitmap_read(k, pfn)
    assert not page_idle.page_idle_bitmap_read(k, 5 * SECTION), "free"
    assert not page_idle.page_idle_bitmap_read(k, 7 * SECTION), "reserved, on no LRU list"


@pytest.mark.parametrize(
    ("gone", "start", "end"), [(4, 5, 8), (7, 4, 7), (5, 4, 8)], ids=["first", "last", "middle"])
def test_shrinking_a_zone(k: Kernel, gone: int, start: int, end: int) -> None:
    """
    The zone spans sections 4 … 7.

         | 4 | 5 | 6 | 7 |     without 4: 5 … 7; without 7: 4 … 6; without one in the middle: the same
    """
    zone = normal(k)
    k.pfn_valid = only()
    memory_hotplug.shrink_zone_span(k, zone, gone * SECTION, (gone + 1) * SECTION)
    assert (start * SECTION, end * SECTION) == (zone.zone_start_pfn, mmzone.zone_end_pfn(zone))


def test_a_zone_s_only_section_goes() -> None:
    """Nothing is left to span."""
    k = tiny_kernel()
    add_sections(k, 4, 1)
    memory_hotplug.shrink_zone_span(k, normal(k), 4 * SECTION, 5 * SECTION)
    assert (0, 0) == (normal(k).zone_start_pfn, normal(k).spanned_pages)


def test_who_watches_sees_what_is_read(k: Kernel) -> None:
    """Single pages, ranges inside a section, ranges over three, and the page that is not there; what is written is not told."""
    read: list[tuple[int, int]] = []
    k.page_watch = lambda pfn, nr_pages: read.append((pfn, nr_pages))
    mm.page_zone(k, 300)
    assert [(300, 1)] == read
    read.clear()
    list(page_ranges(k, 300, 10))
    assert {pfn for start, nr in read for pfn in range(start, start + nr)} == set(range(300, 310))
    read.clear()
    list(page_ranges(k, 4 * SECTION + 1, 3 * SECTION - 2))
    assert {pfn for start, nr in read for pfn in range(start, start + nr)} == set(range(4 * SECTION + 1, 7 * SECTION - 1))
    read.clear()
    SetPageReserved(k, 300, 10)
    with pytest.raises(KernelBugError):
        mm.page_zone(k, 100 * SECTION)
    assert [] == read
    assert None is k.fork().page_watch
