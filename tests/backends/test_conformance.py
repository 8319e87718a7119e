# SPDX-License-Identifier: GPL-2.0-only
"""Every backend passes the same test."""

from __future__ import annotations

import tempfile
from pathlib import Path

from memhp.backends import base
from memhp.backends.base import Backend
from memhp.backends.conformance import Conformance

RECORDED = Path(base.__file__).parent.parent / "recorded"


class TestModelX86(Conformance):
    """The model of v4.9 on a PC."""

    def open(self) -> Backend:
        return base.open("model:v4.9/x86_64?mem=1G")


class TestModelArm64(Conformance):
    """The model of v4.9 with the series, which has no NUMA and sections of 1 GiB."""

    def open(self) -> Backend:
        return base.open("model:v4.9+arm64-rfc-2016/arm64?mem=1G")


class TestModelOnlinesByItself(Conformance):
    """New blocks go online at once."""

    def open(self) -> Backend:
        return base.open("model:v4.9/x86_64?mem=1G&cmdline=memhp_default_state%3Donline")


class TestMachineFile(Conformance):
    """A machine file with something done to it already."""

    def open(self) -> Backend:
        folder = tempfile.TemporaryDirectory()
        path = Path(folder.name) / "m.toml"
        path.write_text('machine = "model:v4.9/x86_64?mem=1G"\n[[step]]\ndo = "plug"\nid = "d1"\nsize = "256M"\n')
        backend = base.open(f"model:{path}")
        close = backend.close

        def close_and_remove() -> None:
            close()
            folder.cleanup()

        backend.close = close_and_remove  # type: ignore[method-assign]
        return backend


class TestCaptureArm64(Conformance):
    """A recorded arm64 machine."""

    def open(self) -> Backend:
        return base.open(f"capture:{RECORDED}/v4.9-arm64-rfc/full/02-online")


class TestTwinOfACapture(Conformance):
    """The model booted from what a recorded machine had."""

    def open(self) -> Backend:
        return base.open(f"model:v4.9+arm64-rfc-2016/arm64?capture={base.quote(f'{RECORDED}/v4.9-arm64-rfc/full/00-boot')}")


class TestCaptureX86(Conformance):
    """A recorded PC."""

    def open(self) -> Backend:
        return base.open(f"capture:{RECORDED}/v4.9-x86_64/1-probe/02-online")
