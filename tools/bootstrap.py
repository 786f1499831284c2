"""Builds ``.venv`` with pinned packages and prepares the embedded tutor. Run by ``make setup``.

Uses the standard library only. Safe to run again (it does nothing when nothing changed) and twice at once (a lock
serialises the two).

    python3 tools/bootstrap.py [--engine cpu|gpu]
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.sha256"
OVERRIDES = ROOT / "tools" / "uv-overrides.txt"
CONSTRAINTS = ROOT / "constraints.txt"
MIN_FREE_GIB = 6
HEARTBEAT_S = 5.0


class SetupError(Exception):
    """A failed step, with what to do about it."""


def say(text: str) -> None:
    """Prints one line of progress at once."""
    print(f"[setup] {text}", flush=True)


def fingerprint(engine: str) -> str:
    """Hash of everything that decides what is installed."""
    digest = hashlib.sha256(f"{engine} {sys.version_info[:3]} {ROOT}".encode())
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, OVERRIDES):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def index_options() -> dict[str, str]:
    """pip's own index settings as uv's environment variables, since uv does not read pip's configuration."""
    listing = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    settings: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        settings[key.split(".")[-1].lstrip(".")] = value.strip().strip("'\"")
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}
    found = {uv: settings[pip] for pip, uv in names.items() if settings.get(pip)}
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = ",".join(found["UV_FIND_LINKS"].split())
    if "UV_INDEX" in found:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's own rule: the best version over all its indexes
    return {name: value for name, value in found.items() if name not in os.environ}


def run(command: list[str], remedy: str, env: dict[str, str] | None = None) -> None:
    """Runs a command with a sign of life every few seconds; raises with the end of its output and a remedy."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=output, stderr=output)
        started = time.monotonic()
        try:
            while (status := wait(process, HEARTBEAT_S)) is None:
                say(f"  … {time.monotonic() - started:.0f} s")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        output.seek(0)
        lines = output.read().strip().splitlines()
    if status:
        raise SetupError("\n".join([f"{' '.join(command[:6])} … failed:", *lines[-12:], remedy]))


def wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit status, or None while the process still runs after ``timeout_s``."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None


def prepare_tutor() -> None:
    """Converts the embedded tutor once; its own progress and errors go straight to the terminal."""
    if subprocess.call([str(PYTHON), "-m", "tutor_service.embedded"], cwd=ROOT):
        raise SetupError("the embedded tutor could not be prepared; the line above says why.")


def create_venv() -> None:
    """Creates ``.venv`` with pip and uv, replacing one that does not run."""
    if PYTHON.exists() and subprocess.run([str(PYTHON), "-m", "uv", "--version"], capture_output=True).returncode == 0:
        return
    if VENV.exists():
        shutil.rmtree(VENV)
    say("creating .venv")
    venv.create(VENV, with_pip=True)
    pinned = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("uv==")]
    run(
        [str(PYTHON), "-m", "pip", "install", "--quiet", *(pinned or ["uv"])],
        "The package 'uv' could not be fetched: is a package index reachable (see `pip config list`)?",
    )


def install(engine: str) -> None:
    """Installs the project and its pinned dependencies in one resolution.

    Compiled once here: where ``$PYTHONDONTWRITEBYTECODE`` is set, as in many images and on many build machines, every
    process would otherwise compile torch, vLLM and Ray anew, which takes as long as loading them.
    """
    command = [
        str(PYTHON), "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(PYTHON),
        "--constraints", str(CONSTRAINTS), "--editable", f"{ROOT}[{engine},convert,solver,dev]",
    ]  # fmt: skip
    remedy = "The lines above name the package that could not be had: check `pip config list` and the network."
    env = index_options()
    say("installing and compiling pinned packages")
    if engine == "gpu":
        run(command, remedy, env)
        return
    command += ["--override", str(OVERRIDES)]
    try:
        run(command, remedy, env)
    except SetupError as error:
        if "torch" not in str(error):
            raise
        say("no CPU build of torch in the configured index; trying PyTorch's own CPU index")
        try:
            run([*command, "--torch-backend", "cpu"], remedy, env)
        except SetupError:
            raise error from None


def check_machine() -> None:
    """Refuses at once on a machine where the set-up cannot succeed."""
    if sys.version_info[:2] != (3, 11):
        raise SetupError(f"Python 3.11 is needed; this is {sys.version.split()[0]}. Run `make PYTHON=python3.11 …`.")
    if not os.access(ROOT, os.W_OK):
        raise SetupError(f"the folder {ROOT} is not writable. Clone into a folder of yours.")
    free_gib = shutil.disk_usage(ROOT).free / 2**30
    if free_gib < MIN_FREE_GIB and not STAMP.exists():
        raise SetupError(f"only {free_gib:.1f} GiB free in {ROOT}; the packages take about {MIN_FREE_GIB} GiB.")


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("cpu", "gpu"), default="cpu", help="vLLM build to install (default: cpu)")
    engine = parser.parse_args().engine
    started = time.monotonic()
    try:
        check_machine()
        with (ROOT / ".venv.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another set-up is running in this folder; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            wanted = fingerprint(engine)
            if not (STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists()):
                STAMP.unlink(missing_ok=True)
                create_venv()
                install(engine)
                STAMP.write_text(wanted)
                say(f"packages installed in {time.monotonic() - started:.0f} s")
        prepare_tutor()
    except SetupError as error:
        print(f"[setup] error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[setup] stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
