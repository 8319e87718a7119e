# SPDX-License-Identifier: GPL-2.0-only
"""What memblock hands to the page allocator, and what becomes of its flags then."""

from __future__ import annotations

from dataclasses import replace

from memhp.hardware import MemoryRange, platform
from memhp.linux import boot, kconfig, tree
from memhp.linux.mm import memblock
from memhp.units import GIB, MIB


def test_hotpluggable_memory_is_ordinary_after_boot() -> None:
    """Firmware's flag keeps early allocations away; free_low_memory_core_early() clears it, and the pages are there."""
    small = platform("x86_64", mem=GIB)
    plain = boot.boot(tree.V4_9, "x86_64", replace(small, managed=0))
    flagged = (*small.memory, MemoryRange(4 * GIB, 5 * GIB, 0, ("HOTPLUG",)))
    k = boot.boot(tree.V4_9, "x86_64", replace(small, memory=flagged, managed=0))
    assert [region.flags for region in k.memblock.memory.regions] == [0, 0, 0]
    assert k.totalram_pages - plain.totalram_pages > (GIB >> 12) * 95 // 100


def test_arrays_that_grew_are_freed_with_memblock() -> None:
    """More than 128 regions do not fit memblock's own array. x86_64 discards memblock after boot, and what it grew into."""
    small = platform("x86_64", mem=GIB)
    islands = tuple(MemoryRange(4 * GIB + i * 2 * MIB, 4 * GIB + i * 2 * MIB + MIB) for i in range(150))
    hardware = replace(small, memory=(*small.memory, *islands), managed=0)
    config = kconfig.default("x86_64")
    machines = {}
    for discard in (False, True):
        k = boot.boot(tree.V4_9, "x86_64", hardware, config=replace(config, ARCH_DISCARD_MEMBLOCK=discard))
        machines[discard] = k
    kept, freed = machines[False], machines[True]
    start, size = memblock.get_allocated_memblock_memory_regions_info(kept)
    assert size >= 8192
    assert freed.totalram_pages - kept.totalram_pages == size >> 12
    assert start > 0
