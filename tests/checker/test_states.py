# SPDX-License-Identifier: GPL-2.0-only
"""Kinds of pages as machines: what is so there, and what the definitions of history say of it."""

from __future__ import annotations

import pytest

from memhp.checker.expression import definition
from memhp.checker.states import ARCHES, SECTIONS, STATES, Setting
from memhp.checker.truth import BOGUS, DEVICE, FIRMWARE, PMEM, RAM, Truth
from memhp.errors import KernelBugError
from memhp.linux.arch.arm64.mm.init import M
from memhp.linux.include import mmzone
from memhp.units import GIB

HISTORY = {
    #                 G0     A0     A1     A2     M
    "RAM":           (True,  True,  True,  True,  True),
    "NOMAP":         (True,  False, False, False, False),
    "NOMAP-first":   (True,  False, False, False, False),
    "hole":          (True,  False, False, False, False),
    "absent":        (False, False, False, False, False),
    "D1":            (False, True,  True,  False, True),
    "D1n":           (False, False, False, False, False),
    "D2n":           (True,  False, False, False, False),
    "D2":            (True,  True,  True,  True,  True),
    "D3":            (True,  True,  True,  True,  True),
    "D4":            (True,  False, False, False, False),
    "ZONE_DEVICE":   (True,  False, False, False, False),
    "bogus":         (False, True,  False, False, False),
}  # fmt: skip
"""What each definition answers in each state: A is RAM, B NOMAP, C1 hole, C2 absent, …, E ZONE_DEVICE, H bogus."""

TRUTH = {
    "RAM": RAM, "NOMAP": FIRMWARE, "NOMAP-first": FIRMWARE, "hole": DEVICE, "absent": DEVICE, "D0": DEVICE, "D1": RAM, "D1n": RAM,
    "D2n": RAM, "D2": RAM, "D3": RAM, "D4": RAM, "bogus": BOGUS, "ZONE_DEVICE": PMEM,
}  # fmt: skip

CELLS = [(arch, name) for name, state in STATES.items() for arch in state.arches]


@pytest.mark.parametrize(("column", "name"), list(enumerate(["G0", "A0", "A1", "A2"])))
def test_the_truth_table_of_history(column: int, name: str) -> None:
    """Each definition, in force from boot on, answers in each state on arm64 what the table of history says."""
    found = {}
    for state in HISTORY:
        k, pfn = STATES[state].build(Setting("arm64", definition(name)))
        found[state] = mmzone.pfn_valid(k, pfn)
    assert {state: answers[column] for state, answers in HISTORY.items()} == found


def test_the_predicate_beside_it() -> None:
    """pfn_is_map_memory(), beside G0, says "RAM of the kernel's" everywhere but of a pfn that is no address."""
    found = {}
    for state in HISTORY:
        k, pfn = STATES[state].build(Setting("arm64", definition("A2")))
        found[state] = M.test(k, pfn)
    assert {state: answers[4] for state, answers in HISTORY.items()} == found


@pytest.mark.parametrize(("arch", "name"), CELLS)
def test_what_is_so_there(arch: str, name: str) -> None:
    """Under the definition that the kernel shipped with, a state's page is of the kind it says, and in use or not."""
    k, pfn = STATES[name].build(Setting(arch, definition("A0" if arch == "arm64" else "G0")))
    truth = Truth(k)
    assert TRUTH[name] == truth.kind(pfn)
    assert (name in ("RAM", "D3")) == truth.online(pfn)
    assert (name not in ("absent", "D0", "D1", "D1n", "bogus")) == truth.has_memmap(pfn)
    assert (name in ("RAM", "D1n", "D2n", "D2", "D3", "D4", "ZONE_DEVICE")) == truth.linear_mapped(pfn)
    assert (name == "RAM") == truth.must_be_saved(pfn), "a page that was just switched online is free"
    assert (name in ("D2n", "D2", "D4", "ZONE_DEVICE") and not (name in ("D2n", "ZONE_DEVICE") and arch == "arm64")) \
        == truth.reserved(pfn)


def test_device_memory_lives_in_its_own_zone() -> None:
    """devm_memremap_pages() on x86_64: sections in ZONE_DEVICE, no memblock entry, no memory block."""
    k, pfn = STATES["ZONE_DEVICE"].build(Setting("x86_64", definition("G0")))
    zone = Truth(k).zone(pfn)
    assert zone is not None
    assert "Device" == zone.name
    assert SECTIONS * k.PAGES_PER_SECTION == zone.spanned_pages
    assert not any(r.base <= pfn << k.PAGE_SHIFT < r.base + r.size for r in k.memblock.memory.regions)
    assert pfn >> k.PFN_SECTION_SHIFT not in k.memory_blocks


@pytest.mark.parametrize("name", ["False", "valid", "not map", "mb and not map", "present", "map and not valid", "True"])
@pytest.mark.parametrize("arch", ARCHES)
def test_any_definition_boots_or_dies(arch: str, name: str) -> None:
    """Whatever a definition answers, a state is built, or the machine died in a way a real one could."""
    for state in STATES.values():
        if arch not in state.arches:
            continue
        how = ""
        try:
            k, pfn = state.build(Setting(arch, definition(name)))
        except KernelBugError as err:
            how = str(err)
        else:
            assert name == k.pfn_valid.name
            assert 0 <= pfn < 1 << 64
        assert not how or "was touched, but its memmap was never made" in how, state.name


def test_firmware_memory_is_firmware_s_whatever_memblock_says() -> None:
    """A NOMAP mark that a patch sets for a while does not make RAM firmware's."""
    k, pfn = STATES["D2n"].build(Setting("arm64", definition("A0")))
    assert not Truth(k).is_firmware(pfn)
    k, pfn = STATES["NOMAP"].build(Setting("arm64", definition("A0")))
    assert Truth(k).is_firmware(pfn)
    assert Truth(k).is_ram(pfn)
    assert not Truth(k).is_device(pfn)


def test_a_zone_without_hole() -> None:
    """
         |======== RAM ========|nomap|===== RAM =====|     has one, for who walks it
         |=================== RAM ==================|     has none
    """
    k, pfn = STATES["D3"].build(Setting("arm64", definition("A2"), "generic"))
    zone = Truth(k).zone(pfn)
    assert zone is not None
    assert Truth(k).zone_without_hole(zone)
    assert 2 * GIB >> k.PAGE_SHIFT == zone.zone_start_pfn
    k, pfn = STATES["NOMAP"].build(Setting("arm64", definition("G0")))
    zone = Truth(k).zone(pfn)
    assert zone is not None
    assert Truth(k).initialised(pfn)
    assert not Truth(k).zone_without_hole(zone)
