# SPDX-License-Identifier: GPL-2.0-only
"""Each command, on the model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memhp import connect, scenario
from memhp.abi.files import MEMORY
from memhp.cli import main
from memhp.scenario import Online, Plug, Write
from memhp.units import GIB, MIB

PC = "model:v4.9/x86_64?mem=1G"
NOHACK = "model:v4.9+arm64-rfc-2016/arm64?mem=1G&remedy=nohack"
RECORDED = Path(scenario.__file__).parent / "recorded"


class Shell:
    """Runs commands in this process and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        assert main(list(words)) == code, self._capsys.readouterr()
        out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return out

    def json(self, *words: str, code: int = 0) -> list[Any]:
        return [json.loads(line) for line in self(*words, "--json", code=code).splitlines()]


@pytest.fixture
def sh(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def pc(sh: Shell, tmp_path: Path) -> Path:
    """A machine file, made by `memhp boot`."""
    path = tmp_path / "pc.toml"
    sh("boot", "v4.9/x86_64", "--mem", "1G", "-o", str(path))
    return path


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# boot


def test_boot_notes_what_was_asked_for(sh: Shell, tmp_path: Path) -> None:
    """Every option becomes a key of the machine's URL; paths become absolute."""
    path = tmp_path / "m.toml"
    made = sh.json(
        "boot", "v4.9+arm64-rfc-2016/arm64", "--mem", "2G", "--smp", "2", "--cmdline", "mem=1G memhp_default_state=online",
        "--remedy", "nohack", "--pfn-valid", "A0", "--title", "a board", "-o", str(path),
    )  # fmt: skip
    url = (
        "model:v4.9+arm64-rfc-2016/arm64?mem=2G&smp=2&cmdline=mem%3D1G%20memhp_default_state%3Donline&remedy=nohack&pfn_valid=A0")
    assert made == [{"file": str(path), "machine": url, "block_size": GIB, "blocks": [1]}]
    content = scenario.load(path)
    assert (content.title, content.machine, content.version, content.steps) == ("a board", url, 1, ())


def test_boot_from_a_map_can_be_moved(sh: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine file works from another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.txt").write_text("0: 0x0000000040000000..0x00000000bfffffff\n")
    sh("boot", "v4.9+arm64-rfc-2016/arm64", "--map", "map.txt", "-o", "m.toml")
    monkeypatch.chdir("/")
    table = json.loads(sh("ls", "--json", "-a", "-m", f"model:{tmp_path}/m.toml"))["memory"]
    assert [row["block"] for row in table] == ["1", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["v4.9/x86_64", "--mem", "1"], "RAM comes in multiples of 2M, 64M at least"),
        (["v4.9/x86_64", "--mem", ""], "--mem needs a value"),
        (["v4.9/x86_64", "--page", "16K"], "x86_64 has 4K pages"),
        (["v4.9/x86_64", "--nodes", "1G,1G", "--mem", "1G"], "do not add up"),
        (["v4.9/x86_64", "--remedy", "full"], "has no series with remedies"),
        (["v4.9+arm64-rfc-2016/x86_64"], "changes arm64 only"),
        (["v4.9+arm64-rfc-2016/arm64", "--pfn-valid", "A3"], "asks for what v4.9+arm64-rfc-2016 does not have"),
        (["v4.9+arm64-rfc-2016/arm64", "--map", "/nothing"], "/nothing"),
        (["model:x.toml"], "boot wants TREE/ARCH"),
        (["v4.9/x86_64?mem=1G", "--mem", "1G"], "mem is given twice"),
        (["v4.9/x86_64", "--cmdline", "'"], "cmdline"),
    ],
)
def test_boot_refuses_and_makes_no_file(sh: Shell, tmp_path: Path, words: list[str], message: str) -> None:
    """One line, and no file."""
    sh("boot", *words, "-o", str(tmp_path / "m.toml"), code=2)
    assert message in sh.err
    assert sh.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


# run


