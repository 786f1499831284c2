"""What the students learn from: losses and advice weights against numbers worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rllib_plugins.advising.decision import ImitationWeights
from rllib_plugins.algorithms.a2c.learner import A2CLearner
from rllib_plugins.algorithms.actor_critic import (
    UpdateBatch,
    as_tensors,
    make_update_batch,
    weigh_advice,
)
from rllib_plugins.algorithms.array_learner import clip_norm
from rllib_plugins.algorithms.dqn.learner import DQNLearner
from rllib_plugins.algorithms.imitation import (
    imitation_loss,
    log_policy,
)
from rllib_plugins.algorithms.ppo.learner import PPOLearner
from rllib_plugins.config import AdviceConfig
from rllib_plugins.rollout.advice_memory import AdviceSample
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.replay import ReplayBatch


def learner(cls, **config):
    """A learner without RLlib's machinery: the losses need its config only."""
    made = object.__new__(cls)
    defaults = {"clip_param": 0.2, "vf_clip_param": float("inf"), "vf_loss_coeff": 0.5, "gamma": 0.9}
    defaults |= {"double_q": True, "imitation_temperature": 0.5}
    made.config = SimpleNamespace(**(defaults | {"advice": AdviceConfig()} | config))
    return made


def one_step(*, advantage: float = 1.0, old: float = 0.5, action: int = 0, **fields) -> UpdateBatch:
    return UpdateBatch(
        **(
            {
                "observations": torch.zeros(1, 1),
                "actions": torch.tensor([action]),
                "advantages": torch.tensor([advantage]),
                "targets": torch.tensor([2.0]),
                "old_logp": torch.tensor([old]).log(),
                "old_logits": None,
                "illegal": None,
                "imitation": None,
            }
            | fields
        )
    )


def gradients(made, logits: list[float], value: float, batch: UpdateBatch, entropy: float = 0.0, kl: float = 0.0):
    z, v = torch.tensor([logits], requires_grad=True), torch.tensor([value], requires_grad=True)
    loss, _ = made.loss(z, v, batch, entropy, kl)
    loss.backward()
    return loss.item(), z.grad[0].tolist(), v.grad[0].item()


def test_ppo_gradient_is_the_hand_computed_one():
    """At logits (0, 0): π = ½, ratio = ½ / 0.45, inside the clip; ∂ratio/∂z = ratio·(1 − π, −π)."""
    _, logit_gradient, value_gradient = gradients(
        learner(PPOLearner), [0.0, 0.0], 1.0, one_step(advantage=3.0, old=0.45)
    )
    ratio = 0.5 / 0.45
    assert logit_gradient == pytest.approx([-3.0 * ratio * 0.5, 3.0 * ratio * 0.5], rel=1e-5)
    assert value_gradient == pytest.approx(0.5 * 2 * (1.0 - 2.0))


@pytest.mark.parametrize(
    ("advantage", "old", "moves"), [(1.0, 0.25, False), (-1.0, 0.25, True), (-1.0, 0.9, False), (1.0, 0.9, True)]
)
def test_ppo_stops_at_the_clip_only_on_the_side_of_the_gain(advantage: float, old: float, moves: bool):
    _, logit_gradient, _ = gradients(learner(PPOLearner), [0.0, 0.0], 2.0, one_step(advantage=advantage, old=old))
    assert any(logit_gradient) is moves


def test_ppo_clips_the_squared_value_error_by_rllibs_rule():
    _, _, clipped = gradients(learner(PPOLearner, vf_clip_param=0.5), [0.0, 0.0], 1.0, one_step())
    assert clipped == 0.0


