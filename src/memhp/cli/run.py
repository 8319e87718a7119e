# SPDX-License-Identifier: GPL-2.0-only
"""`memhp run`: run a scenario."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from memhp.cli import common

if TYPE_CHECKING:
    from memhp.machine import Machine

DEFAULT = "model:v4.9+arm64-rfc-2016/arm64?mem=1G"
"""The machine of a scenario that names none: the mail's."""


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "run", "run a scenario: one line a step",
        "Run the steps of a scenario file. A refused step does not stop the run; its line says why.\nThe machine is -m, else the "
        f"one the scenario names, else MEMHP_MACHINE, else\n{DEFAULT}.\nExit code: 1 if a step without `expect` was refused, "
        "4 if one answered otherwise than its `expect` says.",
        ["memhp run scenario.toml", "memhp run scenario.toml -m 'model:v4.9+arm64-rfc-2016/arm64?remedy=nohack' --json"],
    )  # fmt: skip
    common.add_machine(parser)
    parser.add_argument("scenario", metavar="SCENARIO", help="the file")
    parser.add_argument("--each", action="store_true", help="the machine's state after each step, not only at the end")
    parser.add_argument("--log", action="store_true", help="what the kernel printed, below each step")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp import scenario
    from memhp.checker.ledger import connect

    json = common.as_json(args)
    script = scenario.load(args.scenario)
    url = getattr(args, "machine", None) or script.machine or common.machine_url(args) or DEFAULT
    printer = common.StepPrinter(script.steps, json=json, log=args.log)
    with connect(url, script.devices) as machine:
        results = machine.run(script, watch=not json)
        if not json:
            booted = f"{machine.url}{f' {common.MARK}' if machine.unheld() else ''}"
            for line in filter(None, (script.title, booted)):
                print(common.printable(line))
            print()
        for result in results:
            printer.print(result)
            if args.each:
                show_state(machine, json)
        if json and not args.each:
            show_state(machine, json)
        elif not json:
            print(f"\n{printer.summary(len(script.steps))}")
            if machine.unheld():
                print(common.explain_mark(machine.unheld()))
    return printer.code


def show_state(machine: Machine, json: bool) -> None:
    """Print the state of a machine: an object on a line, or tables, indented."""
    state = machine.state()
    if json:
        unheld = machine.unheld()
        common.print_json({**state, "unheld": list(unheld)} if unheld else state)
        return
    from memhp.report import text

    for name, rows in state.items():
        assert isinstance(rows, list)
        if not rows:
            continue
        cells = [[_cell(key, value) for key, value in row.items()] for row in rows]
        for line in text.columns(cells, header=[key.upper() for key in rows[0]]):
            print(f"     {name:9}{line}")
            name = ""


def _cell(key: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return "|".join(map(str, value)) or "-"
    if isinstance(value, int) and key in ("base", "size", "start", "end", "start_pfn"):
        return f"{value:#x}"
    return str(value)
