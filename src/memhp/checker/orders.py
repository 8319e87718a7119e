# SPDX-License-Identifier: GPL-2.0-only
"""
The order of steps of a hot-add as a search space.

On arm64 in v4.9, with pfn_valid() asking memblock, adding memory takes eight steps. `search()` tries every order of every subset
of them, onlines the block after each, and says what happened: which orders work, which pairs of steps must keep their order in
all of them, and what each other order breaks. Nothing is decided by rule; every answer is a run. Orders that leave the machine
in the same state share one run of onlining.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from errno import EEXIST

from memhp.errors import KernelBugError, KernelError
from memhp.hardware import platform
from memhp.linux import boot, tree
from memhp.linux.arch.arm64.mm import mmu
from memhp.linux.drivers.base import memory
from memhp.linux.include import mmzone
from memhp.linux.include.io import linear_mapped
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM, Resource
from memhp.linux.include.mm_types import COLUMNS
from memhp.linux.include.mmzone import Definition
from memhp.linux.include.page_flags import SetPageReserved
from memhp.linux.kernel import resource
from memhp.linux.mm import memblock, memory_hotplug, sparse
from memhp.linux.state import Kernel
from memhp.units import GIB

START = 2 * GIB
SIZE = GIB
NID = 0


def _memblock_add(k: Kernel) -> None:
    memblock.memblock_add_node(k, START, SIZE, NID)


def _mark_nomap(k: Kernel) -> None:
    memblock.memblock_mark_nomap(k, START, SIZE)


def _map(k: Kernel) -> None:
    mmu.hotplug_paging(k, START, SIZE)


def _add_sections(k: Kernel) -> None:
    """The first half of __add_section(): the duplicate test, whose EEXIST __add_pages() swallows, then the section."""
    pfn = START >> k.PAGE_SHIFT
    if mmzone.pfn_valid(k, pfn):
        return
    try:
        sparse.sparse_add_one_section(k, NID, pfn)
    except KernelError as err:
        if err.errno != EEXIST:
            raise


def _init_memmap(k: Kernel) -> None:
    """__add_zone(), with its reserve loop that skips what pfn_valid() denies."""
    memory_hotplug.__add_zone(k, k.zone(NID, k.ZONE_NORMAL), START >> k.PAGE_SHIFT)


def _clear_nomap(k: Kernel) -> None:
    memblock.memblock_clear_nomap(k, START, SIZE)


def _reserve(k: Kernel) -> None:
    SetPageReserved(k, START >> k.PAGE_SHIFT, SIZE >> k.PAGE_SHIFT)


def _register_block(k: Kernel) -> None:
    memory.register_new_memory(k, NID, mmzone.pfn_to_section_nr(k, START >> k.PAGE_SHIFT))


STEPS: dict[str, Callable[[Kernel], None]] = {
    "memblock add": _memblock_add,
    "map": _map,
    "mark NOMAP": _mark_nomap,
    "add sections": _add_sections,
    "init memmap": _init_memmap,
    "register block": _register_block,
    "clear NOMAP": _clear_nomap,
    "reserve": _reserve,
}
"""The steps, in the mail's order."""

MAIL: tuple[str, ...] = tuple(STEPS)
"""The order of the series: `full`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of an order.

    Attributes:
        works: The block is online, all of its pages are with the page allocator, and each can be reached and is valid.
        breaks: What broke, in words; "" if it works.
    """

    works: bool
    breaks: str = ""


@dataclass(slots=True)
class Search:
    """
    The result.

    Attributes:
        tried: How many orders were run.
        working: Orders that work.
        broken: What broke -> orders that break so, the shortest first.
        states: How many different states onlining was run in.
    """

    tried: int = 0
    states: int = 0
    working: list[tuple[str, ...]] = field(default_factory=list)
    broken: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)

    def needed(self) -> list[str]:
        """Return the steps that every working order has."""
        return [step for step in STEPS if self.working and all(step in order for order in self.working)]

    def smallest(self) -> list[tuple[str, ...]]:
        """Return the working orders with the fewest steps."""
        fewest = min((len(order) for order in self.working), default=0)
        return [order for order in self.working if len(order) == fewest]

    def precedences(self) -> list[tuple[str, str]]:
        """Return the pairs (a, b) of which a comes before b in every working order that has both, and one has."""
        pairs = []
        for a in STEPS:
            for b in STEPS:
                both = [order for order in self.working if a in order and b in order]
                if a != b and both and all(order.index(a) < order.index(b) for order in both):
                    pairs.append((a, b))
        return pairs


