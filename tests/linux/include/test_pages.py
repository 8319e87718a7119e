# SPDX-License-Identifier: GPL-2.0-only
"""Columns of pages against single pages: whatever is done to ranges, every page is as a loop over pages leaves it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.linux import tiny
from tests.oracles.pages import FIELDS, Fault, Page, Slow

from memhp.errors import KernelBugError
from memhp.linux.drivers.base import memory
from memhp.linux.include import memory_model, mm, mm_types, mmzone, page_flags
from memhp.linux.mm import memblock, memory_hotplug, page_alloc, sparse
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9

SECTIONS = (2, 3, 5)
"""Sections with a memmap; 4 is a hole, 1 and 6 are not there."""
LOW, HIGH = 1, 7

ARCH = mmzone.Definition("map", "as arm64 v4.9", (memblock.MAP,))
SUBSECTIONS = dataclasses.replace(V4_9, has_early_sections=True, has_subsections=True)


class Pair:
    """A kernel and its oracle."""

    def __init__(self, k: Kernel, slow: Slow) -> None:
        self.k, self.slow = k, slow
        slow.valid = lambda pfn: k.pfn_valid.test(k, pfn)

    def fork(self) -> Pair:
        k = self.k.fork()
        return Pair(k, self.slow.copy(self.slow.valid))

    def check(self) -> None:
        k, slow = self.k, self.slow
        for nr in SECTIONS:
            columns = memory_model.page_columns(k, nr << k.PFN_SECTION_SHIFT)
            first = nr << k.PFN_SECTION_SHIFT
            for which, name in enumerate(FIELDS):
                expected = bytes(getattr(slow.pages[first + i], name) for i in range(k.PAGES_PER_SECTION))
                assert expected == columns.values(which, 0, k.PAGES_PER_SECTION), (nr, name)
        spanned = range(SECTIONS[0] * k.PAGES_PER_SECTION, (SECTIONS[-1] + 1) * k.PAGES_PER_SECTION, k.pageblock_nr_pages)
        blocks = [pfn for pfn in spanned if pfn >> k.PFN_SECTION_SHIFT in SECTIONS]
        assert [slow.types.get(pfn >> k.pageblock_order, 0) for pfn in blocks] == [
            page_alloc.get_pageblock_migratetype(k, pfn) for pfn in blocks]


def pair(bits: int, pageblock_order: int, holes: bool, definition: mmzone.Definition, spans: tuple[int, int]) -> Pair:
    tree = SUBSECTIONS if definition is mmzone.G1 else V4_9
    k = tiny.tiny_kernel(
        section_bits=bits, pageblock_order=pageblock_order, holes=holes, definition=definition, tree=tree, nodes=2)
    for nr in SECTIONS:
        sparse.sparse_add_one_section(k, 0, nr << k.PFN_SECTION_SHIFT)
    slow = Slow(k.PAGES_PER_SECTION, pageblock_order, k.MAX_ORDER, holes, lambda pfn: True, k.ZONE_MOVABLE)
    for nid in k.nodes:
        for zone in k.nodes[nid].node_zones[: 1 if nid else 3]:
            start, end = (pfn * k.PAGES_PER_SECTION // 64 for pfn in spans)
            page_alloc.init_currently_empty_zone(k, zone, start, end - start)
            zone.spanned_pages = end - start
            slow.zones[nid, zone.idx] = start, end
    for nr in SECTIONS:
        for pfn in range(nr * k.PAGES_PER_SECTION, (nr + 1) * k.PAGES_PER_SECTION):
            slow.pages[pfn] = Page()
    return Pair(k, slow)


pairs = st.builds(
    pair, st.sampled_from((17, 18)), st.sampled_from((2, 3, 4)), st.booleans(),
    st.sampled_from((mmzone.G0, ARCH, mmzone.G1)), st.sampled_from(((128, 384), (128, 250), (150, 384), (128, 256))))

ZONES, NIDS = st.integers(0, 2), st.sampled_from((0, 0, 1))
ranges = st.tuples(st.integers(LOW * 64, HIGH * 64), st.sampled_from((1, 1, 2, 7, 8, 16, 64, 65, 128, 200)))
"""(start, length) for sections of 64 pages; smaller sections are scaled down."""
writes = st.one_of(
    st.tuples(st.just("SetPageReserved"), ranges),
    st.tuples(st.just("ClearPageReserved"), ranges),
    st.tuples(st.just("set_page_links"), ranges, ZONES, NIDS),
    st.tuples(st.just("init_page_count"), ranges),
    st.tuples(st.just("set_page_count"), ranges, st.integers(0, 3)),
    st.tuples(st.just("set_page_kind"), ranges, st.integers(0, 7),
              st.sampled_from((0, page_flags.PG_LRU, page_flags.PG_HWPOISON))),
    st.tuples(st.just("init_pages"), ranges, ZONES, NIDS),
    st.tuples(st.just("memmap_init_zone"), ranges, ZONES, NIDS, st.booleans()),
    st.tuples(st.just("set_pageblock_migratetype"), ranges, st.integers(0, 3)),
    st.tuples(st.just("add_zone"), st.sampled_from(SECTIONS), ZONES),
    st.tuples(st.just("memblock"), ranges, st.booleans()),
    st.tuples(st.just("fork")),
    st.tuples(st.just("mobility"), st.booleans()),
)


def scaled(k: Kernel, span: tuple[int, int]) -> tuple[int, int]:
    start, length = span
    return start * k.PAGES_PER_SECTION // 64, length


def fast_write(k: Kernel, name: str, args: tuple[Any, ...]) -> None:
    start, length = scaled(k, args[0]) if isinstance(args[0], tuple) else (0, 0)
    if name == "SetPageReserved":
        page_flags.SetPageReserved(k, start, length)
    elif name == "ClearPageReserved":
        page_flags.ClearPageReserved(k, start, length)
    elif name == "set_page_links":
        mm.set_page_links(k, start, length, *args[1:])
    elif name == "init_page_count":
        mm.init_page_count(k, start, length)
    elif name == "set_page_count":
        mm.set_page_count(k, start, length, args[1])
    elif name == "set_page_kind":
        page_flags.set_page_kind(k, start, length, *args[1:])
    elif name == "init_pages":
        page_alloc.__init_single_page(k, start, length, *args[1:])
    elif name == "memmap_init_zone":
        zone, nid, early = args[1:]
        page_alloc.memmap_init_zone(
            k, length, nid, zone, start, page_alloc.MEMMAP_EARLY if early else page_alloc.MEMMAP_HOTPLUG)
    elif name == "set_pageblock_migratetype":
        page_alloc.set_pageblock_migratetype(k, start, args[1])
    elif name == "add_zone":
        first = args[0] << k.PFN_SECTION_SHIFT
        memory_hotplug.__add_zone(k, k.zone(0, args[1]), first)
    else:
        raise AssertionError(name)


def slow_write(pair: Pair, name: str, args: tuple[Any, ...]) -> None:
    k, slow = pair.k, pair.slow
    if name == "add_zone":
        first = args[0] << k.PFN_SECTION_SHIFT
        low, high = slow.zones[0, args[1]]
        slow.zones[0, args[1]] = min(low, first), max(high, first + k.PAGES_PER_SECTION)
        slow.add_zone(first, args[1], 0)
        return
    start, length = scaled(k, args[0])
    if name == "set_pageblock_migratetype":
        slow.set_pageblock_migratetype(start, args[1])
    else:
        getattr(slow, name)(start, length, *args[1:])


def write(pair: Pair, name: str, args: tuple[Any, ...]) -> None:
    """Do one thing to both; both fault or neither does."""
    k = pair.k
    if name == "mobility":
        k.page_group_by_mobility_disabled = pair.slow.mobility_disabled = args[0]
        return
    if name == "memblock":
        start, length = scaled(k, args[0])
        call = memblock.memblock_add if args[1] else memblock.memblock_mark_nomap
        call(k, start << k.PAGE_SHIFT, length << k.PAGE_SHIFT)
        return
    if name == "set_pageblock_migratetype" and (scaled(k, args[0])[0] >> k.PFN_SECTION_SHIFT) not in SECTIONS:
        return
    fault = None
    try:
        slow_write(pair, name, args)
    except Fault as err:
        fault = err
    if fault is None:
        fast_write(k, name, args)
        return
    with pytest.raises(KernelBugError, match=f"pfn {fault.pfn:#x} "):
        fast_write(k, name, args)


def ask(pair: Pair) -> None:
    """Every question that C answers with a loop over pages gets the same answer."""
    k, slow = pair.k, pair.slow
    size = k.PAGES_PER_SECTION
    low, high = LOW * size + 3, HIGH * size - 5
    runs = mmzone.pfn_valid_runs(k, low, high)
    assert [slow.valid(pfn) for pfn in range(low, high)] == [ok for start, end, ok in runs for _ in range(start, end)]
    assert all(a[2] != b[2] for a, b in itertools.pairwise(runs))
    for nr in SECTIONS:
        start = nr * size
        assert slow.correctly_reserved(start, 1) == memory.pages_correctly_reserved(k, start)
        assert slow.removable(start, size) == memory_hotplug.is_mem_section_removable(k, start, size)
        assert slow.pages_in_a_zone(start, start + size) == memory_hotplug.test_pages_in_a_zone(k, start, start + size)
        for pfn in range(start, start + size, k.pageblock_nr_pages):
            zone = mm.page_zone(k, pfn)
            assert slow.has_unmovable(pfn) == page_alloc.has_unmovable_pages(k, zone, pfn, 0, True)
        reserved = [pfn for pfn in range(start, start + size) if slow.pages[pfn].flags & page_flags.PG_RESERVED]
        assert len(reserved) == page_flags.reserved_pages(k, start, size)
        others = sorted({*range(start, start + size)} - {*reserved})
        assert (others[0] if others else -1) == page_flags.first_not_reserved(k, start, size)
    for first, last in ((2, 3), (2, 5), (4, 5)):
        start, end = first * size, (last + 1) * size
        assert slow.pages_in_a_zone(start, end) == memory_hotplug.test_pages_in_a_zone(k, start, end)
    for nid, idx in slow.zones:
        zone = k.zone(nid, idx)
        assert slow.zones[nid, idx] == (zone.zone_start_pfn, mmzone.zone_end_pfn(zone))
        page_alloc.clear_zone_contiguous(zone)
        try:
            expected: object = slow.contiguous(nid, idx)
        except Fault:
            with pytest.raises(KernelBugError):
                page_alloc.set_zone_contiguous(k, zone)
            continue
        page_alloc.set_zone_contiguous(k, zone)
        assert expected == zone.contiguous


@settings(max_examples=150)
@given(first=pairs, steps=st.lists(st.tuples(st.integers(0, 3), writes), max_size=10))
def test_ranges_are_loops_over_pages(first: Pair, steps: list[tuple[int, tuple[Any, ...]]]) -> None:
    """
    Random writes to random ranges, forks in between; each write goes to one of the kernels, and every kernel is looked at.

        section    1     2     3     4     5     6
        memmap     .   [===] [===]   .   [===]   .      '.': a write that comes here faults, the pages before it are written
    """
    pairs = [first]
    for which, (name, *args) in steps:
        target = pairs[which % len(pairs)]
        if name == "fork":
            if len(pairs) < 4:
                pairs.append(target.fork())
            continue
        write(target, name, tuple(args))
        for each in pairs:
            each.check()
    for each in pairs:
        try:
            ask(each)
        except Fault as err:
            raise AssertionError(f"the oracle touched pfn {err.pfn:#x}") from err


@pytest.mark.parametrize(("pfn", "one_zone"), [(128, True), (129, False), (144, True), (145, False), (192, True), (193, False)])
def test_only_second_pages_are_looked_at(pfn: int, one_zone: bool) -> None:
    """
    test_pages_in_a_zone() sees one page of 16: of two sections, pfns 129, 145, … 193, …

        section 2   |. x . . . . . . . . . . . . . .|. x . .   x: looked at
    """
    k = tiny.tiny_kernel()
    tiny.add_sections(k, 2, 2)
    assert memory_hotplug.test_pages_in_a_zone(k, 128, 256)
    mm.set_page_links(k, pfn, 1, k.ZONE_MOVABLE, 0)
    assert one_zone == memory_hotplug.test_pages_in_a_zone(k, 128, 256)


columns = st.integers(0, mm_types.COLUMNS - 1)
offsets = st.integers(0, 16)
bits = st.integers(0, 255)


@settings(max_examples=150)
@given(steps=st.lists(st.tuples(
    st.integers(0, 2), st.sampled_from(("fill", "set_bits", "clear_bits", "zero", "share")), columns, offsets, offsets, bits)))
def test_columns_are_arrays(steps: list[tuple[int, str, int, int, int, int]]) -> None:
    """PageColumns is five arrays of 16 bytes; a twin made by share() never sees what the other does afterwards."""
    made = [(mm_types.PageColumns(16), [bytearray(16) for _ in range(mm_types.COLUMNS)])]
    for which, name, column, a, b, mask in steps:
        fast, slow = made[which % len(made)]
        start, end = min(a, b), max(a, b)
        if start == end and name in ("fill", "set_bits", "clear_bits"):
            continue
        if name == "share":
            # As MemSection.copy() does it when a fork is about to write: neither side may edit in place.
            if len(made) < 3:
                fast.owned = 0
                made.append((fast.share(), [col[:] for col in slow]))
        elif name == "zero":
            fast.zero()
            slow[:] = [bytearray(16) for _ in range(mm_types.COLUMNS)]
        else:
            getattr(fast, name)(column, start, end, mask)
            for i in range(start, end):
                before = slow[column][i]
                slow[column][i] = {"fill": mask, "set_bits": before | mask, "clear_bits": before & ~mask}[name]
        for columns, arrays in made:
            for which_column, array in enumerate(arrays):
                assert bytes(array) == columns.values(which_column, 0, 16)
                for mask_, value in ((1, 1), (0x41, 0x40), (0xFF, 0)):
                    hits = [i for i in range(start, end) if array[i] & mask_ == value]
                    assert len(hits) == columns.count(which_column, start, end, mask_, value)
                    assert (hits[0] if hits else -1) == columns.find(which_column, start, end, mask_, value)
                uniform = columns.uniform(which_column)
                assert uniform is None or bytes(array) == bytes([uniform]) * 16
