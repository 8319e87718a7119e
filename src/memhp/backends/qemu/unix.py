# SPDX-License-Identifier: GPL-2.0-only
"""
A VM that somebody else started: `qemu+unix:QMP.sock?qga=QGA.sock`.

Devices are plugged through its monitor, files come from its guest agent. We leave it as it is when we close: it is not ours to
end. What its agent does not let us see is in `unseen()`.
"""

from __future__ import annotations

import re

from memhp.abi.files import MEMBLOCK, MEMORY, NODE, clean
from memhp.backends.base import About, MachineURL, UnixURL
from memhp.backends.qemu.agent import Agent
from memhp.backends.qemu.backend import Virtual
from memhp.backends.qemu.qmp import Monitor, RefusedError
from memhp.errors import BackendError, KernelError

_ARCHES = {"aarch64": "arm64", "x86_64": "x86_64"}
_WAIST = (
    f"{MEMORY}/block_size_bytes", f"{NODE}/online", "/proc/zoneinfo", "/proc/iomem", "/proc/meminfo", "/proc/kpageflags",
    "/proc/kpagecount", f"{MEMBLOCK}/memory", f"{MEMBLOCK}/reserved",
)  # fmt: skip
"""Files that every machine shows, or says that it does not."""
_TIME = re.compile(r"\[ *[0-9]+\.[0-9]+\](?:\[ *[TC][0-9]+\])? ?")


def open(url: MachineURL) -> UnixBackend:
    """
    Reach the VM that a URL names.

    Raises:
        BackendError: no such socket, or nobody answers on it.
    """
    assert isinstance(url, UnixURL)
    return UnixBackend(url)


class UnixBackend(Virtual):
    """
    Somebody else's VM.

    Attributes:
        agent: Its guest agent.
    """

    def __init__(self, url: UnixURL) -> None:
        self.url = str(url)
        self.monitor = Monitor(url.monitor)
        try:
            self.agent = Agent(url.agent)
            self.need_blocks()
        except BaseException:
            self.close()
            raise
        verbs = {"plug", "unplug", "resize", "online", "offline"}
        self.verbs = frozenset(verbs | {"write"} if self.agent.may_run() else verbs)
        try:
            target = str(self.monitor.execute("query-target")["arch"])
            self.arch = _ARCHES.get(target, target)
        except RefusedError:
            self.arch = ""
        self._log: list[str] = []

    def close(self) -> None:
        agent = getattr(self, "agent", None)
        if agent is not None:
            agent.close()
        self.monitor.close()

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        return self.agent.read(path, offset, size)

    def listdir(self, path: str) -> list[str]:
        return self.agent.listdir(path)

    def write(self, path: str, text: str) -> None:
        self.agent.write(path, text)

    def log(self, start: int = 0) -> list[str]:
        """The kernel's ring, where the agent runs `dmesg` for us; what the ring has forgotten by the first look is gone."""
        if self.agent.may_run():
            code, out, _ = self.agent.run("dmesg")
            if code == 0:
                lines = out.decode("utf-8", "backslashreplace").splitlines()
                last = self._log[-1] if self._log else ""
                known = next((number for number in range(len(lines) - 1, -1, -1) if lines[number] == last), -1)
                self._log += lines[known + 1 :]
        return [clean(_TIME.sub("", line, count=1)) for line in self._log[start:]]

    def unseen(self) -> dict[str, str]:
        found = {}
        for path in _WAIST:
            try:
                self.read(path, 0, 8)
            except KernelError as err:
                found[path] = err.name
        if not self.agent.may_run():
            found["the kernel's log"] = found["files of unknown names"] = "its agent runs no programs: guest-exec"
        return found

    def about(self) -> About:
        try:
            name = self.monitor.execute("query-name").get("name", "")
        except BackendError:
            name = ""
        lacks = [f"{what} ({why})" for what, why in self.unseen().items()]
        who = f"{self.url} ({name})" if name else self.url
        return About(arch=self.arch, origin=f"{who}; not seen: {', '.join(lacks)}" if lacks else who)
