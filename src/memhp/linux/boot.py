# SPDX-License-Identifier: GPL-2.0-only
"""
Booting a kernel: from a tree, an architecture, a config and hardware to a `Kernel` at its shell prompt.

The order is the kernel's: setup_arch() fills memblock; sparsemem makes sections; zones are sized and the memmap initialised;
zonelists; memblock's free memory goes to the page allocator; watermarks; memory blocks and nodes appear in sysfs; the initrd
and the init sections are given back; processes take their pages.

Source: init/main.c start_kernel() [v4.9].
"""

from __future__ import annotations

import shlex
from dataclasses import replace

from memhp.errors import ConfigError, KernelError
from memhp.hardware import Hardware, Region, limit, parse_size
from memhp.linux import kconfig, twin
from memhp.linux.arch import ArchOps
from memhp.linux.arch.arm64 import ARM64
from memhp.linux.arch.arm64.mm import init as arm64_init
from memhp.linux.arch.arm64.mm import mmu as arm64_mmu
from memhp.linux.arch.x86 import X86_64
from memhp.linux.bug import printk
from memhp.linux.drivers.base import memory, node
from memhp.linux.include import mm, mmzone
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_KERNEL_RECLAIMABLE, Gfp
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_MEM, IORESOURCE_SYSTEM_RAM, Resource
from memhp.linux.include.memblock import memblock_is_nomap
from memhp.linux.include.mmzone import N_MEMORY, N_NORMAL_MEMORY, N_ONLINE, N_POSSIBLE, Definition, PglistData
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_FILE,
    KIND_KERNEL,
    KIND_PAGE_TABLE,
    KIND_SLAB,
    KIND_STACK,
    PG_LRU,
    PG_SLAB,
    set_page_kind,
)
from memhp.linux.kconfig import Kconfig
from memhp.linux.kernel import resource
from memhp.linux.mm import cma, khugepaged, memblock, memory_hotplug, nobootmem, page_alloc, sparse
from memhp.linux.series import arm64_rfc_2016
from memhp.linux.state import Kernel
from memhp.linux.tree import Tree

ARCHES: dict[str, ArchOps] = {"arm64": ARM64, "x86_64": X86_64}

DEFINITIONS: dict[str, Definition] = {**mmzone.DEFINITIONS, **arm64_init.DEFINITIONS}
"""Every definition of pfn_valid(), by name."""


def definition(tree: Tree, arch: str, config: Kconfig, name: str | Definition = "") -> Definition:
    """
    Return the pfn_valid() a kernel boots with: the one given, the named one, or the tree's own.

    Raises:
        ConfigError: no such definition; or the tree lacks an ingredient of it.
    """
    if not name:
        own = ARCHES[arch].pfn_valid(tree) if config.HAVE_ARCH_PFN_VALID else None
        return own if own is not None else mmzone.DEFINITIONS[tree.generic_pfn_valid]
    if isinstance(name, Definition):
        found = name
    elif name in DEFINITIONS:
        found = DEFINITIONS[name]
    else:
        raise ConfigError(f"no pfn_valid() definition {name!r}: known are {', '.join(DEFINITIONS)}")
    missing = found.missing(tree)
    if missing:
        possible = [d.name for d in DEFINITIONS.values() if not d.missing(tree)]
        raise ConfigError(
            f"pfn_valid={found.name} asks for what {tree.name} does not have ({', '.join(missing)}); "
            f"{tree.name} has what {', '.join(possible)} ask for")
    return found


