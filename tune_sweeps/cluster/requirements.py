"""Check what a cluster must have for a sweep, by what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from tune_sweeps.cluster.dashboard import ClusterFacts
from tutor_service.client import app_name
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.serving.placement import misfit


def check_versions(facts: ClusterFacts, ray_version: str, python_version: str) -> None:
    """Require one Ray and one Python, major and minor, of client and cluster: what travels between them is pickled.

    Raises:
        UserError: They do not.
    """
    if facts.ray_version != ray_version:
        raise UserError(
            f"the cluster runs Ray {facts.ray_version}, this machine {ray_version}. Use an image of this release "
            "(deploy/docker/Dockerfile), or install the cluster's Ray here."
        )
    if _minor(facts.python_version) != _minor(python_version):
        raise UserError(
            f"the cluster runs Python {facts.python_version}, this machine {python_version}. Both need the same major "
            "and minor version: use an image of this release (deploy/docker/Dockerfile), or that Python here."
        )


def check_tutors(facts: ClusterFacts, tutors: Sequence[TutorConfig], nodes_on_demand: bool) -> None:
    """Require that the replicas which tutors start with fit on the nodes together; a tutor that runs has its place.

    Args:
        facts: What the cluster says.
        tutors: What the sweep needs.
        nodes_on_demand: Whether an autoscaler adds nodes that are not there yet; then nothing can be said.

    Raises:
        UserError: They do not; says which tutor's, what it takes and what the nodes have.
    """
    waiting = [tutor for tutor in tutors if tutor.is_served and app_name(tutor.name) not in facts.applications]
    if nodes_on_demand or not waiting:
        return
    if problem := misfit(waiting, facts.nodes):
        raise UserError(
            f"{problem} Add a node, give --nodes-on-demand where an autoscaler adds it, or use another tutor."
        )


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
