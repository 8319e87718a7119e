# SPDX-License-Identifier: GPL-2.0-only
"""
From a path to what shows or stores it: the files of /sys, /proc and debugfs that memory hotplug has.

A directory is listed in alphabetical order, as `ls` shows it. A file that cannot be written refuses to be opened for writing
(EACCES), also for root.

Source: fs/kernfs/, fs/sysfs/file.c, fs/proc/generic.c; attributes from drivers/base/.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EIO, EISDIR, ENOENT, ENOTDIR
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux.drivers.base import memory, node
from memhp.linux.fs.proc import meminfo, page
from memhp.linux.include import mmzone
from memhp.linux.include.memory import MemoryBlock
from memhp.linux.include.mmzone import N_NORMAL_MEMORY, N_ONLINE
from memhp.linux.kernel import resource
from memhp.linux.mm import memblock, memory_hotplug, vmstat

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

MEMORY = "/sys/devices/system/memory"
NODE = "/sys/devices/system/node"
PARAMETERS = ("sys", "module", "memory_hotplug", "parameters")

Show = Callable[["Kernel"], str]
Store = Callable[["Kernel", str], None]
Binary = Callable[["Kernel", int, int], bytes]

BlockShow = Callable[["Kernel", MemoryBlock], str]
BlockStore = Callable[["Kernel", MemoryBlock, str], None]

_BLOCK_SHOW_V4_9: dict[str, BlockShow] = {
    "online": memory.show_online,
    "phys_device": memory.show_phys_device,
    "phys_index": memory.show_mem_start_phys_index,
    "removable": memory.show_mem_removable,
    "state": memory.show_mem_state,
    "valid_zones": memory.show_valid_zones,
}
_BLOCK_STORE_V4_9: dict[str, BlockStore] = {"state": memory.store_mem_state, "online": memory.store_online}
_BLOCK_SHOW_V5_7: dict[str, BlockShow] = {
    **_BLOCK_SHOW_V4_9, "removable": memory.removable_show, "valid_zones": memory.valid_zones_show}
_BLOCK_STORE_V5_7: dict[str, BlockStore] = {"state": memory.state_store, "online": memory.store_online}
_PROC: dict[str, Show] = {
    "buddyinfo": vmstat.frag_show,
    "cmdline": lambda k: " ".join(f"{name}={value}" if value else name for name, value in k.cmdline.items()) + "\n",
    "iomem": resource.iomem_show,
    "meminfo": meminfo.meminfo_proc_show,
    "pagetypeinfo": vmstat.pagetypeinfo_show,
    "zoneinfo": vmstat.zoneinfo_show,
}
_PROC_BINARY: dict[str, Binary] = {"kpagecount": page.kpagecount_read, "kpageflags": page.kpageflags_read}


def _node_list(nids: frozenset[int]) -> str:
    """A node mask as a list: "0-1,3". Source: include/linux/nodemask.h nodelist_scnprintf()"""
    runs: list[list[int]] = []
    for nid in sorted(nids):
        if runs and runs[-1][1] == nid - 1:
            runs[-1][1] = nid
        else:
            runs.append([nid, nid])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in runs) + "\n"


def _enoent(path: str) -> KernelError:
    return KernelError(ENOENT, "no such file", where="", path=path)


def _absent(k: Kernel, parts: tuple[str, ...], path: str) -> KernelError:
    """Say ENOTDIR of a path that goes on behind a file, else ENOENT. Source: fs/namei.c link_path_walk()"""
    if any(_is_file(k, parts[:i]) for i in range(1, len(parts))):
        return KernelError(ENOTDIR, "a part of the path is a file", where="", path=path)
    return _enoent(path)


def _is_file(k: Kernel, parts: tuple[str, ...]) -> bool:
    return _file(k, parts) is not None or (len(parts) == 2 and parts[0] == "proc" and parts[1] in _PROC_BINARY)


def _block_show(k: Kernel) -> dict[str, BlockShow]:
    """What shows the attributes of a block. Source: drivers/base/memory.c memory_memblk_attrs[]"""
    return _BLOCK_SHOW_V5_7 if k.tree.default_online_types else _BLOCK_SHOW_V4_9


def _memory_root(k: Kernel) -> dict[str, tuple[Show | None, Store | None]]:
    """The bus attributes of memory. Source: drivers/base/memory.c memory_root_attrs[]"""
    files: dict[str, tuple[Show | None, Store | None]] = {
        "auto_online_blocks": (
            (memory.auto_online_blocks_show, memory.auto_online_blocks_store) if k.tree.default_online_types
            else (memory.show_auto_online_blocks, memory.store_auto_online_blocks)),
        "block_size_bytes": (memory.print_block_size, None),
        "uevent": (None, lambda k, text: None),
    }
    if k.config.MEMORY_FAILURE and k.tree.default_online_types:
        files["soft_offline_page"] = (None, memory.soft_offline_page_store)
        files["hard_offline_page"] = (None, memory.hard_offline_page_store)
    if k.config.CRASH_HOTPLUG:
        files["crash_hotplug"] = memory.crash_hotplug_show, None
    if k.config.ARCH_MEMORY_PROBE:
        files["probe"] = (None, memory.memory_probe_store)
    return files


def _block_file(k: Kernel, block_id: int, name: str) -> tuple[Show | None, Store | None] | None:
    """An attribute of a memory block, or None. Source: drivers/base/memory.c memory_memblk_attrs[]"""
    if name == "uevent":
        return lambda k: "", lambda k, text: None
    show = _block_show(k).get(name)
    if show is None or (name == "valid_zones" and not k.config.MEMORY_HOTREMOVE):
        return None
    store = (_BLOCK_STORE_V5_7 if k.tree.default_online_types else _BLOCK_STORE_V4_9).get(name)

    def shown(k: Kernel) -> str:
        return show(k, k.memory_blocks[block_id])

    def stored(k: Kernel, text: str) -> None:
        assert store is not None
        store(k, k.block_rw(block_id), text)

    return shown, stored if store is not None else None


def _parameters(k: Kernel) -> dict[str, tuple[Show | None, Store | None]]:
    """The parameters of memory_hotplug; none before v5.14. Source: mm/memory_hotplug.c module_param()"""
    files: dict[str, tuple[Show | None, Store | None]] = {}
    if k.tree.memmap_on_memory and k.config.MHP_MEMMAP_ON_MEMORY:
        files["memmap_on_memory"] = memory_hotplug.get_memmap_mode, None
    if k.tree.auto_movable:
        files["online_policy"] = memory_hotplug.get_online_policy, memory_hotplug.set_online_policy
        files["auto_movable_ratio"] = lambda k: f"{k.auto_movable_ratio}\n", memory_hotplug._set_auto_movable_ratio
        if k.config.NUMA:
            files["auto_movable_numa_aware"] = (
                lambda k: "Y\n" if k.auto_movable_numa_aware else "N\n", memory_hotplug._set_auto_movable_numa_aware)
    return files


def _node_root(k: Kernel) -> dict[str, Show]:
    """The state files of the node bus. Source: drivers/base/node.c node_state_attrs[]"""
    files: dict[str, Show] = {
        "has_cpu": lambda k: "0\n",
        "has_normal_memory": lambda k: _node_list(k.node_states[N_NORMAL_MEMORY]),
        "online": lambda k: _node_list(k.node_states[N_ONLINE]),
        "possible": lambda k: _node_list(k.node_states[mmzone.N_POSSIBLE]),
    }
    if not k.tree.config_movable_node:
        files["has_generic_initiator"] = lambda k: _node_list(frozenset())
    if k.config.MOVABLE_NODE or not k.tree.config_movable_node:
        files["has_memory"] = lambda k: _node_list(k.node_states[mmzone.N_MEMORY])
    return files


_NODE_FILES_V4_9: dict[str, Callable[[Kernel, int], str]] = {
    "distance": node.node_read_distance,
    "meminfo": node.node_read_meminfo,
}
_NODE_FILES_V5_10: dict[str, Callable[[Kernel, int], str]] = {
    **_NODE_FILES_V4_9,
    "cpulist": node.node_read_cpulist,
    "cpumap": node.node_read_cpumap,
    "numastat": node.node_read_numastat,
    "vmstat": node.node_read_vmstat,
}


def _node_files(k: Kernel) -> dict[str, Callable[[Kernel, int], str]]:
    """The attributes of a node. Source: drivers/base/node.c node_dev_attrs[]"""
    return _NODE_FILES_V4_9 if k.tree.shown_counters == "v4.9" else _NODE_FILES_V5_10


def _number(name: str, prefix: str) -> int:
    """The N of memoryN, or -1. Source: none"""
    digits = name.removeprefix(prefix)
    if not name.startswith(prefix) or not digits.isascii() or not digits.isdigit() or (digits[0] == "0" and digits != "0"):
        return -1
    return int(digits) if len(digits) < 20 else -1


def _has_debugfs_memblock(k: Kernel) -> bool:
    """memblock's files exist where memblock is kept. Source: mm/memblock.c memblock_init_debugfs()"""
    return not k.config.ARCH_DISCARD_MEMBLOCK


