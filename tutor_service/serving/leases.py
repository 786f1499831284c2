"""Decide who may use a tutor that several commands share on one cluster, and when it may be taken down.

A tutor is shared by its identity: everything that can change an answer. Each user holds a lease, which ends when it is
given back or no longer renewed, as after a ``kill -9``. The book is arithmetic; ``LeaseKeeper`` is the actor around it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.serving.lifecycle import delete

logger = logging.getLogger("ray.serve")

KEEPER = "llm-tutors-lease-keeper"
NAMESPACE = "llm-tutors"
LEASE_S = 90.0
"""A lease that is not renewed for this long has ended: longer than a driver stalls, shorter than GPUs should idle."""

RENEW_S = 15.0
ANSWER_S = 300.0
"""Most seconds to wait for a keeper, which answers a new holder once the last one's tutor has been taken down."""

_CALLS_AT_ONCE = 32
_AGAIN_S = 5.0
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


@dataclass
class _Entry:
    """Hold one tutor's leases.

    Attributes:
        identity: The tutor's.
        deployer: Who is to deploy it, or has; empty where that is not known.
        holders: Time at which each holder's lease ends.
    """

    identity: str
    deployer: str
    holders: dict[str, float] = field(default_factory=dict)


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
        is_first = entry is None
        if entry is None:
            self._entries[tutor] = entry = _Entry(identity, holder)
        entry.holders[holder] = now + lease_s
        return Grant(deploy=is_first)

    def take_over(self, tutor: str, holder: str) -> bool:
        """Return whether a holder of a tutor that is not there is to deploy it: whoever was to holds it no longer."""
        entry = self._entries.get(tutor)
        if entry is None or holder not in entry.holders:
            return False
        if entry.deployer not in entry.holders:
            entry.deployer = holder
        return entry.deployer == holder

    def renew(self, tutor: str, identity: str, holder: str, now: float) -> bool:
        """Prolong a lease; return whether its tutor stayed: False where the last of its leases has ended meanwhile."""
        entry = self._entries.get(tutor)
        if entry is None or entry.identity != identity:
            return False
        entry.holders[holder] = now + LEASE_S
        return True

    def learn(self, tutor: str, identity: str, holder: str, now: float) -> bool:
        """Renew a lease that a book begun anew may not know."""
        self._entries.setdefault(tutor, _Entry(identity, deployer=""))
        return self.renew(tutor, identity, holder, now)

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
    """Keep the book of one cluster in an actor that outlives every driver, and take down what nobody holds.

    Its calls come from several threads. None waits for a tutor that is being taken down, but those that ask for it.
    """

    def __init__(self) -> None:
        self._book = LeaseBook()
        self._leaving: set[str] = set()
        self._changed = threading.Condition()
        self._knows_all_at = time.monotonic() + (2 * RENEW_S if _is_started_again() else 0.0)
        threading.Thread(target=self._reap, daemon=True).start()

    def acquire(self, tutor: str, identity: str, holder: str, lease_s: float = LEASE_S) -> Grant:
        """Take a lease, once the tutor is not being taken down; see ``LeaseBook``."""
        self._learn()
        with self._changed:
            self._changed.wait_for(lambda: tutor not in self._leaving)
            return self._book.acquire(tutor, identity, holder, time.monotonic(), lease_s)

    def take_over(self, tutor: str, holder: str) -> bool:
        """Return whether a holder is to deploy a tutor that is not there; see ``LeaseBook``."""
        with self._changed:
            return self._book.take_over(tutor, holder)

    def renew(self, tutor: str, identity: str, holder: str) -> bool:
        """Prolong a lease; return whether its tutor stayed, see ``LeaseBook``."""
        with self._changed:
            now = time.monotonic()
            renew = self._book.learn if now < self._knows_all_at else self._book.renew
            return tutor not in self._leaving and renew(tutor, identity, holder, now)

    def release(self, tutor: str, holder: str) -> None:
        """Give a lease back, and return when the tutor is down, where it was the last one."""
        with self._changed:
            if self._book.release(tutor, holder):
                self._take_down(tutor)
            self._changed.wait_for(lambda: tutor not in self._leaving)

    def holders(self) -> dict[str, list[str]]:
        """List who holds each tutor; nobody holds one that is being taken down."""
        self._learn()
        with self._changed:
            return {**{tutor: [] for tutor in self._leaving}, **self._book.holders()}

    def _learn(self) -> None:
        """Return when renewals have told a keeper that was started again who holds what."""
        time.sleep(max(0.0, self._knows_all_at - time.monotonic()))

    def _take_down(self, tutor: str) -> None:
        """Begin to take a tutor down, before anybody else can take a new lease."""
        self._leaving.add(tutor)
        threading.Thread(target=self._delete, args=(tutor,), daemon=True).start()

    def _delete(self, tutor: str) -> None:
        while True:
            try:
                delete([tutor])
                break
            except Exception:  # Serve's controller is being started again
                logger.exception("tutor '%s' could not be taken down yet", tutor)
                time.sleep(_AGAIN_S)
        with self._changed:
            self._leaving.discard(tutor)
            self._changed.notify_all()

    def _reap(self) -> None:
        while True:
            time.sleep(RENEW_S)
            with self._changed:
                for tutor in self._book.expire(time.monotonic()):
                    self._take_down(tutor)


