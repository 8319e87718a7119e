# SPDX-License-Identifier: GPL-2.0-only
"""
Which kernel functions ran, in which order, and what they answered: watched from outside.

The rooms carry no decorators. `record()` sets a profile function, and every module-level function of a room becomes a node of
a call tree, under its C name and C file:

* a file in a subfolder stands for the C file of that path, `include/X.py` for `include/linux/X.h`, `series/X.py` for what a
  patch series brings; of the files that have no C twin only what is named in `TWINS` counts (mutex_lock(), printk());
* methods, lambdas, comprehensions, generators and nested functions are not nodes, for C has none of them;
* a helper without C twin (one leading underscore, or `Source: none` in its docstring) is a *label*: it is kept apart and can be
  counted, and what it calls belongs to its caller. `_not_early()` is the label `not_early` of memmap_init_zone();
* a helper whose name begins with `_why` finds words for people; what it asks for that is not the kernel's asking, and stays out.

>>> with record() as recorder:
...     pass
>>> recorder.tree
[]
"""

from __future__ import annotations

import opcode
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from memhp.errors import KernelBugError, KernelError

ROOT = "/memhp/linux/"

TWINS = {
    ("sched", "mutex_lock"): "kernel/locking/mutex.c",
    ("sched", "mutex_trylock"): "kernel/locking/mutex.c",
    ("sched", "mutex_unlock"): "kernel/locking/mutex.c",
    ("bug", "printk"): "kernel/printk/printk.c",
}
"""Functions with a C name in files that are ours."""

_ELSEWHERE = {
    "mm/sparse_vmemmap": "mm/sparse-vmemmap.c",
    "include/page_flags": "include/linux/page-flags.h",
    "include/memory_model": "include/asm-generic/memory_model.h",
}
"""Rooms whose C file is not spelt as they are, or lies elsewhere."""

_OURS = frozenset(("fs/sysfs",))
"""Rooms in a subfolder that have no C twin all the same."""

_RETURNS = frozenset(
    opcode.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST", "RETURN_GENERATOR", "YIELD_VALUE") if name in opcode.opmap
)
_RERAISE = opcode.opmap["RERAISE"]
_RAISE = opcode.opmap["RAISE_VARARGS"]
_NOT_A_FUNCTION = 0x20 | 0x80 | 0x200
"""CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR."""

Plain = bool | int | str | tuple[Any, ...] | None
"""What is kept of a return value."""


@dataclass(slots=True)
class Call:
    """
    One call of a kernel function.

    Attributes:
        name: As in C.
        file: Its C file, or "" in a tree that was read from a real kernel's trace.
        args: The integer arguments by name.
        result: What it returned, if that is a bool, a number, a text or a short list of such; else None.
        error: The refusal it was left with, or the death it died.
        children: What it called, in order.
        raised: An exception left it. (`error` is None if that was none of the kernel's.)
        labels: Helpers without C twin that ran directly in it: `args` of a loop's range count its rounds.
        note: What the `watch` of this function answered.
        begin: How many calls, labels included, had begun when this one did.
    """

    name: str
    file: str = ""
    args: dict[str, int] = field(default_factory=dict)
    result: Plain = None
    error: KernelError | KernelBugError | None = None
    children: list[Call] = field(default_factory=list)
    raised: bool = False
    labels: list[Call] = field(default_factory=list)
    note: Any = None
    begin: int = 0

    def walk(self) -> Iterator[Call]:
        """Yield this call and everything below it, in the order of entry."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, name: str) -> list[Call]:
        """Return the calls of `name` in this tree, in the order of entry."""
        return [call for call in self.walk() if call.name == name]

    def labelled(self, name: str) -> list[Call]:
        """Return the labels `name` in this tree; `not_early` finds the helper `_not_early()`."""
        return [label for call in self.walk() for label in call.labels if label.name == name]


Watch = Callable[[Any, Call], object]
"""(kernel, the call that just ended) -> what is kept as its `note`."""


@dataclass(slots=True)
class _Place:
    """What is known of a code object."""

    code: CodeType
    name: str
    file: str
    label: bool
    bytecode: bytes
    arguments: tuple[str, ...]


@dataclass(slots=True)
class _Open:
    """A call that has not ended."""

    frame: FrameType
    place: _Place
    call: Call
    node: Call | None
    silent: bool
    failed: KernelError | KernelBugError | None = None
    failed_at: int = 0


def c_file(filename: str) -> str:
    """
    Return the C file that a room stands for, or "" if it has none.

    >>> c_file("/x/memhp/linux/mm/sparse.py"), c_file("/x/memhp/linux/include/mmzone.py"), c_file("/x/memhp/linux/state.py")
    ('mm/sparse.c', 'include/linux/mmzone.h', '')
    """
    _, root, rest = filename.replace("\\", "/").rpartition(ROOT)
    if not root or "/" not in rest:
        return ""
    stem = rest.removesuffix(".py")
    if stem in _OURS:
        return ""
    if stem in _ELSEWHERE:
        return _ELSEWHERE[stem]
    if "/include/" in stem:
        return f"{stem.replace('/include/', '/include/asm/')}.h"
    if stem.startswith("include/"):
        return f"include/linux/{stem.removeprefix('include/')}.h"
    return f"{stem}.c"


def _source_none(code: CodeType) -> bool:
    """Whether the docstring says that there is no C twin."""
    doc = code.co_consts[0] if code.co_consts else None
    return isinstance(doc, str) and "Source: none" in doc


def _place(code: CodeType) -> _Place | None:
    """Classify a code object; None: not of interest."""
    filename = code.co_filename
    if ROOT not in filename:
        return None
    name = code.co_name
    if code.co_qualname != name or not name.isidentifier() or code.co_flags & _NOT_A_FUNCTION:
        return None
    file = c_file(filename)
    if not file:
        stem = filename.rpartition(ROOT)[2].removesuffix(".py")
        file = TWINS.get((stem, name), "")
        if not file:
            return None
    label = (name.startswith("_") and not name.startswith("__")) or _source_none(code)
    count = code.co_argcount + code.co_kwonlyargcount
    return _Place(code, name.removeprefix("_") if label else name, file, label, code.co_code, code.co_varnames[:count])


def _plain(value: object, depth: int = 2) -> Plain:
    """What is kept of a return value."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple) and depth and len(value) <= 64:
        kept = tuple(_plain(entry, depth - 1) for entry in value)
        return kept if len(kept) == len(value) and all(k is not None for k in kept) else None
    return None


