"""Use the advice store where it works: when it fails, the tutor goes on without it, and says so."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tutor_service.schema import Advice
from tutor_service.store import AdviceStore, Entry, StoreError, StoreStats

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

RETRY_S = 30.0
"""Seconds for which a store that failed is left alone."""


class BestEffortStore:
    """Wrap an advice store so that a failure only means that answers are not kept; safe to use from threads.

    Args:
        path: Folder of the store.
        failed: Called once per failure.
        clock: Seconds, monotonic.

    Attributes:
        place: Where it is, for people.
        trouble: Always empty: nothing but its disk can be away, and a failure of that is in the log.
        replaced: Always 0: nobody else's answers take the place of its own.
    """

    trouble = ""
    replaced = 0

    def __init__(
        self, path: Path, failed: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.place = str(path)
        self._path = path
        self._failed = failed
        self._clock = clock
        self._opening = threading.RLock()
        self._store: AdviceStore | None = None
        self._closed_until = 0.0
        self._writing_from = 0.0

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        """Return stored answers in the keys' order; None where there is none, or no store."""
        return self._read(lambda store: store.get_many(keys), [None] * len(keys)) if keys else []

    def find_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """Return stored answers with their questions, as ``get_many`` does."""
        return self._read(lambda store: store.find_many(keys), [None] * len(keys)) if keys else []

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]:
        """Keep answers, where the store lets us, and return those that count: of two to a question the first kept.

        A full disk stops writing for a while, not reading.
        """
        given = [entry.advice for entry in entries]
        return self._write(lambda store: store.keep_many(entries), given, len(entries)) if entries else []

    def replace_many(self, entries: Sequence[Entry]) -> None:
        """Keep answers in place of those that are there, where the store lets us."""
        if entries:
            self._write(lambda store: store.replace_many(entries), None, len(entries))

    def keep_unsent(self, entries: Sequence[Entry]) -> list[Advice]:
        """Keep answers as ``keep_many`` does, and mark them as unsent where they are kept."""
        given = [entry.advice for entry in entries]
        return self._write(lambda store: store.keep_unsent(entries), given, len(entries))

    def mark_sent(self, keys: Sequence[bytes]) -> None:
        """Mark answers as sent, where the store lets us."""
        self._write(lambda store: store.mark_sent(keys), None, len(keys))

    def unsent(self, limit: int) -> list[bytes]:
        """Return the keys of some answers that are marked as unsent."""
        return self._read(lambda store: store.unsent(limit), [])

    def num_unsent(self) -> int:
        """Return how many answers are marked as unsent."""
        return self._read(lambda store: store.num_unsent(), 0)

    def get_notes(self, key: bytes) -> str | None:
        """Return notes that were kept; None where there are none, or no store."""
        return self._read(lambda store: store.get_notes(key), None)

    def keep_notes(self, key: bytes, notes: str) -> str:
        """Keep notes, where the store lets us, and return those that count."""
        store = self._open()
        try:
            return store.keep_notes(key, notes) if store else notes
        except (StoreError, OSError) as error:
            self._report(f"notes were not kept: {error}")
            return notes

    def stats(self) -> StoreStats | None:
        """Return what the store holds; None without a store."""
        store = self._open()
        try:
            return store.stats() if store else None
        except (StoreError, OSError):
            return None

    def close(self) -> None:
        """Give the store's files back."""
        with self._opening:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _read(self, work: Callable[[AdviceStore], T], otherwise: T) -> T:
        store = self._open()
        if store is None:
            return otherwise
        try:
            return work(store)
        except (StoreError, OSError) as error:
            self._give_up(error)
            return otherwise

    def _write(self, work: Callable[[AdviceStore], T], otherwise: T, num_answers: int) -> T:
        store = self._open() if self._clock() >= self._writing_from else None
        if store is None:
            return otherwise
        try:
            return work(store)
        except (StoreError, OSError) as error:
            self._writing_from = self._clock() + RETRY_S
            self._report(f"{num_answers} answers were not kept: {error}")
            return otherwise

    def _open(self) -> AdviceStore | None:
        with self._opening:
            if self._store is None and self._clock() >= self._closed_until:
                try:
                    self._store = AdviceStore(self._path)
                except (StoreError, OSError) as error:
                    self._give_up(error)
            return self._store

    def _give_up(self, error: Exception) -> None:
        with self._opening:
            self.close()
            self._closed_until = self._clock() + RETRY_S
        self._report(f"going on without it for {RETRY_S:.0f} s: {error}")

    def _report(self, text: str) -> None:
        self._failed()
        logger.error("Advice store '%s': %s", self.place, text)
