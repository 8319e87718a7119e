# SPDX-License-Identifier: GPL-2.0-only
"""`memhp plug`: plug a DIMM."""

from __future__ import annotations

import argparse

from memhp.cli import common


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "plug", "plug a DIMM",
        "Plug a DIMM of SIZE. It gets the first free place of the hot-plug window unless --addr names one.",
        ["memhp plug 384M -m model:pc.toml", "memhp plug 1G --id d7 --addr 0x140000000 -m model:pc.toml"],
    )  # fmt: skip
    common.add_machine(parser)
    parser.add_argument("size", metavar="SIZE", help="such as 384M")
    parser.add_argument("--id", metavar="NAME", help="its name (default: the first free of d1, d2, …)")
    parser.add_argument("--node", type=int, default=0, metavar="N", help="NUMA node (default 0)")
    parser.add_argument("--addr", metavar="ADDRESS", help="where, such as 0x140000000")
    parser.add_argument("--dry-run", action="store_true", help="print what would be asked for, and ask for nothing")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.errors import UsageError

    if not 0 <= args.node < 1024:
        raise UsageError(f"node {args.node}: a node is a number from 0 to 1023")
    with common.open_to_change(args, "plug") as machine:
        step = machine.plan_plug(args.size, id=args.id, node=args.node, addr=args.addr)
        if args.dry_run:
            return common.print_writes([step], machine, json=common.as_json(args))
        return common.do_steps(machine, [step], json=common.as_json(args))
