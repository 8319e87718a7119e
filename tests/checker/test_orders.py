# SPDX-License-Identifier: GPL-2.0-only
"""The order of hot-add's steps: what works, what must keep its order, and that each line of the table replays."""

from __future__ import annotations

import pytest

from memhp.checker import orders
from memhp.checker.orders import Search


@pytest.fixture(scope="module")
def memblock_only() -> Search:
    """Every order under the pfn_valid() of v4.9 arm64."""
    return orders.search("A0")


def test_the_mails_order_works(memblock_only: Search) -> None:
    """The series' own order is among the working ones."""
    assert orders.MAIL in memblock_only.working


def test_what_every_working_order_needs(memblock_only: Search) -> None:
    """Nothing works without these; the mark, its clearing and the reserving by hand can all be done without."""
    assert ["memblock add", "map", "add sections", "init memmap", "register block"] == memblock_only.needed()
    assert ("add sections", "init memmap") in memblock_only.precedences()


def test_without_the_mark_memblock_must_learn_of_it_later(memblock_only: Search) -> None:
    """The five-step orders all tell memblock after the section was added, and before its memmap is initialised."""
    for order in memblock_only.smallest():
        assert order.index("add sections") < order.index("memblock add") < order.index("init memmap")


def test_known_failures_come_out(memblock_only: Search) -> None:
    """The swallowed EEXIST, the page that is not reserved, and the oops are found and named."""
    told = memblock_only.broken
    assert ("memblock add",) == told["nothing was added: no section, no block"][0]
    swallowed = ("memblock add", "map", "add sections", "init memmap", "register block")
    assert any(swallowed[:3] == order[:3] for order in told["init memmap: oops, a struct page without memmap"])
    unreserved = ("memblock add", "map", "mark NOMAP", "add sections", "init memmap", "register block", "clear NOMAP")
    assert unreserved in told["online: EBUSY, its first page is not reserved"]


def test_every_order_is_counted_once(memblock_only: Search) -> None:
    """Working and broken orders together are what was tried, without repeats."""
    everything = [*memblock_only.working, *(order for found in memblock_only.broken.values() for order in found)]
    assert memblock_only.tried == len(everything) == len(set(everything))


def test_a_line_replays(memblock_only: Search) -> None:
    """Running one order from the start says what the search said."""
    assert orders.run(orders.MAIL).works
    for breaks, found in memblock_only.broken.items():
        assert breaks == orders.run(found[0]).breaks


def test_by_section_the_plain_order_works() -> None:
    """With pfn_valid() by section and memblock (A2) the order of other architectures works without mark and hand."""
    found = orders.search("A2")
    assert ("memblock add", "map", "add sections", "init memmap", "register block") in found.working
