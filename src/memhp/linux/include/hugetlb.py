# SPDX-License-Identifier: GPL-2.0-only
"""
The pool of huge pages.

Source: include/linux/hugetlb.h.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hstate:
    """
    struct hstate: the huge pages of one size. In C some counts are kept by node as well.

    Attributes:
        nr_huge_pages: All of them.
        free: First pfns of those nobody uses, the next to be handed out last.
        resv_huge_pages: How many of the free ones are promised.
        surplus_huge_pages: Those above the pool's size, given back as soon as they are free.
        nr_overcommit_huge_pages: How many of those there may be.
    """

    nr_huge_pages: int = 0
    free: tuple[int, ...] = ()
    resv_huge_pages: int = 0
    surplus_huge_pages: int = 0
    nr_overcommit_huge_pages: int = 0
