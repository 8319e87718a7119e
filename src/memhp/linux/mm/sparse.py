# SPDX-License-Identifier: GPL-2.0-only
"""
Sparse memory: which sections exist, and their memmaps.

The parts. A section is *present* once somebody said that memory lies in it, and *valid* (SECTION_HAS_MEM_MAP) once its memmap
is made. mem_section[] is an array of roots (SPARSEMEM_EXTREME), each a page of sections that is allocated when its first
section appears. The memmap itself lies in the virtual memmap; its pages come from memblock at boot and from the page allocator
at hot-add.

How trees differ. v4.9: a section is the smallest unit, sparse_add_one_section() adds it whole. v5.3 and later: sections
note whether they are early, and 2 MiB sub-sections can be added one by one with sparse_add_section().

Locks: mem_hotplug.lock for writing around adding; pgdat_resize_lock around the change of section_mem_map.

Source: mm/sparse.c [v4.9, v5.3].
"""

from __future__ import annotations

from errno import EEXIST, EINVAL
from itertools import groupby
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux import bug
from memhp.linux.include import mmzone
from memhp.linux.include.memblock import MEMBLOCK_ALLOC_ACCESSIBLE
from memhp.linux.include.memory_model import SIZEOF_STRUCT_PAGE, page_ranges_rw
from memhp.linux.include.memremap import VmemAltmap
from memhp.linux.include.mmzone import MemSection, Zone
from memhp.linux.include.page_flags import ClearPageHWPoison
from memhp.linux.mm import memblock, sparse_vmemmap

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

SIZEOF_MEM_SECTION = 32


def _root(k: Kernel, section_nr: int) -> int:
    """SECTION_NR_TO_ROOT(). Source: include/linux/mmzone.h"""
    return section_nr // (k.PAGE_SIZE // SIZEOF_MEM_SECTION)


def sparse_index_alloc(k: Kernel, root: int) -> None:
    """Allocate one root: a page of sections. Source: mm/sparse.c sparse_index_alloc()"""
    k.section_roots |= {root}


def sparse_index_init(k: Kernel, section_nr: int) -> int:
    """
    Make sure the root of a section exists; returns EEXIST if it did already, which every caller takes as success, else 0.

    Source: mm/sparse.c sparse_index_init() [v4.9]
    """
    root = _root(k, section_nr)
    if root in k.section_roots:
        return EEXIST
    sparse_index_alloc(k, root)
    return 0


def _section(k: Kernel, section_nr: int) -> MemSection:
    """Return a section for editing; an entry is made where the root exists but the section was never touched. Source: none"""
    section = k.mem_section.get(section_nr)
    if section is None:
        section = k.sections_rw()[section_nr] = MemSection(section_nr, k.token)
    elif section.owner is not k.token:
        section = k.section_rw(section_nr)
    return section


def memory_present(k: Kernel, nid: int, start: int, end: int) -> None:
    """
    Note, during boot, that pfns [start, end) of a node hold memory.

    Source: mm/sparse.c memory_present() [v4.9]
    """
    limit = 1 << (k.MAX_PHYSMEM_BITS - k.PAGE_SHIFT)
    start -= start % k.PAGES_PER_SECTION
    if end > limit:
        bug.WARN_ON_ONCE(k.log, True)
        end = limit
    for pfn in range(start, end, k.PAGES_PER_SECTION):
        section_nr = mmzone.pfn_to_section_nr(k, pfn)
        sparse_index_init(k, section_nr)
        ms = _section(k, section_nr)
        if not ms.section_mem_map:
            ms.early_nid = nid
            online = mmzone.SECTION_IS_ONLINE if k.tree.has_online_sections else 0
            ms.section_mem_map = mmzone.SECTION_MARKED_PRESENT | online


def memblocks_present(k: Kernel) -> None:
    """
    Note the sections of all boot memory, NOMAP or not.

    Source: mm/sparse.c memblocks_present() [v5.10, v6.1, v6.12]
    """
    for start, end, nid in memblock.for_each_mem_pfn_range(k):
        memory_present(k, nid if memblock._numa_valid_node(nid) else 0, start, end)


