# SPDX-License-Identifier: GPL-2.0-only
"""
The model against real kernels, scenario by scenario: what the kernels answered is in tests/data/answers.

Every recorded step must be answered alike, and leave the machine as the kernel left it. What is known to differ is in
tests/scenarios/known.toml, each with its cause; one that does not differ any more is a failure, too.
"""

from __future__ import annotations

import contextlib
import functools
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from memhp import scenario
from memhp.backends import base
from memhp.backends.base import ModelURL
from memhp.checker import differential
from memhp.errors import ConfigError, UsageError
from tests import answers
from tests.answers import SCENARIOS, JudgeKernel, Recording


def _recorded() -> Iterator[tuple[str, str]]:
    for kernel in answers.KERNELS.values():
        for name in answers.scenarios(kernel):
            if answers.answer_path(kernel, name).exists():
                yield kernel.name, name


@functools.cache
def _known() -> list[tuple[str, str]]:
    """Return (pattern of "KERNEL/SCENARIO", cause) of what is known to differ."""
    path = SCENARIOS / "known.toml"
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("differs", []) if path.exists() else []
    return [(entry["where"], entry["cause"]) for entry in entries]


def known(kernel: str, name: str) -> str:
    """Return why the model's answer is known to differ, or ""."""
    return next((cause for where, cause in _known() if fnmatchcase(f"{kernel}/{name}", where)), "")


_boots = functools.cache(answers.read_boots)


def load(kernel: JudgeKernel, name: str) -> Recording:
    """Return what a kernel answered."""
    recording = answers.load(kernel, name, _boots(kernel))
    assert recording is not None
    return recording


@pytest.mark.parametrize("name", answers.scenarios())
def test_a_scenario_reads_back(name: str) -> None:
    """Every scenario is one, says what it is about, and is written as `dumps()` writes it."""
    text = answers.scenarios()[name].read_text(encoding="utf-8")
    script = scenario.loads(text, name=name)
    assert script.title
    assert script.steps
    assert f"# SPDX-License-Identifier: GPL-2.0-only\n{scenario.dumps(script)}" == text


@pytest.mark.parametrize(("kernel", "name"), list(_recorded()))
def test_the_model_answers_as_the_kernel(kernel: str, name: str) -> None:
    """The same errnos and outcomes, messages, blocks, memblock, resources, zones, nodes, parameters, devices and page flags."""
    judge = answers.KERNELS[kernel]
    recording = load(judge, name)
    if recording.stale:
        pytest.fail(f"{name} has changed since {kernel} was asked: python tools/record_answers.py {kernel} {name}")
    url = str(judge.url(recording.script, ModelURL))
    try:
        machine = base.open(url, recording.script.devices)
    except (ConfigError, UsageError) as err:
        pytest.skip(str(err).removeprefix(f"machine URL '{url}': "))
    cause = known(kernel, name)
    compared = recording.observed[: answers.decidable(recording) + 1]
    found = []
    try:
        with contextlib.closing(machine):
            steps = recording.script.steps[: len(compared) - 1]
            for step in differential.compare_observed(differential.observe(steps, machine), compared):
                found += [str(difference) for difference in step.found]
    except Exception as err:
        if not cause:
            raise
        found.append(repr(err))
    if cause:
        assert found, f"{kernel}/{name} does not differ any more: strike it off known.toml ({cause})"
        pytest.xfail(cause)
    replay = f"memhp compare '{recording.url}' '{url}' --scenario tests/scenarios/{name}.toml"
    assert not found, "\n".join([f"first: the model, second: {recording.release}", *found, replay])
