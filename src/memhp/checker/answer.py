# SPDX-License-Identifier: GPL-2.0-only
"""
The mail's question, asked of v4.9: which pfn_valid() serves everything that asks it?

`answer()` turns callers and states into trials, lets `derive` find every sound definition, and where there is none works out
who is in conflict, the cheapest split, what each caller needs of each kind of pfn, which of the predicates that history made come
out, and what would change if a caller or an obligation were dropped. Every need has a witness: a run that breaks without it.

The obligations were written down with their sources, and committed, before this ran for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations

from memhp.checker import derive, expression
from memhp.checker import obligations as o
from memhp.checker.callers import BY_NAME, NOT_RUN, Caller, NobodyCalls, judge, observe
from memhp.checker.check import REMEDIES, parse_config, select, shell_words
from memhp.checker.derive import Branch, Broken, Constraint, Derivation, Partial, Space, Split, Trial, Valuation
from memhp.checker.states import ARCHES, STATES, TREES, Built, Setting
from memhp.errors import KernelBugError, UsageError, did_you_mean
from memhp.linux import kconfig
from memhp.linux.include import mmzone
from memhp.linux.include.memory import MEM_ONLINE
from memhp.linux.include.mmzone import Definition, Ingredient
from memhp.linux.state import Kernel

PLAIN = "nonomap-nohack"
"""The remedy under which arm64 adds memory as the generic code would, without marks."""
UNMARKED = frozenset(("nonomap", PLAIN, "generic"))
"""Remedies that mark nothing NOMAP, so that the states with a mark do not come about."""

BOOT = "boot"
HOT_ADD = "hot-add"
_WAY = {
    BOOT: ("RAM", "NOMAP", "NOMAP-first", "hole", "absent", "bogus"),
    HOT_ADD: ("D1", "D1n", "D2n", "D2", "D3", "D4", "ZONE_DEVICE"),
}
"""Who has to survive on the way to a state; whoever is called there is not blamed for a machine that died before."""


def _section_online(k: Kernel, pfn: int) -> bool:
    """Ask the block, as v4.9 has no flag in the section; before there are blocks, what is there is online."""
    block = k.memory_blocks.get((pfn >> k.PFN_SECTION_SHIFT) // k.sections_per_block)
    return block.state == MEM_ONLINE if block is not None else not k.memory_blocks and mmzone.PRESENT.test(k, pfn)


ONLINE = Ingredient("online", _section_online)
"""Whether the section is online, as if v4.9 had v4.13's flag: to see whether anybody would need it."""


@dataclass(frozen=True, slots=True)
class Question:
    """
    What is asked.

    Attributes:
        arch: "arm64" or "x86_64".
        remedy: On arm64, the remedy of the 2016 series that adds memory.
        callers, states: Names that take part, in order.
        dropped: Names of obligations that are let off.
        config: Symbols that differ from the recorded kernel's.
    """

    arch: str
    remedy: str
    callers: tuple[str, ...]
    states: tuple[str, ...]
    dropped: frozenset[str] = frozenset()
    config: tuple[tuple[str, bool], ...] = ()

    def setting(self, definition: Definition) -> Setting:
        """Return what one run is made with."""
        return Setting(self.arch, definition, self.remedy, self.config)

    def words(self) -> str:
        """Return it in words: "arm64, remedy nonomap-nohack"."""
        config = "".join(f", {symbol}={'y' if on else 'n'}" for symbol, on in self.config)
        remedy = f", remedy {self.remedy}" if self.remedy else ""
        return f"{TREES[self.arch].name}, {self.arch}{remedy}{config}"


