"""The advice store among processes: killed writers, writers at once, a full disk, a file with random damage."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tutor_service.schema import Advice
from tutor_service.store import AdviceStore, Context, Entry, StoreError, advice_key

COMMON = """
import sys
from pathlib import Path
from tutor_service.schema import Advice
from tutor_service.store import AdviceStore, Context, Entry, StoreError, advice_key

def key_of(number):
    return advice_key("m", [number], [1, 2])

def advice(number):
    return Advice((1 / (number + 2), 1 - 1 / (number + 2)), 0.5, "store", tokens=number)


def entry(number):
    return Entry(key_of(number), advice(number), Context("m", "Rules.", f"State {number} in words.", ("a", "b")))

store = AdviceStore(sys.argv[1])
"""

ENDLESS_WRITER = """
number = 0
while True:
    batch = [entry(number + i) for i in range(17)]
    store.put_many(batch)
    number += 17
    print(number, flush=True)
"""

COUNTING_WRITER = """
start = int(sys.argv[2])
print(sum(store.put_many([entry(k) for k in range(n, n + 20)]) for n in range(start, start + 2000, 20)))
"""


def key_of(number: int) -> bytes:
    return advice_key("m", [number], [1, 2])


def advice(number: int) -> Advice:
    return Advice((1 / (number + 2), 1 - 1 / (number + 2)), 0.5, "store", tokens=number)


def entry(number: int) -> Entry:
    return Entry(key_of(number), advice(number), Context("m", "Rules.", f"State {number} in words.", ("a", "b")))


def start(script: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMON + script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_was_told_is_kept(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "store"
    confirmed = 0
    for _ in range(6):
        writer = start(ENDLESS_WRITER, path)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        lines = writer.communicate(timeout=60)[0].splitlines()
        complete = [int(line) for line in lines if line.isdigit()][:-1]  # the last line may be half of a number
        confirmed = max([confirmed, *complete])
        with AdviceStore(path) as store:
            assert store.stats().set_aside is None
            verification = store.verify()
            assert verification.ok and verification.answers % 17 == 0, "a batch is there whole or not at all"
            assert store.get_many([key_of(k) for k in range(confirmed)]) == [advice(k) for k in range(confirmed)]
    assert confirmed > 0


def test_writers_at_once_keep_each_answer_once(tmp_path: Path) -> None:
    path = tmp_path / "store"
    writers = [start(COUNTING_WRITER, path, begin) for begin in (0, 500, 1000, 1500)]
    outputs = [writer.communicate(timeout=240) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, outputs
    with AdviceStore(path) as store:
        assert sum(int(out) for out, _ in outputs) == store.stats().answers == 3500
        assert store.verify().ok
        assert store.get_many([key_of(k) for k in range(3500)]) == [advice(k) for k in range(3500)]


def test_a_reader_follows_growth_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.store.lmdb_file.INITIAL_BYTES", 1 << 16)
    with AdviceStore(tmp_path / "store") as store:
        writer = start(COUNTING_WRITER, store.path, 0)
        errors = writer.communicate(timeout=240)[1]
        assert writer.returncode == 0, errors
        assert store.get_many([key_of(1999)]) == [advice(1999)]
        assert store.put_many([entry(5000)]) == 1


FULL_DISK = """
import resource
kept = 0
limit = (1 << 20, resource.RLIM_INFINITY)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
try:
    while True:
        store.put_many([entry(kept + i) for i in range(100)])
        kept += 100
except StoreError as error:
    print(error)
assert store.get_many([key_of(k) for k in range(kept)]) == [advice(k) for k in range(kept)], "reading goes on"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.put_many([entry(kept)]) == 1, "writing goes on once there is space"
print(kept)
"""


def test_a_full_disk_is_said_clearly_and_survived(tmp_path: Path) -> None:
    writer = start(FULL_DISK, tmp_path / "store")
    out, errors = writer.communicate(timeout=240)
    assert writer.returncode == 0, errors
    message, kept = out.splitlines()
    assert "could not be written" in message and "Free space" in message and int(kept) > 500
    with AdviceStore(tmp_path / "store") as store:
        assert store.verify().ok and store.stats().answers == int(kept) + 1


READ_ALL = """
wanted = [entry(k) for k in range(600)]
got = store.get_many([item.key for item in wanted])
assert all(item is None or item == advice(k) for k, item in enumerate(got)), "a wrong answer"
fresh = [entry(k) for k in range(1000, 1400)]
store.put_many(fresh)
store.put_many(wanted)
got = store.get_many([item.key for item in wanted])
assert all(item is None or item == advice(k) for k, item in enumerate(got)), "a wrong answer after writing"
"""


@pytest.mark.parametrize("seed", range(12))
def test_no_damage_makes_it_lie_or_crash(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "store"
    with AdviceStore(path) as store:
        for first in range(0, 600, 30):
            store.put_many([entry(k) for k in range(first, first + 30)])
    data = bytearray((path / "data.mdb").read_bytes())
    pages = len(data) // 4096
    for _ in range(rng.choice([1, 6])):
        page = rng.randrange(pages) * 4096
        kind = rng.randrange(4)
        if kind == 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[page : page + 4096] = rng.choice([bytes(4096), rng.randbytes(4096)])
        elif kind == 2:
            data[page + rng.randrange(16)] = rng.randrange(256)
        else:
            del data[page:]
            pages = max(1, len(data) // 4096)
            data = data or bytearray(1)
    (path / "data.mdb").write_bytes(data)
    reader = start(READ_ALL, path)
    _, errors = reader.communicate(timeout=240)
    assert reader.returncode == 0, errors


def test_a_folder_that_may_not_be_written_is_said_clearly(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with AdviceStore(path) as store:
        store.put_many([entry(1)])
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere")
    for folder in (path, tmp_path):
        folder.chmod(0o555)
    try:
        with pytest.raises(StoreError, match="cannot be opened"):
            AdviceStore(path)
        with AdviceStore(path, readonly=True) as store:
            assert store.get_many([key_of(1)]) == [advice(1)]
    finally:
        tmp_path.chmod(0o755)
        path.chmod(0o755)
