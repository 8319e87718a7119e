# SPDX-License-Identifier: GPL-2.0-only
"""
"[RFC PATCH] Memory hotplug support for arm64 platform", December 2016, and the remedies that rival it.

v4.9 arm64 has no arch_add_memory(); the series brings one. Its difficulty: arm64's pfn_valid() looks at memblock only, and
memblock knows the new range before any memmap exists. So the series marks the range NOMAP while sections are added, clears the
mark, and then reserves the pages, which the generic loop had skipped.

Each remedy is a function of its own, the rest of arch_add_memory() after the linear mapping was made:

=======================  ==========================  ====================================  ===========================
remedy                   marked NOMAP                cleared                               then
=======================  ==========================  ====================================  ===========================
full                     the range                   after __add_pages                     reserve every page
nohack                   the range                   after __add_pages                     -
nonomap                  -                           -                                     reserve every page
nonomap-nohack           -                           -                                     -
firstpage                the range's first page      after __add_pages                     reserve that page
firstpage-nohack         the range's first page      after __add_pages                     -
initpage                 the range                   after __add_pages                     initialise every page again
initpage-then-reserved   the range                   after __add_pages                     the same, then reserve
generic                  -                           -                                     - (pfn_valid by section)
generic-full             the range                   after __add_pages                     reserve (pfn_valid by section)
noclear                  the range                   never                                 -
clear-before-add-zone    the range                   between sparse_add_one_section()      -
                                                     and __add_zone()
=======================  ==========================  ====================================  ===========================

This room lies below the rooms whose functions the series calls, so it is written against the symbols it links to
(`Symbols`), which the architecture fills in.

Source: the mail of 15 December 2016; the downstream port of v1. That the whole range is marked follows the mail's plural.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memhp.errors import KernelError

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

NAME = "arm64-rfc-2016"


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbols:
    """
    The functions of the tree that the series links against; each takes the kernel first.

    Attributes:
        memblock_mark_nomap: (base, size)
        memblock_clear_nomap: (base, size)
        zone: (nid, start, size) -> the zone that zone_for_memory() picks, default ZONE_NORMAL
        add_pages: __add_pages(nid, zone, start_pfn, nr_pages)
        SetPageReserved: (pfn, nr_pages)
        init_single_page: __init_single_page(pfn, nr_pages, zone, nid)
        set_pageblock_migratetype: (pfn, migratetype, nr_pages)
    """

    memblock_mark_nomap: Callable[[Kernel, int, int], None]
    memblock_clear_nomap: Callable[[Kernel, int, int], None]
    zone: Callable[[Kernel, int, int, int], Any]
    add_pages: Callable[[Kernel, int, Any, int, int], None]
    SetPageReserved: Callable[[Kernel, int, int], None]
    init_single_page: Callable[[Kernel, int, int, int, int], None]
    set_pageblock_migratetype: Callable[[Kernel, int, int, int], None]


@dataclass(frozen=True, slots=True)
class Remedy:
    """
    A way to make hot-add work on arm64.

    Attributes:
        name: As in `remedy=`.
        summary: One line.
        add: (kernel, symbols, nid, start, size), raises KernelError.
        pfn_valid: Definition it needs, or "" for the tree's own.
        clears_before_add_zone: It also patches __add_section().
    """

    name: str
    summary: str
    add: Callable[[Kernel, Symbols, int, int, int], None]
    pfn_valid: str = ""
    clears_before_add_zone: bool = False


def _attempt(call: Callable[..., None], *args: Any) -> KernelError | None:
    """Make a call whose `ret` is looked at later; an oops goes through. Source: none"""
    try:
        call(*args)
    except KernelError as err:
        return err
    return None


def _return(ret: KernelError | None) -> None:
    """`return ret;` Source: none"""
    if ret is not None:
        raise ret


def _full(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """The series: mark the range NOMAP, add, clear, reserve every page; the last two also if adding failed."""
    start_pfn, nr_pages = start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    sym.memblock_mark_nomap(k, start, size)
    zone = sym.zone(k, nid, start, size)
    ret = _attempt(sym.add_pages, k, nid, zone, start_pfn, nr_pages)
    sym.memblock_clear_nomap(k, start, size)
    sym.SetPageReserved(k, start_pfn, nr_pages)
    _return(ret)


def _nohack(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Mark, add, clear; trust the generic loop to reserve."""
    start_pfn, nr_pages = start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    sym.memblock_mark_nomap(k, start, size)
    zone = sym.zone(k, nid, start, size)
    ret = _attempt(sym.add_pages, k, nid, zone, start_pfn, nr_pages)
    sym.memblock_clear_nomap(k, start, size)
    _return(ret)


