# SPDX-License-Identifier: GPL-2.0-only
"""
A DIMM arrives, a DIMM leaves: the ACPI memory device driver.

The driver adds the device's memory and binds its memory blocks to the device, so that drivers/acpi/scan.c can take them offline
before it has the driver remove them. Since v5.15 all memory of a device is one static memory group.

A device has one range of memory here; in C it may have several.

Source: drivers/acpi/acpi_memhotplug.c [v4.9, v6.1, v6.12].
"""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.bug import printk
from memhp.linux.drivers.acpi.numa import srat
from memhp.linux.drivers.base import memory
from memhp.linux.include.acpi_bus import AcpiDevice, AcpiMemoryDevice
from memhp.linux.include.memory import MemoryBlock
from memhp.linux.include.memory_hotplug import MHP_MEMMAP_ON_MEMORY, MHP_NID_IS_MGID, MHP_NONE
from memhp.linux.mm import memory_hotplug

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def acpi_bind_memory_blocks(k: Kernel, device: AcpiDevice) -> None:
    """Bind the blocks of a device to it, lowest first. Source: drivers/acpi/acpi_memhotplug.c acpi_bind_memory_blocks()"""
    found: list[int] = []

    def acpi_bind_memblk(k: Kernel, mem: MemoryBlock) -> None:
        found.append(mem.dev_id)

    if k.tree.block_devices_after_add:
        memory.walk_memory_blocks(k, device.start, device.length, acpi_bind_memblk)
    else:
        start_pfn, end_pfn = device.start >> k.PAGE_SHIFT, -(-(device.start + device.length) >> k.PAGE_SHIFT)
        memory_hotplug.walk_memory_range(k, start_pfn, end_pfn, acpi_bind_memblk)
    device.physical_nodes = tuple(found)


def acpi_unbind_memory_blocks(device: AcpiDevice) -> None:
    """Source: drivers/acpi/acpi_memhotplug.c acpi_unbind_memory_blocks()"""
    device.physical_nodes = ()
    device.put_online = frozenset()


def acpi_memory_enable_device(k: Kernel, device: AcpiDevice, mem_device: AcpiMemoryDevice) -> None:
    """
    Add the device's memory. Memory that is there already (EEXIST) counts as enabled.

    Raises:
        KernelError: EINVAL if nothing could be enabled, its cause says why, or for a node that cannot be.

    Source: drivers/acpi/acpi_memhotplug.c acpi_memory_enable_device() [v4.9, v5.15]
    """
    node = srat.acpi_get_node(k, device.node) if k.hardware.pxm_nodes else device.node
    if node < 0 and device.length:
        node = k.arch.memory_add_physaddr_to_nid(k, device.start)
    mhp_flags = MHP_NONE
    if k.tree.memory_groups:
        if not device.length:
            printk(k.log, f"acpi {device.name}: device is empty")
            raise KernelError(EINVAL, "the device has no memory")
        node = mem_device.mgid = memory.memory_group_register_static(k, node, -(-device.length >> k.PAGE_SHIFT))
        mhp_flags = MHP_NID_IS_MGID
    if k.tree.memmap_on_memory_per_block or (
            k.tree.memmap_on_memory and memory_hotplug.mhp_supports_memmap_on_memory(k, device.length)):
        mhp_flags |= MHP_MEMMAP_ON_MEMORY
    cause: KernelError | None = None
    if device.length:
        try:
            if k.tree.block_devices_after_add:
                memory_hotplug.__add_memory(k, node, device.start, device.length, mhp_flags)
            else:
                memory_hotplug.add_memory(k, node, device.start, device.length)
        except KernelError as err:
            cause = err
        if cause is None or cause.errno == EEXIST:
            acpi_bind_memory_blocks(k, device)
            mem_device.enabled = True
    if not mem_device.enabled:
        printk(k.log, f"acpi {device.name}: add_memory failed")
        reason = f"add_memory() failed: {cause.name}: {cause.reason}" if cause is not None else "the device has no memory"
        raise KernelError(EINVAL, reason, start=device.start, length=device.length) from cause


def acpi_memory_remove_memory(k: Kernel, device: AcpiDevice, mem_device: AcpiMemoryDevice) -> None:
    """
    Remove the device's memory, which is offline.

    Raises:
        KernelBugError: it is not.

    Source: drivers/acpi/acpi_memhotplug.c acpi_memory_remove_memory() [v4.9, v6.1]
    """
    if not mem_device.enabled:
        return
    acpi_unbind_memory_blocks(device)
    if k.tree.hot_remove_refuses:
        memory_hotplug.__remove_memory(k, device.start, device.length)
        return
    nid = device.node if device.node >= 0 else k.arch.memory_add_physaddr_to_nid(k, device.start)
    memory_hotplug.remove_memory(k, device.start, device.length, nid)


def acpi_memory_device_free(k: Kernel, device: AcpiDevice, mem_device: AcpiMemoryDevice) -> None:
    """
    Forget the driver's part; its memory group stays if it has blocks.

    Source: drivers/acpi/acpi_memhotplug.c acpi_memory_device_free()
    """
    if mem_device.mgid >= 0:
        try:
            memory.memory_group_unregister(k, mem_device.mgid)
        except KernelError as err:
            if err.errno != EBUSY:
                raise
    device.driver_data = None


def acpi_memory_device_add(k: Kernel, device: AcpiDevice) -> None:
    """
    Bind the driver to a memory device that appeared.

    Raises:
        KernelError: EINVAL if its memory could not be enabled.

    Source: drivers/acpi/acpi_memhotplug.c acpi_memory_device_add() [all]
    """
    mem_device = device.driver_data = AcpiMemoryDevice()
    try:
        acpi_memory_enable_device(k, device, mem_device)
    except KernelError:
        printk(k.log, f"acpi {device.name}: acpi_memory_enable_device() error")
        acpi_memory_device_free(k, device, mem_device)
        raise


def acpi_memory_device_remove(k: Kernel, device: AcpiDevice) -> None:
    """
    Unbind the driver from a memory device that goes.

    Source: drivers/acpi/acpi_memhotplug.c acpi_memory_device_remove() [all]
    """
    mem_device = device.driver_data
    if mem_device is None:
        return
    acpi_memory_remove_memory(k, device, mem_device)
    acpi_memory_device_free(k, device, mem_device)
