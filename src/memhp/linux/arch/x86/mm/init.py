# SPDX-License-Identifier: GPL-2.0-only
"""
x86: the linear map, cut by page size; what of /dev/mem may be touched under STRICT_DEVMEM.

Source: arch/x86/mm/init.c [v4.9, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux import bug
from memhp.linux.arch.x86.mm import init_64
from memhp.linux.include.gfp import GFP_KERNEL
from memhp.linux.include.page_flags import KIND_KERNEL_TABLE, set_page_kind
from memhp.linux.include.pgtable import BOOT, PMD, PUD, LinearMap
from memhp.linux.kernel import resource
from memhp.linux.mm import memblock, page_alloc
from memhp.units import MIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def devmem_is_allowed(k: Kernel, pagenr: int) -> bool:
    """
    The first megabyte, and what is no System RAM. (Nothing here is marked exclusive.)

    Source: arch/x86/mm/init.c devmem_is_allowed() [v4.9]
    """
    if pagenr < 256:
        return True
    return not resource.page_is_ram(k, pagenr)


def page_size_mask(k: Kernel) -> int:
    """
    Return the levels that leaves may have. (The processor that v4.9 was recorded on has no 1 GiB pages; the lab's has.)

    Source: none; arch/x86/mm/init.c page_size_mask
    """
    return 1 << PMD | (1 << PUD if k.tree.has_subsections and "nogbpages" not in k.cmdline else 0)


def alloc_low_pages(k: Kernel, count: int) -> list[tuple[int, int]]:
    """
    Allocate pages for tables, as runs [start, end): once the page allocator works, from there. In v4.9 they are not counted.

    Raises:
        KernelBugError: there are no more; nothing is prepared for that.

    Source: arch/x86/mm/init.c alloc_low_pages()
    """
    if not k.slab_is_available or not k.tree.has_subsections:
        return [(BOOT, BOOT + count)]
    runs = page_alloc._alloc_base_pages(k, GFP_KERNEL, min(k.nodes), count)
    if sum(end - start for start, end in runs) < count:
        bug.oops(k.log, "BUG: kernel NULL pointer dereference, address: 0000000000000000", "no page for a table")
    for start, end in runs:
        set_page_kind(k, start, end - start, KIND_KERNEL_TABLE)
    return runs


MapRange = tuple[int, int, int]
"""struct map_range: first byte, end, levels that leaves may have there beside pages."""


def split_mem_range(k: Kernel, start: int, end: int) -> list[MapRange]:
    """
    Cut [start, end) into parts by the largest page size that alignment allows: 4K head, 2M, 1G, 2M, 4K tail.

    At boot a part gets larger pages than that, if what lies around it is memory too.

    Source: arch/x86/mm/init.c split_mem_range() [v6.12]
    """
    pmd, pud = 1 << 21, 1 << 30
    mask = page_size_mask(k)
    parts: list[MapRange] = []

    def save_mr(low: int, high: int, levels: int) -> int:
        if low < high:
            parts.append((low, high, levels & mask))
        return max(low, high)

    position = save_mr(start, min(-(-start // pmd) * pmd, end), 0)
    last_pmd = end // pmd * pmd
    position = save_mr(position, max(position, min(-(-position // pud) * pud, last_pmd)), 1 << PMD)
    position = save_mr(position, max(position, end // pud * pud), 1 << PMD | 1 << PUD)
    position = save_mr(position, max(position, last_pmd), 1 << PMD)
    save_mr(position, end, 0)
    if not k.slab_is_available:
        parts = adjust_range_page_size_mask(k, parts)
    merged: list[MapRange] = []
    for low, high, levels in parts:
        if merged and merged[-1][1:] == (low, levels):
            merged[-1] = (merged[-1][0], high, levels)
        else:
            merged.append((low, high, levels))
    return merged


def adjust_range_page_size_mask(k: Kernel, parts: list[MapRange]) -> list[MapRange]:
    """Source: arch/x86/mm/init.c adjust_range_page_size_mask() [v6.12]"""
    mask = page_size_mask(k)
    found = []
    for low, high, levels in parts:
        for level, size in ((PMD, 1 << 21), (PUD, 1 << 30)):
            if mask >> level & 1 and not levels >> level & 1:
                first, last = low // size * size, -(-high // size) * size
                if memblock.memblock_is_region_memory(k, first, last - first):
                    levels |= 1 << level
        found.append((low, high, levels))
    return found


def init_memory_mapping(k: Kernel, start: int, end: int) -> None:
    """
    Map physical [start, end) linearly.

    Source: arch/x86/mm/init.c init_memory_mapping() [all]
    """
    for low, high, levels in split_mem_range(k, start, end):
        init_64.kernel_physical_mapping_init(k, low, high, levels)


def init_range_memory_mapping(k: Kernel, r_start: int, r_end: int) -> int:
    """Map the memory of a range; returns its bytes. Source: arch/x86/mm/init.c init_range_memory_mapping() [v6.12]"""
    mapped_ram_size = 0
    for start_pfn, end_pfn, _ in list(memblock.for_each_mem_pfn_range(k)):
        start, end = max(start_pfn << k.PAGE_SHIFT, r_start), min(end_pfn << k.PAGE_SHIFT, r_end)
        if start < end:
            init_memory_mapping(k, start, end)
            mapped_ram_size += end - start
    return mapped_ram_size


def memory_map_top_down(k: Kernel, map_start: int, map_end: int) -> None:
    """
    Map memory from its end downwards, in steps that grow as memory for tables becomes reachable.

    Source: arch/x86/mm/init.c memory_map_top_down() [v6.12]
    """
    pmd = 1 << 21
    # Where the last free 2 MiB are that lie aligned; they are given back at once.
    addr = memblock.memblock_find_in_range(k, map_start, map_end, pmd, pmd)
    real_end = addr + pmd if addr else max(map_start, map_end // pmd * pmd)
    step_size, last_start, mapped_ram_size = pmd, real_end, 0
    while last_start > map_start:
        start = max(map_start, (last_start - 1) // step_size * step_size) if last_start > step_size else map_start
        mapped_ram_size += init_range_memory_mapping(k, start, last_start)
        last_start = start
        if mapped_ram_size >= step_size:
            step_size <<= 8
    if real_end < map_end:
        init_range_memory_mapping(k, real_end, map_end)


def memory_map_bottom_up(k: Kernel, map_start: int, map_end: int) -> None:
    """
    Map memory upwards, in the same steps: with `movable_node`, where allocations come from above the kernel's image.

    Source: arch/x86/mm/init.c memory_map_bottom_up() [v6.12]
    """
    step_size, start, mapped_ram_size = 1 << 21, map_start, 0
    while start < map_end:
        next_ = min(map_end, (start // step_size + 1) * step_size) if map_end - start > step_size else map_end
        mapped_ram_size += init_range_memory_mapping(k, start, next_)
        start = next_
        if mapped_ram_size >= step_size:
            step_size <<= 8


def init_mem_mapping(k: Kernel) -> None:
    """
    Map all memory linearly, and all of the first 1 MiB whatever is there.

    Source: arch/x86/mm/init.c init_mem_mapping() [all]
    """
    k.linear = LinearMap(init_64.pgtable_shifts(k), 0, k.token)
    init_memory_mapping(k, 0, MIB)
    if not k.tree.has_subsections:
        return _init_mem_mapping_v4_9(k)
    end = k.max_pfn << k.PAGE_SHIFT
    if k.memblock.bottom_up and k.hardware.ram_children:
        kernel_end = k.hardware.ram_children[-1].end + 1
        memory_map_bottom_up(k, kernel_end, end)
        memory_map_bottom_up(k, MIB, kernel_end)
    else:
        memory_map_top_down(k, MIB, end)


def _init_mem_mapping_v4_9(k: Kernel) -> None:
    """The rest, region by region; in which order does not matter here. Source: arch/x86/mm/init.c init_mem_mapping() [v4.9]"""
    for r in k.memblock.memory.regions:
        if r.base + r.size > MIB:
            init_memory_mapping(k, max(MIB, r.base), r.base + r.size)
