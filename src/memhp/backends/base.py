# SPDX-License-Identifier: GPL-2.0-only
"""
What every machine offers, and how a URL names one.

A *backend* is the kernel's own files (`read`, `write`, `listdir`), the kernel's log, and the hands that plug and unplug devices.
`parse()` reads a machine URL, `open()` opens it; the module of a backend is imported when a URL asks for it.

URLs::

    model:TREE[+SERIES]/ARCH[?KEY=VALUE&…]     a model, freshly booted
    model:FILE.toml                            a machine file: booted, and everything done to it since, done again
    capture:DIR                                a recorded machine; it can only be looked at
    qemu:RELEASE/ARCH[?KEY=VALUE&…]            a real kernel, booted in QEMU
    qemu+unix:QMP.sock?qga=QGA.sock            a VM that somebody else started: its monitor, and its guest agent

Values are percent-encoded; "+" is a plus sign. Keys of `model:` are `mem`, `smp`, `cmdline`, `page`, `nodes`, `capture`, `map`,
`remedy`, `pfn_valid`; of `qemu:` `mem`, `smp`, `cmdline`, `page`, `nodes`, and `kernel`, `modules` for a kernel of one's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memhp.abi.files import MEMORY, Files
from memhp.abi.memory import read_block_size
from memhp.errors import KernelBugError, KernelError, KernelHangError, UsageError, did_you_mean
from memhp.hardware import parse_size
from memhp.scenario import (
    Add,
    Alloc,
    BlockRef,
    Device,
    Free,
    Offline,
    Online,
    Pin,
    Plug,
    Remove,
    Resize,
    Step,
    Unplug,
    Write,
    split_ref,
)
from memhp.units import GIB, KIB, format_size

DEFAULT_MEM = GIB
"""RAM of a model whose URL names no size."""


OST = {
    0x00: "success", 0x01: "failure", 0x02: "the notification is unknown",
    0x80: "ejecting is not supported", 0x81: "in use by a program", 0x82: "busy", 0x83: "something it depends on is busy",
    0x84: "ejecting is under way",
}  # fmt: skip
"""ACPI's _OST status codes: those of an insertion below 0x80, of an ejection from there on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluggedDevice:
    """
    A device that holds memory.

    Attributes:
        id: Its name.
        kind: "dimm" or "virtio-mem".
        start: First byte of the addresses it occupies.
        size: Bytes it occupies.
        node: NUMA node.
        requested: virtio-mem: bytes asked for.
        plugged: virtio-mem: bytes there are.
    """

    id: str
    kind: str
    start: int
    size: int
    node: int = 0
    requested: int | None = None
    plugged: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """
    What a machine is.

    Attributes:
        arch: "arm64" or "x86_64"; "" if it does not tell.
        origin: In words: what answers, and how it was made.
        files: More files of it that a capture keeps, by path: the kernel's configuration.
    """

    arch: str = ""
    origin: str = ""
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How a request to plug, unplug or resize ended.

    Attributes:
        word: "accepted", "refused" (by the monitor or the guest) or "pending".
        log: What the monitor said; the guest's words are in its own log.
        error: What the guest's kernel said, where it was its kernel that refused and the machine knows.
    """

    word: str
    log: tuple[str, ...] = ()
    error: KernelError | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What came of one step.

    Attributes:
        log: Lines the kernel printed meanwhile; for plug, unplug and resize also what the monitor said.
        error: The kernel's refusal.
        outcome: For plug, unplug and resize: "accepted", "refused" or "pending".
        oops: How the writer died.
        hung: What the writer waits for, for ever.
    """

    log: tuple[str, ...] = ()
    error: KernelError | None = None
    outcome: str = ""
    oops: str = ""
    hung: str = ""

    @property
    def errno(self) -> str | None:
        """The name of the errno, or None. The refusal of a plug has an outcome and no errno."""
        return self.error.name if self.error is not None and not self.outcome else None

    @property
    def word(self) -> str:
        """One word: an errno's name, "oops", "hung", the outcome, or "ok"."""
        if self.oops or self.hung:
            return "oops" if self.oops else "hung"
        return self.errno or self.outcome or "ok"

    @property
    def refused(self) -> bool:
        """True unless it was done, or is under way."""
        return self.word not in ("ok", "accepted", "pending")

    def meets(self, expect: str) -> bool:
        """Whether this is the answer a step's `expect` names; "ok" is also an accepted request."""
        return self.word == expect or (expect == "ok" and self.word == "accepted")


