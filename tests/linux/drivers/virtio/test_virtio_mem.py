# SPDX-License-Identifier: GPL-2.0-only
"""The virtio-mem driver: what it plugs and unplugs, in which order, and what it never gets wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memhp.backends import base
from memhp.backends.base import Answer
from memhp.backends.model import ModelBackend, run_workers
from memhp.hardware import (
    VIRTIO_MEM_REQ_PLUG,
    VIRTIO_MEM_RESP_BUSY,
    VIRTIO_MEM_RESP_ERROR,
    VirtioMemDevice,
)
from memhp.linux.drivers.base import memory
from memhp.linux.drivers.virtio import virtio_mem
from memhp.linux.drivers.virtio.virtio_mem import VirtioMem
from memhp.linux.include import mm
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_MEM, Resource
from memhp.linux.include.memory import MEM_OFFLINE, MEM_ONLINE
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.mmzone import MIGRATE_MOVABLE
from memhp.linux.include.page_flags import KIND_ANON, PG_LRU, PG_OFFLINE, set_page_kind
from memhp.linux.kernel import resource
from memhp.linux.mm import page_alloc
from memhp.linux.state import Kernel
from memhp.scenario import Device, Offline, Online, Resize, Step
from memhp.units import GIB, MIB

ARM64 = "model:v6.12/arm64?mem=1G"
BLOCK = 128 * MIB
FIRST = 16
"""The device begins at 2 GiB."""
(UNUSED, PLUGGED, OFF, OFF_PART, KERNEL, KERNEL_PART, MOVABLE, MOVABLE_PART) = range(8)


def machine(words: str = "", *, devices: Sequence[Device] = ()) -> ModelBackend:
    """A machine with one device of 2 GiB, or the given ones."""
    url = ARM64 + (f"&cmdline={base.quote(words)}" if words else "")
    found = base.open(url, devices or [Device(kind="virtio-mem", id="v0", max=2 * GIB)])
    assert isinstance(found, ModelBackend)
    return found


def driver(backend: ModelBackend, id: str = "v0") -> VirtioMem:
    return next(vm for vm in backend.kernel.virtio_mem.values() if vm.vdev.id == id)


def resize(backend: ModelBackend, size: int, id: str = "v0") -> Answer:
    answer = base.apply(backend, Resize(id=id, size=size))
    for vm in backend.kernel.virtio_mem.values():
        check(backend.kernel, vm)
    return answer


def states(vm: VirtioMem) -> list[int]:
    return list(vm.sbm.mb_states)


def plugged(vm: VirtioMem) -> list[int]:
    """MiB that are plugged of each block."""
    return [bits.bit_count() * vm.sbm.sb_size // MIB for bits in vm.sbm.sb_states]


def check(k: Kernel, vm: VirtioMem) -> None:
    """What holds whenever the machine is quiet, from the driver's own tables, the device's count, blocks, zones and pages."""
    sbm = vm.sbm
    assert sum(bits.bit_count() for bits in sbm.sb_states) * sbm.sb_size == vm.plugged_size == vm.vdev.plugged_size
    assert Counter({state: count for state, count in enumerate(sbm.mb_count) if count}) == Counter(sbm.mb_states)
    assert len(sbm.mb_states) == len(sbm.sb_states) == sbm.next_mb_id - sbm.first_mb_id
    assert (k.workqueue, vm.hotplug_mutex.holder, vm.wq_active, vm.hotplug_active) == ((), 0, False, False)
    full = (1 << sbm.sbs_per_mb) - 1
    offline = 0
    for mb_id, (state, bits) in enumerate(zip(sbm.mb_states, sbm.sb_states, strict=True), sbm.first_mb_id):
        block = k.memory_blocks.get(mb_id)
        if state in (UNUSED, PLUGGED):
            assert block is None
            assert bool(bits) == (state == PLUGGED)
            continue
        assert block is not None
        assert block.group == vm.mgid
        if state in (OFF_PART, KERNEL_PART, MOVABLE_PART):
            assert bits != full
        else:
            assert bits == full
        if state in (OFF, OFF_PART):
            assert block.state == MEM_OFFLINE
            offline += memory.memory_block_size_bytes(k)
            continue
        assert block.state == MEM_ONLINE
        assert block.zone is not None
        assert (block.zone[1] == k.ZONE_MOVABLE) == (state in (MOVABLE, MOVABLE_PART))
        columns = k.mem_section[mb_id].memmap
        assert columns is not None
        pages = sbm.sb_size >> k.PAGE_SHIFT
        for sb_id in range(sbm.sbs_per_mb):
            marked = columns.count(FLAGS, sb_id * pages, (sb_id + 1) * pages, PG_OFFLINE, PG_OFFLINE)
            assert marked == (0 if bits >> sb_id & 1 else pages), f"memory{mb_id}, subblock {sb_id}"
    assert vm.offline_size == offline


# Where and how


def test_what_the_driver_says_of_its_device() -> None:
    """As the real one does; the second of two devices begins where the first ends, and its end is not aligned."""
    devices = [Device(kind="virtio-mem", id="v0", max=GIB), Device(kind="virtio-mem", id="v1", max=300 * MIB)]
    backend = machine(devices=devices)
    assert [line for line in backend.log() if line.startswith("virtio_mem")] == [
        "virtio_mem virtio1: start address: 0x80000000",
        "virtio_mem virtio1: region size: 0x40000000",
        "virtio_mem virtio1: device block size: 0x200000",
        "virtio_mem virtio1: nid: 0",
        "virtio_mem virtio1: memory block size: 0x8000000",
        "virtio_mem virtio1: subblock size: 0x200000",
        "virtio_mem virtio2: start address: 0xc0000000",
        "virtio_mem virtio2: region size: 0x12c00000",
        "virtio_mem virtio2: device block size: 0x200000",
        "virtio_mem virtio2: nid: 0",
        "virtio_mem virtio2: The alignment of the physical end address can make some memory unusable.",
        "virtio_mem virtio2: memory block size: 0x8000000",
        "virtio_mem virtio2: subblock size: 0x200000",
        "virtio_mem virtio1: plugged size: 0x0",
        "virtio_mem virtio1: requested size: 0x0",
        "virtio_mem virtio2: plugged size: 0x0",
        "virtio_mem virtio2: requested size: 0x0",
    ]
    assert (driver(backend).sbm.first_mb_id, driver(backend, "v1").sbm.first_mb_id) == (16, 24)


def test_a_region_in_the_way() -> None:
    """A device whose addresses somebody has does not get its driver, and nothing of it stays."""
    backend = machine(devices=[Device(kind="virtio-mem", id="v0", max=GIB)])
    k = backend.kernel
    vdev = VirtioMemDevice(id="v1", name="virtio2", arch="arm64", addr=3 * GIB - BLOCK, region_size=GIB)
    groups = dict(k.memory_groups)
    with pytest.raises(OSError, match="EBUSY"):
        virtio_mem.virtio_mem_probe(k, vdev)
    assert (list(k.virtio_mem), k.memory_groups, k.workqueue) == (["virtio1"], groups, ())
    assert "virtio_mem virtio2: could not reserve device region" in k.log.lines


# Growing and shrinking


def test_growing_fills_holes_first() -> None:
    """A partly plugged block is completed before the next one is begun, and a block that has gone is used again."""
    backend = machine("memhp_default_state=online_movable")
    vm = driver(backend)
    resize(backend, 200 * MIB)
    assert (states(vm), plugged(vm)) == ([MOVABLE, MOVABLE_PART], [128, 72])
    resize(backend, 300 * MIB)
    assert (states(vm), plugged(vm)) == ([MOVABLE, MOVABLE, MOVABLE_PART], [128, 128, 44])
    resize(backend, 128 * MIB)
    assert plugged(vm)[1:] == [0, 0]
    resize(backend, 384 * MIB)
    assert (states(vm), plugged(vm)) == ([MOVABLE] * 3, [128] * 3)


def test_shrinking_takes_the_partly_plugged_block_first() -> None:
    """Highest block first, and within it the highest subblock."""
    backend = machine("memhp_default_state=online_movable")
    vm = driver(backend)
    resize(backend, 300 * MIB)
    resize(backend, 290 * MIB)
    assert vm.sbm.sb_states[2] == (1 << 17) - 1
    resize(backend, 250 * MIB)
    assert (states(vm), plugged(vm)) == ([MOVABLE, MOVABLE_PART, UNUSED], [128, 122, 0])
    assert vm.sbm.sb_states[1] == (1 << 61) - 1


def test_offline_blocks_go_before_movable_and_those_before_kernel_ones() -> None:
    """Three blocks, one of each kind: which of them loses its memory does not hang on its address."""
    backend = machine("memhp_default_state=offline")
    vm = driver(backend)
    resize(backend, 3 * BLOCK)
    for step in (Online(block=FIRST, to="online_movable"), Online(block=FIRST + 2, to="online_kernel")):
        assert base.apply(backend, step).word == "ok"
    assert states(vm) == [MOVABLE, OFF, KERNEL]
    resize(backend, 2 * BLOCK)
    assert states(vm) == [MOVABLE, UNUSED, KERNEL]
    resize(backend, BLOCK)
    assert states(vm) == [UNUSED, UNUSED, KERNEL]


def test_holes_in_kernel_blocks_are_filled_first() -> None:
    """Then those of movable blocks, then those of offline ones."""
    backend = machine("memhp_default_state=offline")
    vm = driver(backend)
    resize(backend, 3 * BLOCK)
    for step in (Online(block=FIRST, to="online_movable"), Online(block=FIRST + 1, to="online_movable")):
        assert base.apply(backend, step).word == "ok"
    resize(backend, 3 * BLOCK - 8 * MIB)
    assert plugged(vm) == [128, 128, 120]
    assert base.apply(backend, Online(block=FIRST + 2, to="online_kernel")).word == "ok"
    resize(backend, 3 * BLOCK - 8 * MIB - 8 * MIB)
    assert plugged(vm) == [128, 128, 112]
    assert states(vm) == [MOVABLE, MOVABLE, KERNEL_PART]
    resize(backend, 3 * BLOCK)
    assert (states(vm), plugged(vm)) == ([MOVABLE, MOVABLE, KERNEL], [128, 128, 128])


def test_too_much_offline_memory() -> None:
    """One GiB may wait to go online; bringing blocks online lets the driver add more."""
    backend = machine("memhp_default_state=offline")
    vm = driver(backend)
    answer = resize(backend, 2 * GIB)
    assert (answer.word, vm.plugged_size) == ("pending", GIB)
    assert "v0 has 1G of the 2G it was asked for" in answer.log
    assert not vm.retry_timer
    for block in range(FIRST, FIRST + 4):
        assert base.apply(backend, Online(block=block, to="online_movable")).word == "ok"
        check(backend.kernel, vm)
    assert vm.plugged_size == GIB + 4 * BLOCK


def test_the_end_of_the_device() -> None:
    """What is no whole memory block at its end cannot be plugged: the request stays open, and no timer runs."""
    backend = machine("memhp_default_state=online_movable", devices=[Device(kind="virtio-mem", id="v0", max=300 * MIB)])
    answer = resize(backend, 300 * MIB)
    assert (answer.word, driver(backend).plugged_size, driver(backend).retry_timer) == ("pending", 256 * MIB, False)


def test_a_block_that_is_half_there_goes_offline_and_online() -> None:
    """Its unplugged part is never the page allocator's, and comes back when the block is completed."""
    backend = machine("memhp_default_state=online_movable")
    k, vm = backend.kernel, driver(backend)
    resize(backend, 40 * MIB)
    zone = k.zone(0, k.ZONE_MOVABLE)
    assert (zone.present_pages, zone.managed_pages) == (32768, 10240)
    assert base.apply(backend, Offline(block=FIRST)).word == "ok"
    assert (states(vm), zone.managed_pages) == ([OFF_PART], 0)
    assert base.apply(backend, Online(block=FIRST, to="online_movable")).word == "ok"
    check(k, vm)
    assert (zone.present_pages, zone.managed_pages) == (32768, 10240)
    resize(backend, 16 * MIB)
    assert (states(vm), zone.managed_pages) == ([MOVABLE_PART], 4096)
    resize(backend, 128 * MIB)
    assert (states(vm), zone.managed_pages) == ([MOVABLE], 32768)
    resize(backend, 0)
    assert (zone.present_pages, zone.managed_pages, zone.spanned_pages) == (0, 0, 0)


