"""Find the oracle of Snake's ``features``: hill climbing over all functions from the 72 observations to actions.

Run ``python -m tools.snake_search`` to see the climb and the table that it ends with. It starts from "to
the food where that is not deadly", changes the action of one observation at a time, first together with its mirror
image and then alone, and keeps a change whose gain is clear of the noise, until a whole pass changes nothing. Then it
shakes the best table by three random changes and climbs again, as often as asked for.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.envs.snake_rules import FEATURE_TABLE
from rllib_plugins.envs.snake_vector import SnakeVectorEnv
from rllib_plugins.tasks.snake_oracle import TO_THE_FOOD, feature_rows

NUM_OBSERVATIONS = len(FEATURE_TABLE)
MIRROR = feature_rows((FEATURE_TABLE * [1, 1, 1, 1, -1])[:, [2, 1, 0, 3, 4]])
"""Index of the mirror image of each observation; left and right change places in the action too."""


class Found(NamedTuple):
    """A table of actions ``(72,)`` and its mean return."""

    value: float
    table: NDArray[np.int64]


def returns(table: NDArray[np.int64], size: int, episodes: int, seed: int) -> NDArray[np.float64]:
    """Return the returns of ``episodes`` episodes, one per board of a vector."""
    envs = SnakeVectorEnv(episodes, size=size)
    observations, _ = envs.reset(seed=seed)
    total = np.zeros(episodes)
    playing = np.ones(episodes, dtype=bool)
    while playing.any():
        observations, rewards, terminated, truncated, _ = envs.step(table[feature_rows(observations)])
        total += rewards * playing
        playing &= ~(terminated | truncated)
    return total


def climb(table: NDArray[np.int64], size: int, episodes: int, rng: np.random.Generator, mirrored: bool) -> Found:
    """Climb from a table ``(72,)`` until no single change is a clear gain.

    Args:
        table: Where to start.
        size: Cells per side of the board.
        episodes: Episodes per candidate.
        rng: Draws the order of the changes and the boards.
        mirrored: Change an observation together with its mirror image.
    """

    def value(candidate: NDArray[np.int64], times: int = 1) -> tuple[float, float]:
        sample = returns(candidate, size, times * episodes, int(rng.integers(2**31)))
        return float(sample.mean()), float(sample.std() / np.sqrt(len(sample)))

    best, _ = value(table, 4)
    improved = True
    while improved:
        improved = False
        for i in rng.permutation(NUM_OBSERVATIONS):
            if mirrored and i > MIRROR[i]:
                continue
            for action in np.flatnonzero(FEATURE_TABLE[i, :3] == 0):
                changed = table.copy()
                changed[i] = action
                if mirrored and i != MIRROR[i]:
                    changed[MIRROR[i]] = 2 - action
                if (changed == table).all():
                    continue
                mean, error = value(changed)
                if mean > best + 2 * error:
                    mean, error = value(changed, 4)
                    if mean > best + 2 * error:
                        table, best, improved = changed, mean, True
    return Found(best, table)


def shake(table: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The table with three of its actions drawn anew."""
    shaken = table.copy()
    shaken[rng.choice(NUM_OBSERVATIONS, size=3, replace=False)] = rng.integers(3, size=3)
    return shaken


def main() -> None:
    """Climb, and print each better table in the form that ``snake_oracle`` holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=6, help="cells per side of the board")
    parser.add_argument("--episodes", type=int, default=10_000, help="episodes per candidate")
    parser.add_argument("--shakes", type=int, default=5, help="climbs from a shaken table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", help="72 letters L, S, R to start from (default: to the food)")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    start = np.array(["LSR".index(letter) for letter in options.start]) if options.start else TO_THE_FOOD
    best = climb(start, options.size, options.episodes, rng, mirrored=not options.start)
    for i in range(options.shakes + 1):
        changed = best.table if i == 0 else shake(best.table, rng)
        found = climb(changed, options.size, options.episodes, rng, mirrored=False)
        if found.value > best.value:
            best = found
            print(f"return {best.value:.3f}: {''.join('LSR'[action] for action in best.table)}", flush=True)


if __name__ == "__main__":
    main()
