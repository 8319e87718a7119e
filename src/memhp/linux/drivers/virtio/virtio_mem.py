# SPDX-License-Identifier: GPL-2.0-only
"""
virtio-mem: a device that gives and takes memory in small blocks.

The parts. The *device* (hardware.VirtioMemDevice) has a region of addresses; the host asks for a size, the guest plugs and
unplugs device blocks until that is what it has. The *driver* works in one of two modes. In *sub-block mode* (SBM), the usual one,
a memory block of Linux is made of subblocks (the larger of a pageblock and a device block), of which some may be unplugged:
those pages are PageOffline, "fake offline", while the block around them is online. In *big block mode* (BBM), where a subblock
would be as large as a memory block, whole memory blocks or several of them come and go.

Growing: first the holes of blocks that are there (kernel zone, movable, offline), then blocks that are known and unused, then new
ones at the end, each plugged as far as wanted and then added. Shrinking goes downwards, offline blocks first and partly plugged
ones before whole ones, movable before kernel; pages in use are allocated away with alloc_contig_range(), and what does not
budge is left. A block without a plugged subblock goes offline and is removed.

One work does all that (virtio_mem_run_wq()); what it could not do it tries again when a timer fires, or when something changes.

Locks: `hotplug_mutex` of a device, over the states of its blocks; it is held from MEM_GOING_ONLINE to MEM_ONLINE and from
MEM_GOING_OFFLINE to MEM_OFFLINE, and must not be held when memory is added or removed.

How trees differ. v5.10 knows one mode, whose functions go by names without "sbm" (virtio_mem_mb_plug_any_sb() and its like), does
not tell movable blocks from others, has subblocks of the largest free block at least, and lets ten blocks wait to go online.

Left out: kdump kernels, suspend, unbinding the driver.

Source: drivers/virtio/virtio_mem.c [v5.10, v6.1, v6.12].
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EAGAIN, EBUSY, EINVAL, ENOMEM, ENOSPC, ETXTBSY
from typing import TYPE_CHECKING, Any

from memhp.errors import KernelError
from memhp.hardware import (
    VIRTIO_MEM_REQ_PLUG,
    VIRTIO_MEM_REQ_UNPLUG,
    VIRTIO_MEM_REQ_UNPLUG_ALL,
    VIRTIO_MEM_RESP_ACK,
    VIRTIO_MEM_RESP_BUSY,
    VIRTIO_MEM_RESP_ERROR,
    VIRTIO_MEM_RESP_NACK,
    VirtioMemDevice,
)
from memhp.linux import bug, sched
from memhp.linux.drivers.acpi.numa import srat
from memhp.linux.drivers.base import memory
from memhp.linux.include import mm
from memhp.linux.include.ioport import IORESOURCE_BUSY, IORESOURCE_EXCLUSIVE, IORESOURCE_SYSTEM_RAM
from memhp.linux.include.memory import (
    MEM_CANCEL_OFFLINE,
    MEM_CANCEL_ONLINE,
    MEM_GOING_OFFLINE,
    MEM_GOING_ONLINE,
    MEM_OFFLINE,
    MEM_ONLINE,
    MemoryNotify,
)
from memhp.linux.include.memory_hotplug import MHP_MERGE_RESOURCE, MHP_NID_IS_MGID, pfn_to_online_page
from memhp.linux.include.mmzone import MIGRATE_MOVABLE
from memhp.linux.include.notifier import NOTIFY_BAD, NOTIFY_DONE, NOTIFY_OK, NotifierBlock, NotifierCall
from memhp.linux.include.numa import NUMA_NO_NODE
from memhp.linux.include.page_flags import (
    ClearPageDirty,
    ClearPageReserved,
    PageDirty,
    SetPageDirty,
    __ClearPageOffline,
    __SetPageOffline,
    pages_offline,
)
from memhp.linux.kernel import resource, workqueue
from memhp.linux.kernel.workqueue import Work
from memhp.linux.mm import memory_hotplug, page_alloc
from memhp.linux.sched import Mutex
from memhp.units import GIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

VIRTIO_MEM_DEFAULT_OFFLINE_THRESHOLD = GIB
VIRTIO_MEM_RETRY_TIMER_MIN_MS = 50000
VIRTIO_MEM_RETRY_TIMER_MAX_MS = 300000

VIRTIO_MEM_NB_OFFLINE_THRESHOLD = 10
"""Blocks, before v5.11."""

RESOURCE_NAME = "System RAM (virtio_mem)"

(
    VIRTIO_MEM_SBM_MB_UNUSED,
    VIRTIO_MEM_SBM_MB_PLUGGED,
    VIRTIO_MEM_SBM_MB_OFFLINE,
    VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL,
    VIRTIO_MEM_SBM_MB_KERNEL,
    VIRTIO_MEM_SBM_MB_KERNEL_PARTIAL,
    VIRTIO_MEM_SBM_MB_MOVABLE,
    VIRTIO_MEM_SBM_MB_MOVABLE_PARTIAL,
) = range(8)
"""A memory block in SBM: not plugged; plugged and not added; and added: offline, in a kernel zone, in ZONE_MOVABLE."""
VIRTIO_MEM_SBM_MB_COUNT = 8

(
    VIRTIO_MEM_BBM_BB_UNUSED,
    VIRTIO_MEM_BBM_BB_PLUGGED,
    VIRTIO_MEM_BBM_BB_ADDED,
    VIRTIO_MEM_BBM_BB_FAKE_OFFLINE,
) = range(4)
"""A big block in BBM."""
VIRTIO_MEM_BBM_BB_COUNT = 4

_SBM_PLUG_ORDER = (
    VIRTIO_MEM_SBM_MB_KERNEL_PARTIAL, VIRTIO_MEM_SBM_MB_MOVABLE_PARTIAL, VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL,
)  # fmt: skip
_SBM_UNPLUG_ORDER = (
    VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL, VIRTIO_MEM_SBM_MB_OFFLINE, VIRTIO_MEM_SBM_MB_MOVABLE_PARTIAL,
    VIRTIO_MEM_SBM_MB_KERNEL_PARTIAL, VIRTIO_MEM_SBM_MB_MOVABLE, VIRTIO_MEM_SBM_MB_KERNEL,
)  # fmt: skip


class Sbm:
    """
    The part of struct virtio_mem that sub-block mode has.

    Attributes:
        first_mb_id, last_usable_mb_id, next_mb_id: Ids of memory blocks: the device's first, the last it may use now, the next
            that will be prepared.
        sb_size: Bytes of a subblock.
        sbs_per_mb: Subblocks of a memory block.
        have_unplugged_mb: A block without plugged subblocks could not be removed [v6.6].
        mb_count: Blocks by state.
        mb_states: State of each block from the first on.
        sb_states: Bit s set: subblock s of the block is plugged. (In C one bitmap over all blocks.)
    """

    __slots__ = (
        "first_mb_id", "have_unplugged_mb", "last_usable_mb_id", "mb_count", "mb_states", "next_mb_id", "sb_size", "sb_states",
        "sbs_per_mb",
    )

    def __init__(self, first_mb_id: int, sb_size: int, sbs_per_mb: int) -> None:
        self.first_mb_id = first_mb_id
        self.last_usable_mb_id = first_mb_id - 1
        self.next_mb_id = first_mb_id
        self.sb_size = sb_size
        self.sbs_per_mb = sbs_per_mb
        self.have_unplugged_mb = False
        self.mb_count = [0] * VIRTIO_MEM_SBM_MB_COUNT
        self.mb_states = bytearray()
        self.sb_states: list[int] = []

    def copy(self) -> Sbm:
        new = Sbm(self.first_mb_id, self.sb_size, self.sbs_per_mb)
        new.last_usable_mb_id = self.last_usable_mb_id
        new.next_mb_id = self.next_mb_id
        new.have_unplugged_mb = self.have_unplugged_mb
        new.mb_count = self.mb_count[:]
        new.mb_states = self.mb_states[:]
        new.sb_states = self.sb_states[:]
        return new


class Bbm:
    """
    The part of struct virtio_mem that big block mode has.

    Attributes:
        first_bb_id, last_usable_bb_id, next_bb_id: As in `Sbm`, of big blocks.
        bb_size: Bytes of a big block.
        bb_count: Blocks by state.
        bb_states: State of each block from the first on.
    """

    __slots__ = ("bb_count", "bb_size", "bb_states", "first_bb_id", "last_usable_bb_id", "next_bb_id")

    def __init__(self, first_bb_id: int, bb_size: int) -> None:
        self.first_bb_id = first_bb_id
        self.last_usable_bb_id = first_bb_id - 1
        self.next_bb_id = first_bb_id
        self.bb_size = bb_size
        self.bb_count = [0] * VIRTIO_MEM_BBM_BB_COUNT
        self.bb_states = bytearray()

    def copy(self) -> Bbm:
        new = Bbm(self.first_bb_id, self.bb_size)
        new.last_usable_bb_id = self.last_usable_bb_id
        new.next_bb_id = self.next_bb_id
        new.bb_count = self.bb_count[:]
        new.bb_states = self.bb_states[:]
        return new


class VirtioMem:
    """
    struct virtio_mem.

    Attributes:
        vdev: The device.
        unplug_all_required: Memory is plugged from before the driver came.
        wq_active, config_changed: As in C.
        plugged_size, requested_size: Bytes there are, bytes asked for, as the driver knows.
        device_block_size, nid, addr, region_size, mgid: As in C.
        offline_size, offline_threshold: Bytes that are added and not online; how many there may be.
        in_sbm: Sub-block mode: `sbm` counts; else `bbm`.
        hotplug_mutex, hotplug_active: As in C.
        broken: An error came that the driver does not know: it does nothing any more.
        retry_timer: It is running.
        retry_timer_ms: How long it runs, or will.
        stuck: Why the last run did not do all that was asked; None if it did. (Not in C, where the errno is dropped.)
    """

    __slots__ = (
        "addr", "bbm", "broken", "config_changed", "device_block_size", "hotplug_active", "hotplug_mutex", "in_sbm", "mgid",
        "nid", "offline_size", "offline_threshold", "plugged_size", "region_size", "requested_size", "retry_timer",
        "retry_timer_ms", "sbm", "stuck", "unplug_all_required", "vdev", "wq_active",
    )

    def __init__(self, vdev: VirtioMemDevice) -> None:
        self.vdev = vdev
        self.unplug_all_required = False
        self.wq_active = False
        self.config_changed = False
        self.plugged_size = 0
        self.requested_size = 0
        self.device_block_size = 0
        self.nid = NUMA_NO_NODE
        self.addr = 0
        self.region_size = 0
        self.mgid = -1
        self.offline_size = 0
        self.offline_threshold = 0
        self.in_sbm = False
        self.sbm = Sbm(0, 0, 0)
        self.bbm = Bbm(0, 0)
        self.hotplug_mutex = Mutex("hotplug_mutex")
        self.hotplug_active = False
        self.broken = False
        self.retry_timer = False
        self.retry_timer_ms = VIRTIO_MEM_RETRY_TIMER_MIN_MS
        self.stuck: KernelError | None = None

    def copy(self) -> VirtioMem:
        new: VirtioMem = VirtioMem.__new__(VirtioMem)
        for name in VirtioMem.__slots__:
            setattr(new, name, getattr(self, name))
        new.vdev = self.vdev.copy()
        new.sbm = self.sbm.copy()
        new.bbm = self.bbm.copy()
        new.hotplug_mutex = self.hotplug_mutex.copy()
        return new


def _say(k: Kernel, vm: VirtioMem, text: str) -> None:
    """dev_info(), dev_warn(), dev_err() of a device. Source: none"""
    bug.printk(k.log, f"virtio_mem {vm.vdev.name}: {text}")


def register_virtio_mem_device(k: Kernel, vm: VirtioMem) -> None:
    """
    Let a device take part in onlining; the first one brings the callback that all share.

    Raises:
        KernelError: EINVAL if somebody else's callback is set.

    Source: drivers/virtio/virtio_mem.c register_virtio_mem_device()
    """
    if not k.virtio_mem:
        memory_hotplug.set_online_page_callback(k, virtio_mem_online_page_cb)
    k.virtio_mem[vm.vdev.name] = vm


def virtio_mem_phys_to_mb_id(k: Kernel, addr: int) -> int:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_phys_to_mb_id()"""
    return addr // memory.memory_block_size_bytes(k)


