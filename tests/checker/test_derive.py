# SPDX-License-Identifier: GPL-2.0-only
"""
Derivation on machines made of two bits, where the answer can be seen.

A pfn of these trials is a number of two bits; the ingredient `a` is its low bit, `b` its high one.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from memhp.checker import derive
from memhp.checker.derive import Broken, Space, Trial
from memhp.linux.include.mmzone import Definition, Ingredient

A = Ingredient("a", lambda k, pfn: bool(pfn & 1))
B = Ingredient("b", lambda k, pfn: bool(pfn & 2))
SPACE = Space((A, B))


def wants(caller: str, **answers: bool) -> Trial:
    """A caller that needs the given answers for pfns p0 … p3, asked in order; it stops at the first wrong one."""

    def run(definition: Definition) -> Sequence[Broken]:
        for name, wanted in answers.items():
            if definition.test(None, int(name[1:])) is not wanted:  # type: ignore[arg-type]
                return [Broken("answer", f"pfn {name[1:]} should be {wanted}")]
        return []

    return Trial(caller, "any", run)


def test_a_trial_forks_only_at_questions_it_asks() -> None:
    """A caller that asks one question has two branches; one that stops early has no third."""
    assert 2 == len(derive.explore(wants("one", p1=True), SPACE))
    assert 3 == len(derive.explore(wants("two", p1=True, p2=False), SPACE))


def test_sound_definitions_are_exactly_those_that_extend_accepted_tables() -> None:
    """Asked: p1 yes, p2 no. Nothing is said of p0 and p3, so they are not part of any table."""
    found = derive.derive(SPACE, [wants("x", p1=True), wants("y", p2=False)])
    assert [(True, False), (False, True)] == found.valuations
    assert ["a"] == found.expressions()


def test_the_simplest_expression_of_every_table() -> None:
    """Over all four valuations, every one of the 16 tables has an expression, and it means that table."""
    valuations = [SPACE.valuation(None, pfn) for pfn in (3, 2, 1, 0)]  # type: ignore[arg-type]
    found = derive.simplest_expressions(SPACE, valuations)
    assert 16 == len(found)
    for number, text in found.items():
        for i, (a, b) in enumerate(valuations):
            assert bool(number >> i & 1) == eval(text, {"a": a, "b": b})
    assert {"a", "b", "not a", "not b", "a and b", "a or b"} <= set(found.values())


def test_conflict_and_split() -> None:
    """Two callers want opposite answers: they are the conflict, and the smaller party moves away."""
    trials = [wants("ram1", p3=True), wants("ram2", p3=True), wants("device", p3=False)]
    found = derive.derive(SPACE, trials)
    assert [] == found.expressions()
    assert [("ram1", "device"), ("ram2", "device")] == derive.conflicts(found)
    parted = derive.split(found)
    assert parted is not None
    assert [("ram1", "ram2"), ("device",)] == [callers for _, callers in parted.predicates]
    assert 1 == parted.moved


def test_a_caller_that_nothing_satisfies_is_a_conflict_of_one() -> None:
    """Opposite answers to one question cannot be had, and no split helps."""
    never = Trial("never", "any", lambda definition: [Broken("x", "always")])
    found = derive.derive(SPACE, [never, wants("fine", p1=True)])
    assert [("never",)] == derive.conflicts(found)
    assert derive.split(found) is None


def test_a_witness_replays() -> None:
    """What a table fails is a trial with a branch that says what happened."""
    found = derive.derive(SPACE, [wants("x", p1=True)])
    witness = derive.witness_of(found.constraints["x"], {(True, False): False})
    assert witness is not None
    assert "pfn 1 should be True" == witness[1].broken[0].text
    assert derive.witness_of(found.constraints["x"], {(True, False): True}) is None


def test_an_undecided_question_is_no_failure_of_the_kernel() -> None:
    """It passes through code that catches every Exception."""
    assert not issubclass(derive.Undecided, Exception)
    with pytest.raises(derive.Undecided):
        derive.table(SPACE, {}).test(None, 1)  # type: ignore[arg-type]
