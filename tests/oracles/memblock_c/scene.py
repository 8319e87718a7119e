# SPDX-License-Identifier: GPL-2.0-only
"""A memblock to tell something with: the model's or the C original's, the same calls on both, every step kept for a drawing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memhp.linux.include.memblock import MEMBLOCK_MIRROR
from memhp.linux.include.numa import MAX_NUMNODES
from tests.oracles.memblock_c import VERBS, Answer, Original, draw, op
from tests.oracles.memblock_c.model import Model, Operation

K = 1 << 10
M = 1 << 20
G = 1 << 30
TOP = (1 << 64) - 1
"""The last byte of the address space; no region contains it."""
NO_NODE = -1
NOWHERE = MAX_NUMNODES
"""The node of a region that has none."""
ANYWHERE = TOP
MIRROR = MEMBLOCK_MIRROR

Region = tuple[int, int, str]
"""base, size, and node and flags in words."""


class Died(Exception):
    """panic() or BUG(); the text is the log's last line."""


class Scene:
    """
    Calls by their names without `memblock_`, in lower case: `m.add(1 * M, 4 * K)`.

    A call returns what C returns: a number, or a tuple of numbers for a walk and for what fills in arguments.
    """

    def __init__(self, subject: Model | Original, switches: int = 0) -> None:
        self.subject = subject
        self.release = subject.release
        self.steps: list[tuple[Operation, Answer]] = []
        self.exact_totals = True
        self.do("RESET", switches)

    def do(self, verb: str, *arguments: int | str) -> Answer:
        """Do one operation, keep it, and return all that came of it."""
        if isinstance(self.subject, Model):
            answer = Answer.read(self.subject.step((verb, *arguments)))
        else:
            answer = Answer.read(self.subject.run([op(verb, *arguments)])[0])
        self.steps.append(((verb, *arguments), answer))
        if answer.status:
            raise Died(answer.log.splitlines()[-1])
        if verb == "TRIM_MEMORY":
            self.exact_totals = False
        for _, total, _, regions in answer.types if self.exact_totals else ():
            assert total == sum(size for _, size, _, _ in regions)
        return answer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        verb = name.upper()
        if verb not in VERBS:
            raise AttributeError(name)

        def call(*arguments: int | str) -> Any:
            results = self.do(verb, *arguments).results
            return results[0] if len(results) == 1 else results or None
        return call

    @property
    def last(self) -> Answer:
        return self.steps[-1][1]

    def _regions(self, which: int) -> list[Region]:
        return [(r[0], r[1], draw.label(r)) for r in self.last.types[which][3] if r[1]]

    @property
    def memory(self) -> list[Region]:
        return self._regions(0)

    @property
    def reserved(self) -> list[Region]:
        return self._regions(1)

    def array(self, name: str) -> list[Region]:
        return self._regions(("memory", "reserved").index(name))

    def room(self, name: str) -> int:
        return self.last.types[("memory", "reserved").index(name)][0]

    @property
    def log(self) -> list[str]:
        """What the last call printed."""
        return self.last.log.splitlines()

    def picture(self) -> str:
        """Draw both arrays as they are now."""
        rows = [(name, type[3]) for name, type in zip(("memory", "reserved"), self.last.types, strict=True)]
        return draw.strip([row for row in rows if any(r[1] for r in row[1])] or rows)
