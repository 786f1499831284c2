"""RLlib's EnvRunner on arrays: one vector environment, one forward pass and one explorer per vector step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.explorer import Explorer, check_sound
from rllib_plugins.policies import best_values, epsilon_greedy, masked_softmax
from rllib_plugins.rollout.acting import Actor, Episodes, Steps, act, note
from rllib_plugins.rollout.arrays import NO_MASKS, RolloutArrays
from rllib_plugins.rollout.carts import play
from rllib_plugins.rollout.features import legal_actions, own_part, widen, widened
from rllib_plugins.rollout.network import ActorCriticView, QView
from rllib_plugins.row_index import as_rows
from rllib_plugins.seeds import derive_seed
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.tasks.cart_pole_vector import CartPoleVectorEnv
from rllib_plugins.tutors import make_advisor
from rllib_plugins.uses.options import UseOptions, make_use


def explorer_options(config: Any, task: Task, advisor: Advisor | None) -> dict[str, Any]:
    """Return the arguments of a trial's explorer beside the seed.

    Args:
        config: One of this package's algorithm configs, after ``tutoring``.
        task: Its task.
        advisor: The tutor, where it may act.
    """
    return {
        "config": config.advice,
        "num_actions": task.num_actions,
        "theta_steps": config.theta_steps,
        "advisor": advisor,
        "value_based": config.value_based,
        "learning_starts": config.num_steps_sampled_before_learning_starts if config.value_based else 0,
    }


class ArrayEnvRunner(EnvRunner, Checkpointable):
    """Step ``task.make_vec`` into a ``RolloutArrays`` of ``config.rollout_steps`` vector steps.

    It may stop anywhere in a rollout and go on later: evaluation points need not divide rollouts.

    Args:
        config: One of this package's algorithm configs, after ``tutoring``.
        **kwargs: RLlib's own.

    Attributes:
        began_anew: The restored episodes could not be had back, which no array says: it was between two rollouts.
    """

    config: Any
    env: Any

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.task = load_task(self.config.task, **self.config.task_options)
        self.num_envs = int(self.config.num_envs_per_env_runner)
        self.env = self.task.make_vec(self.num_envs, self.seed)
        self.action_space: Discrete[Any] = Discrete(self.task.num_actions)
        self.advisor = make_advisor(self.config.tutor, self.task, deadline_s=self.config.advice.patience_s)
        use = make_use(self.config.advice.named_use, self.config.advice.use_options)
        self._num_shown = self.task.num_actions if use.shows and self.advisor is not None else 0
        self.observation_space: Box = widened(self.task.observation_space, self._num_shown)
        self.core: Explorer = self.make_explorer(
            use, explorer_options(self.config, self.task, self.advisor if use.acts else None)
        )
        self.module: Any = None
        self._view: ActorCriticView | QView
        self.make_module()

        self._observations: NDArray[np.float32] = self._seen(self.env.reset(seed=self.seed)[0])
        legal = legal_actions(self.task, self._observations)
        self.rollout = RolloutArrays.allocate(
            (self.config.rollout_steps, self.num_envs),
            self.observation_space.shape[0],
            self.task.num_actions,
            for_replay=self.config.value_based,
            with_advice=self.config.tutor != "none" and use.acts,
            with_masks=legal is not None,
            with_bonus=self.advisor is not None and use.pools and not self.config.value_based,
        )
        self.cursor = 0
        self._cuts: list[tuple[int, int, NDArray[np.float32]]] = []
        self._episodes = Episodes(np.zeros(self.num_envs), np.zeros(2))
        self._steps = Steps.of(self.rollout)
        self._draws = np.empty((self.config.rollout_steps, self.num_envs))
        self._epsilons, self._epsilons_from = np.zeros(self.config.rollout_steps), -1
        self.began_anew = False

    @property
    def seed(self) -> int:
        """Return the seed of environments and explorer."""
        return self._seed or 0

    @property
    def num_trial_envs(self) -> int:
        """Return the environments that the trial steps at once."""
        return self.num_envs

    def make_explorer(self, use: UseOptions, options: dict[str, Any]) -> Explorer:
        """Build what decides exploring steps, from the arguments beside the seed.

        Args:
            use: Of advice.
            options: ``explorer_options``.
        """
        if self.advisor is None:
            return Explorer(seed=self.seed, **options)
        make = use.explorer_with_stand_in() if self.config.advice.has_stand_in else use.explorer()
        return make(seed=self.seed, **options)

    # RLlib's EnvRunner

    def make_module(self) -> None:
        """Build the RLModule by its spec, until the algorithm hands over the learner's own (``bind``)."""
        spec = self.config.get_rl_module_spec(spaces=self.get_spaces(), inference_only=False)
        self.bind(spec.build())

    def bind(self, module: Any) -> None:
        """Act with this module from now on: sharing the learner's, there are no weights to synchronise."""
        self.module = module
        self._view = QView(module) if self.config.value_based else ActorCriticView(module)

    def get_spaces(self) -> dict[str, Any]:
        """Return the spaces that RLlib builds modules from."""
        single = (self.observation_space, self.action_space)
        batched = tuple(batch_space(space, self.num_envs) for space in single)
        return {INPUT_ENV_SPACES: batched, INPUT_ENV_SINGLE_SPACES: single, DEFAULT_MODULE_ID: single}

    def assert_healthy(self) -> None:
        """Raise AssertionError where construction was not completed."""
        assert self.env is not None and self.module is not None

    def get_metrics(self) -> dict[str, Any]:
        """Return RLlib's reduced metrics since the last call."""
        return self.metrics.reduce()

    def stop(self) -> None:
        """Close the environments."""
        self.env.close()

    # Sampling

    @property
    def complete(self) -> bool:
        """Tell whether the rollout is full."""
        return self.cursor == self.rollout.num_steps

    def sample(self, num_vector_steps: int | None = None, **kwargs: Any) -> tuple[int, int]:
        """Step all environments and write into ``rollout``.

        Args:
            num_vector_steps: At most so many; default: until the rollout is full. A full one is begun anew.
            **kwargs: RLlib's own, not used.

        Returns:
            The vector steps of ``rollout`` that were written, as (start, stop).
        """
        if self.complete:
            self.cursor = 0
        start = self.cursor
        stop = (
            self.rollout.num_steps
            if num_vector_steps is None
            else min(start + num_vector_steps, self.rollout.num_steps)
        )
        if self.core.acts_alone:
            self._play(start, stop)
        else:
            for t in range(start, stop):
                self._step_advised(t)
        if self.complete:
            self._bootstrap()
        return start, stop

    def return_mean(self) -> float:
        """Return the mean return of the episodes that ended since the last call; NaN where none did."""
        total, count = self.take_finished()
        return total / count if count else float("nan")

    def take_finished(self) -> tuple[float, int]:
        """Return the sum of the returns of the episodes that ended since the last call, and their number."""
        total, count = self._episodes.finished.tolist()
        self._episodes.finished[:] = 0.0
        return total, int(count)

    def _play(self, start: int, stop: int) -> None:
        """Make vector steps in which the student acts by itself."""
        self.core.draw_alone(self._draws[start:stop])
        actor = self._actor(start)
        if isinstance(self.env, CartPoleVectorEnv):
            self._play_carts(actor, start, stop)
            return
        for t in range(start, stop):
            observations = self._observations
            legal = self.task.legal_batch(observations)
            masks = NO_MASKS if legal is None else np.ascontiguousarray(legal)
            check_sound(act(actor, self._steps, t, observations, masks))
            self._step_environments(t)

    def _play_carts(self, actor: Actor, start: int, stop: int) -> None:
        t = start
        while t < stop:
            before, carts = t, self.env.carts
            t, is_cut, is_used_up, is_sound = play(actor, self._steps, t, stop, carts, self._episodes)
            check_sound(is_sound)
            if is_cut:
                self._note_cuts(t - 1, carts.finals)
            if is_used_up:
                self.env.refill()
            self._observations = carts.observations
            self._note_progress(t, t - before)

    def _actor(self, start: int) -> Actor:
        """Return what the student acts by from vector step ``start`` on."""
        if self.config.value_based:
            first = self.num_env_steps_sampled_lifetime - start * self.num_trial_envs
            if first != self._epsilons_from:
                taken = first + self.num_trial_envs * np.arange(self.rollout.num_steps)
                self._epsilons, self._epsilons_from = self.config.epsilon_at(taken), first
        view = self._view.online if isinstance(self._view, QView) else self._view
        return Actor(view.network, view.workspace(self.num_envs), self.config.value_based, self._draws, self._epsilons)

    def _step_advised(self, t: int) -> None:
        """Make a vector step in which advice may have a part in acting."""
        observations = self._observations
        own = own_part(self.task, observations)
        legal = self.task.legal_batch(own)
        if self._num_shown:
            observations[:, -self._num_shown :] = self.core.show(own, legal, self.num_env_steps_sampled_lifetime)
        if self.config.value_based:
            self._value_step(t, observations, legal)
        else:
            self._policy_step(t, observations, legal)
        self.rollout.observations[t] = observations
        if self.rollout.legal is not None:
            self.rollout.legal[t] = legal
        rewards = self._step_environments(t)
        self.core.note_step(rewards, self.rollout.terminated[t] | self.rollout.truncated[t])

    def _policy_step(self, t: int, observations: NDArray[np.float32], legal: NDArray[np.bool_] | None) -> None:
        assert isinstance(self._view, ActorCriticView)
        logits, values = self._view.act(observations)
        step = self.num_env_steps_sampled_lifetime
        if self.rollout.bonus is not None:
            bonus = self.core.bonus(observations, legal, step)
            self.rollout.bonus[t] = 0.0 if bonus is None else bonus
            logits = logits + self.rollout.bonus[t]
        self.rollout.logits[t], self.rollout.values[t] = logits, values
        policy = masked_softmax(logits, legal)
        self.core.act_into(self.rollout, t, observations, policy, legal=legal, step=step)

    def _value_step(self, t: int, observations: NDArray[np.float32], legal: NDArray[np.bool_] | None) -> None:
        q_values = self._view.scores(observations)
        self.rollout.logits[t], self.rollout.values[t] = q_values, best_values(q_values, legal)
        step = self.num_env_steps_sampled_lifetime
        bonus = self.core.bonus(observations, legal, step)
        if bonus is not None:
            q_values = q_values + np.float32(self.config.imitation_temperature) * bonus
        # The schedule counts the steps that the student took itself: a tutor must not use up its exploration.
        policy = epsilon_greedy(q_values, legal, self.config.epsilon_at(step - self.core.num_tutor_steps))
        masked = q_values if legal is None else np.where(legal, q_values, -np.inf)
        self.core.act_into(
            self.rollout,
            t,
            observations,
            policy,
            legal=legal,
            q_values=masked.astype(np.float64),
            step=step,
        )

    def _step_environments(self, t: int) -> NDArray[np.float64]:
        """Take the actions of vector step ``t``, write what they led to, and return the rewards."""
        rollout = self.rollout
        following, rewards, terminated, truncated, infos = self.env.step(rollout.actions[t])
        rollout.terminated[t], rollout.truncated[t] = terminated, truncated
        self._observations = self._seen(following)
        final = self._seen(infos["final_obs"]) if (terminated | truncated).any() else self._observations
        paid = np.ascontiguousarray(rewards, np.float64)
        if note(self._steps, t, self._observations, final, paid, self._episodes):
            self._note_cuts(t, final)
        self._note_progress(t + 1, 1)
        return paid

    def _note_progress(self, cursor: int, num_new: int) -> None:
        self.num_env_steps_sampled_lifetime += num_new * self.num_trial_envs
        self.cursor = cursor

    def _note_cuts(self, t: int, final: NDArray[np.float32]) -> None:
        """Keep the last observations of the episodes that were cut off in vector step ``t``."""
        for i in np.flatnonzero(self.rollout.truncated[t] & ~self.rollout.terminated[t]).tolist():
            self._cuts.append((t, i, final[i].copy()))

    def _bootstrap(self) -> None:
        """Compute V of what followed each step: of the next observation, or of the last one of a truncated episode."""
        rollout = self.rollout
        rollout.next_values[:-1] = rollout.values[1:]
        rollout.next_values[-1] = self._values(self._observations)
        if self._cuts:
            steps, envs, finals = zip(*self._cuts, strict=True)
            rollout.next_values[list(steps), list(envs)] = self._values(np.stack(finals))
            self._cuts = []

    def _values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._view.values(observations, legal_actions(self.task, observations))

    def _seen(self, observations: Any) -> NDArray[np.float32]:
        """Return observations of the environments as the student sees them, nothing shown yet."""
        return widen(as_rows(observations), self.observation_space.shape[0])

    # Checkpoints

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return everything that the next steps depend on, the environments included."""
        state: dict[str, Any] = {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime,
            "core": self.core.get_state(),
            "env": self.task.save_vec(self.env),
            "observations": self._observations.copy(),
            "running_returns": self._episodes.running.copy(),
            "finished": self._episodes.finished.copy(),
            "cursor": self.cursor,
            "cuts": list(self._cuts),
            "rollout": self.rollout.get_state(),
        }
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(**kwargs)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``, or a part of one."""
        if COMPONENT_RL_MODULE in state:
            module_state = state[COMPONENT_RL_MODULE]
            self.module.set_state(module_state.get(DEFAULT_MODULE_ID, module_state))
        if "env" not in state:
            return
        self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]
        self.core.set_state(state["core"])
        self._observations = state["observations"].copy()
        self._episodes.running[:] = state["running_returns"]
        self._episodes.finished[:] = state["finished"]
        self.cursor, self._cuts = state["cursor"], list(state["cuts"])
        self.rollout.set_state(state["rollout"])
        self._steps = Steps.of(self.rollout)
        is_restored = self.task.restore_vec(self.env, state["env"])
        self.began_anew = not is_restored and self._begin_anew()

    def _begin_anew(self) -> bool:
        """Start fresh episodes in place of those that cannot be had back; return whether that is between rollouts.

        Within a rollout they are cut, as a time limit would.
        """
        step = self.cursor - 1
        is_within = 0 <= step < self.rollout.num_steps - 1
        if is_within:
            for i in np.flatnonzero(~(self.rollout.terminated[step] | self.rollout.truncated[step])).tolist():
                self.rollout.truncated[step, i] = True
                self._cuts.append((step, i, np.array(self._observations[i], np.float32)))
        seed = derive_seed(self.seed, self.num_env_steps_sampled_lifetime)
        self._observations = self._seen(self.env.reset(seed=seed)[0])
        self._episodes.running[:] = 0.0
        self.core.begin_episodes()
        return not is_within

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[()], dict[str, Any]]:
        """Return how RLlib builds this again."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the module; it is the learner's own."""
        return [(COMPONENT_RL_MODULE, self.module)]
