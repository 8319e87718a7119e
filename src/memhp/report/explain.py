# SPDX-License-Identifier: GPL-2.0-only
"""
The mail's story, told by running it: hot-add on arm64 with the 2016 series, on x86_64, and with the series' rivals.

`tell()` boots a kernel for each remedy on the memory map of a recorded machine, adds the range that was added there, onlines
it, and records what ran. Everything a page says is taken from these runs; only the mail's words are ours. Beside each figure
stands that of the real kernel, taken from its recording.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from memhp.abi import memmap as map_files
from memhp.abi import recorded
from memhp.abi.recorded import Recording, Step
from memhp.errors import KernelBugError, KernelError, KernelHangError, UsageError, errno_name
from memhp.linux import boot, ftrace, tree
from memhp.linux.fs import sysfs
from memhp.linux.ftrace import Call, Recorder
from memhp.linux.include import mmzone, page_flags
from memhp.linux.mm import memblock, memory_hotplug
from memhp.linux.series import arm64_rfc_2016
from memhp.linux.state import Kernel
from memhp.report import calls, memmap, text
from memhp.units import format_size

WIDTH = 130
STORIES = {"mail": "hot-add on arm64, December 2016: why pages stay unreserved there and not on x86_64"}

QUESTION = (
    'A mail to the kernel list, 15 December 2016, on the series "Memory hotplug support for arm64 platform": hot-added memory is '
    "marked NOMAP, added, un-marked, and every page of it is then set Reserved by hand; x86_64 does none of this. Why? And how "
    "can pfn_valid() be changed without breaking what depends on it?"
)
NEXT = "memhp boot v4.9+arm64-rfc-2016/arm64 --remedy nohack -o board.toml"

_PROBE = "/sys/devices/system/memory/probe"
_ADDRESS = 0x80000000
_ARM64, _X86 = "v4.9-arm64-rfc", "v4.9-x86_64/1-probe"
_NOT_RECORDED = "not recorded"
_OTHER_NAMES = {"hotplug_linear_map": "hotplug_paging"}
"""How the recorded kernels' patch called what the series brings."""
_MERGED = "nonomap-nohack"
_MERGED_NAME = "pfn_valid=A2"

_ADD = (
    "add_memory_resource", "memblock_add_node", "arch_add_memory", "memblock_mark_nomap", "memblock_clear_nomap", "__add_pages",
    "__add_section", "pfn_valid", "sparse_add_one_section", "__add_zone", "memmap_init_zone", "SetPageReserved",
    "set_zone_contiguous",
)  # fmt: skip
_ONLINE = ("pages_correctly_reserved", "pfn_valid", "online_pages", "generic_online_page")
"""The functions that the two trees show."""

_LEAVES = frozenset(("set_zone_contiguous",))
"""Functions whose inside is not shown."""

_MOMENTS = (
    "memblock_add_node", "memblock_mark_nomap", "sparse_add_one_section", "__add_zone", "memblock_clear_nomap",
    "arch_add_memory", "online_pages",
)  # fmt: skip
"""The functions after which memory is drawn."""