@given(
    policy=st.sampled_from(["offline", "online_movable", "online"]),
    steps=st.lists(st.one_of(
        st.integers(0, 300).map(lambda size: Resize(id="v0", size=size * 2 * MIB)),
        st.tuples(st.integers(0, 4), st.sampled_from(["online", "online_movable", "online_kernel"])).map(
            lambda pair: Online(block=FIRST + pair[0], to=pair[1])),
        st.integers(0, 4).map(lambda block: Offline(block=FIRST + block)),
    ), max_size=8))  # fmt: skip
@settings(max_examples=30)
def test_whatever_is_done(policy: str, steps: list[Step]) -> None:
    """No sequence of sizes and blocks switched by hand leads the driver, the device and Linux apart."""
    backend = machine(f"memhp_default_state={policy}")
    for step in steps:
        answer = base.apply(backend, step)
        assert not answer.oops, step
        check(backend.kernel, driver(backend))
        for zone in backend.kernel.nodes[0].node_zones:
            free = sum(end - start for start, end in page_alloc.free_ranges(backend.kernel, zone))
            assert zone.nr_free_pages == free
            assert zone.nr_isolate_pageblock == 0
    fork = backend.kernel.fork()
    assert states(fork.virtio_mem["virtio1"]) == states(driver(backend))
    assert fork.virtio_mem["virtio1"] is not driver(backend)


