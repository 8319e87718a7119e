# SPDX-License-Identifier: GPL-2.0-only
"""A machine and its verbs."""

from __future__ import annotations

import json

import pytest

import memhp
from memhp import connect
from memhp.abi.files import MEMORY
from memhp.errors import KernelBugError, KernelError, UsageError
from memhp.machine import Machine, c_file, number_ranges
from memhp.scenario import Device, Offline, Online, Pin, Plug, Scenario, Write
from memhp.units import MIB

ARM64 = "model:v4.9+arm64-rfc-2016/arm64?mem=1G"
PC = "model:v4.9/x86_64?mem=1G"


def test_the_public_names_exist() -> None:
    """Each is what it says, and nothing else is public."""
    for name in memhp.__all__:
        if name != "__version__":
            assert getattr(memhp, name).__name__ in (name, "load")
    assert sorted(dir(memhp)) == sorted(memhp.__all__)
    with pytest.raises(AttributeError):
        _ = memhp.nothing


def test_adding_puts_blocks_where_the_window_is() -> None:
    """
    Without an address memory goes to the first free place of the hot-plug window, then behind it.

         | boot 1G |  …  | 4G: 32 33 | 34 |
    """
    with connect(PC) as machine:
        assert [block.block for block in machine.add("256M")] == [32, 33]
        assert [block.block for block in machine.add()] == [34]
        assert [block.state for block in machine.blocks()[-3:]] == ["offline"] * 3


def test_adding_goes_round_a_dimm() -> None:
    """What a DIMM occupies is not free, also if its kernel refused it."""
    with connect(PC) as machine:
        with pytest.raises(KernelError):
            machine.plug("64M")
        assert [block.block for block in machine.add()] == [33]


@pytest.mark.parametrize(
    ("size", "start", "message"),
    [
        (0, None, "size 0: nothing to add; the smallest is one block of 128M"),
        (0, 0x80000000, "size 0: nothing to add"),
        ("100M", None, "size 100M is no multiple of the block size 128M; 128M would do"),
        ("300M", None, "256M or 384M would do"),
        ("12Q", None, "'12Q' is not a size"),
        (None, 0x80000001, "start 0x80000001 is not aligned to the block size 128M; 0x80000000 or 0x88000000 is"),
        (None, 0x8000000, "0x8000000-0xfffffff overlaps memory that is there, 0x0-0x3fffffff; 0x100000000 is free"),
        ("256M", 0x38000000, "overlaps memory that is there"),
        (None, 1 << 46, "is out of range: this kernel's memory ends below 0x400000000000"),
        ("1P", None, "is out of range"),
    ],
)
def test_adds_that_make_no_sense(size: str | int | None, start: int | None, message: str) -> None:
    """Zero, unaligned, overlapping, out of range: one line that says what would do, and nothing is changed."""
    with connect(PC) as machine:
        before = machine.state()
        with pytest.raises(UsageError) as caught:
            machine.add(size, start=start)
        assert message in str(caught.value)
        assert machine.state() == before


def test_without_probe_the_kernel_itself_is_called() -> None:
    """A node that is named needs the in-kernel call; `probe` has no node."""
    with connect("model:v4.9/x86_64?mem=1G&nodes=1G,0") as machine:
        assert machine.add("256M", node=1)[0].nodes == (1,)
        assert machine.plan_add("128M", node=0)[0].do == "add"
        assert machine.plan_add("128M")[0].do == "write"


def test_online_says_why_not() -> None:
    """Under `nohack` the page that is not reserved, the check and its C function are named."""
    with connect(ARM64 + "&remedy=nohack") as machine:
        machine.add()
        with pytest.raises(KernelError) as caught:
            machine.online(2)
        assert caught.value.name == "EBUSY"
        assert caught.value.where == "pages_correctly_reserved"
        assert "0x80000" in caught.value.reason
        assert caught.value.path == f"{MEMORY}/memory2/state"
        result = machine.do(Online(block=2))
        assert "PG_reserved" in result.reason
        assert result.reason.endswith("[pages_correctly_reserved(), drivers/base/memory.c]")


def test_a_writer_that_dies() -> None:
    """`nonomap` touches a memmap that was never made; that is not an errno."""
    with connect(ARM64 + "&remedy=nonomap") as machine:
        with pytest.raises(KernelBugError) as caught:
            machine.add("1G", start=0x80000000)
        assert any("Unable to handle kernel paging request" in line for line in caught.value.log)


@pytest.mark.parametrize(
    ("zone", "shown"), [("online", "Normal"), ("kernel", "Normal"), ("movable", "Movable"), ("online_movable", "Movable")])
def test_zones_by_both_names(zone: str, shown: str) -> None:
    """`zone` is a short word, or the one written to `state`."""
    with connect(PC) as machine:
        block = machine.online(machine.add()[0], zone=zone)
        assert block.valid_zones is not None
        assert block.valid_zones[0] == shown


def test_unknown_blocks_and_zones() -> None:
    """The message names what there is."""
    with connect(PC) as machine:
        with pytest.raises(UsageError, match="no memory block 99; there are 0-7"):
            machine.online(99)
        with pytest.raises(UsageError, match="did you mean movable"):
            machine.online(0, zone="movabel")
        with pytest.raises(UsageError, match="no device d1 is plugged"):
            machine.block("d1:0")
        with pytest.raises(UsageError, match="a number such as 16"):
            machine.block("sixteen")


