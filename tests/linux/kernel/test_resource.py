# SPDX-License-Identifier: GPL-2.0-only
"""Resources: requests and releases with the addresses drawn, /proc/iomem as recorded, random sequences against an oracle."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EINVAL

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.linux.bare import bare_kernel

from memhp.errors import KernelBugError, KernelError
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_MEM, IORESOURCE_SYSTEM_RAM, Resource
from memhp.linux.kernel import resource
from memhp.linux.state import Kernel

RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
PAGE = 0x1000


@pytest.fixture
def k() -> Kernel:
    return bare_kernel("arm64")


def ram(k: Kernel, start: int, end: int, name: str = "System RAM", flags: int = RAM) -> Resource:
    """Request [start, end] at the top."""
    new = Resource(start, end, name, flags)
    resource.request_resource(k, k.iomem_resource, new)
    return new


def inside(k: Kernel, parent: Resource, start: int, end: int, name: str, flags: int = IORESOURCE_MEM) -> Resource:
    new = Resource(start, end, name, flags)
    resource.request_resource(k, parent, new)
    return new


def release(k: Kernel, start: int, end: int) -> None:
    resource.release_mem_region_adjustable(k, k.iomem_resource, start, end + 1 - start)


def errno_of(function: Callable[[Kernel, int, int], object], k: Kernel, start: int, end: int) -> int:
    """Return the errno of a refusal, or 0."""
    try:
        function(k, start, end)
    except KernelError as err:
        return err.errno or 0
    return 0


def refused(k: Kernel, start: int, end: int) -> str:
    """Release [start, end], which must be refused and change nothing; return the errno's name."""
    before = resource.iomem_show(k)
    with pytest.raises(KernelError) as error:
        release(k, start, end)
    assert before == resource.iomem_show(k)
    return error.value.name


# /proc/iomem

ARM64 = """\
09000000-09000fff : /pl011@9000000
  09000000-09000fff : /pl011@9000000
09010000-09010fff : /pl031@9010000
09030000-09030fff : /pl061@9030000
40000000-7fffffff : System RAM
  40080000-4034ffff : Kernel code
  40390000-40421fff : Kernel data
80000000-bfffffff : System RAM
"""

X86_64 = """\
00000000-00000fff : reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : reserved
000a0000-000bffff : PCI Bus 0000:00
000c0000-000c05ff : Video ROM
000f0000-000fffff : reserved
  000f0000-000fffff : System ROM
00100000-3fffffff : System RAM
  01000000-01243f42 : Kernel code
  01243f43-0165c57f : Kernel data
  01712000-01778fff : Kernel bss
80000000-87ffffff : System RAM
bffe0000-bfffffff : reserved
c0000000-febfffff : PCI Bus 0000:00
fec00000-fec003ff : IOAPIC 0
fed00000-fed003ff : HPET 0
  fed00000-fed003ff : PNP0103:00
fee00000-fee00fff : Local APIC
fffc0000-ffffffff : reserved
140000000-1bfffffff : PCI Bus 0000:00
fd00000000-ffffffffff : reserved
"""


@pytest.mark.parametrize(("arch", "recorded"), [("arm64", ARM64), ("x86_64", X86_64)])
def test_iomem_as_recorded(arch: str, recorded: str) -> None:
    """The recorded kernels' /proc/iomem, requested line by line from the last to the first, reads back byte for byte."""
    k = bare_kernel(arch)
    parents: dict[int, Resource] = {}
    lines = recorded.splitlines()
    for top in (True, False):
        for line in reversed(lines):
            addresses, _, name = line.strip().partition(" : ")
            start, end = (int(address, 16) for address in addresses.split("-"))
            if top and not line.startswith(" "):
                parents[start] = ram(k, start, end, name)
            elif not top and line.startswith(" "):
                parent = max(p for p in parents if p <= start)
                inside(k, parents[parent], start, end, name)
    assert recorded == resource.iomem_show(k)


