# SPDX-License-Identifier: GPL-2.0-only
"""
A machine's memory map, read from files, as the hardware a model boots from (`map=FILE`, `capture=DIR`).

Read are: a memblock listing of debugfs; a listing of /proc/iomem; one text with several of them under headings that name the
file (``== /sys/kernel/debug/memblock/reserved``, or short: ``memory``, ``reserved``, ``iomem``, and ``freed`` for ranges
that the kernel gave back after boot, written as memblock writes them); a capture.

With a memblock listing the map is exact: memory, flags and what was reserved when the buddy allocator started. Without one
(x86_64 drops memblock) memory is what iomem calls System RAM (the kernel uses the whole pages of it), and what was reserved
is put together from the kernel image in iomem, the ranges given back that the capture knows of, and the low memory that
every PC reserves.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from memhp import hardware as hw
from memhp.abi import buddyinfo, capture, iomem, kpageflags, meminfo, memory, zoneinfo
from memhp.abi import files as abi
from memhp.abi import memblock as mb
from memhp.abi.files import MEMBLOCK, Files
from memhp.abi.record import LOG
from memhp.errors import KernelError, UsageError
from memhp.hardware import PAGE_TAIL, Footprint, Hardware, MemoryRange, PageKind, RecordedDimm, RecordedPages, Region
from memhp.units import MIB, format_size

MEMORY_LISTING = f"{MEMBLOCK}/memory"
RESERVED_LISTING = f"{MEMBLOCK}/reserved"
_FREED = "/freed"
_RANGES = (MEMORY_LISTING, RESERVED_LISTING, _FREED)
_KNOWN = (*_RANGES, iomem.IOMEM, zoneinfo.ZONEINFO, "/proc/meminfo", buddyinfo.BUDDYINFO, buddyinfo.PAGETYPEINFO)
_SHORT = {"memory": MEMORY_LISTING, "reserved": RESERVED_LISTING, "iomem": iomem.IOMEM, "freed": _FREED}
_HEADING = re.compile(r"(?:==+|##*|--) *(/?[\w/.]+):?(?: .*)?|(/[\w/.]+|memory|reserved|iomem|freed):?")
_OTHER_HEADING = re.compile(r"(?:==|#)")
_IOMEM_LINE = re.compile(r" *[0-9a-f]{1,16}-[0-9a-f]{1,16} : ")
_ARCHES = ("arm64", "x86_64")
_CMA = re.compile(r"^cma: Reserved ([0-9]{1,6}) MiB at (0x[0-9a-f]{1,16})", re.MULTILINE)
_IS_RESERVED = bytes(value & ~PAGE_TAIL == PageKind.RESERVED for value in range(256))
_WIDE = 128 * MIB
_PC_LOW = 1 << 20
"""Below 1 MiB a PC's kernel keeps what the firmware may use."""


def hardware_from_map(path: str | Path, arch: str, *, page_size: int = 4096, cpus: int = 1) -> Hardware:
    """
    Return the machine that a memory-map file or a capture describes.

    Args:
        path: A file (at most 16 MiB) or the folder of a capture.
        arch: "arm64" or "x86_64".
        page_size: Bytes; a capture knows its own.
        cpus: Number of CPUs.

    Raises:
        UsageError: no such file, not a memory map, or of another architecture.
    """
    shown = abi.shorten(str(path), 200)
    if not isinstance(path, str | Path) or not str(path):
        raise UsageError("map: a file or the folder of a capture is needed")
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as err:
        raise UsageError(f"map={shown}: {getattr(err, 'strerror', None) or err}") from err
    if stat.S_ISDIR(mode):
        return hardware_from_capture(capture.load(path), arch, cpus=cpus)
    if not stat.S_ISREG(mode):
        raise UsageError(f"map={shown}: neither a file nor the folder of a capture")
    try:
        with open(path, "rb") as handle:
            raw = handle.read(abi.TEXT_LIMIT + 1)
    except OSError as err:
        raise UsageError(f"map={shown}: {err.strerror}") from err
    if len(raw) > abi.TEXT_LIMIT:
        raise UsageError(f"map={shown}: more than {format_size(abi.TEXT_LIMIT)}; a memory map is shorter")
    try:
        return hardware_from_text(abi.decode(raw), arch, page_size=page_size, cpus=cpus, origin=f"map={shown}")
    except UsageError as err:
        raise UsageError(f"map={shown}: {err}") from err


