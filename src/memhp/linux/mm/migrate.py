# SPDX-License-Identifier: GPL-2.0-only
"""
Moving pages to other memory, as far as taking a block offline sees it.

The parts. `do_migrate_range()` (mm/memory_hotplug.c) isolates pages from the LRU lists and hands them to `migrate_pages()`, which
asks for a new page for each, copies, and frees the old one. A page that somebody holds beside the page tables and the page cache
(a pin) does not move, however often it is tried; it is put back.

Pages are known by what they are used for (the KIND column), their flags and their count. In C their owner is found through
page->mapping; here it is a workload (`Kernel.workloads`), or the processes of boot.user_space(), and `_follow()` tells them where
their pages went.

Source: mm/migrate.c [v4.9].
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from errno import ENOMEM
from typing import TYPE_CHECKING

from memhp.linux.include import mm
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE, GFP_USER_MOVABLE
from memhp.linux.include.memory_model import page_columns_rw, page_ranges, page_ranges_rw
from memhp.linux.include.mm_types import FLAGS, KIND, REFCOUNT
from memhp.linux.include.page_flags import KIND_ANON, PAGE_INITIALISED, PG_HEAD, PG_HWPOISON
from memhp.linux.mm import hugetlb, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

Runs = list[tuple[int, int]]
"""Pages as [start, end)."""


@dataclass(slots=True)
class Source:
    """
    The pages on a list of things to migrate: base pages as runs [start, end) and compound pages as (head, order), as they came.

    Attributes:
        items: (start, end, order); order 0 for a run of base pages.
    """

    items: list[tuple[int, int, int]]

    def __bool__(self) -> bool:
        return bool(self.items)

    def __len__(self) -> int:
        return sum(end - start if not order else 1 for start, end, order in self.items)

    def add(self, start: int, end: int, order: int = 0) -> None:
        """list_add_tail() the pages of a run in ascending order, or one compound page."""
        last = self.items[-1] if self.items else None
        if last is not None and not order and not last[2] and last[1] == start:
            self.items[-1] = (last[0], end, 0)
        else:
            self.items.append((start, end, order))


@dataclass(frozen=True, slots=True)
class MigrationTargetControl:
    """
    struct migration_target_control: where new pages may come from.

    Attributes:
        nid: The node to prefer.
        nmask: The only nodes they may come from.
    """

    nid: int
    nmask: frozenset[int]


def alloc_migration_target(k: Kernel, page: int, nr_pages: int, order: int, mtc: MigrationTargetControl) -> Runs:
    """
    Allocate new pages for some that have to go.

    Pages that come from ZONE_MOVABLE may go there again; others may not. (Those of hugetlbfs may, wherever they come from.)

    Args:
        page: First of them.
        nr_pages: How many base pages, or one huge page.
        order: Of the huge page; 0 for base pages.

    Returns:
        Runs [start, end); fewer pages than asked for if memory ran out.

    Source: mm/migrate.c alloc_migration_target() [v5.9]
    """
    if order and hugetlb.PageHuge(k, page):
        huge = hugetlb.alloc_hugetlb_folio_nodemask(k, mtc.nid, mtc.nmask)
        return [(huge, huge + (1 << order))] if huge >= 0 else []
    gfp_mask = GFP_HIGHUSER_MOVABLE if mm.page_zonenum(k, page) == k.ZONE_MOVABLE else GFP_USER_MOVABLE
    gfp_mask = replace(gfp_mask, nowarn=True)
    if order:
        new = page_alloc.__alloc_pages_nodemask(k, gfp_mask, order, mtc.nid, mtc.nmask)
        return [(new, new + (1 << order))] if new >= 0 else []
    return page_alloc._alloc_base_pages(k, gfp_mask, mtc.nid, nr_pages, mtc.nmask)


def migrate_prep(k: Kernel) -> None:
    """Let pages on their way to the LRU lists arrive; here they are there at once. Source: mm/migrate.c migrate_prep() [v4.9]"""


def putback_movable_pages(k: Kernel, source: Source) -> None:
    """
    Give isolated pages back to the LRU lists, in whose order nothing is kept here.

    Source: mm/migrate.c putback_movable_pages()
    """
    source.items.clear()


def migrate_pages(k: Kernel, source: Source, get_new_page: Callable[[Kernel, int, int, int], Runs]) -> int:
    """
    Move the pages of a list; those that did not move are left on it.

    Args:
        get_new_page: (k, page, how many, order) -> runs [start, end) of new pages, fewer if memory ran out.

    Returns:
        How many pages did not move, or -ENOMEM.

    Source: mm/migrate.c migrate_pages() [v4.9]
    """
    left = Source([])
    nr_failed = 0
    items, source.items = source.items, left.items
    for number, (start, end, order) in enumerate(items):
        if order:
            rc = unmap_and_move_huge_page(k, start, order, get_new_page) if hugetlb.PageHuge(k, start) else unmap_and_move(
                k, start, end, order, get_new_page, left)
        else:
            rc = unmap_and_move(k, start, end, order, get_new_page, left)
        if rc == -ENOMEM:
            left.items += items[number + 1 :]
            k.pgmigrate_fail += 1
            return -ENOMEM
        if rc and order:
            left.add(start, end, order)
        nr_failed += rc
    k.pgmigrate_fail += nr_failed
    return nr_failed


def unmap_and_move(
    k: Kernel, start: int, end: int, order: int, get_new_page: Callable[[Kernel, int, int, int], Runs], left: Source,
) -> int:
    """
    Move base pages [start, end), or a transparent huge page: v4.9 splits it, and moves its first page; others move it whole, and
    split it only if there is no huge page to be had.

    Args:
        left: Where base pages go that cannot move.

    Returns:
        How many pages did not move; -ENOMEM if there was no memory for one, and then it and those after it are on `left`.

    Source: mm/migrate.c unmap_and_move() [v4.9]
    """
    if order:
        if k.tree.migrates_huge_pages_whole:
            if mm.page_ref_count(k, start) > 1:
                return 1
            new = get_new_page(k, start, 1, order)
            if new:
                _copy(k, start, new[0][0], 1 << order)
                _follow(k, [(start, new[0][0], 1 << order)])
                k.pgmigrate_success += 1
                page_alloc.__free_pages(k, start, order)
                return 0
        split_huge_page(k, start, order)
        end = end if k.tree.migrates_huge_pages_whole else start + 1
    failed = 0
    for low, high in _held(k, start, end):
        left.add(low, high)
        failed += high - low
    for low, high in _free_to_go(k, start, end):
        new = get_new_page(k, low, high - low, 0)
        got = sum(b - a for a, b in new)
        if got:
            move_to_new_page(k, [(low, low + got)], new)
        if got < high - low:
            left.add(low + got, end)
            return -ENOMEM
    return failed


def unmap_and_move_huge_page(k: Kernel, start: int, order: int, get_new_page: Callable[[Kernel, int, int, int], Runs]) -> int:
    """
    Move a page of hugetlbfs; returns 1 if it is held, -ENOMEM if there is no huge page for it.

    Source: mm/migrate.c unmap_and_move_huge_page() [v4.9]
    """
    size = k.hstate.nr_huge_pages
    new = get_new_page(k, start, 1, order)
    if not new:
        return -ENOMEM
    temporary = k.hstate.nr_huge_pages > size and k.tree.hugetlb_temporary_pages
    held = mm.page_ref_count(k, start) > 1
    if not held:
        _copy(k, start, new[0][0], 1 << order)
        _follow(k, [(start, new[0][0], 1 << order)])
        k.pgmigrate_success += 1
    old = new[0][0] if held else start
    if temporary:
        hugetlb.update_and_free_page(k, old)
    else:
        hugetlb.free_huge_page(k, old)
    return int(held)


def split_huge_page(k: Kernel, pfn: int, order: int) -> None:
    """
    Turn a transparent huge page into base pages of the same owner.

    Source: mm/huge_memory.c split_huge_page_to_list() [v4.9]
    """
    for columns, start, end, _ in page_ranges_rw(k, pfn, 1 << order):
        columns.fill(KIND, start, end, KIND_ANON)
        columns.fill(REFCOUNT, start, end, 1)
        columns.clear_bits(FLAGS, start, end, PG_HEAD)


def move_to_new_page(k: Kernel, old: Runs, new: Runs) -> None:
    """
    Let new pages take the place of old ones, as many of each, and free the old ones.

    Source: mm/migrate.c move_to_new_page(), putback_lru_page()
    """
    moves = _pair(old, new)
    for start, target, nr_pages in moves:
        _copy(k, start, target, nr_pages)
    _follow(k, moves)
    for start, end in old:
        k.pgmigrate_success += end - start
        page_alloc._free_used_pages(k, start, end - start)


def _pair(old: Runs, new: Runs) -> list[tuple[int, int, int]]:
    """(old pfn, new pfn, pages): two lists of runs, page by page. Source: none"""
    moves = []
    targets = iter(new)
    target, stop = next(targets)
    for start, end in old:
        while start < end:
            if target == stop:
                target, stop = next(targets)
            nr_pages = min(end - start, stop - target)
            moves.append((start, target, nr_pages))
            start += nr_pages
            target += nr_pages
    return moves


def _copy(k: Kernel, old: int, new: int, nr_pages: int) -> None:
    """Give new pages what the old ones are used for, their flags and counts. Source: mm/migrate.c migrate_page_copy()"""
    for columns, low, high, first in page_ranges(k, old, nr_pages):
        kinds, counts = columns.values(KIND, low, high), columns.values(REFCOUNT, low, high)
        flags = columns.values(FLAGS, low, high)
        at = new + first - old
        done = 0
        while done < high - low:
            target = page_columns_rw(k, at + done)
            offset = at + done & (k.PAGES_PER_SECTION - 1)
            size = min(high - low - done, k.PAGES_PER_SECTION - offset)
            target.store(KIND, offset, kinds[done : done + size])
            target.store(REFCOUNT, offset, counts[done : done + size])
            target.store(FLAGS, offset, flags[done : done + size])
            target.set_bits(FLAGS, offset, offset + size, PAGE_INITIALISED)
            target.clear_bits(FLAGS, offset, offset + size, PG_HWPOISON)
            done += size


def _held(k: Kernel, start: int, end: int) -> Runs:
    """Runs of pages that somebody holds who cannot be told that they move. Source: none"""
    return _by_count(k, start, end, held=True)


def _free_to_go(k: Kernel, start: int, end: int) -> Runs:
    """Runs of pages that nobody holds beside their users. Source: none"""
    return _by_count(k, start, end, held=False)


_ABOVE_ONE = bytes(1 if count > 1 else 0 for count in range(256))
_ONE = bytes(1 if count == 1 else 0 for count in range(256))


def _by_count(k: Kernel, start: int, end: int, held: bool) -> Runs:
    """Runs of pages with more than one reference, or with one. Source: none"""
    runs: Runs = []
    for columns, low, high, first in page_ranges(k, start, end - start):
        count = columns.uniform(REFCOUNT)
        if count is not None:
            if (count > 1) == held and count:
                runs.append((first, first + high - low))
            continue
        mask = columns.values(REFCOUNT, low, high).translate(_ABOVE_ONE if held else _ONE)
        position = mask.find(1)
        while position >= 0:
            stop = mask.find(0, position)
            stop = len(mask) if stop < 0 else stop
            runs.append((first + position, first + stop))
            position = mask.find(1, stop)
    return runs


def _follow(k: Kernel, moves: list[tuple[int, int, int]]) -> None:
    """Tell those whose pages moved where they are now. Source: mm/migrate.c remove_migration_ptes()"""
    moves = sorted(moves)
    starts = [old for old, _, _ in moves]
    if k.user_pages:
        pages: list[tuple[int, int]] = []
        for pfn, order in k.user_pages:
            runs = _moved(moves, starts, pfn, pfn + (1 << order))
            if runs == [(pfn, pfn + (1 << order))]:
                pages.append((pfn, order))
            else:
                pages += [(page, 0) for start, end in runs for page in range(start, end)]
        k.user_pages = tuple(pages)
    for name, work in k.workloads.items():
        runs = [piece for start, end in work.runs for piece in _moved(moves, starts, start, end)]
        if tuple(runs) != work.runs:
            k.workloads[name] = replace(work, runs=tuple(_joined(runs)))


def _moved(moves: list[tuple[int, int, int]], starts: list[int], start: int, end: int) -> Runs:
    """Where the pages [start, end) are after some moves. Source: none"""
    at = max(0, bisect_right(starts, start) - 1)
    runs: Runs = []
    while start < end:
        while at < len(moves) and moves[at][0] + moves[at][2] <= start:
            at += 1
        if at == len(moves) or moves[at][0] >= end:
            runs.append((start, end))
            break
        old, new, nr_pages = moves[at]
        if start < old:
            runs.append((start, old))
            start = old
        stop = min(end, old + nr_pages)
        runs.append((new + start - old, new + stop - old))
        start = stop
    return runs


def _joined(runs: Runs) -> Runs:
    """Runs in ascending order, neighbours joined. Source: none"""
    joined: Runs = []
    for start, end in sorted(runs):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
