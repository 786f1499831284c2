"""Manifests for Kubernetes are held to its own schema and KubeRay's, and to what they need of one another."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.unit.deploy_tree import DEPLOY, ROOT, load, load_all

CLUSTERS = {"raycluster": ["spec"], "rayservice": ["spec", "rayClusterConfig"], "rayjob": ["spec", "rayClusterSpec"]}
KUBERAY = sorted((ROOT / "tests" / "data").glob("kuberay-*.json"))
"""What fields resources have, by release of KubeRay (``tools/kuberay_schema.py``)."""
KUBERNETES = ("1.30", "1.37")

Problems = Callable[[dict[str, Any]], list[str]]
"""What is wrong with a resource."""


def kuberay(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A KubeRay resource and the Ray cluster in it."""
    resource = load(DEPLOY / "kuberay" / f"{name}.yaml")
    cluster = resource
    for key in CLUSTERS[name]:
        cluster = cluster[key]
    return resource, cluster


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_ray_service_serves_exactly_the_papers_tutors() -> None:
    from ray.serve.schema import ServeDeploySchema

    resource, _ = kuberay("rayservice")
    config = yaml.safe_load(resource["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(config)
    assert config["applications"] == load(DEPLOY / "serve" / "paper.yaml")["applications"]


@pytest.mark.parametrize("name", CLUSTERS)
class TestKubeRay:
    def test_names_the_resource_and_the_installed_ray(self, name: str) -> None:
        import ray

        resource, cluster = kuberay(name)
        kinds = {"raycluster": "RayCluster", "rayservice": "RayService", "rayjob": "RayJob"}
        assert (resource["apiVersion"], resource["kind"]) == ("ray.io/v1", kinds[name])
        assert cluster["rayVersion"] == ray.__version__

    def test_asks_for_the_token_from_a_secret(self, name: str) -> None:
        _, cluster = kuberay(name)
        assert cluster["authOptions"] == {"mode": "token", "secretName": "llm-tutors-ray-token"}

    def test_groups_are_sound(self, name: str) -> None:
        _, cluster = kuberay(name)
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())
            assert "num-cpus" in group["rayStartParams"]

    def test_every_container_runs_without_root_or_privileges(self, name: str) -> None:
        _, cluster = kuberay(name)
        for pod in pods(cluster):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] == 1000
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
                assert container["resources"]["requests"] == container["resources"]["limits"]

    def test_mounts_are_volumes_and_only_students_announce_cpus(self, name: str) -> None:
        _, cluster = kuberay(name)
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} == volumes
                has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
                students = group.get("groupName") == "students"
                assert students == (group["rayStartParams"]["num-cpus"] != "0") and not (students and has_gpu)
                assert container["image"].endswith("-gpu" if has_gpu else "-cpu")

    def test_claims_exist(self, name: str) -> None:
        claims = {item["metadata"]["name"] for item in load_all(DEPLOY / "kuberay" / "storage.yaml")}
        _, cluster = kuberay(name)
        for pod in pods(cluster):
            wanted = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
            assert wanted <= claims


def test_clusters_that_are_applied_together_share_no_volume_of_one_node() -> None:
    claims = load_all(DEPLOY / "kuberay" / "storage.yaml")
    of_one_node = {c["metadata"]["name"] for c in claims if c["spec"]["accessModes"] == ["ReadWriteOnce"]}
    mounted: list[str] = []
    for name in CLUSTERS:
        _, cluster = kuberay(name)
        for pod in pods(cluster):
            found = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
            mounted += [claim for claim in found if claim in of_one_node]
    assert sorted(mounted) == sorted(of_one_node)


def test_services_that_manifests_name_are_made_by_manifests() -> None:
    job, _ = kuberay("rayjob")
    uri = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]["MLFLOW_TRACKING_URI"]
    made = {
        (item["metadata"]["name"], port["port"])
        for item in load_all(DEPLOY / "kuberay" / "mlflow.yaml")
        if item["kind"] == "Service"
        for port in item["spec"]["ports"]
    }
    assert (urlsplit(uri).hostname, urlsplit(uri).port) in made


def test_a_submitters_pod_reaches_the_dashboard_by_a_label_that_kubernetes_itself_sets() -> None:
    policy = load(DEPLOY / "kuberay" / "networkpolicy.yaml")
    rule = {"key": "batch.kubernetes.io/job-name", "operator": "Exists"}
    sources = [source for entry in policy["spec"]["ingress"] for source in entry["from"]]
    assert {"podSelector": {"matchExpressions": [rule]}} in sources


def test_the_sweeps_cluster_finds_the_tutors_service_and_needs_no_gpu() -> None:
    job, cluster = kuberay("rayjob")
    service, _ = kuberay("rayservice")
    environment = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert environment["LLM_TUTORS_URL"] == f"http://{service['metadata']['name']}-serve-svc:8000"
    assert not [pod for pod in pods(cluster) if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]]


