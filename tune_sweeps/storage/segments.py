"""Append lines to a folder of files, so that a process killed at any byte leaves all whole lines.

The files are filled one after the other. Only the newest one is ever written to: what mirrors the folder to an object
store sends little, and a sweep of any length has few files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from itertools import groupby
from pathlib import Path

SEGMENT_BYTES = 256 * 1024
"""Size from which on a file is full. An object store is sent the newest one whole, at each checkpoint."""

SYNC_EVERY_S = 5.0
"""A line that comes so long after the last one that was synced takes all before it to the disk."""

_OFFSET_BITS = 32


class Segments:
    """Lines in files of one folder, which one process at a time appends to and any may read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     lines = Segments(Path(name))
    ...     places = lines.append([b"one", b"two"], sync=True)
    ...     lines.close()
    ...     [line for place, line in Segments(Path(name)).read()], list(lines.at(places[1:]))
    ([b'one', b'two'], [b'two'])

    Args:
        folder: Where they lie; made at the first line.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number, self._size = 1, 0
        self._file: FileIO | None = None
        self._synced_at = 0.0

    @property
    def newest(self) -> Path:
        """The file that the last line is in."""
        return self._path(self._number)

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Give each whole line with its place, in order; what is appended later follows the last one.

        A last line that was cut short is left out, and written over by the next one.
        """
        for path in sorted(self._folder.glob("*.jsonl")):
            self._number, self._size = int(path.stem), 0
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    yield self._place(), line[:-1]
                    self._size += len(line)

    def append(self, lines: Sequence[bytes], sync: bool) -> list[int]:
        """Add lines, which survive this process at once, and a loss of power once a later line takes them along.

        Args:
            lines: Without line ends.
            sync: Whether they, and all before them, survive a loss of power when this returns.

        Returns:
            The place of each.

        Raises:
            OSError: None of them counts; the next attempt writes over what there is of them.
        """
        number, size = self._number, self._size
        places = []
        try:
            for line in lines:
                if self._size >= SEGMENT_BYTES:
                    self._sync()
                    self.close()
                    self._number, self._size = self._number + 1, 0
                places.append(self._place())
                self._write(line + b"\n")
            if sync or time.monotonic() - self._synced_at >= SYNC_EVERY_S:
                self._sync()
        except OSError:
            self._number, self._size = number, size
            self.close()
            raise
        return places

    def at(self, places: Iterable[int]) -> Iterator[bytes]:
        """Give the lines at places, which ascend."""
        for number, group in groupby(places, key=lambda place: place >> _OFFSET_BITS):
            with self._path(number).open("rb") as file:
                for place in group:
                    file.seek(place & ((1 << _OFFSET_BITS) - 1))
                    yield file.readline()[:-1]

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(os.open(self.newest, os.O_WRONLY | os.O_CREAT, 0o666), "w")
            self._file.truncate(self._size)
            self._file.seek(self._size)
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._size += len(line)

    def _sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def _place(self) -> int:
        return self._number << _OFFSET_BITS | self._size

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.jsonl"
