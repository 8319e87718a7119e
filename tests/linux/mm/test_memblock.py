# SPDX-License-Identifier: GPL-2.0-only
"""memblock: each rule with the memory drawn, and random sequences against the byte-at-a-time oracle."""

from __future__ import annotations

import dataclasses
import sys
from errno import ENOMEM
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.linux.bare import bare_kernel
from tests.oracles import memblock as oracle

from memhp.errors import KernelBugError, KernelError, ModelDefectError
from memhp.linux import kconfig, tree
from memhp.linux.include.memblock import (
    MEMBLOCK_ALLOC_ACCESSIBLE,
    MEMBLOCK_HOTPLUG,
    MEMBLOCK_MIRROR,
    MEMBLOCK_NOMAP,
    MEMBLOCK_NONE,
    MemblockType,
)
from memhp.linux.include.numa import MAX_NUMNODES, NUMA_NO_NODE
from memhp.linux.mm import memblock
from memhp.linux.state import Kernel
from memhp.units import GIB, KIB, MIB

NONE = MAX_NUMNODES
TOP = (1 << 64) - 1


@pytest.fixture
def k() -> Kernel:
    """x86_64, where regions have nodes; with memblock_clear_nomap()."""
    return bare_kernel("x86_64", tree=tree.V4_9_RFC)


def regions(type: MemblockType) -> list[tuple[int, int, int, int]]:
    return [(r.base, r.size, r.nid, r.flags) for r in type.regions]


def memory(k: Kernel) -> list[tuple[int, int, int, int]]:
    """base, size, node, flags of each region; the total is checked on the way."""
    assert sum(r.size for r in k.memblock.memory.regions) == k.memblock.memory.total_size
    return regions(k.memblock.memory)


# Adding


def test_add_into_nothing(k: Kernel) -> None:
    """
    The first region is what was asked for, without node and flags.

        |        [==== r1 ====]       |
    """
    memblock.memblock_add(k, 1 * GIB, 4 * MIB)
    assert memory(k) == [(1 * GIB, 4 * MIB, NONE, MEMBLOCK_NONE)]


def test_add_node_keeps_the_node(k: Kernel) -> None:
    """
    memblock_add_node() notes whose memory it is.

        |        [==== r1, node 3 ====]       |
    """
    memblock.memblock_add_node(k, 1 * GIB, 4 * MIB, 3)
    assert memory(k) == [(1 * GIB, 4 * MIB, 3, MEMBLOCK_NONE)]


@pytest.mark.parametrize("swapped", [False, True])
def test_add_apart(k: Kernel, swapped: bool) -> None:
    """
    Two that do not touch stay two, sorted, whichever comes first.

        |  [== r1 ==]      [== r2 ==]  |
    """
    for base in (3 * GIB, 1 * GIB) if swapped else (1 * GIB, 3 * GIB):
        memblock.memblock_add(k, base, 1 * MIB)
    assert memory(k) == [(1 * GIB, 1 * MIB, NONE, 0), (3 * GIB, 1 * MIB, NONE, 0)]


def test_add_overlapping_from_below(k: Kernel) -> None:
    """
    Adding r2 across the start of r1 leaves one region from r2.base to r1.end.

        |    [ r2 ====]            |
        |        [==== r1 ====]    |
    """
    memblock.memblock_add(k, 512 * MIB, 1 * GIB)
    memblock.memblock_add(k, 128 * MIB, 512 * MIB)
    assert memory(k) == [(128 * MIB, 512 * MIB + 1 * GIB - 128 * MIB, NONE, 0)]


def test_add_overlapping_from_above(k: Kernel) -> None:
    """
    Adding r2 across the end of r1 leaves one region from r1.base to r2.end.

        |    [==== r1 ====]        |
        |            [ r2 =====]   |
    """
    memblock.memblock_add(k, 128 * MIB, 512 * MIB)
    memblock.memblock_add(k, 256 * MIB, 1 * GIB)
    assert memory(k) == [(128 * MIB, 1 * GIB + 128 * MIB, NONE, 0)]


def test_add_inside(k: Kernel) -> None:
    """
    Adding what is there already changes nothing.

        |    [======= r1 =======]    |
        |         [ r2 ]             |
    """
    memblock.memblock_add(k, 8 * MIB, 32 * MIB)
    memblock.memblock_add(k, 16 * MIB, 1 * MIB)
    memblock.memblock_add(k, 8 * MIB, 32 * MIB)
    assert memory(k) == [(8 * MIB, 32 * MIB, NONE, 0)]


def test_add_touching_merges(k: Kernel) -> None:
    """
    Neighbours that touch are one region.

        |    [ r1 ][ r2 ][ r3 ]    |      r3 first, then r1, then r2
    """
    for base in (2, 0, 1):
        memblock.memblock_add(k, base * MIB, 1 * MIB)
    assert memory(k) == [(0, 3 * MIB, NONE, 0)]


def test_add_touching_of_another_node_does_not_merge(k: Kernel) -> None:
    """
    Neighbours that touch and belong to different nodes stay apart.

        |    [ r1, node 0 ][ r2, node 1 ]    |
    """
    memblock.memblock_add_node(k, 0, 1 * MIB, 0)
    memblock.memblock_add_node(k, 1 * MIB, 1 * MIB, 1)
    assert memory(k) == [(0, 1 * MIB, 0, 0), (1 * MIB, 1 * MIB, 1, 0)]


def test_without_numa_arm64_forgets_nodes() -> None:
    """
    Without nodes boot memory and what is hot-added to node 0 are one region, as the recorded arm64 kernel shows.

        |    [ boot ][ hot-added ]    |
    """
    k = bare_kernel("arm64")
    memblock.memblock_add(k, 0x40000000, 0x40000000)
    memblock.memblock_add_node(k, 0x80000000, 0x40000000, 0)
    assert memblock.memblock_debug_show(k, k.memblock.memory) == "   0: 0x0000000040000000..0x00000000bfffffff\n"


