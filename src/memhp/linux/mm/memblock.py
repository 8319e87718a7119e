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
older trees' scan of everything gives, because arrays are minimal before each change; `MemblockType.minimal` remembers the one
exception. An array without regions is an empty list; where C keeps a dummy region of size 0, walks and texts show it. Without
NUMA regions have no node at all; they then keep node 0 here. The lines of memblock=debug that hold return addresses are not
printed, and warnings are not rate-limited.

How trees differ: allocation was rewritten (memblock_virt_alloc* became memblock_alloc*, the node can be exact); NOMAP was joined
by DRIVER_MANAGED and, in reserved, RSRV_NOINIT; an array that must not grow is a panic today. Each is a fact of `Tree`, named
memblock_*.

What C leaves undefined is not imitated: memblock_end_of_DRAM() without memory where there is no dummy, and what follows a
memblock_trim_memory() that rounds a region's start past the top of the address space (regions then overlap).

Locks: none. Boot is single; hot-add holds mem_hotplug.lock.

Source: mm/memblock.c, include/linux/memblock.h.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from errno import EBUSY, EINVAL, ENOMEM
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

from memhp.errors import KernelBugError, KernelError, ModelDefectError
from memhp.linux import bug
from memhp.linux.include import mmzone
from memhp.linux.include.memblock import (
    FLAG_SHOWN,
    INIT_MEMBLOCK_REGIONS,
    MEMBLOCK_ALLOC_ACCESSIBLE,
    MEMBLOCK_ALLOC_NOLEAKTRACE,
    MEMBLOCK_DRIVER_MANAGED,
    MEMBLOCK_HOTPLUG,
    MEMBLOCK_MIRROR,
    MEMBLOCK_NOMAP,
    MEMBLOCK_NONE,
    MEMBLOCK_RSRV_NOINIT,
    ULLONG_MAX,
    MemblockRegion,
    MemblockType,
    memblock_is_driver_managed,
    memblock_is_hotpluggable,
    memblock_is_mirror,
    memblock_is_nomap,
    memblock_is_reserved_noinit,
)
from memhp.linux.include.mmzone import Ingredient
from memhp.linux.include.numa import MAX_NUMNODES, NUMA_NO_NODE

if TYPE_CHECKING:
    from memhp.linux.include.mmzone import Zone
    from memhp.linux.state import Kernel

    ReserveRegion = Callable[[Kernel, int, int, int], None]
    FreePages = Callable[[Kernel, int, int], None]

ARCH_LOW_ADDRESS_LIMIT = 0xFFFFFFFF
RESERVE_MEM_MAX_ENTRIES = 8
RESERVE_MEM_NAME_SIZE = 16

_BASE = attrgetter("base")


def _have_node_map(k: Kernel) -> bool:
    """
    Say whether regions have a node: under NUMA; until v5.8 under HAVE_MEMBLOCK_NODE_MAP, which x86 always selects.

    Source: none; arch/arm64/Kconfig, arch/x86/Kconfig
    """
    return k.config.NUMA or (not k.tree.memblock_node_needs_numa and k.arch.name != "arm64")


def _node(k: Kernel, nid: int) -> int:
    """What memblock_set_region_node() keeps of a node. Source: none; include/linux/memblock.h memblock_get_region_node()"""
    return nid if _have_node_map(k) else 0


def _smp_cache_bytes(k: Kernel) -> int:
    """SMP_CACHE_BYTES. Source: none; arch/arm64/include/asm/cache.h, arch/x86/Kconfig.cpu"""
    return 128 if k.arch.name == "arm64" else 64


def _numa_valid_node(nid: int) -> bool:
    """numa_valid_node(). Source: none; include/linux/numa.h"""
    return 0 <= nid < MAX_NUMNODES


def _movable_node_is_enabled(k: Kernel) -> bool:
    """movable_node_is_enabled(). Source: none; include/linux/memory_hotplug.h"""
    return k.movable_node_enabled and (k.config.MOVABLE_NODE or not k.tree.config_movable_node)


def _mirrored_kernelcore(k: Kernel) -> bool:
    """The variable: was kernelcore=mirror given? Source: none; mm/page_alloc.c cmdline_parse_kernelcore()"""
    return k.cmdline.get("kernelcore") == "mirror"


def _debug(k: Kernel) -> bool:
    """The variable memblock_debug: was memblock=debug given? Source: none; mm/memblock.c early_memblock()"""
    return "debug" in k.cmdline.get("memblock", "")


def _page_align(k: Kernel, size: int) -> int:
    """PAGE_ALIGN(). Source: none; include/linux/mm.h"""
    return (size + k.PAGE_SIZE - 1) & ~(k.PAGE_SIZE - 1)


def _sizeof_region(k: Kernel) -> int:
    """sizeof(struct memblock_region): flags were a long once. Source: none; include/linux/memblock.h"""
    return 24 if k.tree.memblock_flags_are_int or not _have_node_map(k) else 32


def _warn_once(k: Kernel, place: str, text: str) -> None:
    """WARN_ONCE(): the text and the warning, once for each place. Source: none; include/asm-generic/bug.h"""
    key = f"{place} {text}"
    if key not in k.log.warned:
        k.log.warned.add(key)
        bug.printk(k.log, text)
        bug.printk(k.log, f"WARNING: at mm/memblock.c {place}")


def _ignoring_enomem(call: Callable[..., None], *arguments: Any) -> None:
    """Call what may be -ENOMEM, where C does not look at what it returns. Source: none"""
    try:
        call(*arguments)
    except KernelError as err:
        if err.errno != ENOMEM:
            raise


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
    """Source: mm/memblock.c choose_memblock_flags() [all]"""
    return MEMBLOCK_MIRROR if k.memblock.system_has_some_mirror else MEMBLOCK_NONE


def memblock_cap_size(base: int, size: int) -> int:
    """
    Return `size`, cut so that base + size fits 64 bits; the last byte of the address space is never inside.

    Source: mm/memblock.c memblock_cap_size() [all]
    """
    return min(size, ULLONG_MAX - base)


def memblock_addrs_overlap(k: Kernel, base1: int, size1: int, base2: int, size2: int) -> bool:
    """Say whether two ranges share a byte. Source: mm/memblock.c memblock_addrs_overlap() [all]"""
    return base1 < (base2 + size2 & ULLONG_MAX) and base2 < (base1 + size1 & ULLONG_MAX)


def memblock_has_mirror(k: Kernel) -> bool:
    """Source: mm/memblock.c memblock_has_mirror() [v6.12]"""
    return k.memblock.system_has_some_mirror


def memblock_overlaps_region(k: Kernel, type: MemblockType, base: int, size: int) -> bool:
    """
    Say whether any region has a byte of [base, base + size).

    Source: mm/memblock.c memblock_overlaps_region() [all]
    """
    if k.tree.memblock_overlaps_region_caps:
        size = memblock_cap_size(base, size)
    regions = type.regions
    idx = _first_above(regions, base)
    return idx < len(regions) and regions[idx].base < base + size & ULLONG_MAX


# Finding free memory, from above or, under movable_node, from below.


