# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: mapping physical addresses. pfn_valid() stands for "is RAM, and in the linear map".

Source: arch/arm64/mm/ioremap.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.arch.arm64.include.memory import PHYS_MASK
from memhp.linux.bug import WARN_ON
from memhp.linux.include import mmzone
from memhp.linux.include.io import DEVICE, LINEAR, NORMAL, UNCACHED, Mapping

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def __ioremap_caller(k: Kernel, phys_addr: int, size: int, prot: str) -> Mapping | None:
    """
    Map whole pages with a memory type, unless pfn_valid() takes the first for RAM: a warning, and nothing.

    Source: arch/arm64/mm/ioremap.c __ioremap_caller() [v4.9]
    """
    offset = phys_addr & (k.PAGE_SIZE - 1)
    phys_addr -= offset
    size = -(-(size + offset) // k.PAGE_SIZE) * k.PAGE_SIZE
    last_addr = phys_addr + size - 1
    if not size or last_addr & ~PHYS_MASK:
        return None
    if WARN_ON(k.log, mmzone.pfn_valid(k, phys_addr >> k.PAGE_SHIFT)):
        return None
    return Mapping(phys_addr, size, prot)


def __ioremap(k: Kernel, phys_addr: int, size: int, prot: str) -> Mapping | None:
    """Source: arch/arm64/mm/ioremap.c __ioremap() [v4.9]"""
    return __ioremap_caller(k, phys_addr, size, prot)


def ioremap(k: Kernel, phys_addr: int, size: int) -> Mapping | None:
    """Source: arch/arm64/include/asm/io.h ioremap(), also ioremap_nocache() and ioremap_wt() [v4.9]"""
    return __ioremap(k, phys_addr, size, DEVICE)


def ioremap_wc(k: Kernel, phys_addr: int, size: int) -> Mapping | None:
    """Source: arch/arm64/include/asm/io.h ioremap_wc() [v4.9]"""
    return __ioremap(k, phys_addr, size, UNCACHED)


def ioremap_cache(k: Kernel, phys_addr: int, size: int) -> Mapping | None:
    """
    Give a cacheable mapping: the linear address where pfn_valid(), else a new one.

    Source: arch/arm64/mm/ioremap.c ioremap_cache() [v4.9]
    """
    if mmzone.pfn_valid(k, phys_addr >> k.PAGE_SHIFT):
        return Mapping(phys_addr, size, LINEAR)
    return __ioremap_caller(k, phys_addr, size, NORMAL)