def hardware_from_text(text: str, arch: str, *, page_size: int = 4096, cpus: int = 1, origin: str = "") -> Hardware:
    """Return the machine that the text of a memory map describes; UsageError if it is none."""
    listings = split_listings(text)
    freed = [(r.base, r.end) for r in mb.parse_memblock(listings.pop(_FREED, ""), "freed")]
    return hardware_from_files(abi.stored(listings), arch, page_size=page_size, cpus=cpus, freed=freed, origin=origin)


def hardware_from_capture(machine: capture.Capture, arch: str, *, cpus: int = 1) -> Hardware:
    """
    Return the machine a capture was taken from, as its kernel found it at boot.

    DIMMs that the capture knows of are in `dimms`; other memory that was hot-added before counts as there at boot.

    Raises:
        UsageError: the capture is of another architecture, or holds no memory map.
    """
    manifest = machine.manifest
    if manifest.arch and manifest.arch != arch:
        raise UsageError(f"{machine.directory}: a capture of {abi.shorten(manifest.arch)}, not of {arch}")
    freed = [(start, end) for start, end in manifest.boot.get("freed", [])]
    boot = manifest.boot.get("footprint")
    footprint = Footprint(**boot) if boot else None
    origin = f"capture={machine.directory}"
    return hardware_from_files(
        machine, arch, page_size=manifest.page_size, cpus=cpus, freed=freed, footprint=footprint, origin=origin,
        dimms=tuple(_dimms(machine)),
    )  # fmt: skip


def _dimms(machine: capture.Capture) -> Iterator[RecordedDimm]:
    """Yield the DIMMs of a capture, with the zone that each of their blocks was in."""
    plugged = [device for device in machine.manifest.devices if device["kind"] == "dimm"]
    if not plugged:
        return
    snapshot = memory.read_memory(machine, ("state", "valid_zones"))
    for device in sorted(plugged, key=lambda device: int(device["start"])):
        start, size = device["start"], device["size"]
        zones = {
            int(block.block): (block.valid_zones or ("Normal",))[0] for block in snapshot.blocks
            if block.state == "online" and start <= snapshot.range_of(block.block)[0] < start + size}
        yield RecordedDimm(id=device["id"], start=start, size=size, node=device.get("node", 0), zones=zones)


def split_listings(text: str) -> dict[str, str]:
    """
    Return path -> text for the listings in one text.

    Headings name the file; under other headings nothing is read. Without headings the lines themselves tell what they are.

    Raises:
        UsageError: neither; or a listing comes twice.
    """
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    loose: list[str] = []
    headed = False
    for line in text.split("\n"):
        match = _HEADING.fullmatch(line.rstrip())
        name = (match[1] or match[2]) if match else ""
        path = _SHORT.get(name, name)
        if path in _KNOWN:
            if path in found:
                raise UsageError(f"{path} is listed twice; one machine has one")
            current = found[path] = []
            headed = True
        elif _OTHER_HEADING.match(line):
            current = None
        elif current is not None:
            current.append(line)
        elif not headed and line.strip():
            loose.append(line)
    if headed:
        return {path: _listing(path, lines) for path, lines in found.items()}
    if not loose:
        raise UsageError("holds no memory map; a listing of memblock or of /proc/iomem would do")
    if all(_IOMEM_LINE.match(line) for line in loose):
        return {iomem.IOMEM: "\n".join(loose)}
    if all(mb.LINE.fullmatch(line) for line in loose):
        return {MEMORY_LISTING: "\n".join(loose)}
    strange = (line for line in loose if not _IOMEM_LINE.match(line) and not mb.LINE.fullmatch(line))
    if (odd := next(strange, None)) is not None:
        raise UsageError(f"{abi.shorten(odd)!r} is a line neither of memblock nor of /proc/iomem")
    raise UsageError("holds lines of memblock and of /proc/iomem without headings ('memory', 'reserved', 'iomem') between them")


