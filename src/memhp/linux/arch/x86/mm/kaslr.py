# SPDX-License-Identifier: GPL-2.0-only
"""
x86_64: what address randomisation leaves of the linear map.

The addresses themselves are not random here: only how far the linear map reaches can be seen.

Source: arch/x86/mm/kaslr.c [v6.1, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.units import TIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def kernel_randomize_memory(k: Kernel) -> None:
    """
    Settle where the linear map ends: at the last address bit; or, without ZONE_DEVICE, some TiB behind the memory there is.

    Source: arch/x86/mm/kaslr.c kernel_randomize_memory() [v6.12]
    """
    k.physmem_end = (1 << k.MAX_PHYSMEM_BITS) - 1
    if not k.config.RANDOMIZE_MEMORY or "nokaslr" in k.cmdline or k.config.ZONE_DEVICE:
        return
    memory_tb = -(-(k.max_pfn << k.PAGE_SHIFT) // TIB) + k.config.RANDOMIZE_MEMORY_PHYSICAL_PADDING
    k.physmem_end = min(k.physmem_end, memory_tb * TIB - 1)


def PHYSMEM_END(k: Kernel) -> int:
    """
    Return the last byte that memory may have.

    Source: none; arch/x86/include/asm/pgtable_64_types.h PHYSMEM_END [v6.12], include/linux/mm.h
    """
    return k.physmem_end if k.tree.physmem_end else (1 << k.MAX_PHYSMEM_BITS) - 1