def test_add_over_many_fills_the_gaps(k: Kernel) -> None:
    """
    Adding across others fills the gaps between them; what was there keeps its node and flags, with a warning for each.

        |   [ a, node 0 ]    [ b, NOMAP ]      |
        | [================ c, node 0 =======] |
    """
    memblock.memblock_add_node(k, 2 * MIB, 1 * MIB, 0)
    memblock.memblock_add_node(k, 4 * MIB, 1 * MIB, 0)
    memblock.memblock_mark_nomap(k, 4 * MIB, 1 * MIB)
    memblock.memblock_add_node(k, 1 * MIB, 6 * MIB, 0)
    expected = [(1 * MIB, 3 * MIB, 0, 0), (4 * MIB, 1 * MIB, 0, MEMBLOCK_NOMAP), (5 * MIB, 2 * MIB, 0, 0)]
    assert memory(k) == expected
    # once when the regions are counted, once when they are inserted
    assert k.log.lines == ["WARNING: at mm/memblock.c memblock_add_range()"] * 2


def test_add_from_the_same_start_on_another_node(k: Kernel) -> None:
    """
    What is there keeps its node, the rest gets the new one; nothing is inserted below, so nothing is warned of.

        | [ r1, node 0 ]             |
        | [ r2, node 1 =========]    |
    """
    memblock.memblock_add_node(k, 1 * MIB, 1 * MIB, 0)
    memblock.memblock_add_node(k, 1 * MIB, 3 * MIB, 1)
    assert memory(k) == [(1 * MIB, 1 * MIB, 0, 0), (2 * MIB, 2 * MIB, 1, 0)]
    assert k.log.lines == []


def test_nodes_that_are_not_kept_are_not_compared() -> None:
    """
    Without NUMA a hot-add across boot memory that was added without a node is no reason to warn.

        |   [ boot ]   [ boot ]   |
        | [===== hot-added =====] |
    """
    k = bare_kernel("arm64")
    memblock.memblock_add(k, 2 * MIB, 1 * MIB)
    memblock.memblock_add(k, 4 * MIB, 1 * MIB)
    memblock.memblock_add_node(k, 1 * MIB, 6 * MIB, 0)
    assert memory(k) == [(1 * MIB, 6 * MIB, 0, 0)]
    assert k.log.lines == []


def test_add_nothing(k: Kernel) -> None:
    """
    Zero bytes are no region.

        |    ]    |
    """
    memblock.memblock_add(k, 1 * GIB, 0)
    assert memory(k) == []


def test_add_at_the_top_of_the_address_space(k: Kernel) -> None:
    """
    A range that would run over the end of 64 bits is cut; the very last byte is never inside.

        |            [ r1 =====|=====]
    """
    memblock.memblock_add(k, TOP - 4095, 1 * GIB)
    memblock.memblock_add(k, TOP, 1)
    assert memory(k) == [(TOP - 4095, 4095, NONE, 0)]
    assert not memblock.memblock_is_memory(k, TOP)
    assert memblock.memblock_is_memory(k, TOP - 1)


def scatter(k: Kernel, n: int) -> None:
    for i in range(n):
        memblock.memblock_add(k, 1 * GIB + i * MIB, 4 * KIB)


def test_the_129th_region(k: Kernel) -> None:
    """
    The array has room for 128; before it may be resized the next one is -ENOMEM, and nothing changes.

        | [1] [2] … [128] + [129] |
    """
    scatter(k, 128)
    before = memory(k)
    with pytest.raises(KernelError) as refused:
        memblock.memblock_add(k, 0, 4 * KIB)
    assert (refused.value.errno, refused.value.where) == (ENOMEM, "memblock_add_range")
    assert memory(k) == before
    assert k.memblock.memory.max == 128


def test_a_full_array_takes_what_merges_only_after_a_free_place(k: Kernel) -> None:
    """
    C counts what it must insert before it merges, so even a range that merges with its neighbour needs a free place.

        | [1] [2] … [128][ + ] |
    """
    scatter(k, 128)
    with pytest.raises(KernelError):
        memblock.memblock_add(k, 1 * GIB + 127 * MIB + 4 * KIB, 4 * KIB)
    assert len(memory(k)) == 128


def test_double_array_from_slab(k: Kernel) -> None:
    """Once slab works the array doubles by kmalloc(), and nothing is reserved for it."""
    memblock.memblock_allow_resize(k)
    k.slab_is_available = True
    scatter(k, 300)
    assert len(memory(k)) == 300
    assert k.memblock.memory.max == 512
    assert k.memblock.memory.in_slab
    assert regions(k.memblock.reserved) == []


def test_double_array_in_early_boot(k: Kernel) -> None:
    """
    Before slab the new array lies at the top of free memory, reserved; the next one takes its place below and frees it.

        | [ RAM ===============[ 512 ][ 256 ]] |      32 bytes a region
    """
    memblock.memblock_allow_resize(k)
    memblock.memblock_add(k, 1 * GIB, 512 * MIB)
    for i in range(128):
        memblock.memblock_add(k, 16 * KIB + i * 8 * KIB, 4 * KIB)
    top = 1 * GIB + 512 * MIB
    assert k.memblock.memory.max == 256
    assert regions(k.memblock.reserved) == [(top - 8 * KIB, 8 * KIB, NONE, 0)]
    for i in range(128, 256):
        memblock.memblock_add(k, 16 * KIB + i * 8 * KIB, 4 * KIB)
    assert k.memblock.memory.max == 512
    assert regions(k.memblock.reserved) == [(top - 24 * KIB, 16 * KIB, NONE, 0)]


def test_double_reserved_array_keeps_clear_of_what_is_being_reserved(k: Kernel) -> None:
    """
    The array of reserved regions does not grow into the range that is about to be reserved.

        | [ RAM === [ array ][ about to be reserved ]] |
    """
    memblock.memblock_allow_resize(k)
    memblock.memblock_add(k, 1 * GIB, 64 * MIB)
    for i in range(128):
        memblock.memblock_reserve(k, 1 * GIB + i * 8 * KIB, 4 * KIB)
    wanted = 1 * GIB + 48 * MIB
    memblock.memblock_reserve(k, wanted, 16 * MIB)
    assert k.memblock.reserved.max == 256
    assert regions(k.memblock.reserved)[-1] == (wanted - 8 * KIB, 16 * MIB + 8 * KIB, NONE, 0)


