"""`tutor serve FILE` with Serve's own config files: on a local Ray of its own, with a fake endpoint for a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.endpoint_fake import Endpoint, running_endpoint, write_serve_file
from tests.integration.test_service_serve import free_port
from tutor_service.errors import UserError
from tutor_service.paths import HOME_VARIABLE
from tutor_service.serving.serve_file import is_serve_file, read_serve_file

TUTOR = Path(sys.executable).parent / "tutor"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


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


def test_a_variable_that_this_machine_lacks_is_named_before_a_ray_is_started(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    path = write_serve_file(tmp_path, endpoint, free_port())
    with serving(path, tmp_path, LLM_TUTORS_TOKEN="", RAY_ADDRESS="") as (process, said):
        assert process.wait(60) == 2
    assert "environment variable 'LLM_TUTORS_TOKEN' holds no bearer token on node" in " ".join("".join(said).split())
    assert "starting Ray" not in "".join(said)


def test_a_serve_file_is_told_from_a_tutors_file(endpoint: Endpoint, tmp_path: Path) -> None:
    path = write_serve_file(tmp_path, endpoint, free_port())
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
        read_serve_file(str(write_serve_file(tmp_path, endpoint, free_port(), **changes)))
