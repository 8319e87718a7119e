# SPDX-License-Identifier: GPL-2.0-only
"""
Call trees: reading those of real kernels, holding the model's against them, and two of them side by side.

A real kernel's tree comes from ftrace's function_graph. `read_trace()` turns its text into the same `Call`s that
`memhp.linux.ftrace` records, so that one comparison serves both. What a recorded trace needs before it is a tree:

* *folds*: "the 3 line(s) above: 26 times in a row" stands for lines that were left out; they are put back;
* *repeats*: a reader that was too slow makes v4.9 print a passage again. A closing brace that names its function
  (`} /* device_add */`) shows where the reader went back to; what is printed a second time is dropped;
* *gaps*: where lines are lost, indentation still tells the depth, and closing braces name the calls that were missed;
* *noise*: timer interrupts and what other tasks do while this one sleeps are cut out.

`compare()` then asks one question: do the functions that both kernels have occur in the same order and nesting?
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from memhp.linux.ftrace import Call

INTERRUPTS = frozenset((
    "gic_handle_irq", "__handle_domain_irq", "handle_IPI", "do_IRQ", "smp_apic_timer_interrupt", "smp_irq_work_interrupt",
    "smp_reschedule_interrupt", "irq_enter", "irq_exit", "__do_softirq", "do_softirq",
))  # fmt: skip
"""Functions that an interrupt enters; not part of what is traced."""

SLEEPS = frozenset(("schedule", "__schedule", "preempt_schedule_irq"))
"""Functions inside which other tasks run."""

PRIMITIVES = frozenset((
    "mutex_lock", "mutex_trylock", "mutex_unlock", "printk", "__alloc_pages_nodemask", "get_page_from_freelist", "__rmqueue",
    "__free_pages", "set_pageblock_migratetype", "set_pfnblock_flags_mask", "blocking_notifier_call_chain",
))  # fmt: skip
"""Functions that everybody calls. Inside a function that the model does not have they are that function's own business."""

OPAQUE = frozenset(("__alloc_pages_nodemask", "get_page_from_freelist", "__free_pages_ok", "free_hot_cold_page"))
"""Functions whose inside depends on everything that ran before: which free list answers, what merges."""

MISSED = "?"
"""Name of a call whose beginning and end are both missing from a trace."""

