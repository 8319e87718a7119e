# SPDX-License-Identifier: GPL-2.0-only
"""
What real kernels answered to the scenarios of tests/scenarios, kept as data in tests/data/answers.

A scenario stands in the folder that says where it applies: `any` (every kernel with blocks of 128 MiB, and whatever its pages),
`arm64` and `x86_64` (addresses and block numbers of that platform), `gib` (kernels with blocks of 1 GiB). Its `machine` says how
to boot; which kernel boots is `KERNELS`' word.

An answer is `tests/data/answers/KERNEL/SCENARIO.jsonl`, one JSON object a line. The first says what was run: `scenario`,
`digest` (of its text), `url`, `release`, `boot` (which look of `boot.jsonl`). Each of the others is a step as `memhp run --json`
prints it, with `changed`: what the machine shows differently since, file by file and item by item, null for what is gone. What
it showed at boot is in `boot.jsonl`, once for all scenarios that boot alike. tools/record_answers.py records them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import lzma
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memhp import scenario
from memhp.abi.files import MEMORY
from memhp.backends import base
from memhp.backends.base import Answer, BootURL, ModelURL, QemuURL
from memhp.checker.differential import Look, Observed
from memhp.errors import ERRNO_NAMES, KernelError
from memhp.machine import StepResult
from memhp.scenario import BlockRef, Offline, Plug, Resize, Scenario, Unplug
from memhp.units import KIB, format_size

HERE = Path(__file__).parent
NUMBERS = {name: number for number, name in ERRNO_NAMES.items()}
SCENARIOS = HERE / "scenarios"
ANSWERS = Path(os.environ.get("MEMHP_ANSWERS", HERE / "data" / "answers"))
"""Where answers are kept; the environment may name another folder, for a recording that takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeKernel:
    """
    A real kernel that answers.

    Attributes:
        release: "v6.12".
        arch: "arm64" or "x86_64".
        page: Bytes of a page.
        folders: Which scenarios it is asked.
        dimms: It has the driver for ACPI's memory devices.
        virtio_mem: It has the driver for virtio-mem.
    """

    release: str
    arch: str
    page: int = 4 * KIB
    folders: tuple[str, ...]
    dimms: bool = True
    virtio_mem: bool = True

    @property
    def name(self) -> str:
        """What it is called here, and in the folder of its answers."""
        return f"{self.release}-{self.arch}{'' if self.page == 4 * KIB else f'-{format_size(self.page)}'}"

    def url(self, script: Scenario, kind: type[ModelURL] | type[QemuURL]) -> ModelURL | QemuURL:
        """Return the machine of a scenario with this kernel, as a model or in QEMU."""
        asked = base.parse(script.machine)
        assert isinstance(asked, BootURL)
        keys = {name: getattr(asked, name) for name in ("mem", "cmdline", "nodes")}
        if kind is ModelURL:
            return ModelURL(tree=self.release, arch=self.arch, page=self.page, smp=2, **keys)
        return QemuURL(release=self.release, arch=self.arch, page=self.page, **keys)

    def takes(self, script: Scenario) -> bool:
        """Whether a scenario has to do with what this kernel can."""
        dimms = any(isinstance(step, Plug) for step in script.steps)
        devices = bool(script.devices) or any(isinstance(step, Resize) for step in script.steps)
        return (self.dimms or not dimms) and (self.virtio_mem or not devices)


KERNELS = {kernel.name: kernel for kernel in (
    JudgeKernel(release="v6.12", arch="arm64", folders=("any", "arm64")),
    JudgeKernel(release="v6.1", arch="arm64", folders=("any", "arm64")),
    JudgeKernel(release="v5.10", arch="arm64", folders=("gib",), virtio_mem=False),
    JudgeKernel(release="v6.12", arch="arm64", page=16 * KIB, folders=("any", "arm64"), dimms=False),
    JudgeKernel(release="v6.12", arch="x86_64", folders=("any", "x86_64")),
    JudgeKernel(release="v6.1", arch="x86_64", folders=("any", "x86_64")),
    JudgeKernel(release="v5.10", arch="x86_64", folders=("any", "x86_64")),
    JudgeKernel(release="newest", arch="arm64", folders=("any", "arm64")),
)}  # fmt: skip
"""The real kernels, by name."""


# Scenarios


