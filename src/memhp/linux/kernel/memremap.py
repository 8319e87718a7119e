# SPDX-License-Identifier: GPL-2.0-only
"""
memremap(): cacheable (or other) access to memory that has no side effects; and device memory with struct pages.

Source: kernel/memremap.c [v4.9].
"""

from __future__ import annotations

from errno import ENXIO
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.bug import printk_once
from memhp.linux.include import mmzone
from memhp.linux.include.io import LINEAR, MEMREMAP_WB, MEMREMAP_WC, MEMREMAP_WT, Mapping
from memhp.linux.include.ioport import IORESOURCE_SYSTEM_RAM
from memhp.linux.include.memory_hotplug import MhpParams
from memhp.linux.kernel import resource

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def try_ram_remap(k: Kernel, offset: int, size: int) -> Mapping | None:
    """
    Give the linear address of RAM, if pfn_valid(). There is no highmem here.

    Source: kernel/memremap.c try_ram_remap() [v4.9]
    """
    if mmzone.pfn_valid(k, offset >> k.PAGE_SHIFT):
        return Mapping(offset, size, LINEAR)
    return None


def memremap(k: Kernel, offset: int, size: int, flags: int) -> Mapping | None:
    """
    Map memory; with MEMREMAP_WB System RAM is reached through the linear map.

    Source: kernel/memremap.c memremap() [v4.9]
    """
    is_ram = resource.region_intersects(k, offset, size, IORESOURCE_SYSTEM_RAM)
    addr: Mapping | None = None
    if not flags:
        return None
    if is_ram == resource.REGION_MIXED:
        printk_once(k.log, f"memremap attempted on mixed range {offset:#x} size: {size:#x}")
        return None
    if flags & MEMREMAP_WB:
        if is_ram == resource.REGION_INTERSECTS:
            addr = try_ram_remap(k, offset, size)
        if addr is None:
            addr = k.arch.io.ioremap_cache(k, offset, size)
    if addr is None and is_ram == resource.REGION_INTERSECTS and flags != MEMREMAP_WB:
        printk_once(k.log, f"memremap attempted on ram {offset:#x} size: {size:#x}")
        return None
    if addr is None and flags & MEMREMAP_WT:
        addr = k.arch.io.ioremap_wt(k, offset, size)
    if addr is None and flags & MEMREMAP_WC:
        addr = k.arch.io.ioremap_wc(k, offset, size)
    return addr


def devm_memremap_pages(k: Kernel, nid: int, start: int, size: int) -> Mapping:
    """
    Give device memory struct pages: sections of ZONE_DEVICE, without an entry in memblock and without a memory block.

    Args:
        nid: The device's node.
        start: First byte. What is added are whole sections.
        size: Bytes.

    Raises:
        KernelError: ENXIO if System RAM and other resources lie there; what arch_add_memory() says.

    Source: kernel/memremap.c devm_memremap_pages() [v4.9]
    """
    section = 1 << k.SECTION_SIZE_BITS
    align_start = start - start % section
    align_size = -(-(start + size) // section) * section - align_start
    is_ram = resource.region_intersects(k, align_start, align_size, IORESOURCE_SYSTEM_RAM)
    if is_ram == resource.REGION_MIXED:
        raise KernelError(ENXIO, "System RAM and something else lie there", start=start, size=size)
    if is_ram == resource.REGION_INTERSECTS:
        return Mapping(start, size, LINEAR)
    k.arch.arch_add_memory(k, nid, align_start, align_size, MhpParams(for_device=True))
    return Mapping(start, size, LINEAR)
