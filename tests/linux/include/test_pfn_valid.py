# SPDX-License-Identifier: GPL-2.0-only
"""
Every definition of pfn_valid() in every state a pfn can be in.

    section 1 (boot)                                       section 2      3      4       5
    |RAM         |NOMAP|RAM   |hole, hole, hole        |   |hot-added|    .   |device|   .
    |A           |B    |A     |C1           |F device  |   |D1..D4   |   C2   |E |E'  |

The states are made by what makes them in the kernel: boot with sparse_init() and subsection_map_init(), memblock,
sparse_add_section().
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from errno import EEXIST

import pytest

from memhp import hardware
from memhp.errors import ConfigError, KernelError
from memhp.hardware import MemoryRange
from memhp.linux import boot, kconfig
from memhp.linux.arch.arm64.mm import init as arm64_init
from memhp.linux.drivers.base import memory
from memhp.linux.fs import sysfs
from memhp.linux.include import mmzone
from memhp.linux.include.memory_hotplug import pfn_to_online_page
from memhp.linux.mm import memblock, memory_hotplug, page_alloc, sparse
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9, V4_9_RFC
from memhp.units import GIB, MIB

TREE = dataclasses.replace(
    V4_9_RFC, has_early_sections=True, has_subsections=True, has_online_sections=True, has_taint_sections=True,
    generic_pfn_valid="G2")
"""v4.9 with the series, and with everything a later pfn_valid() looks at."""
CONFIG = dataclasses.replace(kconfig.default("arm64"), HAVE_ARCH_PFN_VALID=False)

HARDWARE = dataclasses.replace(
    hardware.platform("arm64", mem=512 * MIB),
    memory=(
        MemoryRange(GIB, GIB + 256 * MIB),
        MemoryRange(GIB + 256 * MIB, GIB + 272 * MIB, flags=("NOMAP",)),
        MemoryRange(GIB + 272 * MIB, GIB + 511 * MIB),
    ))
PAGE = 4096
SECTION = GIB // PAGE
HOTADD = 2 * GIB // PAGE
DEVICE = 4 * GIB // PAGE
SUBSECTION = 2 * MIB // PAGE
UPPER = 1 << 63


def booted() -> Kernel:
    return boot.boot(TREE, "arm64", HARDWARE, config=CONFIG)


def in_memblock(k: Kernel, nomap: bool = False) -> None:
    memory_hotplug.register_memory_resource(k, 2 * GIB, GIB)
    memblock.memblock_add_node(k, 2 * GIB, GIB, 0)
    if nomap:
        memblock.memblock_mark_nomap(k, 2 * GIB, GIB)


def with_section(k: Kernel, nomap: bool = False) -> None:
    in_memblock(k, nomap)
    sparse.sparse_add_section(k, 0, HOTADD, SECTION)
    memory_hotplug.__add_zone(k, k.zone(0, k.ZONE_NORMAL), HOTADD)
    memory.register_new_memory(k, 0, HOTADD // SECTION)


def online(k: Kernel) -> None:
    with_section(k)
    sysfs.write(k, "/sys/devices/system/memory/memory2/state", "online")


def removing(k: Kernel) -> None:
    with_section(k)
    memblock.memblock_remove(k, 2 * GIB, GIB)


def device(k: Kernel) -> None:
    memory_hotplug.add_device_pages(k, 0, DEVICE, 4 * SUBSECTION)


def device_in_hole(k: Kernel) -> None:
    memory_hotplug.add_device_pages(k, 0, SECTION + 300 * SUBSECTION, 4 * SUBSECTION)


def nothing(k: Kernel) -> None:
    pass


HOLE = (GIB + 600 * MIB) // PAGE
SHARED_HOLE = (GIB + 511 * MIB) // PAGE
"""The hole's first MiB shares a sub-section with RAM."""

