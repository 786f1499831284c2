"""What the three array learners share: the optimiser step, schedules and metrics, as a mixin of RLlib's TorchLearner.

Optimisers, learning-rate schedules and the module stay RLlib's own; this skips the dictionaries, metrics and finiteness
checks that RLlib spends on every minibatch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER
from ray.rllib.utils.metrics import ALL_MODULES, NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_ENV_STEPS_TRAINED_LIFETIME

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.updates import OptimiserView, descend
from rllib_plugins.rollout.mlp import Network, flatten_parameters
from rllib_plugins.uses.base import AdviceSample, Goal
from tutor_service.errors import UserError

_OPTIMIZERS = ("adam", "rmsprop")


class ArrayLearner:
    """Update a module from arrays; put it before the RLlib learner.

    Attributes:
        num_steps_trained: Steps in updates since metrics were last reduced.
        imitation_weights: RLlib's path: the weights of imitation at this point of training.
        imitation_at: RLlib's path: from the env steps sampled so far to these weights; the algorithm sets it.
    """

    config: Any
    metrics: Any
    module: Any
    imitation_weights = ImitationWeights()
    imitation_at: Callable[[int], ImitationWeights] = staticmethod(lambda step: ImitationWeights())
    _optimizer_lr_schedules: dict[Any, Any]

    def build(self) -> None:
        """Build what RLlib builds."""
        super().build()  # type: ignore[misc]
        self._optimizer: torch.optim.Optimizer = self.get_optimizer(DEFAULT_MODULE_ID)  # type: ignore[attr-defined]
        self.num_steps_trained = 0
        if self.config.rollout == "lean":
            module = self.module[DEFAULT_MODULE_ID].unwrapped()
            whole = self._optimizer.param_groups[0]["params"][0]
            self._gradient: NDArray[np.float32] = whole.grad.numpy()
            sizes = [p.numel() for p in module.parameters() if p.grad is not None]
            parts = np.cumsum([0, *sizes])
            self.optimiser = OptimiserView(self._optimizer, self.config, parts)
            self._advice_optimizer = torch.optim.Adam([whole], fused=True)
            self._advice_optimiser = OptimiserView(self._advice_optimizer, self.config, parts)
            self.bind(module)

    def bind(self, module: Any) -> None:
        """Make the lean view on the module."""
        raise NotImplementedError

    @property
    def network(self) -> Network:
        """Return what the view learns."""
        raise NotImplementedError

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Register ``config.optimizer``: type ``adam`` (default) or ``rmsprop``, and options by torch's names.

        The lean rollout steps it in machine code: the same formula, rounded differently.
        """
        if config.rollout == "stock" and not config.optimizer:
            super().configure_optimizers_for_module(module_id, config)  # type: ignore[misc]
            return
        options = dict(config.optimizer or {})
        kind = options.pop("type", "adam")
        parameters = self.get_parameters(self.module[module_id])  # type: ignore[attr-defined]
        parameters = [p for p in parameters if p.requires_grad]
        stepped = parameters if config.rollout == "stock" else [flatten_parameters(parameters)]
        try:
            if kind == "adam":
                optimizer: torch.optim.Optimizer = torch.optim.Adam(stepped, fused=True, **options)
            elif kind == "rmsprop":
                optimizer = torch.optim.RMSprop(stepped, **options)
            else:
                raise UserError(f"optimizer.type={kind!r}: choose one of {', '.join(_OPTIMIZERS)}")
        except TypeError as error:
            raise UserError(f"optimizer={config.optimizer!r}: {error}") from error
        self.register_optimizer(  # type: ignore[attr-defined]
            module_id=module_id,
            optimizer_name=DEFAULT_OPTIMIZER,
            optimizer=optimizer,
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    @property
    def num_updates(self) -> int:
        """Return the gradient steps so far, those on remembered advice included."""
        optimizers = [self._optimizer, *([self._advice_optimizer] if self.config.rollout == "lean" else [])]
        states: list[dict[str, Any]] = [next(iter(optimizer.state.values()), {}) for optimizer in optimizers]
        return sum(int(state.get("step", 0)) for state in states)

    def follow_schedules(self, num_env_steps: int) -> None:
        """Set the learning rate of this point of training, where it follows a schedule."""
        for optimizer, schedule in self._optimizer_lr_schedules.items():
            if schedule.use_schedule:
                self._set_optimizer_lr(optimizer, schedule.update(timestep=num_env_steps))  # type: ignore[attr-defined]

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """RLlib's path: look up the weights of imitation at this point of training."""
        super().before_gradient_based_update(timesteps=timesteps)  # type: ignore[misc]
        self.imitation_weights = self.imitation_at(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))

    def imitate_again(self, sample: AdviceSample, goal: Goal) -> bool:
        """Take one gradient step on remembered advice; or return False, and take none, where it is followed already.

        The steps have an optimiser of their own (Adam at the present learning rate), whose step sizes follow from
        imitation alone.

        Args:
            sample: Advised steps.
            goal: How far they are imitated.
        """
        self._gradient.fill(0.0)
        if self.imitate(sample, goal.until) < goal.settled_share:
            return False
        self._advice_optimizer.param_groups[0]["lr"] = self._optimizer.param_groups[0]["lr"]
        descend(self.network, self._advice_optimiser())
        return True

    def imitate(self, sample: AdviceSample, until: float) -> float:
        """Write the gradient of imitating some steps; return the share of them that is not followed yet.

        Args:
            sample: Advised steps.
            until: Probability of the advised action from which on a step is left alone.
        """
        raise NotImplementedError

    def statistics(self) -> dict[str, float]:
        """Return what is worth logging about the latest update; nothing before the first."""
        raise NotImplementedError

    def reduce_metrics(self) -> Any:
        """Return the metrics since the last call, in RLlib's reduced form."""
        if self.num_steps_trained:
            self.metrics.log_dict(self.statistics(), key=DEFAULT_MODULE_ID, window=1)
            self.metrics.log_value(
                (ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), self.num_steps_trained, reduce="lifetime_sum"
            )
            self.num_steps_trained = 0
        return self.metrics.reduce()

    def get_lean_state(self) -> dict[str, Any]:
        """Return what RLlib's checkpoint of a learner leaves out."""
        return {"advice_optimizer": copy.deepcopy(self._advice_optimizer.state_dict())}

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_lean_state``."""
        self._advice_optimizer.load_state_dict(state["advice_optimizer"])
