# SPDX-License-Identifier: GPL-2.0-only
"""The model asked what a real kernel was asked, and the two held against each other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from memhp.backends import base
from memhp.backends.base import ModelURL
from memhp.checker import differential
from memhp.checker.differential import Difference
from memhp.scenario import Step
from tests import answers
from tests.answers import Recording


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


def modelled(recording: Recording) -> str:
    """Return why a kernel cannot be asked as a model, or ""."""
    from memhp.errors import ConfigError, UsageError

    url = str(recording.kernel.url(recording.script, ModelURL))
    try:
        base.open(url, recording.script.devices).close()
    except (ConfigError, UsageError) as err:
        return str(err).removeprefix(f"machine URL '{url}': ")
    return ""


def replay(recording: Recording) -> str:
    """Return the command that holds the model against the kernel, live."""
    name = recording.name
    file = f"tests/scenarios/{name}.toml" if not name.startswith("random/") else f"{name.replace('/', '-')}.toml"
    return f"memhp compare '{recording.kernel.url(recording.script, ModelURL)}' '{recording.url}' --scenario {file}"
