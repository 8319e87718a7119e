# SPDX-License-Identifier: GPL-2.0-only
"""Random sequences of verbs: invariants hold after each, and what is refused changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import invariants
from tests.model_files import ModelFiles

from memhp import hardware
from memhp.abi import buddyinfo, iomem, meminfo, memory, node, zoneinfo
from memhp.errors import KernelError
from memhp.linux import boot
from memhp.linux.drivers.acpi import acpi_memhotplug
from memhp.linux.fs import sysfs
from memhp.linux.include.acpi_bus import AcpiDevice
from memhp.linux.include.memory import MEM_OFFLINE
from memhp.linux.mm import memory_hotplug
from memhp.linux.series.arm64_rfc_2016 import REMEDIES
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9, V4_9_RFC
from memhp.units import GIB, MIB

MEMORY = "/sys/devices/system/memory"
WRITE_ONLY = {f"{MEMORY}/probe", f"{MEMORY}/uevent", "/sys/devices/system/node/uevent"}

SAFE_REMEDIES = [name for name in REMEDIES if name not in ("nonomap",)]
"""nonomap dies of an oops when it reserves pages that have no memmap."""
LEAVE_UNRESERVED = {"nohack", "firstpage-nohack", "initpage", "noclear"}
"""These add memory whose pages do not have PG_reserved, so that it cannot go online."""

_booted: dict[str, Kernel] = {}


def fresh(name: str) -> Kernel:
    """A fork of a kernel that was booted once; name: an architecture, "numa", or a remedy."""
    if name not in _booted:
        if name == "x86_64":
            k = boot.boot(V4_9, name, hardware.platform(name, mem=256 * MIB))
        elif name == "numa":
            k = boot.boot(V4_9, "x86_64", hardware.platform("x86_64", mem=512 * MIB, nodes=(256 * MIB, 256 * MIB)))
        elif name == "memoryless":
            k = boot.boot(V4_9, "x86_64", hardware.platform("x86_64", mem=256 * MIB, nodes=(256 * MIB, 0)))
        else:
            k = boot.boot(V4_9_RFC, "arm64", hardware.platform("arm64", mem=256 * MIB), remedy=name)
        _booted[name] = k
    return _booted[name].fork()


def check_files(k: Kernel) -> None:
    """The files say what the state is, read by the readers that read real machines."""
    files = ModelFiles(k)
    seen = memory.read_memory(files)
    assert {block.block: block.state for block in seen.blocks} == {
        n: "online" if mem.state == 1 else "offline" for n, mem in k.memory_blocks.items()}
    zones = {(z.node, z.zone): z for z in zoneinfo.read_zoneinfo(files)}
    buddy = buddyinfo.parse_buddyinfo(sysfs.read(k, "/proc/buddyinfo").decode())
    for zone in invariants.zones_of(k):
        if zone.present_pages:
            shown = zones[zone.nid, zone.name]
            assert (zone.managed_pages, zone.present_pages, zone.spanned_pages) == (shown.managed, shown.present, shown.spanned)
            assert zone.nr_free_pages == buddyinfo.free_pages(buddy[zone.nid, zone.name])
    assert k.totalram_pages * k.PAGE_SIZE == meminfo.read_meminfo(files).total
    ram = iomem.read_iomem(files).system_ram()
    assert [(r.start, r.end) for r in ram] == [
        (res.start, res.end) for res in k.iomem_resource.child if res.name == "System RAM"]
    if k.config.NUMA:
        assert set(node.read_nodes(files).masks["online"]) == k.node_states["online"]


words = st.sampled_from(
    ("online", "online_kernel", "online_movable", "online\n", "onlin", "", "Online", " online", "online\n\n", "1"))


def verbs(base: int, step: int, nodes: int, several: bool = True) -> st.SearchStrategy[tuple[str, object, object]]:
    """`several`: ranges of more than one section, too."""
    slots = st.integers(-3, 8)
    sizes = (step, step, 2 * step, 3 * step, step // 2, 0) if several else (step, step, step // 2, 0)
    lengths = (step, 2 * step, step + 4096) if several else (step, step + 4096)
    return st.one_of(
        st.tuples(st.just("probe"), slots.map(lambda n: base + n * step), st.sampled_from((0, 0, 0, 4096, step // 2))),
        st.tuples(st.just("add"), st.tuples(slots.map(lambda n: base + n * step), st.integers(0, nodes - 1)),
                  st.sampled_from(sizes)),
        st.tuples(st.just("dimm"), st.tuples(slots.map(lambda n: base + n * step), st.integers(-1, nodes - 1)),
                  st.sampled_from(lengths)),
        st.tuples(st.just("state"), st.integers(0, 200), words),
        st.tuples(st.just("state"), st.integers(0, 200), st.sampled_from(("online", "online_kernel", "online_movable"))),
        st.tuples(st.just("auto"), st.sampled_from(("online", "offline", "on", "")), st.none()),
    )


def run(k: Kernel, verb: tuple[str, object, object]) -> tuple[bool, tuple[int, int] | None]:
    """Do one verb; returns whether it was refused, and the range that was added."""
    name, a, b = verb
    boot.new_task(k)
    call: Callable[[], object]
    span: tuple[int, int] | None = None
    if name == "probe":
        assert isinstance(a, int) and isinstance(b, int)
        block = k.sections_per_block << k.SECTION_SIZE_BITS
        span = (a + b, a + b + block)
        call = lambda: sysfs.write(k, f"{MEMORY}/probe", hex(a + b) if a + b >= 0 else str(a + b))  # noqa: E731
    elif name in ("add", "dimm"):
        assert isinstance(a, tuple) and isinstance(b, int)
        start, nid = a
        span = (start, start + b)
        if name == "add":
            call = lambda: memory_hotplug.add_memory(k, nid, start, b)  # noqa: E731
        else:
            call = lambda: acpi_memhotplug.acpi_memory_device_add(k, AcpiDevice("PNP0C80:00", start, b, nid))  # noqa: E731
    elif name == "state":
        ids = sorted(k.memory_blocks)
        assert isinstance(a, int) and isinstance(b, str)
        block_id = ids[a % len(ids)]
        call = lambda: sysfs.write(k, f"{MEMORY}/memory{block_id}/state", b)  # noqa: E731
    else:
        assert isinstance(a, str)
        call = lambda: sysfs.write(k, f"{MEMORY}/auto_online_blocks", a)  # noqa: E731
    try:
        call()
    except KernelError:
        return True, None
    return False, span


def sequence(name: str, steps: list[tuple[str, object, object]]) -> None:
    k = fresh(name)
    boot_blocks = frozenset(k.memory_blocks)
    boot_present = sum(zone.present_pages for zone in invariants.zones_of(k))
    added: list[tuple[int, int]] = []
    for verb in steps:
        before = invariants.snapshot(k)
        ram = [(res.start, res.end + 1) for res in k.iomem_resource.child if res.name == "System RAM"]
        printed = len(k.log.lines)
        refused, span = run(k, verb)
        after = invariants.snapshot(k)
        if refused:
            assert [] == list(invariants.differences(before, after)), verb
        elif span is not None and not (verb[0] == "dimm" and before == after):
            assert not any(low < span[1] and span[0] < high for low, high in ram), "an overlap was let in"
            added.append(span)
        expected = {"WARNING: at drivers/base/memory.c pages_correctly_reserved()"} if name == "noclear" else set()
        assert expected >= {line for line in k.log.lines[printed:] if line.startswith(("WARNING", "kernel BUG"))}
        boot.user_space(k)
        unreserved = invariants.check(k, added=added, boot_blocks=boot_blocks, boot_present=boot_present)
        offline = any(block.state == MEM_OFFLINE for block in k.memory_blocks.values())
        assert (offline and name in LEAVE_UNRESERVED) == (unreserved > 0)
    check_files(k)
    for path in invariants.files(k):
        if path in WRITE_ONLY:
            continue
        data = sysfs.read(k, path, 0, 4096 if path.startswith("/proc/kpage") else -1)
        assert path.startswith("/proc/kpage") or path.endswith("/uevent") or data.endswith(b"\n"), path


@settings(max_examples=60)
@given(steps=st.lists(verbs(4 * GIB, 128 * MIB, 1), min_size=1, max_size=12))
def test_x86_64(steps: list[tuple[str, object, object]]) -> None:
    """
    One node. Addresses below, at and above the window; several sections at once; overlaps.

        | RAM 256M |     hole      4G: | -3..-1 hole | 0 1 2 3 4 5 6 7 8 |
    """
    sequence("x86_64", steps)


@settings(max_examples=40)
@given(steps=st.lists(verbs(4 * GIB, 128 * MIB, 2), min_size=1, max_size=10))
def test_two_nodes(steps: list[tuple[str, object, object]]) -> None:
    """Both nodes have memory, and either gets more, in any order: their spans overlap."""
    sequence("numa", steps)


@settings(max_examples=40)
@given(steps=st.lists(verbs(4 * GIB, 128 * MIB, 2), min_size=1, max_size=10))
def test_a_node_without_memory(steps: list[tuple[str, object, object]]) -> None:
    """Node 1 has none until something is added to it."""
    sequence("memoryless", steps)


@pytest.mark.parametrize("remedy", SAFE_REMEDIES)
@settings(max_examples=8)
@given(data=st.data())
def test_arm64(remedy: str, data: st.DataObject) -> None:
    """
    Each remedy that survives its own addition keeps the invariants, whether its blocks can go online or not.

    The firstpage ones get single sections only: they lose the second of two.
    """
    sequence(remedy, data.draw(st.lists(verbs(4 * GIB, GIB, 1, not remedy.startswith("firstpage")), min_size=1, max_size=6)))
