# SPDX-License-Identifier: GPL-2.0-only
"""
The test that every backend passes.

Subclass `Conformance`, say how to open a machine, and let pytest collect it::

    class TestMyMachine(Conformance):
        def open(self) -> Backend:
            return base.open("model:v4.9/x86_64?mem=1G")

What a machine cannot do by its own word (`verbs`) is only checked to be refused without a trace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from errno import EACCES, EINVAL, EISDIR, ENOENT, ENOTDIR, EROFS

from memhp.abi.files import MEMORY
from memhp.abi.iomem import read_iomem
from memhp.abi.memblock import read_memblock
from memhp.abi.memory import MemorySnapshot, read_block, read_memory
from memhp.abi.node import read_nodes
from memhp.abi.zoneinfo import read_zoneinfo
from memhp.backends import base
from memhp.backends.base import Backend
from memhp.errors import KernelError, UsageError
from memhp.scenario import VERBS, Add, Alloc, Free, Offline, Online, Pin, Plug, Remove, Resize, Step, Unplug, Write


class Conformance:
    """What all machines have in common. Each test opens a machine of its own."""

    def open(self) -> Backend:
        """Return a machine, freshly opened, with at least one memory block."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _machine(self) -> Iterator[Backend]:
        backend = self.open()
        try:
            yield backend
        finally:
            backend.close()
            backend.close()

    def test_its_verbs_are_known(self) -> None:
        """`verbs` holds scenario verbs only, and `url` opens it."""
        with self._machine() as machine:
            assert machine.verbs <= set(VERBS)
            assert ":" in machine.url

    def test_its_files_are_those_of_linux(self) -> None:
        """Every reader understands what it shows, and memory blocks agree with their nodes."""
        with self._machine() as machine:
            memory = read_memory(machine)
            assert memory.blocks
            assert memory.block_size >= 1 << 27
            for block in memory.blocks:
                assert block.state in ("online", "offline", "going-offline")
                assert block.phys_index in (None, block.block)
                assert block == read_block(machine, block.block)
            for node in read_nodes(machine).nodes:
                assert all(node.nid in block.nodes for block in memory.blocks if block.block in node.blocks)
            assert any(zone.present for zone in read_zoneinfo(machine))
            assert read_iomem(machine).system_ram()
            assert read_memblock(machine) != []

    def test_a_file_is_read_in_pieces(self) -> None:
        """Reading from an offset gives the same bytes; beyond the end there are none."""
        with self._machine() as machine:
            for path in ("/proc/iomem", f"{MEMORY}/block_size_bytes"):
                whole = machine.read(path)
                assert machine.read(path, 0, 3) + machine.read(path, 3) == whole
                assert machine.read(path, len(whole), 10) == b""
                assert machine.read(path, 0, 0) == b""

    def test_missing_files_and_folders(self) -> None:
        """The errnos are those of the kernel."""
        with self._machine() as machine:
            block = read_memory(machine).blocks[-1].block
            cases = [
                (machine.read, f"{MEMORY}/memory{block + 1}/state", ENOENT),
                (machine.read, f"{MEMORY}/memory{block}/nothing", ENOENT),
                (machine.read, f"{MEMORY}/memory{block}", EISDIR),
                (machine.listdir, f"{MEMORY}/memory{block + 1}", ENOENT),
                (machine.listdir, f"{MEMORY}/memory{block}/state", ENOTDIR),
            ]
            for call, path, errno in cases:
                assert _errno(lambda call=call, path=path: call(path)) == errno, path

    def test_probe_can_only_be_written(self) -> None:
        """Where there is a probe file, reading it is EACCES."""
        with self._machine() as machine:
            if "probe" in machine.listdir(MEMORY):
                assert _errno(lambda: machine.read(f"{MEMORY}/probe")) == EACCES

    def test_reading_changes_nothing(self) -> None:
        """Two looks see the same, and the log does not grow by looking."""
        with self._machine() as machine:
            log = machine.log()
            assert _look(machine) == _look(machine)
            assert machine.log() == log
            assert machine.log_length() == len(log)
            assert machine.log(len(log)) == []

    def test_what_it_cannot_do_it_refuses_without_a_trace(self) -> None:
        """A verb it does not list is a UsageError, and nothing is different afterwards."""
        size = 1 << 27
        every: list[Step] = [
            Plug(id="x", size=size), Unplug(id="x"), Online(block=0), Offline(block=0), Resize(id="x", size=size),
            Write(path=f"{MEMORY}/probe", text="0"), Add(start=1 << 40, size=size), Remove(start=1 << 40, size=size),
            Alloc(id="x", size=size), Free(id="x"), Pin(id="x"),
        ]  # fmt: skip
        with self._machine() as machine:
            before = _look(machine)
            for step in every:
                if step.do not in machine.verbs:
                    refused = False
                    try:
                        base.apply(machine, step)
                    except UsageError:
                        refused = True
                    assert refused, step.do
            assert _look(machine) == before

    def test_refused_writes(self) -> None:
        """A word that is no state is EINVAL, a missing file ENOENT; the machine is as it was."""
        with self._machine() as machine:
            if "write" not in machine.verbs:
                return
            block = read_memory(machine).blocks[0].block
            before = _look(machine)
            assert _errno(lambda: machine.write(f"{MEMORY}/memory{block}/state", "on line")) == EINVAL
            assert _errno(lambda: machine.write(f"{MEMORY}/memory99999999/state", "online")) == ENOENT
            assert _errno(lambda: machine.write(f"{MEMORY}/block_size_bytes", "1")) in (EACCES, EROFS)
            assert _look(machine) == before

    def test_a_dimm_becomes_blocks_that_go_online(self) -> None:
        """plug gives offline blocks that belong to the device; online makes them online, once."""
        with self._machine() as machine:
            if not {"plug", "online"} <= machine.verbs:
                return
            memory = read_memory(machine)
            answer = base.apply(machine, Plug(id="conformance", size=2 * memory.block_size))
            assert answer.word == "accepted"
            device = next(device for device in machine.devices() if device.id == "conformance")
            assert device.size == 2 * memory.block_size
            new = [block for block in read_memory(machine).blocks if memory.find(block.block) is None]
            assert [block.block for block in new] == [base.resolve(machine, f"conformance:{i}") for i in range(2)]
            if memory.auto_online == "offline":
                assert [block.state for block in new] == ["offline", "offline"]
                assert base.apply(machine, Online(block="conformance:1")).word == "ok"
                assert read_memory(machine).blocks[-1].state == "online"
            assert base.apply(machine, Online(block="conformance:2")).word == "ENOENT"
            assert base.apply(machine, Online(block="nothing:0")).word == "ENOENT"

    def test_what_the_platform_refuses(self) -> None:
        """A second device of one name, and an address in the way of the first, change nothing."""
        with self._machine() as machine:
            if "plug" not in machine.verbs:
                return
            size = read_memory(machine).block_size
            assert base.apply(machine, Plug(id="one", size=size)).word == "accepted"
            start = machine.devices()[0].start
            before = _look(machine)
            for step in (
                Plug(id="one", size=size),
                Plug(id="two", size=size, addr=start),
                Plug(id="two", size=size, addr=start + 1),
            ):
                answer = base.apply(machine, step)
                assert (answer.word, bool(answer.log)) == ("refused", True)
            assert _look(machine) == before


def _errno(call: object) -> int | None:
    """Return the errno a call is refused with; None if it is not refused."""
    assert callable(call)
    try:
        call()
    except KernelError as err:
        return err.errno
    return None


def _look(machine: Backend) -> tuple[MemorySnapshot, bytes, object, object]:
    """Return what a step could change; pages that are free come and go on a machine that lives."""
    zones = [(zone.node, zone.zone, zone.start_pfn, zone.spanned, zone.present, zone.managed) for zone in read_zoneinfo(machine)]
    return read_memory(machine), machine.read("/proc/iomem"), zones, machine.devices()
