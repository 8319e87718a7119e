# SPDX-License-Identifier: GPL-2.0-only
"""
A struct page in words, for the log and for people.

Source: mm/debug.c [v5.10, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.bug import printk
from memhp.linux.include.memory_model import page_columns
from memhp.linux.include.mm_types import FLAGS, KIND, NODE, REFCOUNT, ZONE
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_CMA,
    KIND_FILE,
    KIND_HUGE,
    KIND_HUGETLB,
    KIND_KERNEL,
    KIND_KERNEL_TABLE,
    KIND_MEMMAP,
    KIND_NONE,
    KIND_PAGE_TABLE,
    KIND_SLAB,
    KIND_STACK,
    PG_HEAD,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PG_RESERVED,
    PG_SLAB,
)

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

_KINDS = {
    KIND_SLAB: "slab", KIND_PAGE_TABLE: "a page table", KIND_KERNEL_TABLE: "a page table of the kernel",
    KIND_STACK: "a kernel stack", KIND_MEMMAP: "memmap",
    KIND_ANON: "anonymous", KIND_FILE: "of a file", KIND_KERNEL: "the kernel's", KIND_HUGE: "a huge page",
    KIND_HUGETLB: "of hugetlbfs", KIND_CMA: "CMA's",
}
_FLAGS = ((PG_HWPOISON, "hwpoison"), (PG_RESERVED, "reserved"), (PG_LRU, "lru"), (PG_HEAD, "head"))


def _describe_page(k: Kernel, pfn: int) -> str:
    """What a page is, for people. Source: none"""
    columns, offset = page_columns(k, pfn), pfn & (k.PAGES_PER_SECTION - 1)
    flags, kind, count = (columns.get(which, offset) for which in (FLAGS, KIND, REFCOUNT))
    marks = (PG_HWPOISON, "poisoned"), (PG_RESERVED, "reserved"), (PG_OFFLINE, "PageOffline")
    words = [word for mask, word in marks if flags & mask]
    if kind != KIND_NONE:
        words.append(_KINDS[kind])
    elif not words:
        words.append("in use" if count else "free")
    if count > 1:
        words.append("held by somebody")
    return ", ".join(words)


def dump_page(k: Kernel, pfn: int, reason: str) -> None:
    """
    Print what is known of a page: its counts, its flags, its type; not its raw words, which are addresses.

    Source: mm/debug.c dump_page() [v5.10, v6.12]
    """
    columns, offset = page_columns(k, pfn), pfn & (k.PAGES_PER_SECTION - 1)
    flags, kind = columns.get(FLAGS, offset), columns.get(KIND, offset)
    pointer = "" if k.tree.dump_page_has_no_pointer else "(____ptrval____)"
    space = " " if k.tree.dump_page_has_no_pointer else ""
    printk(
        k.log,
        f"page:{space}{pointer}{'' if space else ' '}refcount:{columns.get(REFCOUNT, offset)} mapcount:{int(kind == KIND_ANON)} "
        f"mapping:0000000000000000 index:0x0 pfn:{pfn:#x}")
    names = "|".join(name for mask, name in _FLAGS if flags & mask)
    printk(k.log, f"flags: ({names}{'|' if names else ''}node={columns.get(NODE, offset)}|zone={columns.get(ZONE, offset)})")
    if flags & PG_SLAB:
        printk(k.log, "page_type: f5(slab)")
    printk(k.log, f"page dumped because: {reason}")
