# SPDX-License-Identifier: GPL-2.0-only
"""
/proc/kcore: the kernel's memory as a core file.

Source: fs/proc/kcore.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.io import read_linear
from memhp.linux.include.mmzone import N_MEMORY
from memhp.linux.kernel import resource

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def kcore_update_ram(k: Kernel) -> list[tuple[int, int]]:
    """
    Return the ranges of RAM that the file shows, as physical [start, end): what the resource tree calls System RAM, up to the
    end of the last node with memory.

    Source: fs/proc/kcore.c kcore_update_ram(), kclist_add_private() [v4.9]
    """
    end_pfn = max((mmzone.pgdat_end_pfn(k.nodes[nid]) for nid in k.node_states[N_MEMORY]), default=0)
    head: list[tuple[int, int]] = []

    def kclist_add_private(k: Kernel, pfn: int, nr_pages: int) -> int:
        head.append((pfn << k.PAGE_SHIFT, pfn + nr_pages << k.PAGE_SHIFT))
        return 0

    if end_pfn:
        resource.walk_system_ram_range(k, 0, end_pfn, kclist_add_private)
    return head


def read_kcore(k: Kernel, phys: int, tsz: int) -> bool:
    """
    Read at the linear address of `phys`, inside one page.

    Returns:
        True if memory was copied, False if the reader got zeros.

    Raises:
        KernelBugError: a linear address without a mapping was read.

    Source: fs/proc/kcore.c read_kcore() [v4.9], the part for RAM
    """
    if not any(start <= phys < end for start, end in kcore_update_ram(k)):
        return False
    if not k.arch.io.kern_addr_valid(k, k.arch.io.phys_to_virt(k, phys)):
        return False
    read_linear(k, phys, tsz)
    return True