def _directory(k: Kernel, parts: tuple[str, ...]) -> list[str] | None:
    """The names in a directory, sorted, or None if it is none. Source: none"""
    tree: dict[tuple[str, ...], list[str]] = {
        (): ["proc", "sys"],
        ("proc",): [*_PROC, *_PROC_BINARY],
        ("sys",): ["devices", *(["kernel"] if _has_debugfs_memblock(k) else [])],
        ("sys", "devices"): ["system"],
        ("sys", "devices", "system"): ["memory", *(["node"] if k.config.NUMA else [])],
    }
    if _has_debugfs_memblock(k):
        tree[("sys", "kernel")] = ["debug"]
        tree[("sys", "kernel", "debug")] = ["memblock"]
        tree[("sys", "kernel", "debug", "memblock")] = ["memory", "reserved"]
    if _parameters(k):
        tree["sys",] = [*tree["sys",], "module"]
        tree["sys", "module"] = ["memory_hotplug"]
        tree["sys", "module", "memory_hotplug"] = ["parameters"]
        tree[PARAMETERS] = list(_parameters(k))
    if parts in tree:
        return sorted(tree[parts])
    if parts[:3] != ("sys", "devices", "system") or len(parts) < 4:
        return None
    rest = parts[4:]
    if parts[3] == "memory":
        if not rest:
            return sorted([*_memory_root(k), *(f"memory{n}" for n in k.memory_blocks)])
        block = _number(rest[0], "memory")
        if block not in k.memory_blocks:
            return None
        if len(rest) == 1:
            names = [name for name in (*_block_show(k), "uevent") if _block_file(k, block, name) is not None]
            return sorted([*names, "subsystem", *(f"node{nid}" for nid in k.memory_blocks[block].nodes)])
        nid = _number(rest[1], "node")
        if nid in k.memory_blocks[block].nodes:
            return _directory(k, ("sys", "devices", "system", "node", *rest[1:]))
        if rest[1] == "subsystem":
            return _directory(k, ("sys", "devices", "system", "memory", *rest[2:])) if len(rest) < 8 else None
    if parts[3] == "node" and k.config.NUMA:
        online = k.node_states[N_ONLINE]
        if not rest:
            return sorted([*_node_root(k), "uevent", *(f"node{nid}" for nid in online)])
        nid = _number(rest[0], "node")
        if nid not in online:
            return None
        if len(rest) == 1:
            blocks = [f"memory{n}" for n, mem in k.memory_blocks.items() if nid in mem.nodes]
            return sorted([*_node_files(k), "uevent", *blocks])
        block = _number(rest[1], "memory")
        if block in k.memory_blocks and nid in k.memory_blocks[block].nodes:
            return _directory(k, ("sys", "devices", "system", "memory", *rest[1:])) if len(rest) < 8 else None
    return None


