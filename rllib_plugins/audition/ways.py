"""List the ways in which a tutor can be asked and read. Knows the fields of a tutor file; must not know tasks."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Literal, NamedTuple

Calibration = Literal["none", "empty", "batch"]
Following = Literal["best", "sampled"]


class Asking(NamedTuple):
    """Say how a tutor is asked: two askings need two evaluations of the model.

    Attributes:
        decoding: Field ``decoding`` of the tutor.
        briefing: Name of the notes behind the rules: ``none``, or a key of the notes at hand.
    """

    decoding: str
    briefing: str


class Way(NamedTuple):
    """Say how a tutor is asked and how its answer is read.

    Attributes:
        asking: How it is asked.
        calibration: Field ``calibration`` of the tutor.
        advice: Field ``advice`` of the tutor: its best guess, or a draw from its distribution.
    """

    asking: Asking
    calibration: Calibration
    advice: Following

    @property
    def words(self) -> str:
        """Return the way on one line, e.g. ``scored · hint · batch · best``."""
        return " · ".join((*self.asking, self.calibration, self.advice))


def all_ways(
    askings: Iterable[Asking], calibrations: Iterable[Calibration], following: Iterable[Following]
) -> list[Way]:
    """Return every combination, all readings of an asking together."""
    return [Way(*combination) for combination in product(askings, calibrations, following)]
