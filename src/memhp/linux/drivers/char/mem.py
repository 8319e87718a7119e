# SPDX-License-Identifier: GPL-2.0-only
"""
/dev/mem and /dev/kmem.

Source: drivers/char/mem.c [v4.9].
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EIO, EPERM
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.include import mmzone
from memhp.linux.include.io import LINEAR, Mapping, read_linear

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def size_inside_page(k: Kernel, start: int, size: int) -> int:
    """Source: drivers/char/mem.c size_inside_page()"""
    return min(k.PAGE_SIZE - (start & (k.PAGE_SIZE - 1)), size)


def range_is_allowed(k: Kernel, pfn: int, size: int) -> bool:
    """Ask devmem_is_allowed() of each page, under STRICT_DEVMEM. Source: drivers/char/mem.c range_is_allowed() [v4.9]"""
    if not k.config.STRICT_DEVMEM:
        return True
    return all(k.arch.io.devmem_is_allowed(k, pfn + i) for i in range(-(-size >> k.PAGE_SHIFT)))


def read_mem(k: Kernel, ppos: int, count: int) -> int:
    """
    Read /dev/mem; returns the bytes read.

    Raises:
        KernelError: EFAULT outside what the architecture lets one read; EPERM under STRICT_DEVMEM.
        KernelBugError: a linear address without a mapping was read.

    Source: drivers/char/mem.c read_mem() [v4.9]
    """
    p = ppos
    if not k.arch.io.valid_phys_addr_range(k, p, count):
        raise KernelError(EFAULT, "beyond the memory that /dev/mem shows", address=p)
    read = 0
    while count > 0:
        sz = size_inside_page(k, p, count)
        if not range_is_allowed(k, p >> k.PAGE_SHIFT, count):
            raise KernelError(EPERM, "STRICT_DEVMEM: System RAM", address=p)
        ptr = k.arch.io.xlate_dev_mem_ptr(k, p)
        if ptr is None:
            raise KernelError(EFAULT, "no mapping is to be had", address=p)
        if ptr.kind == LINEAR:
            read_linear(k, p, sz)
        p += sz
        count -= sz
        read += sz
    return read


def mmap_mem(k: Kernel, vm_pgoff: int, size: int, sync: bool = False) -> Mapping:
    """
    Map /dev/mem into a process.

    Args:
        vm_pgoff: First pfn.
        size: Bytes.
        sync: The file was opened with O_SYNC.

    Raises:
        KernelError: EINVAL beyond the physical address space; EPERM under STRICT_DEVMEM.

    Source: drivers/char/mem.c mmap_mem() [v4.9]
    """
    if not k.arch.io.valid_mmap_phys_addr_range(k, vm_pgoff, size):
        raise KernelError(EINVAL, "beyond the physical address space", pfn=vm_pgoff)
    if not range_is_allowed(k, vm_pgoff, size):
        raise KernelError(EPERM, "STRICT_DEVMEM: System RAM", pfn=vm_pgoff)
    prot = k.arch.io.phys_mem_access_prot(k, vm_pgoff, size, sync)
    return Mapping(vm_pgoff << k.PAGE_SHIFT, size, prot)


def mmap_kmem(k: Kernel, phys: int, size: int) -> Mapping:
    """
    Map /dev/kmem into a process, at the linear address of `phys`.

    Raises:
        KernelError: EIO unless pfn_valid(); what mmap_mem() says.

    Source: drivers/char/mem.c mmap_kmem() [v4.9]
    """
    pfn = phys >> k.PAGE_SHIFT
    if not mmzone.pfn_valid(k, pfn):
        raise KernelError(EIO, "pfn_valid() is false", pfn=pfn)
    return mmap_mem(k, pfn, size)


def read_kmem(k: Kernel, p: int, count: int) -> int:
    """
    Read /dev/kmem at a virtual address; returns the bytes read.

    The guard asks pfn_valid() of the virtual address's own page number, not of the page behind it.

    Raises:
        KernelError: EIO unless pfn_valid().
        KernelBugError: a linear address without a mapping was read.

    Source: drivers/char/mem.c read_kmem() [v4.9], the part below high_memory
    """
    if not mmzone.pfn_valid(k, p >> k.PAGE_SHIFT):
        raise KernelError(EIO, "pfn_valid() is false for this virtual address", address=p)
    phys = k.arch.io.virt_to_phys(k, p)
    if phys >= k.high_memory:
        return 0
    count = min(count, k.high_memory - phys)
    read_linear(k, phys, count)
    return count
