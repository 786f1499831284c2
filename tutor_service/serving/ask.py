"""Ask one tutor one question and show everything about the answer. Knows tutors and requests; prints nothing."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tutor_service.client import app_name
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.gateway.gateway import Explanation
from tutor_service.local_ray import leave_ray, start_local_ray
from tutor_service.ray_probe import check_ray_address
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.serving.lifecycle import delete, deploy, gateway_stats, status, wait_until_ready

_ANSWER_S = 900.0
"""Longest wait for the answer, once the tutor is up: notes and thoughts take minutes on a CPU."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold what was asked and answered.

    Attributes:
        prompt: What the tutor read, control tokens included.
        briefing: The strategy notes in it; None where there are none.
        advice: What it answered.
        thought: What it thought before; empty where it does not think.
        round_trip_ms: Milliseconds as seen from here.
        notes: What was found out about the tutor when it started, and what it has spent, in lines.
        others: Answers to the questions that reading this one takes; None where there is none.
    """

    prompt: str
    briefing: str | None
    advice: Advice
    thought: str
    round_trip_ms: float
    notes: tuple[str, ...]
    others: tuple[Advice | None, ...] = ()


def ask(
    tutor: TutorConfig,
    request: AdviceRequest,
    *,
    others: Sequence[AdviceRequest] = (),
    progress: Callable[[str], None] | None = None,
) -> Asked:
    """Ask a tutor that runs, or one that is brought up for this question and taken down again.

    A tutor of a Ray that this process is connected to, or that runs on this machine (or at ``$RAY_ADDRESS``), is used
    where it is deployed; otherwise a local Ray is started.

    Args:
        tutor: Whom to ask.
        request: What.
        others: Questions that reading the answer takes.
        progress: Takes lines about what is going on.

    Raises:
        UserError: The tutor is a reference, cannot be deployed, or the request is invalid.
    """
    if tutor.backend == "reference":
        raise UserError(f"tutor '{tutor.name}' is a scripted reference: it reads no prompt. Ask a tutor with a model.")
    with _running(tutor, progress or (lambda text: None)):
        from ray import serve

        handle: Any = serve.get_app_handle(app_name(tutor.name))
        started = time.perf_counter()
        try:
            explained: Explanation | AdviceError = handle.explain.remote(request).result(timeout_s=_ANSWER_S)
        except TimeoutError:
            raise UserError(
                f"tutor '{tutor.name}' did not answer within {_ANSWER_S:.0f} s. Lower thinking_tokens, thoughts or "
                "briefing_tokens, or give it a faster machine."
            ) from None
        round_trip_ms = (time.perf_counter() - started) * 1e3
        answers = handle.advise.remote(list(others)).result(timeout_s=_ANSWER_S) if others else []
        overview = serve.status().applications[app_name(tutor.name)]
        stats = gateway_stats(tutor.name, overview, _ANSWER_S)
    if isinstance(explained, AdviceError):
        raise UserError(explained.reason)
    if isinstance(explained.answer, AdviceError):
        raise UserError(f"tutor '{tutor.name}' gave no advice: {explained.answer.reason}")
    spent = (f"asked of the endpoint so far: {stats.spent}",) if stats and stats.spent else ()
    return Asked(
        prompt=explained.prompt,
        briefing=explained.notes,
        advice=explained.answer,
        thought=explained.thought,
        round_trip_ms=round_trip_ms,
        notes=(*(stats.notes if stats else ()), *spent),
        others=tuple(answer if isinstance(answer, Advice) else None for answer in answers),
    )


@contextmanager
def _running(tutor: TutorConfig, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the tutor deployed on a Ray that this process is connected to."""
    import ray

    connected = ray.is_initialized()
    found = connected or _connect(say)
    there = next((item for item in status() if item.name == tutor.name), None) if found else None
    deployed = there is not None and (there.will_answer if connected else there.status == "RUNNING")
    try:
        if deployed and connected:  # whoever deploys it goes on to use it
            wait_until_ready([tutor.name], say)
        if not deployed:
            if not connected:
                leave_ray()  # a cluster of somebody else's is not ours to deploy on
                say("no service with this tutor runs here: starting one for this question")
                start_local_ray(math.ceil(tutor.scaling.num_cpus * tutor.scaling.num_started) or 1)
            deploy([tutor], progress=say)
        yield
    finally:
        if connected and not deployed:
            delete([tutor.name])
        if not connected:
            leave_ray()


def _connect(say: Callable[[str], None]) -> bool:
    """Connect to a Ray that runs already; False where there is none.

    Raises:
        UserError: ``$RAY_ADDRESS`` names one that cannot be joined.
    """
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if named == "local":
        return False
    try:
        check_ray_address(named or "auto")
    except UserError as error:
        if named:
            raise
        say(str(error))
        return False
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError):
        return False
    return True
