"""What holds for every task: the contract with students and tutors, and refusals that show what is wrong."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rllib_plugins.evaluation import evaluate, mask_policy, sample_actions
from rllib_plugins.tasks import Task, load_task, register_task, task_names
from rllib_plugins.tasks.validation import validate
from tutor_service.errors import UserError

TASKS = {
    "blackjack": {},
    "cart_pole": {},
    "connect_four": {},
    "snake": {},
    "snake_grid": {"observation": "grid", "size": 5},
    "examples.frozen_lake:FrozenLakeTask": {},
}


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param.removesuffix("_grid"), **TASKS[request.param])


def random_actions(task: Task, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return sample_actions(task.uniform_policy(observations), rng)


def visited(task: Task, num_steps: int = 25) -> np.ndarray:
    envs = task.make_vec(16, seed=3)
    observations, _ = envs.reset()
    rng = np.random.default_rng(0)
    rows = [observations]
    for _ in range(num_steps):
        observations, *_ = envs.step(random_actions(task, observations, rng))
        rows.append(observations)
    envs.close()
    return np.unique(np.concatenate(rows), axis=0)


def test_every_built_in_task_passes_its_own_checks(task: Task) -> None:
    validate(task)
    assert task.num_actions == len(set(task.actions))


def test_a_student_and_its_tutor_see_the_same(task: Task) -> None:
    env, raw = task.make(), task.make_raw()
    flat, _ = env.reset(seed=5)
    observation, _ = raw.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert flat.dtype == np.float32 and task.observation_space.contains(flat)
        assert task.describe(observation) == task.describe(task.raw_observation(flat))
        assert np.array_equal(task.encode(task.raw_observation(flat)), flat)
        assert (task.legal(observation) == task.legal(task.raw_observation(flat))).all()
        action = int(rng.choice(np.flatnonzero(task.legal(observation))))
        flat, reward, terminated, truncated, _ = env.step(action)
        observation, raw_reward, *_ = raw.step(action)
        assert reward == raw_reward
        if terminated or truncated:
            flat, _ = env.reset()
            observation, _ = raw.reset()


def test_batches_say_what_single_states_say(task: Task) -> None:
    states = visited(task, num_steps=4)  # few: the solver takes its time over the middle of Connect Four
    raw = [task.raw_observation(state) for state in states]
    legal = task.legal_batch(states)
    if legal is None:
        assert all(task.legal(observation).all() for observation in raw)
    else:
        assert np.array_equal(legal, [task.legal(observation) for observation in raw])
    assert np.allclose(task.oracle_batch(states), [task.oracle(observation) for observation in raw])


def test_distinct_states_have_distinct_words_and_words_are_few(task: Task) -> None:
    states = visited(task)
    texts = [task.describe(task.raw_observation(state)) for state in states]
    if task.env_kwargs.get("observation") != "grid" and task.name != "cart_pole":  # their words leave things out
        assert len(set(texts)) == len(states)
    assert max(len(text.split()) for text in texts) < 30
    assert max(len(text) for text in texts) < 90


def test_vector_environments_are_deterministic_by_seed(task: Task) -> None:
    def rollout(seed: int) -> list[np.ndarray]:
        envs = task.make_vec(6, seed)
        observations, _ = envs.reset()
        rng = np.random.default_rng(0)
        trace = [observations]
        for _ in range(30):
            observations, rewards, terminated, truncated, _ = envs.step(random_actions(task, observations, rng))
            trace += [observations, rewards, terminated, truncated]
        envs.close()
        return trace

    first, again, other = rollout(1), rollout(1), rollout(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    if task.name != "frozen_lake":  # without slipping nothing is random in it
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_vector_environments_reset_in_the_same_step(task: Task) -> None:
    envs = task.make_vec(8, seed=0)
    assert envs.metadata["autoreset_mode"] is gym.vector.AutoresetMode.SAME_STEP
    observations, _ = envs.reset()
    rng = np.random.default_rng(0)
    num_ended = 0
    for _ in range(60):
        before = observations
        observations, rewards, terminated, truncated, infos = envs.step(random_actions(task, observations, rng))
        assert observations.shape == (8, *task.observation_space.shape) and observations.dtype == np.float32
        assert rewards.shape == terminated.shape == truncated.shape == (8,)
        ended = terminated | truncated
        assert ("final_obs" in infos) == ended.any()
        if ended.any():
            num_ended += int(ended.sum())
            assert np.array_equal(infos["_final_obs"], ended)
            assert infos["final_obs"].shape == observations.shape and infos["final_obs"].dtype == np.float32
            assert all(task.observation_space.contains(row) for row in infos["final_obs"][ended])
        legal = task.legal_batch(observations)
        assert legal is None or legal.any(axis=1).all()
        assert not np.may_share_memory(before, observations)
    assert num_ended > 0
    envs.close()


def test_nan_is_refused_by_name(task: Task) -> None:
    flat = np.full(task.observation_space.shape, np.nan, dtype=np.float32)
    with pytest.raises(UserError, match=rf"{task.name}.*NaN"):
        task.raw_observation(flat)
    with pytest.raises(UserError, match="NaN"):
        task.oracle_batch(flat[None])


def test_names_are_listed_and_misspellings_are_met_with_the_nearest() -> None:
    assert {"blackjack", "cart_pole", "connect_four", "snake"} <= set(task_names())
    with pytest.raises(UserError, match=r"Did you mean 'snake'.*blackjack, cart_pole, connect_four, snake"):
        load_task("snakes")


def test_a_missing_module_object_or_option_is_named() -> None:
    with pytest.raises(UserError, match="no module 'no_such_module'"):
        load_task("no_such_module:Thing")
    with pytest.raises(UserError, match=r"Did you mean 'FrozenLakeTask'"):
        load_task("examples.frozen_lake:FrozenLake")
    with pytest.raises(UserError, match="takes no options"):
        load_task("blackjack", natural=True)
    with pytest.raises(UserError, match="colour"):
        load_task("snake", colour="green")
    with pytest.raises(UserError, match="map_nam"):
        load_task("examples.frozen_lake:FrozenLakeTask", map_nam="8x8")
    with pytest.raises(UserError, match="num_envs = 0"):
        load_task("blackjack").make_vec(0, seed=0)


class Cart(Task):
    """CartPole in words: good, so that each test below breaks one thing."""

    name = "cart"
    env_id = "CartPole-v1"
    rules = "Balance the pole."
    actions = ("left", "right")

    def describe(self, observation: Any) -> str:
        return f"The cart is at {observation[0]:.3f}, the pole at {observation[2]:.3f}."


def broken(**fields: Any) -> type[Task]:
    return type("Broken", (Cart,), fields)


def fail(self: Task, observation: Any) -> str:
    raise KeyError("no words")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (broken(env_id="Pendulum-v1"), r"Pendulum-v1.*continuous.*Discrete"),
        (broken(actions=("go", "Go ")), r"'go' and 'Go ' collide"),
        (broken(actions=("left",)), r"actions: 1 labels; 2 to \d+ are needed"),
        (broken(actions=("left", "right", "up")), r"3 action labels .* for 2 actions"),
        (broken(actions=("left", " ")), r"label ' ': is empty"),
        (broken(actions="lr"), r"tuple of texts"),
        (broken(rules=""), r"'rules' is missing"),
        (broken(describe=fail), r"observation array\(.*describe fails with KeyError.*no words"),
        (broken(describe=lambda self, observation: "  "), r"observation array\(.*describe returned '  '"),
        (broken(legal=lambda self, observation: np.zeros(2, dtype=bool)), r"observation array\(.*no action"),
        (broken(legal=lambda self, observation: np.ones(3, dtype=bool)), r"observation array\(.*2 booleans"),
        (broken(oracle=lambda self, observation: np.array([0.5, 0.2])), r"observation array\(.*distribution"),
        (broken(unflatten=lambda self, flat: flat * 0), r"after unflatten"),
        (broken(env_id="NoSuchEnv-v3"), r"NoSuchEnv"),
    ],
)
def test_a_bad_task_is_refused_at_registration_with_what_shows_it(task: type[Task], message: str) -> None:
    with pytest.raises(UserError, match=message):
        register_task(task)
    assert "cart" not in task_names()


def test_registering_makes_a_task_loadable_and_protects_names() -> None:
    register_task(Cart, "cart-pole")
    assert load_task("cart-pole").describe(np.zeros(4)) == "The cart is at 0.000, the pole at 0.000."
    assert "cart-pole" in task_names()
    with pytest.raises(UserError, match="taken"):
        register_task(Cart, "blackjack")
    with pytest.raises(UserError, match="taken"):
        register_task(broken(), "cart-pole")


def test_an_objects_options_and_foreign_objects_are_refused() -> None:
    with pytest.raises(UserError, match=r"must be a rllib_plugins\.tasks\.Task"):
        load_task("math:pi")
    with pytest.raises(UserError, match=r"must make a rllib_plugins\.tasks\.Task"):
        load_task("collections:OrderedDict")


def test_actions_that_do_not_start_at_zero_are_shifted() -> None:
    class Shifted(gym.Env):  # type: ignore[type-arg]
        observation_space = gym.spaces.Discrete(2)
        action_space = gym.spaces.Discrete(2, start=5)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[int, dict[str, Any]]:
            super().reset(seed=seed)
            return 0, {}

        def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
            return 0, float(action), True, False, {}

    gym.register("Shifted-v0", entry_point=Shifted)
    task = broken(env_id="Shifted-v0", describe=lambda self, observation: f"cell {observation}")()
    validate(task)
    env = task.make()
    env.reset(seed=0)
    assert env.step(1)[1] == 6.0
    envs = task.make_vec(2, seed=0)
    envs.reset()
    assert envs.step(np.array([0, 1]))[1].tolist() == [5.0, 6.0]


class Lengths(gym.Env):  # type: ignore[type-arg]
    """Episodes of one step that return 0, or of ten that return 10, each as likely."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 10 if self.np_random.random() < 0.5 else 1
        self.reward = 1.0 if self.left == 10 else 0.0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return 0, self.reward, self.left == 0, False, {}