# Running


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of a write.

    Attributes:
        word: "ok", the name of an errno, "oops" or "hung".
        reason: Why, in words.
    """

    word: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """
    A kernel just after a function ended, as far as the added range is concerned.

    Attributes:
        after: The function, or "" before the write.
        strips: Memory drawn.
        valid: pfn_valid() of the range's first pfn.
        by: The ingredient that decided it.
        present, has_memmap: Of its section.
        changed: pfn_valid() says something else than at the moment before.
    """

    after: str
    strips: memmap.Strips
    valid: bool
    by: str
    present: bool
    has_memmap: bool
    changed: bool = False


@dataclass(slots=True)
class Run:
    """
    One kernel that memory was added to and onlined in.

    Attributes:
        arch: "arm64" or "x86_64".
        remedy: Of the series, or "".
        k: The kernel as it is now.
        pfn: First pfn of the added range.
        nr_pages: Its pages.
        block: Its memory block.
        probe, online: What became of the two writes.
        adding, onlining: What ran.
        reserved: Reserved pages of the range between the writes; None without memmap.
        moments: The range drawn while it was added and onlined.
    """

    arch: str
    remedy: str
    k: Kernel
    pfn: int
    nr_pages: int
    block: int
    probe: Outcome
    online: Outcome
    adding: Recorder
    onlining: Recorder
    reserved: int | None
    moments: list[Moment] = field(default_factory=list)

    @property
    def ingredients(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.k.pfn_valid.ingredients())

    @property
    def zone(self) -> mmzone.Zone:
        """The zone that the series and x86_64 add to."""
        return self.k.zone(0, self.k.ZONE_NORMAL)

    def loop(self) -> tuple[int, int]:
        """Pages of the reserve loop of __add_zone() for which pfn_valid() was true, and false."""
        runs = [r for call in self.adding.find("__add_zone") for label in call.labels if label.name == "pfn_valid_runs"
                for r in label.note or ()]  # fmt: skip
        return sum(pages for pages, answer, _ in runs if answer), sum(pages for pages, answer, _ in runs if not answer)


def start(recording: Recording, remedy: str, pfn_valid: str = "") -> Kernel:
    """Boot the model on the memory map that a recorded kernel found."""
    hardware = map_files.hardware_from_map(recording.directory / "00-boot", recording.arch)
    return boot.boot(tree.V4_9_RFC if remedy else tree.V4_9, recording.arch, hardware, remedy=remedy, pfn_valid=pfn_valid)


def run(recording: Recording, remedy: str = "", *, pfn_valid: str = "", draw: bool = False) -> Run:
    """Boot, add the recorded range through `probe`, online its block."""
    k = start(recording, remedy, pfn_valid)
    size = k.sections_per_block << k.SECTION_SIZE_BITS
    pfn, nr_pages = _ADDRESS >> k.PAGE_SHIFT, size >> k.PAGE_SHIFT
    block = _ADDRESS // size
    moments: list[Moment] = []

    def moment(k: Kernel, call: Call) -> Moment:
        now = _moment(k, call.name, pfn, nr_pages)
        moments.append(replace(now, changed=now.valid != moments[-1].valid))
        return moments[-1]

    watch: dict[str, ftrace.Watch] = {
        "pfn_valid": lambda k, call: k.pfn_valid.decide(k, call.args["pfn"]),
        "pfn_valid_runs": _runs,
        "set_zone_contiguous": lambda k, call: k.zone(0, k.ZONE_NORMAL).contiguous,
    }
    if draw:
        moments.append(_moment(k, "", pfn, nr_pages))
        watch.update(dict.fromkeys(_MOMENTS, moment))
    probe, adding = _write(k, _PROBE, f"{_ADDRESS:#x}", watch)
    section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
    reserved = page_flags.reserved_pages(k, pfn, nr_pages) if section is not None and section.memmap is not None else None
    online, onlining = _write(k, f"/sys/devices/system/memory/memory{block}/state", "online", watch)
    return Run(k.arch.name, remedy, k, pfn, nr_pages, block, probe, online, adding, onlining, reserved, moments)


def _write(k: Kernel, path: str, word: str, watch: dict[str, ftrace.Watch]) -> tuple[Outcome, Recorder]:
    """Write as a task of its own."""
    boot.new_task(k)
    outcome = Outcome("ok")
    with ftrace.record(watch) as recorder:
        try:
            sysfs.write(k, path, word)
        except KernelError as err:
            outcome = Outcome(err.name, err.reason or errno_name(err.errno or 0))
        except KernelHangError as err:
            outcome = Outcome("hung", str(err))
        except KernelBugError as err:
            outcome = Outcome("oops", str(err))
            boot.task_died(k)
    boot.user_space(k)
    return outcome, recorder


def _runs(k: Kernel, call: Call) -> list[tuple[int, bool, str]]:
    """The answers of a loop over pfns: (pages, answer, who decided)."""
    runs = call.result if isinstance(call.result, tuple) else ()
    return [(end - begin, answer, k.pfn_valid.decide(k, begin)[1]) for begin, end, answer in runs]


def _moment(k: Kernel, after: str, pfn: int, nr_pages: int) -> Moment:
    valid, by = k.pfn_valid.decide(k, pfn)
    section = k.mem_section.get(pfn >> k.PFN_SECTION_SHIFT)
    start, size = pfn << k.PAGE_SHIFT, nr_pages << k.PAGE_SHIFT
    strips = memmap.draw(k, start - size // 8, start + size, width=9)
    return Moment(after, strips, valid, by, mmzone.present_section(section), mmzone.valid_section(section))


# Claims


@dataclass(frozen=True, slots=True)
class Claim:
    """
    A claim of the mail, held against this run and the real kernel.

    Attributes:
        id: "S1" … "S12".
        words: What the mail says, shortened.
        but: What it does not say, where the verdict is "holds, but".
        verdict: "holds", "holds, but" or "no".
        run: This run's figure.
        kernel: The real kernel's figure, or "not recorded".
        agrees: Whether both figures come to the same; None where nothing was recorded.
    """

    id: str
    words: str
    but: str
    verdict: str
    run: str
    kernel: str
    agrees: bool | None


@dataclass(slots=True)
class Story:
    """
    All runs, and the recordings beside them.

    Attributes:
        full: arm64 with the series.
        x86: x86_64.
        remedies: Every remedy by name, `full` among them.
        merged: What came into v5.0 instead, tried on v4.9: nothing marked, nothing reserved by hand, pfn_valid() = A2.
        recordings: The recorded kernels by remedy; "" is x86_64.
    """

    full: Run
    x86: Run
    remedies: dict[str, Run]
    merged: Run
    recordings: dict[str, Recording]
    _traces: dict[tuple[str, str], list[Call]] = field(default_factory=dict)

    def probe(self, remedy: str) -> Step:
        """The recorded write to `probe`."""
        return self.recordings[remedy].write(f"{_ADDRESS:#x}")

    def online(self, remedy: str) -> Step | None:
        """The recorded write of "online", if it came to that."""
        steps = [step for step in self.recordings[remedy].steps if step.path.endswith("/state") and step.text == "online"]
        return steps[0] if steps else None

    def trace(self, remedy: str, what: str) -> list[Call]:
        """What ftrace recorded of the write to `probe` or of the online; the series' functions under the series' names."""
        if (remedy, what) not in self._traces:
            roots = calls.read_trace(self.recordings[remedy].trace(what))
            for call in (call for root in roots for call in root.walk()):
                call.name = _OTHER_NAMES.get(call.name, call.name)
            self._traces[remedy, what] = roots
        return self._traces[remedy, what]

    def said(self, remedy: str, pattern: str) -> tuple[int, ...] | None:
        """The numbers in the first line of the recorded kernel's instruments that a pattern matches."""
        for line in self.probe(remedy).instrument:
            match = re.search(pattern, line)
            if match:
                return tuple(int(group) for group in match.groups())
        return None


