# SPDX-License-Identifier: GPL-2.0-only
"""Headers: include/linux/X.h is include/X.py."""
