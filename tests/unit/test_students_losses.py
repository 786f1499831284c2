"""What the students learn from: losses and advice weights against numbers worked out by hand, and against autograd."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rllib_plugins.advising.config import AdviceConfig, ImitationWeights
from rllib_plugins.algorithms.a2c.learner import A2CLearner
from rllib_plugins.algorithms.actor_critic import as_torch_loss, make_update_batch, part
from rllib_plugins.algorithms.advice import AdviceWeights, weigh_advice
from rllib_plugins.algorithms.advice_replay import AdviceSample
from rllib_plugins.algorithms.dqn.learner import DQNLearner
from rllib_plugins.algorithms.losses import Objective, UpdateBatch, add_margin, loss_and_gradients, td_loss
from rllib_plugins.algorithms.ppo.learner import PPOLearner
from rllib_plugins.rollout.arrays import NO_MASKS, NO_ROWS, RolloutArrays
from rllib_plugins.rollout.replay import Transitions


def learner(cls, **config):
    """A learner without RLlib's machinery: the losses need its config only."""
    made = object.__new__(cls)
    defaults = {"clip_param": 0.2, "vf_clip_param": float("inf"), "vf_loss_coeff": 0.5, "gamma": 0.9}
    defaults |= {"double_q": True, "imitation_temperature": 0.5, "td_error_loss_fn": "huber"}
    made.config = SimpleNamespace(**(defaults | {"advice": AdviceConfig()} | config))
    return made


def log_policy(logits: torch.Tensor, legal: np.ndarray) -> torch.Tensor:
    """log π over all actions; illegal ones get the least finite float, so that 0·log π stays 0."""
    if len(legal):
        logits = logits.masked_fill(~torch.from_numpy(legal), torch.finfo(logits.dtype).min)
    return torch.log_softmax(logits, dim=-1)


def imitation_by_torch(logp: torch.Tensor, advice: torch.Tensor, until: float) -> torch.Tensor:
    """Cross-entropy to the advice where the student does not follow it yet, as a mean over all steps."""
    is_open = (advice * logp.detach().exp()).sum(-1) < until * advice.sum(-1)
    return -((advice * logp).sum(-1) * is_open).mean()


def loss_by_torch(logits: torch.Tensor, values: torch.Tensor, batch: UpdateBatch, o: Objective) -> torch.Tensor:
    """The slow, obvious form of ``actor_critic_loss``."""
    logp = log_policy(logits + torch.from_numpy(batch.bonus) if len(batch.bonus) else logits, batch.legal)
    advantages = torch.from_numpy(batch.advantages)
    taken = logp.gather(-1, torch.from_numpy(batch.actions)[:, None]).squeeze(-1)
    if o.clip >= 0:
        ratio = torch.exp(taken - torch.from_numpy(batch.old_logp))
        policy_loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - o.clip, 1 + o.clip) * advantages).mean()
    else:
        policy_loss = -(advantages * taken).mean()
    vf_loss = (values - torch.from_numpy(batch.targets)).square().clamp(max=float(o.vf_clip)).mean()
    entropy = -(logp.exp() * logp).sum(-1).mean()
    loss = policy_loss + o.vf_coeff * vf_loss - o.entropy_coeff * entropy
    if len(batch.imitation):
        loss = loss + imitation_by_torch(logp, torch.from_numpy(batch.imitation), o.until)
    if len(batch.old_logits):
        old = log_policy(torch.from_numpy(batch.old_logits), batch.legal)
        loss = loss + o.kl_coeff * (old.exp() * (old - logp)).sum(-1).mean()
    return loss


def margin_by_torch(
    q_values: torch.Tensor, batch: Transitions, targets: torch.Tensor, advice: AdviceConfig, weights: ImitationWeights
) -> torch.Tensor:
    """T times the cross-entropy of softmax(Q/T) to the advised actions, at T = 0.5."""
    logp = log_policy(q_values / 0.5, batch.legal)
    best = q_values.detach().gather(-1, logp.argmax(dim=-1, keepdim=True)).squeeze(-1)
    weight = torch.where(targets > best, weights.better, weights.worse) * torch.from_numpy(batch.consulted)
    advised = torch.nn.functional.one_hot(torch.from_numpy(batch.actions), q_values.shape[-1]) * weight[:, None]
    return 0.5 * imitation_by_torch(logp, advised, advice.imitation_until if advice.imitation == "filtered" else 2.0)


