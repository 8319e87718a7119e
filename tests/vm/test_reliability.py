# SPDX-License-Identifier: GPL-2.0-only
"""Whatever goes wrong ends in one clear line, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
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
        "import sys, time\nfrom memhp.machine import connect\n"
        f"machine = connect({URL!r})\nprint(machine.backend.process.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as user:
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        user.send_signal(number)
        user.wait(30)
    assert _gone(pid)


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
