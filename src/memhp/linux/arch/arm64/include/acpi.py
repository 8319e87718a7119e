# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: how ACPI reaches its tables and regions.

Source: arch/arm64/include/asm/acpi.h [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.arch.arm64.mm import ioremap
from memhp.linux.include.io import Mapping
from memhp.linux.mm import memblock

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def acpi_os_ioremap(k: Kernel, phys: int, size: int) -> Mapping | None:
    """
    Map what ACPI asks for: as a device where memblock knows no memory, else cacheable. Tables lie in NOMAP memory.

    Source: arch/arm64/include/asm/acpi.h acpi_os_ioremap() [v4.9]
    """
    if not memblock.memblock_is_memory(k, phys):
        return ioremap.ioremap(k, phys, size)
    return ioremap.ioremap_cache(k, phys, size)
