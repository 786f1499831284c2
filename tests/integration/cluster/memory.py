"""Resident memory of processes over time: which of those that live for long grow. Knows neither Ray nor sweeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SAMPLE_S = 10.0
_WARM_UP_FRAC = 0.5
_CURVE_S = 60.0


@dataclass
class Series:
    """One process.

    Attributes:
        name: What it is, as far as it was seen: a worker of Ray's is idle before it becomes an actor.
        points: Seconds on a monotonic clock, and resident memory in MiB.
    """

    name: str = ""
    points: list[tuple[float, float]] = field(default_factory=list)


def role(process: psutil.Process) -> str:
    """What a process is: its name, less the method that an actor runs just now; of a Python program its file's."""
    name = process.name()
    if name.startswith("python"):
        files = [Path(part).name for part in process.cmdline()[1:] if part.endswith(".py")]
        return files[0] if files else name
    return name.split(".")[0]


class Memory:
    """Samples of every process that a function lists, each told apart from all others that had its id.

    Args:
        processes: Lists those of this moment.
    """

    def __init__(self, processes: Callable[[], Iterable[psutil.Process]]) -> None:
        self.processes = processes
        self.series: dict[tuple[int, float], Series] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Takes samples for the time of the block; raises at its end what ended the sampling early."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_SAMPLE_S):
                self.sample(time.monotonic())

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch)
            try:
                yield
            finally:
                ended.set()
            watching.result()

    def sample(self, now_s: float) -> None:
        """Takes one sample of each process that is there."""
        for process in self.processes():
            try:
                series = self.series.setdefault((process.pid, process.create_time()), Series())
                series.points.append((now_s, process.memory_info().rss / 2**20))
                series.name = role(process)
            except psutil.Error:
                continue

    def growth_mib(self, least_s: float) -> dict[str, dict[str, float]]:
        """By process that lived for at least ``least_s``: growth over that time by least squares, and its noise.

        The first half is warm-up: pages of a program are touched, an allocator's pools and bounded caches fill, in a
        daemon of Ray's for about ten minutes. What fills up is slower or done in the second half; what leaks goes on as
        before, and is found where it gains 5 % of the mean in that time. The noise is three standard errors of the
        slope over the same time, and at least those 5 %: an allocator's own steps.
        """
        import numpy as np
        from scipy import stats

        found = {}
        for (pid, _), series in self.series.items():
            if not series.points or (life := series.points[-1][0] - series.points[0][0]) < least_s:
                continue
            times, sizes = np.array(series.points).T
            kept = times >= times[0] + _WARM_UP_FRAC * life
            fit = stats.linregress(times[kept], sizes[kept])
            span = times[kept][-1] - times[kept][0]
            mean = float(sizes[kept].mean())
            found[f"{series.name} {pid}"] = {
                "growth_mib": float(fit.slope * span),
                "noise_mib": max(0.05 * mean, 3 * float(fit.stderr) * span),  # in this order: the latter may be NaN
                "mean_mib": mean,
                "lived_s": float(life),
            }
        return found

    def curves_mib(self, least_s: float) -> dict[str, list[float]]:
        """By process that lived for at least ``least_s``: its memory once a minute, from its first sample on."""
        found = {}
        for (pid, _), series in self.series.items():
            if not series.points or series.points[-1][0] - series.points[0][0] < least_s:
                continue
            start = series.points[0][0]
            by_minute = {int((at - start) // _CURVE_S): size for at, size in reversed(series.points)}
            found[f"{series.name} {pid}"] = [round(by_minute[minute], 1) for minute in sorted(by_minute)]
        return found