def sparse_early_nid(ms: MemSection) -> int:
    """Source: mm/sparse.c sparse_early_nid()"""
    return ms.early_nid


def sparse_init_one_section(k: Kernel, ms: MemSection, usemap: int, flags: int = 0) -> None:
    """
    Enter the memmap and the usemap into a present section: from here on it is valid.

    Args:
        flags: SECTION_IS_EARLY at boot in trees that note it.

    Raises:
        KernelError: EINVAL if it is not present.

    Source: mm/sparse.c sparse_init_one_section() [v4.9]
    """
    if not mmzone.present_section(ms):
        raise KernelError(EINVAL, "the section is not present", section=ms.nr)
    ms.section_mem_map |= mmzone.SECTION_HAS_MEM_MAP | flags
    if ms.pageblock_flags is None:
        ms.pageblock_flags = usemap


def sparse_init(k: Kernel) -> None:
    """
    Give every present section its usemap and memmap, from memblock.

    Source: mm/sparse.c sparse_init() [all]
    """
    if k.tree.free_area_init:
        return _sparse_init_v5_8(k)
    return _sparse_init_v4_9(k)


def _sparse_init_v4_9(k: Kernel) -> None:
    """Section by section. Source: mm/sparse.c sparse_init() [v4.9]"""
    early = mmzone.SECTION_IS_EARLY if k.tree.has_early_sections else 0
    for nr in sorted(k.mem_section):
        ms = k.section_rw(nr)
        if not mmzone.present_section(ms):
            continue
        sparse_vmemmap.sparse_mem_map_populate(k, nr, sparse_early_nid(ms))
        ms = k.section_rw(nr)
        ms.usage_from_boot = True
        sparse_init_one_section(k, ms, 0, early)
    if k.tree.has_subsections:
        for region in k.memblock.memory.regions:
            pfn, end_pfn = region.base >> k.PAGE_SHIFT, -(-(region.base + region.size) >> k.PAGE_SHIFT)
            subsection_map_init(k, pfn, end_pfn - pfn)


def _sparse_init_v5_8(k: Kernel) -> None:
    """Node by node, the memmaps of neighbouring sections in one piece. Source: mm/sparse.c sparse_init() [v5.10, v6.1, v6.12]"""
    memblocks_present(k)
    present = [nr for nr in sorted(k.mem_section) if mmzone.present_section_nr(k, nr)]
    for nid, sections in groupby(present, key=lambda nr: sparse_early_nid(k.mem_section[nr])):
        sparse_init_nid(k, nid, list(sections))


def sparse_init_nid(k: Kernel, nid: int, sections: list[int]) -> None:
    """
    Give a node's sections their usemaps and memmaps.

    Source: mm/sparse.c sparse_init_nid() [v5.10, v6.1, v6.12]
    """
    sparse_buffer_init(k, len(sections) * section_map_size(k), nid)
    for pnum in sections:
        pfn = mmzone.section_nr_to_pfn(k, pnum)
        k.arch.vmemmap_populate(k, pfn, pfn + k.PAGES_PER_SECTION, nid, None)
        ms = k.section_rw(pnum)
        ms.usage_from_boot = True
        sparse_init_one_section(k, ms, 0, mmzone.SECTION_IS_EARLY)
    sparse_buffer_fini(k)


