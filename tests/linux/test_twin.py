# SPDX-License-Identifier: GPL-2.0-only
"""A model booted as the twin of a recorded machine: each page is what it was there, and each zone has as much free."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import invariants
from tests.model_files import ModelFiles

from memhp.abi import capture, kpageflags, memmap
from memhp.abi.files import read_text
from memhp.abi.memory import read_memory
from memhp.abi.zoneinfo import read_zoneinfo
from memhp.backends import base
from memhp.backends.model import ModelBackend
from memhp.checker import differential
from memhp.hardware import PAGE_TAIL, Footprint, Hardware, PageKind, RecordedPages, platform
from memhp.linux import boot
from memhp.linux.include import mm
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from memhp.linux.include.mmzone import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE
from memhp.linux.include.page_flags import (
    KIND_ANON,
    KIND_FILE,
    KIND_HUGE,
    KIND_HUGETLB,
    KIND_KERNEL,
    KIND_OTHER,
    PG_HEAD,
    PG_HWPOISON,
    PG_LRU,
    PG_OFFLINE,
    PG_SLAB,
    set_page_kind,
)
from memhp.linux.mm import page_alloc
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9
from memhp.machine import Machine
from memhp.scenario import Offline, Online, Plug, Unplug
from memhp.units import GIB, MIB

MACHINES = {
    "x86_64": "model:v4.9/x86_64?mem=1G",
    "arm64": "model:v4.9+arm64-rfc-2016/arm64?mem=2G",
    "two nodes": "model:v4.9/x86_64?mem=3G&nodes=1G,2G",
}
FOLDER = Path(__file__).parents[1] / "data" / "captures"
CAPTURES = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))
KNOWN = {("v5.10-arm64", "memory0", "valid_zones")}
"""What the model does not show alike yet: v5.10 calls the zones of the firmware's flash "none"."""
WORK = (
    (GFP_HIGHUSER_MOVABLE, 0, 700, KIND_ANON, PG_LRU), (GFP_HIGHUSER_MOVABLE, 9, 3, KIND_HUGE, PG_LRU),
    (GFP_KERNEL, 3, 90, KIND_KERNEL, PG_SLAB), (GFP_HIGHUSER_MOVABLE, 9, 2, KIND_HUGETLB, 0), (GFP_KERNEL, 2, 40, KIND_OTHER, 0),
    (GFP_HIGHUSER_MOVABLE, 1, 333, KIND_FILE, PG_LRU), (GFP_KERNEL, 0, 5, KIND_OTHER, PG_HWPOISON),
    (GFP_KERNEL, 4, 7, KIND_OTHER, PG_OFFLINE),
)  # fmt: skip
"""What runs on the machine before it is recorded: mobility, order, how many, what for, flags; every other one ends again."""


def _check(k: Kernel) -> None:
    """All invariants hold."""
    invariants.check(k, boot_blocks=frozenset(k.memory_blocks))


def work(k: Kernel) -> None:
    """Allocate, and free every other piece, so that free pages lie in small pieces."""
    for gfp, order, count, kind, flags in WORK:
        taken = [page_alloc.__alloc_pages_nodemask(k, gfp, order, 0) for _ in range(count)]
        for number, pfn in enumerate(taken):
            assert pfn >= 0
            set_page_kind(k, pfn, 1 << order, kind, flags)
            if kind in (KIND_HUGE, KIND_HUGETLB):
                set_page_kind(k, pfn, 1, kind, PG_HEAD)
            else:
                mm.set_page_count(k, pfn, 1 << order, 1)
            if number % 2 and not flags & PG_OFFLINE:
                page_alloc.__free_pages(k, pfn, order)


@pytest.mark.parametrize("name", MACHINES)
def test_twin_of_a_model_that_works(name: str, tmp_path: Path) -> None:
    """Page by page the same kinds; zone by zone as many free, managed and present; the same free blocks by order and type."""
    with Machine(base.open(MACHINES[name])) as machine:
        first = machine.backend
        assert isinstance(first, ModelBackend)
        work(first.kernel)
        machine.capture(str(tmp_path / "capture"))
        tree = MACHINES[name].partition("?")[0]
        second = base.open(f"{tree}?capture={tmp_path / 'capture'}")
        assert isinstance(second, ModelBackend)
        pages = first.kernel.max_pfn
        kinds = kpageflags.read_kinds(first, 0, pages)
        tails = {PageKind.HUGE | PAGE_TAIL, PageKind.HUGETLB | PAGE_TAIL}
        assert {kind.value for kind in PageKind} - {PageKind.PAGE_TABLE} | tails == set(kinds) | {PageKind.NOPAGE}
        assert kinds == kpageflags.read_kinds(second, 0, pages)
        assert 1 == second.kernel.hstate.nr_huge_pages
        zones = [[(zone.zone, zone.free, zone.present) for zone in read_zoneinfo(files)] for files in (first, second)]
        assert zones[0] == zones[1]
        assert read_text(first, "/proc/buddyinfo") == read_text(second, "/proc/buddyinfo")
        assert [] == differential.compare(first, second)
        _check(second.kernel)


