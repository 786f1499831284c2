"""MLflow over a real PostgreSQL by the scripts of ``deploy/mlflow``: who gets in, and what a kill of both costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.cluster.nodes import free_ports
from tests.integration.postgres import Postgres, needs_postgres, postgres_folder
from tune_sweeps.tracking.mlflow_client import make_client

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy" / "mlflow"

pytestmark = [pytest.mark.timeout(600), needs_postgres]


@dataclass
class Server:
    """The two scripts, run as an operator would."""

    postgres: Postgres
    mlflow_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.postgres.state

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def password(self) -> str:
        return (self.state / "secrets" / "admin_password").read_text()

    def environ(self) -> dict[str, str]:
        return {
            **self.postgres.environ(),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_PORT": str(self.mlflow_port),
            "MLFLOW_SECRETS": str(self.state / "secrets"),
            "MLFLOW_STATE": str(self.state / "mlflow"),
            "MLFLOW_WORKERS": "1",
        }

    def start(self) -> None:
        self.postgres.start()
        with (self.state / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(SCRIPTS / "server.sh")], env=self.environ(), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 240
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.state / "server.log").read_text()
            time.sleep(0.5)

    def make_writer(self) -> str:
        made = subprocess.run(
            [str(SCRIPTS / "writer.sh")], capture_output=True, text=True, env=self.environ(), timeout=120
        )
        assert made.returncode == 0, made.stderr
        return made.stdout

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.uri}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def processes(self) -> list[psutil.Process]:
        if self.process is None or self.process.poll() is not None:
            return []
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]

    def kill(self) -> None:
        for process in self.processes():
            process.kill()
        if self.process is not None:
            self.process.wait()

    def stop(self) -> None:
        mine = self.processes()
        if self.process is not None and mine:
            self.process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(mine, timeout=30)
        for process in left:
            process.kill()
        self.postgres.run("stop")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_folder("lt-mlflow-") as postgres:
        found = Server(postgres, *free_ports(1))
        try:
            found.start()
            yield found
        finally:
            found.stop()


def search(server: Server, **options: object) -> httpx.Response:
    url = f"{server.uri}/api/2.0/mlflow/experiments/search"
    return httpx.post(url, json={"max_results": 5}, timeout=60, **options)  # type: ignore[arg-type]


def test_only_the_password_opens_it(server: Server) -> None:
    assert search(server).status_code == 401
    assert search(server, auth=("admin", "password1234")).status_code == 401
    assert search(server, auth=("admin", server.password)).status_code == 200


def test_other_host_names_are_refused_even_with_the_password(server: Server) -> None:
    headers = {"Host": "rebound.example.com"}
    assert search(server, auth=("admin", server.password), headers=headers).status_code == 403


def test_it_listens_on_loopback_alone_and_shows_no_secret(server: Server) -> None:
    secrets = [path.read_text() for path in (server.state / "secrets").iterdir()]
    assert len(secrets) == 5
    for process in server.processes():
        assert not any(secret in argument for argument in process.cmdline() for secret in secrets)
        for connection in process.net_connections(kind="tcp"):
            assert connection.status != psutil.CONN_LISTEN or connection.laddr.ip == "127.0.0.1"
    log = (server.state / "server.log").read_text(errors="replace")
    assert not any(secret in log for secret in secrets)
    for path in [server.state / "secrets", server.state / "mlflow" / "pgpass"]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_postgres_asks_for_the_password_too(server: Server) -> None:
    psycopg = pytest.importorskip("psycopg")
    address = f"host=127.0.0.1 port={server.postgres.port} user=mlflow dbname=mlflow"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"{address} password=wrong")
    password = server.postgres.password
    with psycopg.connect(f"{address} password={password}") as connection:
        assert connection.execute("show password_encryption").fetchone() == ("scram-sha-256",)


def test_a_sweep_outlives_a_kill_of_both_and_nothing_is_lost_or_doubled(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert server.make_writer() == "account 'writer' made\n"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "writer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", (server.state / "secrets" / "writer_password").read_text())
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path / "home"))
    client = make_client(server.uri)
    command = [sys.executable, "-m", "tests.integration.sweep_driver", str(tmp_path), "1", str(tmp_path)]
    with (tmp_path / "driver.log").open("wb") as log:
        sweep = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        wait(lambda: bool(points(client)), "the first points")
        server.kill()
        assert server.postgres.run("kill").returncode == 0
        time.sleep(5)
        assert sweep.poll() is None
        server.start()
        assert sweep.wait(300) == 0, (tmp_path / "driver.log").read_text()
    finally:
        sweep.kill()
        sweep.wait()
    names = [
        f"{algorithm} · {cell} · seed 0"
        for algorithm in ("ppo", "a2c")
        for cell in ("untutored · blackjack", "oracle · blackjack")
    ]
    assert points(client) == {name: list(range(0, 1_001, 100)) for name in names}


def test_the_nodes_account_rules_nobody_and_takes_a_new_password(server: Server) -> None:
    server.make_writer()
    path = server.state / "secrets" / "writer_password"
    writer = ("writer", path.read_text())
    assert search(server, auth=writer).status_code == 200
    url = f"{server.uri}/api/2.0/mlflow/users/create"
    someone = {"username": "someone", "password": "long-enough-password"}
    assert httpx.post(url, json=someone, auth=writer, timeout=60).status_code == 403
    path.chmod(0o600)
    path.write_text("another-password-of-the-writer")
    assert server.make_writer() == "account 'writer' has its password\n"
    assert search(server, auth=("writer", path.read_text())).status_code == 200


def points(client: object) -> dict[str, list[int]]:
    """Steps of every child run by its name; a run that is there twice would be shown as a list that repeats."""
    experiment = client.get_experiment_by_name("fakes")  # type: ignore[attr-defined]
    if experiment is None:
        return {}
    found: dict[str, list[int]] = {}
    for run in client.search_runs([experiment.experiment_id]):  # type: ignore[attr-defined]
        if "mlflow.parentRunId" in run.data.tags:
            history = client.get_metric_history(run.info.run_id, "eval/return_mean")  # type: ignore[attr-defined]
            found.setdefault(run.info.run_name, []).extend(sorted(item.step for item in history))
    return {name: steps for name, steps in found.items() if steps}


def wait(condition: object, what: str, limit_s: float = 240) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        time.sleep(0.5)
