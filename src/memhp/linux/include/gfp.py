# SPDX-License-Identifier: GPL-2.0-only
"""
What an allocation asks for.

Source: include/linux/gfp.h [v4.9].
"""

from __future__ import annotations

from dataclasses import dataclass

from memhp.linux.include.mmzone import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE


@dataclass(frozen=True, slots=True)
class Gfp:
    """
    gfp_t as far as hotplug sees it.

    Attributes:
        name: As the kernel prints it.
        migratetype: gfpflags_to_migratetype().
        movable_zone: May use ZONE_MOVABLE (gfp_zone()).
        nowarn: __GFP_NOWARN.
    """

    name: str
    migratetype: int = MIGRATE_UNMOVABLE
    movable_zone: bool = False
    nowarn: bool = False


GFP_KERNEL = Gfp("GFP_KERNEL")
GFP_KERNEL_ZERO_REPEAT = Gfp("GFP_KERNEL|__GFP_REPEAT|__GFP_ZERO")
GFP_KERNEL_RETRY_MAYFAIL = Gfp("GFP_KERNEL|__GFP_NOWARN|__GFP_RETRY_MAYFAIL", nowarn=True)
GFP_KERNEL_RECLAIMABLE = Gfp("GFP_KERNEL|__GFP_RECLAIMABLE", MIGRATE_RECLAIMABLE)
GFP_HIGHUSER_MOVABLE = Gfp("GFP_HIGHUSER_MOVABLE", MIGRATE_MOVABLE, movable_zone=True)
GFP_USER_MOVABLE = Gfp("GFP_USER|__GFP_MOVABLE", MIGRATE_MOVABLE)
"""Without __GFP_HIGHMEM, ZONE_MOVABLE is out of reach."""
GFP_USER_NOWARN = Gfp("GFP_USER|__GFP_NOWARN", nowarn=True)
GFP_HIGHUSER_MOVABLE_NOWARN = Gfp("GFP_HIGHUSER_MOVABLE|__GFP_NOWARN", MIGRATE_MOVABLE, movable_zone=True, nowarn=True)
