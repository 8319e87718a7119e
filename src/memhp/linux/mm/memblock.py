# SPDX-License-Identifier: GPL-2.0-only
"""
memblock: what the firmware called memory, and what early boot has reserved of it.

Two sorted arrays of regions. `memory` holds every range that is RAM, with its node and flags; `reserved` what is in use before
the page allocator works. Early boot allocates from memory minus reserved. Afterwards the arrays matter for one thing here:
arm64's own pfn_valid() looks into `memory`, and hot-added ranges are put there.

Rules. Regions never overlap. Neighbours that touch and have the same node and flags are one region: an addition or a change of
flags ends with a merge. Adding over existing regions leaves those as they are and fills the gaps. A change of a part of a region
first splits it ("isolate"). An array has room for 128 regions and doubles, if it may: before `memblock_allow_resize()` the 129th
region is -ENOMEM. No region contains the last byte of the address space.

How it differs from C: the arrays are lists, searched by bisection, and a merge looks at the touched places only. That gives what
C's scan of everything gives, because arrays are minimal before each change; `MemblockType.minimal` remembers the one exception.
An array without regions is an empty list; C keeps a dummy region of size 0, which the texts below show. Without NUMA arm64's
regions have no node at all; they then keep node 0 here. The lines of memblock=debug that hold return addresses are not printed.

Locks: none. Boot is single; hot-add holds mem_hotplug.lock.

Source: mm/memblock.c, include/linux/memblock.h.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from errno import ENOMEM
from operator import attrgetter
from typing import TYPE_CHECKING, NoReturn

from memhp.errors import KernelBugError, KernelError, ModelDefectError
from memhp.linux import bug
from memhp.linux.include.memblock import (
    MEMBLOCK_ALLOC_ACCESSIBLE,
    MEMBLOCK_HOTPLUG,
    MEMBLOCK_MIRROR,
    MEMBLOCK_NOMAP,
    MEMBLOCK_NONE,
    MemblockRegion,
    MemblockType,
    memblock_is_mirror,
    memblock_is_nomap,
)
from memhp.linux.include.mmzone import Ingredient
from memhp.linux.include.numa import MAX_NUMNODES, NUMA_NO_NODE

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

ULLONG_MAX = (1 << 64) - 1

_BASE = attrgetter("base")


def _have_node_map(k: Kernel) -> bool:
    """CONFIG_HAVE_MEMBLOCK_NODE_MAP: arm64 selects it with NUMA only. Source: none; arch/arm64/Kconfig, arch/x86/Kconfig"""
    return k.config.NUMA or k.arch.name != "arm64"


def _node(k: Kernel, nid: int) -> int:
    """What memblock_set_region_node() keeps of a node. Source: none; include/linux/memblock.h memblock_get_region_node()"""
    return nid if _have_node_map(k) else 0


def _smp_cache_bytes(k: Kernel) -> int:
    """SMP_CACHE_BYTES. Source: none; arch/arm64/include/asm/cache.h, arch/x86/Kconfig.cpu"""
    return 128 if k.arch.name == "arm64" else 64


def _page_align(k: Kernel, size: int) -> int:
    """PAGE_ALIGN(). Source: none; include/linux/mm.h"""
    return (size + k.PAGE_SIZE - 1) & ~(k.PAGE_SIZE - 1)


def _editable(k: Kernel, type: MemblockType) -> MemblockType:
    """Return this kernel's own copy of an array, after a fork too. Source: none"""
    memblock = k.memblock_rw()
    return memblock.memory if type.name == "memory" else memblock.reserved


def _first_above(regions: list[MemblockRegion], address: int) -> int:
    """Return the index of the first region that ends above `address`. Source: none"""
    idx = bisect_right(regions, address, key=_BASE)
    if idx:
        below = regions[idx - 1]
        if below.base + below.size > address:
            return idx - 1
    return idx


def choose_memblock_flags(k: Kernel) -> int:
    """Source: mm/memblock.c choose_memblock_flags() [v4.9]"""
    return MEMBLOCK_MIRROR if k.memblock.system_has_some_mirror else MEMBLOCK_NONE


def memblock_cap_size(base: int, size: int) -> int:
    """
    Return `size`, cut so that base + size fits 64 bits; the last byte of the address space is never inside.

    Source: mm/memblock.c memblock_cap_size() [v4.9]
    """
    return min(size, ULLONG_MAX - base)


def memblock_overlaps_region(k: Kernel, type: MemblockType, base: int, size: int) -> bool:
    """
    Say whether any region has a byte of [base, base + size).

    Source: mm/memblock.c memblock_overlaps_region() [v4.9]
    """
    regions = type.regions
    idx = _first_above(regions, base)
    return idx < len(regions) and regions[idx].base < base + size & ULLONG_MAX


# Finding free memory, from above or, under movable_node, from below.


def __memblock_find_range_bottom_up(k: Kernel, start: int, end: int, size: int, align: int, nid: int, flags: int) -> int:
    """Return the lowest place, or 0. Source: mm/memblock.c __memblock_find_range_bottom_up() [v4.9]"""
    for this_start, this_end, _ in for_each_free_mem_range(k, nid, flags):
        this_start = min(max(this_start, start), end)
        this_end = min(max(this_end, start), end)
        cand = (this_start + align - 1) & -align
        if cand < this_end and this_end - cand >= size:
            return cand
    return 0


