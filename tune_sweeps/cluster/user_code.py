"""Find the modules of a user's own that a sweep names as ``module:object``, and pack them for the cluster."""

from __future__ import annotations

import importlib.util
import re
import shutil
import site
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from tune_sweeps.definition.config import SweepConfig
from tutor_service.errors import UserError

_REFERENCE = re.compile(r"([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_][\w.]*")
_MAX_BYTES = 100 * 2**20
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".git", ".venv", "*.pyc", "runs", "mlruns")


def own_modules(config: SweepConfig) -> list[str]:
    """List the top-level modules that a sweep's tasks and rules come from and that no package installed."""
    found = {match[1] for text in _texts(config.model_dump()) if (match := _REFERENCE.fullmatch(text))}
    return sorted(name for name in found if not _is_installed(name))


def pack_modules(config: SweepConfig, folder: Path) -> None:
    """Copy the user's own modules into a folder that will be on the cluster's import path.

    Raises:
        UserError: A module cannot be found here, or is larger than Ray uploads well.
    """
    for name in own_modules(config):
        spec = _spec(name)
        if spec is None:
            raise UserError(
                f"the sweep names '{name}:…', and no module '{name}' can be imported here. Run `tutor submit` in the "
                "folder that holds it, or install it in the cluster's image."
            )
        for source in _sources(spec):
            size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) if source.is_dir() else 0
            if size > _MAX_BYTES:
                raise UserError(
                    f"the folder '{source}' of module '{name}' holds {size / 2**20:.0f} MiB; at most "
                    f"{_MAX_BYTES / 2**20:.0f} travel with a job. Move data out of it, or install it in the image."
                )
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=_LEFT_OUT, dirs_exist_ok=True)
            else:
                shutil.copy2(source, folder / source.name)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _sources(spec: ModuleSpec) -> list[Path]:
    """List the folders of a package, or the file of a module."""
    if spec.submodule_search_locations:
        return [Path(location) for location in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []


def _is_installed(name: str) -> bool:
    """Say whether a module comes with Python, with this project or with an installed package."""
    if name in {"tutor_service", "rllib_plugins", "tune_sweeps"}:
        return True
    spec = _spec(name)
    if spec is None:
        return False
    paths = sysconfig.get_paths()
    homes = {Path(home).resolve() for home in (*site.getsitepackages(), paths["stdlib"], paths["platstdlib"])}
    return any(home in source.resolve().parents for source in _sources(spec) for home in homes)
