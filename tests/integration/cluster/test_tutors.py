"""Tutors apart from students: placement as declared, and a tutor scaled 1 → 2 → 0 → 1 while a sweep runs.

Four real nodes with token authentication, two of them with a simulated GPU; a fake endpoint stands in for the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.cluster.nodes import Nodes, free_ports
from tests.integration.cluster.test_submit import SWEEP, tutor, wait
from tests.integration.endpoint_fake import Endpoint, running_endpoint

pytestmark = pytest.mark.timeout(900)

QUESTION = {"rules": "Rules.", "actions": ["left", "right"]}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def gpu_nodes(cluster: Nodes) -> Iterator[None]:
    names = ("tutors-1", "tutors-2")
    for name in names:
        cluster.add(name, 0, num_gpus=1)
    yield
    for name in names:
        cluster.kill(name)


class Tutor:
    """The one tutor of the cluster, deployed by a Serve file as operators do."""

    def __init__(self, cluster: Nodes, endpoint: Endpoint, folder: Path) -> None:
        self.cluster = cluster
        self.port = free_ports(1)[0]
        self.asked = 0
        self.file = folder / "remote.yaml"
        self.file.write_text(yaml.safe_dump({"backend": "openai", "model": "m", "base_url": endpoint.url}))

    def scale(self, least: int, most: int) -> None:
        """Deploys the file again with other numbers of replicas."""
        scaling = {"min_replicas": least, "max_replicas": most, "num_cpus": 0, "num_gpus": 1}
        replica: dict[str, Any] = {"name": "TutorReplica"}
        if least < most:  # by the load, but without the ten minutes that Serve waits before it goes to zero
            delays = {
                "downscale_delay_s": 1,
                "downscale_to_zero_delay_s": 1,
                "upscale_delay_s": 0,
                "look_back_period_s": 2,
            }
            replica["autoscaling_config"] = {"min_replicas": least, "max_replicas": most, **delays}
        gateway = {"name": "TutorGateway", "ray_actor_options": {"num_cpus": 0, "resources": {"advice_store": 0.001}}}
        application = {
            "name": "tutor-remote",
            "route_prefix": "/remote",
            "import_path": "tutor_service.serve_config:build",
            "args": {"tutor": str(self.file), "token_env": "LLM_TUTORS_TOKEN", "scaling": scaling},
            "deployments": [gateway, replica],
        }
        http = {"host": "127.0.0.1", "port": self.port}
        config = {"proxy_location": "HeadOnly", "http_options": http, "applications": [application]}
        headers = {"Authorization": f"Bearer {self.cluster.token}"}
        url = f"{self.cluster.dashboard}/api/serve/applications/"
        httpx.put(url, json=config, headers=headers, timeout=60).raise_for_status()

    def answers(self) -> bool:
        """Whether it gives advice on a state that is new."""
        self.asked += 1
        url = f"http://127.0.0.1:{self.port}/remote/advise"
        body = {"requests": [{**QUESTION, "state": f"State {self.asked}."}]}
        try:
            answer = httpx.post(url, json=body, headers={"Authorization": "Bearer sesame"}, timeout=30)
            return answer.status_code == 200 and "probabilities" in answer.json()["advice"][0]
        except (httpx.HTTPError, ValueError):
            return False

    def places(self, deployment: str) -> list[str]:
        """Names of the nodes that its actors run on."""
        return places(self.cluster, deployment)


def places(cluster: Nodes, class_part: str) -> list[str]:
    """Names of the nodes with actors of a class."""
    names = {}
    for node in cluster.state("nodes", state="ALIVE"):
        names[node["node_id"]] = next(key.removeprefix("node-") for key in node["resources_total"] if "node-" in key)
    actors = cluster.state("actors", state="ALIVE")
    return sorted(
        names[row["node_id"]] for row in actors if class_part in (row["class_name"] or "") + (row["name"] or "")
    )


def steps(journal: Path) -> int:
    """How far the one tutored trial of the sweep is."""
    events = [json.loads(line) for path in journal.glob("*.jsonl") for line in path.read_text().splitlines()]
    return max((event["step"] for event in events if event["event"] == "result"), default=-1)


@pytest.mark.usefixtures("gpu_nodes")
def test_a_tutor_is_scaled_up_to_zero_and_back_while_a_sweep_runs(
    cluster: Nodes, endpoint: Endpoint, tmp_path: Path
) -> None:
    remote = Tutor(cluster, endpoint, tmp_path)
    remote.scale(1, 1)
    wait(remote.answers, "the tutor")
    sweep = tmp_path / "scaled.yaml"
    text = SWEEP.format(name="scaled", steps=3_000_000, interval=500)
    sweep.write_text(text.replace("tutors: [oracle]", f"tutors: [{remote.file}]"))
    journal = tmp_path / "runs" / "scaled" / "journal"
    begun = tutor(
        cluster,
        "submit",
        str(sweep),
        "--address",
        cluster.dashboard,
        "--results",
        str(tmp_path / "runs"),
        "--no-follow",
    )
    assert begun.returncode == 0, begun.stdout + begun.stderr
    wait(lambda: steps(journal) > 0, "the first result")

    assert remote.places("TutorReplica") in (["tutors-1"], ["tutors-2"]), "replicas on GPU nodes"
    assert remote.places("TutorGateway") == ["head"], "the gateway where the store is"
    assert places(cluster, "Trainable") == ["students"], "trials on CPU nodes, the head's CPU being the driver's"

    def goes_on() -> None:
        before = steps(journal)
        wait(lambda: steps(journal) > before, "a result after the change")

    remote.scale(2, 2)
    wait(lambda: remote.places("TutorReplica") == ["tutors-1", "tutors-2"], "two replicas")
    goes_on()
    remote.scale(0, 1)
    wait(lambda: remote.places("TutorReplica") == [], "no replica")
    goes_on()
    wait(remote.answers, "an answer that brings a replica back")
    assert len(remote.places("TutorReplica")) == 1
    goes_on()
    assert places(cluster, "Trainable") == ["students"]
    assert tutor(cluster, "jobs", "stop", "scaled", "--address", cluster.dashboard).returncode == 0