class Recorder:
    """
    The calls seen so far.

    Attributes:
        tree: The calls that nobody else called, in order.
    """

    def __init__(self, watch: Mapping[str, Watch] | None = None) -> None:
        self.tree: list[Call] = []
        self._watch = dict(watch or {})
        self._open: list[_Open] = []
        self._places: dict[int, tuple[CodeType, _Place | None]] = {}
        self._created: KernelError | KernelBugError | None = None
        self._births_seen = 0
        self._begun = 0
        self._births = {id(cls.__init__.__code__) for cls in (KernelError, KernelBugError)}

    def walk(self) -> Iterator[Call]:
        """Yield every call, in the order of entry."""
        for call in self.tree:
            yield from call.walk()

    def find(self, name: str) -> list[Call]:
        """Return the calls of `name`, in the order of entry."""
        return [call for call in self.walk() if call.name == name]

    def labelled(self, name: str) -> list[Call]:
        """Return the labels `name`."""
        return [label for call in self.tree for label in call.labelled(name)]

    def profile(self, frame: FrameType, event: str, arg: object) -> None:
        """The profile function."""
        if event == "call":
            code = frame.f_code
            known = self._places.get(id(code))
            if known is None:
                known = self._places[id(code)] = (code, _place(code))
            if known[1] is not None:
                self._enter(frame, known[1])
            elif id(code) in self._births:
                self._created = frame.f_locals["self"]
                self._births_seen += 1
        elif event == "return" and self._open and self._open[-1].frame is frame:
            self._leave(arg)

    def _enter(self, frame: FrameType, place: _Place) -> None:
        values = frame.f_locals
        args = {name: values[name] for name in place.arguments if isinstance(values.get(name), int)}
        call = Call(place.name, place.file, args, begin=self._begun)
        self._begun += 1
        above = self._open[-1].node if self._open else None
        silent = bool(self._open) and self._open[-1].silent
        node = above if place.label else call
        if place.label and above is not None and not silent:
            above.labels.append(call)
        elif not place.label and not silent:
            (self.tree if above is None else above.children).append(call)
        self._open.append(_Open(frame, place, call, node, silent or (place.label and place.name.startswith("why"))))

    def _leave(self, arg: object) -> None:
        ended = self._open.pop()
        call = ended.call
        at = ended.frame.f_lasti
        bytecode = ended.place.bytecode
        last = bytecode[at] if 0 <= at < len(bytecode) else -1
        if last in _RETURNS:
            call.result = _plain(arg)
        else:
            call.raised = True
            call.error = self._error(ended, last, bytecode[at + 1])
            if self._open:
                self._open[-1].failed = call.error
                self._open[-1].failed_at = self._births_seen
        watch = self._watch.get(call.name)
        if watch is not None and not ended.silent:
            call.note = watch(ended.frame.f_locals.get("k"), call)

    def _error(self, ended: _Open, last: int, argument: int) -> KernelError | KernelBugError | None:
        """
        Which error leaves a frame, told from the instruction it was left at: what a profile function is told is only that.

        A `raise X` leaves with the newest error; a re-raise with what came out of a callee; a call that was left with what the
        callee failed of, unless a newer error was made in a function that is no node (BUG_ON()).
        """
        if last == _RERAISE or (last == _RAISE and not argument):
            return ended.failed
        if last == _RAISE or ended.failed is None or self._births_seen > ended.failed_at:
            return self._created
        return ended.failed


@contextmanager
def record(watch: Mapping[str, Watch] | None = None) -> Iterator[Recorder]:
    """
    Record the kernel functions that run in the `with` block, also when an exception leaves it.

    Args:
        watch: By C name: called with the kernel each time such a function ends, before its caller goes on; its answer
            becomes the call's `note`. What it runs itself is not recorded.
    """
    recorder = Recorder(watch)
    previous = sys.getprofile()
    sys.setprofile(recorder.profile)
    try:
        yield recorder
    finally:
        sys.setprofile(previous)
        recorder._open.clear()
