# SPDX-License-Identifier: GPL-2.0-only
"""
A real kernel in QEMU behind the same files: `qemu:v6.12/arm64?mem=1G`.

A DIMM is plugged through the monitor, and the guest tells by ACPI's _OST how it went; unplugging one ends with DEVICE_DELETED or
with the guest's refusal, which comes as _OST only (132: under way, then 130: busy). A virtio-mem device is asked for its size,
and MEMORY_DEVICE_SIZE_CHANGE tells how far it is. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from errno import ENOENT

from memhp import hardware
from memhp.abi.files import MEMORY, clean
from memhp.abi.iomem import read_iomem
from memhp.backends import base
from memhp.backends.base import OST, About, MachineURL, Outcome, PluggedDevice, QemuURL
from memhp.backends.qemu import images, process, tracing, workload
from memhp.backends.qemu.guest import BOOT_TIMEOUT, Guest
from memhp.backends.qemu.qmp import Event, Monitor, RefusedError
from memhp.errors import BackendError, KernelBugError, KernelError, UsageError
from memhp.scenario import Device
from memhp.units import MIB, format_size

DEVICE_TIMEOUT = 60.0
"""Seconds the guest may take to answer a plug or an unplug."""
STILL = 8.0
"""Seconds without any progress of a device after which it is left to itself, or looked after."""
RESIZE_TIMEOUT = 600.0
"""Seconds a virtio-mem device may take while it makes progress."""

DEAF = "its kernel runs without ACPI, which announces DIMMs (acpi=off?)"
_OST_UNDER_WAY = 0x84
_FAILED = ("MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR")
_TIME = re.compile(r"\[ *[0-9]+\.[0-9]+\](?:\[ *[TC][0-9]+\])? ?")


def open(url: MachineURL, devices: Sequence[Device] = ()) -> QemuBackend:
    """
    Boot the kernel a URL names.

    Args:
        url: What to boot.
        devices: virtio-mem devices that are there at boot.

    Raises:
        BackendError: QEMU, its firmware or the kernel is missing, or the guest did not come up.
        UsageError: a kernel, size or node that does not do.
    """
    assert isinstance(url, QemuURL)
    return QemuBackend(str(url), describe(url, devices))


def describe(url: QemuURL, devices: Sequence[Device] = ()) -> process.Guest:
    """Return the virtual machine that a URL names. Raises as `open()` does."""
    check_devices(devices)
    if url.kernel:
        kernel = images.own_kernel(url.arch, url.kernel, url.modules)
    else:
        kernel = images.need(url.arch, url.release, url.page)
    return process.Guest(
        kernel=kernel, mem=url.ram, smp=url.smp, cmdline=url.cmdline, nodes=url.nodes,
        devices=tuple(process.VirtioMem(id=device.id, max=device.max, node=device.node) for device in devices),
    )  # fmt: skip


class Virtual(base.Backend):
    """
    What all machines behind a QEMU monitor have in common: their devices.

    Attributes:
        url: What was opened.
        monitor: Its monitor.
        arch: Its architecture.
    """

    url: str
    monitor: Monitor
    arch: str

    def need_blocks(self) -> None:
        """Raise BackendError if the guest's kernel shows no memory blocks."""
        path = f"{MEMORY}/block_size_bytes"
        try:
            self.read(path)
        except KernelError as err:
            why = f"{path}: {err.name}{f' ({err.reason})' if err.reason else ''}"
            if err.errno == ENOENT:
                why = f"this kernel has no memory hotplug: {MEMORY} is missing (CONFIG_MEMORY_HOTPLUG)"
            raise BackendError(f"{self.url}: {why}") from None

    # Devices

    def devices(self) -> list[PluggedDevice]:
        found = []
        for entry in self.monitor.execute("query-memory-devices"):
            data = entry["data"]
            if entry["type"] == "dimm":
                found.append(PluggedDevice(
                    id=str(data.get("id", "")), kind="dimm", start=data["addr"], size=data["size"], node=data["node"]))
            elif entry["type"] == "virtio-mem":
                found.append(PluggedDevice(
                    id=str(data.get("id", "")), kind="virtio-mem", start=data["memaddr"], size=data["max-size"],
                    node=data["node"], requested=data["requested-size"], plugged=data["size"]))
        return sorted(found, key=lambda device: device.start)

    def plug(self, *, id: str, size: int, kind: str = "dimm", node: int = 0, addr: int | None = None) -> Outcome:
        if kind != "dimm":
            return Outcome("refused", (f"a {kind} device is there at boot or not at all",))
        memory = f"mem-{id}"
        self.monitor.drop()
        try:
            self.monitor.execute("object-add", qom_type="memory-backend-ram", id=memory, size=size)
        except RefusedError as err:
            return Outcome("refused", (str(err),))
        try:
            self.monitor.execute("device_add", driver="pc-dimm", id=id, memdev=memory, node=node, addr=addr)
        except RefusedError as err:
            with contextlib.suppress(RefusedError):
                self.monitor.execute("object-del", id=memory)
            return Outcome("refused", (str(err),))
        event = self.monitor.wait(lambda event: _is_ost(event, id), STILL)
        if event is None and not self._hears():
            return Outcome("refused", (f"nobody in the guest hears of {id}: {DEAF}",))
        event = event or self.monitor.wait(lambda event: _is_ost(event, id), DEVICE_TIMEOUT - STILL)
        if event is None:
            return Outcome("pending", (f"the guest has not acknowledged {id} within {DEVICE_TIMEOUT:g} s",))
        status = event["data"]["info"]["status"]
        if status:
            return Outcome("refused", (f"the guest answers by ACPI: {OST.get(status, 'unknown')} ({status})",))
        # Linux acknowledges a DIMM whose memory it could not add: whether it did, its memory map tells.
        start = next((device.start for device in self.devices() if device.id == id), -1)
        if not any(region.start <= start <= region.end for region in read_iomem(self).system_ram()):
            return Outcome("refused", (f"the guest acknowledges the device and takes none of its memory{self._why_none()}",))
        return Outcome("accepted")

    def unplug(self, id: str) -> Outcome:
        self.monitor.drop()
        try:
            self.monitor.execute("device_del", id=id)
        except RefusedError as err:
            return Outcome("refused", (str(err),))
        deadline = time.monotonic() + DEVICE_TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            event = self.monitor.wait(
                lambda came: _is_ost(came, id) or _is_deleted(came, id) or _is_failed(came, id), min(left, STILL))
            if event is None:
                if self._hears():
                    continue
                return Outcome("refused", (f"nobody in the guest hears of it: {DEAF}",))
            if _is_deleted(event, id):
                self._forget(f"mem-{id}")
                return Outcome("accepted")
            if _is_failed(event, id):
                return Outcome("refused", (str(event["data"].get("msg", event["event"])),))
            status = event["data"]["info"]["status"]
            if status == 0:
                continue                                       # done as far as the guest goes; DEVICE_DELETED follows
            if status != _OST_UNDER_WAY:
                return Outcome("refused", (f"the guest answers by ACPI: {OST.get(status, 'unknown')} ({status})",))
        return Outcome("pending", (f"the guest has not let go of {id} within {DEVICE_TIMEOUT:g} s",))

    def _hears(self) -> bool:
        """Whether the guest's kernel runs with ACPI, by which it is told of DIMMs."""
        try:
            self.read("/sys/firmware/acpi/pm_profile")
        except KernelError:
            return False
        return True

    def _why_none(self) -> str:
        """Return why the guest takes no DIMM at all, as the end of a message; "" if nobody knows."""
        return ""

    def _forget(self, memory: str) -> None:
        """Delete the memory of a device that is gone; QEMU lets go of it a moment after DEVICE_DELETED."""
        for _ in range(50):
            try:
                self.monitor.execute("object-del", id=memory)
                return
            except RefusedError as err:
                if "in use" not in str(err):
                    return
                time.sleep(0.1)

    def resize(self, id: str, size: int) -> Outcome:
        device = next((device for device in self.devices() if device.id == id and device.kind == "virtio-mem"), None)
        if device is None:
            return Outcome("refused", (f"there is no virtio-mem device {id}",))
        self.monitor.drop()
        try:
            self.monitor.execute("qom-set", path=f"/machine/peripheral/{id}", property="requested-size", value=size)
        except RefusedError as err:
            return Outcome("refused", (str(err),))
        plugged, deadline = device.plugged, time.monotonic() + RESIZE_TIMEOUT
        while plugged != size and time.monotonic() < deadline:
            came = self.monitor.wait(lambda event: event["event"] == "MEMORY_DEVICE_SIZE_CHANGE", STILL)
            now = next((device.plugged for device in self.devices() if device.id == id), plugged)
            if came is None and now == plugged:
                break
            plugged = now
        self.settle()
        if plugged == size:
            return Outcome("accepted")
        return Outcome("pending", (f"{id} has {format_size(plugged or 0)} of the {format_size(size)} it was asked for",))

    def settle(self) -> None:
        """
        Return when neither memory blocks nor System RAM have changed for a while: the driver adds blocks after it has told QEMU,
        and removes them after that, too, first the block, then what is known of its memory.
        """
        deadline = time.monotonic() + DEVICE_TIMEOUT
        before: list[tuple[str, bytes]] = []
        same = 0
        while same < 2 and time.monotonic() < deadline:
            names = sorted(name for name in self.listdir(MEMORY) if name.startswith("memory"))
            now = [("iomem", self.read("/proc/iomem"))]
            for name in names:
                with contextlib.suppress(KernelError):          # a block may go between the two looks
                    now.append((name, self.read(f"{MEMORY}/{name}/state")))
            same = same + 1 if now == before else 0
            before = now
            time.sleep(0.4 if same < 2 else 0)


