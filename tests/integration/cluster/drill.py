"""The stage of the fault drill: a small cluster, a real tutor on a "GPU" node, MLflow, and sweeps that run on them.

Owns starting, finding and watching; which faults strike, and what has to hold afterwards, is the drill's own matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.integration.cluster.memory import role
from tests.integration.cluster.nodes import Nodes, free_ports, kill_all, nodes, with_children
from tutor_service.engines.process import MODULE as ENGINE

TUTOR = "smollm2"
APPLICATION = f"tutor-{TUTOR}"
TRIAL_CLASS = "Trainable"
"""In the class name of every trial's actor."""

HTTP_TOKEN = "drill"
START_S = 300.0
VICTIM_S = 60.0
CPUS_PER_STUDENT_NODE = 1

CPU_ENGINE = {
    "dtype": "float32",
    "block_size": 32,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 512 * 2**20,
    "max_num_seqs": 64,
}
"""For an actor that holds a "GPU" which is none: vLLM runs on the CPU all the same."""

CPU_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
RAY_MEMORY = {
    "MALLOC_CONF": "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:1,tcache:false",
    "RAY_task_events_max_num_task_in_gcs": "1000",
    "RAY_maximum_gcs_destroyed_actor_cached_count": "100",
    "RAY_maximum_gcs_dead_worker_cached_count": "100",
    "RAY_maximum_gcs_dead_node_cached_count": "5",
}
"""Ray keeps 100,000 of each past task, actor and worker; jemalloc, which its daemons preload, keeps freed pages while
threads are idle, and freed memory for each of some twenty threads. Half an hour does not fill such caches. Bounded so
low, or left out, they fill within minutes, and what still grows then is a leak. The images (deploy/docker/Dockerfile)
bound what Ray keeps, too, higher."""

STUDENT_NICENESS = 10
"""On a cluster students cannot slow a tutor's start, since its node is another machine; here they share its cores. The
priority that trials give themselves does not help here, where the kernel weighs nodes as groups (see ``set_share``)."""

SWEEP = {
    "algorithms": ["ppo", "a2c"],
    "tutors": [TUTOR],
    "tasks": ["blackjack", "snake"],
    "reuse": ["on"],
    "num_env_steps": {"blackjack": 12000, "snake": 480},
    "evaluation": {"interval_steps": 80, "episodes": 2},
    "resources": {"num_cpus_per_trial": 0.5, "max_concurrent": 3},
    "failures": {"max_failures": 20, "checkpoint_every": 1, "checkpoint_every_s": 0},
    "overrides": [{"match": {"task": ["blackjack"]}, "set": {"eval_interval_steps": 1000}}],
}


