# SPDX-License-Identifier: GPL-2.0-only
"""
CONFIG_ symbols that memory hotplug can see, their values in the recorded kernels, and what depends on what.

Source: mm/Kconfig, arch/arm64/Kconfig, arch/x86/Kconfig.
"""

from __future__ import annotations

from dataclasses import dataclass

from memhp.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kconfig:
    """
    A kernel configuration. Fields are CONFIG_ symbols; the defaults are those of the recorded v4.9 x86_64 kernel.

    Attributes:
        PAGE_SHIFT: 12, 14 or 16. (In C a constant of the architecture.)
    """

    PAGE_SHIFT: int = 12
    SPARSEMEM_EXTREME: bool = True
    SPARSEMEM_VMEMMAP: bool = True
    MEMORY_HOTPLUG: bool = True
    MEMORY_HOTREMOVE: bool = True
    MEMORY_HOTPLUG_DEFAULT_ONLINE: bool = False
    ARCH_MEMORY_PROBE: bool = True
    ACPI_HOTPLUG_MEMORY: bool = True
    MOVABLE_NODE: bool = False
    NUMA: bool = True
    ZONE_DMA: bool = False
    ZONE_DMA32: bool = True
    ZONE_DEVICE: bool = False
    HAVE_ARCH_PFN_VALID: bool = False
    HOLES_IN_ZONE: bool = False
    HUGETLB_PAGE: bool = False
    FIRMWARE_MEMMAP: bool = True
    ARCH_DISCARD_MEMBLOCK: bool = True
    FORCE_MAX_ZONEORDER: int = 11
    DEBUG_VM: bool = False
    STRICT_DEVMEM: bool = False

    @property
    def zones(self) -> tuple[str, ...]:
        """Names of the zones of a node, lowest first, as `zone_names[]`."""
        names = []
        if self.ZONE_DMA:
            names.append("DMA")
        if self.ZONE_DMA32:
            names.append("DMA32")
        names += ["Normal", "Movable"]
        if self.ZONE_DEVICE:
            names.append("Device")
        return tuple(names)


X86_64 = Kconfig()
ARM64 = Kconfig(
    NUMA=False, ZONE_DMA=True, ZONE_DMA32=False, HAVE_ARCH_PFN_VALID=True, FIRMWARE_MEMMAP=False, ARCH_DISCARD_MEMBLOCK=False)

DEFAULTS = {"arm64": ARM64, "x86_64": X86_64}


def default(arch: str) -> Kconfig:
    """
    Return the configuration of the recorded kernel of that architecture.

    Raises:
        ConfigError: no such architecture.
    """
    try:
        return DEFAULTS[arch]
    except KeyError:
        raise ConfigError(f"no architecture {arch!r}: known are {', '.join(DEFAULTS)}") from None


def check(config: Kconfig, arch: str) -> None:
    """
    Refuse what Kconfig would not let one select.

    Raises:
        ConfigError: lists every reason.
    """
    reasons = []
    if config.MEMORY_HOTREMOVE and not config.MEMORY_HOTPLUG:
        reasons.append("MEMORY_HOTREMOVE depends on MEMORY_HOTPLUG")
    if config.ARCH_MEMORY_PROBE and not config.MEMORY_HOTPLUG:
        reasons.append("ARCH_MEMORY_PROBE depends on MEMORY_HOTPLUG")
    if config.MOVABLE_NODE and not config.NUMA:
        reasons.append("MOVABLE_NODE depends on NUMA")
    if not config.SPARSEMEM_VMEMMAP:
        reasons.append("SPARSEMEM_VMEMMAP off: a memmap without vmemmap is not modelled")
    if arch == "x86_64" and config.HAVE_ARCH_PFN_VALID:
        reasons.append("HAVE_ARCH_PFN_VALID: x86_64 has no pfn_valid() of its own")
    if arch == "x86_64" and config.PAGE_SHIFT != 12:
        reasons.append(f"x86_64 has 4K pages, not {1 << config.PAGE_SHIFT >> 10}K")
    if config.PAGE_SHIFT not in (12, 14, 16):
        reasons.append(f"PAGE_SHIFT={config.PAGE_SHIFT}: 12, 14 or 16")
    if arch == "arm64" and config.ZONE_DMA32:
        reasons.append("ZONE_DMA32: arm64 v4.9 has ZONE_DMA only")
    if reasons:
        raise ConfigError(reasons)
