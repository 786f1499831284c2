"""DQN's update on arrays: (double) Q-learning with masks, and a soft margin on advised actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.dqn.dqn_learner import QF_NEXT_PREDS, QF_PREDS, QF_TARGET_NEXT_PREDS
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import update_target_network

from rllib_plugins import columns
from rllib_plugins.advising.decision import ImitationWeights
from rllib_plugins.algorithms.array_learner import ArrayLearner
from rllib_plugins.algorithms.imitation import (
    add_imitation,
    imitated_until,
    imitation_loss,
    log_policy,
    log_policy_array,
)
from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.advice_memory import AdviceSample
from rllib_plugins.rollout.network import QView
from rllib_plugins.rollout.replay import ReplayBatch
from rllib_plugins.tasks import load_task

_ALL_LEGAL = np.empty((0, 0), dtype=bool)


@compiled
def q_gradient(
    q_values: NDArray[np.float32],
    legal: NDArray[np.bool_],
    actions: NDArray[np.int64],
    targets: NDArray[np.float32],
    huber: bool,
    consulted: NDArray[np.bool_],
    temperature: np.float32,
    until: np.float32,
    better: np.float32,
    worse: np.float32,
) -> NDArray[np.float32]:
    """∂/∂Q of the mean TD error and of the soft margin on advised actions, −T·log π(a_T) with π = softmax(Q/T).

    That is T·log Σ_a exp(Q(s, a)/T) − Q(s, a_T), and its gradient is π − 1[a = a_T].

    Args:
        q_values: ``(B, A)``.
        legal: ``(B, A)``; empty: all actions are. The margin looks at legal ones only.
        actions: ``(B,)``.
        targets: ``(B,)``.
        huber: Huber's error, else the squared one.
        consulted: ``(B,)`` rows whose action was advised: the margin is on these.
        temperature: T.
        until: π(a_T) from which on a row has no margin.
        better: Weight of the margin where the target exceeds the student's best Q, over B.
        worse: Its weight elsewhere.
    """
    gradient = np.zeros_like(q_values)
    policy = np.zeros_like(q_values[0])
    for row in range(len(actions)):
        advised, target = actions[row], targets[row]
        error = q_values[row, advised] - target
        if not huber:
            error *= np.float32(2)
        elif abs(error) > 1:  # NaN stays
            error = np.sign(error)
        gradient[row, advised] = error / np.float32(len(actions))
        if better > 0 and consulted[row]:
            best, total = np.float32(-np.inf), np.float32(0)
            for action in range(q_values.shape[1]):
                if len(legal) == 0 or legal[row, action]:
                    best = max(best, q_values[row, action])
            for action in range(q_values.shape[1]):
                policy[action] = 0
                if len(legal) == 0 or legal[row, action]:
                    policy[action] = np.exp((q_values[row, action] - best) / temperature)
                total += policy[action]
            if policy[advised] < until * total:
                weight = better if target > best else worse
                gradient[row] += weight / total * policy
                gradient[row, advised] -= weight
    return gradient


class DQNLearner(ArrayLearner, DQNTorchLearner):
    """RLlib's DQN learner with an update on ``ReplayBatch``."""

    config: Any
    _last: tuple[NDArray[np.float32], ReplayBatch, NDArray[np.float32]] | None = None

    def build(self) -> None:
        """Builds what RLlib builds, target networks included."""
        super().build()
        self._last_target_update = 0
        if self.config.rollout == "lean":
            self._view.bind_target()
        else:
            self._task = load_task(self.config.task, **self.config.task_options)

    def bind(self, module: Any) -> None:
        """Makes the lean view on the module."""
        self._view = QView(module)

    def update_from_replay(
        self,
        batch: ReplayBatch,
        *,
        legal: NDArray[np.bool_] | None,
        next_legal: NDArray[np.bool_] | None,
        num_env_steps: int,
        imitation_weights: ImitationWeights,
    ) -> None:
        """One gradient step on a batch of transitions.

        Args:
            batch: Transitions.
            legal: ``(B, A)`` masks of the states, or None.
            next_legal: ``(B, A)`` masks of the states that followed, or None.
            num_env_steps: Env steps sampled so far: the place in the learning-rate schedule.
            imitation_weights: λ of the margin term.
        """
        self.follow_schedules(num_env_steps)
        targets = self.targets(batch, next_legal)
        q_values = self._view.online.forward(batch.observations)
        self._view.online.backward(self.gradient(q_values, batch, targets, legal, imitation_weights))
        self.descend()
        self._last = (q_values, batch, targets)
        self.record(len(batch.actions))

    def gradient(
        self,
        q_values: NDArray[np.float32],
        batch: ReplayBatch,
        targets: NDArray[np.float32],
        legal: NDArray[np.bool_] | None,
        imitation_weights: ImitationWeights,
    ) -> NDArray[np.float32]:
        """∂/∂Q of the mean Huber or squared TD error, plus λ times the mean soft margin, ``(B, A)``.

        Args:
            q_values: ``(B, A)``.
            batch: Transitions.
            targets: ``(B,)``.
            legal: ``(B, A)`` masks of the states, or None.
            imitation_weights: λ, where the target exceeds the student's best Q and where it does not.
        """
        return q_gradient(
            q_values,
            _ALL_LEGAL if legal is None else legal,
            batch.actions,
            targets,
            self.config.td_error_loss_fn == "huber",
            batch.consulted,
            np.float32(self.config.imitation_temperature),
            np.float32(imitated_until(self.config.advice)),
            np.float32(imitation_weights.better / len(targets)),
            np.float32(imitation_weights.worse / len(targets)),
        )

    def imitate(self, sample: AdviceSample) -> float:
        """Writes the gradient of the mean margin; returns the share of steps whose advised action is not the best."""
        q_values = self._view.online.forward(sample.observations)
        illegal = None if sample.legal is None else ~sample.legal
        logp = log_policy_array(q_values / np.float32(self.config.imitation_temperature), illegal)
        gradient = np.zeros_like(q_values)
        add_imitation(gradient, np.exp(logp), sample.advice, np.float32(imitated_until(self.config.advice)))
        self._view.online.backward(gradient)
        return float((logp.argmax(axis=1) != sample.advice.argmax(axis=1)).mean())

    def reduce_metrics(self) -> Any:
        """Statistics of the last batch."""
        if self._last is not None:
            q_values, batch, targets = self._last
            taken = q_values[np.arange(len(targets)), batch.actions]
            error = float(np.abs(taken - targets).mean())
            self._statistics = {"td_error_mean": error, "qf_mean": float(taken.mean())}
            self._last = None
        return super().reduce_metrics()

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's path, for its own EnvRunner: its own loss, with masks in the target and the margin on advice."""
        next_legal = self._task.legal_batch(batch[Columns.NEXT_OBS].numpy())
        if next_legal is not None:
            illegal = ~torch.from_numpy(next_legal)
            for name in (QF_NEXT_PREDS, QF_TARGET_NEXT_PREDS):
                if name in fwd_out:
                    fwd_out[name] = fwd_out[name].masked_fill(illegal, -torch.inf)
        loss: Any = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        if self.imitation_weights.better > 0 and columns.CONSULTED in batch:
            q_values = fwd_out[QF_PREDS]
            actions = batch[Columns.ACTIONS].long().unsqueeze(-1)
            following = fwd_out[QF_TARGET_NEXT_PREDS].detach()
            chooser = fwd_out[QF_NEXT_PREDS].detach() if self.config.double_q else following
            best = following.gather(-1, chooser.argmax(dim=-1, keepdim=True)).squeeze(-1).nan_to_num(neginf=0.0)
            discount = self.config.gamma ** batch["n_step"] * (1.0 - batch[Columns.TERMINATEDS].float())
            loss = loss + self._margin(
                q_values,
                actions.squeeze(-1),
                batch[Columns.REWARDS] + discount * best,
                batch[columns.CONSULTED].bool(),
                ~batch[columns.LEGAL].bool() if columns.LEGAL in batch else None,
            )
        return loss

    def refresh_target(self, num_env_steps: int) -> None:
        """Moves the target network by τ, every ``target_network_update_freq`` env steps."""
        if num_env_steps - self._last_target_update >= self.config.target_network_update_freq:
            self._last_target_update = num_env_steps
            for main, target in self.module[DEFAULT_MODULE_ID].unwrapped().get_target_network_pairs():
                update_target_network(main_net=main, target_net=target, tau=self.config.tau)

    def targets(self, batch: ReplayBatch, next_legal: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """r + γ·Q_target(s', a*), a* the best legal action by the online network (double) or by the target's own."""
        config: Any = self.config
        target_q = self._view.target(batch.next_observations)
        chooser = self._view.scores(batch.next_observations) if config.double_q else target_q
        if next_legal is not None:
            chooser = np.where(next_legal, chooser, -np.inf)
        following = target_q[np.arange(len(target_q)), chooser.argmax(axis=1)]
        return (batch.rewards + config.gamma * np.where(batch.terminated, 0.0, following)).astype(np.float32)

    def _margin(
        self,
        q_values: torch.Tensor,
        actions: torch.Tensor,
        targets: torch.Tensor,
        consulted: torch.Tensor,
        illegal: torch.Tensor | None,
    ) -> torch.Tensor | float:
        """The mean soft margin of ``q_gradient`` on consulted rows, weighted.

        Its weight depends on whether the target of the advised action exceeds the best Q of the student.
        """
        temperature, weights = self.config.imitation_temperature, self.imitation_weights
        logp = log_policy(q_values / temperature, illegal)
        better = targets > q_values.detach().gather(-1, logp.argmax(dim=-1, keepdim=True)).squeeze(-1)
        weight = torch.where(better, weights.better, weights.worse) * consulted
        advice = torch.nn.functional.one_hot(actions, q_values.shape[-1]) * weight.unsqueeze(-1)
        return temperature * imitation_loss(logp, advice, imitated_until(self.config.advice))

    def get_lean_state(self) -> dict[str, Any]:
        """When the target network was last refreshed, too."""
        return super().get_lean_state() | {"last_target_update": self._last_target_update}

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Takes a ``get_lean_state``."""
        super().set_lean_state(state)
        self._last_target_update = state["last_target_update"]
