"""The lean views compute what RLlib's modules compute, on the modules' own memory."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch.optim.adam import adam

from rllib_plugins.rollout.mlp import backward_dueling, backward_heads, flatten_parameters
from rllib_plugins.rollout.network import ActorCriticView, QView, initialise_orthogonally
from tutor_service.errors import UserError

OBSERVATIONS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def build(module_class, extra=None, **model):
    config = DefaultModelConfig(fcnet_hiddens=[16, 8], **model)
    return RLModuleSpec(
        module_class=module_class,
        observation_space=gym.spaces.Box(-1, 1, (3,), np.float32),
        action_space=gym.spaces.Discrete(4),
        model_config=vars(config) | (extra or {}),
    ).build()


def gradients_of(module) -> dict[str, np.ndarray]:
    return {name: p.grad.numpy().copy() for name, p in module.named_parameters() if p.grad is not None}


def assert_gradients(module, loss: torch.Tensor, ours: dict[str, np.ndarray]) -> None:
    module.zero_grad(set_to_none=True)
    loss.backward()
    expected = gradients_of(module)
    assert expected.keys() == ours.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(ours[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


def adam_step(parameter: torch.Tensor) -> None:
    """One step of ``torch.optim.Adam(fused=True)``, whose class imports torch's compiler for seconds."""
    moments = [torch.zeros_like(parameter) for _ in range(2)]
    options = {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8, "maximize": False}
    with torch.no_grad():
        adam(
            *([item] for item in (parameter, parameter.grad, *moments)),
            [],
            [torch.tensor(0.0)],
            fused=True,
            lr=0.1,
            **options,
        )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_actor_critic_agrees_with_the_module(shared: bool, activation: str):
    module = build(DefaultPPOTorchRLModule, vf_share_layers=shared, fcnet_activation=activation)
    flatten_parameters(list(module.parameters()))
    view = ActorCriticView(module)
    batch = {"obs": torch.from_numpy(OBSERVATIONS)}
    logits, values = module.forward_train(batch)["action_dist_inputs"], module.compute_values(batch)
    ours, our_values = view.act(OBSERVATIONS)
    np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(our_values, values.detach().numpy(), rtol=1e-5, atol=1e-6)
    by_logits, by_values = np.random.default_rng(1).normal(size=(2, 7, 4)).astype(np.float32)
    by_values = np.ascontiguousarray(by_values[:, :1])
    given = by_logits.copy(), by_values.copy()  # which are overwritten
    backward_heads(view.network, OBSERVATIONS, *given, view.workspace(7))
    ours_by_name = gradients_of(module)
    loss = (logits * torch.from_numpy(by_logits)).sum() + (values * torch.from_numpy(by_values[:, 0])).sum()
    assert_gradients(module, loss, ours_by_name)


def test_a_policys_gradient_leaves_the_critic_alone():
    module = build(DefaultPPOTorchRLModule, vf_share_layers=False, fcnet_activation="tanh")
    whole = flatten_parameters(list(module.parameters()))
    view = ActorCriticView(module)
    logits = view.scores(OBSERVATIONS)
    whole.grad.fill_(7.0)
    view.backward_policy(OBSERVATIONS, np.full_like(logits, 0.3))
    gradients = gradients_of(module)
    critics = [name for name in gradients if "critic" in name or name.startswith("vf")]
    assert len(critics) == 6 and all((gradients[name] == 7.0).all() for name in critics)
    assert not any((gradients[name] == 7.0).any() for name in gradients if name not in critics)


