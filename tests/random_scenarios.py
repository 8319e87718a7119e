# SPDX-License-Identifier: GPL-2.0-only
"""
Scenarios that nobody wrote: a seed makes one, always the same.

They plug, resize, online in all kinds, take offline, unplug, and write what is wrong, in an order that chance decides and with
sizes that often do not fit. Chance is guided: what would end a comparison early (a block of a kernel zone that should go offline)
is rare, and refusals are not the rule.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from memhp.abi.files import MEMORY
from memhp.abi.record import PARAMETERS
from memhp.backends.base import quote
from memhp.scenario import Device, Offline, Online, Plug, Resize, Scenario, Step, Unplug, Write
from memhp.units import GIB, MIB
from tests.answers import JudgeKernel

LENGTH = (4, 12)
"""Steps of a scenario, at least and at most."""
BAD_WORDS = ("foo", "ONLINE", "offlin", "online ", "0", "online_movablee", "\n")
PARAMETER_WORDS = {
    "online_policy": ("auto-movable", "contig-zones", "auto"),
    "auto_movable_ratio": ("0", "50", "301", "1000", "-5"),
    "auto_movable_numa_aware": ("Y", "N", "7"),
}
WINDOW = {"arm64": 2 * GIB, "x86_64": 4 * GIB}
"""Where devices begin on a machine of 1 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """
    How the machine of a scenario boots.

    Attributes:
        default: memhp_default_state.
        words: More of the command line.
        nodes: Bytes by node, as in a URL.
        devices: (node, bytes of address space) of virtio-mem devices.
        weight: How often.
    """

    default: str = "offline"
    words: str = ""
    nodes: str = ""
    devices: tuple[tuple[int, int], ...] = ()
    weight: int = 1


POLICY = "memory_hotplug.online_policy=auto-movable memory_hotplug.auto_movable_ratio="
BOOTS = (
    Boot(weight=6),
    Boot(default="online_movable", devices=((0, GIB), (0, 2 * GIB)), weight=4),
    Boot(devices=((0, 2 * GIB),), weight=2),
    Boot(nodes="1G,0", devices=((1, GIB),), weight=2),
    Boot(nodes="512M,512M", words="movable_node", weight=2),
    Boot(default="online", words=f"{POLICY}150", devices=((0, 2 * GIB),), weight=2),
    Boot(default="offline", words=f"{POLICY}100", nodes="768M,256M", weight=2),
    Boot(words="memory_hotplug.memmap_on_memory=1", weight=3),
)


