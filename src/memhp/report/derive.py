# SPDX-License-Identifier: GPL-2.0-only
"""What `memhp derive` prints: kinds of pfn, what each caller needs of them, and what follows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from memhp.checker.answer import BOOT, HOT_ADD, Answer, Online, Tried, Without, simplest_for
from memhp.checker.derive import Split
from memhp.checker.orders import MAIL, Search
from memhp.report import text

WIDTH = 130
MOST = 8
"""Definitions, conflicts and splits that are printed; --json has all."""


def page(answer: Answer, tried: Sequence[Tried] = (), online: Online | None = None) -> list[str]:
    """
    Return the whole output.

    Args:
        answer: What came out.
        tried: Splits that were run.
        online: Whether anybody needs to know that memory is online, if that was asked.
    """
    d = answer.derivation
    lines = [
        f"{answer.question.words()}: {text.counted(len(answer.question.callers), 'caller')}, "
        f"{text.counted(answer.trials, 'trial')}, {text.counted(answer.runs, 'run')}", "",
        *kinds(answer), "", *needs(answer), "",
    ]
    if d.sound:
        lines += sound(answer)
    else:
        lines += ["No definition serves everybody.", "", *conflicts(answer), "", *splits(answer, tried)]
    if answer.aside:
        lines += ["", *aside(answer)]
    lines += ["", *history(answer, online)]
    changed = [*without("caller", answer.without_caller), *without("obligation", answer.without_obligation)]
    if changed:
        lines += ["", "What changes if one is dropped (the others change nothing):", *changed]
    lines += ["", *witnesses(answer)]
    return lines


def kinds(answer: Answer) -> list[str]:
    """Return the kinds of pfn that pfn_valid() was asked about, by what the ingredients say."""
    d = answer.derivation
    rows = [
        (str(i), d.space.words(valuation), ", ".join(states) or "(a pfn on the way)")
        for i, (valuation, states) in enumerate(zip(d.valuations, answer.classes, strict=True), 1)]
    return text.columns(rows, header=("KIND", "INGREDIENTS", "PAGES OF THAT KIND"), right=[0])


def needs(answer: Answer) -> list[str]:
    """Return what each caller needs of each kind; callers with the same needs share a line."""
    d = answer.derivation
    groups: dict[tuple[str, str], list[str]] = {}
    for name, marks in answer.needs.items():
        groups.setdefault((marks, simplest_for(d, name)), []).append(name)
    numbers = [str(i) for i in range(1, len(d.valuations) + 1)]
    rows = []
    for (marks, simplest), names in groups.items():
        wrapped = textwrap.wrap(", ".join(names), WIDTH - 3 * len(numbers) - 26) or [""]
        rows.append((*marks, simplest, wrapped[0]))
        rows += [(*("" for _ in marks), "", more) for more in wrapped[1:]]
    return [
        "What each needs: 1 yes, 0 no, - either, * depends on the other kinds",
        *text.columns(rows, header=(*numbers, "SIMPLEST", "CALLERS"))]


def sound(answer: Answer) -> list[str]:
    """Return the definitions that serve everybody."""
    expressions = answer.derivation.expressions()
    word = "serves" if len(expressions) == 1 else "serve"
    of = 1 << len(answer.derivation.valuations)
    lines = [f"{text.counted(len(expressions), 'definition')} of {of} {word} everybody, simplest first:"]
    lines += [f"  {expression}" for expression in expressions[:MOST]]
    if len(expressions) > MOST:
        lines.append(f"  and {len(expressions) - MOST} more (--json has all)")
    return lines


def conflicts(answer: Answer) -> list[str]:
    """Return the smallest sets of callers in conflict; pairs with the same other side share a line."""
    pairs = [group for group in answer.conflicts if len(group) == 2]
    others: dict[str, list[str]] = {}
    for a, b in pairs:
        others.setdefault(a, []).append(b)
    sides: dict[tuple[str, ...], list[str]] = {}
    for a, other in others.items():
        sides.setdefault(tuple(other), []).append(a)
    lines = [f"Smallest conflicts: {_sizes(answer)}"]
    for against, names in list(sides.items())[:MOST]:
        lines += _wrapped(f"each of {', '.join(names)}", "  ")
        lines += _wrapped(f"with each of {', '.join(against)}", "      ")
    if len(sides) > MOST:
        lines.append(f"  and {len(sides) - MOST} more groups (--json has all)")
    larger = [group for group in answer.conflicts if len(group) > 2]
    for group in larger[:4]:
        lines.append(f"  {' with '.join(group)}, all together")
    if len(larger) > 4:
        lines.append(f"  and {len(larger) - 4} more like these (--json has all)")
    return lines


def _sizes(answer: Answer) -> str:
    counts = [(size, len(list(group))) for size, group in groupby(sorted(map(len, answer.conflicts)))]
    words = {1: "single caller", 2: "pair", 3: "triple", 4: "set of four"}
    return ", ".join(
        text.counted(count, words.get(size, f"set of {size}"), "sets of four" if size == 4 else "") for size, count in counts)


def splits(answer: Answer, tried: Sequence[Tried] = ()) -> list[str]:
    """
    Return the cheapest split in full, how the others differ, and what came of running them.

    Args:
        tried: Splits that were run; the cheapest of those that held is shown. None: the cheapest by the tables.
    """
    if not answer.splits:
        return ["No split of up to four predicates serves everybody."]
    best = next((one.split for one in tried if not one.broken), None if tried else answer.splits[0])
    if best is None:
        lines = ["No split that the tables allow held when it was run:"]
    else:
        count = text.counted(len(best.predicates), "predicate")
        lines = [f"Cheapest split: {count}, {text.counted(best.moved, 'caller')} to be changed"]
        for i, (expression, names) in enumerate(best.predicates):
            head = f"pfn_valid() = {expression}" if i == 0 else f"a new predicate = {expression}"
            shown = [name for name in names if name not in (BOOT, HOT_ADD)]
            lines += _wrapped(f"{head}, for {text.counted(len(shown), 'caller')}{': ' + ', '.join(shown) if i else ''}", "  ")
    for one in tried:
        lines += _held(one)
    ran = [_words(one.split) for one in tried]
    others = [way for way in answer.splits if _words(way) not in ran and way is not best]
    lines += [f"  by the tables also: {_words(way)}, {text.counted(way.moved, 'caller')} to be changed" for way in others[:3]]
    return lines


def _words(split: Split) -> str:
    return " + ".join(split.expressions)


def _held(tried: Tried) -> list[str]:
    what = f"{text.counted(tried.runs, 'run')}, {len(tried.broken)} broken"
    lines = [f"  run with {_words(tried.split)}: {what}; {text.counted(tried.split.moved, 'caller')} to be changed"]
    for caller, state, broken in tried.broken[:MOST]:
        lines += _wrapped(f"{caller} in {state}: {broken.text} [{broken.obligation}]", "      ")
    if tried.during_boot:
        lines.append(f"      not run, as boot asks one predicate only: {', '.join(tried.during_boot)}")
    return lines


def aside(answer: Answer) -> list[str]:
    """Return what no definition serves, and why."""
    lines = ["Set aside, as no definition over these ingredients serves it:"]
    for a in answer.aside:
        why = "whatever the answer is"
        if a.against:
            why = f"it wants the opposite of {', '.join(a.against)}, which is of the same kind"
        lines += _wrapped(f"{a.caller} in {a.state}: {a.broken.text}; {why}", "  ")
        lines.append(f"      again: {a.replay}")
    return lines


def history(answer: Answer, online: Online | None = None) -> list[str]:
    """Return whether the predicates that history made come out."""
    d = answer.derivation
    lines = ["What history made of it:"]
    for expression, meaning in (
        ("valid", "pfn_valid() by section, in the end (v5.16, 3de360c3fdb3)"),
        ("map", "pfn_is_map_memory() (v5.14, 873ba463914c)"),
    ):
        served = len([name for name in answer.with_ingredient(expression) if name not in (BOOT, HOT_ADD)])
        lines.append(f"  {expression:6} {meaning}: serves {served} of {len(answer.question.callers)} callers")
    both = answer.with_predicates("valid", "map")
    if both is None:
        lines.append("         together they do not serve everybody")
    elif d.sound:
        lines.append("         one definition is enough")
    else:
        lines += _wrapped(f"together they serve everybody; {text.counted(both.moved, 'caller')} to be changed: "
                          f"{', '.join(both.predicates[1][1])}", "         ")
    if online is not None:
        if online.needed_by:
            lines += _wrapped(f"online pfn_to_online_page() (v4.13): comes out, needed by {', '.join(online.needed_by)}", "  ")
        else:
            lines += _wrapped(
                "online pfn_to_online_page() (v4.13): does not come out. With `online` as an ingredient, "
                f"{text.counted(online.pairs, 'pair')} of kinds of pfn differ in nothing else, and no caller needs different "
                "answers: v4.9 initialises struct pages when memory is added, not when it goes online", "  ")
    return lines


def without(what: str, changes: list[Without]) -> list[str]:
    """Return what changes without each caller or obligation; equal changes share a line."""
    groups: dict[tuple[int, str, tuple[str, ...]], list[str]] = {}
    for w in changes:
        groups.setdefault((w.sound, w.simplest, w.predicates), []).append(w.name)
    lines = []
    for (count, simplest, predicates), names in groups.items():
        more = f" and {count - 1} more" if count > 1 else ""
        then = f"one definition is enough: {simplest}{more}" if count else f"split {' + '.join(predicates)}"
        lines += _wrapped(f"{what} {' or '.join(names)}: {then}", "  ")
    return lines


def witnesses(answer: Answer) -> list[str]:
    """Return one witness for each need that differs: a run that breaks if pfn_valid() answers otherwise."""
    lines = ["Witnesses (a need of each kind, one way and the other; --json has those of every caller):"]
    for i in range(len(answer.derivation.valuations)):
        for wanted in (True, False):
            names = [name for name, marks in answer.needs.items() if marks[i] == "01"[wanted] and name not in (BOOT, HOT_ADD)]
            need = next((found for name in names if (found := answer.need(name, i))), None)
            if need is not None:
                word = "yes" if wanted else "no"
                lines += _wrapped(
                    f"kind {i + 1} must be {word}: {need.caller} in {need.state} with `{need.expression}`: {need.broken.text} "
                    f"[{need.broken.obligation}]", "  ")
                lines.append(f"      again: {need.replay}")
    return lines


def _wrapped(words: str, indent: str) -> list[str]:
    return textwrap.wrap(words, WIDTH, initial_indent=indent, subsequent_indent=indent + "    ", break_on_hyphens=False)


def orders(search: Search) -> list[str]:
    """Return the table of orders: which work, what each other breaks."""
    lines = [
        f"{search.tried} orders of subsets of {text.counted(len(MAIL), 'step')}, {len(search.working)} work "
        f"({search.states} states in which onlining was run)", "",
        *_wrapped(f"The mail's order {'works' if MAIL in search.working else 'does not work'}: {_order(MAIL)}", ""),
    ]
    smallest = search.smallest()
    if smallest:
        lines.append(f"With the fewest steps, {len(smallest[0])}:")
        lines += [f"  {_order(order)}" for order in smallest]
        lines += ["", f"In every order that works: {', '.join(search.needed())}"]
        before: dict[str, list[str]] = {}
        for a, b in search.precedences():
            before.setdefault(a, []).append(b)
        lines += [f"  {a} before {', '.join(later)}" for a, later in before.items()]
    lines += ["", "What each other order breaks:"]
    rows = [
        (str(len(found)), why, _order(found[0])) for why, found in sorted(search.broken.items(), key=lambda item: -len(item[1]))]
    lines += text.columns(rows, header=("ORDERS", "WHAT BREAKS", "FOR EXAMPLE"), right=[0])
    return lines


def _order(steps: tuple[str, ...]) -> str:
    return ", ".join(steps)