def question(
    arch: str = "arm64", remedy: str = "", callers: Iterable[str] = (), states: Iterable[str] = (), drop: Iterable[str] = (),
    config: Sequence[str] = (),
) -> Question:
    """
    Return a question from names; none mean all that apply.

    Args:
        arch: "arm64" or "x86_64".
        remedy: Of the 2016 series; "" is `PLAIN` on arm64.
        callers, states: Names.
        drop: Names of callers, states or obligations that do not take part.
        config: Symbols, such as "HOLES_IN_ZONE=y".

    Raises:
        UsageError: an unknown name; a remedy on x86_64; nothing is left to ask.
        ConfigError: these symbols exclude one another.
    """
    if arch not in ARCHES:
        raise UsageError(f"no architecture {arch!r}{did_you_mean(arch, ARCHES)}")
    if remedy and arch != "arm64":
        raise UsageError(f"remedy {remedy} belongs to arm64, and --arch says {arch}")
    if remedy and remedy not in REMEDIES:
        raise UsageError(f"no remedy {remedy!r}{did_you_mean(remedy, REMEDIES)}")
    remedy = remedy or (PLAIN if arch == "arm64" else "")
    gone = list(drop)
    for name in gone:
        known = [*BY_NAME, *STATES, *o.OBLIGATIONS]
        if name not in known:
            near = did_you_mean(name, known) or "; memhp check --list names callers, states and obligations"
            raise UsageError(f"nothing is called {name!r}{near}")
    symbols = parse_config(config)
    kconfig.check(replace(kconfig.default(arch), **dict(symbols)), arch)
    present = [
        name for name in select(states, STATES, "state")
        if arch in STATES[name].arches and name not in gone and not (remedy in UNMARKED and name in ("D1n", "D2n"))]
    wanted = [
        name for name in select(callers, BY_NAME, "caller")
        if name not in gone and BY_NAME[name].asks_pfn_valid and any(BY_NAME[name].applies(state, arch) for state in present)]
    if not wanted:
        raise UsageError("nothing to derive: none of these callers asks pfn_valid() in any of these states there")
    return Question(arch, remedy, tuple(wanted), tuple(present), frozenset(gone) & frozenset(o.OBLIGATIONS), symbols)


@dataclass(frozen=True, slots=True)
class Need:
    """
    What one caller needs pfn_valid() to say of one kind of pfn, and the run that shows it.

    Attributes:
        caller: Its name.
        valuation: Place in `Derivation.valuations`.
        wanted: The answer it needs.
        state: Where the other answer breaks it.
        broken: What breaks.
        expression: A definition that gives the other answer, and is right for this caller otherwise.
        replay: The command line that runs it.
    """

    caller: str
    valuation: int
    wanted: bool
    state: str
    broken: Broken
    expression: str
    replay: str


@dataclass(frozen=True, slots=True)
class Aside:
    """
    A trial that no definition serves together with the caller's others.

    Attributes:
        caller, state: The trial.
        broken: What breaks under the simplest definition that serves the caller's other trials.
        against: States of the same caller that want the opposite; empty: it breaks under every definition.
        replay: The command line that runs it.
    """

    caller: str
    state: str
    broken: Broken
    against: tuple[str, ...]
    replay: str


@dataclass(frozen=True, slots=True)
class Without:
    """
    What changes when something is dropped.

    Attributes:
        name: Of the caller or obligation.
        sound: How many definitions are sound then.
        simplest: The simplest of them, or "".
        predicates: The expressions of the split then.
    """

    name: str
    sound: int
    simplest: str
    predicates: tuple[str, ...]