def virtio_mem_mb_id_to_phys(k: Kernel, mb_id: int) -> int:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_mb_id_to_phys()"""
    return mb_id * memory.memory_block_size_bytes(k)


def virtio_mem_phys_to_bb_id(vm: VirtioMem, addr: int) -> int:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_phys_to_bb_id()"""
    return addr // vm.bbm.bb_size


def virtio_mem_bb_id_to_phys(vm: VirtioMem, bb_id: int) -> int:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bb_id_to_phys()"""
    return bb_id * vm.bbm.bb_size


def virtio_mem_phys_to_sb_id(k: Kernel, vm: VirtioMem, addr: int) -> int:
    """
    Return which subblock of its memory block an address lies in.

    Source: drivers/virtio/virtio_mem.c virtio_mem_phys_to_sb_id()
    """
    mb_addr = virtio_mem_mb_id_to_phys(k, virtio_mem_phys_to_mb_id(k, addr))
    return (addr - mb_addr) // vm.sbm.sb_size


# The states of blocks


def virtio_mem_bbm_set_bb_state(k: Kernel, vm: VirtioMem, bb_id: int, state: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_set_bb_state()"""
    bbm = vm.bbm
    old_state = bbm.bb_states[bb_id - bbm.first_bb_id]
    bbm.bb_states[bb_id - bbm.first_bb_id] = state
    bug.BUG_ON(k.log, bbm.bb_count[old_state] == 0)
    bbm.bb_count[old_state] -= 1
    bbm.bb_count[state] += 1


def virtio_mem_bbm_get_bb_state(vm: VirtioMem, bb_id: int) -> int:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_get_bb_state()"""
    return vm.bbm.bb_states[bb_id - vm.bbm.first_bb_id]


def virtio_mem_bbm_bb_states_prepare_next_bb(vm: VirtioMem) -> None:
    """
    Make room for the state of one more big block.

    Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_bb_states_prepare_next_bb()
    """
    vm.bbm.bb_states.append(VIRTIO_MEM_BBM_BB_UNUSED)


def virtio_mem_bbm_for_each_bb(vm: VirtioMem, state: int) -> Iterator[int]:
    """
    Yield the big blocks in a state, lowest first, as they are when their turn comes.

    Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_for_each_bb()
    """
    bbm = vm.bbm
    idx = 0
    while bbm.bb_count[state]:
        idx = bbm.bb_states.find(state, idx)
        if idx < 0:
            return
        yield bbm.first_bb_id + idx
        idx += 1


def virtio_mem_bbm_for_each_bb_rev(vm: VirtioMem, state: int) -> Iterator[int]:
    """As virtio_mem_bbm_for_each_bb(), highest first. Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_for_each_bb_rev()"""
    bbm = vm.bbm
    idx = len(bbm.bb_states)
    while bbm.bb_count[state]:
        idx = bbm.bb_states.rfind(state, 0, idx)
        if idx < 0:
            return
        yield bbm.first_bb_id + idx


def virtio_mem_sbm_set_mb_state(k: Kernel, vm: VirtioMem, mb_id: int, state: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_set_mb_state()"""
    sbm = vm.sbm
    old_state = sbm.mb_states[mb_id - sbm.first_mb_id]
    sbm.mb_states[mb_id - sbm.first_mb_id] = state
    bug.BUG_ON(k.log, sbm.mb_count[old_state] == 0)
    sbm.mb_count[old_state] -= 1
    sbm.mb_count[state] += 1


def virtio_mem_sbm_get_mb_state(vm: VirtioMem, mb_id: int) -> int:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_get_mb_state()"""
    return vm.sbm.mb_states[mb_id - vm.sbm.first_mb_id]


def virtio_mem_sbm_mb_states_prepare_next_mb(vm: VirtioMem) -> None:
    """Make room for one more block's state. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_mb_states_prepare_next_mb()"""
    vm.sbm.mb_states.append(VIRTIO_MEM_SBM_MB_UNUSED)


def virtio_mem_sbm_for_each_mb(vm: VirtioMem, state: int) -> Iterator[int]:
    """
    Yield the memory blocks in a state, lowest first, as they are when their turn comes.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_for_each_mb()
    """
    sbm = vm.sbm
    idx = 0
    while sbm.mb_count[state]:
        idx = sbm.mb_states.find(state, idx)
        if idx < 0:
            return
        yield sbm.first_mb_id + idx
        idx += 1


def virtio_mem_sbm_for_each_mb_rev(vm: VirtioMem, state: int) -> Iterator[int]:
    """As virtio_mem_sbm_for_each_mb(), highest first. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_for_each_mb_rev()"""
    sbm = vm.sbm
    idx = len(sbm.mb_states)
    while sbm.mb_count[state]:
        idx = sbm.mb_states.rfind(state, 0, idx)
        if idx < 0:
            return
        yield sbm.first_mb_id + idx


# The states of subblocks


