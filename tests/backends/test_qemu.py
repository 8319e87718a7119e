# SPDX-License-Identifier: GPL-2.0-only
"""What surrounds a guest, without one: packages, modules, initramfs, the port's protocol, URLs, recordings of models."""

from __future__ import annotations

import lzma
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memhp.abi import capture
from memhp.backends import base
from memhp.backends.qemu import images, process, tracing
from memhp.backends.qemu.guest import Guest
from memhp.checker import differential
from memhp.cli import main
from memhp.errors import BackendError, KernelBugError, KernelError, KernelHangError, UsageError
from memhp.machine import connect
from memhp.scenario import Online, Plug
from memhp.units import MIB

NAMES = (
    "linux-image-6.1.0-9-cloud-arm64-unsigned", "linux-image-6.1.0-50-cloud-arm64-unsigned", "linux-image-6.1.0-50-cloud-arm64",
    "linux-image-6.12.9+deb12-cloud-arm64-unsigned", "linux-image-6.12.117+deb12-cloud-arm64-unsigned",
    "linux-image-6.12.117+deb12-arm64-16k-unsigned", "linux-image-6.12.117+deb12-cloud-arm64-dbg",
    "linux-binary-7.2.13+deb14-cloud-arm64", "linux-modules-7.2.13+deb14-cloud-arm64", "linux-binary-7.2.14+deb14-cloud-arm64",
)  # fmt: skip


@pytest.mark.parametrize(
    ("release", "page", "found"),
    [
        ("v6.1", 4096, ["linux-image-6.1.0-50-cloud-arm64-unsigned"]),
        ("v6.12", 4096, ["linux-image-6.12.117+deb12-cloud-arm64-unsigned"]),
        ("v6.12", 16384, ["linux-image-6.12.117+deb12-arm64-16k-unsigned"]),
        ("v7.2", 4096, ["linux-binary-7.2.13+deb14-cloud-arm64", "linux-modules-7.2.13+deb14-cloud-arm64"]),
        ("newest", 4096, ["linux-binary-7.2.13+deb14-cloud-arm64", "linux-modules-7.2.13+deb14-cloud-arm64"]),
        ("v6.12", 65536, []),
    ],
)
def test_the_newest_package(release: str, page: int, found: list[str]) -> None:
    """Versions count as people count; an image without its modules is none; v6.1 is not v6.12."""
    assert found == images.kernel_packages(NAMES, "arm64", release, page)


def _module(path: Path, depends: str) -> None:
    data = b"\x7fELF\0vermagic=6.1\0depends=" + depends.encode() + b"\0retpoline=Y\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(data) if path.name.endswith(".xz") else data)


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    """Dashes and underscores are one, packed and plain are one, a circle ends, and what is missing may be built in."""
    _module(tmp_path / "kernel/a/virtio-mem.ko.xz", "virtio,virtio_ring")
    _module(tmp_path / "kernel/b/virtio.ko", "virtio_ring")
    _module(tmp_path / "kernel/b/virtio_ring.ko", "virtio")
    order = images.module_order(tmp_path, ("virtio_console", "virtio_mem"))
    assert ["virtio_ring", "virtio", "virtio_mem"] == [images.module_name(path) for path in order]
    (tmp_path / "kernel/a/virtio-mem.ko.xz").write_bytes(b"\xfd7zXZ\0cut off")
    with pytest.raises(BackendError, match=r"virtio-mem\.ko\.xz"):
        images.module_order(tmp_path, ("virtio_mem",))


