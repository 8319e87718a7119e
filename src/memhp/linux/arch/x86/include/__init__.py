# SPDX-License-Identifier: GPL-2.0-only
"""x86 headers. Source: arch/x86/include/asm/."""
