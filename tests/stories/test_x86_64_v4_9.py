# SPDX-License-Identifier: GPL-2.0-only
"""
x86_64 at v4.9, where hot-add needed no trick: six recordings, each done again on the model.

Blocks are 128 MiB: 16 at 0x80000000, 17 above it. What is told: adding and onlining; zones that can and cannot shift; writes
that are refused; a default state. Each write and the state after it are held against the recording in test_recordings.py; here
is what deserves a word of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

from memhp.abi import recorded, zoneinfo
from memhp.linux.include import mm
from memhp.linux.include.page_flags import reserved_pages
from tests.stories.instrument import Instrument
from tests.stories.twin import HOTPLUG, Twin, hotplug_lines

PROBE = "/sys/devices/system/memory/probe"


def test_boot_counts_pages_as_the_recorded_kernel_did() -> None:
    """
    What zonelists hold before the page allocator has its pages: 257,929, as that kernel's console says.

    262,143 spanned pages less 4,096 of memmap, 97 of holes, and 21 that are in use below 16 MiB (15 kept for the firmware, 6 of
    the trampoline for other CPUs).
    """
    twin = Twin("v4.9-x86_64/1-probe")
    [built, policy] = [line for line in twin.k.log.lines if HOTPLUG.fullmatch(line)]
    assert "Built 1 zonelists in Node order, mobility grouping on.  Total pages: 257929" == built
    assert "Policy zone: DMA32" == policy
    assert 257929 == 262046 - 4096 - twin.k.dma_reserve


def test_watermarks_and_protection_after_online() -> None:
    """min, low and high of both zones, and what DMA32 keeps from allocations that could come from Normal, as recorded."""
    recording = recorded.recording("v4.9-x86_64/1-probe")
    twin = Twin(recording.name)
    for step in recording.steps:
        if step.path:
            twin.do(step)
        if step.capture == "02-online":
            break
    real = zoneinfo.parse_zoneinfo(recording.capture("02-online").read("/proc/zoneinfo").decode())
    model = zoneinfo.read_zoneinfo(twin)

    def shown(zones: list[zoneinfo.ZoneSnapshot]) -> list[tuple[Any, ...]]:
        return [(z.zone, z.min, z.low, z.high, z.protection, z.pagesets[0].values["high"], z.pagesets[0].values["batch"],
                 z.other["vm stats threshold"]) for z in zones]

    assert shown(real) == shown(model)
    assert [("DMA32", 951, 1207, 1463, (0, 128, 128)), ("Normal", 121, 153, 185, (0, 0, 0))] == [
        row[:5] for row in shown(model)]


def test_auto_online_goes_through_probe() -> None:
    """With memhp_default_state=online the block is online when `probe` comes back; writing `online` again is no error then."""
    twin = Twin("v4.9-x86_64/3-auto-online")
    assert "online\n" == twin.text("/sys/devices/system/memory/auto_online_blocks")
    twin.attempt(PROBE, "0x80000000")
    assert 0 == reserved_pages(twin.k, 0x80000, twin.k.PAGES_PER_SECTION)
    again = twin.recording.write("online")
    assert (again.result, again.returned) == ("", 6)
    answer = twin.do(again)
    assert ("", 6, []) == (answer.result, answer.returned, answer.log)


def test_a_block_above_movable_memory_becomes_movable() -> None:
    """
    After a block went into Movable, memory added above it goes there, too, and online_kernel cannot take it out.

    The recording took block 16 offline in between (story()); the new block's zone does not depend on that, for an empty Movable
    zone keeps its span. Held against it: the second `probe` with its instrument, and `online_kernel` on block 17.
    """
    recording = recorded.recording("v4.9-x86_64/2-state-writes")
    with pytest.MonkeyPatch.context() as monkeypatch:
        twin = Twin(recording.name)
        instrument = Instrument(twin, monkeypatch)
        twin.do(recording.write("0x80000000"))
        twin.do(recording.write("online_movable"))
        instrument.taken()
        added = recording.write("0x88000000")
        answer = twin.do(added)
    assert (added.result, added.returned, hotplug_lines(added.log)) == (answer.result, answer.returned, answer.log)
    assert added.instrument == instrument.taken() and added.instrument
    [row] = [row for row in added.blocks if row["block"] == 17]
    assert row == twin.blocks()[-1]

    kernel = recording.write("online_kernel")
    answer = twin.do(kernel)
    assert (kernel.result, kernel.returned) == (answer.result, answer.returned)
    [row] = [row for row in kernel.blocks if row["block"] == 17]
    assert row == twin.blocks()[-1]
    assert "Movable" == mm.page_zone(twin.k, 0x88000).name, "asked for a kernel zone, and stayed where it was: no error"
