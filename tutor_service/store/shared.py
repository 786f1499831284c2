"""Share answers with other gateways and clusters by a database, behind a copy on this machine's disk.

Owns who evaluates a question, what is done while the database is away, and what it is told afterwards. It knows the
database as ``SharedDatabase`` and must not know SQL.
"""

from __future__ import annotations

import enum
import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tutor_service.schema import Advice
from tutor_service.store.answer import Entry
from tutor_service.store.base import StoreError, StoreStats
from tutor_service.store.best_effort import BestEffortStore

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

AWAY_S = 5.0
"""Seconds between two looks whether a database that is away is back; callers never wait for one."""

_SENT = 500
"""Most answers that are sent at a time once it is back."""


class SharedDatabase(Protocol):
    """Keep answers for several gateways, and lease questions to one of them; see ``PostgresStore``.

    All calls raise ``StoreError`` while it is away.
    """

    place: str

    def find_many(self, keys: Sequence[bytes]) -> list[Entry | None]: ...  # noqa: D102

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]: ...  # noqa: D102

    def get_notes(self, key: bytes) -> str | None: ...  # noqa: D102

    def keep_notes(self, key: bytes, notes: str) -> str: ...  # noqa: D102

    def take_leases(self, keys: Sequence[bytes], holder: bytes, lease_s: float) -> set[bytes]: ...  # noqa: D102

    def renew_leases(self, keys: Sequence[bytes], holder: bytes, lease_s: float) -> None: ...  # noqa: D102

    def end_leases(self, keys: Sequence[bytes], holder: bytes) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Claim(enum.Enum):
    """Say who is to evaluate a question that has no answer yet."""

    MINE = enum.auto()
    ELSEWHERE = enum.auto()


