# SPDX-License-Identifier: GPL-2.0-only
"""
Resources: who has which physical addresses; /proc/iomem.

A tree of named ranges, both ends inclusive. The children of a resource lie inside it, are sorted and do not overlap. Hot-add asks
for its range first of all ("System RAM"): that is where a second add of the same memory fails. Onlining walks the System RAM in
it; hot-remove cuts its range out of whichever entry contains it.

How it differs from C: a resource keeps its children in a list, searched by bisection, and does not know its parent or sibling.
So functions that C gives a resource alone take its parent beside it, or look it up from `iomem_resource`. The tree is shared with
forks: edit below `Kernel.iomem_rw()`.

Locks: resource_lock, a rwlock, around each function without underscores.

Source: kernel/resource.c.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from errno import EBUSY, EINVAL
from operator import attrgetter
from typing import TYPE_CHECKING

from memhp.errors import KernelError
from memhp.linux import bug
from memhp.linux.include.ioport import (
    IORESOURCE_BUSY,
    IORESOURCE_MEM,
    IORESOURCE_SYSRAM_MERGEABLE,
    IORESOURCE_SYSTEM_RAM,
    Resource,
)

if TYPE_CHECKING:
    from memhp.linux.state import Kernel

MAX_IORES_LEVEL = 5

REGION_INTERSECTS, REGION_DISJOINT, REGION_MIXED = range(3)

_START = attrgetter("start")
_END = attrgetter("end")


def _editable(k: Kernel, root: Resource) -> Resource:
    """Return `root`, or this kernel's own copy if it is the root of the shared tree. Source: none"""
    return k.iomem_rw() if root is k.iomem_resource else root


def _matches(r: Resource, old: Resource) -> bool:
    """Say whether `r` is `old`, or its copy in the tree of a fork. Source: none"""
    return r is old or (r.start, r.end, r.name, r.flags) == (old.start, old.end, old.name, old.flags)


def _parent_of(root: Resource, old: Resource) -> tuple[Resource, int] | None:
    """Return the parent of a resource and its index there; None if it is not in the tree. Source: none"""
    twin: tuple[Resource, int] | None = None
    parent = root
    while True:
        i = bisect_left(parent.child, old.start, key=_END)
        if i == len(parent.child):
            return twin
        r = parent.child[i]
        if r is old:
            return parent, i
        if twin is None and _matches(r, old):
            twin = parent, i
        parent = r


def next_resource(root: Resource, *, sibling_only: bool = False, start: int = 0) -> Iterator[tuple[int, Resource]]:
    """
    Yield (depth, resource) from the first child on: a resource, then what is inside it, then its sibling.

    Args:
        root: Whose children to walk; not yielded.
        sibling_only: Do not look inside.
        start: Leave out children that end below it.

    Source: kernel/resource.c next_resource() [v4.9]
    """
    above: list[tuple[list[Resource], int]] = []
    siblings, i = root.child, bisect_left(root.child, start, key=_END)
    while True:
        if i < len(siblings):
            p = siblings[i]
            i += 1
            yield len(above), p
            if not sibling_only and p.child:
                above.append((siblings, i))
                siblings, i = p.child, 0
        elif above:
            siblings, i = above.pop()
        else:
            return


def iomem_show(k: Kernel) -> str:
    """Return /proc/iomem as root reads it. Source: kernel/resource.c r_show() [v4.9]"""
    root = k.iomem_resource
    width = 4 if root.end < 0x10000 else 8
    return "".join(
        f"{'':{min(depth, MAX_IORES_LEVEL) * 2}}{r.start:0{width}x}-{r.end:0{width}x} : {r.name or '<BAD>'}\n"
        for depth, r in next_resource(root)
    )


def __request_resource(k: Kernel, root: Resource, new: Resource) -> Resource | None:
    """
    Put `new` below `root`; what stands in the way is returned instead (`root` itself if `new` does not fit in).

    Source: kernel/resource.c __request_resource() [v4.9]
    """
    start, end = new.start, new.end
    if end < start:
        return root
    if start < root.start:
        return root
    if end > root.end:
        return root
    i = bisect_left(root.child, start, key=_END)
    if i < len(root.child) and root.child[i].start <= end:
        return root.child[i]
    root.child.insert(i, new)
    return None


