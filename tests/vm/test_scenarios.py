# SPDX-License-Identifier: GPL-2.0-only
"""
Real kernels asked again, now: do they still answer as recorded, and does the model answer as they do?

A few scenarios per kernel; MEMHP_LAB_SCENARIOS=all asks every one, MEMHP_LAB_SEEDS=N so many scenarios that chance makes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests import answers
from tests.judge import ask, compare, judge, known, modelled, replay
from tests.random_scenarios import make_for
from tests.snapshots import Guests
from tests.vm.conftest import ON, need

from memhp.backends.base import QemuURL

ALL = os.environ.get("MEMHP_LAB_SCENARIOS") == "all"
SEEDS = int(os.environ.get("MEMHP_LAB_SEEDS", "3"))
FIRST_SEED = 1_000_000
"""Seeds of their own: those that are recorded are others."""
FEW = (
    "any/life", "any/online-alternating", "any/virtio-mem-up-and-down", "any/memmap-on-memory", "arm64/boot-memory", "gib/life",
    "gib/alternating",
)  # fmt: skip
"""Not x86_64/boot-memory-movable: whether a page of movable boot memory is in the way is decided anew at every boot."""


@pytest.fixture(scope="module")
def guests() -> Iterator[Guests]:
    with Guests() as opened:
        yield opened


def _asked() -> Iterator[tuple[str, str]]:
    for kernel in answers.KERNELS.values():
        names = [name for name in answers.scenarios(kernel) if ALL or name in FEW]
        for name in sorted(names, key=lambda name: (answers.SCENARIOS / f"{name}.toml").read_text().split("machine")[1]):
            yield kernel.name, name


@pytest.mark.parametrize(("kernel", "name"), list(_asked()))
def test_a_kernel_answers_as_recorded(kernel: str, name: str, guests: Guests) -> None:
    """What is kept as data is what the kernel says today; what its own allocations decide is set aside."""
    judged = answers.KERNELS[kernel]
    recording = answers.load(judged, name) if ON else None
    if recording is None or recording.stale:
        pytest.skip("needs QEMU and real kernels: make lab runs it" if not ON else f"{kernel} was not asked {name} yet")
    need(recording.url)
    now = ask(guests, judged, name, recording.script)
    assert [] == [str(difference) for difference in compare(now.observed, recording.observed).found]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
@pytest.mark.parametrize("kernel", [name for name in answers.KERNELS if not name.startswith("newest")])
def test_a_kernel_and_its_model(kernel: str, seed: int, guests: Guests) -> None:
    """A scenario that chance makes, on the real kernel and on the model: no difference. tools/random_answers.py shrinks one."""
    judged = answers.KERNELS[kernel]
    script = make_for(judged, seed)
    if not modelled(judged):
        pytest.skip(f"{kernel} is not modelled")
    url = judged.url(script, QemuURL)
    need(str(url))
    now = ask(guests, judged, f"random/{seed}", script)
    found = [str(difference) for difference in judge(now).found]
    if cause := known(now):
        pytest.xfail(cause)
    assert not found, "\n".join([*found, replay(now), f"python tools/random_answers.py shrink {kernel} {seed}"])
