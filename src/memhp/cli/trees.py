# SPDX-License-Identifier: GPL-2.0-only
"""`memhp trees`: the kernels that are known."""

from __future__ import annotations

import argparse
from typing import Any

from memhp.cli import common


def add_parser(commands: common.Commands) -> None:
    """Add the command."""
    common.add_command(
        commands, "trees", "list the kernels that are known",
        "List the kernel trees that can be booted as a model: their architectures, patch series and remedies, and the size of\n"
        "a memory block (that of a section; big machines have larger blocks).",
    )  # fmt: skip


def gather() -> list[dict[str, Any]]:
    """Return what is known of each tree, as plain data."""
    import dataclasses

    from memhp.backends import base
    from memhp.linux.arch import arm64, x86
    from memhp.linux.kconfig import DEFAULTS
    from memhp.linux.tree import TREES

    found = []
    for tree in TREES.values():
        arches = {}
        for ops in (arm64.ARM64, x86.X86_64):
            hotplug = not tree.arm64_nomap_window if ops.name == "x86_64" else tree.arm64_hotplug or tree.arm64_nomap_window
            config = DEFAULTS[ops.name]
            pages = (12, 14, 16) if ops.name == "arm64" else (12,)
            sizes = {
                f"{1 << shift >> 10}K": 1 << ops.SECTION_SIZE_BITS(tree, dataclasses.replace(config, PAGE_SHIFT=shift))
                for shift in pages
            }
            own = ops.pfn_valid(tree)
            arches[ops.name] = {
                "hotplug": bool(hotplug),
                "block_size": sizes["4K"],
                "block_size_by_page": sizes,
                "pfn_valid": own.name if own is not None else tree.generic_pfn_valid,
            }
        found.append(
            {
                "tree": tree.name,
                "series": list(tree.series),
                "remedies": base.remedies(tree.name),
                "arches": arches,
            }
        )
    return found


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from memhp.report import text
    from memhp.units import format_size

    found = gather()
    if common.as_json(args):
        common.print_json(found)
        return common.DONE
    rows = []
    for tree in found:
        for name, arch in tree["arches"].items():
            if arch["hotplug"]:
                rows.append((tree["tree"], name, format_size(arch["block_size"]), arch["pfn_valid"]))
    for line in text.columns(rows, header=("TREE", "ARCH", "BLOCK", "PFN_VALID"), right=[2]):
        print(line)
    for tree in found:
        if tree["remedies"]:
            print(f"\nremedies of {tree['tree']} (remedy=NAME):")
            for line in text.columns(tree["remedies"].items()):
                print(f"  {line}")
    return common.DONE
