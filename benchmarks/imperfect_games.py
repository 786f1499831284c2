"""Tutors between oracle and noise on a board game and on a task of the gallery, as ``imperfect_tutors`` has them.

Connect Four is played against ``greedy``; its oracle is the one-line rule of ``benchmarks.shared.grounds``.
FrozenLake is Gymnasium's, 4 by 4 without slipping, with all hyperparameters at their defaults. Left out for want of an
untutored student that learns: CliffWalking (20,000 env steps) and Taxi (40,000), all three algorithms; tried on a
tuning seed. Snake seen as a grid takes longer: ``imperfect_grid``.

Run ``.venv/bin/python -m benchmarks.imperfect_games`` (``--quick``: FrozenLake, PPO, two tutors, 3 seeds).
"""

from __future__ import annotations

import sys

from benchmarks import imperfect_tutors

MEASURES = ("rllib_plugins", "tune_sweeps/report")
TUTORS = {
    "connect_four": ("oracle", "soft", "constant", "half_states", "one_wrong", "worst"),
    "frozen_lake": ("oracle", "soft", "constant", "half_states", "worst"),
}


def main() -> int:
    """Measures and reports."""
    args = imperfect_tutors.arguments(__doc__)
    quick = {"frozen_lake": ("oracle", "worst")}
    return imperfect_tutors.run("imperfect_games", quick if args.quick else TUTORS, args)


if __name__ == "__main__":
    sys.exit(main())
