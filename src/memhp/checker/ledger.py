# SPDX-License-Identifier: GPL-2.0-only
"""
What the model's answers rest on: the ledger, and the mark † of an answer that rests on more.

A line of the model is *held*, for one kernel tree, if it ran in a scenario whose comparison with a real kernel was equal. Which
lines those are stands in `ledger.json` among the recordings; `make ledger` writes it. It says for each function a digest of its
text, and for each tree under which anything of it is held the lines that are not. A function whose text is another by now counts
as not held.

`Watch` notes which functions are passed through on lines that nothing holds, while a machine is worked on; `connect()` opens a
machine with one. The rooms know nothing of it, and held lines run as they always do: while somebody watches, a function with
lines that are not held has other code, in which each of those lines is preceded by a note. That code is made when the function
is called first. (A trace function would be simpler; on Python 3.11 it makes everything six times slower.)

>>> with Watch("v4.9") as watch:
...     watch.take()
()
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import memhp.linux
from memhp import machine
from memhp.backends import base
from memhp.backends.base import MachineFileURL, ModelURL
from memhp.errors import ModelDefectError
from memhp.machine import Machine

if TYPE_CHECKING:
    from memhp.scenario import Device

NAME = "ledger.json"
MARK = "†"


@dataclass(frozen=True, slots=True)
class Entry:
    """
    What is known of one function.

    Attributes:
        label: C file and function: "mm/sparse.c sparse_init()".
        first, last: The lines of the file that it takes.
        unheld: By tree: lines that are not held, by their first line, counted from the function's. A tree that is not there has
            held nothing of it.
    """

    label: str
    first: int
    last: int
    unheld: dict[str, list[int]]


class Ledger:
    """
    What is held.

    Args:
        data: As in `ledger.json`: room -> {"text": digest, "functions": {name: [first, last, digest, {tree: [line, …]},
            label]}}.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self._rooms: dict[str, dict[str, Any]] = data["rooms"]
        self._read: dict[str, dict[str, Entry]] = {}

    def rooms(self) -> list[str]:
        """Return the names of the rooms: "mm/sparse.py"."""
        return list(self._rooms)

    def room(self, room: str) -> dict[str, Entry]:
        """Return the functions of a room as it is now, by name; those whose text is not the one that was held hold nothing."""
        if room not in self._read:
            self._read[room] = self._look(room)
        return self._read[room]

    def _look(self, room: str) -> dict[str, Entry]:
        from memhp.checker import lines

        text = lines.read_room(room)
        known = self._rooms[room]
        if known["text"] == lines.digest(text):
            return {name: Entry(label, first, last, unheld)
                    for name, (first, last, _, unheld, label) in known["functions"].items()}
        found = {}
        for function in lines.functions(text.decode(), room):
            _, _, text_then, unheld, _ = known["functions"].get(function.name, (0, 0, "", {}, ""))
            held = unheld if text_then == function.digest else {}
            found[function.name] = Entry(function.label, function.first, function.last, held)
        return found


@cache
def load() -> Ledger:
    """Return the ledger that comes with memhp."""
    with open(os.path.join(os.path.dirname(memhp.linux.__path__[0]), "recorded", NAME), encoding="utf-8") as file:
        return Ledger(json.load(file))


