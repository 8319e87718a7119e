# SPDX-License-Identifier: GPL-2.0-only
"""`memhp add`: hot-add memory."""

from __future__ import annotations

import argparse

from memhp.cli import common
from memhp.errors import UsageError


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "add", "hot-add memory by address or size",
        "Hot-add memory: through /sys/devices/system/memory/probe, a block at a time, where the kernel has that file; else "
        "through the in-kernel add_memory().\n\nWHAT is START (hexadecimal; one block), SIZE (at the first free place), "
        "SIZE@START or START-END.",
        ["memhp add 0x80000000 -m model:board.toml", "memhp add 1G -m model:pc.toml", "memhp add 256M@0x120000000 -m …"],
    )  # fmt: skip
    common.add_machine(parser)
    parser.add_argument("what", metavar="WHAT", help="START, SIZE, SIZE@START or START-END")
    parser.add_argument("--node", type=int, metavar="N", help="NUMA node; then the in-kernel call is used")
    parser.add_argument("--no-check", action="store_true", help="leave every judgement of the range to the kernel")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")


def parse_what(text: str) -> tuple[str | int | None, str | int | None]:
    """
    Return (size, start) of what is written on the command line.

    >>> parse_what("256M@0x80000000"), parse_what("0x80000000"), parse_what("0x80000000-0x87ffffff")
    (('256M', '0x80000000'), (None, '0x80000000'), (134217728, 2147483648))
    """
    from memhp.hardware import parse_size

    size, at, start = text.partition("@")
    if at:
        return size, start
    first, dash, last = text.partition("-")
    if dash and first:
        low, high = parse_size(first, "start"), parse_size(last, "end")
        high += high % 4096 == 4095
        if high <= low:
            raise UsageError(f"{text}: ends before it starts")
        return high - low, low
    if text[:2].lower() == "0x":
        return None, text
    return text, None


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    size, start = parse_what(args.what)
    if args.node is not None and not 0 <= args.node < 1024:
        raise UsageError(f"node {args.node}: a node is a number from 0 to 1023")
    json = common.as_json(args)
    with common.open_to_change(args, "add") as machine:
        steps = machine.plan_add(size, start=start, node=args.node, check=not args.no_check)
        if args.dry_run:
            return common.print_writes(steps, machine, json=json)
        return common.do_steps(machine, steps, json=json, stop=True)
