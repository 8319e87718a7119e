# SPDX-License-Identifier: GPL-2.0-only
"""
Turn the text files of recorded v4.9 kernels into captures and a table of steps.

    python tools/recording.py SOURCE DESTINATION --kernel LINUX

SOURCE holds `v4.9-arm64-rfc/` and `v4.9-x86_64/` as the test kernels' scripts wrote them; DESTINATION is
`src/memhp/recorded`. LINUX is a v4.9 source tree: only the names of the functions in the files that memory hotplug
lives in are taken from it, to pick their call counts out of the profiles.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from memhp.abi import buddyinfo, capture, iomem, zoneinfo
from memhp.abi.files import MEMBLOCK, MEMORY, NODE

WHEN = "2026-11-23"
ORIGIN = {
    "v4.9-arm64-rfc": "Linux 4.9.0 for arm64, 4 KiB pages, no NUMA, with a patch equivalent to the 2016 series and a boot "
    "option that picks the remedy; QEMU 7.2 virt (TCG), 4 GiB of which mem=1G hides three",
    "v4.9-x86_64": "Linux 4.9.0 for x86_64, unmodified hot-plug logic, NUMA with one node; QEMU 7.2 pc (TCG), 4 GiB of which "
    "mem=1G hides three",
}
ARCH = {"v4.9-arm64-rfc": "arm64", "v4.9-x86_64": "x86_64"}
CAPTURED = {"00-boot", "01-probe", "02-online"}
# v4.9 sources whose functions a model of memory hotplug has, too
SOURCES = (
    "mm/memory_hotplug.c", "mm/page_alloc.c", "mm/sparse.c", "mm/sparse-vmemmap.c", "mm/memblock.c", "mm/page_isolation.c",
    "mm/vmstat.c", "mm/mm_init.c", "mm/migrate.c", "drivers/base/memory.c", "drivers/base/node.c", "drivers/base/core.c",
    "kernel/resource.c", "kernel/notifier.c", "arch/arm64/mm/init.c", "arch/arm64/mm/mmu.c", "arch/x86/mm/init_64.c",
)  # fmt: skip
OWN = ("hotplug_linear_map", "memblock_clear_nomap", "memblock_mark_nomap")  # the series' own functions
LINEAR = {"arm64": [(0xFFFF800000000000, 0x40000000)], "x86_64": [(0xFFFF880000000000, 0), (0xFFFFFFFF80000000, 0)]}

TIME = re.compile(r"^\[ *[0-9]+\.[0-9]+\] ?")
NOISE = re.compile(r"^(x[0-9]+ ?:|sp :|pc :|[0-9a-f]{4}: |Stack: |Exception stack|Code: |MARK |$)")
WRITE = re.compile(r'write "(.*)" to (\S+)')
RESULT = re.compile(r'write\(\S+, ".*"\) = (?:(?P<ok>[0-9]+)|-1 errno=[0-9]+ (?P<errno>[A-Z]+) .*)')
STATE = re.compile(r"memory([0-9]+): state (\S+) valid_zones (.*) removable ([01])")
FREEING = re.compile(r"Freeing .* memory: [0-9]+K \(([0-9a-f]{16}) - ([0-9a-f]{16})\)")


@dataclass
class Section:
    title: str
    lines: list[str] = field(default_factory=list)


def sections(text: str) -> tuple[list[str], list[Section]]:
    """Return the remarks at the top, and the parts under `###` headings."""
    head: list[str] = []
    parts: list[Section] = []
    for line in text.split("\n"):
        if line.startswith("### "):
            parts.append(Section(line[4:].strip()))
        elif parts:
            parts[-1].lines.append(line)
        elif line.startswith("# "):
            head.append(line[2:].strip())
    return head, parts


def split_log(lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the kernel's log and the instrument's lines, both without times; register and stack dumps are left out."""
    log, instrument = [], []
    for line in lines:
        text = TIME.sub("", line)
        if text.startswith("rfc:"):
            instrument.append(text[4:].strip())
        elif not NOISE.match(text):
            log.append(text.rstrip())
    return log, instrument