class QemuBackend(Virtual):
    """
    A guest of ours.

    Attributes:
        process: The QEMU that runs it.
        guest: Its files.
        what: What was started.
    """

    verbs = frozenset({"plug", "unplug", "online", "offline", "resize", "write", "alloc", "free"})

    def __init__(self, url: str, what: process.Guest, *, timeout: float = BOOT_TIMEOUT) -> None:
        self.url = url
        self.what = what
        self.arch = what.kernel.arch
        self._log: list[str] = []
        self._booting = True
        self.process = process.Process(what)
        try:
            self.monitor = Monitor(self.process.monitor, self.process)
            self.guest = Guest(self.process.port, self._fail, self._may_answer)
            self.guest.wait_ready(timeout)
            self._booting = False
            self.need_blocks()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        monitor = getattr(self, "monitor", None)
        self.process.close()
        if monitor is not None:
            monitor.close()

    def _may_answer(self) -> bool:
        return self.process.alive() and not (self._booting and process.HOPELESS.search(self.process.console()))

    def _fail(self, words: str) -> BackendError:
        how = f"; {self.process.how_it_ended()}" if "gone" in words and self.process.ended() else ""
        return self.process.error(f"{self.url}: {words}{how}")

    # Files

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        return self.guest.read(path, offset, size)

    def listdir(self, path: str) -> list[str]:
        return self.guest.listdir(path)

    def write(self, path: str, text: str) -> None:
        mark = self.log_length()
        try:
            self.guest.write(path, text)
        except KernelBugError as err:
            err.log = self.log(mark)
            raise

    def write_with_signal(self, path: str, text: str) -> None:
        workload.write_with_signal(self.guest, path, text)

    def alloc(self, id: str, size: int, kind: str, block: int | None = None) -> None:
        workload.alloc(self.guest, id, size, kind, block)

    def free(self, id: str) -> None:
        workload.free(self.guest, id)

    def log(self, start: int = 0) -> list[str]:
        self._refresh()
        return [clean(_TIME.sub("", line, count=1)) for line in self._log[start:]]

    def log_length(self) -> int:
        self._refresh()
        return len(self._log)

    def _refresh(self) -> None:
        """Take over what the kernel's ring holds beyond the last line that is known; the ring forgets, we do not."""
        code, data = self.guest.run("dmesg")
        if code:
            raise self._fail("dmesg does not work in the guest")
        self._merge(data.decode("utf-8", "backslashreplace").splitlines())

    def _merge(self, lines: list[str]) -> None:
        if self._log and lines[: len(self._log)] != self._log:
            last = self._log[-1]
            known = next((number for number in range(len(lines) - 1, -1, -1) if lines[number] == last), -1)
            self._log += lines[known + 1 :]
        else:
            self._log = lines

    def traced(self, functions: Sequence[str]) -> contextlib.AbstractContextManager[list[str]]:
        return tracing.traced(self.guest, functions)

    def _hears(self) -> bool:
        """Whether the guest's kernel runs with ACPI, by which it is told of DIMMs."""
        try:
            self.read("/sys/firmware/acpi/pm_profile")
        except KernelError:
            return False
        return True

    def _why_none(self) -> str:
        config = self.what.kernel.config
        try:
            text = config.read_text() if config is not None else ""
        except OSError:
            return ""
        return ": this kernel is built without ACPI_HOTPLUG_MEMORY" if "# CONFIG_ACPI_HOTPLUG_MEMORY is not set" in text else ""

    def about(self) -> About:
        kernel = self.what.kernel
        files = {}
        if kernel.config is not None:
            with contextlib.suppress(OSError):
                files[f"/boot/config-{kernel.release}"] = kernel.config.read_bytes()
        version = self.monitor.execute("query-version")["qemu"]
        qemu = f"QEMU {version['major']}.{version['minor']} ({process.accelerator().upper()})"
        return About(arch=self.arch, origin=f"{self.url}: {kernel.origin} in {qemu}", files=files)

    def window(self) -> int:
        return hardware.platform(self.arch, mem=self.what.mem).window


def _is_ost(event: Event, id: str) -> bool:
    return bool(event["event"] == "ACPI_DEVICE_OST" and event["data"]["info"].get("device") == id)


def _is_deleted(event: Event, id: str) -> bool:
    return bool(event["event"] == "DEVICE_DELETED" and event["data"].get("device") == id)


def _is_failed(event: Event, id: str) -> bool:
    return event["event"] in _FAILED and bool(event["data"].get("device") == id)


def check_devices(devices: Sequence[Device]) -> None:
    """Raise UsageError for a device that QEMU does not take."""
    for device in devices:
        if device.max % (2 * MIB):
            raise UsageError(f"device {device.id}: max {format_size(device.max)} is no multiple of 2M")
