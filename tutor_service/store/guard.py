"""Tell whether a database on disk can be trusted, and move one that cannot. Knows files, and no answers.

LMDB maps its file into memory and follows page numbers unchecked: reading a truncated or damaged file can end the
process by a signal. So the first process that opens a database has every page of it verified before LMDB maps it.
The verifier needs a file at rest; processes that come while others have it open rely on what the first one found.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from filelock import FileLock
from lmdb import verify as lmdb_verify

_WAIT_S = 300.0
_SHOWN_FLAWS = 3


def find_damage(folder: Path) -> str | None:
    """Return why the database in ``folder``, at rest, cannot be trusted; None if it is sound or not there."""
    data = folder / "data.mdb"
    if not data.exists() or not data.stat().st_size:
        return None
    try:
        flaws = lmdb_verify.verify(str(folder), subdir=True)
    except lmdb_verify.VerifyError as error:
        flaws = [str(error)]
    if not flaws:
        return None
    more = len(flaws) - _SHOWN_FLAWS
    return "; ".join(flaws[:_SHOWN_FLAWS]) + (f"; and {more} more" if more > 0 else "")


def set_aside(folder: Path) -> Path:
    """Rename a damaged database's folder to one with a time stamp and return that.

    Raises:
        OSError: It cannot be renamed.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target, attempt = folder.with_name(f"{folder.name}.damaged-{stamp}"), 1
    while target.exists():
        target, attempt = folder.with_name(f"{folder.name}.damaged-{stamp}-{attempt}"), attempt + 1
    return folder.rename(target)


def inode(folder: Path) -> int | None:
    """Return the identity of the database file that lies in ``folder`` now."""
    data = folder / "data.mdb"
    return data.stat().st_ino if data.exists() else None


class UserCount:
    """Tell whether any process has a database open. The system keeps the count, so a killed process leaves it right.

    Args:
        folder: The database's folder; two hidden lock files lie beside it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    @contextmanager
    def opening(self) -> Iterator[bool]:
        """Let one process at a time open or move a database; yield whether no process has it open, this one included.

        Raises:
            filelock.Timeout: Another process has been at it for minutes.
            OSError: The lock files cannot be written.
        """
        with FileLock(self._folder.with_name(f".{self._folder.name}.opening"), timeout=_WAIT_S):
            if self._file is not None:
                yield False
                return
            self._file = self._folder.with_name(f".{self._folder.name}.users").open("a")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                alone = False
            try:
                yield alone
                fcntl.flock(self._file, fcntl.LOCK_SH)
            except BaseException:
                self.leave()
                raise

    def leave(self) -> None:
        """Note that this process has it open no longer."""
        if self._file is not None:
            self._file.close()
            self._file = None
