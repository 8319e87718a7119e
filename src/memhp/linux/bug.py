# SPDX-License-Identifier: GPL-2.0-only
"""
The kernel's log, and the ways it complains: printk(), WARN_ON(), BUG_ON(), an oops.

Source: include/linux/bug.h, lib/bug.c, kernel/printk/printk.c.
"""

from __future__ import annotations

import re
import sys
from types import CodeType
from typing import TYPE_CHECKING, NoReturn

from memhp.errors import KernelBugError

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

_GENERATION = re.compile(r"_(\w+?)_(?:v[0-9]+_[0-9]+|2016)")
"""A function that stands beside its rewrite, with the release that had it."""


class Log:
    """
    The ring buffer of printk(), without times.

    Attributes:
        lines: What was printed, oldest first.
        warned: Places of WARN_ON_ONCE and printk_once that have spoken.
        limited: How often who has spoken where it is rate-limited: (name, pid) -> times.
    """

    __slots__ = ("limited", "lines", "warned")

    def __init__(
        self, lines: list[str] | None = None, warned: set[str] | None = None, limited: dict[tuple[str, int], int] | None = None,
    ) -> None:
        self.lines = lines if lines is not None else []
        self.warned = warned if warned is not None else set()
        self.limited = limited if limited is not None else {}

    def copy(self) -> Log:
        return Log(list(self.lines), set(self.warned), self.limited.copy())


def printk(log: Log, message: str) -> None:
    """Print one line."""
    log.lines.append(message)


def printk_once(log: Log, message: str) -> None:
    """Print one line, the first time it comes by. Source: pr_warn_once()."""
    if message not in log.warned:
        log.warned.add(message)
        log.lines.append(message)


def __ratelimit(log: Log, pid: int, name: str, burst: int) -> bool:
    """
    Whether a task may speak: `burst` times, for in what it does no time passes here.

    Source: lib/ratelimit.c ___ratelimit()
    """
    times = log.limited.get((name, pid), 0)
    log.limited[name, pid] = times + 1
    return times < burst


def WARN_ON(log: Log, condition: object) -> bool:
    """Log a warning if `condition` holds, and go on; returns the condition."""
    if condition:
        frame = sys._getframe(1)
        log.lines.append(f"WARNING: at {_place(frame.f_code)}()")
    return bool(condition)


def WARN_ON_ONCE(log: Log, condition: object) -> bool:
    """As WARN_ON(), once for each place."""
    if condition:
        frame = sys._getframe(1)
        place = f"{_place(frame.f_code)}()"
        if place not in log.warned:
            log.warned.add(place)
            log.lines.append(f"WARNING: at {place}")
    return bool(condition)


def BUG_ON(log: Log, condition: object, what: str = "") -> None:
    """
    Die if `condition` holds.

    Raises:
        KernelBugError: it holds.
    """
    if condition:
        frame = sys._getframe(1)
        place = f"{_place(frame.f_code)}()"
        line = f"kernel BUG at {place}!"
        log.lines.append(line)
        raise KernelBugError(f"BUG_ON in {place}{': ' + what if what else ''}", [line])


def VM_BUG_ON(k: Kernel, condition: object, what: str = "") -> None:
    """
    BUG_ON() of a kernel with DEBUG_VM; others do not even look.

    Raises:
        KernelBugError: it holds.
    """
    if condition and k.config.DEBUG_VM:
        frame = sys._getframe(1)
        place = f"{_place(frame.f_code)}()"
        line = f"kernel BUG at {place}!"
        k.log.lines.append(line)
        raise KernelBugError(f"VM_BUG_ON in {place}{': ' + what if what else ''}", [line])


def oops(log: Log, text: str, what: str) -> NoReturn:
    """
    Die of a memory access that no page table answers.

    Args:
        log: The kernel's log.
        text: The first line of the oops, as the architecture prints it.
        what: Who touched what, in words.

    Raises:
        KernelBugError: always.

    Source: arch/arm64/mm/fault.c __do_kernel_fault(), arch/x86/mm/fault.c no_context()
    """
    log.lines.append(text)
    raise KernelBugError(f"{what}; {text}", [text])


def _place(code: CodeType) -> str:
    """A function with its C file, under the name that C has: `_online_pages_v4_9` is `mm/memory_hotplug.c online_pages`."""
    old = _GENERATION.fullmatch(code.co_name)
    return f"{_source(code.co_filename)} {old[1] if old else code.co_name}"


def _source(filename: str) -> str:
    """A room's path as its C file: `.../linux/mm/sparse.py` is `mm/sparse.c`."""
    return filename.rpartition("/linux/")[2].removesuffix(".py") + ".c"
