# SPDX-License-Identifier: GPL-2.0-only
"""
The files Linux shows, as the model writes them: byte for byte those of the recorded kernels.

The model is the recording's twin and has done what was done. Files whose content is determined are equal as text. In zoneinfo,
meminfo, buddyinfo and pagetypeinfo some numbers are the kernel's own allocations; there every line and every width is equal, and
so are the numbers that memory hotplug decides. And every file, read by the same readers that read real machines, says what the
model's state is.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from memhp.abi import buddyinfo, iomem, kpageflags, memblock, meminfo, memory, node, recorded, zoneinfo
from memhp.abi.capture import Capture
from memhp.abi.files import MEMBLOCK, MEMORY, NODE
from memhp.errors import KernelError
from memhp.linux.include import mm, mmzone
from memhp.linux.include.ioport import Resource
from memhp.linux.include.memory_model import page_columns
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.mmzone import MIGRATE_NAMES, Zone
from memhp.linux.include.page_flags import PG_RESERVED
from memhp.linux.mm import page_alloc
from tests.stories.twin import BLOCK_FILES, Twin

MOMENTS = [(name, capture) for name in recorded.names() for capture in recorded.recording(name).captures]
MODELLED = ("v4.9-arm64-rfc/full", "v4.9-x86_64/1-probe")
ALLOCATED = ("/proc/zoneinfo", "/proc/meminfo", "/proc/buddyinfo", "/proc/pagetypeinfo")
"""Files in which some numbers tell what slab, stacks and processes hold."""
SETTLED = {
    "MemTotal", "SwapCached", "Unevictable", "Mlocked", "SwapTotal", "SwapFree", "Dirty", "Writeback", "NFS_Unstable", "Bounce",
    "WritebackTmp", "CommitLimit", "VmallocTotal", "VmallocUsed", "VmallocChunk", "DirectMap4k", "DirectMap2M", "Buffers",
    "Active(file)", "Inactive(file)",
}  # fmt: skip
"""Lines of meminfo that do not depend on who runs."""


@cache
def twin_at(name: str, capture: str) -> Twin:
    """The twin, taken to the moment of a capture. It is only read."""
    twin = Twin(name)
    for step in twin.recording.steps:
        if step.path:
            twin.do(step)
        if step.capture == capture:
            return twin
    raise AssertionError(capture)


def real(name: str, capture: str) -> Capture:
    return recorded.recording(name).capture(capture)


def test_there_are_captures_before_and_after_probe_and_online() -> None:
    assert {("v4.9-arm64-rfc/full", "00-boot"), ("v4.9-arm64-rfc/full", "01-probe"), ("v4.9-arm64-rfc/full", "02-online"),
            ("v4.9-x86_64/1-probe", "02-online"), ("v4.9-x86_64/1b-online_movable", "02-online")} <= set(MOMENTS)  # fmt: skip


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_determined_files_are_equal_as_text(name: str, capture: str) -> None:
    """Every attribute of every block, memblock's listings, /proc/iomem, the node's files."""
    twin, files = twin_at(name, capture), real(name, capture)
    paths = [path for path, entry in files.manifest.files.items() if not entry.write_only and path not in ALLOCATED]
    assert "/proc/iomem" in paths and len(paths) > 8
    assert {path: files.read(path).decode() for path in paths} == {path: twin.text(path) for path in paths}


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_the_same_names_are_there(name: str, capture: str) -> None:
    """
    Directories hold what the recorded ones held, and no other names; what was not read was there all the same.

    memblock is not to be seen on x86_64, nodes are not without NUMA.
    """
    twin, files = twin_at(name, capture), real(name, capture)
    unread = {path for path, why in files.manifest.lacks.items() if "no such file" not in why}
    assert set(files.listdir(MEMORY)) | {"uevent"} == set(twin.listdir(MEMORY))
    assert f"{MEMORY}/uevent" in unread
    for block in (entry for entry in twin.listdir(MEMORY) if re.fullmatch(r"memory\d+", entry)):
        held = set(files.listdir(f"{MEMORY}/{block}")) | {"subsystem", "uevent"}
        assert held == set(twin.listdir(f"{MEMORY}/{block}"))
        assert set(BLOCK_FILES) <= held
    for path in unread - {"/proc/kpageflags", "/proc/kpagecount"}:
        folder, _, last = path.rpartition("/")
        assert last in twin.listdir(folder), path
    for path in set(files.manifest.lacks) - unread:
        with pytest.raises(KernelError, match="ENOENT"):
            twin.read(path)
    for path, target in files.manifest.links.items():
        assert twin.listdir(path) == twin.listdir(target), path
    if twin.recording.arch == "arm64":
        with pytest.raises(KernelError, match="ENOENT"):
            twin.listdir(NODE)


def blanked(path: str, text: str) -> str:
    """
    A text without its numbers, but with their width where the kernel gives them one.

    zoneinfo's numbers have no width; those of the others are set to the right of a field.
    """
    if path == "/proc/zoneinfo":
        return re.sub(r"\b\d+\b", "N", text)
    pattern = r" +\d+(?= kB$)" if path == "/proc/meminfo" else r"(?<=[\w ]) +\d+(?= )"
    return re.sub(pattern, lambda match: "#" * len(match[0]), text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", ALLOCATED)
@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_the_others_are_equal_in_form(name: str, capture: str, path: str) -> None:
    """The same lines in the same order, with the same widths."""
    ours, theirs = twin_at(name, capture).text(path), real(name, capture).read(path).decode()
    assert blanked(path, theirs) == blanked(path, ours)
    assert blanked(path, theirs) != theirs


def test_blanking_keeps_what_is_form() -> None:
    """A number that is wider than its field, or one blank too many, would be seen."""
    line = "MemTotal:        1025968 kB\n"
    assert blanked("/proc/meminfo", line) == blanked("/proc/meminfo", "MemTotal:         987654 kB\n")
    assert blanked("/proc/meminfo", line) != blanked("/proc/meminfo", "MemTotal:       1025968 kB\n")
    row = "Node 0, zone      DMA      2      3    246 \n"
    assert blanked("/proc/buddyinfo", row) == blanked("/proc/buddyinfo", "Node 0, zone      DMA     12      3      1 \n")
    assert blanked("/proc/buddyinfo", row) != blanked("/proc/buddyinfo", "Node 0, zone      DMA      2     3    246 \n")
    assert blanked("/proc/buddyinfo", row) != blanked("/proc/buddyinfo", "Node 0, zone      DMA      2      3    246\n")
    assert blanked("/proc/zoneinfo", "  pages free     12\n") != blanked("/proc/zoneinfo", "  pages free    12\n")


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_meminfo_has_the_settled_numbers(name: str, capture: str) -> None:
    theirs = meminfo.parse_meminfo(real(name, capture).read("/proc/meminfo").decode())
    ours = meminfo.read_meminfo(twin_at(name, capture))
    settled = SETTLED & theirs.sizes.keys()
    assert {"MemTotal", "CommitLimit", "VmallocTotal"} <= settled
    assert {entry: theirs.sizes[entry] for entry in settled} == {entry: ours.sizes[entry] for entry in settled}


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_pageblocks_have_the_recorded_types(name: str, capture: str) -> None:
    """
    "Number of blocks type": by execution, not by table.

    At boot one pageblock is unmovable and one reclaimable (x86_64: two and one). On arm64 the memmap of the new section takes
    16 MiB, which makes four more pageblocks unmovable; on x86_64 it is 2 MiB and none are needed. Once online, the first kernel
    allocations take one block of the new zone for each of their kinds, which is why it is not removable.
    """
    theirs = buddyinfo.parse_pagetypeinfo(real(name, capture).read("/proc/pagetypeinfo").decode())
    ours = buddyinfo.parse_pagetypeinfo(twin_at(name, capture).text("/proc/pagetypeinfo"))
    assert theirs.blocks and theirs.pages_per_block == ours.pages_per_block
    assert theirs.blocks == ours.blocks
    assert set(theirs.free) == set(ours.free)
    free = {key: buddyinfo.free_pages(orders) for key, orders in theirs.free.items()}
    for (nid, zone, kind), pages in free.items():
        if kind in ("HighAtomic", "Isolate"):
            assert (pages, 0) == (0, buddyinfo.free_pages(ours.free[nid, zone, kind]))


# Read back


def populated(twin: Twin) -> list[Zone]:
    zones = [zone for pgdat in twin.k.nodes.values() for zone in pgdat.node_zones]
    return [zone for zone in zones if mmzone.populated_zone(zone)]


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_zoneinfo_read_back_is_the_zones(name: str, capture: str) -> None:
    twin = twin_at(name, capture)
    read = zoneinfo.read_zoneinfo(twin)
    zones = populated(twin)
    assert [zone.name for zone in zones] == [z.zone for z in read]
    for zone, z in zip(zones, read, strict=True):
        assert (zone.nid, zone.zone_start_pfn, zone.spanned_pages, zone.present_pages, zone.managed_pages) == (
            z.node, z.start_pfn, z.spanned, z.present, z.managed)
        assert tuple(zone.watermark) == (z.min, z.low, z.high)
        assert zone.nr_free_pages == z.free == z.counters["nr_free_pages"]
        assert tuple(zone.lowmem_reserve) == z.protection
        assert (zone.pcp_high, zone.pcp_batch) == (z.pagesets[0].values["high"], z.pagesets[0].values["batch"])
        assert zone.stat_threshold == z.other["vm stats threshold"]


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_blocks_read_back_are_the_blocks(name: str, capture: str) -> None:
    twin = twin_at(name, capture)
    k = twin.k
    read = memory.read_memory(twin)
    assert (k.sections_per_block << k.SECTION_SIZE_BITS, "offline", True) == (read.block_size, read.auto_online, read.probe)
    assert sorted(k.memory_blocks) == [block.block for block in read.blocks]
    for block in read.blocks:
        mem = k.memory_blocks[block.block]
        last = mmzone.section_nr_to_pfn(k, mem.start_section_nr + 1) - 1
        assert {1: "online", 4: "offline"}[mem.state] == block.state and block.online == (mem.state == 1)
        assert block.valid_zones and mm.page_zone(k, last).name == block.valid_zones[0]
        assert (block.block, 0) == (block.phys_index, block.phys_device)
        assert tuple(mem.nodes) == block.nodes == ((0,) if k.config.NUMA else ())
    if k.config.NUMA:
        [only] = node.read_nodes(twin).nodes
        assert sorted(k.memory_blocks) == list(only.blocks)


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_memblock_and_iomem_read_back_are_what_they_show(name: str, capture: str) -> None:
    twin = twin_at(name, capture)
    k = twin.k
    for kind, regions in (("memory", k.memblock.memory.regions), ("reserved", k.memblock.reserved.regions)):
        read = memblock.read_memblock(twin, kind)
        if twin.recording.arch == "x86_64":
            assert read is None, "debugfs shows no memblock where it is discarded after boot"
            continue
        assert read and [(r.base, r.size) for r in regions] == [(r.base, r.size) for r in read]

    def shape(regions: object) -> list[tuple[int, int, str, object]]:
        return [(r.start, r.end, r.name, shape(r.children)) for r in regions]  # type: ignore[attr-defined]

    def tree(parent: Resource) -> list[tuple[int, int, str, object]]:
        return [(r.start, r.end, r.name, tree(r)) for r in parent.child]

    assert tree(k.iomem_resource) == shape(iomem.read_iomem(twin).regions)


@pytest.mark.parametrize(("name", "capture"), MOMENTS)
def test_free_lists_read_back_are_the_free_lists(name: str, capture: str) -> None:
    twin = twin_at(name, capture)
    k = twin.k
    orders = buddyinfo.parse_buddyinfo(twin.text(buddyinfo.BUDDYINFO))
    types = buddyinfo.parse_pagetypeinfo(twin.text(buddyinfo.PAGETYPEINFO))
    assert {(zone.nid, zone.name) for zone in populated(twin)} == set(orders)
    for zone in populated(twin):
        assert zone.free_area is not None
        assert tuple(zone.free_area.nr_free) == orders[zone.nid, zone.name]
        assert zone.nr_free_pages == buddyinfo.free_pages(orders[zone.nid, zone.name])
        names = [MIGRATE_NAMES[mtype] for mtype in k.migratetypes]
        by_type = [types.free[zone.nid, zone.name, kind] for kind in names]
        assert orders[zone.nid, zone.name] == tuple(map(sum, zip(*by_type, strict=True)))
        blocks = dict.fromkeys(names, 0)
        for pfn in range(zone.zone_start_pfn, mmzone.zone_end_pfn(zone)):
            if pfn % k.pageblock_nr_pages == 0 or pfn == zone.zone_start_pfn:
                blocks[MIGRATE_NAMES[page_alloc.get_pageblock_migratetype(k, pfn)]] += 1
        assert blocks == {kind: types.blocks[zone.nid, zone.name, kind] for kind in names}


@pytest.mark.parametrize("name", MODELLED)
@pytest.mark.parametrize("capture", ["00-boot", "02-online"])
def test_kpageflags_read_back_are_the_pages(name: str, capture: str) -> None:
    """Page by page over boot memory: RESERVED as in the flags, BUDDY as in the free lists, NOPAGE where no struct page is."""
    twin = twin_at(name, capture)
    k = twin.k
    first, end = k.nodes[0].node_start_pfn & ~(k.PAGES_PER_SECTION - 1), 0x40000 if k.arch.name == "x86_64" else 0x80000
    free = bytearray(end)
    for zone in populated(twin):
        for low, high in page_alloc.free_ranges(k, zone):
            free[min(low, end) : min(high, end)] = b"\1" * (min(high, end) - min(low, end))
    flags = kpageflags.decode(twin.read("/proc/kpageflags", first * 8, (end - first) * 8))
    assert end - first == len(flags)
    reserved, buddy, nopage = (1 << kpageflags.BITS[bit] for bit in ("RESERVED", "BUDDY", "NOPAGE"))
    wrong = []
    for pfn, value in enumerate(flags, first):
        bits = page_columns(k, pfn).get(FLAGS, pfn & (k.PAGES_PER_SECTION - 1))
        if bool(value & reserved) != bool(bits & PG_RESERVED) or bool(value & buddy) != bool(free[pfn]) or value & nopage:
            wrong.append(pfn)
    assert [] == wrong[:5]


def test_where_things_are() -> None:
    """The twins' files lie where a machine's do."""
    twin = twin_at("v4.9-arm64-rfc/full", "00-boot")
    assert ["memory", "reserved"] == twin.listdir(MEMBLOCK)
    assert {path.rpartition("/")[2] for path in ALLOCATED} | {"iomem", "kpageflags", "kpagecount"} <= set(twin.listdir("/proc"))
