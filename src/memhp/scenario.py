# SPDX-License-Identifier: GPL-2.0-only
"""
Scenarios: what is done to a machine, step by step, as data with a text form.

A `Scenario` names a machine and lists verbs; a *machine file* is the scenario that led to a machine's present state. The text
form is TOML::

    title = "a DIMM, one block movable"
    machine = "model:v4.9/x86_64?mem=1G"

    [[step]]
    do = "plug"
    id = "d1"
    size = "384M"

    [[step]]
    do = "online"
    block = "d1:1"
    to = "online_movable"
    expect = "EBUSY"

Every field of every verb is checked before anything is done: an unknown verb or field, a missing field, a wrong type or a size
that is none is one `UsageError` that says where and what would do.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from memhp.errors import ERRNO_NAMES, UsageError, did_you_mean
from memhp.hardware import parse_size
from memhp.units import MIB, format_size

LIMIT = MIB
"""Bytes of the largest scenario that is read."""
VERSION = 1
"""What `version` may say; a file without one is version 1."""

OUTCOMES = ("ok", "accepted", "refused", "pending", "oops", "hung")
"""What `expect` may say beside the name of an errno."""
ONLINE_TYPES = ("online", "online_kernel", "online_movable")
"""Words for `to`, as written to a block's `state`."""

PAGE_KINDS = (
    "movable", "anon", "file", "huge", "hugetlb", "hugetlb-free", "hugetlb-reserved", "unmovable", "slab", "reclaimable",
    "page-table", "cma", "reserved", "poisoned", "offline",
)
"""What a workload's pages may be."""

BlockRef = int | str
"""A memory block: the N of memoryN, or "d1:1" for the second block of device d1."""

