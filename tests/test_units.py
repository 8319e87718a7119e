# SPDX-License-Identifier: GPL-2.0-only
"""Sizes as people write them: what is read, what is written, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memhp.errors import UsageError
from memhp.hardware import parse_size
from memhp.units import GIB, KIB, LIMIT, MIB, TIB, format_size

SIZES = st.one_of(
    st.integers(0, LIMIT - 1),
    st.builds(lambda number, unit: number * unit % LIMIT, st.integers(0, 1 << 20), st.sampled_from([KIB, MIB, GIB, TIB])),
)


@given(SIZES)
def test_what_is_written_can_be_read(size: int) -> None:
    """format_size() loses nothing: parse_size() reads the same number of bytes back."""
    assert size == parse_size(format_size(size))


@given(SIZES)
def test_hexadecimal_as_the_kernel_prints_it(size: int) -> None:
    """An address copied from a kernel's file is read, in either case of its digits."""
    assert size == parse_size(f"{size:#x}") == parse_size(f"0X{size:X}") == parse_size(size)


@pytest.mark.parametrize(
    ("text", "size"),
    [("384M", 384 * MIB), ("384m", 384 * MIB), ("4GiB", 4 * GIB), ("4GB", 4 * GIB), (" 1T ", TIB), ("010", 10), ("7B", 7),
     ("0x1M", MIB)],
)
def test_units_are_powers_of_1024(text: str, size: int) -> None:
    """All the usual ways of writing a unit mean the same."""
    assert size == parse_size(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "M", "1.5G", "-1", "1 G", "0x", "1X", "1e9", "١", "1M\x00", "16777216T", str(LIMIT), "9" * 65, LIMIT, -1, True,
     None, 1.0],
)
def test_what_is_no_size_is_refused(text: object) -> None:
    """Anything else is a UsageError that shows what was written and names the value."""
    with pytest.raises(UsageError, match=r"^mem "):
        parse_size(text, "mem")  # type: ignore[arg-type]


def test_the_message_stays_short() -> None:
    """However long the text is, the message is one line that fits a terminal."""
    with pytest.raises(UsageError) as caught:
        parse_size("1" * 1_000_000)
    assert len(str(caught.value)) < 130
