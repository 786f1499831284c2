"""Find a tutor's model and what identifies it. Imports neither torch nor vLLM."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tutor_service import embedded
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError

_IDENTIFYING = (".safetensors", ".json", ".bin", ".model", ".jinja", ".gguf")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")


def locate(config: TutorConfig) -> str:
    """Return the folder of a local model (an embedded one is prepared here), else the model's id on the hub.

    Raises:
        UserError: No model is named, or a folder is named that holds none.
    """
    if not config.model:
        raise UserError(f"tutor '{config.name}': field 'model' is empty. Give a model id or the folder of a model.")
    if embedded.is_embedded(config.model):
        return str(embedded.prepare(config.model))
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"tutor '{config.name}': model folder '{folder}' holds no config.json.")
        return str(folder.resolve())
    if folder.is_absolute() or config.model.startswith((".", "~")):
        raise UserError(f"tutor '{config.name}': model folder '{folder}' does not exist.")
    return config.model


def is_local(location: str) -> bool:
    """Return whether a model needs no hub."""
    return Path(location).is_dir()


def fingerprint(location: str, revision: str | None) -> str:
    """Return text that changes when the model changes.

    A folder is identified by its contents: names, sizes and times of its files (of an embedded model: its manifest). A
    hub id by id, revision and, where it is in the local cache, the commit that the revision stood for.
    """
    folder = Path(location)
    if not folder.is_dir():
        return f"{location}@{revision or 'main'}:{_cached_commit(location, revision) or 'unknown'}"
    manifest = folder / embedded.MANIFEST
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    files = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.suffix in _IDENTIFYING
    ]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def weight_bytes(location: str) -> int:
    """Return the bytes of a local model's weight files; 0 where they are not at hand."""
    folder = Path(location)
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS)


def _cached_commit(repo: str, revision: str | None) -> str | None:
    """Return the commit of a hub model in the local cache, by the cached config.json's folder name."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None
