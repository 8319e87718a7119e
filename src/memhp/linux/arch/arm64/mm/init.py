# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: memory at boot, and pfn_valid() through the years.

arm64's own pfn_valid() asks memblock. From v4.6 on it asks nothing else (A0), so a pfn is valid as soon as memblock knows it
and its region is not NOMAP, with or without a memmap. Later definitions put the section's state in front.

Source: arch/arm64/mm/init.c, arch/arm64/kernel/setup.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.hardware import parse_size
from memhp.linux import bug
from memhp.linux.arch.arm64.include import memory
from memhp.linux.arch.arm64.mm import mmu
from memhp.linux.include.memory_model import SIZEOF_STRUCT_PAGE
from memhp.linux.include.mmzone import EARLY, INRANGE, SUB, UPPER, VALID, Choose, Definition
from memhp.linux.include.numa import MAX_NUMNODES
from memhp.linux.kconfig import Kconfig
from memhp.linux.kernel.dma import contiguous, swiotlb
from memhp.linux.mm import memblock, mm_init, sparse
from memhp.linux.tree import Tree
from memhp.units import GIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

U32_MAX = (1 << 32) - 1

A0 = Definition("A0", "arm64, v4.6 to v4.18", (memblock.MAP,))
A1 = Definition("A1", "arm64, v4.19 and v4.20", (UPPER, memblock.MAP))
A2 = Definition("A2", "arm64, v5.0 to v5.11", (UPPER, INRANGE, VALID, memblock.MAP))
A3 = Definition("A3", "arm64, v5.12 and v5.13", (UPPER, INRANGE, VALID, Choose(EARLY, memblock.MAP, SUB)))
A4 = Definition("A4", "arm64, v5.14 and v5.15", (UPPER, INRANGE, VALID, Choose(EARLY, memblock.MB, SUB)))
M = Definition("M", "pfn_is_map_memory(), arm64, v5.14 onwards", (UPPER, memblock.MAP))

DEFINITIONS = {d.name: d for d in (A0, A1, A2, A3, A4)}
BESIDE = {"M": M}
"""Predicates that stand beside pfn_valid()."""


def pfn_valid(tree: Tree) -> Definition | None:
    """Return the definition arm64 has of its own in a tree, or None. Source: arch/arm64/mm/init.c pfn_valid()"""
    return DEFINITIONS.get(tree.arm64_pfn_valid)


def section_size_bits(tree: Tree, config: Kconfig) -> int:
    """
    Return log2 of a section: 1 GiB up to v5.11, then 128 MiB, or 512 MiB with 64K pages.

    Source: arch/arm64/include/asm/sparsemem.h
    """
    bits = tree.arm64_section_size_bits
    return 29 if bits == 27 and config.PAGE_SHIFT == 16 else bits


def memblock_add_ranges(k: Kernel) -> None:
    """Tell memblock what the firmware says. Source: drivers/of/fdt.c, drivers/firmware/efi/arm-init.c"""
    for r in k.hardware.memory:
        memblock.memblock_add(k, r.start, r.size)
        if "NOMAP" in r.flags:
            memblock.memblock_mark_nomap(k, r.start, r.size)


