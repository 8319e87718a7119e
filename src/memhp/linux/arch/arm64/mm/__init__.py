# SPDX-License-Identifier: GPL-2.0-only
"""arm64 memory management. Source: arch/arm64/mm/."""
