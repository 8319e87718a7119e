# SPDX-License-Identifier: GPL-2.0-only
"""
Memory blocks and their files in sysfs.

The parts. A memory block is the unit that user space switches on and off: `sections_per_block` sections. Its `state` file goes
through the driver core (device_online()), which keeps a flag of its own (`dev.offline`); automatic onlining bypasses it, so
that after it a write of "online" still succeeds where otherwise it gives EINVAL.

Locks: device_hotplug_lock around writes to `state`, then mem_hotplug.lock; mem_sysfs_mutex around registration.

Source: drivers/base/memory.c [v4.9].
"""

from __future__ import annotations

import re
from errno import EBUSY, EINVAL, ENXIO, ERANGE
from typing import TYPE_CHECKING

from memhp.errors import KernelError, UsageError
from memhp.linux import bug, sched
from memhp.linux.drivers.base import core, node
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory import MEM_OFFLINE, MEM_ONLINE, STATE_NAMES, MemoryBlock, MemoryNotify
from memhp.linux.include.memory_hotplug import MMOP_OFFLINE, MMOP_ONLINE_KEEP, MMOP_ONLINE_KERNEL, MMOP_ONLINE_MOVABLE
from memhp.linux.include.notifier import NotifierBlock
from memhp.linux.include.page_flags import first_not_reserved
from memhp.linux.kernel import notifier
from memhp.linux.mm import memory_failure, memory_hotplug

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

_ONLINE_TYPES = {
    "online_kernel": MMOP_ONLINE_KERNEL,
    "online_movable": MMOP_ONLINE_MOVABLE,
    "online": MMOP_ONLINE_KEEP,
    "offline": MMOP_OFFLINE,
}


def base_memory_block_id(k: Kernel, section_nr: int) -> int:
    """Source: drivers/base/memory.c base_memory_block_id()"""
    return section_nr // k.sections_per_block


def get_memory_block_size(k: Kernel) -> int:
    """
    Return the size of a memory block in bytes: a power of two, at least a section.

    Source: drivers/base/memory.c get_memory_block_size()
    """
    block_sz = k.arch.memory_block_size_bytes(k)
    smallest = 1 << k.SECTION_SIZE_BITS
    if bug.WARN_ON(k.log, block_sz & (block_sz - 1) or block_sz < smallest):
        return smallest
    return block_sz


def register_memory_notifier(k: Kernel, nb: NotifierBlock) -> None:
    """Let somebody hear of, and veto, changes of memory. Source: drivers/base/memory.c register_memory_notifier()"""
    k.memory_chain = notifier.blocking_notifier_chain_register(k.memory_chain, nb)


def unregister_memory_notifier(k: Kernel, nb: NotifierBlock) -> None:
    """Source: drivers/base/memory.c unregister_memory_notifier()"""
    k.memory_chain = notifier.blocking_notifier_chain_unregister(k.memory_chain, nb)


def memory_notify(k: Kernel, val: int, v: MemoryNotify) -> int:
    """Source: drivers/base/memory.c memory_notify()"""
    return notifier.blocking_notifier_call_chain(k, k.memory_chain, val, v)


# Going online


def pages_correctly_reserved(k: Kernel, start_pfn: int) -> bool:
    """
    Whether every page of a block is still reserved, as adding left it.

    Source: drivers/base/memory.c pages_correctly_reserved() [v4.9]
    """
    pfn = start_pfn
    for _ in range(k.sections_per_block):
        if bug.WARN_ON_ONCE(k.log, not mmzone.pfn_valid(k, pfn)):
            return False
        first = first_not_reserved(k, pfn, k.PAGES_PER_SECTION)
        if first >= 0:
            bug.printk(
                k.log,
                f"section number {mmzone.pfn_to_section_nr(k, pfn)} page number {first - pfn} not reserved, "
                "was it already online?")
            return False
        pfn += k.PAGES_PER_SECTION
    return True


def memory_block_action(k: Kernel, phys_index: int, action: int, online_type: int) -> None:
    """
    Do what a change of state asks for.

    Args:
        phys_index: First section of the block.
        action: MEM_ONLINE.

    Raises:
        KernelError: EBUSY if a page is not reserved; what online_pages() says.

    Source: drivers/base/memory.c memory_block_action() [v4.9]
    """
    start_pfn = mmzone.section_nr_to_pfn(k, phys_index)
    nr_pages = k.PAGES_PER_SECTION * k.sections_per_block
    if action == MEM_ONLINE:
        if not pages_correctly_reserved(k, start_pfn):
            raise KernelError(
                EBUSY, _why_not_reserved(k, start_pfn), where="pages_correctly_reserved", source=__file__, pfn=start_pfn)
        memory_hotplug.online_pages(k, start_pfn, nr_pages, online_type)
        return
    bug.WARN_ON(k.log, True)
    raise KernelError(EINVAL, f"unknown action {action}", section=phys_index)


