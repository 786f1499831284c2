"""Use the advice store where it works: when it fails, the tutor goes on without it, and says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tutor_service.schema import Advice
from tutor_service.store import AdviceStore, Entry, StoreError, StoreStats

logger = logging.getLogger("ray.serve")

RETRY_S = 30.0
"""Seconds for which a store that failed is left alone."""


class BestEffortStore:
    """Wrap an advice store so that its failures cost answers nothing but their keeping.

    Args:
        path: Folder of the store.
        failed: Called once per failure.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, path: Path, failed: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._failed = failed
        self._clock = clock
        self._store: AdviceStore | None = None
        self._closed_until = 0.0
        self._writing_from = 0.0

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        """Return stored answers in the keys' order; None where there is none, or no store."""
        store = self._open() if keys else None
        if store is None:
            return [None] * len(keys)
        try:
            return store.get_many(keys)
        except (StoreError, OSError) as error:
            self._give_up(error)
            return [None] * len(keys)

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]:
        """Keep answers, where the store lets us, and return those that count: of two to a question the first kept.

        A full disk stops writing for a while, not reading.
        """
        given = [entry.advice for entry in entries]
        store = self._open() if entries and self._clock() >= self._writing_from else None
        if store is None:
            return given
        try:
            return store.keep_many(entries)
        except (StoreError, OSError) as error:
            self._writing_from = self._clock() + RETRY_S
            self._report(f"{len(entries)} answers were not kept: {error}")
            return given

    def get_notes(self, key: bytes) -> str | None:
        """Return notes that were kept; None where there are none, or no store."""
        store = self._open()
        try:
            return store.get_notes(key) if store else None
        except (StoreError, OSError) as error:
            self._give_up(error)
            return None

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
        if self._store is not None:
            self._store.close()
            self._store = None

    def _open(self) -> AdviceStore | None:
        if self._store is None and self._clock() >= self._closed_until:
            try:
                self._store = AdviceStore(self.path)
            except (StoreError, OSError) as error:
                self._give_up(error)
        return self._store

    def _give_up(self, error: Exception) -> None:
        self.close()
        self._closed_until = self._clock() + RETRY_S
        self._report(f"going on without it for {RETRY_S:.0f} s: {error}")

    def _report(self, text: str) -> None:
        self._failed()
        logger.error("Advice store '%s': %s", self.path, text)