def test_the_sweeps_command_is_one_that_can_run_again_and_keeps_its_results_on_every_node() -> None:
    import typer

    from tune_sweeps.cli.app import app
    from tune_sweeps.definition.loading import load_sweep

    job, cluster = kuberay("rayjob")
    program, command, *arguments = job["spec"]["entrypoint"].split()
    assert program == "tutor"
    given = typer.main.get_command(app).commands[command].make_context(command, arguments).params  # type: ignore[attr-defined]
    assert load_sweep(given["preset"]) and given["name"] and given["resume"] is None  # by its name it goes on
    for pod in pods(cluster):
        shared = {v["name"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        for container in pod["containers"]:
            mounts = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in shared]
            assert any(Path(given["results"]).is_relative_to(mount) for mount in mounts)


@cache
def rendered() -> list[Any]:
    """Return what the example overlay applies."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl, which renders overlays, is not installed")
    command = ["kubectl", "kustomize", str(DEPLOY / "kustomize" / "example")]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def manifests() -> dict[str, list[dict[str, Any]]]:
    """Return the resources of each file that holds any."""
    folders = (DEPLOY / "kuberay").glob("*.yaml"), (DEPLOY / "kustomize" / "components").rglob("*.yaml")
    paths = [path for paths in folders for path in paths if path.name != "kustomization.yaml"]
    assert len(paths) >= 9
    return {path.name: load_all(path) for path in sorted(paths)}


def clusters_pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pods of a KubeRay resource, as resources of Kubernetes."""
    cluster: Any = document
    for key in CLUSTERS[document["kind"].lower()]:
        cluster = cluster[key]
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod} for pod in pods(cluster)]


def rays_problems(document: dict[str, Any], release: Path) -> list[str]:
    """Return what is wrong with a resource by KubeRay's schemas; nothing where it is not KubeRay's."""
    import jsonschema

    if document["apiVersion"] != "ray.io/v1":
        return []
    validator = jsonschema.Draft7Validator(json.loads(release.read_text())["kinds"][document["kind"]])
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(document)]


def kubernetes_problems(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with a resource, or with the pods of a KubeRay resource, by Kubernetes' own schemas."""
    import kubernetes_validate

    if document["apiVersion"].startswith("monitoring.coreos.com/"):
        return []
    found: list[str] = []
    for resource in clusters_pods(document) if document["apiVersion"] == "ray.io/v1" else [document]:
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{resource['kind']}, Kubernetes {version}: {error.message}")
    return found


CHECKS = {path.stem: partial(rays_problems, release=path) for path in KUBERAY} | {"kubernetes": kubernetes_problems}


@pytest.mark.parametrize("problems", CHECKS.values(), ids=CHECKS)
class TestSchemas:
    def test_every_manifest_is_valid(self, problems: Problems) -> None:
        read = manifests()
        assert {name: wrong for name, items in read.items() for item in items if (wrong := problems(item))} == {}

    def test_the_example_overlay_is_valid(self, problems: Problems) -> None:
        assert {item["kind"]: wrong for item in rendered() if (wrong := problems(item))} == {}

    def test_a_misspelt_field_is_found(self, problems: Problems) -> None:
        resource, cluster = kuberay("raycluster")
        assert not problems(resource)
        cluster["workerGroupSpecs"][0]["minReplica"] = 1
        pods(cluster)[0]["tolerationz"] = []
        found = " ".join(problems(resource))
        assert ("tolerationz" if problems is kubernetes_problems else "minReplica") in found


def test_an_overlay_names_images_gpus_volumes_and_namespace_in_one_place() -> None:
    found = rendered()
    assert {item["metadata"]["namespace"] for item in found} == {"llm-tutors"}
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in found}
    cluster = by_name["RayCluster", "llm-tutors"]["spec"]
    assert all(
        container["image"].startswith("registry.example.com/research/llm-tutors:0.1.0-")
        for pod in pods(cluster)
        for container in pod["containers"]
    )
    (tutors,) = (group for group in cluster["workerGroupSpecs"] if group["groupName"] == "tutors")
    pod = tutors["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert {item["key"] for item in pod["tolerations"]} == {"nvidia.com/gpu", "dedicated"}
    assert by_name["PersistentVolumeClaim", "llm-tutors-shared"]["spec"]["storageClassName"] == "shared-files"


def test_the_head_comes_back_from_a_server_that_the_component_makes() -> None:
    found = rendered()
    (cluster,) = (item["spec"] for item in found if item["kind"] == "RayCluster")
    options = cluster["gcsFaultToleranceOptions"]
    host, port = options["redisAddress"].split(":")
    (service,) = (item for item in found if item["kind"] == "Service" and item["metadata"]["name"] == host)
    assert [item["port"] for item in service["spec"]["ports"]] == [int(port)]
    (server,) = (item for item in found if item["kind"] == "StatefulSet" and item["metadata"]["name"] == host)
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"] == options["redisPassword"]["valueFrom"]
    assert not any("PASSWORD" in word for word in shlex.split(container["args"][0].splitlines()[-1]))


def test_every_budget_and_policy_is_about_pods_that_are_made() -> None:
    found = rendered()
    made = [
        item["spec"]["template"]["metadata"]["labels"]
        for item in found
        if item["kind"] in {"StatefulSet", "Deployment"}
    ]
    # KubeRay labels its pods so.
    made += [
        {"ray.io/is-ray-node": "yes", "ray.io/cluster": "llm-tutors", "ray.io/node-type": kind}
        for kind in ("head", "worker")
    ]
    selectors = [
        item["spec"].get("podSelector", item["spec"].get("selector"))["matchLabels"]
        for item in found
        if item["kind"] in {"NetworkPolicy", "PodDisruptionBudget"}
    ]
    assert len(selectors) >= 7
    for wanted in selectors:
        assert any(wanted.items() <= labels.items() for labels in made), wanted
