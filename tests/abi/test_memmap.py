# SPDX-License-Identifier: GPL-2.0-only
"""Hardware from recorded memory maps: the page counts of the recorded kernels come out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memhp.abi import files as abi
from memhp.abi import memmap, recorded
from memhp.abi.zoneinfo import read_zoneinfo
from memhp.errors import UsageError
from memhp.hardware import Footprint, Hardware, MemoryRange, Region
from memhp.units import GIB

MEMORY = "   0: 0x0000000040000000..0x000000007fffffff\n"
RESERVED = "   0: 0x0000000040080000..0x000000004041ffff\n"
IOMEM = "40000000-7fffffff : System RAM\n  40080000-4034ffff : Kernel code\n  40390000-40421fff : Kernel data\n"


def pages_of(ranges: tuple[tuple[int, int], ...], page_size: int = 4096) -> set[int]:
    """The pages that the ranges touch."""
    return {pfn for start, end in ranges for pfn in range(start // page_size, -(-end // page_size))}


def managed(hardware: Hardware) -> int:
    """Pages the buddy allocator ends up with: present, less those touched by a reserved range, plus those given back."""
    present = {pfn for r in hardware.memory for pfn in range(-(-r.start // 4096), r.end // 4096)}
    return len(present - pages_of(hardware.reserved)) + len(present & pages_of(hardware.reserved) & pages_of(hardware.freed))


@pytest.mark.parametrize("remedy", ["full", "nohack", "nonomap", "generic"])
def test_the_arm64_recording_adds_up(remedy: str) -> None:
    """262144 pages present, less what was reserved, plus init memory and initrd given back: 256492 managed, as recorded."""
    machine = recorded.recording(f"v4.9-arm64-rfc/{remedy}").capture("00-boot")
    hardware = memmap.hardware_from_capture(machine, "arm64")
    (zone,) = read_zoneinfo(machine)
    assert zone.present == hardware.total // 4096 == 262144
    assert zone.managed == managed(hardware) == hardware.managed == 256492
    assert hardware.memmap_reserved
    assert (MemoryRange(GIB, 2 * GIB),) == hardware.memory
    assert ((0x40350000, 0x40390000), (0x48000000, 0x481CB000)) == hardware.freed
    assert ["Kernel code", "Kernel data"] == [r.name for r in hardware.ram_children]
    assert "/pl011@9000000" == hardware.iomem[0].name == hardware.iomem[0].children[0].name
    assert 2 * GIB == hardware.window


def test_the_footprint_is_what_pagetypeinfo_says() -> None:
    """Pages in use after boot, by mobility; together they are what is managed and not free. Later states keep them."""
    recording = recorded.recording("v4.9-arm64-rfc/full")
    assert Footprint(650, 266, 1108) == memmap.hardware_from_capture(recording.capture("00-boot"), "arm64").footprint
    assert Footprint(650, 266, 1108) == memmap.hardware_from_capture(recording.capture("02-online"), "arm64").footprint
    x86 = recorded.recording("v4.9-x86_64/1-probe").capture("00-boot")
    assert Footprint(1113, 374, 1086) == memmap.hardware_from_capture(x86, "x86_64").footprint


def test_the_x86_recording_has_no_memblock() -> None:
    """Memory is System RAM: 262046 whole pages, as recorded; what was reserved is put together, within 1 %."""
    machine = recorded.recording("v4.9-x86_64/1-probe").capture("00-boot")
    hardware = memmap.hardware_from_capture(machine, "x86_64")
    (zone,) = read_zoneinfo(machine)
    assert (MemoryRange(0x1000, 0x9FC00), MemoryRange(0x100000, GIB)) == hardware.memory
    assert zone.present == sum(r.end // 4096 - r.start // 4096 for r in hardware.memory)
    assert not hardware.memmap_reserved
    assert zone.managed == hardware.managed
    memmap_pages = GIB // 4096 * 64 // 4096
    assert abs(managed(hardware) - memmap_pages - zone.managed) < zone.managed // 100
    assert "Kernel bss" == hardware.ram_children[-1].name
    bus = next(r for r in hardware.iomem if r.start == 0xC0000000)
    assert Region(0xC0000000, 0xFEBFFFFF, "PCI Bus 0000:00", busy=False) == bus
    assert all(any(start >= a and end <= b for a, b in hardware.reserved) for start, end in hardware.freed)
    assert 4 * GIB == hardware.window


def put(folder: Path, text: str | bytes) -> Path:
    file = folder / "map.txt"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_one_listing_is_enough(tmp_path: Path) -> None:
    """A memblock listing alone, or an iomem listing alone, tells what it is by its lines."""
    hardware = memmap.hardware_from_map(put(tmp_path, MEMORY), "arm64")
    assert (MemoryRange(GIB, 2 * GIB),) == hardware.memory
    assert () == hardware.reserved == hardware.freed
    assert not hardware.memmap_reserved
    hardware = memmap.hardware_from_map(put(tmp_path, IOMEM), "arm64")
    assert (MemoryRange(GIB, 2 * GIB),) == hardware.memory
    assert ((0x40350000, 0x40390000),) == hardware.freed
    assert ((0x40080000, 0x40422000),) == hardware.reserved
    assert f"map={tmp_path / 'map.txt'}" == hardware.origin


@pytest.mark.parametrize(
    "heads",
    [
        ("== /sys/kernel/debug/memblock/memory", "== /sys/kernel/debug/memblock/reserved", "== /proc/iomem"),
        ("memory:", "reserved:", "iomem:"),
        ("# memory", "# reserved", "# /proc/iomem (as root)"),
    ],
)
def test_listings_under_headings(heads: tuple[str, str, str], tmp_path: Path) -> None:
    """Headings as in a recording, as names, as remarks; what stands under other headings is not read."""
    text = f"# a machine\n{heads[0]}\n{MEMORY}{heads[1]}\n{RESERVED}\n{heads[2]}\n{IOMEM}== /proc/other\nnonsense\n"
    hardware = memmap.hardware_from_map(put(tmp_path, text), "arm64")
    assert ((0x40080000, 0x40420000),) == hardware.reserved
    assert hardware.memmap_reserved
    assert 2 == len(hardware.ram_children)


def test_ranges_given_back_can_be_listed() -> None:
    """`freed` lists what no file of the kernel shows: the initrd."""
    text = f"memory\n{MEMORY}reserved\n{RESERVED}freed\n0: 0x40080000..0x40080fff\n"
    assert ((0x40080000, 0x40081000),) == memmap.hardware_from_text(text, "arm64").freed


def test_flags_and_nodes_of_later_kernels() -> None:
    """NOMAP is kept, NONE is no flag, the node is the listing's."""
    listing = "0: 0x0000000004000000..0x0000000007ffffff    0 NOMAP\n1: 0x0000000040000000..0x000000007fffffff    1 NONE\n"
    hardware = memmap.hardware_from_text(listing, "arm64")
    assert (MemoryRange(0x4000000, 0x8000000, 0, ("NOMAP",)), MemoryRange(GIB, 2 * GIB, 1)) == hardware.memory
    assert 2 == hardware.possible_nodes


