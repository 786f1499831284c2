"""Advice that was given before: how fast it is had again, and that no state is ever evaluated twice.

Three measurements, on the real client, the real gateway on Ray Serve with a real tokenizer, and the real store. Only
the LLM is replaced, by a stub that answers at once and counts: no path measured here reaches it.

* ``local``: warm states per second through the client's process-local map, beside a bare dictionary.
* ``gateway``: warm states per second through a Serve handle with an empty local map; and of these the first pass after
  a restart of the gateway, which builds every prompt and reads every answer from the store on disk.
* ``exactly_once``: 8 callers at once ask overlapping sets of unseen states; evaluations beyond one per state.

Run: ``.venv/bin/python -m benchmarks.store [--quick]``. It needs what ``make setup`` installs.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, alternate, benchmark_parser, median, sized
from tutor_service.schema import Advice, AdviceError, AdviceRequest

MEASURES = ("tutor_service/client", "tutor_service/gateway", "tutor_service/store")
APP = "tutor-stub"
NUM_CALLERS = 8
RULES = (
    "You play Blackjack against a dealer. Number cards count their number, face cards 10, an ace 11 or 1. Get closer "
    "to 21 than the dealer without going over. hit: draw a card. stick: stop."
)


def requests_about(numbers: Sequence[int]) -> list[AdviceRequest]:
    return [
        AdviceRequest(RULES, f"Hand {number}: your total is 14. The dealer shows 6.", ("stick", "hit"))
        for number in numbers
    ]


def measure_local(benchmark: Benchmark, repetitions: int) -> None:
    from tutor_service.client import TutorClient

    class Instant:
        def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
            return [Advice((0.5, 0.5), 1.0, "model", 1.0) for _ in requests]

    client = TutorClient(Instant())
    client.advise(requests_about(range(10_000)))
    bare = {(request.rules, request.state, request.actions): 0 for request in requests_about(range(10_000))}
    rng = random.Random(0)
    steps = [requests_about(rng.choices(range(10_000), k=8)) for _ in range(5_000)]

    def through_client() -> float:
        started = time.perf_counter()
        for step in steps:
            client.advise(step)
        return 8 * len(steps) / (time.perf_counter() - started)

    def through_dictionary() -> float:
        started = time.perf_counter()
        for step in steps:
            [bare[request.rules, request.state, request.actions] for request in step]
        return 8 * len(steps) / (time.perf_counter() - started)

    rates = alternate({"client": through_client, "dictionary": through_dictionary}, repetitions)
    benchmark.record("local_states_per_s", rates)
    benchmark.check("local_states_per_s", median(rates["client"]), bar=200_000)


def deploy(home: Path, tokenizer: Path) -> None:
    """The tutor's own gateway before a stub in place of its replicas."""
    from ray import serve

    from tutor_service.config import TutorConfig
    from tutor_service.engines.base import EngineFacts
    from tutor_service.paths import HOME_VARIABLE
    from tutor_service.serving.deployment import TutorGateway
    from tutor_service.serving.replica import Evaluated, Wanted

    class Stub:
        def __init__(self) -> None:
            self.evaluations: dict[tuple[int, ...], int] = {}

        async def facts(self, version: str) -> EngineFacts:
            return EngineFacts(identity="stub", decoding="scored", max_prompt_tokens=4096)

        async def evaluate(self, prompts: list[Any], wanted: Wanted) -> Evaluated:
            import asyncio

            for prompt in prompts:
                self.evaluations[prompt.token_ids] = self.evaluations.get(prompt.token_ids, 0) + 1
            await asyncio.sleep(0.02)  # long enough for equal requests to meet while this one is under way
            return Evaluated([Advice((0.25, 0.75), 0.9, tokens=len(prompt.token_ids)) for prompt in prompts], "")

        async def counted(self) -> tuple[int, int]:
            return sum(self.evaluations.values()), len(self.evaluations)

    config = TutorConfig(name="stub", model=str(tokenizer), engine={"tokenizer": str(tokenizer)})
    stub = serve.deployment(Stub, name="Stub", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=64)
    gateway: Any = serve.deployment(
        TutorGateway, name="TutorGateway", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=64
    )
    environment = {HOME_VARIABLE: str(home)}
    serve.run(gateway.bind(config, stub.bind(), None, environment), name=APP, route_prefix=None)


