# SPDX-License-Identifier: GPL-2.0-only
"""A model kernel's files, for readers that know nothing of the model."""

from __future__ import annotations

from memhp.linux.fs import sysfs
from memhp.linux.state import Kernel


class ModelFiles:
    """
    Files of a kernel.

    Attributes:
        k: The kernel.
    """

    k: Kernel

    def __init__(self, k: Kernel) -> None:
        self.k = k

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        return sysfs.read(self.k, path, offset, size)

    def write(self, path: str, text: str) -> None:
        sysfs.write(self.k, path, text)

    def listdir(self, path: str) -> list[str]:
        return sysfs.listdir(self.k, path)
