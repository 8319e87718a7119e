# SPDX-License-Identifier: GPL-2.0-only
"""
What those who ask pfn_valid() owe the rest of the kernel.

An obligation is judged from what can be observed of a call: what it returned, whether the task died, which struct pages it read,
and the machine afterwards, held against `Truth`. None of them mentions pfn_valid(): a definition is good if nobody's obligation
breaks under it, and for no other reason. Each names the place that promises it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memhp.checker.states import span
from memhp.checker.truth import DEVICE, FIRMWARE, RAM, Truth
from memhp.errors import KernelBugError, KernelError, errno_name
from memhp.linux.include import mmzone
from memhp.linux.include.io import CACHEABLE, LINEAR, Mapping, linear_mapped
from memhp.linux.include.memory import MEM_ONLINE
from memhp.linux.include.page_flags import first_not_reserved
from memhp.linux.mm import internal
from memhp.linux.state import Kernel


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What can be observed of one call.

    Attributes:
        before, after: The machine before and after it.
        pfn: The page it was about.
        result: What it returned; None if it failed or died.
        error: The errno it returned.
        died: How the task died.
        log: Lines it printed.
        read: Struct pages it read, as (first pfn, number).
    """

    before: Kernel
    after: Kernel
    pfn: int
    result: object
    error: KernelError | None
    died: KernelBugError | None
    log: tuple[str, ...]
    read: tuple[tuple[int, int], ...]

    @property
    def truth(self) -> Truth:
        """What was so before the call."""
        return Truth(self.before)

    @property
    def returned(self) -> bool:
        """The call came back without an error."""
        return self.error is None and self.died is None


@dataclass(frozen=True, slots=True)
class Obligation:
    """
    A property that must hold.

    Attributes:
        name: Short.
        text: What is promised.
        source: Who promises it: C file and function of v4.9, or a commit.
        check: (outcome) -> what broke it, in words; "" if it held.
    """

    name: str
    text: str
    source: str
    check: Callable[[Outcome], str]


def _mapping(o: Outcome) -> Mapping | None:
    return o.result if isinstance(o.result, Mapping) else None


# Struct pages


def _survives(o: Outcome) -> str:
    return "" if o.died is None else f"the task died: {o.died}"


def _initialised(o: Outcome) -> str:
    truth = o.truth
    for pfn, nr_pages in o.read:
        first = truth.first_uninitialised(pfn, nr_pages)
        if first >= 0:
            return f"read the struct page of {first:#x} ({truth.kind(first)}), which nobody has initialised"
    return ""


def _ram_is_initialised(o: Outcome) -> str:
    for r in o.after.hardware.memory:
        if "NOMAP" in r.flags:
            continue
        start, end = -(-r.start >> o.after.PAGE_SHIFT), r.end >> o.after.PAGE_SHIFT
        first = Truth(o.after).first_uninitialised(start, end - start)
        if first >= 0:
            return f"boot left the struct page of {first:#x} (RAM) uninitialised"
    return ""


def _walkable(o: Outcome) -> str:
    """Without HOLES_IN_ZONE a walker that found one good page of a pageblock reads all of it."""
    truth, k = Truth(o.after), o.after
    zone = truth.zone(o.pfn)
    if zone is None or not truth.has_memmap(o.pfn) or truth.initialised(o.pfn):
        return ""
    if k.config.HOLES_IN_ZONE and not mmzone.pfn_valid_within(k, o.pfn):
        return ""
    return (
        f"boot left the struct page of {o.pfn:#x} ({truth.kind(o.pfn)}) uninitialised, inside a pageblock of zone {zone.name} "
        "that walkers read as a whole")


def _boot_reserved(o: Outcome) -> str:
    truth, k = Truth(o.after), o.after
    for start, end in k.hardware.reserved:
        pfn = start >> k.PAGE_SHIFT
        kept = not any(a <= start < b for a, b in k.hardware.freed)
        if kept and truth.kind(pfn) == RAM and end > start and not truth.reserved(pfn):
            return f"page {pfn:#x} holds what boot reserved, and does not have PG_reserved"
    return ""


