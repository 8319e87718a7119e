# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: arch_add_memory(), which v4.9 does not have and the 2016 series brings; the virtual memmap.

Source: the series for arch_add_memory() and hotplug_paging(); arch/arm64/mm/mmu.c [v4.9] for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from memhp.errors import ConfigError, KernelError
from memhp.linux.arch.arm64.include import memory
from memhp.linux.arch.arm64.mm import pageattr
from memhp.linux.bug import BUG_ON, VM_BUG_ON, WARN_ON, printk
from memhp.linux.drivers.base import memory as base_memory
from memhp.linux.include import mmzone
from memhp.linux.include.gfp import GFP_KERNEL
from memhp.linux.include.io import NORMAL, UNCACHED, WRITECOMBINE, linear_mapped
from memhp.linux.include.memblock import MEMBLOCK_NOMAP
from memhp.linux.include.memory import MEM_GOING_OFFLINE, MEM_OFFLINE, MemoryNotify
from memhp.linux.include.memory_hotplug import MhpParams
from memhp.linux.include.memory_model import pfn_to_page
from memhp.linux.include.memremap import VmemAltmap
from memhp.linux.include.mmzone import Zone
from memhp.linux.include.notifier import NOTIFY_BAD, NOTIFY_DONE, NOTIFY_OK, NotifierBlock
from memhp.linux.include.page_flags import KIND_KERNEL_TABLE, SetPageReserved, set_page_kind
from memhp.linux.include.pgtable import BOOT, CONT, LEVEL, P4D, PMD, PTE, PUD, LinearMap
from memhp.linux.mm import memblock, memory_hotplug, page_alloc, sparse_vmemmap
from memhp.linux.series import arm64_rfc_2016
from memhp.linux.series.arm64_rfc_2016 import Symbols

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def _zone(k: Kernel, nid: int, start: int, size: int) -> Zone:
    """pgdat->node_zones + zone_for_memory(…, ZONE_NORMAL, …). Source: the series' arch_add_memory()"""
    return k.zone(nid, memory_hotplug.zone_for_memory(k, nid, start, size, k.ZONE_NORMAL, False))


SYMBOLS = Symbols(
    memblock_mark_nomap=memblock.memblock_mark_nomap,
    memblock_clear_nomap=memblock.memblock_clear_nomap,
    zone=_zone,
    add_pages=memory_hotplug.__add_pages,
    SetPageReserved=SetPageReserved,
    init_single_page=page_alloc.__init_single_page,
    set_pageblock_migratetype=page_alloc.set_pageblock_migratetype,
)
"""What the series links against."""


NO_BLOCK_MAPPINGS = 1 << 0
NO_CONT_MAPPINGS = 1 << 1
NO_EXEC_MAPPINGS = 1 << 2


def map_mem(k: Kernel) -> None:
    """
    Map all memory but NOMAP regions linearly.

    Source: arch/arm64/mm/mmu.c map_mem() [all]
    """
    if k.tree.arm64_linear_map_low:
        return _map_mem_v5_4(k)
    return _map_mem_v4_9(k)


def _map_mem_v4_9(k: Kernel) -> None:
    """Source: arch/arm64/mm/mmu.c map_mem() [v4.9]"""
    k.linear = LinearMap(memory.pgtable_shifts(k), -memory.PHYS_OFFSET(k), k.token)
    for r in k.memblock.memory.regions:
        if not r.flags & MEMBLOCK_NOMAP:
            __map_memblock(k, r.base, r.base + r.size, NO_CONT_MAPPINGS)


