# SPDX-License-Identifier: GPL-2.0-only
"""
Booting memory: nodes and zones are sized from memblock, every struct page is initialised, CMA and the free pages go to the buddy.

The parts. `free_area_init()` gives each node its zones: the architecture says up to which pfn a zone may reach, memblock which
pages there are, `kernelcore=` and `movablecore=` where ZONE_MOVABLE begins. `memmap_init()` initialises the struct pages of what
memblock calls memory, NOMAP or not; those of holes in between are initialised as reserved and belong to the zone around them. A
zone that is populated and spans a hole is normal: arm64's flash at 64 MiB and RAM from 1 GiB on are one ZONE_DMA.

The C kernel initialises most struct pages of a node later, in a thread (DEFERRED_STRUCT_PAGE_INIT); once it runs nobody can tell.

Until v6.4 these functions stood in mm/page_alloc.c.

Source: mm/mm_init.c [v6.12]; mm/page_alloc.c [v5.10, v6.1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.bug import printk
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memblock import (
    MemblockRegion,
    memblock_is_hotpluggable,
    memblock_is_mirror,
    memblock_region_memory_base_pfn,
    memblock_region_memory_end_pfn,
)
from memhp.linux.include.memory_model import page_ranges_rw
from memhp.linux.include.memremap import VmemAltmap, vmem_altmap_offset
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.mmzone import (
    MEMINIT_EARLY,
    MEMINIT_HOTPLUG,
    MIGRATE_CMA,
    MIGRATE_MOVABLE,
    N_MEMORY,
    N_NORMAL_MEMORY,
    PglistData,
    Zone,
)
from memhp.linux.include.page_flags import PG_OFFLINE, PG_RESERVED, ClearPageReserved, SetPageReserved
from memhp.linux.mm import memblock, page_alloc, sparse

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

Span = tuple[int, int]
"""Pfns [start, end)."""


def clamp(value: int, low: int, high: int) -> int:
    """Source: include/linux/minmax.h clamp()"""
    return max(low, min(value, high))


# Where ZONE_MOVABLE begins


def cmdline_parse_core(k: Kernel, p: str) -> tuple[int, int]:
    """
    Read `kernelcore=` or `movablecore=`: (pages, percent), one of them 0.

    Source: mm/mm_init.c cmdline_parse_core() [all]
    """
    coremem, rest = memblock._memparse(p)
    if rest.startswith("%"):
        return 0, coremem
    return coremem >> k.PAGE_SHIFT, 0


def early_calculate_totalpages(k: Kernel) -> tuple[int, list[int]]:
    """Return all pages and the nodes that have some. Source: mm/mm_init.c early_calculate_totalpages() [all]"""
    ranges = list(memblock.for_each_mem_pfn_range(k))
    return sum(end - start for start, end, _ in ranges), sorted({_nid(nid) for _, _, nid in ranges})


def _nid(nid: int) -> int:
    """The node of a range; without NUMA there is one. Source: none"""
    return nid if memblock._numa_valid_node(nid) else 0


def find_usable_zone_for_movable(k: Kernel, lowest: list[int], highest: list[int]) -> int:
    """Return the highest zone there can be pages in. Source: mm/mm_init.c find_usable_zone_for_movable() [all]"""
    return max(i for i in range(len(lowest)) if i != k.ZONE_MOVABLE and highest[i] > lowest[i])


def find_zone_movable_pfns_for_nodes(k: Kernel, lowest: int) -> dict[int, int]:
    """
    Find where ZONE_MOVABLE begins in each node; nodes without one are left out.

    `movable_node` gives it what firmware calls hot-pluggable. `kernelcore=` spreads that much over the nodes for the kernel and
    gives it the rest; `movablecore=` says the same from the other end. Its start is rounded up to the largest free block.

    Args:
        lowest: First pfn of the highest zone that has pages: what lies below is the kernel's.

    Source: mm/mm_init.c find_zone_movable_pfns_for_nodes() [all]
    """
    zone_movable_pfn: dict[int, int] = {}
    if memblock._movable_node_is_enabled(k):
        _first_of(k, zone_movable_pfn, [r for r in memblock.for_each_mem_region(k) if memblock_is_hotpluggable(r)])
        return _aligned(k, zone_movable_pfn)
    if memblock._mirrored_kernelcore(k):
        if not memblock.memblock_has_mirror(k):
            printk(k.log, "The system has no mirror memory, ignore kernelcore=mirror.")
            return {}
        regions = [r for r in memblock.for_each_mem_region(k) if not memblock_is_mirror(r)]
        high = [r for r in regions if memblock_region_memory_base_pfn(k, r) >= 1 << 32 - k.PAGE_SHIFT]
        _first_of(k, zone_movable_pfn, high)
        if len(high) < len(regions):
            printk(k.log, "This configuration results in unmirrored kernel memory.")
        return _aligned(k, zone_movable_pfn)
    totalpages, nids = early_calculate_totalpages(k)
    required_kernelcore, percent = cmdline_parse_core(k, k.cmdline.get("kernelcore", ""))
    if percent:
        required_kernelcore = totalpages * 100 * percent // 10000
    required_movablecore, percent = cmdline_parse_core(k, k.cmdline.get("movablecore", ""))
    if percent:
        required_movablecore = totalpages * 100 * percent // 10000
    if required_movablecore:
        block = _max_order_nr_pages(k)
        required_movablecore = min(totalpages, -(-required_movablecore // block) * block)
        required_kernelcore = max(required_kernelcore, totalpages - required_movablecore)
    if not required_kernelcore or required_kernelcore >= totalpages:
        return {}
    usable_nodes = len(nids)
    while True:
        required_kernelcore = _spread_kernelcore(k, zone_movable_pfn, nids, usable_nodes, required_kernelcore, lowest)
        usable_nodes -= 1
        if not usable_nodes or required_kernelcore <= usable_nodes:
            return _aligned(k, zone_movable_pfn)


def _first_of(k: Kernel, zone_movable_pfn: dict[int, int], regions: list[MemblockRegion]) -> None:
    """Note the lowest pfn of each node's regions. Source: mm/mm_init.c find_zone_movable_pfns_for_nodes()"""
    for r in regions:
        nid, pfn = _nid(r.nid), memblock_region_memory_base_pfn(k, r)
        zone_movable_pfn[nid] = min(pfn, zone_movable_pfn.get(nid) or pfn)


