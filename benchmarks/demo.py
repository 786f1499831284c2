"""What ``make demo`` shows: a real LLM of 1.5B that tutors three students on CartPole, five seeds, and what it takes.

Runs the demo's sweep as it stands, the LLM on vLLM included, in a results folder of its own; packages, model and (but
for the first time) the LLM's answers are at hand. The LLM must make one student faster beyond doubt (interval above 1)
and none slower than 0.9, by the sweep's own convergence.

Run ``.venv/bin/python -m benchmarks.demo`` (``--quick``: the oracle alone, 2 seeds; its figure is the README's first).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, benchmark_parser, sized
from benchmarks.shared.sweeps import run, with_settings

MEASURES = ("rllib_plugins", "tune_sweeps/presets/demo.yaml", "tune_sweeps/report", "tutor_service/catalog")
REFERENCES = ("none", "oracle")
MOST_S = 240.0


def main() -> int:
    """Measure and report."""
    args = benchmark_parser(__doc__).parse_args()
    benchmark = Benchmark("demo")
    alone = ["tutors=[oracle]", "seeds=2"]
    settings = sized(args, full=[], quick=alone, smoke=[*alone, "num_env_steps.cart_pole=1000", "algorithms=[ppo]"])
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        folder = Path(name)
        started = time.perf_counter()
        run(folder, "sweep", "demo", *with_settings(settings))
        seconds = time.perf_counter() - started
        found: dict[str, Any] = json.loads(run(folder, "report", "demo", "--json"))
        for cell in found["cells"]:
            arm = cell["tutor"] if cell["tutor"] in REFERENCES else "llm"
            benchmark.record(f"{cell['algorithm']}_{arm}", cell)
        tutored = [cell for cell in found["cells"] if cell["tutor"] not in REFERENCES]
        benchmark.record("sweep_s", seconds)
        benchmark.check("sweep_s", seconds, bar=MOST_S, higher_is_better=False)
        if tutored:
            speeds = [cell["speed_up"] for cell in tutored]
            lows = [cell["speed_up_low"] for cell in tutored]
            benchmark.check("surest_students_low_end", max(lows), bar=1.0)
            benchmark.check("slowest_student", min(speeds), bar=0.9)

        def figure(path: Path) -> None:
            shutil.copy(folder / "demo" / "report" / "learning_curves.png", path)

        return benchmark.finish(args, figure)


if __name__ == "__main__":
    sys.exit(main())
