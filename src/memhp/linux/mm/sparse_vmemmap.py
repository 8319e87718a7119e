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
from memhp.linux.include.page_flags import KIND_KERNEL_TABLE, KIND_MEMMAP, PageReserved, set_page_kind
from memhp.linux.include.pgtable import P4D, PUD, VmemmapTable
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
    if k.tree.memblock_exact_nid:
        return memblock.memblock_alloc_try_nid_raw(k, size, size, low, MEMBLOCK_ALLOC_ACCESSIBLE, node) >> k.PAGE_SHIFT
    return memblock.memblock_virt_alloc_try_nid(k, size, size, low, MEMBLOCK_ALLOC_ACCESSIBLE, node) >> k.PAGE_SHIFT


def _table(k: Kernel, address: int, shift: int, node: int) -> None:
    """Make sure the table page exists that maps `address` at a level where one table covers 2^shift bytes. Source: none"""
    key = shift, address >> shift
    if key in k.vmemmap_tables:
        return
    pfn = vmemmap_alloc_block(k, k.PAGE_SIZE, node, KIND_KERNEL_TABLE)
    if pfn == NO_PAGE:
        raise KernelError(ENOMEM, "no page for a table of the virtual memmap", address=address)
    k.vmemmap_tables_rw()[key] = VmemmapTable(pfn, 0)
    _count_entries(k, address, shift, 1)


def _count_entries(k: Kernel, address: int, shift: int, count: int) -> None:
    """Count entries of what maps 2^shift bytes in the table that holds them, if that is not the top table. Source: none"""
    up = shift + k.PAGE_SHIFT - 3
    key = up, address >> up
    table = k.vmemmap_tables.get(key)
    if table is not None:
        k.vmemmap_tables_rw()[key] = VmemmapTable(table.pfn, table.entries + count)


def _has_level(k: Kernel, level: int) -> bool:
    """Whether tables with entries of this level are allocated, and not folded into a higher one or the top. Source: none"""
    return level < len(k.arch.pgtable_shifts(k)) - 1


def vmemmap_pgd_populate(k: Kernel, address: int, node: int) -> None:
    """
    Make sure the table below the top one exists for a vmemmap address: with five levels a P4D table; in v4.9, which knows four,
    the PUD table.

    Source: mm/sparse-vmemmap.c vmemmap_pgd_populate() [all]
    """
    if not k.tree.has_p4d:
        _table(k, address, 3 * (k.PAGE_SHIFT - 3) + k.PAGE_SHIFT, node)
    elif _has_level(k, P4D):
        _table(k, address, 4 * (k.PAGE_SHIFT - 3) + k.PAGE_SHIFT, node)


def vmemmap_p4d_populate(k: Kernel, address: int, node: int) -> None:
    """Make sure the PUD table of a vmemmap address exists. Source: mm/sparse-vmemmap.c vmemmap_p4d_populate() [v4.12]"""
    if _has_level(k, PUD):
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
        pfn = vmemmap_alloc_block(k, k.PAGE_SIZE, node)
        if pfn == NO_PAGE:
            raise KernelError(ENOMEM, "no page for the memmap", address=address)
        ms, first = _place(k, address)
        ms.backing = (*ms.backing, Backing(first, pfn, 1, False))
        _count_entries(k, address, k.PAGE_SHIFT, 1)


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
        elif (pfn := vmemmap_alloc_block(k, pmd_size, node)) != NO_PAGE:
            ms, first = _place(k, address)
            ms.backing = (*ms.backing, Backing(first, pfn, pmd_size >> k.PAGE_SHIFT, True))
            _count_entries(k, address, k.arch.PMD_SHIFT(k.config), 1)
        elif not fallback:
            raise KernelError(ENOMEM, f"no block of {pmd_size >> 20} MiB for the memmap", address=address)
        else:
            vmemmap_populate_basepages(k, address, stop, node)
        address = stop
    map_section(k, start_pfn, end_pfn)


def _populate_part(k: Kernel, start: int, end: int, node: int) -> None:
    """Back a part of a PMD: the block is shared with the neighbour whose part came first. Source: none"""
    key = 0, start >> k.arch.PMD_SHIFT(k.config)
    if key in k.vmemmap_tables:
        return
    if vmemmap_alloc_block(k, 1 << k.arch.PMD_SHIFT(k.config), node) == NO_PAGE:
        raise KernelError(ENOMEM, "no block for the memmap", address=start)
    k.vmemmap_tables_rw()[key] = VmemmapTable(RECORDED, 0)


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


