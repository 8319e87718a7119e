# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of real kernels, and comparisons of two: a kernel with itself, and two releases."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.vm.conftest import KERNELS, need

from memhp import scenario
from memhp.abi import capture, kpageflags
from memhp.abi.files import MEMORY, NODE
from memhp.abi.zoneinfo import read_zoneinfo
from memhp.backends import base
from memhp.backends.base import Backend
from memhp.backends.qemu import backend, images
from memhp.backends.qemu.backend import QemuBackend
from memhp.checker import differential
from memhp.cli import main
from memhp.errors import BackendError
from memhp.hardware import PAGE_TAIL, PageKind
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


def test_call_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two guests of one kernel run the same functions in the same order, from the DIMM's arrival to its departure."""
    url = f"{need(KERNELS['arm64-6.12'])}?{OFFLINE}"
    script = tmp_path / "life.toml"
    steps = (Plug(id="d1", size=128 * MIB), Online(block="d1:0", to="online_movable"), Offline(block="d1:0"), Unplug(id="d1"))
    script.write_text(scenario.dumps(Scenario(steps=steps)))
    assert 0 == main(["compare", url, url, "--scenario", str(script), "--calls", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 5 == len(lines)
    ran = ("add_memory_resource", "online_pages", "offline_pages", "try_remove_memory")
    for line, name in zip(lines[1:], ran, strict=True):
        assert "" == line["calls"]["difference"]
        assert name in line["calls"]["common"]


CALLS_KNOWN = (
    "mhp_supports_memmap_on_memory, call 1", "__pageblock_pfn_to_page, call 1", "setup_per_zone_wmarks, call 2",
    "init_per_zone_wmark_min, call 5",
)  # fmt: skip
"""Where the model's calls are not the real kernel's yet."""


def test_a_model_beside_a_real_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The model boots as the twin of a guest, and a DIMM comes online on both.

    Nothing that is seen differs, and every function that both have is called in the same order and nesting, known places aside.
    """
    script = tmp_path / "come.toml"
    steps = (Plug(id="d1", size=256 * MIB), Online(block="d1:1", to="online_movable"), Online(block="d1:0"), Online(block="d1:0"))
    script.write_text(scenario.dumps(Scenario(steps=steps)))
    url = f"{need(KERNELS['arm64-6.12'])}?{OFFLINE}"
    main(["compare", url, "model:v6.12/arm64", "--scenario", str(script), "--calls", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [("accepted", "accepted"), ("ok", "ok"), ("ok", "ok"), ("EINVAL", "EINVAL")] == [
        (line["first"], line["second"]) for line in lines[1:]]
    found = [difference for line in lines for difference in line["differences"]]
    assert [] == [difference for difference in found if difference["file"] != "calls"]
    assert [] == [row["item"] for row in found if not any(known in row["item"] for known in CALLS_KNOWN)]
    for line, name in zip(lines[1:4], ("add_memory_resource", "online_pages", "online_pages"), strict=True):
        assert name in line["calls"]["common"]
        assert len(line["calls"]["common"]) > 10
        assert "__cond_resched" in line["calls"]["not_modelled"][0]


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "arm64-newest"])
def test_the_twin_of_a_guest(name: str, boot: Callable[..., Backend], tmp_path: Path) -> None:
    """Pages by kind, zones by managed and free pages: the model stands as the guest stood when it was recorded."""
    url = f"{KERNELS[name]}{'&' if '?' in KERNELS[name] else '?'}mem=2G"
    Machine(boot(url)).capture(str(tmp_path / "capture"))
    real = base.open(f"capture:{tmp_path / 'capture'}")
    release, arch = KERNELS[name].removeprefix("qemu:").partition("?")[0].split("/")
    page = "&page=16K" if "16k" in name else ""
    twin = base.open(f"model:{release}/{arch}?capture={tmp_path / 'capture'}{page}")
    plain = bytes(value & ~PAGE_TAIL for value in range(256))
    end = 4 * GIB // (16384 if page else 4096)
    kinds = kpageflags.read_kinds(real, 0, end).translate(plain)
    assert kinds == kpageflags.read_kinds(twin, 0, end)[: len(kinds)].translate(plain)
    assert kinds.count(PageKind.FREE) == sum(zone.free for zone in read_zoneinfo(twin))
    zones = [{zone.zone: zone.managed for zone in read_zoneinfo(machine) if zone.present} for machine in (real, twin)]
    assert zones[0] == zones[1]


@contextlib.contextmanager
def _somebody_elses(url: str, folder: Path) -> Iterator[tuple[QemuBackend, str]]:
    """A guest of ours, and the URL by which others reach it."""
    parsed = base.parse(need(url))
    assert isinstance(parsed, base.QemuURL)
    images.fetch_agent(parsed.arch)
    own = QemuBackend(str(parsed), dataclasses.replace(backend.describe(parsed), sockets=folder))
    try:
        yield own, f"qemu+unix:{base.quote(str(folder / 'qmp.sock'))}?qga={base.quote(str(folder / 'qga.sock'))}"
    finally:
        own.close()


def test_somebody_elses_vm(tmp_path: Path) -> None:
    """A VM is reached by its monitor and its guest agent, shows the same files, and lives on when we leave it."""
    with _somebody_elses(KERNELS["arm64-6.12"], tmp_path) as (own, url):
        other = base.open(url)
        try:
            assert [] == differential.compare(own, other)
            assert ("arm64", "qemu+unix") == (other.about().arch, other.url.partition(":")[0])
            assert own.read("/proc/kpageflags", 8 * 0x40000, 8000)[:8] == other.read("/proc/kpageflags", 8 * 0x40000, 8000)[:8]
            assert "accepted" == base.apply(other, Plug(id="d1", size=128 * MIB)).word
            assert ["d1"] == [device.id for device in own.devices()]
            for word, block in (("EINVAL", "d1:0"), ("ENOENT", "d1:1"), ("ENOENT", 99)):
                assert word == base.apply(other, Online(block=block)).word
            assert "EPERM" == base.apply(other, Offline(block=10)).word
            assert other.log()[-1] == own.log()[-1]
        finally:
            other.close()
        assert own.process.alive()


def test_an_agent_that_runs_no_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same blocks, nodes, zones and pages are seen; what is not seen is said; blocks go on- and offline."""
    with _somebody_elses(f"{KERNELS['arm64-6.12']}?{OFFLINE}%20memhp.block%3Dguest-exec", tmp_path) as (own, url):
        other = base.open(url)
        try:
            assert [] == differential.compare(own, other)
            assert set(own.listdir(NODE)) >= set(other.listdir(NODE)) >= {"node0", "online", "possible"}
            assert "memory8" in other.listdir(f"{NODE}/node0")
            assert {"online", "offline", "plug", "unplug", "resize"} == other.verbs
            assert "accepted" == base.apply(other, Plug(id="d1", size=128 * MIB)).word
            answers = [base.apply(other, step).word for step in (Online(block="d1:0"), Online(block="d1:0"), Offline(block=10))]
            assert ["ok", "EINVAL", "EPERM"] == answers
            assert b"online\n" == own.read(f"{MEMORY}/memory16/state")
            with pytest.raises(BackendError, match="it only takes blocks online and offline"):
                base.apply(other, Online(block=9, to="online_movable"))
            assert ["the kernel's log", "files of unknown names"] == list(other.unseen())
        finally:
            other.close()
        assert 0 == main(["ls", "-m", url])
        said = capsys.readouterr()
        assert "not seen on this machine: the kernel's log" in said.err and "d1" in said.out
        assert 0 == main(["capture", "-m", url, "-o", str(tmp_path / "capture")])
        assert "not recorded: /var/log/dmesg (its agent runs no programs: guest-exec)" in capsys.readouterr().out
        assert 0 == main(["compare", url, str(tmp_path / "capture")])


def test_an_agent_that_reads_no_files(tmp_path: Path) -> None:
    """One line says so."""
    blocked = f"{KERNELS['arm64-6.12']}?cmdline=memhp.block%3Dguest-file-open"
    with (
        _somebody_elses(blocked, tmp_path) as (_, url),
        pytest.raises(BackendError, match="it lets nobody read files: guest-file-open not allowed"),
    ):
        base.open(url)