def arm64_memblock_init(k: Kernel) -> None:
    """
    Settle where the linear map begins; forget what `mem=` does not allow; reserve the image, the initrd and what the firmware
    or the recorded kernel had reserved.

    Source: arch/arm64/mm/init.c arm64_memblock_init() [all]
    """
    memstart = memory.PHYS_OFFSET(k)
    if k.tree.arm64_linear_map_low:
        k.VMEMMAP_START = memory.VMEMMAP_START(k)
    k.VMEMMAP_START -= (memstart >> k.PAGE_SHIFT) * SIZEOF_STRUCT_PAGE
    if k.tree.free_area_init and k.cmdline.get("mem"):
        _limit_memory(k, parse_size(k.cmdline["mem"], "mem=") // k.PAGE_SIZE * k.PAGE_SIZE)
    for start, end in k.hardware.reserved:
        memblock.memblock_reserve(k, start, end - start)
    memblock.memblock_allow_resize(k)


def _limit_memory(k: Kernel, memory_limit: int) -> None:
    """
    Keep the first `memory_limit` bytes, and what image and initrd lie in.

    Source: arch/arm64/mm/init.c early_mem(), arm64_memblock_init() [v5.10, v6.1, v6.12]
    """
    bug.printk(k.log, f"Memory limited to {memory_limit >> 20}MB")
    memblock.memblock_mem_limit_remove_map(k, memory_limit)
    image = [child for child in k.hardware.ram_children if child.name.startswith("Kernel")]
    if image:
        start = min(child.start for child in image)
        memblock.memblock_add(k, start, max(child.end for child in image) + 1 - start)
    start, end = k.hardware.initrd
    if end > start:
        memblock.memblock_add(k, start, end - start)
        memblock.memblock_clear_nomap(k, start, end - start)


def setup_memory(k: Kernel) -> None:
    """Fill memblock, map memory. Source: arch/arm64/kernel/setup.c setup_arch(), mm/init.c bootmem_init() [v4.9]"""
    memblock_add_ranges(k)
    arm64_memblock_init(k)
    mmu.map_mem(k)
    for r in k.hardware.memory:
        memblock.memblock_set_node(k, r.start, r.size, k.memblock.memory, r.nid)
    k.max_pfn = k.max_low_pfn = memblock.memblock_end_of_DRAM(k) >> k.PAGE_SHIFT
    k.high_memory = k.max_pfn << k.PAGE_SHIFT


def arm64_memory_present(k: Kernel) -> None:
    """
    Mark the sections of every memblock region present, NOMAP or not.

    Source: arch/arm64/mm/init.c arm64_memory_present() [v4.9]
    """
    for region in k.memblock.memory.regions:
        nid = 0 if region.nid == MAX_NUMNODES else region.nid
        start, end = -(-region.base >> k.PAGE_SHIFT), (region.base + region.size) >> k.PAGE_SHIFT
        sparse.memory_present(k, nid, start, end)


def max_zone_dma_phys(k: Kernel) -> int:
    """Source: arch/arm64/mm/init.c max_zone_dma_phys() [v4.9]"""
    offset = memblock.memblock_start_of_DRAM(k) >> 32 << 32
    return min(offset + 4 * GIB, memblock.memblock_end_of_DRAM(k))


def zone_sizes_init(k: Kernel) -> list[int]:
    """
    Return the upper pfn of each zone.

    Source: arch/arm64/mm/init.c zone_sizes_init() [all]
    """
    if k.tree.arm64_zone_dma_by_firmware:
        return _zone_sizes_init_v5_11(k)
    return _zone_sizes_init_v4_9(k)


def max_zone_phys(k: Kernel, zone_limit: int) -> int:
    """Cut a limit, inclusive, at the end of RAM; returns one past it. Source: arch/arm64/mm/init.c max_zone_phys() [v6.12]"""
    return min(zone_limit, memblock.memblock_end_of_DRAM(k) - 1) + 1


def _zone_sizes_init_v5_11(k: Kernel) -> list[int]:
    """
    ZONE_DMA ends where firmware says that devices stop reading, here nowhere; at 4 GiB at last, if RAM begins below.

    Source: arch/arm64/mm/init.c zone_sizes_init() [v5.10, v6.1, v6.12]
    """
    low = memblock.memblock_start_of_DRAM(k) < U32_MAX
    arm64_dma_phys_limit = max_zone_phys(k, U32_MAX if low else (1 << 64) - 1)
    top = {
        "DMA": arm64_dma_phys_limit >> k.PAGE_SHIFT, "DMA32": max_zone_phys(k, U32_MAX) >> k.PAGE_SHIFT, "Normal": k.max_pfn}
    return [top.get(name, 0) for name in k.config.zones]


def bootmem_init(k: Kernel) -> None:
    """
    Sections, zones, CMA.

    Source: arch/arm64/mm/init.c bootmem_init() [v5.10, v6.1, v6.12]
    """
    sparse.sparse_init(k)
    limits = zone_sizes_init(k)
    mm_init.free_area_init(k, limits)
    contiguous.dma_contiguous_reserve(k, limits[0] << k.PAGE_SHIFT)


def mem_init(k: Kernel) -> None:
    """
    Set bounce buffers aside for devices that do not reach all memory; then all free pages go to the page allocator.

    Source: arch/arm64/mm/init.c mem_init() [v5.10, v6.1, v6.12]
    """
    limited = k.max_pfn > zone_sizes_init(k)[0]
    if not limited and k.tree.arm64_small_swiotlb:
        swiotlb.swiotlb_adjust_size(k, -(-memblock.memblock_phys_mem_size(k) // 1024))
        limited = True
    swiotlb.swiotlb_init(k, limited)
    memblock.memblock_free_all(k, mm_init.reserve_bootmem_region, mm_init.memblock_free_pages)


def _zone_sizes_init_v4_9(k: Kernel) -> list[int]:
    """Source: arch/arm64/mm/init.c zone_sizes_init() [v4.9]"""
    top = {"DMA": max_zone_dma_phys(k) >> k.PAGE_SHIFT, "Normal": k.max_pfn}
    return [top.get(name, 0) for name in k.config.zones]