@pytest.mark.parametrize("dueling", [False, True])
def test_q_view_agrees_with_the_module_and_its_target(dueling: bool):
    extra = {"dueling": dueling, "double_q": True, "num_atoms": 1, "epsilon": 0.1, "std_init": 0.5}
    module = build(DefaultDQNTorchRLModule, extra, fcnet_activation="relu")
    flatten_parameters(list(module.parameters()))
    module.make_target_networks()
    view = QView(module)
    target_view = view.make_target()
    batch = {"obs": torch.from_numpy(OBSERVATIONS)}
    with torch.no_grad():
        module.af.net.mlp[-1].weight.mul_(3.0)  # so that target and online differ
        target = module.forward_target(batch)["qf_preds"].numpy()
    online = module.compute_q_values(batch)["qf_preds"]
    assert np.abs(online.detach().numpy() - target).max() > 1e-3
    np.testing.assert_allclose(view.scores(OBSERVATIONS), online.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(target_view(OBSERVATIONS), target, rtol=1e-5, atol=1e-6)
    by_q = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    view.scores(OBSERVATIONS)
    backward_dueling(view.online.network, OBSERVATIONS, by_q.copy(), True, view.online.workspace(7))
    assert_gradients(module, (online * torch.from_numpy(by_q)).sum(), gradients_of(module))


def test_a_loss_that_compares_actions_leaves_the_value_head_alone():
    extra = {"dueling": True, "double_q": True, "num_atoms": 1, "epsilon": 0.1, "std_init": 0.5}
    module = build(DefaultDQNTorchRLModule, extra, fcnet_activation="relu")
    flatten_parameters(list(module.parameters()))
    view = QView(module)
    by_q = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    by_q -= by_q.mean(axis=1, keepdims=True)  # but for rounding its sum over actions is 0
    view.scores(OBSERVATIONS)
    view.online.backward_comparison(OBSERVATIONS, by_q)
    gradients = gradients_of(module)
    assert all(not gradient.any() for name, gradient in gradients.items() if name.startswith("vf."))
    assert any(gradient.any() for name, gradient in gradients.items() if name.startswith("af."))


def test_what_the_optimiser_does_is_seen_when_acting_and_in_checkpoints():
    module = build(DefaultPPOTorchRLModule, vf_share_layers=False)
    whole = flatten_parameters(list(module.parameters()))
    view = ActorCriticView(module)
    before, _ = view.act(OBSERVATIONS)
    before = before.copy()
    logits, values = view.act(OBSERVATIONS)
    backward_heads(view.network, OBSERVATIONS, logits, values[:, None], view.workspace(7))
    adam_step(whole)
    stepped, _ = view.act(OBSERVATIONS)
    assert np.abs(stepped - before).max() > 1e-3
    with torch.no_grad():
        seen = module.forward_inference({"obs": torch.from_numpy(OBSERVATIONS)})["action_dist_inputs"]
    np.testing.assert_allclose(seen.numpy(), stepped, rtol=1e-5, atol=1e-6)
    module.set_state({name: np.zeros(tuple(p.shape), np.float32) for name, p in module.state_dict().items()})
    assert not view.act(OBSERVATIONS)[0].any()
    assert not whole.any()


@pytest.mark.parametrize("shared", [False, True])
def test_orthogonal_weights_begin_with_a_nearly_uniform_policy(shared: bool):
    module = build(DefaultPPOTorchRLModule, vf_share_layers=shared, fcnet_activation="tanh")
    whole = flatten_parameters(list(module.parameters()))
    initialise_orthogonally(module)
    weights = [p.detach().numpy() for p in module.parameters() if p.ndim == 2]
    for weight in weights:
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        np.testing.assert_allclose(gram, gram[0, 0] * np.eye(len(gram)), atol=1e-5)
    gains = sorted(float(np.sqrt((w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w)[0, 0])) for w in weights)
    np.testing.assert_allclose(gains[:2], [0.01, 1.0], rtol=1e-4)
    np.testing.assert_allclose(gains[2:], np.sqrt(2.0), rtol=1e-4)
    logits, _ = ActorCriticView(module).act(OBSERVATIONS)
    assert 0 < np.abs(logits).max() < 0.1
    assert whole.data_ptr() == next(module.parameters()).data_ptr()


def test_acting_leaves_the_observations_alone():
    view = ActorCriticView(build(DefaultPPOTorchRLModule, vf_share_layers=False, fcnet_activation="relu"))
    given = OBSERVATIONS.copy()
    view.act(given)
    np.testing.assert_array_equal(given, OBSERVATIONS)


@pytest.mark.parametrize(
    "observations", [OBSERVATIONS.astype(np.float64), OBSERVATIONS[::-1], np.asfortranarray(OBSERVATIONS)]
)
def test_observations_of_any_layout_are_taken(observations: np.ndarray):
    view = ActorCriticView(build(DefaultPPOTorchRLModule, vf_share_layers=True, fcnet_activation="tanh"))
    observations.flags.writeable = False
    expected = view.scores(np.array(observations, np.float32, order="C")).copy()
    np.testing.assert_array_equal(view.scores(observations), expected)


def test_other_networks_are_refused_with_the_way_out():
    with pytest.raises(UserError, match="rollout: stock"):
        ActorCriticView(build(DefaultPPOTorchRLModule, vf_share_layers=False, fcnet_activation="silu"))
