# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: from physical addresses to linear ones and back, and whether a linear address is good.

In v4.9 the linear map is the upper half of the kernel's addresses, with 48 bits of them; from v5.4 on it is the lower half, and a
kernel built for 52 bits falls back to 48 (47 with 16K pages) on processors that have no more.

Source: arch/arm64/include/asm/memory.h [v4.9, v6.1, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.memory_model import SIZEOF_STRUCT_PAGE
from memhp.units import GIB, MIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

SIZEOF_STRUCT_PAGE_SHIFT = SIZEOF_STRUCT_PAGE.bit_length() - 1
VA_BITS = 48
"""In v4.9; see vabits_actual()."""
PAGE_OFFSET = 0xFFFF_8000_0000_0000
"""In v4.9; see linear_start()."""
PHYS_MASK = (1 << 48) - 1
_ULONG = (1 << 64) - 1


def VA_BITS_MIN(k: Kernel) -> int:
    """Return the bits of a kernel address that every processor has. Source: none; arch/arm64/include/asm/memory.h VA_BITS_MIN"""
    if k.config.ARM64_VA_BITS <= 48:
        return k.config.ARM64_VA_BITS
    return 47 if k.PAGE_SHIFT == 14 else 48


def vabits_actual(k: Kernel) -> int:
    """Return the bits of a kernel address on this processor. Source: none; arch/arm64/mm/mmu.c vabits_actual"""
    return k.config.ARM64_VA_BITS if k.hardware.va_bits >= k.config.ARM64_VA_BITS else VA_BITS_MIN(k)


def linear_start(k: Kernel) -> int:
    """Return the first address of the linear map. Source: none; arch/arm64/include/asm/memory.h _PAGE_OFFSET() [v5.4]"""
    if not k.tree.arm64_linear_map_low:
        return PAGE_OFFSET
    return (1 << 64) - (1 << vabits_actual(k))


def PAGE_END(k: Kernel) -> int:
    """Return the end of the linear map. Source: none; arch/arm64/include/asm/memory.h PAGE_END [v5.4]"""
    return (1 << 64) - (1 << VA_BITS_MIN(k) - 1)


def VMEMMAP_SIZE(k: Kernel) -> int:
    """
    Return the bytes of the struct pages of everything that the linear map could reach.

    Source: none; arch/arm64/include/asm/memory.h VMEMMAP_SIZE
    """
    return PAGE_END(k) - ((1 << 64) - (1 << k.config.ARM64_VA_BITS)) >> k.PAGE_SHIFT - SIZEOF_STRUCT_PAGE_SHIFT


def VMEMMAP_START(k: Kernel) -> int:
    """
    Return where the virtual memmap begins: the struct page of the linear map's first page.

    A kernel for 52 bits on a processor with fewer uses the end of it.

    Source: none; arch/arm64/include/asm/memory.h VMEMMAP_START [v5.10, v6.1, v6.12]
    """
    size = VMEMMAP_SIZE(k)
    if k.tree.arm64_vmemmap_below_top:
        start = (1 << 64) - GIB - size
    elif k.tree.arm64_vmemmap_by_va_bits:
        start = (1 << 64) - (1 << k.config.ARM64_VA_BITS - k.PAGE_SHIFT + SIZEOF_STRUCT_PAGE_SHIFT)
    else:
        start = (1 << 64) - size - 2 * MIB
    unused = (1 << k.config.ARM64_VA_BITS) - (1 << vabits_actual(k))
    return start + (unused >> k.PAGE_SHIFT - SIZEOF_STRUCT_PAGE_SHIFT)


def pgtable_shifts(k: Kernel) -> tuple[int, ...]:
    """
    Return log2 of what an entry of each level maps, PTE first; the last is the top table's.

    Source: none; arch/arm64/include/asm/pgtable-hwdef.h ARM64_HW_PGTABLE_LEVEL_SHIFT()
    """
    bits = k.PAGE_SHIFT - 3
    return tuple(range(k.PAGE_SHIFT, vabits_actual(k), bits))


def MEMSTART_ALIGN(k: Kernel) -> int:
    """
    Return what the start of the linear map is a multiple of: a PUD with 4K pages, a contiguous PMD with 16K, a PMD with 64K; a
    section at least.

    Source: none; arch/arm64/include/asm/kernel-pgtable.h ARM64_MEMSTART_ALIGN
    """
    shift = {12: 30, 14: 30, 16: 29}[k.PAGE_SHIFT]
    return 1 << max(shift, k.SECTION_SIZE_BITS)


def PHYS_OFFSET(k: Kernel) -> int:
    """
    Return the physical address at the start of the linear map: that of the first memory, rounded down.

    Linux moves it on if it is built for more address bits than the processor has; here it is what lies at linear_start().

    Source: none; memstart_addr, arch/arm64/mm/init.c arm64_memblock_init()
    """
    align = MEMSTART_ALIGN(k)
    return min(r.start for r in k.hardware.memory) // align * align


def __phys_to_virt(k: Kernel, phys: int) -> int:
    """Source: arch/arm64/include/asm/memory.h __phys_to_virt()"""
    if k.tree.arm64_linear_map_low:
        return phys - PHYS_OFFSET(k) + linear_start(k) & _ULONG
    return (phys - PHYS_OFFSET(k) | PAGE_OFFSET) & _ULONG


def __virt_to_phys(k: Kernel, kaddr: int) -> int:
    """Source: arch/arm64/include/asm/memory.h __virt_to_phys(), for linear addresses"""
    if k.tree.arm64_linear_map_low:
        return kaddr - linear_start(k) + PHYS_OFFSET(k)
    return (kaddr & ~PAGE_OFFSET & _ULONG) + PHYS_OFFSET(k)


def virt_addr_valid(k: Kernel, kaddr: int) -> bool:
    """
    Say whether a linear address has memory behind it. The pfn it comes from is all that is asked.

    Source: arch/arm64/include/asm/memory.h virt_addr_valid(), __is_lm_address() [v4.9, v6.12]
    """
    if k.tree.arm64_linear_map_low:
        if not linear_start(k) <= kaddr < PAGE_END(k):
            return False
    elif kaddr < PAGE_OFFSET:
        return False
    return mmzone.pfn_valid(k, __virt_to_phys(k, kaddr) >> k.PAGE_SHIFT)
