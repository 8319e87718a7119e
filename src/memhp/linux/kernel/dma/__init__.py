# SPDX-License-Identifier: GPL-2.0-only
"""DMA. Source: kernel/dma/."""
