# SPDX-License-Identifier: GPL-2.0-only
"""
Numbers of memory hotplug: what they count, and sizes as people write them.

Reading a size can fail with one of our errors, so `parse_size()` is one room up, in `memhp.hardware`.
"""

from __future__ import annotations

from typing import NewType

Pfn = NewType("Pfn", int)
"""Page frame number: physical address divided by the page size."""
PhysAddr = NewType("PhysAddr", int)
"""Physical address in bytes."""
SectionNr = NewType("SectionNr", int)
"""Number of a sparsemem section."""
BlockId = NewType("BlockId", int)
"""The N of memoryN; the block covers bytes [N * block_size, (N + 1) * block_size)."""
Nid = NewType("Nid", int)
"""NUMA node id."""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB, "P": 1 << 50}
"""Bytes of one unit, by its letter."""
LIMIT = 1 << 64
"""No address or size reaches this."""


def format_size(size: int) -> str:
    """
    Return bytes as the shortest exact text with one unit.

    >>> format_size(384 * MIB), format_size(1536 * MIB), format_size(4097)
    ('384M', '1536M', '4097B')
    """
    for unit in ("T", "G", "M", "K"):
        factor = FACTORS[unit]
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"
