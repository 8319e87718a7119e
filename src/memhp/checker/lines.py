# SPDX-License-Identifier: GPL-2.0-only
"""
The lines of the model, counted by statements.

Every function of a room is taken apart with `ast`: a statement is a line here, however many it is written on, and of one with a
body (`if`, `for`) the head is. Docstrings, `try:`, `except …:` and declarations do nothing and are none. What stands directly in
a room or in a class (tables, constants) runs on import and belongs to no kernel; a lambda there is a function like any other.

A line that only tells a caller of ours that he made a mistake is a *guard*: an `assert`, or a `raise` of what no kernel answers.

>>> text = 'def f(k):\\n    if k:\\n        return (1 +\\n            2)\\n    raise UsageError("no k")\\n'
>>> [function] = functions(text, "mm/x.py")
>>> function.label, [(line.first, line.last, line.guard) for line in function.lines]
('mm/x.c f()', [(2, 2, False), (3, 4, False), (5, 5, True)])
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import memhp.linux
from memhp.checker.notes import first_line
from memhp.linux import ftrace

ROOMS = Path(memhp.linux.__path__[0])
NOT_THE_MODEL = frozenset(("ftrace.py", "tree.py"))
"""Rooms in which nothing happens to a kernel: one looks on, the other names facts."""

_SOURCE = re.compile(r"Source:\s+(\S+\.[chS])\s+(\w+)\(\)")
_OURS = frozenset(("AssertionError", "ConfigError", "ModelDefectError", "NotImplementedError", "TypeError", "UsageError"))
_HAS_BODY = (ast.stmt, ast.excepthandler, ast.match_case)


@dataclass(frozen=True, slots=True)
class Line:
    """
    A statement.

    Attributes:
        first, last: Its lines in the file, or those of its head.
        guard: It only tells a caller of ours that he made a mistake.
    """

    first: int
    last: int
    guard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """
    A function of a room, with all that is defined inside of it.

    Attributes:
        room: Its file: "mm/sparse.py".
        name: "sparse_init", "Memblock.copy", or "<lambda> SECTION_SIZE_BITS".
        label: What it is called where people read it: C file and function, "mm/sparse.c sparse_init()".
        first, last: Its lines in the file; the first is that of a decorator if it has one.
        digest: Of its text, without the docstring.
        lines: Its statements.
    """

    room: str
    name: str
    label: str
    first: int
    last: int
    digest: str
    lines: tuple[Line, ...] = field(repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """Room and name: no two functions have the same."""
        return self.room, self.name


def rooms() -> list[str]:
    """Return the names of all rooms of the model: "mm/sparse.py"."""
    names = (path.relative_to(ROOMS).as_posix() for path in ROOMS.rglob("*.py"))
    return sorted(name for name in names if name not in NOT_THE_MODEL)


def read_room(room: str) -> bytes:
    """Return the text of a room."""
    return (ROOMS / room).read_bytes()


def digest(data: bytes) -> str:
    """Return what tells two texts apart."""
    return hashlib.blake2b(data, digest_size=6).hexdigest()


def functions(text: str, room: str) -> tuple[Function, ...]:
    """Return the functions of a room's text, in order."""
    return tuple(function for function, _ in parse(text, room))


def parse(text: str, room: str) -> list[tuple[Function, ast.FunctionDef | ast.Lambda]]:
    """Return the functions of a room's text in order, each with its syntax tree."""
    source = text.splitlines()
    taken: set[str] = set()
    found = []
    for node, name in _defined(ast.parse(text).body, ""):
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name} {number}", number + 1
        taken.add(unique)
        found.append((_function(node, unique, room, source), node))
    return sorted(found, key=lambda pair: pair[0].first)


def _function(node: ast.FunctionDef | ast.Lambda, name: str, room: str, source: Sequence[str]) -> Function:
    first, last = first_line(node), node.end_lineno or node.lineno
    kept = list(range(first, last + 1))
    file = room.removesuffix("/__init__.py") if room.endswith("/__init__.py") else ftrace.c_file(f"{ftrace.ROOT}{room}")
    label = f"{file or f'linux/{room}'} {name.removeprefix('<lambda> ')}()"
    if isinstance(node, ast.Lambda):
        lines = [Line(node.body.lineno, node.body.end_lineno or last)]
    else:
        doc = ast.get_docstring(node, clean=False)
        if doc is not None:
            stated = _SOURCE.search(doc)
            label = f"{stated[1]} {stated[2]}()" if stated else label
            kept = [n for n in kept if not node.body[0].lineno <= n <= (node.body[0].end_lineno or 0)]
        lines = sorted(_lines(node.body), key=lambda line: (line.first, line.last))
    data = "\n".join(source[n - 1].rstrip() for n in kept).encode()
    return Function(room=room, name=name, label=label, first=first, last=last, digest=digest(data), lines=tuple(lines))


def _defined(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[ast.FunctionDef | ast.Lambda, str]]:
    """Yield what is defined in a module or class, with its name."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            yield statement, f"{prefix}{statement.name}"
        elif isinstance(statement, ast.ClassDef):
            yield from _defined(statement.body, f"{prefix}{statement.name}.")
        elif isinstance(statement, ast.If | ast.Try):
            yield from _defined([child for child in ast.walk(statement) if isinstance(child, ast.FunctionDef)], prefix)
        else:
            for node, name in _lambdas(statement, ""):
                yield node, f"{prefix}<lambda> {name}".rstrip()


def _lambdas(node: ast.AST, name: str) -> Iterator[tuple[ast.Lambda, str]]:
    """Yield the lambdas below a node, each with what it is given to."""
    for child in ast.iter_child_nodes(node):
        given = name
        if isinstance(child, ast.keyword):
            given = child.arg or name
        elif isinstance(child, ast.Call) and child.args and isinstance(child.args[0], ast.Constant):
            given = str(child.args[0].value)
        elif isinstance(child, ast.Dict):
            for key, value in zip(child.keys, child.values, strict=True):
                at = str(key.value) if isinstance(key, ast.Constant) else name
                yield from _lambdas(ast.Expression(value), at)
            continue
        if isinstance(child, ast.Lambda):
            yield child, given
        else:
            yield from _lambdas(child, given)


def _lines(body: Sequence[ast.AST]) -> Iterator[Line]:
    for node in body:
        nested = [child for child in ast.iter_child_nodes(node) if isinstance(child, _HAS_BODY)]
        if not _does_nothing(node):
            yield Line(first_line(node), max(_last(node), first_line(node)), _is_guard(node))
        yield from _lines(nested)


def _does_nothing(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Try | ast.excepthandler | ast.match_case | ast.Global | ast.Nonlocal)


def _is_guard(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Raise) or node.exc is None:
        return False
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return isinstance(raised, ast.Name) and raised.id in _OURS


def _last(node: ast.AST) -> int:
    """Return the last line of a statement, without its body."""
    ends = [getattr(node, "end_lineno", 0) or 0] if not any(isinstance(c, _HAS_BODY) for c in ast.iter_child_nodes(node)) else []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _HAS_BODY):
            ends.append(_last(child))
    return max(ends, default=0)
