# SPDX-License-Identifier: GPL-2.0-only
"""
x86_64: memory at boot, arch_add_memory(), the virtual memmap, the memory block size.

Source: arch/x86/mm/init_64.c, arch/x86/mm/init.c, arch/x86/kernel/e820.c, arch/x86/kernel/setup.c [v4.9].
"""

from __future__ import annotations

from errno import ERANGE
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux import bug
from memhp.linux.arch.x86.include import page
from memhp.linux.arch.x86.mm import init, kaslr
from memhp.linux.bug import WARN_ON_ONCE, printk
from memhp.linux.include import mm, mmzone
from memhp.linux.include.io import linear_mapped
from memhp.linux.include.memory_hotplug import MhpParams
from memhp.linux.include.memory_model import pfn_to_page
from memhp.linux.include.memremap import VmemAltmap
from memhp.linux.include.numa import MAX_NUMNODES
from memhp.linux.include.pgtable import P4D, PMD, PTE, PUD, LinearMap
from memhp.linux.kernel.dma import swiotlb
from memhp.linux.mm import memblock, memory_hotplug, mm_init, page_alloc, sparse, sparse_vmemmap
from memhp.units import GIB, KIB, MIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

_DIRECT_MAP_4K = 10 * MIB
"""What the recorded kernel maps with 4K pages: the first megabytes, and its own image's edges."""


def memblock_x86_fill(k: Kernel) -> None:
    """
    Tell memblock what the e820 map calls RAM, whole pages only; EFI's maps may have more regions than the array has room for.

    Source: arch/x86/kernel/e820.c memblock_x86_fill() [v4.9]
    """
    memblock.memblock_allow_resize(k)
    for r in k.hardware.memory:
        memblock.memblock_add(k, r.start, r.size)
    memblock.memblock_trim_memory(k, k.PAGE_SIZE)


def memblock_find_dma_reserve(k: Kernel) -> None:
    """
    Count the pages of the first 16 MiB that are in use: the first zone's managed pages are guessed without them.

    Source: arch/x86/kernel/e820.c memblock_find_dma_reserve() [v4.9]
    """
    max_dma_pfn = 16 * MIB >> k.PAGE_SHIFT
    pages = [(start, end) for start, end, _ in memblock.for_each_mem_pfn_range(k)]
    free = [(-(-start >> k.PAGE_SHIFT), end >> k.PAGE_SHIFT) for start, end, _ in memblock.for_each_free_mem_range(k)]
    nr_pages, nr_free_pages = (
        sum(max(0, min(end, max_dma_pfn) - start) for start, end in ranges if start < max_dma_pfn) for ranges in (pages, free))
    k.dma_reserve = nr_pages - nr_free_pages


def setup_memory(k: Kernel) -> None:
    """Fill memblock, map memory. Source: arch/x86/kernel/setup.c setup_arch() [v4.9]"""
    for start, end in k.hardware.reserved:
        memblock.memblock_reserve(k, start, end - start)
    memblock_x86_fill(k)
    for r in k.hardware.memory:
        memblock.memblock_set_node(k, r.start, r.size, k.memblock.memory, r.nid)
    k.max_pfn = k.max_low_pfn = memblock.memblock_end_of_DRAM(k) >> k.PAGE_SHIFT
    k.high_memory = k.max_pfn << k.PAGE_SHIFT
    kaslr.kernel_randomize_memory(k)
    init.init_mem_mapping(k)
    memblock_find_dma_reserve(k)


def sparse_memory_present_with_active_regions(k: Kernel) -> None:
    """Source: mm/page_alloc.c sparse_memory_present_with_active_regions()"""
    for region in k.memblock.memory.regions:
        nid = 0 if region.nid == MAX_NUMNODES else region.nid
        sparse.memory_present(k, nid, -(-region.base >> k.PAGE_SHIFT), (region.base + region.size) >> k.PAGE_SHIFT)


def zone_sizes_init(k: Kernel) -> list[int]:
    """Return the upper pfn of each zone. Source: arch/x86/mm/init.c zone_sizes_init() [v4.9]"""
    top = {
        "DMA": 16 * MIB >> k.PAGE_SHIFT,
        "DMA32": min(k.max_low_pfn, 4 * GIB >> k.PAGE_SHIFT),
        "Normal": k.max_low_pfn,
    }
    return [top.get(name, 0) for name in k.config.zones]