def __release_resource(k: Kernel, old: Resource, release_child: bool) -> None:
    """
    Take `old` out; what is inside goes too, or moves up to where `old` was.

    Raises:
        KernelError: EINVAL if it is not in the tree.

    Source: kernel/resource.c __release_resource() [v4.9]
    """
    found = _parent_of(k.iomem_rw(), old)
    if found is None:
        raise KernelError(EINVAL, f"{old.name} {old.start:#x}-{old.end:#x} is not in the tree", start=old.start, end=old.end)
    parent, i = found
    parent.child[i : i + 1] = [] if release_child else parent.child[i].child


def request_resource_conflict(k: Kernel, root: Resource, new: Resource) -> Resource | None:
    """As `request_resource()`, returning what stands in the way. Source: kernel/resource.c request_resource_conflict() [v4.9]"""
    return __request_resource(k, _editable(k, root), new)


def request_resource(k: Kernel, root: Resource, new: Resource) -> None:
    """
    Reserve a range.

    Args:
        k: The kernel.
        root: Where: `k.iomem_resource`, or a resource below `k.iomem_rw()`.
        new: The range; from now on it belongs to the tree.

    Raises:
        KernelError: EBUSY if another resource has any of it, or it does not fit into `root`.

    Source: kernel/resource.c request_resource() [v4.9]
    """
    conflict = request_resource_conflict(k, root, new)
    if conflict is not None:
        what = f"{conflict.name} {conflict.start:#x}-{conflict.end:#x}"
        outside = conflict is root or conflict is k.iomem_resource
        reason = f"it does not fit into {what}" if outside else f"{what} is there already"
        raise KernelError(EBUSY, reason, start=new.start, end=new.end, conflict=conflict.name)


def __request_region(k: Kernel, parent: Resource, start: int, size: int, name: str, flags: int) -> Resource:
    """
    Reserve [start, start + size) as busy, below what is there and not busy, if it fits in.

    Raises:
        KernelError: EBUSY if something busy has any of it, or it does not fit. (In C the answer is NULL.)

    Source: kernel/resource.c __request_region() [v6.12], without muxed regions
    """
    parent = _editable(k, parent)
    new = Resource(start, start + size - 1, name, parent.flags & IORESOURCE_MEM | IORESOURCE_BUSY | flags)
    while True:
        conflict = __request_resource(k, parent, new)
        if conflict is None:
            return new
        if conflict is parent or conflict.flags & IORESOURCE_BUSY:
            raise KernelError(
                EBUSY, f"{conflict.name} {conflict.start:#x}-{conflict.end:#x} is there already", start=start, end=new.end)
        parent = conflict


def release_resource(k: Kernel, old: Resource) -> None:
    """
    Give a range back, with everything inside.

    Raises:
        KernelError: EINVAL if it is not in the tree.

    Source: kernel/resource.c release_resource() [v4.9]
    """
    __release_resource(k, old, True)


def remove_resource(k: Kernel, old: Resource) -> None:
    """
    Take a range out and leave what was inside in its place.

    Raises:
        KernelError: EINVAL if it is not in the tree.

    Source: kernel/resource.c remove_resource() [v4.9]
    """
    __release_resource(k, old, False)


def __insert_resource(k: Kernel, parent: Resource, new: Resource) -> Resource | None:
    """
    Put `new` in at the depth where it fits: around what it contains, inside what contains it.

    Returns:
        What overlaps it in part, or None.

    Source: kernel/resource.c __insert_resource() [v4.9]
    """
    while True:
        first = __request_resource(k, parent, new)
        if first is None or first is parent:
            return first
        if bug.WARN_ON(k.log, first is new):
            return first
        if first.start > new.start or first.end < new.end:
            break
        if first.start == new.start and first.end == new.end:
            break
        parent = first

    i = bisect_left(parent.child, new.start, key=_END)
    last = bisect_right(parent.child, new.end, lo=i, key=_START)
    for next in parent.child[i:last]:
        if next.start < new.start or next.end > new.end:
            return next
    new.child = parent.child[i:last]
    parent.child[i:last] = [new]
    return None


