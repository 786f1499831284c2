"""Remember on the gateway's disk what a tutor's engine said of itself.

A restarted gateway can then answer what is stored before any replica holds the model again.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from tutor_service.engines.base import EngineFacts

logger = logging.getLogger("ray.serve")

FILE = "engine.json"


def remember(folder: Path, version: str, facts: EngineFacts) -> None:
    """Write down what an engine said; a folder that cannot be written to costs the next gateway its early start.

    Args:
        folder: Of the tutor's answers.
        version: Of the configuration that the engine runs by.
        facts: What it said.
    """
    partial = folder / f".{FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"version": version, "facts": asdict(facts)}), encoding="utf-8")
        partial.replace(folder / FILE)
    except OSError as error:
        logger.warning("what the engine is was not written to '%s': %s", folder, error)


def recall(folder: Path, version: str) -> EngineFacts | None:
    """Return what an engine of the same configuration said last; None where nothing readable is written down."""
    try:
        said = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if said["version"] != version:
            return None
        return EngineFacts(**{**said["facts"], "notes": tuple(said["facts"]["notes"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(folder: Path) -> None:
    """Have the next gateway ask the engine first."""
    try:
        (folder / FILE).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("what the engine was stays written in '%s': %s", folder, error)
