# SPDX-License-Identifier: GPL-2.0-only
"""A kernel small enough to be looked at page by page: 64 pages a section, 8 a pageblock, 16 the largest free block."""

from __future__ import annotations

import dataclasses

from memhp import hardware
from memhp.linux import kconfig
from memhp.linux.arch.x86 import X86_64
from memhp.linux.include import mmzone
from memhp.linux.include.mmzone import N_MEMORY, N_NORMAL_MEMORY, N_ONLINE, N_POSSIBLE, Definition, PglistData
from memhp.linux.mm import memory_hotplug, sparse_vmemmap
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9, Tree

SECTION = 64
"""Pages of a section."""


def tiny_kernel(
    *, pageblock_order: int = 3, max_order: int = 5, section_bits: int = 18, holes: bool = False, tree: Tree = V4_9,
    definition: Definition = mmzone.G0, nodes: int = 1,
) -> Kernel:
    """
    Return a kernel with its nodes and empty zones, and no memory yet.

    The virtual memmap costs nothing: there is no memory to take it from.
    """
    arch = dataclasses.replace(
        X86_64,
        SECTION_SIZE_BITS=lambda tree, config: section_bits,
        pageblock_order=lambda tree, config: pageblock_order,
        memory_block_size_bytes=lambda k: 1 << section_bits,
        vmemmap_populate=lambda k, start, end, node, altmap: sparse_vmemmap.map_section(k, start, end),
    )
    config = dataclasses.replace(kconfig.default("x86_64"), FORCE_MAX_ZONEORDER=max_order, HOLES_IN_ZONE=holes)
    k = Kernel(tree, arch, config, hardware.platform("x86_64", mem=64 << 20), definition)
    k.nodes = {nid: PglistData(nid, config.zones) for nid in range(nodes)}
    nids = frozenset(range(nodes))
    k.node_states = {N_POSSIBLE: nids, N_ONLINE: nids, N_NORMAL_MEMORY: nids, N_MEMORY: nids}
    k.online_page_callback = memory_hotplug.generic_online_page
    k.slab_is_available = k.system_running = True
    return k


def add_sections(k: Kernel, first: int, count: int, nid: int = 0) -> None:
    """Add sections to ZONE_NORMAL, as arch_add_memory() does."""
    start = first * k.PAGES_PER_SECTION
    memory_hotplug.__add_pages(k, nid, k.zone(nid, k.ZONE_NORMAL), start, count * k.PAGES_PER_SECTION)
