# SPDX-License-Identifier: GPL-2.0-only
"""
The mail of 15 December 2016, told as tests.

"Memory hotplug support for arm64 platform" needs a trick: before it calls __add_pages() it marks the new range NOMAP in
memblock, afterwards it clears the mark and sets PG_reserved on every page. A reviewer asked whether it would not be enough to
initialise the pages again. The answer makes twelve claims (S1 to S12), each checked here on the running model, and where a
real kernel was recorded, against what its instrument counted.

1 GiB is added at 0x80000000: section 2, pfns 0x80000-0xbffff, 262,144 pages of 4 KiB.
"""

from __future__ import annotations

from errno import EBUSY, EEXIST, ENOMEM
from typing import Any

import pytest

from memhp import hardware
from memhp.errors import KernelBugError, KernelError, KernelHangError
from memhp.linux import boot, ftrace, kconfig, tree
from memhp.linux.arch.arm64.mm import init as arm64_init
from memhp.linux.fs import sysfs
from memhp.linux.ftrace import Call, Recorder
from memhp.linux.include import mm, mmzone
from memhp.linux.include.mm_types import NODE, REFCOUNT, ZONE
from memhp.linux.include.page_flags import ClearPageReserved, SetPageReserved, reserved_pages
from memhp.linux.mm import memblock, memory_hotplug, page_alloc
from memhp.linux.state import Kernel
from memhp.units import GIB, MIB
from tests.stories.twin import Twin, moment

PROBE = "/sys/devices/system/memory/probe"
STATE = "/sys/devices/system/memory/memory2/state"
ADDRESS = 0x80000000
PFN = 0x80000
PAGES = 262144


def add(remedy: str, recording: str = "v4.9-arm64-rfc/full") -> tuple[Twin, Recorder]:
    """Boot the recorded arm64 machine with a remedy and add the range; return it and what ran."""
    twin = Twin(recording, remedy=remedy)
    with ftrace.record() as recorder:
        twin.attempt(PROBE, hex(ADDRESS))
    return twin, recorder


def only(recorder: Recorder, name: str) -> Call:
    """The one call of a function."""
    [call] = recorder.find(name)
    return call


def reserved_in(call: Call) -> int:
    """How many pages a function set PG_reserved on."""
    return sum(c.args["nr_pages"] for c in call.find("SetPageReserved"))


def instrument_of(twin: Twin, beginning: str) -> str:
    """The line of the recorded kernel's instrument that begins like this."""
    [line] = [line for line in twin.recording.write(hex(ADDRESS)).instrument if line.startswith(beginning)]
    return line


def columns(k: Kernel) -> list[Any]:
    """What __init_single_page() decides of the pages of section 2, and the types of its pageblocks."""
    section = k.mem_section[2]
    assert section.memmap is not None
    pages = [section.memmap.values(column, 0, PAGES) for column in (REFCOUNT, ZONE, NODE)]
    blocks = range(PFN, PFN + PAGES, k.pageblock_nr_pages)
    return [*pages, [page_alloc.get_pageblock_migratetype(k, pfn) for pfn in blocks]]


def test_s1_arm64_pfn_valid_asks_memblock_and_nothing_else() -> None:
    """
    S1: with HAVE_ARCH_PFN_VALID, which is the default, arm64's pfn_valid() only checks NOMAP in memblock.

    A pfn that memblock does not know is not valid either; a memmap is neither needed nor enough.
    """
    k = Twin("v4.9-arm64-rfc/full").k
    assert k.config.HAVE_ARCH_PFN_VALID and kconfig.default("arm64").HAVE_ARCH_PFN_VALID
    assert k.pfn_valid is arm64_init.A0

    assert mmzone.pfn_valid(k, 0x40000), "boot memory: in memblock, with a memmap"
    memblock.memblock_mark_nomap(k, 0x40000000, 4096)
    assert not mmzone.pfn_valid(k, 0x40000), "NOMAP: its memmap is still there, and does not count"
    assert mmzone.valid_section(mmzone.__pfn_to_section(k, 0x40000))
    assert mmzone.pfn_valid(k, 0x40001), "its neighbour is not marked"

    assert not mmzone.pfn_valid(k, PFN), "memblock does not know it"
    memblock.memblock_add_node(k, ADDRESS, GIB, 0)
    assert mmzone.pfn_valid(k, PFN), "memblock knows it: valid, and there is no struct page"
    assert 2 not in k.mem_section


