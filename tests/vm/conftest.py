# SPDX-License-Identifier: GPL-2.0-only
"""
Tests against real kernels in QEMU: `make lab` runs them, `make test` skips them and says so.

A guest that a test leaves as it found it is kept for the next test: see `lab`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from memhp.backends.base import Backend
from memhp.errors import MemhpError

ON = os.environ.get("MEMHP_LAB") == "1"

KERNELS = {
    "arm64-5.10": "qemu:v5.10/arm64",
    "arm64-6.1": "qemu:v6.1/arm64",
    "arm64-6.12": "qemu:v6.12/arm64",
    "arm64-6.12-16k": "qemu:v6.12/arm64?page=16K",
    "arm64-newest": "qemu:newest/arm64",
    "x86_64-6.1": "qemu:v6.1/x86_64",
    "x86_64-6.12": "qemu:v6.12/x86_64",
}
"""The kernels that are booted, by the names of tests."""


def lacks(url: str) -> str:
    """Return why a machine cannot be booted here, or ""."""
    if not ON:
        return "needs QEMU and real kernels: make lab runs it"
    from memhp.backends import base
    from memhp.backends.qemu import backend, images, process

    parsed = base.parse(url)
    assert isinstance(parsed, base.QemuURL)
    try:
        process.command(backend.describe(parsed), images.initramfs(backend.describe(parsed).kernel), 0, 0)
    except MemhpError as err:
        return str(err)
    return ""


def need(url: str) -> str:
    """Return the URL; skip the test, saying what is missing, where it cannot be booted."""
    why = lacks(url)
    if why:
        if ON and os.environ.get("CI") and "v5.10" not in url:
            pytest.fail(why)                               # a machine that runs these for a verdict has them; old suites vanish
        pytest.skip(why)
    return url


@pytest.fixture
def boot() -> Iterator[Callable[..., Backend]]:
    """Boots machines that end with the test."""
    from memhp.backends import base

    opened: list[Backend] = []

    def start(url: str, *devices: object) -> Backend:
        opened.append(base.open(need(url), devices))       # type: ignore[arg-type]
        return opened[-1]

    yield start
    for machine in opened:
        machine.close()
