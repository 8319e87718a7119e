# SPDX-License-Identifier: GPL-2.0-only
"""Who depends on pfn_valid() in v4.9: they keep what they owe where history says so, and each has a definition that breaks it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

from memhp.checker import obligations
from memhp.checker.callers import BY_NAME, CALLERS, NOT_RUN, Caller, breaks, judge, observe
from memhp.checker.derive import Undecided, space_of, table
from memhp.checker.expression import definition
from memhp.checker.obligations import OBLIGATIONS
from memhp.checker.states import STATES, TREES, Setting

CSOURCE = Path(__file__).parents[1] / "data" / "csource" / "v4.9.json"
SHIPPED = {"arm64": "A0", "x86_64": "G0"}

HOLES = {"memmap_init_zone", "move_freepages", "has_unmovable_pages", "test_pages_isolated", "unset_migratetype_isolate",
         "page_owner init", "page_owner read"}
"""Who reads, or leaves to be read, a struct page that boot skipped: the memmap BUG seen on ThunderX, until HOLES_IN_ZONE."""
RACING = {"kpageflags", "kpagecount", "memory_failure", "soft_offline_page", "hwpoison-inject"}
"""Readers that no lock keeps out while memory is added."""
DEV_MEM = {("/dev/mem read", "NOMAP"), ("/dev/mem read", "hole"), ("/dev/mem read", "absent"), ("/dev/mem read", "D3")}
"""On arm64 read_mem() goes by PHYS_OFFSET and high_memory, which no hot-add raises: no definition has a part in it."""

KNOWN: dict[str, set[tuple[str, str]]] = {
    "arm64": {
        *((name, state) for name in HOLES for state in ("NOMAP", "hole")),
        ("memmap_init_zone", "NOMAP-first"),
        ("page_ext_init", "NOMAP-first"),
        *((name, "D1") for name in RACING),
        *((name, "bogus") for name in ("kpageflags", "kpagecount", "hwpoison-inject")),
        ("set_zone_contiguous", "D0"),
        ("kvm_is_device_pfn", "ZONE_DEVICE"),
        *DEV_MEM,
    },
    "x86_64": {("dma_map_resource", "hole")},
}
"""What v4.9 as shipped (on arm64 with the 2016 series) breaks: all of it is known to history."""


@cache
def broken(arch: str, name: str, remedy: str = "") -> dict[tuple[str, str], list[str]]:
    """Every caller in every state it may be in: what broke."""
    found = {}
    for caller in CALLERS:
        for state in STATES:
            if caller.applies(state, arch):
                names = [b.obligation for b in judge(caller, state, Setting(arch, definition(name), remedy))]
                if names:
                    found[caller.name, state] = names
    return found


@pytest.mark.parametrize("arch", sorted(SHIPPED))
def test_silent_where_history_says_all_is_well(arch: str) -> None:
    """The kernel as shipped breaks exactly what is known to be broken in it."""
    assert KNOWN[arch] == set(broken(arch, SHIPPED[arch]))


@pytest.mark.parametrize("caller", [c for c in CALLERS if c.broken_by is not None], ids=lambda c: c.name)
def test_each_has_a_definition_that_breaks_it(caller: Caller) -> None:
    """The definition that a caller names really breaks one of its obligations, and not by keeping the machine from booting."""
    breaker = caller.broken_by
    assert breaker is not None
    assert caller.applies(breaker.state, breaker.arch)
    names = {b.obligation for b in breaks(caller, breaker, definition(breaker.definition))}
    assert names & {promise.name for promise in caller.obligations}, names


@pytest.mark.parametrize("caller", [c for c in CALLERS if c.broken_by is None], ids=lambda c: c.name)
def test_those_who_do_not_depend_on_it(caller: Caller) -> None:
    """Where a caller says that no definition breaks it, the answer is the same under very different ones."""
    for state in caller.states:
        for arch in sorted(SHIPPED):
            if not caller.applies(state, arch):
                continue
            remedy = "generic" if arch == "arm64" else ""
            outcomes = {
                tuple(b.obligation for b in judge(caller, state, Setting(arch, definition(name), remedy)))
                for name in ("G0", "valid and map", "valid and mb")}
            assert 1 == len(outcomes), (state, arch, outcomes)


def test_the_private_version_dropped_alone() -> None:
    """
    arm64 with the generic definition, and callers as they are: those who meant "RAM in the linear map" break on firmware's memory
    and on holes, nobody breaks elsewhere; the walkers are healed. Tried in v5.14, taken back within one release.
    """
    found = set(broken("arm64", "G0", "generic"))
    meant_ram = {
        "arm64 ioremap", "arm64 ioremap_cache", "memremap", "/dev/mem mmap", "/dev/kmem mmap", "virt_addr_valid", "hibernation"}
    assert {
        *((name, state) for name in meant_ram for state in ("NOMAP", "hole")),
        ("arm64 acpi_os_ioremap", "NOMAP"), ("arm64 acpi_os_ioremap", "hole"),
        ("dma_map_resource", "hole"), ("kvm_is_device_pfn", "hole"), *DEV_MEM,
    } == found


def test_the_section_put_in_front() -> None:
    """
    History's first step, A2 (v5.0): with it and a plain hot-add only old troubles stay, and every phase of hot-add is well. What
    is new waits for removal: D4, where memblock has forgotten the range.
    """
    found = set(broken("arm64", "A2", "generic"))
    assert {("unregister_mem_sect_under_nodes", "D4")} == found - KNOWN["arm64"]
    healed = KNOWN["arm64"] - found
    assert {"D0", "D1", "bogus"} == {state for _, state in healed}
    assert {("set_zone_contiguous", "D0")} | {(name, "D1") for name in RACING} <= healed


def story(caller: str, state: str, name: str, remedy: str) -> dict[str, str]:
    found = judge(BY_NAME[caller], state, Setting("arm64", definition(name), remedy))
    return {b.obligation: b.text for b in found}


def test_the_first_page_remedy_loses_the_second_section() -> None:
    """Only the first page was NOMAP, so the second section was taken for present: adding returned success all the same."""
    text = story("__add_section", "D0", "A0", "firstpage")["all-added"]
    assert "of them section 3 never appeared: -EEXIST was swallowed" in text


def test_without_the_hack_a_block_stays_offline_and_nobody_is_told() -> None:
    """memhp_default_state=online meets `nohack`: not reserved, so not onlined, and add_memory() returned success."""
    assert {"goes-online"} == story("auto-online", "D0", "A0", "nohack").keys()
    assert "nobody was told" in story("auto-online", "D0", "A0", "nohack")["goes-online"]


def test_a_reader_of_kpageflags_dies_after_an_add_that_did_nothing() -> None:
    """nonomap-nohack: memblock has the range, no section does, and the reader believes pfn_valid(). (Recorded.)"""
    assert "memmap was never made" in story("kpageflags", "D2", "A0", "nonomap-nohack")["no-oops"]
    assert {} == story("kpageflags", "D2", "A0", "full")


def test_the_hack_costs_the_zone_its_contiguity() -> None:
    """set_zone_contiguous() runs while the range is NOMAP, and nobody asks again."""
    assert {"zone-contiguous"} == story("set_zone_contiguous", "D0", "A0", "full").keys()
    assert {} == story("set_zone_contiguous", "D0", "A2", "generic")


def test_removal_forgets_memblock_first() -> None:
    """D4: what tears down by pfn_valid() finds nothing to do once memblock has forgotten the range."""
    assert {"no-link-left"} == story("unregister_mem_sect_under_nodes", "D4", "A2", "generic").keys()
    assert {} == story("unregister_mem_sect_under_nodes", "D4", "G0", "generic")
    assert {} == story("shrink_zone_span", "D4", "A2", "generic"), "it asks valid_section()"


def test_hot_add_makes_no_link_under_the_hack() -> None:
    """With HOLES_IN_ZONE a block that is registered while its range is NOMAP is linked to no node: get_nid_for_pfn() says -1."""
    setting = Setting("arm64", definition("A0"), "full", (("NUMA", True), ("HOLES_IN_ZONE", True)))
    k, pfn = STATES["D2"].build(setting)
    assert () == k.memory_blocks[pfn >> k.PFN_SECTION_SHIFT].nodes


def test_holes_in_zone_heals_the_walkers() -> None:
    """6d526ee26ccd: with HOLES_IN_ZONE pfn_valid_within() is a test, and nobody reads what boot skipped."""
    for name in HOLES:
        for state in ("NOMAP", "hole"):
            setting = Setting("arm64", definition("A0"), config=(("HOLES_IN_ZONE", True),))
            assert [] == judge(BY_NAME[name], state, setting), (name, state)


ROWS = {
    "__add_section": "__add_section",
    "__add_zone reserve loop": "__add_zone",
    "pages_correctly_reserved": "pages_correctly_reserved",
    "memmap_init_zone": "memmap_init_zone",
    "arm64 __ioremap_caller": "arm64 ioremap",
    "arm64 ioremap_cache": "arm64 ioremap_cache",
    "try_ram_remap": "memremap",
    "phys_mem_access_prot": "/dev/mem mmap",
    "mmap_kmem": "/dev/kmem mmap",
    "/dev/kmem": "/dev/kmem read",
    "valid_phys_addr_range": "/dev/mem read",
    "devmem_is_allowed": "STRICT_DEVMEM",
    "virt_addr_valid": "virt_addr_valid",
    "kern_addr_valid": "kern_addr_valid",
    "kvm_is_reserved_pfn": "kvm_is_reserved_pfn",
    "kvm_is_device_pfn": "kvm_is_device_pfn",
    "saveable_page": "hibernation",
    "acpi_os_ioremap": "arm64 acpi_os_ioremap",
    "dma_map_resource": "dma_map_resource",
    "__pageblock_pfn_to_page": "pageblock_pfn_to_page",
    "set_zone_contiguous": "set_zone_contiguous",
    "move_freepages": "move_freepages",
    "has_unmovable_pages": "has_unmovable_pages",
    "test_pages_isolated": "test_pages_isolated",
    "unset_migratetype_isolate": "unset_migratetype_isolate",
    "page_owner walk": "page_owner init",
    "page_owner file": "page_owner read",
    "__reset_isolation_suitable": "__reset_isolation_suitable",
    "kmemleak scan": "kmemleak",
    "page_ext": "page_ext_init",
    "page_idle": "page_idle",
    "vmstat pagetypeinfo": "pagetypeinfo",
    "/proc/kpageflags": "kpageflags",
    "/proc/kpagecount": "kpagecount",
    "memory-failure": "memory_failure",
    "soft offline": "soft_offline_page",
    "/proc/kcore": "kcore",
    "hugetlb gigantic": "hugetlb gigantic",
    "shrink_zone_span helpers": "shrink_zone_span",
}
"""The consumers of pfn_valid() in v4.9 -> their names here."""
NOT_RUN_ROWS = ("vm_normal_page", "frame_vector", "cma", "gup", "huge_memory", "scan_movable_pages", "do_migrate_range",
                "__offline_isolated_pages", "kexec", "Xen")


def test_every_consumer_is_here_or_says_why_not() -> None:
    """The list of consumers is complete: each runs, or is named with the reason why it does not."""
    assert set() == {name for name in ROWS.values() if name not in BY_NAME}
    reasons = " ".join(NOT_RUN)
    assert [] == [name for name in NOT_RUN_ROWS if name not in reasons]


def test_callers_are_well_formed() -> None:
    """Names are unique; states, obligations and places exist; every obligation is owed by somebody and says who promises it."""
    assert len(CALLERS) == len(BY_NAME)
    for caller in CALLERS:
        assert set(caller.states) <= set(STATES), caller.name
        assert caller.obligations, caller.name
        assert caller.line > 0
        assert re.fullmatch(r"[a-z0-9_]+(/[a-zA-Z0-9_-]+)+\.[ch]", caller.c_file), caller.c_file
        assert caller.c_function.isidentifier()
        assert set(caller.arches) <= set(TREES)
    owed = {promise.name for caller in CALLERS for promise in caller.obligations}
    assert set(OBLIGATIONS) - {"boots"} == owed
    for promise in OBLIGATIONS.values():
        assert promise.source and promise.text
        assert "pfn_valid" not in promise.text, "an obligation is judged without asking it"


def test_places_are_those_of_the_c_tree() -> None:
    """Where the index of the C tree has the function, the line lies inside it."""
    files = json.loads(CSOURCE.read_text())["files"]
    checked = 0
    for caller in CALLERS:
        ranges = files.get(caller.c_file, {}).get(caller.c_function)
        if ranges is not None:
            checked += 1
            assert any(first <= caller.line <= last for first, last in ranges), (caller.name, caller.line, ranges)
    assert checked > 10


def test_a_question_that_is_not_decided_goes_through() -> None:
    """A table that does not know is not mistaken for a kernel that dies."""
    space = space_of(TREES["arm64"])
    with pytest.raises(Undecided):
        judge(BY_NAME["kpageflags"], "RAM", Setting("arm64", table(space, {})))


def test_watching_changes_nothing_and_ends() -> None:
    """What a caller reads is seen; the machine it ran on is untouched, and forks start unwatched."""
    k, pfn = STATES["RAM"].build(Setting("arm64", definition("A0")))
    before = (k.memblock.memory.regions[:], dict(k.mem_section), len(k.log.lines))
    outcome = observe(BY_NAME["kpageflags"], k, pfn)
    assert any(start <= pfn < start + nr for start, nr in outcome.read)
    assert before == (k.memblock.memory.regions[:], dict(k.mem_section), len(k.log.lines))
    assert k.page_watch is None
    outcome.after.page_watch = lambda start, nr: None
    assert outcome.after.fork().page_watch is None


def test_without_debug_vm_the_wrong_zone_is_found_by_nobody() -> None:
    """The BUG is a VM_BUG_ON(): without DEBUG_VM the uninitialised page is still read, and nothing says so."""
    setting = Setting("arm64", definition("A0"), config=(("DEBUG_VM", False),))
    names = [b.obligation for b in judge(BY_NAME["move_freepages"], "NOMAP", setting)]
    assert [obligations.INITIALISED.name] == names
