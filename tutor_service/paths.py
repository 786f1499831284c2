"""Name the folders of what outlives a run: models, the advice of every tutor, copies of sweeps kept elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

HOME_VARIABLE = "LLM_TUTORS_HOME"


def home() -> Path:
    """Return the folder for models and advice: ``$LLM_TUTORS_HOME``, else the user's cache folder."""
    override = os.environ.get(HOME_VARIABLE, "").strip()
    return Path(override).expanduser().resolve() if override else user_cache_path("llm-tutors")


def nearest(path: Path) -> Path:
    """Return a path, or the nearest of the folders above it that is there and may be looked at."""
    there = path.resolve()
    return next(each for each in (there, *there.parents) if os.path.exists(each))  # noqa: PTH110 (that one raises)


def models_dir() -> Path:
    """Return the folder of models that were converted on this machine, one folder per model."""
    return home() / "models"


def advice_dir() -> Path:
    """Return the folder of advice stores, one per tutor, shared by all sweeps of this user."""
    return home() / "advice"


def results_dir() -> Path:
    """Return the folder of this machine's copies of sweeps that are kept in object stores."""
    return home() / "results"
