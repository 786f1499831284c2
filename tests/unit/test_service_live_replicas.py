"""How a gateway learns how many replicas live."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tutor_service.serving.live_replicas import follow_replicas


async def test_changes_are_told_and_the_last_count_stands_where_nobody_knows(caplog: pytest.LogCaptureFixture) -> None:
    said: list[int | Exception] = [2, 2, KeyError("tutor-x"), KeyError("tutor-x"), 5, 0]
    told: list[int] = []
    done = asyncio.Event()

    def look() -> int:
        item = said.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    def tell(number: int) -> None:
        told.append(number)
        if not said:
            done.set()

    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        following = asyncio.create_task(follow_replicas(look, tell, every_s=0.001))
        await asyncio.wait_for(done.wait(), 5)
        following.cancel()
    assert told == [2, 5, 0]
    assert caplog.text.count("tutor-x") == 1
