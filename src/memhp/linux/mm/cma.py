# SPDX-License-Identifier: GPL-2.0-only
"""
The contiguous memory allocator: an area that only movable pages may use, so that it can be emptied when a driver wants it.

Source: mm/cma.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.bug import printk
from memhp.linux.include import mm
from memhp.linux.mm import memblock, mm_init, page_alloc
from memhp.units import GIB, MIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def _min_alignment_bytes(k: Kernel) -> int:
    """CMA_MIN_ALIGNMENT_BYTES, once the larger of a pageblock and the largest free block. Source: none; include/linux/cma.h"""
    pages = k.pageblock_nr_pages if k.tree.cma_pageblock_aligned else max(k.pageblock_nr_pages, 1 << k.MAX_ORDER - 1)
    return pages << k.PAGE_SHIFT


def cma_declare_contiguous_nid(k: Kernel, size: int, limit: int) -> None:
    """
    Reserve an area below `limit`: upwards from 4 GiB where there is that much, else downwards from the limit.

    Source: mm/cma.c cma_declare_contiguous_nid() [v5.10, v6.1, v6.12], for no base and any node
    """
    alignment = _min_alignment_bytes(k)
    memblock_end = memblock.memblock_end_of_DRAM(k)
    size = -(-size // alignment) * alignment
    limit = min(limit & -alignment, memblock_end)
    addr = 0
    if not memblock.memblock_bottom_up(k) and memblock_end >= 4 * GIB + size:
        memblock.memblock_set_bottom_up(k, True)
        addr = memblock.memblock_phys_alloc_range(k, size, alignment, 4 * GIB, limit)
        memblock.memblock_set_bottom_up(k, False)
    addr = addr or memblock.memblock_phys_alloc_range(k, size, alignment, 0, limit)
    if not addr:
        printk(k.log, f"cma: Failed to reserve {size // MIB} MiB on node -1")
        return
    k.cma_areas += ((addr, size),)
    printk(k.log, f"cma: Reserved {size // MIB} MiB at {addr:#018x} on node -1")


def cma_activate_area(k: Kernel, base: int, size: int) -> None:
    """
    Give the pages of an area to the buddy, as CMA's; all of them if they lie in one zone, else as anybody's.

    Source: mm/cma.c cma_activate_area() [all]
    """
    base_pfn, count = base >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    zone = mm.page_zone(k, base_pfn)
    if any(mm.page_zone(k, pfn) is not zone for pfn, _ in page_alloc._zone_pieces(k, base_pfn, base_pfn + count)):
        page_alloc.free_reserved_area(k, base, base + size, "CMA")
        printk(k.log, "cma: CMA area reserved could not be activated")
        return
    for pfn in range(base_pfn, base_pfn + count, k.pageblock_nr_pages):
        mm_init.init_cma_reserved_pageblock(k, pfn)


def cma_init_reserved_areas(k: Kernel) -> None:
    """Source: mm/cma.c cma_init_reserved_areas() [all]"""
    for base, size in k.cma_areas:
        cma_activate_area(k, base, size)
