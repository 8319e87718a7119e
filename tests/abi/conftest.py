# SPDX-License-Identifier: GPL-2.0-only
"""Machines to read: the recordings of v4.9 that come with memhp, and those of later kernels under tests/data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.later import LATER, later_kernel

from memhp.abi import recorded
from memhp.abi.files import Files


def _machines() -> dict[str, Callable[[], Files]]:
    found: dict[str, Callable[[], Files]] = {}
    for name in recorded.names():
        recording = recorded.recording(name)
        for step in recording.captures:
            found[f"{name}/{step}"] = lambda recording=recording, step=step: recording.capture(step)
    for blocks in sorted(LATER.glob("*/*/blocks")):
        found[blocks.parent.relative_to(LATER).as_posix()] = lambda folder=blocks.parent: later_kernel(folder)
    return found


MACHINES = _machines()


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> tuple[str, Files]:
    """Every recorded state of every kernel: its name, and its files."""
    return request.param, MACHINES[request.param]()


@pytest.fixture
def later() -> Callable[[str], Files]:
    """A step of a later kernel by name: "v6.12-arm64-dimm/04-kernel-26"."""
    return lambda name: later_kernel(LATER / name)
