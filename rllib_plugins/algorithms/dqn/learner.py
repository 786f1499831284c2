"""DQN's update: (double) Q-learning with masks, and a soft margin on advised actions, on arrays or by RLlib's path."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.dqn.dqn_learner import QF_NEXT_PREDS, QF_PREDS, QF_TARGET_NEXT_PREDS
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import update_target_network

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.actor_critic import as_torch_loss
from rllib_plugins.algorithms.advice import imitated_until
from rllib_plugins.algorithms.array_learner import ArrayLearner
from rllib_plugins.algorithms.losses import Margin, add_imitation, add_margin
from rllib_plugins.algorithms.updates import OTHER, LearntTransitions, QObjective, learn_transitions
from rllib_plugins.connectors import columns
from rllib_plugins.policies import best_actions
from rllib_plugins.rollout.arrays import NO_MASKS
from rllib_plugins.rollout.mlp import Network
from rllib_plugins.rollout.network import QView
from rllib_plugins.rollout.replay import Drawn
from rllib_plugins.tasks import load_task
from rllib_plugins.uses.base import AdviceSample

_NOBODY = -1


class DQNLearner(ArrayLearner, DQNTorchLearner):
    """RLlib's DQN learner with an update on ``Transitions``."""

    config: Any

    def build(self) -> None:
        """Build what RLlib builds, target networks included."""
        super().build()
        self._last_target_update = 0
        self._last: LearntTransitions | None = None
        self._objective_with: tuple[ImitationWeights, QObjective] | None = None
        if self.config.rollout == "lean":
            self._target = self._view.make_target()
        else:
            self._task = load_task(self.config.task, **self.config.task_options)

    def bind(self, module: Any) -> None:
        """Make the lean view on the module."""
        self._view = QView(module)

    @property
    def network(self) -> Network:
        """Return the online Q-network."""
        return self._view.online.network

    def update_from_replay(self, drawn: Drawn, *, num_env_steps: int, imitation_weights: ImitationWeights) -> None:
        """Take one gradient step on a batch of transitions.

        Args:
            drawn: The batch.
            num_env_steps: Env steps sampled so far: the place in the learning-rate schedule.
            imitation_weights: λ of the margin term.
        """
        self.follow_schedules(num_env_steps)
        optimiser, workspace = self.optimiser(), self._view.online.workspace(len(drawn.places))
        objective = self._objective(imitation_weights)
        self._last = learn_transitions(self.network, self._target.network, drawn, objective, workspace, optimiser)
        if optimiser.kind == OTHER:
            self._optimizer.step()
        self.num_steps_trained += len(drawn.places)

    def _objective(self, imitation_weights: ImitationWeights) -> QObjective:
        """Return the weights of the loss, made anew where those of imitation have changed."""
        if self._objective_with is None or self._objective_with[0] != imitation_weights:
            config: Any = self.config
            objective = QObjective(
                np.float32(config.gamma),
                config.td_error_loss_fn == "huber",
                bool(config.double_q),
                self._margin(imitation_weights),
            )
            self._objective_with = imitation_weights, objective
        return self._objective_with[1]

    def _margin(self, imitation_weights: ImitationWeights) -> Margin:
        return Margin(
            np.float32(self.config.imitation_temperature),
            np.float32(imitated_until(self.config.advice)),
            np.float32(imitation_weights.better),
            np.float32(imitation_weights.worse),
        )

    def imitate(self, sample: AdviceSample, until: float) -> float:
        """Write the gradient of the mean margin; return the share of steps whose advised action is not the best."""
        q_values = self._view.online(sample.observations)
        by_q, temperature = np.zeros_like(q_values), np.float32(self.config.imitation_temperature)
        add_imitation(q_values, sample.legal, sample.advice, temperature, np.float32(until), by_q)
        self._view.online.backward_comparison(sample.observations, by_q)
        followed = best_actions(q_values, sample.legal if len(sample.legal) else None) == sample.advice.argmax(axis=1)
        return 1.0 - float(followed.mean())

    def statistics(self) -> dict[str, float]:
        """Return the mean TD error and Q of the latest batch."""
        if self._last is None:
            return {}
        taken, targets = self._last
        return {"td_error_mean": float(np.abs(taken - targets).mean()), "qf_mean": float(taken.mean())}

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's path, for its own EnvRunner: its own loss, with masks in the target and the margin on advice."""
        next_legal = self._task.legal_batch(batch[Columns.NEXT_OBS].cpu().numpy())
        if next_legal is not None:
            illegal = ~torch.from_numpy(next_legal)
            for name in (QF_NEXT_PREDS, QF_TARGET_NEXT_PREDS):
                if name in fwd_out:
                    fwd_out[name] = fwd_out[name].masked_fill(illegal.to(fwd_out[name].device), -torch.inf)
        loss: Any = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        if self.imitation_weights.better > 0 and columns.CONSULTED in batch:
            loss = loss + self._margin_on_columns(batch, fwd_out)
        return loss

    def _margin_on_columns(self, batch: dict[str, Any], fwd_out: dict[str, Any]) -> torch.Tensor:
        """Compute the mean margin of a batch in RLlib's form, with one-step targets by its own discount."""
        q_values, following = fwd_out[QF_PREDS], fwd_out[QF_TARGET_NEXT_PREDS].detach()
        chooser = fwd_out[QF_NEXT_PREDS].detach() if self.config.double_q else following
        best = following.gather(-1, chooser.argmax(dim=-1, keepdim=True)).squeeze(-1).nan_to_num(neginf=0.0)
        discount = self.config.gamma ** batch["n_step"] * (1.0 - batch[Columns.TERMINATEDS].float())
        targets = batch[Columns.REWARDS] + discount * best
        actions, consulted = batch[Columns.ACTIONS].long().cpu(), batch[columns.CONSULTED].bool().cpu()
        array = q_values.detach().cpu().numpy()
        by_q = np.zeros_like(array)
        loss = add_margin(
            array,
            batch[columns.LEGAL].bool().cpu().numpy() if columns.LEGAL in batch else NO_MASKS,
            torch.where(consulted, actions, _NOBODY).numpy(),
            targets.float().cpu().numpy(),
            self._margin(self.imitation_weights),
            by_q,
        )
        return as_torch_loss(loss, (q_values, by_q))

    def refresh_target(self, num_env_steps: int) -> None:
        """Move the target network by τ, every ``target_network_update_freq`` env steps."""
        if num_env_steps - self._last_target_update >= self.config.target_network_update_freq:
            self._last_target_update = num_env_steps
            for main, target in self.module[DEFAULT_MODULE_ID].unwrapped().get_target_network_pairs():
                update_target_network(main_net=main, target_net=target, tau=self.config.tau)

    def get_lean_state(self) -> dict[str, Any]:
        """Return when the target network was last refreshed, too."""
        return super().get_lean_state() | {"last_target_update": self._last_target_update}

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_lean_state``."""
        super().set_lean_state(state)
        self._last_target_update = state["last_target_update"]
