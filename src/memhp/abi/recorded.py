# SPDX-License-Identifier: GPL-2.0-only
"""
The recordings of real kernels that come with memhp: steps, states, call traces, call counts.

>>> full = recording("v4.9-arm64-rfc/full")
>>> [(step.text, step.result) for step in full.steps[:3]]
[('', ''), ('0x80000000', ''), ('online', '')]
>>> full.capture("01-probe").read("/sys/devices/system/memory/memory2/state")
b'offline\\n'
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from memhp.abi import capture
from memhp.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One recorded step: the state after boot, a write and what became of it, or a use of the memory.

    Attributes:
        file: Which part of the recording it is from ("01-probe").
        title: What was done, in words.
        path: The file written to; "" if nothing was.
        text: What was written.
        result: "" (taken), the name of an errno, "oops" or "hung".
        returned: What write(2) returned, if it was taken.
        log: The kernel's log lines since the write, without times.
        instrument: What the test kernel's instruments printed; no kernel prints this.
        blocked_in: The stack of a writer that hung, innermost function first.
        blocks: {block, state, valid_zones, removable} after it; as printed.
        zones: {node, zone, start_pfn, spanned, present, managed} of populated zones after it.
        mem_total_kb: MemTotal after it.
        system_ram: "System RAM" ranges of iomem after it.
        memblock: Lines of memblock/memory after it.
        max_pfn: What the instrument saw; None if it did not look.
        sections: What the instrument saw of each section.
        kpageflags: {first_pfn, last_pfn, entries, none, counts} for each range counted.
        capture: The capture of the state after it, or "".
    """

    file: str
    title: str
    path: str = ""
    text: str = ""
    result: str = ""
    returned: int | None = None
    log: list[str] = field(default_factory=list)
    instrument: list[str] = field(default_factory=list)
    blocked_in: list[str] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    zones: list[dict[str, Any]] = field(default_factory=list)
    mem_total_kb: int | None = None
    system_ram: list[str] = field(default_factory=list)
    memblock: list[str] = field(default_factory=list)
    max_pfn: int | None = None
    sections: list[dict[str, Any]] = field(default_factory=list)
    kpageflags: list[dict[str, Any]] = field(default_factory=list)
    capture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """
    One recorded run of one kernel.

    Attributes:
        name: "v4.9-arm64-rfc/full".
        release: "4.9.0".
        arch: "arm64" or "x86_64".
        cmdline: Its kernel command line.
        origin: The machine, in words.
        build: How the kernel was built.
        steps: In order.
        directory: Where its files lie.
    """

    name: str
    release: str
    arch: str
    cmdline: str
    origin: str
    build: str
    steps: tuple[Step, ...]
    directory: Path

    @property
    def captures(self) -> tuple[str, ...]:
        """The names of its captures, in order of the steps."""
        return tuple(step.capture for step in self.steps if step.capture)

    @property
    def traces(self) -> tuple[str, ...]:
        """What was traced: "probe", "online", "offline"."""
        return tuple(sorted(p.stem.removeprefix("trace-") for p in self.directory.glob("trace-*.txt")))

    def capture(self, name: str) -> capture.Capture:
        """Return one of its captures; UsageError if there is none of that name."""
        if name not in self.captures:
            raise UsageError(f"{self.name} has no capture {name!r}: there are {', '.join(self.captures) or 'none'}")
        return capture.load(self.directory / name)

    def trace(self, what: str) -> str:
        """Return the function_graph text of a write; UsageError if it was not traced."""
        if what not in self.traces:
            raise UsageError(f"{self.name} has no trace of {what!r}: there are {', '.join(self.traces) or 'none'}")
        return (self.directory / f"trace-{what}.txt").read_text(encoding="utf-8")

    def counts(self, what: str) -> dict[str, int]:
        """Return function -> calls while a write ran; UsageError if it was not profiled."""
        path = self.directory / "counts.toml"
        table = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if what not in table:
            raise UsageError(f"{self.name} has no counts of {what!r}: there are {', '.join(table) or 'none'}")
        return dict(table[what])

    def write(self, text: str, nth: int = 0) -> Step:
        """Return the nth step that wrote `text`; UsageError if there is none."""
        found = [step for step in self.steps if step.path and step.text == text]
        if not -len(found) <= nth < len(found):
            raise UsageError(f"{self.name} has {len(found)} steps that write {text!r}")
        return found[nth]


def _top() -> Path:
    return Path(str(resources.files("memhp").joinpath("recorded")))


def names() -> tuple[str, ...]:
    """Return the names of all recordings."""
    top = _top()
    return tuple(sorted(path.parent.relative_to(top).as_posix() for path in top.glob("*/*/steps.toml")))


def recording(name: str) -> Recording:
    """
    Return the recording of that name.

    Raises:
        UsageError: no such recording; names those there are.
    """
    directory = _top() / name
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name or not (directory / "steps.toml").is_file():
        raise UsageError(f"no recording {name!r}: there are {', '.join(names())}")
    table = tomllib.loads((directory / "steps.toml").read_text(encoding="utf-8"))
    steps = tuple(Step(**row) for row in table.pop("step"))
    kept = {f.name for f in fields(Recording)} - {"steps", "directory"}
    return Recording(steps=steps, directory=directory, **{key: table[key] for key in kept})
