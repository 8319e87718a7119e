# SPDX-License-Identifier: GPL-2.0-only
"""
The instrument of the recorded kernels, put into the model: the same state lines and counters at the same moments.

The test kernels were given `rfc:` lines inside arch_add_memory(), __add_section(), memmap_init_zone() and __add_zone(). Here
those functions are wrapped, the state is read as it is at that moment, and the line is written as the real one was, so that
the two can be compared as text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from errno import EEXIST
from typing import Any

import pytest

from memhp.errors import KernelError
from memhp.linux.arch.arm64.mm import mmu
from memhp.linux.include import mmzone
from memhp.linux.include.page_flags import PageReserved, reserved_pages
from memhp.linux.mm import memory_hotplug, page_alloc, sparse
from memhp.linux.state import Kernel
from tests.stories.twin import Twin, moment


class Instrument:
    """
    What the test kernels' instrument would have printed.

    Attributes:
        lines: So far.
    """

    def __init__(self, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self._patch = monkeypatch
        self._k = twin.k
        self._arm64 = twin.recording.arch == "arm64"
        words = dict(word.partition("=")[::2] for word in twin.recording.cmdline.split())
        self._head = f"[{words['rfc']}] " if self._arm64 else ""
        self._start = self._size = self._nid = 0
        self._asked = self._false = self._reached = self._invalid = self._reserved = 0
        self._wrap_all()

    def taken(self) -> list[str]:
        """Return the lines since the last time."""
        taken, self.lines = self.lines, []
        return taken

    # The lines

    def _state(self, when: str) -> None:
        k, pfn = self._k, self._start >> self._k.PAGE_SHIFT
        seen = moment(k, pfn)
        if self._arm64:
            self.lines.append(f"{self._head}{when}: " + " ".join(f"{name}={value}" for name, value in seen.items()))
            for r in k.memblock.memory.regions:
                self.lines.append(
                    f"{self._head}{when}: memblock.memory {r.base:#x}-{r.base + r.size - 1:#x} flags {r.flags:#x}")
        else:
            when = {"entry": "entry of arch_add_memory"}.get(when, when)
            idx = memory_hotplug.zone_for_memory(k, self._nid, self._start, self._size, k.ZONE_NORMAL, False)
            zone = k.zone(self._nid, idx)
            asked = " ".join(f"{name}={value}" for name, value in seen.items() if not name.startswith("memblock"))
            self.lines.append(
                f"{when}: zone={zone.name} {asked} max_pfn={k.max_pfn:#x} max_low_pfn={k.max_low_pfn:#x} "
                f"zone_span={zone.zone_start_pfn:#x}+{zone.spanned_pages}")
        if seen["section_has_mem_map"] and (self._arm64 or when.startswith("after")):
            count = reserved_pages(k, pfn, k.PAGES_PER_SECTION)
            self.lines.append(f"{self._head}{when}: PageReserved on {count} of {k.PAGES_PER_SECTION} pages, "
                              f"first={int(PageReserved(k, pfn))}")

    # The moments

    def _wrap_all(self) -> None:
        k = self._k
        self._patch.setattr(k, "arch", replace(k.arch, arch_add_memory=self._arch_add_memory(k.arch.arch_add_memory)))
        add_pages = self._add_pages(getattr(memory_hotplug, "__add_pages"))
        self._patch.setattr(memory_hotplug, "__add_pages", add_pages)
        symbols = replace(mmu.SYMBOLS, add_pages=add_pages, memblock_clear_nomap=self._clear(mmu.SYMBOLS.memblock_clear_nomap))
        self._patch.setattr(mmu, "SYMBOLS", symbols)
        for module, name, wrapper in (
            (memory_hotplug, "__add_section", self._add_section),
            (sparse, "sparse_add_one_section", self._add_one_section),
            (page_alloc, "memmap_init_zone", self._memmap_init_zone),
            (page_alloc, "_not_early", self._not_early),
            (mmzone, "early_pfn_valid", self._early_pfn_valid),
            (memory_hotplug, "__add_zone", self._add_zone),
            (memory_hotplug, "SetPageReserved", self._set_reserved),
        ):
            self._patch.setattr(module, name, wrapper(getattr(module, name)))

    def _arch_add_memory(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, nid: int, start: int, size: int, for_device: bool) -> None:
            self._nid, self._start, self._size = nid, start, size
            self._state("entry")
            real(k, nid, start, size, for_device)
            self._state("exit of arch_add_memory")

        return wrapped

    def _add_pages(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: Any) -> None:
            self._state("before __add_pages")
            real(*args)
            self.lines.append(f"{self._head}__add_pages returned 0")
            self._state("after __add_pages")

        return wrapped

    def _clear(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, base: int, size: int) -> None:
            real(k, base, size)
            self._state("after clearing NOMAP")

        return wrapped

    def _add_section(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, nid: int, zone: mmzone.Zone, pfn: int) -> None:
            valid = mmzone.pfn_valid(k, pfn)
            line = f"__add_section pfn={pfn:#x}: pfn_valid={int(valid)}"
            if not valid:
                self.lines.append(line)
            try:
                real(k, nid, zone, pfn)
            except KernelError as err:
                if err.errno == EEXIST:
                    self.lines.append(f"{line} -> returning -EEXIST")
                raise

        return wrapped

    def _add_one_section(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, nid: int, pfn: int) -> None:
            real(k, nid, pfn)
            seen = moment(k, pfn)
            self.lines.append(f"__add_section pfn={pfn:#x}: sparse_add_one_section returned 1; "
                              f"section_has_mem_map={seen['section_has_mem_map']} pfn_valid={seen['pfn_valid(first)']}")

        return wrapped

    def _memmap_init_zone(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, size: int, nid: int, zone: int, start_pfn: int, context: str) -> None:
            self._asked = self._false = self._reached = self._invalid = 0
            real(k, size, nid, zone, start_pfn, context)
            self.lines.append(
                f"memmap_init_zone zone={zone} start_pfn={start_pfn:#x} size={size} context={context}: early_pfn_valid "
                f"evaluated {self._asked} times (false {self._false}); reached not_early {self._reached} times "
                f"(pfn_valid false there {self._invalid})")

        return wrapped

    def _not_early(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, start: int, end: int, *rest: int) -> None:
            self._reached += end - start
            self._invalid += sum(b - a for a, b, valid in mmzone.pfn_valid_runs(k, start, end) if not valid)
            real(k, start, end, *rest)

        return wrapped

    def _early_pfn_valid(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(k: Kernel, start: int, end: int) -> list[tuple[int, int, bool]]:
            runs: list[tuple[int, int, bool]] = list(real(k, start, end))
            self._asked += end - start
            self._false += sum(b - a for a, b, valid in runs if not valid)
            return runs

        return wrapped

    def _add_zone(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, zone: mmzone.Zone, pfn: int) -> None:
            self._reserved = 0
            real(k, zone, pfn)
            self.lines.append(
                f"__add_zone zone={zone.name} pfn={pfn:#x}: SetPageReserved on {self._reserved} pages, "
                f"skipped {k.PAGES_PER_SECTION - self._reserved} (pfn_valid false)")

        return wrapped

    def _set_reserved(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapped(k: Kernel, pfn: int, nr_pages: int = 1) -> None:
            self._reserved += nr_pages
            real(k, pfn, nr_pages)

        return wrapped