def test_double_array_without_room(k: Kernel) -> None:
    """With all memory reserved there is no place for a larger array: a message, and -ENOMEM."""
    memblock.memblock_allow_resize(k)
    scatter(k, 128)
    memblock.memblock_reserve(k, 0, 8 * GIB)
    with pytest.raises(KernelError) as refused:
        memblock.memblock_add(k, 0, 4 * KIB)
    assert refused.value.errno == ENOMEM
    assert k.log.lines == ["memblock: Failed to double memory array from 128 to 256 entries !"]


# Removing


def test_remove_the_middle(k: Kernel) -> None:
    """
    Removing the middle leaves both ends.

        |    [======= r1 =======]    |
        |         [ out ]            |
    """
    memblock.memblock_add_node(k, 0, 8 * MIB, 1)
    memblock.memblock_remove(k, 2 * MIB, 1 * MIB)
    assert memory(k) == [(0, 2 * MIB, 1, 0), (3 * MIB, 5 * MIB, 1, 0)]


def test_remove_across_several(k: Kernel) -> None:
    """
    Removing across regions cuts the first and the last and drops those between.

        | [ r1 ==]  [ r2 ]  [== r3 ] |
        |     [==== out =====]       |
    """
    for base in (0, 4, 8):
        memblock.memblock_add(k, base * MIB, 2 * MIB)
    memblock.memblock_remove(k, 1 * MIB, 8 * MIB)
    assert memory(k) == [(0, 1 * MIB, NONE, 0), (9 * MIB, 1 * MIB, NONE, 0)]


def test_remove_everything_and_what_is_not_there(k: Kernel) -> None:
    """
    Removing more than there is leaves nothing; removing from nothing is no error.

        |    [== r1 ==]    |
        | [===== out ====] |
    """
    memblock.memblock_add(k, 1 * MIB, 1 * MIB)
    memblock.memblock_remove(k, 0, 8 * MIB)
    assert memory(k) == []
    memblock.memblock_remove(k, 0, 8 * MIB)
    assert memory(k) == []
    assert k.log.lines == []


def test_remove_what_touches_only(k: Kernel) -> None:
    """
    Ranges are half open: removing up to a region's start or from its end leaves it alone.

        | [ out ][== r1 ==][ out ] |
    """
    memblock.memblock_add(k, 2 * MIB, 2 * MIB)
    memblock.memblock_remove(k, 0, 2 * MIB)
    memblock.memblock_remove(k, 4 * MIB, 2 * MIB)
    assert memory(k) == [(2 * MIB, 2 * MIB, NONE, 0)]


# Flags and nodes


def test_mark_and_clear_nomap(k: Kernel) -> None:
    """
    Marking a part splits the region at both ends; clearing it makes one region again.

        |    [== r1 ==[ NOMAP ]=====]    |
    """
    memblock.memblock_add_node(k, 0, 8 * MIB, 0)
    memblock.memblock_mark_nomap(k, 2 * MIB, 1 * MIB)
    assert memory(k) == [(0, 2 * MIB, 0, 0), (2 * MIB, 1 * MIB, 0, MEMBLOCK_NOMAP), (3 * MIB, 5 * MIB, 0, 0)]
    memblock.memblock_clear_nomap(k, 2 * MIB, 1 * MIB)
    assert memory(k) == [(0, 8 * MIB, 0, 0)]


def test_flags_add_up(k: Kernel) -> None:
    """
    Flags are set and cleared one by one, over gaps too.

        |  [ r1 ]    [ r2 ]  |
        | [=== HOTPLUG ====] |
        |     [== MIRROR ==] |
    """
    memblock.memblock_add(k, 1 * MIB, 2 * MIB)
    memblock.memblock_add(k, 4 * MIB, 1 * MIB)
    memblock.memblock_mark_hotplug(k, 0, 8 * MIB)
    memblock.memblock_mark_mirror(k, 2 * MIB, 8 * MIB)
    both = MEMBLOCK_HOTPLUG | MEMBLOCK_MIRROR
    assert memory(k) == [
        (1 * MIB, 1 * MIB, NONE, MEMBLOCK_HOTPLUG), (2 * MIB, 1 * MIB, NONE, both), (4 * MIB, 1 * MIB, NONE, both)]
    memblock.memblock_clear_hotplug(k, 0, TOP)
    assert memory(k) == [
        (1 * MIB, 1 * MIB, NONE, 0), (2 * MIB, 1 * MIB, NONE, MEMBLOCK_MIRROR), (4 * MIB, 1 * MIB, NONE, MEMBLOCK_MIRROR)]


def test_mark_without_room(k: Kernel) -> None:
    """Isolating may need two more regions; with one free place it is -ENOMEM, although one would do."""
    scatter(k, 127)
    with pytest.raises(KernelError) as refused:
        memblock.memblock_mark_nomap(k, 1 * GIB, 4 * KIB)
    assert (refused.value.errno, refused.value.where) == (ENOMEM, "memblock_isolate_range")


def test_mark_with_just_enough_room(k: Kernel) -> None:
    """With two free places a region may be split at both ends, which fills the array to the last place."""
    scatter(k, 126)
    memblock.memblock_mark_nomap(k, 1 * GIB + 1 * KIB, 1 * KIB)
    assert len(memory(k)) == 128


def test_clear_nomap_came_with_the_series() -> None:
    """Plain v4.9 has no memblock_clear_nomap(): calling it there is a mistake of the model."""
    k = bare_kernel(tree=tree.V4_9)
    with pytest.raises(ModelDefectError, match=r"v4\.9 has no memblock_clear_nomap"):
        memblock.memblock_clear_nomap(k, 0, 1 * MIB)


def test_set_node(k: Kernel) -> None:
    """
    Boot adds memory without nodes and then says whose it is.

        | [======== none ========] |
        | [ node 0 ==][== node 1 ] |
    """
    memblock.memblock_add(k, 0, 8 * MIB)
    memblock.memblock_set_node(k, 0, 4 * MIB, k.memblock.memory, 0)
    memblock.memblock_set_node(k, 4 * MIB, TOP, k.memblock.memory, 1)
    assert memory(k) == [(0, 4 * MIB, 0, 0), (4 * MIB, 4 * MIB, 1, 0)]
    memblock.memblock_set_node(k, 0, TOP, k.memblock.memory, 1)
    assert memory(k) == [(0, 8 * MIB, 1, 0)]


