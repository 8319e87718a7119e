# SPDX-License-Identifier: GPL-2.0-only
"""
Ways to reach physical memory: what a mapping is, and an access through the linear map.

A mapping that a caller is given is a `Mapping`: which bytes, and with which memory type. The linear map is `Kernel.linear`
(include/pgtable.py); an access through it where nothing is mapped is an oops, as on a real machine.

Source: include/linux/io.h, arch/*/include/asm/io.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memhp.linux import bug

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

LINEAR = "linear"
"""An address of the linear map: cacheable, and only there if somebody mapped it."""
NORMAL = "normal"
"""A mapping of its own, cacheable."""
DEVICE = "device"
UNCACHED = "uncached"
WRITECOMBINE = "writecombine"

CACHEABLE = frozenset({LINEAR, NORMAL})

MEMREMAP_WB, MEMREMAP_WT, MEMREMAP_WC = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Mapping:
    """
    What a caller was given to reach memory by.

    Attributes:
        phys: First byte.
        size: Bytes.
        kind: LINEAR, NORMAL, DEVICE, UNCACHED or WRITECOMBINE.
    """

    phys: int
    size: int
    kind: str


def linear_pieces(k: Kernel, phys: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of [phys, phys + size) that the linear map reaches. Source: none"""
    if k.linear is not None:
        yield from k.linear.mapped(phys, phys + size)


def linear_mapped(k: Kernel, phys: int, size: int = 1) -> bool:
    """Whether the linear map reaches all of [phys, phys + size). Source: none"""
    return sum(end - start for start, end in linear_pieces(k, phys, size)) >= size


def read_linear(k: Kernel, phys: int, size: int) -> None:
    """
    Read bytes [phys, phys + size) through the linear map.

    Raises:
        KernelBugError: nothing is mapped there.

    Source: none
    """
    if linear_mapped(k, phys, size):
        return
    position = phys
    for start, end in linear_pieces(k, phys, size):
        if start > position:
            break
        position = end
    address = k.arch.io.phys_to_virt(k, position)
    arm64 = f"Unable to handle kernel paging request at virtual address {address:016x}"
    text = arm64 if k.arch.name == "arm64" else f"BUG: unable to handle kernel paging request at {address:016x}"
    bug.oops(k.log, text, f"the linear address of physical {position:#x} was used, and nothing is mapped there")
