# SPDX-License-Identifier: GPL-2.0-only
"""
Debian's 6.12 on arm64, as recorded: DIMMs plugged, switched and unplugged; a virtio-mem device that grows and shrinks.

After every step the model must show the blocks, memblock, System RAM and the zones' spans and present pages of the real kernel,
and the managed pages of zones that hold hot-added memory only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from memhp.abi.files import Files
from memhp.abi.iomem import read_iomem
from memhp.abi.memblock import read_memblock
from memhp.abi.memory import read_memory
from memhp.abi.zoneinfo import read_zoneinfo
from memhp.backends import base
from memhp.backends.base import Answer
from memhp.backends.model import ModelBackend
from memhp.scenario import Device, Plug, Resize, Step, Unplug, Write
from memhp.units import GIB
from tests.later import LATER, later_kernel

DIMM = "v6.12-arm64-dimm"
VIRTIO = "v6.12-arm64-virtio-mem"


def shown(files: Files) -> dict[str, Any]:
    """What the recordings hold of a machine."""
    memory = read_memory(files)
    zones = {}
    for zone in read_zoneinfo(files):
        if zone.spanned:
            zones[zone.zone] = [zone.start_pfn, zone.spanned, zone.present]
            if zone.zone != "DMA":
                zones[zone.zone].append(zone.managed)
    return {
        "blocks": [(b.block, b.state, b.valid_zones, b.removable, b.phys_index, b.nodes) for b in memory.blocks],
        "auto_online": memory.auto_online,
        "memblock": [(r.base, r.size, r.flags) for r in read_memblock(files) or ()],
        "ram": [(r.start, r.end, r.name) for r in read_iomem(files).system_ram()],
        "zones": zones,
    }


def steps(name: str) -> Iterator[tuple[Step, str]]:
    """The verbs of a recording, each with the folder of what the machine showed afterwards."""
    spec = json.loads((LATER / name / "spec.json").read_text())
    for number, (folder, what, *words) in enumerate(spec["steps"], 1):
        step: Step
        if what == "dimm":
            step = Plug(id=words[0], size=words[1])
        elif what == "undimm":
            step = Unplug(id=words[0])
        elif what == "vmem":
            step = Resize(id=words[0], size=words[1])
        else:
            _, text, _, path = words[0].split()
            step = Write(path=path, text=text + "\n")
        yield step, f"{number:02}-{folder}"


def boot(name: str) -> ModelBackend:
    spec = json.loads((LATER / name / "spec.json").read_text())
    devices = [Device(kind="virtio-mem", id="v0", max=2 * GIB)] if name == VIRTIO else []
    url = f"model:v6.12/arm64?mem={spec['mem'].split(',')[0]}&cmdline={base.quote(spec['append'])}"
    machine = base.open(url, devices)
    assert isinstance(machine, ModelBackend)
    return machine


def run(name: str) -> Iterator[tuple[str, Answer, dict[str, Any], dict[str, Any]]]:
    """Yield of every step: its folder, the model's answer, what the real kernel showed, what the model shows."""
    machine = boot(name)
    yield "00-boot", Answer(), shown(later_kernel(LATER / name / "00-boot")), shown(machine)
    for step, folder in steps(name):
        answer = base.apply(machine, step)
        yield folder, answer, shown(later_kernel(LATER / name / folder)), shown(machine)


DIMM_ANSWERS = {
    "09-bad": "EINVAL", "10-off-off": "EINVAL", "11-on-on": "EINVAL", "12-boot-off": "EPERM", "14-off-24": "EBUSY",
    "15-undimm-d1-partly-online": "refused", "17-small": "refused",
}  # fmt: skip


def test_dimms() -> None:
    """
    Two DIMMs, their blocks switched by hand; one leaves, one stays; a third is too small.

    d1 has blocks 24, 25 and 26, d2 27 and 28. Pages of the kernel lie in block 24, so d1 is refused: 25 and 26, which had been
    taken offline for it, are online again.
    """
    log: dict[str, tuple[str, ...]] = {}
    for folder, answer, real, model in run(DIMM):
        assert real == model, folder
        assert DIMM_ANSWERS.get(folder, "accepted" if answer.outcome else "ok") == answer.word, folder
        log[folder] = answer.log
    assert "Boot memory [48000000 50000000] offlining attempted" in log["12-boot-off"]
    assert "memory memory24: Offline failed." in log["15-undimm-d1-partly-online"]
    assert log["17-small"] == (
        "Block size [0x8000000] unaligned hotplug range: start 0xd8000000, size 0x4000000",
        "acpi PNP0C80:01: add_memory failed",
        "acpi PNP0C80:01: acpi_memory_enable_device() error",
    )


def test_a_virtio_mem_device() -> None:
    """
    512, 1000, 300 MiB: every subblock that the host asks for comes and goes, the highest first.

    At the end the host wants all of it back. Which pages the kernel had taken by then cannot be known here: the real one kept
    three subblocks of the first block, so that block stays, and its last plugged memory with it.
    """
    for folder, answer, real, model in run(VIRTIO):
        if folder == "04-unplug0":
            assert answer.word == "pending"
            assert [block for block in real["blocks"] if block[0] >= 16] == [block for block in model["blocks"] if block[0] >= 16]
            assert (real["memblock"], real["ram"]) == (model["memblock"], model["ram"])
            real["zones"]["Normal"].pop()
            model["zones"]["Normal"].pop()
        assert real == model, folder
        assert answer.word in ("ok", "accepted", "pending")
