# SPDX-License-Identifier: GPL-2.0-only
"""Scenario files: what is read, what is refused, and that writing and reading are each other's inverse."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memhp import scenario
from memhp.errors import UsageError
from memhp.scenario import Device, Online, Plug, Scenario, Write
from memhp.units import MIB

EXAMPLE = """
title = "a DIMM, one block movable"
machine = "model:v6.12/arm64?mem=1536M&cmdline=memhp_default_state%3Doffline"

[[device]]
kind = "virtio-mem"
id = "v0"
max = "2G"
node = 0

[[step]]
do = "plug"
kind = "dimm"
id = "d1"
size = "384M"

[[step]]
do = "online"
block = 25
to = "online_movable"
expect = "EBUSY"

[[step]]
do = "write"
path = "/sys/devices/system/memory/probe"
text = "0x80000000"
"""


def test_every_word_of_the_format_is_read() -> None:
    """The example of the format's description, and one more verb."""
    read = scenario.loads(EXAMPLE)
    assert read.title == "a DIMM, one block movable"
    assert read.machine.endswith("memhp_default_state%3Doffline")
    assert read.devices == (Device(kind="virtio-mem", id="v0", max=2048 * MIB, node=0),)
    assert read.steps == (
        Plug(id="d1", size=384 * MIB),
        Online(block=25, to="online_movable", expect="EBUSY"),
        Write(path="/sys/devices/system/memory/probe", text="0x80000000"),
    )


def test_sizes_are_texts_or_bytes() -> None:
    """`"384M"`, `"0x18000000"` and 402653184 are the same size."""
    sizes = ['"384M"', '"384MiB"', '"0x18000000"', "402653184", "0x18000000"]
    read = [scenario.loads(f'[[step]]\ndo = "plug"\nid = "d1"\nsize = {size}\n').steps[0] for size in sizes]
    assert read == [Plug(id="d1", size=384 * MIB)] * 5


def _step(text: str) -> str:
    return "[[step]]\n" + text.replace("; ", "\n") + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_step('do = "onlin"; block = 1'), "s:1: step 1: unknown verb 'onlin'; did you mean online?"),
        (_step("block = 1"), "s:1: step 1: says no verb: do = plug | "),
        (_step("do = 3"), "s:1: step 1: unknown verb 3"),
        (_step('do = "online"'), "s:1: step 1 (online): needs block"),
        (_step('do = "plug"'), "s:1: step 1 (plug): needs id and size"),
        (_step('do = "online"; block = 1; blok = 2'), "unknown field 'blok'; did you mean block?"),
        (_step('do = "online"; block = "1"'), "block = '1': a block is a number"),
        (_step('do = "online"; block = -1'), "block = -1: a block is a number"),
        (_step('do = "online"; block = true'), "block = True: a block is a number"),
        (_step('do = "online"; block = 1.5'), "block = 1.5: a block is a number"),
        (_step('do = "online"; block = 1; to = "online_movabl"'), "did you mean online_movable?"),
        (_step('do = "online"; block = 1; to = "offline"'), "to = 'offline': online | online_kernel | online_movable"),
        (_step('do = "online"; block = 1; expect = "EBUSSY"'), "did you mean EBUSY?"),
        (_step('do = "online"; block = 1; expect = 16'), "expect = 16: not a text"),
        (_step('do = "plug"; id = "d1"; size = "12Q"'), "size '12Q' is not a size"),
        (_step('do = "plug"; id = "d1"; size = 0'), "size = 0: nothing to do"),
        (_step('do = "plug"; id = "d1"; size = -1'), "size -1 is outside"),
        (_step('do = "plug"; id = "d1"; size = [1]'), "size = […]: not a size"),
        (_step('do = "plug"; id = "d1"; size = 2020-01-01'), "not a size"),
        (_step('do = "plug"; id = "d 1"; size = 1'), "id = 'd 1': a name has letters"),
        (_step('do = "plug"; id = "d1"; size = 1; kind = "nvdimm"'), "did you mean dimm?"),
        (_step('do = "plug"; id = "d1"; size = 1; node = "0"'), "node = '0': a node is a number"),
        (_step('do = "add"; start = "0x1_0"; size = 1'), "start '0x1_0' is not a size"),
        (_step('do = "write"; path = "probe"; text = "x"'), "paths are absolute"),
        (_step('do = "write"; path = "/x"; text = 1'), "text = 1: not a text"),
        (_step('do = "write"; path = "/x"; text = "a\\u0000b"'), "holds a NUL byte"),
        (_step('do = "offline"; block = 1; signal = 1'), "signal = 1: true or false"),
        (_step('do = "offline"; block = 1; signal = "yes"'), "signal = 'yes': true or false"),
        (_step('do = "alloc"; id = "w"; size = "1M"; kind = "annon"'), "did you mean anon?"),
        (_step('do = "alloc"; id = "w"; size = 0'), "size = 0: nothing to do"),
        ('title = 1', "title = 1 is not a text"),
        ('machine = ["a"]', "machine = […] is not a text"),
        ('maschine = "model:v4.9/x86_64"', "unknown key 'maschine'; did you mean machine?"),
        ('version = 2', "version = 2: this memhp reads version 1"),
        ('step = 1', "step is written as [[step]] tables"),
        ('step = [1]', "step is written as [[step]] tables"),
        ('[step]\ndo = "online"', "step is written as [[step]] tables"),
        ('[[device]]\nkind = "virtio-mem"\nid = "v0"', "s:1: device 1: needs max"),
        ('[[device]]\nkind = "nvme"\nid = "v0"\nmax = "1G"', "kind = 'nvme': virtio-mem"),
        ('[[device]]\nkind="virtio-mem"\nid="v"\nmax="1G"\n[[device]]\nkind="virtio-mem"\nid="v"\nmax="1G"',
         "s:5: device 2: there is a device 'v' already"),
        ('title = "x"\n[[step]\n', "s: broken TOML: Expected ']]' at the end of an array declaration (at line 2, column 7)"),
        ("x = " + "[" * 5000, "broken TOML"),
        ("x = " + "9" * 5000, "broken TOML"),
    ],
)
def test_what_is_wrong_is_one_clear_line(text: str, message: str) -> None:
    """Every mistake names its place and what would do, on one line."""
    with pytest.raises(UsageError) as caught:
        scenario.loads(text, name="s")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_are_named(tmp_path: Path) -> None:
    """The third step begins on line 8 of the file."""
    path = tmp_path / "s.toml"
    path.write_text('title = "x"\n\n[[step]]\ndo = "online"\nblock = 1\n[[step]]\ndo="free"\nid="x"\n[[step]]\ndo="nothing"\n')
    with pytest.raises(UsageError, match=r"s\.toml:9: step 3: unknown verb 'nothing'"):
        scenario.load(path)


