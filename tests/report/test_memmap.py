# SPDX-License-Identifier: GPL-2.0-only
"""Strips: what is drawn is what the kernel holds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memhp import hardware
from memhp.errors import UsageError
from memhp.linux import boot, tree
from memhp.linux.fs import sysfs
from memhp.linux.include.mm_types import FLAGS
from memhp.linux.include.page_flags import PAGE_INITIALISED, PG_RESERVED
from memhp.linux.mm import memblock, page_alloc, sparse
from memhp.linux.state import Kernel
from memhp.report import memmap
from memhp.units import GIB, MIB

STATE = "/sys/devices/system/memory/memory{}/state"


@pytest.fixture
def x86() -> Kernel:
    """x86_64 with 1 GiB of RAM; 0x80000000 added, 0x88000000 added and online."""
    k = boot.boot(tree.V4_9, "x86_64", hardware.platform("x86_64", mem=GIB))
    for address in ("0x80000000", "0x88000000"):
        boot.new_task(k)
        sysfs.write(k, "/sys/devices/system/memory/probe", address)
    sysfs.write(k, STATE.format(17), "online")
    return k


def arm64() -> Kernel:
    return boot.boot(tree.V4_9_RFC, "arm64", hardware.platform("arm64", mem=GIB))


def test_four_answers_to_is_there_memory(x86: Kernel) -> None:
    """
    RAM, nothing, an offline block, an online block.

        | RAM | hole | offline | online |
    """
    strips = memmap.draw(x86, 0x70000000, 0x90000000, width=4)
    assert 128 * MIB == strips.cell
    assert ("..==", "..MM", "..-+", "..Rf") == (strips.memblock, strips.sections, strips.blocks, strips.pages)
    boot_ram = memmap.draw(x86, 0x30000000, 0x50000000, width=4)
    assert ("==..", "MM..", "++..") == (boot_ram.memblock, boot_ram.sections, boot_ram.blocks)


def test_parts_of_a_cell_are_told_from_the_whole() -> None:
    """One page marked NOMAP shows; a cell that memblock covers half is not drawn as memory."""
    k = arm64()
    memblock.memblock_mark_nomap(k, 0x50000000, k.PAGE_SIZE)
    memblock.memblock_mark_nomap(k, 0x60000000, 256 * MIB)
    assert "=nN=" == memmap.draw(k, 0x40000000, 0x80000000, width=4).memblock
    memblock.memblock_remove(k, 0x70000000, 128 * MIB)
    assert "=nN-" == memmap.draw(k, 0x40000000, 0x80000000, width=4).memblock


def test_a_section_without_the_other_half(x86: Kernel) -> None:
    """A character for several sections of which some are there; several blocks that disagree."""
    strips = memmap.draw(x86, 0x70000000, 0x90000000, width=2)
    assert (".M", ".~") == (strips.sections, strips.blocks)
    assert "m" == memmap.draw(x86, 0x78000000, 0x88000000, width=1).sections


def test_a_memmap_nobody_initialised() -> None:
    """Between sparse_add_one_section() and memmap_init_zone() struct pages are zeroes."""
    k = arm64()
    memblock.memblock_add_node(k, 0x80000000, GIB, 0)
    memblock.memblock_mark_nomap(k, 0x80000000, GIB)
    sparse.sparse_add_one_section(k, 0, 0x80000)
    assert "0000" == memmap.draw(k, 0x80000000, 0xC0000000, width=4).pages
    page_alloc.memmap_init_zone(k, k.PAGES_PER_SECTION, 0, k.ZONE_NORMAL, 0x80000, page_alloc.MEMMAP_HOTPLUG)
    assert "iiii" == memmap.draw(k, 0x80000000, 0xC0000000, width=4).pages


@given(st.integers(0, 2000), st.integers(1, 2000), st.integers(1, 100))
def test_pages_one_at_a_time(first: int, pages: int, width: int) -> None:
    """A character of `pages` is what most of its pages are, counted one at a time."""
    k = KERNEL
    base = 0x40000000 >> k.PAGE_SHIFT
    strips = memmap.draw(k, (base + first) << 12, (base + first + pages) << 12, width=width)
    assert strips.cell * len(strips.pages) == strips.end - strips.start
    assert len(strips.pages) <= width
    free = {pfn for zone in k.nodes[0].node_zones for a, b in page_alloc.free_ranges(k, zone) for pfn in range(a, b)}
    each = strips.cell >> 12
    for i, char in enumerate(strips.pages):
        counted: Counter[str] = Counter()
        for pfn in range(base + first + i * each, base + first + (i + 1) * each):
            columns = k.mem_section[pfn >> k.PFN_SECTION_SHIFT].memmap
            assert columns is not None
            flags = columns.get(FLAGS, pfn & (k.PAGES_PER_SECTION - 1))
            if not flags & PAGE_INITIALISED:
                counted["0"] += 1
            elif flags & PG_RESERVED:
                counted["R"] += 1
            else:
                counted["f" if pfn in free else "u"] += 1
        assert counted[char] == max(counted.values())


KERNEL = boot.boot(tree.V4_9_RFC, "arm64", hardware.platform("arm64", mem=64 * MIB))


@pytest.mark.parametrize(("start", "end", "width"), [(0, 0, 8), (4096, 0, 8), (1, 4096, 8), (0, 4097, 8), (0, 4096, 0)])
def test_what_cannot_be_drawn(start: int, end: int, width: int) -> None:
    with pytest.raises(UsageError, match="whole pages of 4K"):
        memmap.draw(KERNEL, start, end, width=width)


def test_as_text(x86: Kernel) -> None:
    """Addresses above, each strip with its name and only those meanings that occur."""
    strips = memmap.draw(x86, 0x70000000, 0x90000000, width=32)
    lines = memmap.lines(strips)
    assert "0x70000000            0x90000000  one character: 16M" == lines[0]
    assert f"{strips.memblock}  memblock: = memory, . not in memblock" == lines[1]
    assert f"{strips.pages}  pages: . no struct pages, R Reserved, f free (buddy)" == lines[4]
    assert {"start", "end", "cell", "memblock", "sections", "blocks", "pages"} == strips.json().keys()