def boot(
    tree: Tree, arch: str, hardware: Hardware, *, config: Kconfig | None = None, cmdline: str = "", remedy: str = "",
    pfn_valid: str | Definition = "",
) -> Kernel:
    """
    Boot a kernel.

    Args:
        tree: Which source tree.
        arch: "arm64" or "x86_64".
        hardware: The machine.
        config: Its configuration; None: that of the recorded kernel.
        cmdline: The kernel command line. `mem=`, `memhp_default_state=` and `movable_node` are understood.
        remedy: On the arm64-rfc-2016 series, which remedy; "" is `full`.
        pfn_valid: A definition of pfn_valid(), named or made; "" is the tree's own, or the one the remedy needs.

    Raises:
        ConfigError: these cannot exist together; lists every reason.
    """
    config = _check(tree, arch, hardware, config, remedy)
    remedy = remedy or ("full" if tree.arm64_nomap_window else "")
    if remedy and not pfn_valid:
        pfn_valid = arm64_rfc_2016.REMEDIES[remedy].pfn_valid
    parameters = _parse_cmdline(cmdline)
    if parameters.get("mem") and not (arch == "arm64" and tree.free_area_init):
        hardware = limit(hardware, parse_size(parameters["mem"], "mem="))
    k = Kernel(tree, ARCHES[arch], config, hardware, definition(tree, arch, config, pfn_valid))
    k.cmdline = parameters
    k.remedy = remedy
    k.online_page_callback = memory_hotplug.generic_online_page
    if remedy:
        arm64_mmu.apply(k, remedy)
    setup_arch(k)
    mm_init(k)
    do_initcalls(k)
    k.system_running = True
    if hardware.pages:
        twin.take_pages(k)
    else:
        _start_processes(k)
    k.user_pages = ()
    k.user_generation = k.zonelist_generation
    return k


def _check(tree: Tree, arch: str, hardware: Hardware, config: Kconfig | None, remedy: str) -> Kconfig:
    """Refuse what cannot exist; return the configuration. Source: none"""
    reasons = []
    if arch not in ARCHES:
        raise ConfigError(f"no architecture {arch!r}: known are {', '.join(ARCHES)}")
    config = config if config is not None else kconfig.default(arch, tree.release, hardware.page_size)
    kconfig.check(config, arch)
    if arch == "arm64" and not tree.arm64_nomap_window and not tree.arm64_hotplug:
        reasons.append(f"{tree.name} has no memory hotplug on arm64: use {tree.release}+{arm64_rfc_2016.NAME}")
    elif arch != "arm64" and tree.arm64_nomap_window:
        reasons.append(f"the series {arm64_rfc_2016.NAME} changes arm64 only: use {tree.release}/{arch}")
    if remedy and not tree.arm64_nomap_window:
        reasons.append(f"remedy={remedy}: remedies belong to {tree.release}+{arm64_rfc_2016.NAME} on arm64")
    elif remedy and remedy not in arm64_rfc_2016.REMEDIES:
        reasons.append(f"no remedy {remedy!r}: known are {', '.join(arm64_rfc_2016.REMEDIES)}")
    if arch == "arm64" and config.ZONE_DMA32 and not tree.arm64_zone_dma32:
        reasons.append(f"ZONE_DMA32: arm64 {tree.release} has ZONE_DMA only")
    if hardware.arch != arch:
        reasons.append(f"the memory map is that of {hardware.arch}, not {arch}")
    if hardware.page_size != 1 << config.PAGE_SHIFT:
        reasons.append(f"the hardware counts pages of {hardware.page_size} bytes, the config {1 << config.PAGE_SHIFT}")
    if len({r.nid for r in hardware.memory}) > 1 and not config.NUMA:
        reasons.append(f"more than one node, and CONFIG_NUMA is off in {tree.name}/{arch}")
    if not hardware.memory:
        reasons.append("the machine has no memory")
    if reasons:
        raise ConfigError(reasons)
    return config


def _parse_cmdline(cmdline: str) -> dict[str, str]:
    """Cut a kernel command line into parameters, in order. Source: kernel/params.c parse_args()"""
    try:
        words = shlex.split(cmdline)
    except ValueError as err:
        raise ConfigError(f"cmdline {cmdline!r}: {err}") from err
    parameters: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        parameters[name] = value
    return parameters