@dataclass(slots=True)
class Answer:
    """
    What came out.

    Attributes:
        question: What was asked.
        derivation: Valuations, constraints and sound tables, without what was set aside.
        runs: How many machines were run.
        aside: Trials that no definition serves.
        needs: Caller -> what it needs of each valuation, as `derive.forced()` says it.
        classes: For each valuation, states whose page has it.
        conflicts: Smallest sets of callers that no definition serves together.
        splits: Ways to serve everybody with several predicates, as few as possible; the cheapest first.
        without_caller, without_obligation: Those that change the result.
    """

    question: Question
    derivation: Derivation
    runs: int
    aside: list[Aside]
    needs: dict[str, str]
    classes: list[tuple[str, ...]]
    conflicts: list[tuple[str, ...]]
    splits: list[Split]
    without_caller: list[Without] = field(default_factory=list)
    without_obligation: list[Without] = field(default_factory=list)

    @property
    def trials(self) -> int:
        """How many trials took part."""
        return sum(len(c.trials) for c in self.derivation.constraints.values()) + len(self.aside)

    def need(self, caller: str, valuation: int) -> Need | None:
        """Return what a caller needs of a valuation with its witness; None if either answer may do."""
        mark = self.needs[caller][valuation]
        if mark not in "01":
            return None
        d = self.derivation
        constraint = d.constraints[caller]
        for table in sorted(derive.tables(constraint.allowed), key=lambda t: (len(d.simplest[t]), t)):
            wrong = table ^ 1 << valuation
            found = derive.witness_of(constraint, d.answers(wrong))
            if found is not None:
                trial, branch = found
                broken = _blamed(branch, self.question.dropped)
                if broken is not None:
                    text = d.simplest[wrong]
                    return Need(caller, valuation, mark == "1", trial.state, broken, text, self.replay(caller, trial.state, text))
        return None

    def replay(self, caller: str, state: str, expression: str) -> str:
        """Return the command line that runs one caller in one state under a definition."""
        if caller in _WAY:
            caller = next(name for name in self.question.callers if BY_NAME[name].applies(state, self.question.arch))
        q = self.question
        remedy = ["--remedy", q.remedy] if q.remedy else []
        config = [word for symbol, on in q.config for word in ("--config", f"{symbol}={'y' if on else 'n'}")]
        where = ["--caller", caller, "--state", state]
        return shell_words(["memhp", "check", "--arch", q.arch, *remedy, "--pfn-valid", expression, *config, *where])

    def with_ingredient(self, name: str) -> list[str]:
        """Return the callers that one ingredient serves by itself."""
        answers = answers_of(self, name)
        number = sum(1 << i for i, valuation in enumerate(self.derivation.valuations) if answers[valuation])
        return [caller for caller, c in self.derivation.constraints.items() if c.allowed >> number & 1]

    def json(self) -> dict[str, object]:
        """Return it as plain data."""
        d, q = self.derivation, self.question
        return {
            "arch": q.arch, "tree": TREES[q.arch].name, "remedy": q.remedy or None, "callers": list(d.constraints),
            "states": list(q.states), "dropped": sorted(q.dropped), "trials": self.trials, "runs": self.runs,
            "ingredients": [part.name for part in d.space.ingredients],
            "valuations": [
                {"says": d.space.words(v), "states": list(states)} for v, states in zip(d.valuations, self.classes, strict=True)],
            "sound": d.expressions(),
            "needs": [
                {"caller": name, "needs": marks, "simplest": simplest_for(d, name),
                 "witnesses": [
                     {"valuation": n.valuation + 1, "wants": n.wanted, "state": n.state, "obligation": n.broken.obligation,
                      "text": n.broken.text, "replay": n.replay}
                     for n in (self.need(name, i) for i in range(len(marks))) if n is not None]}
                for name, marks in self.needs.items()],
            "aside": [
                {"caller": a.caller, "state": a.state, "obligation": a.broken.obligation, "text": a.broken.text,
                 "against": list(a.against), "replay": a.replay} for a in self.aside],
            "conflicts": [list(group) for group in self.conflicts],
            "splits": [
                [{"expression": text, "callers": list(names)} for text, names in way.predicates] for way in self.splits],
            "without": [
                {"name": w.name, "sound": w.sound, "simplest": w.simplest or None, "split": list(w.predicates)}
                for w in (*self.without_caller, *self.without_obligation)],
            "not_run": NOT_RUN,
        }

    def with_predicates(self, *names: str) -> Split | None:
        """Return the split that these ingredients make, each caller with the first that serves it; None if one is not served."""
        predicates: list[tuple[str, tuple[str, ...]]] = []
        left = list(self.derivation.constraints)
        for name in names:
            served = tuple(caller for caller in self.with_ingredient(name) if caller in left)
            left = [caller for caller in left if caller not in served]
            predicates.append((name, served))
        return None if left else Split(predicates)


def simplest_for(derivation: Derivation, caller: str) -> str:
    """Return the simplest definition that serves a caller, one with no constants if there is one that is as short."""
    found = [derivation.simplest[t] for t in derive.tables(derivation.constraints[caller].allowed)]
    return min(found, key=_simplicity, default="")


def _simplicity(expression: str) -> tuple[int, bool, int, str]:
    return expression.count(" "), expression in ("True", "False"), derive.rank(expression), expression


# Finding it


