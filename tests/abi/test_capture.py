# SPDX-License-Identifier: GPL-2.0-only
"""Captures: what is written is read back; a damaged or hostile one gives one clear line and nothing else."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memhp.abi import capture, recorded
from memhp.abi.capture import Manifest
from memhp.abi.files import MEMORY, NODE
from memhp.abi.memory import read_memory
from memhp.errors import KernelError, UsageError

FILES: dict[str, str | bytes] = {
    f"{MEMORY}/block_size_bytes": "8000000\n",
    f"{MEMORY}/memory0/state": "online\n",
    f"{MEMORY}/memory0/removable": "0\n",
    "/proc/iomem": "00000000-07ffffff : System RAM\n",
    "/proc/kpageflags": bytes(range(256)) * 32,
}
LINKS = {f"{MEMORY}/memory0/node0": f"{NODE}/node0", f"{NODE}/node0/memory0": f"{MEMORY}/memory0"}
MANIFEST = Manifest(
    release="4.9.0", arch="arm64", cmdline="quiet", origin="made up", when="2026-11-23",
    lacks={"/proc/zoneinfo": "not asked for"}, links=LINKS, boot={"freed": [[4096, 8192]]},
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good capture."""
    capture.write(FILES, MANIFEST, tmp_path / "machine", write_only=frozenset([f"{MEMORY}/probe"]))
    return tmp_path / "machine"


def test_what_is_written_is_read_back(folder: Path) -> None:
    """Every file has its bytes, every fact its value; the machine's readers read it."""
    machine = capture.load(folder, verify=True)
    for path, content in FILES.items():
        assert machine.read(path) == (content.encode() if isinstance(content, str) else content)
    assert ("4.9.0", "arm64", 4096, "quiet", "made up") == (
        machine.manifest.release, machine.manifest.arch, machine.manifest.page_size, machine.manifest.cmdline,
        machine.manifest.origin,
    )  # fmt: skip
    assert {"freed": [[4096, 8192]]} == machine.manifest.boot
    assert ["block_size_bytes", "memory0", "probe"] == machine.listdir(MEMORY)
    memory = read_memory(machine)
    assert memory.probe
    assert (0,) == memory.blocks[0].nodes
    with pytest.raises(KernelError, match="EACCES"):
        machine.read(f"{MEMORY}/probe")
    with pytest.raises(KernelError, match="not asked for"):
        machine.read("/proc/zoneinfo")
    with pytest.raises(KernelError, match="EROFS"):
        machine.write(f"{MEMORY}/memory0/state", "offline")


def test_binary_files_lie_compressed(folder: Path) -> None:
    """kpageflags is gzip data in the folder, with the size and hash of what is inside."""
    packed = folder / "root/proc/kpageflags.gz"
    assert FILES["/proc/kpageflags"] == gzip.decompress(packed.read_bytes())
    assert b"\x05" == capture.load(folder).read("/proc/kpageflags", 5, 1)


def test_the_same_machine_gives_the_same_folder(folder: Path, tmp_path: Path) -> None:
    """Nothing of the time or order of writing gets into a capture."""
    again = tmp_path / "again"
    capture.write(dict(reversed(FILES.items())), MANIFEST, again, write_only=frozenset([f"{MEMORY}/probe"]))
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        assert file.read_bytes() == (again / file.relative_to(folder)).read_bytes()


