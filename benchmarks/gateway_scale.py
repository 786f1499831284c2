"""A gateway before many replicas: cold states per second, what is late under overload, and what is evaluated twice.

Purpose: shows that a gateway does not slow down as replicas are added, that replicas which may be started but do not
live yet cost nobody an answer, and that one state is evaluated once. The gateway, its prompts by a real tokenizer and
its store on disk are the service's own, and so are the limits that follow from a tutor's file; stand-ins answer in
place of replicas, and callers call the gateway without Serve between.

* ``states_per_s``: 64 callers with lists of 32 new states, replicas that answer at once: all time is the gateway's.
* ``answers_in_time``: 64 callers with a list of 32 states each and a deadline in which one replica answers a quarter of
  them; the tutor may have 8 replicas and has 1, beside one that may have 1.
* ``states_per_s_of_gateways``: the first figure over 1, 2 and 4 gateways, each in a process of its own as on Serve,
  that divide every list by the hash of its states and keep answers in one store. By wall time they need a core each:
  that figure is judged only on a machine with a core per gateway and one to spare (not on fewer than 5), and the result
  says how many there were.
* ``states_per_process_s_of_gateways``: the same runs by the processor time of the gateway's process that took most of
  it, its threads included: what the busiest gateway would allow with a core of its own. This is judged on any machine.
* ``same_state``: 8 callers at once ask for the same new state, through one gateway and through two on one store.

How to run: ``.venv/bin/python -m benchmarks.gateway_scale [--quick]``, on a machine with nothing else running. It needs
what ``make setup`` installs.

What to expect: a line per check and a JSON summary, after about four minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Benchmark, alternate, benchmark_parser, median, ratio, sized
from tutor_service import machine
from tutor_service.config import TutorConfig
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.sharding import split

MEASURES = (
    "tutor_service/gateway",
    "tutor_service/prompts",
    "tutor_service/serving/scaling.py",
    "tutor_service/sharding.py",
    "tutor_service/store",
)
REPLICAS = (1, 8, 32, 100)
GATEWAYS = (1, 2, 4)
NUM_CALLERS = 64
LIST = 32
RULES = (
    "You play Blackjack against a dealer. Number cards count their number, face cards 10, an ace 11 or 1. Get closer "
    "to 21 than the dealer without going over. hit: draw a card. stick: stop."
)
NUMBERS = itertools.count()


def fresh(count: int) -> list[AdviceRequest]:
    """States that nobody has asked for yet."""
    return list(map(state, itertools.islice(NUMBERS, count)))


def state(number: int) -> AdviceRequest:
    """One state of many."""
    text = f"Hand {number}: your total is {number % 18 + 4}. The dealer shows {number % 10 + 1}."
    return AdviceRequest(RULES, text, ("stick", "hit"))


class StandIns:
    """Replicas that take the same time for every prompt and answer one call after the other, as an engine does.

    Args:
        num_live: How many there are; a call goes to the one with the fewest prompts, as Serve would send it.
        prompt_s: Seconds per prompt.
        advice: Makes an answer.
    """

    def __init__(self, num_live: int, prompt_s: float, advice: Callable[[], Advice]) -> None:
        self.evaluations: Counter[tuple[int, ...]] = Counter()
        self._prompt_s = prompt_s
        self._advice = advice
        self._turns = [asyncio.Lock() for _ in range(num_live)]
        self._loads = [0] * num_live

    async def __call__(self, prompts: list[Any]) -> Sequence[Advice | AdviceError]:
        """Evaluate one call's prompts."""
        replica = self._loads.index(min(self._loads))
        self._loads[replica] += len(prompts)
        try:
            async with self._turns[replica]:
                await asyncio.sleep(len(prompts) * self._prompt_s)
        finally:
            self._loads[replica] -= len(prompts)
        self.evaluations.update(prompt.token_ids for prompt in prompts)
        return [self._advice() for _ in prompts]


class Gateways:
    """Makes gateways of the embedded tutor as its Serve application does."""

    def __init__(self) -> None:
        from tutor_service import embedded
        from tutor_service.serving.prompting import load_tokenizer

        self._model = str(embedded.prepare())
        self._tokenizer = load_tokenizer(self._config(1))

    def _config(self, max_replicas: int, num_gateways: int = 1) -> TutorConfig:
        scaling = {"max_replicas": max_replicas, "gateways": num_gateways}
        return TutorConfig.model_validate({"name": "stand-in", "model": self._model, "scaling": scaling})

    @contextlib.contextmanager
    def open(
        self, folder: str, replicas: StandIns, num_live: int, max_replicas: int, num_gateways: int = 1
    ) -> Iterator[Any]:
        """A gateway, of so many, with a store in ``folder``, before replicas of which ``num_live`` live."""
        from tutor_service.engines.base import EngineFacts, Written
        from tutor_service.gateway.briefing import Briefing
        from tutor_service.gateway.gateway import Gateway
        from tutor_service.gateway.metrics import GatewayMetrics
        from tutor_service.prompts.chat import ChatPrompts
        from tutor_service.prompts.prompt import Prompt
        from tutor_service.serving.scaling import gateway_settings
        from tutor_service.store.best_effort import BestEffortStore

        async def write(prompt: Prompt, max_tokens: int) -> Written | AdviceError:
            raise NotImplementedError("this tutor is not briefed")

        facts = EngineFacts(identity="stand-in", decoding="scored", max_prompt_tokens=4096)
        metrics = GatewayMetrics("stand-in")
        store = BestEffortStore(Path(folder), metrics.store_failed)
        builder = ChatPrompts(self._tokenizer, "scored")
        briefing = Briefing("none", 0, facts.identity, builder, write, store)
        settings = gateway_settings(self._config(max_replicas, num_gateways), facts)
        gateway = Gateway(settings, builder, briefing, replicas, store, metrics)
        gateway.set_replicas(num_live)
        try:
            yield gateway
        finally:
            store.close()