def listings(lines: list[str]) -> dict[str, list[str]]:
    """Return heading -> lines for the `==` parts of a state."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("== "):
            found[line[3:].strip()] = current = []
        elif found:
            current.append(line)
    return found


def machine_files(state: dict[str, list[str]]) -> tuple[dict[str, str], dict[str, str], dict[str, str], set[str]]:
    """Return files, links, what is lacking, and what can only be written, of one recorded state."""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    lacks = {
        "/proc/kpageflags": "counted on the machine; the counts are in steps.toml",
        "/proc/kpagecount": "not read",
        f"{MEMORY}/uevent": "only its name was recorded",
    }
    for title, lines in state.items():
        path = title.split(" ")[0]
        if path == MEMORY:
            for name, value in memory_files(lines, links):
                files[name] = value
        elif path == NODE:
            node_files(lines, files, links, lacks)
        elif path.startswith(("/proc/", MEMBLOCK)) and path != "/proc/kpageflags":
            if lines and lines[0].startswith("["):
                lacks[path] = lines[0].strip("[]")
            else:
                files[path] = "\n".join(lines).rstrip("\n") + "\n"
    return files, links, lacks, {f"{MEMORY}/probe"}


def memory_files(lines: list[str], links: dict[str, str]) -> list[tuple[str, str]]:
    """Return the attributes of all memory blocks; node links go to `links`."""
    found: list[tuple[str, str]] = []
    block = ""
    for line in lines:
        if line.startswith("block_size_bytes:"):
            words = line.split()
            found += [(f"{MEMORY}/block_size_bytes", words[1] + "\n"), (f"{MEMORY}/auto_online_blocks", words[3] + "\n")]
        elif line.startswith("-- "):
            block, _, names = line[3:].partition(":")
            links |= {f"{block}/{name}": f"{NODE}/{name}" for name in names.split() if re.fullmatch("node[0-9]+", name)}
        elif block and line.startswith("   "):
            name, _, value = line.strip().partition(": ")
            if not value.startswith("["):
                found.append((f"{block}/{name}", value + "\n"))
    return found


def node_files(lines: list[str], files: dict[str, str], links: dict[str, str], lacks: dict[str, str]) -> None:
    names = lines[0].split()
    for line in lines[1:]:
        if match := re.fullmatch(rf"({NODE}/node[0-9]+): (.*)", line.strip()):
            links |= {f"{match[1]}/{name}": f"{MEMORY}/{name}" for name in match[2].split() if name.startswith("memory")}
            lacks[f"{match[1]}/meminfo"] = "not read"
        elif match := re.fullmatch(r"has_normal_memory: (\S*) *has_memory: *(\S*)", line.strip()):
            for name, value in (("has_normal_memory", match[1]), ("has_memory", match[2])):
                if name in names:
                    files[f"{NODE}/{name}"] = value + "\n"
    unread = ("has_cpu", "online", "possible", "uevent")
    lacks |= {f"{NODE}/{name}": "only its name was recorded" for name in unread if name in names}


def short_states(lines: list[str]) -> dict[str, Any]:
    """Return blocks, zones and MemTotal of a `### states` part."""
    found: dict[str, Any] = {"blocks": [], "zones": []}
    zones: list[str] = []
    for line in lines:
        if match := STATE.fullmatch(line.strip()):
            found["blocks"].append(block_row(int(match[1]), match[2], match[3], match[4]))
        elif line.startswith("MemTotal:"):
            found["mem_total_kb"] = int(line.split()[1])
        elif line.strip():
            zones.append(line)
    found["zones"] = zone_rows("\n".join(zones))
    return found


def block_row(number: int, state: str, zones: str, removable: str) -> dict[str, Any]:
    return {"block": number, "state": state, "valid_zones": zones.strip(), "removable": int(removable)}


def zone_rows(text: str) -> list[dict[str, Any]]:
    rows = []
    for zone in zoneinfo.parse_zoneinfo(text):
        row = {"node": zone.node, "zone": zone.zone, "start_pfn": zone.start_pfn}
        rows.append(row | {"spanned": zone.spanned, "present": zone.present, "managed": zone.managed})
    return rows


def blocks_of(files: dict[str, str]) -> list[dict[str, Any]]:
    numbers = sorted(int(m[1]) for path in files if (m := re.fullmatch(rf"{MEMORY}/memory([0-9]+)/state", path)))
    return [
        block_row(n, *(files[f"{MEMORY}/memory{n}/{name}"].strip() for name in ("state", "valid_zones", "removable")))
        for n in numbers
    ]


def full_state(files: dict[str, str]) -> dict[str, Any]:
    """Return the short form of a full state."""
    found: dict[str, Any] = {"blocks": blocks_of(files), "zones": zone_rows(files["/proc/zoneinfo"])}
    found["mem_total_kb"] = int(re.findall(r"MemTotal: +([0-9]+)", files["/proc/meminfo"])[0])
    found |= resources(files["/proc/iomem"].split("\n"))
    if f"{MEMBLOCK}/memory" in files:
        found["memblock"] = [line.strip() for line in files[f"{MEMBLOCK}/memory"].split("\n") if line.strip()]
    return found


def resources(lines: list[str]) -> dict[str, Any]:
    tree = iomem.parse_iomem("\n".join(lines))
    return {"system_ram": [f"{r.start:08x}-{r.end:08x}" for r in tree.system_ram()]}


def after_all(lines: list[str]) -> dict[str, Any]:
    """Return the short form of a `### blocks and resources` part, whose lists follow each other without headings."""
    state = listings(lines)
    (memory,) = state.values()
    ranges = [line for line in memory if re.match(r" *[0-9a-f]+-[0-9a-f]+ : ", line)]
    regions = [line.strip() for line in memory if re.match(r" *[0-9]+: 0x", line)]
    attributes = [line for line in memory if line not in ranges and line.strip() not in regions]
    found: dict[str, Any] = {"blocks": blocks_of(dict(memory_files(attributes, {})))} | resources(ranges)
    return found | ({"memblock": regions} if regions else {})


def page_flags(lines: list[str]) -> list[dict[str, Any]]:
    """Return the counts of page flags, a row for each range."""
    rows: list[dict[str, Any]] = []
    for line in lines:
        if match := re.match(r"kpageflags pfn (\w+)\.\.(\w+)", line):
            rows.append({"first_pfn": int(match[1], 0), "last_pfn": int(match[2], 0), "counts": {}})
        elif match := re.match(r"pread at pfn \w+ = 0 \(EOF\), going on at pfn (\w+)", line):
            rows[-1]["ends_at_pfn"] = int(match[1], 0) - 1
        elif match := re.match(r"entries read ([0-9]+), no flag at all ([0-9]+)", line):
            rows[-1] |= {"entries": int(match[1]), "none": int(match[2])}
        elif rows and "exit status of 'kpf" in line:
            rows[-1]["result"] = "oops"
        elif rows and (match := re.match(r"bit +[0-9]+ (\w+) +([0-9]+)", line)):
            rows[-1]["counts"][match[1]] = int(match[2])
    return rows


def section_rows(lines: list[str]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return what the instrument saw of each section, and max_pfn."""
    rows: dict[int, dict[str, Any]] = {}
    extra: dict[str, int] = {}
    for line in lines:
        if match := re.search(r"max_pfn (0x[0-9a-f]+)", line):
            extra["max_pfn"] = int(match[1], 16)
        if match := re.fullmatch(r"section ([0-9]+) (?:pfn (0x[0-9a-f]+)|(pages|first page)): (.*)", line.strip()):
            row = rows.setdefault(int(match[1]), {"section": int(match[1])})
            if match[2]:
                row["pfn"] = int(match[2], 16)
            prefix = "first_page_" if match[3] == "first page" else "pages_" if match[3] else ""
            for name, value in re.findall(r"(\w+(?:\(\w+\))?)=(\S+)", match[4]):
                key = prefix + name.replace("(", "_").replace(")", "")
                row[key] = int(value, 0) if re.fullmatch(r"0x[0-9a-f]+|[0-9]+", value) else value
    return [rows[n] for n in sorted(rows)], extra


