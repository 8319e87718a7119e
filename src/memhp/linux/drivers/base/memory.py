# SPDX-License-Identifier: GPL-2.0-only
"""
Memory blocks and their files in sysfs.

The parts. A memory block is the unit that user space switches on and off: `sections_per_block` sections. Its `state` file goes
through the driver core (device_online()), which keeps a flag of its own (`dev.offline`); automatic onlining bypasses it, so
that after it a write of "online" still succeeds where otherwise it gives EINVAL.

Locks: device_hotplug_lock around writes to `state`, then mem_hotplug.lock; mem_sysfs_mutex around registration.

How trees differ. v4.9 makes a block with its first section and counts sections into it. Since v5.3 blocks are made for the
whole range once it is added, since v5.15 they belong to groups, and since v5.18 a block knows the zone it is in.

Source: drivers/base/memory.c [v4.9, v5.10, v6.1, v6.12].
"""

from __future__ import annotations

import re
from collections.abc import Callable
from errno import EBUSY, EEXIST, EINVAL, ENXIO, ERANGE
from itertools import count
from typing import TYPE_CHECKING

from memhp.errors import EHWPOISON, KernelError
from memhp.linux import bug, sched
from memhp.linux.drivers.base import core, node
from memhp.linux.include import mm, mmzone
from memhp.linux.include.memory import (
    MEM_FINISH_OFFLINE,
    MEM_GOING_OFFLINE,
    MEM_OFFLINE,
    MEM_ONLINE,
    MEM_PREPARE_ONLINE,
    STATE_NAMES,
    MemoryBlock,
    MemoryGroup,
    MemoryIsolateNotify,
    MemoryNotify,
)
from memhp.linux.include.memory_hotplug import (
    MHP_NONE,
    MMOP_OFFLINE,
    MMOP_ONLINE,
    MMOP_ONLINE_KEEP,
    MMOP_ONLINE_KERNEL,
    MMOP_ONLINE_MOVABLE,
)
from memhp.linux.include.memremap import VmemAltmap
from memhp.linux.include.mmzone import MEMINIT_EARLY, N_POSSIBLE, Zone
from memhp.linux.include.notifier import NotifierBlock, notifier_to_errno
from memhp.linux.include.numa import NUMA_NO_NODE
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
_ONLINE_WORDS = {online_type: word for word, online_type in _ONLINE_TYPES.items()}


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


def register_memory_isolate_notifier(k: Kernel, nb: NotifierBlock) -> None:
    """
    Let somebody say which pages of a pageblock are his.

    Source: drivers/base/memory.c register_memory_isolate_notifier() [v4.9]
    """
    k.memory_isolate_chain = notifier.blocking_notifier_chain_register(k.memory_isolate_chain, nb)


def memory_isolate_notify(k: Kernel, val: int, v: MemoryIsolateNotify) -> int:
    """Source: drivers/base/memory.c memory_isolate_notify() [v4.9]"""
    return notifier.atomic_notifier_call_chain(k, k.memory_isolate_chain, val, v)


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


def memory_block_action(k: Kernel, mem: MemoryBlock, action: int) -> None:
    """
    Do what a change of state asks for.

    Args:
        mem: The block. (Before v5.18 its first section, and how it is to go online, stand for it.)
        action: MEM_ONLINE or MEM_OFFLINE.

    Raises:
        KernelError: EBUSY if a page is not reserved that is to go online [v4.9]; what online_pages() and offline_pages() say.

    Source: drivers/base/memory.c memory_block_action() [v4.9, v5.10, v5.18]
    """
    start_pfn = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    nr_pages = k.PAGES_PER_SECTION * k.sections_per_block
    if action == MEM_ONLINE:
        if k.tree.memory_block_keeps_zone:
            memory_block_online(k, mem)
            return
        if k.tree.online_checks_reserved and not pages_correctly_reserved(k, start_pfn):
            raise KernelError(
                EBUSY, _why_not_reserved(k, start_pfn), where="pages_correctly_reserved", source=__file__, pfn=start_pfn)
        memory_hotplug.online_pages(k, start_pfn, nr_pages, mem.online_type, nid=mem.nid)
        return
    if action == MEM_OFFLINE:
        if k.tree.memory_block_keeps_zone:
            memory_block_offline(k, mem)
        else:
            memory_hotplug.offline_pages(k, start_pfn, nr_pages)
        return
    bug.WARN_ON(k.log, True)
    raise KernelError(EINVAL, f"unknown action {action}", section=mem.start_section_nr)


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


