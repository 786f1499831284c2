"""Tutors between oracle and noise where no student can play as its tutor does, as ``imperfect_tutors`` has them.

Snake is seen as a grid: of its many states a network of two layers of 64 units learns in 150,000 env steps to play
a fraction of what the oracle plays, and untutored PPO and A2C next to nothing. So the question is whether a tutor that
cannot be followed all the way helps at all, and whether it holds its students where imitation leaves them.

Run ``.venv/bin/python -m benchmarks.imperfect_grid`` (``--quick``: one tutor, 3 seeds).
"""

from __future__ import annotations

import sys

from benchmarks import imperfect_tutors

MEASURES = ("rllib_plugins", "tune_sweeps/report")
TUTORS = ("oracle", "half_states", "constant", "worst")


def main() -> int:
    """Measures and reports."""
    args = imperfect_tutors.arguments(__doc__)
    return imperfect_tutors.run("imperfect_grid", {"snake_grid": TUTORS[:1] if args.quick else TUTORS}, args)


if __name__ == "__main__":
    sys.exit(main())
