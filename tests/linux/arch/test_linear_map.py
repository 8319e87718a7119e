# SPDX-License-Identifier: GPL-2.0-only
"""The linear map, against tables filled and emptied entry by entry; what it costs; and the defect that comes of it."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import invariants
from tests.oracles.pgtable import PageTables

from memhp.errors import KernelBugError
from memhp.hardware import platform
from memhp.linux import boot, tree
from memhp.linux.arch.arm64.include import memory
from memhp.linux.arch.arm64.mm import mmu
from memhp.linux.arch.x86.mm import init_64
from memhp.linux.include import io
from memhp.linux.include.memory_hotplug import MMOP_OFFLINE
from memhp.linux.include.pgtable import CONT, LEVEL, PMD, PUD, LinearMap
from memhp.linux.mm import memory_hotplug
from memhp.linux.state import Kernel
from memhp.units import GIB, MIB, TIB

create_pgd_mapping, remove_pgd_mapping = mmu.__create_pgd_mapping, mmu.__remove_pgd_mapping
remove_memory = memory_hotplug.__remove_memory
RODATA_OFF = "rodata=off kfence.sample_interval=100"
"""v6.12 as Debian builds it makes the linear map of pages even with rodata=off, unless KFENCE is there from the start."""


@cache
def booted(arch: str, cmdline: str = "", *, page: int = 4096, release: str = "v6.12", mem: int = GIB) -> Kernel:
    hardware = platform(arch, mem=mem, release=release, page_size=page)
    return boot.boot(tree.find(release), arch, hardware, cmdline=cmdline)


def fresh(arch: str, cmdline: str = "", *, page: int = 4096, release: str = "v6.12", mem: int = GIB) -> Kernel:
    """A machine of its own whose added blocks stay offline."""
    k = booted(arch, cmdline, page=page, release=release, mem=mem).fork()
    k.mhp_default_online_type = MMOP_OFFLINE
    return k


# Against the entry-by-entry tables


@st.composite
def edits(draw: st.DrawFn, shifts: tuple[int, ...], groups: tuple[int, ...], pages: bool) -> list[tuple[bool, int, int]]:
    """(map or unmap, first byte, end): ends at all kinds of boundaries; few pages where every page is an entry."""
    sizes = [1 << shift for shift in sorted({*shifts[:3], *groups})]
    found = []
    for _ in range(draw(st.integers(1, 8))):
        start = sum(size * draw(st.integers(0, 2)) for size in sizes)
        long = [size for size in sizes if not pages or size < 1 << shifts[1]]
        length = sum(size * draw(st.integers(0, 2)) for size in long) or sizes[0]
        found.append((draw(st.booleans()), start, start + length))
    return found


def runs(leaves: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighbouring leaves of one kind as one run."""
    found: list[tuple[int, int, int]] = []
    for start, end, kind in leaves:
        if found and found[-1][1:] == (start, kind):
            found[-1] = (found[-1][0], end, kind)
        else:
            found.append((start, end, kind))
    return found


def same(linear: LinearMap, oracle: PageTables) -> None:
    """The same leaves, and as many tables of each level, where the oracle has them."""
    assert runs([(a, b, level | (CONT if cont else 0)) for a, b, level, cont in oracle.leaves()]) == list(linear.leaves)
    assert oracle.tables() == [table.total() for table in linear.tables]


@pytest.mark.parametrize("blocks", [False, True], ids=["pages", "blocks"])
@pytest.mark.parametrize("page", [4096, 16384])
@settings(max_examples=25)
@given(data=st.data())
def test_arm64_maps_and_unmaps_as_entry_by_entry(page: int, blocks: bool, data: st.DataObject) -> None:
    """Mapping with and without blocks; unmapping any range, whole leaves or not; tables that are left empty are freed."""
    k = booted("arm64", page=page).fork()
    shifts = memory.pgtable_shifts(k)
    cont = (mmu.CONT_PTE_SHIFT(k), mmu.CONT_PMD_SHIFT(k))
    k.linear = LinearMap(shifts, 0, k.token)
    oracle = PageTables(shifts)
    flags = 0 if blocks else mmu.NO_BLOCK_MAPPINGS | mmu.NO_CONT_MAPPINGS
    base = memory.linear_start(k)
    for add, start, end in data.draw(edits(shifts, tuple(shift for shift in cont if shift < 36), not blocks)):
        if not add:
            mmu.unmap_hotplug_range(k, base + start, base + end, False, None)
            oracle.unmap(start, end)
            mmu.free_empty_tables(k, base + start, base + end, base, memory.PAGE_END(k))
            oracle.free_empty(start, end)
        elif not k.linear_rw().leaves.any(start, end):
            create_pgd_mapping(k, start, base + start, end - start, mmu.early_pgtable_alloc, flags)
            oracle.create(start, end, blocks=blocks, cont=cont, puds=page == 4096)
        same(k.linear_rw(), oracle)


