"""Deploy tutors for the time of one command, with Ray around them where they take it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tune_sweeps.cluster.session import RayCluster, local_cpus, ray_cluster, wanted_address
from tune_sweeps.console.signals import cleaning_up
from tutor_service.client import service_url
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError

if TYPE_CHECKING:
    from tutor_service import serving
    from tutor_service.serving.leases import Grant


@contextmanager
def tutors_up(
    tutors: Sequence[TutorConfig], progress: Callable[[str], None], address: str | None = None, spare_cpus: float = 0
) -> Iterator[None]:
    """Have Ray with tutors deployed for the time of a ``with`` block; tutors that ran before stay as they are.

    Args:
        tutors: Those that are asked; where none is ours to deploy, nothing is started.
        progress: Takes lines about what is going on.
        address: Address of a running Ray; None: ``$RAY_ADDRESS``, else a local one is started.
        spare_cpus: Ray CPUs that a local one has beside the tutors'.
    """
    served = _to_deploy(tutors)
    if not served:
        yield
        return
    needed = sum(tutor.scaling.num_cpus * tutor.scaling.num_started for tutor in served) + spare_cpus
    with (
        ray_cluster(wanted_address(address), local_cpus(needed)) as cluster,
        deployed(served, cluster, progress),
    ):
        yield


@contextmanager
def deployed(tutors: Sequence[TutorConfig], cluster: RayCluster, progress: Callable[[str], None]) -> Iterator[None]:
    """Have tutors deployed on a connected Ray for the time of a ``with`` block; those of others stay.

    Commands that run the same tutor at a time share it, held by leases: the last one takes it down.

    Args:
        tutors: Those that are asked.
        cluster: The Ray.
        progress: Takes lines about what is going on.
    """
    from tutor_service import serving

    served = _to_deploy(tutors)
    if not served:
        yield
        return

    leases = None if cluster.local else serving.Lease(_holder())
    try:
        if leases is None:
            _prepare_models(served, progress)
            serving.deploy(served, progress=progress)
        else:
            _share(served, leases, progress)
        yield
    finally:
        cleaning_up()
        if leases is not None:  # a local Ray ends now, and takes its tutors along
            leases.release()


def _to_deploy(tutors: Sequence[TutorConfig]) -> list[TutorConfig]:
    """Return those that are served; none where they are reached at ``$LLM_TUTORS_URL``, as somebody else's."""
    return [] if service_url() else [tutor for tutor in tutors if tutor.is_served]


def _share(tutors: Sequence[TutorConfig], leases: serving.Lease, progress: Callable[[str], None]) -> None:
    """Have tutors up that other commands may share: hold them, deploy those that nobody else does, wait for all.

    What an operator deployed runs on without leases and stays. A failure takes nothing down that another one holds.
    """
    from tutor_service import serving

    standing = _standing()
    held = {tutor.name: tutor for tutor in tutors if tutor.name not in standing}

    def start(wanted: Sequence[TutorConfig]) -> None:
        _prepare_models(wanted, progress)
        serving.start(wanted, progress)

    def take_over(name: str) -> None:
        if leases.take_over(name):
            start([held[name]])

    def regain(tutor: TutorConfig) -> None:
        try:
            if _acquire(tutor, leases, regain).deploy and tutor.name not in _answering():
                progress(f"tutor '{tutor.name}' was taken down while this command stood still; it is deployed again")
                start([tutor])
        except UserError as error:
            progress(f"tutor '{tutor.name}' is lost, and students go on without it: {error}")

    grants = {name: _acquire(tutor, leases, regain) for name, tutor in held.items()}
    start([held[name] for name, grant in grants.items() if grant.deploy])
    serving.wait_until_ready([tutor.name for tutor in tutors if tutor.name in standing], progress)
    serving.wait_until_ready(list(held), progress, absent=take_over)


def _standing() -> set[str]:
    """Name the tutors that an operator deployed: that nobody holds."""
    from tutor_service import serving

    held = serving.lease_holders()  # before the status: what is deployed by lease is held from before to after
    return _answering() - held.keys()


def _answering() -> set[str]:
    from tutor_service import serving

    return {item.name for item in serving.status() if item.will_answer}


def _acquire(tutor: TutorConfig, leases: serving.Lease, lost: Callable[[TutorConfig], None]) -> Grant:
    grant = leases.acquire(tutor, lost)
    if grant.conflict:
        raise UserError(
            f"another tutor named '{tutor.name}' runs on this cluster, held by {grant.conflict}: its model or the "
            "way it is asked differs, and it would answer in place of yours. Give yours another name in its file, "
            "or wait."
        )
    return grant


def _prepare_models(tutors: Sequence[TutorConfig], progress: Callable[[str], None]) -> None:
    from tutor_service import embedded

    for model in sorted({tutor.model for tutor in tutors if embedded.is_embedded(tutor.model)}):
        embedded.prepare(model, progress)


def _holder() -> str:
    """Name this command for others that share a tutor."""
    return f"{' '.join([Path(sys.argv[0]).name, *sys.argv[1:3]])} ({socket.gethostname()}, process {os.getpid()})"
