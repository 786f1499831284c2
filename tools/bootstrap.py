"""Build ``.venv`` with pinned packages and prepare the embedded tutor. Run by ``make setup``.

Uses the standard library only. Safe to run again (it does nothing when nothing changed) and twice at once (a lock
serialises the two).

    python3 tools/bootstrap.py [--engine cpu|gpu|none]

Started by an interpreter that does not fit, it looks for one that does and starts again with that.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import platform
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
FITTING = ((3, 11), (3, 12), (3, 13))
MIN_FREE_GIB = 6
HEARTBEAT_S = 5.0
STARTED_AGAIN = "LLM_TUTORS_SETUP_STARTED_AGAIN"
VLLM_MACHINES = ("x86_64", "aarch64")
EXTRAS = {"cpu": "cpu,dev", "gpu": "gpu,dev", "none": "dev"}


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


def index_options(python: Path = PYTHON) -> dict[str, str]:
    """pip's own index settings as uv's environment variables, since uv does not read pip's configuration."""
    listing = subprocess.run(
        [str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
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
    """Run a command with a sign of life every few seconds; raise with the end of its output and a remedy."""
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
    """Convert the embedded tutor once; its own progress and errors go straight to the terminal."""
    if subprocess.call([str(PYTHON), "-m", "tutor_service.embedded"], cwd=ROOT):
        raise SetupError("the embedded tutor could not be prepared; the line above says why.")


def fitting_interpreter() -> str | None:
    """Find an interpreter of a version in ``FITTING``, newest first: on the PATH, else one that uv brings."""
    names = [f"python{major}.{minor}" for major, minor in reversed(FITTING)]
    for path in filter(None, map(shutil.which, names)):
        if subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0:
            return path
    uv = shutil.which("uv")
    if uv is None:
        return None
    wanted = f">={dotted(FITTING[0])},<{FITTING[-1][0]}.{FITTING[-1][1] + 1}"
    subprocess.run([uv, "python", "install", wanted], capture_output=True)
    found = subprocess.run([uv, "python", "find", wanted], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def dotted(version: tuple[int, int]) -> str:
    """Return a version as it is written, such as ``3.11``."""
    return f"{version[0]}.{version[1]}"


def use_fitting_interpreter() -> None:
    """Start this program again with an interpreter that fits, unless this one does.

    Raises:
        SetupError: None is found.
    """
    if sys.version_info[:2] in FITTING and importlib.util.find_spec("ensurepip"):
        return
    this = f"{sys.executable} is Python {platform.python_version()}"
    if sys.version_info[:2] in FITTING:
        this += " without ensurepip (on Debian and Ubuntu: apt install python3-venv)"
    path = fitting_interpreter()
    if path is None or os.environ.get(STARTED_AGAIN):
        versions = ", ".join(dotted(version) for version in FITTING)
        raise SetupError(f"Python {versions} is needed; {this}. Run `make PYTHON=/path/to/python …`, or install uv.")
    say(f"{this}; going on with {path}")
    os.environ[STARTED_AGAIN] = "1"
    os.execv(path, [path, *sys.argv])


def pinned(package: str) -> str:
    """The line ``package==version`` of the constraints."""
    return next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith(f"{package}=="))


def create_venv() -> None:
    """Creates ``.venv`` with pip and uv, replacing one that does not run or is of another Python."""
    check = f"import sys, uv; sys.exit(sys.version_info[:3] != {tuple(sys.version_info[:3])})"
    if PYTHON.exists() and subprocess.run([str(PYTHON), "-c", check], capture_output=True).returncode == 0:
        return
    if VENV.exists():
        shutil.rmtree(VENV)
    say(f"creating .venv with Python {platform.python_version()}")
    venv.create(VENV, with_pip=True)
    run(
        [str(PYTHON), "-m", "pip", "install", "--quiet", pinned("uv")],
        "The package 'uv' could not be fetched: is a package index reachable (see `pip config list`)?",
    )


def install(engine: str, python: Path = PYTHON) -> None:
    """Installs the project and its pinned dependencies for an interpreter in one resolution, by the uv of ``.venv``.

    Compiled once here: where ``$PYTHONDONTWRITEBYTECODE`` is set, as in many images and on many build machines, every
    process would otherwise compile torch, vLLM and Ray anew, which takes as long as loading them.
    """
    command = [
        str(PYTHON), "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python),
        "--constraints", str(CONSTRAINTS), "--editable", f"{ROOT}[{EXTRAS[engine]}]",
    ]  # fmt: skip
    remedy = "The lines above name the package that could not be had: check `pip config list` and the network."
    env = index_options()
    say("installing and compiling pinned packages")
    if engine == "gpu":
        run(command, remedy, env)
        return
    command += ["--override", str(OVERRIDES)]
    cpu_torch = [f"{pinned('torch')}+cpu"] if engine == "none" and sys.platform == "linux" else []
    try:
        run([*command, *cpu_torch], remedy, env)
    except SetupError as error:
        if "torch" not in str(error):
            raise
        say("no CPU build of torch in the configured index; trying PyTorch's own CPU index")
        try:
            run([*command, *cpu_torch, "--torch-backend", "cpu"], remedy, env)
        except SetupError:
            if engine != "none":
                raise error from None
            say("nor there; taking the larger build that the configured index has")
            run(command, remedy, env)


def check_machine(engine: str) -> None:
    """Refuses at once on a machine where the set-up cannot succeed.

    Raises:
        SetupError: With the reason and the remedy.
    """
    machine = f"{platform.system()} on {platform.machine()}"
    if engine != "none" and (sys.platform != "linux" or platform.machine() not in VLLM_MACHINES):
        raise SetupError(
            f"vLLM has no package for {machine}. `make setup ENGINE=none` installs the rest: students, sweeps, "
            "scripted and recorded tutors, and tutors behind an OpenAI-compatible endpoint."
        )
    if not os.access(ROOT, os.W_OK):
        raise SetupError(f"the folder {ROOT} is not writable. Clone into a folder of yours.")
    free_gib = shutil.disk_usage(ROOT).free / 2**30
    if free_gib < MIN_FREE_GIB and not STAMP.exists():
        raise SetupError(f"only {free_gib:.1f} GiB free in {ROOT}; the packages take about {MIN_FREE_GIB} GiB.")


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=tuple(EXTRAS), default="cpu", help="vLLM build to install (default: cpu)")
    engine = parser.parse_args().engine
    started = time.monotonic()
    try:
        use_fitting_interpreter()
        check_machine(engine)
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
        if engine != "none":
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
