"""Open one LMDB database on disk, check it, share it within a process, grow it, and set it aside when damaged.

Owns everything that can go wrong with files. It knows tables of bytes, and must not know what they mean.

LMDB gives what the store needs: readers that never wait, one writer at a time over all processes, and a commit that
either happened or did not, whenever the process is killed. It must live on a local disk; see ``filesystem``.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

import lmdb
from filelock import Timeout

from tutor_service.store.base import StoreError
from tutor_service.store.guard import UserCount, find_damage, inode, set_aside

logger = logging.getLogger(__name__)

T = TypeVar("T")
Tables: TypeAlias = "tuple[lmdb._Database | None, ...]"

INITIAL_BYTES = 1 << 26
"""First size of the memory map; it doubles as the database grows. Address space, not memory or disk."""

_MAX_READERS = 1024
_ATTEMPTS = 64
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.CursorFullError,
)


class Database:
    """Hold an open database. Safe to use from several threads; not to be carried into a forked child.

    Use ``acquire`` rather than the constructor: LMDB allows one opening of a file per process.

    Attributes:
        folder: Where ``data.mdb`` and ``lock.mdb`` lie.
        readonly: Whether writing is refused.
        set_aside: Where a damaged predecessor was moved when this database was opened.
    """

    def __init__(self, folder: Path, readonly: bool, max_bytes: int | None, tables: tuple[bytes, ...]) -> None:
        self.folder = folder
        self.readonly = readonly
        self.set_aside: Path | None = None
        self.pid = os.getpid()
        self.users = 0
        self._max_bytes = max_bytes
        self._inode: int | None = None
        self._users = UserCount(folder)
        self._names = tables
        self._map_lock = threading.Lock()  # held to read and to change the map
        self._write_lock = threading.RLock()  # taken before the map's lock, never after it
        self._open_checked()

    def read(self, work: Callable[[lmdb.Transaction, Tables], T]) -> T:
        """Run ``work(transaction, tables)`` on one consistent view.

        Raises:
            StoreError: The database cannot be read.
        """
        for _ in range(_ATTEMPTS):
            opened = self._environment
            try:
                with self._map_lock, self._environment.begin() as transaction:
                    return work(transaction, self._tables)
            except lmdb.MapResizedError:
                self._follow_growth()
            except lmdb.ReadersFullError as error:
                if not self._environment.reader_check():
                    raise self._unreadable(error) from error
            except lmdb.PanicError:
                self._recover(opened, None)
            except _DAMAGE as error:
                if self.readonly:
                    raise self._unreadable(error) from error
                self._recover(opened, error)
            except lmdb.Error as error:
                raise self._unreadable(error) from error
        raise StoreError(f"advice store '{self.folder}' grows faster than it can be read; try again.")

    def write(self, work: Callable[[lmdb.Transaction, Tables], T]) -> T:
        """Run ``work(transaction, tables)`` and commit it whole, or not at all. May run ``work`` several times.

        Raises:
            StoreError: Read-only, disk full, or the size limit is reached. Nothing was written.
        """
        if self.readonly:
            raise StoreError(f"advice store '{self.folder}' is open for reading only.")
        with self._write_lock:
            for _ in range(_ATTEMPTS):
                opened = self._environment
                try:
                    with self._environment.begin(write=True) as transaction:
                        return work(transaction, self._tables)
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.MapResizedError:
                    self._follow_growth()
                except lmdb.PanicError:
                    self._recover(opened, None)
                except _DAMAGE as error:
                    self._recover(opened, error)
                except lmdb.Error as error:
                    raise StoreError(
                        f"advice store '{self.folder}' could not be written: {error}. Free space on its disk, or move "
                        "it (LLM_TUTORS_HOME). What it held before is intact."
                    ) from error
        raise StoreError(f"advice store '{self.folder}' could not be written in {_ATTEMPTS} attempts.")

    @property
    def map_bytes(self) -> int:
        """Return the size of the memory map: how large the file may become before the map grows again."""
        return int(self._environment.info()["map_size"])

    def close(self) -> None:
        """Give the files back. In a forked child, the child's copies of them: LMDB must not be carried over a fork."""
        if self.pid == os.getpid():
            with self._write_lock, self._map_lock:
                self._environment.close()
                self._users.leave()
        else:
            self._environment.close()
            self._users.leave()

    def _unreadable(self, error: lmdb.Error) -> StoreError:
        return StoreError(f"advice store '{self.folder}' cannot be read: {error}")

    def _grow(self) -> None:
        with self._map_lock:
            size = self.map_bytes
            limit = self._max_bytes
            if limit is not None and size >= limit:
                raise StoreError(
                    f"advice store '{self.folder}' is full: it reached its limit of {limit} bytes. "
                    "Raise max_bytes, or export it and begin a new one."
                )
            self._environment.set_mapsize(min(2 * size, limit) if limit is not None else 2 * size)

    def _follow_growth(self) -> None:
        """Follow another process that made the map larger."""
        with self._write_lock, self._map_lock:
            self._environment.set_mapsize(0)

    def _recover(self, opened: lmdb.Environment, damage: lmdb.Error | None) -> None:
        """Open anew, unless another thread did.

        Without ``damage`` the file is sound: a commit that failed half-way made LMDB give up this opening of it.
        """
        with self._write_lock, self._map_lock:
            if self._environment is opened:
                self._environment.close()
                self._open_checked(str(damage) if damage else None)

    def _open_checked(self, seen_damage: str | None = None) -> None:
        try:
            if not self.readonly:
                self.folder.mkdir(parents=True, exist_ok=True)
            elif not (self.folder / "data.mdb").is_file():
                raise StoreError(f"advice store '{self.folder}' does not exist.")
            if not os.access(self.folder.parent, os.W_OK):  # nobody else can be writing it either
                self._refuse_damage(find_damage(self.folder))
                self._open()
                return
            with self._users.opening() as alone:
                moved_already = self._inode not in (None, inode(self.folder))  # by another process that met it too
                damage = None if moved_already else seen_damage
                self._refuse_damage(damage or (find_damage(self.folder) if alone else None))
                self._open()
        except Timeout as error:
            raise StoreError(
                f"advice store '{self.folder}' has been checked by another process for minutes."
            ) from error
        except OSError as error:
            raise StoreError(f"advice store '{self.folder}' cannot be opened: {error}") from error

    def _refuse_damage(self, damage: str | None) -> None:
        if damage is None:
            return
        if self.readonly:
            raise StoreError(
                f"advice store '{self.folder}' is damaged ({damage}). A service that opens it sets it aside and begins "
                "a new one."
            )
        self.set_aside = set_aside(self.folder)
        logger.error(
            "Advice store '%s' is damaged (%s). It was set aside as '%s' and a new one begun: states are evaluated "
            "anew. The damaged files can be deleted.",
            self.folder,
            damage,
            self.set_aside,
        )
        self.folder.mkdir(parents=True)

    def _table(self, name: bytes) -> lmdb._Database | None:
        """Open a table; None where an earlier version wrote the database without it and it cannot be added."""
        try:
            return self._environment.open_db(name, create=not self.readonly)
        except lmdb.NotFoundError:
            return None

    def _open(self) -> None:
        data = self.folder / "data.mdb"
        used = data.stat().st_size if data.exists() else 0
        size = max(INITIAL_BYTES, used)
        if self._max_bytes is not None:
            size = max(min(size, self._max_bytes), used, 4 * 4096)
        try:
            self._environment = lmdb.open(
                str(self.folder),
                map_size=size,
                readonly=self.readonly,
                lock=not self.readonly or os.access(self.folder, os.W_OK),
                metasync=False,  # the last commit may be lost with the machine's power, never the database
                max_readers=_MAX_READERS,
                max_dbs=len(self._names),
            )
            if not self.readonly:
                self._environment.reader_check()
            self._inode = inode(self.folder)
            self._tables: Tables = tuple(self._table(name) for name in self._names)
        except lmdb.Error as error:
            raise StoreError(f"advice store '{self.folder}' cannot be opened: {error}") from error


_open_databases: WeakValueDictionary[tuple[int, Path], Database] = WeakValueDictionary()
_registry_lock = threading.Lock()


def acquire(folder: Path, readonly: bool, max_bytes: int | None, tables: tuple[bytes, ...]) -> Database:
    """Return the process's one opening of ``folder``; pair it with ``release``.

    Raises:
        StoreError: It cannot be opened, or is open for reading only and asked for writing.
    """
    folder = folder.expanduser().resolve()
    with _registry_lock:
        database = _open_databases.get((os.getpid(), folder))
        if database is None:
            database = Database(folder, readonly, max_bytes, tables)
            _open_databases[(os.getpid(), folder)] = database
        elif database.readonly and not readonly:
            raise StoreError(f"advice store '{folder}' is open for reading only in this process; close that first.")
        database.users += 1
        return database


def release(database: Database) -> None:
    """Give up one use; the last one closes the files."""
    with _registry_lock:
        database.users -= 1
        if database.users <= 0:
            _open_databases.pop((database.pid, database.folder), None)
            database.close()
