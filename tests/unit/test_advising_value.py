"""Weights on a real game: a policy's value, estimated from tutored play, is its exact value."""

import numpy as np
import pytest

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.reference_tutors import MixtureAdvisor
from rllib_plugins.tasks import load_task

NUM_ENVS, NUM_STEPS = 256, 150


class NeverAtHand(MixtureAdvisor):
    """The same tutor, whose answers have to be asked for every time."""

    def ask(self, observations):
        batch = super().ask(observations)
        self.table.clear()
        return batch


def student(observations):
    """Hits on low totals, more often so against a strong dealer's card; ``(n, 2)`` for stick, hit."""
    hit = 1.0 / (1.0 + np.exp(observations[:, 0] - 0.3 * observations[:, 1]))
    return np.stack([1.0 - hit, hit], axis=1)


def weighted_returns(core, task):
    """Per finished episode: product of π/μ, and the return."""
    env = task.make_vec(NUM_ENVS, seed=1)
    observations, _ = env.reset(seed=1)
    log_weight, total = np.zeros(NUM_ENVS), np.zeros(NUM_ENVS)
    weights, returns = [], []
    for step in range(NUM_STEPS):
        decision = core.act(observations, student(observations), step=step * NUM_ENVS)
        log_weight += decision.policy_logp - decision.behaviour_logp
        observations, rewards, terminated, truncated, _ = env.step(decision.actions)
        total += rewards
        done = terminated | truncated
        weights.append(np.exp(log_weight[done]))
        returns.append(total[done])
        log_weight[done] = total[done] = 0.0
    return np.concatenate(weights), np.concatenate(returns)


@pytest.mark.parametrize("advisor_class", [MixtureAdvisor, NeverAtHand])
@pytest.mark.parametrize(
    "rule, reuse",
    [
        ("linear", "off"),
        ("linear", "budget"),
        ("linear", "decay"),
        ("importance", "budget"),
        ("mistake", "off"),
        ("confidence", "budget"),
    ],
)
def test_value_from_tutored_play_is_the_exact_value(rule, advisor_class, reuse):
    task = load_task("blackjack")
    exact, _ = task.exact_return(student)
    config = AdviceConfig(
        probability_initial=0.7,
        probability_final=0.3,
        trust="fixed",
        rule=rule,
        rule_options={"threshold": 0.3} if rule in {"importance", "mistake"} else {},
        reuse=reuse,
    )
    advisor = advisor_class(task, 0.2)
    core = Explorer(config, num_actions=2, theta_steps=50_000, advisor=advisor, seed=2)
    weights, returns = weighted_returns(core, task)
    assert (len(advisor.table) == 0) == (advisor_class is NeverAtHand)
    estimate = weights * returns
    error = estimate.std() / np.sqrt(len(estimate))
    assert error < 0.03
    assert abs(estimate.mean() - exact) < 4 * error
    assert abs(weights.mean() - 1.0) < 4 * weights.std() / np.sqrt(len(weights))
    if rule == "linear":  # unweighted, the tutor's value shows: the test can tell the difference
        assert abs(returns.mean() - exact) > 6 * returns.std() / np.sqrt(len(returns))
