# SPDX-License-Identifier: GPL-2.0-only
"""
A kernel without memory hotplug, built from Debian's package linux-source-6.12: `make tiny-kernel`.

Every kernel that Debian ships for arm64 and amd64 (v5.10, v6.1, v6.12, v7.2; cloud, rt and plain; 4K and 16K pages) has
CONFIG_MEMORY_HOTPLUG, so one without it is made here: `make tinyconfig` for x86_64 and what a guest needs to answer. It takes
three minutes on two cores, once, and lies in the cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from memhp.backends.qemu import images

SOURCE = Path("/usr/src/linux-source-6.12.tar.xz")
TOOLS = {
    "gcc": "gcc", "make": "make", "flex": "flex", "bison": "bison", "bc": "bc", "xz": "xz-utils", "tar": "tar", "perl": "perl",
}  # fmt: skip
"""Programs, and the packages that bring them."""
CONFIG = """
CONFIG_64BIT=y
CONFIG_PRINTK=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_TTY=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_PCI=y
CONFIG_VIRTIO_MENU=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_CONSOLE=y
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_TMPFS=y
CONFIG_SHMEM=y
CONFIG_DEVTMPFS=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_MULTIUSER=y
CONFIG_POSIX_TIMERS=y
CONFIG_FUTEX=y
CONFIG_FILE_LOCKING=y
CONFIG_UNWINDER_GUESS=y
# CONFIG_CPU_MITIGATIONS is not set
"""


def image() -> Path:
    """Return where the kernel lies, or would."""
    name = hashlib.sha256(CONFIG.encode()).hexdigest()[:8]
    return images.cache_folder() / "tiny-kernel" / f"6.12-{name}" / "bzImage"


def lacks() -> str:
    """Return why it cannot be built here, or ""."""
    if not SOURCE.is_file():
        return "the package linux-source-6.12 is not installed"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return f"apt-get install {' '.join(missing)} is needed" if missing else ""


def build() -> Path:
    """Return the kernel, built now or before. Raises RuntimeError where it cannot be."""
    place = image()
    if place.is_file():
        return place
    if why := lacks():
        raise RuntimeError(why)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="memhp-") as folder:
        _run(["tar", "-xf", str(SOURCE), "-C", folder, "--strip-components=1"])
        make = ["make", "-s", "-C", folder, f"-j{os.cpu_count() or 1}", "ARCH=x86_64"]
        _run([*make, "tinyconfig"])
        with open(f"{folder}/.config", "a", encoding="ascii") as config:
            config.write(CONFIG)
        _run([*make, "olddefconfig"])
        if "# CONFIG_MEMORY_HOTPLUG is not set" not in Path(folder, ".config").read_text(encoding="ascii"):
            raise RuntimeError("this configuration has memory hotplug")
        _run([*make, "bzImage"])
        shutil.copyfile(f"{folder}/arch/x86/boot/bzImage", place.with_suffix(".new"))
    place.with_suffix(".new").rename(place)
    return place


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:2])}: {done.stderr.strip()[-1000:]}")


if __name__ == "__main__":
    try:
        print(build())
    except RuntimeError as err:
        sys.exit(f"the kernel without memory hotplug cannot be built: {err}")
