# SPDX-License-Identifier: GPL-2.0-only
"""The model behind its files, machine files that replay, and where DIMMs go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memhp import scenario
from memhp.abi.files import MEMORY
from memhp.backends import base, model
from memhp.backends.base import ModelURL
from memhp.errors import BackendError, ConfigError, KernelBugError, KernelError, KernelHangError, UsageError
from memhp.machine import Machine, connect
from memhp.scenario import Add, Offline, Online, Plug, Scenario, Step, Write
from memhp.units import GIB, MIB

ARM64 = "model:v4.9+arm64-rfc-2016/arm64?mem=1G"
PC = "model:v4.9/x86_64?mem=1G"


@pytest.fixture
def pc(tmp_path: Path) -> Path:
    """A machine file of a PC with 1 GiB, nothing done to it yet."""
    path = tmp_path / "pc.toml"
    model.create(str(path), ModelURL(tree="v4.9", arch="x86_64", mem=GIB)).close()
    return path


# Machine files


def test_what_is_done_is_there_again(pc: Path) -> None:
    """A machine file shows, when opened again, what was left."""
    with connect(f"model:{pc}") as machine:
        machine.add("256M", start=0x80000000)
        machine.online(17, zone="movable")
        machine.plug("128M", id="d7")
        left = machine.state()
    with connect(f"model:{pc}") as machine:
        assert machine.state() == left
        assert [device.id for device in machine.devices()] == ["d7"]


def test_a_machine_file_is_a_scenario(pc: Path) -> None:
    """Its steps say what was refused, so that running it checks it."""
    with connect(f"model:{pc}") as machine:
        machine.add("128M", start=0x80000000)
        machine.online(16)
        with pytest.raises(KernelError):
            machine.online(16)
    content = scenario.load(pc)
    assert content.steps == (
        Write(path=f"{MEMORY}/probe", text="0x80000000"), Online(block=16), Online(block=16, expect="EINVAL"))
    with connect(content.machine) as machine:
        assert all(result.met and not result.refused for result in machine.run(content))


def test_looking_leaves_the_file_alone(pc: Path) -> None:
    """Not even its time changes."""
    before = pc.read_bytes(), pc.stat().st_mtime_ns, pc.stat().st_ino
    with connect(f"model:{pc}") as machine:
        machine.state()
        machine.log()
    assert (pc.read_bytes(), pc.stat().st_mtime_ns, pc.stat().st_ino) == before


def test_usage_errors_leave_the_file_alone(pc: Path) -> None:
    """What makes no sense reaches no kernel and no history."""
    before = pc.read_bytes()
    with connect(f"model:{pc}") as machine:
        calls = [
            lambda: machine.add("100M"), lambda: machine.add("128M", start=0x80000001), lambda: machine.add(0),
            lambda: machine.add("128M", start=0x8000000), lambda: machine.add("128M", start=1 << 46),
            lambda: machine.online(99), lambda: machine.online(0, zone="movible"), lambda: machine.online("d1:0"),
            lambda: machine.plug(0), lambda: machine.plug("3K"), lambda: machine.plug("128M", addr="0x1000"),
            lambda: machine.plug("128M", node=3), lambda: machine.plug("128M", id="a b"),
            lambda: machine.offline(99), lambda: machine.do(scenario.Pin(id="d1")),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(UsageError):
                call()
    assert pc.read_bytes() == before


def test_a_dead_writer_is_dead_again(tmp_path: Path) -> None:
    """The oops of `nonomap` is noted; the next writer finds the lock held, before and after the file is opened anew."""
    path = tmp_path / "m.toml"
    model.create(str(path), ModelURL(tree="v4.9+arm64-rfc-2016", arch="arm64", mem=GIB, remedy="nonomap")).close()
    with connect(f"model:{path}") as machine, pytest.raises(KernelBugError):
        machine.add("1G", start=0x80000000)
    with connect(f"model:{path}") as machine, pytest.raises(KernelHangError):
        machine.write(f"{MEMORY}/probe", "0xc0000000")
    assert [step.expect for step in scenario.load(path).steps] == ["oops", "hung"]
    with connect(f"model:{path}") as machine, pytest.raises(KernelHangError):
        machine.write(f"{MEMORY}/probe", "0x100000000")


def test_two_writers_lose_nothing(pc: Path) -> None:
    """Who comes second is told, and the first one's steps stay."""
    with connect(f"model:{pc}") as first, connect(f"model:{pc}") as second:
        first.add("128M", start=0x80000000)
        kept = pc.read_bytes()
        with pytest.raises(BackendError, match="changed by somebody else"):
            second.add("128M", start=0x90000000)
        assert pc.read_bytes() == kept


