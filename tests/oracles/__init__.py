# SPDX-License-Identifier: GPL-2.0-only
"""Slow versions, one byte or one page at a time, that the fast ones are held against."""
