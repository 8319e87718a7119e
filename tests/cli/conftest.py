# SPDX-License-Identifier: GPL-2.0-only
"""What commands print is tested without the mark †, which comes and goes with the ledger (tests/checker/test_ledger.py)."""

from __future__ import annotations

import pytest

from memhp import machine
from memhp.checker import ledger


@pytest.fixture(autouse=True)
def nothing_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands open machines that nobody watches."""
    monkeypatch.setattr(ledger, "connect", machine.connect)
