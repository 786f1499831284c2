"""SIMULATION of a tutor of 8 billion parameters on up to 100 GPUs before 2,000 trials: no GPU is measured here.

Purpose: carries a plan past the machines at hand. How large a share of consultations is answered within the deadline,
how many states are evaluated per second, and how busy replicas and gateways are, by gateways (1 and 4) and live
replicas.

What is real: the gateways (``tutor_service.gateway``: window, calls of 32, queue, refusals, deadlines), the limits
that follow from a tutor's file, and the division of lists among gateways. They run as they are, in virtual time.

What is arithmetic, in ``Hardware``: a replica's forward pass. An engine takes all prompts that wait, up to its token
budget; the pass lasts as long as the longer of two: 2 FLOPs per parameter and token that is not in the prefix cache, at
half of the GPU's rate, or all weights read once from its memory. Attention, sampling and the scheduler are free.

What is measured elsewhere: the states per second that a gateway's own process can do, of ``gateway_scale``'s result: a
gateway is busy for their inverse per state, one list after the other.

What is assumed: 2,000 trials with lists of 32 states each, all new, and no pause between two lists: the worst that so
many trials can ask. A caller goes on after the deadline, as ``TutorClient`` does by default (30 s); refused states are
asked again as it does, at most twice, and its circuit breaker is left out. Serve's own calls and the network are free.

How to run: ``.venv/bin/python -m benchmarks.cluster_simulation [--quick | --smoke]``. The machine need not be idle: no
figure depends on its speed.

What to expect: a line per check, a table, and a JSON summary. Checks hold the policy against the arithmetic: what could
be evaluated is, where callers ask for more; all is answered where there are replicas and gateways for it; and a replica
more never costs answers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.harness import RESULTS, Benchmark, benchmark_parser, sized
from benchmarks.shared import virtual_time
from tutor_service.client import ClientSettings
from tutor_service.client.backend import service_share_s
from tutor_service.config import TutorConfig
from tutor_service.engines.base import EngineFacts
from tutor_service.gateway.gateway import Gateway
from tutor_service.gateway.metrics import GatewayMetrics
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.serving.scaling import gateway_settings
from tutor_service.sharding import split

NAME = "cluster_simulation"
MEASURES = (
    "tutor_service/gateway/gateway.py",
    "tutor_service/gateway/queue.py",
    "tutor_service/serving/scaling.py",
    "tutor_service/sharding.py",
)
CLIENT = ClientSettings()
ANSWER = Advice((0.25, 0.75), 0.9, tokens=1)


class Hardware(NamedTuple):
    """A replica's engine by arithmetic.

    Attributes:
        parameters: Of Llama 3.1 8B ("The Llama 3 Herd of Models", table 3, and its model card: 8.03 billion).
        bytes_per_parameter: bfloat16.
        flops: Dense bfloat16 rate of an H100 SXM (NVIDIA's data sheet: 989 teraFLOP/s without sparsity).
        flops_share: Share of it that a prefill reaches; an assumption.
        bytes_per_s: Its memory's rate (the same data sheet: 3.35 TB/s).
        new_tokens: Tokens of a prompt behind the shared prefix: of 180, those of Blackjack's state.
        budget: Tokens of one pass (``max_num_batched_tokens``).
    """

    parameters: float = 8.03e9
    bytes_per_parameter: int = 2
    flops: float = 989e12
    flops_share: float = 0.5
    bytes_per_s: float = 3.35e12
    new_tokens: int = 50
    budget: int = 8192

    def pass_s(self, num_prompts: int) -> float:
        """Seconds of one forward pass: one token is decoded, so that it answers its prompts."""
        arithmetic = 2 * self.parameters * num_prompts * self.new_tokens / (self.flops * self.flops_share)
        return max(arithmetic, self.parameters * self.bytes_per_parameter / self.bytes_per_s)

    @property
    def most_prompts(self) -> int:
        """Prompts in one pass."""
        return self.budget // self.new_tokens

    @property
    def prompts_per_s(self) -> float:
        """What one replica can evaluate."""
        return self.most_prompts / self.pass_s(self.most_prompts)


class Size(NamedTuple):
    """How much is simulated: trials, environments of each, live replicas, gateways, and virtual seconds.

    Attributes:
        warm_up_s: Virtual seconds before those that count.
        seconds: Those that count.
    """

    trials: int
    environments: int
    replicas: tuple[int, ...]
    gateways: tuple[int, ...]
    warm_up_s: float
    seconds: float


class Outcome(NamedTuple):
    """What one cluster did in the seconds that count.

    Attributes:
        answered_share: Of the states that were asked, those with advice within the deadline.
        evaluations_per_s: Of all replicas.
        replicas_busy: Share of time that replicas computed.
        gateways_busy: The same of gateways.
        mean_wait_s: Between a list and its answers.
    """

    answered_share: float
    evaluations_per_s: float
    replicas_busy: float
    gateways_busy: float
    mean_wait_s: float


class Meter:
    """Adds up what happens in the seconds that count."""

    def __init__(self, size: Size) -> None:
        self.begins, self.ends = size.warm_up_s, size.warm_up_s + size.seconds
        self.asked = self.answered = self.evaluated = self.lists = 0
        self.replica_s = self.gateway_s = self.waited_s = 0.0

    def share(self, since: float, until: float) -> float:
        """Seconds of a span that count."""
        return max(0.0, min(until, self.ends) - max(since, self.begins))

    def counts(self, now: float) -> bool:
        """Say whether this moment counts."""
        return self.begins <= now < self.ends


class Replicas:
    """Engines that take what waits, up to a budget, into each forward pass.

    Args:
        count: How many live; a call goes to the one with the fewest prompts, as Serve would send it.
        hardware: Their timing.
        meter: Told of their work.
    """

    def __init__(self, count: int, hardware: Hardware, meter: Meter) -> None:
        self._hardware = hardware
        self._meter = meter
        self._loads = [0] * count
        self._waiting: list[deque[asyncio.Future[None]]] = [deque() for _ in range(count)]
        self._running: list[asyncio.Task[None] | None] = [None] * count

    async def __call__(self, prompts: list[Prompt]) -> Sequence[Advice | AdviceError]:
        """Evaluate one call's prompts."""
        replica = self._loads.index(min(self._loads))
        loop = asyncio.get_running_loop()
        done = [loop.create_future() for _ in prompts]
        self._loads[replica] += len(prompts)
        self._waiting[replica].extend(done)
        if self._running[replica] is None:
            self._running[replica] = asyncio.create_task(self._run(replica))
        try:
            await asyncio.wait(done)
        finally:
            self._loads[replica] -= len(prompts)
        return [ANSWER] * len(prompts)

    async def _run(self, replica: int) -> None:
        loop, waiting = asyncio.get_running_loop(), self._waiting[replica]
        while waiting:
            step = [waiting.popleft() for _ in range(min(len(waiting), self._hardware.most_prompts))]
            began = loop.time()
            await asyncio.sleep(self._hardware.pass_s(len(step)))
            self._meter.replica_s += self._meter.share(began, loop.time())
            self._meter.evaluated += len(step) * self._meter.counts(loop.time())
            for future in step:
                future.set_result(None)
            await asyncio.sleep(0)  # whoever has its answers sends what waits before the next pass begins
            await asyncio.sleep(0)
        self._running[replica] = None


class Prompts:
    """Makes a prompt of a state's number alone: what prompts cost is part of a gateway's measured rate."""

    def build_many(self, requests: Sequence[AdviceRequest]) -> list[Any]:
        """One prompt per request."""
        return [Prompt((int(request.state),), (0, 1), request.actions) for request in requests]


class NoNotes:
    """Puts no notes behind rules."""

    async def brief(self, rules: str) -> str:
        """Return the rules as they are."""
        return rules


class NoStore:
    """Knows no answer: every state is new."""

    replaced = 0

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]:
        """Nothing."""
        return [None] * len(keys)

    def keep_many(self, entries: Sequence[Any]) -> list[Advice]:
        """Every answer counts."""
        return [entry.advice for entry in entries]


