# SPDX-License-Identifier: GPL-2.0-only
"""
A machine's files as a folder: written, checked, read.

::

    DIR/manifest.json        what was recorded, where, when; each file's size and hash; what is missing and why
    DIR/root/sys/…           the files, laid out as on the machine, so that `lsmem --sysroot DIR/root` works
    DIR/root/proc/…
    DIR/root/proc/kpageflags.gz    binary files are compressed

The manifest decides: what it does not name is not shown, and what it names must be there, be as long as it says and have
the hash it says. Links between directories (memoryN/nodeM) stand in the manifest; in the folder they are relative symlinks
for the tools that look at it, and never followed here. A capture is data from anywhere: nothing in it can make a reader
leave `root`, run code, or fill memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from memhp.abi.files import StoredFiles, shorten
from memhp.errors import UsageError
from memhp.units import MIB, format_size

VERSION = 1
MANIFEST = "manifest.json"
ROOT = "root"
MANIFEST_LIMIT = 32 * MIB
"""Bytes; enough for 30,000 memory blocks."""
FILE_LIMIT = 512 * MIB
"""Bytes of one file, uncompressed: kpageflags of 256 GiB in 4 KiB pages."""
_DEPTH = 24
_COMPRESSED = ("/proc/kpageflags", "/proc/kpagecount", "/proc/kpagecgroup")
_DEVICES = 4096
_DEVICE_KEYS = frozenset(("id", "kind", "start", "size", "node", "requested", "plugged"))
_HASH = re.compile(r"[0-9a-f]{64}")
_KEYS = frozenset(
    ("memhp_capture", "release", "arch", "page_size", "cmdline", "origin", "when", "lacks", "files", "links", "boot", "devices")
)


@dataclass(frozen=True, slots=True)
class Stored:
    """
    One file of a capture.

    Attributes:
        size: Bytes, uncompressed.
        sha256: Of the uncompressed bytes, in hexadecimal.
        gzip: True if it lies compressed, under its name with ".gz".
        write_only: True if the machine's file can only be written to (`probe`).
    """

    size: int
    sha256: str
    gzip: bool = False
    write_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """
    What a capture says about itself.

    Attributes:
        release: The kernel's release ("4.9.0").
        arch: "arm64" or "x86_64".
        page_size: Bytes.
        cmdline: The kernel command line.
        origin: Where the files come from, in words.
        when: When they were read, as written by whoever did.
        lacks: Path -> why it is not here.
        files: Path -> what must be there.
        links: Path of a directory link -> path it leads to, both absolute.
        boot: Facts about the boot that no file shows: "freed" (ranges given back), "footprint", ….
        devices: What held memory beside RAM: id, kind, start, size, node of each, requested and plugged of a virtio-mem device.
    """

    release: str
    arch: str
    page_size: int = 4096
    cmdline: str = ""
    origin: str = ""
    when: str = ""
    lacks: dict[str, str] = field(default_factory=dict)
    files: dict[str, Stored] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    boot: dict[str, Any] = field(default_factory=dict)
    devices: tuple[dict[str, Any], ...] = ()


class Capture(StoredFiles):
    """
    A recorded machine behind the same files, read-only.

    Attributes:
        manifest: What the capture says about itself.
        directory: Where it lies.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        super().__init__(
            manifest.files,
            self._content,
            links=manifest.links,
            unreadable=[path for path, entry in manifest.files.items() if entry.write_only],
            lacks=manifest.lacks,
        )
        self._kept: dict[str, bytes] = {}

    def _content(self, path: str) -> bytes:
        if path not in self._kept:
            self._kept[path] = _read_stored(self.directory, path, self.manifest.files[path])
        return self._kept[path]

    def verify(self) -> None:
        """Read every file and compare its hash; UsageError names the first that is not as recorded."""
        for path, entry in self.manifest.files.items():
            _read_stored(self.directory, path, entry)


def _stored_name(path: str, entry: Stored) -> str:
    return path[1:] + (".gz" if entry.gzip else "")


def _read_stored(directory: Path, path: str, entry: Stored) -> bytes:
    """Return one file's content, checked against the manifest."""
    file = directory / ROOT / _stored_name(path, entry)
    bound = entry.size * 2 + 65536 if entry.gzip else entry.size
    raw = _read_regular(file, bound, f"root{path}")
    data = raw
    if entry.gzip:
        try:
            unpack = zlib.decompressobj(wbits=31)
            data = unpack.decompress(raw, entry.size + 1)
        except zlib.error as err:
            raise UsageError(f"{file}: not gzip data ({err}); record the machine again") from err
        if not unpack.eof and len(data) <= entry.size:
            raise UsageError(f"{file}: the compressed data is cut off; record the machine again")
    if len(data) != entry.size:
        held = "more than" if len(data) > entry.size else f"{len(data)} bytes, not"
        raise UsageError(f"{file}: holds {held} the {entry.size} bytes of the manifest; record the machine again")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise UsageError(f"{file}: is not what was recorded (sha256 differs from the manifest); record the machine again")
    return data


