# SPDX-License-Identifier: GPL-2.0-only
"""Core kernel. Source: kernel/."""
