"""Deploy tutors for the time of one command, with Ray around them where they take it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tune_sweeps.cluster.session import RayCluster, ray_cluster, wanted_address
from tune_sweeps.console.signals import cleaning_up
from tutor_service.client import service_url
from tutor_service.config import TutorConfig
from tutor_service.machine import available_cores


@contextmanager
def tutors_up(
    tutors: Sequence[TutorConfig], progress: Callable[[str], None], address: str | None = None, spare_cpus: float = 0
) -> Iterator[None]:
    """Have Ray with tutors deployed for the time of a ``with`` block; tutors that ran before stay as they are.

    Those that are reached at ``$LLM_TUTORS_URL`` are somebody else's to deploy.

    Args:
        tutors: Those that are asked; where none is served, nothing is started.
        progress: Takes lines about what is going on.
        address: Address of a running Ray; None: ``$RAY_ADDRESS``, else a local one is started.
        spare_cpus: Ray CPUs that a local one has beside the tutors'.
    """
    served = [tutor for tutor in tutors if tutor.is_served]
    if not served or service_url():
        yield
        return
    needed = sum(tutor.scaling.num_cpus * tutor.scaling.num_started for tutor in served) + spare_cpus
    with (
        ray_cluster(wanted_address(address), max(available_cores(), math.ceil(needed))) as cluster,
        deployed(served, cluster, progress),
    ):
        yield


@contextmanager
def deployed(tutors: Sequence[TutorConfig], cluster: RayCluster, progress: Callable[[str], None]) -> Iterator[None]:
    """Have tutors deployed on a connected Ray for the time of a ``with`` block; those that ran before stay.

    Those that are reached at ``$LLM_TUTORS_URL`` are somebody else's to deploy.

    Args:
        tutors: Those that are asked; the ones that are served are deployed.
        cluster: The Ray.
        progress: Takes lines about what is going on.
    """
    from tutor_service import embedded, serving

    served = [tutor for tutor in tutors if tutor.is_served]
    if not served or service_url():
        yield
        return

    running = set() if cluster.local else {item.name for item in serving.status() if item.status == "RUNNING"}
    wanted = [tutor for tutor in served if tutor.name not in running]
    try:
        for model in sorted({tutor.model for tutor in wanted if embedded.is_embedded(tutor.model)}):
            embedded.prepare(model, progress)
        serving.deploy(wanted, progress=progress)
        yield
    finally:
        cleaning_up()
        if not cluster.local:  # a local Ray ends now, and takes them along
            serving.delete([tutor.name for tutor in wanted])
