"""What the paper's grid says on a laptop: 54 cells and 9 baselines, five seeds, a real LLM of 135M among the tutors.

Runs ``tutor sweep laptop54 --set seeds=5`` and keeps what its report says of each cell. All cells use the coin, which
the axis of reuse needs. The sweep takes hours of two cores, nearly all of them for the LLM's answers about Connect
Four; one that was stopped goes on in the same folder. How long it takes is not a figure of this benchmark.

Run ``.venv/bin/python -m benchmarks.laptop54 --folder runs`` (``--quick``: Blackjack and references alone, 2 seeds).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, benchmark_parser, sized
from benchmarks.shared.sweeps import run, with_settings

MEASURES = ("rllib_plugins", "tune_sweeps/presets/laptop54.yaml", "tune_sweeps/report", "tutor_service/catalog")
SWEEP = "laptop54"


def main() -> int:
    """Run or finish the sweep, and report."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="results folder (default: one that is removed)")
    args = parser.parse_args()
    benchmark = Benchmark(SWEEP)
    small = ["tutors=[oracle, random]", "tasks=[blackjack]", "seeds=2"]
    settings = sized(args, full=["seeds=5"], quick=small, smoke=[*small, "num_env_steps=1000", "algorithms=[a2c]"])
    with tempfile.TemporaryDirectory(prefix=f"{SWEEP}-") as name:
        folder: Path = args.folder or Path(name)
        begun = (folder / SWEEP / "sweep.yaml").exists()
        run(folder, "sweep", *(["--resume", SWEEP] if begun else [SWEEP, *with_settings(settings)]))
        found: dict[str, Any] = json.loads(run(folder, "report", SWEEP, "--json"))
        for cell in found["cells"]:
            words = [cell[field] for field in ("task", "algorithm", "tutor", "reuse")]
            benchmark.record("_".join(word for word in words if word), cell)
        num_trials = [cell["num_trials"] for cell in found["cells"]]
        benchmark.check("least_trials_of_a_cell", min(num_trials), bar=max(num_trials))

        def figure(path: Path) -> None:
            shutil.copy(folder / SWEEP / "report" / "learning_curves.png", path)

        return benchmark.finish(args, figure)


if __name__ == "__main__":
    sys.exit(main())
