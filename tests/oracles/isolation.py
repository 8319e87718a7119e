# SPDX-License-Identifier: GPL-2.0-only
"""
Isolating pageblocks, one pageblock and one list operation at a time, in C's order.

`Isolation` is the buddy oracle with MIGRATE_ISOLATE, and with pages in use. Each function does what the function of that name in
mm/page_isolation.c and mm/page_alloc.c does, in the generation it is made for; nothing is batched. Later kernels split a free
block that is larger than a pageblock, earlier ones move it whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.oracles.buddy import ISOLATE, MOVABLE, Buddy


@dataclass
class Used:
    """A page in use, or set aside."""

    refcount: int = 1
    lru: bool = False
    reserved: bool = False
    poisoned: bool = False
    offline: bool = False


class Isolation(Buddy):
    """
    The oracle, for pfns [start, end) of one zone.

    Attributes:
        generation: "v4.9", "v5.10", "v6.1" or "v6.12".
        movable_zone: The zone is ZONE_MOVABLE.
        used: Pages that are not free, by pfn.
        isolated: nr_isolate_pageblock.
        dumped: What dump_page() was called for.
    """

    def __init__(
        self, start: int, end: int, max_order: int, pageblock_order: int, generation: str, movable_zone: bool = False,
    ) -> None:
        super().__init__(start, end, max_order, pageblock_order)
        self.generation = generation
        self.movable_zone = movable_zone
        self.used: dict[int, Used] = {}
        self.isolated = 0
        self.dumped: list[int] = []
        self.block = 1 << pageblock_order
        self.top = max_order - 1

    # The buddy, with isolated pageblocks

    @property
    def counted(self) -> int:
        """NR_FREE_PAGES: what lies on lists of other types."""
        return sum(len(pages) << order for (order, migratetype), pages in self.lists.items() if migratetype != ISOLATE)

    def kind_of(self, pfn: int) -> int | None:
        """The type of a pageblock, or None outside of the zone."""
        return self.types.get(pfn >> self.pageblock_order)

    def list_of(self, pfn: int, order: int) -> int:
        return next(migratetype for migratetype in range(5) if pfn in self.lists[order, migratetype])

    def unlink(self, pfn: int, order: int) -> None:
        """__del_page_from_free_list()"""
        self.lists[order, self.list_of(pfn, order)].remove(pfn)
        self.nr_free[order] -= 1

    def free_block(self, pfn: int, order: int, migratetype: int, *, to_tail: bool = False) -> None:
        """__free_one_page()"""
        while order < self.top:
            buddy = pfn ^ (1 << order)
            if self.order_of(buddy) != order:
                break
            if order >= self.pageblock_order:
                other = self.kind_of(buddy)
                if migratetype != other and ISOLATE in (migratetype, other):
                    break
            self.unlink(buddy, order)
            pfn = min(pfn, buddy)
            order += 1
        pages = self.lists[order, migratetype]
        self.nr_free[order] += 1
        if not to_tail and order < self.max_order - 2:
            parent = pfn & ~(1 << order)
            to_tail = self.order_of(parent ^ (2 << order)) == order + 1
        if to_tail:
            pages.append(pfn)
        else:
            pages.insert(0, pfn)

    def split_large_buddy(self, pfn: int, order: int) -> None:
        step = min(order, self.pageblock_order)
        for part in range(pfn, pfn + (1 << order), 1 << step):
            kind = self.kind_of(part)
            assert kind is not None
            self.free_block(part, step, kind)

    def move(self, start: int, migratetype: int) -> None:
        """move_freepages(): what begins in a pageblock goes to another list, to the head until v5.9, to the tail since"""
        pfn = start
        while pfn < start + self.block:
            order = self.order_of(pfn)
            if order < 0:
                pfn += 1
                continue
            self.lists[order, self.list_of(pfn, order)].remove(pfn)
            if self.generation == "v4.9":
                self.lists[order, migratetype].insert(0, pfn)
            else:
                self.lists[order, migratetype].append(pfn)
            pfn += 1 << order

    def move_freepages_block_isolate(self, start: int, migratetype: int) -> None:
        """v6.10 and later"""
        if self.pageblock_order < self.top:
            head = start
            for order in range(1, self.max_order):
                if self.order_of(head) >= 0:
                    break
                head = start & (~0 << order)
            order = self.order_of(head)
            if (order >= 0 and head != start and head + (1 << order) > start) or order > self.pageblock_order:
                self.unlink(head, order)
                self.types[start >> self.pageblock_order] = migratetype
                self.split_large_buddy(head, order)
                return
        self.move(start, migratetype)
        self.types[start >> self.pageblock_order] = migratetype

    # Who cannot leave

    def unmovable_v4_9(self, start: int) -> bool:
        if self.movable_zone or self.kind_of(start) == MOVABLE:
            return False
        for pfn in range(start, start + self.block):
            page = self.used.get(pfn)
            if page is not None and page.refcount and not page.poisoned and not page.lru:
                return True
        return False

    def unmovable(self, start: int) -> int | None:
        for pfn in range(start, start + self.block):
            page = self.used.get(pfn)
            if page is None:
                continue
            if page.reserved:
                return pfn
            if self.movable_zone or not page.refcount or page.poisoned or page.offline or page.lru:
                continue
            return pfn
        return None

    # Isolating

    def set_migratetype_isolate(self, start: int) -> bool:
        """Whether the pageblock is isolated now."""
        if self.generation == "v4.9":
            if self.unmovable_v4_9(start):
                return False
        else:
            if self.kind_of(start) == ISOLATE:
                return False
            pfn = self.unmovable(start)
            if pfn is not None:
                self.dumped.append(pfn)
                return False
        if self.generation == "v6.12":
            self.move_freepages_block_isolate(start, ISOLATE)
        else:
            self.types[start >> self.pageblock_order] = ISOLATE
            self.move(start, ISOLATE)
        self.isolated += 1
        return True

    def unset_migratetype_isolate(self, start: int) -> None:
        if self.kind_of(start) != ISOLATE:
            return
        order = self.order_of(start)
        again = False
        if order >= self.pageblock_order:
            buddy = start ^ (1 << order)
            if self.generation in ("v4.9", "v5.10"):
                again = self.kind_of(buddy) != ISOLATE
            else:
                again = order < self.top and self.order_of(buddy) == order and self.kind_of(buddy) != ISOLATE
        if again:
            self.unlink(start, order)
            self.types[start >> self.pageblock_order] = MOVABLE
            self.isolated -= 1
            self.free_block(start, order, MOVABLE, to_tail=self.generation != "v4.9")
            return
        if self.generation == "v6.12":
            self.move_freepages_block_isolate(start, MOVABLE)
        else:
            self.move(start, MOVABLE)
            self.types[start >> self.pageblock_order] = MOVABLE
        self.isolated -= 1

    def split_across(self, boundary: int, isolated: int) -> None:
        """The end of isolate_single_pageblock() in v6.1: a free block across the boundary is split."""
        head = isolated & -(1 << self.top)
        order = self.order_of(head)
        if self.generation == "v6.1" and order >= 0 and head < boundary < head + (1 << order):
            self.unlink(head, order)
            self.split_large_buddy(head, order)

    def start_isolate_page_range(self, start: int, end: int) -> bool:
        """Whether the range is isolated now; if not, all is as before but for the order of lists."""
        step = self.block
        if self.generation in ("v4.9", "v5.10"):
            for pfn in range(start, end, step):
                if not self.set_migratetype_isolate(pfn):
                    self.undo_isolate_page_range(start, pfn)
                    return False
            return True
        if not self.set_migratetype_isolate(start):
            return False
        self.split_across(start, start)
        if start < end - step and not self.set_migratetype_isolate(end - step):
            self.unset_migratetype_isolate(start)
            return False
        self.split_across(end, end - step)
        for pfn in range(start + step, end - step, step):
            if not self.set_migratetype_isolate(pfn):
                self.undo_isolate_page_range(start, pfn)
                self.unset_migratetype_isolate(end - step)
                return False
        return True

    def undo_isolate_page_range(self, start: int, end: int) -> None:
        for pfn in range(start, end, self.block):
            if self.kind_of(pfn) == ISOLATE:
                self.unset_migratetype_isolate(pfn)

    def test_pages_isolated(self, start: int, end: int) -> int | None:
        """The first page that is neither free nor to be skipped, or None."""
        for pfn in range(start, end):
            page = self.used.get(pfn)
            if page is None or page.poisoned:
                continue
            if page.offline and not page.refcount and self.generation != "v4.9":
                continue
            return pfn
        return None
