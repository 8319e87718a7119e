# SPDX-License-Identifier: GPL-2.0-only
"""Machines to read: the recordings of v4.9 that come with memhp, and those of later kernels under tests/data."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from memhp.abi import files as abi
from memhp.abi import recorded
from memhp.abi.files import MEMBLOCK, MEMORY, NODE, Files

LATER = Path(__file__).parent.parent / "data" / "recorded"
BLOCK = re.compile(r"memory([0-9]+) (\S+) zones=(.*) removable=(\S+) idx=(\S+) node=(?:memory[0-9]+/(node[0-9]+),)?")


def later_kernel(folder: Path) -> Files:
    """The files of one step of a later recording, put back where they came from."""
    texts: dict[str, str | bytes] = {
        f"{MEMBLOCK}/memory": (folder / "memblock").read_text(),
        "/proc/iomem": (folder / "iomem").read_text(),
        "/proc/zoneinfo": (folder / "zoneinfo").read_text(),
        "/proc/meminfo": (folder / "meminfo").read_text(),
    }
    links = {}
    *lines, size, auto = (folder / "blocks").read_text().split("\n")[:-1]
    texts |= {f"{MEMORY}/block_size_bytes": size + "\n", f"{MEMORY}/auto_online_blocks": auto + "\n"}
    for line in lines:
        match = BLOCK.fullmatch(line)
        assert match, line
        number, state, zones, removable, index, node = match.groups()
        for name, value in (("state", state), ("valid_zones", zones), ("removable", removable), ("phys_index", index)):
            texts[f"{MEMORY}/memory{number}/{name}"] = value + "\n"
        if node:
            links[f"{NODE}/{node}/memory{number}"] = f"{MEMORY}/memory{number}"
            links[f"{MEMORY}/memory{number}/{node}"] = f"{NODE}/{node}"
    return abi.stored(texts, links)


def _machines() -> dict[str, Callable[[], Files]]:
    found: dict[str, Callable[[], Files]] = {}
    for name in recorded.names():
        recording = recorded.recording(name)
        for step in recording.captures:
            found[f"{name}/{step}"] = lambda recording=recording, step=step: recording.capture(step)
    for blocks in sorted(LATER.glob("*/*/blocks")):
        found[blocks.parent.relative_to(LATER).as_posix()] = lambda folder=blocks.parent: later_kernel(folder)
    return found


MACHINES = _machines()


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> tuple[str, Files]:
    """Every recorded state of every kernel: its name, and its files."""
    return request.param, MACHINES[request.param]()


@pytest.fixture
def later() -> Callable[[str], Files]:
    """A step of a later kernel by name: "v6.12-arm64-dimm/04-kernel-26"."""
    return lambda name: later_kernel(LATER / name)
