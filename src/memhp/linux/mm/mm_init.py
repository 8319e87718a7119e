# SPDX-License-Identifier: GPL-2.0-only
"""
Struct pages are initialised.

Source: mm/mm_init.c [v6.12]; mm/page_alloc.c in trees before v6.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include.memory_model import page_ranges_rw
from memhp.linux.include.memremap import VmemAltmap, vmem_altmap_offset
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.mmzone import MEMINIT_HOTPLUG
from memhp.linux.include.page_flags import PG_OFFLINE, PG_RESERVED
from memhp.linux.mm import page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def memmap_init_range(
    k: Kernel, size: int, nid: int, zone: int, start_pfn: int, zone_end_pfn: int, context: str, altmap: VmemAltmap | None,
    migratetype: int,
) -> None:
    """
    Initialise the struct pages of a range: nobody asks pfn_valid().

    Args:
        size: Pages.
        zone: Index of the zone.
        zone_end_pfn: Where the zone ends, for deferred initialisation, which the model does not do.
        context: MEMINIT_HOTPLUG marks every page reserved, since v6.11 PageOffline.
        altmap: Of ZONE_DEVICE memory: only the pages it sets aside are initialised here.
        migratetype: Of every pageblock that begins in the range.

    Source: mm/mm_init.c memmap_init_range() [v5.12, v6.12]; memmap_init_zone() before
    """
    end_pfn = start_pfn + size
    if k.highest_memmap_pfn < end_pfn - 1:
        k.highest_memmap_pfn = end_pfn - 1
    device = k.config.zones[zone] == "Device"
    if device:
        if altmap is None:
            return
        if start_pfn == altmap.base_pfn:
            start_pfn += altmap.reserve
        end_pfn = altmap.base_pfn + vmem_altmap_offset(altmap)
    page_alloc._not_early(k, start_pfn, end_pfn, zone, nid, migratetype)
    if context == MEMINIT_HOTPLUG:
        flag = PG_OFFLINE if k.tree.hotplug_pages_offline and not device else PG_RESERVED
        for columns, start, end, _ in page_ranges_rw(k, start_pfn, end_pfn - start_pfn):
            columns.set_bits(FLAGS, start, end, flag)
