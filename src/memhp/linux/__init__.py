# SPDX-License-Identifier: GPL-2.0-only
"""The kernel, function for function. Files here are ours; a file in a subfolder is the C file of that path."""