def __memblock_find_range_top_down(k: Kernel, start: int, end: int, size: int, align: int, nid: int, flags: int) -> int:
    """Return the highest place, or 0. Source: mm/memblock.c __memblock_find_range_top_down() [v4.9]"""
    for this_start, this_end, _ in for_each_free_mem_range_reverse(k, nid, flags):
        this_start = min(max(this_start, start), end)
        this_end = min(max(this_end, start), end)
        if this_end < size:
            continue
        cand = (this_end - size) & -align
        if cand >= this_start:
            return cand
    return 0


def _kernel_end(k: Kernel) -> int:
    """__pa_symbol(_end): one past the kernel image, as the memory map names its parts. Source: none"""
    return max((child.end + 1 for child in k.hardware.ram_children if child.name.startswith("Kernel")), default=0)


def memblock_find_in_range_node(k: Kernel, size: int, align: int, start: int, end: int, nid: int, flags: int) -> int:
    """
    Find free memory; nothing is reserved.

    Args:
        k: The kernel.
        size: Bytes.
        align: A power of two.
        start: Not below this; never in page 0.
        end: Not above this; MEMBLOCK_ALLOC_ACCESSIBLE means the current limit.
        nid: Node, or NUMA_NO_NODE for any.
        flags: MEMBLOCK_MIRROR: mirrored memory only. MEMBLOCK_NOMAP: NOMAP memory too.

    Returns:
        The address, or 0.

    Source: mm/memblock.c memblock_find_in_range_node() [v4.9]
    """
    if end == MEMBLOCK_ALLOC_ACCESSIBLE:
        end = k.memblock.current_limit
    start = max(start, k.PAGE_SIZE)
    end = max(start, end)

    if k.config.MOVABLE_NODE and k.memblock.bottom_up:
        kernel_end = _kernel_end(k)
        if end > kernel_end:
            ret = __memblock_find_range_bottom_up(k, max(start, kernel_end), end, size, align, nid, flags)
            if ret:
                return ret
            bug.WARN_ON_ONCE(k.log, True)
            bug.printk_once(k.log, "memblock: bottom-up allocation failed, memory hotunplug may be affected")

    return __memblock_find_range_top_down(k, start, end, size, align, nid, flags)


def memblock_find_in_range(k: Kernel, start: int, end: int, size: int, align: int) -> int:
    """
    As `memblock_find_in_range_node()` on any node; mirrored memory first where there is some.

    Source: mm/memblock.c memblock_find_in_range() [v4.9]
    """
    flags = choose_memblock_flags(k)
    while True:
        ret = memblock_find_in_range_node(k, size, align, start, end, NUMA_NO_NODE, flags)
        if ret or not flags & MEMBLOCK_MIRROR:
            return ret
        bug.printk(k.log, f"Could not allocate {size:#018x} bytes of mirrored memory")
        flags &= ~MEMBLOCK_MIRROR


# The arrays.


def memblock_remove_region(k: Kernel, type: MemblockType, r: int) -> None:
    """Source: mm/memblock.c memblock_remove_region() [v4.9]"""
    type.total_size -= type.regions[r].size
    del type.regions[r]
    if not type.regions:
        bug.WARN_ON(k.log, type.total_size != 0)


def memblock_double_array(k: Kernel, type: MemblockType, new_area_start: int, new_area_size: int) -> bool:
    """
    Double the room of an array; False if that is not possible (-1 in C).

    The new array comes from slab, or before that from memblock itself, which reserves it. An array of reserved regions keeps
    clear of [new_area_start, new_area_start + new_area_size), which is about to be reserved.

    Source: mm/memblock.c memblock_double_array() [v4.9]
    """
    if not k.memblock.can_resize:
        return False

    old_size = type.max * (32 if _have_node_map(k) else 24)
    new_size = old_size << 1
    old_alloc_size = _page_align(k, old_size)
    new_alloc_size = _page_align(k, new_size)
    use_slab = k.slab_is_available

    addr = 0
    if not use_slab:
        if type.name != "reserved":
            new_area_start = new_area_size = 0
        limit = k.memblock.current_limit
        addr = memblock_find_in_range(k, new_area_start + new_area_size, limit, new_alloc_size, k.PAGE_SIZE)
        if not addr and new_area_size:
            addr = memblock_find_in_range(k, 0, min(new_area_start, limit), new_alloc_size, k.PAGE_SIZE)
        if not addr:
            bug.printk(k.log, f"memblock: Failed to double {type.name} array from {type.max} to {type.max * 2} entries !")
            return False

    old_array, old_in_slab = type.array, type.in_slab
    type.array = addr
    type.max <<= 1
    if not old_in_slab and old_array:
        memblock_free(k, old_array, old_alloc_size)
    if not use_slab:
        memblock_reserve(k, addr, new_alloc_size)
    type.in_slab = use_slab
    return True


def memblock_merge_regions(k: Kernel, type: MemblockType, start_rgn: int, end_rgn: int) -> None:
    """
    Join neighbours that touch and agree in node and flags, where regions [start_rgn, end_rgn) were touched.

    Source: mm/memblock.c memblock_merge_regions() [v4.9]
    """
    regions = type.regions
    if not type.minimal:
        start_rgn, end_rgn = 0, len(regions)
        type.minimal = True
    i = start_rgn - 1 if start_rgn else 0
    last = min(end_rgn, len(regions) - 1)
    while i < last:
        this = regions[i]
        next = regions[i + 1]
        end = this.base + this.size
        if end != next.base or this.nid != next.nid or this.flags != next.flags:
            if end > next.base:
                bug.BUG_ON(k.log, True, "regions overlap")
            i += 1
            continue
        this.size += next.size
        del regions[i + 1]
        last -= 1


