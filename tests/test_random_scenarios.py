# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios made by chance: a seed makes the same one again, each can be written down, and they are not all alike."""

from __future__ import annotations

from collections import Counter

import pytest

from memhp import scenario
from memhp.scenario import Plug, Resize
from memhp.units import GIB, MIB
from tests import answers
from tests.random_scenarios import make, make_for


@pytest.mark.parametrize("kernel", answers.KERNELS)
def test_a_seed_makes_one_scenario(kernel: str) -> None:
    """Made twice it is the same; written and read it is the same; the kernel has the drivers it needs."""
    judge = answers.KERNELS[kernel]
    for seed in range(50):
        script = make_for(judge, seed)
        assert script == make_for(judge, seed)
        assert script == scenario.loads(scenario.dumps(script))
        assert judge.takes(script)


def test_chance_does_all_there_is() -> None:
    """Every verb comes often; sizes that fit are the rule; devices, nodes and policies come, too."""
    scripts = [make(seed, "arm64") for seed in range(300)]
    verbs = Counter(step.do for script in scripts for step in script.steps)
    assert {"plug", "unplug", "online", "offline", "resize", "write"} == set(verbs)
    assert min(verbs.values()) > 100
    sizes = [step.size % (128 * MIB) == 0 for script in scripts for step in script.steps if isinstance(step, Plug)]
    assert len(sizes) / 2 < sum(sizes) < len(sizes)
    assert {0, 1, 2} == {len(script.devices) for script in scripts}
    for word in ("nodes=", "auto-movable", "memmap_on_memory", "movable_node"):
        assert any(word in script.machine for script in scripts)


def test_large_blocks() -> None:
    """For a kernel with blocks of 1 GiB the sizes grow with them, and nobody asks a device that is not there."""
    scripts = [make(seed, "arm64", block=GIB, virtio_mem=False) for seed in range(100)]
    steps = [step for script in scripts for step in script.steps]
    assert any(isinstance(step, Plug) and step.size == 3 * GIB for step in steps)
    assert not any(isinstance(step, Resize) for step in steps)
