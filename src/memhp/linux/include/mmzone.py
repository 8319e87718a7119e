# SPDX-License-Identifier: GPL-2.0-only
"""
Zones, nodes, sections; and pfn_valid(), which can be exchanged.

The parts. Physical memory is cut into *sections* (struct mem_section); a section that is present has a memmap, the struct
pages of its pfns. A *node* (pglist_data) has *zones*; a zone spans pfns and keeps free lists, one for each order and
migratetype. `pfn_valid()` says whether a pfn has a struct page; what it looks at has changed many times, so it is a
`Definition` made of named ingredients, and a kernel boots with one of them.

Locks: zone spans under pgdat_resize_lock and the zone's span seqlock; free lists under zone->lock; sections under
mem_hotplug.lock.

Source: include/linux/mmzone.h, arch/*/include/asm/sparsemem.h.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from memhp.linux.include import mm_types
from memhp.units import Pfn, SectionNr

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

SECTION_MARKED_PRESENT = 1 << 0
SECTION_HAS_MEM_MAP = 1 << 1
SECTION_IS_ONLINE = 1 << 2
SECTION_IS_EARLY = 1 << 3
SECTION_TAINT_ZONE_DEVICE = 1 << 4

SUBSECTION_SHIFT = 21
"""A sub-section is 2 MiB (v5.3 onwards)."""

MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_CMA = range(6)
"""In C MIGRATE_CMA comes before MIGRATE_ISOLATE and is there under CONFIG_CMA only."""
MIGRATE_PCPTYPES = 3
MIGRATE_TYPES = (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE)
"""All there are without CMA, in C's order; of a kernel: `Kernel.migratetypes`."""
MIGRATE_TYPES_CMA = (*MIGRATE_TYPES[:-1], MIGRATE_CMA, MIGRATE_ISOLATE)
MIGRATE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate", "CMA")

WMARK_MIN, WMARK_LOW, WMARK_HIGH = range(3)

MEMINIT_EARLY, MEMINIT_HOTPLUG = "MEMINIT_EARLY", "MEMINIT_HOTPLUG"
"""enum meminit_context [v5.9]; MEMMAP_* before."""

N_POSSIBLE, N_ONLINE, N_NORMAL_MEMORY, N_MEMORY = "possible", "online", "has_normal_memory", "has_memory"


class Backing(NamedTuple):
    """
    Pages behind a part of a section's memmap.

    Attributes:
        first: Which page of the memmap they begin at.
        pfn: The first of them; negative where it is not known or an altmap's (see mm/sparse_vmemmap.py).
        pages: How many.
        huge: They are one PMD leaf; else so many PTEs.
    """

    first: int
    pfn: int
    pages: int
    huge: bool


