# SPDX-License-Identifier: GPL-2.0-only
"""
memblock's regions.

Source: include/linux/memblock.h.
"""

from __future__ import annotations

from memhp.linux.include.numa import MAX_NUMNODES

MEMBLOCK_NONE = 0x0
MEMBLOCK_HOTPLUG = 0x1
MEMBLOCK_MIRROR = 0x2
MEMBLOCK_NOMAP = 0x4

FLAG_NAMES = {MEMBLOCK_HOTPLUG: "HOTPLUG", MEMBLOCK_MIRROR: "MIRROR", MEMBLOCK_NOMAP: "NOMAP"}

INIT_MEMBLOCK_REGIONS = 128


class MemblockRegion:
    """struct memblock_region: bytes [base, base + size), flags, node (MAX_NUMNODES: none)."""

    __slots__ = ("base", "flags", "nid", "size")

    def __init__(self, base: int, size: int, flags: int = 0, nid: int = MAX_NUMNODES) -> None:
        self.base = base
        self.size = size
        self.flags = flags
        self.nid = nid

    def copy(self) -> MemblockRegion:
        return MemblockRegion(self.base, self.size, self.flags, self.nid)

    def __repr__(self) -> str:
        return f"MemblockRegion({self.base:#x}, {self.size:#x}, flags={self.flags:#x}, nid={self.nid})"


class MemblockType:
    """
    struct memblock_type: a sorted array of regions that do not overlap.

    Attributes:
        name: "memory" or "reserved".
        regions: The regions; unlike C, empty when there are none (`cnt` is then 1 in C, with a region of size 0).
        max: Room in the array; it doubles.
        total_size: Bytes of all regions.
    """

    __slots__ = ("max", "name", "regions", "total_size")

    def __init__(self, name: str) -> None:
        self.name = name
        self.regions: list[MemblockRegion] = []
        self.max = INIT_MEMBLOCK_REGIONS
        self.total_size = 0

    def copy(self) -> MemblockType:
        new = MemblockType(self.name)
        new.regions = [region.copy() for region in self.regions]
        new.max = self.max
        new.total_size = self.total_size
        return new


class Memblock:
    """
    struct memblock.

    Attributes:
        memory: What the firmware called memory, and what was hot-added.
        reserved: What early boot allocated.
        can_resize: memblock_allow_resize() was called.
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = ("can_resize", "memory", "owner", "reserved")

    def __init__(self, owner: object) -> None:
        self.memory = MemblockType("memory")
        self.reserved = MemblockType("reserved")
        self.can_resize = False
        self.owner = owner

    def copy(self, owner: object) -> Memblock:
        new = Memblock.__new__(Memblock)
        new.memory = self.memory.copy()
        new.reserved = self.reserved.copy()
        new.can_resize = self.can_resize
        new.owner = owner
        return new