_FOLD = re.compile(r"/\* the (\d+) line\(s\) above: (\d+) times in a row \*/")
_ENTRY = re.compile(r"( *)([A-Za-z_][\w.]*)\(\)(;| \{)")
_EXIT = re.compile(r"( *)\}(?: /\* ([\w.]+) \*/)?")
_SUFFIX = re.compile(r"(\.(constprop|isra|part|cold)\.\d+)+$")
_FRAME = re.compile(r"\[<[0-9a-f]+>\] ([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_LINK = re.compile(r"LR is at ([A-Za-z_][\w.]*)\+0x")


def c_name(symbol: str) -> str:
    """
    Return a symbol's C name: without what the compiler appends to its own copies of a function.

    >>> c_name("__init_single_pfn.isra.0"), c_name("split_mem_range.constprop.0")
    ('__init_single_pfn', 'split_mem_range')
    """
    return _SUFFIX.sub("", symbol)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a trace: its depth, and "call", "enter" or "leave"; `name` is "" for a bare closing brace."""

    depth: int
    kind: str
    name: str

    def like(self, other: _Line) -> bool:
        """The same line; a closing brace may name its function or not."""
        if (self.depth, self.kind) != (other.depth, other.kind):
            return False
        return self.name == other.name or (self.kind == "leave" and not (self.name and other.name))


def unfold(lines: Iterable[str]) -> list[str]:
    """
    Put back the lines that folds stand for.

    Raises:
        ValueError: a fold of more lines than stand above it.

    >>> unfold(["a();", "b();", " /* the 2 line(s) above: 2 times in a row */"])
    ['a();', 'b();', 'a();', 'b();']
    """
    result: list[str] = []
    for line in lines:
        fold = _FOLD.search(line)
        if fold is None:
            result.append(line)
            continue
        count, times = int(fold[1]), int(fold[2])
        if not 0 < count <= len(result):
            raise ValueError(f"{line.strip()!r} stands after {len(result)} lines")
        if count * times > 1 << 20:
            raise ValueError(f"{line.strip()!r} stands for more than {1 << 20} lines")
        result += result[-count:] * (times - 1)
    return result


def graph(text: str) -> list[str]:
    """Return the lines of the "### graph" part of a recorded trace, unfolded; of a text without such a part, all lines."""
    _, mark, rest = text.partition("### graph\n")
    lines = (rest if mark else text).splitlines()
    if mark:
        for i, line in enumerate(lines):
            if line.startswith("### "):
                del lines[i:]
                break
    return unfold(line for line in lines if not line.startswith("#"))


def _lines(text: str) -> list[_Line]:
    """Return the calls and closing braces of a trace."""
    found: list[_Line] = []
    for line in graph(text):
        entry = _ENTRY.fullmatch(line.rstrip())
        if entry is not None:
            found.append(_Line(len(entry[1]) // 2, "enter" if entry[3] == " {" else "call", c_name(entry[2])))
            continue
        leave = _EXIT.fullmatch(line.rstrip())
        if leave is not None:
            found.append(_Line(len(leave[1]) // 2, "leave", c_name(leave[2] or "")))
    return found


def _without_interrupts(lines: Sequence[_Line]) -> list[_Line]:
    """
    Drop what interrupts ran.

    Of an interrupt whose beginning was not printed only its named closing brace is left, with deeper lines before it.
    """
    kept: list[_Line] = []
    skip = -1
    for line in lines:
        if skip >= 0:
            if line.depth > skip:
                continue
            ended, skip = line.depth == skip and line.kind == "leave", -1
            if ended:
                continue
        if line.name not in INTERRUPTS:
            kept.append(line)
        elif line.kind == "enter":
            skip = line.depth
        elif line.kind == "leave":
            while kept and kept[-1].depth > line.depth:
                kept.pop()
    return kept


class _Passage:
    """
    The lines of a trace without what is printed a second time.

    Attributes:
        kept: The lines so far; closing braces name their function.
    """

    def __init__(self) -> None:
        self.kept: list[_Line] = []
        self._open: dict[int, str] = {}
        self._at: dict[tuple[int, str], list[int]] = {}

    def append(self, line: _Line) -> None:
        """Keep a line."""
        if line.kind == "leave" and not line.name:
            line = replace(line, name=self._open.get(line.depth, ""))
        for depth in [d for d in self._open if d >= line.depth]:
            del self._open[depth]
        if line.kind == "enter":
            self._open[line.depth] = line.name
        self._at.setdefault((line.depth, line.kind), []).append(len(self.kept))
        self.kept.append(line)

    def follows(self, line: _Line) -> bool:
        """Whether `line` can stand here: its depth fits, and a closing brace closes what is open."""
        if not self.kept:
            return True
        last = self.kept[-1]
        inside = last.depth + 1 if last.kind == "enter" else last.depth
        if line.kind != "leave":
            return line.depth == inside
        return line.depth == inside - 1 and line.name in ("", self._open.get(line.depth))

    def repeated(self, lines: Sequence[_Line], i: int) -> int:
        """
        Return how many lines from `lines[i]` on were printed before; 0 if the reader did not go back.

        It went back to an earlier place if what follows repeats everything from there on. Of several places the earliest is
        taken, for a long passage does not come twice by chance. A closing brace that names its function stands for the end of
        that function's call, wherever in it the reader arrived.
        """
        line = lines[i]
        if line.kind == "leave" and line.name:
            places = sorted(self._at.get((line.depth, "call"), []) + self._at.get((line.depth, "leave"), []))
            least = 0
        else:
            places = self._at.get((line.depth, line.kind), [])
            least = 4
        for place in places:
            length = len(self.kept) - place
            if length < least or i + length > len(lines):
                continue
            if self.kept[place].name not in ("", line.name) and line.name:
                continue
            if all(self.kept[place + n].like(lines[i + n]) for n in range(1, length)):
                return length
        return 0


def _without_repeats(lines: Sequence[_Line]) -> list[_Line]:
    """Drop what is printed a second time."""
    passage = _Passage()
    i = 0
    while i < len(lines):
        again = 0 if passage.follows(lines[i]) else passage.repeated(lines, i)
        if again:
            i += again
        else:
            passage.append(lines[i])
            i += 1
    return passage.kept


def read_trace(text: str) -> list[Call]:
    """
    Return the call trees of a function_graph text: C names, order and nesting, nothing else.

    Counts are not to be trusted where a trace was folded by passages, lost lines, or left functions out; recorded profiles
    have counts.

    Raises:
        ValueError: a fold that stands for more lines than there are.
    """
    lines = _without_repeats(_without_interrupts(_lines(text)))
    base = min((line.depth for line in lines), default=0)
    top = Call("")
    stack = [top]

    def reach(depth: int) -> None:
        """Open calls that were missed until `depth` of them are open."""
        while len(stack) < depth:
            missed = Call(MISSED)
            stack[-1].children.append(missed)
            stack.append(missed)

    for line in lines:
        depth = line.depth - base + 1
        if line.kind == "leave":
            # A closing brace deeper than anything open: the calls above it were missed too.
            reach(depth + 1)
            if line.name and stack[depth].name == MISSED:
                stack[depth].name = line.name
            del stack[depth:]
            continue
        del stack[depth:]
        reach(depth)
        call = Call(line.name)
        stack[-1].children.append(call)
        if line.kind == "enter":
            stack.append(call)
    return _without_noise(top.children)


def _without_noise(calls: Sequence[Call]) -> list[Call]:
    """Return the trees without what ran while the task slept; a missed call's children move up."""
    result: list[Call] = []
    for call in calls:
        children = [] if call.name in SLEEPS else _without_noise(call.children)
        if call.name == MISSED:
            result += children
        else:
            result.append(replace(call, children=children))
    return result


def read_backtrace(text: str) -> list[str]:
    """
    Return the functions of the first oops in a kernel log, outermost first; the last is the one that died.

    arm64 unwinds from the frame pointer, which a leaf function does not set up: its caller is where the link register points.
    """
    start = min((at for at in map(text.find, ("Unable to handle kernel paging", "kernel BUG at")) if at >= 0), default=-1)
    registers, trace, rest = text[start:].partition("Call trace:") if start >= 0 else ("", "", "")
    found: list[str] = []
    for line in rest.splitlines() if trace else ():
        frame = _FRAME.search(line)
        if frame is not None:
            found.append(c_name(frame[1]))
        elif "Code: " in line or "end trace" in line:
            break
    link = _LINK.search(registers)
    if link is not None and c_name(link[1]) not in found[:2]:
        found.insert(1, c_name(link[1]))
    return found[::-1]


def names(calls: Iterable[Call]) -> set[str]:
    """Return the functions that occur in some trees."""
    return {entry.name for call in calls for entry in call.walk()}


def splice(
    calls: Sequence[Call], known: Collection[str], *, primitives: Collection[str] = (), opaque: Collection[str] = ()
) -> list[Call]:
    """
    Return the trees with the functions of `known` only; the children of others move up.

    Args:
        calls: The trees.
        known: Names that stay.
        primitives: Names that stay only where their caller does.
        opaque: Names that lose what is below them.
    """

    def cut(calls: Sequence[Call], caller_stays: bool) -> list[Call]:
        result: list[Call] = []
        for call in calls:
            below = () if call.name in opaque else call.children
            if call.name not in known:
                result += cut(below, False)
            elif caller_stays or call.name not in primitives:
                result.append(replace(call, children=cut(below, True)))
        return result

    return cut(calls, True)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A call's name and what is below it, folded; two equal shapes are the same calls."""

    name: str
    children: tuple[_Shape, ...] = ()


def _shape(calls: Sequence[Call]) -> tuple[_Shape, ...]:
    """Return names and nesting, with immediate repeats of a call or of a group of calls folded into one."""
    return _fold([_Shape(call.name, _shape(call.children)) for call in calls])


def _fold(shapes: list[_Shape]) -> tuple[_Shape, ...]:
    """Fold `a a a` and `a b a b` into one, shortest groups first, until nothing repeats."""
    changed = True
    while changed:
        changed = False
        for size in range(1, len(shapes) // 2 + 1):
            i = 0
            while i + 2 * size <= len(shapes):
                if shapes[i : i + size] == shapes[i + size : i + 2 * size]:
                    del shapes[i + size : i + 2 * size]
                    changed = True
                else:
                    i += 1
            if changed:
                break
    return tuple(shapes)


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    A model's call tree held against a recorded one.

    Attributes:
        difference: The first place where order or nesting differ, in words with both contexts; "" if there is none.
        common: Functions that occur in both.
        kernel_only: Functions of the recording that the model does not have: not modelled.
        model_only: Functions of the model that this recording cannot show: inlined by the compiler or left out by the tracer.
        differences: All of them, the first included.
        inlined: (caller, function) of one C file, where the model calls a function that the kernel shows elsewhere only: the
            compiler made a copy of its own there.
    """

    difference: str
    common: tuple[str, ...]
    kernel_only: tuple[str, ...]
    model_only: tuple[str, ...]
    inlined: tuple[tuple[str, str], ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return not self.difference


def compare(
    model: Sequence[Call],
    recorded: Sequence[Call],
    *,
    modelled: Collection[str] = (),
    traceable: Collection[str] = (),
    primitives: Collection[str] = PRIMITIVES,
    opaque: Collection[str] = OPAQUE,
    counted: Collection[str] | None = None,
) -> Comparison:
    """
    Hold a model's call tree against a real kernel's.

    Only functions that both have count; others are spliced out of both trees and immediate repeats are folded. Then order and
    nesting must be equal.

    Args:
        model: Trees of the model.
        recorded: Trees of the kernel.
        modelled: Further functions that the model has, though they did not run: if the kernel ran one, that is a difference.
        traceable: Further functions that this kernel's tracer can show: if the model ran one and the kernel did not, likewise.
        primitives: Functions that count only where their caller does.
        opaque: Functions whose inside does not count.
        counted: The only functions of the kernel that count at all, or None.
    """
    has_model = names(model) | set(modelled)
    has_kernel = names(recorded) | set(traceable)
    if counted is not None:
        has_kernel &= set(counted)
    known = has_model & has_kernel
    theirs = splice(recorded, known, primitives=primitives, opaque=opaque)
    shown = pairs(theirs)
    # Pairs that the kernel shows with something between that the model does not have. It may be a part of the caller, or
    # something else that the caller runs, too: then the call that the model shows was inlined.
    doubtful = shown - pairs(recorded)
    whole, right = splice(model, known, opaque=opaque), _Shape("", _shape(theirs))

    def attempt(shown: Collection[tuple[str, str]]) -> tuple[list[_Parting], set[tuple[str, str]]]:
        ours, found = _inline(whole, None, shown)
        return list(_partings(_Shape("", _shape(ours)), right, ())), found

    partings, inlined = attempt(shown)
    while True:
        pair = next((parting.pair for parting in partings if parting.pair in doubtful), None)
        if pair is None:
            break
        doubtful.discard(pair)
        fewer, found = attempt(shown - {pair})
        if len(fewer) < len(partings) or (fewer and fewer[0].place > partings[0].place):
            partings, inlined, shown = fewer, found, shown - {pair}
    return Comparison(
        difference=partings[0].words if partings else "",
        differences=tuple(parting.words for parting in partings),
        common=tuple(sorted(names(model) & names(recorded) & has_kernel)),
        kernel_only=tuple(sorted((names(recorded) & has_kernel) - has_model)),
        model_only=tuple(sorted(names(model) - has_kernel)),
        inlined=tuple(sorted(inlined)),
    )


def pairs(calls: Iterable[Call]) -> set[tuple[str, str]]:
    """Return who calls whom in some trees."""
    return {(caller.name, call.name) for root in calls for caller in root.walk() for call in caller.children}


def _inline(
    calls: Sequence[Call], caller: Call | None, shown: Collection[tuple[str, str]]
) -> tuple[list[Call], set[tuple[str, str]]]:
    """
    Splice out calls inside one C file that the kernel does not show there, and return them as (caller, function).

    A function that other files call too has a copy of its own, which the tracer shows, and may be inlined in its own file.
    """
    result: list[Call] = []
    inlined: set[tuple[str, str]] = set()
    for call in calls:
        if caller is not None and call.file and call.file == caller.file and (caller.name, call.name) not in shown:
            inlined.add((caller.name, call.name))
            below, more = _inline(call.children, caller, shown)
            result += below
        else:
            below, more = _inline(call.children, call, shown)
            result.append(replace(call, children=below))
        inlined |= more
    return result, inlined


@dataclass(frozen=True, slots=True)
class _Parting:
    """
    Where two trees part first.

    Attributes:
        place: Numbers of the calls that lead there: of two, the smaller one comes first.
        path: Their names.
        ours: What the model enters there; "" if it returns.
        words: All of it in words, with both contexts.
    """

    place: tuple[int, ...]
    path: tuple[str, ...]
    ours: str
    words: str

    @property
    def pair(self) -> tuple[str, str]:
        """Who calls whom in the model there."""
        return self.path[-1] if self.path else "", self.ours


def _partings(model: _Shape, kernel: _Shape, path: tuple[str, ...], place: tuple[int, ...] = ()) -> Iterator[_Parting]:
    """Yield every difference below two calls of the same name; below calls that only one of them makes nothing is compared."""
    ours, theirs = ([call.name for call in shape.children] for shape in (model, kernel))
    for tag, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if tag == "equal":
            for i, j in zip(range(a, b), range(c, d), strict=True):
                yield from _partings(model.children[i], kernel.children[j], (*path, ours[i]), (*place, i))
            continue
        words = (
            f"in {' > '.join(path) or 'the start of the trace'}, call {a + 1}: "
            f"the kernel {_ran(kernel, c)}, the model {_ran(model, a)}\n"
            f"  kernel: {_context(kernel, c)}\n"
            f"  model:  {_context(model, a)}"
        )
        yield _Parting((*place, a), path, ours[a] if a < len(ours) else "", words)


def _ran(parent: _Shape, i: int) -> str:
    if i < len(parent.children):
        return f"enters {parent.children[i].name}()"
    return f"returns after {parent.children[i - 1].name}()" if i else "calls nothing"


def _context(parent: _Shape, i: int) -> str:
    """The calls around number `i`, the place marked."""
    start, end = max(0, i - 3), min(len(parent.children), i + 4)
    around = [("» " if j == i else "") + parent.children[j].name for j in range(start, end)]
    if i >= len(parent.children):
        around.append("» (end)")
    return ("…, " if start else "") + ", ".join(around) + (", …" if end < len(parent.children) else "")


# Two trees side by side


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of two aligned trees.

    Attributes:
        depth: Nesting.
        left, right: The call on that side, or None where only the other side has it.
        parts: The first line at which the sides part.
    """

    depth: int
    left: Call | None
    right: Call | None
    parts: bool = False


def align(left: Sequence[Call], right: Sequence[Call]) -> list[Row]:
    """
    Align two trees by names; the first line that one side lacks, or at which both sides answer differently, is marked.

    Answers that count are those of predicates (bool), refusals and deaths; numbers differ between any two machines.
    """
    rows = list(_align(left, right, 0))
    for i, row in enumerate(rows):
        if row.left is None or row.right is None or _answer(row.left) != _answer(row.right):
            rows[i] = replace(row, parts=True)
            break
    return rows


def _answer(call: Call) -> tuple[bool, bool | None]:
    return call.raised, call.result if isinstance(call.result, bool) else None


def _align(left: Sequence[Call], right: Sequence[Call], depth: int) -> Iterator[Row]:
    matcher = SequenceMatcher(None, [call.name for call in left], [call.name for call in right], autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            for ours, theirs in zip(left[a:b], right[c:d], strict=True):
                yield Row(depth, ours, theirs)
                yield from _align(ours.children, theirs.children, depth + 1)
        else:
            for ours in left[a:b]:
                yield Row(depth, ours, None)
                yield from _align(ours.children, (), depth + 1)
            for theirs in right[c:d]:
                yield Row(depth, None, theirs)
                yield from _align((), theirs.children, depth + 1)
