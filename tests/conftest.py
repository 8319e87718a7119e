# SPDX-License-Identifier: GPL-2.0-only
"""What every test gets: hypothesis profiles, and an environment without a machine chosen by the caller."""

from __future__ import annotations

import os

import hypothesis
import pytest

# "ci" tries the same examples in every run; "dev" looks for new ones. Neither times an example.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def no_machine_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test names its machine; MEMHP_MACHINE of whoever runs the tests has no say."""
    monkeypatch.delenv("MEMHP_MACHINE", raising=False)
