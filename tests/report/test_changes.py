# SPDX-License-Identifier: GPL-2.0-only
"""Which functions read each fact."""

from __future__ import annotations

from pathlib import Path

from memhp import linux
from memhp.linux import tree
from memhp.report import changes


def test_every_read_of_a_fact_is_found() -> None:
    """As many lines say `tree.FACT` as there are readers, functions that say it twice aside."""
    found = changes.readers()
    assert set(found) <= {f.name for f in tree.facts()}
    folder = Path(next(iter(linux.__path__)))
    for name, places in found.items():
        for place in places:
            line = (folder / place.room).read_text().splitlines()[place.line - 1]
            assert f"tree.{name}" in line


def test_the_function_is_the_outermost_one() -> None:
    """arm64's section size is asked for by section_size_bits()."""
    assert [(r.room, r.function) for r in changes.readers()["arm64_section_size_bits"]] == [
        ("arch/arm64/mm/init.py", "section_size_bits")]


def test_differences_keep_their_order_and_commit() -> None:
    """The earliest change comes first; a fact carries the commit that made it."""
    found = changes.compare(tree.V4_9, tree.V5_10)
    assert [d.fact for d in found] == [c.fact for c in tree.changes(tree.V4_9, tree.V5_10)]
    zones = next(d for d in found if d.fact == "zones_chosen_at_online")
    assert (zones.before, zones.after, zones.release, zones.commit) == (False, True, "v4.13", "f1dd2cd13c4b")
    assert changes.compare(tree.V4_9, tree.V4_9) == []
