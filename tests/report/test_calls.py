# SPDX-License-Identifier: GPL-2.0-only
"""Reading the traces of real kernels, and holding trees against each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memhp.abi import recorded
from memhp.errors import KernelError
from memhp.linux.ftrace import Call
from memhp.report import calls

TRACES = [f"{name}/{what}" for name in recorded.names() for what in recorded.recording(name).traces]
PRINTED = {
    "v4.9-arm64-rfc/full/probe": 1411,
    "v4.9-arm64-rfc/full/online": 382,
    "v4.9-arm64-rfc/generic/probe": 1860,
    "v4.9-arm64-rfc/generic/online": 382,
    "v4.9-arm64-rfc/nohack/probe": 1453,
    "v4.9-arm64-rfc/nohack/online": 29,
    "v4.9-x86_64/1-probe/probe": 808,
    "v4.9-x86_64/1-probe/online": 292,
    "v4.9-x86_64/1b-online_movable/probe": 809,
    "v4.9-x86_64/1b-online_movable/online": 304,
    "v4.9-x86_64/1b-online_movable/offline": 814,
}
"""Lines of each trace as the kernel printed it, header and blank lines left out."""
PROBES = ("v4.9-arm64-rfc/full", "v4.9-arm64-rfc/nohack", "v4.9-arm64-rfc/generic", "v4.9-x86_64/1-probe")


def text_of(path: str) -> str:
    name, _, what = path.rpartition("/")
    return recorded.recording(name).trace(what)


def trace(path: str) -> list[Call]:
    return calls.read_trace(text_of(path))


def only(tree: list[Call], *names: str) -> list[Any]:
    """Names and nesting of some functions in a tree, repeats folded."""

    def text(shapes: Any) -> list[Any]:
        return [(s.name, text(s.children)) if s.children else s.name for s in shapes]

    return text(calls._shape(calls.splice(tree, names)))


def tree(*entries: Any) -> list[Call]:
    """Build trees: "name", or ("name", children…)."""
    built = []
    for entry in entries:
        name, children = (entry, ()) if isinstance(entry, str) else (entry[0], entry[1:])
        built.append(Call(name, children=tree(*children)))
    return built


# Reading


@pytest.mark.parametrize("path", TRACES)
def test_unfolded_trace_has_as_many_lines_as_the_kernel_printed(path: str) -> None:
    """It was noted how long each trace was before it was folded; unfolding must give that length, and one tree."""
    assert PRINTED[path] == len(calls.graph(text_of(path)))
    assert 1 == len(trace(path))


@pytest.mark.parametrize("path", PROBES)
def test_hot_add_nests_as_in_c(path: str) -> None:
    """__add_section() makes the section, puts it into the zone, announces its block: in every recorded hot-add."""
    assert [
        ("__add_section", ["sparse_add_one_section", "__add_zone", "register_new_memory"]),
    ] == only(trace(f"{path}/probe"), "__add_section", "sparse_add_one_section", "__add_zone", "register_new_memory")
    assert [
        ("__add_pages", ["clear_zone_contiguous", "__add_section", "vmemmap_populate_print_last", "set_zone_contiguous"]),
    ] == only(
        trace(f"{path}/probe"),
        *("__add_pages", "clear_zone_contiguous", "__add_section", "vmemmap_populate_print_last", "set_zone_contiguous"),
    )
    assert [
        ("memmap_init_zone", ["set_pfnblock_flags_mask"]),
    ] == calls_below(trace(f"{path}/probe"), "memmap_init_zone")


def calls_below(roots: list[Call], name: str) -> list[Any]:
    """One function and everything below it, repeats folded."""
    found = [call for root in roots for call in root.find(name)]
    return only(found, *calls.names(found))


def test_nomap_window_of_the_mail() -> None:
    """Marking and clearing stand around __add_pages(); marking splits a region off, clearing merges it back."""
    names = (
        "arch_add_memory", "hotplug_linear_map", "memblock_mark_nomap", "memblock_setclr_flag", "memblock_isolate_range",
        "memblock_insert_region", "memblock_merge_regions", "__add_pages", "memblock_clear_nomap",
    )  # fmt: skip
    mark = ("memblock_mark_nomap", [
        ("memblock_setclr_flag", [("memblock_isolate_range", ["memblock_insert_region"]), "memblock_merge_regions"]),
    ])  # fmt: skip
    clear = ("memblock_clear_nomap", ["memblock_isolate_range", "memblock_merge_regions"])
    roots = trace("v4.9-arm64-rfc/full/probe")
    arch = [call for root in roots for call in root.find("arch_add_memory")]
    assert [("arch_add_memory", ["hotplug_linear_map", mark, "__add_pages", clear])] == only(arch, *names)
    # The generic pfn_valid() needs none of it.
    roots = trace("v4.9-arm64-rfc/generic/probe")
    assert not {"memblock_mark_nomap", "memblock_clear_nomap"} & calls.names(roots)


def test_passages_printed_twice_and_interrupts_are_gone() -> None:
    """The three arm64 hot-adds ran the same kernel; what is left after clean-up differs only in what the remedies do."""
    kept = ("full", "nohack", "generic")
    shapes = {}
    for remedy in kept:
        roots = trace(f"v4.9-arm64-rfc/{remedy}/probe")
        assert not calls.names(roots) & (calls.INTERRUPTS | {calls.MISSED})
        assert 1 == sum(len(root.find("__add_section")) for root in roots)
        assert 1 == sum(len(root.find("device_add")) for root in roots)
        assert 1 == sum(len(root.find("bus_probe_device")) for root in roots)
        # What the page allocator and sysfs do inside depends on what they did before.
        inside = ("__alloc_pages_nodemask", "kmem_cache_alloc_trace", "device_add")
        below = calls.names(call for root in roots for name in inside for found in root.find(name) for call in found.children)
        added = [call for root in roots for call in root.find("__add_pages")]
        shapes[remedy] = only(added, *(calls.names(added) - below))
    assert shapes["full"] == shapes["nohack"]
    assert shapes["full"] == shapes["generic"]


def test_online_of_a_zone_without_pages() -> None:
    """Zonelists are built twice around the walk over System RAM, on both architectures; the watermarks come afterwards."""
    names = ("online_pages", "build_all_zonelists", "walk_system_ram_range", "online_pages_range", "init_per_zone_wmark_min",
             "kswapd_run")  # fmt: skip
    expected = [
        ("online_pages", [
            "build_all_zonelists", ("walk_system_ram_range", ["online_pages_range"]), "build_all_zonelists",
            "init_per_zone_wmark_min", "kswapd_run",
        ])
    ]  # fmt: skip
    assert expected == only(trace("v4.9-arm64-rfc/full/online"), *names)
    assert expected == only(trace("v4.9-arm64-rfc/generic/online"), *names)
    assert expected == only(trace("v4.9-x86_64/1-probe/online"), *names)


def test_refused_online_never_reaches_online_pages() -> None:
    roots = trace("v4.9-arm64-rfc/nohack/online")
    assert [
        ("memory_subsys_online", [("memory_block_change_state", ["pfn_valid", "printk"])]),
    ] == only(roots, "memory_subsys_online", "memory_block_change_state", "pfn_valid", "printk", "online_pages")


def test_where_nonomap_dies() -> None:
    """The oops of `nonomap`: SetPageReserved() is a set_bit() inlined into arch_add_memory(), on a memmap that was never made."""
    log = recorded.recording("v4.9-arm64-rfc/nonomap").write("0x80000000").log
    text = "\n".join(log)
    assert [
        "memory_probe_store", "add_memory", "add_memory_resource", "arch_add_memory", "set_bit",
    ] == calls.read_backtrace(text)[-5:]  # fmt: skip
    assert [] == calls.read_backtrace("[    0.1] all is well\n")


def test_a_reader_that_went_back() -> None:
    """
    The reader prints b, c again, arriving inside b; the rest comes once.

        a { b() c() d {   | } b   c() d { e() } }
    """
    text = "  a() {\n    b();\n    c();\n    d() {\n    } /* b */\n    c();\n    d() {\n      e();\n    }\n  }\n"
    assert [("a", ["b", "c", ("d", ["e"])])] == only(calls.read_trace(text), *"abcde")


def test_lost_lines_keep_their_depth() -> None:
    """An interrupt whose beginning was lost is cut out; a jump inwards without beginning hangs below what is open."""
    irq = "  a() {\n    b();\n          tick();\n        } /* irq_exit */\n    } /* gic_handle_irq */\n    c();\n  }\n"
    assert [("a", ["b", "c"])] == only(calls.read_trace(irq), "a", "b", "c", "tick")
    jump = "  a() {\n    b();\n        inner();\n      } /* lost */\n    } /* outer */\n    c();\n  }\n"
    assert [("a", ["b", ("outer", [("lost", ["inner"])]), "c"])] == only(
        calls.read_trace(jump), "a", "b", "c", "outer", "lost", "inner"
    )


@pytest.mark.parametrize(
    "fold", ["/* the 9 line(s) above: 2 times in a row */", "/* the 1 line(s) above: 99999999 times in a row */"]
)
def test_folds_that_cannot_be(fold: str) -> None:
    with pytest.raises(ValueError, match="line"):
        calls.read_trace(f"  a();\n{fold}\n")


def printed(roots: list[Call], depth: int = 1) -> list[str]:
    """A tree as function_graph prints it."""
    lines = []
    for call in roots:
        if call.children:
            lines += ["  " * depth + call.name + "() {", *printed(call.children, depth + 1), "  " * depth + "}"]
        else:
            lines.append("  " * depth + call.name + "();")
    return lines


forests = st.recursive(
    st.builds(Call, st.sampled_from("abcd")),
    lambda below: st.builds(lambda n, c: Call(n, children=c), st.sampled_from("abcd"), st.lists(below, max_size=4)),
    max_leaves=20,
)


@given(st.lists(forests, max_size=4))
def test_what_is_printed_is_read_back(roots: list[Call]) -> None:
    assert roots == calls.read_trace("\n".join(printed(roots)))


# Comparing


def test_equal_trees_and_the_functions_only_one_side_has() -> None:
    """The compiler inlined `inlined`; the model has no `lock`, and does in one call what the kernel does page by page."""
    model = tree(("add", ("inlined", "sparse", "zone"), "register"))
    kernel = tree(("add", "sparse", "lock", "zone", "zone", "zone", "register"))
    result = calls.compare(model, kernel)
    assert result.equal
    assert (("add", "register", "sparse", "zone"), ("lock",), ("inlined",)) == (
        result.common,
        result.kernel_only,
        result.model_only,
    )


def test_groups_that_repeat_are_folded() -> None:
    kernel = tree(("populate", "pgd", "pud", ("alloc", "page"), "pgd", "pud", ("alloc", "page")))
    assert calls.compare(tree(("populate", "pgd", "pud", ("alloc", "page"))), kernel).equal


@pytest.mark.parametrize(
    ("model", "kernel", "words"),
    [
        (tree(("a", "c", "b")), tree(("a", "b", "c")), "in a, call 1: the kernel enters b(), the model enters c()"),
        (tree(("a", "b"), "c"), tree(("a", "b", "c")), "in a, call 2: the kernel enters c(), the model returns after b()"),
        (tree(("a", "b", "c")), tree(("a", "b"), "c"), "in a, call 2: the kernel returns after b(), the model enters c()"),
        (tree(("a", ("b", "c"))), tree("a", ("b", "c")), "in a, call 1: the kernel calls nothing, the model enters b()"),
    ],
)
def test_order_and_nesting_must_be_equal(model: list[Call], kernel: list[Call], words: str) -> None:
    result = calls.compare(model, kernel)
    assert not result.equal
    assert words == result.difference.splitlines()[0]
    assert ["kernel:", "model:"] == [line.split()[0] for line in result.difference.splitlines()[1:]]


def test_a_function_that_one_side_has_but_did_not_run_is_a_difference() -> None:
    """Told that the model has c() and that the tracer shows d(), silence about them counts."""
    assert calls.compare(tree("a", "b"), tree("a", "b", "c")).equal
    assert not calls.compare(tree("a", "b"), tree("a", "b", "c"), modelled={"c"}).equal
    assert calls.compare(tree("a", "b", "d"), tree("a", "b")).equal
    assert not calls.compare(tree("a", "b", "d"), tree("a", "b"), traceable={"d"}).equal


def test_locks_inside_foreign_functions_do_not_count() -> None:
    """device_add() is not modelled, so its own mutex_lock() says nothing about ours."""
    model = tree(("register", "mutex_lock", "mutex_unlock", "printk"))
    kernel = tree(("register", "mutex_lock", ("device_add", "printk"), "mutex_unlock", "printk"))
    assert calls.compare(model, kernel).equal
    assert not calls.compare(model, kernel, primitives=()).equal


def test_the_inside_of_the_page_allocator_does_not_count() -> None:
    """Which free list answers depends on everything that ran before."""
    model = tree(("populate", ("__alloc_pages_nodemask", "zone")))
    kernel = tree(("populate", ("__alloc_pages_nodemask", "fallback", "zone")))
    assert calls.compare(model, kernel, modelled={"fallback"}).equal
    assert not calls.compare(model, kernel, modelled={"fallback"}, opaque=()).equal


def test_real_trees_equal_themselves_and_not_each_other() -> None:
    """What distinguishes the recordings is what the remedies do, and comparison finds just that."""
    full = trace("v4.9-arm64-rfc/full/probe")
    generic = trace("v4.9-arm64-rfc/generic/probe")
    assert calls.compare(full, full).equal
    own = calls.names(full) | calls.names(generic)
    difference = calls.compare(full, generic, modelled=own, traceable=own).difference
    assert "the kernel enters zone_for_memory(), the model enters memblock_mark_nomap()" in difference.splitlines()[0]


# Side by side


def test_the_first_place_where_two_trees_part() -> None:
    left = [Call("add", children=[Call("pfn_valid", result=True), Call("sparse"), Call("zone")])]
    right = [Call("add", children=[Call("pfn_valid", result=False), Call("sparse"), Call("memory"), Call("zone")])]
    rows = calls.align(left, right)
    assert [
        (0, "add", "add", False),
        (1, "pfn_valid", "pfn_valid", True),
        (1, "sparse", "sparse", False),
        (1, None, "memory", False),
        (1, "zone", "zone", False),
    ] == [(r.depth, r.left and r.left.name, r.right and r.right.name, r.parts) for r in rows]


def test_a_refusal_parts_two_trees() -> None:
    left = [Call("add", raised=True, error=KernelError(17))]
    assert [True] == [row.parts for row in calls.align(left, [Call("add")])]
    assert [False] == [row.parts for row in calls.align(left, left)]


@given(st.lists(forests, max_size=3), st.lists(forests, max_size=3))
def test_alignment_loses_and_invents_nothing(left: list[Call], right: list[Call]) -> None:
    rows = calls.align(left, right)
    walked = [[c.name for root in side for c in root.walk()] for side in (left, right)]
    assert walked == [[r.left.name for r in rows if r.left], [r.right.name for r in rows if r.right]]
    assert sum(row.parts for row in rows) == (walked[0] != walked[1] or any(r.left is None or r.right is None for r in rows))
