# SPDX-License-Identifier: GPL-2.0-only
"""
struct page, one page at a time: loops over single pfns, in C's order.

`Slow` is built from a kernel's sizes and holds a dict from pfn to `Page`. What C does in a loop is done for each pfn;
a page without memmap ends the loop with `Fault`, and what was done by then stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

MOVABLE = 1
FIELDS = ("flags", "refcount", "zone", "node", "kind")
RESERVED, LRU, HWPOISON, INITIALISED = 1 << 0, 1 << 1, 1 << 6, 1 << 7


class Fault(Exception):
    """The struct page of `pfn` was touched, and no memmap is there."""

    def __init__(self, pfn: int) -> None:
        super().__init__(hex(pfn))
        self.pfn = pfn


@dataclass
class Page:
    """struct page."""

    flags: int = 0
    refcount: int = 0
    zone: int = 0
    node: int = 0
    kind: int = 0


@dataclass
class Slow:
    """
    The oracle.

    Attributes:
        pages: By pfn; no entry: no memmap.
        types: Migratetype of each pageblock that has a usemap.
        valid: pfn_valid() of one pfn.
        zones: (start pfn, end pfn) by (node, zone index).
    """

    per_section: int
    pageblock_order: int
    max_order: int
    holes: bool
    valid: Callable[[int], bool]
    movable_zone: int
    pages: dict[int, Page] = dataclasses.field(default_factory=dict)
    types: dict[int, int] = dataclasses.field(default_factory=dict)
    zones: dict[tuple[int, int], tuple[int, int]] = dataclasses.field(default_factory=dict)
    mobility_disabled: bool = False

    def copy(self, valid: Callable[[int], bool]) -> Slow:
        return dataclasses.replace(
            self, valid=valid, pages={pfn: dataclasses.replace(page) for pfn, page in self.pages.items()},
            types=dict(self.types), zones=dict(self.zones))

    def page(self, pfn: int) -> Page:
        try:
            return self.pages[pfn]
        except KeyError:
            raise Fault(pfn) from None

    def within(self, pfn: int) -> bool:
        """pfn_valid_within()"""
        return self.valid(pfn) if self.holes else True

    def zone_of(self, pfn: int) -> tuple[int, int]:
        page = self.page(pfn)
        return page.node, page.zone

    # Loops that write

    def SetPageReserved(self, start: int, nr_pages: int) -> None:
        for pfn in range(start, start + nr_pages):
            self.page(pfn).flags |= RESERVED

    def ClearPageReserved(self, start: int, nr_pages: int) -> None:
        for pfn in range(start, start + nr_pages):
            self.page(pfn).flags &= ~RESERVED

    def set_page_links(self, start: int, nr_pages: int, zone: int, nid: int) -> None:
        for pfn in range(start, start + nr_pages):
            page = self.page(pfn)
            page.zone, page.node = zone, nid

    def init_page_count(self, start: int, nr_pages: int) -> None:
        for pfn in range(start, start + nr_pages):
            self.page(pfn).refcount = 1

    def set_page_count(self, start: int, nr_pages: int, value: int) -> None:
        for pfn in range(start, start + nr_pages):
            self.page(pfn).refcount = value

    def set_page_kind(self, start: int, nr_pages: int, kind: int, flags: int) -> None:
        for pfn in range(start, start + nr_pages):
            page = self.page(pfn)
            page.kind = kind
            page.flags |= flags

    def __init_single_page(self, pfn: int, zone: int, nid: int) -> None:
        page = self.page(pfn)
        page.zone, page.node, page.refcount = zone, nid, 1
        page.flags |= INITIALISED

    def init_pages(self, start: int, nr_pages: int, zone: int, nid: int) -> None:
        for pfn in range(start, start + nr_pages):
            self.__init_single_page(pfn, zone, nid)

    def set_pageblock_migratetype(self, pfn: int, migratetype: int) -> None:
        if self.mobility_disabled and migratetype < 3:
            migratetype = 0
        self.types[pfn >> self.pageblock_order] = migratetype

    def memmap_init_zone(self, start: int, nr_pages: int, zone: int, nid: int, early: bool) -> None:
        for pfn in range(start, start + nr_pages):
            if early and not self.valid(pfn):
                continue
            self.__init_single_page(pfn, zone, nid)
            if not pfn & ((1 << self.pageblock_order) - 1):
                self.set_pageblock_migratetype(pfn, MOVABLE)

    def add_zone(self, start: int, zone: int, nid: int) -> None:
        """__add_zone(), the part that touches pages"""
        self.memmap_init_zone(start, self.per_section, zone, nid, early=False)
        for pfn in range(start, start + self.per_section):
            if self.valid(pfn):
                self.page(pfn).flags |= RESERVED

    # Loops that ask

    def correctly_reserved(self, start: int, sections: int) -> bool:
        """pages_correctly_reserved()"""
        for _ in range(sections):
            if not self.valid(start):
                return False
            for pfn in range(start, start + self.per_section):
                if not self.page(pfn).flags & RESERVED:
                    return False
            start += self.per_section
        return True

    def contiguous(self, nid: int, zone: int) -> bool:
        """What set_zone_contiguous() finds."""
        start, end = self.zones[nid, zone]
        blocks = 1 << self.pageblock_order
        stop = start // blocks * blocks + blocks
        while start < end:
            last = min(stop, end) - 1
            if not self.valid(start) or not self.valid(last):
                return False
            if self.zone_of(start) != (nid, zone) or self.zone_of(last) != (nid, zone):
                return False
            start, stop = stop, stop + blocks
        return True

    def pages_in_a_zone(self, start: int, end: int) -> bool:
        """test_pages_in_a_zone(), with its first pass over nothing and its later ones from a section's second page"""
        size = self.per_section
        zone: tuple[int, int] | None = None
        pfn, section_end = start, -(-start // size) * size
        while pfn < end:
            if self.present(pfn):
                while pfn < section_end and pfn < end:
                    for i in range(1 << (self.max_order - 1)):
                        if self.within(pfn + i):
                            if zone is not None and self.zone_of(pfn + i) != zone:
                                return False
                            zone = self.zone_of(pfn + i)
                            break
                    pfn += 1 << (self.max_order - 1)
            pfn = section_end + 1
            section_end += size
        return True

    def present(self, pfn: int) -> bool:
        """present_section_nr(); here a section with a memmap is present."""
        return pfn in self.pages

    def has_unmovable(self, pfn: int) -> bool:
        """has_unmovable_pages() with count 0, no free blocks among the pages"""
        if self.page(pfn).zone == self.movable_zone or self.types.get(pfn >> self.pageblock_order, 0) == MOVABLE:
            return False
        for check in range(pfn, pfn + (1 << self.pageblock_order)):
            if not self.within(check):
                continue
            page = self.page(check)
            if page.refcount and not page.flags & (HWPOISON | LRU):
                return True
        return False

    def removable(self, start: int, nr_pages: int) -> bool:
        """is_mem_section_removable()"""
        for pfn in range(start, start + nr_pages, 1 << self.pageblock_order):
            low, high = self.zones.get(self.zone_of(pfn), (0, 0))
            if not low <= pfn < high or self.has_unmovable(pfn):
                return False
        return True
