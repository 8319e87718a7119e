# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of real v4.9 kernels, done again on the model step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest

from memhp.abi.recorded import Step
from memhp.linux import ftrace
from tests.stories.instrument import Instrument
from tests.stories.twin import Answer, Twin, differences


@dataclass
class Told:
    """
    A recorded step and what the model did: nothing is done where the step only looks.

    Attributes:
        step: What was done on the real kernel, and what it showed.
        answer: The model's answer to the same write.
        instrument: What its instrument printed meanwhile.
        differences: Where the state after it is not the recorded one.
        trace: The kernel functions it entered, in order.
    """

    step: Step
    answer: Answer | None = None
    instrument: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)


@cache
def story(name: str) -> tuple[Told, ...]:
    """Do on the model what was done on the recorded kernel, step by step."""
    told: list[Told] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        twin = Twin(name)
        instrument = Instrument(twin, monkeypatch)
        for step in twin.recording.steps:
            this = Told(step)
            if step.path:
                with ftrace.record() as recorder:
                    this.answer = twin.do(step)
                this.trace = [call.name for call in recorder.walk()]
                this.instrument = instrument.taken()
            elif step.file == "03-use":
                continue
            this.differences = differences(twin, step)
            told.append(this)
    return tuple(told)