def test_run_prints_a_line_a_step_and_why_not(sh: Shell, tmp_path: Path) -> None:
    """The mail's question in two steps, under `nohack`."""
    path = _write(
        tmp_path / "s.toml",
        f'title = "hot-add"\nmachine = "{NOHACK}"\n[[step]]\ndo = "write"\npath = "{MEMORY}/probe"\ntext = "0x80000000"\n'
        '[[step]]\ndo = "online"\nblock = 2\n',
    )
    lines = sh("run", path, code=1).splitlines()
    assert lines[:3] == ["hot-add", NOHACK, ""]
    assert lines[3] == f"1  write '0x80000000' to {MEMORY}/probe  ok        new memory2 offline"
    assert lines[4].startswith("2  online 2 ")
    assert lines[4].index("EBUSY") == lines[3].index("ok ")
    assert "page 0x80000" in lines[4]
    assert "[pages_correctly_reserved(), drivers/base/memory.c]" in lines[4]
    assert lines[-1] == "2 steps: 1 done, 1 refused"


def test_run_as_json_ends_with_the_state(sh: Shell, tmp_path: Path) -> None:
    """One object a step, then the state; with --each the state follows each step instead."""
    plug, online = '[[step]]\ndo = "plug"\nid = "d1"\nsize = "128M"\n', '[[step]]\ndo = "online"\nblock = "d1:0"\n'
    path = _write(tmp_path / "s.toml", plug + online)
    lines = sh.json("run", path, "-m", PC)
    assert [next(iter(line)) for line in lines] == ["step", "step", "blocks"]
    assert lines[0] == {"step": 1, "do": "plug", "errno": None, "outcome": "accepted", "log": []}
    assert list(lines[-1]) == ["blocks", "memblock", "zones", "iomem"]
    assert lines[-1]["blocks"][-1]["state"] == "online"
    each = sh.json("run", path, "-m", PC, "--each")
    assert [next(iter(line)) for line in each] == ["step", "blocks", "step", "blocks"]
    assert each[1]["blocks"][-1]["state"] == "offline"
    assert each[3] == lines[-1]
    with connect(PC) as machine:
        machine.plug("128M")
        machine.online("d1:0")
        assert machine.state() == lines[-1]


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ("", 0),
        ('[[step]]\ndo = "online"\nblock = 0', 1),
        ('[[step]]\ndo = "online"\nblock = 0\nexpect = "EINVAL"', 0),
        ('[[step]]\ndo = "online"\nblock = 0\nexpect = "EBUSY"', 4),
        ('[[step]]\ndo = "plug"\nid = "d"\nsize = "128M"\nexpect = "refused"', 4),
        ('[[step]]\ndo = "online"\nblock = 0\n[[step]]\ndo = "online"\nblock = 0\nexpect = "EBUSY"', 4),
        ('[[step]]\ndo = "plug"\nid = "d"\nsize = "64M"', 1),
        ('[[step]]\ndo = "write"\npath = "/nothing"\ntext = "x"', 1),
        ('[[step]]\ndo = "add"\nstart = 0\nsize = 0', 1),
        ('[[step]]\ndo = "unplug"\nid = "d"', 1), ('[[step]]\ndo = "pin"\nid = "d"', 2),
        ('[[step]]\ndo = "offline"\nblock = 0', 1),
    ],
)
def test_run_exit_codes(sh: Shell, tmp_path: Path, steps: str, code: int) -> None:
    """0 done; 1 refused; 2 cannot be run; 4 answered otherwise than expected."""
    path = _write(tmp_path / "s.toml", steps)
    sh("run", path, "-m", PC, code=code)
    sh("run", path, "-m", PC, "--json", code=code)


