# SPDX-License-Identifier: GPL-2.0-only
"""Regions drawn as a strip: every edge gets its own column, however far apart they are."""

from __future__ import annotations

from collections.abc import Sequence

from memhp.linux.include.memblock import FLAG_NAMES
from memhp.linux.include.numa import MAX_NUMNODES
from memhp.units import format_size

Region = tuple[int, int, int, int]
"""base, size, flags, node."""


def label(region: Region, *, nodes: bool = True) -> str:
    """Return node and flags of a region in words: "n1 NOMAP"."""
    _, _, flags, nid = region
    words = [f"n{nid}"] if nodes and 0 <= nid < MAX_NUMNODES else []
    words += [name for bit, name in FLAG_NAMES.items() if flags & bit]
    if flags & ~sum(FLAG_NAMES):
        words.append(f"{flags:#x}")
    return " ".join(words)


def _words(value: int) -> str:
    """Return a number of bytes in units, with what is left behind a sign, or in hex if that is longer."""
    if value < 1 << 10:
        return str(value)
    for unit in (1 << 40, 1 << 30, 1 << 20, 1 << 10):
        near = (value + 9) // unit * unit
        off = value - near
        if near and abs(off) <= 9:
            return format_size(near) + (f"{off:+d}" if off else "") if near < unit << 14 else f"{near // unit:,}{off or ''}"
        if near and off % 512 == 0 and off.bit_count() <= 10:
            return f"{format_size(near)}+{f'{off / 1024:g}K' if off & 1023 else format_size(off)}"
    return f"{value:#x}"


def address(value: int) -> str:
    """
    Return an address as short as it can be said. `top` is 2^64.

    >>> [address(a) for a in (0, 64, 4096, (2 << 20) + 1, (1 << 30) + 8192, (1 << 64) - 1)]
    ['0', '64', '4K', '2M+1', '1G+8K', 'top-1']
    """
    top = 1 << 64
    return f"top-{_words(top - value)}" if top - value <= 1 << 40 else _words(value)


def strip(rows: Sequence[tuple[str, Sequence[Region]]], *, nodes: bool = True) -> str:
    """
    Draw named rows of regions under each other, with the addresses of all edges below.

    >>> print(strip([("memory", [(1 << 20, 1 << 20, 0, 0), (3 << 20, 1 << 20, 4, 0)])]))
    memory   |      [ n0 ]      [n0 NOMAP]      |
                    1M    2M    3M        4M
    """
    rows = [(name, [region for region in regions if region[1]]) for name, regions in rows]      # without the dummy of size 0
    edges = sorted({edge for _, regions in rows for base, size, _, _ in regions for edge in (base, base + size)})
    if not edges:
        return "\n".join(f"{name:<9}|      |" for name, _ in rows)
    names = [address(edge) for edge in edges]
    # How wide each gap between two edges must be: for its addresses, and for the labels that stand in it.
    widths = [max(len(name) + 1, 6) for name in names[:-1]]
    for _, regions in rows:
        for region in regions:
            first, last = edges.index(region[0]), edges.index(region[0] + region[1])
            lack = len(label(region, nodes=nodes)) + 2 - sum(widths[first:last])
            if lack > 0:
                widths[last - 1] += lack
    columns = [6]
    for width in widths:
        columns.append(columns[-1] + width)
    lines = []
    for name, regions in rows:
        cells = [" "] * (columns[-1] + 6)
        for region in regions:
            first, last = columns[edges.index(region[0])], columns[edges.index(region[0] + region[1])] - 1
            inside = last - first - 1
            text = label(region, nodes=nodes)
            text = f" {text} " if text and len(text) + 2 <= inside else text
            cells[first:last + 1] = ["[", *text.center(inside, "="), "]"]
        lines.append(f"{name:<9}|{''.join(cells)}|")
    ruler = [" "] * (columns[-1] + 10 + max(len(name) for name in names) + 10)
    for column, name in zip(columns, names, strict=True):
        ruler[column + 10:column + 10 + len(name)] = name
    return "\n".join([*lines, "".join(ruler).rstrip()])
