"""How much memory this machine has to give, container limits included. Knows nothing else."""

from __future__ import annotations

from pathlib import Path

_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_bytes() -> int:
    """Bytes that a new process can have: what is available, within the container's limit where there is one."""
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
    """Page cache that counts as used by the group and that the kernel would give back."""
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split()[:2] for line in lines)
    return int(values.get("inactive_file", values.get("total_inactive_file", 0)))
