# SPDX-License-Identifier: GPL-2.0-only
"""x86_64 memory management. Source: arch/x86/mm/."""