def _nonomap(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Add and reserve, without the mark."""
    start_pfn, nr_pages = start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    zone = sym.zone(k, nid, start, size)
    ret = _attempt(sym.add_pages, k, nid, zone, start_pfn, nr_pages)
    sym.SetPageReserved(k, start_pfn, nr_pages)
    _return(ret)


def _nonomap_nohack(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Add, and nothing else: what other architectures do."""
    zone = sym.zone(k, nid, start, size)
    sym.add_pages(k, nid, zone, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT)


def _firstpage(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Mark only the first page of the range, add, clear, reserve that page: what vendor kernels shipped."""
    start_pfn, nr_pages = start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    sym.memblock_mark_nomap(k, start, k.PAGE_SIZE)
    zone = sym.zone(k, nid, start, size)
    ret = _attempt(sym.add_pages, k, nid, zone, start_pfn, nr_pages)
    sym.memblock_clear_nomap(k, start, k.PAGE_SIZE)
    sym.SetPageReserved(k, start_pfn, 1)
    _return(ret)


def _firstpage_nohack(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Mark only the first page of the range, add, clear."""
    start_pfn, nr_pages = start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    sym.memblock_mark_nomap(k, start, k.PAGE_SIZE)
    zone = sym.zone(k, nid, start, size)
    ret = _attempt(sym.add_pages, k, nid, zone, start_pfn, nr_pages)
    sym.memblock_clear_nomap(k, start, k.PAGE_SIZE)
    _return(ret)


def _init_pages(k: Kernel, sym: Symbols, nid: int, zone: int, start_pfn: int, nr_pages: int) -> None:
    """The reviewer's helpers over the range: __init_single_page() for each page, MOVABLE for each pageblock."""
    movable = 1
    for pfn in range(start_pfn, start_pfn + nr_pages, k.PAGES_PER_SECTION):
        count = min(k.PAGES_PER_SECTION, start_pfn + nr_pages - pfn)
        sym.init_single_page(k, pfn, count, zone, nid)
        sym.set_pageblock_migratetype(k, pfn, movable, count)


def _initpage(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Mark, add, clear, initialise every page again: the reviewer's proposal."""
    start_pfn, nr_pages = start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    sym.memblock_mark_nomap(k, start, size)
    zone = sym.zone(k, nid, start, size)
    ret = _attempt(sym.add_pages, k, nid, zone, start_pfn, nr_pages)
    sym.memblock_clear_nomap(k, start, size)
    _init_pages(k, sym, nid, zone.idx, start_pfn, nr_pages)
    _return(ret)


def _initpage_then_reserved(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Mark, add, clear, initialise every page again, reserve every page."""
    start_pfn, nr_pages = start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    sym.memblock_mark_nomap(k, start, size)
    zone = sym.zone(k, nid, start, size)
    ret = _attempt(sym.add_pages, k, nid, zone, start_pfn, nr_pages)
    sym.memblock_clear_nomap(k, start, size)
    _init_pages(k, sym, nid, zone.idx, start_pfn, nr_pages)
    sym.SetPageReserved(k, start_pfn, nr_pages)
    _return(ret)


def _noclear(k: Kernel, sym: Symbols, nid: int, start: int, size: int) -> None:
    """Mark and add; the mark stays."""
    sym.memblock_mark_nomap(k, start, size)
    zone = sym.zone(k, nid, start, size)
    sym.add_pages(k, nid, zone, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT)


def clear_section_nomap(k: Kernel, sym: Symbols, start_pfn: int) -> None:
    """What "clear-before-add-zone" puts between sparse_add_one_section() and __add_zone(): clear the section's mark."""
    sym.memblock_clear_nomap(k, start_pfn << k.PAGE_SHIFT, k.PAGES_PER_SECTION << k.PAGE_SHIFT)


REMEDIES: dict[str, Remedy] = {
    remedy.name: remedy
    for remedy in (
        Remedy("full", "mark NOMAP, add, clear, reserve every page (the mail)", _full),
        Remedy("nohack", "mark NOMAP, add, clear", _nohack),
        Remedy("nonomap", "add, reserve every page", _nonomap),
        Remedy("nonomap-nohack", "add", _nonomap_nohack),
        Remedy("firstpage", "mark the first page NOMAP, add, clear, reserve that page (vendor kernels)", _firstpage),
        Remedy("firstpage-nohack", "mark the first page NOMAP, add, clear", _firstpage_nohack),
        Remedy("initpage", "mark NOMAP, add, clear, initialise every page again (the reviewer)", _initpage),
        Remedy("initpage-then-reserved", "as initpage, then reserve every page", _initpage_then_reserved),
        Remedy("generic", "add, with pfn_valid() by section", _nonomap_nohack, pfn_valid="G0"),
        Remedy("generic-full", "as full, with pfn_valid() by section", _full, pfn_valid="G0"),
        Remedy("noclear", "mark NOMAP, add, never clear", _noclear),
        Remedy("clear-before-add-zone", "mark NOMAP, add, clear each section before __add_zone()", _noclear,
               clears_before_add_zone=True),
    )
}
