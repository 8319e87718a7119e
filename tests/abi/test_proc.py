# SPDX-License-Identifier: GPL-2.0-only
"""/proc and debugfs text, read from every recorded kernel."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest

from memhp.abi import buddyinfo, iomem, kpageflags, memblock, recorded, zoneinfo
from memhp.abi import files as abi
from memhp.abi.files import Files
from memhp.abi.meminfo import parse_meminfo, read_meminfo
from memhp.errors import UsageError
from memhp.units import KIB


def test_zoneinfo_of_every_recorded_machine(machine: tuple[str, Files]) -> None:
    """Amounts are consistent, and MemTotal is what the zones manage."""
    name, files = machine
    zones = zoneinfo.read_zoneinfo(files)
    assert zones
    for zone in zones:
        assert zone.managed <= zone.present <= zone.spanned
        assert zone.free <= zone.managed
        assert not zone.populated or zone.start_pfn is not None
        if zone.start_pfn is not None:
            assert zone.end_pfn == zone.start_pfn + zone.spanned
        if "v4.9" in name:
            assert zone.populated and zone.pagesets and 0 < zone.min < zone.low < zone.high
            assert zone.counters["nr_free_pages"] == zone.free
            assert {"count", "high", "batch"} == set(zone.pagesets[0].values)
            assert zone.other["vm stats threshold"] > 0
    total = read_meminfo(files).total
    assert sum(zone.managed for zone in zones) * 4 * KIB == total


def test_zoneinfo_line_by_line() -> None:
    """The first zone of the arm64 recording, as printed."""
    zone = zoneinfo.read_zoneinfo(recorded.recording("v4.9-arm64-rfc/full").capture("00-boot"))[0]
    assert (0, "DMA", 262144, 262144, 262144, 256492) == (
        zone.node, zone.zone, zone.start_pfn, zone.spanned, zone.present, zone.managed)
    assert (254468, 1011, 1266, 1521) == (zone.free, zone.min, zone.low, zone.high)
    assert (0, 0, 0) == zone.protection
    assert [zoneinfo.Pageset(0, {"count": 134, "high": 186, "batch": 31})] == zone.pagesets
    assert 971 == zone.node_counters["nr_shmem"]
    assert "nr_shmem" not in zone.counters
    assert {"node_scanned", "vm stats threshold", "node_unreclaimable", "node_inactive_ratio"} == set(zone.other)


V6_12 = """\
Node 0, zone   Normal
  per-node stats
      nr_inactive_anon 5
  pages free     64936
        boost    0
        min      1
        low      2
        high     3
        promo    4
        spanned  98304
        present  65536
        managed  65536
        cma      0
        protection: (0, 0, 0, 255, 0)
      nr_free_pages 64936
      numa_hit     7
  pagesets
    cpu: 0
              count:    12
              high:     34
              batch:    5
              high_min: 6
              high_max: 7
  vm stats threshold: 16
    cpu: 1
              count:    1
              high:     2
              batch:    3
  vm stats threshold: 16
  node_unreclaimable:  0
  start_pfn:           786432
Node 0, zone  Movable
  pages free     0
        spanned  0
        present  0
        managed  0
        protection: (0, 0)
"""


def test_zoneinfo_of_today() -> None:
    """v6.12's whole form: boost, promo, cma, two CPUs with their thresholds between them, an empty zone without start."""
    normal, movable = zoneinfo.parse_zoneinfo(V6_12)
    assert (0, 4, 0) == (normal.boost, normal.promo, normal.cma)
    assert (1, 2, 3) == (normal.min, normal.low, normal.high)
    assert [12, 1] == [p.values["count"] for p in normal.pagesets]
    assert 7 == normal.pagesets[0].values["high_max"]
    assert 786432 == normal.start_pfn
    assert {"nr_free_pages": 64936, "numa_hit": 7} == normal.counters
    assert {"vm stats threshold": 16, "node_unreclaimable": 0} == normal.other
    assert (None, None, None, ()) == (movable.start_pfn, movable.end_pfn, movable.boost, tuple(movable.pagesets))
    assert not movable.populated


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("  pages free 3\n", "expected 'Node 0"),
        ("Node 0, zone DMA\n  what is this?\n", "not a line"),
        ("Node 0, zone DMA\nNode 0, zone DMA\n", "second time"),
        ("Node 0, zone DMA\n  pages free " + "9" * 30, "not a line"),
    ],
)
def test_zoneinfo_that_no_kernel_prints(text: str, what: str) -> None:
    """The message names file, line and what is odd."""
    with pytest.raises(UsageError, match=f"/proc/zoneinfo:[0-9]+: .*{what}"):
        zoneinfo.parse_zoneinfo(text)


