"""What makes a task usable, checked on real observations before any sweep. Knows Task and Gymnasium only."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rllib_plugins.tasks.base import Task
from tutor_service.errors import UserError

NUM_CHECKED_STEPS = 100


def validate(task: Task) -> None:
    """Checks a task by playing it with random legal actions, seed 0.

    Raises:
        UserError: A continuous action space, labels that are missing, empty or collide, a ``describe`` that fails
            or returns no text, a mask that is empty or has another shape, an oracle whose answer is no distribution
            over the legal actions, or an observation that ``unflatten(encode(…))`` changes; with the observation that
            shows it.
    """
    _check_fields(task)
    _check_actions(task)
    rng = np.random.default_rng([0, 3])  # not the environment's own stream
    env = task.make_raw()
    first_action = int(getattr(env.action_space, "start", 0))
    try:
        observation, _ = env.reset(seed=0)
        for _ in range(NUM_CHECKED_STEPS):
            legal = _check_observation(task, observation)
            action = rng.choice(np.flatnonzero(legal)) + first_action
            observation, _, terminated, truncated, _ = env.step(int(action))
            if terminated or truncated:
                observation, _ = env.reset()
    finally:
        env.close()


def _check_fields(task: Task) -> None:
    for field in ("name", "env_id", "rules", "actions"):
        if not getattr(task, field, None):
            raise UserError(f"task {type(task).__name__}: field '{field}' is missing or empty.")
    if isinstance(task.actions, str) or not all(isinstance(label, str) for label in task.actions):
        raise UserError(f"task '{task.name}': actions = {task.actions!r} must be a tuple of texts.")


def _check_actions(task: Task) -> None:
    _, space = task._spaces
    if not isinstance(space, spaces.Discrete):
        kind = "continuous" if isinstance(space, spaces.Box) else type(space).__name__
        raise UserError(
            f"task '{task.name}': the action space of '{task.env_id}' is {space} ({kind}). A tutor chooses among named "
            "actions, so only Discrete action spaces can be tasks: discretise it with a wrapper."
        )
    if len(task.actions) != space.n:
        raise UserError(f"task '{task.name}': {len(task.actions)} action labels {task.actions} for {space.n} actions.")
    seen: dict[str, str] = {}
    for label in task.actions:
        key = label.strip().casefold()
        if not key:
            raise UserError(f"task '{task.name}': actions = {task.actions} holds an empty label.")
        if key in seen:
            raise UserError(
                f"task '{task.name}': labels {seen[key]!r} and {label!r} collide. Give each action its own word."
            )
        seen[key] = label


def _check_observation(task: Task, observation: Any) -> Any:
    where = f"task '{task.name}', observation {observation!r}"
    method = "encode"
    try:
        flat = task.encode(observation)
        method = "unflatten"
        same = task.unflatten(flat)
        method = "describe"
        text = task.describe(observation)
        text_again = task.describe(same)
        method = "legal"
        legal = np.asarray(task.legal(same))
        method = "oracle"
        advice = task.oracle(same)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: {method} fails with {type(error).__name__}: {error}") from error
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: describe returned {text!r}. It must return a text.")
    if text != text_again:
        raise UserError(f"{where}: described as {text!r}, but as {text_again!r} after unflatten(encode(observation)).")
    if flat.shape != task.observation_space.shape or flat.dtype != np.float32:
        raise UserError(
            f"{where}: encode returned {flat.dtype} {flat.shape}, expected float32 {task.observation_space.shape}."
        )
    if legal.shape != (task.num_actions,) or legal.dtype != bool:
        raise UserError(f"{where}: legal returned {legal!r}. It must be {task.num_actions} booleans.")
    if not legal.any():
        raise UserError(f"{where}: legal allows no action. At least one action must be legal in every state.")
    if advice is not None:
        advice = np.asarray(advice, dtype=np.float64)
        fits = advice.shape == (task.num_actions,) and abs(advice.sum() - 1) < 1e-6 and (advice >= 0).all()
        if not fits or advice[~legal].any():
            raise UserError(f"{where}: oracle returned {advice}. It must be a distribution over the legal actions.")
    return legal
