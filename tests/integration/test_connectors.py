"""The tutor in RLlib's own EnvRunner, on RLlib's own PPO and DQN."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import unflatten

ray = pytest.importorskip("ray")

from ray.rllib.algorithms.dqn.dqn import DQNConfig  # noqa: E402
from ray.rllib.algorithms.ppo.ppo import PPOConfig  # noqa: E402
from ray.rllib.connectors.env_to_module import FlattenObservations  # noqa: E402
from ray.rllib.core import COMPONENT_MODULE_TO_ENV_CONNECTOR  # noqa: E402
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner  # noqa: E402
from ray.tune.registry import register_env  # noqa: E402

from rllib_plugins.algorithms.dqn.dqn import DQNConfig as LeanDQNConfig  # noqa: E402
from rllib_plugins.config import AdviceConfig  # noqa: E402
from rllib_plugins.connectors import add_tutor, columns, pieces  # noqa: E402
from rllib_plugins.connectors import config as connectors_config  # noqa: E402
from rllib_plugins.connectors.pieces import ConsultTutor  # noqa: E402
from rllib_plugins.policies import epsilon_greedy  # noqa: E402
from rllib_plugins.reference_tutors import OracleAdvisor, WorstAdvisor  # noqa: E402
from rllib_plugins.tasks import load_task  # noqa: E402
from tutor_service.errors import UserError  # noqa: E402

ENV = "connector-test-blackjack"
FIXED = AdviceConfig(probability_initial=0.6, probability_final=0.6, trust="fixed", reuse="off")


class CountingOracle(OracleAdvisor):
    """Counts the rows that it is asked about."""

    num_rows = 0

    def ask(self, observations):
        type(self).num_rows += len(observations)
        return super().ask(observations)


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    ray.init(address="local", include_dashboard=False, num_cpus=2, _node_ip_address="127.0.0.1")
    register_env(ENV, lambda _: load_task("blackjack").make())
    yield
    ray.shutdown()


def ppo_config(**training):
    config = PPOConfig().environment(ENV).env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    config.training(train_batch_size_per_learner=128, minibatch_size=64, num_epochs=2, **training)
    return config.debugging(seed=3)


def dqn_config():
    config = DQNConfig().environment(ENV).env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    config.training(
        train_batch_size_per_learner=16,
        num_steps_sampled_before_learning_starts=50,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 2_000},
        epsilon=[(0, 0.3), (1_000, 0.3)],
    )
    return config.reporting(min_sample_timesteps_per_iteration=100).debugging(seed=3)


def tutored(config, advice=FIXED, make_advisor=CountingOracle):
    return add_tutor(
        config, task="blackjack", tutor="oracle", advice=advice, theta_steps=10_000, make_advisor=make_advisor
    )


@pytest.fixture
def build():
    built = []

    def _build(config):
        algo = config.build_algo()
        built.append(algo)
        return algo

    yield _build
    for algo in built:
        algo.stop()


def consultant(algo) -> ConsultTutor:
    (piece,) = [c for c in algo.env_runner._module_to_env.connectors if isinstance(c, ConsultTutor)]
    return piece


def column(episodes, name):
    return np.concatenate([np.asarray(e.get_extra_model_outputs(name)) for e in episodes if len(e)])


@pytest.mark.parametrize("make_config", [ppo_config, dqn_config])
def test_what_is_in_the_episodes_is_what_was_done(build, make_config):
    algo = build(tutored(make_config()))
    CountingOracle.num_rows = 0
    episodes = [e for e in algo.env_runner.sample(num_timesteps=800, explore=True) if len(e)]
    task = load_task("blackjack")
    observations = np.concatenate([e.get_observations(slice(0, len(e))) for e in episodes]).astype(np.float32)
    actions = np.concatenate([e.get_actions() for e in episodes])
    oracle = task.oracle_batch(observations)
    consulted = column(episodes, columns.CONSULTED)
    assert (oracle[consulted, actions[consulted]] > 0).all()
    assert consulted.mean() == pytest.approx(0.6, abs=0.07)
    np.testing.assert_array_equal(column(episodes, columns.ADVICE).argmax(axis=1)[consulted], actions[consulted])
    assert (column(episodes, columns.ELIGIBLE) >= consulted).all()
    ratio = np.exp(column(episodes, columns.POLICY_LOGP) - column(episodes, columns.BEHAVIOUR_LOGP))
    assert ratio.mean() == pytest.approx(1.0, abs=0.15)  # Σ μ·π/μ
    # Nobody is asked in the steps that RLlib throws away, nor again about what is known.
    counters = consultant(algo).core.counters()
    num_distinct = len(np.unique(observations[consulted], axis=0))
    assert num_distinct <= CountingOracle.num_rows < counters["advice/consultations"]
    assert 0 <= counters["advice/consultations"] - consulted.sum() <= 4  # a running episode may have no full step yet


def test_ppo_is_centred_on_the_students_policy(build):
    algo = build(tutored(ppo_config()))
    episodes = [e for e in algo.env_runner.sample(num_timesteps=300, explore=True) if len(e)]
    logits = column(episodes, "action_dist_inputs").astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    actions = np.concatenate([e.get_actions() for e in episodes])
    expected = logp[np.arange(len(actions)), actions]
    np.testing.assert_allclose(column(episodes, "action_logp"), expected, atol=1e-5)
    np.testing.assert_allclose(column(episodes, columns.POLICY_LOGP), expected, atol=1e-5)


@pytest.mark.parametrize("make_config", [ppo_config, dqn_config])
def test_evaluation_never_asks(build, make_config):
    algo = build(tutored(make_config()))
    CountingOracle.num_rows = 0
    episodes = algo.env_runner.sample(num_timesteps=100, explore=False)
    assert CountingOracle.num_rows == 0
    assert columns.CONSULTED not in episodes[0].extra_model_outputs
    assert consultant(algo).get_state() == {}
    assert algo.config.evaluation_config["explore"] is False


@pytest.mark.parametrize("make_config", [ppo_config, dqn_config])
def test_trains_reports_and_restores(build, make_config, tmp_path):
    advice = AdviceConfig(reuse_options={"budget": 2})
    algo = build(tutored(make_config(), advice=advice))
    for _ in range(3):
        result = algo.train()
    reported = result["env_runners"]["advice"]
    counters = consultant(algo).core.counters()
    assert reported["consultations"] == counters["advice/consultations"] > 0
    assert reported["reused"] == counters["advice/reused"] > 0
    assert 0 < reported["probability"] <= 0.9

    algo.save_to_path(str(tmp_path / "checkpoint"))
    other = build(tutored(make_config(), advice=advice))
    other.restore_from_path(str(tmp_path / "checkpoint"))
    before, after = consultant(algo).get_state(), consultant(other).get_state()
    assert after["num_env_steps"] == before["num_env_steps"] > 0
    np.testing.assert_equal(after["core"], before["core"])
    np.testing.assert_equal(after["comparison"], before["comparison"])
    other.train()
    assert consultant(other).core.counters()["advice/consultations"] > counters["advice/consultations"]


def test_a_value_student_s_schedule_counts_the_steps_that_it_took_itself(build, monkeypatch):
    """As the lean rollout's does: the same configuration explores alike on both paths."""
    config = dqn_config().training(epsilon=[(0, 1.0), (1_000, 0.0)])
    algo = build(tutored(config))
    explorer, seen = consultant(algo).core, []

    def watched(q_values, legal, epsilon):
        seen.append((consultant(algo)._num_env_steps - explorer.num_consultations, epsilon))
        return epsilon_greedy(q_values, legal, epsilon)

    monkeypatch.setattr(pieces, "epsilon_greedy", watched)
    algo.env_runner.sample(num_timesteps=400, explore=True)
    own_steps, epsilons = np.array(seen).T
    assert 0 < own_steps[-1] < 300 and explorer.num_consultations > 100
    lean = LeanDQNConfig().training(epsilon=config.epsilon)
    np.testing.assert_allclose(epsilons, [lean.epsilon_at(int(steps)) for steps in own_steps])


