"""Name the uses of advice and their options: what ``advice.use`` may say. The module of its name says what one does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rllib_plugins.registries import NamedOptions
from tutor_service.errors import UserError

if TYPE_CHECKING:
    from rllib_plugins.advising.explorer import Explorer
    from rllib_plugins.uses.base import Use, UseContext


Floats = NDArray[np.float64]

STAND_IN_FIELDS = ("stand_in", "stand_in_options")
"""Fields of ``AdviceConfig`` that say who answers in the tutor's place."""
ASKING_FIELDS = ("probability_initial", "probability_final", "rule", "rule_options")
"""Fields of ``AdviceConfig`` that say in which states to ask."""
COIN_FIELDS = (
    "probability_cap",
    "reuse",
    "reuse_options",
    "weights",
    "weight_cap",
    "imitation",
    "imitation_weight",
    "imitation_gain",
    "imitation_until",
    "imitation_replay",
    "imitation_replay_steps",
    "trust",
    "trust_floor",
    "trust_half_life",
    "dqn_random_share",
)
"""Fields of ``AdviceConfig`` that are read only where the tutor may act by a coin."""


class UseOptions(BaseModel):
    """Name a use of advice; its fields are ``advice.use_options``. A use of your own extends this and ``Use``.

    Attributes:
        acts: Whether the tutor may act in the student's place, so that the explorer has to know it.
        pools: Whether the explorer changes what the student acts by.
        shows: Whether the explorer shows the student advice, as further features of its observations.
        reads_level: Whether it reads the return of the tutor's own play, which a sweep then measures.
        on_stock: Whether it works in RLlib's own EnvRunner.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    acts: ClassVar[bool] = False
    pools: ClassVar[bool] = False
    shows: ClassVar[bool] = False
    reads_level: ClassVar[bool] = False
    on_stock: ClassVar[bool] = False

    @classmethod
    def reads(cls) -> frozenset[str]:
        """Return which of ``ASKING_FIELDS``, ``STAND_IN_FIELDS`` and ``COIN_FIELDS`` it reads.

        The others must keep their defaults. An explorer of its own, where the tutor acts, knows no stand-in.
        """
        is_alone = cls.acts and cls.has_own_explorer()
        return frozenset((*ASKING_FIELDS, *(COIN_FIELDS if cls.acts else ()), *(() if is_alone else STAND_IN_FIELDS)))

    def asks(self, probability: Floats, progress: Floats) -> Floats:
        """Return the expected share of env steps that are asked about, ``(n,)``, before anything is known of a trial.

        Args:
            probability: ``(n,)`` P(τ).
            progress: ``(n,)`` τ/θ, at most 1.
        """
        return probability

    @classmethod
    def has_own_explorer(cls) -> bool:
        """Tell whether it has an explorer other than ``Explorer``, the only one that several EnvRunners can share."""
        return cls.explorer is not UseOptions.explorer

    def explorer(self) -> Callable[..., Explorer]:
        """Return a function that makes a trial's explorer from the arguments of ``Explorer``."""
        from rllib_plugins.advising.explorer import Explorer

        return Explorer

    def explorer_with_stand_in(self) -> Callable[..., Explorer]:
        """Return the same for a tutor with a stand-in; where the tutor never acts, it is ``explorer``'s."""
        if not self.acts:
            return self.explorer()
        from rllib_plugins.stand_ins.explorer import StandInExplorer

        return StandInExplorer

    def make(self, context: UseContext) -> Use:
        """Make the working object of a trial."""
        raise NotImplementedError


class ByExplorer(UseOptions):
    """Leave all the work to an explorer of one's own: nothing of the advice enters learning beside it."""

    acts: ClassVar[bool] = True

    def make(self, context: UseContext) -> Use:
        """Make the working object of a trial, which does nothing."""
        from rllib_plugins.uses.base import Use

        return Use(context)


class Fading(UseOptions):
    """Give what the tutor said a weight in learning that falls to 0 at θ."""

    def asks(self, probability: Floats, progress: Floats) -> Floats:
        """Return P(τ) before θ, and 0 from there on."""
        return np.where(progress < 1.0, probability, 0.0)


class Coin(UseOptions):
    """Let a coin decide at each step whether the tutor acts; imitate advised steps as ``advice.imitation`` says."""

    acts: ClassVar[bool] = True
    on_stock: ClassVar[bool] = True

    def make(self, context: UseContext) -> Use:
        """Make the working object of a trial."""
        from rllib_plugins.uses.coin import CoinUse

        return CoinUse(context)


