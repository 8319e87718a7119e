# SPDX-License-Identifier: GPL-2.0-only
"""
Memory hot-add and onlining.

The parts. *Adding* makes memory known: a resource, a memblock region, the architecture's linear mapping, sections with their
memmaps, a zone, a memory block device in state offline. *Onlining* hands the block's pages to the page allocator. In v4.9 the
zone is chosen when memory is added and can be shifted when it goes online; from v4.13 on it is chosen at online.

What decides this package's story lies here: `__add_section()` asks pfn_valid() before there is a memmap and wants "no";
`__add_zone()` asks it afterwards and wants "yes"; and `__add_pages()` takes -EEXIST for success.

Locks: mem_hotplug.lock (mem_hotplug_begin()) around adding and onlining, device_hotplug_lock around writes to `state`.

Source: mm/memory_hotplug.c [v4.9].
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOMEM, EPERM
from functools import partial
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux import sched
from memhp.linux.bug import BUG_ON, printk, printk_once
from memhp.linux.drivers.base import memory, node
from memhp.linux.drivers.firmware import memmap as firmware_memmap
from memhp.linux.include import mm, mmzone
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM, Resource
from memhp.linux.include.memory import MEM_CANCEL_ONLINE, MEM_GOING_ONLINE, MEM_OFFLINE, MEM_ONLINE, MemoryBlock, MemoryNotify
from memhp.linux.include.memory_hotplug import MMOP_ONLINE_KERNEL, MMOP_ONLINE_MOVABLE, MhpParams
from memhp.linux.include.memremap import VmemAltmap, vmem_altmap_offset
from memhp.linux.include.mm_types import NODE, ZONE
from memhp.linux.include.mmzone import N_MEMORY, N_NORMAL_MEMORY, N_ONLINE, PglistData, Zone
from memhp.linux.include.notifier import notifier_to_errno
from memhp.linux.include.page_flags import PageReserved, SetPageReserved
from memhp.linux.kernel import resource
from memhp.linux.mm import memblock, page_alloc, sparse

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


def mhp_get_pluggable_range(k: Kernel, need_mapping: bool) -> tuple[int, int]:
    """
    Return the first and the last byte that memory can be added at.

    Args:
        need_mapping: It must be reachable through the linear map.

    Source: mm/memory_hotplug.c mhp_get_pluggable_range() [v5.12]
    """
    last = (1 << k.MAX_PHYSMEM_BITS) - 1
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
    Refuse a range that is not made of whole sections.

    Raises:
        KernelError: EINVAL.

    Source: mm/memory_hotplug.c check_hotplug_memory_range() [v4.9]
    """
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


def register_memory_resource(k: Kernel, start: int, size: int) -> Resource:
    """
    Enter the range as "System RAM" into the resource tree.

    Raises:
        KernelError: EEXIST if anything is there.

    Source: mm/memory_hotplug.c register_memory_resource() [v4.9]
    """
    res = Resource(start, start + size - 1, "System RAM", IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY)
    try:
        resource.request_resource(k, k.iomem_rw(), res)
    except KernelError as err:
        raise KernelError(
            EEXIST, f"System RAM {start:#x}-{start + size - 1:#x} cannot be entered into /proc/iomem: {err.reason}",
            start=start, size=size) from err
    return res


def online_memory_block(k: Kernel, mem: MemoryBlock) -> None:
    """Source: mm/memory_hotplug.c online_memory_block() [v4.9]"""
    memory.memory_block_change_state(k, mem, MEM_ONLINE, MEM_OFFLINE)


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


def add_memory_resource(k: Kernel, nid: int, res: Resource, online: bool) -> None:
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


def add_memory(k: Kernel, nid: int, start: int, size: int) -> None:
    """
    Add [start, start + size) to a node, and online it if that is the default.

    Args:
        nid: NUMA node.
        start: First byte; a multiple of the section size.
        size: Bytes; a multiple of the section size, not 0.

    Raises:
        KernelError: EEXIST if the range runs into another resource; EINVAL, ENOMEM and what the architecture says.

    Source: mm/memory_hotplug.c add_memory() [v4.9]
    """
    res = register_memory_resource(k, start, size)
    try:
        add_memory_resource(k, nid, res, k.memhp_auto_online)
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

    Source: mm/memory_hotplug.c generic_online_page() [v4.9], which is called once for each page
    """
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


def online_pages(k: Kernel, pfn: int, nr_pages: int, online_type: int) -> None:
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
