"""A tutor's report card: how good its advice is, before a sweep is spent on it."""

from __future__ import annotations

from rllib_plugins.grading.card import LabelShare, ReportCard, SituationGrade
from rllib_plugins.grading.grade import grade
from rllib_plugins.grading.view import render, write_figure

__all__ = ["LabelShare", "ReportCard", "SituationGrade", "grade", "render", "write_figure"]
