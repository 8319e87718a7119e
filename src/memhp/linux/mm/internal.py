# SPDX-License-Identifier: GPL-2.0-only
"""
What walkers of the memmap share: which pages of a range are free.

In C, PageBuddy() marks the first page of a free block and page_order() says how far to skip. Here free blocks are known by
their lists, so a walker asks for a whole range at once.

Source: mm/internal.h [v4.9].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.memory_model import page_ranges
from memhp.linux.include.mm_types import NODE, ZONE
from memhp.linux.include.mmzone import Zone
from memhp.linux.mm import page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def free_mask(k: Kernel, start: int, end: int) -> bytearray:
    """One byte for each pfn of [start, end): 1 if it lies in a free block. Source: none"""
    mask = bytearray(end - start)
    for pgdat in k.nodes.values():
        for zone in pgdat.node_zones:
            if zone.free_area is None or zone.zone_start_pfn >= end or mmzone.zone_end_pfn(zone) <= start:
                continue
            for low, high in page_alloc.free_ranges(k, zone):
                if low < end and high > start:
                    a, b = max(low, start) - start, min(high, end) - start
                    mask[a:b] = b"\1" * (b - a)
    return mask


def zone_mask(k: Kernel, zone: Zone, start: int, end: int) -> bytearray:
    """
    One byte for each pfn of [start, end): 1 if the page's links name `zone`. Every one of the struct pages is read.

    Raises:
        KernelBugError: one of them has no memmap.

    Source: none
    """
    mask = bytearray()
    for columns, low, high, _ in page_ranges(k, start, end - start):
        idx, nid = columns.uniform(ZONE), columns.uniform(NODE)
        if idx is not None and nid is not None:
            mask += bytes([idx == zone.idx and nid == zone.nid]) * (high - low)
        else:
            pairs = zip(columns.values(ZONE, low, high), columns.values(NODE, low, high), strict=True)
            mask += bytes(a == zone.idx and b == zone.nid for a, b in pairs)
    return mask


def both(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """Bytes that are 1 where both are. Source: none"""
    return (int.from_bytes(one, "little") & int.from_bytes(other, "little")).to_bytes(len(one), "little")


def neither(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """Bytes that are 1 where neither is. Source: none"""
    ones = int.from_bytes(b"\1" * len(one), "little")
    return (ones & ~(int.from_bytes(one, "little") | int.from_bytes(other, "little"))).to_bytes(len(one), "little")


def without(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """Bytes that are 1 where `one` is and `other` is not. Source: none"""
    return (int.from_bytes(one, "little") & ~int.from_bytes(other, "little")).to_bytes(len(one), "little")


def runs(mask: bytes | bytearray, start: int) -> Iterator[tuple[int, int]]:
    """The runs [first, end) of ones in a mask whose first byte stands for pfn `start`. Source: none"""
    position = mask.find(1)
    while position >= 0:
        stop = mask.find(0, position)
        stop = len(mask) if stop < 0 else stop
        yield start + position, start + stop
        position = mask.find(1, stop)


def valid_runs(k: Kernel, start: int, end: int) -> list[tuple[int, int]]:
    """The runs of [start, end) for which pfn_valid() holds. Source: none"""
    if end <= start:
        return []
    return [(low, high) for low, high, valid in mmzone.pfn_valid_runs(k, start, end) if valid]


def within_runs(k: Kernel, start: int, end: int) -> list[tuple[int, int]]:
    """The runs of [start, end) for which pfn_valid_within() holds. Source: none"""
    if end <= start:
        return []
    return valid_runs(k, start, end) if k.config.HOLES_IN_ZONE else [(start, end)]
