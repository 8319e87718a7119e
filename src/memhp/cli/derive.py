# SPDX-License-Identifier: GPL-2.0-only
"""`memhp derive`: which pfn_valid() serves everything that asks it."""

from __future__ import annotations

import argparse

from memhp.cli import common


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    parser = common.add_command(
        commands, "derive", "find the pfn_valid() that serves everything that asks it",
        "Run everything in v4.9 that asks pfn_valid(), under every way of answering the questions it asks, and print which\n"
        "definitions serve all, or who is in conflict and the cheapest split. Every claim has a line that replays it.\n"
        "Exit code: 4 if no single definition serves everybody.",
        ["memhp derive", "memhp derive --arch x86_64", "memhp derive --caller memremap --caller kpageflags",
         "memhp derive --arch x86_64 --drop dma_map_resource", "memhp derive --orders"],
    )  # fmt: skip
    parser.add_argument("--arch", metavar="ARCH", default="arm64", help="arm64 (the default) or x86_64")
    parser.add_argument(
        "--remedy", metavar="NAME", default="",
        help="the remedy of the 2016 series that adds memory (arm64; default nonomap-nohack: as generic code would)")  # fmt: skip
    for option, metavar, what in (
        ("--caller", "NAME", "only this caller"),
        ("--state", "NAME", "only this kind of page"),
        ("--drop", "NAME", "without this caller, kind of page or obligation"),
        ("--config", "SYMBOL=y|n", "a CONFIG_ symbol that differs from the recorded kernel's"),
    ):
        parser.add_argument(option, metavar=metavar, action="append", default=[], help=f"{what}; may be repeated")
    parser.add_argument("--orders", action="store_true", help="instead: which orders of the steps of a hot-add work")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.checker import answer
    from memhp.report import derive as report

    if args.orders:
        return _orders(args)
    question = answer.question(args.arch, args.remedy, args.caller, args.state, args.drop, args.config)
    found = answer.answer(question)
    ways = found.splits[:1]
    of_history = found.with_predicates("valid", "map")
    if ways and of_history and of_history.predicates[0] != ways[0].predicates[0]:
        ways.append(of_history)
    gone = [(aside.caller, aside.state) for aside in found.aside]
    tried = [answer.try_split(question, way, gone) for way in ways]
    online = answer.online(question)
    if common.as_json(args):
        common.print_json({
            **found.json(),
            "tried": [
                {"split": [expression for expression, _ in one.split.predicates], "runs": one.runs,
                 "during_boot": one.during_boot,
                 "broken": [{"caller": c, "state": s, "obligation": b.obligation, "text": b.text} for c, s, b in one.broken]}
                for one in tried],
            "online": {"needed_by": list(online.needed_by), "pairs": online.pairs},
        })
    else:
        for line in report.page(found, tried, online):
            print(line)
    return common.DONE if found.derivation.sound else common.FOUND


def _orders(args: argparse.Namespace) -> int:
    from memhp.checker import orders
    from memhp.errors import UsageError
    from memhp.report import derive as report

    if args.arch != "arm64" or args.remedy or args.caller or args.state or args.drop or args.config:
        raise UsageError("--orders stands alone: it asks of v4.9 arm64, with its own pfn_valid()")
    found = orders.search()
    if common.as_json(args):
        common.print_json({
            "tried": found.tried, "working": [list(order) for order in found.working], "needed": found.needed(),
            "precedences": [list(pair) for pair in found.precedences()],
            "broken": {why: [list(order) for order in found_orders] for why, found_orders in found.broken.items()},
        })
    else:
        for line in report.orders(found):
            print(line)
    return common.DONE