def __memblock_find_range_bottom_up(k: Kernel, start: int, end: int, size: int, align: int, nid: int, flags: int) -> int:
    """Return the lowest place, or 0. Source: mm/memblock.c __memblock_find_range_bottom_up() [all]"""
    for this_start, this_end, _ in for_each_free_mem_range(k, nid, flags):
        this_start = min(max(this_start, start), end)
        this_end = min(max(this_end, start), end)
        cand = (this_start + align - 1) & -align & ULLONG_MAX
        if cand < this_end and this_end - cand >= size:
            return cand
    return 0


def __memblock_find_range_top_down(k: Kernel, start: int, end: int, size: int, align: int, nid: int, flags: int) -> int:
    """Return the highest place, or 0. Source: mm/memblock.c __memblock_find_range_top_down() [all]"""
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

    Source: mm/memblock.c memblock_find_in_range_node() [all]
    """
    if end == MEMBLOCK_ALLOC_ACCESSIBLE or (end == MEMBLOCK_ALLOC_NOLEAKTRACE and k.tree.memblock_exact_nid):
        end = k.memblock.current_limit
    start = max(start, k.PAGE_SIZE)
    end = max(start, end)

    if k.memblock.bottom_up:
        if not k.tree.memblock_bottom_up_above_kernel:
            return __memblock_find_range_bottom_up(k, start, end, size, align, nid, flags)
        kernel_end = _kernel_end(k)
        if end > kernel_end:
            ret = __memblock_find_range_bottom_up(k, max(start, kernel_end), end, size, align, nid, flags)
            if ret:
                return ret
            _warn_once(
                k, "memblock_find_in_range_node()", "memblock: bottom-up allocation failed, memory hotunplug may be affected")

    return __memblock_find_range_top_down(k, start, end, size, align, nid, flags)


def memblock_find_in_range(k: Kernel, start: int, end: int, size: int, align: int) -> int:
    """
    As `memblock_find_in_range_node()` on any node; mirrored memory first where there is some.

    Source: mm/memblock.c memblock_find_in_range() [all]
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
    """Source: mm/memblock.c memblock_remove_region() [all]"""
    if type.regions:
        type.total_size = type.total_size - type.regions[r].size & ULLONG_MAX
        del type.regions[r]
    if not type.regions:
        bug.WARN_ON(k.log, type.total_size != 0)
        type.empty_nid = _node(k, MAX_NUMNODES)


def _allocated_array(k: Kernel, type: MemblockType) -> tuple[int, int]:
    """Return address and size of an array that memblock or slab placed, (0, 0) for the one in the kernel image. Source: none"""
    if type.max == INIT_MEMBLOCK_REGIONS:
        return 0, 0
    return type.array, _page_align(k, type.max * _sizeof_region(k))


def get_allocated_memblock_reserved_regions_info(k: Kernel) -> tuple[int, int]:
    """Return address and size. Source: mm/memblock.c get_allocated_memblock_reserved_regions_info() [v4.9]"""
    return _allocated_array(k, k.memblock.reserved)


def get_allocated_memblock_memory_regions_info(k: Kernel) -> tuple[int, int]:
    """Return address and size. Source: mm/memblock.c get_allocated_memblock_memory_regions_info() [v4.9]"""
    return _allocated_array(k, k.memblock.memory)


def memblock_double_array(k: Kernel, type: MemblockType, new_area_start: int, new_area_size: int) -> bool:
    """
    Double the room of an array; False if that is not possible (-1 in C). Today's trees panic where it is not allowed yet.

    The new array comes from slab, or before that from memblock itself, which reserves it. An array of reserved regions keeps
    clear of [new_area_start, new_area_start + new_area_size), which is about to be reserved.

    Raises:
        KernelBugError: panic, as above; or BUG: there is no room to reserve the new array itself.

    Source: mm/memblock.c memblock_double_array() [all]
    """
    if not k.memblock.can_resize:
        if k.tree.memblock_resize_panics:
            _panic(k, f"memblock: cannot resize {type.name} array")
        return False

    old_size = type.max * _sizeof_region(k)
    new_size = old_size << 1
    old_alloc_size = _page_align(k, old_size)
    new_alloc_size = _page_align(k, new_size)
    use_slab = k.slab_is_available

    addr = 0
    if not use_slab:
        if type.name != "reserved":
            new_area_start = new_area_size = 0
        limit = k.memblock.current_limit
        addr = memblock_find_in_range(k, new_area_start + new_area_size & ULLONG_MAX, limit, new_alloc_size, k.PAGE_SIZE)
        if not addr and new_area_size:
            addr = memblock_find_in_range(k, 0, min(new_area_start, limit), new_alloc_size, k.PAGE_SIZE)
        if not addr:
            bug.printk(k.log, f"memblock: Failed to double {type.name} array from {type.max} to {type.max * 2} entries !")
            return False

    if _debug(k) and not use_slab:      # where slab would put it nobody knows
        last = addr + new_size - 1
        place = f"{addr:#018x}-{last:#018x}" if k.tree.memblock_prints_padded else f"{addr:#010x}-{last:#010x}"
        bug.printk(k.log, f"memblock: {type.name} is doubled to {type.max * 2} at [{place}]")

    old_array, old_in_slab = type.array, type.in_slab
    type.array = addr
    type.max <<= 1
    if not old_in_slab and old_array:
        _ignoring_enomem(memblock_free, k, old_array, old_alloc_size)
    if not use_slab:
        try:
            memblock_reserve(k, addr, new_alloc_size)
        except KernelError as err:
            if err.errno != ENOMEM:
                raise
            bug.BUG_ON(k.log, True, "no room to reserve the new array")
    type.in_slab = use_slab
    return True


def memblock_merge_regions(k: Kernel, type: MemblockType, start_rgn: int, end_rgn: int) -> None:
    """
    Join neighbours that touch and agree in node and flags, where regions [start_rgn, end_rgn) were touched.

    Older trees look at the whole array, which makes a difference only where it was not minimal before.

    Source: mm/memblock.c memblock_merge_regions() [all]
    """
    regions = type.regions
    if not type.minimal and not k.tree.memblock_merges_nearby:
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
    """Source: mm/memblock.c memblock_insert_region() [all]"""
    regions = type.regions
    if len(regions) >= type.max:
        bug.BUG_ON(k.log, True, "the array is full")
    regions[idx:idx] = (MemblockRegion(base, size, flags, nid),)      # moves memory; list.insert() copies item by item
    type.total_size = type.total_size + size & ULLONG_MAX