class Watch:
    """
    Notes which functions of the model run on lines that nothing holds. There is one at a time.

    Args:
        tree: The kernel tree that is worked on, as in a machine URL.
        ledger: What is held; the one that comes with memhp.
    """

    _watching = False

    def __init__(self, tree: str, ledger: Ledger | None = None) -> None:
        self.tree = tree
        self._ledger = ledger or load()
        self._passed: dict[str, None] = {}
        self._changed: list[tuple[FunctionType, CodeType]] = []
        self._modules: list[ModuleType] = []

    def __enter__(self) -> Watch:
        if Watch._watching:
            raise ModelDefectError("somebody watches the model already")
        Watch._watching = True
        importlib.import_module("memhp.backends.model")   # with it comes every room that a machine runs
        for room in self._ledger.rooms():
            module = sys.modules.get(f"memhp.linux.{room.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}")
            if module is not None:
                self._arm(module, room)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Look no more; every function gets its own code back."""
        for function, code in reversed(self._changed):
            function.__code__ = code
        self._changed.clear()
        for module in self._modules:
            module.__dict__.pop(_NOTE, None)
        self._modules.clear()
        Watch._watching = False

    def take(self) -> tuple[str, ...]:
        """Return what was passed through since the last time, in the order in which it was: "mm/sparse.c sparse_init()"."""
        found = tuple(self._passed)
        self._passed.clear()
        return found

    def _arm(self, module: ModuleType, room: str) -> None:
        unheld = {name: entry for name, entry in self._ledger.room(room).items() if entry.unheld.get(self.tree) != []}
        if not unheld:
            return
        module.__dict__[_NOTE] = {}
        self._modules.append(module)
        for name, function in find_functions(module, unheld):
            self._change(function, unheld[name], module.__dict__[_NOTE])

    def _change(self, function: FunctionType, entry: Entry, notes: dict[int, Callable[..., Any]]) -> None:
        """Make the first call of a function come here."""
        own = function.__code__
        passed, label = self._passed, entry.label
        unheld = entry.unheld.get(self.tree)

        def note() -> None:
            passed[label] = None

        self._changed.append((function, own))
        notes[own.co_firstlineno] = note
        if "_getframe" in own.co_names:   # it looks at its caller, who must not be one of us
            function.__code__ = _with_notes(own, entry, unheld)
            return
        if unheld is None:
            original = FunctionType(own, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
            original.__kwdefaults__ = function.__kwdefaults__

            def called(*args: Any, **kwargs: Any) -> Any:
                passed[label] = None
                return original(*args, **kwargs)

        else:

            def called(*args: Any, **kwargs: Any) -> Any:
                notes[own.co_firstlineno] = note
                function.__code__ = _with_notes(own, entry, unheld)
                return function(*args, **kwargs)

        notes[own.co_firstlineno] = called
        function.__code__ = _STUB.replace(
            co_consts=tuple(own.co_firstlineno if const == _PLACE else const for const in _STUB.co_consts),
            co_freevars=own.co_freevars)


_NOTE = "__memhp_notes__"
"""What a watched room finds its notes under: first line of a function -> what to call."""


_PLACE = "a first line"


class Place(Protocol):
    """Something that begins on a line."""

    @property
    def first(self) -> int:
        """Which."""
        ...


def _template() -> CodeType:
    names: dict[str, Any] = {}
    exec(f"def stub(*args, **kwargs):\n    return {_NOTE}[{_PLACE!r}](*args, **kwargs)\n", names)
    code: CodeType = names["stub"].__code__
    return code


_STUB = _template()


def find_functions(module: ModuleType, names: Mapping[str, Place]) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions of a room that have one of the names, and begin where they should."""
    lambdas = None
    for name, entry in names.items():
        if "<lambda>" in name:
            if lambdas is None:
                lambdas = {f.__code__.co_firstlineno: f for f in _lambdas(module, vars(module), 3)}
            if entry.first in lambdas:
                yield name, lambdas[entry.first]
            continue
        place: Any = module
        for part in name.split("."):
            place = vars(place).get(part)
        place = getattr(place, "__wrapped__", getattr(place, "fget", getattr(place, "__func__", place)))
        if isinstance(place, FunctionType) and place.__code__.co_firstlineno == entry.first:
            yield name, place


def _lambdas(module: ModuleType, values: dict[str, Any], depth: int) -> Iterator[FunctionType]:
    """Yield the lambdas that tables of a room hold."""
    for value in values.values():
        if isinstance(value, FunctionType):
            if value.__name__ == "<lambda>" and value.__module__ == module.__name__:
                yield value
        elif depth and isinstance(value, dict):
            yield from _lambdas(module, value, depth - 1)
        elif depth and isinstance(value, list | tuple):
            yield from _lambdas(module, dict(enumerate(value)), depth - 1)  # type: ignore[arg-type]
        elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
            held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            yield from _lambdas(module, held, depth - 1)


def _with_notes(code: CodeType, entry: Entry, unheld: Sequence[int] | None) -> CodeType:
    """Return a function's code with a note before each line that is not held; None: where it begins."""
    from memhp.checker.lines import compile_function

    segment = "".join(_text(code.co_filename)[entry.first - 1 : entry.last])
    inside = segment[:1].isspace()
    tree = ast.parse(f"class _:\n{segment}" if inside else segment)
    ast.increment_lineno(tree, entry.first - 1 - inside)
    [defined] = tree.body
    if isinstance(defined, ast.ClassDef):
        [defined] = defined.body
    assert isinstance(defined, ast.FunctionDef)
    begin = defined.body[1 if ast.get_docstring(defined, clean=False) is not None else 0].lineno
    _put_notes(defined, entry.first, {begin} if unheld is None else {entry.first + line for line in unheld})
    return compile_function(defined, code)


@cache
def _text(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return file.readlines()


def _put_notes(node: ast.AST, function: int, lines: set[int]) -> None:
    """Put a note before each statement in the bodies below a node that begins on one of the lines."""
    from memhp.checker.lines import first_line

    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        body = getattr(node, name, None)
        if not isinstance(body, list):
            continue
        for child in body:
            _put_notes(child, function, lines)
        for at in reversed(range(len(body))):
            line = first_line(body[at])
            if line in lines and isinstance(body[at], ast.stmt):
                notes = ast.Subscript(ast.Name(_NOTE, ast.Load()), ast.Constant(function), ast.Load())
                call = ast.Expr(ast.Call(notes, [], []), lineno=line, end_lineno=line, col_offset=0, end_col_offset=0)
                body.insert(at, ast.fix_missing_locations(call))


def tree_of(url: str) -> str:
    """Return the kernel tree that a machine URL boots in the model, or "" if it is none of a model."""
    from memhp import scenario

    parsed = base.parse(url)
    if isinstance(parsed, MachineFileURL):
        parsed = base.parse(scenario.load(parsed.path, limit=1 << 24).machine)
    return parsed.tree if isinstance(parsed, ModelURL) else ""


def connect(url: str, devices: Sequence[Device] = ()) -> Machine:
    """
    Open a machine as `machine.connect()` does; if it is a model, what its answers rest on is watched.

    >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
    ...     machine.block_size >> 20
    128
    """
    tree = tree_of(url)
    if not tree:
        return machine.connect(url, devices)
    watch = Watch(tree)
    watch.__enter__()
    try:
        return Machine(base.open(url, devices), watch)
    except BaseException:
        watch.close()
        raise
