"""Name the stand-ins and their options: what ``advice.stand_in`` may say. ``stand_in`` has what one does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rllib_plugins.registries import NamedOptions
from tutor_service.errors import UserError

if TYPE_CHECKING:
    from rllib_plugins.stand_ins.model import Model


class StandInRule(BaseModel):
    """Say who answers in the tutor's place; its fields are ``advice.stand_in_options``.

    Answer states that were asked before with the stored answer. Override ``model`` to answer new states too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    is_off: ClassVar[bool] = False
    """The tutor is asked as if there were no stand-in."""

    def check_budget(self, budget: int | None) -> None:
        """Refuse an advice budget with which it could not do anything.

        Raises:
            UserError: It cannot.
        """

    def model(self, obs_dim: int, num_actions: int, seed: int) -> Model | None:
        """Make a trial's model of the advice; None: there is none.

        Args:
            obs_dim: Length of a flat observation.
            num_actions: Actions A.
            seed: Of the model's own random numbers.
        """
        return None


class Off(StandInRule):
    """Have every question answered by the tutor, within the advice budget."""

    is_off: ClassVar[bool] = True


class Kept(StandInRule):
    """Answer again, free of the budget, what the tutor has answered once."""


class Modelled(StandInRule):
    """Say when a model of the advice is fitted, believed and stopped. Extend it with a ``model``."""

    first_fit: int = Field(default=50, ge=20, description="Answers of the tutor after which the model is fitted first.")
    growth: float = Field(
        default=1.6, gt=1, description="Factor by which the answers must have grown before the model is fitted again."
    )
    sure_agreement: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="The model counts as sure from the confidence on at which it agrees with this share of the answers "
        "that were held out from the fit. Typical: 0.8 to 0.95.",
    )
    check_share: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Share of the states where the model is sure in which the tutor is asked all the same, while the "
        "budget lasts.",
    )
    reserve: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Share of advice_budget that is kept for these checks, unless the model is sure of nothing. Checks "
        "become rarer the more states the model has answered.",
    )
    least_agreement: float = Field(
        default=0.8,
        ge=0,
        lt=1,
        description="Agreement with the tutor in these checks below which the model stops answering until it is fitted "
        "again; must be below sure_agreement.",
    )

    def num_reserved(self, budget: int | None) -> int:
        """Return the questions of a budget that are kept for checks."""
        return math.ceil(self.reserve * (budget or 0))

    def check_budget(self, budget: int | None) -> None:
        """Refuse a budget that is spent before the model is fitted.

        Raises:
            UserError: It is.
        """
        if budget is not None and budget - self.num_reserved(budget) < self.first_fit:
            raise UserError(
                f"advice.advice_budget = {budget}: beside what advice.stand_in_options.reserve keeps for checks it has "
                f"{budget - self.num_reserved(budget)} questions, fewer than advice.stand_in_options.first_fit = "
                f"{self.first_fit}, so that no model would ever be fitted. Raise the budget, or lower one of these."
            )

    @model_validator(mode="after")
    def _is_given_up_below_what_it_promises(self) -> Modelled:
        if self.least_agreement >= self.sure_agreement:
            raise UserError(
                f"advice.stand_in_options.least_agreement = {self.least_agreement} must be below sure_agreement = "
                f"{self.sure_agreement}: else a model would be given up that agrees as often as it was to."
            )
        return self


class Ensemble(Modelled):
    """Answer states that were never asked by an ensemble of networks, fitted to the tutor's answers, where it is sure.

    Advice imitation with uncertainty (Ilhan, Gow & Perez-Liebana 2021, arXiv 2104.08441, after 2104.08440), with an
    ensemble (Lakshminarayanan et al. 2017, arXiv 1612.01474) in place of dropout.
    """

    members: int = Field(default=3, ge=2, description="Networks that have to agree. Typical: 3 to 5; each costs time.")
    hidden: int = Field(default=64, gt=0, description="Units of each of a network's two layers.")
    gradient_steps: int = Field(default=100, gt=0, description="Gradient steps of each network per fit.")
    lr: float = Field(default=3e-3, gt=0, description="Adam's learning rate.")

    def model(self, obs_dim: int, num_actions: int, seed: int) -> Model:
        """Make a trial's ensemble."""
        from rllib_plugins.stand_ins.ensemble import EnsembleModel

        return EnsembleModel(self, obs_dim, num_actions, seed)


_REGISTRY: NamedOptions[StandInRule] = NamedOptions("advice.stand_in", StandInRule)
_REGISTRY.register("off", Off)
_REGISTRY.register("kept", Kept)
_REGISTRY.register("ensemble", Ensemble)

register_stand_in = _REGISTRY.register
"""Make a stand-in known by a name, so that a config can say it."""
stand_in_names = _REGISTRY.names
make_stand_in = _REGISTRY.make