def scenarios(kernel: JudgeKernel | None = None) -> dict[str, Path]:
    """Return the files of the scenarios by name, such as "any/life"; those that a kernel takes, or all."""
    found = {}
    for path in sorted(SCENARIOS.glob("*/*.toml")):
        if kernel is None or (path.parent.name in kernel.folders and kernel.takes(scenario.load(path))):
            found[f"{path.parent.name}/{path.stem}"] = path
    return found


def digest(script: Scenario) -> str:
    """Return what tells two scenarios apart: their devices, steps and machine; not their titles and expectations."""
    steps = tuple(dataclasses.replace(step, expect="") for step in script.steps)
    return hashlib.sha256(scenario.dumps(dataclasses.replace(script, title="", steps=steps)).encode()).hexdigest()[:16]


def boot_key(script: Scenario, url: QemuURL) -> str:
    """Return what the look of a freshly booted machine is kept under: its URL, and its devices."""
    devices = "".join(f" {device.id}={format_size(device.max)}@{device.node}" for device in script.devices)
    return f"{url}{devices}"


# Looks and steps as data


def look_to_json(look: Look) -> dict[str, dict[str, Any]]:
    """Return a look as plain data: file -> item -> fields."""
    data: dict[str, dict[str, Any]] = {}
    for (file, item), fields in look.items():
        data.setdefault(file, {})[item] = fields
    return data


def look_from_json(data: dict[str, dict[str, Any]]) -> Look:
    """Return the look that was written so."""
    return {(file, item): _fields(fields) for file, items in data.items() for item, fields in items.items()}


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def changes(before: Look, after: Look) -> dict[str, dict[str, Any]]:
    """Return as plain data what a look shows otherwise than the one before; None for what is gone."""
    data: dict[str, dict[str, Any]] = {}
    for file, item in {**before, **after}:
        if before.get((file, item)) != after.get((file, item)):
            data.setdefault(file, {})[item] = after.get((file, item))
    return data


def apply_changes(before: Look, data: dict[str, dict[str, Any]]) -> Look:
    """Return the look after changes."""
    look = dict(before)
    for file, items in data.items():
        for item, fields in items.items():
            if fields is None:
                look.pop((file, item), None)
            else:
                look[file, item] = _fields(fields)
    return look


def answer_from_json(data: dict[str, Any]) -> Answer:
    """Return the answer that a line of `memhp run --json` tells."""
    name = data["errno"]
    error = KernelError(NUMBERS[name], where="") if name else None
    return Answer(tuple(data["log"]), error, data.get("outcome", ""), data.get("oops", ""), data.get("hung", ""))


# Files


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """
    What a kernel answered to a scenario.

    Attributes:
        kernel: Which.
        name: Name of the scenario.
        script: The scenario as it is now.
        release: What the kernel calls itself.
        url: What was booted.
        stale: True if the scenario was another when it was recorded.
        observed: What came of each step, the state after boot first.
    """

    kernel: JudgeKernel
    name: str
    script: Scenario
    release: str
    url: str
    stale: bool
    observed: tuple[Observed, ...]


def answer_path(kernel: JudgeKernel, name: str) -> Path:
    """Return the file of an answer."""
    return ANSWERS / kernel.name / f"{name}.jsonl"


def read_boots(kernel: JudgeKernel) -> dict[str, Look]:
    """Return how this kernel's machines look after boot, by key."""
    path = ANSWERS / kernel.name / "boot.jsonl"
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["boot"]: look_from_json(line["look"]) for line in lines}


def write_boots(kernel: JudgeKernel, boots: dict[str, Look]) -> None:
    """Write down how this kernel's machines look after boot."""
    path = ANSWERS / kernel.name / "boot.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [_line({"boot": key, "look": look_to_json(boots[key])}) for key in sorted(boots)]
    path.write_text("".join(lines), encoding="utf-8")


def load(kernel: JudgeKernel, name: str, boots: dict[str, Look] | None = None) -> Recording | None:
    """Return what a kernel answered to a scenario, or None if it was not asked."""
    path = answer_path(kernel, name)
    if not path.exists():
        return None
    head, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    script = scenario.load(SCENARIOS / f"{name}.toml")
    return _recording(kernel, name, script, head, lines, boots if boots is not None else read_boots(kernel))


