# SPDX-License-Identifier: GPL-2.0-only
"""
Memory hot-add and onlining.

The parts. *Adding* makes memory known: a resource, a memblock region, the architecture's linear mapping, sections with their
memmaps, a zone, a memory block device in state offline. *Onlining* hands the block's pages to the page allocator. In v4.9 the
zone is chosen when memory is added and can be shifted when it goes online; from v4.13 on it is chosen at online.

How trees differ. v4.9 adds section by section, each with its zone and its memory block, and asks pfn_valid() on the way. Since
v5.3 the architecture adds the whole range, in sub-sections, and blocks are made afterwards; since v5.9 memory is also removed by
offline_and_remove_memory(). The policy "auto-movable" and memory groups came with v5.15, memmaps on the added memory with v5.14.

What decides this package's story lies here: `__add_section()` asks pfn_valid() before there is a memmap and wants "no";
`__add_zone()` asks it afterwards and wants "yes"; and `__add_pages()` takes -EEXIST for success.

Locks: mem_hotplug.lock (mem_hotplug_begin()) around adding and onlining, device_hotplug_lock around writes to `state`.

Source: mm/memory_hotplug.c [v4.9, v5.10, v6.1, v6.12].
"""

from __future__ import annotations

from dataclasses import replace
from errno import E2BIG, EAGAIN, EBUSY, EEXIST, EINTR, EINVAL, ENOMEM, EPERM, ERANGE
from functools import partial
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux import bug, sched
from memhp.linux.bug import BUG_ON, WARN_ON, WARN_ON_ONCE, printk, printk_once
from memhp.linux.drivers.base import core, memory, node
from memhp.linux.drivers.firmware import memmap as firmware_memmap
from memhp.linux.include import mm, mmzone
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE, GFP_USER_MOVABLE
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_SYSRAM_DRIVER_MANAGED, IORESOURCE_SYSTEM_RAM, Resource
from memhp.linux.include.memblock import MEMBLOCK_DRIVER_MANAGED, MEMBLOCK_NONE
from memhp.linux.include.memory import (
    MEM_CANCEL_OFFLINE,
    MEM_CANCEL_ONLINE,
    MEM_GOING_OFFLINE,
    MEM_GOING_ONLINE,
    MEM_OFFLINE,
    MEM_ONLINE,
    STATE_NAMES,
    MemoryBlock,
    MemoryGroup,
    MemoryNotify,
)
from memhp.linux.include.memory_hotplug import (
    MEMMAP_ON_MEMORY_DISABLE,
    MEMMAP_ON_MEMORY_ENABLE,
    MEMMAP_ON_MEMORY_FORCE,
    MHP_MEMMAP_ON_MEMORY,
    MHP_MERGE_RESOURCE,
    MHP_NID_IS_MGID,
    MHP_NONE,
    MHP_OFFLINE_INACCESSIBLE,
    MMOP_OFFLINE,
    MMOP_ONLINE_KERNEL,
    MMOP_ONLINE_MOVABLE,
    MhpParams,
    pfn_to_online_page,
)
from memhp.linux.include.memory_model import SIZEOF_STRUCT_PAGE, page_ranges, page_ranges_rw
from memhp.linux.include.memremap import VmemAltmap, vmem_altmap_offset
from memhp.linux.include.mm_types import FLAGS, KIND, NODE, REFCOUNT, ZONE, PageColumns
from memhp.linux.include.mmzone import (
    MEMINIT_HOTPLUG,
    MIGRATE_ISOLATE,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    N_MEMORY,
    N_NORMAL_MEMORY,
    N_ONLINE,
    N_POSSIBLE,
    PglistData,
    Zone,
)
from memhp.linux.include.notifier import notifier_to_errno
from memhp.linux.include.numa import NUMA_NO_NODE
from memhp.linux.include.page_flags import (
    KIND_HUGE,
    KIND_HUGETLB,
    KIND_MEMMAP,
    PG_HEAD,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PageReserved,
    SetPageReserved,
)
from memhp.linux.kernel import resource
from memhp.linux.mm import debug, hugetlb, memblock, migrate, mm_init, page_alloc, page_isolation, sparse, swap

if TYPE_CHECKING:
    from collections.abc import Callable

    from memhp.linux.state import Kernel

_U64 = (1 << 64) - 1


def mem_hotplug_begin(k: Kernel) -> None:
    """
    Become the one who changes memory.

    Raises:
        KernelHangError: a task that died inside still holds the lock.

    Source: mm/memory_hotplug.c mem_hotplug_begin() [v4.9]
    """
    sched.mutex_lock(k.tasks, k.mem_hotplug_lock)


def mem_hotplug_done(k: Kernel) -> None:
    """Source: mm/memory_hotplug.c mem_hotplug_done() [v4.9]"""
    sched.mutex_unlock(k.mem_hotplug_lock)


# Parameters


