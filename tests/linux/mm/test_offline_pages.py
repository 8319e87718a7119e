# SPDX-License-Identifier: GPL-2.0-only
"""Taking a range offline, held against an oracle that looks at one page after the other; and what each refusal says."""

from __future__ import annotations

from errno import EAGAIN, EBUSY, EINTR, EINVAL
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.linux import tiny
from tests.linux.mm.test_page_isolation import KINDS, TREES
from tests.oracles import offlining
from tests.oracles.buddy import MOVABLE, UNMOVABLE

from memhp.errors import KernelError, KernelHangError
from memhp.linux import sched
from memhp.linux.drivers.base import memory
from memhp.linux.include import mm, mmzone
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM, Resource
from memhp.linux.include.memory import (
    MEM_CANCEL_OFFLINE,
    MEM_GOING_OFFLINE,
    MEM_OFFLINE,
    MemoryNotify,
)
from memhp.linux.include.memory_model import page_columns
from memhp.linux.include.mm_types import FLAGS, KIND, REFCOUNT
from memhp.linux.include.notifier import NOTIFY_BAD, NOTIFY_OK, NotifierBlock, notifier_from_errno
from memhp.linux.include.page_flags import KIND_NONE, PG_LRU, set_page_kind
from memhp.linux.kernel import resource
from memhp.linux.mm import memory_hotplug, page_alloc
from memhp.linux.state import Kernel, Workload

SECTION = 512
START, END = 2 * SECTION, 3 * SECTION
"""The range: the first of two sections."""


def machine(release: str, zone_name: str = "Normal") -> Kernel:
    """Two sections of free pages in one zone, and a second, higher one to move to if there is one."""
    k = tiny.tiny_kernel(section_bits=21, tree=TREES[release])
    zone = k.zone(0, k.config.zones.index(zone_name))
    memory_hotplug.__add_pages(k, 0, zone, START, 2 * SECTION)
    for nr in (2, 3):
        section = k.section_rw(nr)
        section.subsection_map = 1
        if k.tree.has_online_sections:
            section.section_mem_map |= mmzone.SECTION_IS_ONLINE
    resource.request_resource(
        k, k.iomem_rw(), Resource(START << 12, (END + SECTION << 12) - 1, "System RAM", IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY))
    page_alloc.__free_reserved_page(k, START, 2 * SECTION)
    zone.present_pages = zone.managed_pages = 2 * SECTION
    k.nodes[0].node_present_pages = 2 * SECTION
    page_alloc.build_all_zonelists(k, None, None)
    return k


def zone_of(k: Kernel) -> mmzone.Zone:
    return mm.page_zone(k, START + SECTION)


def use(k: Kernel, pfn: int, kind: str) -> None:
    """Take one free page into use."""
    used, number, flags = KINDS[kind]
    page_alloc._take_free_range(k, zone_of(k), pfn, pfn + 1)
    set_page_kind(k, pfn, 1, number, flags)
    mm.set_page_count(k, pfn, 1, used.refcount)


def offline(k: Kernel) -> int:
    """Take the range offline; returns 0, an errno, or HANG."""
    zone = zone_of(k) if k.tree.memory_block_keeps_zone else None
    try:
        memory_hotplug.offline_pages(k, START, SECTION, zone)
    except KernelHangError:
        return offlining.HANG
    except KernelError as err:
        return err.errno or 0
    return 0


def page(k: Kernel, pfn: int) -> tuple[int, int, int]:
    columns, offset = page_columns(k, pfn), pfn & (SECTION - 1)
    return columns.get(KIND, offset), columns.get(FLAGS, offset) & PG_LRU, columns.get(REFCOUNT, offset)