@dataclass(slots=True)
class _Maker:
    """
    The making of one scenario: what it believes the machine to be like.

    Attributes:
        rng: Where chance comes from.
        block: Bytes of a memory block.
        window: First address for devices.
        nodes: How many.
        default: What new blocks become.
        sizes: Blocks of each DIMM, by its id.
        zones: What each block was onlined to, by its name; absent: offline.
        devices: Bytes of each virtio-mem device's space, by its id.
        steps: What came out.
    """

    rng: random.Random
    block: int
    window: int
    nodes: int
    default: str
    devices: dict[str, int]
    sizes: dict[str, int] = field(default_factory=dict)
    zones: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    plugged: int = 0

    def plug(self) -> None:
        """A DIMM: mostly a few blocks, where the platform puts it."""
        self.plugged += 1
        name = f"d{self.plugged}" if self.rng.random() < 0.95 or not self.sizes else self.rng.choice(sorted(self.sizes))
        blocks = self.rng.choice((1, 1, 2, 2, 3, 4, 5))
        size = blocks * self.block
        fits = self.rng.random() < 0.85
        if not fits:
            size = self.rng.choice((self.block // 2, size + self.block // 2, size + 2 * MIB, size - 2 * MIB, 2 * MIB, size + MIB))
        addr = None
        if self.rng.random() < 0.3:
            addr = self.window + self.rng.randrange(0, 40) * self.block
            if self.rng.random() < 0.2:
                addr += self.rng.choice((self.block // 2, 2 * MIB, 4096))
                fits = False
        self.steps.append(Plug(id=name, size=size, node=self.rng.randrange(self.nodes), addr=addr))
        if fits and name not in self.sizes:
            self.sizes[name] = blocks
            if self.default != "offline":
                self.zones.update({f"{name}:{number}": self.default for number in range(blocks)})

    def _block(self) -> str:
        """Name a block; mostly one that exists."""
        if self.sizes and self.rng.random() < 0.95:
            name = self.rng.choice(sorted(self.sizes))
            return f"{name}:{self.rng.randrange(self.sizes[name] + (self.rng.random() < 0.1))}"
        if self.devices and self.rng.random() < 0.8:
            return f"{self.rng.choice(sorted(self.devices))}:{self.rng.randrange(4)}"
        return f"d9:{self.rng.randrange(3)}"

    def online(self) -> None:
        """A block that is offline, mostly."""
        offline = [f"{name}:{number}" for name in sorted(self.sizes) for number in range(self.sizes[name])]
        offline = [block for block in offline if block not in self.zones]
        block = self.rng.choice(offline) if offline and self.rng.random() < 0.9 else self._block()
        to = self.rng.choice(("online_movable",) * 6 + ("online",) * 3 + ("online_kernel",))
        self.steps.append(Online(block=block, to=to))
        self.zones.setdefault(block, to)

    def offline(self) -> None:
        """A block that is movable, mostly."""
        movable = sorted(block for block, to in self.zones.items() if to == "online_movable")
        block = self.rng.choice(movable) if movable and self.rng.random() < 0.93 else self._block()
        self.steps.append(Offline(block=block))
        self.zones.pop(block, None)

    def unplug(self) -> None:
        """A DIMM without blocks of a kernel zone, mostly."""
        held = {block.partition(":")[0] for block, to in self.zones.items() if to != "online_movable"}
        free = sorted(set(self.sizes) - held)
        name = self.rng.choice(free) if free and self.rng.random() < 0.9 else f"d{self.rng.randrange(1, self.plugged + 2)}"
        self.steps.append(Unplug(id=name))
        if self.sizes.pop(name, None):
            self.zones = {block: to for block, to in self.zones.items() if block.partition(":")[0] != name}

    def resize(self) -> None:
        """Another size of a virtio-mem device."""
        name = self.rng.choice(sorted(self.devices))
        anything = self.rng.randrange(self.devices[name] // (2 * MIB) + 1)
        size = self.rng.choice((0, 1, 64, 64, 96, 128, 192, 256, 320, anything, anything % 257)) * 2 * MIB
        if self.rng.random() < 0.05:
            size += MIB
        self.steps.append(Resize(id=name, size=size))

    def write(self) -> None:
        """A word somewhere; often a wrong one."""
        state = f"{MEMORY}/memory{self.window // self.block + self.rng.randrange(4)}"
        kind = self.rng.randrange(6)
        if kind == 0:
            word = self.rng.choice((*BAD_WORDS[:3], "offline", "online_movable", "online_movable", "online"))
            self.steps.append(Write(path=f"{MEMORY}/auto_online_blocks", text=word))
            self.default = word if word in ("offline", "online", "online_movable") else self.default
        elif kind == 1:
            self.steps.append(Write(path=f"{state}/online", text=self.rng.choice(("1", "0", "2", "x"))))
        elif kind == 2:
            name = self.rng.choice(sorted(PARAMETER_WORDS))
            words = PARAMETER_WORDS[name]
            self.steps.append(Write(path=f"{PARAMETERS}/{name}", text=self.rng.choice(words)))
        else:
            self.steps.append(Write(path=f"{state}/state", text=self.rng.choice(BAD_WORDS)))


def make(seed: int, arch: str, *, block: int = 128 * MIB, dimms: bool = True, virtio_mem: bool = True) -> Scenario:
    """
    Return the scenario of a seed.

    Args:
        seed: Any number.
        arch: The platform.
        block: Bytes of a memory block.
        dimms: The kernel takes DIMMs.
        virtio_mem: The kernel takes virtio-mem devices.
    """
    rng = random.Random(f"memhp {seed} {arch} {block} {dimms} {virtio_mem}")
    boots = [boot for boot in BOOTS if (virtio_mem or not boot.devices) and (dimms or boot.devices)]
    boot = rng.choices(boots, [boot.weight for boot in boots])[0]
    cmdline = f"memhp_default_state={boot.default}{' ' if boot.words else ''}{boot.words}"
    machine = f"qemu:v6.12/{arch}?mem=1G&cmdline={quote(cmdline)}{'&nodes=' if boot.nodes else ''}{boot.nodes}"
    devices = tuple(Device(kind="virtio-mem", id=f"v{i}", max=size, node=node) for i, (node, size) in enumerate(boot.devices))
    maker = _Maker(
        rng, block, WINDOW[arch], boot.nodes.count(",") + 1, boot.default, {device.id: device.max for device in devices})
    verbs = {maker.online: 10 if dimms else 1, maker.offline: 7 if dimms else 1, maker.write: 2}
    if dimms:
        verbs |= {maker.plug: 5, maker.unplug: 3}
        maker.plug()
    if devices:
        verbs[maker.resize] = 6
    for _ in range(rng.randint(*LENGTH)):
        rng.choices(list(verbs), list(verbs.values()))[0]()
    return Scenario(title=f"seed {seed}", machine=machine, devices=devices, steps=tuple(maker.steps))


def make_for(kernel: JudgeKernel, seed: int) -> Scenario:
    """Return the scenario of a seed for a kernel: what it has no driver for is left out."""
    block = GIB if "gib" in kernel.folders else 128 * MIB
    return make(seed, kernel.arch, block=block, dimms=kernel.dimms, virtio_mem=kernel.virtio_mem)
