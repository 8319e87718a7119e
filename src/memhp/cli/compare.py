# SPDX-License-Identifier: GPL-2.0-only
"""`memhp compare`: the differences of two machines, or of one scenario on two machines."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from memhp.cli import common
from memhp.errors import UsageError

if TYPE_CHECKING:
    from memhp.backends.base import Backend
    from memhp.checker.differential import Difference, StepComparison
    from memhp.linux.ftrace import Call
    from memhp.report.calls import Comparison
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
            calls = _Calls() if args.calls else None
            around = calls.around if calls is not None else None
            for compared in differential.run_both(script, first, second, pages=not args.no_pages, around=around):
                if calls is not None and compared.step is not None:
                    compared = calls.add(compared)
                found += compared.found
                if json:
                    _print_step(compared, calls)
                    continue
                said = scenario.describe(compared.step) if compared.step is not None else "after boot"
                words = [compared.first.word, compared.second.word] if compared.step is not None else []
                answer = words[0] if len(set(words)) == 1 else " / ".join(words)
                print(f"{compared.number:2}  {said}: {f'{answer}, ' if answer else ''}{_counted(len(compared.found))}")
                _list(compared.found, "      ")
                if calls is not None and compared.step is not None:
                    for line in calls.words():
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


ROOTS = ("add_memory_resource", "online_pages", "offline_pages", "try_remove_memory", "add_memory", "remove_memory")
"""The functions whose call trees are compared; a tree inside another one's is not taken twice."""


NEWER_OPAQUE = frozenset((
    "__alloc_pages_noprof", "alloc_pages_noprof", "__alloc_frozen_pages_noprof", "get_free_pages_noprof", "free_unref_page",
    "__drain_all_pages", "drain_pages_zone", "lru_add_drain_all", "lru_cache_disable", "__free_pages", "free_pages",
    "kmem_cache_free", "kfree", "migrate_pages",
))  # fmt: skip
"""Functions of newer kernels whose inside depends on everything that ran before."""
REPEATED = frozenset(("__cond_resched", "set_pageblock_migratetype", "init_pageblock_migratetype"))
"""Functions that a loop calls now with, now without a rest in between."""


def model_functions() -> frozenset[str]:
    """Return the names of all kernel functions that the model has, whichever release they belong to."""
    import ast
    from pathlib import Path

    import memhp.linux as rooms

    found: set[str] = set()
    for folder in rooms.__path__:
        for path in Path(folder).rglob("*.py"):
            if path.parent != Path(folder):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                found.update(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in found if not name.startswith("_") or name.startswith("__"))


class _Calls:
    """What ran on two machines in a step."""

    def __init__(self) -> None:
        self._known = (model_functions() | set(ROOTS)) - REPEATED
        self._trees: list[list[Call]] = []
        self._comparison: Comparison | None = None

    @contextlib.contextmanager
    def around(self, machine: Backend) -> Iterator[None]:
        """Record what runs on a machine."""
        from memhp.backends.model import ModelBackend
        from memhp.linux import ftrace
        from memhp.report import calls

        if len(self._trees) == 2:
            self._trees.clear()
        if isinstance(machine, ModelBackend):
            with ftrace.record() as recorder:
                yield
            self._trees.append(_outermost(recorder.tree))
            return
        with machine.traced(ROOTS) as texts:
            yield
        self._trees.append(_outermost([call for text in texts for call in calls.read_trace(text)]))

    def add(self, compared: StepComparison) -> StepComparison:
        """Return a comparison of a step with that of its calls."""
        import dataclasses

        from memhp.checker.differential import Difference
        from memhp.report import calls

        opaque = calls.OPAQUE | NEWER_OPAQUE
        # What no room of the model speaks of (the scheduler, timers, interrupts) comes when it likes.
        first, second = (calls.splice(trees, self._known, primitives=calls.PRIMITIVES, opaque=opaque) for trees in self._trees)
        self._comparison = calls.compare(first, second, opaque=opaque)
        ran = [" ".join(call.name for call in trees) for trees in (first, second)]
        more = []
        if ran[0] != ran[1]:
            more.append(Difference("calls", "what ran", "", ran[0] or "nothing", ran[1] or "nothing", compared.number))
        elif self._comparison.difference:
            words = self._comparison.difference.replace("the model", "the first").replace("the kernel", "the second")
            sides = dict(re.findall(r"\n *(kernel|model): *(.*)", words))
            item = f"{words.splitlines()[0]}, order"
            shown = (sides.get("model", ""), sides.get("kernel", ""))
            more.append(Difference("calls", item, "of calls", *shown, compared.number))
        return dataclasses.replace(compared, found=(*compared.found, *more))

    def words(self) -> list[str]:
        """Return in words what was compared, and what could not be."""
        found = self._comparison
        if found is None or not (found.common or found.kernel_only or found.model_only):
            return []
        lines = [f"calls: {len(found.common)} functions on both, in the same order" if found.equal else "calls: see above"]
        for title, names in (("only on the first", found.model_only), ("only on the second", found.kernel_only)):
            if names:
                lines.append(f"  {title} ({len(names)}): {' '.join(names[:12])}{' …' if len(names) > 12 else ''}")
        if found.inlined:
            lines.append(f"  inlined by the compiler: {' '.join(f'{caller}/{name}' for caller, name in found.inlined)}")
        return lines

    def json(self) -> dict[str, object]:
        """Return what was compared as plain data."""
        found = self._comparison
        if found is None:
            return {}
        return {
            "common": list(found.common), "first_only": list(found.model_only), "second_only": list(found.kernel_only),
            "inlined": [list(pair) for pair in found.inlined], "difference": found.difference,
        }  # fmt: skip


def _outermost(trees: Sequence[Call]) -> list[Call]:
    """Return the trees below the first of `ROOTS` on each path."""
    found: list[Call] = []
    for call in trees:
        found += [call] if call.name in ROOTS[:4] else _outermost(call.children)
    return found


def _print_step(compared: object, calls: _Calls | None = None) -> None:
    from memhp.checker.differential import StepComparison

    assert isinstance(compared, StepComparison)
    line: dict[str, object] = {"step": compared.number}
    if compared.step is not None:
        line |= {"do": compared.step.do, "first": compared.first.word, "second": compared.second.word}
    if calls is not None and compared.step is not None:
        line["calls"] = calls.json()
    common.print_json({**line, "differences": [difference.json() for difference in compared.found]})


def _url(text: str) -> str:
    """Return a machine URL; the folder of a recording is one, too."""
    return f"capture:{text}" if os.path.isdir(text) else text


def _open(urls: Sequence[str], devices: Sequence[Device], stack: contextlib.ExitStack) -> tuple[Backend, Backend]:
    """Open both; a model beside another machine boots as its twin."""
    import dataclasses
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