def test_a_fork_keeps_its_own(k: Kernel) -> None:
    """What one of two forked kernels adds, reserves or marks the other does not see."""
    memblock.memblock_add(k, 0, 8 * MIB)
    other = k.fork()
    memblock.memblock_set_node(other, 0, 4 * MIB, other.memblock.memory, 1)
    memblock.memblock_mark_nomap(k, 0, 1 * MIB)
    memblock.memblock_reserve(k, 0, 1 * MIB)
    assert memory(k) == [(0, 1 * MIB, NONE, MEMBLOCK_NOMAP), (1 * MIB, 7 * MIB, NONE, 0)]
    assert memory(other) == [(0, 4 * MIB, 1, 0), (4 * MIB, 4 * MIB, NONE, 0)]
    assert regions(other.memblock.reserved) == []


# Questions


def test_questions_about_addresses(k: Kernel) -> None:
    """
    Memory, mapped memory and reserved memory at, before and after each edge.

        0    1          2         3    4 MiB
        |    [== map ===][ NOMAP ]     |
        |           [ reserved ]       |
    """
    memblock.memblock_add_node(k, 1 * MIB, 2 * MIB, 5)
    memblock.memblock_mark_nomap(k, 2 * MIB, 1 * MIB)
    memblock.memblock_reserve(k, 1 * MIB + 512 * KIB, 1 * MIB)
    at = [1 * MIB - 1, 1 * MIB, 2 * MIB - 1, 2 * MIB, 3 * MIB - 1, 3 * MIB]
    assert [memblock.memblock_is_memory(k, a) for a in at] == [False, True, True, True, True, False]
    assert [memblock.memblock_is_map_memory(k, a) for a in at] == [False, True, True, False, False, False]
    assert [memblock.memblock_is_reserved(k, a) for a in at] == [False, False, True, True, False, False]
    assert memblock.memblock_is_region_memory(k, 1 * MIB, 1 * MIB)
    assert not memblock.memblock_is_region_memory(k, 1 * MIB, 2 * MIB), "two regions contain it, no single one does"
    assert not memblock.memblock_is_region_reserved(k, 0, 1 * MIB + 512 * KIB)
    assert memblock.memblock_is_region_reserved(k, 0, 1 * MIB + 512 * KIB + 1)
    assert memblock.memblock_search_pfn_nid(k, 0x100) == (5, 0x100, 0x200)
    assert memblock.memblock_search_pfn_nid(k, 0x300) is None
    assert (memblock.memblock_start_of_DRAM(k), memblock.memblock_end_of_DRAM(k)) == (1 * MIB, 3 * MIB)
    assert (memblock.memblock_phys_mem_size(k), memblock.memblock_reserved_size(k)) == (2 * MIB, 1 * MIB)


def test_no_memory_at_all(k: Kernel) -> None:
    """An empty memblock has no address and no size; its file shows the dummy region that C keeps."""
    assert (memblock.memblock_start_of_DRAM(k), memblock.memblock_end_of_DRAM(k)) == (0, 0)
    assert not memblock.memblock_is_memory(k, 0)
    assert list(memblock.for_each_mem_pfn_range(k)) == []
    assert memblock.memblock_debug_show(k, k.memblock.memory) == "   0: 0x0000000000000000..0xffffffffffffffff\n"


def test_pfn_ranges_hold_whole_pages(k: Kernel) -> None:
    """
    Pages that memory covers in part do not count; a region without a whole page is passed over.

        page |  1  |  2  |  3  |  4  |
             |   [========]  []  [===|==]
    """
    memblock.memblock_add_node(k, 0x1800, 0x1800, 0)
    memblock.memblock_add_node(k, 0x3400, 0x100, 0)
    memblock.memblock_add_node(k, 0x4800, 0x1000, 0)
    memblock.memblock_add_node(k, 0x8000, 0x2000, 1)
    assert list(memblock.for_each_mem_pfn_range(k)) == [(2, 3, 0), (8, 10, 1)]
    assert list(memblock.for_each_mem_pfn_range(k, 1)) == [(8, 10, 1)]


def test_ingredients_see_the_shifted_pfn() -> None:
    """
    A pfn whose upper bits are set looks like the one without them: v4.9's arm64 pfn_valid() takes it for RAM.

        pfn 0x40000 and 0x0010'0000'0004'0000 have the same 64-bit address
    """
    k = bare_kernel("arm64")
    memblock.memblock_add(k, 1 * GIB, 1 * GIB)
    memblock.memblock_mark_nomap(k, 1 * GIB, 4 * KIB)
    bogus = 1 << 52
    pfns = [0x3FFFF, 0x40000, 0x40001, 0x7FFFF, 0x80000]
    for upper in (0, bogus):
        assert [memblock.MB.test(k, upper | pfn) for pfn in pfns] == [False, True, True, True, False]
        assert [memblock.MAP.test(k, upper | pfn) for pfn in pfns] == [False, False, True, True, False]
        assert memblock.MAP.cuts is not None
        assert memblock.MAP.cuts(k, upper, upper | 0x100000) == [upper | 0x40000, upper | 0x40001, upper | 0x80000]


def test_memory_limit(k: Kernel) -> None:
    """
    mem= keeps the lowest bytes of memory, not the lowest addresses, and cuts what is reserved above.

        | [ 2M ]    [ 2M |  2M ] |      limit 4M
        |      [ reserved =====] |
    """
    memblock.memblock_add(k, 0, 2 * MIB)
    memblock.memblock_add(k, 8 * MIB, 4 * MIB)
    memblock.memblock_reserve(k, 4 * MIB, 8 * MIB)
    memblock.memblock_enforce_memory_limit(k, 16 * MIB)
    assert len(memory(k)) == 2
    memblock.memblock_enforce_memory_limit(k, 4 * MIB)
    assert memory(k) == [(0, 2 * MIB, NONE, 0), (8 * MIB, 2 * MIB, NONE, 0)]
    assert regions(k.memblock.reserved) == [(4 * MIB, 6 * MIB, NONE, 0)]