@st.composite
def loads(draw: Any) -> tuple[dict[int, str], set[int], set[int], int]:
    """Pages in use by kind, those that are pinned, pageblocks that are unmovable, and how many pages are free elsewhere."""
    kinds = st.sampled_from((*["lru"] * 6, *KINDS))
    used: dict[int, str] = {}
    for _ in range(draw(st.integers(0, 6))):
        low = draw(st.integers(START, END - 1))
        size = draw(st.sampled_from((1, 1, 2, 7, 30, 255, 256, 257, 400)))
        kind = draw(kinds)
        used.update(dict.fromkeys(range(low, min(END, low + size)), kind))
    lru = [pfn for pfn, kind in sorted(used.items()) if kind == "lru"]
    pinned = set(draw(st.lists(st.sampled_from(lru), max_size=3))) if lru else set()
    if lru and draw(st.integers(0, 9)) == 0:
        pinned = set(lru)
    blocks = draw(st.sets(st.integers(START // 8, END // 8 - 1), max_size=3))
    spare = draw(st.sampled_from((SECTION, SECTION, SECTION, 300, 3, 0)))
    return used, pinned, {block * 8 for block in blocks}, spare


@settings(max_examples=150, deadline=None)
@given(load=loads(), release=st.sampled_from(list(TREES)), movable=st.booleans())
def test_as_page_by_page(load: tuple[dict[int, str], set[int], set[int], int], release: str, movable: bool) -> None:
    """The errno, the pages that were moved, and that nothing was lost on the way."""
    used, pinned, blocks, spare = load
    if release == "v4.9":
        used = {pfn: "lru" if KINDS[kind][0].offline else kind for pfn, kind in used.items()}
    k = machine(release, "Movable" if movable else "Normal")
    zone = zone_of(k)
    for block in blocks:
        page_alloc.set_pageblock_migratetype(k, block, UNMOVABLE)
        page_alloc.move_freepages_block(k, zone, block, UNMOVABLE)
    for pfn, kind in used.items():
        use(k, pfn, kind)
    for pfn in pinned:
        mm.set_page_count(k, pfn, 1, 2)
    for pfn in range(END, END + SECTION - spare):
        use(k, pfn, "kernel")
    movers = sorted(pfn for pfn, kind in used.items() if kind == "lru")
    k.workloads["w"] = Workload("anon", tuple((pfn, pfn + 1) for pfn in movers))
    pages = {pfn: KINDS[kind][0] for pfn, kind in used.items()}
    # v4.9 moves pages of Normal to Normal only, and so does the model of later kernels; both zones have as much to spare here.
    expected = offlining.offline(
        pages, pinned, START, END, 8, generation=release, movable_zone=movable, unmovable_blocks=blocks, spare=spare)
    free, managed = zone.nr_free_pages, zone.managed_pages
    answer = offline(k)
    assert expected.errno == answer
    stayed = {pfn for pfn in movers if page(k, pfn)[1:] != (0, 0) and page(k, pfn)[0] != KIND_NONE} if answer else set()
    if answer not in (0, offlining.HANG):
        assert set(movers) - expected.moved == stayed
        assert 0 == zone.nr_isolate_pageblock
        assert free == zone.nr_free_pages, "as many are free as before: each page that moved left one behind"
        assert {MOVABLE} == {page_alloc.get_pageblock_migratetype(k, pfn) for pfn in range(START, END, 8)} or answer == EBUSY
    held = [pfn for low, high in k.workloads["w"].runs for pfn in range(low, high)]
    assert len(movers) == len(set(held)), "every page is somewhere, and no two are in one place"
    for pfn in held:
        assert page(k, pfn) == (KINDS["lru"][1], PG_LRU, 2 if pfn in pinned else 1)
    if not answer:
        assert all(pfn >= END for pfn in held)
        given_up = sum(kind == "given up" for kind in used.values()) if k.tree.hotplug_pages_offline else 0
        assert managed - SECTION + given_up == zone.managed_pages
        assert SECTION == zone.present_pages
        assert spare - len(expected.moved) == zone.nr_free_pages
        assert 0 == zone.nr_isolate_pageblock
        assert release == "v4.9" or zone.zone_start_pfn == END, "the zone does not span it any more"


# One refusal after the other


@pytest.mark.parametrize("release", TREES)
def test_alignment(release: str) -> None:
    """Half a section, or no page at all, is EINVAL."""
    k = machine(release)
    zone = zone_of(k) if k.tree.memory_block_keeps_zone else None
    for start, nr_pages in ((START + 4, SECTION), *(((START, 100), (START, 0)) if release != "v4.9" else ())):
        with pytest.raises(KernelError) as caught:
            memory_hotplug.offline_pages(k, start, nr_pages, zone)
        assert EINVAL == caught.value.errno
    assert 2 * SECTION == zone_of(k).nr_free_pages


@pytest.mark.parametrize("release", TREES)
def test_several_zones(release: str) -> None:
    """The last page of the range names another zone."""
    k = machine(release)
    mm.set_page_links(k, START + 256, 256, k.ZONE_MOVABLE, 0)
    assert EINVAL == offline(k)


@pytest.mark.parametrize("release", ["v5.10", "v6.1", "v6.12"])
def test_memory_holes(release: str) -> None:
    """A part of the range is not System RAM: v4.9 takes the rest offline, later kernels refuse before they look at a page."""
    k = machine(release)
    resource.release_mem_region_adjustable(k, k.iomem_rw(), START + 16 << 12, 16 << 12)
    before = k.log.lines[:]
    assert EINVAL == offline(k)
    assert before == k.log.lines


@pytest.mark.parametrize("release", TREES)
@pytest.mark.parametrize(
    ("answer", "errno"), [(NOTIFY_BAD, 1), (notifier_from_errno(EBUSY), EBUSY), (notifier_from_errno(12), 12)])
def test_a_notifier_vetoes(release: str, answer: int, errno: int) -> None:
    """Its errno is the answer; it hears MEM_CANCEL_OFFLINE, before the pageblocks are given back in v4.9, after it since."""
    k = machine(release)
    heard: list[tuple[int, int]] = []

    def veto(k: Kernel, action: int, data: MemoryNotify) -> int:
        heard.append((action, zone_of(k).nr_isolate_pageblock))
        assert (START, SECTION) == (data.start_pfn, data.nr_pages)
        return answer if action == MEM_GOING_OFFLINE else NOTIFY_OK

    memory.register_memory_notifier(k, NotifierBlock(veto))
    assert errno == offline(k)
    assert [(MEM_GOING_OFFLINE, 64), (MEM_CANCEL_OFFLINE, 64 if release == "v4.9" else 0)] == heard
    assert 2 * SECTION == zone_of(k).nr_free_pages


@pytest.mark.parametrize("release", TREES)
def test_notifiers_hear_of_success(release: str) -> None:
    """MEM_GOING_OFFLINE, then MEM_OFFLINE; both say which node loses its last memory."""
    k = machine(release)
    heard: list[tuple[int, int, int]] = []

    def listen(k: Kernel, action: int, data: MemoryNotify) -> int:
        heard.append((action, data.status_change_nid, data.status_change_nid_normal))
        return NOTIFY_OK

    memory.register_memory_notifier(k, NotifierBlock(listen))
    assert 0 == offline(k)
    assert [(MEM_GOING_OFFLINE, -1, -1), (MEM_OFFLINE, -1, -1)] == heard
    zone = zone_of(k) if k.tree.memory_block_keeps_zone else None
    memory_hotplug.offline_pages(k, END, SECTION, zone)
    assert [(MEM_GOING_OFFLINE, 0, 0), (MEM_OFFLINE, 0, 0)] == heard[2:]
    assert frozenset() == k.node_states[mmzone.N_MEMORY] == k.node_states[mmzone.N_NORMAL_MEMORY]


@pytest.mark.parametrize("release", TREES)
def test_a_page_that_is_held(release: str) -> None:
    """v4.9 gives up after two minutes; later kernels never do, unless a signal comes."""
    k = machine(release)
    use(k, START + 40, "lru")
    mm.set_page_count(k, START + 40, 1, 2)
    waiting = k.fork()
    if release == "v4.9":
        assert EAGAIN == offline(waiting)
        assert 0 == zone_of(waiting).nr_isolate_pageblock
    else:
        assert offlining.HANG == offline(waiting)
        assert 64 == zone_of(waiting).nr_isolate_pageblock, "it is still at it"
        dumped = [line for line in waiting.log.lines if line.startswith("page dumped")]
        assert ["page dumped because: migration failure"] == dumped
    sched.send_signal_later(k.tasks)
    assert EINTR == offline(k)
    assert 0 == zone_of(k).nr_isolate_pageblock
    assert 2 * SECTION - 1 == zone_of(k).nr_free_pages


def test_movable_memory_of_a_node_keeps_its_normal_memory() -> None:
    """v4.9 without MOVABLE_NODE: the last normal memory stays while there is movable memory."""
    k = machine("v4.9")
    k.zone(0, k.ZONE_MOVABLE).present_pages = 1
    assert 0 == offline(k)
    with pytest.raises(KernelError, match="last normal memory"):
        memory_hotplug.offline_pages(k, END, SECTION)


@pytest.mark.parametrize("release", TREES)
def test_pages_go_to_other_nodes_first(release: str) -> None:
    """
    A node with memory takes the pages. If it is full, v4.9 falls back on the node itself; later kernels try for ever.

        node 0  [ range ][ free ]     node 1  [ free, or full ]
    """
    k = machine(release)
    k.nodes[1] = mmzone.PglistData(1, k.config.zones)
    for state in (mmzone.N_ONLINE, mmzone.N_MEMORY, mmzone.N_NORMAL_MEMORY):
        k.node_states[state] |= {1}
    other = k.zone(1, k.ZONE_NORMAL)
    memory_hotplug.__add_pages(k, 1, other, 8 * SECTION, SECTION)
    page_alloc.__free_reserved_page(k, 8 * SECTION, SECTION)
    other.present_pages = other.managed_pages = SECTION
    page_alloc.build_all_zonelists(k, None, None)
    for pfn in (START, START + 1):
        use(k, pfn, "lru")
    k.workloads["w"] = Workload("anon", ((START, START + 2),))
    full = k.fork()
    assert 0 == offline(k)
    assert all(8 * SECTION <= start < end <= 9 * SECTION for start, end in k.workloads["w"].runs)

    page_alloc._take_free_range(full, full.zone(1, k.ZONE_NORMAL), 8 * SECTION + 1, 9 * SECTION)
    assert (0 if release == "v4.9" else offlining.HANG) == offline(full)
    nodes = sorted(mm.page_to_nid(full, pfn) for start, end in full.workloads["w"].runs for pfn in range(start, end))
    assert [0, 1] == nodes