# When the device does not want


def test_a_busy_device_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU is busy while it migrates: a timer is set, which lets the driver try again, each time later."""
    backend = machine("memhp_default_state=offline")
    vm = driver(backend)
    request = VirtioMemDevice.request
    monkeypatch.setattr(VirtioMemDevice, "request", lambda *_: VIRTIO_MEM_RESP_BUSY)
    assert resize(backend, BLOCK).word == "pending"
    assert (vm.retry_timer, vm.retry_timer_ms, states(vm)) == (True, 50000, [UNUSED])
    for ms in (100000, 200000, 300000, 300000):
        virtio_mem.virtio_mem_timer_expired(backend.kernel, vm)
        run_workers(backend.kernel)
        assert (vm.retry_timer, vm.retry_timer_ms) == (True, ms)
    monkeypatch.setattr(VirtioMemDevice, "request", request)
    virtio_mem.virtio_mem_timer_expired(backend.kernel, vm)
    run_workers(backend.kernel)
    assert (vm.retry_timer, vm.retry_timer_ms, states(vm)) == (False, 50000, [OFF])
    check(backend.kernel, vm)


def test_an_answer_nobody_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver gives up for good."""
    backend = machine("memhp_default_state=offline")
    vm = driver(backend)
    request = VirtioMemDevice.request
    monkeypatch.setattr(VirtioMemDevice, "request", lambda *_: VIRTIO_MEM_RESP_ERROR)
    assert resize(backend, BLOCK).log[-1] == "virtio_mem virtio1: unknown error, marking device broken: -22"
    monkeypatch.setattr(VirtioMemDevice, "request", request)
    assert resize(backend, BLOCK).word == "pending"
    assert vm.broken