def memory_block_online(k: Kernel, mem: MemoryBlock) -> None:
    """
    Choose a block's zone, and give its pages to it; the memmap it may carry itself is initialised, and stays out of the buddy.

    Raises:
        KernelError: EHWPOISON if a page of it has failed; what a notifier or online_pages() says.

    Source: drivers/base/memory.c memory_block_online() [v6.1, v6.12]
    """
    start_pfn = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    nr_pages = k.PAGES_PER_SECTION * k.sections_per_block
    if k.tree.memory_block_counts_poison and mem.nr_hwpoison:
        raise KernelError(EHWPOISON, f"{mem.nr_hwpoison} pages of memory{mem.dev_id} have failed", block=mem.dev_id)
    zone = memory_hotplug.zone_for_pfn_range(k, mem.online_type, mem.nid, mem.group, start_pfn, nr_pages)
    nr_vmemmap_pages = mem.altmap.free if mem.altmap is not None else 0
    arg = MemoryNotify(
        start_pfn + nr_vmemmap_pages, nr_pages - nr_vmemmap_pages, altmap_start_pfn=start_pfn, altmap_nr_pages=nr_vmemmap_pages)
    memory_hotplug.mem_hotplug_begin(k)
    if k.tree.prepare_online_notifier:
        ret = notifier_to_errno(memory_notify(k, MEM_PREPARE_ONLINE, arg))
        if ret:
            memory_hotplug.mem_hotplug_done(k)
            raise KernelError(ret, "a notifier vetoed MEM_PREPARE_ONLINE", block=mem.dev_id)
    if nr_vmemmap_pages:
        assert mem.altmap is not None
        memory_hotplug.mhp_init_memmap_on_memory(k, start_pfn, nr_vmemmap_pages, zone, mem.altmap.inaccessible)
    try:
        memory_hotplug.online_pages(
            k, start_pfn + nr_vmemmap_pages, nr_pages - nr_vmemmap_pages, mem.online_type, zone=zone, group=mem.group)
    except KernelError:
        if nr_vmemmap_pages:
            memory_hotplug.mhp_deinit_memmap_on_memory(k, start_pfn, nr_vmemmap_pages)
        if k.tree.prepare_online_notifier:
            memory_notify(k, MEM_FINISH_OFFLINE, arg)
        memory_hotplug.mem_hotplug_done(k)
        raise
    if nr_vmemmap_pages:
        memory_hotplug.adjust_present_page_count(k, start_pfn, mem.group, nr_vmemmap_pages)
    mem.zone = (zone.nid, zone.idx)
    memory_hotplug.mem_hotplug_done(k)


def memory_block_offline(k: Kernel, mem: MemoryBlock) -> None:
    """
    Take a block's pages from its zone, and its own memmap with them, if it carries it.

    Raises:
        KernelError: EINVAL for boot memory of several zones or nodes; what offline_pages() says.
        KernelHangError: see there.

    Source: drivers/base/memory.c memory_block_offline() [v5.18, v6.12]
    """
    start_pfn = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    nr_pages = k.PAGES_PER_SECTION * k.sections_per_block
    if mem.zone is None:
        raise KernelError(EINVAL, f"memory{mem.dev_id} holds memory of several zones or nodes", block=mem.dev_id)
    nr_vmemmap_pages = mem.altmap.free if mem.altmap is not None else 0
    memory_hotplug.mem_hotplug_begin(k)
    if nr_vmemmap_pages:
        memory_hotplug.adjust_present_page_count(k, start_pfn, mem.group, -nr_vmemmap_pages)
    try:
        memory_hotplug.offline_pages(
            k, start_pfn + nr_vmemmap_pages, nr_pages - nr_vmemmap_pages, k.zone(*mem.zone), mem.group)
    except KernelError:
        if nr_vmemmap_pages:
            memory_hotplug.adjust_present_page_count(k, start_pfn, mem.group, nr_vmemmap_pages)
        memory_hotplug.mem_hotplug_done(k)
        raise
    if nr_vmemmap_pages:
        memory_hotplug.mhp_deinit_memmap_on_memory(k, start_pfn, nr_vmemmap_pages)
    mem.zone = None
    if k.tree.prepare_online_notifier:
        arg = MemoryNotify(start_pfn + nr_vmemmap_pages, nr_pages - nr_vmemmap_pages)
        arg.altmap_start_pfn, arg.altmap_nr_pages = start_pfn, nr_vmemmap_pages
        memory_notify(k, MEM_FINISH_OFFLINE, arg)
    memory_hotplug.mem_hotplug_done(k)