def test_memory_limit_keeps_nomap(k: Kernel) -> None:
    """
    arm64's mem= leaves NOMAP memory above the limit; one that crosses it stays cut in two until something merges.

        | [ map ===][ NOMAP | NOMAP ][ map ] |
    """
    memblock.memblock_add(k, 0, 8 * MIB)
    memblock.memblock_mark_nomap(k, 4 * MIB, 2 * MIB)
    memblock.memblock_mem_limit_remove_map(k, 5 * MIB)
    nomap = MEMBLOCK_NOMAP
    assert memory(k) == [(0, 4 * MIB, NONE, 0), (4 * MIB, 1 * MIB, NONE, nomap), (5 * MIB, 1 * MIB, NONE, nomap)]
    memblock.memblock_add(k, 1 * GIB, 1 * MIB)
    assert memory(k) == [(0, 4 * MIB, NONE, 0), (4 * MIB, 2 * MIB, NONE, nomap), (1 * GIB, 1 * MIB, NONE, 0)]


def test_trim_memory(k: Kernel) -> None:
    """
    Trimming rounds regions inwards and drops those that hold no aligned piece; the total stays as it was, as in C.

        page |     |     |     |     |
             |   [=========]  []     |
    """
    memblock.memblock_add(k, 0x1800, 0x2800)
    memblock.memblock_add(k, 0x5100, 0x100)
    memblock.memblock_trim_memory(k, 0x1000)
    assert regions(k.memblock.memory) == [(0x2000, 0x2000, NONE, 0)]
    assert k.memblock.memory.total_size == 0x2800


# Allocation


def test_early_allocation_comes_from_the_top(k: Kernel) -> None:
    """
    Early boot takes the highest free place, aligned, and reserves it.

        | [ RAM ============[ 2 ][ 1 ]] |
    """
    memblock.memblock_add(k, 64 * MIB, 64 * MIB)
    assert memblock.memblock_alloc(k, 4 * KIB, 4 * KIB) == 128 * MIB - 4 * KIB
    assert memblock.memblock_virt_alloc(k, 100, 0) == 128 * MIB - 4 * KIB - 128, "64-byte cache lines"
    assert memblock.memblock_alloc(k, 4 * KIB, 2 * MIB) == 126 * MIB
    assert regions(k.memblock.reserved) == [
        (126 * MIB, 4 * KIB, NONE, 0),
        (128 * MIB - 4 * KIB - 128, 100, NONE, 0),
        (128 * MIB - 4 * KIB, 4 * KIB, NONE, 0),
    ]


def test_early_allocation_stays_below_the_limit_and_out_of_nomap(k: Kernel) -> None:
    """
    The current limit, NOMAP memory and what is reserved are kept out of.

        | [ RAM =====[ here ][ reserved ][ NOMAP ] limit ===] |
    """
    memblock.memblock_add(k, 64 * MIB, 64 * MIB)
    memblock.memblock_set_current_limit(k, 120 * MIB)
    memblock.memblock_mark_nomap(k, 119 * MIB, 1 * MIB)
    memblock.memblock_reserve(k, 118 * MIB, 1 * MIB)
    assert memblock.memblock_alloc(k, 1 * MIB, 1 * MIB) == 117 * MIB


def test_virt_alloc_gives_up_node_and_lower_limit(k: Kernel) -> None:
    """
    Memory of the node is preferred; then any node does, then an address below the limit.

        | [ node 0 ] … 16 MiB … [ node 1 ] |
    """
    memblock.memblock_add_node(k, 8 * MIB, 1 * MIB, 0)
    memblock.memblock_add_node(k, 32 * MIB, 1 * MIB, 1)
    assert memblock.memblock_virt_alloc_node(k, 512 * KIB, 1) == 33 * MIB - 512 * KIB
    assert memblock.memblock_virt_alloc_node(k, 512 * KIB, 0) == 32 * MIB, "above 16 MiB first, whatever the node"
    assert memblock.memblock_virt_alloc_node(k, 512 * KIB, 1) == 9 * MIB - 512 * KIB
    assert memblock.memblock_virt_alloc_node_nopanic(k, 1 * MIB, 1) == 0
    with pytest.raises(KernelBugError, match="Failed to allocate 1048576 bytes"):
        memblock.memblock_virt_alloc_node(k, 1 * MIB, 1)
    assert k.log.lines[-1].startswith("Kernel panic - not syncing: memblock_virt_alloc_try_nid: Failed to allocate 1048576 bytes")


def test_virt_alloc_prefers_the_node(k: Kernel) -> None:
    """
    Memory of the node wins over higher memory of another one.

        | [ node 0: here ]    [ node 1 ] |
    """
    memblock.memblock_add_node(k, 24 * MIB, 1 * MIB, 0)
    memblock.memblock_add_node(k, 32 * MIB, 1 * MIB, 1)
    assert memblock.memblock_virt_alloc_node(k, 4 * KIB, 0) == 25 * MIB - 4 * KIB
    assert memblock.memblock_alloc_try_nid(k, 4 * KIB, 0, 0) == 25 * MIB - 8 * KIB
    assert memblock.memblock_alloc_try_nid(k, 1 * MIB, 0, 0) == 32 * MIB
    memblock.memblock_free_early(k, 32 * MIB, 1 * MIB)
    assert memblock.memblock_virt_alloc_node(k, 4 * KIB, MAX_NUMNODES) == 33 * MIB - 4 * KIB
    assert k.log.lines[0] == "Usage of MAX_NUMNODES is deprecated. Use NUMA_NO_NODE instead"
    assert k.log.lines[1:] == ["WARNING: at mm/memblock.c memblock_virt_alloc_internal()"]


def test_arm64_aligns_to_longer_cache_lines() -> None:
    """
    arm64's cache lines have 128 bytes, and its lower limit is the start of RAM.

        | [ RAM at 64 KiB ======[ 60 bytes ]  ] |
    """
    k = bare_kernel("arm64")
    memblock.memblock_add(k, 64 * KIB, 1 * MIB)
    assert memblock.memblock_virt_alloc(k, 60, 0) == 64 * KIB + 1 * MIB - 128
    assert memblock.BOOTMEM_LOW_LIMIT(k) == 64 * KIB


