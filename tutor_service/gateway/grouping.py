"""Put together what several callers ask of a store at the same time. Knows the store as a function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Waiting(NamedTuple, Generic[Item, Result]):
    """Name what one caller asks, and its results."""

    items: Sequence[Item]
    results: asyncio.Future[list[Result]]


class GroupCalls(Generic[Item, Result]):
    """Call a function in a thread, once at a time: what comes meanwhile goes into the next call, all together.

    Args:
        work: Takes items and returns one result per item, in order: a commit, a round trip to a database.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._work = work
        self._waiting: list[_Waiting[Item, Result]] = []
        self._working: asyncio.Task[None] | None = None

    async def run(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of items, in order. It is done also where the caller gives up."""
        results: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(items, results))
        if self._working is None:
            self._working = asyncio.create_task(self._run())
        return await asyncio.shield(results)

    async def _run(self) -> None:
        group: list[_Waiting[Item, Result]] = []
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    found = await asyncio.to_thread(self._work, [item for each in group for item in each.items])
                except Exception as error:
                    for each in group:
                        each.results.set_exception(error)
                    continue
                start = 0
                for each in group:
                    end = start + len(each.items)
                    each.results.set_result(list(found[start:end]))
                    start = end
        finally:
            self._working = None
            left, self._waiting = [*group, *self._waiting], []
            for each in left:  # where it was cancelled, with its event loop: nobody may wait for ever
                each.results.cancel()
