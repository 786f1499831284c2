"""Open the place that ``--results`` names: a folder, or an object store with a copy on this machine."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tune_sweeps.storage.mirror import Mirror, NoMirror, RemoteMirror
from tune_sweeps.storage.remote import Remote, is_url
from tutor_service import paths

RESULTS = "runs"
"""Default results folder, relative to the working directory."""


@dataclass(frozen=True)
class Results:
    """Where sweeps are kept.

    >>> open_results("runs").folder
    PosixPath('runs')
    >>> str(open_results("s3://bucket/sweeps"))
    's3://bucket/sweeps'

    Attributes:
        folder: The folder; of an object store, the copy on this machine.
        remote: The object store; None for a folder.
    """

    folder: Path
    remote: Remote | None = None

    def __str__(self) -> str:
        return str(self.folder) if self.remote is None else self.remote.url

    @property
    def option(self) -> str:
        """The option by which a command finds it; nothing for the default folder."""
        if self.remote is None and self.folder.resolve() == Path(RESULTS).resolve():
            return ""
        return f" --results {shlex.quote(str(self))}"

    def mirror(self, name: str) -> Mirror:
        """Return what keeps a sweep's folder and the object store alike."""
        return NoMirror() if self.remote is None else RemoteMirror(self.remote, self.folder / name)

    def names(self) -> list[str]:
        """Name what lies there: sweeps and whatever else.

        Raises:
            StoreAway: The object store does not answer.
        """
        if self.remote is not None:
            return sorted(self.remote.files())
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []

    def has(self, *names: str) -> bool:
        """Say whether a file lies there.

        Raises:
            StoreAway: The object store does not answer.
        """
        if self.remote is not None:
            return self.remote.modified(*names) is not None
        return self.folder.joinpath(*names).is_file()

    def answering(self) -> AbstractContextManager[None]:
        """Turn an object store that fails within the block into a user's error."""
        return nullcontext() if self.remote is None else self.remote.answering()

    def shown(self, path: Path) -> str:
        """Return a path within the folder as the user finds it again."""
        if self.remote is None or not path.is_relative_to(self.folder):
            return str(path)
        return self.remote.url_of(*path.relative_to(self.folder).parts)

    def publish(self, path: Path) -> None:
        """Send a file, or a folder's files, of the folder to the object store; of a folder they are there already.

        Raises:
            UserError: The object store does not take them.
        """
        if self.remote is None or not path.is_relative_to(self.folder):
            return
        with self.remote.answering():
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.is_file():
                    self.remote.upload(file, *file.relative_to(self.folder).parts)


def open_results(text: str) -> Results:
    """Read what ``--results`` names; nothing is asked of an object store yet.

    Raises:
        UserError: An address that sweeps cannot be kept at.
    """
    if not is_url(text):
        return Results(Path(text))
    remote = Remote(text)
    return Results((paths.results_dir() / quote(remote.url_of(), safe="")).resolve(), remote)
