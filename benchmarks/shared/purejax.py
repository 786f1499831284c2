"""PPO with environments, rollout and update in one XLA program, as PureJaxRL (Lu et al. 2022) writes it: a peer.

PureJaxRL is not on the package index, so this is its design written anew, at this benchmark's settings: Gymnax's
CartPole, ``lax.scan`` over vector steps, passes and minibatches, ``vmap`` over environments and over seeds.

Run as a module it trains from a fresh process and prints what that took::

    python -m benchmarks.shared.purejax --num-env-steps 40000 --num-seeds 10
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.shared.students import HIDDEN, SETTINGS

NUM_ACTIONS, OBS_DIM, CLIP, VF_COEFF, MAX_NORM = 2, 4, 0.2, 0.5, 0.5

Parameters = dict[str, list[tuple[jax.Array, jax.Array]]]


class Training(NamedTuple):
    """Holds one seed's training between two updates."""

    parameters: Parameters
    optimiser: Any
    envs: Any
    observations: jax.Array
    key: jax.Array


class Steps(NamedTuple):
    """Holds env steps, with leading axes for vector steps and environments, or for a minibatch."""

    observations: jax.Array
    actions: jax.Array
    logp: jax.Array
    values: jax.Array
    rewards: jax.Array
    done: jax.Array


