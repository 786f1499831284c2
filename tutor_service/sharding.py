"""Say which of a tutor's gateways answers a question: arithmetic that clients and gateways share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tutor_service.schema import AdviceRequest

GATEWAY = "TutorGateway"
"""Name of the first gateway's deployment, the ingress of a tutor's application."""


def deployment_name(number: int) -> str:
    """Return the name of a gateway's deployment, by its number from 0."""
    return f"{GATEWAY}-{number}" if number else GATEWAY


def is_gateway(deployment: str) -> bool:
    """Return whether a deployment of a tutor's application is one of its gateways."""
    return deployment == GATEWAY or deployment.startswith(f"{GATEWAY}-")


def gateway_of(text: str, num_gateways: int) -> int:
    """Return the number of the gateway that answers for a text: the state of a question, in words.

    It depends neither on the process nor on the machine. White space around a text is no part of the prompt, and so
    not of the choice; rules and labels are not either, so that questions of one prompt never meet two gateways.

    >>> gateway_of("You hold 19.", 4) == gateway_of(" You hold 19.", 4)
    True
    """
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_gateways


def split(requests: Sequence[AdviceRequest], num_gateways: int) -> dict[int, list[int]]:
    """Return the places of requests in their list by the gateway that answers them; what is no text goes to the first.

    >>> split([AdviceRequest("Rules.", state, ("a", "b")) for state in "xyx"], 1)
    {0: [0, 1, 2]}
    """
    if num_gateways == 1:
        return {0: list(range(len(requests)))}
    parts: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        state = request.state
        parts.setdefault(gateway_of(state, num_gateways) if isinstance(state, str) else 0, []).append(place)
    return parts