@pytest.mark.parametrize("five_levels", [False, True])
@settings(max_examples=40)
@given(data=st.data(), masks=st.lists(st.sampled_from((0, 1 << PMD, 1 << PMD | 1 << PUD)), min_size=8, max_size=8))
def test_x86_maps_and_unmaps_as_entry_by_entry(five_levels: bool, data: st.DataObject, masks: list[int]) -> None:
    """Mapping with pages, 2 MiB and 1 GiB, around what is there; unmapping; with four levels PUD tables stay."""
    k = booted("x86_64", "" if five_levels else "no5lvl").fork()
    shifts = init_64.pgtable_shifts(k)
    assert len(shifts) == (5 if five_levels else 4)
    k.linear = LinearMap(shifts, 0, k.token)
    k.slab_is_available = False
    oracle = PageTables(shifts)
    for (add, start, end), mask in zip(data.draw(edits(shifts, (), False)), masks, strict=False):
        # The boot code's own mapping below 1 GiB is never taken back.
        start, end = start + GIB, end + GIB
        if add:
            level = max((level for level in (PMD, PUD) if mask >> level & 1), default=0)
            if not level and end - start > 4 * MIB:
                end = start + 4 * MIB
            size = 1 << shifts[level]
            low, high = start // size * size, -(-end // size) * size
            init_64.kernel_physical_mapping_init(k, low, high, mask)
            oracle.physical_mapping_init(low, high, mask)
        elif not any(kind == PUD for low, high, kind in k.linear_rw().leaves.within(start, end) if (low | high) % GIB):
            init_64.remove_pagetable(k, start, end, True, None)
            oracle.remove(start, end, keep=3 if five_levels else 2)
        same(k.linear_rw(), oracle)


# What it costs. The figures are those of real kernels: allocations and frees counted below add_memory() and remove_memory().


def free_pages(k: Kernel) -> int:
    return sum(zone.nr_free_pages for pgdat in k.nodes.values() for zone in pgdat.node_zones)


ARM64_PAGES = {128 * MIB: 65, GIB: 513, 2 * GIB: 1026}
ARM64_BLOCKS = {128 * MIB: 1, GIB: 1, 2 * GIB: 1}
X86 = {128 * MIB: 1, GIB: 1, 2 * GIB: 1}


@pytest.mark.parametrize(
    ("arch", "release", "cmdline", "tables"),
    [
        ("arm64", "v6.12", "", ARM64_PAGES), ("arm64", "v6.12", "rodata=off", ARM64_PAGES),
        ("arm64", "v6.12", RODATA_OFF, ARM64_BLOCKS), ("arm64", "v6.1", "", ARM64_PAGES),
        ("arm64", "v6.1", "rodata=off", ARM64_BLOCKS), ("x86_64", "v6.12", "", X86),
    ],
)
def test_what_a_dimm_costs(arch: str, release: str, cmdline: str, tables: dict[int, int]) -> None:
    """
    128 MiB, 1 GiB and 2 GiB, one behind the other: 512 pages of memmap for each block, and tables; all comes back.

    With pages: a table for each 2 MiB and one for each 1 GiB that is begun. With blocks: one for each 1 GiB that is not whole.
    """
    k = fresh(arch, cmdline, release=release)
    position = k.hardware.window
    added = []
    for size, count in tables.items():
        before = free_pages(k)
        memory_hotplug.add_memory(k, 0, position, size)
        assert size // (128 * MIB) * 512 + count == before - free_pages(k)
        assert io.linear_mapped(k, position, size)
        added.append((position, size, before))
        position += size
    for start, size, before in reversed(added):
        remove_memory(k, start, size)
        assert before == free_pages(k)
        assert not list(io.linear_pieces(k, start, size))


