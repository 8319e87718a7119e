# SPDX-License-Identifier: GPL-2.0-only
"""What commands share: the parser, the machine they work on, how results of steps are printed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from memhp.errors import UsageError

if TYPE_CHECKING:
    from memhp.machine import Machine, StepResult
    from memhp.scenario import Step

EXAMPLE = "model:v4.9/x86_64?mem=1G"
DONE, REFUSED, USAGE, UNREACHABLE, FOUND = range(5)
"""Exit codes."""
MARK = "†"
"""Stands behind what passed through lines of the model that no comparison with a real kernel holds."""
_FEW = 3


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{message}; {self.prog} --help says more")


Commands = Any
"""What `add_parser()` adds its command to."""


def add_command(commands: Commands, name: str, help: str, description: str, examples: Sequence[str] = ()) -> Parser:
    """Add a command with the options that every command has, and return its parser."""
    epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
    parser: Parser = commands.add_parser(
        name, help=help, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print data as JSON")
    return parser


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add `-m`."""
    parser.add_argument(
        "-m", "--machine", metavar="URL", default=argparse.SUPPRESS,
        help=f"the machine, such as {EXAMPLE} or model:FILE.toml (or MEMHP_MACHINE)",
    )  # fmt: skip


def machine_url(args: argparse.Namespace) -> str:
    """Return the machine given by -m or MEMHP_MACHINE, or ""."""
    given: str | None = getattr(args, "machine", None)
    return given if given is not None else os.environ.get("MEMHP_MACHINE", "")


def open_to_change(args: argparse.Namespace, command: str) -> Machine:
    """Open the machine a command is to change: it has no default."""
    from memhp.checker.ledger import connect

    url = machine_url(args)
    if not url:
        raise UsageError(f"{command} needs -m, which machine to change: model:FILE.toml (memhp boot makes one) or {EXAMPLE}")
    return connect(url)


def as_json(args: argparse.Namespace) -> bool:
    """Whether --json was given."""
    return bool(getattr(args, "json", False))


def print_json(value: object) -> None:
    """Print one JSON document on one line."""
    import json

    print(json.dumps(value))


class StepPrinter:
    """
    Prints results of steps as they come: a JSON object a line, or aligned columns.

    Args:
        steps: All steps that will come; they decide the widths.
        json: JSON instead of text.
        log: Print the kernel's log below each line of text.
    """

    def __init__(self, steps: Sequence[Step], *, json: bool = False, log: bool = False) -> None:
        from memhp.scenario import describe

        self._json = json
        self._log = log
        self._describe = describe
        verb = max((len(describe(step)) for step in steps[:1000]), default=0)
        self._widths = (len(str(len(steps))), min(verb, 72), len("accepted"), 0)
        self.done = self.failed = self.refused = self.unmet = 0
        self.unheld: dict[str, None] = {}

    def print(self, result: StepResult) -> None:
        """Print one result."""
        from memhp.report import text

        self.refused += result.refused
        self.unmet += not result.met
        self.done += not result.answer.refused
        self.failed += result.answer.refused
        self.unheld.update(dict.fromkeys(result.unheld))
        if self._json:
            print_json(result.json())
            return
        remark = [result.reason] if result.answer.refused else []
        if not result.met:
            remark.append(f"expected {result.step.expect}")
        elif result.answer.refused and result.step.expect:
            remark.append("as expected")
        remark += result.changed
        why = "; ".join(map(printable, remark))
        word = f"{result.answer.word}{MARK if result.unheld else ''}"
        cells = (str(result.number), self._describe(result.step), word, why)
        print(text.line(cells, self._widths, frozenset([0])))
        if self._log:
            for line in result.answer.log:
                print(" " * self._widths[0] + "  | " + printable(line))

    def summary(self, planned: int) -> str:
        """Return the numbers of steps done, refused and left undone, in words."""
        from memhp.report.text import counted

        came = self.done + self.failed
        parts = [f"{self.done} done"]
        parts += [f"{self.failed} refused"] if self.failed else []
        parts += [f"{self.unmet} not as expected"] if self.unmet else []
        parts += [f"{planned - came} not tried"] if planned > came else []
        return f"{counted(planned, 'step')}: {', '.join(parts)}"

    @property
    def code(self) -> int:
        """The exit code: 4 if an answer was not the expected one, 1 if a step was refused, else 0."""
        return FOUND if self.unmet else REFUSED if self.refused else DONE


def do_steps(machine: Machine, steps: Sequence[Step], *, json: bool, stop: bool = False) -> int:
    """
    Do steps, print each, and return the exit code.

    Args:
        machine: The machine.
        steps: What to do.
        json: Print JSON.
        stop: End at the first refusal.

    Raises:
        UsageError: the platform refused a single step.
    """
    printer = StepPrinter(steps, json=json)
    with machine.backend.batch():
        for number, step in enumerate(steps, 1):
            result = machine.do(step, number=number, watch=not json)
            if len(steps) == 1 and result.answer.outcome == "refused" and result.answer.error is None:
                result.check()
            printer.print(result)
            if stop and result.answer.refused:
                break
    if not json and len(steps) > 1:
        print(f"\n{printer.summary(len(steps))}")
    if not json and printer.unheld:
        print(explain_mark(tuple(printer.unheld)))
    return printer.code


def explain_mark(unheld: Sequence[str], what: str = "") -> str:
    """
    Return the line that says what † is about.

    >>> explain_mark(["mm/a.c a()", "mm/b.c b()", "mm/c.c c()", "mm/d.c d()", "mm/e.c e()"])
    '† passed through lines of the model that no real kernel was held against: mm/a.c a(), mm/b.c b(), mm/c.c c() and 2 more'
    """
    shown = ", ".join(unheld[:_FEW])
    more = f" and {len(unheld) - _FEW} more" if len(unheld) > _FEW else ""
    return f"{MARK} {what}passed through lines of the model that no real kernel was held against: {shown}{more}"


def printable(text: str) -> str:
    """Return text as one line without anything that a terminal acts on."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_writes(steps: Iterable[Step], machine: Machine, *, json: bool) -> int:
    """Print what would be written, for --dry-run, and return the exit code."""
    from memhp.abi.files import MEMORY
    from memhp.backends.base import resolve
    from memhp.scenario import Add, Offline, Online, Write

    for step in steps:
        write: dict[str, Any]
        match step:
            case Online() | Offline():
                word = step.to if isinstance(step, Online) else "offline"
                write = {"path": f"{MEMORY}/memory{resolve(machine.backend, step.block)}/state", "text": word}
            case Write():
                write = {"path": step.path, "text": step.text}
            case Add():
                write = {"call": "add_memory", "node": step.node, "start": step.start, "size": step.size}
            case _:
                given = {name: getattr(step, name) for name in step.__slots__ if name != "expect"}
                write = {"request": step.do, **{name: value for name, value in given.items() if value is not None}}
        if json:
            print_json(write)
        elif "path" in write:
            print(f"echo {write['text']} > {write['path']}")
        else:
            words = [str(value) if i == 0 else f"{key}={value}" for i, (key, value) in enumerate(write.items())]
            print(" ".join(words))
    return DONE


def warn(message: str) -> None:
    """Print one line to people, beside the data."""
    print(f"memhp: {printable(message)}", file=sys.stderr)
