# SPDX-License-Identifier: GPL-2.0-only
"""
Hold the model against what real kernels answered, and keep tests/scenarios/known.toml.

    python tools/judge_answers.py                          every scenario of every kernel that is modelled: what differs
    python tools/judge_answers.py 'v6.12-arm64/any/*'      some of them, with every difference
    python tools/judge_answers.py --strike                 strike from known.toml what does not differ any more; note what boots
    python tools/judge_answers.py --add CAUSE 'v6.12-*/any/virtio-mem-*'    add what differs and is not known, with its cause

Needs no QEMU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import answers
from tests.answers import Recording
from tests.judge import KNOWN, Verdict, boots, judge, replay

HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
# Where the model is known to answer otherwise than a real kernel, and why: causes, and below each the answers, KERNEL/SCENARIO.
# What does not differ any more must be struck off: the test fails until it is. tools/judge_answers.py does both.
# `modelled`: the kernels that the model can boot.
"""


def main(argv: list[str] | None = None) -> int:
    """Print or write down what differs; the exit code is 1 if something does that is not known."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="KERNEL/SCENARIO", help="which, as patterns")
    parser.add_argument("--strike", action="store_true", help="strike off what does not differ any more")
    parser.add_argument("--add", metavar="CAUSE", help="add what differs, with its cause")
    args = parser.parse_args(argv)
    known = read_known()
    unknown = checked = compared = aside = 0
    skipped = {name: why for name, kernel in answers.KERNELS.items() if (why := boots(kernel))}
    for recording in recordings(args.names):
        where = f"{recording.kernel.name}/{recording.name}"
        if recording.kernel.name in skipped:
            continue
        verdict, found = differences(recording)
        checked += 1
        compared += verdict.compared
        aside += verdict.aside
        cause = known.get(where, "")
        if not found:
            if cause:
                print(f"{where}: does not differ any more")
                if args.strike:
                    del known[where]
            continue
        if args.add and where not in known:
            known[where] = args.add
        if not known.get(where):
            unknown += 1
        if args.names or not cause:
            print(f"{where}: {len(found)} differences{f' ({known[where]})' if where in known else ''}")
            for words in found[: 40 if args.names else 3]:
                print(f"    {words}")
            if args.names:
                print(f"    {replay(recording)}")
    for kernel, why in skipped.items():
        print(f"{kernel}: {why}")
    print(f"{checked} scenarios asked: {compared} steps compared, {aside} set aside")
    print(f"{unknown} differ and are not known, {len(known)} are")
    if args.strike or args.add:
        write_known(known, [name for name in answers.KERNELS if name not in skipped])
    return int(unknown > 0)


def recordings(names: list[str]) -> Iterator[Recording]:
    """Yield the recordings whose names match, or all."""
    for kernel in answers.KERNELS.values():
        boots = answers.read_boots(kernel)
        found = (answers.load(kernel, name, boots) for name in answers.scenarios(kernel))
        for recording in (*found, *answers.load_random(kernel, boots).values()):
            if recording is not None and not recording.stale:
                where = f"{kernel.name}/{recording.name}"
                if not names or any(fnmatchcase(where, name) for name in names):
                    yield recording


def differences(recording: Recording) -> tuple[Verdict, list[str]]:
    """Return how the model did, and in words where it differs; an exception of the model is a difference."""
    try:
        verdict = judge(recording)
    except Exception as err:
        return Verdict((), 0, 0), [repr(err)]
    return verdict, [str(difference) for difference in verdict.found]


def read_known() -> dict[str, str]:
    """Return what is known to differ: KERNEL/SCENARIO -> cause."""
    entries = tomllib.loads(KNOWN.read_text(encoding="utf-8")).get("differs", [])
    return {where: entry["cause"] for entry in entries for where in entry["where"]}


def write_known(known: dict[str, str], modelled: list[str]) -> None:
    """Write down what is known to differ, and what is modelled."""
    lines = [f"{HEAD}modelled = {json.dumps(modelled)}\n"]
    for cause in sorted(set(known.values())):
        where = sorted(name for name in known if known[name] == cause)
        lines.append(f"[[differs]]\ncause = {json.dumps(cause, ensure_ascii=False)}\nwhere = [\n")
        lines += [f'    "{name}",\n' for name in where]
        lines.append("]\n")
    text = "".join(lines[:1]) + "".join(f"\n{line}" if line.startswith("[[") else line for line in lines[1:])
    KNOWN.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