def section_map_size(k: Kernel) -> int:
    """Return the bytes of a section's memmap, in whole PMDs. Source: mm/sparse.c section_map_size() [v5.10, v6.1, v6.12]"""
    pmd = 1 << k.arch.PMD_SHIFT(k.config)
    return -(-SIZEOF_STRUCT_PAGE * k.PAGES_PER_SECTION // pmd) * pmd


def sparse_buffer_init(k: Kernel, size: int, nid: int) -> None:
    """Set room aside for the memmaps of a node, if there is that much. Source: mm/sparse.c sparse_buffer_init()"""
    if not k.hardware.memmap_reserved:
        low = memblock.BOOTMEM_LOW_LIMIT(k)
        addr = memblock.memblock_alloc_exact_nid_raw(k, size, section_map_size(k), low, MEMBLOCK_ALLOC_ACCESSIBLE, nid)
        k.sparsemap_buf = (addr, addr + size) if addr else (0, 0)


def sparse_buffer_alloc(k: Kernel, size: int) -> int:
    """Take `size` bytes, a power of two, off that room, or return 0. Source: mm/sparse.c sparse_buffer_alloc()"""
    start, end = k.sparsemap_buf
    ptr = -(-start // size) * size
    if not start or ptr + size > end:
        return 0
    if ptr > start:
        memblock.memblock_phys_free(k, start, ptr - start)
    k.sparsemap_buf = (ptr + size, end)
    return ptr


def sparse_buffer_fini(k: Kernel) -> None:
    """Give back what is left of it. Source: mm/sparse.c sparse_buffer_fini()"""
    start, end = k.sparsemap_buf
    if start < end:
        memblock.memblock_phys_free(k, start, end - start)
    k.sparsemap_buf = (0, 0)


def sparse_add_one_section(k: Kernel, nid: int, start_pfn: int) -> None:
    """
    Add one section at run time: root, memmap, usemap; then it is present and valid.

    Raises:
        KernelError: ENOMEM if the memmap cannot be had; EEXIST if the section is present already.

    Source: mm/sparse.c sparse_add_one_section() [v4.9], which takes the zone; only its node is used
    """
    section_nr = mmzone.pfn_to_section_nr(k, start_pfn)
    sparse_index_init(k, section_nr)
    present = mmzone.present_section_nr(k, section_nr)
    sparse_vmemmap.sparse_mem_map_populate(k, section_nr, nid)
    if present:
        raise KernelError(EEXIST, "the section is present already", section=section_nr)
    ms = _section(k, section_nr)
    assert ms.memmap is not None
    ms.memmap.zero()
    ms.section_mem_map |= mmzone.SECTION_MARKED_PRESENT
    sparse_init_one_section(k, ms, 0)


def clear_hwpoisoned_pages(k: Kernel, pfn: int, nr_pages: int) -> None:
    """Forget which pages had failed. Source: mm/sparse.c clear_hwpoisoned_pages() [v4.9]"""
    ClearPageHWPoison(k, pfn, nr_pages)


def free_section_usemap(k: Kernel, section_nr: int) -> None:
    """
    Give a section's usemap and memmap back. The usemap of boot memory shares a page with others, and is kept.

    Source: mm/sparse.c free_section_usemap() [v4.9]
    """
    pfn = mmzone.section_nr_to_pfn(k, section_nr)
    k.arch.vmemmap_free(k, pfn, pfn + k.PAGES_PER_SECTION, None)


def sparse_remove_one_section(k: Kernel, zone: Zone, section_nr: int, map_offset: int) -> None:
    """
    Take a section's memmap and usemap away: it is neither present nor valid from here on.

    Args:
        map_offset: How many of its first struct pages describe the memmap itself (ZONE_DEVICE).

    Source: mm/sparse.c sparse_remove_one_section() [v4.9]
    """
    ms = k.section_rw(section_nr)
    if ms.section_mem_map:
        ms.section_mem_map = 0
        ms.pageblock_flags = None
    pfn = mmzone.section_nr_to_pfn(k, section_nr)
    clear_hwpoisoned_pages(k, pfn + map_offset, k.PAGES_PER_SECTION - map_offset)
    free_section_usemap(k, section_nr)


# Sub-sections [v5.3]


def _subsection_mask(k: Kernel, pfn: int, nr_pages: int) -> int:
    """The bits of a section's subsection_map that [pfn, pfn + nr_pages) covers. Source: mm/sparse.c subsection_mask_set()"""
    shift = mmzone.SUBSECTION_SHIFT - k.PAGE_SHIFT
    first = (pfn & (k.PAGES_PER_SECTION - 1)) >> shift
    last = ((pfn + nr_pages - 1) & (k.PAGES_PER_SECTION - 1)) >> shift
    return ((1 << (last - first + 1)) - 1) << first


def subsection_map_init(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Mark the sub-sections of a range of boot memory as in use.

    Source: mm/sparse.c subsection_map_init() [v5.3], sparse_init_subsection_map() [v6.12]
    """
    end = pfn + nr_pages
    while pfn < end:
        stop = min(end, pfn - pfn % k.PAGES_PER_SECTION + k.PAGES_PER_SECTION)
        ms = k.section_rw(mmzone.pfn_to_section_nr(k, pfn))
        ms.subsection_map |= _subsection_mask(k, pfn, stop - pfn)
        pfn = stop


def fill_subsection_map(k: Kernel, ms: MemSection, pfn: int, nr_pages: int) -> None:
    """
    Take sub-sections into use.

    Raises:
        KernelError: EINVAL for no pages; EEXIST if one of them is in use.

    Source: mm/sparse.c fill_subsection_map() [v5.3]
    """
    if not nr_pages:
        raise KernelError(EINVAL, "no pages", pfn=pfn)
    mask = _subsection_mask(k, pfn, nr_pages)
    if ms.subsection_map & mask:
        raise KernelError(EEXIST, "a sub-section is in use already", pfn=pfn)
    ms.subsection_map |= mask


def clear_subsection_map(k: Kernel, ms: MemSection, pfn: int, nr_pages: int) -> bool:
    """
    Give sub-sections back; False, with a warning, if one of them was not in use.

    Source: mm/sparse.c clear_subsection_map() [v5.3], which returns -EINVAL then
    """
    mask = _subsection_mask(k, pfn, nr_pages)
    if ms.pageblock_flags is None or ms.subsection_map & mask != mask:
        bug.WARN_ON(k.log, True)
        bug.printk(k.log, f"section already deactivated ({pfn:#x} + {nr_pages})")
        return False
    ms.subsection_map ^= mask
    return True


def is_subsection_map_empty(ms: MemSection) -> bool:
    """Source: mm/sparse.c is_subsection_map_empty() [v5.3]"""
    return not ms.subsection_map


def populate_section_memmap(k: Kernel, pfn: int, nr_pages: int, nid: int, altmap: VmemAltmap | None) -> None:
    """
    Make the struct pages of a part of a section.

    Raises:
        KernelError: ENOMEM.

    Source: mm/sparse.c populate_section_memmap() [v5.3]
    """
    sparse_vmemmap.__populate_section_memmap(k, pfn, nr_pages, nid, altmap)


def depopulate_section_memmap(k: Kernel, pfn: int, nr_pages: int, altmap: VmemAltmap | None) -> None:
    """Give the struct pages of a part of a section back. Source: mm/sparse.c depopulate_section_memmap() [v5.3]"""
    k.arch.vmemmap_free(k, pfn, pfn + nr_pages, altmap)


def free_map_bootmem(k: Kernel, pfn: int) -> None:
    """Give the memmap of a whole early section back. Source: mm/sparse.c free_map_bootmem() [v5.3]"""
    k.arch.vmemmap_free(k, pfn, pfn + k.PAGES_PER_SECTION, None)


def section_deactivate(k: Kernel, pfn: int, nr_pages: int, altmap: VmemAltmap | None) -> None:
    """
    Take sub-sections out of use, and their memmap with them.

    An early section keeps its memmap until its last sub-section goes, because it was populated whole; its usage it keeps for
    good, because that shares a page with other sections'.

    Source: mm/sparse.c section_deactivate() [v5.3]
    """
    nr = mmzone.pfn_to_section_nr(k, pfn)
    ms = k.section_rw(nr)
    section_is_early = mmzone.early_section(ms)
    if not clear_subsection_map(k, ms, pfn, nr_pages):
        return
    empty = is_subsection_map_empty(ms)
    if empty:
        ms.section_mem_map &= ~mmzone.SECTION_HAS_MEM_MAP
        if not ms.usage_from_boot:
            ms.pageblock_flags = None
    if not section_is_early:
        depopulate_section_memmap(k, pfn, nr_pages, altmap)
    elif empty:
        free_map_bootmem(k, mmzone.section_nr_to_pfn(k, nr))
    if empty:
        ms.section_mem_map = 0


def section_activate(k: Kernel, nid: int, pfn: int, nr_pages: int, altmap: VmemAltmap | None) -> None:
    """
    Take sub-sections into use and populate their memmap, unless the section is early and has one.

    Raises:
        KernelError: EEXIST, EINVAL (fill_subsection_map()); ENOMEM, and the sub-sections are given back.

    Source: mm/sparse.c section_activate() [v5.3]
    """
    ms = _section(k, mmzone.pfn_to_section_nr(k, pfn))
    fresh = ms.pageblock_flags is None
    if fresh:
        ms.pageblock_flags = 0
    try:
        fill_subsection_map(k, ms, pfn, nr_pages)
    except KernelError:
        if fresh:
            ms.pageblock_flags = None
        raise
    if nr_pages < k.PAGES_PER_SECTION and mmzone.early_section(ms):
        return
    try:
        populate_section_memmap(k, pfn, nr_pages, nid, altmap)
    except KernelError:
        section_deactivate(k, pfn, nr_pages, altmap)
        raise


def sparse_add_section(k: Kernel, nid: int, start_pfn: int, nr_pages: int, altmap: VmemAltmap | None = None) -> None:
    """
    Add pfns [start_pfn, start_pfn + nr_pages), sub-section aligned, inside one section.

    Args:
        altmap: Where the memmap's pages come from; None: the page allocator.

    Raises:
        KernelError: EEXIST, EINVAL, ENOMEM.

    Source: mm/sparse.c sparse_add_section() [v5.3]
    """
    section_nr = mmzone.pfn_to_section_nr(k, start_pfn)
    sparse_index_init(k, section_nr)
    section_activate(k, nid, start_pfn, nr_pages, altmap)
    if altmap is None or not altmap.inaccessible:
        page_init_poison(k, start_pfn, nr_pages)
    ms = k.section_rw(section_nr)
    ms.section_mem_map |= mmzone.SECTION_MARKED_PRESENT
    sparse_init_one_section(k, ms, 0)


def sparse_remove_section(k: Kernel, pfn: int, nr_pages: int, altmap: VmemAltmap | None = None) -> None:
    """
    Take pfns [pfn, pfn + nr_pages) of one section away.

    Source: mm/sparse.c sparse_remove_section() [v5.3]
    """
    if bug.WARN_ON_ONCE(k.log, not mmzone.valid_section(mmzone.__pfn_to_section(k, pfn))):
        return
    section_deactivate(k, pfn, nr_pages, altmap)


def page_init_poison(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Fill the struct pages of a range with ones, so that whoever looks at them before they are initialised is found out.

    Nothing is done without DEBUG_VM: they hold whatever was there.

    Source: mm/debug.c page_init_poison() [v5.3]
    """
    if not k.config.DEBUG_VM:
        return
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.poison(start, end)


def online_mem_sections(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """
    Mark the sections of a range online, in trees that note it.

    Source: mm/sparse.c online_mem_sections() [v4.13]
    """
    for pfn in range(start_pfn, end_pfn, k.PAGES_PER_SECTION):
        section_nr = mmzone.pfn_to_section_nr(k, pfn)
        if bug.WARN_ON(k.log, not mmzone.valid_section(mmzone.__nr_to_section(k, section_nr))):
            continue
        k.section_rw(section_nr).section_mem_map |= mmzone.SECTION_IS_ONLINE


def offline_mem_sections(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """
    Mark the sections of a range no longer online.

    Source: mm/sparse.c offline_mem_sections() [v4.13]
    """
    for pfn in range(start_pfn, end_pfn, k.PAGES_PER_SECTION):
        section_nr = mmzone.pfn_to_section_nr(k, pfn)
        if bug.WARN_ON(k.log, not mmzone.valid_section(mmzone.__nr_to_section(k, section_nr))):
            continue
        k.section_rw(section_nr).section_mem_map &= ~mmzone.SECTION_IS_ONLINE


def usemap_size(k: Kernel) -> int:
    """Return the bytes of a section's usemap, 4 bits a pageblock. Source: mm/sparse.c usemap_size()"""
    bits = 4 * (k.PAGES_PER_SECTION >> k.pageblock_order)
    return (bits + 63) // 64 * 8

