"""Walks a database file in a process of its own and says whether it can be trusted. Knows LMDB and no answers.

LMDB maps its file into memory and follows page numbers unchecked: reading a truncated or damaged file can end the
process by a signal. So a file is walked once in a child process before any process that matters maps it. Run as
``python -m tutor_service.store.check FOLDER read|write``: exit status 0 for a sound file, 3 and a reason for a
damaged one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import lmdb

_DAMAGED_STATUS = 3
_FATAL_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
_SECONDS_PER_GIB = 120.0
_LEAST_MAP = 1 << 20
_TRIAL = b"trial"


def find_damage(folder: Path, writable: bool) -> str | None:
    """Why the database in ``folder`` cannot be trusted, or None if every page of it can be read.

    Args:
        folder: Where ``data.mdb`` lies.
        writable: Whether to try a write too (which is then taken back): some damage shows only there.

    Raises:
        OSError: The check itself could not be made.
    """
    data = folder / "data.mdb"
    if not data.exists() or not data.stat().st_size:
        return None
    limit_s = 60 + _SECONDS_PER_GIB * data.stat().st_size / 2**30
    command = [sys.executable, "-m", "tutor_service.store.check", str(folder), "write" if writable else "read"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"the check of '{data}' did not end within {limit_s:.0f} s") from None
    if done.returncode == 0:
        return None
    if done.returncode == _DAMAGED_STATUS:
        return done.stdout.strip()
    if -done.returncode in _FATAL_SIGNALS:
        return f"reading it ends in {signal.Signals(-done.returncode).name}: it was cut short or overwritten"
    raise OSError(f"the check of '{data}' ended with status {done.returncode}: {done.stderr.strip()[-500:]}")


def walk(folder: Path, writable: bool) -> str | None:
    """Reads every page of every table and, if asked to, tries a write; returns what is wrong, or None."""
    locked = os.access(folder, os.W_OK)  # without a place in the lock table a writer may reuse what is being read
    size = max(_LEAST_MAP, 2 * (folder / "data.mdb").stat().st_size)
    try:
        with lmdb.open(
            str(folder), readonly=not writable, lock=locked, max_dbs=8, map_size=size, create=False
        ) as environment:
            with environment.begin() as transaction:
                names = [bytes(name) for name in transaction.cursor().iternext(keys=True, values=False)]
            tables = {name: environment.open_db(name, create=False) for name in names}
            for name, table in tables.items():
                with environment.begin(db=table, buffers=True) as transaction:
                    problem = _walk_table(transaction, name.decode("ascii", "replace"))
                if problem:
                    return problem
            if writable:
                with environment.begin(write=True) as transaction:
                    for table in tables.values():
                        transaction.put(_TRIAL, _TRIAL, db=table)
                    transaction.abort()
    except lmdb.Error as error:
        return str(error)
    return None


def _walk_table(transaction: lmdb.Transaction, name: str) -> str | None:
    last, count = b"", 0
    for key in transaction.cursor().iternext(keys=True, values=False):
        current = bytes(key)
        if current <= last:
            return f"table '{name}' is out of order at entry {count}"
        value = transaction.get(current)  # a search from the root checks the kind of every page, a cursor does not
        if value is None:
            return f"table '{name}' does not find its entry {count}"
        bytes(value)  # touches every page of it
        last, count = current, count + 1
    expected = transaction.stat()["entries"]
    return None if count == expected else f"table '{name}' says {expected} entries and holds {count}"


def main() -> int:
    """The child process: prints the damage and exits with a status that tells."""
    damage = walk(Path(sys.argv[1]), writable=sys.argv[2] == "write")
    if damage:
        print(damage)
    return _DAMAGED_STATUS if damage else 0


if __name__ == "__main__":
    sys.exit(main())
