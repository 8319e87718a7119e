# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels asked, the model asked the same, and the two held against each other."""

from __future__ import annotations

import contextlib
import functools
import tomllib
from collections.abc import Sequence
from typing import Any

from memhp.backends import base
from memhp.backends.base import ModelURL, QemuURL
from memhp.checker import differential
from memhp.checker.differential import Difference
from memhp.errors import ConfigError, UsageError
from memhp.scenario import Scenario, Step
from memhp.units import GIB
from tests import answers
from tests.answers import SCENARIOS, JudgeKernel, Recording
from tests.snapshots import Guests

KNOWN = SCENARIOS / "known.toml"
"""What is known to differ, and which kernels are modelled at all."""


def judge(recording: Recording) -> list[Difference]:
    """
    Return where the model of a kernel answers otherwise than the kernel did.

    Raises:
        ConfigError, UsageError: such a kernel is not modelled.
    """
    url = recording.kernel.url(recording.script, ModelURL)
    compared = recording.observed[: answers.decidable(recording) + 1]
    steps: Sequence[Step] = recording.script.steps[: len(compared) - 1]
    with contextlib.closing(base.open(str(url), recording.script.devices)) as machine:
        ran = differential.observe(steps, machine)
        return [difference for step in differential.compare_observed(ran, compared) for difference in step.found]


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
