# SPDX-License-Identifier: GPL-2.0-only
"""`memhp check`: hold definitions of pfn_valid() against everything that asks it."""

from __future__ import annotations

import argparse

from memhp.cli import common


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "check", "hold a pfn_valid() against everything that asks it",
        "Run everything in v4.9 that asks pfn_valid(), in every kind of page, and print what breaks: the matrix, and for each\n"
        "broken cell what happened, where, and the line that runs it again.\n"
        "Without options: both architectures, and on arm64 every remedy of the 2016 series, each with its own definition.\n\n"
        "A definition is a name (G0, A0, A2, ...) or an expression of and, or, not, if ... else over the ingredients inrange,\n"
        "upper, present, valid, early, online, sub, mb, map, taint (v4.9 has all but early, online, sub, taint).\n"
        "Exit code: 4 if something broke.",
        [
            "memhp check --short", "memhp check --remedy firstpage",
            "memhp check --remedy nonomap-nohack --pfn-valid 'valid and map'",
            "memhp check --pfn-valid valid --caller 'arm64 ioremap' --caller memremap",
            "memhp check --exercise 1 --answer", "memhp check --list",
        ],
    )  # fmt: skip
    for option, metavar, what in (
        ("--arch", "ARCH", "arm64 or x86_64"),
        ("--remedy", "NAME", "a remedy of the 2016 series (arm64)"),
        ("--pfn-valid", "DEF", "a definition, by name or as an expression"),
        ("--config", "SYMBOL=y|n", "a CONFIG_ symbol that differs from the recorded kernels'"),
        ("--state", "NAME", "a kind of page, as --list names them"),
        ("--caller", "NAME", "a caller, as --list names them"),
    ):
        parser.add_argument(option, metavar=metavar, action="append", default=[], help=f"{what}; may be repeated")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--short", action="store_true", help="ten lines, for a commit message")
    how.add_argument("--each", action="store_true", help="the story of every broken cell, of many kernels, too")
    how.add_argument("--exercise", metavar="SEED", type=int, help="ask a question instead; the same for the same number")
    how.add_argument("--list", action="store_true", help="print callers, states and obligations, and run nothing")
    parser.add_argument("--answer", action="store_true", help="with --exercise: run it, and show what happens")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.checker import check
    from memhp.checker.callers import BY_NAME
    from memhp.checker.states import STATES
    from memhp.errors import UsageError
    from memhp.report import check as report

    if args.exercise is not None:
        return _exercise(args)
    if args.answer:
        raise UsageError("--answer belongs to --exercise SEED")
    chosen = check.settings(args.arch, args.remedy, args.pfn_valid, args.config)
    if args.list:
        return _list(args)
    found = check.check(chosen, check.select(args.caller, BY_NAME, "caller"), check.select(args.state, STATES, "state"))
    if common.as_json(args):
        common.print_json(found.json())
    else:
        for line in report.short(found) if args.short else report.page(found, each=args.each):
            print(line)
    return common.FOUND if found.findings else common.DONE


def _list(args: argparse.Namespace) -> int:
    from memhp.checker import check
    from memhp.checker.callers import BY_NAME
    from memhp.checker.states import STATES
    from memhp.report import check as report

    listed = check.Report(
        [], check.select(args.caller, BY_NAME, "caller"), check.select(args.state, STATES, "state"))
    if common.as_json(args):
        common.print_json({
            "callers": [
                {"name": c.name, "c_file": c.c_file, "c_function": c.c_function, "line": c.line, "asks": c.asks,
                 "arches": list(c.arches), "owes": [promise.name for promise in c.obligations], "states": list(c.states)}
                for c in (BY_NAME[name] for name in listed.callers)],
            "states": [{"name": name, "text": STATES[name].text, "arches": list(STATES[name].arches)} for name in listed.states],
        })
    else:
        for line in report.listing(listed):
            print(line)
    return common.DONE


def _exercise(args: argparse.Namespace) -> int:
    from memhp.checker import exercise
    from memhp.errors import UsageError
    from memhp.report import check as report

    if not 0 <= args.exercise < exercise.LIMIT:
        raise UsageError(f"--exercise {args.exercise}: a number from 0 to {exercise.LIMIT - 1}")
    for name in ("arch", "remedy", "pfn_valid", "config", "state", "caller"):
        if getattr(args, name):
            raise UsageError(f"--exercise makes its own question: leave --{name.replace('_', '-')} away")
    made = exercise.exercise(args.exercise)
    found = made.answer() if args.answer else None
    if common.as_json(args):
        answer = found.json() if found is not None else None
        common.print_json({"seed": made.seed, "question": made.question(), "answer": answer})
        return common.DONE
    for line in made.question():
        print(line)
    if found is not None:
        print()
        for line in report.page(found):
            print(line)
    return common.DONE