class Backend(Files, Protocol):
    """
    One machine: its files, its log, its hands. What a machine cannot do keeps the refusal written here.

    Attributes:
        url: What was opened.
        verbs: The scenario verbs it can do.
    """

    url: str
    verbs: frozenset[str]

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return the bytes of a file from `offset`, at most `size` of them. Raises KernelError."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Return the names in a folder. Raises KernelError."""
        ...

    def write(self, path: str, text: str) -> None:
        """
        Write `text` as one write() and return when the machine is quiet.

        Raises:
            KernelError: the kernel refused.
            KernelBugError: the writer died; KernelHangError: it waits for ever.
        """
        raise self.unable("write")

    def log(self, start: int = 0) -> list[str]:
        """Return the kernel's log from line `start`, without times; line 0 is the first since boot, or since it is watched."""
        return []

    def log_length(self) -> int:
        """Return how many lines the log has."""
        return len(self.log())

    def plug(self, *, id: str, size: int, kind: str = "dimm", node: int = 0, addr: int | None = None) -> Outcome:
        """Plug a device. What the platform itself cannot do is an outcome too, "refused"."""
        raise self.unable("plug")

    def unplug(self, id: str) -> Outcome:
        """Ask for a device back."""
        raise self.unable("unplug")

    def resize(self, id: str, size: int) -> Outcome:
        """Request `size` bytes of a virtio-mem device."""
        raise self.unable("resize")

    def add(self, start: int, size: int, node: int | None = None) -> None:
        """Call the kernel's own add_memory(). Raises as `write` does."""
        raise self.unable("add")

    def remove(self, start: int, size: int, node: int | None = None) -> None:
        """Call the kernel's own remove_memory(). Raises as `write` does."""
        raise self.unable("remove")

    def write_with_signal(self, path: str, text: str) -> None:
        """As `write`, but the writer gets a signal if it waits for what does not come. Raises as `write` does."""
        raise self.unable("send a signal to the writer")

    def alloc(self, id: str, size: int, kind: str, block: int | None = None) -> None:
        """
        Let a workload take pages: all of them, or none.

        Raises:
            KernelError: ENOMEM.
            UsageError: this machine does not have such pages, or not there.
        """
        raise self.unable("alloc")

    def free(self, id: str) -> None:
        """Let a workload give its pages back."""
        raise self.unable("free")

    def pin(self, id: str) -> None:
        """Let a workload hold on to its pages. Raises as `alloc` does."""
        raise self.unable("pin")

    def devices(self) -> list[PluggedDevice]:
        """Return the devices that hold memory, in the order of their addresses."""
        return []

    def about(self) -> About:
        """Return what the machine is, beside what its files say."""
        return About(origin=self.url)

    def unseen(self) -> dict[str, str]:
        """Return what this machine does not show though others do, a path or "the kernel's log", and why, in words."""
        return {}

    def traced(self, functions: Sequence[str]) -> contextlib.AbstractContextManager[list[str]]:
        """
        Inside it, what these functions of the kernel call is traced; afterwards the list holds it, a function_graph text a task.

        Functions that this kernel does not have are left out.
        """
        raise self.unable("trace calls")

    def window(self) -> int:
        """Return the first address of the hot-plug window; 0 if nobody knows."""
        return 0

    def address_limit(self) -> int:
        """Return one past the last address memory may have, as far as it is known."""
        return 1 << 64

    def batch(self) -> contextlib.AbstractContextManager[None]:
        """Inside it, what is done may be noted down together at its end; nothing that was done is lost by an exception."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """End it. May be called twice."""
        return None

    def unable(self, verb: str) -> UsageError:
        """Return the error for a verb this machine cannot do."""
        can = f"it can {', '.join(sorted(self.verbs))}" if self.verbs else "it can only be looked at"
        return UsageError(f"{self.url} cannot {verb}: {can}")


# Doing a step


def apply(backend: Backend, step: Step) -> Answer:
    """
    Do one step and return what came of it: an answer of the kernel is never an exception here.

    Raises:
        UsageError: the machine cannot do this verb.
        BackendError: the machine did not answer.
    """
    if step.do not in backend.verbs:
        raise backend.unable(step.do)
    mark = backend.log_length()
    outcome = Outcome("")
    error: KernelError | None = None
    oops = hung = ""
    try:
        match step:
            case Plug():
                outcome = backend.plug(id=step.id, size=step.size, kind=step.kind, node=step.node, addr=step.addr)
            case Unplug():
                outcome = backend.unplug(step.id)
            case Resize():
                outcome = backend.resize(step.id, step.size)
            case Online():
                backend.write(f"{MEMORY}/memory{resolve(backend, step.block)}/state", step.to)
            case Offline():
                write = backend.write_with_signal if step.signal else backend.write
                write(f"{MEMORY}/memory{resolve(backend, step.block)}/state", "offline")
            case Write():
                backend.write(step.path, step.text)
            case Add():
                backend.add(step.start, step.size, step.node)
            case Remove():
                backend.remove(step.start, step.size, step.node)
            case Alloc():
                where = None if step.block is None else resolve(backend, step.block)
                backend.alloc(step.id, step.size, step.kind, where)
            case Free():
                backend.free(step.id)
            case Pin():
                backend.pin(step.id)
            case _:
                raise backend.unable(step.do)
    except KernelError as err:
        error = err
    except KernelHangError as err:
        hung = str(err)
    except KernelBugError as err:
        oops = str(err)
    return Answer((*outcome.log, *backend.log(mark)), error or outcome.error, outcome.word, oops, hung)


def resolve(backend: Backend, block: BlockRef) -> int:
    """
    Return the N of memoryN for a block number or "d1:1".

    Raises:
        KernelError: ENOENT if no such device is plugged, or it has no such block.
    """
    if isinstance(block, int):
        return block
    device_id, index = split_ref(block)
    block_size = read_block_size(backend)
    for device in backend.devices():
        if device.id == device_id:
            if index * block_size < device.size:
                return device.start // block_size + index
            last = -(-device.size // block_size) - 1
            raise KernelError(errno.ENOENT, f"{device_id}:{last} is the last block of {device_id}", where="")
    raise KernelError(errno.ENOENT, f"no device {device_id} is plugged", where="")


# URLs


@dataclass(frozen=True, slots=True, kw_only=True)
class BootURL:
    """
    What every machine that is booted may be told.

    Attributes:
        arch: "arm64" or "x86_64".
        mem: Bytes of RAM, or None: the sum of `nodes`, or 1 GiB.
        smp: CPUs.
        cmdline: The kernel's command line, or what is added to it.
        page: Bytes of a page.
        nodes: Bytes by node.
    """

    arch: str
    mem: int | None = None
    smp: int = 1
    cmdline: str = ""
    page: int = 4 * KIB
    nodes: tuple[int, ...] = ()

    @property
    def ram(self) -> int:
        """Bytes of RAM."""
        return self.mem if self.mem is not None else sum(self.nodes) or DEFAULT_MEM

    def size_keys(self, cpus: int) -> dict[str, str]:
        """Return these keys of the URL as texts, "" where they say no more than the default; `cpus` is that of `smp`."""
        return {
            "mem": format_size(self.mem) if self.mem is not None else "",
            "smp": str(self.smp) if self.smp != cpus else "",
            "cmdline": self.cmdline,
            "page": format_size(self.page) if self.page != 4 * KIB else "",
            "nodes": ",".join(format_size(size) if size else "0" for size in self.nodes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelURL(BootURL):
    """
    `model:TREE/ARCH?…`: what to boot.

    Attributes:
        tree: "v4.9+arm64-rfc-2016".
        capture: Folder of a recorded machine whose twin is booted.
        map: File of a memory map.
        remedy: Name of a remedy of the series.
        pfn_valid: Name of a definition of pfn_valid().
    """

    tree: str
    capture: str = ""
    map: str = ""
    remedy: str = ""
    pfn_valid: str = ""

    def __str__(self) -> str:
        text = "&".join(f"{key}={quote(value)}" for key, value in query(self).items())
        return f"model:{quote(self.tree)}/{self.arch}{'?' if text else ''}{text}"


def query(url: ModelURL) -> dict[str, str]:
    """Return the keys of a URL that say more than the default, as texts."""
    keys = {
        **url.size_keys(1),
        "capture": url.capture,
        "map": url.map,
        "remedy": url.remedy,
        "pfn_valid": url.pfn_valid,
    }
    return {key: value for key, value in keys.items() if value}


def absolute(url: ModelURL, folder: str) -> ModelURL:
    """Return a URL whose `map` and `capture` do not depend on where it is opened: below `folder` where they were relative."""
    return dataclasses.replace(
        url,
        map=os.path.join(folder, url.map) if url.map else "",
        capture=os.path.join(folder, url.capture) if url.capture else "",
    )


@dataclass(frozen=True, slots=True)
class MachineFileURL:
    """`model:FILE.toml`."""

    path: str

    def __str__(self) -> str:
        return f"model:{self.path}"


@dataclass(frozen=True, slots=True)
class CaptureURL:
    """`capture:DIR`."""

    path: str

    def __str__(self) -> str:
        return f"capture:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuURL(BootURL):
    """
    `qemu:RELEASE/ARCH?…`: a real kernel to boot.

    Attributes:
        release: "v6.12", or "newest".
        smp: CPUs; two unless the URL says more.
        kernel: File of a kernel of one's own, or "".
        modules: Folder of its modules, or "".
    """

    release: str
    smp: int = 2
    kernel: str = ""
    modules: str = ""

    def __str__(self) -> str:
        keys = {
            **self.size_keys(2),
            "kernel": self.kernel,
            "modules": self.modules,
        }
        text = "&".join(f"{key}={quote(value)}" for key, value in keys.items() if value)
        return f"qemu:{quote(self.release)}/{self.arch}{'?' if text else ''}{text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixURL:
    """
    `qemu+unix:QMP.sock?qga=QGA.sock`.

    Attributes:
        monitor: Socket of the VM's QMP monitor.
        agent: Socket of its guest agent.
    """

    monitor: str
    agent: str

    def __str__(self) -> str:
        return f"qemu+unix:{quote(self.monitor)}?qga={quote(self.agent)}"


MachineURL = ModelURL | MachineFileURL | CaptureURL | QemuURL | UnixURL

QEMU_KEYS = ("mem", "smp", "cmdline", "page", "nodes", "kernel", "modules")
MODEL_KEYS = ("mem", "smp", "cmdline", "page", "nodes", "capture", "map", "remedy", "pfn_valid")
ARCHES = ("arm64", "x86_64")
_OTHER_NAMES = {"aarch64": "arm64", "amd64": "x86_64", "x86-64": "x86_64", "x86": "x86_64"}
_PAGES = {"4K": 4 * KIB, "16K": 16 * KIB, "64K": 64 * KIB}
_SCHEMES = ("model", "capture", "qemu", "qemu+unix")
_SCHEMES_TO_COME = ("libvirt", "ssh", "host")
_EXAMPLE = "model:v4.9/x86_64?mem=1G"
_MAX_URL = 16 * KIB
_SAFE = re.compile(r"[A-Za-z0-9._~,/:+@-]")


def quote(text: str) -> str:
    """
    Return `text` percent-encoded, as a value in a machine URL.

    >>> quote("memhp_default_state=online quiet")
    'memhp_default_state%3Donline%20quiet'
    """
    return "".join(c if _SAFE.match(c) else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)


def unquote(text: str, what: str) -> str:
    """
    Return `text` with its percent escapes decoded; "+" stays a plus sign.

    Raises:
        UsageError: an escape that is none, or bytes that are not UTF-8.
    """
    if "%" not in text:
        return text
    bad = re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", text)
    if bad:
        raise UsageError(f"{what}: {bad[0]!r} is no percent escape; write a percent sign as %25")
    data = re.sub(rb"%(..)", lambda match: bytes.fromhex(match[1].decode()), text.encode())
    try:
        decoded = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{what}: {text[:60]!r} does not decode to UTF-8") from None
    if "\0" in decoded:
        raise UsageError(f"{what}: holds a NUL byte")
    return decoded


def parse(url: str) -> MachineURL:
    """
    Read a machine URL. Whether a file or tree of that name exists is found out by `open()`.

    Raises:
        UsageError: not a URL of a machine; names the part that is wrong and the nearest that would do.

    >>> parse("model:v4.9+arm64-rfc-2016/arm64?mem=1G&remedy=nohack").remedy
    'nohack'
    """
    if not url.isprintable() or len(url) > _MAX_URL:
        raise UsageError(f"machine URL {url[:40]!r}…: longer than {format_size(_MAX_URL)}, or not printable")
    scheme, colon, rest = url.partition(":")
    if not colon:
        hint = f": did you mean model:{url}?" if url.endswith(".toml") or url.startswith("v") else f", such as {_EXAMPLE}"
        raise UsageError(f"{url!r} is no machine URL{hint}")
    if scheme in _SCHEMES_TO_COME:
        raise UsageError(f"{scheme}: machines cannot be opened yet; model:, capture: and qemu: can, such as {_EXAMPLE}")
    if scheme not in _SCHEMES:
        raise UsageError(f"machine URL {url!r}: unknown scheme {scheme!r}{did_you_mean(scheme, _SCHEMES)}")
    if not rest:
        raise UsageError(f"machine URL {url!r}: nothing follows the colon; such as {_EXAMPLE}")
    if scheme == "capture":
        return CaptureURL(rest)
    if scheme == "qemu":
        return _parse_qemu(url, rest)
    if scheme == "qemu+unix":
        what = f"machine URL {url!r}"
        place, _, keys = rest.partition("?")
        given = _given(keys, ("qga",), what)
        if not place or "qga" not in given:
            raise UsageError(f"{what}: both sockets are needed, such as qemu+unix:{place or 'qmp.sock'}?qga=qga.sock")
        return UnixURL(monitor=unquote(place, what), agent=given["qga"])
    if rest.endswith(".toml"):
        return MachineFileURL(rest)
    return _parse_model(url, rest)


def _parse_model(url: str, rest: str) -> ModelURL:
    what = f"machine URL {url!r}"
    place, _, keys = rest.partition("?")
    tree, slash, arch = place.rpartition("/")
    if not slash:
        raise UsageError(f"{what}: TREE/ARCH is needed, such as model:{place or 'v4.9'}/x86_64; a machine file ends in .toml")
    tree, arch = unquote(tree, what), unquote(arch, what)
    check_arch(arch, what)
    check_tree(tree, what)
    return model_url(tree, arch, _given(keys, MODEL_KEYS, what), what)


def _parse_qemu(url: str, rest: str) -> QemuURL:
    what = f"machine URL {url!r}"
    place, _, keys = rest.partition("?")
    release, slash, arch = place.rpartition("/")
    if not slash:
        raise UsageError(f"{what}: RELEASE/ARCH is needed, such as qemu:{place or 'v6.12'}/arm64")
    release, arch = unquote(release, what), unquote(arch, what)
    check_arch(arch, what)
    return qemu_url(release, arch, _given(keys, QEMU_KEYS, what), what)


def check_arch(arch: str, what: str) -> None:
    """Raise UsageError unless it is a known architecture, by its name here."""
    if arch not in ARCHES:
        near = f"; did you mean {_OTHER_NAMES[arch]}?" if arch in _OTHER_NAMES else did_you_mean(arch, ARCHES)
        raise UsageError(f"{what}: unknown architecture {arch!r}{near}")


def _given(query: str, known: tuple[str, ...], what: str) -> dict[str, str]:
    """Return the decoded values of a URL's keys."""
    given: dict[str, str] = {}
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if key not in known:
            raise UsageError(f"{what}: unknown key {key!r}{did_you_mean(key, known)}")
        if key in given:
            raise UsageError(f"{what}: {key} is given twice")
        if not equals or not value:
            raise UsageError(f"{what}: {key} needs a value")
        given[key] = unquote(value, f"{what}: {key}")
    return given


