# SPDX-License-Identifier: GPL-2.0-only
"""
kmemleak: scanning struct pages for pointers.

Source: mm/kmemleak.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import REFCOUNT
from memhp.linux.mm import internal

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def kmemleak_scan(k: Kernel) -> int:
    """
    Read every struct page of every online node whose pfn is valid; returns how many were in use and scanned.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/kmemleak.c kmemleak_scan() [v4.9], the loop over struct pages
    """
    scanned = 0
    for nid in sorted(k.node_states[mmzone.N_ONLINE]):
        pgdat = k.nodes[nid]
        for start, end in internal.valid_runs(k, pgdat.node_start_pfn, mmzone.pgdat_end_pfn(pgdat)):
            for columns, low, high, _ in page_ranges(k, start, end - start):
                scanned += high - low - columns.count(REFCOUNT, low, high, 0xFF, 0)
    return scanned
