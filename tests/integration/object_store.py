"""An S3 server of a test's own: moto's, in a process that can be ended and started again (it forgets what it held)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pyarrow.fs

from tests.integration.cluster.nodes import free_ports

BUCKET = "sweeps"
START_S = 60.0


@dataclass
class ObjectStore:
    """A server with one bucket."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What users set to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def filesystem(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.S3FileSystem(
            access_key="key", secret_key="secret", endpoint_override=self.endpoint, region="us-east-1"
        )

    def files(self, folder: str) -> set[str]:
        """Paths of all files below a folder of the bucket, relative to it."""
        root = f"{BUCKET}/{folder}"
        found = self.filesystem().get_file_info(pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True))
        return {info.path.removeprefix(f"{root}/") for info in found if info.is_file}

    def text(self, path: str) -> str:
        with self.filesystem().open_input_stream(f"{BUCKET}/{path}") as file:
            return file.read().decode()


@contextmanager
def object_store(log: Path) -> Iterator[ObjectStore]:
    """Have a server until the end of the block."""
    store = ObjectStore(*free_ports(1))
    code = "from moto.server import main; main()"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(store.port)], stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                httpx.put(f"{store.endpoint}/{BUCKET}", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield store
    finally:
        process.terminate()
        process.wait()
