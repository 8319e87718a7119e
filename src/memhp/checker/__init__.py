# SPDX-License-Identifier: GPL-2.0-only
"""What depends on pfn_valid(), what it may ask for, and which definitions give it that."""
