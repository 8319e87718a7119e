# SPDX-License-Identifier: GPL-2.0-only
"""
Pages on their way to the LRU lists: per-cpu batches, which are not kept here.

Source: mm/swap.c [v6.1, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def lru_cache_disable(k: Kernel) -> None:
    """Let pages go to the LRU lists at once, and those on their way arrive. Source: mm/swap.c lru_cache_disable() [v5.14]"""


def lru_cache_enable(k: Kernel) -> None:
    """Source: include/linux/swap.h lru_cache_enable() [v5.14]"""