def _spread_kernelcore(
    k: Kernel, zone_movable_pfn: dict[int, int], nids: list[int], usable_nodes: int, required_kernelcore: int,
    usable_startpfn: int,
) -> int:
    """
    One pass over the nodes, each taking its share of what the kernel must have; returns what no node had room for.

    Source: mm/mm_init.c find_zone_movable_pfns_for_nodes() from the label `restart` on
    """
    kernelcore_node = required_kernelcore // usable_nodes
    for nid in nids:
        if required_kernelcore < kernelcore_node:
            kernelcore_node = required_kernelcore // usable_nodes
        kernelcore_remaining = kernelcore_node
        for start_pfn, end_pfn, _ in _node_ranges(k, nid):
            start_pfn = max(start_pfn, zone_movable_pfn.get(nid, 0))
            if start_pfn >= end_pfn:
                continue
            if start_pfn < usable_startpfn:
                kernel_pages = min(end_pfn, usable_startpfn) - start_pfn
                kernelcore_remaining -= min(kernel_pages, kernelcore_remaining)
                required_kernelcore -= min(kernel_pages, required_kernelcore)
                if end_pfn <= usable_startpfn:
                    zone_movable_pfn[nid] = end_pfn
                    continue
                start_pfn = usable_startpfn
            size_pages = min(end_pfn - start_pfn, kernelcore_remaining)
            zone_movable_pfn[nid] = start_pfn + size_pages
            required_kernelcore -= min(required_kernelcore, size_pages)
            kernelcore_remaining -= size_pages
            if not kernelcore_remaining:
                break
    return required_kernelcore


