# SPDX-License-Identifier: GPL-2.0-only
"""A virtio-mem device as QEMU makes it; the figures and refusals were seen on QEMU 7.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memhp.hardware import (
    VIRTIO_MEM_REQ_PLUG,
    VIRTIO_MEM_REQ_UNPLUG,
    VIRTIO_MEM_REQ_UNPLUG_ALL,
    VIRTIO_MEM_RESP_ACK,
    VIRTIO_MEM_RESP_ERROR,
    VIRTIO_MEM_RESP_NACK,
    VirtioMemDevice,
)
from memhp.units import GIB, MIB

BASE = 2 * GIB
BLOCK = 2 * MIB


def device(arch: str = "arm64", size: int = 2 * GIB) -> VirtioMemDevice:
    return VirtioMemDevice(id="v0", name="virtio1", arch=arch, addr=BASE, region_size=size)


@pytest.mark.parametrize(("arch", "extent"), [("arm64", GIB), ("x86_64", 256 * MIB)])
def test_the_usable_region_grows_with_the_request(arch: str, extent: int) -> None:
    """It is larger than what is asked for, by two of the platform's largest memory blocks, and does not shrink again."""
    vdev = device(arch)
    assert vdev.resize(512 * MIB) == ""
    assert vdev.usable_region_size == 512 * MIB + extent
    assert vdev.resize(0) == ""
    assert vdev.usable_region_size == 512 * MIB + extent
    assert vdev.request(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0) == VIRTIO_MEM_RESP_ACK
    assert vdev.usable_region_size == 0
    assert vdev.resize(2 * GIB) == ""
    assert vdev.usable_region_size == 2 * GIB


def test_what_the_monitor_refuses() -> None:
    """A size that is no multiple of 2 MiB, and one above the maximum, change nothing."""
    vdev = device()
    assert "multiple" in vdev.resize(3 * MIB)
    assert "more than" in vdev.resize(4 * GIB)
    assert (vdev.requested_size, vdev.usable_region_size) == (0, 0)


def test_what_the_device_refuses() -> None:
    """More than was asked for is not now; outside of the usable region, unaligned, or twice the same is an error."""
    vdev = device()
    vdev.resize(8 * MIB)
    assert vdev.request(VIRTIO_MEM_REQ_PLUG, BASE, 5) == VIRTIO_MEM_RESP_NACK
    assert vdev.request(VIRTIO_MEM_REQ_PLUG, BASE + MIB, 1) == VIRTIO_MEM_RESP_ERROR
    assert vdev.request(VIRTIO_MEM_REQ_PLUG, BASE - BLOCK, 1) == VIRTIO_MEM_RESP_ERROR
    assert vdev.request(VIRTIO_MEM_REQ_PLUG, BASE + vdev.usable_region_size, 1) == VIRTIO_MEM_RESP_ERROR
    assert vdev.request(VIRTIO_MEM_REQ_PLUG, BASE, 2) == VIRTIO_MEM_RESP_ACK
    assert vdev.request(VIRTIO_MEM_REQ_PLUG, BASE + BLOCK, 2) == VIRTIO_MEM_RESP_ERROR
    assert vdev.request(VIRTIO_MEM_REQ_UNPLUG, BASE + BLOCK, 2) == VIRTIO_MEM_RESP_ERROR
    assert vdev.request(VIRTIO_MEM_REQ_UNPLUG, BASE, 2) == VIRTIO_MEM_RESP_ACK
    assert vdev.plugged_size == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.integers(1, 150)), max_size=30))
def test_plugged_blocks_are_counted_once(requests: list[tuple[bool, int, int]]) -> None:
    """Against a set of block numbers; a copy does not see what is done afterwards."""
    vdev = device(size=512 * MIB)
    vdev.resize(512 * MIB)
    known: set[int] = set()
    for plug, first, count in requests:
        blocks = set(range(first, first + count))
        possible = max(blocks) < 256 and (not blocks & known if plug else blocks <= known)
        before = vdev.copy()
        answer = vdev.request(VIRTIO_MEM_REQ_PLUG if plug else VIRTIO_MEM_REQ_UNPLUG, BASE + first * BLOCK, count)
        if answer != VIRTIO_MEM_RESP_NACK:
            assert (answer == VIRTIO_MEM_RESP_ACK) == possible
        if answer == VIRTIO_MEM_RESP_ACK:
            known = known | blocks if plug else known - blocks
            assert before.plugged_size != vdev.plugged_size
        assert vdev.plugged_size == len(known) * BLOCK
