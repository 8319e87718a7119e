# SPDX-License-Identifier: GPL-2.0-only
"""
What ran on two machines in a step of a scenario: recorded on each, held against each other, said in words.

A real kernel's calls come from ftrace's function_graph, a model's from its recorder: two guests, two models, or one of each. The
trees begin at `OUTERMOST`. What no room of the model speaks of (the scheduler, timers, interrupts) comes when it likes: it is not
compared, but listed, like what only one machine shows.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import memhp.linux as rooms
from memhp.backends.base import Backend
from memhp.backends.model import ModelBackend
from memhp.checker.differential import Difference
from memhp.linux import ftrace
from memhp.linux.ftrace import Call
from memhp.report import calls
from memhp.report.calls import Comparison

OUTERMOST = ("add_memory_resource", "online_pages", "offline_pages", "try_remove_memory")
"""The functions whose call trees are compared; a tree inside another one's is not taken twice."""
ROOTS = (*OUTERMOST, "add_memory", "remove_memory")
"""What the tracer starts at: those, and what calls them."""
NEWER_OPAQUE = frozenset((
    "__alloc_pages_noprof", "alloc_pages_noprof", "__alloc_frozen_pages_noprof", "get_free_pages_noprof", "free_unref_page",
    "__drain_all_pages", "drain_pages_zone", "lru_add_drain_all", "lru_cache_disable", "__free_pages", "free_pages",
    "kmem_cache_free", "kfree", "migrate_pages",
))  # fmt: skip
"""Functions of newer kernels whose inside depends on everything that ran before."""
OPAQUE = calls.OPAQUE | NEWER_OPAQUE
REPEATED = frozenset(("__cond_resched", "set_pageblock_migratetype", "init_pageblock_migratetype"))
"""Functions that a loop calls now with, now without a rest in between."""


def model_functions() -> frozenset[str]:
    """Return the names of all kernel functions that the model has, whichever release they belong to."""
    found: set[str] = set()
    for folder in rooms.__path__:
        for path in Path(folder).rglob("*.py"):
            if path.parent != Path(folder):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                found.update(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in found if not name.startswith("_") or name.startswith("__"))


def outermost(trees: Sequence[Call]) -> list[Call]:
    """Return the trees below the first of `OUTERMOST` on each path."""
    found: list[Call] = []
    for call in trees:
        found += [call] if call.name in OUTERMOST else outermost(call.children)
    return found


@dataclass(frozen=True, slots=True)
class Ran:
    """
    What two machines ran in a step.

    Attributes:
        first: The first machine's trees, of functions that the model has a room for.
        second: The second's.
        comparison: How they compare.
        swapped: In its words the first machine is `kernel` and the second `model`; else the other way round.
        unmodelled: Functions that ran on the first, and on the second, and that no room of the model speaks of.
    """

    first: tuple[Call, ...]
    second: tuple[Call, ...]
    comparison: Comparison
    swapped: bool = False
    unmodelled: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def differences(self, step: int | None = None) -> list[Difference]:
        """Return where they part: other functions were entered, or those that both have ran in another order."""
        ran = [" ".join(call.name for call in trees) for trees in (self.first, self.second)]
        if ran[0] != ran[1]:
            return [Difference("calls", "what ran", "", ran[0] or "nothing", ran[1] or "nothing", step)]
        names = ("kernel", "model") if self.swapped else ("model", "kernel")
        found = []
        for words in self.comparison.differences:
            sides = dict(re.findall(r"\n *(kernel|model): *(.*)", words))
            place = words.splitlines()[0].replace(f"the {names[0]}", "the first").replace(f"the {names[1]}", "the second")
            found.append(Difference("calls", f"{place}, order", "of calls", sides[names[0]], sides[names[1]], step))
        return found

    @property
    def _only(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What ran on one machine only, though a room of the model speaks of it: on the first, on the second."""
        found = self.comparison
        return (found.kernel_only, found.model_only) if self.swapped else (found.model_only, found.kernel_only)

    def words(self) -> list[str]:
        """Return in words what was compared, and what could not be."""
        found = self.comparison
        if not (found.common or found.kernel_only or found.model_only):
            return []
        lines = [f"calls: {len(found.common)} functions on both, in the same order" if found.equal else "calls: see above"]
        for title, names in (
            ("only on the first", self._only[0]), ("only on the second", self._only[1]),
            ("not modelled", sorted({*self.unmodelled[0], *self.unmodelled[1]})),
        ):
            if names:
                lines.append(f"  {title} ({len(names)}): {' '.join(names[:12])}{' …' if len(names) > 12 else ''}")
        if found.inlined:
            lines.append(f"  inlined by the compiler: {' '.join(f'{caller}/{name}' for caller, name in found.inlined)}")
        return lines

    def json(self) -> dict[str, Any]:
        """Return what was compared as plain data."""
        found = self.comparison
        return {
            "common": list(found.common), "first_only": list(self._only[0]), "second_only": list(self._only[1]),
            "inlined": [list(pair) for pair in found.inlined], "difference": found.difference,
            "not_modelled": [list(names) for names in self.unmodelled],
        }  # fmt: skip


def hold(first: Sequence[Call], second: Sequence[Call], known: frozenset[str] | None = None) -> Ran:
    """
    Hold what ran on two machines against each other.

    Args:
        first: Trees of the first machine.
        second: Those of the second.
        known: The functions that count; None: those that the model has.
    """
    known = (model_functions() if known is None else known) | frozenset(OUTERMOST)
    whole = [outermost(trees) for trees in (first, second)]
    counted = known - REPEATED
    trees = [calls.splice(tree, counted, primitives=calls.PRIMITIVES, opaque=OPAQUE) for tree in whole]
    swapped = _of_a_model(trees[1]) and not _of_a_model(trees[0])
    ours, theirs = (trees[1], whole[0]) if swapped else (trees[0], whole[1])
    comparison = calls.compare(ours, theirs, opaque=OPAQUE, counted=counted)
    unmodelled = [tuple(sorted(calls.names(tree) - known)) for tree in whole]
    return Ran(tuple(trees[0]), tuple(trees[1]), comparison, swapped, (unmodelled[0], unmodelled[1]))


def _of_a_model(trees: Sequence[Call]) -> bool:
    """Whether these come from the model's recorder, which knows each function's file."""
    return any(call.file for call in trees)


@dataclass(slots=True)
class Traces:
    """Records what two machines run, one after the other, in each step of a scenario."""

    known: frozenset[str] = field(default_factory=model_functions)
    _trees: list[list[Call]] = field(default_factory=list)

    @contextlib.contextmanager
    def around(self, machine: Backend) -> Iterator[None]:
        """Record what runs on a machine inside a `with` block."""
        if len(self._trees) == 2:
            self._trees.clear()
        if isinstance(machine, ModelBackend):
            with ftrace.record() as recorder:
                yield
            self._trees.append(recorder.tree)
            return
        with machine.traced(ROOTS) as texts:
            yield
        self._trees.append([call for text in texts for call in calls.read_trace(text)])

    def take(self) -> Ran:
        """Return what was recorded of both."""
        first, second = self._trees
        return hold(first, second, self.known)
