"""Environments as students see them: flat float32 observations, actions from 0, SAME_STEP autoreset."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import CloudpickleWrapper, batch_space
from numpy.typing import NDArray

from rllib_plugins.seeds import ENVIRONMENTS, derive_seed, spawn_seeds
from rllib_plugins.tasks.gymnasium_check import failure, one_line, read_flag, read_reward
from rllib_plugins.tasks.masks import MaskSource, not_a_mask, read_mask
from tutor_service.errors import UserError

logger = logging.getLogger(__name__)

Infos = dict[str, Any]

_ILLEGAL = re.compile("(illegal|invalid|not legal|not valid|not allowed|forbidden).*(action|move)", re.IGNORECASE)
_ABOUT_MASKS = (
    ". If not every action is always legal, write legal(observation), or show the mask in info['action_mask']."
)


class View(NamedTuple):
    """How a student sees an environment.

    Attributes:
        task: The task's name, for errors.
        encode: From the environment's own observation to a flat vector.
        observation_space: Space of the flat vectors, the mask included.
        mask: Where the environment shows which actions are legal; the flags stand at the end of the flat vector.
    """

    task: str
    encode: Callable[[Any], NDArray[np.float32]]
    observation_space: spaces.Box
    mask: MaskSource | None


class FlatEnv(gym.Wrapper[NDArray[np.float32], int, Any, Any]):
    """One environment with encoded observations and actions ``0 … num_actions − 1``; its infos are dropped."""

    def __init__(self, env: gym.Env[Any, Any], view: View, stream: int | None = None) -> None:
        """Wrap an environment.

        Args:
            env: As ``Task.make_raw`` makes it.
            view: How the student sees it.
            stream: Mixed into the seeds of its resets: where a framework numbers environments by seed + i, those of
                other trials would otherwise be the same.
        """
        super().__init__(env)
        self._stream = stream
        self.view = view
        self._raw_actions = cast("spaces.Discrete[Any]", env.action_space)
        self._first_action = int(self._raw_actions.start)
        self.num_actions = int(self._raw_actions.n)
        self.observation_space = view.observation_space
        self.action_space = spaces.Discrete(self.num_actions)
        self.raw_observation: Any = None
        length = view.observation_space.shape[0] - (0 if view.mask is None else self.num_actions)
        self._encoded_shape = (length,)
        self._where = f"task '{view.task}'"

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[NDArray[np.float32], Infos]:
        """Start an episode."""
        if seed is not None and self._stream is not None:
            seed = derive_seed(self._stream, ENVIRONMENTS, seed)
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            raise self._failed("reset", error) from error
        return self._show(observation, info, is_over=False), {}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, Infos]:
        """Take action ``0 … num_actions − 1``."""
        try:
            observation, reward, terminated, truncated, info = self.env.step(int(action) + self._first_action)
        except (Exception, SystemExit) as error:
            raise self._failed(f"step({int(action) + self._first_action})", error) from error
        paid = read_reward(reward, self._where)
        flags = read_flag("terminated", terminated, self._where), read_flag("truncated", truncated, self._where)
        return self._show(observation, info, is_over=any(flags)), paid, *flags, {}

    def close(self) -> None:
        """Close the environment; one that fails at that, as where nothing was ever drawn, is let go."""
        close(self.env)

    def show_again(self) -> None:
        """Encode the current observation again, after the environment was unpickled."""
        self.view.encode(self.raw_observation)

    def _failed(self, call: str, error: BaseException) -> UserError:
        """Return what to say of an environment that fails, whatever it raises, or that ends the program."""
        hint = _ABOUT_MASKS if _ILLEGAL.search(str(error)) else ""
        return UserError(f"{self._where}: its environment fails in {call} with {failure(error)}{hint}")

    def _show(self, observation: Any, info: Infos, is_over: bool) -> NDArray[np.float32]:
        self.raw_observation = observation
        flat = self.view.encode(observation)
        if flat.shape != self._encoded_shape:
            raise UserError(
                f"{self._where}: encode returned a vector of shape {flat.shape}, expected {self._encoded_shape}, for "
                f"the observation {one_line(observation, 120)}: observations must be as the observation space says, "
                "and their vectors always of the same length, that of flat_space."
            )
        if not np.isfinite(flat).all():
            raise UserError(
                f"{self._where}: the observation {one_line(observation, 120)} holds NaN or a number that float32 "
                "cannot hold. Correct the environment, or override encode(observation)."
            )
        source = self.view.mask
        if source is None:
            return flat
        value = source.shown(self.env, observation, info)
        mask = read_mask(value, source, self._raw_actions)
        if mask is None:
            raise UserError(f"{self._where}: {not_a_mask(value, source, self.num_actions)}")
        if not mask.any():
            if not is_over:
                raise UserError(f"{self._where}: {source} allows no action while the episode goes on.")
            mask[:] = 1.0
        return np.concatenate([flat, mask])


class FlatVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """What both kinds of vector share: spaces, the seed of the first reset, and how a checkpoint keeps them.

    Where an episode ended in a step, ``infos["final_obs"]`` is float32 ``(num_envs, obs_dim)``, valid on the rows of
    the mask ``infos["_final_obs"]``. Other infos are not collected.
    """

    def __init__(self, num_envs: int, observation_space: spaces.Box, num_actions: int, seed: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space: Any = observation_space
        self.single_action_space: Any = spaces.Discrete(num_actions)
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
        self._seed: int | None = seed

    def _seed_of(self, given: Any) -> int | None:
        """Return the seed of a reset: the given one, else the constructor's the first time."""
        seed, self._seed = (self._seed if given is None else given), None
        return seed

    def save(self) -> bytes:
        """Return the environments in the middle of their episodes, for ``restore``.

        Raises:
            Exception: Whatever pickling them raises.
        """
        raise NotImplementedError

    def restore(self, state: bytes) -> None:
        """Take the environments of ``save`` in place of these."""
        raise NotImplementedError


