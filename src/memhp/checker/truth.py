# SPDX-License-Identifier: GPL-2.0-only
"""
What is physically so, whatever pfn_valid() says of it.

It is read off the machine (`Hardware`), the resource tree, the memmap, the linear map and the memory blocks; pfn_valid() and
memblock's flags, which a patch may bend for a while, are not asked.
"""

from __future__ import annotations

from memhp.linux.include import mmzone
from memhp.linux.include.io import linear_mapped
from memhp.linux.include.ioport import IORESOURCE_SYSTEM_RAM
from memhp.linux.include.memory import MEM_ONLINE
from memhp.linux.include.mm_types import FLAGS, REFCOUNT
from memhp.linux.include.mmzone import MemSection, Zone
from memhp.linux.include.page_flags import PAGE_INITIALISED, PG_RESERVED
from memhp.linux.mm import internal
from memhp.linux.state import Kernel

RAM = "RAM"
FIRMWARE = "memory that firmware owns"
PMEM = "device memory with struct pages"
DEVICE = "no memory: a device or nothing"
BOGUS = "no such address"

PERSISTENT_MEMORY = "Persistent Memory"
"""The name of device memory in /proc/iomem."""


def _section(k: Kernel, pfn: int) -> MemSection | None:
    return k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)


class Truth:
    """
    What is so on a machine, by pfn.

    Attributes:
        k: The kernel that runs on it.
    """

    __slots__ = ("_firmware", "_pmem", "_ram", "k")

    def __init__(self, k: Kernel) -> None:
        self.k = k
        shift, up = k.PAGE_SHIFT, k.PAGE_SIZE - 1
        spans = [(r.start + up >> shift, r.end >> shift, "NOMAP" in r.flags) for r in k.hardware.memory]
        self._firmware = [(start, end) for start, end, nomap in spans if nomap]
        self._ram = [(start, end) for start, end, nomap in spans if not nomap]
        self._pmem = []
        for r in k.iomem_resource.child:
            span = (r.start + up >> shift, r.end + 1 >> shift)
            if r.flags & IORESOURCE_SYSTEM_RAM == IORESOURCE_SYSTEM_RAM:
                self._ram.append(span)
            elif r.name == PERSISTENT_MEMORY:
                self._pmem.append(span)

    def kind(self, pfn: int) -> str:
        """Return RAM, FIRMWARE, PMEM, DEVICE or BOGUS."""
        if pfn >> (self.k.MAX_PHYSMEM_BITS - self.k.PAGE_SHIFT):
            return BOGUS
        for spans, kind in ((self._firmware, FIRMWARE), (self._ram, RAM), (self._pmem, PMEM)):
            if any(start <= pfn < end for start, end in spans):
                return kind
        return DEVICE

    def is_ram(self, pfn: int) -> bool:
        """Whether it is RAM, firmware's or not."""
        return self.kind(pfn) in (RAM, FIRMWARE)

    def is_firmware(self, pfn: int) -> bool:
        return self.kind(pfn) == FIRMWARE

    def is_device(self, pfn: int) -> bool:
        """Whether nothing but a device, or nothing, answers there."""
        return self.kind(pfn) == DEVICE

    def has_memmap(self, pfn: int) -> bool:
        """Whether its struct page can be touched."""
        section = _section(self.k, pfn)
        return section is not None and section.memmap is not None

    def _flag(self, pfn: int, mask: int) -> bool:
        section = _section(self.k, pfn)
        if section is None or section.memmap is None:
            return False
        return bool(section.memmap.get(FLAGS, pfn & (self.k.PAGES_PER_SECTION - 1)) & mask)

    def initialised(self, pfn: int) -> bool:
        """Whether somebody has initialised its struct page."""
        return self._flag(pfn, PAGE_INITIALISED)

    def first_uninitialised(self, pfn: int, nr_pages: int) -> int:
        """Return the first pfn of [pfn, pfn + nr_pages) whose struct page was never initialised, or -1."""
        k = self.k
        end = pfn + nr_pages
        while pfn < end:
            stop = min(end, (pfn | k.PAGES_PER_SECTION - 1) + 1)
            section = _section(k, pfn)
            if section is None or section.memmap is None:
                return pfn
            offset = pfn & (k.PAGES_PER_SECTION - 1)
            found = section.memmap.find(FLAGS, offset, offset + stop - pfn, PAGE_INITIALISED, 0)
            if found >= 0:
                return pfn + found - offset
            pfn = stop
        return -1

    def reserved(self, pfn: int) -> bool:
        """Whether its struct page has PG_reserved."""
        return self._flag(pfn, PG_RESERVED)

    def referenced(self, pfn: int) -> bool:
        """Whether its struct page counts references."""
        section = _section(self.k, pfn)
        if section is None or section.memmap is None:
            return False
        return bool(section.memmap.get(REFCOUNT, pfn & (self.k.PAGES_PER_SECTION - 1)))

    def linear_mapped(self, pfn: int) -> bool:
        """Whether its linear address can be used."""
        return linear_mapped(self.k, pfn << self.k.PAGE_SHIFT, self.k.PAGE_SIZE)

    def online(self, pfn: int) -> bool:
        """Whether it is RAM of the kernel's in a block that is online."""
        block = self.k.memory_blocks.get((pfn >> self.k.PFN_SECTION_SHIFT) // self.k.sections_per_block)
        return self.kind(pfn) == RAM and block is not None and block.state == MEM_ONLINE

    def free(self, pfn: int) -> bool:
        """Whether the page allocator has it on its lists."""
        return bool(internal.free_mask(self.k, pfn, pfn + 1)[0])

    def must_be_saved(self, pfn: int) -> bool:
        """Whether its contents are lost if hibernation leaves it out."""
        return self.online(pfn) and not self.free(pfn)

    def zone(self, pfn: int) -> Zone | None:
        """Return the zone that spans it; what its struct page says is not asked."""
        for pgdat in self.k.nodes.values():
            for zone in pgdat.node_zones:
                if mmzone.zone_spans_pfn(zone, pfn):
                    return zone
        return None

    def zone_without_hole(self, zone: Zone) -> bool:
        """Whether every page a zone spans is RAM of the kernel's, or device memory, with an initialised struct page."""
        pfn, end = zone.zone_start_pfn, mmzone.zone_end_pfn(zone)
        if self.first_uninitialised(pfn, end - pfn) >= 0:
            return False
        while pfn < end:
            inside = [stop for start, stop in (*self._ram, *self._pmem) if start <= pfn < stop]
            if not inside or self.is_firmware(pfn):
                return False
            stops = [max(inside), *(start for start, _ in self._firmware if start > pfn)]
            pfn = min(stops)
        return True
