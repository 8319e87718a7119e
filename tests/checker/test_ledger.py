# SPDX-License-Identifier: GPL-2.0-only
"""Counting lines, and noting what runs on lines that nothing holds."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memhp.checker import ledger, lines
from memhp.checker.ledger import Ledger, Watch
from memhp.cli import main
from memhp.errors import KernelError, ModelDefectError
from memhp.linux import bug, sched
from memhp.linux.bug import Log
from memhp.linux.sched import Mutex, Tasks

TREE = "v4.9"


def everything(held: bool) -> dict[str, Any]:
    """A ledger in which every line of the model is held, or none."""
    rooms = {}
    for room in lines.rooms():
        text = lines.read_room(room)
        rooms[room] = {"text": lines.digest(text), "functions": {
            f.name: [f.first, f.last, f.digest, {TREE: []} if held else {}, f.label] for f in lines.functions(text.decode(), room)
        }}
    return {"rooms": rooms}


def changed(room: str, name: str, unheld: list[int] | None) -> Ledger:
    """A ledger in which all is held, but for some lines of one function, or all of it."""
    data = everything(True)
    data["rooms"][room]["functions"][name][3] = {} if unheld is None else {TREE: unheld}
    return Ledger(data)


def body_of(function: Any) -> int:
    """Lines from a function's first to its docstring's end."""
    return 1 + (function.__doc__ or "").count("\n") + 1


# Lines


def test_every_line_that_has_code_belongs_to_one_statement() -> None:
    """What Python would trace is what is counted, but for `try:` and `except:`, which do nothing of their own."""
    counted = 0
    for room in lines.rooms():
        text = lines.read_room(room).decode()
        source = text.splitlines()
        traced = set()
        codes = [compile(text, room, "exec")]
        while codes:
            code = codes.pop()
            codes += [const for const in code.co_consts if isinstance(const, type(code))]
            if code.co_flags & inspect.CO_OPTIMIZED:   # modules and classes are not
                traced |= {line for _, _, line in code.co_lines() if line}
        for function in lines.functions(text, room):
            taken = {n for line in function.lines for n in range(line.first, line.last + 1)}
            for line in function.lines:
                assert traced & set(range(line.first, line.last + 1)), f"{room}:{line.first} has no code"
            for n in traced:
                if function.first < n <= function.last and n not in taken:
                    assert source[n - 1].lstrip().startswith(("try:", "except", "def ", "class ")), f"{room}:{n}"
            counted += len(function.lines)
    assert counted > 3000


def test_names_are_unique_and_labels_are_the_kernels() -> None:
    found = [f for room in lines.rooms() for f in lines.functions(lines.read_room(room).decode(), room)]
    assert len(found) == len({f.key for f in found}) > 600
    labels = {f.key: f.label for f in found}
    assert "mm/sparse.c sparse_init()" == labels["mm/sparse.py", "sparse_init"]
    assert "linux/state.py Kernel.fork()" == labels["state.py", "Kernel.fork"]
    assert any(name.startswith("<lambda> ") for _, name in labels)


def test_a_docstring_is_not_the_text_of_a_function() -> None:
    plain, told, other = (
        lines.functions(text, "mm/x.py")[0].digest
        for text in ("def f():\n    return 1\n", 'def f():\n    """Words."""\n    return 1\n', "def f():\n    return 2\n"))
    assert plain == told != other


def test_an_elif_a_loop_and_a_handler() -> None:
    text = "def f(a):\n    if a:\n        x()\n    elif b:\n        pass\n    try:\n        for i in a:\n            y()\n" \
           "    except E as e:\n        raise KernelError(1)\n    assert a\n"
    [function] = lines.functions(text, "mm/x.py")
    assert [(2, False), (3, False), (4, False), (5, False), (7, False), (8, False), (10, False), (11, True)] == [
        (line.first, line.guard) for line in function.lines]


# Watching


def test_held_lines_leave_no_note() -> None:
    with Watch(TREE, Ledger(everything(True))) as watch:
        sched.mutex_lock(Tasks(), Mutex("m"))
        assert () == watch.take()


def test_what_is_not_held_is_noted_each_time() -> None:
    code = sched.mutex_lock.__code__
    with Watch(TREE, changed("sched.py", "mutex_lock", None)) as watch:
        for _ in range(2):
            sched.mutex_lock(Tasks(), Mutex("m"))
            assert sched.mutex_trylock(Tasks(), Mutex("m"))
            assert ("linux/sched.py mutex_lock()",) == watch.take()
        assert () == watch.take()
    assert sched.mutex_lock.__code__ is code
    sched.mutex_lock(Tasks(), Mutex("m"))
    assert () == watch.take()


def test_only_the_lines_that_are_not_held_count() -> None:
    """mutex_trylock() that finds the lock taken, and one that takes it: one line of it is not held."""
    refused = body_of(sched.mutex_trylock) + 1
    source = Path(sched.__file__).read_text(encoding="utf-8").splitlines()
    first = sched.mutex_trylock.__code__.co_firstlineno
    assert "return False" == source[first - 1 + refused].strip()
    with Watch(TREE, changed("sched.py", "mutex_trylock", [refused])) as watch:
        assert sched.mutex_trylock(Tasks(1), Mutex("m"))
        assert () == watch.take()
        assert not sched.mutex_trylock(Tasks(1), Mutex("m", 2))
        assert ("linux/sched.py mutex_trylock()",) == watch.take()
        assert sched.mutex_trylock(Tasks(1), Mutex("m"))
        assert () == watch.take()


def test_errors_go_through_and_methods_work() -> None:
    """A refusal is the refusal it was, where it was; a method is found in its class."""
    data = everything(False)
    with Watch(TREE, Ledger(data)) as watch:
        log = Log()
        bug.printk(log, "text")
        copy = log.copy()
        assert ["text"] == copy.lines
        assert {"linux/bug.py printk()", "linux/bug.py Log.copy()"} <= set(watch.take())
        with pytest.raises(KernelError, match="no such file"), ledger.machine.connect("model:v4.9/x86_64?mem=1G") as machine:
            machine.read("/sys/nothing")


def test_who_looks_at_his_caller_still_sees_him() -> None:
    """WARN_ON() says where it stands; a note must not come in between, be it wholly unheld or in part."""

    def somebody(log: Log) -> None:
        bug.WARN_ON(log, True)

    plain = Log()
    somebody(plain)
    for unheld in (None, [body_of(bug.WARN_ON)]):
        watched = Log()
        with Watch(TREE, changed("bug.py", "WARN_ON", unheld)) as watch:
            somebody(watched)
            assert ("linux/bug.py WARN_ON()",) == watch.take()
        assert plain.lines == watched.lines and "somebody" in plain.lines[0]


def test_a_function_that_was_changed_since_is_not_held() -> None:
    data = everything(True)
    room = data["rooms"]["sched.py"]
    room["text"] = "another"
    room["functions"]["mutex_lock"][2] = "another"
    with Watch(TREE, Ledger(data)) as watch:
        sched.mutex_lock(Tasks(), Mutex("m"))
        assert sched.mutex_trylock(Tasks(), Mutex("m"))
        assert ("linux/sched.py mutex_lock()",) == watch.take()


def test_one_watches_at_a_time() -> None:
    with Watch(TREE), pytest.raises(ModelDefectError, match="taken already"):
        Watch(TREE).__enter__()
    with Watch(TREE):
        pass


def test_no_room_comes_later(tmp_path: Path) -> None:
    """What is imported while a machine works would not be watched."""
    program = (
        "import sys, memhp.backends.model; from memhp.machine import connect\n"
        "def rooms(): return {name for name in sys.modules if name.startswith('memhp.linux.')}\n"
        "before = rooms()\n"
        "for url in 'model:v4.9/x86_64', 'model:v4.9+arm64-rfc-2016/arm64', 'model:v6.12/arm64':\n"
        "    with connect(url) as machine:\n"
        "        machine.plug('1G')\n"
        "        machine.blocks(), machine.state()\n"
        "print(rooms() - before)\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "set()" == done.stdout.strip()


# The mark


@pytest.fixture
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Ledger(everything(False))
    monkeypatch.setattr(ledger, "load", lambda: found)


@pytest.fixture
def all_held(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Ledger(everything(True))
    monkeypatch.setattr(ledger, "load", lambda: found)


SCRIPT = """\
machine = "model:v4.9/x86_64?mem=1G"
[[step]]
do = "plug"
id = "d1"
size = "128M"
[[step]]
do = "online"
block = "d1:0"
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "s.toml"
    path.write_text(SCRIPT)
    return str(path)


