# SPDX-License-Identifier: GPL-2.0-only
"""arm64 headers. Source: arch/arm64/include/asm/."""
