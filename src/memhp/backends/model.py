# SPDX-License-Identifier: GPL-2.0-only
"""
A model kernel behind the files that Linux shows.

Two things open here. A *model* is booted from its URL. A *machine file* is booted from the URL it names, and then everything
that was ever done to it is done again; what is done now is appended. The file is replaced whole (written beside, flushed,
renamed), so it never holds half of a step, and a file that somebody else changed meanwhile is not overwritten.

Devices are placed as the platform places them: the first free place of the hot-plug window, in steps of 2 MiB; those that are
there at boot come first. A virtio-mem device occupies the addresses of all it may ever hold. The platform is QEMU: what its
monitor would refuse is refused here, and what the guest says to a DIMM comes by ACPI's _OST.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from memhp import hardware, scenario
from memhp.abi.files import MEMORY
from memhp.backends import base
from memhp.backends.base import OST, About, Answer, MachineFileURL, MachineURL, ModelURL, Outcome, PluggedDevice
from memhp.errors import BackendError, ConfigError, KernelBugError, KernelError, KernelHangError, UsageError
from memhp.hardware import RecordedDimm, VirtioMemDevice
from memhp.linux import boot, kconfig, sched, tree, twin, workload
from memhp.linux.drivers.acpi import scan
from memhp.linux.drivers.base import core
from memhp.linux.drivers.virtio import virtio_mem
from memhp.linux.fs import sysfs
from memhp.linux.include.acpi_bus import ACPI_NOTIFY_DEVICE_CHECK, ACPI_NOTIFY_EJECT_REQUEST, AcpiDevice
from memhp.linux.include.memory_hotplug import MMOP_OFFLINE
from memhp.linux.kernel import workqueue
from memhp.linux.mm import memory_hotplug
from memhp.scenario import (
    Add,
    Alloc,
    Device,
    Free,
    Offline,
    Online,
    Pin,
    Plug,
    Remove,
    Resize,
    Scenario,
    Step,
    Unplug,
    Write,
)
from memhp.units import GIB, MIB, format_size

if TYPE_CHECKING:
    from memhp.hardware import Hardware
    from memhp.linux.state import Kernel

FILE_LIMIT = 16 * MIB
"""Bytes of the largest machine file: some 250,000 steps."""
PLACE = 2 * MIB
"""A DIMM starts at a multiple of this, and is as long as a multiple of it."""

_STATE = re.compile(re.escape(MEMORY) + r"/memory([0-9]{1,12})/state")
_VIRTIO = re.compile(r"virtio[0-9]+")


def open(url: MachineURL, devices: Sequence[Device] = ()) -> ModelBackend:
    """
    Boot the model a URL names, or open a machine file.

    Args:
        url: Which.
        devices: virtio-mem devices that are there at boot; a machine file has its own.
    """
    if isinstance(url, MachineFileURL):
        return _open_file(url)
    assert isinstance(url, ModelURL)
    return ModelBackend(str(url), url, devices=devices)


def start(url: ModelURL, devices: Sequence[Device] = ()) -> tuple[Kernel, Hardware]:
    """
    Boot a kernel, and let it find its devices.

    Returns:
        The kernel, and the machine it runs on (of which the kernel may use less: `mem=` on its command line).

    Raises:
        ConfigError: such a kernel cannot be.
        UsageError: a memory map or capture that is none; a device that cannot be there.
    """
    machine = find_hardware(url)
    source = tree.find(url.tree)
    if devices and not (source.virtio_mem if url.arch != "arm64" else source.arm64_virtio_mem):
        came = "with v5.8, to arm64 later" if source.virtio_mem else "with v5.8"
        raise UsageError(f"device {devices[0].id!r}: {url.tree} on {url.arch} has no driver for virtio-mem (it came {came})")
    found = place_devices(machine, devices)
    if found:
        addresses = {device.addr for device in found}
        others = tuple(r for r in machine.iomem if r.start not in addresses or not _VIRTIO.fullmatch(r.name))
        end = max(device.addr + device.region_size for device in found)
        machine = dataclasses.replace(machine, iomem=hardware.above(machine.arch, others, end))
    config = kconfig.default(url.arch, source.release, machine.page_size)
    limit = 1 << boot.ARCHES[url.arch].MAX_PHYSMEM_BITS(source, config)
    if machine.ram_end > limit:
        raise ConfigError(f"{url.tree} on {url.arch} addresses {format_size(limit)}; RAM would end at {machine.ram_end:#x}")
    try:
        k = boot.boot(
            source, url.arch, machine, config=config, cmdline=url.cmdline, remedy=url.remedy, pfn_valid=url.pfn_valid)
        for device in found:
            virtio_mem.virtio_mem_probe(k, device)
        run_workers(k)
    except (KernelError, KernelBugError) as err:
        raise ConfigError(f"this kernel does not come up on this machine: {err}") from err
    return k, machine


def run_workers(k: Kernel) -> None:
    """Do what has been put off until the task at hand is done, each as a task of its own: afterwards the machine is quiet."""
    while k.workqueue:
        boot.new_task(k)
        try:
            workqueue.process_one_work(k)
        except KernelBugError:
            boot.task_died(k)


def place_devices(machine: Hardware, devices: Sequence[Device]) -> list[VirtioMemDevice]:
    """
    Return the virtio-mem devices of a machine, where QEMU puts them.

    A machine that was recorded knows the names its kernel gave them; else the first virtio device is the guest's port.

    Raises:
        UsageError: a size or node that does not do.
    """
    found: list[VirtioMemDevice] = []
    place = _window(machine)
    for number, device in enumerate(devices, 1):
        if device.max % PLACE:
            raise UsageError(f"device {device.id}: max {format_size(device.max)} is no multiple of {format_size(PLACE)}")
        if device.node >= machine.nodes:
            raise UsageError(f"device {device.id}: node {device.node}: the machine has {machine.nodes}")
        names = (r.name for r in machine.iomem if r.start == place and _VIRTIO.fullmatch(r.name))
        found.append(VirtioMemDevice(
            id=device.id, name=next(names, f"virtio{number}"), arch=machine.arch, addr=place, region_size=device.max,
            node=device.node))
        place += device.max
    return found


def _window(machine: Hardware) -> int:
    return machine.window or hardware.window_of(machine.arch, machine.ram_end)


def find_hardware(url: ModelURL) -> Hardware:
    """Return the machine a URL describes: by size, from a memory map, or as a recorded one was."""
    if url.map or url.capture:
        from memhp.abi import memmap

        return memmap.hardware_from_map(url.map or url.capture, url.arch, page_size=url.page, cpus=url.smp)
    release = tree.find(url.tree).release
    return hardware.platform(url.arch, mem=url.ram, nodes=url.nodes, page_size=url.page, cpus=url.smp, release=release)


class ModelBackend(base.Backend):
    """
    A model kernel.

    Attributes:
        kernel: The kernel itself, for those who want to look deeper than its files.
        history: The machine file that what is done is noted in, or None.
    """

    verbs = frozenset({
        "plug", "unplug", "online", "offline", "resize", "write", "add", "remove", "alloc", "free", "pin",
    })

    def __init__(self, url: str, what: ModelURL, history: History | None = None, devices: Sequence[Device] = ()) -> None:
        self.url = url
        self.kernel, self._hardware = start(what, devices)
        self.history = history
        self._dimms: dict[str, _Dimm] = {}
        self._batches = 0
        if self._hardware.dimms:
            self._plug_recorded()

    # Files

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        return sysfs.read(self.kernel, path, offset, size)

    def listdir(self, path: str) -> list[str]:
        return sysfs.listdir(self.kernel, path)

    def write(self, path: str, text: str) -> None:
        self._do(_as_step(path, text), lambda: sysfs.write(self.kernel, path, text))

    def write_with_signal(self, path: str, text: str) -> None:
        def write() -> None:
            sched.send_signal_later(self.kernel.tasks)
            sysfs.write(self.kernel, path, text)

        step = _as_step(path, text)
        if not isinstance(step, Offline):
            raise UsageError(f"{path}: only a writer of \"offline\" gets a signal")
        self._do(dataclasses.replace(step, signal=True), write)

    def log(self, start: int = 0) -> list[str]:
        return self.kernel.log.lines[start:]

    def log_length(self) -> int:
        return len(self.kernel.log.lines)

    # Hands

    def add(self, start: int, size: int, node: int | None = None) -> None:
        k = self.kernel
        nid = k.arch.memory_add_physaddr_to_nid(k, start) if node is None else node
        self._do(Add(start=start, size=size, node=node), lambda: memory_hotplug.add_memory(k, nid, start, size))

    def remove(self, start: int, size: int, node: int | None = None) -> None:
        k = self.kernel
        self._can_remove()
        nid = k.arch.memory_add_physaddr_to_nid(k, start) if node is None else node

        def remove() -> None:
            if k.tree.hot_remove_refuses:
                memory_hotplug.remove_memory(k, start, size, nid)
                return
            core.lock_device_hotplug(k)
            memory_hotplug.remove_memory(k, start, size, nid)
            core.unlock_device_hotplug(k)

        self._do(Remove(start=start, size=size, node=node), remove)

    def alloc(self, id: str, size: int, kind: str, block: int | None = None) -> None:
        step = Alloc(id=id, size=size, kind=kind, block=block)
        self._do(step, lambda: workload.alloc(self.kernel, id, kind, size, block))

    def free(self, id: str) -> None:
        self._do(Free(id=id), lambda: workload.free(self.kernel, id))

    def pin(self, id: str) -> None:
        self._do(Pin(id=id), lambda: workload.pin(self.kernel, id))

    def plug(self, *, id: str, size: int, kind: str = "dimm", node: int = 0, addr: int | None = None) -> Outcome:
        step = Plug(id=id, size=size, kind=kind, node=node, addr=addr)
        start, refusal = self._place(step)
        if refusal:
            return Outcome("refused", (refusal,))
        k = self.kernel
        slot = next(i for i in range(len(self._dimms) + 1) if all(dimm.slot != i for dimm in self._dimms.values()))
        device = AcpiDevice(name=f"PNP0C80:{slot:02x}", start=start, length=size, node=node)
        k.acpi_devices[device.name] = device
        self._dimms[id] = _Dimm(slot, PluggedDevice(id=id, kind=kind, start=start, size=size, node=node))

        def plug() -> Outcome:
            err = scan.acpi_device_hotplug(k, device, ACPI_NOTIFY_DEVICE_CHECK)
            return Outcome("accepted") if err is None else Outcome("refused", (), err)

        return self._ask(step, plug)

    def _plug_recorded(self) -> None:
        """Plug the DIMMs that a recorded machine had, and bring their blocks online in the zones they were in."""
        k = self.kernel
        online, online_type = k.memhp_auto_online, k.mhp_default_online_type
        k.memhp_auto_online, k.mhp_default_online_type = False, MMOP_OFFLINE
        for dimm in self._hardware.dimms:
            if self._hardware.pages:
                twin.make_room(k, _cost(k, dimm))
            self.plug(id=dimm.id, size=dimm.size, node=dimm.node, addr=dimm.start)
        for dimm in self._hardware.dimms:
            for block, zone in sorted(dimm.zones.items()):
                word = "online_movable" if zone == "Movable" else "online_kernel"
                with contextlib.suppress(KernelError):         # what cannot come online stays offline, as ls shows
                    sysfs.write(k, f"{MEMORY}/memory{block}/state", word)
        run_workers(k)
        twin.take_dimm_pages(k)
        k.memhp_auto_online, k.mhp_default_online_type = online, online_type
        k.user_pages = ()
        k.user_generation = k.zonelist_generation

    def unplug(self, id: str) -> Outcome:
        if id not in self._dimms:
            if any(vm.vdev.id == id for vm in self.kernel.virtio_mem.values()):
                return Outcome("refused", ("virtio based memory devices cannot be unplugged",))
            return Outcome("refused", (f"there is no device {id}",))
        self._can_remove()
        k = self.kernel
        device = k.acpi_devices[f"PNP0C80:{self._dimms[id].slot:02x}"]
        device.ost.clear()

        def unplug() -> Outcome:
            err = scan.acpi_device_hotplug(k, device, ACPI_NOTIFY_EJECT_REQUEST)
            if device.ejected:
                del self._dimms[id], k.acpi_devices[device.name]
                return Outcome("accepted")
            status = device.ost[-1][1]
            return Outcome("refused", (f"the guest answers by ACPI: {OST.get(status, 'unknown')} ({status})",), err)

        return self._ask(Unplug(id=id), unplug)

    def _can_remove(self) -> None:
        tree = self.kernel.tree
        if self.kernel.arch.name == "arm64" and not tree.arm64_hot_remove:
            raise UsageError(f"{tree.name}: this kernel has no arch_remove_memory(), so memory cannot be removed from it")

    def resize(self, id: str, size: int) -> Outcome:
        k = self.kernel
        vm = next((vm for vm in k.virtio_mem.values() if vm.vdev.id == id), None)
        if vm is None:
            return Outcome("refused", (f"there is no virtio-mem device {id}",))
        refusal = vm.vdev.resize(size)
        if refusal:
            return Outcome("refused", (refusal,))

        def resize() -> Outcome:
            virtio_mem.virtio_mem_config_changed(k, vm)
            run_workers(k)
            if vm.vdev.plugged_size == size:
                return Outcome("accepted")
            text = f"{id} has {format_size(vm.vdev.plugged_size)} of the {format_size(size)} it was asked for"
            return Outcome("pending", (text,), vm.stuck)

        return self._ask(Resize(id=id, size=size), resize)

    def devices(self) -> list[PluggedDevice]:
        found = [dimm.device for dimm in self._dimms.values()]
        for vm in self.kernel.virtio_mem.values():
            found.append(PluggedDevice(
                id=vm.vdev.id, kind="virtio-mem", start=vm.vdev.addr, size=vm.vdev.region_size, node=vm.vdev.node,
                requested=vm.vdev.requested_size, plugged=vm.vdev.plugged_size))
        return sorted(found, key=lambda device: device.start)

    def window(self) -> int:
        return _window(self._hardware)

    def address_limit(self) -> int:
        return 1 << self.kernel.MAX_PHYSMEM_BITS

    def about(self) -> About:
        k = self.kernel
        return About(arch=k.arch.name, origin=f"{self.url}: the model of {k.tree.name}")

    def _place(self, step: Plug) -> tuple[int, str]:
        """Return where a DIMM goes, and what the monitor says if it goes nowhere. One that the guest refused keeps its place."""
        window, limit = self.window(), self.address_limit()
        if step.addr is not None and self.kernel.tree.block_devices_after_add:
            # QEMU's window has an end, a GiB for each slot behind the room for devices. Where no address is given there is room.
            room = hardware.room_of(vm.vdev.region_size for vm in self.kernel.virtio_mem.values())
            limit = min(limit, window + room + hardware.SLOTS * GIB)
        taken = [(device.start, device.start + device.size, device.id) for device in self.devices()]
        if step.node >= self._hardware.nodes:
            return 0, f"node {step.node}: the machine has {self._hardware.nodes} (see nodes= of its URL)"
        if any(name == step.id for _, _, name in taken):
            return 0, f"there is a device {step.id} already"
        if step.size % PLACE:
            return 0, f"size {format_size(step.size)} is no multiple of {format_size(PLACE)}"
        if step.addr is not None:
            if step.addr % PLACE:
                return 0, f"address {step.addr:#x} is no multiple of {format_size(PLACE)}"
            if step.addr < window or step.addr + step.size > limit:
                return 0, f"{step.addr:#x}-{step.addr + step.size - 1:#x} is outside of the window {window:#x}-{limit - 1:#x}"
            for begin, end, name in taken:
                if step.addr < end and begin < step.addr + step.size:
                    return 0, f"address {step.addr:#x} is in the way of device {name} at {begin:#x}-{end - 1:#x}"
        place = window
        for begin, end, _ in taken:
            if place + step.size <= begin:
                break
            place = max(place, -(-end // PLACE) * PLACE)
        if step.addr is None and place + step.size > limit:
            return 0, f"no free place of {format_size(step.size)} in the window {window:#x}-{limit - 1:#x}"
        return place if step.addr is None else step.addr, ""

    # Doing and noting

    def _ask(self, step: Step, call: Callable[[], Outcome]) -> Outcome:
        """As `_do()`, of a request whose answer is no exception."""
        outcome = self._do(step, call)
        assert outcome is not None
        return outcome

    def _do(self, step: Step, call: Callable[[], Outcome | None]) -> Outcome | None:
        """Run one call as a task of its own, then workers and user space; note the step whatever the kernel answered."""
        k = self.kernel
        boot.new_task(k)
        answer: KernelError | KernelBugError | None = None
        outcome: Outcome | None = None
        word = ""
        try:
            outcome = call()
            word = outcome.word if outcome is not None and outcome.word != "accepted" else ""
        except KernelError as err:
            answer, word = err, err.name
            if not err.path and isinstance(step, Write):
                err.path = step.path
        except KernelHangError as err:
            answer, word = err, "hung"
        except KernelBugError as err:
            answer, word = err, "oops"
            boot.task_died(k)
        run_workers(k)
        boot.user_space(k)
        self._note(dataclasses.replace(step, expect=word))
        if answer is not None:
            raise answer
        return outcome

    def _note(self, step: Step) -> None:
        if self.history is not None:
            self.history.append(step)
            if not self._batches:
                self.history.flush()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            if not self._batches and self.history is not None:
                self.history.flush()

    def close(self) -> None:
        if self.history is not None:
            self.history.flush()


def _cost(k: Kernel, dimm: RecordedDimm) -> int:
    """Return how many pages plugging a DIMM takes: tried on a fork."""
    fork = k.fork()
    device = AcpiDevice(name="PNP0C80:ff", start=dimm.start, length=dimm.size, node=dimm.node)
    fork.acpi_devices[device.name] = device
    scan.acpi_device_hotplug(fork, device, ACPI_NOTIFY_DEVICE_CHECK)
    before, after = (
        sum(zone.nr_free_pages for pgdat in kernel.nodes.values() for zone in pgdat.node_zones) for kernel in (k, fork))
    return before - after


@dataclasses.dataclass(frozen=True, slots=True)
class _Dimm:
    """A DIMM and the slot it is in."""

    slot: int
    device: PluggedDevice


def _as_step(path: str, text: str) -> Step:
    """Return a write as it stands in a history: as `online` where it is one."""
    match = _STATE.fullmatch(path)
    if match and text in scenario.ONLINE_TYPES and match[1] == str(int(match[1])):
        return Online(block=int(match[1]), to=text)
    if match and text == "offline" and match[1] == str(int(match[1])):
        return Offline(block=int(match[1]))
    return Write(path=path, text=text)


# Machine files


class History:
    """
    A machine file being continued.

    Args:
        path: The file.
        content: What it holds.
        seen: The identity of the file when it was read, by `identity()`.
    """

    def __init__(self, path: str, content: Scenario, seen: tuple[int, ...]) -> None:
        self.path = path
        self._content = content
        self._seen = seen
        self._new: list[Step] = []

    def append(self, step: Step) -> None:
        """Remember a step; `flush()` writes it."""
        self._new.append(step)

    def flush(self) -> None:
        """
        Write what is new, all of it or nothing.

        Raises:
            BackendError: somebody else changed the file meanwhile, or it cannot be written; it is left as it is.
        """
        if not self._new:
            return
        new, self._new = self._new, []
        content = dataclasses.replace(self._content, steps=(*self._content.steps, *new))
        self._seen = replace_file(self.path, scenario.dumps(content), self._seen)
        self._content = content


def identity(path: str) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written to."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def replace_file(path: str, text: str, seen: tuple[int, ...] | None) -> tuple[int, ...]:
    """
    Replace a file by `text` at once: written beside, flushed, renamed.

    Args:
        path: The file; a link to a file stays a link.
        text: The new content.
        seen: Replace only a file of this identity; None: there must be none.

    Returns:
        The identity of the new file.

    Raises:
        BackendError: another file is there by now, or it cannot be written. The old file is as it was.
    """
    import tempfile

    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    data = text.encode()
    if len(data) > FILE_LIMIT:
        raise BackendError(f"{path}: its history would be longer than {format_size(FILE_LIMIT)}; it is left as it was")
    temporary = ""
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(real)}.", dir=folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), _mode(real))
                os.fsync(file.fileno())
            if (identity(real) if os.path.exists(real) else None) != seen:
                raise BackendError(f"{path}: was changed by somebody else meanwhile; nothing is written, repeat the command")
            os.rename(temporary, real)
            temporary = ""
            os.fsync(directory)
        finally:
            os.close(directory)
            if temporary:
                os.unlink(temporary)
        return identity(real)
    except OSError as err:
        raise BackendError(f"{path}: cannot be written: {(err.strerror or str(err)).lower()}") from err


def _mode(path: str) -> int:
    """Return the permissions of a file, or those a new one gets."""
    try:
        return os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0o022)
        os.umask(mask)
        return 0o666 & ~mask


def create(path: str, url: ModelURL, *, title: str = "", force: bool = False) -> ModelBackend:
    """
    Boot a model and write the machine file it starts from.

    Args:
        path: The file to make.
        url: What to boot.
        title: One line for people.
        force: Replace a file that is there.

    Returns:
        The model, whose steps are noted in the file.

    Raises:
        UsageError: there is such a file, or its name does not end in .toml.
        ConfigError: such a kernel cannot be.
        BackendError: it cannot be written.
    """
    if not path.endswith(".toml"):
        raise UsageError(f"{path}: the name of a machine file ends in .toml, such as {path.rstrip('.') or 'machine'}.toml")
    seen = None
    if os.path.lexists(path):
        if os.path.isdir(path):
            raise UsageError(f"{path}: is a directory")
        if not force:
            raise UsageError(f"{path}: exists; --force replaces it")
        seen = identity(path) if os.path.exists(path) else None
    content = Scenario(title=title, machine=str(url), version=scenario.VERSION)
    backend = ModelBackend(f"model:{path}", url)
    backend.history = History(path, content, replace_file(path, scenario.dumps(content), seen))
    return backend


def _open_file(url: MachineFileURL) -> ModelBackend:
    """Boot what a machine file names and do everything it lists again."""
    path = url.path
    try:
        seen = identity(path)
    except (OSError, ValueError) as err:
        reason = (getattr(err, "strerror", None) or str(err)).lower()
        raise UsageError(f"{path}: {reason}; memhp boot v4.9/x86_64 -o FILE.toml makes a machine file") from None
    content = scenario.load(path, limit=FILE_LIMIT)
    if not content.machine:
        raise UsageError(f"{path}: names no machine; a machine file begins with machine = \"model:v4.9/x86_64?mem=1G\"")
    what = base.parse(content.machine)
    if not isinstance(what, ModelURL):
        raise UsageError(f"{path}: machine = {content.machine!r}: a machine file boots a model:TREE/ARCH")
    cannot = next((step for step in content.steps if step.do not in ModelBackend.verbs), None)
    if cannot is not None:
        raise UsageError(f"{path}: a model cannot {cannot.do}; it can {', '.join(sorted(ModelBackend.verbs))}")
    try:
        backend = ModelBackend(str(url), what, devices=content.devices)
    except UsageError as err:
        raise UsageError(f"{path}: {err}") from None
    for number, step in enumerate(content.steps, 1):
        answer = base.apply(backend, step)
        if step.expect and not answer.meets(step.expect):
            raise _differs(path, number, step, answer)
    backend.history = History(path, content, seen)
    return backend


def _differs(path: str, number: int, step: Step, answer: Answer) -> BackendError:
    return BackendError(
        f"{path}: step {number} ({scenario.describe(step)}) was {step.expect} when it was noted and is {answer.word} now: this "
        f"model is not the one that was noted; memhp run {path} shows how it goes now")
