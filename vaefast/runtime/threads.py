"""How many threads work on a call: never more than this process has processors for.

PyTorch's number may be larger: it counts a machine's processors where a container has a quota of
two, or it is set by hand. Threads that share processors wait for each other at every layer, so the
kernels take no more than the processors that this process may run on. What a result holds is the
same for any number of threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from vaefast.runtime import openmp

__all__ = ["count", "limit", "quota"]

CGROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def count() -> int:
    """Threads for a kernel: PyTorch's number for this Python thread, at most :func:`limit`."""
    asked = torch.get_num_threads()
    return asked if asked == 1 else min(asked, limit())


def limit() -> int:
    """Processors that this process may use: its affinity, and its control group's quota.

    1 in a child of ``os.fork`` whose OpenMP threads stayed with its parent.
    """
    if openmp.lost_threads():
        return 1
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _quota())
    return os.cpu_count() or 1


@cache
def _quota() -> int:
    """Processors that the control group pays for, rounded up; read once."""
    return quota(CGROUPS, MOUNT)


def quota(cgroups: Path, mount: Path) -> int:
    """The smallest quota of a control group and those above it, in processors, rounded up.

    Args:
        cgroups: lists the process's groups, as /proc/self/cgroup does.
        mount: of the groups: version 2, or version 1 with the controller "cpu".

    Returns:
        At least 1; a very large number where there is no quota.
    """
    found = [math.inf]
    for hierarchy, root in _hierarchies(cgroups, mount):
        for folder in (hierarchy, *hierarchy.parents):
            found.append(_processors(root / folder.as_posix().lstrip("/")))
    least = min(found)
    return 1 << 20 if math.isinf(least) else max(1, math.ceil(least))


def _hierarchies(cgroups: Path, mount: Path) -> Iterator[tuple[Path, Path]]:
    """The process's group that limits processors, and where its hierarchy is mounted."""
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield Path(group), mount
        elif "cpu" in controllers.split(","):
            yield Path(group), mount / controllers
            yield Path(group), mount / "cpu"


def _processors(folder: Path) -> float:
    """What one group may use."""
    try:
        if (folder / "cpu.max").exists():  # version 2: "200000 100000" or "max 100000"
            share, period = (folder / "cpu.max").read_text().split()
        else:
            share = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return float(share) / float(period) if float(share) > 0 else math.inf
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf
