# SPDX-License-Identifier: GPL-2.0-only
"""The x86_64 record."""

from __future__ import annotations

from memhp.linux.arch import ArchOps, IoOps
from memhp.linux.arch.x86.include import page
from memhp.linux.arch.x86.kernel import e820
from memhp.linux.arch.x86.mm import init, init_64, ioremap, kaslr, physaddr
from memhp.linux.include.io import NORMAL
from memhp.units import TIB

X86_64 = ArchOps(
    name="x86_64",
    SECTION_SIZE_BITS=lambda tree, config: 27,
    MAX_PHYSMEM_BITS=lambda tree, config: 52 if config.X86_5LEVEL else 46,
    # Without hugetlb a pageblock is the largest free block; with it, 2 MiB.
    pageblock_order=lambda tree, config: 9 if config.HUGETLB_PAGE else config.FORCE_MAX_ZONEORDER - 1,
    VMEMMAP_START=0xFFFFEA0000000000,
    # What the processor can address: 46 bits, as many as the sections cover. (QEMU's default processor says 40.)
    IOMEM_END=(1 << 46) - 1,
    pgtable_shifts=init_64.pgtable_shifts,
    PMD_SHIFT=lambda config: 21,
    # The generic pfn_valid().
    pfn_valid=lambda tree: None,
    setup_memory=init_64.setup_memory,
    memory_present=init_64.sparse_memory_present_with_active_regions,
    zone_sizes=init_64.zone_sizes_init,
    bootmem_init=init_64.bootmem_init,
    mem_init=init_64.mem_init,
    memory_block_size_bytes=init_64.memory_block_size_bytes,
    memory_add_physaddr_to_nid=init_64.memory_add_physaddr_to_nid,
    arch_add_memory=init_64.arch_add_memory,
    arch_remove_memory=init_64.arch_remove_memory,
    # The generic one of mm/memory_hotplug.c: everything.
    arch_get_mappable_range=lambda k: (0, (1 << 64) - 1),
    PHYSMEM_END=kaslr.PHYSMEM_END,
    # The generic one of mm/memory_hotplug.c: a block's memmap fills whole PMDs.
    arch_supports_memmap_on_memory=lambda k, vmemmap_size: vmemmap_size % (1 << k.arch.PMD_SHIFT(k.config)) == 0,
    # None that memory hotplug would hear.
    initcalls=lambda k: None,
    VMALLOC_TOTAL=lambda k: (12800 if k.config.X86_5LEVEL else 32) * TIB - 1,
    arch_report_meminfo=init_64.arch_report_meminfo,
    vmemmap_populate=init_64.vmemmap_populate,
    vmemmap_free=init_64.vmemmap_free,
    io=IoOps(
        phys_to_virt=page.__va,
        virt_to_phys=page.__pa,
        virt_addr_valid=physaddr.__virt_addr_valid,
        kern_addr_valid=init_64.kern_addr_valid,
        ioremap=ioremap.ioremap,
        ioremap_cache=ioremap.ioremap_cache,
        ioremap_wt=ioremap.ioremap,
        ioremap_wc=ioremap.ioremap_wc,
        # The generic one, include/acpi/acpi_io.h: always cacheable.
        acpi_os_ioremap=ioremap.ioremap_cache,
        xlate_dev_mem_ptr=ioremap.xlate_dev_mem_ptr,
        # The two generic ones of drivers/char/mem.c.
        valid_phys_addr_range=lambda k, addr, count: addr + count <= k.high_memory,
        valid_mmap_phys_addr_range=lambda k, pfn, size: True,
        phys_mem_access_prot=lambda k, pfn, size, sync: NORMAL,
        devmem_is_allowed=init.devmem_is_allowed,
        nosave_regions=e820.e820_mark_nosave_regions,
    ),
)
