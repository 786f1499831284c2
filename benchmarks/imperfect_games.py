"""Tutors between oracle and noise on a board game and on a task of the gallery, as ``imperfect_tutors`` has them.

Connect Four is played against ``greedy``; its oracle is the one-line rule of ``benchmarks.shared.grounds``.
CliffWalking is Gymnasium's, with all hyperparameters at their defaults; its oracle is computed. Snake seen as a grid is
left out: untutored PPO and A2C learn next to nothing of it in 30,000 env steps, so that nothing can be compared.

Run ``.venv/bin/python -m benchmarks.imperfect_games`` (``--quick``: CliffWalking, PPO, two tutors, 3 seeds).
"""

from __future__ import annotations

import sys

from benchmarks import imperfect_tutors

MEASURES = ("rllib_plugins", "tune_sweeps/report")
TUTORS = {
    "connect_four": ("oracle", "soft", "constant", "half_states", "one_wrong", "worst"),
    "cliff_walking": ("oracle", "soft", "constant", "half_states", "worst"),
}


def main() -> int:
    """Measures and reports."""
    args = imperfect_tutors.arguments(__doc__)
    quick = {"cliff_walking": ("oracle", "worst")}
    return imperfect_tutors.run("imperfect_games", quick if args.quick else TUTORS, args)


if __name__ == "__main__":
    sys.exit(main())