def _why_not_reserved(k: Kernel, start_pfn: int) -> str:
    """The reason of pages_correctly_reserved() in words. Source: none"""
    pfn = start_pfn
    for _ in range(k.sections_per_block):
        if not mmzone.pfn_valid(k, pfn):
            return f"pfn_valid({pfn:#x}) is false, so section {mmzone.pfn_to_section_nr(k, pfn)} counts as absent"
        first = first_not_reserved(k, pfn, k.PAGES_PER_SECTION)
        if first >= 0:
            return (
                f"page {first:#x} (section {mmzone.pfn_to_section_nr(k, pfn)}, page {first - pfn}) does not have PG_reserved, "
                "so it is taken for online already")
        pfn += k.PAGES_PER_SECTION
    return "every page is reserved"


def memory_block_change_state(k: Kernel, mem: MemoryBlock, to_state: int, from_state_req: int) -> None:
    """
    Move a block from one state to another, or leave it where it was.

    Raises:
        KernelError: EINVAL if it is not in `from_state_req`; what the action says.

    Source: drivers/base/memory.c memory_block_change_state() [v4.9]
    """
    if mem.state != from_state_req:
        raise KernelError(EINVAL, f"memory{mem.dev_id} is {STATE_NAMES[mem.state]}", block=mem.dev_id)
    try:
        memory_block_action(k, mem.start_section_nr, to_state, mem.online_type)
    except KernelError:
        mem.state = from_state_req
        raise
    mem.state = to_state


def memory_subsys_online(k: Kernel, mem: MemoryBlock) -> None:
    """
    The bus's online callback.

    Context: mem_hotplug lock held for writing.
    Source: drivers/base/memory.c memory_subsys_online() [v4.9]
    """
    if mem.state == MEM_ONLINE:
        return
    if mem.online_type < 0:
        mem.online_type = MMOP_ONLINE_KEEP
    try:
        memory_block_change_state(k, mem, MEM_ONLINE, MEM_OFFLINE)
    except KernelError:
        mem.online_type = -1
        raise
    mem.online_type = -1


# Files of a block


def show_mem_start_phys_index(k: Kernel, mem: MemoryBlock) -> str:
    """Source: drivers/base/memory.c show_mem_start_phys_index()"""
    return f"{mem.start_section_nr // k.sections_per_block:08x}\n"


def show_mem_removable(k: Kernel, mem: MemoryBlock) -> str:
    """Source: drivers/base/memory.c show_mem_removable() [v4.9]"""
    for nr in range(mem.start_section_nr, mem.start_section_nr + k.sections_per_block):
        if not mmzone.present_section_nr(k, nr):
            continue
        if not memory_hotplug.is_mem_section_removable(k, mmzone.section_nr_to_pfn(k, nr), k.PAGES_PER_SECTION):
            return "0\n"
    return "1\n"


def show_mem_state(k: Kernel, mem: MemoryBlock) -> str:
    """Source: drivers/base/memory.c show_mem_state()"""
    return f"{STATE_NAMES[mem.state]}\n"


def show_phys_device(k: Kernel, mem: MemoryBlock) -> str:
    """Source: drivers/base/memory.c show_phys_device()"""
    return f"{mem.phys_device}\n"


def show_valid_zones(k: Kernel, mem: MemoryBlock) -> str:
    """
    The zone a block is in, and those it could be shifted to.

    Source: drivers/base/memory.c show_valid_zones() [v4.9]
    """
    start_pfn = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    nr_pages = k.PAGES_PER_SECTION * k.sections_per_block
    if not memory_hotplug.test_pages_in_a_zone(k, start_pfn, start_pfn + nr_pages):
        return "none\n"
    zone = mm.page_zone(k, start_pfn)
    names = [zone.name]
    for target in (k.ZONE_NORMAL, k.ZONE_MOVABLE):
        zone_shift = memory_hotplug.zone_can_shift(k, start_pfn, nr_pages, target)
        if zone_shift:
            names.append(k.zone(zone.nid, zone.idx + zone_shift).name)
    return " ".join(names) + "\n"


def show_online(k: Kernel, mem: MemoryBlock) -> str:
    """Source: drivers/base/core.c online_show()"""
    return f"{0 if mem.dev_offline else 1}\n"


def _word(buf: str) -> str:
    """What sysfs_streq() compares: up to the first NUL, one newline at the end does not count. Source: lib/string.c"""
    return buf.split("\0", 1)[0].removesuffix("\n")


