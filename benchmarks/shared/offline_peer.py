"""The peer of ``tutor_throughput``: vLLM's offline ``LLM``, in a process of its own that measures on command.

Knows vLLM and token ids; of our service only how an answer in words is read. Run as
``python offline_peer.py SOCKET OPTIONS``: it connects to the socket, starts the engine, and then answers each command
with seconds or a figure.
"""

from __future__ import annotations

import json
import os
import sys
import time
from multiprocessing.connection import Client
from typing import Any

TEXT_ATTEMPTS = 3
ANSWER_TOKENS = 64

Prompts = list[tuple[list[int], list[int], list[str]]]
"""Per prompt: its token ids, its label token ids, its labels."""


class Peer:
    """An offline engine and the ways to get an answer out of it.

    Args:
        options: vLLM's engine options.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**options)
        self._outputs: list[Any] = []
        self._tokenizer = self._llm.get_tokenizer()

    def scored(self, prompts: Prompts) -> float:
        """One token, the log-probabilities of all labels: our own decoding."""
        from vllm import SamplingParams

        sampling = [
            SamplingParams(temperature=0, max_tokens=1, allowed_token_ids=ids, logprob_token_ids=ids, detokenize=False)
            for _, ids, _ in prompts
        ]
        return self._generate([ids for ids, _, _ in prompts], sampling)

    def full_label(self, prompts: Prompts) -> float:
        """The log-probability of every label's text after the prompt, one sequence per label."""
        from vllm import SamplingParams

        inputs = [
            [*ids, *self._tokenizer.encode(label, add_special_tokens=False)]
            for ids, _, labels in prompts
            for label in labels
        ]
        sampling = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        return self._generate(inputs, [sampling] * len(inputs))

    def grammar(self, prompts: Prompts) -> float:
        """Free decoding that a grammar keeps to the labels."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        sampling = [
            SamplingParams(temperature=0, max_tokens=8, structured_outputs=StructuredOutputsParams(choice=labels))
            for _, _, labels in prompts
        ]
        return self._generate([ids for ids, _, _ in prompts], sampling)

    def text(self, prompts: Prompts) -> float:
        """Free text in tags, asked again while it names no legal action: the tutor's own text decoding, all at once."""
        from vllm import SamplingParams

        from tutor_service.engines.decode import parse_action

        left, seconds = prompts, 0.0
        for attempt in range(TEXT_ATTEMPTS):
            sampling = SamplingParams(
                temperature=1.0 if attempt else 0.0, seed=attempt, max_tokens=ANSWER_TOKENS, stop=["</action>"],
                include_stop_str_in_output=True,
            )  # fmt: skip
            seconds += self._generate([ids for ids, _, _ in left], [sampling] * len(left))
            answers = [output.outputs[0].text for output in self._outputs]
            left = [
                prompt for prompt, answer in zip(left, answers, strict=True) if parse_action(answer, prompt[2]) is None
            ]
            if not left:
                break
        return seconds

    def text_once(self, prompts: Prompts) -> float:
        """One free answer of at most 16 tokens, whatever it says."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=16, stop=["</action>"])
        return self._generate([ids for ids, _, _ in prompts], [sampling] * len(prompts))

    def gemm_flops(self) -> float:
        """Floating-point operations per second of a large matrix product, in the model's type, on these threads."""
        import torch

        config = self._llm.llm_engine.vllm_config.model_config
        size, repetitions = 1024, 10
        one = torch.randn(size, size).to(config.dtype)
        layer = torch.nn.Linear(size, size, bias=False).to(config.dtype)
        with torch.inference_mode():
            layer(one)
            started = time.perf_counter()
            for _ in range(repetitions):
                layer(one)
            return 2 * size**3 * repetitions / (time.perf_counter() - started)

    def _generate(self, inputs: list[list[int]], sampling: list[Any]) -> float:
        """Seconds for all of them."""
        from vllm import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in inputs]
        started = time.perf_counter()
        self._outputs = self._llm.generate(prompts, sampling, use_tqdm=False)
        return time.perf_counter() - started


def main() -> None:
    """Serves commands until the connection closes."""
    address, options = sys.argv[1], json.loads(sys.argv[2])
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with Client(address, "AF_UNIX") as connection:
        peer = Peer(options)
        connection.send("ready")
        while True:
            try:
                method, *arguments = connection.recv()
            except EOFError:
                os._exit(0)  # at a normal exit the engine's libraries report their leaks, at length
            connection.send(getattr(peer, method)(*arguments))


if __name__ == "__main__":
    main()