def _file(k: Kernel, parts: tuple[str, ...]) -> tuple[Show | None, Store | None] | None:
    """The show and store functions of a text file, or None if there is no such file. Source: none"""
    if len(parts) == 6 and parts[3] == "memory" and parts[:3] == ("sys", "devices", "system"):
        block = _number(parts[4], "memory")
        if block in k.memory_blocks and parts[5] in _block_show(k):
            return _block_file(k, block, parts[5])
    if len(parts) == 2 and parts[0] == "proc" and parts[1] in _PROC:
        return _PROC[parts[1]], None
    if parts[:4] == PARAMETERS and len(parts) == 5:
        return _parameters(k).get(parts[4])
    if parts[:4] == ("sys", "kernel", "debug", "memblock") and len(parts) == 5 and _has_debugfs_memblock(k):
        if parts[4] == "memory":
            return lambda k: memblock.memblock_debug_show(k, k.memblock.memory), None
        if parts[4] == "reserved":
            return lambda k: memblock.memblock_debug_show(k, k.memblock.reserved), None
    if parts[:3] != ("sys", "devices", "system") or len(parts) < 5:
        return None
    rest = parts[4:]
    if parts[3] == "memory":
        if len(rest) == 1:
            return _memory_root(k).get(rest[0])
        block = _number(rest[0], "memory")
        if block in k.memory_blocks and len(rest) == 2:
            return _block_file(k, block, rest[1])
        if block in k.memory_blocks and rest[1] == "subsystem" and len(rest) < 8:
            return _file(k, ("sys", "devices", "system", "memory", *rest[2:]))
        if block in k.memory_blocks and _number(rest[1], "node") in k.memory_blocks[block].nodes and len(rest) < 8:
            return _file(k, ("sys", "devices", "system", "node", *rest[1:]))
    if parts[3] == "node" and k.config.NUMA:
        if len(rest) == 1:
            show = _node_root(k).get(rest[0])
            if rest[0] == "uevent":
                return None, lambda k, text: None
            return (show, None) if show is not None else None
        nid = _number(rest[0], "node")
        if nid in k.node_states[N_ONLINE]:
            if len(rest) == 2 and rest[1] in _node_files(k):
                node_show = _node_files(k)[rest[1]]
                return lambda k: node_show(k, nid), None
            if len(rest) == 2 and rest[1] == "uevent":
                return lambda k: "", lambda k, text: None
            block = _number(rest[1], "memory")
            if block in k.memory_blocks and nid in k.memory_blocks[block].nodes and len(rest) < 8:
                return _file(k, ("sys", "devices", "system", "memory", *rest[1:]))
    return None


