"""DQN's training step: a fragment into the replay buffer, then learner updates on batches of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.algorithms.dqn.dqn import DQN as RLlibDQN
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights

from rllib_plugins.advising.decision import ImitationWeights
from rllib_plugins.advising.trust import value_advantages
from rllib_plugins.algorithms.dqn.config import DQNConfig
from rllib_plugins.algorithms.lean import LeanTraining
from rllib_plugins.rollout.replay import ArrayReplayBuffer


class DQN(LeanTraining, RLlibDQN):
    """DQN that can be tutored."""

    learner: Any

    @classmethod
    def get_default_config(cls) -> DQNConfig:
        """The config of this package."""
        return DQNConfig()

    def setup(self, config: Any) -> None:
        """Builds what RLlib builds, and the array replay buffer."""
        super().setup(config)
        if self.is_lean:
            self._fragments_per_update, self._updates_per_fragment = calculate_rr_weights(self.config)
            self._num_fragments = 0
            self.replay = ArrayReplayBuffer(
                self.config.replay_buffer_config["capacity"],
                self.runner.observation_space.shape[0],
                seed=self.config.seed or 0,
            )

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> Any:
        return None if config.rollout == "lean" else super()._create_local_replay_buffer_if_necessary(config)

    @property
    def fragment_steps(self) -> int:
        """Vector steps between updates."""
        return int(self.config.get_rollout_fragment_length())

    def after_sampling(self, start: int, stop: int) -> None:
        """Remembers the new steps, learns at the end of a fragment, feeds earned trust at the end of a rollout."""
        runner = self.runner
        self.replay.add(runner.rollout, start, stop)
        self.advice_replay.add(runner.rollout, runner.core.num_consultations, start, stop)
        if runner.cursor % self.fragment_steps == 0:
            self._num_fragments += 1
            step = runner.num_env_steps_sampled_lifetime
            weights = runner.core.imitation(step)
            if (
                step >= self.config.num_steps_sampled_before_learning_starts
                and self._num_fragments % self._fragments_per_update == 0
            ):
                self._update(step, weights)
            self.advice_replay.learn(self.learner, weights.replay)
        if runner.complete:
            self._feed_trust()

    def _update(self, step: int, imitation_weights: ImitationWeights) -> None:
        for _ in range(int(self._updates_per_fragment)):
            batch = self.replay.sample(self.config.total_train_batch_size)
            self.learner.update_from_replay(
                batch,
                legal=self.runner.task.legal_batch(batch.observations),
                next_legal=self.runner.task.legal_batch(batch.next_observations),
                num_env_steps=step,
                imitation_weights=imitation_weights,
            )
        self.learner.refresh_target(step)

    def _feed_trust(self) -> None:
        """λ-returns over the rollout on top of max Q: what the advised and the own actions were worth."""
        if self.config.tutor == "none":
            return
        rollout = self.runner.rollout
        advantages = value_advantages(
            rollout.rewards.astype(np.float64),
            rollout.values.astype(np.float64),
            rollout.next_values.astype(np.float64),
            rollout.terminated,
            rollout.terminated | rollout.truncated,
            gamma=self.config.gamma,
        )
        self.runner.core.observe(advantages, rollout.heads, rollout.eligible)

    def get_lean_state(self) -> dict[str, Any]:
        """The learner's own state and the replay buffer."""
        return super().get_lean_state() | {"replay": self.replay.get_state(), "num_fragments": self._num_fragments}

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Takes a ``get_lean_state``."""
        super().set_lean_state(state)
        self.replay.set_state(state["replay"])
        self._num_fragments = state["num_fragments"]
