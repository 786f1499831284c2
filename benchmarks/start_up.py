"""What a new process of each kind takes to load its packages: compiled at set-up, beside compiled by each process.

    .venv/bin/python -m benchmarks.start_up [--quick]

Python keeps what it compiles beside the packages. Where it may not (``$PYTHONDONTWRITEBYTECODE``, or an image's user
that cannot write there), and nobody has compiled them before, every process does so for itself. Seconds of a process
that imports what a tutor's engine, a tutor's replica, a trial or a driver does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial

from benchmarks.harness import Benchmark, alternate, benchmark_parser, median, ratio, sized

MEASURES = ("constraints.txt", "tools")
BAR = 1.5
IMPORTS = {
    "engine": "from vllm.v1.engine.llm_engine import LLMEngine",
    "replica": "import tutor_service.serving.replica",
    "trial": "import rllib_plugins.trial, ray.rllib.algorithms.ppo",
    "driver": "import tune_sweeps.run.sweep, mlflow, ray.tune",
}
QUIET = {"VLLM_CONFIGURE_LOGGING": "0", "HF_HUB_OFFLINE": "1"}


def load_s(code: str, **environment: str) -> float:
    """Seconds of a process that runs ``code``."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **QUIET, **environment}, check=True, capture_output=True
    )
    return time.perf_counter() - started


def main() -> int:
    """Entry point; returns the exit status."""
    args = benchmark_parser(__doc__).parse_args()
    benchmark = Benchmark("start_up")
    with tempfile.TemporaryDirectory() as nowhere:
        uncompiled = {"PYTHONPYCACHEPREFIX": nowhere, "PYTHONDONTWRITEBYTECODE": "1"}
        kinds = ("replica",) if args.smoke else tuple(IMPORTS)
        for kind in kinds:
            ways = {
                "compiled": partial(load_s, IMPORTS[kind]),
                "by_each_process": partial(load_s, IMPORTS[kind], **uncompiled),
            }
            seconds = alternate(ways, repetitions=sized(args, full=3, quick=1, smoke=1))
            benchmark.record(f"{kind}_s", {name: median(taken) for name, taken in seconds.items()})
            benchmark.check(f"{kind}_gain", ratio(seconds["by_each_process"], seconds["compiled"]), BAR)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
