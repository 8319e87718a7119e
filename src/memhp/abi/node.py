# SPDX-License-Identifier: GPL-2.0-only
"""/sys/devices/system/node, read: the NUMA nodes, the memory blocks linked to each, and their meminfo."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memhp.abi import files as abi
from memhp.abi.files import NODE, Files
from memhp.abi.meminfo import Meminfo, parse_meminfo
from memhp.errors import UsageError
from memhp.units import BlockId, Nid

_BLOCK = re.compile(r"memory([0-9]{1,19})")
_NODE = re.compile(r"node([0-9]{1,9})")
_MASKS = ("online", "possible", "has_cpu", "has_normal_memory", "has_memory")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_NODE_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """
    One NUMA node.

    Attributes:
        nid: Its number.
        blocks: The memory blocks linked to it, in order.
        meminfo: Its meminfo; None if not shown.
    """

    nid: Nid
    blocks: tuple[BlockId, ...]
    meminfo: Meminfo | None = None


@dataclass(frozen=True, slots=True)
class NodesSnapshot:
    """
    All nodes; none without CONFIG_NUMA.

    Attributes:
        nodes: In order.
        masks: The node lists this kernel shows: "online", "possible", "has_cpu", "has_normal_memory", "has_memory".
    """

    nodes: tuple[NodeSnapshot, ...]
    masks: dict[str, tuple[int, ...]]


def parse_list(text: str, path: str = "list") -> tuple[int, ...]:
    """
    Return the numbers of a kernel list such as ``0-3,5``.

    >>> parse_list("0-1,4")
    (0, 1, 4)
    """
    numbers: list[int] = []
    for part in text.strip().split(","):
        if not part:
            continue
        match = _RANGE.fullmatch(part)
        if match is None:
            raise UsageError(f"{path}: {abi.shorten(part)!r} is not a number or a range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= _NODE_LIMIT or len(numbers) > _NODE_LIMIT:
            raise UsageError(f"{path}: {abi.shorten(part)!r} is beyond {_NODE_LIMIT} nodes")
        numbers.extend(range(first, last + 1))
    return tuple(numbers)


def read_nodes(files: Files, *, meminfo: bool = True) -> NodesSnapshot:
    """
    Read all nodes.

    Args:
        files: The machine.
        meminfo: Read each node's meminfo too.
    """
    names = abi.list_optional(files, NODE)
    nodes = []
    for nid in sorted({int(m[1]) for m in map(_NODE.fullmatch, names) if m and m[0] == f"node{int(m[1])}"}):
        inside = abi.list_optional(files, f"{NODE}/node{nid}")
        blocks = tuple(sorted({BlockId(int(m[1])) for m in map(_BLOCK.fullmatch, inside) if m}))
        path = f"{NODE}/node{nid}/meminfo"
        text = abi.read_optional(files, path) if meminfo and "meminfo" in inside else None
        nodes.append(NodeSnapshot(Nid(nid), blocks, None if text is None else parse_meminfo(text, path)))
    masks = {}
    for name in _MASKS:
        text = abi.read_optional(files, f"{NODE}/{name}") if name in names else None
        if text is not None:
            masks[name] = parse_list(text, f"{NODE}/{name}")
    return NodesSnapshot(tuple(nodes), masks)
