# SPDX-License-Identifier: GPL-2.0-only
"""
/proc/kpageflags and /proc/kpagecount: eight bytes for each pfn.

A read that begins beyond max_pfn is not cut off there: the subtraction in C wraps, so it goes on. Only a read that begins at
max_pfn exactly sees the end. (Recorded on the arm64 kernels, where hot-add does not raise max_pfn.)

Since v5.4 a page is shown only if pfn_to_online_page() gives it, and the files end where the section of max_pfn does.

Source: fs/proc/page.c [v4.9, v6.12].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from errno import EINVAL
from struct import pack
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.include import memory_hotplug, mmzone
from memhp.linux.include.memory_model import COMPOUND_HEAD, Piece, fault_on_page, page_ranges
from memhp.linux.include.mm_types import FLAGS, KIND, REFCOUNT
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_FILE,
    KIND_HUGE,
    KIND_HUGETLB,
    KIND_KERNEL,
    KIND_PAGE_TABLE,
    KIND_SLAB,
    PG_HEAD,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PG_PRIVATE,
    PG_RESERVED,
    PG_SLAB,
)
from memhp.linux.mm import internal, page_alloc

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

KPMSIZE = 8
KPF_BUDDY = 10
KPF_COMPOUND_HEAD = 15
KPF_COMPOUND_TAIL = 16
KPF_NOPAGE = 20
KPF_PGTABLE = 26

_FLAG_BITS = ((PG_LRU, 5), (PG_SLAB, 7), (PG_HWPOISON, 19), (PG_OFFLINE, 23), (PG_RESERVED, 32), (PG_PRIVATE, 35))
_KIND_BITS = {
    KIND_ANON: 1 << 3 | 1 << 5 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14,
    KIND_FILE: 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 14,
    KIND_SLAB: 1 << 7,
    KIND_KERNEL: 1 << 7,
    KIND_HUGE: 1 << 3 | 1 << 5 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 22,
    KIND_HUGETLB: 1 << 17,
}


def get_max_dump_pfn(k: Kernel) -> int:
    """Return where the files end: max_pfn rounded up to a section. Source: fs/proc/page.c get_max_dump_pfn() [v5.6]"""
    return -(-k.max_pfn // k.PAGES_PER_SECTION) * k.PAGES_PER_SECTION


def _page_runs(k: Kernel, first: int, end: int) -> Iterable[tuple[int, int, bool]]:
    """The runs of [first, end) that have a page to read, and that have none. Source: fs/proc/page.c kpageflags_read()"""
    if first >= end:
        return ()
    if k.tree.page_readers_ask_online:
        return memory_hotplug._online_runs(k, first, end)
    return mmzone.pfn_valid_runs(k, first, end)


def _span(k: Kernel, offset: int, size: int) -> tuple[int, int]:
    """Return the pfns [first, end) a read covers. Raises KernelError EINVAL. Source: fs/proc/page.c kpageflags_read()"""
    if k.tree.page_readers_ask_online:
        if offset % KPMSIZE or (size > 0 and size % KPMSIZE):
            raise KernelError(EINVAL, f"reads begin and end at multiples of {KPMSIZE} bytes", offset=offset, size=size)
        first = offset // KPMSIZE
        left = max(0, get_max_dump_pfn(k) - first)
        return first, first + (left if size < 0 else min(left, size // KPMSIZE))
    left = (k.max_pfn * KPMSIZE - offset) % (1 << 64)
    count = min(left, size) if size >= 0 else (left if left < 1 << 63 else 0)
    if offset % KPMSIZE or count % KPMSIZE:
        raise KernelError(EINVAL, f"reads begin and end at multiples of {KPMSIZE} bytes", offset=offset, size=size)
    first = offset // KPMSIZE
    return first, first + count // KPMSIZE


def stable_page_flags(k: Kernel, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """
    Yield (start, end, KPF_* bits) for runs of pages of [start, end), all of which have a struct page.

    Source: fs/proc/page.c stable_page_flags() [v4.9]
    """
    for columns, low, high, first in _page_slab(k, start, end):
        free = internal.free_mask(k, first, first + high - low)
        flags, kinds = columns.values(FLAGS, low, high), columns.values(KIND, low, high)
        position = 0
        while position < high - low:
            flag, kind, buddy = flags[position], kinds[position], free[position]
            stop = position + 1
            while stop < high - low and flags[stop] == flag and kinds[stop] == kind and free[stop] == buddy:
                stop += 1
            bits = _KIND_BITS.get(kind, 0)
            if kind == KIND_PAGE_TABLE and k.tree.page_tables_have_a_type:
                bits = 1 << KPF_PGTABLE
            elif kind in (KIND_HUGE, KIND_HUGETLB):
                bits |= 1 << (KPF_COMPOUND_HEAD if flag & PG_HEAD else KPF_COMPOUND_TAIL)
            for mask, bit in _FLAG_BITS:
                if flag & mask:
                    bits |= 1 << bit
            if buddy:
                bits = 1 << KPF_BUDDY
            yield first + position, first + stop, bits
            position = stop


def _page_slab(k: Kernel, start: int, end: int) -> Iterator[Piece]:
    """The pieces of [start, end) for readers whose first look is PageSlab(), through the page's head. Source: none"""
    while start < end:
        section = k.mem_section.get(start >> k.PFN_SECTION_SHIFT)
        if section is None or section.memmap is None:
            fault_on_page(k, start, COMPOUND_HEAD)
        stop = min(end, (start | k.PAGES_PER_SECTION - 1) + 1)
        yield from page_ranges(k, start, stop - start)
        start = stop


