"""Start Ray on this machine alone. Knows nothing of what runs on it."""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

_ATTEMPTS = 3

_CLUSTERS_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Where it is 0, as on these systems, Ray takes a machine's address to be 127.0.0.1, and listens there alone."""


def start_local_ray(num_cpus: int, **options: Any) -> None:
    """Start a Ray of this process's own, on the loopback interface and without dashboard.

    Ray gives its processes 30 seconds to come up, which a busy machine can exceed: then it is tried again.

    Args:
        num_cpus: CPUs that it announces.
        **options: More arguments of ``ray.init``.

    Raises:
        Exception: What Ray raised at the last attempt; its exceptions here are plain ones.
    """
    import ray

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _on_loopback():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address="127.0.0.1",
                    **options,
                )
            return
        except Exception as error:
            leave_ray()
            end_unfinished_node(error)
            if attempt == _ATTEMPTS:
                raise
            logger.warning("Ray did not start, trying again: %s", error)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have a Ray that starts in a ``with`` block listen on 127.0.0.1 alone.

    A node address of 127.0.0.1 does not do that: Ray replaces it by one that other machines can reach, but where it is
    told that there are none. It reads the variable when it is imported, here and in its processes.
    """
    from ray._private import ray_constants

    before, is_enabled = os.environ.get(_CLUSTERS_VARIABLE), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_CLUSTERS_VARIABLE], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = is_enabled
        if before is None:
            del os.environ[_CLUSTERS_VARIABLE]
        else:
            os.environ[_CLUSTERS_VARIABLE] = before


def leave_ray() -> None:
    """Disconnect from Ray, if connected, and make Serve forget its controller.

    Serve tells by the number of the Ray job whether a controller that it met before is still its own, and the first
    job of every local Ray has the same number.

    No garbage is collected meanwhile: where another thread frees a reference to one of Ray's objects while Ray is
    shutting down, Ray ends this process at once.
    """
    import ray

    with _garbage_kept():
        ray.shutdown()
    context = sys.modules.get("ray.serve.context")
    if context is not None:
        context._set_global_client(None)


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Collect garbage before a ``with`` block and none within it, in any thread."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def end_unfinished_node(error: BaseException) -> None:
    """End the processes of a Ray node whose start ended by this error.

    ``ray.shutdown`` does not know such a node, and leaves its processes running until this one ends.
    """
    from ray._private.node import Node

    selves = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    for node in {id(item): item for item in selves if isinstance(item, Node)}.values():
        node.kill_all_processes(check_alive=False, allow_graceful=False)
