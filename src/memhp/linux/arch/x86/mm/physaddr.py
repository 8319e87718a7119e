# SPDX-License-Identifier: GPL-2.0-only
"""
x86_64: whether an address is a good linear one.

Source: arch/x86/mm/physaddr.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.arch.x86.include.page import PAGE_OFFSET
from memhp.linux.include import mmzone

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def phys_addr_valid(k: Kernel, addr: int) -> bool:
    """Source: arch/x86/mm/physaddr.h phys_addr_valid()"""
    return not addr >> k.MAX_PHYSMEM_BITS


def __virt_addr_valid(k: Kernel, x: int) -> bool:
    """
    Whether memory lies behind a linear address. (Addresses of the kernel image's own mapping do not occur here.)

    Source: arch/x86/mm/physaddr.c __virt_addr_valid() [v4.9]
    """
    x -= PAGE_OFFSET(k)
    if x < 0 or not phys_addr_valid(k, x):
        return False
    return mmzone.pfn_valid(k, x >> k.PAGE_SHIFT)
