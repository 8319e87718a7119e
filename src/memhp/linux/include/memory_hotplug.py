# SPDX-License-Identifier: GPL-2.0-only
"""
How a block is to be brought online; and which pages are.

Source: include/linux/memory_hotplug.h [v4.9, v5.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.memory_model import pfn_to_page

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

MMOP_OFFLINE = -1
MMOP_ONLINE_KEEP = 0
MMOP_ONLINE_KERNEL = 1
MMOP_ONLINE_MOVABLE = 2


def pfn_to_online_page(k: Kernel, pfn: int) -> int | None:
    """
    Return the address of a pfn's struct page if its memory is online, else None.

    Unlike pfn_valid() it says whether the struct page means anything. A tree that does not mark sections online (before v4.13)
    has no such function.

    Source: include/linux/memory_hotplug.h pfn_to_online_page() [v4.13]; mm/memory_hotplug.c [v5.12]
    """
    assert k.tree.has_online_sections, f"{k.tree.name} does not know which sections are online"
    if not mmzone.INRANGE.test(k, pfn) or not mmzone.ONLINE.test(k, pfn):
        return None
    if k.config.HAVE_ARCH_PFN_VALID and not mmzone.pfn_valid(k, pfn):
        return None
    if k.tree.has_taint_sections:
        if not mmzone.SUB.test(k, pfn):
            return None
        if mmzone.TAINT.test(k, pfn) and any(start <= pfn < end for start, end in k.dev_pagemaps):
            return None
    return pfn_to_page(k, pfn)