class MemSection:
    """
    struct mem_section, with the section's memmap beside it.

    Attributes:
        nr: Section number.
        section_mem_map: The flag bits SECTION_*; the encoded pointer is `memmap`.
        early_nid: Node noted by memory_present() until the memmap is made.
        memmap: The struct pages, or None while no vmemmap is populated behind them.
        pageblock_flags: Migratetype of each pageblock: one number while all agree, or a bytearray; None without usemap.
        subsection_map: Bit i set: sub-section i is in use (v5.3 onwards).
        usage_from_boot: Its usage lies in pages that memblock gave; it is kept when the section goes [v5.3].
        backing: What lies behind its memmap [v5.3].
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = (
        "backing", "early_nid", "memmap", "nr", "owner", "pageblock_flags", "section_mem_map", "subsection_map",
        "usage_from_boot",
    )

    def __init__(self, nr: int, owner: object) -> None:
        self.nr = nr
        self.section_mem_map = 0
        self.early_nid = 0
        self.memmap: mm_types.PageColumns | None = None
        self.pageblock_flags: int | bytearray | None = None
        self.subsection_map = 0
        self.usage_from_boot = False
        self.backing: tuple[Backing, ...] = ()
        self.owner = owner

    def copy(self, owner: object) -> MemSection:
        new = MemSection(self.nr, owner)
        new.section_mem_map = self.section_mem_map
        new.early_nid = self.early_nid
        new.memmap = None if self.memmap is None else self.memmap.share()
        usemap = self.pageblock_flags
        new.pageblock_flags = bytearray(usemap) if isinstance(usemap, bytearray) else usemap
        new.subsection_map = self.subsection_map
        new.usage_from_boot = self.usage_from_boot
        new.backing = self.backing
        return new


class BlockList:
    """
    The free list of the largest order, kept as runs of adjacent blocks.

    Largest blocks never merge further, and onlining adds them by the thousand, so a run [start, end) of them is one entry.
    A list has two halves. In `runs`, the half of the head, blocks ascend towards the head: list_add() of ascending blocks only
    moves the last run's end, and the head is the last run's last block. In `low`, the half of the tail, blocks ascend towards
    the tail: list_add_tail() of ascending blocks only moves the last run's end, and the tail is the last run's last block.
    """

    __slots__ = ("low", "runs", "size")

    def __init__(self, size: int, runs: list[list[int]] | None = None, low: list[list[int]] | None = None) -> None:
        self.size = size
        self.runs = runs if runs is not None else []
        self.low = low if low is not None else []

    def __len__(self) -> int:
        return sum(end - start for start, end in self.ranges()) // self.size

    def __bool__(self) -> bool:
        return bool(self.runs or self.low)

    def __iter__(self) -> Iterator[int]:
        """First pfns from tail to head, as in an OrderedDict whose last item is the head."""
        for start, end in reversed(self.low):
            yield from range(end - self.size, start - self.size, -self.size)
        for start, end in self.runs:
            yield from range(start, end, self.size)

    def __contains__(self, pfn: int) -> bool:
        return any(start <= pfn < end and (pfn - start) % self.size == 0 for start, end in self.ranges())

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The pfns [start, end) of every run, in no order."""
        for start, end in self.runs:
            yield start, end
        for start, end in self.low:
            yield start, end

    def copy(self) -> BlockList:
        return BlockList(self.size, [run[:] for run in self.runs], [run[:] for run in self.low])

    def add(self, start: int, end: int) -> None:
        """list_add() the blocks of [start, end) in ascending order."""
        if self.runs and self.runs[-1][1] == start:
            self.runs[-1][1] = end
        else:
            self.runs.append([start, end])

    def add_tail(self, start: int, end: int) -> None:
        """list_add_tail() the blocks of [start, end) in ascending order."""
        if self.low and self.low[-1][1] == start:
            self.low[-1][1] = end
        else:
            self.low.append([start, end])

    def first(self) -> int:
        """Return the head."""
        return self.runs[-1][1] - self.size if self.runs else self.low[0][0]

    def remove(self, pfn: int) -> None:
        """list_del() one block."""
        runs, end = self.runs, pfn + self.size
        if runs and runs[-1][1] == end:
            runs[-1][1] = pfn
            if runs[-1][0] == pfn:
                del runs[-1]
            return
        if not self._cut(runs, pfn, end) and not self._cut(self.low, pfn, end):
            raise KeyError(pfn)

    def take(self, start: int, end: int) -> list[tuple[int, int]]:
        """list_del() every block of [start, end); returns them as runs in ascending order."""
        found = self._cut(self.runs, start, end) + self._cut(self.low, start, end)
        found.sort()
        joined: list[tuple[int, int]] = []
        for low, high in found:
            if joined and joined[-1][1] == low:
                joined[-1] = joined[-1][0], high
            else:
                joined.append((low, high))
        return joined

    @staticmethod
    def _cut(runs: list[list[int]], start: int, end: int) -> list[tuple[int, int]]:
        """Cut [start, end) out of runs, the last ones first; returns the pieces."""
        found = []
        wanted = end - start
        for i in range(len(runs) - 1, -1, -1):
            low, high = runs[i]
            if high <= start or end <= low:
                continue
            cut = max(low, start), min(high, end)
            found.append(cut)
            if cut == (low, high):
                del runs[i]
            elif cut[0] == low:
                runs[i][0] = cut[1]
            elif cut[1] == high:
                runs[i][1] = cut[0]
            else:
                runs[i : i + 1] = [[low, cut[0]], [cut[1], high]]
            wanted -= cut[1] - cut[0]
            if not wanted:
                break
        return found