def test_iomem_indents_five_levels_at_most(k: Kernel) -> None:
    """A sixth level is indented like the fifth; a resource without a name shows as <BAD>."""
    parent = ram(k, 0, 0xFFFF, "level 0")
    for level in range(1, 8):
        parent = inside(k, parent, level, 0xFFFF, "" if level == 7 else f"level {level}")
    indents = [len(line) - len(line.lstrip()) for line in resource.iomem_show(k).splitlines()]
    assert indents == [0, 2, 4, 6, 8, 10, 10, 10]
    assert resource.iomem_show(k).splitlines()[-1].endswith("00000007-0000ffff : <BAD>")


# Requests


def test_request_what_is_taken(k: Kernel) -> None:
    """
    Any byte in common is a conflict, which is named; what only touches is none.

        |      [= System RAM =]        |
        | [ ok ][x]  [x]   [x][ ok ]   |
    """
    ram(k, 0x1000, 0x1FFF)
    for start, end in ((0xFFF, 0x1000), (0x1400, 0x14FF), (0x1FFF, 0x2FFF), (0, 0x4000), (0x1000, 0x1FFF)):
        with pytest.raises(KernelError, match="System RAM 0x1000-0x1fff is there already") as error:
            ram(k, start, end)
        assert error.value.errno == EBUSY
    below = ram(k, 0, 0xFFF)
    above = ram(k, 0x2000, 0x2FFF)
    assert [below.start, 0x1000, above.start] == [r.start for r in k.iomem_resource.child]


def test_request_outside_the_root(k: Kernel) -> None:
    """
    A range that leaves its root, or ends before it starts, conflicts with the root itself.

        [ root =====]
                 [ new ]
    """
    end = k.iomem_resource.end
    for start, last in ((end, end + 1), (0x2000, 0x1FFF)):
        new = Resource(start, last, "System RAM", RAM)
        assert resource.request_resource_conflict(k, k.iomem_resource, new) is k.iomem_resource
    with pytest.raises(KernelError, match="it does not fit into PCI mem"):
        ram(k, end, end + 1)
    parent = ram(k, 0x1000, 0x1FFF)
    with pytest.raises(KernelError, match="it does not fit into System RAM") as error:
        inside(k, parent, 0x1800, 0x2000, "Kernel code")
    assert error.value.errno == EBUSY


def test_release_resource(k: Kernel) -> None:
    """
    A released range takes with it what is inside, and can be requested again; releasing it twice is EINVAL.

        | [ RAM [code] ] |  ->  |              |
    """
    r = ram(k, 0x1000, 0x1FFF)
    inside(k, r, 0x1100, 0x11FF, "Kernel code")
    resource.release_resource(k, r)
    assert resource.iomem_show(k) == ""
    with pytest.raises(KernelError) as error:
        resource.release_resource(k, r)
    assert error.value.errno == EINVAL
    ram(k, 0x1800, 0x27FF)


def test_release_the_inner_of_two_equal_ones(k: Kernel) -> None:
    """
    A resource is released itself, not its parent of the same range and name.

        | [ pl011 [ pl011 ]] |
    """
    outer = ram(k, 0x9000000, 0x9000FFF, "pl011")
    inner = inside(k, outer, 0x9000000, 0x9000FFF, "pl011", RAM)
    resource.release_resource(k, inner)
    assert resource.iomem_show(k) == "09000000-09000fff : pl011\n"


def test_remove_resource_keeps_what_is_inside(k: Kernel) -> None:
    """
    A removed resource leaves its children in its place.

        | [ a ][ bus [b] [c] ][ d ] |  ->  | [ a ] [b] [c] [ d ] |
    """
    ram(k, 0, 0xFFF, "a")
    bus = ram(k, 0x1000, 0x1FFF, "bus")
    inside(k, bus, 0x1100, 0x11FF, "b")
    inside(k, bus, 0x1800, 0x18FF, "c")
    ram(k, 0x2000, 0x2FFF, "d")
    resource.remove_resource(k, bus)
    assert [r.name for r in k.iomem_resource.child] == ["a", "b", "c", "d"]


