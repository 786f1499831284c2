"""`tutor submit` and Ray's own command against a real cluster with token authentication: two nodes and a dashboard."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.cluster.nodes import Nodes

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[3]
SWEEP = """
name: {name}
algorithms: [ppo]
tutors: [oracle]
tasks: [blackjack]
reuse: [on]
baselines: false
num_env_steps: {steps}
evaluation: {{interval_steps: {interval}}}
resources: {{num_cpus_per_trial: 0.5}}
"""

pytestmark = pytest.mark.timeout(900)


def tutor(cluster: Nodes, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `tutor` as a user of the cluster would; what the cluster's nodes have in their environment, it has not."""
    command = [str(BIN / "tutor"), *arguments]
    environ = {**cluster.environ(), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, cwd=cluster.folder)


def sweep_file(folder: Path, name: str, steps: int = 400, interval: int = 200) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(SWEEP.format(name=name, steps=steps, interval=interval))
    return str(path)


class TestRefusals:
    """Each ends with one line that says what to do, and leaves no job; how soon, benchmarks/refusals.py measures."""

    def refused(self, cluster: Nodes, *arguments: str, **environment: str) -> str:
        result = tutor(cluster, *arguments, **environment)
        assert result.returncode == 2, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return " ".join(result.stderr.split())

    def test_wrong_token(self, cluster: Nodes) -> None:
        wrong = "f" * 64
        text = self.refused(cluster, "submit", "demo", "--address", cluster.dashboard, RAY_AUTH_TOKEN=wrong)
        assert "refuses the token" in text and wrong not in text

    def test_no_token(self, cluster: Nodes, tmp_path: Path) -> None:
        text = self.refused(
            cluster, "submit", "demo", "--address", cluster.dashboard, RAY_AUTH_TOKEN="", HOME=str(tmp_path)
        )
        assert "asks for a token" in text

    def test_gpu_tutor_on_a_cluster_without_gpus(self, cluster: Nodes) -> None:
        text = self.refused(cluster, "submit", "paper", "--address", cluster.dashboard)
        assert "'llama' needs 1 GPU on one node; the cluster's" in text

    def test_unwritable_results_folder(self, cluster: Nodes, tmp_path: Path) -> None:
        """The nodes find it: what they say is shown, and the job has failed."""
        (tmp_path / "file").touch()
        results = str(tmp_path / "file" / "runs")
        path = sweep_file(tmp_path, "unwritable")
        result = tutor(cluster, "submit", path, "--address", cluster.dashboard, "--results", results, "--no-follow")
        assert result.returncode == 1
        assert f"the results folder '{results}' cannot be written on the cluster's head" in result.stdout
        assert "failed" in result.stdout


