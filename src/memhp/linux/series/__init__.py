# SPDX-License-Identifier: GPL-2.0-only
"""Patch series on a tree."""
