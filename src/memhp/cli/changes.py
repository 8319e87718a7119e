# SPDX-License-Identifier: GPL-2.0-only
"""`memhp changes`: what two kernels do differently."""

from __future__ import annotations

import argparse

from memhp.cli import common
from memhp.errors import UsageError, did_you_mean


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "changes", "what two kernels do differently, by fact and commit",
        "List the facts in which two kernel trees differ: the commit that changed each, and the functions that read it.",
        ["memhp changes v4.9 v6.12", "memhp changes v4.9 v4.9+arm64-rfc-2016 --json"],
    )  # fmt: skip
    parser.add_argument("old", metavar="OLD", help="a tree, such as v4.9")
    parser.add_argument("new", metavar="NEW", help="another, such as v6.12")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.linux.tree import TREES
    from memhp.report import changes, text

    for name in (args.old, args.new):
        if name not in TREES:
            raise UsageError(f"unknown tree {name[:60]!r}{did_you_mean(name, TREES)}")
    found = changes.compare(TREES[args.old], TREES[args.new])
    if common.as_json(args):
        common.print_json(
            [
                {
                    "fact": d.fact, "old": d.before, "new": d.after, "release": d.release or None, "commit": d.commit or None,
                    "title": d.title, "readers": [{"file": r.room, "function": r.function, "line": r.line} for r in d.readers],
                }
                for d in found
            ]
        )  # fmt: skip
        return common.DONE
    if not found:
        print(f"{args.old} and {args.new} differ in no fact")
        return common.DONE
    rows = [(d.fact, show(d.before), show(d.after), d.release or "series", d.commit or "-", d.title) for d in found]
    lines = text.columns(rows, header=("FACT", args.old, args.new, "SINCE", "COMMIT", "WHAT"))
    print(lines[0])
    for difference, line in zip(found, lines[1:], strict=True):
        print(line)
        for reader in difference.readers:
            print(f"    read by {reader}")
    print(f"\n{text.counted(len(found), 'fact')}; {sum(1 for d in found if d.readers)} of them read by the model")
    return common.DONE


def show(value: object) -> str:
    """Return a fact's value as a word."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "none"
