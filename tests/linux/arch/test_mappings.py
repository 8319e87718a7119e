# SPDX-License-Identifier: GPL-2.0-only
"""Reaching physical memory on both architectures: ioremap, memremap, /dev/mem, /dev/kmem, ACPI, DMA, kcore."""

from __future__ import annotations

from dataclasses import replace
from errno import EFAULT, EINVAL, EIO, ENXIO, EPERM

import pytest

from memhp.errors import KernelBugError, KernelError
from memhp.hardware import MemoryRange, platform
from memhp.linux import boot, tree
from memhp.linux.arch.arm64.include import memory as arm64_memory
from memhp.linux.arch.arm64.mm import ioremap as arm64_ioremap
from memhp.linux.drivers.char import mem
from memhp.linux.fs.proc import kcore
from memhp.linux.include import io
from memhp.linux.include.dma_mapping import dma_map_resource
from memhp.linux.include.io import DEVICE, LINEAR, NORMAL, UNCACHED, WRITECOMBINE, Mapping
from memhp.linux.include.ioport import IORESOURCE_MEM, Resource
from memhp.linux.include.pgtable import PMD, PTE, LinearMap
from memhp.linux.kernel import memremap, resource
from memhp.linux.mm import memory_hotplug
from memhp.linux.state import Kernel
from memhp.units import GIB, KIB, MIB

UART = 0x9000000
RAM = GIB + 512 * MIB
NOMAP = 2 * GIB - 32 * MIB


@pytest.fixture
def arm64() -> Kernel:
    """
    1 GiB of RAM; firmware owns 16 MiB of it.

         uart ... |================ RAM =============|nomap|=|
    """
    hardware = platform("arm64", mem=GIB)
    memory = (
        MemoryRange(GIB, NOMAP), MemoryRange(NOMAP, NOMAP + 16 * MIB, 0, ("NOMAP",)), MemoryRange(NOMAP + 16 * MIB, 2 * GIB))
    return boot.boot(tree.V4_9_RFC, "arm64", replace(hardware, memory=memory, managed=0))


@pytest.fixture
def x86() -> Kernel:
    return boot.boot(tree.V4_9, "x86_64", platform("x86_64", mem=GIB))


def test_arm64_maps_whole_pages(arm64: Kernel) -> None:
    """The mapping covers the pages that the bytes touch."""
    assert Mapping(UART, 4 * KIB, DEVICE) == arm64.arch.io.ioremap(arm64, UART + 0x18, 4)
    assert Mapping(UART, 8 * KIB, DEVICE) == arm64.arch.io.ioremap(arm64, UART + 0xFFE, 4)
    assert Mapping(UART, 4 * KIB, UNCACHED) == arm64.arch.io.ioremap_wc(arm64, UART, 1)


@pytest.mark.parametrize(("phys", "size"), [(UART, 0), ((1 << 48) - 4 * KIB, 8 * KIB), (1 << 48, 1)])
def test_arm64_maps_no_nonsense(arm64: Kernel, phys: int, size: int) -> None:
    """Nothing, and what lies beyond the 48 bits of an address."""
    assert None is arm64.arch.io.ioremap(arm64, phys, size)


def test_arm64_refuses_ram_with_a_warning(arm64: Kernel) -> None:
    """ "Don't allow RAM to be mapped": but firmware's is."""
    lines = len(arm64.log.lines)
    assert None is arm64.arch.io.ioremap(arm64, RAM, 4)
    assert ["WARNING: at arch/arm64/mm/ioremap.c __ioremap_caller()"] == arm64.log.lines[lines:]
    assert Mapping(NOMAP, 4 * KIB, DEVICE) == arm64.arch.io.ioremap(arm64, NOMAP, 4)


def test_arm64_cached(arm64: Kernel) -> None:
    """RAM has an address already; firmware's memory gets one."""
    assert Mapping(RAM, 100, LINEAR) == arm64_ioremap.ioremap_cache(arm64, RAM, 100)
    assert Mapping(NOMAP, 4 * KIB, NORMAL) == arm64_ioremap.ioremap_cache(arm64, NOMAP, 100)


def test_arm64_acpi(arm64: Kernel) -> None:
    """Tables in memory are cached, whoever owns it; elsewhere it is a device."""
    kinds = [getattr(arm64.arch.io.acpi_os_ioremap(arm64, phys, 64), "kind", None) for phys in (RAM, NOMAP, UART)]
    assert [LINEAR, NORMAL, DEVICE] == kinds


def test_linear_addresses(arm64: Kernel, x86: Kernel) -> None:
    """There and back; the linear map begins where memory does, down to 1 GiB."""
    assert GIB == arm64_memory.PHYS_OFFSET(arm64)
    for k in (arm64, x86):
        for phys in (RAM, RAM + 1, NOMAP, 5 * GIB):
            address = k.arch.io.phys_to_virt(k, phys)
            assert address >> 47 == (1 << 17) - 1
            assert phys == k.arch.io.virt_to_phys(k, address)
    assert 0xFFFF800000000000 == arm64.arch.io.phys_to_virt(arm64, GIB)
    assert 0xFFFF880000000000 == x86.arch.io.phys_to_virt(x86, 0)


