# SPDX-License-Identifier: GPL-2.0-only
"""Call trees of two machines, held against each other: traces of a real v6.12 on arm64, of a real v4.9, and the model's own."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from memhp.abi import recorded
from memhp.backends import base
from memhp.linux.ftrace import Call
from memhp.report import calls, traces
from memhp.scenario import Online, Plug
from memhp.units import MIB

FOLDER = Path(__file__).parents[1] / "data" / "traces" / "v6.12-arm64"
STEPS = {"plug": "add_memory_resource", "online": "online_pages", "offline": "offline_pages", "unplug": "try_remove_memory"}
"""Each step of the recorded scenario (a DIMM of one block, onlined movable), and the function it is about."""


@cache
def trace(step: str) -> list[Call]:
    return calls.read_trace(gzip.decompress((FOLDER / f"{step}.txt.gz").read_bytes()).decode())


def edit(trees: list[Call], name: str, change: Callable[[list[Call]], list[Call]]) -> list[Call]:
    """The trees, with the children of every call of `name` changed."""
    return [
        replace(call, children=change(call.children) if call.name == name else edit(call.children, name, change))
        for call in trees
    ]


@pytest.mark.parametrize("step", STEPS)
def test_a_trace_does_not_differ_from_itself(step: str) -> None:
    """The tree begins at the function it is about; what the model has no room for is listed."""
    ran = traces.hold(trace(step), trace(step))
    assert [STEPS[step]] == [call.name for call in ran.first]
    assert STEPS[step] in ran.comparison.common
    assert [] == ran.differences()
    assert ran.unmodelled[0] == ran.unmodelled[1]
    below = traces.outermost(trace(step))
    opaque = [found for call in below for name in traces.OPAQUE for found in call.find(name)]
    inside = calls.names(entry for found in opaque for entry in found.children)
    hidden = calls.names(below) - {*ran.comparison.common, *ran.unmodelled[0]}
    assert hidden <= inside | calls.PRIMITIVES | traces.REPEATED


def test_another_order_is_a_difference() -> None:
    """Two calls of online_pages() change places: that one comes early and then is missing, and where, is said."""
    def swap(children: list[Call]) -> list[Call]:
        at = [i for i, call in enumerate(children) if call.name in ("kswapd_run", "init_per_zone_wmark_min")]
        other = children[:]
        other[at[0]], other[at[1]] = other[at[1]], other[at[0]]
        return other

    names = [call.name for call in traces.outermost(trace("online"))[0].children]
    assert {"kswapd_run", "init_per_zone_wmark_min"} <= set(names)
    known = frozenset(("online_pages", "kswapd_run", "init_per_zone_wmark_min"))
    ran = traces.hold(trace("online"), edit(trace("online"), "online_pages", swap), known)
    early, missing = ran.differences(7)
    assert 7 == early.step == missing.step
    assert "in online_pages, call 1: the second enters kswapd_run(), the first enters init_per_zone_wmark_min()" in str(early)
    assert "call 2: the second returns after init_per_zone_wmark_min(), the first enters kswapd_run()" in str(missing)
    assert "calls: see above" == ran.words()[0]


def test_what_runs_on_one_machine_only() -> None:
    """A function that the other does not run is listed; another beginning is a difference."""
    without = edit(trace("online"), "online_pages", lambda children: [c for c in children if c.name != "setup_zone_pageset"])
    known = frozenset(("online_pages", "setup_zone_pageset", "move_pfn_range_to_zone"))
    ran = traces.hold(trace("online"), without, known)
    assert ("setup_zone_pageset",) == ran.comparison.model_only
    assert [("setup_zone_pageset",), ()] == [tuple(ran.json()[key]) for key in ("first_only", "second_only")]
    assert any("only on the first (1): setup_zone_pageset" in line for line in ran.words())
    assert "__online_page" not in " ".join(ran.comparison.common)
    (found,) = traces.hold(trace("online"), trace("offline")).differences()
    assert "calls: what ran: online_pages on the first, offline_pages on the second" == str(found)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_model_beside_a_real_kernel(swapped: bool) -> None:
    """
    The model of v4.9 brings its block online as the recorded kernel did, whichever of the two comes first.

    What that kernel's tracer left out, and what its compiler inlined, is listed.
    """
    recording = recorded.recording("v4.9-x86_64/1-probe")
    real = calls.read_trace(recording.trace("online"))
    model = base.open(f"model:v4.9/x86_64?capture={recording.capture('00-boot').directory}")
    base.apply(model, Plug(id="d1", size=128 * MIB))
    record = traces.Traces()
    with record.around(model):
        assert "ok" == base.apply(model, Online(block="d1:0")).word
    ours = record._trees[0]
    ran = traces.hold(real, ours) if swapped else traces.hold(ours, real)
    assert swapped == ran.swapped
    assert [] == [str(found) for found in ran.differences()]
    assert {"online_pages", "build_all_zonelists", "online_pages_range"} <= set(ran.comparison.common)
    assert ("build_all_zonelists", "nr_free_pagecache_pages") in ran.comparison.inlined
    only = ran.json()["second_only" if swapped else "first_only"]
    assert "build_zonelists" in only


def test_two_models_in_steps() -> None:
    """Each step starts anew; a step in which nothing of it runs has no words."""
    machines = [base.open("model:v4.9/x86_64?mem=1G") for _ in range(2)]
    record = traces.Traces()
    for step, root in ((Plug(id="d1", size=128 * MIB), "add_memory_resource"), (Online(block="d1:0"), "online_pages")):
        for machine in machines:
            with record.around(machine):
                base.apply(machine, step)
        ran = record.take()
        assert [] == ran.differences()
        assert {root} == {call.name for call in ran.first}
    for machine in machines:
        with record.around(machine):
            base.apply(machine, Online(block=99))
    assert [] == record.take().words()