def kpageflags_read(k: Kernel, offset: int, size: int) -> bytes:
    """
    Read flags.

    Args:
        offset: Byte offset, a multiple of 8.
        size: Bytes, a multiple of 8; negative: up to max_pfn.

    Raises:
        KernelError: EINVAL for other offsets and sizes.
        KernelBugError: pfn_valid() promised a struct page where none is mapped.

    Source: fs/proc/page.c kpageflags_read() [v4.9]
    """
    first, end = _span(k, offset, size)
    end = min(end, 1 << 61)
    parts = []
    for start, stop, valid in _page_runs(k, first, end):
        if not valid:
            parts.append(pack("<Q", 1 << KPF_NOPAGE) * (stop - start))
            continue
        for low, high, bits in stable_page_flags(k, start, stop):
            parts.append(pack("<Q", bits) * (high - low))
    return b"".join(parts)


def kpagecount_read(k: Kernel, offset: int, size: int) -> bytes:
    """
    Read map counts. The first page of a free block shows -127, because its map count field says "buddy".

    Source: fs/proc/page.c kpagecount_read() [v4.9]
    """
    first, end = _span(k, offset, size)
    end = min(end, 1 << 61)
    out = bytearray()
    for start, stop, valid in _page_runs(k, first, end):
        if not valid:
            out += bytes(KPMSIZE * (stop - start))
            continue
        for columns, low, high, piece in _page_slab(k, start, stop):
            heads = _buddy_heads(k, piece, piece + high - low)
            kinds, counts = columns.values(KIND, low, high), columns.values(REFCOUNT, low, high)
            for i, (kind, count) in enumerate(zip(kinds, counts, strict=True)):
                if piece + i in heads:
                    out += pack("<q", -127)
                else:
                    out += pack("<Q", 1 if kind == KIND_ANON and count else 0)
    return bytes(out)


def _buddy_heads(k: Kernel, start: int, end: int) -> set[int]:
    """First pfns of the free blocks that begin in [start, end). Source: none"""
    heads: set[int] = set()
    size = 1 << (k.MAX_ORDER - 1)
    for pgdat in k.nodes.values():
        for zone in pgdat.node_zones:
            for low, high in page_alloc.free_ranges(k, zone):
                if low < end and high > start:
                    heads.update(pfn for pfn in range(low, high, min(size, high - low)) if start <= pfn < end)
    return heads