def test_the_example_runs():
    result = doctest.testmod(connectors_config)
    assert result.attempted > 0 and result.failed == 0


def test_trust_is_earned_by_returns(build):
    advice = AdviceConfig(probability_final=1.0, imitation="off")
    algo = build(tutored(ppo_config(), advice=advice, make_advisor=WorstAdvisor))
    algo.env_runner.sample(num_timesteps=1_500, explore=True)
    gauges = consultant(algo).core.gauges()
    assert gauges["advice/trust"] < 0.2 and gauges["advice/effect"] < 0


def test_without_a_tutor_nothing_changes(build):
    plain, untutored = ppo_config(), ppo_config()
    add_tutor(untutored, task="blackjack", tutor="none", theta_steps=100)
    assert untutored.to_dict() == ppo_config().to_dict()
    results = [build(config).train() for config in (plain, untutored)]
    losses = [r["learners"]["default_policy"]["total_loss"] for r in results]
    returns = [r["env_runners"]["episode_return_mean"] for r in results]
    assert losses[0] == losses[1] and returns[0] == returns[1]


def several(config, num_env_runners=2):
    return config.env_runners(num_env_runners=num_env_runners, num_cpus_per_env_runner=0.5)


def on_runners(algo, function):
    return algo.env_runner_group.foreach_env_runner(function, local_env_runner=False)


