# SPDX-License-Identifier: GPL-2.0-only
"""A user's own definition: what is read, what is refused, and that it answers as it is written."""

from __future__ import annotations

import itertools

import pytest

from memhp.checker import expression
from memhp.errors import ConfigError, UsageError
from memhp.hardware import platform
from memhp.linux import boot, tree
from memhp.linux.include.mmzone import Ingredient


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("valid and map", lambda valid, mb, map_: valid and map_),
        ("valid or not mb", lambda valid, mb, map_: valid or not mb),
        ("map if valid else mb", lambda valid, mb, map_: map_ if valid else mb),
        ("not (valid and mb) or map", lambda valid, mb, map_: not (valid and mb) or map_),
        ("valid and True", lambda valid, mb, map_: valid),
        ("False", lambda valid, mb, map_: False),
    ],
)
def test_an_expression_answers_as_it_is_written(text: str, same: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every combination of the ingredients the definition says what Python would say."""
    assert callable(same)
    for values in itertools.product((False, True), repeat=3):
        given = dict(zip(("valid", "mb", "map"), values, strict=True))
        fakes = {name: Ingredient(name, lambda k, pfn, answer=answer: answer) for name, answer in given.items()}
        monkeypatch.setattr(expression, "INGREDIENTS", {**expression.INGREDIENTS, **fakes})
        made = expression.parse(text)
        assert bool(same(*values)) == made.test(None, 0)  # type: ignore[arg-type]
        assert made.decide(None, 0)[0] == made.test(None, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "", "valid and", "valid; map", "__import__('os')", "valid.test", "valid and mapp", "lambda: valid", "valid == map", "1",
        "[valid]", "valid & map", "x := valid", "not " * 60 + "valid", "(" * 300 + "valid", "valid and " * 200 + "map", "'valid'",
        "valid()", "\0",
    ],
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    """Nothing but the whitelist is taken, and the message is one line."""
    with pytest.raises(UsageError) as caught:
        expression.parse(text)
    assert "\n" not in str(caught.value)


def test_a_slip_names_the_nearest_ingredient() -> None:
    """A typing error is answered with what was meant."""
    with pytest.raises(UsageError, match="did you mean map"):
        expression.parse("valid and mapp")


def test_a_kernel_boots_with_an_expression() -> None:
    """The merged definition, written by hand, boots and is in force."""
    k = boot.boot(tree.V4_9_RFC, "arm64", platform("arm64", mem=1 << 30), pfn_valid=expression.parse("valid and map"))
    assert "valid and map" == k.pfn_valid.name
    assert k.pfn_valid.test(k, 0x40000)
    assert not k.pfn_valid.test(k, 0x80000)


def test_ingredients_the_tree_lacks_are_refused() -> None:
    """v4.9 has no early sections, so a definition that asks for them cannot boot there."""
    with pytest.raises(ConfigError, match="has_early_sections"):
        boot.boot(tree.V4_9_RFC, "arm64", platform("arm64", mem=1 << 30), pfn_valid=expression.parse("valid and early"))