def bootmem_init(k: Kernel) -> None:
    """
    Sections and zones. x86_64 has no CMA area of its own accord.

    Source: arch/x86/mm/init_64.c paging_init() [v5.10, v6.1, v6.12]
    """
    sparse.sparse_init(k)
    mm_init.free_area_init(k, zone_sizes_init(k))


def mem_init(k: Kernel) -> None:
    """
    Set bounce buffers aside; then all free pages go to the page allocator.

    Whether devices reach all memory is judged by how far it may ever reach: a hot-plug window lies above 4 GiB.

    Source: arch/x86/mm/init_64.c mem_init(), arch/x86/kernel/pci-dma.c pci_swiotlb_detect() [v5.10, v6.1, v6.12]
    """
    swiotlb.swiotlb_init(k, max(k.hardware.window, k.max_pfn << k.PAGE_SHIFT) >= 4 * GIB)
    memblock.memblock_free_all(k, mm_init.reserve_bootmem_region, mm_init.memblock_free_pages)


def probe_memory_block_size(k: Kernel) -> int:
    """
    Return the memory block size: a section, or 2 GiB on machines with 64 GiB and more.

    Source: arch/x86/mm/init_64.c probe_memory_block_size() [v4.9]
    """
    bz = 1 << k.SECTION_SIZE_BITS
    if k.max_pfn << k.PAGE_SHIFT >= 64 * GIB:
        bz = 2 * GIB
    if not k.system_running:
        printk(k.log, f"x86/mm: Memory block size: {bz >> 20}MB")
    return bz


def memory_block_size_bytes(k: Kernel) -> int:
    """
    Return the size probed at boot.

    Source: arch/x86/mm/init_64.c memory_block_size_bytes() [v4.9]
    """
    if k.memory_blocks:
        return k.sections_per_block << k.SECTION_SIZE_BITS
    return probe_memory_block_size(k)


def memory_add_physaddr_to_nid(k: Kernel, start: int) -> int:
    """
    Return the node that firmware says an address belongs to, else the first one.

    Source: arch/x86/mm/numa.c memory_add_physaddr_to_nid() [v4.9]
    """
    memory = k.hardware.memory
    nid = memory[0].nid
    for r in memory:
        if r.start <= start < r.end:
            nid = r.nid
    return nid


def pgtable_shifts(k: Kernel) -> tuple[int, ...]:
    """
    Return log2 of what an entry of each level maps, PTE first; the last is the top table's.

    Source: arch/x86/include/asm/pgtable_64_types.h PMD_SHIFT, PUD_SHIFT, P4D_SHIFT, pgdir_shift
    """
    return (12, 21, 30, 39, 48) if page.pgtable_l5_enabled(k) else (12, 21, 30, 39)


def kernel_physical_mapping_init(k: Kernel, start: int, end: int, levels: int) -> None:
    """
    Map physical [start, end) with leaves of the given levels beside pages; what is mapped already stays as it is.

    Source: arch/x86/mm/init_64.c kernel_physical_mapping_init(), __kernel_physical_mapping_init() [all]
    """
    linear = k.linear_rw()
    top = 1 << linear.shifts[-1]
    while start < end:
        stop = min(end, start - start % top + top)
        _tables(k, linear, len(linear.shifts) - 2, start, stop)
        if k.tree.has_p4d:
            phys_p4d_init(k, linear, start, stop, levels)
        else:
            phys_pud_init(k, linear, start, stop, levels)
        start = stop


def _tables(k: Kernel, linear: LinearMap, level: int, start: int, end: int) -> None:
    """Make sure that the tables of a level's entries for [start, end) are there. Source: none; pud_none(), pmd_none()"""
    shift = linear.shifts[level + 1]
    for first, last in linear.tables[level].gaps(start >> shift, (end - 1 >> shift) + 1):
        for low, high in init.alloc_low_pages(k, last - first):
            linear.tables[level].add(first, first + high - low, low)
            first += high - low


