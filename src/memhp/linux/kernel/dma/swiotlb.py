# SPDX-License-Identifier: GPL-2.0-only
"""
Bounce buffers: low memory, taken at boot and never given back, for devices that do not reach all of it.

Source: kernel/dma/swiotlb.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.bug import printk
from memhp.linux.mm import memblock
from memhp.units import KIB, MIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

IO_TLB_SIZE = 2 * KIB
IO_TLB_SEGSIZE = 128
IO_TLB_DEFAULT_SIZE = 64 * MIB
_SIZEOF_SLOT = 24
_MIN_SLABS = MIB // IO_TLB_SIZE


def swiotlb_adjust_size(k: Kernel, size: int) -> None:
    """
    Ask for buffers of another size; they get as many slabs as the processors' areas share evenly.

    Source: kernel/dma/swiotlb.c swiotlb_adjust_size(), round_up_default_nslabs() [v6.12]
    """
    nareas = 1 << (k.hardware.cpus - 1).bit_length()
    slabs = max(-(-size // IO_TLB_SIZE), IO_TLB_SEGSIZE * nareas)
    k.swiotlb_slabs = 1 << (slabs - 1).bit_length()
    printk(k.log, f"software IO TLB: SWIOTLB bounce buffer size adjusted to {k.swiotlb_slabs * IO_TLB_SIZE // MIB}MB")


def swiotlb_init(k: Kernel, addressing_limit: bool) -> None:
    """
    Take the buffers from memory below 4 GiB, fewer if there is not that much.

    Args:
        addressing_limit: Some devices may not reach all memory; if not, nothing is taken.

    Source: kernel/dma/swiotlb.c swiotlb_init() [v5.10], swiotlb_init_remap() [v6.1, v6.12]
    """
    if not addressing_limit or k.hardware.memmap_reserved:
        return
    slabs = k.swiotlb_slabs or IO_TLB_DEFAULT_SIZE // IO_TLB_SIZE
    tlb = memblock.memblock_alloc_low(k, slabs * IO_TLB_SIZE, k.PAGE_SIZE)
    while not tlb and slabs > _MIN_SLABS:
        slabs >>= 1
        tlb = memblock.memblock_alloc_low(k, slabs * IO_TLB_SIZE, k.PAGE_SIZE)
    if not tlb:
        printk(k.log, "software IO TLB: No low mem")
        return
    memblock.memblock_alloc_raw(k, -(-slabs * _SIZEOF_SLOT // k.PAGE_SIZE) * k.PAGE_SIZE, k.PAGE_SIZE)
    end = tlb + slabs * IO_TLB_SIZE
    printk(k.log, f"software IO TLB: mapped [mem {tlb:#018x}-{end:#018x}] ({slabs * IO_TLB_SIZE // MIB}MB)")
