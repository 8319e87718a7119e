# SPDX-License-Identifier: GPL-2.0-only
"""
The files of a machine: the protocol that every backend offers, and the helpers that every reader uses.

Text from a machine is not trusted: it is size-limited, decoded without failing, and its control characters are made
harmless before anything else looks at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from errno import EACCES, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EROFS
from typing import Protocol

from memhp.errors import KernelError, UsageError
from memhp.units import MIB, format_size

TEXT_LIMIT = 16 * MIB
"""Bytes. No text file that a reader takes is longer; the largest real ones are some 2 MiB."""
MEMORY = "/sys/devices/system/memory"
NODE = "/sys/devices/system/node"
MEMBLOCK = "/sys/kernel/debug/memblock"

_PATH_LIMIT = 4096
_LINKS = 40
# Everything that moves a terminal's cursor, changes colours or the direction of writing, or breaks a line where "\n" does not.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class Files(Protocol):
    """
    The files of one machine. Every path is absolute, as on the machine.

    A refusal is a KernelError: ENOENT, EISDIR, ENOTDIR, EACCES, or what the file's own code answers.
    """

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return up to `size` bytes from `offset`; -1 is all there is. Less means the end of the file."""

    def write(self, path: str, text: str) -> None:
        """Write `text` in one write(2), as it stands."""

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, in any order, without "." and ".."."""


def clean(text: str) -> str:
    """
    Return `text` with control characters written out; newlines and tabs stay.

    >>> clean("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return _HARMFUL.sub(lambda m: m[0].encode("ascii", "backslashreplace").decode("ascii") if ord(m[0]) > 0xFF
                        else f"\\x{ord(m[0]):02x}", text)


def shorten(text: str, width: int = 60) -> str:
    """Return `text` as one harmless line for a message, cut to `width` characters."""
    line = clean(text[: width + 1]).replace("\n", "\\n").replace("\t", " ")
    return line if len(line) <= width else line[: width - 1] + "…"


def decode(data: bytes) -> str:
    """Return bytes as harmless text: UTF-8 where they are, escapes where they are not."""
    return clean(data.decode("utf-8", "backslashreplace"))


def read_text(files: Files, path: str, limit: int = TEXT_LIMIT) -> str:
    """
    Return a text file of the machine, decoded and harmless.

    Raises:
        KernelError: the machine refused the read.
        UsageError: more than `limit` bytes.
    """
    data = files.read(path, 0, limit + 1)
    if len(data) > limit:
        raise UsageError(f"{path}: more than {format_size(limit)}; a file of this kind is shorter")
    return decode(data)


def read_optional(files: Files, path: str, limit: int = TEXT_LIMIT) -> str | None:
    """Return a text file, or None if this kernel has no such file or shows it to somebody else only."""
    try:
        return read_text(files, path, limit)
    except KernelError as err:
        if err.errno not in (ENOENT, ENOTDIR, EACCES):
            raise
        return None


def exists(files: Files, path: str) -> bool:
    """Return True if the machine has a file or directory of that name; reads no more than one directory."""
    if path == "/":
        return True
    parent, _, name = path.rstrip("/").rpartition("/")
    return name in list_optional(files, parent or "/")


def list_optional(files: Files, path: str) -> list[str]:
    """Return the names in a directory; none if there is no such directory."""
    try:
        return files.listdir(path)
    except KernelError as err:
        if err.errno not in (ENOENT, ENOTDIR, EACCES):
            raise
        return []


def normal(path: str) -> str:
    """
    Return an absolute path without empty and "." parts.

    Raises:
        KernelError: EINVAL if it is not absolute, climbs with "..", or holds a NUL; ENAMETOOLONG beyond 4096 bytes.
    """
    if len(path) > _PATH_LIMIT:
        raise KernelError(ENAMETOOLONG, "the path is longer than 4096 characters", where="", path=shorten(path))
    parts = path.split("/")
    if parts[0] or "\0" in path or ".." in parts:
        raise KernelError(EINVAL, "a path starts with / and holds no ..", where="", path=shorten(path))
    return "/" + "/".join(part for part in parts if part not in ("", "."))


