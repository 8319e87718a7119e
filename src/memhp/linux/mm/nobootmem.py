# SPDX-License-Identifier: GPL-2.0-only
"""
From memblock to the page allocator.

Source: mm/nobootmem.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mm
from memhp.linux.include.memory_model import page_ranges_rw
from memhp.linux.include.mm_types import FLAGS, REFCOUNT
from memhp.linux.include.page_flags import PG_RESERVED
from memhp.linux.mm import memblock, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def __free_memory_core(k: Kernel, start: int, end: int) -> int:
    """
    Free the whole pages of bytes [start, end); returns their number.

    Source: mm/nobootmem.c __free_memory_core(), __free_pages_memory() [v4.9]
    """
    start_pfn, end_pfn = -(-start >> k.PAGE_SHIFT), end >> k.PAGE_SHIFT
    if start_pfn >= end_pfn:
        return 0
    for columns, low, high, _ in page_ranges_rw(k, start_pfn, end_pfn - start_pfn):
        columns.clear_bits(FLAGS, low, high, PG_RESERVED)
        columns.fill(REFCOUNT, low, high, 0)
    for piece, stop in page_alloc._zone_pieces(k, start_pfn, end_pfn):
        zone = mm.page_zone(k, piece)
        page_alloc._free_pages_range(k, zone, piece, stop)
        zone.managed_pages += stop - piece
    return end_pfn - start_pfn


def free_low_memory_core_early(k: Kernel) -> int:
    """
    Reserve what memblock has reserved, free the rest of memory; returns the number of pages freed.

    What firmware called hotpluggable was kept from early allocations; from here on it is memory like any other. Where memblock
    itself goes away after boot, the arrays it had to grow into are freed, too.

    Source: mm/nobootmem.c free_low_memory_core_early() [v4.9]
    """
    memblock.memblock_clear_hotplug(k, 0, (1 << 64) - 1)
    for start, end in list(memblock.for_each_reserved_mem_region(k)):
        page_alloc.reserve_bootmem_region(k, start, end + 1)
    count = sum(__free_memory_core(k, start, end) for start, end, _ in list(memblock.for_each_free_mem_range(k)))
    if k.config.ARCH_DISCARD_MEMBLOCK:
        for info in (
            memblock.get_allocated_memblock_reserved_regions_info, memblock.get_allocated_memblock_memory_regions_info,
        ):
            start, size = info(k)
            if size:
                count += __free_memory_core(k, start, start + size)
    return count


def free_all_bootmem(k: Kernel) -> int:
    """
    Hand all free memory to the page allocator; returns the number of pages.

    Source: mm/nobootmem.c free_all_bootmem() [v4.9]
    """
    for pgdat in k.nodes.values():
        for zone in pgdat.node_zones:
            zone.managed_pages = 0
    pages = free_low_memory_core_early(k)
    k.totalram_pages += pages
    return pages


