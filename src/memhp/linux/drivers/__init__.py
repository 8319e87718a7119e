# SPDX-License-Identifier: GPL-2.0-only
"""Drivers. Source: drivers/."""
