# SPDX-License-Identifier: GPL-2.0-only
"""
Kernels and initramfs images we boot.

Kernels come from the Debian packages that the apt of this machine can reach, for other architectures and from other suites
too, without root and without touching the machine's own package lists: `fetch()` keeps lists and downloads of its own in the
cache folder, and apt checks every signature and hash. A folder of the cache appears at once, complete, or not at all::

    CACHE/kernels/v6.12-arm64-4K/     kernel.json, vmlinuz, config, modules/*.ko
    CACHE/busybox/arm64/busybox       static
    CACHE/agent/arm64/…               the QEMU guest agent and its libraries, for guests that others are to work with
    CACHE/initramfs/HASH.cpio         made by `initramfs()` from busybox, modules and the init script
    CACHE/apt/arm64-sid/              package lists and packages, partial downloads included

The initramfs holds busybox, the modules that reach the host and plug memory (in the order of their dependencies), and an init
that answers on a virtio serial port: see `memhp.backends.qemu.guest`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from memhp.errors import BackendError, UsageError, did_you_mean
from memhp.units import KIB, MIB, format_size

Progress = Callable[[str, float], None]
"""What is being done, and how much of it: 0 … 1, or -1 where nobody knows."""

DEBIAN_ARCH = {"arm64": "arm64", "x86_64": "amd64"}
PAGES = {4 * KIB: "4K", 16 * KIB: "16K", 64 * KIB: "64K"}
NEWEST = "newest"
SUITES = ("sid", "trixie", "bookworm", "bullseye")
"""Debian's suites that are looked into after the machine's own: the one with the newest kernels first."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NEEDED = ("virtio_pci", "virtio_console")
"""Modules, built in or not, without which the guest cannot answer."""
WANTED = ("virtio_mem",)
"""Modules that are taken along where the kernel has them."""
FETCH_TIMEOUT = 300.0
"""Seconds without any progress after which apt is ended."""
LOCK_TIMEOUT = 1800.0
"""Seconds that another fetch is waited for."""
FULL_TIMEOUT = 5.0
"""Seconds without any progress after which it is, if there is no space left."""
UNPACKED_LIMIT = 256 * MIB
"""Bytes of the largest module that is unpacked."""

_ELF_MACHINES = {62: "x86_64", 183: "arm64"}
OS_RELEASE = Path("/etc/os-release")

_HOPELESS = re.compile(r"[Nn]o space left|Temporary failure resolving|Could not (?:resolve|connect)|no progress")
"""What apt complains of if the next suite will not do any better."""
_RELEASE = re.compile(r"v([0-9]+)\.([0-9]+)")
_MODULE_ENDS = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """
    A kernel that can be booted.

    Attributes:
        arch: "arm64" or "x86_64".
        release: As its package or its modules say it: "6.12.117+deb12-cloud-arm64"; "" if nobody says.
        image: What QEMU loads.
        modules: Files to load, in this order.
        config: Its configuration, or None.
        origin: Where it comes from, in words.
    """

    arch: str
    release: str
    image: Path
    modules: tuple[Path, ...] = ()
    config: Path | None = None
    origin: str = ""


