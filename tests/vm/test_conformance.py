# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels pass the test that every backend passes: one boot for a class, and what a test leaves is taken away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from tests.vm.conftest import KERNELS, need

from memhp.backends import base
from memhp.backends.base import Backend
from memhp.backends.conformance import Conformance
from memhp.scenario import Unplug

OFFLINE = "cmdline=memhp_default_state%3Doffline"


class Booted(Conformance):
    """One guest for all tests of a class: they are to leave nothing but the DIMMs they plug, and those go again."""

    url: ClassVar[str]
    kept: ClassVar[Backend | None] = None

    @classmethod
    def teardown_class(cls) -> None:
        machine, cls.kept = cls.kept, None
        if machine is not None:
            machine.close()

    def open(self) -> Backend:
        if type(self).kept is None:
            type(self).kept = base.open(need(self.url))
        machine = type(self).kept
        assert machine is not None
        return machine

    @contextlib.contextmanager
    def _machine(self) -> Iterator[Backend]:
        machine = self.open()
        clean = False
        try:
            yield machine
            clean = all(base.apply(machine, Unplug(id=device.id)).word == "accepted" for device in machine.devices())
        finally:
            if not clean:                                  # a page that cannot move holds the DIMM, or the test failed
                self.teardown_class()



class TestArm64(Booted):
    """v6.12 on arm64."""

    url = f"{KERNELS['arm64-6.12']}?{OFFLINE}"


class TestX86(Booted):
    """v6.12 on a PC."""

    url = f"{KERNELS['x86_64-6.12']}?{OFFLINE}"


class TestArm64OnlinesByItself(Booted):
    """v6.1 on arm64, with new blocks online at once."""

    url = f"{KERNELS['arm64-6.1']}?cmdline=memhp_default_state%3Donline"


del Conformance
