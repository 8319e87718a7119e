# SPDX-License-Identifier: GPL-2.0-only
"""What the check finds on v4.9 by itself, what it is silent about, and that each line it prints replays what it says."""

from __future__ import annotations

import shlex

import pytest

from memhp.checker import check
from memhp.checker.check import Report
from memhp.cli import common, main
from memhp.errors import ConfigError, UsageError
from memhp.report import check as page


@pytest.fixture(scope="module")
def everything() -> Report:
    """Both architectures, every remedy with its own definition, every caller and state."""
    return check.check(check.settings())


def cells(report: Report, name: str) -> set[tuple[str, str, str]]:
    """Return (remedy or architecture, caller, state) of a finding."""
    found = [finding for finding in report.findings if finding.name == name]
    return {(c.setting.remedy or c.setting.arch, c.caller, c.state) for finding in found for c in finding.cells}


@pytest.mark.parametrize(("name", "cell"), [
    ("swallowed -EEXIST", ("nonomap-nohack", "__add_section", "D0")),
    ("two-section loss", ("firstpage", "__add_section", "D0")),
    ("NOMAP memmap BUG (ThunderX)", ("full", "move_freepages", "NOMAP")),
    ("bogus-pfn oops", ("full", "kpageflags", "bogus")),
    ("zone->contiguous lost", ("full", "set_zone_contiguous", "D0")),
    ("reader's oops after the add", ("nonomap-nohack", "kpageflags", "D2")),
    ("silent auto-online failure", ("nohack", "auto-online", "D0")),
    ("tear-down order D4", ("clear-before-add-zone", "unregister_mem_sect_under_nodes", "D4")),
    ("oops while adding", ("nonomap", "__add_section", "D0")),
    ("beyond pfn_valid()", ("full", "/dev/mem read", "hole")),
])  # fmt: skip
def test_it_finds_by_itself(everything: Report, name: str, cell: tuple[str, str, str]) -> None:
    assert cell in cells(everything, name)


def test_each_loss_belongs_to_its_remedies_only(everything: Report) -> None:
    assert {remedy for remedy, _, _ in cells(everything, "two-section loss")} == {"firstpage", "firstpage-nohack"}
    assert {remedy for remedy, _, _ in cells(everything, "swallowed -EEXIST")} == {"nonomap-nohack"}
    assert {remedy for remedy, _, _ in cells(everything, "reader's oops after the add")} == {"nonomap-nohack"}
    assert {remedy for remedy, _, _ in cells(everything, "oops while adding")} == {"nonomap"}


def test_history_had_no_trouble_with_these(everything: Report) -> None:
    """x86_64 in v4.9 hot-adds, walks and reads; the one thing is what dma_map_resource() thinks of a hole."""
    broken = {(c.caller, c.state) for f in everything.findings for c in f.cells if c.setting.arch == "x86_64"}
    assert broken == {("dma_map_resource", "hole")}


def test_holes_in_zone_ends_the_thunderx_bug() -> None:
    """6d526ee26ccd: with pfn_valid_within() as a test of its own, walkers pass over what boot never wrote."""
    chosen = check.settings(["arm64"], ["full"], [], ["NUMA=y", "CONFIG_HOLES_IN_ZONE=y"])
    found = {finding.name: finding for finding in check.check(chosen).findings}
    assert not {"NOMAP memmap BUG (ThunderX)", "uninitialised memmap"} & set(found)
    assert "--config HOLES_IN_ZONE=y --config NUMA=y" in found["bogus-pfn oops"].cells[0].replay


def test_a_section_based_definition_adds_without_the_series_tricks(everything: Report) -> None:
    """With pfn_valid() by section arm64 adds, onlines and walks; what breaks is who takes it for "is RAM"."""
    names = {f.name for f in everything.findings for c in f.cells if c.setting.remedy == "generic"}
    assert names == {"linear address without mapping", "device taken for RAM", "beyond pfn_valid()"}


def test_a_finding_keeps_the_places_that_broke_whatever_the_definition(everything: Report) -> None:
    """Nothing that asks pfn_valid() is called beyond it, and each cell names a line of C."""
    for finding in everything.findings:
        for cell in finding.cells:
            assert cell.c_file.endswith((".c", ".h"))
            assert cell.line > 0
            if finding.name == "beyond pfn_valid()":
                assert cell.caller == "/dev/mem read"


def test_each_replay_finds_the_same_again(everything: Report, capsys: pytest.CaptureFixture[str]) -> None:
    for finding in everything.findings:
        for cell in (finding.cells[0], finding.cells[-1]):
            assert main(shlex.split(cell.replay)[1:]) == common.FOUND
            out = capsys.readouterr().out
            assert "1 run, 1 broken cell" in out
            assert finding.name in out
            assert cell.broken.text in out