def memory_block_change_state(k: Kernel, mem: MemoryBlock, to_state: int, from_state_req: int) -> None:
    """
    Move a block from one state to another, or leave it where it was.

    Raises:
        KernelError: EINVAL if it is not in `from_state_req`; what the action says.

    Source: drivers/base/memory.c memory_block_change_state() [v4.9]
    """
    if mem.state != from_state_req:
        raise KernelError(EINVAL, f"memory{mem.dev_id} is {STATE_NAMES[mem.state]}", block=mem.dev_id)
    if to_state == MEM_OFFLINE:
        mem.state = MEM_GOING_OFFLINE
    try:
        memory_block_action(k, mem, to_state)
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


def memory_subsys_offline(k: Kernel, mem: MemoryBlock) -> None:
    """
    The bus's offline callback.

    Context: mem_hotplug lock held for writing.
    Raises:
        KernelError: EINVAL if a section of the block is absent [v4.9]; what taking it offline says.

    Source: drivers/base/memory.c memory_subsys_offline() [v4.9, v5.10]
    """
    if mem.state == MEM_OFFLINE:
        return
    if not k.tree.offline_checks_ram and mem.section_count != k.sections_per_block:
        raise KernelError(
            EINVAL, f"memory{mem.dev_id} has {mem.section_count} of its {k.sections_per_block} sections", block=mem.dev_id)
    memory_block_change_state(k, mem, MEM_OFFLINE, MEM_ONLINE)


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
            ret = core.device_offline(k, mem)
        else:
            mem.online_type = online_type
            ret = core.device_online(k, mem)
    except KernelError:
        memory_hotplug.mem_hotplug_done(k)
        core.unlock_device_hotplug(k)
        raise
    memory_hotplug.mem_hotplug_done(k)
    core.unlock_device_hotplug(k)
    if ret:
        raise KernelError(EINVAL, f"memory{mem.dev_id} is {STATE_NAMES[mem.state]} already", block=mem.dev_id)


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
            core.device_offline(k, mem)
    except KernelError:
        core.unlock_device_hotplug(k)
        raise
    core.unlock_device_hotplug(k)


def mhp_online_type_from_str(word: str) -> int | None:
    """Return the MMOP_* that a word stands for, or None. Source: drivers/base/memory.c mhp_online_type_from_str() [v5.7]"""
    return _ONLINE_TYPES.get(_word(word))


def removable_show(k: Kernel, mem: MemoryBlock) -> str:
    """
    1 wherever memory can be removed at all: the file no longer looks at the block.

    Source: drivers/base/memory.c removable_show() [v5.7]
    """
    return f"{int(k.config.MEMORY_HOTREMOVE)}\n"


def state_store(k: Kernel, mem: MemoryBlock, buf: str) -> None:
    """
    A write to `state`.

    Raises:
        KernelError: EINVAL for another word than online, online_kernel, online_movable or offline, or if the block is in that
            state already; what going online or offline says.
        KernelHangError: a lock is held by a task that died.

    Source: drivers/base/memory.c state_store() [v5.7]
    """
    online_type = mhp_online_type_from_str(buf)
    if online_type is None:
        raise KernelError(
            EINVAL, f"{buf.strip()!r} is no state: online, online_kernel, online_movable or offline", block=mem.dev_id)
    core.lock_device_hotplug_sysfs(k)
    try:
        if online_type == MMOP_OFFLINE:
            ret = core.device_offline(k, mem)
        else:
            mem.online_type = online_type
            ret = core.device_online(k, mem)
    except KernelError:
        core.unlock_device_hotplug(k)
        raise
    core.unlock_device_hotplug(k)
    if ret:
        raise KernelError(EINVAL, f"memory{mem.dev_id} is {STATE_NAMES[mem.state]} already", block=mem.dev_id)


