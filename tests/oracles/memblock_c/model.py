# SPDX-License-Identifier: GPL-2.0-only
"""The model's memblock behind the operations of driver.c, answering in the same bytes."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterable
from typing import Any

from memhp.errors import KernelBugError, KernelError
from memhp.linux import kconfig, tree
from memhp.linux.include import memblock as types
from memhp.linux.include.mmzone import Zone
from memhp.linux.mm import memblock
from memhp.linux.state import Kernel
from tests.linux.bare import bare_kernel

MASK = (1 << 64) - 1
TREES = {"4.9": tree.V4_9, "6.1": tree.V6_1, "6.12": tree.V6_12}

Operation = tuple[Any, ...]
"""A verb of driver.c and its arguments: ("ADD", 0, 4096)."""

_REGION = struct.Struct("<QQIi").pack
_TYPE = struct.Struct("<IIQQ").pack


def kernel(release: str, switches: int = 0, *, numa: bool = True) -> Kernel:
    """Return a kernel as RESET leaves memblock."""
    config = dataclasses.replace(kconfig.default("x86_64"), NUMA=numa)
    k = bare_kernel("x86_64", tree=TREES[release], config=config)
    k.movable_node_enabled = bool(switches & 1)
    k.cmdline = {**({"kernelcore": "mirror"} if switches & 2 else {}), **({"memblock": "debug"} if switches & 4 else {})}
    return k


def _type(k: Kernel, number: int) -> Any:
    return (k.memblock.memory, k.memblock.reserved, None)[number]


def _errno(call: Callable[..., Any]) -> Callable[..., int]:
    """0, or what C returns for the error."""
    def wrapped(*arguments: Any) -> int:
        try:
            result = call(*arguments)
        except KernelError as err:
            return -(err.errno or 0)
        return int(result or 0)
    return wrapped


def _void(call: Callable[..., Any]) -> Callable[..., tuple[()]]:
    def wrapped(*arguments: Any) -> tuple[()]:
        call(*arguments)
        return ()
    return wrapped


def _flat(ranges: Iterable[tuple[int, ...]], width: int = 3) -> list[int]:
    return [number for item in ranges for number in item[:width]]


def _search_pfn_nid(k: Kernel, pfn: int) -> tuple[int, int, int]:
    return memblock.memblock_search_pfn_nid(k, pfn) or (-1, 0, 0)


def _find(k: Kernel, name: str) -> tuple[int, int, int]:
    found = memblock.reserve_mem_find_by_name(k, name)
    return (1, *found) if found else (0, 0, 0)


def _set_slab(k: Kernel, on: int) -> tuple[()]:
    k.slab_is_available = bool(on)
    return ()


def _double(k: Kernel, number: int, start: int, size: int) -> int:
    k.memblock_rw()
    return 0 if memblock.memblock_double_array(k, _type(k, number), start, size) else -1


def _debug_show(k: Kernel, number: int) -> str:
    return memblock.memblock_debug_show(k, _type(k, number))


def _in_zone(k: Kernel, nid: int, start_pfn: int, end_pfn: int) -> list[int]:
    zone = Zone("Normal", 0, nid, 1)
    zone.zone_start_pfn, zone.spanned_pages = start_pfn, end_pfn - start_pfn
    return _flat(memblock.for_each_free_mem_pfn_range_in_zone(k, zone), 2)


def _shown(k: Kernel, number: int) -> list[types.MemblockRegion]:
    return memblock._shown(k, _type(k, number))


class _Freed:
    """What goes to the page allocator, neighbours as one range, in the words of driver.c."""

    def __init__(self, k: Kernel) -> None:
        self.lines = k.log.lines
        self.start = self.end = 0

    def free(self, k: Kernel, start_pfn: int, end_pfn: int) -> None:
        if start_pfn != self.end:
            self.flush()
            self.start = start_pfn
        self.end = end_pfn

    def reserve(self, k: Kernel, start: int, end: int, nid: int) -> None:
        self.lines.append(f"reserve {start:#x}-{end:#x} {nid}")

    def flush(self) -> None:
        if self.start < self.end:
            self.lines.append(f"free {self.start:#x}-{self.end:#x}")
        self.start = self.end = 0


def _free_all(k: Kernel, max_low_pfn: int) -> int:
    k.max_low_pfn = max_low_pfn
    k.totalram_pages = 0
    freed = _Freed(k)
    memblock.memblock_free_all(k, freed.reserve, freed.free)
    freed.flush()
    return k.totalram_pages


def _free_late(k: Kernel, base: int, size: int) -> int:
    freed = _Freed(k)
    k.totalram_pages = 0
    memblock.memblock_free_late(k, base, size, freed.free)
    freed.flush()
    return k.totalram_pages


_CALLS: dict[str, Callable[..., Any]] = {
    **{
        name.upper(): _errno(getattr(memblock, "memblock_" + name))
        for name in (
            "add", "add_node", "remove", "reserve", "phys_free", "mark_hotplug", "clear_hotplug", "mark_mirror", "mark_nomap",
            "clear_nomap", "reserved_mark_noinit",
        )
    },
    **{
        name.upper(): _void(getattr(memblock, "memblock_" + name))
        for name in (
            "free", "trim_memory", "enforce_memory_limit", "cap_memory_range", "mem_limit_remove_map", "set_bottom_up",
            "set_current_limit", "allow_resize", "dump_all",
        )
    },
    **{
        name.upper(): getattr(memblock, "memblock_" + name)
        for name in (
            "get_current_limit", "phys_alloc", "phys_alloc_range", "phys_alloc_try_nid", "alloc_range_nid", "alloc", "alloc_raw",
            "alloc_from", "alloc_low", "alloc_node", "alloc_try_nid", "alloc_try_nid_raw", "alloc_exact_nid_raw", "phys_mem_size",
            "reserved_size", "estimated_nr_free_pages", "has_mirror", "bottom_up", "is_reserved", "is_memory", "is_map_memory",
            "is_region_memory", "is_region_reserved", "validate_numa_coverage", "addrs_overlap",
        )
    },
    "START_OF_DRAM": memblock.memblock_start_of_DRAM,
    "END_OF_DRAM": memblock.memblock_end_of_DRAM,
    "SET_NODE": _errno(lambda k, base, size, of, nid: memblock.memblock_set_node(k, base, size, _type(k, of), nid)),
    "SET_SLAB": _set_slab,
    "OVERLAPS_REGION": lambda k, base, size, of: memblock.memblock_overlaps_region(k, _type(k, of), base, size),
    "SEARCH_PFN_NID": _search_pfn_nid,
    "MEM_RANGE": lambda k: _flat(memblock.for_each_mem_range(k), 2),
    "MEM_RANGE_REV": lambda k: _flat(memblock.for_each_mem_range_rev(k), 2),
    "RESERVED_MEM_RANGE": lambda k: _flat(memblock.for_each_reserved_mem_range(k), 2),
    "FREE_MEM_RANGE": lambda k, nid, flags: _flat(memblock.for_each_free_mem_range(k, nid, flags)),
    "FREE_MEM_RANGE_REVERSE": lambda k, nid, flags: _flat(memblock.for_each_free_mem_range_reverse(k, nid, flags)),
    "ANY_RANGE": lambda k, a, b, nid, flags: _flat(memblock.for_each_mem_range(k, _type(k, a), _type(k, b), nid, flags)),
    "ANY_RANGE_REV": lambda k, a, b, nid, flags: _flat(memblock.for_each_mem_range_rev(k, _type(k, a), _type(k, b), nid, flags)),
    "MEM_PFN_RANGE": lambda k, nid: _flat(memblock.for_each_mem_pfn_range(k, nid)),
    "FREE_MEM_PFN_RANGE_IN_ZONE": _in_zone,
    "MEM_REGION": lambda k: _flat(
        (types.memblock_region_memory_base_pfn(k, r), types.memblock_region_memory_end_pfn(k, r), r.flags)
        for r in memblock.for_each_mem_region(k)),
    "RESERVED_MEM_REGION": lambda k: _flat(
        (types.memblock_region_reserved_base_pfn(k, r), types.memblock_region_reserved_end_pfn(k, r), r.flags)
        for r in _shown(k, 1)),
    "DEBUG_SHOW": _debug_show,
    "FREE_ALL": _free_all,
    "FREE_LATE": _free_late,
    "DOUBLE_ARRAY": _double,
    "RESERVE_MEM": _errno(memblock.reserve_mem),
    "RESERVE_MEM_FIND": _find,
}


class Model:
    """The model's memblock; `run` is like that of the original."""

    def __init__(self, release: str, *, numa: bool = True) -> None:
        self.release = release
        self.numa = numa
        self.k = kernel(release, numa=numa)
        self.dead = False

    def step(self, operation: Operation) -> bytes:
        """Do one operation; return the answer as driver.c writes it, without its length."""
        verb, *arguments = operation
        if verb == "RESET":
            self.k = kernel(self.release, arguments[0] if arguments else 0, numa=self.numa)
            self.dead = False
            return struct.pack("<III", 0, 0, 0) + self._state()
        if self.dead:
            return struct.pack("<III", 3, 0, 0)
        k = self.k
        k.log.lines.clear()
        text = ""
        results: Any = ()
        try:
            results = _CALLS[verb](k, *arguments)
        except KernelBugError:
            self.dead = True
            results = ()
        if isinstance(results, str):
            text, results = results, ()
        elif isinstance(results, int):
            results = (results,)
        log = (("\n".join(k.log.lines) + "\n" if k.log.lines else "") + text).encode()
        status = (1 if "Kernel panic" in k.log.lines[-1] else 2) if self.dead else 0
        head = struct.pack(f"<II{len(results)}QI", status, len(results), *(r & MASK for r in results), len(log)) + log
        return head if self.dead else head + self._state()

    def _state(self) -> bytes:
        k = self.k
        mb = k.memblock
        parts = [struct.pack("<IQ", mb.bottom_up | mb.system_has_some_mirror << 1 | mb.can_resize << 2, mb.current_limit)]
        for type in (mb.memory, mb.reserved):
            regions = memblock._shown(k, type)
            parts.append(_TYPE(len(regions), type.max, type.total_size, 1 if type.in_slab else type.array))
            parts += [_REGION(r.base, r.size, r.flags, r.nid) for r in regions]
        return b"".join(parts)

    def sorted(self) -> bool:
        """Say whether no regions overlap, as all of memblock relies on."""
        for type in (self.k.memblock.memory, self.k.memblock.reserved):
            end = 0
            for r in type.regions:
                if r.base < end:
                    return False
                end = r.base + r.size
        return True
