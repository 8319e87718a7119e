# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel shows, read: sysfs and proc text in, typed snapshots out; the same readers for every machine."""
