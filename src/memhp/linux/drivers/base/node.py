# SPDX-License-Identifier: GPL-2.0-only
"""
Nodes in sysfs, and the links between nodes and memory blocks.

Without NUMA there are no node devices and no links.

Source: drivers/base/node.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.drivers.base import memory
from memhp.linux.include import mmzone
from memhp.linux.include.memory import MemoryBlock
from memhp.linux.include.memory_model import page_columns
from memhp.linux.include.mm_types import FLAGS, NODE, PageColumns
from memhp.linux.include.mmzone import MEMINIT_EARLY, MEMINIT_HOTPLUG, N_ONLINE
from memhp.linux.include.numa import NUMA_NO_NODE
from memhp.linux.include.page_flags import PAGE_INITIALISED
from memhp.linux.mm import vmstat

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def register_mem_sect_under_node(k: Kernel, mem_blk: MemoryBlock, nid: int) -> None:
    """
    Link a block and a node, if a page of the block that is initialised belongs to the node. Not before the node is online.

    Source: drivers/base/node.c register_mem_sect_under_node() [v4.9]
    """
    if not k.config.NUMA or nid not in k.node_states[N_ONLINE] or nid in mem_blk.nodes:
        return
    for nr in range(mem_blk.start_section_nr, mem_blk.end_section_nr + 1):
        section = k.mem_section.get(nr)
        if section is None or section.memmap is None or not mmzone.present_section(section):
            continue
        start = mmzone.section_nr_to_pfn(k, nr)
        found = get_nid_for_pfn(k, start) == nid
        if not found and (section.memmap.uniform(FLAGS) is None or section.memmap.uniform(NODE) is None):
            found = _node_in_section(k, section.memmap, start, nid)
        if found:
            mem_blk.nodes = tuple(sorted((*mem_blk.nodes, nid))) if mem_blk.nodes else (nid,)
            return


def _node_in_section(k: Kernel, columns: PageColumns, start: int, nid: int) -> bool:
    """Whether get_nid_for_pfn() names a node for one page of a section: asked once for each stretch of pages that are alike."""
    end = start + k.PAGES_PER_SECTION
    points = k.pfn_valid.cuts(k, start, end) if k.config.HOLES_IN_ZONE else [start]
    for pfn, stop in zip(points, [*points[1:], end], strict=True):
        if mmzone.pfn_valid_within(k, pfn):
            low, high = pfn - start, stop - start
            pairs = zip(columns.values(NODE, low, high), columns.values(FLAGS, low, high), strict=True)
            if any(node == nid and flags & PAGE_INITIALISED for node, flags in pairs):
                return True
    return False


def get_nid_for_pfn(k: Kernel, pfn: int) -> int:
    """
    Return the node of a page, or -1 where pfn_valid_within() denies it or nobody initialised it.

    Source: drivers/base/node.c get_nid_for_pfn() [v4.9]
    """
    if not mmzone.pfn_valid_within(k, pfn):
        return -1
    columns, offset = page_columns(k, pfn), pfn & (k.PAGES_PER_SECTION - 1)
    return columns.get(NODE, offset) if columns.get(FLAGS, offset) & PAGE_INITIALISED else -1


def unregister_mem_sect_under_nodes(k: Kernel, mem_blk: MemoryBlock, phys_index: int) -> None:
    """
    Take away the links between a block and the nodes that the pages of a section name.

    Source: drivers/base/node.c unregister_mem_sect_under_nodes() [v4.9]
    """
    sect_start_pfn = mmzone.section_nr_to_pfn(k, phys_index)
    sect_end_pfn = sect_start_pfn + k.PAGES_PER_SECTION
    unlinked: set[int] = set()
    runs = mmzone.pfn_valid_runs(k, sect_start_pfn, sect_end_pfn) if k.config.HOLES_IN_ZONE else [
        (sect_start_pfn, sect_end_pfn, True)]
    for start, end, valid in runs:
        if not valid:
            continue
        memmap = page_columns(k, start)
        node, flags = memmap.uniform(NODE), memmap.uniform(FLAGS)
        same = node is not None and flags is not None
        for pfn in (start,) if same else range(start, end):
            nid = get_nid_for_pfn(k, pfn)
            if nid >= 0 and nid in k.node_states[N_ONLINE]:
                unlinked.add(nid)
    mem_blk.nodes = tuple(nid for nid in mem_blk.nodes if nid not in unlinked)


def link_mem_sections(k: Kernel, nid: int) -> None:
    """
    Link every block of a node that has come online.

    Source: drivers/base/node.c link_mem_sections() [v4.9]
    """
    pgdat = k.nodes[nid]
    first = mmzone.pfn_to_section_nr(k, pgdat.node_start_pfn)
    last = -(-mmzone.pgdat_end_pfn(pgdat) >> k.PFN_SECTION_SHIFT)
    done = -1
    for nr in range(first, last):
        block_id = nr // k.sections_per_block
        if block_id == done or not mmzone.present_section_nr(k, nr) or block_id not in k.memory_blocks:
            continue
        done = block_id
        register_mem_sect_under_node(k, k.block_rw(block_id), nid)


def do_register_memory_block_under_node(k: Kernel, nid: int, mem_blk: MemoryBlock, context: str) -> None:
    """
    Link a block and a node; the block notes the node, and at boot its zone.

    Source: drivers/base/node.c do_register_memory_block_under_node() [v5.18]
    """
    memory.memory_block_add_nid(k, mem_blk, nid, context)
    if k.config.NUMA and nid not in mem_blk.nodes:
        mem_blk.nodes = tuple(sorted((*mem_blk.nodes, nid)))


def register_mem_block_under_node_hotplug(k: Kernel, mem_blk: MemoryBlock, nid: int) -> None:
    """Source: drivers/base/node.c register_mem_block_under_node_hotplug() [v5.9]"""
    do_register_memory_block_under_node(k, nid, mem_blk, MEMINIT_HOTPLUG)


def register_mem_block_under_node_early(k: Kernel, mem_blk: MemoryBlock, nid: int) -> None:
    """
    Link a block of boot memory and a node, if a page of the block that is there belongs to the node.

    Source: drivers/base/node.c register_mem_block_under_node_early() [v5.9]
    """
    for nr in range(mem_blk.start_section_nr, mem_blk.start_section_nr + k.sections_per_block):
        section = k.mem_section.get(nr)
        if section is None or section.memmap is None or not mmzone.present_section(section):
            continue
        start = mmzone.section_nr_to_pfn(k, nr)
        found = section.memmap.uniform(FLAGS) is not None and get_nid_for_pfn(k, start) == nid
        if not found and (section.memmap.uniform(FLAGS) is None or section.memmap.uniform(NODE) is None):
            found = _node_in_section(k, section.memmap, start, nid)
        if found:
            do_register_memory_block_under_node(k, nid, mem_blk, MEMINIT_EARLY)
            return


def unregister_memory_block_under_nodes(k: Kernel, mem_blk: MemoryBlock) -> None:
    """
    Take away the links between a block and its node.

    Source: drivers/base/node.c unregister_memory_block_under_nodes() [v5.3]
    """
    if mem_blk.nid != NUMA_NO_NODE:
        mem_blk.nodes = tuple(nid for nid in mem_blk.nodes if nid != mem_blk.nid)


def register_memory_blocks_under_node(k: Kernel, nid: int, start_pfn: int, end_pfn: int, context: str) -> None:
    """
    Link every block of a range and a node.

    Source: drivers/base/node.c register_memory_blocks_under_node() [v5.19]
    """
    func = register_mem_block_under_node_hotplug if context == MEMINIT_HOTPLUG else register_mem_block_under_node_early
    size = (end_pfn - start_pfn) << k.PAGE_SHIFT
    memory.walk_memory_blocks(k, start_pfn << k.PAGE_SHIFT, size, lambda k, mem: func(k, mem, nid))


def __register_one_node(k: Kernel, nid: int) -> None:
    """
    Make the device of a node: here a node has one while it is online.

    Source: drivers/base/node.c __register_one_node() [v4.13]
    """


def unregister_one_node(k: Kernel, nid: int) -> None:
    """Take the device of a node away. Source: drivers/base/node.c unregister_one_node()"""


def register_one_node(k: Kernel, nid: int) -> None:
    """
    Make the device of a node that is online, and link its blocks.

    Source: drivers/base/node.c register_one_node() [v4.9], include/linux/node.h [v4.13]
    """
    if not k.config.NUMA or nid not in k.node_states[N_ONLINE]:
        return
    if not k.tree.block_devices_after_add:
        link_mem_sections(k, nid)
        return
    __register_one_node(k, nid)
    pgdat = k.nodes[nid]
    register_memory_blocks_under_node(k, nid, pgdat.node_start_pfn, mmzone.pgdat_end_pfn(pgdat), MEMINIT_EARLY)


def node_read_meminfo(k: Kernel, nid: int) -> str:
    """
    /sys/devices/system/node/nodeN/meminfo.

    Source: drivers/base/node.c node_read_meminfo() [all]
    """
    shift = k.PAGE_SHIFT - 10
    zones = k.nodes[nid].node_zones
    total = sum(zone.managed_pages for zone in zones)
    free = sum(zone.nr_free_pages for zone in zones)
    use = vmstat.usage(k, nid)
    today = k.tree.shown_counters
    pages = {"MemTotal": total, "MemFree": free, "MemUsed": total - free}
    if today not in ("v4.9", "v5.10"):
        pages["SwapCached"] = 0
    pages |= {
        "Active": use.anon, "Inactive": use.file, "Active(anon)": use.anon, "Inactive(anon)": 0, "Active(file)": 0,
        "Inactive(file)": use.file, "Unevictable": 0, "Mlocked": 0, "Dirty": 0, "Writeback": 0, "FilePages": use.file,
        "Mapped": 0, "AnonPages": use.anon, "Shmem": 0, "KernelStack": use.stack, "PageTables": use.page_table,
    }
    if today not in ("v4.9", "v5.10"):
        pages["SecPageTables"] = 0
    pages |= {"NFS_Unstable": 0, "Bounce": 0, "WritebackTmp": 0}
    if today != "v4.9":
        pages["KReclaimable"] = use.reclaimable
    pages |= {"Slab": use.slab, "SReclaimable": use.reclaimable, "SUnreclaim": use.slab - use.reclaimable}
    if today != "v4.9":
        pages |= dict.fromkeys(("AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped"), 0)
    if k.config.UNACCEPTED_MEMORY:
        pages["Unaccepted"] = 0
    # Two names stand one column to the left in trees before v6.12.
    narrow = ("FileHugePages", "FilePmdMapped") if today in ("v5.10", "v6.1") else ()
    text = "".join(
        f"Node {nid} {name + ':':<{14 if name in narrow else 15}} {count << shift:>8} kB\n" for name, count in pages.items())
    return text if today == "v4.9" else text + hugetlb_report_node_meminfo(k, nid)


def hugetlb_report_node_meminfo(k: Kernel, nid: int) -> str:
    """A node's huge pages; the model keeps them on node 0. Source: mm/hugetlb.c hugetlb_report_node_meminfo() [v5.10]"""
    pool = k.hstate
    counts = (("Total", pool.nr_huge_pages), ("Free", len(pool.free)), ("Surp", pool.surplus_huge_pages))
    return "".join(f"Node {nid} HugePages_{name + ':':<6} {0 if nid else count:5}\n" for name, count in counts)


