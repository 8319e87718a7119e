# SPDX-License-Identifier: GPL-2.0-only
"""
Memory that fails: taking a page out of use.

Source: mm/memory-failure.c [v4.9], as far as it is settled by the pfn, PG_hwpoison and the page's count.
"""

from __future__ import annotations

from errno import EBUSY, EIO, ENXIO
from typing import TYPE_CHECKING

from memhp.errors import EHWPOISON, KernelError, UsageError
from memhp.linux.bug import printk
from memhp.linux.drivers.base import memory
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory_hotplug import pfn_to_online_page
from memhp.linux.include.memory_model import page_ranges_rw
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.page_flags import PG_HWPOISON, PageHWPoison, PageLRU
from memhp.linux.mm import internal, page_alloc

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

    Source: mm/memory-failure.c memory_failure() [v4.9, v6.12]
    """
    if k.tree.page_readers_ask_online:
        return _memory_failure_v5_10(k, pfn)
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

    Source: mm/memory-failure.c soft_offline_page(), get_any_page() [v4.9, v6.12]
    """
    if k.tree.page_readers_ask_online:
        return _soft_offline_page_v5_10(k, pfn)
    if PageHWPoison(k, pfn):
        raise KernelError(EBUSY, "poisoned already", pfn=pfn)
    if mm.page_ref_count(k, pfn) == 0 and internal.free_mask(k, pfn, pfn + 1)[0]:
        _set_hwpoison(k, pfn)
        return "free"
    if not PageLRU(k, pfn):
        raise KernelError(EIO, "neither free nor movable", pfn=pfn)
    return "in use"


def _memory_failure_v5_10(k: Kernel, pfn: int) -> str:
    """
    memory_failure() of trees that ask pfn_to_online_page(), for pages that are free: a page taken off the free lists counts.

    Raises:
        KernelError: ENXIO for a page that is not online; EHWPOISON if it is poisoned.
        UsageError: the page is in use: what becomes of its users is not modelled.

    Source: mm/memory-failure.c memory_failure() [v6.12]
    """
    if pfn_to_online_page(k, pfn) is None:
        printk(k.log, f"Memory failure: {pfn:#x}: memory outside kernel control")
        raise KernelError(ENXIO, "memory outside kernel control: the page is not online", pfn=pfn)
    if PageHWPoison(k, pfn):
        if k.tree.poisoned_again_is_an_action:
            action_result(k, pfn, "already poisoned page", "Failed")
        else:
            printk(k.log, f"Memory failure: {pfn:#x}: already hardware poisoned")
        raise KernelError(EHWPOISON, "poisoned already", pfn=pfn)
    if not internal.free_mask(k, pfn, pfn + 1)[0]:
        raise UsageError(f"pfn {pfn:#x} is in use, and what its failure does to its users is not modelled; nothing was changed")
    _take_off(k, pfn)
    action_result(k, pfn, "free buddy page", "Recovered")
    return "free"


def _take_off(k: Kernel, pfn: int) -> None:
    """Poison a free page, off the free lists, and count it. Source: mm/memory-failure.c page_handle_poison(), memory_failure()"""
    page_alloc.take_page_off_buddy(k, pfn)
    _set_hwpoison(k, pfn)
    mm.set_page_count(k, pfn, 1, 1)
    if k.tree.memory_block_counts_poison:
        memory.memblk_nr_poison_inc(k, pfn)


def action_result(k: Kernel, pfn: int, action: str, result: str) -> None:
    """Source: mm/memory-failure.c action_result()"""
    printk(k.log, f"Memory failure: {pfn:#x}: recovery action for {action}: {result}")


def _soft_offline_page_v5_10(k: Kernel, pfn: int) -> str:
    """
    soft_offline_page() of trees that ask pfn_to_online_page(), for pages that are free.

    Raises:
        KernelError: ENXIO for what pfn_valid() denies; EIO for a page that is not online.
        UsageError: the page is in use.

    Source: mm/memory-failure.c soft_offline_page() [v6.12]
    """
    if not mmzone.pfn_valid(k, pfn):
        raise KernelError(ENXIO, "pfn_valid() is false", pfn=pfn)
    if pfn_to_online_page(k, pfn) is None:
        raise KernelError(EIO, "the page is not online", pfn=pfn)
    if PageHWPoison(k, pfn):
        printk(k.log, f"Memory failure: {pfn:#x}: page already poisoned")
        return "already"
    if not internal.free_mask(k, pfn, pfn + 1)[0]:
        raise UsageError(f"pfn {pfn:#x} is in use, and moving a single page away is not modelled; nothing was changed")
    _take_off(k, pfn)
    return "free"
