# SPDX-License-Identifier: GPL-2.0-only
"""The recordings that come with memhp hold what the mail's story needs."""

from __future__ import annotations

import pytest

from memhp.abi import recorded
from memhp.errors import UsageError


def test_all_recordings_are_there() -> None:
    """Four remedies on arm64, six runs on x86_64; every step has a result that is known."""
    names = recorded.names()
    assert 10 == len(names)
    known = {"", "EBUSY", "EEXIST", "EINVAL", "oops", "hung"}
    for name in names:
        recording = recorded.recording(name)
        assert name == recording.name
        assert {step.result for step in recording.steps} <= known
        assert all(bool(step.returned) == (step.result == "") for step in recording.steps if step.path)
        assert all(step.path.startswith("/sys/devices/system/memory/") for step in recording.steps if step.text)
        assert not any(line.startswith(("rfc:", "[ ")) for step in recording.steps for line in step.log)


@pytest.mark.parametrize(
    ("name", "probe", "online"), [("full", "", ""), ("nohack", "", "EBUSY"), ("nonomap", "oops", None), ("generic", "", "")]
)
def test_the_outcomes_of_the_mail(name: str, probe: str, online: str | None) -> None:
    """What became of the probe and of onlining, for each remedy."""
    recording = recorded.recording(f"v4.9-arm64-rfc/{name}")
    assert probe == recording.write("0x80000000").result
    if online is None:
        with pytest.raises(UsageError, match="0 steps"):
            recording.write("online")
        assert "hung" == recording.write("0xc0000000").result
        assert "add_memory_resource" in recording.write("0xc0000000").blocked_in
    else:
        assert online == recording.write("online").result


def test_the_log_and_the_instruments_are_kept_apart() -> None:
    """The kernel's refusal is in the log; the counters of the test kernel are not."""
    step = recorded.recording("v4.9-arm64-rfc/nohack").write("online")
    assert ["section number 2 page number 0 not reserved, was it already online?"] == step.log
    probe = recorded.recording("v4.9-arm64-rfc/full").write("0x80000000")
    assert [] == probe.log
    assert "__add_zone zone=Normal pfn=0x80000: SetPageReserved on 0 pages, skipped 262144 (pfn_valid false)" in probe.instrument


def test_pages_of_a_section_and_their_flags() -> None:
    """After `full`'s probe all pages of the new section are reserved, and kpageflags says so but for the pfn it hides."""
    step = recorded.recording("v4.9-arm64-rfc/full").write("0x80000000")
    section = next(row for row in step.sections if row["section"] == 2)
    assert (0x80000, 262144, 262144) == (section["pfn"], section["pages_reserved"], section["pfn_valid_pages"])
    new = step.kpageflags[1]
    assert (0x80000, 262143, 262143) == (new["ends_at_pfn"], new["entries"], new["counts"]["RESERVED"])


def test_traces_and_counts() -> None:
    """A call graph begins with the function it was set on; counts are exact."""
    full = recorded.recording("v4.9-arm64-rfc/full")
    assert ("online", "probe") == full.traces
    assert full.trace("probe").startswith("  add_memory() {\n")
    assert full.trace("online").startswith("  memory_subsys_online() {\n")
    assert 262144 == full.counts("online")["generic_online_page"]
    assert 262146 == full.counts("probe")["pfn_valid"]
    x86 = recorded.recording("v4.9-x86_64/1-probe")
    assert 32768 == x86.counts("online")["generic_online_page"]
    assert "offline" in recorded.recording("v4.9-x86_64/1b-online_movable").traces


def test_what_is_not_there_is_said() -> None:
    """Unknown recordings, captures, traces, counts, steps: the message names those there are."""
    for name in ("v4.9-arm64-rfc/none", "../recorded/v4.9-arm64-rfc/full", "v4.9-arm64-rfc/..", "", "/etc"):
        with pytest.raises(UsageError, match="there are v4.9-arm64-rfc/full"):
            recorded.recording(name)
    x86 = recorded.recording("v4.9-x86_64/2-state-writes")
    with pytest.raises(UsageError, match="there are none"):
        x86.capture("00-boot")
    with pytest.raises(UsageError, match="there are none"):
        x86.trace("probe")
    with pytest.raises(UsageError, match="there are none"):
        x86.counts("probe")
    with pytest.raises(UsageError, match="0 steps"):
        x86.write("nothing")
    assert "EINVAL" == x86.write("bogus").result
    assert "EINVAL" == x86.write("offline", 0).result
