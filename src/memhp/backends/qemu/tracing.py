# SPDX-License-Identifier: GPL-2.0-only
"""
Call trees of a guest: ftrace's function_graph, switched on around a step.

The kernel prints the calls of all CPUs and tasks in one file. Here they are put apart: a text for each task, with nothing but
names, nesting and the closing braces' names, as `memhp.report.calls.read_trace()` reads it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from memhp.backends.qemu.guest import Guest
from memhp.errors import BackendError

TRACING = "/sys/kernel/tracing"
BUFFER = 32 << 10
"""KiB of the buffer of each CPU."""
DEPTH = 40

_LINE = re.compile(r" *[^|]*?-([0-9]+) +\| (.*)")
_LOST = re.compile(r"LOST [0-9]+ EVENTS")

_ON = """
cd {tracing} || exit 1
echo 0 >tracing_on
echo nop >current_tracer
echo >set_graph_function
for f in {functions}; do
    grep -q -x "$f" available_filter_functions && echo "$f" >>set_graph_function && found=1
done
[ "$found" ] || exit 2
echo function_graph >current_tracer || exit 1
echo {buffer} >buffer_size_kb
echo {depth} >max_graph_depth
for option in funcgraph-irqs funcgraph-duration funcgraph-overhead funcgraph-cpu funcgraph-retval sleep-time; do
    [ -e options/$option ] && echo 0 >options/$option
done
for option in funcgraph-proc funcgraph-tail; do echo 1 >options/$option; done
echo >trace
echo 1 >tracing_on
"""
_OFF = """
cd {tracing}
echo 0 >tracing_on
cat trace
echo nop >current_tracer
echo >set_graph_function
echo 1 >buffer_size_kb
"""


@contextlib.contextmanager
def traced(guest: Guest, functions: Sequence[str]) -> Iterator[list[str]]:
    """Trace what these functions call inside the `with` block; afterwards the list holds a text for each task."""
    code, said = guest.run(_ON.format(tracing=TRACING, functions=" ".join(functions), buffer=BUFFER, depth=DEPTH), 300.0)
    if code:
        why = "it has none of these functions" if code == 2 else "it has no function_graph tracer"
        raise BackendError(f"this kernel cannot be traced: {why}", output=said.decode("utf-8", "replace"))
    texts: list[str] = []
    try:
        yield texts
    finally:
        _, data = guest.run(_OFF.format(tracing=TRACING), 300.0)
        texts += by_task(data.decode("utf-8", "replace"))


def by_task(trace: str) -> list[str]:
    """
    Return the text of each task of a trace that names them, in the order in which tasks come.

    Raises:
        BackendError: the kernel's buffer was too small, and lines are lost.

    >>> by_task(" sh-12    |  f() {\\n kworker/0:1-7    |  g();\\n sh-12    |  } /* f */\\n")
    [' f() {\\n } /* f */\\n', ' g();\\n']
    """
    if _LOST.search(trace):
        raise BackendError("the trace is not whole: the kernel's buffer was too small for these calls")
    texts: dict[str, list[str]] = {}
    for line in trace.splitlines():
        match = None if line.startswith("#") else _LINE.match(line)
        if match:
            texts.setdefault(match[1], []).append(f"{match[2]}\n")
    return ["".join(lines) for lines in texts.values()]
