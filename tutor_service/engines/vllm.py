"""Runs a tutor's model on vLLM inside a replica. Knows vLLM's engine; must not know Serve, the store or tasks.

The engine options of a tutor's YAML go to vLLM under vLLM's own names; only what is not set there gets a default here.
Requests with ``logprobs=k`` must never run beside those with ``logprob_token_ids``: vLLM 0.29 then mixes up answers.
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
from tutor_service.engines import models
from tutor_service.engines.base import EngineFacts
from tutor_service.engines.decode import scored
from tutor_service.engines.text import answer_in_text
from tutor_service.engines.thread import EngineThread
from tutor_service.errors import UserError
from tutor_service.prompts.prompt import BLOCK, Prompt
from tutor_service.schema import Advice, AdviceError

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

_STOP_S = 5.0

_KV_CACHE_BYTES_CPU = 512 * 2**20
_THINK_END = "</think>"
_SPEED_ONLY = frozenset(
    {
        *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes"),
        *("block_size", "enforce_eager", "enable_prefix_caching", "tensor_parallel_size", "pipeline_parallel_size"),
        *("cpu_offload_gb", "load_format", "disable_log_stats", "download_dir", "distributed_executor_backend"),
    }
)
"""Engine options that change how fast an answer comes but not what it says."""


def cpu_dtype(cpuinfo: str) -> str:
    """The quicker of bfloat16 and float32 on this processor; bfloat16 without hardware for it is about 5× slower."""
    flags = set(cpuinfo.split())
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"


def engine_options(config: TutorConfig, location: str, has_gpu: bool) -> dict[str, Any]:
    """Options for vLLM: defaults of the device under those of the tutor's YAML."""
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
    return defaults | config.engine


def identity(config: TutorConfig, location: str, dtype: str) -> str:
    """Everything beside the prompt that can change an answer, as canonical JSON."""
    fields: dict[str, Any] = {
        "model": models.fingerprint(location, config.revision),
        "dtype": dtype,
        "engine": {name: value for name, value in config.engine.items() if name not in _SPEED_ONLY},
        "decoding": config.decoding,
    }
    if config.decoding == "reasoned":
        fields["thinking_tokens"] = config.thinking_tokens
    if config.decoding == "text":
        fields |= {"text_attempts": config.text_attempts, "answer_tokens": config.answer_tokens}
    return json.dumps(fields, sort_keys=True, default=str)


def set_environment(location: str, has_gpu: bool) -> None:
    """Settings that vLLM reads from the environment; to be made before it is imported."""
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


class VllmEngine:
    """See ``engines.base.Engine``. vLLM's engine core lives in this process, and is stepped on a thread of its own."""

    def __init__(self, config: TutorConfig) -> None:
        self._config = config
        self._has_gpu = config.scaling.num_gpus > 0
        self._thread = EngineThread(self._make)
        self._location = ""
        self._tokenizer: Any = None

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
        self._tokenizer = engine.get_tokenizer()
        await self._warm_up()
        return EngineFacts(
            identity=identity(self._config, self._location, str(engine.model_config.dtype).removeprefix("torch.")),
            decoding=self._config.decoding,
            max_prompt_tokens=engine.model_config.max_model_len - self._room_for_answer(),
        )

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """See ``Engine``."""
        if self._config.decoding == "scored":
            logprobs = await self._score([(prompt.token_ids, prompt.label_token_ids) for prompt in prompts])
            return [scored(found, len(prompt.token_ids) + 1) for prompt, found in zip(prompts, logprobs, strict=True)]
        one = self._reasoned if self._config.decoding == "reasoned" else self._text
        return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))

    async def check_health(self) -> None:
        """See ``Engine``."""
        self._thread.check(self._config.scaling.hang_s)

    def spent(self) -> str:
        """See ``Engine``; what our own hardware does is not counted."""
        return ""

    def shutdown(self) -> None:
        """See ``Engine``."""
        self._thread.stop(_STOP_S)

    def _make(self) -> LLMEngine:
        """Makes the engine; on the thread that will step it."""
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
        from vllm.v1.executor import Executor

        vllm_config = EngineArgs(**engine_options(self._config, self._location, self._has_gpu)).create_engine_config()
        return LLMEngine(vllm_config, Executor.get_class(vllm_config), log_stats=False, multiprocess_mode=False)

    async def _reasoned(self, prompt: Prompt) -> Advice | AdviceError:
        """Thinks, then answers by one token on the thought's cached prefix; a thought that is too long is cut off."""
        from vllm import SamplingParams

        opening = () if self._ends_with_think(prompt.token_ids) else self._encode("<think>\n")
        asked = (*prompt.token_ids, *opening)
        thinking = SamplingParams(
            temperature=0.6, top_p=0.95, seed=0, max_tokens=self._config.thinking_tokens, stop=[_THINK_END]
        )  # the values that DeepSeek recommends; greedy thoughts repeat themselves. A seed keeps the answer a function
        (output,) = await self._thread.generate([(asked, thinking)])
        thought = output.outputs[0]
        tail = self._encode(f"{thought.text.rstrip()}\n{_THINK_END}\n\n")
        (logprobs,) = await self._score([((*asked, *tail), prompt.label_token_ids)])
        return scored(logprobs, len(asked) + len(thought.token_ids) + 1)

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
            (output,) = await self._thread.generate([(prompt.token_ids, sampling)])
            return output.outputs[0].text, len(output.outputs[0].token_ids)

        return await answer_in_text(generate, prompt.labels, self._config.text_attempts, len(prompt.token_ids))

    async def _score(self, questions: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Return the log-probability of each label, for pairs of prompt and label token ids."""
        outputs = await self._thread.generate([(prompt, _one_token(tuple(labels))) for prompt, labels in questions])
        return [
            [output.outputs[0].logprobs[0][label].logprob for label in labels]
            for (_, labels), output in zip(questions, outputs, strict=True)
        ]

    async def _warm_up(self) -> None:
        """Two prompts, the second on the first's prefix: the kernels of both paths are built before a caller waits."""
        for last in (1, 2):
            await self._score([((*range(3, 3 + 2 * BLOCK), last), (1, 2))])

    def _room_for_answer(self) -> int:
        thought = self._config.thinking_tokens + 2 * len(self._encode(f"<think>\n{_THINK_END}\n\n"))
        return {"scored": 1, "reasoned": 1 + thought, "text": self._config.answer_tokens}[self._config.decoding]

    def _ends_with_think(self, token_ids: Sequence[int]) -> bool:
        return bool(self._tokenizer.decode(list(token_ids[-8:])).rstrip().endswith("<think>"))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))


@functools.lru_cache(maxsize=1024)
def _one_token(labels: tuple[int, ...]) -> SamplingParams:
    """Sampling parameters that give the log-probability of every label in one forward pass."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        allowed_token_ids=list(labels),
        logprob_token_ids=list(labels),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
