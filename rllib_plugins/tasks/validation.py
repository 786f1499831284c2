"""Check that a task is usable: play it as a sweep will play it, before any sweep."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.tasks.base import Task
from rllib_plugins.tasks.flat import FlatVectorEnv, TurnsVectorEnv
from rllib_plugins.tasks.gymnasium_check import failure, one_line
from tutor_service.errors import UserError, unknown_name
from tutor_service.schema import AdviceRequest
from tutor_service.validation import problem

logger = logging.getLogger(__name__)

NUM_CHECKED_STEPS = 100
NUM_REPEATED_STEPS = 20
NUM_ENVS = 2

_NUMPY_SCALAR = re.compile(r"np\.\w+\(([^()]*)\)")
"""How numpy shows a number inside a container; the environment may return plain ones."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def validate(task: Task) -> None:
    """Play a task with random legal actions: as a vector, through a checkpoint, and in words, as a sweep will.

    Raises:
        UserError: An environment that does not speak Gymnasium's API or fails, an action space that is not Discrete,
            labels that no tutor takes, an observation space without flat vector, a ``describe`` that fails or says
            something else after ``unflatten(encode(…))``, a mask that is empty or has another shape, or an oracle that
            is no distribution over the legal actions; one line, with the observation that shows it.
    """
    _check_fields(task)
    _check_actions(task)
    rng = np.random.default_rng([0, 3])  # not the environments' own stream
    texts: dict[bytes, str] = {}
    try:
        with task.borrow_vec(NUM_ENVS, seed=0) as envs:
            observations, _ = envs.reset(seed=0)
            played: list[tuple[Any, ...]] = []
            for step in range(NUM_CHECKED_STEPS):
                raws = [env.raw_observation for env in envs.envs] if isinstance(envs, TurnsVectorEnv) else None
                legal = [
                    _check_observation(task, row, None if raws is None else raws[i], texts)
                    for i, row in enumerate(observations)
                ]
                if step == NUM_CHECKED_STEPS // 2:
                    _check_checkpoint(task, envs)
                actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in legal])
                observations, *told = envs.step(actions)
                if step < NUM_REPEATED_STEPS:
                    played.append((actions, observations, *told[:3]))
            if not _is_repeated(envs, played):
                logger.warning(
                    "task '%s': after a reset with the same seed its environment goes on differently, so no result can "
                    "be reproduced. Begin reset with super().reset(seed=seed), and draw from self.np_random alone.",
                    task.name,
                )
        _check_exact_return(task)
    except UserError as error:
        raise UserError(" ".join(str(error).splitlines())) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"task '{task.name}': its environment fails with {failure(error)}") from error


def _is_repeated(envs: FlatVectorEnv, played: list[tuple[Any, ...]]) -> bool:
    """Return whether the same actions, each given with its results, lead to these again after a reset with the seed."""
    envs.reset(seed=0)
    for actions, *told in played:
        try:
            again = envs.step(actions)
        except UserError:  # an action that was legal before
            return False
        if not all(np.array_equal(ours, theirs) for ours, theirs in zip(again, told, strict=False)):
            return False
    return True


def _check_fields(task: Task) -> None:
    for field in ("name", "env_id", "rules", "actions"):
        value = getattr(task, field, None)
        if value is None or (isinstance(value, str | tuple) and not value):
            raise UserError(f"task {type(task).__name__}: field '{field}' is missing or empty.")
    if not isinstance(task.name, str) or not _NAME.fullmatch(task.name):
        raise UserError(
            f"task {type(task).__name__}: name = {task.name!r:.80} names files, too: use at most 64 plain letters, "
            "digits, '.', '_' and '-', beginning with a letter or a digit."
        )
    if not isinstance(task.env_id, str):
        raise UserError(
            f"task '{task.name}': env_id = {one_line(task.env_id, 80)} must be a registered id, e.g. 'FrozenLake-v1'. "
            "Register a class of yours: gymnasium.register('Mine-v0', entry_point=Mine)."
        )
    if not isinstance(task.actions, list | tuple) or not all(isinstance(label, str) for label in task.actions):
        raise UserError(
            f"task '{task.name}': actions = {one_line(task.actions)} must be a tuple of texts, in the order of the "
            "action space."
        )
    task.actions = tuple(map(str.__str__, task.actions))  # of members of an Enum, too
    if not isinstance(task.hint, str | None):
        raise UserError(f"task '{task.name}': hint = {one_line(task.hint, 80)} must be a text or None.")
    for field, is_optional in (("num_env_steps", False), ("num_states", True), ("episode_steps", True)):
        number = getattr(task, field)
        if not (is_optional and number is None) and (not isinstance(number, Integral) or number < 1):
            raise UserError(f"task '{task.name}': {field} = {number!r} must be a whole number of at least 1.")
    if not isinstance(task.synonyms, Mapping):
        raise UserError(f"task '{task.name}': synonyms = {one_line(task.synonyms, 80)} must be a dictionary of labels.")
    for label in task.synonyms:
        if label not in task.actions:
            raise unknown_name("label", str(label), task.actions, f"in the synonyms of task '{task.name}'")


