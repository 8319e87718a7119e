# SPDX-License-Identifier: GPL-2.0-only
"""
Memory blocks and what is said when their state changes.

Source: include/linux/memory.h.
"""

from __future__ import annotations

from dataclasses import dataclass

MEM_ONLINE = 1 << 0
MEM_GOING_OFFLINE = 1 << 1
MEM_OFFLINE = 1 << 2
MEM_GOING_ONLINE = 1 << 3
MEM_CANCEL_ONLINE = 1 << 4
MEM_CANCEL_OFFLINE = 1 << 5

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
        nodes: Node ids it is linked to.
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = (
        "dev_id", "dev_offline", "end_section_nr", "nodes", "online_type", "owner", "phys_device", "section_count",
        "start_section_nr", "state",
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
        self.nodes: tuple[int, ...] = ()
        self.owner = owner

    def copy(self, owner: object) -> MemoryBlock:
        new = MemoryBlock(self.start_section_nr, self.end_section_nr, self.state, self.dev_id, owner)
        new.section_count = self.section_count
        new.online_type = self.online_type
        new.phys_device = self.phys_device
        new.dev_offline = self.dev_offline
        new.nodes = self.nodes
        return new


@dataclass(slots=True)
class MemoryNotify:
    """struct memory_notify: what a notifier is told."""

    start_pfn: int
    nr_pages: int
    status_change_nid_normal: int = -1
    status_change_nid_high: int = -1
    status_change_nid: int = -1