def _listing(path: str, lines: list[str]) -> str:
    """Return the lines up to the first blank one; a bracketed remark instead of a listing is none."""
    body: list[str] = []
    for line in lines:
        if not line.strip() and path in (*_RANGES, iomem.IOMEM):
            break
        body.append(line)
    if body and body[0].startswith("["):
        return ""
    return "\n".join(body)


def hardware_from_files(
    files: Files,
    arch: str,
    *,
    page_size: int = 4096,
    cpus: int = 1,
    freed: Iterable[tuple[int, int]] = (),
    footprint: Footprint | None = None,
    origin: str = "",
    dimms: tuple[RecordedDimm, ...] = (),
) -> Hardware:
    """
    Return the machine that the files of a running kernel tell of.

    Args:
        files: memblock, iomem, and where there pagetypeinfo, zoneinfo, meminfo, memory blocks.
        arch: "arm64" or "x86_64".
        page_size: Bytes.
        cpus: Number of CPUs.
        freed: [start, end) ranges known to have been given back to the buddy allocator: init memory, initrd.
        footprint: Pages in use, where known better than the files tell.
        origin: Where this comes from, in words.
        dimms: What was plugged after boot.
    """
    if arch not in _ARCHES:
        raise UsageError(f"no architecture {abi.shorten(arch)!r}: {' and '.join(_ARCHES)} are known")
    listed = mb.read_memblock(files, "memory")
    kept = mb.read_memblock(files, "reserved")
    text = abi.read_optional(files, iomem.IOMEM)
    tree = iomem.parse_iomem(text) if text else iomem.Iomem(())
    if tree.hidden:
        if not listed:
            raise UsageError(f"{iomem.IOMEM}: every address is shown as 0; read it as root")
        tree = iomem.Iomem(())
    ram = [region for region in tree.regions if region.name == iomem.SYSTEM_RAM]
    if listed:
        spans = [MemoryRange(r.base, r.end, r.nid or 0, _flags(r, ram)) for r in listed if r.size >= page_size]
    else:
        spans = [r for r in (MemoryRange(r.start, r.end + 1) for r in ram) if _whole(r, page_size).size > 0]
    spans = _before(spans, dimms)
    if not spans:
        raise UsageError("holds no memory: neither a memblock region nor a System RAM line")
    if spans[-1].end > 1 << 52:
        raise UsageError(f"memory up to {spans[-1].end:#x}: no machine of {arch} reaches beyond 2^52")
    if listed is None or all(r.nid is None for r in listed):
        spans = _by_block(files, spans)
    children = tuple(child for region in ram for child in region.children if child.name.startswith("Kernel "))
    given_back = _merge(freed) or _merge(_init_memory(arch, children, page_size))
    pages = _pages(files, [*spans, *(MemoryRange(d.start, d.start + d.size) for d in dimms)], page_size)
    if kept:
        reserved = _without(_merge((r.base, r.end) for r in kept), _cma(files))
        # What memblock does not list any more it got back, too: to boot it was free, then.
        given_back = tuple(
            (start, end) for start, end in given_back if any(low <= start and end <= high for low, high in reserved))
    elif pages:
        reserved = _merge([*_reserved_pages(pages, page_size), *given_back])
    else:
        reserved = _reserved_by_default(arch, spans, children, given_back, page_size)
    outer = tuple(region for region in tree.regions if region.name != iomem.SYSTEM_RAM)
    end = max(r.end for r in spans)
    return Hardware(
        arch=arch,
        memory=tuple(spans),
        reserved=reserved,
        freed=given_back,
        iomem=outer,
        ram_children=children,
        page_size=page_size,
        cpus=cpus,
        possible_nodes=max(r.nid for r in spans) + 1,
        footprint=footprint or _footprint(files, page_size) or hw.default_footprint(arch),
        window=hw.window_of(arch, end),
        origin=origin,
        memmap_reserved=bool(kept or pages),
        managed=_managed(files, spans, page_size),
        pages=pages,
        pageblocks=_pageblocks(files) if pages else {},
        dimms=dimms,
    )