def virtio_mem_sbm_set_sb_plugged(vm: VirtioMem, mb_id: int, sb_id: int, count: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_set_sb_plugged()"""
    vm.sbm.sb_states[mb_id - vm.sbm.first_mb_id] |= ((1 << count) - 1) << sb_id


def virtio_mem_sbm_set_sb_unplugged(vm: VirtioMem, mb_id: int, sb_id: int, count: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_set_sb_unplugged()"""
    vm.sbm.sb_states[mb_id - vm.sbm.first_mb_id] &= ~(((1 << count) - 1) << sb_id)


def virtio_mem_sbm_test_sb_plugged(vm: VirtioMem, mb_id: int, sb_id: int, count: int) -> bool:
    """Whether all of `count` subblocks are plugged. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_test_sb_plugged()"""
    mask = ((1 << count) - 1) << sb_id
    return vm.sbm.sb_states[mb_id - vm.sbm.first_mb_id] & mask == mask


def virtio_mem_sbm_test_sb_unplugged(vm: VirtioMem, mb_id: int, sb_id: int, count: int) -> bool:
    """Whether none of `count` subblocks is plugged. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_test_sb_unplugged()"""
    return not vm.sbm.sb_states[mb_id - vm.sbm.first_mb_id] & ((1 << count) - 1) << sb_id


def virtio_mem_sbm_first_unplugged_sb(vm: VirtioMem, mb_id: int) -> int:
    """
    Return the first unplugged subblock, `sbs_per_mb` if none is.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_first_unplugged_sb()
    """
    states = vm.sbm.sb_states[mb_id - vm.sbm.first_mb_id]
    return min(vm.sbm.sbs_per_mb, (~states & states + 1).bit_length() - 1)


def virtio_mem_sbm_sb_states_prepare_next_mb(vm: VirtioMem) -> None:
    """Make room for one more block's subblocks. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_sb_states_prepare_next_mb()"""
    vm.sbm.sb_states.append(0)


# Adding and removing


def virtio_mem_could_add_memory(k: Kernel, vm: VirtioMem, size: int) -> bool:
    """
    Whether `size` more bytes would not leave too much memory offline; before v5.11 whether one more block would not.

    Source: drivers/virtio/virtio_mem.c virtio_mem_could_add_memory(), virtio_mem_too_many_mb_offline() [v5.10]
    """
    if not k.tree.virtio_mem_big_blocks:
        return _nb_offline(vm) < VIRTIO_MEM_NB_OFFLINE_THRESHOLD
    if bug.WARN_ON_ONCE(k.log, size > vm.offline_threshold):
        return False
    return vm.offline_size + size <= vm.offline_threshold


def _nb_offline(vm: VirtioMem) -> int:
    """How many blocks are added and not online. Source: drivers/virtio/virtio_mem.c virtio_mem_notify_online() [v5.10]"""
    return vm.sbm.mb_count[VIRTIO_MEM_SBM_MB_OFFLINE] + vm.sbm.mb_count[VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL]


def virtio_mem_add_memory(k: Kernel, vm: VirtioMem, addr: int, size: int) -> None:
    """
    Add memory to Linux; it may go online at once.

    Context: hotplug_mutex not held.
    Raises:
        KernelError: what add_memory_driver_managed() says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_add_memory(), virtio_mem_mb_add() [v5.10]
    """
    nid, flags = (vm.mgid, MHP_MERGE_RESOURCE | MHP_NID_IS_MGID) if k.tree.memory_groups else (vm.nid, MHP_MERGE_RESOURCE)
    if nid == NUMA_NO_NODE:
        nid = k.arch.memory_add_physaddr_to_nid(k, addr)
    vm.offline_size += size
    try:
        memory_hotplug.add_memory_driver_managed(k, nid, addr, size, RESOURCE_NAME, flags)
    except KernelError as err:
        vm.offline_size -= size
        if k.tree.virtio_mem_big_blocks:
            _say(k, vm, f"adding memory failed: {-(err.errno or 0)}")
        else:
            _say(k, vm, f"adding memory block {virtio_mem_phys_to_mb_id(k, addr)} failed with {-(err.errno or 0)}")
        raise


def virtio_mem_sbm_add_mb(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_add_mb()"""
    virtio_mem_add_memory(k, vm, virtio_mem_mb_id_to_phys(k, mb_id), memory.memory_block_size_bytes(k))


def virtio_mem_bbm_add_bb(k: Kernel, vm: VirtioMem, bb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_add_bb()"""
    virtio_mem_add_memory(k, vm, virtio_mem_bb_id_to_phys(vm, bb_id), vm.bbm.bb_size)


def virtio_mem_remove_memory(k: Kernel, vm: VirtioMem, addr: int, size: int) -> None:
    """
    Remove offline memory from Linux.

    Context: hotplug_mutex not held.
    Raises:
        KernelError: what remove_memory() says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_remove_memory()
    """
    memory_hotplug.remove_memory(k, addr, size, vm.nid)
    vm.offline_size -= size
    if k.tree.virtio_mem_big_blocks:
        virtio_mem_retry(k, vm)


def virtio_mem_sbm_remove_mb(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_remove_mb()"""
    virtio_mem_remove_memory(k, vm, virtio_mem_mb_id_to_phys(k, mb_id), memory.memory_block_size_bytes(k))


def virtio_mem_offline_and_remove_memory(k: Kernel, vm: VirtioMem, addr: int, size: int) -> None:
    """
    Take memory offline and remove it.

    Context: hotplug_mutex not held.
    Raises:
        KernelError: EBUSY or ENOMEM [v6.6]; whatever offline_and_remove_memory() says, before.

    Source: drivers/virtio/virtio_mem.c virtio_mem_offline_and_remove_memory()
    """
    try:
        memory_hotplug.offline_and_remove_memory(k, addr, size)
    except KernelError as err:
        if not k.tree.virtio_mem_retries_removal:
            raise
        bug.WARN_ON_ONCE(k.log, err.errno not in (ENOMEM, EBUSY))
        raise KernelError(ENOMEM if err.errno == ENOMEM else EBUSY, err.reason, start=addr, size=size) from err
    vm.offline_size -= size
    if k.tree.virtio_mem_big_blocks:
        virtio_mem_retry(k, vm)


def virtio_mem_sbm_offline_and_remove_mb(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_offline_and_remove_mb()"""
    virtio_mem_offline_and_remove_memory(k, vm, virtio_mem_mb_id_to_phys(k, mb_id), memory.memory_block_size_bytes(k))


def virtio_mem_sbm_try_remove_unplugged_mb(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """
    Remove a block, online or not, if none of its subblocks is plugged.

    Context: hotplug_mutex held; dropped meanwhile.
    Raises:
        KernelError: EBUSY, ENOMEM; in a tree before v6.6 whatever going offline says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_try_remove_unplugged_mb() [v6.6], the end of
        virtio_mem_mb_unplug_any_sb_online() before
    """
    if not virtio_mem_sbm_test_sb_unplugged(vm, mb_id, 0, vm.sbm.sbs_per_mb):
        return
    sched.mutex_unlock(vm.hotplug_mutex)
    try:
        virtio_mem_sbm_offline_and_remove_mb(k, vm, mb_id)
    finally:
        sched.mutex_lock(k.tasks, vm.hotplug_mutex)
    virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_UNUSED)


def virtio_mem_bbm_offline_and_remove_bb(k: Kernel, vm: VirtioMem, bb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_offline_and_remove_bb()"""
    virtio_mem_offline_and_remove_memory(k, vm, virtio_mem_bb_id_to_phys(vm, bb_id), vm.bbm.bb_size)


def virtio_mem_retry(k: Kernel, vm: VirtioMem) -> None:
    """Queue the work that does everything. Source: drivers/virtio/virtio_mem.c virtio_mem_retry()"""
    workqueue.queue_work(k, Work(virtio_mem_run_wq, vm.vdev.name))


def virtio_mem_translate_node_id(k: Kernel, node_id: int) -> int:
    """
    Return the node of a proximity domain; NUMA_NO_NODE without ACPI's NUMA tables.

    Source: drivers/virtio/virtio_mem.c virtio_mem_translate_node_id()
    """
    return srat.pxm_to_node(k, node_id) if k.config.NUMA else NUMA_NO_NODE


def virtio_mem_overlaps_range(vm: VirtioMem, start: int, size: int) -> bool:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_overlaps_range()"""
    return start < vm.addr + vm.region_size and vm.addr < start + size


def virtio_mem_contains_range(vm: VirtioMem, start: int, size: int) -> bool:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_contains_range()"""
    return start >= vm.addr and start + size <= vm.addr + vm.region_size


# What is heard of blocks that go online and offline


def virtio_mem_sbm_notify_going_online(k: Kernel, vm: VirtioMem, mb_id: int) -> int:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_notify_going_online()"""
    if virtio_mem_sbm_get_mb_state(vm, mb_id) in (VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL, VIRTIO_MEM_SBM_MB_OFFLINE):
        return NOTIFY_OK
    _say(k, vm, "memory block onlining denied")
    return NOTIFY_BAD


def virtio_mem_sbm_notify_offline(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_notify_offline()"""
    state = virtio_mem_sbm_get_mb_state(vm, mb_id)
    if state in (VIRTIO_MEM_SBM_MB_KERNEL_PARTIAL, VIRTIO_MEM_SBM_MB_MOVABLE_PARTIAL):
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL)
    elif state in (VIRTIO_MEM_SBM_MB_KERNEL, VIRTIO_MEM_SBM_MB_MOVABLE):
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_OFFLINE)
    else:
        bug.BUG_ON(k.log, True, f"memory block {mb_id} went offline from state {state}")


def virtio_mem_sbm_notify_online(k: Kernel, vm: VirtioMem, mb_id: int, start_pfn: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_notify_online()"""
    is_movable = k.tree.virtio_mem_knows_movable and mm.is_zone_movable_page(k, start_pfn)
    state = virtio_mem_sbm_get_mb_state(vm, mb_id)
    if state == VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL:
        new_state = VIRTIO_MEM_SBM_MB_MOVABLE_PARTIAL if is_movable else VIRTIO_MEM_SBM_MB_KERNEL_PARTIAL
    else:
        bug.BUG_ON(k.log, state != VIRTIO_MEM_SBM_MB_OFFLINE, f"memory block {mb_id} went online from state {state}")
        new_state = VIRTIO_MEM_SBM_MB_MOVABLE if is_movable else VIRTIO_MEM_SBM_MB_KERNEL
    virtio_mem_sbm_set_mb_state(k, vm, mb_id, new_state)


def _unplugged_runs(vm: VirtioMem, mb_id: int) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of each run of unplugged subblocks of a block. Source: none"""
    sb_id = 0
    while sb_id < vm.sbm.sbs_per_mb:
        count = 0
        while sb_id + count < vm.sbm.sbs_per_mb and not virtio_mem_sbm_test_sb_plugged(vm, mb_id, sb_id + count, 1):
            count += 1
        if count:
            yield sb_id, count
        sb_id += count + 1


def virtio_mem_sbm_notify_going_offline(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """
    Let go of the pages of a block's unplugged subblocks.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_notify_going_offline()
    """
    for sb_id, count in _unplugged_runs(vm, mb_id):
        pfn = virtio_mem_mb_id_to_phys(k, mb_id) + sb_id * vm.sbm.sb_size >> k.PAGE_SHIFT
        virtio_mem_fake_offline_going_offline(k, pfn, count * vm.sbm.sb_size >> k.PAGE_SHIFT)


def virtio_mem_sbm_notify_cancel_offline(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_notify_cancel_offline()"""
    for sb_id, count in _unplugged_runs(vm, mb_id):
        pfn = virtio_mem_mb_id_to_phys(k, mb_id) + sb_id * vm.sbm.sb_size >> k.PAGE_SHIFT
        virtio_mem_fake_offline_cancel_offline(k, pfn, count * vm.sbm.sb_size >> k.PAGE_SHIFT)


def virtio_mem_bbm_notify_going_offline(k: Kernel, vm: VirtioMem, bb_id: int, pfn: int, nr_pages: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_notify_going_offline()"""
    if virtio_mem_bbm_get_bb_state(vm, bb_id) == VIRTIO_MEM_BBM_BB_FAKE_OFFLINE:
        virtio_mem_fake_offline_going_offline(k, pfn, nr_pages)


def virtio_mem_bbm_notify_cancel_offline(k: Kernel, vm: VirtioMem, bb_id: int, pfn: int, nr_pages: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_notify_cancel_offline()"""
    if virtio_mem_bbm_get_bb_state(vm, bb_id) == VIRTIO_MEM_BBM_BB_FAKE_OFFLINE:
        virtio_mem_fake_offline_cancel_offline(k, pfn, nr_pages)


def _notifier_of(name: str) -> NotifierCall:
    """Return the notifier of the device `name`, good for every fork of the kernel: memory_notifier. Source: none"""

    def virtio_mem_notifier(k: Kernel, action: int, arg: Any) -> int:
        return virtio_mem_memory_notifier_cb(k, k.virtio_mem[name], action, arg)

    return virtio_mem_notifier


def virtio_mem_memory_notifier_cb(k: Kernel, vm: VirtioMem, action: int, mhp: MemoryNotify) -> int:
    """
    Hear of a range that goes online or offline, and veto it if it may not.

    Source: drivers/virtio/virtio_mem.c virtio_mem_memory_notifier_cb()
    """
    start = mhp.start_pfn << k.PAGE_SHIFT
    size = mhp.nr_pages << k.PAGE_SHIFT
    rc = NOTIFY_OK
    if not virtio_mem_overlaps_range(vm, start, size):
        return NOTIFY_DONE
    if vm.in_sbm:
        id = virtio_mem_phys_to_mb_id(k, start)
        block_size = memory.memory_block_size_bytes(k)
        if bug.WARN_ON_ONCE(k.log, size != block_size or start % block_size):
            return NOTIFY_BAD
    else:
        id = virtio_mem_phys_to_bb_id(vm, start)
        if bug.WARN_ON_ONCE(k.log, id != virtio_mem_phys_to_bb_id(vm, start + size - 1)):
            return NOTIFY_BAD

    if action == MEM_GOING_OFFLINE:
        sched.mutex_lock(k.tasks, vm.hotplug_mutex)
        vm.hotplug_active = True
        if vm.in_sbm:
            virtio_mem_sbm_notify_going_offline(k, vm, id)
        else:
            virtio_mem_bbm_notify_going_offline(k, vm, id, mhp.start_pfn, mhp.nr_pages)
    elif action == MEM_GOING_ONLINE:
        sched.mutex_lock(k.tasks, vm.hotplug_mutex)
        vm.hotplug_active = True
        if vm.in_sbm:
            rc = virtio_mem_sbm_notify_going_online(k, vm, id)
    elif action == MEM_OFFLINE:
        if vm.in_sbm:
            virtio_mem_sbm_notify_offline(k, vm, id)
        vm.offline_size += size
        if not k.tree.virtio_mem_big_blocks:
            virtio_mem_retry(k, vm)
        vm.hotplug_active = False
        sched.mutex_unlock(vm.hotplug_mutex)
    elif action == MEM_ONLINE:
        if vm.in_sbm:
            virtio_mem_sbm_notify_online(k, vm, id, mhp.start_pfn)
        vm.offline_size -= size
        if not k.tree.virtio_mem_big_blocks:
            if _nb_offline(vm) == VIRTIO_MEM_NB_OFFLINE_THRESHOLD - 1:
                virtio_mem_retry(k, vm)
        elif not vm.wq_active and virtio_mem_could_add_memory(k, vm, vm.offline_threshold // 2):
            virtio_mem_retry(k, vm)
        vm.hotplug_active = False
        sched.mutex_unlock(vm.hotplug_mutex)
    elif action == MEM_CANCEL_OFFLINE and vm.hotplug_active:
        if vm.in_sbm:
            virtio_mem_sbm_notify_cancel_offline(k, vm, id)
        else:
            virtio_mem_bbm_notify_cancel_offline(k, vm, id, mhp.start_pfn, mhp.nr_pages)
        vm.hotplug_active = False
        sched.mutex_unlock(vm.hotplug_mutex)
    elif action == MEM_CANCEL_ONLINE and vm.hotplug_active:
        vm.hotplug_active = False
        sched.mutex_unlock(vm.hotplug_mutex)
    return rc


# Pages that are there and not to be used


def virtio_mem_set_fake_offline(k: Kernel, pfn: int, nr_pages: int, onlined: bool) -> None:
    """
    Make pages PageOffline; those that never went online are PageDirty, too, so that they are known again.

    Source: drivers/virtio/virtio_mem.c virtio_mem_set_fake_offline()
    """
    if onlined or not k.tree.hotplug_pages_offline:
        __SetPageOffline(k, pfn, nr_pages)
    if not onlined:
        SetPageDirty(k, pfn, nr_pages)
        if not k.tree.hotplug_pages_offline:
            ClearPageReserved(k, pfn, nr_pages)
    bug.WARN_ON_ONCE(k.log, pages_offline(k, pfn, nr_pages) != nr_pages)


def virtio_mem_clear_fake_offline(k: Kernel, pfn: int, nr_pages: int, onlined: bool) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_clear_fake_offline()"""
    if onlined or not k.tree.hotplug_pages_offline:
        __ClearPageOffline(k, pfn, nr_pages)
    if not onlined:
        ClearPageDirty(k, pfn, nr_pages)


def virtio_mem_fake_online(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Give a range of fake-offline pages to the page allocator.

    The first page of each piece tells how all of it came to be what it is.

    Source: drivers/virtio/virtio_mem.c virtio_mem_fake_online()
    """
    piece = 1 << (k.MAX_ORDER - 1)
    while (pfn | nr_pages) % piece:
        piece >>= 1
    for start in range(pfn, pfn + nr_pages, piece):
        if PageDirty(k, start):
            virtio_mem_clear_fake_offline(k, start, piece, False)
            memory_hotplug.generic_online_page(k, start, piece)
        else:
            virtio_mem_clear_fake_offline(k, start, piece, True)
            page_alloc.free_contig_range(k, start, piece)
            page_alloc.adjust_managed_page_count(k, start, piece)


def virtio_mem_fake_offline(k: Kernel, vm: VirtioMem, pfn: int, nr_pages: int) -> None:
    """
    Take a range away from whoever uses it, and keep it.

    In ZONE_MOVABLE it is tried up to five times.

    Raises:
        KernelError: EBUSY if a page stays in use; ENOMEM; EAGAIN if the device wants something else by now [v6.6].

    Source: drivers/virtio/virtio_mem.c virtio_mem_fake_offline()
    """
    is_movable = mm.is_zone_movable_page(k, pfn)
    cause: KernelError | None = None
    for _retry_count in range(5):
        if k.tree.virtio_mem_retries_removal and vm.config_changed:
            raise KernelError(EAGAIN, "the device asks for another size", pfn=pfn)
        try:
            page_alloc.alloc_contig_range(k, pfn, pfn + nr_pages, MIGRATE_MOVABLE)
        except KernelError as err:
            if err.errno == ENOMEM:
                raise
            cause = err
            if not is_movable:
                break
            continue
        virtio_mem_set_fake_offline(k, pfn, nr_pages, True)
        page_alloc.adjust_managed_page_count(k, pfn, -nr_pages)
        return
    assert cause is not None
    raise KernelError(EBUSY, cause.reason, pfn=cause.facts.get("pfn", pfn)) from cause


def virtio_mem_fake_offline_going_offline(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    Drop the driver's reference to pages, so that going offline passes them by.

    Source: drivers/virtio/virtio_mem.c virtio_mem_fake_offline_going_offline()
    """
    if not k.tree.hotplug_pages_offline:
        page_alloc.adjust_managed_page_count(k, pfn, nr_pages)
    bug.WARN_ON(k.log, not mm.page_ref_dec_and_test(k, pfn, nr_pages))


def virtio_mem_fake_offline_cancel_offline(k: Kernel, pfn: int, nr_pages: int) -> None:
    """Take the references again. Source: drivers/virtio/virtio_mem.c virtio_mem_fake_offline_cancel_offline()"""
    if not k.tree.hotplug_pages_offline:
        page_alloc.adjust_managed_page_count(k, pfn, -nr_pages)
    mm.page_ref_inc(k, pfn, nr_pages)


def virtio_mem_online_page(k: Kernel, vm: VirtioMem, pfn: int, nr_pages: int) -> None:
    """
    Give the plugged part of a range that goes online to the page allocator, and keep the rest.

    C is called with pages of an order and cuts them at subblocks once they are mixed; what comes of it is the same.

    Source: drivers/virtio/virtio_mem.c virtio_mem_online_page()
    """
    if not vm.in_sbm:
        id = virtio_mem_phys_to_bb_id(vm, pfn << k.PAGE_SHIFT)
        if virtio_mem_bbm_get_bb_state(vm, id) != VIRTIO_MEM_BBM_BB_FAKE_OFFLINE:
            memory_hotplug.generic_online_page(k, pfn, nr_pages)
        else:
            virtio_mem_set_fake_offline(k, pfn, nr_pages, False)
        return
    addr, end = pfn << k.PAGE_SHIFT, pfn + nr_pages << k.PAGE_SHIFT
    while addr < end:
        id = virtio_mem_phys_to_mb_id(k, addr)
        do_online = virtio_mem_sbm_test_sb_plugged(vm, id, virtio_mem_phys_to_sb_id(k, vm, addr), 1)
        next = addr - addr % vm.sbm.sb_size + vm.sbm.sb_size
        while next < end and virtio_mem_phys_to_mb_id(k, next) == id and do_online == virtio_mem_sbm_test_sb_plugged(
                vm, id, virtio_mem_phys_to_sb_id(k, vm, next), 1):
            next += vm.sbm.sb_size
        next = min(next, end)
        if do_online:
            memory_hotplug.generic_online_page(k, addr >> k.PAGE_SHIFT, next - addr >> k.PAGE_SHIFT)
        else:
            virtio_mem_set_fake_offline(k, addr >> k.PAGE_SHIFT, next - addr >> k.PAGE_SHIFT, False)
        addr = next


def virtio_mem_online_page_cb(k: Kernel, pfn: int, nr_pages: int) -> None:
    """
    What online_pages_range() calls: memory of one of the devices is looked at, other memory goes online as always.

    Source: drivers/virtio/virtio_mem.c virtio_mem_online_page_cb()
    """
    for vm in k.virtio_mem.values():
        if virtio_mem_contains_range(vm, pfn << k.PAGE_SHIFT, nr_pages << k.PAGE_SHIFT):
            virtio_mem_online_page(k, vm, pfn, nr_pages)
            return
    memory_hotplug.generic_online_page(k, pfn, nr_pages)


# Requests to the device


def virtio_mem_send_request(vm: VirtioMem, type: int, addr: int = 0, nb_blocks: int = 0) -> int:
    """Ask the device for something, and wait for its answer. Source: drivers/virtio/virtio_mem.c virtio_mem_send_request()"""
    return vm.vdev.request(type, addr, nb_blocks)


def virtio_mem_send_plug_request(vm: VirtioMem, addr: int, size: int) -> None:
    """
    Have device blocks plugged.

    Raises:
        KernelError: EAGAIN if the device wants something else by now; ETXTBSY if it cannot at the moment; EINVAL.

    Source: drivers/virtio/virtio_mem.c virtio_mem_send_plug_request()
    """
    if vm.config_changed:
        raise KernelError(EAGAIN, "the device asks for another size", start=addr, size=size)
    answer = virtio_mem_send_request(vm, VIRTIO_MEM_REQ_PLUG, addr, size // vm.device_block_size)
    if answer == VIRTIO_MEM_RESP_ACK:
        vm.plugged_size += size
        return
    errno = {VIRTIO_MEM_RESP_NACK: EAGAIN, VIRTIO_MEM_RESP_BUSY: ETXTBSY, VIRTIO_MEM_RESP_ERROR: EINVAL}.get(answer, ENOMEM)
    raise KernelError(errno, f"the device does not plug [{addr:#x}, +{size:#x})", start=addr, size=size)


def virtio_mem_send_unplug_request(vm: VirtioMem, addr: int, size: int) -> None:
    """
    Have device blocks unplugged.

    Raises:
        KernelError: as virtio_mem_send_plug_request().

    Source: drivers/virtio/virtio_mem.c virtio_mem_send_unplug_request()
    """
    if vm.config_changed:
        raise KernelError(EAGAIN, "the device asks for another size", start=addr, size=size)
    answer = virtio_mem_send_request(vm, VIRTIO_MEM_REQ_UNPLUG, addr, size // vm.device_block_size)
    if answer == VIRTIO_MEM_RESP_ACK:
        vm.plugged_size -= size
        return
    errno = {VIRTIO_MEM_RESP_BUSY: ETXTBSY, VIRTIO_MEM_RESP_ERROR: EINVAL}.get(answer, ENOMEM)
    raise KernelError(errno, f"the device does not unplug [{addr:#x}, +{size:#x})", start=addr, size=size)


def virtio_mem_send_unplug_all_request(vm: VirtioMem) -> None:
    """
    Have everything unplugged.

    Raises:
        KernelError: ETXTBSY if the device cannot at the moment; ENOMEM.

    Source: drivers/virtio/virtio_mem.c virtio_mem_send_unplug_all_request()
    """
    answer = virtio_mem_send_request(vm, VIRTIO_MEM_REQ_UNPLUG_ALL)
    if answer != VIRTIO_MEM_RESP_ACK:
        raise KernelError(ETXTBSY if answer == VIRTIO_MEM_RESP_BUSY else ENOMEM, "the device does not unplug everything")
    vm.unplug_all_required = False
    vm.plugged_size = 0
    vm.config_changed = True


def virtio_mem_sbm_plug_sb(k: Kernel, vm: VirtioMem, mb_id: int, sb_id: int, count: int) -> None:
    """Plug subblocks; the state of their block stays. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_plug_sb()"""
    addr = virtio_mem_mb_id_to_phys(k, mb_id) + sb_id * vm.sbm.sb_size
    virtio_mem_send_plug_request(vm, addr, count * vm.sbm.sb_size)
    virtio_mem_sbm_set_sb_plugged(vm, mb_id, sb_id, count)


def virtio_mem_sbm_unplug_sb(k: Kernel, vm: VirtioMem, mb_id: int, sb_id: int, count: int) -> None:
    """Unplug subblocks; the state of their block stays. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_sb()"""
    addr = virtio_mem_mb_id_to_phys(k, mb_id) + sb_id * vm.sbm.sb_size
    virtio_mem_send_unplug_request(vm, addr, count * vm.sbm.sb_size)
    virtio_mem_sbm_set_sb_unplugged(vm, mb_id, sb_id, count)


def virtio_mem_bbm_unplug_bb(vm: VirtioMem, bb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_unplug_bb()"""
    virtio_mem_send_unplug_request(vm, virtio_mem_bb_id_to_phys(vm, bb_id), vm.bbm.bb_size)


def virtio_mem_bbm_plug_bb(vm: VirtioMem, bb_id: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_plug_bb()"""
    virtio_mem_send_plug_request(vm, virtio_mem_bb_id_to_phys(vm, bb_id), vm.bbm.bb_size)


def virtio_mem_sbm_unplug_any_sb_raw(k: Kernel, vm: VirtioMem, mb_id: int, nb_sb: int) -> int:
    """
    Unplug up to `nb_sb` subblocks of a block that is offline or not added, highest first; returns how many are still wanted.

    Raises:
        KernelError: what the device says; some may be unplugged by then.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_any_sb_raw()
    """
    sb_id = vm.sbm.sbs_per_mb - 1
    while nb_sb:
        while sb_id >= 0 and virtio_mem_sbm_test_sb_unplugged(vm, mb_id, sb_id, 1):
            sb_id -= 1
        if sb_id < 0:
            break
        count = 1
        while count < nb_sb and sb_id > 0 and virtio_mem_sbm_test_sb_plugged(vm, mb_id, sb_id - 1, 1):
            count += 1
            sb_id -= 1
        virtio_mem_sbm_unplug_sb(k, vm, mb_id, sb_id, count)
        nb_sb -= count
        sb_id -= 1
    return nb_sb


def virtio_mem_sbm_unplug_mb(k: Kernel, vm: VirtioMem, mb_id: int) -> None:
    """Unplug every subblock of a block that is not added. Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_mb()"""
    virtio_mem_sbm_unplug_any_sb_raw(k, vm, mb_id, vm.sbm.sbs_per_mb)


# Growing


def virtio_mem_sbm_prepare_next_mb(vm: VirtioMem) -> int:
    """
    Take the next memory block of the device into account; returns its id.

    Raises:
        KernelError: ENOSPC if there is none.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_prepare_next_mb()
    """
    if vm.sbm.next_mb_id > vm.sbm.last_usable_mb_id:
        raise KernelError(ENOSPC, "the device has no further memory block")
    virtio_mem_sbm_mb_states_prepare_next_mb(vm)
    virtio_mem_sbm_sb_states_prepare_next_mb(vm)
    vm.sbm.mb_count[VIRTIO_MEM_SBM_MB_UNUSED] += 1
    vm.sbm.next_mb_id += 1
    return vm.sbm.next_mb_id - 1


def virtio_mem_sbm_plug_and_add_mb(k: Kernel, vm: VirtioMem, mb_id: int, nb_sb: int) -> int:
    """
    Plug up to `nb_sb` subblocks of an unused block and add it to Linux; returns how many are still wanted.

    Raises:
        KernelError: what the device says, or adding; the block is unused again then, or waits to be unplugged.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_plug_and_add_mb()
    """
    count = min(nb_sb, vm.sbm.sbs_per_mb)
    if bug.WARN_ON_ONCE(k.log, not count):
        raise KernelError(EINVAL, "no subblock is wanted")
    virtio_mem_sbm_plug_sb(k, vm, mb_id, 0, count)
    if count == vm.sbm.sbs_per_mb:
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_OFFLINE)
    else:
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL)
    try:
        virtio_mem_sbm_add_mb(k, vm, mb_id)
    except KernelError:
        new_state = VIRTIO_MEM_SBM_MB_UNUSED
        try:
            virtio_mem_sbm_unplug_sb(k, vm, mb_id, 0, count)
        except KernelError:
            new_state = VIRTIO_MEM_SBM_MB_PLUGGED
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, new_state)
        raise
    return nb_sb - count


def virtio_mem_sbm_plug_any_sb(k: Kernel, vm: VirtioMem, mb_id: int, nb_sb: int) -> int:
    """
    Plug up to `nb_sb` subblocks of a block that is added, lowest first; returns how many are still wanted.

    Raises:
        KernelError: what the device says; some may be plugged by then.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_plug_any_sb()
    """
    old_state = virtio_mem_sbm_get_mb_state(vm, mb_id)
    if bug.WARN_ON_ONCE(k.log, not nb_sb):
        raise KernelError(EINVAL, "no subblock is wanted")
    while nb_sb:
        sb_id = virtio_mem_sbm_first_unplugged_sb(vm, mb_id)
        if sb_id >= vm.sbm.sbs_per_mb:
            break
        count = 1
        while (
            count < nb_sb and sb_id + count < vm.sbm.sbs_per_mb
            and not virtio_mem_sbm_test_sb_plugged(vm, mb_id, sb_id + count, 1)
        ):
            count += 1
        virtio_mem_sbm_plug_sb(k, vm, mb_id, sb_id, count)
        nb_sb -= count
        if old_state == VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL:
            continue
        pfn = virtio_mem_mb_id_to_phys(k, mb_id) + sb_id * vm.sbm.sb_size >> k.PAGE_SHIFT
        virtio_mem_fake_online(k, pfn, count * vm.sbm.sb_size >> k.PAGE_SHIFT)
    if virtio_mem_sbm_test_sb_plugged(vm, mb_id, 0, vm.sbm.sbs_per_mb):
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, old_state - 1)
    return nb_sb


def virtio_mem_sbm_plug_request(k: Kernel, vm: VirtioMem, diff: int) -> None:
    """
    Plug `diff` bytes more; what is no whole subblock is left out.

    Raises:
        KernelError: ENOSPC if no block is left, or too much memory would be offline; what the device says, or adding.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_plug_request()
    """
    nb_sb = diff // vm.sbm.sb_size
    if not nb_sb:
        return
    sched.mutex_lock(k.tasks, vm.hotplug_mutex)
    try:
        for state in _SBM_PLUG_ORDER:
            for mb_id in virtio_mem_sbm_for_each_mb(vm, state):
                nb_sb = virtio_mem_sbm_plug_any_sb(k, vm, mb_id, nb_sb)
                if not nb_sb:
                    return
    finally:
        sched.mutex_unlock(vm.hotplug_mutex)

    block_size = memory.memory_block_size_bytes(k)
    for mb_id in virtio_mem_sbm_for_each_mb(vm, VIRTIO_MEM_SBM_MB_UNUSED):
        if not virtio_mem_could_add_memory(k, vm, block_size):
            raise KernelError(ENOSPC, _too_much_offline(k, vm))
        nb_sb = virtio_mem_sbm_plug_and_add_mb(k, vm, mb_id, nb_sb)
        if not nb_sb:
            return
    while nb_sb:
        if not virtio_mem_could_add_memory(k, vm, block_size):
            raise KernelError(ENOSPC, _too_much_offline(k, vm))
        mb_id = virtio_mem_sbm_prepare_next_mb(vm)
        nb_sb = virtio_mem_sbm_plug_and_add_mb(k, vm, mb_id, nb_sb)


def _too_much_offline(k: Kernel, vm: VirtioMem) -> str:
    """Why virtio_mem_could_add_memory() says no, in words. Source: none"""
    if not k.tree.virtio_mem_big_blocks:
        return f"{_nb_offline(vm)} blocks of the device are offline, and no more than that may be: bring blocks online"
    return f"{vm.offline_size:#x} bytes of the device are offline, and {vm.offline_threshold:#x} may be: bring blocks online"


def virtio_mem_bbm_plug_and_add_bb(k: Kernel, vm: VirtioMem, bb_id: int) -> None:
    """
    Plug a big block and add it to Linux.

    Raises:
        KernelError: what the device says, or adding.

    Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_plug_and_add_bb()
    """
    if bug.WARN_ON_ONCE(k.log, virtio_mem_bbm_get_bb_state(vm, bb_id) != VIRTIO_MEM_BBM_BB_UNUSED):
        raise KernelError(EINVAL, "the big block is in use")
    virtio_mem_bbm_plug_bb(vm, bb_id)
    virtio_mem_bbm_set_bb_state(k, vm, bb_id, VIRTIO_MEM_BBM_BB_ADDED)
    try:
        virtio_mem_bbm_add_bb(k, vm, bb_id)
    except KernelError:
        new_state = VIRTIO_MEM_BBM_BB_UNUSED
        try:
            virtio_mem_bbm_unplug_bb(vm, bb_id)
        except KernelError:
            new_state = VIRTIO_MEM_BBM_BB_PLUGGED
        virtio_mem_bbm_set_bb_state(k, vm, bb_id, new_state)
        raise


def virtio_mem_bbm_prepare_next_bb(vm: VirtioMem) -> int:
    """
    Take the next big block of the device into account; returns its id.

    Raises:
        KernelError: ENOSPC if there is none.

    Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_prepare_next_bb()
    """
    if vm.bbm.next_bb_id > vm.bbm.last_usable_bb_id:
        raise KernelError(ENOSPC, "the device has no further big block")
    virtio_mem_bbm_bb_states_prepare_next_bb(vm)
    vm.bbm.bb_count[VIRTIO_MEM_BBM_BB_UNUSED] += 1
    vm.bbm.next_bb_id += 1
    return vm.bbm.next_bb_id - 1


def virtio_mem_bbm_plug_request(k: Kernel, vm: VirtioMem, diff: int) -> None:
    """
    Plug `diff` bytes more; what is no whole big block is left out.

    Raises:
        KernelError: as virtio_mem_sbm_plug_request().

    Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_plug_request()
    """
    nb_bb = diff // vm.bbm.bb_size
    if not nb_bb:
        return
    for bb_id in virtio_mem_bbm_for_each_bb(vm, VIRTIO_MEM_BBM_BB_UNUSED):
        if not virtio_mem_could_add_memory(k, vm, vm.bbm.bb_size):
            raise KernelError(ENOSPC, _too_much_offline(k, vm))
        virtio_mem_bbm_plug_and_add_bb(k, vm, bb_id)
        nb_bb -= 1
        if not nb_bb:
            return
    while nb_bb:
        if not virtio_mem_could_add_memory(k, vm, vm.bbm.bb_size):
            raise KernelError(ENOSPC, _too_much_offline(k, vm))
        bb_id = virtio_mem_bbm_prepare_next_bb(vm)
        virtio_mem_bbm_plug_and_add_bb(k, vm, bb_id)
        nb_bb -= 1


def virtio_mem_plug_request(k: Kernel, vm: VirtioMem, diff: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_plug_request()"""
    if vm.in_sbm:
        virtio_mem_sbm_plug_request(k, vm, diff)
    else:
        virtio_mem_bbm_plug_request(k, vm, diff)


# Shrinking


def virtio_mem_sbm_unplug_any_sb_offline(k: Kernel, vm: VirtioMem, mb_id: int, nb_sb: int) -> int:
    """
    Unplug up to `nb_sb` subblocks of an offline block, and remove it if none is left; returns how many are still wanted.

    Context: hotplug_mutex held; dropped while the block is removed.
    Raises:
        KernelError: what the device says; some may be unplugged by then.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_any_sb_offline()
    """
    try:
        nb_sb = virtio_mem_sbm_unplug_any_sb_raw(k, vm, mb_id, nb_sb)
    finally:
        if not virtio_mem_sbm_test_sb_plugged(vm, mb_id, 0, vm.sbm.sbs_per_mb):
            virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL)
    if virtio_mem_sbm_test_sb_unplugged(vm, mb_id, 0, vm.sbm.sbs_per_mb):
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_UNUSED)
        sched.mutex_unlock(vm.hotplug_mutex)
        try:
            virtio_mem_sbm_remove_mb(k, vm, mb_id)
        except KernelError as err:
            bug.BUG_ON(k.log, True, f"an offline block cannot be removed: {err.reason}")
        sched.mutex_lock(k.tasks, vm.hotplug_mutex)
    return nb_sb


def virtio_mem_sbm_unplug_sb_online(k: Kernel, vm: VirtioMem, mb_id: int, sb_id: int, count: int) -> None:
    """
    Unplug subblocks of an online block.

    Raises:
        KernelError: EBUSY if a page stays in use; ENOMEM, EAGAIN; what the device says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_sb_online()
    """
    nr_pages = (vm.sbm.sb_size >> k.PAGE_SHIFT) * count
    old_state = virtio_mem_sbm_get_mb_state(vm, mb_id)
    start_pfn = virtio_mem_mb_id_to_phys(k, mb_id) + sb_id * vm.sbm.sb_size >> k.PAGE_SHIFT
    virtio_mem_fake_offline(k, vm, start_pfn, nr_pages)
    try:
        virtio_mem_sbm_unplug_sb(k, vm, mb_id, sb_id, count)
    except KernelError:
        virtio_mem_fake_online(k, start_pfn, nr_pages)
        raise
    if old_state == VIRTIO_MEM_SBM_MB_KERNEL:
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_KERNEL_PARTIAL)
    elif old_state == VIRTIO_MEM_SBM_MB_MOVABLE:
        virtio_mem_sbm_set_mb_state(k, vm, mb_id, VIRTIO_MEM_SBM_MB_MOVABLE_PARTIAL)


def virtio_mem_sbm_unplug_any_sb_online(k: Kernel, vm: VirtioMem, mb_id: int, nb_sb: int) -> int:
    """
    Unplug up to `nb_sb` subblocks of an online block, in one go or highest first, and remove it if none is left.

    Busy subblocks are left out.

    Context: hotplug_mutex held; dropped while the block is removed.
    Returns:
        How many are still wanted.
    Raises:
        KernelError: ENOMEM, EAGAIN; what the device says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_any_sb_online()
    """
    done = False
    if nb_sb >= vm.sbm.sbs_per_mb and virtio_mem_sbm_test_sb_plugged(vm, mb_id, 0, vm.sbm.sbs_per_mb):
        try:
            virtio_mem_sbm_unplug_sb_online(k, vm, mb_id, 0, vm.sbm.sbs_per_mb)
            nb_sb -= vm.sbm.sbs_per_mb
            done = True
        except KernelError as err:
            if err.errno != EBUSY:
                raise
    sb_id = vm.sbm.sbs_per_mb - 1
    while not done and sb_id >= 0 and nb_sb:
        while sb_id >= 0 and not virtio_mem_sbm_test_sb_plugged(vm, mb_id, sb_id, 1):
            sb_id -= 1
        if sb_id < 0:
            break
        try:
            virtio_mem_sbm_unplug_sb_online(k, vm, mb_id, sb_id, 1)
            nb_sb -= 1
        except KernelError as err:
            if err.errno != EBUSY:
                raise
            vm.stuck = vm.stuck or err
        sb_id -= 1
    try:
        virtio_mem_sbm_try_remove_unplugged_mb(k, vm, mb_id)
    except KernelError as err:
        vm.sbm.have_unplugged_mb = k.tree.virtio_mem_retries_removal
        vm.stuck = vm.stuck or err
    return nb_sb


def virtio_mem_sbm_unplug_any_sb(k: Kernel, vm: VirtioMem, mb_id: int, nb_sb: int) -> int:
    """
    Unplug up to `nb_sb` subblocks of a block that is added; returns how many are still wanted.

    Raises:
        KernelError: as the two it chooses from.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_any_sb()
    """
    old_state = virtio_mem_sbm_get_mb_state(vm, mb_id)
    if old_state in (VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL, VIRTIO_MEM_SBM_MB_OFFLINE):
        return virtio_mem_sbm_unplug_any_sb_offline(k, vm, mb_id, nb_sb)
    return virtio_mem_sbm_unplug_any_sb_online(k, vm, mb_id, nb_sb)


def virtio_mem_sbm_unplug_request(k: Kernel, vm: VirtioMem, diff: int) -> None:
    """
    Unplug `diff` bytes; what is no whole subblock is left out.

    Raises:
        KernelError: EBUSY if too many subblocks are in use; ENOMEM, EAGAIN; what the device says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_sbm_unplug_request()
    """
    nb_sb = diff // vm.sbm.sb_size
    if not nb_sb:
        return
    sched.mutex_lock(k.tasks, vm.hotplug_mutex)
    try:
        for state in _SBM_UNPLUG_ORDER:
            for mb_id in virtio_mem_sbm_for_each_mb_rev(vm, state):
                nb_sb = virtio_mem_sbm_unplug_any_sb(k, vm, mb_id, nb_sb)
                if not nb_sb:
                    return
    finally:
        sched.mutex_unlock(vm.hotplug_mutex)
    raise KernelError(EBUSY, f"{nb_sb} subblocks cannot be freed{_why(vm)}")


def _why(vm: VirtioMem) -> str:
    """Why something stuck, as the end of a message. Source: none"""
    if vm.stuck is None:
        return ""
    pfn = vm.stuck.facts.get("pfn")
    return f": {vm.stuck.reason}{f' (pfn {pfn:#x})' if isinstance(pfn, int) else ''}"


def virtio_mem_bbm_offline_remove_and_unplug_bb(k: Kernel, vm: VirtioMem, bb_id: int) -> None:
    """
    Take a big block away from whoever uses it, remove it, unplug it.

    Raises:
        KernelError: EBUSY if a page stays in use; ENOMEM, EAGAIN; what the device says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_offline_remove_and_unplug_bb(), with bbm_safe_unplug where that is a choice
    """
    start_pfn = virtio_mem_bb_id_to_phys(vm, bb_id) >> k.PAGE_SHIFT
    end_pfn = start_pfn + (vm.bbm.bb_size >> k.PAGE_SHIFT)
    if bug.WARN_ON_ONCE(k.log, virtio_mem_bbm_get_bb_state(vm, bb_id) != VIRTIO_MEM_BBM_BB_ADDED):
        raise KernelError(EINVAL, "the big block is not added")
    sched.mutex_lock(k.tasks, vm.hotplug_mutex)
    virtio_mem_bbm_set_bb_state(k, vm, bb_id, VIRTIO_MEM_BBM_BB_FAKE_OFFLINE)
    pfn = start_pfn
    try:
        for pfn in range(start_pfn, end_pfn, k.PAGES_PER_SECTION):
            if pfn_to_online_page(k, pfn) is not None:
                virtio_mem_fake_offline(k, vm, pfn, k.PAGES_PER_SECTION)
        pfn = end_pfn
        sched.mutex_unlock(vm.hotplug_mutex)
        virtio_mem_bbm_offline_and_remove_bb(k, vm, bb_id)
    except KernelError:
        sched.mutex_lock(k.tasks, vm.hotplug_mutex)
        for done in range(start_pfn, pfn, k.PAGES_PER_SECTION):
            if pfn_to_online_page(k, done) is not None:
                virtio_mem_fake_online(k, done, k.PAGES_PER_SECTION)
        virtio_mem_bbm_set_bb_state(k, vm, bb_id, VIRTIO_MEM_BBM_BB_ADDED)
        sched.mutex_unlock(vm.hotplug_mutex)
        raise
    try:
        virtio_mem_bbm_unplug_bb(vm, bb_id)
    except KernelError:
        virtio_mem_bbm_set_bb_state(k, vm, bb_id, VIRTIO_MEM_BBM_BB_PLUGGED)
        raise
    virtio_mem_bbm_set_bb_state(k, vm, bb_id, VIRTIO_MEM_BBM_BB_UNUSED)


def _bb_sections(k: Kernel, vm: VirtioMem, bb_id: int) -> range:
    """The first pfn of each section of a big block. Source: none"""
    start_pfn = virtio_mem_bb_id_to_phys(vm, bb_id) >> k.PAGE_SHIFT
    return range(start_pfn, start_pfn + (vm.bbm.bb_size >> k.PAGE_SHIFT), k.PAGES_PER_SECTION)


def virtio_mem_bbm_bb_is_offline(k: Kernel, vm: VirtioMem, bb_id: int) -> bool:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_bb_is_offline()"""
    return all(pfn_to_online_page(k, pfn) is None for pfn in _bb_sections(k, vm, bb_id))


def virtio_mem_bbm_bb_is_movable(k: Kernel, vm: VirtioMem, bb_id: int) -> bool:
    """Whether what is online of a big block is movable. Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_bb_is_movable()"""
    return all(
        pfn_to_online_page(k, pfn) is None or mm.page_zonenum(k, pfn) == k.ZONE_MOVABLE for pfn in _bb_sections(k, vm, bb_id))


def virtio_mem_bbm_unplug_request(k: Kernel, vm: VirtioMem, diff: int) -> None:
    """
    Unplug `diff` bytes; what is no whole big block is left out. Offline blocks go first, then movable ones, then all.

    Raises:
        KernelError: EBUSY if too many are in use; ENOMEM, EAGAIN; what the device says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_bbm_unplug_request()
    """
    nb_bb = diff // vm.bbm.bb_size
    if not nb_bb:
        return
    for i in range(3):
        for bb_id in virtio_mem_bbm_for_each_bb_rev(vm, VIRTIO_MEM_BBM_BB_ADDED):
            if i == 0 and not virtio_mem_bbm_bb_is_offline(k, vm, bb_id):
                continue
            if i == 1 and not virtio_mem_bbm_bb_is_movable(k, vm, bb_id):
                continue
            try:
                virtio_mem_bbm_offline_remove_and_unplug_bb(k, vm, bb_id)
            except KernelError as err:
                if err.errno != EBUSY:
                    raise
                vm.stuck = vm.stuck or err
                continue
            nb_bb -= 1
            if not nb_bb:
                return
    raise KernelError(EBUSY, f"{nb_bb} big blocks cannot be freed{_why(vm)}")


def virtio_mem_unplug_request(k: Kernel, vm: VirtioMem, diff: int) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_unplug_request()"""
    if vm.in_sbm:
        virtio_mem_sbm_unplug_request(k, vm, diff)
    else:
        virtio_mem_bbm_unplug_request(k, vm, diff)


# The work


def virtio_mem_cleanup_pending_mb(k: Kernel, vm: VirtioMem) -> None:
    """
    Unplug what could not be unplugged before; remove blocks without a plugged subblock that could not be removed [v6.6].

    Raises:
        KernelError: what the device says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_cleanup_pending_mb() [v6.6], virtio_mem_unplug_pending_mb() before
    """
    if not vm.in_sbm:
        for id in virtio_mem_bbm_for_each_bb(vm, VIRTIO_MEM_BBM_BB_PLUGGED):
            virtio_mem_bbm_unplug_bb(vm, id)
            virtio_mem_bbm_set_bb_state(k, vm, id, VIRTIO_MEM_BBM_BB_UNUSED)
        return
    for id in virtio_mem_sbm_for_each_mb(vm, VIRTIO_MEM_SBM_MB_PLUGGED):
        virtio_mem_sbm_unplug_mb(k, vm, id)
        virtio_mem_sbm_set_mb_state(k, vm, id, VIRTIO_MEM_SBM_MB_UNUSED)
    if not vm.sbm.have_unplugged_mb:
        return
    vm.sbm.have_unplugged_mb = False
    sched.mutex_lock(k.tasks, vm.hotplug_mutex)
    for state in (VIRTIO_MEM_SBM_MB_MOVABLE_PARTIAL, VIRTIO_MEM_SBM_MB_KERNEL_PARTIAL, VIRTIO_MEM_SBM_MB_OFFLINE_PARTIAL):
        for id in virtio_mem_sbm_for_each_mb(vm, state):
            try:
                virtio_mem_sbm_try_remove_unplugged_mb(k, vm, id)
            except KernelError as err:
                vm.sbm.have_unplugged_mb = True
                vm.stuck = vm.stuck or err
    sched.mutex_unlock(vm.hotplug_mutex)


def virtio_mem_refresh_config(k: Kernel, vm: VirtioMem) -> None:
    """
    Read what may have changed of the device's configuration.

    Source: drivers/virtio/virtio_mem.c virtio_mem_refresh_config()
    """
    pluggable_end = _pluggable_range(k)[1]
    new_plugged_size = vm.vdev.plugged_size
    if bug.WARN_ON_ONCE(k.log, new_plugged_size != vm.plugged_size):
        vm.plugged_size = new_plugged_size
    end_addr = min(vm.addr + vm.vdev.usable_region_size - 1, pluggable_end)
    if vm.in_sbm:
        vm.sbm.last_usable_mb_id = virtio_mem_phys_to_mb_id(k, end_addr)
        if (end_addr + 1) % memory.memory_block_size_bytes(k):
            vm.sbm.last_usable_mb_id -= 1
    else:
        vm.bbm.last_usable_bb_id = virtio_mem_phys_to_bb_id(vm, end_addr)
        if (end_addr + 1) % vm.bbm.bb_size:
            vm.bbm.last_usable_bb_id -= 1
    vm.requested_size = vm.vdev.requested_size
    _say(k, vm, f"plugged size: {vm.plugged_size:#x}")
    _say(k, vm, f"requested size: {vm.requested_size:#x}")


def _run_once(k: Kernel, vm: VirtioMem) -> None:
    """
    What virtio_mem_run_wq() does at its label `retry`.

    Raises:
        KernelError: whatever stopped it.

    Source: drivers/virtio/virtio_mem.c virtio_mem_run_wq()
    """
    failure: KernelError | None = None
    if vm.unplug_all_required:
        try:
            virtio_mem_send_unplug_all_request(vm)
        except KernelError as err:
            failure = err
    if vm.config_changed:
        vm.config_changed = False
        virtio_mem_refresh_config(k, vm)
    if failure is not None:
        raise failure
    virtio_mem_cleanup_pending_mb(k, vm)
    if vm.requested_size > vm.plugged_size:
        virtio_mem_plug_request(k, vm, vm.requested_size - vm.plugged_size)
    elif vm.requested_size < vm.plugged_size:
        virtio_mem_unplug_request(k, vm, vm.plugged_size - vm.requested_size)
    if vm.in_sbm and vm.sbm.have_unplugged_mb:
        raise KernelError(EBUSY, f"a block without plugged memory cannot be removed{_why(vm)}")


def virtio_mem_run_wq(k: Kernel, name: str) -> None:
    """
    Plug and unplug until the device has what it was asked for, or no more can be done for now.

    Source: drivers/virtio/virtio_mem.c virtio_mem_run_wq()
    """
    vm = k.virtio_mem[name]
    vm.retry_timer = False
    if vm.broken:
        return
    vm.wq_active = True
    while True:
        vm.stuck = None
        try:
            _run_once(k, vm)
        except KernelError as err:
            if err.errno == EAGAIN:
                continue
            vm.stuck = err
            if err.errno in (ETXTBSY, EBUSY, ENOMEM):
                vm.retry_timer = True
            elif err.errno != ENOSPC:
                _say(k, vm, f"unknown error, marking device broken: {-(err.errno or 0)}")
                vm.broken = True
        else:
            vm.stuck = None
            vm.retry_timer_ms = VIRTIO_MEM_RETRY_TIMER_MIN_MS
        break
    vm.wq_active = False


def virtio_mem_timer_expired(k: Kernel, vm: VirtioMem) -> None:
    """Try again; the next time comes later. Source: drivers/virtio/virtio_mem.c virtio_mem_timer_expired()"""
    vm.retry_timer = False
    virtio_mem_retry(k, vm)
    vm.retry_timer_ms = min(vm.retry_timer_ms * 2, VIRTIO_MEM_RETRY_TIMER_MAX_MS)


# The driver meets the device


def _pluggable_range(k: Kernel) -> tuple[int, int]:
    """The first and last byte that memory may have; v5.10 only knows of an end. Source: virtio_mem_init_hotplug()"""
    if not k.tree.checks_mappable_range:
        return 0, (1 << k.MAX_PHYSMEM_BITS) - 1
    return memory_hotplug.mhp_get_pluggable_range(k, True)


def virtio_mem_init_hotplug(k: Kernel, vm: VirtioMem) -> None:
    """
    Choose the mode, reserve the device's addresses, listen.

    Raises:
        KernelError: EBUSY if somebody has part of the region; EINVAL for a node that cannot be.

    Source: drivers/virtio/virtio_mem.c virtio_mem_init_hotplug() [v6.1]; virtio_mem_init(), virtio_mem_probe() [v5.10]
    """
    pluggable_start, pluggable_end = _pluggable_range(k)
    block_size = memory.memory_block_size_bytes(k)
    if vm.addr % block_size:
        _say(k, vm, "The alignment of the physical start address can make some memory unusable.")
    if (vm.addr + vm.region_size) % block_size:
        _say(k, vm, "The alignment of the physical end address can make some memory unusable.")
    if vm.addr < pluggable_start or vm.addr + vm.region_size - 1 > pluggable_end:
        what = "device memory is not addressable/pluggable" if k.tree.checks_mappable_range else "memory is not addressable"
        _say(k, vm, f"Some {what}. This can make some memory unusable.")
    vm.offline_threshold = max(2 * block_size, VIRTIO_MEM_DEFAULT_OFFLINE_THRESHOLD)

    pages = k.pageblock_nr_pages if k.tree.virtio_mem_pageblocks else max(k.pageblock_nr_pages, 1 << k.MAX_ORDER - 1)
    sb_size = max(vm.device_block_size, k.PAGE_SIZE * pages)
    if sb_size < block_size or not k.tree.virtio_mem_big_blocks:
        vm.in_sbm = True
        addr = max(vm.addr, pluggable_start) + block_size - 1
        vm.sbm = Sbm(virtio_mem_phys_to_mb_id(k, addr), sb_size, block_size // sb_size)
    else:
        vm.bbm.bb_size = max(vm.device_block_size, block_size)
        addr = max(vm.addr, pluggable_start) + vm.bbm.bb_size - 1
        vm.bbm = Bbm(virtio_mem_phys_to_bb_id(vm, addr), vm.bbm.bb_size)
        vm.offline_threshold = max(2 * vm.bbm.bb_size, vm.offline_threshold)
    if not k.tree.virtio_mem_big_blocks:
        _say_what_it_is(k, vm)
    _say(k, vm, f"memory block size: {block_size:#x}")
    if vm.in_sbm:
        _say(k, vm, f"subblock size: {vm.sbm.sb_size:#x}")
    else:
        _say(k, vm, f"big block size: {vm.bbm.bb_size:#x}")
    if not k.tree.virtio_mem_big_blocks and vm.nid != NUMA_NO_NODE:
        _say(k, vm, f"nid: {vm.nid}")

    virtio_mem_create_resource(k, vm)
    unit_pages = (block_size if vm.in_sbm else vm.bbm.bb_size) >> k.PAGE_SHIFT
    try:
        if k.tree.memory_groups:
            vm.mgid = memory.memory_group_register_dynamic(k, vm.nid, unit_pages)
        if vm.plugged_size:
            vm.unplug_all_required = True
            _say(k, vm, "unplugging all memory is required")
        notifier = NotifierBlock(_notifier_of(vm.vdev.name))
        memory.register_memory_notifier(k, notifier)
        try:
            register_virtio_mem_device(k, vm)
        except KernelError:
            memory.unregister_memory_notifier(k, notifier)
            if k.tree.memory_groups:
                memory.memory_group_unregister(k, vm.mgid)
            raise
    except KernelError:
        virtio_mem_delete_resource(k, vm)
        raise


def virtio_mem_init(k: Kernel, vm: VirtioMem) -> None:
    """
    Read what cannot change of the device's configuration.

    Raises:
        KernelError: what virtio_mem_init_hotplug() says; EINVAL for a device block larger than a memory block, before v5.11.

    Source: drivers/virtio/virtio_mem.c virtio_mem_init()
    """
    vdev = vm.vdev
    vm.plugged_size = vdev.plugged_size
    vm.device_block_size = vdev.block_size
    vm.nid = virtio_mem_translate_node_id(k, vdev.node)
    vm.addr = vdev.addr
    vm.region_size = vdev.region_size
    if not k.tree.virtio_mem_big_blocks:
        if vm.device_block_size > memory.memory_block_size_bytes(k):
            _say(k, vm, "The block size is not supported (too big).")
            raise KernelError(EINVAL, "the device has blocks larger than a memory block", size=vm.device_block_size)
        virtio_mem_init_hotplug(k, vm)
        return
    if vm.nid == NUMA_NO_NODE:
        vm.nid = k.arch.memory_add_physaddr_to_nid(k, vm.addr)
    _say_what_it_is(k, vm)
    if vm.nid != NUMA_NO_NODE and k.config.NUMA:
        _say(k, vm, f"nid: {vm.nid}")
    virtio_mem_init_hotplug(k, vm)


def _say_what_it_is(k: Kernel, vm: VirtioMem) -> None:
    """The lines about the device's configuration. Source: drivers/virtio/virtio_mem.c virtio_mem_init()"""
    _say(k, vm, f"start address: {vm.addr:#x}")
    _say(k, vm, f"region size: {vm.region_size:#x}")
    _say(k, vm, f"device block size: {vm.device_block_size:#x}")


def virtio_mem_create_resource(k: Kernel, vm: VirtioMem) -> None:
    """
    Enter the device's region into /proc/iomem; what is added later comes below it.

    Raises:
        KernelError: EBUSY if somebody has part of it.

    Source: drivers/virtio/virtio_mem.c virtio_mem_create_resource()
    """
    try:
        res = resource.__request_region(
            k, k.iomem_resource, vm.addr, vm.region_size, vm.vdev.name, IORESOURCE_SYSTEM_RAM | IORESOURCE_EXCLUSIVE)
    except KernelError as err:
        _say(k, vm, "could not reserve device region")
        _say(k, vm, "reloading the driver is not supported")
        raise KernelError(EBUSY, err.reason, start=vm.addr, size=vm.region_size) from err
    res.flags &= ~IORESOURCE_BUSY


def virtio_mem_delete_resource(k: Kernel, vm: VirtioMem) -> None:
    """Source: drivers/virtio/virtio_mem.c virtio_mem_delete_resource()"""
    for res in k.iomem_resource.child:
        if (res.start, res.name) == (vm.addr, vm.vdev.name):
            resource.release_resource(k, res)
            return


def virtio_mem_probe(k: Kernel, vdev: VirtioMemDevice) -> None:
    """
    Bind the driver to a device.

    Raises:
        KernelError: what virtio_mem_init() says.

    Source: drivers/virtio/virtio_mem.c virtio_mem_probe()
    """
    vm = VirtioMem(vdev)
    virtio_mem_init(k, vm)
    vm.config_changed = True
    workqueue.queue_work(k, Work(virtio_mem_run_wq, vm.vdev.name))


def virtio_mem_config_changed(k: Kernel, vm: VirtioMem) -> None:
    """The device asks for another size. Source: drivers/virtio/virtio_mem.c virtio_mem_config_changed()"""
    vm.config_changed = True
    virtio_mem_retry(k, vm)