@pytest.mark.parametrize(("remedy", "valid"), [("full", False), ("nohack", False), ("nonomap-nohack", True)])
def test_s2_add_pages_expects_pfn_valid_false(remedy: str, valid: bool) -> None:
    """
    S2: __add_pages() expects pfn_valid() to be false when it is entered.

    __add_section() asks first thing, of the section's first pfn only. If the answer is yes it is left with -EEXIST and nothing
    is made; __add_pages() takes that for success.
    """
    twin, recorder = add(remedy)
    section = only(recorder, "__add_section")
    asked = section.children[0]
    assert ("pfn_valid", {"pfn": PFN}, valid) == (asked.name, asked.args, asked.result)
    if valid:
        assert isinstance(section.error, KernelError) and section.error.errno == EEXIST
        assert [asked] == section.children and 2 not in twin.k.mem_section and 2 not in twin.k.memory_blocks
    else:
        assert not section.raised and 2 in twin.k.memory_blocks
    assert not only(recorder, "__add_pages").raised and not only(recorder, "add_memory").raised


def test_s2_only_the_first_pfn_of_a_section_is_asked() -> None:
    """Marking the first page alone lets the section in: what vendor kernels shipped."""
    twin, recorder = add("firstpage")
    before = only(recorder, "memblock_mark_nomap")
    assert {"base": ADDRESS, "size": 4096} == before.args
    assert not only(recorder, "__add_section").raised and 2 in twin.k.memory_blocks


def test_s3_add_zone_expects_pfn_valid_true() -> None:
    """
    S3: at its end __add_zone() expects pfn_valid() to be true, for it reserves only what is valid, and skips the rest silently.

    On x86_64 the answer has become true by then, and all pages are reserved.
    """
    x86 = Twin("v4.9-x86_64/1-probe")
    with ftrace.record() as recorder:
        x86.attempt(PROBE, hex(ADDRESS))
    zone = only(recorder, "__add_zone")
    assert 32768 == reserved_in(zone) == x86.k.PAGES_PER_SECTION
    assert f"SetPageReserved on {reserved_in(zone)} pages, skipped 0" in instrument_of(x86, "__add_zone ")

    twin = Twin("v4.9-arm64-rfc/full")
    with ftrace.record() as recorder:
        answer = twin.attempt(PROBE, hex(ADDRESS))
    assert 0 == reserved_in(only(recorder, "__add_zone"))
    assert ("", []) == (answer.result, answer.log), "and nobody is told"


def test_s4_under_nomap_no_page_is_reserved() -> None:
    """S4: with NOMAP set the pages are not reserved in __add_zone(): the recorded kernel skipped all 262,144, and so do we."""
    twin, recorder = add("nohack")
    reserved = reserved_in(only(recorder, "__add_zone"))
    line = instrument_of(twin, "__add_zone ")
    assert line.endswith(f"SetPageReserved on {reserved} pages, skipped {PAGES - reserved} (pfn_valid false)")
    assert (0, 0) == (reserved, reserved_pages(twin.k, PFN, PAGES))


def test_s5_onlining_asks_for_reserved_pages() -> None:
    """
    S5: reserved pages are a precondition for onlining.

    Without them `online` is -EBUSY, and the log names section and page, as the recorded kernel's did. One page that is not
    reserved is enough, be it the last; when it is reserved, too, the block goes online.
    """
    twin, _ = add("nohack", "v4.9-arm64-rfc/nohack")
    refused = twin.attempt(STATE, "online")
    assert isinstance(refused.error, KernelError) and refused.error.errno == EBUSY
    assert twin.recording.write("online").log == refused.log

    SetPageReserved(twin.k, PFN, PAGES - 1)
    refused = twin.attempt(STATE, "online")
    assert "EBUSY" == refused.result
    assert ["section number 2 page number 262143 not reserved, was it already online?"] == refused.log

    SetPageReserved(twin.k, PFN + PAGES - 1, 1)
    assert "" == twin.attempt(STATE, "online").result
    assert "online" == twin.text(STATE).strip()


