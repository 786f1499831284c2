"""What bad advice costs: the oracle mixed with random play, and a tutor that always advises the worst action.

Defaults against the paper's form. With the defaults the final return must stay within the interval of the untutored
student's, and the area under the curve, counted from random play, at 0.9 of it. Nobody tells students how well their
tutor plays, as a sweep would: their own draws alone decide whom they follow.

Run ``.venv/bin/python -m benchmarks.bad_advice`` (``--quick``: PPO, two tutors, 3 seeds).
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.harness import Benchmark, benchmark_parser, sized

MEASURES = ("rllib_plugins", "tune_sweeps/report")
TUTORS = ("oracle", "oracle+random:0.25", "oracle+random:0.5", "oracle+random:0.75", "random", "worst")
NUM_ENV_STEPS, INTERVAL = 20_000, 250


def student(algorithm: str, tutor: str, form: str, seed: int, num_env_steps: int) -> Any:
    """One trial on Blackjack."""
    from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig
    from rllib_plugins.config import StudentConfig

    return StudentConfig(
        algorithm=algorithm,
        task="blackjack",
        tutor=tutor,
        advice=PAPER_ADVICE if form == "paper" else AdviceConfig(),
        seed=seed,
        num_env_steps=num_env_steps,
        eval_interval_steps=INTERVAL,
    )


def main() -> int:
    """Measures and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per cell (default: 10, with --quick 3)")
    args = parser.parse_args()
    from benchmarks.shared import learning
    from tutor_service.machine import available_cores

    seeds = range(args.seeds or sized(args, full=10, quick=3, smoke=2))
    algorithms = ("ppo",) if args.quick else ("dqn", "ppo", "a2c")
    tutors = ("oracle", "worst") if args.quick else TUTORS
    num_env_steps = sized(args, full=NUM_ENV_STEPS, quick=8_000, smoke=1_000)
    benchmark = Benchmark("bad_advice")
    arms = [("none", "defaults"), *((tutor, form) for tutor in tutors for form in ("defaults", "paper"))]
    jobs = [
        (learning.train_ours, (student(algorithm, tutor, form, seed, num_env_steps),))
        for algorithm in algorithms
        for tutor, form in arms
        for seed in seeds
    ]
    curves = iter(learning.run_all(jobs, available_cores()))
    floor = learning.random_return("blackjack")
    panels: dict[str, Any] = {}
    for algorithm in algorithms:
        groups = {arm: [next(curves) for _ in seeds] for arm in arms}
        untutored = groups["none", "defaults"]
        for shown in ("defaults", "paper"):
            tutored = {tutor: groups[tutor, shown] for tutor in tutors}
            panels[f"{algorithm} · {shown}"] = {"untutored": untutored} | tutored
        base = [curve.area - floor for curve in untutored]
        for (tutor, form), group in groups.items():
            final = learning.difference([c.final for c in group], [c.final for c in untutored])
            area = sum(curve.area - floor for curve in group) / sum(base)
            case = f"{algorithm}_{tutor}_{form}"
            consultations = [curve.last.get("advice/consultations", 0) for curve in group]
            benchmark.record(case, learning.as_record(group) | {"consultations": consultations, "area_ratio": area})
            print(
                f"{case}: final {final.value:+.3f} [{final.low:+.3f}, {final.high:+.3f}], area ×{area:.2f}", flush=True
            )
            if form == "defaults" and tutor != "none":
                benchmark.check(f"{case}_final_upper_end", final.high, bar=0.0)
                benchmark.check(f"{case}_area_ratio", area, bar=0.9)
    return benchmark.finish(args, lambda path: learning.draw(path, panels, columns=2))


if __name__ == "__main__":
    sys.exit(main())