def one_step(*, advantage: float = 1.0, old: float = 0.5, **fields) -> UpdateBatch:
    """The first action was taken; the target of the value is 2."""
    batch = UpdateBatch(
        observations=np.zeros((1, 1), np.float32),
        actions=np.zeros(1, np.int64),
        advantages=np.array([advantage], np.float32),
        targets=np.array([2.0], np.float32),
        old_logp=np.log(np.array([old], np.float32)),
        old_logits=NO_ROWS,
        legal=NO_MASKS,
        imitation=NO_ROWS,
    )
    return batch._replace(**fields)


def row(*numbers: float) -> np.ndarray:
    return np.array([numbers], np.float32)


def gradients(made, logits: list[float], value: float, batch: UpdateBatch, entropy: float = 0.0, kl: float = 0.0):
    z, v = np.array([logits], np.float32), np.array([value], np.float32)
    result = loss_and_gradients(z, v, batch, made.objective(entropy, kl))
    return result.statistics.loss, result.by_logits[0].tolist(), result.by_values[0]


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
    batch = one_step(advantage=0.0, old_logits=row(1.0, 0.0))
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
    batch = one_step(advantage=0.0, imitation=row(0.0, 0.7))
    _, logit_gradient, _ = gradients(learner(cls), [0.0, 0.0], 2.0, batch)
    assert logit_gradient == pytest.approx([0.35, -0.35], rel=1e-5)


@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
def test_imitation_ends_where_the_student_follows(cls):
    batch = one_step(advantage=0.0, imitation=row(0.0, 0.7))
    pulls = [gradients(learner(cls), [0.0, z], 2.0, batch)[1][1] for z in (1.3, 1.5)]  # π = 0.786 and 0.818
    assert pulls[0] < 0.0 and pulls[1] == 0.0
    everything = learner(cls, advice=AdviceConfig(imitation="all"))
    assert gradients(everything, [0.0, 1.5], 2.0, batch)[1][1] < 0.0


@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
def test_illegal_actions_have_no_part_in_loss_or_gradient(cls):
    batch = one_step(legal=np.array([[True, True, False]]), imitation=row(1.0, 0.0, 0.0))
    loss, logit_gradient, _ = gradients(learner(cls), [0.0, 0.0, 50.0], 2.0, batch, entropy=0.1)
    without = gradients(learner(cls), [0.0, 0.0], 2.0, one_step(imitation=row(1.0, 0.0)), entropy=0.1)
    assert loss == pytest.approx(without[0], rel=1e-5)
    assert logit_gradient == pytest.approx([*without[1], 0.0], rel=1e-5)