def test_short_episodes_count_no_more_than_long_ones() -> None:
    gym.register("Lengths-v0", entry_point=Lengths)
    task = broken(env_id="Lengths-v0")()
    result = evaluate(task, task.uniform_policy, episodes=1_200, seed=1)
    assert result.num_episodes == 1_200 and not result.exact
    assert abs(result.return_mean - 5.0) < 4 * 5.0 / np.sqrt(1_200)
    assert abs(result.return_std - 5.0) < 0.2
    assert evaluate(task, task.uniform_policy, episodes=700, seed=1) != evaluate(
        task, task.uniform_policy, episodes=700, seed=2
    )
    assert evaluate(task, task.uniform_policy, episodes=77, seed=1).num_episodes == 77


def test_evaluation_refuses_what_makes_no_sense() -> None:
    task = load_task("snake")
    with pytest.raises(UserError, match="episodes = 0"):
        evaluate(task, task.uniform_policy, episodes=0, seed=0)
    with pytest.raises(UserError, match="shape"):
        evaluate(task, lambda rows: np.ones((len(rows), 2)), episodes=2, seed=0)
    with pytest.raises(UserError, match="nan"):
        evaluate(task, lambda rows: np.full((len(rows), 3), np.nan), episodes=2, seed=0)
    with pytest.raises(UserError, match="more than 5 env steps"):
        evaluate(task, lambda rows: np.eye(3)[np.zeros(len(rows), dtype=int)], episodes=50, seed=0, max_episode_steps=5)


def test_illegal_probability_is_taken_away() -> None:
    task = load_task("connect_four")
    planes = np.zeros((2, 6, 7))
    planes[0, ::2, 0] = planes[1, 1::2, 0] = 1
    rows = np.tile(planes.reshape(1, -1), (2, 1)).astype(np.float32)
    masked = mask_policy(task, rows, np.array([[1.0, 0, 0, 0, 0, 0, 0], [0.5, 0.25, 0.25, 0, 0, 0, 0]]))
    assert np.allclose(masked[0], [0, *[1 / 6] * 6])
    assert np.allclose(masked[1], [0, 0.5, 0.5, 0, 0, 0, 0])


def test_sampled_actions_follow_their_probabilities() -> None:
    probabilities = np.tile([0.0, 0.25, 0.0, 0.75, 0.0], (20_000, 1))
    counts = np.bincount(sample_actions(probabilities, np.random.default_rng(0)), minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert abs(counts[1] / 20_000 - 0.25) < 0.015
