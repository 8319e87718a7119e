# SPDX-License-Identifier: GPL-2.0-only
"""
How a block is to be brought online.

Source: include/linux/memory_hotplug.h [v4.9].
"""

from __future__ import annotations

MMOP_OFFLINE = -1
MMOP_ONLINE_KEEP = 0
MMOP_ONLINE_KERNEL = 1
MMOP_ONLINE_MOVABLE = 2
