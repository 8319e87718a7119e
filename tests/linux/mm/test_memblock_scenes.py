# SPDX-License-Identifier: GPL-2.0-only
"""
memblock, one scene at a time: what it does with a range, drawn.

Each scene runs on the model's memblock of v6.1 and v6.12 and, where it can be built (make memblock-oracle), on the C original:
what a scene claims is not our opinion. docs/read/memblock.md is made from this file.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.oracles import memblock_c
from tests.oracles.memblock_c.model import Model
from tests.oracles.memblock_c.scene import ANYWHERE, MIRROR, NO_NODE, NOWHERE, TOP, Died, G, K, M, Scene

LINE = 64
"""SMP_CACHE_BYTES."""
RAM, END = 1 * M, 1 * M + 32 * K
"""The memory of scenes about allocation."""
DIRECTION = pytest.mark.parametrize("up", [False, True], ids=["top-down", "bottom-up"])
ANY_ALLOC = pytest.mark.parametrize("alloc", ["alloc", "alloc_raw"])
ANY_NID = pytest.mark.parametrize("alloc", ["alloc_try_nid", "alloc_try_nid_raw", "alloc_exact_nid_raw"])
TRY_NID = pytest.mark.parametrize("alloc", ["alloc_try_nid", "alloc_try_nid_raw"])
EITHER = pytest.mark.parametrize(("verb", "array"), [("add", "memory"), ("reserve", "reserved")])
UNDO = pytest.mark.parametrize(
    ("verb", "undo", "array"), [("add", "remove", "memory"), ("reserve", "phys_free", "reserved")], ids=["remove", "free"])

V6_12 = pytest.mark.parametrize("m", ["model v6.12", "C 6.12"], indirect=True)
"""What v6.1 does not have."""

_originals: dict[str, memblock_c.Original] = {}


@pytest.fixture(scope="module", autouse=True)
def _end_originals() -> Iterator[None]:
    yield
    while _originals:
        _originals.popitem()[1].__exit__()


@pytest.fixture(params=["model v6.1", "model v6.12", "C 6.1", "C 6.12"])
def m(request: pytest.FixtureRequest) -> Scene:
    """An empty memblock."""
    what, release = request.param.split()
    if what == "model":
        return Scene(Model(release[1:]))
    if release not in _originals:
        try:
            _originals[release] = memblock_c.Original(release)
        except memblock_c.Unavailable as err:
            pytest.skip(f"{err} (make memblock-oracle)")
    return Scene(_originals[release])


def call(m: Scene, verb: str, *arguments: int) -> int:
    """Call by name."""
    result: int = getattr(m, verb)(*arguments)
    return result


# Adding and reserving


def test_nothing(m: Scene) -> None:
    """At birth both arrays are empty, have room for 128 regions, and allocation may go anywhere, from the top."""
    assert m.memory == m.reserved == []
    assert m.room("memory") == m.room("reserved") == 128
    assert m.get_current_limit() == TOP
    assert not m.bottom_up()


@EITHER
def test_one(m: Scene, verb: str, array: str) -> None:
    """
    A first range is a region as it was given.

        |      [== r1 ==]      |
    """
    assert call(m, verb, 1 * G, 4 * M) == 0
    assert m.array(array) == [(1 * G, 4 * M, "")]


def test_one_of_a_node(m: Scene) -> None:
    """
    With its node, and with flags if the adder has some.

        |      [== r1, node 1, HOTPLUG ==]      |
    """
    assert m.add_node(1 * M, 16 * M, 1, 0x1) == 0
    assert m.memory == [(1 * M, 16 * M, "n1 HOTPLUG")]


@EITHER
def test_two_apart(m: Scene, verb: str, array: str) -> None:
    """
    Two that do not touch stay two, sorted, whichever comes first.

        |   [ r2 ]        [ r1 ]   |
    """
    call(m, verb, 1 * G, 8 * K)
    call(m, verb, 1 * M, 8 * K)
    assert m.array(array) == [(1 * M, 8 * K, ""), (1 * G, 8 * K, "")]


@EITHER
def test_across_the_start(m: Scene, verb: str, array: str) -> None:
    """
    A range across the start of another grows it downwards.

        |    [ r2 ====]            |
        |        [==== r1 ====]    |
    """
    call(m, verb, 512 * M, 1 * G)
    call(m, verb, 128 * M, 512 * M)
    assert m.array(array) == [(128 * M, 1408 * M, "")]


@EITHER
def test_across_the_end(m: Scene, verb: str, array: str) -> None:
    """
    A range across the end of another grows it upwards.

        |    [==== r1 ====]        |
        |            [ r2 =====]   |
    """
    call(m, verb, 128 * M, 512 * M)
    call(m, verb, 256 * M, 1 * G)
    assert m.array(array) == [(128 * M, 1152 * M, "")]


@EITHER
def test_inside(m: Scene, verb: str, array: str) -> None:
    """
    A range inside another changes nothing.

        |    [======= r1 =======]    |
        |         [ r2 ]             |
    """
    call(m, verb, 8 * M, 32 * M)
    call(m, verb, 16 * M, 1 * M)
    assert m.array(array) == [(8 * M, 32 * M, "")]


@EITHER
def test_twice(m: Scene, verb: str, array: str) -> None:
    """
    Nor does the same range again.

        |    [== r1 == r2 ==]    |
    """
    for _ in range(2):
        assert call(m, verb, 16 * K, 2 * M) == 0
    assert m.array(array) == [(16 * K, 2 * M, "")]


@EITHER
def test_into_the_gap(m: Scene, verb: str, array: str) -> None:
    """
    What fills the gap between two makes them one.

        |    [ r1 ][ r3 ][ r2 ]    |
    """
    call(m, verb, 1 * G, 8 * K)
    call(m, verb, 1 * G + 16 * K, 8 * K)
    call(m, verb, 1 * G + 8 * K, 8 * K)
    assert m.array(array) == [(1 * G, 24 * K, "")]


@EITHER
def test_over_several(m: Scene, verb: str, array: str) -> None:
    """
    A range over several fills every gap.

        |      [ r1 ]    [ r2 ]      |
        |   [======== r3 ========]   |
    """
    call(m, verb, 2 * M, 1 * M)
    call(m, verb, 5 * M, 1 * M)
    call(m, verb, 1 * M, 7 * M)
    assert m.array(array) == [(1 * M, 7 * M, "")]


@EITHER
def test_up_to_the_top(m: Scene, verb: str, array: str) -> None:
    """
    A range that would pass the top of the address space is cut; the last byte is never inside.

        |                 [== r1 ==|==]
    """
    call(m, verb, TOP - 1 * M, 2 * M)
    assert m.array(array) == [(TOP - 1 * M, 1 * M, "")]


@EITHER
def test_nothing_at_all(m: Scene, verb: str, array: str) -> None:
    """A range of no bytes is no range, and no error."""
    assert call(m, verb, 1 * M, 0) == 0
    assert m.array(array) == []


def test_over_other_nodes_and_flags(m: Scene) -> None:
    """
    What is there keeps its node and flags; the gaps get the new ones, and each gap that has others beside it is warned of.

        |      [ r1: node 1 ]      |
        |   [===== r2: node 0 =====]   |
    """
    m.add_node(2 * M, 1 * M, 1, 0x4)
    m.add_node(1 * M, 4 * M, 0, 0)
    assert m.log == ["WARNING: at mm/memblock.c memblock_add_range()"] * 2
    assert m.memory == [(1 * M, 1 * M, "n0"), (2 * M, 1 * M, "n1 NOMAP"), (3 * M, 2 * M, "n0")]


@pytest.mark.parametrize(("count", "warnings"), [(63, 1), (64, 2)])
def test_once_or_twice(m: Scene, count: int, warnings: int) -> None:
    """
    An array less than half full is filled at once; else the gaps are counted first, and each pass warns.

        |   [r1] [r2] ... [r64: node 1]   |
        |   [============ r65 =========]  |
    """
    for i in range(count - 1):
        m.add(i * 2 * M, 1 * M)
    m.add_node(1 * G + 2 * M, 1 * M, 1, 0)
    m.add(1 * G, 4 * M)
    assert m.log == ["WARNING: at mm/memblock.c memblock_add_range()"] * warnings


# Arrays that grow


def many(m: Scene, verb: str, skip: int = -1, count: int = 129, start: int = 1 * G) -> None:
    """Regions of 32K, 32K apart; one left out."""
    for i in range(count):
        if i != skip:
            call(m, verb, start + i * 64 * K, 32 * K)


@pytest.mark.parametrize("skip", [0, 1, 64, 127, 128])
def test_the_129th_reservation(m: Scene, skip: int) -> None:
    """
    The 129th reservation, wherever it lies, doubles the array. The new one lies at the top of memory, and is itself reserved.

        |   [ memory [array]]         [r1] [r2] ... [r129]   |
    """
    m.allow_resize()
    m.add(1 * M, 32 * K)
    many(m, "reserve", skip)
    assert (len(m.reserved), m.room("reserved")) == (128, 128)
    m.reserve(1 * G + skip * 64 * K, 32 * K)
    assert (len(m.reserved), m.room("reserved")) == (130, 256)
    assert m.reserved[0] == (END - 8 * K, 8 * K, "")      # 256 regions of 24 bytes, in whole pages
    m.reserve(16 * K, 16 * K)
    assert (len(m.reserved), m.room("reserved")) == (131, 256)
    assert m.reserved[0] == (16 * K, 16 * K, "")


@pytest.mark.parametrize("skip", [0, 1, 64, 127])
def test_the_129th_memory(m: Scene, skip: int) -> None:
    """
    The same for memory; the array then lies in the highest memory there was before.

        |   [r1] [r2] ... [r128 [array]]     [r129]   |
    """
    m.allow_resize()
    many(m, "add", skip)
    assert (len(m.memory), m.room("memory"), m.reserved) == (128, 128, [])
    m.add(1 * G + skip * 64 * K, 32 * K)
    assert (len(m.memory), m.room("memory")) == (129, 256)
    assert m.reserved == [(1 * G + 128 * 64 * K + 24 * K, 8 * K, "")]


@pytest.mark.parametrize("skip", [1, 64, 129])
def test_the_array_keeps_clear_of_what_is_being_reserved(m: Scene, skip: int) -> None:
    """
    The array of reservations does not move into the very range whose reservation made it grow.

        |   [ memory 0 ]   [r1]   [ memory = r_n ]   ...   [r129]   |
        |      [array]                                              |
    """
    m.allow_resize()
    m.add(1 * M, 32 * K)
    m.add(1 * M + skip * 64 * K, 32 * K)
    for i in range(1, 130):
        if i != skip:
            m.reserve(1 * M + i * 64 * K, 32 * K)
    m.reserve(1 * M + skip * 64 * K, 32 * K)
    assert m.reserved[0] == (1 * M + 24 * K, 8 * K, "")
    assert len(m.reserved) == 130


def test_the_old_array_is_given_back(m: Scene) -> None:
    """
    An array that memblock itself placed is freed when it doubles again.

        |   [ memory [256][ 512 ]]   |    128 -> 256 -> 512
    """
    m.allow_resize()
    m.add(1 * M, 64 * K)
    many(m, "reserve", count=300)
    assert m.room("reserved") == 512
    assert [r for r in m.reserved if r[0] < 1 * G] == [(1 * M + 44 * K, 12 * K, "")]


def test_too_early_to_grow(m: Scene) -> None:
    """Before memblock_allow_resize() the 129th region is -ENOMEM in v6.1, a panic in v6.12."""
    for i in range(128):
        m.add(i * 2 * M, 1 * M)
    if m.release == "6.1":
        assert m.add(1 * G, 1 * M) == TOP + 1 - 12
        assert len(m.memory) == 128
    else:
        with pytest.raises(Died, match="Kernel panic - not syncing: memblock: cannot resize memory array"):
            m.add(1 * G, 1 * M)


def test_no_room_to_grow(m: Scene) -> None:
    """All memory being reserved, the array has nowhere to go: -ENOMEM, and a line in the log."""
    m.allow_resize()
    m.add(1 * M, 4 * M)
    m.reserve(1 * M, 4 * M)
    many(m, "reserve", count=127)
    assert m.reserve(2 * G, 4 * K) == TOP + 1 - 12
    assert m.log == ["memblock: Failed to double reserved array from 128 to 256 entries !"]
    assert len(m.reserved) == 128


def test_an_array_from_slab(m: Scene) -> None:
    """Once slab works, arrays come from there and nothing is reserved for them."""
    m.allow_resize()
    m.set_slab(1)
    many(m, "add")
    assert m.room("memory") == 256
    assert m.reserved == []


# Removing and freeing


@UNDO
def test_take_one_away(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    Taking a region away leaves the others.

        |   [ r1 ]      [ r2 ]   |     r1 goes
    """
    call(m, verb, 2 * K, 4 * K)
    call(m, verb, 128 * M, 4 * M)
    assert call(m, undo, 2 * K, 4 * K) == 0
    assert m.array(array) == [(128 * M, 4 * M, "")]