def memblock_insert_region(k: Kernel, type: MemblockType, idx: int, base: int, size: int, nid: int, flags: int) -> None:
    """Source: mm/memblock.c memblock_insert_region() [v4.9]"""
    regions = type.regions
    if len(regions) >= type.max:
        bug.BUG_ON(k.log, True, "the array is full")
    regions[idx:idx] = (MemblockRegion(base, size, flags, nid),)      # moves memory; list.insert() copies item by item
    type.total_size += size


def memblock_add_range(k: Kernel, type: MemblockType, base: int, size: int, nid: int, flags: int) -> None:
    """
    Add [base, base + size); what is there already stays as it is, the gaps are filled.

    Raises:
        KernelError: ENOMEM if the array is full and cannot be doubled; nothing is added then.

    Source: mm/memblock.c memblock_add_range() [v4.9]
    """
    type = _editable(k, type)
    obase = base
    size = memblock_cap_size(base, size)
    end = base + size
    if not size:
        return
    nid = _node(k, nid)

    regions = type.regions
    if not regions:
        bug.WARN_ON(k.log, type.total_size)
        regions.append(MemblockRegion(base, size, flags, nid))
        type.total_size = size
        return

    # Twice, as in C: count the regions that are needed, then insert them. In between the array may be doubled, and an array of
    # reserved regions then changes by that.
    insert = False
    first = _first_above(regions, base)
    while True:
        base = obase
        nr_new = 0
        idx = first
        while idx < len(regions):
            rgn = regions[idx]
            rbase = rgn.base
            if rbase >= end:
                break
            if rbase > base:
                bug.WARN_ON(k.log, nid != rgn.nid)
                bug.WARN_ON(k.log, flags != rgn.flags)
                nr_new += 1
                if insert:
                    memblock_insert_region(k, type, idx, base, rbase - base, nid, flags)
                    idx += 1
            base = min(rbase + rgn.size, end)
            idx += 1

        if base < end:
            nr_new += 1
            if insert:
                memblock_insert_region(k, type, idx, base, end - base, nid, flags)
                idx += 1

        if not nr_new:
            return
        if insert:
            memblock_merge_regions(k, type, first, idx)
            return
        while len(regions) + nr_new > type.max:
            if not memblock_double_array(k, type, obase, size):
                raise KernelError(ENOMEM, f"the array of {type.name} regions is full", base=obase, size=size, max=type.max)
            first = _first_above(regions, obase)
        insert = True


def memblock_add_node(k: Kernel, base: int, size: int, nid: int) -> None:
    """Source: mm/memblock.c memblock_add_node() [v4.9]"""
    memblock_add_range(k, k.memblock.memory, base, size, nid, MEMBLOCK_NONE)