def one_answer() -> Advice:
    """The same advice on every state."""
    return Advice((0.25, 0.75), 0.9, tokens=90)


async def answer_all(gateway: Any, asked: list[list[list[AdviceRequest]]]) -> int:
    """Have the model answer each caller's lists, one after the other and all callers at once; count the answers."""

    async def call(lists: list[list[AdviceRequest]]) -> int:
        answered = 0
        for requests in lists:
            answers = await gateway.advise(requests)
            assert all(answer.source == "model" for answer in answers)
            answered += len(answers)
        return answered

    return sum(await asyncio.gather(*map(call, asked)))


def states_per_s(gateways: Gateways, num_live: int, lists: int) -> float:
    """Cold states per second through one gateway, ``lists`` lists per caller."""
    asked = [[fresh(LIST) for _ in range(lists)] for _ in range(NUM_CALLERS)]

    async def measure(folder: str) -> float:
        replicas = StandIns(num_live, 0.0, one_answer)
        with gateways.open(folder, replicas, num_live, max_replicas=num_live) as gateway:
            started = time.perf_counter()
            answered = await answer_all(gateway, asked)
            return answered / (time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(folder))


class Share(NamedTuple):
    """What one of several gateways did of a measurement.

    Attributes:
        started, ended: By the monotonic clock.
        process_s: Processor time of its process, threads included.
        answered: States.
    """

    started: float
    ended: float
    process_s: float
    answered: int


class Shards:
    """Gateways of one tutor in processes of their own, over one store.

    Args:
        num_gateways: How many.
        folder: Of the store.
    """

    def __init__(self, num_gateways: int, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        self.per_process_s: list[float] = []
        for number in range(num_gateways):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve_shard, args=(theirs, number, num_gateways, folder), daemon=True)
            process.start()
            theirs.close()  # so that the end of the process is seen
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            assert pipe.recv() == "ready"

    def states_per_s(self, lists: int) -> float:
        """Cold states per second over all gateways, ``lists`` lists per caller.

        By the processor time of the busiest gateway's process the same figure is added to ``per_process_s``.
        """
        count = NUM_CALLERS * LIST * lists
        first = next(NUMBERS)
        for _ in itertools.islice(NUMBERS, count - 1):
            pass
        for pipe in self._pipes:
            pipe.send((first, lists))
        for pipe in self._pipes:
            assert pipe.recv() == "has its lists"
        for pipe in self._pipes:
            pipe.send("go")
        shares: list[Share] = [pipe.recv() for pipe in self._pipes]
        assert sum(share.answered for share in shares) == count
        self.per_process_s.append(count / max(share.process_s for share in shares))
        return count / (max(share.ended for share in shares) - min(share.started for share in shares))

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()


def serve_shard(pipe: Any, number: int, num_gateways: int, folder: str) -> None:
    """Be one of several gateways, with its share of every caller's lists; a process of its own runs it.

    A caller's lists wait for one another at each gateway alone: that of a real one waits for the slowest gateway.
    """
    gateways = Gateways()
    replicas = StandIns(REPLICAS[-1], 0.0, one_answer)

    async def measure(mine: list[list[list[AdviceRequest]]]) -> Share:
        with gateways.open(folder, replicas, REPLICAS[-1], REPLICAS[-1], num_gateways) as gateway:
            pipe.send("has its lists")
            assert pipe.recv() == "go"
            started, process_s = time.monotonic(), time.process_time()
            answered = await answer_all(gateway, mine)
            return Share(started, time.monotonic(), time.process_time() - process_s, answered)

    pipe.send("ready")
    while (command := pipe.recv()) is not None:
        first, lists = command
        numbers = itertools.count(first)
        mine = []
        for _ in range(NUM_CALLERS):
            asked = [list(map(state, itertools.islice(numbers, LIST))) for _ in range(lists)]
            mine.append([[one[place] for place in split(one, num_gateways).get(number, [])] for one in asked])
        pipe.send(asyncio.run(measure(mine)))


