"""Walks a database file in a process of its own and says whether it can be trusted. Knows LMDB and no answers.

LMDB maps its file into memory and follows page numbers unchecked: reading a truncated or damaged file can end the
process by a signal. So a file is walked once in a child process before any process that matters maps it. Run as
``python -m tutor_service.store.check FOLDER``: exit status 0 for a sound file, 3 and a reason for a damaged one.
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


def find_damage(folder: Path) -> str | None:
    """Why the database in ``folder`` cannot be trusted, or None if every page of it can be read.

    Raises:
        OSError: The check itself could not be made.
    """
    data = folder / "data.mdb"
    if not data.exists() or not data.stat().st_size:
        return None
    limit_s = 60 + _SECONDS_PER_GIB * data.stat().st_size / 2**30
    command = [sys.executable, "-m", "tutor_service.store.check", str(folder)]
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


def walk(folder: Path) -> str | None:
    """Reads every page of every table; returns what is wrong, or None."""
    try:
        locked = os.access(folder, os.W_OK)  # without a place in the lock table a writer may reuse what is being read
        with lmdb.open(str(folder), readonly=True, lock=locked, max_dbs=8, map_size=_map_size(folder)) as environment:
            with environment.begin() as transaction:
                tables = [bytes(name) for name in transaction.cursor().iternext(keys=True, values=False)]
            for name in tables:
                table = environment.open_db(name, create=False)
                with environment.begin(db=table, buffers=True) as transaction:
                    problem = _walk_table(transaction, name.decode("ascii", "replace"))
                if problem:
                    return problem
    except lmdb.Error as error:
        return str(error)
    return None


def _walk_table(transaction: lmdb.Transaction, name: str) -> str | None:
    last, count = b"", 0
    for key, value in transaction.cursor():
        current = bytes(key)
        if current <= last:
            return f"table '{name}' is out of order at entry {count}"
        bytes(value)
        last, count = current, count + 1
    expected = transaction.stat()["entries"]
    return None if count == expected else f"table '{name}' says {expected} entries and holds {count}"


def _map_size(folder: Path) -> int:
    return max(1 << 20, (folder / "data.mdb").stat().st_size)


def main() -> int:
    """The child process: prints the damage and exits with a status that tells."""
    damage = walk(Path(sys.argv[1]))
    if damage:
        print(damage)
    return _DAMAGED_STATUS if damage else 0


if __name__ == "__main__":
    sys.exit(main())