def store_mem_state(k: Kernel, mem: MemoryBlock, buf: str) -> None:
    """
    A write to `state`.

    Raises:
        KernelError: EINVAL for another word than online, online_kernel, online_movable or offline, or if the block is in that
            state already; what going online says.
        KernelHangError: a lock is held by a task that died.

    Source: drivers/base/memory.c store_mem_state() [v4.9]
    """
    core.lock_device_hotplug_sysfs(k)
    online_type = _ONLINE_TYPES.get(_word(buf))
    if online_type is None:
        core.unlock_device_hotplug(k)
        raise KernelError(
            EINVAL, f"{buf.strip()!r} is no state: online, online_kernel, online_movable or offline", block=mem.dev_id)
    memory_hotplug.mem_hotplug_begin(k)
    try:
        if online_type == MMOP_OFFLINE:
            ret = _device_offline(k, mem)
        else:
            mem.online_type = online_type
            ret = core.device_online(k, mem)
    except (KernelError, UsageError):
        memory_hotplug.mem_hotplug_done(k)
        core.unlock_device_hotplug(k)
        raise
    memory_hotplug.mem_hotplug_done(k)
    core.unlock_device_hotplug(k)
    if ret:
        raise KernelError(EINVAL, f"memory{mem.dev_id} is {STATE_NAMES[mem.state]} already", block=mem.dev_id)


def _device_offline(k: Kernel, mem: MemoryBlock) -> int:
    """
    The tests device_offline() makes before it takes a block offline; taking one offline is not modelled yet.

    Source: drivers/base/core.c device_offline(), drivers/base/memory.c memory_subsys_offline()
    """
    if mem.dev_offline:
        return 1
    raise UsageError(f"memory{mem.dev_id} is online, and taking a block offline is not modelled yet; nothing was changed")


def store_online(k: Kernel, mem: MemoryBlock, buf: str) -> None:
    """
    A write to `online`: 1, y, on; 0, n, off.

    Raises:
        KernelError: EINVAL for another word; what going online says. Unlike `state`, a block that is online already is no error.

    Source: drivers/base/core.c online_store() [v4.9]
    """
    word = buf.lstrip("\0")[:2].lower()
    if word[:1] in ("1", "y") or word == "on":
        wanted = True
    elif word[:1] in ("0", "n") or word == "of":
        wanted = False
    else:
        raise KernelError(EINVAL, f"{buf.strip()!r} is neither 0 nor 1", block=mem.dev_id)
    core.lock_device_hotplug_sysfs(k)
    try:
        if wanted:
            core.device_online(k, mem)
        else:
            _device_offline(k, mem)
    except (KernelError, UsageError):
        core.unlock_device_hotplug(k)
        raise
    core.unlock_device_hotplug(k)


# Files of the bus


def print_block_size(k: Kernel) -> str:
    """Source: drivers/base/memory.c print_block_size()"""
    return f"{get_memory_block_size(k):x}\n"


def show_auto_online_blocks(k: Kernel) -> str:
    """Source: drivers/base/memory.c show_auto_online_blocks()"""
    return "online\n" if k.memhp_auto_online else "offline\n"


def store_auto_online_blocks(k: Kernel, buf: str) -> None:
    """
    A write to `auto_online_blocks`.

    Raises:
        KernelError: EINVAL for another word than online or offline.

    Source: drivers/base/memory.c store_auto_online_blocks() [v4.9]
    """
    if _word(buf) == "online":
        k.memhp_auto_online = True
    elif _word(buf) == "offline":
        k.memhp_auto_online = False
    else:
        raise KernelError(EINVAL, f"{buf.strip()!r} is neither online nor offline")


