# SPDX-License-Identifier: GPL-2.0-only
"""
The firmware's memory map, as kexec will see it.

Source: drivers/firmware/memmap.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def firmware_map_add_hotplug(k: Kernel, start: int, end: int, type_: str) -> None:
    """
    Add hot-added memory [start, end) to the map, if it is not there yet.

    Source: drivers/firmware/memmap.c firmware_map_add_hotplug() [v4.9]
    """
    if k.config.FIRMWARE_MEMMAP and (start, end - 1, type_) not in k.firmware_map:
        k.firmware_map = (*k.firmware_map, (start, end - 1, type_))


def firmware_map_remove(k: Kernel, start: int, end: int, type_: str) -> None:
    """
    Take [start, end) out of the map, where it is an entry of its own.

    Source: drivers/firmware/memmap.c firmware_map_remove() [v4.9], which says -EINVAL to nobody if it is not
    """
    k.firmware_map = tuple(entry for entry in k.firmware_map if entry != (start, end - 1, type_))
