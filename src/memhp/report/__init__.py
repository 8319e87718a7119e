# SPDX-License-Identifier: GPL-2.0-only
"""The faces of a result: call trees, strips, differences, text."""