class Distil(UseOptions):
    """Imitate advice where the student's own draws say that it helps; the tutor never acts."""

    reads_level: ClassVar[bool] = True

    evidence: float = Field(
        default=3.0, gt=0, description="Evidence for the advice, in standard errors, from which on it is imitated."
    )
    evidence_left: float = Field(
        default=2.0, ge=0, description="Evidence below which imitation ends; must be below evidence. Typical: 0 to 2."
    )
    caution: float = Field(
        default=0.0,
        description="A state's advice is imitated where its expected benefit lies above so many of its standard "
        "deviations. Below 0: unless it is shown to harm. Typical: -1 to 1.",
    )
    benefit_of_doubt: float = Field(
        default=2.0,
        ge=0,
        description="The same for a tutor that is known to be worth following (advice.follow): its advice is imitated "
        "unless its expected benefit lies more than so many standard deviations below 0; everywhere where it plays as "
        "well as can be. Typical: 1 to 3.",
    )
    until: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Imitation in a state ends once the student takes the advised action with this probability. Below "
        "1 the student keeps trying its own actions. Typical: 0.6 to 0.9.",
    )
    phase_steps: int = Field(
        default=2_000,
        gt=0,
        description="DQN only, where the tutor's own return is not known: env steps after which a phase of imitation "
        "ends, since imitation distorts values; another begins if the student falls back. A phase of PPO and A2C lasts "
        "as long as evidence speaks for the advice.",
    )
    stall_steps: int = Field(
        default=2_048,
        gt=0,
        description="Env steps without a better mean return after which imitation of a tutor that is worth following "
        "ends, if the student's own draws do not speak for it (evidence below half of evidence_left), or, where it "
        "plays as well as can be, speak against it; doubled each time that the student falls back and imitation begins "
        "again. Not DQN, which plays its first choices but for its exploration, so that its returns come near the "
        "tutor's.",
    )
    plateau_steps: int = Field(
        default=16_384,
        gt=0,
        description="Env steps without a better mean return, and less than a quarter of the way to the tutor's, after "
        "which imitation ends, whatever the evidence: a network may be too small to play as its tutor does. It begins "
        "again, twice as patient, if the student loses half of what it had gained. For DQN, whose exploring returns "
        "say little of its first choices, without more of these being the advised actions, where less than four in "
        "five are.",
    )
    lead_steps: int = Field(
        default=8_192,
        gt=0,
        description="Env steps after which imitation of a tutor worth following ends, unless that plays as well as can "
        "be, where the student has not come half of the way to the tutor's return: it may come further by itself. For "
        "twice as many it then tries to; imitation begins again, twice as patient, if by then it has lost half of what "
        "it had gained. Only before θ, while enough of the training is left to profit from it.",
    )
    fade_steps: int = Field(
        default=8_192,
        gt=0,
        description="PPO only: env steps over which imitation fades, once plateau_steps are over, or stall_steps have "
        "passed without the student's own draws speaking for a tutor worth following, unless that plays as well as "
        "can be.",
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
        description="Factor on P(τ) once patience_steps have passed without a phase of imitation: saves consultations.",
    )
    patience_steps: int = Field(
        default=4_096, ge=0, description="Env steps that are asked about at full P(τ) before a phase, or after one."
    )

    @model_validator(mode="after")
    def _ends_below_its_beginning(self) -> Distil:
        if self.evidence_left >= self.evidence:
            raise UserError(
                f"advice.use_options.evidence_left = {self.evidence_left} must be below evidence = {self.evidence}: "
                "else imitation would end where it begins."
            )
        return self

    def make(self, context: UseContext) -> Use:
        """Make the working object of a trial."""
        from rllib_plugins.uses.distil import Distillation

        return Distillation(self, context)


class Kickstart(Fading):
    """Add a cross-entropy towards the tutor to the student's loss, with a weight that falls to 0 at θ."""

    weight: float = Field(
        default=10.0,
        gt=0,
        description="λ: weight of the cross-entropy at env step 0; it falls linearly to 0 at θ. Typical: 1 to 10.",
    )

    def make(self, context: UseContext) -> Use:
        """Make the working object of a trial."""
        from rllib_plugins.uses.kickstart import Kickstarting

        return Kickstarting(self, context)


class Shape(Fading):
    """Add to the reward what the tutor makes of the action, with a weight that falls to 0 at θ."""

    weight: float = Field(
        default=0.3,
        gt=0,
        description="λ: reward of an action per unit of probability that the tutor gives it above a uniform share, at "
        "env step 0; it falls linearly to 0 at θ. In units of the task's reward. Typical: 0.1 to 1.",
    )

    def make(self, context: UseContext) -> Use:
        """Make the working object of a trial."""
        from rllib_plugins.uses.shape import Shaping

        return Shaping(self, context)


