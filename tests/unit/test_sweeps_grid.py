"""Presets, settings and the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.advising.config import PAPER_ADVICE
from rllib_plugins.config import StudentConfig
from rllib_plugins.tasks import load_task
from tune_sweeps.definition.config import MAX_TRIALS, SCHEMA_VERSION, Match, SweepConfig
from tune_sweeps.definition.grid import Cell, cells, grid
from tune_sweeps.definition.loading import (
    apply_setting,
    continued,
    difference,
    dump_sweep,
    forked,
    load_sweep,
    preset_names,
    validate_sweep,
    with_more_seeds,
)
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.run.estimate import (
    TYPICAL_ANSWERS_PER_S,
    TYPICAL_STEPS_PER_S,
    concurrency,
    consultations,
    estimate,
    max_evaluations,
    num_observations,
)
from tune_sweeps.run.estimate_view import estimate_lines, estimate_values
from tune_sweeps.run.own_play import MOST_SECONDS
from tune_sweeps.run.uses import uses_line
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError, unknown_name

STEPS = {"blackjack": 40_000, "snake": 100_000, "connect_four": 100_000}


def sweep(**fields: Any) -> SweepConfig:
    return validate_sweep({"name": "t", "tutors": ["oracle"], "tasks": ["blackjack"], **fields}, "test")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_whole_and_says_what_it_is(name: str) -> None:
    config = load_sweep(name)
    assert config.name == name
    assert config.description
    assert resolve(config).trials


@pytest.mark.parametrize("name", ["laptop54", "paper", "grid54"])
def test_the_papers_grid_has_54_cells_and_9_baselines(name: str) -> None:
    resolved = resolve(load_sweep(name))
    all_cells = {trial.cell for trial in resolved.trials}
    assert len([cell for cell in all_cells if cell.tutored]) == 54
    assert len([cell for cell in all_cells if not cell.tutored]) == 9
    assert len(resolved.trials) == 63 * len(resolved.config.seeds)


def test_the_preset_paper_uses_advice_as_the_paper_does() -> None:
    assert load_sweep("paper").advice == PAPER_ADVICE


def test_the_demo_is_three_students_with_two_tutors() -> None:
    labels = {trial.cell.label for trial in resolve(load_sweep("demo")).trials}
    assert len(labels) == 9
    assert {
        "ppo · qwen2.5-coder-1.5b-cart_pole · cart_pole",
        "dqn · oracle · cart_pole",
        "a2c · untutored · cart_pole",
    } <= labels


def test_a_trial_is_named_for_people_and_for_files() -> None:
    trials = grid(sweep(algorithms=["ppo"], reuse=[True, False], seeds=[0, 7]), STEPS)
    assert trials[1].label == "ppo · oracle · blackjack · reuse · seed 0"
    assert trials[1].key == "ppo-oracle-blackjack-reuse-s0"
    assert trials[2].key == "ppo-oracle-blackjack-noreuse-s0"
    assert trials[3].label == "ppo · untutored · blackjack · seed 7"
    distilling = grid(sweep(algorithms=["ppo"]), STEPS)[1]
    assert (distilling.cell.use, distilling.key) == ("distil", "ppo-oracle-blackjack-reuse-s0")
    assert distilling.label == "ppo · oracle · blackjack · seed 0", "its use does not read reuse"


def test_keys_are_distinct_and_file_names() -> None:
    trials = grid(sweep(tutors=["oracle", "oracle+random:0.25"], seeds=3), STEPS)
    keys = [trial.key for trial in trials]
    assert len(set(keys)) == len(keys)
    assert all("/" not in key and ":" not in key for key in keys)


def test_reuse_off_switches_the_rule_off_and_on_keeps_it() -> None:
    config = sweep(algorithms=["ppo"], reuse=[True, False], advice={"reuse_options": {"budget": 5}})
    by_reuse = {trial.cell.reuse: trial.student.advice for trial in grid(config, STEPS)}
    assert (by_reuse[True].reuse, by_reuse[True].reuse_options) == ("budget", {"budget": 5})
    assert by_reuse[False].reuse == "off"


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, "distil"),
        ({"reuse": [True]}, "distil"),
        ({"reuse": [True, False]}, "coin"),
        ({"reuse": [True], "advice": {"trust": "fixed"}}, "coin"),
        ({"reuse": [True], "overrides": [{"match": {"tutor": "oracle"}, "set": {"advice.weight_cap": 2.0}}]}, "coin"),
    ],
)
def test_one_use_of_advice_holds_for_all_cells_that_are_compared(fields: dict[str, Any], use: str) -> None:
    trials = grid(sweep(algorithms=["ppo"], tutors=["oracle"], **fields), STEPS)
    assert {trial.student.advice.use for trial in trials if trial.cell.reuse is not None} == {use}


def test_reuse_on_without_a_rule_is_refused() -> None:
    with pytest.raises(UserError, match=r"advice\.reuse"):
        grid(sweep(reuse=[True], advice={"reuse": "off"}), STEPS)


def test_none_among_the_tutors_is_the_baseline_and_no_second_one() -> None:
    assert len(cells(sweep(tutors=["none", "oracle"], algorithms=["ppo"], reuse=[True]))) == 2


def test_without_baselines_only_tutored_cells_run() -> None:
    assert all(cell.tutored for cell in cells(sweep(baselines=False)))


def test_a_control_is_an_untutored_cell_of_its_own() -> None:
    config = sweep(
        algorithms=["ppo"],
        reuse=[True],
        controls=["more_updates"],
        overrides=[{"match": {"tutor": "more_updates"}, "set": {"updates_factor": 3}}],
    )
    control, *_ = [trial for trial in grid(config, STEPS) if trial.cell.tutor == "more_updates"]
    assert control.label == "ppo · untutored, more updates · blackjack · seed 0"
    assert (control.student.tutor, control.student.updates_factor) == ("none", 3)
    assert not control.cell.tutored and not control.cell.baseline
    assert {t.student.updates_factor for t in grid(config, STEPS) if t is not control} >= {1.0}
    assert len(resolve(config).trials) == 3


def test_each_tutor_is_cloned_where_it_tutors() -> None:
    config = sweep(
        algorithms=["ppo", "dqn"],
        tutors=["oracle", "random"],
        reuse=[True, False],
        controls=["cloning", "more_updates"],
        advice={"use": "coin", "trust": "fixed", "probability_final": 0.3},
        exclude=[{"algorithm": "dqn", "tutor": "random"}],
        overrides=[
            {"match": {"task": "blackjack"}, "set": {"advice.weight_cap": 2.0}},
            {"match": {"tutor": "cloning"}, "set": {"advice.use_options.until": 0.95}},
        ],
    )
    clones = [trial for trial in grid(config, STEPS) if trial.cell.control == "cloning"]
    assert [trial.cell.tutor for trial in clones] == ["cloning:oracle", "cloning:random", "cloning:oracle"]
    assert {trial.key for trial in clones} >= {"ppo-cloning_oracle-blackjack-s0", "dqn-cloning_oracle-blackjack-s0"}
    assert clones[0].label == "ppo · cloning of oracle · blackjack · seed 0"
    assert (clones[0].student.tutor, clones[0].cell.asks) == ("oracle", "oracle")
    advice = clones[0].student.advice
    assert (advice.use, advice.probability_final, advice.use_options) == ("clone", 0.3, {"until": 0.95})
    assert not clones[0].cell.tutored and not clones[0].cell.baseline
    assert all(t.student.advice.use == "coin" for t in grid(config, STEPS) if t.cell.control is None)


def test_a_clone_of_an_oracle_needs_one() -> None:
    fields: dict[str, Any] = {"tasks": ["examples.minigrid_door_key:DoorKeyTask"], "controls": "cloning"}
    with pytest.raises(UserError, match="tutor 'oracle' cannot serve task 'door_key'"):
        resolve(sweep(**fields))


def test_exclusions_and_overrides_meet_the_cells_that_they_name() -> None:
    config = sweep(
        tasks=["blackjack", "snake"],
        reuse=[True, False],
        exclude=[{"algorithm": "dqn", "task": "snake"}, {"reuse": False}],
        overrides=[
            {"match": {"task": "snake"}, "set": {"num_envs": 16, "advice.weight_cap": 2.0}},
            {"match": {"algorithm": ["a2c"], "task": "snake"}, "set": {"num_envs": 32}},
        ],
    )
    trials = grid(config, STEPS)
    assert not [t for t in trials if t.cell.algorithm == "dqn" and t.cell.task == "snake"]
    assert not [t for t in trials if t.cell.reuse is False]
    num_envs = {(t.cell.algorithm, t.cell.task): t.student.num_envs for t in trials}
    assert num_envs == {
        ("dqn", "blackjack"): 8, ("ppo", "blackjack"): 8, ("a2c", "blackjack"): 8,
        ("ppo", "snake"): 16, ("a2c", "snake"): 32,
    }  # fmt: skip
    assert all((t.student.advice.weight_cap == 2.0) == (t.cell.task == "snake") for t in trials)


@pytest.mark.parametrize(("given", "expected"), [(None, 40_000), (7_000, 7_000), ({"blackjack": 9_000}, 9_000)])
def test_env_steps_come_from_the_sweep_or_else_from_the_task(given: object, expected: int) -> None:
    assert {t.student.num_env_steps for t in grid(sweep(num_env_steps=given), STEPS)} == {expected}


@given(
    algorithms=st.sets(st.sampled_from(["dqn", "ppo", "a2c"]), min_size=1),
    tutors=st.sets(st.sampled_from(["oracle", "random", "worst"]), min_size=1),
    tasks=st.sets(st.sampled_from(sorted(STEPS)), min_size=1),
    reuse=st.sampled_from([[True], [False], [True, False]]),
    seeds=st.integers(1, 4),
)
@settings(max_examples=30, deadline=None)
def test_the_grid_is_the_product_of_its_axes(
    algorithms: set[str], tutors: set[str], tasks: set[str], reuse: list[bool], seeds: int
) -> None:
    config = sweep(algorithms=sorted(algorithms), tutors=sorted(tutors), tasks=sorted(tasks), reuse=reuse, seeds=seeds)
    trials = grid(config, STEPS)
    pairs = len(algorithms) * len(tasks)
    assert len(trials) == seeds * pairs * (1 + len(tutors) * len(reuse))
    assert len({(t.cell, t.seed) for t in trials}) == len(trials)
    assert all(StudentConfig.model_validate(t.student.model_dump()) == t.student for t in trials)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seeds": MAX_TRIALS}, "10,000"),
        ({"exclude": [{"task": "blackjack"}]}, "0 trials"),
        ({"controls": ["cloning"], "tutors": ["none"]}, "controls lists cloning"),
        ({"seeds": 0}, "seeds = 0: a sweep has 1 to"),
        ({"seeds": 10**12}, "1 to 10,000"),
        ({"algorithms": ["ppo", "ppo"]}, "ppo more than once"),
        ({"seeds": [1, 1]}, "more than once"),
        ({"seeds": [-1]}, "0 or more"),
        ({"seeds": [2**31]}, "less than 2147483648"),
        ({"name": "../up"}, "name = '../up'"),
        ({"name": "x" * 101}, "at most 100 letters"),
        ({"name": "new\n"}, "at most 100 letters"),
        ({"name": "artifacts"}, "none of artifacts, "),
        ({"name": "mlflow.db"}, "name = 'mlflow.db'"),
        ({"tasks": []}, "tasks = \\[]: lists nothing"),
        ({"algorithms": []}, "algorithms = \\[]: lists nothing"),
        ({"resources": {"num_cpus_per_trial": float("inf")}}, "num_cpus_per_trial = inf: Input should be a finite"),
        ({"statistics": {"resamples": 10**12}}, "resamples = 1000000000000"),
        ({"num_env_steps": "many"}, "test: num_env_steps = 'many': .* integer, .*, or: .* dictionary"),
        ({"algorithms": ["pppo"]}, "algorithms"),
        ({"exclude": [{}]}, "names no axis"),
        ({"convergance": {}}, "Did you mean 'convergence'"),
        ({"convergance": {}, "sedes": 3}, "unknown field 'sedes' = 3. Did you mean 'seeds'\\? Valid: advice"),
        ({"extensions": [{"seeds": [0]}]}, "test: extensions repeat the seeds 0"),
        ({"advice": {"theta": 1}}, "advice.theta"),
        ({"advice": {"probability_initial": 2}}, "advice.probability_initial = 2"),
        ({"overrides": [{"match": {"task": "blackjack"}, "set": {"num_env": 3}}]}, "Did you mean 'num_envs'"),
        ({"overrides": [{"match": {"task": "blackjack"}, "set": {"advice.theta_frac": -1}}]}, "theta_frac"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        grid(sweep(**fields), STEPS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tutors": ["smolm2"]}, "Did you mean 'smollm2'"),
        ({"tasks": ["blakjack"]}, "Did you mean 'blackjack'"),
        ({"num_env_steps": {"blackjac": 5}}, "Did you mean 'blackjack'"),
        ({"hyperparameters": {"ppp": {}}}, "Did you mean 'ppo'"),
        ({"exclude": [{"tutor": "oracel"}]}, "Did you mean 'oracle'"),
        ({"task_options": {"snake": {"size": 6}}}, "snake"),
        ({"tasks": ["snake"], "task_options": {"snake": {"sise": 6}}}, "Did you mean 'size'.* start_length"),
        ({"exclude": [{"task": "blackjak"}]}, "unknown task 'blackjak' in a match.* Valid: blackjack, "),
    ],
)
def test_names_that_do_not_exist_are_refused_with_the_nearest(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve(sweep(**fields))


def test_a_task_without_oracle_takes_no_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rllib_plugins.tasks import Task

    monkeypatch.setattr("rllib_plugins.tasks.base.Task.has_oracle", False)
    assert Task.oracle is not None
    with pytest.raises(UserError, match="cannot serve task 'blackjack'"):
        resolve(sweep())
    assert resolve(sweep(tutors=["random"])).trials


def test_a_newer_preset_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "later.yaml"
    path.write_text(f"version: {SCHEMA_VERSION + 1}\ntutors: [oracle]\ntasks: [blackjack]\n")
    with pytest.raises(UserError, match="newer release"):
        load_sweep(str(path))
    with pytest.raises(UserError, match="newer release"):
        load_sweep("small", [f"version={SCHEMA_VERSION + 1}"])


def test_of_a_long_list_the_nearest_names_are_shown() -> None:
    message = str(unknown_name("trial", "ppo-s999", [f"ppo-s{seed}" for seed in range(630)], "in MLflow"))
    assert message.startswith("unknown trial 'ppo-s999' in MLflow. Did you mean 'ppo-s")
    assert "of 630" in message and len(message) < 250


@pytest.mark.parametrize(("text", "words"), [("a: [", "not valid YAML"), ("- 1", "mapping")])
def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_sweep(str(path))


def test_an_unknown_preset_shows_the_nearest_and_a_missing_file_the_presets() -> None:
    with pytest.raises(UserError, match="Did you mean 'demo'"):
        load_sweep("dmeo")
    with pytest.raises(UserError, match=r"mine\.yaml' does not exist"):
        load_sweep("mine.yaml")


def test_settings_reach_nested_fields_and_leave_their_neighbours() -> None:
    config = load_sweep("small", ["advice.theta_frac=0.3", "seeds=2", "tutors=[oracle]", "evaluation.episodes=7"])
    assert config.advice.theta_frac == 0.3
    assert config.seeds == [0, 1]
    assert config.tutors == ["oracle"]
    assert (config.evaluation.episodes, config.evaluation.interval_steps) == (7, 250)


@pytest.mark.parametrize("setting", ["seeds", "=3", "seed=3", "a..b=1", "seeds=[", "advice.thetafrac=1"])
def test_a_setting_that_means_nothing_is_refused(setting: str) -> None:
    with pytest.raises(UserError):
        load_sweep("small", [setting])


def test_a_setting_does_not_change_what_was_shared() -> None:
    inner = {"interval_steps": 5}
    fields: dict[str, Any] = {"evaluation": inner}
    apply_setting(fields, "evaluation.episodes=9")
    assert inner == {"interval_steps": 5}
    assert fields["evaluation"] == {"interval_steps": 5, "episodes": 9}


@pytest.mark.parametrize("name", preset_names())
def test_a_sweep_survives_the_way_to_disk(name: str) -> None:
    config = load_sweep(name)
    again = validate_sweep(yaml.safe_load(dump_sweep(config)), "copy")
    assert again == config
    assert not difference(config, again)


@pytest.mark.parametrize("reuse", [[True], [True, False]])
def test_a_sweep_has_the_same_trials_after_the_way_to_disk(reuse: list[bool]) -> None:
    config = sweep(reuse=reuse)
    again = validate_sweep(yaml.safe_load(dump_sweep(config)), "copy")
    assert [trial.student for trial in grid(again, STEPS)] == [trial.student for trial in grid(config, STEPS)]


def test_a_fork_is_the_sweep_with_some_fields_changed_and_all_its_seeds() -> None:
    old = with_more_seeds(sweep(seeds=2, reuse=[True, False]), 2)
    fork = forked(old, ["advice.theta_frac=0.3"])
    assert difference(fork, old) == [
        "seeds: [0, 1, 2, 3] → [0, 1]",
        "extensions: [] → [{'seeds': [2, 3], 'cells': None}]",
        "advice.theta_frac: 0.3 → 0.5",
    ]
    assert len(grid(fork, STEPS)) == len(grid(old, STEPS))
    assert forked(old, ["seeds=1"]).all_seeds == [0]
    with pytest.raises(UserError, match="Did you mean 'seeds'"):
        forked(old, ["seed=1"])


def test_a_difference_names_the_field_and_both_values() -> None:
    assert difference(load_sweep("small"), load_sweep("small", ["advice.theta_frac=0.3", "name=x"])) == [
        "advice.theta_frac: 0.5 → 0.3"
    ]


def test_consultations_are_the_area_under_the_schedule() -> None:
    fixed = {"trust": "fixed", "theta_frac": 0.5, "probability_initial": 1.0, "probability_final": 0.1}
    student = StudentConfig.model_validate({"algorithm": "ppo", "task": "x", "num_env_steps": 1_000, "advice": fixed})
    assert consultations(student) == pytest.approx(500 * 0.55 + 500 * 0.1, rel=1e-3)
    capped = student.model_copy(update={"advice": student.advice.model_copy(update={"advice_budget": 100})})
    assert consultations(capped) == 100


def test_expected_consultations_are_those_of_the_use() -> None:
    def expected(use: str, **advice: Any) -> float:
        fields = {"use": use, "theta_frac": 0.5, **advice}
        trial = {"algorithm": "ppo", "task": "x", "num_env_steps": 1_000, "advice": fields}
        return consultations(StudentConfig.model_validate(trial))

    assert expected("distil") == pytest.approx(500 * 0.55 + 500 * 0.1, rel=1e-3), (
        "nothing is compared, and so not capped"
    )
    assert expected("coin") == pytest.approx(expected("distil") - 500 / 9 * 0.05, rel=0.01)
    early = expected("distil", rule="early", probability_initial=0.5, advice_budget=10_000)
    assert early == pytest.approx(500), "its probability does not fall"
    assert expected("pool") == pytest.approx(500, rel=0.01)
    assert expected("observe") == pytest.approx(125, rel=0.01)
    assert expected("handover") == pytest.approx(1_000)
    assert expected("kickstart") == pytest.approx(expected("clone") - 500 * 0.1, rel=0.01)


def test_each_state_is_evaluated_once_at_most() -> None:
    resolved = resolve(load_sweep("small"))
    mine = [trial for trial in resolved.trials if trial.cell.tutor == "smollm2"]
    assert num_observations(resolved.tasks["blackjack"]) == 280
    assert max_evaluations(mine, resolved.tasks, {t.key: consultations(t.student) for t in mine}) == 280
    four = resolve(load_sweep("small", ["tasks=[connect_four]", "num_env_steps=1000", "seeds=1"]))
    asking = [trial for trial in four.trials if trial.cell.tutor == "smollm2"]
    expected = {trial.key: consultations(trial.student) for trial in asking}
    most = sum(expected.values())
    assert most <= max_evaluations(asking, four.tasks, expected) < most + 1 < 1_000 * len(asking)
    plan = estimate(four, cpus=2, speeds={})
    assert plan.max_answer_seconds == pytest.approx(most / TYPICAL_ANSWERS_PER_S, abs=0.1)
    laptop = resolve(load_sweep("laptop54")).tasks
    assert (num_observations(laptop["snake"]), num_observations(laptop["connect_four"])) == (64, None)
    assert num_observations(load_task("examples.frozen_lake:FrozenLakeTask")) == 16


def test_a_plan_adds_up() -> None:
    resolved = resolve(
        sweep(
            algorithms=["ppo", "dqn"],
            reuse=[True, False],
            seeds=2,
            num_env_steps=1_000,
            resources={"num_cpus_per_trial": 0.5},
        )
    )
    plan = estimate(resolved, cpus=2, speeds={"ppo": 100.0, "dqn": 50.0})
    assert (plan.num_cells, plan.num_trials, plan.env_steps) == (6, 12, 12_000)
    assert plan.concurrent == 2  # a core each, although four would fit
    assert plan.seconds == pytest.approx((6 * 10 + 6 * 20) / 2)
    assert plan.max_evaluations == {}
    assert plan.evaluations == {"blackjack": (2_000, 200, 0.0)}
    assert not plan.rough
    guessed = estimate(resolved, cpus=2, speeds={"ppo": 100.0})
    assert guessed.rough and guessed.seconds == pytest.approx((6 * 10 + 6 * 1_000 / TYPICAL_STEPS_PER_S) / 2)


def test_what_is_made_of_advice_is_shown_before_a_sweep_and_at_its_start() -> None:
    plain = resolve(sweep())
    assert uses_line(plain.trials) == "advice is used by: distil"
    weighed = {"match": {"algorithm": "dqn"}, "set": {"advice.weight_cap": 2.0}}
    mixed = resolve(sweep(overrides=[weighed], controls=["cloning"]))
    assert uses_line(mixed.trials) == "advice is used by: coin (dqn), distil (ppo, a2c)"
    assert uses_line(resolve(sweep(tutors=["none"])).trials) == "no student has a tutor"
    rows = estimate_values(mixed, estimate(mixed, cpus=2, speeds={}))["cells"]
    assert [(row["tutor"], row["use"], row["reuse"], row["algorithms"]) for row in rows] == [
        ("cloning of oracle", "clone", None, ["a2c", "dqn", "ppo"]),
        ("untutored", None, None, ["a2c", "dqn", "ppo"]),
        ("oracle", "coin", "reuse", ["dqn"]),
        ("oracle", "distil", None, ["a2c", "ppo"]),
    ]


def test_env_runners_take_a_cpu_each() -> None:
    alone = sweep(algorithms=["ppo", "dqn"], seeds=2, resources={"num_cpus_per_trial": 0.5})
    several = sweep(
        algorithms=["ppo", "dqn"],
        seeds=2,
        resources={"num_cpus_per_trial": 0.5},
        overrides=[{"match": {"algorithm": "dqn"}, "set": {"num_env_runners": 2}}],
    )
    plans = {}
    for name, config in {"alone": alone, "several": several}.items():
        resolved = resolve(config)
        plans[name] = estimate(resolved, cpus=6, speeds={})
        lines = [str(line) for line in estimate_lines(resolved, plans[name], 6)]
        plans[name, "words"] = next(line for line in lines if line.startswith("resources"))
    assert (plans["alone"].trial_cpus, plans["alone"].concurrent) == (0.5, 6)
    assert (plans["several"].trial_cpus, plans["several"].concurrent) == (2.5, 2)
    assert "2.5 CPUs per trial (one for each of 2 EnvRunners)" in plans["several", "words"]
    assert "EnvRunner" not in plans["alone", "words"]
    with pytest.raises(UserError, match="num_env_runners = 3 does not divide num_envs = 8"):
        resolve(sweep(num_env_runners=3))


def test_own_play_is_part_of_what_a_sweep_takes() -> None:
    blackjack = estimate(resolve(load_sweep("small")), cpus=2, speeds={})
    assert blackjack.own_play == {"smollm2": 280}, "an exact task asks about each of its states"
    alone = estimate(resolve(load_sweep("small", ["evaluation.tutor_episodes=0"])), cpus=2, speeds={})
    assert alone.own_play == {} and alone.own_play_seconds == 0
    assert blackjack.seconds - alone.seconds == pytest.approx(280 / TYPICAL_ANSWERS_PER_S)
    four = ["tasks=[connect_four]", "num_env_steps=null"]  # more states than can be counted
    few, many = (
        estimate(resolve(load_sweep("small", [*four, f"evaluation.tutor_episodes={n}"])), 2, {}) for n in (8, 800)
    )
    assert 8 * 4 <= few.own_play["smollm2"] <= 8 * 42
    assert many.own_play["smollm2"] == pytest.approx(100 * few.own_play["smollm2"], rel=0.01)
    assert many.own_play_seconds == MOST_SECONDS


def test_recorded_answers_are_no_questions_to_an_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TutorConfig, "is_served", False)
    assert estimate(resolve(load_sweep("small")), cpus=2, speeds={}).own_play == {}


def test_tutors_leave_room_for_one_trial_at_least() -> None:
    embedded = estimate(resolve(load_sweep("paper", ["tutors=[smollm2]"])), cpus=2, speeds={})
    assert (embedded.concurrent, embedded.tutor_cpus) == (1, 1)
    assert estimate(resolve(load_sweep("paper")), cpus=2, speeds={}).tutor_gpus == 3


def test_trials_wait_for_nodes_only_where_nodes_come() -> None:
    scripted = ["tutors=[oracle]", "tasks=[blackjack]"]
    sweep = resolve(load_sweep("paper", scripted))
    assert concurrency(sweep, 630, cpus=6) == 6
    assert concurrency(sweep, 630, cpus=6, nodes_on_demand=True) == 630
    bounded = resolve(load_sweep("paper", [*scripted, "resources.max_concurrent=64"]))
    assert concurrency(bounded, 630, cpus=6, nodes_on_demand=True) == 64


def test_a_cell_is_what_it_says() -> None:
    assert Cell("ppo", "none", "blackjack", None).label == "ppo · untutored · blackjack"
    assert not Cell("ppo", "none", "blackjack", None).tutored


@pytest.mark.parametrize("name", ["frozen_lake", "examples.frozen_lake:FrozenLakeTask"])
def test_a_task_of_ones_own_goes_by_its_name_or_by_its_entry_in_every_field(name: str) -> None:
    config = sweep(
        tasks=["examples.frozen_lake:FrozenLakeTask", "blackjack"],
        num_env_steps={name: 700},
        task_options={name: {"is_slippery": True}},
        exclude=[{"task": name, "algorithm": "dqn"}],
        overrides=[{"match": {"task": name}, "set": {"num_envs": 4}}],
    )
    mine = [trial for trial in resolve(config).trials if trial.cell.task == "frozen_lake"]
    assert {trial.cell.algorithm for trial in mine} == {"ppo", "a2c"}
    assert {(t.student.num_env_steps, t.student.num_envs, t.student.task_options["is_slippery"]) for t in mine} == {
        (700, 4, True)
    }


@pytest.mark.parametrize("name", ["snake", "rllib_plugins.tasks.snake:SnakeTask"])
def test_a_task_that_ships_goes_by_its_class_too(name: str) -> None:
    config = sweep(
        tasks=["snake"],
        tutors=["random"],
        num_env_steps={name: 700},
        task_options={name: {"size": 5}},
        exclude=[{"task": name, "algorithm": ["dqn", "a2c"]}],
    )
    found = resolve(config)
    assert {(t.cell.algorithm, t.student.num_env_steps, t.student.task_options["size"]) for t in found.trials} == {
        ("ppo", 700, 5)
    }
    assert "5 by 5" in found.tasks["snake"].rules or "5 rows" in found.tasks["snake"].rules


def test_a_setting_may_name_a_task_by_its_class() -> None:
    fields: dict[str, object] = {}
    apply_setting(fields, "num_env_steps.examples.frozen_lake:FrozenLakeTask=700")
    apply_setting(fields, "task_options.examples.frozen_lake:FrozenLakeTask.is_slippery=true")
    entry = "examples.frozen_lake:FrozenLakeTask"
    assert fields == {"num_env_steps": {entry: 700}, "task_options": {entry: {"is_slippery": True}}}


def test_one_task_by_two_names_is_refused() -> None:
    entry = "examples.frozen_lake:FrozenLakeTask"
    with pytest.raises(UserError, match="the same task"):
        resolve(sweep(tasks=[entry], num_env_steps={entry: 700, "frozen_lake": 800}))


@pytest.mark.parametrize("name", ["none", "oracle", "random", "worst", "cloning", "more_updates"])
def test_a_tutor_of_ones_own_does_not_go_by_a_name_that_means_something_else(name: str, tmp_path: Path) -> None:
    """It was taken for a baseline, a reference or a control."""
    file = tmp_path / f"{name}.yaml"
    file.write_text("model: some/model\n")
    with pytest.raises(UserError, match=f"'{name}'.*Give it another name"):
        resolve(sweep(tutors=[str(file)]))


def test_files_of_any_name_are_read(tmp_path: Path) -> None:
    tutor = tmp_path / "GPT 4o (mini).YAML"
    tutor.write_text("model: some/model\n")
    file = tmp_path / "My first sweep.YML"
    file.write_text(f"tutors: ['{tutor}']\ntasks: [blackjack]\n")
    config = load_sweep(str(file))
    assert config.name == "My-first-sweep" and list(resolve(config).tutors) == ["gpt-4o-mini"]


@pytest.mark.parametrize("value", ["2026-11-30", "007", "no"])
def test_what_yaml_does_not_read_as_text_is_to_be_put_in_quotes(value: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: {value}\ntutors: [oracle]\ntasks: [blackjack]\n")
    with pytest.raises(UserError, match=r"name = .*put it in quotes"):
        load_sweep(str(file))


def test_a_number_of_seeds_leaves_out_those_that_settings_are_chosen_on() -> None:
    assert sweep(seeds=103).seeds[-4:] == [99, 120, 121, 122]
    assert sweep(seeds=3, tuning_seeds=[1]).seeds == [0, 2, 3]
    tuning = sweep(tuning=True, tuning_seeds=2)
    assert {trial.seed for trial in grid(tuning, STEPS)} == {100, 101}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seeds": [0, 100]}, "share 100: settings were chosen on them"),
        ({"tuning": True, "tuning_seeds": []}, "tuning_seeds is empty"),
        ({"seeds": [0], "extensions": [{"seeds": [0]}]}, "repeat the seeds 0"),
    ],
)
def test_seeds_that_cannot_be_reported_on_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        sweep(**fields)
    assert len(str(caught.value)) < 300


def test_added_seeds_are_new_and_come_after_the_first_ones() -> None:
    first = sweep(seeds=[0, 7], algorithms=["ppo"], reuse=[True])
    more = with_more_seeds(first, 2)
    assert [trial.key for trial in grid(more, STEPS)][: len(grid(first, STEPS))] == [t.key for t in grid(first, STEPS)]
    assert more.all_seeds == [0, 7, 1, 2]
    some = with_more_seeds(more, 1, [Match(tutor=["oracle"])])
    assert [trial.key for trial in grid(some, STEPS)][8:] == ["ppo-oracle-blackjack-reuse-s3"]
    assert validate_sweep(yaml.safe_load(dump_sweep(some)), "copy") == some


def test_a_sweep_with_more_seeds_goes_on_and_with_anything_else_it_does_not() -> None:
    old = sweep(seeds=5)
    assert continued(old, sweep(seeds=5)) == old
    longer = continued(old, sweep(seeds=8))
    assert longer is not None and longer.extensions[0].seeds == [5, 6, 7]
    assert continued(longer, sweep(seeds=5)) == longer == continued(longer, sweep(seeds=8))
    assert continued(old, sweep(seeds=4)) is None
    assert continued(old, sweep(seeds=8, num_envs=4)) is None
    assert continued(old, sweep(seeds=[0, 1, 9])) is None
