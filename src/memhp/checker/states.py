# SPDX-License-Identifier: GPL-2.0-only
"""
Kinds of pages, each as a machine that runs: built by booting the model and taking the kernel's own steps.

The definition of pfn_valid() under test is in force from the first instruction of boot on, so it decides what is initialised,
reserved and added, too. A definition may be so wrong that boot dies; then building raises `KernelBugError`.

=============  ====================================================================================================
state          the page
=============  ====================================================================================================
RAM            boot memory, in use by a process
NOMAP          boot memory that firmware owns, in the middle of a pageblock of RAM (arm64)
NOMAP-first    the same, at the beginning of a section
hole           no memory, in a section that has some; in the middle of a pageblock
absent         no memory, and no section; inside a zone's span
D0             hot-add: a DIMM is there, nobody has told the kernel
D1             resource and memblock know it; no section
D1n            it is mapped, and marked NOMAP (arm64, the 2016 series)
D2n            __add_pages() has run, the mark is still there (arm64, the 2016 series)
D2             adding is over; the block is offline
D3             the block was switched online
D4             removal: memblock has forgotten it, the section is still there
bogus          upper bits are set that no address has; the others are those of RAM
ZONE_DEVICE    device memory with struct pages of its own, and no entry in memblock
=============  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from errno import EEXIST

from memhp.checker.truth import PERSISTENT_MEMORY
from memhp.errors import KernelError
from memhp.hardware import Hardware, MemoryRange, platform
from memhp.linux import boot, kconfig, tree
from memhp.linux.arch.arm64.mm import mmu
from memhp.linux.drivers.base import memory
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_MEM, Resource
from memhp.linux.include.mmzone import Definition
from memhp.linux.include.page_flags import KIND_ANON, PG_LRU, set_page_kind
from memhp.linux.kconfig import Kconfig
from memhp.linux.kernel import memremap, resource
from memhp.linux.mm import memblock, memory_hotplug, page_alloc
from memhp.linux.state import Kernel
from memhp.units import GIB, MIB

TREES = {"arm64": tree.V4_9_RFC, "x86_64": tree.V4_9}
"""The kernel that is checked, by architecture."""
ARCHES = tuple(TREES)

GAP = (513 * MIB, 519 * MIB)
"""Where, above 4 GiB, memory is missing or firmware's: off the edges of pageblocks, so that some pageblocks have both."""
SECTIONS = 2
"""Sections that a hot-add adds: one that works may be luck."""


@dataclass(frozen=True, slots=True)
class Setting:
    """
    What a state is built with.

    Attributes:
        arch: "arm64" or "x86_64".
        definition: pfn_valid() in force.
        remedy: On arm64, which remedy of the 2016 series; "": the series itself.
        config: Symbols that differ from the checker's configuration, which is the recorded kernel's with DEBUG_VM.
        at_boot: If given, what boot asks instead of `definition`; for trying several predicates in one kernel.
    """

    arch: str
    definition: Definition
    remedy: str = ""
    config: tuple[tuple[str, bool], ...] = ()
    at_boot: Definition | None = None

    def kconfig(self, **more: bool) -> Kconfig:
        """Return the configuration."""
        return replace(kconfig.default(self.arch), **{"DEBUG_VM": True, **dict(self.config), **more})

    def boot(self, hardware: Hardware, **more: bool) -> Kernel:
        """Boot a machine."""
        k = boot.boot(
            TREES[self.arch], self.arch, hardware, config=self.kconfig(**more), remedy=self.remedy,
            pfn_valid=self.at_boot or self.definition)
        k.pfn_valid = boot.definition(TREES[self.arch], self.arch, k.config, self.definition)
        return k


Built = tuple[Kernel, int]
"""A machine, and the pfn that matters on it."""