def _map_mem_v5_4(k: Kernel) -> None:
    """
    Map memory with pages, or with blocks where single pages need not be protected; the kernel's image without contiguous ones.

    KFENCE's pool, where it is made this early, would be mapped with pages; where it lies is not known here.

    Source: arch/arm64/mm/mmu.c map_mem() [v5.10, v6.1, v6.12]
    """
    k.linear = LinearMap(memory.pgtable_shifts(k), -memory.PHYS_OFFSET(k), k.token)
    flags = _mapping_flags(k)
    mask = k.PAGE_SIZE - 1
    code = next((part for part in k.hardware.ram_children if part.name == "Kernel code"), None)
    kernel_start, kernel_end = (code.start & ~mask, code.end + 1 + mask & ~mask) if code is not None else (0, 0)
    for r in k.memblock.memory.regions:
        if r.flags & MEMBLOCK_NOMAP:
            continue
        start, end = r.base + mask & ~mask, r.base + r.size & ~mask
        for low, high in ((start, min(end, kernel_start)), (max(start, kernel_end), end)):
            if low < high:
                __map_memblock(k, low, high, flags)
    if kernel_start < kernel_end:
        __map_memblock(k, kernel_start, kernel_end, NO_CONT_MAPPINGS)


def _mapping_flags(k: Kernel) -> int:
    """How the linear map is made. Source: none; map_mem() and arch_add_memory()"""
    pages = pageattr.can_set_direct_map(k) if k.tree.arm64_kfence_wants_pages else pageattr.rodata_full(k)
    return NO_EXEC_MAPPINGS | (NO_BLOCK_MAPPINGS | NO_CONT_MAPPINGS if pages else 0)


def __map_memblock(k: Kernel, start: int, end: int, flags: int) -> None:
    """Source: arch/arm64/mm/mmu.c __map_memblock()"""
    __create_pgd_mapping(k, start, memory.__phys_to_virt(k, start), end - start, early_pgtable_alloc, flags)


PgtableAlloc = Callable[["Kernel", int], list[tuple[int, int]]]
"""(k, how many) -> runs [start, end) of pages for tables, in the order in which they are to be used."""


def early_pgtable_alloc(k: Kernel, count: int) -> list[tuple[int, int]]:
    """Tables of boot memory come from memblock and stay for good. Source: arch/arm64/mm/mmu.c early_pgtable_alloc()"""
    return [(BOOT, BOOT + count)]


def __pgd_pgtable_alloc(k: Kernel, count: int) -> list[tuple[int, int]]:
    """
    Allocate tables, one page each. In v4.9, which takes nothing back, they are not counted.

    Raises:
        KernelBugError: there is no page left, and nothing is prepared for that.

    Source: arch/arm64/mm/mmu.c __pgd_pgtable_alloc(), which is called for each
    """
    if not k.tree.arm64_hot_remove:
        return early_pgtable_alloc(k, count)
    runs = page_alloc._alloc_base_pages(k, GFP_KERNEL, min(k.nodes), count)
    BUG_ON(k.log, sum(end - start for start, end in runs) < count, "no page for a table of the linear map")
    for start, end in runs:
        set_page_kind(k, start, end - start, KIND_KERNEL_TABLE)
    return runs


def __create_pgd_mapping(k: Kernel, phys: int, virt: int, size: int, pgtable_alloc: PgtableAlloc, flags: int) -> None:
    """
    Map physical [phys, phys + size) at linear address `virt`, with leaves as large as alignment and `flags` allow.

    A table is allocated where there is none, the upper ones first.

    Raises:
        KernelBugError: a table cannot be had; or something else is mapped there.

    Source: arch/arm64/mm/mmu.c __create_pgd_mapping(), __create_pgd_mapping_locked() [all]
    """
    linear = k.linear_rw()
    addr = virt - memory.linear_start(k)
    end = addr + size
    top = 1 << linear.shifts[-1]
    while addr < end:
        stop = min(end, addr - addr % top + top)
        if k.tree.has_p4d:
            alloc_init_p4d(k, linear, addr, stop, pgtable_alloc, flags)
        else:
            alloc_init_pud(k, linear, addr, stop, pgtable_alloc, flags)
        addr = stop


def alloc_init_p4d(k: Kernel, linear: LinearMap, addr: int, end: int, pgtable_alloc: PgtableAlloc, flags: int) -> None:
    """
    Map [addr, end), inside what one entry of the top table covers, through PUD tables.

    Source: arch/arm64/mm/mmu.c alloc_init_p4d() [v5.7]
    """
    if len(linear.shifts) <= P4D + 1:
        return alloc_init_pud(k, linear, addr, end, pgtable_alloc, flags)
    _tables(k, linear, P4D, addr, end, pgtable_alloc)
    size = 1 << linear.shifts[P4D]
    while addr < end:
        stop = min(end, addr - addr % size + size)
        alloc_init_pud(k, linear, addr, stop, pgtable_alloc, flags)
        addr = stop


