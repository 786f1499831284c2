import logging

import pytest

from tutor_service.schema import Advice
from tutor_service.store import AdviceStore, Entry, StoreError
from tutor_service.store.best_effort import RETRY_S, BestEffortStore

ADVICE = Advice((0.5, 0.5), 1.0, tokens=7)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def failures():
    return []


def make(path, failures):
    clock = Clock()
    return BestEffortStore(path, lambda: failures.append(1), clock), clock


def test_keeps_and_finds(tmp_path, failures):
    store, _ = make(tmp_path / "store", failures)
    store.keep_many([Entry(b"key", ADVICE)])
    assert store.get_many([b"key", b"other"])[1] is None
    assert store.get_many([b"key"])[0].probabilities == (0.5, 0.5)
    assert store.stats().answers == 1
    store.close()
    assert not failures


def test_a_store_that_cannot_be_opened_is_done_without_and_tried_again(tmp_path, failures, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    store, clock = make(blocked, failures)
    with caplog.at_level(logging.ERROR):
        assert store.get_many([b"key"]) == [None]
        store.keep_many([Entry(b"key", ADVICE)])
    assert len(failures) == 1 and "going on without it" in caplog.text
    assert store.stats() is None
    blocked.unlink()
    assert store.get_many([b"key"]) == [None]
    clock.now += RETRY_S + 1
    store.keep_many([Entry(b"key", ADVICE)])
    assert store.get_many([b"key"])[0] is not None
    store.close()


def test_a_full_disk_stops_writing_and_not_reading(tmp_path, failures, monkeypatch, caplog):
    store, clock = make(tmp_path / "store", failures)
    store.keep_many([Entry(b"old", ADVICE)])

    def full(self, entries):
        raise StoreError("disk full")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(AdviceStore, "keep_many", full)
        store.keep_many([Entry(b"new", ADVICE)])
        store.keep_many([Entry(b"new", ADVICE)])
    assert len(failures) == 1 and "disk full" in caplog.text
    assert store.get_many([b"old"])[0] is not None
    clock.now += RETRY_S + 1
    store.keep_many([Entry(b"new", ADVICE)])
    assert store.get_many([b"new"])[0] is not None
    store.close()
