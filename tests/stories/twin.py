# SPDX-License-Identifier: GPL-2.0-only
"""
The model booted as a recorded kernel's twin, and what the recording says about it.

A twin has the recorded machine's memory map, config and command line. Its steps are the recorded writes; after each, what the
recording shows is held against the model. Only what a kernel's own allocations decide (which pages slab, stacks and processes
hold) is left out; everything else must be equal.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, replace
from typing import Any

from memhp.abi import iomem, kpageflags, memmap, recorded, zoneinfo
from memhp.abi.files import MEMBLOCK, MEMORY
from memhp.abi.recorded import Recording, Step
from memhp.errors import KernelBugError, KernelError, KernelHangError
from memhp.linux import boot, tree
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory_model import page_columns
from memhp.linux.include.mm_types import FLAGS, REFCOUNT
from memhp.linux.include.page_flags import PG_RESERVED, PageReserved, reserved_pages
from memhp.linux.mm import memblock as mm_memblock
from memhp.linux.mm import page_alloc
from memhp.linux.state import Kernel
from tests.model_files import ModelFiles

HOTPLUG = re.compile(
    r"Built \d+ zonelists in \w+ order, mobility grouping o(n|ff)\.  Total pages: \d+"
    r"|Policy zone: \w+"
    r"|section number \d+ page number \d+ not reserved, was it already online\?"
    r"|Offlined Pages \d+"
    r"|Section-unaligned hotplug range: .*"
    r"|Unable to handle kernel paging request at virtual address [0-9a-f]{16}"
    r"|end_pfn too big"
    r"|WARNING: .*"
    r"|kernel BUG at .*"
)
"""What memory hotplug prints; other lines of a recorded log are a clock's, a random generator's, or a dump of registers."""

BLOCK_FILES = ("online", "phys_device", "phys_index", "removable", "state", "valid_zones")


def boot_capture(recording: Recording) -> Any:
    """The state after boot; recordings of the same kernel that have none of their own share the first one's."""
    if "00-boot" in recording.captures:
        return recording.capture("00-boot")
    return recorded.recording(f"{recording.name.partition('/')[0]}/1-probe").capture("00-boot")


@dataclass(frozen=True)
class Answer:
    """What became of a write: as in a recorded step."""

    result: str
    returned: int | None
    log: list[str]
    error: KernelError | KernelBugError | None = None