def test_insert_around_inside_and_across(k: Kernel) -> None:
    """
    An inserted range finds its depth: around what it contains, inside what contains it; a part in common is EBUSY.

        | [======= bus ========]     |
        |    [ a ]    [ b [x] ]   [c]|
        |          [ across ==]      |
    """
    ram(k, 0x1000, 0x1FFF, "a")
    ram(k, 0x3000, 0x3FFF, "b")
    ram(k, 0x8000, 0x8FFF, "c")
    resource.insert_resource(k, k.iomem_resource, Resource(0x0, 0x4FFF, "bus"))
    resource.insert_resource(k, k.iomem_resource, Resource(0x3100, 0x31FF, "x"))
    for start, end in ((0x2000, 0x37FF), (0x4000, 0x5FFF), (0x1800, 0x3FFF)):
        with pytest.raises(KernelError, match="overlaps it in part"):
            resource.insert_resource(k, k.iomem_resource, Resource(start, end, "across"))
    assert resource.iomem_show(k) == (
        "00000000-00004fff : bus\n"
        "  00001000-00001fff : a\n"
        "  00003000-00003fff : b\n"
        "    00003100-000031ff : x\n"
        "00008000-00008fff : c\n"
    )


def test_insert_with_a_common_end(k: Kernel) -> None:
    """
    A range that shares an end with another goes inside if it is smaller and around if it is larger or equal.

        | [== a ==] |      [ b ] shares the start, [ c ] the end, [== d ==] both
    """
    ram(k, 0x1000, 0x4FFF, "a")
    spans = {"b": (0x1000, 0x1FFF), "c": (0x4000, 0x4FFF), "d": (0x1000, 0x4FFF), "e": (0x1000, 0x5FFF), "f": (0, 0x5FFF)}
    for name, (start, end) in spans.items():
        resource.insert_resource(k, k.iomem_resource, Resource(start, end, name))
    assert [(depth, r.name) for depth, r in resource.next_resource(k.iomem_resource)] == [
        (0, "f"), (1, "e"), (2, "d"), (3, "a"), (4, "b"), (4, "c")]
    outside = Resource(k.iomem_resource.end, k.iomem_resource.end + 1, "g")
    assert resource.insert_resource_conflict(k, k.iomem_resource, outside) is k.iomem_resource


def test_insert_around_several_with_common_ends(k: Kernel) -> None:
    """
    Several become children of a range that ends exactly where the first starts and the last ends.

        | [ a ] [ b ][ c ] |  ->  | [= new [ a ] [ b ][ c ]=] |
    """
    for name, start in (("a", 0x1000), ("b", 0x3000), ("c", 0x4000), ("d", 0x5000)):
        ram(k, start, start + 0xFFF, name)
    resource.insert_resource(k, k.iomem_resource, Resource(0x1000, 0x4FFF, "new"))
    assert [(depth, r.name) for depth, r in resource.next_resource(k.iomem_resource)] == [
        (0, "new"), (1, "a"), (1, "b"), (1, "c"), (0, "d")]


def test_the_edges_of_the_root(k: Kernel) -> None:
    """
    A resource may start and end where the root does, be one byte long, and be released there.

        [ root ===========]
        [ a ]          [ b]
    """
    top = k.iomem_resource.end
    ram(k, 0, 0xFFF)
    ram(k, top - 0xFFF, top)
    ram(k, 0x2000, 0x2000, "byte")
    release(k, 0, 0x7FF)
    release(k, top - 0x7FF, top)
    assert [(r.start, r.end) for r in k.iomem_resource.child] == [(0x800, 0xFFF), (0x2000, 0x2000), (top - 0xFFF, top - 0x800)]


def test_a_fork_keeps_its_own(k: Kernel) -> None:
    """What one of two forked kernels requests or releases the other does not see, although both started with one tree."""
    r = ram(k, 0x1000, 0x1FFF)
    other = k.fork()
    ram(other, 0x2000, 0x2FFF)
    resource.release_resource(k, r)
    assert resource.iomem_show(k) == ""
    assert resource.iomem_show(other) == "00001000-00001fff : System RAM\n00002000-00002fff : System RAM\n"
    resource.release_resource(other, r)
    assert resource.iomem_show(other) == "00002000-00002fff : System RAM\n"


# release_mem_region_adjustable()


def test_release_a_whole_entry(k: Kernel) -> None:
    """
    An exact match goes altogether.

        | [ a ][=== out ===][ b ] |
    """
    for i in range(3):
        ram(k, i * 0x1000, i * 0x1000 + 0xFFF)
    release(k, 0x1000, 0x1FFF)
    assert [r.start for r in k.iomem_resource.child] == [0, 0x2000]


