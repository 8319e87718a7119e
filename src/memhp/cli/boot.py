# SPDX-License-Identifier: GPL-2.0-only
"""`memhp boot`: make a machine file."""

from __future__ import annotations

import argparse
import os

from memhp.cli import common
from memhp.errors import UsageError

_KEYS = {
    "mem": ("SIZE", "RAM, such as 1G (default 1G)"),
    "nodes": ("SIZE,…", "RAM by NUMA node, such as 1G,0"),
    "smp": ("N", "CPUs"),
    "page": ("SIZE", "4K, 16K or 64K"),
    "cmdline": ("TEXT", "the kernel's command line"),
    "remedy": ("NAME", "a remedy of the series (memhp trees lists them)"),
    "pfn-valid": ("NAME", "another definition of pfn_valid(), such as G0 or A2"),
    "map": ("FILE", "boot from a memory map: a listing of memblock or /proc/iomem"),
    "capture": ("DIR", "boot the twin of a recorded machine"),
}


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "boot", "make a machine file",
        "Boot a model and write the machine file it starts from. Commands on that file continue it: -m model:FILE.toml.",
        ["memhp boot v4.9/x86_64 --mem 2G -o pc.toml", "memhp boot v4.9+arm64-rfc-2016/arm64 --remedy nohack -o board.toml"],
    )  # fmt: skip
    parser.add_argument("what", metavar="TREE/ARCH", help="what to boot; a whole model: URL does, too")
    for key, (metavar, help) in _KEYS.items():
        parser.add_argument(f"--{key}", metavar=metavar, help=help)
    parser.add_argument("--title", metavar="TEXT", default="", help="one line for people")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file to make; its name ends in .toml")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.backends import base, model
    from memhp.machine import Machine
    from memhp.report.text import counted
    from memhp.units import format_size

    url = args.what if args.what.startswith("model:") else f"model:{args.what}"
    parsed = base.parse(url)
    if not isinstance(parsed, base.ModelURL):
        raise UsageError(f"{args.what}: boot wants TREE/ARCH, such as v4.9/x86_64")
    given = {key.replace("-", "_"): getattr(args, key.replace("-", "_")) for key in _KEYS}
    given = {key: value for key, value in given.items() if value is not None}
    if given:
        empty = next((key for key, value in given.items() if not value), None)
        if empty is not None:
            raise UsageError(f"boot: --{empty.replace('_', '-')} needs a value")
        before = base.query(parsed)
        twice = sorted(before.keys() & given.keys())
        if twice:
            raise UsageError(f"boot: {twice[0]} is given twice")
        parsed = base.model_url(parsed.tree, parsed.arch, {**before, **given}, "boot")
    parsed = base.absolute(parsed, os.getcwd())
    machine = Machine(model.create(args.output, parsed, title=args.title, force=args.force))
    blocks = machine.blocks()
    if common.as_json(args):
        common.print_json(
            {"file": args.output, "machine": str(parsed), "block_size": machine.block_size, "blocks": [b.block for b in blocks]})
    else:
        size = format_size(machine.block_size)
        print(f"{args.output}: {parsed.tree} on {parsed.arch}, {counted(len(blocks), 'memory block')} of {size}")
        print(f"next: memhp ls -m model:{args.output}")
    return common.DONE
