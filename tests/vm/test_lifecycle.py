# SPDX-License-Identifier: GPL-2.0-only
"""The life of a DIMM and of a virtio-mem device on each kernel, by the verbs that people use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.vm.conftest import KERNELS

from memhp.abi.memory import MemorySnapshot, read_memory
from memhp.abi.zoneinfo import read_zoneinfo
from memhp.backends import base
from memhp.backends.base import Backend
from memhp.backends.qemu.backend import QemuBackend
from memhp.scenario import Device, Offline, Online, Plug, Resize, Unplug
from memhp.units import GIB, MIB

OFFLINE = "cmdline=memhp_default_state%3Doffline"
WITHOUT_VIRTIO_MEM = ("arm64-5.10",)
"""Kernels whose configuration has no driver for it."""
WITHOUT_DIMMS = ("arm64-6.12-16k",)
"""Kernels whose configuration has no driver for ACPI's memory devices."""


def _url(name: str) -> str:
    return f"{KERNELS[name]}{'&' if '?' in KERNELS[name] else '?'}{OFFLINE}"


def _movable(machine: Backend) -> int:
    return sum(zone.present for zone in read_zoneinfo(machine) if zone.zone == "Movable")


def _a_dimm(machine: Backend, before: MemorySnapshot, pages: int) -> None:
    """Plug a DIMM of two blocks, online both, offline one, unplug."""
    size = before.block_size
    answer = base.apply(machine, Plug(id="d1", size=2 * size))
    assert ("accepted", None) == (answer.word, answer.errno), answer
    dimm = next(device for device in machine.devices() if device.id == "d1")
    new = [block for block in read_memory(machine).blocks if before.find(block.block) is None]
    assert [dimm.start // size, dimm.start // size + 1] == [block.block for block in new]
    assert ["offline", "offline"] == [block.state for block in new]

    for number in (0, 1):
        assert "ok" == base.apply(machine, Online(block=f"d1:{number}", to="online_movable")).word
    assert 2 * size // pages == _movable(machine)
    assert "EINVAL" == base.apply(machine, Online(block="d1:1", to="online_movable")).word
    assert "refused" == base.apply(machine, Plug(id="d1", size=size)).word

    assert "ok" == base.apply(machine, Offline(block="d1:1")).word
    assert size // pages == _movable(machine)
    assert "EINVAL" == base.apply(machine, Offline(block="d1:1")).word
    assert "accepted" == base.apply(machine, Unplug(id="d1")).word
    assert "refused" == base.apply(machine, Unplug(id="d1")).word


@pytest.mark.parametrize("name", KERNELS)
def test_a_device_comes_and_goes(name: str, boot: Callable[..., Backend]) -> None:
    """
    A DIMM of two blocks is plugged, onlined, taken offline and unplugged; then a virtio-mem device grows and shrinks.

    What is onlined movable holds nothing that cannot leave, so in the end the machine is as it was at boot.
    """
    driver = name not in WITHOUT_VIRTIO_MEM
    machine = boot(_url(name), *([Device(kind="virtio-mem", id="v0", max=2 * GIB)] if driver else []))
    before = read_memory(machine)
    size = before.block_size
    assert (GIB if name == "arm64-5.10" else 128 * MIB) == size

    pages = 16384 if "16k" in name else 4096
    if name in WITHOUT_DIMMS:
        answer = base.apply(machine, Plug(id="d1", size=2 * size))
        assert "refused" == answer.word
        assert "built without ACPI_HOTPLUG_MEMORY" in answer.log[0]
        assert "accepted" == base.apply(machine, Unplug(id="d1")).word
    else:
        _a_dimm(machine, before, pages)
    if driver:
        assert "accepted" == base.apply(machine, Resize(id="v0", size=2 * size)).word
        device = machine.devices()[0]
        assert (2 * size, 2 * size) == (device.requested, device.plugged)
        assert len(before.blocks) < len(read_memory(machine).blocks)
        assert "accepted" == base.apply(machine, Resize(id="v0", size=0)).word
    assert before == read_memory(machine)
    assert 0 == _movable(machine)


@pytest.mark.parametrize("name", ["arm64-6.12", "x86_64-6.12"])
def test_boot_memory(name: str, boot: Callable[..., Backend]) -> None:
    """arm64 does not let go of boot memory, x86_64 does; the log says why."""
    machine = boot(_url(name))
    answers = [base.apply(machine, Offline(block=int(block.block))) for block in read_memory(machine).blocks[1:]]
    if name.startswith("arm64"):
        assert "ok" not in {answer.word for answer in answers}
        refused = [answer for answer in answers if answer.word == "EPERM"]      # others fail earlier: a hole, a page that stays
        assert refused
        assert all(any(line.startswith("Boot memory [") for line in answer.log) for answer in refused)
    else:
        assert "ok" in {answer.word for answer in answers}


@pytest.mark.parametrize("name", ["arm64-6.12", "x86_64-6.12"])
def test_a_dimm_that_stays(name: str, boot: Callable[..., Backend]) -> None:
    """
    Programs whose stacks and page tables lie on a DIMM hold it: the guest tells that ejecting is under way, then that it is
    busy, and QEMU never says that the device is gone.
    """
    machine = boot(_url(name))
    assert isinstance(machine, QemuBackend)
    assert "accepted" == base.apply(machine, Plug(id="d1", size=128 * MIB)).word
    assert "ok" == base.apply(machine, Online(block="d1:0", to="online_kernel")).word
    machine.guest.run("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done")
    answer = base.apply(machine, Unplug(id="d1"))
    assert ("refused", "the guest answers by ACPI: busy (130)") == (answer.word, answer.log[0])
    assert ["d1"] == [device.id for device in machine.devices()]
    assert not [event for event in machine.monitor.poll() if event["event"] == "DEVICE_DELETED"]


def test_a_dimm_that_fits_no_block(boot: Callable[..., Backend]) -> None:
    """The guest acknowledges it and takes none of it: that is a refusal, and the DIMM stays where it is."""
    machine = boot(_url("arm64-6.12"))
    answer = base.apply(machine, Plug(id="d1", size=64 * MIB))
    assert "refused" == answer.word
    assert any(line.startswith("Block size [0x8000000] unaligned hotplug range") for line in answer.log)
    assert ["d1"] == [device.id for device in machine.devices()]
    assert "accepted" == base.apply(machine, Unplug(id="d1")).word


def test_nodes(boot: Callable[..., Backend]) -> None:
    """A node without memory gets its first with a DIMM."""
    machine = boot(f"{_url('x86_64-6.12')}&nodes=512M,512M,0")
    assert {0, 1} == {node for block in read_memory(machine).blocks for node in block.nodes}
    assert "accepted" == base.apply(machine, Plug(id="d1", size=256 * MIB, node=2)).word
    assert (2,) == read_memory(machine).blocks[-1].nodes
    assert 2 == machine.devices()[0].node
    assert "refused" == base.apply(machine, Plug(id="d2", size=256 * MIB, node=3)).word


def test_nodes_that_arm64_gives_up(boot: Callable[..., Backend]) -> None:
    """The firmware's flash counts as memory of no node: the kernel then puts all memory on node 0, and says so."""
    machine = boot(f"{_url('arm64-6.12')}&nodes=512M,512M")
    assert {0} == {node for block in read_memory(machine).blocks for node in block.nodes}
    assert any("no nodes coverage for 64MB" in line for line in machine.log())