SURVIVES = Obligation(
    "no-oops", "the caller comes back: no struct page is touched that was never made, no address used that is not mapped",
    "include/linux/mmzone.h, comment before memmap_valid_within(): pfn_valid() tells if a pfn has a valid memmap", _survives)
INITIALISED = Obligation(
    "initialised", "no struct page is read that nobody has initialised",
    "6d526ee26ccd arm64: mm: enable CONFIG_HOLES_IN_ZONE for NUMA: what walkers did with such pages", _initialised)
BOOT_RAM = Obligation(
    "init-ram", "boot initialises the struct page of all RAM", "mm/page_alloc.c memmap_init_zone()", _ram_is_initialised)
BOOT_WALKABLE = Obligation(
    "init-walked", "boot initialises every struct page that a walker of pageblocks will read",
    "mm/page_alloc.c move_freepages(): VM_BUG_ON(page_zone(start_page) != page_zone(end_page))", _walkable)
BOOT_RESERVED = Obligation(
    "boot-reserved", "what boot reserved has PG_reserved", "mm/page_alloc.c reserve_bootmem_region()", _boot_reserved)


# Mappings


def _no_alias(o: Outcome) -> str:
    mapping = _mapping(o)
    if mapping is None or mapping.kind in CACHEABLE:
        return ""
    if linear_mapped(o.after, mapping.phys):
        return f"{o.truth.kind(o.pfn)} at {mapping.phys:#x} is in the linear map, cacheable, and is mapped as {mapping.kind}, too"
    return ""


def _device_not_cached(o: Outcome) -> str:
    mapping = _mapping(o)
    if mapping is not None and mapping.kind in CACHEABLE and o.truth.kind(o.pfn) == DEVICE:
        return f"a device at {mapping.phys:#x} was mapped cacheable ({mapping.kind})"
    return ""


def _firmware_not_cached(o: Outcome) -> str:
    mapping = _mapping(o)
    if mapping is not None and mapping.kind in CACHEABLE and o.truth.kind(o.pfn) == FIRMWARE:
        return f"memory that firmware owns, at {mapping.phys:#x}, was mapped cacheable for a process"
    return ""


def _linear_is_mapped(o: Outcome) -> str:
    mapping = _mapping(o)
    if mapping is not None and mapping.kind == LINEAR and not linear_mapped(o.after, mapping.phys, mapping.size):
        return f"the linear address of {mapping.phys:#x} ({o.truth.kind(o.pfn)}) was handed out, and nothing is mapped there"
    return ""


def _reachable(kind: str) -> Callable[[Outcome], str]:
    def check(o: Outcome) -> str:
        if o.truth.kind(o.pfn) != kind or (o.died is None and o.error is None and _mapping(o) is not None):
            return ""
        how = "the task died" if o.died is not None else "it was refused"
        return f"{kind} at {o.pfn << o.before.PAGE_SHIFT:#x} must be had, and {how}"

    return check


def _cacheable(o: Outcome) -> str:
    mapping = _mapping(o)
    if o.truth.is_ram(o.pfn) and mapping is not None and mapping.kind not in CACHEABLE:
        return f"memory at {mapping.phys:#x} was mapped as {mapping.kind}: unaligned access to a table there faults"
    return ""


def _ram_refused(o: Outcome) -> str:
    if o.truth.kind(o.pfn) == RAM and o.returned:
        return f"RAM at {o.pfn << o.before.PAGE_SHIFT:#x} was accepted"
    return ""


def _device_accepted(o: Outcome) -> str:
    if o.truth.kind(o.pfn) == DEVICE and not o.returned:
        return f"a device's registers at {o.pfn << o.before.PAGE_SHIFT:#x} were taken for RAM"
    return ""


def _address_good(o: Outcome) -> str:
    if o.result is True and not o.truth.linear_mapped(o.pfn):
        return f"the linear address of {o.pfn:#x} ({o.truth.kind(o.pfn)}) was called good, and nothing is mapped there"
    return ""


