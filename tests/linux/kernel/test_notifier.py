# SPDX-License-Identifier: GPL-2.0-only
"""Who is told when memory goes online, in which order, and what a veto does."""

from __future__ import annotations

from errno import ENOMEM, EPERM

import pytest

from memhp.errors import KernelError
from memhp.hardware import platform
from memhp.linux import boot, tree
from memhp.linux.drivers.base import memory
from memhp.linux.fs import sysfs
from memhp.linux.include.memory import MEM_CANCEL_ONLINE, MEM_GOING_ONLINE, MEM_ONLINE, MemoryNotify
from memhp.linux.include.notifier import (
    NOTIFY_BAD,
    NOTIFY_OK,
    NOTIFY_STOP,
    NotifierBlock,
    notifier_from_errno,
    notifier_to_errno,
)
from memhp.linux.state import Kernel

STATE = "/sys/devices/system/memory/memory16/state"


@pytest.fixture
def k() -> Kernel:
    """A PC with one hot-added block, offline."""
    kernel = boot.boot(tree.V4_9, "x86_64", platform("x86_64", mem=1 << 30))
    sysfs.write(kernel, "/sys/devices/system/memory/probe", "0x80000000")
    return kernel


def listener(heard: list[tuple[str, int]], name: str, answer: int = NOTIFY_OK, at: int = 0, priority: int = 0) -> NotifierBlock:
    """A block that notes what it hears and answers `answer` to the action `at`."""

    def call(k: Kernel, action: int, arg: MemoryNotify) -> int:
        heard.append((name, action))
        return answer if action == at else NOTIFY_OK

    return NotifierBlock(call, priority)


def test_higher_priority_hears_first_and_equals_in_order(k: Kernel) -> None:
    """The chain is ordered by priority; of equal ones the first registered comes first."""
    heard: list[tuple[str, int]] = []
    for name, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 100)):
        memory.register_memory_notifier(k, listener(heard, name, priority=priority))
    sysfs.write(k, STATE, "online")
    going = [name for name, action in heard if action == MEM_GOING_ONLINE]
    assert ["high", "first", "second", "low"] == going
    assert [MEM_GOING_ONLINE] * 4 + [MEM_ONLINE] * 4 == [action for _, action in heard]


@pytest.mark.parametrize(("answer", "errno"), [(NOTIFY_BAD, EPERM), (notifier_from_errno(ENOMEM), ENOMEM)])
def test_a_veto_is_the_writers_errno(k: Kernel, answer: int, errno: int) -> None:
    """Who vetoes stops the chain; everybody hears that it was called off; the block stays offline and can go online later."""
    heard: list[tuple[str, int]] = []
    veto = listener(heard, "veto", answer, MEM_GOING_ONLINE, priority=1)
    memory.register_memory_notifier(k, veto)
    memory.register_memory_notifier(k, listener(heard, "other"))
    with pytest.raises(KernelError) as caught:
        sysfs.write(k, STATE, "online")
    assert errno == caught.value.errno
    assert [("veto", MEM_GOING_ONLINE), ("veto", MEM_CANCEL_ONLINE), ("other", MEM_CANCEL_ONLINE)] == heard
    assert b"offline\n" == sysfs.read(k, STATE)
    assert 0 == k.zone(0, k.ZONE_NORMAL).present_pages
    memory.unregister_memory_notifier(k, veto)
    sysfs.write(k, STATE, "online")
    assert b"online\n" == sysfs.read(k, STATE)


def test_a_stop_is_no_veto(k: Kernel) -> None:
    """NOTIFY_STOP ends the round, but carries no errno."""
    heard: list[tuple[str, int]] = []
    memory.register_memory_notifier(k, listener(heard, "stops", NOTIFY_STOP, MEM_GOING_ONLINE, priority=1))
    memory.register_memory_notifier(k, listener(heard, "other"))
    sysfs.write(k, STATE, "online")
    assert ("other", MEM_GOING_ONLINE) not in heard
    assert ("other", MEM_ONLINE) in heard


def test_an_errno_survives_the_answer() -> None:
    """What notifier_from_errno() hides, notifier_to_errno() finds; NOTIFY_BAD is EPERM."""
    for errno in (0, EPERM, ENOMEM, 4095):
        assert errno == notifier_to_errno(notifier_from_errno(errno))
    assert EPERM == notifier_to_errno(NOTIFY_BAD)
    assert 0 == notifier_to_errno(NOTIFY_OK)


def test_a_fork_has_its_own_chain(k: Kernel) -> None:
    """What is registered in a fork the parent does not hear."""
    heard: list[tuple[str, int]] = []
    fork = k.fork()
    memory.register_memory_notifier(fork, listener(heard, "fork"))
    sysfs.write(k, STATE, "online")
    assert [] == heard
