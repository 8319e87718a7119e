# SPDX-License-Identifier: GPL-2.0-only
"""
Every exception memhp raises, grouped by what the caller can do.

::

    MemhpError
    ├── KernelError(OSError)     the kernel said -Exxx, model or real alike
    ├── KernelBugError           it hit BUG_ON or died of an oops; .log holds what it printed
    │   └── KernelHangError      it waits for ever: for a lock a dead task holds, for pages to leave
    ├── BackendError             we could not reach it: monitor, console, permission
    ├── UsageError(ValueError)   the call made no sense; says the nearest that would
    ├── ConfigError              this tree, architecture and config cannot exist together
    └── ModelDefectError         an invariant of ours broke; please report
"""

from __future__ import annotations

import errno as _errno
import os
import sys
from collections.abc import Iterable, Sequence

EHWPOISON = 133
"""A page that has failed; not in Python's errno."""
ERRNO_NAMES = {**_errno.errorcode, EHWPOISON: "EHWPOISON"}
"""Every errno by number."""


def errno_name(number: int) -> str:
    """Return the name of an errno, such as ``"EBUSY"``; unknown ones as their number."""
    return ERRNO_NAMES.get(number, str(number))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """
    Return the end of a message about an unknown word: the nearest one, or all if they are few, or "".

    >>> did_you_mean("onlin", ["online", "offline"])
    '; did you mean online?'
    """
    import difflib

    words = sorted(known)
    near = difflib.get_close_matches(str(word)[:100], words, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(words)}" if 0 < len(words) <= 16 else ""


class MemhpError(Exception):
    """The base of all of them."""


class KernelError(MemhpError, OSError):
    """
    The kernel refused: it returned ``-errno``.

    Attributes:
        errno: The positive number, as in the standard module `errno`.
        reason: Why, in words. Empty if only the number is known.
        where: The C function that said it (`__add_section`), or "" on a real kernel.
        source: The C file of that function, or "".
        path: The file written to, where the refusal came through one.
        facts: What the reason speaks of (pfn, section, address), by name.
    """

    def __init__(
        self,
        errno: int,
        reason: str = "",
        *,
        where: str | None = None,
        source: str = "",
        path: str = "",
        **facts: object,
    ) -> None:
        super().__init__(errno, reason or os.strerror(errno))
        if where is None:
            frame = sys._getframe(1)
            # A helper without C twin speaks for the kernel function that called it.
            while frame.f_back is not None and frame.f_code.co_name[:1] == "_" and frame.f_code.co_name[:2] != "__":
                frame = frame.f_back
            code = frame.f_code
            where = code.co_name
            source = source or code.co_filename
        self.reason = reason
        self.where = where
        self.source = source
        self.path = path
        self.facts = facts

    @property
    def name(self) -> str:
        """The errno's name: ``"EEXIST"``."""
        return errno_name(self.errno or 0)

    def __str__(self) -> str:
        where = f" [{self.where}()]" if self.where else ""
        path = f"{self.path}: " if self.path else ""
        return f"{path}{self.name}: {self.reason or os.strerror(self.errno or 0)}{where}"


class KernelBugError(MemhpError):
    """
    The kernel hit a BUG_ON, or the writing task died of an oops.

    Attributes:
        log: The lines it printed while dying.
    """

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = list(log)


class KernelHangError(KernelBugError):
    """The task waits for ever: a dead task holds the lock it needs, or pages do not leave."""


class BackendError(MemhpError):
    """
    A machine could not be reached or did not answer.

    Attributes:
        sent: What was sent to it.
        received: What came back.
        output: The last lines of its output.
    """

    def __init__(self, message: str, *, sent: str = "", received: str = "", output: str = "") -> None:
        super().__init__(message)
        self.sent = sent
        self.received = received
        self.output = output


class UsageError(MemhpError, ValueError):
    """The call made no sense: not aligned, no such block; says the nearest that would."""


class ConfigError(MemhpError):
    """
    This tree, architecture, config and hardware cannot exist together.

    Attributes:
        reasons: Every reason, one line each.
    """

    def __init__(self, reasons: str | Sequence[str]) -> None:
        self.reasons = [reasons] if isinstance(reasons, str) else list(reasons)
        super().__init__("; ".join(self.reasons))


class ModelDefectError(MemhpError):
    """An invariant of the model itself broke; the message holds the line that replays it."""