class Shard:
    """One gateway, and the time that its process takes for a list.

    Args:
        gateway: The gateway.
        state_s: Seconds of its process per state.
        meter: Told of its work.
    """

    def __init__(self, gateway: Gateway, state_s: float, meter: Meter) -> None:
        self._gateway = gateway
        self._state_s = state_s
        self._meter = meter
        self._turn = asyncio.Lock()

    async def advise(self, requests: list[AdviceRequest], within_s: float) -> Sequence[Advice | AdviceError]:
        """Answer a list, after those that came before it."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + within_s
        async with self._turn:
            if loop.time() >= ends:
                return [AdviceError("late", retry=True)] * len(requests)
            began = loop.time()
            await asyncio.sleep(len(requests) * self._state_s)
            self._meter.gateway_s += self._meter.share(began, loop.time())
        return await self._gateway.advise(requests, max(0.0, ends - loop.time()))


class Cluster:
    """Gateways before replicas, as a tutor's file describes them.

    Args:
        num_gateways: How many gateways.
        num_live: How many replicas live, of as many as may.
        gateway_states_per_s: What one gateway's process can do.
        hardware: A replica's timing.
        meter: Told of all work.
    """

    def __init__(
        self, num_gateways: int, num_live: int, gateway_states_per_s: float, hardware: Hardware, meter: Meter
    ) -> None:
        scaling = {"max_replicas": num_live, "gateways": num_gateways}
        config = TutorConfig.model_validate({"name": NAME, "model": "simulated", "scaling": scaling})
        settings = gateway_settings(config, EngineFacts(identity=NAME, decoding="scored", max_prompt_tokens=None))
        replicas = Replicas(num_live, hardware, meter)
        self._shards = []
        for number in range(num_gateways):
            metrics = GatewayMetrics(f"{NAME}-{number}")
            gateway = Gateway(settings, Prompts(), NoNotes(), replicas, NoStore(), metrics)
            gateway.set_replicas(num_live)
            self._shards.append(Shard(gateway, 1 / gateway_states_per_s, meter))

    async def advise(self, requests: list[AdviceRequest], within_s: float) -> list[Advice | AdviceError]:
        """Divide a list among the gateways, and put their answers together."""
        parts = split(requests, len(self._shards))
        asked = (
            self._shards[number].advise([requests[place] for place in places], within_s)
            for number, places in parts.items()
        )
        answers: dict[int, Advice | AdviceError] = {}
        for places, found in zip(parts.values(), await asyncio.gather(*asked), strict=True):
            answers.update(zip(places, found, strict=True))
        return [answers[place] for place in range(len(requests))]


async def trial(cluster: Cluster, numbers: Iterator[int], size: Size, meter: Meter, dice: random.Random) -> None:
    """Ask list after list, as a client does, until the time is over."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(dice.uniform(0, 1))
    while (began := loop.time()) < meter.ends:
        ends = began + CLIENT.deadline_s
        states = map(str, itertools.islice(numbers, size.environments))
        asked = [AdviceRequest("Rules.", state, ("a", "b")) for state in states]
        left = asked
        for attempt in range(CLIENT.retries + 1):
            if attempt:
                pause_s = CLIENT.backoff_s * 2 ** (attempt - 1) * dice.uniform(0.5, 1.5)
                if loop.time() + pause_s >= ends:
                    break
                await asyncio.sleep(pause_s)
            answers = await cluster.advise(left, service_share_s(ends - loop.time()))
            left = [request for request, found in zip(left, answers, strict=True) if isinstance(found, AdviceError)]
            if not left:
                break
        if meter.counts(loop.time()):
            meter.asked += len(asked)
            meter.answered += len(asked) - len(left)
            meter.lists += 1
            meter.waited_s += loop.time() - began


