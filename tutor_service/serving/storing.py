"""Open the store of a gateway: a folder of its own, or a copy of what gateways share. Nothing else tells them apart."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

from tutor_service.config import TutorConfig
from tutor_service.gateway import gateway
from tutor_service.gateway.briefing import NotesStore
from tutor_service.gateway.queue import JoiningQueue
from tutor_service.gateway.sharing import SharedQueue
from tutor_service.store.base import StoreStats
from tutor_service.store.best_effort import BestEffortStore
from tutor_service.store.filesystem import refuse_network
from tutor_service.store.opening import folder_of, open_database
from tutor_service.store.shared import SharedStore


class GatewayStore(gateway.Store, NotesStore, Protocol):
    """Keep answers and notes for a gateway, and say how that goes; no call raises."""

    @property
    def place(self) -> str: ...  # noqa: D102

    @property
    def trouble(self) -> str: ...  # noqa: D102

    def num_unsent(self) -> int: ...  # noqa: D102

    def stats(self) -> StoreStats | None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Opened(NamedTuple):
    """Hold a store, and the queue that goes with it."""

    store: GatewayStore
    make_queue: gateway.MakeQueue


def open_store(tutor: TutorConfig, failed: Callable[[], None]) -> Opened:
    """Open the store that a tutor's file names.

    Args:
        tutor: The tutor.
        failed: Called once per failure from now on.

    Raises:
        UserError: It can never work here: a network file system, no driver, no password.
    """
    folder = folder_of(tutor)
    refuse_network(folder)
    local = BestEffortStore(folder, failed)
    if not tutor.store.is_shared:
        return Opened(local, JoiningQueue)
    shared = SharedStore(local, open_database(tutor.store), tutor.store.lease_s, failed)
    return Opened(shared, functools.partial(SharedQueue, store=shared))