def phys_p4d_init(k: Kernel, linear: LinearMap, start: int, end: int, levels: int) -> None:
    """Map [start, end) through PUD tables. Source: arch/x86/mm/init_64.c phys_p4d_init() [v6.12]"""
    size = 1 << linear.shifts[PUD + 1]
    while start < end:
        stop = min(end, start - start % size + size)
        _tables(k, linear, PUD, start, stop)
        phys_pud_init(k, linear, start, stop, levels)
        start = stop


def phys_pud_init(k: Kernel, linear: LinearMap, start: int, end: int, levels: int) -> None:
    """Map [start, end) with 1 GiB leaves, or through PMD tables. Source: arch/x86/mm/init_64.c phys_pud_init() [all]"""
    shift = linear.shifts[PUD]
    while start < end:
        first = start >> shift << shift
        stop = min(end, first + (1 << shift))
        if any(kind == PUD for _, _, kind in linear.leaves.within(start, stop)):
            pass
        elif levels >> PUD & 1 and not linear.tables[PMD].any(first >> shift, (first >> shift) + 1):
            # A leaf maps the whole of it, also what the caller did not ask for.
            linear.leaves.add(first, first + (1 << shift), PUD)
        else:
            _tables(k, linear, PMD, start, stop)
            phys_pmd_init(k, linear, start, stop, levels)
        start = stop


def phys_pmd_init(k: Kernel, linear: LinearMap, start: int, end: int, levels: int) -> None:
    """Map [start, end) with 2 MiB leaves, or through PTE tables. Source: arch/x86/mm/init_64.c phys_pmd_init() [all]"""
    shift = linear.shifts[PMD]
    first, last = start >> shift, (end - 1 >> shift) + 1
    if not levels >> PMD & 1:
        for low, high in linear.leaves.gaps(start, end):
            _tables(k, linear, PTE, low, high)
        return phys_pte_init(k, linear, start, end)
    for low, high, _ in list(linear.tables[PTE].within(first, last)):
        phys_pte_init(k, linear, max(start, low << shift), min(end, high << shift))
    for low, high in linear.tables[PTE].gaps(first, last):
        for gap, gap_end in linear.leaves.gaps(low << shift, high << shift):
            linear.leaves.add(gap, gap_end, PMD)


def phys_pte_init(k: Kernel, linear: LinearMap, start: int, end: int) -> None:
    """Map the pages of [start, end) that are not mapped. Source: arch/x86/mm/init_64.c phys_pte_init() [all]"""
    for low, high in linear.leaves.gaps(start, end):
        linear.leaves.add(low, high, PTE)


def update_end_of_memory_vars(k: Kernel, start: int, size: int) -> None:
    """Source: arch/x86/mm/init_64.c update_end_of_memory_vars() [v4.9]"""
    end_pfn = -(-(start + size) >> k.PAGE_SHIFT)
    if end_pfn > k.max_pfn:
        k.max_pfn = end_pfn
        k.max_low_pfn = end_pfn
        k.high_memory = end_pfn << k.PAGE_SHIFT


def arch_add_memory(k: Kernel, nid: int, start: int, size: int, params: MhpParams) -> None:
    """
    Map a range and add its pages.

    Raises:
        KernelError: ERANGE, or what __add_pages() says.

    Source: arch/x86/mm/init_64.c arch_add_memory() [all]
    """
    if not k.tree.has_subsections:
        return _arch_add_memory_v4_9(k, nid, start, size, params)
    init.init_memory_mapping(k, start, start + size)
    add_pages(k, nid, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT, params)


def add_pages(k: Kernel, nid: int, start_pfn: int, nr_pages: int, params: MhpParams) -> None:
    """
    Add pages, and raise max_pfn even if that failed.

    Raises:
        KernelError: ERANGE beyond what can be addressed; what __add_pages() says.

    Source: arch/x86/mm/init_64.c add_pages() [v5.3]
    """
    end = (start_pfn + nr_pages << k.PAGE_SHIFT) - 1
    if k.tree.physmem_end and WARN_ON_ONCE(k.log, end > kaslr.PHYSMEM_END(k)):
        raise KernelError(ERANGE, f"the range ends beyond {kaslr.PHYSMEM_END(k):#x}", pfn=start_pfn)
    failure: KernelError | None = None
    try:
        memory_hotplug._add_pages_v5_3(k, nid, start_pfn, nr_pages, params)
    except KernelError as err:
        failure = err
    WARN_ON_ONCE(k.log, failure is not None)
    update_end_of_memory_vars(k, start_pfn << k.PAGE_SHIFT, nr_pages << k.PAGE_SHIFT)
    if failure is not None:
        raise failure


