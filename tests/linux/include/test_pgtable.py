# SPDX-License-Identifier: GPL-2.0-only
"""Runs, held against a dict with one entry for each position."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from memhp.linux.include.pgtable import PMD, PTE, LinearMap, Runs

SPAN = 24
EDITS = st.lists(st.tuples(st.integers(0, SPAN), st.integers(0, SPAN), st.integers(-1, 3)), max_size=25)
"""(start, end, value), or a cut where the value is negative."""


@given(EDITS, st.sampled_from((0, 1)), st.integers(0, SPAN), st.integers(0, SPAN))
def test_runs(edits: list[tuple[int, int, int]], step: int, low: int, high: int) -> None:
    """Adding, cutting and asking give what a dict gives; runs that continue each other are one."""
    runs, entries = Runs(step), dict[int, int]()
    for start, end, value in edits:
        if value < 0:
            gone = {p: v + (p - first) * step for first, last, v in runs.cut(start, end) for p in range(first, last)}
            assert gone == {p: entries.pop(p) for p in range(start, end) if p in entries}
        elif start < end and not any(p in entries for p in range(start, end)):
            runs.add(start, end, value * SPAN + start * step)
            entries.update((p, value * SPAN + p * step) for p in range(start, end))
    assert entries == {p: value + (p - start) * step for start, end, value in runs for p in range(start, end)}
    assert len(entries) == runs.total()
    listed = list(runs)
    for (first, end, value), (start, _, following) in itertools.pairwise(listed):
        assert end < start or value + (end - first) * step != following, "what continues a run belongs to it"
    assert any(p in entries for p in range(low, high)) == runs.any(low, high)
    gaps = runs.gaps(low, high) if low < high else []
    assert [p for p in range(low, high) if p not in entries] == [p for start, end in gaps for p in range(start, end)]
    inside = {p: value + (p - start) * step for start, end, value in runs.within(low, high) for p in range(start, end)}
    assert inside == {p: entries[p] for p in range(low, high) if p in entries}


def test_a_copy_is_of_its_own() -> None:
    """Editing a copy leaves the original alone."""
    linear = LinearMap((0, 2, 4), 0, object())
    linear.leaves.add(0, 4, PMD)
    linear.tables[PTE].add(1, 2, 7)
    other = linear.copy(object())
    other.leaves.cut(0, 2)
    other.tables[PTE].cut(1, 2)
    assert [(0, 4, PMD)] == list(linear.leaves)
    assert [(1, 2, 7)] == list(linear.tables[PTE])
    assert [(2, 4)] == list(other.mapped(0, 9))
    assert linear.owner is not other.owner


def test_an_empty_table_has_no_leaf_and_no_table() -> None:
    """A table that covers a leaf or a lower table is in use; what can be reached is told by physical address."""
    linear = LinearMap((0, 2, 4), 100, object())
    assert linear.empty(PTE, 0)
    linear.tables[PTE].add(1, 2, 0)
    assert not linear.empty(PMD, 0), "a table lies in it"
    linear.tables[PTE].cut(1, 2)
    linear.leaves.add(6, 7, PTE)
    assert [True, False] == [linear.empty(PTE, 0), linear.empty(PTE, 1)]
    assert not linear.empty(PMD, 0)
    assert linear.empty(PMD, 1)
    linear.leaves.add(7, 12, PMD)
    assert ((-94, -88),) == linear.ranges()
    assert [1, 5, 0] == linear.bytes_by_level()