def tell(story: str = "mail") -> Story:
    """
    Run a story.

    Raises:
        UsageError: no such story.
    """
    if story not in STORIES:
        raise UsageError(f"no story {story!r}: there is {', '.join(STORIES)}")
    have = set(recorded.names())
    recordings = {name: recorded.recording(f"{_ARM64}/{name}") for name in arm64_rfc_2016.REMEDIES if f"{_ARM64}/{name}" in have}
    recordings[""] = recorded.recording(_X86)
    remedies = {
        name: run(recordings.get(name, recordings["full"]), name, draw=name == "full") for name in arm64_rfc_2016.REMEDIES
    }
    merged = run(recordings["full"], _MERGED, pfn_valid="A2")
    return Story(remedies["full"], run(recordings[""], draw=True), remedies, merged, recordings)


def _yes(answer: object) -> str:
    return "yes" if answer else "no"


def _claim(
    id: str,
    words: str,
    ours: tuple[Any, ...],
    theirs: tuple[Any, ...] | None,
    figure: Callable[..., str],
    *,
    holds: bool,
    but: str = "",
) -> Claim:
    """Make a claim; `figure` puts the values of either side into words."""
    verdict = ("holds, but" if but else "holds") if holds else "no"
    kernel = _NOT_RECORDED if theirs is None else figure(*theirs)
    return Claim(id, words, but if holds else "", verdict, figure(*ours), kernel, None if theirs is None else ours == theirs)


def claims(story: Story) -> list[Claim]:
    """Return claims S1-S12 of the mail with their verdicts."""
    return claims_of(story, *_CLAIMS)


def claims_of(story: Story, *ids: str) -> list[Claim]:
    """Return some of the claims, by their names "S1" … "S12"."""
    return [_CLAIMS[id](story) for id in ids]


def _s1(s: Story) -> Claim:
    k = start(s.recordings["full"], "full")
    ours = (memblock.memblock_is_memory(k, _ADDRESS), k.pfn_valid.test(k, s.full.pfn))
    section = next((e for e in s.recordings["full"].steps[0].sections if e["pfn"] == s.full.pfn), None)
    theirs = None if section is None else (bool(section["memblock_is_memory"]), bool(section["pfn_valid_first"]))
    marked = any(m.after == "memblock_mark_nomap" and m.changed and not m.valid for m in s.full.moments)
    return _claim(
        "S1", "arm64's pfn_valid() checks only NOMAP", ours, theirs,
        lambda inside, answer: f"{'' if inside else 'not '}in memblock: {_yes(answer)}",
        holds=marked and s.full.ingredients == ("map",), but="" if ours[1] else "; and absence",
    )  # fmt: skip