def _before(spans: list[MemoryRange], dimms: Iterable[RecordedDimm]) -> list[MemoryRange]:
    """Cut DIMMs out of memory."""
    for dimm in dimms:
        cut = ((replace(r, end=min(r.end, dimm.start)), replace(r, start=max(r.start, dimm.start + dimm.size))) for r in spans)
        spans = [r for pair in cut for r in pair if r.start < r.end]
    return spans


def _flags(region: mb.MemblockRegion, ram: list[Region]) -> tuple[str, ...]:
    """Return memblock's flags; where a kernel does not print them, memory that is no System RAM is not mapped."""
    if region.flags is None and ram and not any(r.start < region.end and region.base <= r.end for r in ram):
        return ("NOMAP",)
    return tuple(name for name in region.flags or () if name in ("NOMAP", "HOTPLUG", "MIRROR"))


def _whole(r: MemoryRange, page_size: int) -> MemoryRange:
    """Keep the whole pages of a range."""
    return replace(r, start=-(-r.start // page_size) * page_size, end=r.end // page_size * page_size)


def _merge(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort ranges and join those that overlap; neighbours stay apart, as in memblock's listing."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _cma(files: Files) -> list[tuple[int, int]]:
    """Return the areas that the kernel's log says CMA took: a kernel that boots on this machine takes them anew."""
    log = abi.read_optional(files, LOG) or ""
    return [(int(at, 16), int(at, 16) + int(size) * MIB) for size, at in _CMA.findall(log)]


def _without(ranges: tuple[tuple[int, int], ...], holes: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Cut holes out of ranges."""
    for low, high in holes:
        parts = ([(start, min(end, low)), (max(start, high), end)] for start, end in ranges)
        ranges = tuple((start, end) for pair in parts for start, end in pair if start < end)
    return ranges


def _init_memory(arch: str, children: tuple[Region, ...], page_size: int) -> list[tuple[int, int]]:
    """
    Return the init memory, which the kernel gives back once it runs: a gap between the parts of its image in iomem.

    arm64: between code and data. x86_64: between data and bss.
    """
    parts = {child.name: child for child in reversed(children)}
    before, after = ("Kernel code", "Kernel data") if arch == "arm64" else ("Kernel data", "Kernel bss")
    if before not in parts or after not in parts:
        return []
    start = -(-(parts[before].end + 1) // page_size) * page_size
    end = parts[after].start // page_size * page_size
    return [(start, end)] if start < end else []


def _reserved_by_default(
    arch: str,
    spans: list[MemoryRange],
    children: tuple[Region, ...],
    given_back: tuple[tuple[int, int], ...],
    page_size: int,
) -> tuple[tuple[int, int], ...]:
    """Put together what the kernel had reserved where no listing says it: low memory, its image, and all it gave back."""
    ranges = list(given_back)
    if children:
        start = min(child.start for child in children) // page_size * page_size
        ranges.append((start, -(-(max(child.end for child in children) + 1) // page_size) * page_size))
    if arch == "x86_64":
        usual = hw.platform("x86_64", mem=1 << 30).reserved
        ranges += [r for r in usual if r[1] <= _PC_LOW or not children]
    return _merge(r for r in ranges if r[0] < spans[-1].end)


def _by_block(files: Files, spans: list[MemoryRange]) -> list[MemoryRange]:
    """Give each range the node its memory blocks are linked to; ranges are cut where the node changes."""
    try:
        snapshot = memory.read_memory(files, ())
    except KernelError:
        return spans
    nodes = {block.block: block.node for block in snapshot.blocks if block.node is not None}
    if not any(nodes.values()):
        return spans
    cut: list[MemoryRange] = []
    for r in spans:
        for block in snapshot.blocks:
            start, end = snapshot.range_of(block.block)
            start, end = max(start, r.start), min(end, r.end)
            if start >= end:
                continue
            nid = int(nodes.get(block.block) or 0)
            if cut and cut[-1].end == start and cut[-1].nid == nid and start > r.start:
                cut[-1] = replace(cut[-1], end=end)
            else:
                cut.append(replace(r, start=start, end=end, nid=nid))
    return cut or spans


def _pages(files: Files, spans: list[MemoryRange], page_size: int) -> tuple[RecordedPages, ...]:
    """
    Return what the pages of memory are used for, as far as the machine says; none if it does not.

    Small holes beside memory have struct pages, too, so whole multiples of 128 MiB are read.
    """
    wide = ((r.start // _WIDE * _WIDE, -(-r.end // _WIDE) * _WIDE) for r in spans)
    found = []
    for start, end in _merge(wide):
        try:
            kinds = kpageflags.read_kinds(files, start // page_size, (end - start) // page_size)
        except KernelError:
            return ()
        if kinds:
            found.append(RecordedPages(start // page_size, kinds))
    return tuple(found)


def _reserved_pages(pages: tuple[RecordedPages, ...], page_size: int) -> list[tuple[int, int]]:
    """Return the ranges of memory that the kernel kept for itself, by the flags of its pages."""
    found = []
    for recorded in pages:
        mask = recorded.kinds.translate(_IS_RESERVED)
        position = mask.find(1)
        while position >= 0:
            stop = mask.find(0, position)
            stop = len(mask) if stop < 0 else stop
            found.append(((recorded.start + position) * page_size, (recorded.start + stop) * page_size))
            position = mask.find(1, stop)
    return found


def _pageblocks(files: Files) -> dict[tuple[int, str, str], tuple[int, int]]:
    """Return pageblocks of each migratetype in each zone, and pages in use in them; none where the machine does not say."""
    text = abi.read_optional(files, buddyinfo.PAGETYPEINFO)
    if not text:
        return {}
    table = buddyinfo.parse_pagetypeinfo(text)
    return {
        key: (count, count * table.pages_per_block - buddyinfo.free_pages(table.free.get(key, ())))
        for key, count in table.blocks.items()
    }


def _managed(files: Files, spans: list[MemoryRange], page_size: int) -> int:
    """Return the pages the page allocator has, if all memory found is in a zone; else 0."""
    text = abi.read_optional(files, zoneinfo.ZONEINFO)
    zones = zoneinfo.parse_zoneinfo(text) if text else ()
    whole = sum(_whole(r, page_size).size for r in spans) // page_size
    return sum(zone.managed for zone in zones) if sum(zone.present for zone in zones) == whole else 0


def _footprint(files: Files, page_size: int) -> Footprint | None:
    """
    Return the pages in use, by mobility, as far as the files tell.

    Exactly by migratetype from pagetypeinfo; else all in use from zoneinfo, of which slab, stacks and page tables do not move.
    """
    text = abi.read_optional(files, zoneinfo.ZONEINFO)
    if not text:
        return None
    zones = zoneinfo.parse_zoneinfo(text)
    used = sum(zone.managed - zone.free for zone in zones)
    if used <= 0:
        return None
    types = abi.read_optional(files, buddyinfo.PAGETYPEINFO)
    if types:
        table = buddyinfo.parse_pagetypeinfo(types)
        unmovable, reclaimable = table.used("Unmovable"), table.used("Reclaimable")
        if unmovable >= 0 and reclaimable >= 0 and unmovable + reclaimable <= used:
            return Footprint(unmovable, reclaimable, used - unmovable - reclaimable)
    text = abi.read_optional(files, "/proc/meminfo")
    sizes = meminfo.parse_meminfo(text).sizes if text else {}
    unmovable = sum(sizes.get(name, 0) for name in ("SUnreclaim", "KernelStack", "PageTables")) // page_size
    reclaimable = sizes.get("SReclaimable", 0) // page_size
    if "SUnreclaim" not in sizes:
        unmovable = sum(sizes.get(name, 0) for name in ("Slab", "PageTables")) // page_size
    unmovable = min(unmovable, used)
    reclaimable = min(reclaimable, used - unmovable)
    return Footprint(unmovable, reclaimable, used - unmovable - reclaimable)
