# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels pass the test that every backend passes: one boot for a class, and what a test leaves is taken away."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from tests.vm.conftest import KERNELS, need

from memhp.backends import base
from memhp.backends.base import Backend
from memhp.backends.conformance import Conformance
from memhp.backends.qemu import backend, images
from memhp.machine import connect
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


class TestSomebodyElses(Booted):
    """v6.12 on arm64 by its monitor and its guest agent, a new connection for each test."""

    url = f"{KERNELS['arm64-6.12']}?{OFFLINE}"
    folder: ClassVar[tempfile.TemporaryDirectory[str] | None] = None

    def open(self) -> Backend:
        cls = type(self)
        if cls.kept is None:
            parsed = base.parse(need(self.url))
            assert isinstance(parsed, base.QemuURL)
            images.fetch_agent(parsed.arch)
            cls.folder = tempfile.TemporaryDirectory(prefix="memhp-")
            cls.kept = backend.QemuBackend(self.url, replace(backend.describe(parsed), sockets=Path(cls.folder.name)))
        assert cls.folder is not None
        return base.open(f"qemu+unix:{cls.folder.name}/qmp.sock?qga={cls.folder.name}/qga.sock")

    @contextlib.contextmanager
    def _machine(self) -> Iterator[Backend]:
        with super()._machine() as machine:
            try:
                yield machine
            finally:
                leftover = machine
        leftover.close()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        folder, cls.folder = cls.folder, None
        if folder is not None:
            folder.cleanup()


class TestAgentWithoutPrograms(TestSomebodyElses):
    """The same, with an agent that may not run programs: folders are found out by trying, the log stays unseen."""

    url = f"{KERNELS['arm64-6.12']}?{OFFLINE}%20memhp.block%3Dguest-exec"
    kept: ClassVar[Backend | None] = None
    folder: ClassVar[tempfile.TemporaryDirectory[str] | None] = None


class TestRecording(Conformance):
    """What was recorded of a running v6.12."""

    folder: ClassVar[tempfile.TemporaryDirectory[str] | None] = None

    @classmethod
    def teardown_class(cls) -> None:
        folder, cls.folder = cls.folder, None
        if folder is not None:
            folder.cleanup()

    def open(self) -> Backend:
        cls = type(self)
        if cls.folder is None:
            url = need(KERNELS["arm64-6.12"])
            cls.folder = tempfile.TemporaryDirectory(prefix="memhp-")
            with connect(url) as machine:
                machine.capture(f"{cls.folder.name}/capture")
        return base.open(f"capture:{cls.folder.name}/capture")


del Conformance
