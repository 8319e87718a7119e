# SPDX-License-Identifier: GPL-2.0-only
"""What `memhp check` prints: the matrix for a commit message, the findings, a story for each broken cell."""

from __future__ import annotations

import textwrap

from memhp.checker.check import Finding, Report, kernel_name
from memhp.checker.obligations import OBLIGATIONS
from memhp.checker.states import STATES, Setting
from memhp.report import text

WIDTH = 130
SHORT_LINES = 10


def headline(report: Report) -> str:
    """Return one line: what ran, and how much broke."""
    broken = len({(cell.setting, cell.caller, cell.state) for finding in report.findings for cell in finding.cells})
    counts = ((len(report.ran), "run"), (broken, "broken cell"), (len(report.findings), "finding"))
    what = ", ".join(text.counted(number, noun) for number, noun in counts)
    if len(report.settings) == 1:
        return f"{kernel_name(report.settings[0])}: {what}"
    return f"{text.counted(len(report.settings), 'kernel')}, {text.counted(len(report.callers), 'caller')}: {what}"


def overview(report: Report) -> list[str]:
    """Return a table, a line for each kernel and a column for each finding; a number is how many cells broke."""
    letters = list(report.letters().values())
    rows = [
        (
            setting.arch, setting.remedy or "-", setting.definition.name,
            *(str(finding.in_setting(setting) or ".") for finding in report.findings),
        )
        for setting in report.settings
    ]
    return text.columns(rows, header=("ARCH", "REMEDY", "PFN_VALID", *letters), right=range(3, 3 + len(letters)))


def matrix(report: Report, setting: Setting) -> list[str]:
    """
    Return callers × states of one kernel, for a commit message.

    A letter is a finding, "." a run in which everything held, blank where nobody calls. Callers in which nothing broke are
    counted on the last line.
    """
    marks = report.marks(setting)
    states = [state for state in report.states if any((caller, state) in marks for caller in report.callers)]
    rows, quiet = [], 0
    for caller in report.callers:
        row = [marks.get((caller, state), "") for state in states]
        if any(mark not in ("", ".") for mark in row) or len(report.callers) == 1:
            rows.append((caller, *row))
        elif any(row):
            quiet += 1
    lines = text.columns(rows, header=("", *states)) if rows else []
    if quiet:
        lines.append(f"{text.counted(quiet, 'more caller' if rows else 'caller')}: nothing broke")
    return lines


def legend(report: Report) -> list[str]:
    """Return a paragraph for each finding: its letter, name, what goes wrong, where it is known from."""
    lines: list[str] = []
    for letter, finding in zip(report.letters().values(), report.findings, strict=True):
        lines += textwrap.wrap(f"{letter}  {finding.name}: {finding.text}", WIDTH, subsequent_indent="   ")
        lines.append(f"   known from: {finding.known}")
    return lines


def witnesses(report: Report) -> list[str]:
    """Return the story of the first broken cell of each finding."""
    lines: list[str] = []
    for letter, finding in zip(report.letters().values(), report.findings, strict=True):
        lines += _paragraph(letter, finding)
        more = len(finding.cells) - 1
        where = sorted({cell.setting.remedy or cell.setting.arch for cell in finding.cells})
        if more:
            lines.append(f"   and {text.counted(more, 'cell')} more{'; ' + ', '.join(where) if len(where) < 6 else ''}")
        lines.append("")
    return lines[:-1]


def _paragraph(letter: str, finding: Finding) -> list[str]:
    first = finding.cells[0]
    lines = textwrap.wrap(f"{letter}  {finding.name}: {finding.text}", WIDTH, subsequent_indent="   ")
    lines.append(f"   known from: {finding.known}")
    return [*lines, *("   " + line for line in first.story)]


def stories(report: Report) -> list[str]:
    """Return the story of every broken cell, by finding."""
    lines: list[str] = []
    for letter, finding in zip(report.letters().values(), report.findings, strict=True):
        for cell in finding.cells:
            lines += [f"{letter}  {cell.story[0]}", *("   " + line for line in cell.story[1:])]
    return lines


def page(report: Report, *, each: bool = False) -> list[str]:
    """
    Return the whole output.

    Args:
        each: The story of every broken cell, even of many kernels; of one kernel they are told in any case.
    """
    lines = [headline(report), ""]
    if len(report.settings) == 1:
        lines += matrix(report, report.settings[0])
        if report.findings:
            lines += ["", *legend(report), "", *stories(report)]
        return lines
    if not report.findings:
        return [headline(report)]
    lines += [*overview(report), ""]
    lines += [*legend(report), "", *stories(report)] if each else witnesses(report)
    return lines


def short(report: Report) -> list[str]:
    """Return the same in ten lines at most: one for each finding, the ones with most cells first."""
    found = sorted(report.findings, key=lambda finding: -len(finding.cells))
    room = SHORT_LINES - 1
    shown = found if len(found) <= room else found[: room - 1]
    rows = []
    for finding in shown:
        callers = list(dict.fromkeys(cell.caller for cell in finding.cells))
        states = list(dict.fromkeys(cell.state for cell in finding.cells))
        rows.append((finding.name, str(len(finding.cells)), _few(callers, 2), _few(states, 3)))
    lines = [headline(report), *("  " + line for line in text.columns(rows, right=[1]))]
    if len(shown) < len(found):
        lines.append("  and " + ", ".join(finding.name for finding in found[len(shown):]))
    return lines


def _few(words: list[str], most: int) -> str:
    return ", ".join(words[:most]) + (f" +{len(words) - most}" if len(words) > most else "")


def listing(report: Report) -> list[str]:
    """Return who can be asked for: callers and states, with what each is, for --list."""
    from memhp.checker.callers import BY_NAME

    rows = []
    for name in report.callers:
        caller = BY_NAME[name]
        owes = ", ".join(promise.name for promise in caller.obligations)
        rows.append((name, f"{caller.c_file}:{caller.line}", "/".join(caller.arches), owes))
    lines = text.columns(rows, header=("CALLER", "ASKS AT", "ARCH", "OWES"))
    lines += ["", *text.columns([(s, STATES[s].text) for s in report.states], header=("STATE", "WHAT"))]
    used = dict.fromkeys(promise for name in report.callers for promise in BY_NAME[name].obligations)
    lines += ["", *text.columns([(p.name, p.text, p.source) for p in OBLIGATIONS.values() if p in used],
                                header=("OBLIGATION", "WHAT IS OWED", "TO WHOM"))]
    return lines
