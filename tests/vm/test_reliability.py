# SPDX-License-Identifier: GPL-2.0-only
"""Whatever goes wrong ends in one clear line, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.vm import tiny_kernel
from tests.vm.conftest import KERNELS, need

from memhp.abi.files import MEMORY
from memhp.backends import base
from memhp.backends.base import Backend, QemuURL
from memhp.backends.qemu import images, process
from memhp.backends.qemu.backend import QemuBackend, describe
from memhp.errors import BackendError, UsageError
from memhp.machine import connect
from memhp.scenario import Offline, Online, Plug, Step, Unplug
from memhp.units import MIB

URL = KERNELS["arm64-6.12"]
BOOTS = int(os.environ.get("MEMHP_LAB_BOOTS", "3"))

STEPS: tuple[Step, ...] = (
    Plug(id="d1", size=256 * MIB), Online(block="d1:0", to="online_movable"), Offline(block="d1:0"), Unplug(id="d1"),
)  # fmt: skip


def _gone(pid: int) -> bool:
    """Whether a process ends within a few seconds; one that only waits to be collected has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def _clear(text: str) -> bool:
    return "\n" not in text and "Traceback" not in text and bool(text)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.do)
def test_qemu_is_killed_before_a_step(step: Step, boot: Callable[..., Backend]) -> None:
    """The step ends with a BackendError that says how QEMU ended; closing works."""
    machine = boot(URL)
    assert isinstance(machine, QemuBackend)
    for earlier in STEPS[: STEPS.index(step)]:
        base.apply(machine, earlier)
    os.kill(machine.process.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match="SIGKILL") as caught:
        base.apply(machine, step)
    assert _clear(str(caught.value))
    machine.close()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.do)
def test_qemu_is_killed_in_a_step(step: Step, boot: Callable[..., Backend]) -> None:
    """In the middle of a step, or a moment after it: it, or the next look, ends with a BackendError of one line."""
    machine = boot(URL)
    assert isinstance(machine, QemuBackend)
    for earlier in STEPS[: STEPS.index(step)]:
        base.apply(machine, earlier)
    pid = machine.process.pid
    timer = threading.Timer(0.02, os.kill, (pid, signal.SIGKILL))
    timer.start()

    def do_and_look() -> None:
        base.apply(machine, step)
        timer.join()
        machine.read(f"{MEMORY}/block_size_bytes")

    with pytest.raises(BackendError, match="SIGKILL") as caught:
        do_and_look()
    assert _clear(str(caught.value))
    machine.close()
    assert _gone(pid)


