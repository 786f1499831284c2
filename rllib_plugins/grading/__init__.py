"""A tutor's report card: how good its advice is, before a sweep is spent on it.

Knows tasks and the words of advice; must not know how a tutor is reached, nor MLflow.
"""

from __future__ import annotations

from rllib_plugins.grading.card import ReportCard, SituationGrade
from rllib_plugins.grading.grade import grade

__all__ = ["ReportCard", "SituationGrade", "grade"]
