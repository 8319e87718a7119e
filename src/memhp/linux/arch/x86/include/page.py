# SPDX-License-Identifier: GPL-2.0-only
"""
x86_64: linear addresses.

Where the linear map begins KASLR decides; here it is where it would begin without (`nokaslr`).

Source: arch/x86/include/asm/page.h, page_64_types.h [v4.9, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

_PAGE_OFFSET_V4_9 = 0xFFFF_8800_0000_0000
_PAGE_OFFSET_BASE_L4 = 0xFFFF_8880_0000_0000
_PAGE_OFFSET_BASE_L5 = 0xFF11_0000_0000_0000


def pgtable_l5_enabled(k: Kernel) -> bool:
    """Whether page tables have five levels. Source: arch/x86/include/asm/pgtable_64_types.h pgtable_l5_enabled()"""
    return k.config.X86_5LEVEL and "no5lvl" not in k.cmdline


def PAGE_OFFSET(k: Kernel) -> int:
    """Return where the linear map begins. Source: none; arch/x86/include/asm/page_64_types.h __PAGE_OFFSET"""
    if not k.tree.x86_ldt_below_linear_map:
        return _PAGE_OFFSET_V4_9
    return _PAGE_OFFSET_BASE_L5 if pgtable_l5_enabled(k) else _PAGE_OFFSET_BASE_L4


def __va(k: Kernel, phys: int) -> int:
    """Source: arch/x86/include/asm/page.h __va()"""
    return phys + PAGE_OFFSET(k) & (1 << 64) - 1


def __pa(k: Kernel, address: int) -> int:
    """Source: arch/x86/include/asm/page.h __pa(), for linear addresses"""
    return address - PAGE_OFFSET(k) & (1 << 64) - 1
