# SPDX-License-Identifier: GPL-2.0-only
"""memblock against the C original: random operations, equal after each one in everything that can be seen."""

from __future__ import annotations

import pytest
from tests.oracles import memblock_c
from tests.oracles.memblock_c.compare import compare
from tests.oracles.memblock_c.model import Model

OPERATIONS = 20_000


@pytest.fixture(params=memblock_c.RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """A release whose original can be had here; built first if need be."""
    name: str = request.param
    try:
        memblock_c.build(name)
    except memblock_c.Unavailable as err:
        pytest.skip(f"{err} (make memblock-oracle)")
    return name


@pytest.mark.parametrize("numa", [True, False], ids=["numa", "flat"])
def test_random_operations(release: str, numa: bool) -> None:
    """Arrays, flags, nodes, totals, results and the log are the original's, byte for byte, with and without NUMA."""
    count, difference = compare(release, OPERATIONS, seed=1, numa=numa)
    assert not difference, "\n" + difference
    assert count["sequences"] > 50 and count["arrays doubled"] > 5


def test_another_release_is_noticed() -> None:
    """
    The comparison sees what it should: a model of v6.1 is not the C of v6.12.

    What is left of the sequence is short, and drawn.
    """
    try:
        memblock_c.build("6.12")
    except memblock_c.Unavailable as err:
        pytest.skip(f"{err} (make memblock-oracle)")
    _, difference = compare("6.12", OPERATIONS, seed=1, model=Model("6.1"))
    assert "The model and the C memblock of 6.12 part at the last of these:" in difference
    steps = difference.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    assert 1 <= len(steps) <= 4
    assert "reserved |" in difference
