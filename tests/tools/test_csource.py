# SPDX-License-Identifier: GPL-2.0-only
"""Finding the functions of a C file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "csource.py"


@pytest.fixture(scope="module")
def csource() -> ModuleType:
    spec = importlib.util.spec_from_file_location("csource", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_counts_as_a_function(csource: ModuleType) -> None:
    """Definitions, inlines on one line, variants, macros with arguments, renaming macros, page flags; nothing else."""
    text = """\
/* not_this() { } */
static int __ref __add(int nid,
	struct zone *zone)
{
	if (nid) {
		return other(nid);
	}
	return 0;
}
int declared(int a);
static const struct ops ops = {
	.show = show_it,
};
struct page { int flags; };
static inline int one(void) { return 1; }
#ifdef CONFIG_A
int variant(void)
{
#else
int variant(int b)
{
#endif
	return 2;
}
#define loop(x) \\
	for (x = 0; x < 9; x++)
#define renamed other_name
#define NUMBER 17
PAGEFLAG(Reserved, reserved, PF_NO_COMPOUND)
SYSCALL_DEFINE2(open, const char *, name, int, flags)
{
	printk("} int fake(void) {");
}
int attributed(void) __attribute__((weak));
__attribute__((weak)) void last(void) { }
"""
    assert {
        "__add": [[2, 9]],
        "one": [[15, 15]],
        "variant": [[17, 24]],
        "loop": [[25, 26]],
        "renamed": [[27, 27]],
        "PageReserved": [[29, 29]],
        "SetPageReserved": [[29, 29]],
        "ClearPageReserved": [[29, 29]],
        "sys_open": [[30, 33]],
        "last": [[35, 35]],
    } == csource.functions(text)


def test_rooms_name_their_c_files(csource: ModuleType) -> None:
    files = csource.mirrored()
    assert {"mm/sparse-vmemmap.c", "include/linux/page-flags.h", "kernel/locking/mutex.c", "mm/memory_hotplug.c"} <= set(files)
    assert not [file for file in files if file.startswith(("series/", "fs/sysfs"))]
    assert "__add_section" in csource.modelled()["mm/memory_hotplug.c"]
