# SPDX-License-Identifier: GPL-2.0-only
"""
Real kernels asked often, without booting them each time and without a hundred requests for each look.

`Guests` boots a machine once, saves it as QEMU saves a machine that moves to another host, and starts it from there for each
scenario: every one meets the same freshly booted machine. `Snapshots` stands before such a guest: it reads all the small files of
a look by one script, and answers from that until the guest is told to do something.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from memhp.abi import kpageflags, record
from memhp.abi.files import MEMBLOCK, MEMORY, NODE
from memhp.abi.memory import read_block_size
from memhp.abi.record import PARAMETERS
from memhp.backends import base
from memhp.backends.base import Outcome, PluggedDevice, QemuURL
from memhp.backends.qemu import backend, process
from memhp.backends.qemu.backend import QemuBackend
from memhp.backends.qemu.guest import Guest
from memhp.backends.qemu.qmp import Monitor
from memhp.errors import BackendError
from memhp.scenario import Device

_SCRIPT = f"""
cd {MEMORY}
grep -s '' $PWD/block_size_bytes $PWD/auto_online_blocks $PWD/memory[0-9]*/state $PWD/memory[0-9]*/valid_zones \\
$PWD/memory[0-9]*/removable $PWD/memory[0-9]*/phys_index $PWD/memory[0-9]*/phys_device $PWD/memory[0-9]*/online \\
{PARAMETERS}/* {NODE}/possible {NODE}/online {NODE}/has_memory {NODE}/has_normal_memory \\
/proc/zoneinfo /proc/iomem {MEMBLOCK}/memory
for d in /proc {MEMORY} {NODE} {NODE}/node[0-9]* {MEMORY}/memory[0-9]* {PARAMETERS} {PARAMETERS.rpartition("/")[0]} {MEMBLOCK}; do
    [ -d $d ] && echo "=$d" $d/*
done
echo =log
dmesg
ranges=
for b in memory[0-9]*; do
    b=${{b#memory}}
    case "$boot" in *" $b "*) continue ;; esac
    if [ "$b" = "$next" ]; then count=$((count + 1)); else ranges="$ranges $first,$count"; first=$b; count=1; fi
    next=$((b + 1))
done
ranges="$ranges $first,$count"
echo "=pages$ranges"
[ "$first" ] && for r in $ranges; do
    [ "$r" != , ] && dd if={kpageflags.KPAGEFLAGS} bs=65536 iflag=skip_bytes,count_bytes \\
        skip=$((${{r%,*}} * size)) count=$((${{r#*,}} * size)) 2>/dev/null
done | gzip -1
true
"""
"""What a look needs: files, names in folders, the log, and the flags of the pages of blocks that were added, packed."""
_RESTORE_TIMEOUT = 60.0


class Restored(QemuBackend):
    """
    A guest that starts where another one was saved.

    Attributes:
        log_is_known: Nothing was done since its log was read.
    """

    log_is_known = False

    def __init__(self, url: str, what: process.Guest) -> None:
        self.url = url
        self.what = what
        self.arch = what.kernel.arch
        self._log = []
        self._booting = False
        self.process = process.Process(what)
        try:
            self.monitor = Monitor(self.process.monitor, self.process)
            self.guest = Guest(self.process.port, self._fail, self._may_answer)
            deadline = time.monotonic() + _RESTORE_TIMEOUT
            while self.monitor.execute("query-status")["status"] != "running":
                if time.monotonic() > deadline:
                    raise self.process.error(f"{url}: a saved guest does not start")
                time.sleep(0.05)
        except BaseException:
            self.close()
            raise

    def take_log(self, lines: list[str]) -> None:
        """Take over what dmesg printed."""
        self._merge(lines)
        self.log_is_known = True

    def _refresh(self) -> None:
        if not self.log_is_known:
            super()._refresh()


class Snapshots(base.Backend):
    """
    A guest, read all at once.

    Attributes:
        guest: The guest.
    """

    def __init__(self, guest: Restored) -> None:
        self.guest = guest
        self.url = guest.url
        self.verbs = guest.verbs
        self._files: dict[str, bytes] = {}
        self._folders: dict[str, list[str]] = {}
        self._flags: list[tuple[int, bytes]] = []
        self._boot: set[int] = set()
        self._flags_size = 0
        self._take()
        self._boot = {int(name[6:]) for name in self._folders[MEMORY] if name[6:].isdigit()}
        self._flags_size = read_block_size(self) // record.page_size(self) * 8
        self._forget()

    def _take(self) -> None:
        if self._folders:
            return
        boot = " ".join(map(str, sorted(self._boot)))
        code, data = self.guest.guest.run(f"boot=' {boot} '\nsize={self._flags_size}\n{_SCRIPT}")
        text, _, rest = data.partition(b"\n=pages")
        ranges, _, packed = rest.partition(b"\n")
        if code or not rest:
            raise BackendError(f"{self.url}: cannot be looked at", output=data.decode("utf-8", "replace")[-1000:])
        lines = text.decode("utf-8", "backslashreplace").splitlines()
        end = lines.index("=log")
        found: dict[str, list[str]] = {}
        for line in lines[:end]:
            if line.startswith("="):
                folder, *names = line[1:].split(" ")
                self._folders[folder] = [name.rpartition("/")[2] for name in names]
            else:
                path, _, content = line.partition(":")
                found.setdefault(path, []).append(content)
        self._files = {path: ("\n".join(contents) + "\n").encode() for path, contents in found.items()}
        self.guest.take_log(lines[end + 1 :])
        flags = gzip.decompress(packed) if packed else b""
        pieces = [tuple(map(int, word.split(","))) for word in ranges.decode().split() if word != ","]
        if len(flags) == sum(count for _, count in pieces) * self._flags_size:         # else the file ends inside one
            for first, count in pieces:
                self._flags.append((first * self._flags_size, flags[: count * self._flags_size]))
                flags = flags[count * self._flags_size :]

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        """Something is done to the guest: what was read counts until then."""
        try:
            yield
        finally:
            self._forget()

    def _forget(self) -> None:
        self._files, self._folders, self._flags = {}, {}, []
        self.guest.log_is_known = False

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        if path == kpageflags.KPAGEFLAGS and size > 0:
            return self._pages(offset, size)
        self._take()
        data = self._files.get(path)
        if data is None:
            return self.guest.read(path, offset, size)
        return data[offset:] if size < 0 else data[offset : offset + size]

    def _pages(self, offset: int, size: int) -> bytes:
        self._take()
        for start, data in self._flags:
            if start <= offset and offset + size <= start + len(data):
                return data[offset - start : offset - start + size]
        return self.guest.read(kpageflags.KPAGEFLAGS, offset, size)

    def listdir(self, path: str) -> list[str]:
        self._take()
        return list(self._folders[path]) if path in self._folders else self.guest.listdir(path)

    def write(self, path: str, text: str) -> None:
        with self._acting():
            self.guest.write(path, text)

    def log(self, start: int = 0) -> list[str]:
        self._take()
        return self.guest.log(start)

    def log_length(self) -> int:
        self._take()
        return self.guest.log_length()

    def plug(self, *, id: str, size: int, kind: str = "dimm", node: int = 0, addr: int | None = None) -> Outcome:
        with self._acting():
            return self.guest.plug(id=id, size=size, kind=kind, node=node, addr=addr)

    def unplug(self, id: str) -> Outcome:
        with self._acting():
            return self.guest.unplug(id)

    def resize(self, id: str, size: int) -> Outcome:
        with self._acting():
            return self.guest.resize(id, size)

    def write_with_signal(self, path: str, text: str) -> None:
        with self._acting():
            self.guest.write_with_signal(path, text)

    def alloc(self, id: str, size: int, kind: str, block: int | None = None) -> None:
        with self._acting():
            self.guest.alloc(id, size, kind, block)

    def free(self, id: str) -> None:
        with self._acting():
            self.guest.free(id)

    def devices(self) -> list[PluggedDevice]:
        return self.guest.devices()

    def window(self) -> int:
        return self.guest.window()

    def close(self) -> None:
        self.guest.close()


class Guests:
    """
    Machines that are booted once and started often; a context manager that deletes what it saved.

    One saved machine is kept: the last.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="memhp-guests-")
        self._key = ""

    def __enter__(self) -> Guests:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def open(self, url: QemuURL, devices: Sequence[Device] = ()) -> Snapshots:
        """Return a machine that has just booted."""
        saved = Path(self._folder.name) / "machine"
        what = backend.describe(url, devices)
        key = f"{url} {devices}"
        if key != self._key:
            self._key = ""
            self._save(url, what, saved)
            self._key = key
        what = dataclasses.replace(what, extra=(*what.extra, "-incoming", f"exec:cat {shlex.quote(os.fspath(saved))}"))
        return Snapshots(Restored(str(url), what))

    def _save(self, url: QemuURL, what: process.Guest, saved: Path) -> None:
        machine = QemuBackend(str(url), what)
        try:
            monitor = machine.monitor
            monitor.execute("migrate-set-parameters", max_bandwidth=1 << 34)
            monitor.execute("migrate", uri=f"exec:cat >{shlex.quote(os.fspath(saved))}")
            deadline = time.monotonic() + _RESTORE_TIMEOUT
            while (status := monitor.execute("query-migrate").get("status")) != "completed":
                if status == "failed" or time.monotonic() > deadline:
                    raise machine.process.error(f"{url}: the booted guest cannot be saved ({status})")
                time.sleep(0.05)
        finally:
            machine.close()


