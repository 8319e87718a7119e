# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels in QEMU: images, the process, its monitor, and the guest's files."""
