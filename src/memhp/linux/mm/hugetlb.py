# SPDX-License-Identifier: GPL-2.0-only
"""
Pages of hugetlbfs, and gigantic pages.

The parts. A pool (struct hstate) of huge pages, each as large as a PMD maps: those in use by somebody, and free ones, of which
some may be promised (reserved) to mappings. A huge page in the way of offlining is moved to another of the pool, or to a new one
that the pool may grow by; a free one is dissolved into base pages, unless all free ones are promised.

One size is modelled, the default one, and one pool for all nodes.

Source: mm/hugetlb.c [v4.9].
"""

from __future__ import annotations

from dataclasses import replace
from errno import EBUSY
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.include import mm, mmzone
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE_NOWARN
from memhp.linux.include.memory_model import page_columns, page_ranges, page_ranges_rw
from memhp.linux.include.mm_types import FLAGS, KIND, REFCOUNT
from memhp.linux.include.mmzone import Zone
from memhp.linux.include.page_flags import KIND_HUGETLB, PG_HEAD, PG_RESERVED
from memhp.linux.mm import internal, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def huge_page_order(k: Kernel) -> int:
    """Return the order of a huge page: what a PMD maps. Source: include/linux/hugetlb.h huge_page_order()"""
    return k.arch.PMD_SHIFT(k.config) - k.PAGE_SHIFT


def hugepages_supported(k: Kernel) -> bool:
    """Source: include/linux/hugetlb.h hugepages_supported()"""
    return k.config.HUGETLB_PAGE


def prep_new_huge_page(k: Kernel, pfn: int) -> None:
    """Make a block of pages one huge page of the pool, in use. Source: mm/hugetlb.c prep_new_huge_page()"""
    order = huge_page_order(k)
    for columns, start, end, _ in page_ranges_rw(k, pfn, 1 << order):
        columns.fill(KIND, start, end, KIND_HUGETLB)
    for columns, start, end, _ in page_ranges_rw(k, pfn, 1):
        columns.fill(REFCOUNT, start, end, 1)
        columns.set_bits(FLAGS, start, end, PG_HEAD)
    k.hstate = replace(k.hstate, nr_huge_pages=k.hstate.nr_huge_pages + 1)


def alloc_fresh_huge_page_node(k: Kernel, nid: int) -> int:
    """
    Make a new huge page from free memory near a node; returns its first pfn, or -1.

    Source: mm/hugetlb.c alloc_fresh_huge_page_node() [v4.9]
    """
    pfn = page_alloc.__alloc_pages_nodemask(k, GFP_HIGHUSER_MOVABLE_NOWARN, huge_page_order(k), nid)
    if pfn >= 0:
        prep_new_huge_page(k, pfn)
    return pfn


def dequeue_huge_page_node(k: Kernel, nid: int) -> int:
    """
    Take a free huge page of a node into use; none whose pageblock is being isolated. Returns -1 if there is none.

    Source: mm/hugetlb.c dequeue_huge_page_node() [v4.9]
    """
    for pfn in reversed(k.hstate.free):
        if mm.page_to_nid(k, pfn) == nid and page_alloc.get_pageblock_migratetype(k, pfn) != mmzone.MIGRATE_ISOLATE:
            k.hstate = replace(k.hstate, free=tuple(page for page in k.hstate.free if page != pfn))
            mm.set_page_count(k, pfn, 1, 1)
            return pfn
    return -1


def alloc_huge_page_node(k: Kernel, nid: int) -> int:
    """
    Return a huge page of a node to move another one to, or -1: a free one that is not promised, or one more than the pool's size
    if that is allowed.

    Source: mm/hugetlb.c alloc_huge_page_node(), __alloc_buddy_huge_page_no_mpol() [v4.9]
    """
    pfn = dequeue_huge_page_node(k, nid) if len(k.hstate.free) > k.hstate.resv_huge_pages else -1
    if pfn < 0 and k.hstate.surplus_huge_pages < k.hstate.nr_overcommit_huge_pages:
        pfn = alloc_fresh_huge_page_node(k, nid)
        if pfn >= 0:
            k.hstate = replace(k.hstate, surplus_huge_pages=k.hstate.surplus_huge_pages + 1)
    return pfn


