# SPDX-License-Identifier: GPL-2.0-only
"""`memhp ls`: list memory blocks, with the habits of lsmem."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memhp.cli import common
from memhp.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from memhp.abi.memory import BlockSnapshot
    from memhp.backends.base import PluggedDevice

COLUMNS = {
    "RANGE": "first and last address",
    "SIZE": "bytes",
    "STATE": "online or offline",
    "REMOVABLE": "what the kernel's `removable` says of an online block",
    "BLOCK": "number or numbers",
    "NODE": "NUMA node",
    "ZONES": "valid_zones: the zone it is in, or may go to, first",
    "DEVICE": "the DIMM or device that holds it",
}
_SPLITS = ("STATE", "REMOVABLE", "NODE", "ZONES", "DEVICE")


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    listing = "\n".join(f"  {name:10}{what}" for name, what in COLUMNS.items())
    parser = common.add_command(
        commands, "ls", "list memory blocks: ranges, state, zones, node, device",
        f"List memory blocks. Neighbours that look alike are one line.\n\ncolumns:\n{listing}",
        ["memhp ls -m model:v4.9/x86_64", "memhp ls -a -o BLOCK,STATE,ZONES -m model:pc.toml"],
    )  # fmt: skip
    common.add_machine(parser)
    parser.add_argument("-a", "--all", action="store_true", help="every block on a line of its own")
    parser.add_argument("-b", "--bytes", action="store_true", help="sizes in bytes")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-J", dest="json", action="store_true", default=argparse.SUPPRESS, help="as --json")
    form.add_argument("-P", "--pairs", action="store_true", help='KEY="value" pairs')
    form.add_argument("-r", "--raw", action="store_true", help="columns apart by one space")
    parser.add_argument("-n", "--noheadings", action="store_true", help="no line of headings")
    parser.add_argument("-o", "--output", metavar="LIST", help="columns, apart by commas")
    parser.add_argument("--output-all", action="store_true", help="all columns")
    parser.add_argument("-S", "--split", metavar="LIST", help="columns whose change begins a new range, or none")
    parser.add_argument("--summary", choices=("never", "always", "only"), help="the totals below the list")


@dataclass(frozen=True, slots=True)
class Row:
    """Neighbouring blocks that look alike: first and last number, and one of them for the rest."""

    first: int
    last: int
    block: BlockSnapshot
    device: str


def _names(text: str, known: tuple[str, ...], option: str) -> list[str]:
    names = [name.strip().upper() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"ls: {option}: unknown column {name!r}{did_you_mean(name, known)}")
    return names


def _rows(
    blocks: Sequence[BlockSnapshot], size: int, devices: Sequence[PluggedDevice], split: list[str], every: bool
) -> list[Row]:
    """Return the blocks, neighbours that agree in the `split` columns as one row."""
    rows: list[Row] = []
    key: tuple[object, ...] = ()
    for block in blocks:
        number = int(block.block)
        start, end = number * size, (number + 1) * size
        device = ",".join(d.id for d in devices if d.start < end and start < d.start + d.size)
        looks = {
            "STATE": block.state,
            "REMOVABLE": _removable(block),
            "NODE": block.nodes,
            "ZONES": block.valid_zones,
            "DEVICE": device,
        }
        mine = tuple(looks[name] for name in split)
        if rows and not every and rows[-1].last + 1 == number and key == mine:
            rows[-1] = Row(rows[-1].first, number, rows[-1].block, rows[-1].device)
        else:
            rows.append(Row(number, number, block, device))
        key = mine
    return rows


def _removable(block: BlockSnapshot) -> bool | None:
    """Return what lsmem shows: of a block that is offline already it says nothing."""
    return block.removable if block.state == "online" else None


def _value(row: Row, name: str, size: int, in_bytes: bool) -> Any:
    """Return one cell, typed as in JSON."""
    from memhp.units import format_size

    block, count = row.block, row.last - row.first + 1
    match name:
        case "RANGE":
            return f"0x{row.first * size:016x}-0x{(row.last + 1) * size - 1:016x}"
        case "SIZE":
            return count * size if in_bytes else format_size(count * size)
        case "STATE":
            return block.state
        case "REMOVABLE":
            return _removable(block)
        case "BLOCK":
            return str(row.first) if count == 1 else f"{row.first}-{row.last}"
        case "NODE":
            return block.node
        case "ZONES":
            return None if block.valid_zones is None else "/".join(block.valid_zones) or "none"
    return row.device or None


def _text(value: object, missing: str = "-") -> str:
    if value is None:
        return missing
    return ("yes" if value else "no") if isinstance(value, bool) else common.printable(str(value))


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.checker.ledger import connect
    from memhp.report import text

    url = common.machine_url(args)
    if not url:
        raise UsageError(f"ls shows this host by default, and host: cannot be opened yet; -m {common.EXAMPLE} shows a model")
    json = common.as_json(args)
    if json and (args.pairs or args.raw):
        raise UsageError("ls: --json, --pairs and --raw are three forms; choose one")
    every_name = tuple(COLUMNS)
    with connect(url) as machine:
        blocks, devices, size = machine.blocks(), machine.devices(), machine.block_size
        if args.output:
            names = _names(args.output, every_name, "-o")
        elif args.output_all or json:
            names = list(every_name)
        else:
            has_nodes = any(block.nodes for block in blocks)
            names = [n for n in every_name if (n != "NODE" or has_nodes) and (n != "DEVICE" or devices)]
        if args.split:
            split = [] if args.split.lower() == "none" else _names(args.split, _SPLITS, "-S")
        else:
            split = [name for name in _SPLITS if name in names]
        unseen = machine.backend.unseen()
        unheld = machine.unheld()
    if unseen:
        reasons = {why: [what for what, other in unseen.items() if other == why] for why in unseen.values()}
        common.warn("not seen on this machine: " + "; ".join(f"{', '.join(what)} ({why})" for why, what in reasons.items()))
    rows = _rows(blocks, size, devices, split, args.all)
    table = [{name: _value(row, name, size, args.bytes) for name in names} for row in rows]
    online = size * sum(block.state == "online" for block in blocks)
    totals = {"online": online, "offline": size * len(blocks) - online}
    if json:
        shown = {"memory": [{name.lower(): value for name, value in row.items()} for row in table]}
        common.print_json({**shown, "unheld": list(unheld)} if unheld else shown)
        return common.DONE
    if args.summary != "only":
        if args.pairs:
            for row in table:
                print(" ".join(f'{name}="{_text(value, "")}"' for name, value in row.items()))
        elif args.raw:
            for cells in ([] if args.noheadings else [names]) + [[_text(v, "") for v in row.values()] for row in table]:
                print(" ".join(cells))
        else:
            right = [i for i, name in enumerate(names) if name in ("SIZE", "REMOVABLE", "BLOCK", "NODE")]
            cells_of = [[_text(value) for value in row.values()] for row in table]
            for line in text.columns(cells_of, header=() if args.noheadings else names, right=right):
                print(line)
    if args.summary in ("always", "only") or (args.summary is None and not (args.pairs or args.raw)):
        _summary(size, totals, args.bytes, blank=args.summary != "only")
    if unheld and (args.pairs or args.raw):
        common.warn(common.explain_mark(unheld))
    elif unheld:
        print(common.explain_mark(unheld))
    return common.DONE


def _summary(size: int, totals: dict[str, int], in_bytes: bool, *, blank: bool) -> None:
    from memhp.units import format_size

    def show(value: int) -> str:
        return str(value) if in_bytes else format_size(value)

    if blank:
        print()
    print(f"Memory block size:    {show(size):>10}")
    print(f"Total online memory:  {show(totals['online']):>10}")
    print(f"Total offline memory: {show(totals['offline']):>10}")
