# SPDX-License-Identifier: GPL-2.0-only
"""
Ask real kernels the scenarios of tests/scenarios, and keep what they answer in tests/data/answers.

    python -m tools.record_answers                       every answer that is missing, or whose scenario has changed since
    python -m tools.record_answers 'v6.12-arm64*' 'any/*'    kernels and scenarios by name; --again asks even what is known
    python -m tools.record_answers --list                what would be asked
    python -m tools.record_answers --show v6.12-arm64 any/life   an answer in words

Every scenario meets a freshly booted machine: one is booted for all that boot alike, saved, and started from there.
"""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import answers
from tests.answers import JudgeKernel
from tests.judge import ask
from tests.snapshots import Guests

from memhp import scenario
from memhp.backends.base import QemuURL
from memhp.checker.differential import Look
from memhp.errors import MemhpError
from memhp.scenario import Scenario, describe


def main(argv: list[str] | None = None) -> int:
    """Ask, list or show; the exit code is 1 if a machine could not be asked."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a kernel such as v6.12-arm64, or a scenario such as any/life")
    parser.add_argument("--again", action="store_true", help="ask also what is known already")
    parser.add_argument("--list", action="store_true", help="say what would be asked")
    parser.add_argument("--show", action="store_true", help="show what was answered")
    args = parser.parse_args(argv)
    kernels = [name for name in answers.KERNELS if _chosen(name, [word for word in args.names if "/" not in word])]
    words = [word for word in args.names if "/" in word]
    failed = 0
    with Guests() as guests:
        for kernel in (answers.KERNELS[name] for name in kernels):
            boots = answers.read_boots(kernel)
            for name, script in _wanted(kernel, words):
                known = answers.load(kernel, name, boots)
                if args.show:
                    if known is not None:
                        show(known)
                    continue
                if known is not None and not known.stale and not args.again:
                    continue
                if args.list:
                    print(kernel.name, name)
                    continue
                begun = time.monotonic()
                try:
                    outcome = record(guests, kernel, name, script, boots)
                except MemhpError as err:
                    outcome, failed = f"{type(err).__name__}: {err}", 1
                print(f"{kernel.name} {name}: {outcome} ({time.monotonic() - begun:.0f} s)", flush=True)
    return failed


def _wanted(kernel: JudgeKernel, words: list[str]) -> list[tuple[str, Scenario]]:
    """Return the scenarios asked for by name, those that boot alike together."""
    found = [(name, scenario.load(path)) for name, path in answers.scenarios(kernel).items() if _chosen(name, words)]
    return sorted(found, key=lambda item: (item[1].machine, str(item[1].devices), item[0]))


def _chosen(name: str, words: list[str]) -> bool:
    return not words or any(fnmatchcase(name, word) for word in words)


def record(guests: Guests, kernel: JudgeKernel, name: str, script: Scenario, boots: dict[str, Look]) -> str:
    """Do a scenario on a fresh machine and write the answer down; returns the answers as one line."""
    recording = ask(guests, kernel, name, script)
    url = kernel.url(script, QemuURL)
    assert isinstance(url, QemuURL)
    key = answers.boot_key(script, url)
    look = recording.observed[0].look
    remark = ""
    if boots.get(key, look) != look:
        # Firmware may lie elsewhere: then this boot gets a name of its own.
        key, remark = f"{key} {name}", "; not booted as others were"
    boots[key] = look
    answers.write_boots(kernel, boots)
    answers.save(kernel, name, script, release=recording.release, url=recording.url, boot=key, observed=recording.observed)
    return " ".join(one.answer.word for one in recording.observed[1:]) + remark


def show(recording: answers.Recording) -> None:
    """Print an answer in words: each step, what it was answered, and what changed."""
    print(f"{recording.kernel.name} {recording.name}: {recording.script.title}{' (STALE)' if recording.stale else ''}")
    print(f"  {recording.url}: {recording.release}")
    before: Look = recording.observed[0].look
    for one in recording.observed[1:]:
        assert one.step is not None
        print(f"{one.number:3} {describe(one.step)}: {one.answer.word}")
        for line in one.answer.log:
            print(f"      | {line}")
        for (file, item), fields in sorted(one.look.items()):
            was = before.get((file, item))
            if was != fields:
                changed = fields if was is None else {name: fields[name] for name in fields if was.get(name) != fields[name]}
                print(f"      {file} {item}: {'new ' if was is None else ''}{changed}")
        for file, item in sorted(set(before) - set(one.look)):
            print(f"      {file} {item}: gone")
        before = one.look
    print()


if __name__ == "__main__":
    sys.exit(main())
