# SPDX-License-Identifier: GPL-2.0-only
"""A recorded machine behind the same files: it can be looked at, not changed."""

from __future__ import annotations

from memhp.abi import capture
from memhp.abi import files as abi
from memhp.abi.record import LOG
from memhp.backends import base
from memhp.backends.base import CaptureURL, MachineURL, PluggedDevice
from memhp.errors import UsageError


def open(url: MachineURL) -> CaptureBackend:
    """
    Open a capture.

    Raises:
        UsageError: not a capture, or a damaged one.
    """
    assert isinstance(url, CaptureURL)
    return CaptureBackend(str(url), capture.load(url.path))


class CaptureBackend(base.Backend):
    """
    A recorded machine.

    Attributes:
        recorded: The capture.
    """

    verbs: frozenset[str] = frozenset()

    def __init__(self, url: str, recorded: capture.Capture) -> None:
        self.url = url
        self.recorded = recorded

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        return self.recorded.read(path, offset, size)

    def listdir(self, path: str) -> list[str]:
        return self.recorded.listdir(path)

    def log(self, start: int = 0) -> list[str]:
        return (abi.read_optional(self, LOG) or "").splitlines()[start:]

    def devices(self) -> list[PluggedDevice]:
        return [PluggedDevice(**device) for device in self.recorded.manifest.devices]

    def about(self) -> base.About:
        manifest = self.recorded.manifest
        return base.About(arch=manifest.arch, origin=manifest.origin)

    def write(self, path: str, text: str) -> None:
        raise UsageError(f"{self.url} is a recording: it can be looked at, not changed; -m 'model:…?capture=DIR' boots its twin")
