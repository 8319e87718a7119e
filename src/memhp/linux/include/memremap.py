# SPDX-License-Identifier: GPL-2.0-only
"""
Where a memmap's pages may come from instead of the page allocator.

Source: include/linux/memremap.h.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(slots=True)
class VmemAltmap:
    """
    struct vmem_altmap. Pages, not bytes.

    Attributes:
        base_pfn: First pfn of the range it serves.
        end_pfn: Last pfn of the range.
        reserve: Pages at its start that nobody may use.
        free: Pages set aside for the memmap.
        align: Pages lost to alignment.
        alloc: Pages in use.
        inaccessible: The memory cannot be touched before MEM_PREPARE_ONLINE [v6.8].
    """

    base_pfn: int
    end_pfn: int = 0
    reserve: int = 0
    free: int = 0
    align: int = 0
    alloc: int = 0
    inaccessible: bool = False

    def copy(self) -> VmemAltmap:
        return replace(self)


def vmem_altmap_offset(altmap: VmemAltmap) -> int:
    """Return the pages between the range's start and what is left of it. Source: mm/memremap.c vmem_altmap_offset()"""
    return altmap.reserve + altmap.free
