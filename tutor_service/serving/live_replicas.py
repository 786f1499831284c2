"""Follow how many replicas of a tutor live, as Serve's controller counts them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("ray.serve")

LOOK_S = 2.0
"""Seconds between two looks: a replica takes longer to start."""


async def follow_replicas(look: Callable[[], int], tell: Callable[[int], None], every_s: float = LOOK_S) -> None:
    """Tell how many replicas run, now and whenever that changes, until cancelled.

    Args:
        look: Counts them; called in a thread. Where it fails, the last count stands.
        tell: Is told.
        every_s: Seconds between two looks.
    """
    told, failing = None, False
    while True:
        try:
            running = await asyncio.to_thread(look)
        except Exception as error:  # the controller is being replaced
            if not failing:
                logger.warning("Serve's controller does not say how many replicas run: %r", error)
            failing = True
        else:
            failing = False
            if running != told:
                told = running
                tell(running)
        await asyncio.sleep(every_s)


def num_running(application: str, deployment: str) -> int:
    """Ask Serve's controller how many replicas of a deployment run."""
    from ray import serve

    states: Any = serve.status().applications[application].deployments[deployment].replica_states
    return int(states.get("RUNNING", 0))
