# SPDX-License-Identifier: GPL-2.0-only
"""
A page's links to its zone and node, and its reference count.

Source: include/linux/mm.h, include/linux/page_ref.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux import bug
from memhp.linux.include.memory_model import page_columns, page_ranges_rw
from memhp.linux.include.mm_types import NODE, REFCOUNT, ZONE
from memhp.linux.include.mmzone import Zone

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def page_zonenum(k: Kernel, pfn: int) -> int:
    return page_columns(k, pfn).get(ZONE, pfn & (k.PAGES_PER_SECTION - 1))


def is_zone_movable_page(k: Kernel, pfn: int) -> bool:
    return page_zonenum(k, pfn) == k.ZONE_MOVABLE


def page_to_nid(k: Kernel, pfn: int) -> int:
    return page_columns(k, pfn).get(NODE, pfn & (k.PAGES_PER_SECTION - 1))


def pfn_to_nid(k: Kernel, pfn: int) -> int:
    """Source: include/linux/mmzone.h pfn_to_nid()"""
    return page_to_nid(k, pfn)


def page_zone(k: Kernel, pfn: int) -> Zone:
    """
    Return the zone a page's links name; a struct page nobody initialised names the first zone of node 0.

    Raises:
        KernelBugError: NODE_DATA() of its node is NULL: a failed addition took the node back and left its sections.
    """
    columns = page_columns(k, pfn)
    zone, nid = columns.cols[ZONE], columns.cols[NODE]
    if not (isinstance(zone, int) and isinstance(nid, int)):
        offset = pfn & (k.PAGES_PER_SECTION - 1)
        zone, nid = columns.get(ZONE, offset), columns.get(NODE, offset)
    pgdat = k.nodes.get(nid)
    if pgdat is None:
        text = "BUG: unable to handle kernel NULL pointer dereference"
        bug.oops(k.log, text, f"pfn {pfn:#x} names node {nid}, whose data is gone")
    return pgdat.node_zones[zone]


def set_page_links(k: Kernel, pfn: int, nr_pages: int, zone: int, nid: int) -> None:
    """Point a range of pages to a zone of a node."""
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.fill(ZONE, start, end, zone)
        columns.fill(NODE, start, end, nid)


def page_ref_count(k: Kernel, pfn: int) -> int:
    return page_columns(k, pfn).get(REFCOUNT, pfn & (k.PAGES_PER_SECTION - 1))


def init_page_count(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    """_refcount = 1 for a range of pages."""
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.fill(REFCOUNT, start, end, 1)


def set_page_count(k: Kernel, pfn: int, nr_pages: int, value: int) -> None:
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        columns.fill(REFCOUNT, start, end, value)


def page_ref_dec_and_test(k: Kernel, pfn: int, nr_pages: int = 1) -> bool:
    """Take a reference from each page of a range; returns whether none of them has one left."""
    left = False
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        if columns.count(REFCOUNT, start, end, 0xFF, 1) == end - start:
            columns.fill(REFCOUNT, start, end, 0)
            continue
        for offset, references in enumerate(columns.values(REFCOUNT, start, end), start):
            columns.fill(REFCOUNT, offset, offset + 1, max(0, references - 1))
            left = left or references != 1
    return not left


def page_ref_inc(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
    """Give each page of a range a reference."""
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        if columns.count(REFCOUNT, start, end, 0xFF, 0) == end - start:
            columns.fill(REFCOUNT, start, end, 1)
            continue
        for offset, references in enumerate(columns.values(REFCOUNT, start, end), start):
            columns.fill(REFCOUNT, offset, offset + 1, references + 1)