def test_the_guest_panics(boot: Callable[..., Backend]) -> None:
    """A guest that dies in the middle of a write: the panic stands in the error."""
    machine = boot(URL)
    with pytest.raises(BackendError, match="Kernel panic") as caught:
        machine.write("/proc/sysrq-trigger", "c")
    assert _clear(str(caught.value))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_memhp_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    """However memhp ends, its QEMU ends, too."""
    need(URL)
    script = (
        "import signal, time\nfrom memhp.machine import connect\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"     # a job in the background starts with it ignored
        f"machine = connect({URL!r})\nprint(machine.backend.process.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as user:
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        user.send_signal(number)
        user.wait(30)
    assert _gone(pid)


def test_memhp_is_killed_with_sockets(tmp_path: Path) -> None:
    """`vm boot --stay`, killed in a way that nobody can clean up after: QEMU ends, and the next start takes the sockets away."""
    need(URL)
    images.fetch_agent("arm64")
    command = [sys.executable, "-m", "memhp", "vm", "boot", URL, "--stay", str(tmp_path), "--json"]
    for number in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as user:
            assert user.stdout is not None and user.stderr is not None
            assert "qemu+unix:" in user.stdout.readline(), user.stderr.read()
            pid = next(int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == user.pid)
            user.send_signal(number)
            user.wait(30)
        assert _gone(pid)
    assert [] == list(tmp_path.iterdir())


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_an_exception_between() -> None:
    """An exception in a `with` block ends the guest."""
    need(URL)
    pids = []

    def fail() -> None:
        with connect(URL) as machine:
            assert isinstance(machine.backend, QemuBackend)
            pids.append(machine.backend.process.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert 1 == len(pids) and _gone(pids[0])


def _guest(url: str = URL) -> process.Guest:
    parsed = base.parse(need(url))
    assert isinstance(parsed, QemuURL)
    return describe(parsed)


def test_a_truncated_initramfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel finds no init; it says so, long before the deadline."""
    guest = _guest()
    whole = images.initramfs(guest.kernel).read_bytes()
    short = tmp_path / "short.cpio"
    short.write_bytes(whole[: len(whole) // 3])
    monkeypatch.setattr(process, "initramfs", lambda kernel, agent=False: short)
    with pytest.raises(BackendError, match="Kernel panic") as caught:
        QemuBackend("qemu:short", guest, timeout=170)
    assert "did not answer within" not in str(caught.value)
    assert _clear(str(caught.value))


def test_an_initramfs_that_was_cut_off_in_the_cache() -> None:
    """It is made anew."""
    place = images.initramfs(_guest().kernel)
    os.truncate(place, 1000)
    assert 1000 < images.initramfs(_guest().kernel).stat().st_size


def test_a_guest_that_never_answers() -> None:
    """After the deadline the error says what was waited for, and the guest is gone."""
    with pytest.raises(BackendError, match="did not answer within 2 s: waited for the guest's boot") as caught:
        QemuBackend("qemu:slow", _guest(), timeout=2)
    assert _clear(str(caught.value))


def test_a_kernel_of_another_architecture() -> None:
    """It is seen from the image, before anything starts."""
    need(URL)
    image = images.need("x86_64", "v6.12").image
    with pytest.raises(UsageError, match="a kernel for x86_64; arm64 is wanted"):
        base.open(f"qemu:v6.12/arm64?kernel={image}")


def test_a_kernel_without_memory_hotplug() -> None:
    """Built without CONFIG_MEMORY_HOTPLUG, it has no memory blocks; one line says so."""
    if not tiny_kernel.image().is_file():
        pytest.skip("needs a kernel built without memory hotplug, for Debian ships none: make tiny-kernel builds one")
    need(KERNELS["x86_64-6.12"])
    with pytest.raises(BackendError, match="this kernel has no memory hotplug: /sys/devices/system/memory is missing") as caught:
        base.open(f"qemu:v6.12/x86_64?kernel={tiny_kernel.image()}")
    assert _clear(str(caught.value))


def test_a_kernel_that_nobody_tells_of_dimms(boot: Callable[..., Backend]) -> None:
    """Without ACPI the kernel has memory blocks and never hears of a DIMM: plug and unplug are refused, with the reason."""
    machine = boot(f"{KERNELS['x86_64-6.12']}?cmdline=acpi%3Doff")
    for step in (Plug(id="d1", size=128 * MIB), Unplug(id="d1")):
        answer = base.apply(machine, step)
        assert "refused" == answer.word
        assert 1 == len(answer.log) and "its kernel runs without ACPI" in answer.log[0]


def test_modules_and_busybox_of_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked into before anything starts."""
    need(KERNELS["arm64-6.1"])
    kernel, other = images.need("arm64", "v6.1"), images.need("x86_64", "v6.1")
    with pytest.raises(UsageError, match=r"virtio_ring\.ko is for x86_64; arm64 is wanted"):
        base.open(f"qemu:v6.1/arm64?kernel={kernel.image}&modules={other.modules[0].parent}")
    monkeypatch.setenv("MEMHP_BUSYBOX", str(images.busybox("x86_64")))
    with pytest.raises(BackendError, match="is a program for x86_64; arm64 is wanted"):
        base.open(KERNELS["arm64-6.1"])


def test_no_kernel_at_all(tmp_path: Path) -> None:
    """A text file is none; and an arm64 image that is cut off does not start."""
    need(URL)
    text = tmp_path / "Image"
    text.write_text("no kernel\n" * 100)
    with pytest.raises(UsageError, match="no kernel to boot"):
        base.open(f"qemu:v6.12/arm64?kernel={text}")
    text.write_bytes(images.need("arm64", "v6.12").image.read_bytes()[:200000])
    with pytest.raises(BackendError) as caught:
        base.open(f"qemu:v6.12/arm64?kernel={text}")
    assert _clear(str(caught.value))


def test_ones_own_kernel_and_modules(boot: Callable[..., Backend]) -> None:
    """`kernel=` and `modules=` boot what they name; a kernel that needs modules and gets none says which."""
    need(KERNELS["arm64-6.1"])
    kernel = images.need("arm64", "v6.1")
    own = f"qemu:v6.1/arm64?kernel={kernel.image}"
    machine = boot(f"{own}&modules={kernel.modules[0].parent}")
    assert machine.read("/proc/sys/kernel/osrelease").startswith(b"6.1.")
    with pytest.raises(BackendError, match="needs virtio_pci and virtio_console"):
        boot(own)


def test_a_full_disk(tmp_path: Path) -> None:
    """An initramfs that does not fit into the cache folder: one line, and nothing half-made in it."""
    need(URL)
    script = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        f"from memhp.cli import main\nsys.exit(main(['ls', '-m', {URL!r}]))\n"
    )
    cache = images.cache_folder()
    for name in ("kernels", "busybox"):
        (tmp_path / name).symlink_to(cache / name)
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "MEMHP_CACHE": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (3, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert "file too large" in done.stderr
    assert [] == list((tmp_path / "initramfs").iterdir())


SMALL = """
set -e
mount -t tmpfs -o size=1m memhp {cache}
mkdir {cache}/kernels {cache}/busybox
mount --bind {kernels} {cache}/kernels
mount --bind {busybox} {cache}/busybox
"$@" || echo "exit $?"
ls -A {cache} {cache}/initramfs {cache}/apt 2>/dev/null || true
"""


@pytest.mark.parametrize("words", [("ls", "-m", URL), ("vm", "fetch", "arm64", "v6.13")], ids=lambda words: words[0])
def test_a_file_system_that_is_full(words: tuple[str, ...], tmp_path: Path) -> None:
    """A cache folder of 1 MiB: an initramfs or the package lists do not fit; one line, and nothing half-made remains."""
    need(URL)
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system where nobody else sees it")
    cache = images.cache_folder()
    script = SMALL.format(cache=tmp_path, kernels=cache / "kernels", busybox=cache / "busybox")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", sys.executable, "-m", "memhp", *words],
        env={**os.environ, "MEMHP_CACHE": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    if "unshare failed" in done.stderr or "mount: " in done.stderr:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    said = [line for line in done.stderr.splitlines() if line.startswith("memhp: ")]
    assert "exit 3" in done.stdout, done
    assert 1 == len(said)
    assert "no space left on device" in said[0].lower()
    assert ".cpio" not in done.stdout and "/tmp" not in done.stdout.replace(str(tmp_path), "")
    assert [] == list(tmp_path.iterdir())


def test_boots_in_a_row_leave_nothing() -> None:
    """No process, no file descriptor, no thread remains; MEMHP_LAB_BOOTS says how many."""
    need(URL)
    pids = []
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(BOOTS):
        with connect(URL) as machine:
            assert isinstance(machine.backend, QemuBackend)
            pids.append(machine.backend.process.pid)
            assert "online\n" == machine.read(f"{MEMORY}/memory8/state")
    assert all(map(_gone, pids))
    assert before == set(os.listdir("/proc/self/fd"))