def test_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    """The initramfs is what the kernel unpacks: files, folders, links and the console with their modes."""
    program = b"x" * 4097
    files = [("bin", 0o040755, b""), ("bin/busybox", 0o100755, program), ("bin/sh", 0o120777, b"busybox")]
    files.append(("init", 0o100755, b""))
    data = images.cpio(files)
    assert 0 == len(data) % 4
    try:
        done = subprocess.run(["cpio", "-idm", "--quiet", "--no-preserve-owner"], input=data, cwd=tmp_path, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the program cpio")
    names = {name for name in os.listdir(tmp_path / "bin")}
    assert {"busybox", "sh"} == names, done.stderr
    assert program == (tmp_path / "bin/busybox").read_bytes()
    assert "busybox" == os.readlink(tmp_path / "bin/sh")
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o755


def test_which_architecture_an_image_is_for(tmp_path: Path) -> None:
    """arm64's Image, a packed one, EFI's zboot, x86_64's bzImage; anything else is refused with what would do."""
    arm64 = bytearray(0x240)
    arm64[0x38:0x3C] = b"ARMd"
    pc = bytearray(0x240)
    pc[0x202:0x206] = b"HdrS"
    assert "arm64" == images.image_arch(bytes(arm64))
    assert "arm64" == images.image_arch(b"MZ\0\0zimg")
    assert "x86_64" == images.image_arch(bytes(pc))
    path = tmp_path / "bzImage"
    path.write_bytes(bytes(pc))
    assert path == images.own_kernel("x86_64", str(path)).image
    with pytest.raises(UsageError, match="a kernel for x86_64; arm64 is wanted"):
        images.own_kernel("arm64", str(path))
    with pytest.raises(UsageError, match="no such file"):
        images.own_kernel("arm64", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="no such folder"):
        images.own_kernel("x86_64", str(path), str(tmp_path / "nothing"))


def test_no_apt_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Fetching says politely how to do without; booting says what fetches."""
    monkeypatch.setenv("MEMHP_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert 3 == main(["vm", "fetch", "arm64", "v6.12"])
    assert "--kernel IMAGE --modules DIR" in capsys.readouterr().err
    assert 3 == main(["ls", "-m", "qemu:v6.12/arm64"])
    assert "memhp vm fetch arm64 v6.12 gets it" in capsys.readouterr().err
    assert 4 == main(["vm", "doctor"])
    out = capsys.readouterr().out
    assert "apt-get install qemu-system-arm" in out and "memhp vm fetch arm64 v6.12 --page 16K" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "arm46", "v6.12"], "did you mean arm64?"), (["fetch", "arm64", "6.12"], "did you mean v6.12?"),
        (["fetch", "arm64"], "needs ARCH and RELEASE"), (["fetch", "arm64", "v6.12", "--page", "8K"], "4K, 16K or 64K"),
        (["boot", "v6.12/arm46"], "did you mean arm64?"), (["boot", "v6.12"], "RELEASE/ARCH is needed"),
        (["boot", "v6.12/arm64?mem=x"], "is not a size"), (["heal"], "invalid choice"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_the_command_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line, and exit code 2."""
    assert 2 == main(["vm", *words])
    error = capsys.readouterr().err
    assert message in error
    assert 1 == len(error.splitlines())


@pytest.mark.parametrize(
    "url", ["qemu:v6.12/arm64", "qemu:newest/x86_64?mem=2G&smp=4&cmdline=a%20b&page=16K&nodes=1G,1G,0",
            "qemu:v6.1/arm64?kernel=/x/Image&modules=/x/m%26n", "qemu+unix:/x/a%3Fb?qga=/x/c%26d"],
)  # fmt: skip
def test_a_url_reads_back_equal(url: str) -> None:
    """What a URL says is said again."""
    assert base.parse(url) == base.parse(str(base.parse(url)))


# The port's protocol, with a guest that answers as it is told


Answering = Callable[..., tuple[Guest, list[bytes]]]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Makes a guest that gives some answers, one for each request, and then is gone."""
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def make(*answers: bytes) -> tuple[Guest, list[bytes]]:
        ours, theirs = socket.socketpair()
        opened.append(ours)
        asked: list[bytes] = []

        def answer() -> None:
            with theirs, theirs.makefile("rb") as lines:
                for data in answers:
                    asked.append(lines.readline())
                    theirs.sendall(data)

        threads.append(threading.Thread(target=answer, daemon=True))
        threads[-1].start()
        return Guest(ours, BackendError, lambda: True), asked

    yield make
    for end in opened:
        end.close()
    for thread in threads:
        thread.join(10)


def test_an_answer(answering: Answering) -> None:
    """Bytes are passed as they are; a late answer to another request is passed over."""
    guest, asked = answering(b"7 0 3 \nold1 0 4 \n\0\xff\n\n")
    assert b"\0\xff\n\n" == guest.read("/sys/x")
    assert [b"1\tread\t/sys/x\n"] == asked


def test_a_write_and_what_may_come_of_it(answering: Answering) -> None:
    """A refusal has its errno, a killed writer and one that hangs are told apart, a gone guest is no answer."""
    guest, asked = answering(b"1 0 0 \n", b"2 1 0 Device or resource busy\n", b"3 died 0 11\n", b"4 hang 0 add_memory\n", b"")
    guest.write("/sys/x", "a\tb\n")
    assert rb"write" in asked[0] and rb"a\0011b\0012" in asked[0]
    with pytest.raises(KernelError) as caught:
        guest.write("/sys/x", "1")
    assert ("EBUSY", "/sys/x") == (caught.value.name, caught.value.path)
    with pytest.raises(KernelBugError, match="signal 11"):
        guest.write("/sys/x", "1")
    with pytest.raises(KernelHangError, match=r"in add_memory\(\)"):
        guest.write("/sys/x", "1")
    with pytest.raises(BackendError, match="the guest is gone.*the write of '1' to /sys/x"):
        guest.write("/sys/x", "1")


def test_an_answer_that_is_none(answering: Answering) -> None:
    """What no guest of ours says is an error, not a wait."""
    guest, _ = answering(b"garbage\n")
    with pytest.raises(BackendError, match="answers 'garbage'"):
        guest.read("/sys/x")
    guest, _ = answering(b"x" * 10000)
    with pytest.raises(BackendError, match="answers"):
        guest.read("/sys/x")


def test_the_last_words_of_a_console() -> None:
    """The line that tells, not the last one."""
    text = "[    1.0] x\n[    2.5] Kernel panic - not syncing: No working init found.\n[    2.6] ---[ end Kernel panic ]---\n"
    assert "; last on its console: Kernel panic - not syncing: No working init found." == process.last_words(text)
    assert "; its console printed nothing" == process.last_words(" \n")


def test_a_trace_with_lost_lines() -> None:
    """A tree with holes is no tree."""
    with pytest.raises(BackendError, match="not whole"):
        tracing.by_task("CPU:1 [LOST 77 EVENTS]\n sh-12  |  f();\n")


# Recordings and comparisons of models


def test_a_model_and_its_recording(tmp_path: Path) -> None:
    """A model is recorded like any machine; its recording does not differ from it, and the twin neither."""
    folder = str(tmp_path / "capture")
    with connect("model:v4.9+arm64-rfc-2016/arm64?mem=1G") as machine:
        manifest = machine.capture(folder)
        assert ("arm64", 4096) == (manifest.arch, manifest.page_size)
        assert [] == differential.compare(machine.backend, base.open(f"capture:{folder}"))
    capture.load(folder, verify=True)
    assert 0 == main(["compare", folder, folder])


def test_two_models(capsys: pytest.CaptureFixture[str]) -> None:
    """A machine with twice the memory has blocks that the other has not; one with a remedy of another kind answers otherwise."""
    assert 4 == main(["compare", "model:v4.9/x86_64?mem=1G", "model:v4.9/x86_64?mem=2G"])
    out = capsys.readouterr().out
    assert "memory8: only on the second machine" in out
    remedies = [base.open(f"model:v4.9+arm64-rfc-2016/arm64?mem=1G&remedy={name}") for name in ("full", "nohack")]
    steps = [Plug(id="d1", size=1024 * MIB), Online(block="d1:0")]
    found = [str(difference) for step in differential.run_both(steps, *remedies) for difference in step.found]
    assert "step: online d1:0 answer: ok on the first, EBUSY on the second" in found


def test_a_model_beside_a_recording_is_its_twin(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing about memory is said of the model: it boots with what the recorded machine had."""
    recorded = Path(base.__file__).parent.parent / "recorded/v4.9-arm64-rfc/full/00-boot"
    assert 0 == main(["compare", f"capture:{recorded}", "model:v4.9+arm64-rfc-2016/arm64"]), capsys.readouterr().out


def test_captures_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with something in it is left alone, before the machine is even opened."""
    (tmp_path / "x").touch()
    assert 2 == main(["capture", "-m", "model:v4.9/x86_64?mem=1G", "-o", str(tmp_path)])
    assert "wants a new or empty folder" in capsys.readouterr().err