def test_several_env_runners_share_advice_and_budget(build, tmp_path):
    advice = AdviceConfig(probability_final=1.0, advice_budget=300, reuse_options={"budget": 2})

    def make():
        return tutored(several(ppo_config()), advice=advice, make_advisor=OracleAdvisor)

    algo = build(make())
    spent = []
    for _ in range(6):
        result = algo.train()
        holder = consultant(algo).core
        tallies = [s["report"].tally for s in on_runners(algo, _tutor_state)]
        own = [tally.counters["consultations"] for tally in tallies]
        spent.append(sum(own))
        assert result["env_runners"]["advice"]["consultations"] == sum(own) == holder.num_consultations
        assert sum(tally.num_env_steps for tally in tallies) == holder.num_trial_steps
        assert min(own) > 0 and sum(own) <= 300
    assert spent[0] < spent[2] and spent[-1] >= 298
    known = [len(s["common"].stored["actions"]) for s in [consultant(algo).get_state()]]
    assert known[0] > 20 and result["env_runners"]["advice"]["reused"] > 0
    first, second = on_runners(algo, _draws)
    assert first != second

    algo.save_to_path(str(tmp_path / "checkpoint"))
    other = build(make())
    other.restore_from_path(str(tmp_path / "checkpoint"))
    before, after = consultant(algo).core, consultant(other).core
    assert after.counters() == before.counters() and after.num_trial_steps == before.num_trial_steps
    result = other.train()
    assert result["env_runners"]["advice"]["consultations"] == consultant(other).core.num_consultations <= 300
    runner_steps = on_runners(other, lambda runner: _tutor(runner).core.num_trial_steps)
    assert runner_steps == [consultant(other).core.num_trial_steps] * 2


def _tutor(runner):
    return next(c for c in runner._module_to_env.connectors if isinstance(c, ConsultTutor))


def _tutor_state(runner):
    return runner.get_state(components=[COMPONENT_MODULE_TO_ENV_CONNECTOR])[COMPONENT_MODULE_TO_ENV_CONNECTOR][
        "ConsultTutor"
    ]


def _draws(runner):
    return str(_tutor(runner).core.get_state()["student_rng"])


def test_the_example_in_the_docs_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "exploration.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page.partition("## Stock RLlib")[2], re.DOTALL | re.MULTILINE)
    exec(code, {})
    assert "'consultations': " in capsys.readouterr().out


def test_trust_is_earned_over_all_runners(build):
    advice = AdviceConfig(probability_final=1.0, imitation="off")
    algo = build(tutored(several(ppo_config()), advice=advice, make_advisor=WorstAdvisor))
    for _ in range(12):
        algo.train()
    gauges = consultant(algo).core.gauges()
    assert gauges["advice/trust"] < 0.2 and gauges["advice/effect"] < 0
    assert on_runners(algo, lambda runner: _tutor(runner).core.gauges()["advice/trust"]) == [gauges["advice/trust"]] * 2


def test_a_user_s_own_environment_and_connectors_are_kept(build):
    """``Blackjack-v1`` shows a tuple, which RLlib flattens by a connector of the user's."""
    config = PPOConfig().environment("Blackjack-v1", env_config={"sab": True})
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=4, env_to_module_connector=lambda env: FlattenObservations()
    )
    algo = build(tutored(config.training(train_batch_size_per_learner=128, minibatch_size=64).debugging(seed=3)))
    assert [type(c).__name__ for c in algo.env_runner._env_to_module.connectors][:2] == [
        "WatchEnvironments",
        "FlattenObservations",
    ]
    episodes = [e for e in algo.env_runner.sample(num_timesteps=300, explore=True) if len(e)]
    task = load_task("blackjack")
    flat = np.concatenate([e.get_observations(slice(0, len(e))) for e in episodes])  # as the user's piece left them
    observations = np.stack([task.encode(unflatten(task.raw_observation_space, row)) for row in flat])
    actions = np.concatenate([e.get_actions() for e in episodes])
    consulted = column(episodes, columns.CONSULTED)
    assert consulted.any() and (task.oracle_batch(observations)[consulted, actions[consulted]] > 0).all()
    algo.train()


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="TutoredEnvRunner"):
        tutored(ppo_config().env_runners(env_runner_cls=SingleAgentEnvRunner))
    with pytest.raises(UserError, match="has a tutor already"):
        tutored(tutored(ppo_config()))
    with pytest.raises(UserError, match="multi-agent"):
        tutored(ppo_config().multi_agent(policies={"a"}, policy_mapping_fn=lambda *_: "a"))
    with pytest.raises(UserError, match=r"advice\.stand_in = 'kept'"):
        tutored(ppo_config(), FIXED.model_copy(update={"stand_in": "kept"}))
    with pytest.raises(UserError, match=r"must show Box.* or Tuple"):
        tutored(ppo_config().environment("CartPole-v1")).build_algo()
    with pytest.raises(UserError, match="rl_module_spec"):
        tutored(tutored(dqn_config()).env_runners(env_to_module_connector=None, module_to_env_connector=None))
