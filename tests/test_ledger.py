# SPDX-License-Identifier: GPL-2.0-only
"""What the ledger claims is so. If not: make ledger."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from types import FrameType
from typing import Any

import pytest

from memhp.checker import lines
from memhp.linux import tree
from tests.comparisons import comparisons
from tools import ledger

AGAIN = "make ledger writes it anew"
DATA = json.loads(ledger.DATA.read_text(encoding="utf-8"))
COVER = json.loads(ledger.COVER.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ledger.trees())
def test_what_is_claimed_is_held(name: str) -> None:
    """Few comparisons run all lines that count as held on a tree, and they are equal."""
    changed = [room for room in lines.rooms() if DATA["rooms"].get(room, {}).get("text") != lines.digest(lines.read_room(room))]
    if changed:
        pytest.skip(f"the ledger is of another model, {', '.join(changed[:3])} differ: {AGAIN}")
    chosen = [c for c in comparisons() if c.tree == name and c.name in COVER.get(name, [])]
    tally = ledger.run(chosen)
    assert {} == {c.name: why for c, why in tally.unequal.items()}
    held = tally.held[name]
    for key, places in ledger.claimed(DATA, name).items():
        function = ledger.functions()[key]
        missing = [function.lines[place].first for place in sorted(places - held.get(key, set()))]
        assert not missing, f"{key[0]} {key[1]}: line {missing[0]} is held by nothing; {AGAIN}"


def test_notes_say_what_a_trace_function_says() -> None:
    """One comparison, looked at in both ways: the same lines ran."""
    comparison = next(c for c in comparisons() if c.name == "recorded v4.9-x86_64/2c-movable-below")
    seen: dict[str, set[int]] = defaultdict(set)

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        _, root, room = frame.f_code.co_filename.rpartition("/memhp/linux/")
        if not root:
            return None
        if event == "line":
            seen[room].add(frame.f_lineno)
        return trace

    ledger.forget()
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        comparison.run(lambda: None)
    finally:
        sys.settrace(previous)
    with ledger.Looking({key: set(ledger.countable(key)) for key in ledger.functions()}) as looking:
        ran = looking.run(comparison)
    for key, function in ledger.functions().items():
        traced = {place for place in ledger.countable(key)
                  if seen[key[0]] & set(range(function.lines[place].first, function.lines[place].last + 1))}
        assert traced == ran.get(key, set()), key


def test_the_page_and_the_data_say_the_same() -> None:
    """docs/fidelity.md counts what the data holds."""
    page = ledger.PAGE.read_text(encoding="utf-8")
    for name in COVER:
        if COVER[name]:
            [row] = [line for line in page.splitlines() if line.startswith(f"| {name} |") and "%" in line]
            assert row.split("|")[3].strip().replace(",", "").isdigit()


@pytest.mark.parametrize("name", ledger.trees())
def test_what_ran_can_be_come_to(name: str) -> None:
    """The lines that a tree can run, as the facts say, include those that it did run."""
    reach = ledger.Reach().of(name)
    for key, places in ledger.claimed(DATA, name).items():
        function = ledger.functions()[key]
        missing = [function.lines[place].first for place in sorted(places - reach.get(key, set()))]
        assert not missing, f"{name} ran {key[0]}:{missing[0]}, which its facts keep it from"


def test_a_tree_cannot_run_what_its_facts_exclude() -> None:
    """Functions of later kernels are out of the reach of v4.9, and its own out of theirs."""
    assert {"v4.9", "v4.9+arm64-rfc-2016"} <= set(ledger.trees())
    reach = ledger.Reach()
    old, rfc = reach.of("v4.9"), reach.of("v4.9+arm64-rfc-2016")
    assert ("series/arm64_rfc_2016.py", "_full") not in old or not tree.V4_9.arm64_nomap_window
    assert ("arch/arm64/mm/mmu.py", "arch_add_memory") in rfc
    assert ("arch/x86/mm/init_64.py", "arch_add_memory") in old and ("arch/x86/mm/init_64.py", "arch_add_memory") not in rfc
