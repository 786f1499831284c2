"""Check what must hold on this machine before a sweep starts."""

from __future__ import annotations

from collections.abc import Iterable

from rllib_plugins.config import StudentConfig
from tune_sweeps.run.workspace import check_writable
from tune_sweeps.storage.results import Results
from tune_sweeps.tracking.mlflow_client import check_uri
from tutor_service import machine
from tutor_service.errors import UserError

DRIVER_MIB = 1_200
"""Memory of the driver with Ray's own processes and MLflow."""


def check_hyperparameters(students: Iterable[StudentConfig]) -> None:
    """Refuse hyperparameters that RLlib does not know; it is imported only where some are given, which takes seconds.

    Raises:
        UserError: A name that the algorithm does not have, or a text where it has a number.
    """
    given = {repr((s.algorithm, s.task, s.hyperparameters)): s for s in students if s.hyperparameters}
    if given:
        from rllib_plugins.trial import algorithm_config

        for student in given.values():
            algorithm_config(student)


def check_machine(results: Results, uri: str, concurrent: int, memory_mib_per_trial: int, local: bool) -> None:
    """Check the results folder, the tracking URI and, for a local Ray, memory.

    Args:
        results: Results folder, or object store.
        uri: MLflow's tracking URI.
        concurrent: Trials that run at once.
        memory_mib_per_trial: What each of them takes.
        local: Whether Ray is started on this machine.

    Raises:
        UserError: One of them cannot be used; the message has the remedy.
    """
    check_writable(results)
    check_uri(uri)
    if local:
        needed = DRIVER_MIB + concurrent * memory_mib_per_trial
        available = machine.available_bytes() / 2**20
        if needed > available:
            raise UserError(
                f"too little memory: {concurrent} trials at once need about {needed:,.0f} MiB, {available:,.0f} MiB "
                "are available. Close something, or run fewer at once: --set resources.max_concurrent=1."
            )