def trials(q: Question) -> list[Trial]:
    """Return every caller in every state, and the way to each state as a caller of its own."""
    found = [
        Trial(way, state, _run_way(q, state)) for way, states in _WAY.items() for state in states if state in q.states]
    for name in q.callers:
        caller = BY_NAME[name]
        found += [Trial(name, state, _run(q, caller, state)) for state in q.states if caller.applies(state, q.arch)]
    return found


def _run(q: Question, caller: Caller, state: str) -> Callable[[Definition], Sequence[Broken]]:
    return lambda definition: [
        broken for broken in judge(caller, state, q.setting(definition)) if broken.obligation != o.BOOTS.name]


def _run_way(q: Question, state: str) -> Callable[[Definition], Sequence[Broken]]:
    def run(definition: Definition) -> Sequence[Broken]:
        try:
            STATES[state].build(q.setting(definition))
        except KernelBugError as err:
            return [Broken(o.BOOTS.name, f"the machine died on the way to {state}: {err}")]
        return []

    return run


def answer(q: Question, *, drops: bool = True) -> Answer:
    """
    Find every definition that serves everybody, or why there is none.

    Args:
        q: What is asked.
        drops: Whether to find out what changes when a caller or an obligation is dropped.
    """
    work = _explore(q)
    space, valuations = work.space, work.valuations
    simplest = derive.simplest_expressions(space, valuations)
    work.simplest = simplest
    constraints, aside = work.constraints(q.dropped)
    found = derive.conclude(space, valuations, constraints, simplest)
    work.alive = reduce(lambda a, b: a & b, (constraints[way].allowed for way in _WAY if way in constraints), -1)
    result = Answer(
        q, found, sum(len(branches) for _, branches in work.explored), [],
        {name: derive.forced(c.allowed, valuations) for name, c in constraints.items()}, [],
        derive.conflicts(found) if not found.sound else [], [] if found.sound else derive.splits(found, among=work.alive))
    result.aside = [work.aside(result, trial, branches, constraints[trial.caller]) for trial, branches in aside]
    result.classes = work.classes(found)
    if drops:
        result.without_caller = work.without_callers(result)
        result.without_obligation = work.without_obligations(result)
    return result


def _explore(q: Question, extra: Sequence[Ingredient] = ()) -> _Work:
    """Run every trial under every way of answering; `extra` are ingredients beside those of the tree."""
    space = Space((*derive.space_of(TREES[q.arch]).ingredients, *extra))
    explored = [(trial, derive.explore(trial, space)) for trial in trials(q)]
    seen: dict[Valuation, None] = {}
    for _, branches in explored:
        for branch in branches:
            seen.update(dict.fromkeys(branch.answers))
    return _Work(q, space, sorted(seen, reverse=True), {}, explored)