def _machine(definition: str | Definition) -> Kernel:
    """A small arm64 machine, with the resource that add_memory() would have registered first."""
    k = boot.boot(tree.V4_9_RFC, "arm64", platform("arm64", mem=GIB // 2), pfn_valid=definition)
    res = Resource(START, START + SIZE - 1, "System RAM", IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY)
    resource.request_resource(k, k.iomem_rw(), res)
    boot.new_task(k)
    return k


def _state(k: Kernel) -> object:
    """Everything the steps can change, so that equal states behave alike from here on."""
    section = k.mem_section.get(mmzone.pfn_to_section_nr(k, START >> k.PAGE_SHIFT))
    zone = k.zone(NID, k.ZONE_NORMAL)
    columns = None
    if section is not None and section.memmap is not None:
        columns = tuple(section.memmap.values(which, 0, 1) + section.memmap.values(which, 1, 2) for which in range(COLUMNS))
    return (
        tuple((r.base, r.size, r.flags) for r in k.memblock.memory.regions), k.linear and k.linear.ranges(),
        None if section is None else (section.section_mem_map, str(section.pageblock_flags)), columns,
        zone.initialized, zone.zone_start_pfn, zone.spanned_pages, tuple(k.memory_blocks),
    )


def _online(k: Kernel) -> Outcome:
    """Online the block and look whether its memory is really there."""
    block = START // SIZE
    if block not in k.memory_blocks:
        if not mmzone.present_section_nr(k, mmzone.pfn_to_section_nr(k, START >> k.PAGE_SHIFT)):
            return Outcome(False, "nothing was added: no section, no block")
        return Outcome(False, "the section is there, but no block: nobody can online it")
    pfn, nr_pages = START >> k.PAGE_SHIFT, SIZE >> k.PAGE_SHIFT
    before = k.totalram_pages
    try:
        memory.store_mem_state(k, k.block_rw(block), "online")
    except KernelError as err:
        reason = "its first page is not reserved" if "PG_reserved" in err.reason else "pfn_valid() is false" \
            if "pfn_valid" in err.reason else err.reason
        return Outcome(False, f"online: {err.name}, {reason}")
    except KernelBugError:
        return Outcome(False, "online: oops, a struct page without memmap")
    if k.totalram_pages - before != nr_pages:
        return Outcome(False, "online says 0, but no page went to the page allocator")
    if not linear_mapped(k, START, SIZE):
        return Outcome(False, "online, but its pages have no linear address: the first use faults")
    if not all(valid for _, _, valid in mmzone.pfn_valid_runs(k, pfn, pfn + nr_pages)):
        return Outcome(False, "online, but pfn_valid() denies its pages: every later reader skips them")
    if k.zone(NID, k.ZONE_NORMAL).spanned_pages < nr_pages:
        return Outcome(False, "online, but its zone does not span it")
    return Outcome(True)


def _orders(k: Kernel, done: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Kernel | None, str]]:
    """Every order that begins with `done`, depth first: (order, machine after it or None if it died, what killed it)."""
    for name, step in STEPS.items():
        if name in done:
            continue
        fork = k.fork()
        order = (*done, name)
        try:
            step(fork)
        except KernelBugError:
            yield order, None, f"{name}: oops, a struct page without memmap"
            continue
        except KernelError as err:
            yield order, None, f"{name}: {err.name}"
            continue
        yield order, fork, ""
        yield from _orders(fork, order)


def search(definition: str | Definition = "A0") -> Search:
    """
    Try every order of every subset of the steps.

    Args:
        definition: The pfn_valid() in force; "A0" is that of v4.9 arm64.
    """
    found = Search()
    known: dict[object, Outcome] = {}
    for order, k, killed in _orders(_machine(definition), ()):
        found.tried += 1
        if k is None:
            outcome = Outcome(False, killed)
        else:
            state = _state(k)
            outcome = known[state] if state in known else known.setdefault(state, _online(k.fork()))
        if outcome.works:
            found.working.append(order)
        else:
            found.broken.setdefault(outcome.breaks, []).append(order)
    found.states = len(known)
    found.working.sort(key=len)
    for orders in found.broken.values():
        orders.sort(key=len)
    return found


def run(order: tuple[str, ...], definition: str | Definition = "A0") -> Outcome:
    """
    Run one order: the replay of a line of the table.

    Args:
        order: Names of `STEPS`.
        definition: The pfn_valid() in force.
    """
    k = _machine(definition)
    for name in order:
        try:
            STEPS[name](k)
        except KernelBugError:
            return Outcome(False, f"{name}: oops, a struct page without memmap")
        except KernelError as err:
            return Outcome(False, f"{name}: {err.name}")
    return _online(k)


