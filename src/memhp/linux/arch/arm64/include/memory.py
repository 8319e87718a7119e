# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: from physical addresses to linear ones and back, and whether a linear address is good.

Source: arch/arm64/include/asm/memory.h [v4.9], with 48 bits of virtual address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.units import GIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

VA_BITS = 48
PAGE_OFFSET = 0xFFFF_8000_0000_0000
PHYS_MASK = (1 << 48) - 1
_ULONG = (1 << 64) - 1


def PHYS_OFFSET(k: Kernel) -> int:
    """Return where the linear map begins: the first memory, down to 1 GiB. Source: memstart_addr"""
    return min(r.start for r in k.hardware.memory) // GIB * GIB


def __phys_to_virt(k: Kernel, phys: int) -> int:
    """Source: arch/arm64/include/asm/memory.h __phys_to_virt()"""
    return (phys - PHYS_OFFSET(k) | PAGE_OFFSET) & _ULONG


def __virt_to_phys(k: Kernel, kaddr: int) -> int:
    """Source: arch/arm64/include/asm/memory.h __virt_to_phys(), for linear addresses"""
    return (kaddr & ~PAGE_OFFSET & _ULONG) + PHYS_OFFSET(k)


def virt_addr_valid(k: Kernel, kaddr: int) -> bool:
    """
    Say whether a linear address has memory behind it. The pfn it comes from is all that is asked.

    Source: arch/arm64/include/asm/memory.h virt_addr_valid(), _virt_addr_valid() [v4.9]
    """
    if kaddr < PAGE_OFFSET:
        return False
    return mmzone.pfn_valid(k, __virt_to_phys(k, kaddr) >> k.PAGE_SHIFT)