@dataclass(slots=True)
class _Work:
    """What was explored, to be concluded from more than once."""

    q: Question
    space: Space
    valuations: list[Valuation]
    simplest: dict[int, str]
    explored: list[tuple[Trial, list[Branch]]]
    alive: int = -1
    """Tables under which the machine survives until somebody is called."""

    def constraints(self, dropped: frozenset[str]) -> tuple[dict[str, Constraint], list[tuple[Trial, list[Branch]]]]:
        """Return what each caller allows, and the fewest trials that had to be set aside so that each allows something."""
        full = (1 << (1 << len(self.valuations))) - 1
        by_caller: dict[str, list[tuple[Trial, list[Branch], int]]] = {}
        for trial, branches in self.explored:
            bits = derive.accepted(branches, self.valuations, dropped)
            by_caller.setdefault(trial.caller, []).append((trial, branches, bits))
        constraints: dict[str, Constraint] = {}
        aside: list[tuple[Trial, list[Branch]]] = []
        alive = reduce(lambda a, b: a & b, (bits for way in _WAY for _, _, bits in by_caller.get(way, ())), full)
        for name, tried in by_caller.items():
            kept = _most_that_agree(tried, full, alive)
            aside += [(trial, branches) for trial, branches, _ in tried if (trial, branches) not in kept[1]]
            constraints[name] = Constraint(name, kept[0], kept[1])
        return constraints, aside

    def aside(self, result: Answer, trial: Trial, branches: list[Branch], constraint: Constraint) -> Aside:
        """Say why a trial was set aside."""
        own = derive.accepted(branches, self.valuations, self.q.dropped)
        for way in _WAY:
            own &= result.derivation.constraints[way].allowed if way in result.derivation.constraints else own
        against = tuple(
            other.state for other, tried in constraint.trials
            if own and not own & derive.accepted(tried, self.valuations, self.q.dropped))
        number = min(derive.tables(constraint.allowed & self.alive), key=lambda t: _simplicity(self.simplest[t]))
        answers = {v: bool(number >> i & 1) for i, v in enumerate(self.valuations)}
        alone = Constraint(trial.caller, 0, [(trial, branches)])
        found = derive.witness_of(alone, answers)
        broken = _blamed(found[1], self.q.dropped) if found else None
        assert broken is not None
        return Aside(trial.caller, trial.state, broken, against, result.replay(trial.caller, trial.state, self.simplest[number]))

    def classes(self, found: Derivation) -> list[tuple[str, ...]]:
        """Return for each valuation the states whose page has it, under a definition that serves boot and hot-add."""
        text = "valid"
        names: dict[Valuation, list[str]] = {}
        terms = (next(part for part in self.space.ingredients if part.name == text),)
        for state in self.q.states:
            k, pfn = STATES[state].build(self.q.setting(Definition(text, "classes", terms)))
            names.setdefault(self.space.valuation(k, pfn), []).append(state)
        return [tuple(names.get(valuation, ())) for valuation in found.valuations]

    def _without(self, name: str, constraints: dict[str, Constraint]) -> Without:
        found = derive.conclude(self.space, self.valuations, constraints, self.simplest)
        parted = None if found.sound else derive.split(found, among=self.alive)
        sound = found.expressions()
        return Without(
            name, len(sound), sound[0] if sound else "", tuple(text for text, _ in parted.predicates) if parted else ())

    def without_callers(self, result: Answer) -> list[Without]:
        """Return the callers whose absence changes the number of sound definitions, or the split's predicates."""
        d = result.derivation
        base = self._without("", d.constraints)
        names = [name for name in d.constraints if name not in _WAY]
        found = (self._without(name, {n: c for n, c in d.constraints.items() if n != name}) for name in names)
        return [w for w in found if replace(w, name="") != base]

    def without_obligations(self, result: Answer) -> list[Without]:
        """Return the obligations whose absence changes either."""
        base = self._without("", result.derivation.constraints)
        owed = {broken.obligation for _, branches in self.explored for branch in branches for broken in branch.broken}
        changes = []
        for name in o.OBLIGATIONS:
            if name in owed and name != o.BOOTS.name and name not in self.q.dropped:
                without = self._without(name, self.constraints(self.q.dropped | {name})[0])
                if replace(without, name="") != base:
                    changes.append(without)
        return changes


def _most_that_agree(
    tried: list[tuple[Trial, list[Branch], int]], full: int, alive: int,
) -> tuple[int, list[tuple[Trial, list[Branch]]]]:
    """
    Return (tables, trials) of the largest part of a caller's trials that some table serves; of equals, the earlier states.

    A table under which the machine dies before anybody is called (not in `alive`) serves nobody.
    """
    possible = [entry for entry in tried if entry[2] & alive]
    for left_out in range(len(possible) + 1):
        for gone in reversed(list(combinations(range(len(possible)), left_out))):
            kept = [entry for i, entry in enumerate(possible) if i not in gone]
            allowed = reduce(lambda a, b: a & b, (bits for _, _, bits in kept), full)
            if allowed & alive:
                return allowed, [(trial, branches) for trial, branches, _ in kept]
    return full, []


def _blamed(branch: Branch, dropped: frozenset[str]) -> Broken | None:
    return next((broken for broken in branch.broken if broken.obligation not in dropped), None)


# Trying a split


@dataclass(slots=True)
class Tried:
    """
    A split that was run: pfn_valid() is its first predicate, but those who move to another ask that.

    Boot asks the predicate of memmap_init_zone() throughout; who asks during boot and has another was not run.

    Attributes:
        split: The split.
        runs: How many callers in states were run.
        broken: (caller, state, what broke).
        during_boot: Callers that were not run for that reason.
    """

    split: Split
    runs: int = 0
    broken: list[tuple[str, str, Broken]] = field(default_factory=list)
    during_boot: list[str] = field(default_factory=list)