@dataclass(frozen=True, slots=True)
class State:
    """
    A kind of page.

    Attributes:
        name: As in the table above.
        text: What it is, for a story.
        build: Makes the machine; KernelBugError if it dies on the way.
        arches: Where it exists.
    """

    name: str
    text: str
    build: Callable[[Setting], Built]
    arches: tuple[str, ...] = ARCHES


def _plain(setting: Setting) -> Hardware:
    """RAM and nothing else: 1 GiB, on x86_64 with its hole below 1 MiB."""
    return replace(platform(setting.arch, mem=GIB), managed=0)


def _large(setting: Setting, *spans: tuple[int, int, tuple[str, ...]]) -> Hardware:
    """RAM from the platform's start, and `spans` counted from 4 GiB. On arm64 everything below 4 GiB is RAM, too."""
    small = platform(setting.arch, mem=GIB)
    low = (MemoryRange(GIB, 4 * GIB),) if setting.arch == "arm64" else small.memory
    high = tuple(MemoryRange(4 * GIB + a, 4 * GIB + b, 0, flags) for a, b, flags in spans)
    return replace(small, memory=(*low, *high), window=6 * GIB, managed=0)


def _with_gap(setting: Setting, flags: tuple[str, ...] | None) -> Hardware:
    """1 GiB of RAM above 4 GiB with the gap in it: missing (None), or memory with `flags`."""
    spans: list[tuple[int, int, tuple[str, ...]]] = [(0, GAP[0], ()), (GAP[1], GIB, ())]
    if flags is not None:
        spans.insert(1, (*GAP, flags))
    return _large(setting, *spans)


def _gap_pfn(k: Kernel) -> int:
    return 4 * GIB + GAP[0] + MIB >> k.PAGE_SHIFT


def used_page(k: Kernel) -> int:
    """Give a process a page of boot memory; returns its pfn. Where the allocator has none left: a page of boot memory."""
    pfn = page_alloc.__alloc_pages_nodemask(k, replace(GFP_HIGHUSER_MOVABLE, nowarn=True), 0, min(k.nodes))
    if pfn < 0:
        return k.hardware.memory[-1].end - MIB >> k.PAGE_SHIFT
    set_page_kind(k, pfn, 1, KIND_ANON, PG_LRU)
    return pfn


def _ram(setting: Setting) -> Built:
    k = setting.boot(_plain(setting))
    return k, used_page(k)


def _nomap(setting: Setting) -> Built:
    k = setting.boot(_with_gap(setting, ("NOMAP",)))
    return k, _gap_pfn(k)


def _nomap_first(setting: Setting) -> Built:
    k = setting.boot(_large(setting, (0, 6 * MIB, ("NOMAP",)), (6 * MIB, GIB, ())))
    return k, 4 * GIB >> k.PAGE_SHIFT


def _hole(setting: Setting) -> Built:
    k = setting.boot(_with_gap(setting, None))
    return k, _gap_pfn(k)


def _absent(setting: Setting) -> Built:
    small = platform(setting.arch, mem=GIB)
    k = setting.boot(replace(small, memory=(*small.memory, MemoryRange(4 * GIB, 5 * GIB)), window=6 * GIB, managed=0))
    return k, 5 * GIB // 2 >> k.PAGE_SHIFT


def span(k: Kernel) -> tuple[int, int]:
    """Return the address and the size of what a hot-add adds."""
    return k.hardware.window, SECTIONS << k.SECTION_SIZE_BITS


def _d0(setting: Setting) -> Built:
    k = setting.boot(_plain(setting))
    return k, k.hardware.window >> k.PAGE_SHIFT


def _inside(k: Kernel) -> int:
    """A page of the first added section, not its first."""
    return (k.hardware.window >> k.PAGE_SHIFT) + 5


def _d1(setting: Setting) -> Built:
    """add_memory() up to the architecture's part."""
    k, _ = _d0(setting)
    start, size = span(k)
    memory_hotplug.register_memory_resource(k, start, size)
    memblock.memblock_add_node(k, start, size, 0)
    return k, _inside(k)