def _aligned(k: Kernel, zone_movable_pfn: dict[int, int]) -> dict[int, int]:
    """Round up to largest blocks; a node that ends before has none. Source: find_zone_movable_pfns_for_nodes(), label `out2`"""
    block = _max_order_nr_pages(k)
    rounded = {nid: -(-pfn // block) * block for nid, pfn in zone_movable_pfn.items()}
    return {nid: pfn for nid, pfn in rounded.items() if pfn and pfn < get_pfn_range_for_nid(k, nid)[1]}


def _max_order_nr_pages(k: Kernel) -> int:
    """MAX_ORDER_NR_PAGES: pages of the largest free block. Source: none; include/linux/mmzone.h"""
    return 1 << k.MAX_ORDER - 1


# Sizing zones


def _node_ranges(k: Kernel, nid: int) -> list[tuple[int, int, int]]:
    """for_each_mem_pfn_range() of one node. Source: none"""
    return [(start, end, owner) for start, end, owner in memblock.for_each_mem_pfn_range(k) if _nid(owner) == nid]


def get_pfn_range_for_nid(k: Kernel, nid: int) -> Span:
    """Return first and last+1 pfn of a node's memory; (0, 0) if it has none. Source: get_pfn_range_for_nid() [all]"""
    ranges = _node_ranges(k, nid)
    return min((r[0] for r in ranges), default=0), max((r[1] for r in ranges), default=0)


def adjust_zone_range_for_zone_movable(
    k: Kernel, nid: int, zone_type: int, node_end_pfn: int, zone: Span, movable: dict[int, int], highest: int,
) -> Span:
    """
    Cut a zone's range where ZONE_MOVABLE begins.

    Args:
        zone: The range so far.
        movable: Where ZONE_MOVABLE begins, by node.
        highest: Where the zone ends that ZONE_MOVABLE takes from.

    Source: mm/mm_init.c adjust_zone_range_for_zone_movable() [all]
    """
    start, end = zone
    first = movable.get(nid, 0)
    if not first:
        return zone
    if zone_type == k.ZONE_MOVABLE:
        return first, min(node_end_pfn, highest)
    if not memblock._mirrored_kernelcore(k) and start < first < end:
        return start, first
    if start >= first:
        return end, end
    return zone


def __absent_pages_in_range(k: Kernel, nid: int, range_start_pfn: int, range_end_pfn: int) -> int:
    """Count the pfns of a range that no memory of the node covers. Source: mm/mm_init.c __absent_pages_in_range() [all]"""
    nr_absent = range_end_pfn - range_start_pfn
    for start, end, _ in _node_ranges(k, nid):
        nr_absent -= clamp(end, range_start_pfn, range_end_pfn) - clamp(start, range_start_pfn, range_end_pfn)
    return nr_absent


def zone_absent_pages_in_node(k: Kernel, nid: int, zone_type: int, zone: Span, movable: dict[int, int]) -> int:
    """
    Count the holes of a zone's range. With kernelcore=mirror Normal and Movable overlap, and each misses what the other has.

    Source: mm/mm_init.c zone_absent_pages_in_node() [all]
    """
    start, end = zone
    if start == end:
        return 0
    nr_absent = __absent_pages_in_range(k, nid, start, end)
    if memblock._mirrored_kernelcore(k) and movable.get(nid):
        for r in memblock.for_each_mem_region(k):
            low, high = memblock_region_memory_base_pfn(k, r), memblock_region_memory_end_pfn(k, r)
            if zone_type == (k.ZONE_MOVABLE if memblock_is_mirror(r) else k.ZONE_NORMAL):
                nr_absent += clamp(high, start, end) - clamp(low, start, end)
    return nr_absent


def zone_spanned_pages_in_node(
    k: Kernel, nid: int, zone_type: int, node: Span, lowest: list[int], highest: list[int], movable: dict[int, int],
    movable_zone: int,
) -> Span:
    """
    Return the pfns a zone spans on a node; equal ends if it has none.

    Source: mm/mm_init.c zone_spanned_pages_in_node() [all]
    """
    node_start_pfn, node_end_pfn = node
    low, high = lowest[zone_type], highest[zone_type]
    zone = (clamp(node_start_pfn, low, high), clamp(node_end_pfn, low, high))
    start, end = adjust_zone_range_for_zone_movable(k, nid, zone_type, node_end_pfn, zone, movable, highest[movable_zone])
    if end < node_start_pfn or start > node_end_pfn:
        return start, start
    return max(start, node_start_pfn), min(end, node_end_pfn)


def calculate_node_totalpages(
    k: Kernel, pgdat: PglistData, node: Span, lowest: list[int], highest: list[int], movable: dict[int, int], movable_zone: int,
) -> None:
    """Size the zones of a node. Source: mm/mm_init.c calculate_node_totalpages() [all]"""
    nid = pgdat.node_id
    for zone in pgdat.node_zones:
        span = zone_spanned_pages_in_node(k, nid, zone.idx, node, lowest, highest, movable, movable_zone)
        zone.spanned_pages = span[1] - span[0]
        zone.zone_start_pfn = span[0] if zone.spanned_pages else 0
        zone.present_pages = zone.spanned_pages - zone_absent_pages_in_node(k, nid, zone.idx, span, movable)
        zone.present_early_pages = zone.present_pages
    pgdat.node_spanned_pages = node[1] - node[0]
    pgdat.node_present_pages = sum(zone.present_pages for zone in pgdat.node_zones)


def reset_memoryless_node_totalpages(pgdat: PglistData) -> None:
    """Source: mm/mm_init.c reset_memoryless_node_totalpages() [v6.12]"""
    for zone in pgdat.node_zones:
        zone.zone_start_pfn = zone.spanned_pages = zone.present_pages = zone.present_early_pages = 0
    pgdat.node_spanned_pages = pgdat.node_present_pages = 0


def free_area_init_core(k: Kernel, pgdat: PglistData) -> None:
    """
    Make the zones of a node usable. Until memblock hands over, what is present counts as managed.

    Source: mm/mm_init.c free_area_init_core() [v6.12]
    """
    for zone in pgdat.node_zones:
        zone.managed_pages = zone.present_pages
        if k.tree.boot_guesses_managed:
            memmap_pages = page_alloc.calc_memmap_size(k, zone.spanned_pages, zone.present_pages)
            zone.managed_pages -= memmap_pages if zone.present_pages >= memmap_pages else 0
        if zone.spanned_pages:
            page_alloc.init_currently_empty_zone(k, zone, zone.zone_start_pfn, zone.spanned_pages)


def free_area_init_node(
    k: Kernel, nid: int, lowest: list[int], highest: list[int], movable: dict[int, int], movable_zone: int,
) -> None:
    """Set up a node. Source: mm/mm_init.c free_area_init_node() [all]"""
    pgdat = k.nodes[nid]
    start_pfn, end_pfn = get_pfn_range_for_nid(k, nid)
    pgdat.node_start_pfn = start_pfn
    if start_pfn != end_pfn:
        last = (end_pfn << k.PAGE_SHIFT) - 1
        printk(k.log, f"Initmem setup node {nid} [mem {start_pfn << k.PAGE_SHIFT:#018x}-{last:#018x}]")
        calculate_node_totalpages(k, pgdat, (start_pfn, end_pfn), lowest, highest, movable, movable_zone)
    else:
        printk(k.log, f"Initmem setup node {nid} as memoryless")
        reset_memoryless_node_totalpages(pgdat)
    free_area_init_core(k, pgdat)


def check_for_memory(k: Kernel, pgdat: PglistData) -> None:
    """Note that a node has memory the kernel may use. Source: mm/mm_init.c check_for_memory() [all]"""
    if any(mmzone.populated_zone(zone) for zone in pgdat.node_zones[: k.ZONE_MOVABLE]):
        k.node_states[N_NORMAL_MEMORY] |= {pgdat.node_id}


def free_area_init(k: Kernel, max_zone_pfn: list[int]) -> None:
    """
    Give every node its zones, and every struct page its links.

    Args:
        max_zone_pfn: Up to which pfn each zone may reach, lowest zone first; 0 for zones that the architecture does not size.

    Source: mm/mm_init.c free_area_init() [v6.12]
    """
    lowest, highest = [0] * len(max_zone_pfn), [0] * len(max_zone_pfn)
    start_pfn = memblock.memblock_start_of_DRAM(k) >> k.PAGE_SHIFT
    for zone, limit in enumerate(max_zone_pfn):
        if zone != k.ZONE_MOVABLE:
            lowest[zone], highest[zone] = start_pfn, max(limit, start_pfn)
            start_pfn = highest[zone]
    movable_zone = find_usable_zone_for_movable(k, lowest, highest)
    movable = find_zone_movable_pfns_for_nodes(k, lowest[movable_zone])
    printk(k.log, "Zone ranges:")
    for zone, name in enumerate(k.config.zones):
        if zone != k.ZONE_MOVABLE:
            last = (highest[zone] << k.PAGE_SHIFT) - 1
            there = f"[mem {lowest[zone] << k.PAGE_SHIFT:#018x}-{last:#018x}]" if highest[zone] > lowest[zone] else "empty"
            printk(k.log, f"  {name:<8} {there}")
    printk(k.log, "Movable zone start for each node")
    for nid, pfn in sorted(movable.items()):
        printk(k.log, f"  Node {nid}: {pfn << k.PAGE_SHIFT:#018x}")
    printk(k.log, "Early memory node ranges")
    for start_pfn, end_pfn, nid in memblock.for_each_mem_pfn_range(k):
        last = (end_pfn << k.PAGE_SHIFT) - 1
        printk(k.log, f"  node {_nid(nid):3}: [mem {start_pfn << k.PAGE_SHIFT:#018x}-{last:#018x}]")
        sparse.subsection_map_init(k, start_pfn, end_pfn - start_pfn)
    for nid in sorted(k.nodes):
        free_area_init_node(k, nid, lowest, highest, movable, movable_zone)
        if k.nodes[nid].node_present_pages:
            k.node_states[N_MEMORY] |= {nid}
            check_for_memory(k, k.nodes[nid])
    memmap_init(k)


# The struct pages


def memmap_init_range(
    k: Kernel, size: int, nid: int, zone: int, start_pfn: int, zone_end_pfn: int, context: str, altmap: VmemAltmap | None,
    migratetype: int,
) -> None:
    """
    Initialise the struct pages of a range: nobody asks pfn_valid().

    Args:
        size: Pages.
        zone: Index of the zone.
        zone_end_pfn: Where the zone ends, for deferred initialisation, which the model does not do.
        context: MEMINIT_HOTPLUG marks every page reserved, since v6.11 PageOffline.
        altmap: Of ZONE_DEVICE memory: only the pages it sets aside are initialised here.
        migratetype: Of every pageblock that begins in the range.

    Source: mm/mm_init.c memmap_init_range() [v5.12, v6.12]; memmap_init_zone() before
    """
    end_pfn = start_pfn + size
    if k.highest_memmap_pfn < end_pfn - 1:
        k.highest_memmap_pfn = end_pfn - 1
    device = k.config.zones[zone] == "Device"
    if device:
        if altmap is None:
            return
        if start_pfn == altmap.base_pfn:
            start_pfn += altmap.reserve
        end_pfn = altmap.base_pfn + vmem_altmap_offset(altmap)
    page_alloc._not_early(k, start_pfn, end_pfn, zone, nid, migratetype)
    if context == MEMINIT_HOTPLUG:
        flag = PG_OFFLINE if k.tree.hotplug_pages_offline and not device else PG_RESERVED
        for columns, start, end, _ in page_ranges_rw(k, start_pfn, end_pfn - start_pfn):
            columns.set_bits(FLAGS, start, end, flag)


def init_unavailable_range(k: Kernel, spfn: int, epfn: int, zone: int, node: int) -> None:
    """
    Initialise the struct pages of a hole, where there are any, as reserved ones.

    Source: mm/mm_init.c init_unavailable_range() [v6.12]
    """
    pgcnt = 0
    blocks = k.pageblock_nr_pages
    first = spfn - spfn % blocks
    for start, end, valid in _valid_blocks(k, first, -(-epfn // blocks) * blocks):
        if not valid:
            continue
        start, end = max(start, spfn), min(end, epfn)
        page_alloc.__init_single_page(k, start, end - start, zone, node)
        SetPageReserved(k, start, end - start)
        pgcnt += end - start
    if pgcnt:
        printk(k.log, f"On node {node}, zone {k.config.zones[zone]}: {pgcnt} pages in unavailable ranges")


def _valid_blocks(k: Kernel, start: int, end: int) -> list[tuple[int, int, bool]]:
    """pfn_valid() of the first page of each pageblock in [start, end), as runs that end where pageblocks do. Source: none"""
    blocks = k.pageblock_nr_pages
    runs: list[tuple[int, int, bool]] = []
    for low, high, valid in mmzone.pfn_valid_runs(k, start, end):
        first, last = -(-low // blocks) * blocks, -(-high // blocks) * blocks
        if first < last:
            runs.append((first, last, valid))
    return runs


def memmap_init_zone_range(k: Kernel, zone: Zone, start_pfn: int, end_pfn: int, hole_pfn: int) -> int:
    """
    Initialise the part of a range of memory that a zone spans, and the hole before it; returns where the next hole begins.

    Source: mm/mm_init.c memmap_init_zone_range() [v6.12]
    """
    zone_start_pfn, zone_end_pfn = zone.zone_start_pfn, mmzone.zone_end_pfn(zone)
    start_pfn, end_pfn = clamp(start_pfn, zone_start_pfn, zone_end_pfn), clamp(end_pfn, zone_start_pfn, zone_end_pfn)
    if start_pfn >= end_pfn:
        return hole_pfn
    size = end_pfn - start_pfn
    memmap_init_range(k, size, zone.nid, zone.idx, start_pfn, zone_end_pfn, MEMINIT_EARLY, None, MIGRATE_MOVABLE)
    if hole_pfn < start_pfn:
        init_unavailable_range(k, hole_pfn, start_pfn, zone.idx, zone.nid)
    return end_pfn


def memmap_init(k: Kernel) -> None:
    """
    Initialise the struct pages of all boot memory, holes included.

    What is left of the last section belongs to the highest zone of the last node.

    Source: mm/mm_init.c memmap_init() [v6.12]
    """
    hole_pfn = end_pfn = zone_id = nid = 0
    for start_pfn, end_pfn, owner in memblock.for_each_mem_pfn_range(k):
        nid = _nid(owner)
        for zone in k.nodes[nid].node_zones:
            if mmzone.populated_zone(zone):
                hole_pfn = memmap_init_zone_range(k, zone, start_pfn, end_pfn, hole_pfn)
                zone_id = zone.idx
    end_pfn = -(-end_pfn // k.PAGES_PER_SECTION) * k.PAGES_PER_SECTION
    if hole_pfn < end_pfn:
        init_unavailable_range(k, hole_pfn, end_pfn, zone_id, nid)


def reserve_bootmem_region(k: Kernel, start: int, end: int, nid: int) -> None:
    """
    Mark the pages that bytes [start, end) touch as reserved, where they have a struct page.

    Source: mm/mm_init.c reserve_bootmem_region() [v6.12]
    """
    page_alloc.reserve_bootmem_region(k, start, end)


def memblock_free_pages(k: Kernel, start_pfn: int, end_pfn: int) -> None:
    """Hand pages of boot memory to the page allocator. Source: mm/mm_init.c memblock_free_pages() [all]"""
    for start, end in page_alloc._zone_pieces(k, start_pfn, end_pfn):
        page_alloc.__free_pages_core(k, start, end - start, MEMINIT_EARLY)


def init_cma_reserved_pageblock(k: Kernel, pfn: int) -> None:
    """Give a reserved pageblock to CMA, and its pages to the buddy. Source: mm/mm_init.c init_cma_reserved_pageblock() [all]"""
    nr_pages = k.pageblock_nr_pages
    ClearPageReserved(k, pfn, nr_pages)
    mm.set_page_count(k, pfn, nr_pages, 0)
    page_alloc.set_pageblock_migratetype(k, pfn, MIGRATE_CMA)
    page_alloc.__free_pages(k, pfn, k.pageblock_order)
    page_alloc.adjust_managed_page_count(k, pfn, nr_pages)
    mm.page_zone(k, pfn).cma_pages += nr_pages