def simulate(size: Size, num_gateways: int, num_live: int, rate: float, hardware: Hardware) -> Outcome:
    """Run all trials before one cluster, in virtual time."""

    async def cluster() -> Outcome:
        meter, numbers, dice = Meter(size), itertools.count(), random.Random(0)
        built = Cluster(num_gateways, num_live, rate, hardware, meter)
        await asyncio.gather(*(trial(built, numbers, size, meter, dice) for _ in range(size.trials)))
        return Outcome(
            answered_share=meter.answered / max(1, meter.asked),
            evaluations_per_s=meter.evaluated / size.seconds,
            replicas_busy=meter.replica_s / (num_live * size.seconds),
            gateways_busy=meter.gateway_s / (num_gateways * size.seconds),
            mean_wait_s=meter.waited_s / max(1, meter.lists),
        )

    return virtual_time.run(cluster())


def gateway_rate() -> float:
    """States per second of one gateway's process, as ``gateway_scale`` measured it."""
    result = json.loads((RESULTS / "gateway_scale.json").read_text(encoding="utf-8"))
    return float(result["checks"]["least_states_per_s"]["value"])


def main() -> int:
    """Simulate each cluster, and hold the policy against the arithmetic."""
    args = benchmark_parser(__doc__).parse_args()
    logging.disable(logging.WARNING)
    size = sized(
        args,
        full=Size(2_000, 32, (1, 8, 32, 100), (1, 4), 15.0, 15.0),
        quick=Size(200, 32, (1, 8, 100), (1, 4), 2.0, 2.0),
        smoke=Size(60, 8, (1, 4), (1, 4), 2.0, 2.0),
    )
    hardware, rate = Hardware(), gateway_rate()
    benchmark = Benchmark(NAME)
    benchmark.record("what_this_is", "a simulation in virtual time: replicas by arithmetic, no GPU was measured")
    benchmark.record("hardware_by_arithmetic", {**hardware._asdict(), "prompts_per_s": hardware.prompts_per_s})
    benchmark.record("gateway_states_per_s_measured_by_gateway_scale", rate)
    benchmark.record("size", size._asdict())
    table: dict[str, dict[str, Outcome]] = {}
    for num_gateways in size.gateways:
        row = table[str(num_gateways)] = {}
        for num_live in size.replicas:
            outcome = row[str(num_live)] = simulate(size, num_gateways, num_live, rate, hardware)
            print(
                f"     simulated, {num_gateways} gateways, {num_live:>3} replicas: {outcome.answered_share:6.1%} "
                f"answered, {outcome.evaluations_per_s:9,.0f} states/s, replicas {outcome.replicas_busy:4.0%} busy, "
                f"gateways {outcome.gateways_busy:4.0%}, {outcome.mean_wait_s:5.2f} s a list",
                flush=True,
            )
    benchmark.record(
        "simulated_by_gateways_and_replicas",
        {gateways: {live: found._asdict() for live, found in row.items()} for gateways, row in table.items()},
    )
    possible = [
        found.evaluations_per_s / min(int(gateways) * rate, int(live) * hardware.prompts_per_s)
        for gateways, row in table.items()
        for live, found in row.items()
    ]
    benchmark.check("simulated_least_share_of_what_is_possible", min(possible), bar=0.9)
    answered = [[row[str(live)].answered_share for live in size.replicas] for row in table.values()]
    kept = [more - fewer for row in answered for fewer, more in itertools.pairwise(row)]
    benchmark.check("simulated_answered_share_with_more_replicas_minus_with_fewer", min(kept), bar=-0.01)
    most = table[str(size.gateways[-1])][str(size.replicas[-1])]
    benchmark.check("simulated_answered_share_of_the_largest_cluster", most.answered_share, bar=0.99)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
