"""transformers' own answer to a prompt, and tiny models of other architectures to compare it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tutor_service.prompts.prompt import Prompt

RECREATED = Path(__file__).parent / "templates"
"""Chat formats whose own templates ship with models that a test has not got."""

SPECIAL = (
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
)
"""Control tokens of those formats."""

NOT_SPECIAL = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
"""Those that the models' own tokenizers do not call special."""


def make_checkpoint(architecture: str, tokenizer_folder: Path, folder: Path) -> Path:
    """A tiny model with random weights and SmolLM2's tokenizer, extended by other chat formats' control tokens."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in NOT_SPECIAL])
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


def distributions(folder: Path, prompts: Sequence[Prompt]) -> list[tuple[list[float], float]]:
    """Softmax over the labels after one plain forward pass, and their mass, for each prompt; float32, no cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            logits = model(torch.tensor([[*prompt.token_ids, *prompt.begun]])).logits[0, -1]
            labels = torch.tensor(prompt.label_token_ids)
            found.append((logits[labels].softmax(0).tolist(), float(logits.softmax(0)[labels].sum())))
    return found


def total_variation(one: Sequence[float], other: Sequence[float]) -> float:
    """Half the L1 distance of two distributions."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2
