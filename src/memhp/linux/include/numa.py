# SPDX-License-Identifier: GPL-2.0-only
"""Node numbers. Source: include/linux/numa.h."""

from __future__ import annotations

MAX_NUMNODES = 1 << 6
"""One more than the highest node id; as a region's node it means "none"."""
NUMA_NO_NODE = -1