def _tables(k: Kernel, linear: LinearMap, level: int, addr: int, end: int, pgtable_alloc: PgtableAlloc) -> None:
    """Make sure that the tables of a level's entries for [addr, end) are there. Source: none; pud_none(), pmd_none()"""
    shift = linear.shifts[level + 1]
    for first, last in linear.tables[level].gaps(addr >> shift, (end - 1 >> shift) + 1):
        number = first
        for start, stop in pgtable_alloc(k, last - first):
            linear.tables[level].add(number, number + stop - start, start)
            number += stop - start


def alloc_init_pud(k: Kernel, linear: LinearMap, addr: int, end: int, pgtable_alloc: PgtableAlloc, flags: int) -> None:
    """
    Map [addr, end) with PUD blocks where that can be, 4K pages only, else through PMD tables.

    Source: arch/arm64/mm/mmu.c alloc_init_pud() [all]
    """
    if len(linear.shifts) <= PUD + 1:
        return alloc_init_cont_pmd(k, linear, addr, end, pgtable_alloc, flags)
    _tables(k, linear, PUD, addr, end, pgtable_alloc)
    size = 1 << linear.shifts[PUD]
    while addr < end:
        stop = min(end, addr - addr % size + size)
        if k.PAGE_SHIFT == 12 and not (addr | stop) % size and not flags & NO_BLOCK_MAPPINGS:
            _set_leaves(k, linear, addr, stop, PUD)
        else:
            alloc_init_cont_pmd(k, linear, addr, stop, pgtable_alloc, flags)
        addr = stop