def setup_arch(k: Kernel) -> None:
    """
    memblock, nodes, sections, zones, resources.

    Source: arch/*/kernel/setup.c setup_arch()
    """
    for name, value in k.cmdline.items():
        if name == "memhp_default_state" and value in ("online", "offline") and not k.tree.default_online_types:
            k.memhp_auto_online = value == "online"
        elif name == "memhp_default_state":
            online_type = memory.mhp_online_type_from_str(value)
            k.mhp_default_online_type = k.mhp_default_online_type if online_type is None else online_type
        elif name.startswith("memory_hotplug."):
            _set_parameter(k, name.removeprefix("memory_hotplug."), value)
        elif name == "movable_node":
            k.movable_node_enabled = k.config.MOVABLE_NODE or not k.tree.config_movable_node
    k.arch.setup_memory(k)
    if k.tree.free_area_init:
        _init_nodes(k)
        k.arch.bootmem_init(k)
        _reserve_tables(k)
        request_standard_resources(k)
        return
    nids = sorted({r.nid for r in k.hardware.memory})
    # The processors are on node 0, so it is online even without memory.
    online = sorted({0, *nids})
    k.nodes = {nid: PglistData(nid, k.config.zones) for nid in online}
    k.node_states = {
        N_POSSIBLE: frozenset({*online, *range(k.hardware.possible_nodes)}), N_ONLINE: frozenset(online),
        N_NORMAL_MEMORY: frozenset(nids), N_MEMORY: frozenset(nids),
    }
    k.arch.memory_present(k)
    sparse.sparse_init(k)
    _reserve_tables(k)
    free_area_init_nodes(k)
    request_standard_resources(k)


def _init_nodes(k: Kernel) -> None:
    """
    Make the nodes. Those with memory are online, and node 0, where the processors are.

    Source: arch/arm64/mm/numa.c numa_init(), arch/x86/mm/numa.c numa_init() [v5.10, v6.1, v6.12]
    """
    nids = {r.nid for r in k.hardware.memory} | {0}
    possible = nids | set(range(k.hardware.possible_nodes))
    made = possible if k.tree.nodes_always_have_data else nids
    k.nodes = {nid: PglistData(nid, k.config.zones) for nid in sorted(made)}
    k.node_states = {
        N_POSSIBLE: frozenset(possible), N_ONLINE: frozenset(nids), N_NORMAL_MEMORY: frozenset(), N_MEMORY: frozenset()}


def _set_parameter(k: Kernel, name: str, value: str) -> None:
    """Give memory_hotplug a parameter; a value it does not take is ignored. Source: kernel/params.c parse_one()"""
    setters = {"memmap_on_memory": memory_hotplug.set_memmap_mode} if k.config.MHP_MEMMAP_ON_MEMORY else {}
    if k.tree.auto_movable:
        setters["online_policy"] = memory_hotplug.set_online_policy
        setters["auto_movable_ratio"] = memory_hotplug._set_auto_movable_ratio
        setters["auto_movable_numa_aware"] = memory_hotplug._set_auto_movable_numa_aware
    if name not in setters or not k.tree.memmap_on_memory:
        return
    try:
        setters[name](k, value)
    except KernelError:
        printk(k.log, f"memory_hotplug: `{value}' invalid for parameter `{name}'")


def _reserve_tables(k: Kernel) -> None:
    """
    Take what early boot takes for page tables, per-cpu data and hash tables, where the map does not tell.

    As much as leaves the pages that the recorded kernel managed, where that is known; else `Hardware.early_pages`.
    Source: none
    """
    if k.hardware.memmap_reserved:
        return
    size = k.hardware.early_pages * k.PAGE_SIZE
    if k.hardware.managed:
        free = [*k.hardware.freed, *((start, end) for start, end, _ in memblock.for_each_free_mem_range(k))]
        pages = sum((end >> k.PAGE_SHIFT) - (-(-start >> k.PAGE_SHIFT)) for start, end in free)
        size = max(0, pages - k.hardware.managed) * k.PAGE_SIZE
    if size > 0:
        memblock.memblock_virt_alloc(k, size, k.PAGE_SIZE)


