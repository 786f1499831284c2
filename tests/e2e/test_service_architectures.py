"""Random weights of other architectures: the distribution is the model's, whatever the model and the template."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.reference import distributions, total_variation
from tutor_service.config import TutorConfig
from tutor_service.engines.vllm import VllmEngine
from tutor_service.prompt import ChatPrompts, read_template
from tutor_service.schema import AdviceRequest


def make_checkpoint(architecture: str, tokenizer_folder: Path, folder: Path) -> Path:
    """A tiny model with random weights and SmolLM2's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
    }
    config, kind = {
        "llama": (LlamaConfig(**sizes), LlamaForCausalLM),
        "qwen2": (Qwen2Config(**sizes), Qwen2ForCausalLM),
    }[architecture]
    torch.manual_seed(0)
    kind(config).to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
async def test_scored_distributions_equal_those_of_transformers(architecture: str, model_folder: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    folder = make_checkpoint(architecture, model_folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = []
    for template in (None, read_template("vicuna")):
        builder = ChatPrompts(tokenizer, "scored", template)
        for number in range(4):
            prompts.append(builder.build(AdviceRequest("Some rules.", f"State {number}.", ("stick", "hit"))))
            prompts.append(
                builder.build(AdviceRequest("Some rules.", f"State {number}.", ("go up", "go down", "wait")))
            )
    engine = VllmEngine(TutorConfig(name="tiny", model=str(folder), engine={"dtype": "float32", "max_model_len": 512}))
    try:
        await engine.start()
        answers = await engine.evaluate(prompts)
    finally:
        engine.shutdown()
    spread = set()
    for answer, (expected, mass) in zip(answers, distributions(folder, prompts), strict=True):
        assert total_variation(answer.probabilities, expected) < 1e-3
        assert answer.legal_mass == pytest.approx(mass, rel=1e-2, abs=1e-6)
        spread.add(round(answer.probabilities[0], 3))
    assert len(spread) > len(prompts) // 2, "random weights that always say the same prove nothing"
