"""Keep the copy of a sweep on the driver's machine and the sweep in an object store alike.

What the driver writes by itself (the configuration, the journal, the log, the report) lies in the copy, and reaches the
store within seconds. Trials write their checkpoints to the store themselves.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from filelock import FileLock, Timeout

from tune_sweeps.storage.lease import LEASE, Lease
from tune_sweeps.storage.remote import Remote, StoreAway

EVERY_S = 2.0
BYTES_PER_S = 200_000
"""Most that one file sends: a log of 20 MB is sent every 100 s while it grows."""

AT_END_S = 60.0
FETCHED_FOLDERS = ("journal",)
"""What a driver reads of a sweep, beside the files in its folder itself.

Their files are filled one after the other, and are sent in this order: the store never lacks what is before something
that it has.
"""

LAST = "sweep.json"
"""File without which there is no sweep: it is sent when all the others are there."""

LOCK = ".lock"
"""File that the process which runs the sweep on this machine holds a lock on."""

_LOCAL = frozenset({LOCK, LEASE, ".holder", ".clock"})
_THREADS = 16


class NoMirror:
    """Leave a folder alone that is where sweeps are kept."""

    def fetch(self) -> None:
        """Do nothing."""

    def is_taken(self) -> bool:
        """Return False: the folder's own lock says it."""
        return False

    @contextmanager
    def keeping(self, say: Callable[[str], None]) -> Iterator[None]:
        """Do nothing."""
        yield

    def save(self, path: Path) -> None:
        """Do nothing."""

    def warning(self) -> str:
        """Return nothing."""
        return ""


class _Seen(NamedTuple):
    """A file as it was when it was sent or brought last."""

    mtime_ns: int
    size: int
    at: float


