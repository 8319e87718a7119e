# SPDX-License-Identifier: GPL-2.0-only
"""
Memory blocks and what is said when their state changes.

Source: include/linux/memory.h.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from memhp.linux.include.memremap import VmemAltmap

MEM_ONLINE = 1 << 0
MEM_GOING_OFFLINE = 1 << 1
MEM_OFFLINE = 1 << 2
MEM_GOING_ONLINE = 1 << 3
MEM_CANCEL_ONLINE = 1 << 4
MEM_CANCEL_OFFLINE = 1 << 5
MEM_PREPARE_ONLINE = 1 << 6
MEM_FINISH_OFFLINE = 1 << 7

MEM_ISOLATE_COUNT = 1 << 0

STATE_NAMES = {MEM_ONLINE: "online", MEM_OFFLINE: "offline", MEM_GOING_OFFLINE: "going-offline"}


class MemoryBlock:
    """
    struct memory_block with the fields of its struct device.

    Attributes:
        start_section_nr: First section.
        end_section_nr: Last section, inclusive.
        state: MEM_ONLINE, MEM_OFFLINE or MEM_GOING_OFFLINE.
        section_count: Sections of it that are present.
        online_type: MMOP_*; -1 when nobody asks.
        phys_device: 0.
        dev_id: The N of memoryN.
        dev_offline: `dev.offline`: what the driver core believes.
        offline_disabled: `dev.offline_disabled`: the driver core refuses to take it offline.
        nodes: Node ids it is linked to.
        nid: The node it was added to [v5.4]; not to be relied on where it lies in several.
        zone: (nid, zone index) it is online in [v5.18]; None while offline, or if boot memory lies in several zones.
        group: Id of its memory group, or 0 [v5.15].
        altmap: Where its memmap lies, if on itself [v5.14].
        nr_hwpoison: Pages of it that have failed [v6.2].
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = (
        "altmap", "dev_id", "dev_offline", "end_section_nr", "group", "nid", "nodes", "nr_hwpoison", "offline_disabled",
        "online_type", "owner", "phys_device", "section_count", "start_section_nr", "state", "zone",
    )

    def __init__(self, start_section_nr: int, end_section_nr: int, state: int, dev_id: int, owner: object) -> None:
        self.start_section_nr = start_section_nr
        self.end_section_nr = end_section_nr
        self.state = state
        self.section_count = 0
        self.online_type = 0
        self.phys_device = 0
        self.dev_id = dev_id
        self.dev_offline = False
        self.offline_disabled = False
        self.nodes: tuple[int, ...] = ()
        self.nid = -1
        self.zone: tuple[int, int] | None = None
        self.group = 0
        self.altmap: VmemAltmap | None = None
        self.nr_hwpoison = 0
        self.owner = owner

    def copy(self, owner: object) -> MemoryBlock:
        new = MemoryBlock(self.start_section_nr, self.end_section_nr, self.state, self.dev_id, owner)
        new.section_count = self.section_count
        new.online_type = self.online_type
        new.phys_device = self.phys_device
        new.dev_offline = self.dev_offline
        new.offline_disabled = self.offline_disabled
        new.nodes = self.nodes
        new.nid = self.nid
        new.zone = self.zone
        new.group = self.group
        new.altmap = None if self.altmap is None else self.altmap.copy()
        new.nr_hwpoison = self.nr_hwpoison
        return new


@dataclass(slots=True)
class MemoryGroup:
    """
    struct memory_group: blocks of one device that are onlined with an eye on each other. Pages, not bytes.

    Attributes:
        nid: Node.
        is_dynamic: The device grows and shrinks in units; else it comes and goes as a whole.
        max_pages: Static: pages of the device.
        unit_pages: Dynamic: pages of a unit.
        present_kernel_pages: Pages online in a kernel zone.
        present_movable_pages: Pages online in ZONE_MOVABLE.
        memory_blocks: Ids of its blocks.
    """

    nid: int
    is_dynamic: bool
    max_pages: int = 0
    unit_pages: int = 0
    present_kernel_pages: int = 0
    present_movable_pages: int = 0
    memory_blocks: frozenset[int] = frozenset()

    def copy(self) -> MemoryGroup:
        return replace(self)


@dataclass(slots=True)
class MemoryNotify:
    """struct memory_notify: what a notifier is told; altmap pages are those of MEM_PREPARE_ONLINE and MEM_FINISH_OFFLINE."""

    start_pfn: int
    nr_pages: int
    altmap_start_pfn: int = 0
    altmap_nr_pages: int = 0
    status_change_nid_normal: int = -1
    status_change_nid_high: int = -1
    status_change_nid: int = -1


@dataclass(slots=True)
class MemoryIsolateNotify:
    """struct memory_isolate_notify: how many pages of a range drivers hold and would give up is added to `pages_found` [v4.9]."""

    start_pfn: int
    nr_pages: int
    pages_found: int = 0
