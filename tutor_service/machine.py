"""Say what this machine has to give, container limits included: cores and memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


_CPU_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"), None),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)


def available_cores() -> int:
    """Count the cores that this process may use: by affinity, and by the container's quota where there is one.

    Half a core of quota counts as one, since work needs one to run on.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota_file, period_file in _CPU_QUOTAS:
        try:
            words = quota_file.read_text().split()
            words += period_file.read_text().split() if period_file else []
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            cores = min(cores, max(1, math.floor(quota / period)))
    return cores


def available_bytes() -> int:
    """Return the bytes that a new process can have, within the container's limit where there is one."""
    available = _meminfo("MemAvailable")
    for limit_file, usage_file in _CGROUPS:
        try:
            limit, usage = limit_file.read_text().strip(), int(usage_file.read_text())
        except (OSError, ValueError):
            continue
        if limit.isdigit():
            available = min(available, max(0, int(limit) - usage + _reclaimable(limit_file.parent)))
    return available


def _meminfo(field: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


def _reclaimable(cgroup: Path) -> int:
    """Return the page cache that counts as used by the group and that the kernel would give back."""
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split()[:2] for line in lines)
    return int(values.get("inactive_file", values.get("total_inactive_file", 0)))