def _d1n(setting: Setting) -> Built:
    k, pfn = _d1(setting)
    start, size = span(k)
    mmu.hotplug_paging(k, start, size)
    memblock.memblock_mark_nomap(k, start, size)
    return k, pfn


def _d2n(setting: Setting) -> Built:
    k, pfn = _d1n(setting)
    start, size = span(k)
    memory_hotplug.__add_pages(k, 0, k.zone(0, k.ZONE_NORMAL), start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT)
    return k, pfn


def _d2(setting: Setting) -> Built:
    k, _ = _d0(setting)
    start, size = span(k)
    try:
        memory_hotplug.add_memory(k, 0, start, size)
    except KernelError:
        pass
    return k, _inside(k)


def _d3(setting: Setting) -> Built:
    """Every block that appeared is switched online; one that refuses stays offline."""
    k, pfn = _d2(setting)
    first = (k.hardware.window >> k.SECTION_SIZE_BITS) // k.sections_per_block
    for block_id in sorted(k.memory_blocks):
        if block_id >= first:
            boot.new_task(k)
            try:
                memory.store_mem_state(k, k.block_rw(block_id), "online")
            except KernelError:
                pass
    return k, pfn


def _d4(setting: Setting) -> Built:
    """remove_memory() up to the architecture's part."""
    k, pfn = _d2(setting)
    start, size = span(k)
    memblock.memblock_free(k, start, size)
    memblock.memblock_remove(k, start, size)
    return k, pfn


def _bogus(setting: Setting) -> Built:
    k, pfn = _ram(setting)
    return k, 1 << (64 - k.PAGE_SHIFT) | pfn


def _zone_device(setting: Setting) -> Built:
    """
    What devm_memremap_pages() does. v4.9's Kconfig offers ZONE_DEVICE on x86_64 only; on arm64 these are the steps its
    arch_add_memory() would take: map the range, add its pages to ZONE_DEVICE.
    """
    k = setting.boot(_plain(setting), ZONE_DEVICE=True)
    start, size = span(k)
    device = Resource(start, start + size - 1, PERSISTENT_MEMORY, IORESOURCE_MEM | IORESOURCE_BUSY)
    resource.request_resource(k, k.iomem_rw(), device)
    if setting.arch == "x86_64":
        memremap.devm_memremap_pages(k, 0, start, size)
    else:
        mmu.hotplug_paging(k, start, size)
        zone = k.zone(0, memory_hotplug.zone_for_memory(k, 0, start, size, k.ZONE_NORMAL, True))
        try:
            memory_hotplug.__add_pages(k, 0, zone, start >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT)
        except KernelError as err:
            if err.errno != EEXIST:
                raise
    return k, _inside(k)


STATES: dict[str, State] = {
    state.name: state
    for state in (
        State("RAM", "boot memory, in use", _ram),
        State("NOMAP", "boot memory that firmware owns, inside a section of RAM", _nomap, ("arm64",)),
        State("NOMAP-first", "a section that begins with memory that firmware owns", _nomap_first, ("arm64",)),
        State("hole", "a hole inside a section that has memory", _hole),
        State("absent", "a section that does not exist, inside a zone's span", _absent),
        State("D0", "a DIMM is there; the kernel does not know", _d0),
        State("D1", "hot-add: memblock knows the range, no section does", _d1),
        State("D1n", "hot-add: the range is mapped and marked NOMAP", _d1n, ("arm64",)),
        State("D2n", "hot-add: sections are added, the NOMAP mark is still there", _d2n, ("arm64",)),
        State("D2", "hot-added, offline", _d2),
        State("D3", "hot-added, switched online", _d3),
        State("D4", "removal: memblock has forgotten the range, the sections are there", _d4),
        State("bogus", "a pfn with upper bits that no address has", _bogus),
        State("ZONE_DEVICE", "device memory with struct pages", _zone_device),
    )
}