def _ram_address_good(o: Outcome) -> str:
    if o.result is False and o.truth.kind(o.pfn) == RAM and o.truth.linear_mapped(o.pfn):
        return f"the linear address of {o.pfn:#x}, which is RAM and mapped, was called bad"
    return ""


def _shows_ram(o: Outcome) -> str:
    return f"RAM at {o.pfn:#x} is online, and the reader got zeros" if o.result is False and o.truth.online(o.pfn) else ""


def _ram_readable(o: Outcome) -> str:
    return f"RAM at {o.pfn:#x} is online, and could not be read: {o.error}" if o.error and o.truth.online(o.pfn) else ""


NO_ALIAS = Obligation(
    "ram-not-device", "memory that is in the linear map gets no second mapping with another memory type",
    "arch/arm64/mm/ioremap.c __ioremap_caller(): RAM is not to be mapped", _no_alias)
DEVICE_NOT_CACHED = Obligation(
    "device-not-ram", "what is no memory is not mapped as if it were", "arch/arm64/mm/mmu.c phys_mem_access_prot()",
    _device_not_cached)
FIRMWARE_NOT_CACHED = Obligation(
    "firmware-not-cached", "a process gets memory that firmware owns uncached, whatever firmware does with it",
    "873ba463914c arm64: decouple check whether pfn is in linear map from pfn_valid(): phys_mem_access_prot()",
    _firmware_not_cached)
LINEAR_MAPPED = Obligation(
    "linear-mapped", "no linear address is handed out that is not mapped",
    "68709f45385a arm64: only consider memblocks with NOMAP cleared for linear mapping", _linear_is_mapped)
DEVICE_REACHABLE = Obligation(
    "device-reachable", "a device's registers can be mapped", "arch/arm64/mm/ioremap.c __ioremap_caller()", _reachable(DEVICE))
FIRMWARE_REACHABLE = Obligation(
    "firmware-reachable", "tables that firmware left in memory can be mapped",
    "arch/arm64/include/asm/acpi.h acpi_os_ioremap()", _reachable(FIRMWARE))
RAM_REACHABLE = Obligation(
    "ram-reachable", "RAM can be reached where that is allowed", "arch/arm64/mm/ioremap.c ioremap_cache()", _reachable(RAM))
TABLES_CACHEABLE = Obligation(
    "tables-cacheable", "memory is mapped so that unaligned accesses work",
    "09ffcb0d718a arm64: acpi: fix alignment fault in accessing ACPI", _cacheable)
RAM_REFUSED = Obligation(
    "dma-refuses-ram", "RAM is not taken for a device's registers", "include/linux/dma-mapping.h dma_map_resource()",
    _ram_refused)
DEVICE_ACCEPTED = Obligation(
    "dma-accepts-device", "a device's registers can be mapped for another device",
    "3eb9cdffb397 Partially revert \"arm64/mm: drop HAVE_ARCH_PFN_VALID\"", _device_accepted)
STRICT_REFUSES_RAM = Obligation(
    "strict-refuses-ram", "under STRICT_DEVMEM nobody reads RAM through /dev/mem", "arch/arm64/mm/mmap.c devmem_is_allowed()",
    _ram_refused)
ADDRESS_GOOD = Obligation(
    "address-mapped", "an address that is called good is mapped", "arch/arm64/include/asm/memory.h virt_addr_valid()",
    _address_good)
RAM_ADDRESS_GOOD = Obligation(
    "ram-address-good", "addresses of RAM that is mapped are called good", "arch/arm64/include/asm/memory.h virt_addr_valid()",
    _ram_address_good)
SHOWS_RAM = Obligation(
    "shows-ram", "/proc/kcore shows RAM that is online", "fs/proc/kcore.c read_kcore()", _shows_ram)
RAM_READABLE = Obligation(
    "ram-readable", "/dev/mem reads RAM that is online", "drivers/char/mem.c read_mem()", _ram_readable)


# KVM


