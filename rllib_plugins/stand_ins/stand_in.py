"""Answer in a tutor's place what can be answered, have the tutor asked about the rest, and compare the two.

Advice imitation and reuse (Ilhan, Gow & Perez-Liebana 2021, arXiv 2104.08441). A model is fitted to the answers of the
tutor, and answers states that were never asked when it is sure. Two things differ from the source. In a share of those
states the tutor is asked all the same, which shows how often the model has its guess; a model that has it too seldom
stops answering. And states that were asked before get the stored answer.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.table import DistributionTable
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.metrics import RecentMean, Source
from rllib_plugins.seeds import derive_seed
from rllib_plugins.stand_ins.model import Agreement, Answers, Model, agrees, threshold
from rllib_plugins.stand_ins.registry import Modelled, StandInRule, make_stand_in

MODEL, CHECKS = 0x6D6F64, 0x636865
"""Streams of random numbers: the model's, and which states are asked about all the same."""
HELD_OUT = 5
"""One answer of so many is held out from the fit."""

logger = logging.getLogger(__name__)


class StandIn:
    """Answers in the place of a trial's tutor.

    Args:
        rule: As configured.
        advisor: The tutor; its table holds what it has said.
        budget: Questions that it may be asked in all; None: unlimited.
        seed: The trial's.
    """

    def __init__(self, rule: StandInRule, advisor: Advisor, budget: int | None, seed: int) -> None:
        task = advisor.task
        self._rule, self._advisor, self._budget = rule, advisor, budget
        (obs_dim,), model_seed = task.observation_space.shape, derive_seed(seed, MODEL)
        self._model: Model | None = rule.model(obs_dim, task.num_actions, model_seed)
        self._limits = rule if isinstance(rule, Modelled) else Modelled()
        self._rng = np.random.default_rng(derive_seed(seed, CHECKS))
        self._said = DistributionTable(task.num_actions)
        self._threshold = math.inf
        self._agreement, self._recent = Agreement(), RecentMean()
        self._next_fit = self._limits.first_fit
        self._reserve = self._limits.num_reserved(budget)
        self._fitted_to = self._num_asked = self._num_checks = self._num_sure = self._num_stops = 0

    @classmethod
    def of(cls, advice: AdviceConfig, advisor: Advisor, seed: int) -> StandIn | None:
        """Make a trial's stand-in; None where it has none."""
        rule = make_stand_in(advice.stand_in, advice.stand_in_options)
        return None if rule.is_off else cls(rule, advisor, advice.advice_budget, seed)

    @property
    def remaining(self) -> int | None:
        """Return the questions left in the budget, without those that are reserved for checks; None: any number."""
        if self._budget is None:
            return None
        left = self._budget - self._num_asked
        if self._model is not None and (self._is_in_use or not self._fitted_to):
            left -= max(0, self._reserve - self._num_checks)
        return max(0, left)

    @property
    def _is_in_use(self) -> bool:
        """Tell whether the model is sure of anything."""
        return self._threshold < math.inf

    def answers(self, observations: Floats32) -> Bools:
        """Return which of ``(n, obs_dim)`` would be answered without the tutor, except for checks."""
        kept: Bools = ~np.isnan(self._advisor.table.look_up(observations)[:, 0])
        unknown = np.flatnonzero(~kept)
        if unknown.size and self._is_in_use:
            kept[unknown] = self._guess(observations[unknown])[1]
        return kept

    def known(self, observations: Floats32) -> tuple[Floats, Floats]:
        """Return what the tutor, or else the model, has said of ``(n, obs_dim)``, and its opinions.

        NaN where neither has said anything.
        """
        told, opinions = (kept.look_up(observations) for kept in (self._advisor.table, self._advisor.opinions))
        unasked = np.isnan(told[:, 0])
        told[unasked] = opinions[unasked] = self._said.look_up(observations[unasked])
        return told, opinions

    def ask(self, observations: Floats32) -> AdviceBatch:
        """Return advice for flat observations ``(n, obs_dim)``: kept, of the model where it is sure, or of the tutor.

        Rows that nobody answers, since the budget is spent, are NaN and UNASKED. A state that is here several times is
        asked about once.
        """
        table, opinions = self._advisor.table, self._advisor.opinions
        batch = AdviceBatch(
            table.look_up(observations),
            np.full(len(observations), Source.KEPT, dtype=np.int8),
            opinions=opinions.look_up(observations),
        )
        assert batch.opinions is not None
        places: dict[bytes, list[int]] = {}
        for row in np.flatnonzero(np.isnan(batch.probabilities[:, 0])).tolist():
            places.setdefault(observations[row].tobytes(), []).append(row)
        rows_of = list(places.values())
        while rows_of:
            size = len(rows_of)
            if self._model is not None and not self._is_in_use:  # what comes after a fit, it may answer
                size = min(size, max(1, self._next_fit - len(self._advisor.table)))
            rows_of = self._answer(observations, rows_of[:size], batch) + rows_of[size:]
            self._fit_if_due()
        return batch

    def _answer(self, observations: Floats32, rows_of: list[list[int]], batch: AdviceBatch) -> list[list[int]]:
        """Write advice for distinct states that were never asked into a batch; return those that are left.

        These are the ones that the model was to answer, where it was given up by what the tutor said of others.

        Args:
            observations: ``(n, obs_dim)``, the batch's.
            rows_of: By state, in which rows it is.
            batch: Output.
        """
        assert batch.opinions is not None
        distinct = observations[[rows[0] for rows in rows_of]]
        told, sure = self._guess(distinct)
        predicted, held, source = told.copy(), told.copy(), np.where(sure, Source.STAND_IN, Source.UNASKED)
        told[~sure] = held[~sure] = np.nan
        asked = self._to_ask(sure)
        if asked.size:
            fresh = self._advisor.ask(distinct[asked])
            assert fresh.opinions is not None
            is_had = fresh.source != Source.MISSED
            had = asked[is_had]
            source[asked[~is_had & ~sure[asked]]] = Source.MISSED
            told[had], held[had], source[had] = (
                fresh.probabilities[is_had],
                fresh.opinions[is_had],
                fresh.source[is_had],
            )
            batch.invalid += fresh.invalid
            batch.latency_ms += fresh.latency_ms
            batch.tokens += fresh.tokens
            self._num_asked += len(had)
            self._num_checks += int(sure[had].sum())
            self._compare(distinct[had], told[had], predicted[had], sure[had])
        by_model = source == Source.STAND_IN
        given_up = [] if self._is_in_use else [rows_of[index] for index in np.flatnonzero(by_model)]
        if given_up:
            told[by_model] = held[by_model] = np.nan
            source[by_model] = Source.UNASKED
            by_model[:] = False
        self._said.put(distinct[by_model], told[by_model])
        for index, rows in enumerate(rows_of):
            batch.probabilities[rows], batch.opinions[rows] = told[index], held[index]
            is_told = source[index] in (Source.MODEL, Source.STORE, Source.SCRIPT)
            batch.source[rows] = Source.KEPT if is_told else source[index]
            batch.source[rows[0]] = source[index]
        return given_up

    def _to_ask(self, sure: Bools) -> Ints:
        """Return which of some new states the tutor is asked about: while the budget lasts, and as checks some others.

        Args:
            sure: ``(n,)`` where the model is sure.
        """
        draws, share = self._rng.random(len(sure)), self._limits.check_share
        if self._budget is not None:
            share /= 1.0 + self._num_sure / (2.0 * max(1, self._reserve))
        self._num_sure += int(sure.sum())
        unsure, checks = np.flatnonzero(~sure), np.flatnonzero(sure & (draws < share))
        if self._budget is not None:
            unsure = unsure[: self.remaining]
            checks = checks[: max(0, self._budget - self._num_asked - len(unsure))]
        return np.sort(np.concatenate([unsure, checks]))

    def _guess(self, observations: Floats32) -> tuple[Floats, Bools]:
        """Return what the model takes the tutor to say, ``(n, A)``, and where it is sure, ``(n,)``."""
        if self._model is None or not self._is_in_use:
            return np.full((len(observations), self._advisor.task.num_actions), np.nan), np.zeros(
                len(observations), bool
            )
        found = self._model.predict(observations, self._advisor.task.legal_batch(observations))
        return found.told, found.confidence >= self._threshold

    def _compare(self, observations: Floats32, told: Floats, predicted: Floats, sure: Bools) -> None:
        """Note how often the model has, or had, the tutor's guess in states that the tutor has answered now."""
        said = self._said.look_up(observations)
        answered = ~np.isnan(said[:, 0])
        compared = answered | sure
        if not compared.any():
            return
        legal = self._advisor.task.legal_batch(observations[compared])
        claimed = np.where(answered[:, None], said, predicted)[compared]
        agreed = agrees(claimed, told[compared], legal)
        self._agreement.add(agreed)
        self._recent.add(float(agreed.sum()), len(agreed))
        if self._is_in_use and self._agreement.is_below(self._limits.least_agreement):
            self._threshold = math.inf
            self._said.clear()
            self._num_stops += 1
            logger.warning(
                "advice.stand_in: the model has the tutor's guess in %.0f %% of the states that it was sure of; it "
                "answers no more until it is fitted anew",
                100 * self._agreement.num_agreed / self._agreement.num_compared,
            )

    def _fit_if_due(self) -> None:
        """Fit the model where there are enough new answers, and find out from where on it is to be believed."""
        num_answers = len(self._advisor.table)
        if self._model is None or num_answers < self._next_fit:
            return
        kept = self._advisor.table.get_state()
        observations = kept["observations"]
        answers = Answers(observations, kept["rows"], self._advisor.task.legal_batch(observations))
        is_held_out = np.arange(num_answers) % HELD_OUT == HELD_OUT - 1
        held_out = answers.at(is_held_out)
        self._model.fit(answers.at(~is_held_out))
        found = self._model.predict(held_out.observations, held_out.legal)
        agreed = agrees(found.told, held_out.told, held_out.legal)
        was_in_use = self._is_in_use
        self._threshold = threshold(found.confidence, agreed, self._limits.sure_agreement)
        if not was_in_use:
            self._agreement = Agreement()
        self._fitted_to = num_answers
        self._next_fit = math.ceil(num_answers * self._limits.growth)

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial, by the names of ``metrics.GAUGES``."""
        return {
            "advice/stand_in_agreement": self._recent.value,
            "advice/stand_in_fitted_to": float(self._fitted_to),
            "advice/stand_in_stops": float(self._num_stops),
        }

    def get_state(self) -> dict[str, Any]:
        """Return everything that later answers depend on; what the tutor has said is the advisor's."""
        return {
            "model": None if self._model is None else self._model.get_state(),
            "rng": self._rng.bit_generator.state,
            "said": self._said.get_state(),
            "threshold": self._threshold,
            "agreement": (self._agreement.num_compared, self._agreement.num_agreed),
            "recent": self._recent.get_state(),
            "next_fit": self._next_fit,
            "fitted_to": self._fitted_to,
            "counts": (self._num_asked, self._num_checks, self._num_sure, self._num_stops),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        if self._model is not None:
            self._model.set_state(state["model"])
        self._rng.bit_generator.state = state["rng"]
        self._said.clear()
        self._said.set_state(state["said"])
        self._threshold, self._agreement = state["threshold"], Agreement(*state["agreement"])
        self._recent.set_state(state["recent"])
        self._next_fit, self._fitted_to = state["next_fit"], state["fitted_to"]
        self._num_asked, self._num_checks, self._num_sure, self._num_stops = state["counts"]