def cache_folder() -> Path:
    """Return the folder for downloads and what is made of them: `MEMHP_CACHE`, else the user's cache folder."""
    own = os.environ.get("MEMHP_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memhp"


def kernel_folder(arch: str, release: str, page_size: int = 4 * KIB) -> Path:
    """Return where a fetched kernel lies, or would."""
    return cache_folder() / "kernels" / f"{release}-{arch}-{PAGES[page_size]}"


def check_release(release: str) -> None:
    """Raise UsageError unless it is "v6.12" or "newest"."""
    if release != NEWEST and _RELEASE.fullmatch(release) is None:
        near = f"; did you mean v{release}?" if _RELEASE.fullmatch(f"v{release}") else did_you_mean(release, (NEWEST, "v6.12"))
        raise UsageError(f"kernel release {release[:40]!r} is neither like v6.12 nor {NEWEST}{near}")


def find(arch: str, release: str, page_size: int = 4 * KIB) -> Kernel | None:
    """Return a kernel that was fetched before, or None."""
    check_release(release)
    folder = kernel_folder(arch, release, page_size)
    try:
        about = json.loads((folder / "kernel.json").read_text())
        modules = tuple(folder / "modules" / name for name in about["modules"])
        kernel = Kernel(
            arch=arch, release=about["release"], image=folder / "vmlinuz", modules=modules, config=folder / "config",
            origin=about["origin"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kernel if all(path.is_file() for path in (kernel.image, *modules)) else None


def fetched() -> list[tuple[str, str]]:
    """Return name and release of every kernel in the cache."""
    found = []
    for folder in sorted((cache_folder() / "kernels").glob("*-*-*")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append((folder.name, str(json.loads((folder / "kernel.json").read_text())["release"])))
    return found


def need(arch: str, release: str, page_size: int = 4 * KIB) -> Kernel:
    """
    Return a fetched kernel.

    Raises:
        BackendError: it is not here; says the command that gets it.
    """
    kernel = find(arch, release, page_size)
    if kernel is None:
        page = f" --page {PAGES[page_size]}" if page_size != 4 * KIB else ""
        raise BackendError(
            f"no kernel {release} for {arch}{f' with pages of {PAGES[page_size]}' if page else ''} here yet; "
            f"memhp vm fetch {arch} {release}{page} gets it, and kernel=IMAGE in the URL boots your own")
    return kernel


def own_kernel(arch: str, image: str, modules: str = "") -> Kernel:
    """
    Return a kernel of the user's own.

    Args:
        arch: Its architecture.
        image: The file: Image, bzImage, vmlinuz.
        modules: A folder with its modules (the tree that `make modules_install` makes, or any part of it), or "".

    Raises:
        UsageError: no such file, or not a kernel of that architecture.
    """
    path = Path(image)
    try:
        with open(path, "rb") as file:
            head = file.read(0x240)
    except OSError as err:
        raise UsageError(f"kernel {image}: {(err.strerror or str(err)).lower()}") from None
    found = image_arch(head)
    if found != arch:
        what = f"a kernel for {found}" if found else "no kernel to boot, such as Image or vmlinuz (arm64), bzImage (x86_64)"
        raise UsageError(f"kernel {image}: is {what}; {arch} is wanted")
    files: tuple[Path, ...] = ()
    if modules:
        if not Path(modules).is_dir():
            raise UsageError(f"modules {modules}: no such folder")
        files = tuple(module_order(Path(modules), (*NEEDED, *WANTED)))
        for module in files:
            found = elf_arch(read_module(module))
            if found != arch:
                raise UsageError(f"modules {modules}: {module.name} is for {found or 'another architecture'}; {arch} is wanted")
    return Kernel(arch=arch, release="", image=path, modules=files, origin=image)


def image_arch(head: bytes) -> str:
    """
    Return the architecture of a kernel image from its first bytes, or "".

    arm64: the magic at 56 of Documentation/arch/arm64/booting.rst, a gzip of one, or an EFI zboot image; x86_64: the boot
    protocol's "HdrS" at 0x202.
    """
    if head[0x38:0x3C] == b"ARMd" or head[:2] == b"\x1f\x8b":
        return "arm64"
    if head[0x202:0x206] == b"HdrS":
        return "x86_64"
    if head[:2] == b"MZ" and head[4:8] == b"zimg":
        return "arm64"
    return ""


def elf_arch(data: bytes) -> str:
    """Return the architecture of a program or module from its ELF header, or ""."""
    return _ELF_MACHINES.get(int.from_bytes(data[18:20], "little"), "") if data[:4] == b"\x7fELF" else ""


# Fetching


def fetch(arch: str, release: str, page_size: int = 4 * KIB, *, progress: Progress | None = None, again: bool = False) -> Kernel:
    """
    Get the newest package of a kernel, and busybox for its architecture, into the cache; quick when they are there.

    Args:
        arch: "arm64" or "x86_64".
        release: "v6.12", or "newest": the newest kernel that Debian ships in any suite.
        page_size: Bytes.
        progress: Called while it works.
        again: Look for a newer package though one is there.

    Raises:
        UsageError: no such release anywhere; says which there are.
        BackendError: no apt here, no network, no space; what is there already stays usable.
    """
    check_release(release)
    say = progress or (lambda what, part: None)
    with _locked(say):
        kernel = None if again else find(arch, release, page_size)
        if kernel is None:
            need_apt(arch, release)
            kernel = _fetch_kernel(arch, release, page_size, say)
        if not busybox(arch).is_file():
            need_apt(arch, release)
            _fetch_busybox(arch, say)
    return kernel


def need_apt(arch: str, release: str) -> None:
    """Raise BackendError where there is no apt."""
    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise BackendError(
            f"kernels are fetched through Debian's apt, and there is no {missing[0]} here; boot one of your own with "
            f"--kernel IMAGE --modules DIR, or copy {cache_folder()} from a machine that has fetched {release} for {arch}")


def busybox(arch: str) -> Path:
    """Return where the static busybox of an architecture lies, or would: `MEMHP_BUSYBOX` is one of the user's own."""
    own = os.environ.get("MEMHP_BUSYBOX")
    return Path(own) if own else cache_folder() / "busybox" / arch / "busybox"


@contextlib.contextmanager
def _locked(say: Progress) -> Iterator[None]:
    """
    Hold the cache's lock: two fetches at once would get in each other's way.

    Raises:
        BackendError: somebody else holds it for longer than `LOCK_TIMEOUT`.
    """
    folder = cache_folder()
    with _saying(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / "lock", "w")  # noqa: SIM115 - closed below
    with handle:
        deadline = _now() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if _now() > deadline:
                    words = f"another memhp has been fetching into it for {LOCK_TIMEOUT:g} s; waited for its end"
                    raise BackendError(f"{folder}: {words}") from None
                say("another memhp is fetching; waiting for its end", -1)
                time.sleep(0.2)
            except OSError as err:
                raise BackendError(f"{folder}: {(err.strerror or str(err)).lower()}") from err
        yield


@contextlib.contextmanager
def _saying(place: Path) -> Iterator[None]:
    """Turn what the file system refuses into a BackendError."""
    try:
        yield
    except OSError as err:
        raise BackendError(f"{err.filename or place}: {(err.strerror or str(err)).lower()}") from err


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` that takes its place in the end; after an exception all is as it was."""
    with _saying(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield fresh
            if folder.exists():
                shutil.rmtree(folder)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _fetch_kernel(arch: str, release: str, page_size: int, say: Progress) -> Kernel:
    deb = DEBIAN_ARCH[arch]
    seen: dict[str, list[str]] = {}
    for apt, suite in _apts(deb, (SUITES[0],) if release == NEWEST else ("", *SUITES), say):
        names = kernel_packages(apt.names(), deb, release, page_size)
        seen[suite] = apt.names()
        if not names:
            continue
        folder = kernel_folder(arch, release, page_size)
        with _appearing(folder) as fresh, tempfile.TemporaryDirectory(prefix="memhp-") as unpacked:
            for name in names:
                say(f"unpacking {name}", -1)
                apt.unpack(name, Path(unpacked), say)
            _take_kernel(Path(unpacked), fresh, f"Debian's {' and '.join(names)}")
        kernel = find(arch, release, page_size)
        assert kernel is not None
        return kernel
    kernels = re.compile(r"linux-(?:image|binary)-([0-9]+\.[0-9]+)")
    have = sorted({match[1] for names in seen.values() for name in names if (match := kernels.match(name))}, key=version_key)
    raise UsageError(
        f"no package of a kernel {release} for {arch} with pages of {PAGES[page_size]} in any suite of this machine's mirror; "
        f"there are {', '.join('v' + version for version in have) or 'none'}")


def kernel_packages(names: Sequence[str], deb: str, release: str, page_size: int) -> list[str]:
    """
    Return the packages that hold the newest kernel of a release: one, or image and modules apart; none if there is none.

    Args:
        names: Names of packages.
        deb: Debian's name of the architecture.
        release: "v6.12" or "newest".
        page_size: Bytes.

    >>> kernel_packages(["linux-image-6.1.0-9-cloud-arm64-unsigned", "linux-image-6.1.0-50-cloud-arm64-unsigned"],
    ...                 "arm64", "v6.1", 4096)
    ['linux-image-6.1.0-50-cloud-arm64-unsigned']
    """
    if page_size == 4 * KIB:
        flavour = f"cloud-{deb}"
    elif page_size == 16 * KIB and deb == "arm64":
        flavour = "arm64-16k"
    else:
        return []
    number = "[0-9]+" if release == NEWEST else re.escape(release.removeprefix("v")) + "(?![0-9])"
    pattern = re.compile(rf"linux-(image|binary)-({number}[0-9a-z.+~-]*?)-{flavour}(-unsigned)?")
    found = []
    for name in names:
        match = pattern.fullmatch(name)
        modules = f"linux-modules-{match[2]}-{flavour}" if match else ""
        if match and match[1] == "binary" and modules in names:
            found.append((version_key(match[2]), [name, modules]))
        elif match and match[1] == "image" and match[3]:
            found.append((version_key(match[2]), [name]))
    return max(found)[1] if found else []


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """
    Return what sorts versions as people count.

    >>> version_key("6.12.9+deb12") < version_key("6.12.10+deb12")
    True
    """
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"[0-9]+|[^0-9]+", version))


def _take_kernel(unpacked: Path, folder: Path, origin: str) -> None:
    """Keep of an unpacked package what a boot needs, and what it is."""
    tops = ("usr/lib/modules", "lib/modules")
    trees = [path for top in tops for path in unpacked.glob(f"{top}/*") if path.is_dir()]
    images = [*unpacked.glob("boot/vmlinu?-*"), *(path for tree in trees for path in tree.glob("vmlinuz"))]
    if not images or not trees:
        raise BackendError(f"{origin} hold no {'image' if not images else 'modules'} where they used to be")
    shutil.copyfile(images[0], folder / "vmlinuz")
    configs = [*unpacked.glob("boot/config-*"), *(path for tree in trees for path in tree.glob("config"))]
    if configs:
        shutil.copyfile(configs[0], folder / "config")
    modules = folder / "modules"
    modules.mkdir()
    names = []
    for path in module_order(trees[0], (*NEEDED, *WANTED)):
        name = module_name(path)
        (modules / f"{name}.ko").write_bytes(read_module(path))
        names.append(f"{name}.ko")
    about = {"release": trees[0].name, "origin": origin, "modules": names}
    (folder / "kernel.json").write_text(json.dumps(about, indent=1) + "\n")


def _apts(deb: str, suites: Sequence[str], say: Progress) -> Iterator[tuple[Apt, str]]:
    """
    Yield an apt for each suite, up to date; "" are this machine's own.

    Those that cannot be read are passed over: a mirror does not carry every suite, and Ubuntu's not every architecture.

    Raises:
        BackendError: none can be read.
    """
    refused: list[BackendError] = []
    read = 0
    for suite in suites:
        try:
            apt = Apt(deb, suite)
            apt.update(say)
        except BackendError as err:
            if _HOPELESS.search(str(err)):
                raise
            refused.append(err)
            continue
        read += 1
        yield apt, suite
    if not read:
        raise refused[-1]


def _a_package(deb: str, name: str, say: Progress) -> Apt:
    """Return an apt that has a package. Raises BackendError."""
    for apt, _ in _apts(deb, ("", *reversed(SUITES[1:])), say):
        if name in apt.names():
            return apt
    raise BackendError(f"no package {name} for {deb} in any suite that apt can read here")


def _fetch_busybox(arch: str, say: Progress) -> None:
    apt = _a_package(DEBIAN_ARCH[arch], "busybox-static", say)
    with _appearing(busybox(arch).parent) as fresh, tempfile.TemporaryDirectory(prefix="memhp-") as unpacked:
        apt.unpack("busybox-static", Path(unpacked), say)
        found = [*Path(unpacked).glob("bin/busybox"), *Path(unpacked).glob("usr/bin/busybox")]
        if not found:
            raise BackendError("the package busybox-static holds no busybox where it used to be")
        shutil.copyfile(found[0], fresh / "busybox")


def agent_folder(arch: str) -> Path:
    """Return where the guest agent of an architecture lies, or would."""
    return cache_folder() / "agent" / arch


def fetch_agent(arch: str, *, progress: Progress | None = None) -> None:
    """Get the QEMU guest agent and its libraries into the cache; quick when they are there. Raises BackendError."""
    say = progress or (lambda what, part: None)
    if (agent_folder(arch) / "qemu-ga").is_file():
        return
    with _locked(say):
        need_apt(arch, "the guest agent")
        apt = _a_package(DEBIAN_ARCH[arch], "qemu-guest-agent", say)
        with _appearing(agent_folder(arch)) as fresh, tempfile.TemporaryDirectory(prefix="memhp-") as unpacked:
            for name in apt.libraries("qemu-guest-agent"):
                apt.unpack(name, Path(unpacked), say)
            programs = [*Path(unpacked).glob("usr/sbin/qemu-ga"), *Path(unpacked).glob("usr/bin/qemu-ga")]
            if not programs:
                raise BackendError("the package qemu-guest-agent holds no qemu-ga where it used to be")
            shutil.copyfile(programs[0], fresh / "qemu-ga")
            for library in _libraries(programs[0], Path(unpacked)):
                shutil.copyfile(library, fresh / library.name)


def _libraries(program: Path, tree: Path) -> list[Path]:
    """Return the shared libraries below `tree` that a program needs, those that libraries need, and the loader."""
    files = {path.name: path for path in sorted(tree.rglob("*.so*")) if path.is_file() and "/gconv/" not in str(path)}
    found: dict[str, Path] = {}
    waiting = [program]
    while waiting:
        data = waiting.pop().read_bytes()
        for match in re.finditer(rb"[A-Za-z0-9_+.-]+\.so(?:\.[0-9]+)*(?=\0)", data):
            name = match[0].decode()
            if name in files and name not in found:
                found[name] = files[name]
                waiting.append(files[name])
    return list(found.values())


def debian_mirror(sources: Sequence[tuple[str, str, str]] | None = None) -> str:
    """
    Return a mirror of Debian: the one that this machine has configured, or `MEMHP_DEBIAN_MIRROR`.

    Args:
        sources: Those of apt; None: they are looked up.

    Raises:
        BackendError: there is none; says what would do.
    """
    own = os.environ.get("MEMHP_DEBIAN_MIRROR", "")
    if own:
        return own if own.endswith("/") else f"{own}/"
    sources = apt_sources() if sources is None else sources
    for origin, label, uri in sources:
        if origin == label == "Debian":
            return uri
    if not sources:
        why = "apt knows no package lists here yet: apt-get update brings them"
    else:
        others = ", ".join(dict.fromkeys(origin for origin, _, _ in sources if origin)) or "nobody's"
        why = f"no mirror of Debian is among the apt sources of {system_name()} (they are {others})"
    raise BackendError(
        f"{why}; kernels come from Debian's packages: MEMHP_DEBIAN_MIRROR=URL names a mirror (and the package "
        "debian-archive-keyring lets apt check it), or boot a kernel of your own with --kernel IMAGE --modules DIR")


def apt_sources() -> list[tuple[str, str, str]]:
    """Return origin, label and address of each source of packages that this machine's apt has lists of."""
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    try:
        done = subprocess.run(
            ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], capture_output=True, text=True)
    except OSError:
        return []
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return list(dict.fromkeys((row[0], row[1], row[2]) for row in rows if len(row) == 3))


def system_name() -> str:
    """Return what this machine runs: "Ubuntu 24.04.1 LTS"; "this machine" if it does not say."""
    try:
        match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', OS_RELEASE.read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        match = None
    return match[1] if match else "this machine"


class Apt:
    """
    An apt with lists, downloads and an architecture of its own.

    Args:
        deb: Debian's name of the architecture.
        suite: A suite other than those this machine has configured, or "".
    """

    def __init__(self, deb: str, suite: str = "") -> None:
        self._suite = suite
        self._folder = cache_folder() / "apt" / f"{deb}-{suite or 'own'}"
        with _saying(self._folder):
            (self._folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            (self._folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self._options = [
            f"-oAPT::Architecture={deb}", f"-oAPT::Architectures={deb}", "-oDir::State::status=/dev/null",
            f"-oDir::State::Lists={self._folder}/lists", f"-oDir::Cache={self._folder}/cache", "-oAcquire::Languages=none",
        ]  # fmt: skip
        if os.geteuid() == 0:
            self._options.append("-oAPT::Sandbox::User=root")      # the cache may lie where apt's own user cannot look
        if suite:
            sources = self._folder / "sources.list"
            with _saying(sources):
                sources.write_text(f"deb {self._signed()}{debian_mirror()} {suite} main\n")
            self._options += [f"-oDir::Etc::sourcelist={sources}", "-oDir::Etc::sourceparts=/dev/null"]
        self._names: list[str] = []

    @staticmethod
    def _signed() -> str:
        return f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""

    def update(self, say: Progress) -> None:
        """Bring the lists up to date; those younger than a day are taken as they are. Raises BackendError."""
        stamp = self._folder / "updated"
        with contextlib.suppress(OSError):
            if 0 <= _now() - stamp.stat().st_mtime < 86400:
                return
        where = self._suite or "this machine's suites"
        done = self._run(["apt-get", *self._options, "-q", "update"], f"package lists of {where}", say)
        if done.returncode or re.search(r"^(Err|E):", done.stdout + done.stderr, re.MULTILINE):
            raise BackendError(f"apt cannot read the package lists of {where}: {_complaint(done)}")
        with _saying(stamp):
            stamp.touch()

    def names(self) -> list[str]:
        """Return the names of all packages."""
        if not self._names:
            done = subprocess.run(["apt-cache", *self._options, "pkgnames"], capture_output=True, text=True)
            self._names = done.stdout.split()
        return self._names

    def libraries(self, name: str) -> list[str]:
        """Return a package and the libraries it depends on, and those depend on."""
        found = [name]
        for package in found:
            done = subprocess.run(["apt-cache", *self._options, "depends", package], capture_output=True, text=True)
            for match in re.finditer(r"^  (?:Pre)?Depends: ((?:lib|zlib)[^\s<>]+)$", done.stdout, re.MULTILINE):
                if match[1] not in found:
                    found.append(match[1])
        return found

    def unpack(self, name: str, folder: Path, say: Progress) -> None:
        """Download a package and unpack it into `folder`. Raises BackendError."""
        archives = self._folder / "cache" / "archives"
        done = self._run(["apt-get", *self._options, "-q", "download", name], f"downloading {name}", say, cwd=archives)
        files = sorted(archives.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
        if done.returncode or not files:
            raise BackendError(f"apt cannot download {name}: {_complaint(done)}; what came so far is kept for the next time")
        unpacked = subprocess.run(["dpkg-deb", "-x", str(files[-1]), str(folder)], capture_output=True, text=True)
        if unpacked.returncode:
            raise BackendError(f"{files[-1].name} cannot be unpacked: {_complaint(unpacked)}")
        for path in files:
            path.unlink(missing_ok=True)

    def _run(self, command: list[str], what: str, say: Progress, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """
        Run apt-get and pass on how far it is.

        Where the disk is full apt waits for ever, so it is ended when it makes no progress.

        Raises:
            BackendError: it made none.
        """
        say(what, -1)
        reader, writer = os.pipe()
        status = os.fdopen(reader, "rb", buffering=0)
        with status, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            try:
                process = subprocess.Popen(
                    [command[0], f"-oAPT::Status-Fd={writer}", *command[1:]], stdin=subprocess.DEVNULL, stdout=out,
                    stderr=err, cwd=cwd, pass_fds=(writer,), env={**os.environ, "LC_ALL": "C.UTF-8"},
                )  # fmt: skip
            finally:
                os.close(writer)
            try:
                self._watch(status.fileno(), what, say)
                process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())


    def _watch(self, status: int, what: str, say: Progress) -> None:
        """Read how far apt is until it closes the file. Raises BackendError if it gets no further."""
        last, since, buffer = "", _now(), b""
        while True:
            ready, _, _ = select.select([status], [], [], 1.0)
            if ready:
                data = os.read(status, 4096)
                if not data:
                    return
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    parts = line.decode("utf-8", "replace").split(":")
                    if parts[:3] != last.split(":")[:3]:
                        last, since = ":".join(parts), _now()
                    if parts[0] == "dlstatus" and len(parts) > 2:
                        with contextlib.suppress(ValueError):
                            say(what, float(parts[2]) / 100)
            waited = _now() - since
            if waited > FULL_TIMEOUT and shutil.disk_usage(self._folder).free < MIB:
                raise BackendError(f"{self._folder}: no space left on device ({what}); MEMHP_CACHE=DIR names another folder")
            if waited > FETCH_TIMEOUT:
                raise BackendError(f"apt has made no progress for {FETCH_TIMEOUT:g} s: {what}")


def _now() -> float:
    return time.time()


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line of a program's output that says what is wrong."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("E:", "dpkg-deb: error", "Err:"))] or lines[-1:]
    return told[0] if told else f"it ended with {done.returncode} and no word"


# Modules


def module_name(path: Path) -> str:
    """
    Return a module's name, as the kernel writes it.

    >>> module_name(Path("kernel/drivers/virtio/virtio-mem.ko.xz"))
    'virtio_mem'
    """
    name = path.name
    return name[: name.index(".ko")].replace("-", "_")


def read_module(path: Path) -> bytes:
    """
    Return a module, unpacked.

    Raises:
        BackendError: it cannot be read, or is packed in a way this Python cannot undo.
    """
    try:
        raw = path.read_bytes()
        if path.name.endswith(".xz"):
            return lzma.LZMADecompressor().decompress(raw, UNPACKED_LIMIT)
        if path.name.endswith(".gz"):
            return gzip.decompress(raw)
        if path.name.endswith(".zst"):
            return _unzstd(path)
    except (OSError, lzma.LZMAError, EOFError) as err:
        raise BackendError(f"module {path}: {str(err).lower()}") from err
    return raw


def _unzstd(path: Path) -> bytes:
    """Unpack a module as Ubuntu packs them."""
    if shutil.which("zstd") is None:
        raise BackendError(f"module {path}: there is no program zstd to unpack it: apt-get install zstd")
    done = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True)
    if done.returncode or len(done.stdout) > UNPACKED_LIMIT:
        raise BackendError(f"module {path}: {done.stderr.decode('utf-8', 'replace').strip()[:200] or 'is too long'}")
    return done.stdout


def module_depends(data: bytes) -> list[str]:
    """Return the names of the modules that a module's `depends=` lists."""
    match = re.search(rb"\0depends=([^\0]*)\0", data)
    return [name.replace("-", "_") for name in match[1].decode("ascii", "replace").split(",") if name] if match else []


def module_order(tree: Path, wanted: Sequence[str]) -> list[Path]:
    """
    Return the files of the wanted modules and of all they depend on, each after what it needs.

    Modules that the tree does not have may be built in, and are left out.

    Args:
        tree: A folder of modules, at any depth; packed or not.
        wanted: Names.
    """
    files: dict[str, Path] = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            if name.endswith(_MODULE_ENDS):
                files.setdefault(module_name(Path(name)), Path(folder, name))
    order: list[Path] = []
    entered: set[str] = set()

    def enter(name: str) -> None:
        if name in entered or name not in files:
            return
        entered.add(name)
        for other in module_depends(read_module(files[name])):
            enter(other)
        order.append(files[name])

    for name in wanted:
        enter(name.replace("-", "_"))
    return order


# Initramfs


def initramfs(kernel: Kernel, *, agent: bool = False) -> Path:
    """
    Return the initramfs for a kernel, made now or before.

    Args:
        kernel: The kernel.
        agent: With the QEMU guest agent in it.

    Raises:
        BackendError: no busybox for its architecture, or the cache cannot be written.
    """
    shell = busybox(kernel.arch)
    try:
        program = shell.read_bytes()
    except OSError:
        raise BackendError(
            f"no static busybox for {kernel.arch} in {shell.parent}; memhp vm fetch {kernel.arch} {NEWEST} gets one, and "
            "MEMHP_BUSYBOX names one of your own") from None
    if elf_arch(program) != kernel.arch:
        what = f"a program for {elf_arch(program)}" if elf_arch(program) else "no program of a known architecture"
        raise BackendError(f"busybox {shell}: is {what}; {kernel.arch} is wanted")
    init = resources.files("memhp.backends.qemu").joinpath("init.sh").read_bytes()
    files: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in ("bin", "dev", "proc", "sys", "run", "modules")]
    files += [("bin/busybox", 0o100755, program), ("bin/sh", 0o120777, b"busybox"), ("init", 0o100755, init)]
    names = []
    for path in kernel.modules:
        names.append(module_name(path))
        files.append((f"modules/{names[-1]}.ko", 0o100644, read_module(path)))
    if agent:
        folder = agent_folder(kernel.arch)
        if not (folder / "qemu-ga").is_file():
            raise BackendError(f"no guest agent for {kernel.arch} in {folder}; memhp vm fetch {kernel.arch} agent gets it")
        files += [("lib", 0o040755, b""), ("lib64", 0o120777, b"lib")]
        files += [(f"lib/{path.name}", 0o100755, path.read_bytes()) for path in sorted(folder.iterdir())]
    files.append(("modules/order", 0o100644, "".join(f"{name}\n" for name in names).encode()))
    content = cpio(files)
    place = cache_folder() / "initramfs" / f"{hashlib.sha256(content).hexdigest()[:32]}.cpio"
    with _saying(place):
        if not (place.is_file() and place.stat().st_size == len(content)):
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=place.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                os.rename(name, place)
            except BaseException:
                os.unlink(name)
                raise
    return place


def cpio(files: Sequence[tuple[str, int, bytes]]) -> bytes:
    """Return an archive in the "newc" form: name, mode with type, content of each; the console device is added."""
    parts = []
    console = ("dev/console", 0o020600, b"")
    for number, (name, mode, data) in enumerate((*files, console, ("TRAILER!!!", 0, b"")), 1):
        device = (5, 1) if name == console[0] else (0, 0)
        links = 2 if mode >> 12 == 0o04 else 1
        fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
    return b"".join(parts)


def describe(kernel: Kernel) -> str:
    """Return a kernel in words."""
    size = format_size(kernel.image.stat().st_size // KIB * KIB)
    return f"{kernel.release or kernel.image} ({kernel.arch}, image {size}, modules {len(kernel.modules)}; {kernel.origin})"