class Handover(ByExplorer):
    """Let the tutor begin each episode and the student go on; the tutor's part shrinks as the student gets better."""

    horizon: int = Field(
        default=20,
        gt=0,
        description="Env steps of the tutor's part at first. Typical: about an episode's, where a beginner sees no "
        "reward; 10 to 50 where every step is rewarded.",
    )
    stages: int = Field(default=5, gt=0, description="Equal steps in which the tutor's part shrinks to nothing.")
    episodes: int = Field(default=8, gt=0, description="Latest episodes of a stage whose mean return is judged.")
    tolerance: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="The tutor's part shrinks if that mean falls short of the best one so far by at most this share.",
    )

    @classmethod
    def reads(cls) -> frozenset[str]:
        """Return the fields of stored advice and of the weights of the tutor's steps."""
        return frozenset(("reuse", "reuse_options", "weights", "weight_cap"))

    def asks(self, probability: Floats, progress: Floats) -> Floats:
        """Return 1, which it is at most: how soon a student is on its own depends on how it learns."""
        return np.ones_like(progress)

    def explorer(self) -> Callable[..., Explorer]:
        """Return what makes a trial's explorer."""
        from rllib_plugins.uses.handover import HandoverExplorer

        return partial(HandoverExplorer, self)


class Pool(ByExplorer):
    """Act by the product of the student's policy and the tutor's to the power of κ, which falls to 0 at θ."""

    pools: ClassVar[bool] = True

    strength: float = Field(
        default=1.0, gt=0, description="κ at env step 0; it falls linearly to 0 at θ. Typical: 0.5 to 4."
    )
    floor: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of the uniform distribution that is mixed into the tutor's: otherwise a tutor that names "
        "one action would leave no other. Typical: 0.01 to 0.3.",
    )

    @classmethod
    def reads(cls) -> frozenset[str]:
        """Return nothing: every state is asked about."""
        return frozenset()

    def asks(self, probability: Floats, progress: Floats) -> Floats:
        """Return 1 before θ, and 0 from there on."""
        return np.where(progress < 1.0, 1.0, 0.0)

    def explorer(self) -> Callable[..., Explorer]:
        """Return what makes a trial's explorer."""
        from rllib_plugins.uses.pool import PoolingExplorer

        return partial(PoolingExplorer, self)


class Observe(ByExplorer):
    """Show the student advice as part of its observation, ever more seldom; the student acts."""

    shows: ClassVar[bool] = True

    dropout: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of the states in which advice is withheld at env step 0, so that the student learns to do "
        "without; the share with advice falls linearly to 0 at θ. Typical: 0.3 to 0.7.",
    )

    @classmethod
    def reads(cls) -> frozenset[str]:
        """Return nothing: ``dropout`` says how often to ask."""
        return frozenset()

    def asks(self, probability: Floats, progress: Floats) -> Floats:
        """Return 1 − dropout at first, and 0 from θ on."""
        return (1.0 - self.dropout) * np.maximum(1.0 - progress, 0.0)

    def explorer(self) -> Callable[..., Explorer]:
        """Return what makes a trial's explorer."""
        from rllib_plugins.uses.observe import ObservingExplorer

        return partial(ObservingExplorer, self)


class Clone(UseOptions):
    """Imitate the tutor wherever it was asked and learn nothing from reward: a control; the tutor never acts."""

    until: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Imitation in a state ends once the student takes the advised action with this probability. "
        "Typical: 0.8 to 1.",
    )
    gradient_steps: float = Field(default=60.0, ge=0, description="Most gradient steps per 256 env steps.")

    def make(self, context: UseContext) -> Use:
        """Make the working object of a trial."""
        from rllib_plugins.uses.clone import Cloning

        return Cloning(self, context)


_REGISTRY: NamedOptions[UseOptions] = NamedOptions("advice.use", UseOptions)
_REGISTRY.register("distil", Distil)
_REGISTRY.register("coin", Coin)
_REGISTRY.register("kickstart", Kickstart)
_REGISTRY.register("shape", Shape)
_REGISTRY.register("handover", Handover)
_REGISTRY.register("pool", Pool)
_REGISTRY.register("observe", Observe)
_REGISTRY.register("clone", Clone)

register_use = _REGISTRY.register
"""Make a use of advice known by a name, so that a config can say it."""
use_names = _REGISTRY.names
find_use = _REGISTRY.find
make_use = _REGISTRY.make


def uses_where(holds: Callable[[type[UseOptions]], bool]) -> str:
    """Name the uses of which something holds, as an error proposes them: ``clone, distil or shape``."""
    *others, last = (name for name in use_names() if holds(find_use(name)))
    return f"{', '.join(others)} or {last}" if others else last
