# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels asked, the model asked the same, and the two held against each other."""

from __future__ import annotations

import contextlib
import functools
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memhp.backends import base
from memhp.backends.base import ModelURL, QemuURL
from memhp.checker import differential
from memhp.checker.differential import Difference, Observed
from memhp.errors import ConfigError, UsageError
from memhp.scenario import Scenario
from memhp.units import GIB
from tests import answers
from tests.answers import SCENARIOS, JudgeKernel, Recording
from tests.snapshots import Guests

KNOWN = SCENARIOS / "known.toml"
"""What is known to differ, and which kernels are modelled at all."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    How a model answered.

    Attributes:
        found: Where it parts from the kernel.
        compared: Steps that were compared.
        aside: Steps that were not, because the kernel's own allocations had decided one before.
    """

    found: tuple[Difference, ...]
    compared: int
    aside: int


def judge(recording: Recording) -> Verdict:
    """
    Ask the model of a kernel what the kernel was asked.

    Raises:
        ConfigError, UsageError: such a kernel is not modelled.
    """
    url = recording.kernel.url(recording.script, ModelURL)
    with contextlib.closing(base.open(str(url), recording.script.devices)) as machine:
        return compare(differential.observe(recording.script.steps, machine), recording.observed)


def compare(ran: Iterable[Observed], recorded: Sequence[Observed]) -> Verdict:
    """
    Hold a run against what a kernel answered.

    Whether a block of a kernel zone can go offline is decided by where the kernel put its own pages. Where the two differ in
    that, they are different machines from there on, and the rest is set aside.
    """
    found: list[Difference] = []
    number = 0
    for step in differential.compare_observed(ran, recorded):
        if step.first.word != step.second.word and answers.by_luck(recorded, step.number):
            return Verdict(tuple(found), number, len(recorded) - 1 - number)
        found += step.found
        number = step.number
    return Verdict(tuple(found), number, 0)


def ask(guests: Guests, kernel: JudgeKernel, name: str, script: Scenario) -> Recording:
    """Do a scenario on a real kernel that has just booted."""
    url = kernel.url(script, QemuURL)
    assert isinstance(url, QemuURL)
    machine = guests.open(url, script.devices)
    try:
        observed = tuple(differential.observe(script.steps, machine))
        release = machine.read("/proc/sys/kernel/osrelease").decode().strip()
    finally:
        machine.close()
    return Recording(kernel=kernel, name=name, script=script, release=release, url=str(url), stale=False, observed=observed)


def boots(kernel: JudgeKernel) -> str:
    """Return why a kernel cannot be booted as a model, or ""."""
    url = str(ModelURL(tree=kernel.release, arch=kernel.arch, page=kernel.page, mem=GIB))
    try:
        base.open(url).close()
    except (ConfigError, UsageError) as err:
        return str(err).removeprefix(f"machine URL '{url}': ")
    except Exception as err:
        return repr(err)
    return ""


@functools.cache
def _words() -> dict[str, Any]:
    return tomllib.loads(KNOWN.read_text(encoding="utf-8"))


def modelled(kernel: JudgeKernel) -> bool:
    """Whether known.toml says that the model can boot this kernel."""
    return kernel.name in _words()["modelled"]


def known(recording: Recording) -> str:
    """Return why the model's answer is known to differ, or ""."""
    where = f"{recording.kernel.name}/{recording.name}"
    return next((entry["cause"] for entry in _words().get("differs", []) if where in entry["where"]), "")


def replay(recording: Recording) -> str:
    """Return the command that holds the model against the kernel, live."""
    name = recording.name
    file = f"tests/scenarios/{name}.toml" if not name.startswith("random/") else f"{name.replace('/', '-')}.toml"
    return f"memhp compare '{recording.kernel.url(recording.script, ModelURL)}' '{recording.url}' --scenario {file}"
