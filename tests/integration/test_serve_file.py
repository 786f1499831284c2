"""`tutor serve FILE` with Serve's own config files: on a local Ray of its own, with a fake endpoint for a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.endpoint_fake import Endpoint, running_endpoint
from tests.integration.test_service_serve import free_port
from tutor_service.errors import UserError
from tutor_service.paths import HOME_VARIABLE
from tutor_service.serve_file import is_serve_file, read_serve_file

ROOT = Path(__file__).parents[2]
TUTOR = Path(sys.executable).parent / "tutor"
REQUEST = {"requests": [{"rules": "Rules.", "state": "State.", "actions": ["left", "right"]}]}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


def write(folder: Path, endpoint: Endpoint, **changes: Any) -> Path:
    """A Serve file as those of ``deploy/serve``, of a tutor that needs no model."""
    tutor = {"backend": "openai", "model": "m", "base_url": endpoint.url}
    (folder / "remote.yaml").write_text(yaml.safe_dump(tutor))
    content = yaml.safe_load((ROOT / "deploy" / "serve" / "smollm2.yaml").read_text())
    content["http_options"]["port"] = free_port()
    application = content["applications"][0]
    application |= {"name": "tutor-remote", "route_prefix": "/remote", **changes}
    application["args"] = {
        "tutor": str(folder / "remote.yaml"),
        "token_env": "LLM_TUTORS_TOKEN",
        "scaling": {"num_cpus": 0},
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def serving(path: Path, home: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command, once it says that tutors answer or has ended, and what it said so far."""
    environ = {**os.environ, HOME_VARIABLE: str(home), **environment}
    process = subprocess.Popen(
        [str(TUTOR), "serve", str(path)], env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        yield process, said
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_serves_what_the_file_says_until_it_is_interrupted(endpoint: Endpoint, tmp_path: Path) -> None:
    path = write(tmp_path, endpoint)
    port = yaml.safe_load(path.read_text())["http_options"]["port"]
    url = f"http://127.0.0.1:{port}/remote/advise"
    with serving(path, tmp_path, LLM_TUTORS_TOKEN="sesame") as (process, said):
        assert process.poll() is None and f"tutor 'remote' answers at {url}\n" in said, said
        answer = httpx.post(url, json=REQUEST, headers={"Authorization": "Bearer sesame"}, timeout=30)
        assert answer.json()["advice"][0]["source"] == "model"
        assert httpx.post(url, json=REQUEST, timeout=30).status_code == 401
    assert process.returncode == 0
    assert (tmp_path / "advice" / "remote").is_dir()


def test_a_variable_that_the_node_lacks_is_named(endpoint: Endpoint, tmp_path: Path) -> None:
    started = time.monotonic()
    with serving(write(tmp_path, endpoint), tmp_path, LLM_TUTORS_TOKEN="") as (process, said):
        assert process.wait(60) == 2
    assert "environment variable 'LLM_TUTORS_TOKEN' holds no bearer token on node" in " ".join("".join(said).split())
    assert time.monotonic() - started < 60


def test_a_serve_file_is_told_from_a_tutors_file(endpoint: Endpoint, tmp_path: Path) -> None:
    path = write(tmp_path, endpoint)
    assert is_serve_file(str(path))
    assert not is_serve_file(str(tmp_path / "remote.yaml"))
    assert not is_serve_file(str(tmp_path / "missing.yaml")) and not is_serve_file("smollm2")
    file = read_serve_file(str(path))
    assert [tutor.name for tutor in file.tutors] == ["remote"] and file.tutors[0].scaling.num_cpus == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "tutor-other"}, "must be named 'tutor-remote'"),
        ({"import_path": "shop:app"}, "is built by 'shop:app', no tutor"),
        ({"deployments": 3}, "deployments"),
    ],
)
def test_what_no_student_could_find_is_refused(
    endpoint: Endpoint, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read_serve_file(str(write(tmp_path, endpoint, **changes)))
