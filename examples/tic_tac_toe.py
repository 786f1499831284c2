"""A turn game of PettingZoo against a scripted opponent: `--task examples.tic_tac_toe:TicTacToeTask`."""

import gymnasium as gym
from pettingzoo.classic import tictactoe_v3

from rllib_plugins.envs.turn_game import TurnGameEnv
from rllib_plugins.tasks import Task

gym.register("TicTacToe-v0", entry_point=lambda: TurnGameEnv(tictactoe_v3.env))


class TicTacToeTask(Task):
    """The opponent plays at random; legal cells are in the game's own mask."""

    name = "tic_tac_toe"
    env_id = "TicTacToe-v0"
    actions = tuple("123456789")
    hint = "Complete your own line if you can, else block the opponent's, else take the middle or a corner."
    rules = (
        "You play Tic-Tac-Toe as X against O. The cells are numbered 1 to 3 down the left column, 4 to 6 down the "
        "middle, 7 to 9 down the right. A line of three wins 1, the opponent's loses 1. Choose a free cell."
    )

    def describe(self, observation):
        """The board, row by row."""
        signs = [["X" if mine else "O" if theirs else "." for mine, theirs in column] for column in observation]
        return "The board:\n" + "\n".join("".join(row) for row in zip(*signs, strict=True))