def _s2(s: Story) -> Claim:
    lost = s.remedies["nonomap"]

    def ours(r: Run) -> tuple[bool, int, str]:
        section = r.adding.find("__add_section")[0]
        [asked] = [call for call in section.children if call.name == "pfn_valid"]
        present = mmzone.present_section(r.k.mem_section.get(r.pfn >> r.k.PFN_SECTION_SHIFT))
        swallowed = section.error is not None and not r.adding.find("__add_pages")[0].raised
        return (
            bool(asked.result),
            int(present),
            section.error.name if swallowed and isinstance(section.error, KernelError) else "",
        )

    def theirs(remedy: str) -> tuple[bool, int, str] | None:
        said = s.said(remedy, r"__add_section pfn=\w+: pfn_valid=(\d)")
        after = s.said(remedy, r"after __add_pages: .*section_present=(\d)")
        lines = "\n".join(s.probe(remedy).instrument)
        refused = re.search(r"returning -(E\w+)", lines)
        zero = re.search(r"__add_pages returned 0", lines)
        if said is None or after is None:
            return None
        return bool(said[0]), after[0], refused[1] if refused and zero else ""

    run, died = ours(s.full), ours(lost)
    kernel, kernel_died = theirs("full"), theirs("nonomap")
    asked = sum(call.name == "pfn_valid" for call in s.full.adding.find("__add_section")[0].children)
    holds = not run[0] and run[1] == 1 and died[0] and died[1] == 0 and bool(died[2])
    return _claim(
        "S2", "__add_pages() wants it false", run + died,
        None if kernel is None or kernel_died is None else kernel + kernel_died,
        lambda a, n, _, b, m, errno: f"{_yes(a)}: {n} added; {_yes(b)}: {m or errno}",
        holds=holds, but=f"; asks {asked} pfn of {s.full.nr_pages}" if asked < s.full.nr_pages else "",
    )  # fmt: skip


_LOOP = r"SetPageReserved on (\d+) pages, skipped (\d+)"


def _loop_figure(reserved: int, skipped: int) -> str:
    return f"{reserved} set, {skipped} skipped"


def _s3(s: Story) -> Claim:
    ours = s.x86.loop()
    return _claim("S3", "__add_zone() wants it true, to set Reserved", ours, s.said("", _LOOP),
                  _loop_figure, holds=ours == (s.x86.nr_pages, 0))  # fmt: skip


def _s4(s: Story) -> Claim:
    ours = s.full.loop()
    return _claim("S4", "under NOMAP it sets none", ours, s.said("full", _LOOP),
                  _loop_figure, holds=ours == (0, s.full.nr_pages))  # fmt: skip


def _s5(s: Story) -> Claim:
    full, nohack = s.online("full"), s.online("nohack")
    ours = (s.remedies["nohack"].online.word, s.full.online.word)
    theirs = (nohack.result or "ok", full.result or "ok") if full and nohack else None
    return _claim(
        "S5", "onlining wants every page Reserved", ours, theirs,
        lambda without, with_: f"without {without}, with {with_}", holds=ours[0] != "ok" and ours[1] == "ok",
    )  # fmt: skip


def _s6(s: Story) -> Claim:
    early = sum(call.args["end"] - call.args["start"] for call in s.full.adding.find("early_pfn_valid"))
    late = sum(label.args["end"] - label.args["start"] for label in s.full.adding.labelled("not_early"))
    theirs = s.said("full", r"early_pfn_valid evaluated (\d+) times .*reached not_early (\d+) times")
    return _claim("S6", "hot-add never runs early_pfn_valid()", (early, late), theirs,
                  lambda a, b: f"{a} times, not_early {b}", holds=early == 0 and late == s.full.nr_pages)  # fmt: skip


def _s7(s: Story) -> Claim:
    done = sum(call.args["nr_pages"] for call in s.full.adding.find("__init_single_page"))
    theirs = s.recordings["full"].counts("probe").get("__init_single_page")
    again = s.remedies["initpage"].online.word
    claim = _claim("S7", "so __init_single_page() once more would not help", (done,), None if theirs is None else (theirs,),
                   lambda n: f"{n} done", holds=done == s.full.nr_pages and again != "ok")  # fmt: skip
    return replace(claim, run=f"{claim.run}; again: {again}")