def test_s5_behind_that_check_only_the_first_page_counts() -> None:
    """online_pages_range() itself looks at the first page only; if that is not reserved it onlines nothing, and says 0."""
    twin, _ = add("full")
    k = twin.k
    ClearPageReserved(k, PFN, 1)
    memory_hotplug.online_pages(k, PFN, PAGES, 0)
    zone = mm.page_zone(k, PFN)
    assert ("Normal", 0, 0) == (zone.name, zone.present_pages, zone.managed_pages)
    assert PAGES - 1 == reserved_pages(k, PFN, PAGES), "the others stay as they were"


def test_s6_hotplug_never_asks_early_pfn_valid() -> None:
    """
    S6: in memmap_init_zone() early_pfn_valid() is not run for hotplug, because of the jump to `not_early`.

    The recorded kernel evaluated it 0 times and reached the label 262,144 times, with pfn_valid() false every time.
    """
    twin, recorder = add("full")
    init = only(recorder, "memmap_init_zone")
    labels = init.labelled("not_early")
    reached = sum(label.args["end"] - label.args["start"] for label in labels)
    asked = init.find("early_pfn_valid")
    recorded = instrument_of(twin, "memmap_init_zone ")
    assert (0, PAGES) == (len(asked), reached)
    assert f"early_pfn_valid evaluated {len(asked)} times (false 0); reached not_early {reached} times" in recorded
    assert (PFN, PFN + PAGES) == (labels[0].args["start"], labels[-1].args["end"])


def test_s6_at_boot_it_is_asked_of_every_pfn() -> None:
    """The same function at boot asks early_pfn_valid() of every pfn of the zone before it goes to the label."""
    with ftrace.record() as recorder:
        Twin("v4.9-arm64-rfc/full")
    [init] = [call for call in recorder.find("memmap_init_zone") if call.args["size"]]
    asked = init.find("early_pfn_valid")
    assert [(0x40000, 0x80000)] == [(call.args["start"], call.args["end"]) for call in asked]
    labels = init.labelled("not_early")
    assert PAGES == sum(label.args["end"] - label.args["start"] for label in labels)
    assert asked[0].begin < labels[0].begin


def test_s7_initialising_the_pages_again_changes_nothing() -> None:
    """
    S7: so the proposal, __init_single_page() and set_pageblock_migratetype() after the mark is cleared, is not needed.

    The pages are initialised already: refcount 1, links to node and zone, MOVABLE pageblocks. Doing it again leaves them as they
    are, and the one thing that is missing, PG_reserved, is still missing: `online` is refused as before.
    """
    nohack, _ = add("nohack")
    initpage, _ = add("initpage")
    assert columns(nohack.k) == columns(initpage.k)

    [row] = [s for s in Twin("v4.9-arm64-rfc/nohack").recording.write(hex(ADDRESS)).sections if s["section"] == 2]
    model = initpage.section(row)
    for name in ("pages_refcount0", "pages_refcount1", "pages_reserved", "first_page_zone", "first_page_pageblock_migratetype"):
        assert row[name] == model[name], name

    assert nohack.attempt(STATE, "online").log == initpage.attempt(STATE, "online").log != []
    assert ["offline", "offline"] == [twin.text(STATE).strip() for twin in (nohack, initpage)]


