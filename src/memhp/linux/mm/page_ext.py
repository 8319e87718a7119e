# SPDX-License-Identifier: GPL-2.0-only
"""
page_ext: more room for each page, allocated by the section.

Source: mm/page_ext.c [v4.9].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include import mmzone
from memhp.linux.include.mmzone import N_MEMORY
from memhp.linux.mm import memblock

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def early_pfn_to_nid(k: Kernel, pfn: int) -> int:
    """Return the node memblock names for a pfn, 0 if none. Source: mm/page_alloc.c early_pfn_to_nid() [v4.9]"""
    found = memblock.memblock_search_pfn_nid(k, pfn)
    return 0 if found is None or found[0] not in k.nodes else found[0]


def page_ext_init(k: Kernel) -> frozenset[int]:
    """
    Return the sections that get a page_ext. Only one pfn of each is asked for: the node's first, then each section's first.

    Source: mm/page_ext.c page_ext_init(), init_section_page_ext() [v4.9]
    """
    sections: set[int] = set()
    for nid in sorted(k.node_states[N_MEMORY]):
        pgdat = k.nodes[nid]
        pfn = pgdat.node_start_pfn
        while pfn < mmzone.pgdat_end_pfn(pgdat):
            if mmzone.pfn_valid(k, pfn) and early_pfn_to_nid(k, pfn) == nid:
                sections.add(mmzone.pfn_to_section_nr(k, pfn))
            pfn = (pfn // k.PAGES_PER_SECTION + 1) * k.PAGES_PER_SECTION
    return frozenset(sections)
