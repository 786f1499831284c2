"""The explorer of a trial with several runners: each has one, and so has the holder of what they know in common.

At each sync runners ``report`` to the holder, which ``merge``s what they say, and ``hear`` what came of it. A runner of
a trial that has no other uses ``Explorer``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.decision import Decisions
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.advising.table import DistributionTable
from rllib_plugins.array_types import Floats, Floats32
from rllib_plugins.metrics import RecentMean
from rllib_plugins.seeds import RUNNERS, derive_seed
from rllib_plugins.sharing.shares import HOLDER, Common, Held, Place, Report, Tally, share_out, total
from rllib_plugins.sharing.table_updates import Entries, joined, news, together
from tutor_service.errors import UserError


class SharedExplorer(Explorer):
    """Decide a runner's exploring steps by what all of them know, within its share of the advice budget.

    Args:
        config: As ``Explorer``'s.
        place: Which runner it is.
        seed: Seed of the trial; each runner draws its own streams below it.
        **options: As ``Explorer``'s.
    """

    def __init__(self, config: AdviceConfig, *, place: Place, seed: int, **options: Any) -> None:
        super().__init__(config, seed=derive_seed(seed, RUNNERS, place.number), **options)
        self.place = place
        self._life = uuid4().hex
        self._num_env_steps = 0
        self._budget = config.advice_budget
        self._allowance = None if self._budget is None else 0
        self._others = total([])
        self._synced_steps, self._synced_consultations = 0, 0
        self._tallies: dict[int, Tally] = {}
        self._grants: dict[str, int] = {}
        self._num_lost = 0
        self._note_what_is_known()

    @property
    def _tables(self) -> list[DistributionTable]:
        if self._advisor is None:
            return []
        table, opinions = self._advisor.table, self._advisor.opinions
        return [table] if opinions is table else [table, opinions]

    def _note_what_is_known(self) -> None:
        self._known_stored = self._stored.get_state()
        self._known_tables = [table.get_state() for table in self._tables]
        self._new_stored, self._new_tables = self._known_stored, tuple(self._known_tables)

    # A runner

    def act_into(self, out: Decisions, t: int, observations: Floats32, policy: Floats, **options: Any) -> None:
        """Do as ``Explorer`` does, and count the steps."""
        super().act_into(out, t, observations, policy, **options)
        self._num_env_steps += len(policy)

    def draw_alone(self, draws: Floats) -> None:
        """Do as ``Explorer`` does, and count the steps."""
        super().draw_alone(draws)
        self._num_env_steps += draws.size

    @property
    def num_trial_steps(self) -> int:
        """Return the env steps of all runners; since the last sync the others are taken to have made as many."""
        new = self._num_env_steps - self._synced_steps
        return self._others.num_env_steps + self._synced_steps + self.place.num_runners * new

    @property
    def num_consultations(self) -> int:
        """Count the env steps on which advice was used, in all runners, as ``num_trial_steps`` does."""
        new = self._counters.consultations - self._synced_consultations
        others = self._others.counters["consultations"]
        return others + self._synced_consultations + self.place.num_runners * new

    def counters(self) -> dict[str, int]:
        """Return running totals of all runners, those of the others as of the last sync."""
        both = total([self._tally(), self._others])
        return {f"advice/{name}": value for name, value in both.counters.items()}

    @property
    def own_counters(self) -> dict[str, int]:
        """Return this runner's running totals, by the names of ``metrics.COUNTERS``."""
        return self._counters.report()

    @property
    def life(self) -> str:
        """Return what names this process in ``Common.grants``."""
        return self._life

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial: a runner's own, or for the holder those of all runners."""
        gauges = super().gauges()
        if self.place.number != HOLDER:
            return gauges
        means = {}
        for name in ("agreement", "latency"):
            means[name] = RecentMean()
            means[name].set_state(getattr(self._others, name))
        return gauges | {
            "advice/agreement": means["agreement"].value,
            "advice/latency_ms": means["latency"].value,
            "advice/probability": self._others.gate,
        }

    def _tally(self) -> Tally:
        return Tally(
            life=self._life,
            num_env_steps=self._num_env_steps,
            counters=self._counters.get_state(),
            num_free=self._num_free_consultations,
            allowance=self._allowance,
            agreement=self._agreement.get_state(),
            latency=self._latency.get_state(),
            gate=self._gate,
            streams=(self._student_rng.bit_generator.state, self._tutor_rng.bit_generator.state),
        )

    def report(self) -> Report:
        """Return what the holder is to know."""
        tables = zip(self._known_tables, self._tables, strict=True)
        return Report(
            self.place.number,
            self._tally(),
            news(self._known_stored, self._stored.get_state()),
            tuple(news(known, table.get_state()) for known, table in tables),
        )

    def hear(self, common: Common) -> None:
        """Take over what all runners know, and what this one may spend.

        A runner that knows less of itself than the holder does takes the place of another: it goes on where that was at
        its last sync.
        """
        own = common.tallies.get(self.place.number)
        if own is not None and own.num_env_steps > self._num_env_steps:
            self._go_on(own)
        self._others = total(tally for index, tally in common.tallies.items() if index != self.place.number)
        self._synced_steps, self._synced_consultations = self._num_env_steps, self._counters.consultations
        if self._allowance is not None:
            self._allowance = common.grants.get(self._life, self._tally().spent)
        self._trust.set_state(common.trust)
        self._take(common.stored, common.tables, is_whole=common.is_whole)
        self._note_what_is_known()

    def _go_on(self, tally: Tally) -> None:
        self._num_env_steps = tally.num_env_steps
        self._counters.set_state(tally.counters)
        self._num_free_consultations = tally.num_free
        self._agreement.set_state(tally.agreement)
        self._latency.set_state(tally.latency)
        self._gate = tally.gate
        self._student_rng.bit_generator.state, self._tutor_rng.bit_generator.state = tally.streams

    def _take(self, stored: Entries, tables: Sequence[Entries], *, is_whole: bool) -> None:
        if is_whole:
            self._stored.set_state(stored)
        else:
            self._stored.put(stored)
        for table, entries in zip(self._tables, tables, strict=True):
            table.put(entries["observations"], entries["rows"])

    # The holder

    def merge(self, reports: Sequence[Report]) -> None:
        """Take up what runners report, and share out what is left of the advice budget.

        Args:
            reports: Of those that were heard, in the order of their numbers.
        """
        for report in reports:
            self._tallies[report.number] = self._succeed(self._tallies.get(report.number), report.tally)
        if reports:
            self._new_stored = together([report.stored for report in reports])
            columns = zip(*(report.tables for report in reports), strict=True)
            self._new_tables = tuple(joined(parts) for parts in columns)
            self._take(self._new_stored, self._new_tables, is_whole=False)
        if self._budget is not None:
            self._share_out(self._budget, [report.number for report in reports])
        self._others = total(self._tallies.values())

    def _succeed(self, old: Tally | None, new: Tally) -> Tally:
        """Return the tally of a runner, whose process may be another than before."""
        if old is None or old.life == new.life:
            return new
        if old.life and old.allowance is not None:
            self._num_lost += old.allowance - old.spent
        if new.num_env_steps >= old.num_env_steps:
            return new
        return replace(old, life=new.life, allowance=None if old.allowance is None else old.spent)

    def _share_out(self, budget: int, heard: list[int]) -> None:
        silent = sum(tally.allowance or 0 for index, tally in self._tallies.items() if index not in heard)
        held = {index: Held(self._tallies[index].spent, self._tallies[index].allowance or 0) for index in heard}
        self._grants = {}
        for index, allowance in share_out(budget, held, silent + self._num_lost).items():
            tally = self._tallies[index]
            self._grants[tally.life] = allowance
            # Until it reports again it may hold either.
            self._tallies[index] = replace(tally, allowance=max(allowance, held[index].allowance))

    def common(self, *, is_whole: bool) -> Common:
        """Return what runners are to hear: everything, or what the last ``merge`` brought."""
        stored = self._stored.get_state() if is_whole else self._new_stored
        tables = tuple(table.get_state() for table in self._tables) if is_whole else self._new_tables
        trust = self._trust.get_state()
        return Common(
            self._life, dict(self._tallies), dict(self._grants), self._num_lost, trust, stored, tables, is_whole
        )

    def restore(self, common: Common) -> None:
        """Take over what another holder knew of runners that are no more; its own changes nothing.

        Raises:
            UserError: The trial had another number of runners.
        """
        if common.life == self._life:
            return
        num_before = len(common.tallies)
        if num_before not in (0, self.place.num_runners):
            raise UserError(
                f"the checkpoint is of num_env_runners={num_before}, the config says {self.place.num_runners}: each "
                f"runner goes on with its own share. Set it to {num_before}."
            )
        self._tallies = {index: _of_nobody(tally) for index, tally in common.tallies.items()}
        self._num_lost = common.num_lost
        self._trust.set_state(common.trust)
        self._take(common.stored, common.tables, is_whole=True)
        self._others = total(self._tallies.values())

    def get_state(self) -> dict[str, Any]:
        """Return everything that the next steps of this very runner or holder depend on."""
        return super().get_state() | {
            "life": self._life,
            "num_env_steps": self._num_env_steps,
            "allowance": self._allowance,
            "others": self._others,
            "synced": (self._synced_steps, self._synced_consultations),
            "tallies": dict(self._tallies),
            "grants": dict(self._grants),
            "num_lost": self._num_lost,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``; an empty one changes nothing."""
        if not state:
            return
        super().set_state(state)
        self._life, self._num_env_steps, self._allowance = state["life"], state["num_env_steps"], state["allowance"]
        self._others = state["others"]
        self._synced_steps, self._synced_consultations = state["synced"]
        self._tallies, self._grants = dict(state["tallies"]), dict(state["grants"])
        self._num_lost = state["num_lost"]
        self._note_what_is_known()


def _of_nobody(tally: Tally) -> Tally:
    return replace(tally, life="", allowance=None if tally.allowance is None else tally.spent)