class FreeArea:
    """
    zone->free_area[MAX_ORDER].

    Attributes:
        free_list: By order below the largest and migratetype; first pfns, the last item being the list's head.
        blocks: The largest order, by migratetype.
        nr_free: Free blocks by order, all migratetypes.
        owner: Token of the kernel that may edit it in place.
    """

    __slots__ = ("blocks", "free_list", "nr_free", "owner")

    def __init__(self, max_order: int, migrate_types: int, owner: object) -> None:
        self.free_list: list[list[OrderedDict[int, None]]] = [
            [OrderedDict() for _ in range(migrate_types)] for _ in range(max_order - 1)
        ]
        self.blocks = [BlockList(1 << (max_order - 1)) for _ in range(migrate_types)]
        self.nr_free = [0] * max_order
        self.owner = owner

    def copy(self, owner: object) -> FreeArea:
        new = FreeArea.__new__(FreeArea)
        new.free_list = [[lists.copy() for lists in order] for order in self.free_list]
        new.blocks = [lists.copy() for lists in self.blocks]
        new.nr_free = self.nr_free[:]
        new.owner = owner
        return new


class Zone:
    """
    struct zone. Pages, not bytes.

    Attributes:
        name: "DMA", "DMA32", "Normal", "Movable", "Device".
        idx: zone_idx(): its place in node_zones.
        nid: Node.
        zone_start_pfn, spanned_pages, present_pages, managed_pages: As in C.
        present_early_pages: Those of `present_pages` that were there at boot [v5.15].
        cma_pages: Those of `present_early_pages` that belong to CMA.
        initialized: init_currently_empty_zone() has run.
        contiguous: No hole inside, as set_zone_contiguous() found.
        contiguous_end: From the zone's start up to here no hole was found, and nothing was moved out since.
        watermark: (min, low, high).
        lowmem_reserve: By class zone index.
        free_area: Free lists; None until initialised.
        nr_free_pages: NR_FREE_PAGES.
        nr_free_cma_pages: NR_FREE_CMA_PAGES, those of `nr_free_pages` that only movable allocations may have.
        pcp_high, pcp_batch: Of the per-cpu page lists.
        stat_threshold: Of the per-cpu counters.
        nr_isolate_pageblock: Isolated pageblocks.
    """

    __slots__ = (
        "cma_pages", "contiguous", "contiguous_end", "free_area", "idx", "initialized", "lowmem_reserve", "managed_pages",
        "name", "nid", "nr_free_cma_pages", "nr_free_pages", "nr_isolate_pageblock", "pcp_batch", "pcp_high",
        "present_early_pages", "present_pages", "spanned_pages", "stat_threshold", "watermark", "zone_start_pfn",
    )

    def __init__(self, name: str, idx: int, nid: int, nr_zones: int) -> None:
        self.name = name
        self.idx = idx
        self.nid = nid
        self.zone_start_pfn = 0
        self.spanned_pages = 0
        self.present_pages = 0
        self.managed_pages = 0
        self.present_early_pages = 0
        self.cma_pages = 0
        self.initialized = False
        self.contiguous = False
        self.contiguous_end = 0
        self.watermark = (0, 0, 0)
        self.lowmem_reserve = (0,) * nr_zones
        self.free_area: FreeArea | None = None
        self.nr_free_pages = 0
        self.nr_free_cma_pages = 0
        self.pcp_high = 0
        self.pcp_batch = 1
        self.stat_threshold = 0
        self.nr_isolate_pageblock = 0

    def copy(self) -> Zone:
        new = Zone.__new__(Zone)
        new.name = self.name
        new.idx = self.idx
        new.nid = self.nid
        new.zone_start_pfn = self.zone_start_pfn
        new.spanned_pages = self.spanned_pages
        new.present_pages = self.present_pages
        new.managed_pages = self.managed_pages
        new.present_early_pages = self.present_early_pages
        new.cma_pages = self.cma_pages
        new.initialized = self.initialized
        new.contiguous = self.contiguous
        new.contiguous_end = self.contiguous_end
        new.watermark = self.watermark
        new.lowmem_reserve = self.lowmem_reserve
        new.free_area = self.free_area
        new.nr_free_pages = self.nr_free_pages
        new.nr_free_cma_pages = self.nr_free_cma_pages
        new.pcp_high = self.pcp_high
        new.pcp_batch = self.pcp_batch
        new.stat_threshold = self.stat_threshold
        new.nr_isolate_pageblock = self.nr_isolate_pageblock
        return new


