# SPDX-License-Identifier: GPL-2.0-only
"""x86 setup. Source: arch/x86/kernel/."""