def evaluations() -> tuple[int, int]:
    """Prompts that the stub evaluated, and how many of them were distinct."""
    from ray import serve

    counts: tuple[int, int] = serve.get_deployment_handle("Stub", APP).counted.remote().result(timeout_s=60)
    return counts


def pass_through_gateway(numbers: Sequence[int]) -> tuple[float, set[str]]:
    """States per second of a client whose own map is empty, and the sources of the answers."""
    from tutor_service.client import ClientSettings, TutorClient
    from tutor_service.client.serve_handle import ServeHandleBackend

    client = TutorClient(ServeHandleBackend(APP), ClientSettings(deadline_s=300))
    client.advise(requests_about([0]))  # connects
    asked = requests_about(numbers)
    started = time.perf_counter()
    answers = client.advise(asked)
    elapsed_s = time.perf_counter() - started
    return len(asked) / elapsed_s, {answer.source if answer else "none" for answer in answers}


def measure_gateway(benchmark: Benchmark, home: Path, tokenizer: Path, num_states: int, repetitions: int) -> None:
    from ray import serve

    numbers = range(1, num_states + 1)
    deploy(home, tokenizer)
    cold, _ = pass_through_gateway(numbers)
    serve.delete(APP)
    deploy(home, tokenizer)
    first, sources = pass_through_gateway(numbers)
    evaluated = evaluations()[0]
    if sources != {"store"} or evaluated:
        raise RuntimeError(f"the store was not warm: sources {sources}, {evaluated} evaluations after the restart")
    warm = alternate({"warm": lambda: pass_through_gateway(numbers)[0]}, repetitions)["warm"]
    benchmark.record("gateway_num_states", num_states)
    benchmark.record("gateway_cold_states_per_s", cold)
    benchmark.record("gateway_first_pass_after_restart_states_per_s", first)
    benchmark.record("gateway_states_per_s", warm)
    benchmark.check("gateway_states_per_s", median(warm), bar=10_000)


def measure_exactly_once(benchmark: Benchmark, num_states: int) -> None:
    """Every caller asks, in its own order and in lists of 16, for half of the states; each state has several askers."""
    from tutor_service.client import ClientSettings, TutorClient
    from tutor_service.client.serve_handle import ServeHandleBackend

    before = evaluations()[0]
    numbers = range(10**6, 10**6 + num_states)
    asked: set[int] = set()
    missed: list[int] = []
    ready = threading.Barrier(NUM_CALLERS)

    def call(caller: int) -> None:
        rng = random.Random(caller)
        mine = rng.sample(numbers, num_states // 2)
        asked.update(mine)
        client = TutorClient(ServeHandleBackend(APP), ClientSettings(deadline_s=300))
        ready.wait()
        for start in range(0, len(mine), 16):
            missed.append(client.advise(requests_about(mine[start : start + 16])).count(None))

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(NUM_CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    total, _ = evaluations()
    benchmark.record("exactly_once_distinct_states", len(asked))
    benchmark.record("exactly_once_requests", NUM_CALLERS * (num_states // 2))
    benchmark.record("exactly_once_evaluations", total - before)
    benchmark.check("evaluations_beyond_one_per_state", abs(total - before - len(asked)), 0, higher_is_better=False)
    benchmark.check("callers_without_advice", sum(missed), 0, higher_is_better=False)


def main() -> int:
    args = benchmark_parser(__doc__).parse_args()
    repetitions = sized(args, full=15, quick=3, smoke=1)
    num_states = sized(args, full=20_000, quick=2_000, smoke=200)
    benchmark = Benchmark("store")
    measure_local(benchmark, repetitions)

    import ray
    from ray import serve

    from tutor_service import embedded

    os.environ["RAY_SERVE_LOG_TO_STDERR"] = "0"
    tokenizer = embedded.prepare()
    with tempfile.TemporaryDirectory(prefix="store-benchmark-") as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )
        try:
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
            serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR", "enable_access_log": False})
            measure_gateway(benchmark, Path(folder), tokenizer, num_states, repetitions)
            measure_exactly_once(benchmark, sized(args, full=4_000, quick=400, smoke=64))
        finally:
            serve.shutdown()
            ray.shutdown()
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
