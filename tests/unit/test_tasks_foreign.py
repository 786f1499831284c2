"""Other people's environments: refused in one line with the remedy, or played without harm."""

from __future__ import annotations

import enum
import logging
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rllib_plugins.evaluation import evaluate, mask_policy, random_return
from rllib_plugins.grading.states import visited_states
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.tasks.connect_four import ConnectFourTask
from rllib_plugins.tasks.validation import validate
from rllib_plugins.yardsticks import trivial_players
from tests.unit import foreign_envs as foreign
from tests.unit.foreign_envs import task_of
from tutor_service.errors import UserError


def refusal(task: Task) -> str:
    with pytest.raises(UserError) as caught:
        validate(task)
    message = str(caught.value)
    assert "\n" not in message and task.name in message
    return message


@pytest.mark.parametrize("env", [foreign.OldStep, foreign.OldReset, foreign.NoOptions, foreign.BareReset])
def test_another_api_is_refused_by_name_with_how_to_wrap_it(env: Any) -> None:
    message = refusal(task_of(env)())
    assert "Gymnasium's API" in message and "Wrap it" in message and "terminated, truncated" in message


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        (foreign.Broke, r"step\(0\) fails with RuntimeError: port 7777 is taken by another"),
        (foreign.NoReward, "reward = None"),
        (foreign.NoStart, "OSError: licence server not found"),
        (foreign.Shut, r"info\['action_mask'\] allows no action"),
    ],
)
def test_an_environment_that_fails_is_refused_with_what_it_said(env: Any, shown: str) -> None:
    with pytest.raises(UserError, match=shown):
        validate(task_of(env)())
    refusal(task_of(env)())


@pytest.mark.parametrize("paid", [None, float("nan"), float("-inf"), "much", np.zeros(2)])
def test_a_reward_that_is_no_number_is_refused_whenever_it_comes(paid: Any) -> None:
    assert "it must be a finite number" in refusal(task_of(type("Paid", (foreign.BadReward,), {"paid": paid}))())


@pytest.mark.parametrize("last", [np.array([np.nan]), np.array([1e300]), None, np.zeros(2)])
def test_an_observation_that_is_none_is_refused_whenever_it_comes(last: Any) -> None:
    """Those of a last step never reach ``describe``, but a student would learn NaN from them."""
    message = refusal(task_of(type("Seen", (foreign.BadSight,), {"last": last}))())
    assert "the observation" in message


@pytest.mark.parametrize("error", [ConnectionError("lost the\nsimulator"), SystemExit(0), KeyError("x")])
def test_an_environment_that_fails_later_is_named_in_one_line(error: BaseException) -> None:
    class Later(foreign.Corridor):
        fails = False

        def step(self, action: int) -> Any:
            if self.fails:
                raise error
            return super().step(action)

    task = task_of(Later)()
    validate(task)
    Later.fails = True
    with pytest.raises(UserError) as caught:
        evaluate(task, task.uniform_policy, episodes=5, seed=0)
    assert "task 'later': its environment fails in step(" in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_simulator_says_is_no_part_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "talking.py").write_text(
        "from tests.unit.foreign_envs import Corridor, task_of\n"
        "print('Hello from the community')\n"
        "class Loud(Corridor):\n"
        "    def step(self, action):\n"
        "        print('step', action)\n"
        "        return super().step(action)\n"
        "Talking = task_of(Loud)\n"
    )
    load_task("talking:Talking")
    said = capsys.readouterr()
    assert said.out == "" and "Hello from the community" in said.err and "step 0" in said.err