_T = TypeVar("_T")
_BLOCK = re.compile(r"[^\s:]+:[0-9]{1,9}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_STEP_LINE = re.compile(r"^[ \t]*\[\[[ \t]*(step|device)[ \t]*\]\]", re.MULTILINE)
_KNOWN_ERRNOS = frozenset(ERRNO_NAMES.values())


def _value(kind: str, *choices: str, default: Any = dataclasses.MISSING) -> Any:
    """A field of a verb: its kind decides how it is read, checked and written."""
    return field(default=default, metadata={"kind": kind, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """A DIMM arrives: `size` bytes on `node`, at `addr` or where the platform puts it."""

    do: ClassVar[str] = "plug"
    kind: str = _value("choice", "dimm", default="dimm")
    id: str = _value("id")
    size: int = _value("some size")
    node: int = _value("node", default=0)
    addr: int | None = _value("address", default=None)
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplug:
    """Ask for a device back."""

    do: ClassVar[str] = "unplug"
    id: str = _value("id")
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """Write `to` to the state of a block."""

    do: ClassVar[str] = "online"
    block: BlockRef = _value("block")
    to: str = _value("choice", *ONLINE_TYPES, default="online")
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """Write "offline" to the state of a block; with `signal`, the writer gets a signal if it waits for what does not come."""

    do: ClassVar[str] = "offline"
    block: BlockRef = _value("block")
    signal: bool = _value("flag", default=False)
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Request another size of a virtio-mem device."""

    do: ClassVar[str] = "resize"
    id: str = _value("id")
    size: int = _value("size")
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Write `text` to the file `path`, an absolute path as on the machine."""

    do: ClassVar[str] = "write"
    path: str = _value("path")
    text: str = _value("text")
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """The in-kernel add_memory(): no DIMM, no probe. `node` None: where the kernel would put memory that comes without one."""

    do: ClassVar[str] = "add"
    start: int = _value("address")
    size: int = _value("size")
    node: int | None = _value("node", default=None)
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """The in-kernel remove_memory()."""

    do: ClassVar[str] = "remove"
    start: int = _value("address")
    size: int = _value("size")
    node: int | None = _value("node", default=None)
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alloc:
    """
    A workload named `id` takes `size` bytes of a kind, where the kernel hands them out or in one block.

    Kinds: memory of processes (`movable` or `anon`, `file`, `huge`, `hugetlb`); the kernel's own (`unmovable`, `slab`,
    `reclaimable`, `page-table`); and `hugetlb-free`, `hugetlb-reserved`, `cma`, `reserved`, `poisoned`, `offline`.
    """

    do: ClassVar[str] = "alloc"
    id: str = _value("id")
    size: int = _value("some size")
    kind: str = _value("choice", *PAGE_KINDS, default="movable")
    block: BlockRef | None = _value("block", default=None)
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """The workload `id` gives its pages back."""

    do: ClassVar[str] = "free"
    id: str = _value("id")
    expect: str = _value("expect", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The workload `id` holds on to its pages: they may no longer be moved."""

    do: ClassVar[str] = "pin"
    id: str = _value("id")
    expect: str = _value("expect", default="")


Step = Plug | Unplug | Online | Offline | Resize | Write | Add | Remove | Alloc | Free | Pin

VERBS: dict[str, type[Step]] = {
    verb.do: verb for verb in (Plug, Unplug, Online, Offline, Resize, Write, Add, Remove, Alloc, Free, Pin)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that is there at boot beside RAM: `max` is the address space a virtio-mem device occupies."""

    kind: str = _value("choice", "virtio-mem")
    id: str = _value("id")
    max: int = _value("some size")
    node: int = _value("node", default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    A machine and what is done to it.

    Attributes:
        title: One line for people.
        machine: Machine URL, or "" where the caller names one.
        devices: What is there at boot beside RAM.
        steps: The verbs, in order.
        version: 1 in a machine file; 0: not stated.
    """

    title: str = ""
    machine: str = ""
    devices: tuple[Device, ...] = ()
    steps: tuple[Step, ...] = ()
    version: int = 0


def load(path: str | os.PathLike[str], *, limit: int = LIMIT) -> Scenario:
    """
    Read a scenario from a file.

    Args:
        path: The file. A directory, text that is not UTF-8 and more than `limit` bytes are refused, the last before reading.
        limit: Bytes of the largest file that is read.

    Raises:
        UsageError: it cannot be read, or is no scenario; one line that names the file and the line or step.
    """
    return loads(read_text(path, limit=limit), name=os.fspath(path), limit=limit)


def read_text(path: str | os.PathLike[str], *, limit: int = LIMIT) -> str:
    """
    Return the text of a file of at most `limit` bytes.

    Raises:
        UsageError: no such file, a directory, too large, or not UTF-8.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > limit else file.read(limit + 1)
    except IsADirectoryError:
        raise UsageError(f"{name}: is a directory; a scenario is a TOML file") from None
    except OSError as err:
        raise UsageError(f"{name}: {(err.strerror or str(err)).lower()}") from None
    except ValueError as err:
        raise UsageError(f"{name!r}: {err}") from None
    if size > limit or len(data) > limit:
        raise UsageError(f"{name}: larger than {format_size(limit)}, which is the most that is read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise UsageError(f"{name}:{line}: not UTF-8 text (byte {data[err.start]:#04x})") from None


def loads(text: str, *, name: str = "scenario", limit: int = LIMIT) -> Scenario:
    """
    Read a scenario from text.

    Args:
        text: TOML.
        name: What to call it in messages.
        limit: Characters of the longest text that is read.

    Raises:
        UsageError: broken TOML, or no scenario.

    >>> loads('machine = "model:v4.9/x86_64"\\n[[step]]\\ndo = "online"\\nblock = 16\\n').steps
    (Online(block=16, to='online', expect=''),)
    """
    import tomllib

    if len(text) > limit:
        raise UsageError(f"{name}: larger than {format_size(limit)}, which is the most that is read")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise UsageError(f"{name}: broken TOML: {str(err).replace(chr(10), ' ')}") from None
    except RecursionError:
        raise UsageError(f"{name}: broken TOML: nested too deeply") from None
    except ValueError as err:
        raise UsageError(f"{name}: broken TOML: {str(err).splitlines()[0]}") from None
    return _scenario(data, name, text)


def _scenario(data: dict[str, Any], name: str, text: str) -> Scenario:
    known = ("title", "machine", "version", "device", "step")
    for key in data:
        if key not in known:
            raise UsageError(f"{name}: unknown key {_show(key)}{did_you_mean(key, known)}")
    for key in ("title", "machine"):
        if not isinstance(data.get(key, ""), str):
            raise UsageError(f"{name}: {key} = {_show(data[key])} is not a text")
    version = data.get("version", 0)
    if type(version) is not int or version not in (0, VERSION):
        raise UsageError(f"{name}: version = {_show(version)}: this memhp reads version {VERSION}")
    lines = _lines(text)
    devices: list[Device] = []
    for i, table in enumerate(_tables(data, "device", name)):
        where = f"{_at(name, lines, 'device', i, len(data['device']))}: device {i + 1}"
        device = _read(Device, table, where)
        if any(device.id == other.id for other in devices):
            raise UsageError(f"{where}: there is a device {device.id!r} already")
        devices.append(device)
    steps = []
    for i, table in enumerate(_tables(data, "step", name)):
        where = f"{_at(name, lines, 'step', i, len(data['step']))}: step {i + 1}"
        if "do" not in table:
            raise UsageError(f"{where}: says no verb: do = {' | '.join(VERBS)}")
        do = table["do"]
        if not isinstance(do, str) or do not in VERBS:
            raise UsageError(f"{where}: unknown verb {_show(do)}{did_you_mean(do, VERBS)}")
        steps.append(_read(VERBS[do], {key: value for key, value in table.items() if key != "do"}, f"{where} ({do})"))
    return Scenario(
        title=data.get("title", ""), machine=data.get("machine", ""), devices=tuple(devices), steps=tuple(steps), version=version)


def _lines(text: str) -> dict[str, list[int]]:
    """Return the numbers of the lines that open a table, by its name."""
    found: dict[str, list[int]] = {"step": [], "device": []}
    line, position = 1, 0
    for match in _STEP_LINE.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        found[match[1]].append(line)
    return found


def _at(name: str, lines: dict[str, list[int]], table: str, i: int, count: int) -> str:
    return f"{name}:{lines[table][i]}" if len(lines[table]) == count else name


def _tables(data: dict[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    tables = data.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{name}: {key} is written as [[{key}]] tables")
    return tables


def _read(cls: type[_T], table: dict[str, Any], where: str) -> _T:
    """Return the verb or device that a table spells."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise UsageError(f"{where}: unknown field {_show(key)}{did_you_mean(key, fields)}")
    missing = [f.name for f in fields.values() if f.default is dataclasses.MISSING and f.name not in table]
    if missing:
        raise UsageError(f"{where}: needs {' and '.join(missing)}")
    values = {key: _check(fields[key].metadata, value, f"{where}: {key}") for key, value in table.items()}
    return cls(**values)


def _check(meta: Any, value: Any, where: str) -> Any:
    """Return the value of one field as it is kept; `where` names it in messages."""
    kind = meta["kind"]
    if kind in ("size", "some size", "address"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise UsageError(f"{where} = {_show(value)}: not a size; write bytes, or a text such as \"384M\" or \"0x80000000\"")
        number = parse_size(value, where)
        if kind == "some size" and number == 0:
            raise UsageError(f"{where} = 0: nothing to do")
        return number
    if kind == "node":
        if type(value) is not int or not 0 <= value < 1024:
            raise UsageError(f"{where} = {_show(value)}: a node is a number from 0 to 1023")
        return value
    if kind == "block":
        if type(value) is int and 0 <= value < 1 << 40:
            return value
        if isinstance(value, str) and _BLOCK.fullmatch(value):
            return value
        hint = ": write the number without quotes" if isinstance(value, str) and value.isdigit() else ""
        raise UsageError(f'{where} = {_show(value)}: a block is a number such as 16, or "d1:1" for the second of device d1{hint}')
    if kind == "flag":
        if not isinstance(value, bool):
            raise UsageError(f"{where} = {_show(value)}: true or false")
        return value
    if not isinstance(value, str):
        raise UsageError(f"{where} = {_show(value)}: not a text")
    if "\0" in value:
        raise UsageError(f"{where} = {_show(value)}: holds a NUL byte")
    if kind == "choice" and value not in meta["choices"]:
        raise UsageError(f"{where} = {_show(value)}: {' | '.join(meta['choices'])}{did_you_mean(value, meta['choices'])}")
    if kind == "id" and not _ID.fullmatch(value):
        raise UsageError(f"{where} = {_show(value)}: a name has letters, digits, '.', '_' and '-', 64 at most")
    if kind == "path" and not value.startswith("/"):
        raise UsageError(f"{where} = {_show(value)}: paths are absolute, such as \"/sys/devices/system/memory/probe\"")
    if kind == "expect" and value not in _KNOWN_ERRNOS and value not in OUTCOMES:
        raise UsageError(
            f"{where} = {_show(value)}: the name of an errno such as \"EBUSY\", or one of {', '.join(OUTCOMES)}"
            f"{did_you_mean(value, (*_KNOWN_ERRNOS, *OUTCOMES))}")
    return value


def _show(value: object) -> str:
    """Return a value as a short line."""
    if isinstance(value, dict | list):
        return "{…}" if isinstance(value, dict) else "[…]"
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def parse_id(text: str, what: str = "id") -> str:
    """Return `text` if it may name a device. Raises UsageError."""
    return str(_check({"kind": "id"}, text, what))


def split_ref(block: str) -> tuple[str, int]:
    """
    Return device and number of "d1:1".

    >>> split_ref("d1:1")
    ('d1', 1)
    """
    device, _, number = block.rpartition(":")
    return device, int(number)


def dumps(scenario: Scenario) -> str:
    """
    Return a scenario as TOML; `loads()` gives it back.

    >>> print(dumps(Scenario(machine="model:v4.9/x86_64", steps=(Online(block=16, expect="EBUSY"),))), end="")
    machine = "model:v4.9/x86_64"
    <BLANKLINE>
    [[step]]
    do = "online"
    block = 16
    expect = "EBUSY"
    """
    lines: list[str] = []
    if scenario.version:
        lines.append(f"version = {scenario.version}")
    if scenario.title:
        lines.append(f"title = {_quote(scenario.title)}")
    if scenario.machine:
        lines.append(f"machine = {_quote(scenario.machine)}")
    for device in scenario.devices:
        lines += ["", "[[device]]", *_spell(device)]
    for step in scenario.steps:
        lines += ["", "[[step]]", f'do = "{step.do}"', *_spell(step)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _spell(item: Step | Device) -> Iterable[str]:
    """Return the lines of a table: what differs from its default."""
    for f in dataclasses.fields(item):
        value = getattr(item, f.name)
        if value is None or value == f.default:
            continue
        kind = f.metadata["kind"]
        if kind == "address":
            yield f'{f.name} = "{value:#x}"'
        elif kind in ("size", "some size"):
            yield f'{f.name} = "{format_size(value)}"' if value % 1024 == 0 and value else f"{f.name} = {value}"
        elif kind == "flag":
            yield f"{f.name} = {str(value).lower()}"
        else:
            yield f"{f.name} = {value if isinstance(value, int) else _quote(value)}"


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def _quote(text: str) -> str:
    """Return a TOML basic string."""
    parts = []
    for c in text:
        if c in _ESCAPES:
            parts.append(_ESCAPES[c])
        elif c < " " or c == "\x7f":
            parts.append(f"\\u{ord(c):04x}")
        elif "\ud800" <= c <= "\udfff":
            raise UsageError(f"{_show(ascii(text))} is no text: it cannot be written as UTF-8")
        else:
            parts.append(c)
    return f'"{"".join(parts)}"'


def describe(step: Step) -> str:
    """
    Return a verb with its arguments as one short line.

    >>> describe(Plug(id="d1", size=384 << 20)), describe(Write(path="/sys/devices/system/memory/probe", text="0x80000000"))
    ('plug dimm d1 384M', "write '0x80000000' to /sys/devices/system/memory/probe")
    """
    match step:
        case Plug():
            at = f" at {step.addr:#x}" if step.addr is not None else ""
            node = f" node {step.node}" if step.node else ""
            return f"plug {step.kind} {step.id} {format_size(step.size)}{node}{at}"
        case Unplug() | Free() | Pin():
            return f"{step.do} {step.id}"
        case Online():
            return f"{step.to} {step.block}"
        case Offline():
            return f"offline {step.block}{' with a signal' if step.signal else ''}"
        case Resize():
            return f"resize {step.id} {format_size(step.size)}"
        case Write():
            text = repr(step.text) if len(step.text) <= 40 else repr(step.text[:39] + "…")
            return f"write {text} to {step.path if step.path.isprintable() else repr(step.path)}"
        case Add() | Remove():
            node = f" node {step.node}" if step.node is not None else ""
            return f"{step.do} {format_size(step.size)} at {step.start:#x}{node}"
        case Alloc():
            where = f" in {step.block}" if step.block is not None else ""
            return f"alloc {step.id} {format_size(step.size)} {step.kind}{where}"
