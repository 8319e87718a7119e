# SPDX-License-Identifier: GPL-2.0-only
"""The recordings of kernels later than v4.9 that lie under tests/data, as files that can be read."""

from __future__ import annotations

import re
from pathlib import Path

from memhp.abi import files as abi
from memhp.abi.files import MEMBLOCK, MEMORY, NODE, Files

LATER = Path(__file__).parent / "data" / "recorded"
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
        zones = zones.replace(",", " ")
        for name, value in (("state", state), ("valid_zones", zones), ("removable", removable), ("phys_index", index)):
            texts[f"{MEMORY}/memory{number}/{name}"] = value + "\n"
        if node:
            links[f"{NODE}/{node}/memory{number}"] = f"{MEMORY}/memory{number}"
            links[f"{MEMORY}/memory{number}/{node}"] = f"{NODE}/{node}"
    return abi.stored(texts, links)
