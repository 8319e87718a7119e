# SPDX-License-Identifier: GPL-2.0-only
"""
A QEMU process as a context manager: its command line, its console, its end.

It never outlives us: the kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG), whatever the reason, and
`close()` kills it before that. Its monitor and the guest's port are socket pairs that it inherits, its console is a pipe:
nothing of it lies in the file system.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memhp.backends.qemu.images import Kernel, initramfs
from memhp.errors import BackendError, UsageError
from memhp.hardware import SLOTS, room_of
from memhp.units import GIB, KIB, MIB, format_size

BINARY = {"arm64": "qemu-system-aarch64", "x86_64": "qemu-system-x86_64"}
PACKAGE = {"arm64": "qemu-system-arm", "x86_64": "qemu-system-x86"}
FIRMWARE = ("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/edk2/aarch64/QEMU_EFI.fd")
FIRMWARE_PACKAGE = "qemu-efi-aarch64"
CONSOLE_KEPT = 64 * KIB
"""Bytes of the console that are remembered."""

_PR_SET_PDEATHSIG = 1
_ESCAPES = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>c7-9])")
_STAMP = re.compile(r"^\[ *[0-9]+\.[0-9]+\](\[ *[A-Z][0-9]+\])? ")
_TELLING = re.compile(
    r"Kernel panic|memhp: no virtio|Oops|BUG:|Unable to handle|EFI stub: ERROR|BdsDxe: [Ff]ailed|BdsDxe: No bootable|"
    r"Initramfs unpacking failed")
HOPELESS = re.compile(r"Kernel panic|memhp: no virtio port|EFI stub: ERROR|BdsDxe: No bootable option|UEFI Interactive Shell")
"""What a console says when nobody will ever answer."""
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioMem:
    """A virtio-mem device that is there at boot: its name, the address space it occupies, its node."""

    id: str
    max: int
    node: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """
    A virtual machine to start.

    Attributes:
        kernel: What it boots.
        mem: Bytes of RAM.
        smp: CPUs.
        cmdline: Added to the kernel's command line.
        nodes: Bytes by NUMA node; empty: what QEMU does by itself.
        devices: virtio-mem devices.
        shell: A shell on the console.
        sockets: Folder for a monitor and a guest agent that others may use (qmp.sock, qga.sock), or None.
        extra: More words for QEMU's command line.
    """

    kernel: Kernel
    mem: int = GIB
    smp: int = 2
    cmdline: str = ""
    nodes: tuple[int, ...] = ()
    devices: tuple[VirtioMem, ...] = ()
    shell: bool = False
    sockets: Path | None = None
    extra: tuple[str, ...] = ()


def firmware() -> str | None:
    """Return the UEFI firmware for arm64, or None: `MEMHP_UEFI` is one of the user's own."""
    return next((path for path in (os.environ.get("MEMHP_UEFI", ""), *FIRMWARE) if path and os.path.isfile(path)), None)


def accelerator() -> str:
    """
    Return what runs the guest's code: "tcg" unless `MEMHP_ACCEL` says "kvm".

    Emulation gives the same CPU, and so the same answers, on every host.

    Raises:
        UsageError: another word.
    """
    word = os.environ.get("MEMHP_ACCEL", "tcg")
    if word not in ("tcg", "kvm"):
        raise UsageError(f"MEMHP_ACCEL={word[:20]!r}: tcg or kvm")
    return word


