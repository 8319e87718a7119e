# SPDX-License-Identifier: GPL-2.0-only
"""
What the model's answers rest on: the ledger, and the mark † of an answer that rests on more.

A line of the model is *held*, for one kernel tree, if it ran in a scenario whose comparison with a real kernel was equal. Which
lines those are stands in `ledger.json` among the recordings; `make ledger` writes it. It says for each function a digest of its
text, and for each tree under which anything of it is held the lines that are not. A function whose text is another by now counts
as not held.

`Watch` notes which functions are passed through on lines that nothing holds, while a machine is worked on; `connect()` opens a
machine with one. The rooms know nothing of it, and held lines run as they always do (`notes.py`).

>>> with Watch("v4.9") as watch:
...     watch.take()
()
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

import memhp.linux
from memhp import machine
from memhp.backends import base
from memhp.backends.base import MachineFileURL, ModelURL
from memhp.checker.notes import Chosen, Key, Notes
from memhp.machine import Machine

if TYPE_CHECKING:
    from memhp.scenario import Device

NAME = "ledger.json"


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

    def __init__(self, tree: str, ledger: Ledger | None = None) -> None:
        self.tree = tree
        self._ledger = ledger or load()
        self._passed: dict[Key, None] = {}
        self._notes = Notes(lambda key, line: self._passed.setdefault(key))

    def __enter__(self) -> Watch:
        self._notes.__enter__()
        importlib.import_module("memhp.backends.model")   # with it comes every room that a machine runs
        unheld = {}
        for room in self._ledger.rooms():
            for name, entry in self._ledger.room(room).items():
                lines = entry.unheld.get(self.tree)
                if lines != []:
                    unheld[room, name] = Chosen(entry.first, entry.last, lines)
        self._notes.put(unheld)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Look no more."""
        self._notes.close()

    def take(self) -> tuple[str, ...]:
        """Return what was passed through since the last time, in the order in which it was: "mm/sparse.c sparse_init()"."""
        found = dict.fromkeys(self._ledger.room(room)[name].label for room, name in self._passed)
        self._passed.clear()
        return tuple(found)


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
