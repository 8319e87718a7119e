# SPDX-License-Identifier: GPL-2.0-only
"""
What a notifier answers, and the errno hidden in it.

Source: include/linux/notifier.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

NOTIFY_DONE = 0x0000
NOTIFY_OK = 0x0001
NOTIFY_STOP_MASK = 0x8000
NOTIFY_BAD = NOTIFY_STOP_MASK | 0x0002
NOTIFY_STOP = NOTIFY_OK | NOTIFY_STOP_MASK


def notifier_from_errno(err: int) -> int:
    """Return the answer that carries -`err` (`err` positive); NOTIFY_OK for 0."""
    return NOTIFY_STOP_MASK | (NOTIFY_OK + err) if err else NOTIFY_OK


def notifier_to_errno(ret: int) -> int:
    """Return the positive errno an answer carries, or 0; NOTIFY_BAD is EPERM."""
    ret &= ~NOTIFY_STOP_MASK
    return ret - NOTIFY_OK if ret > NOTIFY_OK else 0


class NotifierCall(Protocol):
    """What is called: (kernel, action, argument) -> NOTIFY_*."""

    __name__: str

    def __call__(self, k: Kernel, action: int, arg: Any, /) -> int: ...


@dataclass(frozen=True, slots=True)
class NotifierBlock:
    """struct notifier_block: higher priority is called first."""

    notifier_call: NotifierCall
    priority: int = 0