def _s8(s: Story) -> Claim:
    [asked] = [call for call in s.x86.adding.find("__add_section")[0].children if call.name == "pfn_valid"]
    after = next(m for m in s.x86.moments if m.after == "sparse_add_one_section")
    before = s.said("", r"__add_section pfn=\w+: pfn_valid=(\d)$")
    then = s.said("", r"sparse_add_one_section returned 1; section_has_mem_map=(\d) pfn_valid=(\d)")
    ours = (bool(asked.result), after.has_memmap, after.valid)
    theirs = None if before is None or then is None else (bool(before[0]), bool(then[0]), bool(then[1]))
    return _claim("S8", "elsewhere pfn_valid() checks SECTION_HAS_MEM_MAP", ours, theirs,
                  lambda a, m, b: f"{_yes(a)}; with memmap {_yes(b)}",
                  holds="valid" in s.x86.ingredients and ours == (False, True, True))  # fmt: skip


def _s9(s: Story) -> Claim:
    names = ("sparse_add_one_section", "sparse_init_one_section", "__add_zone")
    ours = tuple(call.name for call in s.x86.adding.walk() if call.name in names)
    theirs = tuple(call.name for root in s.trace("", "probe") for call in root.walk() if call.name in names)
    return _claim(
        "S9", "… set by sparse_init, before __add_zone()", ours, theirs,
        lambda *order: ", ".join(name.removesuffix("_one_section") for name in order[1:]), holds=ours == names,
    )  # fmt: skip


def _s10(s: Story) -> Claim:
    then = next(m for m in s.full.moments if m.after == "memblock_add_node")
    said = s.said("full", r"entry: pfn_valid\(first\)=(\d) .*section_present=(\d)")
    theirs = None if said is None else (bool(said[0]), bool(said[1]))
    return _claim("S10", "arm64: true once memblock_add_node() is done", (then.valid, then.present), theirs,
                  lambda a, p: f"{_yes(a)}; section present: {_yes(p)}", holds=then.valid and not then.present)  # fmt: skip


def _s11(s: Story) -> Claim:
    marked, plain = s.full.loop(), s.remedies["generic"].loop()
    said, other = s.said("full", _LOOP), s.said("generic", _LOOP)
    return _claim(
        "S11", "arm64: stays false in __add_zone()", marked + plain,
        None if said is None or other is None else said + other,
        lambda yes, no, gyes, gno: f"{'no' if no else 'yes'} ×{no or yes}; generic {_yes(gyes)}", holds=marked[0] == 0,
        but="" if plain[1] else "; by section true",
    )  # fmt: skip


def _s12(s: Story) -> Claim:
    full, generic = s.full, s.remedies["generic"]
    regions = [[(r.base, r.size, r.flags) for r in r.k.memblock.memory.regions] for r in (full, generic)]
    lines = [step.memblock for step in (s.probe("full"), s.probe("generic"))]
    blocks = full.nr_pages // full.k.pageblock_nr_pages
    asked = sum(len(root.find("__pageblock_pfn_to_page")) for root in s.trace("full", "probe"))
    asked_generic = s.recordings["generic"].counts("probe").get("__pageblock_pfn_to_page")
    ours = (regions[0] == regions[1], full.zone.contiguous, generic.zone.contiguous)
    theirs = None if asked_generic is None else (lines[0] == lines[1], asked >= blocks, asked_generic >= blocks)
    return _claim(
        "S12", "the hack is confined", ours, theirs,
        lambda same, a, b: f"contiguous {_yes(a)}; generic {_yes(b)}",
        holds=ours[0], but="" if ours[1] else "; zone->contiguous is lost",
    )  # fmt: skip


_CLAIMS: dict[str, Callable[[Story], Claim]] = {
    f"S{n}": claim for n, claim in enumerate((_s1, _s2, _s3, _s4, _s5, _s6, _s7, _s8, _s9, _s10, _s11, _s12), 1)
}


# Remedies


@dataclass(frozen=True, slots=True)
class RemedyLine:
    """What a remedy came to: answers of both writes here and on the real kernel, and the state between and after them."""

    name: str
    probe: str
    online: str
    reserved: int | None
    managed: int
    contiguous: bool | None
    kernel_probe: str
    kernel_online: str
    words: str