def memblock_add_range(k: Kernel, type: MemblockType, base: int, size: int, nid: int, flags: int) -> None:
    """
    Add [base, base + size); what is there already stays as it is, the gaps are filled.

    Raises:
        KernelError: ENOMEM if the array is full and cannot be doubled; nothing is added then.
        KernelBugError: panic instead of that, in trees that say so.

    Source: mm/memblock.c memblock_add_range() [all]
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
    # reserved regions then changes by that. Where there is plenty of room later trees insert at once, and warn once.
    insert = k.tree.memblock_inserts_at_once and len(regions) * 2 + 1 < type.max
    first = _first_above(regions, base)
    start_rgn = end_rgn = -1
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
                    if start_rgn == -1:
                        start_rgn = idx
                    memblock_insert_region(k, type, idx, base, rbase - base, nid, flags)
                    idx += 1
                    end_rgn = idx
            base = min(rbase + rgn.size, end)
            idx += 1

        if base < end:
            nr_new += 1
            if insert:
                if start_rgn == -1:
                    start_rgn = idx
                memblock_insert_region(k, type, idx, base, end - base, nid, flags)
                end_rgn = idx + 1

        if not nr_new:
            return
        if insert:
            memblock_merge_regions(k, type, start_rgn, end_rgn)
            return
        while len(regions) + nr_new > type.max:
            if not memblock_double_array(k, type, obase, size):
                raise KernelError(ENOMEM, f"the array of {type.name} regions is full", base=obase, size=size, max=type.max)
            first = _first_above(regions, obase)
        insert = True


def memblock_add_node(k: Kernel, base: int, size: int, nid: int, flags: int = MEMBLOCK_NONE) -> None:
    """Add memory of a node; `flags` came with MEMBLOCK_DRIVER_MANAGED. Source: mm/memblock.c memblock_add_node() [all]"""
    if flags and not k.tree.memblock_driver_managed:
        raise ModelDefectError(f"{k.tree.name}'s memblock_add_node() takes no flags")
    memblock_add_range(k, k.memblock.memory, base, size, nid, flags)


def memblock_add(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_add() [all]"""
    memblock_add_range(k, k.memblock.memory, base, size, MAX_NUMNODES, MEMBLOCK_NONE)


def memblock_validate_numa_coverage(k: Kernel, threshold_bytes: int) -> bool:
    """
    Say whether no more than `threshold_bytes` of memory lack a node; complain if more do.

    Source: mm/memblock.c memblock_validate_numa_coverage() [v6.12]
    """
    nr_pages = sum(end - start for start, end, nid in for_each_mem_pfn_range(k) if not _numa_valid_node(nid))
    lost = nr_pages << k.PAGE_SHIFT & ULLONG_MAX
    if lost > threshold_bytes:
        bug.printk(k.log, f"NUMA: no nodes coverage for {lost >> 20}MB of {memblock_phys_mem_size(k) >> 20}MB RAM")
        return False
    return True


def memblock_isolate_range(k: Kernel, type: MemblockType, base: int, size: int) -> tuple[int, int]:
    """
    Split regions so that none crosses an end of [base, base + size).

    Returns:
        The indexes [start, end) of the regions inside; (0, 0) if there are none.

    Raises:
        KernelError: ENOMEM if there may be no room for two more regions.

    Source: mm/memblock.c memblock_isolate_range() [all]
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
            type.total_size = type.total_size - (base - rbase) & ULLONG_MAX
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
        type.total_size = type.total_size - (end - rbase) & ULLONG_MAX
        memblock_insert_region(k, type, end_rgn - 1, rbase, end - rbase, rgn.nid, rgn.flags)
    return start_rgn, end_rgn


def memblock_remove_range(k: Kernel, type: MemblockType, base: int, size: int) -> None:
    """
    Take [base, base + size) out.

    Raises:
        KernelError: ENOMEM, from `memblock_isolate_range()`.

    Source: mm/memblock.c memblock_remove_range() [all]
    """
    type = _editable(k, type)
    start_rgn, end_rgn = memblock_isolate_range(k, type, base, size)
    for i in range(end_rgn - 1, start_rgn - 1, -1):
        memblock_remove_region(k, type, i)


def memblock_remove(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_remove() [all]"""
    memblock_remove_range(k, k.memblock.memory, base, size)


def memblock_free(k: Kernel, base: int, size: int) -> None:
    """
    Give back what was reserved. Today `base` is a pointer, NULL is nothing, and nobody learns of an error.

    Raises:
        KernelError: ENOMEM, from `memblock_isolate_range()`, where an address is taken.

    Source: mm/memblock.c memblock_free() [all]
    """
    if not k.tree.memblock_free_takes_pointer:
        memblock_remove_range(k, k.memblock.reserved, base, size)
    elif base:
        _ignoring_enomem(memblock_phys_free, k, base, size)


