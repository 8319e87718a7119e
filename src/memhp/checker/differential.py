# SPDX-License-Identifier: GPL-2.0-only
"""
Two machines held against each other: what they show, and what they answer to the same scenario.

`look()` takes from a machine's files what two kernels on the same machine must show alike; `differences()` lists, file by file
and field by field, where two such looks part. `run_both()` does a scenario on two machines, a step on the one and the same on
the other, and compares after each.

Compared: every memory block and its attributes; memblock's memory, with flags where both kernels print them; the System RAM
lines of /proc/iomem; which nodes there are, are online and have memory; the parameters of hotplug; the start, span and present
pages of each zone; the managed pages of zones that got all their memory since boot, and how far the others' have moved since;
devices; for each step the errno or outcome, and the kernel's messages about hotplug; NOPAGE, RESERVED and OFFLINE of each page
that was added. Not compared, because the kernel's own allocations decide it: which pages are free, slab or page tables, all
counters, addresses of the kernel's image, messages about other things.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from memhp.abi import files as abi
from memhp.abi import kpageflags, record
from memhp.abi.files import MEMBLOCK, MEMORY, NODE
from memhp.abi.iomem import IOMEM, read_iomem
from memhp.abi.memblock import read_memblock
from memhp.abi.memory import read_memory
from memhp.abi.zoneinfo import ZONEINFO, ZoneSnapshot, read_zoneinfo
from memhp.backends import base
from memhp.backends.base import Answer, Backend
from memhp.errors import UsageError
from memhp.scenario import Offline, Online, Plug, Scenario, Step, Unplug, describe

Value = Any
"""What a field holds: a number, a text, a tuple of texts, or None where the kernel does not show it."""

HOTPLUG_LOG = (
    (r"Built \d+ zonelists.*mobility grouping (?P<state>on|off)\..*", r"Built zonelists, mobility grouping \g<state>"),
    (r"Policy zone: (?P<zone>\w+)", r"Policy zone: \g<zone>"),
    (r"(?P<all>Offlined Pages \d+)", r"\g<all>"),
    (r"(?P<all>Boot memory \[.*\] offlining attempted)", r"\g<all>"),
    (r"(?P<all>section number \d+ page number \d+ not reserved, was it already online\?)", r"\g<all>"),
    (r"(?P<all>Block size \[.*\] unaligned hotplug range: .*)", r"\g<all>"),
    (r"(?P<all>Section-unaligned hotplug range: .*)", r"\g<all>"),
    (r"(?P<all>Misaligned __?\w+ .*)", r"\g<all>"),
    (r"(?P<all>memory memory\d+: (?:Offline failed|.* failed)\.?)", r"\g<all>"),
    (r"(?P<all>offlining \[mem .*\] failed due to .*)", r"\g<all>"),
    (r"(?P<all>page dumped because: .*)", r"\g<all>"),
    (r"acpi PNP0C80:[0-9a-f]+: (?P<what>.*)", r"acpi memory device: \g<what>"),
    (r"virtio_mem \w+: (?P<what>(?:plugged|requested) size: .*)", r"virtio-mem: \g<what>"),
    (r"(?P<all>System RAM resource \[.*\] cannot be added)", r"\g<all>"),
    (r"(?P<what>Unable to handle kernel .*) at virtual address [0-9a-f]{16}", r"\g<what>"),
    (r"(?P<all>kernel BUG at .*)", r"\g<all>"),
    (r"(?P<all>end_pfn too big)", r"\g<all>"),
)
"""The kernel's messages about hotplug, and the form in which they are compared: numbers that its allocations decide left out."""
_LOG = tuple((re.compile(pattern), form) for pattern, form in HOTPLUG_LOG)
_FLAGS = ("NOPAGE", "RESERVED", "OFFLINE")
_NODE_LISTS = ("possible", "online", "has_memory", "has_normal_memory")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One thing in which two machines differ.

    Attributes:
        file: The file, or what else it was seen in: "step", "log", "devices".
        item: Which line or object of it: "memory24", "node 0 zone Normal", "0x40000000".
        name: Which field of that; "" if the whole item is on one machine only.
        first: What the first machine shows; None: nothing.
        second: What the second shows.
        step: After which step of a scenario; None: no scenario, 0: after boot.
    """

    file: str
    item: str
    name: str
    first: Value
    second: Value
    step: int | None = None

    def json(self) -> dict[str, Any]:
        """Return it as plain data."""
        data: dict[str, Any] = {} if self.step is None else {"step": self.step}
        return {**data, "file": self.file, "item": self.item, "field": self.name, "first": self.first, "second": self.second}

    def __str__(self) -> str:
        what = f"{self.item}{f' {self.name}' if self.name else ''}"
        if not self.name and (self.first is None or self.second is None):
            there = "first" if self.second is None else "second"
            shown = self.first if self.second is None else self.second
            return f"{self.file}: {what}: only on the {there} machine{'' if shown == () else f' ({_show(shown)})'}"
        return f"{self.file}: {what}: {_show(self.first)} on the first, {_show(self.second)} on the second"


def _show(value: Value) -> str:
    """Return a value in words."""
    if value is None:
        return "not shown"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_show(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    if value == "":
        return "nothing"
    return repr(value) if isinstance(value, str) and " " in value else str(value)


Look = dict[tuple[str, str], dict[str, Value]]
"""(file, item) -> field -> value, of one machine at one moment."""


@dataclass(slots=True)
class Watch:
    """
    A machine that is looked at again and again, and what it was like at first.

    Attributes:
        machine: The machine.
        zones: (node, zone) -> present and managed pages at first.
        blocks: Numbers of the blocks that were there at first.
        page_size: Bytes.
        pages: Whether the flags of added pages are compared.
    """

    machine: Backend
    pages: bool = True
    zones: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    blocks: frozenset[int] = frozenset()
    page_size: int = 4096

    def begin(self) -> None:
        """Take what is there now as what was there at first."""
        self.zones = {(int(z.node), z.zone): (z.present, z.managed) for z in read_zoneinfo(self.machine)}
        self.blocks = frozenset(int(block.block) for block in read_memory(self.machine, ()).blocks)
        self.page_size = record.page_size(self.machine)

    def look(self, *, since_boot: bool) -> Look:
        """Return what is compared, as it is now; `since_boot` adds what can only be told of changes."""
        zones = read_zoneinfo(self.machine)
        found = look(self.machine, zones)
        if not since_boot:
            return found
        for zone in zones:
            present, managed = self.zones.get((int(zone.node), zone.zone), (0, 0))
            row = found.get((ZONEINFO, f"node {zone.node} zone {zone.zone}"))
            if row is not None:
                row["managed" if present == 0 else "managed since boot"] = zone.managed - managed
        if self.pages:
            found.update(self._flags())
        return found

    def _flags(self) -> Look:
        """Return the flags of the pages of blocks that were added, as runs of pages with equal ones."""
        if not abi.exists(self.machine, kpageflags.KPAGEFLAGS):
            return {}
        mask = sum(1 << kpageflags.BITS[name] for name in _FLAGS)
        found: Look = {}
        memory = read_memory(self.machine, ())
        for block in memory.blocks:
            if int(block.block) in self.blocks:
                continue
            start, end = memory.range_of(block.block)
            pages = (end - start) // self.page_size
            runs = kpageflags.read_runs(self.machine, start // self.page_size, pages, mask)
            shown = tuple(f"{length} {'+'.join(kpageflags.names(value)) or 'plain'}" for _, length, value in runs)
            found[kpageflags.KPAGEFLAGS, f"memory{block.block}"] = {"pages": shown}
        return found


def look(machine: Backend, zones: Sequence[ZoneSnapshot] | None = None) -> Look:
    """Return what a machine shows of its memory; `zones`, if they have been read already."""
    found: Look = {}
    memory = read_memory(machine)
    found[MEMORY, "block_size_bytes"] = {"value": memory.block_size}
    found[MEMORY, "auto_online_blocks"] = {"value": memory.auto_online}
    for block in memory.blocks:
        found[MEMORY, f"memory{block.block}"] = {
            "state": block.state, "valid_zones": block.valid_zones, "removable": block.removable,
            "phys_index": block.phys_index, "nodes": tuple(map(int, block.nodes)),
        }  # fmt: skip
    for region in read_memblock(machine) or ():
        found[f"{MEMBLOCK}/memory", f"{region.base:#x}"] = {"size": region.size, "flags": region.flags}
    for line in read_iomem(machine).system_ram():
        found[IOMEM, f"{line.name} from {line.start:#x}"] = {"last": f"{line.end:#x}"}
    for zone in zones if zones is not None else read_zoneinfo(machine):
        if zone.spanned or zone.present:
            found[ZONEINFO, f"node {zone.node} zone {zone.zone}"] = {
                "start_pfn": zone.start_pfn, "spanned": zone.spanned, "present": zone.present}
    for name in _NODE_LISTS:
        nodes = abi.read_optional(machine, f"{NODE}/{name}")
        if nodes is not None:
            found[NODE, name] = {"nodes": nodes.strip()}
    for name in sorted(abi.list_optional(machine, record.PARAMETERS)):
        value = abi.read_optional(machine, f"{record.PARAMETERS}/{name}")
        found[record.PARAMETERS, name] = {"value": None if value is None else value.strip()}
    for device in machine.devices():
        found["devices", device.id] = {
            "kind": device.kind, "start": f"{device.start:#x}", "size": device.size, "node": device.node,
            "requested": device.requested, "plugged": device.plugged,
        }  # fmt: skip
    return found


def differences(first: Look, second: Look, step: int | None = None) -> list[Difference]:
    """
    Return where two looks part, in the order of the first's files.

    A field that one kernel does not show (None) is not compared; a file that one kernel does not have at all neither.
    """
    files = {file for file, _ in first} & {file for file, _ in second}
    skipped = ({file for file, _ in first} ^ {file for file, _ in second}) & {f"{MEMBLOCK}/memory"}
    found = []
    for file, item in sorted({*first, *second}, key=_order):
        if file in skipped or (file == kpageflags.KPAGEFLAGS and file not in files):
            continue
        a, b = first.get((file, item)), second.get((file, item))
        if a is None or b is None:
            found.append(Difference(file, item, "", a, b, step))
            continue
        for name in a:
            if name in b and a[name] != b[name] and a[name] is not None and b[name] is not None:
                found.append(Difference(file, item, name, a[name], b[name], step))
    return found


def _order(key: tuple[str, str]) -> tuple[str, list[tuple[int, str]]]:
    """Sort items as people count: memory9 before memory10."""
    file, item = key
    return file, [(int(part, 16 if part.startswith("0x") else 10), "") if part[0].isdigit() else (-1, part)
                  for part in re.findall(r"0x[0-9a-f]+|[0-9]+|[^0-9]+", item)]  # fmt: skip


def hotplug_log(lines: Iterable[str]) -> list[str]:
    """
    Return the messages about hotplug among a log's lines, in the form in which they are compared.

    >>> hotplug_log(["random: crng init done", "Built 1 zonelists, mobility grouping on.  Total pages: 257913"])
    ['Built zonelists, mobility grouping on']
    """
    found = []
    for line in lines:
        for pattern, form in _LOG:
            if match := pattern.fullmatch(line.strip()):
                found.append(match.expand(form))
                break
    return found


@dataclass(frozen=True, slots=True)
class StepComparison:
    """
    One step on two machines.

    Attributes:
        number: 0 for the state before the first step.
        step: The verb; None before the first.
        first: The first machine's answer.
        second: The second's.
        found: Where they part.
    """

    number: int
    step: Step | None
    first: Answer
    second: Answer
    found: tuple[Difference, ...]


def compare(first: Backend, second: Backend) -> list[Difference]:
    """
    Return where two machines part, as they are now.

    Raises:
        KernelError: one shows no memory blocks.
        BackendError: one does not answer.
    """
    return differences(look(first), look(second))


def run_both(
    scenario: Scenario | Sequence[Step], first: Backend, second: Backend, *, pages: bool = True,
    around: Callable[[Backend], AbstractContextManager[object]] | None = None,
) -> Iterator[StepComparison]:  # fmt: skip
    """
    Do a scenario on two machines; yields what came of each step, and first how they compare before any.

    Args:
        scenario: A scenario, or its steps.
        first: A machine.
        second: Another, booted alike.
        pages: Compare the flags of added pages, too.
        around: Entered with a machine before a step is done on it, and left after it: to trace what runs.

    Raises:
        UsageError: one of them cannot do a step; nothing is done then.
        BackendError: one does not answer.
    """
    steps = scenario.steps if isinstance(scenario, Scenario) else tuple(scenario)
    for number, step in enumerate(steps, 1):
        for machine in (first, second):
            if step.do not in machine.verbs:
                raise UsageError(f"step {number}: {machine.unable(step.do)}")
    sides = (observe(steps, first, pages=pages, around=around), observe(steps, second, pages=pages, around=around))
    yield from compare_observed(*sides)


@dataclass(frozen=True, slots=True)
class Observed:
    """
    One step on one machine: what came of it, and what the machine showed afterwards.

    Attributes:
        number: 0 for the state before the first step.
        step: The verb; None before the first.
        answer: The machine's answer.
        look: What is compared.
    """

    number: int
    step: Step | None
    answer: Answer
    look: Look


def observe(
    steps: Iterable[Step], machine: Backend, *, pages: bool = True,
    around: Callable[[Backend], AbstractContextManager[object]] | None = None,
) -> Iterator[Observed]:  # fmt: skip
    """
    Do steps on one machine; yields how it is before any, and what came of each.

    Args:
        steps: The verbs.
        machine: The machine.
        pages: Look at the flags of added pages, too.
        around: Entered with the machine before a step, and left after it.

    Raises:
        BackendError: it does not answer.
    """
    watch = Watch(machine, pages)
    watch.begin()
    yield Observed(0, None, Answer(), watch.look(since_boot=False))
    for number, step in enumerate(steps, 1):
        with around(machine) if around is not None else nullcontext():
            answer = base.apply(machine, step)
        yield Observed(number, step, answer, watch.look(since_boot=True))


def compare_observed(first: Iterable[Observed], second: Iterable[Observed]) -> Iterator[StepComparison]:
    """
    Hold two runs of the same steps against each other; either may be a recording.

    A step is taken from the first, then from the second. What differed before and differs in the same way now is not that
    step's doing.
    """
    known: set[tuple[str, str, str, str]] = set()
    for a, b in zip(first, second, strict=True):
        found = list(_answers(a.number, a.step, a.answer, b.answer)) if a.step is not None else []
        state = differences(a.look, b.look, a.number)
        found += [difference for difference in state if _key(difference) not in known]
        known = set(_keys(state))
        yield StepComparison(a.number, a.step, a.answer, b.answer, tuple(found))


def _key(difference: Difference) -> tuple[str, str, str, str]:
    return difference.file, difference.item, difference.name, f"{difference.first}|{difference.second}"


def _keys(found: Iterable[Difference]) -> Iterator[tuple[str, str, str, str]]:
    return map(_key, found)


def _answers(number: int, step: Step, a: Answer, b: Answer) -> Iterator[Difference]:
    """Yield where two answers to a step part."""
    said = describe(step)
    if a.word != b.word:
        yield Difference("step", said, "answer", a.word, b.word, number)
    first, second = hotplug_log(a.log), hotplug_log(b.log)
    if isinstance(step, Offline | Unplug):
        # A failed attempt dumps a page each time it tries; how often it tries is a matter of luck.
        first, second = _once(first), _once(second)
    if first != second and not (isinstance(step, Plug | Online) and sorted(first) == sorted(second)):
        yield Difference("log", said, "messages", tuple(first), tuple(second), number)


def _once(lines: Sequence[str]) -> list[str]:
    return [line for number, line in enumerate(lines) if line not in lines[:number]]
