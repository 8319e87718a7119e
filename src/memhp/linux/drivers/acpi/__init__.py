# SPDX-License-Identifier: GPL-2.0-only
"""ACPI. Source: drivers/acpi/."""