#   case: what happens, the pfn, and what G0 G1 G2 G3  A0 A1 A2 A3 A4  M  O say
CASES: dict[str, tuple[Callable[[Kernel], None], int, str]] = {
    "A": (nothing, (GIB + 128 * MIB) // PAGE, "1111 11111 1 1"),
    "B": (nothing, (GIB + 260 * MIB) // PAGE, "1111 00001 0 1"),
    "C1": (nothing, HOLE, "1111 00000 0 0"),
    "C1 beside RAM": (nothing, SHARED_HOLE, "1111 00000 0 1"),
    "C2": (nothing, 3 * SECTION, "0000 00000 0 0"),
    "D1": (in_memblock, HOTADD, "0000 11000 1 0"),
    "D1n": (lambda k: in_memblock(k, True), HOTADD, "0000 00000 0 0"),
    "D2": (with_section, HOTADD, "1111 11111 1 0"),
    "D2n": (lambda k: with_section(k, True), HOTADD, "1111 00011 0 0"),
    "D3": (online, HOTADD, "1111 11111 1 1"),
    "D4": (removing, HOTADD, "1111 00011 0 0"),
    "E": (device, DEVICE, "1111 00011 0 0"),
    "E'": (device, DEVICE + 4 * SUBSECTION, "1000 00000 0 0"),
    "F": (device_in_hole, SECTION + 300 * SUBSECTION, "1111 00000 0 0"),
    "H": (nothing, (GIB + 128 * MIB) // PAGE | UPPER, "0000 10000 0 0"),
}
NAMES = ("G0", "G1", "G2", "G3", "A0", "A1", "A2", "A3", "A4", "M", "O")


@pytest.mark.parametrize("case", CASES)
def test_truth_table(case: str) -> None:
    """All definitions, one state: as each kernel in history would have answered."""
    happens, pfn, expected = CASES[case]
    k = booted()
    happens(k)
    definitions = {**boot.DEFINITIONS, **arm64_init.BESIDE}
    answers = {name: definitions[name].test(k, pfn) for name in NAMES if name != "O"}
    answers["O"] = pfn_to_online_page(k, pfn) is not None
    assert dict(zip(NAMES, map("1".__eq__, expected.replace(" ", "")), strict=True)) == answers
    for name in answers:
        if name != "O":
            assert definitions[name].decide(k, pfn)[0] == answers[name]


def test_a_taint_decides_by_pagemap() -> None:
    """
    In a tainted early section device pages are not online, RAM beside them is.

        section 1   |RAM ...    |hole     |device|hole|
        online       yes         no        no     no
    """
    k = booted()
    device_in_hole(k)
    assert k.mem_section[1].section_mem_map & mmzone.SECTION_TAINT_ZONE_DEVICE
    assert pfn_to_online_page(k, SECTION + 5) is not None
    assert pfn_to_online_page(k, SECTION + 301 * SUBSECTION) is None
    untainted = booted()
    sparse.sparse_add_section(untainted, 0, SECTION + 300 * SUBSECTION, 4 * SUBSECTION)
    assert pfn_to_online_page(untainted, SECTION + 301 * SUBSECTION) is not None


def test_a_hole_in_an_early_section_has_its_memmap_already() -> None:
    """A device in a hole of a boot section takes no memory for struct pages; one in a section of its own does."""
    k = booted()
    free = sum(zone.nr_free_pages for zone in k.nodes[0].node_zones)
    device_in_hole(k)
    assert free == sum(zone.nr_free_pages for zone in k.nodes[0].node_zones)
    device(k)
    assert free > sum(zone.nr_free_pages for zone in k.nodes[0].node_zones)


def test_a_sub_section_is_added_once() -> None:
    """A second addition that overlaps the first is EEXIST; beside it there is room."""
    k = booted()
    device(k)
    with pytest.raises(KernelError) as caught:
        memory_hotplug.add_device_pages(k, 0, DEVICE + 3 * SUBSECTION, 2 * SUBSECTION)
    assert EEXIST == caught.value.errno
    memory_hotplug.add_device_pages(k, 0, DEVICE + 4 * SUBSECTION, SUBSECTION)
    assert 0b11111 == k.mem_section[4].subsection_map


def test_pfn_to_online_page_asks_the_private_pfn_valid() -> None:
    """With arm64's own pfn_valid() in force, NOMAP memory has no online page, although its section is online."""
    tree = dataclasses.replace(TREE, arm64_pfn_valid="A3")
    k = boot.boot(tree, "arm64", HARDWARE)
    assert "A3" == k.pfn_valid.name
    nomap = (GIB + 260 * MIB) // PAGE
    assert mmzone.online_section(k.mem_section[1])
    assert pfn_to_online_page(k, nomap) is None
    assert pfn_to_online_page(k, nomap - 5 * MIB // PAGE) is not None


def test_a_tree_that_does_not_note_it_has_no_early_or_online_section() -> None:
    """The bits that later definitions ask for are not set in a tree without them."""
    k = boot.boot(V4_9_RFC, "arm64", HARDWARE)
    flags = mmzone.SECTION_MARKED_PRESENT | mmzone.SECTION_HAS_MEM_MAP
    assert {1: flags} == {nr: section.section_mem_map for nr, section in k.mem_section.items()}
    assert 0 == k.mem_section[1].subsection_map


@pytest.mark.parametrize(("name", "lacking"), [
    ("G1", ["has_early_sections", "has_subsections"]), ("G2", ["has_early_sections", "has_subsections"]),
    ("G3", ["has_early_sections", "has_subsections"]), ("A3", ["has_early_sections", "has_subsections"]),
    ("A4", ["has_early_sections", "has_subsections"]),
])
def test_a_definition_needs_its_ingredients(name: str, lacking: list[str]) -> None:
    """v4.9 has neither early sections nor sub-sections; the refusal names both, and what can be had."""
    with pytest.raises(ConfigError) as caught:
        boot.boot(V4_9_RFC, "arm64", HARDWARE, pfn_valid=name)
    assert all(fact in str(caught.value) for fact in lacking)
    assert "G0, A0, A1, A2" in str(caught.value)


def test_an_unknown_definition_is_refused() -> None:
    with pytest.raises(ConfigError, match="A9.*known are G0, G1"):
        boot.boot(V4_9, "x86_64", hardware.platform("x86_64", mem=64 * MIB), pfn_valid="A9")


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("name", ["G0", "A0", "A1", "A2"])
def test_every_definition_that_v4_9_can_have_boots(arch: str, name: str) -> None:
    """All memory that is managed is valid, whatever definition is in force."""
    tree = V4_9 if arch == "x86_64" else V4_9_RFC
    k = boot.boot(tree, arch, hardware.platform(arch, mem=256 * MIB), pfn_valid=name)
    assert name == k.pfn_valid.name
    assert k.totalram_pages > 200 * MIB // PAGE
    for zone in k.nodes[0].node_zones:
        for start, end in page_alloc.free_ranges(k, zone):
            assert [(start, end, True)] == mmzone.pfn_valid_runs(k, start, end)