_INIT = "memmap_init_zone"
_ASKS_AT_BOOT = frozenset((_INIT, "reserve_bootmem_region"))


def try_split(q: Question, split: Split, without: Iterable[tuple[str, str]] = ()) -> Tried:
    """
    Run every caller in every state with the predicate that a split gives it.

    Args:
        without: (caller, state) pairs that were set aside.
    """
    tried = Tried(split)
    first = expression.definition(split.predicates[0][0])
    at_boot = next((text for text, names in split.predicates if _INIT in names), split.predicates[0][0])
    machines: dict[tuple[str, tuple[tuple[str, bool], ...]], Built | KernelBugError] = {}
    gone = set(without)
    for text, names in split.predicates:
        own = expression.definition(text)
        for name in names:
            if name in _WAY:
                continue
            if text != at_boot and name in _ASKS_AT_BOOT:
                tried.during_boot.append(name)
                continue
            caller = BY_NAME[name]
            for state in q.states:
                if not caller.applies(state, q.arch) or (name, state) in gone:
                    continue
                key = state, caller.config
                if key not in machines:
                    setting = replace(q.setting(first), at_boot=expression.definition(at_boot))
                    try:
                        machines[key] = STATES[state].build(replace(setting, config=(*setting.config, *caller.config)))
                    except KernelBugError as err:
                        machines[key] = err
                machine = machines[key]
                if isinstance(machine, KernelBugError):
                    tried.runs += 1
                    tried.broken.append((name, state, Broken(o.BOOTS.name, f"the machine died on the way to {state}: {machine}")))
                    continue
                k, pfn = machine[0].fork(), machine[1]
                k.pfn_valid = own
                try:
                    outcome = observe(caller, k, pfn)
                except NobodyCalls:
                    continue
                tried.runs += 1
                for promise in caller.obligations:
                    what = promise.check(outcome)
                    if what and promise.name not in q.dropped:
                        tried.broken.append((name, state, Broken(promise.name, what)))
    return tried


def try_splits(result: Answer, most: int = 6) -> list[Tried]:
    """
    Run the splits of an answer, the cheapest first, until one holds; and then what history made, if that is another.

    A table says what a predicate does when everybody asks it. A caller that was content with one because nothing was added
    under it sees, in a split, what others add. So a split counts only if it was run.

    Args:
        most: How many splits are run at most.
    """
    gone = [(a.caller, a.state) for a in result.aside]
    tried: list[Tried] = []
    for way in result.splits[:most]:
        tried.append(try_split(result.question, way, gone))
        if not tried[-1].broken:
            break
    history = result.with_predicates("valid", "map") if result.splits else None
    if history is not None and history.expressions not in [one.split.expressions for one in tried]:
        tried.append(try_split(result.question, history, gone))
    return tried


# What history made of it


@dataclass(frozen=True, slots=True)
class Online:
    """
    Whether anybody needs to know that memory is online: what `pfn_to_online_page()` asks.

    Attributes:
        needed_by: Callers that need yes of a page of online memory and no of one that differs in nothing else, or the reverse.
        pairs: How many such pairs of pages the trials met.
    """

    needed_by: tuple[str, ...]
    pairs: int


def online(q: Question) -> Online:
    """Ask the same question with the ingredient `online` at hand, and see who makes use of it."""
    work = _explore(q, (ONLINE,))
    constraints, _ = work.constraints(q.dropped)
    place = [part.name for part in work.space.ingredients].index(ONLINE.name)
    where = {valuation: i for i, valuation in enumerate(work.valuations)}
    pairs = []
    for valuation, i in where.items():
        other = (*valuation[:place], not valuation[place], *valuation[place + 1:])
        if valuation[place] and other in where:
            pairs.append((i, where[other]))
    needs = {name: derive.forced(constraint.allowed, work.valuations) for name, constraint in constraints.items()}
    needed = [name for name, marks in needs.items() if any({marks[i], marks[j]} == {"0", "1"} for i, j in pairs)]
    return Online(tuple(needed), len(pairs))


def answers_of(result: Answer, name: str) -> Partial:
    """Return what an ingredient by itself says of each valuation."""
    place = [part.name for part in result.derivation.space.ingredients].index(name)
    return {valuation: valuation[place] for valuation in result.derivation.valuations}
