# SPDX-License-Identifier: GPL-2.0-only
"""
Hibernation: which pages are saved, and the copy.

pfn_valid() opens the list of tests; what passes them is read through the linear map. Without DEBUG_PAGEALLOC a reserved page is
saved, too: kernel_page_present() is always true then.

Source: kernel/power/snapshot.c [v4.9], as far as pfns go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mm, mmzone
from memhp.linux.include.io import read_linear
from memhp.linux.include.mmzone import Zone
from memhp.linux.mm import internal, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def swsusp_page_is_forbidden(k: Kernel, pfn: int) -> bool:
    """
    Whether a page was registered as nosave, and is in the bitmap: mark_nosave_pages() enters only what pfn_valid() has.

    Source: kernel/power/snapshot.c swsusp_page_is_forbidden(), mark_nosave_pages() [v4.9]
    """
    return any(start <= pfn < end for start, end in k.arch.io.nosave_regions(k)) and mmzone.pfn_valid(k, pfn)


def swsusp_page_is_free(k: Kernel, pfn: int) -> bool:
    """Source: kernel/power/snapshot.c swsusp_page_is_free(), after mm/page_alloc.c mark_free_pages() [v4.9]"""
    return bool(internal.free_mask(k, pfn, pfn + 1)[0])


def saveable_page(k: Kernel, zone: Zone, pfn: int) -> bool:
    """
    Whether a page goes into the image.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: kernel/power/snapshot.c saveable_page() [v4.9]
    """
    if not mmzone.pfn_valid(k, pfn):
        return False
    if mm.page_zone(k, pfn) is not zone:
        return False
    return not swsusp_page_is_forbidden(k, pfn) and not swsusp_page_is_free(k, pfn)


def _saveable(k: Kernel, zone: Zone) -> list[tuple[int, int]]:
    """saveable_page() over a zone, as runs of pages. Source: none"""
    found: list[tuple[int, int]] = []
    for start, end in internal.valid_runs(k, zone.zone_start_pfn, mmzone.zone_end_pfn(zone)):
        mask = internal.zone_mask(k, zone, start, end)
        skip = internal.free_mask(k, start, end)
        for low, high in k.arch.io.nosave_regions(k):
            a, b = max(low, start) - start, min(high, end) - start
            if a < b:
                skip[a:b] = b"\1" * (b - a)
        found += internal.runs(internal.both(mask, internal.neither(skip, skip)), start)
    return found


def mark_free_pages(k: Kernel, zone: Zone) -> None:
    """
    Look at every valid page of a zone, to forget which were free the last time.

    Source: mm/page_alloc.c mark_free_pages() [v4.9]
    """
    for start, end in internal.valid_runs(k, zone.zone_start_pfn, mmzone.zone_end_pfn(zone)):
        internal.zone_mask(k, zone, start, end)


def copy_data_pages(k: Kernel) -> list[tuple[int, int]]:
    """
    Copy every page that is to be saved; returns them as runs of pfns.

    Raises:
        KernelBugError: a struct page, or the linear address of a page to be copied, is not there.

    Source: kernel/power/snapshot.c copy_data_pages(), safe_copy_page() [v4.9]
    """
    orig_bm: list[tuple[int, int]] = []
    for zone in page_alloc._zones(k):
        if mmzone.populated_zone(zone):
            mark_free_pages(k, zone)
            orig_bm += _saveable(k, zone)
    for start, end in orig_bm:
        read_linear(k, start << k.PAGE_SHIFT, (end - start) << k.PAGE_SHIFT)
    return orig_bm
