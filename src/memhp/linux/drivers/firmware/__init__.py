# SPDX-License-Identifier: GPL-2.0-only
"""Drivers of firmware interfaces. Source: drivers/firmware."""