def steps_of(name: str, text: str, what: str) -> list[dict[str, Any]]:
    """Return the steps of one file: the state after boot, writes, or uses of the memory."""
    head, parts = sections(text)
    steps: list[dict[str, Any]] = []
    for part in parts:
        if match := WRITE.fullmatch(part.title):
            path = match[2].replace("$M", MEMORY)
            steps.append({"file": name, "title": head[0], "path": path, "text": match[1], **result(part.lines)})
        elif not steps and (part.title.startswith("state after") or part.title == "fill"):
            steps.append({"file": name, "title": head[0]})
        if part.title.startswith("dmesg since"):
            log, instrument = split_log(part.lines)
            steps[-1] |= {"log": log} | ({"instrument": instrument} if instrument else {})
        elif part.title.startswith("state after"):
            state = listings(part.lines)
            files, _, _, _ = machine_files(state)
            steps[-1] |= full_state(files) | pages(state)
            if name in CAPTURED and what:
                steps[-1]["capture"] = name
        elif part.title == "states":
            steps[-1] |= short_states(part.lines)
        elif part.title == "blocks and resources":
            steps[-1] |= after_all(part.lines)
        elif part.title == "counts while filled":
            rows, extra = section_rows(part.lines)
            steps[-1] |= extra | {"kpageflags": page_flags(part.lines), "sections": rows}
    return steps