def _recording(
    kernel: JudgeKernel, name: str, script: Scenario, head: dict[str, Any], lines: list[dict[str, Any]], boots: dict[str, Look],
) -> Recording:  # fmt: skip
    look = boots[head["boot"]]
    observed = [Observed(0, None, Answer(), look)]
    for number, (step, line) in enumerate(zip(script.steps, lines, strict=False), 1):
        look = apply_changes(look, line["changed"])
        observed.append(Observed(number, step, answer_from_json(line), look))
    return Recording(
        kernel=kernel, name=name, script=script, release=head["release"], url=head["url"],
        stale=head["digest"] != digest(script) or len(lines) != len(script.steps), observed=tuple(observed),
    )  # fmt: skip


def save(
    kernel: JudgeKernel, name: str, script: Scenario, *, release: str, url: str, boot: str, observed: Sequence[Observed],
) -> None:  # fmt: skip
    """Write down what a kernel answered to a scenario."""
    path = answer_path(kernel, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"scenario": name, "digest": digest(script), "url": url, "release": release, "boot": boot}
    path.write_text(_line(head) + "".join(map(_line, _steps(observed))), encoding="utf-8")


def random_path(kernel: JudgeKernel) -> Path:
    """Return the file of the answers to scenarios made by chance: an object for each, with its text, packed."""
    return ANSWERS / kernel.name / "random.jsonl.xz"


def load_random(kernel: JudgeKernel, boots: dict[str, Look] | None = None) -> dict[int, Recording]:
    """Return what a kernel answered to scenarios made by chance, by seed."""
    path = random_path(kernel)
    if not path.exists():
        return {}
    boots = boots if boots is not None else read_boots(kernel)
    found = {}
    for text in lzma.decompress(path.read_bytes()).decode().splitlines():
        line = json.loads(text)
        script = scenario.loads(line["text"])
        found[line["seed"]] = _recording(kernel, f"random/{line['seed']}", script, line, line["steps"], boots)
    return found


def save_random(kernel: JudgeKernel, recordings: dict[int, Recording], boots: dict[str, Look]) -> None:
    """Write down what a kernel answered to scenarios made by chance."""
    lines = []
    for seed, one in sorted(recordings.items()):
        boot = next(key for key, look in boots.items() if key.startswith(one.url) and look == one.observed[0].look)
        head = {"seed": seed, "digest": digest(one.script), "url": one.url, "release": one.release, "boot": boot}
        lines.append(_line({**head, "text": scenario.dumps(one.script), "steps": list(_steps(one.observed))}))
    path = random_path(kernel)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress("".join(lines).encode(), preset=9))


def _steps(observed: Iterable[Observed]) -> Iterator[dict[str, Any]]:
    before: Look = {}
    for one in observed:
        if one.step is not None:
            yield {**StepResult(one.number, one.step, one.answer).json(), "changed": changes(before, one.look)}
        before = one.look


def _line(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


# What can be told without knowing where the kernel put its own pages


def by_luck(observed: Sequence[Observed], number: int) -> bool:
    """
    Return whether a step asks something of blocks that may hold pages of the kernel: its allocations decide what it answers.

    A block of a kernel zone that shall go offline, and a device with such blocks that shall leave or shrink, are that.
    """
    if number == 0:
        return False
    before = observed[number - 1].look
    return any(_kernel_zone(before, item) for item in _leaving(observed[number], before))


def _leaving(one: Observed, look: Look) -> list[str]:
    """Return the blocks that a step wants offline, by their names in a look."""
    match one.step:
        case Offline():
            return [_block_name(one.step.block, look)]
        case Unplug() | Resize():
            device = look.get(("devices", one.step.id))
            if device is None or (isinstance(one.step, Resize) and one.step.size >= (device["plugged"] or 0)):
                return []
            return [_block_name(f"{one.step.id}:{number}", look) for number in range(-(-device["size"] // _block_size(look)))]
        case _:
            return []


def _block_size(look: Look) -> int:
    return int(look[MEMORY, "block_size_bytes"]["value"])


def _block_name(block: BlockRef, look: Look) -> str:
    if isinstance(block, str):
        device_id, index = scenario.split_ref(block)
        device = look.get(("devices", device_id))
        if device is None:
            return ""
        block = int(device["start"], 16) // _block_size(look) + index
    return f"memory{block}"


def _kernel_zone(look: Look, item: str) -> bool:
    """Whether a block is online in a zone that the kernel takes its own pages from."""
    block = look.get((MEMORY, item))
    return block is not None and block["state"] == "online" and block["valid_zones"] != ("Movable",)