def test_s8_others_ask_the_section() -> None:
    """
    S8: other architectures use the pfn_valid() of mmzone.h, which checks SECTION_HAS_MEM_MAP.

    memblock has no say: marking a range NOMAP changes nothing there.
    """
    twin = Twin("v4.9-x86_64/1-probe")
    k = twin.k
    assert k.pfn_valid is mmzone.DEFINITIONS["G0"] and not k.config.HAVE_ARCH_PFN_VALID
    memblock.memblock_mark_nomap(k, 0x10000000, 128 * MIB)
    assert mmzone.pfn_valid(k, 0x10000)
    assert not mmzone.pfn_valid(k, PFN)
    memblock.memblock_add_node(k, ADDRESS, 128 * MIB, 0)
    assert not mmzone.pfn_valid(k, PFN), "memblock knows it, and that is not enough"
    k.section_rw(2).section_mem_map &= ~mmzone.SECTION_HAS_MEM_MAP
    assert not mmzone.pfn_valid(k, 2 * k.PAGES_PER_SECTION), "without the flag, not valid"


def test_s9_the_flag_is_set_before_add_zone() -> None:
    """
    S9: it is set in __add_section -> sparse_add_one_section -> sparse_init_one_section, before __add_zone().

    On x86_64 the answer of pfn_valid() changes there: no when __add_section() asks, yes in __add_zone().
    """
    twin = Twin("v4.9-x86_64/1-probe")
    with ftrace.record({"sparse_add_one_section": lambda k, call: mmzone.pfn_valid(k, PFN)}) as recorder:
        twin.attempt(PROBE, hex(ADDRESS))
    section = only(recorder, "__add_section")
    steps = ("pfn_valid", "sparse_add_one_section", "__add_zone", "register_new_memory")
    order = [call.name for call in section.children if call.name in steps]
    assert list(steps) == order
    added = only(recorder, "sparse_add_one_section")
    assert "sparse_init_one_section" in [call.name for call in added.children]
    assert (False, True) == (section.children[0].result, added.note)
    line = instrument_of(twin, "__add_section pfn=0x80000: sparse_add_one_section")
    assert line.endswith("section_has_mem_map=1 pfn_valid=1")


def test_s10_arm64_says_yes_once_memblock_knows_the_range() -> None:
    """
    S10: arm64's pfn_valid() is true once memblock_add_node() has succeeded, whatever sparsemem knows.

    add_memory_resource() calls that before arch_add_memory(). As recorded at its entry: valid, and no section.
    """
    twin = Twin("v4.9-arm64-rfc/full")
    with ftrace.record({"memblock_add_node": lambda k, call: moment(k, PFN)}) as recorder:
        twin.attempt(PROBE, hex(ADDRESS))
    resource = only(recorder, "add_memory_resource")
    order = [call.name for call in resource.children if call.name in ("memblock_add_node", "arch_add_memory")]
    assert ["memblock_add_node", "arch_add_memory"] == order
    seen = only(recorder, "memblock_add_node").note
    assert (1, 0, 0) == (seen["pfn_valid(first)"], seen["section_present"], seen["section_has_mem_map"])
    recorded = instrument_of(twin, "[full] entry: pfn_valid")
    assert recorded == "[full] entry: " + " ".join(f"{name}={value}" for name, value in seen.items())


def test_s11_on_arm64_it_keeps_saying_no_because_of_the_hack() -> None:
    """
    S11: "on arm64 it will keep returning false" in __add_zone().

    That holds only under the mark. If the mark is cleared right before __add_zone(), it says yes there and all pages are
    reserved by the generic loop; without any mark __add_zone() is never reached.
    """
    _, marked = add("full")
    assert 0 == reserved_in(only(marked, "__add_zone"))
    twin, cleared = add("clear-before-add-zone")
    assert PAGES == reserved_in(only(cleared, "__add_zone")) == reserved_pages(twin.k, PFN, PAGES)
    _, unmarked = add("nonomap-nohack")
    assert [] == unmarked.find("__add_zone")