def insert_resource_conflict(k: Kernel, parent: Resource, new: Resource) -> Resource | None:
    """As `insert_resource()`, returning what stands in the way. Source: kernel/resource.c insert_resource_conflict() [v4.9]"""
    return __insert_resource(k, _editable(k, parent), new)


def insert_resource(k: Kernel, parent: Resource, new: Resource) -> None:
    """
    Put a range in wherever it fits, around or inside others.

    Raises:
        KernelError: EBUSY if another resource overlaps it in part.

    Source: kernel/resource.c insert_resource() [v4.9]
    """
    conflict = insert_resource_conflict(k, parent, new)
    if conflict is not None:
        what = f"{conflict.name} {conflict.start:#x}-{conflict.end:#x}"
        raise KernelError(EBUSY, f"{what} overlaps it in part", start=new.start, end=new.end, conflict=conflict.name)


def __adjust_resource(k: Kernel, parent: Resource, res: Resource, start: int, size: int) -> None:
    """
    Move the ends of `res`, a child of `parent`, to [start, start + size).

    Raises:
        KernelError: EBUSY if it would leave its parent, meet a sibling, or lose something inside.

    Source: kernel/resource.c __adjust_resource() [v4.9]
    """
    end = start + size - 1
    if start < parent.start or end > parent.end:
        raise KernelError(EBUSY, f"{parent.name} {parent.start:#x}-{parent.end:#x} does not contain it", start=start, end=end)
    i = bisect_left(parent.child, res.start, key=_START)
    if i + 1 < len(parent.child) and parent.child[i + 1].start <= end:
        raise KernelError(EBUSY, f"{parent.child[i + 1].name} above is in the way", start=start, end=end)
    if i and start <= parent.child[i - 1].end:
        raise KernelError(EBUSY, f"{parent.child[i - 1].name} below is in the way", start=start, end=end)
    for tmp in res.child:
        if tmp.start < start or tmp.end > end:
            raise KernelError(EBUSY, f"{tmp.name} {tmp.start:#x}-{tmp.end:#x} inside would be cut off", start=start, end=end)
    res.start = start
    res.end = end


def release_mem_region_adjustable(k: Kernel, parent: Resource, start: int, size: int) -> None:
    """
    Cut [start, start + size) out of the busy memory resource that contains it: the whole entry, one of its ends, or its middle.

    In the last case what was inside the entry stays with the lower part. A single byte is never found, as in C.

    Raises:
        KernelError: EINVAL if no busy memory resource contains it; EBUSY if something inside the entry would be cut off.

    Source: kernel/resource.c release_mem_region_adjustable() [v4.9]
    """
    end = start + size - 1
    if start < parent.start or end > parent.end:
        raise KernelError(EINVAL, f"{parent.name} does not contain it", start=start, end=end)

    p = _editable(k, parent)
    while True:
        i = bisect_right(p.child, start, key=_START) - 1
        if i < 0 or p.child[i].end < end or p.child[i].start >= end:
            raise KernelError(EINVAL, f"no resource contains all of {start:#x}-{end:#x}", start=start, end=end)
        res = p.child[i]
        if not res.flags & IORESOURCE_MEM:
            raise KernelError(EINVAL, f"{res.name} is not memory", start=start, end=end)
        if res.flags & IORESOURCE_BUSY:
            break
        p = res

    if res.start == start and res.end == end:
        del p.child[i]
    elif res.start == start:
        __adjust_resource(k, p, res, end + 1, res.end - end)
    elif res.end == end:
        __adjust_resource(k, p, res, res.start, start - res.start)
    else:
        new_res = Resource(end + 1, res.end, res.name, res.flags)
        __adjust_resource(k, p, res, res.start, start - res.start)
        p.child.insert(i + 1, new_res)


def system_ram_resources_mergeable(k: Kernel, r1: Resource, r2: Resource) -> bool:
    """Source: kernel/resource.c system_ram_resources_mergeable() [v5.10]"""
    return r1.flags == r2.flags and r1.end + 1 == r2.start and r1.name == r2.name and not r1.child and not r2.child