def test_results_as_json() -> None:
    """
    The keys that scripts read: errno by name or null, an outcome for a plug, an oops where the writer died.
    """
    with connect(ARM64 + "&remedy=nonomap") as machine:
        steps = [
            Plug(id="d1", size=64 * MIB), Online(block=2), Write(path=f"{MEMORY}/memory1/state", text="online"),
            Write(path=f"{MEMORY}/probe", text="0xc0000000"), Write(path=f"{MEMORY}/probe", text="0x100000000"),
        ]  # fmt: skip
        lines = [json.loads(json.dumps(result.json())) for result in machine.run(steps)]
    assert [list(line) for line in lines] == [
        ["step", "do", "errno", "outcome", "log"], ["step", "do", "errno", "log"], ["step", "do", "errno", "log"],
        ["step", "do", "errno", "oops", "log"], ["step", "do", "errno", "hung", "log"],
    ]  # fmt: skip
    assert [line["errno"] for line in lines] == [None, "ENOENT", "EINVAL", None, None]
    assert lines[0]["outcome"] == "refused"
    assert "mem_hotplug" in lines[4]["hung"]


def test_the_state_has_the_fixed_keys() -> None:
    """arm64 keeps memblock, and v4.9 prints no flags; x86_64 drops it."""
    with connect(ARM64) as machine:
        machine.add()
        state = machine.state()
    assert state["blocks"][1] == {
        "block": 2, "state": "offline", "valid_zones": "Normal Movable", "removable": 1, "phys_index": "00000002", "node": None,
    }  # fmt: skip
    assert state["memblock"] == [{"base": 0x40000000, "size": 0x80000000, "flags": None}]
    assert [(zone["node"], zone["zone"], zone["start_pfn"], zone["spanned"], zone["present"]) for zone in state["zones"]] == [
        (0, "DMA", 0x40000, 0x40000, 0x40000)]
    assert state["iomem"] == [
        {"start": 0x40000000, "end": 0x7FFFFFFF, "name": "System RAM"},
        {"start": 0x80000000, "end": 0xBFFFFFFF, "name": "System RAM"},
    ]
    with connect(PC) as machine:
        state = machine.state()
    assert state["memblock"] == []
    assert state["blocks"][0]["node"] == 0


def _changed(machine: Machine, *steps: Plug | Online | Write) -> list[tuple[str, ...]]:
    return [result.changed for result in machine.run(list(steps), watch=True)]


def test_what_changed_is_said() -> None:
    """New blocks, a block's state and zone; and that nothing changed where something might have."""
    with connect(PC) as machine:
        assert _changed(
            machine, Plug(id="d1", size=256 * MIB), Online(block="d1:1", to="online_movable"), Online(block="d1:7"),
            Write(path=f"{MEMORY}/auto_online_blocks", text="online"), Plug(id="d2", size=128 * MIB),
        ) == [
            ("new memory32-33 offline",), ("memory33 offline → online in Movable",), (), ("no memory block changed",),
            ("new memory34 online in Movable",),
        ]  # fmt: skip
    with connect(ARM64 + "&remedy=nonomap-nohack") as machine:
        assert _changed(machine, Write(path=f"{MEMORY}/probe", text="0x80000000")) == [("no memory block changed",)]


def test_nothing_is_run_if_a_step_cannot_be() -> None:
    """A verb the machine does not have, or a device it lacks, is told before the first step."""
    with connect(PC) as machine:
        before = machine.state()
        machine.backend.verbs -= {"pin"}
        with pytest.raises(UsageError, match="step 2: .* cannot pin"):
            machine.run([Plug(id="d1", size=128 * MIB), Pin(id="d1")])
        with pytest.raises(UsageError, match="no virtio-mem device 'v0'"):
            machine.run(Scenario(devices=(Device(kind="virtio-mem", id="v0", max=1 << 30),), steps=(Online(block=0),)))
        assert machine.state() == before


def test_taking_a_block_offline() -> None:
    """Movable memory goes; the kernel's own does not; and a block that is offline already is the kernel's EINVAL."""
    with connect(PC) as machine:
        added = machine.add()[0]
        number = added.block
        steps = [Offline(block=number), Online(block=number, to="online_movable"), Offline(block=number), Offline(block=0)]
        assert ["EINVAL", "ok", "ok", "EBUSY"] == [result.answer.word for result in machine.run(steps)]
        assert "offline" == machine.block(added).state


def test_expectations() -> None:
    """An errno, a word, or that it works."""
    steps = [
        Online(block=0, expect="EINVAL"), Online(block=0, expect="EBUSY"), Plug(id="d1", size=128 * MIB, expect="ok"),
        Plug(id="d1", size=128 * MIB, expect="refused"), Online(block="d1:0", expect="ok"), Online(block="d1:0"),
    ]  # fmt: skip
    with connect(PC) as machine:
        results = list(machine.run(steps))
    assert [result.met for result in results] == [True, False, True, True, True, True]
    assert [result.refused for result in results] == [False, False, False, False, False, True]


def test_c_files_by_room() -> None:
    """Rooms mirror C files; what is none of ours stays."""
    assert c_file("a/linux/mm/page_alloc.py") == "mm/page_alloc.c"
    assert c_file("a/linux/arch/arm64/mm/mmu.py") == "arch/arm64/mm/mmu.c"
    assert c_file("a/linux/series/arm64_rfc_2016.py") == "the series arm64-rfc-2016"
    assert c_file("mm/slub.c") == "mm/slub.c"
    assert c_file("") == ""


def test_ranges_of_numbers() -> None:
    """Neighbours are joined."""
    assert number_ranges([]) == "none"
    assert number_ranges([3, 1, 2, 7]) == "1-3,7"
