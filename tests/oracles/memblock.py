# SPDX-License-Identifier: GPL-2.0-only
"""
memblock, one byte at a time: slow, and too simple to be wrong in the same way.

Memory is a dict from address to (node, flags), reserved memory a set of addresses. Regions are read off it: the longest runs of
addresses with the same node and flags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Region = tuple[int, int, int, int]
"""base, size, node, flags."""

LAST = (1 << 64) - 1
"""The one address that no region contains."""


def runs(cells: Mapping[int, tuple[int, int]]) -> list[Region]:
    """Return the longest runs of addresses with the same value, lowest first."""
    found: list[list[int]] = []
    for address in sorted(cells):
        nid, flags = cells[address]
        if found and sum(found[-1][:2]) == address and found[-1][2:] == [nid, flags]:
            found[-1][1] += 1
        else:
            found.append([address, 1, nid, flags])
    return [(base, size, nid, flags) for base, size, nid, flags in found]


class Memblock:
    """The oracle."""

    def __init__(self, no_node: int) -> None:
        self.no_node = no_node
        self.memory: dict[int, tuple[int, int]] = {}
        self.taken: set[int] = set()

    @staticmethod
    def _bytes(base: int, size: int) -> Iterable[int]:
        return range(base, min(base + size, LAST))

    def add(self, base: int, size: int, nid: int) -> None:
        for address in self._bytes(base, size):
            self.memory.setdefault(address, (nid, 0))

    def remove(self, base: int, size: int) -> None:
        for address in self._bytes(base, size):
            self.memory.pop(address, None)

    def mark(self, base: int, size: int, flag: int) -> None:
        for address in self._bytes(base, size):
            if address in self.memory:
                nid, flags = self.memory[address]
                self.memory[address] = nid, flags | flag

    def clear(self, base: int, size: int, flag: int) -> None:
        for address in self._bytes(base, size):
            if address in self.memory:
                nid, flags = self.memory[address]
                self.memory[address] = nid, flags & ~flag

    def set_node(self, base: int, size: int, nid: int) -> None:
        for address in self._bytes(base, size):
            if address in self.memory:
                self.memory[address] = nid, self.memory[address][1]

    def reserve(self, base: int, size: int) -> None:
        self.taken.update(self._bytes(base, size))

    def free(self, base: int, size: int) -> None:
        self.taken.difference_update(self._bytes(base, size))

    def regions(self) -> list[Region]:
        return runs(self.memory)

    def reserved(self) -> list[Region]:
        return runs(dict.fromkeys(self.taken, (self.no_node, 0)))

    def unreserved(self, *, unwanted: int) -> list[Region]:
        """Memory with none of the flags `unwanted` that nobody has reserved; a run does not cross from region to region."""
        return runs({a: c for a, c in self.memory.items() if a not in self.taken and not c[1] & unwanted})

    def highest(self, size: int, align: int, start: int, end: int, *, unwanted: int) -> int:
        """The highest aligned place for `size` bytes inside one free run, or 0."""
        places = [
            place
            for base, length, _, _ in self.unreserved(unwanted=unwanted)
            for place in range(base, base + length)
            if place % align == 0 and start <= place and place + size <= min(base + length, end)
        ]
        return max(places, default=0)