def print_allowed_zone(
    k: Kernel, mem: MemoryBlock, start_pfn: int, nr_pages: int, online_type: int, default_zone: Zone,
) -> str:
    """
    The zone that `online_type` would choose, if it is another than the default.

    Source: drivers/base/memory.c print_allowed_zone() [v4.13]
    """
    zone = memory_hotplug.zone_for_pfn_range(k, online_type, mem.nid, mem.group, start_pfn, nr_pages)
    return "" if zone is default_zone else f" {zone.name}"


def valid_zones_show(k: Kernel, mem: MemoryBlock) -> str:
    """
    The zone a block is in; offline: the one it would go to, and those it can be made to go to.

    Source: drivers/base/memory.c valid_zones_show() [v5.10, v5.18]
    """
    start_pfn = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    nr_pages = k.PAGES_PER_SECTION * k.sections_per_block
    if mem.state == MEM_ONLINE:
        if k.tree.memory_block_keeps_zone:
            return f"{k.zone(*mem.zone).name}\n" if mem.zone is not None else "none\n"
        zone = memory_hotplug._test_pages_in_a_zone_v5_10(k, start_pfn, start_pfn + nr_pages)
        return f"{zone.name}\n" if zone is not None else "none\n"
    default_zone = memory_hotplug.zone_for_pfn_range(k, MMOP_ONLINE, mem.nid, mem.group, start_pfn, nr_pages)
    others = [
        print_allowed_zone(k, mem, start_pfn, nr_pages, online_type, default_zone)
        for online_type in (MMOP_ONLINE_KERNEL, MMOP_ONLINE_MOVABLE)]
    return default_zone.name + "".join(others) + "\n"


# Files of the bus


def crash_hotplug_show(k: Kernel) -> str:
    """
    Whether the kernel tells a crash kernel of hot-added memory; here none is loaded.

    Source: drivers/base/memory.c crash_hotplug_show() [v6.6]
    """
    return "0\n"


def auto_online_blocks_show(k: Kernel) -> str:
    """Source: drivers/base/memory.c auto_online_blocks_show() [v5.7]"""
    return f"{_ONLINE_WORDS[memory_hotplug.mhp_get_default_online_type(k)]}\n"


def auto_online_blocks_store(k: Kernel, buf: str) -> None:
    """
    A write to `auto_online_blocks`.

    Raises:
        KernelError: EINVAL for another word than online, online_kernel, online_movable or offline.

    Source: drivers/base/memory.c auto_online_blocks_store() [v5.7]
    """
    online_type = mhp_online_type_from_str(buf)
    if online_type is None:
        raise KernelError(EINVAL, f"{buf.strip()!r} is no state: online, online_kernel, online_movable or offline")
    k.mhp_default_online_type = online_type


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

    Source: drivers/base/memory.c memory_probe_store() [v4.9], probe_store() [v5.3]
    """
    phys_addr = kstrtoull(buf)
    block = k.sections_per_block << k.SECTION_SIZE_BITS
    if phys_addr & (block - 1):
        raise KernelError(
            EINVAL, f"{phys_addr:#x} is not a multiple of the memory block size {block:#x}; the next that is: "
            f"{-(-phys_addr // block) * block:#x}", address=phys_addr)
    if not k.tree.block_devices_after_add:
        nid = k.arch.memory_add_physaddr_to_nid(k, phys_addr)
        memory_hotplug.add_memory(k, nid, phys_addr, block)
        return
    core.lock_device_hotplug_sysfs(k)
    try:
        nid = k.arch.memory_add_physaddr_to_nid(k, phys_addr)
        memory_hotplug.__add_memory(k, nid, phys_addr, block, MHP_NONE)
    except KernelError:
        core.unlock_device_hotplug(k)
        raise
    core.unlock_device_hotplug(k)


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


def soft_offline_page_store(k: Kernel, buf: str) -> None:
    """
    A write to `soft_offline_page`: the physical address of a page that is better not used.

    Raises:
        KernelError: EINVAL for what is no number; what soft_offline_page() says.

    Source: drivers/base/memory.c soft_offline_page_store() [v5.7]
    """
    memory_failure.soft_offline_page(k, _address(buf) >> k.PAGE_SHIFT)


def hard_offline_page_store(k: Kernel, buf: str) -> None:
    """
    A write to `hard_offline_page`: the physical address of a page that has failed.

    Raises:
        KernelError: EINVAL for what is no number; what memory_failure() says.

    Source: drivers/base/memory.c hard_offline_page_store() [v5.7]
    """
    memory_failure.memory_failure(k, _address(buf) >> k.PAGE_SHIFT)


def _address(buf: str) -> int:
    """Read a number, every error being EINVAL. Source: drivers/base/memory.c soft_offline_page_store()"""
    try:
        return kstrtoull(buf)
    except KernelError as err:
        raise KernelError(EINVAL, err.reason) from err


def memblk_nr_poison_inc(k: Kernel, pfn: int) -> None:
    """Count a failed page of a block. Source: drivers/base/memory.c memblk_nr_poison_inc() [v6.2]"""
    mem = find_memory_block_by_id(k, (pfn >> k.PFN_SECTION_SHIFT) // k.sections_per_block)
    if mem is not None:
        mem.nr_hwpoison += 1


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


def unregister_memory(k: Kernel, memory: MemoryBlock) -> None:
    """Take a block's device away. Source: drivers/base/memory.c unregister_memory() [v4.9]"""
    del k.blocks_rw()[memory.dev_id]


