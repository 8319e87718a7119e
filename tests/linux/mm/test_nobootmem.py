# SPDX-License-Identifier: GPL-2.0-only
"""What memblock hands to the page allocator, and what becomes of its flags then."""

from __future__ import annotations

from dataclasses import replace

from memhp.hardware import MemoryRange, platform
from memhp.linux import boot, tree
from memhp.units import GIB


def test_hotpluggable_memory_is_ordinary_after_boot() -> None:
    """Firmware's flag keeps early allocations away; free_low_memory_core_early() clears it, and the pages are there."""
    small = platform("x86_64", mem=GIB)
    plain = boot.boot(tree.V4_9, "x86_64", replace(small, managed=0))
    flagged = (*small.memory, MemoryRange(4 * GIB, 5 * GIB, 0, ("HOTPLUG",)))
    k = boot.boot(tree.V4_9, "x86_64", replace(small, memory=flagged, managed=0))
    assert [region.flags for region in k.memblock.memory.regions] == [0, 0, 0]
    assert k.totalram_pages - plain.totalram_pages > (GIB >> 12) * 95 // 100