def free_area_init_nodes(k: Kernel) -> None:
    """
    Give every node its zones: spans from the architecture's limits, present pages from memblock.

    Source: mm/page_alloc.c free_area_init_nodes(), zone_spanned_pages_in_node(), zone_absent_pages_in_node() [v4.9]
    """
    limits = k.arch.zone_sizes(k)
    ranges = list(memblock.for_each_mem_pfn_range(k))
    for nid, pgdat in k.nodes.items():
        own = [(start, end) for start, end, owner in ranges if owner == nid or not k.config.NUMA]
        node_start = min((start for start, _ in own), default=0)
        node_end = max((end for _, end in own), default=0)
        spans, present = [], []
        low = ranges[0][0]
        for high in limits:
            start, end = max(low, node_start), min(high, node_end)
            if high <= low or start >= end:
                spans.append((0, 0))
                present.append(0)
            else:
                spans.append((start, end))
                present.append(sum(max(0, min(b, end) - max(a, start)) for a, b in own))
            low = max(low, high)
        page_alloc.free_area_init_node(k, nid, node_start, spans, present)
        pgdat.node_spanned_pages = node_end - node_start


def request_standard_resources(k: Kernel) -> None:
    """
    Enter memory and the platform's devices into /proc/iomem.

    NOMAP memory is "reserved". What lies inside System RAM (kernel code, data) goes below it.

    Source: arch/arm64/kernel/setup.c request_standard_resources(), arch/x86/kernel/e820.c e820_reserve_resources()
    """
    root = k.iomem_rw()
    for start, end, ram in _memory_resources(k):
        name = "System RAM" if ram else "reserved"
        flags = (IORESOURCE_SYSTEM_RAM if ram else IORESOURCE_MEM) | IORESOURCE_BUSY
        last = root.child[-1] if root.child else None
        if last is not None and last.end == start - 1 and last.flags == flags:
            last.end = end - 1
            continue
        res = Resource(start, end - 1, name, flags)
        resource.request_resource(k, root, res)
    for ram_region in root.child:
        for child in k.hardware.ram_children:
            if ram_region.start <= child.start and child.end <= ram_region.end:
                ram_region.child.append(Resource(child.start, child.end, child.name, IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY))
    for region in k.hardware.iomem:
        _request_region(k, root, region)


def _memory_resources(k: Kernel) -> list[tuple[int, int, bool]]:
    """
    Return (start, end, whether it is mapped) of memory: as the e820 map says it on x86_64, as memblock does on arm64.

    Source: none
    """
    if k.arch.name == "arm64" and k.tree.free_area_init:
        return [(r.base, r.base + r.size, not memblock_is_nomap(r)) for r in memblock.for_each_mem_region(k)]
    return [(r.start, r.end, "NOMAP" not in r.flags) for r in k.hardware.memory]


def _request_region(k: Kernel, parent: Resource, region: Region) -> None:
    """Enter one platform region with what is inside it; one that conflicts with RAM is left out, as in C. Source: none"""
    res = Resource(region.start, region.end, region.name, IORESOURCE_MEM | (IORESOURCE_BUSY if region.busy else 0))
    try:
        resource.request_resource(k, parent, res)
    except KernelError:
        return
    for child in region.children:
        _request_region(k, res, child)


def mm_init(k: Kernel) -> None:
    """
    Zonelists; then memblock's free memory goes to the page allocator.

    Source: init/main.c mm_init(), arch/*/mm/init.c mem_init()
    """
    page_alloc.build_all_zonelists(k, None, None)
    if k.tree.free_area_init:
        k.arch.mem_init(k)
    else:
        nobootmem.free_all_bootmem(k)
    k.slab_is_available = True
    for zone in page_alloc._zones(k):
        if mmzone.populated_zone(zone):
            page_alloc.setup_zone_pageset(k, zone)
            page_alloc.set_zone_contiguous(k, zone)


