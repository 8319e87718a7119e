# SPDX-License-Identifier: GPL-2.0-only
"""
x86: the firmware's memory map, as hibernation sees it.

Source: arch/x86/kernel/e820.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def e820_mark_nosave_regions(k: Kernel) -> list[tuple[int, int]]:
    """
    Return the pfns [start, end) between RAM, up to the end of RAM at boot: hibernation leaves them out.

    Source: arch/x86/kernel/e820.c e820_mark_nosave_regions() [v4.9]
    """
    regions = []
    pfn = 0
    for r in k.hardware.memory:
        first = -(-r.start >> k.PAGE_SHIFT)
        if pfn < first:
            regions.append((pfn, first))
        pfn = r.end >> k.PAGE_SHIFT
    return regions