def test_iomem_of_every_recorded_machine(machine: tuple[str, Files]) -> None:
    """The tree, written out again, is the file; there is System RAM in it."""
    _, files = machine
    text = abi.read_text(files, "/proc/iomem")
    tree = iomem.parse_iomem(text)
    assert not tree.hidden
    assert text == "".join(f"{'  ' * depth}{r.start:08x}-{r.end:08x} : {r.name}\n" for depth, r in tree.walk())
    assert tree.system_ram()


def test_system_ram_of_a_driver_is_found_inside_its_device(later: Callable[[str], Files]) -> None:
    """virtio-mem's memory stands below its device, with the driver's name behind."""
    ram = iomem.read_iomem(later("v6.12-arm64-virtio-mem/01-plug512")).system_ram()
    assert ("System RAM (virtio_mem)", 0x80000000, 0x9FFFFFFF) == (ram[-1].name, ram[-1].start, ram[-1].end)
    assert 4 == len(ram)


def test_iomem_shown_to_a_reader_without_privilege() -> None:
    """Names with every address 0 are told as hidden, not as memory at 0."""
    tree = iomem.parse_iomem("00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n")
    assert tree.hidden
    assert not iomem.parse_iomem("").hidden


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nonsense\n", "not a line"),
        ("00001000-00000fff : x\n", "ends before"),
        ("  00000000-00000fff : x\n", "indented"),
        ("00000000-00000fff : x\n    00000000-00000fff : x\n", "indented"),
        ("00000000-00000fff : x\n 00000000-00000fff : x\n", "indented"),
        ("00000000-00000fff : x\n  00000000-00001fff : y\n", "outside"),
        ("00001000-00001fff : x\n00000000-00000fff : y\n", "not below"),
        ("00001000-00001fff : x\n00001000-00001fff : y\n", "not below"),
        ("".join(f"{'  ' * n}00000000-00000fff : x\n" for n in range(40)), "indented"),
    ],
)
def test_iomem_that_no_kernel_prints(text: str, what: str) -> None:
    """Ranges that end early, climb out of their parent, overlap, or nest without end."""
    with pytest.raises(UsageError, match=what):
        iomem.parse_iomem(text)


def test_memblock_of_every_recorded_machine(machine: tuple[str, Files]) -> None:
    """v4.9 and v5.10 show ranges, v6.12 node and flags; x86_64 shows nothing."""
    name, files = machine
    regions = memblock.read_memblock(files)
    if "x86_64" in name:
        assert regions is None
        return
    assert regions
    for region in regions:
        assert region.size > 0
        assert ("v6.12" in name) == (region.flags is not None) == (region.nid is not None)
    text = ""
    for number, r in enumerate(regions):
        text += f"{number:4}: {r.base:#018x}..{r.end - 1:#018x}"
        text += "\n" if r.flags is None else f" {r.nid:4} {'|'.join(r.flags) or 'NONE'}\n"
    assert abi.read_text(files, "/sys/kernel/debug/memblock/memory") == text


def test_memblock_flags_and_nodes() -> None:
    """No flags is an empty tuple, several are told one by one; `x` is no node."""
    regions = memblock.parse_memblock(
        "   0: 0x0000000000000000..0x0000000000000fff    x NONE\n"
        "   1: 0x0000000000001000..0x0000000000001fff    1 HOTPLUG|NOMAP\n"
    )
    assert [(None, ()), (1, ("HOTPLUG", "NOMAP"))] == [(r.nid, r.flags) for r in regions]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0: 0x1000..0x0fff\n", "ends before"),
        ("0: 0x1000..0x1fff\n0: 0x2000..0x2fff\n", "a line is missing"),
        ("1: 0x1000..0x1fff\n", "a line is missing"),
        ("0: 0x1000..0x1fff\n1: 0x1800..0x2fff\n", "in or below"),
        ("0: 0x1000..0x1fff 0 nomap\n", "not a line"),
        ("0: 0x1000-0x1fff\n", "not a line"),
    ],
)
def test_memblock_that_no_kernel_prints(text: str, what: str) -> None:
    """Cut off, overlapping and misspelt listings."""
    with pytest.raises(UsageError, match=what):
        memblock.parse_memblock(text)


