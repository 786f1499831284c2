"""A store that gateways share in a real PostgreSQL: once over all of them, kills, a database that goes, passwords."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.endpoint_fake import running_endpoint
from tests.integration.postgres import Postgres, needs_postgres, postgres_folder
from tutor_service import serving
from tutor_service.client import connect
from tutor_service.config import StoreConfig, TutorConfig
from tutor_service.paths import HOME_VARIABLE
from tutor_service.schema import Advice, AdviceRequest
from tutor_service.store import Context, Entry, StoreError, advice_key
from tutor_service.store.answer import encode
from tutor_service.store.opening import open_database

ROOT = Path(__file__).parents[2]
CONTEXT = Context("model@1", "Rules.", "lone \ud800 and \0", ("stick", "hit"))

pytestmark = [pytest.mark.timeout(300), needs_postgres]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    with postgres_folder("lt-store-") as postgres:
        postgres.start()
        yield postgres
        postgres.run("stop")


@pytest.fixture(autouse=True)
def no_tables(server: Postgres) -> None:
    """Each test begins with a database that knows nothing of us."""
    sql(server, "drop schema if exists llm_tutors cascade")


def sql(server: Postgres, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.connect(server.address, password=server.password, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def open_store(server: Postgres) -> Any:
    return open_database(StoreConfig(location=server.address, password_file=server.password_file))


def key_of(number: int) -> bytes:
    return advice_key("model@1", [number], [1, 2])


def entry(number: int, first: float = 0.25) -> Entry:
    return Entry(key_of(number), Advice((first, 1 - first), 0.5, "store", thought="hm"), CONTEXT)


def wait(condition: Callable[[], object], what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        time.sleep(0.1)


def test_it_keeps_what_a_folder_keeps(server: Postgres, tmp_path: Path) -> None:
    with open_store(server) as store, open_store(server) as other:
        assert store.get_many([key_of(1)]) == [None]
        assert store.put_many([entry(number) for number in range(2500)]) == 2500
        assert other.put_many([entry(1, 0.75), entry(2500, 0.5), entry(2500, 0.6)]) == 1
        assert other.keep_many([entry(1, 0.75)]) == [entry(1).advice], "the first answer wins"
        assert other.find_many([key_of(9999), key_of(7)]) == [None, entry(7)]
        assert store.keep_notes(b"n", "first") == other.keep_notes(b"n", "second") == other.get_notes(b"n") == "first"
        assert store.get_notes(b"m") is None
        keys = [found.key for found in store.entries()]
        assert keys == sorted(keys) and len(keys) == store.stats().answers == 2501
        assert store.verify().ok and store.export(tmp_path / "advice.parquet") == 2501
    with pytest.raises(StoreError, match="is closed"):
        store.get_many([key_of(1)])


def test_a_damaged_answer_is_missing_reported_and_replaced(server: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    with open_store(server) as store:
        store.put_many([entry(number) for number in range(3)])
        store.keep_notes(b"n", "notes")
        changed = bytearray(encode(entry(1)))
        changed[20] ^= 1
        sql(server, "update llm_tutors.answers set value = %s where key = %s", bytes(changed), key_of(1))
        sql(server, "update llm_tutors.notes set value = 'x'::bytea")
        assert store.get_many([key_of(0), key_of(1)]) == [entry(0).advice, None]
        assert [key for key, _ in store.verify().damaged] == [key_of(1)]
        assert store.put_many([entry(1, 0.75), entry(2, 0.75)]) == 1
        assert store.get_many([key_of(1)]) == [entry(1, 0.75).advice] and store.verify().ok
        assert store.get_notes(b"n") is None and store.keep_notes(b"n", "new") == store.get_notes(b"n") == "new"
        assert store.stats().damaged_seen >= 2 and key_of(1).hex() in caplog.text


def test_writers_at_once_agree_on_every_winner(server: Postgres) -> None:
    """Each in another order, so that two would lock each other out if rows were not locked by their keys' order."""
    stores = [open_store(server) for _ in range(4)]

    def keep(number: int) -> list[Advice]:
        mine = [entry(k, 0.1 + number / 10) for k in range(400)]
        order = mine[100 * number :] + mine[: 100 * number]
        kept = dict(zip([each.key for each in order], stores[number].keep_many(order), strict=True))
        holder = str(number).encode()
        for start in range(0, 400, 40):
            keys = [each.key for each in order[start : start + 40]]
            stores[number].take_leases(keys, holder, 30)
            stores[number].renew_leases(keys[::-1], holder, 30)
            stores[number].end_leases(keys[::-1], holder)
        return [kept[each.key] for each in mine]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(keep, range(4))
    assert all(each == first for each in others) and sql(server, "select * from llm_tutors.leases") == []
    for store in stores:
        store.close()


