"""Seconds until `tutor submit` says what is wrong with the cluster that it was sent to, or with what is asked of it.

    .venv/bin/python -m benchmarks.refusals [--quick]

A head and a student node on this machine, with Ray's token authentication, and the command as an operator types it: an
address where nobody listens, a wrong token and none, a tutor that needs a GPU where there is none, and a results folder
that the nodes cannot write. The last one is found by the nodes themselves, so a job is started for it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Benchmark, alternate, benchmark_parser, median
from tests.integration.cluster.nodes import Nodes, free_ports, nodes

MEASURES = ("tune_sweeps/cluster",)
BAR_S = 10.0
LIMIT_S = 300.0
TUTOR = Path(sys.executable).parent / "tutor"


def refusal(cluster: Nodes, said: str, *arguments: str, **environment: str) -> float:
    """Seconds that the command took to refuse.

    Raises:
        RuntimeError: It ended well, or said something else.
    """
    started = time.monotonic()
    result = subprocess.run(
        [str(TUTOR), "submit", *arguments],
        env={**cluster.environ(), **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    took_s = time.monotonic() - started
    text = " ".join((result.stdout + result.stderr).split())
    if result.returncode == 0 or said not in text:
        raise RuntimeError(f"tutor submit {' '.join(arguments)} ended with {result.returncode}: {text}")
    return took_s


def measure(cluster: Nodes, folder: Path, repetitions: int) -> dict[str, list[float]]:
    """Seconds of every kind of refusal, in turn."""
    here = f"--address={cluster.dashboard}"
    nobody = f"--address=http://127.0.0.1:{free_ports(1)[0]}"
    (folder / "file").touch()
    results = f"--results={folder / 'file' / 'runs'}"
    no_home = {"RAY_AUTH_TOKEN": "", "HOME": str(folder)}
    kinds: dict[str, Callable[[], float]] = {
        "unreachable_address": lambda: refusal(cluster, "cannot be reached", "demo", nobody),
        "wrong_token": lambda: refusal(cluster, "refuses the token", "demo", here, RAY_AUTH_TOKEN="f" * 64),
        "no_token": lambda: refusal(cluster, "asks for a token", "demo", here, **no_home),
        "no_gpu": lambda: refusal(cluster, "needs 1 GPU on one node", "paper", here),
        "unwritable_folder": lambda: refusal(cluster, "cannot be written", "demo", here, results, "--no-follow"),
    }
    return alternate(kinds, repetitions)


def main() -> int:
    """Entry point; returns the exit status."""
    args = benchmark_parser(__doc__).parse_args()
    benchmark = Benchmark("refusals")
    with tempfile.TemporaryDirectory() as folder, nodes(LLM_TUTORS_HOME=folder) as cluster:
        cluster.start_head(0, {"advice_store": 1})
        cluster.add("students", 1)
        seconds = measure(cluster, Path(folder), repetitions=1 if args.quick else 5)
    benchmark.record("seconds", seconds)
    for kind, taken in seconds.items():
        benchmark.check(f"{kind}_s", median(taken), BAR_S, higher_is_better=False)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