class PglistData:
    """
    struct pglist_data: a node.

    Attributes:
        node_id: Nid.
        node_zones: All zones, lowest first.
        node_start_pfn, node_spanned_pages, node_present_pages: As in C.
        nr_zones: Highest initialised zone + 1.
        node_zonelist: (nid, zone index) in the order the page allocator tries them.
        totalreserve_pages: See calculate_totalreserve_pages().
    """

    __slots__ = (
        "node_id", "node_present_pages", "node_spanned_pages", "node_start_pfn", "node_zonelist", "node_zones", "nr_zones",
        "totalreserve_pages",
    )

    def __init__(self, node_id: int, zone_names: tuple[str, ...]) -> None:
        self.node_id = node_id
        self.node_zones = [Zone(name, i, node_id, len(zone_names)) for i, name in enumerate(zone_names)]
        self.node_start_pfn = 0
        self.node_spanned_pages = 0
        self.node_present_pages = 0
        self.nr_zones = 0
        self.node_zonelist: tuple[tuple[int, int], ...] = ()
        self.totalreserve_pages = 0

    def copy(self) -> PglistData:
        new = PglistData.__new__(PglistData)
        new.node_id = self.node_id
        new.node_zones = [zone.copy() for zone in self.node_zones]
        new.node_start_pfn = self.node_start_pfn
        new.node_spanned_pages = self.node_spanned_pages
        new.node_present_pages = self.node_present_pages
        new.nr_zones = self.nr_zones
        new.node_zonelist = self.node_zonelist
        new.totalreserve_pages = self.totalreserve_pages
        return new


def zone_end_pfn(zone: Zone) -> int:
    """One past the last pfn the zone spans."""
    return zone.zone_start_pfn + zone.spanned_pages


def zone_is_empty(zone: Zone) -> bool:
    return zone.spanned_pages == 0


def zone_spans_pfn(zone: Zone, pfn: int) -> bool:
    return zone.zone_start_pfn <= pfn < zone.zone_start_pfn + zone.spanned_pages


def zone_intersects(zone: Zone, start_pfn: int, nr_pages: int) -> bool:
    """Whether a zone spans any pfn of a range. Source: include/linux/mmzone.h zone_intersects() [v4.13]"""
    if zone_is_empty(zone):
        return False
    return start_pfn < zone_end_pfn(zone) and start_pfn + nr_pages > zone.zone_start_pfn


def zone_is_initialized(zone: Zone) -> bool:
    return zone.initialized


def populated_zone(zone: Zone) -> bool:
    return zone.present_pages != 0


def managed_zone(zone: Zone) -> bool:
    return zone.managed_pages != 0


def pgdat_end_pfn(pgdat: PglistData) -> int:
    return pgdat.node_start_pfn + pgdat.node_spanned_pages


def zone_idx_of(k: Kernel, name: str) -> int:
    """Return the index of a zone by name: ZONE_NORMAL is `zone_idx_of(k, "Normal")`."""
    return k.config.zones.index(name)


def pfn_to_section_nr(k: Kernel, pfn: int) -> SectionNr:
    return SectionNr(pfn >> k.PFN_SECTION_SHIFT)


def section_nr_to_pfn(k: Kernel, nr: int) -> Pfn:
    return Pfn(nr << k.PFN_SECTION_SHIFT)


def __nr_to_section(k: Kernel, nr: int) -> MemSection | None:
    """Return the section, or None where its root is absent or it was never touched."""
    return k.mem_section.get(nr)


def __pfn_to_section(k: Kernel, pfn: int) -> MemSection | None:
    return k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)


def present_section(section: MemSection | None) -> bool:
    return section is not None and bool(section.section_mem_map & SECTION_MARKED_PRESENT)


def present_section_nr(k: Kernel, nr: int) -> bool:
    section = k.mem_section.get(nr)
    return section is not None and bool(section.section_mem_map & SECTION_MARKED_PRESENT)


def valid_section(section: MemSection | None) -> bool:
    return section is not None and bool(section.section_mem_map & SECTION_HAS_MEM_MAP)


