# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that has not booted: every table empty, for tests of one room."""

from __future__ import annotations

import dataclasses
from typing import Any

from memhp import hardware
from memhp.linux import kconfig, tree
from memhp.linux.arch import ArchOps
from memhp.linux.include import mmzone
from memhp.linux.state import Kernel


def _no_such_step(*_: object) -> Any:
    raise AssertionError("a bare kernel's architecture does nothing")


def bare_kernel(arch: str = "arm64", *, tree: tree.Tree = tree.V4_9, config: kconfig.Kconfig | None = None) -> Kernel:
    """Return a kernel with the sizes of an architecture; everything else that an architecture does fails."""
    arm64 = arch == "arm64"
    given: dict[str, Any] = {
        "name": arch,
        "SECTION_SIZE_BITS": lambda tree, config: 30 if arm64 else 27,
        "MAX_PHYSMEM_BITS": lambda tree, config: 48 if arm64 else 46,
        "pageblock_order": lambda tree, config: 9,
        "IOMEM_END": (1 << 48) - 1,
        "VMEMMAP_START": 0xFFFF_7E00_0000_0000 if arm64 else 0xFFFF_EA00_0000_0000,
    }
    rest = {field.name: _no_such_step for field in dataclasses.fields(ArchOps) if field.name not in given}
    ops = ArchOps(**given, **rest)
    return Kernel(tree, ops, config or kconfig.default(arch), hardware.platform(arch, mem=1 << 30), mmzone.G0)
