# SPDX-License-Identifier: GPL-2.0-only
"""`memhp online`: online memory blocks."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from memhp.cli import common
from memhp.errors import UsageError

if TYPE_CHECKING:
    from memhp.abi.memory import MemorySnapshot
    from memhp.machine import Machine

_BLOCKS = re.compile(r"(?:memory)?([0-9]{1,12})(?:-(?:memory)?([0-9]{1,12}))?")
_RANGE = re.compile(r"(0[xX][0-9a-fA-F]{1,16})-(0[xX][0-9a-fA-F]{1,16})")
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_SIZE = re.compile(r"[0-9]+[KMGTPkmgtp](?:i?[bB])?")


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "online", "online memory blocks",
        "Online memory blocks. WHICH is a block (16), a list (16,17), blocks from to (16-20), a device (d1) or one block of it "
        "(d1:1), an address range (0x80000000-0x8fffffff) or a size (256M: so much of what is offline, from the lowest address).",
        ["memhp online 16 -m model:pc.toml", "memhp online 1G --zone movable -m model:pc.toml", "memhp online d1 --dry-run -m …"],
    )  # fmt: skip
    common.add_machine(parser)
    parser.add_argument("which", metavar="WHICH", nargs="+", help="block, list, range, device, address range or size")
    parser.add_argument("--zone", metavar="ZONE", default="online", help="movable or kernel; default: as the kernel sees fit")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")


def select(machine: Machine, which: list[str]) -> list[int]:
    """
    Return the numbers of the blocks that `which` names, each once, in the order named.

    Raises:
        UsageError: a block that is not there, a range that holds none, more than is offline.
    """
    memory = machine.memory()
    found: dict[int, None] = {}
    for word in which:
        for part in word.split(","):
            found.update(dict.fromkeys(_select(machine, memory, part)))
    return list(found)


def _select(machine: Machine, memory: MemorySnapshot, part: str) -> list[int]:
    from memhp.hardware import parse_size
    from memhp.machine import number_ranges
    from memhp.units import format_size

    size = memory.block_size
    there = {int(block.block): block for block in memory.blocks}
    if match := _BLOCKS.fullmatch(part):
        first, last = int(match[1]), int(match[2] or match[1])
        inside = [number for number in there if first <= number <= last]
        if last < first:
            raise UsageError(f"blocks {part}: the last comes before the first")
        if len(inside) != last - first + 1:
            missing = next(number for number in range(first, last + 1) if number not in there)
            raise UsageError(f"no memory block {missing}; there are {number_ranges(there)}")
        return inside
    if match := _RANGE.fullmatch(part):
        start, end = int(match[1], 16), int(match[2], 16)
        end += end % size == size - 1
        if start % size or end % size or end <= start:
            near = start // size * size
            last_byte = max(near + size, -(-end // size) * size) - 1
            raise UsageError(f"range {part}: not whole blocks of {format_size(size)}; {near:#x}-{last_byte:#x} would do")
        inside = [n for n, block in there.items() if start <= n * size < end and block.state == "offline"]
        if not inside:
            raise UsageError(f"range {part}: no offline block lies there")
        return inside
    if _ADDRESS.fullmatch(part):
        return [int(machine.block(int(part, 16) // size).block)]
    if _SIZE.fullmatch(part):
        wanted = parse_size(part)
        if wanted == 0 or wanted % size:
            down = wanted // size * size
            raise UsageError(f"size {part}: no multiple of the block size; {format_size(down or size)} would do")
        offline = [n for n, block in there.items() if block.state == "offline"]
        if len(offline) * size < wanted:
            raise UsageError(f"size {part}: {f'only {format_size(len(offline) * size)}' if offline else 'nothing'} is offline")
        return offline[: wanted // size]
    if ":" in part:
        return [int(machine.block(part).block)]
    for device in machine.devices():
        if device.id == part:
            inside = [n for n in there if device.start <= n * size < device.start + device.size]
            if not inside:
                raise UsageError(f"device {part} has no memory block: its kernel did not take it")
            return inside
    raise UsageError(f"{part!r}: a block (16), blocks (16-20), a device (d1), 0xSTART-0xEND or a size (256M) is needed")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.errors import did_you_mean
    from memhp.machine import ZONES
    from memhp.scenario import Online

    if args.zone not in ZONES:
        raise UsageError(f"zone {args.zone!r}: movable or kernel{did_you_mean(args.zone, ZONES)}")
    json = common.as_json(args)
    with common.open_to_change(args, "online") as machine:
        steps = [Online(block=number, to=ZONES[args.zone]) for number in select(machine, args.which)]
        if args.dry_run:
            return common.print_writes(steps, machine, json=json)
        return common.do_steps(machine, steps, json=json)