def _is_started_again() -> bool:
    """Say whether this process is an actor in place of one that died."""
    import ray

    return ray.is_initialized() and bool(ray.get_runtime_context().was_current_actor_reconstructed)


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
            max_concurrency=_CALLS_AT_ONCE,
            max_restarts=-1,
            max_task_retries=3,
        )
        .remote()
    )


def lease_holders() -> dict[str, list[str]]:
    """List who holds each tutor of the connected cluster; empty where no keeper runs.

    Raises:
        UserError: The keeper does not answer.
    """
    import ray

    try:
        keeper = ray.get_actor(KEEPER, namespace=NAMESPACE)
    except ValueError:
        return {}
    holders: dict[str, list[str]] = _answer(keeper.holders.remote())
    return holders


def _answer(call: Any) -> Any:
    import ray

    try:
        return ray.get(call, timeout=ANSWER_S)
    except ray.exceptions.RayError as error:
        raise UserError(
            "who holds the tutors of this cluster is not known: the actor that keeps their leases does not answer "
            f"({type(error).__name__}). Is the cluster's head alive (`ray status`)? Then try again."
        ) from error


class Lease:
    """One holder's leases on a connected cluster, renewed in the background until they are given back.

    Args:
        holder: Who holds them, as others are told.
    """

    _numbers = itertools.count(1)

    def __init__(self, holder: str) -> None:
        self._holder = f"{holder} #{next(self._numbers)}"
        self._held: dict[str, tuple[TutorConfig, Callable[[TutorConfig], None]]] = {}
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    @cached_property
    def _keeper(self) -> Any:
        """The cluster's keeper, which is not started for who only asks tutors that an operator deployed."""
        return lease_keeper()

    def acquire(self, tutor: TutorConfig, lost: Callable[[TutorConfig], None]) -> Grant:
        """Take a lease on a tutor.

        Args:
            tutor: The tutor.
            lost: Called, in a thread of its own, when the lease has ended since this process stalled for longer than
                it lasts: the tutor was taken down.

        Raises:
            UserError: The keeper does not answer.
        """
        grant: Grant = _answer(self._keeper.acquire.remote(tutor.name, tutor_identity(tutor), self._holder))
        if not grant.conflict:
            self._held[tutor.name] = (tutor, lost)
        return grant

    def take_over(self, tutor: str) -> bool:
        """Return whether a tutor that is held, and not there, is to be deployed from here.

        Raises:
            UserError: The keeper does not answer.
        """
        is_mine: bool = _answer(self._keeper.take_over.remote(tutor, self._holder))
        return is_mine

    def release(self) -> None:
        """Give all leases back; the keeper takes down what nobody holds then."""
        import ray

        self._ended.set()
        self._renewing.join()  # a renewal that comes after the release would find the lease lost
        if not self._held:  # Ray would start where this process is connected to none
            return
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster is gone, and its tutors with it
            ray.get([self._keeper.release.remote(tutor, self._holder) for tutor in list(self._held)], timeout=ANSWER_S)
        self._held.clear()

    def _renew(self) -> None:
        import ray

        while not self._ended.wait(RENEW_S):
            for tutor, lost in list(self._held.values()):
                if self._ended.is_set():
                    return
                renewed = self._keeper.renew.remote(tutor.name, tutor_identity(tutor), self._holder)
                with contextlib.suppress(ray.exceptions.RayError):  # a keeper that is away or busy learns it next time
                    if not ray.get(renewed, timeout=RENEW_S):
                        self._held.pop(tutor.name, None)
                        threading.Thread(target=lost, args=(tutor,), daemon=True).start()