def do_initcalls(k: Kernel) -> None:
    """Watermarks, CMA, memory blocks, nodes; what boot no longer needs is given back. Source: init/main.c do_initcalls()"""
    if k.config.CMA:
        cma.cma_init_reserved_areas(k)
    k.arch.initcalls(k)
    page_alloc.init_per_zone_wmark_min(k)
    khugepaged.start_stop_khugepaged(k)
    memory.memory_dev_init(k)
    for nid in sorted(k.nodes):
        node.register_one_node(k, nid)
    parts = k.hardware.ram_children
    for start, end in k.hardware.freed:
        image = bool(parts) and parts[0].start <= start <= max(part.end for part in parts)
        page_alloc.free_reserved_area(k, start, end, "unused kernel" if image else "initrd")


# Processes. The model has none of its own; these pages stand for theirs.


def _take(k: Kernel, gfp: Gfp, pages: int, kind: int, flags: int = 0) -> list[tuple[int, int]]:
    """
    Allocate about `pages` pages in large pieces first; returns (first pfn, order) of each. What is on LRU lists is base pages.

    Source: none
    """
    taken: list[tuple[int, int]] = []
    for order in range(min(9, k.MAX_ORDER - 1), -1, -1):
        while pages >= 1 << order:
            pfn = page_alloc.__alloc_pages_nodemask(k, replace(gfp, nowarn=True), order, min(k.nodes))
            if pfn < 0:
                break
            set_page_kind(k, pfn, 1 << order, kind, flags)
            if flags & PG_LRU:
                mm.set_page_count(k, pfn, 1 << order, 1)
            taken.append((pfn, order))
            pages -= 1 << order
    return taken


def _start_processes(k: Kernel) -> None:
    """Take the pages the running system takes (`Hardware.footprint`). Source: none"""
    footprint = k.hardware.footprint
    _take(k, GFP_KERNEL, footprint.unmovable, KIND_KERNEL, PG_SLAB)
    _take(k, GFP_KERNEL_RECLAIMABLE, footprint.reclaimable, KIND_SLAB, PG_SLAB)
    _take(k, GFP_HIGHUSER_MOVABLE, footprint.movable, KIND_FILE, PG_LRU)


def user_space(k: Kernel) -> None:
    """
    Let processes come and go: their pages follow the zonelists.

    On a real machine a command that is started allocates its kernel stack, page tables, slab objects and memory from the first
    zone of the zonelist. Once a hot-added block has given ZONE_NORMAL its first pages, that is where they come from, which is
    why such a block is not removable a moment later. So: whenever the zonelists have been rebuilt, a handful of pages of each
    kind is given back and taken anew. Source: none
    """
    if k.user_generation == k.zonelist_generation:
        return
    for pfn, order in k.user_pages:
        page_alloc.__free_pages(k, pfn, order)
    pages = _take(k, GFP_KERNEL, 12, KIND_STACK) + _take(k, GFP_KERNEL, 3, KIND_PAGE_TABLE)
    pages += _take(k, GFP_KERNEL, 10, KIND_KERNEL, PG_SLAB)
    pages += _take(k, GFP_HIGHUSER_MOVABLE, 40, KIND_ANON, PG_LRU)
    for pfn, order in _take(k, GFP_KERNEL_RECLAIMABLE, 1, KIND_SLAB, PG_SLAB):
        page_alloc.__free_pages(k, pfn, order)
    k.user_pages = tuple(pages)
    k.user_generation = k.zonelist_generation


def new_task(k: Kernel) -> None:
    """Start a task that will write a file or plug a device: it gets a pid of its own."""
    k.tasks.current = max([k.tasks.current, *k.tasks.dead]) + 1


def task_died(k: Kernel) -> None:
    """The running task died of an oops; the locks it holds stay held."""
    k.tasks.dead |= {k.tasks.current}
