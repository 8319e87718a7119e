# SPDX-License-Identifier: GPL-2.0-only
"""
Which definitions of pfn_valid() satisfy everything that depends on it, found by running what depends on it.

A definition is a function of what its ingredients say: of a *valuation*, such as "in range, section valid, not in memblock".
Here it is decided lazily. A `Trial` runs one caller in one state of a machine; when it asks pfn_valid() of a pfn whose valuation
nobody has decided, the run forks: one branch answers yes, the other no. A branch ends when an obligation breaks or the trial
ends well. So each trial yields its exact set of accepted partial tables, and a definition is *sound* if it extends an accepted
table of every trial. Where no definition is sound, the smallest sets of callers in conflict are found, and the cheapest way to
split pfn_valid() into several predicates that together serve everybody.

Nothing here knows history; what comes out depends on the trials and their obligations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from itertools import combinations, product

from memhp.checker.expression import INGREDIENTS
from memhp.linux.include.mmzone import Definition, Ingredient
from memhp.linux.state import Kernel
from memhp.linux.tree import Tree

Valuation = tuple[bool, ...]
"""What each ingredient of a `Space` says, in its order."""
Partial = dict[Valuation, bool]
"""Answers for some valuations."""


class Undecided(BaseException):
    """
    pfn_valid() was asked for a valuation that the table does not decide.

    Not an `Exception`, so that nothing in between takes it for a failure of the kernel.
    """

    def __init__(self, valuation: Valuation) -> None:
        super().__init__(valuation)
        self.valuation = valuation


@dataclass(frozen=True, slots=True)
class Space:
    """
    The ingredients a definition may use.

    Attributes:
        ingredients: In the order of valuations.
    """

    ingredients: tuple[Ingredient, ...]

    def valuation(self, k: Kernel, pfn: int) -> Valuation:
        """Return what the ingredients say of a pfn."""
        return tuple(part.test(k, pfn) for part in self.ingredients)

    def words(self, valuation: Valuation) -> str:
        """Return a valuation as text: "inrange valid !map"."""
        return " ".join(("" if on else "!") + part.name for part, on in zip(self.ingredients, valuation, strict=True))


def space_of(tree: Tree) -> Space:
    """Return the ingredients that exist in a tree."""
    return Space(tuple(part for part in INGREDIENTS.values() if not part.needs or getattr(tree, part.needs)))


@dataclass(frozen=True, slots=True)
class Lookup:
    """The one term of a definition that is a table."""

    space: Space
    answers: Partial

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        valuation = self.space.valuation(k, pfn)
        try:
            return self.answers[valuation], "table"
        except KeyError:
            raise Undecided(valuation) from None

    def parts(self) -> tuple[Ingredient, ...]:
        return self.space.ingredients


def table(space: Space, answers: Partial) -> Definition:
    """Return the definition that looks its answers up, and raises `Undecided` for others."""
    return Definition("table", "lazily decided", (Lookup(space, answers),))


@dataclass(frozen=True, slots=True)
class Broken:
    """
    An obligation that did not hold.

    Attributes:
        obligation: Its name.
        text: What happened, in words.
    """

    obligation: str
    text: str


@dataclass(frozen=True, slots=True)
class Trial:
    """
    One caller in one state.

    Attributes:
        caller: Its name.
        state: Name of the state.
        run: Boots a machine under a definition, brings it into the state, calls; returns what broke. What raises `Undecided`
            must go through.
    """

    caller: str
    state: str
    run: Callable[[Definition], Sequence[Broken]]


@dataclass(frozen=True, slots=True)
class Branch:
    """
    One end of a trial.

    Attributes:
        answers: What had been decided.
        broken: What broke; empty if the trial ended well.
    """

    answers: Partial
    broken: tuple[Broken, ...]


def explore(trial: Trial, space: Space) -> list[Branch]:
    """Run a trial under every way of answering the questions it asks; returns its branches."""
    branches: list[Branch] = []
    open_tables: list[Partial] = [{}]
    while open_tables:
        answers = open_tables.pop()
        try:
            broken = trial.run(table(space, answers))
        except Undecided as question:
            open_tables.append({**answers, question.valuation: True})
            open_tables.append({**answers, question.valuation: False})
            continue
        branches.append(Branch(answers, tuple(broken)))
    return branches


@dataclass(slots=True)
class Constraint:
    """
    What one caller asks of a definition, over all states it was tried in.

    Attributes:
        caller: Its name.
        allowed: Bit t set: total table t satisfies every trial of it.
        trials: Its trials with their branches.
    """

    caller: str
    allowed: int
    trials: list[tuple[Trial, list[Branch]]]


@dataclass(slots=True)
class Split:
    """
    A way to serve everybody with several predicates.

    Attributes:
        predicates: (simplest expression, callers that use it); the first one remains pfn_valid().
    """

    predicates: list[tuple[str, tuple[str, ...]]]

    @property
    def moved(self) -> int:
        """How many callers leave pfn_valid()."""
        return sum(len(callers) for _, callers in self.predicates[1:])


@dataclass(slots=True)
class Derivation:
    """
    The answer.

    Attributes:
        space: The ingredients.
        valuations: Those that occurred, in the order of the bits of a table number.
        constraints: By caller.
        sound: Numbers of the total tables that satisfy every caller.
        simplest: Table number -> its simplest expression, for every table.
    """

    space: Space
    valuations: list[Valuation]
    constraints: dict[str, Constraint]
    sound: list[int]
    simplest: dict[int, str] = field(default_factory=dict)

    def expressions(self) -> list[str]:
        """Return the sound definitions as expressions, simplest first."""
        return sorted((self.simplest[t] for t in self.sound), key=lambda text: (text.count(" "), len(text), text))

    def number(self, definition: Definition, witness: dict[Valuation, tuple[Kernel, int]]) -> int:
        """Return the table number of a definition, asked at a witness of each valuation."""
        return sum(
            1 << i for i, valuation in enumerate(self.valuations) if definition.test(*witness[valuation]))

    def answers(self, number: int) -> Partial:
        """Return a table by its number."""
        return {valuation: bool(number >> i & 1) for i, valuation in enumerate(self.valuations)}


def constrain(space: Space, trials: Iterable[Trial]) -> tuple[list[Valuation], dict[str, Constraint]]:
    """Explore every trial; return the valuations that occurred and what each caller allows."""
    explored = [(trial, explore(trial, space)) for trial in trials]
    seen: dict[Valuation, None] = {}
    for _, branches in explored:
        for branch in branches:
            seen.update(dict.fromkeys(branch.answers))
    valuations = sorted(seen, reverse=True)
    full = (1 << (1 << len(valuations))) - 1
    constraints: dict[str, Constraint] = {}
    for trial, branches in explored:
        allowed = accepted(branches, valuations)
        constraint = constraints.setdefault(trial.caller, Constraint(trial.caller, full, []))
        constraint.allowed &= allowed
        constraint.trials.append((trial, branches))
    return valuations, constraints


def _extensions(answers: Partial, valuations: list[Valuation]) -> int:
    """The total tables that extend a partial one, as a set of bits."""
    bits = (1 << (1 << len(valuations))) - 1
    for i, valuation in enumerate(valuations):
        if valuation in answers:
            says_yes = _tables_with(i, len(valuations))
            bits &= says_yes if answers[valuation] else ~says_yes
    return bits


@cache
def _tables_with(i: int, count: int) -> int:
    """The tables over `count` valuations that answer yes to valuation i, as a set of bits."""
    return sum(1 << number for number in range(1 << count) if number >> i & 1)


def accepted(branches: Iterable[Branch], valuations: list[Valuation], dropped: frozenset[str] = frozenset()) -> int:
    """
    Return the tables that satisfy a trial, as a set of bits.

    Args:
        branches: Of the trial.
        valuations: In the order of the bits of a table number.
        dropped: Names of obligations that are let off.
    """
    bits = 0
    for branch in branches:
        if all(broken.obligation in dropped for broken in branch.broken):
            bits |= _extensions(branch.answers, valuations)
    return bits


def forced(allowed: int, valuations: list[Valuation]) -> str:
    """
    Return what a set of tables asks for each valuation: "1" or "0" if all agree, "-" if it does not matter, "*" if that
    depends on the answers to others. An empty set: "x" throughout.
    """
    if not allowed:
        return "x" * len(valuations)
    marks = ""
    for i in range(len(valuations)):
        says_yes = _tables_with(i, len(valuations))
        yes, no = allowed & says_yes, allowed & ~says_yes
        marks += "0" if not yes else "1" if not no else "-" if yes == no << (1 << i) else "*"
    return marks


def derive(space: Space, trials: Iterable[Trial]) -> Derivation:
    """Find every sound definition."""
    valuations, constraints = constrain(space, trials)
    return conclude(space, valuations, constraints)


def conclude(
    space: Space, valuations: list[Valuation], constraints: dict[str, Constraint], simplest: dict[int, str] | None = None,
) -> Derivation:
    """
    Find the sound definitions among constraints that are known already.

    Args:
        simplest: What `simplest_expressions()` returned for these valuations, if that is known, too.
    """
    full = (1 << (1 << len(valuations))) - 1
    allowed = reduce(lambda a, b: a & b, (c.allowed for c in constraints.values()), full)
    expressions = simplest_expressions(space, valuations) if simplest is None else simplest
    return Derivation(space, valuations, constraints, list(tables(allowed)), expressions)


def tables(value: int) -> Iterator[int]:
    """Yield the table numbers of a set of bits."""
    while value:
        low = value & -value
        yield low.bit_length() - 1
        value ^= low


def simplest_expressions(space: Space, valuations: list[Valuation]) -> dict[int, str]:
    """
    Return for every table over these valuations one of its shortest expressions.

    Expressions grow by `not`, `and`, `or`; the number of ingredients in them is their size. Of equals, the one without `not`
    and with the ingredient that kernels have used most.
    """
    everything = (1 << len(valuations)) - 1
    found: dict[int, str] = {everything: "True", 0: "False"}
    by_size: dict[int, list[int]] = {1: []}
    kind: dict[int, str] = {}
    parts = sorted(enumerate(space.ingredients), key=lambda pair: rank(pair[1].name))
    atoms = [(sum(1 << i for i, v in enumerate(valuations) if v[position]), part.name) for position, part in parts]
    for number, text in [*atoms, *((everything & ~bits, f"not {name}") for bits, name in atoms)]:
        if number not in found:
            found[number] = text
            kind[number] = "atom"
            by_size[1].append(number)
    size = 1
    while len(found) < 1 << len(valuations) and size < 12:
        size += 1
        by_size[size] = []
        for left_size in range(1, size // 2 + 1):
            for a in by_size[left_size]:
                for b in by_size[size - left_size]:
                    for number, word in ((a & b, "and"), (a | b, "or")):
                        if number in found:
                            continue
                        sides = [found[x] if kind[x] in ("atom", word) else f"({found[x]})" for x in (a, b)]
                        found[number] = f" {word} ".join(sorted(sides, key=lambda side: (side.count(" "), rank(side))))
                        kind[number] = word
                        by_size[size].append(number)
    return found


_USED = ("valid", "map", "mb", "present", "upper", "inrange", "early", "sub", "online", "taint")


def rank(text: str) -> int:
    """Return the place of the first ingredient an expression names in `_USED`."""
    first = text.replace("(", "").removeprefix("not ").split(" ")[0].removesuffix(")")
    return _USED.index(first) if first in _USED else len(_USED)


def conflicts(derivation: Derivation, most: int = 4) -> list[tuple[str, ...]]:
    """
    Return the smallest sets of callers that no definition serves together; none contains another.

    Args:
        most: Callers in a set at most.
    """
    alike: dict[int, list[str]] = {}
    for name, constraint in derivation.constraints.items():
        alike.setdefault(constraint.allowed, []).append(name)
    groups: list[tuple[int, ...]] = []
    for size in range(1, most + 1):
        for group in combinations(alike, size):
            if not reduce(lambda a, b: a & b, group) and not any(set(known) <= set(group) for known in groups):
                groups.append(group)
    order = {name: i for i, name in enumerate(derivation.constraints)}
    found = [tuple(sorted(names, key=order.__getitem__)) for group in groups for names in product(*(alike[g] for g in group))]
    return sorted(found, key=lambda names: (len(names), [order[name] for name in names]))


def split(derivation: Derivation, most: int = 4, among: int = -1) -> Split | None:
    """Return the cheapest way to serve every caller with several predicates, the first of `splits()`."""
    return next(iter(splits(derivation, most, among)), None)


def splits(derivation: Derivation, most: int = 4, among: int = -1) -> list[Split]:
    """
    Return the ways to serve every caller with as few predicates as possible, the cheapest first.

    Cheapest: the fewest callers that leave pfn_valid(); of those, the shortest expressions.

    Args:
        most: Predicates at most.
        among: Tables that may be predicates, as a set of bits; all by default.
    """
    names = list(derivation.constraints)
    simple = {number: text for number, text in derivation.simplest.items() if among >> number & 1}
    best: dict[int, int] = {}
    alike: dict[int, int] = {}
    for i, name in enumerate(names):
        allowed = derivation.constraints[name].allowed
        alike[allowed] = alike.get(allowed, 0) | 1 << i
    for number in simple:
        served = sum(who for allowed, who in alike.items() if allowed >> number & 1)
        if served not in best or len(simple[number]) < len(simple[best[served]]):
            best[served] = number
    everybody = (1 << len(names)) - 1
    masks = sorted(best, key=lambda mask: (-mask.bit_count(), len(simple[best[mask]])))
    maximal: list[int] = []
    for mask in masks:
        if not any(mask & other == mask for other in maximal):
            maximal.append(mask)
    for count in range(1, most + 1):
        choices = [group for group in combinations(maximal, count) if reduce(lambda a, b: a | b, group) == everybody]
        if choices:
            found = []
            for group in choices:
                ordered = sorted(group, key=lambda m: (-m.bit_count(), len(simple[best[m]])))
                found.append(Split(_assign(ordered, names, best, simple)))
            return sorted(found, key=lambda way: (way.moved, sum(len(text) for text, _ in way.predicates)))
    return []


def _assign(
    masks: list[int], names: list[str], best: dict[int, int], simple: dict[int, str],
) -> list[tuple[str, tuple[str, ...]]]:
    """Give each caller the first predicate that serves it."""
    left = (1 << len(names)) - 1
    predicates = []
    for mask in masks:
        mine = mask & left
        left &= ~mask
        predicates.append((simple[best[mask]], tuple(name for i, name in enumerate(names) if mine >> i & 1)))
    return predicates


def witness_of(constraint: Constraint, answers: Partial) -> tuple[Trial, Branch] | None:
    """Return a trial that a table fails, with the branch it ends in; None if it passes all."""
    for trial, branches in constraint.trials:
        for branch in branches:
            if branch.broken and all(answers.get(v) == answer for v, answer in branch.answers.items()):
                return trial, branch
    return None
