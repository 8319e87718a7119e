# SPDX-License-Identifier: GPL-2.0-only
"""The whole life of blocks, by chance: added, online, offline, removed. Invariants hold, and in the end all is as at first."""

from __future__ import annotations

from errno import EBUSY
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import invariants
from tests.linux.test_sequences import check_files

from memhp.backends import model
from memhp.backends.base import ModelURL, parse
from memhp.errors import KernelBugError, KernelError
from memhp.linux import boot, workload
from memhp.linux.drivers.base import core
from memhp.linux.fs import sysfs
from memhp.linux.include.memory import MEM_OFFLINE, MEM_ONLINE
from memhp.linux.mm import memory_hotplug
from memhp.linux.state import Kernel

MEMORY = "/sys/devices/system/memory"
MACHINES = {
    "v4.9/x86_64": "model:v4.9/x86_64?mem=256M",
    "v4.9/x86_64, two nodes": "model:v4.9/x86_64?nodes=256M,256M",
    "v5.10/arm64": "model:v5.10/arm64?mem=1G&cmdline=memhp_default_state%3Doffline",
    "v6.1/arm64": "model:v6.1/arm64?mem=512M&cmdline=memhp_default_state%3Doffline",
    "v6.12/arm64": "model:v6.12/arm64?mem=512M&cmdline=memhp_default_state%3Doffline",
    "v6.12/arm64, rodata=off": "model:v6.12/arm64?mem=512M&cmdline=memhp_default_state%3Doffline%20rodata%3Doff",
    "v6.12/arm64, memmap_on_memory": (
        "model:v6.12/arm64?mem=512M&cmdline=memhp_default_state%3Doffline%20memory_hotplug.memmap_on_memory%3D1"),
    "v6.12/x86_64": "model:v6.12/x86_64?mem=512M&cmdline=memhp_default_state%3Doffline",
}
_booted: dict[str, tuple[Kernel, int]] = {}


def fresh(name: str) -> tuple[Kernel, int]:
    """A fork of a kernel that was booted once, and where its hot-plug window begins."""
    if name not in _booted:
        url = parse(MACHINES[name])
        assert isinstance(url, ModelURL)
        k, machine = model.start(url)
        _booted[name] = k, machine.window
    k, window = _booted[name]
    return k.fork(), window


def picture(k: Kernel) -> dict[str, Any]:
    """What must be as at first once everything that came has gone."""
    return {
        "zones": [
            (z.nid, z.name, z.zone_start_pfn, z.spanned_pages, z.present_pages, z.managed_pages) for z in invariants.zones_of(k)],
        "nodes": [(p.node_id, p.node_start_pfn, p.node_spanned_pages, p.node_present_pages) for p in k.nodes.values()],
        "states": k.node_states,
        "blocks": sorted(k.memory_blocks),
        "sections": [(nr, s.section_mem_map, s.subsection_map) for nr, s in sorted(k.mem_section.items()) if s.section_mem_map],
        "memblock": [(r.base, r.size, r.flags) for r in k.memblock.memory.regions],
        "iomem": [(r.start, r.end, r.name) for r in k.iomem_resource.child],
        "firmware": k.firmware_map,
        "free": sum(zone.nr_free_pages for zone in invariants.zones_of(k)) + sum(1 << order for _, order in k.user_pages),
    }


verbs = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 9), st.integers(1, 3)),
    st.tuples(st.just("online"), st.integers(0, 9), st.sampled_from(("online", "online_kernel", "online_movable"))),
    st.tuples(st.just("online"), st.integers(0, 9), st.sampled_from(("online", "online_kernel", "online_movable"))),
    st.tuples(st.just("offline"), st.integers(0, 9), st.none()),
    st.tuples(st.just("offline"), st.integers(0, 9), st.none()),
    st.tuples(st.just("remove"), st.integers(0, 9), st.none()),
    st.tuples(st.just("use"), st.integers(0, 9), st.sampled_from(("movable", "file", "unmovable", "reserved", "poisoned"))),
    st.tuples(st.just("free"), st.none(), st.none()),
)


