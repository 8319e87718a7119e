# SPDX-License-Identifier: GPL-2.0-only
"""Machines that lack something: no apt, Ubuntu's apt, no rights. Programs of other systems are scripts in a folder."""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memhp.backends.qemu import images, process
from memhp.cli import main, vm
from memhp.errors import BackendError

UBUNTU = 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'
IMAGE = "linux-image-6.12.9+deb13-cloud-arm64-unsigned"

APT_GET = r"""#!/bin/sh
# An apt-get with Ubuntu's sources, which carry amd64 only; another source is Debian's and carries everything.
for word in "$@"; do
    case $word in
    -oAPT::Architecture=*) arch=${word#*=} ;;
    -oDir::Etc::sourcelist=*) sources=${word#*=} ;;
    update | download | indextargets) verb=$word ;;
    -*) ;;
    *) name=$word ;;
    esac
done
case $verb in
indextargets)
    echo 'Ubuntu|Ubuntu|http://mirror.example/ubuntu/'
    echo 'LP-PPA-somebody|A PPA|http://ppa.example/'
    ;;
update)
    if [ -n "$sources" ]; then
        cat "$sources" >>"$LOGGED"
    elif [ "$arch" != amd64 ]; then
        echo "E: Failed to fetch http://mirror.example/ubuntu/dists/noble/main/binary-$arch/Packages  404  Not Found" >&2
        exit 100
    fi
    ;;
download) echo "$name" >"${name}_1_$arch.deb" ;;
esac
"""
APT_CACHE = f"""#!/bin/sh
case "$*" in
*pkgnames*) echo {IMAGE}; echo linux-image-6.8.0-45-generic; echo busybox-static ;;
esac
"""
DPKG_DEB = """#!/bin/sh
# -x FILE FOLDER
read -r name <"$2"
case $name in
busybox-static) mkdir -p "$3/bin"; echo busybox >"$3/bin/busybox" ;;
*)
    mkdir -p "$3/boot" "$3/lib/modules/6.12.9/kernel"
    echo image >"$3/boot/vmlinuz-6.12.9"; echo config >"$3/boot/config-6.12.9"
    ;;
esac
"""


STUCK = f"""#!{sys.executable}
import os, sys, time
status = next(int(word.partition("Status-Fd=")[2]) for word in sys.argv if "Status-Fd=" in word)
os.write(status, b"dlstatus:1:10:Retrieving\\n")
time.sleep(600)
"""


@pytest.fixture
def ubuntu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Ubuntu on it, and an empty cache folder; returns the file that Debian's sources are noted in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", APT_GET), ("apt-cache", APT_CACHE), ("dpkg-deb", DPKG_DEB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("sh", "cat", "mkdir"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "os-release").write_text(UBUNTU)
    monkeypatch.setattr(images, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("MEMHP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOGGED", str(tmp_path / "sources"))
    monkeypatch.delenv("MEMHP_DEBIAN_MIRROR", raising=False)
    return tmp_path / "sources"


def test_ubuntu_without_a_mirror_of_debian(ubuntu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line: what this machine is, whose packages it gets, and the two ways on. No half-made kernel remains."""
    assert 3 == main(["vm", "fetch", "arm64", "v6.12"])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("memhp: ")]
    assert 1 == len(said)
    for words in ("no mirror of Debian is among the apt sources of Ubuntu 24.04.1 LTS (they are Ubuntu, LP-PPA-somebody)",
                  "MEMHP_DEBIAN_MIRROR=URL", "--kernel IMAGE --modules DIR"):  # fmt: skip
        assert words in said[0]
    assert [] == images.fetched()
    assert not ubuntu.exists()


def test_ubuntu_with_a_mirror_of_debian(ubuntu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror that is named gives kernel and busybox for the other architecture, too."""
    monkeypatch.setenv("MEMHP_DEBIAN_MIRROR", "http://mirror.example/debian")
    kernel = images.fetch("arm64", "v6.12")
    assert ("6.12.9", "image\n", "config\n") == (kernel.release, kernel.image.read_text(), (kernel.config or Path()).read_text())
    assert kernel == images.find("arm64", "v6.12")
    assert "busybox\n" == images.busybox("arm64").read_text()
    lines = ubuntu.read_text().splitlines()
    assert lines and all("http://mirror.example/debian/ " in line and line.endswith(" main") for line in lines)


def test_apt_that_has_no_lists_yet(ubuntu: Path) -> None:
    """A fresh machine: apt-get update comes first."""
    (ubuntu.parent / "bin" / "apt-get").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(BackendError, match="apt knows no package lists here yet: apt-get update"):
        images.debian_mirror()


def test_which_system_this_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not say is just this machine."""
    monkeypatch.setattr(images, "OS_RELEASE", tmp_path / "nothing")
    assert "this machine" == images.system_name()


def test_apt_that_gets_no_further(ubuntu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended, together with what it said last; on a full disk sooner."""
    (ubuntu.parent / "bin" / "apt-get").write_text(STUCK)
    monkeypatch.setattr(images, "FETCH_TIMEOUT", 1.5)
    seen: list[tuple[str, float]] = []
    apt = images.Apt("arm64")
    with pytest.raises(BackendError, match="apt has made no progress for 1.5 s: package lists of this machine's suites"):
        apt.update(lambda what, part: seen.append((what, part)))
    assert 0.1 == seen[-1][1]
    monkeypatch.setattr(images, "FULL_TIMEOUT", 0.5)
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 30, 0))
    with pytest.raises(BackendError, match="no space left on device"):
        apt.update(lambda what, part: None)