@pytest.mark.parametrize(("cap", "expected"), [(1.5, [3.0, -1 / 9, 2.0, 0.0]), (0.0, [2.0, -1.0, 2.0, 4.0])])
def test_advantages_are_weighed_by_capped_ratios(cap: float, expected: list[float]):
    probabilities = np.array([[[0.25, 0.9, 0.8, 1e-30]], [[0.5, 0.1, 0.8, 0.0]]], np.float32)
    advantages, advice = np.array([[2.0, -1.0, 2.0, 4.0]], np.float32), np.zeros((1, 4, 2), np.float32)
    nobody, weights = np.zeros((1, 4), bool), AdviceWeights(np.float32(cap), np.float32(1.0), np.float32(1.0))
    assert not weigh_advice(advantages, advantages.copy(), probabilities, nobody, advice, weights, advice.copy())
    np.testing.assert_allclose(advantages[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("better", "worse", "expected"), [(1.0, 0.0, [1, 0, 0, 0]), (2.0, 1.0, [2, 1, 0, 1]), (0.0, 0.0, [0, 0, 0, 0])]
)
def test_imitation_is_weighed_by_how_advice_turned_out(better: float, worse: float, expected: list[float]):
    advice = np.tile(np.array([0.0, 1.0], np.float32), (1, 4, 1))
    consulted, estimated = np.array([[True, True, False, True]]), np.array([[1.0, -1.0, 1.0, 0.0]], np.float32)
    weights = AdviceWeights(np.float32(1.0), np.float32(better), np.float32(worse))
    imitation = np.full_like(advice, np.nan)
    same = np.ones((2, 1, 4), np.float32)
    imitates = weigh_advice(estimated.copy(), estimated, same, consulted, advice, weights, imitation)
    assert imitates == (better > 0)
    assert imitation[0, :, 1].tolist() == expected


def tutored_rollout() -> RolloutArrays:
    arrays = RolloutArrays.allocate((2, 2), 1, 2, for_replay=False, with_advice=True, with_masks=False)
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
    assert batch.imitation[:, 1].tolist() == [0.5, 0.0, 0.0, 0.0]
    assert batch.targets.tolist() == [1.0, -1.0, 2.0, 0.5]


def test_the_papers_form_neither_weighs_nor_imitates():
    advice = AdviceConfig(weights="policy", imitation="off")
    config = SimpleNamespace(gamma=1.0, lambda_=1.0, standardize_advantages=True, use_kl_loss=False, advice=advice)
    batch, advantages = make_update_batch(tutored_rollout(), config, ImitationWeights())
    assert not len(batch.imitation)
    expected = (advantages - advantages.mean()) / advantages.std()
    np.testing.assert_allclose(batch.advantages, expected.ravel(), rtol=1e-5)


def test_targets_take_the_place_of_advised_actions():
    config = SimpleNamespace(
        gamma=0.9, lambda_=0.8, standardize_advantages=True, use_kl_loss=False, advice=AdviceConfig(use="kickstart")
    )
    targets = np.full((4, 2), 0.5, np.float32)
    untutored = tutored_rollout()
    untutored.advice = None
    batch, _ = make_update_batch(untutored, config, ImitationWeights(), targets)
    np.testing.assert_array_equal(batch.imitation, targets)
    assert not len(batch.bonus)


def test_parts_of_a_batch_keep_steps_together():
    steps = np.arange(10)
    numbers = steps.astype(np.float32)
    batch = UpdateBatch(numbers[:, None], steps, numbers, numbers, numbers, NO_ROWS, NO_MASKS, NO_ROWS)
    shuffled = part(batch, np.random.default_rng(0).permutation(10))
    parts = [part(shuffled, slice(start, start + 4)) for start in range(0, 10, 4)]
    assert [len(each.actions) for each in parts] == [4, 4, 2]
    assert sorted(np.concatenate([each.actions for each in parts])) == list(range(10))
    assert all((each.actions == each.advantages).all() and not len(each.legal) for each in parts)


def gradient_by_q(q_values: np.ndarray, batch: Transitions, made: DQNLearner, weights: ImitationWeights) -> np.ndarray:
    """∂/∂Q of the TD error and the margin, as DQN's update writes it; the targets are in the place of the rewards."""
    by_q = np.empty_like(q_values)
    td_loss(q_values, batch.actions, batch.rewards, made.config.td_error_loss_fn == "huber", by_q)
    advised = np.where(batch.consulted, batch.actions, -1)
    add_margin(q_values, batch.legal, advised, batch.rewards, made._margin(weights), by_q)
    return by_q


def margin_of(q_values: list[float], target: float, *, imitation: str = "filtered", legal: list[bool] | None = None):
    """The margin's gradient where the first action was advised: the TD error's is taken off."""
    made = learner(DQNLearner, advice=AdviceConfig(imitation=imitation))
    batch = advised_batch(np.array([target], np.float32), np.zeros(1, np.int64), legal and np.array([legal]))
    given = np.array([q_values], np.float32), batch, made
    weights = ImitationWeights.of(made.config.advice, 1.0)
    return (gradient_by_q(*given, weights) - gradient_by_q(*given, ImitationWeights()))[0]


def advised_batch(targets: np.ndarray, actions: np.ndarray, legal: np.ndarray | None, share: float = 1.0):
    """Transitions of which a share was advised; the targets are in the place of the rewards."""
    size = len(actions)
    consulted = np.random.default_rng(1).random(size) < share
    zeros = np.zeros((size, 1), np.float32)
    masks = NO_MASKS if legal is None else legal
    return Transitions(zeros, zeros, actions, targets, np.zeros(size, bool), consulted, masks)


def test_the_margin_lifts_the_advised_action_above_the_others():
    parts = np.exp([2.0, 3.0, 0.0])  # Q/T
    assert margin_of([1.0, 1.5, 0.0], target=2.0) == pytest.approx(parts / parts.sum() - [1.0, 0.0, 0.0], abs=1e-6)


def test_the_margin_ends_where_the_advice_is_followed():
    assert not margin_of([3.0, 1.5, 0.0], target=4.0).any()  # softmax([6, 3, 0]) follows with 0.95
    assert margin_of([3.0, 1.5, 0.0], target=4.0, imitation="all").any()


def test_the_margin_is_filtered_by_the_target():
    assert not margin_of([1.0, 1.5, 0.0], target=1.4).any()
    parts = np.exp([2.0, 3.0, 0.0])
    everything = margin_of([1.0, 1.5, 0.0], target=1.4, imitation="all")
    assert everything == pytest.approx(parts / parts.sum() - [1.0, 0.0, 0.0], abs=1e-6)


def test_the_margin_ignores_illegal_actions():
    gradient = margin_of([1.0, 1.5, 9.0], target=2.0, legal=[True, True, False])
    assert gradient == pytest.approx([-np.e / (1 + np.e), np.e / (1 + np.e), 0.0], abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
def test_imitating_again_descends_the_imitation_loss_and_nothing_else(cls, masked: bool):
    logits, _, batch = random_batch(3, masked=masked)
    logits = (3 * logits).astype(np.float32)  # some of it is followed already
    made, written = learner(cls), []
    made._view = SimpleNamespace(
        scores=lambda _: logits, backward_policy=lambda _, by_logits: written.append(by_logits)
    )
    advice = np.eye(3, dtype=np.float32)[batch.imitation.argmax(axis=1)]
    share = made.imitate(AdviceSample(batch.observations, advice, batch.legal), 0.8)

    z = torch.from_numpy(logits).requires_grad_()
    logp = log_policy(z, batch.legal)
    imitation_by_torch(logp, torch.from_numpy(advice), AdviceConfig().imitation_until).backward()
    np.testing.assert_allclose(written[0], z.grad.numpy(), rtol=2e-4, atol=2e-6)
    followed = (advice * logp.detach().exp().numpy()).sum(axis=1) >= 0.8
    assert share == pytest.approx(1 - followed.mean()) and 0 < share < 1


def test_dqn_imitates_again_by_the_margin():
    q_values = np.array([[1.0, 1.5, 9.0], [3.0, 1.5, 9.0]], np.float32)
    made, written = learner(DQNLearner), []
    made._view = SimpleNamespace(online=lambda _: q_values)
    made._view.online.backward_comparison = lambda _, by_q: written.append(by_q)
    advice = np.array([[1, 0, 0], [1, 0, 0]], np.float32)
    legal = np.array([[True, True, False]] * 2)
    assert made.imitate(AdviceSample(np.zeros((2, 1), np.float32), advice, legal), 0.8) == 0.5
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
        legal=~illegal if masked else NO_MASKS,
        imitation=(rng.random((size, 3)) * ~illegal).astype(np.float32),
    )
    return normal(size, 3), normal(size), batch


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cls", [PPOLearner, A2CLearner])
@pytest.mark.parametrize("seed", range(5))
def test_written_out_gradients_are_those_of_the_loss(cls, masked: bool, seed: int):
    """The loss and its gradients are, to rounding, what autograd makes of the slow form."""
    made = learner(cls, vf_clip_param=1.0) if cls is PPOLearner else learner(cls)
    logits, values, batch = random_batch(seed, masked=masked)
    objective = made.objective(0.3, 0.7)
    ours = loss_and_gradients(logits, values, batch, objective)
    z, v = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(values).requires_grad_()
    loss = loss_by_torch(z, v, batch, objective)
    loss.backward()
    assert ours.statistics.loss == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(ours.by_logits, z.grad.numpy(), rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(ours.by_values, v.grad.numpy(), rtol=2e-4, atol=2e-6)


def test_a_loss_reaches_torch_with_its_value_and_gradients():
    x, y = torch.zeros(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    by_x, by_y = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([5.0, -1.0], np.float32)
    loss = as_torch_loss(7.5, (x, by_x), (y, by_y))
    (2.0 * loss).backward()
    assert loss.item() == 7.5
    np.testing.assert_array_equal(x.grad.numpy(), 2 * by_x)
    np.testing.assert_array_equal(y.grad.numpy(), 2 * by_y)


@pytest.mark.parametrize("worse", [0.0, 0.3])
@pytest.mark.parametrize("loss_name", ["huber", "mse"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_written_out_q_gradient_is_that_of_the_loss(masked: bool, loss_name: str, worse: float):
    rng = np.random.default_rng(5)
    made, weights = learner(DQNLearner, td_error_loss_fn=loss_name), ImitationWeights(0.5, worse)
    q_values = rng.normal(size=(40, 3)).astype(np.float32)
    actions, targets = rng.integers(3, size=40), (2 * rng.normal(size=40)).astype(np.float32)
    legal = rng.random((40, 3)) < 0.7
    legal[np.arange(40), actions] = True
    batch = advised_batch(targets, actions, legal if masked else None, share=0.6)
    gradient = gradient_by_q(q_values, batch, made, weights)

    q, y = torch.from_numpy(q_values).requires_grad_(), torch.from_numpy(targets)
    taken = q.gather(-1, torch.from_numpy(actions)[:, None]).squeeze(-1)
    td = torch.nn.functional.huber_loss(taken, y) if loss_name == "huber" else torch.nn.functional.mse_loss(taken, y)
    (td + margin_by_torch(q, batch, y, made.config.advice, weights)).backward()
    np.testing.assert_allclose(gradient, q.grad.numpy(), rtol=1e-4, atol=1e-7)
