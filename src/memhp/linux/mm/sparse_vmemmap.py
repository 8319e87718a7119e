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
from memhp.linux.bug import WARN_ON_ONCE, printk_once
from memhp.linux.include import mmzone
from memhp.linux.include.gfp import GFP_KERNEL_RETRY_MAYFAIL, GFP_KERNEL_ZERO_REPEAT
from memhp.linux.include.memblock import MEMBLOCK_ALLOC_ACCESSIBLE
from memhp.linux.include.memory_model import SIZEOF_STRUCT_PAGE, pfn_to_page
from memhp.linux.include.memremap import VmemAltmap
from memhp.linux.include.mm_types import PageColumns
from memhp.linux.include.mmzone import Backing, MemSection
from memhp.linux.include.page_flags import KIND_MEMMAP, KIND_PAGE_TABLE, set_page_kind
from memhp.linux.mm import memblock, page_alloc, sparse

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


NO_PAGE = -1
"""The page allocator has none."""
RECORDED = -2
"""A page of boot memory that a recording has reserved; which one is not known."""
FROM_ALTMAP = -3
"""A page of the added memory itself."""


def vmemmap_alloc_block(k: Kernel, size: int, node: int, kind: int = KIND_MEMMAP) -> int:
    """
    Allocate `size` bytes, a power of two pages, for the memmap or its tables; returns the first pfn, or NO_PAGE.

    At boot they come from memblock, unless a recording has them reserved already (RECORDED).

    Source: mm/sparse-vmemmap.c vmemmap_alloc_block() [v4.9]
    """
    if k.slab_is_available:
        order = (size >> k.PAGE_SHIFT).bit_length() - 1
        gfp = GFP_KERNEL_RETRY_MAYFAIL if k.tree.has_subsections else GFP_KERNEL_ZERO_REPEAT
        pfn = page_alloc.__alloc_pages_nodemask(k, gfp, order, node if node in k.nodes else min(k.nodes))
        if pfn < 0:
            if k.tree.has_subsections:
                printk_once(k.log, f"vmemmap alloc failure: order:{order}")
            return NO_PAGE
        set_page_kind(k, pfn, 1 << order, kind)
        return pfn
    if k.hardware.memmap_reserved:
        return RECORDED
    if kind == KIND_MEMMAP and (ptr := sparse.sparse_buffer_alloc(k, size)):
        return ptr >> k.PAGE_SHIFT
    low = memblock.BOOTMEM_LOW_LIMIT(k)
    return memblock.memblock_virt_alloc_try_nid(k, size, size, low, MEMBLOCK_ALLOC_ACCESSIBLE, node) >> k.PAGE_SHIFT


def _table(k: Kernel, address: int, shift: int, node: int) -> None:
    """Make sure the table page exists that maps `address` at a level where one table covers 2^shift bytes. Source: none"""
    key = address >> shift << 8 | shift
    if key in k.vmemmap_tables:
        return
    if vmemmap_alloc_block(k, k.PAGE_SIZE, node, KIND_PAGE_TABLE) == NO_PAGE:
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


def vmemmap_populate_basepages(k: Kernel, start: int, end: int, node: int, altmap: VmemAltmap | None = None) -> None:
    """
    Back vmemmap addresses [start, end) with single pages.

    Raises:
        KernelError: ENOMEM; pages allocated by then stay.

    Source: mm/sparse-vmemmap.c vmemmap_populate_basepages() [v4.9, v5.18]
    """
    if k.tree.has_subsections:
        return vmemmap_populate_range(k, start, end, node, altmap)
    for address in range(start, end, k.PAGE_SIZE):
        vmemmap_pgd_populate(k, address, node)
        vmemmap_pud_populate(k, address, node)
        vmemmap_pmd_populate(k, address, node)
        if vmemmap_alloc_block(k, k.PAGE_SIZE, node) == NO_PAGE:
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
        elif vmemmap_alloc_block(k, pmd_size, node) == NO_PAGE:
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
    if vmemmap_alloc_block(k, 1 << k.arch.PMD_SHIFT(k.config), node) == NO_PAGE:
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


# v5.3 onwards: parts of sections, altmaps, and the way back


def vmem_altmap_next_pfn(altmap: VmemAltmap) -> int:
    """Source: mm/sparse-vmemmap.c vmem_altmap_next_pfn()"""
    return altmap.base_pfn + altmap.reserve + altmap.alloc + altmap.align


