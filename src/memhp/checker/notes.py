# SPDX-License-Identifier: GPL-2.0-only
"""
Notes of which lines of the model run, at the price of those lines only.

`Notes` gives chosen functions other code, in which each of the chosen lines is preceded by a call of ours, and gives them their
own code back in the end. What is not chosen runs as it always does. The other code is made from the room's text when the function
is called first. (A trace function would be simpler; on Python 3.11 it makes everything six times slower.)

>>> from memhp.linux import sched
>>> seen = []
>>> with Notes(lambda key, line: seen.append(key)) as notes:
...     notes.put({("sched.py", "mutex_unlock"): Chosen(sched.mutex_unlock.__code__.co_firstlineno, 3, None)})
...     sched.mutex_unlock(sched.Mutex("m"))
>>> seen
[('sched.py', 'mutex_unlock')]
"""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Any

from memhp.errors import ModelDefectError

Key = tuple[str, str]
"""Room and name of a function: ("mm/sparse.py", "sparse_init")."""

NOTES = "__memhp_notes__"
"""What a room finds its notes under: first line of a function -> what to call."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """
    A function, and the lines of it that are of interest.

    Attributes:
        first, last: The lines of the file that it takes.
        lines: Lines on which statements begin, counted from the first; None: it is enough to know that it was called.
    """

    first: int
    last: int
    lines: Sequence[int] | None


class Notes:
    """
    Says which of the chosen lines run. There is one at a time.

    Args:
        seen: Called with function and line, before the line runs (0 where it is enough that the function was called).
    """

    _there_is_one = False

    def __init__(self, seen: Callable[[Key, int], object]) -> None:
        self._seen = seen
        self._own: dict[Key, tuple[FunctionType, CodeType]] = {}
        self._tables: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Notes:
        if Notes._there_is_one:
            raise ModelDefectError("notes of what runs in the model are taken already")
        Notes._there_is_one = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give every function its own code back."""
        for function, code in self._own.values():
            function.__code__ = code
        self._own.clear()
        for names in self._tables.values():
            names.pop(NOTES, None)
        self._tables.clear()
        Notes._there_is_one = False

    def put(self, chosen: Mapping[Key, Chosen]) -> None:
        """Choose functions of rooms that are imported; of one that was chosen before other lines."""
        by_room: dict[str, dict[str, Chosen]] = {}
        for (room, name), what in chosen.items():
            by_room.setdefault(room, {})[name] = what
        for room, names in by_room.items():
            module = module_of(room)
            if module is None:
                continue
            missing = {}
            for name, what in names.items():
                if (room, name) in self._own:
                    self._change((room, name), what)
                else:
                    missing[name] = what.first
            for name, function in find_functions(module, missing):
                self._own[room, name] = (function, function.__code__)
                self._change((room, name), names[name])

    def _change(self, key: Key, chosen: Chosen) -> None:
        """Make the first call of a function come here."""
        function, own = self._own[key]
        names = self._tables.setdefault(key[0], function.__globals__)
        notes: dict[int, Callable[..., Any]] = names.setdefault(NOTES, {})
        seen, first, lines = self._seen, own.co_firstlineno, chosen.lines
        function.__code__ = own
        if lines is not None and not lines:
            return

        def note(line: int) -> None:
            seen(key, line)

        if "_getframe" in own.co_names:   # it looks at its caller, who must not be one of us
            notes[first] = note
            function.__code__ = _with_notes(own, chosen)
            return
        if lines is None or key[1].rpartition(".")[2].startswith("<lambda>"):
            original = FunctionType(own, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
            original.__kwdefaults__ = function.__kwdefaults__

            def called(*args: Any, **kwargs: Any) -> Any:
                seen(key, 0)
                return original(*args, **kwargs)

        else:

            def called(*args: Any, **kwargs: Any) -> Any:
                notes[first] = note
                function.__code__ = _with_notes(own, chosen)
                return function(*args, **kwargs)

        notes[first] = called
        consts = tuple(first if const == _PLACE else const for const in _STUB.co_consts)
        function.__code__ = _STUB.replace(co_consts=consts, co_freevars=own.co_freevars)


_PLACE = "a first line"


def _template() -> CodeType:
    names: dict[str, Any] = {}
    exec(f"def stub(*args, **kwargs):\n    return {NOTES}[{_PLACE!r}](*args, **kwargs)\n", names)
    code: CodeType = names["stub"].__code__
    return code


_STUB = _template()


# Functions and their code


def module_of(room: str) -> ModuleType | None:
    """Return the module of a room, or None if it is not imported."""
    path = room.removesuffix(".py").removesuffix("__init__").replace("/", ".")
    return sys.modules.get(f"memhp.linux.{path}".rstrip("."))


def find_functions(module: ModuleType, first_lines: Mapping[str, int]) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions of a room that have one of the names, and begin on the line that belongs to it."""
    lambdas: dict[int, FunctionType] | None = None
    for name, first in first_lines.items():
        if "<lambda>" in name:
            if lambdas is None:
                lambdas = {f.__code__.co_firstlineno: f for f in _lambdas(module, vars(module).values(), 3)}
            if first in lambdas:
                yield name, lambdas[first]
            continue
        place: Any = module
        for part in name.split("."):
            place = vars(place).get(part)
        place = getattr(place, "__wrapped__", getattr(place, "fget", getattr(place, "__func__", place)))
        if isinstance(place, FunctionType) and place.__code__.co_firstlineno == first:
            yield name, place


def _lambdas(module: ModuleType, values: Iterable[object], depth: int) -> Iterator[FunctionType]:
    """Yield the lambdas that tables of a room hold."""
    for value in values:
        if isinstance(value, FunctionType):
            if value.__name__ == "<lambda>" and value.__module__ == module.__name__:
                yield value
        elif depth and isinstance(value, dict):
            yield from _lambdas(module, value.values(), depth - 1)
        elif depth and isinstance(value, list | tuple):
            yield from _lambdas(module, value, depth - 1)
        elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _lambdas(module, [getattr(value, f.name) for f in dataclasses.fields(value)], depth - 1)


def compile_function(node: ast.FunctionDef | ast.Lambda, code: CodeType) -> CodeType:
    """Return the code of a syntax tree that is to stand in for a function's."""
    owner, _, name = code.co_qualname.rpartition(".")
    owner = owner.rpartition(".")[2]
    flags = annotations.compiler_flag
    if isinstance(node, ast.Lambda):
        made: CodeType = compile(ast.Expression(node), code.co_filename, "eval", flags, dont_inherit=True)
        owner = ""
    else:
        statement: ast.stmt = ast.FunctionDef(node.name, node.args, node.body, [], **_no_types())
        ast.copy_location(statement, node)
        if owner:
            statement = ast.copy_location(ast.ClassDef(owner, [], [], [statement], [], **_no_types()), node)
        made = compile(ast.Module([statement], []), code.co_filename, "exec", flags, dont_inherit=True)
    for part in (owner, name) if owner else (name,):
        made = next(const for const in made.co_consts if isinstance(const, CodeType) and const.co_name == part)
    return made.replace(co_qualname=code.co_qualname)


def _no_types() -> dict[str, Any]:
    return {"type_params": []} if sys.version_info >= (3, 12) else {}


def _with_notes(code: CodeType, chosen: Chosen) -> CodeType:
    """Return a function's code with a note before each chosen line; None: where it begins."""
    segment = "".join(_text(code.co_filename)[chosen.first - 1 : chosen.last])
    inside = segment[:1].isspace()
    tree = ast.parse(f"class _:\n{segment}" if inside else segment)
    ast.increment_lineno(tree, chosen.first - 1 - inside)
    [defined] = tree.body
    if isinstance(defined, ast.ClassDef):
        [defined] = defined.body
    assert isinstance(defined, ast.FunctionDef)
    lines = chosen.lines
    if lines is None:
        lines = [defined.body[1 if ast.get_docstring(defined, clean=False) is not None else 0].lineno - chosen.first]
    _put_notes(defined, code.co_firstlineno, chosen.first, frozenset(lines))
    return compile_function(defined, code)


@cache
def _text(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return file.readlines()


def _put_notes(node: ast.AST, number: int, first: int, lines: frozenset[int]) -> None:
    """Put a note before each statement in the bodies below a node that begins on one of the lines."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        body = getattr(node, name, None)
        if not isinstance(body, list):
            continue
        for child in body:
            _put_notes(child, number, first, lines)
        for at in reversed(range(len(body))):
            line = first_line(body[at])
            if line - first in lines and isinstance(body[at], ast.stmt):
                table = ast.Subscript(ast.Name(NOTES, ast.Load()), ast.Constant(number), ast.Load())
                call = ast.Expr(ast.Call(table, [ast.Constant(line - first)], []))
                for field in ("lineno", "end_lineno"):
                    setattr(call, field, line)
                call.col_offset = call.end_col_offset = 0
                body.insert(at, ast.fix_missing_locations(call))


def first_line(node: ast.AST) -> int:
    """Return the line on which a statement begins, with its decorators."""
    lines = [getattr(decorator, "lineno", 0) for decorator in getattr(node, "decorator_list", ())]
    return min([*lines, int(getattr(node, "lineno", 0))])