def test_a_fetch_that_waits_for_another(ubuntu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second says what it waits for, and does not wait for ever."""
    monkeypatch.setattr(images, "LOCK_TIMEOUT", 0.5)
    seen: list[str] = []
    with images._locked(lambda what, part: None), pytest.raises(BackendError, match=r"fetching into it for 0\.5 s"):
        images.fetch("arm64", "v6.12", progress=lambda what, part: seen.append(what))
    assert {"another memhp is fetching; waiting for its end"} == set(seen)


# doctor


def found() -> dict[str, vm.Finding]:
    return {finding.name: finding for finding in vm.examine()}


def _nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing is there and nothing is allowed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MEMHP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(process, "FIRMWARE", ())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(images, "KEYRING", tmp_path / "nothing")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5 << 20})())
    monkeypatch.setattr(vm, "_available", lambda: 100 << 20)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 20, 1 << 20))
    monkeypatch.setattr("tempfile.gettempdir", _no_folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def _no_folder() -> str:
    raise FileNotFoundError


def test_each_missing_thing_has_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nothing there and nothing allowed every line is a command; the exit code says so."""
    _nothing(monkeypatch, tmp_path)
    missing = list(vm.examine())
    assert [] == [finding.name for finding in missing if finding.here]
    assert [] == [finding.name for finding in missing if not finding.fix or "\n" in finding.fix]
    assert {"limit of address space", "limit of size of files", "temporary files", "memory for a guest", "KVM", "FUSE"} <= {
        finding.name for finding in missing}
    assert 4 == main(["vm", "doctor"])
    out = capsys.readouterr().out
    for command in ("apt-get install qemu-system-arm", "apt-get install qemu-efi-aarch64", "pip install 'memhp[lab]'",
                    "export MEMHP_CACHE=DIR", "export TMPDIR=DIR", "ulimit -v unlimited", "memhp vm fetch arm64 v6.12 --page 16K",
                    "apt-get install fuse3"):  # fmt: skip
        assert command in out


@pytest.mark.parametrize(
    ("there", "allowed", "cpuinfo", "fix"),
    [
        (True, False, "", "sudo usermod -aG kvm $USER"), (False, False, "flags : fpu vmx sse", "sudo modprobe kvm_intel"),
        (False, False, "flags : fpu svm", "sudo modprobe kvm_amd"), (False, False, "flags : fpu", "offers no virtualization"),
    ],
)  # fmt: skip
def test_what_keeps_kvm_away(there: bool, allowed: bool, cpuinfo: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No right, no module, or no such CPU: three different things to do."""
    read = Path.read_text
    monkeypatch.setattr(os.path, "exists", lambda path: there)
    monkeypatch.setattr(os, "access", lambda path, mode: allowed)
    monkeypatch.setattr(Path, "read_text", lambda self, *rest: cpuinfo if str(self) == "/proc/cpuinfo" else read(self, *rest))
    finding = vm._examine_kvm()
    assert not finding.here and fix in finding.fix


def test_fuse_without_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is there, the device is not, or may not be used."""
    monkeypatch.setattr(images, "apt_sources", lambda: [])
    which: Callable[[str], str | None] = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/fusermount3" if name == "fusermount3" else which(name))
    access, exists = os.access, os.path.exists
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/dev/fuse" and access(path, mode))
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/fuse" or exists(path))
    assert "sudo chmod a+rw /dev/fuse" == found()["FUSE"].fix
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/dev/fuse" and exists(path))
    assert "sudo modprobe fuse" == found()["FUSE"].fix


def test_a_cache_folder_of_somebody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is there and may not be written to; or a file stands in its place."""
    monkeypatch.setenv("MEMHP_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "apt_sources", lambda: [])
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    assert f"sudo chown -R $USER {tmp_path}" == found()["cache folder"].fix
    monkeypatch.setattr(os, "access", access)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEMHP_CACHE", str(tmp_path / "file" / "deeper"))
    finding = found()["cache folder"]
    assert (False, "export MEMHP_CACHE=DIR") == (finding.here, finding.fix)


def test_what_is_there_needs_no_command(ubuntu: Path) -> None:
    """On Ubuntu without a mirror of Debian apt is there, its lists are, a mirror is not, and none of it is needed to boot."""
    here = found()
    assert here["apt"].here and here["apt's package lists"].here
    mirror = here["mirror of Debian"]
    assert (False, False, "export MEMHP_DEBIAN_MIRROR=URL") == (mirror.here, mirror.needed, mirror.fix)
    assert "Ubuntu 24.04.1 LTS has none" in mirror.about
    assert all(dataclasses.is_dataclass(finding) for finding in here.values())