def memblock_add(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_add() [v4.9]"""
    memblock_add_range(k, k.memblock.memory, base, size, MAX_NUMNODES, MEMBLOCK_NONE)


def memblock_isolate_range(k: Kernel, type: MemblockType, base: int, size: int) -> tuple[int, int]:
    """
    Split regions so that none crosses an end of [base, base + size).

    Returns:
        The indexes [start, end) of the regions inside; (0, 0) if there are none.

    Raises:
        KernelError: ENOMEM if there may be no room for two more regions.

    Source: mm/memblock.c memblock_isolate_range() [v4.9]
    """
    size = memblock_cap_size(base, size)
    end = base + size
    if not size:
        return 0, 0

    regions = type.regions
    while len(regions) + 2 > type.max:
        if not memblock_double_array(k, type, base, size):
            raise KernelError(ENOMEM, f"the array of {type.name} regions is full", base=base, size=size, max=type.max)

    start_rgn = _first_above(regions, base)
    if start_rgn < len(regions):
        rgn = regions[start_rgn]
        rbase = rgn.base
        if rbase < base:
            rgn.base = base
            rgn.size -= base - rbase
            type.total_size -= base - rbase
            memblock_insert_region(k, type, start_rgn, rbase, base - rbase, rgn.nid, rgn.flags)
            start_rgn += 1

    end_rgn = bisect_left(regions, end, lo=start_rgn, key=_BASE)
    if end_rgn == start_rgn:
        return 0, 0
    rgn = regions[end_rgn - 1]
    rbase = rgn.base
    if rbase + rgn.size > end:
        rgn.base = end
        rgn.size -= end - rbase
        type.total_size -= end - rbase
        memblock_insert_region(k, type, end_rgn - 1, rbase, end - rbase, rgn.nid, rgn.flags)
    return start_rgn, end_rgn


def memblock_remove_range(k: Kernel, type: MemblockType, base: int, size: int) -> None:
    """
    Take [base, base + size) out.

    Raises:
        KernelError: ENOMEM, from `memblock_isolate_range()`.

    Source: mm/memblock.c memblock_remove_range() [v4.9]
    """
    type = _editable(k, type)
    start_rgn, end_rgn = memblock_isolate_range(k, type, base, size)
    for i in range(end_rgn - 1, start_rgn - 1, -1):
        memblock_remove_region(k, type, i)


def memblock_remove(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_remove() [v4.9]"""
    memblock_remove_range(k, k.memblock.memory, base, size)


def memblock_free(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_free() [v4.9]"""
    memblock_remove_range(k, k.memblock.reserved, base, size)


def memblock_reserve(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_reserve() [v4.9]"""
    memblock_add_range(k, k.memblock.reserved, base, size, MAX_NUMNODES, MEMBLOCK_NONE)


def memblock_setclr_flag(k: Kernel, base: int, size: int, set: bool, flag: int) -> None:
    """
    Set or clear a flag on what there is of memory in [base, base + size).

    Raises:
        KernelError: ENOMEM, from `memblock_isolate_range()`.

    Source: mm/memblock.c memblock_setclr_flag() [v4.9]
    """
    type = k.memblock_rw().memory
    start_rgn, end_rgn = memblock_isolate_range(k, type, base, size)
    for region in type.regions[start_rgn:end_rgn]:
        if set:
            region.flags |= flag
        else:
            region.flags &= ~flag
    memblock_merge_regions(k, type, start_rgn, end_rgn)


def memblock_mark_hotplug(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_mark_hotplug() [v4.9]"""
    memblock_setclr_flag(k, base, size, True, MEMBLOCK_HOTPLUG)


def memblock_clear_hotplug(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_clear_hotplug() [v4.9]"""
    memblock_setclr_flag(k, base, size, False, MEMBLOCK_HOTPLUG)


def memblock_mark_mirror(k: Kernel, base: int, size: int) -> None:
    """From now on early boot prefers mirrored memory. Source: mm/memblock.c memblock_mark_mirror() [v4.9]"""
    k.memblock_rw().system_has_some_mirror = True
    memblock_setclr_flag(k, base, size, True, MEMBLOCK_MIRROR)


def memblock_mark_nomap(k: Kernel, base: int, size: int) -> None:
    """Keep memory out of the linear map. Source: mm/memblock.c memblock_mark_nomap() [v4.9]"""
    memblock_setclr_flag(k, base, size, True, MEMBLOCK_NOMAP)


def memblock_clear_nomap(k: Kernel, base: int, size: int) -> None:
    """
    Undo `memblock_mark_nomap()`. v4.9 does not have it.

    Raises:
        ModelDefectError: the tree does not have it.

    Source: mm/memblock.c memblock_clear_nomap() [v4.12, arm64-rfc-2016]
    """
    if not k.tree.memblock_clear_nomap:
        raise ModelDefectError(f"{k.tree.name} has no memblock_clear_nomap()")
    memblock_setclr_flag(k, base, size, False, MEMBLOCK_NOMAP)


# Walks. Each yields from the arrays as they stand; the ends of ranges are exclusive, but for reserved regions, as in C.


def for_each_reserved_mem_region(k: Kernel) -> Iterator[tuple[int, int]]:
    """Yield (first byte, last byte). Source: mm/memblock.c __next_reserved_mem_region() [v4.9]"""
    for r in k.memblock.reserved.regions:
        yield r.base, r.base + r.size - 1


def _unwanted(k: Kernel, m: MemblockRegion, nid: int, flags: int) -> bool:
    """Say whether a walk passes over a region. Source: none; the tests at the head of __next_mem_range()"""
    if nid not in (NUMA_NO_NODE, m.nid):
        return True
    if k.config.MOVABLE_NODE and k.movable_node_enabled and m.flags & MEMBLOCK_HOTPLUG:
        return True
    if flags & MEMBLOCK_MIRROR and not memblock_is_mirror(m):
        return True
    return not flags & MEMBLOCK_NOMAP and memblock_is_nomap(m)


def _any_node(k: Kernel, nid: int) -> int:
    """Return `nid`, with a complaint for callers that say MAX_NUMNODES. Source: none; the head of __next_mem_range()"""
    if nid != MAX_NUMNODES:
        return nid
    bug.printk_once(k.log, "Usage of MAX_NUMNODES is deprecated. Use NUMA_NO_NODE instead")
    return NUMA_NO_NODE


def for_each_mem_range(
    k: Kernel, type_a: MemblockType, type_b: MemblockType | None, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE,
) -> Iterator[tuple[int, int, int]]:
    """
    Yield (start, end, node) of what is in `type_a` and not in `type_b`, lowest first.

    HOTPLUG memory is passed over under movable_node, NOMAP memory unless `flags` ask for it; MEMBLOCK_MIRROR in `flags` passes
    over memory that is not mirrored.

    Source: mm/memblock.c __next_mem_range() [v4.9]
    """
    nid = _any_node(k, nid)
    holes = [] if type_b is None else type_b.regions
    idx_b = 0
    for m in type_a.regions:
        if _unwanted(k, m, nid, flags):
            continue
        m_start, m_end, m_nid = m.base, m.base + m.size, m.nid
        if type_b is None:
            yield m_start, m_end, m_nid
            continue
        # The area before each reservation; an area that outlasts this region is looked at again for the next one.
        while idx_b <= len(holes):
            r_start = holes[idx_b - 1].base + holes[idx_b - 1].size if idx_b else 0
            r_end = holes[idx_b].base if idx_b < len(holes) else ULLONG_MAX
            if r_start >= m_end:
                break
            if m_start < r_end:
                yield max(m_start, r_start), min(m_end, r_end), m_nid
                if m_end <= r_end:
                    break
            idx_b += 1


def for_each_mem_range_rev(
    k: Kernel, type_a: MemblockType, type_b: MemblockType | None, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE,
) -> Iterator[tuple[int, int, int]]:
    """As `for_each_mem_range()`, highest first. Source: mm/memblock.c __next_mem_range_rev() [v4.9]"""
    nid = _any_node(k, nid)
    holes = [] if type_b is None else type_b.regions
    idx_b = len(holes)
    for m in reversed(type_a.regions):
        if _unwanted(k, m, nid, flags):
            continue
        m_start, m_end, m_nid = m.base, m.base + m.size, m.nid
        if type_b is None:
            yield m_start, m_end, m_nid
            continue
        while idx_b >= 0:
            r_start = holes[idx_b - 1].base + holes[idx_b - 1].size if idx_b else 0
            r_end = holes[idx_b].base if idx_b < len(holes) else ULLONG_MAX
            if r_end <= m_start:
                break
            if m_end > r_start:
                yield max(m_start, r_start), min(m_end, r_end), m_nid
                if m_start >= r_start:
                    break
            idx_b -= 1


def for_each_free_mem_range(k: Kernel, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE) -> Iterator[tuple[int, int, int]]:
    """Yield memory that is not reserved, lowest first. Source: include/linux/memblock.h for_each_free_mem_range() [v4.9]"""
    return for_each_mem_range(k, k.memblock.memory, k.memblock.reserved, nid, flags)


def for_each_free_mem_range_reverse(
    k: Kernel, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE,
) -> Iterator[tuple[int, int, int]]:
    """As above, highest first. Source: include/linux/memblock.h for_each_free_mem_range_reverse() [v4.9]"""
    return for_each_mem_range_rev(k, k.memblock.memory, k.memblock.reserved, nid, flags)


def for_each_mem_pfn_range(k: Kernel, nid: int = MAX_NUMNODES) -> Iterator[tuple[int, int, int]]:
    """
    Yield (start_pfn, end_pfn, node) of whole pages of memory, NOMAP or not; `nid` MAX_NUMNODES means every node.

    Source: mm/memblock.c __next_mem_pfn_range() [v4.9]
    """
    shift, up = k.PAGE_SHIFT, k.PAGE_SIZE - 1
    for r in k.memblock.memory.regions:
        start_pfn, end_pfn = (r.base + up) >> shift, (r.base + r.size) >> shift
        if start_pfn < end_pfn and nid in (MAX_NUMNODES, r.nid):
            yield start_pfn, end_pfn, r.nid


def memblock_set_node(k: Kernel, base: int, size: int, type: MemblockType, nid: int) -> None:
    """
    Say which node the regions in [base, base + size) belong to.

    Raises:
        KernelError: ENOMEM, from `memblock_isolate_range()`.

    Source: mm/memblock.c memblock_set_node() [v4.9]
    """
    type = _editable(k, type)
    start_rgn, end_rgn = memblock_isolate_range(k, type, base, size)
    for region in type.regions[start_rgn:end_rgn]:
        region.nid = _node(k, nid)
    memblock_merge_regions(k, type, start_rgn, end_rgn)


# Allocation in early boot. An address stands for the pointer; 0 is NULL.


def _panic(k: Kernel, message: str) -> NoReturn:
    """panic(). Source: none; kernel/panic.c"""
    line = f"Kernel panic - not syncing: {message}"
    bug.printk(k.log, line)
    raise KernelBugError(message, [line])


def memblock_alloc_range_nid(k: Kernel, size: int, align: int, start: int, end: int, nid: int, flags: int) -> int:
    """Find and reserve; 0 if there is no place. Source: mm/memblock.c memblock_alloc_range_nid() [v4.9]"""
    found = memblock_find_in_range_node(k, size, align or _smp_cache_bytes(k), start, end, nid, flags)
    if not found:
        return 0
    try:
        memblock_reserve(k, found, size)
    except KernelError as err:
        if err.errno != ENOMEM:
            raise
        return 0
    return found


def memblock_alloc_range(k: Kernel, size: int, align: int, start: int, end: int, flags: int) -> int:
    """Source: mm/memblock.c memblock_alloc_range() [v4.9]"""
    return memblock_alloc_range_nid(k, size, align, start, end, NUMA_NO_NODE, flags)


def memblock_alloc_base_nid(k: Kernel, size: int, align: int, max_addr: int, nid: int, flags: int) -> int:
    """Source: mm/memblock.c memblock_alloc_base_nid() [v4.9]"""
    return memblock_alloc_range_nid(k, size, align, 0, max_addr, nid, flags)


def memblock_alloc_nid(k: Kernel, size: int, align: int, nid: int) -> int:
    """Source: mm/memblock.c memblock_alloc_nid() [v4.9]"""
    flags = choose_memblock_flags(k)
    while True:
        ret = memblock_alloc_base_nid(k, size, align, MEMBLOCK_ALLOC_ACCESSIBLE, nid, flags)
        if ret or not flags & MEMBLOCK_MIRROR:
            return ret
        flags &= ~MEMBLOCK_MIRROR


def __memblock_alloc_base(k: Kernel, size: int, align: int, max_addr: int) -> int:
    """Source: mm/memblock.c __memblock_alloc_base() [v4.9]"""
    return memblock_alloc_base_nid(k, size, align, max_addr, NUMA_NO_NODE, MEMBLOCK_NONE)


def memblock_alloc_base(k: Kernel, size: int, align: int, max_addr: int) -> int:
    """
    Allocate below `max_addr`.

    Raises:
        KernelBugError: panic: there is no place.

    Source: mm/memblock.c memblock_alloc_base() [v4.9]
    """
    alloc = __memblock_alloc_base(k, size, align, max_addr)
    if alloc == 0:
        _panic(k, f"ERROR: Failed to allocate {size:#x} bytes below {max_addr:#x}.")
    return alloc


def memblock_alloc(k: Kernel, size: int, align: int) -> int:
    """Source: mm/memblock.c memblock_alloc() [v4.9]"""
    return memblock_alloc_base(k, size, align, MEMBLOCK_ALLOC_ACCESSIBLE)


def memblock_alloc_try_nid(k: Kernel, size: int, align: int, nid: int) -> int:
    """Source: mm/memblock.c memblock_alloc_try_nid() [v4.9]"""
    return memblock_alloc_nid(k, size, align, nid) or memblock_alloc_base(k, size, align, MEMBLOCK_ALLOC_ACCESSIBLE)


def memblock_virt_alloc_internal(k: Kernel, size: int, align: int, min_addr: int, max_addr: int, nid: int) -> int:
    """
    Allocate, giving up first the node, then the lower limit, then mirroring; 0 if nothing helps.

    Raises:
        ModelDefectError: it is too late, slab works already; C warns and calls kzalloc_node().

    Source: mm/memblock.c memblock_virt_alloc_internal() [v4.9]
    """
    flags = choose_memblock_flags(k)
    nid = _any_node(k, nid)
    if k.slab_is_available:
        raise ModelDefectError("memblock_virt_alloc() after slab became available")
    align = align or _smp_cache_bytes(k)
    max_addr = min(max_addr, k.memblock.current_limit)

    while True:
        alloc = memblock_find_in_range_node(k, size, align, min_addr, max_addr, nid, flags)
        if not alloc and nid != NUMA_NO_NODE:
            alloc = memblock_find_in_range_node(k, size, align, min_addr, max_addr, NUMA_NO_NODE, flags)
        if alloc:
            break
        if min_addr:
            min_addr = 0
        elif flags & MEMBLOCK_MIRROR:
            flags &= ~MEMBLOCK_MIRROR
            bug.printk(k.log, f"Could not allocate {size:#018x} bytes of mirrored memory")
        else:
            return 0

    try:
        memblock_reserve(k, alloc, size)
    except KernelError as err:      # C does not look at what memblock_reserve() returns
        if err.errno != ENOMEM:
            raise
    return alloc


def memblock_virt_alloc_try_nid_nopanic(k: Kernel, size: int, align: int, min_addr: int, max_addr: int, nid: int) -> int:
    """Source: mm/memblock.c memblock_virt_alloc_try_nid_nopanic() [v4.9]"""
    return memblock_virt_alloc_internal(k, size, align, min_addr, max_addr, nid)


def memblock_virt_alloc_try_nid(k: Kernel, size: int, align: int, min_addr: int, max_addr: int, nid: int) -> int:
    """
    As `memblock_virt_alloc_internal()`, but it must succeed.

    Raises:
        KernelBugError: panic: there is no place.

    Source: mm/memblock.c memblock_virt_alloc_try_nid() [v4.9]
    """
    ptr = memblock_virt_alloc_internal(k, size, align, min_addr, max_addr, nid)
    if not ptr:
        _panic(
            k,
            f"memblock_virt_alloc_try_nid: Failed to allocate {size} bytes align={align:#x} nid={nid} from={min_addr:#x} "
            f"max_addr={max_addr:#x}",
        )
    return ptr


def BOOTMEM_LOW_LIMIT(k: Kernel) -> int:
    """__pa(MAX_DMA_ADDRESS): 16 MiB on x86_64, the start of RAM on arm64. Source: include/linux/bootmem.h [v4.9]"""
    return memblock_start_of_DRAM(k) if k.arch.name == "arm64" else 1 << 24


def memblock_virt_alloc(k: Kernel, size: int, align: int) -> int:
    """Source: include/linux/bootmem.h memblock_virt_alloc() [v4.9]"""
    return memblock_virt_alloc_try_nid(k, size, align, BOOTMEM_LOW_LIMIT(k), MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE)


def memblock_virt_alloc_nopanic(k: Kernel, size: int, align: int) -> int:
    """Source: include/linux/bootmem.h memblock_virt_alloc_nopanic() [v4.9]"""
    return memblock_virt_alloc_try_nid_nopanic(k, size, align, BOOTMEM_LOW_LIMIT(k), MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE)


def memblock_virt_alloc_node(k: Kernel, size: int, nid: int) -> int:
    """Source: include/linux/bootmem.h memblock_virt_alloc_node() [v4.9]"""
    return memblock_virt_alloc_try_nid(k, size, 0, BOOTMEM_LOW_LIMIT(k), MEMBLOCK_ALLOC_ACCESSIBLE, nid)


def memblock_virt_alloc_node_nopanic(k: Kernel, size: int, nid: int) -> int:
    """Source: include/linux/bootmem.h memblock_virt_alloc_node_nopanic() [v4.9]"""
    return memblock_virt_alloc_try_nid_nopanic(k, size, 0, BOOTMEM_LOW_LIMIT(k), MEMBLOCK_ALLOC_ACCESSIBLE, nid)


def memblock_free_early(k: Kernel, base: int, size: int) -> None:
    """Give boot memory back before the page allocator works. Source: mm/memblock.c __memblock_free_early() [v4.9]"""
    memblock_remove_range(k, k.memblock.reserved, base, size)


# Questions.


def memblock_phys_mem_size(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_phys_mem_size() [v4.9]"""
    return k.memblock.memory.total_size


def memblock_reserved_size(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_reserved_size() [v4.9]"""
    return k.memblock.reserved.total_size


def memblock_start_of_DRAM(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_start_of_DRAM() [v4.9]"""
    regions = k.memblock.memory.regions
    return regions[0].base if regions else 0


def memblock_end_of_DRAM(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_end_of_DRAM() [v4.9]"""
    regions = k.memblock.memory.regions
    return regions[-1].base + regions[-1].size if regions else 0


def __find_max_addr(k: Kernel, limit: int) -> int:
    """
    Return the address below which `limit` bytes of memory lie, or ULLONG_MAX if there are not so many.

    Source: mm/memblock.c __find_max_addr() [v4.9]
    """
    for r in k.memblock.memory.regions:
        if limit <= r.size:
            return r.base + limit
        limit -= r.size
    return ULLONG_MAX


def memblock_enforce_memory_limit(k: Kernel, limit: int) -> None:
    """Forget all memory but the lowest `limit` bytes. Source: mm/memblock.c memblock_enforce_memory_limit() [v4.9]"""
    if not limit:
        return
    max_addr = __find_max_addr(k, limit)
    if max_addr == ULLONG_MAX:
        return
    memblock_remove_range(k, k.memblock.memory, max_addr, ULLONG_MAX)
    memblock_remove_range(k, k.memblock.reserved, max_addr, ULLONG_MAX)


def memblock_mem_limit_remove_map(k: Kernel, limit: int) -> None:
    """
    As above, but NOMAP memory stays, cut in two where it crosses the limit.

    Source: mm/memblock.c memblock_mem_limit_remove_map() [v4.9]
    """
    if not limit:
        return
    max_addr = __find_max_addr(k, limit)
    if max_addr == ULLONG_MAX:
        return
    type = k.memblock_rw().memory
    try:
        start_rgn, end_rgn = memblock_isolate_range(k, type, max_addr, ULLONG_MAX)
    except KernelError as err:
        if err.errno != ENOMEM:
            raise
        return
    for i in range(end_rgn - 1, start_rgn - 1, -1):
        if not memblock_is_nomap(type.regions[i]):
            memblock_remove_region(k, type, i)
    type.minimal = False
    memblock_remove_range(k, k.memblock.reserved, max_addr, ULLONG_MAX)


def memblock_search(k: Kernel, type: MemblockType, addr: int) -> int:
    """Return the index of the region that contains `addr`, or -1. Source: mm/memblock.c memblock_search() [v4.9]"""
    regions = type.regions
    idx = bisect_right(regions, addr, key=_BASE) - 1
    if idx >= 0:
        region = regions[idx]
        if addr < region.base + region.size:
            return idx
    return -1


def memblock_is_reserved(k: Kernel, addr: int) -> bool:
    """Source: mm/memblock.c memblock_is_reserved() [v4.9]"""
    return memblock_search(k, k.memblock.reserved, addr) != -1


def memblock_is_memory(k: Kernel, addr: int) -> bool:
    """Source: mm/memblock.c memblock_is_memory() [v4.9]"""
    return memblock_search(k, k.memblock.memory, addr) != -1


def memblock_is_map_memory(k: Kernel, addr: int) -> bool:
    """Say whether `addr` is memory and not NOMAP. Source: mm/memblock.c memblock_is_map_memory() [v4.9]"""
    memory = k.memblock.memory
    i = memblock_search(k, memory, addr)
    return i != -1 and not memory.regions[i].flags & MEMBLOCK_NOMAP


def memblock_search_pfn_nid(k: Kernel, pfn: int) -> tuple[int, int, int] | None:
    """
    Return (node, start_pfn, end_pfn) of the memory that contains a pfn, both ends rounded down; None (-1 in C) if none does.

    Source: mm/memblock.c memblock_search_pfn_nid() [v4.9]
    """
    regions = k.memblock.memory.regions
    mid = memblock_search(k, k.memblock.memory, pfn << k.PAGE_SHIFT & ULLONG_MAX)
    if mid == -1:
        return None
    region = regions[mid]
    return region.nid, region.base >> k.PAGE_SHIFT, (region.base + region.size) >> k.PAGE_SHIFT


def memblock_is_region_memory(k: Kernel, base: int, size: int) -> bool:
    """Say whether one region contains all of it. Source: mm/memblock.c memblock_is_region_memory() [v4.9]"""
    regions = k.memblock.memory.regions
    idx = memblock_search(k, k.memblock.memory, base)
    end = base + memblock_cap_size(base, size)
    return idx != -1 and regions[idx].base + regions[idx].size >= end


def memblock_is_region_reserved(k: Kernel, base: int, size: int) -> bool:
    """Say whether any byte of it is reserved. Source: mm/memblock.c memblock_is_region_reserved() [v4.9]"""
    return memblock_overlaps_region(k, k.memblock.reserved, base, memblock_cap_size(base, size))


def memblock_trim_memory(k: Kernel, align: int) -> None:
    """
    Round memory inwards to `align`, a power of two. The total is not adjusted for what is cut off.

    Source: mm/memblock.c memblock_trim_memory() [v4.9]
    """
    type = k.memblock_rw().memory
    i = 0
    while i < len(type.regions):
        r = type.regions[i]
        start = (r.base + align - 1) & -align
        end = (r.base + r.size) & -align
        if start == r.base and end == r.base + r.size:
            pass
        elif start < end:
            r.base, r.size = start, end - start
        else:
            memblock_remove_region(k, type, i)
            continue
        i += 1


def memblock_set_bottom_up(k: Kernel, enable: bool) -> None:
    """Source: include/linux/memblock.h memblock_set_bottom_up() [v4.9]"""
    if k.config.MOVABLE_NODE:
        k.memblock_rw().bottom_up = enable


def memblock_set_current_limit(k: Kernel, limit: int) -> None:
    """Source: mm/memblock.c memblock_set_current_limit() [v4.9]"""
    k.memblock_rw().current_limit = limit


def memblock_allow_resize(k: Kernel) -> None:
    """From now on the arrays may grow. Source: mm/memblock.c memblock_allow_resize() [v4.9]"""
    k.memblock_rw().can_resize = True


# What people see.


def _shown(k: Kernel, type: MemblockType) -> list[MemblockRegion]:
    """Return the regions as C has them: an empty array holds a dummy of size 0. Source: none"""
    return type.regions or [MemblockRegion(0, 0, 0, _node(k, MAX_NUMNODES))]


def memblock_dump(k: Kernel, type: MemblockType, name: str) -> None:
    """Source: mm/memblock.c memblock_dump() [v4.9]"""
    regions = _shown(k, type)
    bug.printk(k.log, f" {name}.cnt  = {len(regions):#x}")
    for idx, rgn in enumerate(regions):
        nid_buf = f" on node {rgn.nid}" if _have_node_map(k) and rgn.nid != MAX_NUMNODES else ""
        last = rgn.base + rgn.size - 1 & ULLONG_MAX
        bug.printk(
            k.log,
            f" {name}[{idx:#x}]\t[{rgn.base:#016x}-{last:#016x}], {rgn.size:#x} bytes{nid_buf} flags: {rgn.flags:#x}",
        )


def __memblock_dump_all(k: Kernel) -> None:
    """Source: mm/memblock.c __memblock_dump_all() [v4.9]"""
    memory, reserved = k.memblock.memory, k.memblock.reserved
    bug.printk(k.log, "MEMBLOCK configuration:")
    bug.printk(k.log, f" memory size = {memory.total_size:#x} reserved size = {reserved.total_size:#x}")
    memblock_dump(k, memory, "memory")
    memblock_dump(k, reserved, "reserved")


def memblock_dump_all(k: Kernel) -> None:
    """Print both arrays if the command line says memblock=debug. Source: include/linux/memblock.h memblock_dump_all() [v4.9]"""
    if "debug" in k.cmdline.get("memblock", ""):
        __memblock_dump_all(k)


def memblock_debug_show(k: Kernel, type: MemblockType) -> str:
    """Return /sys/kernel/debug/memblock/{memory,reserved}. Source: mm/memblock.c memblock_debug_show() [v4.9]"""
    return "".join(
        f"{i:4d}: 0x{reg.base:016x}..0x{reg.base + reg.size - 1 & ULLONG_MAX:016x}\n" for i, reg in enumerate(_shown(k, type))
    )


# What a pfn_valid() may ask of memblock.


def _test_mb(k: Kernel, pfn: int) -> bool:
    """Is it memory? The shift loses the pfn's upper bits, as in C. Source: none"""
    return memblock_is_memory(k, pfn << k.PAGE_SHIFT & ULLONG_MAX)


def _test_map(k: Kernel, pfn: int) -> bool:
    """Is it memory and not NOMAP? The shift loses the pfn's upper bits, as in C. Source: none"""
    return memblock_is_map_memory(k, pfn << k.PAGE_SHIFT & ULLONG_MAX)


def _cuts(k: Kernel, start: int, end: int) -> list[int]:
    """
    Return the pfns strictly inside (start, end) from which on the answer may differ.

    A pfn stands for its first byte, so an edge inside a page counts from the next page on. Above 2^64 bytes, which the shift
    cuts off, everything repeats.

    Source: none
    """
    shift, up = k.PAGE_SHIFT, k.PAGE_SIZE - 1
    span = 1 << (64 - shift)
    regions = k.memblock.memory.regions
    points = set()
    for window in range(start // span * span, end, span):
        points.add(window)
        lowest = max(start - window, 0) << shift
        highest = min(end - window, span) << shift
        for i in range(_first_above(regions, lowest), len(regions)):
            region = regions[i]
            if region.base > highest:
                break
            points.add(window + (region.base + up >> shift))
            points.add(window + (region.base + region.size + up >> shift))
    return sorted(pfn for pfn in points if start < pfn < end)


MB = Ingredient("mb", _test_mb, _cuts)
MAP = Ingredient("map", _test_map, _cuts)
