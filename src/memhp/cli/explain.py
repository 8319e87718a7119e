# SPDX-License-Identifier: GPL-2.0-only
"""`memhp explain`: the mail's story, told by running it."""

from __future__ import annotations

import argparse

from memhp.cli import common


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "explain", "tell the mail's story: two call trees, the answers of pfn_valid(), where they part",
        "Boot two kernels, hot-add and online memory in both, and show what ran: arm64 with the series of 2016 and x86_64 side\n"
        "by side, what pfn_valid() answered and why, memory drawn as it changes, the mail's claims with their verdicts, and\n"
        "what each rival remedy comes to. Figures of real kernels stand beside those of the model.",
        ["memhp explain", "memhp explain mail --json"],
    )  # fmt: skip
    parser.add_argument("story", metavar="STORY", nargs="?", default="mail", help="which story; there is one: mail")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.report import explain

    story = explain.tell(args.story)
    if common.as_json(args):
        common.print_json(explain.as_json(args.story, story))
    else:
        print("\n".join(explain.page(story)))
    return common.DONE
