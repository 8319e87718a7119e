# SPDX-License-Identifier: GPL-2.0-only
"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPDX = "# SPDX-License-Identifier: GPL-2.0-only"
NOT_OURS = {"__pycache__", "build", "dist", "node_modules"}
OF_THE_HOUSE = {".ci", ".github", ".gitignore"}
"""Hidden files that belong to the project."""

# Written in parts, so that this file does not hold what it looks for.
FOREIGN = re.compile("|".join((
    r"(?<![\w.~*$}/-])/" + r"(work|root)/",   # a path of one particular machine
    r"\bpypi\." + r"org\b", r"\bpythonhosted\." + r"org\b", r"\bregistry\." + r"npmjs\b", r"\bdeb\." + r"debian\b",
)))


def files() -> Iterator[Path]:
    """Every file of the project, without what tools leave behind."""
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            if path.name in NOT_OURS or (path.name.startswith(".") and path.name not in OF_THE_HOUSE):
                continue
            if path.is_dir():
                folders.append(path)
            else:
                yield path


def is_code(path: Path) -> bool:
    """Whether a file is code: Python, shell, make, or starts as a script does; an empty file holds none."""
    if not path.stat().st_size:
        return False
    if path.suffix in (".py", ".sh", ".mk") or path.name in ("Makefile", "pyproject.toml"):
        return True
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def has_licence(text: str) -> bool:
    """Whether the first line, or the one after #!, names the licence."""
    lines = text.splitlines()
    return SPDX in (lines[1:2] if lines and lines[0].startswith("#!") else lines[:1])


def foreign(text: str) -> list[str]:
    """Paths of one machine and registry hosts that a text names."""
    return [match[0] for match in FOREIGN.finditer(text)]


def test_every_code_file_names_its_licence() -> None:
    """The first line of code files (the second of scripts) is the SPDX line."""
    code = [path for path in files() if is_code(path)]
    assert len(code) > 20
    missing = [str(path.relative_to(ROOT)) for path in code if not has_licence(path.read_text())]
    assert not missing


def test_nothing_names_one_machine_or_a_registry() -> None:
    """No file holds a path of the machine it was written on, nor the host of a package registry."""
    found = []
    for path in files():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            found += [f"{path.relative_to(ROOT)}: {what}" for what in foreign(data.decode(errors="replace"))]
    assert not found


def test_every_module_says_what_it_holds() -> None:
    """Every module of src starts with a docstring; only an empty __init__.py may go without."""
    modules = sorted((ROOT / "src").rglob("*.py"))
    assert modules
    silent = []
    for path in modules:
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None and not (path.name == "__init__.py" and not tree.body):
            silent.append(str(path.relative_to(ROOT)))
    assert not silent


def test_changelog_fragments_are_named_as_agreed() -> None:
    """A fragment is changelog.d/NUMBER.KIND.md and holds text."""
    for path in (ROOT / "changelog.d").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(r"\d+\.(feature|fix|change|removal)\.md", path.name), path.name
            assert path.read_text().strip(), path.name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /" + "work/main/x.py", True),
        ("open('/" + "root/.ssh')", True),
        ("pip -i https://" + "pypi." + "org/simple", True),
        ("DIR/root/sys, a frame/work/shop, /sys/devices", False),
        ("a network/" + "work", False),
    ],
)
def test_foreign_words_are_noticed(text: str, found: bool) -> None:
    """The search finds what it is meant to find, and leaves other paths alone."""
    assert bool(foreign(text)) == found


def test_a_missing_licence_is_noticed() -> None:
    """The SPDX line counts only where it belongs."""
    assert has_licence(f"{SPDX}\n")
    assert has_licence(f"#!/bin/sh\n{SPDX}\n")
    assert not has_licence(f'"""Text."""\n{SPDX}\n')
    assert not has_licence("")