def kstrtoull(buf: str) -> int:
    """
    Parse an unsigned number with the prefix of its base (0x, 0), as a write to sysfs may give it.

    Raises:
        KernelError: EINVAL if it is no number; ERANGE if it needs more than 64 bits.

    Source: lib/kstrtox.c kstrtoull() with base 0
    """
    text = buf.split("\0", 1)[0]
    match = re.match(r"\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text)
    if match is None:
        raise KernelError(EINVAL, f"{text.strip()!r} is not a number")
    digits = match[1]
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") else 10
    value = int(digits, base)
    if value >= 1 << 64:
        raise KernelError(ERANGE, f"{digits} needs more than 64 bits")
    if text[match.end() :] not in ("", "\n"):
        raise KernelError(EINVAL, f"{text.strip()!r} is not a number")
    return value


def memory_probe_store(k: Kernel, buf: str) -> None:
    """
    A write to `probe`: add the memory block that begins at an address.

    Raises:
        KernelError: EINVAL or ERANGE for the number; EINVAL if it is not block aligned; what add_memory() says.

    Source: drivers/base/memory.c memory_probe_store() [v4.9]
    """
    phys_addr = kstrtoull(buf)
    block = k.sections_per_block << k.SECTION_SIZE_BITS
    if phys_addr & (block - 1):
        raise KernelError(
            EINVAL, f"{phys_addr:#x} is not a multiple of the memory block size {block:#x}; the next that is: "
            f"{-(-phys_addr // block) * block:#x}", address=phys_addr)
    nid = k.arch.memory_add_physaddr_to_nid(k, phys_addr)
    memory_hotplug.add_memory(k, nid, phys_addr, block)


def store_soft_offline_page(k: Kernel, buf: str) -> None:
    """
    A write to `soft_offline_page`: the physical address of a page that is better not used.

    Raises:
        KernelError: EINVAL or ERANGE for the number; ENXIO for what pfn_valid() denies; what soft_offline_page() says.

    Source: drivers/base/memory.c store_soft_offline_page() [v4.9]
    """
    pfn = kstrtoull(buf) >> k.PAGE_SHIFT
    if not mmzone.pfn_valid(k, pfn):
        raise KernelError(ENXIO, "pfn_valid() is false", pfn=pfn)
    memory_failure.soft_offline_page(k, pfn)


def store_hard_offline_page(k: Kernel, buf: str) -> None:
    """
    A write to `hard_offline_page`: the physical address of a page that has failed.

    Raises:
        KernelError: EINVAL or ERANGE for the number; what memory_failure() says.

    Source: drivers/base/memory.c store_hard_offline_page() [v4.9]
    """
    memory_failure.memory_failure(k, kstrtoull(buf) >> k.PAGE_SHIFT)


# Making blocks


def find_memory_block(k: Kernel, section_nr: int) -> MemoryBlock | None:
    """Return the block of a section for editing, or None. Source: drivers/base/memory.c find_memory_block()"""
    block_id = base_memory_block_id(k, section_nr)
    return k.block_rw(block_id) if block_id in k.memory_blocks else None


def register_memory(k: Kernel, memory: MemoryBlock) -> None:
    """Make the device of a block. Source: drivers/base/memory.c register_memory()"""
    memory.dev_offline = memory.state == MEM_OFFLINE
    k.blocks_rw()[memory.dev_id] = memory


def init_memory_block(k: Kernel, section_nr: int, state: int) -> MemoryBlock:
    """Source: drivers/base/memory.c init_memory_block() [v4.9]"""
    block_id = base_memory_block_id(k, section_nr)
    start = block_id * k.sections_per_block
    mem = MemoryBlock(start, start + k.sections_per_block - 1, state, block_id, k.token)
    register_memory(k, mem)
    return mem


def add_memory_block(k: Kernel, base_section_nr: int) -> None:
    """Make the block of boot memory that begins with a section, if any of its sections is present. Source: add_memory_block()"""
    present = [
        nr for nr in range(base_section_nr, base_section_nr + k.sections_per_block) if mmzone.present_section_nr(k, nr)]
    if present:
        init_memory_block(k, present[0], MEM_ONLINE).section_count = len(present)


def is_zone_device_section(k: Kernel, section_nr: int) -> bool:
    """Source: drivers/base/memory.c is_zone_device_section()"""
    return k.config.ZONE_DEVICE and mm.page_zone(k, mmzone.section_nr_to_pfn(k, section_nr)).name == "Device"


def register_new_memory(k: Kernel, nid: int, section_nr: int) -> None:
    """
    Announce a section that was added: a new block in state offline, or one more section of a block that is there.

    Source: drivers/base/memory.c register_new_memory() [v4.9]
    """
    if is_zone_device_section(k, section_nr):
        return
    sched.mutex_lock(k.tasks, k.mem_sysfs_mutex)
    mem = find_memory_block(k, section_nr)
    if mem is None:
        mem = init_memory_block(k, section_nr, MEM_OFFLINE)
    mem.section_count += 1
    if mem.section_count == k.sections_per_block:
        node.register_mem_sect_under_node(k, mem, nid)
    sched.mutex_unlock(k.mem_sysfs_mutex)


def memory_dev_init(k: Kernel) -> None:
    """
    Make the bus, and the blocks of boot memory.

    Source: drivers/base/memory.c memory_dev_init() [v4.9]
    """
    k.sections_per_block = get_memory_block_size(k) >> k.SECTION_SIZE_BITS
    for block_id in sorted({nr // k.sections_per_block for nr in k.mem_section}):
        add_memory_block(k, block_id * k.sections_per_block)