def test_memory_that_cannot_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is in the way: the subblocks are given back; if the device does not take them, that is made up for later."""
    backend = machine("memhp_default_state=offline")
    k, vm = backend.kernel, driver(backend)
    request = VirtioMemDevice.request

    def stubborn(self: VirtioMemDevice, type: int, addr: int, nb_blocks: int) -> int:
        return request(self, type, addr, nb_blocks) if type == VIRTIO_MEM_REQ_PLUG else VIRTIO_MEM_RESP_BUSY

    blocker = Resource(vm.addr, vm.addr + 4095, "in the way", IORESOURCE_MEM | IORESOURCE_BUSY)
    parent = next(res for res in k.iomem_rw().child if res.start == vm.addr)
    resource.request_resource(k, parent, blocker)
    answer = resize(backend, BLOCK)
    assert (answer.word, states(vm), vm.plugged_size) == ("pending", [UNUSED], 0)
    assert "virtio_mem virtio1: adding memory failed: -17" in answer.log
    assert "virtio_mem virtio1: unknown error, marking device broken: -17" in answer.log
    vm.broken = False
    monkeypatch.setattr(VirtioMemDevice, "request", stubborn)
    resize(backend, BLOCK)
    assert (states(vm), vm.plugged_size) == ([PLUGGED], BLOCK)
    vm.broken = False
    monkeypatch.setattr(VirtioMemDevice, "request", request)
    resize(backend, 0)
    assert (states(vm), vm.plugged_size) == ([UNUSED], 0)


# Big block mode


def test_big_blocks() -> None:
    """
    A device of 256 MiB blocks, two memory blocks each, as Debian's 6.12 treated it in QEMU (block-size=256M).

    What is offline goes first, then what is movable or offline, whole big blocks at a time; the offline part of a big block that
    is half online goes with it.
    """
    backend = machine("memhp_default_state=offline", devices=[Device(kind="virtio-mem", id="other", max=2 * MIB)])
    k = backend.kernel
    vdev = VirtioMemDevice(
        id="b0", name="virtio2", arch="arm64", addr=4 * GIB, region_size=2 * GIB, block_size=256 * MIB)
    mark = backend.log_length()
    virtio_mem.virtio_mem_probe(k, vdev)
    run_workers(k)
    assert "virtio_mem virtio2: big block size: 0x10000000" in backend.log(mark)
    vm = driver(backend, "b0")
    assert (vm.in_sbm, vm.bbm.first_bb_id, vm.offline_threshold) == (False, 16, GIB)
    first = 4 * GIB // BLOCK

    def shown() -> str:
        """One letter for each block: o offline, M movable."""
        blocks = [k.memory_blocks[n] for n in range(first, first + 16) if n in k.memory_blocks]
        return "".join("o" if block.state == MEM_OFFLINE else "M" for block in blocks)

    for size, to, word, blocks in (
        (512, 0, "accepted", "oooo"), (0, first, "ok", "Mooo"), (1024, 0, "accepted", "Mooooooo"),
        (0, first + 2, "ok", "MoMooooo"), (0, first + 3, "ok", "MoMMoooo"),
        (768, 0, "accepted", "MoMMoo"), (512, 0, "accepted", "MoMM"), (256, 0, "accepted", "Mo"),
        (-1, 0, "accepted", ""), (2048, 0, "pending", "oooooooo"), (-1, 0, "accepted", ""),
    ):  # fmt: skip
        step: Step = Online(block=to, to="online_movable") if to else Resize(id="b0", size=max(size, 0) * MIB)
        assert (base.apply(backend, step).word, shown()) == (word, blocks), step
        zone = k.zone(0, k.ZONE_MOVABLE)
        assert zone.managed_pages == zone.present_pages == blocks.count("M") * 32768
        assert vm.plugged_size == vm.vdev.plugged_size == len(blocks) * BLOCK
        assert vm.offline_size == blocks.count("o") * BLOCK
    assert [line for line in memory_lines(k) if "System RAM (virtio_mem)" in line] == []


def memory_lines(k: Kernel) -> list[str]:
    return resource.iomem_show(k).splitlines()


def test_a_big_block_with_a_pinned_page_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that had been taken away by then goes back to the page allocator."""
    backend = machine("memhp_default_state=online_movable", devices=[Device(kind="virtio-mem", id="other", max=2 * MIB)])
    k = backend.kernel
    vdev = VirtioMemDevice(
        id="b0", name="virtio2", arch="arm64", addr=4 * GIB, region_size=2 * GIB, block_size=256 * MIB)
    virtio_mem.virtio_mem_probe(k, vdev)
    run_workers(k)
    assert base.apply(backend, Resize(id="b0", size=256 * MIB)).word == "accepted"
    vm, zone = driver(backend, "b0"), k.zone(0, k.ZONE_MOVABLE)
    pinned = (4 * GIB + BLOCK) // 4096 + 1000
    set_page_kind(k, pinned, 1, KIND_ANON, PG_LRU)
    page_alloc.alloc_contig_range(k, pinned, pinned + 1, MIGRATE_MOVABLE)
    set_page_kind(k, pinned, 1, KIND_ANON, PG_LRU)
    mm.set_page_count(k, pinned, 1, 2)
    answer = base.apply(backend, Resize(id="b0", size=0))
    assert (answer.word, list(vm.bbm.bb_states), vm.retry_timer) == ("pending", [virtio_mem.VIRTIO_MEM_BBM_BB_ADDED], True)
    assert (zone.managed_pages, zone.nr_isolate_pageblock) == (65536, 0)
    assert zone.nr_free_pages == sum(end - start for start, end in page_alloc.free_ranges(k, zone)) >= 65536 - 41
    mm.set_page_count(k, pinned, 1, 1)
    virtio_mem.virtio_mem_timer_expired(k, vm)
    run_workers(k)
    assert (vm.plugged_size, list(vm.bbm.bb_states), zone.present_pages) == (0, [virtio_mem.VIRTIO_MEM_BBM_BB_UNUSED], 0)


