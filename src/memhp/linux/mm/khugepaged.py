# SPDX-License-Identifier: GPL-2.0-only
"""
What huge pages ask of the watermarks: so much free memory that pageblocks need not be mixed.

Source: mm/khugepaged.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.mmzone import MIGRATE_PCPTYPES
from memhp.linux.mm import page_alloc
from memhp.units import MIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def set_recommended_min_free_kbytes(k: Kernel) -> None:
    """
    Raise min_free_kbytes: eleven pageblocks for each populated zone of the kernel's, at most a twentieth of its memory.

    Source: mm/khugepaged.c set_recommended_min_free_kbytes() [v5.10, v6.1, v6.12]
    """
    nr_zones = sum(
        1 for nid in k.node_states[mmzone.N_ONLINE] for zone in k.nodes[nid].node_zones
        if mmzone.populated_zone(zone) and zone.idx <= k.ZONE_NORMAL)
    recommended_min = k.pageblock_nr_pages * nr_zones * 2
    recommended_min += k.pageblock_nr_pages * nr_zones * MIGRATE_PCPTYPES * MIGRATE_PCPTYPES
    recommended_min = min(recommended_min, page_alloc.nr_free_buffer_pages(k) // 20) << (k.PAGE_SHIFT - 10)
    if recommended_min > k.min_free_kbytes:
        k.min_free_kbytes = recommended_min
    page_alloc.setup_per_zone_wmarks(k)


def khugepaged_min_free_kbytes_update(k: Kernel) -> None:
    """Do so again where there may be huge pages. Source: mm/khugepaged.c khugepaged_min_free_kbytes_update() [v5.10]"""
    if k.khugepaged:
        set_recommended_min_free_kbytes(k)


def start_stop_khugepaged(k: Kernel) -> None:
    """
    Start the thread that makes huge pages, unless the machine has less than 512 MiB.

    Source: mm/khugepaged.c start_stop_khugepaged(), mm/huge_memory.c hugepage_init() [all]
    """
    if k.config.TRANSPARENT_HUGEPAGE and k.totalram_pages >= 512 * MIB >> k.PAGE_SHIFT:
        k.khugepaged = True
        set_recommended_min_free_kbytes(k)
