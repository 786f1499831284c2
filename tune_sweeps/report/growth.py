"""Decide which cells of a sweep get more seeds."""

from __future__ import annotations

from tune_sweeps.definition.config import UNTUTORED, Match, SweepConfig
from tune_sweeps.definition.loading import with_more_seeds
from tune_sweeps.report.results import Analysis

MAX_SEEDS = 20
"""Largest number of seeds of a sweep that runs until it is decided and plans no other."""


def grown(analysis: Analysis) -> SweepConfig | None:
    """Return a sweep with more seeds for its undecided cells and what they are compared with; None where all is done.

    As many seeds are added as the sweep began with, up to ``statistics.max_seeds``.
    """
    config, undecided = analysis.sweep.config, analysis.undecided()
    left = (config.statistics.max_seeds or MAX_SEEDS) - len(config.all_seeds)
    if not undecided or left <= 0:
        return None
    cells = [
        Match(algorithm=[cell.algorithm], tutor=[cell.tutor], task=[cell.task], reuse=[bool(cell.reuse)])
        for cell in undecided
    ]
    pairs = dict.fromkeys((cell.algorithm, cell.task) for cell in undecided)
    untutored = [UNTUTORED, *config.controls]
    baselines = [Match(algorithm=[algorithm], tutor=untutored, task=[task]) for algorithm, task in pairs]
    return with_more_seeds(config, min(left, len(config.first_seeds)), [*baselines, *cells])
