# SPDX-License-Identifier: GPL-2.0-only
"""
Compaction: walking a zone by pfn, and emptying a range for whoever wants all of it.

Source: mm/compaction.c [v4.9, v6.1, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import FLAGS, KIND, REFCOUNT
from memhp.linux.include.mmzone import Zone
from memhp.linux.include.page_flags import KIND_ANON, KIND_HUGE, PG_LRU
from memhp.linux.mm import migrate, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def __reset_isolation_suitable(k: Kernel, zone: Zone) -> int:
    """
    Make every pageblock of a zone a candidate again; returns how many (C returns nothing).

    Source: mm/compaction.c __reset_isolation_suitable() [v4.9]
    """
    reset = 0
    for pfn in range(zone.zone_start_pfn, mmzone.zone_end_pfn(zone), k.pageblock_nr_pages):
        if not mmzone.pfn_valid(k, pfn):
            continue
        if mm.page_zone(k, pfn) is not zone:
            continue
        reset += 1
    return reset


def pageblock_pfn_to_page(k: Kernel, start_pfn: int, end_pfn: int, zone: Zone) -> int | None:
    """
    Return a pageblock's first page without a look at it where the zone has no holes, else after one.

    Source: mm/internal.h pageblock_pfn_to_page() [v4.9]
    """
    if zone.contiguous:
        return start_pfn
    return page_alloc.__pageblock_pfn_to_page(k, start_pfn, end_pfn, zone)


# For alloc_contig_range()


def isolate_migratepages_range(k: Kernel, source: migrate.Source, start_pfn: int, end_pfn: int) -> None:
    """
    Take the pages of a range that can be moved off the LRU lists. In C it is 32 at a time.

    An anonymous page that is pinned is left where it is: it could not be moved.

    Source: mm/compaction.c isolate_migratepages_range(), isolate_migratepages_block() [v6.1]
    """
    for columns, low, high, first in page_ranges(k, start_pfn, end_pfn - start_pfn):
        lru = columns.values(FLAGS, low, high).translate(_LRU)
        counts = columns.values(REFCOUNT, low, high)
        kinds = columns.values(KIND, low, high)
        offset = lru.find(1)
        while offset >= 0:
            if counts[offset] and not (kinds[offset] == KIND_ANON and counts[offset] > 1):
                order = k.arch.PMD_SHIFT(k.config) - k.PAGE_SHIFT if kinds[offset] == KIND_HUGE else 0
                source.add(first + offset, first + offset + 1, order)
            offset = lru.find(1, offset + 1)


_LRU = bytes(1 if byte & PG_LRU else 0 for byte in range(256))


def isolate_freepages_range(k: Kernel, start_pfn: int, end_pfn: int) -> int:
    """
    Take the free pages of isolated pageblocks off the free lists.

    Returns:
        Where they end, which is `end_pfn` or, if a free block goes on, beyond it; 0 if one of them is not free, and then all are
        back where they were.

    Source: mm/compaction.c isolate_freepages_range() [v6.1]
    """
    zone = mm.page_zone(k, start_pfn)
    small, runs = page_alloc._pull_range(k.free_area_rw(zone), start_pfn, end_pfn)
    found = sorted([*((pfn, pfn + (1 << order)) for pfn, order in small), *runs])
    pfn = start_pfn
    for low, high in found:
        if low != pfn:
            break
        pfn = high
    if pfn >= end_pfn:
        return pfn
    for low, high in found:
        page_alloc._free_pages_range(k, zone, low, high)
    return 0