def node_read_cpulist(k: Kernel, nid: int) -> str:
    """The processors of a node: all are on the first. Source: drivers/base/node.c cpulist_read() [v5.10], node_read_cpulist()"""
    last = k.hardware.cpus - 1
    return ("\n" if nid else f"0-{last}\n") if last else ("\n" if nid else "0\n")


def node_read_cpumap(k: Kernel, nid: int) -> str:
    """The same as a mask. Source: drivers/base/node.c cpumap_read() [v5.10], node_read_cpumask()"""
    words, mask = [], 0 if nid else (1 << k.hardware.cpus) - 1
    for _ in range(-(-k.hardware.cpus // 32)):
        words.append(f"{mask & 0xFFFFFFFF:08x}")
        mask >>= 32
    words[-1] = words[-1][-max(1, -(-(k.hardware.cpus % 32 or 32) // 4)):]
    return ",".join(reversed(words)) + "\n"


def node_read_vmstat(k: Kernel, nid: int) -> str:
    """
    /sys/devices/system/node/nodeN/vmstat: the zones' counters together, then the node's.

    Source: drivers/base/node.c node_read_vmstat() [v5.10, v6.1, v6.12]
    """
    counters = k.tree.shown_counters
    zones: dict[str, int] = {}
    for zone in k.nodes[nid].node_zones:
        for name, count in vmstat.zone_counters(k, zone).items():
            zones[name] = zones.get(name, 0) + count
    node = vmstat.node_counters(k, nid)
    more = ("nr_unaccepted",) if k.config.UNACCEPTED_MEMORY else ()
    numa = ("numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other")
    lines = [(name, zones.get(name, 0)) for name in (*vmstat.ZONE_ITEMS[counters], *more)]
    lines += [(name, 0) for name in numa]
    lines += [(name, node.get(name, 0)) for name in vmstat.NODE_ITEMS[counters]]
    return "".join(f"{name} {count}\n" for name, count in lines)


def node_read_numastat(k: Kernel, nid: int) -> str:
    """/sys/devices/system/node/nodeN/numastat. Source: drivers/base/node.c node_read_numastat()"""
    names = ("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node")
    return "".join(f"{name} 0\n" for name in names)


def node_read_distance(k: Kernel, nid: int) -> str:
    """Source: drivers/base/node.c node_read_distance()"""
    return " ".join("10" if other == nid else "20" for other in sorted(k.node_states[N_ONLINE])) + "\n"
