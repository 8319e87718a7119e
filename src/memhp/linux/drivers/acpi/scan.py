# SPDX-License-Identifier: GPL-2.0-only
"""
Devices come and go by ACPI, as far as memory devices do.

The platform notifies: look at this device (it has been plugged in), or eject it. A device that is to be ejected has everything
bound to it taken offline first, in two passes, for a memory block may hold what another one needs; if something stays, all that
was taken offline goes online again. What came of it the platform hears by _OST: 132 when ejecting begins, then 0, or 130 (busy).
A plug is answered with 0 whether or not the driver could use the device.

Locks: device_hotplug_lock, acpi_scan_lock.

Source: drivers/acpi/scan.c [v4.9, v6.1, v6.12].
"""

from __future__ import annotations

from collections.abc import Iterable
from errno import EBUSY, EPERM
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.bug import printk
from memhp.linux.drivers.acpi import acpi_memhotplug
from memhp.linux.drivers.base import core
from memhp.linux.include.acpi_bus import (
    ACPI_NOTIFY_DEVICE_CHECK,
    ACPI_NOTIFY_EJECT_REQUEST,
    ACPI_OST_SC_DEVICE_BUSY,
    ACPI_OST_SC_EJECT_IN_PROGRESS,
    ACPI_OST_SC_EJECT_NOT_SUPPORTED,
    ACPI_OST_SC_NON_SPECIFIC_FAILURE,
    ACPI_OST_SC_SUCCESS,
    AcpiDevice,
)

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def acpi_evaluate_ost(device: AcpiDevice, source_event: int, status_code: int) -> None:
    """Tell the platform how an event ended. Source: drivers/acpi/utils.c acpi_evaluate_ost()"""
    device.ost.append((source_event, status_code))


def acpi_bus_offline(k: Kernel, device: AcpiDevice, second_pass: bool) -> tuple[str, KernelError] | None:
    """
    Take what is bound to a device offline.

    The first pass goes on where something fails; the second looks at what the first has left, and stops.

    Returns:
        The last thing that failed, and why; None if nothing did.

    Source: drivers/acpi/scan.c acpi_bus_offline()
    """
    failed: tuple[str, KernelError] | None = None
    for block_id in device.physical_nodes:
        if second_pass:
            if block_id in device.put_online:
                continue
        else:
            device.put_online -= {block_id}
        try:
            ret = core.device_offline(k, k.block_rw(block_id))
        except KernelError as err:
            failed = f"memory memory{block_id}", err
            if second_pass:
                break
            continue
        device.put_online = device.put_online - {block_id} if ret else device.put_online | {block_id}
    return failed


def acpi_bus_online(k: Kernel, device: AcpiDevice) -> None:
    """Bring what acpi_bus_offline() took offline back online. Source: drivers/acpi/scan.c acpi_bus_online()"""
    for block_id in device.physical_nodes:
        if block_id not in device.put_online:
            continue
        try:
            core.device_online(k, k.block_rw(block_id))
        except KernelError as err:
            _unheard(err)
        device.put_online -= {block_id}


def _unheard(err: KernelError) -> None:
    """What device_online() says is dropped: the block stays offline. Source: drivers/acpi/scan.c acpi_bus_online()"""
    del err


def acpi_scan_try_to_offline(k: Kernel, device: AcpiDevice) -> None:
    """
    Take everything that is bound to a device offline, or nothing.

    Raises:
        KernelError: EBUSY if something cannot go offline; its cause says why.

    Source: drivers/acpi/scan.c acpi_scan_try_to_offline()
    """
    if acpi_bus_offline(k, device, False) is None:
        return
    failed = acpi_bus_offline(k, device, True)
    if failed is None:
        return
    what, err = failed
    printk(k.log, f"{what}: Offline failed.")
    acpi_bus_online(k, device)
    raise KernelError(EBUSY, f"{what.split()[-1]} cannot go offline: {err.name}: {err.reason}", device=device.name) from err


def acpi_scan_check_and_detach(k: Kernel, device: AcpiDevice) -> None:
    """Unbind the driver. Source: drivers/acpi/scan.c acpi_scan_check_and_detach() [v6.12], acpi_bus_trim() before"""
    acpi_memhotplug.acpi_memory_device_remove(k, device)