def test_run_chooses_the_machine(sh: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-m, else what the scenario names, else MEMHP_MACHINE, else the mail's machine."""
    named = _write(tmp_path / "a.toml", f'machine = "{PC}"')
    unnamed = _write(tmp_path / "b.toml", "")
    monkeypatch.setenv("MEMHP_MACHINE", "model:v4.9/x86_64?mem=2G")
    assert sh("run", named).splitlines()[0] == PC
    assert sh("run", named, "-m", NOHACK).splitlines()[0] == NOHACK
    assert sh("run", unnamed).splitlines()[0] == "model:v4.9/x86_64?mem=2G"
    monkeypatch.delenv("MEMHP_MACHINE")
    assert sh("run", unnamed).splitlines()[0] == "model:v4.9+arm64-rfc-2016/arm64?mem=1G"


def test_run_on_a_machine_file_continues_it(sh: Shell, tmp_path: Path, pc: Path) -> None:
    """The steps are in the history afterwards."""
    path = _write(tmp_path / "s.toml", '[[step]]\ndo = "plug"\nid = "d1"\nsize = "128M"\n')
    sh("run", path, "-m", f"model:{pc}")
    assert scenario.load(pc).steps == (Plug(id="d1", size=128 * MIB),)


def test_run_shows_the_log(sh: Shell, tmp_path: Path) -> None:
    """--log prints what the kernel printed below each step."""
    path = _write(tmp_path / "s.toml", '[[step]]\ndo = "plug"\nid = "d"\nsize = "64M"\nexpect = "refused"')
    assert "   | acpi PNP0C80:00: add_memory failed" in sh("run", path, "-m", PC, "--log")


# ls


def test_ls_merges_neighbours(sh: Shell) -> None:
    """lsmem's table, with the totals below."""
    lines = sh("ls", "-m", PC, "-o", "RANGE,SIZE,STATE,BLOCK").splitlines()
    assert lines == [
        "RANGE                                  SIZE  STATE   BLOCK",
        "0x0000000000000000-0x000000003fffffff    1G  online    0-7",
        "",
        "Memory block size:          128M",
        "Total online memory:          1G",
        "Total offline memory:         0B",
    ]


def test_ls_every_block_in_every_form(sh: Shell) -> None:
    """-a, -b, -n, -P, -r, -J."""
    assert len(sh("ls", "-a", "-n", "--summary", "never", "-m", PC).splitlines()) == 8
    assert sh("ls", "-b", "-n", "-o", "SIZE", "--summary", "never", "-m", PC) == "1073741824\n"
    assert sh("ls", "-P", "-o", "block,size", "-m", PC) == 'BLOCK="0-7" SIZE="1G"\n'
    assert sh("ls", "-r", "-o", "block,size", "-m", PC) == "BLOCK SIZE\n0-7 1G\n"
    table = json.loads(sh("ls", "-J", "-a", "-m", PC))["memory"]
    assert table[1] == {
        "range": "0x0000000008000000-0x000000000fffffff", "size": "128M", "state": "online", "removable": True, "block": "1",
        "node": 0, "zones": "DMA32", "device": None,
    }  # fmt: skip
    assert sh("ls", "--summary", "only", "-b", "-m", PC).splitlines()[1].endswith(" 1073741824")


def test_ls_splits_where_it_is_told(sh: Shell, pc: Path) -> None:
    """By default where any shown column differs; -S names the columns, or none."""
    sh("plug", "256M", "-m", f"model:{pc}")
    sh("online", "33", "-m", f"model:{pc}", "--zone", "movable")
    assert "d1" in sh("ls", "-m", f"model:{pc}")

    def blocks(*words: str) -> list[str]:
        return sh("ls", "-n", "-o", "BLOCK", "--summary", "never", "-m", f"model:{pc}", *words).split()

    assert blocks() == ["0-7", "32-33"]
    assert blocks("-S", "STATE") == ["0-7", "32", "33"]
    assert blocks("-S", "DEVICE") == ["0-7", "32-33"]
    assert blocks("-S", "none") == ["0-7", "32-33"]
    sh("ls", "-S", "SIZE", "-m", PC, code=2)
    assert "unknown column 'SIZE'" in sh.err
    sh("ls", "-J", "-P", "-m", PC, code=2)


@pytest.mark.skipif(shutil.which("lsmem") is None, reason="needs lsmem, of util-linux")
@pytest.mark.parametrize("words", [["-P"], ["-r"], ["-b", "-r"], ["-a", "-P"], ["-P", "-S", "none"], ["-P", "-o", "BLOCK,ZONES"]])
@pytest.mark.parametrize("step", ["00-boot", "01-probe", "02-online"])
@pytest.mark.parametrize("recording", ["v4.9-arm64-rfc/full", "v4.9-x86_64/1-probe", "v4.9-x86_64/1b-online_movable"])
def test_ls_prints_what_lsmem_prints(sh: Shell, recording: str, step: str, words: list[str]) -> None:
    """The real lsmem on the files of a recorded machine, and `memhp ls` on the recording."""
    if "arm64" in recording:
        words = [word.replace("ZONES", "STATE") for word in words]  # lsmem shows no zones of a kernel without NUMA
    capture = RECORDED / recording / step
    columns = [] if "-o" in words else ["-o", "RANGE,SIZE,STATE,REMOVABLE,BLOCK"]
    real = subprocess.run(
        ["lsmem", "--sysroot", str(capture / "root"), "--summary=never", *words, *columns],
        capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert sh("ls", "--summary", "never", "-m", f"capture:{capture}", *words, *columns) == real.stdout


def test_ls_of_a_recording(sh: Shell) -> None:
    """What the real kernel showed: no nodes on arm64 v4.9."""
    out = sh("ls", "-m", f"capture:{RECORDED}/v4.9-arm64-rfc/full/02-online")
    assert out.splitlines()[0].split() == ["RANGE", "SIZE", "STATE", "REMOVABLE", "BLOCK", "ZONES"]
    assert "0x0000000080000000-0x00000000bfffffff" in out


# add, plug, online


def test_add_by_address_size_and_range(sh: Shell, pc: Path) -> None:
    """The four ways to say what; each goes through probe, and the line shows it."""
    machine = f"model:{pc}"
    assert f"write '0x80000000' to {MEMORY}/probe  ok        new memory16 offline" in sh("add", "0x80000000", "-m", machine)
    sh("add", "256M@0x90000000", "-m", machine)
    sh("add", "0xa0000000-0xa7ffffff", "-m", machine)
    sh("add", "128M", "-m", machine)
    with connect(machine) as opened:
        assert [block.block for block in opened.blocks()[8:]] == [16, 18, 19, 20, 32]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("0", "size 0: nothing to add"), ("0M", "size 0"), ("1000", "no multiple of the block size"),
        ("0x80000001", "is not aligned to the block size 128M; 0x80000000 or 0x88000000 is"),
        ("0x8000000", "overlaps memory that is there"), ("0x400000000000", "out of range"),
        ("128M@0xffffffffffffffff", "not aligned"), ("0x90000000-0x80000000", "ends before it starts"), ("x", "is not a size"),
        ("@", "is not a size"), ("128M@", "is not a size"), ("0x80000000-", "is not a size"), ("18446744073709551616", "outside"),
        ("0x", "is not a size"),
    ],
)  # fmt: skip
def test_adds_that_make_no_sense_change_nothing(sh: Shell, pc: Path, what: str, message: str) -> None:
    """One line, exit 2, the machine file byte for byte as it was."""
    before = pc.read_bytes()
    sh("add", what, "-m", f"model:{pc}", code=2)
    assert message in sh.err
    assert sh.err.count("\n") == 1
    assert pc.read_bytes() == before