class PureJax:
    """PPO on CartPole: ``begin`` and ``train``, each one compiled program.

    Args:
        num_envs: Environments per seed.
        num_seeds: Seeds that are trained side by side.
    """

    def __init__(self, num_envs: int, num_seeds: int) -> None:
        self.num_seeds, self._num_envs = num_seeds, num_envs
        self._s = SETTINGS["ppo"]
        self._env, self._env_params = gymnax.make("CartPole-v1")
        self._optimiser = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(self._s["lr"], eps=1e-5))
        self.begin: Callable[[jax.Array], Training] = jax.jit(jax.vmap(self._begin))
        self.steps_per_update = int(self._s["batch"])

    @functools.cached_property
    def train(self) -> Callable[..., tuple[Training, jax.Array]]:
        """Return the program: from a training and a number of updates to the later one and the episodes ended."""

        def run(training: Training, num_updates: int) -> tuple[Training, jax.Array]:
            return jax.lax.scan(lambda state, _: self._update(state), training, None, num_updates)

        def over_seeds(training: Training, num_updates: int) -> tuple[Training, jax.Array]:
            return jax.vmap(lambda one: run(one, num_updates))(training)

        return jax.jit(over_seeds, static_argnums=1, donate_argnums=0)

    def keys(self, first_seed: int = 0) -> jax.Array:
        """Return the seeds' keys."""
        return jax.vmap(jax.random.PRNGKey)(first_seed + jnp.arange(self.num_seeds))

    def _begin(self, key: jax.Array) -> Training:
        key, reset_key, *layer_keys = jax.random.split(key, 8)
        sizes = (OBS_DIM, HIDDEN, HIDDEN)

        def network(keys: list[jax.Array], num_outputs: int, gain: float) -> list[tuple[jax.Array, jax.Array]]:
            widths, gains = (*sizes, num_outputs), (2**0.5, 2**0.5, gain)
            make = [jax.nn.initializers.orthogonal(g) for g in gains]
            return [(make[i](keys[i], (widths[i], widths[i + 1])), jnp.zeros(widths[i + 1])) for i in range(len(gains))]

        parameters = {
            "actor": network(layer_keys[:3], NUM_ACTIONS, 0.01),
            "critic": network(layer_keys[3:], 1, 1.0),
        }
        reset_keys = jax.random.split(reset_key, self._num_envs)
        observations, envs = jax.vmap(self._env.reset, (0, None))(reset_keys, self._env_params)
        return Training(parameters, self._optimiser.init(parameters), envs, observations, key)

    def _update(self, training: Training) -> tuple[Training, jax.Array]:
        """Sample a rollout and learn from it; the second result counts the episodes that ended."""
        num_steps = self._s["batch"] // self._num_envs
        training, steps = jax.lax.scan(lambda state, _: self._step(state), training, None, num_steps)
        last = _values(training.parameters, training.observations)
        advantages = self._advantages(steps, last)
        batch = jax.tree.map(
            lambda x: x.reshape(self._s["batch"], *x.shape[2:]), (steps, advantages, advantages + steps.values)
        )
        learn = functools.partial(self._pass, batch)
        carry, _ = jax.lax.scan(learn, (training.parameters, training.optimiser, training.key), None, self._s["epochs"])
        parameters, optimiser, key = carry
        return training._replace(parameters=parameters, optimiser=optimiser, key=key), steps.done.sum()

    def _step(self, training: Training) -> tuple[Training, Steps]:
        key, act_key, env_key = jax.random.split(training.key, 3)
        logits, values = _forward(training.parameters, training.observations)
        actions = jax.random.categorical(act_key, logits)
        logp = _logp(logits, actions)
        step = jax.vmap(self._env.step, (0, 0, 0, None))
        keys = jax.random.split(env_key, self._num_envs)
        observations, envs, rewards, terminated, truncated, _ = step(keys, training.envs, actions, self._env_params)
        done = terminated | truncated
        return (
            training._replace(envs=envs, observations=observations, key=key),
            Steps(training.observations, actions, logp, values, rewards, done),
        )

    def _advantages(self, steps: Steps, last: jax.Array) -> jax.Array:
        gamma, decay = self._s["gamma"], self._s["gamma"] * self._s["lambda_"]

        def back(carry: tuple[jax.Array, jax.Array], step: Steps) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            advantage, following = carry
            goes_on = 1.0 - step.done
            delta = step.rewards + gamma * following * goes_on - step.values
            advantage = delta + decay * goes_on * advantage
            return (advantage, step.values), advantage

        _, advantages = jax.lax.scan(back, (jnp.zeros_like(last), last), steps, reverse=True, unroll=16)
        return advantages

    def _pass(self, batch: Any, carry: tuple[Any, Any, jax.Array], _: None) -> tuple[tuple[Any, Any, jax.Array], None]:
        """Pass once over a batch in shuffled minibatches."""
        parameters, optimiser, key = carry
        key, order_key = jax.random.split(key)
        order = jax.random.permutation(order_key, self._s["batch"])
        shape = (self._s["batch"] // self._s["minibatch"], self._s["minibatch"])
        minibatches = jax.tree.map(lambda x: jnp.take(x, order, axis=0).reshape(*shape, *x.shape[1:]), batch)

        def learn(state: tuple[Any, Any], minibatch: Any) -> tuple[tuple[Any, Any], None]:
            parameters, optimiser = state
            gradients = jax.grad(_loss)(parameters, *minibatch)
            updates, optimiser = self._optimiser.update(gradients, optimiser)
            return (optax.apply_updates(parameters, updates), optimiser), None

        (parameters, optimiser), _ = jax.lax.scan(learn, (parameters, optimiser), minibatches)
        return (parameters, optimiser, key), None


def _mlp(layers: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def _values(parameters: Parameters, observations: jax.Array) -> jax.Array:
    return _mlp(parameters["critic"], observations)[..., 0]


def _forward(parameters: Parameters, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _mlp(parameters["actor"], observations), _values(parameters, observations)


def _logp(logits: jax.Array, actions: jax.Array) -> jax.Array:
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], axis=-1)[..., 0]


def _loss(parameters: Parameters, steps: Steps, advantages: jax.Array, targets: jax.Array) -> jax.Array:
    logits, values = _forward(parameters, steps.observations)
    ratio = jnp.exp(_logp(logits, steps.actions) - steps.logp)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped = jnp.clip(ratio, 1.0 - CLIP, 1.0 + CLIP)
    policy_loss = -jnp.minimum(ratio * advantages, clipped * advantages).mean()
    return policy_loss + VF_COEFF * jnp.square(values - targets).mean()


class PureJaxRun:
    """The peer, compiled and warmed up; a call gives env steps of all seeds per second of this process's own time."""

    def __init__(self, num_envs: int, num_seeds: int, num_env_steps: int) -> None:
        self._ppo = PureJax(num_envs, num_seeds)
        self._num_updates = max(1, num_env_steps // self._ppo.steps_per_update)
        self._training = self._ppo.begin(self._ppo.keys())
        self.episode_steps = np.nan
        self()

    def __call__(self) -> float:
        """Env steps per second."""
        started = time.process_time()
        self._training, ended = self._ppo.train(self._training, self._num_updates)
        jax.block_until_ready(self._training)
        num_env_steps = self._num_updates * self._ppo.steps_per_update * self._ppo.num_seeds
        self.episode_steps = num_env_steps / max(1, int(ended.sum()))
        return num_env_steps / (time.process_time() - started)


def main() -> None:
    """Trains some seeds from nothing and prints the mean length of an episode in the last update."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-env-steps", type=int, default=40_000)
    parser.add_argument("--num-seeds", type=int, default=1)
    args = parser.parse_args()
    ppo = PureJax(args.num_envs, args.num_seeds)
    _, ended = ppo.train(ppo.begin(ppo.keys()), args.num_env_steps // ppo.steps_per_update)
    print(f"episode_steps {ppo.steps_per_update * args.num_seeds / max(1, int(np.asarray(ended)[:, -1].sum())):.1f}")


if __name__ == "__main__":
    main()
