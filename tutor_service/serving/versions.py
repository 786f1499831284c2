"""Tell a tutor's configurations apart by what its replicas have to load. Starts nothing."""

from __future__ import annotations

import hashlib
from typing import Any

from tutor_service.config import ScalingConfig, TutorConfig

_NOT_THE_REPLICAS = (
    *("description", "license", "briefing", "briefing_tokens", "hint"),
    *("calibration", "advice", "temperature", "least_legal_mass", "store"),
)
"""Fields of a tutor that its gateway or its students act on alone."""


def version(config: TutorConfig) -> str:
    """Return what tells replicas of a tutor's old and new configuration apart while the one replaces the other."""
    return hashlib.blake2b(config.model_dump_json().encode(), digest_size=16).hexdigest()


def loaded(config: TutorConfig) -> TutorConfig:
    """Return what a replica has to know. Serve restarts replicas whose arguments change: all else is left out."""
    kept = {"num_cpus", "num_gpus", "engine_process", "hang_s", "accelerator_type"}
    update: dict[str, Any] = {name: TutorConfig.model_fields[name].default for name in _NOT_THE_REPLICAS}
    return config.model_copy(update={**update, "scaling": ScalingConfig(**config.scaling.model_dump(include=kept))})
