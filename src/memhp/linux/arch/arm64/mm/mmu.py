# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: arch_add_memory(), which v4.9 does not have and the 2016 series brings; the virtual memmap.

Source: the series for arch_add_memory() and hotplug_paging(); arch/arm64/mm/mmu.c [v4.9] for the rest.
"""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING

from memhp.errors import ConfigError, KernelError
from memhp.linux.arch.arm64.include import memory
from memhp.linux.bug import VM_BUG_ON, printk
from memhp.linux.drivers.base import memory as base_memory
from memhp.linux.include import mmzone
from memhp.linux.include.io import NORMAL, UNCACHED, WRITECOMBINE, linear_mapped
from memhp.linux.include.memblock import MEMBLOCK_NOMAP
from memhp.linux.include.memory import MEM_GOING_OFFLINE, MEM_OFFLINE, MemoryNotify
from memhp.linux.include.memory_hotplug import MhpParams
from memhp.linux.include.memory_model import pfn_to_page
from memhp.linux.include.memremap import VmemAltmap
from memhp.linux.include.mmzone import Zone
from memhp.linux.include.notifier import NOTIFY_BAD, NOTIFY_DONE, NOTIFY_OK, NotifierBlock
from memhp.linux.include.page_flags import SetPageReserved
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


def map_mem(k: Kernel) -> None:
    """Map all memory but NOMAP regions linearly. Source: arch/arm64/mm/mmu.c map_mem() [v4.9]"""
    for r in k.memblock.memory.regions:
        if not r.flags & MEMBLOCK_NOMAP:
            map_linear(k, r.base, r.base + r.size)


def hotplug_paging(k: Kernel, start: int, size: int) -> None:
    """Map [start, start + size) linearly. Source: the series, arch/arm64/mm/mmu.c hotplug_paging()"""
    map_linear(k, start, start + size)


def map_linear(k: Kernel, start: int, end: int) -> None:
    """Note that [start, end) can be reached through the linear map; neighbours join. Source: none"""
    ranges = k.linear_map
    if ranges and ranges[-1][1] == start:
        k.linear_map = (*ranges[:-1], (ranges[-1][0], end))
    else:
        k.linear_map = (*ranges, (start, end))


def unmap_linear(k: Kernel, start: int, end: int) -> None:
    """[start, end) can no longer be reached through the linear map. Source: none"""
    k.linear_map = tuple(
        piece for low, high in k.linear_map for piece in ((low, min(high, start)), (max(low, end), high)) if piece[0] < piece[1])


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
        KernelError: what __add_pages() says.

    Source: arch/arm64/mm/mmu.c arch_add_memory() [v5.3]
    """
    if k.tree.checks_mappable_range:
        VM_BUG_ON(k, not memory_hotplug.mhp_range_allowed(k, start, size, True))
    map_linear(k, start, start + size)
    memblock.memblock_clear_nomap(k, start, size)
    try:
        memory_hotplug._add_pages_v5_3(k, nid, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT, params)
    except KernelError:
        if k.tree.arm64_hot_remove:
            __remove_pgd_mapping(k, start, size)
        raise
    if k.tree.arm64_hotplug_raises_max_pfn:
        k.max_pfn = max(k.max_pfn, -(-(start + size) >> k.PAGE_SHIFT))
        k.max_low_pfn = k.max_pfn


def arch_remove_memory(k: Kernel, start: int, size: int, altmap: VmemAltmap | None) -> None:
    """Source: arch/arm64/mm/mmu.c arch_remove_memory() [v5.7]"""
    memory_hotplug.__remove_pages(k, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT, altmap)
    __remove_pgd_mapping(k, start, size)


def __remove_pgd_mapping(k: Kernel, start: int, size: int) -> None:
    """
    Unmap physical [start, start + size).

    Source: arch/arm64/mm/mmu.c __remove_pgd_mapping() [v5.7], which takes linear addresses
    """
    unmap_linear(k, start, start + size)


def arch_get_mappable_range(k: Kernel) -> tuple[int, int]:
    """Return the first and the last byte that the linear map has room for. Source: arch/arm64/mm/mmu.c [v5.12]"""
    start = memory.PHYS_OFFSET(k)
    return start, start + (1 << (memory.VA_BITS - 1)) - 1


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
    if k.PAGE_SHIFT != 12 or end_pfn - start_pfn < k.PAGES_PER_SECTION:
        sparse_vmemmap.vmemmap_populate_basepages(k, start, end, node, altmap)
    else:
        sparse_vmemmap.vmemmap_populate_hugepages(
            k, start, end, node, altmap, k.tree.arm64_vmemmap_falls_back, k.tree.arm64_altmap_falls_back)
    sparse_vmemmap.map_section(k, start_pfn, end_pfn)


def vmemmap_free(k: Kernel, start_pfn: int, end_pfn: int, altmap: VmemAltmap | None) -> None:
    """Give the memmap of a range back. Source: arch/arm64/mm/mmu.c vmemmap_free() [v5.7]"""
    sparse_vmemmap.free_backing(k, start_pfn, end_pfn, altmap)


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
    if addr >> memory.VA_BITS != (1 << 64 - memory.VA_BITS) - 1:
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


def prevent_bootmem_remove_init(k: Kernel) -> None:
    """Source: arch/arm64/mm/mmu.c prevent_bootmem_remove_init() [v5.7]"""
    if k.tree.arm64_hot_remove and k.config.MEMORY_HOTREMOVE:
        base_memory.register_memory_notifier(k, NotifierBlock(prevent_bootmem_remove_notifier))
