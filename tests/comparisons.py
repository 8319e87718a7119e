# SPDX-License-Identifier: GPL-2.0-only
"""
Every comparison of the model with a real kernel that can be made without one: what the kernels did is recorded.

Two kinds of recordings are compared with: those of v4.9 that come with memhp (`recorded`, `files`, `calls`), and what later
kernels answered to the scenarios of tests/scenarios (`asked`). A comparison is one scenario, done on the model from boot on,
and everything that was recorded of it. Lines of the model that ran in it are held by it if it is equal (tools/ledger.py), and a
line that is broken must make one of those that ran it differ (tools/mutants.py). The tests beside this file make the same
comparisons, one assertion at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

from memhp.abi import recorded
from memhp.backends import base
from memhp.backends.base import ModelURL
from memhp.checker import differential
from tests import answers
from tests.answers import Recording
from tests.judge import known, modelled
from tests.linux import test_call_order as call_order
from tests.stories import test_recordings as recordings
from tests.stories import test_remedies as remedies
from tests.stories import test_waist as waist
from tests.stories import test_x86_64_v4_9 as x86_64
from tests.stories import told


class Different(Exception):
    """The model did something else than the real kernel; the text says what."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    One scenario on the model and on a real kernel.

    Attributes:
        name: What is compared: "recorded v4.9-arm64-rfc/full".
        tree: The model's kernel tree.
        run: Raises `Different`, or whatever the model dies of, where they are not equal. Calls what it is given whenever all that
            ran so far was compared, and equal; what ran after the last time was not compared.
    """

    name: str
    tree: str
    run: Callable[[Callable[[], None]], None] = field(compare=False)


def _checked(run: Callable[[], None], agreed: Callable[[], None]) -> None:
    """Make a comparison that is made of tests."""
    try:
        run()
    except AssertionError as err:
        raise Different(str(err)) from err
    agreed()


def _all(*checks: Callable[[], None]) -> None:
    for check in checks:
        check()


def _story(name: str) -> None:
    """Every write of a recording and what became of it; the log; the instrument; the state after each step."""
    told.story.cache_clear()
    _all(
        partial(recordings.test_every_write_ends_as_recorded, name),
        partial(recordings.test_the_log_is_as_recorded, name),
        partial(recordings.test_the_instrument_shows_what_it_showed, name),
        partial(recordings.test_the_state_after_every_step_is_as_recorded, name),
    )
    if name == "v4.9-arm64-rfc/nonomap":
        _all(
            remedies.test_nonomap_dies_where_the_recorded_kernel_died, remedies.test_after_that_the_next_writer_hangs,
            remedies.test_a_reader_of_kpageflags_dies_as_recorded, call_order.test_nonomap_dies_where_the_real_kernel_died,
        )  # fmt: skip
    if name == "v4.9-x86_64/1-probe":
        _all(x86_64.test_boot_counts_pages_as_the_recorded_kernel_did, x86_64.test_watermarks_and_protection_after_online)
    if name == "v4.9-x86_64/2-state-writes":
        _all(x86_64.test_a_block_above_movable_memory_becomes_movable)


def _files(name: str, capture: str) -> None:
    """The text of every file of a capture, and the names in its folders."""
    waist.twin_at.cache_clear()
    _all(
        partial(waist.test_determined_files_are_equal_as_text, name, capture),
        partial(waist.test_the_same_names_are_there, name, capture),
        *(partial(waist.test_the_others_are_equal_in_form, name, capture, path) for path in waist.ALLOCATED),
        partial(waist.test_meminfo_has_the_settled_numbers, name, capture),
    )


def _calls(case: call_order.Case) -> None:
    """The order and nesting of calls, and how often the kernel's profiler counted them."""
    call_order.both.cache_clear()
    _all(partial(call_order.test_same_order_and_nesting, case, "probe"),
         partial(call_order.test_same_order_and_nesting, case, "online"))
    if case in call_order.CASES[:4]:
        _all(partial(call_order.test_pages_are_counted_as_the_profiler_counted_them, case))


def _tree(name: str) -> str:
    return "v4.9+arm64-rfc-2016" if recorded.recording(name).arch == "arm64" else "v4.9"


def _recorded() -> Iterator[Comparison]:
    for name in recordings.RECORDINGS:
        yield Comparison(f"recorded {name}", _tree(name), partial(_checked, partial(_story, name)))
    for name, capture in waist.MOMENTS:
        yield Comparison(f"files {name} {capture}", _tree(name), partial(_checked, partial(_files, name, capture)))
    for case in call_order.CASES:
        yield Comparison(f"calls {case.recording}", _tree(case.recording), partial(_checked, partial(_calls, case)))


def _answer(recording: Recording, agreed: Callable[[], None]) -> None:
    """Every step of a scenario, and everything the machine shows after it, until the kernel's own allocations decide one."""
    url = recording.kernel.url(recording.script, ModelURL)
    with contextlib.closing(base.open(str(url), recording.script.devices)) as machine:
        ran = differential.observe(recording.script.steps, machine)
        for step in differential.compare_observed(ran, recording.observed):
            if step.first.word != step.second.word and answers.by_luck(recording.observed, step.number):
                return
            if step.found:
                raise Different(str(step.found[0]))
            agreed()


def _asked() -> Iterator[Comparison]:
    """Yield what real kernels were asked, but for what is known to differ."""
    for kernel in answers.KERNELS.values():
        if not modelled(kernel):
            continue
        boots = answers.read_boots(kernel)
        written = [answers.load(kernel, name, boots) for name in answers.scenarios(kernel)]
        for recording in (*written, *answers.load_random(kernel, boots).values()):
            if recording is not None and not recording.stale and not known(recording):
                yield Comparison(f"asked {kernel.name} {recording.name}", kernel.release, partial(_answer, recording))


@cache
def comparisons() -> tuple[Comparison, ...]:
    """Return all comparisons, in an order that does not change."""
    return (*_recorded(), *_asked())
