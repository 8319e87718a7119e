# SPDX-License-Identifier: GPL-2.0-only
"""
hwpoison-inject: a pfn is written to a debugfs file. Any number of 64 bits is a pfn there.

Source: mm/hwpoison-inject.c [v4.9].
"""

from __future__ import annotations

from errno import ENXIO
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.include import mm, mmzone
from memhp.linux.mm import memory_failure

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def hwpoison_inject(k: Kernel, val: int) -> str:
    """
    Poison a page that is in use; one without references is left alone ("").

    Raises:
        KernelError: ENXIO for what pfn_valid() denies.
        KernelBugError: pfn_valid() promised a struct page where there is none.

    Source: mm/hwpoison-inject.c hwpoison_inject() [v4.9]
    """
    if not mmzone.pfn_valid(k, val):
        raise KernelError(ENXIO, "pfn_valid() is false", pfn=val)
    if not mm.page_ref_count(k, val):
        return ""
    return memory_failure.memory_failure(k, val)