def command(guest: Guest, initrd: Path, monitor: int, port: int) -> list[str]:
    """
    Return QEMU's command line.

    Args:
        guest: What to start.
        initrd: The initramfs.
        monitor: File descriptor of the monitor's socket.
        port: File descriptor of the socket of the guest's port.

    Raises:
        BackendError: QEMU or the firmware is not installed; says the command that installs it.
        UsageError: nodes that do not add up to RAM.
    """
    arch = guest.kernel.arch
    binary = shutil.which(BINARY[arch])
    if binary is None:
        raise BackendError(f"no {BINARY[arch]} here: apt-get install {PACKAGE[arch]} (memhp vm doctor lists all that is missing)")
    if guest.nodes and sum(guest.nodes) != guest.mem:
        raise UsageError(f"nodes {','.join(map(format_size, guest.nodes))} do not add up to {format_size(guest.mem)} of RAM")
    if guest.mem < 256 * MIB or guest.mem % (2 * MIB):
        raise UsageError(f"mem={format_size(guest.mem)}: a guest gets multiples of 2M, 256M at least")
    words = [binary, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    # The 16K kernel needs the newest CPU; others boot faster on a plain one.
    plain = arch == "arm64" and "16k" not in guest.kernel.release and guest.kernel.release != ""
    if accelerator() == "kvm":
        words += ["-accel", "kvm", "-cpu", "host"]
    else:
        words += ["-accel", "tcg,thread=multi", "-cpu", "cortex-a57" if plain else "max"]
    if arch == "arm64":
        uefi = firmware()
        if uefi is None:
            raise BackendError(f"no UEFI firmware for arm64 here: apt-get install {FIRMWARE_PACKAGE}; MEMHP_UEFI=FILE names one")
        words += ["-machine", "virt,gic-version=3,acpi=on", "-bios", uefi]
    else:
        words += ["-machine", "q35"]
    room = room_of(device.max for device in guest.devices)
    words += ["-smp", str(guest.smp), "-m", f"size={guest.mem // MIB}M,slots={SLOTS},maxmem={(guest.mem + room) // MIB}M"]
    for nid, size in enumerate(guest.nodes):
        memory = f",memdev=ram{nid}" if size else ""
        cpus = f",cpus=0-{guest.smp - 1}" if nid == 0 else ""
        if size:
            words += ["-object", f"memory-backend-ram,id=ram{nid},size={size // MIB}M"]
        words += ["-numa", f"node,nodeid={nid}{memory}{cpus}"]
    words += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
    words += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    words += ["-device", "virtio-serial-pci,id=ports", "-chardev", f"socket,id=port,fd={port}"]
    words += ["-device", "virtserialport,bus=ports.0,chardev=port,name=memhp"]
    if guest.sockets is not None:
        words += ["-chardev", f"socket,id=others,path={guest.sockets}/qmp.sock,server=on,wait=off", "-mon", "others,mode=control"]
        words += ["-chardev", f"socket,id=agent,path={guest.sockets}/qga.sock,server=on,wait=off"]
        words += ["-device", "virtserialport,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0"]
    for device in guest.devices:
        words += ["-object", f"memory-backend-ram,id=mem-{device.id},size={device.max // MIB}M"]
        words += ["-device", f"virtio-mem-pci,id={device.id},memdev=mem-{device.id},node={device.node},requested-size=0"]
    console = "ttyAMA0" if arch == "arm64" else "ttyS0"
    shell = " memhp.shell" if guest.shell else ""
    cmdline = f"console={console} quiet panic=-1 rdinit=/init{shell}{' ' if guest.cmdline else ''}{guest.cmdline}"
    words += ["-kernel", str(guest.kernel.image), "-initrd", str(initrd), "-append", cmdline]
    return words + list(guest.extra)


class Process:
    """
    A running QEMU.

    Attributes:
        monitor: Our end of its monitor.
        port: Our end of the guest's port.
        command: Its command line.
    """

    def __init__(self, guest: Guest) -> None:
        self.monitor, monitor = socket.socketpair()
        self.port, port = socket.socketpair()
        self._complaints = tempfile.TemporaryFile()            # noqa: SIM115 - closed in close()
        self._console: deque[bytes] = deque()
        self._kept = 0
        self._lock = threading.Lock()
        self._watcher: Callable[[bytes], None] | None = None
        self._last_complaints = ""
        self._process: subprocess.Popen[bytes] | None = None
        parent = os.getpid()

        def die_with_us() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        try:
            image = initramfs(guest.kernel, agent=guest.sockets is not None)
            self.command = command(guest, image, monitor.fileno(), port.fileno())
            # A session of its own: Ctrl-C in the terminal is for us to act upon.
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, preexec_fn=die_with_us,
                pass_fds=(monitor.fileno(), port.fileno()), start_new_session=True,
            )  # fmt: skip
        except OSError as err:
            self.close()
            raise BackendError(f"QEMU cannot be started: {(err.strerror or str(err)).lower()}") from err
        except BaseException:
            self.close()
            raise
        finally:
            monitor.close()
            port.close()
        self._reader = threading.Thread(target=self._drain, name="console", daemon=True)
        self._reader.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process is not None and self._process.poll() is None

    def ended(self, timeout: float = 1.0) -> bool:
        """Whether it has ended, or does within `timeout` seconds: its sockets close a moment before it is gone."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Kill it and wait until it is gone. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._reader.join(5)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if not self._complaints.closed:
            self._last_complaints = self.complaints()
            self._complaints.close()
        self.monitor.close()
        self.port.close()

    # The console

    def _drain(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        descriptor = process.stdout.fileno()
        while True:
            try:
                data = os.read(descriptor, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self._console.append(data)
                self._kept += len(data)
                while self._kept - len(self._console[0]) >= CONSOLE_KEPT:
                    self._kept -= len(self._console.popleft())
                watcher = self._watcher
            if watcher is not None:
                watcher(data)

    def watch(self, watcher: Callable[[bytes], None] | None) -> None:
        """Pass what the console prints to `watcher` from now on, in a thread of its own; None ends that."""
        with self._lock:
            self._watcher = watcher

    def type(self, data: bytes) -> None:
        """Send bytes to the console, as if typed."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def console(self) -> str:
        """Return what the console printed, as harmless text; the oldest may be gone."""
        from memhp.abi.files import clean

        with self._lock:
            text = b"".join(self._console).decode("utf-8", "replace")
        return clean(_ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))

    def complaints(self) -> str:
        """Return what QEMU itself printed to its error output."""
        from memhp.abi.files import decode

        if self._complaints.closed:
            return self._last_complaints
        self._complaints.seek(0)
        return decode(self._complaints.read(CONSOLE_KEPT)).strip()

    # Errors

    def how_it_ended(self) -> str:
        """Return in words how the process ended."""
        code = None
        if self._process is not None:
            try:
                code = self._process.wait(2)                   # its sockets close a moment before it is gone
            except subprocess.TimeoutExpired:
                return "QEMU still runs"
        if code is None:
            return "QEMU was ended"
        if code == 0:
            return "the guest shut itself down"
        told = self.complaints().splitlines()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"QEMU {how}{f': {told[-1]}' if told else ''}"

    def error(self, what: str) -> BackendError:
        """Return a BackendError that says what happened, with the end of the console."""
        text = self.console()
        return BackendError(f"{what}{last_words(text)}", output="\n".join(text.splitlines()[-30:]))


def last_words(console: str) -> str:
    """
    Return the line of a console that tells most about its end, as the end of a message; "" if it printed nothing.

    >>> last_words("x\\nKernel panic - not syncing: no init\\n---[ end Kernel panic ]---\\n")
    '; last on its console: Kernel panic - not syncing: no init'
    """
    lines = [_STAMP.sub("", line).strip() for line in console.splitlines()]
    lines = [line for line in lines if line]
    telling = next((line for line in lines if _TELLING.search(line)), lines[-1] if lines else "")
    return f"; last on its console: {telling[:160]}" if telling else "; its console printed nothing"
