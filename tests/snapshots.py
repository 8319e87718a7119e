# SPDX-License-Identifier: GPL-2.0-only
"""
Real kernels asked often, without booting them each time and without a hundred requests for each look.

`Guests` boots a machine once, saves it as QEMU saves a machine that moves to another host, and starts it from there for each
scenario: every one meets the same freshly booted machine. `Snapshots` stands before such a guest: it reads all the small files of
a look by one script, and answers from that until the guest is told to do something.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from memhp.abi import kpageflags
from memhp.abi.files import MEMBLOCK, MEMORY, NODE
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
{PARAMETERS}/* {NODE}/possible {NODE}/online {NODE}/has_memory {NODE}/has_normal_memory \
/proc/zoneinfo /proc/iomem {MEMBLOCK}/memory
for d in /proc {MEMORY} {NODE} {NODE}/node[0-9]* {MEMORY}/memory[0-9]* {PARAMETERS} {PARAMETERS.rpartition("/")[0]} {MEMBLOCK}; do
    [ -d $d ] && echo "=$d" $d/*
done
echo ==
dmesg
"""
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
        self._boot = self._blocks()

    def _take(self) -> None:
        if self._folders:
            return
        _, data = self.guest.guest.run(_SCRIPT)
        lines = data.decode("utf-8", "backslashreplace").splitlines()
        end = lines.index("==")
        found: dict[str, list[str]] = {}
        for line in lines[:end]:
            if line.startswith("="):
                folder, *names = line[1:].split(" ")
                self._folders[folder] = [name.rpartition("/")[2] for name in names]
            else:
                path, _, text = line.partition(":")
                found.setdefault(path, []).append(text)
        self.guest.take_log(lines[end + 1 :])
        self._files = {path: ("\n".join(texts) + "\n").encode() for path, texts in found.items()}

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
        """
        Return a piece of kpageflags. All blocks that were added are read at once, packed on the way: equal entries cost next to
        nothing.
        """
        for start, data in self._flags:
            if start <= offset and offset + size <= start + len(data):
                return data[offset - start : offset - start + size]
        # The blocks that touch are read in one go; `size` is what one of them takes.
        pieces: list[list[int]] = []
        for number in sorted(self._blocks() - self._boot | {offset // size}):
            if pieces and pieces[-1][0] + pieces[-1][1] == number * size:
                pieces[-1][1] += size
            else:
                pieces.append([number * size, size])
        words = [
            f"dd if={kpageflags.KPAGEFLAGS} bs=65536 iflag=skip_bytes,count_bytes skip={start} count={length}"
            for start, length in pieces
        ]
        code, packed = self.guest.guest.run(f"({'; '.join(words)}) 2>/dev/null | gzip -1")
        if code:
            raise BackendError(f"{self.url}: {kpageflags.KPAGEFLAGS} cannot be read")
        data = gzip.decompress(packed)
        if len(data) != sum(length for _, length in pieces):    # the file ends inside one: read it alone
            return self.guest.read(kpageflags.KPAGEFLAGS, offset, size)
        for start, length in pieces:
            self._flags.append((start, data[:length]))
            data = data[length:]
        return self._pages(offset, size)

    def _blocks(self) -> set[int]:
        self._take()
        return {int(name[6:]) for name in self._folders[MEMORY] if name[6:].isdigit()}

    def listdir(self, path: str) -> list[str]:
        self._take()
        return list(self._folders[path]) if path in self._folders else self.guest.listdir(path)

    def write(self, path: str, text: str) -> None:
        self._forget()
        self.guest.write(path, text)

    def log(self, start: int = 0) -> list[str]:
        return self.guest.log(start)

    def log_length(self) -> int:
        return self.guest.log_length()

    def plug(self, *, id: str, size: int, kind: str = "dimm", node: int = 0, addr: int | None = None) -> Outcome:
        self._forget()
        return self.guest.plug(id=id, size=size, kind=kind, node=node, addr=addr)

    def unplug(self, id: str) -> Outcome:
        self._forget()
        return self.guest.unplug(id)

    def resize(self, id: str, size: int) -> Outcome:
        self._forget()
        return self.guest.resize(id, size)

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