def remove_memory_section(k: Kernel, section_nr: int) -> None:
    """
    One section less of a block, whose device goes with the last of them.

    Source: drivers/base/memory.c remove_memory_section() [v4.9]
    """
    if is_zone_device_section(k, section_nr):
        return
    sched.mutex_lock(k.tasks, k.mem_sysfs_mutex)
    mem = find_memory_block(k, section_nr)
    assert mem is not None
    if k.config.NUMA:
        node.unregister_mem_sect_under_nodes(k, mem, section_nr)
    mem.section_count -= 1
    if not mem.section_count:
        unregister_memory(k, mem)
    sched.mutex_unlock(k.mem_sysfs_mutex)


def unregister_memory_section(k: Kernel, section_nr: int) -> None:
    """
    Announce that a section goes.

    Raises:
        KernelError: EINVAL if it is not present.

    Source: drivers/base/memory.c unregister_memory_section() [v4.9]
    """
    if not mmzone.present_section_nr(k, section_nr):
        raise KernelError(EINVAL, "the section is not present", section=section_nr)
    remove_memory_section(k, section_nr)


# Making and removing blocks [v5.3]


def memory_block_size_bytes(k: Kernel) -> int:
    """Return the size of a memory block in bytes. Source: drivers/base/memory.c memory_block_size_bytes()"""
    return k.sections_per_block << k.SECTION_SIZE_BITS


def find_memory_block_by_id(k: Kernel, block_id: int) -> MemoryBlock | None:
    """Return a block for editing, or None. Source: drivers/base/memory.c find_memory_block_by_id() [v5.3]"""
    return k.block_rw(block_id) if block_id in k.memory_blocks else None


def early_node_zone_for_memory_block(k: Kernel, mem: MemoryBlock, nid: int) -> tuple[int, int] | None:
    """
    Return the one zone of a node that boot memory of a block can be in, as (nid, index); None if there are several, or none.

    Source: drivers/base/memory.c early_node_zone_for_memory_block() [v5.18]
    """
    start_pfn = mmzone.section_nr_to_pfn(k, mem.start_section_nr)
    nr_pages = k.PAGES_PER_SECTION * k.sections_per_block
    matching_zone = None
    for zone in k.nodes[nid].node_zones:
        if not mmzone.populated_zone(zone):
            continue
        if not mmzone.zone_intersects(zone, start_pfn, nr_pages):
            continue
        if matching_zone is not None:
            return None
        matching_zone = nid, zone.idx
    return matching_zone