def remove_pagetable(k: Kernel, start: int, end: int, direct: bool, altmap: VmemAltmap | None) -> None:
    """
    Unmap [start, end), and free tables that have no entry left.

    Args:
        direct: The range is of the linear map, here by physical addresses; else of the virtual memmap, and what is mapped is
            freed, too.
        altmap: Where the memmap's pages came from.

    Raises:
        KernelBugError: a part of a 1 GiB leaf is to go.

    Source: arch/x86/mm/init_64.c remove_pagetable() [v5.10, v6.1, v6.12]
    """
    top = P4D if page.pgtable_l5_enabled(k) else PUD
    if not direct:
        sparse_vmemmap.unmap_backing(k, start, end, altmap, whole=False)
        return sparse_vmemmap.free_empty_tables(k, start, end, top - 1)
    linear = k.linear_rw()
    remove_pud_table(k, linear, start, end)
    # The PUD tables of a four-level kernel stay; so do what lies below 1 GiB, which the boot code mapped.
    for level in range(top):
        shift = linear.shifts[level + 1]
        for number in _removable(linear, level, start >> shift, (end - 1 >> shift) + 1):
            for low, high, pfn in linear.tables[level].cut(number, number + 1):
                free_pagetable(k, pfn, high - low)


def _removable(linear: LinearMap, level: int, first: int, last: int) -> list[int]:
    """The tables [first, last) of a level that are there and empty. Source: none; free_pte_table(), free_pmd_table()"""
    numbers = [number for low, high, _ in linear.tables[level].within(first, last) for number in range(low, high)]
    return [number for number in numbers if linear.empty(level, number)]


