"""Following a job's output: to its end or a mark, across lost connections, with nothing written twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

import pytest

from tune_sweeps.cluster import jobs as module
from tune_sweeps.cluster.jobs import Jobs
from tutor_service.errors import UserError


class Connections:
    """Stands for Ray's client: pieces of output per connection, each of which is lost at its end."""

    def __init__(self, connections: Sequence[Iterable[str]]) -> None:
        self.left = list(connections)

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for piece in self.left.pop(0):
            yield piece
        if self.left:
            raise ConnectionError("lost")


def follow(
    connections: Sequence[Iterable[str]], monkeypatch: pytest.MonkeyPatch, marks: Sequence[str] = ()
) -> tuple[str | None, str]:
    """Which mark was seen, and what was written."""
    jobs = object.__new__(Jobs)
    jobs._client = client = Connections(connections)  # type: ignore[assignment]
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    monkeypatch.setattr(Jobs, "_ended", lambda self, job_id: not client.left)
    written: list[str] = []
    return jobs.follow("sweep-a", written.append, marks), "".join(written)


def test_all_is_written_once_although_a_new_connection_tells_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = [["one\n", "tw"], ["one\ntwo\nth"], ["one\n", "two\n", "three\n"]]
    assert follow(connections, monkeypatch) == (None, "one\ntwo\nthree\n")


@pytest.mark.parametrize(
    "pieces",
    [["a\n[x] no: bec", "ause\n", "more\n"], ["a\n", "[x] no: because\n", "more\n"], ["a\n[x", "] no: because\n"]],
)
def test_a_mark_ends_it_once_its_line_is_whole(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow([pieces], monkeypatch, ["[y]", "[x] no: "]) == ("[x] no: ", "a\n[x] no: because\n")


def test_a_mark_within_a_line_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow([["it says [x]\n", "[x"]], monkeypatch, ["[x]"])[0] is None


def test_a_connection_that_is_lost_again_and_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="was lost"):
        follow([[] for _ in range(20)], monkeypatch)
