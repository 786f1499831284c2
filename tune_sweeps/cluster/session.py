"""Start a local Ray or connect to a running one, quietly, and leave nothing behind."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tune_sweeps.console.signals import cleaning_up, rearm
from tutor_service.errors import UserError
from tutor_service.local_ray import leave_ray, start_local_ray
from tutor_service.machine import available_cores
from tutor_service.ray_probe import check_ray_address
from tutor_service.serving import STORE_RESOURCE

ADDRESS_VARIABLE = "RAY_ADDRESS"
_OBJECT_STORE_BYTES = 200 * 2**20
_REASON_LENGTH = 500
"""Ray spreads what it says of other versions over several lines."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The Ray that a sweep runs on.

    Attributes:
        local: Whether it was started here and ends with us.
        cpus: Its CPUs.
        gpus: Its GPUs.
        nodes: Its nodes.
    """

    local: bool
    cpus: float
    gpus: float
    nodes: int


def local_cpus(needed: float) -> int:
    """Return the Ray CPUs of a local cluster: one per core, and at least what must run at once."""
    return max(available_cores(), math.ceil(needed))


def wanted_address(address: str | None) -> str | None:
    """Return where Ray is, as asked for by argument or by ``$RAY_ADDRESS``; None: start a local one."""
    found = address or os.environ.get(ADDRESS_VARIABLE, "").strip() or None
    return None if found == "local" else found


@contextmanager
def ray_cluster(address: str | None, num_cpus: int) -> Iterator[RayCluster]:
    """Have Ray for the time of a ``with`` block; one that was started here ends with it.

    Args:
        address: Address of a running cluster; None: start a local one, on the loopback interface only.
        num_cpus: Ray CPUs of a local one.

    Raises:
        UserError: No Ray answers at the address, or a local one cannot start.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    import ray

    _start(address, num_cpus)
    try:
        resources = ray.cluster_resources()
        yield RayCluster(
            local=address is None,
            cpus=float(resources.get("CPU", 0)),
            gpus=float(resources.get("GPU", 0)),
            nodes=len([node for node in ray.nodes() if node.get("Alive")]),
        )
    finally:
        cleaning_up()
        leave_ray()


def _start(address: str | None, num_cpus: int) -> None:
    if address is not None:
        check_ray_address(address)
    import ray

    try:
        if address is not None:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            start_local_ray(num_cpus, object_store_memory=_OBJECT_STORE_BYTES, resources={STORE_RESOURCE: 1})
        rearm()
    except Exception as error:  # Ray raises plain exceptions here, too
        leave_ray()
        raise _cannot_start(address, error) from error
    except (KeyboardInterrupt, SystemExit):  # while it starts, Ray's own handler turns SIGTERM into the latter
        cleaning_up()
        leave_ray()
        raise KeyboardInterrupt from None


def _cannot_start(address: str | None, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:_REASON_LENGTH] or type(error).__name__
    if address is None:
        return UserError(f"a local Ray could not start: {reason}. Is /tmp writable, and is there memory left?")
    return UserError(
        f"no Ray answers at '{address}': {reason}. Check --address and ${ADDRESS_VARIABLE}, or leave both out for a "
        "local Ray."
    )
