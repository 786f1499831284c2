"""Uses of advice by name and their options: what ``advice.use`` may say. What they do is in ``rllib_plugins.uses``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rllib_plugins.advising.rules import RuleRegistry
from tutor_service.errors import UserError

if TYPE_CHECKING:
    from rllib_plugins.uses.base import AdviceUse, Trial


class Use(BaseModel):
    """Names a use of advice; its fields are ``advice.use_options``. A use of one's own extends this and ``AdviceUse``.

    Attributes:
        acts: Whether the tutor may act in the student's place: then the explorer's coin decides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    acts: ClassVar[bool] = False

    def make(self, trial: Trial) -> AdviceUse:
        """Make the working object of a trial."""
        raise NotImplementedError


class Coin(Use):
    """Let a coin decide at each step whether the tutor acts; imitate advised steps as ``advice.imitation`` says."""

    acts: ClassVar[bool] = True

    def make(self, trial: Trial) -> AdviceUse:
        """Make the working object of a trial."""
        from rllib_plugins.uses.coin import CoinUse

        return CoinUse(trial)


class Distil(Use):
    """Imitate advice where the student's own draws say that it helps; the tutor never acts."""

    evidence: float = Field(
        default=3.0, gt=0, description="Standard errors of evidence for the advice from which on it is imitated."
    )
    evidence_left: float = Field(
        default=2.0, ge=0, description="Standard errors below which imitation ends; below evidence. Typical: 0 to 2."
    )
    caution: float = Field(
        default=0.0,
        description="A state's advice is imitated where its expected benefit is above so many of its standard "
        "deviations. Below 0: where it is not shown to harm. Typical: -1 to 1.",
    )
    benefit_of_doubt: float = Field(
        default=1.0,
        ge=0,
        description="The same for a tutor that is known to be worth following (advice.follow): its advice is imitated "
        "unless its expected benefit is so many standard deviations below 0. Typical: 0 to 2.",
    )
    until: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="A state is left alone once the student takes the advised action with this probability. Below 1 "
        "it goes on to try its own actions. Typical: 0.6 to 0.9.",
    )
    phase_steps: int = Field(
        default=2_000,
        gt=0,
        description="Env steps after which DQN, whose values imitation distorts, is let go where nobody knows what the "
        "tutor reaches itself; it is helped again if it falls back. PPO and A2C are helped for as long as evidence "
        "speaks for the advice.",
    )
    stall_steps: int = Field(
        default=2_048,
        gt=0,
        description="Env steps without a better mean return after which a tutor that is worth following loses the "
        "benefit of the doubt. Not DQN's: it plays its first choices, so its returns come to where the tutor's are.",
    )
    half_life: float = Field(default=1_024, gt=0, description="Env steps after which evidence counts half.")
    first_gradient_steps: int = Field(default=200, ge=0, description="Most gradient steps when a phase begins.")
    gradient_steps: float = Field(
        default=60.0, ge=0, description="Most gradient steps per 256 env steps of a phase. They cost time."
    )
    idle_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Factor on P(τ) once patience_steps have been asked about without a phase: spares consultations.",
    )
    patience_steps: int = Field(
        default=4_096, ge=0, description="Env steps that are asked about in full before a phase, or after one."
    )

    @model_validator(mode="after")
    def _ends_below_its_beginning(self) -> Distil:
        if self.evidence_left >= self.evidence:
            raise UserError(
                f"advice.use_options.evidence_left = {self.evidence_left} must be below evidence = {self.evidence}: "
                "else imitation would end where it begins."
            )
        return self

    def make(self, trial: Trial) -> AdviceUse:
        """Make the working object of a trial."""
        from rllib_plugins.uses.distil import Distillation

        return Distillation(self, trial)


class Clone(Use):
    """Imitate the tutor wherever it was asked and learn nothing from reward: a control; the tutor never acts."""

    until: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="A state is left alone once the student takes the advised action with this probability. Typical: "
        "0.8 to 1.",
    )
    gradient_steps: float = Field(default=60.0, ge=0, description="Most gradient steps per 256 env steps.")

    def make(self, trial: Trial) -> AdviceUse:
        """Make the working object of a trial."""
        from rllib_plugins.uses.clone import Cloning

        return Cloning(self, trial)


_REGISTRY: RuleRegistry[Use] = RuleRegistry("advice.use", Use)
_REGISTRY.register("distil", Distil)
_REGISTRY.register("coin", Coin)
_REGISTRY.register("clone", Clone)


def register_use(name: str, cls: type[Use]) -> type[Use]:
    """Make a use of advice known by a name, so that a config can say it.

    Raises:
        ValueError: The name is taken, or ``cls`` does not extend ``Use``.
    """
    return _REGISTRY.register(name, cls)


def use_names() -> tuple[str, ...]:
    """Return the names of the registered uses."""
    return _REGISTRY.names


def make_use(name: str, options: dict[str, Any]) -> Use:
    """Build a use from a config's name (or ``module:Class``) and options.

    Raises:
        UserError: Unknown use or option, with the nearest spelling, or a value out of range.
    """
    return _REGISTRY.make(name, options)
