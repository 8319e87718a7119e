# SPDX-License-Identifier: GPL-2.0-only
"""Stored files behave as a machine's files do; text from a machine cannot do harm."""

from __future__ import annotations

from errno import EACCES, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EROFS

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memhp.abi import files as abi
from memhp.errors import KernelError, UsageError

TREE = abi.stored({"/sys/a/b": "text\n", "/sys/a/c/d": b"\x00\x01"}, {"/sys/link": "/sys/a", "/sys/loop": "/sys/loop/x"})


def test_files_and_folders_are_listed_and_read() -> None:
    """Names come sorted, links among them; offset and size cut the content."""
    assert ["a", "link", "loop"] == TREE.listdir("/sys")
    assert ["sys"] == TREE.listdir("/")
    assert ["b", "c"] == TREE.listdir("/sys/link/")
    assert b"text\n" == TREE.read("/sys/link/b")
    assert b"xt" == TREE.read("/sys//a/./b", 2, 2)
    assert b"" == TREE.read("/sys/a/b", 99)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/sys/none", ENOENT),
        ("/sys/a", EISDIR),
        ("/sys/a/b/c", ENOTDIR),
        ("/sys/a/../a/b", EINVAL),
        ("sys/a/b", EINVAL),
        ("/sys/a\0", EINVAL),
        ("/sys/loop/b", ELOOP),
        ("/" + "x" * 5000, ENAMETOOLONG),
    ],
)
def test_a_read_that_cannot_be_says_why(path: str, number: int) -> None:
    """Each refusal has the errno that a kernel would give."""
    with pytest.raises(KernelError) as caught:
        TREE.read(path)
    assert number == caught.value.errno


def test_folders_are_no_files_and_files_no_folders() -> None:
    """Listing a file is ENOTDIR, listing nothing ENOENT, a negative offset EINVAL."""
    for path, number in (("/sys/a/b", ENOTDIR), ("/sys/x", ENOENT)):
        with pytest.raises(KernelError) as caught:
            TREE.listdir(path)
        assert number == caught.value.errno
    with pytest.raises(KernelError) as caught:
        TREE.read("/sys/a/b", -1)
    assert EINVAL == caught.value.errno


def test_a_record_is_read_only() -> None:
    """A write is EROFS; a file that can only be written to is there, and reading it is EACCES."""
    with pytest.raises(KernelError) as caught:
        TREE.write("/sys/a/b", "x")
    assert EROFS == caught.value.errno
    tree = abi.StoredFiles(["/p"], lambda path: b"", unreadable=["/p"], lacks={"/q": "not asked for"})
    assert ["p"] == tree.listdir("/")
    with pytest.raises(KernelError) as caught:
        tree.read("/p")
    assert EACCES == caught.value.errno
    with pytest.raises(KernelError, match="not recorded: not asked for"):
        tree.read("/q")


def test_a_name_is_a_file_or_a_folder_not_both() -> None:
    """A tree in which one path is both is refused."""
    with pytest.raises(UsageError, match="file and a directory"):
        abi.stored({"/a": "", "/a/b": ""})


def test_exists_and_optional_reads() -> None:
    """What is not there is None or nothing, without an exception."""
    assert abi.exists(TREE, "/sys/a/b")
    assert abi.exists(TREE, "/")
    assert not abi.exists(TREE, "/sys/a/x")
    assert not abi.exists(TREE, "/nowhere/x")
    assert abi.read_optional(TREE, "/sys/x") is None
    assert [] == abi.list_optional(TREE, "/sys/a/b")


def test_text_that_is_too_long_is_refused() -> None:
    """The limit is in the message, with the file."""
    with pytest.raises(UsageError, match=r"/sys/a/b: more than 4B"):
        abi.read_text(TREE, "/sys/a/b", 4)


@given(st.binary(max_size=200))
def test_decoded_text_is_harmless(data: bytes) -> None:
    """No byte sequence leaves a control character, but newlines and tabs."""
    text = abi.decode(data)
    assert all(c in "\n\t" or c.isprintable() or c.isspace() or ord(c) > 0x9F for c in text)
    assert not any(c in text for c in "\x1b\r\x07\x7f\x9b\u202e\u2028")


def test_clean_keeps_what_is_text() -> None:
    """Letters, newlines and tabs stay; an escape sequence is written out."""
    assert "zone\tä\n" == abi.clean("zone\tä\n")
    assert "\\x1b]0;x\\x07\\u202e" == abi.clean("\x1b]0;x\x07\u202e")
    assert "abcdefghi…" == abi.shorten("abcdefghijkl", 10)
