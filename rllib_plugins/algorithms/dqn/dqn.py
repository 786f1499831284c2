"""DQN's config and training step: a fragment into the replay buffer, then learner updates on batches of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.dqn.dqn import DQN as RLlibDQN
from ray.rllib.algorithms.dqn.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.dqn.learner import DQNLearner
from rllib_plugins.algorithms.lean import LeanTraining
from rllib_plugins.algorithms.tutoring import TutoredConfig
from rllib_plugins.rollout.features import legal_actions
from rllib_plugins.rollout.gae import generalised_advantages
from rllib_plugins.rollout.replay import ArrayReplayBuffer, Drawn
from tutor_service.errors import UserError

COMPARISON_STEPS = 16
"""Vector steps over which advantages are estimated to compare advised actions with the student's own."""
COMPARISON_LAMBDA = 0.8
"""λ of these advantages."""


class DQNConfig(TutoredConfig, RLlibDQNConfig):
    """Configure DQN; every field means what it means in RLlib. README.md lists the defaults that differ.

    Attributes:
        imitation_temperature: T of the soft margin on advised actions, in units of Q: the student follows advice where
            softmax(Q/T) does. Typical: 0.1 to 0.3 for returns of around 1.
    """

    value_based = True

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or DQN)
        self._set_tutoring_defaults()
        self.imitation_temperature = 0.2
        self.training(
            lr=1e-3,
            gamma=0.99,
            train_batch_size_per_learner=64,
            num_steps_sampled_before_learning_starts=500,
            target_network_update_freq=500,
            epsilon=[(0, 1.0), (4_000, 0.05)],  # each built-in task has its own, in hyperparameters.py
            double_q=True,
            dueling=False,
            grad_clip=10,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 50_000},
        )
        self.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        self.reporting(min_sample_timesteps_per_iteration=0)
        self.learners(num_learners=0)
        self.rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu", head_fcnet_hiddens=[])
        )

    @property
    def rollout_steps(self) -> int:
        """Return the vector steps of a rollout: whole fragments, and enough to estimate advantages over."""
        fragment = int(self.get_rollout_fragment_length())
        return -(-COMPARISON_STEPS // fragment) * fragment

    def more_updates(self, factor: float) -> None:
        """Replay more batches per sampled step."""
        sampled = int(self.get_rollout_fragment_length()) * int(self.num_envs_per_env_runner)
        usual = self.training_intensity or self.total_train_batch_size / sampled
        self.training_intensity = usual * factor

    def learns_at(self, num_env_steps: int) -> bool:
        """Return whether enough steps are sampled to learn from."""
        return num_env_steps >= int(self.num_steps_sampled_before_learning_starts)

    def epsilon_at(self, num_own_steps: int | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ε after so many steps of the student's own, by RLlib's piecewise linear schedule; the same shape."""
        if isinstance(self.epsilon, (int, float)):
            return np.full(np.shape(num_own_steps), float(self.epsilon))
        steps, values = zip(*self.epsilon, strict=True)
        return np.asarray(np.interp(num_own_steps, steps, values))

    def validate(self) -> None:
        """Run RLlib's checks and tutoring's.

        Raises:
            UserError: A variant that the lean learner does not have, or a temperature that is not above 0.
        """
        super().validate()
        self._validate_tutoring()
        if not self.imitation_temperature > 0:
            raise UserError(f"imitation_temperature={self.imitation_temperature!r}: it must be above 0, e.g. 0.2")
        if self.rollout == "lean" and not self.in_evaluation:
            for name, value, only in (
                ("n_step", self.n_step, 1),
                ("num_atoms", self.num_atoms, 1),
                ("noisy", self.noisy, False),
                ("replay_buffer_config.type", self.replay_buffer_config.get("type"), "EpisodeReplayBuffer"),
            ):
                if value != only:
                    raise UserError(f"{name}={value!r}: the lean DQN has only {only!r}; choose it, or rollout: stock")

    def get_default_learner_class(self) -> Any:
        """Return the learner of this package."""
        return DQNLearner


class DQN(LeanTraining, RLlibDQN):
    """Train a DQN student, tutored or not."""

    learner: Any

    @classmethod
    def get_default_config(cls) -> DQNConfig:
        """Return the config of this package."""
        return DQNConfig()

    def setup(self, config: Any) -> None:
        """Build what RLlib builds, and the array replay buffer."""
        super().setup(config)
        if self.is_lean:
            self._fragments_per_update, self._updates_per_fragment = calculate_rr_weights(self._as_in_one_process())
            self._num_fragments = 0
            has_masks = self.runner.rollout.legal is not None
            self._completes = has_masks or self.advice.sets_targets or self.advice.adds_rewards
            self._fragment_steps = int(self.config.get_rollout_fragment_length())
            self.replay = ArrayReplayBuffer(
                self.config.replay_buffer_config["capacity"],
                self.runner.observation_space.shape[0],
                seed=self.config.seed or 0,
            )

    def _as_in_one_process(self) -> Any:
        """Return the config with all environments in one EnvRunner, since updates follow from them alone."""
        config = self.config.copy(copy_frozen=False)
        return config.env_runners(num_env_runners=0, num_envs_per_env_runner=self.config.num_trial_envs)

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> Any:
        return None if config.rollout == "lean" else super()._create_local_replay_buffer_if_necessary(config)

    @property
    def fragment_steps(self) -> int:
        """Return the vector steps between updates."""
        return self._fragment_steps

    def after_sampling(self, start: int, stop: int) -> None:
        """Remember the new steps, learn at the end of a fragment, compare advice at the end of a rollout."""
        runner = self.runner
        self.replay.add(runner.rollout, start, stop)
        self.advice.remember(start, stop)
        if runner.cursor % self._fragment_steps == 0:
            self._num_fragments += 1
            step = runner.num_env_steps_sampled_lifetime
            weights = self.advice.weights(step)
            is_due = self.config.learns_at(step) and self._num_fragments % self._fragments_per_update == 0
            if is_due and self.advice.learns_from_reward:
                self._update(step, weights)
            self.advice.imitate(self.learner, step, weights)
        if runner.complete and self.config.tutor != "none" and self.advice.learns_from_reward:
            self.advice.compare(generalised_advantages(runner.rollout, self.config.gamma, COMPARISON_LAMBDA))

    def _update(self, step: int, imitation_weights: ImitationWeights) -> None:
        for _ in range(int(self._updates_per_fragment)):
            drawn = self.replay.draw(self.config.total_train_batch_size)
            if self._completes:
                drawn = self._completed(drawn, step)
            self.learner.update_from_replay(drawn, num_env_steps=step, imitation_weights=imitation_weights)
        self.learner.refresh_target(step)

    def _completed(self, drawn: Drawn, step: int) -> Drawn:
        """Add to a batch what is not kept with its transitions: masks, and what advice has to say of them."""
        kept, places = drawn.kept, drawn.places
        observations = kept.observations[places]
        legal = legal_actions(self.task, observations)
        if legal is not None:
            next_legal = legal_actions(self.task, kept.next_observations[places])
            assert next_legal is not None
            drawn = drawn._replace(legal=legal, next_legal=next_legal)
        if self.advice.sets_targets:
            drawn = drawn._replace(imitation=self.advice.targets(observations, step))
        if self.advice.adds_rewards:
            drawn = drawn._replace(rewards=self.advice.rewards(observations, kept.actions[places], step))
        return drawn

    def get_lean_state(self) -> dict[str, Any]:
        """Return the learner's own state and the replay buffer."""
        return super().get_lean_state() | {"replay": self.replay.get_state(), "num_fragments": self._num_fragments}

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_lean_state``."""
        super().set_lean_state(state)
        self.replay.set_state(state["replay"])
        self._num_fragments = state["num_fragments"]