def test_a_file_of_100_mb_is_not_read(tmp_path: Path) -> None:
    """The size is asked before anything is read; the file here is sparse."""
    path = tmp_path / "big.toml"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 100 * MIB)
    with pytest.raises(UsageError, match="larger than 1M"):
        scenario.load(path)


def test_a_file_that_never_ends_is_not_read_whole() -> None:
    """/dev/zero says it has no bytes; reading stops at the limit."""
    with pytest.raises(UsageError, match="larger than 1M"):
        scenario.load("/dev/zero")


def test_directories_missing_files_and_binaries(tmp_path: Path) -> None:
    """Each is one line that names the file."""
    with pytest.raises(UsageError, match="is a directory; a scenario is a TOML file"):
        scenario.load(tmp_path)
    with pytest.raises(UsageError, match=r"none\.toml: no such file"):
        scenario.load(tmp_path / "none.toml")
    path = tmp_path / "latin1.toml"
    path.write_bytes(b'title = "x"\nmachine = "\xe4"\n')
    with pytest.raises(UsageError, match=r"latin1\.toml:2: not UTF-8 text \(byte 0xe4\)"):
        scenario.load(path)
    with pytest.raises(UsageError, match="null byte"):
        scenario.load("a\0b")


def _steps() -> st.SearchStrategy[scenario.Step]:
    """Any verb with any values that may be written."""
    sizes = st.one_of(st.integers(1, 1 << 50), st.integers(1, 1 << 20).map(lambda n: n * MIB))
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
    ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True)
    by_kind = {
        "size": st.one_of(st.just(0), sizes), "some size": sizes, "address": st.integers(0, (1 << 64) - 1), "id": ids,
        "text": text, "flag": st.booleans(),
        "node": st.integers(0, 1023), "path": text.map(lambda t: "/" + t), "expect": st.sampled_from(["", "EBUSY", "oops", "ok"]),
        "block": st.one_of(st.integers(0, 1 << 30), st.tuples(ids, st.integers(0, 99)).map(lambda p: f"{p[0]}:{p[1]}")),
    }

    def build(verb: type[scenario.Step]) -> st.SearchStrategy[scenario.Step]:
        values: dict[str, st.SearchStrategy[object]] = {}
        for f in dataclasses.fields(verb):
            kind = f.metadata["kind"]
            values[f.name] = st.sampled_from(f.metadata["choices"]) if kind == "choice" else by_kind[kind]
            if f.default is None:
                values[f.name] = st.one_of(st.none(), values[f.name])
        return st.builds(verb, **values)

    return st.one_of(*(build(verb) for verb in scenario.VERBS.values()))


@given(title=st.text(st.characters(exclude_categories=["Cs"])), steps=st.lists(_steps(), max_size=5))
def test_what_is_written_reads_back_equal(title: str, steps: list[scenario.Step]) -> None:
    """loads(dumps(s)) == s, for any text and any verb."""
    written = Scenario(title=title, machine="model:v4.9/x86_64?mem=1G", steps=tuple(steps), version=1)
    assert scenario.loads(scenario.dumps(written)) == written
    for step in steps:
        assert "\n" not in scenario.describe(step)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_scenario_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Nothing but UsageError comes out of reading."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    message = ""
    try:
        scenario.load(path)
    except UsageError as err:
        message = str(err)
    assert "\n" not in message
