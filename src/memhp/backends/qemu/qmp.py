# SPDX-License-Identifier: GPL-2.0-only
"""
QEMU's monitor: commands, events, and waiting for them with a deadline.

The protocol is spoken by the library `qemu.qmp` (extra "lab"), whose event loop runs only while somebody waits here: events that
come meanwhile wait in the socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from memhp.errors import BackendError

if TYPE_CHECKING:
    from memhp.backends.qemu.process import Process

T = TypeVar("T")
Event = Mapping[str, Any]

TIMEOUT = 30.0
"""Seconds a command may take."""


class RefusedError(BackendError):
    """The monitor refused a command; the message is its own."""


class Monitor:
    """
    A connection to a monitor.

    Args:
        address: A connected socket, or the path of a socket that QEMU listens on.
        process: The QEMU behind it, where it is ours: an error then says how it ended.

    Attributes:
        events: Every event that has come and was not taken yet, in order.
    """

    def __init__(self, address: socket.socket | str, process: Process | None = None) -> None:
        try:
            from qemu.qmp import QMPClient
        except ModuleNotFoundError:
            raise BackendError("the library qemu.qmp is not installed: pip install 'memhp[lab]' brings it") from None
        self._process = process
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("memhp")
        self.events: list[Event] = []
        self._closed = False
        try:
            self._run(self._client.connect(address), "its monitor's greeting")
        except BaseException:
            self._loop.close()
            self._closed = True
            raise

    def close(self) -> None:
        """Leave the monitor; QEMU goes on. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 5))
        except Exception:                                    # whatever it says: it is gone
            pass
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T], what: str, timeout: float = TIMEOUT) -> T:
        from qemu.qmp import QMPError

        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, timeout))
        except TimeoutError:
            raise self._error(f"QEMU did not answer within {timeout:g} s: waited for {what}") from None
        except (QMPError, OSError, EOFError) as err:
            from qemu.qmp import ExecuteError

            if isinstance(err, ExecuteError):
                raise RefusedError(str(err), sent=what) from None
            how = self._process.how_it_ended() if self._process is not None and self._process.ended() else str(err)
            raise self._error(f"{how}, while it was asked for {what}") from None

    def _error(self, text: str) -> BackendError:
        return self._process.error(text) if self._process is not None else BackendError(text)

    def execute(self, command: str, **arguments: Any) -> Any:
        """
        Run a command and return what it answers; `_` in the names of arguments stands for `-`.

        Raises:
            RefusedError: QEMU refused it, in its own words.
            BackendError: QEMU did not answer.
        """
        given = {name.replace("_", "-"): value for name, value in arguments.items() if value is not None}
        answer = self._run(self._client.execute(command, given or None), command)
        self._gather()
        return answer

    def _gather(self) -> None:
        self.events += self._client.events.clear()

    def poll(self) -> list[Event]:
        """Let events in that have come, and return all that wait."""
        self._run(asyncio.sleep(0.01), "events")
        self._gather()
        return self.events

    def wait(self, wanted: Callable[[Event], bool], timeout: float) -> Event | None:
        """
        Wait for an event, take it and return it; None if it did not come in `timeout` seconds.

        Args:
            wanted: Says whether it is the one; others stay in `events`.
            timeout: Seconds.

        Raises:
            BackendError: QEMU ended.
        """
        deadline = self._loop.time() + timeout
        while True:
            self._gather()
            for number, event in enumerate(self.events):
                if wanted(event):
                    return self.events.pop(number)
            left = deadline - self._loop.time()
            if left <= 0:
                return None
            self._run(self._next(min(left, 1.0)), "an event", left + TIMEOUT)
            if self._process is not None and not self._process.alive():
                raise self._process.error(self._process.how_it_ended())

    async def _next(self, timeout: float) -> None:
        try:
            self.events.append(await asyncio.wait_for(self._client.events.get(), timeout))
        except TimeoutError:
            pass

    def drop(self) -> None:
        """Forget the events that have come."""
        self.poll()
        self.events.clear()
