# SPDX-License-Identifier: GPL-2.0-only
"""The first screen: that its figures come from what ran, agree with the recordings, and would notice if they did not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from memhp.cli import main
from memhp.errors import UsageError
from memhp.linux.series import arm64_rfc_2016
from memhp.report import explain
from memhp.report.explain import Story


@pytest.fixture(scope="module")
def story() -> Story:
    return explain.tell()


def test_every_claim_has_the_verdict_that_the_sources_give_it(story: Story) -> None:
    """All twelve were recorded; this run and the real kernel come to the same in each."""
    claims = explain.claims(story)
    assert [f"S{n}" for n in range(1, 13)] == [claim.id for claim in claims]
    assert [True] * 12 == [claim.agrees for claim in claims]
    but = {"S1", "S2", "S11", "S12"}
    assert {claim.id: "holds, but" if claim.id in but else "holds" for claim in claims} == {c.id: c.verdict for c in claims}
    assert but == {claim.id for claim in claims if claim.but}


def test_a_claim_that_does_not_hold_is_called_no(story: Story) -> None:
    """Put the generic pfn_valid() where the series stood: what the mail says of the series is not true of it, and it shows."""
    other = dataclasses.replace(story, full=story.remedies["generic"])
    found = {claim.id: claim for claim in explain.claims_of(other, "S4", "S6", "S11")}
    assert ("no", False) == (found["S4"].verdict, found["S4"].agrees)
    assert f"{story.full.nr_pages} set, 0 skipped" == found["S4"].run
    assert ("holds", True) == (found["S6"].verdict, found["S6"].agrees)
    assert ("no", False) == (found["S11"].verdict, found["S11"].agrees)


def test_remedies_come_to_what_was_recorded(story: Story) -> None:
    found = {line.name: line for line in explain.remedies(story)}
    assert [*arm64_rfc_2016.REMEDIES, "pfn_valid=A2"] == list(found)
    recorded = {name: line for name, line in found.items() if line.kernel_probe}
    assert {"full", "nohack", "nonomap", "generic"} == recorded.keys()
    for line in recorded.values():
        assert line.kernel_probe == line.probe
        assert line.kernel_online in ("", line.online)


def test_remedies_that_nobody_recorded(story: Story) -> None:
    """What executing them gives: (probe, pages Reserved in between, online)."""
    found = {line.name: (line.probe, line.reserved, line.online) for line in explain.remedies(story)}
    pages = story.full.nr_pages
    assert {
        "nonomap-nohack": ("ok", None, "ENOENT"),
        "firstpage": ("ok", pages, "ok"),
        "firstpage-nohack": ("ok", pages - 1, "EBUSY"),
        "initpage": ("ok", 0, "EBUSY"),
        "initpage-then-reserved": ("ok", pages, "ok"),
        "generic-full": ("ok", pages, "ok"),
        "noclear": ("ok", 0, "EBUSY"),
        "clear-before-add-zone": ("ok", pages, "ok"),
        "pfn_valid=A2": ("ok", pages, "ok"),
    } == {name: line for name, line in found.items() if name not in ("full", "nohack", "nonomap", "generic")}
    words = {line.name: line.words for line in explain.remedies(story)}
    assert "of two sections added at once 1 appears" in words["firstpage"]
    assert "two sections" not in words["full"]
    assert "EEXIST" in words["nonomap-nohack"]


def test_where_the_trees_part(story: Story) -> None:
    """First in what runs (only arm64 marks), then in what pfn_valid() answers (the reserve loop)."""
    adding, onlining = explain.rows(story)
    [first] = [row for row in adding if row.parts]
    assert ("memblock_mark_nomap", None) == (first.left.name if first.left else "", first.right)
    answers = adding[explain._answers_part(adding)]
    assert answers.left is not None
    assert answers.right is not None
    assert ("pfn_valid", False, True) == (answers.left.name, answers.left.result, answers.right.result)
    assert [] == [row for row in onlining if row.parts]


def test_the_trees_are_those_of_the_real_kernels(story: Story) -> None:
    """Order and nesting against what ftrace recorded, on both sides, for both writes; and a wrong order is told."""
    held = explain.held(story)
    assert [("arm64", "probe"), ("arm64", "online"), ("x86_64", "probe"), ("x86_64", "online")] == [h[:2] for h in held]
    for _, _, comparison in held:
        assert comparison.equal
        assert len(comparison.common) > 20
    other = dataclasses.replace(story, full=story.remedies["generic"])
    assert not explain.held(other)[0][2].equal
    assert "DIFFERENT" in explain._held_line(other)


def test_moments_tell_when_pfn_valid_turns(story: Story) -> None:
    """arm64 hears memblock three times; x86_64 hears the section once."""
    turns = [[(m.after, m.valid, m.by) for m in r.moments if m.changed] for r in (story.full, story.x86)]
    assert [
        [("memblock_add_node", True, "map"), ("memblock_mark_nomap", False, "map"), ("memblock_clear_nomap", True, "map")],
        [("sparse_add_one_section", True, "valid")],
    ] == turns


def test_the_page(story: Story) -> None:
    page = explain.page(story)
    assert max(map(len, page)) <= explain.WIDTH
    assert len(page) <= 76
    text = "\n".join(page)
    for word in (*arm64_rfc_2016.REMEDIES, "◄ 1\n", "◄ 2\n", "no ×262144 (map)", "yes ×32768 (valid)", "not recorded"):
        assert word in text


def test_everything_as_data(story: Story) -> None:
    data = json.loads(json.dumps(explain.as_json("mail", story)))
    assert (12, 13) == (len(data["claims"]), len(data["remedies"]))
    assert "memblock_mark_nomap" == data["add"][data["trees_part_at"]]["arm64"]["function"]
    assert {"arm64", "x86_64"} == data["moments"].keys()


def test_no_such_story() -> None:
    with pytest.raises(UsageError, match="no story 'novel': there is mail"):
        explain.tell("novel")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["explain"])
    page = capsys.readouterr().out
    assert page.startswith("A mail to the kernel list")
    assert 0 == main(["explain", "mail", "--json"])
    assert "mail" == json.loads(capsys.readouterr().out)["story"]
    assert 2 == main(["explain", "novel"])
    assert "memhp: no story 'novel': there is mail\n" == capsys.readouterr().err
    command = page.splitlines()[-1].removeprefix("next: ").split("   ")[0].split()
    assert ["memhp", "boot"] == command[:2]
