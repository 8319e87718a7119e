# SPDX-License-Identifier: GPL-2.0-only
"""Paths: what can be listed, read and written, and how the rest is refused; /proc/kpageflags at its edges."""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EACCES, EINVAL, EIO, EISDIR, ENOENT, ENOTDIR

import pytest
from tests import invariants

from memhp import hardware
from memhp.errors import KernelBugError, KernelError
from memhp.linux import boot
from memhp.linux.fs import sysfs
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9, V4_9_RFC
from memhp.units import GIB, MIB

MEMORY = "/sys/devices/system/memory"
WRITE_ONLY = {f"{MEMORY}/probe", f"{MEMORY}/uevent", "/sys/devices/system/node/uevent"}


def machine(arch: str, remedy: str = "") -> Kernel:
    tree = V4_9 if arch == "x86_64" else V4_9_RFC
    return boot.boot(tree, arch, hardware.platform(arch, mem=256 * MIB), remedy=remedy)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_every_file_that_is_listed_can_be_read(arch: str) -> None:
    """All files of a machine with boot memory and a hot-added block; those that can only be written say EACCES."""
    k = machine(arch)
    sysfs.write(k, f"{MEMORY}/probe", hex(4 * GIB))
    paths = list(invariants.files(k))
    assert len(paths) > 25
    assert f"{MEMORY}/probe" in paths
    for path in paths:
        if path not in WRITE_ONLY:
            sysfs.read(k, path, 0, 800)
            continue
        with pytest.raises(KernelError) as caught:
            sysfs.read(k, path)
        assert (EACCES, path) == (caught.value.errno, caught.value.path)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_listings_are_sorted(arch: str) -> None:
    """Alphabetically, as `ls` does: memory10 before memory2."""
    k = machine(arch)
    for path in ("/", "/proc", MEMORY, f"{MEMORY}/memory{min(k.memory_blocks)}"):
        names = sysfs.listdir(k, path)
        assert sorted(names) == names
        assert len(set(names)) == len(names) > 1


@pytest.mark.parametrize(("call", "path", "errno"), [
    ("read", "/nope", ENOENT), ("list", "/nope", ENOENT), ("write", "/nope", ENOENT),
    ("read", "proc/meminfo", ENOENT), ("read", "/proc/../proc/meminfo", ENOENT),
    ("read", f"{MEMORY}/memory00/state", ENOENT), ("read", f"{MEMORY}/memory99/state", ENOENT),
    ("read", f"{MEMORY}/memory-1/state", ENOENT), ("read", f"{MEMORY}/memory0/states", ENOENT),
    ("read", "/", EISDIR), ("read", MEMORY, EISDIR), ("write", f"{MEMORY}/memory0", EISDIR),
    ("read", f"{MEMORY}/memory0/subsystem", EISDIR), ("read", "/proc", EISDIR),
    ("list", "/proc/meminfo", ENOTDIR), ("list", "/proc/kpageflags", ENOTDIR), ("list", f"{MEMORY}/memory0/state", ENOTDIR),
    ("read", "/proc/meminfo/x", ENOTDIR), ("read", f"{MEMORY}/memory0/state/x", ENOTDIR),
    ("list", "/proc/kpagecount/x/y", ENOTDIR),
    ("write", f"{MEMORY}/probe/x", ENOTDIR),
    ("read", f"{MEMORY}/probe", EACCES), ("write", f"{MEMORY}/block_size_bytes", EACCES),
    ("write", f"{MEMORY}/memory0/removable", EACCES), ("write", "/sys/devices/system/node/online", EACCES),
    ("write", "/proc/meminfo", EIO), ("write", "/proc/kpageflags", EIO),
])
def test_refusals(call: str, path: str, errno: int) -> None:
    """The errno of open(), read() or write(), and the path."""
    k = machine("x86_64")
    before = invariants.snapshot(k)
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: sysfs.read(k, path), "list": lambda: sysfs.listdir(k, path), "write": lambda: sysfs.write(k, path, "1")}
    with pytest.raises(KernelError) as caught:
        calls[call]()
    assert (errno, path) == (caught.value.errno, caught.value.path)
    assert [] == list(invariants.differences(before, invariants.snapshot(k)))


