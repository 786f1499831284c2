"""Finds the oracle of Snake's ``features``: hill climbing over all functions from the 72 observations to actions.

Run ``python -m rllib_plugins.tasks.snake_search`` to see the climb and the table that it ends with. It starts from "to
the food where that is not deadly", changes one observation (and its mirror image) at a time, and keeps a change whose
gain is clear of the noise, until a whole pass changes nothing.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.envs.snake_rules import FEATURE_TABLE, LEFT, RIGHT, STRAIGHT
from rllib_plugins.envs.snake_vector import SnakeVectorEnv

_WEIGHTS = np.array([36, 18, 9, 3, 1])
_OFFSET = 4
MIRROR = (FEATURE_TABLE * [1, 1, 1, 1, -1])[:, [2, 1, 0, 3, 4]] @ _WEIGHTS + _OFFSET
"""Index of the mirror image of each observation; left and right change places in the action too."""


def start_table() -> NDArray[np.int64]:
    """Actions ``(72,)`` that go towards the food where that is not deadly, else straight, left or right."""
    table = []
    for left, ahead, right, food_ahead, food_side in FEATURE_TABLE.tolist():
        wishes = [STRAIGHT] if food_ahead > 0 else []
        wishes += {-1: [LEFT], 0: [LEFT, RIGHT] if food_ahead < 0 else [], 1: [RIGHT]}[food_side]
        wishes += [STRAIGHT, LEFT, RIGHT]
        deadly = {LEFT: left, STRAIGHT: ahead, RIGHT: right}
        table.append(next((action for action in wishes if not deadly[action]), STRAIGHT))
    return np.array(table)


def returns(table: NDArray[np.int64], size: int, episodes: int, seed: int) -> NDArray[np.float64]:
    """Returns of ``episodes`` episodes, one per board of a vector."""
    envs = SnakeVectorEnv(episodes, size=size)
    observations, _ = envs.reset(seed=seed)
    total = np.zeros(episodes)
    playing = np.ones(episodes, dtype=bool)
    while playing.any():
        observations, rewards, terminated, truncated, _ = envs.step(table[observations @ _WEIGHTS + _OFFSET])
        total += rewards * playing
        playing &= ~(terminated | truncated)
    return total


def climb(size: int, episodes: int, seed: int) -> NDArray[np.int64]:
    """The table ``(72,)`` at which no single change is a clear gain over ``episodes`` episodes."""
    rng = np.random.default_rng(seed)
    table = start_table()
    best = returns(table, size, episodes, seed).mean()
    improved = True
    while improved:
        improved = False
        for i in rng.permutation(len(table)):
            if i > MIRROR[i] or FEATURE_TABLE[i, :3].sum() >= 2:
                continue
            for action in (LEFT, STRAIGHT, RIGHT):
                changed = table.copy()
                changed[i], changed[MIRROR[i]] = action, action if i == MIRROR[i] else 2 - action
                if FEATURE_TABLE[i, action] or (changed == table).all():
                    continue
                sample = returns(changed, size, episodes, int(rng.integers(2**31)))
                if sample.mean() > best + 3 * sample.std() / np.sqrt(episodes):
                    table, improved = changed, True
                    best = returns(table, size, 4 * episodes, int(rng.integers(2**31))).mean()
                    print(f"{FEATURE_TABLE[i]} -> {'LSR'[action]}: return {best:.3f}", flush=True)
    return table


def main() -> None:
    """Climbs, and prints the table in the form that ``snake_oracle`` holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=6, help="cells per side of the board")
    parser.add_argument("--episodes", type=int, default=20_000, help="episodes per candidate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = climb(options.size, options.episodes, options.seed)
    print("".join("LSR"[action] for action in table))


if __name__ == "__main__":
    main()