def memblock_phys_free(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_phys_free() [v6.1, v6.12]"""
    memblock_remove_range(k, k.memblock.reserved, base, size)


def memblock_reserve(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_reserve() [all]"""
    memblock_add_range(k, k.memblock.reserved, base, size, MAX_NUMNODES, MEMBLOCK_NONE)


def memblock_setclr_flag(k: Kernel, type: MemblockType, base: int, size: int, set: bool, flag: int) -> None:
    """
    Set or clear a flag on what there is of `type` in [base, base + size). Older trees do it to memory only, and name no type.

    Raises:
        KernelError: ENOMEM, from `memblock_isolate_range()`.

    Source: mm/memblock.c memblock_setclr_flag() [all]
    """
    type = _editable(k, type)
    start_rgn, end_rgn = memblock_isolate_range(k, type, base, size)
    for region in type.regions[start_rgn:end_rgn]:
        if set:
            region.flags |= flag
        else:
            region.flags &= ~flag
    memblock_merge_regions(k, type, start_rgn, end_rgn)


def memblock_mark_hotplug(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_mark_hotplug() [all]"""
    memblock_setclr_flag(k, k.memblock.memory, base, size, True, MEMBLOCK_HOTPLUG)


def memblock_clear_hotplug(k: Kernel, base: int, size: int) -> None:
    """Source: mm/memblock.c memblock_clear_hotplug() [all]"""
    memblock_setclr_flag(k, k.memblock.memory, base, size, False, MEMBLOCK_HOTPLUG)


def memblock_mark_mirror(k: Kernel, base: int, size: int) -> None:
    """
    From now on early boot prefers mirrored memory. Later trees do nothing unless kernelcore=mirror was given.

    Source: mm/memblock.c memblock_mark_mirror() [all]
    """
    if k.tree.memblock_mirror_needs_kernelcore and not _mirrored_kernelcore(k):
        return
    k.memblock_rw().system_has_some_mirror = True
    memblock_setclr_flag(k, k.memblock.memory, base, size, True, MEMBLOCK_MIRROR)


def memblock_mark_nomap(k: Kernel, base: int, size: int) -> None:
    """Keep memory out of the linear map. Source: mm/memblock.c memblock_mark_nomap() [all]"""
    memblock_setclr_flag(k, k.memblock.memory, base, size, True, MEMBLOCK_NOMAP)


def memblock_clear_nomap(k: Kernel, base: int, size: int) -> None:
    """
    Undo `memblock_mark_nomap()`. v4.9 does not have it.

    Raises:
        ModelDefectError: the tree does not have it.

    Source: mm/memblock.c memblock_clear_nomap() [v6.1, v6.12, arm64-rfc-2016]
    """
    if not k.tree.memblock_clear_nomap:
        raise ModelDefectError(f"{k.tree.name} has no memblock_clear_nomap()")
    memblock_setclr_flag(k, k.memblock.memory, base, size, False, MEMBLOCK_NOMAP)


def memblock_reserved_mark_noinit(k: Kernel, base: int, size: int) -> None:
    """
    Leave the struct pages of reserved memory alone.

    Raises:
        ModelDefectError: the tree does not have it.

    Source: mm/memblock.c memblock_reserved_mark_noinit() [v6.12]
    """
    if not k.tree.memblock_rsrv_noinit:
        raise ModelDefectError(f"{k.tree.name} has no memblock_reserved_mark_noinit()")
    memblock_setclr_flag(k, k.memblock.reserved, base, size, True, MEMBLOCK_RSRV_NOINIT)


# Walks. Each yields from the arrays as they stand; the ends of ranges are exclusive, but for reserved regions, as in C.


def for_each_reserved_mem_region(k: Kernel) -> Iterator[tuple[int, int]]:
    """Yield (first byte, last byte). Source: mm/memblock.c __next_reserved_mem_region() [v4.9]"""
    for r in _shown(k, k.memblock.reserved):
        yield r.base, r.base + r.size - 1 & ULLONG_MAX


def _should_skip_region(k: Kernel, type: MemblockType, m: MemblockRegion, nid: int, flags: int) -> bool:
    """
    Say whether a walk passes over a region. Later trees never pass over what is reserved.

    Source: mm/memblock.c should_skip_region() [v6.1, v6.12]; in v4.9 the tests at the head of __next_mem_range()
    """
    if k.tree.memblock_reserved_never_skipped and type.name != "memory":
        return False
    if k.tree.memblock_any_invalid_node:
        if _numa_valid_node(nid) and nid != m.nid:
            return True
    elif nid not in (NUMA_NO_NODE, m.nid):
        return True
    if not m.flags and not flags & MEMBLOCK_MIRROR:      # nothing below can be true
        return False
    if _movable_node_is_enabled(k) and memblock_is_hotpluggable(m):
        if not (k.tree.memblock_walks_hotplug and flags & MEMBLOCK_HOTPLUG):
            return True
    if flags & MEMBLOCK_MIRROR and not memblock_is_mirror(m):
        return True
    if not flags & MEMBLOCK_NOMAP and memblock_is_nomap(m):
        return True
    return not flags & MEMBLOCK_DRIVER_MANAGED and memblock_is_driver_managed(m)


def _any_node(k: Kernel, place: str, nid: int) -> int:
    """Return `nid`, with one complaint for each place that is given MAX_NUMNODES. Source: none; WARN_ONCE() in `place`"""
    if nid != MAX_NUMNODES or k.tree.memblock_any_invalid_node:
        return nid
    _warn_once(k, place, "Usage of MAX_NUMNODES is deprecated. Use NUMA_NO_NODE instead")
    return NUMA_NO_NODE


def __for_each_mem_range(
    k: Kernel, type_a: MemblockType, type_b: MemblockType | None, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE,
) -> Iterator[tuple[int, int, int]]:
    """
    Yield (start, end, node) of what is in `type_a` and not in `type_b`, lowest first.

    HOTPLUG memory is passed over under movable_node, NOMAP and DRIVER_MANAGED memory unless `flags` ask for it; MEMBLOCK_MIRROR
    in `flags` passes over memory that is not mirrored.

    Source: mm/memblock.c __next_mem_range() [all]
    """
    nid = _any_node(k, "__next_mem_range()", nid)
    holes = [] if type_b is None else type_b.regions
    idx_b = 0
    for m in _shown(k, type_a):
        if _should_skip_region(k, type_a, m, nid, flags):
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


def __for_each_mem_range_rev(
    k: Kernel, type_a: MemblockType, type_b: MemblockType | None, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE,
) -> Iterator[tuple[int, int, int]]:
    """As `__for_each_mem_range()`, highest first. Source: mm/memblock.c __next_mem_range_rev() [all]"""
    nid = _any_node(k, "__next_mem_range_rev()", nid)
    holes = [] if type_b is None else type_b.regions
    idx_b = len(holes)
    for m in reversed(_shown(k, type_a)):
        if _should_skip_region(k, type_a, m, nid, flags):
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


_ALL_MEMORY = MEMBLOCK_HOTPLUG | MEMBLOCK_DRIVER_MANAGED


def for_each_mem_range(
    k: Kernel, type_a: MemblockType | None = None, type_b: MemblockType | None = None, nid: int = NUMA_NO_NODE,
    flags: int = _ALL_MEMORY,
) -> Iterator[tuple[int, int, int]]:
    """
    Yield (start, end, node) of all memory that is not NOMAP. In v4.9 the types, the node and the flags are the caller's to say.

    Source: include/linux/memblock.h for_each_mem_range() [all]
    """
    return __for_each_mem_range(k, type_a or k.memblock.memory, type_b, nid, flags)


def for_each_mem_range_rev(
    k: Kernel, type_a: MemblockType | None = None, type_b: MemblockType | None = None, nid: int = NUMA_NO_NODE,
    flags: int = _ALL_MEMORY,
) -> Iterator[tuple[int, int, int]]:
    """As above, highest first. Source: include/linux/memblock.h for_each_mem_range_rev() [all]"""
    return __for_each_mem_range_rev(k, type_a or k.memblock.memory, type_b, nid, flags)


def for_each_reserved_mem_range(k: Kernel) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, node) of reservations. Source: include/linux/memblock.h for_each_reserved_mem_range() [v6.1, v6.12]"""
    return __for_each_mem_range(k, k.memblock.reserved, None)


def for_each_free_mem_range(k: Kernel, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE) -> Iterator[tuple[int, int, int]]:
    """Yield memory that is not reserved, lowest first. Source: include/linux/memblock.h for_each_free_mem_range() [all]"""
    return __for_each_mem_range(k, k.memblock.memory, k.memblock.reserved, nid, flags)


def for_each_free_mem_range_reverse(
    k: Kernel, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE,
) -> Iterator[tuple[int, int, int]]:
    """As above, highest first. Source: include/linux/memblock.h for_each_free_mem_range_reverse() [all]"""
    return __for_each_mem_range_rev(k, k.memblock.memory, k.memblock.reserved, nid, flags)


def for_each_mem_region(k: Kernel) -> Iterator[MemblockRegion]:
    """Yield the regions of memory themselves. Source: include/linux/memblock.h for_each_mem_region() [v6.1, v6.12]"""
    return iter(_shown(k, k.memblock.memory))


def for_each_mem_pfn_range(k: Kernel, nid: int = MAX_NUMNODES) -> Iterator[tuple[int, int, int]]:
    """
    Yield (start_pfn, end_pfn, node) of whole pages of memory, NOMAP or not; `nid` MAX_NUMNODES means every node.

    Source: mm/memblock.c __next_mem_pfn_range() [all]
    """
    if k.tree.memblock_any_invalid_node and not _numa_valid_node(nid):
        nid = MAX_NUMNODES
    shift, up = k.PAGE_SHIFT, k.PAGE_SIZE - 1
    for r in k.memblock.memory.regions:
        start_pfn, end_pfn = (r.base + up & ULLONG_MAX) >> shift, (r.base + r.size) >> shift
        if start_pfn < end_pfn and nid in (MAX_NUMNODES, r.nid):
            yield start_pfn, end_pfn, r.nid


def for_each_free_mem_pfn_range_in_zone(k: Kernel, zone: Zone) -> Iterator[tuple[int, int]]:
    """
    Yield (start_pfn, end_pfn) of whole free pages of a zone's node that lie in the zone.

    Source: mm/memblock.c __next_mem_pfn_range_in_zone() [v6.1, v6.12]
    """
    zone_end_pfn = mmzone.zone_end_pfn(zone)
    for spa, epa, _ in for_each_free_mem_range(k, zone.nid):
        spfn, epfn = (spa + k.PAGE_SIZE - 1 & ULLONG_MAX) >> k.PAGE_SHIFT, epa >> k.PAGE_SHIFT
        if zone.zone_start_pfn < epfn and spfn < epfn:
            if zone_end_pfn <= spfn:
                return
            yield max(zone.zone_start_pfn, spfn), min(zone_end_pfn, epfn)


def memblock_set_node(k: Kernel, base: int, size: int, type: MemblockType, nid: int) -> None:
    """
    Say which node the regions in [base, base + size) belong to, where regions have nodes.

    Raises:
        KernelError: ENOMEM, from `memblock_isolate_range()`.

    Source: mm/memblock.c memblock_set_node() [all]
    """
    if not _have_node_map(k):
        return
    type = _editable(k, type)
    start_rgn, end_rgn = memblock_isolate_range(k, type, base, size)
    for region in type.regions[start_rgn:end_rgn]:
        region.nid = nid
    memblock_merge_regions(k, type, start_rgn, end_rgn)


# Allocation in early boot. An address stands for the pointer; 0 is NULL.


def _panic(k: Kernel, message: str) -> NoReturn:
    """panic(). Source: none; kernel/panic.c"""
    line = f"Kernel panic - not syncing: {message}"
    bug.printk(k.log, line)
    raise KernelBugError(message, [line])


def _reserved(k: Kernel, found: int, size: int) -> bool:
    """Reserve what was found; False if that failed or nothing was. Source: none; the conditions `found && !memblock_reserve()`"""
    if not found:
        return False
    try:
        memblock_reserve(k, found, size)
    except KernelError as err:
        if err.errno != ENOMEM:
            raise
        return False
    return True


def memblock_alloc_range_nid(k: Kernel, size: int, align: int, start: int, end: int, nid: int, how: int) -> int:
    """
    Find and reserve; 0 if there is no place.

    Args:
        k: The kernel.
        size, align, start, end, nid: As for `memblock_find_in_range_node()`.
        how: In v4.9 the flags. Later whether the node is exact: if not, any node will do after `nid`; flags are chosen here, and
            mirroring is given up last.

    Raises:
        ModelDefectError: it is too late, slab works already; C warns and calls kzalloc_node().

    Source: mm/memblock.c memblock_alloc_range_nid() [all]
    """
    if k.tree.memblock_phys_alloc_checks_slab and bug.WARN_ON_ONCE(k.log, k.slab_is_available):
        raise ModelDefectError("memblock_alloc_range_nid() after slab became available")
    if k.tree.memblock_exact_nid:
        return _memblock_alloc_range_nid_v5_5(k, size, align, start, end, nid, bool(how))
    return _memblock_alloc_range_nid_v4_9(k, size, align, start, end, nid, how)


def _memblock_alloc_range_nid_v4_9(k: Kernel, size: int, align: int, start: int, end: int, nid: int, flags: int) -> int:
    """Source: mm/memblock.c memblock_alloc_range_nid() [v4.9]"""
    found = memblock_find_in_range_node(k, size, align or _smp_cache_bytes(k), start, end, nid, flags)
    return found if _reserved(k, found, size) else 0


def _memblock_alloc_range_nid_v5_5(k: Kernel, size: int, align: int, start: int, end: int, nid: int, exact_nid: bool) -> int:
    """Source: mm/memblock.c memblock_alloc_range_nid() [v6.1, v6.12]"""
    flags = choose_memblock_flags(k)
    nid = _any_node(k, "memblock_alloc_range_nid()", nid)
    if not align:
        bug.printk(k.log, "Call Trace:")      # dump_stack(): too early for WARN_ON() on powerpc
        align = _smp_cache_bytes(k)
    no_node = not _numa_valid_node(nid) if k.tree.memblock_any_invalid_node else nid == NUMA_NO_NODE
    while True:
        found = memblock_find_in_range_node(k, size, align, start, end, nid, flags)
        if _reserved(k, found, size):
            return found
        if not no_node and not exact_nid:
            found = memblock_find_in_range_node(k, size, align, start, end, NUMA_NO_NODE, flags)
            if _reserved(k, found, size):
                return found
        if not flags & MEMBLOCK_MIRROR:
            return 0
        flags &= ~MEMBLOCK_MIRROR
        bug.printk(k.log, f"Could not allocate {size:#018x} bytes of mirrored memory")


def memblock_phys_alloc_range(k: Kernel, size: int, align: int, start: int, end: int) -> int:
    """Source: mm/memblock.c memblock_phys_alloc_range() [v6.1, v6.12]"""
    return memblock_alloc_range_nid(k, size, align, start, end, NUMA_NO_NODE, False)


def memblock_phys_alloc(k: Kernel, size: int, align: int) -> int:
    """Source: include/linux/memblock.h memblock_phys_alloc() [v6.1, v6.12]"""
    return memblock_phys_alloc_range(k, size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE)


def memblock_phys_alloc_try_nid(k: Kernel, size: int, align: int, nid: int) -> int:
    """Source: mm/memblock.c memblock_phys_alloc_try_nid() [v6.1, v6.12]"""
    return memblock_alloc_range_nid(k, size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid, False)


def memblock_alloc_internal(k: Kernel, size: int, align: int, min_addr: int, max_addr: int, nid: int, exact_nid: bool) -> int:
    """
    Allocate, giving up the lower limit last; 0 if nothing helps. Never above memblock's current limit.

    Raises:
        ModelDefectError: it is too late, slab works already; C warns and calls kzalloc_node().

    Source: mm/memblock.c memblock_alloc_internal() [v6.1, v6.12]
    """
    if not k.tree.memblock_phys_alloc_checks_slab and bug.WARN_ON_ONCE(k.log, k.slab_is_available):
        raise ModelDefectError("memblock_alloc_internal() after slab became available")
    max_addr = min(max_addr, k.memblock.current_limit)
    alloc = memblock_alloc_range_nid(k, size, align, min_addr, max_addr, nid, exact_nid)
    if not alloc and min_addr:
        alloc = memblock_alloc_range_nid(k, size, align, 0, max_addr, nid, exact_nid)
    return alloc


def memblock_alloc_exact_nid_raw(k: Kernel, size: int, align: int, min_addr: int, max_addr: int, nid: int) -> int:
    """Allocate from that node or not at all. Source: mm/memblock.c memblock_alloc_exact_nid_raw() [v6.1, v6.12]"""
    return memblock_alloc_internal(k, size, align, min_addr, max_addr, nid, True)


def memblock_alloc_try_nid_raw(k: Kernel, size: int, align: int, min_addr: int, max_addr: int, nid: int) -> int:
    """Allocate, from that node if it can be. Source: mm/memblock.c memblock_alloc_try_nid_raw() [v6.1, v6.12]"""
    return memblock_alloc_internal(k, size, align, min_addr, max_addr, nid, False)


def memblock_alloc_raw(k: Kernel, size: int, align: int) -> int:
    """Source: include/linux/memblock.h memblock_alloc_raw() [v6.1, v6.12]"""
    return memblock_alloc_try_nid_raw(k, size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE)


def memblock_alloc_from(k: Kernel, size: int, align: int, min_addr: int) -> int:
    """Source: include/linux/memblock.h memblock_alloc_from() [v6.1, v6.12]"""
    return memblock_alloc_try_nid(k, size, align, min_addr, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE)


def memblock_alloc_low(k: Kernel, size: int, align: int) -> int:
    """Allocate below 4 GiB. Source: include/linux/memblock.h memblock_alloc_low() [v6.1, v6.12]"""
    return memblock_alloc_try_nid(k, size, align, 0, ARCH_LOW_ADDRESS_LIMIT, NUMA_NO_NODE)


def memblock_alloc_node(k: Kernel, size: int, align: int, nid: int) -> int:
    """Source: include/linux/memblock.h memblock_alloc_node() [v6.1, v6.12]"""
    return memblock_alloc_try_nid(k, size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid)


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
    """Allocate anywhere; v4.9 panics where it cannot. Source: mm/memblock.c memblock_alloc() [v4.9]; later in memblock.h"""
    if k.tree.memblock_exact_nid:
        return memblock_alloc_try_nid(k, size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE)
    return memblock_alloc_base(k, size, align, MEMBLOCK_ALLOC_ACCESSIBLE)


def memblock_alloc_try_nid(k: Kernel, size: int, align: int, *where: int) -> int:
    """
    Allocate, from that node if it can be; v4.9 panics where it cannot.

    Args:
        k: The kernel.
        size: Bytes.
        align: A power of two.
        where: In v4.9 the node; later lower limit, upper limit and node.

    Source: mm/memblock.c memblock_alloc_try_nid() [all]
    """
    if k.tree.memblock_exact_nid:
        min_addr, max_addr, nid = where
        return memblock_alloc_internal(k, size, align, min_addr, max_addr, nid, False)
    (nid,) = where
    return memblock_alloc_nid(k, size, align, nid) or memblock_alloc_base(k, size, align, MEMBLOCK_ALLOC_ACCESSIBLE)


def memblock_virt_alloc_internal(k: Kernel, size: int, align: int, min_addr: int, max_addr: int, nid: int) -> int:
    """
    Allocate, giving up first the node, then the lower limit, then mirroring; 0 if nothing helps.

    Raises:
        ModelDefectError: it is too late, slab works already; C warns and calls kzalloc_node().

    Source: mm/memblock.c memblock_virt_alloc_internal() [v4.9]
    """
    flags = choose_memblock_flags(k)
    nid = _any_node(k, "memblock_virt_alloc_internal()", nid)
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
    """Source: mm/memblock.c memblock_phys_mem_size() [all]"""
    return k.memblock.memory.total_size


def memblock_reserved_size(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_reserved_size() [all]"""
    return k.memblock.reserved.total_size


def memblock_estimated_nr_free_pages(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_estimated_nr_free_pages() [v6.12]"""
    return (memblock_phys_mem_size(k) - memblock_reserved_size(k) & ULLONG_MAX) >> k.PAGE_SHIFT


def memblock_start_of_DRAM(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_start_of_DRAM() [all]"""
    regions = k.memblock.memory.regions
    return regions[0].base if regions else 0


def memblock_end_of_DRAM(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_end_of_DRAM() [all]"""
    regions = k.memblock.memory.regions
    return regions[-1].base + regions[-1].size if regions else 0


def __find_max_addr(k: Kernel, limit: int) -> int:
    """
    Return the address below which `limit` bytes of memory lie, or ULLONG_MAX if there are not so many.

    Source: mm/memblock.c __find_max_addr() [all]
    """
    for r in k.memblock.memory.regions:
        if limit <= r.size:
            return r.base + limit
        limit -= r.size
    return ULLONG_MAX


def memblock_enforce_memory_limit(k: Kernel, limit: int) -> None:
    """Forget all memory but the lowest `limit` bytes. Source: mm/memblock.c memblock_enforce_memory_limit() [all]"""
    if not limit:
        return
    max_addr = __find_max_addr(k, limit)
    if max_addr == ULLONG_MAX:
        return
    _ignoring_enomem(memblock_remove_range, k, k.memblock.memory, max_addr, ULLONG_MAX)
    _ignoring_enomem(memblock_remove_range, k, k.memblock.reserved, max_addr, ULLONG_MAX)


def memblock_cap_memory_range(k: Kernel, base: int, size: int) -> None:
    """
    Forget all memory and all reservations outside [base, base + size); NOMAP memory stays, cut in two where it crosses an end.

    Raises:
        ModelDefectError: the tree does not have it.

    Source: mm/memblock.c memblock_cap_memory_range() [v6.1, v6.12]
    """
    if not k.tree.memblock_cap_memory_range:
        raise ModelDefectError(f"{k.tree.name} has no memblock_cap_memory_range()")
    if not size:
        return
    if not k.memblock.memory.total_size:
        bug.printk(k.log, "memblock_cap_memory_range: No memory registered yet")
        return
    type = k.memblock_rw().memory
    try:
        start_rgn, end_rgn = memblock_isolate_range(k, type, base, size)
    except KernelError as err:
        if err.errno != ENOMEM:
            raise
        return
    cnt = len(_shown(k, type))
    for i in (*range(cnt - 1, end_rgn - 1, -1), *range(start_rgn - 1, -1, -1)):
        if not (type.regions and memblock_is_nomap(type.regions[i])):
            memblock_remove_region(k, type, i)
    type.minimal = False
    _ignoring_enomem(memblock_remove_range, k, k.memblock.reserved, 0, base)
    _ignoring_enomem(memblock_remove_range, k, k.memblock.reserved, base + size & ULLONG_MAX, ULLONG_MAX)


def memblock_mem_limit_remove_map(k: Kernel, limit: int) -> None:
    """
    As `memblock_enforce_memory_limit()`, but NOMAP memory stays, cut in two where it crosses the limit.

    Source: mm/memblock.c memblock_mem_limit_remove_map() [all]
    """
    if not limit:
        return
    max_addr = __find_max_addr(k, limit)
    if max_addr == ULLONG_MAX:
        return
    if k.tree.memblock_cap_memory_range:
        memblock_cap_memory_range(k, 0, max_addr)
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
    _ignoring_enomem(memblock_remove_range, k, k.memblock.reserved, max_addr, ULLONG_MAX)


def memblock_search(k: Kernel, type: MemblockType, addr: int) -> int:
    """Return the index of the region that contains `addr`, or -1. Source: mm/memblock.c memblock_search() [all]"""
    regions = type.regions
    idx = bisect_right(regions, addr, key=_BASE) - 1
    if idx >= 0:
        region = regions[idx]
        if addr < region.base + region.size:
            return idx
    return -1


def memblock_is_reserved(k: Kernel, addr: int) -> bool:
    """Source: mm/memblock.c memblock_is_reserved() [all]"""
    return memblock_search(k, k.memblock.reserved, addr) != -1


def memblock_is_memory(k: Kernel, addr: int) -> bool:
    """Source: mm/memblock.c memblock_is_memory() [all]"""
    return memblock_search(k, k.memblock.memory, addr) != -1


def memblock_is_map_memory(k: Kernel, addr: int) -> bool:
    """Say whether `addr` is memory and not NOMAP. Source: mm/memblock.c memblock_is_map_memory() [all]"""
    memory = k.memblock.memory
    i = memblock_search(k, memory, addr)
    return i != -1 and not memory.regions[i].flags & MEMBLOCK_NOMAP


def memblock_search_pfn_nid(k: Kernel, pfn: int) -> tuple[int, int, int] | None:
    """
    Return (node, start_pfn, end_pfn) of the memory that contains a pfn, both ends rounded down; None (-1 in C) if none does.

    Source: mm/memblock.c memblock_search_pfn_nid() [all]
    """
    regions = k.memblock.memory.regions
    mid = memblock_search(k, k.memblock.memory, pfn << k.PAGE_SHIFT & ULLONG_MAX)
    if mid == -1:
        return None
    region = regions[mid]
    return region.nid, region.base >> k.PAGE_SHIFT, (region.base + region.size) >> k.PAGE_SHIFT


def memblock_is_region_memory(k: Kernel, base: int, size: int) -> bool:
    """Say whether one region contains all of it. Source: mm/memblock.c memblock_is_region_memory() [all]"""
    regions = k.memblock.memory.regions
    idx = memblock_search(k, k.memblock.memory, base)
    end = base + memblock_cap_size(base, size)
    return idx != -1 and regions[idx].base + regions[idx].size >= end


def memblock_is_region_reserved(k: Kernel, base: int, size: int) -> bool:
    """Say whether any byte of it is reserved. Source: mm/memblock.c memblock_is_region_reserved() [all]"""
    return memblock_overlaps_region(k, k.memblock.reserved, base, memblock_cap_size(base, size))


def memblock_trim_memory(k: Kernel, align: int) -> None:
    """
    Round memory inwards to `align`, a power of two. The total is not adjusted for what is cut off.

    Source: mm/memblock.c memblock_trim_memory() [all]
    """
    type = k.memblock_rw().memory
    i = 0
    while i < len(type.regions):
        r = type.regions[i]
        start = (r.base + align - 1) & -align & ULLONG_MAX
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
    """Source: include/linux/memblock.h memblock_set_bottom_up() [all]"""
    if k.config.MOVABLE_NODE or not k.tree.config_movable_node:
        k.memblock_rw().bottom_up = enable


def memblock_bottom_up(k: Kernel) -> bool:
    """Source: include/linux/memblock.h memblock_bottom_up() [all]"""
    return k.memblock.bottom_up


def memblock_get_current_limit(k: Kernel) -> int:
    """Source: mm/memblock.c memblock_get_current_limit() [all]"""
    return k.memblock.current_limit


def memblock_set_current_limit(k: Kernel, limit: int) -> None:
    """Source: mm/memblock.c memblock_set_current_limit() [all]"""
    k.memblock_rw().current_limit = limit


def memblock_allow_resize(k: Kernel) -> None:
    """From now on the arrays may grow. Source: mm/memblock.c memblock_allow_resize() [all]"""
    k.memblock_rw().can_resize = True


# The end of early boot. What the page allocator does with a range is its own business, and is handed in.


def reset_all_zones_managed_pages(k: Kernel) -> None:
    """Source: mm/memblock.c reset_all_zones_managed_pages() [v6.1, v6.12]"""
    for pgdat in k.nodes.values():
        for zone in pgdat.node_zones:
            zone.managed_pages = 0


def _early_pfn_to_nid(k: Kernel, pfn: int) -> int:
    """early_pfn_to_nid(). Source: none; mm/mm_init.c __early_pfn_to_nid() [v6.12]"""
    found = memblock_search_pfn_nid(k, pfn)
    return found[0] if found and _numa_valid_node(found[0]) else min(k.nodes, default=0)


def memmap_init_reserved_pages(k: Kernel, reserve_bootmem_region: ReserveRegion) -> None:
    """
    Have the struct pages of reserved and of NOMAP memory reserved; `reserve_bootmem_region(k, start, end, nid)` does it.

    Older trees pass no node (NUMA_NO_NODE here). Today reserved regions first get the node of the memory they lie in, which can
    split them and even double their array; then once more from the start, for the new array is a reservation, too. Reservations
    marked RSRV_NOINIT are left out.

    Source: mm/memblock.c memmap_init_reserved_pages() [v6.1, v6.12]
    """
    if not k.tree.memblock_reserved_get_nodes:
        for start, end, _ in for_each_reserved_mem_range(k):
            reserve_bootmem_region(k, start, end, NUMA_NO_NODE)
        for region in for_each_mem_region(k):
            if memblock_is_nomap(region):
                reserve_bootmem_region(k, region.base, region.base + region.size, NUMA_NO_NODE)
        return

    max_reserved = 0
    while max_reserved != k.memblock.reserved.max:
        max_reserved = k.memblock.reserved.max
        for region in for_each_mem_region(k):
            start, end = region.base, region.base + region.size
            if memblock_is_nomap(region):
                reserve_bootmem_region(k, start, end, region.nid)
            _ignoring_enomem(memblock_set_node, k, start, region.size, k.memblock.reserved, region.nid)
    for region in _shown(k, k.memblock.reserved):
        if not memblock_is_reserved_noinit(region):
            nid = region.nid
            if not _numa_valid_node(nid):
                nid = _early_pfn_to_nid(k, region.base >> k.PAGE_SHIFT)
            reserve_bootmem_region(k, region.base, region.base + region.size, nid)


def __free_memory_core(k: Kernel, start: int, end: int, memblock_free_pages: FreePages) -> int:
    """Free the whole pages of [start, end) below max_low_pfn. Source: mm/memblock.c __free_memory_core() [v6.1, v6.12]"""
    start_pfn = (start + k.PAGE_SIZE - 1 & ULLONG_MAX) >> k.PAGE_SHIFT
    end_pfn = min(end >> k.PAGE_SHIFT, k.max_low_pfn)
    if start_pfn >= end_pfn:
        return 0
    memblock_free_pages(k, start_pfn, end_pfn)
    return end_pfn - start_pfn


def free_low_memory_core_early(
    k: Kernel, reserve_bootmem_region: ReserveRegion, memblock_free_pages: FreePages,
) -> int:
    """Source: mm/memblock.c free_low_memory_core_early() [v6.1, v6.12]"""
    _ignoring_enomem(memblock_clear_hotplug, k, 0, ULLONG_MAX)
    memmap_init_reserved_pages(k, reserve_bootmem_region)
    return sum(__free_memory_core(k, start, end, memblock_free_pages) for start, end, _ in for_each_free_mem_range(k))


def memblock_free_all(
    k: Kernel, reserve_bootmem_region: ReserveRegion, memblock_free_pages: FreePages,
) -> None:
    """
    Hand all free memory to the page allocator.

    Args:
        k: The kernel.
        reserve_bootmem_region: Called as (k, start, end, nid), in bytes.
        memblock_free_pages: Called as (k, start_pfn, end_pfn); C calls it for each block of pages, as large as alignment allows.

    Source: mm/memblock.c memblock_free_all() [v6.1, v6.12]
    """
    reset_all_zones_managed_pages(k)
    k.totalram_pages += free_low_memory_core_early(k, reserve_bootmem_region, memblock_free_pages)


def memblock_free_late(k: Kernel, base: int, size: int, memblock_free_pages: FreePages) -> None:
    """
    Free the whole pages of a range straight to the page allocator. Reservations are not looked at.

    Source: mm/memblock.c memblock_free_late() [v6.1, v6.12], __memblock_free_late() [v4.9]
    """
    start_pfn = (base + k.PAGE_SIZE - 1 & ULLONG_MAX) >> k.PAGE_SHIFT
    end_pfn = (base + size & ULLONG_MAX) >> k.PAGE_SHIFT
    if start_pfn < end_pfn:
        memblock_free_pages(k, start_pfn, end_pfn)
        k.totalram_pages += end_pfn - start_pfn


def memblock_discard(k: Kernel, memblock_free_pages: FreePages) -> None:
    """
    Free the arrays themselves, where the architecture keeps no memblock. Nobody may ask memblock anything afterwards.

    Source: mm/memblock.c memblock_discard() [v6.1, v6.12]
    """
    for type in (k.memblock.reserved, k.memblock.memory):
        addr, size = _allocated_array(k, type)
        if size and not type.in_slab:
            memblock_free_late(k, addr, size, memblock_free_pages)


# What people see.


def _shown(k: Kernel, type: MemblockType) -> list[MemblockRegion]:
    """Return the regions as C has them: in older trees an empty array holds a dummy of size 0. Source: none"""
    if type.regions or not k.tree.memblock_dummy_region:
        return type.regions
    return [MemblockRegion(0, 0, 0, type.empty_nid)]


def memblock_dump(k: Kernel, type: MemblockType, name: str) -> None:
    """Source: mm/memblock.c memblock_dump() [all]"""
    regions = _shown(k, type)
    padded = k.tree.memblock_prints_padded
    bug.printk(k.log, f" {name}.cnt  = {len(regions):#x}")
    for idx, rgn in enumerate(regions):
        if k.tree.memblock_any_invalid_node:
            has_node = _numa_valid_node(rgn.nid)
        else:
            has_node = rgn.nid != MAX_NUMNODES
        nid_buf = f" on node {rgn.nid}" if _have_node_map(k) and has_node else ""
        last = rgn.base + rgn.size - 1 & ULLONG_MAX
        if padded:
            where = f"[{rgn.base:#018x}-{last:#018x}], {rgn.size:#018x} bytes"
        else:
            where = f"[{rgn.base:#016x}-{last:#016x}], {rgn.size:#x} bytes"
        bug.printk(k.log, f" {name}[{idx:#x}]\t{where}{nid_buf} flags: {rgn.flags:#x}")


def __memblock_dump_all(k: Kernel) -> None:
    """Source: mm/memblock.c __memblock_dump_all() [all]"""
    memory, reserved = k.memblock.memory, k.memblock.reserved
    bug.printk(k.log, "MEMBLOCK configuration:")
    if k.tree.memblock_prints_padded:
        bug.printk(k.log, f" memory size = {memory.total_size:#018x} reserved size = {reserved.total_size:#018x}")
    else:
        bug.printk(k.log, f" memory size = {memory.total_size:#x} reserved size = {reserved.total_size:#x}")
    memblock_dump(k, memory, "memory")
    memblock_dump(k, reserved, "reserved")


def memblock_dump_all(k: Kernel) -> None:
    """Print both arrays if the command line says memblock=debug. Source: mm/memblock.c memblock_dump_all() [all]"""
    if _debug(k):
        __memblock_dump_all(k)


def memblock_debug_show(k: Kernel, type: MemblockType) -> str:
    """
    Return /sys/kernel/debug/memblock/{memory,reserved}. Today's lines end with node and flags.

    Source: mm/memblock.c memblock_debug_show() [all]
    """
    lines = []
    for i, reg in enumerate(_shown(k, type)):
        line = f"{i:4d}: 0x{reg.base:016x}..0x{reg.base + reg.size - 1 & ULLONG_MAX:016x}"
        if k.tree.memblock_debugfs_flags:
            nid = f"{reg.nid:4d}" if _numa_valid_node(reg.nid) else "   x"
            names = [FLAG_SHOWN.get(1 << bit, "UNKNOWN") for bit in range(reg.flags.bit_length()) if reg.flags >> bit & 1]
            line += f" {nid} {'|'.join(names) or 'NONE'}"
        lines.append(line + "\n")
    return "".join(lines)


# reserve_mem=: memory that keeps its contents over a reboot, by name.


def _memparse(text: str) -> tuple[int, str]:
    """Read a number with K, M, G, T, P or E behind it; return it and the rest. Source: none; lib/cmdline.c memparse()"""
    digits, base = ("0123456789abcdefABCDEF", 16) if text[:2] in ("0x", "0X") else ("0123456789", 10)
    if base == 10 and text[:1] == "0":
        digits, base = "01234567", 8
    at = 2 if base == 16 else 0
    start = at
    while at < len(text) and text[at] in digits:
        at += 1
    number = int(text[start:at], base) if at > start else 0
    unit = "KMGTPE".find(text[at:at + 1].upper()) if text[at:] else -1
    if unit >= 0:
        number <<= 10 * (unit + 1)
        at += 1
    return number & ULLONG_MAX, text[at:]


def reserve_mem_find_by_name(k: Kernel, name: str) -> tuple[int, int] | None:
    """Return (start, size) of what reserve_mem= keeps under a name. Source: mm/memblock.c reserve_mem_find_by_name() [v6.12]"""
    for known, start, size in k.memblock.reserved_mem_table:
        if size and known == name:
            return start, size
    return None


def reserve_mem(k: Kernel, p: str) -> int:
    """
    Reserve memory as `reserve_mem=SIZE:ALIGN:NAME` on the command line asks; 1, as such a handler returns.

    Raises:
        KernelError: EINVAL if the text is not of that form or the name too long; EBUSY if the name or all 8 places are taken;
            ENOMEM if there is no place for it.

    Source: mm/memblock.c reserve_mem() [v6.12]
    """
    table = k.memblock.reserved_mem_table
    if len(table) >= RESERVE_MEM_MAX_ENTRIES:
        raise KernelError(EBUSY, "all places for reserve_mem= are taken", text=p)
    size, rest = _memparse(p)
    if not size or rest[:1] != ":":
        raise KernelError(EINVAL, "reserve_mem= wants SIZE:ALIGN:NAME", text=p)
    align, rest = _memparse(rest[1:])
    if rest[:1] != ":":
        raise KernelError(EINVAL, "reserve_mem= wants SIZE:ALIGN:NAME", text=p)
    align = max(align, _smp_cache_bytes(k))
    name = rest[1:]
    if not name or len(name) >= RESERVE_MEM_NAME_SIZE or not name.strip(" \t\n\v\f\r"):
        raise KernelError(EINVAL, f"a name of reserve_mem= has 1 to {RESERVE_MEM_NAME_SIZE - 1} characters", text=p)
    if reserve_mem_find_by_name(k, name):
        raise KernelError(EBUSY, "reserve_mem= has that name already", name=name)
    start = memblock_phys_alloc(k, size, align)
    if not start:
        raise KernelError(ENOMEM, "no place for reserve_mem=", text=p)
    k.memblock_rw().reserved_mem_table = (*k.memblock.reserved_mem_table, (name, start, size))
    return 1


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
