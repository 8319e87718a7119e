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

    Source: drivers/base/node.c node_read_meminfo() [v4.9]
    """
    shift = k.PAGE_SHIFT - 10
    zones = k.nodes[nid].node_zones
    total = sum(zone.managed_pages for zone in zones)
    free = sum(zone.nr_free_pages for zone in zones)
    use = vmstat.usage(k, nid)
    rows = [
        ("MemTotal", total << shift), ("MemFree", free << shift), ("MemUsed", (total - free) << shift),
        ("Active", use.anon << shift), ("Inactive", use.file << shift),
        ("Active(anon)", use.anon << shift), ("Inactive(anon)", 0), ("Active(file)", 0), ("Inactive(file)", use.file << shift),
        ("Unevictable", 0), ("Mlocked", 0), ("Dirty", 0), ("Writeback", 0),
        ("FilePages", use.file << shift), ("Mapped", 0), ("AnonPages", use.anon << shift), ("Shmem", 0),
        ("KernelStack", use.stack << shift), ("PageTables", use.page_table << shift), ("NFS_Unstable", 0), ("Bounce", 0),
        ("WritebackTmp", 0), ("Slab", use.slab << shift), ("SReclaimable", use.reclaimable << shift),
        ("SUnreclaim", (use.slab - use.reclaimable) << shift),
    ]
    return "".join(f"Node {nid} {name + ':':<15} {value:>8} kB\n" for name, value in rows)


def node_read_distance(k: Kernel, nid: int) -> str:
    """Source: drivers/base/node.c node_read_distance()"""
    return " ".join("10" if other == nid else "20" for other in sorted(k.node_states[N_ONLINE])) + "\n"