def test_meminfo() -> None:
    """Sizes are bytes; lines without a unit are counts; other lines are refused."""
    info = parse_meminfo("MemTotal:        1025968 kB\nMemFree: 4 kB\nActive(anon):   8 kB\nHugePages_Total:       2\n")
    assert (1025968 * KIB, 4 * KIB, 8 * KIB) == (info.total, info.free, info.sizes["Active(anon)"])
    assert {"HugePages_Total": 2} == info.counts
    with pytest.raises(UsageError, match="/proc/meminfo: not a line"):
        parse_meminfo("MemTotal: lots\n")


def test_buddyinfo_and_pagetypeinfo_tell_the_same_as_zoneinfo() -> None:
    """Free pages by order, by migratetype, and in zoneinfo: what the three differ by lies in the CPU's own list."""
    for name in recorded.names():
        recording = recorded.recording(name)
        for step in recording.captures:
            files = recording.capture(step)
            buddy = buddyinfo.parse_buddyinfo(abi.read_text(files, buddyinfo.BUDDYINFO))
            types = buddyinfo.parse_pagetypeinfo(abi.read_text(files, buddyinfo.PAGETYPEINFO))
            for zone in zoneinfo.read_zoneinfo(files):
                free = buddyinfo.free_pages(buddy[zone.node, zone.zone])
                by_type = sum(buddyinfo.free_pages(o) for key, o in types.free.items() if key[:2] == (zone.node, zone.zone))
                assert abs(free - zone.free) <= 64
                assert abs(by_type - zone.free) <= 64
                blocks = sum(n for key, n in types.blocks.items() if key[:2] == (zone.node, zone.zone))
                assert blocks == -(-zone.spanned // types.pages_per_block)


def flags_file(*values: int) -> Files:
    return abi.stored({kpageflags.KPAGEFLAGS: array("Q", values).tobytes()})


def test_page_flags_are_counted_and_cut_into_runs() -> None:
    """Counts by name, pages without a flag, runs of equal pages; the end of the file is told by `entries`."""
    buddy, reserved = 1 << kpageflags.BITS["BUDDY"], 1 << kpageflags.BITS["RESERVED"]
    files = flags_file(0, buddy, buddy, reserved, reserved | 1 << 63, 0)
    counts = kpageflags.read_counts(files, 1, 100)
    assert (100, 5) == (counts.asked, counts.entries)
    assert {"BUDDY": 2, "RESERVED": 2, "BIT_63": 1} == counts.counts
    assert 1 == counts.none
    assert [(1, 2, buddy), (3, 2, reserved), (5, 1, 0)] == list(kpageflags.read_runs(files, 1, 9, reserved | buddy))
    assert [(2, 1, buddy), (3, 1, reserved)] == list(kpageflags.read_runs(files, 2, 2))


def test_page_flags_over_many_chunks() -> None:
    """A run goes on over the pieces in which the file is read."""
    pages = 300_000
    files = abi.stored({kpageflags.KPAGEFLAGS: array("Q", [1 << 20]).tobytes() * pages})
    assert {"NOPAGE": pages} == kpageflags.read_counts(files, 0, pages).counts
    assert [(0, pages, 1 << 20)] == list(kpageflags.read_runs(files, 0, pages))


def test_page_flags_that_are_cut_off() -> None:
    """Half an entry at the end is a damaged file."""
    with pytest.raises(UsageError, match="cut off"):
        kpageflags.read_counts(abi.stored({kpageflags.KPAGEFLAGS: b"\0" * 12}), 0, 5)
    with pytest.raises(UsageError, match="makes no sense"):
        kpageflags.read_counts(flags_file(), -1, 5)
