# SPDX-License-Identifier: GPL-2.0-only
"""
x86: what of /dev/mem may be touched under STRICT_DEVMEM.

Source: arch/x86/mm/init.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.kernel import resource

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def devmem_is_allowed(k: Kernel, pagenr: int) -> bool:
    """
    The first megabyte, and what is no System RAM. (Nothing here is marked exclusive.)

    Source: arch/x86/mm/init.c devmem_is_allowed() [v4.9]
    """
    if pagenr < 256:
        return True
    return not resource.page_is_ram(k, pagenr)
