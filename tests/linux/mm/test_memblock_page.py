# SPDX-License-Identifier: GPL-2.0-only
"""docs/read/memblock.md is what its scenes say."""

from __future__ import annotations

from tools import memblock_pages


def test_the_page_is_up_to_date() -> None:
    """Running the scenes again gives the page as it is. If not: python -m tools.memblock_pages."""
    assert memblock_pages.page() == memblock_pages.PAGE.read_text()
