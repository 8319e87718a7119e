# SPDX-License-Identifier: GPL-2.0-only
"""
memblock's regions.

Source: include/linux/memblock.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include.numa import MAX_NUMNODES

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

MEMBLOCK_NONE = 0x0
MEMBLOCK_HOTPLUG = 0x1
MEMBLOCK_MIRROR = 0x2
MEMBLOCK_NOMAP = 0x4

FLAG_NAMES = {MEMBLOCK_HOTPLUG: "HOTPLUG", MEMBLOCK_MIRROR: "MIRROR", MEMBLOCK_NOMAP: "NOMAP"}

INIT_MEMBLOCK_REGIONS = 128

MEMBLOCK_ALLOC_ANYWHERE = (1 << 64) - 1
MEMBLOCK_ALLOC_ACCESSIBLE = 0
"""As an upper end: memblock's current limit."""


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


def memblock_is_mirror(m: MemblockRegion) -> bool:
    return bool(m.flags & MEMBLOCK_MIRROR)


def memblock_is_nomap(m: MemblockRegion) -> bool:
    return bool(m.flags & MEMBLOCK_NOMAP)


def memblock_region_memory_base_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return the first pfn that lies wholly inside."""
    return (reg.base + k.PAGE_SIZE - 1) >> k.PAGE_SHIFT


def memblock_region_memory_end_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return one past the last pfn that lies wholly inside."""
    return (reg.base + reg.size) >> k.PAGE_SHIFT


def memblock_region_reserved_base_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return the first pfn of which any byte is inside."""
    return reg.base >> k.PAGE_SHIFT


def memblock_region_reserved_end_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return one past the last pfn of which any byte is inside."""
    return (reg.base + reg.size + k.PAGE_SIZE - 1) >> k.PAGE_SHIFT


class MemblockType:
    """
    struct memblock_type: a sorted array of regions that do not overlap.

    Attributes:
        name: "memory" or "reserved".
        regions: The regions; unlike C, empty when there are none (`cnt` is then 1 in C, with a region of size 0).
        max: Room in the array; it doubles.
        total_size: Bytes of all regions.
        array: Physical address of the array, if early boot allocated it; 0 for the one in the kernel image and for slab.
        in_slab: The array came from kmalloc().
        minimal: No two neighbours could be one region. Only memblock_mem_limit_remove_map() can leave it otherwise.
    """

    __slots__ = ("array", "in_slab", "max", "minimal", "name", "regions", "total_size")

    def __init__(self, name: str) -> None:
        self.name = name
        self.regions: list[MemblockRegion] = []
        self.max = INIT_MEMBLOCK_REGIONS
        self.total_size = 0
        self.array = 0
        self.in_slab = False
        self.minimal = True

    def copy(self) -> MemblockType:
        new = MemblockType(self.name)
        new.regions = [region.copy() for region in self.regions]
        new.max = self.max
        new.total_size = self.total_size
        new.array = self.array
        new.in_slab = self.in_slab
        new.minimal = self.minimal
        return new


class Memblock:
    """
    struct memblock.

    Attributes:
        memory: What the firmware called memory, and what was hot-added.
        reserved: What early boot allocated.
        can_resize: memblock_allow_resize() was called.
        bottom_up: Early boot allocates upwards from the kernel image (movable_node), not downwards from the top.
        current_limit: Early boot allocates below this address.
        system_has_some_mirror: memblock_mark_mirror() was called; allocations prefer mirrored memory.
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = ("bottom_up", "can_resize", "current_limit", "memory", "owner", "reserved", "system_has_some_mirror")

    def __init__(self, owner: object) -> None:
        self.memory = MemblockType("memory")
        self.reserved = MemblockType("reserved")
        self.can_resize = False
        self.bottom_up = False
        self.current_limit = MEMBLOCK_ALLOC_ANYWHERE
        self.system_has_some_mirror = False
        self.owner = owner

    def copy(self, owner: object) -> Memblock:
        new = Memblock.__new__(Memblock)
        new.memory = self.memory.copy()
        new.reserved = self.reserved.copy()
        new.can_resize = self.can_resize
        new.bottom_up = self.bottom_up
        new.current_limit = self.current_limit
        new.system_has_some_mirror = self.system_has_some_mirror
        new.owner = owner
        return new
