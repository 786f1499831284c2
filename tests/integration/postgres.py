"""A PostgreSQL server of a test's own, by the script that an operator would use."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.cluster.nodes import free_ports

SCRIPT = Path(__file__).parents[2] / "deploy" / "mlflow" / "postgres.sh"
HAS_POSTGRES = bool(shutil.which("pg_config") and list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))

needs_postgres = pytest.mark.skipif(
    not HAS_POSTGRES, reason="PostgreSQL's server is not installed (apt-get install postgresql)"
)


@dataclass
class Postgres:
    """``postgres.sh`` in a folder and on a port; user and database are called ``mlflow``."""

    state: Path
    port: int

    @property
    def address(self) -> str:
        return f"postgresql://mlflow@127.0.0.1:{self.port}/mlflow"

    @property
    def password_file(self) -> Path:
        return self.state / "secrets" / "postgres_password"

    @property
    def password(self) -> str:
        return self.password_file.read_text()

    def environ(self) -> dict[str, str]:
        return {**os.environ, "POSTGRES_PORT": str(self.port)}

    def run(self, action: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPT), action, str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, env=self.environ(), timeout=120)

    def start(self) -> None:
        started = self.run("start")
        assert started.returncode == 0, started.stderr


@contextmanager
def postgres_folder(prefix: str) -> Iterator[Postgres]:
    """Yield a server that is not started, with a folder that is removed in the end."""
    # Not pytest's folder: its parents are closed to the account that PostgreSQL runs as.
    state = Path(tempfile.mkdtemp(prefix=prefix))
    state.chmod(0o711)
    try:
        yield Postgres(state, *free_ports(1))
    finally:
        shutil.rmtree(state)
