# SPDX-License-Identifier: GPL-2.0-only
"""`memhp vm`: real kernels in QEMU."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memhp.cli import common
from memhp.errors import BackendError, UsageError

if TYPE_CHECKING:
    from memhp.backends.base import QemuURL
    from memhp.backends.qemu.images import Progress

LAB = (
    ("arm64", "v5.10", "4K"), ("arm64", "v6.1", "4K"), ("arm64", "v6.12", "4K"), ("arm64", "v6.12", "16K"),
    ("arm64", "newest", "4K"), ("x86_64", "v6.1", "4K"), ("x86_64", "v6.12", "4K"),
)  # fmt: skip
"""The kernels that the tests against real kernels boot."""
_SOCKETS = ("qmp.sock", "qga.sock")
DETACH = 0x1D
"""The key that leaves the console: Ctrl-]."""


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "vm", "real kernels in QEMU: what is missing, get a kernel, boot it, its console",
        "Real kernels in QEMU, which -m qemu:RELEASE/ARCH boots. Kernels come from Debian's packages, or are your own.",
        ["memhp vm doctor", "memhp vm fetch arm64 v6.12", "memhp vm boot v6.12/arm64?mem=2G",
         "memhp vm boot v6.12/arm64 --kernel arch/arm64/boot/Image", "memhp ls -m qemu:v6.12/arm64"],
    )  # fmt: skip
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    common.add_command(
        verbs, "doctor", "what is missing, and the command that fixes it",
        "Look at all that booting real kernels needs. Exit code 4 if something is missing.",
    )  # fmt: skip
    fetch = common.add_command(
        verbs, "fetch", "get a kernel into the cache",
        "Get the newest Debian package of a kernel, and a busybox for its architecture, through this machine's apt,\n"
        "without root, other architectures and suites included. What was interrupted goes on where it ended.",
        ["memhp vm fetch arm64 v6.12", "memhp vm fetch arm64 v6.12 --page 16K", "memhp vm fetch x86_64 newest",
         "memhp vm fetch --all"],
    )  # fmt: skip
    fetch.add_argument("arch", metavar="ARCH", nargs="?", help="arm64 or x86_64")
    which = "v5.10, v6.1, v6.12, … or newest; agent: the QEMU guest agent"
    fetch.add_argument("release", metavar="RELEASE", nargs="?", help=which)
    fetch.add_argument("--page", default="4K", metavar="SIZE", help="size of a page: 4K (default), 16K")
    fetch.add_argument("--again", action="store_true", help="look for a newer package though one is there")
    fetch.add_argument("--all", action="store_true", help="every kernel that the tests boot")
    for name, help, description in (
        ("boot", "boot a kernel, and say how it went",
         "Boot a kernel, print what it is and how long it took, and end it again; --stay keeps it."),
        ("shell", "boot a kernel, with its console in this terminal",
         "Boot a kernel with a shell on its console, in this terminal. Ctrl-] leaves it and ends the guest."),
    ):
        examples = [f"memhp vm {name} v6.12/arm64", f"memhp vm {name} newest/x86_64"]
        verb = common.add_command(verbs, name, help, description, examples)
        verb.add_argument("guest", metavar="RELEASE/ARCH[?KEY=VALUE…]", help="as in a qemu: URL")
        verb.add_argument("--kernel", metavar="IMAGE", help="your own kernel")
        verb.add_argument("--modules", metavar="DIR", help="its modules, as `make modules_install` lays them out")
        if name == "boot":
            verb.add_argument(
                "--stay", metavar="DIR", help="keep it until Ctrl-C, with sockets in DIR by which other programs reach it")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    verbs = {"doctor": _doctor, "fetch": _fetch, "boot": _boot, "shell": _shell}
    return verbs[args.verb](args)


# doctor


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that is there or not.

    Attributes:
        name: What it is.
        here: Whether it is there.
        about: Which one, or what it is needed for.
        fix: The command that brings it.
        needed: False if only some commands want it.
    """

    name: str
    here: bool
    about: str
    fix: str = ""
    needed: bool = True


