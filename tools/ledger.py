# SPDX-License-Identifier: GPL-2.0-only
"""
The ledger: which lines of the model ran in a comparison with a real kernel that was equal.

    python -m tools.ledger      make every comparison; write the ledger, and its tables in docs/fidelity.md

A line counts for one kernel tree at a time. What a tree can run at all is read off the facts: where a body asks `k.tree.fact`,
the other branch is none of that tree's, and neither are functions that only such branches call.

Beside the ledger a few comparisons are named that together run all that is held (tests/data/ledger-cover.json): running those is
how a test sees, quickly, that the ledger claims nothing that is not so.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.comparisons import Comparison, Different, comparisons

from memhp.checker import lines
from memhp.checker.ledger import NAME
from memhp.checker.lines import Function
from memhp.checker.notes import Chosen, Key, Notes, first_line
from memhp.linux import tree

ROOT = Path(__file__).parents[1]
DATA = ROOT / "src" / "memhp" / "recorded" / NAME
ARCHES = {"v4.9": ("x86_64",), "v4.9+arm64-rfc-2016": ("arm64",)}
"""Trees that hot-add on some architectures only."""
_FOLDERS = {"arm64": ("arch/arm64", "arch/arm"), "x86_64": ("arch/x86",)}
COVER = ROOT / "tests" / "data" / "ledger-cover.json"
PAGE = ROOT / "docs" / "fidelity.md"

Ran = dict[Key, set[int]]
"""Function -> which of its lines ran, by their place in it."""


@cache
def functions() -> dict[Key, Function]:
    """Return every function of the model, by room and name."""
    found = (f for room in lines.rooms() for f in lines.functions(lines.read_room(room).decode(), room))
    return {function.key: function for function in found}


@cache
def _places(key: Key) -> dict[int, int]:
    """Return line of the file -> place of the line in the function; the innermost one counts."""
    places: dict[int, int] = {}
    for index, line in enumerate(functions()[key].lines):
        for n in range(line.first, line.last + 1):
            places[n] = index
    return places


def _offset(key: Key, place: int) -> int:
    """Return how far below the beginning of its function a line is."""
    function = functions()[key]
    return function.lines[place].first - function.first


# What ran


class Looking:
    """
    Runs calls and says which of the wanted lines run in them.

    Args:
        wanted: Function -> lines.
    """

    def __init__(self, wanted: Ran) -> None:
        importlib.import_module("memhp.backends.model")
        self.wanted = {key: set(places) for key, places in wanted.items()}
        self._seen: dict[Key, set[int]] = defaultdict(set)
        self._notes = Notes(lambda key, line: self._seen[key].add(line))

    def __enter__(self) -> Looking:
        self._notes.__enter__()
        self._notes.put({key: self._chosen(key) for key in self.wanted})
        return self

    def __exit__(self, *error: object) -> None:
        self._notes.close()

    def _chosen(self, key: Key) -> Chosen:
        function = functions()[key]
        return Chosen(function.first, function.last, sorted({_offset(key, place) for place in self.wanted[key]}))

    def run(self, comparison: Comparison) -> Ran:
        """Return what runs in a comparison, as far as it is equal; what it raises goes through."""
        self._seen.clear()
        found: Ran = defaultdict(set)

        def agreed() -> None:
            for key, seen in self._seen.items():
                found[key].update(place for place in self.wanted[key] if _offset(key, place) in seen)
            self._seen.clear()

        forget()
        comparison.run(agreed)
        return dict(found)

    def drop(self, found: Ran) -> None:
        """Look for these no more."""
        for key, places in found.items():
            self.wanted[key] -= places
        self._notes.put({key: self._chosen(key) for key in found})


def forget() -> None:
    """Empty what functions of the model remember of earlier calls."""
    for name, module in sys.modules.items():
        if name.startswith("memhp.linux."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


# What a tree can run


@dataclass(slots=True)
class _Part:
    """One line of a function, as far as one tree is concerned."""

    live: bool = False
    names: set[str] = field(default_factory=set)


class Reach:
    """
    Which lines a tree can run: those that no test of a fact keeps it from, in functions that it can come to.

    Functions are told apart by name only, so this is never too little.
    """

    def __init__(self) -> None:
        self.modules = {}
        for room in lines.rooms():
            text = lines.read_room(room).decode()
            self.modules[room] = (ast.parse(text), lines.parse(text, room))
        self._outside = self._names_outside()

    @staticmethod
    def _names_outside() -> set[str]:
        """Return the names that the rest of memhp uses."""
        package = lines.ROOMS.parent
        found: set[str] = set()
        for path in package.rglob("*.py"):
            if lines.ROOMS not in path.parents or path.name in lines.NOT_THE_MODEL:
                found |= _names(ast.parse(path.read_text(encoding="utf-8")))
        return found

    def of(self, name: str) -> dict[Key, set[int]]:
        """Return function -> its lines that a tree can run ("": any tree); functions out of reach are not there."""
        which = tree.TREES.get(name)
        out = tuple(f"{folder}/" for arch in _FOLDERS if arch not in ARCHES.get(name, (arch,)) for folder in _FOLDERS[arch])
        parts: dict[Key, dict[int, _Part]] = {}
        tables: set[str] = set()
        nodes: dict[Key, ast.FunctionDef | ast.Lambda] = {}
        for room, (module, parsed) in self.modules.items():
            if room.startswith(out):
                continue
            nodes |= {function.key: node for function, node in parsed}
            tables |= set(_table_names(module))
        for key, node in nodes.items():
            parts[key] = _live(node, key, which)
        wanted = self._outside | tables
        by_name: dict[str, list[Key]] = defaultdict(list)
        for key in parts:
            by_name[key[1].rpartition(".")[2]].append(key)
        reached: set[Key] = set()
        todo = [key for key in parts if key[1].startswith("<lambda>") or key[1].endswith("__")]
        todo += [key for name in wanted for key in by_name.get(name, ())]
        while todo:
            key = todo.pop()
            if key in reached:
                continue
            reached.add(key)
            for part in parts[key].values():
                if part.live:
                    todo += [other for name in part.names for other in by_name.get(name, ())]
        return {key: {place for place, part in parts[key].items() if part.live} for key in reached}


def _name(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        yield node.value


def _table_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a room uses outside of its functions; importing a name is no use."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.Import | ast.ImportFrom):
            yield from _name(child)
            yield from _table_names(child)


def _names(node: ast.AST) -> set[str]:
    return {name for child in ast.walk(node) for name in _name(child)}


def _live(node: ast.FunctionDef | ast.Lambda, key: Key, which: tree.Tree | None) -> dict[int, _Part]:
    """Return the lines of a function, each with whether a tree can come to it and which names it uses."""
    parts = {index: _Part() for index in range(len(functions()[key].lines))}
    if isinstance(node, ast.Lambda):
        parts[0] = _Part(True, _names(node.body))
        return parts
    places = _places(key)

    def block(body: Sequence[ast.stmt], live: bool) -> bool:
        """Mark a block; returns whether its end is come to."""
        for statement in body:
            live = one(statement, live)
        return live

    def one(statement: ast.AST, live: bool) -> bool:
        place = places.get(first_line(statement))
        if place is not None and live:
            parts[place].live = True
            for child in ast.iter_child_nodes(statement):
                if not isinstance(child, (ast.stmt, ast.excepthandler)):
                    parts[place].names |= _names(child)
        match statement:
            case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
                return False
            case ast.If():
                known = _known(statement.test, which)
                yes = block(statement.body, live and known is not False)
                no = block(statement.orelse, live and known is not True)
                return yes or no
            case ast.For() | ast.While():
                block(statement.body, live)
                block(statement.orelse, live)
                return live
            case ast.With():
                return block(statement.body, live)
            case ast.Try():
                ends = block(statement.orelse, block(statement.body, live))
                for handler in statement.handlers:
                    ends = block(handler.body, live) or ends
                return block(statement.finalbody, live) and ends
            case ast.Match():
                ends = [block(case.body, live) for case in statement.cases]
                return live
            case ast.FunctionDef():
                block(statement.body, live)
        return live

    block(node.body, True)
    return parts


def _known(test: ast.expr, which: tree.Tree | None) -> bool | None:
    """Return what a test of facts comes to on a tree, or None if that is not known."""
    if which is None:
        return None
    match test:
        case ast.Attribute(value=ast.Attribute(attr="tree") | ast.Name(id="tree"), attr=name) if hasattr(which, name):
            return bool(getattr(which, name))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            known = _known(operand, which)
            return None if known is None else not known
        case ast.BoolOp(op=op, values=values):
            all_known = [_known(value, which) for value in values]
            decided = isinstance(op, ast.Or)
            if decided in all_known:
                return decided
            return None if None in all_known else not decided
    return None


# The ledger


@dataclass(slots=True)
class Tally:
    """
    What the comparisons gave.

    Attributes:
        held: Tree -> what ran in comparisons that were equal.
        cover: Tree -> the comparisons that held something new, in order; together they hold it all.
        equal: Those that were equal.
        unequal: Comparison -> what differed; its lines are not held.
    """

    held: dict[str, Ran] = field(default_factory=lambda: {name: defaultdict(set) for name in trees()})
    cover: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in trees()})
    equal: list[Comparison] = field(default_factory=list)
    unequal: dict[Comparison, str] = field(default_factory=dict)


@cache
def countable(key: Key) -> frozenset[int]:
    """Return the lines of a function that count: all but guards."""
    return frozenset(place for place, line in enumerate(functions()[key].lines) if not line.guard)


def trees() -> list[str]:
    """Return the kernel trees."""
    return list(tree.TREES)


def run(chosen: Iterable[Comparison], progress: Callable[[str], None] = lambda text: None) -> Tally:
    """Make comparisons and note what runs in them."""
    tally = Tally()
    by_tree: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in chosen:
        by_tree[comparison.tree].append(comparison)
    for name, those in by_tree.items():
        with Looking({key: set(countable(key)) for key in functions()}) as looking:
            for comparison in those:
                begun = time.perf_counter()
                try:
                    new = looking.run(comparison)
                except Exception as err:
                    tally.unequal[comparison] = str(err) if isinstance(err, Different) else repr(err)
                    progress(f"differs  {comparison.name}: {tally.unequal[comparison]}")
                    continue
                looking.drop(new)
                tally.equal.append(comparison)
                for key, places in new.items():
                    tally.held[name][key] |= places
                count = sum(map(len, new.values()))
                if count:
                    tally.cover[name].append(comparison.name)
                progress(f"{time.perf_counter() - begun:6.2f} s {count:5} lines more  {comparison.name}")
    return tally


def as_data(held: dict[str, Ran]) -> dict[str, Any]:
    """Return the ledger as plain data."""
    rooms: dict[str, Any] = {}
    for room in lines.rooms():
        entries = {}
        for key, function in functions().items():
            if key[0] != room:
                continue
            code = countable(key)
            unheld = {}
            for name in trees():
                ran = held[name].get(key, set())
                if ran or not code:
                    unheld[name] = sorted({_offset(key, place) for place in code - ran})
            entries[key[1]] = [function.first, function.last, function.digest, unheld, function.label]
        rooms[room] = {"text": lines.digest(lines.read_room(room)), "functions": entries}
    return {"rooms": rooms}


def dumps(data: dict[str, Any]) -> str:
    """Return the ledger as text: a function a line."""
    parts = []
    for room, entry in data["rooms"].items():
        rows = [f"{json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}" for name, row in entry["functions"].items()]
        parts.append(f'{json.dumps(room)}: {{"text": "{entry["text"]}", "functions": {{\n' + ",\n".join(rows) + "\n}}")
    return '{"rooms": {\n' + ",\n".join(parts) + "\n}}\n"


def claimed(data: dict[str, Any], name: str) -> Ran:
    """Return what a ledger says is held on a tree, of those functions whose text is still the same."""
    ran: Ran = {}
    for room, entry in data["rooms"].items():
        for function_name, (_, _, text, unheld, _) in entry["functions"].items():
            function = functions().get((room, function_name))
            if function is None or function.digest != text or name not in unheld:
                continue
            missing = {function.first + line for line in unheld[name]}
            held = {place for place in countable(function.key) if function.lines[place].first not in missing}
            if held:
                ran[function.key] = held
    return ran


# The page


def replace_part(page: str, part: str, text: str) -> str:
    """Return a page with the part between its two marks made anew."""
    begin, end = f"<!-- {part}: made by make {part} -->\n", f"<!-- end of {part} -->\n"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{PAGE.name}: there is no one part between {begin.strip()} and {end.strip()}")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text.strip()}\n\n{end}{rest.partition(end)[2]}"


def tables(tally: Tally) -> str:
    """Return the ledger for people."""
    held, unequal = tally.held, len(tally.unequal)
    reach = Reach()
    live = {name: {key: places & countable(key) for key, places in reach.of(name).items()} for name in trees()}
    anywhere = reach.of("")
    shown = [name for name in trees() if any(held[name].values())]
    guards = sum(line.guard for f in functions().values() for line in f.lines)
    rows = [("kernel tree", "comparisons", "lines that it can run", "held", "not held", "functions held whole", "in part", "not")]
    for name in shown:
        total = sum(map(len, live[name].values()))
        got = sum(len(held[name].get(key, set()) & places) for key, places in live[name].items())
        parts = [_part(held[name].get(key, set()), places) for key, places in live[name].items() if places]
        made = sum(c.tree == name for c in tally.equal)
        rows.append((name, str(made), f"{total:,}", f"{got:,} ({100 * got // max(total, 1)} %)", f"{total - got:,}",
                     *(str(parts.count(what)) for what in ("whole", "part", "not"))))
    text = [_table(rows), ""]
    text += [f"{guards} lines that only tell a caller of ours about his mistake (`assert`, `raise UsageError`) are in none of "
             "these numbers." + (f" {unequal} comparisons were not equal and hold nothing." if unequal else ""), ""]

    never = [f for key, f in functions().items() if countable(key) and not any(held[name].get(key) for name in trees())]
    asked = [f for f in never if f.key in anywhere]
    text += ["### Functions with no held line", "",
             f"{len(never)} of {len(functions())} functions ran in no comparison. {len(asked)} of them can be come to from what "
             "memhp does:", ""]
    text += _by_file(asked)
    text += ["", f"The other {len(never) - len(asked)} are called by nobody but tests:", ""]
    text += _by_file([f for f in never if f.key not in anywhere])

    text += ["", "### Function by function", "",
             "Lines held of those that the tree can run; – where it cannot run any. Functions that are held whole on every tree "
             "that can run them are counted, not listed.", ""]
    rows = [("function", *shown)]
    whole: dict[str, int] = defaultdict(int)
    listed: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for key, function in functions().items():
        if not countable(key):
            continue
        cells = []
        for name in shown:
            places = live[name].get(key, set())
            got = len(held[name].get(key, set()) & places)
            cells.append("–" if not places else f"{got}/{len(places)}")
        file = function.label.partition(" ")[0]
        if all(cell == "–" or len(set(cell.split("/"))) == 1 for cell in cells) and set(cells) != {"–"}:
            whole[file] += 1
        elif set(cells) != {"–"}:
            listed[file].append((function.label.partition(" ")[2], *cells))
    for file in sorted({*whole, *listed}):
        rows.append((f"**{file}**" + (f" {whole[file]} held whole" if whole[file] else ""), *("" for _ in shown)))
        rows += sorted(listed[file])
    text.append(_table(rows))
    return "\n".join(text)


def _part(held: set[int], places: set[int]) -> str:
    got = len(held & places)
    return "whole" if got == len(places) else "part" if got else "not"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _by_file(found: Iterable[Function]) -> list[str]:
    files: dict[str, list[str]] = defaultdict(list)
    for function in found:
        file, _, name = function.label.partition(" ")
        files[file].append(name)
    return [f"* {file}: {', '.join(sorted(names))}" for file, names in sorted(files.items())]


def main() -> int:
    """Run the comparisons, and write what they hold."""
    argparse.ArgumentParser(description=__doc__.strip().splitlines()[0]).parse_args()
    tally = run(comparisons(), print)
    DATA.write_text(dumps(as_data(tally.held)), encoding="utf-8")
    COVER.write_text(json.dumps(tally.cover, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_part(page, "ledger", tables(tally)), encoding="utf-8")
    for name in trees():
        print(f"{name}: {sum(map(len, tally.held[name].values())):,} lines held")
    return 1 if tally.unequal else 0


if __name__ == "__main__":
    sys.exit(main())
