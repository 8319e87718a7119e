# SPDX-License-Identifier: GPL-2.0-only
"""
x86_64: linear addresses.

Source: arch/x86/include/asm/page.h, page_64_types.h [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

PAGE_OFFSET = 0xFFFF_8800_0000_0000


def __va(k: Kernel, phys: int) -> int:
    """Source: arch/x86/include/asm/page.h __va()"""
    return phys + PAGE_OFFSET & (1 << 64) - 1


def __pa(k: Kernel, address: int) -> int:
    """Source: arch/x86/include/asm/page.h __pa(), for linear addresses"""
    return address - PAGE_OFFSET & (1 << 64) - 1