class RemoteMirror:
    """Mirror a sweep's folder to an object store.

    Args:
        remote: The store.
        folder: The copy on this machine; its name is the sweep's.
    """

    def __init__(self, remote: Remote, folder: Path) -> None:
        self._remote = remote
        self._folder = folder.resolve()
        self._name = folder.name
        self._lease = Lease(remote, folder.name, folder / ".holder")
        self._seen: dict[str, _Seen] = {}
        self._brought: dict[str, tuple[object, int]] = {}
        self._sending: dict[str, threading.Lock] = {}
        self._stop = threading.Event()
        self._away = ""

    def fetch(self) -> None:
        """Bring what a driver reads of the sweep here, unless this machine has written it last.

        Raises:
            StoreAway: The store does not answer.
        """
        if self._lease.is_ours() or self._fetch() or not self._folder.is_dir():
            return
        with suppress(Timeout), FileLock(self._folder / LOCK).acquire(timeout=0):  # else a driver here just begins it
            shutil.rmtree(self._folder, ignore_errors=True)

    def is_taken(self) -> bool:
        """Say whether a driver on another machine writes the sweep now."""
        return self._lease.is_taken()

    @contextmanager
    def keeping(self, say: Callable[[str], None]) -> Iterator[None]:
        """Mirror the folder within a ``with`` block; ``say`` tells the user of delays and of what is missing.

        Raises:
            UserError: Another driver runs the sweep.
            StoreAway: The store does not answer at the beginning.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._lease.acquire(say):
            self._seen = dict.fromkeys(self._there(), _Seen(0, -1, 0.0))
        else:
            self._fetch()
        self._stop.clear()
        self._send_changes(everything=True)
        thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            if not self._finish():
                say(f"{self.warning()}. What is missing there is in {self._folder}")

    def save(self, path: Path) -> None:
        """Send a file now, after those before it; what the store or this machine's disk refuses is sent later."""
        name = path.relative_to(self._folder).as_posix()
        try:
            if not self._lease.lost:
                self._send_in_order([name])
        except (StoreAway, OSError) as error:
            self._away = str(error)

    def warning(self) -> str:
        """Say what is wrong just now; nothing where all is well."""
        if self._lease.lost:
            return f"{self._remote.url_of(self._name)} was taken over by a driver on {self._lease.lost}"
        if self._away:
            return f"{self._remote.url_of(self._name)} does not take what the sweep writes: {self._away}"
        return ""

    def _follow(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self._send_changes()
                self._away = ""
            except (StoreAway, OSError) as error:
                self._away = str(error)
            if self._lease.lost:
                os.kill(os.getpid(), signal.SIGINT)  # as a user would: what is there stays, and the driver ends
                return

    def _finish(self) -> bool:
        """Send what is left and give the sweep back; return whether all of it is there."""
        deadline = time.monotonic() + AT_END_S
        while not self._lease.lost:
            try:
                self._send_changes(everything=True)
                self._lease.release()
                self._away = ""
            except (StoreAway, OSError) as error:
                self._away = str(error)
                if time.monotonic() > deadline:
                    break
                time.sleep(EVERY_S)
            else:
                break
        self._lease.stop()
        return not self.warning()

    def _send_changes(self, everything: bool = False) -> None:
        """Send each file that has changed, and delete what is here no longer.

        Args:
            everything: Send large files, too, that were sent a moment ago.
        """
        self._lease.check()
        if self._lease.lost:
            return
        known = set(self._seen)  # before the look: a file that `save` sends meanwhile is none that was deleted
        now = self._here()
        due = [name for name, stat in now.items() if self._is_due(name, stat, everything)]
        in_order = [name for name in due if name.split("/")[0] in FETCHED_FOLDERS]
        with ThreadPoolExecutor(_THREADS) as pool:
            ordered = pool.submit(self._send_in_order, in_order)
            list(pool.map(self._send, [name for name in due if name != LAST and name not in in_order]))
            ordered.result()
        if LAST in due:
            self._send(LAST)
        for name in known - now.keys():
            self._remote.remove(self._name, name)
            del self._seen[name]

    def _is_due(self, name: str, stat: os.stat_result, everything: bool) -> bool:
        seen = self._seen.get(name)
        if seen is None:
            return True
        if (seen.mtime_ns, seen.size) == (stat.st_mtime_ns, stat.st_size):
            return False
        return everything or time.monotonic() - seen.at >= stat.st_size / BYTES_PER_S

    def _send_in_order(self, names: Sequence[str]) -> None:
        """Send files of one folder, and those before them that are not there as they are here."""
        if not names:
            return
        last = self._folder / max(names)
        files = sorted(path for path in last.parent.iterdir() if path <= last and path.suffix != ".part")
        for path in files:
            name = path.relative_to(self._folder).as_posix()
            if name in names or self._is_due(name, path.stat(), everything=True):
                self._send(name)

    def _send(self, name: str) -> None:
        path = self._folder / name
        with self._sending.setdefault(name, threading.Lock()):  # or an older content might arrive last
            try:
                stat = path.stat()  # before it is read: what is written meanwhile is sent the next time
                self._remote.upload(path, self._name, name)
            except FileNotFoundError:
                return
            self._seen[name] = _Seen(stat.st_mtime_ns, stat.st_size, time.monotonic())

    def _here(self) -> dict[str, os.stat_result]:
        """Return the files of the copy by their path in it."""
        found = {}
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder, name)
                if name in _LOCAL or path.suffix == ".part":
                    continue
                try:
                    found[path.relative_to(self._folder).as_posix()] = path.stat()
                except FileNotFoundError:
                    continue
        return found

    def _there(self) -> dict[str, tuple[object, int]]:
        """Return when each file that a driver reads was written, and its size, by its path."""
        found: dict[str, tuple[object, int]] = {}
        for within in ((), *((folder,) for folder in FETCHED_FOLDERS)):
            for name, info in self._remote.files(self._name, *within).items():
                if info.is_file and name not in _LOCAL:
                    found["/".join((*within, name))] = (info.mtime, info.size)
        return found

    def _fetch(self) -> bool:
        """Make the copy what the store has; return whether it has the sweep."""
        there = self._there()
        if LAST not in there:
            return False
        for folder in ("", *FETCHED_FOLDERS):
            (self._folder / folder).mkdir(parents=True, exist_ok=True)
        here = self._here()
        fetched = [name for name in here if "/" not in name or name.split("/")[0] in FETCHED_FOLDERS]
        for name in set(fetched) - there.keys():
            (self._folder / name).unlink(missing_ok=True)
        new = [name for name, mark in there.items() if self._brought.get(name) != mark or name not in here]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._bring, new))
        self._brought = there
        return True

    def _bring(self, name: str) -> None:
        path = self._folder / name
        self._remote.download(path, self._name, *name.split("/"))
        stat = path.stat()
        self._seen[name] = _Seen(stat.st_mtime_ns, stat.st_size, 0.0)


Mirror: TypeAlias = NoMirror | RemoteMirror
"""What keeps a sweep's folder and the place where sweeps are kept alike."""
