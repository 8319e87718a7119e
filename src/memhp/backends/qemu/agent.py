# SPDX-License-Identifier: GPL-2.0-only
"""
The QEMU guest agent: files of a guest that somebody else started, as far as its agent lets us.

The agent reads files and says which memory blocks there are; a folder's names and a write's errno come from programs it runs
in the guest (`guest-exec`), where that is allowed. Where it is not, the folders of memory blocks and nodes are put together from
`guest-get-memory-blocks`, from the kernel's own lists of nodes and by trying which files open; blocks are changed by
`guest-set-memory-blocks`. Other writes are refused then: through `guest-file-write` the kernel's answer cannot be told from
success (it appears at the flush only, and closing the file writes once more).
"""

from __future__ import annotations

import base64
import contextlib
import errno
import itertools
import json
import re
import socket
import time
from typing import Any

from memhp.abi.files import MEMBLOCK, MEMORY, NODE
from memhp.abi.node import parse_list
from memhp.backends.qemu.guest import errno_of
from memhp.errors import BackendError, KernelBugError, KernelError, KernelHangError

TIMEOUT = 60.0
"""Seconds an answer may take."""
PIECE = 1 << 16
"""Bytes of a file that are asked for at once; small pieces cost seconds with the flags of each page."""
_FILE_COMMANDS = frozenset(("guest-file-open", "guest-file-read", "guest-file-close"))
_ANSWER_LIMIT = 64 << 20
_STATE = re.compile(re.escape(MEMORY) + r"/memory([0-9]{1,12})/(state|online)")
_BLOCK = re.compile(re.escape(MEMORY) + r"/memory([0-9]{1,12})")
_NODE = re.compile(re.escape(NODE) + r"/node([0-9]{1,9})")
_BLOCK_FILES = ("state", "valid_zones", "removable", "phys_index", "phys_device", "online")
_MEMORY_FILES = ("block_size_bytes", "auto_online_blocks")
_NODE_FILES = ("cpulist", "cpumap", "distance", "meminfo", "numastat", "vmstat")
_NODES_FILES = ("has_cpu", "has_generic_initiator", "has_memory", "has_normal_memory", "online", "possible")
_OTHERS = {
    "/proc": ("iomem", "kpageflags", "kpagecount", "zoneinfo", "meminfo", "buddyinfo", "pagetypeinfo", "cmdline", "version"),
    MEMBLOCK: ("memory", "reserved"),
    "/sys/module/memory_hotplug/parameters": (
        "auto_movable_numa_aware", "auto_movable_ratio", "memmap_on_memory", "online_policy",
    ),
}  # fmt: skip
"""Files of other folders that are looked for where nobody lists them."""


class AgentError(BackendError):
    """The agent refused a command; the message is its own."""


