"""transformers' own answer to a prompt: the softmax over the label tokens after one plain forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tutor_service.prompt import Prompt


def distributions(folder: Path, prompts: Sequence[Prompt]) -> list[tuple[list[float], float]]:
    """Distribution over the labels, and their mass, for each prompt; float32, no cache, no batching."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            logits = model(torch.tensor([prompt.token_ids])).logits[0, -1]
            labels = torch.tensor(prompt.label_token_ids)
            found.append((logits[labels].softmax(0).tolist(), float(logits.softmax(0)[labels].sum())))
    return found


def total_variation(one: Sequence[float], other: Sequence[float]) -> float:
    """Half the L1 distance of two distributions."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2
