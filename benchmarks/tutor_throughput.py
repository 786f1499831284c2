"""Advice per second: our Serve path beside vLLM's offline engine, and our decoding beside the others.

Purpose: shows that the service costs little over the bare engine, that one decode token beats the other ways to read a
distribution, how near the model runs to the processor's arithmetic, and that a warm or shared state costs no model.

How to run: ``.venv/bin/python -m benchmarks.tutor_throughput [--quick]``, on a machine with nothing else running. Both
engines run on one thread. With a GPU, an 8B model with dummy weights is measured at batches 1 to 256 as well.

What to expect: a line per check and a JSON summary; on two CPU cores about ten minutes, with ``--quick`` about one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from benchmarks.harness import FOLDER, Benchmark, alternate, benchmark_parser, median, ratio
from tutor_service import paths
from tutor_service.config import TutorConfig
from tutor_service.schema import AdviceRequest
from tutor_service.tutor_files import load_tutor

MEASURES = ("tutor_service",)
BATCHES = (1, 8, 32)
GPU_BATCHES = (1, 8, 32, 128, 256)
RULES = (
    "You play Blackjack against a dealer. Cards 2 to 10 count their number, face cards 10, an ace 11 or, where that "
    "would exceed 21, 1. Whoever comes closer to 21 without exceeding it wins. 'hit' takes another card; 'stick' ends "
    "your turn, and the dealer then draws until reaching at least 17. You see one of the dealer's two cards. A win "
    "pays 1, a draw 0, a loss costs 1."
)
ACTIONS = ("stick", "hit")
NUMBERS = itertools.count()


def fresh(count: int) -> list[AdviceRequest]:
    """States that nobody has asked for yet, as long as Blackjack's."""
    return [
        AdviceRequest(
            RULES, f"Your cards: {n % 18 + 4} in all, no ace. The dealer shows {n % 10 + 1}. Hand {n}.", ACTIONS
        )
        for n in itertools.islice(NUMBERS, count)
    ]