def _parts(path: str) -> tuple[str, ...]:
    """Cut an absolute path at its slashes. Raises KernelError ENOENT for a relative one or one with `..`. Source: none"""
    if not path.startswith("/"):
        raise _enoent(path)
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _enoent(path)
    return parts


def read(k: Kernel, path: str, offset: int = 0, size: int = -1) -> bytes:
    """
    Read a file.

    Args:
        path: Absolute, as on the machine.
        offset: First byte.
        size: Bytes at most; negative: all there are.

    Raises:
        KernelError: ENOENT; EISDIR for a directory; EACCES for a file that can only be written; what the file says.
        KernelBugError: the reader died.
    """
    parts = _parts(path)
    if len(parts) == 2 and parts[0] == "proc" and parts[1] in _PROC_BINARY:
        return _PROC_BINARY[parts[1]](k, offset, size)
    found = _file(k, parts)
    if found is None:
        if _directory(k, parts) is not None:
            raise KernelError(EISDIR, "it is a directory", where="", path=path)
        raise _absent(k, parts, path)
    if found[0] is None:
        raise KernelError(EACCES, "the file can only be written", where="", path=path)
    text = found[0](k).encode()
    return text[offset : len(text) if size < 0 else offset + size]


def write(k: Kernel, path: str, text: str) -> None:
    """
    Write to a file, in one call.

    Raises:
        KernelError: ENOENT; EISDIR; EACCES for a file that can only be read; what the file says.
        KernelBugError: the writer died.
        KernelHangError: the writer waits for ever.
    """
    parts = _parts(path)
    found = _file(k, parts)
    if found is None:
        if len(parts) == 2 and parts[0] == "proc" and parts[1] in _PROC_BINARY:
            raise KernelError(EIO, "the file can only be read", where="", path=path)
        if _directory(k, parts) is not None:
            raise KernelError(EISDIR, "it is a directory", where="", path=path)
        raise _absent(k, parts, path)
    if found[1] is None:
        if parts[0] == "proc":
            raise KernelError(EIO, "the file can only be read", where="", path=path)
        raise KernelError(EACCES, "the file can only be read", where="", path=path)
    if not text:
        return  # sysfs_kf_write() does not call store() for nothing.
    try:
        found[1](k, text)
    except KernelError as err:
        err.path = err.path or path
        raise


def listdir(k: Kernel, path: str) -> list[str]:
    """
    List a directory in alphabetical order.

    Raises:
        KernelError: ENOENT, ENOTDIR.
    """
    parts = _parts(path)
    names = _directory(k, parts)
    if names is None:
        if _is_file(k, parts):
            raise KernelError(ENOTDIR, "it is a file", where="", path=path)
        raise _absent(k, parts, path)
    return names
