"""Several real Ray nodes on one machine, each of which can be killed, frozen or cut off. Knows no tutors and no sweeps.

A node is what ``ray start --block`` starts: a raylet with its agents and workers, in a process group of its own. Where
network namespaces are permitted (root, ``ip``) a node can have one, with an address of its own, so that cutting its
link is a partition; elsewhere a partition is a node whose processes are stopped. Shared by the fault drill and the
tests of clusters.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

RAY = Path(sys.executable).parent / "ray"
SUBNET = "10.213.7"
START_S = 120.0
_OBJECT_STORE_BYTES = 80 * 2**20
_GRACE_S = 10.0
_ATTEMPTS = 5


@dataclass
class Node:
    """One running node.

    Attributes:
        name: What the caller calls it.
        process: Its ``ray start --block``.
        address: Its IP address.
        namespace: Its network namespace; None: the machine's own.
        log: What ``ray start`` said.
    """

    name: str
    process: subprocess.Popen[bytes]
    address: str
    namespace: str | None
    log: Path

    def processes(self) -> list[psutil.Process]:
        """All processes of the node, workers and what they started included, also where ``ray start`` has ended."""
        return list({*with_children(self.process.pid), *in_session(self.process.pid)})


@dataclass
class Nodes:
    """A cluster of nodes on this machine.

    Attributes:
        folder: Ray's own files, and nodes' logs.
        token: Ray's token.
        namespaces: Whether nodes beside the head get network namespaces.
        gcs: Address that nodes and drivers connect to.
        dashboard: Base address of the dashboard.
        nodes: By name.
        environment: Environment variables of all nodes beside those of this process.
    """

    folder: Path
    token: str
    namespaces: bool
    gcs: str = ""
    dashboard: str = ""
    nodes: dict[str, Node] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    _http: Any = None

    def environ(self) -> dict[str, str]:
        """The environment in which nodes run, and clients may."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
        return (
            kept
            | self.environment
            | {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": self.token,
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
                "PATH": f"{RAY.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            }
        )

    def start_head(self, num_cpus: int, resources: Mapping[str, float] | None = None) -> Node:
        """Starts the head, with dashboard and job server on loopback, and waits until it takes jobs."""
        return self._tenaciously("head", lambda: self._lead(num_cpus, resources or {}))

    def add(self, name: str, num_cpus: int, num_gpus: int = 0, apart: bool = True, niceness: int = 0) -> Node:
        """Starts a node and waits until the head knows it.

        Args:
            name: Its name; a resource ``node-NAME`` stands for it in Ray.
            num_cpus: CPUs that it announces.
            num_gpus: GPUs that it announces; whether there are any is not looked at.
            apart: Whether it gets a network namespace, where the cluster has them. What looks up this machine's own
                name finds an address there that is not its own; vLLM does so.
            niceness: Of its workers: nodes that stand for other machines take the processor from each other here.
        """
        return self._tenaciously(
            name, lambda: self._join(name, num_cpus, num_gpus, apart and self.namespaces, niceness)
        )

    def _tenaciously(self, name: str, start: Callable[[], Node]) -> Node:
        """Starts a node, again where it fails: Ray gives a node 30 s to come up, which a busy machine can exceed."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return start()
            except RuntimeError:
                self.kill(name)
        return start()

    def _lead(self, num_cpus: int, resources: Mapping[str, float]) -> Node:
        gcs_port, dashboard_port, client_port = free_ports(3)
        address = f"{SUBNET}.1" if self.namespaces else "127.0.0.1"
        options = [
            "--head",
            f"--port={gcs_port}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard_port}",
            f"--ray-client-server-port={client_port}",
        ]
        node = self._start("head", None, address, num_cpus, 0, resources, options)
        started = time.monotonic()
        address_file = node.log.parent / "ray_current_cluster"  # written after the runtime has started
        while not (address_file.exists() and (gcs := address_file.read_text().strip())):
            self._check(node, started)
        self.gcs = gcs
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        while not self._takes_jobs():
            self._check(node, started)
        return node

    def _join(self, name: str, num_cpus: int, num_gpus: int, apart: bool, niceness: int) -> Node:
        namespace, address = None, self.nodes["head"].address
        if apart:
            address = f"{SUBNET}.{self._free_host()}"
            namespace = f"lt{os.getpid()}-{secrets.token_hex(3)}"
            make_namespace(namespace, address)
        before = {row["node_id"] for row in self.state("nodes")}
        options = [f"--address={self.gcs}"]
        node = self._start(name, namespace, address, num_cpus, num_gpus, {}, options, niceness)
        started = time.monotonic()
        while not any(
            row["node_id"] not in before and row["state"] == "ALIVE" and f"node-{name}" in row["resources_total"]
            for row in self.state("nodes")
        ):
            self._check(node, started)
        set_share(node.process.pid, niceness)  # not before: Ray gives a node 30 s to come up
        return node

    def alive(self) -> int:
        """Nodes that the head takes for alive."""
        return len([node for node in self.state("nodes") if node["state"] == "ALIVE"])

    def state(self, what: str, **filters: str) -> list[dict[str, Any]]:
        """Rows of Ray's state API: ``nodes``, ``actors``, ``workers`` and so on, that match."""
        params: list[tuple[str, str | int]] = [("limit", 10_000), ("detail", "true")]
        for key, value in filters.items():
            params += [("filter_keys", key), ("filter_predicates", "="), ("filter_values", value)]
        response = self._client().get(
            f"{self.dashboard}/api/v0/{what}",
            params=params,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=30,
        )
        response.raise_for_status()
        rows: list[dict[str, Any]] = response.json()["data"]["result"]["result"]
        return rows

    def _client(self) -> Any:
        """One client for all questions: each new one costs more processor than its question."""
        import httpx

        if self._http is None:
            self._http = httpx.Client()
        return self._http

    def _takes_jobs(self) -> bool:
        """Whether the job server has found its agent, which is seconds after the head is up."""
        import httpx

        response = httpx.post(
            f"{self.dashboard}/api/jobs/",
            json={"entrypoint": "true"},
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
        )
        return response.status_code == 200

    def kill(self, name: str) -> None:
        """SIGKILL to every process of a node at once, as a machine that loses power."""
        node = self.nodes.pop(name)
        kill_all(node.processes())
        node.process.wait(_GRACE_S)
        if node.namespace:
            drop_namespace(node.namespace)

    @contextmanager
    def cut_off(self, name: str) -> Iterator[str]:
        """Takes a node off the network for the time of the block; yields how that was done."""
        node = self.nodes[name]
        if node.namespace:
            link = ["ip", "link", "set", _outer(node.namespace)]
            subprocess.run([*link, "down"], check=True)
            try:
                yield "its link is down"
            finally:
                subprocess.run([*link, "up"], check=True)
            return
        stopped = node.processes()
        for process in stopped:
            process.suspend()
        try:
            yield "its processes are stopped"
        finally:
            for process in stopped:
                if process.is_running():
                    process.resume()

    def close(self) -> None:
        """Ends all nodes, the head last, and removes their files."""
        for name in [
            *(name for name in self.nodes if name != "head"),
            *(name for name in self.nodes if name == "head"),
        ]:
            self.kill(name)
        if self._http is not None:
            self._http.close()
        if self.namespaces:
            subprocess.run(["ip", "link", "del", _bridge()], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(
        self,
        name: str,
        namespace: str | None,
        address: str,
        num_cpus: int,
        num_gpus: int,
        resources: Mapping[str, float],
        options: list[str],
        niceness: int = 0,
    ) -> Node:
        place = self.folder / f"{len(list(self.folder.iterdir()))}"  # nodes that share one spoil each other's packages
        place.mkdir()
        log = place / "start.log"
        command = [
            *(["ip", "netns", "exec", namespace] if namespace else []),
            sys.executable,
            str(RAY),
            "start",
            "--block",
            "--disable-usage-stats",
            f"--temp-dir={place}",
            f"--node-ip-address={address}",
            f"--num-cpus={num_cpus}",
            f"--num-gpus={num_gpus}",
            f"--resources={json.dumps({**resources, f'node-{name}': 1})}",
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            # Ray's default is one fixed port: with it taken, by any other Ray on this machine, a head takes no jobs.
            f"--dashboard-agent-listen-port={free_ports(1)[0]}",
            *options,
        ]
        with log.open("wb") as output:
            environ = {**self.environ(), "RAY_worker_niceness": str(niceness)}
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environ, start_new_session=True, cwd=self.folder
            )
        node = Node(name, process, address, namespace, log)
        self.nodes[name] = node
        return node

    def _check(self, node: Node, started: float) -> None:
        if node.process.poll() is not None or time.monotonic() - started > START_S:
            raise RuntimeError(f"node '{node.name}' did not start:\n{node.log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)

    def _free_host(self) -> int:
        taken = {node.address for node in self.nodes.values()}
        return next(number for number in range(2, 250) if f"{SUBNET}.{number}" not in taken)


@contextmanager
def nodes(token: str | None = None, namespaces: bool = False, **environment: str) -> Iterator[Nodes]:
    """A cluster without nodes yet; whatever is started in the block ends with it.

    Args:
        token: Ray's token; None: a random one.
        namespaces: Whether nodes get network namespaces, where that is permitted.
        environment: Environment variables of all nodes.
    """
    folder = Path(tempfile.mkdtemp(prefix="lt-", dir="/tmp"))  # Ray's sockets allow only short paths
    cluster = Nodes(folder, token or secrets.token_hex(32), namespaces and make_bridge(), environment=environment)
    try:
        yield cluster
    finally:
        cluster.close()


def set_share(pid: int, niceness: int) -> None:
    """Makes a session yield to others: where the kernel groups tasks by session, niceness counts within one only."""
    group = Path(f"/proc/{pid}/autogroup")
    if niceness and group.exists():
        group.write_text(str(niceness))


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def with_children(pid: int) -> list[psutil.Process]:
    """A process and all that it started, as long as it is there."""
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def in_session(leader: int) -> list[psutil.Process]:
    """Processes of a session; it is there for as long as one of them is, its leader or not."""
    found = []
    for pid in psutil.pids():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(pid) == leader:
                found.append(psutil.Process(pid))
    return found


def kill_all(processes: list[psutil.Process], number: int = signal.SIGKILL) -> None:
    """Sends a signal to processes, those that are gone already aside, and waits for their end."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, _GRACE_S)


def _bridge() -> str:
    return f"ltb{os.getpid()}"


def _outer(namespace: str) -> str:
    return f"v{namespace[2:]}"[:15]


def make_bridge() -> bool:
    """Makes the network that namespaces hang on; False where that is not permitted."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    commands = [
        ["ip", "link", "add", _bridge(), "type", "bridge"],
        ["ip", "addr", "add", f"{SUBNET}.1/24", "dev", _bridge()],
        ["ip", "link", "set", _bridge(), "up"],
    ]
    return all(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)


def make_namespace(name: str, address: str) -> None:
    """Makes a network namespace with one address on the bridge."""
    outer = _outer(name)
    inside = ["ip", "-n", name]
    for command in (
        ["ip", "netns", "add", name],
        ["ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "link", "set", outer, "master", _bridge()],
        ["ip", "link", "set", outer, "up"],
        [*inside, "addr", "add", f"{address}/24", "dev", "eth0"],
        [*inside, "link", "set", "eth0", "up"],
        [*inside, "link", "set", "lo", "up"],
    ):
        subprocess.run(command, check=True, capture_output=True)


def drop_namespace(name: str) -> None:
    """Removes a network namespace with its link."""
    subprocess.run(["ip", "link", "del", _outer(name)], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
