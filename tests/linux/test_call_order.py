# SPDX-License-Identifier: GPL-2.0-only
"""The model's call trees, held against those that ftrace recorded of real v4.9 kernels. The real kernel is right."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

import memhp.linux
from memhp.abi import memmap, recorded
from memhp.errors import KernelBugError, KernelError
from memhp.linux import boot, ftrace, tree
from memhp.linux.fs import sysfs
from memhp.linux.ftrace import Call, Recorder
from memhp.linux.state import Kernel
from memhp.report import calls

ROOMS = Path(memhp.linux.__path__[0])
CSOURCE = Path(__file__).parents[1] / "data" / "csource" / "v4.9.json"
PROBE = "/sys/devices/system/memory/probe"

LEFT_OUT = {
    "probe": {"pfn_valid", "__init_single_page", "__init_single_pfn", "memblock_search", "memblock_is_map_memory"},
    "online": {
        "free_one_page", "__free_pages_ok", "get_pfnblock_flags_mask", "free_pcppages_bulk", "free_hot_cold_page",
        "get_page_from_freelist", "__free_pages", "adjust_managed_page_count", "memblock_search", "memblock_is_map_memory",
        "generic_online_page", "__online_page_set_limits", "__online_page_increment_counters", "__online_page_free",
    },
    "offline": {
        "free_one_page", "__free_pages_ok", "get_pfnblock_flags_mask", "set_pfnblock_flags_mask", "free_pcppages_bulk",
        "free_hot_cold_page", "get_page_from_freelist", "__free_pages", "adjust_managed_page_count", "isolate_lru_page",
        "putback_lru_page", "memblock_search", "memblock_is_map_memory",
    },
}  # fmt: skip
"""What the tracer was told to leave out (set_ftrace_notrace): functions called once for each page."""

OTHER_NAMES = {"hotplug_linear_map": "hotplug_paging"}
"""The recorded kernels' patch -> the series' own name."""

SERIES = {"arch_add_memory", "hotplug_paging", "memblock_clear_nomap", "clear_section_nomap"}
"""Functions that the 2016 series brings: v4.9 has none of them on arm64."""


@dataclass(frozen=True)
class Case:
    """
    A recorded machine and what was written to it.

    Attributes:
        recording: Its name.
        remedy: As in `remedy=`.
        block: The memory block that appears.
        word: What was written to its state.
        probe, online, offline: Calls inside one C file that the compiler inlined there, as the comparison is to find them.
    """

    recording: str
    remedy: str
    block: int
    word: str = "online"
    probe: tuple[tuple[str, str], ...] = ()
    online: tuple[tuple[str, str], ...] = ()
    offline: tuple[tuple[str, str], ...] | None = None


SETCLR = ("memblock_clear_nomap", "memblock_setclr_flag")
PAGEBLOCK = ("memmap_init_zone", "set_pageblock_migratetype")
FREE_PAGES = ("build_all_zonelists", "nr_free_pagecache_pages")
X86_LOCKS = (("add_memory_resource", "mem_hotplug_begin"), ("add_memory_resource", "mem_hotplug_done"))
X86_LISTS = (("build_all_zonelists", "build_zonelists"), ("build_all_zonelists", "build_zonelists_node"), FREE_PAGES)
CASES = (
    Case("v4.9-arm64-rfc/full", "full", 2, probe=(SETCLR, PAGEBLOCK), online=(FREE_PAGES,)),
    Case("v4.9-arm64-rfc/nohack", "nohack", 2, probe=(SETCLR, PAGEBLOCK)),
    Case("v4.9-arm64-rfc/generic", "generic", 2, probe=(PAGEBLOCK,), online=(FREE_PAGES,)),
    Case("v4.9-x86_64/1-probe", "", 16, probe=X86_LOCKS, online=X86_LISTS),
    Case("v4.9-x86_64/1b-online_movable", "", 16, "online_movable", probe=X86_LOCKS, online=X86_LISTS, offline=X86_LISTS),
)
IDS = [case.recording for case in CASES]


def start(name: str, remedy: str) -> Kernel:
    """Boot the model on the memory map that a recorded kernel found."""
    recording = recorded.recording(name)
    hardware = memmap.hardware_from_map(recording.directory / "00-boot", recording.arch)
    which = tree.V4_9_RFC if remedy else tree.V4_9
    return boot.boot(which, recording.arch, hardware, remedy=remedy)


def write(k: Kernel, path: str, text: str) -> tuple[Recorder, str]:
    """Write as a task of its own; return what ran, and the errno's name or "oops"."""
    boot.new_task(k)
    answer = ""
    with ftrace.record() as recorder:
        try:
            sysfs.write(k, path, text)
        except KernelError as err:
            answer = err.name
        except KernelBugError:
            answer = "oops"
            boot.task_died(k)
    boot.user_space(k)
    return recorder, answer


