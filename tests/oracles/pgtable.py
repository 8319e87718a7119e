# SPDX-License-Identifier: GPL-2.0-only
"""
Page tables of the linear map, entry by entry.

A table is a dict from entry number to what is there: a table one level below, or the text "leaf" or "cont". Each function does
what the C function does for one address after the other, with nothing batched: arch/arm64/mm/mmu.c, arch/x86/mm/init_64.c.
"""

from __future__ import annotations

from collections.abc import Iterator

PTE, PMD, PUD = range(3)
Table = dict[int, "Table | str"]


class PageTables:
    """
    Four levels of tables, the top one always there.

    Attributes:
        shifts: Log2 of what an entry of each level maps, PTE first.
        top: The top table.
    """

    def __init__(self, shifts: tuple[int, ...]) -> None:
        self.shifts = shifts
        self.top: Table = {}

    def leaves(self) -> Iterator[tuple[int, int, int, bool]]:
        """Every leaf, ascending: address, end, level, contiguous."""
        yield from self._leaves(self.top, len(self.shifts) - 1, 0)

    def _leaves(self, table: Table, level: int, base: int) -> Iterator[tuple[int, int, int, bool]]:
        for number, entry in sorted(table.items()):
            address = base + (number << self.shifts[level])
            if isinstance(entry, dict):
                yield from self._leaves(entry, level - 1, address)
            else:
                yield address, address + (1 << self.shifts[level]), level, entry == "cont"

    def tables(self) -> list[int]:
        """How many tables there are with entries of each level, the top one left out."""
        counts = [0] * (len(self.shifts) - 1)
        self._count(self.top, len(self.shifts) - 1, counts)
        return counts

    def _count(self, table: Table, level: int, counts: list[int]) -> None:
        for entry in table.values():
            if isinstance(entry, dict):
                counts[level - 1] += 1
                self._count(entry, level - 1, counts)

    def _below(self, table: Table, number: int) -> Table:
        """The table that an entry points to; made if there is none."""
        entry = table.setdefault(number, {})
        assert isinstance(entry, dict), "a leaf is there"
        return entry

    def _number(self, address: int, level: int) -> int:
        """The entry of an address in the table of a level that it lies in; the top table is as long as it needs to be."""
        number = address >> self.shifts[level]
        return number if level == len(self.shifts) - 1 else number & ((1 << self.shifts[level + 1] - self.shifts[level]) - 1)

    # arm64

    def create(self, address: int, end: int, *, blocks: bool, cont: tuple[int, int], puds: bool) -> None:
        """
        __create_pgd_mapping()

        Args:
            blocks: Neither NO_BLOCK_MAPPINGS nor NO_CONT_MAPPINGS.
            cont: Log2 of the bytes of a contiguous group of PTEs, of PMDs.
            puds: pud_sect_supported().
        """
        self._create(self.top, len(self.shifts) - 1, address, end, blocks, cont, puds)

    def _create(self, table: Table, level: int, address: int, end: int, blocks: bool, cont: tuple[int, int], puds: bool) -> None:
        size = 1 << self.shifts[level]
        group = 1 << cont[level] if level < PUD else size
        while address < end:
            group_end = min(end, address - address % group + group)
            word = "cont" if blocks and level < PUD and not (address | group_end) % group else "leaf"
            while address < group_end:
                stop = min(group_end, address - address % size + size)
                number = self._number(address, level)
                leaf = level == PTE or (blocks and not (address | stop) % size and (level == PMD or (level == PUD and puds)))
                if leaf:
                    assert number not in table
                    table[number] = word
                else:
                    self._create(self._below(table, number), level - 1, address, stop, blocks, cont, puds)
                address = stop

    def unmap(self, address: int, end: int) -> None:
        """unmap_hotplug_range(): a leaf that the range touches is cleared, whatever it maps beside."""
        self._unmap(self.top, len(self.shifts) - 1, address, end)

    def _unmap(self, table: Table, level: int, address: int, end: int) -> None:
        size = 1 << self.shifts[level]
        while address < end:
            stop = min(end, address - address % size + size)
            entry = table.get(self._number(address, level))
            if isinstance(entry, dict):
                self._unmap(entry, level - 1, address, stop)
            elif entry is not None:
                del table[self._number(address, level)]
            address = stop

    def free_empty(self, address: int, end: int) -> None:
        """free_empty_tables(), with floor and ceiling out of reach."""
        self._free_empty(self.top, len(self.shifts) - 1, address, end)

    def _free_empty(self, table: Table, level: int, address: int, end: int) -> None:
        size = 1 << self.shifts[level]
        while address < end:
            stop = min(end, address - address % size + size)
            entry = table.get(self._number(address, level))
            if isinstance(entry, dict):
                self._free_empty(entry, level - 1, address, stop)
                if not entry:
                    del table[self._number(address, level)]
            address = stop

    # x86_64

    def physical_mapping_init(self, address: int, end: int, levels: int) -> None:
        """kernel_physical_mapping_init(): leaves of `levels` beside pages; what is mapped stays as it is."""
        self._init(self.top, len(self.shifts) - 1, address, end, levels)

    def _init(self, table: Table, level: int, address: int, end: int, levels: int) -> None:
        size = 1 << self.shifts[level]
        while address < end:
            stop = min(end, address - address % size + size)
            number = self._number(address, level)
            entry = table.get(number)
            if isinstance(entry, dict):
                self._init(entry, level - 1, address, stop, levels)
            elif entry is None and (level == PTE or (level < 3 and levels >> level & 1)):
                table[number] = "leaf"
            elif entry is None:
                self._init(self._below(table, number), level - 1, address, stop, levels)
            address = stop

    def remove(self, address: int, end: int, keep: int) -> None:
        """remove_pagetable(direct=true): a leaf goes if all of it is to go; empty tables go up to what level `keep` points to."""
        self._remove(self.top, len(self.shifts) - 1, address, end, keep)

    def _remove(self, table: Table, level: int, address: int, end: int, keep: int) -> None:
        size = 1 << self.shifts[level]
        while address < end:
            stop = min(end, address - address % size + size)
            number = self._number(address, level)
            entry = table.get(number)
            if isinstance(entry, dict):
                self._remove(entry, level - 1, address, stop, keep)
                if not entry and level <= keep:
                    del table[number]
            elif entry is not None and not (address | stop) % size:
                del table[number]
            address = stop