def _counted(o: Outcome) -> str:
    truth = o.truth
    if o.result is False and not truth.initialised(o.pfn):
        return f"takes references on {o.pfn:#x} ({truth.kind(o.pfn)}), whose struct page nobody has initialised"
    return ""


def _ram_counted(o: Outcome) -> str:
    truth = o.truth
    if o.result is True and truth.online(o.pfn) and truth.referenced(o.pfn) and not truth.reserved(o.pfn):
        return f"takes no reference on {o.pfn:#x}, which is a process's page: it may be freed while the guest has it"
    return ""


def _stage2_ram(o: Outcome) -> str:
    mapping = _mapping(o)
    if mapping is not None and mapping.kind not in CACHEABLE and o.truth.linear_mapped(o.pfn):
        return f"{o.truth.kind(o.pfn)} at {o.pfn:#x} is in the host's linear map, and the guest sees it as {mapping.kind}"
    return ""


COUNTED = Obligation(
    "refcount-exists", "references are counted only in struct pages that somebody initialised",
    "virt/kvm/kvm_main.c kvm_is_reserved_pfn(), kvm_get_pfn()", _counted)
RAM_COUNTED = Obligation(
    "refcount-taken", "a process's page cannot be freed while a guest has it mapped", "virt/kvm/kvm_main.c kvm_get_pfn()",
    _ram_counted)
STAGE2_RAM = Obligation(
    "guest-ram-not-device", "a guest sees memory with the memory type the host has it mapped with",
    "arch/arm/kvm/mmu.c user_mem_abort()", _stage2_ram)


# Hibernation


def _saved(o: Outcome) -> str:
    if not isinstance(o.result, list) or not o.truth.must_be_saved(o.pfn):
        return ""
    if any(start <= o.pfn < end for start, end in o.result):
        return ""
    return f"page {o.pfn:#x} is in use and not in the image: its contents are lost"


SAVED = Obligation(
    "saves-ram", "every page in use is in the image", "kernel/power/snapshot.c, comment before saveable_page()", _saved)


# Hot-add


def _sections(k: Kernel) -> list[int]:
    start, size = span(k)
    return list(range(start >> k.SECTION_SIZE_BITS, start + size >> k.SECTION_SIZE_BITS))