def alloc_hugetlb_folio_nodemask(k: Kernel, preferred_nid: int, nmask: frozenset[int]) -> int:
    """
    Return a huge page to move another one to, or -1: a free one that is not promised, or a new one, for which the old one goes.

    Source: mm/hugetlb.c alloc_hugetlb_folio_nodemask(), alloc_migrate_hugetlb_folio() [v6.12]
    """
    if len(k.hstate.free) > k.hstate.resv_huge_pages:
        for nid in sorted(nmask, key=lambda nid: (nid != preferred_nid, nid)):
            pfn = dequeue_huge_page_node(k, nid)
            if pfn >= 0:
                return pfn
    pfn = page_alloc.__alloc_pages_nodemask(k, GFP_HIGHUSER_MOVABLE_NOWARN, huge_page_order(k), preferred_nid, nmask)
    if pfn >= 0:
        prep_new_huge_page(k, pfn)
    return pfn


def free_huge_page(k: Kernel, pfn: int) -> None:
    """
    Give a huge page back: to the pool, or, if there are more than there should be, to the page allocator.

    Source: mm/hugetlb.c free_huge_page() [v4.9]
    """
    if k.hstate.surplus_huge_pages:
        k.hstate = replace(k.hstate, surplus_huge_pages=k.hstate.surplus_huge_pages - 1)
        update_and_free_page(k, pfn)
        return
    mm.set_page_count(k, pfn, 1, 0)
    k.hstate = replace(k.hstate, free=(*k.hstate.free, pfn))


def update_and_free_page(k: Kernel, pfn: int) -> None:
    """Turn a huge page back into free memory. Source: mm/hugetlb.c update_and_free_page() [v4.9]"""
    k.hstate = replace(k.hstate, nr_huge_pages=k.hstate.nr_huge_pages - 1)
    page_alloc.__free_pages(k, pfn, huge_page_order(k))


def PageHuge(k: Kernel, pfn: int) -> bool:
    """Whether a page is part of a huge page of the pool. Source: mm/hugetlb.c PageHuge()"""
    return page_columns(k, pfn).get(KIND, pfn & (k.PAGES_PER_SECTION - 1)) == KIND_HUGETLB


def dissolve_free_huge_page(k: Kernel, pfn: int) -> None:
    """
    Turn a free huge page into free memory; the pool shrinks.

    Raises:
        KernelError: EBUSY if all free ones are promised.

    Source: mm/hugetlb.c dissolve_free_huge_page() [v4.9]
    """
    if len(k.hstate.free) == k.hstate.resv_huge_pages:
        raise KernelError(EBUSY, "every free huge page is promised to somebody", pfn=pfn)
    k.hstate = replace(k.hstate, free=tuple(page for page in k.hstate.free if page != pfn))
    update_and_free_page(k, pfn)


def dissolve_free_huge_pages(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """
    Dissolve the free huge pages of a range.

    Raises:
        KernelError: EBUSY if one is promised; those before it are gone by then.

    Source: mm/hugetlb.c dissolve_free_huge_pages() [v4.9]
    """
    if not hugepages_supported(k):
        return
    for pfn in sorted(pfn for pfn in k.hstate.free if start_pfn <= pfn < end_pfn):
        dissolve_free_huge_page(k, pfn)


def pfn_range_valid_gigantic(k: Kernel, z: Zone, start_pfn: int, nr_pages: int) -> bool:
    """
    Whether every page of a range is valid, of zone `z`, not reserved and without references. The walk ends at the first that
    is not.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/hugetlb.c pfn_range_valid_gigantic() [v4.9]
    """
    for start, end, valid in mmzone.pfn_valid_runs(k, start_pfn, start_pfn + nr_pages):
        if not valid:
            return False
        if internal.zone_mask(k, z, start, end).count(0):
            return False
        for columns, low, high, _ in page_ranges(k, start, end - start):
            if columns.count(FLAGS, low, high, PG_RESERVED, PG_RESERVED):
                return False
            if columns.count(REFCOUNT, low, high, 0xFF, 0) < high - low:
                return False
    return True
