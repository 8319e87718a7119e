# SPDX-License-Identifier: GPL-2.0-only
"""
A device that ACPI describes, and what the platform hears of it.

Source: include/acpi/acpi_bus.h, include/linux/acpi.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

ACPI_NOTIFY_DEVICE_CHECK = 1
ACPI_NOTIFY_EJECT_REQUEST = 3

ACPI_OST_SC_SUCCESS = 0x0
ACPI_OST_SC_NON_SPECIFIC_FAILURE = 0x1
ACPI_OST_SC_EJECT_NOT_SUPPORTED = 0x80
ACPI_OST_SC_DEVICE_BUSY = 0x82
ACPI_OST_SC_EJECT_IN_PROGRESS = 0x84


@dataclass(slots=True)
class AcpiMemoryDevice:
    """
    struct acpi_memory_device: what the driver of a memory device knows.

    Attributes:
        mgid: Its memory group, or -1 [v5.15].
        enabled: Its memory has been added, or was there already.
    """

    mgid: int = -1
    enabled: bool = False


@dataclass(slots=True)
class AcpiDevice:
    """
    struct acpi_device of a memory device.

    Attributes:
        name: "PNP0C80:01".
        start: First byte of its memory (_CRS).
        length: Bytes.
        node: Its node (_PXM), or -1.
        driver_data: What its driver knows; None while no driver is bound.
        physical_nodes: The memory blocks bound to it, in order.
        put_online: Those of them that were taken offline so that it could go.
        ost: What it has told the platform since it was last asked: (event, status) of each _OST.
        ejected: _EJ0 has been called: the platform takes it away.
    """

    name: str
    start: int
    length: int
    node: int = -1
    driver_data: AcpiMemoryDevice | None = None
    physical_nodes: tuple[int, ...] = ()
    put_online: frozenset[int] = frozenset()
    ost: list[tuple[int, int]] = field(default_factory=list)
    ejected: bool = False

    def copy(self) -> AcpiDevice:
        data = None if self.driver_data is None else replace(self.driver_data)
        return replace(self, driver_data=data, ost=self.ost[:])
