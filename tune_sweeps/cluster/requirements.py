"""Check what a cluster must have for a sweep, by what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from tune_sweeps.cluster.dashboard import ClusterFacts
from tutor_service.client import app_name
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError


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
    """Require room for the replicas that always run; a tutor that runs already has its place.

    Args:
        facts: What the cluster says.
        tutors: What the sweep needs.
        nodes_on_demand: Whether an autoscaler adds nodes that are not there yet; then nothing can be said.

    Raises:
        UserError: GPUs, a kind of GPU or CPUs are missing; says how many and for which tutor.
    """
    waiting = [tutor for tutor in tutors if tutor.is_served and app_name(tutor.name) not in facts.applications]
    if nodes_on_demand or not waiting:
        return
    for tutor in waiting:
        scaling = tutor.scaling
        kind = scaling.accelerator_type
        if scaling.num_gpus > facts.largest("GPU"):
            raise UserError(
                f"tutor '{tutor.name}' needs {scaling.num_gpus:g} GPU(s) on one node; the cluster's largest node has "
                f"{facts.largest('GPU'):g}, all {len(facts.nodes)} together {facts.total('GPU'):g}. Add a GPU node, "
                "give --nodes-on-demand where an autoscaler adds it, or use another tutor."
            )
        if scaling.num_gpus and kind and not facts.total(f"accelerator_type:{kind}"):
            present = sorted(
                name.removeprefix("accelerator_type:")
                for name in {name for node in facts.nodes for name in node}
                if name.startswith("accelerator_type:")
            )
            raise UserError(
                f"tutor '{tutor.name}' needs a GPU of type {kind}; the cluster has {', '.join(present) or 'none'}. "
                "Change scaling.accelerator_type, or add such a node."
            )
    replicas = [(tutor.scaling, tutor.scaling.num_started) for tutor in waiting]
    for resource, needed in (
        ("GPU", sum(scaling.num_gpus * count for scaling, count in replicas)),
        ("CPU", sum(scaling.num_cpus * count for scaling, count in replicas)),
    ):
        if needed > facts.total(resource):
            names = ", ".join(tutor.name for tutor in waiting)
            raise UserError(
                f"tutors {names} need {needed:g} {resource}(s) together; the cluster has {facts.total(resource):g}. "
                "Add nodes, give --nodes-on-demand where an autoscaler adds them, or run the tutors in turn."
            )


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
