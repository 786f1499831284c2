"""Run a tutor's model on vLLM inside a replica. Knows vLLM's engine; must not know Serve, the store or tasks.

The engine options of a tutor's YAML go to vLLM under vLLM's own names; only what is not set there gets a default here.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutor_service.config import TutorConfig
from tutor_service.engines import models, thinking
from tutor_service.engines.base import Engine, EngineFacts, Written
from tutor_service.engines.decode import answer_in_text, averaged
from tutor_service.engines.thinking import Thinking
from tutor_service.engines.thread import EngineThread
from tutor_service.errors import UserError
from tutor_service.prompts.prompt import BLOCK, Prompt
from tutor_service.schema import Advice, AdviceError

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

_STOP_S = 5.0
_BATCHED_TOKENS = 4096
"""Prompt tokens of one step where no prefill may be split: the longest prompt has to fit."""

_KV_CACHE_BYTES_CPU = 512 * 2**20
_SCORE, _WRITE = "score", "write"
"""Kinds of requests: the log-probabilities of given tokens, and text."""

_SPEED_ONLY = frozenset(
    {
        *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes"),
        *("block_size", "enforce_eager", "enable_prefix_caching", "tensor_parallel_size", "pipeline_parallel_size"),
        *("cpu_offload_gb", "load_format", "disable_log_stats", "download_dir", "distributed_executor_backend"),
    }
)
"""Engine options that change how fast an answer comes but not what it says."""


def cpu_dtype(cpuinfo: str) -> str:
    """Return the quicker of bfloat16 and float32 here: without hardware for it bfloat16 is about 5× slower."""
    flags = set(cpuinfo.split())
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"


def engine_options(config: TutorConfig, location: str, has_gpu: bool) -> dict[str, Any]:
    """Return options for vLLM: defaults of the device under those of the tutor's YAML."""
    defaults: dict[str, Any] = {
        "model": location,
        "revision": None if models.is_local(location) else config.revision,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if not has_gpu:
        defaults |= {
            "dtype": cpu_dtype(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")),
            "block_size": BLOCK,  # the CPU's own default is 128, and only full blocks of a prefix are reused
            "enforce_eager": True,  # compiling takes minutes and wins little on a CPU
            "kv_cache_memory_bytes": _KV_CACHE_BYTES_CPU,
            "max_num_seqs": 64,
        }
        if config.decoding != "scored":
            # vLLM winds a seeded generator back after part of a prefill, which a CPU's generator cannot do: it must
            # never split one.
            defaults["enable_chunked_prefill"] = False
            # An answer is a chain of tokens here: one that is rounded otherwise, as in bfloat16 by what else is in the
            # batch, changes all that follow.
            defaults["dtype"] = "float32"
            if config.engine.get("enable_chunked_prefill"):
                raise UserError(
                    f"tutor '{config.name}': engine.enable_chunked_prefill = true ends vLLM on a CPU with decoding = "
                    f"'{config.decoding}', whose samples are seeded. Leave it out."
                )
    return defaults | config.engine


def identity(config: TutorConfig, location: str, dtype: str) -> str:
    """Return everything beside the prompt that can change an answer, as canonical JSON."""
    fields: dict[str, Any] = {
        "model": models.fingerprint(location, config.revision),
        "dtype": dtype,
        "engine": {name: value for name, value in config.engine.items() if name not in _SPEED_ONLY},
        "decoding": config.decoding,
    }
    if config.decoding == "reasoned":
        fields |= {"thinking_tokens": config.thinking_tokens, "thoughts": config.thoughts, "cue": thinking.CUE}
    if config.decoding == "text":
        fields |= {"text_attempts": config.text_attempts, "answer_tokens": config.answer_tokens}
    return json.dumps(fields, sort_keys=True, default=str)


def set_environment(location: str, has_gpu: bool) -> None:
    """Set what vLLM reads from the environment, before it is imported."""
    # Set up by vLLM, logging would lose the handlers that Serve made: a new controller then cannot take replicas over.
    os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
    logging.getLogger("vllm").setLevel(logging.ERROR)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if models.is_local(location):
        os.environ["HF_HUB_OFFLINE"] = "1"
    if not has_gpu:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


class VllmEngine(Engine):
    """Run vLLM's engine core in this process, stepped on a thread of its own."""

    def __init__(self, config: TutorConfig) -> None:
        self._config = config
        self._has_gpu = config.scaling.num_gpus > 0
        self._thread = EngineThread(self._make)
        self._location = ""

    async def start(self) -> EngineFacts:
        """See ``Engine``."""
        self._location = await asyncio.to_thread(models.locate, self._config)
        set_environment(self._location, self._has_gpu)
        try:
            engine = await self._thread.start()
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            raise UserError(
                f"tutor '{self._config.name}': vLLM did not start with model '{self._location}': {_first_line(error)}. "
                "Check the fields model, revision and engine, and that its memory fits this machine."
            ) from error
        self._thinking = Thinking(engine.get_tokenizer())
        await self._warm_up()
        return EngineFacts(
            identity=identity(self._config, self._location, str(engine.model_config.dtype).removeprefix("torch.")),
            decoding=self._config.decoding,
            max_prompt_tokens=engine.model_config.max_model_len - self._room_for_answer(),
        )

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """See ``Engine``."""
        if self._config.decoding == "scored":
            logprobs = await self._score(
                [((*prompt.token_ids, *prompt.begun), prompt.label_token_ids) for prompt in prompts]
            )
            return [
                averaged([found], len(prompt.token_ids) + 1) for prompt, found in zip(prompts, logprobs, strict=True)
            ]
        if self._config.decoding == "reasoned":
            return await self._reasoned(prompts)
        return list(await asyncio.gather(*(self._text(prompt) for prompt in prompts)))

    async def write(self, prompt: Prompt, max_tokens: int) -> Written | AdviceError:
        """See ``Engine``."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        (output,) = await self._thread.generate([(prompt.token_ids, sampling)], _WRITE)
        completion = output.outputs[0]
        return Written(completion.text, whole=completion.finish_reason == "stop")

    async def check_health(self) -> None:
        """See ``Engine``."""
        self._thread.check(self._config.scaling.hang_s)

    def shutdown(self) -> None:
        """See ``Engine``."""
        self._thread.stop(_STOP_S)

    def _make(self) -> LLMEngine:
        """Make the engine, on the thread that will step it."""
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
        from vllm.v1.executor import Executor

        arguments = EngineArgs(**engine_options(self._config, self._location, self._has_gpu))
        if arguments.enable_chunked_prefill is False and arguments.max_num_batched_tokens is None:
            arguments.max_num_batched_tokens = max(_BATCHED_TOKENS, arguments.create_model_config().max_model_len)
        vllm_config = arguments.create_engine_config()
        return LLMEngine(vllm_config, Executor.get_class(vllm_config), log_stats=False, multiprocess_mode=False)

    async def _reasoned(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """Think, then answer by one token on each thought's cached prefix, averaged over the thoughts.

        All thoughts of a list end before the first is scored, so that the two kinds of requests stay apart.
        """
        from vllm import SamplingParams

        # Sampled by the values that DeepSeek recommends: greedy thoughts repeat themselves. Seeds keep the answer a
        # function of the prompt.
        samplings = [
            SamplingParams(
                temperature=0.6,
                top_p=0.95,
                seed=seed,
                max_tokens=self._config.thinking_tokens,
                **self._thinking.stop,
            )
            for seed in range(self._config.thoughts)
        ]
        asked = [self._thinking.opened(prompt.token_ids) for prompt in prompts]
        outputs = await self._thread.generate([(ids, sampling) for ids in asked for sampling in samplings], _WRITE)
        owners = [index for index in range(len(prompts)) for _ in samplings]
        thoughts = [self._thinking.ended(output.outputs[0]) for output in outputs]
        logprobs = await self._score(
            [
                ((*asked[owner], *thought.token_ids, *prompts[owner].begun), prompts[owner].label_token_ids)
                for owner, thought in zip(owners, thoughts, strict=True)
            ]
        )
        answers = []
        for index in range(len(prompts)):
            mine = slice(index * len(samplings), (index + 1) * len(samplings))
            generated = sum(len(thought.token_ids) + 1 for thought in thoughts[mine])
            text = "\n\n".join(thought.text for thought in thoughts[mine])
            answers.append(averaged(logprobs[mine], len(asked[index]) + generated, text))
        return answers

    async def _text(self, prompt: Prompt) -> Advice | AdviceError:
        from vllm import SamplingParams

        async def generate(attempt: int) -> tuple[str, int]:
            sampling = SamplingParams(
                temperature=1.0 if attempt else 0.0,
                seed=attempt,
                max_tokens=self._config.answer_tokens,
                stop=["</action>"],
                include_stop_str_in_output=True,
            )
            (output,) = await self._thread.generate([(prompt.token_ids, sampling)], _WRITE)
            return output.outputs[0].text, len(output.outputs[0].token_ids)

        return await answer_in_text(generate, prompt.labels, self._config.text_attempts, len(prompt.token_ids))

    async def _score(self, questions: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Return the log-probability of each label, for pairs of prompt and label token ids."""
        requests = [(prompt, _one_token(tuple(labels))) for prompt, labels in questions]
        outputs = await self._thread.generate(requests, _SCORE)
        return [
            [output.outputs[0].logprobs[0][label].logprob for label in labels]
            for (_, labels), output in zip(questions, outputs, strict=True)
        ]

    async def _warm_up(self) -> None:
        """Score two prompts, one on the other's prefix: the kernels of both paths are built before a caller waits."""
        for last in (1, 2):
            await self._score([((*range(3, 3 + 2 * BLOCK), last), (1, 2))])

    def _room_for_answer(self) -> int:
        thought = self._config.thinking_tokens + self._thinking.num_added
        return {"scored": 1, "reasoned": 1 + thought, "text": self._config.answer_tokens}[self._config.decoding]


@functools.lru_cache(maxsize=1024)
def _one_token(labels: tuple[int, ...]) -> SamplingParams:
    """Return sampling parameters that give the log-probability of every label in one forward pass.

    They restrict nothing: log-probabilities are taken before any mask, and vLLM 0.29 can leave the mask of a finished
    request on the row of the next one.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        logprob_token_ids=list(labels),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
