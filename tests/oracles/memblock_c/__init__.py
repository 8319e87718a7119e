# SPDX-License-Identifier: GPL-2.0-only
"""
The C memblock as an oracle: the kernel's own mm/memblock.c, run in a child process.

Debian's packages linux-source-6.1 and linux-source-6.12 hold the kernel's sources, and in them tools/testing/memblock, the
headers with which memblock compiles in user space. `build()` unpacks those few files into a folder under the user's cache and
compiles `driver.c`, which lies beside this file, into a shared object. Nothing that belongs to the kernel is ever kept here.

`Original` is one such object in a child process: panic() must not end the test run. Operations go in by batches, and for each
comes back what it returned, what it printed, and all of memblock's state, as bytes (`driver.c` says in which order), so that a
comparison is a comparison of bytes. `Answer` reads them.

    python -m tests.oracles.memblock_c      builds what can be built, and says what is missing
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

RELEASES = ("6.1", "6.12")
HERE = Path(__file__).parent
DRIVER = HERE / "driver.c"
WANTED = re.compile(
    r"[^/]+/(mm/memblock\.c|include/linux/(memblock|gfp_types)\.h|tools/testing/memblock/.*|tools/(include|arch/x86/include)/.*"
    r"|tools/lib/(cmdline|ctype)\.c)")
NODES_SHIFT = 6
"""As memhp.linux.include.numa has it, there and here without NUMA, too: MAX_NUMNODES is a word, not a number."""

_LIST = re.sub(r"/\*.*?\*/", "", re.findall(r"enum verb \{(.*?)NR_VERBS", DRIVER.read_text(), re.S)[0], flags=re.S)
VERBS = {name: number for number, name in enumerate(re.findall(r"[A-Z_]+", _LIST))}
"""The operations of driver.c, by name."""

OP = struct.Struct("<Ii6Q")
MASK = (1 << 64) - 1


class Unavailable(Exception):
    """The original cannot be had here; the text says what is missing."""


def cache() -> Path:
    """Where unpacked sources and compiled objects lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memhp" / "memblock-oracle"


def missing(release: str) -> str:
    """Say what is missing for a release, or return nothing."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    if not tarball(release).exists():
        return f"the package linux-source-{release} is not installed"
    return ""


def tarball(release: str) -> Path:
    return Path(f"/usr/src/linux-source-{release}.tar.xz")


def _unpack(release: str) -> Path:
    """Return the folder with the few files that are needed."""
    source = tarball(release)
    stat = source.stat()
    key = hashlib.sha256(f"{WANTED.pattern} {stat.st_size} {stat.st_mtime}".encode()).hexdigest()[:8]
    folder = cache() / f"{release}-{key}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and WANTED.fullmatch(member.name) and ".." not in member.name:
                    content = archive.extractfile(member)
                    assert content is not None
                    target = Path(scratch, member.name.partition("/")[2])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.read())
        # What the Makefile of tools/testing/memblock does with links.
        tests = Path(scratch) / "tools/testing/memblock"
        (tests / "memblock.c").symlink_to("../../../mm/memblock.c")
        (tests / "linux/memblock.h").symlink_to("../../../../include/linux/memblock.h")
        for name in ("asm.h", "cmpxchg.h"):
            if (Path(scratch) / "tools/arch/x86/include/asm" / name).exists():
                (tests / "asm" / name).symlink_to(f"../../../arch/x86/include/asm/{name}")
        Path(scratch).rename(folder)
        Path(scratch).mkdir()
    return folder


def build(release: str, *, numa: bool = True) -> Path:
    """
    Return the shared object of a release, compiled if need be.

    Raises:
        Unavailable: something is missing.
    """
    if reason := missing(release):
        raise Unavailable(reason)
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / f"{release}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)      # tests run side by side; one of them builds
        return _build(release, numa)


def _build(release: str, numa: bool) -> Path:
    folder = _unpack(release)
    flags = [
        "-std=gnu11", "-Wl,-z,defs", "-O2", "-fPIC", "-shared", "-w",
        "-DCONFIG_PHYS_ADDR_T_64BIT", "-DCONFIG_DEBUG_FS", "-DCONFIG_ARCH_KEEP_MEMBLOCK",
        f"-DCONFIG_NODES_SHIFT={NODES_SHIFT}", *(["-DCONFIG_NUMA"] if numa else []),
    ]
    key = hashlib.sha256(DRIVER.read_bytes() + " ".join(flags).encode()).hexdigest()[:16]
    target = folder / f"memblock-{'numa' if numa else 'flat'}-{key}.so"
    if target.exists():
        return target
    scratch = target.with_suffix(f".{os.getpid()}")
    library = [f"../../lib/{path.name}" for path in sorted((folder / "tools/lib").glob("*.c"))]
    command = ["gcc", *flags, "-I.", "-I../../include", "-o", str(scratch), str(DRIVER.resolve()), "mmzone.c", *library]
    done = subprocess.run(command, cwd=folder / "tools/testing/memblock", capture_output=True, text=True, check=False)
    if done.returncode:
        if "stdio.h: No such file" in done.stderr:
            raise Unavailable("the C library's headers are not installed (libc6-dev)")
        raise RuntimeError(f"memblock of linux-source-{release} does not compile:\n{done.stderr}")
    scratch.replace(target)
    return target


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What came of one operation.

    Attributes:
        status: 0 done; 1 panic; 2 BUG; 3 not run, because an earlier one died.
        results: What it returned, or yielded, in order.
        log: What it printed.
        switches: 1 bottom-up, 2 some memory is mirrored, 4 arrays may grow.
        current_limit: Allocations stay below.
        types: Of memory and of reserved: (room, total, array, regions); a region is (base, size, flags, node). The array is 0 in
            the kernel image, 1 from slab, else its physical address.
    """

    status: int
    results: tuple[int, ...]
    log: str
    switches: int = 0
    current_limit: int = 0
    types: tuple[tuple[int, int, int, tuple[tuple[int, int, int, int], ...]], ...] = ()

    @staticmethod
    def read(data: bytes) -> Answer:
        """Read one answer; `data` begins behind its length."""
        status, count = struct.unpack_from("<II", data)
        results = struct.unpack_from(f"<{count}Q", data, 8)
        at = 8 + 8 * count
        (size,) = struct.unpack_from("<I", data, at)
        log = data[at + 4:at + 4 + size].decode()
        at += 4 + size
        if status:
            return Answer(status, results, log)
        switches, limit = struct.unpack_from("<IQ", data, at)
        at += 12
        types = []
        for _ in range(2):
            cnt, room, total, array = struct.unpack_from("<IIQQ", data, at)
            at += 24
            types.append((room, total, array, tuple(struct.unpack_from("<QQIi", data, at + 24 * i) for i in range(cnt))))
            at += 24 * cnt
        return Answer(status, results, log, switches, limit, tuple(types))


