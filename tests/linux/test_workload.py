# SPDX-License-Identifier: GPL-2.0-only
"""Workloads: pages of every kind in a block, and what becomes of the block; on machines as people use them."""

from __future__ import annotations

import pytest

from memhp import connect
from memhp.errors import UsageError
from memhp.linux import workload
from memhp.linux.include.mm_types import KIND
from memhp.linux.include.page_flags import KIND_HUGE
from memhp.machine import Machine
from memhp.scenario import PAGE_KINDS, Alloc, Free, Offline, Online, Pin, Plug, Step
from memhp.units import MIB

TODAY = "model:v6.12/arm64?mem=1536M&cmdline=memhp_default_state%3Doffline"
OLD = "model:v4.9/x86_64?mem=1G"


def words(machine: Machine, *steps: Step) -> list[str]:
    return [result.answer.word for result in machine.run(steps)]


def with_block(machine: Machine, zone: str) -> None:
    """Plug 384 MiB; the kernel's own pages are in the first block, the second is online in `zone`, with free pages only."""
    machine.run([])
    steps = [Plug(id="d1", size=384 * MIB), Online(block="d1:0", to="online_kernel"), Online(block="d1:1", to=zone)]
    assert ["accepted", "ok", "ok"] == words(machine, *steps)


def test_every_kind_has_a_name_here_and_in_scenarios() -> None:
    assert set(PAGE_KINDS) == set(workload.KINDS)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("movable", "ok"), ("anon", "ok"), ("file", "ok"), ("huge", "ok"), ("hugetlb", "ok"), ("hugetlb-free", "ok"),
        ("hugetlb-reserved", "EBUSY"), ("unmovable", "EBUSY"), ("slab", "EBUSY"), ("reclaimable", "EBUSY"),
        ("page-table", "EBUSY"), ("reserved", "EBUSY"), ("poisoned", "ok"), ("offline", "EBUSY"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zone", ["online_kernel", "online_movable"])
def test_what_becomes_of_the_block(kind: str, word: str, zone: str) -> None:
    """16 MiB of each kind; once they are given back the block goes offline."""
    with connect(TODAY) as machine:
        with_block(machine, zone)
        take = Alloc(id="w", size=16 * MIB, kind=kind, block="d1:1")
        if zone == "online_movable" and workload.KINDS[kind].kernel:
            with pytest.raises(UsageError, match="movable memory"):
                words(machine, take)
            return
        assert ["ok", word] == words(machine, take, Offline(block="d1:1"))
        assert ["ok", "EINVAL" if word == "ok" else "ok"] == words(machine, Free(id="w"), Offline(block="d1:1"))
        assert "offline" == machine.block("d1:1").state


@pytest.mark.parametrize("kind", ["movable", "file", "unmovable", "reclaimable", "page-table", "reserved", "poisoned"])
def test_what_becomes_of_a_block_of_v4_9(kind: str) -> None:
    """The same kinds on a kernel without PageOffline and huge pages; a pageblock's type is what counts for the kernel's own."""
    with connect(OLD) as machine:
        with_block(machine, "online_kernel")
        answers = words(machine, Alloc(id="w", size=16 * MIB, kind=kind, block="d1:1"), Offline(block="d1:1"))
        assert ["ok", "ok" if kind in ("movable", "file", "poisoned") else "EBUSY"] == answers
        for missing in ("offline", "hugetlb", "huge", "cma"):
            with pytest.raises(UsageError, match=missing):
                words(machine, Alloc(id="x", size=2 * MIB, kind=missing))


def test_pages_are_where_the_allocator_puts_them() -> None:
    """Movable pages go to ZONE_MOVABLE first, the kernel's own to Normal; both come back."""
    with connect(TODAY) as machine:
        with_block(machine, "online_movable")
        k = machine.backend.kernel  # type: ignore[attr-defined]
        normal, movable = k.zone(0, k.ZONE_NORMAL), k.zone(0, k.ZONE_MOVABLE)
        before = normal.nr_free_pages, movable.nr_free_pages
        assert ["ok", "ok"] == words(
            machine, Alloc(id="a", size=20 * MIB), Alloc(id="b", size=30 * MIB, kind="unmovable"))
        assert (before[0] - 30 * 256, before[1] - 20 * 256) == (normal.nr_free_pages, movable.nr_free_pages)
        assert ["ok", "ok"] == words(machine, Free(id="a"), Free(id="b"))
        assert before == (normal.nr_free_pages, movable.nr_free_pages)


def test_pinned_pages_wait_for_a_signal() -> None:
    """
    In a kernel zone a pin keeps the block: the writer waits for ever, and with it everybody who wants the lock. A signal ends it.
    Pages in ZONE_MOVABLE are moved out before they are pinned.
    """
    take, hold = Alloc(id="w", size=8 * MIB, block="d1:1"), Pin(id="w")
    with connect(TODAY) as machine:
        with_block(machine, "online_kernel")
        assert ["ok", "ok", "EINTR"] == words(machine, take, hold, Offline(block="d1:1", signal=True))
        assert "online" == machine.block("d1:1").state
        assert ["hung", "hung"] == words(machine, Offline(block="d1:1"), Offline(block="d1:0"))
        assert "going-offline" == machine.block("d1:1").state
    with connect(TODAY) as machine:
        with_block(machine, "online_kernel")
        assert ["ok", "ok", "ok", "ok"] == words(machine, take, hold, Free(id="w"), Offline(block="d1:1"))
    with connect(TODAY) as machine:
        with_block(machine, "online_movable")
        assert ["ok", "ok", "ok"] == words(machine, take, hold, Offline(block="d1:1"))
    with connect(OLD) as machine:
        with_block(machine, "online_movable")
        assert ["ok", "ok", "EAGAIN"] == words(machine, take, hold, Offline(block="d1:1"))


def test_a_block_with_failed_pages_stays_offline() -> None:
    """It goes offline, and not online again."""
    with connect(TODAY) as machine:
        with_block(machine, "online_movable")
        steps = [Alloc(id="w", size=MIB, kind="poisoned", block="d1:1"), Offline(block="d1:1"), Online(block="d1:1")]
        assert ["ok", "ok", "EHWPOISON"] == words(machine, *steps)


def test_huge_pages_move_whole_or_in_parts() -> None:
    """If no block of 2 MiB is to be had elsewhere, a huge page is split and its parts move."""
    with connect(TODAY) as machine:
        with_block(machine, "online_movable")
        k = machine.backend.kernel  # type: ignore[attr-defined]
        assert ["ok"] == words(machine, Alloc(id="w", size=4 * MIB, kind="huge", block="d1:1"))
        whole = k.fork()
        block = k.block_rw(machine.block("d1:1").block)
        from memhp.linux.drivers.base import core

        assert 0 == core.device_offline(whole, whole.block_rw(block.dev_id))
        [kind] = {whole.mem_section[low >> whole.PFN_SECTION_SHIFT].memmap.get(KIND, low % whole.PAGES_PER_SECTION)
                  for low, _ in whole.workloads["w"].runs}  # fmt: skip
        assert KIND_HUGE == kind
        assert 1024 == sum(high - low for low, high in whole.workloads["w"].runs)


@pytest.mark.parametrize(
    ("step", "words_of"),
    [
        (Alloc(id="w", size=4096), "already"), (Free(id="x"), "no workload 'x': w"), (Pin(id="x"), "no workload"),
        (Alloc(id="x", size=4097), "come in 4K"), (Alloc(id="x", size=MIB, kind="huge"), "come in 2M"),
        (Alloc(id="x", size=4096, block=26), "offline"), (Alloc(id="x", size=4096, block=99), "no memory99"),
        (Alloc(id="x", size=4096, kind="cma", block=25), "CMA's area"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(step: Step, words_of: str) -> None:
    """Nothing is taken, and the answer says why."""
    with connect(TODAY) as machine:
        with_block(machine, "online_movable")
        assert ["ok"] == words(machine, Alloc(id="w", size=4096))
        before = machine.state()
        with pytest.raises(UsageError, match=words_of):
            words(machine, step)
        assert before == machine.state()


def test_out_of_memory() -> None:
    """All or nothing: what was taken until memory ran out is given back."""
    with connect(TODAY) as machine:
        with_block(machine, "online_movable")
        k = machine.backend.kernel  # type: ignore[attr-defined]
        before = [zone.nr_free_pages for zone in k.nodes[0].node_zones]
        for kind in ("movable", "unmovable", "huge"):
            assert ["ENOMEM"] == words(machine, Alloc(id="w", size=4096 * MIB, kind=kind))
        assert ["ENOMEM"] == words(machine, Alloc(id="w", size=256 * MIB, block="d1:1"))
        assert before == [zone.nr_free_pages for zone in k.nodes[0].node_zones]


def test_cma() -> None:
    """What CMA hands out lies in boot memory, and keeps that from going offline as its empty area does."""
    with connect(TODAY) as machine:
        assert ["ok"] == words(machine, Alloc(id="w", size=8 * MIB, kind="cma"))
        runs = machine.backend.kernel.workloads["w"].runs  # type: ignore[attr-defined]
        block = (runs[0][0] << 12) // machine.block_size
        assert ["EBUSY", "ok", "EBUSY"] == words(machine, Offline(block=block), Free(id="w"), Offline(block=block))
