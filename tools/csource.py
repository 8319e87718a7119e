# SPDX-License-Identifier: GPL-2.0-only
"""
Index a kernel tree: C files, function names, line ranges. No code.

    python tools/csource.py KERNEL_TREE --release v4.9 -o tests/data/csource/v4.9.json

Only the files that a room of `memhp.linux` mirrors are kept, whole, and from other files the functions that a room has taken
from there. The index is what the tests hold the model's function names against: a function of the model must exist in C.
Macros with arguments, macros that rename a function, and the functions that page-flags.h makes with its own macros count as
functions.
"""

from __future__ import annotations

import argparse
import ast
import bisect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(SRC))

from memhp.linux import ftrace  # noqa: E402

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)(\()?((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_SYSCALL = re.compile(r"SYSCALL_DEFINE\d")
_NOT_NAMES = frozenset(
    ("__attribute__", "__aligned", "__section", "__printf", "__alloc_size", "__acquires", "__releases", "__must_hold")
)
_PAGE_FLAGS = {
    "PAGEFLAG": ("Page{}", "SetPage{}", "ClearPage{}"),
    "__PAGEFLAG": ("Page{}", "__SetPage{}", "__ClearPage{}"),
    "TESTPAGEFLAG": ("Page{}",),
    "SETPAGEFLAG": ("SetPage{}",),
    "CLEARPAGEFLAG": ("ClearPage{}",),
    "__SETPAGEFLAG": ("__SetPage{}",),
    "__CLEARPAGEFLAG": ("__ClearPage{}",),
    "TESTSETFLAG": ("TestSetPage{}",),
    "TESTCLEARFLAG": ("TestClearPage{}",),
    "TESTSCFLAG": ("TestSetPage{}", "TestClearPage{}"),
    "PAGE_MAPCOUNT_OPS": ("Page{}", "__SetPage{}", "__ClearPage{}"),
}
_PAGE_FLAG = re.compile(rf"\b({'|'.join(_PAGE_FLAGS)})\((\w+)\s*[,)]")

Functions = dict[str, list[list[int]]]
"""Name -> [first line, last line] of each definition; #ifdef variants give several."""


def _blank(match: re.Match[str]) -> str:
    """Spaces, with the newlines kept."""
    return re.sub(r"[^\n]", " ", match[0])


def functions(text: str) -> Functions:
    """
    Return the functions that a C file defines.

    >>> functions("static int __init f(int a)\\n{\\n\\treturn 0;\\n}\\n#define g(x) f(x)\\n")
    {'f': [[1, 4]], 'g': [[5, 5]]}
    """
    text = _COMMENT.sub(_blank, text)
    starts = [0, *(m.end() for m in re.finditer("\n", text))]

    def line(offset: int) -> int:
        return bisect.bisect_right(starts, offset)

    found: list[tuple[str, int, int]] = []
    for match in _DEFINE.finditer(text):
        if match[2] or _IDENTIFIER.fullmatch(match[3].strip()):
            found.append((match[1], line(match.start(1)), line(match.end() - 1)))
    plain = _DIRECTIVE.sub(_blank, text)
    for match in _PAGE_FLAG.finditer(plain):
        found += [(form.format(match[2]), line(match.start()), line(match.start())) for form in _PAGE_FLAGS[match[1]]]
    plain = re.sub(rf"{_PAGE_FLAG.pattern}[^)]*\)?", _blank, plain)
    found += [(name, line(start), line(end)) for name, start, end in _bodies(plain)]
    index: Functions = {}
    for name, first, last in sorted(found, key=lambda entry: entry[1]):
        index.setdefault(name, []).append([first, last])
    return index


def _bodies(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset of its first line, offset of its closing brace) of what has a body at file level."""
    head = 0
    position = 0
    while position < len(text):
        char = text[position]
        if char == ";":
            head = position + 1
        elif char == "{":
            end = _closing(text, position)
            name = _declared(text[head:position])
            if name:
                yield name, head + len(text[head:position]) - len(text[head:position].lstrip()), end
            position = end
            if name or text[end + 1 : end + 2] != " ":
                head = end + 1
        position += 1


def _closing(text: str, brace: int) -> int:
    """
    Return the offset of the brace that closes `brace`.

    Both branches of an #if are in the text, so a closing brace in the first column ends a body in any case.
    """
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, brace):
        depth += 1 if match[0] == "{" else -1
        if depth == 0 or (match[0] == "}" and text[match.start() - 1 : match.start()] == "\n"):
            return match.start()
    return len(text) - 1


def _declared(head: str) -> str:
    """Return the name of the function that a head declares, or "" if it declares none."""
    depth = 0
    word = name = ""
    for match in re.finditer(r"[A-Za-z_]\w*|[()=]", head):
        if match[0] == "(":
            if depth == 0 and word and word not in _NOT_NAMES:
                name = "sys_" + head[match.end() :].split(",")[0].strip(" )") if _SYSCALL.fullmatch(word) else word
            depth += 1
        elif match[0] == ")":
            depth -= 1
        elif match[0] == "=" and depth == 0:
            return ""
        elif depth == 0:
            word = match[0]
    return name


def mirrored() -> list[str]:
    """Return the C files that rooms stand for."""
    rooms = sorted((SRC / "memhp" / "linux").rglob("*.py"))
    files = {ftrace.c_file(str(room)) for room in rooms if room.name != "__init__.py" and room.parent.name != "series"}
    return sorted(files - {""} | set(ftrace.TWINS.values()))


def modelled() -> dict[str, set[str]]:
    """Return the functions that rooms define, by C file."""
    found: dict[str, set[str]] = {}
    for room in sorted((SRC / "memhp" / "linux").rglob("*.py")):
        for node in ast.parse(room.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not re.match("_(?!_)", node.name):
                file = ftrace.c_file(str(room)) or ftrace.TWINS.get((room.stem, node.name), "")
                if file and "Source: none" not in (ast.get_docstring(node) or ""):
                    found.setdefault(file, set()).add(node.name)
    return found


def elsewhere(tree: Path, wanted: set[str], known: set[str]) -> dict[str, Functions]:
    """Return the definitions of `wanted` functions in files of the tree that are not `known`."""
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(wanted))})\b") if wanted else None
    found = {}
    for path in sorted(tree.rglob("*.[ch]")) if pattern else ():
        name = path.relative_to(tree).as_posix()
        text = path.read_text(errors="replace")
        if name in known or name.startswith(("tools/", "Documentation/")) or not pattern.search(text):
            continue
        index = {function: ranges for function, ranges in functions(text).items() if function in wanted}
        if index:
            found[name] = index
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("tree", type=Path, help="root of a kernel source tree")
    parser.add_argument("--release", required=True, help="its name, such as v4.9")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    files = {}
    for name in mirrored():
        path = args.tree / name
        if path.is_file():
            files[name] = functions(path.read_text(errors="replace"))
        else:
            print(f"{name}: not in {args.tree}", file=sys.stderr)
    rooms = modelled()
    missing = {name for file, defined in rooms.items() for name in defined if name not in files.get(file, {})}
    for index in files.values():
        missing -= index.keys()
    files |= elsewhere(args.tree, missing, set(files))
    files = dict(sorted(files.items()))
    lines = [json.dumps({"release": args.release})[:-1] + ', "files": {']
    for i, (name, index) in enumerate(files.items()):
        lines.append(f'"{name}": {{')
        lines.append(",\n".join(f"  {json.dumps(function)}: {json.dumps(ranges)}" for function, ranges in index.items()))
        lines.append("}" if i == len(files) - 1 else "},")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text("\n".join([*lines, "}}"]) + "\n")
    print(f"{args.output}: {len(files)} files, {sum(map(len, files.values()))} functions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