@cache
def both(case: Case) -> dict[str, Recorder]:
    """Add and online once for all tests; the answers must be the recorded ones."""
    k = start(case.recording, case.remedy)
    recording = recorded.recording(case.recording)
    probe, answer = write(k, PROBE, "0x80000000")
    assert recording.write("0x80000000").result == answer
    online, answer = write(k, f"/sys/devices/system/memory/memory{case.block}/state", case.word)
    assert recording.write(case.word).result == answer
    if case.offline is None:
        return {"probe": probe, "online": online}
    offline, answer = write(k, f"/sys/devices/system/memory/memory{case.block}/state", "offline")
    assert recording.write("offline").result == answer
    return {"probe": probe, "online": online, "offline": offline}


@cache
def modelled() -> frozenset[str]:
    """Return every function that a room defines."""
    return frozenset(
        node.name
        for room in ROOMS.rglob("*.py")
        for node in ast.parse(room.read_text()).body
        if isinstance(node, ast.FunctionDef) and (ftrace.c_file(str(room)) or (room.stem, node.name) in ftrace.TWINS)
    )


def traced(name: str, what: str) -> list[Call]:
    """Return a recorded tree with the series' names, without what the test kernel printed about itself."""

    def own(entries: list[Call], caller: str) -> list[Call]:
        kept = []
        for call in entries:
            if caller == "arch_add_memory" and call.name == "printk":
                continue
            call.name = OTHER_NAMES.get(call.name, call.name)
            call.children = own(call.children, call.name)
            kept.append(call)
        return kept

    return own(calls.read_trace(recorded.recording(name).trace(what)), "")


def traceable(name: str, what: str) -> set[str]:
    """Return the functions that a recorded kernel's tracer could show: those that it, or its profiler, did show."""
    shown = set[str]()
    for other in ("v4.9-x86_64/1-probe", name) if name.startswith("v4.9-x86_64") else (name,):
        shown |= {function for kind in ("probe", "online") for function in calls.names(traced(other, kind))}
    counted = "v4.9-x86_64/1-probe" if name.startswith("v4.9-x86_64") else name
    shown |= {function for kind in ("probe", "online") for function in recorded.recording(counted).counts(kind)}
    return shown - LEFT_OUT[what]


def once(trace: list[Call]) -> list[Call]:
    """
    Return a trace of taking a block offline without the first round of migration.

    That round found pages on their way to the LRU lists (per-cpu, which the model does not keep) and put back what it had.
    """
    [pages] = trace[0].find("__offline_pages")
    rounds = [call for call in pages.children if call.name == "do_migrate_range"]
    assert [["putback_movable_pages"], ["migrate_pages"]] == [
        [call.name for call in one.children if call.name in ("putback_movable_pages", "migrate_pages")] for one in rounds]
    first, second = (pages.children.index(one) for one in rounds)
    del pages.children[first:second]
    return trace


def eight_deep(call: Call, depth: int = 1) -> Call:
    """Return a tree of the model as deep as offline was traced; what the compiler inlined there is no level of its own."""
    inlined = {"set_migratetype_isolate", "check_pages_isolated", "offline_isolated_pages", "__setup_per_zone_wmarks"}
    below = depth if call.name in inlined else depth + 1
    return replace(call, children=[eight_deep(child, below) for child in call.children] if below <= 8 else [])


def compare(case: Case, what: str) -> calls.Comparison:
    root = {"probe": "add_memory", "online": "memory_subsys_online", "offline": "memory_subsys_offline"}[what]
    theirs = traced(case.recording, what)
    ours = both(case)[what].find(root)
    return calls.compare(
        [eight_deep(call) for call in ours] if what == "offline" else ours,
        once(theirs) if what == "offline" else theirs,
        modelled=modelled(),
        traceable=traceable(case.recording, what),
    )


