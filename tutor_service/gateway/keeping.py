"""Keep what several calls of the model bring at the same time in one commit. Knows the store as a function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tutor_service.schema import Advice
from tutor_service.store import Entry

KeepMany = Callable[[Sequence[Entry]], list[Advice]]


class _Waiting(NamedTuple):
    """Name the answers of one call and who waits for their keeping."""

    entries: list[Entry]
    kept: asyncio.Future[list[Advice]]


class GroupCommit:
    """Write in a thread, one commit at a time: what comes during a commit goes into the next one, all together.

    Args:
        keep_many: Keeps answers in one commit and returns what is kept under their keys, in order.
    """

    def __init__(self, keep_many: KeepMany) -> None:
        self._keep_many = keep_many
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, entries: list[Entry]) -> list[Advice]:
        """Keep answers and return those that count, in order: of two to one question the first that was kept."""
        kept: asyncio.Future[list[Advice]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(entries, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await asyncio.shield(kept)

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            entries = [entry for item in group for entry in item.entries]
            try:
                kept = await asyncio.to_thread(self._keep_many, entries)
            except Exception as error:
                for item in group:
                    item.kept.set_exception(error)
                continue
            start = 0
            for item in group:
                end = start + len(item.entries)
                item.kept.set_result(kept[start:end])
                start = end
        self._writing = None