def test_the_kernel_may_be_asked_all_the_same(sh: Shell, pc: Path) -> None:
    """--no-check: then it is the kernel's refusal, exit 1, and noted."""
    assert "EEXIST" in sh("add", "128M@0x8000000", "--no-check", "-m", f"model:{pc}", code=1)
    assert "EINVAL" in sh("add", "100M@0x80000000", "--no-check", "-m", f"model:{pc}", code=1)
    assert [step.expect for step in scenario.load(pc).steps] == ["EEXIST", "EINVAL"]


def test_dry_runs_change_nothing(sh: Shell, pc: Path) -> None:
    """What would be written, in the shell's words or as JSON."""
    machine, before = f"model:{pc}", pc.read_bytes()
    assert sh("add", "128M", "--dry-run", "-m", machine) == f"echo 0x100000000 > {MEMORY}/probe\n"
    assert sh("online", "0", "--zone", "movable", "--dry-run", "-m", machine) == (
        f"echo online_movable > {MEMORY}/memory0/state\n")
    assert sh.json("online", "0", "--dry-run", "-m", machine) == [{"path": f"{MEMORY}/memory0/state", "text": "online"}]
    assert sh.json("add", "128M", "--node", "0", "--dry-run", "-m", machine) == [
        {"call": "add_memory", "node": 0, "start": 4 * GIB, "size": 128 * MIB}]
    assert sh("plug", "128M", "--dry-run", "-m", machine) == "plug kind=dimm id=d1 size=134217728 node=0\n"
    assert pc.read_bytes() == before


