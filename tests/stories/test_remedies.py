# SPDX-License-Identifier: GPL-2.0-only
"""
The twelve remedies: what becomes of `probe`, and of `online` after it.

Four of them were recorded on a real v4.9 kernel (full, nohack, nonomap, and generic: the series' code without mark and loop,
with the generic pfn_valid()). What the model makes of these is held against them in test_recordings.py.

The other eight follow from reading the same C functions; each row says why.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest

from memhp.abi.recorded import Step
from memhp.errors import KernelBugError, KernelHangError
from memhp.linux.include import mm
from memhp.linux.include.page_flags import reserved_pages
from memhp.linux.series.arm64_rfc_2016 import REMEDIES
from tests.stories.told import story
from tests.stories.twin import Twin, differences, hotplug_lines

RECORDED = ("full", "nohack", "nonomap", "generic")
PROBE = "/sys/devices/system/memory/probe"
STATE = "/sys/devices/system/memory/memory2/state"
PFN, PAGES = 0x80000, 262144
NOT_RESERVED = "section number 2 page number 0 not reserved, was it already online?"


def test_a_reader_of_kpageflags_dies_as_recorded() -> None:
    """
    After `nonomap` memblock knows the range and no section does. Reading at its first pfn ends at max_pfn; at the next, the
    recorded reader died of the field that PageSlab() looks at (recording v4.9-arm64-rfc/nonomap, 01-probe, Oops #2).
    """
    twin = Twin("v4.9-arm64-rfc/nonomap")
    assert twin.attempt(PROBE, "0x80000000").result == "oops"
    assert twin.read("/proc/kpageflags", PFN * 8, 8) == b""
    with pytest.raises(KernelBugError) as died:
        twin.read("/proc/kpageflags", (PFN + 1) * 8, 8)
    assert died.value.log[0] == "Unable to handle kernel paging request at virtual address ffff7e0001000060"


def test_boot_and_probe_were_recorded() -> None:
    """Of each of the four there is the state after boot and after `probe`, and at least five writes."""
    for remedy in RECORDED:
        assert {"00-boot", "01-probe"} <= {this.step.capture for this in story(f"v4.9-arm64-rfc/{remedy}")}
        assert len([this for this in story(f"v4.9-arm64-rfc/{remedy}") if this.answer is not None]) >= 5


def test_nonomap_dies_where_the_recorded_kernel_died() -> None:
    """
    The writer dies in set_bit(), called from arch_add_memory(): the SetPageReserved() of the series.

    The functions of the recorded call trace are those that the model was in.
    """
    [oops] = [this for this in story("v4.9-arm64-rfc/nonomap") if this.step.result == "oops"]
    [line] = [line for line in oops.step.log if line.startswith("LR is at ")]
    stack = [line.removeprefix("LR is at ").partition("+")[0]]
    stack += [line.split()[1].partition("+")[0] for line in oops.step.log if line.startswith("[<ffff")][1:]
    ours = [name for name in reversed(stack) if name in ("memory_probe_store", "add_memory", "add_memory_resource")]
    ours.append(stack[0])
    assert ["memory_probe_store", "add_memory", "add_memory_resource", "arch_add_memory"] == ours
    assert ours == [name for name in oops.trace if name in ours]
    assert ["SetPageReserved", "pfn_to_page"] == oops.trace[-2:]


def test_after_that_the_next_writer_hangs() -> None:
    """The dead task still holds the lock of memory hotplug. The recorded writer waited in add_memory_resource(), so does ours."""
    [hung] = [this for this in story("v4.9-arm64-rfc/nonomap") if this.step.result == "hung"]
    waiting = [name for name in reversed(hung.step.blocked_in) if name in hung.trace]
    assert ["memory_probe_store", "add_memory", "add_memory_resource"] == waiting
    assert ["mem_hotplug_begin", "mutex_lock"] == hung.trace[-2:]
    assert hung.answer is not None and isinstance(hung.answer.error, KernelHangError)


@dataclass(frozen=True)
class Outcome:
    """
    What becomes of a remedy.

    Attributes:
        probe, online: "" or errno, "oops"; ENOENT where there is no block to write to.
        reserved: Pages of the range reserved after `probe`; None where there is no memmap.
        log: What `online` prints.
        why: In words, from the C functions.
    """

    probe: str
    online: str
    reserved: int | None
    log: tuple[str, ...]
    why: str


BUILT = (
    "Built 1 zonelists in Zone order, mobility grouping on.  Total pages: 254971",
    "Built 1 zonelists in Zone order, mobility grouping on.  Total pages: 517115",
)
WARNED = "WARNING: at drivers/base/memory.c pages_correctly_reserved()"
OUTCOMES = {
    "full": Outcome("", "", PAGES, BUILT, "recorded"),
    "nohack": Outcome("", "EBUSY", 0, (NOT_RESERVED,), "recorded"),
    "nonomap": Outcome("oops", "ENOENT", None, (), "recorded"),
    "generic": Outcome("", "", PAGES, BUILT, "recorded"),
    "nonomap-nohack": Outcome("", "ENOENT", None, (),
                              "pfn_valid() is true, __add_section() says -EEXIST, __add_pages() says 0: nothing was made"),
    "firstpage": Outcome("", "", PAGES, BUILT,
                         "the generic loop reserves all pages but the marked one, the series reserves that one"),
    "firstpage-nohack": Outcome("", "EBUSY", PAGES - 1, (NOT_RESERVED,), "the marked page stays unreserved"),
    "initpage": Outcome("", "EBUSY", 0, (NOT_RESERVED,), "the helpers initialise, they do not reserve"),
    "initpage-then-reserved": Outcome("", "", PAGES, BUILT, "as full; the helpers changed nothing"),
    "generic-full": Outcome("", "", PAGES, BUILT, "the mark is not looked at; every page is reserved twice"),
    "noclear": Outcome("", "EBUSY", 0, (WARNED,), "pages_correctly_reserved() asks pfn_valid() first, which is still false"),
    "clear-before-add-zone": Outcome("", "", PAGES, BUILT, "valid in time for the generic loop"),
}


def test_every_remedy_is_here() -> None:
    assert set(REMEDIES) == set(OUTCOMES)


@pytest.mark.parametrize("remedy", OUTCOMES)
def test_outcome_of_probe_and_online(remedy: str) -> None:
    """Every remedy on the recorded machine: the two writes, what they print, and what is there afterwards."""
    outcome = OUTCOMES[remedy]
    recording = remedy if remedy in RECORDED else "full"
    twin = Twin(f"v4.9-arm64-rfc/{recording}", remedy=remedy)
    k = twin.k
    probe = twin.attempt(PROBE, "0x80000000")
    assert (outcome.probe, []) == (probe.result, hotplug_lines(probe.log) if not outcome.probe else [])

    has_memmap = 2 in k.mem_section and k.mem_section[2].memmap is not None
    assert outcome.reserved == (reserved_pages(k, PFN, PAGES) if has_memmap else None), outcome.why
    assert has_memmap == (2 in k.memory_blocks)
    assert (2 * PAGES if has_memmap else PAGES) == k.nodes[0].node_spanned_pages, "the node grows with its zone"
    assert ["40000000-7fffffff", "80000000-bfffffff"] == twin.system_ram(), "the resource is there, memory or not"
    lines = ["0: 0x0000000040000000..0x00000000bfffffff"]
    if remedy == "noclear":
        lines = ["0: 0x0000000040000000..0x000000007fffffff", "1: 0x0000000080000000..0x00000000bfffffff"]
    assert lines == twin.memblock()

    online = twin.attempt(STATE, "online")
    assert (outcome.online, outcome.log) == (online.result, tuple(online.log)), outcome.why
    total = 2 * PAGES if not outcome.online else PAGES
    assert total == sum(zone["present"] for zone in twin.zones())
    if outcome.online == "EBUSY":
        assert "offline" == twin.text(STATE).strip()
        again = twin.attempt(STATE, "online")
        assert "EBUSY" == again.result
        assert [line for line in outcome.log if line != WARNED] == again.log, "the warning comes once, the message each time"
    if not outcome.online:
        assert "online" == twin.text(STATE).strip()
        assert (0, PAGES) == (reserved_pages(k, PFN, PAGES), mm.page_zone(k, PFN).managed_pages)


def changed(step: Step, how: str) -> Step:
    """A recorded step with one value falsified."""
    step = copy.deepcopy(step)
    rows: dict[str, list[dict[str, Any]]] = {"blocks": step.blocks, "zones": step.zones, "sections": step.sections}
    table, _, name = how.partition(".")
    if table in rows:
        row = rows[table][-1] if table != "sections" else next(r for r in rows[table] if r["section"] == 2)
        row[name] = f"not {row[name]}" if isinstance(row[name], str) else row[name] + 1
        return step
    if table == "kpageflags":
        entry = step.kpageflags[-1]
        if name in entry:
            entry[name] += 1
        else:
            entry["counts"][name] = entry["counts"].get(name, 0) + 1
        return step
    value = getattr(step, table)
    wrong: Any = value + 1 if isinstance(value, int) else [*value, "one more"]
    return replace(step, **{table: wrong})


@pytest.mark.parametrize("how", [
    "blocks.block", "blocks.state", "blocks.valid_zones", "blocks.removable", "zones.start_pfn", "zones.spanned", "zones.present",
    "zones.managed", "sections.present", "sections.has_mem_map", "sections.memblock_is_map_memory", "sections.pfn_valid_pages",
    "sections.pages_reserved", "sections.pages_refcount1", "sections.first_page_zone", "sections.first_page_flags",
    "sections.first_page_pageblock_migratetype", "kpageflags.RESERVED", "kpageflags.entries", "kpageflags.ends_at_pfn",
    "mem_total_kb", "max_pfn", "system_ram", "memblock",
])  # fmt: skip
def test_a_falsified_recording_is_noticed(how: str) -> None:
    """The comparison is not blind: each value it is told to hold, changed, makes a difference."""
    twin = Twin("v4.9-arm64-rfc/full")
    step = twin.recording.write("0x80000000")
    twin.do(step)
    assert [] == differences(twin, step)
    assert differences(twin, changed(step, how))
