"""One real tutor for all end-to-end tests: SmolLM2 on vLLM behind Serve, by handle and by HTTP.

It runs in float32, so that its answers can be compared with transformers' to the last digit that matters.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tutor_service.config import TutorConfig
from tutor_service.engines.process import MODULE as ENGINE
from tutor_service.paths import HOME_VARIABLE, home
from tutor_service.tutor_files import load_tutor

TOKEN = "e2e-secret"


@dataclass(frozen=True)
class Service:
    """The deployed tutor."""

    tutor: TutorConfig
    url: str
    token: str

    @property
    def handle(self):
        from ray import serve

        from tutor_service.client import app_name

        return serve.get_app_handle(app_name(self.tutor.name))

    def process(self, title: str) -> psutil.Process:
        """The one process of this tutor whose title holds ``title``: a deployment's name, or the engine's."""
        (found,) = self.processes(title)
        return found

    def processes(self, title: str) -> list[psutil.Process]:
        """All of them."""
        wanted = title if title == ENGINE else f"ServeReplica:tutor-{self.tutor.name}:{title}"
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if wanted in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The converted SmolLM2, from the user's own cache."""
    from tutor_service import embedded

    return embedded.prepare()


@pytest.fixture(scope="package")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[None]:
    """A local Ray with a home of its own: the model is the user's, the advice is not."""
    import ray

    scratch = tmp_path_factory.mktemp("home")
    (scratch / "models").symlink_to(home() / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(scratch))
        ray.init(
            address="local", include_dashboard=False, num_cpus=2, log_to_driver=False, _node_ip_address="127.0.0.1"
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="package")
def service(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """SmolLM2 deployed, with a bearer token."""
    from tutor_service import serving

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = tmp_path_factory.mktemp("token") / "token"
    secret.write_text(TOKEN + "\n")
    tutor = load_tutor("smollm2")
    tutor = tutor.model_copy(update={"name": "smollm2-e2e", "engine": {**tutor.engine, "dtype": "float32"}})
    serving.deploy([tutor], http=serving.HttpConfig(port=port, token_file=secret))
    return Service(tutor, f"http://127.0.0.1:{port}/{tutor.name}", TOKEN)