def test_ppo_kl_term_pulls_back_to_the_old_policy():
    batch = one_step(advantage=0.0, old_logits=torch.tensor([[1.0, 0.0]]))
    loss, logit_gradient, _ = gradients(learner(PPOLearner, vf_loss_coeff=0.0), [0.0, 0.0], 2.0, batch, kl=2.0)
    p = np.exp([1.0, 0.0]) / np.exp([1.0, 0.0]).sum()
    assert loss == pytest.approx(2.0 * float((p * np.log(p / 0.5)).sum()), rel=1e-5)
    assert logit_gradient == pytest.approx((2.0 * (0.5 - p)).tolist(), rel=1e-5)


def test_a2c_gradient_is_the_policy_gradient():
    _, logit_gradient, value_gradient = gradients(learner(A2CLearner), [np.log(3.0), 0.0], 1.0, one_step(advantage=2.0))
    assert logit_gradient == pytest.approx([-2.0 * 0.25, 2.0 * 0.25], rel=1e-5)
    assert value_gradient == pytest.approx(-1.0)


@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
def test_imitation_pulls_towards_the_advice(cls):
    """Cross-entropy: ∂/∂z = weight·(π − advice)."""
    batch = one_step(advantage=0.0, imitation=torch.tensor([[0.0, 0.7]]))
    _, logit_gradient, _ = gradients(learner(cls), [0.0, 0.0], 2.0, batch)
    assert logit_gradient == pytest.approx([0.35, -0.35], rel=1e-5)


@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
def test_imitation_ends_where_the_student_follows(cls):
    batch = one_step(advantage=0.0, imitation=torch.tensor([[0.0, 0.7]]))
    pulls = [gradients(learner(cls), [0.0, z], 2.0, batch)[1][1] for z in (1.3, 1.5)]  # π = 0.786 and 0.818
    assert pulls[0] < 0.0 and pulls[1] == 0.0
    everything = learner(cls, advice=AdviceConfig(imitation="all"))
    assert gradients(everything, [0.0, 1.5], 2.0, batch)[1][1] < 0.0


@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
def test_illegal_actions_have_no_part_in_loss_or_gradient(cls):
    batch = one_step(illegal=torch.tensor([[False, False, True]]), imitation=torch.tensor([[1.0, 0.0, 0.0]]))
    loss, logit_gradient, _ = gradients(learner(cls), [0.0, 0.0, 50.0], 2.0, batch, entropy=0.1)
    without = gradients(learner(cls), [0.0, 0.0], 2.0, one_step(imitation=torch.tensor([[1.0, 0.0]])), entropy=0.1)
    assert loss == pytest.approx(without[0], rel=1e-5)
    assert logit_gradient == pytest.approx([*without[1], 0.0], rel=1e-5)


