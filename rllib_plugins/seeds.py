"""Derive seeds that share nothing: every stream of random numbers is named by a path below the trial's seed."""

from __future__ import annotations

import numpy as np

EVALUATION = 0x65766C
"""Stream of the evaluations of a trial."""

ENVIRONMENTS = 0x656E76
"""Stream of the single environments of a vector."""

RUNNERS = 0x72756E
"""Stream of each of a trial's several runners."""


def derive_seed(*path: int) -> int:
    """Return a 32-bit seed for a path, e.g. ``(trial seed, stream, env step)``; other paths are independent of it.

    Example:
        >>> derive_seed(0, EVALUATION, 2_000) == derive_seed(0, EVALUATION, 2_000)
        True
        >>> derive_seed(0, EVALUATION, 2_000) == derive_seed(1, EVALUATION, 2_000)
        False
    """
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def spawn_seeds(seed: int, num_seeds: int) -> list[int]:
    """Return one 32-bit seed per environment of a vector; other seeds give vectors without a common environment."""
    children = np.random.SeedSequence([seed, ENVIRONMENTS]).generate_state(num_seeds)
    return [int(child) for child in children]
