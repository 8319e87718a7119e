# SPDX-License-Identifier: GPL-2.0-only
"""`memhp capture`: record a machine."""

from __future__ import annotations

import argparse
import sys

from memhp.cli import common
from memhp.errors import UsageError


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "capture", "record a machine: its files into a folder",
        "Record a machine: memory blocks, nodes, zones, memory map, the flags of each page, the kernel's log and, where it\n"
        "can be read, its configuration. capture:DIR opens the record; model:TREE/ARCH?capture=DIR boots the model as its twin.",
        ["memhp capture -m qemu:v6.12/arm64 -o arm64-6.12", "memhp ls -m capture:arm64-6.12"],
    )  # fmt: skip
    common.add_machine(parser)
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="a new or empty folder")
    parser.add_argument("--no-pages", action="store_true", help="leave out kpageflags and kpagecount (16 bytes a page)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.abi import capture
    from memhp.machine import connect

    url = common.machine_url(args)
    if not url:
        raise UsageError(f"capture records this host by default, and host: cannot be opened yet; -m {common.EXAMPLE} is a model")
    capture.check_new(args.output)
    shown = sys.stderr.isatty() and not common.as_json(args)

    def progress(path: str) -> None:
        if shown:
            print(f"\r\x1b[K{path[:100]}", end="", file=sys.stderr, flush=True)

    with connect(url) as machine:
        try:
            manifest = machine.capture(args.output, pages=not args.no_pages, progress=progress)
        finally:
            if shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    size = sum(stored.size for stored in manifest.files.values())
    if common.as_json(args):
        common.print_json({
            "capture": args.output, "release": manifest.release, "arch": manifest.arch, "page_size": manifest.page_size,
            "files": len(manifest.files), "bytes": size, "lacks": manifest.lacks})
        return common.DONE
    print(f"{args.output}: {manifest.release or url} {manifest.arch}, {len(manifest.files)} files, {size} bytes")
    for path, why in manifest.lacks.items():
        print(f"  not recorded: {common.printable(path)} ({common.printable(why)})")
    return common.DONE
