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
MEMBLOCK_DRIVER_MANAGED = 0x8
"""Memory that a driver always finds and adds, never the firmware's map."""
MEMBLOCK_RSRV_NOINIT = 0x10
"""Of reserved regions: their struct pages are left alone."""

FLAG_NAMES = {
    MEMBLOCK_HOTPLUG: "HOTPLUG", MEMBLOCK_MIRROR: "MIRROR", MEMBLOCK_NOMAP: "NOMAP", MEMBLOCK_DRIVER_MANAGED: "DRIVER_MANAGED",
    MEMBLOCK_RSRV_NOINIT: "RSRV_NOINIT",
}

FLAG_SHOWN = {**FLAG_NAMES, MEMBLOCK_DRIVER_MANAGED: "DRV_MNG", MEMBLOCK_RSRV_NOINIT: "RSV_NIT"}
"""As memblock's files in debugfs say it."""

INIT_MEMBLOCK_REGIONS = 128

ULLONG_MAX = (1 << 64) - 1
MEMBLOCK_ALLOC_ANYWHERE = ULLONG_MAX
MEMBLOCK_ALLOC_ACCESSIBLE = 0
"""As an upper end: memblock's current limit."""
MEMBLOCK_ALLOC_NOLEAKTRACE = 1
"""The same, and kmemleak need not know."""


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


def memblock_is_hotpluggable(m: MemblockRegion) -> bool:
    return bool(m.flags & MEMBLOCK_HOTPLUG)


def memblock_is_mirror(m: MemblockRegion) -> bool:
    return bool(m.flags & MEMBLOCK_MIRROR)


def memblock_is_nomap(m: MemblockRegion) -> bool:
    return bool(m.flags & MEMBLOCK_NOMAP)


def memblock_is_driver_managed(m: MemblockRegion) -> bool:
    return bool(m.flags & MEMBLOCK_DRIVER_MANAGED)


def memblock_is_reserved_noinit(m: MemblockRegion) -> bool:
    return bool(m.flags & MEMBLOCK_RSRV_NOINIT)


def memblock_region_memory_base_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return the first pfn that lies wholly inside; in the last page of all, rounding up wraps to 0."""
    return (reg.base + k.PAGE_SIZE - 1 & ULLONG_MAX) >> k.PAGE_SHIFT


def memblock_region_memory_end_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return one past the last pfn that lies wholly inside."""
    return (reg.base + reg.size) >> k.PAGE_SHIFT


def memblock_region_reserved_base_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return the first pfn of which any byte is inside."""
    return reg.base >> k.PAGE_SHIFT


def memblock_region_reserved_end_pfn(k: Kernel, reg: MemblockRegion) -> int:
    """Return one past the last pfn of which any byte is inside; in the last page of all, rounding up wraps to 0."""
    return (reg.base + reg.size + k.PAGE_SIZE - 1 & ULLONG_MAX) >> k.PAGE_SHIFT


class MemblockType:
    """
    struct memblock_type: a sorted array of regions that do not overlap.

    Attributes:
        name: "memory" or "reserved".
        regions: The regions. Empty when there are none; in older trees C then has `cnt` 1 and a dummy region of size 0.
        empty_nid: The node of that dummy: 0 from the start, none once a last region was removed.
        max: Room in the array; it doubles.
        total_size: Bytes of all regions.
        array: Physical address of the array, if early boot allocated it; 0 for the one in the kernel image and for slab.
        in_slab: The array came from kmalloc().
        minimal: No two neighbours could be one region. Only memblock_cap_memory_range() and memblock_mem_limit_remove_map() can
            leave it otherwise, and later trees do not ask.
    """

    __slots__ = ("array", "empty_nid", "in_slab", "max", "minimal", "name", "regions", "total_size")

    def __init__(self, name: str) -> None:
        self.name = name
        self.regions: list[MemblockRegion] = []
        self.empty_nid = 0
        self.max = INIT_MEMBLOCK_REGIONS
        self.total_size = 0
        self.array = 0
        self.in_slab = False
        self.minimal = True

    def copy(self) -> MemblockType:
        new = MemblockType(self.name)
        new.regions = [region.copy() for region in self.regions]
        new.empty_nid = self.empty_nid
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
        reserved_mem_table: What reserve_mem= keeps: (name, start, size).
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = (
        "bottom_up", "can_resize", "current_limit", "memory", "owner", "reserved", "reserved_mem_table", "system_has_some_mirror",
    )

    def __init__(self, owner: object) -> None:
        self.memory = MemblockType("memory")
        self.reserved = MemblockType("reserved")
        self.can_resize = False
        self.bottom_up = False
        self.current_limit = MEMBLOCK_ALLOC_ANYWHERE
        self.system_has_some_mirror = False
        self.reserved_mem_table: tuple[tuple[str, int, int], ...] = ()
        self.owner = owner

    def copy(self, owner: object) -> Memblock:
        new = Memblock.__new__(Memblock)
        new.memory = self.memory.copy()
        new.reserved = self.reserved.copy()
        new.can_resize = self.can_resize
        new.bottom_up = self.bottom_up
        new.current_limit = self.current_limit
        new.system_has_some_mirror = self.system_has_some_mirror
        new.reserved_mem_table = self.reserved_mem_table
        new.owner = owner
        return new