def _added(o: Outcome) -> str:
    if not o.returned:
        return "" if o.died is not None else f"adding failed: {o.error}"
    k = o.after
    lost = [
        nr for nr in _sections(k)
        if not mmzone.valid_section(k.mem_section.get(nr)) or nr // k.sections_per_block not in k.memory_blocks]
    if lost:
        return f"adding {_sections_word(len(_sections(k)))} returned success, and of them {_list(lost)} never appeared: " \
            "-EEXIST was swallowed"
    return ""


def _sections_word(count: int) -> str:
    """Return "1 section" or "2 sections"."""
    return f"{count} section{'s' if count != 1 else ''}"


def _list(numbers: list[int]) -> str:
    return "section " + ", ".join(map(str, numbers)) if len(numbers) == 1 else "sections " + ", ".join(map(str, numbers))


def _reserved_after_add(o: Outcome) -> str:
    k = o.after
    if not o.returned:
        return ""
    for nr in _sections(k):
        section = k.mem_section.get(nr)
        if mmzone.valid_section(section) and section is not None and section.memmap is not None:
            pfn = mmzone.section_nr_to_pfn(k, nr)
            first = first_not_reserved(k, pfn, k.PAGES_PER_SECTION)
            if first >= 0:
                return f"section {nr} was added, and page {first:#x} does not have PG_reserved: it cannot go online"
    return ""


def _not_handed_out(o: Outcome) -> str:
    k = o.after
    for nr in _sections(k):
        block = k.memory_blocks.get(nr // k.sections_per_block)
        if block is None or block.state == MEM_ONLINE:
            continue
        pfn = mmzone.section_nr_to_pfn(k, nr)
        if internal.free_mask(k, pfn, pfn + k.PAGES_PER_SECTION).count(1):
            return f"memory{block.dev_id} is offline, and pages of it are on the free lists"
    return ""


def _second_refused(o: Outcome) -> str:
    if o.returned:
        return "the range was added a second time, and nobody said EEXIST"
    return "" if o.died is not None or (o.error is not None and errno_name(o.error.errno or 0) == "EEXIST") else f"said {o.error}"


def _all_online(o: Outcome) -> str:
    k = o.after
    if not o.returned:
        return "" if o.died is not None else f"going online failed: {o.error}"
    start, size = span(k)
    first, last = start >> k.PAGE_SHIFT, start + size >> k.PAGE_SHIFT
    for nr in _sections(k):
        block = k.memory_blocks.get(nr // k.sections_per_block)
        if block is None or block.state != MEM_ONLINE:
            return f"section {nr} is not online, and nobody was told"
    missing = internal.free_mask(k, first, last).count(0)
    # A few pages of fresh memory may be in use already.
    return f"{missing} pages are online and not to be had" if missing > (last - first) // 16 else ""


def _contiguous(o: Outcome) -> str:
    k = o.after
    if not o.returned:
        return ""
    zone = Truth(k).zone(_sections(k)[0] << k.PFN_SECTION_SHIFT)
    if zone is not None and not zone.contiguous and Truth(k).zone_without_hole(zone):
        return f"zone {zone.name} has no hole, and zone->contiguous is false: compaction looks at every pageblock from now on"
    return ""


ADDED = Obligation(
    "all-added", "when adding returns success, every section of the range is there", "mm/memory_hotplug.c __add_pages()", _added)
SECOND_REFUSED = Obligation(
    "added-once", "a range that is there already is refused", "mm/memory_hotplug.c __add_section(): -EEXIST", _second_refused)
RESERVED = Obligation(
    "reserved-after-add", "every page of an added section has PG_reserved until it goes online",
    "mm/memory_hotplug.c __add_zone(), drivers/base/memory.c pages_correctly_reserved()", _reserved_after_add)
NOT_HANDED_OUT = Obligation(
    "offline-not-handed-out", "pages of an offline block are not on the free lists", "mm/memory_hotplug.c online_pages()",
    _not_handed_out)
ALL_ONLINE = Obligation(
    "goes-online", "a block that was added goes online when told to, all of it",
    "drivers/base/memory.c memory_block_action(); mm/memory_hotplug.c add_memory_resource()", _all_online)
CONTIGUOUS = Obligation(
    "zone-contiguous", "a zone without hole is known to be contiguous", "mm/page_alloc.c set_zone_contiguous()", _contiguous)


# Walkers


def _ram_found(o: Outcome) -> str:
    if o.truth.online(o.pfn) and o.returned and (o.result is None or o.result == 0):
        return f"pageblock of {o.pfn:#x} is RAM that is online, and was passed over"
    return ""


def _page_found(o: Outcome) -> str:
    truth = o.truth
    if o.result is False and truth.online(o.pfn) and truth.referenced(o.pfn) and not truth.reserved(o.pfn) \
            and o.pfn < o.before.max_pfn:
        return f"page {o.pfn:#x} is a process's, and cannot be tracked"
    return ""


def _all_scanned(o: Outcome) -> str:
    if not isinstance(o.result, int) or not o.truth.must_be_saved(o.pfn):
        return ""
    if any(start <= o.pfn < start + nr for start, nr in o.read):
        return ""
    return f"page {o.pfn:#x} is in use and was not scanned: what it points to looks like a leak"


def _has_page_ext(o: Outcome) -> str:
    if not isinstance(o.result, frozenset):
        return ""
    k = o.after
    nr = o.pfn >> k.PFN_SECTION_SHIFT
    truth = Truth(k)
    used = any(
        truth.kind(pfn) == RAM for pfn in range(nr << k.PFN_SECTION_SHIFT, nr + 1 << k.PFN_SECTION_SHIFT, k.pageblock_nr_pages))
    if used and nr not in o.result:
        return f"section {nr} has RAM and got no page_ext: the first look at one there is a NULL pointer"
    return ""


def _flags_shown(o: Outcome) -> str:
    if isinstance(o.result, bytes) and o.truth.online(o.pfn) and int.from_bytes(o.result, "little") >> 20 & 1:
        return f"page {o.pfn:#x} is RAM that is online, and shows as NOPAGE"
    return ""


def _known_to_failure(o: Outcome) -> str:
    if o.truth.online(o.pfn) and o.error is not None and errno_name(o.error.errno or 0) == "ENXIO":
        return f"page {o.pfn:#x} is RAM that is online, and failing memory there is not handled: ENXIO"
    return ""


def _gigantic_is_free(o: Outcome) -> str:
    if not isinstance(o.result, tuple) or not o.result[1]:
        return ""
    start, _, nr_pages = o.result
    busy = internal.free_mask(o.before, start, start + nr_pages).find(0)
    return f"[{start:#x}, +{nr_pages:#x}) was called usable, and page {start + busy:#x} is not free" if busy >= 0 else ""


def _gigantic_found(o: Outcome) -> str:
    if isinstance(o.result, tuple) and not o.result[1] and o.truth.online(o.result[0]):
        start, _, nr_pages = o.result
        if not internal.free_mask(o.before, start, start + nr_pages).count(0):
            return f"[{start:#x}, +{nr_pages:#x}) is free RAM, and was called unusable"
    return ""


def _no_link_left(o: Outcome) -> str:
    k = o.after
    block = k.memory_blocks.get((o.pfn >> k.PFN_SECTION_SHIFT) // k.sections_per_block)
    if block is not None and block.nodes:
        return f"memory{block.dev_id} is going, and its link under node{block.nodes[0]} stays"
    return ""


def _zone_shrunk(o: Outcome) -> str:
    k = o.after
    first = o.pfn - o.pfn % k.PAGES_PER_SECTION
    for pgdat in k.nodes.values():
        for zone in pgdat.node_zones:
            if zone.zone_start_pfn == first and zone.spanned_pages:
                return f"zone {zone.name} still begins with the section at {first:#x}"
    return ""


RAM_FOUND = Obligation(
    "ram-found", "pageblocks of RAM are not passed over", "mm/compaction.c __reset_isolation_suitable()", _ram_found)
PAGE_FOUND = Obligation(
    "page-found", "a process's page can be tracked", "mm/page_idle.c page_idle_get_page()", _page_found)
SCANNED = Obligation(
    "all-scanned", "pages in use are scanned", "mm/kmemleak.c kmemleak_scan()", _all_scanned)
HAS_PAGE_EXT = Obligation(
    "page-ext", "every section with RAM has its page_ext", "mm/page_ext.c lookup_page_ext()", _has_page_ext)
FLAGS_SHOWN = Obligation(
    "shows-flags", "RAM that is online shows its flags", "fs/proc/page.c kpageflags_read()", _flags_shown)
FAILURE_KNOWN = Obligation(
    "failure-handled", "failing RAM that is online is handled", "mm/memory-failure.c memory_failure()", _known_to_failure)
GIGANTIC_FREE = Obligation(
    "gigantic-free", "what is called usable for a gigantic page is free", "mm/hugetlb.c pfn_range_valid_gigantic()",
    _gigantic_is_free)
GIGANTIC_FOUND = Obligation(
    "gigantic-found", "free RAM is called usable", "mm/hugetlb.c alloc_gigantic_page()", _gigantic_found)
NO_LINK_LEFT = Obligation(
    "no-link-left", "a block that goes leaves no link in sysfs", "drivers/base/node.c unregister_mem_sect_under_nodes()",
    _no_link_left)
ZONE_SHRUNK = Obligation(
    "zone-shrunk", "a zone no longer spans a section that went from its edge", "mm/memory_hotplug.c shrink_zone_span()",
    _zone_shrunk)
BOOTS = Obligation(
    "boots", "the machine comes up, and survives what leads to the state", "init/main.c start_kernel()", _survives)

OBLIGATIONS: dict[str, Obligation] = {value.name: value for value in list(globals().values()) if isinstance(value, Obligation)}
"""Every obligation by name."""
