# SPDX-License-Identifier: GPL-2.0-only
"""
Reading and writing the guest's files: our end of the port on which init.sh answers.

One request is under way at a time. Each has a deadline; an answer that does not come names what was waited for and how the
guest ended, if it did.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import time
from collections.abc import Callable

from memhp.errors import ERRNO_NAMES, BackendError, KernelBugError, KernelError, KernelHangError

READ_TIMEOUT = 60.0
"""Seconds until a read must be answered; generous, for emulation on a busy machine is slow."""
WRITE_TIMEOUT = 120.0
"""Seconds a write may take: going offline moves pages, and the kernel itself waits."""
BOOT_TIMEOUT = 180.0
"""Seconds until a guest must answer after its start."""

_ERRNOS = {os.strerror(number): number for number in ERRNO_NAMES}
# What a libc other than ours, and busybox's own shell, say instead.
_ERRNOS.update({"Not supported": errno.EOPNOTSUPP, "no such file": errno.ENOENT, "nonexistent directory": errno.ENOENT})
_HEAD_LIMIT = 4096


def errno_of(text: str) -> int:
    """
    Return the number of an errno from the words of strerror(); EIO for words nobody knows.

    >>> errno.errorcode[errno_of("Device or resource busy")]
    'EBUSY'
    """
    return _ERRNOS.get(text, errno.EIO)


class Guest:
    """
    The guest's end of the port.

    Args:
        port: Our end.
        fail: Makes the error for a guest that does not answer, from words; looks whether it still lives.
        alive: Says whether it still lives.
    """

    def __init__(self, port: socket.socket, fail: Callable[[str], BackendError], alive: Callable[[], bool]) -> None:
        self._port = port
        self._fail = fail
        self._alive = alive
        self._buffer = bytearray()
        self._number = 0

    def wait_ready(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until the guest has booted. Raises BackendError."""
        head = self._take_line("the guest's boot", time.monotonic() + timeout, timeout)
        if head.split(" ", 3)[:1] != ["0"]:
            raise self._fail(f"the guest greets with {head[:60]!r}: not the init that was given to it")

    def _request(self, what: str, timeout: float, *words: str) -> tuple[str, bytes, str]:
        """Send a request and return status, bytes and text of its answer."""
        self._number += 1
        line = "\t".join((str(self._number), *words)) + "\n"
        deadline = time.monotonic() + timeout
        self._send(line.encode(), what, deadline, timeout)
        while True:
            head = self._take_line(what, deadline, timeout)
            number, _, rest = head.partition(" ")
            status, _, rest = rest.partition(" ")
            length, _, text = rest.partition(" ")
            if not (number.isdigit() and length.isdigit()):
                raise self._fail(f"the guest answers {head[:80]!r} to {what}")
            data = self._take(int(length), what, deadline, timeout)
            if int(number) == self._number:
                return status, data, text

    def _wait(self, what: str, deadline: float, timeout: float, *, to_write: bool = False) -> None:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._fail(f"the guest did not answer within {timeout:g} s: waited for {what}")
            ready = select.select([] if to_write else [self._port], [self._port] if to_write else [], [], min(left, 0.5))
            if ready[0] or ready[1]:
                return
            if not self._alive():
                raise self._fail(f"the guest is gone: waited for {what}")

    def _send(self, data: bytes, what: str, deadline: float, timeout: float) -> None:
        while data:
            self._wait(what, deadline, timeout, to_write=True)
            try:
                data = data[self._port.send(data) :]
            except OSError as err:
                raise self._fail(f"the guest is gone ({err.strerror}): waited for {what}") from None

    def _more(self, what: str, deadline: float, timeout: float) -> None:
        self._wait(what, deadline, timeout)
        try:
            data = self._port.recv(1 << 18)
        except OSError as err:
            raise self._fail(f"the guest is gone ({err.strerror}): waited for {what}") from None
        if not data:
            raise self._fail(f"the guest is gone: waited for {what}")
        self._buffer += data

    def _take_line(self, what: str, deadline: float, timeout: float) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise self._fail(f"the guest answers {bytes(self._buffer[:60])!r} to {what}")
            self._more(what, deadline, timeout)
        line = self._buffer[:end].decode("utf-8", "replace")
        del self._buffer[: end + 1]
        return line

    def _take(self, length: int, what: str, deadline: float, timeout: float) -> bytes:
        while len(self._buffer) < length:
            self._more(what, deadline, timeout)
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    # Files

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return bytes of a file. Raises KernelError."""
        _check(path)
        if size == 0:
            size = 1                                         # a read of nothing still says whether it could be read
            return self._read(path, offset, size)[:0]
        return self._read(path, offset, size)

    def _read(self, path: str, offset: int, size: int) -> bytes:
        what = f"a read of {path}"
        if offset == 0 and (size < 0 or not path.startswith(("/proc/kpage", "/dev/"))):
            status, data, text = self._request(what, READ_TIMEOUT, "read", path)
            data = data if size < 0 else data[:size]
        elif path.startswith("/proc/kpage"):
            # These want whole words of 8 bytes.
            first = offset // 8 * 8
            count = -(-(offset + size) // 8) * 8 - first if size >= 0 else 1 << 60
            status, data, text = self._request(what, READ_TIMEOUT, "piece", path, str(first), str(count))
            data = data[offset - first :] if size < 0 else data[offset - first : offset - first + size]
        else:
            status, data, text = self._request(what, READ_TIMEOUT, "read", path)
            data = data[offset:] if size < 0 else data[offset : offset + size]
        if status != "0":
            raise _refusal(path, text)
        return data

    def listdir(self, path: str) -> list[str]:
        """Return the names in a folder. Raises KernelError."""
        _check(path)
        status, data, text = self._request(f"the names in {path}", READ_TIMEOUT, "list", path)
        if status != "0":
            raise _refusal(path, text)
        return [name for name in data.decode("utf-8", "backslashreplace").split("\n") if name not in ("", ".", "..")]

    def write(self, path: str, text: str, timeout: float = WRITE_TIMEOUT) -> None:
        """
        Write `text` in one write(2), by a process of its own.

        Raises:
            KernelError: the kernel refused.
            KernelBugError: the writer was killed; KernelHangError: it has not returned after `timeout` seconds.
        """
        _check(path)
        seconds = str(max(1, round(timeout)))
        what = f"the write of {text[:40]!r} to {path}"
        status, _, words = self._request(what, timeout + READ_TIMEOUT, "write", path, escape(text), seconds)
        if status == "hang":
            where = f", in {words}()" if words not in ("", "0") else ""
            raise KernelHangError(f"{what} has not returned after {seconds} s{where}")
        if status == "died":
            raise KernelBugError(f"the writer was killed (signal {words}): {what}")
        if status != "0":
            raise _refusal(path, words)

    def run(self, script: str, timeout: float = READ_TIMEOUT) -> tuple[int, bytes]:
        """Run a shell script in the guest; return its exit code and all it printed."""
        status, data, _ = self._request(f"a script: {script[:60]!r}", timeout, "run", escape(script))
        return int(status), data


def _check(path: str) -> None:
    if "\0" in path or not path.startswith("/") or len(path) > 4095:
        raise KernelError(errno.EINVAL, "a path starts with / and holds no NUL", where="", path=path[:80])
    if not path.isprintable():
        raise KernelError(errno.ENOENT, where="", path=path[:80])


def _refusal(path: str, text: str) -> KernelError:
    number = errno_of(text)
    return KernelError(number, "" if os.strerror(number) == text else text, where="", path=path)


def escape(text: str) -> str:
    """Return text as `printf %b` takes it, on one line."""
    return re.sub(rb"[^A-Za-z0-9 _./:,=@%+-]", lambda m: b"\\0%03o" % m[0][0], text.encode()).decode()
