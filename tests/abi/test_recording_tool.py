# SPDX-License-Identifier: GPL-2.0-only
"""tools/recording.py: the text that a test kernel's script printed becomes captures and a table of steps."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from memhp.abi import capture
from memhp.abi.memmap import hardware_from_capture
from memhp.abi.memory import read_memory

TOOL = Path(__file__).parents[2] / "tools" / "recording.py"
HEAD = "# {title}\n# build A: made up\n# rfc=full   kernel command line: console=ttyAMA0 mem=1G\n\n"
STATE = """\
### state after it
== uname -r: 4.9.0   cmdline: console=ttyAMA0 mem=1G
== /sys/devices/system/memory
auto_online_blocks block_size_bytes memory1 probe uevent
block_size_bytes: 40000000   auto_online_blocks: offline
-- /sys/devices/system/memory/memory1: node0 online removable state valid_zones
   state: online
   removable: 0
   valid_zones: DMA
   end_phys_index: [no such attribute in this kernel]
   online: 1
== /sys/kernel/debug/memblock/memory
   0: 0x0000000040000000..0x000000007fffffff
== /sys/kernel/debug/memblock/reserved
[no such file: made up]
== /proc/iomem
40000000-7fffffff : System RAM
== /proc/meminfo
MemTotal:        1048576 kB
== /proc/zoneinfo
Node 0, zone      DMA
  pages free     262100
        spanned  262144
        present  262144
        managed  262144
  start_pfn:           262144
== /proc/pagetypeinfo
Page block order: 10
Pages per block:  1024

Free pages count per migrate type at order       0      1
Node    0, zone      DMA, type    Unmovable   1000      2
Node    0, zone      DMA, type      Movable      0      0
Node    0, zone      DMA, type  Reclaimable      0      0

Number of blocks type     Unmovable      Movable  Reclaimable
Node 0, zone      DMA            1          255            0
== /proc/kpageflags over the boot range and the probed range
kpageflags pfn 0x40000..0x7ffff
entries read 262144, no flag at all 3
bit 10 BUDDY          262100

### dmesg while the state was read
[    1.000000] MARK snap
"""
WRITES = """\
### write "0x80000000" to $M/probe
write(/sys/devices/system/memory/probe, "0x80000000") = 10
exit status of the writer: 0

### dmesg since that write
[    3.697186] rfc: [full] entry: pfn_valid(first)=1
[    3.700000] Built 1 zonelists

### write "0x80001000" to $M/probe
write(/sys/devices/system/memory/probe, "0x80001000") = -1 errno=22 EINVAL (Invalid argument)
exit status of the writer: 1

### dmesg since that write


### write "online" to $M/memory1/state
[    1.544603] Internal error: Oops: 96000006 [#1] SMP
exit status of the writer: 139

### write "offline" to $M/memory1/state
writer pid 129 still blocked after 40 s: state State:	D (disk sleep)
[<ffff000008084bf4>] __switch_to+0x54/0x60
[<ffff000008242790>] add_memory_resource+0x7c/0x1ac
[<ffffffffffffffff>] 0xffffffffffffffff

### states
memory1: state online valid_zones DMA Normal removable 0
MemTotal:        1048576 kB
Node 0, zone      DMA
        spanned  262144
        present  262144
        managed  262144
  start_pfn:           262144
"""
PROFILE = "# x\n\n### hits\nFunction Hit\n-------- ---\nadd_memory 1\nadd_memory.part.0 2\nschedule 48\n"
TRACE = "# x\n\n### graph\n3 /tmp/trace.txt\n# tracer: function_graph\n#\n  add_memory() {\n    mutex_lock();\n  }\n"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A made-up recording, converted."""
    full = tmp_path / "in" / "v4.9-arm64-rfc" / "full"
    full.mkdir(parents=True)
    (tmp_path / "in" / "v4.9-x86_64").mkdir()
    (full / "00-boot.txt").write_text(HEAD.format(title="after boot") + STATE)
    (full / "06-again.txt").write_text(HEAD.format(title="writes") + WRITES)
    (full / "profile-probe.txt").write_text(PROFILE)
    (full / "trace-probe.txt").write_text(TRACE)
    (full / "dmesg-all.txt").write_text("[ 1.0] Freeing initrd memory: 4K (ffff800008000000 - ffff800008001000)\n")
    for source in ("mm", "drivers/base", "kernel", "arch/arm64/mm", "arch/x86/mm"):
        (tmp_path / "linux" / source).mkdir(parents=True)
    for source in runpy.run_path(str(TOOL))["SOURCES"]:
        (tmp_path / "linux" / source).write_text("")
    (tmp_path / "linux/mm/memory_hotplug.c").write_text("int __ref add_memory(int nid,\n\tu64 start)\n{\n\treturn 0;\n}\n")
    command = [sys.executable, str(TOOL), str(tmp_path / "in"), str(tmp_path / "out"), "--kernel", str(tmp_path / "linux")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return tmp_path / "out" / "v4.9-arm64-rfc" / "full"


def test_the_state_becomes_a_capture(made: Path) -> None:
    """Attributes, listings, links and what is lacking; the initrd from the log, the footprint from pagetypeinfo."""
    machine = capture.load(made / "00-boot", verify=True)
    memory = read_memory(machine)
    assert memory.probe
    assert ("online", ("DMA",), (0,)) == (memory.blocks[0].state, memory.blocks[0].valid_zones, memory.blocks[0].nodes)
    assert "no such file: made up" == machine.manifest.lacks["/sys/kernel/debug/memblock/reserved"]
    assert {"unmovable": 20, "reclaimable": 0, "movable": 24} == machine.manifest.boot["footprint"]
    assert ((0x48000000, 0x48001000),) == hardware_from_capture(machine, "arm64").freed


def test_writes_become_steps(made: Path) -> None:
    """Taken, refused, oops and hung; log and instruments apart; states in short."""
    table = tomllib.loads((made / "steps.toml").read_text())
    boot, *writes = table["step"]
    assert ("00-boot", {"BUDDY": 262100}) == (boot["capture"], boot["kpageflags"][0]["counts"])
    assert ["", "EINVAL", "oops", "hung"] == [step["result"] for step in writes]
    assert "/sys/devices/system/memory/probe" == writes[0]["path"]
    assert (["Built 1 zonelists"], ["[full] entry: pfn_valid(first)=1"]) == (writes[0]["log"], writes[0]["instrument"])
    assert ["__switch_to", "add_memory_resource"] == writes[3]["blocked_in"]
    assert [{"block": 1, "state": "online", "valid_zones": "DMA Normal", "removable": 0}] == writes[3]["blocks"]
    assert 262144 == writes[3]["zones"][0]["managed"]


def test_traces_and_counts_are_cut(made: Path) -> None:
    """The graph alone; calls of functions of the sources alone, split-off parts added."""
    assert "  add_memory() {\n    mutex_lock();\n  }\n" == (made / "trace-probe.txt").read_text()
    assert {"probe": {"add_memory": 3}} == tomllib.loads((made / "counts.toml").read_text())
