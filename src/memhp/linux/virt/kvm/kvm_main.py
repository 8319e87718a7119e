# SPDX-License-Identifier: GPL-2.0-only
"""
KVM: which guest pages have a struct page whose references count.

Source: virt/kvm/kvm_main.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.page_flags import PageReserved

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def kvm_is_reserved_pfn(k: Kernel, pfn: int) -> bool:
    """
    Whether KVM leaves a page's reference count alone: not valid, or reserved.

    Raises:
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: virt/kvm/kvm_main.c kvm_is_reserved_pfn() [v4.9]
    """
    if mmzone.pfn_valid(k, pfn):
        return PageReserved(k, pfn)
    return True