def remove_pud_table(k: Kernel, linear: LinearMap, start: int, end: int) -> None:
    """
    Clear the leaves of physical [start, end). A 2 MiB leaf that is not all in the range stays.

    A 1 GiB leaf must be: from v5.13 on nobody looks, and what it maps is taken for a table of 2 MiB leaves; before, what is to go
    is overwritten, and the leaf stays until all of it is.

    Source: arch/x86/mm/init_64.c remove_pud_table(), remove_pmd_table(), remove_pte_table() [v6.12]
    """
    for low, high, kind in list(linear.leaves.within(start, end)):
        size = 1 << linear.shifts[kind]
        first, last = -(-low // size) * size, high // size * size
        if kind == PUD and (first, last) != (low, high):
            if k.tree.x86_splits_no_leaf:
                bug.oops(
                    k.log, "BUG: unable to handle page fault", f"the memory at {low:#x} was taken for a table of the linear map")
        if kind == PTE:
            first = max(first, GIB)
        if first < last:
            linear.leaves.cut(first, last)


def free_pagetable(k: Kernel, pfn: int, count: int) -> None:
    """
    Free `count` pages of tables; those of boot memory, which are never empty, stay.

    Source: arch/x86/mm/init_64.c free_pagetable()
    """
    if pfn >= 0:
        page_alloc._free_used_pages(k, pfn, count)


def kernel_physical_mapping_remove(k: Kernel, start: int, end: int) -> None:
    """Unmap physical [start, end). Source: arch/x86/mm/init_64.c kernel_physical_mapping_remove()"""
    remove_pagetable(k, start, end, True, None)


def arch_remove_memory(k: Kernel, start: int, size: int, altmap: VmemAltmap | None) -> None:
    """
    Take sections and the linear map of a range away.

    Source: arch/x86/mm/init_64.c arch_remove_memory() [v4.9, v5.3]
    """
    if not k.tree.hot_remove_refuses:
        start_pfn = start >> k.PAGE_SHIFT
        try:
            memory_hotplug._remove_pages_v4_9(k, mm.page_zone(k, start_pfn), start_pfn, size >> k.PAGE_SHIFT)
        except KernelError:
            WARN_ON_ONCE(k.log, True)
            kernel_physical_mapping_remove(k, start, start + size)
            raise
        kernel_physical_mapping_remove(k, start, start + size)
        return
    memory_hotplug.__remove_pages(k, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT, altmap)
    kernel_physical_mapping_remove(k, start, start + size)


def _arch_add_memory_v4_9(k: Kernel, nid: int, start: int, size: int, params: MhpParams) -> None:
    """
    Map the range, add its pages to ZONE_NORMAL (or MOVABLE, see zone_for_memory()), raise max_pfn even if that failed.

    Raises:
        KernelError: what __add_pages() says.

    Source: arch/x86/mm/init_64.c arch_add_memory() [v4.9]
    """
    zone = k.zone(nid, memory_hotplug.zone_for_memory(k, nid, start, size, k.ZONE_NORMAL, params.for_device))
    init.init_memory_mapping(k, start, start + size)
    failure: KernelError | None = None
    try:
        memory_hotplug.__add_pages(k, nid, zone, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT)
    except KernelError as err:
        failure = err
    WARN_ON_ONCE(k.log, failure is not None)
    update_end_of_memory_vars(k, start, size)
    if failure is not None:
        raise failure


def vmemmap_populate(k: Kernel, start_pfn: int, end_pfn: int, node: int, altmap: VmemAltmap | None) -> None:
    """
    Make struct pages of [start_pfn, end_pfn): PMD blocks, single pages where none is to be had; for parts of a section (v5.3)
    single pages, never from an altmap.

    Raises:
        KernelError: ENOMEM.

    Source: arch/x86/mm/init_64.c vmemmap_populate() [all]
    """
    if not k.tree.has_subsections:
        return vmemmap_populate_hugepages(k, start_pfn, end_pfn, node)
    start, end = pfn_to_page(k, start_pfn), pfn_to_page(k, end_pfn)
    if end_pfn - start_pfn < k.PAGES_PER_SECTION:
        sparse_vmemmap.vmemmap_populate_basepages(k, start, end, node, None)
    else:
        sparse_vmemmap.vmemmap_populate_hugepages(k, start, end, node, altmap)
    sparse_vmemmap.map_section(k, start_pfn, end_pfn)


def vmemmap_free(k: Kernel, start_pfn: int, end_pfn: int, altmap: VmemAltmap | None) -> None:
    """Give the memmap of a range back. Source: arch/x86/mm/init_64.c vmemmap_free() [v5.3]"""
    remove_pagetable(k, pfn_to_page(k, start_pfn), pfn_to_page(k, end_pfn), False, altmap)


def vmemmap_populate_hugepages(k: Kernel, start_pfn: int, end_pfn: int, node: int) -> None:
    """Source: arch/x86/mm/init_64.c vmemmap_populate_hugepages() [v4.9]"""
    sparse_vmemmap.vmemmap_populate_pmds(k, start_pfn, end_pfn, node, fallback=True)


def arch_report_meminfo(k: Kernel) -> str:
    """How the linear map is made. Source: arch/x86/mm/pat/set_memory.c arch_report_meminfo() [all]"""
    assert k.linear is not None
    if k.tree.has_subsections:
        sizes = [size // KIB for size in k.linear.bytes_by_level()]
        lines = [f"DirectMap4k:    {sizes[PTE]:>8} kB\n", f"DirectMap2M:    {sizes[PMD]:>8} kB\n"]
        return "".join([*lines, f"DirectMap1G:    {sizes[PUD]:>8} kB\n"] if "nogbpages" not in k.cmdline else lines)
    mapped = k.linear.leaves.total()
    small = min(mapped, _DIRECT_MAP_4K)
    return f"DirectMap4k:    {small // KIB:>8} kB\nDirectMap2M:    {(mapped - small) // KIB:>8} kB\n"


def kern_addr_valid(k: Kernel, addr: int) -> bool:
    """
    Whether a kernel address may be read: the page tables reach it, and pfn_valid() for what they point to.

    C asks for the first pfn of the block mapping that the address lies in; here it is the address's own page.

    Source: arch/x86/mm/init_64.c kern_addr_valid() [v4.9]
    """
    bits = 56 if page.pgtable_l5_enabled(k) else 47
    if addr >> bits not in (0, (1 << 64 - bits) - 1) or addr < page.PAGE_OFFSET(k):
        return False
    phys = page.__pa(k, addr)
    if not linear_mapped(k, phys):
        return False
    return mmzone.pfn_valid(k, phys >> k.PAGE_SHIFT)
