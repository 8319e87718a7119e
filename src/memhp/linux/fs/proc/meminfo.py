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

    Source: fs/proc/meminfo.c meminfo_proc_show() [all]
    """
    use = vmstat.usage(k)
    free = sum(zone.nr_free_pages for nid in k.node_states[mmzone.N_ONLINE] for zone in k.nodes[nid].node_zones)
    today = k.tree.shown_counters
    pages = {
        "MemTotal": k.totalram_pages, "MemFree": free, "MemAvailable": si_mem_available(k, free, use), "Buffers": 0,
        "Cached": use.file, "SwapCached": 0, "Active": use.anon, "Inactive": use.file, "Active(anon)": use.anon,
        "Inactive(anon)": use.file, "Active(file)": 0, "Inactive(file)": 0, "Unevictable": 0, "Mlocked": 0, "SwapTotal": 0,
        "SwapFree": 0,
    }
    if k.config.ZSWAP:
        pages |= {"Zswap": 0, "Zswapped": 0}
    pages |= {"Dirty": 0, "Writeback": 0, "AnonPages": use.anon, "Mapped": 0, "Shmem": use.file}
    if today != "v4.9":
        pages["KReclaimable"] = use.reclaimable
    pages |= {
        "Slab": use.slab, "SReclaimable": use.reclaimable, "SUnreclaim": use.slab - use.reclaimable, "KernelStack": use.stack,
        "PageTables": use.page_table,
    }
    if today not in ("v4.9", "v5.10"):
        pages["SecPageTables"] = 0
    pages |= {"NFS_Unstable": 0, "Bounce": 0, "WritebackTmp": 0, "CommitLimit": k.totalram_pages // 2, "Committed_AS": 0}
    shift = k.PAGE_SHIFT - 10
    sizes = {name: count << shift for name, count in pages.items()}
    sizes |= {"VmallocTotal": k.arch.VMALLOC_TOTAL(k) >> 10, "VmallocUsed": 0, "VmallocChunk": 0}
    if today != "v4.9":
        sizes |= _more_sizes(k)
    # One name is longer than its column, and its number narrower.
    out = [f"{name + ':':<16}{size:>8} kB\n" if len(name) < 16 else f"{name}: {size:>5} kB\n" for name, size in sizes.items()]
    if today != "v4.9":
        out += hugetlb_report_meminfo(k)
    return "".join(out) + k.arch.arch_report_meminfo(k)


def _more_sizes(k: Kernel) -> dict[str, int]:
    """What later kernels show behind vmalloc's sizes, in KiB. Source: fs/proc/meminfo.c meminfo_proc_show() [v5.10]"""
    sizes = {"Percpu": 0}
    if k.config.MEMORY_FAILURE:
        sizes["HardwareCorrupted"] = 0
    sizes |= dict.fromkeys(("AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped"), 0)
    if k.config.CMA:
        zones = [zone for pgdat in k.nodes.values() for zone in pgdat.node_zones]
        sizes["CmaTotal"] = sum(size for _, size in k.cma_areas) >> 10
        sizes["CmaFree"] = sum(zone.nr_free_cma_pages for zone in zones) << (k.PAGE_SHIFT - 10)
    if k.config.UNACCEPTED_MEMORY:
        sizes["Unaccepted"] = 0
    return sizes


def hugetlb_report_meminfo(k: Kernel) -> list[str]:
    """The pool of huge pages. Source: mm/hugetlb.c hugetlb_report_meminfo() [v5.10]"""
    if not k.config.HUGETLB_PAGE:
        return []
    pool, size = k.hstate, 1 << k.arch.PMD_SHIFT(k.config) >> 10
    counts = {
        "HugePages_Total": pool.nr_huge_pages, "HugePages_Free": len(pool.free), "HugePages_Rsvd": pool.resv_huge_pages,
        "HugePages_Surp": pool.surplus_huge_pages,
    }
    return [
        *(f"{name + ':':<16}{count:8}\n" for name, count in counts.items()),
        f"{'Hugepagesize:':<16}{size:8} kB\n", f"{'Hugetlb:':<16}{pool.nr_huge_pages * size:8} kB\n",
    ]
