"""Does a good tutor hold its students back in the long run? 3 algorithms × 10 seeds where students can pass it.

Connect Four against ``greedy``, 100,000 env steps, two and a half times those of ``acceleration``: the tutor is a
one-line rule that untutored students may pass by then. Four arms: no tutor; the defaults, told what the tutor reaches
as in a sweep; the defaults with ``lead_steps`` longer than the trial, so that imitation is not ended by it; and the
paper's form at the θ that ``acceleration`` found for it. What was chosen was chosen on the tuning seeds 100 to 103.

Run ``.venv/bin/python -m benchmarks.long_run`` (``--quick``: PPO with 2 seeds).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.acceleration import ALGORITHMS, config
from benchmarks.harness import Benchmark, benchmark_parser, sized

MEASURES = ("rllib_plugins", "tune_sweeps/report")
PLACE = "connect_four_greedy"
FIRST_SEED = 150
"""First of the seeds that are reported on, fixed before any of them ran."""
NUM_ENV_STEPS, INTERVAL = 100_000, 2_000
ARMS = {"untutored": "untutored", "defaults": "defaults", "held": "defaults", "paper": "paper"}
"""By arm, that of ``acceleration`` which it is made from."""
HELD = {"lead_steps": 10 * NUM_ENV_STEPS}
"""Options of the arm whose students are not let go below their tutor."""


def trial(arm: str, algorithm: str, seed: int, num_env_steps: int) -> Any:
    """Return one trial of an arm."""
    made = config(ARMS[arm], algorithm, PLACE, seed, num_env_steps)
    if arm == "held":
        made = made.model_copy(update={"advice": made.advice.model_copy(update={"use_options": HELD})})
    return made.model_copy(update={"eval_interval_steps": min(INTERVAL, num_env_steps // 2)})


def main() -> int:
    """Measures and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per arm (default: 10, with --quick 2)")
    args = parser.parse_args()
    from benchmarks.shared import learning
    from benchmarks.shared.grounds import GROUNDS
    from tutor_service.machine import available_cores

    seeds = [FIRST_SEED + number for number in range(args.seeds or sized(args, full=10, quick=2, smoke=2))]
    algorithms = ("ppo",) if args.quick else ALGORITHMS
    num_env_steps = sized(args, full=NUM_ENV_STEPS, quick=24_000, smoke=800)
    benchmark = Benchmark("long_run")
    keys = [(algorithm, arm, seed) for algorithm in algorithms for arm in ARMS for seed in seeds]
    trials = {(a, arm, seed): trial(arm, a, seed, num_env_steps) for a, arm, seed in keys}
    led = [key for key in keys if ARMS[key[1]] == "defaults"]
    informed, played = learning.told([(PLACE, trials[key]) for key in led], available_cores())
    trials |= dict(zip(led, informed, strict=True))
    curves = learning.run_all([(learning.train_ours, (one,)) for one in trials.values()], available_cores())
    done = dict(zip(trials, curves, strict=True))
    groups = {a: {arm: [done[a, arm, seed] for seed in seeds] for arm in ARMS} for a in algorithms}
    benchmark.record("own_play", played)
    benchmark.record("trivial", GROUNDS[PLACE].trivial_returns())
    for algorithm, by_arm in groups.items():
        means = {arm: sum(curve.final for curve in group) / len(group) for arm, group in by_arm.items()}
        record: dict[str, Any] = {"final": means, "curves": {a: learning.as_record(g) for a, g in by_arm.items()}}
        for other in ("untutored", "held", "paper"):
            finals = [[curve.final for curve in by_arm[arm]] for arm in ("defaults", other)]
            areas = [[curve.area for curve in by_arm[arm]] for arm in ("defaults", other)]
            final, area = learning.difference(*finals), learning.difference(*areas)
            record |= {f"final_over_{other}": learning.ends(final), f"area_over_{other}": learning.ends(area)}
            if other != "paper":
                benchmark.check(f"{algorithm}_final_over_{other}_upper_end", final.high, bar=0.0)
        benchmark.record(algorithm, record)
        shown = ", ".join(f"{arm} {mean:+.2f}" for arm, mean in means.items())
        print(f"{algorithm}: final {shown}; over untutored {record['final_over_untutored']}", flush=True)

    def figures(path: Path) -> None:
        learning.draw(path, {f"{algorithm} · {PLACE}": by_arm for algorithm, by_arm in groups.items()})

    return benchmark.finish(args, figures)


if __name__ == "__main__":
    sys.exit(main())