def qemu_url(release: str, arch: str, given: dict[str, str], what: str) -> QemuURL:
    """
    Return the `QemuURL` of texts as they stand in a URL or on a command line; see `model_url()`.

    Raises:
        UsageError: a value that does not do.
    """
    if re.fullmatch(r"v[0-9]{1,3}\.[0-9]{1,3}|newest", release) is None:
        near = f"; did you mean v{release}?" if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", release) else ""
        raise UsageError(f"{what}: kernel release {release[:40]!r} is neither like v6.12 nor newest{near}")
    if "modules" in given and "kernel" not in given:
        raise UsageError(f"{what}: modules belong to a kernel of one's own; kernel=IMAGE is missing")
    page, smp, nodes = _shape(given, what, cpus=2)
    return QemuURL(
        release=release,
        arch=arch,
        mem=parse_size(given["mem"], f"{what}: mem") if "mem" in given else None,
        smp=smp,
        cmdline=given.get("cmdline", ""),
        page=page,
        nodes=nodes,
        kernel=given.get("kernel", ""),
        modules=given.get("modules", ""),
    )


def _shape(given: dict[str, str], what: str, cpus: int) -> tuple[int, int, tuple[int, ...]]:
    """Return the bytes of a page, the number of CPUs and the sizes of the nodes."""
    page = given.get("page", "4K").upper()
    if page not in _PAGES:
        raise UsageError(f"{what}: page {given['page']!r} is not a page size{did_you_mean(page, _PAGES)}")
    smp = given.get("smp", str(cpus))
    if not (smp.isascii() and smp.isdigit() and 1 <= int(smp[:9]) <= 4096):
        raise UsageError(f"{what}: smp {smp[:20]!r} is not a number of CPUs from 1 to 4096")
    nodes = tuple(parse_size(size, f"{what}: nodes") for size in given["nodes"].split(",")) if "nodes" in given else ()
    return _PAGES[page], int(smp), nodes


