# SPDX-License-Identifier: GPL-2.0-only
"""
The kernel's page tables, as far as memory comes and goes in them: the linear map, level by level.

The parts. A *leaf* maps a range at one level: PTE (a page), PMD, PUD; on arm64 a group of leaves may be marked contiguous. A
*table* is a page of entries of one level. Leaves of one kind that follow each other are kept as one run, and so are tables whose
pages follow each other, so that cost goes by blocks of memory and not by pages. Whether a table is empty follows from the runs:
no leaf and no lower table lies in what it covers.

Locks: none in C either, beside init_mm.page_table_lock on x86; hot-plug has the tables of what it adds for itself.

Source: include/linux/pgtable.h; arch/arm64/include/asm/pgtable-hwdef.h, arch/x86/include/asm/pgtable_64_types.h.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

PTE, PMD, PUD, P4D = range(4)
"""Levels, lowest first: of a leaf, or of the table that holds such entries."""
CONT = 8
"""Added to the level of a leaf: it is part of a contiguous group (arm64)."""
LEVEL = 7
"""The level of a leaf: `kind & LEVEL`."""

BOOT = -(1 << 60)
"""The "pfn" of tables that were made during boot: they are reserved, and which pages they are is not known."""


class Runs:
    """
    A map from positions to values, kept as runs that do not overlap.

    Attributes:
        starts, ends: Of each run, ascending.
        values: Of the first position of each run.
        step: What the value grows by from one position to the next: 0 or 1. Runs that continue each other are one.
    """

    __slots__ = ("ends", "starts", "step", "values")

    def __init__(self, step: int) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.values: list[int] = []
        self.step = step

    def copy(self) -> Runs:
        new = Runs(self.step)
        new.starts, new.ends, new.values = self.starts[:], self.ends[:], self.values[:]
        return new

    def total(self) -> int:
        """How many positions have a value."""
        return sum(self.ends) - sum(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.starts, self.ends, self.values, strict=True)

    def add(self, start: int, end: int, value: int) -> None:
        """Give [start, end) a value; nothing of it may have one."""
        i = bisect_right(self.starts, start)
        assert (i == 0 or self.ends[i - 1] <= start) and (i == len(self.starts) or end <= self.starts[i])
        if i and self.ends[i - 1] == start and self.values[i - 1] + (start - self.starts[i - 1]) * self.step == value:
            i -= 1
            self.ends[i] = end
        else:
            self.starts.insert(i, start)
            self.ends.insert(i, end)
            self.values.insert(i, value)
        after = i + 1
        if after < len(self.starts) and self.starts[after] == end:
            if self.values[i] + (end - self.starts[i]) * self.step == self.values[after]:
                self.ends[i] = self.ends[after]
                del self.starts[after], self.ends[after], self.values[after]

    def cut(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Take the values of [start, end) away; returns the runs that were there."""
        if start >= end:
            return []
        i = bisect_right(self.starts, start)
        if i and self.ends[i - 1] > start:
            i -= 1
        j = i
        gone: list[tuple[int, int, int]] = []
        left: list[tuple[int, int, int]] = []
        while j < len(self.starts) and self.starts[j] < end:
            low, high, value = self.starts[j], self.ends[j], self.values[j]
            first, last = max(low, start), min(high, end)
            gone.append((first, last, value + (first - low) * self.step))
            if low < first:
                left.append((low, first, value))
            if last < high:
                left.append((last, high, value + (last - low) * self.step))
            j += 1
        self.starts[i:j] = [run[0] for run in left]
        self.ends[i:j] = [run[1] for run in left]
        self.values[i:j] = [run[2] for run in left]
        return gone

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The runs of [start, end), cut at its ends."""
        i = bisect_right(self.starts, start)
        if i and self.ends[i - 1] > start:
            i -= 1
        while i < len(self.starts) and self.starts[i] < end:
            low, value = self.starts[i], self.values[i]
            first = max(low, start)
            yield first, min(self.ends[i], end), value + (first - low) * self.step
            i += 1

    def any(self, start: int, end: int) -> bool:
        """Whether any of [start, end) has a value."""
        if start >= end:
            return False
        i = bisect_right(self.starts, start)
        return (i > 0 and self.ends[i - 1] > start) or (i < len(self.starts) and self.starts[i] < end)

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that have no value."""
        found = []
        for low, high, _ in self.within(start, end):
            if start < low:
                found.append((start, low))
            start = high
        if start < end:
            found.append((start, end))
        return found


class VmemmapTable(NamedTuple):
    """A table of the virtual memmap: its page, and how many of its entries are in use."""

    pfn: int
    entries: int


class LinearMap:
    """
    The tables of the linear map. Addresses are linear ones, counted from the map's first.

    Attributes:
        shifts: Log2 of what one entry maps, by level; the last is the top table's, which is always there.
        offset: The linear address of physical address 0; may be negative.
        leaves: Kind of leaf (a level, with CONT) by address.
        tables: By the level of its entries: pfn of the table by number, where number n covers 2^shifts[level + 1] from there.
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = ("leaves", "offset", "owner", "shifts", "tables")

    def __init__(self, shifts: tuple[int, ...], offset: int, owner: object) -> None:
        self.shifts = shifts
        self.offset = offset
        self.leaves = Runs(0)
        self.tables = [Runs(1) for _ in shifts[1:]]
        self.owner = owner

    def copy(self, owner: object) -> LinearMap:
        new = LinearMap.__new__(LinearMap)
        new.shifts, new.offset, new.owner = self.shifts, self.offset, owner
        new.leaves = self.leaves.copy()
        new.tables = [runs.copy() for runs in self.tables]
        return new

    def mapped(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of physical [start, end) that can be reached, ascending; neighbours of different kinds come apart."""
        for low, high, _ in self.leaves.within(start + self.offset, end + self.offset):
            yield low - self.offset, high - self.offset

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """All that can be reached, as physical [start, end), neighbours joined."""
        found: list[tuple[int, int]] = []
        for low, high, _ in self.leaves:
            if found and found[-1][1] == low - self.offset:
                found[-1] = (found[-1][0], high - self.offset)
            else:
                found.append((low - self.offset, high - self.offset))
        return tuple(found)

    def empty(self, level: int, number: int) -> bool:
        """Whether a table has no entry: no leaf and no lower table lies in what it covers."""
        shift = self.shifts[level + 1]
        start, end = number << shift, (number + 1) << shift
        if self.leaves.any(start, end):
            return False
        if not level:
            return True
        down = shift - self.shifts[level]
        return not self.tables[level - 1].any(number << down, (number + 1) << down)

    def bytes_by_level(self) -> list[int]:
        """How many bytes leaves of each level map."""
        found = [0] * len(self.shifts)
        for start, end, kind in self.leaves:
            found[kind & LEVEL] += end - start
        return found
