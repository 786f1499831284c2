"""Convert a GGUF file into a bfloat16 folder that vLLM loads, and check whether a folder is whole."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from tutor_service.embedded.table import EmbeddedModel
from tutor_service.errors import UserError

MANIFEST = "manifest.json"


def convert(model: EmbeddedModel, gguf: Path, folder: Path) -> None:
    """Convert in a child process, manifest included, so that the caller never carries torch.

    Raises:
        UserError: The conversion failed, or was killed for lack of memory.
    """
    command = [sys.executable, "-m", "tutor_service.embedded", "--convert", str(gguf), str(folder)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env, stdin=subprocess.DEVNULL)
    if result.returncode < 0:
        raise UserError(
            f"the conversion of {model.title} was killed by signal {-result.returncode}, most likely for lack of "
            f"memory ({model.convert_memory_bytes / 2**20:,.0f} MiB are needed). Close something and run again."
        )
    if result.returncode or not (folder / "model.safetensors").is_file():
        reason = "\n".join(result.stderr.strip().splitlines()[-5:])
        raise UserError(f"the conversion of {model.title} failed:\n{reason}\nRun `make setup` again.")
    write_manifest(model, folder)


def write_manifest(model: EmbeddedModel, folder: Path) -> None:
    """Write down what a converted folder holds. Its text identifies the model in every advice store."""
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
    manifest = {"source": model.source, "license": model.license, "gguf_sha256": model.sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def is_intact(folder: Path, hashes: bool = False) -> bool:
    """Return whether every file of a folder's manifest is there with its size, and its hash if asked for."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        return bool(files) and all(
            (folder / name).stat().st_size == entry["bytes"]
            and (not hashes or sha256(folder / name) == entry["sha256"])
            for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def convert_here(gguf: Path, folder: Path) -> None:
    """Convert in this process; torch is loaded."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    weights = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),  # without it saving writes no weights
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    weights.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