def pages(state: dict[str, list[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for title, lines in state.items():
        if title.startswith("/proc/kpageflags"):
            found["kpageflags"] = page_flags(lines)
        elif "rfc_pages" in title:
            rows, extra = section_rows(lines)
            found |= extra | {"sections": rows}
    return found


def result(lines: list[str]) -> dict[str, Any]:
    """Return what became of a write: bytes taken, an errno, an oops, or a hang."""
    for line in lines:
        if match := RESULT.fullmatch(line.strip()):
            return {"result": match["errno"] or ""} | ({"returned": int(match["ok"])} if match["ok"] else {})
        if "still blocked" in line:
            trace = [line.split("] ", 1)[1] for line in lines if line.startswith("[<") and "0xffffffffffffffff" not in line]
            return {"result": "hung", "blocked_in": [re.sub(r"\+0x.*", "", entry) for entry in trace]}
    if any("Oops" in line for line in lines):
        return {"result": "oops"}
    raise ValueError(f"no result in {lines}")


def freed(log: str, arch: str) -> list[list[int]]:
    """Return the physical ranges that the kernel's log says were given back after boot."""
    found = []
    for start, end in FREEING.findall(log):
        first, last = int(start, 16), int(end, 16)
        base, physical = max(pair for pair in LINEAR[arch] if pair[0] <= first)
        found.append([first - base + physical, last - base + physical])
    return sorted(found)


def function_names(kernel: Path) -> set[str]:
    """Return the names of the functions defined in SOURCES."""
    names = set(OWN)
    pattern = re.compile(r"^(?!typedef|struct \w+ \{|#|\s|//)[\w\s*]*?\b(\w+)\s*\([^;{}]*\)\s*\{", re.M)
    for source in SOURCES:
        names |= set(pattern.findall((kernel / source).read_text(errors="replace")))
    return names


def hits(text: str, names: set[str]) -> dict[str, int]:
    """Return function -> calls for the functions in `names`, parts that the compiler split off added up."""
    found: dict[str, int] = {}
    for line in text.split("### hits", 1)[1].split("\n"):
        if (match := re.fullmatch(r"(\w+)(?:\.\w+)* ([0-9]+)", line.strip())) and match[1] in names:
            found[match[1]] = found.get(match[1], 0) + int(match[2])
    return dict(sorted(found.items()))


def graph(text: str) -> str:
    body = [line for line in text.split("### graph", 1)[1].split("\n") if not re.match(r"#|[0-9]+ /tmp/|\s*$", line)]
    return "\n".join(body) + "\n"


def toml(value: Any) -> str:
    """Return a value in TOML, inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def toml_steps(steps: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    lines = [f"{key} = {toml(value)}" for key, value in facts.items()]
    for step in steps:
        lines += ["", "[[step]]"]
        for key, value in step.items():
            if isinstance(value, list) and value and key not in ("system_ram",):
                lines += [f"{key} = [", *(f"  {toml(item)}," for item in value), "]"]
            else:
                lines.append(f"{key} = {toml(value)}")
    return "\n".join(lines) + "\n"


def convert(source: Path, folder: Path, group: str, names: set[str]) -> None:
    """Convert the recording in one folder."""
    arch = ARCH[group]
    logs = "".join((source / n).read_text() for n in ("console-boot.txt",) if (source / n).exists())
    logs = logs or (source / "dmesg-all.txt").read_text()
    texts = {path.stem: path.read_text() for path in sorted(source.glob("*.txt"))}
    main = {n: t for n, t in texts.items() if re.match(r"[0-9]|state-writes|cannot-shift|movable-below|auto-online", n)}
    head, _ = sections(next(iter(main.values())))
    cmdline = head[2].split("kernel command line: ")[1]
    boot: dict[str, Any] = {"freed": freed(logs, arch)}
    if available := re.findall(r"Memory: .*available.*", logs):
        boot["memory"] = available[0]
    keep = "00-boot" in main
    if keep:
        _, parts = sections(main["00-boot"])
        files, *_ = machine_files(listings(parts[0].lines))
        types = buddyinfo.parse_pagetypeinfo(files["/proc/pagetypeinfo"])
        used = sum(z.managed - z.free for z in zoneinfo.parse_zoneinfo(files["/proc/zoneinfo"]))
        fixed = {"unmovable": types.used("Unmovable"), "reclaimable": types.used("Reclaimable")}
        boot["footprint"] = fixed | {"movable": used - sum(fixed.values())}
    facts = {"name": f"{group}/{source.name}", "release": "4.9.0", "arch": arch, "cmdline": cmdline, "when": WHEN}
    facts |= {"build": head[1], "origin": ORIGIN[group], "memory": boot.get("memory", "")}
    steps = [step for name, text in main.items() for step in steps_of(name, text, "capture")]
    folder.mkdir(parents=True)
    (folder / "steps.toml").write_text(toml_steps(steps, facts))
    for name in sorted(CAPTURED & set(main)):
        _, parts = sections(main[name])
        state = next(part for part in parts if part.title.startswith("state after"))
        files, links, lacks, write_only = machine_files(listings(state.lines))
        manifest = capture.Manifest(
            release="4.9.0", arch=arch, cmdline=cmdline, origin=f"{ORIGIN[group]}; {facts['name']}, {name}", when=WHEN,
            lacks=lacks, links=links, boot=boot,
        )  # fmt: skip
        capture.write(files, manifest, folder / name, write_only=frozenset(write_only), links_on_disk=False)
    for kind in ("probe", "online", "offline"):
        if f"trace-{kind}" in texts:
            (folder / f"trace-{kind}.txt").write_text(graph(texts[f"trace-{kind}"]))
    counts = {n.removeprefix("profile-"): hits(t, names) for n, t in texts.items() if n.startswith("profile-")}
    if counts:
        lines = [line for kind in sorted(counts) for line in ("", f"[{kind}]", *(f"{n} = {c}" for n, c in counts[kind].items()))]
        (folder / "counts.toml").write_text("\n".join(lines[1:]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--kernel", type=Path, required=True, help="a v4.9 source tree")
    arguments = parser.parse_args()
    names = function_names(arguments.kernel)
    for group in ORIGIN:
        if (arguments.destination / group).exists():
            shutil.rmtree(arguments.destination / group)
        for source in sorted(path for path in (arguments.source / group).iterdir() if path.is_dir()):
            convert(source, arguments.destination / group / source.name, group, names)


if __name__ == "__main__":
    main()
