# SPDX-License-Identifier: GPL-2.0-only
"""Which features a kernel shows: told by the files it has, never by its version number."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memhp.abi import files as abi
from memhp.abi.files import MEMBLOCK, MEMORY, NODE, Files
from memhp.abi.memblock import LINE

_PARAMETERS = "/sys/module/memory_hotplug/parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """
    What a machine's kernel lets us see and do.

    Attributes:
        hotplug: /sys/devices/system/memory is there (CONFIG_MEMORY_HOTPLUG).
        probe: Addresses can be written to `probe` (CONFIG_ARCH_MEMORY_PROBE).
        auto_online: `auto_online_blocks` is there.
        numa: Nodes are shown (CONFIG_NUMA).
        hotremove: Blocks show `removable` (on v4.9 all do; from v5.9 it is a stub).
        valid_zones: Blocks show the zones they may go to.
        memblock: memblock is kept after boot and shown in debugfs.
        memblock_flags: Its lines name the flags.
        kpageflags: Flags of each page are shown (CONFIG_PROC_PAGE_MONITOR).
        kpagecount: Counts of each page are shown.
        pagetypeinfo: Free pages by migratetype are shown.
        crash_hotplug: The crash kernel follows hot-plug (v6.6).
        parameters: Names of the parameters of memory_hotplug ("memmap_on_memory", "online_policy").
    """

    hotplug: bool
    probe: bool
    auto_online: bool
    numa: bool
    hotremove: bool
    valid_zones: bool
    memblock: bool
    memblock_flags: bool
    kpageflags: bool
    kpagecount: bool
    pagetypeinfo: bool
    crash_hotplug: bool
    parameters: tuple[str, ...]


def read_features(files: Files) -> Features:
    """Look which files the machine has."""
    memory = abi.list_optional(files, MEMORY)
    block = next((name for name in memory if re.fullmatch(r"memory[0-9]{1,19}", name)), "")
    inside = abi.list_optional(files, f"{MEMORY}/{block}") if block else []
    proc = abi.list_optional(files, "/proc")
    kept = abi.read_optional(files, f"{MEMBLOCK}/memory")
    first = LINE.fullmatch((kept or "").split("\n", 1)[0])
    return Features(
        hotplug=bool(memory),
        probe="probe" in memory,
        auto_online="auto_online_blocks" in memory,
        numa=any(re.fullmatch(r"node[0-9]{1,9}", name) for name in abi.list_optional(files, NODE)),
        hotremove="removable" in inside,
        valid_zones="valid_zones" in inside,
        memblock=kept is not None,
        memblock_flags=first is not None and first[5] is not None,
        kpageflags="kpageflags" in proc,
        kpagecount="kpagecount" in proc,
        pagetypeinfo="pagetypeinfo" in proc,
        crash_hotplug="crash_hotplug" in memory,
        parameters=tuple(sorted(abi.list_optional(files, _PARAMETERS))),
    )
