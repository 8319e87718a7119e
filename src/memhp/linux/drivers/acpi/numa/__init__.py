# SPDX-License-Identifier: GPL-2.0-only
"""Nodes as ACPI tells of them. Source: drivers/acpi/numa/."""
