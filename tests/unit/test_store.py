"""The advice store within one process: exact, first answer wins, nothing damaged is believed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutor_service.errors import UserError
from tutor_service.schema import Advice
from tutor_service.store import AdviceStore, Context, Entry, StoreError, advice_key
from tutor_service.store.answer import DamagedAnswer, decode, encode

QUESTION = ("You hold 12.", ("stick", "hit"))
CONTEXT = Context("model@1", "Rules of a game.", *QUESTION)


def key_of(number: int) -> bytes:
    return advice_key("model@1", [number], [1, 2])


def advice(first: float = 0.25) -> Advice:
    return Advice((first, 1 - first), 0.5, "store", invalid=1, tokens=40)


def entry(number: int, first: float = 0.25, context: Context | None = CONTEXT) -> Entry:
    return Entry(key_of(number), advice(first), context)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AdviceStore]:
    with AdviceStore(tmp_path / "advice" / "tutor") as opened:
        yield opened


weights = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=4)
texts = st.text("aé\ud800\n\0", max_size=5)
contexts = st.none() | st.builds(Context, texts, texts, texts, st.lists(texts, max_size=3).map(tuple))
answers = st.builds(
    lambda w, mass, *rest: Advice(tuple(x / math.fsum(w) for x in w), mass, "store", 0.0, *rest),
    weights,
    st.floats(1e-9, 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    texts,
)
entries = st.builds(Entry, st.binary(min_size=1, max_size=64), answers, contexts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(entries, max_size=5, unique_by=lambda entry: entry.key))
def test_what_is_put_first_is_what_is_got_ever_after(store: AdviceStore, items: list[Entry]) -> None:
    keys = [item.key for item in items]
    before = store.get_many(keys)
    store.put_many(items)
    assert store.get_many(keys) == [old or item.advice for old, item in zip(before, items, strict=True)]


@given(entries, st.data())
def test_no_changed_byte_is_believed(item: Entry, data: st.DataObject) -> None:
    key, value = item.key, encode(item)
    place = data.draw(st.integers(0, len(value) - 1))
    changed = bytes([*value[:place], value[place] ^ data.draw(st.integers(1, 255)), *value[place + 1 :]])
    with pytest.raises(DamagedAnswer):
        decode(key, changed)
    with pytest.raises(DamagedAnswer):
        decode(key + b"x", value)
    with pytest.raises(DamagedAnswer):
        decode(key, value[:place])


def test_the_first_answer_wins(store: AdviceStore) -> None:
    assert store.put_many([entry(1, 0.25)]) == 1
    assert store.put_many([entry(1, 0.75), entry(2, 0.5)]) == 1
    assert store.get_many([key_of(2), key_of(1), key_of(3)]) == [advice(0.5), advice(0.25), None]


def test_an_answer_that_was_read_from_nothing_is_not_believed(store: AdviceStore) -> None:
    """Stores of earlier versions hold uniform distributions in place of answers that named no action."""
    value = encode(entry(1))
    nothing = object.__new__(Advice)
    for name, field in {**{f: getattr(advice(), f) for f in Advice.__slots__}, "legal_mass": 0.0}.items():
        object.__setattr__(nothing, name, field)
    with pytest.raises(DamagedAnswer, match="nothing was read"):
        decode(key_of(1), encode(Entry(key_of(1), nothing)))
    assert decode(key_of(1), value)[0] == advice()


def test_a_damaged_answer_is_missing_reported_and_replaced(
    store: AdviceStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put_many([entry(number) for number in range(3)])
    path = store.path
    store.close()
    with lmdb.open(str(path), max_dbs=2) as raw, raw.begin(write=True, db=raw.open_db(b"answers")) as transaction:
        value = bytearray(transaction.get(key_of(1)))
        value[20] ^= 1
        transaction.put(key_of(1), bytes(value))
    with AdviceStore(path) as again:
        assert again.stats().set_aside is None
        assert [key for key, _ in again.verify().damaged] == [key_of(1)]
        assert again.get_many([key_of(0), key_of(1)]) == [advice(), None]
        assert again.stats().damaged_seen == 1 and key_of(1).hex() in caplog.text
        assert again.put_many([entry(1, 0.125)]) == 1
        assert again.get_many([key_of(1)]) == [advice(0.125)]
        assert again.verify().ok and again.verify().answers == 3


def cut_short(data: Path) -> None:
    os.truncate(data, data.stat().st_size // 2)


def overwrite(data: Path) -> None:
    data.write_bytes(b"not a database" * 5000)


def zero_the_middle(data: Path) -> None:
    with data.open("r+b") as file:
        file.seek(8192)
        file.write(bytes(data.stat().st_size - 8192))


@pytest.mark.parametrize("damage", [cut_short, overwrite, zero_the_middle])
def test_a_damaged_store_is_set_aside_and_a_new_one_begun(store: AdviceStore, damage, caplog) -> None:
    store.put_many([entry(number) for number in range(300)])
    store.close()
    damage(store.path / "data.mdb")
    with pytest.raises(StoreError, match="damaged"):
        AdviceStore(store.path, readonly=True)
    with AdviceStore(store.path) as again:
        aside = again.stats().set_aside
        assert aside is not None and aside.is_dir() and str(aside) in caplog.text
        assert again.get_many([key_of(1)]) == [None]
        assert again.put_many([entry(1)]) == 1
    with AdviceStore(store.path) as later:
        assert later.stats().set_aside is None and later.get_many([key_of(1)]) == [advice()]


def test_it_grows_and_stops_at_its_limit(tmp_path: Path) -> None:
    rows = [entry(number) for number in range(3000)]
    with AdviceStore(tmp_path / "small", max_bytes=1 << 18) as small:
        assert small.put_many(rows[:100]) == 100
        with pytest.raises(StoreError, match=r"full.*262144 bytes"):
            small.put_many(rows)
        assert small.stats().answers == 100 and small.get_many([rows[99].key]) == [advice()]
    with AdviceStore(tmp_path / "small", max_bytes=1 << 24) as larger:
        assert larger.put_many(rows) == 2900


class GivenUp:
    """An opening that LMDB gave up after a commit that failed half-way."""

    def __init__(self, real: lmdb.Environment) -> None:
        self._real = real

    def begin(self, write: bool = False) -> None:
        raise lmdb.PanicError("MDB_PANIC: Update of meta page failed or environment had fatal error")

    def close(self) -> None:
        self._real.close()


@pytest.mark.parametrize("writes", [True, False])
def test_an_opening_that_was_given_up_is_made_anew(store: AdviceStore, writes: bool) -> None:
    store.put_many([entry(1)])
    store._database._environment = GivenUp(store._database._environment)
    if writes:
        assert store.put_many([entry(2)]) == 1
    assert store.get_many([key_of(1)]) == [advice()]
    assert store.stats().set_aside is None


def test_the_map_doubles_until_the_answers_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.store.lmdb_file.INITIAL_BYTES", 1 << 16)
    with AdviceStore(tmp_path / "store") as store:
        assert store.put_many([entry(number) for number in range(2000)]) == 2000
        assert store.stats().map_bytes > 1 << 16 and store.verify().ok


def test_threads_share_one_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.store.lmdb_file.INITIAL_BYTES", 1 << 16)
    first, second = AdviceStore(tmp_path / "store"), AdviceStore(tmp_path / "store")

    def work(number: int) -> int:
        target = first if number % 2 else second
        new = target.put_many([entry(k) for k in range(number * 20, number * 20 + 40)])
        assert target.get_many([key_of(number * 20)]) == [advice()]
        return new

    with ThreadPoolExecutor(4) as pool:
        new = sum(pool.map(work, range(40)))
    first.close()
    assert second.stats().answers == new == 820
    second.close()
    with pytest.raises(StoreError, match="closed"):
        second.get_many([key_of(0)])
    second.close()


def test_read_only_never_makes_nor_writes(store: AdviceStore) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        AdviceStore(store.path.with_name("absent"), readonly=True)
    assert not store.path.with_name("absent").exists()
    store.put_many([entry(1)])
    store.close()
    with AdviceStore(store.path, readonly=True) as reader:
        assert reader.get_many([key_of(1)]) == [advice()]
        with pytest.raises(StoreError, match="reading only"):
            reader.put_many([entry(2)])
        with pytest.raises(StoreError, match="reading only"):
            AdviceStore(store.path)


def test_a_pickled_store_opens_the_same_files(store: AdviceStore) -> None:
    store.put_many([entry(1)])
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get_many([key_of(1)]) == [advice()]
    copy.close()
    assert store.get_many([key_of(1)]) == [advice()]


def test_a_forked_child_opens_anew(store: AdviceStore) -> None:
    store.put_many([entry(1)])
    child = os.fork()
    if child == 0:
        ok = store.get_many([key_of(1)]) == [advice()] and store.put_many([entry(2)]) == 1
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get_many([key_of(2)]) == [advice()]


def test_notes_are_kept_once_and_checked(store: AdviceStore) -> None:
    assert store.get_notes(key_of(1)) is None
    store.keep_notes(key_of(1), "Stick on 17. é")
    store.keep_notes(key_of(1), "Hit always.")
    assert store.get_notes(key_of(1)) == "Stick on 17. é" and store.get_notes(key_of(2)) is None
    path = store.path
    store.close()
    with lmdb.open(str(path), max_dbs=3) as raw, raw.begin(write=True, db=raw.open_db(b"notes")) as transaction:
        value = transaction.get(key_of(1))
        transaction.put(key_of(1), value[:-1])
    with AdviceStore(path) as again:
        assert again.get_notes(key_of(1)) is None and again.stats().damaged_seen == 1


def test_a_store_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has no notes and no thoughts, and its values say so."""
    words = b"".join(len(text).to_bytes(4, "little") + text for text in (b"You hold 12.", b"stick", b"hit"))
    header = struct.pack("<BHIIdI", 1, 2, 1, 40, 0.5, len(words))
    digests = hashlib.blake2b(b"model@1", digest_size=16).digest() + hashlib.blake2b(b"Rules.", digest_size=16).digest()
    body = header + struct.pack("<2d", 0.25, 0.75) + digests + words
    value = hashlib.blake2b(body, digest_size=8, key=key_of(1)).digest() + body
    (tmp_path / "old").mkdir()
    with lmdb.open(str(tmp_path / "old"), max_dbs=2) as raw:
        answers, texts = raw.open_db(b"answers"), raw.open_db(b"texts")
        with raw.begin(write=True) as transaction:
            transaction.put(key_of(1), value, db=answers)
            for text in (b"model@1", b"Rules."):
                transaction.put(hashlib.blake2b(text, digest_size=16).digest(), text, db=texts)
    with AdviceStore(tmp_path / "old", readonly=True) as old:
        assert list(old.entries()) == [Entry(key_of(1), advice(), Context("model@1", "Rules.", *QUESTION))]
        assert old.get_notes(key_of(1)) is None
    with AdviceStore(tmp_path / "old") as new:
        new.keep_notes(key_of(1), "Notes.")
        assert new.get_many([key_of(1)]) == [advice()] and new.get_notes(key_of(1)) == "Notes."


