"""Check that an environment speaks Gymnasium's API; every refusal is one line with the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from tutor_service.errors import UserError

_SHOWN_CHARS = 300
_REMEDY = (
    "Wrap it: a gymnasium.Wrapper whose reset(seed=None, options=None) returns (observation, info) and whose "
    "step(action) returns (observation, reward, terminated, truncated, info), or shimmy's GymV21CompatibilityV0."
)


class Step(NamedTuple):
    """What Gymnasium's ``step`` returns."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any] | None


def one_line(value: object, limit: int = _SHOWN_CHARS) -> str:
    """Return a value or an error as one line of at most ``limit`` characters."""
    text = " ".join((str(value) if isinstance(value, str | BaseException) else repr(value)).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def failure(error: BaseException) -> str:
    """Return the kind and the text of an error as one line."""
    return f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__


def checked_reset(env: gym.Env[Any, Any], where: str) -> tuple[Any, Mapping[str, Any] | None]:
    """Reset with seed 0.

    Args:
        env: The environment, as ``gymnasium.make`` gives it.
        where: What to call it in errors.

    Raises:
        UserError: It speaks another API, or fails.
    """
    try:
        result: Any = _as_written(env).reset(seed=0, options=None)
    except TypeError as error:
        missing = next((name for name in ("seed", "options") if f"argument '{name}'" in str(error)), None)
        if missing is None:
            raise UserError(f"{where}: reset fails with {failure(error)}") from error
        raise UserError(f"{where}: reset takes no {missing}, as Gymnasium's API asks. {_REMEDY}") from error
    except Exception as error:
        raise UserError(f"{where}: reset fails with {failure(error)}") from error
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping | None)):
        raise UserError(
            f"{where}: reset returns {one_line(result, 80)}; Gymnasium's API asks for (observation, info). {_REMEDY}"
        )
    return result


def checked_step(env: gym.Env[Any, Any], action: int, where: str) -> Step:
    """Take an action of the environment's own action space.

    Raises:
        UserError: It speaks another API, or fails.
    """
    try:
        result: Any = _as_written(env).step(action)
    except Exception as error:
        raise UserError(f"{where}: step({action}) fails with {failure(error)}") from error
    if not isinstance(result, tuple) or len(result) != len(Step._fields):
        count = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise UserError(
            f"{where}: step returns {count}, Gymnasium's API asks for the five "
            f"(observation, reward, terminated, truncated, info). {_REMEDY}"
        )
    step = Step(*result)
    if not isinstance(step.info, Mapping | None):
        raise UserError(f"{where}: step returns {one_line(step.info, 80)} as info; it must be a dictionary.")
    read_flag("terminated", step.terminated, where)
    read_flag("truncated", step.truncated, where)
    read_reward(step.reward, where)
    return step


def read_reward(reward: Any, where: str) -> float:
    """Return a reward as a plain number, of an array of one number too.

    Raises:
        UserError: It is no finite number.
    """
    try:
        number = float(reward.item() if isinstance(reward, np.ndarray) else reward)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: step returns reward = {one_line(reward, 80)}; it must be a finite number.")
    return number


def read_flag(name: str, flag: Any, where: str) -> bool:
    """Return a flag as a plain one, of an array of one flag too.

    Raises:
        UserError: It is no flag.
    """
    if isinstance(flag, bool | np.bool_):
        return bool(flag)
    flags = np.asarray(flag)
    if flags.size != 1 or flags.dtype.kind not in "biu":
        raise UserError(f"{where}: step returns {name} = {one_line(flag, 80)}; it must be true or false.")
    return bool(flags.item())


def _as_written(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return the environment without the wrappers that ``gymnasium.make`` put around it."""
    while type(env) in (TimeLimit, OrderEnforcing):
        env = env.env  # type: ignore[attr-defined]
    return env
