"""What tutoring costs a student whose tutor's answers are all at hand: env steps per second, tutored over untutored.

The tutor is the oracle of Blackjack once it was asked about all states, so that each answer comes from the
process-local map of distributions, as it does for an LLM with a warm store: no call leaves the process. The states of
Snake and Connect Four never end, and what their oracles search for would be measured: they are left out.

Time is the process's own. Rounds are many and short, one rollout of PPO's: the speed of a machine may change within
seconds.

Run ``.venv/bin/python -m benchmarks.tutoring_cost`` (``--quick``: 8 environments, fewer repetitions).
"""

from __future__ import annotations

import sys

from benchmarks.harness import Benchmark, alternate, benchmark_parser, ratio, sized

MEASURES = ("rllib_plugins",)


def main() -> int:
    """Measures and reports."""
    args = benchmark_parser(__doc__).parse_args()
    from benchmarks.shared.students import OurRun
    from rllib_plugins.config import StudentConfig

    benchmark = Benchmark("tutoring_cost")
    repetitions = sized(args, full=61, quick=4, smoke=1)
    steps, warm_up = (256, 256) if args.smoke else (2_048, 4_000)
    for algorithm in ("dqn", "ppo", "a2c"):
        for num_envs in (8,) if args.quick else (8, 32):
            runs = {
                tutor: OurRun(
                    StudentConfig(algorithm=algorithm, task="blackjack", tutor=tutor, num_envs=num_envs),
                    steps,
                    warm_up=warm_up,
                )
                for tutor in ("none", "oracle")
            }
            rates = alternate(dict(runs), repetitions)
            for run in runs.values():
                run.close()
            case = f"{algorithm}_{num_envs}"
            benchmark.record(case, rates)
            benchmark.check(f"{case}_tutored_over_untutored", ratio(rates["oracle"], rates["none"]), bar=0.9)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
