"""Define what a task is: one environment and the words a tutor needs to advise in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy, deepcopy
from functools import cached_property
from typing import Any, Self, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.tasks.flat import FlatEnv, FlatVectorEnv, NativeVectorEnv, TurnsVectorEnv, View, close, unflatten
from rllib_plugins.tasks.gymnasium_check import failure, one_line
from rllib_plugins.tasks.masks import MaskSource
from rllib_plugins.tasks.probe import Probe, probe
from rllib_plugins.tasks.resuming import why_not_resumable
from tutor_service.errors import UserError
from tutor_service.prompts.layout import with_hint

logger = logging.getLogger(__name__)

_MOST_SEEN = 100_000
"""Observations that a task without ``unflatten`` remembers."""

Policy: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]
"""From flat observations ``(n, obs_dim)`` to action probabilities ``(n, num_actions)``."""


class Task:
    """One environment, in words. Subclass it, set the class fields and write ``describe``.

    Example:
        >>> class Lake(Task):
        ...     name = "lake"
        ...     env_id = "FrozenLake-v1"
        ...     rules = "You walk over a frozen lake of 4 by 4 cells; cell 15 pays 1, holes end the walk."
        ...     actions = ("left", "down", "right", "up")
        ...
        ...     def describe(self, observation):
        ...         return f"You are on cell {observation}."
        >>> task = Lake()
        >>> observations, _ = task.make_vec(2, seed=0).reset()
        >>> observations.shape, task.describe(task.raw_observation(observations[0]))
        ((2, 16), 'You are on cell 0.')

    Attributes:
        name: Short name, e.g. ``blackjack``.
        env_id: Registered Gymnasium id.
        env_kwargs: Keyword arguments for ``gymnasium.make``.
        rules: The rules, in words: the fixed prefix of every prompt.
        hint: One sentence of the author's for the tutor: how to play well. A tutor or sweep may leave it out.
        actions: One label per action of the Discrete action space, in the space's order; distinct.
        synonyms: Other words for labels, best first, for tutors whose tokenizers have one token for them and not for
            the label: ``{"straight": ("forward",)}``.
        num_env_steps: Env steps that a sweep trains for by default.
        num_states: Distinct states in which advice can be asked for, and so the most LLM evaluations that a tutor can
            cost; None: not known.
        episode_steps: Env steps of a good player's episode, by which evaluations are planned; None: measured.
        oracle_is_best: Whether no player is known to do clearly better than the oracle: then students follow a tutor
            that comes near it to the end. False: up to that tutor's level.
    """

    name: str
    env_id: str
    env_kwargs: dict[str, Any] = {}  # noqa: RUF012 - never changed in place
    rules: str
    hint: str | None = None
    actions: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]] = {}
    num_env_steps: int = 40_000
    num_states: int | None = None
    episode_steps: int | None = None
    oracle_is_best: bool = False

    def __init__(self, **options: Any) -> None:
        """Take the options of the task: by default they go to the environment, over ``env_kwargs``."""
        self.env_kwargs = {**type(self).env_kwargs, **options}

    def with_hint(self, wanted: bool) -> Self:
        """Return the task with its author's hint behind the rules, as a tutor whose file says ``hint`` reads them."""
        if not wanted or not self.hint:
            return self
        hinted = copy(self)
        hinted._seen, hinted._spare, hinted._spare_vectors = self._seen, self._spare, self._spare_vectors
        hinted.rules = with_hint(self.rules, self.hint)
        return hinted

    def synonyms_of(self, labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Return other words for each label, as a question takes them; empty where there are none at all."""
        return tuple(self.synonyms.get(label, ()) for label in labels) if self.synonyms else ()

    # What an author writes.

    def describe(self, observation: Any) -> str:
        """Return the observation in words: no more than the student sees, in under 60 tokens."""
        raise NotImplementedError(f"task {type(self).__name__} has no describe(observation)")

    def legal(self, observation: Any) -> NDArray[np.bool_]:
        """Return the mask of legal actions, shape ``(num_actions,)``.

        Not needed where the environment itself says which actions are legal, e.g. in ``info["action_mask"]``.
        """
        return np.ones(self.num_actions, dtype=bool)

    def oracle(self, observation: Any) -> NDArray[np.float64] | None:
        """Return a very good player's action probabilities, shape ``(num_actions,)``, or None where there is none."""
        return None

    def action_values(self, observation: Any) -> NDArray[np.float64] | None:
        """Return the expected return of each action under best play after it, ``(num_actions,)``, or None.

        Illegal actions are NaN. Used for the regret of advice.
        """
        return None

    def situation(self, observation: Any) -> str:
        """Return a short name for the kind of state, by which a report card groups agreement."""
        return "all states"

    def trivial_players(self) -> Mapping[str, Policy]:
        """Return the trivial players by name, over flat observations: what a student must beat to have learnt anything.

        By default one per action, which always takes it where it is legal. Extend them by a one-line heuristic:
        ``return {**super().trivial_players(), "to the food": self.to_the_food}``.
        """
        return self.constant_players()

    def constant_players(self) -> dict[str, Policy]:
        """Return one player per action by name, which takes it wherever it is legal."""
        return {f"always '{label}'": self.constant_policy(action) for action, label in enumerate(self.actions)}

    # How the student sees the environment. The defaults fit any observation space that Gymnasium can flatten.

    def encode(self, observation: Any) -> NDArray[np.float32]:
        """Return the flat vector that the student sees, ``(obs_dim,)``; to be written where Gymnasium has none."""
        space = self.raw_observation_space
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            return np.array(observation, dtype=np.float32)
        return np.asarray(spaces.flatten(space, observation), dtype=np.float32)

    def unflatten(self, flat: NDArray[np.float32]) -> Any:
        """Return the environment's own observation from ``encode``'s vector.

        A task that writes ``encode`` may leave this out: observations are then remembered by their vectors.
        """
        if self._remembers:
            observation = self._seen.get(np.asarray(flat, dtype=np.float32).tobytes())
            if observation is None:
                raise UserError(
                    f"task '{self.name}' writes encode without unflatten, and no observation with the vector "
                    f"{one_line(flat)} was seen lately: write unflatten(flat) too."
                )
            return observation
        return unflatten(self.raw_observation_space, flat)

    def flat_space(self) -> spaces.Box:
        """Return the space of ``encode``'s vectors."""
        if type(self).encode is not Task.encode:
            vector = self._encode(self.probe.observation)
            if vector.ndim != 1:
                raise UserError(
                    f"task '{self.name}', observation {one_line(self.probe.observation)}: encode returned an array of "
                    f"shape {vector.shape}: return a float32 vector of always the same length."
                )
            return spaces.Box(-np.inf, np.inf, vector.shape, dtype=np.float32)
        with suppress(Exception):  # whatever Gymnasium raises on a space that it does not know
            flat = spaces.flatten_space(self.raw_observation_space)
            if isinstance(flat, spaces.Box):
                low, high = np.asarray(flat.low, dtype=np.float32), np.asarray(flat.high, dtype=np.float32)
                return spaces.Box(low.reshape(-1), high.reshape(-1), dtype=np.float32)
        raise UserError(
            f"task '{self.name}': Gymnasium cannot flatten the observation space {one_line(self.raw_observation_space)}"
            ". Override encode(observation): return a float32 vector of always the same length."
        )

    @cached_property
    def view(self) -> View:
        """How the student sees the environment."""
        flat = self.flat_space()
        if self.mask_source is None:
            return View(self.name, self._encode, flat, None)
        low, high = np.zeros(self.num_actions, np.float32), np.ones(self.num_actions, np.float32)
        space = spaces.Box(np.append(flat.low, low), np.append(flat.high, high), dtype=np.float32)
        return View(self.name, self._encode, space, self.mask_source)

    @property
    def observation_space(self) -> spaces.Box:
        """Space of the student's flat float32 observations, shape ``(obs_dim,)``."""
        return self.view.observation_space

    @property
    def mask_source(self) -> MaskSource | None:
        """Where the environment shows its legal actions, unless the author writes ``legal``; None: nowhere."""
        is_written = type(self).legal is not Task.legal or type(self).legal_batch is not Task.legal_batch
        return None if is_written else self.probe.mask

    def raw_observation(self, flat: NDArray[np.float32]) -> Any:
        """Return the environment's own observation from a student's vector ``(obs_dim,)``.

        Raises:
            UserError: The vector holds NaN or infinity.
        """
        if not np.isfinite(flat).all():
            raise UserError(f"observation {one_line(flat)} of task '{self.name}' holds NaN or infinity.")
        return self.unflatten(flat if self.mask_source is None else flat[: -self.num_actions])

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return len(self.actions)

    @property
    def raw_observation_space(self) -> spaces.Space[Any]:
        """The environment's own observation space."""
        return self.probe.observation_space

    @property
    def raw_action_space(self) -> spaces.Space[Any]:
        """The environment's own action space."""
        return self.probe.action_space

    @cached_property
    def probe(self) -> Probe:
        """What an environment of this task shows; it is refused here where it does not speak Gymnasium's API."""
        env = self.make_raw()
        self._spare.append(env)
        return probe(env, f"task '{self.name}', environment '{self.env_id}'")

    @property
    def _remembers(self) -> bool:
        """Whether ``encode`` is written without its inverse."""
        return type(self).encode is not Task.encode and type(self).unflatten is Task.unflatten

    def _encode(self, observation: Any) -> NDArray[np.float32]:
        try:
            with np.errstate(over="ignore"):  # infinity is refused where it is seen
                flat = np.asarray(self.encode(observation), dtype=np.float32)
        except Exception as error:
            where = f"task '{self.name}', observation {one_line(observation)}"
            wanted = f" It should be of the observation space {one_line(self.raw_observation_space, 120)}."
            said = f"encode fails with {failure(error)}. Override encode."
            raise UserError(f"{where}: {said}{wanted if type(self).encode is Task.encode else ''}") from error
        if self._remembers:
            key = flat.tobytes()
            self._seen[key] = self._seen.pop(key) if key in self._seen else deepcopy(observation)
            if len(self._seen) > _MOST_SEEN:
                del self._seen[next(iter(self._seen))]
        return flat

    # Environments.

    def make_raw(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Make the registered environment itself, with its own observations.

        Raises:
            UserError: Gymnasium refuses the id or the arguments, or the constructor fails.
        """
        arguments = self.env_kwargs if render_mode is None else {**self.env_kwargs, "render_mode": render_mode}
        try:
            return gym.make(self.env_id, disable_env_checker=True, **arguments)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            message = one_line(error) if isinstance(error, gym.error.Error | TypeError) else failure(error)
            raise UserError(
                f"task '{self.name}': environment '{self.env_id}' with {self.env_kwargs}: {message}"
            ) from error

    def make(self, render_mode: str | None = None, stream: int | None = None) -> FlatEnv:
        """Make one environment with flat observations ``(obs_dim,)`` and actions ``0 … num_actions − 1``.

        Args:
            render_mode: Gymnasium's.
            stream: See ``FlatEnv``.
        """
        raw = self.make_raw() if render_mode is None else self.make_raw(render_mode)  # many a task's own takes nothing
        return FlatEnv(raw, self.view, stream)

    def make_vec(self, num_envs: int, seed: int) -> FlatVectorEnv:
        """Make a vector environment with flat float32 observations ``(num_envs, obs_dim)`` and SAME_STEP autoreset.

        Args:
            num_envs: Environments stepped as one vector.
            seed: Seed of the first ``reset``, unless that one names its own.
        """
        if num_envs < 1:
            raise UserError(f"num_envs = {num_envs}: must be at least 1.")
        native = self.make_native_vec(num_envs)
        if native is not None:
            return NativeVectorEnv(native, self.encode_batch, self.view, seed)
        return TurnsVectorEnv([self.make() for _ in range(num_envs)], seed)

    @contextmanager
    def borrow_vec(self, num_envs: int, seed: int) -> Iterator[FlatVectorEnv]:
        """Lend a vector of environments that are kept for the next borrower; reset it first.

        Evaluations, checks and references use it, so that an environment that is costly to make is made once.
        """
        if self.is_native:
            envs = self._spare_vectors.pop(num_envs, None) or self.make_vec(num_envs, seed)
            try:
                yield envs
            finally:
                self._spare_vectors[num_envs] = envs
            return
        view, taken = self.view, self._spare[:num_envs]
        del self._spare[:num_envs]
        try:
            taken += [self.make_raw() for _ in range(num_envs - len(taken))]
            lent = TurnsVectorEnv([FlatEnv(env, view) for env in taken], seed)
            try:
                yield lent
            finally:
                taken = lent.give_back()
        finally:
            self._spare += taken

    @property
    def has_oracle(self) -> bool:
        """Whether the task comes with a very good player."""
        return type(self).oracle is not Task.oracle or type(self).oracle_batch is not Task.oracle_batch

    @property
    def is_exact(self) -> bool:
        """Whether policies are evaluated exactly, without playing."""
        return type(self).exact_return is not Task.exact_return

    @property
    def is_native(self) -> bool:
        """Whether the vector environment is written as array code."""
        return type(self).make_native_vec is not Task.make_native_vec

    @cached_property
    def _spare(self) -> list[gym.Env[Any, Any]]:
        return []

    @cached_property
    def _spare_vectors(self) -> dict[int, FlatVectorEnv]:
        return {}

    @cached_property
    def _seen(self) -> dict[bytes, Any]:
        return {}

    def close(self) -> None:
        """Close the environments that were kept for the next borrower."""
        while self._spare:
            close(self._spare.pop())
        while self._spare_vectors:
            self._spare_vectors.popitem()[1].close()

    def save_vec(self, envs: FlatVectorEnv) -> bytes | None:
        """Return a vector in the middle of its episodes, for a checkpoint; None where it cannot be restored."""
        if self.why_not_resumable is not None:
            return None
        try:
            return envs.save()
        except Exception as error:
            logger.warning("task '%s': a checkpoint goes without its environments (%s)", self.name, failure(error))
            return None

    def restore_vec(self, envs: FlatVectorEnv, state: bytes | None) -> bool:
        """Put what ``save_vec`` returned in the place of a vector's environments; False where it cannot be restored."""
        if state is None:
            return False
        try:
            envs.restore(state)
        except Exception as error:
            logger.warning("task '%s': its environments cannot be had back (%s)", self.name, failure(error))
            return False
        return True

    @cached_property
    def why_not_resumable(self) -> str | None:
        """Why a restored trial begins fresh episodes; None where it goes on in the middle of the old ones."""
        with self.borrow_vec(1, seed=0) as envs:
            if not isinstance(envs, TurnsVectorEnv):
                return None
            why = why_not_resumable(envs.envs[0], self.legal_batch)
        if why is not None:
            logger.warning("task '%s': a restored trial begins fresh episodes: %s.", self.name, why)
        return why

    def make_native_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any] | None:
        """Make a vector environment written as array code, with its own observations; None: one after the other.

        It must reset in the same step and give ``infos["final_obs"]`` as a batch like its observations.
        """
        return None

    def encode_batch(self, observations: Any) -> NDArray[np.float32]:
        """Return the native vector's observations as ``(num_envs, obs_dim)``; needed only beside one."""
        raise NotImplementedError(f"task '{self.name}': make_native_vec needs encode_batch")

    # Batches over flat observations; a task overrides them for speed.

    def legal_batch(self, observations: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Return masks for flat observations ``(n, obs_dim)`` as ``(n, num_actions)``; None: all are always legal."""
        if self.mask_source is not None:
            return observations[:, -self.num_actions :] > 0.5
        if type(self).legal is Task.legal:
            return None
        masks = [self.legal(self.raw_observation(row)) for row in observations]
        return np.array(masks, dtype=bool) if masks else np.ones((0, self.num_actions), dtype=bool)

    def oracle_batch(self, observations: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Return the oracle's probabilities for flat observations ``(n, obs_dim)``; None where there is no oracle."""
        if type(self).oracle is Task.oracle:
            return None
        rows = [self.oracle(self.raw_observation(row)) for row in observations]
        return np.array(rows, dtype=np.float64).reshape(len(observations), self.num_actions)

    # Reference figures.

    def exact_return(self, policy: Policy) -> tuple[float, float] | None:
        """Return the exact mean and standard deviation of a policy's episode return, or None where it is not known.

        Args:
            policy: Function from flat observations ``(n, obs_dim)`` to action probabilities ``(n, num_actions)``.
        """
        return None

    @property
    def known_random_return(self) -> float | None:
        """Mean return of uniformly random play where it is known without playing."""
        return None

    def uniform_policy(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return uniform probabilities over the legal actions, ``(n, num_actions)``."""
        legal = self.legal_batch(observations)
        if legal is None:
            return np.full((len(observations), self.num_actions), 1.0 / self.num_actions)
        return legal / legal.sum(axis=1, keepdims=True)

    def constant_policy(self, action: int) -> Policy:
        """Return the policy that always takes one action; where that is illegal, a random legal one."""

        def policy(observations: NDArray[np.float32]) -> NDArray[np.float64]:
            return np.tile(np.eye(self.num_actions)[action], (len(observations), 1))

        return policy