@pytest.mark.parametrize("is_seeded", [True, False])
def test_an_environment_whose_results_cannot_be_reproduced_is_said_once(
    is_seeded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Windy(foreign.Corridor):
        def step(self, action: int) -> Any:
            luck = self.np_random.random() if is_seeded else np.random.rand()
            return super().step(action if luck < 0.7 else 1 - action)

    validate(task_of(Windy)())
    assert caplog.text.count("no result can be reproduced") == (0 if is_seeded else 1)


def test_arrays_of_one_number_are_numbers() -> None:
    task = task_of(foreign.Arrays)()
    validate(task)
    assert 0.3 < evaluate(task, task.uniform_policy, episodes=50, seed=0).return_mean < 0.7


def test_environments_that_are_lent_stay_open_until_their_task_is_closed() -> None:
    task = task_of(foreign.Closed)()
    validate(task)  # restores a checkpoint on the way
    for seed in range(2):
        evaluate(task, task.uniform_policy, episodes=20, seed=seed)
    kept = [env.unwrapped for env in task._spare]
    task.close()
    assert len(kept) == 4 and all(env.closed for env in kept)
    task._spare.extend(kept)
    task.close()  # an environment that fails at that harms nobody


def test_an_old_environment_in_a_wrapper_is_taken() -> None:
    class Wrapped(gym.Wrapper):  # type: ignore[type-arg]
        def __init__(self) -> None:
            super().__init__(foreign.OldStep())

        def step(self, action: int) -> Any:
            observation, reward, ended, info = self.env.step(action)
            return observation, reward, ended, False, info

    def wrapped_corridor() -> Any:
        return Wrapped()

    validate(task_of(wrapped_corridor)())  # type: ignore[arg-type]


def test_observations_without_a_flat_form_need_encode_and_nothing_else() -> None:
    assert "Override encode(observation)" in refusal(task_of(foreign.Spoken)())
    task = load_task("tests.unit.foreign_envs:SpokenTask")
    assert task.observation_space.shape == (5,)
    states, _ = visited_states(task, 50, seed=0)
    assert {task.describe(task.raw_observation(row)) for row in states} == {
        f"You see cell {cell}." for cell in (1, 2, 3)
    }
    as_list = task_of(foreign.Spoken, encode=lambda self, observation: [0.0, float(observation[-1])])()
    validate(as_list)
    assert as_list.make_vec(1, seed=0).reset()[0].tolist() == [[0.0, 2.0]]
    hinted = task_of(foreign.Spoken, encode=foreign.cell_vector, hint="Walk right.")()
    for other in (hinted.with_hint(True), hinted):  # they share what was seen
        row = hinted.make_vec(1, seed=0).reset()[0][0]
        assert other.describe(other.raw_observation(row)) == "You see cell 2."
    with pytest.raises(UserError, match="write unflatten"):
        task.raw_observation(np.full(5, 0.5, dtype=np.float32))


def test_encode_of_another_length_from_step_to_step_is_refused() -> None:
    growing = task_of(foreign.Spoken, encode=lambda self, observation: np.zeros(2 + int(observation[-1]) % 2))
    assert "encode returned a vector of shape (3,), expected (2,)" in refusal(growing())


def test_encode_that_fails_is_named() -> None:
    def failing(task: Task, observation: str) -> np.ndarray:
        return np.array([float(observation)])

    assert "observation cell 2: encode fails with ValueError" in refusal(task_of(foreign.Spoken, encode=failing)())


def test_encode_that_hides_what_describe_tells_is_refused() -> None:
    blind = task_of(foreign.Spoken, name="blind", encode=lambda self, observation: np.zeros(2, dtype=np.float32))
    assert "student and tutor must know the same" in refusal(blind())


@pytest.mark.parametrize(
    "env",
    [
        *(foreign.Masked, foreign.MaskedInts, foreign.MaskedList, foreign.MaskedMethod, foreign.MaskedObservation),
        *(foreign.MaskedAttribute, foreign.MaskedMoves),
    ],
)
def test_masks_are_honoured_wherever_an_environment_shows_them(env: Any) -> None:
    cell = (lambda o: o["cell"]) if env is foreign.MaskedObservation else (lambda o: o)
    task = task_of(env, describe=lambda self, observation: f"You are on cell {cell(observation)}.")()
    validate(task)
    assert task.mask_source is not None
    random = evaluate(task, task.uniform_policy, episodes=200, seed=0)
    assert random.return_mean > 0.6  # the left end cannot be reached
    assert evaluate(task, task.constant_policy(0), episodes=5, seed=0).return_mean == 0.0
    states, _ = visited_states(task, 100, seed=0)
    legal = task.legal_batch(states)
    assert legal is not None and legal.all()  # where there is one legal action nobody is asked
    assert {task.describe(task.raw_observation(row))[-2] for row in states} == {"2", "3"}


def test_a_tasks_own_make_raw_needs_no_render_mode():
    class Bare(ConnectFourTask):
        def make_raw(self):
            return super().make_raw()

    assert Bare().make().reset(seed=0)[0].shape == Bare().observation_space.shape


def test_a_native_vector_shows_its_masks_too() -> None:
    class WithoutLegal(ConnectFourTask):
        legal = Task.legal
        legal_batch = Task.legal_batch
        oracle = Task.oracle

    task = WithoutLegal(first="student")
    validate(task)
    assert str(task.mask_source) == "info['action_mask']" and task.observation_space.shape == (84 + 7,)
    envs = task.make_vec(4, seed=0)
    observations, _ = envs.reset()
    for _ in range(60):  # a full column raises
        observations = envs.step(mask_policy(task, observations, np.eye(7)[[3, 3, 0, 6]]).argmax(axis=1))[0]
    assert np.array_equal(task.legal_batch(observations), observations[:, :84].reshape(4, 2, 6, 7)[:, :, 0].sum(1) == 0)


def test_a_mask_that_is_none_is_refused_when_it_shows() -> None:
    class Odd(foreign.Masked):
        def say(self, mask: np.ndarray) -> dict[str, Any]:
            return {"action_mask": mask if self.time < 3 else "all"}

    with pytest.raises(UserError, match=r"info\['action_mask'\] is 'all': expected 2 flags"):
        validate(task_of(Odd)())


def saying(say: Any) -> Any:
    """An environment that shows its mask otherwise."""
    return type("Saying", (foreign.Masked,), {"say": lambda self, mask: say(mask)})


def numbers(mask: np.ndarray) -> list[int]:
    return [int(action) for action in np.flatnonzero(mask)]


@pytest.mark.parametrize(
    "say",
    [
        lambda mask: {"mask": mask},
        lambda mask: {"actionMask": mask.tolist()},
        lambda mask: {"ACTION-MASK": mask[None].astype(float)},
        lambda mask: {"available_actions": numbers(mask)},
        lambda mask: {"avail_actions": mask.astype(int)},
        lambda mask: {"feasible_actions": tuple(mask)},
        lambda mask: {"legalMoves": set(numbers(mask))},
        lambda mask: {"legal_actions": dict.fromkeys(numbers(mask))},
        lambda mask: {"allowed_actions": {action: bool(flag) for action, flag in enumerate(mask)}},
    ],
)
def test_masks_are_honoured_whatever_they_are_called_and_made_of(say: Any) -> None:
    task = task_of(saying(say))()
    validate(task)  # an illegal action raises
    states, _ = visited_states(task, 100, seed=0)
    assert {task.describe(task.raw_observation(row)) for row in states} == {"You see 2.", "You see 3."}


@pytest.mark.parametrize("key", ["legal_actions", "action_mask"])
def test_flags_of_integers_are_not_taken_for_numbers_of_actions(key: str) -> None:
    space = gym.spaces.Dict({"cell": gym.spaces.Discrete(5), key: gym.spaces.MultiBinary(2)})
    shown = type("Shown", (foreign.MaskedObservation,), {"observation_space": space})
    shown._dictionary = lambda self: {"cell": self.at, key: self.mask().astype(np.int8)}  # type: ignore[attr-defined]
    task = task_of(shown, describe=lambda self, observation: f"You are on cell {observation['cell']}.")()
    validate(task)
    assert evaluate(task, task.uniform_policy, episodes=50, seed=0).return_mean < 1.0

    class Three(foreign.Masked):
        action_space = gym.spaces.Discrete(3)

        def mask(self) -> np.ndarray:
            return np.append(super().mask(), True)

        def say(self, mask: np.ndarray) -> dict[str, Any]:
            return {key: mask.astype(int).tolist()}

    validate(task_of(Three, actions=("left", "right", "jump"))())


@pytest.mark.parametrize(
    "say",
    [
        lambda mask: {"invalid_action_mask": ~mask},
        lambda mask: {"illegal_moves": numbers(~mask)},
        lambda mask: {"legal_actions": [("left", "right")[action] for action in numbers(mask)]},
        lambda mask: {"action_mask": np.append(mask, True)},
    ],
)
def test_a_mask_that_cannot_be_read_is_refused_and_legal_is_asked_for(say: Any) -> None:
    assert "write legal(observation)" in refusal(task_of(saying(say))())
    validate(task_of(saying(say), legal=lambda self, cell: [cell >= 2, True])())


def test_an_environment_that_refuses_an_action_without_a_mask_is_told_how_to_show_one() -> None:
    assert "show the mask in info['action_mask']" in refusal(task_of(foreign.MaskedSilent)())


@pytest.mark.parametrize("legal", [[0, 1, 2], [1, 2], {0, 1, 2}, None])
def test_numbers_of_legal_actions_are_no_mask(legal: Any) -> None:
    class Three(foreign.Corridor):
        action_space = gym.spaces.Discrete(3)

    task = task_of(Three, actions=("left", "right", "jump"), legal=lambda self, cell: legal)()
    assert "legal returned" in refusal(task) and "3 booleans" in refusal(task)


def test_an_author_s_own_mask_goes_before_the_environment_s() -> None:
    task = task_of(foreign.Masked, name="own", legal=lambda self, cell: np.array([cell >= 2, True]))()
    validate(task)
    assert task.mask_source is None and task.observation_space.shape == (5,)


def test_infos_that_nobody_reads_are_not_collected() -> None:
    task = task_of(foreign.Ragged)()
    validate(task)
    envs = task.make_vec(3, seed=0)
    _, infos = envs.reset()
    assert infos == {}
    seen = set()
    for _ in range(30):
        infos = envs.step(np.array([0, 1, 1]))[4]
        seen |= set(infos)
    assert seen == {"final_obs", "_final_obs"}
    envs.close()


@pytest.mark.parametrize(
    ("env", "why"),
    [(foreign.Rebuilt, "EzPickle"), (foreign.Remade, "copy"), (foreign.Locked, "cannot be pickled")],
)
def test_an_environment_that_cannot_be_had_back_is_found_out_and_said_once(
    env: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_of(env)()
    with caplog.at_level(logging.WARNING):
        validate(task)
        envs = task.make_vec(2, seed=0)
        envs.reset()
        assert task.save_vec(envs) is None and task.save_vec(envs) is None
    assert caplog.text.count("begins fresh episodes") == 1 and why in caplog.text


def test_an_environment_that_can_be_had_back_goes_on_where_it_was() -> None:
    task = task_of(foreign.Corridor)()
    envs = task.make_vec(2, seed=0)
    envs.reset()
    envs.step(np.array([1, 0]))
    state = task.save_vec(envs)
    assert state is not None
    expected = envs.step(np.array([1, 1]))
    other = task.make_vec(2, seed=5)
    other.reset()
    other.restore(state)
    for ours, theirs in zip(expected[:4], other.step(np.array([1, 1]))[:4], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_environment_that_cannot_be_kept_later_costs_its_episodes_alone(caplog: pytest.LogCaptureFixture) -> None:
    task = task_of(foreign.Corridor, name="later")()
    envs = task.make_vec(2, seed=0)
    envs.reset()
    state = task.save_vec(envs)
    envs.envs[1].env.unwrapped.lock = threading.Lock()  # type: ignore[attr-defined]
    assert state is not None and task.save_vec(envs) is None
    assert task.restore_vec(envs, state) and not task.restore_vec(envs, None) and not task.restore_vec(envs, state[:50])
    assert "goes without its environments" in caplog.text and "cannot be had back" in caplog.text


def test_environments_are_made_once_and_used_again() -> None:
    foreign.CONSTRUCTED.clear()
    task = task_of(foreign.Corridor)()
    validate(task)
    for seed in range(5):
        evaluate(task, task.uniform_policy, episodes=50, seed=seed, num_envs=8)
    random_return(task)
    trivial_players(task)
    visited_states(task, 50, seed=0)
    assert foreign.CONSTRUCTED["Corridor"] == 8
    task.close()


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ((" left", "right"), "white space around it"),
        (("a\n", "b"), "label 'a"),
        (("a\tb", "c"), "control character"),
        (("left", "left"), "collide"),
        (tuple(f"go {i}" for i in range(64)), "64 labels; 2 to"),
        (("x" * 100, "y"), "100 characters"),
        (("é", "e\u0301"), "collide"),
        (("go\u200b", "Go"), "collide"),
        (("go left", "go\u00a0left"), "collide"),
        (("\u200b", "right"), "cannot be seen"),
        ({"left", "right"}, "must be a tuple"),
        ({"left": 0, "right": 1}, "must be a tuple"),
        (np.array(["left", "right"]), "must be a tuple"),
    ],
)
def test_labels_that_no_tutor_takes_are_refused_when_the_task_is_loaded(labels: Any, shown: str) -> None:
    assert shown in refusal(task_of(foreign.Corridor, actions=labels)())


def test_labels_of_an_enum_are_their_values() -> None:
    class Move(str, enum.Enum):  # noqa: UP042 - a StrEnum shows its values by itself
        LEFT = "left"
        RIGHT = "right"

    task = task_of(foreign.Corridor, actions=tuple(Move))()
    validate(task)
    assert [f"{label}" for label in task.actions] == ["left", "right"]  # a member says Move.LEFT of itself


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"name": "a/b"}, "name = 'a/b' names files"),
        ({"name": "x" * 300}, "at most 64"),
        ({"name": 3}, "name = 3"),
        ({"env_id": foreign.Corridor}, "must be a registered id"),
        ({"hint": ["go right"]}, "hint = "),
        ({"num_env_steps": 0}, "num_env_steps = 0 must be a whole number of at least 1"),
        ({"num_env_steps": "40_000"}, "num_env_steps = '40_000'"),
        ({"num_states": -1}, "num_states = -1"),
        ({"episode_steps": 0}, "episode_steps = 0"),
        ({"synonyms": [("a",), ("b",)]}, "must be a dictionary"),
        ({"synonyms": {"lefft": ("west",)}}, "Did you mean 'left'"),
        ({"oracle": lambda self, cell: "right"}, "oracle fails with ValueError"),
        ({"encode": lambda self, cell: cell}, "encode returned an array of shape ()"),
    ],
)
def test_fields_and_methods_that_are_none_are_refused_by_name(fields: dict[str, Any], shown: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(task_of(foreign.Corridor, **fields)())
    assert shown in str(caught.value)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("def x(:", "SyntaxError"),
        ("undefined", "NameError: name 'undefined' is not defined while it is imported (line 1 of"),
        ("from os import nothing", "ImportError"),
        ("import sys; sys.exit(2)", "__main__"),
        ("class T:\n    def __init__(self): raise KeyError('size')", "its constructor fails with KeyError: 'size'"),
        ("class T:\n    def __init__(self): raise SystemExit('no licence')", "SystemExit: no licence"),
    ],
)
def test_a_module_that_fails_is_refused_with_what_it_said(
    source: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"failing_{len(source)}"
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(UserError) as caught:
        load_task(f"{name}:T")
    assert shown in str(caught.value)


@pytest.mark.parametrize("name", ["tasks.py:Lake", "./tasks:Lake", "folder/tasks:Lake", "/tmp/tasks.py:Lake", ":Lake"])
def test_a_path_is_no_module(name: str) -> None:
    with pytest.raises(UserError, match="as Python imports it"):
        load_task(name)


def test_words_that_no_tutor_takes_are_refused() -> None:
    assert "rules" in refusal(task_of(foreign.Corridor, rules="x" * 70_000)())
    assert "surrogate" in refusal(task_of(foreign.Corridor, describe=lambda self, cell: f"cell \ud800 {cell}")())


def test_trials_share_no_environment() -> None:
    """Seeds that are numbers in a row gave trials 0 and 1 seven of eight environments in common."""

    class Diced(foreign.Corridor):
        observation_space = gym.spaces.Box(0, 1, (1,), np.float64)

        def reset(self, **keywords: Any) -> Any:
            super().reset(**keywords)
            return self.np_random.random(1), {}

        def step(self, action: int) -> Any:
            _, *rest = super().step(action)
            return (self.np_random.random(1), *rest)

    task = task_of(Diced, describe=lambda self, observation: f"{observation[0]:.3f}")()
    starts = [task.make_vec(8, seed=seed).reset()[0][:, 0].tolist() for seed in range(20)]
    assert len({start for vector in starts for start in vector}) == 160
    assert task.make_vec(8, seed=3).reset()[0][:, 0].tolist() == starts[3]
    streams = [task.make(stream=trial).reset(seed=trial + i)[0][0] for trial in range(8) for i in range(8)]
    assert len(set(streams)) == 64
