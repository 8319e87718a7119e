# SPDX-License-Identifier: GPL-2.0-only
"""File systems: what user space reads and writes. Source: fs/."""
