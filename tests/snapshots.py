# SPDX-License-Identifier: GPL-2.0-only
"""
A guest whose files are read all at once: a look at a machine takes a hundred small files, and each request some 15 ms.

`Snapshots` stands before a QEMU guest and answers from one script's output until the guest is told to do something.
"""

from __future__ import annotations

from memhp.abi.files import MEMBLOCK, MEMORY, NODE
from memhp.abi.record import PARAMETERS
from memhp.backends import base
from memhp.backends.base import Outcome, PluggedDevice
from memhp.backends.qemu.backend import QemuBackend

_SCRIPT = f"""
one() {{ for f; do IFS= read -r x <"$f" && echo "=$f=$x"; done; }}
dir() {{ for d; do [ -d "$d" ] && echo "/$d" "$d"/*; done; }}
all() {{ for f; do [ -f "$f" ] && echo "<$f" && cat "$f" && echo ">"; done; }}
one {MEMORY}/block_size_bytes {MEMORY}/auto_online_blocks {PARAMETERS}/*
one {NODE}/possible {NODE}/online {NODE}/has_memory {NODE}/has_normal_memory
for b in {MEMORY}/memory*; do one $b/state $b/valid_zones $b/removable $b/phys_index $b/phys_device $b/online; done
dir {MEMORY} {NODE} {NODE}/node[0-9]* {MEMORY}/memory[0-9]* {PARAMETERS} {MEMBLOCK} {PARAMETERS.rpartition("/")[0]}
all /proc/zoneinfo /proc/iomem {MEMBLOCK}/memory
true
"""


class Snapshots(base.Backend):
    """
    A guest, read all at once.

    Attributes:
        guest: The guest.
    """

    def __init__(self, guest: QemuBackend) -> None:
        self.guest = guest
        self.url = guest.url
        self.verbs = guest.verbs
        self._files: dict[str, bytes] = {}
        self._folders: dict[str, list[str]] = {}

    def _take(self) -> None:
        if self._folders:
            return
        _, data = self.guest.guest.run(_SCRIPT)
        inside = ""
        for line in data.decode("utf-8", "backslashreplace").splitlines():
            if inside:
                if line == ">":
                    inside = ""
                else:
                    self._files[inside] += f"{line}\n".encode()
            elif line.startswith("<"):
                inside = line[1:]
                self._files[inside] = b""
            elif line.startswith("="):
                path, _, value = line[1:].partition("=")
                self._files[path] = f"{value}\n".encode()
            elif line.startswith("/"):
                folder, *names = line[1:].split(" ")
                self._folders[folder] = [name.rpartition("/")[2] for name in names]

    def _forget(self) -> None:
        self._files, self._folders = {}, {}

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        if path.startswith(("/sys/", "/proc/zoneinfo", "/proc/iomem")):
            self._take()
            data = self._files.get(path)
            if data is not None:
                return data[offset:] if size < 0 else data[offset : offset + size]
        return self.guest.read(path, offset, size)

    def listdir(self, path: str) -> list[str]:
        if path.startswith("/sys/"):
            self._take()
            if path in self._folders:
                return list(self._folders[path])
        return self.guest.listdir(path)

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
