# SPDX-License-Identifier: GPL-2.0-only
"""
A user's own definition of pfn_valid(), written as an expression over named ingredients.

``valid and map``, ``inrange and valid and (map if early else sub)``: the words `and`, `or`, `not`, `if … else`, `True`, `False`
and the ingredients, nothing else. The text is parsed with the standard module `ast` and walked; it is never evaluated.
"""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass

from memhp.errors import UsageError
from memhp.linux import boot
from memhp.linux.include import mmzone
from memhp.linux.include.mmzone import Definition, Ingredient, Term
from memhp.linux.mm import memblock
from memhp.linux.state import Kernel

INGREDIENTS: dict[str, Ingredient] = {
    part.name: part
    for part in (
        mmzone.INRANGE, mmzone.UPPER, mmzone.PRESENT, mmzone.VALID, mmzone.EARLY, mmzone.ONLINE, mmzone.SUB, memblock.MB,
        memblock.MAP, mmzone.TAINT,
    )
}
"""Every ingredient by name; what each means is in the docs and in `include/mmzone.py`."""

LIMIT = 1000
"""Characters of the longest expression."""


@dataclass(frozen=True, slots=True)
class Constant:
    """`True` or `False`."""

    value: bool

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        return self.value, "constant"

    def parts(self) -> tuple[Ingredient, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Not:
    """`not operand`."""

    operand: Term

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        answer, name = self.operand.decide(k, pfn)
        return not answer, name

    def parts(self) -> tuple[Ingredient, ...]:
        return self.operand.parts()


@dataclass(frozen=True, slots=True)
class All:
    """Every operand holds, asked from left to right."""

    operands: tuple[Term, ...]

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        name = ""
        for operand in self.operands:
            answer, name = operand.decide(k, pfn)
            if not answer:
                return False, name
        return True, name

    def parts(self) -> tuple[Ingredient, ...]:
        return tuple(part for operand in self.operands for part in operand.parts())


@dataclass(frozen=True, slots=True)
class Any:
    """One operand holds, asked from left to right."""

    operands: tuple[Term, ...]

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        name = ""
        for operand in self.operands:
            answer, name = operand.decide(k, pfn)
            if answer:
                return True, name
        return False, name

    def parts(self) -> tuple[Ingredient, ...]:
        return tuple(part for operand in self.operands for part in operand.parts())


@dataclass(frozen=True, slots=True)
class IfElse:
    """`yes if condition else no`."""

    condition: Term
    yes: Term
    no: Term

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        return (self.yes if self.condition.decide(k, pfn)[0] else self.no).decide(k, pfn)

    def parts(self) -> tuple[Ingredient, ...]:
        return (*self.condition.parts(), *self.yes.parts(), *self.no.parts())


def parse(text: str) -> Definition:
    """
    Return the definition an expression writes, named by its text.

    Raises:
        UsageError: it is no such expression; says what, where, and the nearest that would do.

    >>> parse("valid and map").name
    'valid and map'
    """
    if len(text) > LIMIT:
        raise UsageError(f"pfn_valid expression of {len(text)} characters: at most {LIMIT}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as err:
        where = f" at character {err.offset}" if isinstance(err, SyntaxError) and err.offset else ""
        raise UsageError(f"pfn_valid expression {text[:80]!r} cannot be read{where}; write for example: valid and map") from err
    term = _term(tree.body, text, 0)
    return Definition(" ".join(text.split()), "yours", (term,))


def definition(text: str) -> Definition:
    """
    Return a definition by name (G0 … A4), or parse it as an expression.

    Raises:
        UsageError: neither.
    """
    if text in boot.DEFINITIONS:
        return boot.DEFINITIONS[text]
    return parse(text)


def _term(node: ast.expr, text: str, depth: int) -> Term:
    if depth > 40:
        raise UsageError(f"pfn_valid expression {text[:80]!r} is nested more than 40 deep")
    match node:
        case ast.Name(id=name) if name in INGREDIENTS:
            return INGREDIENTS[name]
        case ast.Name(id=name):
            near = difflib.get_close_matches(name, [*INGREDIENTS, *boot.DEFINITIONS], 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"pfn_valid expression: no ingredient {name!r}; {hint}there are {', '.join(INGREDIENTS)}")
        case ast.Constant(value=bool(value)):
            return Constant(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Not(_term(operand, text, depth + 1))
        case ast.BoolOp(op=ast.And(), values=values):
            return All(tuple(_term(value, text, depth + 1) for value in values))
        case ast.BoolOp(op=ast.Or(), values=values):
            return Any(tuple(_term(value, text, depth + 1) for value in values))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return IfElse(_term(test, text, depth + 1), _term(body, text, depth + 1), _term(orelse, text, depth + 1))
        case _:
            segment = (ast.get_source_segment(text.strip(), node) or type(node).__name__)[:40]
            raise UsageError(
                f"pfn_valid expression: {segment!r} is not allowed; only and, or, not, if … else, True, False and "
                f"{', '.join(INGREDIENTS)}")