def examine() -> Iterator[Finding]:
    """Look at all that booting real kernels needs."""
    import importlib.util

    from memhp.backends.qemu import images, process
    from memhp.units import GIB, MIB, format_size

    for arch, binary in process.BINARY.items():
        path = shutil.which(binary)
        yield Finding(f"QEMU for {arch}", path is not None, path or binary, f"apt-get install {process.PACKAGE[arch]}")
    firmware = process.firmware()
    readable = firmware is not None and os.access(firmware, os.R_OK)
    fix = f"apt-get install {process.FIRMWARE_PACKAGE}" if firmware is None else f"sudo chmod a+r {firmware}"
    yield Finding("UEFI firmware for arm64", readable, firmware or "arm64 guests start through it", fix)
    here = importlib.util.find_spec("qemu") is not None and importlib.util.find_spec("qemu.qmp") is not None
    yield Finding("library qemu.qmp", here, "speaks to QEMU's monitor", "pip install 'memhp[lab]'")
    yield from _examine_apt()
    folder = images.cache_folder()
    above = next(path for path in (folder, *folder.parents) if path.exists())
    writable = above.is_dir() and os.access(above, os.R_OK | os.W_OK | os.X_OK)
    fix = f"sudo chown -R $USER {above}" if above.is_dir() and above == folder else "export MEMHP_CACHE=DIR"
    yield Finding("cache folder", writable, str(folder), fix)
    free = shutil.disk_usage(above).free
    yield Finding("space for it", free > GIB, f"{format_size(free // MIB * MIB)} free, 1G is enough", "export MEMHP_CACHE=DIR")
    yield from _examine_limits()
    for arch in images.DEBIAN_ARCH:
        shell = images.busybox(arch)
        yield Finding(f"busybox for {arch}", shell.is_file(), str(shell), f"memhp vm fetch {arch} v6.12")
        agent = images.agent_folder(arch)
        about = str(agent) if (agent / "qemu-ga").is_file() else "for guests that others work with"
        fix = f"memhp vm fetch {arch} agent"
        yield Finding(f"guest agent for {arch}", (agent / "qemu-ga").is_file(), about, fix, needed=False)
    for arch, release, page in LAB:
        kernel = images.find(arch, release, _page(page))
        option = f" --page {page}" if page != "4K" else ""
        about = kernel.release if kernel is not None else "Debian has it"
        name = f"kernel {release} for {arch}{f' with {page} pages' if option else ''}"
        yield Finding(name, kernel is not None, about, f"memhp vm fetch {arch} {release}{option}")
    yield _examine_kvm()
    usable = os.access("/dev/fuse", os.R_OK | os.W_OK)
    fix = "apt-get install fuse3"
    if shutil.which("fusermount3") is not None:
        fix = "sudo chmod a+rw /dev/fuse" if os.path.exists("/dev/fuse") else "sudo modprobe fuse"
    here = usable and shutil.which("fusermount3") is not None
    yield Finding("FUSE", here, "a model's files for other programs", fix, needed=False)


def _examine_apt() -> Iterator[Finding]:
    """Look at what fetching kernels needs; who has kernels already, or boots his own, needs none of it."""
    from memhp.backends.qemu import images

    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
    fix = f"copy {images.cache_folder()} from a machine with apt, or boot your own: --kernel IMAGE --modules DIR"
    yield Finding("apt", not missing, "kernels are fetched through it", fix, needed=False)
    if missing:
        return
    sources = images.apt_sources()
    yield Finding("apt's package lists", bool(sources), "of this machine's suites", "apt-get update", needed=False)
    try:
        mirror = images.debian_mirror(sources)
    except BackendError:
        mirror = ""
    about = mirror or f"{images.system_name()} has none; kernels come from Debian"
    yield Finding("mirror of Debian", bool(mirror), about, "export MEMHP_DEBIAN_MIRROR=URL", needed=False)
    about = "its keys check what is fetched"
    yield Finding("Debian's keyring", images.KEYRING.is_file(), about, "apt-get install debian-archive-keyring", needed=False)