class TurnsVectorEnv(FlatVectorEnv):
    """Flat environments stepped one after the other."""

    def __init__(self, envs: Sequence[FlatEnv], seed: int) -> None:
        super().__init__(len(envs), envs[0].view.observation_space, envs[0].num_actions, seed)
        self.envs = list(envs)

    def reset(self, *, seed: Any = None, options: Infos | None = None) -> tuple[NDArray[np.float32], Infos]:
        """Start all episodes anew; environments of one vector, and of vectors of other seeds, share no seed."""
        own = self._seed_of(seed)
        seeds = [None] * self.num_envs if own is None else spawn_seeds(own, self.num_envs)
        return np.stack([env.reset(seed=s, options=options)[0] for env, s in zip(self.envs, seeds, strict=True)]), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """Step all environments; ``actions`` is ``(num_envs,)``."""
        observations = np.empty(self.observation_space.shape or (), dtype=np.float32)
        rewards = np.empty(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        final = None
        for i, (env, action) in enumerate(zip(self.envs, np.asarray(actions).tolist(), strict=True)):
            observation, rewards[i], terminated[i], truncated[i], _ = env.step(action)
            if terminated[i] or truncated[i]:
                final = np.zeros_like(observations) if final is None else final
                final[i] = observation
                observation, _ = env.reset()
            observations[i] = observation
        infos = {} if final is None else {"final_obs": final, "_final_obs": terminated | truncated}
        return observations, rewards, terminated, truncated, infos

    def save(self) -> bytes:
        """Pickle the environments without their views."""
        return dumps([(env.env, env.raw_observation) for env in self.envs])

    def restore(self, state: bytes) -> None:
        """Put the pickled environments in the place of these."""
        for env, (raw, observation) in zip(self.envs, loads(state), strict=True):
            env.close()
            env.env, env.raw_observation = raw, observation
            env.show_again()
        self._seed = None

    def give_back(self) -> list[gym.Env[Any, Any]]:
        """Return the environments, which this vector then leaves open where it ends."""
        self.closed = True
        return [env.env for env in self.envs]

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


class NativeVectorEnv(FlatVectorEnv):
    """A vector environment written as array code, with encoded observations."""

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        encode_batch: Callable[[Any], NDArray[np.float32]],
        view: View,
        seed: int,
    ) -> None:
        """Wrap a SAME_STEP vector environment.

        Args:
            env: The environment.
            encode_batch: From its batch of observations to ``(num_envs, obs_dim)`` float32.
            view: How the student sees one environment.
            seed: Of the first reset.

        Raises:
            UserError: Single environments show their legal actions where a vector has no place for them.
        """
        single: Any = env.single_action_space
        super().__init__(env.num_envs, view.observation_space, int(single.n), seed)
        if view.mask is not None and (view.mask.place != "info" or view.mask.lists_actions):
            raise UserError(f"task '{view.task}': {view.mask} of a native vector cannot be read: write legal_batch.")
        self._mask = view.mask
        self.env = env
        self._encode = encode_batch

    def reset(self, *, seed: Any = None, options: Infos | None = None) -> tuple[NDArray[np.float32], Infos]:
        """Start all episodes anew; without a seed the first reset takes the one of the constructor."""
        observations, infos = self.env.reset(seed=self._seed_of(seed), options=options)
        return self._show(observations, infos), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """Step all environments; ``actions`` is ``(num_envs,)``."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        kept = {}
        if "final_obs" in infos:
            kept = {"final_obs": self._show(infos["final_obs"], {}), "_final_obs": infos["_final_obs"]}
        return self._show(observations, infos), rewards, terminated, truncated, kept

    def _show(self, observations: Any, infos: Infos) -> NDArray[np.float32]:
        """Encode a batch; where it is masked the flags stand at the end, all 1 where nothing is said."""
        flat = self._encode(observations)
        if self._mask is None:
            return flat
        shown = infos.get(self._mask.key)
        mask = np.ones((self.num_envs, self.single_action_space.n)) if shown is None else np.asarray(shown)
        return np.concatenate([flat, mask != 0], axis=1, dtype=np.float32)

    def save(self) -> bytes:
        """Pickle the environment without its encoding."""
        return dumps(self.env)

    def restore(self, state: bytes) -> None:
        """Take the pickled environment in place of this one."""
        self.env.close()
        self.env = loads(state)
        self._seed = None

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment."""
        self.env.close()


def unflatten(space: spaces.Space[Any], flat: NDArray[np.float32]) -> Any:
    """Return the observation of a flat vector: Gymnasium's, with plain integers, and texts from float vectors too."""
    if isinstance(space, spaces.Tuple | spaces.Dict):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        found, start = {}, 0
        for key, part in parts:
            stop = start + spaces.flatdim(part)
            found[key] = unflatten(part, flat[start:stop])
            start = stop
        return found if isinstance(space, spaces.Dict) else tuple(found.values())
    if isinstance(space, spaces.Discrete):
        return int(spaces.unflatten(space, flat))
    return spaces.unflatten(space, flat.astype(np.int64) if isinstance(space, spaces.Text) else flat)


def close(env: gym.Env[Any, Any]) -> None:
    """Close an environment; one that fails at that is let go."""
    try:
        env.close()
    except Exception as error:
        logger.info("%s cannot be closed (%s)", one_line(env, 80), failure(error))


def dumps(value: Any) -> bytes:
    """Pickle a value, also of a class from a user's main module."""
    return pickle.dumps(CloudpickleWrapper(value))


def loads(state: bytes) -> Any:
    """Return what ``dumps`` was given."""
    return pickle.loads(state).fn