@pytest.mark.skipif(shutil.which("lsmem") is None, reason="lsmem is missing (apt-get install util-linux)")
def test_lsmem_reads_a_capture(folder: Path) -> None:
    """`lsmem --sysroot DIR/root` shows the blocks and, through the links, their nodes."""
    command = ["lsmem", "--sysroot", str(folder / "root"), "-a", "-b", "-P", "-o", "RANGE,SIZE,STATE,NODE"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'RANGE="0x0000000000000000-0x0000000007ffffff" SIZE="134217728" STATE="online" NODE="0"' in shown.split("\n")


def test_writing_spoils_nothing_that_is_there(folder: Path, tmp_path: Path) -> None:
    """A folder with something in it, or a file in its place, is refused."""
    with pytest.raises(UsageError, match="new or empty"):
        capture.write(FILES, MANIFEST, folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="new or empty"):
        capture.write(FILES, MANIFEST, tmp_path / "file")


@pytest.mark.parametrize("path", ["/../../etc/passwd", "relative", "/a//b", "/", "", "/a/./b", "/a\0b", "/" + "a/" * 40 + "b"])
def test_a_path_out_of_the_root_is_never_written(path: str, tmp_path: Path) -> None:
    """Climbing, relative, empty and endless paths are refused before anything is made."""
    with pytest.raises(UsageError, match="path"):
        capture.write({path: "x"}, MANIFEST, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def refused(folder: Path, what: str) -> None:
    """Loading says `what` in one line that names the folder or a file in it."""
    with pytest.raises(UsageError, match=what) as caught:
        capture.load(folder, verify=True)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert message.startswith(str(folder.parent)[:100])


def test_not_a_capture(tmp_path: Path, folder: Path) -> None:
    """Nothing there, a file, an empty folder, a name no system has."""
    refused(tmp_path / "none", "No such file")
    (tmp_path / "file").write_text("{}")
    refused(tmp_path / "file", "not a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no manifest.json")
    with pytest.raises(UsageError, match=r"null (byte|character)"):
        capture.load("a\0b")
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    refused(folder, "not a regular file")


def test_a_manifest_of_100_mb(folder: Path) -> None:
    """It is refused after the limit, not read to its end."""
    with open(folder / "manifest.json", "wb") as handle:
        handle.truncate(100 << 20)
    refused(folder, "more than 32M")


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[1]", "not an object"),
        (b"{}", "memhp_capture"),
        (b'{"memhp_capture": 2}', "format 2; this memhp reads format 1"),
        (b'{"memhp_capture": true}', "format True"),
        (b'{"memhp_capture": 1, "memhp_capture": 1}', "stands there twice"),
        (b'{"memhp_capture": 1, "files": {"/a": {}, "/a": {}}}', "'/a' stands there twice"),
        (b'{"memhp_capture": 1, "page_size": NaN}', "NaN is not a number"),
        (b'{"memhp_capture": 1, "boot": {"x": -Infinity}}', "-Infinity is not a number"),
        (b'{"memhp_capture": 1, "page_size": 4095}', "4096, 16384 or 65536"),
        (b'{"memhp_capture": 1, "page_size": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"memhp_capture": 1, "boot": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"memhp_capture": 1, "pickle": "x"}', "unknown key 'pickle'"),
        (b'{"memhp_capture": 1, "release": 4.9}', "release is not a text"),
        (b'{"memhp_capture": 1, "files": []}', "files is not an object"),
        (b'{"memhp_capture": 1, "boot": []}', "boot is not an object"),
        (b'{"memhp_capture": 1, "boot": {"freed": [[2, 1]]}}', "start < end"),
        (b'{"memhp_capture": 1, "boot": {"freed": [["a", 1]]}}', "start < end"),
        (b'{"memhp_capture": 1, "boot": {"freed": 5}}', "not a list"),
        (b'{"memhp_capture": 1, "boot": {"footprint": {"movable": -1}}}', "not a number of pages"),
        (b'{"memhp_capture": 1, "boot": {"footprint": {"x": 1}}}', "footprint"),
        (b'{"memhp_capture": 1, "lacks": {"/a": 1}}', "lacks of /a"),
        (b'{"memhp_capture": 1, "links": {"/a": "b"}}', "absolute path"),
        (b'{"memhp_capture": 1, "links": {"/a": "/../b"}}', "absolute path"),
        (b'{"memhp_capture": 1, "files": {"/a": 1}}', "not an object with size"),
        (b'{"memhp_capture": 1, "files": {"/a": {"size": -1, "sha256": ""}}}', "size -1"),
        (b'{"memhp_capture": 1, "files": {"/a": {"size": 1e3, "sha256": ""}}}', "size 1000.0"),
        (b'{"memhp_capture": 1, "files": {"/a": {"size": 99999999999, "sha256": ""}}}', "size 99999999999"),
        (b'{"memhp_capture": 1, "files": {"/a": {"size": 1, "sha256": "xyz"}}}', "64 hexadecimal"),
        (b'{"memhp_capture": 1, "files": {"/../../etc/passwd": {"size": 1, "sha256": ""}}}', r"'\.\.'"),
        (b'{"memhp_capture": 1, "files": {"a/b": {"size": 1, "sha256": ""}}}', "absolute path"),
        (b'{"memhp_capture": 1, "files": {"' + b"/a" * 60 + b'": {"size": 1, "sha256": ""}}}', "too deep"),
        (b'{"memhp_capture": 1, "files": {"/\x5cu0000a": {"size": 1, "sha256": ""}}}', "absolute path"),
        (b'{"memhp_capture": 1, "release": "\x5cud800", "files": 1}', "files is not an object"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_manifest_that_no_memhp_wrote(raw: bytes, what: str, folder: Path) -> None:
    """Each is named for what it is."""
    (folder / "manifest.json").write_bytes(raw)
    refused(folder, what)


def test_escape_sequences_in_a_manifest_do_not_reach_the_terminal(folder: Path) -> None:
    """What a message shows of a capture is harmless."""
    change(folder, lambda content: content["files"].update({"/\x1b[31m/..": {"size": 0, "sha256": ""}}))
    with pytest.raises(UsageError) as caught:
        capture.load(folder)
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[31m" in str(caught.value)


def test_a_missing_file(folder: Path) -> None:
    """What the manifest names must be there."""
    (folder / "root/proc/iomem").unlink()
    refused(folder, "iomem: missing")
    shutil.rmtree(folder / "root")
    refused(folder, "root: missing")


def test_a_file_that_was_changed(folder: Path) -> None:
    """Another length is seen at once, other bytes when they are read."""
    (folder / "root/proc/iomem").write_text("00000000-0fffffff : System RAM\n")
    machine = capture.load(folder)
    with pytest.raises(UsageError, match="sha256 differs"):
        machine.read("/proc/iomem")
    refused(folder, "sha256 differs")
    (folder / "root/proc/iomem").write_text("longer than that, and not even a listing\n")
    refused(folder, "the manifest says 31")


def test_compressed_data_that_is_damaged(folder: Path) -> None:
    """Cut off, not gzip at all, more inside than the manifest says, or a bomb."""
    packed = folder / "root/proc/kpageflags.gz"
    good = packed.read_bytes()
    packed.write_bytes(good[:-20])
    refused(folder, "cut off|not the 8192")
    packed.write_bytes(b"not gzip")
    refused(folder, "not gzip data")
    packed.write_bytes(gzip.compress(bytes(8193)))
    refused(folder, "more than the 8192 bytes")
    packed.write_bytes(gzip.compress(bytes(64 << 20)))
    refused(folder, "kpageflags.gz: (holds|the compressed data)")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../../etc/passwd", "iomem.real"])
def test_a_symlink_in_place_of_a_file(folder: Path, target: str) -> None:
    """No link is followed, wherever it leads."""
    file = folder / "root/proc/iomem"
    file.rename(folder / "root/proc/iomem.real")
    file.symlink_to(target)
    refused(folder, "iomem: is a symbolic link")


def test_a_symlink_on_the_way_to_a_file(folder: Path, tmp_path: Path) -> None:
    """A folder that leads elsewhere is refused, even if the right file lies there; so is `root` itself."""
    (folder / "root/proc").rename(tmp_path / "proc")
    (folder / "root/proc").symlink_to(tmp_path / "proc")
    refused(folder, "proc: is a symbolic link on the way")
    (folder / "root").rename(tmp_path / "elsewhere")
    (folder / "root").symlink_to(tmp_path / "elsewhere")
    refused(folder, "root: is a symbolic link")


def test_a_symlink_in_place_of_the_manifest(folder: Path, tmp_path: Path) -> None:
    """The manifest is a file of the capture, too."""
    (folder / "manifest.json").rename(tmp_path / "elsewhere.json")
    (folder / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    refused(folder, "symbolic link")


def test_a_swap_after_loading_is_noticed(folder: Path, tmp_path: Path) -> None:
    """A file that becomes a link after it was checked is still not followed."""
    machine = capture.load(folder)
    (tmp_path / "secret").write_text("0" * 31)
    (folder / "root/proc/iomem").unlink()
    (folder / "root/proc/iomem").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="symbolic link"):
        machine.read("/proc/iomem")


def test_a_pipe_or_a_folder_in_place_of_a_file(folder: Path) -> None:
    """A pipe would block for ever, a folder cannot be read: both are refused at once."""
    file = folder / "root/proc/iomem"
    file.unlink()
    os.mkfifo(file)
    refused(folder, "not a regular file")
    file.unlink()
    file.mkdir()
    refused(folder, "not a regular file")


def test_links_that_lead_in_a_circle(folder: Path) -> None:
    """They end with ELOOP, as on a machine."""
    change(folder, lambda content: content["links"].update({"/a": "/b", "/b": "/a"}))
    with pytest.raises(KernelError, match="ELOOP"):
        capture.load(folder).read("/a/x")


def test_a_name_that_is_file_and_folder_or_file_and_link(folder: Path) -> None:
    """A tree that cannot be is refused."""
    entry = json.loads((folder / "manifest.json").read_text())["files"]["/proc/iomem"]
    change(folder, lambda content: content["files"].update({"/proc/iomem/x": entry}))
    refused(folder, "file and a directory at once")
    change(folder, lambda content: content["files"].pop("/proc/iomem/x"))
    change(folder, lambda content: content["links"].update({"/proc/iomem": "/x"}))
    refused(folder, "a file and a link at once")


def test_what_the_manifest_does_not_name_is_not_shown(folder: Path) -> None:
    """A stray file in the folder is not part of the machine."""
    (folder / "root/proc/stray").write_text("x")
    machine = capture.load(folder, verify=True)
    assert "stray" not in machine.listdir("/proc")
    with pytest.raises(KernelError, match="ENOENT"):
        machine.read("/proc/stray")


def test_every_recorded_capture_is_whole() -> None:
    """All hashes of the captures that come with memhp are right, and none lacks its reasons."""
    checked = 0
    for name in recorded.names():
        recording = recorded.recording(name)
        for step in recording.captures:
            machine = recording.capture(step)
            machine.verify()
            assert "/proc/kpageflags" in machine.manifest.lacks
            assert machine.manifest.arch == recording.arch
            checked += 1
    assert 17 == checked