def _examine_limits() -> Iterator[Finding]:
    """Look at what this process may use: a folder for temporary files, memory, sizes of files."""
    import resource
    import tempfile

    from memhp.units import GIB, MIB, format_size

    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        folder = ""
    yield Finding("temporary files", bool(folder), folder or "no folder for them can be written to", "export TMPDIR=DIR")
    free = _available()
    about = f"{format_size(free // MIB * MIB)} available, a guest takes 1G or mem=" if free else "not known how much"
    yield Finding("memory for a guest", not free or free > 1280 * MIB, about, "memhp … -m 'qemu:v6.12/arm64?mem=512M'")
    for limit, least, option in ((resource.RLIMIT_AS, 4 * GIB, "-v"), (resource.RLIMIT_FSIZE, GIB, "-f")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            what = "address space" if option == "-v" else "size of files"
            yield Finding(f"limit of {what}", soft >= least, f"{format_size(soft // MIB * MIB)}", f"ulimit {option} unlimited")


def _available() -> int:
    """Return the bytes of memory that programs may still take; 0 if nobody says."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _examine_kvm() -> Finding:
    """Look whether guests could run on this CPU itself."""
    about = "guests are emulated, the same everywhere; MEMHP_ACCEL=kvm is faster"
    if os.path.exists("/dev/kvm"):
        usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
        return Finding("KVM", usable, about, "sudo usermod -aG kvm $USER   (and log in again)", needed=False)
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    module = "kvm_intel" if "vmx" in flags else "kvm_amd" if "svm" in flags else ""
    fix = f"sudo modprobe {module}" if module else "none: this CPU, or the machine it is lent from, offers no virtualization"
    return Finding("KVM", False, about, fix, needed=False)


def _doctor(args: argparse.Namespace) -> int:
    from memhp.report import text

    found = list(examine())
    missing = [finding for finding in found if finding.needed and not finding.here]
    if common.as_json(args):
        keys = ("name", "here", "about", "fix", "needed")
        common.print_json([{key: getattr(finding, key) for key in keys} for finding in found])
        return common.FOUND if missing else common.DONE
    rows = []
    for finding in found:
        word = "ok" if finding.here else "missing" if finding.needed else "without"
        rows.append([word, finding.name, finding.about if finding.here or not finding.fix else finding.fix])
    for line in text.columns(rows):
        print(common.printable(line))
    if missing:
        print(f"\n{text.counted(len(missing), 'thing')} missing; each line says the command that brings it")
    return common.FOUND if missing else common.DONE


# fetch


def _page(text: str) -> int:
    sizes = {"4K": 4096, "16K": 16384, "64K": 65536}
    if text.upper() not in sizes:
        raise UsageError(f"--page {text}: 4K, 16K or 64K")
    return sizes[text.upper()]


def _fetch(args: argparse.Namespace) -> int:
    from memhp.backends import base
    from memhp.backends.qemu import images

    wanted: tuple[tuple[str, str, str], ...]
    if args.release == "agent":
        base.check_arch(args.arch, "memhp vm fetch")
        with _progress(quiet=common.as_json(args)) as progress:
            images.fetch_agent(args.arch, progress=progress)
        print(f"guest agent for {args.arch}: {images.agent_folder(args.arch)}")
        return common.DONE
    if args.all:
        if args.arch:
            raise UsageError("fetch --all gets every kernel of the lab; name none, or leave --all away")
        wanted = LAB
    else:
        if not args.arch or not args.release:
            raise UsageError("fetch needs ARCH and RELEASE, such as memhp vm fetch arm64 v6.12; or --all")
        base.check_arch(args.arch, "memhp vm fetch")
        wanted = ((args.arch, args.release, args.page),)
    for arch, release, page in wanted:
        try:
            with _progress(quiet=common.as_json(args)) as progress:
                kernel = images.fetch(arch, release, _page(page), progress=progress, again=args.again)
        except UsageError as err:
            if not args.all:
                raise
            common.warn(f"{err}; left out")                    # suites vanish from mirrors; the other kernels are still there
            continue
        if common.as_json(args):
            common.print_json({
                "arch": arch, "release": release, "page": page, "kernel": kernel.release, "image": str(kernel.image),
                "modules": [str(path) for path in kernel.modules], "origin": kernel.origin})
        else:
            print(f"{release} {arch} {page}: {images.describe(kernel)}")
    return common.DONE


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """Show how far something is, on a terminal as a bar that goes away."""
    shown = sys.stderr.isatty() and not quiet
    last = ""

    def show(what: str, part: float) -> None:
        nonlocal last
        if shown:
            bar = f"[{'#' * round(part * 30):30}] {part:4.0%}" if part >= 0 else ""
            print(f"\r\x1b[K{what} {bar}", end="", file=sys.stderr, flush=True)
        elif what != last and not quiet:
            print(f"{what} …", file=sys.stderr)
        last = what

    try:
        yield show
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# boot, shell


def _guest_url(args: argparse.Namespace) -> QemuURL:
    from memhp.backends import base

    text: str = args.guest
    if not text.startswith("qemu:"):
        text = f"qemu:{text}"
    for key in ("kernel", "modules"):
        value = getattr(args, key)
        if value:
            text += f"{'&' if '?' in text else '?'}{key}={base.quote(value)}"
    url = base.parse(text)
    assert isinstance(url, base.QemuURL)
    return url


def _sockets(folder: str) -> Path:
    """Return the folder for sockets, made if need be; UsageError if a guest is there already."""
    path = Path(folder).absolute()
    path.mkdir(parents=True, exist_ok=True)
    for name in _SOCKETS:
        if (path / name).is_socket() and not _answers(path / name):
            (path / name).unlink()                             # left by a memhp that was killed
        if (path / name).exists():
            raise UsageError(f"{path / name}: is there already, another guest's; name another folder")
    return path


def _answers(path: Path) -> bool:
    """Whether somebody listens on a socket."""
    import socket

    with socket.socket(socket.AF_UNIX) as ours:
        try:
            ours.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _remove(folder: Path) -> None:
    for name in _SOCKETS:
        (folder / name).unlink(missing_ok=True)


def _boot(args: argparse.Namespace) -> int:
    import dataclasses

    from memhp.backends import base
    from memhp.backends.qemu import backend, images
    from memhp.machine import Machine
    from memhp.units import format_size

    url = _guest_url(args)
    what = backend.describe(url)
    sockets = _sockets(args.stay) if args.stay else None
    if sockets is not None:
        images.fetch_agent(url.arch)
        what = dataclasses.replace(what, sockets=sockets)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        if sockets is not None:
            stack.callback(_remove, sockets)
        machine = stack.enter_context(Machine(backend.QemuBackend(str(url), what)))
        seconds = time.monotonic() - start
        release = machine.read("/proc/sys/kernel/osrelease").strip()
        memory = machine.memory()
        cmdline = machine.read("/proc/cmdline").strip()
        about: dict[str, object] = {
            "machine": str(url), "release": release, "seconds": round(seconds, 1), "block_size": memory.block_size,
            "blocks": len(memory.blocks), "auto_online": memory.auto_online, "cmdline": cmdline,
        }  # fmt: skip
        if sockets is not None:
            there = f"qemu+unix:{base.quote(str(sockets / 'qmp.sock'))}?qga={base.quote(str(sockets / 'qga.sock'))}"
            about["machine"] = there
            if common.as_json(args):
                common.print_json(about)
            else:
                print(f"Linux {common.printable(release)}, up after {seconds:.1f} s; Ctrl-C ends it\n\n  -m '{there}'")
            sys.stdout.flush()
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with contextlib.suppress(KeyboardInterrupt):
                while machine.backend.process.alive():         # type: ignore[attr-defined]
                    time.sleep(0.2)
            return common.DONE
    if common.as_json(args):
        common.print_json(about)
        return common.DONE
    print(f"Linux {common.printable(release)}, up after {seconds:.1f} s; blocks of {format_size(memory.block_size)}: "
          f"{len(memory.blocks)}; new ones are {memory.auto_online or 'offline'}")
    print(f"command line: {common.printable(cmdline)}")
    print(f"\nmemhp ls -m '{url}' looks at it; memhp run SCENARIO -m '{url}' works on it")
    return common.DONE


def _shell(args: argparse.Namespace) -> int:
    import dataclasses

    from memhp.backends.qemu import backend
    from memhp.backends.qemu.process import Process

    what = dataclasses.replace(backend.describe(_guest_url(args)), shell=True)
    print("Ctrl-] leaves the console and ends the guest.", file=sys.stderr)
    with Process(what) as process, _raw_terminal() as terminal:
        process.watch(_to_terminal)
        _pass_keys(process, terminal)
        process.watch(None)
        ended = not process.alive()
        told = process.how_it_ended() if ended else ""
    print(f"\r\n{told or 'the guest is ended'}", file=sys.stderr)
    return common.DONE


def _to_terminal(data: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(1, data)


def _pass_keys(process: object, terminal: bool) -> None:
    """Pass what is typed to the console until the detaching key, the end of input, or the end of the guest."""
    import select

    from memhp.backends.qemu.process import Process

    assert isinstance(process, Process)
    while process.alive():
        ready, _, _ = select.select([0], [], [], 0.2)
        if not ready:
            continue
        data = os.read(0, 4096)
        if not data or (terminal and DETACH in data):
            if not data:
                _wait_quiet(process)
            return
        try:
            process.type(data)
        except OSError as err:
            raise BackendError(f"the guest's console takes no more: {err.strerror}") from err


def _wait_quiet(process: object, seconds: float = 5.0, limit: float = 120.0) -> None:
    """After the end of piped input, wait until the console has printed nothing for a while."""
    from memhp.backends.qemu.process import Process

    assert isinstance(process, Process)
    end = time.monotonic() + limit
    before, since = "", time.monotonic()
    while process.alive() and time.monotonic() < end and time.monotonic() - since < seconds:
        now = process.console()
        if now != before or "# " not in now:
            before, since = now, time.monotonic()
        time.sleep(0.2)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[bool]:
    """Let every key through as it is typed; afterwards the terminal is as it was. Yields whether there is one."""
    import termios
    import tty

    if not os.isatty(0):
        yield False
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield True
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
