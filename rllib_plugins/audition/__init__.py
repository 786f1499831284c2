"""Try a tutor before a sweep is spent on it: have it play, in any task, in every way of asking and reading it.

Knows tasks and the words of advice; must not know how a tutor is reached, nor MLflow.
"""

from __future__ import annotations

from rllib_plugins.audition.audition import Audition, Candidate, Played, audition, play_beside
from rllib_plugins.audition.players import Answers
from rllib_plugins.audition.ways import Asking, Way, all_ways

__all__ = ["Answers", "Asking", "Audition", "Candidate", "Played", "Way", "all_ways", "audition", "play_beside"]
