# SPDX-License-Identifier: GPL-2.0-only
"""Character devices. Source: drivers/char/."""