def test_a_replay_of_an_expression_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    report = check.check(check.settings(["arm64"], ["full"], ["valid and not mb"]))
    cell = report.findings[0].cells[0]
    assert "--pfn-valid 'valid and not mb'" in cell.replay
    assert main(shlex.split(cell.replay)[1:]) == common.FOUND
    assert cell.broken.text in capsys.readouterr().out


def test_the_same_definition_by_name_and_by_hand_break_alike() -> None:
    """A0 is memblock_is_map_memory(), which is what `map` asks."""
    one, other = (check.check(check.settings(["arm64"], ["nohack"], [text])) for text in ("A0", "map"))
    assert {f.name: len(f.cells) for f in one.findings} == {f.name: len(f.cells) for f in other.findings}


def test_a_definition_that_lets_nothing_boot_is_a_finding() -> None:
    report = check.check(check.settings(["x86_64"], [], ["False"]), ["kpageflags"], ["RAM"])
    assert report.findings


def test_the_matrix_has_a_letter_where_something_broke(everything: Report) -> None:
    report = check.check(check.settings(["arm64"], ["firstpage"]))
    lines = page.matrix(report, report.settings[0])
    assert lines[0].split()[:3] == ["RAM", "NOMAP", "NOMAP-first"]
    letter = report.letters()["two-section loss"]
    row = next(line for line in lines if line.startswith("__add_section "))
    assert row.split() == ["__add_section", letter]
    assert row.index(letter) == lines[0].index("D0")
    assert lines[-1].endswith("nothing broke")
    assert len(page.overview(everything)) == 1 + len(everything.settings)


def test_what_nobody_calls_is_no_run() -> None:
    """Where the hot-add was lost, no block is there whose pages could be walked: such a cell is blank, not a dot."""
    report = check.check(check.settings(["arm64"], ["nonomap-nohack"], ["A0"]), ["hugetlb gigantic"])
    marks = report.marks(report.settings[0])
    assert ("hugetlb gigantic", "RAM") in marks
    assert ("hugetlb gigantic", "D3") not in marks


def test_the_short_form_has_ten_lines(everything: Report) -> None:
    lines = page.short(everything)
    assert len(lines) == 10
    for finding in everything.findings:
        assert any(finding.name in line for line in lines)


def test_json_has_every_cell(everything: Report) -> None:
    data = everything.json()
    assert data["cells"] == len(everything.ran)
    findings = data["findings"]
    assert isinstance(findings, list)
    assert sum(len(f["cells"]) for f in findings) == sum(len(f.cells) for f in everything.findings)


@pytest.mark.parametrize(("words", "message"), [
    ((["arm"], [], []), "did you mean arm64"),
    (([], ["nohak"], []), "did you mean nohack"),
    ((["x86_64"], ["full"], []), "belongs to arm64"),
    (([], [], ["valid &"]), "cannot be read"),
    (([], [], ["__import__('os')"]), "not allowed"),
    (([], [], ["presnt"]), "did you mean present"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(words: tuple[list[str], list[str], list[str]], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check.settings(*words)
    assert "\n" not in str(caught.value)


def test_what_v4_9_does_not_have_cannot_be_asked() -> None:
    with pytest.raises(UsageError, match="did you mean HOLES_IN_ZONE"):
        check.settings(config=["HOLE_IN_ZONE=y"])
    with pytest.raises(UsageError, match="NUMA=y or NUMA=n"):
        check.settings(config=["NUMA"])
    with pytest.raises(ConfigError, match="SPARSEMEM_VMEMMAP"):
        check.settings(config=["SPARSEMEM_VMEMMAP=n"])
    with pytest.raises(ConfigError, match="has_online_sections"):
        check.settings([], [], ["online"])


def test_unknown_callers_and_states_and_nothing_to_do() -> None:
    chosen = check.settings(["x86_64"])
    with pytest.raises(UsageError, match="did you mean kpageflags"):
        check.check(chosen, ["kpageflag"])
    with pytest.raises(UsageError, match="no state 'D9'"):
        check.check(chosen, [], ["D9"])
    with pytest.raises(UsageError, match="nothing to check"):
        check.check(chosen, [], ["D1n"])


def test_the_command_prints_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--arch", "x86_64", "--caller", "kpageflags"]) == common.DONE
    assert "0 findings" in capsys.readouterr().out
    assert main(["check", "--arch", "x86_64", "--short"]) == common.FOUND
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["check", "--list"]) == common.DONE
    out = capsys.readouterr().out
    assert "drivers/char/mem.c:105" in out
    assert main(["check", "--list", "--json"]) == common.DONE
    assert '"line": 105' in capsys.readouterr().out
    assert main(["check", "--short", "--each"]) == common.USAGE
