# SPDX-License-Identifier: GPL-2.0-only
"""
x86: mapping physical addresses. What is RAM is asked of the resource tree first; pfn_valid() guards the look at the page.

Source: arch/x86/mm/ioremap.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.arch.x86.mm import physaddr
from memhp.linux.bug import WARN_ON_ONCE, printk, printk_once
from memhp.linux.include import mmzone
from memhp.linux.include.io import LINEAR, NORMAL, UNCACHED, WRITECOMBINE, Mapping
from memhp.linux.include.page_flags import reserved_pages
from memhp.linux.kernel import resource

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

ISA_START_ADDRESS, ISA_END_ADDRESS = 0xA0000, 0x100000


def __ioremap_check_ram(k: Kernel, start_pfn: int, nr_pages: int) -> int:
    """
    Return 1 if a page of System RAM is in use: valid, and not reserved.

    Source: arch/x86/mm/ioremap.c __ioremap_check_ram() [v4.9]
    """
    for start, end, valid in mmzone.pfn_valid_runs(k, start_pfn, start_pfn + nr_pages):
        if valid and reserved_pages(k, start, end - start) < end - start:
            return 1
    return 0


def __ioremap_caller(k: Kernel, phys_addr: int, size: int, pcm: str) -> Mapping | None:
    """
    Map whole pages with a memory type, unless RAM that is in use is among them: a warning, and nothing.

    Source: arch/x86/mm/ioremap.c __ioremap_caller() [v4.9]
    """
    last_addr = phys_addr + size - 1
    if not size or last_addr >> 64:
        return None
    if not physaddr.phys_addr_valid(k, phys_addr):
        printk(k.log, f"ioremap: invalid physical address {phys_addr:x}")
        WARN_ON_ONCE(k.log, True)
        return None
    if phys_addr >= ISA_START_ADDRESS and last_addr < ISA_END_ADDRESS:
        return Mapping(phys_addr, size, LINEAR)
    pfn, last_pfn = phys_addr >> k.PAGE_SHIFT, last_addr >> k.PAGE_SHIFT
    if resource.walk_system_ram_range(k, pfn, last_pfn - pfn + 1, __ioremap_check_ram) == 1:
        printk_once(k.log, f"ioremap on RAM at {phys_addr:#x} - {last_addr:#x}")
        return None
    start = pfn << k.PAGE_SHIFT
    return Mapping(start, (last_pfn + 1 << k.PAGE_SHIFT) - start, pcm)


def ioremap(k: Kernel, phys_addr: int, size: int) -> Mapping | None:
    """Source: arch/x86/mm/ioremap.c ioremap_nocache(), which is ioremap() [v4.9]"""
    return __ioremap_caller(k, phys_addr, size, UNCACHED)


def ioremap_wc(k: Kernel, phys_addr: int, size: int) -> Mapping | None:
    """Source: arch/x86/mm/ioremap.c ioremap_wc() [v4.9]"""
    return __ioremap_caller(k, phys_addr, size, WRITECOMBINE)


def ioremap_cache(k: Kernel, phys_addr: int, size: int) -> Mapping | None:
    """Source: arch/x86/mm/ioremap.c ioremap_cache() [v4.9]"""
    return __ioremap_caller(k, phys_addr, size, NORMAL)


def xlate_dev_mem_ptr(k: Kernel, phys: int) -> Mapping | None:
    """
    Reach one page of /dev/mem: linear where the resource tree says RAM, else mapped.

    Source: arch/x86/mm/ioremap.c xlate_dev_mem_ptr() [v4.9]
    """
    start = phys - phys % k.PAGE_SIZE
    if resource.page_is_ram(k, start >> k.PAGE_SHIFT):
        return Mapping(phys, k.PAGE_SIZE - phys % k.PAGE_SIZE, LINEAR)
    return ioremap_cache(k, start, k.PAGE_SIZE)