@contextlib.contextmanager
def offline_engine(options: dict[str, Any], folder: Path) -> Iterator[Any]:
    """Starts the peer at once; the function that is given waits for it and passes commands on."""
    address = str(folder / "peer.sock")
    with Listener(address, "AF_UNIX") as listener:
        command = [sys.executable, "-P", str(FOLDER / "shared" / "offline_peer.py"), address, json.dumps(options)]
        process = subprocess.Popen(command, stdout=sys.stderr)
        connection: list[Connection] = []

        def call(*command: Any) -> Any:
            if not connection:
                connection.append(listener.accept())
                connection[0].recv()
            if command:
                connection[0].send(command)
                return connection[0].recv()
            return None

        try:
            yield call
        finally:
            for item in connection:
                item.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def service(tutor: TutorConfig, num_gpus: int) -> Iterator[Any]:
    """Our service; gives the application's handle."""
    import ray
    from ray import serve

    from tutor_service import serving
    from tutor_service.client import app_name

    ray.init(
        address="local", include_dashboard=False, num_cpus=2, num_gpus=num_gpus, log_to_driver=False,
        logging_level=logging.ERROR, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    try:
        serving.deploy([tutor])
        yield serve.get_app_handle(app_name(tutor.name))
    finally:
        ray.shutdown()


class Comparison:
    """Both engines on the same kind of prompts, each set of states fresh to both.

    Args:
        handle: Our application.
        peer: Commands for the offline engine.
        tokenizer: The model's; the prompts are the very ones that our gateway makes.
    """

    def __init__(self, handle: Any, peer: Any, tokenizer: Any) -> None:
        from tutor_service.prompts.chat import ChatPrompts

        self._handle = handle
        self._peer = peer
        self._builders = {"scored": ChatPrompts(tokenizer, "scored"), "text": ChatPrompts(tokenizer, "text")}

    def ours(self, batch: int, calls: int) -> float:
        """Advice per second through the Serve handle, ``batch`` states per call."""
        lists = [fresh(batch) for _ in range(calls)]
        started = time.perf_counter()
        for requests in lists:
            answers = self._handle.advise.remote(requests).result(timeout_s=600)
            assert all(answer.source == "model" for answer in answers)
        return batch * calls / (time.perf_counter() - started)

    def offline(self, method: str, batch: int, calls: int) -> float:
        """States per second of the offline engine."""
        decoding = "text" if method.startswith("text") else "scored"
        seconds = sum(self._peer(method, self.prompts(batch, decoding)) for _ in range(calls))
        return batch * calls / seconds

    def in_turn(self, batch: int, calls: int, rounds: int) -> dict[str, list[float]]:
        """Advice per second of both, round by round."""
        engines = {
            "serve": lambda: self.ours(batch, calls),
            "offline": lambda: self.offline("scored", batch, calls),
        }
        return alternate(engines, rounds)

    def prompts(self, count: int, decoding: str = "scored") -> list[tuple[list[int], list[int], list[str]]]:
        """Fresh states as token ids, with the question that the decoding asks."""
        built = [self._builders[decoding].build(request) for request in fresh(count)]
        return [(list(item.token_ids), list(item.label_token_ids), list(item.labels)) for item in built]

    def uncached_tokens(self) -> float:
        """Tokens per prompt behind the blocks that all share."""
        from tutor_service.prompts.prompt import BLOCK, prefix_length

        built = [self._builders["scored"].build(request) for request in fresh(16)]
        cached = prefix_length(built) // BLOCK * BLOCK
        return sum(len(item.token_ids) - cached for item in built) / len(built)


def compare_paths(benchmark: Benchmark, both: Comparison, seconds: float, rounds: int) -> float:
    """Records our path beside the offline engine for each batch size; returns our rate at the largest."""
    rate = 0.0
    for batch in BATCHES:
        calls = max(1, round(seconds * both.ours(batch, 1) / batch))
        rates = both.in_turn(batch, calls, rounds)
        benchmark.record(f"advice_per_s_batch_{batch}", rates)
        share = ratio(rates["serve"], rates["offline"])
        benchmark.check(f"serve_over_offline_batch_{batch}", share, 0.95 if batch >= 8 else 0.85)
        rate = median(rates["serve"])
    return rate


def compare_decodings(benchmark: Benchmark, both: Comparison, rounds: int) -> None:
    """Ways to an answer, on one and the same engine, 8 states at a time.

    ``text`` is text decoding as a tutor does it, asked again where no legal action is named. ``text_once``, a single
    answer of at most 16 tokens, is recorded beside it: what a model that always obeys the format would cost at most.
    """
    calls = {"scored": 4, "grammar": 4, "text": 1, "text_once": 1, "full_label": 1}
    rates = alternate(
        {method: lambda method=method: both.offline(method, 8, calls[method]) for method in calls}, rounds
    )
    benchmark.record("states_per_s_by_decoding", rates)
    for method, bar in (("full_label", 5.0), ("grammar", 1.1), ("text", 4.0)):
        benchmark.check(f"scored_over_{method}", ratio(rates["scored"], rates[method]), bar)


def arithmetic_share(benchmark: Benchmark, both: Comparison, peer: Any, rate: float, model: str) -> None:
    """Our rate as a share of what the processor's matrix products would allow."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    head_dim = config.hidden_size // config.num_attention_heads
    attention = config.hidden_size * head_dim * 2 * (config.num_attention_heads + config.num_key_value_heads)
    weights = config.num_hidden_layers * (attention + 3 * config.hidden_size * config.intermediate_size)
    tokens = both.uncached_tokens()
    flops = 2 * (weights * tokens + config.hidden_size * config.vocab_size)
    gemm = median([peer("gemm_flops") for _ in range(5)])
    benchmark.record("arithmetic", {"gemm_flops": gemm, "uncached_tokens": tokens, "flops_per_advice": flops})
    benchmark.check("share_of_arithmetic_limit", rate * flops / gemm, 0.65)


def warm_rates(benchmark: Benchmark, handle: Any, tutor: TutorConfig, rounds: int) -> None:
    """States that are known: through the client's own map, and through the gateway."""
    from tutor_service.client import connect

    requests = fresh(64)
    client = connect(tutor, deadline_s=600)
    assert None not in client.advise(requests)

    def local() -> float:
        started = time.perf_counter()
        for _ in range(300):
            client.advise(requests)
        return 300 * len(requests) / (time.perf_counter() - started)

    def gateway() -> float:
        started = time.perf_counter()
        for _ in range(10):
            handle.advise.remote(requests * 8).result(timeout_s=600)
        return 80 * len(requests) / (time.perf_counter() - started)

    rates = alternate({"local": local, "gateway": gateway}, rounds)
    benchmark.record("warm_states_per_s", rates)
    benchmark.check("warm_states_per_s_local_map", median(rates["local"]), 200_000)
    benchmark.check("warm_states_per_s_gateway", median(rates["gateway"]), 10_000)


def eight_callers(benchmark: Benchmark, handle: Any, tutor: TutorConfig, states: int) -> None:
    """Eight clients at once ask overlapping sets of states."""
    from tutor_service.client import connect

    pool = fresh(states)
    draw = random.Random(0)
    sets = [draw.sample(pool, states // 2) for _ in range(8)]
    before = handle.stats.remote().result().answered.get("model", 0)
    callers = [
        threading.Thread(target=lambda requests=requests: connect(tutor, deadline_s=600).advise(requests))
        for requests in sets
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    evaluated = handle.stats.remote().result().answered.get("model", 0) - before
    distinct = len({request for requests in sets for request in requests})
    benchmark.record("eight_callers", {"asked": 8 * (states // 2), "distinct": distinct, "evaluated": evaluated})
    benchmark.check("evaluations_per_distinct_state", evaluated / distinct, 1.0, higher_is_better=False)


def on_gpu(benchmark: Benchmark, scratch: Path, model: str, quick: bool) -> None:
    """An 8B Llama with dummy weights on one GPU, both engines sharing it."""
    import torch

    if not torch.cuda.is_available():
        benchmark.record("gpu", "unmeasured: no CUDA device on this machine")
        return
    from transformers import AutoTokenizer, LlamaConfig

    folder = scratch / "llama-8b"
    tokenizer = AutoTokenizer.from_pretrained(model)
    LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192, rope_theta=500000.0, architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    options = {"load_format": "dummy", "max_model_len": 2048, "gpu_memory_utilization": 0.4, "max_num_seqs": 256}
    tutor = TutorConfig(
        name="llama-8b-dummy", model=str(folder), engine=options,
        scaling={"num_gpus": 0.5, "target_ongoing_requests": 128},
    )  # fmt: skip
    peer_options = {**options, "model": str(folder), "disable_log_stats": True}
    with service(tutor, num_gpus=1) as handle, offline_engine(peer_options, scratch) as peer:
        peer()
        both = Comparison(handle, peer, tokenizer)
        rates = {}
        for batch in GPU_BATCHES:
            rates[batch] = both.in_turn(batch, 5 if quick else 30, 2 if quick else 5)
        benchmark.record("gpu", {"model": "Llama 8B, dummy weights, bfloat16", "advice_per_s": rates})


def main() -> int:
    """Entry point; returns the exit status."""
    args = benchmark_parser(__doc__).parse_args()
    from tutor_service import embedded
    from tutor_service.engines.vllm import engine_options, set_environment

    benchmark = Benchmark("tutor_throughput")
    model = str(embedded.prepare())
    tutor = load_tutor("smollm2")
    os.environ.update(RAY_worker_niceness="0")  # the peer's processes are not nice either
    os.environ["OMP_NUM_THREADS"] = "1"
    set_environment(model, has_gpu=False)
    with tempfile.TemporaryDirectory(prefix="tutor-throughput-") as name:
        scratch = Path(name)
        (scratch / "home").mkdir()
        (scratch / "home" / "models").symlink_to(paths.models_dir())
        os.environ[paths.HOME_VARIABLE] = str(scratch / "home")
        peer_options = engine_options(tutor, model, has_gpu=False)
        with offline_engine(peer_options, scratch) as peer, service(tutor, num_gpus=0) as handle:
            from transformers import AutoTokenizer

            peer()
            both = Comparison(handle, peer, AutoTokenizer.from_pretrained(model))
            seconds, rounds = (0.5, 2) if args.quick else (4.0, 7)
            rate = compare_paths(benchmark, both, seconds, rounds)
            arithmetic_share(benchmark, both, peer, rate, model)
            compare_decodings(benchmark, both, 1 if args.quick else 5)
            warm_rates(benchmark, handle, tutor, 2 if args.quick else 7)
            eight_callers(benchmark, handle, tutor, 32 if args.quick else 400)
        on_gpu(benchmark, scratch, model, args.quick)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
