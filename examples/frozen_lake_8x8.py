"""FrozenLake on its 8 by 8 map: only the goal pays. Try `--task examples.frozen_lake_8x8:BigLakeTask`."""

from gymnasium.envs.toy_text.frozen_lake import MAPS

from rllib_plugins.tasks.tabular import TabularTask

HOLES = [
    f"row {r + 1} column {c + 1}" for r, row in enumerate(MAPS["8x8"]) for c, cell in enumerate(row) if cell == "H"
]


class BigLakeTask(TabularTask):
    """With `is_slippery=True` only one step in three goes where it was meant to."""

    name = "frozen_lake_8x8"
    env_id = "FrozenLake8x8-v1"
    env_kwargs = {"is_slippery": False}  # noqa: RUF012
    actions = ("left", "down", "right", "up")
    hint = "Walk right along the top row to the last column, then down to the goal."
    rules = (
        "You walk over a frozen lake of 8 rows and 8 columns, counted from 1 at the top left. Each step you move one "
        f"cell left, down, right or up; at the edge you stay. The holes are at {', '.join(HOLES)}: falling into one "
        "ends the walk with nothing. Row 8 column 8 pays 1."
    )

    def describe(self, observation):
        """The cell, in words."""
        return f"You are at row {observation // 8 + 1} column {observation % 8 + 1}."