def memory_block_add_nid(k: Kernel, mem: MemoryBlock, nid: int, context: str) -> None:
    """
    Note that memory of a block belongs to a node; at boot this also settles the block's zone.

    Source: drivers/base/memory.c memory_block_add_nid() [v5.18]
    """
    if context == MEMINIT_EARLY and mem.nid != nid and k.tree.memory_block_keeps_zone:
        mem.zone = early_node_zone_for_memory_block(k, mem, nid) if mem.nid == NUMA_NO_NODE else None
    mem.nid = nid


def __add_memory_block(k: Kernel, memory: MemoryBlock) -> None:
    """Make the device of a block. Source: drivers/base/memory.c __add_memory_block() [v5.18], register_memory() before"""
    memory.dev_offline = memory.state == MEM_OFFLINE
    k.blocks_rw()[memory.dev_id] = memory


def add_hotplug_memory_block(k: Kernel, block_id: int, altmap: VmemAltmap | None, group: int) -> None:
    """
    Make one block in state offline.

    Args:
        block_id: The N of memoryN.
        altmap: Where its memmap lies, if on itself.
        group: Id of its memory group, or 0.

    Raises:
        KernelError: EEXIST if there is such a block.

    Source: drivers/base/memory.c add_hotplug_memory_block(), add_memory_block() [v6.12]; init_memory_block() [v5.10]
    """
    if block_id in k.memory_blocks:
        raise KernelError(EEXIST, f"memory{block_id} exists already", block=block_id)
    start = block_id * k.sections_per_block
    mem = MemoryBlock(start, start + k.sections_per_block - 1, MEM_OFFLINE, block_id, k.token)
    mem.section_count = k.sections_per_block
    mem.altmap = altmap
    mem.group = group
    __add_memory_block(k, mem)


def remove_memory_block(k: Kernel, memory: MemoryBlock) -> None:
    """Take a block's device away. Source: drivers/base/memory.c remove_memory_block() [v6.1]; unregister_memory() before"""
    del k.blocks_rw()[memory.dev_id]
    memory.group = 0


def create_memory_block_devices(k: Kernel, start: int, size: int, altmap: VmemAltmap | None, group: int) -> None:
    """
    Make the blocks of an added range, in state offline: all of them or none.

    Raises:
        KernelError: EINVAL if the range is not made of whole blocks; EEXIST if there is one of them.

    Source: drivers/base/memory.c create_memory_block_devices() [v5.3]
    """
    block_size = memory_block_size_bytes(k)
    if bug.WARN_ON_ONCE(k.log, start % block_size or size % block_size):
        raise KernelError(EINVAL, f"[{start:#x}, +{size:#x}) is not made of whole blocks of {block_size:#x}")
    first, last = start // block_size, (start + size) // block_size
    for block_id in range(first, last):
        try:
            add_hotplug_memory_block(k, block_id, altmap, group)
        except KernelError:
            for done in range(first, block_id):
                remove_memory_block(k, k.block_rw(done))
            raise
    if group:
        k.memory_groups[group].memory_blocks |= frozenset(range(first, last))


