"""Run a trial of a sweep under Tune: a student that begins where an earlier attempt was cut short."""

from __future__ import annotations

import logging
import os
import time
from typing import Any, NamedTuple

from ray.tune import Checkpoint, Trainable
from ray.tune.result import SHOULD_CHECKPOINT

from tune_sweeps.console.json_logs import bind
from tune_sweeps.storage.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

LEAST_PRIORITY = 19
"""Priority of the training thread: all trials wait for a tutor's replica that starts on the same cores."""

TRIAL = "trial"
"""Key of Tune's config under which a trial lies: ``sweep``, ``key``, ``student``, ``restore``."""


class Pace(NamedTuple):
    """Say when a trial writes checkpoints, beside the one at its end.

    Attributes:
        evaluations: Least evaluations between two.
        seconds: Least seconds between two.
    """

    evaluations: int
    seconds: float


def resumable(student_class: type[Trainable], checkpoints: Checkpoints, pace: Pace) -> type[Trainable]:
    """Make a trainable that takes ``{"trial": {"sweep", "key", "student", "restore"}}`` and runs ``student_class``.

    Args:
        student_class: A trainable whose config is the fields of a ``StudentConfig``, and whose ``reset_config``, if it
            has one, calls ``self.setup``.
        checkpoints: Where ``restore`` lies.
        pace: When it writes checkpoints.
    """

    class SweepTrial(student_class):  # type: ignore[valid-type,misc]
        """``student_class``, restored first where an earlier attempt left a checkpoint."""

        def setup(self, config: dict[str, Any]) -> None:
            trial = config[TRIAL]
            os.setpriority(os.PRIO_PROCESS, 0, LEAST_PRIORITY)
            bind(sweep=trial["sweep"], trial=trial["key"], tutor=trial["student"]["tutor"])
            super().setup(config[TRIAL]["student"])
            self._evaluations, self._saved_at = 0, time.monotonic()
            restore = config[TRIAL].get("restore")
            if restore:
                self._restore_from(restore, config)

        def step(self) -> dict[str, Any]:
            result: dict[str, Any] = super().step()
            self._evaluations += 1
            if self._evaluations >= pace.evaluations and time.monotonic() - self._saved_at >= pace.seconds:
                self._evaluations, self._saved_at = 0, time.monotonic()
                result[SHOULD_CHECKPOINT] = True
            return result

        def _restore_from(self, path: str, config: dict[str, Any]) -> None:
            try:
                with Checkpoint(path, filesystem=checkpoints.filesystem).as_directory() as folder:
                    self.load_checkpoint(folder)
            except Exception as error:
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                    raise  # where it lies cannot be reached just now: what was trained must not be lost for that
                logger.exception("checkpoint %s cannot be used: the trial begins anew", path)
                self.cleanup()
                super().setup(config[TRIAL]["student"])

    SweepTrial.__name__ = student_class.__name__
    return SweepTrial
