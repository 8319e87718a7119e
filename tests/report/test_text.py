# SPDX-License-Identifier: GPL-2.0-only
"""Aligned tables."""

from __future__ import annotations

from memhp.report import text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Numbers to the right, no blanks at the end of a line."""
    assert text.columns([("1", "a", "x"), ("10", "bbb", "")], header=("N", "NAME", "Z"), right=[0]) == [
        " N  NAME  Z",
        " 1  a     x",
        "10  bbb",
    ]


def test_nothing_is_no_lines() -> None:
    """No header, no rows."""
    assert text.columns([]) == []