def remove_memory_block_devices(k: Kernel, start: int, size: int) -> None:
    """
    Take the devices of a range of offline blocks away.

    Source: drivers/base/memory.c remove_memory_block_devices() [v5.3]
    """
    block_size = memory_block_size_bytes(k)
    if bug.WARN_ON_ONCE(k.log, start % block_size or size % block_size):
        return
    gone: dict[int, list[int]] = {}
    for block_id in range(start // block_size, (start + size) // block_size):
        mem = find_memory_block_by_id(k, block_id)
        if bug.WARN_ON_ONCE(k.log, mem is None):
            continue
        assert mem is not None
        if mem.group:
            gone.setdefault(mem.group, []).append(block_id)
        node.unregister_memory_block_under_nodes(k, mem)
        remove_memory_block(k, mem)
    for group, blocks in gone.items():
        k.memory_groups[group].memory_blocks -= frozenset(blocks)


def walk_memory_blocks(k: Kernel, start: int, size: int, func: Callable[[Kernel, MemoryBlock], None]) -> None:
    """
    Call `func` for each memory block that lies, even in part, in [start, start + size).

    Raises:
        KernelError: what `func` said; the walk ends there.

    Source: drivers/base/memory.c walk_memory_blocks() [v5.3]
    """
    if not size:
        return
    block_size = memory_block_size_bytes(k)
    for block_id in range(start // block_size, (start + size - 1) // block_size + 1):
        mem = find_memory_block_by_id(k, block_id)
        if mem is not None:
            func(k, mem)


def for_each_memory_block(k: Kernel, func: Callable[[Kernel, MemoryBlock], None]) -> None:
    """As walk_memory_blocks(), for every block there is. Source: drivers/base/memory.c for_each_memory_block() [v5.3]"""
    for block_id in sorted(k.memory_blocks):
        func(k, k.memory_blocks[block_id])


# Memory groups [v5.15]


def memory_group_register(k: Kernel, group: MemoryGroup) -> int:
    """
    Note a group; returns its id, the lowest that is free.

    Raises:
        KernelError: EINVAL if its node cannot be.

    Source: drivers/base/memory.c memory_group_register() [v5.15]
    """
    if group.nid not in k.node_states[N_POSSIBLE]:
        raise KernelError(EINVAL, f"node {group.nid} cannot be on this machine")
    mgid = next(i for i in count(1) if i not in k.memory_groups)
    k.memory_groups[mgid] = group
    return mgid


def memory_group_register_static(k: Kernel, nid: int, max_pages: int) -> int:
    """
    Make a group for a device that comes and goes as a whole; returns its id.

    Args:
        nid: The device's node.
        max_pages: Pages of the device.

    Raises:
        KernelError: EINVAL for a device without pages, or a node that cannot be.

    Source: drivers/base/memory.c memory_group_register_static() [v5.15]
    """
    if not max_pages:
        raise KernelError(EINVAL, "a device without pages")
    return memory_group_register(k, MemoryGroup(nid, is_dynamic=False, max_pages=max_pages))


def memory_group_register_dynamic(k: Kernel, nid: int, unit_pages: int) -> int:
    """
    Make a group for a device that grows and shrinks in units; returns its id.

    Args:
        nid: The device's node.
        unit_pages: Pages of a unit: a power of two, a memory block at least.

    Raises:
        KernelError: EINVAL for another unit, or a node that cannot be.

    Source: drivers/base/memory.c memory_group_register_dynamic() [v5.15]
    """
    if not unit_pages or unit_pages & (unit_pages - 1) or unit_pages < memory_block_size_bytes(k) >> k.PAGE_SHIFT:
        raise KernelError(EINVAL, f"a unit of {unit_pages} pages is no power of two of a memory block's pages or more")
    return memory_group_register(k, MemoryGroup(nid, is_dynamic=True, unit_pages=unit_pages))


def memory_group_unregister(k: Kernel, mgid: int) -> None:
    """
    Forget a group.

    Raises:
        KernelError: EINVAL for an id below 0 or unknown; EBUSY while it has blocks.

    Source: drivers/base/memory.c memory_group_unregister() [v5.15]
    """
    if mgid not in k.memory_groups:
        raise KernelError(EINVAL, f"there is no memory group {mgid}")
    if k.memory_groups[mgid].memory_blocks:
        raise KernelError(EBUSY, f"memory group {mgid} has blocks")
    del k.memory_groups[mgid]


def memory_group_find_by_id(k: Kernel, mgid: int) -> MemoryGroup | None:
    """Source: drivers/base/memory.c memory_group_find_by_id() [v5.15]"""
    return k.memory_groups.get(mgid)


def walk_dynamic_memory_groups(k: Kernel, nid: int, func: Callable[[MemoryGroup], None], excluded: MemoryGroup | None) -> None:
    """
    Call `func` for each dynamic group of a node (NUMA_NO_NODE: of all nodes), but for one.

    Source: drivers/base/memory.c walk_dynamic_memory_groups() [v5.15]
    """
    for group in k.memory_groups.values():
        if group.is_dynamic and group is not excluded and nid in (NUMA_NO_NODE, group.nid):
            func(group)


def memory_dev_init(k: Kernel) -> None:
    """
    Make the bus, and the blocks of boot memory.

    Source: drivers/base/memory.c memory_dev_init() [v4.9]
    """
    k.sections_per_block = get_memory_block_size(k) >> k.SECTION_SIZE_BITS
    for block_id in sorted({nr // k.sections_per_block for nr in k.mem_section}):
        add_memory_block(k, block_id * k.sections_per_block)
