# SPDX-License-Identifier: GPL-2.0-only
"""The recorder, on rooms made for the purpose."""

from __future__ import annotations

import sys
import textwrap
from errno import EBUSY, EEXIST, ENOMEM
from types import SimpleNamespace
from typing import Any

import pytest

from memhp.errors import KernelBugError, KernelError
from memhp.linux import ftrace
from memhp.linux.ftrace import Call


def room(path: str, source: str, **names: object) -> SimpleNamespace:
    """Return the functions of a synthetic room, compiled as if it lay at `path` under linux/."""
    namespace: dict[str, Any] = {"KernelError": KernelError, "KernelBugError": KernelBugError, **names}
    exec(compile(textwrap.dedent(source), f"/anywhere/memhp/linux/{path}", "exec"), namespace)
    return SimpleNamespace(**{key: value for key, value in namespace.items() if callable(value)})


def shape(calls: list[Call]) -> list[Any]:
    """Names and nesting of a tree."""
    return [(call.name, shape(call.children)) if call.children else call.name for call in calls]


def test_order_nesting_files_arguments_and_answers() -> None:
    """Two rooms call each other; the tree has C names, C files, integer arguments and return values."""
    sparse = room("mm/sparse_vmemmap.py", "def vmemmap_populate(k, start, end):\n    return end > start")
    mmzone = room("include/mmzone.py", "def pfn_valid(k, pfn):\n    return False")
    hotplug = room(
        "mm/memory_hotplug.py",
        """
        def __add_section(k, nid, zone, phys_start_pfn):
            if pfn_valid(k, phys_start_pfn):
                return 17
            populate(k, start=phys_start_pfn, end=phys_start_pfn + 8)
            return None

        def __add_pages(k, nid, start_pfn, nr_pages):
            for pfn in range(start_pfn, start_pfn + nr_pages, 8):
                __add_section(k, nid, "Normal", pfn)
            return 0
        """,
        pfn_valid=mmzone.pfn_valid,
        populate=sparse.vmemmap_populate,
    )
    with ftrace.record() as recorder:
        hotplug.__add_pages(object(), 0, start_pfn=16, nr_pages=16)

    section = ("__add_section", ["pfn_valid", "vmemmap_populate"])
    assert [("__add_pages", [section, section])] == shape(recorder.tree)
    [root] = recorder.tree
    assert ("mm/memory_hotplug.c", {"nid": 0, "start_pfn": 16, "nr_pages": 16}, 0) == (root.file, root.args, root.result)
    first, second = root.children
    assert {"nid": 0, "phys_start_pfn": 24} == second.args
    assert first.result is None and not first.raised
    assert [False, True] == [call.result for call in first.children]
    assert ["include/linux/mmzone.h", "mm/sparse-vmemmap.c"] == [call.file for call in first.children]
    assert [0, 1, 2, 3, 4, 5, 6] == [call.begin for call in recorder.walk()]


def test_what_is_not_a_function_of_the_kernel_is_not_a_node() -> None:
    """Methods, lambdas, comprehensions, generators, closures and files that are ours stay out; what they call moves up."""
    ours = room("state.py", "def fork(k):\n    return 1")
    locks = room("sched.py", "def mutex_lock(k):\n    return None\ndef start(k):\n    return None")
    mm = room(
        "mm/page_alloc.py",
        """
        class Zone:
            def __init__(self, k):
                self.k = k
            def ask(self):
                return deep(self.k)

        def deep(k):
            return 3

        def each(k):
            yield deep(k)

        def top(k):
            def inner():
                return deep(k)
            fork(k), start(k), mutex_lock(k)
            Zone(k).ask()
            total = sum(deep(k) for _ in range(2)) + sum([deep(k) for _ in range(2)])
            total += (lambda: deep(k))() + inner()
            return total + sum(each(k))
        """,
        fork=ours.fork,
        start=locks.start,
        mutex_lock=locks.mutex_lock,
    )
    with ftrace.record() as recorder:
        mm.top(None)
    assert [("top", ["mutex_lock"] + ["deep"] * 8)] == shape(recorder.tree)
    assert "kernel/locking/mutex.c" == recorder.find("mutex_lock")[0].file


def test_labels_are_kept_apart_and_count_their_range() -> None:
    """`_not_early(k, start, end)` is the label of memmap_init_zone(): no node, but its pages can be counted."""
    mm = room(
        "mm/page_alloc.py",
        '''
        def set_pageblock_migratetype(k, start, end):
            return None

        def _not_early(k, start, end):
            set_pageblock_migratetype(k, start, end)

        def pages_of(k, start, end):
            """Count. Source: none"""

        def memmap_init_zone(k, start, end):
            _not_early(k, start, start + 4)
            pages_of(k, start, end)
            _not_early(k, start + 4, end)
        ''',
    )
    with ftrace.record() as recorder:
        mm.memmap_init_zone(None, 0, 10)
    assert [("memmap_init_zone", ["set_pageblock_migratetype"] * 2)] == shape(recorder.tree)
    assert 10 == sum(label.args["end"] - label.args["start"] for label in recorder.labelled("not_early"))
    assert 1 == len(recorder.labelled("pages_of"))


def test_what_is_asked_for_peoples_sake_stays_out() -> None:
    """`_why_not_reserved()` looks again, to put a refusal into words; the kernel did not look twice."""
    mm = room(
        "drivers/base/memory.py",
        """
        def pfn_valid(k):
            return True

        def _pfns(k):
            return pfn_valid(k)

        def _why_not_reserved(k):
            return pfn_valid(k) and _pfns(k)

        def memory_block_action(k):
            pfn_valid(k)
            _why_not_reserved(k)
            pfn_valid(k)
        """,
    )
    notes: list[str] = []
    with ftrace.record({"pfn_valid": lambda k, call: notes.append(call.name)}) as recorder:
        mm.memory_block_action(None)
    assert [("memory_block_action", ["pfn_valid", "pfn_valid"])] == shape(recorder.tree)
    assert ["pfn_valid", "pfn_valid"] == notes
    assert ["why_not_reserved"] == [label.name for label in recorder.tree[0].labels]


