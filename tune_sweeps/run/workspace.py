"""Keep a sweep's folder under the results folder, and decide which sweep a command means."""

from __future__ import annotations

import json
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tune_sweeps.definition.config import NAME_RULE, SweepConfig, is_sweep_name
from tune_sweeps.definition.loading import continued, difference, dump_sweep, load_sweep
from tune_sweeps.storage.checkpoints import Checkpoints
from tune_sweeps.storage.mirror import LOCK, Mirror
from tune_sweeps.storage.results import Results
from tune_sweeps.tracking.journal import Journal
from tutor_service.errors import UserError, unknown_name
from tutor_service.paths import nearest

_CONFIG = "sweep.yaml"
_META = "sweep.json"
_LOOK_S = 0.5
"""Seconds to wait for the lock: a command that only looks whether the sweep runs has it for a moment."""
_SENT = ".in-mlflow"
JOURNAL = "journal"
_TUNE = "tune"


@dataclass(frozen=True)
class Workspace:
    """One sweep's folder.

    Attributes:
        results: Where sweeps are kept.
        name: The sweep's name.
        sweep_id: Identifies this sweep for good, also where others have used its name.
        mirror: Keeps the folder and an object store alike.
    """

    results: Results
    name: str
    sweep_id: str
    mirror: Mirror = field(compare=False)

    @property
    def folder(self) -> Path:
        """``RESULTS/NAME``; of an object store, the copy on this machine."""
        return (self.results.folder / self.name).resolve()

    def shown(self, path: Path) -> str:
        """Return a path within the folder as the user finds it when the sweep has ended."""
        return self.results.shown(path)

    @property
    def log(self) -> Path:
        """Where everything goes that Ray, RLlib, vLLM and MLflow say."""
        return self.folder / "log.txt"

    @property
    def checkpoints(self) -> Checkpoints:
        """Tune's own folder, with the checkpoints: in the object store where there is one."""
        if self.results.remote is None:
            return Checkpoints.of_folder(self.folder / _TUNE)
        return Checkpoints(self.results.remote.filesystem, self.results.remote.path(self.name, _TUNE))

    @property
    def own_play(self) -> Path:
        """What the tutors reached when they played themselves."""
        return self.folder / "own_play.json"

    @property
    def report(self) -> Path:
        """Tables and figures."""
        return self.folder / "report"

    def config(self) -> SweepConfig:
        """Read the sweep's configuration."""
        return load_sweep(str(self.folder / _CONFIG))

    def set_config(self, config: SweepConfig) -> None:
        """Keep a configuration in place of the one before, whole or not at all."""
        part = self.folder / f"{_CONFIG}.part"
        part.write_text(dump_sweep(config), encoding="utf-8")
        part.rename(self.folder / _CONFIG)

    def journal(self, keys: list[str]) -> Journal:
        """Read what happened to the trials."""
        return Journal(self.folder / JOURNAL, keys)

    def finished_trials(self) -> int:
        """Count the trials that have ended well."""
        return Journal(self.folder / JOURNAL).count("done")

    def is_sent(self) -> bool:
        """Say whether MLflow had everything when the sweep last ended."""
        return (self.folder / _SENT).exists()

    def set_sent(self, sent: bool) -> None:
        """Keep whether MLflow has everything."""
        if sent:
            (self.folder / _SENT).touch()
        else:
            (self.folder / _SENT).unlink(missing_ok=True)

    @contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """Run the sweep, as the only process that does, and keep an object store up with it, within a ``with`` block.

        Args:
            say: Tells the user of delays.

        Raises:
            UserError: Another process runs it, or the object store does not answer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = self._lock().acquire(timeout=_LOOK_S, poll_interval=_LOOK_S / 10)
        except Timeout:
            raise UserError(
                f"sweep '{self.name}' is running in another process. Wait for it, or give this one another --name."
            ) from None
        with lock, self.results.answering(), self.mirror.keeping(say):
            if _sweep_id(self.folder) != self.sweep_id:
                raise _just_begun(self.results, self.name)
            yield

    def is_running(self) -> bool:
        """Say whether a process runs the sweep now."""
        lock = self._lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        with self.results.answering():
            return self.mirror.is_taken()

    def _lock(self) -> FileLock:
        """Return the lock of the process that runs the sweep; the system frees it when that dies."""
        return FileLock(self.folder / LOCK)


def open_workspace(results: Results, name: str) -> Workspace | None:
    """Return the sweep of this name, or None.

    Raises:
        UserError: The object store does not answer.
    """
    if not is_sweep_name(name):
        return None
    mirror = results.mirror(name)
    with results.answering():
        mirror.fetch()
    sweep_id = _sweep_id(results.folder / name)
    return Workspace(results, name, sweep_id, mirror) if sweep_id else None


def _sweep_id(folder: Path) -> str:
    """Read which sweep a folder holds; nothing where it holds none."""
    try:
        return str(json.loads((folder / _META).read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError):
        return ""


def existing_workspace(results: Results, name: str) -> Workspace:
    """Return the sweep of this name.

    Raises:
        UserError: There is none.
    """
    found = open_workspace(results, name)
    if found is None:
        names = sweep_names(results)
        if not names:
            demo = f"tutor sweep demo{results.option}"
            raise UserError(f"no sweep '{name}': there is none yet in {results}. Run `{demo}`, or name its --results.")
        raise unknown_name("sweep", name, names, f"in {results}")
    return found


def sweep_names(results: Results) -> list[str]:
    """Name the sweeps in a results folder."""
    with results.answering():
        return [name for name in results.names() if results.has(name, _META)]


def create_workspace(results: Results, config: SweepConfig) -> Workspace:
    """Make the folder of a sweep, whole or not at all.

    Raises:
        UserError: The results folder cannot be written, or somebody else has made the sweep meanwhile.
    """
    folder = results.folder / config.name
    meta: dict[str, Any] = {"id": uuid.uuid4().hex, "created": int(time.time())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK).acquire(timeout=_LOOK_S, poll_interval=_LOOK_S / 10):
            if _sweep_id(folder):
                raise _just_begun(results, config.name)
            (folder / _CONFIG).write_text(dump_sweep(config), encoding="utf-8")
            (folder / f"{_META}.part").write_text(json.dumps(meta) + "\n", encoding="utf-8")
            (folder / f"{_META}.part").rename(folder / _META)
    except Timeout:
        raise _just_begun(results, config.name) from None
    except OSError as error:
        raise _cannot_write(results, error) from error
    return Workspace(results, config.name, meta["id"], results.mirror(config.name))


def check_writable(results: Results) -> None:
    """Refuse a folder, or an object store, in which no sweep can be kept.

    Raises:
        UserError: They cannot; nothing is left behind.
    """
    if results.remote is not None:
        results.remote.check_writable()
    there = nearest(results.folder)
    try:
        if not there.is_dir():
            raise NotADirectoryError(20, "not a folder", str(there))
        with tempfile.NamedTemporaryFile(dir=there, prefix=".writable-"):
            pass
    except OSError as error:
        raise _cannot_write(results, error) from error


def _just_begun(results: Results, name: str) -> UserError:
    return UserError(f"another driver has just begun a sweep '{name}' in {results}: try again.")


def _cannot_write(results: Results, error: OSError) -> UserError:
    return UserError(
        f"the results folder '{results.folder}' cannot be written ({error.strerror or error}). Give another with "
        "--results, or free space."
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """Say which sweep a command means.

    Attributes:
        config: The sweep, under its final name.
        existing: Its folder where it has been started before; None for a new one.
        note: What to tell the user about it; empty when there is nothing to tell.
    """

    config: SweepConfig
    existing: Workspace | None
    note: str = ""


def choose(results: Results, config: SweepConfig, name: str | None, num_trials: int) -> Choice:
    """Decide whether a sweep is new, is to be continued or extended, or is finished.

    With ``name``, and for sweeps that are not ``numbered``, the name means one sweep for good. A numbered sweep is
    continued when its latest run was interrupted, and otherwise started under the next free number. A sweep that
    differs in more seeds alone extends the one that exists.

    Args:
        results: Results folder.
        config: The sweep.
        name: The name that the user gave, if any.
        num_trials: Trials of the sweep.

    Raises:
        UserError: The name is in use with another configuration; the message shows what differs.
    """
    if name is not None:
        if not is_sweep_name(name):
            raise UserError(f"--name '{name}': {NAME_RULE}.")
        config = config.model_copy(update={"name": name})
    found = open_workspace(results, config.name)
    if found is None:
        return Choice(config, None)
    if name is not None or not config.numbered:
        going_on = continued(found.config(), config)
        if going_on is None:
            changes = difference(found.config(), config)
            raise UserError(
                f"the sweep name '{config.name}' is in use with another configuration: {'; '.join(changes)}. Give this "
                f"one another --name, or continue that one with --resume {config.name}."
            )
        return Choice(going_on, found, _added(found, going_on))
    latest_name, free_name = _numbers(results, config.name)
    latest = open_workspace(results, latest_name)
    if latest is not None and not latest.is_running():
        going_on = continued(latest.config(), config)
        if going_on is not None and (added := _added(latest, going_on)):
            return Choice(going_on, latest, added)
        done = latest.finished_trials()
        if going_on is not None and done < num_trials:
            note = f"'{latest.name}' was interrupted with {done} of {num_trials} trials finished: going on with it"
            return Choice(going_on, latest, note)
    return Choice(config.model_copy(update={"name": free_name}), None, f"'{latest_name}' exists: this is '{free_name}'")


def _added(workspace: Workspace, config: SweepConfig) -> str:
    """Name the seeds that a configuration adds to a sweep; nothing where it adds none."""
    added = [seed for seed in config.all_seeds if seed not in workspace.config().all_seeds]
    return f"'{workspace.name}' gets the seeds {', '.join(map(str, added))} more" if added else ""


def _numbers(results: Results, base: str) -> tuple[str, str]:
    """Return the sweep of a series with the highest number, and the next free name."""
    latest, number = base, 1
    pattern = re.compile(rf"{re.escape(base)}-(\d+)")
    with results.answering():
        names = results.names()
    for name in names:
        found = pattern.fullmatch(name)
        if found and int(found[1]) > number:
            latest, number = name, int(found[1])
    return latest, f"{base}-{number + 1}"
