"""Find, bring and remove the checkpoints of trials, in a folder or in an object store, as Tune wrote them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs


@dataclass(frozen=True)
class Checkpoints:
    """Tune's folder of a sweep.

    Attributes:
        filesystem: pyarrow's file system.
        root: The folder, as that file system takes it.
    """

    filesystem: pyarrow.fs.FileSystem
    root: str

    @classmethod
    def of_folder(cls, folder: Path) -> Checkpoints:
        """Return those of a folder on this machine, or one that all machines share."""
        return cls(pyarrow.fs.LocalFileSystem(), str(folder))

    def has(self, path: str) -> bool:
        """Say whether a checkpoint is still there."""
        return bool(self.filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory)

    def remove(self, path: str) -> None:
        """Delete a checkpoint; nothing happens where it does not exist."""
        try:
            self.filesystem.delete_dir(path)
        except FileNotFoundError:
            return

    @contextmanager
    def folder(self, path: str) -> Iterator[Path | None]:
        """Have a folder of a checkpoint on this machine within a ``with`` block; None where it does not exist."""
        if not self.has(path):
            yield None
        elif isinstance(self.filesystem, pyarrow.fs.LocalFileSystem):
            yield Path(path)
        else:
            with tempfile.TemporaryDirectory(prefix="llm-tutors-", ignore_cleanup_errors=True) as copy:
                pyarrow.fs.copy_files(path, copy, source_filesystem=self.filesystem)
                yield Path(copy)

    def next_attempt(self) -> str:
        """Name a run of Tune as no earlier one: it must not write over their checkpoints."""
        found = self.filesystem.get_file_info(pyarrow.fs.FileSelector(self.root, allow_not_found=True))
        names = [info.base_name for info in found if info.base_name.startswith("attempt-")]
        return f"attempt-{max((int(name.removeprefix('attempt-')) for name in names), default=0) + 1}"
