# SPDX-License-Identifier: GPL-2.0-only
"""Whatever a machine prints, a reader returns or raises UsageError or KernelError, and nothing else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memhp.abi import buddyinfo, capture, iomem, kpageflags, memblock, memmap, memory, node, probe, recorded, zoneinfo
from memhp.abi import files as abi
from memhp.abi.files import MEMORY, NODE
from memhp.abi.meminfo import parse_meminfo
from memhp.errors import KernelError, UsageError

_BOOT = recorded.recording("v4.9-x86_64/1-probe").capture("00-boot")
_ARM64 = recorded.recording("v4.9-arm64-rfc/full").capture("00-boot")
TEXTS = [
    abi.read_text(_BOOT, path)
    for path in ("/proc/iomem", "/proc/zoneinfo", "/proc/meminfo", "/proc/buddyinfo", "/proc/pagetypeinfo")
] + [abi.read_text(_ARM64, f"/sys/kernel/debug/memblock/{kind}") for kind in ("memory", "reserved")]
READERS: list[Callable[[str], object]] = [
    iomem.parse_iomem, zoneinfo.parse_zoneinfo, parse_meminfo, buddyinfo.parse_buddyinfo, buddyinfo.parse_pagetypeinfo,
    memblock.parse_memblock, node.parse_list, memmap.split_listings,
    lambda text: memmap.hardware_from_text(text, "arm64"), lambda text: memmap.hardware_from_text(text, "x86_64"),
]  # fmt: skip
PIECES = st.sampled_from(
    ["\n", " ", "0", "9" * 30, "-", ":", "x", "\0", "é", "Node 0, zone ", "0x", "..", "== /proc/iomem\n", "²", "٣"]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A real listing of which pieces are cut out, doubled or replaced."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        text = text[:start] + draw(PIECES | st.just(text[start:end] * 2)) + text[end:]
    return text


@given(damaged() | st.text(max_size=300))
@example("²: 0x0..0xfff\n")
@example("0: 0x0..0xfff ٣ NONE\n")
def test_readers_of_text(text: str) -> None:
    """Damaged listings and arbitrary text."""
    for reader in READERS:
        with suppress(UsageError, KernelError):
            reader(text)


BLOCKS = ["memory0", "memory00", "memory1", "memory99999999999999999999", "memoryx"]
PATHS = [
    *(f"{MEMORY}/{name}" for name in ("block_size_bytes", "auto_online_blocks", "probe")),
    *(f"{MEMORY}/{block}/{file}" for block in BLOCKS for file in (*memory.ATTRIBUTES, "node0", "node1")),
    *(f"{NODE}/node{n}/{file}" for n in ("0", "1", "x", "00") for file in ("memory0", "memory1", "meminfo")),
    *(f"{NODE}/{mask}" for mask in ("online", "possible")),
]


@given(st.dictionaries(st.sampled_from(PATHS), st.binary(max_size=30) | st.sampled_from([b"8000000\n", b"1\n"])))
def test_readers_of_folders(texts: dict[str, bytes]) -> None:
    """Trees that look like sysfs and hold anything."""
    files = abi.stored(texts)
    for read in (memory.read_memory, node.read_nodes, probe.read_features, lambda f: memory.read_block(f, 0)):
        with suppress(UsageError, KernelError):
            read(files)


@given(st.binary(max_size=200), st.integers(-5, 30), st.integers(-5, 30))
def test_readers_of_page_flags(data: bytes, start: int, count: int) -> None:
    """Any bytes, any range: the runs cover exactly what was counted."""
    files = abi.stored({kpageflags.KPAGEFLAGS: data})
    with suppress(UsageError, KernelError):
        counts = kpageflags.read_counts(files, start, count)
        runs = list(kpageflags.read_runs(files, start, count))
        assert counts.entries == sum(pages for _, pages, _ in runs)
        assert counts.none == sum(pages for _, pages, value in runs if value == 0)
        assert all(first + pages == after for (first, pages, _), (after, _, _) in pairwise(runs))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
JSON = st.recursive(
    LEAVES | st.sampled_from(["/a", "/a/b", "/..", "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["/a", "/a/b", "size", "sha256", "gzip", "freed", "footprint", "movable"]), inner, max_size=4),
    max_leaves=10,
)
KEYS = ["release", "arch", "page_size", "cmdline", "origin", "when", "lacks", "files", "links", "boot", "other"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON) | st.binary(max_size=100))
def test_reader_of_captures(content: dict[str, object] | bytes) -> None:
    """Any manifest: a capture, or one line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "root").mkdir()
        (folder / "root" / "a").write_text("x")
        raw = content if isinstance(content, bytes) else json.dumps({"memhp_capture": 1, **content}).encode()
        (folder / "manifest.json").write_bytes(raw)
        machine = None
        with suppress(UsageError):
            machine = capture.load(folder, verify=True)
        if machine is None:
            with pytest.raises(UsageError, match=r"\A[^\n]+\Z"):
                capture.load(folder, verify=True)
            return
        with suppress(UsageError, KernelError):
            memmap.hardware_from_capture(machine, "arm64")
        for read in (machine.read, machine.listdir):
            with suppress(KernelError):
                read("/a")


NAMES = st.from_regex(r"(/[a-z]{1,3}){1,3}", fullmatch=True)


@given(st.dictionaries(NAMES, st.binary(max_size=20) | st.text(max_size=20), max_size=6))
def test_captures_give_back_what_was_put_in(texts: dict[str, bytes | str]) -> None:
    """Any set of files that a machine can have is written and read back."""
    manifest = capture.Manifest(release="x", arch="arm64")
    with tempfile.TemporaryDirectory() as name:
        if any(one != other and other.startswith(one + "/") for one in texts for other in texts):
            with pytest.raises(UsageError, match="file and a directory"):
                capture.write(texts, manifest, Path(name) / "c")
            return
        capture.write(texts, manifest, Path(name) / "c")
        machine = capture.load(Path(name) / "c", verify=True)
        for path, content in texts.items():
            assert machine.read(path) == (content.encode() if isinstance(content, str) else content)
