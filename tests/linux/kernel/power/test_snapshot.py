# SPDX-License-Identifier: GPL-2.0-only
"""Hibernation: the image holds what is in use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memhp.errors import KernelBugError
from memhp.hardware import MemoryRange, platform
from memhp.linux import boot, tree
from memhp.linux.kernel.power import snapshot
from memhp.linux.mm import memory_hotplug
from memhp.linux.state import Kernel
from memhp.units import GIB, MIB

GAP = 2 * GIB - 32 * MIB


def machine(definition: str = "", nomap: bool = True) -> Kernel:
    flags = ("NOMAP",) if nomap else ()
    memory = (MemoryRange(GIB, GAP), MemoryRange(GAP, GAP + 16 * MIB, 0, flags), MemoryRange(GAP + 16 * MIB, 2 * GIB))
    return boot.boot(
        tree.V4_9_RFC, "arm64", replace(platform("arm64", mem=GIB), memory=memory, managed=0), pfn_valid=definition)


def test_range_against_single_pages() -> None:
    """The runs of pages that are copied are those of which saveable_page() says yes."""
    k = machine()
    image = snapshot.copy_data_pages(k)
    zone = k.zone(0, 0)
    saved = {pfn for start, end in image for pfn in range(start, end)}
    edges = [pfn for run in image for pfn in run]
    for pfn in (*range(zone.zone_start_pfn, zone.zone_start_pfn + zone.spanned_pages, 997), *edges):
        assert snapshot.saveable_page(k, zone, pfn) == (pfn in saved)
    assert zone.spanned_pages - zone.nr_free_pages - (16 * MIB >> 12) == len(saved), "all that is neither free nor firmware's"


def test_firmware_memory_is_not_copied_unless_pfn_valid_says_so() -> None:
    """With the generic pfn_valid() NOMAP pages look saveable, and their linear address is not mapped."""
    with pytest.raises(KernelBugError, match="linear address of physical 0x7e000000"):
        snapshot.copy_data_pages(machine("G0"))


def test_memory_that_is_offline_is_left_out_while_its_zone_is_empty() -> None:
    """for_each_populated_zone(): an added block alone does not populate a zone."""
    k = machine(nomap=False)
    before = snapshot.copy_data_pages(k)
    memory_hotplug.add_memory(k, 0, 2 * GIB, GIB)
    assert all(end <= 2 * GIB >> 12 for _, end in snapshot.copy_data_pages(k))
    assert before[0][0] == snapshot.copy_data_pages(k)[0][0]


def test_x86_registers_what_lies_between_ram() -> None:
    """Holes in valid sections are nosave there, so they are not copied though pfn_valid() holds."""
    memory = (MemoryRange(0x1000, 0x9F000), MemoryRange(MIB, 512 * MIB), MemoryRange(513 * MIB, GIB))
    k = boot.boot(tree.V4_9, "x86_64", replace(platform("x86_64", mem=GIB), memory=memory, managed=0))
    assert (512 * MIB >> 12, 513 * MIB >> 12) in k.arch.io.nosave_regions(k)
    hole = 512 * MIB >> 12
    assert not any(start <= hole < end for start, end in snapshot.copy_data_pages(k))
    assert snapshot.swsusp_page_is_forbidden(k, hole)
    assert not snapshot.saveable_page(k, k.zone(0, 0), hole)