class TestSweeps:
    def test_runs_follows_and_is_a_no_op_the_second_time(self, cluster: Nodes, tmp_path: Path) -> None:
        path, results = sweep_file(tmp_path, "small"), str(tmp_path / "runs")
        arguments = ["submit", path, "--address", cluster.dashboard, "--results", results]
        first = tutor(cluster, *arguments)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "job 'sweep-small'" in first.stdout
        assert "the nodes are fit; the sweep begins (2 looked at)" in first.stdout
        assert "finished: 1 of 1 trials" in first.stdout
        again = tutor(cluster, *arguments)
        assert again.returncode == 0 and "job 'sweep-small.2'" in again.stdout
        assert "nothing to run" in again.stdout
        listing = tutor(cluster, "jobs", "list", "--address", cluster.dashboard)
        assert "sweep-small.2" in listing.stdout and "succeeded" in listing.stdout

    def test_stop_stops_and_submitting_again_continues(self, cluster: Nodes, tmp_path: Path) -> None:
        path, results = sweep_file(tmp_path, "long", steps=3_000_000, interval=500), tmp_path / "runs"
        address = ["--address", cluster.dashboard]
        arguments = ["submit", path, *address, "--results", str(results), "--no-follow"]
        begun = tutor(cluster, *arguments)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        journal = results / "long" / "journal"
        wait(lambda: any('"result"' in file.read_text() for file in journal.glob("*.jsonl")), "a first result")
        clash = tutor(cluster, *arguments)
        assert clash.returncode == 2 and "runs on this cluster already, as job 'sweep-long'" in clash.stderr
        assert tutor(cluster, "jobs", "stop", "long", *address).returncode == 0
        wait(lambda: "stopped" in tutor(cluster, "jobs", "list", *address).stdout, "the job's end")
        wait(lambda: not alive(cluster, "Trainable"), "the trials' end")
        assert not any('"done"' in file.read_text() for file in journal.glob("*.jsonl"))

    def test_rays_own_command_works_too_with_the_code_of_a_checkout(self, cluster: Nodes, tmp_path: Path) -> None:
        """The checkout has a preset that the installed package has not, so that its code must be what runs."""
        checkout = tmp_path / "checkout"
        for package in ("tutor_service", "rllib_plugins", "tune_sweeps"):
            shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
        sweep_file(checkout / "tune_sweeps" / "presets", "only-here")
        command = [str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard, "--working-dir", str(checkout)]
        command += ["--", "tutor", "sweep", "only-here", "--results", str(tmp_path / "runs")]
        result = subprocess.run(command, capture_output=True, text=True, env=cluster.environ(), timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "finished: 1 of 1 trials" in result.stdout


def wait(condition: Any, what: str, limit_s: float = 180) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        time.sleep(0.5)


def alive(cluster: Nodes, class_name: str) -> list[dict[str, Any]]:
    return [row for row in cluster.state("actors", state="ALIVE") if class_name in row["class_name"]]


GRPC_METHODS = (
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.NodeManagerService/GetResourceLoad",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.RayletDriver/ClusterInfo",
)


class TestPorts:
    """Without the token every port refuses; Prometheus' ports, which take no commands, are the one exception."""

    def test_every_port_of_every_node(self, cluster: Nodes) -> None:
        assert len(listening(cluster)) > 10

        def unguarded() -> dict[str, str]:
            """Processes of Ray that are only just starting, or ending, are looked at again."""
            return {
                f"{host}:{port}": command
                for (host, port), command in listening(cluster).items()
                if not refuses(host, port) and not exports_metrics(host, port)
            }

        deadline = time.monotonic() + 60
        while (found := unguarded()) and time.monotonic() < deadline:
            time.sleep(1)
        assert found == {}

    def test_the_job_server_tells_a_missing_from_a_wrong_token(self, cluster: Nodes) -> None:
        url = f"{cluster.dashboard}/api/jobs/"
        body = {"entrypoint": "true"}
        assert httpx.post(url, json=body).status_code == 401
        assert httpx.post(url, json=body, headers={"Authorization": "Bearer wrong"}).status_code == 403


def listening(cluster: Nodes) -> dict[tuple[str, int], str]:
    """Where the nodes' processes listen, by an address that reaches it, with their command lines."""
    found = {}
    for node in cluster.nodes.values():
        for process in node.processes():
            for socket in connections(process):
                if socket.status == psutil.CONN_LISTEN:
                    host = "127.0.0.1" if socket.laddr.ip in {"::", "0.0.0.0", "::1"} else socket.laddr.ip
                    found[host.removeprefix("::ffff:"), socket.laddr.port] = " ".join(command(process))
    return found


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def connections(process: psutil.Process) -> list[Any]:
    try:
        return list(process.net_connections(kind="tcp"))
    except psutil.Error:
        return []


def exports_metrics(host: str, port: int) -> bool:
    """Whether a port is an exporter of Prometheus', which tells figures and takes no commands."""
    try:
        answer = httpx.get(f"http://{host}:{port}/metrics", timeout=10)
        commanded = httpx.post(f"http://{host}:{port}/metrics", json={}, timeout=10)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and answer.text.startswith("# HELP") and commanded.status_code >= 400


def refuses(host: str, port: int) -> bool:
    """Whether a port answers 401 to HTTP, or UNAUTHENTICATED to any gRPC method of Ray's, without a token."""
    import grpc

    try:
        if httpx.get(f"http://{host}:{port}/", timeout=3).status_code in {401, 403}:
            return True
        if httpx.post(f"http://{host}:{port}/api/jobs/", json={}, timeout=3).status_code in {401, 403}:
            return True
    except httpx.HTTPError:
        pass
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in GRPC_METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=5)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:  # type: ignore[attr-defined]
                    return True
                if error.code() == grpc.StatusCode.UNAVAILABLE:  # type: ignore[attr-defined]
                    break
    return False
