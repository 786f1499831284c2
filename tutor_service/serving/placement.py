"""Decide whether replicas fit on nodes together: arithmetic on resources, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tutor_service.config import ScalingConfig, TutorConfig

Resources = Mapping[str, float]
_ACCELERATOR = "accelerator_type:"


class Replica(NamedTuple):
    """What one replica of a tutor takes."""

    tutor: str
    needs: dict[str, float]


def replica_needs(scaling: ScalingConfig) -> dict[str, float]:
    """Return what one replica takes of a node, by Ray's names of resources."""
    needs = {"CPU": scaling.num_cpus, "GPU": scaling.num_gpus}
    if scaling.num_gpus and scaling.accelerator_type:
        needs[_ACCELERATOR + scaling.accelerator_type] = 0.001
    return {name: amount for name, amount in needs.items() if amount}


def fits(needs: Resources, node: Resources) -> bool:
    """Say whether a node has everything that a replica takes, together."""
    return all(node.get(name, 0.0) >= amount - 1e-9 for name, amount in needs.items())


def unplaceable(replicas: Sequence[Replica], nodes: Sequence[Resources]) -> Replica | None:
    """Return a replica that finds no place beside the others; None: all do.

    Places the largest first, on the fullest node that takes it (best fit, decreasing), once by GPUs and once by CPUs.

    Args:
        replicas: What has to run at the same time.
        nodes: What each node has free.
    """
    left_over = None
    for first, second in (("GPU", "CPU"), ("CPU", "GPU")):
        ordered = sorted(replicas, key=lambda r: (r.needs.get(first, 0.0), r.needs.get(second, 0.0)), reverse=True)
        left_over = _first_left_over(ordered, [dict(node) for node in nodes])
        if left_over is None:
            return None
    return left_over


def _first_left_over(replicas: Sequence[Replica], free: list[dict[str, float]]) -> Replica | None:
    for replica in replicas:
        takers = [node for node in free if fits(replica.needs, node)]
        if not takers:
            return replica
        chosen = min(takers, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)))
        for name, amount in replica.needs.items():
            chosen[name] -= amount
    return None


def describe(resources: Resources) -> str:
    """Name resources for a person: ``1 GPU (A100) and 2 CPUs``."""
    kind = next((name.removeprefix(_ACCELERATOR) for name in resources if name.startswith(_ACCELERATOR)), None)
    parts = []
    for name in ("GPU", "CPU"):
        if amount := resources.get(name, 0.0):
            of_kind = f" ({kind})" if kind and name == "GPU" else ""
            parts.append(f"{amount:g} {name}{'s' if amount != 1 else ''}{of_kind}")
    return " and ".join(parts) or "nothing"


def misfit(tutors: Sequence[TutorConfig], nodes: Sequence[Resources]) -> str | None:
    """Say in one sentence why the replicas that tutors start with do not fit on nodes; None: they do.

    Args:
        tutors: Those that are to run at the same time.
        nodes: Resources of each node, by Ray's names.
    """
    started = [Replica(t.name, replica_needs(t.scaling)) for t in tutors for _ in range(t.scaling.num_started)]
    left_over = unplaceable(started, nodes)
    if left_over is None:
        return None
    shown = "; ".join(sorted({describe(node) for node in nodes})) or "none"
    if any(fits(left_over.needs, node) for node in nodes):
        names = ", ".join(tutor.name for tutor in tutors)
        return (
            f"tutors {names} do not fit together: a replica of '{left_over.tutor}' ({describe(left_over.needs)} on one "
            f"node) is left over; the cluster's {len(nodes)} node(s) have: {shown}."
        )
    cpus = left_over.needs.get("CPU", 0.0)
    without_cpus = {name: amount for name, amount in left_over.needs.items() if name != "CPU"}
    hint = ""
    if cpus and left_over.needs.get("GPU") and any(fits(without_cpus, node) for node in nodes):
        hint = " Set scaling.num_cpus: 0, as GPU nodes that announce no CPUs need it."
    return (
        f"tutor '{left_over.tutor}' needs {describe(left_over.needs)} on one node; the cluster's {len(nodes)} node(s) "
        f"have: {shown}.{hint}"
    )
