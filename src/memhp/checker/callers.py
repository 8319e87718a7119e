# SPDX-License-Identifier: GPL-2.0-only
"""
Who asks pfn_valid() in v4.9, each as a run of its twin in `memhp.linux`, with what it owes.

`judge()` builds a state, lets one caller run there, and says which obligations broke. Where a caller does not ask pfn_valid()
although one would think so, it is here, too: its `asks` says what it asks instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from memhp.checker import obligations as o
from memhp.checker.derive import Broken
from memhp.checker.obligations import Obligation, Outcome
from memhp.checker.states import ARCHES, STATES, Setting, span
from memhp.checker.truth import Truth
from memhp.errors import KernelBugError, KernelError
from memhp.linux import boot
from memhp.linux.arch.arm.kvm import mmu as kvm_mmu
from memhp.linux.drivers.base import memory, node
from memhp.linux.drivers.char import mem
from memhp.linux.fs.proc import kcore
from memhp.linux.fs.proc import page as proc_page
from memhp.linux.include import dma_mapping, mmzone
from memhp.linux.include.io import MEMREMAP_WB
from memhp.linux.include.memory import MEM_OFFLINE
from memhp.linux.include.mmzone import MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, Definition, Zone
from memhp.linux.kernel import memremap
from memhp.linux.kernel.power import snapshot
from memhp.linux.mm import (
    compaction,
    hugetlb,
    hwpoison_inject,
    internal,
    kmemleak,
    memory_hotplug,
    page_alloc,
    page_ext,
    page_idle,
    page_isolation,
    page_owner,
    vmstat,
)
from memhp.linux.state import Kernel
from memhp.linux.virt.kvm import kvm_main

ARM64 = ("arm64",)


@dataclass(frozen=True, slots=True)
class Breaker:
    """
    A definition that breaks a caller, and where it shows.

    Attributes:
        definition: A name, or an expression over the ingredients.
        state: Name of the state.
        arch: Architecture.
        remedy: On arm64, the remedy of the 2016 series under which it shows.
    """

    definition: str
    state: str
    arch: str = "arm64"
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """
    One C function that asks pfn_valid().

    Attributes:
        name: Short.
        c_file, c_function, line: Where it is in v4.9.0; `line` is that of the question, or of what is asked instead.
        asks: What the answer stands for there.
        run: (kernel, pfn) -> what it returned. Raises KernelError and KernelBugError.
        obligations: What it owes.
        states: Names of the states in which somebody may call it.
        broken_by: A definition that breaks it; None if it does not ask.
        arches: Where it exists.
        config: Symbols it needs, which the recorded kernels do not have.
    """

    name: str
    c_file: str
    c_function: str
    line: int
    asks: str
    run: Callable[[Kernel, int], object]
    obligations: tuple[Obligation, ...]
    states: tuple[str, ...]
    broken_by: Breaker | None
    arches: tuple[str, ...] = ARCHES
    config: tuple[tuple[str, bool], ...] = field(default=())

    @property
    def asks_pfn_valid(self) -> bool:
        """Whether its answer can depend on the definition at all."""
        return self.broken_by is not None

    def applies(self, state: str, arch: str) -> bool:
        """Whether it can be called there."""
        return state in self.states and arch in self.arches and arch in STATES[state].arches


# What is run


class NobodyCalls(Exception):  # noqa: N818 - no error, an answer
    """In the state that came about nobody would call: what it would be called for is not there."""


def _phys(k: Kernel, pfn: int) -> int:
    return pfn << k.PAGE_SHIFT


def _nothing(k: Kernel, pfn: int) -> object:
    """Boot is over; what it left behind is looked at."""
    return None


def _add(k: Kernel, pfn: int) -> object:
    start, size = span(k)
    memory_hotplug.add_memory(k, 0, start, size)
    return None


def _add_twice(k: Kernel, pfn: int) -> object:
    """
    Ask the architecture to add what is there already. (add_memory() itself refuses earlier: the resource is taken.)

    __add_pages() turns the -EEXIST that is wanted into success, so each section is asked.
    """
    start, _ = span(k)
    memory_hotplug.mem_hotplug_begin(k)
    memory_hotplug.__add_section(k, 0, k.zone(0, k.ZONE_NORMAL), start >> k.PAGE_SHIFT)
    return None


def _add_online(k: Kernel, pfn: int) -> object:
    k.memhp_auto_online = True
    return _add(k, pfn)


def _online(k: Kernel, pfn: int) -> object:
    start, size = span(k)
    first, last = start >> k.SECTION_SIZE_BITS, start + size - 1 >> k.SECTION_SIZE_BITS
    for block_id in sorted(k.memory_blocks):
        block = k.memory_blocks[block_id]
        if first // k.sections_per_block <= block_id <= last // k.sections_per_block and block.state == MEM_OFFLINE:
            boot.new_task(k)
            memory.store_mem_state(k, k.block_rw(block_id), "online")
    return None


def _ioremap(k: Kernel, pfn: int) -> object:
    return k.arch.io.ioremap(k, _phys(k, pfn), k.PAGE_SIZE)


def _ioremap_cache(k: Kernel, pfn: int) -> object:
    return k.arch.io.ioremap_cache(k, _phys(k, pfn), k.PAGE_SIZE)


def _acpi(k: Kernel, pfn: int) -> object:
    return k.arch.io.acpi_os_ioremap(k, _phys(k, pfn), k.PAGE_SIZE)


def _memremap(k: Kernel, pfn: int) -> object:
    return memremap.memremap(k, _phys(k, pfn), k.PAGE_SIZE, MEMREMAP_WB)


def _read_mem(k: Kernel, pfn: int) -> object:
    return mem.read_mem(k, _phys(k, pfn), k.PAGE_SIZE)


def _read_mem_strict(k: Kernel, pfn: int) -> object:
    k.config = replace(k.config, STRICT_DEVMEM=True)
    return _read_mem(k, pfn)


def _mmap_mem(k: Kernel, pfn: int) -> object:
    return mem.mmap_mem(k, pfn, k.PAGE_SIZE)


def _mmap_kmem(k: Kernel, pfn: int) -> object:
    return replace(mem.mmap_kmem(k, _phys(k, pfn), k.PAGE_SIZE), kind="linear")


def _read_kmem(k: Kernel, pfn: int) -> object:
    return mem.read_kmem(k, k.arch.io.phys_to_virt(k, _phys(k, pfn)), k.PAGE_SIZE)


def _virt_addr_valid(k: Kernel, pfn: int) -> object:
    return k.arch.io.virt_addr_valid(k, k.arch.io.phys_to_virt(k, _phys(k, pfn)))


def _kern_addr_valid(k: Kernel, pfn: int) -> object:
    return k.arch.io.kern_addr_valid(k, k.arch.io.phys_to_virt(k, _phys(k, pfn)))


def _zone(k: Kernel, pfn: int) -> Zone:
    """The zone that spans a pfn, found without its struct page."""
    zone = Truth(k).zone(pfn)
    if zone is None:
        raise NobodyCalls(f"no zone spans {pfn:#x}")
    return zone


def _block(k: Kernel, pfn: int) -> tuple[int, int]:
    """The pageblock of a pfn."""
    start = pfn - pfn % k.pageblock_nr_pages
    return start, start + k.pageblock_nr_pages


def _pageblock(k: Kernel, pfn: int) -> object:
    return compaction.pageblock_pfn_to_page(k, *_block(k, pfn), _zone(k, pfn))


def _isolation_suitable(k: Kernel, pfn: int) -> object:
    return compaction.__reset_isolation_suitable(k, _zone(k, pfn))


def _move(k: Kernel, pfn: int) -> object:
    return page_alloc.move_freepages_block(k, _zone(k, pfn), _block(k, pfn)[0], MIGRATE_UNMOVABLE)


def _unmovable(k: Kernel, pfn: int) -> object:
    """The pageblock is made unmovable first: of a movable one not a page is looked at."""
    start = _block(k, pfn)[0]
    page_alloc.set_pageblock_migratetype(k, start, MIGRATE_UNMOVABLE)
    return page_alloc.has_unmovable_pages(k, _zone(k, pfn), start, k.pageblock_nr_pages, True)


def _isolated(k: Kernel, pfn: int) -> object:
    start, end = _block(k, pfn)
    page_alloc.set_pageblock_migratetype(k, start, mmzone.MIGRATE_ISOLATE)
    page_isolation.test_pages_isolated(k, start, end, True)
    return None


def _unset_isolate(k: Kernel, pfn: int) -> object:
    start, end = _block(k, pfn)
    page_isolation.start_isolate_page_range(k, start, end, MIGRATE_MOVABLE, True)
    page = page_isolation.__first_valid_page(k, start, end - start)
    if page is not None:
        page_isolation.unset_migratetype_isolate(k, page, MIGRATE_MOVABLE)
    return None


def _pagetypeinfo(k: Kernel, pfn: int) -> object:
    return sum(vmstat.pagetypeinfo_showblockcount_print(k, _zone(k, pfn)))


def _page_owner_init(k: Kernel, pfn: int) -> object:
    return page_owner.init_pages_in_zone(k, _zone(k, pfn))


def _page_owner_read(k: Kernel, pfn: int) -> object:
    """Read on until the pageblock of the pfn lies behind."""
    ppos, end = _block(k, pfn)
    while 0 <= ppos < end:
        ppos = page_owner.read_page_owner(k, ppos) + 1 or -1
    return None


def _soft_offline(k: Kernel, pfn: int) -> object:
    memory.store_soft_offline_page(k, hex(_phys(k, pfn)))
    return None


def _hard_offline(k: Kernel, pfn: int) -> object:
    memory.store_hard_offline_page(k, hex(_phys(k, pfn)))
    return None


def _gigantic(k: Kernel, pfn: int) -> object:
    """A candidate as alloc_gigantic_page() has them: for RAM one that is free, else the one that holds the pfn."""
    zone = _zone(k, pfn)
    nr_pages = 1 << (k.MAX_ORDER - 1)
    start = pfn - pfn % nr_pages
    if Truth(k).online(pfn):
        low = -(-zone.zone_start_pfn // nr_pages) * nr_pages
        for candidate in range(low, mmzone.zone_end_pfn(zone) - nr_pages + 1, nr_pages):
            if not internal.free_mask(k, candidate, candidate + nr_pages).count(0):
                start = candidate
                break
    return start, hugetlb.pfn_range_valid_gigantic(k, zone, start, nr_pages), nr_pages


def _kpageflags(k: Kernel, pfn: int) -> object:
    return proc_page.kpageflags_read(k, pfn * proc_page.KPMSIZE, proc_page.KPMSIZE)


def _kpagecount(k: Kernel, pfn: int) -> object:
    return proc_page.kpagecount_read(k, pfn * proc_page.KPMSIZE, proc_page.KPMSIZE)


def _kcore(k: Kernel, pfn: int) -> object:
    return kcore.read_kcore(k, _phys(k, pfn), k.PAGE_SIZE)


def _unregister(k: Kernel, pfn: int) -> object:
    nr = pfn >> k.PFN_SECTION_SHIFT
    block_id = nr // k.sections_per_block
    if block_id in k.memory_blocks:
        node.unregister_mem_sect_under_nodes(k, k.block_rw(block_id), nr)
    return None


def _shrink(k: Kernel, pfn: int) -> object:
    start = pfn - pfn % k.PAGES_PER_SECTION
    section = k.mem_section.get(start >> k.PFN_SECTION_SHIFT)
    if mmzone.valid_section(section):
        memory_hotplug.shrink_zone_span(k, _zone(k, pfn), start, start + k.PAGES_PER_SECTION)
    return None


_BOOT_MEMORY = ("RAM", "NOMAP", "NOMAP-first", "hole", "absent")
_MAPPED = ("RAM", "NOMAP", "hole", "absent", "D2", "D3")
_WALKED = ("RAM", "NOMAP", "NOMAP-first", "hole", "absent", "D3")
_ANY_TIME = ("RAM", "NOMAP", "NOMAP-first", "hole", "absent", "D1", "D1n", "D2n", "D2", "D3", "D4")
"""No lock keeps these readers out while memory is added or removed."""
_READS = (o.SURVIVES, o.INITIALISED)

CALLERS: tuple[Caller, ...] = (
    # Boot
    Caller(
        "memmap_init_zone", "mm/page_alloc.c", "memmap_init_zone", 5020, "has a struct page to be initialised", _nothing,
        (o.BOOT_RAM, o.BOOT_WALKABLE), _BOOT_MEMORY, Breaker("map", "NOMAP")),
    Caller(
        "reserve_bootmem_region", "mm/page_alloc.c", "reserve_bootmem_region", 1224, "has a struct page", _nothing,
        (o.BOOT_RESERVED,), ("RAM",), Breaker("False", "RAM")),
    # Hot-add
    Caller(
        "__add_section", "mm/memory_hotplug.c", "__add_section", 506, "was added already", _add,
        (o.SURVIVES, o.ADDED, o.NOT_HANDED_OUT), ("D0",), Breaker("map", "D0", remedy="nonomap-nohack")),
    Caller(
        "__add_section again", "mm/memory_hotplug.c", "__add_section", 506,
        "was added already; but sparse_add_one_section() sees it, too, so either answer does", _add_twice,
        (o.SURVIVES, o.SECOND_REFUSED), ("D2", "D3"), None),
    Caller(
        "__add_zone", "mm/memory_hotplug.c", "__add_zone", 493, "has a struct page to be reserved", _add,
        (o.SURVIVES, o.RESERVED), ("D0",), Breaker("map", "D0", remedy="nohack")),
    Caller(
        "set_zone_contiguous", "mm/page_alloc.c", "__pageblock_pfn_to_page", 1359, "the pageblock has no hole", _add,
        (o.CONTIGUOUS,), ("D0",), Breaker("map", "D0")),
    Caller(
        "pages_correctly_reserved", "drivers/base/memory.c", "pages_correctly_reserved", 200, "has a struct page", _online,
        (o.SURVIVES, o.ALL_ONLINE), ("D2",), Breaker("map", "D2", remedy="noclear")),
    Caller(
        "auto-online", "drivers/base/memory.c", "pages_correctly_reserved", 200, "has a struct page", _add_online,
        (o.SURVIVES, o.ALL_ONLINE), ("D0",), Breaker("map", "D0", remedy="nohack")),
    # Mappings
    Caller(
        "arm64 ioremap", "arch/arm64/mm/ioremap.c", "__ioremap_caller", 58, "is RAM: refuse", _ioremap,
        (o.NO_ALIAS, o.DEVICE_REACHABLE, o.FIRMWARE_REACHABLE), _MAPPED, Breaker("valid", "hole"), ARM64),
    Caller(
        "arm64 ioremap_cache", "arch/arm64/mm/ioremap.c", "ioremap_cache", 99, "is in the linear map", _ioremap_cache,
        (o.LINEAR_MAPPED, o.RAM_REACHABLE, o.FIRMWARE_REACHABLE), _MAPPED, Breaker("valid", "NOMAP"), ARM64),
    Caller(
        "arm64 acpi_os_ioremap", "arch/arm64/include/asm/acpi.h", "acpi_os_ioremap", 39,
        "asks memblock for memory, then through ioremap() or ioremap_cache()", _acpi,
        (o.LINEAR_MAPPED, o.TABLES_CACHEABLE, o.DEVICE_REACHABLE, o.FIRMWARE_REACHABLE), ("RAM", "NOMAP", "hole", "absent"),
        Breaker("valid", "NOMAP"), ARM64),
    Caller(
        "x86 ioremap", "arch/x86/mm/ioremap.c", "__ioremap_check_ram", 61, "has a struct page, so PG_reserved can be read",
        _ioremap, (*_READS, o.DEVICE_REACHABLE), ("RAM", "hole", "absent", "D1", "D2", "D3"), Breaker("mb", "D1", "x86_64"),
        ("x86_64",)),
    Caller(
        "memremap", "kernel/memremap.c", "try_ram_remap", 42, "is in the linear map", _memremap,
        (*_READS, o.LINEAR_MAPPED, o.RAM_REACHABLE, o.FIRMWARE_REACHABLE), _MAPPED, Breaker("valid", "NOMAP")),
    Caller(
        "/dev/mem read", "drivers/char/mem.c", "read_mem", 105, "does not ask: PHYS_OFFSET, high_memory", _read_mem,
        (o.SURVIVES, o.RAM_READABLE), ("RAM", "NOMAP", "hole", "absent", "D3"), None),
    Caller(
        "/dev/mem mmap", "arch/arm64/mm/mmu.c", "phys_mem_access_prot", 65, "is RAM: cached", _mmap_mem,
        (o.NO_ALIAS, o.DEVICE_NOT_CACHED, o.FIRMWARE_NOT_CACHED), _MAPPED, Breaker("valid", "hole"), ARM64),
    Caller(
        "/dev/kmem mmap", "drivers/char/mem.c", "mmap_kmem", 366, "is in the linear map", _mmap_kmem,
        (o.LINEAR_MAPPED, o.RAM_REACHABLE), _MAPPED, Breaker("valid", "hole"), ARM64),
    Caller(
        "/dev/kmem read", "drivers/char/mem.c", "read_kmem", 384, "is in the linear map; but of the virtual address's number",
        _read_kmem, (o.SURVIVES,), ("RAM", "NOMAP", "hole", "absent", "D3"), Breaker("not inrange or map", "NOMAP")),
    Caller(
        "STRICT_DEVMEM", "arch/arm64/mm/mmap.c", "devmem_is_allowed", 135, "does not ask: page_is_ram()", _read_mem_strict,
        (o.STRICT_REFUSES_RAM,), ("RAM", "D3"), None),
    Caller(
        "dma_map_resource", "include/linux/dma-mapping.h", "dma_map_resource", 284, "is RAM: BUG",
        lambda k, pfn: dma_mapping.dma_map_resource(k, _phys(k, pfn), k.PAGE_SIZE),
        (o.RAM_REFUSED, o.DEVICE_ACCEPTED), ("RAM", "hole", "absent", "D2", "D3"), Breaker("valid", "hole")),
    Caller(
        "virt_addr_valid", "arch/arm64/include/asm/memory.h", "_virt_addr_valid", 225, "the linear address is mapped",
        _virt_addr_valid, (o.ADDRESS_GOOD, o.RAM_ADDRESS_GOOD), _MAPPED, Breaker("valid", "NOMAP"), ARM64),
    Caller(
        "x86 virt_addr_valid", "arch/x86/mm/physaddr.c", "__virt_addr_valid", 63, "the linear address is mapped",
        _virt_addr_valid, (o.ADDRESS_GOOD, o.RAM_ADDRESS_GOOD), ("RAM", "absent", "D2", "D3"), Breaker("False", "RAM", "x86_64"),
        ("x86_64",)),
    Caller(
        "kern_addr_valid", "arch/arm64/mm/mmu.c", "kern_addr_valid", 531, "memory lies behind a mapped address", _kern_addr_valid,
        (o.ADDRESS_GOOD, o.RAM_ADDRESS_GOOD), _MAPPED, Breaker("False", "RAM"), ARM64),
    # KVM
    Caller(
        "kvm_is_reserved_pfn", "virt/kvm/kvm_main.c", "kvm_is_reserved_pfn", 130, "has a struct page whose references count",
        lambda k, pfn: kvm_main.kvm_is_reserved_pfn(k, pfn), (*_READS, o.COUNTED, o.RAM_COUNTED), _MAPPED,
        Breaker("False", "RAM")),
    Caller(
        "kvm_is_device_pfn", "arch/arm/kvm/mmu.c", "kvm_is_device_pfn", 93, "is memory, not a device",
        lambda k, pfn: kvm_mmu.user_mem_abort(k, pfn), (o.STAGE2_RAM, o.DEVICE_NOT_CACHED), (*_MAPPED, "ZONE_DEVICE"),
        Breaker("valid", "hole"), ARM64),
    # Hibernation
    Caller(
        "hibernation", "kernel/power/snapshot.c", "saveable_page", 1272, "has a struct page, and contents to be copied",
        lambda k, pfn: snapshot.copy_data_pages(k), (*_READS, o.SAVED), ("RAM", "NOMAP", "hole", "absent", "D2", "D3"),
        Breaker("valid", "NOMAP")),
    # Walkers
    Caller(
        "pageblock_pfn_to_page", "mm/page_alloc.c", "__pageblock_pfn_to_page", 1359, "has a struct page", _pageblock,
        (*_READS, o.RAM_FOUND), ("RAM", "NOMAP-first", "absent", "D3"), Breaker("False", "RAM")),
    Caller(
        "move_freepages", "mm/page_alloc.c", "move_freepages", 1872, "has a good struct page (pfn_valid_within)", _move,
        _READS, ("RAM", "NOMAP", "hole", "D3"), Breaker("map", "NOMAP")),
    Caller(
        "has_unmovable_pages", "mm/page_alloc.c", "has_unmovable_pages", 7040, "has a good struct page (pfn_valid_within)",
        _unmovable, _READS, ("RAM", "NOMAP", "hole", "D3"), Breaker("map", "NOMAP")),
    Caller(
        "test_pages_isolated", "mm/page_isolation.c", "__test_page_isolated_in_pageblock", 228,
        "has a good struct page (pfn_valid_within)", _isolated, _READS, ("RAM", "NOMAP", "hole", "D3"), Breaker("map", "NOMAP")),
    Caller(
        "unset_migratetype_isolate", "mm/page_isolation.c", "unset_migratetype_isolate", 109,
        "has a good struct page (pfn_valid_within)", _unset_isolate, _READS, ("RAM", "NOMAP", "hole", "D3"),
        Breaker("map", "NOMAP")),
    Caller(
        "__reset_isolation_suitable", "mm/compaction.c", "__reset_isolation_suitable", 243, "has a struct page",
        _isolation_suitable, (*_READS, o.RAM_FOUND), _WALKED, Breaker("False", "RAM")),
    Caller(
        "kmemleak", "mm/kmemleak.c", "kmemleak_scan", 1438, "has a struct page to be scanned",
        lambda k, pfn: kmemleak.kmemleak_scan(k), (*_READS, o.SCANNED), _WALKED, Breaker("False", "RAM")),
    Caller(
        "page_owner init", "mm/page_owner.c", "init_pages_in_zone", 529, "has a struct page", _page_owner_init, _READS, _WALKED,
        Breaker("map", "NOMAP")),
    Caller(
        "page_owner read", "mm/page_owner.c", "read_page_owner", 463, "has a struct page", _page_owner_read, _READS,
        _ANY_TIME, Breaker("map", "NOMAP")),
    Caller(
        "page_ext_init", "mm/page_ext.c", "page_ext_init", 407, "the section has a memmap",
        lambda k, pfn: page_ext.page_ext_init(k), (*_READS, o.HAS_PAGE_EXT), _BOOT_MEMORY, Breaker("map", "NOMAP-first")),
    Caller(
        "page_idle", "mm/page_idle.c", "page_idle_get_page", 35, "has a struct page",
        lambda k, pfn: page_idle.page_idle_bitmap_read(k, pfn), (*_READS, o.PAGE_FOUND), _ANY_TIME,
        Breaker("False", "RAM")),
    Caller(
        "pagetypeinfo", "mm/vmstat.c", "pagetypeinfo_showblockcount_print", 1217, "has a struct page", _pagetypeinfo,
        (*_READS, o.RAM_FOUND), _WALKED, Breaker("False", "RAM")),
    Caller(
        "kpageflags", "fs/proc/page.c", "kpageflags_read", 215, "has a struct page", _kpageflags, (*_READS, o.FLAGS_SHOWN),
        (*_ANY_TIME, "bogus", "ZONE_DEVICE"), Breaker("map", "D1")),
    Caller(
        "kpagecount", "fs/proc/page.c", "kpagecount_read", 44, "has a struct page", _kpagecount, _READS,
        (*_ANY_TIME, "bogus", "ZONE_DEVICE"), Breaker("map", "bogus")),
    Caller(
        "kcore", "fs/proc/kcore.c", "read_kcore", 509, "memory lies behind the address (kern_addr_valid)", _kcore,
        (o.SURVIVES, o.SHOWS_RAM), _ANY_TIME, Breaker("False", "RAM")),
    # Failing memory
    Caller(
        "memory_failure", "mm/memory-failure.c", "memory_failure", 1044, "has a struct page", _hard_offline,
        (*_READS, o.FAILURE_KNOWN), _ANY_TIME, Breaker("map", "D1")),
    Caller(
        "soft_offline_page", "drivers/base/memory.c", "store_soft_offline_page", 536, "has a struct page", _soft_offline,
        (*_READS, o.FAILURE_KNOWN), _ANY_TIME, Breaker("map", "D1")),
    Caller(
        "hwpoison-inject", "mm/hwpoison-inject.c", "hwpoison_inject", 23, "has a struct page",
        lambda k, pfn: hwpoison_inject.hwpoison_inject(k, pfn), (*_READS, o.FAILURE_KNOWN), (*_ANY_TIME, "bogus"),
        Breaker("map", "bogus")),
    # Gigantic pages
    Caller(
        "hugetlb gigantic", "mm/hugetlb.c", "pfn_range_valid_gigantic", 1064, "has a struct page", _gigantic,
        (*_READS, o.GIGANTIC_FREE, o.GIGANTIC_FOUND), _WALKED, Breaker("False", "RAM")),
    # Removal
    Caller(
        "unregister_mem_sect_under_nodes", "drivers/base/node.c", "get_nid_for_pfn", 377,
        "has a good struct page (pfn_valid_within)", _unregister, (*_READS, o.NO_LINK_LEFT), ("D4",),
        Breaker("valid and map", "D4", remedy="generic"),
        config=(("NUMA", True), ("HOLES_IN_ZONE", True))),
    Caller(
        "shrink_zone_span", "mm/memory_hotplug.c", "shrink_zone_span", 676, "does not ask: valid_section()", _shrink,
        (*_READS, o.ZONE_SHRUNK), ("D4",), None),
)
"""All of them, in the order a machine meets them."""

NOT_RUN: dict[str, str] = {
    "mm/memory.c vm_insert_mixed() 1636; include/linux/pfn_t.h pfn_t_has_page() 72": "user page tables are not modelled",
    "mm/memory.c vm_normal_page() 773, 815": "user page tables are not modelled; arm64 and x86_64 have special PTEs",
    "mm/gup.c gup_pte_range() 1204; arch/x86/mm/gup.c 135, 192, 256": "a VM_BUG_ON() on user page tables",
    "mm/frame_vector.c frame_vector_to_pages() 147": "user page tables are not modelled",
    "mm/huge_memory.c split_huge_pages_set() 2274": "debugfs, huge pages are not modelled",
    "mm/cma.c cma_activate_area() 109, 117": "CMA is not modelled",
    "mm/memory_hotplug.c register_page_bootmem_info_node() 246, 289": "bookkeeping for removal of boot memory",
    "mm/memory_hotplug.c scan_movable_pages() 1523, do_migrate_range() 1584": "walk as `hugetlb gigantic` does",
    "mm/page_alloc.c __offline_isolated_pages() 7385, 7393": "walks as `hugetlb gigantic` does",
    "mm/page_alloc.c deferred_init_memmap() 1494": "DEFERRED_STRUCT_PAGE_INIT is not modelled",
    "mm/page_alloc.c mark_free_pages() 2383; kernel/power/snapshot.c mark_nosave_pages() 1046": "part of `hibernation`",
    "kernel/power/snapshot.c clear_free_pages() 1147, swsusp_free() 1471, unpack_orig_pfns() 2213": "resuming is not modelled",
    "mm/page_owner.c pagetypeinfo_showmixedcount_print() 263": "walks as `page_owner init` does",
    "mm/memory-failure.c unpoison_memory() 1395": "asks as `memory_failure` does",
    "mm/internal.h mem_map_next() 365": "huge pages are not modelled",
    "fs/proc/page.c kpagecgroup_read() 260": "memory cgroups are not modelled; asks as `kpagecount` does",
    "drivers/char/mem.c write_kmem() 515": "asks as `/dev/kmem read` does",
    "arch/x86/mm/physaddr.c __virt_addr_valid() 63 in a hole": "it says yes in v4.9; no address that leads there is asked about",
    "arch/arm64: Xen's page-coherent": "Xen is not modelled",
    "kexec, crash dump": "they read memblock and /proc/iomem, and never ask",
}
"""The other places of v4.9 (arm64, x86_64) that ask, and why they have no twin here."""

BY_NAME: dict[str, Caller] = {caller.name: caller for caller in CALLERS}


def observe(caller: Caller, before: Kernel, pfn: int) -> Outcome:
    """Let a caller run on a fork of a machine, and watch."""
    k = before.fork()
    read: list[tuple[int, int]] = []
    k.page_watch = lambda start, nr_pages: read.append((start, nr_pages))
    boot.new_task(k)
    printed = len(k.log.lines)
    result: object = None
    error: KernelError | None = None
    died: KernelBugError | None = None
    try:
        result = caller.run(k, pfn)
    except KernelError as err:
        error = err
    except KernelBugError as err:
        died = err
    k.page_watch = None
    return Outcome(before, k, pfn, result, error, died, tuple(k.log.lines[printed:]), tuple(read))


def judge(caller: Caller, state: str, setting: Setting) -> list[Broken]:
    """
    Build a state, let a caller run in it; returns what broke. `Undecided` goes through.

    Args:
        setting: Architecture, definition, remedy, configuration; what the caller needs of the configuration is added.
    """
    setting = replace(setting, config=(*setting.config, *caller.config))
    try:
        before, pfn = STATES[state].build(setting)
    except KernelBugError as err:
        return [Broken(o.BOOTS.name, f"the machine died on the way to {state}: {err}")]
    try:
        outcome = observe(caller, before, pfn)
    except NobodyCalls:
        return []
    broken = [Broken(promise.name, promise.check(outcome)) for promise in caller.obligations]
    return [found for found in broken if found.text]


def breaks(caller: Caller, breaker: Breaker, definition: Definition) -> list[Broken]:
    """Run a caller under the definition that is said to break it; returns what broke."""
    return judge(caller, breaker.state, Setting(breaker.arch, definition, breaker.remedy))