def acpi_scan_hot_remove(k: Kernel, device: AcpiDevice) -> None:
    """
    Eject a device.

    Raises:
        KernelError: EBUSY if what is bound to it cannot go offline.

    Source: drivers/acpi/scan.c acpi_scan_hot_remove()
    """
    acpi_scan_try_to_offline(k, device)
    acpi_scan_check_and_detach(k, device)
    acpi_evaluate_ej0(device)


def acpi_evaluate_ej0(device: AcpiDevice) -> None:
    """Have the platform take a device away. Source: drivers/acpi/utils.c acpi_evaluate_ej0()"""
    device.ejected = True


def acpi_bus_scan(k: Kernel, devices: Iterable[AcpiDevice]) -> dict[str, KernelError]:
    """
    Look for drivers of those devices that have none; returns why some were not taken, by name.

    Source: drivers/acpi/scan.c acpi_bus_scan(), acpi_bus_attach()
    """
    refusals: dict[str, KernelError] = {}
    for device in devices:
        if device.driver_data is not None:
            continue
        try:
            acpi_scan_attach_handler(k, device)
        except KernelError as err:
            refusals[device.name] = err
    return refusals


def acpi_scan_attach_handler(k: Kernel, device: AcpiDevice) -> None:
    """
    Let the driver of memory devices have a device.

    Raises:
        KernelError: it does not want it.

    Source: drivers/acpi/scan.c acpi_scan_attach_handler()
    """
    acpi_memhotplug.acpi_memory_device_add(k, device)


def acpi_scan_rescan_bus(k: Kernel) -> dict[str, KernelError]:
    """
    Look at every device of the bus again, those that no driver took before among them.

    Source: drivers/acpi/scan.c acpi_scan_rescan_bus() [v6.9]
    """
    return acpi_bus_scan(k, [k.acpi_devices[name] for name in sorted(k.acpi_devices)])


def acpi_scan_device_check(k: Kernel, device: AcpiDevice) -> KernelError | None:
    """
    A device has been plugged in: find its driver, since v6.9 that of every other device on the bus that has none, too.

    Returns:
        Why no driver took it, or None.

    Source: drivers/acpi/scan.c acpi_scan_device_check()
    """
    if device.driver_data is not None:
        return None
    refusals = acpi_scan_rescan_bus(k) if k.tree.acpi_rescans_bus else acpi_bus_scan(k, [device])
    return refusals.get(device.name)


def acpi_generic_hotplug_event(k: Kernel, device: AcpiDevice, type: int) -> KernelError | None:
    """
    Do what the platform asks for.

    Returns:
        Why a device that was plugged in is of no use, or None.

    Raises:
        KernelError: why a device cannot be ejected.

    Source: drivers/acpi/scan.c acpi_generic_hotplug_event()
    """
    if type == ACPI_NOTIFY_DEVICE_CHECK:
        return acpi_scan_device_check(k, device)
    assert type == ACPI_NOTIFY_EJECT_REQUEST
    acpi_evaluate_ost(device, ACPI_NOTIFY_EJECT_REQUEST, ACPI_OST_SC_EJECT_IN_PROGRESS)
    acpi_scan_hot_remove(k, device)
    return None


def acpi_device_hotplug(k: Kernel, device: AcpiDevice, src: int) -> KernelError | None:
    """
    Answer a notification; the platform hears of it by _OST.

    Args:
        src: ACPI_NOTIFY_DEVICE_CHECK or ACPI_NOTIFY_EJECT_REQUEST.

    Returns:
        Why the device is not used, or not given back; None if it is. (In C nobody hears of it.)

    Raises:
        KernelHangError: a lock is held by a task that died.

    Source: drivers/acpi/scan.c acpi_device_hotplug()
    """
    core.lock_device_hotplug(k)
    refusal: KernelError | None = None
    ost_code = ACPI_OST_SC_SUCCESS
    try:
        refusal = acpi_generic_hotplug_event(k, device, src)
    except KernelError as err:
        refusal = err
        ost_code = {EPERM: ACPI_OST_SC_EJECT_NOT_SUPPORTED, EBUSY: ACPI_OST_SC_DEVICE_BUSY}.get(
            err.errno or 0, ACPI_OST_SC_NON_SPECIFIC_FAILURE)
    acpi_evaluate_ost(device, src, ost_code)
    core.unlock_device_hotplug(k)
    return refusal