def measure_gateways(benchmark: Benchmark, lists: int, repetitions: int) -> None:
    """Measure over 1, 2 and 4 gateways; hold the wall time against its bar where there is a core for each."""
    with contextlib.ExitStack() as stack:
        opened = {}
        for number in GATEWAYS:
            shards = opened[str(number)] = Shards(number, stack.enter_context(tempfile.TemporaryDirectory()))
            stack.callback(shards.close)
        rates = alternate(
            {number: lambda shards=shards: shards.states_per_s(lists) for number, shards in opened.items()}, repetitions
        )
    per_process = {number: shards.per_process_s[-repetitions:] for number, shards in opened.items()}
    benchmark.record("states_per_process_s_of_gateways", per_process)
    kept = ratio(per_process["4"], per_process["1"])
    benchmark.check("rate_of_4_gateways_over_rate_of_1_by_the_busiest_ones_process_time", kept, bar=3)
    benchmark.record("states_per_s_of_gateways", rates)
    cores, needed = machine.available_cores(), GATEWAYS[-1] + 1
    benchmark.record("cores_for_gateways", {"there": cores, "needed": needed})
    if cores >= needed:
        benchmark.check("rate_of_4_gateways_over_rate_of_1_by_wall_time", ratio(rates["4"], rates["1"]), bar=3)
        return
    shown = ", ".join(f"{number}: {median(figures):,.0f}" for number, figures in rates.items())
    print(f"     states per second by gateways, not judged on {cores} cores ({needed} are needed): {shown}", flush=True)


def answers_in_time(gateways: Gateways, max_replicas: int, deadline_s: float) -> float:
    """Answers within the deadline where one replica lives and 64 callers ask for four times what it can do."""
    asked = [fresh(LIST) for _ in range(NUM_CALLERS)]

    async def measure(folder: str) -> float:
        replicas = StandIns(1, 4 * deadline_s / (NUM_CALLERS * LIST), one_answer)
        with gateways.open(folder, replicas, num_live=1, max_replicas=max_replicas) as gateway:
            lists = await asyncio.gather(*(gateway.advise(requests, deadline_s) for requests in asked))
            return float(sum(isinstance(answer, Advice) for answers in lists for answer in answers))

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(folder))


def same_state(gateways: Gateways, num_gateways: int) -> tuple[int, int]:
    """Evaluations of one state that 8 callers ask for at once, and different answers that they get."""
    (asked,) = fresh(1)
    dice = random.Random(0)

    def another_answer() -> Advice:
        first = dice.random()
        return Advice((first, 1.0 - first), 0.9, tokens=90)

    async def measure(folder: str) -> tuple[int, int]:
        replicas = StandIns(8, 0.02, another_answer)
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(gateways.open(folder, replicas, 8, 8)) for _ in range(num_gateways)]
            lists = await asyncio.gather(*(opened[caller % num_gateways].advise([asked]) for caller in range(8)))
        return replicas.evaluations.total(), len({answer.probabilities for (answer,) in lists})

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(folder))


def main() -> int:
    """Measure, and hold the figures against their bars."""
    args = benchmark_parser(__doc__).parse_args()
    repetitions = sized(args, full=7, quick=2, smoke=1)
    lists = sized(args, full=8, quick=3, smoke=1)
    deadline_s = sized(args, full=6.0, quick=2.0, smoke=2.0)
    benchmark = Benchmark("gateway_scale")
    gateways = Gateways()

    rates = alternate(
        {str(number): lambda number=number: states_per_s(gateways, number, lists) for number in REPLICAS}, repetitions
    )
    benchmark.record("states_per_s", rates)
    medians = [median(rates[str(number)]) for number in REPLICAS]
    benchmark.check("least_states_per_s", min(medians), bar=6_000)
    kept = [ratio(rates[str(more)], rates[str(fewer)]) for fewer, more in itertools.combinations(REPLICAS, 2)]
    benchmark.check("rate_with_more_replicas_over_rate_with_fewer", min(kept), bar=0.95)

    in_time = alternate(
        {
            "1_of_8": lambda: answers_in_time(gateways, 8, deadline_s),
            "1_of_1": lambda: answers_in_time(gateways, 1, deadline_s),
        },
        sized(args, full=3, quick=1, smoke=1),
        warm_ups=0,
    )
    benchmark.record("answers_in_time", in_time)
    benchmark.check("in_time_1_of_8_over_1_of_1", ratio(in_time["1_of_8"], in_time["1_of_1"]), bar=0.9)
    possible = NUM_CALLERS * LIST / 4
    benchmark.check("in_time_share_of_what_one_replica_can_do", median(in_time["1_of_8"]) / possible, bar=0.8)

    measure_gateways(benchmark, lists, sized(args, full=5, quick=2, smoke=1))

    evaluations, _ = same_state(gateways, num_gateways=1)
    benchmark.check("evaluations_of_one_state_for_8_callers", evaluations, bar=1, higher_is_better=False)
    _, answers = same_state(gateways, num_gateways=2)
    benchmark.check("answers_on_one_state_of_two_gateways", answers, bar=1, higher_is_better=False)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