def test_good_addresses(arm64: Kernel, x86: Kernel) -> None:
    """virt_addr_valid() goes by the pfn alone, kern_addr_valid() by the mapping, too."""
    for valid in (arm64.arch.io.virt_addr_valid, arm64.arch.io.kern_addr_valid):
        assert valid(arm64, arm64.arch.io.phys_to_virt(arm64, RAM))
        assert not valid(arm64, arm64.arch.io.phys_to_virt(arm64, NOMAP))
        assert not valid(arm64, 0x1000), "a user address"
    hole = 512 * MIB
    k = boot.boot(tree.V4_9, "x86_64", replace(
        platform("x86_64", mem=GIB), managed=0,
        memory=(MemoryRange(0x1000, 0x9F000), MemoryRange(MIB, hole), MemoryRange(hole + MIB, GIB))))
    address = k.arch.io.phys_to_virt(k, hole)
    assert k.arch.io.virt_addr_valid(k, address), "the section is valid"
    assert not k.arch.io.kern_addr_valid(k, address), "and nothing is mapped"
    assert not x86.arch.io.virt_addr_valid(x86, 0x1000)
    assert not x86.arch.io.virt_addr_valid(x86, x86.arch.io.phys_to_virt(x86, 1 << 46)), "46 bits are all there are"


def test_x86_looks_at_pages_in_use(x86: Kernel) -> None:
    """Pages of RAM that are reserved may be mapped (the kernel's own image is), others not; the ISA range is mapped always."""
    assert None is x86.arch.io.ioremap(x86, 512 * MIB, 4)
    assert "ioremap on RAM at 0x20000000 - 0x20000003" == x86.log.lines[-1]
    assert Mapping(0x1000000, 4 * KIB, UNCACHED) == x86.arch.io.ioremap(x86, 0x1000000, 4), "the kernel's text"
    assert Mapping(0xB8000, 4000, LINEAR) == x86.arch.io.ioremap(x86, 0xB8000, 4000)
    assert Mapping(0xFEBD0000, 4 * KIB, UNCACHED) == x86.arch.io.ioremap(x86, 0xFEBD0000, 16)
    assert None is x86.arch.io.ioremap(x86, 1 << 46, 16)


@pytest.mark.parametrize("flags", [0, io.MEMREMAP_WT, io.MEMREMAP_WC, io.MEMREMAP_WT | io.MEMREMAP_WC])
def test_memremap_of_ram_is_write_back_or_nothing(arm64: Kernel, flags: int) -> None:
    """RAM has one memory type."""
    assert None is memremap.memremap(arm64, RAM, 64, flags)
    assert Mapping(RAM, 64, LINEAR) == memremap.memremap(arm64, RAM, 64, flags | io.MEMREMAP_WB)


def test_memremap_elsewhere(arm64: Kernel) -> None:
    """Firmware's memory gets a mapping; a mixed range none; a device one of the type asked for."""
    assert Mapping(NOMAP, 4 * KIB, NORMAL) == memremap.memremap(arm64, NOMAP, 64, io.MEMREMAP_WB)
    assert None is memremap.memremap(arm64, NOMAP - MIB, 2 * MIB, io.MEMREMAP_WB)
    assert "memremap attempted on mixed range" in arm64.log.lines[-1]
    assert Mapping(UART, 4 * KIB, UNCACHED) == memremap.memremap(arm64, UART, 64, io.MEMREMAP_WC)
    assert Mapping(UART, 4 * KIB, DEVICE) == memremap.memremap(arm64, UART, 64, io.MEMREMAP_WT | io.MEMREMAP_WC)


def test_device_memory_that_is_ram(x86: Kernel) -> None:
    """devm_memremap_pages() of RAM gives the linear address; of half RAM, half something else, nothing."""
    before = dict(x86.mem_section)
    assert Mapping(256 * MIB, MIB, LINEAR) == memremap.devm_memremap_pages(x86, 0, 256 * MIB, MIB)
    resource.request_resource(x86, x86.iomem_rw(), Resource(GIB, GIB + MIB - 1, "pmem", IORESOURCE_MEM))
    with pytest.raises(KernelError) as caught:
        memremap.devm_memremap_pages(x86, 0, GIB - 128 * MIB, 256 * MIB)
    assert ENXIO == caught.value.errno
    assert before == x86.mem_section