class Agent:
    """
    A connection to a guest agent.

    Args:
        path: Its socket.

    Attributes:
        commands: The commands that it lets us use.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._buffer = bytearray()
        self._nodes: tuple[int, ...] | None = None
        self._ids = itertools.count(int(time.monotonic() * 1000) % 1_000_000_000 + 1)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError as err:
            self._socket.close()
            raise BackendError(f"guest agent {path}: {(err.strerror or str(err)).lower()}") from err
        try:
            self._sync()
            info = self.execute("guest-info")
            self.commands = frozenset(entry["name"] for entry in info["supported_commands"] if entry["enabled"])
            if blocked := sorted(_FILE_COMMANDS - self.commands):
                raise BackendError(f"guest agent {path}: it lets nobody read files: {', '.join(blocked)} not allowed")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Leave it. May be called twice."""
        self._socket.close()

    def _sync(self) -> None:
        """Throw away what an earlier client left unread: the agent marks its answer with a byte that no JSON holds."""
        number = next(self._ids)
        request = json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": number}})
        self._send(b"\xff" + request.encode() + b"\n", "its first answer (is the agent running in the guest?)")
        deadline = time.monotonic() + TIMEOUT
        while True:
            line = self._line(deadline, "its first answer (is the agent running in the guest?)")
            with contextlib.suppress(ValueError):
                if json.loads(line.rpartition(b"\xff")[2]).get("return") == number:
                    return

    def _send(self, data: bytes, what: str) -> None:
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.sendall(data)
        except OSError as err:
            raise BackendError(f"guest agent {self._path}: {err}; waited for {what}") from err

    def _line(self, deadline: float, what: str) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                raise BackendError(f"guest agent {self._path}: no answer within {TIMEOUT:g} s; waited for {what}") from None
            except OSError as err:
                raise BackendError(f"guest agent {self._path}: {err}; waited for {what}") from err
            if not data or len(self._buffer) > _ANSWER_LIMIT:
                how = "it is gone" if not data else "an answer without end"
                raise BackendError(f"guest agent {self._path}: {how}; waited for {what}")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def execute(self, command: str, **arguments: Any) -> Any:
        """
        Run a command and return what it answers; `_` in the names of arguments stands for `-`.

        Raises:
            AgentError: the agent refused it, in its own words.
            BackendError: it did not answer.
        """
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._send(json.dumps(request).encode() + b"\n", command)
        line = self._line(time.monotonic() + TIMEOUT, command)
        try:
            answer = json.loads(line.rpartition(b"\xff")[2])
            if "error" in answer:
                raise AgentError(str(answer["error"].get("desc", "refused")), sent=command)
            return answer["return"]
        except (ValueError, KeyError, AttributeError, TypeError):
            raise BackendError(f"guest agent {self._path}: answers {line[:60]!r} to {command}") from None

    # Files

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return bytes of a file. Raises KernelError."""
        try:
            handle = self.execute("guest-file-open", path=path, mode="r")
        except AgentError as err:
            raise _refusal(path, str(err)) from None
        # The kernel gives the flags of pages in whole words only.
        first = offset // 8 * 8
        wanted = -1 if size < 0 else offset - first + size
        parts = []
        try:
            if first:
                self.execute("guest-file-seek", handle=handle, offset=first, whence="set")
            got = 0
            while wanted < 0 or got < max(wanted, 1):
                count = PIECE if wanted < 0 else min(PIECE, -(-max(wanted - got, 1) // 8) * 8)
                answer = self.execute("guest-file-read", handle=handle, count=count)
                data = base64.b64decode(answer["buf-b64"])
                parts.append(data)
                got += len(data)
                if answer["eof"] or not data:
                    break
        except AgentError as err:
            raise _refusal(path, str(err)) from None
        finally:
            with contextlib.suppress(AgentError):
                self.execute("guest-file-close", handle=handle)
        data = b"".join(parts)[offset - first :]
        return data if size < 0 else data[:size]

    def listdir(self, path: str) -> list[str]:
        """Return the names in a folder. Raises KernelError."""
        if self.may_run():
            code, out, err = self.run("ls", "-a", "--", path)
            if code:
                raise _refusal(path, err.decode("utf-8", "replace").strip())
            names = out.decode("utf-8", "backslashreplace").split("\n")
            if names[:1] == [path]:                            # ls of a file names the file
                raise KernelError(errno.ENOTDIR, where="", path=path)
            return [name for name in names if name not in ("", ".", "..")]
        return self._list_by_trying(path)

    def _list_by_trying(self, path: str) -> list[str]:
        """List one of the folders that memory and nodes have, by what the agent knows of blocks and by trying to read."""
        path = path.rstrip("/")
        found: list[str] = []
        if path == MEMORY:
            blocks = self.execute("guest-get-memory-blocks") if "guest-get-memory-blocks" in self.commands else []
            found = [f"memory{block['phys-index']}" for block in blocks] + self._tried(path, _MEMORY_FILES)
        elif path == NODE:
            found = [f"node{nid}" for nid in self._possible_nodes() if self._errno(f"{path}/node{nid}") == errno.EISDIR]
            found += self._tried(path, _NODES_FILES)
        elif _BLOCK.fullmatch(path):
            found = self._tried(path, _BLOCK_FILES)
            links = [f"node{nid}" for nid in self._possible_nodes()] if found else []
            found += [name for name in links if self._errno(f"{path}/{name}") == errno.EISDIR]
        elif match := _NODE.fullmatch(path):
            found = self._tried(path, _NODE_FILES)
            blocks = self._list_by_trying(MEMORY) if found else []
            found += [name for name in blocks if self._errno(f"{MEMORY}/{name}/node{match[1]}") == errno.EISDIR]
        elif path in _OTHERS:
            found = self._tried(path, _OTHERS[path])
        if found:
            return found
        number = self._errno(path)
        if number is None:
            raise KernelError(errno.ENOTDIR, where="", path=path)
        reason = "the agent runs no programs (guest-exec), so the names in it are not known" if number == errno.EISDIR else ""
        raise KernelError(errno.ENOENT, reason, where="", path=path)

    def _possible_nodes(self) -> tuple[int, ...]:
        if self._nodes is None:
            try:
                self._nodes = parse_list(self.read(f"{NODE}/possible").decode("ascii", "replace"), f"{NODE}/possible")
            except KernelError:
                self._nodes = ()                               # a kernel without NUMA
        return self._nodes

    def _tried(self, folder: str, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if self._errno(f"{folder}/{name}") is None]

    def _errno(self, path: str) -> int | None:
        """Return how a read of a file is refused; None if it is not."""
        try:
            self.read(path, 0, 1)
        except KernelError as err:
            return err.errno
        return None

    def may_run(self) -> bool:
        """Whether it runs programs for us."""
        return {"guest-exec", "guest-exec-status"} <= self.commands

    def run(self, *words: str, data: bytes = b"", timeout: float = 120.0) -> tuple[int, bytes, bytes]:
        """
        Run a program in the guest; return its exit code (128 and more: killed by a signal), output and error output.

        Raises:
            KernelHangError: it has not ended after `timeout` seconds.
        """
        given: dict[str, Any] = {"input_data": base64.b64encode(data).decode()} if data else {}
        pid = self.execute("guest-exec", path=words[0], arg=list(words[1:]), capture_output=True, **given)["pid"]
        deadline, pause = time.monotonic() + timeout, 0.005
        while True:
            status = self.execute("guest-exec-status", pid=pid)
            if status["exited"]:
                break
            if time.monotonic() > deadline:
                raise KernelHangError(f"{' '.join(words)[:80]} has not returned after {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        code = status["exitcode"] if "exitcode" in status else 128 + status.get("signal", 0)
        return code, base64.b64decode(status.get("out-data", "")), base64.b64decode(status.get("err-data", ""))

    def write(self, path: str, text: str) -> None:
        """
        Write `text` in one write(2).

        Raises:
            KernelError: the kernel refused. KernelBugError: the writer died; KernelHangError: it hangs.
            BackendError: the agent lets us write nothing but the state of blocks.
        """
        if self.may_run():
            script = 'if [ ! -e "$1" ]; then ls "$1" >/dev/null; exit 1; fi; exec dd of="$1" bs=65536 conv=notrunc'
            code, _, err = self.run("/bin/sh", "-c", script, "sh", path, data=text.encode())
            if code >= 128:
                raise KernelBugError(f"the writer was killed (signal {code - 128}): the write of {text[:40]!r} to {path}")
            if code:
                lines = [line for line in err.decode("utf-8", "replace").splitlines() if ": " in line]
                raise _refusal(path, lines[0] if lines else "")
            return
        match = _STATE.fullmatch(path)
        word = {"online": True, "offline": False, "1": True, "0": False}.get(text)
        if match is None or word is None or "guest-set-memory-blocks" not in self.commands:
            raise BackendError(
                f"the agent of this guest runs no programs (guest-exec is not allowed), so {path} cannot be written to; it only "
                "takes blocks online and offline")
        if self.read(f"{MEMORY}/memory{match[1]}/state") == (b"online\n" if word else b"offline\n"):
            reason = "it is so already, and the agent asks the kernel for changes only"
            raise KernelError(errno.EINVAL, reason, where="", path=path)
        answer = self.execute("guest-set-memory-blocks", mem_blks=[{"phys-index": int(match[1]), "online": word}])[0]
        if answer["response"] != "success":
            number = answer.get("error-code", errno.ENOENT if answer["response"] == "not-found" else errno.EIO)
            raise KernelError(number, where="", path=path)


def _refusal(path: str, words: str) -> KernelError:
    text = words.rpartition(": ")[2]
    number = errno_of(text)
    return KernelError(number, "" if number != errno.EIO else words, where="", path=path)
