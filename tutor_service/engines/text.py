"""Read free-text answers, and ask again while one names no legal action. Knows no engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tutor_service.engines.decode import one_hot, parse_action
from tutor_service.schema import Advice, AdviceError


async def answer_in_text(
    generate: Callable[[int], Awaitable[tuple[str, int]]], labels: Sequence[str], attempts: int, prompt_tokens: int
) -> Advice | AdviceError:
    """Return the action that the first parsable answer names, as a distribution with all its probability on it.

    Args:
        generate: Attempt number to the answer's text and its number of tokens. Attempt 0 is the likeliest answer, later
            ones are seeded samples, so that the whole stays a function of the prompt.
        labels: What may be answered.
        attempts: Most answers asked for; after that it is a miss.
        prompt_tokens: Tokens of the prompt, for the count.
    """
    tokens = prompt_tokens
    for attempt in range(attempts):
        text, generated = await generate(attempt)
        tokens += generated
        index = parse_action(text, labels)
        if index is not None:
            return Advice(one_hot(index, len(labels)), 1.0, invalid=attempt, tokens=tokens)
    return AdviceError(f"answer: {attempts} answers named no legal action", invalid=attempts, tokens=tokens)