@UNDO
def test_take_away_what_is_not_there(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    Taking away what is not there is no error.

        |   [ r1 ]             |
        |            [ r2 ]    |
    """
    call(m, verb, 512 * K, 4 * M)
    assert call(m, undo, 64 * M, 1 * G) == 0
    assert m.array(array) == [(512 * K, 4 * M, "")]


@UNDO
def test_take_the_lower_part(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    A range across the start cuts the lower part off.

        |      [==== r1 ====]   |
        |   [ r2 ===]           |
    """
    call(m, verb, 32 * M, 32 * M)
    call(m, undo, 16 * M, 32 * M)
    assert m.array(array) == [(48 * M, 16 * M, "")]


@UNDO
def test_take_the_upper_part(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    A range across the end cuts the upper part off.

        |   [==== r1 ====]      |
        |           [=== r2 ]   |
    """
    call(m, verb, 2 * M, 64 * M)
    call(m, undo, 32 * M, 256 * M)
    assert m.array(array) == [(2 * M, 30 * M, "")]


@UNDO
def test_take_the_middle(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    A range inside leaves two.

        |   [====== r1 ======]   |
        |        [ r2 ]          |
    """
    call(m, verb, 1 * M, 4 * M)
    call(m, undo, 2 * M, 1 * M)
    assert m.array(array) == [(1 * M, 1 * M, ""), (3 * M, 2 * M, "")]


@UNDO
def test_take_the_only_one(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    Without its only region the array is empty. (In v6.1 C then keeps a dummy of size 0, as its debugfs shows.)

        |   [== r1 ==]   |
    """
    call(m, verb, 2 * K, 4 * K)
    call(m, undo, 2 * K, 4 * K)
    assert m.array(array) == []
    m.debug_show(int(array == "reserved"))
    dummy = "   0: 0x0000000000000000..0xffffffffffffffff\n"
    assert m.last.log == (dummy if m.release == "6.1" else "")


@UNDO
def test_take_the_top(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    At the top of the address space, too, sizes are cut.

        |            [== r1 ==|
        |                [ r2 =|==]
    """
    call(m, verb, TOP - 2 * M, 2 * M)
    call(m, undo, TOP - 1 * M, 2 * M)
    assert m.array(array) == [(TOP - 2 * M, 1 * M, "")]


@UNDO
def test_take_from_two(m: Scene, verb: str, undo: str, array: str) -> None:
    """
    A range across two regions cuts both.

        |   [== r1 ==]    [== r2 ==]   |
        |         [=== r3 ===]         |
    """
    call(m, verb, 16 * M, 32 * M)
    call(m, verb, 64 * M, 64 * M)
    call(m, undo, 32 * M, 64 * M)
    assert m.array(array) == [(16 * M, 16 * M, ""), (96 * M, 32 * M, "")]


def test_free_a_pointer(m: Scene) -> None:
    """memblock_free() takes a pointer; NULL is nothing."""
    m.reserve(0, 8 * K)
    m.free(0, 4 * K)
    assert m.reserved == [(0, 8 * K, "")]
    m.free(4 * K, 4 * K)
    assert m.reserved == [(0, 4 * K, "")]


# Flags and nodes


@pytest.mark.parametrize(
    ("mark", "clear", "name"), [("mark_nomap", "clear_nomap", "NOMAP"), ("mark_hotplug", "clear_hotplug", "HOTPLUG")])
def test_mark_and_clear_the_middle(m: Scene, mark: str, clear: str, name: str) -> None:
    """
    A mark in the middle of a region splits it in three; clearing makes it one again.

        |   [=====][ NOMAP ][=====]   |
    """
    m.add_node(1 * G, 1 * G, 0, 0)
    call(m, clear, 1 * G, 1 * G)
    assert m.memory == [(1 * G, 1 * G, "n0")]
    call(m, mark, 1280 * M, 512 * M)
    assert m.memory == [(1 * G, 256 * M, "n0"), (1280 * M, 512 * M, f"n0 {name}"), (1792 * M, 256 * M, "n0")]
    call(m, clear, 1 * G, 1 * G)
    assert m.memory == [(1 * G, 1 * G, "n0")]


def test_marks_over_holes(m: Scene) -> None:
    """
    A mark touches memory only, never what lies between.

        |   [ r1 ]     [ r2 ]   |
        |     [= NOMAP ==]      |
    """
    m.add(1 * M, 2 * M)
    m.add(8 * M, 2 * M)
    m.mark_nomap(2 * M, 7 * M)
    assert m.memory == [(1 * M, 1 * M, ""), (2 * M, 1 * M, "NOMAP"), (8 * M, 1 * M, "NOMAP"), (9 * M, 1 * M, "")]


def test_mirrored_only_when_asked_for(m: Scene) -> None:
    """memblock_mark_mirror() does nothing unless the command line says kernelcore=mirror."""
    m.add(1 * M, 2 * M)
    assert m.mark_mirror(1 * M, 1 * M) == 0
    assert m.memory == [(1 * M, 2 * M, "")]
    m.reset(2)
    m.add(1 * M, 2 * M)
    m.mark_mirror(1 * M, 1 * M)
    assert m.memory == [(1 * M, 1 * M, "MIRROR"), (2 * M, 1 * M, "")]


def test_set_node(m: Scene) -> None:
    """
    Nodes are told later, as firmware tables are read; neighbours of one node merge.

        |   [======= no node =======]   |
        |   [= node 0 =][= node 1 =]    |
    """
    m.add(1 * G, 2 * G)
    m.set_node(1 * G, 1 * G, 0, 0)
    m.set_node(2 * G, 1 * G, 0, 1)
    assert m.memory == [(1 * G, 1 * G, "n0"), (2 * G, 1 * G, "n1")]
    m.set_node(2 * G, 1 * G, 0, 0)
    assert m.memory == [(1 * G, 2 * G, "n0")]


@V6_12
def test_struct_pages_left_alone(m: Scene) -> None:
    """
    v6.12 can mark reservations whose struct pages nobody shall initialise.

        |   [ r1 ][ RSRV_NOINIT ][ r1 ]   |
    """
    m.reserve(1 * G, 4 * M)
    m.reserved_mark_noinit(1 * G + 1 * M, 1 * M)
    assert m.reserved == [(1 * G, 1 * M, ""), (1 * G + 1 * M, 1 * M, "RSRV_NOINIT"), (1 * G + 2 * M, 2 * M, "")]


# Less memory


def test_trim_what_is_aligned(m: Scene) -> None:
    """
    Trimming rounds every region inwards; what is aligned stays.

        |   [== r1 ==]   |
    """
    m.add(1 * M, 64 * K)
    m.trim_memory(4 * K)
    assert m.memory == [(1 * M, 64 * K, "")]


def test_trim_the_too_small(m: Scene) -> None:
    """
    A region without one whole unit goes.

        |   [=== r1 ===]    [r2]   |
    """
    m.add(1 * M, 64 * K)
    m.add(2 * M + 1 * K, 2 * K)
    m.trim_memory(4 * K)
    assert m.memory == [(1 * M, 64 * K, "")]


def test_trim_ends(m: Scene) -> None:
    """
    Start and end are rounded inwards; the total is not told.

        |   .[== r1 ==].   |
    """
    m.add(1 * M + 1 * K, 11 * K)
    m.add(2 * M, 9 * K)
    m.trim_memory(4 * K)
    assert m.memory == [(1 * M + 4 * K, 8 * K, ""), (2 * M, 8 * K, "")]
    assert m.phys_mem_size() == 20 * K


def test_memory_limit(m: Scene) -> None:
    """
    mem= keeps the lowest so many bytes; what is above goes, reservations too.

        |   [ r1 ]   [ r2 |----]  [----]   |
    """
    m.add(1 * M, 2 * M)
    m.add(4 * M, 4 * M)
    m.reserve(7 * M, 1 * M)
    m.enforce_memory_limit(3 * M)
    assert m.memory == [(1 * M, 2 * M, ""), (4 * M, 1 * M, "")]
    assert m.reserved == []


def test_cap_memory_range(m: Scene) -> None:
    """
    Capping keeps a window; NOMAP memory outside stays, for its owner needs it found.

        |   [ r1 | NOMAP ]  [==|== r2 ==|==]  [NOMAP]   |
    """
    m.add(1 * M, 2 * M)
    m.mark_nomap(2 * M, 1 * M)
    m.add(4 * M, 6 * M)
    m.add(12 * M, 1 * M)
    m.mark_nomap(12 * M, 1 * M)
    m.reserve(4 * M, 8 * M)
    m.cap_memory_range(5 * M, 4 * M)
    assert m.memory == [(2 * M, 1 * M, "NOMAP"), (5 * M, 4 * M, ""), (12 * M, 1 * M, "NOMAP")]
    assert m.reserved == [(5 * M, 4 * M, "")]


def test_cap_before_there_is_memory(m: Scene) -> None:
    """Capping nothing is a mistake that the log tells of."""
    m.cap_memory_range(1 * M, 1 * M)
    assert m.log == ["memblock_cap_memory_range: No memory registered yet"]


def test_a_cut_through_nomap(m: Scene) -> None:
    """
    memblock_mem_limit_remove_map() leaves NOMAP memory whole in bytes, but split where the limit is.

        |   [== r1 ==][ NOM|AP ]   |
    """
    m.add(1 * M, 4 * M)
    m.mark_nomap(3 * M, 2 * M)
    m.mem_limit_remove_map(3 * M)
    assert m.memory == [(1 * M, 2 * M, ""), (3 * M, 1 * M, "NOMAP"), (4 * M, 1 * M, "NOMAP")]
    m.add(64 * M, 1 * M)      # v6.1 merges the whole array at the next change, v6.12 only near it
    assert len(m.memory) == (3 if m.release == "6.1" else 4)


# Questions


def test_overlaps(m: Scene) -> None:
    """
    Touching is not overlapping.

        |            [==== r1 ====]            |
        |   [  no  ]                [  no  ]   |
        |        [  yes  ]  [yes]  [  yes  ]   |
    """
    m.add(1 * G, 4 * M)
    for base, size, overlap in (
        (1 * M, 1 * M, 0), (2 * G, 1 * M, 0), (1 * G - 1 * M, 1 * M, 0), (1 * G + 4 * M, 1 * M, 0), (1 * G - 1 * M, 2 * M, 1),
        (1 * G + 2 * M, 2 * M, 1), (1 * G, 4 * M, 1), (1 * G - 2 * M, 8 * M, 1), (1 * G + 1 * M, 1 * M, 1),
    ):
        assert m.overlaps_region(base, size, 0) == overlap


def test_is_it_memory(m: Scene) -> None:
    """
    NOMAP memory is memory, but not to be mapped; this is what arm64's pfn_valid() asked.

        |   [== r1 ==][== NOMAP ==]   |
    """
    m.add(1 * M, 1 * M)
    m.add(2 * M, 1 * M)
    m.mark_nomap(2 * M, 1 * M)
    m.reserve(1 * M + 512 * K, 1 * M)
    for address, memory, mapped, reserved in (
        (1 * M - 1, 0, 0, 0), (1 * M, 1, 1, 0), (2 * M - 1, 1, 1, 1), (2 * M, 1, 0, 1), (3 * M - 1, 1, 0, 0), (3 * M, 0, 0, 0),
    ):
        assert (m.is_memory(address), m.is_map_memory(address), m.is_reserved(address)) == (memory, mapped, reserved)
    assert m.is_region_memory(1 * M, 1 * M) and not m.is_region_memory(1 * M, 1 * M + 1)
    assert m.is_region_reserved(1 * M, 512 * K + 1) and not m.is_region_reserved(1 * M, 512 * K)
    assert (m.start_of_dram(), m.end_of_dram(), m.phys_mem_size(), m.reserved_size()) == (1 * M, 3 * M, 2 * M, 1 * M)


def test_whose_pfn(m: Scene) -> None:
    """A pfn is looked up with its node and the region's pfns."""
    m.add_node(1 * M, 1 * M, 3, 0)
    assert m.search_pfn_nid(0x110) == (3, 0x100, 0x200)
    assert m.search_pfn_nid(0x200) == (TOP, 0, 0)


# Walks


def test_walks(m: Scene) -> None:
    """
    Free memory is memory minus what is reserved; NOMAP and DRIVER_MANAGED memory is passed over unless asked for.

        |   [== r1, node 0 ==][ NOMAP ]   [== r2, node 1 ==][ DRIVER_MANAGED ]   |
        |        [ res ]                  [ res ]                                |
    """
    m.add_node(1 * M, 4 * M, 0, 0)
    m.mark_nomap(4 * M, 1 * M)
    m.add_node(8 * M, 2 * M, 1, 0)
    m.add_node(10 * M, 1 * M, 1, 0x8)
    m.reserve(2 * M, 1 * M)
    m.reserve(8 * M, 1 * M)
    free = ((1 * M, 2 * M, 0), (3 * M, 4 * M, 0), (9 * M, 10 * M, 1))
    flat = tuple(x for item in free for x in item)
    assert m.free_mem_range(NO_NODE, 0) == flat
    assert m.free_mem_range_reverse(NO_NODE, 0) == tuple(x for item in free[::-1] for x in item)
    assert m.free_mem_range(1, 0) == free[2]
    assert m.free_mem_range(0, 0x4)[-3:] == (4 * M, 5 * M, 0)
    assert m.free_mem_range(1, 0x8)[-3:] == (10 * M, 11 * M, 1)
    assert m.mem_range() == (1 * M, 4 * M, 8 * M, 10 * M, 10 * M, 11 * M)
    assert m.reserved_mem_range() == (2 * M, 3 * M, 8 * M, 9 * M)
    assert m.mem_pfn_range(1) == (0x800, 0xA00, 1, 0xA00, 0xB00, 1)


def test_walks_spare_hotpluggable_memory(m: Scene) -> None:
    """
    Under movable_node memory that may be unplugged is not allocated from.

        |   [== r1 ==][== HOTPLUG ==]   |
    """
    m.reset(1)
    m.add_node(1 * M, 1 * M, 0, 0)
    m.add_node(2 * M, 1 * M, 1, 0x1)
    assert m.free_mem_range(NO_NODE, 0) == (1 * M, 2 * M, 0)
    assert m.free_mem_range(NO_NODE, 0x1) == (1 * M, 2 * M, 0, 2 * M, 3 * M, 1)
    assert m.phys_alloc(4 * K, 4 * K) == 2 * M - 4 * K


def test_walk_in_a_zone(m: Scene) -> None:
    """
    Free pages of a zone are the free memory of its node, cut to the zone, in whole pages.

        |   [== r1 =|==== node 0 =====|==][== node 1 ==]   |
        |           |     [ res ]     |                    |
    """
    m.add_node(1 * M, 4 * M, 0, 0)
    m.add_node(5 * M, 1 * M, 1, 0)
    m.reserve(3 * M + 1, 1 * M)
    assert m.free_mem_pfn_range_in_zone(0, 0x200, 0x480) == (0x200, 0x300, 0x401, 0x480)
    assert m.free_mem_pfn_range_in_zone(1, 0x200, 0x480) is None


def test_max_numnodes(m: Scene) -> None:
    """Asking for MAX_NUMNODES draws one warning from v6.1; for v6.12 it is as good as no node."""
    m.add_node(1 * M, 1 * M, 3, 0)
    assert m.free_mem_range(NOWHERE, 0) == (1 * M, 2 * M, 3)
    warning = ["Usage of MAX_NUMNODES is deprecated. Use NUMA_NO_NODE instead", "WARNING: at mm/memblock.c __next_mem_range()"]
    assert m.log == (warning if m.release == "6.1" else [])
    m.free_mem_range(NOWHERE, 0)
    assert m.log == []


# Allocating: anywhere


def ram(m: Scene, up: bool = False) -> None:
    """32K of memory, and a direction."""
    m.set_bottom_up(up)
    m.add(RAM, 32 * K)


@DIRECTION
@ANY_ALLOC
def test_alloc(m: Scene, alloc: str, up: bool) -> None:
    """
    The first allocation lies at the top of memory, or at the bottom.

        |   [= memory ======[ new ]]   |
    """
    ram(m, up)
    assert call(m, alloc, 2 * K, LINE) == (RAM if up else END - 2 * K)
    assert m.reserved == [(RAM if up else END - 2 * K, 2 * K, "")]


@DIRECTION
@ANY_ALLOC
def test_alloc_aligned(m: Scene, alloc: str, up: bool) -> None:
    """
    Alignment leaves a gap to what is there.

        |   [======== [ new ] . [ r1 ]]   |
    """
    ram(m, up)
    m.reserve(RAM if up else END - 2, 2)
    assert call(m, alloc, 2 * LINE, LINE) == (RAM + LINE if up else END - 3 * LINE)
    assert len(m.reserved) == 2


@DIRECTION
@ANY_ALLOC
def test_alloc_beside(m: Scene, alloc: str, up: bool) -> None:
    """
    What fits exactly beside a reservation merges with it, on either side.

        |   [======== [ r1 ][ new ]]   |
    """
    ram(m, up)
    m.reserve(RAM + 512 if up else END - 512 - LINE, LINE)
    assert call(m, alloc, 512, LINE) == (RAM if up else END - 512)
    assert m.reserved == [(RAM if up else END - 512 - LINE, 512 + LINE, "")]
    assert call(m, alloc, 512, LINE) == (RAM + 512 + LINE if up else END - 1024 - LINE)
    assert len(m.reserved) == 1


@DIRECTION
@ANY_ALLOC
def test_alloc_second_fit(m: Scene, alloc: str, up: bool) -> None:
    """
    A gap too small is passed by.

        |   [==== [ new ][ r1 ] . [ r2 ]]   |
    """
    ram(m, up)
    for i in range(2):
        m.reserve(RAM + i * 1024 if up else END - 512 - i * 1024, 512)
    assert call(m, alloc, 1024, LINE) == (RAM + 1536 if up else END - 2560)
    assert len(m.reserved) == 2


@DIRECTION
@ANY_ALLOC
def test_alloc_between(m: Scene, alloc: str, up: bool) -> None:
    """
    What fits exactly between two makes them one.

        |   [==== [ r1 ][ new ][ r2 ]]   |
    """
    ram(m, up)
    start = RAM if up else END - 1536
    m.reserve(start, 512)
    m.reserve(start + 1024, 512)
    assert call(m, alloc, 512, LINE) == start + 512
    assert m.reserved == [(start, 1536, "")]


@DIRECTION
@ANY_ALLOC
def test_alloc_small_gaps_only(m: Scene, alloc: str, up: bool) -> None:
    """
    Many gaps, none large enough: NULL.

        |   [. r1 . r2 . r3 . r4 ...]   |
    """
    ram(m, up)
    for start in range(RAM, END, 1280):
        m.reserve(start + 256, 1024)
    assert call(m, alloc, 1024, LINE) == 0


@DIRECTION
@ANY_ALLOC
def test_alloc_without_room(m: Scene, alloc: str, up: bool) -> None:
    """
    All reserved, or all but too little: NULL. What is left exactly can be had.

        |   [. [======= r1 =======]]   |
    """
    ram(m, up)
    m.reserve(RAM, 32 * K)
    assert call(m, alloc, 256, LINE) == 0
    m.phys_free(RAM, 256)
    assert call(m, alloc, 1024, LINE) == 0
    assert call(m, alloc, 256, LINE) == RAM
    assert m.reserved == [(RAM, 32 * K, "")]


@DIRECTION
@ANY_ALLOC
def test_alloc_without_memory(m: Scene, alloc: str, up: bool) -> None:
    """No memory: NULL, and nothing reserved."""
    m.set_bottom_up(up)
    assert call(m, alloc, 1024, LINE) == 0
    assert m.reserved == []


@DIRECTION
@ANY_ALLOC
def test_alloc_too_large(m: Scene, alloc: str, up: bool) -> None:
    """
    One byte more than there is: NULL.

        |   [== memory ==]    |
        |   [==== new ====]   |
    """
    ram(m, up)
    assert call(m, alloc, 32 * K + 1, LINE) == 0


def test_never_the_first_page(m: Scene) -> None:
    """
    Page 0 is never handed out: address 0 means failure.

        |[ page 0 ][ new ]   |
    """
    m.set_bottom_up(1)
    m.add(0, 16 * K)
    assert m.phys_alloc(4 * K, 4 * K) == 4 * K


def test_alignment_zero(m: Scene) -> None:
    """Nobody may ask for alignment 0: it becomes a cache line, with a stack trace in the log."""
    ram(m)
    assert m.phys_alloc(1, 0) == END - LINE
    assert m.log == ["Call Trace:"]


def test_current_limit(m: Scene) -> None:
    """
    While only low memory is mapped, the current limit keeps allocations there, unless the caller's own limit is lower or the
    caller wants a physical address from anywhere.

        |   [== memory ==|==========]   |
    """
    m.add(1 * G, 4 * G)
    m.set_current_limit(2 * G)
    assert m.alloc(4 * K, 4 * K) == 2 * G - 4 * K
    assert m.alloc_try_nid(4 * K, 4 * K, 0, 3 * G, NO_NODE) == 2 * G - 8 * K
    assert m.alloc_try_nid(4 * K, 4 * K, 0, 1536 * M, NO_NODE) == 1536 * M - 4 * K
    assert m.phys_alloc_range(4 * K, 4 * K, 0, ANYWHERE) == 5 * G - 4 * K
    assert m.alloc_low(4 * K, 4 * K) == 2 * G - 12 * K


def test_below_4_gib(m: Scene) -> None:
    """memblock_alloc_low() stays below 4 GiB, whose last byte it does not use."""
    m.add(1 * G, 7 * G)
    assert m.alloc_low(4 * K, 4 * K) == 4 * G - 8 * K
    assert m.alloc(4 * K, 4 * K) == 8 * G - 4 * K


def test_mirrored_memory_first(m: Scene) -> None:
    """
    Where some memory is mirrored, allocations want that; if it cannot be, the log says so and any will do.

        |   [== MIRROR ==][========]   |
    """
    m.reset(2)
    m.add(1 * M, 4 * M)
    m.mark_mirror(1 * M, 1 * M)
    assert m.alloc(512 * K, 4 * K) == 1536 * K
    assert m.alloc(1 * M, 4 * K) == 4 * M
    assert m.log == ["Could not allocate 0x0000000000100000 bytes of mirrored memory"]
    assert m.free_mem_range(NO_NODE, MIRROR) == (1 * M, 1536 * K, NOWHERE)


# Allocating: from an address on


@DIRECTION
@pytest.mark.parametrize("off", [0, 1, LINE - 1])
def test_from(m: Scene, up: bool, off: int) -> None:
    """
    A lower limit that is not aligned moves the place up to the next line.

        |   [=========|. [ new ]]   |
                      min
    """
    ram(m, up)
    low = END - 2 * LINE + off
    place = END - LINE if off or not up else END - 2 * LINE
    assert m.alloc_from(LINE, LINE, low) == place


@DIRECTION
def test_from_too_high(m: Scene, up: bool) -> None:
    """
    Where nothing fits above the lower limit, the limit is dropped.

        |   [== [ new ] =====|..]   |
                             min
    """
    ram(m, up)
    assert m.alloc_from(1 * K, LINE, END - 512) == (RAM if up else END - 1 * K)


@DIRECTION
def test_from_reserved(m: Scene, up: bool) -> None:
    """
    The same if all above it is reserved.

        |   [==== [ new ]|[ r1 ]]   |
                         min
    """
    ram(m, up)
    m.reserve(END - 4 * K, 4 * K)
    assert m.alloc_from(1 * K, LINE, END - 4 * K) == (RAM if up else END - 5 * K)


@DIRECTION
def test_from_below_memory(m: Scene, up: bool) -> None:
    """
    A limit below all memory is none.

        |  |   [======= [ new ]]   |
          min
    """
    ram(m, up)
    assert m.alloc_from(1 * K, LINE, RAM - 64 * K) == (RAM if up else END - 1 * K)


# Allocating: in a range


@DIRECTION
@ANY_NID
def test_range(m: Scene, alloc: str, up: bool) -> None:
    """
    Between two limits the place is at the upper, or at the lower.

        |   [====|=== [ new ]|====]   |
                min         max
    """
    ram(m, up)
    assert call(m, alloc, 1 * K, LINE, RAM + 4 * K, RAM + 8 * K, NO_NODE) == (RAM + 4 * K if up else RAM + 7 * K)


@DIRECTION
@ANY_NID
def test_range_misaligned(m: Scene, alloc: str, up: bool) -> None:
    """
    Limits that are not aligned are rounded inwards.

        |   [====|. [ new ] .|====]   |
                min         max
    """
    ram(m, up)
    place = call(m, alloc, LINE, LINE, RAM + 1, RAM + 8 * LINE - 2, NO_NODE)
    assert place == (RAM + LINE if up else RAM + 6 * LINE)


@DIRECTION
@ANY_NID
def test_range_exactly(m: Scene, alloc: str, up: bool) -> None:
    """
    A range as large as the request is the place.

        |   [====|[ new ]|====]   |
    """
    ram(m, up)
    assert call(m, alloc, 1 * K, LINE, RAM + 4 * K, RAM + 5 * K, NO_NODE) == RAM + 4 * K


@DIRECTION
@ANY_NID
def test_range_too_narrow(m: Scene, alloc: str, up: bool) -> None:
    """
    In a range too narrow the lower limit is dropped, never the upper.

        |   [= [ new ==|=]|====]   |
                      min max
    """
    ram(m, up)
    place = call(m, alloc, 1 * K, LINE, RAM + 4 * K, RAM + 4 * K + 512, NO_NODE)
    assert place == (RAM if up else RAM + 3 * K + 512)


@DIRECTION
@ANY_NID
def test_range_below_memory(m: Scene, alloc: str, up: bool) -> None:
    """
    Below the upper limit there is not enough: NULL.

        |  |   [|=======]   |
          min  max
    """
    ram(m, up)
    assert call(m, alloc, 1 * K, LINE, RAM - 1 * K, RAM + 512, NO_NODE) == 0


@DIRECTION
@ANY_NID
def test_range_between_reservations(m: Scene, alloc: str, up: bool) -> None:
    """
    What fits exactly beside a reservation at either limit merges with it.

        |   [====[ r1 ][ new ]====]   |
    """
    ram(m, up)
    m.reserve(RAM + 4 * K, 1 * K)
    assert call(m, alloc, 1 * K, LINE, RAM + 4 * K, RAM + 6 * K, NO_NODE) == RAM + 5 * K
    m.reserve(RAM + 10 * K, 1 * K)
    assert call(m, alloc, 1 * K, LINE, RAM + 9 * K, RAM + 11 * K, NO_NODE) == RAM + 9 * K
    assert m.reserved == [(RAM + 4 * K, 2 * K, ""), (RAM + 9 * K, 2 * K, "")]


@DIRECTION
@ANY_NID
def test_range_with_space_between(m: Scene, alloc: str, up: bool) -> None:
    """
    Between two reservations the place touches the upper one, or the lower.

        |   [==[ r1 ]  [ new ][ r2 ]==]   |
    """
    ram(m, up)
    m.reserve(RAM + 4 * K, 1 * K)
    m.reserve(RAM + 8 * K, 1 * K)
    assert call(m, alloc, 1 * K, LINE, RAM + 4 * K, RAM + 9 * K, NO_NODE) == (RAM + 5 * K if up else RAM + 7 * K)
    assert len(m.reserved) == 2
    assert call(m, alloc, 2 * K, LINE, RAM + 5 * K, RAM + 8 * K, NO_NODE) == (RAM + 6 * K if up else RAM + 5 * K)
    assert m.reserved == [(RAM + 4 * K, 5 * K, "")]


@DIRECTION
@ANY_NID
def test_range_without_space_between(m: Scene, alloc: str, up: bool) -> None:
    """
    With too little between two reservations the lower limit is dropped.

        |   [= [ new ][ r1 ] . [ r2 ]==]   |
    """
    ram(m, up)
    m.reserve(RAM + 4 * K, 1 * K)
    m.reserve(RAM + 5 * K + 512, 1 * K)
    place = call(m, alloc, 1 * K, LINE, RAM + 5 * K, RAM + 5 * K + 512, NO_NODE)
    assert place == (RAM if up else RAM + 3 * K)


@DIRECTION
@ANY_NID
def test_range_all_reserved(m: Scene, alloc: str, up: bool) -> None:
    """
    All below the upper limit reserved: NULL.

        |   [[ r1 ] . [====== r2 ======]]   |
    """
    ram(m, up)
    m.reserve(RAM, 4 * K)
    m.reserve(RAM + 4 * K + 512, 28 * K - 512)
    assert call(m, alloc, 1 * K, LINE, RAM + 4 * K, RAM + 8 * K, NO_NODE) == 0


@DIRECTION
@ANY_NID
def test_range_beyond_memory(m: Scene, alloc: str, up: bool) -> None:
    """
    Limits outside memory are memory's ends.

        |  |   [==== [ new ]]   |   |
          min                  max
    """
    ram(m, up)
    assert call(m, alloc, 1 * K, LINE, RAM - 4 * K, END + 4 * K, NO_NODE) == (RAM if up else END - 1 * K)


# Allocating: from a node

SIZES = (8, 2, 4, 4, 1, 8, 4, 1)
STARTS = [RAM + sum(SIZES[:nid]) * K for nid in range(9)]
"""Eight nodes side by side, in K."""


def nodes(m: Scene, up: bool = False) -> None:
    """The eight nodes, and a direction."""
    m.set_bottom_up(up)
    for nid, size in enumerate(SIZES):
        m.add_node(STARTS[nid], size * K, nid, 0)


@DIRECTION
@ANY_NID
def test_node(m: Scene, alloc: str, up: bool) -> None:
    """
    From the node that was asked for.

        |   [n0][n1][n2][== n3 [ new ]][n4]   |
    """
    nodes(m, up)
    assert call(m, alloc, 1 * K, LINE, RAM, END, 3) == (STARTS[3] if up else STARTS[4] - 1 * K)


@DIRECTION
@TRY_NID
def test_node_too_small(m: Scene, alloc: str, up: bool) -> None:
    """
    A node too small: any node will do.

        |   [n4 ][== n5 ==]...[ new ]   |
    """
    nodes(m, up)
    assert call(m, alloc, 2 * K, LINE, RAM, END, 4) == (RAM if up else STARTS[7] - 2 * K)


@DIRECTION
@TRY_NID
def test_node_reserved(m: Scene, alloc: str, up: bool) -> None:
    """
    A node wholly reserved: any node will do.

        |   [n0 ]...[[ reserved: n2 ]]...[ new ]   |
    """
    nodes(m, up)
    m.reserve(STARTS[2], 4 * K)
    assert call(m, alloc, 4 * K, LINE, RAM, END, 2) == (RAM if up else STARTS[7] - 4 * K)


@DIRECTION
@ANY_NID
def test_node_partly_reserved(m: Scene, alloc: str, up: bool) -> None:
    """
    A node partly reserved serves from the rest.

        |   [n4][=== [ res ] n5 [ new ]][n6]   |
    """
    nodes(m, up)
    m.reserve(STARTS[5] + 2 * K, 2 * K)
    assert call(m, alloc, 1 * K, LINE, RAM, END, 5) == (STARTS[5] if up else STARTS[6] - 1 * K)
    assert len(m.reserved) == 2


@DIRECTION
@TRY_NID
def test_node_in_pieces(m: Scene, alloc: str, up: bool) -> None:
    """
    A node with enough in all, but not in one piece: any node will do.

        |   [n2: . [ res ] . ]...[ new ]   |
    """
    nodes(m, up)
    m.reserve(STARTS[2] + 1 * K, 2 * K)
    assert call(m, alloc, 2 * K, LINE, RAM, END, 2) == (RAM if up else STARTS[7] - 2 * K)


@DIRECTION
@ANY_NID
def test_node_then_the_range_crosses_into_the_next(m: Scene, alloc: str, up: bool) -> None:
    """
    The range begins in the node but leaves too little of it: in another node of the range, or (exact) below the lower limit.

        |   [==== n5 ===|=][== n6 =|==]   |
                       min        max
    """
    nodes(m, up)
    low, high = STARTS[6] - 512, STARTS[6] + 2 * K
    place = call(m, alloc, 1 * K, LINE, low, high, 5)
    if alloc == "alloc_exact_nid_raw":
        assert place == (STARTS[5] if up else STARTS[6] - 1 * K)
    else:
        assert place == (STARTS[6] if up else STARTS[6] + 1 * K)


@DIRECTION
@ANY_NID
def test_node_is_the_upper_of_the_range(m: Scene, alloc: str, up: bool) -> None:
    """
    The range ends in the node with too little of it: in another node of the range, or (exact) not at all.

        |   [== n5 |===][=|== n6 ==]   |
                  min    max
    """
    nodes(m, up)
    low, high = STARTS[6] - 2 * K, STARTS[6] + 512
    place = call(m, alloc, 1 * K, LINE, low, high, 6)
    if alloc == "alloc_exact_nid_raw":
        assert place == 0
    else:      # first any node of the range, and across the border
        assert place == (STARTS[6] - 2 * K if up else STARTS[6] - 1 * K)


@DIRECTION
@ANY_NID
def test_node_below_the_range(m: Scene, alloc: str, up: bool) -> None:
    """
    The node ends below the range: from the range, or (exact) from the node below the lower limit.

        |   [== n2 ==] ... [== n5 |=== n6 |]   |
                                 min     max
    """
    nodes(m, up)
    low, high = STARTS[5] + 4 * K, STARTS[6] + 2 * K
    place = call(m, alloc, 1 * K, LINE, low, high, 2)
    if alloc == "alloc_exact_nid_raw":
        assert place == (STARTS[2] if up else STARTS[3] - 1 * K)
    else:
        assert place == (low if up else high - 1 * K)


@DIRECTION
@ANY_NID
def test_node_above_the_range(m: Scene, alloc: str, up: bool) -> None:
    """
    The node begins above the range: from the range, or (exact) not at all.

        |   [|= n0 ==|][n1] ... [== n6 ==]   |
            min     max
    """
    nodes(m, up)
    place = call(m, alloc, 1 * K, LINE, RAM, RAM + 4 * K, 6)
    if alloc == "alloc_exact_nid_raw":
        assert place == 0
    else:
        assert place == (RAM if up else RAM + 3 * K)


@DIRECTION
@ANY_NID
def test_more_than_any_node_has(m: Scene, alloc: str, up: bool) -> None:
    """
    A request larger than every node: NULL, though memory has it in one piece. Regions of two nodes are never one place.

        |   [n0][n1][n2][n3] ...   |
        |   [===== new =====]      |
    """
    nodes(m, up)
    assert call(m, alloc, 16 * K, LINE, RAM, END, 3) == 0


@DIRECTION
@ANY_NID
def test_node_between_reservations(m: Scene, alloc: str, up: bool) -> None:
    """
    What fits exactly between two reservations of a node makes them one.

        |   [n4][[ r1 ][ new ][ r2 ]: n5][n6]   |
    """
    nodes(m, up)
    m.reserve(STARTS[5], 2 * K)
    m.reserve(STARTS[5] + 6 * K, 2 * K)
    assert call(m, alloc, 4 * K, LINE, STARTS[5], STARTS[6], 5) == STARTS[5] + 2 * K
    assert m.reserved == [(STARTS[5], 8 * K, "")]


@DIRECTION
@ANY_NID
def test_node_without_anything_left(m: Scene, alloc: str, up: bool) -> None:
    """
    The range and all below it reserved: NULL.

        |   [============ r1 ============]|.]   |
    """
    nodes(m, up)
    m.reserve(RAM, 31 * K)
    assert call(m, alloc, 256, LINE, STARTS[5], STARTS[7], 5) == 0


@DIRECTION
def test_alloc_node(m: Scene, up: bool) -> None:
    """
    memblock_alloc_node() is the same without limits.

        |   [n0][n1][[ new ] n2][n3]   |
    """
    nodes(m, up)
    assert m.alloc_node(1 * K, LINE, 2) == (STARTS[2] if up else STARTS[3] - 1 * K)
    assert m.phys_alloc_try_nid(1 * K, LINE, 3) == (STARTS[3] if up else STARTS[4] - 1 * K)


@DIRECTION
@pytest.mark.parametrize("why", ["too small", "reserved", "in pieces"])
def test_exact_node_or_nothing(m: Scene, why: str, up: bool) -> None:
    """
    memblock_alloc_exact_nid_raw() does not leave its node: it fails.

        |   [n0 ][[== reserved: n2 ==]][n3 ]   |
    """
    nodes(m, up)
    if why == "reserved":
        m.reserve(STARTS[2], 4 * K)
    elif why == "in pieces":
        m.reserve(STARTS[2] + 1 * K, 2 * K)
    assert m.alloc_exact_nid_raw(8 * K if why == "too small" else 2 * K, LINE, RAM, END, 2) == 0


# The end of early boot


def test_all_goes_to_the_page_allocator(m: Scene) -> None:
    """
    Reserved and NOMAP memory gets reserved struct pages, the rest is free. In v6.12 reservations get their memory's node first.

        |   [== r1, node 0 ==][== r2, node 1 ==][ NOMAP ]   |
        |            [=== reserved ===]                     |
    """
    m.add_node(1 * M, 1 * M, 0, 0)
    m.add_node(2 * M, 1 * M, 1, 0)
    m.mark_nomap(2 * M + 512 * K, 512 * K)
    m.reserve(1 * M + 512 * K, 768 * K)
    m.free_all(TOP)
    if m.release == "6.12":
        assert m.log == [
            "reserve 0x280000-0x300000 1", "reserve 0x180000-0x200000 0", "reserve 0x200000-0x240000 1", "free 0x100-0x180",
            "free 0x240-0x280",
        ]
        assert m.reserved == [(1 * M + 512 * K, 512 * K, "n0"), (2 * M, 256 * K, "n1")]
    else:
        assert m.log == [
            "reserve 0x180000-0x240000 -1", "reserve 0x280000-0x300000 -1", "free 0x100-0x180", "free 0x240-0x280"]
        assert m.reserved == [(1 * M + 512 * K, 768 * K, "")]


def test_only_whole_pages_below_max_low_pfn(m: Scene) -> None:
    """
    Freed are whole pages, and no page from max_low_pfn on. HOTPLUG marks are gone by then.

        |   .[== HOTPLUG ==|======].   |
    """
    m.add(1 * M + 1, 1 * M)
    m.mark_hotplug(1 * M + 1, 1 * M)
    m.free_all(0x180)
    dummy = ["reserve 0x0-0x0 -1"] if m.release == "6.1" else []      # of the empty array
    assert m.log == [*dummy, "free 0x101-0x180"]
    assert m.memory == [(1 * M + 1, 1 * M, "")]


@V6_12
def test_struct_pages_that_stay_as_they_are(m: Scene) -> None:
    """
    What is marked RSRV_NOINIT is neither reserved page by page nor freed.

        |   [== r1 [ RSRV_NOINIT ] ==]   |
    """
    m.add_node(1 * M, 3 * M, 0, 0)
    m.reserve(2 * M, 1 * M)
    m.reserved_mark_noinit(2 * M, 1 * M)
    m.free_all(TOP)
    assert m.log == ["free 0x100-0x200", "free 0x300-0x400"]


def test_pages_are_counted(m: Scene) -> None:
    """What was freed is counted: memory's pages without those that are reserved."""
    m.add(1 * M, 1 * M)
    m.reserve(1 * M, 64 * K)
    assert m.free_all(TOP) == 240
    assert m.free_late(1 * M, 64 * K) == 16


def test_free_late(m: Scene) -> None:
    """Whole pages can go to the page allocator later, too; memblock's lists no longer matter then."""
    m.reserve(1 * M, 16 * K)
    m.free_late(1 * M + 1, 12 * K)
    assert m.log == ["free 0x101-0x103"]
    assert m.reserved == [(1 * M, 16 * K, "")]


# What people see


def test_debugfs(m: Scene) -> None:
    """v6.12's file in debugfs names node and flags; v6.1's does not."""
    m.add_node(1 * M, 1 * M, 3, 0x5)
    m.add_node(4 * M, 1 * M, 0, 0x8)
    m.add(8 * M, 1 * M)
    m.debug_show(0)
    lines = [
        ("   0: 0x0000000000100000..0x00000000001fffff", "    3 HOTPLUG|NOMAP"),
        ("   1: 0x0000000000400000..0x00000000004fffff", "    0 DRV_MNG"),
        ("   2: 0x0000000000800000..0x00000000008fffff", "    x NONE"),
    ]
    assert m.log == [line + (more if m.release == "6.12" else "") for line, more in lines]


def test_dump(m: Scene) -> None:
    """memblock=debug prints both arrays."""
    m.reset(4)
    m.add_node(1 * M, 1 * M, 3, 0x4)
    m.reserve(1 * M, 4 * K)
    m.dump_all()
    assert m.log == [
        "MEMBLOCK configuration:",
        " memory size = 0x0000000000100000 reserved size = 0x0000000000001000",
        " memory.cnt  = 0x1",
        " memory[0x0]\t[0x0000000000100000-0x00000000001fffff], 0x0000000000100000 bytes on node 3 flags: 0x4",
        " reserved.cnt  = 0x1",
        " reserved[0x0]\t[0x0000000000100000-0x0000000000100fff], 0x0000000000001000 bytes flags: 0x0",
    ]


@V6_12
def test_memory_without_a_node(m: Scene) -> None:
    """v6.12 can tell whether firmware forgot to give memory a node."""
    m.add_node(1 * G, 3 * G, 0, 0)
    m.add(4 * G, 1 * G)
    assert m.validate_numa_coverage(1 * G)
    assert not m.validate_numa_coverage(1 * M)
    assert m.log == ["NUMA: no nodes coverage for 1024MB of 4096MB RAM"]


@V6_12
def test_reserve_mem_by_name(m: Scene) -> None:
    """
    reserve_mem=4K:4K:oops keeps a place by name, the same one at every boot of the same machine.

        |   [== memory ======[ oops ]]   |
    """
    m.add(1 * M, 1 * M)
    assert m.reserve_mem("4K:4K:oops") == 1
    assert m.reserve_mem_find("oops") == (1, 2 * M - 4 * K, 4 * K)
    assert m.reserve_mem("4K:4K:oops") == TOP + 1 - 16
    assert m.reserve_mem("4K:4K:") == TOP + 1 - 22
    assert m.reserve_mem("1G:4K:large") == TOP + 1 - 12
    for i in range(7):
        assert m.reserve_mem(f"64:64:name{i}") == 1
    assert m.reserve_mem("64:64:ninth") == TOP + 1 - 16
    assert m.reserve_mem_find("ninth") == (0, 0, 0)
