# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: what of /dev/mem may be read, and what mapped. None of it asks pfn_valid() in v4.9.

Source: arch/arm64/mm/mmap.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.arch.arm64.include.memory import PHYS_MASK, PHYS_OFFSET
from memhp.linux.kernel import resource

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def valid_phys_addr_range(k: Kernel, addr: int, size: int) -> bool:
    """
    Whether /dev/mem may be read: between the first memory and high_memory, whatever lies there.

    Source: arch/arm64/mm/mmap.c valid_phys_addr_range() [v4.9]
    """
    if addr < PHYS_OFFSET(k):
        return False
    return addr + size <= k.high_memory


def valid_mmap_phys_addr_range(k: Kernel, pfn: int, size: int) -> bool:
    """Source: arch/arm64/mm/mmap.c valid_mmap_phys_addr_range() [v4.9]"""
    return not ((pfn << k.PAGE_SHIFT) + size & (1 << 64) - 1) & ~PHYS_MASK


def devmem_is_allowed(k: Kernel, pfn: int) -> bool:
    """
    Under STRICT_DEVMEM: no System RAM. (Nothing here is marked exclusive.)

    Source: arch/arm64/mm/mmap.c devmem_is_allowed() [v4.9]
    """
    return not resource.page_is_ram(k, pfn)
