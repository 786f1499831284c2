"""Decide who may use a tutor that several commands share on one cluster, and when it may be taken down.

A tutor is shared by its identity: everything that can change an answer. Each user holds a lease, which ends when it is
given back or no longer renewed, as after a ``kill -9``. The book is arithmetic; ``LeaseKeeper`` is the actor around it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
import time
from typing import Any, NamedTuple

from tutor_service.config import TutorConfig
from tutor_service.serving.lifecycle import delete

KEEPER = "llm-tutors-lease-keeper"
NAMESPACE = "llm-tutors"
LEASE_S = 90.0
"""A lease that is not renewed for this long has ended: longer than a driver stalls, shorter than GPUs should idle."""

RENEW_S = 15.0
_NOT_IN_ANSWERS = {"name", "description", "license", "scaling", "calibration", "advice", "temperature"}


def tutor_identity(tutor: TutorConfig) -> str:
    """Hash every field of a tutor that can change an answer: those of its model, and where earlier ones come from."""
    fields = tutor.model_dump(mode="json", exclude=_NOT_IN_ANSWERS)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


class Grant(NamedTuple):
    """Answer to who asks for a tutor.

    Attributes:
        deploy: Whether the asker has to deploy it; else it runs or is being started by another holder.
        conflict: Who holds a tutor of that name with another identity; empty: nobody, and the lease is granted.
    """

    deploy: bool
    conflict: str = ""


class _Entry(NamedTuple):
    identity: str
    holders: dict[str, float]
    """Time at which each holder's lease ends."""


class LeaseBook:
    """Leases by tutor, as of a clock that the caller reads.

    >>> book = LeaseBook()
    >>> book.acquire("llama", "8b", "sweep a", now=0.0)
    Grant(deploy=True, conflict='')
    >>> book.acquire("llama", "8b", "sweep b", now=1.0).deploy
    False
    >>> book.release("llama", "sweep a")
    False
    >>> book.expire(now=1000.0)
    ['llama']
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def acquire(self, tutor: str, identity: str, holder: str, now: float, lease_s: float = LEASE_S) -> Grant:
        """Take a lease of so many seconds, unless somebody holds the tutor's name with another identity."""
        entry = self._entries.get(tutor)
        if entry is not None and entry.identity != identity:
            return Grant(deploy=False, conflict=", ".join(sorted(entry.holders)))
        if entry is None:
            self._entries[tutor] = entry = _Entry(identity, {})
        is_first = not entry.holders
        entry.holders[holder] = now + lease_s
        return Grant(deploy=is_first)

    def renew(self, tutor: str, identity: str, holder: str, now: float) -> None:
        """Prolong a lease, or write it down again where this book does not know it, after a restart of its keeper."""
        entry = self._entries.setdefault(tutor, _Entry(identity, {}))
        if entry.identity == identity:
            entry.holders[holder] = now + LEASE_S

    def release(self, tutor: str, holder: str) -> bool:
        """Give a lease back; return whether it was the last one, so that the tutor is to be taken down."""
        entry = self._entries.get(tutor)
        if entry is None or entry.holders.pop(holder, None) is None:
            return False
        if entry.holders:
            return False
        del self._entries[tutor]
        return True

    def expire(self, now: float) -> list[str]:
        """End the leases that were not renewed; return the tutors that nobody holds any more."""
        ended = [
            (tutor, holder)
            for tutor, entry in self._entries.items()
            for holder, until in entry.holders.items()
            if until <= now
        ]
        return [tutor for tutor, holder in ended if self.release(tutor, holder)]

    def holders(self) -> dict[str, list[str]]:
        """List who holds each tutor."""
        return {tutor: sorted(entry.holders) for tutor, entry in self._entries.items()}


class LeaseKeeper:
    """Keep the book of one cluster in an actor that outlives every driver, and take down what nobody holds."""

    def __init__(self) -> None:
        self._book = LeaseBook()
        self._lock = threading.Lock()
        threading.Thread(target=self._reap, daemon=True).start()

    def acquire(self, tutor: str, identity: str, holder: str, lease_s: float = LEASE_S) -> Grant:
        """Take a lease; see ``LeaseBook``."""
        with self._lock:
            return self._book.acquire(tutor, identity, holder, time.monotonic(), lease_s)

    def renew(self, tutor: str, identity: str, holder: str) -> None:
        """Prolong a lease."""
        with self._lock:
            self._book.renew(tutor, identity, holder, time.monotonic())

    def release(self, tutor: str, holder: str) -> None:
        """Give a lease back, and take the tutor down after the last one, before anybody else can take a new one."""
        with self._lock:
            if self._book.release(tutor, holder):
                delete([tutor])

    def holders(self) -> dict[str, list[str]]:
        """List who holds each tutor."""
        with self._lock:
            return self._book.holders()

    def _reap(self) -> None:
        while True:
            time.sleep(RENEW_S)
            with self._lock:
                for tutor in self._book.expire(time.monotonic()):
                    delete([tutor])


def lease_keeper() -> Any:
    """Return the handle of the connected cluster's keeper, started on the head if there is none."""
    import ray

    on_head = {"node:__internal_head__": 0.001}
    return (
        ray.remote(LeaseKeeper)
        .options(
            name=KEEPER,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources=on_head,
            max_restarts=-1,
            max_task_retries=3,
        )
        .remote()
    )


def lease_holders() -> dict[str, list[str]]:
    """List who holds each tutor of the connected cluster; empty where no keeper runs."""
    import ray

    try:
        keeper = ray.get_actor(KEEPER, namespace=NAMESPACE)
        holders: dict[str, list[str]] = ray.get(keeper.holders.remote(), timeout=5)  # type: ignore[assignment]
        return holders
    except (ValueError, ray.exceptions.RayError):
        return {}


class Lease:
    """One holder's leases on a connected cluster, renewed in the background until they are given back.

    Args:
        holder: Who holds them, as others are told.
    """

    _numbers = itertools.count(1)

    def __init__(self, holder: str) -> None:
        self._holder = f"{holder} #{next(self._numbers)}"
        self._keeper = lease_keeper()
        self._held: dict[str, str] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def acquire(self, tutor: TutorConfig) -> Grant:
        """Take a lease on a tutor."""
        import ray

        identity = tutor_identity(tutor)
        grant: Grant = ray.get(self._keeper.acquire.remote(tutor.name, identity, self._holder))
        if not grant.conflict:
            self._held[tutor.name] = identity
        return grant

    def release(self) -> None:
        """Give all leases back; the keeper takes down what nobody holds then."""
        import ray

        self._ended.set()
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster is gone, and its tutors with it
            ray.get([self._keeper.release.remote(tutor, self._holder) for tutor in self._held])
        self._held.clear()

    def _renew(self) -> None:
        import ray

        while not self._ended.wait(RENEW_S):
            for name, identity in tuple(self._held.items()):
                ray.wait([self._keeper.renew.remote(name, identity, self._holder)], timeout=RENEW_S)