# v5.10


def v5_10(words: str) -> ModelBackend:
    found = base.open(
        f"model:v5.10/x86_64?mem=1G&cmdline={base.quote(words)}", [Device(kind="virtio-mem", id="v0", max=2 * GIB)])
    assert isinstance(found, ModelBackend)
    return found


def test_what_the_driver_of_v5_10_says() -> None:
    """Subblocks are as large as the largest free block, and the node comes last."""
    lines = [line for line in v5_10("memhp_default_state=offline").log() if line.startswith("virtio_mem")]
    assert lines[:5] == [
        "virtio_mem virtio1: start address: 0x100000000",
        "virtio_mem virtio1: region size: 0x80000000",
        "virtio_mem virtio1: device block size: 0x200000",
        "virtio_mem virtio1: memory block size: 0x8000000",
        "virtio_mem virtio1: subblock size: 0x400000",
    ]


def test_ten_blocks_may_wait() -> None:
    """Before v5.11 blocks are counted, not bytes; the driver goes on when the tenth has gone online."""
    backend = v5_10("memhp_default_state=offline")
    vm = driver(backend)
    assert base.apply(backend, Resize(id="v0", size=2 * GIB)).word == "pending"
    assert vm.plugged_size == 10 * BLOCK
    assert base.apply(backend, Online(block=32, to="online_movable")).word == "ok"
    assert vm.plugged_size == 11 * BLOCK


