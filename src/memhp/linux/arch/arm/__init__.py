# SPDX-License-Identifier: GPL-2.0-only
"""What arm64 shares with arm. Source: arch/arm/."""
