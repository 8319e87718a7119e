# SPDX-License-Identifier: GPL-2.0-only
"""
Kernel source trees as facts.

A `Tree` says how one kernel behaves; every field is a fact that somebody can observe. Bodies ask for the fact
(`if k.tree.has_early_sections:`), never for a release number: one release changes many things, and the reader must know
which one matters. A fact carries the commit that made it, where that commit's text was read; else `commit` is empty.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from memhp.errors import ConfigError


def since(release: str, commit: str, title: str) -> Any:
    """A fact that became true in `release` by `commit`."""
    return field(default=False, metadata={"release": release, "commit": commit, "title": title, "how": "since"})


def until(release: str, commit: str, title: str) -> Any:
    """A fact that was true up to, and not in, `release`."""
    return field(default=True, metadata={"release": release, "commit": commit, "title": title, "how": "until"})


def value(default: Any, *steps: tuple[str, Any, str, str]) -> Any:
    """A fact with a value, which `steps` of (release, value, commit, title) changed."""
    release, _, commit, title = steps[-1]
    return field(
        default=default,
        metadata={"release": release, "commit": commit, "title": title, "how": "value", "steps": steps},
    )


def proposed(series: str, title: str) -> Any:
    """A fact that only a patch series on the list has."""
    return field(default=False, metadata={"release": "", "commit": "", "title": title, "how": "series", "series": series})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """
    How one kernel source tree behaves.

    A fact's text is its commit's title where that was seen beside the hash, and else says what changed.

    Attributes:
        release: "v4.9".
        series: Patch series applied on top, in order.
    """

    release: str
    series: tuple[str, ...] = ()

    # include/linux/mmzone.h, mm/sparse.c
    has_online_sections: bool = since(
        "v4.13", "2d070eab2e82", "SECTION_IS_ONLINE and pfn_to_online_page() appear")
    has_early_sections: bool = since(
        "v5.3", "326e1b8f83a4", "mm/sparsemem: introduce a SECTION_IS_EARLY flag")
    has_subsections: bool = since(
        "v5.3", "ba72b4c8cf60", "mm/sparsemem: support sub-section hotplug")
    has_taint_sections: bool = since(
        "v5.12", "1f90a3477df3", "SECTION_TAINT_ZONE_DEVICE: pfn_to_online_page() is right where device memory shares a section")
    pfn_valid_under_rcu: bool = since(
        "v6.8", "5ec8e8ea8b77", "mm/sparsemem: fix race in accessing memory_section->usage")

    # mm/mm_init.c, mm/page_alloc.c, drivers/base: what booting leaves behind. Read off the sources of v4.9, v6.1 and v6.12; which
    # release in between brought what has no commit here is not confirmed.
    free_area_init: bool = since(
        "v5.8", "", "free_area_init() sizes zones from memblock's nodes alone")
    boot_guesses_managed: bool = until(
        "v6.10", "", "until memblock hands over, a zone's managed pages are guessed: those present without their memmap")
    arm64_small_swiotlb: bool = since(
        "v6.5", "", "arm64 keeps small bounce buffers also where devices reach all memory")
    nodes_always_have_data: bool = since(
        "v5.18", "", "every possible node has its data from boot on, also one without memory")
    min_free_kbytes_max: int = value(
        65536, ("v5.9", 262144, "", "min_free_kbytes is chosen up to 256 MiB, not 64"))
    shows_empty_zones: bool = since(
        "v4.12", "", "zoneinfo shows zones without pages, too, in short")
    shown_counters: str = value(
        "v4.9",
        ("v5.10", "v5.10", "", "zoneinfo and meminfo: slab and stacks by node, refaults by kind, reclaimable memory, huge pages"),
        ("v6.1", "v6.1", "", "zoneinfo and meminfo: CMA and boosted watermarks, page tables by node, promotions"),
        ("v6.12", "v6.12", "", "zoneinfo and meminfo: the promotion watermark, demotions, pages of IOMMU tables"),
    )
    pcp_batch_max: int = value(
        512 << 10, ("v4.20", 1 << 20, "", "per-cpu page lists are refilled by 1 MiB at most, not by 512 KiB"))
    pcp_high_by_watermark: bool = since(
        "v5.14", "", "the per-cpu page lists of a zone hold as many pages as its low watermark has")
    movable_watermark_small: bool = since(
        "v6.4", "", "ZONE_MOVABLE keeps no share of min_free_kbytes back, only 32 to 128 pages")
    lowmem_reserve_keeps_managed: bool = since(
        "v5.8", "", "a zone without managed pages reserves none, and ZONE_MOVABLE has no ratio")
    cma_pageblock_aligned: bool = since(
        "v5.18", "", "CMA areas are aligned to a pageblock, not to the largest free block")

    # fs/proc/page.c
    page_readers_ask_online: bool = since(
        "v5.4", "aad5f69bc161", "fs/proc/page.c: don't access uninitialized memmaps in fs/proc/page.c")
    poisoned_again_is_an_action: bool = since(
        "v6.12", "", "poisoning a page twice is reported as a failed recovery action")
    page_tables_have_a_type: bool = since(
        "v4.18", "1d40a5ea01d5", "mm: mark pages in use for page tables")

    # mm/page_alloc.c. Read off the sources of v4.9, v6.1 and v6.12.
    zonelists_of_populated: bool = since(
        "v6.1", "", "zonelists have the zones with present pages, not those with managed ones")
    prints_fallback_order: bool = since(
        "v5.16", "", "\"Fallback order for Node N:\" is logged whenever zonelists are built")
    memoryless_node_is_skipped: bool = since(
        "v6.7", "", "a node without memory does not head its own zonelist")

    # mm/memory_hotplug.c, drivers/base/memory.c
    zones_chosen_at_online: bool = since(
        "v4.13", "f1dd2cd13c4b", "mm, memory_hotplug: do not associate hotadded memory to zones until online")
    memmap_init_sets_reserved: bool = since(
        "v4.17", "d0dc12e86b31", "mm/memory_hotplug: optimize memory hotplug")
    online_checks_reserved: bool = until(
        "v4.17", "d0dc12e86b31", "mm/memory_hotplug: optimize memory hotplug")
    add_section_asks_pfn_valid: bool = until(
        "v5.3", "", "__add_section() and its pfn_valid() test went with sub-section hotplug")
    swallows_eexist: bool = until(
        "v5.3", "", "__add_pages() no longer turns -EEXIST into success")
    block_devices_after_add: bool = since(
        "v5.3", "db051a0dac13", "memory block devices are made for the whole range, once the architecture has added it")
    hotplug_checks_block_range: bool = since(
        "v5.1", "", "hot-add takes whole memory blocks, not whole sections")
    hot_remove_refuses: bool = since(
        "v5.3", "eca499ab3749", "remove_memory() says -EBUSY where it was a BUG()")
    default_online_types: bool = since(
        "v5.7", "5f47adf762b7", "added memory may go online as kernel or movable memory by itself")
    onlines_isolated: bool = since(
        "v5.10", "b30c59279dd8", "pages go online isolated, and to the tail of the free lists")
    free_pages_move_to_tail: bool = since(
        "v5.10", "", "free pages that change their migratetype go to the tail of the free lists, not to the head")
    # Read off the sources of v4.9, v5.10, v6.1 and v6.12: which release in between brought it is not confirmed.
    offline_checks_ram: bool = since(
        "v5.5", "", "offlining refuses a range that is not System RAM throughout; before, a block without all of its sections")
    isolation_reports_page: bool = since(
        "v5.5", "", "every page of a pageblock is looked at before it is isolated, and the one in the way is dumped")
    isolates_single_pageblocks: bool = since(
        "v5.19", "", "the pageblocks at both ends of a range are isolated first")
    isolation_splits_blocks: bool = since(
        "v6.10", "", "a free block that reaches into a pageblock from before it is split when the pageblock is isolated")
    alloc_contig_names_busy: bool = until(
        "v5.13", "", "the range that alloc_contig_range() could not have is logged")
    offline_prints_pages: bool = until(
        "v5.12", "", "\"Offlined Pages N\" is logged")
    node_state_before_zonelists: bool = since(
        "v6.10", "", "a node that lost its last memory is noted as such before zonelists are built")
    migrates_huge_pages_whole: bool = since(
        "v4.14", "", "transparent huge pages are migrated whole, and split only where no other is to be had")
    hugetlb_temporary_pages: bool = since(
        "v4.17", "", "a page of hugetlbfs may be moved to a new one, beyond the size of the pool, for which the old one goes")
    longterm_pins_leave_movable: bool = since(
        "v5.13", "", "pages that are pinned for long are moved out of ZONE_MOVABLE and CMA's area first")
    bootmem_veto_is_logged: bool = since(
        "v5.11", "", "arm64 says which boot memory was not to be offlined")
    offline_disables_pcp: bool = since(
        "v5.11", "", "per-cpu page lists are off while a range is taken offline")
    dump_page_has_no_pointer: bool = since(
        "v6.9", "", "dump_page() prints no pointer")
    memory_block_keeps_zone: bool = since(
        "v5.18", "395f6081bad4", "a memory block knows its zone; blocks in several zones cannot go offline")
    memory_block_counts_poison: bool = since(
        "v6.2", "5033091de814", "a memory block with poisoned pages does not go online again")
    memmap_on_memory_force: bool = since(
        "v6.6", "2d1f649c7c08", "memmap_on_memory=force rounds memmaps up to whole pageblocks")
    memmap_on_memory_per_block: bool = since(
        "v6.8", "6b8f0798b85a", "each block of a device has its memmap on itself; where that cannot be, it lies elsewhere")
    prepare_online_notifier: bool = since(
        "v6.8", "c5f1e2d18909", "MEM_PREPARE_ONLINE and MEM_FINISH_OFFLINE")
    hotplug_pages_offline: bool = since(
        "v6.11", "503b158fc304", "hot-added pages are PageOffline, not reserved, until they go online")
    memmap_on_memory: bool = since(
        "v5.14", "a08a2ae34613", "the memmap can lie on the added memory itself")
    memory_groups: bool = since(
        "v5.15", "028fc57a1c36", "memory blocks belong to memory groups")
    auto_movable: bool = since(
        "v5.15", "e83a437faa62", "the online policy auto-movable")
    checks_mappable_range: bool = since(
        "v5.12", "bca3feaa0764", "the range is checked against what the platform can map")

    arm64_virtio_mem: bool = since(
        "v5.13", "", "the driver of virtio-mem devices is built on arm64, too")

    # kernel/resource.c
    system_ram_inside_others: bool = since(
        "v5.1", "", "a walk over System RAM finds memory inside other resources, such as that of a virtio-mem device")

    # drivers/acpi/scan.c, drivers/virtio/virtio_mem.c
    acpi_rescans_bus: bool = since(
        "v6.9", "", "when a device is plugged in, all devices of its bus that no driver has taken are tried again")
    virtio_mem: bool = since(
        "v5.8", "", "the driver of virtio-mem devices arrived")
    # Read off the sources of v5.10 and v6.1; which release in between brought it is not confirmed.
    virtio_mem_big_blocks: bool = since(
        "v5.11", "", "virtio-mem has a mode for big blocks, and counts how many bytes of it are offline, not how many blocks")
    virtio_mem_knows_movable: bool = since(
        "v5.14", "", "virtio-mem takes memory from ZONE_MOVABLE before it takes any from kernel zones")
    virtio_mem_pageblocks: bool = since(
        "v5.19", "", "subblocks may be as small as a pageblock")
    virtio_mem_retries_removal: bool = since(
        "v6.6", "", "virtio-mem tries again to remove blocks that have no plugged memory, and stops when asked for another size")

    # mm/memblock.c
    memblock_clear_nomap: bool = since(
        "v4.12", "", "memblock_clear_nomap() arrived with kdump on arm64")
    nomap_memmap_initialised: bool = since(
        "v5.14", "9092d4f7a1f8", "memblock: update initialization of reserved pages")
    # The following were read off the sources of v4.9, v6.1 and v6.12; which release in between brought what has no commit here is
    # not confirmed.
    memblock_cap_memory_range: bool = since(
        "v4.11", "", "memory can be capped at both ends (memblock_cap_memory_range()), NOMAP ranges excepted")
    config_movable_node: bool = until(
        "v4.13", "", "movable_node and bottom-up allocation no longer need a CONFIG_ symbol")
    memblock_prints_padded: bool = since(
        "v4.18", "", "memblock prints every address with 16 digits")
    memblock_flags_are_int: bool = since(
        "v4.19", "", "flags of a memblock region take 4 bytes, so that a region takes 24 with its node, not 32")
    memblock_exact_nid: bool = since(
        "v5.5", "", "memblock_alloc*() replaced memblock_virt_alloc*(); an allocation may insist on its node")
    memblock_node_needs_numa: bool = since(
        "v5.8", "", "memblock's regions have nodes exactly under CONFIG_NUMA")
    memblock_bottom_up_above_kernel: bool = until(
        "v5.11", "", "bottom-up allocations may start below the kernel image, and no longer fall back to top-down")
    memblock_reserved_never_skipped: bool = since(
        "v5.14", "", "walks over reserved regions heed neither node nor flags")
    memblock_overlaps_region_caps: bool = since(
        "v5.14", "", "memblock_overlaps_region() cuts its range at the top of the address space")
    memblock_walks_hotplug: bool = since(
        "v5.15", "", "a walk over memory may ask for HOTPLUG regions under movable_node")
    memblock_driver_managed: bool = since(
        "v5.16", "", "memblock_add_node() takes flags, MEMBLOCK_DRIVER_MANAGED among them")
    memblock_free_takes_pointer: bool = since(
        "v5.16", "", "memblock_free() takes a pointer; physical addresses go to memblock_phys_free()")
    memblock_mirror_needs_kernelcore: bool = since(
        "v6.0", "", "mirrored memory is noted only under kernelcore=mirror")
    memblock_inserts_at_once: bool = since(
        "v6.0", "28e1a8f4b0ff", "memblock: avoid some repeat when add new range")
    memblock_merges_nearby: bool = since(
        "v6.3", "", "after a change only the touched regions and their neighbours are merged, not the whole array")
    memblock_reserved_get_nodes: bool = since(
        "v6.5", "", "before memory goes to the page allocator reserved regions get the node of the memory they lie in")
    memblock_debugfs_flags: bool = since(
        "v6.6", "", "memblock's files in debugfs show node and flags")
    memblock_rsrv_noinit: bool = since(
        "v6.8", "", "reserved regions can be marked MEMBLOCK_RSRV_NOINIT")
    memblock_dummy_region: bool = until(
        "v6.10", "", "an array without regions has none, no dummy of size 0")
    memblock_any_invalid_node: bool = since(
        "v6.11", "", "every node number out of range means any node; MAX_NUMNODES no longer draws a warning")
    memblock_phys_alloc_checks_slab: bool = since(
        "v6.11", "", "allocating from memblock when slab works is warned of for physical addresses, too")
    memblock_resize_panics: bool = since(
        "v6.12", "", "an array that is full before memblock_allow_resize() is a panic, not -ENOMEM")

    # mm/sparse-vmemmap.c
    has_p4d: bool = since(
        "v4.12", "", "the virtual memmap's tables may have five levels")

    # arch/x86
    x86_ldt_below_linear_map: bool = since(
        "v4.20", "", "the linear map begins half a TiB later, behind the LDT")
    x86_splits_no_leaf: bool = since(
        "v5.13", "", "removing a part of what a 1 GiB leaf maps is no longer provided for")
    physmem_end: bool = since(
        "v6.12", "", "PHYSMEM_END: memory may not end where the linear map cannot, which KASLR or the address bits decide")

    # arch/arm64
    arm64_hotplug: bool = since(
        "v5.0", "4ab215061554", "arm64: Add memory hotplug support")
    arm64_linear_map_low: bool = since(
        "v5.4", "", "the linear map is the lower half of the kernel's addresses, not the upper")
    arm64_physmem_end: bool = since(
        "v6.12", "", "PHYSMEM_END is the end of the linear map")
    arm64_kfence_wants_pages: bool = since(
        "v5.17", "", "the linear map is made of pages also where KFENCE may be switched on late")
    arm64_checks_linear_region: bool = value(
        False, ("v5.10", True, "", "hot-add outside the linear map is -EINVAL, with a line in the log"),
        ("v5.12", False, "", "generic code asks for the mappable range, and says -E2BIG"))
    arm64_vmemmap_parts_are_pmds: bool = until(
        "v5.13", "", "the memmap of a part of a section is made of single pages, also with 4K pages")
    arm64_vmemmap_by_va_bits: bool = since(
        "v5.11", "", "the virtual memmap begins at a power of two")
    arm64_vmemmap_below_top: bool = since(
        "v6.9", "", "the virtual memmap ends 1 GiB below the top")
    arm64_hot_remove: bool = since(
        "v5.7", "bbd6ec605c0f", "arm64/mm: Enable memory hot remove")
    arm64_vmalloc_kib: int = value(
        135290290112,
        ("v5.10", 135290159040, "", "where the vmalloc area ends"),
        ("v6.1", 133143592960, "", "where the vmalloc area ends"),
        ("v6.12", 135288315904, "", "where the vmalloc area ends"),
    )
    arm64_zone_dma32: bool = since(
        "v4.16", "", "arm64 has ZONE_DMA32")
    arm64_zone_dma_by_firmware: bool = since(
        "v5.11", "", "firmware says how far ZONE_DMA reaches, 4 GiB at most where RAM begins below")
    arm64_hotplug_raises_max_pfn: bool = since(
        "v5.16", "8fac67ca236b", "hot-add raises max_pfn on arm64")
    arm64_hotplug_lowers_max_pfn: bool = until(
        "v6.1", "", "max_pfn becomes the end of what was added last, also if that is lower")
    arm64_vmemmap_falls_back: bool = since(
        "v5.11", "", "where no block for the memmap is to be had, single pages are taken")
    arm64_altmap_falls_back: bool = until(
        "v6.2", "", "an altmap without room for a block of the memmap is -ENOMEM, single pages are not tried")
    arm64_section_size_bits: int = value(
        30, ("v5.12", 27, "f0b13ee23241", "arm64/sparsemem: reduce SECTION_SIZE_BITS"))
    arm64_pfn_valid: str = value(
        "A0",
        ("v4.19", "A1", "5ad356eabc47", "arm64: mm: check for upper PAGE_SHIFT bits in pfn_valid()"),
        ("v5.0", "A2", "4ab215061554", "arm64: Add memory hotplug support"),
        ("v5.12", "A3", "eeb0753ba27b", "arm64/mm: Fix pfn_valid() for ZONE_DEVICE based memory"),
        ("v5.14", "A4", "3eb9cdffb397", "Partially revert \"arm64/mm: drop HAVE_ARCH_PFN_VALID\""),
        ("v5.16", "", "3de360c3fdb3", "arm64/mm: drop HAVE_ARCH_PFN_VALID"),
    )
    pfn_is_map_memory: bool = since(
        "v5.14", "873ba463914c", "arm64: decouple check whether pfn is in linear map from pfn_valid()")
    holes_in_zone: bool = until(
        "v5.15", "859a85ddf90e", "mm: remove pfn_valid_within() and CONFIG_HOLES_IN_ZONE")
    generic_pfn_valid: str = value(
        "G0",
        ("v5.3", "G1", "ba72b4c8cf60", "mm/sparsemem: support sub-section hotplug"),
        ("v5.14", "G2", "", "the upper bits of a pfn are checked"),
        ("v6.8", "G3", "5ec8e8ea8b77", "mm/sparsemem: fix race in accessing memory_section->usage"),
    )

    # patch series
    arm64_nomap_window: bool = proposed("arm64-rfc-2016", "Memory hotplug support for arm64 platform")

    @property
    def name(self) -> str:
        """As in a machine URL: "v4.9+arm64-rfc-2016"."""
        return "+".join((self.release, *self.series))


def facts() -> list[dataclasses.Field[Any]]:
    """Return the fields of `Tree` that are facts, in the order they are written."""
    return [f for f in dataclasses.fields(Tree) if "how" in f.metadata]


def version_key(release: str) -> tuple[int, int]:
    """Return "v5.10" as (5, 10), for ordering."""
    major, minor = release.removeprefix("v").split(".")[:2]
    return int(major), int(minor)


def at(release: str, **changes: Any) -> Tree:
    """Return the tree of a release: each fact as its commit left it, with `changes` for what a distribution ported back."""
    known: dict[str, Any] = {}
    when = version_key(release)
    for f in facts():
        meta = f.metadata
        if meta["how"] == "since":
            known[f.name] = when >= version_key(meta["release"])
        elif meta["how"] == "until":
            known[f.name] = when < version_key(meta["release"])
        elif meta["how"] == "value":
            known[f.name] = f.default
            for step_release, step_value, _, _ in meta["steps"]:
                if when >= version_key(step_release):
                    known[f.name] = step_value
    return Tree(release=release, **{**known, **changes})


V4_9 = at("v4.9")
V5_10 = at("v5.10", arm64_pfn_valid="A3", arm64_hotplug_raises_max_pfn=True)
V6_1 = at("v6.1", physmem_end=True, generic_pfn_valid="G3", pfn_valid_under_rcu=True)
V6_12 = at("v6.12")
V4_9_RFC = dataclasses.replace(V4_9, series=("arm64-rfc-2016",), arm64_nomap_window=True, memblock_clear_nomap=True)

TREES: dict[str, Tree] = {tree.name: tree for tree in (V4_9, V4_9_RFC, V5_10, V6_1, V6_12)}


def find(name: str) -> Tree:
    """
    Return the tree of that name.

    Raises:
        ConfigError: no such tree; names those there are.
    """
    try:
        return TREES[name]
    except KeyError:
        raise ConfigError(f"no tree {name!r}: known are {', '.join(TREES)}") from None


@dataclass(frozen=True, slots=True)
class Change:
    """One fact in which two trees differ."""

    fact: str
    before: Any
    after: Any
    release: str
    commit: str
    title: str


def changes(old: Tree, new: Tree) -> list[Change]:
    """Return the facts in which `new` differs from `old`, oldest change first."""
    found: list[tuple[tuple[int, int], Change]] = []
    for f in facts():
        before, after = getattr(old, f.name), getattr(new, f.name)
        if before == after:
            continue
        meta = f.metadata
        release, commit, title = meta["release"], meta["commit"], meta["title"]
        for step_release, step_value, step_commit, step_title in meta.get("steps", ()):
            if step_value in (after, before):
                release, commit, title = step_release, step_commit, step_title
                if step_value == after:
                    break
        found.append((version_key(release) if release else (0, 0), Change(f.name, before, after, release, commit, title)))
    found.sort(key=lambda pair: pair[0])
    return [change for _, change in found]
