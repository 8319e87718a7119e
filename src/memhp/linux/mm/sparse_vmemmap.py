# SPDX-License-Identifier: GPL-2.0-only
"""
Populating the virtual memmap: where the struct pages of a section lie, and what they cost.

The virtual memmap is one array of struct pages for all of memory; only the parts whose sections exist have pages behind them.
A memmap costs 64 bytes a page: 2 MiB (one PMD) for 128 MiB of 4K pages, 16 MiB for 1 GiB. Page-table pages for it come on top:
one for each 1 GiB of vmemmap (PMD table) and each 512 GiB (PUD table).

Source: mm/sparse-vmemmap.c [v4.9].
"""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.include.gfp import GFP_KERNEL_ZERO_REPEAT
from memhp.linux.include.memblock import MEMBLOCK_ALLOC_ACCESSIBLE
from memhp.linux.include.memory_model import SIZEOF_STRUCT_PAGE, pfn_to_page
from memhp.linux.include.mm_types import PageColumns
from memhp.linux.include.mmzone import MemSection
from memhp.linux.include.page_flags import KIND_MEMMAP, KIND_PAGE_TABLE, set_page_kind
from memhp.linux.mm import memblock, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def vmemmap_alloc_block(k: Kernel, size: int, node: int, kind: int = KIND_MEMMAP) -> bool:
    """
    Allocate `size` bytes, a power of two pages, for the memmap or its tables; False if there are none.

    Source: mm/sparse-vmemmap.c vmemmap_alloc_block() [v4.9]
    """
    if k.slab_is_available:
        order = (size >> k.PAGE_SHIFT).bit_length() - 1
        pfn = page_alloc.__alloc_pages_nodemask(k, GFP_KERNEL_ZERO_REPEAT, order, node if node in k.nodes else min(k.nodes))
        if pfn < 0:
            return False
        set_page_kind(k, pfn, 1 << order, kind)
        return True
    if not k.hardware.memmap_reserved:
        low = memblock.BOOTMEM_LOW_LIMIT(k)
        memblock.memblock_virt_alloc_try_nid(k, size, size, low, MEMBLOCK_ALLOC_ACCESSIBLE, node)
    return True


def _table(k: Kernel, address: int, shift: int, node: int) -> None:
    """Make sure the table page exists that maps `address` at a level where one table covers 2^shift bytes. Source: none"""
    key = address >> shift << 8 | shift
    if key in k.vmemmap_tables:
        return
    if not vmemmap_alloc_block(k, k.PAGE_SIZE, node, KIND_PAGE_TABLE):
        raise KernelError(ENOMEM, "no page for a table of the virtual memmap", address=address)
    k.vmemmap_tables |= {key}


def vmemmap_pgd_populate(k: Kernel, address: int, node: int) -> None:
    """Make sure the PUD table of a vmemmap address exists. Source: mm/sparse-vmemmap.c vmemmap_pgd_populate()"""
    _table(k, address, 3 * (k.PAGE_SHIFT - 3) + k.PAGE_SHIFT, node)


def vmemmap_pud_populate(k: Kernel, address: int, node: int) -> None:
    """Make sure the PMD table of a vmemmap address exists. Source: mm/sparse-vmemmap.c vmemmap_pud_populate()"""
    _table(k, address, 2 * (k.PAGE_SHIFT - 3) + k.PAGE_SHIFT, node)


def vmemmap_pmd_populate(k: Kernel, address: int, node: int) -> None:
    """Make sure the PTE table of a vmemmap address exists. Source: mm/sparse-vmemmap.c vmemmap_pmd_populate()"""
    _table(k, address, (k.PAGE_SHIFT - 3) + k.PAGE_SHIFT, node)


def vmemmap_populate_basepages(k: Kernel, start: int, end: int, node: int) -> None:
    """
    Back vmemmap addresses [start, end) with single pages.

    Raises:
        KernelError: ENOMEM; pages allocated by then stay.

    Source: mm/sparse-vmemmap.c vmemmap_populate_basepages() [v4.9]
    """
    for address in range(start, end, k.PAGE_SIZE):
        vmemmap_pgd_populate(k, address, node)
        vmemmap_pud_populate(k, address, node)
        vmemmap_pmd_populate(k, address, node)
        if not vmemmap_alloc_block(k, k.PAGE_SIZE, node):
            raise KernelError(ENOMEM, "no page for the memmap", address=address)


def vmemmap_populate_pmds(k: Kernel, start_pfn: int, end_pfn: int, node: int, fallback: bool) -> None:
    """
    Back the struct pages of [start_pfn, end_pfn) with PMD-sized blocks.

    Args:
        fallback: Use single pages where no block is to be had (x86_64); else fail (arm64).

    Raises:
        KernelError: ENOMEM.

    Source: none; the loop that both architectures' vmemmap_populate() share
    """
    pmd_size = 1 << k.arch.PMD_SHIFT(k.config)
    address = pfn_to_page(k, start_pfn)
    end = address + (end_pfn - start_pfn) * SIZEOF_STRUCT_PAGE
    while address < end:
        stop = min(end, address - address % pmd_size + pmd_size)
        vmemmap_pgd_populate(k, address, node)
        vmemmap_pud_populate(k, address, node)
        if stop - address < pmd_size:
            _populate_part(k, address, stop, node)
        elif not vmemmap_alloc_block(k, pmd_size, node):
            if not fallback:
                raise KernelError(ENOMEM, f"no block of {pmd_size >> 20} MiB for the memmap", address=address)
            vmemmap_populate_basepages(k, address, stop, node)
        address = stop
    map_section(k, start_pfn, end_pfn)


def _populate_part(k: Kernel, start: int, end: int, node: int) -> None:
    """Back a part of a PMD: the block is shared with the neighbour whose part came first. Source: none"""
    key = start >> k.arch.PMD_SHIFT(k.config) << 8 | 1
    if key in k.vmemmap_tables:
        return
    if not vmemmap_alloc_block(k, 1 << k.arch.PMD_SHIFT(k.config), node):
        raise KernelError(ENOMEM, "no block for the memmap", address=start)
    k.vmemmap_tables |= {key}


def map_section(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """From here on the struct pages of these pfns can be touched. Source: none"""
    sections = k.sections_rw()
    for nr in range(start_pfn >> k.PFN_SECTION_SHIFT, -(-end_pfn >> k.PFN_SECTION_SHIFT)):
        section = sections.get(nr)
        if section is None:
            section = sections[nr] = MemSection(nr, k.token)
        if section.memmap is None:
            k.section_rw(nr).memmap = PageColumns(k.PAGES_PER_SECTION)


def sparse_mem_map_populate(k: Kernel, pnum: int, nid: int) -> None:
    """
    Make the memmap of one section.

    Raises:
        KernelError: ENOMEM.

    Source: mm/sparse-vmemmap.c sparse_mem_map_populate() [v4.9]
    """
    pfn = pnum << k.PFN_SECTION_SHIFT
    k.arch.vmemmap_populate(k, pfn, pfn + k.PAGES_PER_SECTION, nid)
