# SPDX-License-Identifier: GPL-2.0-only
"""
Definitions of pfn_valid() held against everything that asks it.

`check()` runs every caller in every state of every setting that was asked for. What breaks is sorted into *findings*: cells that
break for the same reason, under the name by which people know it. A cell that fits no known reason is a finding under the name of
its obligation, so nothing is passed over.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

from memhp.checker import expression
from memhp.checker import obligations as o
from memhp.checker.callers import BY_NAME, Caller, NobodyCalls, observe
from memhp.checker.derive import Broken
from memhp.checker.obligations import Outcome
from memhp.checker.states import ARCHES, STATES, TREES, Built, Setting, span
from memhp.errors import KernelBugError, UsageError, did_you_mean
from memhp.linux import boot, kconfig
from memhp.linux.include import mmzone
from memhp.linux.include.memory import MEM_OFFLINE
from memhp.linux.series import arm64_rfc_2016

REMEDIES: tuple[str, ...] = tuple(arm64_rfc_2016.REMEDIES)


@dataclass(frozen=True, slots=True)
class Symptom:
    """
    One broken obligation in one cell, with what was observed: what a `Reason` decides by.

    Attributes:
        caller: The caller.
        state: Name of the state.
        broken: The obligation and what happened.
        outcome: What was observed; None if the machine died on the way to the state.
    """

    caller: Caller
    state: str
    broken: Broken
    outcome: Outcome | None

    @property
    def died(self) -> bool:
        """The calling task died."""
        return self.outcome is not None and self.outcome.died is not None

    def sections(self) -> list[bool]:
        """Return, for each section of the hot-add, whether it is there."""
        if self.outcome is None:
            return []
        k = self.outcome.after
        start, size = span(k)
        first = start >> k.SECTION_SIZE_BITS
        return [mmzone.valid_section(k.mem_section.get(first + i)) for i in range(size >> k.SECTION_SIZE_BITS)]

    def block_offline(self) -> bool:
        """Whether a block of the hot-add is there, and offline."""
        if self.outcome is None:
            return False
        k = self.outcome.after
        block = k.memory_blocks.get((span(k)[0] >> k.SECTION_SIZE_BITS) // k.sections_per_block)
        return block is not None and block.state == MEM_OFFLINE


@dataclass(frozen=True, slots=True)
class Reason:
    """
    A known way to break, by the name people have for it.

    Attributes:
        name: Short.
        text: What goes wrong and why, in one sentence.
        known: Where it is known from.
        fits: Whether a symptom is this.
    """

    name: str
    text: str
    known: str
    fits: Callable[[Symptom], bool]


def _about(*obligations: o.Obligation) -> Callable[[Symptom], bool]:
    names = frozenset(obligation.name for obligation in obligations)
    return lambda s: s.broken.obligation in names


_ADDING = _about(o.ADDED, o.ALL_ONLINE)
_UNINITIALISED = _about(o.INITIALISED, o.BOOT_WALKABLE, o.BOOT_RAM)

REASONS: tuple[Reason, ...] = (
    Reason(
        "oops while adding",
        "pages are reserved whose sections were never added: the writing task dies, and keeps the hotplug lock",
        "the series' arch_add_memory(): its loop of SetPageReserved() asks nobody whether there is a memmap",
        lambda s: (s.state == "D0" and s.died) or (s.outcome is None and s.state in ("D2", "D3", "D4"))),
    Reason(
        "beyond pfn_valid()", "the caller never asks pfn_valid(), so no definition helps",
        "1151f838cb62 arm64: kernel: restrict /dev/mem read() calls to linear region",
        lambda s: not s.caller.asks_pfn_valid),
    Reason(
        "two-section loss",
        "only the first section of several is added: its mark hides one page, and the others' -EEXIST is swallowed",
        "mm/memory_hotplug.c __add_section(), __add_pages()",
        lambda s: _ADDING(s) and s.sections()[:1] == [True] and not all(s.sections())),
    Reason(
        "swallowed -EEXIST",
        "pfn_valid() is true before the section exists, __add_section() takes it for added, and __add_pages() reports success",
        "mm/memory_hotplug.c __add_section(), __add_pages()",
        lambda s: _ADDING(s) and not any(s.sections())),
    Reason(
        "silent auto-online failure",
        "the kernel onlines what it added by itself, drops the error, and the block stays offline without a word",
        "mm/memory_hotplug.c add_memory_resource() ignores what walk_memory_range() returns",
        lambda s: s.caller.name == "auto-online" and s.block_offline()),
    Reason(
        "EBUSY for ever", "the block is there and refuses to go online: its pages are not reserved, or not valid",
        "drivers/base/memory.c pages_correctly_reserved(); recorded with remedy nohack", _about(o.ALL_ONLINE)),
    Reason(
        "skipped reserve loop", "__add_zone() reserves only pages that pfn_valid() affirms, and at that moment it denies them",
        "mm/memory_hotplug.c __add_zone()", _about(o.RESERVED)),
    Reason(
        "zone->contiguous lost",
        "set_zone_contiguous() runs while a page of the zone is not valid, and nobody runs it again: compaction stays slow",
        "mm/page_alloc.c set_zone_contiguous()", _about(o.CONTIGUOUS)),
    Reason(
        "NOMAP memmap BUG (ThunderX)",
        "a walker of pageblocks meets the struct page of firmware's memory or of a hole, whose zone boot never wrote",
        "6d526ee26ccd arm64: mm: enable CONFIG_HOLES_IN_ZONE for NUMA", lambda s: s.died and "move_freepages" in s.broken.text),
    Reason(
        "uninitialised memmap", "boot initialises only what pfn_valid() affirms; walkers of pageblocks read the rest, too",
        "6d526ee26ccd arm64: mm: enable CONFIG_HOLES_IN_ZONE for NUMA", _UNINITIALISED),
    Reason(
        "bogus-pfn oops", "upper bits of a pfn are lost on the way to an address, and the answer is that of another page",
        "5ad356eabc47 arm64: mm: check for upper PAGE_SHIFT bits in pfn_valid()", lambda s: s.state == "bogus" and s.died),
    Reason(
        "reader's oops after the add",
        "memblock knows the range, its section was never added, and whoever reads the struct page dies (kpageflags)",
        "recorded with remedy nonomap, which leaves memory in the same state: Oops in stable_page_flags()",
        lambda s: s.state in ("D2", "D3") and s.died and not all(s.sections())),
    Reason(
        "reader's oops during the add", "between memblock_add_node() and the section's memmap pfn_valid() is true of nothing",
        "the same moment as `swallowed -EEXIST`, seen by a reader that takes no lock",
        lambda s: s.state in ("D1", "D1n") and s.died),
    Reason(
        "tear-down order D4",
        "memblock forgets the range before the sections go, pfn_valid() denies them, and what was to be undone stays",
        "drivers/base/node.c unregister_mem_sect_under_nodes(), get_nid_for_pfn()", lambda s: s.state == "D4"),
    Reason(
        "section without page_ext", "page_ext_init() passes over a whole section if its first page is not valid",
        "mm/page_ext.c page_ext_init()", _about(o.HAS_PAGE_EXT)),
    Reason(
        "linear address without mapping", "pfn_valid() is true of what is not in the linear map, and its linear address is used",
        "873ba463914c arm64: decouple check whether pfn is in linear map from pfn_valid()",
        lambda s: _about(o.LINEAR_MAPPED, o.ADDRESS_GOOD)(s) or (s.died and "linear address" in s.broken.text)),
    Reason(
        "device taken for RAM", "what is no RAM shares a section with RAM, and is refused or mapped like it",
        "3eb9cdffb397 Partially revert \"arm64/mm: drop HAVE_ARCH_PFN_VALID\"",
        _about(o.DEVICE_NOT_CACHED, o.FIRMWARE_NOT_CACHED, o.DEVICE_REACHABLE, o.FIRMWARE_REACHABLE, o.DEVICE_ACCEPTED)),
    Reason(
        "RAM taken for a device", "pfn_valid() denies memory that is in the linear map, and it is mapped a second time, uncached",
        "arch/arm64/mm/ioremap.c __ioremap_caller(); arch/arm/kvm/mmu.c kvm_is_device_pfn()",
        _about(o.NO_ALIAS, o.RAM_REFUSED, o.STAGE2_RAM, o.RAM_ADDRESS_GOOD, o.RAM_REACHABLE, o.TABLES_CACHEABLE)),
)
"""In the order they are tried: the first that fits gives the name."""


@dataclass(frozen=True, slots=True)
class Cell:
    """
    A caller in a state of a setting, where something broke.

    Attributes:
        setting: Architecture, remedy, definition.
        caller, state: Names.
        broken: The obligation and what happened.
        c_file, c_function, line: Where the caller asks.
    """

    setting: Setting
    caller: str
    state: str
    broken: Broken
    c_file: str
    c_function: str
    line: int

    @property
    def story(self) -> list[str]:
        """Return what happened, as lines: state, call, what came of it, and how to run it again."""
        return [
            f"{self.caller} in {self.state} ({STATES[self.state].text}), {kernel_name(self.setting)}",
            f"  {self.c_file}:{self.line} {self.c_function}(): {self.broken.text}",
            f"  owes: {o.OBLIGATIONS[self.broken.obligation].text} [{self.broken.obligation}]",
            f"  again: {self.replay}",
        ]

    @property
    def replay(self) -> str:
        """The command line that runs this cell alone."""
        return shell_words(["memhp", "check", *_narrow(self.setting), "--caller", self.caller, "--state", self.state])

    def json(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            "arch": self.setting.arch, "remedy": self.setting.remedy or None, "pfn_valid": self.setting.definition.name,
            "config": dict(self.setting.config),
            "state": self.state, "caller": self.caller, "c_file": self.c_file, "c_function": self.c_function, "line": self.line,
            "obligation": self.broken.obligation, "text": self.broken.text, "replay": self.replay,
        }


@dataclass(slots=True)
class Finding:
    """
    Cells that break for one reason.

    Attributes:
        name, text, known: Of the `Reason`, or of the obligation.
        cells: Where.
    """

    name: str
    text: str
    known: str
    cells: list[Cell] = field(default_factory=list)

    def in_setting(self, setting: Setting) -> int:
        """Return how many cells of a setting it has."""
        return sum(cell.setting == setting for cell in self.cells)

    def json(self) -> dict[str, object]:
        """Return it as plain data."""
        return {"name": self.name, "text": self.text, "known": self.known, "cells": [cell.json() for cell in self.cells]}


@dataclass(slots=True)
class Report:
    """
    What a check found.

    Attributes:
        settings: What was checked, in order.
        callers, states: Names of what took part.
        ran: (setting, caller, state) of every cell that ran.
        findings: In the order of `REASONS`, then of obligations.
    """

    settings: list[Setting]
    callers: list[str]
    states: list[str]
    ran: set[tuple[Setting, str, str]] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def letters(self) -> dict[str, str]:
        """Return the letter of each finding by its name: a, b, …"""
        return {finding.name: chr(ord("a") + i) if i < 26 else "?" for i, finding in enumerate(self.findings)}

    def marks(self, setting: Setting) -> dict[tuple[str, str], str]:
        """Return (caller, state) -> letters of what broke, "." if nothing did; what did not run is absent."""
        marks = {(caller, state): "" for where, caller, state in self.ran if where == setting}
        letters = self.letters()
        for finding in self.findings:
            for cell in finding.cells:
                key = cell.caller, cell.state
                if cell.setting == setting and letters[finding.name] not in marks[key]:
                    marks[key] += letters[finding.name]
        return {key: mark or "." for key, mark in marks.items()}

    def json(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            "settings": [
                {"arch": s.arch, "tree": TREES[s.arch].name, "remedy": s.remedy or None, "pfn_valid": s.definition.name,
                 "config": dict(s.config)}
                for s in self.settings],
            "callers": self.callers, "states": self.states, "cells": len(self.ran),
            "findings": [finding.json() for finding in self.findings],
        }


def kernel_name(setting: Setting) -> str:
    """Return what is checked, in words: "arm64 firstpage, pfn_valid=A0"."""
    words = [setting.arch, *([setting.remedy] if setting.remedy else [])]
    config = "".join(f", {word}" for word in _config_words(setting))
    return f"{' '.join(words)}, pfn_valid={setting.definition.name}{config}"


def _config_words(setting: Setting) -> list[str]:
    return [f"{symbol}={'y' if on else 'n'}" for symbol, on in setting.config]


def shell_words(words: Iterable[str]) -> str:
    """Return words as one line for a shell."""
    return shlex.join(words)


def _narrow(setting: Setting) -> list[str]:
    remedy = ["--remedy", setting.remedy] if setting.remedy else []
    config = [word for symbol in _config_words(setting) for word in ("--config", symbol)]
    return ["--arch", setting.arch, *remedy, "--pfn-valid", setting.definition.name, *config]


def config_symbols() -> list[str]:
    """Return the names of the CONFIG_ symbols that are on or off."""
    return [f.name for f in fields(kconfig.Kconfig) if isinstance(getattr(kconfig.default("arm64"), f.name), bool)]


def parse_config(words: Iterable[str]) -> tuple[tuple[str, bool], ...]:
    """
    Return symbols given as "HOLES_IN_ZONE=y".

    Raises:
        UsageError: no such symbol, or neither y nor n.
    """
    found: dict[str, bool] = {}
    for word in words:
        symbol, _, value = word.removeprefix("CONFIG_").partition("=")
        if symbol not in config_symbols():
            near = did_you_mean(symbol, config_symbols()) or f"; known are {', '.join(config_symbols())}"
            raise UsageError(f"no symbol {symbol!r}{near}")
        if value not in ("y", "n"):
            raise UsageError(f"{word}: write {symbol}=y or {symbol}=n")
        found[symbol] = value == "y"
    return tuple(sorted(found.items()))


def settings(
    arches: Sequence[str] = (), remedies: Sequence[str] = (), definitions: Sequence[str] = (), config: Sequence[str] = (),
) -> list[Setting]:
    """
    Return the settings that names select; empty means all architectures and remedies, and each kernel's own definition.

    Args:
        arches: "arm64", "x86_64".
        remedies: Of the 2016 series; they belong to arm64.
        definitions: Names (G0, A0, …) or expressions over the ingredients.
        config: Symbols that differ from the recorded kernels', such as "HOLES_IN_ZONE=y".

    Raises:
        UsageError: no such name; a remedy asked for without arm64; an expression that cannot be read.
        ConfigError: a definition asks for an ingredient that v4.9 does not have; these symbols exclude one another.
    """
    for word in arches:
        if word not in ARCHES:
            raise UsageError(f"no architecture {word!r}{did_you_mean(word, ARCHES)}")
    for word in remedies:
        if word not in REMEDIES:
            raise UsageError(f"no remedy {word!r}{did_you_mean(word, REMEDIES)}")
    chosen = tuple(dict.fromkeys(arches)) or (("arm64",) if remedies else ARCHES)
    if remedies and "arm64" not in chosen:
        raise UsageError(f"remedy {remedies[0]} belongs to arm64, and --arch says {', '.join(chosen)}")
    wanted = [expression.definition(text) for text in dict.fromkeys(definitions)]
    symbols = parse_config(config)
    result = []
    for arch in chosen:
        kernel = replace(kconfig.default(arch), **dict(symbols))
        kconfig.check(kernel, arch)
        for remedy in (tuple(dict.fromkeys(remedies)) or REMEDIES) if arch == "arm64" else ("",):
            own = arm64_rfc_2016.REMEDIES[remedy].pfn_valid if remedy else ""
            for given in wanted or [boot.definition(TREES[arch], arch, kernel, own)]:
                result.append(Setting(arch, boot.definition(TREES[arch], arch, kernel, given), remedy, symbols))
    return result


def select(names: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """
    Return the known ones among names, in their own order; no names mean all.

    Raises:
        UsageError: an unknown one; says the nearest.
    """
    wanted, all_of_them = list(names), list(known)
    for name in wanted:
        if name not in all_of_them:
            near = did_you_mean(name, all_of_them) or "; memhp check --list names them"
            raise UsageError(f"no {what} {name!r}{near}")
    return [name for name in all_of_them if name in wanted] if wanted else all_of_them


def check(chosen: Sequence[Setting], callers: Iterable[str] = (), states: Iterable[str] = ()) -> Report:
    """
    Run every caller in every state of every setting.

    Args:
        chosen: From `settings()`.
        callers, states: Names; none mean all.

    Raises:
        UsageError: no such caller or state, or none of the callers can be called in any of the states.
    """
    report = Report(list(chosen), select(callers, BY_NAME, "caller"), select(states, STATES, "state"))
    named: dict[str, Finding] = {}
    for setting in report.settings:
        machines: dict[tuple[str, tuple[tuple[str, bool], ...]], Built | KernelBugError] = {}
        for caller in (BY_NAME[name] for name in report.callers):
            for state in report.states:
                symptoms = _symptoms(caller, state, setting, machines) if caller.applies(state, setting.arch) else None
                if symptoms is not None:
                    report.ran.add((setting, caller.name, state))
                    for symptom in symptoms:
                        _sort_in(symptom, setting, named)
    if not report.ran:
        raise UsageError("nothing to check: none of these callers can be called in any of these states there")
    order = [reason.name for reason in REASONS]
    report.findings = sorted(named.values(), key=lambda f: order.index(f.name) if f.name in order else len(order))
    return report


def _symptoms(
    caller: Caller, state: str, setting: Setting,
    machines: dict[tuple[str, tuple[tuple[str, bool], ...]], Built | KernelBugError],
) -> list[Symptom] | None:
    """
    Run one cell; None if nobody would call in what came of the state.

    `machines` keeps what was built, so that callers of one state share one boot and fork it.
    """
    key = state, caller.config
    if key not in machines:
        try:
            machines[key] = STATES[state].build(replace(setting, config=(*setting.config, *caller.config)))
        except KernelBugError as err:
            machines[key] = err
    built = machines[key]
    if isinstance(built, KernelBugError):
        return [Symptom(caller, state, Broken(o.BOOTS.name, f"the machine died on the way to {state}: {built}"), None)]
    try:
        outcome = observe(caller, *built)
    except NobodyCalls:
        return None
    judged = ((promise, promise.check(outcome)) for promise in caller.obligations)
    return [Symptom(caller, state, Broken(promise.name, text), outcome) for promise, text in judged if text]


def _sort_in(symptom: Symptom, setting: Setting, named: dict[str, Finding]) -> None:
    for reason in REASONS:
        if reason.fits(symptom):
            finding = named.setdefault(reason.name, Finding(reason.name, reason.text, reason.known))
            break
    else:
        promise = o.OBLIGATIONS[symptom.broken.obligation]
        finding = named.setdefault(promise.name, Finding(promise.name, f"broken: {promise.text}", promise.source))
    caller = symptom.caller
    finding.cells.append(
        Cell(setting, caller.name, symptom.state, symptom.broken, caller.c_file, caller.c_function, caller.line))
