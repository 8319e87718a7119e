# SPDX-License-Identifier: GPL-2.0-only
"""
/proc/meminfo.

Source: fs/proc/meminfo.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.mmzone import WMARK_LOW
from memhp.linux.mm import vmstat

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def si_mem_available(k: Kernel, free: int, use: vmstat.Usage) -> int:
    """Estimate the pages that can be had without swapping. Source: mm/page_alloc.c si_mem_available() [v4.9]"""
    nids = k.node_states[mmzone.N_ONLINE]
    totalreserve = sum(k.nodes[nid].totalreserve_pages for nid in nids)
    wmark_low = sum(zone.watermark[WMARK_LOW] for nid in nids for zone in k.nodes[nid].node_zones)
    available = free - totalreserve
    available += use.reclaimable - min(use.reclaimable // 2, wmark_low)
    return max(0, available)


def meminfo_proc_show(k: Kernel) -> str:
    """
    Show what memory there is.

    Source: fs/proc/meminfo.c meminfo_proc_show() [v4.9]
    """
    use = vmstat.usage(k)
    free = sum(zone.nr_free_pages for nid in k.node_states[mmzone.N_ONLINE] for zone in k.nodes[nid].node_zones)
    pages = {
        "MemTotal": k.totalram_pages, "MemFree": free, "MemAvailable": si_mem_available(k, free, use), "Buffers": 0,
        "Cached": use.file, "SwapCached": 0, "Active": use.anon, "Inactive": use.file, "Active(anon)": use.anon,
        "Inactive(anon)": use.file, "Active(file)": 0, "Inactive(file)": 0, "Unevictable": 0, "Mlocked": 0, "SwapTotal": 0,
        "SwapFree": 0, "Dirty": 0, "Writeback": 0, "AnonPages": use.anon, "Mapped": 0, "Shmem": use.file, "Slab": use.slab,
        "SReclaimable": use.reclaimable, "SUnreclaim": use.slab - use.reclaimable, "KernelStack": use.stack,
        "PageTables": use.page_table, "NFS_Unstable": 0, "Bounce": 0, "WritebackTmp": 0, "CommitLimit": k.totalram_pages // 2,
        "Committed_AS": 0,
    }
    shift = k.PAGE_SHIFT - 10
    out = [f"{name + ':':<16}{count << shift:>8} kB\n" for name, count in pages.items()]
    out.append(f"{'VmallocTotal:':<16}{k.arch.VMALLOC_TOTAL >> 10:>8} kB\n")
    out += [f"{name:<16}{0:>8} kB\n" for name in ("VmallocUsed:", "VmallocChunk:")]
    return "".join(out) + k.arch.arch_report_meminfo(k)
