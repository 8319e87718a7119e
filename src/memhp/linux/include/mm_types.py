# SPDX-License-Identifier: GPL-2.0-only
"""
struct page, kept as columns of a section.

A kernel holds 64 bytes for each page. Here a section keeps one column for each field that hotplug can see; a column is one
number as long as all pages agree, and a bytearray from the moment they differ. A loop over pages in C is one operation on a
range of a column here, so that cost grows with sections and not with pages. `tests/oracles/` holds the page-at-a-time twin.

A fork shares the bytearrays: `owned` has one bit a column, and the first write to a column that is not owned copies it.

Source: include/linux/mm_types.h struct page.
"""

from __future__ import annotations

from functools import cache

Column = int | bytearray

FLAGS, REFCOUNT, ZONE, NODE, KIND = range(5)
"""The columns: PG_* bits, _refcount, the two halves of page_links, and what the page is used for."""
COLUMNS = 5


@cache
def _or_table(mask: int) -> bytes:
    return bytes(value | mask for value in range(256))


@cache
def _and_table(mask: int) -> bytes:
    return bytes(value & mask for value in range(256))


@cache
def _test_table(mask: int, value: int) -> bytes:
    return bytes(1 if byte & mask == value else 0 for byte in range(256))


class PageColumns:
    """
    The struct pages of one section. Offsets count pages from the section's first.

    Attributes:
        nr_pages: Pages of the section.
        cols: One entry for each of FLAGS … KIND.
        owned: Bit c set: column c may be edited in place.
    """

    __slots__ = ("cols", "nr_pages", "owned")

    def __init__(self, nr_pages: int) -> None:
        self.nr_pages = nr_pages
        self.cols: list[Column] = [0, 0, 0, 0, 0]
        self.owned = 0

    def share(self) -> PageColumns:
        """Return a twin that shares every column."""
        new = PageColumns(self.nr_pages)
        new.cols = self.cols[:]
        return new

    def zero(self) -> None:
        """memset(memmap, 0): the state of a struct page nobody has initialised."""
        self.cols[:] = (0, 0, 0, 0, 0)
        self.owned = 0

    def poison(self, start: int, end: int) -> None:
        """memset(page, 0xff): every column of pages [start, end) all ones."""
        for which in range(COLUMNS):
            self.fill(which, start, end, 0xFF)

    def _spread(self, which: int) -> bytearray:
        """Return column `which` as a bytearray that may be edited."""
        col = self.cols[which]
        if isinstance(col, int):
            col = bytearray([col]) * self.nr_pages
        elif self.owned >> which & 1:
            return col
        else:
            col = bytearray(col)
        self.cols[which] = col
        self.owned |= 1 << which
        return col

    def get(self, which: int, offset: int) -> int:
        col = self.cols[which]
        return col if isinstance(col, int) else col[offset]

    def fill(self, which: int, start: int, end: int, value: int) -> None:
        """Give pages [start, end) the same value."""
        if start == 0 and end == self.nr_pages:
            self.cols[which] = value
            return
        col = self.cols[which]
        if isinstance(col, int):
            if col == value:
                return
            col = self._spread(which)
        elif not self.owned >> which & 1:
            col = self._spread(which)
        if end - start == 1:
            col[start] = value
        else:
            col[start:end] = bytes((value,)) * (end - start)

    def store(self, which: int, start: int, values: bytes) -> None:
        """Give the pages from `start` on these values, one byte each."""
        end = start + len(values)
        if values.count(values[0]) == len(values):
            self.fill(which, start, end, values[0])
        else:
            self._spread(which)[start:end] = values

    def set_bits(self, which: int, start: int, end: int, mask: int) -> None:
        """value |= mask for pages [start, end)."""
        col = self.cols[which]
        if isinstance(col, int):
            if col & mask == mask:
                return
            if start == 0 and end == self.nr_pages:
                self.cols[which] = col | mask
                return
        self._translate(which, start, end, _or_table(mask))

    def clear_bits(self, which: int, start: int, end: int, mask: int) -> None:
        """value &= ~mask for pages [start, end)."""
        col = self.cols[which]
        if isinstance(col, int):
            if not col & mask:
                return
            if start == 0 and end == self.nr_pages:
                self.cols[which] = col & ~mask
                return
        self._translate(which, start, end, _and_table(~mask & 0xFF))

    def _translate(self, which: int, start: int, end: int, table: bytes) -> None:
        col = self._spread(which)
        if end - start == 1:
            col[start] = table[col[start]]
            return
        col[start:end] = col[start:end].translate(table)
        if start == 0 and end == self.nr_pages and col.count(col[0]) == self.nr_pages:
            self.cols[which] = col[0]

    def count(self, which: int, start: int, end: int, mask: int, value: int) -> int:
        """Return how many pages of [start, end) have `column & mask == value`."""
        col = self.cols[which]
        if isinstance(col, int):
            return end - start if col & mask == value else 0
        return col[start:end].translate(_test_table(mask, value)).count(1)

    def find(self, which: int, start: int, end: int, mask: int, value: int) -> int:
        """Return the first offset in [start, end) with `column & mask == value`, or -1."""
        col = self.cols[which]
        if isinstance(col, int):
            return start if start < end and col & mask == value else -1
        found = col[start:end].translate(_test_table(mask, value)).find(1)
        return -1 if found < 0 else start + found

    def values(self, which: int, start: int, end: int) -> bytes:
        """Return the values of pages [start, end), one byte each."""
        col = self.cols[which]
        return bytes((col,)) * (end - start) if isinstance(col, int) else bytes(col[start:end])

    def uniform(self, which: int) -> int | None:
        """Return the value all pages share, or None if they are kept apart."""
        col = self.cols[which]
        return col if isinstance(col, int) else None