def alloc_init_cont_pmd(k: Kernel, linear: LinearMap, addr: int, end: int, pgtable_alloc: PgtableAlloc, flags: int) -> None:
    """
    Map [addr, end) with PMD blocks, contiguous ones where that can be, the rest with pages.

    Source: arch/arm64/mm/mmu.c alloc_init_cont_pmd(), init_pmd() [v5.4]
    """
    BUG_ON(k.log, any(kind & LEVEL == PUD for _, _, kind in linear.leaves.within(addr, end)), "a PUD block is mapped there")
    _tables(k, linear, PMD, addr, end, pgtable_alloc)
    size = 1 << linear.shifts[PMD]
    first, last = -(-addr // size) * size, end // size * size
    if flags & NO_BLOCK_MAPPINGS or first >= last:
        return alloc_init_cont_pte(k, linear, addr, end, pgtable_alloc, flags)
    if addr < first:
        alloc_init_cont_pte(k, linear, addr, first, pgtable_alloc, flags)
    _set_groups(k, linear, first, last, PMD, CONT_PMD_SHIFT(k), flags)
    if last < end:
        alloc_init_cont_pte(k, linear, last, end, pgtable_alloc, flags)


def alloc_init_cont_pte(k: Kernel, linear: LinearMap, addr: int, end: int, pgtable_alloc: PgtableAlloc, flags: int) -> None:
    """
    Map [addr, end) with pages, contiguous ones where that can be.

    Source: arch/arm64/mm/mmu.c alloc_init_cont_pte(), init_pte() [v5.4]
    """
    BUG_ON(k.log, any(kind & LEVEL == PMD for _, _, kind in linear.leaves.within(addr, end)), "a PMD block is mapped there")
    _tables(k, linear, PTE, addr, end, pgtable_alloc)
    _set_groups(k, linear, addr, end, PTE, CONT_PTE_SHIFT(k), flags)


def CONT_PTE_SHIFT(k: Kernel) -> int:
    """Return log2 of the bytes of a group of contiguous PTEs. Source: none; arch/arm64/Kconfig ARM64_CONT_PTE_SHIFT"""
    return k.PAGE_SHIFT + {12: 4, 14: 7, 16: 5}[k.PAGE_SHIFT]


def CONT_PMD_SHIFT(k: Kernel) -> int:
    """Return log2 of the bytes of a group of contiguous PMDs. Source: none; arch/arm64/Kconfig ARM64_CONT_PMD_SHIFT"""
    return 2 * k.PAGE_SHIFT - 3 + {12: 4, 14: 5, 16: 5}[k.PAGE_SHIFT]


def _set_groups(k: Kernel, linear: LinearMap, addr: int, end: int, level: int, shift: int, flags: int) -> None:
    """Enter leaves of one level, marked contiguous where whole groups of 2^shift bytes lie in the range. Source: none"""
    first, last = -(-addr >> shift) << shift, end >> shift << shift
    if flags & NO_CONT_MAPPINGS or first >= last:
        return _set_leaves(k, linear, addr, end, level)
    if addr < first:
        _set_leaves(k, linear, addr, first, level)
    _set_leaves(k, linear, first, last, level | CONT)
    if last < end:
        _set_leaves(k, linear, last, end, level)


def _set_leaves(k: Kernel, linear: LinearMap, addr: int, end: int, kind: int) -> None:
    """Enter leaves. What is mapped already must be mapped in the same way. Source: none; pgattr_change_is_safe()"""
    BUG_ON(k.log, any(old != kind for _, _, old in linear.leaves.within(addr, end)), "something else is mapped there")
    for low, high in linear.leaves.gaps(addr, end):
        linear.leaves.add(low, high, kind)


def unmap_hotplug_range(k: Kernel, addr: int, end: int, free_mapped: bool, altmap: VmemAltmap | None) -> None:
    """
    Clear every leaf that maps any of [addr, end), whole.

    A block that reaches out of the range is cleared all the same, and with it what lies beside the range: nobody looks whether
    the range is made of whole leaves. Tables stay; see free_empty_tables().

    Args:
        free_mapped: The range is the virtual memmap's, and what is mapped there is freed; else it is the linear map's.
        altmap: Where the memmap's pages came from.

    Source: arch/arm64/mm/mmu.c unmap_hotplug_range() and what is below it [v5.7]
    """
    WARN_ON(k.log, not free_mapped and altmap is not None)
    if free_mapped:
        return sparse_vmemmap.unmap_backing(k, addr, end, altmap)
    linear = k.linear_rw()
    start = memory.linear_start(k)
    for low, high, kind in list(linear.leaves.within(addr - start, end - start)):
        size = 1 << linear.shifts[kind & LEVEL]
        linear.leaves.cut(low - low % size, -(-high // size) * size)


def free_empty_tables(k: Kernel, addr: int, end: int, floor: int, ceiling: int) -> None:
    """
    Free the tables for [addr, end) that have no entry left, the lower ones first.

    Args:
        floor, ceiling: What the caller owns: a table that reaches out of it stays.

    Source: arch/arm64/mm/mmu.c free_empty_tables() and what is below it [v5.7]
    """
    if floor != memory.linear_start(k):
        return sparse_vmemmap.free_empty_tables(k, addr, end)
    linear = k.linear_rw()
    addr, end = addr - floor, end - floor
    for level in range(len(linear.shifts) - 1):
        shift = linear.shifts[level + 1]
        first, last = addr >> shift, (end - 1 >> shift) + 1
        last = min(last, ceiling - floor >> shift)
        while first < last and not linear.empty(level, first):
            first += 1
        while first < last and not linear.empty(level, last - 1):
            last -= 1
        if level:
            numbers = [n for n in range(first, last) if linear.empty(level, n)]
            gone = [run for n in numbers for run in linear.tables[level].cut(n, n + 1)]
        else:
            # Between its ends the range was mapped by nobody but us, and nothing is left.
            gone = linear.tables[level].cut(first, last)
        for low, high, pfn in gone:
            free_hotplug_pgtable_page(k, pfn, high - low)


def free_hotplug_pgtable_page(k: Kernel, pfn: int, count: int) -> None:
    """
    Free `count` tables; those of boot memory are reserved, and are never empty.

    Source: arch/arm64/mm/mmu.c free_hotplug_pgtable_page() [v5.7], which is called for each
    """
    if not WARN_ON(k.log, pfn < 0):
        page_alloc._free_used_pages(k, pfn, count)


def hotplug_paging(k: Kernel, start: int, size: int) -> None:
    """Map [start, start + size) linearly. Source: the series, arch/arm64/mm/mmu.c hotplug_paging()"""
    __create_pgd_mapping(k, start, memory.__phys_to_virt(k, start), size, __pgd_pgtable_alloc, NO_CONT_MAPPINGS)


def apply(k: Kernel, remedy: str) -> None:
    """
    Apply the series' part of generic code for a remedy.

    Source: none
    """
    if arm64_rfc_2016.REMEDIES[remedy].clears_before_add_zone:
        k.before_add_zone = _clear_section_nomap


def _clear_section_nomap(k: Kernel, start_pfn: int) -> None:
    """Source: the remedy "clear-before-add-zone" """
    arm64_rfc_2016.clear_section_nomap(k, SYMBOLS, start_pfn)


def arch_add_memory(k: Kernel, nid: int, start: int, size: int, params: MhpParams) -> None:
    """
    Add memory on arm64.

    Raises:
        KernelError: what the tree's own says.
        ConfigError: the tree has no hot-add on arm64.

    Source: arch/arm64/mm/mmu.c arch_add_memory() [v5.0]; before, the 2016 series
    """
    if k.tree.arm64_hotplug:
        return _arch_add_memory_v5_0(k, nid, start, size, params)
    if not k.tree.arm64_nomap_window:
        raise ConfigError(f"{k.tree.name} has no memory hot-add on arm64")
    return _arch_add_memory_2016(k, nid, start, size, params)


def _arch_add_memory_v5_0(k: Kernel, nid: int, start: int, size: int, params: MhpParams) -> None:
    """
    Map the range, let memblock forget that it was NOMAP, add its pages; take the mapping back if that failed.

    Raises:
        KernelError: EINVAL outside the linear map [v5.10]; what __add_pages() says.

    Source: arch/arm64/mm/mmu.c arch_add_memory() [v5.10, v6.1, v6.12]
    """
    if k.tree.arm64_checks_linear_region and not inside_linear_region(k, start, size):
        printk(k.log, f"[{start:x} {start + size:x}] is outside linear mapping region")
        raise KernelError(EINVAL, "the linear map has no room for the range", start=start, size=size)
    if k.tree.checks_mappable_range:
        VM_BUG_ON(k, not memory_hotplug.mhp_range_allowed(k, start, size, True))
    flags = _mapping_flags(k)
    __create_pgd_mapping(k, start, memory.__phys_to_virt(k, start), size, __pgd_pgtable_alloc, flags)
    memblock.memblock_clear_nomap(k, start, size)
    try:
        memory_hotplug._add_pages_v5_3(k, nid, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT, params)
    except KernelError:
        __remove_pgd_mapping(k, memory.__phys_to_virt(k, start), size)
        raise
    if k.tree.arm64_hotplug_raises_max_pfn:
        end_pfn = -(-(start + size) >> k.PAGE_SHIFT)
        k.max_pfn = end_pfn if k.tree.arm64_hotplug_lowers_max_pfn else max(k.max_pfn, end_pfn)
        k.max_low_pfn = k.max_pfn


def arch_remove_memory(k: Kernel, start: int, size: int, altmap: VmemAltmap | None) -> None:
    """Source: arch/arm64/mm/mmu.c arch_remove_memory() [v5.7]"""
    memory_hotplug.__remove_pages(k, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT, altmap)
    __remove_pgd_mapping(k, memory.__phys_to_virt(k, start), size)


def __remove_pgd_mapping(k: Kernel, start: int, size: int) -> None:
    """
    Unmap linear addresses [start, start + size).

    Source: arch/arm64/mm/mmu.c __remove_pgd_mapping() [v5.7]
    """
    end = start + size
    WARN_ON(k.log, start < memory.linear_start(k) or end > memory.PAGE_END(k))
    unmap_hotplug_range(k, start, end, False, None)
    free_empty_tables(k, start, end, memory.linear_start(k), memory.PAGE_END(k))


def arch_get_mappable_range(k: Kernel) -> tuple[int, int]:
    """
    Return the first and the last byte that the linear map has room for.

    Source: arch/arm64/mm/mmu.c arch_get_mappable_range() [v5.12]
    """
    start = memory.PHYS_OFFSET(k)
    return start, memory.__virt_to_phys(k, memory.PAGE_END(k) - 1)


def PHYSMEM_END(k: Kernel) -> int:
    """
    Return the last byte that memory may have.

    Source: none; arch/arm64/include/asm/memory.h PHYSMEM_END [v6.12], include/linux/mm.h
    """
    return arch_get_mappable_range(k)[1] if k.tree.arm64_physmem_end else (1 << k.MAX_PHYSMEM_BITS) - 1


def inside_linear_region(k: Kernel, start: int, size: int) -> bool:
    """Whether the linear map has room for a range. Source: arch/arm64/mm/mmu.c inside_linear_region() [v5.10]"""
    first, last = arch_get_mappable_range(k)
    return start >= first and start + size - 1 <= last


def _arch_add_memory_2016(k: Kernel, nid: int, start: int, size: int, params: MhpParams) -> None:
    """
    Add memory on arm64, by the remedy this kernel was booted with.

    max_pfn is not raised: the recorded kernels did not.

    Raises:
        KernelError: EPERM beyond the physical address space; what the remedy says.

    Source: the series, arch/arm64/mm/init.c arch_add_memory()
    """
    end_pfn = (start + size) >> k.PAGE_SHIFT
    if end_pfn > 1 << (k.MAX_PHYSMEM_BITS - k.PAGE_SHIFT):
        printk(k.log, "end_pfn too big")
        raise KernelError(EPERM, f"end_pfn {end_pfn:#x} is beyond {k.MAX_PHYSMEM_BITS} bits of address", pfn=end_pfn)
    hotplug_paging(k, start, size)
    arm64_rfc_2016.REMEDIES[k.remedy].add(k, SYMBOLS, nid, start, size)


def vmemmap_populate(k: Kernel, start_pfn: int, end_pfn: int, node: int, altmap: VmemAltmap | None) -> None:
    """
    Make struct pages of [start_pfn, end_pfn): PMD blocks for whole sections with 4K pages, single pages else.

    Raises:
        KernelError: ENOMEM.

    Source: arch/arm64/mm/mmu.c vmemmap_populate() [v5.3]
    """
    if not k.tree.has_subsections:
        return _vmemmap_populate_v4_9(k, start_pfn, end_pfn, node)
    start, end = pfn_to_page(k, start_pfn), pfn_to_page(k, end_pfn)
    part = end_pfn - start_pfn < k.PAGES_PER_SECTION and not k.tree.arm64_vmemmap_parts_are_pmds
    if k.PAGE_SHIFT != 12 or part:
        sparse_vmemmap.vmemmap_populate_basepages(k, start, end, node, altmap)
    else:
        sparse_vmemmap.vmemmap_populate_hugepages(
            k, start, end, node, altmap, k.tree.arm64_vmemmap_falls_back, k.tree.arm64_altmap_falls_back)
    sparse_vmemmap.map_section(k, start_pfn, end_pfn)


def vmemmap_free(k: Kernel, start_pfn: int, end_pfn: int, altmap: VmemAltmap | None) -> None:
    """Give the memmap of a range back. Source: arch/arm64/mm/mmu.c vmemmap_free() [v5.7]"""
    start, end = pfn_to_page(k, start_pfn), pfn_to_page(k, end_pfn)
    unmap_hotplug_range(k, start, end, True, altmap)
    free_empty_tables(k, start, end, memory.VMEMMAP_START(k), memory.VMEMMAP_START(k) + memory.VMEMMAP_SIZE(k))


def _vmemmap_populate_v4_9(k: Kernel, start_pfn: int, end_pfn: int, node: int) -> None:
    """
    Make struct pages of [start_pfn, end_pfn): PMD blocks with 4K pages, single pages else.

    Raises:
        KernelError: ENOMEM; there is no way back to single pages.

    Source: arch/arm64/mm/mmu.c vmemmap_populate() [v4.9]
    """
    if k.PAGE_SHIFT == 12:
        sparse_vmemmap.vmemmap_populate_pmds(k, start_pfn, end_pfn, node, fallback=False)
        return
    address = k.VMEMMAP_START + start_pfn * 64
    sparse_vmemmap.vmemmap_populate_basepages(k, address, address + (end_pfn - start_pfn) * 64, node)
    sparse_vmemmap.map_section(k, start_pfn, end_pfn)


def phys_mem_access_prot(k: Kernel, pfn: int, size: int, sync: bool) -> str:
    """
    Return the memory type of a mapping of /dev/mem: not cached where pfn_valid() says there is no memory.

    Source: arch/arm64/mm/mmu.c phys_mem_access_prot() [v4.9]
    """
    if not mmzone.pfn_valid(k, pfn):
        return UNCACHED
    return WRITECOMBINE if sync else NORMAL


def kern_addr_valid(k: Kernel, addr: int) -> bool:
    """
    Whether a kernel address may be read: the page tables reach it, and pfn_valid() for what they point to.

    C asks for the first pfn of the block mapping that the address lies in; here it is the address's own page.

    Source: arch/arm64/mm/mmu.c kern_addr_valid() [v4.9]
    """
    if addr >> memory.VA_BITS != (1 << 64 - memory.VA_BITS) - 1 and not k.tree.arm64_linear_map_low:
        return False
    if addr < memory.linear_start(k) and k.tree.arm64_linear_map_low:
        return False
    phys = memory.__virt_to_phys(k, addr)
    if not linear_mapped(k, phys):
        return False
    return mmzone.pfn_valid(k, phys >> k.PAGE_SHIFT)


def prevent_bootmem_remove_notifier(k: Kernel, action: int, data: MemoryNotify) -> int:
    """
    Refuse to let a section that was there at boot go offline: user space sees EPERM.

    Source: arch/arm64/mm/mmu.c prevent_bootmem_remove_notifier() [v5.7, v5.11]
    """
    if action not in (MEM_GOING_OFFLINE, MEM_OFFLINE):
        return NOTIFY_OK
    for pfn in range(data.start_pfn, data.start_pfn + data.nr_pages, k.PAGES_PER_SECTION):
        start = pfn << k.PAGE_SHIFT
        end = start + (1 << k.SECTION_SIZE_BITS)
        if not mmzone.early_section(mmzone.__pfn_to_section(k, pfn)):
            continue
        if action == MEM_GOING_OFFLINE:
            if k.tree.bootmem_veto_is_logged:
                printk(k.log, f"Boot memory [{start:x} {end:x}] offlining attempted")
            return NOTIFY_BAD
        if k.tree.bootmem_veto_is_logged:
            printk(k.log, f"Boot memory [{start:x} {end:x}] offlined")
            return NOTIFY_DONE
    return NOTIFY_OK


def validate_bootmem_online(k: Kernel) -> None:
    """
    Complain, with DEBUG_VM, of boot memory that is not early or not online: the notifier could not keep it.

    Source: arch/arm64/mm/mmu.c validate_bootmem_online() [v5.11]
    """
    if not k.config.DEBUG_VM:
        return
    for start, end, _ in memblock.for_each_mem_range(k):
        for addr in range(start, end, 1 << k.SECTION_SIZE_BITS):
            ms = mmzone.__pfn_to_section(k, addr >> k.PAGE_SHIFT)
            WARN_ON(k.log, not mmzone.early_section(ms))
            if not mmzone.online_section(ms):
                printk(k.log, f"Boot memory [{addr:x} {addr + (1 << k.SECTION_SIZE_BITS):x}] is offline, can be removed")


def prevent_bootmem_remove_init(k: Kernel) -> None:
    """Source: arch/arm64/mm/mmu.c prevent_bootmem_remove_init() [v5.7]"""
    if k.tree.arm64_hot_remove and k.config.MEMORY_HOTREMOVE:
        if k.tree.bootmem_veto_is_logged:
            validate_bootmem_online(k)
        base_memory.register_memory_notifier(k, NotifierBlock(prevent_bootmem_remove_notifier))
