"""The doctor finds what is unfit, says what to do, and ends with a status that scripts can read."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from tune_sweeps.cli import app as cli
from tune_sweeps.run import doctor
from tune_sweeps.run.doctor import Finding, examine
from tune_sweeps.storage.results import Results


class Index(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path.startswith("/simple/") else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def index() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Index)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:secret@127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_INDEX_URL", f"{index}/simple")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def by_part(results: Path = Path("runs")) -> dict[str, Finding]:
    return {finding.part: finding for finding in examine(Results(results))}


def test_every_part_is_looked_at_and_nothing_is_made(here: Path) -> None:
    found = by_part()
    parts = [
        "machine",
        "Python",
        "packages",
        "Ray",
        "vLLM",
        "GPU",
        "MLflow",
        "results",
        "cache",
        "disk",
        "package index",
    ]
    assert list(found) == parts
    for part in ("Python", "packages", "Ray", "MLflow", "results", "cache", "package index"):
        assert found[part].state == "fit", found[part]
    assert "secret" not in str(found)
    assert not list(here.iterdir())


def test_what_is_unfit_has_a_remedy(here: Path, monkeypatch: pytest.MonkeyPatch, index: str) -> None:
    (here / "file").write_text("")
    (here / "ray").mkdir()
    (here / "ray" / "ray_current_cluster").write_text("127.0.0.1:9\n")
    monkeypatch.setenv("LLM_TUTORS_HOME", str(here / "file" / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    monkeypatch.setenv("PIP_INDEX_URL", f"{index}/elsewhere")
    monkeypatch.setattr(doctor, "_free_gib", lambda folder: 0.5)
    monkeypatch.setattr(doctor.machine, "available_bytes", lambda: 2**30)
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["ray[serve]==0.1", "rich", "gone==1; extra == 'x'"]
    )
    found = by_part(here / "file" / "runs")
    for part, words in {
        "machine": "close something",
        "packages": "make setup",
        "Ray": f"rm {here / 'ray' / 'ray_current_cluster'}",
        "MLflow": "sqlite:///mlflow.db",
        "results": "--results",
        "cache": "LLM_TUTORS_HOME",
        "disk": "Free some space",
        "package index": "nothing new can be fetched",
    }.items():
        assert found[part].state != "fit" and words in found[part].remedy, found[part]
    assert found["packages"].found.startswith("ray ") and "0.1" in found["packages"].found
    assert "gone" not in found["packages"].found
    assert {part for part, item in found.items() if item.state == "unfit"} >= {"machine", "MLflow", "results", "disk"}


def test_a_store_that_a_network_file_system_would_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.store.filesystem.file_system", lambda *_: "nfs4")
    found = by_part()["cache"]
    assert found.state == "limited" and "(nfs4)" in found.remedy and "LLM_TUTORS_HOME" in found.remedy


def test_a_folder_that_cannot_be_looked_at_is_no_obstacle(here: Path) -> None:
    found = by_part(here / ("long" * 100) / "runs")
    assert {found[part].state for part in ("MLflow", "results")} == {"fit"} and str(here) in found["disk"].found


def test_where_no_index_is_configured_it_is_pips_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    ask = [sys.executable, "-m", "pip", "download", "--help"]
    told = subprocess.run(ask, capture_output=True, text=True, check=True)
    assert doctor._index_url() in "".join(told.stdout.split())


def test_an_index_whose_address_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://host:port/simple")
    assert by_part()["package index"].state == "limited"


def test_code_that_is_not_installed_is_examined_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGE", "llm-tutors-of-nobody")
    assert by_part()["packages"].state == "limited"


def test_a_cluster_that_is_away_is_unfit() -> None:
    (ray,) = [item for item in examine(Results(Path("runs")), "127.0.0.1:9") if item.part == "Ray"]
    assert ray.state == "unfit" and "no Ray answers" in ray.remedy


@pytest.mark.parametrize(("state", "status"), [("fit", 0), ("limited", 0), ("unfit", 1)])
def test_the_status_is_for_scripts(state: doctor.State, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_: [Finding("disk", state, "full", "free it")])
    shown = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert shown.exit_code == status
    assert json.loads(shown.output) == [{"part": "disk", "state": state, "found": "full", "remedy": "free it"}]