def test_s12_memblock_is_split_and_merged_again() -> None:
    """S12: the hack is confined. Not quite: (a) the memblock region is split, and merged again; in the end nothing shows."""
    twin = Twin("v4.9-arm64-rfc/full")

    def regions(k: Any, call: Call) -> list[tuple[int, int, int]]:
        return [(r.base, r.base + r.size, r.flags) for r in k.memblock.memory.regions]

    with ftrace.record({"memblock_mark_nomap": regions, "memblock_clear_nomap": regions}) as recorder:
        twin.attempt(PROBE, hex(ADDRESS))
    assert [(0x40000000, 0x80000000, 0), (0x80000000, 0xC0000000, 4)] == only(recorder, "memblock_mark_nomap").note
    assert [(0x40000000, 0xC0000000, 0)] == only(recorder, "memblock_clear_nomap").note


def test_s12_the_zone_is_never_contiguous_again() -> None:
    """
    S12 (b): __add_pages() ends with set_zone_contiguous() while pfns are still invalid, and nothing asks again.

    The zone keeps contiguous = false, also once it is online, and compaction loses its shortcut. With the generic pfn_valid()
    the same memory makes a contiguous zone.
    """
    found = {}
    for remedy in ("full", "firstpage", "generic", "clear-before-add-zone"):
        twin, _ = add(remedy)
        assert "" == twin.attempt(STATE, "online").result
        found[remedy] = mm.page_zone(twin.k, PFN).contiguous
    assert {"full": False, "firstpage": False, "generic": True, "clear-before-add-zone": True} == found


def add_until_memory_ends(remedy: str) -> tuple[Kernel, KernelError | KernelBugError, dict[str, str]]:
    """On a machine of 64 MiB, add section by section until one fails; also what the files said before that one."""
    k = boot.boot(tree.V4_9_RFC, "arm64", hardware.platform("arm64", mem=64 * MIB), remedy=remedy)
    for section in range(2, 8):
        before = {path: sysfs.read(k, path).decode() for path in ("/proc/iomem", "/sys/kernel/debug/memblock/memory")}
        boot.new_task(k)
        try:
            sysfs.write(k, PROBE, hex(section * GIB))
        except KernelBugError as err:
            boot.task_died(k)
            return k, err, before
        except KernelError as err:
            return k, err, before
    raise AssertionError("64 MiB hold the memmaps of 6 GiB")


def test_s12_a_failed_add_ends_in_an_oops() -> None:
    """
    S12 (c): if __add_pages() fails, the mark is cleared and SetPageReserved() is applied all the same.

    With no memory left for the memmap the right answer is -ENOMEM, and everything as it was. The series touches the memmap that
    could not be made and dies; the lock it holds is never given back, so whoever adds memory next waits for ever.
    """
    k, err, before = add_until_memory_ends("generic")
    assert isinstance(err, KernelError) and err.errno == ENOMEM
    assert before == {path: sysfs.read(k, path).decode() for path in before}

    k, err, before = add_until_memory_ends("full")
    assert isinstance(err, KernelBugError) and "its memmap was never made" in str(err)
    assert before["/proc/iomem"] != sysfs.read(k, "/proc/iomem").decode(), "its resource stays"
    boot.new_task(k)
    with pytest.raises(KernelHangError):
        sysfs.write(k, PROBE, hex(9 * GIB))


@pytest.mark.parametrize(("remedy", "blocks"), [("full", [1, 2, 3]), ("firstpage", [1, 2]), ("generic", [1, 2, 3])])
def test_s12_two_sections_at_once(remedy: str, blocks: list[int]) -> None:
    """
    S12 (d): marking only the first page goes wrong when a DIMM brings two sections.

    The second section begins with a pfn that is valid, so it is skipped, silently: add_memory() says 0 and half of the memory
    has neither memmap nor block. `probe` hides it, for there one write is one block is one section.
    """
    k = Twin("v4.9-arm64-rfc/full", remedy=remedy).k
    boot.new_task(k)
    memory_hotplug.add_memory(k, 0, ADDRESS, 2 * GIB)
    assert blocks == sorted(k.memory_blocks)
    assert (3 in blocks) == mmzone.valid_section(mmzone.__pfn_to_section(k, 0xC0000))
    assert mmzone.pfn_valid(k, 0xC0000) == (remedy != "generic" or 3 in blocks)