def _add_and_fail(machine: Machine, path: Path) -> None:
    machine.add("128M", start=0x80000000)
    assert scenario.load(path).steps == ()
    machine.online(99)


def test_a_batch_is_written_once_and_whole(pc: Path) -> None:
    """An exception in the middle of several steps loses none that was done."""
    with connect(f"model:{pc}") as machine, pytest.raises(UsageError), machine.backend.batch():
        _add_and_fail(machine, pc)
    assert len(scenario.load(pc).steps) == 1


def test_a_file_that_cannot_be_written_stays(pc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old file, and nothing beside it."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with connect(f"model:{pc}") as machine:
        before = pc.read_bytes()
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BackendError, match="no space left"):
            machine.add("128M", start=0x80000000)
    assert pc.read_bytes() == before
    assert os.listdir(pc.parent) == [pc.name]


def test_links_and_permissions_stay(pc: Path) -> None:
    """A link to a machine file stays a link; who may read it stays."""
    pc.chmod(0o600)
    link = pc.parent / "link.toml"
    link.symlink_to(pc.name)
    with connect(f"model:{link}") as machine:
        machine.add("128M")
    assert link.is_symlink()
    assert pc.stat().st_mode & 0o777 == 0o600
    assert len(scenario.load(pc).steps) == 1


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('title = "x"', UsageError, "names no machine"),
        ('machine = "capture:x"', UsageError, "a machine file boots a model:TREE/ARCH"),
        ('machine = "model:other.toml"', UsageError, "a machine file boots a model:TREE/ARCH"),
        ('machine = "model:v4.7/x86_64"', UsageError, "unknown tree 'v4.7'"),
        ('machine = "model:v4.9/x86_64?mem=1G"\n[[device]]\nkind = "virtio-mem"\nid = "v0"\nmax = "1G"', UsageError, "no driver"),
        ('machine = "model:v4.9/x86_64?mem=1G"\n[[step]]\ndo = "pin"\nid = "d1"', UsageError, "no workload 'd1'"),
        ('machine = "model:v4.9/x86_64?mem=1G"\n[[step]]\ndo = "online"\nblock = 0\nexpect = "EBUSY"', BackendError,
         "was EBUSY when it was noted and is EINVAL now"),
        ("machine = ", UsageError, "broken TOML"),
        ('machine = "model:v4.9/x86_64?mem=63M"', UsageError, "64M at least"),
        ('machine = "model:v4.9/arm64"', ConfigError, "no memory hotplug on arm64"),
    ],
)
def test_machine_files_that_are_none(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    """One line each, and the file is as it was."""
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(error, match=message.replace("(", r"\(")) as caught:
        connect(f"model:{path}")
    assert "\n" not in str(caught.value)
    assert path.read_text() == text


def test_files_that_are_not_there_or_too_large(tmp_path: Path) -> None:
    """A missing file, a directory, and 100 MB that are not read."""
    with pytest.raises(UsageError, match="no such file"):
        connect(f"model:{tmp_path}/none.toml")
    (tmp_path / "dir.toml").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        connect(f"model:{tmp_path}/dir.toml")
    with (tmp_path / "big.toml").open("wb") as file:
        os.truncate(file.fileno(), 100 * MIB)
    with pytest.raises(UsageError, match="larger than 16M"):
        connect(f"model:{tmp_path}/big.toml")


def _steps() -> st.SearchStrategy[list[Step]]:
    """Steps on the PC of these tests, refused ones among them."""
    blocks = st.sampled_from([0, 7, 16, 17, 18, 32, 33, 99])
    words = st.sampled_from(["online", "online_kernel", "online_movable"])
    starts = st.sampled_from([0x80000000, 0x88000000, 0x90000000, 0x1, 0x10000000, 0x100000000])
    return st.lists(
        st.one_of(
            starts.map(lambda start: Write(path=f"{MEMORY}/probe", text=f"{start:#x}")),
            st.builds(Online, block=blocks, to=words),
            st.builds(Plug, id=st.sampled_from(["a", "b"]), size=st.sampled_from([64 * MIB, 128 * MIB, 256 * MIB])),
            st.builds(Add, start=starts, size=st.sampled_from([0, 128 * MIB, 512 * MIB])),
            st.sampled_from(["online", "offline", "x"]).map(lambda text: Write(path=f"{MEMORY}/auto_online_blocks", text=text)),
            st.builds(Offline, block=st.sampled_from([64, 65])),
        ),
        max_size=8,
    )


@settings(max_examples=40)
@given(steps=_steps(), arm64=st.booleans())
def test_machine_files_replay_to_the_same_state(tmp_path_factory: pytest.TempPathFactory, steps: list[Step], arm64: bool) -> None:
    """Whatever was done, refused or not: opened again, the machine is the same to every reader, and so is its log."""
    path = tmp_path_factory.mktemp("replay") / "m.toml"
    tree, arch = ("v4.9+arm64-rfc-2016", "arm64") if arm64 else ("v4.9", "x86_64")
    with Machine(model.create(str(path), ModelURL(tree=tree, arch=arch, mem=GIB))) as machine:
        for _ in machine.run(steps):
            pass
        left, log, devices = machine.state(), machine.log(), machine.devices()
        files = [machine.read(name) for name in ("/proc/zoneinfo", "/proc/iomem")]
    with connect(f"model:{path}") as machine:
        assert (machine.state(), machine.log(), machine.devices()) == (left, log, devices)
        assert [machine.read(name) for name in ("/proc/zoneinfo", "/proc/iomem")] == files


def test_a_machine_file_is_not_made_over_another(pc: Path) -> None:
    """--force replaces; without it the file stays, and so does what is no .toml file."""
    before = pc.read_bytes()
    url = ModelURL(tree="v4.9", arch="x86_64", mem=2 * GIB)
    with pytest.raises(UsageError, match="exists; --force replaces it"):
        model.create(str(pc), url)
    assert pc.read_bytes() == before
    model.create(str(pc), url, force=True).close()
    assert scenario.load(pc).machine == "model:v4.9/x86_64?mem=2G"
    with pytest.raises(UsageError, match=r"ends in \.toml"):
        model.create(str(pc.parent / "x.ini"), url)
    (pc.parent / "d.toml").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        model.create(str(pc.parent / "d.toml"), url, force=True)


def test_an_impossible_machine_makes_no_file(tmp_path: Path) -> None:
    """It is booted before anything is written."""
    with pytest.raises(ConfigError):
        model.create(str(tmp_path / "m.toml"), ModelURL(tree="v4.9", arch="arm64"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("model:v4.9/x86_64?mem=64T", "addresses 64T; RAM would end at"),
        ("model:v4.9+arm64-rfc-2016/arm64?cmdline=mem%3D1M", "does not come up on this machine"),
        ("model:v4.9/x86_64?cmdline=mem%3D0", "leaves the machine no memory"),
        ("model:v4.9/x86_64?page=16K", "x86_64 has 4K pages"),
        ("model:v4.9+arm64-rfc-2016/arm64?nodes=1G,1G", "CONFIG_NUMA is off"),
        ("model:v4.9+arm64-rfc-2016/arm64?pfn_valid=A4", "asks for what v4.9+arm64-rfc-2016 does not have"),
    ],
)
def test_kernels_that_cannot_be(url: str, message: str) -> None:
    """A kernel that would not boot is an impossible configuration, told in one line."""
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_page_sizes() -> None:
    """arm64 v4.9 has sections of 1 GiB whatever the page size."""
    for page in ("4K", "16K", "64K"):
        with connect(f"model:v4.9+arm64-rfc-2016/arm64?mem=1G&page={page}") as machine:
            machine.add()
            assert (machine.block_size, machine.online(2).state) == (GIB, "online")


def test_an_empty_scenario_round_trips() -> None:
    """The smallest machine file is two lines."""
    assert scenario.dumps(Scenario(machine=PC, version=1)) == f'version = 1\nmachine = "{PC}"\n'


# Where DIMMs go


def _places(url: str, *plugs: Plug) -> list[tuple[str, int] | str]:
    backend = base.open(url)
    said = [base.apply(backend, plug) for plug in plugs]
    placed = {device.id: device.start for device in backend.devices()}
    return [(plug.id, placed[plug.id]) if plug.id in placed else answer.word for plug, answer in zip(plugs, said, strict=True)]


def test_dimms_fill_the_window_from_below() -> None:
    """
    The first free place counts, also one that is left between two.

         | d1 | d2 |      | d4 at 0x140000000 |
                   | d3 |
    """
    assert _places(
        PC, Plug(id="d1", size=128 * MIB), Plug(id="d2", size=256 * MIB), Plug(id="d4", size=128 * MIB, addr=0x140000000),
        Plug(id="d3", size=128 * MIB), Plug(id="d5", size=GIB),
    ) == [("d1", 0x100000000), ("d2", 0x108000000), ("d4", 0x140000000), ("d3", 0x118000000), ("d5", 0x148000000)]  # fmt: skip


def test_the_window_begins_above_ram() -> None:
    """q35: not below 4 GiB; virt: at the end of RAM, rounded up to 1 GiB, whatever `mem=` hides from the kernel."""
    dimm = Plug(id="d1", size=GIB)
    assert _places("model:v4.9/x86_64?mem=3G", dimm) == [("d1", 0x140000000)]
    assert _places("model:v4.9/x86_64?mem=6G", dimm) == [("d1", 0x200000000)]
    assert _places("model:v4.9+arm64-rfc-2016/arm64?mem=1536M", dimm) == [("d1", 0xC0000000)]
    assert _places("model:v4.9+arm64-rfc-2016/arm64?mem=4G&cmdline=mem%3D1G", dimm) == [("d1", 0x140000000)]


def test_what_the_platform_does_not_do() -> None:
    """Sizes and addresses in steps of 2 MiB, inside the window, on a node there is, each name once."""
    size = 128 * MIB
    assert _places(
        PC, Plug(id="d1", size=3 * MIB), Plug(id="d2", size=size, addr=0x100000001), Plug(id="d3", size=size, addr=0x8000000),
        Plug(id="d4", size=size, node=1), Plug(id="d5", size=1 << 46), Plug(id="d6", size=size),
    ) == ["refused"] * 5 + [("d6", 0x100000000)]  # fmt: skip


def test_a_dimm_that_the_guest_refuses_keeps_its_place() -> None:
    """
    64 MiB is half a section: EINVAL, told in the log. The next DIMM starts unaligned behind it and is refused as well.
    """
    backend = base.open(PC)
    answer = base.apply(backend, Plug(id="d1", size=64 * MIB))
    assert (answer.word, answer.errno, answer.error is not None) == ("refused", None, True)
    assert any("add_memory failed" in line for line in answer.log)
    assert base.apply(backend, Plug(id="d2", size=128 * MIB)).word == "refused"
    assert [device.start for device in backend.devices()] == [0x100000000, 0x104000000]


def test_a_node_without_memory_gets_some() -> None:
    """The DIMM's node is the block's node."""
    with connect("model:v4.9/x86_64?mem=1G&nodes=1G,0") as machine:
        machine.plug("128M", node=1)
        assert machine.block("d1:0").nodes == (1,)


# From memory maps


def test_a_memory_map_from_a_file(tmp_path: Path) -> None:
    """`map=FILE` boots what a listing of memblock says."""
    listing = tmp_path / "map.txt"
    listing.write_text("   0: 0x0000000040000000..0x00000000bfffffff\n")
    with connect(f"model:v4.9+arm64-rfc-2016/arm64?map={base.quote(str(listing))}") as machine:
        assert [block.block for block in machine.blocks()] == [1, 2]


@pytest.mark.parametrize("content", ["", "nonsense", "0: 0x5..0x1\n", "\0" * 100])
def test_memory_maps_that_are_none(tmp_path: Path, content: str) -> None:
    """One line that names the file."""
    listing = tmp_path / "map.txt"
    listing.write_text(content)
    with pytest.raises(UsageError, match="map.txt") as caught:
        connect(f"model:v4.9+arm64-rfc-2016/arm64?map={base.quote(str(listing))}")
    assert "\n" not in str(caught.value)
