# SPDX-License-Identifier: GPL-2.0-only
"""`memhp compare`: the differences of two machines, or of one scenario on two machines."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memhp.cli import common
from memhp.errors import UsageError

if TYPE_CHECKING:
    from memhp.backends.base import Backend
    from memhp.checker.differential import Difference, StepComparison
    from memhp.report.traces import Ran, Traces
    from memhp.scenario import Device, Scenario

_LISTED = 40


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "compare", "the differences of two machines or recordings, or of one scenario on two machines",
        "Compare two machines: memory blocks, memblock, System RAM, zones, devices. With --scenario, do its steps on both,\nand "
        "compare the answers, the kernel's messages about hotplug and the state after each. A model without memory of its\nown "
        "choice that is compared with another machine boots as the twin of what that one is after boot.\nExit code 4 if anything "
        "differs.",
        ["memhp compare before after", "memhp compare qemu:v6.1/arm64 qemu:v6.12/arm64 --scenario dimm.toml",
         "memhp compare qemu:v4.9/x86_64 model:v4.9/x86_64 --scenario dimm.toml"],
    )  # fmt: skip
    parser.add_argument("first", metavar="A", help="a machine, or the folder of a recording")
    parser.add_argument("second", metavar="B", help="another")
    parser.add_argument("--scenario", metavar="FILE", help="do its steps on both, and compare after each")
    parser.add_argument("--calls", action="store_true", help="with --scenario: compare the kernels' call trees, too")
    parser.add_argument("--no-pages", action="store_true", help="do not compare the flags of added pages (slow on big machines)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp import scenario
    from memhp.checker import differential

    json = common.as_json(args)
    script: Scenario | None = scenario.load(args.scenario) if args.scenario else None
    if args.calls and script is None:
        raise UsageError("compare --calls wants a --scenario, for only what runs has calls")
    urls = [_url(text) for text in (args.first, args.second)]
    check(*urls)
    with contextlib.ExitStack() as stack:
        first, second = _open(urls, script.devices if script is not None else (), stack)
        if not json:
            print(f"first:  {common.printable(first.url)}\nsecond: {common.printable(second.url)}\n")
        if script is None:
            found = differential.compare(first, second)
            if json:
                for difference in found:
                    common.print_json(difference.json())
            else:
                _list(found, "")
        else:
            found = []
            traces = _traces() if args.calls else None
            around = traces.around if traces is not None else None
            for compared in differential.run_both(script, first, second, pages=not args.no_pages, around=around):
                ran = traces.take() if traces is not None and compared.step is not None else None
                if ran is not None:
                    compared = dataclasses.replace(compared, found=(*compared.found, *ran.differences(compared.number)))
                found += compared.found
                if json:
                    _print_step(compared, ran)
                    continue
                said = scenario.describe(compared.step) if compared.step is not None else "after boot"
                words = [compared.first.word, compared.second.word] if compared.step is not None else []
                answer = words[0] if len(set(words)) == 1 else " / ".join(words)
                print(f"{compared.number:2}  {said}: {f'{answer}, ' if answer else ''}{_counted(len(compared.found))}")
                _list(compared.found, "      ")
                for line in ran.words() if ran is not None else ():
                    print(f"      {common.printable(line)}")
    if not json:
        print(f"\n{_counted(len(found))}" + (f"; the first: {found[0]}" if found else ""))
    return common.FOUND if found else common.DONE


def _counted(number: int) -> str:
    from memhp.report.text import counted

    return counted(number, "difference") if number else "no differences"


def _list(found: Sequence[Difference], indent: str) -> None:
    for difference in found[:_LISTED]:
        print(f"{indent}{common.printable(str(difference))}")
    if len(found) > _LISTED:
        print(f"{indent}… and {len(found) - _LISTED} more; --json lists all")


def _traces() -> Traces:
    from memhp.report.traces import Traces

    return Traces()


def _print_step(compared: StepComparison, ran: Ran | None) -> None:
    line: dict[str, object] = {"step": compared.number}
    if compared.step is not None:
        line |= {"do": compared.step.do, "first": compared.first.word, "second": compared.second.word}
    if ran is not None:
        line["calls"] = ran.json()
    common.print_json({**line, "differences": [difference.json() for difference in compared.found]})


def _url(text: str) -> str:
    """Return a machine URL; the folder of a recording is one, too."""
    return f"capture:{text}" if os.path.isdir(text) else text


def _open(urls: Sequence[str], devices: Sequence[Device], stack: contextlib.ExitStack) -> tuple[Backend, Backend]:
    """Open both; a model beside another machine boots as its twin."""
    import tempfile

    from memhp.backends import base

    parsed = [base.parse(url) for url in urls]
    opened: dict[int, Backend] = {}
    # What a model may have to be the twin of comes first.
    for number in sorted(range(2), key=lambda n: isinstance(parsed[n], base.ModelURL)):
        url, other = parsed[number], parsed[1 - number]
        twin = (
            isinstance(url, base.ModelURL) and not isinstance(other, base.ModelURL | base.MachineFileURL)
            and url.mem is None and not (url.nodes or url.map or url.capture)
        )  # fmt: skip
        if twin:
            from memhp.machine import Machine

            assert isinstance(url, base.ModelURL)
            if isinstance(other, base.CaptureURL):
                folder = other.path
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="memhp-"))
                Machine(opened[1 - number]).capture(folder)
            cmdline = url.cmdline or _cmdline(opened[1 - number])
            page = _page(opened[1 - number])
            url = dataclasses.replace(url, capture=folder, cmdline=cmdline, page=page)
        opened[number] = base.open(str(url), devices)
        stack.callback(opened[number].close)
    return opened[0], opened[1]


def _cmdline(machine: Backend) -> str:
    """Return the words of a machine's command line that a model understands: those about memory hotplug."""
    from memhp.abi import files as abi

    words = (abi.read_optional(machine, "/proc/cmdline") or "").split()
    return " ".join(word for word in words if word.startswith(("memhp_default_state=", "memory_hotplug.", "movable_node")))


def _page(machine: Backend) -> int:
    from memhp.abi.record import page_size

    return page_size(machine)


def check(first: str, second: str) -> None:
    """Raise UsageError if both name one machine file: two machines that write to it would be in each other's way."""
    if first == second and first.endswith(".toml"):
        raise UsageError(f"{first} twice: a machine file is one machine")
