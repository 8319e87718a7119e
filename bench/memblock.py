# SPDX-License-Identifier: GPL-2.0-only
"""
How fast memblock is, beside the C original in the same run.

Regions are scattered: a page each, with gaps. What is timed is one call, on average, with so many regions: adding all of them in
random order; asking of random addresses; marking and clearing one page in the middle of a region of four.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.oracles import memblock_c
from tests.oracles.memblock_c.model import kernel

from memhp.linux.mm import memblock
from memhp.linux.state import Kernel
from memhp.units import TIB

RELEASE = "6.12"
SIZES = (16, 128, 1_000, 10_000)
PAGE = 4096
CALLS = 2_000
"""At least so many calls make one figure."""


def addresses(count: int) -> list[int]:
    """Where `count` regions of up to four pages start, in random order."""
    places = [TIB + i * 8 * PAGE for i in range(count)]
    random.Random(count).shuffle(places)
    return places


def empty() -> Kernel:
    """A memblock whose arrays may grow and come from slab."""
    k = kernel(RELEASE)
    k.slab_is_available = True
    memblock.memblock_allow_resize(k)
    return k


EMPTY = [memblock_c.op("RESET", 0), memblock_c.op("SET_SLAB", 1), memblock_c.op("ALLOW_RESIZE")]


def adding(count: int, original: memblock_c.Clock | None) -> float:
    """Seconds for one memblock_add() while `count` regions are added."""
    places = addresses(count)
    rounds = max(CALLS // count, 1)
    total = 0.0
    for _ in range(rounds):
        if original is not None:
            original.seconds(EMPTY)
            total += original.seconds([memblock_c.op("ADD", base, PAGE) for base in places])
        else:
            k = empty()
            start = time.perf_counter()
            for base in places:
                memblock.memblock_add(k, base, PAGE)
            total += time.perf_counter() - start
    return total / rounds / count


def _filled(count: int, original: memblock_c.Clock | None) -> Kernel | None:
    """`count` regions of four pages."""
    places = sorted(addresses(count))
    if original is not None:
        original.seconds([*EMPTY, *(memblock_c.op("ADD", base, 4 * PAGE) for base in places)])
        return None
    k = empty()
    for base in places:
        memblock.memblock_add(k, base, 4 * PAGE)
    return k


def asking(count: int, original: memblock_c.Clock | None) -> float:
    """Seconds for one memblock_is_map_memory() among `count` regions; every second address is in a gap."""
    k = _filled(count, original)
    rng = random.Random(1)
    asked = [base + rng.choice((0, 4)) * PAGE for base in rng.choices(addresses(count), k=CALLS)]
    asked *= 5
    if k is None:
        assert original is not None
        return original.seconds([memblock_c.op("IS_MAP_MEMORY", address) for address in asked]) / len(asked)
    start = time.perf_counter()
    for address in asked:
        memblock.memblock_is_map_memory(k, address)
    return (time.perf_counter() - start) / len(asked)


def marking(count: int, original: memblock_c.Clock | None) -> float:
    """Seconds for one memblock_mark_nomap() or memblock_clear_nomap() of a page in the middle of one of `count` regions."""
    k = _filled(count, original)
    rng = random.Random(1)
    marked = [base + PAGE for base in rng.choices(addresses(count), k=CALLS // 2)]
    if k is None:
        assert original is not None
        operations = [memblock_c.op(verb, base, PAGE) for base in marked for verb in ("MARK_NOMAP", "CLEAR_NOMAP")]
        return original.seconds(operations) / CALLS
    start = time.perf_counter()
    for base in marked:
        memblock.memblock_mark_nomap(k, base, PAGE)
        memblock.memblock_clear_nomap(k, base, PAGE)
    return (time.perf_counter() - start) / CALLS


def rows(best: Callable[..., tuple[float, float]], row: Callable[[str, str, float | None, str], None]) -> None:
    """Print the rows; `best` and `row` are the benchmark's."""
    original: memblock_c.Clock | None = None
    missing = ""
    try:
        original = memblock_c.Clock(RELEASE)
    except memblock_c.Unavailable as err:
        missing = f"no C original: {err}"
    for what, measure in (
        ("memblock_add() into {} scattered regions", adding), ("memblock_is_map_memory() among {}", asking),
        ("memblock_mark_nomap(), _clear_nomap() in the middle of {}", marking),
    ):
        mine: dict[int, float] = {}
        theirs: dict[int, float] = {}
        for count in SIZES:
            mine[count], _ = best(lambda count=count, measure=measure: measure(count, None), 3)
            beside = missing
            if original is not None:
                theirs[count], _ = best(lambda count=count, measure=measure: measure(count, original), 3)
                beside = f"C original {theirs[count] * 1e6:.2f} µs: × {mine[count] / theirs[count]:.1f}"
            must = "; must × 3, aim × 1" if measure is adding and count == 10_000 else ""
            row(what.format(f"{count:,}"), f"{mine[count] * 1e6:.2f} µs", None, beside + must)
        if theirs:
            few, many = SIZES[1], SIZES[-1]
            row(
                f"  from {few} to {many:,} regions it grows by", f"× {mine[many] / mine[few]:.1f}", None,
                f"C original × {theirs[many] / theirs[few]:.1f}")