def _read_regular(file: Path, limit: int, what: str) -> bytes:
    """Return up to `limit` + 1 bytes of a regular file; nothing else is ever opened for long, and no link is followed."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as err:
        reason = "is a symbolic link; a file is needed" if file.is_symlink() else (getattr(err, "strerror", None) or str(err))
        raise UsageError(f"{shorten(str(file), 200)}: {reason} (the manifest names {shorten(what)})") from err
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{shorten(str(file), 200)}: is not a regular file (the manifest names {shorten(what)})")
    with open(descriptor, "rb") as handle:
        return handle.read(limit + 1)


# Reading


def load(directory: str | Path, *, verify: bool = False) -> Capture:
    """
    Open a capture.

    Every name, size and limit is checked now; each file's hash when it is first read, or now.

    Args:
        directory: The folder with `manifest.json`.
        verify: Check every hash now.

    Raises:
        UsageError: not a capture, or a damaged or hostile one; names the file and what would do.
    """
    folder = Path(directory)
    manifest = _manifest(folder)
    try:
        capture = Capture(folder, manifest)
    except UsageError as err:
        raise UsageError(f"{folder / MANIFEST}: {err}") from None
    _check_layout(folder, manifest)
    if verify:
        capture.verify()
    return capture


def is_capture(directory: str | Path) -> bool:
    """Return True if the folder has a manifest, good or bad."""
    return (Path(directory) / MANIFEST).is_file()


def _manifest(folder: Path) -> Manifest:
    shown = shorten(str(folder), 200)
    try:
        mode = folder.stat().st_mode
    except (OSError, ValueError) as err:
        raise UsageError(f"{shown}: {getattr(err, 'strerror', None) or err}; a capture is a folder with {MANIFEST}") from err
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{shown}: not a folder; a capture is a folder with {MANIFEST} and {ROOT}/")
    file = folder / MANIFEST
    if not file.exists() and not file.is_symlink():
        raise UsageError(f"{shown}: no {MANIFEST} in it, so it is no capture; `memhp capture -o DIR` makes one")
    raw = _read_regular(file, MANIFEST_LIMIT, MANIFEST)
    if len(raw) > MANIFEST_LIMIT:
        raise UsageError(f"{file}: more than {format_size(MANIFEST_LIMIT)}; the manifest of a capture is shorter")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise UsageError(f"{file}: not UTF-8 text (byte {err.start})") from err
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise UsageError(f"{file}: nested too deeply for a manifest") from None
    except UsageError as err:
        raise UsageError(f"{file}: {err}") from None
    except ValueError as err:
        raise UsageError(f"{file}: not JSON: {shorten(str(err), 100)}") from err
    try:
        return _check(content)
    except UsageError as err:
        raise UsageError(f"{file}: {err}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise UsageError(f"{shorten(twice)!r} stands there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise UsageError(f"{name} is not a number JSON has")


def _check(content: object) -> Manifest:
    """Return the manifest in `content`, all of it checked."""
    if not isinstance(content, dict):
        raise UsageError("not an object; a manifest begins with {")
    version = content.get("memhp_capture")
    if version is None:
        raise UsageError('no "memhp_capture": 1, so this is no manifest of a capture')
    if version != VERSION or isinstance(version, bool):
        raise UsageError(f"capture format {shorten(repr(version))}; this memhp reads format {VERSION}")
    unknown = sorted(set(content) - _KEYS)
    if unknown:
        raise UsageError(f"unknown key {shorten(unknown[0])!r}; there are {', '.join(sorted(_KEYS))}")
    page_size = content.get("page_size", 4096)
    if isinstance(page_size, bool) or page_size not in (4096, 16384, 65536):
        raise UsageError(f"page_size is {shorten(repr(page_size))}; 4096, 16384 or 65536 would do")
    files = {_path(path): _stored(path, entry) for path, entry in _mapping(content, "files").items()}
    links = {_path(path): _path(_text(to, f"links of {shorten(path)}")) for path, to in _mapping(content, "links").items()}
    lacks = {path: _text(why, f"lacks of {shorten(path)}") for path, why in _mapping(content, "lacks").items()}
    if both := sorted(set(files) & set(links)):
        raise UsageError(f"{shorten(both[0])!r} is a file and a link at once")
    _boot(content.get("boot", {}))
    return Manifest(
        release=_text(content.get("release", ""), "release"),
        arch=_text(content.get("arch", ""), "arch"),
        page_size=page_size,
        cmdline=_text(content.get("cmdline", ""), "cmdline"),
        origin=_text(content.get("origin", ""), "origin"),
        when=_text(content.get("when", ""), "when"),
        lacks=lacks,
        files=files,
        links=links,
        boot=content.get("boot", {}),
        devices=tuple(_devices(content.get("devices", []))),
    )


def _mapping(content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{name} is not an object")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > 1 << 16:
        raise UsageError(f"{what} is not a text of up to 65536 characters")
    return value


def _path(path: str) -> str:
    """Return an absolute path that stays inside; UsageError on any other."""
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]) or "\0" in path:
        raise UsageError(f"path {shorten(path)!r}: an absolute path without '..', '.' and empty parts would do")
    if len(path) > 1024 or len(parts) > _DEPTH or any(len(part.encode("utf-8", "replace")) > 255 for part in parts):
        raise UsageError(f"path {shorten(path)!r}: too long or too deep for a path of /sys or /proc")
    return path


def _stored(path: str, entry: object) -> Stored:
    shown = shorten(path)
    if not isinstance(entry, dict):
        raise UsageError(f"files of {shown!r}: not an object with size and sha256")
    size, digest = entry.get("size"), entry.get("sha256")
    packed, write_only = entry.get("gzip", False), entry.get("write_only", False)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= FILE_LIMIT:
        raise UsageError(f"files of {shown!r}: size {shorten(repr(size))} is not 0 … {format_size(FILE_LIMIT)}")
    if not isinstance(digest, str) or _HASH.fullmatch(digest) is None:
        raise UsageError(f"files of {shown!r}: sha256 is not 64 hexadecimal digits")
    if not isinstance(packed, bool) or not isinstance(write_only, bool):
        raise UsageError(f"files of {shown!r}: gzip and write_only are true or false")
    return Stored(size, digest, packed, write_only)


def _boot(boot: object) -> None:
    """Check the facts that memhp itself reads; others may be anything."""
    if not isinstance(boot, dict):
        raise UsageError("boot is not an object")
    freed = boot.get("freed", [])
    if not isinstance(freed, list):
        raise UsageError("boot.freed is not a list of [start, end]")
    for pair in freed:
        good = isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 0 <= n < 1 << 64 for n in pair)
        if not good or pair[0] >= pair[1]:
            raise UsageError(f"boot.freed holds {shorten(repr(pair))}; [start, end] with start < end would do")
    footprint = boot.get("footprint", {})
    if not isinstance(footprint, dict) or not set(footprint) <= {"unmovable", "reclaimable", "movable"}:
        raise UsageError("boot.footprint is not an object with unmovable, reclaimable, movable")
    for name, pages in footprint.items():
        if type(pages) is not int or not 0 <= pages < 1 << 52:
            raise UsageError(f"boot.footprint.{name} is {shorten(repr(pages))}, not a number of pages")


def _devices(devices: object) -> list[dict[str, Any]]:
    """Return the list of devices, checked."""
    if not isinstance(devices, list) or len(devices) > _DEVICES:
        raise UsageError(f"devices is not a list of up to {_DEVICES} objects")
    for device in devices:
        if not isinstance(device, dict) or not {"id", "kind", "start", "size"} <= set(device) <= _DEVICE_KEYS:
            raise UsageError(f"devices holds {shorten(repr(device))}; an object with id, kind, start, size would do")
        for name, value in device.items():
            if name in ("id", "kind"):
                _text(value, f"devices: {name}")
            elif type(value) is not int or not 0 <= value < 1 << 64:
                raise UsageError(f"devices: {name} is {shorten(repr(value))}, not a number")
    return devices


def _check_layout(folder: Path, manifest: Manifest) -> None:
    """Check that every file of the manifest is there, a regular file, reached without a link, and of the size it says."""
    try:
        top = os.path.realpath(folder / ROOT, strict=True)
        outside = (folder / ROOT).is_symlink()
    except (OSError, ValueError) as err:
        if not manifest.files:
            return
        raise UsageError(f"{folder / ROOT}: missing; the files of a capture lie there") from err
    if outside:
        raise UsageError(f"{folder / ROOT}: is a symbolic link; a folder is needed")
    plain: set[str] = {top}
    for path, entry in manifest.files.items():
        name = _stored_name(path, entry)
        place = os.path.join(top, name)
        parent = os.path.dirname(place)
        if parent not in plain:
            _check_parents(top, parent, path, plain)
        try:
            found = os.lstat(place)
        except (OSError, ValueError):
            raise UsageError(f"{place}: missing, though the manifest names it; record the machine again") from None
        if stat.S_ISLNK(found.st_mode):
            raise UsageError(f"{place}: is a symbolic link; the files of a capture are regular files")
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{place}: is not a regular file, though the manifest names it as one")
        if not entry.gzip and found.st_size != entry.size:
            raise UsageError(f"{place}: {found.st_size} bytes, the manifest says {entry.size}; record the machine again")


def _check_parents(top: str, parent: str, path: str, plain: set[str]) -> None:
    """Check that no folder between `top` and `parent` is a symbolic link."""
    position = top
    for part in PurePosixPath(os.path.relpath(parent, top)).parts:
        position = os.path.join(position, part)
        if position in plain:
            continue
        if os.path.islink(position):
            raise UsageError(f"{position}: is a symbolic link on the way to {shorten(path)}; captures keep files in folders")
        plain.add(position)


# Writing


def check_new(directory: str | Path) -> Path:
    """Return a folder that a capture may be written into; UsageError if it is there and not empty."""
    folder = Path(directory)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists; a capture wants a new or empty folder")
    return folder


def write(
    files_by_path: Mapping[str, str | bytes],
    manifest: Manifest,
    directory: str | Path,
    *,
    write_only: frozenset[str] = frozenset(),
    links_on_disk: bool = True,
) -> Manifest:
    """
    Write a capture into a new or empty folder and return its manifest, completed.

    Args:
        files_by_path: Absolute path on the machine -> content.
        manifest: What to say; `files` is filled in here.
        directory: The folder; made if it is not there.
        write_only: Paths that exist but cannot be read; they lie empty in the capture.
        links_on_disk: Make the links of the manifest in the folder, too, as relative symlinks.

    Raises:
        UsageError: the folder is not empty, a path climbs out of the root, a file is too long.
        OSError: the folder cannot be written to.
    """
    folder = check_new(directory)
    contents: dict[str, bytes] = {}
    entries: dict[str, Stored] = {}
    for path in sorted({*files_by_path, *write_only}):
        content = files_by_path.get(path, b"")
        data = content.encode() if isinstance(content, str) else bytes(content)
        packed = path in _COMPRESSED
        entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "gzip": packed, "write_only": path in write_only}
        entries[_path(path)] = _stored(path, entry)
        contents[path] = gzip.compress(data, mtime=0) if packed else data
    links = {_path(path): _path(manifest.links[path]) for path in sorted(manifest.links)}
    complete = Manifest(
        release=manifest.release, arch=manifest.arch, page_size=manifest.page_size, cmdline=manifest.cmdline,
        origin=manifest.origin, when=manifest.when, lacks=dict(sorted(manifest.lacks.items())), files=entries,
        links=links, boot=manifest.boot, devices=manifest.devices,
    )  # fmt: skip
    text = _render(complete)
    checked = _check(json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant))
    StoredFiles(checked.files, contents.__getitem__, links=checked.links)
    for path, data in contents.items():
        place = folder / ROOT / _stored_name(path, entries[path])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    if links_on_disk:
        for path, target in links.items():
            place = folder / ROOT / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(target, os.path.dirname(path)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ROOT).mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return complete


def _render(manifest: Manifest) -> str:
    """Return the manifest as JSON, one file a line, so that two captures can be compared by eye."""
    files = {path: _entry(entry) for path, entry in manifest.files.items()}
    head = {
        "memhp_capture": VERSION, "release": manifest.release, "arch": manifest.arch, "page_size": manifest.page_size,
        "cmdline": manifest.cmdline, "origin": manifest.origin, "when": manifest.when, "boot": manifest.boot,
        "devices": list(manifest.devices),
    }  # fmt: skip
    lines = [f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in head.items()]
    for key, table in (("lacks", manifest.lacks), ("links", manifest.links), ("files", files)):
        rows: list[str] = [f"    {json.dumps(path)}: {json.dumps(table[path])}" for path in table]
        lines.append(f"  {json.dumps(key)}: {{" + ("\n" + ",\n".join(rows) + "\n  " if rows else "") + "}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _entry(entry: Stored) -> dict[str, Any]:
    extra = {name: True for name in ("gzip", "write_only") if getattr(entry, name)}
    return {"size": entry.size, "sha256": entry.sha256, **extra}


