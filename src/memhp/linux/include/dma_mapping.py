# SPDX-License-Identifier: GPL-2.0-only
"""
Giving a device the address of another device's registers.

Source: include/linux/dma-mapping.h [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.bug import BUG_ON
from memhp.linux.include import mmzone
from memhp.linux.include.io import DEVICE, Mapping

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def dma_map_resource(k: Kernel, phys_addr: int, size: int) -> Mapping:
    """
    Map registers for DMA (no IOMMU: the address stays). RAM is not allowed, and pfn_valid() is what says "RAM".

    Raises:
        KernelBugError: pfn_valid().

    Source: include/linux/dma-mapping.h dma_map_resource() [v4.9]
    """
    BUG_ON(k.log, mmzone.pfn_valid(k, phys_addr >> k.PAGE_SHIFT), "dma_map_resource() was given what it takes for RAM")
    return Mapping(phys_addr, size, DEVICE)