def merge_system_ram_resource(k: Kernel, res: Resource) -> None:
    """
    Let a System RAM entry join its neighbours, if these may be joined too; removing parts of it splits it again.

    Source: kernel/resource.c merge_system_ram_resource() [v5.10]
    """
    flags = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
    if bug.WARN_ON_ONCE(k.log, res.flags & flags != flags):
        return
    found = _parent_of(k.iomem_rw(), res)
    assert found is not None
    parent, i = found
    res = parent.child[i]
    res.flags |= IORESOURCE_SYSRAM_MERGEABLE
    if i + 1 < len(parent.child) and system_ram_resources_mergeable(k, res, parent.child[i + 1]):
        res.end = parent.child[i + 1].end
        del parent.child[i + 1]
    if i and system_ram_resources_mergeable(k, parent.child[i - 1], res):
        parent.child[i - 1].end = res.end
        del parent.child[i]


def find_next_iomem_res(k: Kernel, res: Resource, first_level_children_only: bool) -> bool:
    """
    Find the lowest resource that has all flags of `res` and meets [res.start, res.end); `res` then holds what both share.

    Returns:
        Whether there is one (0 or -1 in C).

    Source: kernel/resource.c find_next_iomem_res() [v4.9]
    """
    start, end = res.start, res.end
    bug.BUG_ON(k.log, start >= end)
    for _, p in next_resource(k.iomem_resource, sibling_only=first_level_children_only, start=start):
        if p.start > end:
            return False
        if p.flags & res.flags != res.flags:
            continue
        if p.end >= start and p.start < end:
            res.start = max(res.start, p.start)
            res.end = min(res.end, p.end)
            return True
    return False


def walk_system_ram_range(k: Kernel, start_pfn: int, nr_pages: int, func: Callable[[Kernel, int, int], int]) -> int:
    """
    Call `func(k, start_pfn, nr_pages)` for each run of whole pages of busy System RAM in the range.

    In v4.9 only children of the root count; later also what lies inside others, such as the memory of a virtio-mem device. The
    walk ends when `func` returns something else than 0.

    Returns:
        What `func` returned last; if it was never called -EINVAL, in v4.9 -1, which reads as -EPERM.

    Source: kernel/resource.c walk_system_ram_range() [v4.9, v5.10]
    """
    orig_end = (start_pfn + nr_pages << k.PAGE_SHIFT) - 1
    res = Resource(start_pfn << k.PAGE_SHIFT, orig_end, "", IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY)
    ret = -EINVAL if k.tree.system_ram_inside_others else -1
    while res.start < res.end and find_next_iomem_res(k, res, not k.tree.system_ram_inside_others):
        pfn = res.start + k.PAGE_SIZE - 1 >> k.PAGE_SHIFT
        end_pfn = res.end + 1 >> k.PAGE_SHIFT
        if end_pfn > pfn:
            ret = func(k, pfn, end_pfn - pfn)
        if ret:
            break
        res.start = res.end + 1
        res.end = orig_end
    return ret


def __is_ram(k: Kernel, pfn: int, nr_pages: int) -> int:
    """Source: kernel/resource.c __is_ram() [v4.9]"""
    return 1


def page_is_ram(k: Kernel, pfn: int) -> bool:
    """Say whether a page is System RAM. Source: kernel/resource.c page_is_ram() [v4.9]"""
    return walk_system_ram_range(k, pfn, 1, __is_ram) == 1


def region_intersects(k: Kernel, start: int, size: int, flags: int) -> int:
    """
    Return REGION_INTERSECTS if [start, start + size) meets only resources with `flags`, REGION_MIXED if also others, else
    REGION_DISJOINT. Holes do not count.

    Source: kernel/resource.c region_intersects() [v4.9]
    """
    end = start + size - 1
    type = other = False
    child = k.iomem_resource.child
    for p in child[bisect_left(child, start, key=_END) : bisect_right(child, end, key=_START)]:
        if p.flags & flags == flags:
            type = True
        else:
            other = True
    if not other:
        return REGION_INTERSECTS if type else REGION_DISJOINT
    return REGION_MIXED if type else REGION_DISJOINT