def test_plug_and_its_refusals(sh: Shell, pc: Path) -> None:
    """The platform's refusal is usage, and not noted; the guest's is the kernel's."""
    machine = f"model:{pc}"
    sh("plug", "128M", "--id", "a", "--addr", "0x140000000", "-m", machine)
    before = pc.read_bytes()
    for words in (
        ["3M"], ["0"], ["128M", "--id", "a"], ["128M", "--id", ""], ["128M", "--addr", "0x140000000"], ["128M", "--node", "-1"],
    ):  # fmt: skip
        sh("plug", *words, "-m", machine, code=2)
        assert sh.err.count("\n") == 1
    assert pc.read_bytes() == before
    assert "refused" in sh("plug", "64M", "-m", machine, code=1)
    assert scenario.load(pc).steps[-1] == Plug(id="d1", size=64 * MIB, expect="refused")


def test_online_by_every_name(sh: Shell, pc: Path) -> None:
    """Block, list, range of blocks, address range, size, device, block of a device."""
    machine = f"model:{pc}"
    sh("add", "1G@0x80000000", "-m", machine)
    sh("plug", "256M", "-m", machine)

    def named(*which: str) -> list[int]:
        lines = sh("online", *which, "--dry-run", "-m", machine).splitlines()
        return [int(line.rpartition("/memory")[2].split("/")[0]) for line in lines]

    assert named("16") == named("memory16") == named("0x80000000") == [16]
    assert named("17,16", "17") == [17, 16]
    assert named("16-18,20") == [16, 17, 18, 20]
    assert named("0x80000000-0x8fffffff") == named("0x80000000-0x90000000") == named("256M") == [16, 17]
    assert named("d1") == [32, 33]
    assert named("d1:1") == [33]
    assert "3 steps: 3 done" in sh("online", "16-18", "-m", machine)
    assert named("128M") == [19]
    assert scenario.load(pc).steps[-1] == Online(block=18)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("99", "no memory block 99; there are 0-7"), ("0-8", "no memory block 8"), ("3-1", "the last comes before the first"),
        ("128M", "nothing is offline"), ("100M", "no multiple of the block size"), ("0M", "no multiple of the block size"),
        ("0x1-0x2", "not whole blocks"), ("0x80000000-0x87ffffff", "no offline block lies there"),
        ("0x80000000", "no memory block 16"),
        ("d1", "'d1': a block (16)"), ("d1:0", "no device d1 is plugged"), ("", "'': a block"), ("online", "a block (16)"),
        ("999999999999999999999", "a block (16)"),
    ],
)  # fmt: skip
def test_blocks_that_are_not_there(sh: Shell, pc: Path, which: str, message: str) -> None:
    """One line, exit 2, nothing changed."""
    before = pc.read_bytes()
    sh("online", which, "-m", f"model:{pc}", code=2)
    assert message in sh.err
    assert sh.err.count("\n") == 1
    assert pc.read_bytes() == before


