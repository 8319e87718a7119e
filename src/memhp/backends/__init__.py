# SPDX-License-Identifier: GPL-2.0-only
"""Machines: what each offers, how a URL names one, and the kinds there are."""