def vmem_altmap_nr_free(altmap: VmemAltmap) -> int:
    """Source: mm/sparse-vmemmap.c vmem_altmap_nr_free()"""
    return max(0, altmap.free - altmap.alloc - altmap.align)


def altmap_alloc_block_buf(k: Kernel, size: int, altmap: VmemAltmap) -> int:
    """
    Take `size` bytes, aligned to their largest power of two, from an altmap; returns the first pfn, or NO_PAGE.

    Source: mm/sparse-vmemmap.c altmap_alloc_block_buf() [v5.3]
    """
    if size % k.PAGE_SIZE:
        printk_once(k.log, f"altmap_alloc_block_buf: allocations must be multiple of PAGE_SIZE ({size})")
        return NO_PAGE
    pfn = vmem_altmap_next_pfn(altmap)
    nr_pfns = size >> k.PAGE_SHIFT
    nr_align = nr_pfns & -nr_pfns
    nr_align = -pfn % nr_align
    if nr_pfns + nr_align > vmem_altmap_nr_free(altmap):
        return NO_PAGE
    altmap.alloc += nr_pfns
    altmap.align += nr_align
    return pfn + nr_align


def vmemmap_alloc_block_buf(k: Kernel, size: int, node: int, altmap: VmemAltmap | None) -> int:
    """Source: mm/sparse-vmemmap.c vmemmap_alloc_block_buf() [v5.3]"""
    if altmap is not None:
        return altmap_alloc_block_buf(k, size, altmap)
    return vmemmap_alloc_block(k, size, node)


def _back(k: Kernel, address: int, pfn: int, pages: int, huge: bool) -> None:
    """Enter a leaf of the virtual memmap. Source: none"""
    ms, first = _place(k, address)
    last = ms.backing[-1] if ms.backing else None
    if last is not None and not huge and not last.huge and (last.first + last.pages, last.pfn + last.pages) == (first, pfn):
        ms.backing = (*ms.backing[:-1], last._replace(pages=last.pages + pages))
    else:
        ms.backing = (*ms.backing, Backing(first, pfn, pages, huge))


def _place(k: Kernel, address: int) -> tuple[MemSection, int]:
    """The section whose struct pages lie at `address`, for editing, and which page of its memmap that is. Source: none"""
    pages = (address - k.VMEMMAP_START) >> k.PAGE_SHIFT
    nr, first = divmod(pages, k.PAGES_PER_SECTION * SIZEOF_STRUCT_PAGE >> k.PAGE_SHIFT)
    return (k.section_rw(nr) if nr in k.mem_section else k.sections_rw().setdefault(nr, MemSection(nr, k.token))), first


def _backed(ms: MemSection, first: int) -> Backing | None:
    """The leaf that a page of a section's memmap lies in. Source: pte_none(), pmd_none()"""
    return next((leaf for leaf in ms.backing if leaf.first <= first < leaf.first + leaf.pages), None)


def vmemmap_populate_address(k: Kernel, address: int, node: int, altmap: VmemAltmap | None) -> None:
    """
    Back one page of the virtual memmap.

    Raises:
        KernelError: ENOMEM.

    Source: mm/sparse-vmemmap.c vmemmap_populate_address() [v5.14]
    """
    vmemmap_pgd_populate(k, address, node)
    vmemmap_pud_populate(k, address, node)
    vmemmap_pmd_populate(k, address, node)
    if _backed(*_place(k, address)) is None:
        pfn = vmemmap_alloc_block_buf(k, k.PAGE_SIZE, node, altmap)
        if pfn == NO_PAGE:
            raise KernelError(ENOMEM, "no page for the memmap", address=address)
        _back(k, address, pfn, 1, False)


def vmemmap_populate_range(k: Kernel, start: int, end: int, node: int, altmap: VmemAltmap | None) -> None:
    """Source: mm/sparse-vmemmap.c vmemmap_populate_range() [v5.18]"""
    for address in range(start, end, k.PAGE_SIZE):
        vmemmap_populate_address(k, address, node, altmap)