class Twin(ModelFiles):
    """
    A model kernel on the machine of a recording.

    Attributes:
        recording: The recording.
        k: The kernel. (`read`, `write` and `listdir` make a twin a machine's files.)
    """

    def __init__(self, name: str, *, remedy: str = "") -> None:
        self.recording = recorded.recording(name)
        arch = self.recording.arch
        machine = memmap.hardware_from_capture(boot_capture(self.recording), arch)
        if arch == "arm64":
            remedy = remedy or name.rpartition("/")[2]
        super().__init__(boot.boot(
            tree.V4_9_RFC if arch == "arm64" else tree.V4_9, arch, machine, cmdline=self.recording.cmdline, remedy=remedy))

    def text(self, path: str) -> str:
        return self.read(path).decode()

    # Steps

    def attempt(self, path: str, text: str) -> Answer:
        """Let a new task write, and say what became of it as the recordings do."""
        k = self.k
        before = len(k.log.lines)
        boot.new_task(k)
        result = ""
        error: KernelError | KernelBugError | None = None
        try:
            self.write(path, text)
        except KernelHangError as err:
            result, error = "hung", err
        except KernelBugError as err:
            result, error = "oops", err
        except KernelError as err:
            result, error = errno.errorcode[err.errno or 0], err
        if result in ("hung", "oops"):
            boot.task_died(k)
        boot.user_space(k)
        return Answer(result, len(text) if not result else None, k.log.lines[before:], error)

    def do(self, step: Step) -> Answer:
        """Do what a recorded step did."""
        return self.attempt(step.path, step.text)

    # State

    def blocks(self) -> list[dict[str, Any]]:
        """As in a step's `blocks`."""
        found = []
        for block in sorted(self.k.memory_blocks):
            folder = f"{MEMORY}/memory{block}"
            state, zones, removable = (self.text(f"{folder}/{name}").strip() for name in ("state", "valid_zones", "removable"))
            found.append({"block": block, "state": state, "valid_zones": zones, "removable": int(removable)})
        return found

    def zones(self) -> list[dict[str, Any]]:
        """As in a step's `zones`."""
        return [
            {"node": z.node, "zone": z.zone, "start_pfn": z.start_pfn, "spanned": z.spanned, "present": z.present,
             "managed": z.managed}
            for z in zoneinfo.read_zoneinfo(self)
        ]

    def mem_total_kb(self) -> int:
        match = re.search(r"^MemTotal: +(\d+) kB$", self.text("/proc/meminfo"), re.MULTILINE)
        assert match is not None
        return int(match[1])

    def system_ram(self) -> list[str]:
        """As in a step's `system_ram`."""
        tree = iomem.parse_iomem(self.text("/proc/iomem"))
        return [f"{r.start:08x}-{r.end:08x}" for r in tree.regions if r.name == iomem.SYSTEM_RAM]

    def memblock(self) -> list[str]:
        """As in a step's `memblock`: the lines, with the blanks before the number left out."""
        return [line.strip() for line in self.text(f"{MEMBLOCK}/memory").splitlines()]

    def section(self, recorded_row: dict[str, Any]) -> dict[str, Any]:
        """What the recording's instrument says of a section, asked of the model."""
        k = self.k
        nr, pfn, size = recorded_row["section"], recorded_row["pfn"], k.PAGES_PER_SECTION
        found = moment(k, pfn)
        row: dict[str, Any] = {
            "section": nr, "pfn": mmzone.section_nr_to_pfn(k, nr),
            "present": found["section_present"], "has_mem_map": found["section_has_mem_map"],
            "memblock_is_memory": found["memblock_is_memory"], "memblock_is_map_memory": found["memblock_is_map_memory"],
            "pfn_valid_first": found["pfn_valid(first)"],
            "pfn_valid_pages": sum(b - a for a, b, valid in mmzone.pfn_valid_runs(k, pfn, pfn + size) if valid),
        }
        section = k.mem_section.get(nr)
        if section is None or section.memmap is None:
            return row
        memmap, zone = section.memmap, mm.page_zone(k, pfn)
        free = [(max(a, pfn), min(b, pfn + size)) for z in k.nodes[0].node_zones for a, b in page_alloc.free_ranges(k, z)
                if a < pfn + size and b > pfn]
        row |= {
            "pages_reserved": reserved_pages(k, pfn, size),
            "pages_buddy_pages": sum(b - a for a, b in free),
            "pages_buddy_heads": sum(-(-(b - a) // (1 << (k.MAX_ORDER - 1))) for a, b in free),
            "pages_refcount0": memmap.count(REFCOUNT, 0, size, 0xFF, 0),
            "pages_refcount1": memmap.count(REFCOUNT, 0, size, 0xFF, 1),
            "first_page_flags": first_page_flags(k, pfn),
            "first_page_reserved": int(PageReserved(k, pfn)),
            "first_page_zone": zone.name,
            "first_page_pageblock_migratetype": page_alloc.get_pageblock_migratetype(k, pfn),
        }
        return row

    def kpageflags(self, recorded_row: dict[str, Any]) -> dict[str, Any]:
        """
        As an entry of a step's `kpageflags`, read as the recorder did.

        It seeks to the range and reads; if the file ends at once, it goes one pfn further.
        """
        first, last = recorded_row["first_pfn"], recorded_row["last_pfn"]
        row: dict[str, Any] = {"first_pfn": first, "last_pfn": last}
        try:
            got = kpageflags.read_counts(self, first, last + 1 - first)
            if not got.entries:
                row["ends_at_pfn"] = first
                got = kpageflags.read_counts(self, first + 1, last - first)
        except KernelBugError:
            return {"first_pfn": first, "last_pfn": last, "counts": {}, "result": "oops"}
        return row | {"entries": got.entries, "none": got.none, "counts": got.counts}


def first_page_flags(k: Kernel, pfn: int) -> int:
    """
    page->flags of a page that is reserved or free, as arm64's 64-bit word.

    Zone in the two highest bits; PG_reserved is bit 10. There is no node number without NUMA.
    """
    flags = page_columns(k, pfn).get(FLAGS, pfn & (k.PAGES_PER_SECTION - 1))
    return mm.page_zone(k, pfn).idx << 62 | (1 << 10 if flags & PG_RESERVED else 0)


def moment(k: Kernel, pfn: int) -> dict[str, int]:
    """What the instrument looks at at one moment, for a section that begins with `pfn`."""
    section = k.mem_section.get(mmzone.pfn_to_section_nr(k, pfn))
    flags = 0 if section is None else section.section_mem_map
    address = pfn << k.PAGE_SHIFT
    return {
        "pfn_valid(first)": int(mmzone.pfn_valid(k, pfn)),
        "pfn_valid(second)": int(mmzone.pfn_valid(k, pfn + 1)),
        "pfn_valid(last)": int(mmzone.pfn_valid(k, pfn + k.PAGES_PER_SECTION - 1)),
        "memblock_is_memory": int(mm_memblock.memblock_is_memory(k, address)),
        "memblock_is_map_memory": int(mm_memblock.memblock_is_map_memory(k, address)),
        "section_present": int(bool(flags & mmzone.SECTION_MARKED_PRESENT)),
        "section_has_mem_map": int(bool(flags & mmzone.SECTION_HAS_MEM_MAP)),
    }


A_FEW_PAGES = 64
"""What is free is held to within so many pages: processes come and go between two reads."""

ALLOCATED = ("pages_buddy_pages", "pages_buddy_heads", "pages_refcount0", "pages_refcount1")
"""Of a section that is in use: what the pages hold is the kernel's own doing."""


def differences(twin: Twin, step: Step) -> list[str]:
    """Where the state after a recorded step and the model's differ; empty if nowhere."""
    found: list[str] = []

    def hold(what: str, real: object, model: object) -> None:
        if real != model:
            found.append(f"{step.file}: {what}: real {real!r}, model {model!r}")

    if step.blocks:
        printed = {row["block"] for row in step.blocks}
        everything = 1 in printed  # Some steps print hot-added blocks only.
        hold("blocks", step.blocks, [row for row in twin.blocks() if everything or row["block"] in printed])
    if step.zones:
        hold("zones", step.zones, twin.zones())
    if step.mem_total_kb is not None:
        hold("MemTotal", step.mem_total_kb, twin.mem_total_kb())
    if step.system_ram:
        hold("System RAM", step.system_ram, twin.system_ram())
    if step.memblock:
        hold("memblock", step.memblock, twin.memblock())
    if step.max_pfn is not None:
        hold("max_pfn", step.max_pfn, twin.k.max_pfn)
    for row in step.sections:
        model = twin.section(row)
        hold(f"section {row['section']}: fields", set(row), set(model))
        in_use = row.get("pages_reserved", 1) != twin.k.PAGES_PER_SECTION and row.get("pages_buddy_pages", 0)
        for name, value in row.items():
            if in_use and (name in ALLOCATED or (name == "first_page_flags" and row["section"] == 1)):
                continue
            hold(f"section {row['section']}: {name}", value, model.get(name))
    for row in step.kpageflags:
        model = twin.kpageflags(row)
        hold(f"kpageflags {row['first_pfn']}: result", row.get("result"), model.get("result"))
        if "result" in row:
            continue
        for name in ("first_pfn", "last_pfn", "ends_at_pfn", "entries"):
            hold(f"kpageflags {row['first_pfn']}: {name}", row.get(name), model.get(name))
        for name in ("RESERVED", "NOPAGE"):
            hold(f"kpageflags {row['first_pfn']}: {name}", row["counts"].get(name, 0), model["counts"].get(name, 0))
        if abs(row["counts"].get("BUDDY", 0) - model["counts"].get("BUDDY", 0)) > A_FEW_PAGES:
            hold(f"kpageflags {row['first_pfn']}: BUDDY", row["counts"], model["counts"])
        if not row["counts"].get("BUDDY"):
            hold(f"kpageflags {row['first_pfn']}: BUDDY", 0, model["counts"].get("BUDDY", 0))
            hold(f"kpageflags {row['first_pfn']}: none", row["none"], model["none"])
    if step.capture:
        found += file_differences(twin, step)
    return found


def file_differences(twin: Twin, step: Step) -> list[str]:
    """Where a capture's files with determined content and the model's differ."""
    capture = twin.recording.capture(step.capture)
    found: list[str] = []
    for path, entry in capture.manifest.files.items():
        if entry.write_only or path in ("/proc/meminfo", "/proc/buddyinfo", "/proc/pagetypeinfo", "/proc/zoneinfo"):
            continue
        real, model = capture.read(path).decode(), twin.text(path)
        if real != model:
            found.append(f"{step.capture}: {path}: real {real!r}, model {model!r}")
    real_zones = zoneinfo.parse_zoneinfo(capture.read("/proc/zoneinfo").decode())
    model_zones = zoneinfo.read_zoneinfo(twin)
    for real_zone, model_zone in zip(map(settled, real_zones), map(settled, model_zones), strict=False):
        if real_zone != model_zone:
            found.append(f"{step.capture}: zoneinfo: real {real_zone}, model {model_zone}")
    if len(real_zones) != len(model_zones):
        found.append(f"{step.capture}: zoneinfo has {len(real_zones)} zones, the model's {len(model_zones)}")
    return found


def settled(zone: zoneinfo.ZoneSnapshot) -> zoneinfo.ZoneSnapshot:
    """A zone without what allocations decide: free pages, counters, and how many pages a CPU keeps at hand."""
    pagesets = [replace(p, values={name: n for name, n in p.values.items() if name != "count"}) for p in zone.pagesets]
    return replace(zone, free=0, counters=dict.fromkeys(zone.counters, 0), pagesets=pagesets,
                   node_counters=dict.fromkeys(zone.node_counters, 0))


def hotplug_lines(lines: list[str]) -> list[str]:
    """The lines of a log that memory hotplug prints."""
    return [line for line in lines if HOTPLUG.fullmatch(line)]