@pytest.mark.parametrize("name", CAPTURES)
def test_twin_of_a_real_kernel(name: str, tmp_path: Path) -> None:
    """
    The page allocator of the twin stands as that of the kernel in QEMU stood when it was recorded.

    Page by page the same kinds; zone by zone as many pages managed and present, and as many free as were counted among the
    pages. (The counter of free pages was read some files earlier, and reading takes pages.)
    """
    with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    release, arch = name.split("-")[:2]
    page = "&page=16K" if "16K" in name else ""
    real = base.open(f"capture:{tmp_path / name}")
    offline = "&cmdline=memhp_default_state%3Doffline" if "dimms" in name else ""
    twin = base.open(f"model:{release}/{arch}?capture={tmp_path / name}{page}{offline}")
    assert isinstance(twin, ModelBackend)
    pages = twin.kernel.max_pfn
    plain = bytes(value & ~PAGE_TAIL for value in range(256))
    kinds = kpageflags.read_kinds(real, 0, pages).translate(plain)
    memory = read_memory(real)
    for block in memory.blocks:
        # Pages on a CPU's own lists have no flag; in Movable nothing else can be without one, and the twin has them free.
        if block.state == "online" and (block.valid_zones or ("",))[0] == "Movable":
            low, high = (address // twin.kernel.PAGE_SIZE for address in memory.range_of(block.block))
            kinds = kinds[:low] + kinds[low:high].replace(bytes([PageKind.KERNEL]), bytes([PageKind.FREE])) + kinds[high:]
    seen = kpageflags.read_kinds(twin, 0, pages).translate(plain)
    # Tables of the linear map of DIMMs lie where the twin's allocator puts them, which is where it is free elsewhere.
    apart = [(real, ours) for real, ours in zip(kinds, seen, strict=True) if real != ours]
    assert set(apart) <= {(PageKind.KERNEL, PageKind.FREE), (PageKind.FREE, PageKind.KERNEL)}
    assert len(apart) <= (512 if "dimms" in name else 0)
    assert [kinds.count(kind) for kind in PageKind] == [seen.count(kind) for kind in PageKind]
    assert {PageKind.FREE, PageKind.RESERVED, PageKind.SLAB, PageKind.FILE, PageKind.ANON, PageKind.PAGE_TABLE} <= set(kinds)
    zones = {zone.zone: zone for zone in read_zoneinfo(twin) if zone.present}
    assert zones
    for zone in (zone for zone in read_zoneinfo(real) if zone.present):
        ours = zones.pop(zone.zone)
        shown = page_alloc.free_ranges(twin.kernel, next(z for z in twin.kernel.nodes[0].node_zones if z.name == zone.zone))
        free = sum(seen[low:high].count(PageKind.FREE) for low, high in shown)
        assert (zone.start_pfn, zone.spanned, zone.present, zone.managed, free) == (
            ours.start_pfn, ours.spanned, ours.present, ours.managed, ours.free)
        assert abs(zone.free - free) <= max(64, zone.free // 50)
    assert {} == zones
    assert [] == [str(found) for found in differential.compare(real, twin) if (name, found.item, found.name) not in KNOWN]
    for own in invariants.zones_of(twin.kernel):
        invariants.check_free_lists(twin.kernel, own)
    invariants.check_counters(twin.kernel, frozenset(), 0)


def test_a_twin_with_dimms_lets_go_of_them(tmp_path: Path) -> None:
    """
    DIMMs that were plugged when the machine was recorded are devices of the twin: its blocks are in the zones they were in, and
    what is empty can leave.
    """
    with Machine(base.open("model:v6.12/arm64?mem=1G&cmdline=memhp_default_state%3Doffline")) as machine:
        steps = (
            Plug(id="d1", size=256 * MIB), Plug(id="d2", size=128 * MIB), Online(block="d1:1", to="online_movable"),
            Online(block="d2:0", to="online_movable"),
        )  # fmt: skip
        assert {"ok", "accepted"} == {base.apply(machine.backend, step).word for step in steps}
        machine.capture(str(tmp_path / "capture"))
        first = machine.backend
        twin = base.open(f"model:v6.12/arm64?capture={tmp_path / 'capture'}&cmdline=memhp_default_state%3Doffline")
        assert isinstance(twin, ModelBackend)
        assert [] == differential.compare(first, twin)
        assert ["d1", "d2"] == [device.id for device in twin.devices()]
        before, after = ({zone.zone: zone.free for zone in read_zoneinfo(files)} for files in (first, twin))
        assert before["Movable"] == after["Movable"]
        assert before == after
    assert "EINVAL" == base.apply(twin, Offline(block="d1:0")).word
    assert "ok" == base.apply(twin, Offline(block="d2:0")).word
    assert "accepted" == base.apply(twin, Unplug(id="d2")).word
    assert ["d1"] == [device.id for device in twin.devices()]


def test_without_page_flags_the_footprint_counts(tmp_path: Path) -> None:
    """A recording that left the flags out boots as before: as many pages in use, by mobility."""
    with Machine(base.open(MACHINES["arm64"])) as machine:
        machine.capture(str(tmp_path / "capture"), pages=False)
        hardware = memmap.hardware_from_capture(capture.load(tmp_path / "capture"), "arm64")
    assert () == hardware.pages
    assert hardware.footprint.movable > 1000


def kernel(kinds: bytes, at: int, mem: int = 256 * MIB, **more: object) -> Kernel:
    """A PC whose pages from `at` on are of these kinds, the others free or as boot left them."""
    hardware: Hardware = replace(platform("x86_64", mem=mem), pages=(RecordedPages(at, kinds),), **more)  # type: ignore[arg-type]
    return boot.boot(V4_9, "x86_64", hardware)


K = PageKind


def test_what_is_not_recorded_stays_as_boot_left_it() -> None:
    """Two free pages, one in use, in the middle of memory: beside them everything is free as before."""
    plain = boot.boot(V4_9, "x86_64", replace(platform("x86_64", mem=256 * MIB), footprint=Footprint()))
    twin = kernel(bytes((K.FREE, K.SLAB, K.FREE)), 0x8001)
    zone, before = mm.page_zone(twin, 0x8001), mm.page_zone(plain, 0x8001)
    assert before.nr_free_pages - 1 == zone.nr_free_pages
    assert before.managed_pages == zone.managed_pages
    assert [0, 0] == [mm.page_ref_count(twin, pfn) for pfn in (0x8001, 0x8003)]
    assert 1 == mm.page_ref_count(twin, 0x8002)
    _check(twin)


def test_reserved_and_offline_pages_are_not_managed() -> None:
    """A zone manages neither; the tail of a compound page has no reference of its own."""
    free = kernel(bytes([K.FREE]) * 64, 0x8000)
    slab = bytes([K.SLAB, K.SLAB | PAGE_TAIL])
    twin = kernel(bytes([K.RESERVED]) * 3 + bytes([K.OFFLINE]) * 5 + slab + bytes([K.FREE]) * 54, 0x8000)
    before, zone = mm.page_zone(free, 0x8000), mm.page_zone(twin, 0x8000)
    assert 8 == before.managed_pages - zone.managed_pages == free.totalram_pages - twin.totalram_pages
    assert 10 == before.nr_free_pages - zone.nr_free_pages
    assert [1, 0] == [mm.page_ref_count(twin, pfn) for pfn in (0x8008, 0x8009)]
    flags = [value for _, _, value in kpageflags.read_runs(ModelFiles(twin), 0x8000, 10)]
    assert [("RESERVED",), ("OFFLINE",), ("SLAB",)] == [kpageflags.names(value) for value in flags]


def test_pageblocks_get_types_that_fit() -> None:
    """
    Four pageblocks: files, kernel pages, slab, free. One unmovable and one reclaimable were recorded, with 100 pages in use in
    the reclaimable one.

        | 300 file | 200 kernel | 100 slab | free |
    """
    size = kernel(b"", 0x8000).pageblock_nr_pages

    def block(kind: int, used: int) -> bytes:
        return bytes([kind]) * used + bytes([K.FREE]) * (size - used)

    def found(k: Kernel) -> tuple[int, ...]:
        return tuple(page_alloc.get_pageblock_migratetype(k, 0x8000 + size * i) for i in range(4))

    kinds = block(K.FILE, 300) + block(K.KERNEL, 200) + block(K.SLAB, 100) + block(K.FREE, 0)
    twin = kernel(kinds, 0x8000, pageblocks={(0, "DMA32", "Unmovable"): (1, 200), (0, "DMA32", "Reclaimable"): (1, 100)})
    assert (MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE) == found(twin)
    assert (MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, MIGRATE_UNMOVABLE, MIGRATE_MOVABLE) == found(kernel(kinds, 0x8000))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(K)[1:]), st.integers(1, 3000)), min_size=1, max_size=40))
def test_any_pages_come_back_as_they_were_recorded(runs: list[tuple[PageKind, int]]) -> None:
    """Whatever lies where, every kind reads back (a page table as a page of the kernel, for v4.9 shows none); all adds up."""
    kinds = b"".join(bytes([kind]) * count for kind, count in runs)[: GIB // 4096 // 4]
    twin = kernel(kinds, 0x4001, GIB)
    seen = kpageflags.read_kinds(ModelFiles(twin), 0x4001, len(kinds))
    assert kinds.replace(bytes([K.PAGE_TABLE]), bytes([K.KERNEL])) == seen
    assert kinds.count(K.HUGETLB) == twin.hstate.nr_huge_pages
    _check(twin)