def test_links_lead_back() -> None:
    """A block's `subsystem` and `nodeN`, and a node's `memoryN`, are the directories they point to."""
    k = machine("x86_64")
    block = f"{MEMORY}/memory0"
    assert sysfs.listdir(k, MEMORY) == sysfs.listdir(k, f"{block}/subsystem")
    assert sysfs.listdir(k, "/sys/devices/system/node/node0") == sysfs.listdir(k, f"{block}/node0")
    assert sysfs.read(k, f"{block}/state") == sysfs.read(k, f"{block}/node0/memory0/state") == b"online\n"


def test_pieces_of_a_file() -> None:
    """Offset and size cut as pread() does."""
    k = machine("x86_64")
    whole = sysfs.read(k, "/proc/zoneinfo")
    assert whole[5:15] == sysfs.read(k, "/proc/zoneinfo", 5, 10)
    assert whole[7:] == sysfs.read(k, "/proc/zoneinfo", 7)
    assert b"" == sysfs.read(k, "/proc/zoneinfo", len(whole), 10)


def test_nothing_written_is_nothing_asked() -> None:
    """A write of no bytes never reaches store(), so that no word is refused."""
    k = machine("x86_64")
    before = invariants.snapshot(k)
    for name in ("probe", "auto_online_blocks", "memory0/state", "memory0/online"):
        sysfs.write(k, f"{MEMORY}/{name}", "")
    assert [] == list(invariants.differences(before, invariants.snapshot(k)))


# /proc/kpageflags


@pytest.mark.parametrize("name", ["kpageflags", "kpagecount"])
def test_only_a_read_at_max_pfn_sees_the_end(name: str) -> None:
    """
    The bytes left are max_pfn * 8 - offset, unsigned: at max_pfn none, one page further 2^64 - 8.

        pfn     max-1   | max    | max+1 …
        read of  one    | nothing| as much as is asked for
        2 pages  page   |        |
    """
    k = machine("x86_64")
    path, end = f"/proc/{name}", k.max_pfn * 8
    assert 8 == len(sysfs.read(k, path, end - 8, 16))
    assert b"" == sysfs.read(k, path, end, 16)
    absent = struct.pack("<Q", 1 << 20 if name == "kpageflags" else 0)
    assert 2 * absent == sysfs.read(k, path, end + 8, 16)
    assert 0 == len(sysfs.read(k, path, 0)) - end


@pytest.mark.parametrize(("offset", "size"), [(4, 8), (8, 4), (1, 1), (8, 9)])
def test_reads_are_multiples_of_eight(offset: int, size: int) -> None:
    k = machine("x86_64")
    with pytest.raises(KernelError) as caught:
        sysfs.read(k, "/proc/kpageflags", offset, size)
    assert EINVAL == caught.value.errno


def test_flags_of_hot_added_pages_on_arm64() -> None:
    """arm64 does not raise max_pfn, and still a read beyond it shows them: reserved while offline, free or used once online."""
    k = machine("arm64")
    sysfs.write(k, f"{MEMORY}/probe", hex(4 * GIB))
    first = 4 * GIB >> 12
    assert k.max_pfn < first
    assert struct.pack("<Q", 1 << 32) * 3 == sysfs.read(k, "/proc/kpageflags", (first + 100000) * 8, 24)
    sysfs.write(k, f"{MEMORY}/memory4/state", "online")
    assert struct.pack("<Q", 1 << 10) * 3 == sysfs.read(k, "/proc/kpageflags", (first + 100000) * 8, 24)


def test_a_reader_dies_where_pfn_valid_promised_too_much() -> None:
    """
    Without the NOMAP mark the section is skipped as "present already": pfn_valid() is true, the memmap was never made, and
    whoever looks at a struct page dies.
    """
    k = machine("arm64", "nonomap-nohack")
    sysfs.write(k, f"{MEMORY}/probe", hex(4 * GIB))
    assert 4 not in k.memory_blocks
    with pytest.raises(KernelBugError, match=r"pfn 0x100000 .*memmap was never made") as caught:
        sysfs.read(k, "/proc/kpageflags", (4 * GIB >> 12) * 8, 8)
    assert "Unable to handle kernel paging request at virtual address ffff7e0003000020" in caught.value.log[0]