class Mlflow:
    """An MLflow server over SQLite that can be killed and started again at its address.

    Args:
        folder: Database, artifacts and log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "mlflow"),
                    "server",
                    f"--backend-store-uri=sqlite:///{self.folder / 'mlflow.db'}",
                    f"--artifacts-destination={self.folder / 'artifacts'}",
                    "--host=127.0.0.1",
                    f"--port={self.port}",
                    "--workers=1",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        wait_for(lambda: answers(f"{self.uri}/health"), START_S, "MLflow")

    def kill(self) -> None:
        """SIGKILL to the server and its workers."""
        if self.process is not None:
            kill_all(self.processes())
            self.process.wait()
            self.process = None

    def processes(self) -> list[psutil.Process]:
        """The server and its workers."""
        server = self.process
        return with_children(server.pid) if server is not None else []


@dataclass
class Stage:
    """All that runs during the drill.

    Attributes:
        nodes: The cluster.
        mlflow: Where runs are kept.
        results: The results folder, shared by all nodes since they are on one machine.
        http_port: Where the tutor answers HTTP.
        sweeps: Names of the sweeps that were submitted.
    """

    nodes: Nodes
    mlflow: Mlflow
    results: Path
    http_port: int
    sweeps: list[str] = field(default_factory=list)
    _asked: int = 0
    _added: int = 0

    @property
    def log(self) -> Path:
        """Where commands write what they print."""
        return self.results.parent / "commands.log"

    def add_student_node(self) -> None:
        """Adds a node for trials."""
        self._added += 1
        self.nodes.add(f"students-{self._added}", CPUS_PER_STUDENT_NODE, niceness=STUDENT_NICENESS)

    def add_tutor_node(self) -> None:
        """Adds a node with a "GPU", which holds one replica."""
        self._added += 1
        self.nodes.add(f"tutors-{self._added}", 0, num_gpus=1, apart=False)

    def deploy_tutor(self) -> None:
        """Deploys the tutor by a Serve config, as ``serve deploy`` does, and waits until it answers."""
        config = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.http_port},
            "applications": [
                {
                    "name": APPLICATION,
                    "route_prefix": f"/{TUTOR}",
                    "import_path": "tutor_service.serve_config:build",
                    "args": {
                        "tutor": TUTOR,
                        "token_env": "LLM_TUTORS_TOKEN",
                        "scaling": {"min_replicas": 1, "max_replicas": 1, "num_cpus": 0, "num_gpus": 1},
                        "engine": CPU_ENGINE,
                    },
                    "deployments": [
                        {
                            "name": "TutorGateway",
                            "ray_actor_options": {"num_cpus": 0, "resources": {"advice_store": 0.001}},
                        }
                    ],
                }
            ],
        }
        self._dashboard("PUT", "/api/serve/applications/", config)
        try:
            wait_for(self.tutor_answers, START_S, "the tutor")
        except TimeoutError as error:
            state = self.applications().get(APPLICATION, {})
            messages = [item.get("message", "") for item in (state, *state.get("deployments", {}).values())]
            raise TimeoutError(f"{error}; Serve says: {' '.join(messages)}") from error

    def applications(self) -> dict[str, Any]:
        """Serve applications by name."""
        found: dict[str, Any] = self._dashboard("GET", "/api/serve/applications/")["applications"]
        return found

    def serve_runs(self, without: int) -> bool:
        """Whether another controller than that of a process id is there and has a replica of the tutor running."""
        controllers = {actor["pid"] for actor in self.actors("SERVE_CONTROLLER")} - {without}
        application = self.applications().get(APPLICATION, {}) if controllers else {}
        return application.get("status") == "RUNNING" and bool(self.actors("TutorReplica"))

    def tutor_answers(self) -> bool:
        """Whether the tutor gives advice on a state that no one asked about before."""
        import httpx

        self._asked += 1
        request = {
            "rules": "You are asked whether a number is even.",
            "state": f"The number is {self._asked}{time.time_ns() % 1_000_000}.",
            "actions": ["yes", "no"],
        }
        try:
            response = httpx.post(
                f"http://127.0.0.1:{self.http_port}/{TUTOR}/advise",
                json={"requests": [request]},
                headers={"Authorization": f"Bearer {HTTP_TOKEN}"},
                timeout=30,
            )
            return response.status_code == 200 and "probabilities" in response.json()["advice"][0]
        except (httpx.HTTPError, ValueError, KeyError):
            return False

    def submit(self, name: str, seeds: list[int]) -> None:
        """Submits a sweep, or submits it again, by the command that operators use."""
        path = self.results.parent / f"{name}.yaml"
        path.write_text(json.dumps({**SWEEP, "name": name, "seeds": seeds}))
        command = [
            str(Path(sys.executable).parent / "tutor"),
            "submit",
            str(path),
            f"--address={self.nodes.dashboard}",
            f"--results={self.results}",
            f"--tracking-uri={self.mlflow.uri}",
            "--no-follow",
        ]
        with self.log.open("ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, env=self.nodes.environ(), timeout=START_S)
        if name not in self.sweeps:
            self.sweeps.append(name)

    def points(self, sweep: str) -> dict[str, list[dict[str, Any]]]:
        """Events of a sweep's journal by trial, as they are on disk."""
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted((self.results / sweep / "journal").glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if event := _parse(line):
                    found.setdefault(event["trial"], []).append(event)
        return found

    def running(self, sweep: str) -> dict[str, int]:
        """Trials that have begun and not ended, with the number of results so far."""
        return {
            key: sum(event["event"] == "result" for event in events)
            for key, events in self.points(sweep).items()
            if events and not any(event["event"] in {"done", "failed"} for event in events)
        }

    def finished(self, sweep: str) -> dict[str, str]:
        """Trials that have ended, and how."""
        return {
            key: event["event"]
            for key, events in self.points(sweep).items()
            for event in events
            if event["event"] in {"done", "failed"}
        }

    def job_ended(self, sweep: str) -> bool:
        """Whether the latest job of a sweep is over, or there is none."""
        jobs = [job for job in self._jobs() if (job.get("metadata") or {}).get("llm_tutors.sweep") == sweep]
        latest = max(jobs, key=lambda job: job["start_time"], default={"status": "FAILED"})
        return latest["status"] in {"SUCCEEDED", "FAILED", "STOPPED"}

    def actors(self, class_part: str) -> list[dict[str, Any]]:
        """Actors that are alive and whose class or name holds a word."""
        rows = self.nodes.state("actors", state="ALIVE")
        return [row for row in rows if class_part in (row["class_name"] or "") or class_part in (row["name"] or "")]

    def some(self, class_part: str) -> list[dict[str, Any]]:
        """As ``actors``, by ascending process id; waits for the first one.

        Raises:
            TimeoutError: There is none.
        """
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = self.actors(class_part)
            return bool(found)

        wait_for(look, VICTIM_S, f"an actor '{class_part}'")
        return sorted(found, key=lambda row: row["pid"])

    def node_of(self, actor: dict[str, Any]) -> str:
        """Our name of the node that an actor runs on."""
        for node in self.nodes.state("nodes", state="ALIVE"):
            if node["node_id"] == actor["node_id"]:
                names = [name for name in node["resources_total"] if name.startswith("node-")]
                return names[0].removeprefix("node-")
        raise LookupError(f"no node of actor {actor['class_name']}")

    def leftovers(self) -> list[str]:
        """What only a sweep that runs may have: drivers, trials, and engines without a replica."""
        replicas = {actor["pid"] for actor in self.actors("TutorReplica")}
        engines = [
            process
            for node in self.nodes.nodes.values()
            for process in node.processes()
            if ENGINE in _command(process) and process.ppid() not in replicas
        ]
        trials = [actor["pid"] for actor in self.actors(TRIAL_CLASS)]
        return [
            *(f"driver {process.pid}" for process in self.drivers()),
            *(f"trial {pid}" for pid in trials),
            *(f"engine {process.pid}" for process in engines),
        ]

    def stray_files(self) -> list[Path]:
        """Half-written results, and temporary folders of ours that nobody will come back for."""
        return [
            *(path for pattern in (".nodes-*", ".writable-*", "*.part") for path in self.results.rglob(pattern)),
            *Path(self.nodes.environment["TMPDIR"]).glob("llm-tutors-*"),
        ]

    def processes(self) -> list[psutil.Process]:
        """All processes of all nodes, and of MLflow."""
        found = [process for node in list(self.nodes.nodes.values()) for process in node.processes()]
        return found + self.mlflow.processes()

    def census(self) -> Counter[str]:
        """How many processes there are of each kind, Ray's idle workers aside."""
        found: Counter[str] = Counter()
        for process in self.processes():
            with suppress(psutil.Error):
                found[role(process)] += 1
        return Counter({kind: count for kind, count in found.items() if not kind.startswith("ray::IDLE")})

    def drivers(self) -> list[psutil.Process]:
        """Processes that run a sweep's driver."""
        return [
            process
            for process in self.nodes.nodes["head"].processes()
            if (command := _command(process)) and "--name" in command and "sweep" in command and "-c" in command[:2]
        ]

    def _jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._dashboard("GET", "/api/jobs/")
        return found

    def _dashboard(self, method: str, path: str, body: Any = None) -> Any:
        import httpx

        response = httpx.request(
            method,
            f"{self.nodes.dashboard}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.nodes.token}"},
            timeout=60,
        )
        response.raise_for_status()
        return response.json() if response.content else None


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """The whole stage, torn down at the end of the block; says what it does.

    Args:
        folder: Results, MLflow's database and logs; nothing of it is removed.
    """
    from tutor_service import paths

    folder.mkdir(parents=True, exist_ok=True)
    mlflow = Mlflow(folder / "mlflow")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    if not (home / "models").exists():
        (home / "models").symlink_to(paths.models_dir())  # the embedded tutor is prepared already; advice is not shared
    environment = {"LLM_TUTORS_TOKEN": HTTP_TOKEN, paths.HOME_VARIABLE: str(home), **CPU_ENVIRONMENT, **RAY_MEMORY}
    with nodes(namespaces=True, **environment) as cluster:
        scratch = cluster.folder / "tmp"
        scratch.mkdir()
        cluster.environment["TMPDIR"] = str(scratch)
        try:
            say("starting MLflow and 5 nodes")
            mlflow.start()
            cluster.start_head(0, {"advice_store": 1})  # as the cluster files do: trials run elsewhere
            scene = Stage(cluster, mlflow, folder / "runs", free_ports(1)[0])
            for _ in range(2):
                scene.add_student_node()
            for _ in range(2):
                scene.add_tutor_node()
            say("deploying the tutor")
            scene.deploy_tutor()
            yield scene
        finally:
            mlflow.kill()


def say(text: str) -> None:
    """One line for the user, at once."""
    print(f"[drill] {text}", flush=True)


def wait_for(condition: Callable[[], bool], limit_s: float, what: str, pause_s: float = 0.5) -> float:
    """Waits for something to hold; returns the seconds it took. A dashboard that a fault keeps busy is asked again.

    Raises:
        TimeoutError: It did not hold within the limit.
    """
    import httpx

    started = time.monotonic()
    while True:
        try:
            if condition():
                break
        except (httpx.HTTPError, LookupError):
            pass
        if time.monotonic() - started > limit_s:
            raise TimeoutError(f"{what}: not within {limit_s:.0f} s")
        time.sleep(pause_s)
    return time.monotonic() - started


def answers(url: str) -> bool:
    """Whether an address answers with success."""
    import httpx

    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def strays(token: str) -> list[psutil.Process]:
    """Processes of a cluster that is gone: what its nodes started has Ray's token in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_AUTH_TOKEN") == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
