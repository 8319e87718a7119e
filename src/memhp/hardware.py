# SPDX-License-Identifier: GPL-2.0-only
"""
What is plugged in: RAM, the firmware's memory map, nodes, devices. Plain data, no behaviour of a kernel.

A `Hardware` is what a kernel finds when it boots. It comes from three places: `platform()` (a size, and the map that QEMU and
its firmware give a machine of that size), a recorded memory map (`map=FILE`), or a capture of a real machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from memhp.errors import ConfigError, UsageError
from memhp.units import FACTORS, GIB, KIB, LIMIT, MIB, format_size

_SIZE = re.compile(r"(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)(?P<unit>[KMGTPkmgtp]?)(?:i?[bB])?")


def parse_size(text: str | int, what: str = "size") -> int:
    """
    Return bytes from ``"384M"``, ``"0x80000000"``, ``"4GiB"`` or an integer.

    Units are powers of 1024.

    Args:
        text: What was written.
        what: The name of the value, for the message.

    Raises:
        UsageError: not a number with an optional unit K, M, G, T or P, negative, or 2^64 and more.

    >>> parse_size("384M") == 384 * MIB
    True
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise UsageError(f"{what} {text!r} is not a number: write bytes, or a text such as 384M or 0x80000000")
    if isinstance(text, int):
        value = text
    else:
        match = _SIZE.fullmatch(text.strip())
        if match is None or not text.isascii() or len(text) > 64:
            raise UsageError(f"{what} {text[:40]!r} is not a size: write bytes, or a text such as 384M, 4G or 0x80000000")
        value = int(match["number"], 0 if match["number"][:2].lower() == "0x" else 10)
        value *= FACTORS[match["unit"].upper()]
    if value < 0 or value >= LIMIT:
        raise UsageError(f"{what} {text!r} is outside 0 … 2^64-1")
    return value


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """
    Physical addresses [start, end) that the firmware tells the kernel of.

    Attributes:
        start: First byte.
        end: One past the last byte.
        nid: NUMA node.
        flags: memblock flags by name: "NOMAP", "HOTPLUG", "MIRROR".
    """

    start: int
    end: int
    nid: int = 0
    flags: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Region:
    """A named address range [start, end] of /proc/iomem, `end` inclusive as there; children lie inside their parent."""

    start: int
    end: int
    name: str
    children: tuple[Region, ...] = ()
    busy: bool = True


@dataclass(frozen=True, slots=True)
class Footprint:
    """
    Pages that the running kernel and user space take from the buddy allocator, by mobility.

    The model has no processes of its own; these stand for them. Without a capture the figures are those of the recorded
    kernels. `blocks` is how many maximal free blocks each kind had broken up.
    """

    unmovable: int = 0
    reclaimable: int = 0
    movable: int = 0


class PageKind(IntEnum):
    """What a page of a recorded machine was used for, as far as /proc/kpageflags tells."""

    NOPAGE = 0
    FREE = 1
    RESERVED = 2
    OFFLINE = 3
    SLAB = 4
    PAGE_TABLE = 5
    ANON = 6
    FILE = 7
    HUGE = 8
    HUGETLB = 9
    KERNEL = 10
    HWPOISON = 11


PAGE_TAIL = 0x80
"""Added to the kind of a page that belongs to the page before it: a tail of a compound page."""


