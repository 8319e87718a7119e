# SPDX-License-Identifier: GPL-2.0-only
"""
Compaction, as far as it walks a zone by pfn.

Source: mm/compaction.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mm, mmzone
from memhp.linux.include.mmzone import Zone
from memhp.linux.mm import page_alloc

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
