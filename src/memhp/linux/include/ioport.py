# SPDX-License-Identifier: GPL-2.0-only
"""
struct resource.

Source: include/linux/ioport.h.
"""

from __future__ import annotations

IORESOURCE_MEM = 0x00000200
IORESOURCE_SYSRAM = 0x01000000
IORESOURCE_SYSRAM_DRIVER_MANAGED = 0x02000000
IORESOURCE_SYSRAM_MERGEABLE = 0x04000000
IORESOURCE_EXCLUSIVE = 0x08000000
IORESOURCE_BUSY = 0x80000000
IORESOURCE_SYSTEM_RAM = IORESOURCE_MEM | IORESOURCE_SYSRAM


class Resource:
    """
    struct resource: addresses [start, end], `end` inclusive, with the resources inside it.

    Attributes:
        start, end, name, flags: As in C.
        child: Resources inside, sorted by address. (In C a list linked through `sibling`.)
    """

    __slots__ = ("child", "end", "flags", "name", "start")

    def __init__(self, start: int, end: int, name: str, flags: int = IORESOURCE_MEM) -> None:
        self.start = start
        self.end = end
        self.name = name
        self.flags = flags
        self.child: list[Resource] = []

    def copy(self) -> Resource:
        """Return a copy with copies of everything inside."""
        new = Resource(self.start, self.end, self.name, self.flags)
        new.child = [child.copy() for child in self.child]
        return new

    def __repr__(self) -> str:
        return f"Resource({self.start:#x}, {self.end:#x}, {self.name!r})"
