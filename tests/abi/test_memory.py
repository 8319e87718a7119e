# SPDX-License-Identifier: GPL-2.0-only
"""Memory blocks and nodes, read from every recorded kernel and from made-up ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memhp.abi import files as abi
from memhp.abi import recorded
from memhp.abi.files import MEMORY, NODE, Files
from memhp.abi.memory import read_block, read_memory
from memhp.abi.node import parse_list, read_nodes
from memhp.abi.probe import read_features
from memhp.errors import KernelError, UsageError
from memhp.units import GIB, MIB


def test_every_recorded_machine_is_read(machine: tuple[str, Files]) -> None:
    """Blocks are sorted, whole, and what one block says alone is what it says among all."""
    name, files = machine
    memory = read_memory(files)
    assert memory.blocks
    assert sorted(b.block for b in memory.blocks) == [b.block for b in memory.blocks]
    assert memory.block_size == (128 * MIB if "x86_64" in name or "v6.12" in name else GIB)
    assert ("v4.9" in name) == memory.probe
    for block in memory.blocks:
        assert block.state in ("online", "offline")
        assert block.phys_index == block.block
        assert block.removable is not None
        assert block.valid_zones is not None
        assert block == read_block(files, block.block)
        if block.online is not None:
            assert block.online == (block.state == "online")
    assert memory.find(10_000) is None


def test_the_recorded_steps_say_the_same_as_their_captures() -> None:
    """The short form in steps.toml and the captures come from the same text; both readings agree."""
    compared = 0
    for name in recorded.names():
        recording = recorded.recording(name)
        for step in recording.steps:
            if not step.capture:
                continue
            blocks = read_memory(recording.capture(step.capture)).blocks
            shown = [(b.block, b.state, " ".join(b.valid_zones or ()), int(b.removable or 0)) for b in blocks]
            assert [tuple(row.values()) for row in step.blocks] == shown
            compared += 1
    assert compared == 17


def test_arm64_of_2016_has_no_nodes_and_x86_has_one() -> None:
    """Without NUMA a block has no node; with one node every block is linked to it."""
    arm64 = recorded.recording("v4.9-arm64-rfc/full").capture("01-probe")
    assert [None, None] == [b.node for b in read_memory(arm64).blocks]
    assert () == read_nodes(arm64).nodes
    x86 = recorded.recording("v4.9-x86_64/1-probe").capture("01-probe")
    assert {0} == {b.node for b in read_memory(x86).blocks}
    (node,) = read_nodes(x86).nodes
    assert [*range(8), 16] == list(node.blocks)
    assert (0,) == read_nodes(x86).masks["has_normal_memory"]


def test_a_block_whose_zones_are_none(later: Callable[[str], Files]) -> None:
    """v5.10 says "none" for a block that spans zones, and gives a NOMAP block no node."""
    block = read_memory(later("v5.10-arm64-dimm/03-online")).blocks[0]
    assert () == block.valid_zones
    assert () == block.nodes


def tree(blocks: dict[int, dict[str, str]], size: str = "8000000\n", **links: str) -> Files:
    texts = {f"{MEMORY}/block_size_bytes": size}
    texts |= {f"{MEMORY}/memory{n}/{name}": value for n, values in blocks.items() for name, value in values.items()}
    return abi.stored(texts, links)


def test_missing_files_are_none() -> None:
    """A kernel that shows only `state` is read, too; what it does not show is None."""
    (block,) = read_memory(tree({3: {"state": "going-offline\n"}})).blocks
    assert "going-offline" == block.state
    assert (None,) * 5 == (block.valid_zones, block.removable, block.phys_index, block.phys_device, block.online)


def test_node_links_on_the_blocks_alone_are_found() -> None:
    """A tree without /sys/devices/system/node, as some captures are, tells nodes by the links of its blocks."""
    files = abi.stored(
        {f"{MEMORY}/block_size_bytes": "8000000\n", f"{MEMORY}/memory0/state": "online\n", f"{MEMORY}/memory1/state": "online\n"},
        {f"{MEMORY}/memory0/node0": "/x", f"{MEMORY}/memory1/node3": "/x"},
    )
    assert [(0,), (3,)] == [b.nodes for b in read_memory(files).blocks]


def test_a_block_that_two_nodes_share() -> None:
    """A block may be linked to two nodes; the lower one is its node."""
    files = abi.stored(
        {f"{MEMORY}/block_size_bytes": "8000000\n", f"{MEMORY}/memory0/state": "online\n"},
        {f"{NODE}/node{n}/memory0": f"{MEMORY}/memory0" for n in (1, 0)},
    )
    (block,) = read_memory(files).blocks
    assert (0, 1) == block.nodes
    assert 0 == block.node


class Counting:
    """Files that count how often they are asked, and of which one block goes away while it is read."""

    def __init__(self, inner: Files, gone: str = "") -> None:
        self.inner, self.gone = inner, gone
        self.reads = self.lists = 0

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        self.reads += 1
        return self.inner.read(path + "/gone" if self.gone and self.gone in path else path, offset, size)

    def listdir(self, path: str) -> list[str]:
        self.lists += 1
        return self.inner.listdir(path)[::-1]

    def write(self, path: str, text: str) -> None:
        raise AssertionError("a reader writes nothing")


def test_many_blocks_cost_few_questions() -> None:
    """200 unsorted blocks: three directories, and one short read for each attribute asked for."""
    values = {"state": "online\n", "valid_zones": "Normal\n", "removable": "1\n"}
    links = {f"{NODE}/node0/memory{n}": f"{MEMORY}/memory{n}" for n in range(200)}
    files = Counting(tree({n: values for n in range(200)}, **links))
    memory = read_memory(files, ("state", "removable"))
    assert list(range(200)) == [b.block for b in memory.blocks]
    assert 4 == files.lists
    assert 1 + 2 * 200 == files.reads


def test_a_block_that_goes_away_while_it_is_read_is_left_out() -> None:
    """Between listing and reading a block may be removed; the others are still told."""
    files = Counting(tree({n: {"state": "online\n"} for n in range(3)}), gone="memory1/")
    assert [0, 2] == [b.block for b in read_memory(files).blocks]


@pytest.mark.parametrize("size", ["", "0\n", "30000000\n", "-8\n", "xyz\n", "f" * 40])
def test_a_block_size_that_cannot_be(size: str) -> None:
    """A block size is a power of two; anything else names the file."""
    with pytest.raises(UsageError, match="block_size_bytes"):
        read_memory(tree({0: {"state": "online\n"}}, size))


@pytest.mark.parametrize(("name", "value"), [("removable", "maybe"), ("phys_index", "zz"), ("phys_device", "1" * 50)])
def test_an_attribute_that_cannot_be(name: str, value: str) -> None:
    """The message names the file and shows what stands there."""
    with pytest.raises(UsageError, match=f"memory5/{name}"):
        read_memory(tree({5: {"state": "online\n", name: value}}))


def test_a_kernel_without_hotplug() -> None:
    """Without /sys/devices/system/memory reading is ENOENT, and the features say so first."""
    files = abi.stored({"/proc/meminfo": "MemTotal: 4 kB\n"})
    with pytest.raises(KernelError, match="ENOENT"):
        read_memory(files)
    assert not read_features(files).hotplug
    assert read_block(files, 1) is None


def test_features_are_told_by_files(later: Callable[[str], Files]) -> None:
    """Each recorded kernel shows what it has; no version number is asked."""
    arm64 = read_features(recorded.recording("v4.9-arm64-rfc/full").capture("00-boot"))
    assert arm64.probe and arm64.memblock and not arm64.numa and not arm64.memblock_flags and arm64.pagetypeinfo
    x86 = read_features(recorded.recording("v4.9-x86_64/1-probe").capture("00-boot"))
    assert x86.probe and x86.numa and not x86.memblock and x86.valid_zones and x86.auto_online
    new = read_features(later("v6.12-arm64-dimm/00-boot"))
    assert not new.probe and new.memblock and new.memblock_flags and new.numa
    old = read_features(later("v5.10-arm64-dimm/00-boot"))
    assert old.memblock and not old.memblock_flags


def test_node_lists() -> None:
    """Kernel lists of numbers: ranges, single ones, nothing; other text names the file."""
    assert (0, 1, 2, 5) == parse_list("0-2,5\n")
    assert () == parse_list("\n")
    for text in ("0-", "a", "5-4000000000", "1 2"):
        with pytest.raises(UsageError, match="possible"):
            parse_list(text, "possible")


def test_node_meminfo() -> None:
    """Each node's meminfo carries its node in every line."""
    files = abi.stored({f"{NODE}/node1/meminfo": "Node 1 MemTotal:       2048 kB\nNode 1 HugePages_Total:     3\n"})
    (node,) = read_nodes(files).nodes
    assert node.meminfo is not None
    assert 2 * MIB == node.meminfo.total
    assert {"HugePages_Total": 3} == node.meminfo.counts
