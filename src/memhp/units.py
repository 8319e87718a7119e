# SPDX-License-Identifier: GPL-2.0-only
"""Numbers of memory hotplug: what they count, and sizes as people write them."""

from __future__ import annotations

import re
from typing import NewType

from memhp.errors import UsageError

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

_FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB, "P": 1 << 50}
_SIZE = re.compile(r"(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)(?P<unit>[KMGTPkmgtp]?)(?:i?[bB])?")
LIMIT = 1 << 64
"""No address or size reaches this."""


def parse_size(text: str | int, what: str = "size") -> int:
    """
    Return bytes from ``"384M"``, ``"0x80000000"``, ``"4GiB"`` or an integer.

    Units are powers of 1024.

    Args:
        text: What was written.
        what: The name of the value, for the message.

    Raises:
        UsageError: not a number with an optional unit K, M, G, T or P, negative, or 2^64 and more.

    >>> parse_size("384M") == 384 * MIB
    True
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise UsageError(f"{what} {text!r} is not a number: write bytes, or a text such as 384M or 0x80000000")
    if isinstance(text, int):
        value = text
    else:
        match = _SIZE.fullmatch(text.strip())
        if match is None or not text.isascii() or len(text) > 64:
            raise UsageError(f"{what} {text[:40]!r} is not a size: write bytes, or a text such as 384M, 4G or 0x80000000")
        value = int(match["number"], 0 if match["number"][:2].lower() == "0x" else 10)
        value *= _FACTORS[match["unit"].upper()]
    if value < 0 or value >= LIMIT:
        raise UsageError(f"{what} {text!r} is outside 0 … 2^64-1")
    return value


def format_size(size: int) -> str:
    """
    Return bytes as the shortest exact text with one unit.

    >>> format_size(384 * MIB), format_size(1536 * MIB), format_size(4097)
    ('384M', '1536M', '4097B')
    """
    for unit in ("T", "G", "M", "K"):
        factor = _FACTORS[unit]
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"
