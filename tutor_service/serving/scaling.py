"""Say how much a tutor's gateway sends to its replicas, and when there are too few of them. Starts nothing."""

from __future__ import annotations

import math
from typing import Any

from tutor_service.config import TutorConfig
from tutor_service.engines.base import EngineFacts
from tutor_service.gateway.gateway import GatewaySettings
from tutor_service.gateway.queue import QueueLimits
from tutor_service.serving.autoscaling_policy import replicas_for_prompts

_BATCH = 32
"""Most prompts in one call of a replica."""

_ENDPOINT_BATCH = 4
"""The same where an endpoint answers, prompt by prompt: few callers wait for a slow answer to somebody else."""

_EVALUATION_TIMEOUT_S = 600.0
"""A call of a replica that takes longer is given up; of an endpoint each request has a time of its own."""

IN_FLIGHT = 4
"""Prompts per live replica, in multiples of what autoscaling aims at: keeps it busy, and is seen as load."""

_BUSY_SHARE = 0.5
"""Replicas are added at this share of an endpoint's concurrency, or at a lower ``target_ongoing_requests``."""


def gateway_settings(config: TutorConfig, facts: EngineFacts) -> GatewaySettings:
    """Return how a tutor's gateway answers; to an endpoint it sends no more than may be under way there.

    Of several gateways each has its share of what may queue and of what may be at the replicas.
    """
    gateways = config.scaling.gateways
    at_endpoint = config.backend == "openai"
    in_flight = config.concurrency if at_endpoint else IN_FLIGHT * config.scaling.target_ongoing_requests
    limits = QueueLimits(
        batch=min(_ENDPOINT_BATCH, config.concurrency) if at_endpoint else _BATCH,
        max_waiting=math.ceil(config.scaling.max_pending / gateways),
        timeout_s=None if at_endpoint else _EVALUATION_TIMEOUT_S,
        aborts=not at_endpoint,  # what was asked of an endpoint is paid for
    )
    return GatewaySettings(facts.identity, limits, facts.max_prompt_tokens, in_flight_per_replica=in_flight / gateways)


def autoscaling(config: TutorConfig) -> dict[str, Any]:
    """Return how Serve scales a tutor: by prompts, as its file says, and not by calls."""
    scaling, target = config.scaling, config.scaling.target_ongoing_requests
    if config.backend == "openai":  # it is never sent more than it takes, which has to be seen as load
        target = min(target, _BUSY_SHARE * config.concurrency)
    return {
        "min_replicas": scaling.min_replicas,
        "initial_replicas": scaling.num_started,  # the gateway asks one about itself before it is ready
        "max_replicas": scaling.max_replicas,
        "target_ongoing_requests": target,
        "policy": {"policy_function": replicas_for_prompts},
    }
