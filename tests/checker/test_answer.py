# SPDX-License-Identifier: GPL-2.0-only
"""What comes out when the mail's question is asked of v4.9, and that each claim of the answer replays."""

from __future__ import annotations

import json
import shlex
from functools import reduce
from operator import and_

import pytest

from memhp.checker import answer, derive, exercise, expression
from memhp.checker.answer import Answer
from memhp.checker.callers import BY_NAME, judge
from memhp.checker.states import Setting
from memhp.cli import common, main
from memhp.errors import UsageError
from memhp.report import derive as page


@pytest.fixture(scope="module")
def arm64() -> Answer:
    """v4.9 arm64 that adds memory as generic code would."""
    return answer.answer(answer.question())


@pytest.fixture(scope="module")
def x86_64() -> Answer:
    return answer.answer(answer.question("x86_64"))


LINEAR_MAP = {
    "arm64 ioremap", "arm64 ioremap_cache", "arm64 acpi_os_ioremap", "memremap", "/dev/mem mmap", "/dev/kmem mmap",
    "dma_map_resource", "virt_addr_valid", "kvm_is_device_pfn", "hibernation",
}  # fmt: skip
"""Those that mean "RAM in the linear map" by it, as history found out: facts, section 4."""


def test_no_definition_serves_arm64(arm64: Answer) -> None:
    assert arm64.derivation.sound == []
    assert arm64.conflicts
    for group in arm64.conflicts:
        allowed = {name: arm64.derivation.constraints[name].allowed for name in group}
        assert not reduce(and_, allowed.values())
        for left_out in group:
            rest = [tables for name, tables in allowed.items() if name != left_out]
            assert reduce(and_, rest), "a smaller set is in conflict already"


def test_both_steps_of_history_come_out(arm64: Answer) -> None:
    """`valid and map` with walkers asking another is what v4.11 made of it; `valid` with pfn_is_map_memory() what v5.16 has."""
    ways = [[text for text, _ in way.predicates] for way in arm64.splits]
    assert ["valid and map", "valid"] in ways
    assert ["valid", "map"] in ways
    history = arm64.with_predicates("valid", "map")
    assert history is not None
    assert set(history.predicates[1][1]) == LINEAR_MAP


def test_the_splits_hold_when_they_are_run(arm64: Answer) -> None:
    gone = [(a.caller, a.state) for a in arm64.aside]
    for way in (arm64.splits[0], arm64.with_predicates("valid", "map")):
        assert way is not None
        tried = answer.try_split(arm64.question, way, gone)
        assert tried.runs > 200
        assert tried.broken == []


def test_a_split_that_does_not_hold_gives_way_to_one_that_does() -> None:
    """By the tables `mb` serves a removal, as nothing is added where it is the only definition; beside another it does not."""
    found = answer.answer(answer.question(config=["NUMA=y", "HOLES_IN_ZONE=y"]), drops=False)
    tried = answer.try_splits(found)
    assert [bool(one.broken) for one in tried][:2] == [True, False]
    lines = page.splits(found, tried)
    held = next(one for one in tried if not one.broken)
    assert lines[1] == f"  pfn_valid() = {held.split.predicates[0][0]}, for {len(held.split.predicates[0][1]) - 2} callers"


def test_where_no_split_holds_none_is_shown() -> None:
    """With the mark never cleared, memory that is online counts as absent for whoever asks another predicate."""
    found = answer.answer(answer.question(remedy="noclear"), drops=False)
    tried = answer.try_splits(found)
    assert all(one.broken for one in tried)
    assert page.splits(found, tried)[0] == "No split that the tables allow held when it was run:"


def test_a_split_that_gives_a_caller_the_wrong_predicate_breaks(arm64: Answer) -> None:
    way = derive.Split([("valid", tuple(n for n in arm64.needs if n != "kpageflags")), ("mb", ("kpageflags",))])
    tried = answer.try_split(arm64.question, way)
    assert ("kpageflags", "D1") in {(caller, state) for caller, state, _ in tried.broken}


def test_x86_64_is_served_but_for_dma_map_resource(x86_64: Answer) -> None:
    assert x86_64.derivation.sound == []
    assert all("dma_map_resource" in group for group in x86_64.conflicts)
    without = {w.name: w for w in x86_64.without_caller}
    assert without["dma_map_resource"].simplest == "valid"
    assert {w.name: w.sound for w in x86_64.without_obligation}["dma-accepts-device"] == 1


