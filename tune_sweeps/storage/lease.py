"""Let one driver at a time write a sweep in an object store, which has no locks that a dead process lets go of.

A driver writes its name beside the sweep every few seconds. Another one takes the sweep when the name has stayed as it
was for a minute, and the first one, should it be alive after all, finds another name and writes no more. Two drivers
that begin in the same second both write, wait, and look whose name is there.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tune_sweeps.storage.remote import Remote, StoreAway
from tutor_service.errors import UserError

LEASE = ".lease"
_CLOCK = ".clock"
RENEWED_EVERY_S = 15.0
SILENT_S = 60.0
SETTLES_S = 1.0
_POLL_S = 1.0


class Holder(NamedTuple):
    """Name who writes a sweep.

    Attributes:
        id: Of the copy of the sweep on the driver's machine, which is the newest while this name stands.
        host: The machine.
        beat: Counts how often the name was written.
    """

    id: str
    host: str
    beat: int


class Lease:
    """One driver's right to write a sweep.

    Args:
        remote: The object store.
        name: The sweep.
        note: File on this machine that remembers the id of its copy.
    """

    def __init__(self, remote: Remote, name: str, note: Path) -> None:
        self._remote = remote
        self._name = name
        self._note = note
        self._id = ""
        self._beat = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = ""
        """Who has taken the sweep from this driver, for a person; empty while nobody has."""

    def is_ours(self) -> bool:
        """Say whether the sweep was written from this machine last, by a driver that runs or was killed."""
        found = self._read()
        return found is not None and found.id == self._noted()

    def is_taken(self) -> bool:
        """Say whether a driver on another machine writes the sweep now."""
        found = self._read()
        return found is not None and found.id != self._noted() and self._silent_s() < SILENT_S

    def acquire(self, say: Callable[[str], None]) -> bool:
        """Take the sweep, once a driver on another machine has been silent for long enough.

        Args:
            say: Tells the user what is waited for.

        Returns:
            Whether the copy on this machine is the newest.

        Raises:
            UserError: Another driver runs the sweep.
        """
        found, noted = self._read(), self._noted()
        ours = found is not None and found.id == noted
        if found is not None and not ours:
            self._wait_until_silent(found, say)
        self._id = noted if ours else uuid.uuid4().hex
        self._note.write_text(self._id, encoding="utf-8")
        self._write()
        time.sleep(SETTLES_S)
        self.check()
        if self.lost:
            raise self._running(self.lost)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return ours

    def check(self) -> None:
        """Look whether the sweep is still this driver's; ``lost`` says where it is not."""
        found = self._read()
        if found is None or found.id != self._id:
            self.lost = found.host if found is not None else "another machine"

    def release(self) -> None:
        """Give the sweep back: the store has all of it."""
        self.stop()
        self.check()
        if not self.lost:
            self._remote.remove(self._name, LEASE)
            self._note.unlink(missing_ok=True)

    def stop(self) -> None:
        """Renew the lease no longer."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _renew(self) -> None:
        while not self._stop.wait(RENEWED_EVERY_S):
            try:
                self.check()
                if self.lost:
                    return
                self._write()
            except StoreAway:  # the next time will do, unless another driver has waited for long enough
                continue

    def _wait_until_silent(self, found: Holder, say: Callable[[str], None]) -> None:
        left_s = SILENT_S - self._silent_s()
        if left_s > 0:
            say(f"waiting up to {left_s:.0f} s to see whether the sweep's driver on {found.host} is alive")
        deadline = time.monotonic() + left_s
        while time.monotonic() < deadline:
            time.sleep(_POLL_S)
            now = self._read()
            if now is None:
                return
            if now != found:
                raise self._running(now.host)

    def _running(self, host: str) -> UserError:
        return UserError(
            f"sweep '{self._name}' is running in another process, on {host}. Wait for it, or give this one another "
            "--name."
        )

    def _silent_s(self) -> float:
        """Return how long ago a name was written, by the store's clock alone."""
        written = self._remote.modified(self._name, LEASE)
        self._remote.write(b"", self._name, _CLOCK)
        now = self._remote.modified(self._name, _CLOCK)
        return (now - written).total_seconds() if now is not None and written is not None else SILENT_S

    def _read(self) -> Holder | None:
        content = self._remote.read(self._name, LEASE)
        return Holder(**json.loads(content)) if content else None

    def _write(self) -> None:
        self._beat += 1
        holder = Holder(self._id, socket.gethostname(), self._beat)
        self._remote.write(json.dumps(holder._asdict()).encode(), self._name, LEASE)

    def _noted(self) -> str:
        try:
            return self._note.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
