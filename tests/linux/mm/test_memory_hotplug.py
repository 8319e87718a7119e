# SPDX-License-Identifier: GPL-2.0-only
"""Adding memory: new nodes, and what a failure in the middle leaves behind."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOMEM

import pytest
from tests import invariants

from memhp import hardware
from memhp.errors import KernelBugError, KernelError, KernelHangError
from memhp.linux import boot
from memhp.linux.drivers.acpi import acpi_memhotplug
from memhp.linux.fs import sysfs
from memhp.linux.include import mmzone
from memhp.linux.include.acpi_bus import AcpiDevice
from memhp.linux.include.mmzone import N_MEMORY, N_NORMAL_MEMORY, N_ONLINE
from memhp.linux.mm import memory_hotplug
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9, V4_9_RFC
from memhp.units import GIB, MIB

MEMORY = "/sys/devices/system/memory"
NODE = "/sys/devices/system/node"
SECTION = 128 * MIB
HUGE = 64 * SECTION
BOOT_BLOCKS = frozenset(range(32))


def x86(*nodes: int, mem: int = 0) -> Kernel:
    return boot.boot(V4_9, "x86_64", hardware.platform("x86_64", mem=mem or sum(nodes), nodes=nodes))


def arm64(remedy: str, mem: int) -> Kernel:
    return boot.boot(V4_9_RFC, "arm64", hardware.platform("arm64", mem=mem), remedy=remedy)


def text(k: Kernel, path: str) -> str:
    return sysfs.read(k, path).decode().strip()


# A node that has no memory yet


def test_a_dimm_brings_a_node_online() -> None:
    """
    Node 1 is possible. A DIMM for it makes it online; it has memory once a block of it goes online.

        4G  [ memory32 ][ memory33 ]   node 1
    """
    k = x86(512 * MIB, 0)
    assert ("0", "0-1", "0") == (text(k, f"{NODE}/online"), text(k, f"{NODE}/possible"), text(k, f"{NODE}/has_normal_memory"))
    assert 1 not in k.nodes
    acpi_memhotplug.acpi_memory_device_add(k, AcpiDevice("PNP0C80:00", 4 * GIB, 2 * SECTION, 1))
    assert ("0-1", "0") == (text(k, f"{NODE}/online"), text(k, f"{NODE}/has_normal_memory"))
    assert ["distance", "meminfo", "memory32", "memory33", "uevent"] == sysfs.listdir(k, f"{NODE}/node1")
    assert "node1" in sysfs.listdir(k, f"{MEMORY}/memory33")
    assert "MemTotal:              0 kB" in text(k, f"{NODE}/node1/meminfo")
    sysfs.write(k, f"{MEMORY}/memory32/state", "online")
    assert frozenset({0, 1}) == k.node_states[N_NORMAL_MEMORY] == k.node_states[N_MEMORY]
    assert f"MemTotal:         {SECTION >> 10} kB" in text(k, f"{NODE}/node1/meminfo")
    normal = k.zone(1, k.ZONE_NORMAL)
    assert (4 * GIB >> 12, 2 * SECTION >> 12, SECTION >> 12) == (
        normal.zone_start_pfn, normal.spanned_pages, normal.present_pages)
    assert ((1, k.ZONE_NORMAL), (0, 0)) == k.nodes[1].node_zonelist
    assert ((0, 0), (1, k.ZONE_NORMAL)) == k.nodes[0].node_zonelist
    invariants.check(k, boot_blocks=BOOT_BLOCKS)


def test_movable_memory_needs_normal_memory_first() -> None:
    """Without CONFIG_MOVABLE_NODE a node may not get movable memory before it has normal memory."""
    k = x86(512 * MIB, 0)
    memory_hotplug.add_memory(k, 1, 4 * GIB, 2 * SECTION)
    with pytest.raises(KernelError) as caught:
        sysfs.write(k, f"{MEMORY}/memory33/state", "online_movable")
    assert (EINVAL, "online_pages") == (caught.value.errno, caught.value.where)
    sysfs.write(k, f"{MEMORY}/memory32/state", "online_kernel")
    sysfs.write(k, f"{MEMORY}/memory33/state", "online_movable")
    assert "Movable" == text(k, f"{MEMORY}/memory33/valid_zones").split()[0]
    assert SECTION >> 12 == k.zone(1, k.ZONE_MOVABLE).present_pages
    invariants.check(k, boot_blocks=BOOT_BLOCKS)


def test_a_node_is_set_up_only_once() -> None:
    """A second range for the new node widens the zone that is there."""
    k = x86(512 * MIB, 0)
    memory_hotplug.add_memory(k, 1, 4 * GIB, SECTION)
    pgdat = k.nodes[1]
    memory_hotplug.add_memory(k, 1, 4 * GIB + 4 * SECTION, SECTION)
    assert pgdat is k.nodes[1]
    assert 5 * SECTION >> 12 == pgdat.node_spanned_pages == pgdat.node_zones[k.ZONE_NORMAL].spanned_pages


@pytest.mark.parametrize(("address", "nid"), [
    (0, 0), (255 * MIB, 0), (256 * MIB, 1), (511 * MIB, 1), (4 * GIB, 0), (640 * 1024, 0)])
def test_memory_add_physaddr_to_nid(address: int, nid: int) -> None:
    """An address that firmware gave to no node belongs to the first one."""
    k = x86(256 * MIB, 256 * MIB)
    assert nid == k.arch.memory_add_physaddr_to_nid(k, address)


def test_a_dimm_without_a_node_goes_to_the_first() -> None:
    k = x86(256 * MIB, 0)
    acpi_memhotplug.acpi_memory_device_add(k, AcpiDevice("PNP0C80:00", 4 * GIB, SECTION, -1))
    assert (0,) == k.memory_blocks[32].nodes


# No memory for the memmap


def ram(k: Kernel) -> list[tuple[int, int]]:
    return [(res.start, res.end + 1) for res in k.iomem_resource.child if res.name == "System RAM"]


def regions(k: Kernel) -> list[tuple[int, int, int, int]]:
    return [(r.base, r.size, r.flags, r.nid) for r in k.memblock.memory.regions]


def test_x86_runs_out_of_memory_in_the_middle() -> None:
    """
    8 GiB of memmap in 64 MiB: after some sections there are no blocks of 2 MiB left, single pages are taken to the last one, then
    the addition fails. Its sections stay, with their block devices; the resource and memblock's region go; max_pfn was raised.

        sections  32 33 34 … n  |  n+1 … 95
        memmap    [==========]     -
        iomem, memblock: as before
    """
    k = x86(mem=64 * MIB)
    before = ram(k), regions(k)
    with pytest.raises(KernelError) as caught:
        memory_hotplug.add_memory(k, 0, 4 * GIB, HUGE)
    assert (ENOMEM, "vmemmap_populate_basepages") == (caught.value.errno, caught.value.where)
    assert before == (ram(k), regions(k))
    blocks = sorted(k.memory_blocks)[1:]
    assert list(range(32, 32 + len(blocks))) == blocks
    assert 15 < len(blocks) < 64
    assert all(mmzone.valid_section(k.mem_section[nr]) for nr in blocks)
    assert not mmzone.present_section_nr(k, blocks[-1] + 1)
    assert 4 * GIB + HUGE == k.max_pfn << 12
    failures = [line for line in k.log.lines if line.startswith("page allocation failure")]
    assert any("order:9" in line for line in failures[:-1]), "blocks of 2 MiB were tried first"
    assert "order:0" in failures[-1]
    assert "WARNING: at arch/x86/mm/init_64.c arch_add_memory()" in k.log.lines
    invariants.check(k, boot_blocks=BOOT_BLOCKS)


def test_what_a_failure_left_cannot_go_online() -> None:
    """The block is there, but no System RAM covers it."""
    k = x86(mem=64 * MIB)
    with pytest.raises(KernelError):
        memory_hotplug.add_memory(k, 0, 4 * GIB, HUGE)
    with pytest.raises(KernelError) as caught:
        sysfs.write(k, f"{MEMORY}/memory32/state", "online")
    assert (1, "online_pages") == (caught.value.errno, caught.value.where)
    assert "offline" == text(k, f"{MEMORY}/memory32/state")


def test_what_a_failure_left_is_taken_for_success_the_next_time() -> None:
    """The same range again: every section that stayed says EEXIST, which __add_pages() takes for success."""
    k = x86(mem=64 * MIB)
    with pytest.raises(KernelError):
        memory_hotplug.add_memory(k, 0, 4 * GIB, HUGE)
    sections = dict(k.mem_section)
    memory_hotplug.add_memory(k, 0, 4 * GIB, 2 * SECTION)
    assert sections == k.mem_section
    with pytest.raises(KernelError) as caught:
        memory_hotplug.add_memory(k, 0, 4 * GIB + SECTION, SECTION)
    assert EEXIST == caught.value.errno
    invariants.check(k, boot_blocks=BOOT_BLOCKS, added=[(4 * GIB, 4 * GIB + 2 * SECTION)])


def test_arm64_does_not_fall_back_to_single_pages() -> None:
    """arm64 fails as soon as no block of 2 MiB is to be had, although thousands of pages are free."""
    k = arm64("nohack", 64 * MIB)
    before = ram(k), regions(k)
    with pytest.raises(KernelError) as caught:
        memory_hotplug.add_memory(k, 0, 4 * GIB, 16 * GIB)
    assert (ENOMEM, "vmemmap_populate_pmds") == (caught.value.errno, caught.value.where)
    assert before == (ram(k), regions(k))
    assert k.nodes[0].node_zones[0].nr_free_pages > 1000
    assert "order:9" in k.log.lines[-1]
    assert 4 in k.memory_blocks and 20 not in k.memory_blocks


def test_the_series_dies_when_its_addition_failed() -> None:
    """
    The series reserves every page of the range even if __add_pages() failed: it touches struct pages that were never made, and
    the task dies with the hotplug lock held.
    """
    k = arm64("full", 64 * MIB)
    boot.new_task(k)
    with pytest.raises(KernelBugError, match="memmap was never made"):
        memory_hotplug.add_memory(k, 0, 4 * GIB, 16 * GIB)
    boot.task_died(k)
    boot.new_task(k)
    with pytest.raises(KernelHangError, match=r"mem_hotplug\.lock"):
        memory_hotplug.add_memory(k, 0, 64 * GIB, GIB)


@pytest.mark.parametrize("remedy", ["firstpage", "firstpage-nohack"])
def test_marking_the_first_page_loses_the_second_section(remedy: str) -> None:
    """
    Only the range's first page is NOMAP. The second section counts as present already and is skipped, without a word; a later
    addition beyond it makes the zone span it, and set_zone_contiguous() dies on its struct pages.

        memblock   [N|          4G          |          5G          ]
        sections   [        memory4        ]|  skipped, no memmap   |  6G: oops
    """
    k = arm64(remedy, 256 * MIB)
    memory_hotplug.add_memory(k, 0, 4 * GIB, 2 * GIB)
    assert [1, 4] == sorted(k.memory_blocks)
    assert not mmzone.present_section_nr(k, 5)
    assert mmzone.pfn_valid(k, 5 * GIB >> 12)
    assert (4 * GIB, 6 * GIB) in ram(k)
    with pytest.raises(KernelBugError, match="pfn 0x140000 .*memmap was never made"):
        memory_hotplug.add_memory(k, 0, 6 * GIB, GIB)


def test_a_new_node_is_taken_back() -> None:
    """
    The first memory of node 1 does not fit: the node goes, but its sections stay and name it. Whoever asks for their zone then
    dies.
    """
    k = x86(64 * MIB, 0)
    with pytest.raises(KernelError) as caught:
        memory_hotplug.add_memory(k, 1, 4 * GIB, HUGE)
    assert ENOMEM == caught.value.errno
    assert {0} == set(k.nodes)
    assert frozenset({0}) == k.node_states[N_ONLINE]
    assert "0" == text(k, f"{NODE}/online")
    assert () == k.memory_blocks[32].nodes
    with pytest.raises(KernelBugError, match="node 1"):
        sysfs.read(k, f"{MEMORY}/memory32/valid_zones")


def test_a_node_that_was_there_stays() -> None:
    """Only a node that this addition made is taken back."""
    k = x86(64 * MIB, 0)
    memory_hotplug.add_memory(k, 1, 4 * GIB, SECTION)
    with pytest.raises(KernelError):
        memory_hotplug.add_memory(k, 1, 8 * GIB, HUGE)
    assert {0, 1} == set(k.nodes)
    assert frozenset({0, 1}) == k.node_states[N_ONLINE]


@pytest.mark.parametrize(("start", "size"), [
    (4 * GIB, 0), (4 * GIB + 4096, SECTION), (4 * GIB, SECTION + 4096), (4 * GIB, 64 * MIB)])
def test_a_range_that_is_not_whole_sections(start: int, size: int) -> None:
    """EINVAL from the range check, or EEXIST where an empty resource cannot be entered; nothing changes."""
    k = x86(mem=64 * MIB)
    before = invariants.snapshot(k)
    with pytest.raises(KernelError) as caught:
        memory_hotplug.add_memory(k, 0, start, size)
    assert (EINVAL if size else EEXIST) == caught.value.errno
    assert [] == list(invariants.differences(before, invariants.snapshot(k)))
