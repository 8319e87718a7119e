# SPDX-License-Identifier: GPL-2.0-only
"""
Memory that fails: taking a page out of use.

Source: mm/memory-failure.c [v4.9], as far as it is settled by the pfn, PG_hwpoison and the page's count.
"""

from __future__ import annotations

from errno import EBUSY, EIO, ENXIO
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.bug import printk
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory_model import page_ranges_rw
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.page_flags import PG_HWPOISON, PageHWPoison, PageLRU
from memhp.linux.mm import internal

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def _set_hwpoison(k: Kernel, pfn: int) -> None:
    """SetPageHWPoison(). Source: include/linux/page-flags.h"""
    for columns, start, end, _ in page_ranges_rw(k, pfn, 1):
        columns.set_bits(FLAGS, start, end, PG_HWPOISON)


def memory_failure(k: Kernel, pfn: int) -> str:
    """
    Poison a page. What is done about a page in use (unmapping, killing) is not modelled.

    Returns:
        "already", "free" or "in use".

    Raises:
        KernelError: ENXIO for what pfn_valid() denies; EBUSY for a page without references that is not free.
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/memory-failure.c memory_failure() [v4.9]
    """
    if not mmzone.pfn_valid(k, pfn):
        printk(k.log, f"Memory failure: {pfn:#x}: memory outside kernel control")
        raise KernelError(ENXIO, "memory outside kernel control: pfn_valid() is false", pfn=pfn)
    if PageHWPoison(k, pfn):
        return "already"
    _set_hwpoison(k, pfn)
    if mm.page_ref_count(k, pfn) == 0:
        if internal.free_mask(k, pfn, pfn + 1)[0]:
            return "free"
        raise KernelError(EBUSY, "a page without references that is not free", pfn=pfn)
    return "in use"


def soft_offline_page(k: Kernel, pfn: int) -> str:
    """
    Poison a page that still reads well. Moving the contents of a page in use away is not modelled.

    Returns:
        "free" or "in use".

    Raises:
        KernelError: EBUSY if it is poisoned; EIO if it is neither free nor movable.
        KernelBugError: it has no struct page.

    Source: mm/memory-failure.c soft_offline_page(), get_any_page() [v4.9]
    """
    if PageHWPoison(k, pfn):
        raise KernelError(EBUSY, "poisoned already", pfn=pfn)
    if mm.page_ref_count(k, pfn) == 0 and internal.free_mask(k, pfn, pfn + 1)[0]:
        _set_hwpoison(k, pfn)
        return "free"
    if not PageLRU(k, pfn):
        raise KernelError(EIO, "neither free nor movable", pfn=pfn)
    return "in use"
