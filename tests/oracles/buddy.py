# SPDX-License-Identifier: GPL-2.0-only
"""
A zone's buddy allocator, one page and one list operation at a time.

Free lists are Python lists with the head first; every free block is looked for by scanning. Each function does what the function
of that name in mm/page_alloc.c [v4.9] does, with nothing batched: a range is freed page by page in ascending order, and moving
free pages to another migratetype walks the pageblock from its first page to its last.
"""

from __future__ import annotations

UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, ISOLATE = range(5)
FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
}


class Buddy:
    """
    The oracle, for pfns [start, end) of one zone.

    Attributes:
        lists: By (order, migratetype): first pfns of free blocks, the head first.
        nr_free: Free blocks by order.
        types: Migratetype by pageblock number.
        free_pages: NR_FREE_PAGES.
    """

    def __init__(self, start: int, end: int, max_order: int, pageblock_order: int) -> None:
        self.start, self.end = start, end
        self.max_order = max_order
        self.pageblock_order = pageblock_order
        self.lists: dict[tuple[int, int], list[int]] = {(o, t): [] for o in range(max_order) for t in range(5)}
        self.nr_free = [0] * max_order
        self.types = {block: MOVABLE for block in range(start >> pageblock_order, -(-end >> pageblock_order))}
        self.free_pages = 0
        self.mobility_disabled = False

    def type_of(self, pfn: int) -> int:
        return self.types[pfn >> self.pageblock_order]

    def set_type(self, pfn: int, migratetype: int) -> None:
        if self.mobility_disabled and migratetype < 3:
            migratetype = UNMOVABLE
        self.types[pfn >> self.pageblock_order] = migratetype

    def order_of(self, pfn: int) -> int:
        """The order of the free block that begins at `pfn`; -1: PageBuddy() is false."""
        return next((order for (order, _), pages in self.lists.items() if pfn in pages), -1)

    def _list_del(self, pfn: int, order: int) -> None:
        for migratetype in range(5):
            if pfn in self.lists[order, migratetype]:
                self.lists[order, migratetype].remove(pfn)

    def free(self, pfn: int, order: int, migratetype: int | None = None) -> None:
        """__free_one_page()"""
        if migratetype is None:
            migratetype = self.type_of(pfn)
        self.free_pages += 1 << order
        while order < self.max_order - 1:
            buddy = pfn ^ (1 << order)
            if self.order_of(buddy) != order:
                break
            self._list_del(buddy, order)
            self.nr_free[order] -= 1
            pfn = min(pfn, buddy)
            order += 1
        pages = self.lists[order, migratetype]
        self.nr_free[order] += 1
        if order < self.max_order - 2:
            parent = pfn & ~(1 << order)
            if self.order_of(parent ^ (2 << order)) == order + 1:
                pages.append(pfn)
                return
        pages.insert(0, pfn)

    def free_range(self, start: int, end: int) -> None:
        for pfn in range(start, end):
            self.free(pfn, 0)

    def expand(self, pfn: int, low: int, high: int, migratetype: int) -> None:
        while high > low:
            high -= 1
            self.lists[high, migratetype].insert(0, pfn + (1 << high))
            self.nr_free[high] += 1

    def smallest(self, order: int, migratetype: int) -> int:
        """__rmqueue_smallest()"""
        for current in range(order, self.max_order):
            pages = self.lists[current, migratetype]
            if pages:
                pfn = pages.pop(0)
                self.nr_free[current] -= 1
                self.expand(pfn, order, current, migratetype)
                return pfn
        return -1

    def move_block(self, pfn: int, migratetype: int) -> int:
        """move_freepages_block()"""
        size = 1 << self.pageblock_order
        first = pfn // size * size
        last = first + size - 1
        if not self.start <= last < self.end:
            return 0
        page = first if self.start <= first else pfn
        moved = 0
        while page <= last:
            order = self.order_of(page)
            if order < 0:
                page += 1
                continue
            self._list_del(page, order)
            self.lists[order, migratetype].insert(0, page)
            page += 1 << order
            moved += 1 << order
        return moved

    def fallback(self, order: int, migratetype: int) -> int:
        """__rmqueue_fallback()"""
        for current in range(self.max_order - 1, order - 1, -1):
            other = next((t for t in FALLBACKS[migratetype] if self.lists[current, t]), -1)
            if other < 0:
                continue
            pfn = self.lists[current, other][0]
            if current >= self.pageblock_order // 2 or migratetype != MOVABLE or self.mobility_disabled:
                if current >= self.pageblock_order:
                    for block in range(pfn, pfn + (1 << current), 1 << self.pageblock_order):
                        self.set_type(block, migratetype)
                else:
                    moved = self.move_block(pfn, migratetype)
                    if moved >= 1 << (self.pageblock_order - 1) or self.mobility_disabled:
                        self.set_type(pfn, migratetype)
            self._list_del(pfn, current)
            self.nr_free[current] -= 1
            self.expand(pfn, order, current, migratetype)
            return pfn
        return -1

    def alloc(self, order: int, migratetype: int) -> int:
        """__rmqueue(), and the counter that its caller keeps; -1 if there is nothing."""
        pfn = self.smallest(order, migratetype)
        if pfn < 0:
            pfn = self.fallback(order, migratetype)
        if pfn >= 0:
            self.free_pages -= 1 << order
        return pfn
