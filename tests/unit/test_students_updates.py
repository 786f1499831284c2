"""Compiled updates against torch: the same parameters after the same steps, to rounding."""

from __future__ import annotations

import copy
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rllib_plugins.algorithms.losses import Margin, Objective, UpdateBatch
from rllib_plugins.algorithms.updates import (
    OTHER,
    Optimiser,
    OptimiserView,
    QObjective,
    descend,
    describe_optimiser,
    learn,
    learn_in_passes,
    learn_transitions,
)
from rllib_plugins.rollout.arrays import NO_MASKS, NO_ROWS
from rllib_plugins.rollout.mlp import Network, flatten_parameters, make_network, make_workspace
from rllib_plugins.rollout.replay import Drawn, Kept, Transitions

Sections = list[list[nn.Module]]


def mlp(*sizes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return layers[:-1]


def build(shared: bool, seed: int = 0) -> Sections:
    """Trunk, actor of 3 actions and critic over observations of 5 numbers."""
    torch.manual_seed(seed)
    if shared:
        return [[*mlp(5, 16), nn.ReLU()], mlp(16, 3), mlp(16, 1)]
    return [[], mlp(5, 16, 3), mlp(5, 16, 8, 1)]


def parameters(sections: Sections) -> list[nn.Parameter]:
    return [p for section in sections for layer in section for p in layer.parameters()]


def prepare(sections: Sections, optimiser: dict[str, Any], **clipping: Any) -> tuple[Network, Optimiser, Any]:
    """A network of the sections, and a description of its optimiser beside torch's."""
    given = parameters(sections)
    whole = flatten_parameters(given)
    made = make_optimiser([whole], **optimiser)
    parts = np.cumsum([0, *(p.numel() for p in given)])
    config = SimpleNamespace(**({"grad_clip": None, "grad_clip_by": "global_norm"} | clipping))
    return make_network(sections), describe_optimiser(made, config, parts), made


def make_optimiser(given: list[Any], kind: str = "adam", **options: Any) -> torch.optim.Optimizer:
    return {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[kind](given, lr=0.01, **options)


def run(sections: Sections, observations: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    features = nn.Sequential(*sections[0])(torch.from_numpy(observations))
    return nn.Sequential(*sections[1])(features), nn.Sequential(*sections[2])(features)[:, 0]


def clip(given: list[nn.Parameter], grad_clip: float | None, grad_clip_by: str) -> None:
    if grad_clip is None:
        return
    if grad_clip_by == "value":
        nn.utils.clip_grad_value_(given, grad_clip)
    elif grad_clip_by == "global_norm":
        nn.utils.clip_grad_norm_(given, grad_clip)
    else:
        for parameter in given:
            nn.utils.clip_grad_norm_([parameter], grad_clip)


def assert_close(ours: Sections, theirs: Sections) -> None:
    for one, other in zip(parameters(ours), parameters(theirs), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    "clipping", [{}, *({"grad_clip": 0.05, "grad_clip_by": by} for by in ("global_norm", "norm", "value"))]
)
@pytest.mark.parametrize(
    "optimiser",
    [
        {"kind": "adam"},
        {"kind": "adam", "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.1},
        {"kind": "rmsprop", "alpha": 0.9, "eps": 1e-5},
        {"kind": "rmsprop", "weight_decay": 0.1},
    ],
)
def test_steps_are_torchs(optimiser: dict[str, Any], clipping: dict[str, Any]):
    ours, theirs = build(shared=False), build(shared=False)
    network, described, _ = prepare(ours, optimiser, **clipping)
    reference = make_optimiser(parameters(theirs), **optimiser)
    rng = np.random.default_rng(0)
    for _ in range(20):
        gradient = rng.normal(size=network.gradients.size).astype(np.float32)
        network.gradients[:] = gradient
        start = 0
        for parameter in parameters(theirs):
            part = gradient[start : start + parameter.numel()]
            parameter.grad = torch.from_numpy(part.copy()).view_as(parameter)
            start += parameter.numel()
        clip(parameters(theirs), clipping.get("grad_clip"), clipping.get("grad_clip_by", ""))
        reference.step()
        descend(network, described)
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    "options", [{"amsgrad": True}, {"kind": "rmsprop", "centered": True}, {"kind": "rmsprop", "momentum": 0.9}]
)
def test_other_optimisers_are_left_to_torch_and_gradients_clipped(options: dict[str, Any]):
    sections = build(shared=False)
    network, described, _ = prepare(sections, options, grad_clip=1.0)
    before = network.parameters.copy()
    network.gradients[:] = 3.0
    descend(network, described)
    assert described.kind == OTHER
    np.testing.assert_array_equal(network.parameters, before)
    assert np.linalg.norm(network.gradients) == pytest.approx(1.0, rel=1e-4)


def test_the_optimisers_state_is_torchs_own():
    """A checkpoint of torch's optimiser holds what compiled steps made of it, and torch can go on from there."""
    ours, theirs = build(shared=True), build(shared=True)
    network, described, optimiser = prepare(ours, {"kind": "adam"})
    _, _, reference = prepare(theirs, {"kind": "adam"})
    gradient = np.random.default_rng(0).normal(size=network.gradients.size).astype(np.float32)
    for step in range(6):
        network.gradients[:] = gradient
        reference.param_groups[0]["params"][0].grad[:] = torch.from_numpy(gradient)
        reference.step()
        if step < 3:
            descend(network, described)
        else:
            optimiser.step()
    assert optimiser.state_dict()["state"][0]["step"].item() == 6
    assert_close(ours, theirs)


def test_a_description_follows_learning_rate_and_checkpoints():
    sections = build(shared=True)
    network, _, optimiser = prepare(sections, {"kind": "adam"})
    view = OptimiserView(optimiser, SimpleNamespace(grad_clip=None), np.array([0, network.gradients.size]))
    saved = copy.deepcopy(optimiser.state_dict())
    network.gradients[:] = 1.0
    descend(network, view())
    assert view().num_steps[0] == 1 and view().first.any()
    optimiser.load_state_dict(saved)
    optimiser.param_groups[0]["lr"] = 0.5
    assert view().num_steps[0] == 0 and not view().first.any() and view().rates[0] == 0.5
    descend(network, view())
    assert optimiser.state_dict()["state"][0]["step"].item() == 1


def random_batch(size: int, *, masked: bool, advised: bool) -> UpdateBatch:
    rng = np.random.default_rng(2)
    legal = rng.random((size, 3)) < 0.7
    actions = rng.integers(3, size=size)
    legal[np.arange(size), actions] = True

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return UpdateBatch(
        observations=normal(size, 5),
        actions=actions,
        advantages=normal(size),
        targets=normal(size),
        old_logp=np.log(rng.uniform(0.2, 0.8, size)).astype(np.float32),
        old_logits=normal(size, 3) if advised else NO_ROWS,
        legal=legal if masked else NO_MASKS,
        imitation=(rng.random((size, 3)) * legal).astype(np.float32) if advised else NO_ROWS,
        bonus=normal(size, 3) if advised else NO_ROWS,
    )


OBJECTIVE = Objective(*(np.float32(value) for value in (0.2, 4.0, 0.5, 0.01, 0.1, 0.8)))


def learn_by_torch(sections: Sections, batch: UpdateBatch, steps: np.ndarray, optimiser: Any, grad_clip: float) -> None:
    from tests.unit.test_students_losses import loss_by_torch

    minibatch = UpdateBatch(*(array[steps] if len(array) else array for array in batch))
    optimiser.zero_grad()
    loss_by_torch(*run(sections, minibatch.observations), minibatch, OBJECTIVE).backward()
    clip(parameters(sections), grad_clip, "global_norm")
    optimiser.step()


@pytest.mark.parametrize(("masked", "advised"), [(False, False), (True, True)])
@pytest.mark.parametrize("shared", [False, True])
def test_passes_over_a_batch_are_those_of_torch(shared: bool, masked: bool, advised: bool):
    ours, theirs, batch = build(shared), build(shared), random_batch(50, masked=masked, advised=advised)
    network, described, _ = prepare(ours, {"kind": "adam"}, grad_clip=0.5)
    reference = make_optimiser(parameters(theirs))
    orders = np.stack([np.random.default_rng(seed).permutation(50) for seed in range(3)])
    learn_in_passes(network, batch, orders, 16, OBJECTIVE, make_workspace(network, 16), described)
    for order in orders:
        for start in range(0, 50, 16):
            learn_by_torch(theirs, batch, order[start : start + 16], reference, 0.5)
    assert_close(ours, theirs)


@pytest.mark.parametrize("shared", [False, True])
def test_one_step_on_a_whole_batch_is_that_of_torch(shared: bool):
    ours, theirs, batch = build(shared), build(shared), random_batch(40, masked=True, advised=True)
    network, described, _ = prepare(ours, {"kind": "rmsprop"}, grad_clip=0.5)
    learn(network, batch, OBJECTIVE, make_workspace(network, 40), described)
    learn_by_torch(theirs, batch, np.arange(40), make_optimiser(parameters(theirs), "rmsprop"), 0.5)
    assert_close(ours, theirs)


def q_by_torch(sections: Sections, observations: np.ndarray) -> torch.Tensor:
    features = nn.Sequential(*sections[0])(torch.from_numpy(observations))
    advantages = nn.Sequential(*sections[1])(features)
    if not sections[2]:
        return advantages
    return advantages - advantages.mean(dim=1, keepdim=True) + nn.Sequential(*sections[2])(features)


@pytest.mark.parametrize("imitated", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("double_q", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_q_learning_is_that_of_torch(dueling: bool, double_q: bool, masked: bool, imitated: bool):
    from tests.unit.test_students_losses import advised_batch, log_policy

    def made(seed: int) -> Sections:
        sections = build(shared=True, seed=seed)
        return sections if dueling else [*sections[:2], []]

    rng = np.random.default_rng(0)
    legal, next_legal = rng.random((2, 30, 3)) < 0.6
    actions = rng.integers(3, size=30)
    legal[np.arange(30), actions] = True
    next_legal[:, 1] = True
    batch: Transitions = advised_batch(rng.normal(size=30).astype(np.float32), actions, None, share=0.5)
    batch = batch._replace(
        observations=rng.normal(size=(30, 5)).astype(np.float32),
        next_observations=rng.normal(size=(30, 5)).astype(np.float32),
        terminated=rng.random(30) < 0.3,
        legal=legal if masked else NO_MASKS,
        next_legal=next_legal if masked else NO_MASKS,
        imitation=(rng.random((30, 3)) * (legal if masked else 1.0)).astype(np.float32) if imitated else NO_ROWS,
    )
    ours, theirs, target = made(0), made(0), made(1)
    network, described, _ = prepare(ours, {"kind": "adam"}, grad_clip=10.0)
    margin = Margin(*(np.float32(value) for value in (0.5, 2.0, 0.0, 0.0)))
    objective = QObjective(np.float32(0.9), True, double_q, margin)
    drawn = Drawn(Kept(*batch[:6]), np.arange(30), batch.legal, batch.next_legal, batch.imitation)
    learnt = learn_transitions(network, make_network(target), drawn, objective, make_workspace(network, 30), described)

    with torch.no_grad():
        following = q_by_torch(target, batch.next_observations)
        chooser = q_by_torch(theirs, batch.next_observations) if double_q else following
        if masked:
            chooser = chooser.masked_fill(~torch.from_numpy(next_legal), -torch.inf)
        best = following.gather(-1, chooser.argmax(dim=-1, keepdim=True)).squeeze(-1)
        targets = torch.from_numpy(batch.rewards) + 0.9 * best * torch.from_numpy(~batch.terminated)
    q_values = q_by_torch(theirs, batch.observations)
    taken = q_values.gather(-1, torch.from_numpy(actions)[:, None]).squeeze(-1)
    optimiser = make_optimiser(parameters(theirs))
    loss = nn.functional.huber_loss(taken, targets)
    if imitated:
        logp = log_policy(q_values / 0.5, batch.legal)
        loss = loss - 0.5 * (torch.from_numpy(batch.imitation) * logp).sum(dim=-1).mean()
    loss.backward()
    clip(parameters(theirs), 10.0, "global_norm")
    optimiser.step()
    np.testing.assert_allclose(learnt.targets, targets.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(learnt.taken, taken.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert_close(ours, theirs)
