# SPDX-License-Identifier: GPL-2.0-only
"""DIMMs come and go by ACPI; what the platform hears was seen on Debian's 6.12 in QEMU."""

from __future__ import annotations

from memhp.backends import base
from memhp.backends.model import ModelBackend
from memhp.linux.include.acpi_bus import (
    ACPI_NOTIFY_DEVICE_CHECK,
    ACPI_NOTIFY_EJECT_REQUEST,
    ACPI_OST_SC_EJECT_IN_PROGRESS,
    ACPI_OST_SC_SUCCESS,
)
from memhp.scenario import Plug, Unplug
from memhp.units import MIB

ARM64 = "model:v6.12/arm64?mem=1G&cmdline=memhp_default_state%3Doffline"


def machine() -> ModelBackend:
    found = base.open(ARM64)
    assert isinstance(found, ModelBackend)
    return found


def test_a_refused_dimm_is_tried_again_with_every_other_one() -> None:
    """
    Linux answers "success" to a DIMM it could not add; since v6.9 it tries it again whenever a device is plugged in.

    Slot by slot: the first DIMM of 192 MiB ends inside a block, so the second one begins there.
    """
    backend = machine()
    k = backend.kernel
    assert base.apply(backend, Plug(id="d1", size=192 * MIB)).word == "refused"
    assert k.acpi_devices["PNP0C80:00"].ost == [(ACPI_NOTIFY_DEVICE_CHECK, ACPI_OST_SC_SUCCESS)]
    answer = base.apply(backend, Plug(id="d2", size=384 * MIB))
    assert answer.word == "refused"
    assert answer.log == (
        "Block size [0x8000000] unaligned hotplug range: start 0x80000000, size 0xc000000",
        "acpi PNP0C80:00: add_memory failed",
        "acpi PNP0C80:00: acpi_memory_enable_device() error",
        "Block size [0x8000000] unaligned hotplug range: start 0x8c000000, size 0x18000000",
        "acpi PNP0C80:01: add_memory failed",
        "acpi PNP0C80:01: acpi_memory_enable_device() error",
    )
    assert [(d.id, d.start) for d in backend.devices()] == [("d1", 0x80000000), ("d2", 0x8C000000)]
    assert k.memory_groups == {}


def test_a_refused_dimm_can_go() -> None:
    """Nothing is bound to it, so nothing holds it; its place and its slot are free again."""
    backend = machine()
    base.apply(backend, Plug(id="d1", size=192 * MIB))
    device = backend.kernel.acpi_devices["PNP0C80:00"]
    assert base.apply(backend, Unplug(id="d1")).word == "accepted"
    assert device.ost == [
        (ACPI_NOTIFY_EJECT_REQUEST, ACPI_OST_SC_EJECT_IN_PROGRESS), (ACPI_NOTIFY_EJECT_REQUEST, ACPI_OST_SC_SUCCESS)]
    assert base.apply(backend, Plug(id="d2", size=384 * MIB)).word == "accepted"
    assert backend.kernel.acpi_devices["PNP0C80:00"].physical_nodes == (16, 17, 18)


def test_what_is_not_there_cannot_go() -> None:
    backend = machine()
    assert base.apply(backend, Unplug(id="d1")).log == ("there is no device d1",)