class Life:
    """A machine whose blocks come and go, and the ranges that were added to it."""

    def __init__(self, name: str) -> None:
        self.k, window = fresh(name)
        self.block = self.k.sections_per_block << self.k.SECTION_SIZE_BITS
        self.base = -(-window // self.block) * self.block
        self.at_first = picture(self.k)
        self.boot_blocks = frozenset(self.k.memory_blocks)
        self.boot_present = sum(zone.present_pages for zone in invariants.zones_of(self.k))
        self.managed = sum(zone.managed_pages for zone in invariants.zones_of(self.k))
        self.ranges: list[tuple[int, int]] = []
        self.poisoned = False

    def blocks_of(self, span: tuple[int, int]) -> range:
        return range(span[0] // self.block, (span[0] + span[1]) // self.block)

    def write(self, block: int, text: str) -> str:
        boot.new_task(self.k)
        try:
            sysfs.write(self.k, f"{MEMORY}/memory{block}/state", text)
        except KernelError as err:
            return err.name
        return "ok"

    def do(self, verb: tuple[str, Any, Any]) -> None:
        name, a, b = verb
        k = self.k
        if name == "add":
            start, size = self.base + a * self.block, b * self.block
            if not any(start < low + length and low < start + size for low, length in self.ranges):
                memory_hotplug.add_memory(k, 0, start, size)
                self.ranges.append((start, size))
        elif name in ("online", "offline"):
            block = self.base // self.block + a
            if block in k.memory_blocks:
                self.write(block, b or "offline")
        elif name == "remove" and self.ranges:
            self.remove(self.ranges[a % len(self.ranges)])
        elif name == "use":
            block = self.base // self.block + a
            mem = k.memory_blocks.get(block)
            if mem is None or mem.state != MEM_ONLINE or "w" in k.workloads:
                return
            zones = sysfs.read(k, f"{MEMORY}/memory{block}/valid_zones").decode().split()
            if workload.KINDS[b].kernel and zones[:1] == ["Movable"]:
                b = "movable"
            self.poisoned |= b == "poisoned"
            try:
                workload.alloc(k, "w", b, 40 * k.PAGE_SIZE, block)
            except KernelError:
                return
        elif name == "free" and "w" in k.workloads:
            workload.free(k, "w")

    def remove(self, span: tuple[int, int]) -> None:
        """v4.9 would die of a block that is online; later kernels say so."""
        k = self.k
        online = any(k.memory_blocks[block].state != MEM_OFFLINE for block in self.blocks_of(span))
        boot.new_task(k)
        if online and not k.tree.hot_remove_refuses:
            with pytest.raises(KernelBugError, match="online"):
                memory_hotplug.remove_memory(k.fork(), span[0], span[1], 0)
        elif online:
            with pytest.raises(KernelError) as caught:
                memory_hotplug.remove_memory(k, span[0], span[1], 0)
            assert EBUSY == caught.value.errno
        else:
            if not k.tree.hot_remove_refuses:
                core.lock_device_hotplug(k)
            memory_hotplug.remove_memory(k, span[0], span[1], 0)
            if not k.tree.hot_remove_refuses:
                core.unlock_device_hotplug(k)
            self.ranges.remove(span)
            assert not any(block in k.memory_blocks for block in self.blocks_of(span))

    def check(self) -> None:
        """What test_sequences asks of v4.9 is asked here; of later kernels, all but which boot memory is managed."""
        k = self.k
        boot.user_space(k)
        if not k.tree.zones_chosen_at_online:
            added = [(start, start + size) for start, size in self.ranges]
            invariants.check(k, added=added, boot_blocks=self.boot_blocks, boot_present=self.boot_present)
            return
        for zone in invariants.zones_of(k):
            invariants.check_free_lists(k, zone)
        invariants.check_counters(k, self.boot_blocks, self.boot_present)
        if not k.config.ARCH_DISCARD_MEMBLOCK:
            invariants.check_blocks(k, self.boot_blocks)
        assert self.managed + self.online_pages() == sum(zone.managed_pages for zone in invariants.zones_of(k))
        assert not k.mem_hotplug_lock.holder and not k.device_hotplug_lock.holder

    def online_pages(self) -> int:
        """Pages of added blocks that are online, but for those that hold a memmap."""
        k = self.k
        blocks = [mem for block, mem in k.memory_blocks.items() if block not in self.boot_blocks and mem.state == MEM_ONLINE]
        pages = len(blocks) * k.sections_per_block * k.PAGES_PER_SECTION
        return pages - sum(mem.altmap.free for mem in blocks if mem.altmap is not None)


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=25, deadline=None)
@given(steps=st.lists(verbs, min_size=4, max_size=25))
def test_come_and_go(name: str, steps: list[tuple[str, Any, Any]]) -> None:
    """Whatever came before: what can be taken away again leaves nothing behind."""
    life = Life(name)
    for step in steps:
        life.do(step)
        if not life.poisoned and not any(work.kind == "reserved" for work in life.k.workloads.values()):
            life.check()
    k = life.k
    if "w" in k.workloads:
        workload.free(k, "w")
    for span in life.ranges[:]:
        for block in reversed(life.blocks_of(span)):
            if k.memory_blocks[block].state == MEM_ONLINE:
                life.write(block, "offline")
                boot.user_space(k)
    for span in life.ranges[:]:
        life.remove(span)
    check_files(k)
    if not life.ranges and not life.poisoned:
        at_first, at_last = life.at_first, picture(k)
        if not k.tree.zones_chosen_at_online:
            # A range of several zones leaves the span of all but the first one's zone behind: see _remove_pages_v4_9().
            for seen in (at_first, at_last):
                seen["zones"] = [zone[:2] + zone[4:] for zone in seen["zones"]]
        assert at_first == at_last


def test_a_zone_that_goes_on_spanning_what_is_gone() -> None:
    """
    v4.9 takes every section of a range out of the zone of the range's first page.

        | block in Normal | block in Movable |   removed at once: Movable spans its block for ever
    """
    life = Life("v4.9/x86_64")
    first = life.base // life.block
    for verb in (("add", 0, 2), ("online", 1, "online_movable"), ("offline", 1, None)):
        life.do(verb)
    life.remove(life.ranges[0])
    movable = life.k.zone(0, life.k.ZONE_MOVABLE)
    assert ((first + 1) * life.block >> 12, life.block >> 12, 0) == (
        movable.zone_start_pfn, movable.spanned_pages, movable.present_pages)
    assert not life.k.zone(0, life.k.ZONE_NORMAL).spanned_pages
