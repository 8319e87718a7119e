# SPDX-License-Identifier: GPL-2.0-only
"""
Locks and tasks: where tasks may interleave, and what a dead task leaves locked.

One task runs at a time. A lock knows who holds it; a task that dies, or waits for ever, keeps its locks, and whoever wants one of
them afterwards waits for ever, which is raised as `KernelHangError`.

Source: kernel/locking/mutex.c, include/linux/sched.h.
"""

from __future__ import annotations

from memhp.errors import KernelHangError

NOBODY = 0
"""No task holds the lock."""


class Mutex:
    """
    A sleeping lock.

    Attributes:
        name: As in C: "mem_hotplug.lock".
        holder: pid of the task that holds it, or `NOBODY`.
    """

    __slots__ = ("holder", "name")

    def __init__(self, name: str, holder: int = NOBODY) -> None:
        self.name = name
        self.holder = holder

    def copy(self) -> Mutex:
        return Mutex(self.name, self.holder)


class Tasks:
    """
    Who is running, and who has died.

    Attributes:
        current: pid of the running task.
        dead: pids of tasks that died of an oops or a BUG.
        patience: pids of tasks that get a signal when they have waited long enough.
        signalled: pids of tasks that have a signal pending.
    """

    __slots__ = ("current", "dead", "patience", "signalled")

    def __init__(
        self, current: int = 1, dead: frozenset[int] = frozenset(), patience: frozenset[int] = frozenset(),
        signalled: frozenset[int] = frozenset(),
    ) -> None:
        self.current = current
        self.dead = dead
        self.patience = patience
        self.signalled = signalled

    def copy(self) -> Tasks:
        return Tasks(self.current, self.dead, self.patience, self.signalled)


def signal_pending(tasks: Tasks) -> bool:
    """Whether the running task has a signal to look after. Source: include/linux/sched.h signal_pending()"""
    return tasks.current in tasks.signalled


def send_signal_later(tasks: Tasks) -> None:
    """See to it that the running task gets a signal if it waits for what does not come."""
    tasks.patience |= {tasks.current}


def wait_for_signal(tasks: Tasks, why: str) -> None:
    """
    Go on waiting for what will not come: until a signal arrives, if somebody sends one to the running task.

    Raises:
        KernelHangError: nobody does; `why` says what it waits for.
    """
    if tasks.current not in tasks.patience:
        raise KernelHangError(why)
    tasks.signalled |= {tasks.current}


def mutex_lock(tasks: Tasks, lock: Mutex) -> None:
    """
    Take a lock.

    Raises:
        KernelHangError: a task that is dead, or waits for ever, holds it.
    """
    if lock.holder != NOBODY and lock.holder != tasks.current:
        how = "held when it died" if lock.holder in tasks.dead else "holds, and waits itself for ever"
        raise KernelHangError(f"waits for {lock.name}, which task {lock.holder} {how}")
    lock.holder = tasks.current


def mutex_trylock(tasks: Tasks, lock: Mutex) -> bool:
    """Take a lock if nobody holds it; returns whether it was taken."""
    if lock.holder != NOBODY:
        return False
    lock.holder = tasks.current
    return True


def mutex_unlock(lock: Mutex) -> None:
    """Give a lock back."""
    lock.holder = NOBODY