def test_release_the_start_and_the_end(k: Kernel) -> None:
    """
    At its start or end an entry shrinks.

        | [ out ][ stays =====][ out ] |
    """
    ram(k, 0x1000, 0x8FFF)
    release(k, 0x1000, 0x1FFF)
    release(k, 0x8000, 0x8FFF)
    assert resource.iomem_show(k) == "00002000-00007fff : System RAM\n"


def test_release_the_middle(k: Kernel) -> None:
    """
    In its middle an entry splits in two of the same name and flags; what was inside stays with the lower one.

        | [ [code]  ][ out ][       ] |
    """
    r = ram(k, 0x1000, 0x8FFF)
    inside(k, r, 0x1100, 0x11FF, "Kernel code")
    release(k, 0x4000, 0x4FFF)
    assert resource.iomem_show(k) == (
        "00001000-00003fff : System RAM\n"
        "  00001100-000011ff : Kernel code\n"
        "00005000-00008fff : System RAM\n"
    )
    assert [r.flags for r in k.iomem_resource.child] == [RAM, RAM]


@pytest.mark.parametrize(
    ("start", "end"), [(0x1000, 0x2FFF), (0x2000, 0x3FFF), (0x4000, 0x8FFF)], ids=["start", "middle", "end"])
def test_release_what_would_cut_off_something_inside(k: Kernel, start: int, end: int) -> None:
    """
    What is inside must lie in the part that stays, and after a split in the lower part: else EBUSY, and nothing changes.

        | [  [= code =====]     ] |
        | [out ]                  |
        |       [out]             |
        |          [ out =======] |
    """
    r = ram(k, 0x1000, 0x8FFF)
    inside(k, r, 0x1800, 0x47FF, "Kernel code")
    assert refused(k, start, end) == "EBUSY"


def test_release_up_to_what_is_inside(k: Kernel) -> None:
    """
    What is inside may touch the part that goes.

        | [out][= code =][out] |
    """
    r = ram(k, 0x1000, 0x8FFF)
    inside(k, r, 0x2000, 0x7FFF, "Kernel code")
    release(k, 0x1000, 0x1FFF)
    release(k, 0x8000, 0x8FFF)
    assert resource.iomem_show(k) == "00002000-00007fff : System RAM\n  00002000-00007fff : Kernel code\n"


def test_release_what_no_entry_contains(k: Kernel) -> None:
    """
    More than one entry, more than it, a hole, or beyond the root: EINVAL.

        | [ a ][ b ]    [ c ] |
        |    [out]            |
        |         [out]       |
        |            [out ==] |
    """
    ram(k, 0x1000, 0x1FFF)
    ram(k, 0x2000, 0x2FFF)
    ram(k, 0x8000, 0x8FFF)
    for start, end in ((0x1800, 0x27FF), (0x2800, 0x37FF), (0x4000, 0x4FFF), (0x7000, 0x8FFF), (0, 0xFFF), (0x1000, 0x8FFF)):
        assert refused(k, start, end) == "EINVAL"
    top = k.iomem_resource.end
    assert refused(k, top, top + 1) == "EINVAL"


def test_release_a_single_byte(k: Kernel) -> None:
    """
    The search ends at entries that start at or above the end of the range, so the first byte alone is never found.

        | [x=======] |
    """
    ram(k, 0x1000, 0x1FFF)
    assert refused(k, 0x1000, 0x1000) == "EINVAL"
    release(k, 0x1001, 0x1001)
    assert resource.iomem_show(k) == "00001000-00001000 : System RAM\n00001002-00001fff : System RAM\n"


def test_release_looks_into_what_is_not_busy(k: Kernel) -> None:
    """
    A window that is not busy is looked into; what is busy there is released, what is not memory is EINVAL.

        | [ window  [== RAM ==]   [ ports ] ] |
        |             [ out ]                 |
    """
    window = ram(k, 0x10000, 0x1FFFF, "window", IORESOURCE_MEM)
    inside(k, window, 0x12000, 0x15FFF, "System RAM", RAM)
    inside(k, window, 0x18000, 0x18FFF, "ports", IORESOURCE_BUSY)
    assert refused(k, 0x18000, 0x18FFF) == "EINVAL"
    assert refused(k, 0x11000, 0x11FFF) == "EINVAL"
    release(k, 0x13000, 0x13FFF)
    assert resource.iomem_show(k) == (
        "00010000-0001ffff : window\n"
        "  00012000-00012fff : System RAM\n"
        "  00014000-00015fff : System RAM\n"
        "  00018000-00018fff : ports\n"
    )