def _two_at_once(r: Run, recording: Recording) -> int:
    """Return how many sections there are after two were added by one call, as an ACPI DIMM is, to a kernel like that of a run."""
    k = start(recording, r.remedy, r.k.pfn_valid.name)
    size = 2 << k.SECTION_SIZE_BITS
    boot.new_task(k)
    with contextlib.suppress(KernelError, KernelBugError):
        memory_hotplug.add_memory(k, 0, _ADDRESS, size)
    first = _ADDRESS >> k.SECTION_SIZE_BITS
    return sum(mmzone.valid_section(k.mem_section.get(nr)) for nr in (first, first + 1))


def _words(name: str, r: Run, recording: Recording) -> str:
    """What a remedy does, or why it fails."""
    if r.online.word != "ok" and r.block not in r.k.memory_blocks and r.probe.word == "ok":
        errors = [call.error.name for call in r.adding.find("__add_section") if isinstance(call.error, KernelError)]
        return f"no memory{r.block}: __add_pages() swallowed -{' and -'.join(errors)} of __add_section()"
    for outcome in (r.probe, r.online):
        if outcome.word != "ok":
            return outcome.reason
    if r.zone.managed_pages != r.nr_pages:
        return f"only {r.zone.managed_pages} of {r.nr_pages} pages came online"
    words = f"add; pfn_valid() asks {', '.join(r.ingredients)} ({r.k.pfn_valid.where})"
    if name in arm64_rfc_2016.REMEDIES:
        words = arm64_rfc_2016.REMEDIES[name].summary
    sections = _two_at_once(r, recording)
    return words if sections == 2 else f"of two sections added at once {sections} appears; {words}"


def remedies(story: Story) -> list[RemedyLine]:
    """Return the outcome of each remedy, as executed."""
    found = []
    for name, r in [*story.remedies.items(), (_MERGED_NAME, story.merged)]:
        kernel_probe = kernel_online = ""
        if name in story.recordings:
            kernel_probe = story.probe(name).result or "ok"
            online = story.online(name)
            kernel_online = "" if online is None else online.result or "ok"
        found.append(
            RemedyLine(
                name=name,
                probe=r.probe.word,
                online=r.online.word,
                reserved=r.reserved,
                managed=r.zone.managed_pages,
                contiguous=None if mmzone.zone_is_empty(r.zone) else r.zone.contiguous,
                kernel_probe=kernel_probe,
                kernel_online=kernel_online,
                words=_words(name, r, story.recordings.get(name, story.recordings["full"])),
            )
        )
    return found


# The page


def _shown(roots: Sequence[Call], names: Sequence[str]) -> list[Call]:
    """Return trees of `names` only, what others call moved up."""
    result: list[Call] = []
    for call in roots:
        below = [] if call.name in _LEAVES else _shown(_inside(call), names)
        if call.name in names:
            result.append(replace(call, children=below))
        else:
            result += below
    return result


def _inside(call: Call) -> list[Call]:
    """What ran directly in a call, the reserve loop's question as one call, in the order of entry."""
    inside = list(call.children)
    for label in call.labels:
        if label.name == "pfn_valid_runs" and call.name == "__add_zone":
            answers = {answer for _, answer, _ in label.note or ()}
            inside.append(replace(label, name="pfn_valid", result=answers.pop() if len(answers) == 1 else None))
    return sorted(inside, key=lambda entry: entry.begin)


def rows(story: Story) -> tuple[list[calls.Row], list[calls.Row]]:
    """Return the aligned trees of adding and of onlining: arm64 with the series left, x86_64 right."""
    return (
        calls.align(_shown(story.full.adding.tree, _ADD), _shown(story.x86.adding.tree, _ADD)),
        calls.align(_shown(story.full.onlining.tree, _ONLINE), _shown(story.x86.onlining.tree, _ONLINE)),
    )


def _answers_part(found: Sequence[calls.Row]) -> int:
    """Return the first row at which both sides ask pfn_valid() and hear different things, or -1."""
    for i, row in enumerate(found):
        if row.left and row.right and row.left.name == "pfn_valid" and row.left.result != row.right.result:
            return i
    return -1