def test_what_was_not_done_is_said(sh: Shell, pc: Path) -> None:
    """One block of three is online already: exit 1, the others are done, and the numbers say so."""
    machine = f"model:{pc}"
    sh("add", "384M@0x80000000", "-m", machine)
    sh("online", "17", "-m", machine)
    out = sh("online", "16-18", "-m", machine, code=1)
    assert "EINVAL    memory17 is online already" in out
    assert out.endswith("3 steps: 2 done, 1 refused\n")
    assert [line["errno"] for line in sh.json("online", "16-18", "-m", machine, code=1)] == ["EINVAL"] * 3


def test_adding_stops_where_the_kernel_refuses(sh: Shell, tmp_path: Path) -> None:
    """The rest is told as not tried."""
    path = tmp_path / "m.toml"
    sh("boot", "v4.9+arm64-rfc-2016/arm64", "--remedy", "nonomap", "-o", str(path))
    out = sh("add", "2G", "-m", f"model:{path}", code=1)
    assert "oops" in out
    assert out.endswith("2 steps: 0 done, 1 refused, 1 not tried\n")
    assert scenario.load(path).steps == (Write(path=f"{MEMORY}/probe", text="0x80000000", expect="oops"),)


def test_a_recording_cannot_be_changed(sh: Shell) -> None:
    """Exit 2, and how to get a twin that can."""
    capture = f"capture:{RECORDED}/v4.9-arm64-rfc/full/01-probe"
    for words in (["online", "2"], ["add", "0xc0000000"], ["plug", "1G"]):
        sh(*words, "-m", capture, code=2)
        assert sh.err.count("\n") == 1


def test_a_truncated_recording(sh: Shell, tmp_path: Path) -> None:
    """A file that is shorter than the manifest says, one that is gone, and a link out of the folder."""
    copy = tmp_path / "capture"
    shutil.copytree(RECORDED / "v4.9-arm64-rfc" / "full" / "02-online", copy, symlinks=True)
    zoneinfo = copy / "root" / "proc" / "zoneinfo"
    zoneinfo.chmod(0o644)
    whole = zoneinfo.read_bytes()
    zoneinfo.write_bytes(whole[:-10])
    sh("ls", "-m", f"capture:{copy}", code=2)
    assert "record the machine again" in sh.err
    zoneinfo.unlink()
    sh("ls", "-m", f"capture:{copy}", code=2)
    assert "missing" in sh.err
    zoneinfo.symlink_to("/etc/passwd")
    sh("ls", "-m", f"capture:{copy}", code=2)
    assert "symbolic link" in sh.err
    assert sh.err.count("\n") == 1


# trees, changes


def test_trees(sh: Shell) -> None:
    """Which can be booted, on what, with which remedies, and the size of a block."""
    found = {tree["tree"]: tree for tree in sh.json("trees")[0]}
    assert found["v4.9"]["arches"]["arm64"]["hotplug"] is False
    assert found["v4.9"]["arches"]["x86_64"]["block_size"] == 128 * MIB
    rfc = found["v4.9+arm64-rfc-2016"]
    assert rfc["arches"]["arm64"]["block_size"] == GIB
    assert {"full", "nohack", "nonomap", "generic", "clear-before-add-zone"} <= set(rfc["remedies"])
    assert found["v6.12"]["arches"]["arm64"]["block_size_by_page"]["64K"] == 512 * MIB
    text = sh("trees")
    assert "v6.1                 arm64    128M  G3" in text
    assert "remedies of v4.9+arm64-rfc-2016" in text


def test_changes(sh: Shell) -> None:
    """By fact and commit, with the functions that read each."""
    found = {change["fact"]: change for change in sh.json("changes", "v4.9", "v4.9+arm64-rfc-2016")[0]}
    assert found["arm64_nomap_window"]["old"] is False
    assert any(reader["function"] == "arch_add_memory" for reader in found["arm64_nomap_window"]["readers"])
    text = sh("changes", "v4.9", "v6.12")
    assert "arm64_pfn_valid" in text
    assert "f1dd2cd13c4b" in text
    assert sh("changes", "v4.9", "v4.9") == "v4.9 and v4.9 differ in no fact\n"