def test_direct_map_counters() -> None:
    """2 GiB that begin 128 MiB behind a 1 GiB boundary: 1 GiB in one leaf, the rest with 2 MiB, as on the real kernel."""
    k = fresh("x86_64")
    before = k.arch.arch_report_meminfo(k)
    start = 0x148000000
    memory_hotplug.add_memory(k, 0, start, 2 * GIB)
    grown = [int(new.split()[1]) - int(old.split()[1]) for old, new in zip(
        before.splitlines(), k.arch.arch_report_meminfo(k).splitlines(), strict=True)]
    assert [0, 1 << 20, 1 << 20] == grown
    remove_memory(k, start, 2 * GIB)
    assert before == k.arch.arch_report_meminfo(k)


def test_large_additions_are_few_runs() -> None:
    """1 TiB on a machine of 64 GiB: one run of leaves, and runs of tables that do not grow with the pages."""
    k = fresh("arm64", mem=64 * GIB)
    start = 2 * TIB
    runs_before = len(k.linear_rw().leaves.starts)
    memory_hotplug.add_memory(k, 0, start, TIB)
    linear = k.linear_rw()
    assert len(linear.leaves.starts) <= runs_before + 1
    assert TIB // (2 * MIB) + TIB // GIB <= sum(table.total() for table in linear.tables)
    assert sum(len(table.starts) for table in linear.tables) < 4 * TIB // GIB


def test_no_page_for_a_table() -> None:
    """The tables of 64 GiB do not fit into 256 MiB: nothing is prepared for that, and the kernel dies."""
    k = fresh("arm64", mem=256 * MIB)
    with pytest.raises(KernelBugError, match=r"BUG_ON in arch/arm64/mm/mmu\.c __pgd_pgtable_alloc"):
        memory_hotplug.add_memory(k, 0, k.hardware.window, 128 * GIB)
    assert free_pages(k) < 256 * MIB // k.PAGE_SIZE


def test_a_fork_has_tables_of_its_own() -> None:
    """What one does to the linear map the other does not see."""
    k = fresh("arm64")
    other = k.fork()
    memory_hotplug.add_memory(k, 0, k.hardware.window, GIB)
    assert not io.linear_mapped(other, k.hardware.window)
    third = k.fork()
    remove_memory(third, k.hardware.window, GIB)
    assert io.linear_mapped(k, k.hardware.window, GIB)


# Removing a part of what one leaf maps


def test_removing_one_block_unmaps_a_whole_gibibyte() -> None:
    """
    With rodata=off 2 GiB are two leaves. Removing one block of them clears a leaf, and the seven blocks beside it cannot be
    reached any more, although they are online.

        | [ 1 GiB leaf ====][ 1 GiB leaf ====] |
        | [X-------________][================] |    X removed, _ no longer mapped, - their memory is in use
    """
    k = fresh("arm64", RODATA_OFF)
    start = k.hardware.window
    memory_hotplug.add_memory(k, 0, start, 2 * GIB)
    assert [PUD] == sorted({kind & LEVEL for _, _, kind in k.linear_rw().leaves.within(start, start + 2 * GIB)})
    for block in range(start // (128 * MIB) + 1, (start + 2 * GIB) // (128 * MIB)):
        invariants.online(k, block)
    invariants.check_linear_map(k)
    remove_memory(k, start, 128 * MIB)
    assert [(start + GIB, start + 2 * GIB)] == list(io.linear_pieces(k, start, 2 * GIB))
    with pytest.raises(AssertionError, match=f"online memory at {start + 128 * MIB:#x} cannot be reached"):
        invariants.check_linear_map(k)


def test_removing_one_block_of_pages_unmaps_that_block() -> None:
    """With rodata=full, the default, only what is removed is unmapped."""
    k = fresh("arm64")
    start = k.hardware.window
    memory_hotplug.add_memory(k, 0, start, 2 * GIB)
    for block in range(start // (128 * MIB) + 1, (start + 2 * GIB) // (128 * MIB)):
        invariants.online(k, block)
    remove_memory(k, start, 128 * MIB)
    assert not list(io.linear_pieces(k, start, 128 * MIB))
    assert io.linear_mapped(k, start + 128 * MIB, 15 * 128 * MIB)
    invariants.check_linear_map(k)