def test_v5_10_does_not_know_movable_blocks() -> None:
    """The highest block loses its memory first, whatever zone it is in; half of a subblock cannot be had."""
    backend = v5_10("memhp_default_state=offline")
    vm = driver(backend)
    assert base.apply(backend, Resize(id="v0", size=2 * BLOCK)).word == "accepted"
    for step in (Online(block=32, to="online_movable"), Online(block=33, to="online_movable")):
        assert base.apply(backend, step).word == "ok"
    assert states(vm) == [KERNEL, KERNEL]
    answer = base.apply(backend, Resize(id="v0", size=2 * BLOCK - 2 * MIB))
    assert (answer.word, vm.plugged_size) == ("pending", 2 * BLOCK)
    assert base.apply(backend, Resize(id="v0", size=2 * BLOCK - 4 * MIB)).word == "accepted"
    assert (states(vm), plugged(vm)) == ([KERNEL, KERNEL_PART], [128, 124])


def test_v5_10_has_no_big_blocks() -> None:
    """A device whose blocks are larger than a memory block does not get its driver."""
    backend = v5_10("memhp_default_state=offline")
    vdev = VirtioMemDevice(
        id="b0", name="virtio2", arch="x86_64", addr=8 * GIB, region_size=GIB, block_size=256 * MIB)
    with pytest.raises(OSError, match="EINVAL"):
        virtio_mem.virtio_mem_probe(backend.kernel, vdev)
    assert backend.log()[-1] == "virtio_mem virtio2: The block size is not supported (too big)."
