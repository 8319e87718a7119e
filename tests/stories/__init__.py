# SPDX-License-Identifier: GPL-2.0-only
"""One file for each mail, bug or recorded kernel, told as a test."""
