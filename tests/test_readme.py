# SPDX-License-Identifier: GPL-2.0-only
"""
Every command that README.md and docs/ show is run, and must print what is shown below it.

The rules for whoever writes a document:

* Commands stand in fences marked ``console``, each after ``$ ``. A line that goes on ends in a backslash or is followed by
  lines that start with ``> ``, as the shell shows them. All commands of one document run in order in one copy of the
  checkout, so a step may use a file that an earlier one wrote.
* What stands below a command is everything it prints, errors too. ``...`` stands for any text, a line of ``...`` for any lines.
* Documents in `NEED_KERNELS` are run by `make lab`.
* The mark †, and the line that says what it is about, come and go with the ledger; a document that does not show them is not held
  to them.
* The command must succeed, or say how it ends: ``$ memhp online 7  # exit 1``.
* `make TARGET`, `git clone`, `cd` and installing are not run. A target must exist; what stands below `make run` is compared with
  the command behind that target.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from memhp.backends.qemu import images
from memhp.cli.common import MARK

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LEFT_OUT = (".*", "__pycache__", "build", "dist")
NOT_RUN = re.compile(r"(sudo )?(git|cd|apt-get|pip|pipx|python3 -m venv)\b")
EXIT = re.compile(r"\s+# exit (\d+)$")
FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
SECONDS = 300
NEED_KERNELS = ("docs/operate/real-kernels.md",)
"""Documents whose commands boot real kernels: `make lab` runs them."""


@dataclass
class Example:
    """One command as a document shows it: its line, how it ends, what it prints."""

    line: int
    command: str
    status: int
    output: str


def examples(text: str) -> list[Example]:
    """Return the commands of a document, in order."""
    found: list[Example] = []
    ticks = ""
    console = continued = fresh = False
    indent = 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if not ticks and fence:
            ticks, console, indent = fence["ticks"], fence["info"].strip() == "console", len(fence["indent"])
            if fence["info"].strip() in ("sh", "bash", "shell", "shell-session"):
                raise ValueError(f"line {number}: commands stand in fences marked console, so that they are run")
            fresh = True
        elif ticks and line.strip() == ticks:
            ticks, console, continued = "", False, False
        elif console:
            line = line[indent:]
            if continued or ((line + " ").startswith("> ") and not fresh and not found[-1].output):
                found[-1].command += "\n" + (line if continued else line[2:])
                continued = line.endswith("\\")
            elif line.startswith("$ "):
                found.append(Example(number, line[2:], 0, ""))
                continued, fresh = line.endswith("\\"), False
            elif fresh:
                raise ValueError(f"line {number}: output without a command above it")
            else:
                found[-1].output += line + "\n"
    for example in found:
        status = EXIT.search(example.command)
        if status:
            example.status = int(status[1])
            example.command = example.command[: status.start()]
    return found


def matches(shown: str, printed: str) -> bool:
    """Whether a program printed what is shown; spaces at the ends of lines and empty lines at the end do not count."""
    want, got = ("\n".join(line.rstrip() for line in text.rstrip().splitlines()) for text in (shown, printed))
    return doctest.OutputChecker().check_output(want + "\n" if want else "", got + "\n" if got else "", doctest.ELLIPSIS)


def targets() -> dict[str, str]:
    """Return the targets of the Makefile, each with the first command behind it, as one would type it."""
    makefile = (ROOT / "Makefile").read_text()
    found = re.findall(r"^([a-z]+):[^\n]*##[^\n]*\n((?:\t[^\n]*\n)?)", makefile, re.MULTILINE)
    return {name: recipe.strip().removeprefix("@").replace("$(BIN)/", "").replace(" $(ARGS)", "") for name, recipe in found}


def run(command: str, cwd: Path) -> tuple[int, str]:
    """Run a command line as a person at a terminal of 130 columns without colours would."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MEMHP", "PYTEST", "MAKE", "MFLAGS"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "130", "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "TERM": "dumb", "HOME": str(cwd.parent),
        "MEMHP_CACHE": str(images.cache_folder()),
    }
    done = subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout


def unmarked(output: str) -> str:
    """Return what a command would have printed if all of it were held against real kernels."""
    lines = [line for line in output.splitlines(keepends=True) if not line.startswith(f"{MARK} ")]
    text = "".join(lines).replace(f" {MARK}", "").replace(f"accepted{MARK}", "accepted")
    return re.sub(f"(?<=[a-zA-Z]){MARK}", " ", text)


def complaint(example: Example, cwd: Path) -> str:
    """Run one example; return what is wrong with it, or ""."""
    command = example.command
    if NOT_RUN.match(command):
        return ""
    if command.split()[0] == "make":
        unknown = [word for word in command.split()[1:] if "=" not in word and word not in targets()]
        if unknown:
            return f"the Makefile has no target {unknown[0]}"
        if command != "make run" or not example.output:
            return ""
        command = targets()["run"]
    status, output = run(command, cwd)
    if status != example.status:
        return f"ended with exit {status}, not {example.status}, and printed:\n{output}"
    if MARK not in example.output:
        output = unmarked(output)
    if not matches(example.output, output):
        return f"is shown to print:\n{example.output}and prints:\n{output}"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_print_what_the_document_shows(document: Path, tmp_path: Path) -> None:
    """Whoever copies a command out of a document sees what the document shows."""
    if str(document.relative_to(ROOT)) in NEED_KERNELS and os.environ.get("MEMHP_LAB") != "1":
        pytest.skip("needs QEMU and real kernels: make lab runs it")
    found = examples(document.read_text())
    checkout = tmp_path / "memhp"
    if found:
        shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*LEFT_OUT))
    name = document.relative_to(ROOT)
    complaints = [f"{name}:{e.line}: $ {e.command}\n{said}" for e in found if (said := complaint(e, checkout))]
    assert not complaints, "\n\n".join(complaints)


def test_links_lead_somewhere() -> None:
    """Every relative link of a document names a file that is there."""
    dead = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            if not (document.parent / target).exists():
                dead.append(f"{document.relative_to(ROOT)}: {target}")
    assert not dead


def test_readme_shows_commands() -> None:
    """The README and the first steps are not empty of commands: the tests above have something to run."""
    for name in ("README.md", "docs/operate/first-steps.md"):
        assert examples((ROOT / name).read_text()), name


def test_examples_are_read_as_the_shell_shows_them() -> None:
    """Commands, continued lines, output and the way a command ends are told apart."""
    text = "\n".join([
        "Text `$ not this`", "```toml", "$ nor = 'this'", "```", "```console", "$ one \\", "  two  # exit 3", "three", "",
        "four", "$ cat <<E", "> five", ">", "> E", "five", "```",
    ])
    assert examples(text) == [
        Example(6, "one \\\n  two", 3, "three\n\nfour\n"),
        Example(11, "cat <<E\nfive\n\nE", 0, "five\n"),
    ]
    with pytest.raises(ValueError, match="line 1: commands stand in fences marked console"):
        examples("```sh\n$ true\n```")
    with pytest.raises(ValueError, match="line 2: output without a command"):
        examples("```console\noutput\n```")


@pytest.mark.parametrize(
    ("command", "status", "output", "said"),
    [
        (f"echo '1  ok{MARK}  x'; echo '{MARK} y'", 0, "1  ok   x\n", ""),
        (f"echo '1  ok{MARK}  x'; echo '{MARK} y'", 0, f"1  ok{MARK}  x\n", "is shown to print"),
        ("echo 'a  b'; echo c >&2", 0, "a  b\nc\n", ""),
        ("seq 9", 0, "1\n...\n9\n", ""),
        ("seq 9", 0, "1\n9\n", "is shown to print"),
        ("echo a", 0, "", "is shown to print"),
        ("true", 0, "a\n", "is shown to print"),
        ("exit 2", 2, "", ""),
        ("exit 2", 0, "", "ended with exit 2, not 0"),
        ("make nonsense", 0, "", "no target nonsense"),
        ("make test ARGS=-x", 0, "", ""),
        ("git clone …", 0, "", ""),
    ],
)
def test_a_wrong_example_is_noticed(command: str, status: int, output: str, said: str, tmp_path: Path) -> None:
    """An example that does not end or print as shown is a complaint; one that does is none."""
    found = complaint(Example(1, command, status, output), tmp_path)
    assert said in found
    assert bool(said) == bool(found)