def test_a_lease_is_one_holders_until_it_ends(server: Postgres) -> None:
    one, two, three = (key_of(number) for number in range(3))
    with open_store(server) as store:
        assert store.take_leases([one, two], b"A", 1) == {one, two}
        assert store.take_leases([one, two, three], b"B", 30) == {three}
        store.renew_leases([one], b"A", 30)
        store.end_leases([three], b"A")
        time.sleep(1.2)
        assert store.take_leases([one, two, three], b"C", 30) == {two}
        store.end_leases([one], b"A")
        assert store.take_leases([one], b"C", 30) == {one}


def test_a_user_without_rights_and_a_schema_that_is_there(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    sql(server, "drop role if exists student")
    sql(server, "create role student login password 'learns'")
    address = server.address.replace("mlflow@", "student@")
    monkeypatch.setenv("STUDENT", "learns")
    student = StoreConfig(location=address, password_env="STUDENT")
    with open_database(student) as store, pytest.raises(StoreError, match=r"refuses: permission denied.*Grant"):
        store.put_many([entry(1)])
    with open_store(server) as owner:
        owner.put_many([entry(1)])
    sql(server, "grant usage on schema llm_tutors to student")
    sql(server, "grant select, insert, update, delete on all tables in schema llm_tutors to student")
    with open_database(student) as store:
        assert store.put_many([entry(1), entry(2)]) == 1


class Process:
    """A gateway in a process of its own."""

    def __init__(self, server: Postgres, folder: Path, first: float = 0.25, seconds: float = 0.02) -> None:
        arguments = [str(folder), server.address, str(server.password_file), str(first), str(seconds)]
        self.log = folder.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.shared_gateway", *arguments],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self.num_asked = 0
        threading.Thread(target=self._read, daemon=True).start()
        self.hear()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if "asked" in said:
                self.num_asked += said["asked"]
            else:
                self._said.put(said)

    def tell(self, **command: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self, limit_s: float = 60) -> dict[str, Any]:
        try:
            return self._said.get(timeout=limit_s)
        except queue.Empty:
            raise AssertionError(self.log.read_text()) from None

    def ask(self, *lists: list[int]) -> list[list[float]]:
        self.tell(ask=lists)
        return self.hear()["answers"]

    def report(self) -> dict[str, Any]:
        self.tell(report=True)
        return self.hear()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(server: Postgres, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def starting(name: str, **settings: float) -> Process:
        started.append(Process(server, tmp_path / name, **settings))
        return started[-1]

    yield starting
    for each in started:
        each.kill()


def test_two_gateways_and_eight_callers_evaluate_each_state_once(start: Callable[..., Process]) -> None:
    gateways = [start("one", first=0.25), start("two", first=0.75)]
    states = list(range(200))
    for gateway in gateways:
        gateway.tell(ask=[states[25 * n :] + states[: 25 * n] for n in range(4)])
    answers = [gateway.hear()["answers"] for gateway in gateways]
    evaluated = [gateway.report()["evaluated"] for gateway in gateways]
    assert len(evaluated[0] + evaluated[1]) == len({*evaluated[0], *evaluated[1]}) == 200
    assert all(evaluated), "both do their part"
    assert answers[0][0] == answers[1][0] and {0.25, 0.75} == set(answers[0][0]), "of each state one answer"


def test_a_gateway_that_is_killed_at_its_work_is_taken_over_from(start: Callable[..., Process]) -> None:
    killed, other = start("killed", seconds=600), start("other", first=0.75)
    killed.tell(ask=[[1, 2, 3]])
    wait(lambda: killed.num_asked == 3, "the model of the first gateway is asked")
    other.tell(ask=[[1, 2, 3, 4]], within_s=1)
    assert other.hear()["answers"] == [[None, None, None, 0.75]], "what the first one is at, is waited for"
    time.sleep(3)
    other.tell(ask=[[1, 2, 3]], within_s=1)
    assert other.hear()["answers"] == [[None] * 3], "longer than a lease, as long as the first one lives"
    killed.kill()
    assert other.ask([1, 2, 3]) == [[0.75] * 3]
    assert start("killed").ask([1, 2, 3]) == [[0.75] * 3], "and the first one, restarted, answers the same"


def test_a_database_that_stops_and_starts_loses_nothing(server: Postgres, start: Callable[..., Process]) -> None:
    one, two = start("one", first=0.25), start("two", first=0.75)
    assert one.ask([1, 2]) == two.ask([1, 2]) == [[0.25] * 2]
    assert server.run("stop").returncode == 0
    try:
        assert one.ask([1, 2, 3, 4]) == [[0.25] * 4] and two.ask([2, 4, 5]) == [[0.25, 0.75, 0.75]]
        found = one.report()
        assert found["unsent"] == 2 and "is away" in found["trouble"]
        assert 'tutor_store_failures_total{tutor="shared"} 1.0' in found["metrics"]
        assert 'tutor_unsent_answers{tutor="shared"} 2.0' in found["metrics"]
        one.kill()
        one = start("one", first=0.3)
        assert one.ask([1, 3]) == [[0.25] * 2], "a gateway that restarts meanwhile answers from its own disk"
    finally:
        server.start()
    wait(lambda: not one.report()["unsent"] and not two.report()["unsent"], "what was missed is sent")
    assert not one.report()["trouble"] and sql(server, "select count(*) from llm_tutors.answers") == [(5,)]
    third = start("third", first=0.9).ask([1, 2, 3, 4, 5])
    assert third[0][:3] == [0.25] * 3 and third[0][3] in (0.25, 0.75) and third[0][4] == 0.75
    for name in ("one", "two"):
        assert start(name, first=0.9).ask([1, 2, 3, 4, 5]) == third, "what the database holds counts everywhere"


def test_no_password_is_shown(
    server: Postgres, tmp_path: Path, start: Callable[..., Process], caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("-".join(["wrong", "horse"]))
    with (
        caplog.at_level(logging.DEBUG),
        open_database(StoreConfig(location=server.address, password_file=wrong)) as store,
        pytest.raises(StoreError, match="password authentication failed") as refused,
    ):
        store.get_many([key_of(1)])
    shown = [*traceback.TracebackException.from_exception(refused.value, capture_locals=True).format(), caplog.text]
    assert shown and "wrong-horse" not in "".join(shown)
    gateway = start("one")
    gateway.ask([1])
    report = json.dumps(gateway.report())
    (arguments,) = [Path(f"/proc/{gateway.process.pid}/cmdline").read_text()]
    assert not [text for text in (report, arguments, gateway.log.read_text()) if server.password in text]


def tutor(server: Postgres, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PGPASSWORD": server.password}
    command = [sys.executable, "-c", "from tune_sweeps.cli import main; main()", "store", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)


def test_the_commands_of_a_store_take_an_address(server: Postgres, tmp_path: Path) -> None:
    address, out = server.address, tmp_path / "out.jsonl"
    assert "holds no advice" in tutor(server, "stats", address).stderr.replace("\n", " ")
    theirs = Entry(key_of(1), Advice((0.75, 0.25), 0.5, "store"), Context("m", "r", "s", ("a", "b")))
    ours = Entry(key_of(1), Advice((0.25, 0.75), 0.5, "store"), Context("m", "r", "s", ("a", "b")))
    with open_store(server) as store:
        store.put_many([ours])
    lines = [json.dumps(row_of(each)) for each in (theirs, theirs._replace(key=key_of(2)))]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    imported = tutor(server, "import", str(tmp_path / "in.jsonl"), "--tutor", address)
    assert "2 answers read, 1 of them new" in imported.stdout.replace("\n", " "), imported.stderr
    (shown,) = json.loads(tutor(server, "stats", address, "--json").stdout)
    assert shown["answers"] == 2 and shown["place"] == address
    assert tutor(server, "verify", address).returncode == 0
    assert "wrote 2 answers" in tutor(server, "export", address, str(out)).stdout
    merged = tutor(server, "merge", str(out), str(tmp_path / "in.jsonl"), address)
    assert "1 were left out" in merged.stdout.replace("\n", " "), merged.stderr
    kept = {row["key"]: row["probabilities"] for row in map(json.loads, out.read_text().splitlines())}
    assert kept == {key_of(1).hex(): [0.75, 0.25], key_of(2).hex(): [0.75, 0.25]}
    back = tutor(server, "merge", address, str(out))
    assert "wrote 0 answers" in back.stdout, back.stderr


def row_of(entry: Entry) -> dict[str, Any]:
    from tutor_service.store.export import row

    return row(entry)


@pytest.fixture
def own_ray(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start a Ray whose tutors know the database's password, and keep stores in a folder of their own."""
    import ray

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.setenv("ADVICE_PASSWORD", server.password)
    ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


STATES = [AdviceRequest("Rules.", f"State {number}.", ("left", "right")) for number in range(4)]


def test_tutors_on_serve_share_what_one_was_asked_and_a_new_gateway_waits_for_no_model(
    server: Postgres, own_ray: None
) -> None:
    import ray

    with running_endpoint() as endpoint:
        store = {"location": server.address, "password_env": "ADVICE_PASSWORD"}
        fields = {"backend": "openai", "model": "m", "base_url": endpoint.url, "scaling": {"num_cpus": 0}}
        one, two = (TutorConfig(name=name, store=store, **fields) for name in ("one", "two"))
        serving.deploy([one, two])
        assert [a and a.source for a in connect(one).advise(STATES[:2])] == ["model"] * 2
        assert [a and a.source for a in connect(two).advise(STATES[:3])] == ["store", "store", "model"]
        assert {status.stored for status in serving.status()} == {2, 3}, "each gateway has a copy of what it saw"
        session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
        logs = [path for path in session.rglob("*") if path.is_file() and not path.is_symlink()]
        assert logs and not any(server.password.encode() in path.read_bytes() for path in logs)

        serving.delete(["one", "two"])
        endpoint.hold = " "  # no replica gets through its start
        deploying = ThreadPoolExecutor(1).submit(serving.deploy, [one])
        wait(lambda: found_without_model(one), "a stored answer while no replica lives")
        assert not deploying.done() and connect(one, deadline_s=2).advise(STATES[3:]) == [None]
        endpoint.hold = ""
        assert deploying.result(120) == ["one"]
        wait(lambda: connect(one).advise(STATES[3:])[0], "an answer of the model")


def test_gateways_of_two_applications_evaluate_a_state_once_over_all(server: Postgres, own_ray: None) -> None:
    """Two applications with a disk each, as on two clusters, of three gateways each, and eight callers at once."""
    with running_endpoint() as endpoint:
        store = {"location": server.address, "password_env": "ADVICE_PASSWORD"}
        fields = {"backend": "openai", "model": "m", "base_url": endpoint.url}
        scaling = {"num_cpus": 0, "gateways": 3}
        tutors = [TutorConfig(name=name, store=store, scaling=scaling, **fields) for name in ("one", "two")]
        serving.deploy(tutors)
        states = [AdviceRequest("Rules.", f"State {number}.", ("left", "right")) for number in range(60)]
        with ThreadPoolExecutor(8) as pool:
            asked = [(connect(tutors[n % 2]), states[n:] + states[:n]) for n in range(8)]
            lists = list(pool.map(lambda each: each[0].advise(each[1]), asked))
        assert not any(None in answers for answers in lists)
        contents = [body["messages"][0]["content"] for body in endpoint.bodies]
        told = [line for text in contents for line in text.split("\n") if line.startswith("State ")]
        assert sorted(told) == sorted(request.state for request in states)
        assert sql(server, "select count(*) from llm_tutors.answers") == [(60,)]


def found_without_model(tutor: TutorConfig) -> bool:
    (found,) = connect(tutor, deadline_s=5).advise(STATES[:1])
    return found is not None and found.source == "store"