def test_a_copy_takes_over_what_another_store_decides_and_remembers_what_that_missed(store: AdviceStore) -> None:
    store.put_many([entry(1, 0.25), entry(2, 0.25), entry(3, 0.25)])
    store.keep_unsent([entry(1), entry(2)])
    assert sorted(store.unsent(5)) == sorted([key_of(1), key_of(2)]) and len(store.unsent(1)) == 1
    other = Context("model@1", "Rules of another game.", *QUESTION)
    store.replace_many([entry(1, 0.75, other), entry(4)])
    store.mark_sent([key_of(1), key_of(3)])
    assert store.num_unsent() == 1 and store.unsent(5) == [key_of(2)]
    assert store.find_many([key_of(1), key_of(9)]) == [entry(1, 0.75, other), None]
    path = store.path
    store.close()
    with AdviceStore(path, readonly=True) as again:
        assert again.num_unsent() == 1 and again.stats().answers == 4


def test_paths_that_cannot_hold_a_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        AdviceStore(tmp_path / "file" / "store")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_export_says_what_was_asked_and_answered(store: AdviceStore, tmp_path: Path, suffix: str) -> None:
    odd = Context("model@1", "Rules of a game.", "lone \ud800 surrogate\nline", ("a", "b"))
    store.put_many([entry(1), entry(2, 0.5, None), entry(3, 0.1, odd)])
    path = tmp_path / "out" / f"advice{suffix}"
    assert store.export(path) == 3
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(path).to_pylist()
    by_key = {row["key"]: row for row in rows}
    assert by_key[key_of(1).hex()] == {
        "key": key_of(1).hex(),
        "identity": "model@1",
        "rules": "Rules of a game.",
        "state": "You hold 12.",
        "actions": ["stick", "hit"],
        "probabilities": [0.25, 0.75],
        "legal_mass": 0.5,
        "invalid": 1,
        "tokens": 40,
        "thought": "",
    }
    assert by_key[key_of(2).hex()]["state"] is None
    assert list(path.parent.iterdir()) == [path]


def test_an_export_of_unknown_form_is_refused(store: AdviceStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.jsonl, \.parquet"):
        store.export(tmp_path / "advice.csv")
