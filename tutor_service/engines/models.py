"""Find a tutor's model and what identifies it. Imports neither torch nor vLLM."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path

from tutor_service import embedded
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError

logger = logging.getLogger("ray.serve")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_TIMEOUT_S = 10.0
_BLOCK_BYTES = 16_384
_NUM_BLOCKS = 256
"""Blocks of a large file that are read to tell models apart: where a tenth of the weights differ, some of them do."""

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
    if _is_path(config.model):
        raise UserError(f"tutor '{config.name}': model folder '{folder}' does not exist.")
    return config.model


def is_local(location: str) -> bool:
    """Return whether a model needs no hub."""
    return Path(location).is_dir()


def _is_path(model: str) -> bool:
    """Return whether a model is named as a folder, there or not, and not by a hub's id."""
    return Path(model).is_absolute() or model.startswith((".", "~")) or is_local(model)


def pinned(config: TutorConfig) -> TutorConfig:
    """Return a tutor with the commit that its model's revision stands for now, as its revision.

    So all its replicas load one model, also those that start after the revision has moved. A tutor without a model from
    a hub is returned as it is, and so is one of which neither the hub nor the local cache tells the commit.
    """
    given = config.revision
    at_hub = config.backend == "vllm" and not embedded.is_embedded(config.model) and not _is_path(config.model)
    if not at_hub or (given and _COMMIT.fullmatch(given)):
        return config
    commit = _hub_commit(config.model, given) or _cached_commit(config.model, given)
    if commit is None:
        logger.warning(
            "tutor '%s': neither the hub nor the local cache tells what revision '%s' of %s is now. Replicas that "
            "start after it has moved will end again.",
            config.name, given or "main", config.model,
        )  # fmt: skip
        return config
    return config.model_copy(update={"revision": commit})


def fingerprint(location: str, revision: str | None) -> str:
    """Return text that changes when the model changes, and is the same wherever the model lies.

    A folder is identified by names, sizes and contents of its files, of large ones by blocks of them; an embedded model
    by its manifest. A hub id by id, revision and, where it is in the local cache, the commit that the revision stood
    for.
    """
    folder = Path(location)
    if not folder.is_dir():
        return f"{location}@{revision or 'main'}:{_cached_commit(location, revision) or 'unknown'}"
    manifest = folder / embedded.MANIFEST
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    files = [
        (path.name, path.stat().st_size, _sampled(path))
        for path in sorted(folder.iterdir())
        if path.suffix in _IDENTIFYING
    ]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _sampled(path: Path) -> str:
    """Hash a file: all of a small one, evenly spaced blocks of a large one."""
    digest = hashlib.blake2b(digest_size=32)
    last = path.stat().st_size - _BLOCK_BYTES
    with path.open("rb") as file:
        if last < _NUM_BLOCKS * _BLOCK_BYTES:
            digest.update(file.read())
        else:
            for number in range(_NUM_BLOCKS):
                file.seek(last * number // (_NUM_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def weight_bytes(location: str) -> int:
    """Return the bytes of a local model's weight files; 0 where they are not at hand."""
    folder = Path(location)
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS)


def _hub_commit(repo: str, revision: str | None) -> str | None:
    """Return the commit of a hub model now; None where the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(repo, revision=revision, timeout=_HUB_TIMEOUT_S).sha
    except Exception as error:  # of as many kinds as there are ways to be without a hub
        logger.info("the hub was not asked for the commit of %s: %r", repo, error)
        return None


def _cached_commit(repo: str, revision: str | None) -> str | None:
    """Return the commit of a hub model in the local cache, by the cached config.json's folder name."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None