def _place(k: Kernel, address: int) -> tuple[MemSection, int]:
    """The section whose struct pages lie at `address`, for editing, and which page of its memmap that is. Source: none"""
    pages = address - k.VMEMMAP_START >> k.PAGE_SHIFT
    nr, first = divmod(pages, k.PAGES_PER_SECTION * SIZEOF_STRUCT_PAGE >> k.PAGE_SHIFT)
    return (k.section_rw(nr) if nr in k.mem_section else k.sections_rw().setdefault(nr, MemSection(nr, k.token))), first


def _backed(ms: MemSection, first: int) -> Backing | None:
    """The leaf that a page of a section's memmap lies in. Source: pmd_none()"""
    return next((leaf for leaf in ms.backing if leaf.first <= first < leaf.first + leaf.pages), None)


def vmemmap_populate_range(k: Kernel, start: int, end: int, node: int, altmap: VmemAltmap | None) -> None:
    """
    Back the pages of vmemmap [start, end), inside one section's memmap, that have nothing behind them yet.

    Raises:
        KernelError: ENOMEM; pages allocated by then stay.

    Source: mm/sparse-vmemmap.c vmemmap_populate_range(), which calls vmemmap_populate_address() for each page [v5.18]
    """
    start -= start % k.PAGE_SIZE
    span = 1 << k.arch.PMD_SHIFT(k.config)
    while start < end:
        stop = min(end, start - start % span + span)
        vmemmap_pgd_populate(k, start, node)
        vmemmap_p4d_populate(k, start, node)
        vmemmap_pud_populate(k, start, node)
        vmemmap_pmd_populate(k, start, node)
        ms, first = _place(k, start)
        for low, high in _unbacked(ms, first, first + (-(start - stop) // k.PAGE_SIZE)):
            missing = high - low
            for pfn, pfn_end in _alloc_base_pages(k, missing, node, altmap):
                ms.backing = (*ms.backing, Backing(low, pfn, pfn_end - pfn, False))
                _count_entries(k, start, k.PAGE_SHIFT, pfn_end - pfn)
                low += pfn_end - pfn
            if low < high:
                raise KernelError(ENOMEM, "no page for the memmap", address=start)
        start = stop


def _unbacked(ms: MemSection, first: int, end: int) -> list[tuple[int, int]]:
    """The pages [first, end) of a section's memmap that have nothing behind them, as runs. Source: pte_none()"""
    found = []
    for leaf in sorted(ms.backing):
        if leaf.first >= end or leaf.first + leaf.pages <= first:
            continue
        if first < leaf.first:
            found.append((first, leaf.first))
        first = leaf.first + leaf.pages
    if first < end:
        found.append((first, end))
    return found


def _alloc_base_pages(k: Kernel, count: int, node: int, altmap: VmemAltmap | None) -> list[tuple[int, int]]:
    """As many vmemmap_alloc_block_buf() of one page; fewer if there are no more. Source: none"""
    if altmap is not None:
        count = min(count, vmem_altmap_nr_free(altmap))
        pfn = vmem_altmap_next_pfn(altmap)
        altmap.alloc += count
        return [(pfn, pfn + count)] if count else []
    if not k.slab_is_available:
        pages = [vmemmap_alloc_block(k, k.PAGE_SIZE, node) for _ in range(count)]
        return [(pfn, pfn + 1) for pfn in pages]
    runs = page_alloc._alloc_base_pages(k, GFP_KERNEL_RETRY_MAYFAIL, node if node in k.nodes else min(k.nodes), count)
    for start, end in runs:
        set_page_kind(k, start, end - start, KIND_MEMMAP)
    if sum(end - start for start, end in runs) < count:
        printk_once(k.log, "vmemmap alloc failure: order:0")
    return runs


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
        vmemmap_p4d_populate(k, address, node)
        vmemmap_pud_populate(k, address, node)
        ms, first = _place(k, address - address % pmd_size)
        leaf = _backed(ms, first)
        if leaf is None:
            pfn = vmemmap_alloc_block_buf(k, pmd_size, node, altmap)
            if pfn != NO_PAGE:
                ms.backing = (*ms.backing, Backing(first, pfn, pmd_size >> k.PAGE_SHIFT, True))
                _count_entries(k, address, k.arch.PMD_SHIFT(k.config), 1)
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


def unmap_backing(k: Kernel, start: int, end: int, altmap: VmemAltmap | None, whole: bool = True) -> None:
    """
    Take what lies behind vmemmap [start, end), inside one section's memmap, and free it.

    Args:
        whole: A PMD leaf goes as soon as any of it is to go (arm64); else it stays unless all of it is to go or nothing of it is
            in use any more (x86_64).

    Source: none; unmap_hotplug_range() of arch/arm64/mm/mmu.c, remove_pmd_table() of arch/x86/mm/init_64.c
    """
    ms, low = _place(k, start)
    high = low + (-(start - start % k.PAGE_SIZE - end) + k.PAGE_SIZE - 1 >> k.PAGE_SHIFT)
    address = start - (low << k.PAGE_SHIFT) - start % k.PAGE_SIZE
    kept: list[Backing] = []
    gone: list[Backing] = []
    for leaf in ms.backing:
        first, stop = leaf.first, leaf.first + leaf.pages
        if not leaf.huge:
            first, stop = max(first, low), min(stop, high)
        elif not whole and not low <= first < stop <= high and _in_use(k, ms, leaf):
            first = stop
        if first >= stop or leaf.first >= high or leaf.first + leaf.pages <= low:
            kept.append(leaf)
            continue
        if first > leaf.first:
            kept.append(leaf._replace(pages=first - leaf.first))
        if stop < leaf.first + leaf.pages:
            kept.append(Backing(stop, leaf.pfn + stop - leaf.first, leaf.first + leaf.pages - stop, False))
        gone.append(Backing(first, leaf.pfn + first - leaf.first, stop - first, leaf.huge))
    ms.backing = tuple(kept)
    if not kept:
        ms.memmap = None
    for leaf in gone:
        shift = k.arch.PMD_SHIFT(k.config) if leaf.huge else k.PAGE_SHIFT
        _count_entries(k, address + (leaf.first << k.PAGE_SHIFT), shift, -1 if leaf.huge else -leaf.pages)
        _free_backing(k, leaf, altmap)


def _in_use(k: Kernel, ms: MemSection, leaf: Backing) -> bool:
    """Whether any sub-section's struct pages lie in a leaf. Source: none; vmemmap_pmd_is_unused() of arch/x86/mm/init_64.c"""
    pages = 1 << mmzone.SUBSECTION_SHIFT - k.PAGE_SHIFT
    first = leaf.first * k.PAGE_SIZE // (SIZEOF_STRUCT_PAGE * pages)
    last = -(-(leaf.first + leaf.pages) * k.PAGE_SIZE // (SIZEOF_STRUCT_PAGE * pages))
    return bool(ms.subsection_map >> first & (1 << last - first) - 1)


def _free_backing(k: Kernel, leaf: Backing, altmap: VmemAltmap | None) -> None:
    """Free a leaf, or a run of PTEs. Source: none; free_hotplug_page_range(), free_pagetable()"""
    if altmap is not None:
        vmem_altmap_free(altmap, leaf.pages)
    elif leaf.pfn < 0:
        pass
    elif PageReserved(k, leaf.pfn):
        page_alloc.__free_reserved_page(k, leaf.pfn, leaf.pages)
        page_alloc.adjust_managed_page_count(k, leaf.pfn, leaf.pages)
    elif leaf.huge:
        page_alloc.__free_pages(k, leaf.pfn, leaf.pages.bit_length() - 1)
    else:
        page_alloc._free_used_pages(k, leaf.pfn, leaf.pages)


def free_empty_tables(k: Kernel, start: int, end: int, top: int = P4D) -> None:
    """
    Free the tables of vmemmap [start, end) that have no entry left.

    Args:
        top: The highest level whose entries' tables may go.

    Source: none; free_empty_tables() of arch/arm64/mm/mmu.c, free_pte_table() and its like of arch/x86/mm/init_64.c
    """
    shifts = k.arch.pgtable_shifts(k)
    for shift in shifts[1 : top + 2]:
        for number in range(start >> shift, (end - 1 >> shift) + 1):
            table = k.vmemmap_tables.get((shift, number))
            if table is None or table.entries:
                continue
            del k.vmemmap_tables_rw()[shift, number]
            _count_entries(k, number << shift, shift, -1)
            if table.pfn >= 0:
                page_alloc._free_used_pages(k, table.pfn, 1)


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