def test_adjust_into_a_neighbour(k: Kernel) -> None:
    """
    An entry cannot grow into its neighbours or out of its parent.

        | [ a ] [ r ] [ b ] |
    """
    parent = ram(k, 0x1000, 0x8FFF)
    for name, start in (("a", 0x2000), ("r", 0x4000), ("b", 0x6000)):
        inside(k, parent, start, start + 0xFFF, name)
    adjust = getattr(resource, "__adjust_resource")
    r = parent.child[1]
    for start, end, why in (
        (0x2FFF, 0x4FFF, "a below"), (0x4000, 0x6000, "b above"), (0xFFF, 0x4FFF, "not contain"), (0x4000, 0x9000, "not contain"),
    ):
        with pytest.raises(KernelError, match=why):
            adjust(k, parent, r, start, end + 1 - start)
    adjust(k, parent, r, 0x3000, 0x3000)
    assert (r.start, r.end) == (0x3000, 0x5FFF)
    del parent.child[0], parent.child[1]
    adjust(k, parent, r, 0x1000, 0x8000)
    assert (r.start, r.end) == (0x1000, 0x8FFF)


# Walks


def walked(k: Kernel, start_pfn: int, nr_pages: int, stop_at: int = -1) -> tuple[int, list[tuple[int, int]]]:
    found: list[tuple[int, int]] = []

    def func(k: Kernel, pfn: int, pages: int) -> int:
        found.append((pfn, pages))
        return 7 if pfn == stop_at else 0

    return resource.walk_system_ram_range(k, start_pfn, nr_pages, func), found


def test_walk_system_ram(k: Kernel) -> None:
    """
    The walk sees the parts of busy System RAM that lie in the range, nothing else, and not what is inside them.

        pfn  1     2     3     4     5     6
        |    [ RAM [code]     ][ rom ][ RAM ]|
        |          [ range ===============] |
    """
    r = ram(k, 1 * PAGE, 4 * PAGE - 1)
    inside(k, r, 2 * PAGE, 3 * PAGE - 1, "Kernel code", RAM)
    ram(k, 4 * PAGE, 5 * PAGE - 1, "rom", IORESOURCE_MEM | IORESOURCE_BUSY)
    ram(k, 5 * PAGE, 7 * PAGE - 1)
    assert walked(k, 2, 4) == (0, [(2, 2), (5, 1)])


def test_walk_without_system_ram(k: Kernel) -> None:
    """
    Where there is no System RAM the walk returns -1, which a caller passes on as -EPERM.

        |     [ range ]     [ RAM ] |
    """
    ram(k, 8 * PAGE, 9 * PAGE - 1)
    assert walked(k, 2, 4) == (-1, [])


def test_walk_stops_when_told(k: Kernel) -> None:
    """
    A function that returns something else than 0 ends the walk, and the walk returns that.

        | [ RAM ] [ RAM: 7 ] [ RAM ] |
    """
    for pfn in (1, 3, 5):
        ram(k, pfn * PAGE, (pfn + 1) * PAGE - 1)
    assert walked(k, 0, 8, stop_at=3) == (7, [(1, 1), (3, 1)])


def test_walk_ends_at_a_first_entry_without_a_whole_page(k: Kernel) -> None:
    """
    If the first System RAM in the range has no whole page, the walk ends with -1 before it comes to the next, as in C.

        page |     |     |     |
             | []  |[RAM]|     |
    """
    ram(k, 1 * PAGE + 0x100, 1 * PAGE + 0x1FF)
    ram(k, 2 * PAGE, 3 * PAGE - 1)
    assert walked(k, 0, 8) == (-1, [])
    assert walked(k, 2, 6) == (0, [(2, 1)])
    ram(k, 4 * PAGE - 0x80, 4 * PAGE + 0x7F)
    ram(k, 5 * PAGE, 6 * PAGE - 1)
    assert walked(k, 2, 6) == (0, [(2, 1), (5, 1)]), "later ones without a whole page are passed over"


