"""Refuse a deployment that cannot work before it is tried."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from tutor_service import machine
from tutor_service.config import TutorConfig
from tutor_service.engines import models
from tutor_service.errors import UserError
from tutor_service.gateway.access import HttpConfig
from tutor_service.serving.placement import misfit

ON_DEMAND_VARIABLE = "LLM_TUTORS_NODES_ON_DEMAND"
"""Set where an autoscaler adds the nodes that something waits for: what the cluster has now says nothing then."""

STORE_RESOURCE = "advice_store"
"""Announced by the node that keeps the advice stores, which are local databases: gateways stay there."""

ENGINE_BYTES = 1400 * 2**20
"""Memory of one replica on a CPU beside weights and KV cache: two processes with torch and vLLM."""


def nodes_on_demand() -> bool:
    """Return whether an autoscaler adds the nodes that are missing, by ``$LLM_TUTORS_NODES_ON_DEMAND``."""
    return os.environ.get(ON_DEMAND_VARIABLE, "") not in {"", "0"}


def check_fields(tutor: TutorConfig) -> None:
    """Refuse what is known to be wrong without the cluster."""
    if tutor.scaling.max_replicas < tutor.scaling.min_replicas:
        raise UserError(
            f"tutor '{tutor.name}': scaling.max_replicas = {tutor.scaling.max_replicas} is below "
            f"scaling.min_replicas = {tutor.scaling.min_replicas}."
        )
    if tutor.backend != "openai":
        models.locate(tutor)
    elif not tutor.base_url or not tutor.model:
        raise UserError(f"tutor '{tutor.name}': backend openai needs base_url and model.")


def check_cluster(tutors: Sequence[TutorConfig]) -> None:
    """Refuse tutors whose first replicas the cluster can never hold."""
    for tutor in tutors:
        store_resource(tutor)
    if nodes_on_demand():
        return
    names = ", ".join(tutor.name for tutor in tutors)
    nodes = _nodes()
    if problem := misfit(tutors, nodes):
        raise UserError(
            f"{problem} Use a tutor that runs on a CPU (smollm2), point backend 'openai' at a hosted model, deploy "
            "fewer tutors or replicas, or add a node."
        )
    on_cpu = [tutor for tutor in tutors if tutor.backend == "vllm" and not tutor.scaling.num_gpus]
    if len(nodes) == 1 and on_cpu:
        needed = sum(_memory_bytes(tutor) * tutor.scaling.num_started for tutor in on_cpu)
        available = machine.available_bytes()
        if needed > available:
            raise UserError(
                f"{names}: about {needed / 2**30:.1f} GiB of memory are needed, {available / 2**30:.1f} GiB are "
                "available. Close something, deploy fewer replicas, or lower engine.kv_cache_memory_bytes."
            )


def store_resource(tutor: TutorConfig) -> str | None:
    """Return the resource of the connected cluster's node that a tutor's gateways stay on; None: any node will do.

    Raises:
        UserError: Several gateways are to share a folder, and nothing says on which node.
    """
    nodes = _nodes()
    if any(STORE_RESOURCE in node for node in nodes):
        return STORE_RESOURCE
    if tutor.scaling.gateways > 1 and not tutor.store.is_shared and (len(nodes) > 1 or nodes_on_demand()):
        raise UserError(
            f"tutor '{tutor.name}': scaling.gateways = {tutor.scaling.gateways} share a folder on one node's disk, and "
            f"no node says that it is the one. Start it with `ray start --resources '{{\"{STORE_RESOURCE}\": 1}}'`, "
            "name a database (store: postgresql://…), or set scaling.gateways to 1."
        )
    return None


def _nodes() -> list[dict[str, float]]:
    """Return the resources of each node of the connected cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _memory_bytes(tutor: TutorConfig) -> int:
    """Estimate the memory of one replica on a CPU: weights, doubled while they load, KV cache and two processes."""
    cache = int(tutor.engine.get("kv_cache_memory_bytes", 512 * 2**20))
    return ENGINE_BYTES + 2 * models.weight_bytes(models.locate(tutor)) + cache


def check_port(http: HttpConfig) -> None:
    """Try the port as Serve's proxy will."""
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError as error:
            raise UserError(
                f"port {http.port} on {http.host} cannot be used ({error.strerror}). Choose another with --port, or "
                "end what listens there."
            ) from error