def test_allocating_with_a_full_array(k: Kernel) -> None:
    """memblock_alloc_range() gives up if it cannot reserve; memblock_virt_alloc() does not look."""
    memblock.memblock_add(k, 64 * MIB, 64 * MIB)
    for i in range(128):
        memblock.memblock_reserve(k, 64 * MIB + i * 8 * KIB, 4 * KIB)
    assert memblock.memblock_alloc_range(k, 4 * KIB, 0, 0, MEMBLOCK_ALLOC_ACCESSIBLE, MEMBLOCK_NONE) == 0
    assert memblock.memblock_virt_alloc(k, 4 * KIB, 0) == 128 * MIB - 4 * KIB
    assert not memblock.memblock_is_reserved(k, 128 * MIB - 4 * KIB)
    with pytest.raises(KernelBugError, match=r"Failed to allocate 0x1000 bytes below 0x0\."):
        memblock.memblock_alloc(k, 4 * KIB, 0)


def test_mirrored_memory_first(k: Kernel) -> None:
    """
    With mirrored memory early boot takes that, and the rest only when it is used up.

        | [ mirrored ]        [ plain ] |
    """
    memblock.memblock_add(k, 32 * MIB, 1 * MIB)
    memblock.memblock_add(k, 64 * MIB, 1 * MIB)
    memblock.memblock_mark_mirror(k, 32 * MIB, 1 * MIB)
    assert memblock.memblock_virt_alloc(k, 1 * MIB, 0) == 32 * MIB
    assert memblock.memblock_virt_alloc(k, 1 * MIB, 0) == 64 * MIB
    assert k.log.lines == ["Could not allocate 0x0000000000100000 bytes of mirrored memory"]


def test_bottom_up_starts_above_the_kernel() -> None:
    """
    Under movable_node allocation goes upwards from the kernel image, and tells when it must turn round.

        | [ RAM ==[ kernel ][ 1 ][ 2 ]====] |
    """
    k = bare_kernel("x86_64", config=dataclasses.replace(kconfig.X86_64, MOVABLE_NODE=True))
    kernel_end = 0x1779000
    memblock.memblock_add(k, 1 * MIB, 63 * MIB)
    memblock.memblock_reserve(k, 0x1000000, kernel_end - 0x1000000)
    memblock.memblock_set_bottom_up(k, True)
    assert memblock.memblock_alloc(k, 4 * KIB, 4 * KIB) == kernel_end
    assert memblock.memblock_alloc(k, 4 * KIB, 4 * KIB) == kernel_end + 4 * KIB
    memblock.memblock_reserve(k, kernel_end, 64 * MIB)
    assert memblock.memblock_alloc(k, 4 * KIB, 4 * KIB) == 0x1000000 - 4 * KIB
    assert k.log.lines[-2] == "memblock: bottom-up allocation failed, memory hotunplug may be affected"
    assert k.log.lines[-1] == "WARNING: at mm/memblock.c memblock_find_in_range_node()"


def test_hotpluggable_memory_is_spared_under_movable_node() -> None:
    """
    Under movable_node early boot does not allocate from HOTPLUG memory; without it the flag means nothing.

        | [ RAM ===[ here ]][ HOTPLUG ] |
    """
    k = bare_kernel("x86_64", config=dataclasses.replace(kconfig.X86_64, MOVABLE_NODE=True))
    memblock.memblock_add(k, 1 * MIB, 63 * MIB)
    memblock.memblock_mark_hotplug(k, 32 * MIB, 32 * MIB)
    assert memblock.memblock_find_in_range(k, 0, MEMBLOCK_ALLOC_ACCESSIBLE, 1 * MIB, 1 * MIB) == 63 * MIB
    k.movable_node_enabled = True
    assert memblock.memblock_find_in_range(k, 0, MEMBLOCK_ALLOC_ACCESSIBLE, 1 * MIB, 1 * MIB) == 31 * MIB


# What people see


RESERVED = """\
   0: 0x0000000040080000..0x000000004041ffff
   1: 0x0000000048000000..0x00000000481cbfff
   2: 0x0000000048200000..0x00000000482fffff
   3: 0x000000007ec00000..0x000000007fbfffff
   4: 0x000000007fdea000..0x000000007fdebfff
   5: 0x000000007fdec200..0x000000007fdec27f
   6: 0x000000007fe4fd80..0x000000007ffd7ddf
   7: 0x000000007ffd7e00..0x000000007ffd7f07
   8: 0x000000007ffd7f80..0x000000007ffd7f83
   9: 0x000000007ffd8000..0x000000007ffea007
  10: 0x000000007ffea080..0x000000007ffea087
"""


def test_debugfs_text() -> None:
    """The text is the recorded arm64 kernel's, byte for byte."""
    k = bare_kernel("arm64")
    for line in RESERVED.splitlines():
        first, _, last = line.partition(": ")[2].partition("..")
        memblock.memblock_reserve(k, int(first, 16), int(last, 16) + 1 - int(first, 16))
    assert memblock.memblock_debug_show(k, k.memblock.reserved) == RESERVED


def test_dump_all(k: Kernel) -> None:
    """memblock=debug prints both arrays, in the log's own columns; an array never used shows a dummy of node 0."""
    memblock.memblock_add_node(k, 0x1000, 0x9E000, 0)
    memblock.memblock_dump_all(k)
    assert k.log.lines == []
    k.cmdline = {"memblock": "debug"}
    memblock.memblock_dump_all(k)
    assert k.log.lines == [
        "MEMBLOCK configuration:",
        " memory size = 0x9e000 reserved size = 0x0",
        " memory.cnt  = 0x1",
        " memory[0x0]\t[0x00000000001000-0x0000000009efff], 0x9e000 bytes on node 0 flags: 0x0",
        " reserved.cnt  = 0x1",
        " reserved[0x0]\t[0x00000000000000-0xffffffffffffffff], 0x0 bytes on node 0 flags: 0x0",
    ]


# v4.9 beside later trees: one test for each difference, read in its mm/memblock.c


@pytest.fixture
def today() -> Kernel:
    """The same architecture on v6.12."""
    return bare_kernel("x86_64", tree=tree.V6_12)


