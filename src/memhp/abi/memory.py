# SPDX-License-Identifier: GPL-2.0-only
"""
/sys/devices/system/memory, read: the memory blocks and how each stands.

Kernels differ in the files they show: `valid_zones` came with v3.18, `online` with the driver core, `removable` always says 1
since v5.9 or so, `probe` exists with CONFIG_ARCH_MEMORY_PROBE only. A file that is not there is None here. Blocks of a kernel
without NUMA have no node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from errno import EACCES, EINVAL, EIO, ENODEV, ENOENT, ENOTDIR

from memhp.abi import files as abi
from memhp.abi.files import MEMORY, NODE, Files
from memhp.errors import KernelError, UsageError
from memhp.units import BlockId, Nid

_BLOCK = re.compile(r"memory([0-9]{1,19})")
_NODE = re.compile(r"node([0-9]{1,9})")
ATTRIBUTES = ("state", "valid_zones", "removable", "phys_index", "phys_device", "online")
_ATTRIBUTE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class BlockSnapshot:
    """
    One memory block as the kernel shows it.

    Attributes:
        block: The N of memoryN.
        state: "online", "offline" or "going-offline"; "" if the file was not asked for.
        valid_zones: Zone names, the one it is in (or would go to) first; empty if the kernel says "none"; None if not shown.
        removable: What `removable` claims; None if not shown.
        phys_index: Number of the block by address; None if not shown.
        phys_device: Device number, 0 nearly everywhere; None if not shown.
        online: What the driver core's `online` says; None if not shown.
        nodes: Nodes it belongs to; empty without NUMA.
    """

    block: BlockId
    state: str
    valid_zones: tuple[str, ...] | None = None
    removable: bool | None = None
    phys_index: int | None = None
    phys_device: int | None = None
    online: bool | None = None
    nodes: tuple[Nid, ...] = ()

    @property
    def node(self) -> Nid | None:
        """The lowest of its nodes; None without NUMA."""
        return self.nodes[0] if self.nodes else None


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """
    All memory blocks at one moment.

    Attributes:
        block_size: Bytes a block covers.
        auto_online: What happens to new blocks: "offline", "online", "online_kernel", "online_movable"; None if not shown.
        probe: True if addresses can be written to `probe`.
        blocks: In order of their number.
    """

    block_size: int
    auto_online: str | None
    probe: bool
    blocks: tuple[BlockSnapshot, ...]

    def find(self, block: int) -> BlockSnapshot | None:
        """Return the block of that number, or None."""
        return next((b for b in self.blocks if b.block == block), None)

    def range_of(self, block: int) -> tuple[int, int]:
        """Return the addresses [start, end) that a block covers."""
        return block * self.block_size, (block + 1) * self.block_size


def read_memory(files: Files, attributes: Iterable[str] = ATTRIBUTES) -> MemorySnapshot:
    """
    Read all memory blocks: one directory, one for each node, and a short file for each attribute.

    Args:
        files: The machine.
        attributes: Which files of each block to read; those the first block does not have are skipped for all.

    Raises:
        KernelError: ENOENT if the kernel has no memory blocks to show (CONFIG_MEMORY_HOTPLUG is off).
        UsageError: a file holds what no kernel writes.
    """
    names = files.listdir(MEMORY)
    block_size = read_block_size(files)
    numbers = sorted({int(m[1]) for m in map(_BLOCK.fullmatch, names) if m and m[0] == f"memory{int(m[1])}"})
    inside = abi.list_optional(files, f"{MEMORY}/memory{numbers[0]}") if numbers else []
    wanted = tuple(name for name in attributes if name in inside)
    nodes = _nodes(files, numbers, inside)
    blocks = (_block(files, number, wanted, tuple(nodes.get(number, ()))) for number in numbers)
    auto = abi.read_optional(files, f"{MEMORY}/auto_online_blocks", _ATTRIBUTE_LIMIT) if "auto_online_blocks" in names else None
    return MemorySnapshot(
        block_size=block_size,
        auto_online=None if auto is None else auto.strip(),
        probe="probe" in names,
        blocks=tuple(block for block in blocks if block is not None),
    )


def read_block_size(files: Files) -> int:
    """Return the bytes a memory block covers."""
    path = f"{MEMORY}/block_size_bytes"
    size = abi.hexadecimal(abi.read_text(files, path, _ATTRIBUTE_LIMIT).strip(), path, "the block size")
    if size <= 0 or size & (size - 1):
        raise UsageError(f"{path}: {size:#x} is not a power of two")
    return size


def read_block(files: Files, block: int) -> BlockSnapshot | None:
    """Read one memory block; None if there is none of that number."""
    inside = abi.list_optional(files, f"{MEMORY}/memory{block}")
    if not inside:
        return None
    nodes = sorted(int(m[1]) for m in map(_NODE.fullmatch, inside) if m)
    return _block(files, block, tuple(a for a in ATTRIBUTES if a in inside), tuple(map(Nid, nodes)))


def _nodes(files: Files, numbers: list[int], inside: list[str]) -> dict[int, list[Nid]]:
    """Which nodes each block belongs to, told by the nodes (few) or, where they do not tell, by the blocks (many)."""
    found: dict[int, list[Nid]] = {}
    nids = sorted(int(m[1]) for m in map(_NODE.fullmatch, abi.list_optional(files, NODE)) if m)
    for nid in nids:
        for name in abi.list_optional(files, f"{NODE}/node{nid}"):
            if match := _BLOCK.fullmatch(name):
                found.setdefault(int(match[1]), []).append(Nid(nid))
    if not found and any(map(_NODE.fullmatch, inside)):
        for number in numbers:
            names = abi.list_optional(files, f"{MEMORY}/memory{number}")
            found[number] = sorted(Nid(int(m[1])) for m in map(_NODE.fullmatch, names) if m)
    return found


def _block(files: Files, number: int, wanted: tuple[str, ...], nodes: tuple[Nid, ...]) -> BlockSnapshot | None:
    """Read a block's files; None if the block has gone meanwhile."""
    folder = f"{MEMORY}/memory{number}"
    values: dict[str, str] = {}
    for name in wanted:
        path = f"{folder}/{name}"
        try:
            values[name] = abi.read_text(files, path, _ATTRIBUTE_LIMIT).strip()
        except KernelError as err:
            if err.errno not in (ENOENT, ENOTDIR, ENODEV, EACCES, EINVAL, EIO):
                raise
            if name == "state" and err.errno in (ENOENT, ENOTDIR, ENODEV):
                return None
    zones = values.get("valid_zones")
    return BlockSnapshot(
        block=BlockId(number),
        state=values.get("state", ""),
        valid_zones=None if zones is None else () if zones == "none" else tuple(zones.split()),
        removable=_truth(values, "removable", folder),
        phys_index=_hex(values, "phys_index", folder),
        phys_device=_number(values, "phys_device", folder),
        online=_truth(values, "online", folder),
        nodes=nodes,
    )


def _number(values: dict[str, str], name: str, folder: str) -> int | None:
    return abi.decimal(values[name], f"{folder}/{name}", name) if name in values else None


def _hex(values: dict[str, str], name: str, folder: str) -> int | None:
    return abi.hexadecimal(values[name], f"{folder}/{name}", name) if name in values else None


def _truth(values: dict[str, str], name: str, folder: str) -> bool | None:
    number = _number(values, name, folder)
    return None if number is None else number != 0
