# SPDX-License-Identifier: GPL-2.0-only
"""Isolating pageblocks, held against an oracle that takes one pageblock and one page at a time, in four kernels."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.linux import tiny
from tests.linux.mm.test_buddy import free_lists
from tests.oracles.buddy import ISOLATE, MOVABLE, UNMOVABLE
from tests.oracles.isolation import Isolation, Used

from memhp.errors import KernelError
from memhp.linux.include import mm, mmzone
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_KERNEL,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PG_RESERVED,
    set_page_kind,
)
from memhp.linux.mm import memory_hotplug, page_alloc, page_isolation
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9, V5_10, V6_1, V6_12

TREES = {"v4.9": V4_9, "v5.10": V5_10, "v6.1": V6_1, "v6.12": V6_12}
FIRST, SECTIONS = 3, 4
START, END = FIRST * tiny.SECTION, (FIRST + SECTIONS) * tiny.SECTION
FLAGS = page_isolation.MEMORY_OFFLINE | page_isolation.REPORT_FAILURE
smallest, free_pages, offline = page_alloc.__rmqueue_smallest, page_alloc.__free_pages, page_alloc.__offline_isolated_pages
"""Python renames __x inside a class."""
KINDS = {
    "lru": (Used(lru=True), KIND_ANON, PG_LRU),
    "kernel": (Used(), KIND_KERNEL, 0),
    "reserved": (Used(reserved=True), KIND_KERNEL, PG_RESERVED),
    "poisoned": (Used(poisoned=True), KIND_KERNEL, PG_HWPOISON),
    "offline": (Used(offline=True), KIND_KERNEL, PG_OFFLINE),
    "given up": (Used(refcount=0, offline=True), KIND_KERNEL, PG_OFFLINE),
}


def online(k: Kernel, zone_idx: int) -> mmzone.Zone:
    """Give a kernel four sections of free pages in one zone; they are online, and movable."""
    zone = k.zone(0, zone_idx)
    memory_hotplug.__add_pages(k, 0, zone, START, END - START)
    for nr in range(FIRST, FIRST + SECTIONS):
        section = k.section_rw(nr)
        section.subsection_map = 1
        if k.tree.has_online_sections:
            section.section_mem_map |= mmzone.SECTION_IS_ONLINE
    page_alloc.__free_reserved_page(k, START, END - START)
    return zone


class Isolating(RuleBasedStateMachine):
    """Pages come into use and go; ranges are isolated, and given back. Lists, types and counters stay those of the oracle."""

    @initialize(
        release=st.sampled_from(list(TREES)), sizes=st.sampled_from(((3, 5), (4, 5), (3, 4), (2, 5))), movable=st.booleans())
    def boot(self, release: str, sizes: tuple[int, int], movable: bool) -> None:
        pageblock_order, max_order = sizes
        if pageblock_order < max_order - 2:
            pageblock_order = max_order - 2
        self.k = tiny.tiny_kernel(pageblock_order=pageblock_order, max_order=max_order, tree=TREES[release])
        self.zone = online(self.k, self.k.ZONE_MOVABLE if movable else self.k.ZONE_NORMAL)
        self.oracle = Isolation(START, END, max_order, pageblock_order, release, movable)
        for pfn in range(START, END):
            self.oracle.free_block(pfn, 0, MOVABLE)
        self.taken: list[tuple[int, int, str]] = []
        self.gone: list[tuple[int, int]] = []

    @rule(wanted=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(list(KINDS))), min_size=1, max_size=6))
    def use(self, wanted: list[tuple[int, str]]) -> None:
        """Blocks come into use, every page of them alike."""
        for order, kind in wanted:
            if self.oracle.generation == "v4.9" and KINDS[kind][0].offline:
                kind = "lru"
            order = min(order, self.k.MAX_ORDER - 1)
            pfn = smallest(self.k, self.zone, order, MOVABLE)
            assert self.oracle.smallest(order, MOVABLE) == pfn
            if pfn < 0:
                return
            self.zone.nr_free_pages -= 1 << order
            used, number, flags = KINDS[kind]
            set_page_kind(self.k, pfn, 1 << order, number, flags)
            mm.set_page_count(self.k, pfn, 1 << order, used.refcount)
            self.oracle.used.update({page: used for page in range(pfn, pfn + (1 << order))})
            self.taken.append((pfn, order, kind))

    @rule(data=st.data())
    def scatter(self, data: st.DataObject) -> None:
        """Many small blocks come into use and most of them go again: free blocks of every order are left."""
        self.use([(order, "lru") for order in data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=30))])
        for _ in range(len(self.taken) * 3 // 4):
            self.free(data)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.taken) - 1))
        pfn, order, kind = self.taken[at]
        if kind == "poisoned" or any(start <= pfn < end for start, end in self.gone):
            return
        del self.taken[at]
        free_pages(self.k, pfn, order)
        for page in range(pfn, pfn + (1 << order)):
            del self.oracle.used[page]
        self.oracle.free_block(pfn, order, self.oracle.type_of(pfn))

    @rule(data=st.data())
    def unmovable(self, data: st.DataObject) -> None:
        """A pageblock becomes unmovable: v4.9 looks at the pages of such only."""
        if self.oracle.generation == "v4.9":
            pfn = data.draw(st.integers(START, END - 1))
            if not any(start <= pfn < end for start, end in self.gone):
                page_alloc.set_pageblock_migratetype(self.k, pfn, UNMOVABLE)
                self.oracle.set_type(pfn, UNMOVABLE)

    def _range(self, data: st.DataObject, step: int) -> tuple[int, int]:
        low = data.draw(st.integers(0, (END - START) // step - 1))
        high = data.draw(st.integers(low + 1, (END - START) // step))
        return START + low * step, START + high * step

    @rule(data=st.data(), whole=st.booleans())
    def isolate_and_give_back(self, data: st.DataObject, whole: bool) -> None:
        """Whole sections, or any pageblocks."""
        low, high = self._range(data, tiny.SECTION if whole else self.oracle.block)
        if any(start < high and low < end for start, end in self.gone):
            return
        before = len(self.oracle.dumped), len(self.k.log.lines)
        expected = self.oracle.start_isolate_page_range(low, high)
        assert expected == self._isolates(low, high)
        dumped = [line for line in self.k.log.lines[before[1] :] if line == "page dumped because: unmovable page"]
        assert len(self.oracle.dumped) - before[0] == len(dumped)
        if not expected:
            return
        assert self.oracle.isolated == self.zone.nr_isolate_pageblock
        assert self.oracle.test_pages_isolated(low, high) == self._in_use(low, high)
        page_isolation.undo_isolate_page_range(self.k, low, high, MOVABLE)
        self.oracle.undo_isolate_page_range(low, high)

    @rule(section=st.integers(FIRST, FIRST + SECTIONS - 1))
    def take_away(self, section: int) -> None:
        """A section whose pages are all free leaves."""
        low, high = section * tiny.SECTION, (section + 1) * tiny.SECTION
        if (low, high) in self.gone:
            return
        if not self.oracle.start_isolate_page_range(low, high):
            assert not self._isolates(low, high)
            return
        assert self._isolates(low, high)
        if self.oracle.test_pages_isolated(low, high) is None:
            given_up = sum(self.oracle.used[page].offline for page in range(low, high) if page in self.oracle.used)
            managed = offline(self.k, low, high)
            assert tiny.SECTION - (given_up if self.k.tree.hotplug_pages_offline else 0) == managed
            for pfn in range(low, high):
                order = self.oracle.order_of(pfn)
                if order >= 0:
                    self.oracle.unlink(pfn, order)
            blocks = range(low, high, self.oracle.block)
            for pfn in blocks:
                del self.oracle.types[pfn >> self.oracle.pageblock_order]
            self.oracle.isolated -= len(blocks)
            self.zone.nr_isolate_pageblock -= len(blocks)
            self.gone.append((low, high))
            return
        page_isolation.undo_isolate_page_range(self.k, low, high, MOVABLE)
        self.oracle.undo_isolate_page_range(low, high)

    def _isolates(self, low: int, high: int) -> bool:
        try:
            page_isolation.start_isolate_page_range(self.k, low, high, MOVABLE, FLAGS)
        except KernelError as err:
            pfn = err.facts["pfn"]
            assert isinstance(pfn, int) and low <= pfn < high
            if self.k.tree.isolation_reports_page:
                assert self.oracle.dumped[-1] == pfn
            return False
        return True

    def _in_use(self, low: int, high: int) -> int | None:
        try:
            page_isolation.test_pages_isolated(self.k, low, high, page_isolation.MEMORY_OFFLINE)
        except KernelError as err:
            pfn = err.facts["pfn"]
            assert isinstance(pfn, int)
            return pfn
        return None

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "k"):
            return
        area = self.zone.free_area
        assert area is not None
        assert self.oracle.lists == free_lists(self.k, self.zone)
        assert self.oracle.nr_free == area.nr_free
        assert self.oracle.counted == self.zone.nr_free_pages
        assert self.oracle.isolated == self.zone.nr_isolate_pageblock
        shift = self.k.pageblock_order
        assert self.oracle.types == {b: page_alloc.get_pageblock_migratetype(self.k, b << shift) for b in self.oracle.types}


Isolating.TestCase.settings = settings(max_examples=80, stateful_step_count=30)
TestIsolating = Isolating.TestCase


@pytest.mark.parametrize("release", TREES)
def test_a_pageblock_is_isolated_once(release: str) -> None:
    """Whoever comes second is refused, but in v4.9, where nobody looked."""
    k = tiny.tiny_kernel(tree=TREES[release])
    zone = online(k, k.ZONE_NORMAL)
    page_isolation.start_isolate_page_range(k, START, START + tiny.SECTION, MOVABLE, FLAGS)
    assert tiny.SECTION // k.pageblock_nr_pages == zone.nr_isolate_pageblock
    if release == "v4.9":
        page_isolation.start_isolate_page_range(k, START, START + tiny.SECTION, MOVABLE, FLAGS)
        return
    with pytest.raises(KernelError, match="isolated already"):
        page_isolation.start_isolate_page_range(k, START, START + 2 * tiny.SECTION, MOVABLE, FLAGS)
    assert ISOLATE == page_alloc.get_pageblock_migratetype(k, START)
    assert MOVABLE == page_alloc.get_pageblock_migratetype(k, START + tiny.SECTION)
