# SPDX-License-Identifier: GPL-2.0-only
"""What two kernel trees do differently: by fact and commit, with the functions that read each fact."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from memhp import linux
from memhp.linux import tree as trees
from memhp.linux.tree import Tree


@dataclass(frozen=True, slots=True)
class Reader:
    """
    A function of the model that reads a fact.

    Attributes:
        fact: Name of the fact.
        room: File below `linux/`, such as "mm/sparse.py".
        function: Its name; "" where the fact is read outside of any.
        line: First line that reads it.
    """

    fact: str
    room: str
    function: str
    line: int

    def __str__(self) -> str:
        return f"{self.function}() in {self.room}:{self.line}" if self.function else f"{self.room}:{self.line}"


@dataclass(frozen=True, slots=True)
class Difference:
    """
    A fact in which two trees differ.

    Attributes:
        fact: Its name, a field of `Tree`.
        before: Value in the first tree.
        after: Value in the second.
        release: The release that changed it; "" for a series.
        commit: The commit that did; "" where its text was not read.
        title: The commit's title, or what happened in words.
        readers: Functions of the model that ask for it.
    """

    fact: str
    before: Any
    after: Any
    release: str
    commit: str
    title: str
    readers: tuple[Reader, ...]


def compare(old: Tree, new: Tree) -> list[Difference]:
    """Return the facts in which `new` differs from `old`, the earliest change first."""
    found = readers()
    return [
        Difference(c.fact, c.before, c.after, c.release, c.commit, c.title, found.get(c.fact, ()))
        for c in trees.changes(old, new)
    ]


@cache
def readers() -> dict[str, tuple[Reader, ...]]:
    """Return who reads each fact: every place below `linux/` that says `tree.FACT`, by fact."""
    found: dict[str, list[Reader]] = {}
    names = frozenset(f.name for f in trees.facts())
    for folder in linux.__path__:
        for path in sorted(Path(folder).rglob("*.py")):
            room = path.relative_to(folder).as_posix()
            if room == "tree.py":
                continue
            for function, name, line in _reads(ast.parse(path.read_text(encoding="utf-8"))):
                seen = found.setdefault(name, []) if name in names else []
                if not any(r.room == room and r.function == function for r in seen):
                    seen.append(Reader(name, room, function, line))
    return {name: tuple(places) for name, places in found.items()}


def _reads(node: ast.AST, function: str = "") -> Iterator[tuple[str, str, int]]:
    """Yield (function, attribute, line) for each attribute read of something called `tree`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Load):
            owner = child.value
            called = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if called == "tree":
                yield function, child.attr, child.lineno
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not function else function
        yield from _reads(child, inner)
