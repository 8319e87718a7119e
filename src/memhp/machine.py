# SPDX-License-Identifier: GPL-2.0-only
"""
A machine and its verbs, as a person uses them: `connect()` and `Machine`.

>>> with connect("model:v4.9/x86_64?mem=1G") as machine:
...     for block in machine.add("256M"):
...         print(machine.online(block).block)
32
33
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from memhp.abi import files as abi
from memhp.abi.files import MEMORY
from memhp.abi.iomem import read_iomem
from memhp.abi.memblock import read_memblock
from memhp.abi.memory import BlockSnapshot, MemorySnapshot, read_block, read_block_size, read_memory
from memhp.abi.zoneinfo import read_zoneinfo
from memhp.backends import base
from memhp.backends.base import Answer, Backend, PluggedDevice
from memhp.errors import KernelBugError, KernelError, KernelHangError, UsageError, did_you_mean
from memhp.hardware import parse_size
from memhp.scenario import ONLINE_TYPES, Add, BlockRef, Device, Offline, Online, Plug, Scenario, Step, Write, parse_id
from memhp.units import format_size

if TYPE_CHECKING:
    from memhp.abi.capture import Manifest

PROBE = f"{MEMORY}/probe"
ZONES = {"online": "online", "kernel": "online_kernel", "movable": "online_movable", **{word: word for word in ONLINE_TYPES}}
"""What `zone` may be, and the word that is written for it."""

_DUMP = re.compile(r"page: ?[^d]|flags: |page_type: |raw: |head: |Fallback order|Built \d+ zonelists|Policy zone")
"""Lines of a kernel's log that say nothing of why: dumps of a struct page, zonelists built anew."""
_MEMORY_DIR = re.compile(re.escape(MEMORY) + r"/memory([0-9]{1,12})/[^/]+")
_BLOCK_NAME = re.compile(r"memory([0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class StepResult:
    """
    One step, and what came of it.

    Attributes:
        number: 1 for the first step.
        step: The verb.
        answer: The machine's answer.
        changed: What changed, in words; empty if nobody asked.
        unheld: What of a model was passed through that no comparison with a real kernel holds: "mm/sparse.c sparse_init()".
    """

    number: int
    step: Step
    answer: Answer
    changed: tuple[str, ...] = ()
    unheld: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """False if the step said what to expect and the answer is another."""
        return not self.step.expect or self.answer.meets(self.step.expect)

    @property
    def refused(self) -> bool:
        """True if it was refused, or the writer died, and nobody expected that."""
        return self.answer.refused and not self.step.expect

    @property
    def reason(self) -> str:
        """Why it was refused, in words, with the C function that said so; "" if it was not, or nobody knows."""
        answer = self.answer
        if answer.oops or answer.hung:
            return answer.oops or answer.hung
        if answer.error is not None:
            return explain_error(answer.error)
        if answer.word != "refused":
            return ""
        return "; ".join(dict.fromkeys(line for line in answer.log if not _DUMP.match(line)))

    def json(self) -> dict[str, Any]:
        """Return the object that `memhp run --json` prints."""
        answer = self.answer
        line: dict[str, Any] = {"step": self.number, "do": self.step.do, "errno": answer.errno}
        for key, value in (("outcome", answer.outcome), ("oops", answer.oops), ("hung", answer.hung)):
            if value:
                line[key] = value
        line["log"] = list(answer.log)
        if self.unheld:
            line["unheld"] = list(self.unheld)
        return line

    def check(self) -> StepResult:
        """
        Return itself if it was done.

        Raises:
            KernelError: the kernel refused.
            KernelBugError: the writer died; KernelHangError: it waits for ever.
            UsageError: the platform refused.
        """
        answer = self.answer
        if answer.hung:
            raise KernelHangError(answer.hung, answer.log)
        if answer.oops:
            raise KernelBugError(answer.oops, answer.log)
        if answer.error is not None:
            raise answer.error
        if answer.refused:
            raise UsageError(f"cannot {self.step.do}: {'; '.join(answer.log) or answer.word}")
        return self


def explain_error(error: KernelError) -> str:
    """
    Return why the kernel refused, which facts decided it, and the C function that said so.

    >>> explain_error(KernelError(17, "a section has a memmap already", where="__add_section", source="mm/x.c", pfn=0x80000))
    'a section has a memmap already (pfn 0x80000) [__add_section(), mm/x.c]'
    """
    shown = {name: _fact(name, value) for name, value in error.facts.items()}
    facts = ", ".join(f"{name} {text}" for name, text in shown.items() if not _says(error.reason, text))
    place = ", ".join(part for part in (f"{error.where}()" if error.where else "", c_file(error.source)) if part)
    return f"{error.reason or error.strerror}{f' ({facts})' if facts else ''}{f' [{place}]' if place else ''}"


def _says(reason: str, text: str) -> bool:
    """Whether a reason names this very number or word."""
    return re.search(rf"(?<![0-9a-fA-Fx]){re.escape(text)}(?![0-9a-fA-F])", reason) is not None


def _fact(name: str, value: object) -> str:
    hexadecimal = isinstance(value, int) and not isinstance(value, bool) and ("pfn" in name or name in _ADDRESSES)
    return f"{value:#x}" if hexadecimal else str(value)


_ADDRESSES = frozenset(("start", "end", "size", "length", "address", "addr", "base"))
_C_NAMES = {"mm/sparse_vmemmap": "mm/sparse-vmemmap"}


def c_file(source: str) -> str:
    """
    Return the C file that a Python file of `linux/` mirrors; anything else as it is.

    >>> c_file("/x/memhp/linux/mm/sparse_vmemmap.py"), c_file("/x/memhp/linux/include/mmzone.py")
    ('mm/sparse-vmemmap.c', 'include/linux/mmzone.h')
    """
    room = source.rpartition("/linux/")[2].removesuffix(".py")
    if not source.endswith(".py"):
        return source
    if room.startswith("include/"):
        return f"include/linux/{room.removeprefix('include/')}.h"
    if room.startswith("series/"):
        return f"the series {room.removeprefix('series/').replace('_', '-')}"
    return f"{_C_NAMES.get(room, room)}.c"


def connect(url: str, devices: Sequence[Device] = ()) -> Machine:
    """
    Open a machine.

    Args:
        url: `model:TREE/ARCH?KEY=VALUE&…`, `model:FILE.toml` (a machine file: what is done is appended to it), `capture:DIR`,
            `qemu:RELEASE/ARCH?KEY=VALUE&…` (a real kernel; it ends with the machine, and with the thread that opened it).
        devices: What is there at boot beside RAM, where the machine is booted by this.

    Returns:
        The machine; a context manager that closes it.

    Raises:
        UsageError: the URL, or a file it names, is wrong; says the nearest that would do.
        ConfigError: such a kernel cannot be booted.
        BackendError: the machine cannot be reached.

    >>> with connect("model:v4.9+arm64-rfc-2016/arm64?mem=1G") as machine:
    ...     machine.block_size >> 20
    1024
    """
    return Machine(base.open(url, devices))


class Watcher(Protocol):
    """Looks on while a machine works."""

    def take(self) -> tuple[str, ...]:
        """Return what was passed through since the last time that no comparison with a real kernel holds."""
        ...

    def close(self) -> None:
        """Look no more."""
        ...


class Machine:
    """
    One machine: what it shows, and the verbs.

    Attributes:
        backend: What answers; its files are those that Linux shows.
        url: Its URL.
        block_size: Bytes of a memory block.
    """

    def __init__(self, backend: Backend, watcher: Watcher | None = None) -> None:
        self.backend = backend
        self.url = backend.url
        self._watcher = watcher
        self._unheld: dict[str, None] = {}
        try:
            self.block_size = read_block_size(backend)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it; a machine file is complete from here on."""
        if self._watcher is not None:
            self._watcher.close()
        self.backend.close()

    # Looking

    def memory(self) -> MemorySnapshot:
        """Return all memory blocks, with the block size and the policy for new ones."""
        return read_memory(self.backend)

    def blocks(self) -> tuple[BlockSnapshot, ...]:
        """
        Return all memory blocks in order of their number.

        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     [block.state for block in machine.blocks()] == ["online"] * 8
        True
        """
        return self.memory().blocks

    def block(self, block: BlockRef | BlockSnapshot) -> BlockSnapshot:
        """
        Return one memory block as the kernel shows it now.

        Args:
            block: The N of memoryN, "d1:1" for the second block of device d1, or a block as it was.

        Raises:
            UsageError: no such block; names those there are.
        """
        number = self._number(block)
        found = read_block(self.backend, number)
        if found is None:
            raise UsageError(f"no memory block {number}; there are {number_ranges(self._numbers())}")
        return found

    def read(self, path: str) -> str:
        """
        Return the text of a file of the machine.

        Args:
            path: Absolute, as on the machine.

        Raises:
            KernelError: ENOENT and the like.

        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     machine.read("/sys/devices/system/memory/memory3/state")
        'online\\n'
        """
        return abi.read_text(self.backend, path)

    def read_bytes(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return bytes of a file, such as /proc/kpageflags: `size` of them from `offset`; -1 is all there is."""
        return self.backend.read(path, offset, size)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a folder of the machine, sorted. Raises KernelError."""
        return sorted(self.backend.listdir(path))

    def log(self) -> list[str]:
        """Return the kernel's log, without times."""
        return self.backend.log()

    def devices(self) -> list[PluggedDevice]:
        """Return the devices that hold memory, in order of their addresses."""
        return self.backend.devices()

    def state(self) -> dict[str, Any]:
        """
        Return the machine's state as plain data, read from its files.

        `blocks`, `memblock`, `zones` and `iomem` are lists of objects; see "memhp run --json". Zones are those that
        /proc/zoneinfo shows with pages; memblock is empty where the kernel keeps none, and its `flags` are None where the
        kernel does not print them; `end` of an iomem line is inclusive.

        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     sorted(machine.state())
        ['blocks', 'iomem', 'memblock', 'zones']
        """
        return {
            "blocks": [
                {
                    "block": int(block.block),
                    "state": block.state,
                    "valid_zones": None if block.valid_zones is None else " ".join(block.valid_zones) or "none",
                    "removable": None if block.removable is None else int(block.removable),
                    "phys_index": None if block.phys_index is None else f"{block.phys_index:08x}",
                    "node": block.node,
                }
                for block in read_memory(self.backend, ("state", "valid_zones", "removable", "phys_index")).blocks
            ],
            "memblock": [
                {"base": region.base, "size": region.size, "flags": None if region.flags is None else list(region.flags)}
                for region in read_memblock(self.backend) or ()
            ],
            "zones": [
                {
                    "node": int(zone.node),
                    "zone": zone.zone,
                    "start_pfn": zone.start_pfn,
                    "spanned": zone.spanned,
                    "present": zone.present,
                    "managed": zone.managed,
                }
                for zone in read_zoneinfo(self.backend)
                if zone.spanned or zone.present
            ],
            "iomem": [
                {"start": region.start, "end": region.end, "name": region.name}
                for region in read_iomem(self.backend).system_ram()
            ],
        }

    def unheld(self) -> tuple[str, ...]:
        """
        Return what was passed through since it was opened that no comparison with a real kernel holds, booting included.

        Each is a C file and function, "mm/sparse.c sparse_init()". A real kernel has none of it, and a model only where somebody
        looks on (`checker.ledger.connect()`).
        """
        self._passed()
        return tuple(self._unheld)

    def _passed(self) -> tuple[str, ...]:
        """Return what was passed through since the last time."""
        passed = self._watcher.take() if self._watcher is not None else ()
        self._unheld.update(dict.fromkeys(passed))
        return passed

    def capture(self, directory: str, *, pages: bool = True, progress: Callable[[str], None] | None = None) -> Manifest:
        """
        Record this machine: its files into a folder that `capture:DIR` opens.

        Args:
            directory: A new or empty folder.
            pages: The flags and counts of each page, too.
            progress: Called with each path before it is read.

        Raises:
            UsageError: the folder is not empty.
            OSError: it cannot be written.

        >>> import tempfile
        >>> with connect("model:v4.9/x86_64?mem=1G") as machine, tempfile.TemporaryDirectory() as folder:
        ...     machine.capture(folder).arch
        'x86_64'
        """
        import time
        from dataclasses import asdict

        from memhp.abi.record import LOG, write_capture

        about, log = self.backend.about(), self.log() or None
        devices = [{key: value for key, value in asdict(device).items() if value is not None} for device in self.devices()]
        lacks = {} if log else {LOG: self.backend.unseen().get("the kernel's log", "it shows none")}
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return write_capture(
            self.backend, directory, arch=about.arch, origin=about.origin, when=when, log=log, extra=about.files,
            pages=pages, progress=progress, lacks=lacks, devices=devices,
        )  # fmt: skip

    # Doing

    def write(self, path: str, text: str) -> None:
        """
        Write `text` to a file of the machine, in one write() and as it stands.

        Raises:
            KernelError: the kernel refused; .reason says why where it is known.
            KernelBugError: the writer died of it.

        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     machine.write("/sys/devices/system/memory/memory3/state", "on")
        Traceback (most recent call last):
        memhp.errors.KernelError: ...EINVAL...
        """
        self.do(Write(path=path, text=text)).check()

    def add(
        self, size: str | int | None = None, *, start: str | int | None = None, node: int | None = None,
    ) -> list[BlockSnapshot]:  # fmt: skip
        """
        Hot-add memory and return the blocks that appeared, offline unless the kernel onlines by itself.

        It goes through `probe`, a block at a time, where the kernel has that file and no node is named; else through the
        in-kernel add_memory().

        Args:
            size: Bytes or a text such as "128M", a multiple of the block size; None: one block.
            start: First address, a multiple of the block size; None: the first free place of the hot-plug window.
            node: NUMA node; None: where the kernel puts memory that comes without one.

        Raises:
            UsageError: zero, unaligned, out of range, or in the way of memory that is there.
            KernelError: the kernel refused; blocks added before stay.
            KernelBugError: the writer died of it.

        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     [block.state for block in machine.add("128M", start=0x80000000)]
        ['offline']
        """
        before = set(self._numbers())
        with self.backend.batch():
            for step in self.plan_add(size, start=start, node=node):
                self.do(step).check()
        return [self.block(number) for number in self._numbers() if number not in before]

    def plan_add(
        self, size: str | int | None = None, *, start: str | int | None = None, node: int | None = None, check: bool = True,
    ) -> list[Step]:  # fmt: skip
        """
        Return the steps that `add()` takes.

        Args:
            size, start, node: As in `add()`.
            check: False leaves every judgement of the range to the kernel.
        """
        step_size = self.block_size
        length = step_size if size is None else parse_size(size)
        if length == 0 and (check or start is None):
            raise UsageError(f"size 0: nothing to add; the smallest is one block of {format_size(step_size)}")
        if check and length % step_size:
            down = length // step_size * step_size
            near = f"{format_size(down)} or {format_size(down + step_size)}" if down else format_size(step_size)
            raise UsageError(
                f"size {format_size(length)} is no multiple of the block size {format_size(step_size)}; {near} would do")
        first = self._free_place(length) if start is None else parse_size(start, "start")
        if check:
            self._check_range(first, first + length)
        if node is None and length and length % step_size == 0 and "probe" in self.backend.listdir(MEMORY):
            return [Write(path=PROBE, text=f"{at:#x}") for at in range(first, first + length, step_size)]
        if "add" not in self.backend.verbs:
            raise self.backend.unable("add")
        return [Add(start=first, size=length, node=node)]

    def plug(self, size: str | int, *, id: str | None = None, node: int = 0, addr: str | int | None = None) -> PluggedDevice:
        """
        Plug a DIMM and return it.

        Args:
            size: Bytes or a text such as "384M".
            id: Its name; None: the first free of d1, d2, ….
            node: NUMA node.
            addr: Where; None: the first free place of the hot-plug window.

        Raises:
            UsageError: the platform refused: no place, not aligned, no such node.
            KernelError: the guest's kernel refused; the DIMM stays where it is.
            KernelBugError: the kernel died of it.

        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     dimm = machine.plug("256M")
        ...     dimm.id, hex(dimm.start), machine.online("d1:1").block
        ('d1', '0x100000000', 33)
        """
        step = self.plan_plug(size, id=id, node=node, addr=addr)
        self.do(step).check()
        return next(device for device in self.devices() if device.id == step.id)

    def plan_plug(self, size: str | int, *, id: str | None = None, node: int = 0, addr: str | int | None = None) -> Plug:
        """Return the step that `plug()` takes."""
        length = parse_size(size)
        if length == 0:
            raise UsageError("size 0: nothing to plug")
        if id is None:
            taken = {device.id for device in self.devices()}
            id = next(name for name in (f"d{i}" for i in range(1, len(taken) + 2)) if name not in taken)
        return Plug(id=parse_id(id), size=length, node=node, addr=None if addr is None else parse_size(addr, "addr"))

    def online(self, block: BlockRef | BlockSnapshot, *, zone: str = "online") -> BlockSnapshot:
        """
        Online one memory block and return it as the kernel then shows it.

        Args:
            block: The N of memoryN; it covers the bytes [N * block_size, (N + 1) * block_size). Or "d1:1", or a block.
            zone: "online", "kernel" or "movable"; also the words written to `state`, "online_kernel" and "online_movable".

        Raises:
            KernelError: EBUSY if a page of it is not reserved [v4.9]; EINVAL if it is online already.
            UsageError: no such block, no such zone.

        Source: drivers/base/memory.c store_mem_state() [v4.9]

        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     block = machine.add("128M")[0]
        ...     machine.online(block).state
        'online'
        """
        if zone not in ZONES:
            raise UsageError(f"zone {zone!r}: online, kernel or movable{did_you_mean(zone, ZONES)}")
        number = self.block(block).block
        self.do(Online(block=number, to=ZONES[zone])).check()
        return self.block(number)

    def offline(self, block: BlockRef | BlockSnapshot) -> BlockSnapshot:
        """
        Offline one memory block and return it as the kernel then shows it.

        Raises:
            KernelError: EINVAL if it is offline already; EBUSY if a page cannot leave.
            UsageError: no such block, or a machine that cannot.
        """
        number = self.block(block).block
        self.do(Offline(block=number)).check()
        return self.block(number)

    def do(self, step: Step, *, number: int = 1, watch: bool = False) -> StepResult:
        """
        Do one step; a refusal is a result here, not an exception.

        Args:
            step: The verb.
            number: Its place in a scenario.
            watch: Say in `changed` what changed.

        Raises:
            UsageError: the machine cannot do this verb.
            BackendError: the machine did not answer.
        """
        self._passed()
        look = _Watch(self, step) if watch else None
        answer = base.apply(self.backend, step)
        changed = look.changed(answer) if look is not None else ()
        return StepResult(number, step, answer, changed, self._passed())

    def run(self, scenario: Scenario | Sequence[Step], *, watch: bool = False) -> Iterator[StepResult]:
        """
        Run a scenario here, whatever machine it names; yields each step's result as it comes.

        A refused step does not stop the run.

        Args:
            scenario: A scenario, or its steps.
            watch: Say in each result's `changed` what changed.

        Raises:
            UsageError: a verb this machine cannot do, or a device it does not have; nothing is done then.

        >>> steps = [Plug(id="d1", size=128 << 20), Online(block="d1:0"), Online(block="d1:0")]
        >>> with connect("model:v4.9/x86_64?mem=1G") as machine:
        ...     [result.answer.word for result in machine.run(steps)]
        ['accepted', 'ok', 'EINVAL']
        """
        steps = scenario.steps if isinstance(scenario, Scenario) else tuple(scenario)
        if isinstance(scenario, Scenario):
            here = {device.id for device in self.devices()}
            missing = next((device for device in scenario.devices if device.id not in here), None)
            if missing is not None:
                raise UsageError(f"{self.url} has no {missing.kind} device {missing.id!r}, which the scenario needs at boot")
        for number, step in enumerate(steps, 1):
            if step.do not in self.backend.verbs:
                raise UsageError(f"step {number}: {self.backend.unable(step.do)}")
        return self._run(steps, watch)

    def _run(self, steps: Sequence[Step], watch: bool) -> Iterator[StepResult]:
        with self.backend.batch():
            for number, step in enumerate(steps, 1):
                try:
                    result = self.do(step, number=number, watch=watch)
                except UsageError as err:
                    raise UsageError(f"step {number}: {err}") from None
                yield result

    # Where things are

    def _numbers(self) -> list[int]:
        """Return the numbers of all blocks, sorted."""
        return sorted(int(match[1]) for match in map(_BLOCK_NAME.fullmatch, self.backend.listdir(MEMORY)) if match)

    def _number(self, block: BlockRef | BlockSnapshot) -> int:
        if isinstance(block, BlockSnapshot):
            return block.block
        if isinstance(block, str):
            try:
                return base.resolve(self.backend, block)
            except KernelError as err:
                raise UsageError(f"block {block!r}: {err.reason}") from None
            except ValueError:
                raise UsageError(f'block {block!r}: a number such as 16, or "d1:1" for the second of device d1') from None
        return block

    def _ram(self) -> list[tuple[int, int]]:
        """Return [start, end) of all that is memory or a device with memory, sorted and with what touches joined."""
        spans = [(region.start, region.end + 1) for region in read_iomem(self.backend).system_ram()]
        spans += [(device.start, device.start + device.size) for device in self.devices()]
        spans += [(number * self.block_size, (number + 1) * self.block_size) for number in self._numbers()]
        joined: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def _free_place(self, size: int) -> int:
        """Return the first free aligned address of the hot-plug window with `size` bytes behind it."""
        spans = self._ram()
        window = self.backend.window() or (spans[-1][1] if spans else 0)
        place = -(-window // self.block_size) * self.block_size
        for start, end in spans:
            if place + size <= start:
                break
            place = max(place, -(-end // self.block_size) * self.block_size)
        return place

    def _check_range(self, start: int, end: int) -> None:
        """Refuse what cannot be added. Raises UsageError."""
        step = self.block_size
        if start % step:
            near = start // step * step
            raise UsageError(
                f"start {start:#x} is not aligned to the block size {format_size(step)}; {near:#x} or {near + step:#x} is")
        limit = self.backend.address_limit()
        if end > limit:
            raise UsageError(f"{start:#x}-{end - 1:#x} is out of range: this kernel's memory ends below {limit:#x}")
        for first, last in self._ram():
            if start < last and first < end:
                place = self._free_place(end - start)
                raise UsageError(
                    f"{start:#x}-{end - 1:#x} overlaps memory that is there, {first:#x}-{last - 1:#x}; {place:#x} is free")


class _Watch:
    """What a step changes in the memory blocks: looked at before, and after."""

    def __init__(self, machine: Machine, step: Step) -> None:
        self._machine = machine
        self._block: int | None = None
        self._before: dict[int, str] = {}
        if isinstance(step, Online | Offline):
            with contextlib.suppress(KernelError):
                self._block = base.resolve(machine.backend, step.block)
        elif isinstance(step, Write) and (match := _MEMORY_DIR.fullmatch(step.path)):
            self._block = int(match[1])
        if self._block is not None:
            self._before = {self._block: self._look(self._block)}
        self._numbers = set(machine._numbers()) if self._block is None else set()

    def _look(self, number: int) -> str:
        """Return a block's state and, if it is online, its zone; "" if there is no such block."""
        state = abi.read_optional(self._machine.backend, f"{MEMORY}/memory{number}/state")
        if state is None:
            return ""
        zones = abi.read_optional(self._machine.backend, f"{MEMORY}/memory{number}/valid_zones") or ""
        zone = zones.split()[0] if state.strip() == "online" and zones.split() else ""
        return f"{state.strip()}{f' in {zone}' if zone and zone != 'none' else ''}"

    def changed(self, answer: Answer) -> tuple[str, ...]:
        """Return what is different now, in words."""
        lines = []
        if self._block is not None:
            before, after = self._before[self._block], self._look(self._block)
            if before != after:
                lines.append(f"memory{self._block} {before or 'absent'} → {after or 'absent'}")
        else:
            now = set(self._machine._numbers())
            found: dict[str, list[int]] = {}
            for number in sorted(now - self._numbers):
                found.setdefault(self._look(number), []).append(number)
            lines += [f"new memory{number_ranges(numbers)} {state}" for state, numbers in found.items()]
            if gone := sorted(self._numbers - now):
                lines.append(f"gone memory{number_ranges(gone)}")
        if not lines and not answer.refused:
            lines.append("no memory block changed")
        return tuple(lines)


def number_ranges(numbers: Iterable[int]) -> str:
    """
    Return numbers as ranges.

    >>> number_ranges([0, 1, 2, 16])
    '0-2,16'
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] + 1 == number:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) or "none"
