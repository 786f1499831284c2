"""Gymnasium's CliffWalking in words. Try `tutor sweep --task examples.cliff_walking:CliffWalkingTask`."""

from rllib_plugins.tasks.tabular import TabularTask


class CliffWalkingTask(TabularTask):
    """The environment has no time limit of its own: an episode of evaluation would not end."""

    name = "cliff_walking"
    env_id = "CliffWalking-v1"
    env_kwargs = {"max_episode_steps": 100}  # noqa: RUF012
    actions = ("up", "right", "down", "left")
    hint = "Go up first, then right along the row above the cliff, and down only in the last column."
    rules = (
        "You walk on 4 rows, counted from the top, of 12 columns, counted from the left, from row 4 column 1 to row 4 "
        "column 12. Each step moves you one cell up, right, down or left and costs 1; at the edge you stay. Row 4 "
        "columns 2 to 11 are a cliff: stepping into it costs 100 and puts you back to the start."
    )

    def describe(self, observation):
        """The cell, in words."""
        return f"You are at row {observation // 12 + 1} column {observation % 12 + 1}."
