# SPDX-License-Identifier: GPL-2.0-only
"""
How memory is to be added, how a block is to be brought online; and which pages are.

Source: include/linux/memory_hotplug.h [v4.9, v5.12, v6.12].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.memory_model import pfn_to_page
from memhp.linux.include.memremap import VmemAltmap

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

MMOP_OFFLINE = -1
MMOP_ONLINE_KEEP = 0
MMOP_ONLINE_KERNEL = 1
MMOP_ONLINE_MOVABLE = 2
MMOP_ONLINE = MMOP_ONLINE_KEEP
"""What KEEP is called since v5.7, where the four types are numbered 0 to 3; here they keep the numbers they had."""

MEMMAP_ON_MEMORY_DISABLE, MEMMAP_ON_MEMORY_ENABLE, MEMMAP_ON_MEMORY_FORCE = range(3)

MHP_NONE = 0
MHP_MERGE_RESOURCE = 1 << 0
MHP_MEMMAP_ON_MEMORY = 1 << 1
MHP_NID_IS_MGID = 1 << 2
MHP_OFFLINE_INACCESSIBLE = 1 << 3


@dataclass(slots=True)
class MhpParams:
    """
    struct mhp_params: what arch_add_memory() is told beside the range.

    Attributes:
        altmap: Where the memmap's pages come from, if not from the page allocator.
        for_device: ZONE_DEVICE memory: a dev_pagemap is given (in v4.9 an argument of its own).
    """

    altmap: VmemAltmap | None = None
    for_device: bool = False


def pfn_to_online_page(k: Kernel, pfn: int) -> int | None:
    """
    Return the address of a pfn's struct page if its memory is online, else None.

    Unlike pfn_valid() it says whether the struct page means anything. A tree that does not mark sections online (before v4.13)
    has no such function.

    Source: include/linux/memory_hotplug.h pfn_to_online_page() [v4.13]; mm/memory_hotplug.c [v5.12]
    """
    assert k.tree.has_online_sections, f"{k.tree.name} does not know which sections are online"
    if not mmzone.INRANGE.test(k, pfn) or not mmzone.ONLINE.test(k, pfn):
        return None
    if k.config.HAVE_ARCH_PFN_VALID and not mmzone.pfn_valid(k, pfn):
        return None
    if k.tree.has_taint_sections:
        if not mmzone.SUB.test(k, pfn):
            return None
        if mmzone.TAINT.test(k, pfn) and any(start <= pfn < end for start, end in k.dev_pagemaps):
            return None
    return pfn_to_page(k, pfn)


def _online_runs(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Cut [start, end) where pfn_to_online_page() changes its mind: (start, end, whether it gives a page). Source: none"""
    for first, stop, online in _runs(k, start, end):
        if online and k.config.HAVE_ARCH_PFN_VALID:
            yield from mmzone.pfn_valid_runs(k, first, stop)
        else:
            yield first, stop, online


def _runs(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """What sections and sub-sections say of _online_runs(), neighbours joined. Source: none"""
    step = 1 << mmzone.SUBSECTION_SHIFT - k.PAGE_SHIFT if k.tree.has_subsections else k.PAGES_PER_SECTION
    whole = (1 << k.PAGES_PER_SECTION // step) - 1
    begin, last = start, False
    pfn = start
    while pfn < end:
        section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
        edge = (pfn | k.PAGES_PER_SECTION - 1) + 1
        plain = not mmzone.online_section(section) or (
            section is not None and not section.section_mem_map & mmzone.SECTION_TAINT_ZONE_DEVICE
            and (not k.tree.has_taint_sections or section.subsection_map == whole))
        stop = min(end, edge if plain else (pfn | step - 1) + 1)
        online = mmzone.online_section(section) if plain else pfn_to_online_page(k, pfn) is not None
        if online != last:
            if begin < pfn:
                yield begin, pfn, last
            begin, last = pfn, online
        pfn = stop
    if begin < end:
        yield begin, end, last


def online_runs(k: Kernel, start: int, end: int) -> list[tuple[int, int]]:
    """The runs of [start, end) for which pfn_to_online_page() finds a page. Source: none"""
    if end <= start:
        return []
    if not k.config.HAVE_ARCH_PFN_VALID and start >> k.PFN_SECTION_SHIFT == end - 1 >> k.PFN_SECTION_SHIFT:
        section = mmzone.__pfn_to_section(k, start)
        if not mmzone.online_section(section):
            return []
        assert section is not None
        full = (1 << max(1, k.PAGES_PER_SECTION >> mmzone.SUBSECTION_SHIFT - k.PAGE_SHIFT)) - 1
        tainted = section.section_mem_map & mmzone.SECTION_TAINT_ZONE_DEVICE
        if not k.tree.has_taint_sections or (section.subsection_map == full and not tainted):
            return [(start, end)]
    points = {*k.pfn_valid.cuts(k, start, end)}
    if k.tree.has_taint_sections and mmzone.SUB.cuts is not None:
        points |= set(mmzone.SUB.cuts(k, start, end))
        points |= {pfn for span in k.dev_pagemaps for pfn in span if start < pfn < end}
    ordered = sorted(points)
    runs: list[tuple[int, int]] = []
    for pfn, stop in zip(ordered, [*ordered[1:], end], strict=True):
        if pfn_to_online_page(k, pfn) is None:
            continue
        if runs and runs[-1][1] == pfn:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((pfn, stop))
    return runs