def test_page_is_ram_and_region_intersects(k: Kernel) -> None:
    """
    Pages and ranges against RAM, something else, and holes.

        pfn  1     2     3     4
        | [ RAM ][ rom ] hole    |
    """
    ram(k, 1 * PAGE, 2 * PAGE - 1)
    ram(k, 2 * PAGE, 3 * PAGE - 1, "rom", IORESOURCE_MEM | IORESOURCE_BUSY)
    assert [resource.page_is_ram(k, pfn) for pfn in range(4)] == [False, True, False, False]
    meets, apart, mixed = resource.REGION_INTERSECTS, resource.REGION_DISJOINT, resource.REGION_MIXED
    expected = {(0, 1): apart, (0, 2): meets, (1, 1): meets, (1, 2): mixed, (2, 1): apart, (2, 4): apart, (0, 8): mixed}
    for (pfn, pages), answer in expected.items():
        assert answer == resource.region_intersects(k, pfn * PAGE, pages * PAGE, IORESOURCE_SYSTEM_RAM)


def test_an_empty_search_is_a_bug(k: Kernel) -> None:
    """find_next_iomem_res() dies of a range that ends where it starts."""
    with pytest.raises(KernelBugError, match="find_next_iomem_res"):
        resource.find_next_iomem_res(k, Resource(5, 5, ""), True)


def test_search_inside(k: Kernel) -> None:
    """
    Asked for all levels the search finds what lies inside others.

        | [ window [== RAM ==] ] |
    """
    window = ram(k, 0x10000, 0x1FFFF, "window", IORESOURCE_MEM)
    inside(k, window, 0x12000, 0x15FFF, "System RAM", RAM)
    for first_level, expected in ((True, False), (False, True)):
        assert not resource.find_next_iomem_res(k, Resource(0, 0x12000, "", RAM), first_level), "it must start below the end"
        res = Resource(0, 0x13FFF, "", RAM)
        assert expected == resource.find_next_iomem_res(k, res, first_level)
        assert ((res.start, res.end) == (0x12000, 0x13FFF)) == expected


# Against the oracle: who has which page, a dict

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 12)), max_size=60)


@given(STEPS, st.integers(0, 40), st.integers(1, 40))
def test_random_requests_and_releases(steps: list[tuple[bool, int, int]], first: int, count: int) -> None:
    """A request succeeds where all pages are free, a release where all belong to one entry, and both leave the rest alone."""
    k = bare_kernel("arm64")
    owner: dict[int, int] = {}
    for entry, (adds, page, pages) in enumerate(steps):
        span = range(page, page + pages)
        start, end = page * PAGE, (page + pages) * PAGE - 1
        if adds:
            free = not any(p in owner for p in span)
            assert (0 if free else EBUSY) == errno_of(ram, k, start, end)
            if free:
                owner.update(dict.fromkeys(span, entry))
        else:
            owners = {owner.get(p) for p in span}
            one = len(owners) == 1 and None not in owners
            assert (0 if one else EINVAL) == errno_of(release, k, start, end)
            if one:
                whose = owner[page]
                for p in span:
                    del owner[p]
                for p in [p for p, o in owner.items() if o == whose and p > page]:
                    owner[p] = -entry - 1
        entries: list[list[int]] = []
        for p in sorted(owner):
            if entries and entries[-1][1] == p and owner[p] == owner[p - 1]:
                entries[-1][1] = p + 1
            else:
                entries.append([p, p + 1])
        assert [(a * PAGE, b * PAGE - 1) for a, b in entries] == [(r.start, r.end) for r in k.iomem_resource.child]

    meets = [(max(a, first), min(b, first + count) - max(a, first)) for a, b in entries] if steps else []
    meets = [(pfn, pages) for pfn, pages in meets if pages > 0]
    assert walked(k, first, count) == (0 if meets else -1, meets)
    assert [p in owner for p in range(45)] == [resource.page_is_ram(k, p) for p in range(45)]
