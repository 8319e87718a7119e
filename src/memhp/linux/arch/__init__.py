# SPDX-License-Identifier: GPL-2.0-only
"""
What an architecture gives the generic code: a record of functions and constants.

A new architecture is one folder and one `ArchOps`. There is no base class; a field says why architectures differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memhp.linux.include.io import Mapping
from memhp.linux.include.memory_hotplug import MhpParams
from memhp.linux.include.memremap import VmemAltmap
from memhp.linux.include.mmzone import Definition
from memhp.linux.kconfig import Kconfig
from memhp.linux.tree import Tree

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class IoOps:
    """
    How an architecture reaches physical memory: what generic code and drivers call.

    Attributes:
        phys_to_virt: (k, phys) -> linear address; whether it is mapped is not asked.
        virt_to_phys: (k, linear address) -> phys.
        virt_addr_valid, kern_addr_valid: (k, address) -> bool.
        ioremap, ioremap_cache, ioremap_wt, ioremap_wc: (k, phys, size) -> Mapping or None.
        acpi_os_ioremap: (k, phys, size) -> Mapping or None, for ACPI's tables and regions.
        xlate_dev_mem_ptr: (k, phys) -> Mapping or None, for one page of /dev/mem.
        valid_phys_addr_range: (k, phys, size) -> bool: /dev/mem may be read there.
        valid_mmap_phys_addr_range: (k, pfn, size) -> bool: /dev/mem may be mapped there.
        phys_mem_access_prot: (k, pfn, size, sync) -> memory type of a mapping of /dev/mem; sync: opened with O_SYNC.
        devmem_is_allowed: (k, pfn) -> bool, under STRICT_DEVMEM.
        nosave_regions: (k) -> pfns [start, end) that hibernation leaves out.
    """

    phys_to_virt: Callable[[Kernel, int], int]
    virt_to_phys: Callable[[Kernel, int], int]
    virt_addr_valid: Callable[[Kernel, int], bool]
    kern_addr_valid: Callable[[Kernel, int], bool]
    ioremap: Callable[[Kernel, int, int], Mapping | None]
    ioremap_cache: Callable[[Kernel, int, int], Mapping | None]
    ioremap_wt: Callable[[Kernel, int, int], Mapping | None]
    ioremap_wc: Callable[[Kernel, int, int], Mapping | None]
    acpi_os_ioremap: Callable[[Kernel, int, int], Mapping | None]
    xlate_dev_mem_ptr: Callable[[Kernel, int], Mapping | None]
    valid_phys_addr_range: Callable[[Kernel, int, int], bool]
    valid_mmap_phys_addr_range: Callable[[Kernel, int, int], bool]
    phys_mem_access_prot: Callable[[Kernel, int, int, bool], str]
    devmem_is_allowed: Callable[[Kernel, int], bool]
    nosave_regions: Callable[[Kernel], list[tuple[int, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchOps:
    """
    An architecture.

    Attributes:
        name: "arm64", "x86_64".
        SECTION_SIZE_BITS: (tree, config) -> log2 of a section's bytes; arm64 changed it, and it depends on the page size.
        MAX_PHYSMEM_BITS: (tree, config) -> bits of a physical address.
        pageblock_order: (tree, config) -> order of a pageblock.
        VMEMMAP_START: Virtual address of the struct page of pfn 0.
        IOMEM_END: Last address of iomem_resource: what /proc/iomem can hold.
        pgtable_shifts: (k) -> log2 of what an entry of each level of page tables maps, PTE first, the top table's last.
        PMD_SHIFT: (config) -> log2 of what one PMD entry maps.
        pfn_valid: The definition it has of its own under HAVE_ARCH_PFN_VALID, by tree; None where it uses the generic one.
        setup_memory: (k) fills memblock, reserves the image, registers resources: what setup_arch() does before mm starts.
        memory_present: (k) tells sparsemem which sections exist; arm64 and x86_64 walk memblock differently.
        zone_sizes: (k) -> upper pfn of each zone, lowest zone first.
        bootmem_init: (k) makes sections and zones, and sets CMA's area aside, where memblock says it all [v5.8].
        mem_init: (k) sets bounce buffers aside and gives all free pages to the page allocator [v5.8].
        memory_block_size_bytes: (k) -> bytes of a memory block.
        memory_add_physaddr_to_nid: (k, address) -> node for memory that comes without one.
        arch_add_memory: (k, nid, start, size, params); raises KernelError.
        arch_remove_memory: (k, start, size, altmap): sections and mappings go.
        arch_get_mappable_range: (k) -> first and last byte that its linear map can reach.
        PHYSMEM_END: (k) -> last byte that any memory can have.
        arch_supports_memmap_on_memory: (k, vmemmap_size) -> whether a block's memmap of that size may lie on the block.
        initcalls: (k): notifiers of its own are registered.
        VMALLOC_TOTAL: (k) -> bytes of the vmalloc area, for /proc/meminfo.
        arch_report_meminfo: (k) -> lines the architecture adds to /proc/meminfo.
        vmemmap_populate: (k, start_pfn, end_pfn, node, altmap); raises KernelError.
        vmemmap_free: (k, start_pfn, end_pfn, altmap): the memmap of a range goes.
        io: How it reaches physical memory.
    """

    name: str
    SECTION_SIZE_BITS: Callable[[Tree, Kconfig], int]
    MAX_PHYSMEM_BITS: Callable[[Tree, Kconfig], int]
    pageblock_order: Callable[[Tree, Kconfig], int]
    VMEMMAP_START: int
    IOMEM_END: int
    pgtable_shifts: Callable[[Kernel], tuple[int, ...]]
    PMD_SHIFT: Callable[[Kconfig], int]
    pfn_valid: Callable[[Tree], Definition | None]
    setup_memory: Callable[[Kernel], None]
    memory_present: Callable[[Kernel], None]
    zone_sizes: Callable[[Kernel], list[int]]
    bootmem_init: Callable[[Kernel], None]
    mem_init: Callable[[Kernel], None]
    memory_block_size_bytes: Callable[[Kernel], int]
    memory_add_physaddr_to_nid: Callable[[Kernel, int], int]
    arch_add_memory: Callable[[Kernel, int, int, int, MhpParams], None]
    arch_remove_memory: Callable[[Kernel, int, int, VmemAltmap | None], None]
    arch_get_mappable_range: Callable[[Kernel], tuple[int, int]]
    PHYSMEM_END: Callable[[Kernel], int]
    arch_supports_memmap_on_memory: Callable[[Kernel, int], bool]
    initcalls: Callable[[Kernel], None]
    VMALLOC_TOTAL: Callable[[Kernel], int]
    arch_report_meminfo: Callable[[Kernel], str]
    vmemmap_populate: Callable[[Kernel, int, int, int, VmemAltmap | None], None]
    vmemmap_free: Callable[[Kernel, int, int, VmemAltmap | None], None]
    io: IoOps
