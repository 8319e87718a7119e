# SPDX-License-Identifier: GPL-2.0-only
"""/proc/meminfo and each node's meminfo, read: amounts of memory by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from memhp.abi import files as abi
from memhp.abi.files import Files
from memhp.errors import UsageError
from memhp.units import KIB

_LINE = re.compile(r"(?:Node +[0-9]+ +)?([^\s:][^:]{0,63}): +([0-9]{1,20})( kB)?")


@dataclass(frozen=True, slots=True)
class Meminfo:
    """
    One meminfo file.

    Attributes:
        sizes: Bytes by name ("MemTotal", "Slab").
        counts: The lines without a unit, such as "HugePages_Total".
    """

    sizes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int | None:
        """Bytes the buddy allocator manages: MemTotal."""
        return self.sizes.get("MemTotal")

    @property
    def free(self) -> int | None:
        """Free bytes: MemFree."""
        return self.sizes.get("MemFree")


def parse_meminfo(text: str, path: str = "/proc/meminfo") -> Meminfo:
    """Return what a meminfo file says; UsageError on a line of another form."""
    info = Meminfo()
    for line in text.split("\n"):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise UsageError(f"{path}: not a line of meminfo: {abi.shorten(line)!r}")
        if match[3]:
            info.sizes[match[1]] = int(match[2]) * KIB
        else:
            info.counts[match[1]] = int(match[2])
    return info


def read_meminfo(files: Files, path: str = "/proc/meminfo") -> Meminfo:
    """Read /proc/meminfo, or another file of its form."""
    return parse_meminfo(abi.read_text(files, path), path)
