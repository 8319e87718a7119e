# SPDX-License-Identifier: GPL-2.0-only
"""The files of memory blocks: which words they take, and what the driver core believes."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ERANGE

import pytest
from tests import invariants

from memhp import hardware
from memhp.errors import KernelError
from memhp.linux import boot
from memhp.linux.drivers.base import memory
from memhp.linux.fs import sysfs
from memhp.linux.state import Kernel
from memhp.linux.tree import V4_9
from memhp.units import GIB, MIB

MEMORY = "/sys/devices/system/memory"


@pytest.fixture
def k() -> Kernel:
    """256 MiB, and one more block, offline."""
    k = boot.boot(V4_9, "x86_64", hardware.platform("x86_64", mem=256 * MIB))
    sysfs.write(k, f"{MEMORY}/probe", hex(4 * GIB))
    return k


def state(k: Kernel) -> str:
    return sysfs.read(k, f"{MEMORY}/memory32/state").decode().strip()


def refused(k: Kernel, name: str, text: str) -> KernelError:
    before = invariants.snapshot(k)
    with pytest.raises(KernelError) as caught:
        sysfs.write(k, f"{MEMORY}/{name}", text)
    assert [] == list(invariants.differences(before, invariants.snapshot(k)))
    return caught.value


@pytest.mark.parametrize(("word", "zone"), [
    ("online", "Normal"), ("online\n", "Normal"), ("online_kernel", "Normal"), ("online_kernel\n", "Normal"),
    ("online_movable", "Movable"), ("online_movable\n", "Movable"), ("online\0rest", "Normal"),
])
def test_words_that_bring_a_block_online(k: Kernel, word: str, zone: str) -> None:
    """One newline at the end does not count, nor does what follows a NUL."""
    sysfs.write(k, f"{MEMORY}/memory32/state", word)
    assert "online" == state(k)
    assert zone == sysfs.read(k, f"{MEMORY}/memory32/valid_zones").decode().split()[0]


@pytest.mark.parametrize("word", [
    "Online", "online ", " online", "online\n\n", "\nonline", "onlin", "onlinee", "online_keep", "1", "\n", "online\r\n",
    "\0online"])
def test_words_that_do_not(k: Kernel, word: str) -> None:
    """Everything else is EINVAL, and the block stays as it is."""
    assert EINVAL == refused(k, "memory32/state", word).errno
    assert "offline" == state(k)


def test_a_block_is_in_that_state_already(k: Kernel) -> None:
    """device_online() and device_offline() answer 1, which `state` turns into EINVAL and `online` into success."""
    assert EINVAL == refused(k, "memory32/state", "offline").errno
    sysfs.write(k, f"{MEMORY}/memory32/online", "0")
    sysfs.write(k, f"{MEMORY}/memory32/state", "online")
    assert EINVAL == refused(k, "memory32/state", "online_movable").errno
    sysfs.write(k, f"{MEMORY}/memory32/online", "1")


def test_after_automatic_onlining_online_succeeds_once(k: Kernel) -> None:
    """
    Automatic onlining goes past the driver core: `state` says online, `online` says 0. So "online" succeeds once and changes
    nothing but that; the next time it is EINVAL.
    """
    sysfs.write(k, f"{MEMORY}/auto_online_blocks", "online")
    sysfs.write(k, f"{MEMORY}/probe", hex(4 * GIB + 128 * MIB))
    block = f"{MEMORY}/memory33"
    assert (b"online\n", b"0\n") == (sysfs.read(k, f"{block}/state"), sysfs.read(k, f"{block}/online"))
    managed = k.totalram_pages
    sysfs.write(k, f"{block}/state", "online")
    assert (b"online\n", b"1\n") == (sysfs.read(k, f"{block}/state"), sysfs.read(k, f"{block}/online"))
    assert managed == k.totalram_pages
    assert EINVAL == refused(k, "memory33/state", "online").errno
    assert "offline" == state(k)


@pytest.mark.parametrize(("word", "shown"), [("online", b"online\n"), ("online\n", b"online\n"), ("offline", b"offline\n")])
def test_auto_online_blocks(k: Kernel, word: str, shown: bytes) -> None:
    sysfs.write(k, f"{MEMORY}/auto_online_blocks", "online")
    sysfs.write(k, f"{MEMORY}/auto_online_blocks", word)
    assert shown == sysfs.read(k, f"{MEMORY}/auto_online_blocks")
    assert EINVAL == refused(k, "auto_online_blocks", "on").errno
    assert EINVAL == refused(k, "auto_online_blocks", "online_movable").errno


@pytest.mark.parametrize(("text", "value"), [
    ("0x10", 16), ("0X10", 16), ("0xfF", 255), ("010", 8), ("10", 10), ("+10", 10), ("+0x10", 16), ("+010", 8), ("0", 0),
    ("00", 0), ("10\n", 10), ("10\0x", 10), ("18446744073709551615", 2**64 - 1), ("0xffffffffffffffff", 2**64 - 1),
    ("01777777777777777777777", 2**64 - 1), ("0x00000000000000000000001", 1),
])
def test_kstrtoull(text: str, value: int) -> None:
    """Base 16 after 0x, 8 after 0, else 10; one plus before, one newline behind."""
    assert value == memory.kstrtoull(text)


@pytest.mark.parametrize(("text", "errno"), [
    ("", EINVAL), ("\n", EINVAL), ("+", EINVAL), ("++1", EINVAL), ("-1", EINVAL), ("-0", EINVAL), (" 10", EINVAL),
    ("10 ", EINVAL), ("10\n\n", EINVAL), ("08", EINVAL), ("0x", EINVAL), ("0xg", EINVAL), ("0x+1", EINVAL),
    ("0b1", EINVAL), ("1_000", EINVAL),
    ("10M", EINVAL), ("\0", EINVAL), ("\u0661", EINVAL),
    ("18446744073709551616", ERANGE), ("0x10000000000000000", ERANGE), ("02000000000000000000000", ERANGE),
    ("18446744073709551616x", ERANGE),
])
def test_kstrtoull_refuses(text: str, errno: int) -> None:
    """EINVAL for what is no number; ERANGE beyond 64 bits, which is looked at before what follows the digits."""
    with pytest.raises(KernelError) as caught:
        memory.kstrtoull(text)
    assert errno == caught.value.errno


@pytest.mark.parametrize(("text", "errno"), [
    ("0x100001000", EINVAL), ("4294967297", EINVAL), ("0x104000000", EINVAL), ("five", EINVAL), ("0x10000000000000000", ERANGE),
    ("0x100000000", EEXIST), ("0", EEXIST), ("0x8000000", EEXIST), ("0xf8000000", EEXIST),
])
def test_probe_refuses(k: Kernel, text: str, errno: int) -> None:
    """No number; not the beginning of a block; there already, as memory or as a device."""
    assert errno == refused(k, "probe", text).errno


@pytest.mark.parametrize("text", ["4429185024", "0x108000000\n", "+041000000000"])
def test_probe_takes_any_base(k: Kernel, text: str) -> None:
    """4 GiB + 128 MiB, three times."""
    sysfs.write(k, f"{MEMORY}/probe", text)
    assert {0, 1, 32, 33} == set(k.memory_blocks)
