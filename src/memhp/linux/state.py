# SPDX-License-Identifier: GPL-2.0-only
"""
Everything one booted kernel knows.

All state hangs on a `Kernel`; there are no module globals, so thousands of kernels can live side by side. `fork()` is cheap:
the fork shares what is large (sections with their page columns, free lists, memblock, resources, memory blocks) and whoever
writes first copies. Two rules make that safe:

* a shared thing has an `owner`; code that edits it gets it from the `*_rw()` method, which copies it unless this kernel owns it;
* `Zone` and `PglistData` are few and are copied at once, so that a reference to one stays good for the life of its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memhp.linux.bug import Log
from memhp.linux.include.acpi_bus import AcpiDevice
from memhp.linux.include.hugetlb import Hstate
from memhp.linux.include.ioport import Resource
from memhp.linux.include.memblock import Memblock
from memhp.linux.include.memory import MemoryBlock, MemoryGroup
from memhp.linux.include.memory_hotplug import MEMMAP_ON_MEMORY_DISABLE, MMOP_OFFLINE, MMOP_ONLINE
from memhp.linux.include.mmzone import (
    MIGRATE_TYPES,
    MIGRATE_TYPES_CMA,
    Definition,
    FreeArea,
    MemSection,
    PglistData,
    Zone,
)
from memhp.linux.include.notifier import NotifierBlock
from memhp.linux.include.pgtable import LinearMap, VmemmapTable
from memhp.linux.kconfig import Kconfig
from memhp.linux.sched import Mutex, Tasks
from memhp.linux.tree import Tree

if TYPE_CHECKING:
    from memhp.hardware import Hardware
    from memhp.linux.arch import ArchOps
    from memhp.linux.drivers.virtio.virtio_mem import VirtioMem
    from memhp.linux.kernel.workqueue import Work


@dataclass(frozen=True, slots=True)
class Workload:
    """
    Pages that somebody holds on to, under a name.

    Attributes:
        kind: What they are: a word of `scenario.Alloc`.
        runs: Their pfns as [start, end), ascending.
        pinned: They may not be moved.
    """

    kind: str
    runs: tuple[tuple[int, int], ...]
    pinned: bool = False


class Kernel:
    """
    One booted kernel. (No slots: copying a dict is what makes a fork cheap.)

    Attributes:
        tree, arch, config, hardware, cmdline, remedy: What was booted.
        pfn_valid: The definition of pfn_valid() in force.
        token: Who owns what is edited in place; changes at every fork.
        log: printk()'s lines.
        tasks: Who runs, who died.
        memblock, iomem_resource, mem_section, section_roots, nodes, node_states, memory_blocks: The state itself.
        before_add_zone: What a patch series runs between sparse_add_one_section() and __add_zone(); None in released trees.
        online_page_callback: What online_pages_range() does with a range of pages.
        linear: The linear map.
        vmemmap_tables: Of the virtual memmap, by (log2 of what it covers, number).
        dev_pagemaps: Device memory with struct pages, as pfns [start, end).
        memhp_auto_online, mhp_default_online_type: Whether and how added memory goes online by itself, before and since v5.7.
        online_policy, auto_movable_ratio, auto_movable_numa_aware, memmap_mode: Parameters of memory_hotplug.
        memory_groups: By id, from 1 on.
        acpi_devices: Memory devices that are plugged in, by their name ("PNP0C80:00").
        virtio_mem: The virtio-mem devices that have a driver, by the name of the device ("virtio1").
        workqueue: Work that is done when the task at hand is.
        max_mem_size: What `mem=` allows to be added during boot.
        migratetypes: The migratetypes there are, in C's order.
        cma_areas: (base, size) in bytes of the areas that CMA has.
        sparsemap_buf: Room for memmaps during boot, [start, end) in bytes.
        khugepaged: The thread that makes huge pages runs.
        swiotlb_slabs: Slabs of bounce buffers that were asked for; 0: as many as usual.
        memory_chain: Notifiers of memory hotplug, in the order they are called.
        memory_isolate_chain: Who is asked for pages of his in a pageblock that is to be isolated [v4.9].
        slab_is_available: The buddy allocator works.
        system_running: Boot is over (SYSTEM_RUNNING).
        user_pages, user_generation: What processes hold, as (pfn, order), and since which zonelists.
        workloads: Who holds pages beside them, by name.
        hstate: The pool of huge pages.
        pgmigrate_success, pgmigrate_fail: Of /proc/vmstat.
        page_watch: Called with (pfn, nr_pages) when struct pages are read; a fork starts without.
    """

    def __init__(self, tree: Tree, arch: ArchOps, config: Kconfig, hardware: Hardware, definition: Definition) -> None:
        self.tree = tree
        self.arch = arch
        self.config = config
        self.hardware = hardware
        self.cmdline: dict[str, str] = {}
        self.remedy = ""
        self.before_add_zone: Callable[[Kernel, int], None] | None = None
        self.pfn_valid = definition
        self.token = object()
        self.log = Log()
        self.tasks = Tasks()

        self.PAGE_SHIFT = config.PAGE_SHIFT
        self.PAGE_SIZE = 1 << config.PAGE_SHIFT
        self.SECTION_SIZE_BITS = arch.SECTION_SIZE_BITS(tree, config)
        self.MAX_PHYSMEM_BITS = arch.MAX_PHYSMEM_BITS(tree, config)
        self.PFN_SECTION_SHIFT = self.SECTION_SIZE_BITS - self.PAGE_SHIFT
        self.PAGES_PER_SECTION = 1 << self.PFN_SECTION_SHIFT
        self.NR_MEM_SECTIONS = 1 << (self.MAX_PHYSMEM_BITS - self.SECTION_SIZE_BITS)
        self.MAX_ORDER = config.FORCE_MAX_ZONEORDER
        self.pageblock_order = arch.pageblock_order(tree, config)
        self.pageblock_nr_pages = 1 << self.pageblock_order
        self.VMEMMAP_START = arch.VMEMMAP_START
        self.migratetypes = MIGRATE_TYPES_CMA if config.CMA else MIGRATE_TYPES
        zones = config.zones
        self.ZONE_NORMAL = zones.index("Normal")
        self.ZONE_MOVABLE = zones.index("Movable")

        self.memblock = Memblock(self.token)
        self.iomem_resource = Resource(0, arch.IOMEM_END, "PCI mem")
        self._iomem_owner = self.token
        self.mem_section: dict[int, MemSection] = {}
        self._section_owner = self.token
        self.section_roots: frozenset[int] = frozenset()
        self.nodes: dict[int, PglistData] = {}
        self.node_states: dict[str, frozenset[int]] = {}
        self.memory_blocks: dict[int, MemoryBlock] = {}
        self._memory_blocks_owner = self.token
        self.sections_per_block = 1
        self.memory_chain: tuple[NotifierBlock, ...] = ()
        self.memory_isolate_chain: tuple[NotifierBlock, ...] = ()
        self.online_page_callback: Callable[[Kernel, int, int], None] | None = None
        self.dev_pagemaps: tuple[tuple[int, int], ...] = ()
        self.firmware_map: tuple[tuple[int, int, str], ...] = ()
        self.linear: LinearMap | None = None
        self.vmemmap_tables: dict[tuple[int, int], VmemmapTable] = {}
        self._vmemmap_tables_owner = self.token
        self.sparsemap_buf = (0, 0)
        self.swiotlb_slabs = 0
        self.khugepaged = False
        self.cma_areas: tuple[tuple[int, int], ...] = ()

        self.max_pfn = 0
        self.physmem_end = (1 << self.MAX_PHYSMEM_BITS) - 1
        self.max_low_pfn = 0
        self.high_memory = 0
        self.highest_memmap_pfn = 0
        self.dma_reserve = 0
        self.totalram_pages = 0
        self.vm_total_pages = 0
        self.min_free_kbytes = 1024
        self.policy_zone = 0
        self.page_group_by_mobility_disabled = False
        self.memhp_auto_online = config.MEMORY_HOTPLUG_DEFAULT_ONLINE
        self.mhp_default_online_type = MMOP_ONLINE if config.MEMORY_HOTPLUG_DEFAULT_ONLINE else MMOP_OFFLINE
        self.online_policy = "contig-zones"
        self.auto_movable_ratio = 301
        self.auto_movable_numa_aware = True
        self.memmap_mode = MEMMAP_ON_MEMORY_DISABLE
        self.memory_groups: dict[int, MemoryGroup] = {}
        self.virtio_mem: dict[str, VirtioMem] = {}
        self.acpi_devices: dict[str, AcpiDevice] = {}
        self.workqueue: tuple[Work, ...] = ()
        self.max_mem_size = (1 << 64) - 1
        self.movable_node_enabled = False
        self.slab_is_available = False
        self.system_running = False
        self.page_watch: Callable[[int, int], None] | None = None
        self.zonelist_generation = 0
        self.user_pages: tuple[tuple[int, int], ...] = ()
        self.user_generation = 0
        self.workloads: dict[str, Workload] = {}
        self.hstate = Hstate()
        self.pgmigrate_success = 0
        self.pgmigrate_fail = 0

        self.mem_hotplug_lock = Mutex("mem_hotplug.lock")
        self.device_hotplug_lock = Mutex("device_hotplug_lock")
        self.mem_sysfs_mutex = Mutex("mem_sysfs_mutex")
        self.zonelists_mutex = Mutex("zonelists_mutex")

    def fork(self) -> Kernel:
        """Return a second kernel in the same state; what either does from now on the other does not see."""
        new: Kernel = Kernel.__new__(Kernel)
        new.__dict__.update(self.__dict__)
        self.token = object()
        new.token = object()
        new.log = self.log.copy()
        new.tasks = self.tasks.copy()
        new.nodes = {nid: pgdat.copy() for nid, pgdat in self.nodes.items()}
        new.node_states = self.node_states.copy()
        new.workloads = self.workloads.copy()
        new.memory_groups = {mgid: group.copy() for mgid, group in self.memory_groups.items()}
        new.acpi_devices = {name: device.copy() for name, device in self.acpi_devices.items()}
        new.virtio_mem = {name: vm.copy() for name, vm in self.virtio_mem.items()}
        new.mem_hotplug_lock = self.mem_hotplug_lock.copy()
        new.device_hotplug_lock = self.device_hotplug_lock.copy()
        new.mem_sysfs_mutex = self.mem_sysfs_mutex.copy()
        new.zonelists_mutex = self.zonelists_mutex.copy()
        new.page_watch = None
        return new

    # What may be edited in place.

    def memblock_rw(self) -> Memblock:
        """Return memblock for editing."""
        if self.memblock.owner is not self.token:
            self.memblock = self.memblock.copy(self.token)
        return self.memblock

    def iomem_rw(self) -> Resource:
        """Return the resource tree for editing; references into the old tree may be stale afterwards."""
        if self._iomem_owner is not self.token:
            self.iomem_resource = self.iomem_resource.copy()
            self._iomem_owner = self.token
        return self.iomem_resource

    def sections_rw(self) -> dict[int, MemSection]:
        """Return the section table for adding and removing entries."""
        if self._section_owner is not self.token:
            self.mem_section = self.mem_section.copy()
            self._section_owner = self.token
        return self.mem_section

    def section_rw(self, nr: int) -> MemSection:
        """Return one section for editing. Raises KeyError where there is none."""
        section = self.mem_section[nr]
        if section.owner is not self.token:
            section = section.copy(self.token)
            self.sections_rw()[nr] = section
        return section

    def linear_rw(self) -> LinearMap:
        """Return the tables of the linear map for editing."""
        linear = self.linear
        if linear is None:
            raise AssertionError("no linear map yet")
        if linear.owner is not self.token:
            linear = self.linear = linear.copy(self.token)
        return linear

    def vmemmap_tables_rw(self) -> dict[tuple[int, int], VmemmapTable]:
        """Return the tables of the virtual memmap for editing."""
        if self._vmemmap_tables_owner is not self.token:
            self.vmemmap_tables = self.vmemmap_tables.copy()
            self._vmemmap_tables_owner = self.token
        return self.vmemmap_tables

    def free_area_rw(self, zone: Zone) -> FreeArea:
        """Return the free lists of an initialised zone for editing."""
        area = zone.free_area
        if area is None:
            raise AssertionError(f"zone {zone.name} has no free lists yet")
        if area.owner is not self.token:
            area = zone.free_area = area.copy(self.token)
        return area

    def blocks_rw(self) -> dict[int, MemoryBlock]:
        """Return the table of memory blocks for adding and removing entries."""
        if self._memory_blocks_owner is not self.token:
            self.memory_blocks = self.memory_blocks.copy()
            self._memory_blocks_owner = self.token
        return self.memory_blocks

    def block_rw(self, block_id: int) -> MemoryBlock:
        """Return one memory block for editing. Raises KeyError where there is none."""
        block = self.memory_blocks[block_id]
        if block.owner is not self.token:
            block = block.copy(self.token)
            self.blocks_rw()[block_id] = block
        return block

    def zone(self, nid: int, idx: int) -> Zone:
        """Return &NODE_DATA(nid)->node_zones[idx]."""
        return self.nodes[nid].node_zones[idx]

    def __reduce__(self) -> Any:
        raise TypeError("a Kernel is not pickled; write a machine file or a capture")