def set_memmap_mode(k: Kernel, val: str) -> None:
    """
    memmap_on_memory=, at boot only: a truth value, since v6.6 also "force".

    Raises:
        KernelError: EINVAL for another word.

    Source: mm/memory_hotplug.c set_memmap_mode() [v6.6]; a plain bool before
    """
    if k.tree.memmap_on_memory_force and val in ("force", "FORCE"):
        k.memmap_mode = MEMMAP_ON_MEMORY_FORCE
        size = k.arch.memory_block_size_bytes(k)
        nr_pages = -(-(size >> k.PAGE_SHIFT) * SIZEOF_STRUCT_PAGE // k.PAGE_SIZE)
        waste = -nr_pages % k.pageblock_nr_pages
        printk_once(k.log, f"Memory hotplug will waste {waste} pages in each memory block")
        return
    k.memmap_mode = MEMMAP_ON_MEMORY_ENABLE if _kstrtobool(val) else MEMMAP_ON_MEMORY_DISABLE


def get_memmap_mode(k: Kernel) -> str:
    """Source: mm/memory_hotplug.c get_memmap_mode() [v6.6]"""
    if k.memmap_mode == MEMMAP_ON_MEMORY_FORCE:
        return "force\n"
    return "Y\n" if k.memmap_mode else "N\n"


def set_online_policy(k: Kernel, val: str) -> None:
    """
    A write to online_policy.

    Raises:
        KernelError: EINVAL for another word than contig-zones or auto-movable.

    Source: mm/memory_hotplug.c set_online_policy() [v5.15]
    """
    word = val.split("\0", 1)[0].removesuffix("\n")
    if word not in ("contig-zones", "auto-movable"):
        raise KernelError(EINVAL, f"{val.strip()!r} is neither contig-zones nor auto-movable")
    k.online_policy = word


def get_online_policy(k: Kernel) -> str:
    """Source: mm/memory_hotplug.c get_online_policy() [v5.15]"""
    return f"{k.online_policy}\n"


def _set_auto_movable_ratio(k: Kernel, val: str) -> None:
    """A write to auto_movable_ratio: an unsigned int, in percent. Source: kernel/params.c param_set_uint()"""
    ratio = memory.kstrtoull(val)
    if ratio >> 32:
        raise KernelError(ERANGE, f"{val.strip()} needs more than 32 bits")
    k.auto_movable_ratio = ratio


def _set_auto_movable_numa_aware(k: Kernel, val: str) -> None:
    """A write to auto_movable_numa_aware. Source: kernel/params.c param_set_bool()"""
    k.auto_movable_numa_aware = _kstrtobool(val)


def _kstrtobool(val: str) -> bool:
    """
    Raises:
        KernelError: EINVAL.

    Source: lib/kstrtox.c kstrtobool()
    """
    word = val[:2].lower()
    if word[:1] in ("1", "y", "t") or word == "on" or not val:
        return True
    if word[:1] in ("0", "n", "f") or word == "of":
        return False
    raise KernelError(EINVAL, f"{val.strip()!r} is neither true nor false")


# Zone spans


def grow_zone_span(zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """Source: mm/memory_hotplug.c grow_zone_span() [v4.9]"""
    old_zone_end_pfn = mmzone.zone_end_pfn(zone)
    if mmzone.zone_is_empty(zone) or start_pfn < zone.zone_start_pfn:
        zone.zone_start_pfn = start_pfn
        zone.contiguous_end = 0
    zone.spanned_pages = max(old_zone_end_pfn, end_pfn) - zone.zone_start_pfn


def grow_pgdat_span(pgdat: PglistData, start_pfn: int, end_pfn: int) -> None:
    """Source: mm/memory_hotplug.c grow_pgdat_span() [v4.9]"""
    old_pgdat_end_pfn = mmzone.pgdat_end_pfn(pgdat)
    if not pgdat.node_spanned_pages or start_pfn < pgdat.node_start_pfn:
        pgdat.node_start_pfn = start_pfn
    pgdat.node_spanned_pages = max(old_pgdat_end_pfn, end_pfn) - pgdat.node_start_pfn


def resize_zone(zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """Set a zone's span; an empty one starts at 0. Source: mm/memory_hotplug.c resize_zone() [v4.9]"""
    zone.contiguous_end = 0
    if end_pfn - start_pfn:
        zone.zone_start_pfn = start_pfn
        zone.spanned_pages = end_pfn - start_pfn
    else:
        zone.zone_start_pfn = 0
        zone.spanned_pages = 0


def fix_zone_id(k: Kernel, zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """Source: mm/memory_hotplug.c fix_zone_id() [v4.9]"""
    mm.set_page_links(k, start_pfn, end_pfn - start_pfn, zone.idx, zone.nid)


def ensure_zone_is_initialized(k: Kernel, zone: Zone, start_pfn: int, num_pages: int) -> None:
    """Source: mm/memory_hotplug.c ensure_zone_is_initialized() [v4.9]"""
    if not mmzone.zone_is_initialized(zone):
        page_alloc.init_currently_empty_zone(k, zone, start_pfn, num_pages)


def move_pfn_range_left(k: Kernel, z1: Zone, z2: Zone, start_pfn: int, end_pfn: int) -> None:
    """
    Move the beginning of z2 into z1, below it.

    Raises:
        KernelError: EPERM (-1 in C) if the range is not the left end of z2.

    Source: mm/memory_hotplug.c move_pfn_range_left() [v4.9]
    """
    ensure_zone_is_initialized(k, z1, start_pfn, end_pfn - start_pfn)
    z2_end = mmzone.zone_end_pfn(z2)
    if end_pfn > z2_end or start_pfn > z2.zone_start_pfn or end_pfn <= z2.zone_start_pfn:
        raise KernelError(EPERM, f"the range is not the beginning of zone {z2.name}", pfn=start_pfn)
    z1_start_pfn = start_pfn if mmzone.zone_is_empty(z1) else z1.zone_start_pfn
    resize_zone(z1, z1_start_pfn, end_pfn)
    resize_zone(z2, end_pfn, z2_end)
    fix_zone_id(k, z1, start_pfn, end_pfn)


def move_pfn_range_right(k: Kernel, z1: Zone, z2: Zone, start_pfn: int, end_pfn: int) -> None:
    """
    Move the end of z1 into z2, above it.

    Raises:
        KernelError: EPERM (-1 in C) if the range is not the right end of z1.

    Source: mm/memory_hotplug.c move_pfn_range_right() [v4.9]
    """
    ensure_zone_is_initialized(k, z2, start_pfn, end_pfn - start_pfn)
    z1_end = mmzone.zone_end_pfn(z1)
    if z1.zone_start_pfn > start_pfn or z1_end > end_pfn or start_pfn >= z1_end:
        raise KernelError(EPERM, f"the range is not the end of zone {z1.name}", pfn=start_pfn)
    z2_end_pfn = end_pfn if mmzone.zone_is_empty(z2) else mmzone.zone_end_pfn(z2)
    resize_zone(z1, z1.zone_start_pfn, start_pfn)
    resize_zone(z2, start_pfn, z2_end_pfn)
    fix_zone_id(k, z2, start_pfn, end_pfn)


def move_pfn_range(k: Kernel, zone_shift: int, start_pfn: int, end_pfn: int) -> Zone:
    """
    Shift a range by `zone_shift` zones; 0 leaves it where it is.

    Raises:
        KernelError: EPERM if the range does not lie at the edge it must lie at.

    Source: mm/memory_hotplug.c move_pfn_range() [v4.9]
    """
    zone = mm.page_zone(k, start_pfn)
    if not zone_shift:
        return zone
    target = k.zone(zone.nid, zone.idx + zone_shift)
    if zone_shift < 0:
        move_pfn_range_left(k, target, zone, start_pfn, end_pfn)
    else:
        move_pfn_range_right(k, zone, target, start_pfn, end_pfn)
    return target


def zone_can_shift(k: Kernel, pfn: int, nr_pages: int, target: int) -> int:
    """
    Return by how many zones a range may be moved to reach zone index `target`.

    0 means both "it is there" and "it cannot".

    Source: mm/memory_hotplug.c zone_can_shift() [v4.9]
    """
    zone = mm.page_zone(k, pfn)
    idx = zone.idx
    zones = k.nodes[zone.nid].node_zones
    if idx < target:
        if pfn + nr_pages != mmzone.zone_end_pfn(zone):
            return 0
        if any(mmzone.zone_is_initialized(z) for z in zones[idx + 1 : target]):
            return 0
    if target < idx:
        if pfn != zone.zone_start_pfn:
            return 0
        if any(mmzone.zone_is_initialized(z) for z in zones[target + 1 : idx]):
            return 0
    return target - idx


# Adding


def section_taint_zone_device(k: Kernel, pfn: int) -> None:
    """Source: mm/memory_hotplug.c section_taint_zone_device() [v5.12]"""
    k.section_rw(pfn >> k.PFN_SECTION_SHIFT).section_mem_map |= mmzone.SECTION_TAINT_ZONE_DEVICE


def add_device_pages(k: Kernel, nid: int, pfn: int, nr_pages: int) -> None:
    """
    Give device memory struct pages: sub-sections that are neither System RAM nor in memblock, behind a dev_pagemap.

    A section that it shares with other memory is tainted.

    Args:
        pfn: First page, sub-section aligned.
        nr_pages: Pages, whole sub-sections.

    Raises:
        KernelError: EEXIST, ENOMEM; see sparse.sparse_add_section().

    Source: mm/memremap.c pagemap_range(), mm/memory_hotplug.c move_pfn_range_to_zone() [v5.12], as far as sections see it
    """
    start, end = pfn, pfn + nr_pages
    while pfn < end:
        stop = min(end, pfn - pfn % k.PAGES_PER_SECTION + k.PAGES_PER_SECTION)
        sparse.sparse_add_section(k, nid, pfn, stop - pfn)
        pfn = stop
    if k.tree.has_taint_sections:
        if start % k.PAGES_PER_SECTION:
            section_taint_zone_device(k, start)
        if end % k.PAGES_PER_SECTION:
            section_taint_zone_device(k, end)
    k.dev_pagemaps = (*k.dev_pagemaps, (start, end))


def __add_zone(k: Kernel, zone: Zone, phys_start_pfn: int) -> None:
    """
    Let a zone span one section, initialise the section's struct pages, reserve those that are valid.

    The reserve loop skips, without a word, every pfn for which pfn_valid() is false.

    Context: mem_hotplug lock held for writing.
    Source: mm/memory_hotplug.c __add_zone() [v4.9]
    """
    pgdat = k.nodes[zone.nid]
    nr_pages = k.PAGES_PER_SECTION
    ensure_zone_is_initialized(k, zone, phys_start_pfn, nr_pages)
    grow_zone_span(zone, phys_start_pfn, phys_start_pfn + nr_pages)
    grow_pgdat_span(pgdat, phys_start_pfn, phys_start_pfn + nr_pages)
    page_alloc.memmap_init_zone(k, nr_pages, zone.nid, zone.idx, phys_start_pfn, page_alloc.MEMMAP_HOTPLUG)
    for start, end, valid in mmzone.pfn_valid_runs(k, phys_start_pfn, phys_start_pfn + nr_pages):
        if not valid:
            continue
        SetPageReserved(k, start, end - start)


def __add_section(k: Kernel, nid: int, zone: Zone, phys_start_pfn: int) -> None:
    """
    Give one section its memmap, put it into `zone`, announce its memory block.

    Context: mem_hotplug lock held for writing.
    Raises:
        KernelError: EEXIST if pfn_valid() already; on arm64 it can be, before any memmap exists. ENOMEM.

    Source: mm/memory_hotplug.c __add_section() [v4.9]
    """
    if mmzone.pfn_valid(k, phys_start_pfn):
        raise KernelError(EEXIST, "pfn_valid() is true already: the section is taken for present", pfn=phys_start_pfn)
    sparse.sparse_add_one_section(k, zone.nid, phys_start_pfn)
    if k.before_add_zone is not None:
        k.before_add_zone(k, phys_start_pfn)
    __add_zone(k, zone, phys_start_pfn)
    memory.register_new_memory(k, nid, mmzone.pfn_to_section_nr(k, phys_start_pfn))


def __add_pages(k: Kernel, nid: int, zone: Zone, phys_start_pfn: int, nr_pages: int) -> None:
    """
    Add every section of a range.

    -EEXIST from a section is taken for success: the caller cannot tell a section that was added from one that was skipped.
    After another error the sections added by then stay.

    Context: mem_hotplug lock held for writing.
    Raises:
        KernelError: whatever a section says but EEXIST.

    Source: mm/memory_hotplug.c __add_pages() [v4.9]
    """
    page_alloc.clear_zone_contiguous(zone)
    start_sec = mmzone.pfn_to_section_nr(k, phys_start_pfn)
    end_sec = mmzone.pfn_to_section_nr(k, phys_start_pfn + nr_pages - 1)
    failure: KernelError | None = None
    for i in range(start_sec, end_sec + 1):
        try:
            __add_section(k, nid, zone, mmzone.section_nr_to_pfn(k, i))
        except KernelError as err:
            if err.errno != EEXIST:
                failure = err
                break
    page_alloc.set_zone_contiguous(k, zone)
    if failure is not None:
        raise failure


# Adding and removing sections [v5.3]


def mhp_get_pluggable_range(k: Kernel, need_mapping: bool) -> tuple[int, int]:
    """
    Return the first and the last byte that memory can be added at.

    Args:
        need_mapping: It must be reachable through the linear map.

    Source: mm/memory_hotplug.c mhp_get_pluggable_range() [v5.12]
    """
    last = k.arch.PHYSMEM_END(k)
    if not need_mapping:
        return 0, last
    low, high = k.arch.arch_get_mappable_range(k)
    return (0, 0) if low > last else (low, min(high, last))


def mhp_range_allowed(k: Kernel, start: int, size: int, need_mapping: bool) -> bool:
    """
    Whether memory can be added at a place; logs if not.

    Source: mm/memory_hotplug.c mhp_range_allowed() [v5.12]
    """
    low, high = mhp_get_pluggable_range(k, need_mapping)
    end = (start + size) & _U64
    if start < end and start >= low and end - 1 <= high:
        return True
    printk(
        k.log,
        f"Hotplug memory [{start:#x}-{end:#x}] exceeds maximum addressable range [{low:#x}-{high:#x}]")
    return False


def check_pfn_span(k: Kernel, pfn: int, nr_pages: int) -> bool:
    """Whether a range is made of whole sub-sections. Source: mm/memory_hotplug.c check_pfn_span() [v5.3]"""
    return not (pfn | nr_pages) & ((1 << mmzone.SUBSECTION_SHIFT - k.PAGE_SHIFT) - 1)


def _add_pages_v5_3(k: Kernel, nid: int, pfn: int, nr_pages: int, params: MhpParams) -> None:
    """
    Add the sections of a range, or the parts that it covers. Nobody asks pfn_valid(); what was added before an error stays.

    Raises:
        KernelError: EINVAL for an altmap that does not fit, or a range that is not made of sub-sections; EEXIST, ENOMEM.

    Source: mm/memory_hotplug.c __add_pages() [v5.3]
    """
    end_pfn = pfn + nr_pages
    altmap = params.altmap
    if altmap is not None:
        if altmap.base_pfn != pfn or vmem_altmap_offset(altmap) > nr_pages:
            printk_once(k.log, "memory add fail, invalid altmap")
            raise KernelError(EINVAL, "the altmap does not fit the range", pfn=pfn)
        altmap.alloc = 0
    if not check_pfn_span(k, pfn, nr_pages):
        printk(k.log, f"Misaligned __add_pages start: {pfn:#x} end: {end_pfn - 1:#x}")
        raise KernelError(EINVAL, "the range is not made of whole sub-sections of 2 MiB", pfn=pfn)
    while pfn < end_pfn:
        cur_nr_pages = min(end_pfn - pfn, k.PAGES_PER_SECTION - pfn % k.PAGES_PER_SECTION)
        sparse.sparse_add_section(k, nid, pfn, cur_nr_pages, altmap)
        pfn += cur_nr_pages


def __remove_pages(k: Kernel, pfn: int, nr_pages: int, altmap: VmemAltmap | None) -> None:
    """
    Take the sections of a range away, or the parts of them that it covers.

    Source: mm/memory_hotplug.c __remove_pages() [v5.3]
    """
    end_pfn = pfn + nr_pages
    if not check_pfn_span(k, pfn, nr_pages):
        printk(k.log, f"Misaligned __remove_pages start: {pfn:#x} end: {end_pfn - 1:#x}")
        return
    while pfn < end_pfn:
        cur_nr_pages = min(end_pfn - pfn, k.PAGES_PER_SECTION - pfn % k.PAGES_PER_SECTION)
        sparse.sparse_remove_section(k, pfn, cur_nr_pages, altmap)
        pfn += cur_nr_pages


def check_hotplug_memory_range(k: Kernel, start: int, size: int) -> None:
    """
    Refuse a range that is not made of whole sections; since v5.1: of whole memory blocks.

    Raises:
        KernelError: EINVAL.

    Source: mm/memory_hotplug.c check_hotplug_memory_range() [v4.9, v5.1]
    """
    if k.tree.hotplug_checks_block_range:
        block_size = memory.memory_block_size_bytes(k)
        if not size or start % block_size or size % block_size:
            printk(k.log, f"Block size [{block_size:#x}] unaligned hotplug range: start {start:#x}, size {size:#x}")
            raise KernelError(
                EINVAL, f"[{start:#x}, +{size:#x}) is not made of whole memory blocks of {block_size:#x}", start=start, size=size)
        return
    start_pfn = start >> k.PAGE_SHIFT
    nr_pages = size >> k.PAGE_SHIFT
    if start_pfn % k.PAGES_PER_SECTION or nr_pages % k.PAGES_PER_SECTION or not nr_pages:
        printk(k.log, f"Section-unaligned hotplug range: start {start:#x}, size {size:#x}")
        raise KernelError(
            EINVAL, f"[{start:#x}, +{size:#x}) is not made of whole sections of {k.PAGES_PER_SECTION << k.PAGE_SHIFT:#x}",
            start=start, size=size)


def should_add_memory_movable(k: Kernel, nid: int, start: int) -> bool:
    """Source: mm/memory_hotplug.c should_add_memory_movable() [v4.9]"""
    movable_zone = k.zone(nid, k.ZONE_MOVABLE)
    return not mmzone.zone_is_empty(movable_zone) and movable_zone.zone_start_pfn <= start >> k.PAGE_SHIFT


def zone_for_memory(k: Kernel, nid: int, start: int, size: int, zone_default: int, for_device: bool) -> int:
    """
    Return the index of the zone that new memory goes to.

    Movable, if the node's movable zone spans anything (populated or not) and begins at or below the range.

    Source: mm/memory_hotplug.c zone_for_memory() [v4.9]
    """
    if for_device and k.config.ZONE_DEVICE:
        return k.config.zones.index("Device")
    if should_add_memory_movable(k, nid, start):
        return k.ZONE_MOVABLE
    return zone_default


def reset_node_present_pages(pgdat: PglistData) -> None:
    """Source: mm/memory_hotplug.c reset_node_present_pages() [v4.9]"""
    for zone in pgdat.node_zones:
        zone.present_pages = 0
    pgdat.node_present_pages = 0


def hotadd_new_pgdat(k: Kernel, nid: int, start: int) -> PglistData:
    """
    Set up a node that has no memory yet.

    Source: mm/memory_hotplug.c hotadd_new_pgdat() [v4.9]
    """
    pgdat = k.nodes.get(nid)
    if pgdat is None:
        pgdat = k.nodes[nid] = PglistData(nid, k.config.zones)
    else:
        pgdat.nr_zones = 0
    empty = [(0, 0)] * len(pgdat.node_zones)
    page_alloc.free_area_init_node(k, nid, start >> k.PAGE_SHIFT, empty, [0] * len(pgdat.node_zones))
    page_alloc.lock_zonelists(k)
    page_alloc.build_all_zonelists(k, pgdat, None)
    page_alloc.unlock_zonelists(k)
    for zone in pgdat.node_zones:
        zone.managed_pages = 0
    reset_node_present_pages(pgdat)
    return pgdat


def rollback_node_hotadd(k: Kernel, nid: int) -> None:
    """Source: mm/memory_hotplug.c rollback_node_hotadd() [v4.9]"""
    k.nodes.pop(nid, None)


def hotadd_init_pgdat(k: Kernel, nid: int) -> PglistData:
    """
    Make a node that is not online ready for memory: no zone has any.

    Source: mm/memory_hotplug.c hotadd_init_pgdat() [v5.19], mm/mm_init.c free_area_init_core_hotplug() [v6.12]
    """
    pgdat = k.nodes.get(nid)
    if pgdat is None:
        pgdat = k.nodes[nid] = PglistData(nid, k.config.zones)
    pgdat.nr_zones = 0
    pgdat.node_start_pfn = 0
    reset_node_present_pages(pgdat)
    for zone in pgdat.node_zones:
        zone.managed_pages = 0
    page_alloc.build_all_zonelists(k, pgdat, None)
    return pgdat


def __try_online_node(k: Kernel, nid: int, set_node_online: bool) -> bool:
    """
    Make a node ready, and online it if so wished; returns whether it was not online before.

    Source: mm/memory_hotplug.c __try_online_node() [v4.20]
    """
    if nid in k.node_states[N_ONLINE]:
        return False
    hotadd_init_pgdat(k, nid)
    if set_node_online:
        k.node_states[N_ONLINE] |= {nid}
        node.register_one_node(k, nid)
    return True


def mhp_get_default_online_type(k: Kernel) -> int:
    """
    Return how added memory goes online by itself, or MMOP_OFFLINE.

    Source: mm/memory_hotplug.c mhp_get_default_online_type() [v6.12]; before it is a variable
    """
    return k.mhp_default_online_type


def memory_block_memmap_size(k: Kernel) -> int:
    """Return the bytes of a memory block's memmap. Source: mm/memory_hotplug.c memory_block_memmap_size() [v6.6]"""
    return (memory.memory_block_size_bytes(k) >> k.PAGE_SHIFT) * SIZEOF_STRUCT_PAGE


def memory_block_memmap_on_memory_pages(k: Kernel) -> int:
    """
    Return the pages a block sets aside for its memmap; in "force" mode whole pageblocks.

    Source: mm/memory_hotplug.c memory_block_memmap_on_memory_pages() [v6.6]
    """
    nr_pages = -(-memory_block_memmap_size(k) // k.PAGE_SIZE)
    if k.memmap_mode == MEMMAP_ON_MEMORY_FORCE:
        return -(-nr_pages // k.pageblock_nr_pages) * k.pageblock_nr_pages
    return nr_pages


def mhp_supports_memmap_on_memory(k: Kernel, size: int) -> bool:
    """
    Whether the memmap of added memory can lie on that memory itself.

    Args:
        size: Bytes that are added; until v6.7 that must be one memory block.

    Source: mm/memory_hotplug.c mhp_supports_memmap_on_memory() [v5.14, v6.8]
    """
    if k.memmap_mode == MEMMAP_ON_MEMORY_DISABLE:
        return False
    if not k.tree.memmap_on_memory_per_block:
        vmemmap_size = (size >> k.PAGE_SHIFT) * SIZEOF_STRUCT_PAGE
        return (
            size == memory.memory_block_size_bytes(k)
            and not vmemmap_size % (1 << k.arch.PMD_SHIFT(k.config))
            and not (size - vmemmap_size) % (k.pageblock_nr_pages << k.PAGE_SHIFT))
    vmemmap_size = memory_block_memmap_size(k)
    memmap_pages = memory_block_memmap_on_memory_pages(k)
    if vmemmap_size % k.PAGE_SIZE or memmap_pages % k.pageblock_nr_pages:
        return False
    if memmap_pages == memory.memory_block_size_bytes(k) >> k.PAGE_SHIFT:
        return False
    return k.arch.arch_supports_memmap_on_memory(k, vmemmap_size)


def register_memory_resource(k: Kernel, start: int, size: int, resource_name: str = "System RAM") -> Resource:
    """
    Enter the range into the resource tree.

    Args:
        start, size: Bytes.
        resource_name: "System RAM", or "System RAM (DRIVER)" for memory that its driver looks after [v5.8].

    Raises:
        KernelError: E2BIG outside of what can be added, or beyond `mem=` during boot [v5.3]; EEXIST if anything is there.

    Source: mm/memory_hotplug.c register_memory_resource() [v4.9, v5.3, v5.12]
    """
    if k.tree.checks_mappable_range and not mhp_range_allowed(k, start, size, True):
        low, high = mhp_get_pluggable_range(k, True)
        raise KernelError(
            E2BIG, f"[{start:#x}, +{size:#x}) is outside of {low:#x}-{high:#x}, where memory can be added", start=start)
    if k.tree.block_devices_after_add and start + size > k.max_mem_size and not k.system_running:
        raise KernelError(E2BIG, f"[{start:#x}, +{size:#x}) is beyond mem={k.max_mem_size:#x}", start=start, size=size)
    flags = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
    if resource_name != "System RAM":
        flags |= IORESOURCE_SYSRAM_DRIVER_MANAGED
    res = Resource(start, start + size - 1, resource_name, flags)
    try:
        if k.tree.block_devices_after_add:
            return resource.__request_region(k, k.iomem_rw(), start, size, resource_name, flags)
        resource.request_resource(k, k.iomem_rw(), res)
    except KernelError as err:
        raise KernelError(
            EEXIST, f"System RAM {start:#x}-{start + size - 1:#x} cannot be entered into /proc/iomem: {err.reason}",
            start=start, size=size) from err
    return res


def online_memory_block(k: Kernel, mem: MemoryBlock) -> None:
    """Online an added block in the default way. Source: mm/memory_hotplug.c online_memory_block() [v4.9, v5.7]"""
    if not k.tree.default_online_types:
        memory.memory_block_change_state(k, mem, MEM_ONLINE, MEM_OFFLINE)
        return
    mem.online_type = mhp_get_default_online_type(k)
    core.device_online(k, mem)


def walk_memory_range(k: Kernel, start_pfn: int, end_pfn: int, func: Callable[[Kernel, MemoryBlock], None]) -> None:
    """
    Call `func` for each memory block of [start_pfn, end_pfn) that is there.

    Raises:
        KernelError: what `func` said; the walk ends there.

    Source: mm/memory_hotplug.c walk_memory_range() [v4.9]
    """
    first = mmzone.pfn_to_section_nr(k, start_pfn) // k.sections_per_block
    last = mmzone.pfn_to_section_nr(k, end_pfn - 1) // k.sections_per_block
    for block_id in range(first, last + 1):
        if block_id in k.memory_blocks:
            func(k, k.block_rw(block_id))


def _add_memory_resource_v4_9(k: Kernel, nid: int, res: Resource, online: bool) -> None:
    """
    Add the memory that a resource describes.

    The order of steps matters and is the kernel's: range check, lock, memblock, node, architecture, then no way back.

    Raises:
        KernelError: EINVAL (range), ENOMEM, or what arch_add_memory() says; memblock is as before then.
        KernelHangError: the lock is held by a task that died.

    Source: mm/memory_hotplug.c add_memory_resource() [v4.9]
    """
    start = res.start
    size = res.end - res.start + 1
    check_hotplug_memory_range(k, start, size)
    new_pgdat = nid not in k.nodes
    mem_hotplug_begin(k)
    try:
        memblock.memblock_add_node(k, start, size, nid)
    except KernelError as err:
        if err.errno != ENOMEM:
            raise
    try:
        new_node = nid not in k.node_states[N_ONLINE]
        if new_node:
            hotadd_new_pgdat(k, nid, start)
        k.arch.arch_add_memory(k, nid, start, size, MhpParams())
    except KernelError:
        if new_pgdat:
            rollback_node_hotadd(k, nid)
        memblock.memblock_remove(k, start, size)
        mem_hotplug_done(k)
        raise
    k.node_states[N_ONLINE] |= {nid}
    if new_node:
        node.register_one_node(k, nid)
    firmware_memmap.firmware_map_add_hotplug(k, start, start + size, "System RAM")
    if online:
        try:
            walk_memory_range(k, start >> k.PAGE_SHIFT, -(-(start + size) >> k.PAGE_SHIFT), online_memory_block)
        except KernelError as err:
            _ignored(err)
    mem_hotplug_done(k)


def _ignored(err: KernelError) -> None:
    """What walk_memory_range() says is dropped: a block stays offline and nobody is told. Source: add_memory_resource()"""
    del err


def add_memory_resource(k: Kernel, nid: int, res: Resource, mhp_flags: int = MHP_NONE) -> None:
    """
    Add the memory that a resource describes.

    The order of steps matters and is the kernel's: range check, group, node, lock, memblock, node again, architecture, blocks,
    then no way back. What comes after the lock is given back, goes online, if that is the default: by itself, its errors unheard.

    Args:
        nid: NUMA node, or with MHP_NID_IS_MGID the id of a memory group.
        res: Where it is.
        mhp_flags: MHP_*.

    Raises:
        KernelError: EINVAL (range, group, node, or a memmap that cannot lie on the memory itself [v5.14 to v6.7]), ENOMEM, or
            what arch_add_memory() says; memblock is as before then.
        KernelHangError: the lock is held by a task that died.

    Source: mm/memory_hotplug.c add_memory_resource() [v4.9, v5.10, v6.1, v6.12]
    """
    if not k.tree.block_devices_after_add:
        _add_memory_resource_v4_9(k, nid, res, k.memhp_auto_online)
        return
    start = res.start
    size = res.end - res.start + 1
    group = 0
    check_hotplug_memory_range(k, start, size)
    if mhp_flags & MHP_NID_IS_MGID and k.tree.memory_groups:
        found = memory.memory_group_find_by_id(k, nid)
        if found is None:
            raise KernelError(EINVAL, f"there is no memory group {nid}", start=start)
        group, nid = nid, found.nid
    if nid not in k.node_states[N_POSSIBLE]:
        WARN_ON(k.log, True)
        raise KernelError(EINVAL, f"node {nid} cannot be on this machine", start=start)
    mem_hotplug_begin(k)
    try:
        new_node = _add_to_node(k, nid, group, res, mhp_flags)
    except KernelError:
        mem_hotplug_done(k)
        raise
    if new_node:
        k.node_states[N_ONLINE] |= {nid}
        node.__register_one_node(k, nid)
    first, last = start >> k.PAGE_SHIFT, (start + size) >> k.PAGE_SHIFT
    node.register_memory_blocks_under_node(k, nid, first, last, MEMINIT_HOTPLUG)
    if res.name == "System RAM":
        firmware_memmap.firmware_map_add_hotplug(k, start, start + size, "System RAM")
    mem_hotplug_done(k)
    if mhp_flags & MHP_MERGE_RESOURCE:
        resource.merge_system_ram_resource(k, res)
    if mhp_get_default_online_type(k) != MMOP_OFFLINE:
        try:
            memory.walk_memory_blocks(k, start, size, online_memory_block)
        except KernelError as err:
            _ignored(err)


def _add_to_node(k: Kernel, nid: int, group: int, res: Resource, mhp_flags: int) -> bool:
    """
    The part of add_memory_resource() that can be undone; returns whether the node is new. Source: add_memory_resource() [v5.10]
    """
    start, size = res.start, res.end - res.start + 1
    keep_memblock = not k.config.ARCH_DISCARD_MEMBLOCK
    if keep_memblock:
        managed = res.flags & IORESOURCE_SYSRAM_DRIVER_MANAGED and k.tree.memblock_driver_managed
        memblock.memblock_add_node(k, start, size, nid, MEMBLOCK_DRIVER_MANAGED if managed else MEMBLOCK_NONE)
    try:
        new_node = __try_online_node(k, nid, False)
        on_memory = mhp_flags & MHP_MEMMAP_ON_MEMORY and k.tree.memmap_on_memory
        if on_memory and k.tree.memmap_on_memory_per_block and mhp_supports_memmap_on_memory(k, size):
            create_altmaps_and_memory_blocks(k, nid, group, start, size, mhp_flags)
            return new_node
        params = MhpParams()
        if on_memory and not k.tree.memmap_on_memory_per_block:
            if not mhp_supports_memmap_on_memory(k, size):
                raise KernelError(
                    EINVAL, f"the memmap of [{start:#x}, +{size:#x}) cannot lie on it: that takes one memory block, and memmaps "
                    "made of whole PMDs", start=start, size=size)
            params.altmap = VmemAltmap(start >> k.PAGE_SHIFT, free=size >> k.PAGE_SHIFT)
        k.arch.arch_add_memory(k, nid, start, size, params)
        altmap = params.altmap
        if altmap is not None:
            # The block keeps how many pages its memmap took; the removal makes an altmap of them again.
            altmap.free = altmap.alloc
        try:
            memory.create_memory_block_devices(k, start, size, altmap, group)
        except KernelError:
            k.arch.arch_remove_memory(k, start, size, altmap)
            raise
    except KernelError:
        if keep_memblock:
            memblock.memblock_remove(k, start, size)
        raise
    return new_node


def create_altmaps_and_memory_blocks(k: Kernel, nid: int, group: int, start: int, size: int, mhp_flags: int) -> None:
    """
    Add a range block by block, each with its memmap on itself; all or none.

    Raises:
        KernelError: what arch_add_memory() or create_memory_block_devices() says; the blocks before are gone again.

    Source: mm/memory_hotplug.c create_altmaps_and_memory_blocks() [v6.8]
    """
    memblock_size = memory.memory_block_size_bytes(k)
    for cur_start in range(start, start + size, memblock_size):
        params = MhpParams(altmap=VmemAltmap(
            cur_start >> k.PAGE_SHIFT, (cur_start + memblock_size - 1) >> k.PAGE_SHIFT,
            free=memory_block_memmap_on_memory_pages(k), inaccessible=bool(mhp_flags & MHP_OFFLINE_INACCESSIBLE)))
        try:
            k.arch.arch_add_memory(k, nid, cur_start, memblock_size, params)
            try:
                memory.create_memory_block_devices(k, cur_start, memblock_size, params.altmap, group)
            except KernelError:
                k.arch.arch_remove_memory(k, cur_start, memblock_size, params.altmap)
                raise
        except KernelError:
            if cur_start != start:
                remove_memory_blocks_and_altmaps(k, start, cur_start - start)
            raise


def __add_memory(k: Kernel, nid: int, start: int, size: int, mhp_flags: int) -> None:
    """
    As add_memory(), for those who hold the device-hotplug lock.

    Source: mm/memory_hotplug.c __add_memory() [v4.20]
    """
    res = register_memory_resource(k, start, size)
    try:
        add_memory_resource(k, nid, res, mhp_flags)
    except KernelError:
        resource.release_resource(k, res)
        raise


def add_memory_driver_managed(k: Kernel, nid: int, start: int, size: int, resource_name: str, mhp_flags: int = MHP_NONE) -> None:
    """
    Add memory that firmware does not tell of and a driver looks after.

    Args:
        nid, start, size, mhp_flags: As for add_memory_resource().
        resource_name: "System RAM (DRIVER)".

    Raises:
        KernelError: EINVAL for another name; what add_memory_resource() says.

    Source: mm/memory_hotplug.c add_memory_driver_managed() [v5.8]
    """
    if not resource_name.startswith("System RAM (") or not resource_name.endswith(")"):
        raise KernelError(EINVAL, f"{resource_name!r} is not of the form System RAM (DRIVER)", start=start)
    core.lock_device_hotplug(k)
    try:
        res = register_memory_resource(k, start, size, resource_name)
        try:
            add_memory_resource(k, nid, res, mhp_flags)
        except KernelError:
            resource.release_resource(k, res)
            raise
    except KernelError:
        core.unlock_device_hotplug(k)
        raise
    core.unlock_device_hotplug(k)


def add_memory(k: Kernel, nid: int, start: int, size: int, mhp_flags: int = MHP_NONE) -> None:
    """
    Add [start, start + size) to a node, and online it if that is the default.

    Args:
        nid: NUMA node.
        start: First byte; a multiple of the section size, since v5.1 of the memory block size.
        size: Bytes; a multiple of the same, not 0.
        mhp_flags: MHP_* [v5.10].

    Raises:
        KernelError: EEXIST if the range runs into another resource; EINVAL, ENOMEM and what the architecture says.

    Source: mm/memory_hotplug.c add_memory() [v4.9, v4.20]
    """
    if k.tree.block_devices_after_add:
        core.lock_device_hotplug(k)
        try:
            __add_memory(k, nid, start, size, mhp_flags)
        except KernelError:
            core.unlock_device_hotplug(k)
            raise
        core.unlock_device_hotplug(k)
        return
    res = register_memory_resource(k, start, size)
    try:
        add_memory_resource(k, nid, res)
    except KernelError:
        resource.release_resource(k, res)
        raise


# Onlining


def __online_page_set_limits(k: Kernel, pfn: int, nr_pages: int) -> None:
    """Nothing is left in it. Source: mm/memory_hotplug.c __online_page_set_limits() [v4.9]"""


def __online_page_increment_counters(k: Kernel, pfn: int, nr_pages: int) -> None:
    """Source: mm/memory_hotplug.c __online_page_increment_counters() [v4.9]"""
    page_alloc.adjust_managed_page_count(k, pfn, nr_pages)


def __online_page_free(k: Kernel, pfn: int, nr_pages: int) -> None:
    """Source: mm/memory_hotplug.c __online_page_free() [v4.9]"""
    page_alloc.__free_reserved_page(k, pfn, nr_pages)


def generic_online_page(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Count a range of pages as managed and free it.

    Source: mm/memory_hotplug.c generic_online_page() [v4.9, v5.1], which is called once for each page, later each largest block
    """
    if k.tree.zones_chosen_at_online:
        page_alloc.__free_pages_core(k, pfn, nr_pages, MEMINIT_HOTPLUG)
        return
    __online_page_set_limits(k, pfn, nr_pages)
    __online_page_increment_counters(k, pfn, nr_pages)
    __online_page_free(k, pfn, nr_pages)


def set_online_page_callback(k: Kernel, callback: Callable[[Kernel, int, int], None]) -> None:
    """
    Let somebody else take the pages that go online (a balloon driver).

    Raises:
        KernelError: EINVAL if somebody does already.

    Source: mm/memory_hotplug.c set_online_page_callback() [v4.9]
    """
    if k.online_page_callback is not generic_online_page:
        raise KernelError(EINVAL, "another callback is set")
    k.online_page_callback = callback


def restore_online_page_callback(k: Kernel, callback: Callable[[Kernel, int, int], None]) -> None:
    """
    Put the generic callback back.

    Raises:
        KernelError: EINVAL if `callback` is not the one that is set.

    Source: mm/memory_hotplug.c restore_online_page_callback() [v4.9]
    """
    if k.online_page_callback is not callback:
        raise KernelError(EINVAL, "this callback is not set")
    k.online_page_callback = generic_online_page


def online_pages_range(k: Kernel, start_pfn: int, nr_pages: int, arg: list[int]) -> int:
    """
    Online a range if its first page is reserved, and add to `arg[0]` how many pages went online; returns 0.

    Source: mm/memory_hotplug.c online_pages_range() [v4.9]
    """
    if PageReserved(k, start_pfn):
        assert k.online_page_callback is not None
        k.online_page_callback(k, start_pfn, nr_pages)
        arg[0] += nr_pages
    if k.tree.has_online_sections:
        sparse.online_mem_sections(k, start_pfn, start_pfn + nr_pages)
    return 0


def can_online_high_movable(k: Kernel, nid: int) -> bool:
    """Source: mm/memory_hotplug.c can_online_high_movable() [v4.9]"""
    return True if k.config.MOVABLE_NODE else nid in k.node_states[N_NORMAL_MEMORY]


def node_states_check_changes_online(k: Kernel, zone: Zone, arg: MemoryNotify) -> None:
    """
    Note which node states will change.

    Source: mm/memory_hotplug.c node_states_check_changes_online() [v4.9], without HIGHMEM
    """
    nid = zone.nid
    zone_last = k.ZONE_NORMAL if k.config.MOVABLE_NODE else k.ZONE_MOVABLE
    normal = zone.idx <= zone_last and nid not in k.node_states[N_NORMAL_MEMORY]
    arg.status_change_nid_normal = nid if normal else -1
    arg.status_change_nid_high = arg.status_change_nid_normal
    arg.status_change_nid = nid if nid not in k.node_states[N_MEMORY] else -1


def node_states_set_node(k: Kernel, nid: int, arg: MemoryNotify) -> None:
    """Source: mm/memory_hotplug.c node_states_set_node() [v4.9]"""
    if arg.status_change_nid_normal >= 0:
        k.node_states[N_NORMAL_MEMORY] |= {nid}
    k.node_states[N_MEMORY] |= {nid}


def _online_pages_v4_9(k: Kernel, pfn: int, nr_pages: int, online_type: int) -> None:
    """
    Make an added range allocatable, in its zone or shifted to another.

    Args:
        pfn: First page.
        nr_pages: Pages of the block.
        online_type: MMOP_*. A shift that zone_can_shift() calls impossible is no error: the range goes online where it is.

    Context: mem_hotplug lock held for writing.
    Raises:
        KernelError: EINVAL (movable memory on a node without normal memory; a range not at its zone's edge); EPERM if no
            "System RAM" resource covers the range; what a notifier says.

    Source: mm/memory_hotplug.c online_pages() [v4.9]
    """
    zone = mm.page_zone(k, pfn)
    if (zone.idx > k.ZONE_NORMAL or online_type == MMOP_ONLINE_MOVABLE) and not can_online_high_movable(k, zone.nid):
        raise KernelError(EINVAL, f"node {zone.nid} has no normal memory, so it may not get movable memory", pfn=pfn)
    zone_shift = 0
    if online_type == MMOP_ONLINE_KERNEL:
        zone_shift = zone_can_shift(k, pfn, nr_pages, k.ZONE_NORMAL)
    elif online_type == MMOP_ONLINE_MOVABLE:
        zone_shift = zone_can_shift(k, pfn, nr_pages, k.ZONE_MOVABLE)
    try:
        zone = move_pfn_range(k, zone_shift, pfn, pfn + nr_pages)
    except KernelError as err:
        raise KernelError(EINVAL, err.reason, pfn=pfn) from err

    arg = MemoryNotify(pfn, nr_pages)
    node_states_check_changes_online(k, zone, arg)
    nid = zone.nid
    ret = notifier_to_errno(memory.memory_notify(k, MEM_GOING_ONLINE, arg))
    if ret:
        memory.memory_notify(k, MEM_CANCEL_ONLINE, arg)
        raise KernelError(ret, "a notifier vetoed MEM_GOING_ONLINE", pfn=pfn)

    page_alloc.lock_zonelists(k)
    need_zonelists_rebuild = not mmzone.populated_zone(zone)
    if need_zonelists_rebuild:
        page_alloc.build_all_zonelists(k, None, zone)
    onlined = [0]
    try:
        if resource.walk_system_ram_range(k, pfn, nr_pages, partial(online_pages_range, arg=onlined)):
            raise KernelError(EPERM, "no System RAM of /proc/iomem covers the range", pfn=pfn)
    except KernelError:
        if need_zonelists_rebuild:
            page_alloc.zone_pcp_reset(zone)
        page_alloc.unlock_zonelists(k)
        memory.memory_notify(k, MEM_CANCEL_ONLINE, arg)
        raise
    onlined_pages = onlined[0]
    zone.present_pages += onlined_pages
    k.nodes[nid].node_present_pages += onlined_pages
    if onlined_pages:
        node_states_set_node(k, nid, arg)
        if need_zonelists_rebuild:
            page_alloc.build_all_zonelists(k, None, None)
        else:
            page_alloc.zone_pcp_update(k, zone)
    page_alloc.unlock_zonelists(k)

    page_alloc.init_per_zone_wmark_min(k)
    k.vm_total_pages = page_alloc.nr_free_pagecache_pages(k)
    if onlined_pages:
        memory.memory_notify(k, MEM_ONLINE, arg)


# Onlining [v4.13]: the zone is chosen now


class AutoMovableStats:
    """
    What the auto-movable policy weighs, in pages. Source: mm/memory_hotplug.c struct auto_movable_stats [v5.15]

    Attributes:
        kernel_early_pages: Boot memory in kernel zones, without CMA.
        movable_pages: Memory in ZONE_MOVABLE, and CMA.
        req_kernel_early_pages: Boot memory that other dynamic groups need for their movable memory.
    """

    __slots__ = ("kernel_early_pages", "movable_pages", "req_kernel_early_pages")

    def __init__(self) -> None:
        self.kernel_early_pages = 0
        self.movable_pages = 0
        self.req_kernel_early_pages = 0


def auto_movable_stats_account_zone(k: Kernel, stats: AutoMovableStats, zone: Zone) -> None:
    """Source: mm/memory_hotplug.c auto_movable_stats_account_zone() [v5.15]"""
    if zone.idx == k.ZONE_MOVABLE:
        stats.movable_pages += zone.present_pages
        return
    stats.kernel_early_pages += zone.present_early_pages - zone.cma_pages
    stats.movable_pages += zone.cma_pages


def auto_movable_stats_account_group(k: Kernel, group: MemoryGroup, stats: AutoMovableStats) -> None:
    """Source: mm/memory_hotplug.c auto_movable_stats_account_group() [v5.15]"""
    if not k.auto_movable_ratio:
        return
    pages = group.present_movable_pages * 100 // k.auto_movable_ratio - group.present_kernel_pages
    if pages > 0:
        stats.req_kernel_early_pages += pages
    stats.movable_pages += group.present_movable_pages


def auto_movable_can_online_movable(k: Kernel, nid: int, group: MemoryGroup | None, nr_pages: int) -> bool:
    """
    Whether so many more movable pages keep the ratio to kernel memory that was there at boot.

    Args:
        nid: Node, or NUMA_NO_NODE for the whole machine.
        group: The block's memory group; kernel memory of a dynamic group allows for movable memory of the same group.
        nr_pages: Pages that would become movable.

    Source: mm/memory_hotplug.c auto_movable_can_online_movable() [v5.15]
    """
    stats = AutoMovableStats()
    for zone in page_alloc._zones(k) if nid == NUMA_NO_NODE else k.nodes[nid].node_zones:
        if mmzone.populated_zone(zone):
            auto_movable_stats_account_zone(k, stats, zone)
    others = AutoMovableStats()
    memory.walk_dynamic_memory_groups(k, nid, lambda other: auto_movable_stats_account_group(k, other, others), group)
    kernel_early_pages, movable_pages = stats.kernel_early_pages, stats.movable_pages
    if kernel_early_pages <= others.req_kernel_early_pages:
        return False
    kernel_early_pages -= others.req_kernel_early_pages
    movable_pages -= others.movable_pages
    if group is not None and group.is_dynamic:
        kernel_early_pages += group.present_kernel_pages
    return movable_pages + nr_pages <= k.auto_movable_ratio * kernel_early_pages // 100


def default_kernel_zone_for_pfn(k: Kernel, nid: int, start_pfn: int, nr_pages: int) -> Zone:
    """
    Return the lowest kernel zone that spans any of a range, else ZONE_NORMAL.

    Source: mm/memory_hotplug.c default_kernel_zone_for_pfn() [v4.13]
    """
    zones = k.nodes[nid].node_zones
    for zone in zones[: k.ZONE_NORMAL]:
        if mmzone.zone_intersects(zone, start_pfn, nr_pages):
            return zone
    return zones[k.ZONE_NORMAL]


def auto_movable_zone_for_pfn(k: Kernel, nid: int, mgid: int, pfn: int, nr_pages: int) -> Zone:
    """
    Return ZONE_MOVABLE if the whole device (or unit of it) can be movable within the ratio, else the kernel zone.

    Source: mm/memory_hotplug.c auto_movable_zone_for_pfn() [v5.15]
    """
    group = k.memory_groups.get(mgid)
    kernel = partial(default_kernel_zone_for_pfn, k, nid)
    if not k.auto_movable_ratio:
        return kernel(pfn, nr_pages)
    online_pages = 0
    if group is not None and not group.is_dynamic:
        max_pages = group.max_pages
        online_pages = group.present_movable_pages
        if group.present_kernel_pages:
            return kernel(pfn, nr_pages)
    elif group is None or group.unit_pages == nr_pages:
        max_pages = nr_pages
    else:
        max_pages = group.unit_pages
        pfn -= pfn % group.unit_pages
        end_pfn = pfn + group.unit_pages
        while pfn < end_pfn:
            if pfn_to_online_page(k, pfn) is not None:
                if mm.page_zonenum(k, pfn) != k.ZONE_MOVABLE:
                    return kernel(pfn, nr_pages)
                online_pages += k.PAGES_PER_SECTION
            pfn += k.PAGES_PER_SECTION
    nr_pages = max_pages - online_pages
    if not auto_movable_can_online_movable(k, NUMA_NO_NODE, group, nr_pages):
        return kernel(pfn, nr_pages)
    if k.config.NUMA and k.auto_movable_numa_aware and not auto_movable_can_online_movable(k, nid, group, nr_pages):
        return kernel(pfn, nr_pages)
    return k.zone(nid, k.ZONE_MOVABLE)


def default_zone_for_pfn(k: Kernel, nid: int, start_pfn: int, nr_pages: int) -> Zone:
    """
    Return the zone that spans a range already, if it is one; else the kernel zone, under movable_node ZONE_MOVABLE.

    Source: mm/memory_hotplug.c default_zone_for_pfn() [v4.13]
    """
    kernel_zone = default_kernel_zone_for_pfn(k, nid, start_pfn, nr_pages)
    movable_zone = k.zone(nid, k.ZONE_MOVABLE)
    in_kernel = mmzone.zone_intersects(kernel_zone, start_pfn, nr_pages)
    in_movable = mmzone.zone_intersects(movable_zone, start_pfn, nr_pages)
    if in_kernel != in_movable:
        return kernel_zone if in_kernel else movable_zone
    return movable_zone if k.movable_node_enabled else kernel_zone


def zone_for_pfn_range(k: Kernel, online_type: int, nid: int, group: int, start_pfn: int, nr_pages: int) -> Zone:
    """
    Return the zone that a range would go online in.

    Args:
        online_type: MMOP_ONLINE_KERNEL, MMOP_ONLINE_MOVABLE, or MMOP_ONLINE: as the policy says.
        nid: Node.
        group: Id of the block's memory group, or 0.
        start_pfn, nr_pages: The range.

    Source: mm/memory_hotplug.c zone_for_pfn_range() [v4.13, v5.15]
    """
    if online_type == MMOP_ONLINE_KERNEL:
        return default_kernel_zone_for_pfn(k, nid, start_pfn, nr_pages)
    if online_type == MMOP_ONLINE_MOVABLE:
        return k.zone(nid, k.ZONE_MOVABLE)
    if k.tree.auto_movable and k.online_policy == "auto-movable":
        return auto_movable_zone_for_pfn(k, nid, group, start_pfn, nr_pages)
    return default_zone_for_pfn(k, nid, start_pfn, nr_pages)


def resize_zone_range(zone: Zone, start_pfn: int, nr_pages: int) -> None:
    """Source: mm/memory_hotplug.c resize_zone_range() [v4.13]"""
    old_end_pfn = mmzone.zone_end_pfn(zone)
    if mmzone.zone_is_empty(zone) or start_pfn < zone.zone_start_pfn:
        zone.zone_start_pfn = start_pfn
        zone.contiguous_end = 0
    zone.spanned_pages = max(start_pfn + nr_pages, old_end_pfn) - zone.zone_start_pfn


def resize_pgdat_range(pgdat: PglistData, start_pfn: int, nr_pages: int) -> None:
    """Source: mm/memory_hotplug.c resize_pgdat_range() [v4.13]"""
    old_end_pfn = mmzone.pgdat_end_pfn(pgdat)
    if not pgdat.node_spanned_pages or start_pfn < pgdat.node_start_pfn:
        pgdat.node_start_pfn = start_pfn
    pgdat.node_spanned_pages = max(start_pfn + nr_pages, old_end_pfn) - pgdat.node_start_pfn


def move_pfn_range_to_zone(k: Kernel, zone: Zone, start_pfn: int, nr_pages: int, migratetype: int) -> None:
    """
    Let a zone and its node span a range, and initialise the range's struct pages: nobody may use them yet.

    Args:
        migratetype: Of every pageblock.

    Source: mm/memory_hotplug.c move_pfn_range_to_zone() [v4.13, v5.10]
    """
    page_alloc.clear_zone_contiguous(zone)
    if mmzone.zone_is_empty(zone):
        page_alloc.init_currently_empty_zone(k, zone, start_pfn, nr_pages)
    resize_zone_range(zone, start_pfn, nr_pages)
    resize_pgdat_range(k.nodes[zone.nid], start_pfn, nr_pages)
    mm_init.memmap_init_range(k, nr_pages, zone.nid, zone.idx, start_pfn, 0, MEMINIT_HOTPLUG, None, migratetype)
    page_alloc.set_zone_contiguous(k, zone)


def adjust_present_page_count(k: Kernel, pfn: int, group: int, nr_pages: int) -> None:
    """
    Count pages of a block (`nr_pages` below 0: no more) as present in their zone, node and memory group.

    Source: mm/memory_hotplug.c adjust_present_page_count() [v5.15]
    """
    zone = mm.page_zone(k, pfn)
    if mmzone.early_section(mmzone.__pfn_to_section(k, pfn)):
        zone.present_early_pages += nr_pages
    zone.present_pages += nr_pages
    k.nodes[zone.nid].node_present_pages += nr_pages
    if group and zone.idx == k.ZONE_MOVABLE:
        k.memory_groups[group].present_movable_pages += nr_pages
    elif group:
        k.memory_groups[group].present_kernel_pages += nr_pages


def mhp_init_memmap_on_memory(k: Kernel, pfn: int, nr_pages: int, zone: Zone, mhp_off_inaccessible: bool) -> None:
    """
    Let the pages that hold a block's memmap belong to the block's zone; they never reach the page allocator.

    Source: mm/memory_hotplug.c mhp_init_memmap_on_memory() [v5.14, v6.12]
    """
    move_pfn_range_to_zone(k, zone, pfn, nr_pages, MIGRATE_UNMOVABLE)
    for columns, start, end, _ in page_ranges_rw(k, pfn, nr_pages):
        if k.tree.hotplug_pages_offline:
            columns.clear_bits(FLAGS, start, end, PG_OFFLINE)
        columns.fill(KIND, start, end, KIND_MEMMAP)
    end_pfn = pfn + nr_pages
    if nr_pages >= k.PAGES_PER_SECTION:
        sparse.online_mem_sections(k, pfn, end_pfn - end_pfn % k.PAGES_PER_SECTION)


def mhp_deinit_memmap_on_memory(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Undo mhp_init_memmap_on_memory().

    Source: mm/memory_hotplug.c mhp_deinit_memmap_on_memory() [v5.14]
    """
    end_pfn = pfn + nr_pages
    if nr_pages >= k.PAGES_PER_SECTION:
        sparse.offline_mem_sections(k, pfn, end_pfn - end_pfn % k.PAGES_PER_SECTION)
    remove_pfn_range_from_zone(k, mm.page_zone(k, pfn), pfn, nr_pages)


def online_pages(
    k: Kernel, pfn: int, nr_pages: int, online_type: int, nid: int = NUMA_NO_NODE, zone: Zone | None = None, group: int = 0,
) -> None:
    """
    Make an added range allocatable: its struct pages are initialised, its pages go to a zone, isolated first.

    Args:
        pfn: First page, pageblock aligned.
        nr_pages: Pages, up to a section's end.
        online_type: MMOP_*; the zone follows from it in trees that choose it here.
        nid: Its node [v5.4 to v5.17].
        zone: Its zone, chosen by the caller [v5.18].
        group: Id of its memory group, or 0 [v5.15].

    Context: mem_hotplug lock held for writing; v5.10 takes it here.
    Raises:
        KernelError: EINVAL for a range that is not aligned; what a notifier says. v4.9: see _online_pages_v4_9().

    Source: mm/memory_hotplug.c online_pages() [v4.9, v5.10, v6.12]
    """
    if not k.tree.zones_chosen_at_online:
        _online_pages_v4_9(k, pfn, nr_pages, online_type)
    elif zone is not None:
        _online_pages_v5_10(k, pfn, nr_pages, zone, group)
    else:
        mem_hotplug_begin(k)
        try:
            _online_pages_v5_10(k, pfn, nr_pages, zone_for_pfn_range(k, online_type, nid, group, pfn, nr_pages), group)
        except KernelError:
            mem_hotplug_done(k)
            raise
        mem_hotplug_done(k)


def _online_pages_v5_10(k: Kernel, pfn: int, nr_pages: int, zone: Zone, group: int) -> None:
    """The body of online_pages() once the zone is chosen. Source: mm/memory_hotplug.c online_pages() [v5.10, v6.1, v6.12]"""
    if WARN_ON_ONCE(k.log, not nr_pages or pfn % k.pageblock_nr_pages or (pfn + nr_pages) % k.PAGES_PER_SECTION):
        raise KernelError(EINVAL, "the range does not begin with a pageblock and end with a section", pfn=pfn)
    nid = zone.nid
    move_pfn_range_to_zone(k, zone, pfn, nr_pages, MIGRATE_ISOLATE)
    arg = MemoryNotify(pfn, nr_pages)
    _node_states_check_changes_online_v5_10(k, zone, arg)
    ret = notifier_to_errno(memory.memory_notify(k, MEM_GOING_ONLINE, arg))
    if ret:
        memory.memory_notify(k, MEM_CANCEL_ONLINE, arg)
        remove_pfn_range_from_zone(k, zone, pfn, nr_pages)
        raise KernelError(ret, "a notifier vetoed MEM_GOING_ONLINE", pfn=pfn)
    zone.nr_isolate_pageblock += nr_pages // k.pageblock_nr_pages
    need_zonelists_rebuild = not mmzone.populated_zone(zone)
    if need_zonelists_rebuild:
        page_alloc.setup_zone_pageset(k, zone)
    _online_pages_range_v5_8(k, pfn, nr_pages)
    adjust_present_page_count(k, pfn, group, nr_pages)
    node_states_set_node(k, nid, arg)
    if need_zonelists_rebuild:
        page_alloc.build_all_zonelists(k, None, None)
    page_isolation.undo_isolate_page_range(k, pfn, pfn + nr_pages, MIGRATE_MOVABLE)
    page_alloc.init_per_zone_wmark_min(k)
    memory.memory_notify(k, MEM_ONLINE, arg)


def _online_pages_range_v5_8(k: Kernel, start_pfn: int, nr_pages: int) -> None:
    """
    online_pages_range(): give the pages to whoever takes them, mark the sections online.

    Source: mm/memory_hotplug.c online_pages_range() [v5.8]
    """
    assert k.online_page_callback is not None
    k.online_page_callback(k, start_pfn, nr_pages)
    sparse.online_mem_sections(k, start_pfn, start_pfn + nr_pages)


def _node_states_check_changes_online_v5_10(k: Kernel, zone: Zone, arg: MemoryNotify) -> None:
    """node_states_check_changes_online() without zones of high memory. Source: node_states_check_changes_online() [v4.20]"""
    nid = zone.nid
    arg.status_change_nid = nid if nid not in k.node_states[N_MEMORY] else -1
    normal = zone.idx <= k.ZONE_NORMAL and nid not in k.node_states[N_NORMAL_MEMORY]
    arg.status_change_nid_normal = nid if normal else -1


# Removing: which part of a zone is left


def find_smallest_section_pfn(k: Kernel, nid: int, zone: Zone | None, start_pfn: int, end_pfn: int) -> int:
    """
    Return the first pfn of the first valid section of a node (and zone) from `start_pfn` on, or 0. It is the section's state
    that is asked, not pfn_valid().

    Source: mm/memory_hotplug.c find_smallest_section_pfn() [v4.9]
    """
    for pfn in range(start_pfn, end_pfn, k.PAGES_PER_SECTION):
        if not mmzone.valid_section(mmzone.__pfn_to_section(k, pfn)):
            continue
        if mm.pfn_to_nid(k, pfn) != nid:
            continue
        if zone is not None and mm.page_zone(k, pfn) is not zone:
            continue
        return pfn
    return 0


def find_biggest_section_pfn(k: Kernel, nid: int, zone: Zone | None, start_pfn: int, end_pfn: int) -> int:
    """Return the last pfn of the last valid section, or 0. Source: mm/memory_hotplug.c find_biggest_section_pfn() [v4.9]"""
    for pfn in range(end_pfn - 1, start_pfn - 1, -k.PAGES_PER_SECTION):
        if not mmzone.valid_section(mmzone.__pfn_to_section(k, pfn)):
            continue
        if mm.pfn_to_nid(k, pfn) != nid:
            continue
        if zone is not None and mm.page_zone(k, pfn) is not zone:
            continue
        return pfn
    return 0


def shrink_zone_span(k: Kernel, zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """
    Let a zone no longer span a section that is about to go.

    Source: mm/memory_hotplug.c shrink_zone_span() [v4.9]
    """
    zone_start_pfn, zone_end_pfn = zone.zone_start_pfn, mmzone.zone_end_pfn(zone)
    if zone_start_pfn == start_pfn:
        pfn = find_smallest_section_pfn(k, zone.nid, zone, end_pfn, zone_end_pfn)
        if pfn:
            zone.zone_start_pfn = pfn
            zone.spanned_pages = zone_end_pfn - pfn
    elif zone_end_pfn == end_pfn:
        pfn = find_biggest_section_pfn(k, zone.nid, zone, zone_start_pfn, start_pfn)
        if pfn:
            zone.spanned_pages = pfn - zone_start_pfn + 1
    for pfn in range(zone_start_pfn, zone_end_pfn, k.PAGES_PER_SECTION):
        if not mmzone.valid_section(mmzone.__pfn_to_section(k, pfn)):
            continue
        if mm.page_zone(k, pfn) is not zone:
            continue
        if start_pfn == pfn:
            continue
        return
    zone.zone_start_pfn = 0
    zone.spanned_pages = 0


def _section_pfn_of(k: Kernel, nid: int, zone: Zone, start_pfn: int, end_pfn: int, *, biggest: bool) -> int:
    """
    Return the first (or last) pfn of [start_pfn, end_pfn), sub-section aligned, that is online and in a zone; 0 if none is.

    Sections are judged whole where their pages agree. Source: none
    """
    step = 1 << mmzone.SUBSECTION_SHIFT - k.PAGE_SHIFT
    first, last = start_pfn >> k.PFN_SECTION_SHIFT, (end_pfn - 1) >> k.PFN_SECTION_SHIFT
    for nr in range(last, first - 1, -1) if biggest else range(first, last + 1):
        section = k.mem_section.get(nr)
        if not mmzone.online_section(section) or section is None or section.memmap is None:
            continue
        base = nr << k.PFN_SECTION_SHIFT
        low, high = max(start_pfn, base), min(end_pfn, base + k.PAGES_PER_SECTION)
        zones, nodes = section.memmap.uniform(ZONE), section.memmap.uniform(NODE)
        if zones is not None and nodes is not None and (zones, nodes) != (zone.idx, nid):
            continue
        for pfn in range(high - 1, low - 1, -step) if biggest else range(low, high, step):
            if pfn_to_online_page(k, pfn) is None or mm.pfn_to_nid(k, pfn) != nid:
                continue
            if mm.page_zone(k, pfn) is zone:
                return pfn
    return 0


def _shrink_zone_span_v5_6(k: Kernel, zone: Zone, start_pfn: int, end_pfn: int) -> None:
    """
    shrink_zone_span(): let a zone no longer span a range that is offline, if it lies at an end of the zone.

    Source: mm/memory_hotplug.c shrink_zone_span(), find_smallest_section_pfn(), find_biggest_section_pfn() [v5.6]
    """
    zone_end = mmzone.zone_end_pfn(zone)
    if zone.zone_start_pfn != start_pfn:
        zone.contiguous_end = min(zone.contiguous_end, start_pfn)
    if zone.zone_start_pfn == start_pfn:
        pfn = _section_pfn_of(k, zone.nid, zone, end_pfn, zone_end, biggest=False)
        zone.spanned_pages = zone_end - pfn if pfn else 0
        zone.zone_start_pfn = pfn
    elif zone_end == end_pfn:
        pfn = _section_pfn_of(k, zone.nid, zone, zone.zone_start_pfn, start_pfn, biggest=True)
        zone.spanned_pages = pfn - zone.zone_start_pfn + 1 if pfn else 0
        zone.zone_start_pfn = zone.zone_start_pfn if pfn else 0


def update_pgdat_span(k: Kernel, pgdat: PglistData) -> None:
    """Let a node span what its zones span. Source: mm/memory_hotplug.c update_pgdat_span() [v5.5]"""
    spans = [(zone.zone_start_pfn, mmzone.zone_end_pfn(zone)) for zone in pgdat.node_zones if zone.spanned_pages]
    pgdat.node_start_pfn = min((start for start, _ in spans), default=0)
    pgdat.node_spanned_pages = max((end for _, end in spans), default=0) - pgdat.node_start_pfn


def remove_pfn_range_from_zone(k: Kernel, zone: Zone, start_pfn: int, nr_pages: int) -> None:
    """
    Undo move_pfn_range_to_zone(): the struct pages mean nothing any more, zone and node span the range only if they must.

    Source: mm/memory_hotplug.c remove_pfn_range_from_zone() [v5.5]
    """
    sparse.page_init_poison(k, start_pfn, nr_pages)
    if zone.name == "Device":
        return
    page_alloc.clear_zone_contiguous(zone)
    _shrink_zone_span_v5_6(k, zone, start_pfn, start_pfn + nr_pages)
    update_pgdat_span(k, k.nodes[zone.nid])
    page_alloc.set_zone_contiguous(k, zone)


# Removing memory [v5.3]


def check_memblock_offlined_cb(k: Kernel, mem: MemoryBlock) -> None:
    """
    Raises:
        KernelError: EBUSY if a block is not offline.

    Source: mm/memory_hotplug.c check_memblock_offlined_cb() [v5.3]
    """
    if mem.state != MEM_OFFLINE:
        beginpa = mmzone.section_nr_to_pfn(k, mem.start_section_nr) << k.PAGE_SHIFT
        endpa = beginpa + memory.memory_block_size_bytes(k) - 1
        printk(k.log, f"removing memory fails, because memory [{beginpa:#018x}-{endpa:#018x}] is onlined")
        raise KernelError(EBUSY, f"memory{mem.dev_id} is {STATE_NAMES[mem.state]}", block=mem.dev_id)


def check_cpu_on_node(k: Kernel, nid: int) -> bool:
    """Whether a processor is on a node: here they are all on node 0. Source: mm/memory_hotplug.c check_cpu_on_node()"""
    return nid == 0


def try_offline_node(k: Kernel, nid: int) -> None:
    """
    Offline a node that spans no pages, has no memory block and no processor. (v4.9: that has no section of its own, and no
    processor.)

    Source: mm/memory_hotplug.c try_offline_node() [v4.9, v5.5]
    """
    if not k.tree.hot_remove_refuses:
        _try_offline_node_v4_9(k, nid)
        return
    if k.nodes[nid].node_spanned_pages:
        return
    if any(mem.nid == nid for mem in k.memory_blocks.values()):
        return
    if check_cpu_on_node(k, nid):
        return
    k.node_states[N_ONLINE] -= {nid}
    node.unregister_one_node(k, nid)


def memory_blocks_have_altmaps(k: Kernel, start: int, size: int) -> bool:
    """
    Whether the blocks of a range have their memmap on themselves.

    Raises:
        KernelError: EINVAL if only some have.

    Source: mm/memory_hotplug.c memory_blocks_have_altmaps() [v6.8]
    """
    if k.memmap_mode == MEMMAP_ON_MEMORY_DISABLE:
        return False
    block_size = memory.memory_block_size_bytes(k)
    num_altmaps = sum(
        1 for block_id in range(start // block_size, (start + size) // block_size)
        if block_id in k.memory_blocks and k.memory_blocks[block_id].altmap is not None)
    if not num_altmaps:
        return False
    if WARN_ON_ONCE(k.log, num_altmaps != size // block_size):
        raise KernelError(EINVAL, "only some of the blocks have their memmap on themselves", start=start, size=size)
    return True


def remove_memory_blocks_and_altmaps(k: Kernel, start: int, size: int) -> None:
    """
    Remove blocks with their memmaps on themselves, one by one.

    Source: mm/memory_hotplug.c remove_memory_blocks_and_altmaps() [v6.8]
    """
    memblock_size = memory.memory_block_size_bytes(k)
    for cur_start in range(start, start + size, memblock_size):
        mem = memory.find_memory_block(k, cur_start >> k.SECTION_SIZE_BITS)
        if WARN_ON_ONCE(k.log, mem is None):
            continue
        assert mem is not None
        altmap, mem.altmap = mem.altmap, None
        memory.remove_memory_block_devices(k, cur_start, memblock_size)
        k.arch.arch_remove_memory(k, cur_start, memblock_size, altmap)
        WARN_ON(k.log, altmap is not None and altmap.alloc)


def try_remove_memory(k: Kernel, start: int, size: int) -> None:
    """
    Remove memory whose blocks are all offline.

    Args:
        start, size: Bytes; whole memory blocks.

    Raises:
        KernelError: EBUSY if a block is not offline; EINVAL if memmaps lie on some blocks only, or (until v6.7) on more than one.
        KernelBugError: the range is not made of whole memory blocks.

    Source: mm/memory_hotplug.c try_remove_memory() [v5.3, v6.1, v6.12]
    """
    try:
        check_hotplug_memory_range(k, start, size)
    except KernelError:
        BUG_ON(k.log, True, f"[{start:#x}, +{size:#x}) is not made of whole memory blocks")
    memory.walk_memory_blocks(k, start, size, check_memblock_offlined_cb)
    block_size = memory.memory_block_size_bytes(k)
    nid = NUMA_NO_NODE
    for block_id in range(start // block_size, (start + size) // block_size):
        if block_id in k.memory_blocks:
            nid = k.memory_blocks[block_id].nid
    firmware_memmap.firmware_map_remove(k, start, start + size, "System RAM")
    if k.tree.memmap_on_memory_per_block:
        mem_hotplug_begin(k)
        try:
            on_memory = memory_blocks_have_altmaps(k, start, size)
        except KernelError:
            mem_hotplug_done(k)
            raise
        altmap = None
    else:
        altmap = _altmap_of_v6_1(k, start, size)
        on_memory = False
        mem_hotplug_begin(k)
    if on_memory:
        remove_memory_blocks_and_altmaps(k, start, size)
    else:
        memory.remove_memory_block_devices(k, start, size)
        k.arch.arch_remove_memory(k, start, size, altmap)
    if not k.config.ARCH_DISCARD_MEMBLOCK:
        memblock.memblock_remove(k, start, size)
    _release_mem_region(k, start, size)
    if nid != NUMA_NO_NODE:
        try_offline_node(k, nid)
    mem_hotplug_done(k)


def _altmap_of_v6_1(k: Kernel, start: int, size: int) -> VmemAltmap | None:
    """
    The altmap of the one block that is to be removed, if its memmap lies on itself.

    Raises:
        KernelError: EINVAL if there are such blocks and they are more than one. The firmware's map has lost the range by then.

    Source: mm/memory_hotplug.c try_remove_memory() [v5.14 to v6.7]
    """
    if k.memmap_mode == MEMMAP_ON_MEMORY_DISABLE:
        return None
    block_size = memory.memory_block_size_bytes(k)
    found = (k.memory_blocks.get(block_id) for block_id in range(start // block_size, (start + size) // block_size))
    mem = next((mem for mem in found if mem is not None and mem.altmap is not None), None)
    if mem is None:
        return None
    if size != block_size:
        printk(k.log, f"Refuse to remove {start:#x} - {start + size:#x},wrong granularity")
        raise KernelError(EINVAL, "memory whose memmap lies on itself is removed block by block", start=start, size=size)
    altmap = k.block_rw(mem.dev_id).altmap
    k.block_rw(mem.dev_id).altmap = None
    return altmap


def _release_mem_region(k: Kernel, start: int, size: int) -> None:
    """release_mem_region_adjustable(), whose failure nobody hears of. Source: mm/memory_hotplug.c try_remove_memory()"""
    try:
        resource.release_mem_region_adjustable(k, k.iomem_rw(), start, size)
    except KernelError as err:
        _ignored(err)


def __remove_memory(k: Kernel, start: int, size: int) -> None:
    """
    As remove_memory(), for those who hold the device-hotplug lock and know that every block is offline.

    Raises:
        KernelBugError: one is not.

    Source: mm/memory_hotplug.c __remove_memory() [v5.3]
    """
    try:
        try_remove_memory(k, start, size)
    except KernelError as err:
        BUG_ON(k.log, True, err.reason)


def remove_memory(k: Kernel, start: int, size: int, nid: int = NUMA_NO_NODE) -> None:
    """
    Remove memory whose blocks are all offline.

    Args:
        start, size: Bytes; whole memory blocks.
        nid: Their node; until v5.15 the first argument, since then the blocks know it.

    Context: v4.9: device_hotplug_lock held; later kernels take it here.
    Raises:
        KernelError: as try_remove_memory().
        KernelBugError: the range is not made of whole memory blocks; v4.9: of whole sections, or a block is online.

    Source: mm/memory_hotplug.c remove_memory() [v4.9, v5.15]
    """
    if not k.tree.hot_remove_refuses:
        _remove_memory_v4_9(k, nid, start, size)
        return
    core.lock_device_hotplug(k)
    try:
        try_remove_memory(k, start, size)
    except KernelError:
        core.unlock_device_hotplug(k)
        raise
    core.unlock_device_hotplug(k)


def try_offline_memory_block(k: Kernel, mem: MemoryBlock, online_types: dict[int, int]) -> None:
    """
    Offline one block, and note how it was online.

    Raises:
        KernelError: what device_offline() says.

    Source: mm/memory_hotplug.c try_offline_memory_block() [v5.9]
    """
    online_type = MMOP_ONLINE_KERNEL
    pfn = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    if pfn_to_online_page(k, pfn) is not None and mm.page_zonenum(k, pfn) == k.ZONE_MOVABLE:
        online_type = MMOP_ONLINE_MOVABLE
    if not core.device_offline(k, mem):
        online_types[mem.dev_id] = online_type


def try_reonline_memory_block(k: Kernel, mem: MemoryBlock, online_types: dict[int, int]) -> None:
    """Online a block again as it was. Source: mm/memory_hotplug.c try_reonline_memory_block() [v5.11]"""
    if mem.dev_id not in online_types:
        return
    mem.online_type = online_types[mem.dev_id]
    try:
        core.device_online(k, mem)
    except KernelError as err:
        printk(k.log, f"try_reonline_memory_block: Failed to re-online memory: {-(err.errno or 0)}")


def offline_and_remove_memory(k: Kernel, start: int, size: int) -> None:
    """
    Offline every block of a range, then remove it; if a block cannot go offline, those before go online again as they were.

    Args:
        start, size: Bytes; whole memory blocks.

    Raises:
        KernelError: EINVAL for another range; what device_offline() and try_remove_memory() say.

    Source: mm/memory_hotplug.c offline_and_remove_memory() [v5.9, v5.11]
    """
    block_size = memory.memory_block_size_bytes(k)
    if not size or start % block_size or size % block_size:
        raise KernelError(EINVAL, f"[{start:#x}, +{size:#x}) is not made of whole memory blocks of {block_size:#x}", start=start)
    online_types: dict[int, int] = {}
    core.lock_device_hotplug(k)
    try:
        memory.walk_memory_blocks(k, start, size, lambda k, mem: try_offline_memory_block(k, mem, online_types))
        try:
            try_remove_memory(k, start, size)
        except KernelError as err:
            printk(k.log, f"offline_and_remove_memory: Failed to remove memory: {-(err.errno or 0)}")
            raise
    except KernelError:
        memory.walk_memory_blocks(k, start, size, lambda k, mem: try_reonline_memory_block(k, mem, online_types))
        core.unlock_device_hotplug(k)
        raise
    core.unlock_device_hotplug(k)


# Removing memory [v4.9]


def shrink_pgdat_span(k: Kernel, pgdat: PglistData, start_pfn: int, end_pfn: int) -> None:
    """
    Let a node no longer span a section that is about to go.

    Source: mm/memory_hotplug.c shrink_pgdat_span() [v4.9]
    """
    pgdat_start_pfn, pgdat_end_pfn = pgdat.node_start_pfn, mmzone.pgdat_end_pfn(pgdat)
    nid = pgdat.node_id
    if pgdat_start_pfn == start_pfn:
        pfn = find_smallest_section_pfn(k, nid, None, end_pfn, pgdat_end_pfn)
        if pfn:
            pgdat.node_start_pfn = pfn
            pgdat.node_spanned_pages = pgdat_end_pfn - pfn
    elif pgdat_end_pfn == end_pfn:
        pfn = find_biggest_section_pfn(k, nid, None, pgdat_start_pfn, start_pfn)
        if pfn:
            pgdat.node_spanned_pages = pfn - pgdat_start_pfn + 1
    for pfn in range(pgdat_start_pfn, pgdat_end_pfn, k.PAGES_PER_SECTION):
        if not mmzone.valid_section(mmzone.__pfn_to_section(k, pfn)):
            continue
        if mm.pfn_to_nid(k, pfn) != nid:
            continue
        if start_pfn == pfn:
            continue
        return
    pgdat.node_start_pfn = 0
    pgdat.node_spanned_pages = 0


def __remove_zone(k: Kernel, zone: Zone, start_pfn: int) -> None:
    """Source: mm/memory_hotplug.c __remove_zone() [v4.9]"""
    shrink_zone_span(k, zone, start_pfn, start_pfn + k.PAGES_PER_SECTION)
    shrink_pgdat_span(k, k.nodes[zone.nid], start_pfn, start_pfn + k.PAGES_PER_SECTION)


def __remove_section(k: Kernel, zone: Zone, scn_nr: int, map_offset: int) -> None:
    """
    Take one section away: its block's device with the last of them, its part of the zone's span, its memmap.

    Raises:
        KernelError: EINVAL if it has no memmap.

    Source: mm/memory_hotplug.c __remove_section() [v4.9]
    """
    if not mmzone.valid_section(mmzone.__nr_to_section(k, scn_nr)):
        raise KernelError(EINVAL, "the section has no memmap", section=scn_nr)
    memory.unregister_memory_section(k, scn_nr)
    __remove_zone(k, zone, mmzone.section_nr_to_pfn(k, scn_nr))
    sparse.sparse_remove_one_section(k, zone, scn_nr, map_offset)


def _remove_pages_v4_9(k: Kernel, zone: Zone, phys_start_pfn: int, nr_pages: int) -> None:
    """
    __remove_pages(): take the sections of a range away, and its resource first.

    All of them leave `zone`, the zone of the first page. If later ones are in another, that goes on spanning them.

    Raises:
        KernelError: EINVAL from the first section that has no memmap; those after it stay.
        KernelBugError: the range is not made of whole sections.

    Source: mm/memory_hotplug.c __remove_pages() [v4.9]
    """
    if zone.name != "Device":
        start, size = phys_start_pfn << k.PAGE_SHIFT, nr_pages << k.PAGE_SHIFT
        try:
            resource.release_mem_region_adjustable(k, k.iomem_rw(), start, size)
        except KernelError as err:
            endres = start + size - 1
            printk(k.log, f"Unable to release resource <{start:#018x}-{endres:#018x}> ({-(err.errno or 0)})")
    page_alloc.clear_zone_contiguous(zone)
    if zone.zone_start_pfn != phys_start_pfn:
        zone.contiguous_end = min(zone.contiguous_end, phys_start_pfn)
    BUG_ON(k.log, phys_start_pfn % k.PAGES_PER_SECTION)
    BUG_ON(k.log, nr_pages % k.PAGES_PER_SECTION)
    try:
        for pfn in range(phys_start_pfn, phys_start_pfn + nr_pages, k.PAGES_PER_SECTION):
            __remove_section(k, zone, mmzone.pfn_to_section_nr(k, pfn), 0)
    finally:
        page_alloc.set_zone_contiguous(k, zone)


def _try_offline_node_v4_9(k: Kernel, nid: int) -> None:
    """try_offline_node(). Source: mm/memory_hotplug.c try_offline_node() [v4.9]"""
    pgdat = k.nodes[nid]
    for pfn in range(pgdat.node_start_pfn, mmzone.pgdat_end_pfn(pgdat), k.PAGES_PER_SECTION):
        if mmzone.present_section_nr(k, mmzone.pfn_to_section_nr(k, pfn)) and mm.pfn_to_nid(k, pfn) == nid:
            return
    if check_and_unmap_cpu_on_node(k, nid):
        return
    k.node_states[N_ONLINE] -= {nid}
    node.unregister_one_node(k, nid)


def check_and_unmap_cpu_on_node(k: Kernel, nid: int) -> bool:
    """Whether a processor is on a node. Source: mm/memory_hotplug.c check_and_unmap_cpu_on_node() [v4.9]"""
    return check_cpu_on_node(k, nid)


def _remove_memory_v4_9(k: Kernel, nid: int, start: int, size: int) -> None:
    """
    remove_memory(): remove memory whose blocks are all offline. memblock loses it before the sections go.

    Raises:
        KernelBugError: the range is not made of whole sections, or a block is online; then the lock stays held.

    Source: mm/memory_hotplug.c remove_memory() [v4.9]
    """
    try:
        check_hotplug_memory_range(k, start, size)
    except KernelError as err:
        BUG_ON(k.log, True, err.reason)
    mem_hotplug_begin(k)
    try:
        walk_memory_range(k, start >> k.PAGE_SHIFT, -(-(start + size - 1) >> k.PAGE_SHIFT), check_memblock_offlined_cb)
    except KernelError as err:
        BUG_ON(k.log, True, err.reason)
    firmware_memmap.firmware_map_remove(k, start, start + size, "System RAM")
    memblock.memblock_free(k, start, size)
    memblock.memblock_remove(k, start, size)
    try:
        k.arch.arch_remove_memory(k, start, size, None)
    except KernelError as err:
        _ignored(err)
    try_offline_node(k, nid)
    mem_hotplug_done(k)


# Offlining: which pages move, and where to


NR_OFFLINE_AT_ONCE_PAGES = 256

_SET = bytes(1 if value else 0 for value in range(256))
_LRU = bytes(1 if value & PG_LRU else 0 for value in range(256))
_POISONED = bytes(1 if value & PG_HWPOISON else 0 for value in range(256))
_LARGE = bytes(1 if value in (KIND_HUGE, KIND_HUGETLB) else 0 for value in range(256))


def _valid_runs(k: Kernel, start: int, end: int) -> list[tuple[int, int]]:
    """The runs of [start, end) for which pfn_valid() holds. Source: none"""
    return [(low, high) for low, high, valid in mmzone.pfn_valid_runs(k, start, end) if valid] if start < end else []


def scan_movable_pages(k: Kernel, start: int, end: int) -> int | None:
    """
    Return the first page of a range that could be migrated: one on the LRU lists, or of a huge page in use. None if there is
    none; in v4.9 page 0 is none, too.

    Raises:
        KernelError: EBUSY for a PageOffline page before it whose driver has not given it up [v5.8].

    Source: mm/memory_hotplug.c scan_movable_pages() [v4.9, v5.10]
    """
    for low, high in _valid_runs(k, start, end):
        for columns, a, b, first in page_ranges(k, low, high - low):
            found = columns.find(FLAGS, a, b, PG_LRU, PG_LRU)
            stop = b if found < 0 else found
            huge = _active_huge_page(columns, a, stop)
            if huge >= 0:
                found = stop = huge
            kept = _kept_offline_page(columns, a, stop) if k.tree.zones_chosen_at_online else -1
            if kept >= 0:
                pfn = first + kept - a
                raise KernelError(EBUSY, f"page {pfn:#x} is PageOffline, and its driver holds on to it", pfn=pfn)
            if found >= 0:
                return first + found - a or None
    return None


def _kept_offline_page(columns: PageColumns, start: int, end: int) -> int:
    """The offset of the first PageOffline page with a reference in [start, end), or -1. Source: none"""
    at = columns.find(FLAGS, start, end, PG_OFFLINE, PG_OFFLINE)
    while at >= 0 and not columns.get(REFCOUNT, at):
        at = columns.find(FLAGS, at + 1, end, PG_OFFLINE, PG_OFFLINE) if columns.uniform(FLAGS) is None else -1
    return at


def _active_huge_page(columns: PageColumns, start: int, end: int) -> int:
    """The offset of the first huge page in use that begins in [start, end), or -1. Source: none"""
    at = columns.find(KIND, start, end, 0xFF, KIND_HUGETLB)
    while at >= 0:
        if columns.get(FLAGS, at) & PG_HEAD and columns.get(REFCOUNT, at):
            return at
        at = columns.find(KIND, at + 1, end, 0xFF, KIND_HUGETLB)
    return -1


def new_node_page(k: Kernel, page: int, nr_pages: int, order: int) -> list[tuple[int, int]]:
    """
    Allocate new pages for some that have to go: from other nodes, or else from any.

    Pages that come from ZONE_MOVABLE may go there again; others may not.

    Args:
        page: First of them.
        nr_pages: How many base pages, or one huge page.
        order: Of the huge page; 0 for base pages.

    Returns:
        Runs [start, end); fewer pages than asked for if memory ran out.

    Source: mm/memory_hotplug.c new_node_page() [v4.9]
    """
    nid = mm.page_to_nid(k, page)
    if order:
        others = sorted(k.node_states[N_MEMORY])
        huge = hugetlb.alloc_huge_page_node(k, next((other for other in others if other > nid), others[0]))
        return [(huge, huge + (1 << order))] if huge >= 0 else []
    nmask = k.node_states[N_MEMORY] - {nid}
    gfp_mask = GFP_HIGHUSER_MOVABLE if mm.page_zonenum(k, page) == k.ZONE_MOVABLE else GFP_USER_MOVABLE
    new_pages: list[tuple[int, int]] = []
    if nmask:
        new_pages = page_alloc._alloc_base_pages(k, replace(gfp_mask, nowarn=True), nid, nr_pages, nmask)
        nr_pages -= sum(end - start for start, end in new_pages)
    if nr_pages:
        new_pages += page_alloc._alloc_base_pages(k, gfp_mask, nid, nr_pages)
    return new_pages


def do_migrate_range(k: Kernel, start_pfn: int, end_pfn: int) -> int:
    """
    Move the first pages of a range away, some 256 at once; the first that is in use and not movable ends it, and then those
    before it stay, too.

    Returns:
        0; how many pages did not move; -EBUSY or -ENOMEM.

    Source: mm/memory_hotplug.c do_migrate_range() [v4.9]
    """
    source = migrate.Source([])
    move_pages = NR_OFFLINE_AT_ONCE_PAGES
    ret = 0
    for low, high in _valid_runs(k, start_pfn, end_pfn):
        pfn = low
        while pfn < high and move_pages > 0 and not ret:
            stop = min(high, (pfn | 8 * NR_OFFLINE_AT_ONCE_PAGES - 1) + 1)
            pfn, move_pages, ret = _isolate_some(k, source, pfn, stop, move_pages)
    if source:
        if ret:
            migrate.putback_movable_pages(k, source)
            return ret
        ret = migrate.migrate_pages(k, source, new_node_page)
        if ret:
            migrate.putback_movable_pages(k, source)
    return ret


def _isolate_some(k: Kernel, source: migrate.Source, pfn: int, end: int, move_pages: int) -> tuple[int, int, int]:
    """
    The loop of do_migrate_range() over [pfn, end): it ends early after `move_pages` pages, or at one that cannot be isolated.

    Returns:
        Where it ended, how many more pages may be moved, and -EBUSY or 0.

    Source: mm/memory_hotplug.c do_migrate_range() [v4.9]
    """
    for columns, low, high, first in page_ranges(k, pfn, end - pfn):
        counts = columns.values(REFCOUNT, low, high).translate(_SET)
        lru = columns.values(FLAGS, low, high).translate(_LRU)
        position = counts.find(1)
        while position >= 0 and move_pages > 0:
            kind = columns.get(KIND, low + position)
            page = first + position
            if kind == KIND_HUGETLB:
                order = hugetlb.huge_page_order(k)
                if order > k.PFN_SECTION_SHIFT:
                    return page, move_pages, -EBUSY
                source.add(page, page + (1 << order), order)
                move_pages -= 1 << order
                position = counts.find(1, position + 1)
                continue
            if not lru[position]:
                return page, move_pages, -EBUSY
            if kind == KIND_HUGE:
                source.add(page, page + 1, k.arch.PMD_SHIFT(k.config) - k.PAGE_SHIFT)
                move_pages -= 1
                position = counts.find(1, position + 1)
                continue
            stop = min(
                found for found in (counts.find(0, position), lru.find(0, position), position + move_pages, high - low)
                if found >= 0)
            huge = columns.find(KIND, low + position, low + stop, 0xFF, KIND_HUGE)
            stop = huge - low if huge >= 0 else stop
            source.add(page, first + stop)
            move_pages -= stop - position
            position = counts.find(1, stop)
        if move_pages <= 0:
            break
    return end, move_pages, 0


def _do_migrate_range_v5_10(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """
    do_migrate_range(): move every page of a range away that can be moved. What remains is told by the next scan_movable_pages().

    Pages go to other nodes, and only if there are none with memory, to the same.

    Source: mm/memory_hotplug.c do_migrate_range() [v5.10, v6.12]
    """
    source = migrate.Source([])
    for low, high in _valid_runs(k, start_pfn, end_pfn):
        for columns, a, b, first in page_ranges(k, low, high - low):
            counts = columns.values(REFCOUNT, a, b).translate(_SET)
            position = counts.find(1)
            if position < 0:
                continue
            lru = columns.values(FLAGS, a, b).translate(_LRU)
            poisoned = columns.values(FLAGS, a, b).translate(_POISONED)
            large = columns.values(KIND, a, b).translate(_LARGE)
            while position >= 0:
                page = first + position
                if large[position]:
                    order = hugetlb.huge_page_order(k)
                    if not poisoned[position]:
                        source.add(page, page + (1 << order), order)
                    position = counts.find(1, position + (1 << order))
                    continue
                if poisoned[position] or not lru[position]:
                    if not poisoned[position] and bug.__ratelimit(k.log, k.tasks.current, "migrate_rs", 10):
                        printk(k.log, f"failed to isolate pfn {page:x}")
                        debug.dump_page(k, page, "isolation failed")
                    position = counts.find(1, position + 1)
                    continue
                ends = counts.find(0, position), lru.find(0, position), poisoned.find(1, position), large.find(1, position)
                stop = min((end for end in ends if end >= 0), default=b - a)
                source.add(page, first + stop)
                position = counts.find(1, stop)
    if not source:
        return
    nid = mm.page_to_nid(k, source.items[0][0])
    mtc = migrate.MigrationTargetControl(nid, (k.node_states[N_MEMORY] - {nid}) or frozenset({nid}))
    ret = migrate.migrate_pages(k, source, partial(migrate.alloc_migration_target, mtc=mtc))
    if ret:
        for start, end, order in source.items:
            for page in (start,) if order else range(start, min(end, start + 10)):
                if not bug.__ratelimit(k.log, k.tasks.current, "migrate_rs", 10):
                    break
                printk(k.log, f"migrating pfn {page:x} failed ret:{ret}")
                debug.dump_page(k, page, "migration failure")
        migrate.putback_movable_pages(k, source)


# Offlining


def offline_isolated_pages_cb(k: Kernel, start: int, nr_pages: int) -> int:
    """Source: mm/memory_hotplug.c offline_isolated_pages_cb() [v4.9]"""
    page_alloc.__offline_isolated_pages(k, start, start + nr_pages)
    return 0


def offline_isolated_pages(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """
    Take the System RAM of a range off the free lists, and reserve it.

    Source: mm/memory_hotplug.c offline_isolated_pages() [v4.9]
    """
    resource.walk_system_ram_range(k, start_pfn, end_pfn - start_pfn, offline_isolated_pages_cb)


def check_pages_isolated_cb(k: Kernel, start_pfn: int, nr_pages: int, data: list[int]) -> int:
    """Source: mm/memory_hotplug.c check_pages_isolated_cb() [v4.9]"""
    page_isolation.test_pages_isolated(k, start_pfn, start_pfn + nr_pages, page_isolation.MEMORY_OFFLINE)
    data[0] += nr_pages
    return 0


def check_pages_isolated(k: Kernel, start_pfn: int, end_pfn: int) -> int:
    """
    Return how many pages of System RAM a range has, all of which are free and isolated.

    Raises:
        KernelError: EBUSY if one is not; EPERM (-1 in C) if the range has none.

    Source: mm/memory_hotplug.c check_pages_isolated() [v4.9]
    """
    offlined = [0]
    if resource.walk_system_ram_range(k, start_pfn, end_pfn - start_pfn, partial(check_pages_isolated_cb, data=offlined)):
        raise KernelError(EPERM, "no System RAM of /proc/iomem covers the range", pfn=start_pfn)
    return offlined[0]


def can_offline_normal(k: Kernel, zone: Zone, nr_pages: int) -> bool:
    """
    Whether a node that keeps movable memory keeps normal memory, too.

    Source: mm/memory_hotplug.c can_offline_normal() [v4.9]
    """
    if k.config.MOVABLE_NODE:
        return True
    zones = k.nodes[zone.nid].node_zones
    if sum(z.present_pages for z in zones[: k.ZONE_NORMAL + 1]) > nr_pages:
        return True
    return not sum(z.present_pages for z in zones[k.ZONE_NORMAL + 1 : k.ZONE_MOVABLE + 1])


def node_states_check_changes_offline(k: Kernel, nr_pages: int, zone: Zone, arg: MemoryNotify) -> None:
    """
    Note which node states will change.

    Source: mm/memory_hotplug.c node_states_check_changes_offline() [v4.9, v5.10], without HIGHMEM
    """
    zones = k.nodes[zone.nid].node_zones
    zone_last = k.ZONE_NORMAL if _normal_is_apart(k) else k.ZONE_MOVABLE
    present_pages = sum(z.present_pages for z in zones[: zone_last + 1])
    normal = zone.idx <= zone_last and nr_pages >= present_pages
    arg.status_change_nid_normal = zone.nid if normal else -1
    arg.status_change_nid_high = arg.status_change_nid_normal
    present_pages += sum(z.present_pages for z in zones[zone_last + 1 : k.ZONE_MOVABLE + 1])
    arg.status_change_nid = zone.nid if nr_pages >= present_pages else -1


def node_states_clear_node(k: Kernel, nid: int, arg: MemoryNotify) -> None:
    """
    Note that a node has no normal memory, or none at all, any more.

    In v4.9 without MOVABLE_NODE the two are one state in C.

    Source: mm/memory_hotplug.c node_states_clear_node() [v4.9, v5.10]
    """
    if arg.status_change_nid_normal >= 0:
        k.node_states[N_NORMAL_MEMORY] -= {nid}
        if not _normal_is_apart(k):
            k.node_states[N_MEMORY] -= {nid}
    if _normal_is_apart(k) and arg.status_change_nid >= 0:
        k.node_states[N_MEMORY] -= {nid}


def _normal_is_apart(k: Kernel) -> bool:
    """Whether N_NORMAL_MEMORY and N_MEMORY are two states: under MOVABLE_NODE, and always since v4.13. Source: none"""
    return k.config.MOVABLE_NODE or not k.tree.config_movable_node


def offline_pages(k: Kernel, start_pfn: int, nr_pages: int, zone: Zone | None = None, group: int = 0) -> None:
    """
    Empty a range and take it out of use.

    Args:
        start_pfn: First page, pageblock aligned.
        nr_pages: Pages, up to a section's end.
        zone: Its zone, which the caller knows [v5.18].
        group: Id of its memory group, or 0 [v5.15].

    Context: mem_hotplug lock held for writing; v5.10 takes it here.
    Raises:
        KernelError: see _offline_pages_v5_10(), __offline_pages() [v4.9].

    Source: mm/memory_hotplug.c offline_pages() [v4.9, v5.10, v6.12]
    """
    if not k.tree.zones_chosen_at_online:
        __offline_pages(k, start_pfn, start_pfn + nr_pages, 120)
    elif zone is not None:
        _offline_pages_v5_10(k, start_pfn, nr_pages, zone, group)
    else:
        _check_whole_sections(k, start_pfn, nr_pages, start_pfn)
        mem_hotplug_begin(k)
        try:
            _offline_pages_v5_10(k, start_pfn, nr_pages, None, 0)
        except KernelError:
            mem_hotplug_done(k)
            raise
        mem_hotplug_done(k)


def count_system_ram_pages_cb(k: Kernel, start_pfn: int, nr_pages: int, data: list[int]) -> int:
    """Source: mm/memory_hotplug.c count_system_ram_pages_cb() [v5.5]"""
    data[0] += nr_pages
    return 0


def _check_whole_sections(k: Kernel, start_pfn: int, nr_pages: int, aligned: int) -> None:
    """Refuse a range of no pages, or that does not end with a section. Raises KernelError EINVAL. Source: offline_pages()"""
    block = k.pageblock_nr_pages - 1 if k.tree.memory_block_keeps_zone else k.PAGES_PER_SECTION - 1
    if WARN_ON_ONCE(k.log, not nr_pages or aligned & block or (start_pfn + nr_pages) % k.PAGES_PER_SECTION):
        raise KernelError(EINVAL, f"[{start_pfn:#x}, +{nr_pages:#x}) is not made of whole sections", pfn=start_pfn)


def _offline_pages_v5_10(k: Kernel, start_pfn: int, nr_pages: int, zone: Zone | None, group: int) -> None:
    """
    offline_pages(): isolate a range, move its pages away, take it out of use, and out of its zone.

    There is no time-out: pages that do not move are tried again until a signal comes. If none ever does, the task waits for ever.

    Raises:
        KernelError: EINVAL for a range that is not made of whole sections, has holes, or lies in several zones; EBUSY if a
            pageblock cannot be isolated, a PageOffline page is not given up, or all free huge pages are promised; EINTR on a
            signal; what a notifier says.
        KernelHangError: pages do not move, and no signal comes. The range stays isolated.

    Source: mm/memory_hotplug.c offline_pages() [v5.10, v6.1, v6.12]
    """
    end_pfn = start_pfn + nr_pages
    _check_whole_sections(k, start_pfn, nr_pages, start_pfn)
    system_ram_pages = [0]
    resource.walk_system_ram_range(k, start_pfn, nr_pages, partial(count_system_ram_pages_cb, data=system_ram_pages))
    if system_ram_pages[0] != nr_pages:
        holes = nr_pages - system_ram_pages[0]
        raise KernelError(EINVAL, f"memory holes: {holes:#x} of {nr_pages:#x} pages are not System RAM", pfn=start_pfn)
    if zone is None:
        if not test_pages_in_a_zone(k, start_pfn, end_pfn):
            raise KernelError(EINVAL, "multizone range: the pages lie in several zones", pfn=start_pfn)
        zone = mm.page_zone(k, start_pfn)
    elif WARN_ON_ONCE(k.log, mm.page_zone(k, start_pfn) is not zone or mm.page_zone(k, end_pfn - 1) is not zone):
        raise KernelError(EINVAL, "multizone range: an end of it lies in another zone", pfn=start_pfn)
    node = zone.nid
    if k.tree.offline_disables_pcp:
        page_alloc.zone_pcp_disable(k, zone)
        swap.lru_cache_disable(k)
    arg = MemoryNotify(start_pfn, nr_pages)
    try:
        page_isolation.start_isolate_page_range(
            k, start_pfn, end_pfn, MIGRATE_MOVABLE, page_isolation.MEMORY_OFFLINE | page_isolation.REPORT_FAILURE)
        node_states_check_changes_offline(k, nr_pages, zone, arg)
        try:
            ret = notifier_to_errno(memory.memory_notify(k, MEM_GOING_OFFLINE, arg))
            if ret:
                raise KernelError(ret, "notifier failure: MEM_GOING_OFFLINE was vetoed", pfn=start_pfn)
            _empty_range_v5_10(k, start_pfn, end_pfn)
        except KernelError:
            page_isolation.undo_isolate_page_range(k, start_pfn, end_pfn, MIGRATE_MOVABLE)
            memory.memory_notify(k, MEM_CANCEL_OFFLINE, arg)
            raise
    finally:
        if k.tree.offline_disables_pcp:
            swap.lru_cache_enable(k)
            page_alloc.zone_pcp_enable(k, zone)
    managed_pages = page_alloc.__offline_isolated_pages(k, start_pfn, end_pfn)
    if k.tree.offline_prints_pages:
        printk(k.log, f"Offlined Pages {nr_pages}")
    zone.nr_isolate_pageblock -= nr_pages // k.pageblock_nr_pages
    page_alloc.adjust_managed_page_count(k, start_pfn, -managed_pages)
    adjust_present_page_count(k, start_pfn, group, -nr_pages)
    page_alloc.init_per_zone_wmark_min(k)
    if k.tree.node_state_before_zonelists:
        node_states_clear_node(k, node, arg)
    if not mmzone.populated_zone(zone):
        page_alloc.zone_pcp_reset(zone)
        page_alloc.build_all_zonelists(k, None, None)
    elif not k.tree.offline_disables_pcp:
        page_alloc.zone_pcp_update(k, zone)
    if not k.tree.node_state_before_zonelists:
        node_states_clear_node(k, node, arg)
    memory.memory_notify(k, MEM_OFFLINE, arg)
    remove_pfn_range_from_zone(k, zone, start_pfn, nr_pages)


def _empty_range_v5_10(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """
    The loops of offline_pages(): move pages away until none is left that could be moved, and all are free.

    If a round changed nothing, the following ones will not either; then only a signal ends it.

    Raises:
        KernelError: EBUSY, EINTR.
        KernelHangError: no signal comes.

    Source: mm/memory_hotplug.c offline_pages() [v5.10, v6.1, v6.12]
    """
    while True:
        pfn: int | None = start_pfn
        while pfn is not None:
            if sched.signal_pending(k.tasks):
                raise KernelError(EINTR, "signal backoff: a signal is pending", pfn=pfn)
            pfn = scan_movable_pages(k, pfn, end_pfn)
            if pfn is not None:
                before = k.pgmigrate_success
                _do_migrate_range_v5_10(k, pfn, end_pfn)
                if before == k.pgmigrate_success:
                    what = debug._describe_page(k, pfn)
                    sched.wait_for_signal(k.tasks, f"tries for ever to move page {pfn:#x} ({what}) away")
        hugetlb.dissolve_free_huge_pages(k, start_pfn, end_pfn)
        try:
            page_isolation.test_pages_isolated(k, start_pfn, end_pfn, page_isolation.MEMORY_OFFLINE)
            return
        except KernelError as err:
            at = err.facts["pfn"]
            assert isinstance(at, int)
            sched.wait_for_signal(k.tasks, f"waits for ever for page {at:#x} ({debug._describe_page(k, at)}) to be free")


def __offline_pages(k: Kernel, start_pfn: int, end_pfn: int, timeout: int) -> None:
    """
    Isolate a range, move its pages away, take it out of use. The zone goes on spanning it.

    Args:
        timeout: Seconds after which pages that do not move end it.

    Raises:
        KernelError: EINVAL for a range not made of pageblocks, of several zones, or with the last normal memory of a node that
            keeps movable memory; EBUSY if a pageblock cannot be isolated, a page neither moves nor is free, or all free huge
            pages are promised; EAGAIN after the time-out; EINTR on a signal; ENOMEM if there is no memory to move pages to; what
            a notifier says.

    Source: mm/memory_hotplug.c __offline_pages() [v4.9]
    """
    if start_pfn & (k.pageblock_nr_pages - 1) or end_pfn & (k.pageblock_nr_pages - 1):
        raise KernelError(EINVAL, f"[{start_pfn:#x}, {end_pfn:#x}) is not made of pageblocks", pfn=start_pfn)
    if not test_pages_in_a_zone(k, start_pfn, end_pfn):
        raise KernelError(EINVAL, "the range lies in several zones", pfn=start_pfn)
    zone = mm.page_zone(k, start_pfn)
    node = zone.nid
    nr_pages = end_pfn - start_pfn
    if zone.idx <= k.ZONE_NORMAL and not can_offline_normal(k, zone, nr_pages):
        raise KernelError(EINVAL, f"node {node} keeps movable memory, and this is its last normal memory", pfn=start_pfn)
    page_isolation.start_isolate_page_range(k, start_pfn, end_pfn, MIGRATE_MOVABLE, page_isolation.MEMORY_OFFLINE)
    arg = MemoryNotify(start_pfn, nr_pages)
    node_states_check_changes_offline(k, nr_pages, zone, arg)
    try:
        ret = notifier_to_errno(memory.memory_notify(k, MEM_GOING_OFFLINE, arg))
        if ret:
            raise KernelError(ret, "a notifier vetoed MEM_GOING_OFFLINE", pfn=start_pfn)
        _empty_range(k, zone, start_pfn, end_pfn, timeout)
        page_alloc.drain_all_pages(k, zone)
        hugetlb.dissolve_free_huge_pages(k, start_pfn, end_pfn)
        try:
            offlined_pages = check_pages_isolated(k, start_pfn, end_pfn)
        except KernelError as err:
            raise KernelError(EBUSY, err.reason, pfn=err.facts["pfn"]) from err
    except KernelError:
        memory.memory_notify(k, MEM_CANCEL_OFFLINE, arg)
        page_isolation.undo_isolate_page_range(k, start_pfn, end_pfn, MIGRATE_MOVABLE)
        raise
    printk(k.log, f"Offlined Pages {offlined_pages}")
    offline_isolated_pages(k, start_pfn, end_pfn)
    page_isolation.undo_isolate_page_range(k, start_pfn, end_pfn, MIGRATE_MOVABLE)
    page_alloc.adjust_managed_page_count(k, start_pfn, -offlined_pages)
    zone.present_pages -= offlined_pages
    k.nodes[node].node_present_pages -= offlined_pages
    page_alloc.init_per_zone_wmark_min(k)
    if not mmzone.populated_zone(zone):
        page_alloc.zone_pcp_reset(zone)
        page_alloc.lock_zonelists(k)
        page_alloc.build_all_zonelists(k, None, None)
        page_alloc.unlock_zonelists(k)
    else:
        page_alloc.zone_pcp_update(k, zone)
    node_states_clear_node(k, node, arg)
    k.vm_total_pages = page_alloc.nr_free_pagecache_pages(k)
    memory.memory_notify(k, MEM_OFFLINE, arg)


def _empty_range(k: Kernel, zone: Zone, start_pfn: int, end_pfn: int, timeout: int) -> None:
    """
    The loop of __offline_pages(): look for movable pages, and move them, until there are none.

    If a round moved nothing, the following ones will not either; then only the time-out or a signal ends it.

    Raises:
        KernelError: EAGAIN, EINTR; EBUSY or ENOMEM the fifth time.

    Source: mm/memory_hotplug.c __offline_pages() [v4.9]
    """
    retry_max = 5
    drain = False
    while True:
        if sched.signal_pending(k.tasks):
            raise KernelError(EINTR, "a signal is pending", pfn=start_pfn)
        if drain:
            page_alloc.drain_all_pages(k, zone)
        pfn = scan_movable_pages(k, start_pfn, end_pfn)
        if pfn is None:
            return
        moved = k.pgmigrate_success
        ret = do_migrate_range(k, pfn, end_pfn)
        drain = True
        if ret < 0:
            retry_max -= 1
            if not retry_max:
                raise KernelError(-ret, _why_not_moved(k, pfn, end_pfn, -ret), pfn=pfn)
        elif ret and moved == k.pgmigrate_success:
            if k.tasks.current not in k.tasks.patience:
                raise KernelError(EAGAIN, f"{_why_not_moved(k, pfn, end_pfn, EBUSY)}, for {timeout} seconds", pfn=pfn)
            sched.wait_for_signal(k.tasks, "")


def _why_not_moved(k: Kernel, pfn: int, end_pfn: int, errno: int) -> str:
    """What is in the way of moving pages, in words. Source: none"""
    if errno == ENOMEM:
        return f"there is no memory to move page {pfn:#x} to"
    return f"page {pfn:#x} or one behind it, below {end_pfn:#x}, does not move"


# What sysfs asks


def is_mem_section_removable(k: Kernel, start_pfn: int, nr_pages: int) -> bool:
    """
    Whether every pageblock of a range looks as if its pages could be moved away.

    Source: mm/memory_hotplug.c is_mem_section_removable() [v4.9]
    """
    section = k.mem_section[start_pfn >> k.PFN_SECTION_SHIFT]
    uniform = section.pageblock_flags == mmzone.MIGRATE_MOVABLE and section.memmap is not None
    if uniform and nr_pages == k.PAGES_PER_SECTION and section.memmap is not None:
        zone_idx, nid = section.memmap.uniform(ZONE), section.memmap.uniform(NODE)
        if zone_idx is not None and nid is not None:
            zone = k.zone(nid, zone_idx)
            last_block = start_pfn + nr_pages - k.pageblock_nr_pages
            inside = mmzone.zone_spans_pfn(zone, start_pfn) and mmzone.zone_spans_pfn(zone, last_block)
            return inside and nid in k.node_states[N_ONLINE]
    pfn = start_pfn
    while pfn < start_pfn + nr_pages:
        if not page_alloc.is_pageblock_removable_nolock(k, pfn):
            return False
        pfn = next_active_pageblock(k, pfn)
    return True


def next_active_pageblock(k: Kernel, pfn: int) -> int:
    """
    Return the first pfn after a pageblock, or after the free block that begins with it.

    Source: mm/memory_hotplug.c next_active_pageblock() [v4.9]
    """
    BUG_ON(k.log, pfn & (k.pageblock_nr_pages - 1))
    order = page_alloc.page_order(k, pfn)
    return pfn + (1 << order if order >= k.pageblock_order else k.pageblock_nr_pages)


def test_pages_in_a_zone(k: Kernel, start_pfn: int, end_pfn: int) -> bool:
    """
    Whether the pages of a range have links to one zone; only one page of each MAX_ORDER block is looked at.

    Later C answers with the zone, which here its caller finds out.

    Source: mm/memory_hotplug.c test_pages_in_a_zone() [v4.9, v5.10]
    """
    if k.tree.zones_chosen_at_online:
        return _test_pages_in_a_zone_v5_10(k, start_pfn, end_pfn) is not None
    return _test_pages_in_a_zone_v4_9(k, start_pfn, end_pfn)


def _test_pages_in_a_zone_v5_10(k: Kernel, start_pfn: int, end_pfn: int) -> Zone | None:
    """
    Return the zone that all pages of a range have links to and that spans them; None if there is none, or no page.

    Source: mm/memory_hotplug.c test_pages_in_a_zone() [v5.10]
    """
    zone: Zone | None = None
    step = 1 << (k.MAX_ORDER - 1)
    pfn = start_pfn
    while pfn < end_pfn:
        sec_end_pfn = (pfn // k.PAGES_PER_SECTION + 1) * k.PAGES_PER_SECTION
        if mmzone.present_section_nr(k, mmzone.pfn_to_section_nr(k, pfn)):
            whole = _one_zone(k, pfn)
            while pfn < sec_end_pfn and pfn < end_pfn:
                first = pfn
                if k.config.HOLES_IN_ZONE:
                    first = next((s for s, _, ok in page_alloc._within_runs(k, pfn, pfn + step) if ok), -1)
                if 0 <= first < end_pfn:
                    if zone is not None and not mmzone.zone_spans_pfn(zone, first):
                        return None
                    page_zone = mm.page_zone(k, first)
                    if zone is not None and page_zone is not zone:
                        return None
                    zone = page_zone
                pfn = sec_end_pfn if whole else pfn + step
        pfn = sec_end_pfn
    return zone


def _test_pages_in_a_zone_v4_9(k: Kernel, start_pfn: int, end_pfn: int) -> bool:
    """
    That page is a block's second: for an aligned range the first pass of the loop is empty, and each further pass begins one
    page behind a section's start.

    Source: mm/memory_hotplug.c test_pages_in_a_zone() [v4.9]
    """
    zone: Zone | None = None
    step = 1 << (k.MAX_ORDER - 1)
    pfn = start_pfn
    sec_end_pfn = -(-start_pfn // k.PAGES_PER_SECTION) * k.PAGES_PER_SECTION
    while pfn < end_pfn:
        if mmzone.present_section_nr(k, mmzone.pfn_to_section_nr(k, pfn)):
            whole = _one_zone(k, pfn)
            while pfn < sec_end_pfn and pfn < end_pfn:
                first = pfn
                if k.config.HOLES_IN_ZONE:
                    first = next((s for s, _, ok in page_alloc._within_runs(k, pfn, pfn + step) if ok), -1)
                if first >= 0:
                    page_zone = mm.page_zone(k, first)
                    if zone is not None and page_zone is not zone:
                        return False
                    zone = page_zone
                pfn = sec_end_pfn if whole else pfn + step
        pfn = sec_end_pfn + 1
        sec_end_pfn += k.PAGES_PER_SECTION
    return True


def _one_zone(k: Kernel, pfn: int) -> bool:
    """Whether it is known at a glance that all pages of a section have the same links. Source: none"""
    memmap = k.mem_section[pfn >> k.PFN_SECTION_SHIFT].memmap
    return (
        not k.config.HOLES_IN_ZONE and memmap is not None
        and memmap.uniform(ZONE) is not None and memmap.uniform(NODE) is not None)
