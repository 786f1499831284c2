"""What reaches a store while a sweep goes on, whose threads send at the same time; a folder stands in for the store."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow
import pyarrow.fs
import pytest
from filelock import FileLock

from tune_sweeps.storage import lease, mirror
from tune_sweeps.storage.mirror import RemoteMirror
from tune_sweeps.storage.remote import Remote, StoreAway


class Folder(Remote):
    """A folder as a store, whose uploads of one name wait for a gate."""

    def __init__(self, folder: Path, slow: str = "") -> None:
        super().__init__("s3://bucket/x")
        self.folder, self.slow = folder, slow
        self.begun, self.gate = threading.Event(), threading.Event()
        self.removed: list[str] = []

    @property
    def _opened(self) -> tuple[pyarrow.fs.FileSystem, str]:  # type: ignore[override]
        return pyarrow.fs.LocalFileSystem(), str(self.folder)

    def upload(self, source: Path, *names: str) -> None:
        if names[-1] == self.slow:
            self.begun.set()
            assert self.gate.wait(30)
        self.folder.joinpath(*names).parent.mkdir(parents=True, exist_ok=True)
        super().upload(source, *names)

    def remove(self, *names: str) -> None:
        self.removed.append(names[-1])
        super().remove(*names)


def test_a_file_that_is_saved_while_others_are_on_their_way_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SETTLES_S", 0.0)
    monkeypatch.setattr(mirror, "EVERY_S", 0.01)
    store = Folder(tmp_path / "store", slow="log.txt")
    folder = tmp_path / "sweep"
    (store.folder / "sweep").mkdir(parents=True)
    mirrored = RemoteMirror(store, folder)
    with mirrored.keeping(print):
        (folder / "log.txt").write_text("long")
        assert store.begun.wait(10)
        (folder / "journal").mkdir()
        newest = folder / "journal" / "000002.jsonl"
        newest.write_text("a checkpoint")
        mirrored.save(newest)
        store.gate.set()
    assert store.removed == [".lease"]
    assert (store.folder / "sweep" / "journal" / "000002.jsonl").read_text() == "a checkpoint"


def test_what_a_full_disk_kept_from_being_written_stops_no_trial(tmp_path: Path) -> None:
    mirrored = RemoteMirror(Folder(tmp_path / "store"), tmp_path / "sweep")
    mirrored.save(tmp_path / "sweep" / "journal" / "000001.jsonl")
    assert "No such file" in mirrored.warning()


@pytest.mark.parametrize("error", [OSError("503"), pyarrow.ArrowException("UnknownError"), pyarrow.ArrowCancelled("x")])
def test_whatever_a_stores_client_raises_is_a_store_that_is_away(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise error

    store = Folder(tmp_path)
    monkeypatch.setattr(Folder, "path", failing)
    with pytest.raises(StoreAway):
        store.write(b"", "file")


def test_a_look_leaves_a_sweep_alone_that_a_driver_of_this_machine_just_begins(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    mirrored = RemoteMirror(Folder(tmp_path / "store"), folder)
    folder.mkdir()
    (folder / "sweep.json").touch()
    with FileLock(folder / ".lock"):
        mirrored.fetch()
        assert (folder / "sweep.json").exists()
    mirrored.fetch()
    assert not folder.exists(), "what the store does not have is no sweep"