def _check_actions(task: Task) -> None:
    seen: dict[str, str] = {}
    for label in task.actions:
        key = _look(label)
        if key in seen:
            raise UserError(
                f"task '{task.name}': labels {seen[key]!r} and {label!r} collide. Give each action its own word."
            )
        seen[key] = label
    if label := seen.get("", "").strip():
        raise UserError(f"task '{task.name}': label {label!r} cannot be seen. Give each action its own word.")
    rules = task.with_hint(True).rules if isinstance(task.rules, str) else task.rules
    if trouble := problem(AdviceRequest(rules, "a state", task.actions, task.synonyms_of(task.actions))):
        raise UserError(f"task '{task.name}': {trouble}: no tutor takes that.")
    space = task.raw_action_space
    if not isinstance(space, spaces.Discrete):
        kind = "continuous" if isinstance(space, spaces.Box) else type(space).__name__
        raise UserError(
            f"task '{task.name}': the action space of '{task.env_id}' is {one_line(space)} ({kind}). A tutor chooses "
            "among named actions, so only Discrete action spaces can be tasks: discretise it with a wrapper."
        )
    if len(task.actions) != space.n:
        raise UserError(
            f"task '{task.name}': {len(task.actions)} action labels {one_line(task.actions)} for {space.n} actions."
        )


def _look(label: str) -> str:
    """Return what labels have in common that a tutor would take for each other: without case, width and marks."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
    return " ".join(seen.casefold().split())


def _check_observation(task: Task, flat: NDArray[np.float32], raw: Any, texts: dict[bytes, str]) -> NDArray[np.bool_]:
    """Check one state; ``raw`` is None where the environment shows none. Returns the legal actions."""
    where = f"task '{task.name}', observation {one_line(flat if raw is None else raw)}"
    method = "unflatten"
    try:
        same = task.raw_observation(flat)
        method = "describe"
        text_again = task.describe(same)
        text = text_again if raw is None else task.describe(raw)
        method = "legal"
        told = task.legal(same)
        masks = task.legal_batch(flat[None])
        method = "oracle"
        told_by_oracle = task.oracle(same)
        advice = None if told_by_oracle is None else np.asarray(told_by_oracle, dtype=np.float64)
    except UserError:
        raise
    except Exception as error:
        remedy = " Override encode and unflatten." if method == "unflatten" else ""
        raise UserError(f"{where}: {method} fails with {failure(error)}.{remedy}") from error
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: describe returned {text!r:.80}. It must return a text.")
    known = texts.setdefault(flat.tobytes(), text)
    for other in (text_again, known):
        if _NUMPY_SCALAR.sub(r"\1", text) != _NUMPY_SCALAR.sub(r"\1", other):
            raise UserError(
                f"{where}: described as {one_line(text, 120)!r}, but as {one_line(other, 120)!r} after "
                "unflatten(encode(observation)): student and tutor must know the same."
            )
    if trouble := problem(AdviceRequest(task.rules, text, task.actions)):
        raise UserError(f"{where}: {trouble}: no tutor takes that.")
    legal = _check_mask(task, told, masks, where)
    if advice is not None:
        fits = advice.shape == (task.num_actions,) and abs(advice.sum() - 1) < 1e-6 and (advice >= 0).all()
        if not fits or advice[~legal].any():
            raise UserError(f"{where}: oracle returned {advice}. It must be a distribution over the legal actions.")
    return legal


def _check_mask(task: Task, told: Any, masks: Any, where: str) -> NDArray[np.bool_]:
    """Check what ``legal`` and ``legal_batch`` said; return the latter."""
    wanted = f"It must be {task.num_actions} booleans, one per action."
    if np.shape(told) != (task.num_actions,) or not np.isin(told, (0, 1)).all():
        raise UserError(f"{where}: legal returned {one_line(told)}. {wanted}")
    if masks is None:
        return np.ones(task.num_actions, dtype=bool)
    legal = np.asarray(masks)[0]
    if legal.shape != (task.num_actions,) or legal.dtype != bool:
        raise UserError(f"{where}: legal returned {one_line(legal)}. {wanted}")
    if not legal.any():
        raise UserError(f"{where}: legal allows no action. At least one action must be legal in every state.")
    return legal


def _check_checkpoint(task: Task, envs: FlatVectorEnv) -> None:
    state = envs.save() if task.why_not_resumable is None else None
    if state is not None:
        envs.restore(state)


def _check_exact_return(task: Task) -> None:
    exact = task.exact_return(task.uniform_policy)
    if exact is not None and not (len(exact) == 2 and np.isfinite(exact).all()):
        raise UserError(f"task '{task.name}': exact_return returned {one_line(exact)}: expected (mean, std).")
