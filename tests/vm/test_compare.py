# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of real kernels, and comparisons of two: a kernel with itself, and two releases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.vm.conftest import KERNELS, need

from memhp.abi import capture
from memhp.backends import base
from memhp.backends.base import Backend
from memhp.checker import differential
from memhp.cli import main
from memhp.machine import Machine
from memhp.scenario import Device, Offline, Online, Plug, Resize, Scenario, Unplug
from memhp.units import GIB, MIB

OFFLINE = "cmdline=memhp_default_state%3Doffline"

LIFE = Scenario(
    devices=(Device(kind="virtio-mem", id="v0", max=2 * GIB),),
    steps=(
        Plug(id="d1", size=384 * MIB), Online(block="d1:1", to="online_movable"), Online(block="d1:0"), Online(block="d1:0"),
        Offline(block=10), Offline(block="d1:1"), Unplug(id="d1"), Plug(id="d2", size=64 * MIB), Resize(id="v0", size=256 * MIB),
        Resize(id="v0", size=0),
    ),
)  # fmt: skip


@pytest.mark.parametrize("name", ["arm64-6.12", "x86_64-6.1"])
def test_a_recording_is_the_machine(name: str, boot: Callable[..., Backend], tmp_path: Path) -> None:
    """What was recorded reads back, hash by hash, and does not differ from the machine it was taken from."""
    machine = boot(KERNELS[name])
    folder = tmp_path / "capture"
    manifest = Machine(machine).capture(str(folder))
    read = capture.load(folder, verify=True)
    assert name.partition("-")[0] == manifest.arch == read.manifest.arch
    assert manifest.release.startswith(name.partition("-")[2])
    assert "/proc/kpageflags" in read.manifest.files
    assert any(path.startswith("/boot/config-") for path in read.manifest.files)
    assert [] == differential.compare(machine, base.open(f"capture:{folder}"))


def test_one_kernel_with_itself(boot: Callable[..., Backend]) -> None:
    """Two guests of one kernel answer a scenario alike: what is compared does not depend on luck."""
    url = f"{KERNELS['arm64-6.12']}?{OFFLINE}"
    machines = [boot(url, *LIFE.devices) for _ in range(2)]
    compared = list(differential.run_both(LIFE, *machines))
    assert len(LIFE.steps) + 1 == len(compared)
    assert [] == [str(found) for step in compared for found in step.found]
    assert ["accepted", "ok", "ok", "EINVAL", "EPERM"] == [step.first.word for step in compared[1:6]]


def test_two_releases(capsys: pytest.CaptureFixture[str]) -> None:
    """v5.10 has sections of 1 GiB where v6.12 has 128 MiB; the comparison says so, and ends with exit code 4."""
    first, second = need(KERNELS["arm64-5.10"]), need(KERNELS["arm64-6.12"])
    assert 4 == main(["compare", first, second, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    sizes = next(line for line in lines if line["item"] == "block_size_bytes")
    assert (GIB, 128 * MIB) == (sizes["first"], sizes["second"])
    assert any(line["item"] == "memory9" and line["first"] is None for line in lines)


def test_a_difference_is_found_in_a_step(boot: Callable[..., Backend]) -> None:
    """The same steps with new blocks online at once: the step in which they come online is the first that differs."""
    url = KERNELS["x86_64-6.12"]
    machines = [boot(f"{url}?{OFFLINE}"), boot(f"{url}?{OFFLINE.replace('offline', 'online')}")]
    compared = list(differential.run_both([Plug(id="d1", size=128 * MIB), Online(block="d1:0")], *machines))
    assert ["auto_online_blocks"] == [found.item for found in compared[0].found]
    assert {"accepted"} == {compared[1].first.word, compared[1].second.word}
    assert ("offline", "online") in [(found.first, found.second) for found in compared[1].found if found.name == "state"]
    assert ("ok", "EINVAL") == (compared[2].first.word, compared[2].second.word)
