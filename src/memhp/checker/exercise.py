# SPDX-License-Identifier: GPL-2.0-only
"""
Questions to think about before running them: a seed makes a definition, a caller and a kind of page; a run gives the answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from memhp.checker import check
from memhp.checker.callers import BY_NAME, CALLERS
from memhp.checker.check import Report
from memhp.checker.expression import INGREDIENTS
from memhp.checker.obligations import BOOTS
from memhp.checker.states import ARCHES, STATES, TREES, Setting

_SHAPES = ("{a}", "not {a}", "{a} and {b}", "{a} or {b}", "{a} and not {b}", "{a} or not {b}", "{a} if {b} else {c}")
LIMIT = 1 << 32
"""Seeds are below it."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """
    A question.

    Attributes:
        seed: What made it.
        setting: Architecture, remedy, definition.
        caller, state: Names.
    """

    seed: int
    setting: Setting
    caller: str
    state: str

    def question(self) -> list[str]:
        """Return it as lines."""
        caller = BY_NAME[self.caller]
        owes = "; ".join(promise.text for promise in caller.obligations)
        remedy = f" with the remedy {self.setting.remedy}" if self.setting.remedy else ""
        return [
            f"Exercise {self.seed}. On {TREES[self.setting.arch].name}, {self.setting.arch}{remedy}, pfn_valid() is",
            f"    {self.setting.definition.name}",
            f"There {caller.c_function}() asks it ({caller.c_file}:{caller.line}; here called {caller.name}).",
            f"The page is {self.state}: {STATES[self.state].text}.",
            f"What is owed: {owes}.",
            "Does it hold? If not, what goes wrong?",
        ]

    def answer(self) -> Report:
        """Run it."""
        return check.check([self.setting], [self.caller], [self.state])


def exercise(seed: int) -> Exercise:
    """
    Return the exercise that a seed makes; most break, and the machine lives long enough to ask.

    Args:
        seed: 0 ≤ seed < `LIMIT`.
    """
    dice = random.Random(seed)
    wants_break = dice.random() < 0.7
    made = _draw(dice, seed)
    for _ in range(100):
        broken = {cell.broken.obligation for finding in made.answer().findings for cell in finding.cells}
        if bool(broken) == wants_break and BOOTS.name not in broken:
            break
        made = _draw(dice, seed)
    return made


def _draw(dice: random.Random, seed: int) -> Exercise:
    arch = dice.choice(ARCHES)
    names = [part.name for part in INGREDIENTS.values() if not part.needs or getattr(TREES[arch], part.needs)]
    a, b, c = dice.sample(names, 3)
    text = dice.choice(_SHAPES).format(a=a, b=b, c=c)
    setting = check.settings([arch], [dice.choice(check.REMEDIES)] if arch == "arm64" else [], [text])[0]
    asking = [caller for caller in CALLERS if caller.asks_pfn_valid]
    where = [(caller.name, state) for caller in asking for state in STATES if caller.applies(state, arch)]
    return Exercise(seed, setting, *dice.choice(where))
