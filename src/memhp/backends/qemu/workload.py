# SPDX-License-Identifier: GPL-2.0-only
"""
Workloads in a guest: pages that somebody holds, made with what a busybox can.

The kernel hands pages out where it likes: memory of processes and of files comes from ZONE_MOVABLE as long as there is some. A
writer that waits for what does not come gets SIGTERM; the kernel's answer to it, -EINTR, dies with it, so it is told from how the
writer ended.
"""

from __future__ import annotations

import errno

from memhp.backends.qemu.guest import Guest, errno_of, escape
from memhp.errors import KernelError, UsageError
from memhp.units import MIB, format_size

KINDS = ("anon", "movable", "file", "hugetlb-free")
"""Kinds of pages that a guest can be made to hold."""
PATIENCE = 15
"""Seconds a writer waits before it gets its signal."""
TIMEOUT = 300.0

# A guest whose memory has gone to a file has nobody to kill for it: it panics. So some is left.
_ROOM = """
room=$(sed -n 's/^MemAvailable: *//p' /proc/meminfo | sed 's/ kB//')
[ $room -gt $(({size} / 1024 + 32768)) ] || exit 1
"""
_FILE = f"""{_ROOM}
mkdir -p /run/work/{{id}} && mount -t tmpfs -o size={{size}} tmpfs /run/work/{{id}} || exit 2
dd if=/dev/zero of=/run/work/{{id}}/file bs=1048576 count={{count}} 2>/dev/null && exit 0
umount /run/work/{{id}}
exit 1
"""
# dd reads all of it into one buffer, and then waits for somebody who takes what it writes.
_ANON = f"""{_ROOM}
mkdir -p /run/work/{{id}} && mkfifo /run/work/{{id}}/pipe || exit 2
sleep 1000000 </run/work/{{id}}/pipe >/dev/null 2>&1 &
echo $! >/run/work/{{id}}/pids
dd if=/dev/zero of=/run/work/{{id}}/pipe bs={{size}} count=1 >/dev/null 2>&1 &
pid=$!
echo $pid >>/run/work/{{id}}/pids
while sleep 0.2; do
    [ -d /proc/$pid ] || exit 1
    case "$(cat /proc/$pid/wchan)" in *pipe_w*) exit 0 ;; esac
    case "$(cat /proc/$pid/stat)" in *") Z "*) exit 1 ;; esac
done
"""
_HUGE = """
mkdir -p /run/work/{id} || exit 2
size=$(($(sed -n 's/^Hugepagesize: *//p' /proc/meminfo | sed 's/ kB//') * 1024))
[ $(({size} % size)) = 0 ] || exit 3
before=$(cat /proc/sys/vm/nr_hugepages)
echo $((before + {size} / size)) >/proc/sys/vm/nr_hugepages
[ $(cat /proc/sys/vm/nr_hugepages) = $((before + {size} / size)) ] && echo $(({size} / size)) >/run/work/{id}/huge && exit 0
echo $before >/proc/sys/vm/nr_hugepages
exit 1
"""
_FREE = """
cd /run/work/{id} || exit 1
[ -e pids ] && for pid in $(cat pids); do kill -9 $pid; done
if [ -e huge ]; then
    left=$(($(cat /proc/sys/vm/nr_hugepages) - $(cat huge)))
    [ $left -lt 0 ] && left=0
    echo $left >/proc/sys/vm/nr_hugepages
fi
cd /
umount /run/work/{id} 2>/dev/null
rm -rf /run/work/{id}
true
"""
_SIGNAL = """
printf %b '{text}' >/run/text
dd if=/run/text of={path} bs=1048576 conv=notrunc 2>/run/error &
writer=$!
(sleep {patience}; kill -TERM $writer) >/dev/null 2>&1 &
wait $writer
status=$?
kill $! 2>/dev/null
[ $status = 143 ] && echo 'memhp: got its signal' && exit 0
[ $status = 0 ] && exit 0
sed '/records/d' /run/error
exit 1
"""


def alloc(guest: Guest, id: str, size: int, kind: str, block: int | None) -> None:
    """
    Let a workload take pages: all of them, or none.

    Raises:
        KernelError: ENOMEM.
        UsageError: a guest cannot be made to hold such pages, or there; or the workload exists.
    """
    if kind not in KINDS:
        raise UsageError(f"workload {id!r}: a guest cannot be made to hold {kind} pages; it can {', '.join(KINDS)}")
    if block is not None:
        raise UsageError(f"workload {id!r}: the guest's kernel chooses which pages it gets; leave the block out")
    if size % MIB:
        raise UsageError(f"workload {id!r}: {format_size(size)} is no multiple of 1M")
    script = {"file": _FILE, "hugetlb-free": _HUGE}.get(kind, _ANON)
    code, _ = guest.run(script.format(id=id, size=size, count=size // MIB), TIMEOUT)
    if code == 3:
        raise UsageError(f"workload {id!r}: {format_size(size)} is no number of huge pages")
    if code == 2:
        raise UsageError(f"workload {id!r} is there already")
    if code:
        raise KernelError(errno.ENOMEM, "there is not enough memory for the workload", where="")


def free(guest: Guest, id: str) -> None:
    """Let a workload go, and its pages. Raises UsageError if there is none of that name."""
    code, _ = guest.run(_FREE.format(id=id), TIMEOUT)
    if code:
        raise UsageError(f"no workload {id!r}")


def write_with_signal(guest: Guest, path: str, text: str) -> None:
    """
    Write as `Guest.write` does, and send the writer a signal if it has not come back after a while.

    Raises:
        KernelError: the kernel refused; EINTR if the signal ended it.
    """
    code, said = guest.run(_SIGNAL.format(text=escape(text), path=path, patience=PATIENCE), TIMEOUT)
    if b"memhp: got its signal" in said:
        raise KernelError(errno.EINTR, "a signal ended what did not end", where="", path=path)
    if code:
        words = said.decode("utf-8", "replace").strip().rpartition(": ")[2]
        raise KernelError(errno_of(words), where="", path=path)