def model_url(tree: str, arch: str, given: dict[str, str], what: str) -> ModelURL:
    """
    Return the `ModelURL` of texts as they stand in a URL or on a command line.

    Args:
        tree: Name of a tree.
        arch: Name of an architecture.
        given: Values by key, decoded.
        what: What to call it in messages.

    Raises:
        UsageError: a value that does not do.
    """
    for key in ("capture", "map"):
        if key in given:
            clash = [other for other in ("mem", "nodes", "map") if other in given and other != key]
            if clash:
                raise UsageError(f"{what}: {key} says what memory there is; {' and '.join(clash)} cannot")
    page, smp, nodes = _shape(given, what, cpus=1)
    if "pfn_valid" in given:
        check_name("definition of pfn_valid()", given["pfn_valid"], pfn_valid_names(), what)
    if "remedy" in given:
        names = remedy_names(tree)
        if not names:
            raise UsageError(f"{what}: remedy {given['remedy']!r}: {tree} has no series with remedies; v4.9+arm64-rfc-2016 has")
        check_name("remedy", given["remedy"], names, what)
    return ModelURL(
        tree=tree,
        arch=arch,
        mem=parse_size(given["mem"], f"{what}: mem") if "mem" in given else None,
        smp=smp,
        cmdline=given.get("cmdline", ""),
        page=page,
        nodes=nodes,
        capture=given.get("capture", ""),
        map=given.get("map", ""),
        remedy=given.get("remedy", ""),
        pfn_valid=given.get("pfn_valid", ""),
    )


