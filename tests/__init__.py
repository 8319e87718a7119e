# SPDX-License-Identifier: GPL-2.0-only
"""Tests of memhp; a package, so that they can share what lies in `tests.oracles` and `tests.data`."""
