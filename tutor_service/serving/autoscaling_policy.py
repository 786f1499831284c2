"""Say how many replicas a tutor needs by the prompts at them. Serve's controller runs it: it imports nothing heavy."""

from __future__ import annotations

from typing import Any

PROMPTS = "prompts"
"""What a replica reports: prompts at it now."""


def replicas_for_prompts(context: Any) -> tuple[float, dict[str, Any]]:
    """Return how many replicas have their target of prompts each, before Serve's bounds and delays.

    Serve's own policy counts calls, which hold 1 to 32 prompts: many students of one environment each would look like
    32 times as many states.

    Args:
        context: Serve's ``AutoscalingContext``; its configuration's ``target_ongoing_requests`` is in prompts.

    Returns:
        The number, and nothing to remember.
    """
    at_replicas = context.aggregated_metrics.get(PROMPTS, {})
    return sum(at_replicas.values()) / context.config.target_ongoing_requests, {}