def check_name(kind: str, name: str, known: Iterable[str], what: str) -> None:
    """Raise UsageError unless `name` is known; `kind` says what it would be a name of."""
    names = list(known)
    if name not in names:
        raise UsageError(f"{what}: unknown {kind} {name[:60]!r}{did_you_mean(name, names)}")


def check_tree(name: str, what: str) -> None:
    """
    Check that there is a tree of that name.

    Raises:
        UsageError: there is none.
    """
    from memhp.linux.tree import TREES

    if name not in TREES:
        release, plus, series = name.partition("+")
        if plus and release in TREES and (known := sorted({s for tree in TREES.values() for s in tree.series})):
            if series in known:
                on = [tree.release for tree in TREES.values() if series in tree.series]
                raise UsageError(f"{what}: series {series!r} is written on {', '.join(on)}, not on {release}")
            raise UsageError(f"{what}: unknown series {series[:60]!r}{did_you_mean(series, known)}")
        raise UsageError(f"{what}: unknown tree {name[:60]!r}{did_you_mean(name, TREES)}")


def remedy_names(tree: str) -> tuple[str, ...]:
    """Return the names of the remedies that a tree's series offer."""
    return tuple(remedies(tree))


def remedies(tree: str) -> dict[str, str]:
    """Return the remedies that a tree's series offer: name -> what each does, in one line."""
    from memhp.linux.tree import TREES

    found: dict[str, str] = {}
    for series in TREES[tree].series:
        module = importlib.import_module(f"memhp.linux.series.{series.replace('-', '_')}")
        found.update({remedy.name: remedy.summary for remedy in module.REMEDIES.values()})
    return found


def pfn_valid_names() -> tuple[str, ...]:
    """Return the names of the definitions of pfn_valid()."""
    from memhp.linux.arch.arm64.mm import init
    from memhp.linux.include import mmzone

    return (*mmzone.DEFINITIONS, *init.DEFINITIONS)


def open(url: str, devices: Sequence[Device] = ()) -> Backend:
    """
    Open the machine a URL names.

    Args:
        url: A machine URL.
        devices: What is there at boot beside RAM, where the machine is booted by this.

    Raises:
        UsageError: the URL, or a file it names, is wrong.
        ConfigError: such a kernel cannot be booted.
        BackendError: the machine cannot be reached.
    """
    parsed = parse(url)
    if isinstance(parsed, QemuURL):
        from memhp.backends.qemu import backend as qemu

        return qemu.open(parsed, devices)
    if isinstance(parsed, UnixURL):
        from memhp.backends.qemu import unix

        return unix.open(parsed)
    if isinstance(parsed, CaptureURL):
        from memhp.backends import capture

        return capture.open(parsed)
    from memhp.backends import model

    return model.open(parsed, devices)
