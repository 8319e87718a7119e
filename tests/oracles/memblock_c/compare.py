# SPDX-License-Identifier: GPL-2.0-only
"""
Random operations on the model's memblock and on the C original; the first difference, shrunk and drawn.

    python -m tests.oracles.memblock_c.compare --release 6.12 --operations 1000000

After each operation both arrays, flags, nodes, totals, what was returned and what was printed must be equal, byte for byte. The
operations lean towards edges: they start and end where regions do, or a byte beside; ranges touch, overlap, nest and are empty;
the address space's top is near; flags and nodes differ; arrays fill up to the 128th region and beyond.

A sequence ends where memblock dies (both must, with the same words), and where memblock_trim_memory() has left regions that
overlap: it rounds a start up past the top of the address space, and nothing that follows is defined.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.oracles.memblock_c import NODES_SHIFT, RELEASES, Answer, Original, Unavailable, draw, op
from tests.oracles.memblock_c.model import Model, Operation

TOP = (1 << 64) - 1
NOWHERE = 1 << NODES_SHIFT
FEW = 1 << 32
"""Bytes that C can free page by page while one waits."""
NODES = (-1, 0, 0, 1, 1, 2, 3, NOWHERE - 1, NOWHERE, NOWHERE + 1, -2)
FLAGS = (0, 0, 0, 1, 2, 4, 8, 12, 0x10, 0x17)

CHANGES = (
    "ADD", "ADD", "ADD_NODE", "ADD_NODE", "ADD_NODE", "REMOVE", "REMOVE", "RESERVE", "RESERVE", "RESERVE", "PHYS_FREE",
    "PHYS_FREE", "FREE", "MARK_HOTPLUG", "CLEAR_HOTPLUG", "MARK_MIRROR", "MARK_NOMAP", "MARK_NOMAP", "CLEAR_NOMAP", "CLEAR_NOMAP",
    "RESERVED_MARK_NOINIT", "SET_NODE", "SET_NODE",
)
RARE = (
    "TRIM_MEMORY", "ENFORCE_MEMORY_LIMIT", "CAP_MEMORY_RANGE", "MEM_LIMIT_REMOVE_MAP", "SET_BOTTOM_UP", "SET_CURRENT_LIMIT",
    "ALLOW_RESIZE", "SET_SLAB", "DOUBLE_ARRAY", "RESERVE_MEM", "DUMP_ALL", "DEBUG_SHOW", "FREE_ALL", "FREE_ALL", "FREE_LATE",
)
PHYS_ALLOCATIONS = ("PHYS_ALLOC", "PHYS_ALLOC_RANGE", "PHYS_ALLOC_TRY_NID", "ALLOC_RANGE_NID")
ALLOCATIONS = (
    *PHYS_ALLOCATIONS, "ALLOC", "ALLOC_RAW", "ALLOC_FROM", "ALLOC_LOW", "ALLOC_NODE", "ALLOC_TRY_NID", "ALLOC_TRY_NID_RAW",
    "ALLOC_EXACT_NID_RAW",
)
QUESTIONS = (
    "PHYS_MEM_SIZE", "RESERVED_SIZE", "ESTIMATED_NR_FREE_PAGES", "START_OF_DRAM", "END_OF_DRAM", "HAS_MIRROR", "BOTTOM_UP",
    "GET_CURRENT_LIMIT", "IS_RESERVED", "IS_MEMORY", "IS_MAP_MEMORY", "IS_REGION_MEMORY", "IS_REGION_RESERVED", "OVERLAPS_REGION",
    "ADDRS_OVERLAP", "SEARCH_PFN_NID", "VALIDATE_NUMA_COVERAGE", "RESERVE_MEM_FIND",
)
WALKS = (
    "MEM_RANGE", "MEM_RANGE_REV", "RESERVED_MEM_RANGE", "FREE_MEM_RANGE", "FREE_MEM_RANGE_REVERSE", "ANY_RANGE", "ANY_RANGE_REV",
    "MEM_PFN_RANGE", "FREE_MEM_PFN_RANGE_IN_ZONE", "MEM_REGION", "RESERVED_MEM_REGION",
)
NEW_IN_6_12 = {
    "RESERVED_MARK_NOINIT", "ESTIMATED_NR_FREE_PAGES", "HAS_MIRROR", "VALIDATE_NUMA_COVERAGE", "RESERVE_MEM", "RESERVE_MEM_FIND",
}


class Maker:
    """One random sequence of operations, made while the model runs it."""

    def __init__(self, model: Model, rng: random.Random, length: int) -> None:
        self.model = model
        self.rng = rng
        self.length = length
        self.newer = model.release != "6.1"
        self.step = rng.choice((1, 1, 7, 0x1000, 0x1000, 0x10000, 1 << 20, 1 << 27))
        grid = rng.choice((12, 24, 60))
        self.origin = rng.choice((0, 0, 0x1000, 1 << 20, 1 << 30, 1 << 40, (1 << 32) - 6 * self.step, TOP - grid * self.step))
        self.grid = grid
        self.low = rng.random() < 0.5      # allocations find room only where memory is more than a few bytes

    def point(self) -> int:
        """An address worth trying: on the grid, at an edge of a region, or a byte beside it."""
        rng = self.rng
        roll = rng.random()
        mb = self.model.k.memblock
        regions = (mb.memory if rng.random() < 0.6 else mb.reserved).regions
        if roll < 0.45 and regions:
            r = regions[rng.randrange(len(regions))]
            at = r.base if rng.random() < 0.5 else r.base + r.size
            at += rng.choice((0, 0, 0, 0, -1, 1, self.step, -self.step))
        elif roll < 0.95:
            at = self.origin + rng.randrange(self.grid + 1) * self.step
        else:
            at = rng.choice((0, 1, 0x1000, 1 << 32, 1 << 63, TOP, TOP - 1, TOP - 0x1000, TOP - self.step))
        return min(max(at, 0), TOP)

    def extent(self, base: int) -> int:
        """A size: to another point worth trying, some steps, nothing, or past the top."""
        rng = self.rng
        roll = rng.random()
        if roll < 0.5:
            return abs(self.point() - base)
        if roll < 0.9:
            return rng.choice((1, 1, 2, 3, 5, 9)) * self.step
        return rng.choice((0, 1, TOP, TOP - base, max(TOP - base - 1, 0), TOP - base + 1, 1 << 63)) & TOP

    def range(self) -> tuple[int, int]:
        base = self.point()
        return base, self.extent(base)

    def size(self) -> int:
        return self.rng.choice((0, 1, 63, 64, 0x1000, 0x3000, 1 << 20, self.step, self.step * 3, TOP, 1 << 63))

    def align(self) -> int:
        return self.rng.choice((1, 64, 64, 0x1000, 1 << 21, 1 << 63, 0))

    def limit(self) -> int:
        return self.rng.choice((0, 0, 1, TOP, self.point(), self.point()))

    def allocation(self, verb: str) -> Operation:
        size, align, nid = self.size(), self.align(), self.rng.choice(NODES)
        low = self.rng.choice((0, self.point()))
        high = self.limit()
        match verb:
            case "PHYS_ALLOC" | "ALLOC" | "ALLOC_RAW" | "ALLOC_LOW":
                return verb, size, align
            case "PHYS_ALLOC_RANGE":
                return verb, size, align, low, high
            case "PHYS_ALLOC_TRY_NID" | "ALLOC_NODE":
                return verb, size, align, nid
            case "ALLOC_RANGE_NID":
                return verb, size, align, low, high, nid, self.rng.randrange(2)
            case "ALLOC_FROM":
                return verb, size, align, low
        return verb, size, align, low, high, nid

    def one(self, verb: str) -> Operation:
        """Return an operation of that kind."""
        rng = self.rng
        match verb:
            case "ADD_NODE":
                return verb, *self.range(), rng.choice(NODES), rng.choice(FLAGS)
            case "SET_NODE":
                return verb, *self.range(), rng.choice((0, 0, 1)), rng.choice(NODES)
            case "TRIM_MEMORY":
                return verb, 1 << rng.choice((0, 2, 12, 12, 16, 21, 27))
            case "ENFORCE_MEMORY_LIMIT" | "MEM_LIMIT_REMOVE_MAP":
                total = self.model.k.memblock.memory.total_size
                return verb, rng.choice((0, 1, total, max(total - 1, 0), total + 1, rng.randrange(total + 1), self.step * 3))
            case "SET_BOTTOM_UP":
                return verb, rng.randrange(2)
            case "SET_CURRENT_LIMIT":
                return verb, rng.choice((TOP, TOP, self.point()))
            case "SET_SLAB":
                return verb, rng.choice((0, 0, 1))
            case "DOUBLE_ARRAY":
                return verb, rng.randrange(2), *self.range()
            case "RESERVE_MEM":
                return verb, rng.choice((
                    "4096:4096:one", "1M:0:two", "0x1000:64:three", "010:1:four", "12K:4K:one", "0:0:x", ":0:x", "1G", "1G:",
                    "4k:1", "4K:4K:", "4K:4K:  ", "4K:4K:a name too long by far", "64:64:exactly15chars_", "1:1:five", "1:1:six",
                    "1:1:seven", "2:1:eight", "3:1:nine", "9E:1:big", "4Q:1:odd", "1:1:a b",
                ))
            case "RESERVE_MEM_FIND":
                return verb, rng.choice(("one", "two", "none", "five", "exactly15chars_"))
            case "FREE_ALL":
                return verb, rng.choice((TOP >> 12, 0, self.point() >> 12))
            case "FREE_LATE":
                base, size = self.range()
                return verb, min(base, TOP - 2 * FEW), min(size, FEW)
            case "DEBUG_SHOW":
                return verb, rng.randrange(2)
            case "IS_RESERVED" | "IS_MEMORY" | "IS_MAP_MEMORY":
                return verb, self.point()
            case "OVERLAPS_REGION":
                return verb, *self.range(), rng.randrange(2)
            case "ADDRS_OVERLAP":
                return verb, *self.range(), *self.range()
            case "SEARCH_PFN_NID":
                return verb, rng.choice((self.point() >> 12, self.point() >> 12, self.point()))
            case "VALIDATE_NUMA_COVERAGE":
                return verb, rng.choice((0, 0x1000, self.step * 8, TOP))
            case "FREE_MEM_RANGE" | "FREE_MEM_RANGE_REVERSE":
                return verb, rng.choice(NODES), rng.choice(FLAGS)
            case "ANY_RANGE" | "ANY_RANGE_REV":
                return verb, rng.randrange(2), rng.randrange(3), rng.choice(NODES), rng.choice(FLAGS)
            case "FREE_MEM_PFN_RANGE_IN_ZONE":
                start, end = sorted((self.point() >> 12, self.point() >> 12))
                return verb, rng.choice(NODES), start, end
            case "MEM_PFN_RANGE":
                return verb, rng.choice(NODES)
        if verb in ALLOCATIONS:
            return self.allocation(verb)
        if verb in WALKS or verb in ("ALLOW_RESIZE", "DUMP_ALL") or (verb in QUESTIONS and not verb.startswith("IS_REGION")):
            return (verb,)
        return verb, *self.range()

    def allowed(self, verb: str) -> bool:
        """Leave out what this release does not have, and what C leaves undefined."""
        if verb in NEW_IN_6_12 and not self.newer:
            return False
        k = self.model.k
        if verb == "END_OF_DRAM":
            return bool(k.memblock.memory.regions) or not self.newer
        if verb == "FREE_ALL":      # C frees block by block
            regions = k.memblock.memory.regions
            return not regions or (sum(r.size for r in regions) < FEW and regions[-1].base < TOP - 2 * FEW)
        if verb == "RESERVE_MEM" or verb in ALLOCATIONS:      # after slab works C takes the memory from there
            return not k.slab_is_available or (verb in PHYS_ALLOCATIONS and not self.newer)
        return True

    def crowd(self) -> Iterator[Operation]:
        """Nearly fill an array, out of order, so that the 129th region is near."""
        rng = self.rng
        verb = rng.choice(("ADD", "ADD", "RESERVE", "RESERVE", "ADD_NODE"))
        places = list(range(rng.choice((118, 124, 126, 127, 127, 128, 129, 130, 140, 280))))
        rng.shuffle(places)
        if rng.random() < 0.8:      # room for a doubled array
            yield ("ADD", self.origin & ~0xFFF, rng.choice((0x2000, 0x4000, 0x40000, 0x40000, 1 << 30)))
        if rng.random() < 0.85:
            yield ("ALLOW_RESIZE",)
        far = (self.origin & ~0xFFF) + rng.choice((0, 1 << 41))
        for place in places:
            base = min(far + place * 3 * self.step, TOP)
            yield (verb, base, self.step, *((place % 3, rng.choice((0, 0, 4))) if verb == "ADD_NODE" else ()))

    def operations(self) -> Iterator[Operation]:
        """Yield the operations one by one; each looks at what the ones before it did."""
        rng = self.rng
        yield ("RESET", rng.choice((0, 0, 0, 1, 2, 3)) | rng.choice((0, 0, 0, 4)))
        if rng.random() < 0.12:
            yield from self.crowd()
        elif self.low:
            for nid in range(rng.randrange(1, 4)):
                yield ("ADD_NODE", self.point() & ~0xFFF, rng.choice((0x8000, 1 << 20, 1 << 22)), nid, rng.choice(FLAGS[:6]))
        groups = (CHANGES, ALLOCATIONS, QUESTIONS, WALKS, RARE)
        weights = rng.choice(((70, 10, 10, 8, 2), (45, 40, 5, 5, 5), (90, 2, 4, 2, 2), (40, 20, 10, 10, 20)))
        for _ in range(self.length):
            verb = rng.choice(rng.choices(groups, weights)[0])
            if self.allowed(verb) and not (verb == "SET_SLAB" and self.model.k.cmdline.get("memblock")):
                yield self.one(verb)


def play(model: Model, operations: Sequence[Operation]) -> list[bytes]:
    """Run a given sequence on the model."""
    return [model.step(operation) for operation in operations]


def first_difference(model: Model, original: Original, operations: Sequence[Operation]) -> int | None:
    """Run a sequence on both; return the index of the first answer that differs."""
    theirs = original.run([op(*operation) for operation in operations])
    for i, (mine, other) in enumerate(zip(play(model, operations), theirs, strict=True)):
        if mine != other:
            return i
    return None


def shrink(model: Model, original: Original, operations: Sequence[Operation]) -> list[Operation]:
    """Return a short sequence that still ends in a difference."""
    best = list(operations)

    def still(candidate: list[Operation]) -> bool:
        nonlocal best
        if any(verb in PHYS_ALLOCATIONS or verb in ALLOCATIONS for verb, *_ in candidate) and any(
                verb == "SET_SLAB" for verb, *_ in candidate):
            return False
        try:
            at = first_difference(model, original, candidate)
        except (KeyError, ValueError, TypeError, IndexError):
            return False
        if at is None:
            return False
        best = candidate[:at + 1]
        return True

    still(best)
    size = len(best) // 2
    while size:
        at = 1
        while at < len(best):
            if not still(best[:at] + best[at + size:]):
                at += size
        size //= 2
    for i in range(1, len(best)):      # smaller numbers
        for j in range(1, len(best[i]) if i < len(best) else 0):
            value = best[i][j]
            if not isinstance(value, int) or value <= 0:
                continue
            for smaller in (0, 1, 0x1000, 0x2000, 0x4000, 1 << value.bit_length() - 1, value & ~0xFFF):
                if smaller < value and still([*best[:i], (*best[i][:j], smaller, *best[i][j + 1:]), *best[i + 1:]]):
                    break
            if i >= len(best):
                break
    return best


def words(operation: Operation) -> str:
    """Say an operation as a call."""
    verb, *arguments = operation
    return f"{verb.lower()}({', '.join(a if isinstance(a, str) else hex(a) if abs(a) > 9 else str(a) for a in arguments)})"


def explain(model: Model, original: Original, operations: Sequence[Operation]) -> str:
    """Draw a sequence that ends in a difference: each step, and at the end both arrays of both."""
    theirs = [Answer.read(data) for data in original.run([op(*operation) for operation in operations])]
    mine = [Answer.read(data) for data in play(model, operations)]
    lines = [f"The model and the C memblock of {original.release} part at the last of these:", ""]
    lines += [f"  {i:2d}  {words(operation)}" for i, operation in enumerate(operations)]
    if len(operations) > 1 and theirs[-2].types:
        lines += ["", "before it:", _drawn("", theirs[-2])]
    for name, answer in (("model", mine[-1]), ("C", theirs[-1])):
        returned = ", ".join(hex(r) for r in answer.results) or "nothing"
        status = ("", ", panic", ", BUG", ", was dead")[answer.status]
        lines += ["", f"{name}: returned {returned}{status}", *(f"  | {line}" for line in answer.log.splitlines())]
        if answer.types:
            lines.append(_drawn("", answer))
            lines.append(
                "  " + "; ".join(
                    f"{what}: {len(regions)} of {room}, total {total:#x}, array {array:#x}"
                    for what, (room, total, array, regions) in zip(("memory", "reserved"), answer.types, strict=True)))
            lines.append(f"  switches {answer.switches}, limit {answer.current_limit:#x}")
    return "\n".join(lines)


def _drawn(indent: str, answer: Answer) -> str:
    rows = [(name, type[3]) for name, type in zip(("memory", "reserved"), answer.types, strict=True)]
    if max(len(regions) for _, regions in rows) > 24:
        return f"{indent}({len(rows[0][1])} and {len(rows[1][1])} regions)"
    return draw.strip(rows)


def compare(
    release: str, operations: int, seed: int, *, numa: bool = True, model: Model | None = None,
) -> tuple[Counter[str], str]:
    """
    Run at least so many random operations on both.

    Args:
        release: Of the original, and of the model if none is given.
        operations: How many.
        seed: Of the random numbers; the same seed gives the same operations.
        numa: With nodes.
        model: Compare this one.

    Returns:
        How often each verb ran (and how many sequences: all, those that ended in a panic or an overlap, those that doubled an
        array), and the first difference, drawn; "" if there is none.
    """
    count: Counter[str] = Counter()
    done = 0
    model = model or Model(release, numa=numa)
    with Original(release, numa=numa) as original:
        number = 0
        while done < operations:
            rng = random.Random(f"{seed}/{number}")
            number += 1
            count["sequences"] += 1
            maker = Maker(model, rng, rng.choice((20, 40, 80)))
            history: list[Operation] = []
            answers: list[bytes] = []
            for operation in maker.operations():
                history.append(operation)
                answers.append(model.step(operation))
                count[operation[0]] += 1
                if model.dead:
                    count["panic"] += 1
                    break
                if operation[0] == "TRIM_MEMORY" and not model.sorted():
                    count["overlap"] += 1
                    break
            count["arrays doubled"] += max(model.k.memblock.memory.max, model.k.memblock.reserved.max) > 128
            done += len(history)
            if answers != original.run([op(*operation) for operation in history]):
                drawing = explain(model, original, shrink(model, original, history))
                return count, f"{drawing}\n\nseed {seed}, sequence {number - 1}"
    return count, ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="the model's memblock against the C original")
    parser.add_argument("--release", choices=RELEASES, action="append", help="default: all")
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-numa", action="store_true")
    args = parser.parse_args()
    for release in args.release or RELEASES:
        start = time.monotonic()
        try:
            count, difference = compare(release, args.operations, args.seed, numa=not args.no_numa)
        except Unavailable as err:
            print(f"{release}: {err}", file=sys.stderr)
            return 2
        extra = ", ".join(f"{name} {count.pop(name, 0)}" for name in ("sequences", "panic", "overlap", "arrays doubled"))
        numa = "" if not args.no_numa else " without NUMA"
        seconds = time.monotonic() - start
        print(f"{release}{numa}: {sum(count.values()):,} operations in {seconds:.0f} s, seed {args.seed}; {extra}")
        print("  " + " ".join(f"{verb.lower()}:{n}" for verb, n in sorted(count.items())))
        if difference:
            print(difference)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
