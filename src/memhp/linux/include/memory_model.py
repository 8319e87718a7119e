# SPDX-License-Identifier: GPL-2.0-only
"""
From a pfn to its struct page, through the virtual memmap.

A page is named by its pfn throughout the model. What pfn_to_page() computes is an address in vmemmap; to look behind it the
section's memmap must have been populated, and if it was not, the access faults, as it did on the real kernel.

Source: include/asm-generic/memory_model.h; arch/arm64/include/asm/pgtable.h vmemmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn

from memhp.linux import bug
from memhp.linux.include.mm_types import PageColumns

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

SIZEOF_STRUCT_PAGE = 64
COMPOUND_HEAD = 32
"""Offset of the field that every question about a page's head reads first: PageSlab() and its like."""


def pfn_to_page(k: Kernel, pfn: int) -> int:
    """Return the virtual address of a pfn's struct page. Nothing is read."""
    return k.VMEMMAP_START + pfn * SIZEOF_STRUCT_PAGE


def fault_on_page(k: Kernel, pfn: int, field: int = 0) -> NoReturn:
    """
    Die of touching a struct page that was never made.

    Args:
        field: Offset of what is touched first, in bytes.

    Source: none
    """
    address = pfn_to_page(k, pfn) + field
    arm64 = f"Unable to handle kernel paging request at virtual address {address:016x}"
    text = arm64 if k.arch.name == "arm64" else f"BUG: unable to handle kernel paging request at {address:016x}"
    bug.oops(k.log, text, f"struct page of pfn {pfn:#x} was touched, but its memmap was never made")


def page_columns(k: Kernel, pfn: int) -> PageColumns:
    """
    Return the columns that hold a pfn's struct page; its offset there is `pfn & (PAGES_PER_SECTION - 1)`.

    Raises:
        KernelBugError: no memmap is populated there.

    Source: none
    """
    section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
    if section is None or section.memmap is None:
        fault_on_page(k, pfn)
    if k.page_watch is not None:
        k.page_watch(pfn, 1)
    return section.memmap


Piece = tuple[PageColumns, int, int, int]
"""A piece of a range inside one section: columns, start offset, end offset, first pfn."""


def page_ranges(k: Kernel, pfn: int, nr_pages: int) -> Iterable[Piece]:
    """
    Cut [pfn, pfn + nr_pages) at sections, for reading.

    Raises:
        KernelBugError: no memmap is populated at a piece; earlier pieces have been handed out.

    Source: none
    """
    offset = pfn & (k.PAGES_PER_SECTION - 1)
    if k.page_watch is not None:
        return _watched(k, pfn, nr_pages)
    if offset + nr_pages <= k.PAGES_PER_SECTION:
        return ((page_columns(k, pfn), offset, offset + nr_pages, pfn),) if nr_pages else ()
    return _pieces(k, pfn, nr_pages, page_columns)


def page_ranges_rw(k: Kernel, pfn: int, nr_pages: int) -> Iterable[Piece]:
    """As page_ranges(), for editing. Source: none"""
    offset = pfn & (k.PAGES_PER_SECTION - 1)
    if offset + nr_pages <= k.PAGES_PER_SECTION:
        return ((page_columns_rw(k, pfn), offset, offset + nr_pages, pfn),) if nr_pages else ()
    return _pieces(k, pfn, nr_pages, page_columns_rw)


def _watched(k: Kernel, pfn: int, nr_pages: int) -> Iterator[Piece]:
    """The pieces of a range while somebody watches what is read. Source: none"""
    for piece in _pieces(k, pfn, nr_pages, page_columns):
        if k.page_watch is not None:
            k.page_watch(piece[3], piece[2] - piece[1])
        yield piece


def page_columns_rw(k: Kernel, pfn: int) -> PageColumns:
    """As page_columns(), for editing. Source: none"""
    nr = pfn >> k.PFN_SECTION_SHIFT
    section = k.mem_section.get(nr)
    if section is None or section.memmap is None:
        fault_on_page(k, pfn)
    if section.owner is k.token:
        return section.memmap
    memmap = k.section_rw(nr).memmap
    assert memmap is not None
    return memmap


def _pieces(k: Kernel, pfn: int, nr_pages: int, columns: Callable[[Kernel, int], PageColumns]) -> Iterator[Piece]:
    """The pieces of a range that crosses sections, each looked up when its turn comes. Source: none"""
    end = pfn + nr_pages
    mask = k.PAGES_PER_SECTION - 1
    while pfn < end:
        stop = min(end, (pfn | mask) + 1)
        offset = pfn & mask
        yield columns(k, pfn), offset, offset + stop - pfn, pfn
        pfn = stop
