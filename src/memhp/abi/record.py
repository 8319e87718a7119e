# SPDX-License-Identifier: GPL-2.0-only
"""
Read all that a capture holds from a machine: the waist's files, and the few others that explain them.

What cannot be read is not passed over: the capture's manifest says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import EACCES
from typing import Any

from memhp.abi import capture, meminfo, zoneinfo
from memhp.abi import files as abi
from memhp.abi.files import MEMBLOCK, MEMORY, NODE, Files
from memhp.errors import KernelError
from memhp.units import KIB

PARAMETERS = "/sys/module/memory_hotplug/parameters"
PROC = (
    "/proc/iomem", "/proc/zoneinfo", "/proc/meminfo", "/proc/buddyinfo", "/proc/pagetypeinfo", "/proc/cmdline", "/proc/version",
    "/proc/sys/kernel/osrelease",
)  # fmt: skip
PAGES = ("/proc/kpageflags", "/proc/kpagecount")
LOG = "/var/log/dmesg"
"""Where the kernel's log lies in a capture."""

_BLOCK = re.compile(r"memory([0-9]{1,12})")
_NODE = re.compile(r"node([0-9]{1,9})")
_SKIPPED = re.compile(r"power|subsystem|uevent|driver|device|hard_offline_page|soft_offline_page|hugepages|access[0-9]+|x[0-9]+")
"""Names in these folders that are not read: they say nothing of memory, or make the kernel act."""
_WRITE_ONLY = ("probe", "compact")


@dataclass(slots=True)
class Reading:
    """
    What was read.

    Attributes:
        files: Path -> content.
        links: Path of a link to a folder -> path it leads to.
        lacks: Path -> why it is not here.
        write_only: Paths that can only be written to.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    write_only: set[str] = field(default_factory=set)


def read_machine(files: Files, *, pages: bool = True, progress: Callable[[str], None] | None = None) -> Reading:
    """
    Read what a capture of a machine holds.

    Args:
        files: The machine.
        pages: Read the flags and counts of each page, too: 16 bytes a page.
        progress: Called with each path before it is read.

    Raises:
        KernelError: the machine has no memory blocks to show.
        BackendError: it does not answer any more.
    """
    say = progress or (lambda path: None)
    found = Reading()

    def take(path: str, limit: int = abi.TEXT_LIMIT) -> None:
        say(path)
        try:
            found.files[path] = files.read(path, 0, limit)
        except KernelError as err:
            if err.errno == EACCES and path.rpartition("/")[2] in _WRITE_ONLY:
                found.write_only.add(path)
            else:
                found.lacks[path] = f"{err.name}: {err.reason or err.strerror}"

    for path in PROC:
        take(path)
    for name in files.listdir(MEMORY):
        if _BLOCK.fullmatch(name):
            for inner in files.listdir(f"{MEMORY}/{name}"):
                path = f"{MEMORY}/{name}/{inner}"
                if _NODE.fullmatch(inner):
                    found.links[path] = f"{NODE}/{inner}"
                elif not _SKIPPED.fullmatch(inner):
                    take(path)
        elif name in _WRITE_ONLY:
            found.write_only.add(f"{MEMORY}/{name}")
        elif not _SKIPPED.fullmatch(name):
            take(f"{MEMORY}/{name}")
    for name in abi.list_optional(files, NODE):
        if _NODE.fullmatch(name):
            for inner in files.listdir(f"{NODE}/{name}"):
                path = f"{NODE}/{name}/{inner}"
                if _BLOCK.fullmatch(inner):
                    found.links[path] = f"{MEMORY}/{inner}"
                elif inner in _WRITE_ONLY:
                    found.write_only.add(path)
                elif not _SKIPPED.fullmatch(inner) and not inner.startswith("cpu") and not inner.startswith("memory"):
                    take(path)
        elif not _SKIPPED.fullmatch(name):
            take(f"{NODE}/{name}")
    for name in ("memory", "reserved"):
        take(f"{MEMBLOCK}/{name}")
    for name in abi.list_optional(files, PARAMETERS):
        take(f"{PARAMETERS}/{name}")
    for path in PAGES:
        if pages:
            take(path, capture.FILE_LIMIT)
        else:
            found.lacks[path] = "not asked for"
    # A folder that only links lead to is none that could be shown.
    for path in [path for path, to in found.links.items() if not any(name.startswith(f"{to}/") for name in found.files)]:
        del found.links[path]
    return found


def page_size(files: Files) -> int:
    """
    Return the bytes of a page, from what the kernel counts in pages and in bytes: its zones, and MemTotal.

    4096 if they do not tell.
    """
    text = abi.read_optional(files, "/proc/meminfo")
    total = meminfo.parse_meminfo(text).sizes.get("MemTotal", 0) if text else 0
    text = abi.read_optional(files, zoneinfo.ZONEINFO)
    pages = sum(zone.managed for zone in zoneinfo.parse_zoneinfo(text)) if text else 0
    return min((4 * KIB, 16 * KIB, 64 * KIB), key=lambda size: abs(size * pages - total))


def write_capture(
    files: Files,
    directory: str,
    *,
    arch: str,
    origin: str,
    when: str,
    log: list[str] | None = None,
    extra: Mapping[str, bytes] | None = None,
    pages: bool = True,
    progress: Callable[[str], None] | None = None,
    lacks: Mapping[str, str] | None = None,
    devices: Sequence[dict[str, Any]] = (),
) -> capture.Manifest:
    """
    Read a machine and write the capture of it.

    Args:
        files: The machine.
        directory: A new or empty folder.
        arch: "arm64" or "x86_64"; "" if nobody knows.
        origin: What the machine is, in words.
        when: When, in words.
        log: The kernel's log.
        extra: More files by their path: the kernel's configuration.
        pages: The flags and counts of each page, too.
        progress: Called with each path before it is read.
        lacks: Why there is no log, and the like: path -> reason, of what is not missed by reading.
        devices: What holds memory beside RAM.

    Raises:
        UsageError: the folder is not empty.
        OSError: it cannot be written.
    """
    capture.check_new(directory)
    found = read_machine(files, pages=pages, progress=progress)
    content: dict[str, str | bytes] = {**found.files, **(extra or {})}
    boot: dict[str, object] = {}
    found.lacks |= lacks or {}
    if log is not None:
        content[LOG] = "".join(f"{line}\n" for line in log)
        memory = next((line for line in log if line.startswith("Memory: ")), "")
        if memory:
            boot["memory"] = memory
    manifest = capture.Manifest(
        release=_line(found, "/proc/sys/kernel/osrelease"), arch=arch, page_size=page_size(files),
        cmdline=_line(found, "/proc/cmdline"), origin=origin, when=when, lacks=found.lacks, links=found.links, boot=boot,
        devices=tuple(devices),
    )  # fmt: skip
    return capture.write(content, manifest, directory, write_only=frozenset(found.write_only))


def _line(found: Reading, path: str) -> str:
    return abi.decode(found.files.get(path, b"")).strip()
