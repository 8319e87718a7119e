# SPDX-License-Identifier: GPL-2.0-only
"""
Every recording of a real v4.9 kernel, told again by the model: four remedies on arm64, six stories on x86_64.

The model is booted as the recording's twin, does what was done, and everything that the recording shows is held against it: each
write's result, the log, the instrument's lines at every moment inside the write, and after each step the blocks, zones, memblock,
resources, sections, page flags and every file with determined content.
"""

from __future__ import annotations

import pytest

from memhp.abi import recorded
from tests.stories.told import story
from tests.stories.twin import HOTPLUG, hotplug_lines

RECORDINGS = tuple(name for name in recorded.names() if name.startswith("v4.9-"))
NOT_HOTPLUG = (
    "pgd = ", "[ffff", "Internal error: Oops", "CPU: ", "Hardware name: ", "task: ", "PC is at ", "LR is at ", "Process ",
    "Call trace:", "[<ffff", "---[ end trace", "tsc: ", "clocksource: ", "random: ",
)  # fmt: skip
"""What an oops prints besides its first line (registers, the stack), and what else printed while the recordings were made."""


def test_all_recordings_are_told() -> None:
    """How many writes each has."""
    writes = {name: sum(this.answer is not None for this in story(name)) for name in RECORDINGS}
    arm64, x86 = "v4.9-arm64-rfc/", "v4.9-x86_64/"
    assert {
        f"{arm64}full": 7, f"{arm64}generic": 7, f"{arm64}nohack": 6, f"{arm64}nonomap": 5,
        f"{x86}1-probe": 9, f"{x86}1b-online_movable": 4, f"{x86}2-state-writes": 13, f"{x86}2b-cannot-shift": 4,
        f"{x86}2c-movable-below": 8, f"{x86}3-auto-online": 2,
    } == writes  # fmt: skip


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_write_ends_as_recorded(name: str) -> None:
    """errno, oops or hang; or the number of bytes taken: `probe`, `online`, and all that was tried after them."""
    for this in story(name):
        if this.answer is not None:
            where = f"{this.step.file}: {this.step.path}: {this.step.text}"
            assert (where, this.step.result, this.step.returned) == (where, this.answer.result, this.answer.returned)


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_log_is_as_recorded(name: str) -> None:
    """Line by line. Of an oops' dump the first line counts: who touched which address is in it."""
    for this in story(name):
        strange = [line for line in this.step.log if not HOTPLUG.fullmatch(line) and not line.startswith(NOT_HOTPLUG)]
        assert [] == strange, "a line that is neither memory hotplug's nor a dump's nor a clock's"
        if this.answer is not None:
            assert hotplug_lines(this.step.log) == this.answer.log, this.step.text


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_instrument_shows_what_it_showed(name: str) -> None:
    """
    pfn_valid(), memblock's regions and flags, the section, the zone's span, max_pfn, reserved pages and loop counts, at every
    moment of a write.
    """
    printed = [(this.step.text, this.step.instrument) for this in story(name) if this.step.instrument]
    assert printed
    assert printed == [(this.step.text, this.instrument) for this in story(name) if this.instrument]


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_state_after_every_step_is_as_recorded(name: str) -> None:
    """Blocks, zones, MemTotal, memblock, iomem, sections and pages, kpageflags, all files of the captures."""
    assert [] == [line for this in story(name) for line in this.differences]
