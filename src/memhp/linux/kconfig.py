# SPDX-License-Identifier: GPL-2.0-only
"""
CONFIG_ symbols that memory hotplug can see, their values in the recorded kernels, and what depends on what.

A configuration is chosen by release, architecture and page size: v4.9 as it was recorded, the others as Debian's cloud kernels
are built (with 16K pages: Debian's arm64-16k kernel).

Source: mm/Kconfig, arch/arm64/Kconfig, arch/x86/Kconfig.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from memhp.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kconfig:
    """
    A kernel configuration. Fields are CONFIG_ symbols; the defaults are those of the recorded v4.9 x86_64 kernel.

    Attributes:
        PAGE_SHIFT: 12, 14 or 16. (In C a constant of the architecture.)
        MEMORY_HOTPLUG_DEFAULT_ONLINE: What is added goes online by itself; in v6.12 MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO.
        FORCE_MAX_ZONEORDER: Number of orders of the page allocator; from v6.4 on ARCH_FORCE_MAX_ORDER, the largest order itself.
        ARCH_DISCARD_MEMBLOCK: memblock goes away after boot; from v5.3 on the opposite of ARCH_KEEP_MEMBLOCK.
        CMA_SIZE_MBYTES: Size of the default CMA area.
        NODES_SHIFT: log2 of the node ids there may be.
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
    NODES_SHIFT: int = 6
    CMA: bool = False
    CMA_SIZE_MBYTES: int = 64
    MEMORY_FAILURE: bool = False
    UNACCEPTED_MEMORY: bool = False
    ZSWAP: bool = False
    TRANSPARENT_HUGEPAGE: bool = False
    CRASH_HOTPLUG: bool = False
    MHP_MEMMAP_ON_MEMORY: bool = False
    HMEM_REPORTING: bool = False
    X86_5LEVEL: bool = False
    RANDOMIZE_MEMORY: bool = False
    RANDOMIZE_MEMORY_PHYSICAL_PADDING: int = 10
    ARM64_VA_BITS: int = 48
    RODATA_FULL_DEFAULT_ENABLED: bool = False
    KFENCE: bool = False
    KFENCE_SAMPLE_INTERVAL: int = 100

    @property
    def ARCH_KEEP_MEMBLOCK(self) -> bool:
        """memblock stays after boot. (v4.9 has the opposite symbol.)"""
        return not self.ARCH_DISCARD_MEMBLOCK

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

# Debian's cloud kernels of bullseye: what they all have in common.
_DEBIAN = Kconfig(
    ARCH_MEMORY_PROBE=False, ZONE_DMA=True, HUGETLB_PAGE=True, TRANSPARENT_HUGEPAGE=True, STRICT_DEVMEM=True, HMEM_REPORTING=True,
    MEMORY_FAILURE=True)
_DEBIAN_ARM64 = replace(
    _DEBIAN, FIRMWARE_MEMMAP=False, ARCH_DISCARD_MEMBLOCK=False, NODES_SHIFT=4, CMA=True, RODATA_FULL_DEFAULT_ENABLED=True)
_DEBIAN_X86_64 = replace(_DEBIAN, ZONE_DEVICE=True, NODES_SHIFT=10, MEMORY_FAILURE=False, RANDOMIZE_MEMORY=True)

DEBIAN = {
    ("v5.10", "arm64"): replace(_DEBIAN_ARM64, HAVE_ARCH_PFN_VALID=True, HOLES_IN_ZONE=True),
    ("v5.10", "x86_64"): _DEBIAN_X86_64,
    ("v6.1", "arm64"): replace(_DEBIAN_ARM64, MHP_MEMMAP_ON_MEMORY=True),
    ("v6.1", "x86_64"): replace(_DEBIAN_X86_64, MHP_MEMMAP_ON_MEMORY=True, X86_5LEVEL=True),
    ("v6.12", "arm64"): replace(
        _DEBIAN_ARM64, ZONE_DEVICE=True, MHP_MEMMAP_ON_MEMORY=True, MEMORY_HOTPLUG_DEFAULT_ONLINE=True, ARM64_VA_BITS=52,
        KFENCE=True, KFENCE_SAMPLE_INTERVAL=0),
    ("v6.12", "x86_64"): replace(
        _DEBIAN_X86_64, MEMORY_FAILURE=True, MHP_MEMMAP_ON_MEMORY=True, MEMORY_HOTPLUG_DEFAULT_ONLINE=True, CRASH_HOTPLUG=True,
        UNACCEPTED_MEMORY=True, X86_5LEVEL=True),
}
"""By release and architecture, with 4K pages."""


def default(arch: str, release: str = "v4.9", page_size: int = 4096) -> Kconfig:
    """
    Return the configuration of the recorded kernel of that architecture and release.

    Args:
        arch: "arm64" or "x86_64".
        release: "v4.9", "v6.12".
        page_size: Bytes; on arm64 the largest order of the page allocator goes by it.

    Raises:
        ConfigError: no such architecture.
    """
    config = DEBIAN.get((release, arch)) or DEFAULTS.get(arch)
    if config is None:
        raise ConfigError(f"no architecture {arch!r}: known are {', '.join(DEFAULTS)}")
    shift = page_size.bit_length() - 1
    if shift != config.PAGE_SHIFT and config.TRANSPARENT_HUGEPAGE:
        # arch/arm64/Kconfig: with huge pages the largest block is 32 MiB (16K pages) or 512 MiB (64K). Debian's 16K kernel comes
        # without ACPI_HOTPLUG_MEMORY.
        order = {14: 12, 16: 14}.get(shift, 11)
        config = replace(config, FORCE_MAX_ZONEORDER=order, ACPI_HOTPLUG_MEMORY=shift != 14, ZSWAP=shift == 14)
    return replace(config, PAGE_SHIFT=shift)


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
    if reasons:
        raise ConfigError(reasons)
