# SPDX-License-Identifier: GPL-2.0-only
"""
/proc/kpageflags, read: 64 bits of flags for each pfn, native byte order, no holes: what is no memory shows NOPAGE.

Ranges are counted and cut into runs without a Python step for each page where possible.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from memhp.abi.files import Files
from memhp.errors import UsageError
from memhp.hardware import PAGE_TAIL, PageKind
from memhp.units import Pfn

KPAGEFLAGS = "/proc/kpageflags"
_ENTRY = 8
_CHUNK = 1 << 17
"""Entries read at once: 1 MiB."""
_SHORT = 64
"""Entries of which one after the other is looked at."""

FLAGS: dict[int, str] = {
    0: "LOCKED", 1: "ERROR", 2: "REFERENCED", 3: "UPTODATE", 4: "DIRTY", 5: "LRU", 6: "ACTIVE", 7: "SLAB", 8: "WRITEBACK",
    9: "RECLAIM", 10: "BUDDY", 11: "MMAP", 12: "ANON", 13: "SWAPCACHE", 14: "SWAPBACKED", 15: "COMPOUND_HEAD",
    16: "COMPOUND_TAIL", 17: "HUGE", 18: "UNEVICTABLE", 19: "HWPOISON", 20: "NOPAGE", 21: "KSM", 22: "THP", 23: "OFFLINE",
    24: "ZERO_PAGE", 25: "IDLE", 26: "PGTABLE", 32: "RESERVED", 33: "MLOCKED", 34: "OWNER_2", 35: "PRIVATE", 36: "PRIVATE_2",
    37: "OWNER_PRIVATE", 38: "ARCH", 39: "UNCACHED", 40: "SOFTDIRTY", 41: "ARCH_2",
}  # fmt: skip
"""Names by bit. Bit 23 was BALLOON up to v5.0; the bits from 32 are for kernel developers and may change."""
BITS: dict[str, int] = {name: bit for bit, name in FLAGS.items()}
_TAIL = 1 << BITS["COMPOUND_TAIL"]
_KINDS = tuple((sum(1 << BITS[name] for name in names.split()), found) for names, found in (
    ("NOPAGE", PageKind.NOPAGE), ("HWPOISON", PageKind.HWPOISON), ("BUDDY", PageKind.FREE), ("OFFLINE", PageKind.OFFLINE),
    ("RESERVED", PageKind.RESERVED), ("SLAB", PageKind.SLAB), ("PGTABLE", PageKind.PAGE_TABLE), ("HUGE", PageKind.HUGETLB),
    ("ANON THP", PageKind.HUGE), ("ANON", PageKind.ANON), ("LRU", PageKind.FILE),
))  # fmt: skip
"""Flags, and the kind of a page that has all of them; the first that fits counts."""


def kind(value: int) -> int:
    """
    Return what a page with these flags is: a `PageKind`, with PAGE_TAIL if it is a tail of a compound page.

    Pages on a CPU's own free lists have no flags, and neither have most pages that the kernel allocated for itself.

    >>> PageKind(kind(1 << BITS["SLAB"] | 1 << BITS["COMPOUND_HEAD"])).name
    'SLAB'
    """
    for bits, found in _KINDS:
        if value & bits == bits:
            return found | PAGE_TAIL if value & _TAIL else found
    return PageKind.KERNEL | PAGE_TAIL if value & _TAIL else PageKind.KERNEL


class _Kinds(dict[int, int]):
    """Flags -> kind, found out once for each value of flags."""

    def __missing__(self, value: int) -> int:
        found = self[value] = kind(value)
        return found


def read_kinds(files: Files, start: int, count: int) -> bytes:
    """Return the kinds of the pfns [start, start + count), one byte each, up to the end of the file."""
    table = _Kinds()
    return b"".join(bytes(map(table.__getitem__, entries)) for entries in read_chunks(files, start, count))


@dataclass(frozen=True, slots=True)
class FlagCounts:
    """
    The flags of a range of pfns, counted.

    Attributes:
        start: First pfn asked for.
        asked: How many.
        entries: How many the file has from there; fewer than `asked` if it ends first. v4.9's ends at the pfn after boot
            memory, even when memory was added above.
        counts: Pages by flag name; flags that no page has are left out.
        none: Pages without any flag.
    """

    start: Pfn
    asked: int
    entries: int
    counts: dict[str, int] = field(default_factory=dict)
    none: int = 0


def names(value: int) -> tuple[str, ...]:
    """Return the names of the flags set in one entry."""
    return tuple(FLAGS.get(bit, f"BIT_{bit}") for bit in range(64) if value >> bit & 1)


def decode(data: bytes, byteorder: str = "little") -> array[int]:
    """Return the entries of raw kpageflags; UsageError if a piece of one is missing."""
    if len(data) % _ENTRY:
        raise UsageError(f"{KPAGEFLAGS}: {len(data)} bytes; entries have {_ENTRY} each, so the end is cut off")
    entries = array("Q", data)
    if byteorder != sys.byteorder:
        entries.byteswap()
    return entries


def read_chunks(files: Files, start: int, count: int, path: str = KPAGEFLAGS) -> Iterator[array[int]]:
    """Yield the entries of [start, start + count) in pieces of up to 1 MiB, up to the end of the file."""
    if start < 0 or count < 0:
        raise UsageError(f"{path}: pfn range {start} + {count} makes no sense")
    while count:
        take = min(count, _CHUNK)
        entries = decode(files.read(path, start * _ENTRY, take * _ENTRY))
        if not entries:
            return
        yield entries[:take]
        start += len(entries)
        count -= min(take, len(entries))


def read_counts(files: Files, start: int, count: int, path: str = KPAGEFLAGS) -> FlagCounts:
    """Read the flags of the pfns [start, start + count) and count them."""
    values: Counter[int] = Counter()
    for entries in read_chunks(files, start, count, path):
        values.update(entries)
    counts: Counter[str] = Counter()
    for value, pages in values.items():
        for name in names(value):
            counts[name] += pages
    return FlagCounts(Pfn(start), count, values.total(), dict(sorted(counts.items())), values[0])


def read_runs(files: Files, start: int, count: int, mask: int = -1, path: str = KPAGEFLAGS) -> Iterator[tuple[Pfn, int, int]]:
    """
    Yield (first pfn, pages, value) for each run of pfns whose flags are equal.

    Args:
        files: The machine.
        start: First pfn.
        count: Pages.
        mask: Only these bits matter; others are cleared.
        path: The file.
    """
    first, length, current, position = start, 0, 0, start
    for entries in read_chunks(files, start, count, path):
        for value, pages in _runs(_masked(entries, mask)):
            if length and value == current:
                length += pages
            else:
                if length:
                    yield Pfn(first), length, current
                first, length, current = position, pages, value
            position += pages
    if length:
        yield Pfn(first), length, current


def _masked(entries: array[int], mask: int) -> array[int]:
    """Return entries with only the bits of `mask`; all at once, as one large number."""
    if mask == -1:
        return entries
    size = len(entries) * _ENTRY
    bits = int.from_bytes(mask.to_bytes(_ENTRY, sys.byteorder) * len(entries), "little")
    return array("Q", (int.from_bytes(entries.tobytes(), "little") & bits).to_bytes(size, "little"))


def _runs(entries: array[int]) -> Iterator[tuple[int, int]]:
    """Yield (value, pages) of pieces whose entries are equal: halves of halves, until they are, or are short."""
    if len(entries) <= _SHORT:
        for value, group in groupby(entries):
            yield value, sum(1 for _ in group)
    elif entries.tobytes() == entries[:1].tobytes() * len(entries):
        yield entries[0], len(entries)
    else:
        middle = len(entries) // 2
        yield from _runs(entries[:middle])
        yield from _runs(entries[middle:])
