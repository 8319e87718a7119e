# SPDX-License-Identifier: GPL-2.0-only
"""
Write docs/read/memblock.md: memblock in pictures, made by running its tests.

    python -m tools.memblock_pages            writes the page
    python -m tools.memblock_pages --check    says whether it is up to date

Every scene of tests/linux/mm/test_memblock_scenes.py becomes a few lines: its sentence, the picture it was thought of with, the
calls it makes, and memory as it then is, drawn. A test that has parameters is shown with the first of each.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.linux.mm import test_memblock_scenes as scenes
from tests.oracles.memblock_c import draw
from tests.oracles.memblock_c.compare import WALKS
from tests.oracles.memblock_c.model import Model
from tests.oracles.memblock_c.scene import Scene

from memhp.linux.include.memblock import FLAG_NAMES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/read/memblock.md"
RELEASE = "6.12"
MANY = 7
"""So many calls are shown in full."""

NAMES = {
    **{verb: f"for_each_{verb.lower()}" for verb in WALKS},
    "RESERVE_MEM": "reserve_mem", "RESERVE_MEM_FIND": "reserve_mem_find_by_name", "SET_SLAB": "slab_is_available",
    "DEBUG_SHOW": "memblock_debug_show",
}

HEAD = """\
# memblock in pictures

memblock is two sorted lists of address ranges: `memory`, what the firmware called RAM and what was hot-added, and `reserved`,
what early boot has taken. The room is `src/memhp/linux/mm/memblock.py`; its head says the rules and how kernel trees differ.

This page is made by `python -m tools.memblock_pages` from `tests/linux/mm/test_memblock_scenes.py`, by running it, and a test
holds that it is up to date. Each scene holds on the C original of v6.1 and v6.12, too (`make memblock-oracle` builds it from
Debian's `linux-source` packages). What is shown is v6.12; where v6.1 differs the text says so.

How to read it: the first picture is how the scene was thought of. Then come the calls, with what they return where that matters,
and the two lists as they are afterwards. `[n0 NOMAP]` is a region of node 0 with a flag. Every edge has a column of its own, with
its address below; distances are not to scale. `top` is 2^64, node 64 is no node, and node -1 any.

Random operations are held against the original as well, see `tests/oracles/memblock_c/compare.py`: regions, flags, nodes, totals,
room, returned values and printed lines must be equal after every single one. 20,000 on each release are run with the other tests.
More were run once, with

    python -m tests.oracles.memblock_c.compare --operations 1200000 --seed 20161203

{figures}"""

FIGURES = """\
| original | operations | sequences | ended in a panic | doubled an array | differences |
|---|---|---|---|---|---|
| 6.1 | 1,200,117 | 18,996 | 1 | 1,524 | none |
| 6.12 | 1,200,004 | 19,760 | 2,661 | 1,508 | none |
"""


def first_of_each(test: FunctionType) -> dict[str, Any]:
    """Return the first value of each parameter of a test, but for `m`."""
    values: dict[str, Any] = {}
    for mark in getattr(test, "pytestmark", []):
        if mark.name != "parametrize":
            continue
        names, rows = mark.args[:2]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        row = rows[0] if len(names) > 1 else (rows[0],)
        values.update(zip(names, row, strict=True))
    values.pop("m", None)
    return values


def said(argument: int | str) -> str:
    """Say an argument as a person would."""
    return repr(argument) if isinstance(argument, str) else str(argument) if -9 <= argument <= 9 else draw.address(argument)


def called(step: tuple[Any, Any]) -> str:
    """Say a call and, where it matters, what it returned or printed."""
    (verb, *arguments), answer = step
    name = NAMES.get(verb) or f"memblock_{verb.lower()}".replace("dram", "DRAM")
    words = [hex(a) if "PFN" in verb and a > 9 else said(a) for a in arguments]
    if verb == "ADD_NODE":
        words[3] = "|".join(flag for bit, flag in FLAG_NAMES.items() if arguments[3] & bit) or "NONE"
    text = f"{name}({', '.join(words)})"
    results = [r - (1 << 64) if r > (1 << 64) - 4096 and verb != "GET_CURRENT_LIMIT" else r for r in answer.results]
    if results and results != [0]:
        text += " = " + ", ".join(hex(r) if "PFN" in verb and r > 9 else said(r) for r in results)
    elif results and ("ALLOC" in verb or verb.startswith(("IS_", "OVERLAPS", "VALIDATE"))):
        text += " = 0"
    return "\n".join([text, *(f"    log: {line}" for line in answer.log.splitlines())])


def scene(test: FunctionType) -> str:
    """Run one test and return its part of the page."""
    m = Scene(Model(RELEASE))
    test(m, **first_of_each(test))
    text = inspect.cleandoc(test.__doc__ or "")
    sentence, _, thought = text.partition("\n\n")
    lines = [f"### {test.__name__.removeprefix('test_').replace('_', ' ').capitalize()}", "", " ".join(sentence.split()), ""]
    calls = [called(step) for step in m.steps if step[0][0] != "RESET" and step[0] != ("SET_BOTTOM_UP", False)]
    if len(calls) > MANY + 5:
        calls = [*calls[:MANY], f"    … {len(calls) - MANY - 3} more", *calls[-3:]]
    fence = [*thought.splitlines(), *([""] if thought else []), *"\n".join(calls).splitlines()]
    last = next(answer for _, answer in reversed(m.steps) if answer.types)
    counts = [len(type[3]) for type in last.types]
    if max(counts) > 12:
        fence += ["", *(
            f"{name:<9}{count} regions, room for {type[0]}"
            for name, count, type in zip(("memory", "reserved"), counts, last.types, strict=True))]
    elif any(counts):
        m.steps.append((("RESET",), last))
        fence += ["", *m.picture().splitlines()]
    return "\n".join([*lines, "```text", *fence, "```", ""])


def page() -> str:
    """Return the whole page."""
    source = inspect.getsource(scenes)
    parts = [HEAD.format(figures=FIGURES)]
    for line in source.splitlines():
        if heading := re.match(r"# (?!SPDX)(.+)", line):
            parts.append(f"## {heading[1]}\n")
        elif found := re.match(r"def (test_\w+)", line):
            parts.append(scene(getattr(scenes, found[1])))
    return "\n".join(parts)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="memblock in pictures")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is out of date")
    args = parser.parse_args()
    text = page()
    if args.check:
        return int(PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
