# SPDX-License-Identifier: GPL-2.0-only
"""The files of /proc. Source: fs/proc/."""
