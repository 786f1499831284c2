"""The names of the numbers that a trial reports. Nothing else reaches MLflow."""

from __future__ import annotations

STEP_AXIS = "num_env_steps_sampled_lifetime"
"""Environment steps that the student has sampled: the x-axis of every curve."""

COUNTERS = (
    "advice/consultations",
    "advice/reused",
    "advice/store_hits",
    "advice/model_evaluations",
    "advice/missed",
    "advice/invalid",
    "advice/tokens",
)
"""Running totals over the trial. consultations = reused + store_hits + model_evaluations (+ scripted answers)."""

GAUGES = (
    "return_mean",
    "eval/return_mean",
    "eval/return_std",
    "eval/time_share",
    "advice/agreement",
    "advice/probability",
    "advice/trust",
    "advice/effect",
    "advice/effect_se",
    "advice/latency_ms",
    "env_steps_per_s",
)
"""Values at a point of the trial."""

ALL = (*COUNTERS, *GAUGES)
