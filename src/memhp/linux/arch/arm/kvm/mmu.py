# SPDX-License-Identifier: GPL-2.0-only
"""
KVM on arm64: with which memory type a guest sees a page.

Source: arch/arm/kvm/mmu.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.io import DEVICE, NORMAL, Mapping

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def kvm_is_device_pfn(k: Kernel, pfn: int) -> bool:
    """Source: arch/arm/kvm/mmu.c kvm_is_device_pfn() [v4.9]"""
    return not mmzone.pfn_valid(k, pfn)


def user_mem_abort(k: Kernel, pfn: int) -> Mapping:
    """
    Choose the memory type of a stage-2 mapping: Device for what pfn_valid() denies.

    Source: arch/arm/kvm/mmu.c user_mem_abort() [v4.9], as far as `mem_type` goes
    """
    kind = DEVICE if kvm_is_device_pfn(k, pfn) else NORMAL
    return Mapping(pfn << k.PAGE_SHIFT & (1 << 64) - 1, k.PAGE_SIZE, kind)
