# SPDX-License-Identifier: GPL-2.0-only
"""
Ask real kernels scenarios that chance makes, and keep what they answer; make small what a model answers otherwise.

    python tools/random_answers.py ask v6.12-arm64 300     the seeds 0 to 299; those known already are left out
    python tools/random_answers.py shrink v6.12-arm64 17   the fewest steps of seed 17 that still differ, as a scenario

Shrinking asks the real kernel anew for each attempt. What the model answers otherwise, tools/judge_answers.py says.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import answers
from tests.answers import JudgeKernel, Recording
from tests.judge import ask, judge
from tests.random_scenarios import make_for
from tests.snapshots import Guests

from memhp import scenario
from memhp.backends.base import QemuURL
from memhp.checker.differential import Look
from memhp.errors import MemhpError
from memhp.scenario import Scenario

_EACH = 10
"""Answers after which they are written down."""


def main(argv: list[str] | None = None) -> int:
    """Do what is asked; the exit code is 0."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("what", choices=("ask", "shrink"))
    parser.add_argument("kernel", choices=sorted(answers.KERNELS))
    parser.add_argument("number", nargs="?", type=int, default=300, help="how many seeds, or which")
    args = parser.parse_args(argv)
    kernel = answers.KERNELS[args.kernel]
    if args.what == "ask":
        ask_all(kernel, args.number)
    else:
        print(scenario.dumps(shrink(kernel, make_for(kernel, args.number))))
    return 0


def ask_all(kernel: JudgeKernel, count: int) -> None:
    """Ask a kernel the seeds below `count`; those that boot alike together."""
    boots = answers.read_boots(kernel)
    known = answers.load_random(kernel, boots)
    wanted = [(seed, make_for(kernel, seed)) for seed in range(count) if seed not in known]
    wanted.sort(key=lambda item: (item[1].machine, str(item[1].devices), item[0]))
    begun = time.monotonic()
    with Guests() as guests:
        for number, (seed, script) in enumerate(wanted, 1):
            try:
                recording = ask(guests, kernel, f"random/{seed}", script)
            except MemhpError as err:
                print(f"{kernel.name} {seed}: {type(err).__name__}: {err}", flush=True)
                continue
            _note_boot(boots, recording)
            known[seed] = recording
            print(f"{kernel.name} {seed}: {' '.join(one.answer.word for one in recording.observed[1:])}", flush=True)
            if number % _EACH == 0 or number == len(wanted):
                answers.write_boots(kernel, boots)
                answers.save_random(kernel, known, boots)
                print(f"{kernel.name}: {number} of {len(wanted)}, {(time.monotonic() - begun) / number:.1f} s each", flush=True)


def _note_boot(boots: dict[str, Look], recording: Recording) -> None:
    url = recording.kernel.url(recording.script, QemuURL)
    assert isinstance(url, QemuURL)
    key = answers.boot_key(recording.script, url)
    look = recording.observed[0].look
    if boots.setdefault(key, look) != look:
        boots[f"{key} {recording.name}"] = look


def shrink(kernel: JudgeKernel, script: Scenario) -> Scenario:
    """Return a scenario with as few steps of this one as still make the model differ from the kernel."""
    with Guests() as guests:

        def differs(candidate: Scenario) -> bool:
            try:
                return bool(judge(ask(guests, kernel, "random/shrink", candidate)).found)
            except MemhpError:
                raise
            except Exception:
                return True

        if not differs(script):
            raise SystemExit("it does not differ")
        size = len(script.steps) // 2
        while size:
            at = 0
            while at < len(script.steps):
                candidate = dataclasses.replace(script, steps=script.steps[:at] + script.steps[at + size :])
                if candidate.steps and differs(candidate):
                    script = candidate
                    print(f"{len(script.steps)} steps", file=sys.stderr, flush=True)
                else:
                    at += size
            size //= 2
    return script


if __name__ == "__main__":
    sys.exit(main())