def vmemmap_populate_hugepages(
    k: Kernel, start: int, end: int, node: int, altmap: VmemAltmap | None, fallback: bool = True, altmap_fallback: bool = False,
) -> None:
    """
    Back vmemmap addresses [start, end) with PMD leaves; single pages where no block is to be had.

    Args:
        fallback: False: there are no single pages instead (arm64 up to v5.10).
        altmap_fallback: True: not even from an altmap that has no room (arm64 up to v6.1).

    Raises:
        KernelError: ENOMEM.

    Source: mm/sparse-vmemmap.c vmemmap_populate_hugepages() [v6.2]
    """
    pmd_size = 1 << k.arch.PMD_SHIFT(k.config)
    address = start
    while address < end:
        stop = min(end, address - address % pmd_size + pmd_size)
        vmemmap_pgd_populate(k, address, node)
        vmemmap_pud_populate(k, address, node)
        leaf = _backed(*_place(k, address))
        if leaf is None:
            pfn = vmemmap_alloc_block_buf(k, pmd_size, node, altmap)
            if pfn != NO_PAGE:
                _back(k, address, pfn, pmd_size >> k.PAGE_SHIFT, True)
                address = stop
                continue
            if not (fallback if altmap is None else altmap_fallback):
                raise KernelError(ENOMEM, f"no block of {pmd_size >> 20} MiB for the memmap", address=address)
        if leaf is None or not leaf.huge:
            vmemmap_populate_range(k, address, stop, node, altmap)
        address = stop


def __populate_section_memmap(k: Kernel, pfn: int, nr_pages: int, nid: int, altmap: VmemAltmap | None) -> None:
    """
    Make the struct pages of a part of a section.

    Raises:
        KernelError: ENOMEM; what was populated by then stays.

    Source: mm/sparse-vmemmap.c __populate_section_memmap() [v5.3]
    """
    subsection = 1 << (mmzone.SUBSECTION_SHIFT - k.PAGE_SHIFT)
    if WARN_ON_ONCE(k.log, pfn % subsection or nr_pages % subsection):
        raise KernelError(ENOMEM, "not whole sub-sections", pfn=pfn)
    k.arch.vmemmap_populate(k, pfn, pfn + nr_pages, nid, altmap)


def free_backing(k: Kernel, start_pfn: int, end_pfn: int, altmap: VmemAltmap | None) -> None:
    """
    Give back what lies behind the struct pages of [start_pfn, end_pfn), inside one section.

    A PMD leaf goes whole as soon as a part of it is to go (arm64).

    Source: none; unmap_hotplug_range() of arch/arm64/mm/mmu.c
    """
    ms = k.section_rw(start_pfn >> k.PFN_SECTION_SHIFT)
    mask = k.PAGES_PER_SECTION - 1
    low = (start_pfn & mask) * SIZEOF_STRUCT_PAGE >> k.PAGE_SHIFT
    high = -(-((end_pfn - 1 & mask) + 1) * SIZEOF_STRUCT_PAGE >> k.PAGE_SHIFT)
    kept: list[Backing] = []
    for leaf in ms.backing:
        first, end = leaf.first, leaf.first + leaf.pages
        if not leaf.huge:
            first, end = max(first, low), min(end, high)
        if first >= end or leaf.first >= high or leaf.first + leaf.pages <= low:
            kept.append(leaf)
            continue
        if first > leaf.first:
            kept.append(leaf._replace(pages=first - leaf.first))
        if end < leaf.first + leaf.pages:
            kept.append(Backing(end, leaf.pfn + end - leaf.first, leaf.first + leaf.pages - end, False))
        free_vmemmap_pages(k, leaf.pfn + first - leaf.first, end - first, leaf.huge, altmap)
    ms.backing = tuple(kept)
    if not kept:
        ms.memmap = None


def free_vmemmap_pages(k: Kernel, pfn: int, pages: int, huge: bool, altmap: VmemAltmap | None) -> None:
    """Free the pages of a leaf, or of a run of PTEs. Source: none; free_hotplug_page_range() of arch/arm64/mm/mmu.c"""
    if altmap is not None:
        vmem_altmap_free(altmap, pages)
    elif huge:
        page_alloc.__free_pages(k, pfn, pages.bit_length() - 1)
    else:
        for page in range(pfn, pfn + pages):
            page_alloc.__free_pages(k, page, 0)


def vmem_altmap_free(altmap: VmemAltmap, nr_pfns: int) -> None:
    """Source: mm/memremap.c vmem_altmap_free()"""
    altmap.alloc -= nr_pfns


def sparse_mem_map_populate(k: Kernel, pnum: int, nid: int) -> None:
    """
    Make the memmap of one section.

    Raises:
        KernelError: ENOMEM.

    Source: mm/sparse-vmemmap.c sparse_mem_map_populate() [v4.9]
    """
    pfn = pnum << k.PFN_SECTION_SHIFT
    k.arch.vmemmap_populate(k, pfn, pfn + k.PAGES_PER_SECTION, nid, None)
