# SPDX-License-Identifier: GPL-2.0-only
"""The arm64 record."""

from __future__ import annotations

from memhp.linux.arch import ArchOps, IoOps
from memhp.linux.arch.arm64.include import acpi, memory
from memhp.linux.arch.arm64.mm import init, ioremap, mmap, mmu
from memhp.linux.include.io import LINEAR, Mapping
from memhp.units import KIB

ARM64 = ArchOps(
    name="arm64",
    SECTION_SIZE_BITS=init.section_size_bits,
    MAX_PHYSMEM_BITS=lambda tree, config: 48,
    # Without hugetlb a pageblock is the largest free block; with it, what a PMD maps.
    pageblock_order=lambda tree, config: (
        min(config.PAGE_SHIFT - 3, config.FORCE_MAX_ZONEORDER - 1) if config.HUGETLB_PAGE else config.FORCE_MAX_ZONEORDER - 1),
    VMEMMAP_START=0xFFFF7E0000000000,
    IOMEM_END=(1 << 64) - 1,
    pgtable_shifts=memory.pgtable_shifts,
    PMD_SHIFT=lambda config: 2 * config.PAGE_SHIFT - 3,
    pfn_valid=init.pfn_valid,
    setup_memory=init.setup_memory,
    memory_present=init.arm64_memory_present,
    zone_sizes=init.zone_sizes_init,
    bootmem_init=init.bootmem_init,
    mem_init=init.mem_init,
    # No memory_block_size_bytes() of its own: a block is a section.
    memory_block_size_bytes=lambda k: 1 << k.SECTION_SIZE_BITS,
    memory_add_physaddr_to_nid=lambda k, address: 0,
    arch_add_memory=mmu.arch_add_memory,
    arch_remove_memory=mmu.arch_remove_memory,
    arch_get_mappable_range=mmu.arch_get_mappable_range,
    PHYSMEM_END=mmu.PHYSMEM_END,
    # The generic one of mm/memory_hotplug.c: a block's memmap fills whole PMDs.
    arch_supports_memmap_on_memory=lambda k, vmemmap_size: vmemmap_size % (1 << k.arch.PMD_SHIFT(k.config)) == 0,
    # Boot memory is not to go offline.
    initcalls=mmu.prevent_bootmem_remove_init,
    # As meminfo shows it; with 16K pages seen on v6.12.
    VMALLOC_TOTAL=lambda k: (51804889088 if k.PAGE_SHIFT == 14 else k.tree.arm64_vmalloc_kib) * KIB,
    arch_report_meminfo=lambda k: "",
    vmemmap_populate=mmu.vmemmap_populate,
    vmemmap_free=mmu.vmemmap_free,
    io=IoOps(
        phys_to_virt=memory.__phys_to_virt,
        virt_to_phys=memory.__virt_to_phys,
        virt_addr_valid=memory.virt_addr_valid,
        kern_addr_valid=mmu.kern_addr_valid,
        ioremap=ioremap.ioremap,
        ioremap_cache=ioremap.ioremap_cache,
        ioremap_wt=ioremap.ioremap,
        ioremap_wc=ioremap.ioremap_wc,
        acpi_os_ioremap=acpi.acpi_os_ioremap,
        # The generic one: a linear address, mapped or not.
        xlate_dev_mem_ptr=lambda k, phys: Mapping(phys, k.PAGE_SIZE - phys % k.PAGE_SIZE, LINEAR),
        valid_phys_addr_range=mmap.valid_phys_addr_range,
        valid_mmap_phys_addr_range=mmap.valid_mmap_phys_addr_range,
        phys_mem_access_prot=mmu.phys_mem_access_prot,
        devmem_is_allowed=mmap.devmem_is_allowed,
        # v4.9 registers none.
        nosave_regions=lambda k: [],
    ),
)
