# SPDX-License-Identifier: GPL-2.0-only
"""
The model against real kernels, scenario by scenario: what the kernels answered is in tests/data/answers.

Every recorded step must be answered alike, and leave the machine as the kernel left it. What is known to differ is in
tests/scenarios/known.toml, each with its cause; one that does not differ any more is a failure, too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from memhp import scenario
from tests import answers
from tests.answers import Recording
from tests.judge import boots, judge, known, modelled, replay

CHUNK = 25
"""Scenarios made by chance that one test asks."""


def _recorded() -> Iterator[tuple[str, str]]:
    for kernel in answers.KERNELS.values():
        for name in answers.scenarios(kernel):
            if answers.answer_path(kernel, name).exists():
                yield kernel.name, name


def _chunks() -> Iterator[tuple[str, int]]:
    for kernel in answers.KERNELS.values():
        for first in range(0, len(_random(kernel.name)), CHUNK):
            yield kernel.name, first


@functools.cache
def _boots(kernel: str) -> dict[str, answers.Look]:
    return answers.read_boots(answers.KERNELS[kernel])


@functools.cache
def _random(kernel: str) -> list[Recording]:
    return list(answers.load_random(answers.KERNELS[kernel], _boots(kernel)).values())


def differing(recording: Recording) -> str:
    """Return in words where the model differs from a kernel, and how to see it again; "" if it does not."""
    try:
        found = [str(difference) for difference in judge(recording).found]
    except Exception as err:
        if not known(recording):
            raise
        found = [repr(err)]
    return "\n".join([f"first: the model, second: {recording.release}", *found, replay(recording)]) if found else ""


@pytest.mark.parametrize("name", answers.scenarios())
def test_a_scenario_reads_back(name: str) -> None:
    """Every scenario is one, says what it is about, and is written as `dumps()` writes it."""
    text = answers.scenarios()[name].read_text(encoding="utf-8")
    script = scenario.loads(text, name=name)
    assert script.title
    assert script.steps
    assert f"# SPDX-License-Identifier: GPL-2.0-only\n{scenario.dumps(script)}" == text


@pytest.mark.parametrize("kernel", answers.KERNELS)
def test_what_is_modelled_is_judged(kernel: str) -> None:
    """A kernel that the model can boot is in known.toml's list of those that are held against the real one, and no other is."""
    judge_kernel = answers.KERNELS[kernel]
    why = boots(judge_kernel)
    assert modelled(judge_kernel) == (why == ""), why


@pytest.mark.parametrize(("kernel", "name"), list(_recorded()))
def test_the_model_answers_as_the_kernel(kernel: str, name: str) -> None:
    """The same errnos and outcomes, messages, blocks, memblock, resources, zones, nodes, parameters, devices and page flags."""
    recording = answers.load(answers.KERNELS[kernel], name, _boots(kernel))
    assert recording is not None
    if recording.stale:
        pytest.fail(f"{name} has changed since {kernel} was asked: python tools/record_answers.py {kernel} {name}")
    if not modelled(recording.kernel):
        pytest.skip(f"{kernel} is not modelled")
    words = differing(recording)
    if cause := known(recording):
        assert words, f"{kernel}/{name} does not differ any more: strike it off known.toml ({cause})"
        pytest.xfail(cause)
    assert not words, words


@pytest.mark.parametrize(("kernel", "first"), list(_chunks()))
def test_the_model_answers_as_the_kernel_by_chance(kernel: str, first: int) -> None:
    """The same for scenarios that chance made."""
    recordings = _random(kernel)[first : first + CHUNK]
    if not modelled(recordings[0].kernel):
        pytest.skip(f"{kernel} is not modelled")
    failed = []
    causes = set()
    for recording in recordings:
        words = differing(recording)
        cause = known(recording)
        if cause:
            causes.add(cause)
        if bool(cause) != bool(words):
            failed.append(f"{recording.name}: {words or f'does not differ any more: strike it off known.toml ({cause})'}")
    assert not failed, f"{len(failed)} of {len(recordings)}\n" + "\n\n".join(failed)
    if causes:
        pytest.xfail("; ".join(sorted(causes)))
