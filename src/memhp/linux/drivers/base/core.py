# SPDX-License-Identifier: GPL-2.0-only
"""
The driver core's part in going online and offline: device_online(), device_offline(), the device-hotplug lock.

Source: drivers/base/core.c [v4.9].
"""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING

from memhp.errors import KernelError, KernelHangError
from memhp.linux import sched
from memhp.linux.drivers.base import memory
from memhp.linux.include.memory import MemoryBlock

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def lock_device_hotplug(k: Kernel) -> None:
    """
    Take the device-hotplug lock.

    Raises:
        KernelHangError: a task that died holds it.

    Source: drivers/base/core.c lock_device_hotplug()
    """
    sched.mutex_lock(k.tasks, k.device_hotplug_lock)


def lock_device_hotplug_sysfs(k: Kernel) -> None:
    """
    Take the device-hotplug lock for a write to sysfs; if it is held, the system call is restarted until it is not.

    Raises:
        KernelHangError: a task that died, or waits for ever, holds it: the call is restarted for ever.

    Source: drivers/base/core.c lock_device_hotplug_sysfs()
    """
    if not sched.mutex_trylock(k.tasks, k.device_hotplug_lock):
        holder = k.device_hotplug_lock.holder
        dead = holder in k.tasks.dead
        how = "held device_hotplug_lock when it died" if dead else "holds device_hotplug_lock, and waits itself for ever"
        raise KernelHangError(f"restarts the system call for ever: task {holder} {how}")


def unlock_device_hotplug(k: Kernel) -> None:
    """Source: drivers/base/core.c unlock_device_hotplug()"""
    sched.mutex_unlock(k.device_hotplug_lock)


def device_offline(k: Kernel, dev: MemoryBlock) -> int:
    """
    Take a device offline; returns 1 if the driver core believes it is offline already.

    A memory block has no children that could be online. In C nobody sets `offline_disabled` of one.

    Raises:
        KernelError: EPERM if that is disabled; what the bus says.

    Source: drivers/base/core.c device_offline() [all]
    """
    if dev.offline_disabled:
        raise KernelError(EPERM, f"offlining memory{dev.dev_id} is disabled", block=dev.dev_id)
    if dev.dev_offline:
        return 1
    memory.memory_subsys_offline(k, dev)
    dev.dev_offline = True
    return 0


def device_online(k: Kernel, dev: MemoryBlock) -> int:
    """
    Bring a device online; returns 1 if the driver core believes it is online already.

    Raises:
        KernelError: what the bus says.

    Source: drivers/base/core.c device_online()
    """
    if not dev.dev_offline:
        return 1
    memory.memory_subsys_online(k, dev)
    dev.dev_offline = False
    return 0
