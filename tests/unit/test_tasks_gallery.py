"""The gallery: environments that people know, as tasks of at most thirty lines."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from rllib_plugins.config import StudentConfig
from rllib_plugins.evaluation import evaluate
from rllib_plugins.rollout.env_runner import ArrayEnvRunner
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.tasks.tabular import TabularTask
from rllib_plugins.trial import algorithm_config
from tutor_service.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"

GALLERY = {
    "examples.frozen_lake:FrozenLakeTask": (),
    "examples.taxi:TaxiTask": (),
    "examples.cliff_walking:CliffWalkingTask": (),
    "examples.frozen_lake_8x8:BigLakeTask": (),
    "examples.lunar_lander:LunarLanderTask": ("Box2D",),
    "examples.minigrid_door_key:DoorKeyTask": ("minigrid",),
    "examples.tic_tac_toe:TicTacToeTask": ("pettingzoo",),
}
BEST = {"taxi": 7.0, "cliff_walking": -13.0, "frozen_lake_8x8": 1.0, "frozen_lake": 1.0, "lunar_lander": 100.0}


@pytest.fixture(scope="module", params=GALLERY)
def address(request: pytest.FixtureRequest) -> str:
    for package in GALLERY[request.param]:
        pytest.importorskip(package)
    return request.param


def test_every_task_of_the_gallery_is_short_and_has_a_hint(address: str) -> None:
    module = importlib.import_module(address.partition(":")[0])
    assert len(Path(str(module.__file__)).read_text(encoding="utf-8").splitlines()) <= 30
    assert load_task(address).hint


def test_every_task_of_the_gallery_is_sampled_checkpointed_and_restored(address: str) -> None:
    config = algorithm_config(StudentConfig(algorithm="dqn", task=address, tutor="random", num_envs=2))
    runner, restored = (ArrayEnvRunner(config=config) for _ in range(2))
    for _ in range(20):
        runner.sample(5)
    restored.set_state(runner.get_state())
    restored.sample(5)
    if restored.task.why_not_resumable is None:
        runner.sample(5)
        np.testing.assert_array_equal(runner.rollout.observations, restored.rollout.observations)
    for each in (runner, restored):
        each.stop()


def test_oracles_of_the_gallery_play_well(address: str) -> None:
    task = load_task(address)
    if not task.has_oracle:
        return
    reached = evaluate(task, task.oracle_batch, episodes=20, seed=0).return_mean  # type: ignore[arg-type]
    assert reached >= BEST[task.name]


def test_a_table_gives_the_values_that_are_known() -> None:
    """CliffWalking's safe way costs 13 steps; with a discount of 1 − ε per step slightly less."""
    task = load_task("examples.cliff_walking:CliffWalkingTask")
    values = task.action_values(36)
    assert values is not None and values[0] == pytest.approx(-sum(0.999**step for step in range(13)))
    assert values.argmax() == 0 and values[1] < -100
    slippery = load_task("examples.frozen_lake_8x8:BigLakeTask", is_slippery=True)
    assert evaluate(slippery, slippery.oracle_batch, episodes=200, seed=0).return_mean > 0.6  # type: ignore[arg-type]


def test_a_table_that_is_not_there_is_missed_by_name() -> None:
    class NoTable(TabularTask):
        name, env_id, rules, actions = "pole", "CartPole-v1", "Balance.", ("left", "right")
        describe = Task.describe

    with pytest.raises(UserError, match="no transition table P"):
        NoTable().oracle(0)


def test_a_turn_game_is_zero_sum_between_the_seats() -> None:
    pytest.importorskip("pettingzoo")
    task = load_task("examples.tic_tac_toe:TicTacToeTask")
    random = evaluate(task, task.uniform_policy, episodes=400, seed=0)
    assert abs(random.return_mean) < 0.2 and random.return_std > 0.5  # either side begins as often
    assert 2.5 < random.num_env_steps / 400 < 5