def test_both_passes_warn_of_other_nodes(k: Kernel, today: Kernel) -> None:
    """
    v4.9 counts the gaps first and fills them then, and each pass warns; later trees fill at once where there is plenty of room.

        |        [ r1, node 1 ]        |
        |   [======= r2, node 0 =======]   |
    """
    for kernel, warnings in ((k, 2), (today, 1)):
        memblock.memblock_add_node(kernel, 2 * MIB, 1 * MIB, 1)
        memblock.memblock_add_node(kernel, 1 * MIB, 4 * MIB, 0)
        assert kernel.log.lines == ["WARNING: at mm/memblock.c memblock_add_range()"] * warnings


def test_a_region_took_32_bytes(k: Kernel, today: Kernel) -> None:
    """
    Flags were a long: 256 regions with nodes take two pages, as they do with an int; 512 take four, today three.

        |   [ r0    [512][256] ]   [r1] [r2] ...   |
    """
    for kernel, size in ((k, 16 * KIB), (today, 12 * KIB)):
        memblock.memblock_allow_resize(kernel)
        memblock.memblock_add(kernel, 1 * GIB, 1 * GIB)
        for i in range(257):
            memblock.memblock_reserve(kernel, 4 * GIB + i * 2 * MIB, 1 * MIB)
        assert kernel.memblock.reserved.max == 512
        assert [(r.base, r.size) for r in kernel.memblock.reserved.regions if r.base < 4 * GIB] == [
            (2 * GIB - 8 * KIB - size, size)]


def test_an_empty_array_counted_one(k: Kernel, today: Kernel) -> None:
    """Walks and texts of v4.9 show the dummy of an empty array: from byte 0 to the last, "bytes" of which there are none."""
    assert list(memblock.for_each_reserved_mem_region(k)) == [(0, TOP)]
    assert memblock.memblock_debug_show(k, k.memblock.reserved) == "   0: 0x0000000000000000..0xffffffffffffffff\n"
    assert memblock.memblock_debug_show(today, today.memblock.reserved) == ""
    assert list(memblock.for_each_free_mem_range(k)) == []


def test_reservations_had_a_node_to_be_asked_for(k: Kernel, today: Kernel) -> None:
    """A walk over reserved regions heeded the node; today it takes all."""
    for kernel, seen in ((k, []), (today, [(1 * MIB, 2 * MIB, NONE)])):
        memblock.memblock_reserve(kernel, 1 * MIB, 1 * MIB)
        assert seen == list(memblock.for_each_mem_range(kernel, kernel.memblock.reserved, None, 0, MEMBLOCK_NONE))


def test_bottom_up_once_needed_a_config_symbol(k: Kernel, today: Kernel) -> None:
    """Without CONFIG_MOVABLE_NODE v4.9 cannot allocate upwards; today it can, from the second page on."""
    for kernel, place in ((k, 1 * MIB - 4 * KIB), (today, 4 * KIB)):
        memblock.memblock_add(kernel, 0, 1 * MIB)
        memblock.memblock_set_bottom_up(kernel, True)
        assert place == memblock.memblock_alloc(kernel, 4 * KIB, 4 * KIB)


def test_mirrors_were_always_noted(k: Kernel, today: Kernel) -> None:
    """memblock_mark_mirror() once needed no kernelcore=mirror."""
    for kernel, flags in ((k, [MEMBLOCK_MIRROR]), (today, [MEMBLOCK_NONE])):
        memblock.memblock_add(kernel, 1 * MIB, 1 * MIB)
        memblock.memblock_mark_mirror(kernel, 1 * MIB, 1 * MIB)
        assert flags == [r.flags for r in kernel.memblock.memory.regions]


def test_overlaps_at_the_top(k: Kernel, today: Kernel) -> None:
    """
    A range past the top wrapped around and so overlapped nothing; today it is cut.

        |                 [== r1 ==|
        |                     [ r2 |===]
    """
    for kernel, overlaps in ((k, False), (today, True)):
        memblock.memblock_add(kernel, TOP - 2 * MIB, 2 * MIB)
        assert overlaps == memblock.memblock_overlaps_region(kernel, kernel.memblock.memory, TOP - 1 * MIB, 2 * MIB)


def test_arrays_are_given_back_last(k: Kernel, today: Kernel) -> None:
    """
    Where memblock is not kept, a placed array goes to the page allocator at the end; the built-in one stays.

        |   [ memory       [array] ]   [r1] ... [r129]   |
    """
    for kernel in (k, today):
        freed: list[tuple[int, int]] = []
        memblock.memblock_allow_resize(kernel)
        memblock.memblock_add(kernel, 1 * MIB, 1 * MIB)
        for i in range(129):
            memblock.memblock_reserve(kernel, 1 * GIB + i * 2 * MIB, 1 * MIB)
        assert memblock.get_allocated_memblock_reserved_regions_info(kernel) == (2 * MIB - 8 * KIB, 8 * KIB)
        assert memblock.get_allocated_memblock_memory_regions_info(kernel) == (0, 0)
        memblock.memblock_discard(kernel, lambda _, start, end, freed=freed: freed.append((start, end)))
        assert freed == [(0x1FE, 0x200)]
        assert kernel.totalram_pages == 2


def test_what_v4_9_does_not_have(k: Kernel) -> None:
    """Asking an old tree for a later function is our own mistake, not the kernel's answer."""
    for call in (
        lambda: memblock.memblock_cap_memory_range(k, 0, 1 * MIB), lambda: memblock.memblock_reserved_mark_noinit(k, 0, 1 * MIB),
        lambda: memblock.memblock_add_node(k, 0, 1 * MIB, 0, MEMBLOCK_HOTPLUG),
    ):
        with pytest.raises(ModelDefectError):
            call()


def calls(function: Any, *arguments: Any) -> list[str]:
    """Run `function` and return the C functions of memblock.c it went through, indented as nested."""
    found: list[str] = []
    depth = 0

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal depth
        name = frame.f_code.co_name
        if frame.f_code.co_filename == memblock.__file__ and name.startswith("memblock_") and name != "memblock_cap_size":
            if event == "call":
                found.append("  " * depth + name)
                depth += 1
            elif event == "return":
                depth -= 1

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return found


