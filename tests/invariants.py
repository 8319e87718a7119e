# SPDX-License-Identifier: GPL-2.0-only
"""
What must hold of a kernel at any quiet moment, and a snapshot of all it knows.

The statements are made anew from single facts (page columns, lists, resources), never with the helpers that the model itself uses
to keep its counters.
"""

from __future__ import annotations

import itertools
import types
from collections import OrderedDict
from collections.abc import Iterator
from errno import ENOTDIR

from memhp.errors import KernelError
from memhp.linux.fs import sysfs
from memhp.linux.include import mmzone
from memhp.linux.include.ioport import Resource
from memhp.linux.include.memblock import MEMBLOCK_NOMAP
from memhp.linux.include.memory import MEM_OFFLINE, MEM_ONLINE
from memhp.linux.include.mm_types import FLAGS, NODE, REFCOUNT, ZONE, PageColumns
from memhp.linux.include.mmzone import BlockList, Zone
from memhp.linux.include.page_flags import PAGE_INITIALISED, PG_OFFLINE, PG_RESERVED
from memhp.linux.state import Kernel

# The snapshot

_GIVEN = {"tree", "arch", "config", "hardware", "cmdline", "pfn_valid", "remedy"}
"""What was booted does not change."""
_ASIDE = {"log", "tasks", "token", "owner", "online_type"}
"""
The log and the pids speak of the attempt itself; owners are bookkeeping of forks; a refused write of a word leaves it in the
block's online_type, as store_mem_state() does.
"""


def snapshot(k: Kernel) -> object:
    """Return all that a kernel knows, as something that can be compared."""
    return {
        name: _freeze(value) for name, value in vars(k).items()
        if name not in _GIVEN | _ASIDE and not name.endswith("_owner")}


def _freeze(value: object) -> object:
    if isinstance(value, PageColumns):
        return tuple(col if isinstance(col, int) or col.count(col[0]) != len(col) else col[0] for col in map(_plain, value.cols))
    if isinstance(value, OrderedDict):
        return tuple(value)
    if isinstance(value, BlockList):
        return tuple(value)
    if isinstance(value, bytearray):
        return bytes(value) if value.count(value[0]) != len(value) else value[0]
    if isinstance(value, dict):
        return {key: _freeze(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, types.FunctionType) or value is None or isinstance(value, int | str | bytes | frozenset | set):
        return value
    names = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())] or list(vars(value))
    return {name: _freeze(getattr(value, name)) for name in names if name not in _ASIDE}


def _plain(col: object) -> int | bytes:
    return bytes(col) if isinstance(col, bytearray) else col  # type: ignore[return-value]


def differences(before: object, after: object, path: str = "k") -> Iterator[str]:
    """Say where two snapshots differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from differences(before.get(key), after.get(key), f"{path}.{key}")
    elif before != after:
        yield f"{path}: {str(before)[:200]} -> {str(after)[:200]}"


# What holds

_IS = {value: bytes(1 if byte == value else 0 for byte in range(256)) for value in range(8)}
_INITIALISED = bytes(1 if byte & PAGE_INITIALISED else 0 for byte in range(256))
_UNMANAGED = PG_RESERVED | PG_OFFLINE
_MANAGED = bytes(0 if byte & _UNMANAGED else 1 for byte in range(256))


def zones_of(k: Kernel) -> list[Zone]:
    return [zone for nid in sorted(k.nodes) for zone in k.nodes[nid].node_zones]


def _linked(columns: PageColumns, zone: Zone) -> int:
    """One byte a page, as a number: 1 where an initialised page names this zone."""
    size = columns.nr_pages
    bits = int.from_bytes(columns.values(FLAGS, 0, size).translate(_INITIALISED), "little")
    bits &= int.from_bytes(columns.values(ZONE, 0, size).translate(_IS[zone.idx]), "little")
    return bits & int.from_bytes(columns.values(NODE, 0, size).translate(_IS[zone.nid]), "little")


def check(
    k: Kernel, *, added: list[tuple[int, int]] | None = None, boot_blocks: frozenset[int] = frozenset(), boot_present: int = 0,
) -> int:
    """
    Assert everything that must hold; returns how many pages of offline blocks are not reserved, which should be none.

    Args:
        added: Bytes [start, end) of every range whose addition was reported as a success.
        boot_blocks: Blocks that were there after boot.
        boot_present: Sum of present pages after boot.
    """
    unreserved = check_pages(k)
    for zone in zones_of(k):
        check_free_lists(k, zone)
    check_counters(k, boot_blocks, boot_present)
    check_blocks(k, boot_blocks)
    for start, end in added or []:
        assert _covered([(r.base, r.base + r.size) for r in k.memblock.memory.regions], start, end), f"memblock {start:#x}"
        assert _covered(_system_ram(k.iomem_resource), start, end), f"iomem {start:#x}"
    assert not k.mem_hotplug_lock.holder
    assert not k.device_hotplug_lock.holder
    assert not k.mem_sysfs_mutex.holder
    assert not k.zonelists_mutex.holder
    return unreserved


def check_linear_map(k: Kernel) -> None:
    """Every page of a block that is online can be reached through the linear map, NOMAP memory aside."""
    mapped = k.linear.ranges() if k.linear is not None else ()
    nomap = [(r.base, r.base + r.size) for r in k.memblock.memory.regions if r.flags & MEMBLOCK_NOMAP]
    ram = [(r.base, r.base + r.size) for r in k.memblock.memory.regions if not r.flags & MEMBLOCK_NOMAP]
    size = k.sections_per_block << k.SECTION_SIZE_BITS
    for number, block in k.memory_blocks.items():
        if block.state != MEM_ONLINE:
            continue
        start, end = number * size, (number + 1) * size
        pieces = [(max(a, start), min(b, end)) for a, b in ram if a < end and start < b] if k.tree.has_subsections else []
        for low, high in pieces:
            low, high = -(-low // k.PAGE_SIZE) * k.PAGE_SIZE, high // k.PAGE_SIZE * k.PAGE_SIZE
            assert low >= high or _covered(list(mapped), low, high), f"online memory at {low:#x} cannot be reached"
    for start, end in nomap:
        assert not any(low < end and start < high for low, high in mapped), f"NOMAP memory at {start:#x} is mapped"


def online(k: Kernel, block: int) -> None:
    """Write "online" to a block's state."""
    sysfs.write(k, f"/sys/devices/system/memory/memory{block}/state", "online")