@pytest.mark.parametrize(("cap", "expected"), [(1.5, [3.0, -1 / 9, 2.0, 0.0]), (0.0, [2.0, -1.0, 2.0, 4.0])])
def test_advantages_are_weighed_by_capped_ratios(cap: float, expected: list[float]):
    probabilities = np.array([[[0.25, 0.9, 0.8, 1e-30]], [[0.5, 0.1, 0.8, 0.0]]], np.float32)
    advantages, advice = np.array([[2.0, -1.0, 2.0, 4.0]], np.float32), np.zeros((1, 4, 2), np.float32)
    nobody, weights = np.zeros((1, 4), bool), (np.float32(cap), np.float32(1.0), np.float32(1.0))
    assert not weigh_advice(advantages, advantages.copy(), probabilities, nobody, advice, *weights, advice.copy())
    np.testing.assert_allclose(advantages[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("better", "worse", "expected"), [(1.0, 0.0, [1, 0, 0, 0]), (2.0, 1.0, [2, 1, 0, 1]), (0.0, 0.0, [0, 0, 0, 0])]
)
def test_imitation_is_weighed_by_how_advice_turned_out(better: float, worse: float, expected: list[float]):
    advice = np.tile(np.array([0.0, 1.0], np.float32), (1, 4, 1))
    consulted, estimated = np.array([[True, True, False, True]]), np.array([[1.0, -1.0, 1.0, 0.0]], np.float32)
    weights, imitation = (np.float32(1.0), np.float32(better), np.float32(worse)), np.full_like(advice, np.nan)
    same = np.ones((2, 1, 4), np.float32)
    imitates = weigh_advice(estimated.copy(), estimated, same, consulted, advice, *weights, imitation)
    assert imitates == (better > 0)
    assert imitation[0, :, 1].tolist() == expected


def tutored_rollout() -> RolloutArrays:
    arrays = RolloutArrays.allocate(2, 2, 1, 2, for_replay=False, with_advice=True, with_masks=False)
    arrays.rewards[:] = [[1.0, -1.0], [2.0, 0.5]]
    arrays.terminated[:] = True
    arrays.policy[:] = 0.2
    arrays.behaviour[:] = [[0.4, 0.2], [0.2, 0.2]]
    arrays.consulted[0] = True
    assert arrays.advice is not None
    arrays.advice[0, :, 1] = 1.0
    return arrays


def test_the_update_batch_weighs_and_filters_advice():
    config = SimpleNamespace(
        gamma=1.0, lambda_=1.0, standardize_advantages=False, use_kl_loss=False, advice=AdviceConfig()
    )
    batch, advantages = make_update_batch(tutored_rollout(), config, ImitationWeights(0.5, 0.0))
    assert advantages.ravel().tolist() == [1.0, -1.0, 2.0, 0.5]
    assert batch.advantages.tolist() == pytest.approx([0.5, -1.0, 2.0, 0.5])
    assert batch.imitation is not None
    assert batch.imitation[:, 1].tolist() == [0.5, 0.0, 0.0, 0.0]
    assert batch.targets.tolist() == [1.0, -1.0, 2.0, 0.5]


def test_the_papers_form_neither_weighs_nor_imitates():
    advice = AdviceConfig(weights="policy", imitation="off")
    config = SimpleNamespace(gamma=1.0, lambda_=1.0, standardize_advantages=True, use_kl_loss=False, advice=advice)
    batch, advantages = make_update_batch(tutored_rollout(), config, ImitationWeights())
    assert batch.imitation is None
    expected = (advantages - advantages.mean()) / advantages.std()
    np.testing.assert_allclose(batch.advantages, expected.ravel(), rtol=1e-5)


def test_minibatches_cover_each_step_once():
    steps = torch.arange(10)
    batch = UpdateBatch(steps[:, None].float(), steps, steps.float(), steps.float(), steps.float(), None, None, None)
    parts = batch.permuted(torch.randperm(10)).minibatches(4)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(torch.cat([part.actions for part in parts]).tolist()) == list(range(10))
    assert all(torch.equal(part.actions.float(), part.advantages) for part in parts)


class FixedView:
    """Q-values by table: online (1, 3, 2), target (10, 20, 30) for every state."""

    def scores(self, observations: np.ndarray) -> np.ndarray:
        return np.tile(np.array([1.0, 3.0, 2.0], np.float32), (len(observations), 1))

    def target(self, observations: np.ndarray) -> np.ndarray:
        return np.tile(np.array([10.0, 20.0, 30.0], np.float32), (len(observations), 1))


@pytest.mark.parametrize(
    ("double_q", "legal", "following"),
    [(True, None, 20.0), (False, None, 30.0), (True, [True, False, True], 30.0), (False, [True, True, False], 20.0)],
)
def test_the_q_target_chooses_among_legal_actions(double_q: bool, legal: list[bool] | None, following: float):
    made = learner(DQNLearner, double_q=double_q)
    made._view = FixedView()
    zeros = np.zeros((2, 1), np.float32)
    batch = ReplayBatch(
        zeros,
        zeros,
        np.zeros(2, np.int64),
        np.ones(2, np.float32),
        np.array([False, True]),
        np.zeros(2, bool),
        np.arange(2),
    )
    mask = None if legal is None else np.array([legal, legal])
    assert made.targets(batch, mask).tolist() == pytest.approx([1.0 + 0.9 * following, 1.0])


def margin_of(q_values: list[float], target: float, *, imitation: str = "filtered", legal: list[bool] | None = None):
    q = torch.tensor([q_values], requires_grad=True)
    made = learner(DQNLearner, advice=AdviceConfig(imitation=imitation))
    made.imitation_weights = ImitationWeights.of(made.config.advice, 1.0)
    illegal = None if legal is None else ~torch.tensor([legal])
    loss = made._margin(q, torch.tensor([0]), torch.tensor([target]), torch.tensor([True]), illegal)
    loss.backward()
    return loss.item(), q.grad[0].tolist()


def test_the_margin_lifts_the_advised_action_above_the_others():
    loss, gradient = margin_of([1.0, 1.5, 0.0], target=2.0)
    parts = np.exp([2.0, 3.0, 0.0])  # Q/T
    assert loss == pytest.approx(0.5 * (np.log(parts.sum()) - 2.0))
    assert gradient == pytest.approx(parts / parts.sum() - [1.0, 0.0, 0.0], abs=1e-6)


def test_the_margin_ends_where_the_advice_is_followed():
    assert margin_of([3.0, 1.5, 0.0], target=4.0)[0] == 0.0  # softmax([6, 3, 0]) follows with 0.95
    assert margin_of([3.0, 1.5, 0.0], target=4.0, imitation="all")[0] > 0.0


def test_the_margin_is_filtered_by_the_target():
    assert margin_of([1.0, 1.5, 0.0], target=1.4)[0] == 0.0
    whole = 0.5 * (np.log(np.exp([2.0, 3.0, 0.0]).sum()) - 2.0)
    assert margin_of([1.0, 1.5, 0.0], target=1.4, imitation="all")[0] == pytest.approx(whole)


def test_the_margin_ignores_illegal_actions():
    loss, gradient = margin_of([1.0, 1.5, 9.0], target=2.0, legal=[True, True, False])
    assert loss == pytest.approx(0.5 * np.log(1 + np.e))
    assert gradient == pytest.approx([-np.e / (1 + np.e), np.e / (1 + np.e), 0.0], abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
def test_imitating_again_descends_the_imitation_loss_and_nothing_else(cls, masked: bool):
    logits, _, batch = random_batch(3, masked=masked)
    logits = (3 * logits).astype(np.float32)  # some of it is followed already
    made, written = learner(cls), []
    made._view = SimpleNamespace(forward_policy=lambda observations: logits, backward_policy=written.append)
    legal = None if batch.illegal is None else ~batch.illegal
    advice = np.eye(3, dtype=np.float32)[batch.imitation.argmax(axis=1)]
    share = made.imitate(AdviceSample(batch.observations, advice, legal))

    z = torch.from_numpy(logits).requires_grad_()
    illegal = None if batch.illegal is None else torch.from_numpy(batch.illegal)
    logp = log_policy(z, illegal)
    imitation_loss(logp, torch.from_numpy(advice), AdviceConfig().imitation_until).backward()
    np.testing.assert_allclose(written[0], z.grad.numpy(), rtol=2e-4, atol=2e-6)
    followed = (advice * logp.detach().exp().numpy()).sum(axis=1) >= 0.8
    assert share == pytest.approx(1 - followed.mean()) and 0 < share < 1


def test_dqn_imitates_again_by_the_margin():
    q_values = np.array([[1.0, 1.5, 9.0], [3.0, 1.5, 9.0]], np.float32)
    made, written = learner(DQNLearner), []
    made._view = SimpleNamespace(online=SimpleNamespace(forward=lambda observations: q_values, backward=written.append))
    advice = np.array([[1, 0, 0], [1, 0, 0]], np.float32)
    legal = np.array([[True, True, False]] * 2)
    assert made.imitate(AdviceSample(np.zeros((2, 1), np.float32), advice, legal)) == 0.5
    open_share = np.e / (1 + np.e) / 2  # the second row is followed with 0.95
    np.testing.assert_allclose(written[0], [[-open_share, open_share, 0.0], [0.0, 0.0, 0.0]], atol=1e-6)


def random_batch(seed: int, *, masked: bool, size: int = 12) -> tuple[np.ndarray, np.ndarray, UpdateBatch]:
    """Logits, values and a batch in which everything that a loss can read is there."""
    rng = np.random.default_rng(seed)
    illegal = rng.random((size, 3)) < 0.3 if masked else np.zeros((size, 3), bool)
    actions = rng.integers(3, size=size)
    illegal[np.arange(size), actions] = False

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    batch = UpdateBatch(
        observations=normal(size, 1),
        actions=actions,
        advantages=normal(size),
        targets=normal(size),
        old_logp=np.log(rng.uniform(0.1, 0.9, size)).astype(np.float32),
        old_logits=normal(size, 3),
        illegal=illegal if masked else None,
        imitation=(rng.random((size, 3)) * ~illegal).astype(np.float32),
    )
    return normal(size, 3), normal(size), batch


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
@pytest.mark.parametrize("seed", range(5))
def test_written_out_gradients_are_those_of_the_loss(cls, masked: bool, seed: int):
    """What the lean update descends is, to rounding, what autograd makes of the loss."""
    made = learner(cls, vf_clip_param=1.0) if cls is PPOLearner else learner(cls)
    logits, values, batch = random_batch(seed, masked=masked)
    by_logits, by_values = made.gradients(logits, values, batch, 0.3, 0.7)
    z, v = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(values).requires_grad_()
    loss, _ = made.loss(z, v, as_tensors(batch), 0.3, 0.7)
    loss.backward()
    np.testing.assert_allclose(by_logits, z.grad.numpy(), rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(by_values, v.grad.numpy(), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("worse", [0.0, 0.3])
@pytest.mark.parametrize("loss_name", ["huber", "mse"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_written_out_q_gradient_is_that_of_the_loss(masked: bool, loss_name: str, worse: float):
    rng = np.random.default_rng(5)
    made = learner(DQNLearner, td_error_loss_fn=loss_name)
    made.imitation_weights = ImitationWeights(0.5, worse)
    q_values = rng.normal(size=(40, 3)).astype(np.float32)
    actions, targets = rng.integers(3, size=40), (2 * rng.normal(size=40)).astype(np.float32)
    legal = rng.random((40, 3)) < 0.7
    legal[np.arange(40), actions] = True
    legal_or_none = legal if masked else None
    zeros = np.zeros((40, 1), np.float32)
    batch = ReplayBatch(zeros, zeros, actions, targets, np.zeros(40, bool), rng.random(40) < 0.6, np.arange(40))
    gradient = made.gradient(q_values, batch, targets, legal_or_none, made.imitation_weights)

    q, chosen, y = (
        torch.from_numpy(q_values).requires_grad_(),
        torch.from_numpy(actions)[:, None],
        torch.from_numpy(targets),
    )
    taken = q.gather(-1, chosen).squeeze(-1)
    td = torch.nn.functional.huber_loss(taken, y) if loss_name == "huber" else torch.nn.functional.mse_loss(taken, y)
    illegal = torch.from_numpy(~legal) if masked else None
    (td + made._margin(q, chosen.squeeze(-1), y, torch.from_numpy(batch.consulted), illegal)).backward()
    np.testing.assert_allclose(gradient, q.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("norms", "expected"), [([3.0, 4.0], [3.0, 4.0]), ([30.0, 40.0], [3.0, 4.0])])
def test_gradients_are_clipped_to_a_norm(norms: list[float], expected: list[float]):
    gradient = np.array(norms, np.float32)
    clip_norm([gradient], 5.0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