def test_order_of_calls_as_recorded() -> None:
    """Adding, marking and clearing call each other as in the function_graph trace of the recorded arm64 kernel."""
    k = bare_kernel("arm64", tree=tree.V4_9_RFC)
    memblock.memblock_add(k, 0x40000000, 0x40000000)
    assert calls(memblock.memblock_add_node, k, 0x80000000, 0x40000000, 0) == [
        "memblock_add_node",
        "  memblock_add_range",
        "    memblock_insert_region",
        "    memblock_merge_regions",
    ]
    assert calls(memblock.memblock_mark_nomap, k, 0x80000000, 0x40000000) == [
        "memblock_mark_nomap",
        "  memblock_setclr_flag",
        "    memblock_isolate_range",
        "      memblock_insert_region",
        "    memblock_merge_regions",
    ]
    assert calls(memblock.memblock_clear_nomap, k, 0x80000000, 0x40000000) == [
        "memblock_clear_nomap",
        "  memblock_setclr_flag",         # the compiler had put this one into its caller
        "    memblock_isolate_range",
        "    memblock_merge_regions",
    ]
    assert memory(k) == [(0x40000000, 0x80000000, 0, 0)]


# Against the oracle

ORIGINS = st.sampled_from([0, 0x10000, TOP - 40])
FLAGS = st.sampled_from([MEMBLOCK_HOTPLUG, MEMBLOCK_MIRROR, MEMBLOCK_NOMAP])
OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["remove", "reserve", "free"]), st.none()),
    st.tuples(st.sampled_from(["mark", "clear"]), FLAGS),
    st.tuples(st.just("set_node"), st.integers(0, 2)),
)
STEPS = st.lists(st.tuples(OPERATIONS, st.integers(0, 24), st.integers(0, 12)), max_size=40)


def perform(k: Kernel, slow: oracle.Memblock, verb: str, what: int | None, base: int, size: int) -> None:
    """Do the same to both."""
    if verb == "add":
        assert what is not None
        memblock.memblock_add_node(k, base, size, what)
        slow.add(base, size, what)
    elif verb == "set_node":
        assert what is not None
        memblock.memblock_set_node(k, base, size, k.memblock.memory, what)
        slow.set_node(base, size, what)
    elif verb in ("mark", "clear"):
        assert what is not None
        memblock.memblock_setclr_flag(k, k.memblock.memory, base, size, verb == "mark", what)
        getattr(slow, verb)(base, size, what)
    else:
        getattr(memblock, f"memblock_{verb}")(k, base, size)
        getattr(slow, verb)(base, size)


@given(ORIGINS, STEPS)
def test_random_sequences(origin: int, steps: list[tuple[tuple[str, int | None], int, int]]) -> None:
    """Any sequence of additions, removals, reservations, marks and nodes leaves what the oracle has, after each step."""
    k = bare_kernel("x86_64")
    slow = oracle.Memblock(no_node=NONE)
    for (verb, what), offset, size in steps:
        base = min(origin + offset, TOP)
        perform(k, slow, verb, what, base, size)
        assert slow.regions() == memory(k)
        assert slow.reserved() == regions(k.memblock.reserved)
        assert len(slow.taken) == k.memblock.reserved.total_size
    for a in range(origin, min(origin + 80, TOP + 1)):
        nid_flags = slow.memory.get(a)
        assert (nid_flags is not None) == memblock.memblock_is_memory(k, a)
        assert (nid_flags is not None and not nid_flags[1] & MEMBLOCK_NOMAP) == memblock.memblock_is_map_memory(k, a)
        assert (a in slow.taken) == memblock.memblock_is_reserved(k, a)
        for size in (1, 5):
            inside = set(range(a, min(a + size, TOP)))
            assert bool(inside & slow.taken) == memblock.memblock_is_region_reserved(k, a, size)


@given(STEPS, st.integers(1, 9), st.sampled_from([1, 2, 4, 8]), st.integers(0, 40), st.integers(0, 60))
def test_random_free_ranges(
    steps: list[tuple[tuple[str, int | None], int, int]], size: int, align: int, low: int, high: int,
) -> None:
    """Walking free memory, up or down, sees what the oracle sees; a search from the top finds the highest place."""
    k = bare_kernel("x86_64")
    slow = oracle.Memblock(no_node=NONE)
    origin = 0x10000
    for (verb, what), offset, length in steps:
        perform(k, slow, verb, what, origin + offset, length)
    for flags, unwanted in ((MEMBLOCK_NONE, MEMBLOCK_NOMAP), (MEMBLOCK_NOMAP, 0)):
        expected = [(base, base + length, nid) for base, length, nid, _ in slow.unreserved(unwanted=unwanted)]
        assert expected == list(memblock.for_each_free_mem_range(k, NUMA_NO_NODE, flags))
        assert expected[::-1] == list(memblock.for_each_free_mem_range_reverse(k, NUMA_NO_NODE, flags))
        for nid in range(3):
            assert [r for r in expected if r[2] == nid] == list(memblock.for_each_free_mem_range(k, nid, flags))
    start, end = origin + low, origin + low + high
    expected_place = slow.highest(size, align, start, end, unwanted=MEMBLOCK_NOMAP)
    assert expected_place == memblock.memblock_find_in_range(k, start, end, size, align)


RANGES = st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 20_000), st.booleans()), max_size=6)


@given(RANGES, st.sampled_from([0, 1 << 52]))
def test_cuts_leave_nothing_out(ranges: list[tuple[int, int, bool]], upper: int) -> None:
    """Between two cuts every pfn has the same answer, for memory that begins and ends inside pages too."""
    k = bare_kernel("arm64")
    for base, size, nomap in ranges:
        memblock.memblock_add(k, base, size)
        if nomap:
            memblock.memblock_mark_nomap(k, base, size)
    start, end = upper, upper + 24
    for ingredient in (memblock.MB, memblock.MAP):
        assert ingredient.cuts is not None
        cuts = ingredient.cuts(k, start, end)
        changes = [p for p in range(start + 1, end) if ingredient.test(k, p) != ingredient.test(k, p - 1)]
        assert set(changes) <= set(cuts)
        assert all(start < p < end for p in cuts)
        assert cuts == sorted(set(cuts))