def _margin(call: Call | None) -> str:
    """What stands beside a call: answers of pfn_valid() with who decided, pages, refusals."""
    if call is None:
        return ""
    if call.error is not None:
        return f"-{call.error.name}" if isinstance(call.error, KernelError) else "dies"
    if call.name == "pfn_valid":
        if isinstance(call.note, list):
            return "; ".join(f"{_yes(answer)} ×{pages} ({by})" for pages, answer, by in call.note)
        return f"{_yes(call.note[0])} ({call.note[1]})"
    if call.name == "memmap_init_zone":
        return f"not_early ×{sum(label.args['end'] - label.args['start'] for label in call.labelled('not_early'))}"
    if isinstance(call.note, Moment):
        return f"→ {_yes(call.note.valid)} ({call.note.by})" if call.note.changed else ""
    if call.name == "set_zone_contiguous":
        return f"contiguous: {_yes(call.note)}"
    if isinstance(call.result, bool):
        return _yes(call.result)
    return f"{call.args['nr_pages']} pages" if call.name in ("SetPageReserved", "generic_online_page") else ""


_NAME, _ANSWER, _GAP = 37, 23, " │ "


def _tree_lines(story: Story) -> Iterator[str]:
    adding, onlining = rows(story)
    answers = _answers_part(adding)
    yield _cells("arm64 with the series", "pfn_valid() (by)", "x86_64", "pfn_valid() (by)")
    yield from _titles(f"write {_ADDRESS:#x} to probe", story)
    for i, row in enumerate(adding):
        line = _row(row)
        mark = " ◄ 1" if row.parts else " ◄ 2" if i == answers else ""
        yield line.ljust(2 * (_NAME + _ANSWER) + len(_GAP)) + mark if mark else line
    yield from _titles("write online to memory{}/state", story)
    yield from map(_row, onlining)
    yield (
        "◄ 1 where the trees part  ◄ 2 the first question answered differently  → what pfn_valid() of the first pfn would say "
        "from here"
    )
    yield _held_line(story)


def held(story: Story) -> list[tuple[str, str, calls.Comparison]]:
    """Hold both trees against what ftrace recorded of the real kernels: (architecture, write, comparison)."""
    found = []
    for remedy, r in (("full", story.full), ("", story.x86)):
        for what, root, recorder in (("probe", "add_memory", r.adding), ("online", "memory_subsys_online", r.onlining)):
            found.append((r.arch, what, calls.compare(recorder.find(root), story.trace(remedy, what))))
    return found


def _held_line(story: Story) -> str:
    sides: dict[str, list[str]] = {}
    for arch, what, comparison in held(story):
        sides.setdefault(arch, []).append(f"{what} {'equal' if comparison.equal else 'DIFFERENT'} in {len(comparison.common)}")
    words = [f"{arch} {', '.join(side)}" for arch, side in sides.items()]
    return f"functions against real kernels' ftrace: {'; '.join(words)}"


def _titles(title: str, story: Story) -> Iterator[str]:
    yield _cells(title.format(story.full.block), "", title.format(story.x86.block), "")


def _row(row: calls.Row) -> str:
    indent = "  " * (row.depth + 1)
    left, right = (f"{indent}{call.name}()" if call else f"{indent}·" for call in (row.left, row.right))
    return _cells(left, _margin(row.left), right, _margin(row.right))


def _cells(name: str, answer: str, other: str, other_answer: str) -> str:
    return (name.ljust(_NAME) + answer.ljust(_ANSWER) + _GAP + other.ljust(_NAME) + other_answer).rstrip()


_STRIPS = ("memblock", "sections", "pages")


def _strip_lines(story: Story) -> Iterator[str]:
    """Time downwards, memory to the right: one line for each moment."""
    runs = (story.full, story.x86)
    heads = []
    for r in runs:
        end = ((r.pfn + r.nr_pages) << r.k.PAGE_SHIFT) - 1
        heads.append(f"{r.arch} {_ADDRESS:#x}-{end:#x}, {format_size(r.moments[0].strips.cell)} a character")
    yield f"{'memory just after':26}{heads[0]:51}{heads[1]}"
    names = "".join(f"{name:12}" for name in (*_STRIPS, "pfn_valid"))
    yield f"{'':26}{names:51}{names}".rstrip()
    moments = [{moment.after: moment for moment in r.moments} for r in runs]
    for name in moments[0]:
        cells = [_moment_cells(found.get(name)) for found in moments]
        yield f"{f'{name}()' if name else '(before)':26}{cells[0]:51}{cells[1]}".rstrip()
    used = {name: {char for r in runs for m in r.moments for char in getattr(m.strips, name)} for name in _STRIPS}
    legend = [f"{char} {words}" for name in _STRIPS for char, words in memmap.LEGEND[name].items() if char in used[name] - {"."}]
    yield f"{f'| is {_ADDRESS:#x}':26}" + "   ".join(legend)


