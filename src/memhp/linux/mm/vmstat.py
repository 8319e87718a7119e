# SPDX-License-Identifier: GPL-2.0-only
"""
Counters of zones and nodes, and the files that show them.

Source: mm/vmstat.c [v4.9].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memhp.linux.include import mm, mmzone
from memhp.linux.include.mm_types import KIND, NODE, ZONE
from memhp.linux.include.mmzone import MIGRATE_NAMES, MemSection, Zone
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_FILE,
    KIND_KERNEL,
    KIND_NONE,
    KIND_PAGE_TABLE,
    KIND_SLAB,
    KIND_STACK,
)

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

_ZONE_ITEMS = (
    "nr_free_pages", "nr_zone_inactive_anon", "nr_zone_active_anon", "nr_zone_inactive_file", "nr_zone_active_file",
    "nr_zone_unevictable", "nr_zone_write_pending", "nr_mlock", "nr_slab_reclaimable", "nr_slab_unreclaimable",
    "nr_page_table_pages", "nr_kernel_stack", "nr_bounce",
)
_NUMA_ITEMS = ("numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other")
_NODE_ITEMS = (
    "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable", "nr_isolated_anon",
    "nr_isolated_file", "nr_pages_scanned", "workingset_refault", "workingset_activate", "workingset_nodereclaim",
    "nr_anon_pages", "nr_mapped", "nr_file_pages", "nr_dirty", "nr_writeback", "nr_writeback_temp", "nr_shmem",
    "nr_shmem_hugepages", "nr_shmem_pmdmapped", "nr_anon_transparent_hugepages", "nr_unstable", "nr_vmscan_write",
    "nr_vmscan_immediate_reclaim", "nr_dirtied", "nr_written",
)


# Since v5.10. What v6.1 and v6.12 have more stands between the parts.
_NODE_ITEMS_V5_10 = (
    "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable", "nr_slab_reclaimable",
    "nr_slab_unreclaimable", "nr_isolated_anon", "nr_isolated_file", "workingset_nodes", "workingset_refault_anon",
    "workingset_refault_file", "workingset_activate_anon", "workingset_activate_file", "workingset_restore_anon",
    "workingset_restore_file", "workingset_nodereclaim", "nr_anon_pages", "nr_mapped", "nr_file_pages", "nr_dirty",
    "nr_writeback", "nr_writeback_temp", "nr_shmem", "nr_shmem_hugepages", "nr_shmem_pmdmapped", "nr_file_hugepages",
    "nr_file_pmdmapped", "nr_anon_transparent_hugepages", "nr_vmscan_write", "nr_vmscan_immediate_reclaim", "nr_dirtied",
    "nr_written",
)
_NODE_ITEMS_LAST = ("nr_kernel_misc_reclaimable", "nr_foll_pin_acquired", "nr_foll_pin_released", "nr_kernel_stack")
_PAGE_TABLES = ("nr_page_table_pages", "nr_sec_page_table_pages")
_PROMOTIONS = ("nr_swapcached", "pgpromote_success", "pgpromote_candidate")
_DEMOTIONS = ("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged")
_ZONE_ITEMS_TODAY = (
    "nr_free_pages", "nr_zone_inactive_anon", "nr_zone_active_anon", "nr_zone_inactive_file", "nr_zone_active_file",
    "nr_zone_unevictable", "nr_zone_write_pending", "nr_mlock",
)

NODE_ITEMS = {
    "v4.9": _NODE_ITEMS,
    "v5.10": (*_NODE_ITEMS_V5_10, *_NODE_ITEMS_LAST),
    "v6.1": (*_NODE_ITEMS_V5_10, "nr_throttled_written", *_NODE_ITEMS_LAST, *_PAGE_TABLES, *_PROMOTIONS),
    "v6.12": (
        *_NODE_ITEMS_V5_10, "nr_throttled_written", *_NODE_ITEMS_LAST, *_PAGE_TABLES, "nr_iommu_pages", *_PROMOTIONS,
        *_DEMOTIONS),
}
"""Counters of a node, by `Tree.shown_counters`."""
ZONE_ITEMS = {
    "v4.9": _ZONE_ITEMS,
    "v5.10": (*_ZONE_ITEMS_TODAY, "nr_page_table_pages", "nr_bounce", "nr_zspages", "nr_free_cma"),
    "v6.1": (*_ZONE_ITEMS_TODAY, "nr_bounce", "nr_zspages", "nr_free_cma"),
    "v6.12": (*_ZONE_ITEMS_TODAY, "nr_bounce", "nr_zspages", "nr_free_cma"),
}
"""Counters of a zone, likewise."""


@dataclass(slots=True)
class Usage:
    """Pages in use, by kind."""

    slab: int = 0
    reclaimable: int = 0
    page_table: int = 0
    stack: int = 0
    anon: int = 0
    file: int = 0


def _usage(k: Kernel, wanted: Zone | None, nid: int | None) -> Usage:
    """Count kinds of pages in a zone, a node or (both None) everywhere. Source: none"""
    use = Usage()
    for section in k.mem_section.values():
        memmap = section.memmap
        if memmap is None or memmap.uniform(KIND) == KIND_NONE:
            continue
        size = memmap.nr_pages
        counts = dict.fromkeys((KIND_SLAB, KIND_KERNEL, KIND_PAGE_TABLE, KIND_STACK, KIND_ANON, KIND_FILE), 0)
        kinds = memmap.values(KIND, 0, size)
        if (nid is None or memmap.uniform(NODE) == nid) and (wanted is None or memmap.uniform(ZONE) == wanted.idx):
            for kind in counts:
                counts[kind] = kinds.count(kind)
        else:
            nodes, zones = memmap.values(NODE, 0, size), memmap.values(ZONE, 0, size)
            for kind, page_nid, page_zone in zip(kinds, nodes, zones, strict=True):
                if kind in counts and (nid is None or page_nid == nid) and (wanted is None or page_zone == wanted.idx):
                    counts[kind] += 1
        use.slab += counts[KIND_SLAB] + counts[KIND_KERNEL]
        use.reclaimable += counts[KIND_SLAB]
        use.page_table += counts[KIND_PAGE_TABLE]
        use.stack += counts[KIND_STACK]
        use.anon += counts[KIND_ANON]
        use.file += counts[KIND_FILE]
    return use


def usage(k: Kernel, nid: int | None = None) -> Usage:
    """Return the pages in use on a node, or everywhere. Source: none (global_page_state(), sum_zone_node_page_state())"""
    return _usage(k, None, nid)


def calculate_normal_threshold(k: Kernel, zone: Zone) -> int:
    """Source: mm/vmstat.c calculate_normal_threshold()"""
    mem = zone.managed_pages >> (27 - k.PAGE_SHIFT)
    return min(125, 2 * k.hardware.cpus.bit_length() * (1 + mem.bit_length()))


def refresh_zone_stat_thresholds(k: Kernel) -> None:
    """Source: mm/vmstat.c refresh_zone_stat_thresholds() [v4.9]"""
    for nid in k.node_states[mmzone.N_ONLINE]:
        for zone in k.nodes[nid].node_zones:
            if mmzone.populated_zone(zone):
                zone.stat_threshold = calculate_normal_threshold(k, zone)


def _populated(k: Kernel) -> list[Zone]:
    """The zones /proc shows: of online nodes, populated, lowest first. Source: mm/vmstat.c walk_zones_in_node() [v4.9]"""
    return [
        zone for nid in sorted(k.node_states[mmzone.N_ONLINE]) for zone in k.nodes[nid].node_zones if mmzone.populated_zone(zone)]


def zoneinfo_show(k: Kernel) -> str:
    """
    /proc/zoneinfo.

    Source: mm/vmstat.c zoneinfo_show() [all]
    """
    if not k.tree.shows_empty_zones:
        return _zoneinfo_show_v4_9(k)
    shown = []
    for nid in sorted(k.node_states[mmzone.N_ONLINE]):
        for zone in k.nodes[nid].node_zones:
            shown += zoneinfo_show_print(k, zone)
    return "".join(line + "\n" for line in shown)


def node_counters(k: Kernel, nid: int) -> dict[str, int]:
    """Return the counters of a node that are not 0. Source: mm/vmstat.c node_page_state_pages()"""
    use = _usage(k, None, nid)
    return {
        "nr_active_anon": use.anon, "nr_anon_pages": use.anon, "nr_inactive_anon": use.file, "nr_file_pages": use.file,
        "nr_shmem": use.file, "nr_slab_reclaimable": use.reclaimable, "nr_slab_unreclaimable": use.slab - use.reclaimable,
        "nr_kernel_stack": use.stack << (k.PAGE_SHIFT - 10), "nr_page_table_pages": use.page_table,
    }


def zone_counters(k: Kernel, zone: Zone) -> dict[str, int]:
    """Return the counters of a zone that are not 0. Source: mm/vmstat.c zone_page_state()"""
    use = _usage(k, zone, zone.nid)
    return {
        "nr_free_pages": zone.nr_free_pages, "nr_zone_active_anon": use.anon, "nr_zone_inactive_anon": use.file,
        "nr_page_table_pages": use.page_table, "nr_free_cma": zone.nr_free_cma_pages,
    }


def zoneinfo_show_print(k: Kernel, zone: Zone) -> list[str]:
    """
    One zone of /proc/zoneinfo. The node's counters stand with its first zone that has pages; a zone without is shown in short.

    Source: mm/vmstat.c zoneinfo_show_print() [v5.10, v6.1, v6.12]
    """
    counters = k.tree.shown_counters
    lines = [f"Node {zone.nid}, zone {zone.name:>8}"]
    first = next((z for z in k.nodes[zone.nid].node_zones if mmzone.populated_zone(z)), None)
    if zone is first:
        node = node_counters(k, zone.nid)
        lines.append("  per-node stats")
        lines += [f"      {name:<12} {node.get(name, 0)}" for name in NODE_ITEMS[counters]]
    low, mid, high = zone.watermark
    lines.append(f"  pages free     {zone.nr_free_pages}")
    marks = {"min": low, "low": mid, "high": high}
    if counters != "v5.10":
        marks = {"boost": 0, **marks}
    if counters == "v6.12":
        marks["promo"] = high + high - mid
    sizes = {"spanned": zone.spanned_pages, "present": zone.present_pages, "managed": zone.managed_pages}
    if counters != "v5.10":
        sizes["cma"] = zone.cma_pages
    lines += [f"        {name:<8} {pages}" for name, pages in {**marks, **sizes}.items()]
    lines.append(f"        protection: ({', '.join(map(str, zone.lowmem_reserve))})")
    if not mmzone.populated_zone(zone):
        return lines
    items = zone_counters(k, zone)
    more = ("nr_unaccepted",) if k.config.UNACCEPTED_MEMORY else ()
    lines += [
        f"      {name:<12} {items.get(name, 0)}"
        for name in (*ZONE_ITEMS[counters], *more, *(_NUMA_ITEMS if k.config.NUMA else ()))]
    lines.append("  pagesets")
    for cpu in range(k.hardware.cpus):
        lines += [
            f"    cpu: {cpu}", "              count: 0", f"              high:  {zone.pcp_high}",
            f"              batch: {zone.pcp_batch}", f"  vm stats threshold: {zone.stat_threshold}",
        ]
    return [*lines, "  node_unreclaimable:  0", f"  start_pfn:           {zone.zone_start_pfn}"]


def _zoneinfo_show_v4_9(k: Kernel) -> str:
    """Source: mm/vmstat.c zoneinfo_show_print() [v4.9]"""
    lines: list[str] = []
    first_of: set[int] = set()
    for zone in _populated(k):
        lines.append(f"Node {zone.nid}, zone {zone.name:>8}")
        if zone.nid not in first_of:
            first_of.add(zone.nid)
            lines.append("  per-node stats")
            use = _usage(k, None, zone.nid)
            node = {"nr_active_anon": use.anon, "nr_anon_pages": use.anon, "nr_inactive_anon": use.file,
                    "nr_file_pages": use.file, "nr_shmem": use.file}
            lines += [f"      {name:<12} {node.get(name, 0)}" for name in _NODE_ITEMS]
        low, mid, high = zone.watermark
        lines += [
            f"  pages free     {zone.nr_free_pages}",
            f"        min      {low}",
            f"        low      {mid}",
            f"        high     {high}",
            "   node_scanned  0",
            f"        spanned  {zone.spanned_pages}",
            f"        present  {zone.present_pages}",
            f"        managed  {zone.managed_pages}",
        ]
        use = _usage(k, zone, zone.nid)
        items = {
            "nr_free_pages": zone.nr_free_pages, "nr_zone_active_anon": use.anon, "nr_zone_inactive_anon": use.file,
            "nr_slab_reclaimable": use.reclaimable, "nr_slab_unreclaimable": use.slab - use.reclaimable,
            "nr_page_table_pages": use.page_table, "nr_kernel_stack": use.stack << (k.PAGE_SHIFT - 10),
        }
        names = (*_ZONE_ITEMS, *(_NUMA_ITEMS if k.config.NUMA else ()), "nr_free_cma")
        lines += [f"      {name:<12} {items.get(name, 0)}" for name in names]
        lines.append(f"        protection: ({', '.join(map(str, zone.lowmem_reserve))})")
        lines.append("  pagesets")
        for cpu in range(k.hardware.cpus):
            lines += [
                f"    cpu: {cpu}", "              count: 0", f"              high:  {zone.pcp_high}",
                f"              batch: {zone.pcp_batch}", f"  vm stats threshold: {zone.stat_threshold}",
            ]
        lines += ["  node_unreclaimable:  1", f"  start_pfn:           {zone.zone_start_pfn}", "  node_inactive_ratio: 0"]
    return "".join(line + "\n" for line in lines)


def frag_show(k: Kernel) -> str:
    """
    /proc/buddyinfo.

    Source: mm/vmstat.c frag_show_print()
    """
    out = []
    for zone in _populated(k):
        nr_free = zone.free_area.nr_free if zone.free_area is not None else [0] * k.MAX_ORDER
        out.append(f"Node {zone.nid}, zone {zone.name:>8} " + "".join(f"{count:6} " for count in nr_free) + "\n")
    return "".join(out)


def pagetypeinfo_show(k: Kernel) -> str:
    """
    /proc/pagetypeinfo: free blocks and pageblocks by migratetype, node by node.

    Source: mm/vmstat.c pagetypeinfo_show() [all]
    """
    return "".join(_pagetypeinfo_of(k, nid) for nid in sorted(k.node_states[mmzone.N_MEMORY]))


def _pagetypeinfo_of(k: Kernel, nid: int) -> str:
    """Source: mm/vmstat.c pagetypeinfo_showfree_print(), pagetypeinfo_showblockcount_print() [all]"""
    out = [f"Page block order: {k.pageblock_order}\n", f"Pages per block:  {k.pageblock_nr_pages}\n", "\n"]
    out.append(f"{'Free pages count per migrate type at order':<43} " + "".join(f"{o:6} " for o in range(k.MAX_ORDER)) + "\n")
    zones = [zone for zone in k.nodes[nid].node_zones if mmzone.populated_zone(zone)]
    for zone in zones:
        for mtype in k.migratetypes:
            out.append(f"Node {zone.nid:4}, zone {zone.name:>8}, type {MIGRATE_NAMES[mtype]:>12} ")
            area = zone.free_area
            for order in range(k.MAX_ORDER):
                count = 0
                if area is not None:
                    count = len(area.blocks[mtype]) if order == k.MAX_ORDER - 1 else len(area.free_list[order][mtype])
                out.append(f"{count:6} ")
            out.append("\n")
    names = [MIGRATE_NAMES[mtype] for mtype in k.migratetypes]
    out.append("\n" + f"{'Number of blocks type ':<23}" + "".join(f"{name:>12} " for name in names) + "\n")
    for zone in zones:
        by_type = _block_counts(k, zone)
        counts = [by_type[mtype] for mtype in k.migratetypes]
        out.append(f"Node {zone.nid}, zone {zone.name:>8} " + "".join(f"{count:12} " for count in counts) + "\n")
    return "".join(out)


def _migratetype(k: Kernel, section: MemSection, pfn: int) -> int:
    """get_pageblock_migratetype() of a pfn in a section that has a usemap. Source: none"""
    usemap = section.pageblock_flags
    assert usemap is not None
    return usemap if isinstance(usemap, int) else usemap[(pfn & (k.PAGES_PER_SECTION - 1)) >> k.pageblock_order]


def _block_counts(k: Kernel, zone: Zone) -> list[int]:
    """Count the pageblocks of a zone by migratetype. Source: mm/vmstat.c pagetypeinfo_showblockcount_print()"""
    counts = [0] * len(k.migratetypes)
    blocks = k.pageblock_nr_pages
    pfn, end = zone.zone_start_pfn, mmzone.zone_end_pfn(zone)
    while pfn < end:
        stop = min(end, pfn - pfn % k.PAGES_PER_SECTION + k.PAGES_PER_SECTION)
        section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
        if section is not None and section.memmap is not None and mmzone.valid_section(section):
            usemap = section.pageblock_flags
            first = (pfn & (k.PAGES_PER_SECTION - 1)) // blocks
            last = ((stop - 1) & (k.PAGES_PER_SECTION - 1)) // blocks + 1
            alike = section.memmap.uniform(ZONE) == zone.idx and section.memmap.uniform(NODE) == zone.nid
            if not alike or [valid for *_, valid in mmzone.pfn_valid_runs(k, pfn, stop)] != [True]:
                for block in range(pfn - pfn % blocks, stop, blocks):
                    if mmzone.pfn_valid(k, block) and mm.page_zone(k, block) is zone:
                        counts[_migratetype(k, section, block)] += 1
            elif isinstance(usemap, bytearray):
                for mtype in range(len(counts)):
                    counts[mtype] += usemap[first:last].count(mtype)
            elif usemap is not None:
                counts[usemap] += last - first
        pfn = stop
    return counts


def pagetypeinfo_showblockcount_print(k: Kernel, zone: Zone) -> tuple[int, ...]:
    """
    Count the pageblocks of a zone by migratetype, for /proc/pagetypeinfo.

    On arm64 memmap_valid_within() also asks whether the page's links name the zone; both architectures do so right after.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/vmstat.c pagetypeinfo_showblockcount_print() [v4.9]
    """
    count = [0] * len(k.migratetypes)
    for pfn in range(zone.zone_start_pfn, mmzone.zone_end_pfn(zone), k.pageblock_nr_pages):
        if not mmzone.pfn_valid(k, pfn):
            continue
        if mm.page_zone(k, pfn) is not zone:
            continue
        section = k.mem_section[pfn >> k.PFN_SECTION_SHIFT]
        usemap = section.pageblock_flags
        if isinstance(usemap, bytearray):
            count[usemap[(pfn & (k.PAGES_PER_SECTION - 1)) >> k.pageblock_order]] += 1
        else:
            count[usemap or 0] += 1
    return tuple(count)