def op(verb: str, *arguments: int | str) -> bytes:
    """Return one operation as bytes; a text takes the place of all arguments."""
    if arguments and isinstance(arguments[0], str):
        return struct.pack("<Ii48s", VERBS[verb], 0, arguments[0].encode()[:47])
    numbers = [int(a) & MASK for a in arguments]
    return OP.pack(VERBS[verb], 0, *numbers, *[0] * (6 - len(numbers)))


class Original:
    """A C memblock in a child process; a context manager."""

    def __init__(self, release: str, *, numa: bool = True) -> None:
        self.release = release
        self.numa = numa
        path = build(release, numa=numa)
        code = f"import ctypes, sys; sys.exit(ctypes.CDLL({str(path)!r}).memblock_serve(0, 1))"
        self.child = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Original:
        return self

    def __exit__(self, *exc: object) -> None:
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()
        self.child.wait()

    def run(self, operations: list[bytes]) -> list[bytes]:
        """Run operations; return an answer for each, as bytes."""
        out, back = self.child.stdin, self.child.stdout
        assert out is not None and back is not None
        out.write(struct.pack("<I", len(operations)) + b"".join(operations))
        out.flush()
        (total,) = struct.unpack("<Q", self._exactly(back, 8))
        data = self._exactly(back, total)
        answers = []
        at = 0
        while at < total:
            (size,) = struct.unpack_from("<I", data, at)
            answers.append(data[at + 4:at + 4 + size])
            at += 4 + size
        return answers

    def _exactly(self, pipe: IO[bytes], size: int) -> bytes:
        data = pipe.read(size)
        if len(data) != size:
            raise RuntimeError(f"the C memblock of {self.release} died with {self.child.wait()}")
        return data


class Clock:
    """A C memblock in this process, to be timed. It must not panic."""

    def __init__(self, release: str) -> None:
        self.library = ctypes.CDLL(str(build(release)))
        self.library.memblock_time.restype = ctypes.c_double
        self.library.memblock_time.argtypes = [ctypes.c_char_p, ctypes.c_ulong]

    def seconds(self, operations: list[bytes]) -> float:
        """Return how long the operations take together."""
        seconds: float = self.library.memblock_time(b"".join(operations), len(operations))
        if seconds < 0:
            raise RuntimeError("the C memblock died")
        return seconds
