# SPDX-License-Identifier: GPL-2.0-only
"""
Work that is done later, by another task.

Whoever drives the kernel runs what is queued once the task at hand is done; that is when the machine is quiet.

Source: kernel/workqueue.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


class Work(NamedTuple):
    """struct work_struct: what to call with the kernel and `data`, the name of what holds the work."""

    func: Callable[[Kernel, str], None]
    data: str


def queue_work(k: Kernel, work: Work) -> bool:
    """Queue a work unless it is queued already; returns whether it was not. Source: kernel/workqueue.c queue_work_on()"""
    if work in k.workqueue:
        return False
    k.workqueue = (*k.workqueue, work)
    return True


def process_one_work(k: Kernel) -> None:
    """Do the work that was queued first; it may be queued again meanwhile. Source: kernel/workqueue.c process_one_work()"""
    work, *rest = k.workqueue
    k.workqueue = tuple(rest)
    work.func(k, work.data)
