# SPDX-License-Identifier: GPL-2.0-only
"""
A DIMM arrives: the ACPI memory device driver.

Source: drivers/acpi/acpi_memhotplug.c [v4.9].
"""

from __future__ import annotations

from errno import EEXIST, EINVAL
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.bug import printk
from memhp.linux.mm import memory_hotplug

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def acpi_memory_enable_device(k: Kernel, start: int, length: int, node: int) -> None:
    """
    Add the device's memory. Memory that is there already (EEXIST) counts as enabled.

    Args:
        start: First byte.
        length: Bytes; 0 is skipped.
        node: Node of the device (_PXM), or -1 if it has none.

    Raises:
        KernelError: EINVAL if nothing could be enabled; its cause says why.

    Source: drivers/acpi/acpi_memhotplug.c acpi_memory_enable_device() [v4.9]
    """
    num_enabled = 0
    cause: KernelError | None = None
    if length:
        if node < 0:
            node = k.arch.memory_add_physaddr_to_nid(k, start)
        try:
            memory_hotplug.add_memory(k, node, start, length)
            num_enabled += 1
        except KernelError as err:
            cause = err
            if err.errno == EEXIST:
                num_enabled += 1
    if not num_enabled:
        printk(k.log, "acpi PNP0C80: add_memory failed")
        reason = f"add_memory() failed: {cause.name}: {cause.reason}" if cause is not None else "the device has no memory"
        raise KernelError(EINVAL, reason, start=start, length=length) from cause


def acpi_memory_device_add(k: Kernel, start: int, length: int, node: int) -> None:
    """
    Bind the driver to a memory device that appeared.

    Raises:
        KernelError: EINVAL if its memory could not be enabled.

    Source: drivers/acpi/acpi_memhotplug.c acpi_memory_device_add() [v4.9]
    """
    try:
        acpi_memory_enable_device(k, start, length, node)
    except KernelError as err:
        printk(k.log, f"acpi PNP0C80: acpi_memory_enable_device() error {-(err.errno or 0)}")
        raise
