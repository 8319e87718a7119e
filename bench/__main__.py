# SPDX-License-Identifier: GPL-2.0-only
"""
Print how fast memhp is: `make bench`.

Each row is the best of several runs, beside the budget it is held against and beside a fixed loop of plain Python run in the
same minute ("loops"), so that figures from machines of different speed can be compared.
"""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import memblock as bench_memblock
from memhp import hardware
from memhp.errors import KernelError
from memhp.linux import boot, tree
from memhp.linux.fs import sysfs
from memhp.linux.include.gfp import GFP_HIGHUSER_MOVABLE
from memhp.linux.mm import memory_hotplug, page_alloc
from memhp.linux.state import Kernel
from memhp.units import GIB, TIB

MEMORY = "/sys/devices/system/memory"


def loop() -> float:
    """Seconds for a million additions in plain Python: what a second is worth here and now."""
    start = time.perf_counter()
    x = 0
    for i in range(1_000_000):
        x += i
    return time.perf_counter() - start


def best(run: Callable[[], float], times: int = 5) -> tuple[float, float]:
    """Return (seconds, the same in loops) of the best run."""
    results = []
    for _ in range(times):
        gc.collect()
        unit = min(loop() for _ in range(2))
        seconds = run()
        results.append((seconds, seconds / unit))
    return min(results, key=lambda pair: pair[1])


def row(what: str, figure: str, loops: float | None, budget: str) -> None:
    """Print one line of the table."""
    print(f"{what:<66}{figure:>14}{'' if loops is None else f'{loops:.3f}':>10}  {budget}")


def new(arch: str, mem: int, remedy: str = "") -> Kernel:
    """Boot a model of `mem` bytes."""
    which = tree.V4_9 if arch == "x86_64" else tree.V4_9_RFC
    return boot.boot(which, arch, hardware.platform(arch, mem=mem), remedy=remedy if arch == "arm64" else "")


def add_and_online(arch: str, size: int) -> float:
    """Seconds to hot-add `size` bytes in one call and online every block through its `state` file."""
    k = new(arch, 48 * GIB)
    start = time.perf_counter()
    memory_hotplug.add_memory(k, 0, 64 * GIB, size)
    block = k.sections_per_block << k.SECTION_SIZE_BITS
    for n in range(64 * GIB // block, (64 * GIB + size) // block):
        sysfs.write(k, f"{MEMORY}/memory{n}/state", "online")
    took = time.perf_counter() - start
    if sum(zone.managed_pages for zone in k.nodes[0].node_zones) < size >> k.PAGE_SHIFT:
        raise SystemExit("bench: the memory did not go online")
    return took


def add_too_much(arch: str) -> float:
    """
    Seconds until a machine of 4 GiB says ENOMEM to 1 TiB.

    On arm64 with the remedy `nohack`: `full` reserves pages after a failed add too, and dies of an oops on the first page
    that got no memmap.
    """
    k = new(arch, 4 * GIB, "nohack")
    start = time.perf_counter()
    try:
        memory_hotplug.add_memory(k, 0, 64 * GIB, TIB)
    except KernelError as err:
        if err.name == "ENOMEM":
            return time.perf_counter() - start
    raise SystemExit("bench: 1 TiB fitted into 4 GiB")


def boot_once(arch: str, mem: int) -> float:
    """Seconds to boot."""
    start = time.perf_counter()
    new(arch, mem)
    return time.perf_counter() - start


def fork_once() -> float:
    """Seconds for one fork of a booted model."""
    k = new("x86_64", GIB)
    start = time.perf_counter()
    for _ in range(2000):
        k.fork()
    return (time.perf_counter() - start) / 2000


def pages() -> float:
    """Seconds for one page allocation or free in the buddy allocator."""
    k = new("x86_64", GIB)
    start = time.perf_counter()
    taken = [page_alloc.__alloc_pages_nodemask(k, GFP_HIGHUSER_MOVABLE, 0, 0) for _ in range(20_000)]
    for pfn in taken:
        page_alloc.__free_pages(k, pfn, 0)
    return (time.perf_counter() - start) / 40_000


def command(*args: str) -> float:
    """Seconds for a whole command."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "memhp", *args], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


SCENARIO = """
machine = "model:v4.9/x86_64?mem=1G"
[[step]]
do = "write"
path = "/sys/devices/system/memory/probe"
text = "0x80000000"
[[step]]
do = "online"
block = 16
"""


def main() -> None:
    """Print the table."""
    print(f"{'what':<66}{'figure':>14}{'loops':>10}  budget (must; aim)")
    for arch, section in (("x86_64", "128 MiB"), ("arm64", "1 GiB")):
        seconds, loops = best(lambda arch=arch: add_and_online(arch, TIB))
        row(f"hot-add and online 1 TiB, v4.9/{arch}, {section} blocks", f"{seconds:.3f} s", loops, "0.3 s; 0.05 s")
        quarter, _ = best(lambda arch=arch: add_and_online(arch, TIB // 4), 3)
        row("  the same, 256 GiB; 1 TiB costs so many times as much", f"× {seconds / quarter:.1f}", None, "linear in blocks: × 4")
        seconds, loops = best(lambda arch=arch: add_too_much(arch), 3)
        row(f"  1 TiB on a machine of 4 GiB: ENOMEM, v4.9/{arch}", f"{seconds:.3f} s", loops, "")
        seconds, loops = best(lambda arch=arch: boot_once(arch, TIB), 3)
        row(f"  boot with 1 TiB, v4.9/{arch}", f"{seconds:.3f} s", loops, "")
    seconds, loops = best(lambda: boot_once("arm64", GIB))
    row("boot with 1 GiB, v4.9+arm64-rfc-2016/arm64", f"{seconds * 1e3:.2f} ms", loops, "")
    seconds, _ = best(fork_once)
    row("fork of a booted model", f"{seconds * 1e6:.1f} µs", None, "50 µs; 5 µs")
    seconds, _ = best(pages)
    row("page allocations and frees in the buddy allocator", f"{1 / seconds:,.0f} /s", None, "300,000 /s; 5,000,000 /s")
    bench_memblock.rows(best, row)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.toml"
        path.write_text(SCENARIO)
        for what, args in (
            ("memhp --help", ["--help"]), ("memhp trees", ["trees"]), ("memhp run, two steps", ["run", str(path)]),
            ("memhp explain", ["explain"]),
        ):
            seconds, loops = best(lambda args=args: command(*args))
            row(what, f"{seconds * 1e3:.0f} ms", loops, "150 ms; 80 ms" if what == "memhp --help" else "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row("peak memory of this benchmark", f"{peak:.0f} MiB", None, "")


if __name__ == "__main__":
    main()