@pytest.mark.parametrize("what", ["probe", "online"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_same_order_and_nesting(case: Case, what: str) -> None:
    """Every function that both have occurs in the same order and nesting; what the compiler inlined is known by name."""
    result = compare(case, what)
    assert "" == result.difference
    assert (case.probe if what == "probe" else case.online) == result.inlined


def test_offline_has_the_same_order_and_nesting() -> None:
    """The one recorded trace of a block that went offline, from memory_subsys_offline() down."""
    [case] = [case for case in CASES if case.offline is not None]
    result = compare(case, "offline")
    assert "" == result.difference
    assert case.offline == result.inlined
    assert {
        "memory_block_change_state", "__offline_pages", "test_pages_in_a_zone", "start_isolate_page_range", "has_unmovable_pages",
        "move_freepages_block", "memory_notify", "do_migrate_range", "migrate_pages", "check_pages_isolated_cb",
        "test_pages_isolated", "__offline_isolated_pages", "undo_isolate_page_range", "unset_migratetype_isolate",
        "init_per_zone_wmark_min", "zone_pcp_reset", "build_all_zonelists",
    } <= set(result.common)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_story_is_among_what_was_compared(case: Case) -> None:
    """Equality of two trees with nothing in common would be worth nothing."""
    common = set(compare(case, "probe").common)
    assert {
        "add_memory_resource", "memblock_add_node", "arch_add_memory", "zone_for_memory", "__add_pages", "__add_section",
        "sparse_add_one_section", "sparse_init_one_section", "vmemmap_populate", "__add_zone", "grow_zone_span",
        "memmap_init_zone", "register_new_memory", "set_zone_contiguous", "mutex_lock", "mutex_unlock",
    } <= common  # fmt: skip
    if case.remedy in ("full", "nohack"):
        assert {"hotplug_paging", "memblock_mark_nomap", "memblock_isolate_range", "memblock_clear_nomap"} <= common
    online = set(compare(case, "online").common)
    assert "memory_block_change_state" in online
    if case.remedy != "nohack":
        assert {"online_pages", "build_all_zonelists", "online_pages_range", "setup_per_zone_wmarks"} <= online


def test_a_wrong_order_would_be_noticed() -> None:
    """Clear the mark before the sections are added, or forget to build the zonelists: the comparison says so."""
    case = CASES[0]
    theirs = traced(case.recording, "probe")
    arch = theirs[0].find("arch_add_memory")[0]
    arch.children.sort(key=lambda call: call.name == "__add_pages")
    shown = traceable(case.recording, "probe")
    result = calls.compare(both(case)["probe"].find("add_memory"), theirs, modelled=modelled(), traceable=shown)
    assert "arch_add_memory" in result.difference
    theirs = traced(case.recording, "online")
    pages = theirs[0].find("online_pages")[0]
    pages.children = [call for call in pages.children if call.name != "build_all_zonelists"]
    shown = traceable(case.recording, "online")
    result = calls.compare(both(case)["online"].find("memory_subsys_online"), theirs, modelled=modelled(), traceable=shown)
    assert "build_all_zonelists" in result.difference


def test_nonomap_dies_where_the_real_kernel_died() -> None:
    """
    The path of the oops, from the write to `probe` down.

    In C SetPageReserved() is a set_bit() inlined into arch_add_memory().
    """
    theirs = calls.read_backtrace("\n".join(recorded.recording("v4.9-arm64-rfc/nonomap").write("0x80000000").log))
    theirs = theirs[theirs.index("memory_probe_store") :]
    k = start("v4.9-arm64-rfc/nonomap", "nonomap")
    recorder, answer = write(k, PROBE, "0x80000000")
    assert "oops" == answer
    ours = []
    level = recorder.tree
    while dead := [call for call in level if isinstance(call.error, KernelBugError)]:
        ours.append(dead[0].name)
        level = dead[0].children
    assert theirs[:-1] == ours[:-1]
    assert ("set_bit", "SetPageReserved") == (theirs[-1], ours[-1])


@pytest.mark.parametrize("case", CASES[:4], ids=IDS[:4])
def test_pages_are_counted_as_the_profiler_counted_them(case: Case) -> None:
    """One range here is a loop in C; its pages are the calls that the real kernel's profiler counted."""
    counts = recorded.recording(case.recording).counts("probe")
    probe = both(case)["probe"]
    pages = k_pages(probe)
    assert counts["__init_single_page"] == sum(call.args["nr_pages"] for call in probe.find("__init_single_page")) == pages
    assert pages == sum(label.args["end"] - label.args["start"] for label in probe.labelled("not_early"))
    assert [] == probe.find("early_pfn_valid")
    if "pfn_valid" in counts:
        loop = [label for call in probe.find("__add_zone") for label in call.labels if label.name == "pfn_valid_runs"]
        asked = len(probe.find("pfn_valid")) + sum(label.args["end"] - label.args["start"] for label in loop)
        assert counts["pfn_valid"] == asked
    online = recorded.recording(case.recording).counts("online")
    onlined = sum(call.args["nr_pages"] for call in both(case)["online"].find("generic_online_page"))
    assert online.get("generic_online_page", 0) == onlined


def k_pages(recorder: Recorder) -> int:
    """Pages of the added range."""
    return sum(call.args["size"] for call in recorder.find("memmap_init_zone"))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_no_ghosts(case: Case) -> None:
    """A function that ran in the model exists in the C tree, in that file or, where a room took it over, in another."""
    files: dict[str, dict[str, list[list[int]]]] = json.loads(CSOURCE.read_text())["files"]
    everywhere = {name for functions in files.values() for name in functions}
    ran = {call.name: call.file for recorder in both(case).values() for call in recorder.walk()}
    assert set() == {f"{file} {name}()" for name, file in ran.items() if name not in everywhere} - {
        f"{file} {name}()" for name, file in ran.items() if name in SERIES and case.remedy
    }


def test_the_index_holds_no_code() -> None:
    """File and function names and line numbers, nothing else."""
    index = json.loads(CSOURCE.read_text())
    assert {"release", "files"} == index.keys()
    for functions in index["files"].values():
        for name, ranges in functions.items():
            assert name.isidentifier()
            assert all(isinstance(line, int) for first_last in ranges for line in first_last)
            assert all(0 < first <= last for first, last in ranges)
    add_pages = index["files"]["mm/memory_hotplug.c"]["__add_pages"]
    assert [[528, 572]] == add_pages