def check_pages(k: Kernel) -> int:
    """
    A page is linked to one zone, which spans it; a zone manages exactly its pages that are neither reserved nor PageOffline(),
    offline blocks aside.

    Returns how many pages of offline blocks are not reserved.
    """
    unreserved = 0
    managed = {(zone.nid, zone.idx): 0 for zone in zones_of(k)}
    for nr, section in k.mem_section.items():
        if section.memmap is None:
            assert not mmzone.valid_section(section)
            continue
        first = nr << k.PFN_SECTION_SHIFT
        columns = section.memmap
        block = k.memory_blocks.get(nr // k.sections_per_block)
        offline = block is not None and block.state == MEM_OFFLINE
        uniform = [columns.uniform(which) for which in (FLAGS, ZONE, NODE)]
        if None not in uniform:
            flags, idx, nid = (value or 0 for value in uniform)
            if not flags & PAGE_INITIALISED:
                continue
            zone = k.zone(nid, idx)
            assert zone.zone_start_pfn <= first, (nr, zone.name)
            assert first + columns.nr_pages <= zone.zone_start_pfn + zone.spanned_pages, (nr, zone.name)
            if not flags & _UNMANAGED and offline:
                unreserved += columns.nr_pages
            elif not flags & _UNMANAGED:
                managed[nid, idx] += columns.nr_pages
            continue
        free = int.from_bytes(columns.values(FLAGS, 0, columns.nr_pages).translate(_MANAGED), "little")
        for zone in zones_of(k):
            linked = _linked(columns, zone)
            if not linked:
                continue
            low = first + ((linked & -linked).bit_length() - 1) // 8
            high = first + (linked.bit_length() - 1) // 8
            assert zone.zone_start_pfn <= low, (nr, zone.name)
            assert high < zone.zone_start_pfn + zone.spanned_pages, (nr, zone.name)
            if offline:
                unreserved += (linked & free).bit_count()
            else:
                managed[zone.nid, zone.idx] += (linked & free).bit_count()
    assert managed == {(zone.nid, zone.idx): zone.managed_pages for zone in zones_of(k)}
    return unreserved


def check_free_lists(k: Kernel, zone: Zone) -> None:
    """Free blocks are aligned, apart, in their zone, unreferenced; no two free buddies; counters count them."""
    area = zone.free_area
    if area is None:
        assert not zone.nr_free_pages
        return
    top = k.MAX_ORDER - 1
    spans: list[tuple[int, int]] = []
    for order in range(top):
        pfns = [pfn for pages in area.free_list[order] for pfn in pages]
        known = set(pfns)
        assert len(known) == len(pfns) == area.nr_free[order]
        for pfn in pfns:
            assert not pfn & ((1 << order) - 1)
            assert pfn ^ (1 << order) not in known, f"{pfn:#x} and its buddy of order {order} are both free"
            spans.append((pfn, pfn + (1 << order)))
    for blocks in area.blocks:
        for start, end in blocks.ranges():
            assert start < end and not start & ((1 << top) - 1) and not end & ((1 << top) - 1)
            spans.append((start, end))
    assert area.nr_free[top] == sum(len(blocks) for blocks in area.blocks)
    spans.sort()
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end <= start, f"{start:#x} is free twice"
    assert zone.nr_free_pages == sum(end - start for start, end in spans)
    mask = k.PAGES_PER_SECTION - 1
    for start, end in spans:
        assert zone.zone_start_pfn <= start and end <= zone.zone_start_pfn + zone.spanned_pages
        while start < end:
            stop = min(end, (start | mask) + 1)
            columns = k.mem_section[start >> k.PFN_SECTION_SHIFT].memmap
            assert columns is not None
            low, high = start & mask, (start & mask) + stop - start
            size = high - low
            assert size == columns.count(REFCOUNT, low, high, 0xFF, 0), f"a page from {start:#x} is free and referenced"
            assert size == columns.count(FLAGS, low, high, PG_RESERVED | PAGE_INITIALISED, PAGE_INITIALISED), f"{start:#x}"
            assert size == columns.count(ZONE, low, high, 0xFF, zone.idx) == columns.count(NODE, low, high, 0xFF, zone.nid)
            start = stop


def check_counters(k: Kernel, boot_blocks: frozenset[int], boot_present: int) -> None:
    assert k.totalram_pages == sum(zone.managed_pages for zone in zones_of(k))
    block_pages = k.sections_per_block * k.PAGES_PER_SECTION
    online = sum(1 for block in k.memory_blocks.values() if block.state == MEM_ONLINE and block.dev_id not in boot_blocks)
    if boot_present:
        assert boot_present + online * block_pages == sum(zone.present_pages for zone in zones_of(k))
    for pgdat in k.nodes.values():
        assert pgdat.node_present_pages == sum(zone.present_pages for zone in pgdat.node_zones)
        for zone in pgdat.node_zones:
            assert zone.managed_pages <= zone.present_pages <= zone.spanned_pages
            assert zone.nr_free_pages <= zone.managed_pages
            low = pgdat.node_start_pfn
            assert not zone.spanned_pages or (
                low <= zone.zone_start_pfn and zone.zone_start_pfn + zone.spanned_pages <= low + pgdat.node_spanned_pages)
        for a, b in itertools.pairwise(pgdat.node_zones):
            assert a.idx < b.idx


def _system_ram(root: Resource) -> list[tuple[int, int]]:
    return [(res.start, res.end + 1) for res in root.child if res.name == "System RAM"]


def _covered(spans: list[tuple[int, int]], start: int, end: int) -> bool:
    """Whether [start, end) lies in the union of `spans`, sorted."""
    for low, high in spans:
        if low <= start < high:
            start = high
    return start >= end


def check_blocks(k: Kernel, boot_blocks: frozenset[int]) -> None:
    """Blocks are made of present sections; a hot-added block that is online lies in System RAM and in memblock."""
    ram = _system_ram(k.iomem_resource)
    for block_id, block in k.memory_blocks.items():
        assert block_id == block.dev_id
        assert block.state in (MEM_ONLINE, MEM_OFFLINE)
        sections = range(block.start_section_nr, block.start_section_nr + k.sections_per_block)
        assert block.section_count == sum(1 for nr in sections if mmzone.present_section_nr(k, nr))
        assert block.section_count > 0
        assert set(block.nodes) <= k.node_states[mmzone.N_ONLINE]
        if block_id in boot_blocks or block.state != MEM_ONLINE:
            continue
        start, end = sections[0] << k.SECTION_SIZE_BITS, (sections[-1] + 1) << k.SECTION_SIZE_BITS
        assert _covered(ram, start, end), f"memory{block_id} is online and not in System RAM"
        assert _covered([(r.base, r.base + r.size) for r in k.memblock.memory.regions], start, end)
        for nr in sections:
            columns = k.mem_section[nr].memmap
            assert columns is not None
            assert not columns.count(FLAGS, 0, columns.nr_pages, PG_RESERVED, PG_RESERVED), f"section {nr} has reserved pages"
    for a, b in itertools.pairwise(k.memblock.memory.regions):
        assert a.base + a.size <= b.base


def files(k: Kernel, path: str = "/") -> Iterator[str]:
    """Every file, each reached once: links between blocks and nodes are not followed."""
    for name in sysfs.listdir(k, path):
        below = f"{path.rstrip('/')}/{name}"
        parent = path.rsplit("/", 1)[-1]
        if name == "subsystem" or (parent.startswith("memory") and name.startswith("node")) or (
                parent.startswith("node") and parent != "node" and name.startswith("memory")):
            continue
        try:
            sysfs.listdir(k, below)
        except KernelError as err:
            if err.errno != ENOTDIR:
                raise
            yield below
        else:
            yield from files(k, below)
