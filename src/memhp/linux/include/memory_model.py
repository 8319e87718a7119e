# SPDX-License-Identifier: GPL-2.0-only
"""
From a pfn to its struct page, through the virtual memmap.

A page is named by its pfn throughout the model. What pfn_to_page() computes is an address in vmemmap; to look behind it the
section's memmap must have been populated, and if it was not, the access faults, as it did on the real kernel.

Source: include/asm-generic/memory_model.h; arch/arm64/include/asm/pgtable.h vmemmap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from memhp.linux import bug
from memhp.linux.include.mm_types import PageColumns

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

SIZEOF_STRUCT_PAGE = 64


def pfn_to_page(k: Kernel, pfn: int) -> int:
    """Return the virtual address of a pfn's struct page. Nothing is read."""
    return k.VMEMMAP_START + pfn * SIZEOF_STRUCT_PAGE


def _fault(k: Kernel, pfn: int) -> NoReturn:
    address = pfn_to_page(k, pfn)
    arm64 = f"Unable to handle kernel paging request at virtual address {address:016x}"
    text = arm64 if k.arch.name == "arm64" else f"BUG: unable to handle kernel paging request at {address:016x}"
    bug.oops(k.log, text, f"struct page of pfn {pfn:#x} was touched, but its memmap was never made")


def page_columns(k: Kernel, pfn: int) -> PageColumns:
    """
    Return the columns that hold a pfn's struct page; its offset there is `pfn & (PAGES_PER_SECTION - 1)`.

    Raises:
        KernelBugError: no memmap is populated there.
    """
    section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
    if section is None or section.memmap is None:
        _fault(k, pfn)
    return section.memmap


def page_ranges(k: Kernel, pfn: int, nr_pages: int) -> Iterator[tuple[PageColumns, int, int, int]]:
    """
    Cut [pfn, pfn + nr_pages) at sections: (columns, start offset, end offset, first pfn) of each piece, for reading.

    Raises:
        KernelBugError: no memmap is populated at a piece; earlier pieces have been handed out.
    """
    end = pfn + nr_pages
    mask = k.PAGES_PER_SECTION - 1
    while pfn < end:
        stop = min(end, (pfn | mask) + 1)
        offset = pfn & mask
        yield page_columns(k, pfn), offset, offset + stop - pfn, pfn
        pfn = stop


def page_ranges_rw(k: Kernel, pfn: int, nr_pages: int) -> Iterator[tuple[PageColumns, int, int, int]]:
    """As page_ranges(), for editing."""
    end = pfn + nr_pages
    mask = k.PAGES_PER_SECTION - 1
    while pfn < end:
        stop = min(end, (pfn | mask) + 1)
        offset = pfn & mask
        nr = pfn >> k.PFN_SECTION_SHIFT
        section = k.mem_section.get(nr)
        if section is None or section.memmap is None:
            _fault(k, pfn)
        if section.owner is not k.token:
            section = k.section_rw(nr)
        assert section.memmap is not None
        yield section.memmap, offset, offset + stop - pfn, pfn
        pfn = stop
