# SPDX-License-Identifier: GPL-2.0-only
"""
From a proximity domain (PXM), as firmware numbers nodes, to a node.

Nodes get their numbers in the order in which the SRAT names their domains; a domain that it does not name has none. Where the
kernel found the tables not to hold, no domain has one.

Source: drivers/acpi/numa/srat.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memhp.linux.include.numa import NUMA_NO_NODE

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def pxm_to_node(k: Kernel, pxm: int) -> int:
    """
    Return the node of a domain; where nobody knows better, it has the same number.

    Source: drivers/acpi/numa/srat.c pxm_to_node() [v5.10, v6.1, v6.12]
    """
    nodes = k.hardware.pxm_nodes or tuple(range(k.hardware.possible_nodes))
    return nodes[pxm] if k.config.NUMA and 0 <= pxm < len(nodes) else NUMA_NO_NODE


def acpi_get_node(k: Kernel, pxm: int) -> int:
    """
    Return the node of a device.

    Args:
        pxm: What its _PXM says, or its parent's; C takes the device's handle.

    Source: drivers/acpi/numa/srat.c acpi_get_node() [v5.10, v6.1, v6.12]
    """
    return pxm_to_node(k, pxm)
