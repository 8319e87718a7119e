# SPDX-License-Identifier: GPL-2.0-only
"""
/proc/zoneinfo, read.

One reader for all forms: v4.9 shows populated zones only; later kernels show empty ones too, with fewer lines; some lines
come and go (`boost`, `cma`, `node_scanned`, `high_min`). What has a name of its own here is what every kernel shows; the
rest is in `counters`, `node_counters` and `other`, by the kernel's own names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from memhp.abi import files as abi
from memhp.abi.files import Files
from memhp.errors import UsageError
from memhp.units import Nid, Pfn

ZONEINFO = "/proc/zoneinfo"
_HEAD = re.compile(r"Node +([0-9]{1,9}), zone +([A-Za-z0-9_]{1,32})")
_VALUE = re.compile(r"([A-Za-z_][A-Za-z0-9_() ]{0,63}?):? +(-?[0-9]{1,20})")
_PROTECTION = re.compile(r"protection: \(([0-9, ]*)\)")
_AMOUNTS = ("free", "boost", "min", "low", "high", "promo", "spanned", "present", "managed", "cma")


@dataclass(frozen=True, slots=True)
class Pageset:
    """A CPU's free pages of a zone: `count`, `high`, `batch` and what else the kernel shows, by name."""

    cpu: int
    values: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class ZoneSnapshot:
    """
    One zone of one node; all amounts in pages.

    Attributes:
        node: Node.
        zone: "DMA", "DMA32", "Normal", "Movable", "Device".
        start_pfn: First pfn of the span; None where the kernel shows none (an empty zone).
        spanned: Pages of the span, holes included.
        present: Pages of memory in it.
        managed: Pages the buddy allocator was given.
        free: Free pages.
        min: Watermark.
        low: Watermark.
        high: Watermark.
        boost: Temporary raise of the watermarks; None before v5.0.
        cma: Pages of CMA; None where not shown.
        protection: lowmem_reserve, by zone.
        pagesets: By CPU.
        counters: The zone's vm counters ("nr_free_pages").
        node_counters: The node's, on the zone under which the kernel prints them; else empty.
        other: Named numbers beside these ("node_unreclaimable", "vm stats threshold").
    """

    node: Nid
    zone: str
    start_pfn: Pfn | None = None
    spanned: int = 0
    present: int = 0
    managed: int = 0
    free: int = 0
    min: int = 0
    low: int = 0
    high: int = 0
    boost: int | None = None
    promo: int | None = None
    cma: int | None = None
    protection: tuple[int, ...] = ()
    pagesets: list[Pageset] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    node_counters: dict[str, int] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)

    @property
    def populated(self) -> bool:
        """True if it has memory: `present` is not 0."""
        return self.present > 0

    @property
    def end_pfn(self) -> Pfn | None:
        """One past the last pfn of the span; None where the kernel shows no start."""
        return None if self.start_pfn is None else Pfn(self.start_pfn + self.spanned)


def parse_zoneinfo(text: str, path: str = ZONEINFO) -> list[ZoneSnapshot]:
    """Return the zones in the order the kernel prints them; UsageError on what no kernel prints."""
    zones: list[ZoneSnapshot] = []
    seen: set[tuple[int, str]] = set()
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        if not words:
            continue
        if head := _HEAD.fullmatch(words):
            zone = ZoneSnapshot(Nid(int(head[1])), head[2])
            if (zone.node, zone.zone) in seen:
                raise UsageError(f"{path}:{number}: node {zone.node}, zone {zone.zone} for the second time")
            seen.add((zone.node, zone.zone))
            zones.append(zone)
            section = "zone"
        elif not zones:
            raise UsageError(f"{path}:{number}: expected 'Node 0, zone …', found {abi.shorten(words)!r}")
        elif words == "per-node stats":
            section = "node"
        elif words == "pagesets":
            section = "pagesets"
        elif found := _PROTECTION.fullmatch(words):
            zones[-1].protection = tuple(abi.decimal(p.strip(), path, "protection") for p in found[1].split(",") if p.strip())
        elif value := _VALUE.fullmatch(words):
            section = _take(zones[-1], section, value[1], int(value[2]))
        else:
            raise UsageError(f"{path}:{number}: not a line of zoneinfo: {abi.shorten(words)!r}")
    return zones


def _take(zone: ZoneSnapshot, section: str, name: str, value: int) -> str:
    """Put one named number where it belongs; return the section that follows."""
    if name == "pages free":
        zone.free = value
        return "zone"
    if section == "pagesets":
        if name == "cpu":
            zone.pagesets.append(Pageset(value))
            return section
        if zone.pagesets and name not in ("vm stats threshold", "node_unreclaimable", "start_pfn"):
            zone.pagesets[-1].values[name] = value
            return section
    if section == "node":
        zone.node_counters[name] = value
    elif name in _AMOUNTS:
        setattr(zone, name, value)
    elif name == "start_pfn":
        zone.start_pfn = Pfn(value)
    elif section == "zone":
        (zone.counters if name.startswith(("nr_", "numa_")) else zone.other)[name] = value
    else:
        zone.other[name] = value
    return "pagesets" if section == "pagesets" and name == "vm stats threshold" else "zone" if section != "node" else section


def read_zoneinfo(files: Files) -> list[ZoneSnapshot]:
    """Read /proc/zoneinfo."""
    return parse_zoneinfo(abi.read_text(files, ZONEINFO))
