"""The words and reference players of Snake and Connect Four."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_plugins.envs import connect_four_board as bits
from rllib_plugins.envs.snake_rules import FEATURE_TABLE
from rllib_plugins.evaluation import evaluate, random_return
from rllib_plugins.tasks import load_task
from rllib_plugins.tasks.flat import TurnsVectorEnv
from rllib_plugins.tasks.snake_oracle import TO_THE_FOOD, cycle_positions, legal_moves, safe_actions
from tools.snake_search import MIRROR, climb, returns
from tutor_service.errors import UserError


def board(*rows: str) -> np.ndarray:
    """Planes of a Connect Four board; X is the student; rows above those given are empty."""
    cells = [*["......."] * (6 - len(rows)), *rows]
    return np.array([[[letter == player for letter in row] for row in cells] for player in "XO"], dtype=np.int8)


def test_connect_fours_words_show_the_filled_rows() -> None:
    task = load_task("connect_four")
    assert task.describe(board()) == "The board is empty."
    assert task.describe(board("...O...", "..XXO..")) == "The board:\n...O...\n..XXO.."
    full = board(*["XOXOXOX"] * 6)
    assert task.describe(full).count("X") == 24


def test_connect_fours_oracle_wins_blocks_and_knows_its_values() -> None:
    task = load_task("connect_four")
    wins = board("......O", "XXX..OO")
    assert task.oracle(wins).tolist() == [0, 0, 0, 1, 0, 0, 0]
    blocks = board("XX.....", "OOO...X")
    assert task.oracle(blocks).tolist() == [0, 0, 0, 1, 0, 0, 0]
    values = task.action_values(blocks)
    assert values[[0, 1, 2, 4, 5, 6]].tolist() == [-1] * 6
    column_full = board("X......", "O......", "X......", "O......", "X......", "O......")  # six stones
    assert np.isnan(task.action_values(column_full)[0]) and task.oracle(column_full)[0] == 0
    assert task.legal(column_full).tolist() == [False, *[True] * 6]


def test_connect_fours_oracle_never_loses_what_it_can_hold() -> None:
    task = load_task("connect_four", opponent="perfect", first="student")
    moves = [3, 3, 3, 3, 3, 3, 1, 1]
    stones = [0, 0]
    for ply, column in enumerate(moves):
        stones[ply % 2] |= (sum(stones) + bits.BOTTOM[column]) & bits.COLUMN[column]
    planes = bits.planes(np.array([stones[0]]), np.array([stones[1]]))[0]
    best = np.nanmax(task.action_values(planes))
    chosen = int(task.oracle(planes).argmax())
    assert task.action_values(planes)[chosen] == best


def test_connect_fours_situations_are_told_apart() -> None:
    task = load_task("connect_four")
    assert task.situation(board("......O", "XXX..OO")) == "can win at once"
    assert task.situation(board("XX.....", "OOO...X")) == "must block"
    assert task.situation(board()) == "opening"


def test_random_play_against_random_play_is_worth_nothing() -> None:
    assert random_return(load_task("connect_four", opponent="random")) == 0.0
    assert random_return(load_task("connect_four")) < -0.8
    assert random_return(load_task("connect_four", opponent="random", first="student")) > 0.05


def test_an_impossible_board_is_refused() -> None:
    task = load_task("connect_four")
    both = np.ones((2, 6, 7))
    for planes in (both, both * 3, np.zeros((2, 6, 6))):
        with pytest.raises(UserError, match="no board"):
            task.oracle(planes)
    with pytest.raises(UserError, match="no board"):
        task.describe(both)


def test_snakes_rules_and_words_name_what_the_student_sees() -> None:
    task = load_task("snake", size=7, reward_step=-0.01)
    assert "7 by 7" in task.rules and "-0.01" in task.rules
    assert task.describe([0, 1, 0, 1, -1]) == "Deadly: straight. Food: ahead and to the left."
    assert task.describe([0, 0, 0, -1, 0]) == "Deadly: none. Food: behind."
    assert len({task.describe(row) for row in FEATURE_TABLE}) == 72
    with pytest.raises(UserError, match="5 numbers"):
        task.describe([0, 1, 0, 2, -1])


def test_snakes_students_can_meet_as_many_states_as_it_says() -> None:
    task = load_task("snake", size=4)
    envs = task.make_vec(2_000, seed=0)
    observations, _ = envs.reset()
    rng = np.random.default_rng(1)
    seen = {row.tobytes() for row in observations}
    for _ in range(40):
        probabilities = task.oracle_batch(observations) if rng.random() < 0.5 else task.uniform_policy(observations)
        observations, *_ = envs.step(
            probabilities.argmax(axis=1) if rng.random() < 0.7 else rng.integers(3, size=2_000)
        )
        seen |= {row.tobytes() for row in observations}
    assert 50 < len(seen) <= (task.num_states or 0) == 64
    assert load_task("snake", observation="grid").num_states is None


def test_snakes_picture_shows_head_tail_food_and_heading() -> None:
    task = load_task("snake", observation="grid", size=4)
    planes = np.zeros((3, 4, 4), dtype=np.float32)
    planes[0, 1, 1:] = [1 / 3, 2 / 3, 1]
    planes[1, 1, 3] = planes[2, 3, 0] = 1
    assert task.describe(planes) == "Heading: right.\n....\n.to@\n....\n*..."
    planes[2] = np.nan
    with pytest.raises(UserError, match="no board"):
        task.describe(planes)


@pytest.mark.parametrize("size", [4, 6, 8])
def test_cycles_visit_every_cell_in_steps_of_one(size: int) -> None:
    cycles = cycle_positions(size)
    assert cycles.shape == (16, size * size) and len(np.unique(cycles, axis=0)) == 16
    for positions in cycles:
        order = positions.argsort()
        rows, columns = np.divmod(np.append(order, order[0]), size)
        assert (np.abs(np.diff(rows)) + np.abs(np.diff(columns)) == 1).all()


def test_the_safe_path_fills_the_board() -> None:
    task = load_task("snake", observation="grid")
    result = evaluate(task, task.oracle_batch, episodes=12, seed=0)
    assert (result.return_mean, result.return_std) == (33.0, 0.0)


def test_the_safe_path_also_serves_odd_boards() -> None:
    task = load_task("snake", observation="grid", size=5)
    assert evaluate(task, task.oracle_batch, episodes=20, seed=0).return_mean > 17


def test_safe_actions_are_alive_and_empty_only_where_all_is_lost() -> None:
    assert safe_actions(3, [3, 4, 1, 0], -1) == sorted(legal_moves(3, [3, 4, 1, 0]))
    trapped = [1, 2, 5, 8, 7, 6, 3, 4]  # the head in the middle of a 3 by 3 board, the tail beside it
    assert list(legal_moves(3, trapped).values()) == [1]
    assert safe_actions(3, [5, 2, 1, 4, 3, 0], 8) == []


def test_the_function_of_features_beats_running_to_the_food() -> None:
    task = load_task("snake")
    found = evaluate(task, task.oracle_batch, episodes=2_000, seed=0)
    greedy = returns(TO_THE_FOOD, 6, 2_000, 0)
    assert found.return_mean > greedy.mean() + 8


def test_the_search_climbs_and_knows_its_mirror() -> None:
    assert np.array_equal(MIRROR[MIRROR], np.arange(72))
    table = TO_THE_FOOD
    assert all(not row[action] for row, action in zip(FEATURE_TABLE, table, strict=True) if row[:3].sum() < 3)
    bad = np.where(FEATURE_TABLE[:, 3] == 1, 2, table)
    found = climb(bad, size=3, episodes=20, rng=np.random.default_rng(0), mirrored=True)
    assert found.value > returns(bad, 3, 2_000, 1).mean()


def test_cart_pole_has_fifteen_texts_and_an_oracle_that_balances() -> None:
    task = load_task("cart_pole")
    observations = np.array(
        [[0, 0, angle, speed] for angle in (-0.1, 0.0, 0.1) for speed in (-1.0, -0.3, 0.0, 0.3, 1.0)], dtype=np.float32
    )
    texts = {task.describe(observation) for observation in observations}
    assert len(texts) == task.num_states == 15
    assert (
        "The pole leans to the left and turns to the right fast." in texts
        and "The pole is upright and is still." in texts
    )
    assert evaluate(task, task.oracle_batch, episodes=10, seed=0).return_mean == 500
    lean = evaluate(task, task.trivial_players()["to where it leans"], episodes=50, seed=0).return_mean
    assert 30 < lean < 60


def test_cart_poles_array_code_plays_the_very_episodes_of_environments_in_turn() -> None:
    task = load_task("cart_pole")
    ours, turns = task.make_vec(8, seed=3), TurnsVectorEnv([task.make() for _ in range(8)], seed=3)
    assert not isinstance(ours, TurnsVectorEnv)
    observations, others = ours.reset()[0], turns.reset()[0]
    rng, ends = np.random.default_rng(0), {"terminated": 0, "truncated": 0}
    for step in range(3_000):
        if step == 1_500:  # in the middle of episodes
            again = task.make_vec(8, seed=4)
            again.restore(ours.save())
            ours = again
        np.testing.assert_array_equal(observations, others)
        wrong = rng.random(8) < (0.0 if step < 1_000 else 0.8)
        actions = np.where(wrong, rng.integers(2, size=8), task.oracle_batch(observations).argmax(axis=1))
        (observations, *told, infos), (others, *others_told, other_infos) = ours.step(actions), turns.step(actions)
        for one, other in zip(told, others_told, strict=True):
            np.testing.assert_array_equal(one, other)
        ends["terminated"] += told[1].sum()
        ends["truncated"] += told[2].sum()
        assert infos.keys() == other_infos.keys()
        if infos:
            ended = other_infos["_final_obs"]
            np.testing.assert_array_equal(infos["_final_obs"], ended)
            np.testing.assert_array_equal(infos["final_obs"][ended], other_infos["final_obs"][ended])
    assert min(ends.values()) > 8


def test_cart_pole_refuses_actions_that_it_does_not_have_and_a_changed_game_is_played_as_it_is() -> None:
    envs = load_task("cart_pole").make_vec(2, seed=0)
    envs.reset()
    with pytest.raises(UserError, match=r"actions \[0, 2\] of CartPole"):
        envs.step(np.array([0, 2]))
    changed = load_task("cart_pole", sutton_barto_reward=True).make_vec(2, seed=0)
    changed.reset()
    assert changed.step(np.array([0, 1]))[1].tolist() == [0.0, 0.0]