@dataclass(frozen=True, slots=True)
class RecordedPages:
    """
    The pages of a recorded machine from `start` on: one byte each, a `PageKind`, with PAGE_TAIL or without.

    Attributes:
        start: First pfn.
        kinds: What each page is.
    """

    start: int
    kinds: bytes = field(repr=False)

    @property
    def end(self) -> int:
        """One past the last pfn."""
        return self.start + len(self.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDimm:
    """
    A DIMM that a recorded machine had.

    Attributes:
        id: Its name.
        start: First byte.
        size: Bytes.
        node: NUMA node.
        zones: Memory block -> name of the zone it was online in.
    """

    id: str
    start: int
    size: int
    node: int
    zones: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """
    A machine as its kernel finds it at boot.

    Attributes:
        arch: "arm64" or "x86_64".
        memory: memblock.memory as the firmware describes it, sorted, not overlapping.
        reserved: [start, end) ranges memblock has reserved when the buddy allocator starts: kernel image, initrd, memmap, …
        initrd: [start, end) of the initramfs, part of `reserved`; (0, 0) where it is not known apart from the rest.
        freed: [start, end) parts of `reserved` that the kernel gives back once it runs: init text, initrd.
        iomem: The resource tree beside "System RAM".
        ram_children: What lies inside "System RAM" in /proc/iomem: kernel code and data.
        page_size: Bytes.
        cpus: Online CPUs.
        possible_nodes: Node ids that may ever exist, to the kernel.
        pxm_nodes: To the kernel, the node of each of the monitor's nodes; -1: it has none for it. Empty: they are the same.
        footprint: Pages in use once the machine has booted.
        window: First address of the hot-plug window; DIMMs are placed from here on.
        origin: Where all this comes from, in words.
        memmap_reserved: True if `reserved` already holds the memmap of boot memory (a recording does).
        va_bits: Bits of a kernel address that the processor has (arm64).
        early_pages: Pages that early boot takes beside `reserved` and the memmap: page tables, per-cpu data, hash tables.
        managed: Pages that the page allocator has once the machine has booted, where recorded; 0: not known.
        pages: What each page was used for when the machine was recorded, where known; they take the place of `footprint`.
        dimms: What was plugged after boot, in the order of addresses; `memory` does not have it.
        pageblocks: (node, zone, migratetype) -> pageblocks of that type and pages in use in them, where recorded.
    """

    arch: str
    memory: tuple[MemoryRange, ...]
    reserved: tuple[tuple[int, int], ...] = ()
    initrd: tuple[int, int] = (0, 0)
    freed: tuple[tuple[int, int], ...] = ()
    iomem: tuple[Region, ...] = ()
    ram_children: tuple[Region, ...] = ()
    page_size: int = 4096
    cpus: int = 1
    possible_nodes: int = 1
    pxm_nodes: tuple[int, ...] = ()
    footprint: Footprint = field(default_factory=Footprint)
    window: int = 0
    origin: str = ""
    memmap_reserved: bool = False
    managed: int = 0
    early_pages: int = 0
    pages: tuple[RecordedPages, ...] = ()
    dimms: tuple[RecordedDimm, ...] = ()
    pageblocks: Mapping[tuple[int, str, str], tuple[int, int]] = field(default_factory=dict)
    va_bits: int = 48

    @property
    def ram_end(self) -> int:
        """One past the last byte of memory."""
        return max((r.end for r in self.memory), default=0)

    @property
    def nodes(self) -> int:
        """How many nodes the monitor knows; each device says which it belongs to."""
        return len(self.pxm_nodes) or self.possible_nodes

    @property
    def total(self) -> int:
        """Bytes of memory."""
        return sum(r.size for r in self.memory)


_ARM64_HIGH = 256 * GIB
"""Where `virt` begins with its high regions unless the hot-plug window reaches further."""


HOT_PLUG_ROOM = 64 * GIB
"""Bytes of devices that fit into a machine of the lab, beside those that are there at boot."""
SLOTS = 32
"""DIMMs that fit."""


def room_of(devices: Iterable[int]) -> int:
    """Return the bytes of devices for which a machine of the lab has room, with virtio-mem devices of these sizes at boot."""
    return HOT_PLUG_ROOM + sum(-(-size // GIB) * GIB + GIB for size in devices)


def window_of(arch: str, ram_end: int) -> int:
    """
    Return the first address of the hot-plug window, as QEMU places it.

    `virt`: the end of RAM rounded up to 1 GiB. `q35`: not below 4 GiB.
    """
    start = -(-ram_end // GIB) * GIB
    return max(4 * GIB, start) if arch == "x86_64" else start


def above(arch: str, iomem: tuple[Region, ...], end: int) -> tuple[Region, ...]:
    """
    Return the platform's regions where QEMU puts them behind devices that end at `end`.

    `virt` has its high regions from 256 GiB on, or behind the hot-plug window, each aligned to its size.
    """
    high = [r for r in iomem if r.start >= _ARM64_HIGH]
    if arch != "arm64" or end <= _ARM64_HIGH or not high:
        return iomem
    base = -(-end // GIB) * GIB
    moved = []
    for r in high:
        size = r.end + 1 - r.start
        start = -(-base // size) * size
        moved.append(_shifted(r, start - r.start))
        base = start + size
    return (*(r for r in iomem if r.start < _ARM64_HIGH), *moved)


def _shifted(region: Region, distance: int) -> Region:
    children = tuple(_shifted(child, distance) for child in region.children)
    return replace(region, start=region.start + distance, end=region.end + distance, children=children)


# What a recorded v4.9 kernel had taken once its shell ran (1 GiB of RAM, initramfs of busybox).
_FOOTPRINT = {
    "arm64": Footprint(unmovable=650, reclaimable=266, movable=1108),
    "x86_64": Footprint(unmovable=1113, reclaimable=374, movable=1086),
}

# What early boot took on them beside what their maps show; arm64 takes the big hash tables here, x86_64 with NUMA later.
_EARLY_PAGES = {"arm64": 49, "x86_64": 57}
_EARLY_PAGES_PER_GIB = {"arm64": 384, "x86_64": 1}

# The platform devices of /proc/iomem that can stand in the way of memory; from the recorded machines.
_IOMEM = {
    "arm64": (
        Region(0x9000000, 0x9000FFF, "/pl011@9000000", (Region(0x9000000, 0x9000FFF, "/pl011@9000000"),)),
        Region(0x9010000, 0x9010FFF, "/pl031@9010000"),
        Region(0x9030000, 0x9030FFF, "/pl061@9030000"),
    ),
    "x86_64": (
        Region(0x0, 0xFFF, "reserved"),
        Region(0x9FC00, 0x9FFFF, "reserved"),
        Region(0xA0000, 0xBFFFF, "PCI Bus 0000:00"),
        Region(0xF0000, 0xFFFFF, "reserved", (Region(0xF0000, 0xFFFFF, "System ROM"),)),
        Region(0xC0000000, 0xFEBFFFFF, "PCI Bus 0000:00", busy=False),
        Region(0xFEC00000, 0xFEC003FF, "IOAPIC 0"),
        Region(0xFED00000, 0xFED003FF, "HPET 0"),
        Region(0xFEE00000, 0xFEE00FFF, "Local APIC"),
        Region(0xFFFC0000, 0xFFFFFFFF, "reserved"),
    ),
}
_ARM64_BASE = 0x40000000
_X86_HOLE = (0x9FC00, 0x100000)
_X86_LOW_ALL = 0xB0000000
_X86_LOW = 2 * GIB


def _x86_ram(total: int) -> list[tuple[int, int]]:
    """RAM of `q35`: below 0xb0000000 all of it is low; from there on 2 GiB are low and the rest starts at 4 GiB."""
    low = total if total < _X86_LOW_ALL else _X86_LOW
    spans = [(0x1000, _X86_HOLE[0]), (_X86_HOLE[1], low)]
    if total > low:
        spans.append((4 * GIB, 4 * GIB + total - low))
    return spans


def platform(
    arch: str, *, mem: int, nodes: tuple[int, ...] = (), page_size: int = 4096, cpus: int = 1, release: str = "v4.9",
) -> Hardware:
    """
    Return the machine that QEMU gives a kernel for `-m mem`.

    A v4.9 kernel finds RAM only, with the low-memory layout of a PC on x86_64, as it was recorded. Later ones are booted behind
    EDK2 and SeaBIOS, which keep some of the RAM for themselves.

    Args:
        arch: "arm64" (`virt`, RAM from 1 GiB) or "x86_64" (`q35`).
        mem: Bytes of RAM, a multiple of 2 MiB, at least 64 MiB, behind a firmware 256 MiB.
        nodes: Bytes by node; their sum must be `mem`. Empty: everything on node 0. A 0 is a node without memory.
        page_size: Bytes.
        cpus: Number of CPUs.
        release: Which kernel: "v4.9", "v6.12".

    Raises:
        ConfigError: an unknown architecture, or nodes that do not add up.
        UsageError: `mem` too small or not a multiple of 2 MiB.
    """
    if arch not in _IOMEM:
        raise ConfigError(f"no architecture {arch!r}: arm64 and x86_64 are known")
    if mem % (2 * MIB) or mem < 64 * MIB:
        raise UsageError(f"mem={format_size(mem)}: RAM comes in multiples of 2M, 64M at least")
    if nodes and sum(nodes) != mem:
        raise ConfigError(f"nodes={','.join(map(format_size, nodes))} do not add up to mem={format_size(mem)}")
    if release != "v4.9":
        return _platform_today(arch, mem, nodes, page_size, cpus, release)
    spans = [(_ARM64_BASE, _ARM64_BASE + mem)] if arch == "arm64" else _x86_ram(mem)
    memory = _by_node(spans, nodes or (mem,))
    if arch == "arm64":
        image = _ARM64_BASE + 512 * KIB
        initrd, tree = _ARM64_BASE + 128 * MIB, _ARM64_BASE + 130 * MIB
        reserved = [(image, image + 0x3A0000), (initrd, initrd + 0x1CC000), (tree, tree + MIB)]
        freed = [(image + 0x2D0000, image + 0x310000), (reserved[1][0], reserved[1][1] - 0x1000)]
        children: tuple[Region, ...] = (
            Region(image, image + 0x2CFFFF, "Kernel code"),
            Region(image + 0x310000, image + 0x3A1FFF, "Kernel data"),
        )
    else:
        low_end = max(end for start, end in spans if start < 4 * GIB)
        reserved = [(0, 0x10000), (0x99000, 0x100000), (0x1000000, 0x1779000), (low_end - 0x21B000, low_end)]
        freed = [(0x1246000, 0x1400000), (0x14B9000, 0x1600000), (0x165E000, 0x1712000), reserved[3]]
        children = (
            Region(0x1000000, 0x1243F42, "Kernel code"),
            Region(0x1243F43, 0x165C57F, "Kernel data"),
            Region(0x1712000, 0x1778FFF, "Kernel bss"),
        )
    end = memory[-1].end
    return Hardware(
        arch=arch,
        memory=tuple(memory),
        reserved=tuple(r for r in reserved if r[1] <= end),
        freed=tuple(r for r in freed if r[1] <= end),
        iomem=_IOMEM[arch],
        ram_children=children,
        page_size=page_size,
        cpus=cpus,
        possible_nodes=max(1, len(nodes)),
        footprint=_FOOTPRINT[arch],
        early_pages=_EARLY_PAGES[arch] + _EARLY_PAGES_PER_GIB[arch] * mem // GIB,
        window=window_of(arch, end),
        origin=f"mem={format_size(mem)}",
    )


# What kernels later than v4.9 find: QEMU 7.2's `virt` behind EDK2, its `q35` behind SeaBIOS.
_IOMEM_TODAY = {
    "arm64": (
        Region(0x8000000, 0x800FFFF, "GICD"),
        Region(0x80A0000, 0x8FFFFFF, "GICR"),
        Region(0x9000000, 0x9000FFF, "ARMH0011:00", (Region(0x9000000, 0x9000FFF, "ARMH0011:00 ARMH0011:00"),)),
        Region(0x9020000, 0x9020017, "QEMU0002:00"),
        *(Region(0xA000000 + 0x200 * i, 0xA0001FF + 0x200 * i, f"LNRO0005:{i:02x}") for i in range(32)),
        Region(0x10000000, 0x3EFEFFFF, "PCI Bus 0000:00", (Region(0x10000000, 0x10000FFF, "0000:00:01.0"),), busy=False),
        Region(0x4010000000, 0x401FFFFFFF, "PCI ECAM"),
        Region(
            0x8000000000, 0xFFFFFFFFFF, "PCI Bus 0000:00",
            (Region(0x8000000000, 0x8000003FFF, "0000:00:01.0", (Region(0x8000000000, 0x8000003FFF, "virtio-pci-modern"),)),),
            busy=False),
    ),
    "x86_64": (
        Region(0x0, 0xFFF, "Reserved"),
        Region(0x9FC00, 0x9FFFF, "Reserved"),
        Region(0xA0000, 0xBFFFF, "PCI Bus 0000:00", busy=False),
        Region(0xC0000, 0xC05FF, "Video ROM"),
        Region(0xF0000, 0xFFFFF, "Reserved", (Region(0xF0000, 0xFFFFF, "System ROM"),)),
        Region(0xB0000000, 0xBFFFFFFF, "PCI ECAM 0000 [bus 00-ff]", (Region(0xB0000000, 0xBFFFFFFF, "Reserved"),)),
        Region(0xC0000000, 0xFEBFFFFF, "PCI Bus 0000:00", busy=False),
        Region(0xFEC00000, 0xFEC003FF, "IOAPIC 0"),
        Region(0xFED00000, 0xFED003FF, "HPET 0", (Region(0xFED00000, 0xFED003FF, "PNP0103:00"),)),
        Region(0xFED1C000, 0xFED1FFFF, "Reserved"),
        Region(0xFFFC0000, 0xFFFFFFFF, "Reserved"),
        Region(0xFD00000000, 0xFFFFFFFFFF, "Reserved"),
    ),
}
_ARM64_FLASH = (0x4000000, 0x8000000)
"""EDK2's NOR flash is a run-time service of UEFI: memory that is not mapped."""
_ARM64_NOMAP = ((0x3BC0000, 0x38D0000), (0x400000, 0x20000))
"""Run-time services of EDK2 in RAM: first and last+1 byte, counted down from the end of the first node's RAM."""
_ARM64_KEPT = ((0x3FC0000, 0x3FBF000), (0x3BD1000, 0x3BC0000), (0x3682000, 0x3681000), (0x20000, 0))
"""Further tables of EDK2's that Linux keeps, counted likewise."""
_ARM64_KEPT_16K = ((0x6A70000, 0x6A6C000), (0x6690000, 0x6680000), (0x6674000, 0x6670000), (0x153C000, 0x1538000), (0x20000, 0))
"""The same on the CPU that 16K pages need, with the larger kernel."""
_X86_ACPI = 0x20000
"""SeaBIOS keeps the last 128 KiB of low RAM for its ACPI tables."""
_X86_IMAGE = 0x1000000
"""Where a kernel lies that is not moved about at random (nokaslr). One that is lies somewhere else at each boot."""


@dataclass(frozen=True, slots=True)
class _Release:
    """
    A Debian kernel's image, with the initramfs of `memhp vm`, and its appetite.

    Attributes:
        image: arm64: where the EFI stub puts it, counted down from the end of the first node's RAM.
        parts: Name in /proc/iomem, first and last+1 byte of the image's parts, counted from its start.
        freed: Parts that are given back once the kernel runs, counted likewise.
        end: Bytes of the image.
        initrd: Bytes of the initramfs.
        initrd_end: Where it ends, counted down as `image`, on x86_64 from the end of usable low RAM.
        early_pages: As `Hardware.early_pages`, without hash tables.
        early_pages_per_gib: As many more for each GiB of RAM: tables of the linear map.
        footprint: As `Hardware.footprint`.
    """

    parts: tuple[tuple[str, int, int], ...]
    freed: tuple[tuple[int, int], ...]
    end: int
    initrd: int
    early_pages: int
    early_pages_per_gib: int
    footprint: Footprint
    image: int = _X86_IMAGE
    initrd_end: int = 0


def _arm64_image(image: int, init: int, data: int, end: int, initrd_end: int, **more: Any) -> _Release:
    """An image of code, init memory and data."""
    parts = (("Kernel code", 0, init), ("Kernel data", data, end))
    return _Release(image=image, parts=parts, freed=((init, data),), end=end, initrd_end=initrd_end, **more)


_RELEASES = {
    ("v6.12", "arm64", 4096): _arm64_image(
        0xA200000, 0x1880000, 0x1E90000, 0x2240000, 0x3BEC000, initrd=0x1D4000,
        early_pages=52, early_pages_per_gib=514, footprint=Footprint(4150, 175, 520)),
    ("v6.12", "arm64", 16384): _arm64_image(
        0xEA00000, 0x1D30000, 0x26F0000, 0x2BE0000, 0x669C000, initrd=0x1D4000,
        early_pages=61, early_pages_per_gib=32, footprint=Footprint(1460, 46, 145)),
    ("v6.1", "arm64", 4096): _arm64_image(
        0x7080000, 0x1380000, 0x1800000, 0x1AA0000, 0x3BE0000, initrd=0x210000,
        early_pages=44, early_pages_per_gib=514, footprint=Footprint(3300, 2115, 580)),
    ("v5.10", "arm64", 4096): _arm64_image(
        0x68A0000, 0x1080000, 0x1450000, 0x16B0000, 0x3BE0000, initrd=0x1F0000,
        early_pages=38, early_pages_per_gib=514, footprint=Footprint(2750, 1640, 540)),
    ("v6.12", "x86_64", 4096): _Release(
        parts=(
            ("Kernel code", 0, 0x1000000), ("Kernel rodata", 0x1000000, 0x1AA8000), ("Kernel data", 0x1C00000, 0x1E72C80),
            ("Kernel bss", 0x26D6000, 0x2C00000)),
        freed=((0x1AA8000, 0x1C00000), (0x22E8000, 0x26D6000), (0x2A05000, 0x2C00000)),
        end=0x2C00000, initrd=0x1FD000, early_pages=447, early_pages_per_gib=0, footprint=Footprint(4450, 165, 560)),
    ("v6.1", "x86_64", 4096): _Release(
        parts=(
            ("Kernel code", 0, 0xE01EF2), ("Kernel rodata", 0x1000000, 0x1827000), ("Kernel data", 0x1A00000, 0x1C45E00),
            ("Kernel bss", 0x22B1000, 0x2800000)),
        freed=((0xE02000, 0x1000000), (0x1827000, 0x1A00000), (0x2024000, 0x22B1000), (0x2603000, 0x2800000)),
        end=0x2800000, initrd=0x244000, early_pages=437, early_pages_per_gib=0, footprint=Footprint(4180, 2280, 640)),
    ("v5.10", "x86_64", 4096): _Release(
        parts=(
            ("Kernel code", 0, 0xC02142), ("Kernel rodata", 0xE00000, 0x14D8000), ("Kernel data", 0x1600000, 0x187E700),
            ("Kernel bss", 0x1E62000, 0x2200000)),
        freed=((0xC03000, 0xE00000), (0x14D8000, 0x1600000), (0x1BF7000, 0x1E62000), (0x2003000, 0x2200000)),
        end=0x2200000, initrd=0x22C000, early_pages=88, early_pages_per_gib=0, footprint=Footprint(3100, 1775, 615)),
}
"""By release, architecture and page size."""


def _platform_today(arch: str, mem: int, nodes: tuple[int, ...], page_size: int, cpus: int, release: str) -> Hardware:
    """The machine that a kernel later than v4.9 finds."""
    if mem < 256 * MIB:
        raise UsageError(f"mem={format_size(mem)}: this kernel and its firmware want 256M at least")
    about = _RELEASES.get((release, arch, page_size)) or _RELEASES[release, arch, 4096]
    if arch == "arm64":
        memory, image, initrd_end = _arm64_today(mem, nodes, about)
        end = image + about.image
        kept = _ARM64_KEPT_16K if page_size == 16 * KIB else _ARM64_KEPT
        reserved = [(end - low, end - high) for low, high in kept]
        iomem = _IOMEM_TODAY[arch][2 if release == "v5.10" else 0 :]
        # No domain has a node: see _arm64_today().
        pxm_nodes = (-1,) * max(1, len(nodes))
    else:
        memory, low_end = _x86_today(mem, nodes)
        image, initrd_end = about.image, low_end
        reserved = [(0, MIB)] if release != "v5.10" else [(0, 0x10000), (0x99000, MIB)]
        ram_end = low_end + _X86_ACPI
        iomem = (
            *_IOMEM_TODAY[arch], Region(low_end, ram_end - 1, "Reserved"),
            *((Region(ram_end, 0xAFFFFFFF, "PCI Bus 0000:00", busy=False),) if ram_end < 0xB0000000 else ()))
        pxm_nodes = _pxm_nodes(nodes)
    initrd = (initrd_end - about.initrd, initrd_end)
    reserved += [(image, image + about.end), initrd]
    return Hardware(
        arch=arch,
        memory=tuple(memory),
        reserved=tuple(sorted(reserved)),
        initrd=initrd,
        freed=(*((image + start, image + stop) for start, stop in about.freed), initrd),
        iomem=tuple(sorted(iomem, key=lambda region: region.start)),
        ram_children=tuple(Region(image + start, image + stop - 1, name) for name, start, stop in about.parts),
        page_size=page_size,
        cpus=cpus,
        possible_nodes=max(0, *pxm_nodes) + 1,
        pxm_nodes=pxm_nodes,
        footprint=about.footprint,
        early_pages=about.early_pages + about.early_pages_per_gib * mem // GIB + _hash_bytes(arch, mem, release) // page_size,
        window=window_of(arch, max(r.end for r in memory)),
        origin=f"mem={format_size(mem)}",
    )


def _hash_bytes(arch: str, mem: int, release: str) -> int:
    """Return the hash tables of dentries and inodes: 1.5 MiB for each GiB, of a power of two; once the flash counted, too."""
    flash = _ARM64_FLASH[1] - _ARM64_FLASH[0] if arch == "arm64" else 0
    counted = mem if release == "v6.12" else (mem + flash) * 63 // 64
    return (1 << (counted - 1).bit_length()) * 3 // 2048


def _arm64_today(mem: int, nodes: tuple[int, ...], about: _Release) -> tuple[list[MemoryRange], int, int]:
    """
    RAM of `virt` behind EDK2, and where image and initrd go: memory, image, end of the initrd.

    EDK2 lives in the first node's RAM. All is one node to Linux: the flash lies in none, so that it takes what firmware says
    of nodes for wrong ("NUMA: no nodes coverage for 64MB", "Faking a node").
    """
    first = next((size for size in nodes if size), mem)
    if first < 256 * MIB:
        raise UsageError(f"nodes: the firmware wants {format_size(first)}, the first node's RAM, to be 256M at least")
    end = _ARM64_BASE + first
    memory = [MemoryRange(*_ARM64_FLASH, 0, ("NOMAP",))]
    position = _ARM64_BASE
    for low, high in _ARM64_NOMAP:
        memory += [MemoryRange(position, end - low), MemoryRange(end - low, end - high, 0, ("NOMAP",))]
        position = end - high
    memory.append(MemoryRange(position, _ARM64_BASE + mem))
    return memory, end - about.image, end - about.initrd_end


def _pxm_nodes(nodes: tuple[int, ...]) -> tuple[int, ...]:
    """
    Number the nodes as Linux does: in the order in which QEMU's SRAT names them, -1 for those that it does not name.

    It names the CPUs' node, nodes with memory, and with the hot-plug window the last one.
    """
    named = [0, *(nid for nid, size in enumerate(nodes) if size), max(0, len(nodes) - 1)]
    order = list(dict.fromkeys(named))
    return tuple(order.index(nid) if nid in order else -1 for nid in range(max(1, len(nodes))))


def _x86_today(mem: int, nodes: tuple[int, ...]) -> tuple[list[MemoryRange], int]:
    """RAM of `q35` behind SeaBIOS, and where usable low RAM ends."""
    spans = _x86_ram(mem)
    low_end = spans[1][1] - _X86_ACPI
    ranges = _by_node(spans, nodes or (mem,))
    nids = _pxm_nodes(nodes)
    ranges = [replace(r, nid=nids[r.nid]) for r in ranges]
    memory = [replace(r, end=min(r.end, low_end)) if r.start < 4 * GIB else r for r in ranges]
    return [r for r in memory if r.size > 0], low_end


def default_footprint(arch: str) -> Footprint:
    """Return the pages a freshly booted recorded kernel had in use."""
    return _FOOTPRINT[arch]


def _by_node(spans: list[tuple[int, int]], nodes: tuple[int, ...]) -> list[MemoryRange]:
    """Cut `spans` into nodes of the given sizes; the gap at 640 KiB counts as node 0's RAM, as in QEMU."""
    ranges: list[MemoryRange] = []
    left = list(nodes)
    nid = 0
    for start, end in spans:
        position = start
        while position < end:
            while nid < len(left) - 1 and left[nid] <= 0:
                nid += 1
            hole = 0
            if start in (0x1000, _X86_HOLE[1]):
                hole = 0x1000 if start == 0x1000 else _X86_HOLE[1] - _X86_HOLE[0]
            take = end - position
            if nid < len(left) - 1:
                take = min(take, left[nid] - (hole if position == start else 0))
            ranges.append(MemoryRange(position, position + take, nid))
            left[nid] -= take + (hole if position == start else 0)
            position += take
    return ranges


def limit(hardware: Hardware, size: int) -> Hardware:
    """
    Return the machine as a kernel with `mem=size` on its command line sees it.

    arm64 keeps the first `size` bytes of memory; x86_64 everything below the address `size`.
    """
    kept: list[MemoryRange] = []
    left = size
    for r in hardware.memory:
        if hardware.arch == "x86_64":
            end = min(r.end, size)
        elif "NOMAP" in r.flags:
            end = r.end
        else:
            end = min(r.end, r.start + left)
            left -= max(0, end - r.start)
        if end > r.start:
            kept.append(replace(r, end=end))
    if not kept:
        raise ConfigError(f"mem={format_size(size)} leaves the machine no memory")
    top = kept[-1].end
    return replace(
        hardware,
        memory=tuple(kept),
        reserved=tuple((a, min(b, top)) for a, b in hardware.reserved if a < top),
        freed=tuple((a, min(b, top)) for a, b in hardware.freed if a < top),
    )


VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_UNPLUG_ALL = range(3)
"""What a guest asks of a virtio-mem device."""
VIRTIO_MEM_RESP_ACK, VIRTIO_MEM_RESP_NACK, VIRTIO_MEM_RESP_BUSY, VIRTIO_MEM_RESP_ERROR = range(4)
"""What the device answers."""
_USABLE_EXTENT = {"arm64": GIB, "x86_64": 256 * MIB}
_CHUNK = 64


class VirtioMemDevice:
    """
    A virtio-mem device as QEMU makes it: its configuration space, and its answers.

    Attributes:
        id: Its name for people.
        name: Its name for the kernel: "virtio1".
        arch: The machine's architecture.
        addr: First byte of its region.
        region_size: Bytes of its region.
        node: NUMA node.
        block_size: Bytes it gives and takes at a time.
        usable_region_size: Bytes of the region that may be plugged now; it grows with `requested_size`.
        plugged_size: Bytes that are plugged.
        requested_size: Bytes the host asks for.
    """

    __slots__ = (
        "_plugged", "addr", "arch", "block_size", "id", "name", "node", "plugged_size", "region_size", "requested_size",
        "usable_region_size",
    )

    def __init__(
        self, *, id: str, name: str, arch: str, addr: int, region_size: int, node: int = 0, block_size: int = 2 * MIB,
    ) -> None:
        self.id = id
        self.name = name
        self.arch = arch
        self.addr = addr
        self.region_size = region_size
        self.node = node
        self.block_size = block_size
        self.usable_region_size = 0
        self.plugged_size = 0
        self.requested_size = 0
        self._plugged: list[int] = []

    def copy(self) -> VirtioMemDevice:
        new = VirtioMemDevice.__new__(VirtioMemDevice)
        for name in VirtioMemDevice.__slots__:
            setattr(new, name, getattr(self, name))
        new._plugged = self._plugged[:]
        return new

    def resize(self, size: int) -> str:
        """Ask the guest for `size` bytes; returns why that cannot be asked, or ""."""
        if size % self.block_size:
            return f"requested-size {format_size(size)} is no multiple of {format_size(self.block_size)}"
        if size > self.region_size:
            return f"requested-size {format_size(size)} is more than the {format_size(self.region_size)} of the device"
        if size != self.requested_size:
            self._resize_usable(size, can_shrink=False)
            self.requested_size = size
        return ""

    def _resize_usable(self, size: int, *, can_shrink: bool) -> None:
        usable = 0
        if size:
            usable = min(self.region_size, -(-(size + _USABLE_EXTENT[self.arch]) // self.block_size) * self.block_size)
        if usable >= self.usable_region_size or can_shrink:
            self.usable_region_size = usable

    def request(self, type: int, addr: int, nb_blocks: int) -> int:
        """
        Answer a guest.

        Args:
            type: VIRTIO_MEM_REQ_*.
            addr: First byte, for all requests but VIRTIO_MEM_REQ_UNPLUG_ALL.
            nb_blocks: Device blocks.

        Returns:
            VIRTIO_MEM_RESP_*.
        """
        if type == VIRTIO_MEM_REQ_UNPLUG_ALL:
            self._plugged = []
            self.plugged_size = 0
            self._resize_usable(self.requested_size, can_shrink=True)
            return VIRTIO_MEM_RESP_ACK
        size = nb_blocks * self.block_size
        end = addr + size
        if addr % self.block_size or not size or addr < self.addr or end > self.addr + self.usable_region_size:
            return VIRTIO_MEM_RESP_ERROR
        if type == VIRTIO_MEM_REQ_PLUG and self.plugged_size + size > self.requested_size:
            return VIRTIO_MEM_RESP_NACK
        wanted = 0 if type == VIRTIO_MEM_REQ_PLUG else 1
        pieces = list(self._pieces((addr - self.addr) // self.block_size, nb_blocks))
        if any(self._plugged[chunk] & mask != mask * wanted for chunk, mask in pieces):
            return VIRTIO_MEM_RESP_ERROR
        for chunk, mask in pieces:
            self._plugged[chunk] ^= mask
        self.plugged_size += -size if wanted else size
        return VIRTIO_MEM_RESP_ACK

    def _pieces(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """The words that keep blocks [first, first + count), each with the bits that are theirs."""
        while count:
            chunk, bit = divmod(first, _CHUNK)
            here = min(count, _CHUNK - bit)
            if chunk >= len(self._plugged):
                self._plugged += [0] * (chunk + 1 - len(self._plugged))
            yield chunk, ((1 << here) - 1) << bit
            first += here
            count -= here