def test_dropping_the_caller_is_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Upstream removed the test from dma_map_resource() (a9c38c5d267c); then pfn_valid() by section is the only one."""
    found = answer.answer(answer.question("x86_64", drop=["dma_map_resource"]), drops=False)
    assert found.derivation.expressions() == ["valid"]
    assert main(["derive", "--arch", "x86_64", "--drop", "dma_map_resource"]) == common.DONE
    assert "1 definition of 64 serves everybody" in capsys.readouterr().out


def test_zone_device_and_a_hole_are_alike_on_v4_9(arm64: Answer) -> None:
    """No ingredient of v4.9 tells them apart, and kvm_is_device_pfn() wants them told apart."""
    assert [(a.caller, a.state, a.against) for a in arm64.aside] == [("kvm_is_device_pfn", "ZONE_DEVICE", ("hole",))]


def test_pfn_to_online_page_does_not_come_out(arm64: Answer) -> None:
    """On v4.9 a struct page is initialised when memory is added, so nobody has to know whether it is online."""
    online = answer.online(arm64.question)
    assert online.pairs > 0
    assert online.needed_by == ()


def test_every_need_has_a_witness_that_replays(arm64: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    """A definition with the other answer for that kind of pfn breaks the caller there, in words that the replay prints."""
    shown = 0
    for name, marks in arm64.needs.items():
        for i, mark in enumerate(marks):
            if mark in "01" and name in BY_NAME:
                need = arm64.need(name, i)
                assert need is not None, (name, i)
                q = arm64.question
                broken = judge(BY_NAME[name], need.state, Setting(q.arch, expression.definition(need.expression), q.remedy))
                assert need.broken in broken
                if i == len(marks) - 1:
                    assert main(shlex.split(need.replay)[1:]) == common.FOUND
                    assert need.broken.text in capsys.readouterr().out
                    shown += 1
    assert shown >= 3


def test_needs_are_what_the_tables_say(arm64: Answer) -> None:
    kinds = {states: i for i, states in enumerate(arm64.classes)}
    ram, hot_add = kinds["RAM", "D2", "D3"], kinds["D1",]
    assert arm64.needs["__add_section"][hot_add] == "0"
    assert arm64.needs["memmap_init_zone"][ram] == "1"
    firmware = kinds["NOMAP", "NOMAP-first"]
    refused = {name for name, marks in arm64.needs.items() if marks[firmware] == "0"}
    assert refused == LINEAR_MAP - {"dma_map_resource", "kvm_is_device_pfn"}


def test_nobody_is_blamed_for_a_machine_that_died_before() -> None:
    """With one caller that reads, the way to the state is a caller of its own."""
    found = answer.answer(answer.question("arm64", "nonomap", ["kpagecount"]), drops=False)
    assert answer.HOT_ADD in found.needs
    assert set(found.derivation.constraints) == {answer.BOOT, answer.HOT_ADD, "kpagecount"}


def test_two_callers_may_agree() -> None:
    found = answer.answer(answer.question(callers=["memremap", "kpageflags"]))
    assert found.derivation.expressions() == ["valid and map"]
    assert {w.name for w in found.without_caller} == {"memremap", "kpageflags"}


@pytest.mark.parametrize(("words", "message"), [
    ({"arch": "arm"}, "did you mean arm64"),
    ({"arch": "x86_64", "remedy": "full"}, "belongs to arm64"),
    ({"remedy": "ful"}, "did you mean full"),
    ({"callers": ["kpageflag"]}, "did you mean kpageflags"),
    ({"drop": ["no-ops"]}, "did you mean no-oops"),
    ({"config": ["NUMA=maybe"]}, "NUMA=y or NUMA=n"),
    ({"callers": ["/dev/mem read"]}, "none of these callers asks"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(words: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        answer.question(**words)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_forced_answers_of_a_set_of_tables() -> None:
    """Over two kinds: {10, 11} wants the second; {01, 10} wants either, and not both; none wants the impossible."""
    kinds: list[derive.Valuation] = [(True,), (False,)]
    assert derive.forced(0b1100, kinds) == "-1"
    assert derive.forced(0b0110, kinds) == "**"
    assert derive.forced(0b1111, kinds) == "--"
    assert derive.forced(0, kinds) == "xx"


def test_the_page_and_the_data_say_the_same(arm64: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    lines = page.page(arm64)
    assert "No definition serves everybody." in lines
    assert any(line.endswith("together they serve everybody; 10 callers to be changed: arm64 ioremap, arm64 ioremap_cache, arm64 "
                             "acpi_os_ioremap,") for line in lines)
    assert max(map(len, (line for line in lines if "again:" not in line))) <= page.WIDTH
    data = json.loads(json.dumps(arm64.json()))
    assert data["sound"] == []
    assert [["valid", "map"]] == [[p["expression"] for p in way] for way in data["splits"] if way[0]["expression"] == "valid"]
    assert main(["derive", "--caller", "memremap", "--json"]) == common.DONE
    assert "memremap" in json.loads(capsys.readouterr().out)["callers"]


def test_orders_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["derive", "--orders"]) == common.DONE
    out = capsys.readouterr().out
    assert "The mail's order works: memblock add, map, mark NOMAP, add sections" in out
    assert "add sections before init memmap" in out
    assert main(["derive", "--orders", "--json"]) == common.DONE
    assert json.loads(capsys.readouterr().out)["tried"] > 30000
    assert main(["derive", "--orders", "--arch", "x86_64"]) == common.USAGE


@pytest.mark.parametrize("seed", [4, 6, 7, 17])
def test_exercises_are_the_same_for_the_same_seed(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exercise.exercise(seed) == exercise.exercise(seed)
    assert main(["check", "--exercise", str(seed)]) == common.DONE
    question = capsys.readouterr().out
    assert "Does it hold?" in question
    assert main(["check", "--exercise", str(seed), "--answer"]) == common.DONE
    answered = capsys.readouterr().out
    assert answered.startswith(question)
    assert ("0 broken cells" in answered) == (seed == 6)


def test_exercises_make_their_own_question() -> None:
    assert main(["check", "--exercise", "-1"]) == common.USAGE
    assert main(["check", "--exercise", "1", "--arch", "arm64"]) == common.USAGE
    assert main(["check", "--answer"]) == common.USAGE