class SharedStore:
    """Be the store of one gateway of several that share a database. Its calls never raise.

    What this gateway has seen is answered from its own disk. While the database is away the gateway goes on as if it
    were alone; the answers of that time are sent when it is back, also by a gateway that was restarted meanwhile. Where
    another one answered the same question by then, the database's answer counts from there on.

    Args:
        local: The copy on this machine's disk.
        database: What is shared.
        lease_s: Seconds after which a lease that is not renewed has ended.
        failed: Called once each time that the database goes away.

    Attributes:
        place: Where it is, for people.
        trouble: Why the database is away, for people; empty while it is not.
        replaced: How often answers of the database took the place of this gateway's, given while it was away.
    """

    def __init__(
        self,
        local: BestEffortStore,
        database: SharedDatabase,
        lease_s: float,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._local = local
        self._database = database
        self._lease_s = lease_s
        self._failed = failed
        self._holder = uuid.uuid4().bytes
        self._lock = threading.Lock()  # of the two sets
        self._held: set[bytes] = set()
        self._ended: set[bytes] = set()
        self._is_away = False
        self.place = f"{database.place}, copied to {local.place}"
        self.trouble = ""
        self.replaced = 0
        self._closing = threading.Event()
        self._wake = threading.Event()
        threading.Thread(target=self._keep_up, name="shared-store", daemon=True).start()

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        """Return the answers that this machine has, in order, without asking the database."""
        return self._local.get_many(keys)

    def fetch_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        """Return the answers that the database has, in order, and copy them to this machine."""
        found = self._ask(lambda database: database.find_many(keys))
        if found is None:
            return [None] * len(keys)
        self._local.replace_many([entry for entry in found if entry])
        return [entry and entry.advice for entry in found]

    def claim_many(self, keys: Sequence[bytes]) -> list[Advice | Claim]:
        """Return the answers that there are by now, and who is to evaluate the other questions.

        Those of this gateway are to be named to ``hold`` at once, and to ``let_go`` when they are answered, or will
        not be. Without the database all are its own.
        """
        taken = self._ask(lambda database: database.take_leases(keys, self._holder, self._lease_s))
        answers = self.fetch_many(keys)  # after that, since an answer is kept before its lease ends
        answered = {key for key, advice in zip(keys, answers, strict=True) if advice}
        if taken and (needless := taken & answered):
            self.let_go(list(needless))
        return [
            advice or (Claim.MINE if taken is None or key in taken else Claim.ELSEWHERE)
            for key, advice in zip(keys, answers, strict=True)
        ]

    def hold(self, keys: Sequence[bytes]) -> None:
        """Renew the leases of questions until they are let go."""
        with self._lock:
            self._held.update(keys)
            self._ended.difference_update(keys)

    def let_go(self, keys: Sequence[bytes]) -> None:
        """Give leases back, soon and without waiting for it."""
        with self._lock:
            self._held.difference_update(keys)
            self._ended.update(keys)
        self._wake.set()

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]:
        """Keep answers, here and where they are shared, and return those that count."""
        kept = self._ask(lambda database: database.keep_many(entries))
        if kept is None:
            return self._local.keep_unsent(entries)
        self._local.replace_many([entry._replace(advice=advice) for entry, advice in zip(entries, kept, strict=True)])
        return kept

    def get_notes(self, key: bytes) -> str | None:
        """Return the notes that all gateways read; those of this machine where there are no others."""
        shared = self._ask(lambda database: database.get_notes(key))
        mine = self._local.get_notes(key)
        if mine is not None and shared is None:
            return self.keep_notes(key, mine)
        if shared is not None and mine is None:
            self._local.keep_notes(key, shared)
        return shared

    def keep_notes(self, key: bytes, notes: str) -> str:
        """Keep notes, here and where they are shared, and return those that count."""
        shared = self._ask(lambda database: database.keep_notes(key, notes))
        mine = self._local.keep_notes(key, notes if shared is None else shared)
        return mine if shared is None else shared

    def stats(self) -> StoreStats | None:
        """Return what this machine's copy holds."""
        return self._local.stats()

    def num_unsent(self) -> int:
        """Return how many answers the database is still to learn of."""
        return self._local.num_unsent()

    def close(self) -> None:
        """Give leases, connections and files back."""
        self._closing.set()
        self._wake.set()
        with self._lock:
            held = [*self._held, *self._ended]
        if held:
            self._ask(lambda database: database.end_leases(held, self._holder))
        self._database.close()
        self._local.close()

    def _ask(self, work: Callable[[SharedDatabase], T]) -> T | None:
        """Return what the database says; None while it is away."""
        if self._is_away:
            return None
        try:
            return work(self._database)
        except StoreError as error:
            if self._closing.is_set():
                return None
            with self._lock:
                was_there, self._is_away = not self._is_away, True
            if was_there:
                self.trouble = f"its store is away, it goes on alone: {error}"
                self._failed()
                logger.error("Going on with '%s' alone, as long as the database is away: %s", self._local.place, error)
            return None

    def _keep_up(self) -> None:
        """Renew and end leases, look whether the database is back, and send what it missed."""
        look_at = renew_at = 0.0
        self._ask(self._look)  # a wrong password is said before the first use
        while not self._closing.is_set():
            now = time.monotonic()
            if self._is_away and now >= look_at:
                look_at = now + AWAY_S
                self._look_again()
            if not self._is_away:
                self._end_leases()
                if now >= renew_at:
                    renew_at = now + self._lease_s / 3
                    self._renew_leases()
                self._send()
            self._wake.wait(min(AWAY_S, self._lease_s / 3))
            self._wake.clear()

    def _end_leases(self) -> None:
        with self._lock:
            ended, self._ended = list(self._ended), set()
        if ended:
            self._ask(lambda database: database.end_leases(ended, self._holder))

    def _renew_leases(self) -> None:
        with self._lock:
            held = list(self._held)
        if held:
            self._ask(lambda database: database.renew_leases(held, self._holder, self._lease_s))

    def _look(self, database: SharedDatabase) -> None:
        """Raise unless the database is there and can be written to."""
        database.renew_leases([self._holder], self._holder, self._lease_s)

    def _look_again(self) -> None:
        try:
            self._look(self._database)
        except StoreError as error:
            self.trouble = f"its store is away, it goes on alone: {error}"
            return
        self._is_away, self.trouble = False, ""
        logger.warning("The advice store '%s' is back.", self._database.place)

    def _send(self) -> None:
        """Tell the database what was answered while it was away."""
        num_sent = num_others = 0
        last: list[bytes] = []
        while (keys := self._local.unsent(_SENT)) != last:
            entries = [entry for entry in self._local.find_many(keys) if entry]
            kept = self._ask(functools.partial(_keep_in, entries))
            if kept is None:
                break
            others = [mine._replace(advice=a) for mine, a in zip(entries, kept, strict=True) if a is not mine.advice]
            self._local.replace_many(others)
            self.replaced += bool(others)
            self._local.mark_sent(keys)
            num_sent, num_others, last = num_sent + len(entries), num_others + len(others), keys
        if num_sent:
            logger.warning(
                "%d answers that '%s' missed were sent; it had others to %d of them, which count from now on.",
                *(num_sent, self._database.place, num_others),
            )


def _keep_in(entries: Sequence[Entry], database: SharedDatabase) -> list[Advice]:
    return database.keep_many(entries)