class StoredFiles:
    """
    Files that lie somewhere else, shown as a machine shows them; read-only.

    Args:
        paths: The absolute paths of all files.
        fetch: Returns the content of one of them.
        links: Directory links by absolute path, and where each leads (an absolute path).
        unreadable: Those of `paths` that exist but cannot be read, such as `probe`.
        lacks: Paths that were not recorded, and why; a read of one says so.
    """

    def __init__(
        self,
        paths: Iterable[str],
        fetch: Callable[[str], bytes],
        *,
        links: Mapping[str, str] | None = None,
        unreadable: Iterable[str] = (),
        lacks: Mapping[str, str] | None = None,
    ) -> None:
        self._files = set(paths)
        self._fetch = fetch
        self._links = dict(links or {})
        self._unreadable = frozenset(unreadable)
        self._lacks = dict(lacks or {})
        self._names: dict[str, set[str]] = {"/": set()}
        for path in (*self._files, *self._links):
            self._enter(path)
        for path in self._files:
            if path in self._names:
                raise UsageError(f"{shorten(path)}: is a file and a directory at once")

    def _enter(self, path: str) -> None:
        while path != "/":
            parent, _, name = path.rpartition("/")
            parent = parent or "/"
            names = self._names.setdefault(parent, set())
            if name in names:
                return
            names.add(name)
            path = parent

    def resolve(self, path: str) -> str:
        """Return the path behind all links of `path`."""
        wanted = normal(path)
        if wanted in self._files or wanted in self._names:
            return wanted
        for _ in range(_LINKS):
            position = 0
            while True:
                position = wanted.find("/", position + 1)
                head = wanted if position < 0 else wanted[:position]
                if head in self._links:
                    wanted = normal(self._links[head] + wanted[len(head):])
                    break
                if position < 0:
                    return wanted
        raise KernelError(ELOOP, "too many links", where="", path=shorten(path))

    def _refuse(self, path: str, target: str) -> KernelError:
        parent = target
        while parent:
            parent = parent.rpartition("/")[0]
            if parent in self._files:
                return KernelError(ENOTDIR, where="", path=path)
            if parent in self._lacks:
                return KernelError(ENOENT, f"not recorded: {self._lacks[parent]}", where="", path=path)
        reason = self._lacks.get(target)
        return KernelError(ENOENT, f"not recorded: {reason}" if reason else "", where="", path=path)

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """Return up to `size` bytes of a stored file from `offset`."""
        target = self.resolve(path)
        if target in self._names:
            raise KernelError(EISDIR, where="", path=path)
        if target not in self._files:
            raise self._refuse(path, target)
        if target in self._unreadable:
            raise KernelError(EACCES, "can only be written to", where="", path=path)
        if offset < 0:
            raise KernelError(EINVAL, "a negative offset", where="", path=path)
        data = self._fetch(target)
        return data[offset:] if size < 0 else data[offset : offset + size]

    def write(self, path: str, text: str) -> None:
        """Refuse: a record of a machine cannot be written to."""
        raise KernelError(EROFS, "a recorded machine cannot be changed", where="", path=path)

    def listdir(self, path: str) -> list[str]:
        """Return the stored names in a directory, sorted."""
        target = self.resolve(path)
        if target in self._files:
            raise KernelError(ENOTDIR, where="", path=path)
        if target not in self._names:
            raise self._refuse(path, target)
        return sorted(self._names[target])


def stored(texts: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> StoredFiles:
    """Return files held in memory: absolute path -> content."""
    data = {normal(path): text.encode() if isinstance(text, str) else text for path, text in texts.items()}
    return StoredFiles(data, data.__getitem__, links=links)


_NUMBER = re.compile(r"-?[0-9]{1,20}")
_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F]{1,16}")


def decimal(text: str, path: str, what: str) -> int:
    """Return a decimal number of up to 20 digits, or raise UsageError naming the file."""
    if _NUMBER.fullmatch(text) is None:
        raise UsageError(f"{path}: {what} is {shorten(text)!r}, not a number")
    return int(text)


def hexadecimal(text: str, path: str, what: str) -> int:
    """Return a hexadecimal number of up to 16 digits, with or without 0x, or raise UsageError naming the file."""
    if _HEX.fullmatch(text) is None:
        raise UsageError(f"{path}: {what} is {shorten(text)!r}, not a hexadecimal number")
    return int(text, 16)