def test_refusals_are_told_from_returned_none() -> None:
    """
    A refusal is seen in every call that it leaves, and in none that swallows it.

        outer -> swallow -> refuse (EEXIST, swallowed)
              -> undo    -> refuse (EBUSY, re-raised after a clean-up that swallows another EEXIST)
    """
    mm = room(
        "mm/memory_hotplug.py",
        """
        def refuse(k, errno):
            raise KernelError(errno)

        def swallow(k):
            try:
                refuse(k, EEXIST)
            except KernelError:
                pass

        def undo(k):
            try:
                refuse(k, EBUSY)
            except KernelError:
                swallow(k)
                raise

        def outer(k):
            swallow(k)
            try:
                undo(k)
            finally:
                swallow(k)
        """,
        EEXIST=EEXIST,
        EBUSY=EBUSY,
    )
    with pytest.raises(KernelError) as caught, ftrace.record() as recorder:
        mm.outer(None)
    errnos = [(call.name, call.raised, call.error.errno if call.error else None) for call in recorder.walk()]
    swallowed = [("swallow", False, None), ("refuse", True, EEXIST)]
    assert [
        ("outer", True, EBUSY),
        *swallowed,
        ("undo", True, EBUSY),
        ("refuse", True, EBUSY),
        *swallowed,
        *swallowed,
    ] == errnos
    assert recorder.tree[0].error is caught.value


def test_a_new_error_from_an_old_one() -> None:
    """`raise KernelError(ENOMEM) from err`: the caller is left with the new one."""
    mm = room(
        "mm/sparse.py",
        """
        def populate(k):
            raise KernelError(EEXIST)

        def sparse_add_one_section(k):
            try:
                populate(k)
            except KernelError as err:
                raise KernelError(ENOMEM) from err
        """,
        EEXIST=EEXIST,
        ENOMEM=ENOMEM,
    )
    with pytest.raises(KernelError), ftrace.record() as recorder:
        mm.sparse_add_one_section(None)
    assert [ENOMEM, EEXIST] == [call.error.errno for call in recorder.walk() if call.error]


def test_a_death_is_recorded_and_the_profile_function_goes() -> None:
    """An oops in a function that is no node of its own is laid to the node that was running, not to an older refusal."""
    ours = room("bug.py", "def oops(log):\n    raise KernelBugError('no page table')")
    mm = room(
        "mm/page_alloc.py",
        """
        def refuse(k):
            raise KernelError(17)

        def SetPageReserved(k):
            try:
                refuse(k)
            except KernelError:
                pass
            oops(k)

        def arch_add_memory(k):
            SetPageReserved(k)
        """,
        oops=ours.oops,
    )
    assert sys.getprofile() is None
    with pytest.raises(KernelBugError), ftrace.record() as recorder:
        mm.arch_add_memory(None)
    assert sys.getprofile() is None
    assert [("arch_add_memory", [("SetPageReserved", ["refuse"])])] == shape(recorder.tree)
    assert [KernelBugError, KernelBugError, KernelError] == [type(call.error) for call in recorder.walk()]


def test_a_foreign_exception_has_no_kernel_error() -> None:
    mm = room("mm/sparse.py", "def look(k):\n    return {}[0]")
    with pytest.raises(KeyError), ftrace.record() as recorder:
        mm.look(None)
    assert (True, None) == (recorder.tree[0].raised, recorder.tree[0].error)


def test_a_previous_profile_function_comes_back() -> None:
    seen: list[str] = []

    def other(frame: object, event: str, arg: object) -> None:
        seen.append(event)

    mm = room("mm/sparse.py", "def look(k):\n    return 1")
    sys.setprofile(other)
    try:
        with ftrace.record() as outer:
            mm.look(None)
            with ftrace.record() as inner:
                mm.look(None)
            mm.look(None)
        assert sys.getprofile() is other
    finally:
        sys.setprofile(None)
    assert (["look", "look"], ["look"]) == (shape(outer.tree), shape(inner.tree))


def test_a_watch_sees_the_kernel_as_it_was() -> None:
    """A watch is called when the function ends, with its kernel, before the caller goes on; it is not recorded itself."""
    mm = room(
        "mm/memblock.py",
        """
        def memblock_mark_nomap(k, base, size):
            k["nomap"] = True

        def look(k):
            return k["nomap"]

        def arch_add_memory(k):
            memblock_mark_nomap(k, 0, 4)
            k["nomap"] = False
        """,
    )
    with ftrace.record({"memblock_mark_nomap": lambda k, call: (mm.look(k), call.args["size"])}) as recorder:
        mm.arch_add_memory({"nomap": False})
    assert [("arch_add_memory", ["memblock_mark_nomap"])] == shape(recorder.tree)
    assert (True, 4) == recorder.find("memblock_mark_nomap")[0].note


def test_runs_are_kept_and_objects_are_not() -> None:
    """A list of runs is a result one can print; an object of the kernel would be a reference to a state that moves on."""
    mm = room(
        "mm/page_alloc.py",
        "def runs(k):\n    return [(0, 4, True)]\ndef zone(k):\n    return object()\ndef long(k):\n    return list(range(99))",
    )
    with ftrace.record() as recorder:
        mm.runs(None), mm.zone(None), mm.long(None)
    assert [((0, 4, True),), None, None] == [call.result for call in recorder.tree]