def test_nodes_from_memory_blocks() -> None:
    """Where memblock shows no node, the links of the memory blocks do; a range is cut where the node changes."""
    sysfs = "/sys/devices/system"
    texts: dict[str, str | bytes] = {"/proc/iomem": IOMEM, f"{sysfs}/memory/block_size_bytes": "10000000\n"}
    texts |= {f"{sysfs}/memory/memory{n}/state": "online\n" for n in (4, 5, 6, 7)}
    links = {f"{sysfs}/node/node{n // 6}/memory{n}": f"{sysfs}/memory/memory{n}" for n in (4, 5, 6, 7)}
    hardware = memmap.hardware_from_files(abi.stored(texts, links), "arm64")
    assert (MemoryRange(GIB, 0x60000000, 0), MemoryRange(0x60000000, 2 * GIB, 1)) == hardware.memory


def test_later_captures_count_hot_added_memory_as_memory() -> None:
    """The state after a probe has 2 GiB; the window starts behind them."""
    hardware = memmap.hardware_from_capture(recorded.recording("v4.9-arm64-rfc/full").capture("01-probe"), "arm64")
    assert (MemoryRange(GIB, 3 * GIB),) == hardware.memory
    assert 3 * GIB == hardware.window


def test_a_capture_folder_is_a_map() -> None:
    """`map=DIR` and `capture=DIR` give the same machine."""
    machine = recorded.recording("v4.9-arm64-rfc/full").capture("00-boot")
    assert memmap.hardware_from_capture(machine, "arm64") == memmap.hardware_from_map(machine.directory, "arm64")
    with pytest.raises(UsageError, match="a capture of arm64, not of x86_64"):
        memmap.hardware_from_map(machine.directory, "x86_64")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no memory map"),
        ("\n\n", "no memory map"),
        ("hello\n", "'hello' is a line neither of memblock nor"),
        (b"\x00\xff\x1b[31m", "neither of memblock"),
        (MEMORY + IOMEM, "without headings"),
        ("memory\n" + MEMORY + "memory\n" + MEMORY, "listed twice"),
        ("memory\nhello\n", "not a line of memblock"),
        ("reserved\n" + RESERVED, "no memory"),
        ("00000000-00000000 : System RAM\n", "as root"),
        ("00000000-00000fff : reserved\n", "holds no memory"),
        ("00000010-000000ff : System RAM\n", "holds no memory"),
        ("0: 0x0000000000000000..0xffffffffffffffff\n", "beyond 2.52"),
    ],
)
def test_files_that_are_no_memory_map(text: str | bytes, what: str, tmp_path: Path) -> None:
    """One line that names the file and what is wrong."""
    with pytest.raises(UsageError, match=what) as caught:
        memmap.hardware_from_map(put(tmp_path, text), "arm64")
    assert str(caught.value).startswith(f"map={tmp_path}")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_places_that_are_no_memory_map(tmp_path: Path) -> None:
    """Nothing, a pipe, an empty folder, a huge file, an unknown architecture."""
    for path, what in ((tmp_path / "none", "No such file"), (tmp_path, "no manifest.json"), ("a\0b", "null")):
        with pytest.raises(UsageError, match=what):
            memmap.hardware_from_map(path, "arm64")
    with pytest.raises(UsageError, match="a file or the folder"):
        memmap.hardware_from_map("", "arm64")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file"):
        memmap.hardware_from_map(tmp_path / "pipe", "arm64")
    with open(tmp_path / "huge", "wb") as handle:
        handle.truncate(100 << 20)
    with pytest.raises(UsageError, match="more than 16M"):
        memmap.hardware_from_map(tmp_path / "huge", "arm64")
    with pytest.raises(UsageError, match="arm64 and x86_64"):
        memmap.hardware_from_map(put(tmp_path, MEMORY), "riscv64")
