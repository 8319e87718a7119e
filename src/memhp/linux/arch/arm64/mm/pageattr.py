# SPDX-License-Identifier: GPL-2.0-only
"""
arm64: whether single pages of the linear map may have to be protected, so that it must be made of pages.

Source: arch/arm64/mm/pageattr.c [v6.1, v6.12].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def rodata_full(k: Kernel) -> bool:
    """Whether `rodata=full` is in force. Source: none; arch/arm64/include/asm/setup.h arch_parse_debug_rodata()"""
    word = k.cmdline.get("rodata")
    if word in ("full", "on", "off"):
        return word == "full"
    return k.config.RODATA_FULL_DEFAULT_ENABLED


def can_set_direct_map(k: Kernel) -> bool:
    """
    Whether the linear map is made of pages: rodata=full; or KFENCE may be switched on late, which Debian's v6.12 is built for.

    Source: arch/arm64/mm/pageattr.c can_set_direct_map() [v6.1, v6.12]
    """
    return rodata_full(k) or arm64_kfence_can_set_direct_map(k)


def arm64_kfence_can_set_direct_map(k: Kernel) -> bool:
    """
    Whether KFENCE comes late: its pool is not mapped with pages at boot, so that everything must be.

    Source: arch/arm64/include/asm/kfence.h arm64_kfence_can_set_direct_map() [v6.4]
    """
    if not k.config.KFENCE:
        return False
    interval = k.cmdline.get("kfence.sample_interval")
    return not (k.config.KFENCE_SAMPLE_INTERVAL if interval is None else interval not in ("", "0"))
