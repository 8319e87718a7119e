# SPDX-License-Identifier: GPL-2.0-only
"""The buddy allocator, held against one that does every list operation singly."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.linux import tiny
from tests.oracles.buddy import MOVABLE, RECLAIMABLE, UNMOVABLE, Buddy

from memhp.linux.include import mmzone
from memhp.linux.mm import page_alloc
from memhp.linux.state import Kernel

FIRST, SECTIONS = 3, 4
rmqueue, free_pages, free_reserved_page = page_alloc.__rmqueue, page_alloc.__free_pages, page_alloc.__free_reserved_page
"""Python renames __x inside a class."""
TYPES = st.sampled_from((UNMOVABLE, MOVABLE, RECLAIMABLE))


def free_lists(k: Kernel, zone: mmzone.Zone) -> dict[tuple[int, int], list[int]]:
    """The model's free lists, the head first."""
    area = zone.free_area
    assert area is not None
    lists = {(o, t): list(reversed(pages)) for o, types in enumerate(area.free_list) for t, pages in enumerate(types)}
    lists.update({(k.MAX_ORDER - 1, t): list(blocks)[::-1] for t, blocks in enumerate(area.blocks)})
    return lists


class Allocator(RuleBasedStateMachine):
    """Random allocations and frees on a zone of four sections; the model and the oracle hand out the same pages."""

    @initialize(sizes=st.sampled_from(((3, 5), (4, 5), (2, 5), (2, 4), (5, 6))), data=st.data())
    def boot(self, sizes: tuple[int, int], data: st.DataObject) -> None:
        pageblock_order, max_order = sizes
        self.k = k = tiny.tiny_kernel(pageblock_order=pageblock_order, max_order=max_order)
        tiny.add_sections(k, FIRST, SECTIONS)
        self.zone = k.zone(0, k.ZONE_NORMAL)
        start, end = FIRST * tiny.SECTION, (FIRST + SECTIONS) * tiny.SECTION
        self.oracle = Buddy(start, end, max_order, pageblock_order)
        self.unborn = [(start, end)]
        self.taken: list[tuple[int, int]] = []
        self.forks: list[tuple[Kernel, dict[tuple[int, int], list[int]]]] = []
        for block in data.draw(st.lists(st.integers(start >> pageblock_order, (end - 1) >> pageblock_order), max_size=12)):
            migratetype = data.draw(TYPES)
            page_alloc.set_pageblock_migratetype(k, block << pageblock_order, migratetype)
            self.oracle.set_type(block << pageblock_order, migratetype)

    @precondition(lambda self: self.unborn)
    @rule(data=st.data())
    def free_range(self, data: st.DataObject) -> None:
        """Reserved pages turn into free ones, as onlining does: any range, in ascending order."""
        start, end = self.unborn.pop(data.draw(st.integers(0, len(self.unborn) - 1)))
        low = data.draw(st.integers(start, end - 1))
        high = data.draw(st.integers(low + 1, end))
        free_reserved_page(self.k, low, high - low)
        self.oracle.free_range(low, high)
        self.unborn += [piece for piece in ((start, low), (high, end)) if piece[0] < piece[1]]

    @rule(order=st.integers(0, 5), migratetype=TYPES)
    def alloc(self, order: int, migratetype: int) -> None:
        self._alloc(min(order, self.k.MAX_ORDER - 1), migratetype)

    @rule(wanted=st.lists(st.tuples(st.integers(0, 3), TYPES), min_size=8, max_size=30), keep=st.integers(1, 4))
    def busy(self, wanted: list[tuple[int, int]], keep: int) -> None:
        """A burst of allocations, of which most are given back: free blocks of every type lie in one pageblock."""
        for order, migratetype in wanted:
            self._alloc(order, migratetype)
        for pfn, order in self.taken[-len(wanted) :: keep]:
            self.taken.remove((pfn, order))
            free_pages(self.k, pfn, order)
            self.oracle.free(pfn, order)

    def _alloc(self, order: int, migratetype: int) -> None:
        pfn = rmqueue(self.k, self.zone, order, migratetype)
        assert self.oracle.alloc(order, migratetype) == pfn
        if pfn >= 0:
            self.zone.nr_free_pages -= 1 << order
            page_alloc.prep_new_page(self.k, pfn, order)
            self.taken.append((pfn, order))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        pfn, order = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        free_pages(self.k, pfn, order)
        self.oracle.free(pfn, order)

    @rule(go_on_with_fork=st.booleans())
    def fork(self, go_on_with_fork: bool) -> None:
        """Of two kernels one goes on; the other must stay as it is now."""
        if len(self.forks) > 3:
            return
        other = self.k.fork()
        if go_on_with_fork:
            self.k, other = other, self.k
            self.zone = self.k.zone(0, self.k.ZONE_NORMAL)
        self.forks.append((other, {key: pages[:] for key, pages in self.oracle.lists.items()}))

    @rule(disabled=st.booleans())
    def mobility(self, disabled: bool) -> None:
        self.k.page_group_by_mobility_disabled = self.oracle.mobility_disabled = disabled

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "k"):
            return
        area = self.zone.free_area
        assert area is not None
        assert self.oracle.lists == free_lists(self.k, self.zone)
        assert self.oracle.nr_free == area.nr_free
        assert self.oracle.free_pages == self.zone.nr_free_pages
        shift = self.k.pageblock_order
        assert self.oracle.types == {b: page_alloc.get_pageblock_migratetype(self.k, b << shift) for b in self.oracle.types}
        for other, lists in self.forks:
            assert lists == free_lists(other, other.zone(0, other.ZONE_NORMAL))


Allocator.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAllocator = Allocator.TestCase


@pytest.mark.parametrize("pageblock_order", [2, 3])
def test_a_largest_block_of_two_types(pageblock_order: int) -> None:
    """
    A largest free block that spans pageblocks of different types lies on the list of the page freed last.

        pageblocks  |U |M |U |M | ...
        freed       [ largest   ]  -> list of the last M
    """
    k = tiny.tiny_kernel(pageblock_order=pageblock_order, max_order=5)
    tiny.add_sections(k, 1, 1)
    for pfn in range(64, 128, 2 << pageblock_order):
        page_alloc.set_pageblock_migratetype(k, pfn, UNMOVABLE)
    page_alloc.__free_reserved_page(k, 64, 64)
    zone = k.zone(0, k.ZONE_NORMAL)
    assert [112, 96, 80, 64] == free_lists(k, zone)[4, MOVABLE]
    assert [] == free_lists(k, zone)[4, UNMOVABLE]
    assert 64 == zone.nr_free_pages


def test_stealing_half_a_pageblock_takes_all_of_it() -> None:
    """
    An unmovable allocation that falls back on a movable pageblock of which at least half is free turns the whole block unmovable.

        one pageblock, 8 pages   |a a . . . . . .|   a: allocated movable, '.': free
    """
    k = tiny.tiny_kernel(pageblock_order=3, max_order=5)
    tiny.add_sections(k, 1, 1)
    zone = k.zone(0, k.ZONE_NORMAL)
    page_alloc.__free_reserved_page(k, 64, 8)
    assert 64 == page_alloc.__rmqueue(k, zone, 1, MOVABLE)
    assert 68 == page_alloc.__rmqueue(k, zone, 0, UNMOVABLE)
    assert UNMOVABLE == page_alloc.get_pageblock_migratetype(k, 64)
    assert {(1, UNMOVABLE): [70, 66], (0, UNMOVABLE): [69]} == {key: v for key, v in free_lists(k, zone).items() if v}
