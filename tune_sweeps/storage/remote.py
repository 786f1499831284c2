"""Reach a folder of an object store through pyarrow's file systems, as Ray does, and say in one line what is wrong."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tutor_service.client.bounded_calls import BoundedCalls
from tutor_service.errors import UserError

if TYPE_CHECKING:
    import pyarrow.fs

SCHEMES = ("s3", "gs", "abfs", "abfss")
PATIENCE_S = 30.0
"""How long a store may take to answer the first request: some clients try for a quarter of an hour."""

_ONE_REQUEST = "allow_delayed_open=true"
"""Has pyarrow write a small S3 object by one request in place of three."""

_NOISE = re.compile(r"\s*\(Request ID: [^)]*\)|curlCode: \d+, ")
_LONGEST_REASON = 400


def is_url(results: str) -> bool:
    """Say whether a place of results is an address rather than a folder."""
    return "://" in results


class Remote:
    """A folder of an object store.

    Args:
        url: E.g. ``s3://bucket/path``, with pyarrow's options after ``?``, e.g. ``endpoint_override=127.0.0.1:9000``.

    Raises:
        UserError: It is no address of a kind that sweeps can be kept at.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UserError(f"--results '{url}' is no address: {error}.") from None
        if parts.scheme not in SCHEMES:
            raise UserError(
                f"--results '{url}': sweeps are kept in a folder or at {', '.join(f'{s}://' for s in SCHEMES)}, e.g. "
                "s3://bucket/path."
            )
        if parts.password is not None or (parts.username is not None and not parts.scheme.startswith("abfs")):
            raise UserError(
                "--results holds a key, which everyone who sees the sweep would see. Give the address without it, and "
                "keys by the environment, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._query = "&".join(filter(None, (parts.query, _ONE_REQUEST if parts.scheme == "s3" else "")))

    @cached_property
    def _opened(self) -> tuple[pyarrow.fs.FileSystem, str]:
        import pyarrow
        import pyarrow.fs

        try:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(f"{self._base}?{self._query}".rstrip("?"))
        except (pyarrow.ArrowInvalid, OSError, ValueError) as error:
            raise UserError(f"--results '{self.url}' is no address that pyarrow takes: {_reason(error)}.") from error
        if not path:
            raise UserError(f"--results '{self.url}' names no bucket: give e.g. s3://bucket/path.")
        return filesystem, path

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        """pyarrow's file system; it can be pickled, the endpoint included and keys of the environment excluded."""
        return self._opened[0]

    def path(self, *names: str) -> str:
        """Return a path as the file system takes it."""
        return "/".join((self._opened[1], *names))

    def url_of(self, *names: str) -> str:
        """Return the address of what lies there, for a person."""
        return "/".join((self._base, *names))

    def check_writable(self) -> None:
        """Refuse a place in which nothing can be kept.

        Raises:
            UserError: It does not exist, does not answer or lets nobody write; nothing is left behind.
        """
        try:
            BoundedCalls(1).run(self._probe, PATIENCE_S)
        except TimeoutError:
            raise self._refused("written", TimeoutError(f"no answer within {PATIENCE_S:g} s")) from None
        except StoreAway as error:
            raise self._refused("written", error) from error

    def _probe(self) -> None:
        name = f".writable-{uuid.uuid4().hex}"
        self.write(b"", name)
        self.remove(name)

    def files(self, *names: str) -> dict[str, pyarrow.fs.FileInfo]:
        """Return what lies directly in a folder by name, files and folders; nothing where there is no such folder."""
        import pyarrow.fs

        with _away():
            found = self.filesystem.get_file_info(pyarrow.fs.FileSelector(self.path(*names), allow_not_found=True))
        return {info.base_name: info for info in found}

    def modified(self, *names: str) -> datetime | None:
        """Return when a file was written last, by the store's clock; None where it does not exist."""
        with _away():
            found: datetime | None = self.filesystem.get_file_info(self.path(*names)).mtime
        return found

    def read(self, *names: str) -> bytes | None:
        """Return a small file's content; None where it does not exist."""
        with _away():
            try:
                with self.filesystem.open_input_stream(self.path(*names)) as file:
                    content: bytes = file.read()
            except FileNotFoundError:
                return None
        return content

    def write(self, content: bytes, *names: str) -> None:
        """Write a small file, whole or not at all."""
        with _away(), self.filesystem.open_output_stream(self.path(*names)) as file:
            file.write(content)

    def upload(self, source: Path, *names: str) -> None:
        """Copy a file of this machine there, whole or not at all."""
        with source.open("rb") as file, _away(), self.filesystem.open_output_stream(self.path(*names)) as target:
            shutil.copyfileobj(file, target)

    def download(self, target: Path, *names: str) -> None:
        """Copy a file from there, whole or not at all."""
        part = target.with_name(f"{target.name}.part")
        with _away(), self.filesystem.open_input_stream(self.path(*names)) as file, part.open("wb") as out:
            shutil.copyfileobj(file, out)
        part.replace(target)

    def remove(self, *names: str) -> None:
        """Delete a file; nothing happens where it does not exist."""
        with _away():
            try:
                self.filesystem.delete_file(self.path(*names))
            except FileNotFoundError:
                return

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn a store that fails within the block into a user's error.

        Raises:
            UserError: It does not answer, or refuses.
        """
        try:
            yield
        except StoreAway as error:
            raise self._refused("read or written", error) from error

    def _refused(self, what: str, error: Exception) -> UserError:
        keys = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL" if self._base[:2] == "s3" else "its keys"
        return UserError(f"--results '{self.url}' cannot be {what}: {_reason(error)}. Check the address and {keys}.")


class StoreAway(Exception):
    """Report that an object store does not answer, or refuses."""


@contextmanager
def _away() -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:  # some clients' errors are Arrow's own
        raise StoreAway(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = _NOISE.sub("", " ".join(str(error).split())) or type(error).__name__
    return text[:_LONGEST_REASON].rstrip(". ")