def test_dev_mem_reads(arm64: Kernel, x86: Kernel) -> None:
    """Bytes, over page borders; below memory and above high_memory it is EFAULT; what is not mapped is an oops."""
    assert 5000 == mem.read_mem(arm64, RAM + 100, 5000)
    for phys in (UART, 2 * GIB):
        with pytest.raises(KernelError) as caught:
            mem.read_mem(arm64, phys, 16)
        assert EFAULT == caught.value.errno
    with pytest.raises(KernelBugError, match="Unable to handle kernel paging request at virtual address ffff80003e000000"):
        mem.read_mem(arm64, NOMAP - 4 * KIB, 8 * KIB)
    assert 16 == mem.read_mem(x86, 512 * MIB, 16)
    assert 16 == mem.read_mem(x86, 0xF0000, 16), "the ROM is no RAM: it is mapped for the reader"


def test_hot_added_memory_is_beyond_dev_mem(arm64: Kernel) -> None:
    """On arm64 nobody raises high_memory."""
    memory_hotplug.add_memory(arm64, 0, 2 * GIB, GIB)
    with pytest.raises(KernelError) as caught:
        mem.read_mem(arm64, 2 * GIB, 16)
    assert EFAULT == caught.value.errno


def test_strict_devmem(arm64: Kernel, x86: Kernel) -> None:
    """No System RAM; on x86 the first megabyte is free for all."""
    for k, phys in ((arm64, RAM), (x86, 512 * MIB)):
        k.config = replace(k.config, STRICT_DEVMEM=True)
        with pytest.raises(KernelError) as caught:
            mem.mmap_mem(k, phys >> 12, 4 * KIB)
        assert EPERM == caught.value.errno
        with pytest.raises(KernelError) as caught:
            mem.read_mem(k, phys, 16)
        assert EPERM == caught.value.errno
    assert Mapping(UART, 4 * KIB, UNCACHED) == mem.mmap_mem(arm64, UART >> 12, 4 * KIB)
    assert 4 * KIB == mem.read_mem(x86, 0x9000, 4 * KIB)


def test_dev_mem_maps(arm64: Kernel, x86: Kernel) -> None:
    """arm64 caches RAM (with O_SYNC: write-combining), nothing else; no address beyond 48 bits."""
    pages = {phys: mem.mmap_mem(arm64, phys >> 12, 4 * KIB).kind for phys in (RAM, NOMAP, UART)}
    assert {RAM: NORMAL, NOMAP: UNCACHED, UART: UNCACHED} == pages
    assert WRITECOMBINE == mem.mmap_mem(arm64, RAM >> 12, 4 * KIB, sync=True).kind
    with pytest.raises(KernelError) as caught:
        mem.mmap_mem(arm64, 1 << 36, 4 * KIB)
    assert EINVAL == caught.value.errno
    assert NORMAL == mem.mmap_mem(x86, 1 << 36, 4 * KIB).kind


def test_dev_kmem(arm64: Kernel) -> None:
    """mmap asks for the page behind the address; read asks for a pfn that is none, so v4.9's guard always says EIO."""
    assert Mapping(RAM, 4 * KIB, NORMAL) == mem.mmap_kmem(arm64, RAM, 4 * KIB)
    with pytest.raises(KernelError) as caught:
        mem.mmap_kmem(arm64, NOMAP, 4 * KIB)
    assert EIO == caught.value.errno
    with pytest.raises(KernelError) as caught:
        mem.read_kmem(arm64, arm64.arch.io.phys_to_virt(arm64, RAM), 16)
    assert EIO == caught.value.errno


def test_dma(arm64: Kernel) -> None:
    """Registers yes, RAM never."""
    assert Mapping(UART, 4, DEVICE) == dma_map_resource(arm64, UART, 4)
    with pytest.raises(KernelBugError, match="dma_map_resource"):
        dma_map_resource(arm64, RAM, 4)


def test_kcore(arm64: Kernel) -> None:
    """System RAM up to the end of the nodes with memory; what is not there reads as zeros."""
    assert [(GIB, NOMAP), (NOMAP + 16 * MIB, 2 * GIB)] == kcore.kcore_update_ram(arm64)
    assert [True, False, False] == [kcore.read_kcore(arm64, phys, 8) for phys in (RAM, NOMAP, UART)]


def test_the_linear_map_in_pieces(arm64: Kernel) -> None:
    """A range is mapped if all of it is, by however many pieces; an access dies at the first byte that is not."""
    arm64.linear = LinearMap((0, 1, 2), 0, arm64.token)
    for start, end, kind in ((0, 10, PTE), (10, 20, PMD), (30, 40, PTE)):
        arm64.linear.leaves.add(start, end, kind)
    assert io.linear_mapped(arm64, 5, 15)
    assert not io.linear_mapped(arm64, 5, 16)
    assert not io.linear_mapped(arm64, 20)
    with pytest.raises(KernelBugError, match="linear address of physical 0x14 "):
        io.read_linear(arm64, 5, 30)
