"""A student that learns along a line, in no time: for tests of what surrounds students."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from rllib_plugins import metrics
from rllib_plugins.config import StudentConfig


class FakeStudent(Trainable):
    """Reports return = share of the way, times 2 where tutored, and fails or dawdles where its hyperparameters say so.

    ``hyperparameters``: ``fail_at`` (a step), ``fail_flag`` (a file: fail only once, and make it), ``fail_unless`` (a
    file: fail while it does not exist), ``sleep_s`` (per evaluation), ``trace`` (a file that each step is written to).
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.student = StudentConfig.model_validate(config)
        self.sampled = -self.student.eval_interval_steps
        self._trace("setup")
        self._trace(f"told:{self.student.advice.tutor_return}")

    def step(self) -> dict[str, Any]:
        options = self.student.hyperparameters
        self.sampled = min(self.sampled + self.student.eval_interval_steps, self.student.num_env_steps)
        time.sleep(options.get("sleep_s", 0))
        flag = options.get("fail_flag")
        cure = options.get("fail_unless")
        cured = Path(cure).exists() if cure else bool(flag) and Path(flag).exists()
        if self.sampled == options.get("fail_at") and not cured:
            if flag:
                Path(flag).touch()
            raise RuntimeError("the fake student fails as it was told to")
        self._trace(self.sampled)
        share = self.sampled / self.student.num_env_steps
        value = min(1.0, share * (1 if self.student.tutor == "none" else 2))
        result = dict.fromkeys(metrics.ALL, 0.0)
        result |= {
            metrics.STEP_AXIS: self.sampled,
            "eval/return_mean": value,
            "return_mean": value,
            "advice/consultations": float(self.sampled if self.student.tutor != "none" else 0),
            "not/whitelisted": 1.0,
            "done": self.sampled >= self.student.num_env_steps,
        }
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "state.json").write_text(json.dumps(self.sampled))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        self.sampled = json.loads((Path(checkpoint_dir) / "state.json").read_text())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self.setup(new_config)
        return True

    def _trace(self, what: object) -> None:
        path = self.student.hyperparameters.get("trace")
        if path:
            with Path(path).open("a") as file:
                file.write(
                    f"{self.student.algorithm}-{self.student.tutor}-{self.student.seed} {what} {os.getpid()} "
                    f"{os.getpriority(os.PRIO_PROCESS, 0)}\n"
                )


def fake_student() -> type[Trainable]:
    return FakeStudent
