# SPDX-License-Identifier: GPL-2.0-only
"""
The default CMA area, from which drivers get large buffers.

Source: kernel/dma/contiguous.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.mm import cma
from memhp.units import MIB

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def dma_contiguous_reserve(k: Kernel, limit: int) -> None:
    """
    Set the default CMA area aside, below `limit`.

    Source: kernel/dma/contiguous.c dma_contiguous_reserve() [all], without `cma=` on the command line
    """
    if k.config.CMA and k.config.CMA_SIZE_MBYTES:
        cma.cma_declare_contiguous_nid(k, k.config.CMA_SIZE_MBYTES * MIB, limit)
