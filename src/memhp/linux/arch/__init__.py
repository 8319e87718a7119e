# SPDX-License-Identifier: GPL-2.0-only
"""
What an architecture gives the generic code: a record of functions and constants.

A new architecture is one folder and one `ArchOps`. There is no base class; a field says why architectures differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memhp.linux.include.mmzone import Definition
from memhp.linux.kconfig import Kconfig
from memhp.linux.tree import Tree

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


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
        PMD_SHIFT: (config) -> log2 of what one PMD entry maps.
        pfn_valid: The definition it has of its own under HAVE_ARCH_PFN_VALID, by tree; None where it uses the generic one.
        setup_memory: (k) fills memblock, reserves the image, registers resources: what setup_arch() does before mm starts.
        memory_present: (k) tells sparsemem which sections exist; arm64 and x86_64 walk memblock differently.
        zone_sizes: (k) -> upper pfn of each zone, lowest zone first.
        memory_block_size_bytes: (k) -> bytes of a memory block.
        memory_add_physaddr_to_nid: (k, address) -> node for memory that comes without one.
        arch_add_memory: (k, nid, start, size, for_device); raises KernelError.
        VMALLOC_TOTAL: Bytes of the vmalloc area, for /proc/meminfo.
        arch_report_meminfo: (k) -> lines the architecture adds to /proc/meminfo.
        vmemmap_populate: (k, start_pfn, end_pfn, node); raises KernelError.
    """

    name: str
    SECTION_SIZE_BITS: Callable[[Tree, Kconfig], int]
    MAX_PHYSMEM_BITS: Callable[[Tree, Kconfig], int]
    pageblock_order: Callable[[Tree, Kconfig], int]
    VMEMMAP_START: int
    IOMEM_END: int
    PMD_SHIFT: Callable[[Kconfig], int]
    pfn_valid: Callable[[Tree], Definition | None]
    setup_memory: Callable[[Kernel], None]
    memory_present: Callable[[Kernel], None]
    zone_sizes: Callable[[Kernel], list[int]]
    memory_block_size_bytes: Callable[[Kernel], int]
    memory_add_physaddr_to_nid: Callable[[Kernel, int], int]
    arch_add_memory: Callable[[Kernel, int, int, int, bool], None]
    VMALLOC_TOTAL: int
    arch_report_meminfo: Callable[[Kernel], str]
    vmemmap_populate: Callable[[Kernel, int, int, int], None]
