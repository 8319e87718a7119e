# SPDX-License-Identifier: GPL-2.0-only
"""Plain aligned tables: what commands print when nobody asked for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GAP = "  "


def columns(rows: Iterable[Sequence[str]], *, header: Sequence[str] = (), right: Iterable[int] = ()) -> list[str]:
    """
    Return rows as lines with aligned columns.

    Args:
        rows: Texts; every row has as many as the header.
        header: First line; none if empty.
        right: Columns that are aligned to the right.

    >>> columns([("16", "online"), ("1024", "offline")], header=("BLOCK", "STATE"), right=[0])
    ['BLOCK  STATE', '   16  online', ' 1024  offline']
    """
    table = [tuple(header)] if header else []
    table += [tuple(row) for row in rows]
    if not table:
        return []
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    to_right = frozenset(right)
    return [line(row, widths, to_right) for row in table]


def line(row: Sequence[str], widths: Sequence[int], right: frozenset[int] = frozenset()) -> str:
    """Return one row with its cells filled up to `widths`; the last cell may be longer."""
    pairs = enumerate(zip(row, widths, strict=True))
    return GAP.join(cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in pairs).rstrip()


def counted(number: int, singular: str, plural: str = "") -> str:
    """
    Return a number with its noun.

    >>> counted(1, "step"), counted(2, "step")
    ('1 step', '2 steps')
    """
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
