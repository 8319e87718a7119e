# SPDX-License-Identifier: GPL-2.0-only
"""
Gigantic pages: whether a range could become one.

Source: mm/hugetlb.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import FLAGS, REFCOUNT
from memhp.linux.include.mmzone import Zone
from memhp.linux.include.page_flags import PG_RESERVED
from memhp.linux.mm import internal

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def pfn_range_valid_gigantic(k: Kernel, z: Zone, start_pfn: int, nr_pages: int) -> bool:
    """
    Whether every page of a range is valid, of zone `z`, not reserved and without references. The walk ends at the first that
    is not.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/hugetlb.c pfn_range_valid_gigantic() [v4.9]
    """
    for start, end, valid in mmzone.pfn_valid_runs(k, start_pfn, start_pfn + nr_pages):
        if not valid:
            return False
        if internal.zone_mask(k, z, start, end).count(0):
            return False
        for columns, low, high, _ in page_ranges(k, start, end - start):
            if columns.count(FLAGS, low, high, PG_RESERVED, PG_RESERVED):
                return False
            if columns.count(REFCOUNT, low, high, 0xFF, 0) < high - low:
                return False
    return True
