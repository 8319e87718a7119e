# SPDX-License-Identifier: GPL-2.0-only
"""
Idle page tracking: a bitmap by pfn.

Source: mm/page_idle.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mm, mmzone
from memhp.linux.include.page_flags import PageLRU

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def page_idle_get_page(k: Kernel, pfn: int) -> bool:
    """
    Whether a pfn is a page of user memory that can be held: valid, on an LRU list, with references.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/page_idle.c page_idle_get_page() [v4.9]
    """
    if not mmzone.pfn_valid(k, pfn):
        return False
    if not PageLRU(k, pfn) or not mm.page_ref_count(k, pfn):
        return False
    mm.page_zone(k, pfn)
    return True


def page_idle_bitmap_read(k: Kernel, pfn: int) -> bool:
    """
    Look at one bit of the bitmap; nothing is read from max_pfn on.

    Source: mm/page_idle.c page_idle_bitmap_read() [v4.9], for one page
    """
    return pfn < k.max_pfn and page_idle_get_page(k, pfn)
