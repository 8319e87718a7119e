# SPDX-License-Identifier: GPL-2.0-only
"""
page_owner: who allocated what. The walks over a zone and over all pfns.

Source: mm/page_owner.c [v4.9], as far as pfns go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.mmzone import Zone
from memhp.linux.include.page_flags import PG_RESERVED
from memhp.linux.mm import internal

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def _blocks(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int]]:
    """
    The pageblocks of [start, end) whose first pfn is valid; after one that is not, the walk goes on at the next MAX_ORDER block.

    Source: mm/page_owner.c init_pages_in_zone(), the outer loop
    """
    pfn = start
    step = 1 << (k.MAX_ORDER - 1)
    block = k.pageblock_nr_pages
    while pfn < end:
        if not mmzone.pfn_valid(k, pfn):
            pfn = (pfn // step + 1) * step
            continue
        stop = min((pfn // block + 1) * block, end)
        yield pfn, stop
        pfn = stop


def init_pages_in_zone(k: Kernel, zone: Zone) -> int:
    """
    Count the pages of a zone that were allocated before page_owner came up.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/page_owner.c init_pages_in_zone() [v4.9]
    """
    count = 0
    for pfn, block_end_pfn in _blocks(k, zone.zone_start_pfn, mmzone.zone_end_pfn(zone)):
        for start, end in internal.within_runs(k, pfn, block_end_pfn):
            free = internal.free_mask(k, start, end)
            used = internal.both(internal.zone_mask(k, zone, start, end), internal.neither(free, free))
            reserved = b"".join(
                bytes(1 if flag & PG_RESERVED else 0 for flag in columns.values(FLAGS, low, high))
                for columns, low, high, _ in page_ranges(k, start, end - start))
            count += internal.both(used, internal.neither(reserved, reserved)).count(1)
    return count


def read_page_owner(k: Kernel, ppos: int) -> int:
    """
    Return the first pfn from `ppos` on that is in use, or -1; what it would print is not modelled.

    The area test is made once for each MAX_ORDER block, from its first pfn.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/page_owner.c read_page_owner() [v4.9]
    """
    step = 1 << (k.MAX_ORDER - 1)
    pfn = ppos
    while not mmzone.pfn_valid(k, pfn) and pfn % step:
        pfn += 1
    while pfn < k.max_pfn:
        stop = min((pfn // step + 1) * step, k.max_pfn)
        if pfn % step == 0 and not mmzone.pfn_valid(k, pfn):
            pfn = stop
            continue
        for start, end in internal.within_runs(k, pfn, stop):
            free = internal.free_mask(k, start, end)
            used = free.find(0)
            if used < 0:
                for _ in page_ranges(k, start, end - start):
                    pass
                continue
            for _ in page_ranges(k, start, used + 1):
                pass
            return start + used
        pfn = stop
    return -1
