"""Submit, follow and stop the jobs of a cluster by Ray's Job SDK."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tune_sweeps.cluster.dashboard import HEAD
from tutor_service.errors import UserError

SWEEP_KEY = "llm_tutors.sweep"
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_RECONNECTS = 10
_PAUSE_S = 1.0
_NOT_YET = "No available agent"
"""What the job server says of a head that has only just started."""

_AGENT_S = 60.0
_A_TRACE = 0.001
"""Token amount; used only for placement."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job of a sweep.

    Attributes:
        id: Ray's submission id.
        sweep: The sweep's name.
        status: PENDING, RUNNING, SUCCEEDED, STOPPED or FAILED.
        message: What Ray says about it.
        start_ms: Milliseconds since the epoch when it was started.
    """

    id: str
    sweep: str
    status: str
    message: str
    start_ms: int

    @property
    def ended(self) -> bool:
        """Whether it will not run on."""
        return self.status in {"SUCCEEDED", "STOPPED", "FAILED"}


class Jobs:
    """The sweeps' jobs of one cluster.

    Args:
        url: The dashboard's base address.
        token: Ray's token, if any.
    """

    def __init__(self, url: str, token: str | None) -> None:
        with _without(_OVERRIDES):  # either of them would replace the address
            from ray.job_submission import JobSubmissionClient

            headers = {"Authorization": f"Bearer {token}"} if token else None
            try:
                self._client = JobSubmissionClient(url, headers=headers)
            except (ConnectionError, RuntimeError) as error:
                raise UserError(f"the cluster at {url} takes no jobs: {error}") from error

    def list(self) -> list[JobInfo]:
        """Jobs of sweeps, oldest first."""
        found = [
            JobInfo(
                id=details.submission_id,
                sweep=(details.metadata or {})[SWEEP_KEY],
                status=str(details.status.value),
                message=details.message or "",
                start_ms=details.start_time or 0,
            )
            for details in self._client.list_jobs()
            if details.submission_id and SWEEP_KEY in (details.metadata or {})
        ]
        return sorted(found, key=lambda job: job.start_ms)

    def of(self, sweep: str) -> JobInfo:
        """The latest job of a sweep.

        Raises:
            UserError: There is none.
        """
        jobs = self.list()
        mine = [job for job in jobs if job.sweep == sweep]
        if not mine:
            names = ", ".join(sorted({job.sweep for job in jobs})) or "none"
            raise UserError(f"no job of a sweep '{sweep}' on this cluster. Sweeps that have one: {names}.")
        return mine[-1]

    def submit(self, job_id: str, sweep: str, entrypoint: str, runtime_env: dict[str, object], num_cpus: float) -> None:
        """Start a job, whose driver runs on the head: lost with a student's node, it would take the sweep along.

        Args:
            job_id: Ray's submission id.
            sweep: The sweep's name.
            entrypoint: The command.
            runtime_env: Ray's runtime environment.
            num_cpus: CPUs of the head that the driver takes; 0 where the head announces none.

        Raises:
            UserError: The cluster refuses it.
        """
        deadline = time.monotonic() + _AGENT_S
        while True:
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env=runtime_env,
                    metadata={SWEEP_KEY: sweep},
                    entrypoint_num_cpus=num_cpus,
                    entrypoint_resources={HEAD: _A_TRACE} if num_cpus else None,  # without either Ray takes the head
                )
                return
            except (RuntimeError, ValueError, OSError) as error:
                if _NOT_YET not in str(error) or time.monotonic() > deadline:
                    raise UserError(f"the cluster refuses the job: {str(error).splitlines()[0]}") from error
            time.sleep(_PAUSE_S)

    def status(self, job_id: str) -> JobInfo:
        """How a job is.

        Raises:
            UserError: It is gone.
        """
        for job in self.list():
            if job.id == job_id:
                return job
        raise UserError(f"the job '{job_id}' is not on this cluster any more; it was restarted or deleted.")

    def follow(self, job_id: str, write: Callable[[str], None], marks: Sequence[str]) -> str | None:
        """Write what a job prints, to its end, across lost connections; nothing is written twice.

        Args:
            job_id: Which job.
            write: Takes pieces of text.
            marks: Ends early once a line begins with one of these.

        Returns:
            Which one it was; None at the job's end.

        Raises:
            UserError: The connection was lost again and again.
        """
        return asyncio.run(self._follow(job_id, write, tuple(marks)))

    def stop(self, job_id: str) -> bool:
        """End a job: SIGTERM first. Return False where it had ended already."""
        return bool(self._client.stop_job(job_id))

    async def _follow(self, job_id: str, write: Callable[[str], None], marks: tuple[str, ...]) -> str | None:
        num_written, line = 0, ""
        lost = 0
        while True:
            seen = 0  # a new connection tells everything again
            try:
                async for piece in self._client.tail_job_logs(job_id):
                    fresh = piece[max(0, num_written - seen) :]
                    seen += len(piece)
                    if not fresh:
                        continue
                    num_written += len(fresh)
                    lost = 0
                    write(fresh)
                    *whole, line = (line + fresh).split("\n")
                    for mark in marks:
                        if any(item.startswith(mark) for item in whole):
                            return mark
            except Exception as error:  # aiohttp's many kinds, and the client's RuntimeError
                lost += 1
                if lost > _RECONNECTS:
                    raise UserError(
                        f"the connection to job '{job_id}' was lost ({error}); the job may run on. Follow it again "
                        "later."
                    ) from error
            if self._ended(job_id):
                return None
            await asyncio.sleep(_PAUSE_S)

    def _ended(self, job_id: str) -> bool:
        try:
            return self.status(job_id).ended
        except (OSError, RuntimeError):
            return False


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    kept: dict[str, Any] = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
