# SPDX-License-Identifier: GPL-2.0-only
"""
What becomes of a range that is to go offline, page by page.

`offline()` walks the pages as C's loops do: who is in the way of isolation, which pages are moved in which round, who stays. It
knows nothing of free lists: memory to move to is a number of pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from errno import EAGAIN, EBUSY, ENOMEM

from tests.oracles.isolation import Used

AT_ONCE = 256
HANG = -1
"""It waits for ever."""


@dataclass
class Answer:
    """
    What came of it.

    Attributes:
        errno: 0, an errno, or HANG.
        moved: Pages that were moved.
    """

    errno: int = 0
    moved: set[int] = field(default_factory=set)


def offline(
    pages: dict[int, Used], pinned: set[int], start: int, end: int, block: int, *, generation: str, movable_zone: bool,
    unmovable_blocks: set[int], spare: int,
) -> Answer:
    """
    Take [start, end) offline.

    Args:
        pages: Pages of it that are not free.
        pinned: Those that somebody holds.
        block: Pages of a pageblock.
        generation: "v4.9", or a later one.
        movable_zone: The zone is ZONE_MOVABLE.
        unmovable_blocks: First pages of pageblocks that are not of type MOVABLE.
        spare: Free pages elsewhere.
    """
    if generation == "v4.9":
        return _v4_9(dict(pages), pinned, start, end, block, movable_zone, unmovable_blocks, spare)
    return _later(dict(pages), pinned, start, end, movable_zone, spare)


def _v4_9(
    pages: dict[int, Used], pinned: set[int], start: int, end: int, block: int, movable_zone: bool, unmovable_blocks: set[int],
    spare: int,
) -> Answer:
    answer = Answer()
    for pfn in range(start, end):
        page = pages.get(pfn)
        looked_at = not movable_zone and pfn - pfn % block in unmovable_blocks
        if looked_at and page is not None and page.refcount and not page.poisoned and not page.lru:
            answer.errno = EBUSY
            return answer
    retry_max = 5
    while True:
        first = next((pfn for pfn in range(start, end) if pfn in pages and pages[pfn].lru), None)
        if first is None:
            break
        batch: list[int] = []
        ret = 0
        for pfn in range(first, end):
            if len(batch) == AT_ONCE:
                break
            page = pages.get(pfn)
            if page is None or not page.refcount:
                continue
            if not page.lru:
                ret = -EBUSY
                break
            batch.append(pfn)
        failed = moved = 0
        if not ret:
            for pfn in batch:
                if pfn in pinned:
                    failed += 1
                elif not spare:
                    ret = -ENOMEM
                    break
                else:
                    del pages[pfn]
                    answer.moved.add(pfn)
                    spare -= 1
                    moved += 1
        if ret:
            retry_max -= 1
            if not retry_max:
                answer.errno = -ret
                return answer
        elif failed and not moved:
            answer.errno = EAGAIN
            return answer
    if any(not page.poisoned for pfn, page in pages.items() if start <= pfn < end):
        answer.errno = EBUSY
    return answer


def _later(pages: dict[int, Used], pinned: set[int], start: int, end: int, movable_zone: bool, spare: int) -> Answer:
    answer = Answer()
    for pfn in range(start, end):
        page = pages.get(pfn)
        if page is None:
            continue
        if page.reserved or not (movable_zone or not page.refcount or page.poisoned or page.offline or page.lru):
            answer.errno = EBUSY
            return answer
    at = start
    while True:
        found = None
        for pfn in range(at, end):
            page = pages.get(pfn)
            if page is None:
                continue
            if page.lru:
                found = pfn
                break
            if page.offline and page.refcount:
                answer.errno = EBUSY
                return answer
        if found is None:
            break
        at = found
        moved = 0
        for pfn in range(at, end):
            page = pages.get(pfn)
            if page is None or not page.refcount or page.poisoned or not page.lru or pfn in pinned:
                continue
            if not spare:
                break
            del pages[pfn]
            answer.moved.add(pfn)
            spare -= 1
            moved += 1
        if not moved:
            answer.errno = HANG
            return answer
    for pfn in range(start, end):
        page = pages.get(pfn)
        if page is not None and not page.poisoned and not (page.offline and not page.refcount):
            answer.errno = HANG
    return answer
