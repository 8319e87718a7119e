# SPDX-License-Identifier: GPL-2.0-only
"""
PG_* flags, over ranges of pages.

`SetPageReserved(k, pfn, nr_pages)` is what a loop of SetPageReserved(page) does in C.

Source: include/linux/page-flags.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include.memory_model import page_columns, page_ranges, page_ranges_rw
from memhp.linux.include.mm_types import FLAGS, KIND

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

PG_RESERVED = 1 << 0
PG_LRU = 1 << 1
PG_SLAB = 1 << 2
PG_PRIVATE = 1 << 3
PG_HEAD = 1 << 4
PG_OFFLINE = 1 << 5
"""A page type in C (PageOffline): logically offline although its section is online, or not onlined yet [v6.11]."""
PG_HWPOISON = 1 << 6
PAGE_INITIALISED = 1 << 7
"""Not a flag in C: `page->lru.next` is set, which drivers/base/node.c takes as "initialised"."""

KIND_NONE, KIND_SLAB, KIND_PAGE_TABLE, KIND_STACK, KIND_MEMMAP, KIND_ANON, KIND_FILE, KIND_KERNEL = range(8)
KIND_HUGE, KIND_HUGETLB, KIND_CMA, KIND_KERNEL_TABLE = range(8, 12)
KIND_OTHER = 15
"""What an allocated page is used for. The kernel's own tables have seen no constructor: no type, and no counter has them."""
KIND_DIRTY = 64
"""PG_dirty, which is a flag in C: of the pages that are kept apart here only PageOffline() ones can be, and they have no kind."""


def PageReserved(k: Kernel, pfn: int) -> bool:
    return bool(page_columns(k, pfn).get(FLAGS, pfn & (k.PAGES_PER_SECTION - 1)) & PG_RESERVED)


def SetPageReserved(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    """
    Reserve a range of pages.

    Raises:
        KernelBugError: a page has no memmap; the pages before it are reserved by then.
    """
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.set_bits(FLAGS, start, end, PG_RESERVED)


def ClearPageReserved(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.clear_bits(FLAGS, start, end, PG_RESERVED)


def ClearPageHWPoison(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.clear_bits(FLAGS, start, end, PG_HWPOISON)


def PageLRU(k: Kernel, pfn: int) -> bool:
    return bool(page_columns(k, pfn).get(FLAGS, pfn & (k.PAGES_PER_SECTION - 1)) & PG_LRU)


def PageHWPoison(k: Kernel, pfn: int) -> bool:
    return bool(page_columns(k, pfn).get(FLAGS, pfn & (k.PAGES_PER_SECTION - 1)) & PG_HWPOISON)


def PageOffline(k: Kernel, pfn: int) -> bool:
    return bool(page_columns(k, pfn).get(FLAGS, pfn & (k.PAGES_PER_SECTION - 1)) & PG_OFFLINE)


def __SetPageOffline(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.set_bits(FLAGS, start, end, PG_OFFLINE)


def __ClearPageOffline(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.clear_bits(FLAGS, start, end, PG_OFFLINE)


def PageDirty(k: Kernel, pfn: int) -> bool:
    return page_columns(k, pfn).get(KIND, pfn & (k.PAGES_PER_SECTION - 1)) == KIND_DIRTY


def SetPageDirty(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    set_page_kind(k, pfn, nr_pages, KIND_DIRTY)


def ClearPageDirty(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    set_page_kind(k, pfn, nr_pages, KIND_NONE)


def pages_offline(k: Kernel, pfn: int, nr_pages: int) -> int:
    """Return how many pages of a range are PageOffline(). Source: none"""
    return sum(
        columns.count(FLAGS, start, end, PG_OFFLINE, PG_OFFLINE) for columns, start, end, _ in page_ranges(k, pfn, nr_pages))


def reserved_pages(k: Kernel, pfn: int, nr_pages: int) -> int:
    """Return how many pages of a range are reserved. Source: none"""
    return sum(
        columns.count(FLAGS, start, end, PG_RESERVED, PG_RESERVED) for columns, start, end, _ in page_ranges(k, pfn, nr_pages))


def first_not_reserved(k: Kernel, pfn: int, nr_pages: int) -> int:
    """Return the first pfn of a range that is not reserved, or -1. Source: none"""
    for columns, start, end, first in page_ranges(k, pfn, nr_pages):
        found = columns.find(FLAGS, start, end, PG_RESERVED, 0)
        if found >= 0:
            return first + found - start
    return -1


def set_page_kind(k: Kernel, pfn: int, nr_pages: int, kind: int, flags: int = 0) -> None:
    """Note what a range of pages is used for, with the flags that go with it. Source: none"""
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.fill(KIND, start, end, kind)
        if flags:
            columns.set_bits(FLAGS, start, end, flags)