def early_section(section: MemSection | None) -> bool:
    return section is not None and bool(section.section_mem_map & SECTION_IS_EARLY)


def online_section(section: MemSection | None) -> bool:
    return section is not None and bool(section.section_mem_map & SECTION_IS_ONLINE)


def pfn_present(k: Kernel, pfn: int) -> bool:
    """Source: include/linux/mmzone.h pfn_present()"""
    nr = pfn >> k.PFN_SECTION_SHIFT
    return nr < k.NR_MEM_SECTIONS and present_section_nr(k, nr)


# pfn_valid() and its ingredients


class Term(Protocol):
    """A part of a definition: it answers, and names the ingredient that settled the answer."""

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        """Answer, with the name of the ingredient that settled it."""

    def parts(self) -> tuple[Ingredient, ...]:
        """Return the ingredients it may look at."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """
    One thing a pfn_valid() may look at.

    Attributes:
        name: As in the predicates of the docs: "valid", "map", "sub", …
        test: (kernel, pfn) -> bool.
        cuts: (kernel, start, end) -> pfns inside (start, end) at which the answer may change, beside section starts.
        needs: The fact of the tree that must hold for it to exist, or "".
    """

    name: str
    test: Callable[[Kernel, int], bool]
    cuts: Callable[[Kernel, int, int], list[int]] | None = None
    needs: str = ""

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        return self.test(k, pfn), self.name

    def parts(self) -> tuple[Ingredient, ...]:
        return (self,)


@dataclass(frozen=True, slots=True)
class Either:
    """`first` or else `second` must hold."""

    first: Ingredient
    second: Ingredient

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        return (True, self.first.name) if self.first.test(k, pfn) else self.second.decide(k, pfn)

    def parts(self) -> tuple[Ingredient, ...]:
        return (self.first, self.second)


@dataclass(frozen=True, slots=True)
class Choose:
    """If `condition` holds then `yes` decides, else `no` does."""

    condition: Ingredient
    yes: Ingredient
    no: Ingredient

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        return (self.yes if self.condition.test(k, pfn) else self.no).decide(k, pfn)

    def parts(self) -> tuple[Ingredient, ...]:
        return (self.condition, self.yes, self.no)


@dataclass(frozen=True, slots=True)
class Definition:
    """
    A definition of pfn_valid(): all terms must hold, asked from left to right.

    Attributes:
        name: "G0", "A2", …
        where: Which kernels had it.
        terms: What is asked.
    """

    name: str
    where: str
    terms: tuple[Term, ...]

    def test(self, k: Kernel, pfn: int) -> bool:
        """Answer."""
        for term in self.terms:
            if isinstance(term, Ingredient):
                if not term.test(k, pfn):
                    return False
            elif not term.decide(k, pfn)[0]:
                return False
        return True

    def decide(self, k: Kernel, pfn: int) -> tuple[bool, str]:
        """Answer, with the name of the ingredient that settled it."""
        name = ""
        for term in self.terms:
            answer, name = term.decide(k, pfn)
            if not answer:
                return False, name
        return True, name

    def ingredients(self) -> tuple[Ingredient, ...]:
        return tuple(part for term in self.terms for part in term.parts())

    def missing(self, tree: object) -> list[str]:
        """Return the facts it needs that `tree` does not have."""
        return sorted({part.needs for part in self.ingredients() if part.needs and not getattr(tree, part.needs)})

    def cuts(self, k: Kernel, start: int, end: int) -> list[int]:
        """Return the pfns of [start, end) at which the answer may change; the first is `start`."""
        step = k.PAGES_PER_SECTION
        points = [start, *range(start - start % step + step, end, step)]
        inner = [pfn for term in self.terms for part in term.parts() if part.cuts is not None for pfn in part.cuts(k, start, end)]
        return sorted({*points, *inner}) if inner else points


def _inrange(k: Kernel, pfn: int) -> bool:
    return pfn >> k.PFN_SECTION_SHIFT < k.NR_MEM_SECTIONS


def _upper(k: Kernel, pfn: int) -> bool:
    return pfn >> (64 - k.PAGE_SHIFT) == 0


def _sub(k: Kernel, pfn: int) -> bool:
    section = __pfn_to_section(k, pfn)
    if section is None:
        return False
    return bool(section.subsection_map >> ((pfn & (k.PAGES_PER_SECTION - 1)) >> (SUBSECTION_SHIFT - k.PAGE_SHIFT)) & 1)


def _sub_cuts(k: Kernel, start: int, end: int) -> list[int]:
    step = 1 << (SUBSECTION_SHIFT - k.PAGE_SHIFT)
    points = []
    for nr in range(start >> k.PFN_SECTION_SHIFT, ((end - 1) >> k.PFN_SECTION_SHIFT) + 1):
        section = k.mem_section.get(nr)
        if section is not None and section.subsection_map not in (0, (1 << (k.PAGES_PER_SECTION // step)) - 1):
            base = nr << k.PFN_SECTION_SHIFT
            points += [pfn for pfn in range(base, base + k.PAGES_PER_SECTION, step) if start < pfn < end]
    return points


def _taint(k: Kernel, pfn: int) -> bool:
    section = __pfn_to_section(k, pfn)
    return section is not None and bool(section.section_mem_map & SECTION_TAINT_ZONE_DEVICE)


INRANGE = Ingredient("inrange", _inrange)
UPPER = Ingredient("upper", _upper)
PRESENT = Ingredient("present", lambda k, pfn: present_section(__pfn_to_section(k, pfn)))
VALID = Ingredient("valid", lambda k, pfn: valid_section(__pfn_to_section(k, pfn)))
EARLY = Ingredient("early", lambda k, pfn: early_section(__pfn_to_section(k, pfn)), needs="has_early_sections")
ONLINE = Ingredient("online", lambda k, pfn: online_section(__pfn_to_section(k, pfn)), needs="has_online_sections")
SUB = Ingredient("sub", _sub, _sub_cuts, needs="has_subsections")
TAINT = Ingredient("taint", _taint, needs="has_taint_sections")

G0 = Definition("G0", "generic, v4.9 to v5.2", (INRANGE, VALID))
G1 = Definition("G1", "generic, v5.3 to v5.13", (INRANGE, VALID, Either(EARLY, SUB)))
G2 = Definition("G2", "generic, v5.14 onwards", (UPPER, INRANGE, VALID, Either(EARLY, SUB)))
G3 = Definition("G3", "generic, v6.8 onwards, under RCU-sched", (UPPER, INRANGE, VALID, Either(EARLY, SUB)))

DEFINITIONS = {d.name: d for d in (G0, G1, G2, G3)}


def pfn_valid(k: Kernel, pfn: int) -> bool:
    """
    Say whether a pfn has a struct page, by the definition this kernel was booted with.

    Source: include/linux/mmzone.h pfn_valid(); arch/arm64/mm/init.c pfn_valid() under HAVE_ARCH_PFN_VALID
    """
    return k.pfn_valid.test(k, pfn)


def pfn_valid_runs(k: Kernel, start: int, end: int) -> list[tuple[int, int, bool]]:
    """
    Return pfn_valid() over [start, end) as runs (start, end, answer), neighbours differing.

    A loop that asks pfn_valid() of each pfn asks this once. Source: none
    """
    test = k.pfn_valid.test
    points = k.pfn_valid.cuts(k, start, end)
    if len(points) == 1:
        return [(start, end, test(k, start))]
    runs: list[tuple[int, int, bool]] = []
    for i, pfn in enumerate(points):
        stop = points[i + 1] if i + 1 < len(points) else end
        answer = test(k, pfn)
        if runs and runs[-1][2] == answer:
            runs[-1] = (runs[-1][0], stop, answer)
        else:
            runs.append((pfn, stop, answer))
    return runs


def pfn_valid_within(k: Kernel, pfn: int) -> bool:
    """
    pfn_valid() inside a MAX_ORDER block: asked only where zones may have holes.

    Source: include/linux/mmzone.h pfn_valid_within() [until v5.14]
    """
    return pfn_valid(k, pfn) if k.config.HOLES_IN_ZONE else True


def early_pfn_valid(k: Kernel, start: int, end: int) -> list[tuple[int, int, bool]]:
    """
    The early test of memmap_init_zone(): pfn_valid() under SPARSEMEM, for each pfn of [start, end).

    Source: include/linux/mmzone.h early_pfn_valid()
    """
    return pfn_valid_runs(k, start, end)
