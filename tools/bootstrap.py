"""Builds ``.venv`` with pinned packages and prepares the embedded tutor. Run by ``make setup``; standard library only.

Safe to run again (does nothing when nothing changed) and safe to run twice at once (a lock serialises the two).

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
    return {name: value for name, value in found.items() if name not in os.environ}


def run(command: list[str], remedy: str, env: dict[str, str] | None = None) -> None:
    """Runs a command; on failure raises with the last lines of its output and the remedy."""
    result = subprocess.run(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-12:])
        raise SetupError(f"{' '.join(command[:6])} … failed:\n{tail}\n{remedy}")


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
    """Installs the project and its pinned dependencies in one resolution."""
    command = [
        str(PYTHON), "-m", "uv", "pip", "install", "--quiet", "--python", str(PYTHON),
        "--constraints", str(CONSTRAINTS), "--override", str(OVERRIDES),
        "--editable", f"{ROOT}[{engine},convert,dev]",
    ]  # fmt: skip
    remedy = "The line above names the package that could not be had. Check `pip config list` and the network, then run again."
    env = index_options()
    say("installing pinned packages (about 20 s with a warm cache, minutes on a slow network)")
    if engine == "gpu":
        run(command, remedy, env)
        return
    try:
        run(command, remedy, env)
    except SetupError:
        say("trying again with PyTorch's own CPU index, which holds torch's +cpu build")
        run([*command, "--torch-backend", "cpu"], remedy, env)


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
        run([str(PYTHON), "-m", "tutor_service.embedded"], "The embedded tutor could not be prepared; see above.")
    except SetupError as error:
        print(f"[setup] error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[setup] stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