def _moment_cells(moment: Moment | None) -> str:
    if moment is None:
        return "·"
    strips = [getattr(moment.strips, name) for name in _STRIPS]
    return "".join(f"{strip[0]}|{strip[1:]:10}" for strip in strips) + f"{_yes(moment.valid)} ({moment.by})"


def _claim_lines(story: Story) -> Iterator[str]:
    table = []
    for claim in claims(story):
        sign = {True: "=", False: "≠", None: ""}[claim.agrees]
        table.append((claim.id, claim.verdict, claim.words + claim.but, claim.run, sign, claim.kernel))
    yield from text.columns(table, header=("", "verdict", "the mail's claim", "this run", "", "real v4.9, recorded"))


def _remedy_lines(story: Story) -> Iterator[str]:
    table = []
    for line in remedies(story):
        real = " / ".join(word for word in (line.kernel_probe, line.kernel_online) if word) or _NOT_RECORDED
        reserved = "-" if line.reserved is None else str(line.reserved)
        table.append((line.name, line.probe, reserved, line.online, real, line.words))
    header = ("remedy", "probe", "Reserved", "online", "real v4.9", "what it does, or why not")
    for row in text.columns(table, header=header, right=(2,)):
        yield row if len(row) <= WIDTH else row[: WIDTH - 1] + "…"


def _short(story: Story) -> list[str]:
    """The answer in two sentences, with what decided it in this run."""

    def turns(r: Run) -> str:
        first = next((m for m in r.moments if m.changed and m.valid), None)
        if first is None:
            return f"{r.arch}: pfn_valid() never turns true"
        return f"{r.arch} at {first.after}() ({first.by}), {'with' if first.has_memmap else 'without'} a memmap"

    runs = {"generic": story.remedies["generic"], _MERGED_NAME: story.merged}
    free = [name for name, r in runs.items() if r.probe.word == r.online.word == "ok"]
    short = f"In short: for the new range pfn_valid() turns true on {turns(story.full)}; on {turns(story.x86)}."
    if free:
        short += f" With {' or '.join(free)} arm64 needs neither mark nor loop."
    return textwrap.wrap(short, WIDTH)


def as_json(name: str, story: Story) -> dict[str, Any]:
    """Return all that the page says, as plain data."""
    adding, onlining = rows(story)
    answers = _answers_part(adding)

    def side(call: Call | None) -> dict[str, Any] | None:
        if call is None:
            return None
        return {"function": call.name, "file": call.file, "args": call.args, "margin": _margin(call)}

    def tree(found: Sequence[calls.Row]) -> list[dict[str, Any]]:
        return [{"depth": row.depth, "arm64": side(row.left), "x86_64": side(row.right)} for row in found]

    def moments(r: Run) -> list[dict[str, Any]]:
        return [
            {"after": m.after, "pfn_valid": m.valid, "by": m.by, "section_present": m.present, "section_has_memmap": m.has_memmap,
             "strips": m.strips.json()}
            for m in r.moments
        ]  # fmt: skip

    return {
        "story": name,
        "question": QUESTION,
        "in_short": " ".join(_short(story)),
        "add": tree(adding),
        "online": tree(onlining),
        "trees_part_at": next((i for i, row in enumerate(adding) if row.parts), None),
        "answers_part_at": answers if answers >= 0 else None,
        "call_order": [
            {"arch": arch, "write": what, "equal": c.equal, "difference": c.difference, "functions": list(c.common)}
            for arch, what, c in held(story)
        ],
        "moments": {r.arch: moments(r) for r in (story.full, story.x86)},
        "claims": [asdict(claim) for claim in claims(story)],
        "remedies": [asdict(line) for line in remedies(story)],
        "next": NEXT,
    }


def page(story: Story) -> list[str]:
    """Return the first screen."""
    lines = [*textwrap.wrap(QUESTION, WIDTH), "", *_short(story), ""]
    lines += [*_tree_lines(story), ""]
    lines += [*_strip_lines(story), ""]
    lines += [*_claim_lines(story), ""]
    lines += [*_remedy_lines(story), ""]
    lines.append(f"next: {NEXT}   (a machine of your own, to add to and to ask)")
    return lines
