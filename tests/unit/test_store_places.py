"""Where a tutor's answers are kept, as its file says: folders, databases, and passwords that nobody is shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tune_sweeps import cli
from tutor_service import paths
from tutor_service.config import StoreConfig, TutorConfig
from tutor_service.errors import UserError
from tutor_service.schema import Advice
from tutor_service.serving.arguments import resolve
from tutor_service.serving.leases import tutor_identity
from tutor_service.serving.storing import open_store
from tutor_service.store import AdviceStore, Entry, StoreError
from tutor_service.store.filesystem import file_system, refuse_network
from tutor_service.store.opening import folder_of, open_database
from tutor_service.tutor_files import load_tutor

ADDRESS = "postgresql://me@db.example.com/advice"
SECRET = "correct-horse"
WITH_PASSWORD = f"postgresql://me:{SECRET}@db.example.com/advice"


def write(folder: Path, store: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(f"model: embedded:smollm2\nstore: {store}\n")
    return str(path)


def test_a_store_is_a_text_or_a_mapping(tmp_path: Path) -> None:
    assert load_tutor("smollm2").store == StoreConfig() and not StoreConfig().is_shared
    assert load_tutor(write(tmp_path, ADDRESS)).store == StoreConfig(location=ADDRESS)
    said = load_tutor(write(tmp_path, f"{{location: {ADDRESS}, password_env: DB, lease_s: 60}}")).store
    assert said.is_shared and (said.password_env, said.lease_s) == ("DB", 60)


def test_a_serve_file_says_it_for_a_tutor_of_the_catalog() -> None:
    tutor, _ = resolve({"tutor": "smollm2", "store": {"location": ADDRESS, "password_file": "/run/secrets/advice"}})
    assert tutor.store == StoreConfig(location=ADDRESS, password_file=Path("/run/secrets/advice"))
    assert resolve({"tutor": "smollm2", "store": ADDRESS})[0].store == StoreConfig(location=ADDRESS)
    assert resolve({"tutor": "smollm2"})[0].store == StoreConfig()


def test_a_folder_or_the_copy_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    assert folder_of(load_tutor(write(tmp_path, ADDRESS))) == tmp_path / "advice" / "mine"
    assert folder_of(load_tutor("smollm2")) == tmp_path / "advice" / "smollm2"
    assert folder_of(load_tutor(write(tmp_path, f"{tmp_path}/elsewhere"))) == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("mysql://me@db/advice", "neither a folder nor an address that begins with postgresql://"),
        ("advice/here", "relative path"),
        (f"{{location: {ADDRESS}, password_env: A, password_file: /b}}", "both given"),
        ("{location: /advice, password_env: A}", "a password is for a location"),
        (f"{{location: {ADDRESS}, lease_s: 0}}", "greater than or equal to 1"),
        (f"{{place: {ADDRESS}}}", "location"),
    ],
)
def test_what_is_no_place_is_refused(store: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        load_tutor(write(tmp_path, store))


@pytest.mark.parametrize(
    "store",
    [
        WITH_PASSWORD,
        f"'{ADDRESS}?password={SECRET}'",
        f"{{url: '{WITH_PASSWORD}'}}",
        f"{{location: {ADDRESS}, password: '{WITH_PASSWORD}'}}",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(store: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_tutor(write(tmp_path, store))
    shown = [str(refused.value), str(refused.value.__cause__), repr(refused.value.__cause__)]
    assert not [text for text in shown if SECRET in text]
    with pytest.raises(UserError) as refused:
        resolve({"tutor": "smollm2", "store": WITH_PASSWORD})
    assert "password_env" in str(refused.value) and SECRET not in f"{refused.value}{refused.value.__cause__}"


def test_a_command_refuses_it_as_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tutor", "store", "stats", WITH_PASSWORD])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    assert ended.value.code == 2 and "password_env" in shown.err and SECRET not in shown.err + shown.out


def test_a_missing_driver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tutor_service.store.postgres", raising=False)
    monkeypatch.delitem(sys.modules, "tutor_service.store.connections", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs psycopg .*\.\[cluster\]"):
        open_database(StoreConfig(location=ADDRESS))


def test_a_missing_password_is_an_error_and_not_a_store_that_is_away(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="holds no password of the advice store"):
        open_store(load_tutor(write(tmp_path, f"{{location: {ADDRESS}, password_env: NOT_SET}}")), lambda: None)


def test_a_password_is_in_no_representation_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("DB", SECRET)
    store = open_database(StoreConfig(location="postgresql://me@127.0.0.1:1/advice", password_env="DB"))
    with pytest.raises(StoreError, match="cannot be reached") as refused:
        store.get_many([b"key"])
    assert "password_env" in str(refused.value)
    assert SECRET not in f"{refused.value!r}{refused.value.__cause__!r}{store!r}{store._connections!r}{store.place}"


def test_the_same_model_with_another_store_is_another_tutor(tmp_path: Path) -> None:
    shared, alone = (TutorConfig(name="a", backend="vllm", store=store) for store in (ADDRESS, StoreConfig()))
    assert tutor_identity(shared) != tutor_identity(alone)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /home rw,relatime shared:20 master:3 - nfs4 server:/home rw,vers=4.2
41 22 0:36 / /home/me/local\\040disk rw - xfs /dev/nvme0n1 rw
42 22 0:37 / /buckets rw - fuse.s3fs s3fs rw
43 22 0:38 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw,flock
44 22 0:39 / /mnt rw - nfs server:/mnt rw
45 44 254:1 / /mnt rw - ext4 /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/advice", "ext4"),
        ("/home/me/advice", "nfs4"),
        ("/home/me/local disk/advice", "xfs"),
        ("/buckets/advice", "fuse.s3fs"),
        ("/scratch/advice", "lustre"),
        ("/mnt/advice", "ext4"),
        ("/homes", "ext4"),
    ],
)
def test_the_file_system_of_a_folder(folder: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.store.filesystem.nearest", lambda path: path)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert file_system(Path(folder), mounts) == kind
    if kind in {"nfs4", "fuse.s3fs"}:
        with pytest.raises(StoreError, match=rf"network file system \({kind}\).*LLM_TUTORS_HOME.*postgresql://"):
            refuse_network(Path(folder), mounts)
    else:
        refuse_network(Path(folder), mounts)


def test_a_system_without_a_list_of_mounts_refuses_nothing(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "none") is None


def test_a_store_on_a_network_file_system_can_be_read_and_not_written(tmp_path: Path, monkeypatch) -> None:
    with AdviceStore(tmp_path / "store") as store:
        store.put_many([Entry(b"k" * 32, Advice((0.5, 0.5), 1.0))])
    monkeypatch.setattr("tutor_service.store.filesystem.file_system", lambda *_: "nfs4")
    with AdviceStore(tmp_path / "store", readonly=True) as store:
        assert store.stats().answers == 1
    with pytest.raises(StoreError, match="nfs4"):
        AdviceStore(tmp_path / "store")
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="nfs4"):
        open_store(load_tutor("smollm2"), lambda: None)
