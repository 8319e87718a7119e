# SPDX-License-Identifier: GPL-2.0-only
"""The command line as a whole: help, exit codes, one-line errors, what a closed pipe and Ctrl-C do."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memhp import cli, scenario
from memhp.backends import model
from memhp.cli import common, main
from memhp.errors import BackendError, ConfigError, KernelBugError, KernelError, ModelDefectError, UsageError

PC = "model:v4.9/x86_64?mem=1G"


def run(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run `memhp` in a process of its own."""
    return subprocess.run([sys.executable, "-m", "memhp", *words], capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


def test_help_names_every_command_and_imports_none() -> None:
    """The table is enough for --help: no command, no model, no json."""
    code = "import sys; from memhp.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    for name, help in cli.COMMANDS.items():
        assert name in text
        assert help.split()[0] in text
    loaded = modules.split()
    ours = {name for name in loaded if name.startswith("memhp")}
    assert ours == {"memhp", "memhp.cli", "memhp.cli.common", "memhp.errors"}
    assert not {"numpy", "json", "rich", "msgspec", "difflib"} & set(loaded)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`memhp NAME --help` ends with 0; its first line in the table is its own."""
    if importlib.util.find_spec(f"memhp.cli.{name}") is None:
        pytest.skip(f"memhp.cli.{name} is not there yet")
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"memhp {name}" in capsys.readouterr().out


def test_every_module_of_a_command_is_in_the_table() -> None:
    """A command that nobody registered cannot be called."""
    folder = Path(cli.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "common"} <= set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["onlin"], "no command 'onlin'; did you mean online?"),
        (["ls", "--nothing"], "unrecognized arguments: --nothing"),
        (["run"], "the following arguments are required: SCENARIO"),
        (["--machine"], "expected one argument"),
        (["ls", "-m", "model:v4.8/x86_64"], "unknown tree 'v4.8'; did you mean v4.9?"),
        (["ls", "-m", "model:v4.9/arm64"], "no memory hotplug on arm64: use v4.9+arm64-rfc-2016"),
        (["ls", "-m", "nothing.toml"], "did you mean model:nothing.toml"),
        (["ls", "-m", "model:/nothing.toml"], "no such file"),
        (["ls", "-m", "capture:/nothing"], "/nothing: No such file or directory"),
        (["ls"], "host: cannot be opened yet; -m model:"),
        (["add", "1G"], "add needs -m, which machine to change"),
        (["plug", "1G"], "plug needs -m, which machine to change"),
        (["online", "1"], "online needs -m, which machine to change"),
        (["changes", "v4.9", "v6.11"], "unknown tree 'v6.11'; did you mean v6.1"),
        (["boot", "v4.9/x86_64"], "required: -o/--output"),
        (["run", "/"], "is a directory"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`memhp: …`, nothing on stdout, no traceback."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("memhp: ")
    assert err.count("\n") == 1
    assert message in err


def test_the_machine_may_stand_before_the_command_or_in_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, after, MEMHP_MACHINE: the same machine. -m wins over the environment."""
    assert main(["-m", PC, "ls"]) == 0
    first = capsys.readouterr().out
    assert main(["ls", "-m", PC]) == 0
    assert capsys.readouterr().out == first
    monkeypatch.setenv("MEMHP_MACHINE", PC)
    assert main(["ls"]) == 0
    assert capsys.readouterr().out == first
    monkeypatch.setenv("MEMHP_MACHINE", "host:")
    assert main(["ls"]) == 2
    assert main(["--json", "-m", PC, "ls"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KernelError(16, "held", where="f", source="mm/x.c", path="/p", pfn=16), 1, "/p: EBUSY: held (pfn 0x10) [f(), mm/x.c]"),
        (KernelBugError("died"), 1, "died"),
        (UsageError("no"), 2, "no"),
        (ConfigError(["a", "b"]), 2, "a; b"),
        (BackendError("gone"), 3, "gone"),
        (ModelDefectError("x"), 3, "defect of the model, please report: x"),
        (OSError(28, "No space left on device", "/f"), 3, "/f: No space left on device"),
        (ZeroDivisionError("division"), 3, "defect: ZeroDivisionError: division (MEMHP_DEBUG=1 shows where; please report)"),
        (UsageError("two\nlines \x1b[31m"), 2, "two\\nlines \\x1b[31m"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of error has its code and its one line."""

    def fail(args: object) -> int:
        raise error

    monkeypatch.delenv("MEMHP_DEBUG", raising=False)
    monkeypatch.setattr(importlib.import_module("memhp.cli.trees"), "run", fail)
    assert main(["trees"]) == code
    assert capsys.readouterr().err == f"memhp: {line}\n"


def test_developers_get_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """MEMHP_DEBUG lets a defect through."""

    def fail(args: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setenv("MEMHP_DEBUG", "1")
    monkeypatch.setattr(importlib.import_module("memhp.cli.trees"), "run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["trees"])


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    """`memhp ls -a | head -1` ends without a word."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "memhp", "ls", "-a", "-m", PC], stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    """The scenario comes from a pipe that never ends, so the command waits; SIGINT ends it."""
    fifo = tmp_path / "scenario.toml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "memhp", "run", str(fifo)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with fifo.open("w"):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "memhp: interrupted\n")


def test_ctrl_c_keeps_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before the third of four blocks: the machine file has the two that were added."""
    path = tmp_path / "pc.toml"
    assert main(["boot", "v4.9/x86_64", "--mem", "1G", "-o", str(path)]) == 0
    write = model.ModelBackend.write

    def interrupted(self: model.ModelBackend, file: str, text: str) -> None:
        if text == "0x90000000":
            raise KeyboardInterrupt
        write(self, file, text)

    monkeypatch.setattr(model.ModelBackend, "write", interrupted)
    assert main(["add", "512M@0x80000000", "-m", f"model:{path}"]) == 130
    assert capsys.readouterr().err == "memhp: interrupted\n"
    assert [step.text for step in scenario.load(path).steps] == ["0x80000000", "0x88000000"]


def test_words_that_a_terminal_would_obey() -> None:
    """Control characters are written out."""
    assert common.printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"


def test_as_a_module() -> None:
    """`python -m memhp` is the command."""
    done = run("trees")
    assert done.returncode == 0
    assert "v4.9+arm64-rfc-2016" in done.stdout
    assert run("--version").stdout.startswith("memhp")
    assert run().returncode == 0
