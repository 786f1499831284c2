"""A task of your own: FrozenLake, in words. Try `tutor sweep --task examples.frozen_lake:FrozenLakeTask`."""

import numpy as np

from rllib_plugins.tasks import Task

WAY = "drdl dldl rddl lrrl".replace(" ", "")  # the way to the goal from every cell, row by row


class FrozenLakeTask(Task):
    """Gymnasium's FrozenLake on its 4 by 4 map, without slipping; the student sees which cell it is on."""

    name = "frozen_lake"
    env_id = "FrozenLake-v1"
    env_kwargs = {"is_slippery": False}  # noqa: RUF012
    actions = ("left", "down", "right", "up")
    hint = "Go down two rows, right one column, down one row, then right to the goal."
    rules = (
        "You walk over a frozen lake of 4 rows and 4 columns, counted from 1 at the top left. Each step you move one "
        "cell left, down, right or up; at the edge you stay. The holes are at row 2 column 2, row 2 column 4, row 3 "
        "column 4 and row 4 column 1: falling into one ends the walk with nothing. Row 4 column 4 pays 1."
    )

    def describe(self, observation):
        """The cell, in words."""
        return f"You are at row {observation // 4 + 1} column {observation % 4 + 1}."

    def oracle(self, observation):
        """Optional: a very good player, for the reference tutor `oracle` and for `tutor grade`."""
        return np.array([letter == WAY[observation] for letter in "ldru"], dtype=float)