def test_answers_are_marked(nothing_held: None, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Machine, steps, and one line that says what the mark is about; the state and the steps as JSON name it all."""
    assert 0 == main(["run", script])
    lines_shown = capsys.readouterr().out.splitlines()
    assert "model:v4.9/x86_64?mem=1G †" == lines_shown[0]
    assert [True, True] == ["†" in line for line in lines_shown[2:4]]
    assert lines_shown[-1].startswith("† passed through lines of the model that no real kernel was held against: ")
    assert lines_shown[-1].endswith(" more")

    assert 0 == main(["run", script, "--json"])
    plug, online, state = map(json.loads, capsys.readouterr().out.splitlines())
    assert "drivers/acpi/acpi_memhotplug.c acpi_memory_device_add()" in plug["unheld"]
    assert "mm/memory_hotplug.c online_pages()" in online["unheld"]
    assert "mm/memory_hotplug.c online_pages()" not in plug["unheld"]
    assert {*plug["unheld"], *online["unheld"]} <= set(state["unheld"])


def test_a_changing_command_and_ls_are_marked(nothing_held: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "pc.toml")
    assert 0 == main(["boot", "v4.9/x86_64?mem=1G", "-o", path])
    capsys.readouterr()
    assert 0 == main(["-m", f"model:{path}", "plug", "128M"])
    shown = capsys.readouterr().out.splitlines()
    assert "accepted†" in shown[0] and shown[-1].startswith("† ")
    assert 0 == main(["-m", f"model:{path}", "ls"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("† ")
    assert 0 == main(["-m", f"model:{path}", "ls", "--json"])
    assert json.loads(capsys.readouterr().out)["unheld"]
    assert 0 == main(["-m", f"model:{path}", "ls", "-P"])
    out, err = capsys.readouterr()
    assert "†" not in out and "†" in err


def test_what_is_held_is_not_marked(all_held: None, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["run", script])
    assert 0 == main(["run", script, "--json"])
    out = capsys.readouterr().out
    assert "†" not in out and "unheld" not in out


def test_a_machine_that_does_not_open_is_not_watched_on(nothing_held: None) -> None:
    """A wrong URL leaves the model as it was."""
    for url in ("model:v4.9/x86_64?mem=1T&nodes=1G,1G", "model:v4.9/x86_64?remedy=none", "model:/nowhere.toml"):
        assert 2 == main(["ls", "-m", url])
    with Watch(TREE) as watch:
        assert () == watch.take()
