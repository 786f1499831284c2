"""Reach a tutor service over HTTP, from anywhere. Owns the client's side of the wire format; knows no Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import httpx

from tutor_service.client.backend import BackendError, service_share_s
from tutor_service.proxies import open_client, proxy_words
from tutor_service.schema import Advice, AdviceError, AdviceRequest

_FAULTY_REQUESTS_STATUS = frozenset({400, 413, 422})
_SPENT_STATUS = 402
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_BODY_CHARS = 2**20
_SHOWN_CHARS = 300


class HttpBackend:
    """Reach a tutor at an HTTP address. Connections are kept between calls and never travel between processes.

    Args:
        url: The tutor's base address; ``/advise`` is added.
        token: Bearer token, where the service asks for one. It shows in no message and no ``repr``.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._http: httpx.Client | None = None

    def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        """Post the requests, long texts in several bodies: see ``Backend``."""
        deadline = time.monotonic() + timeout_s
        answers: list[Advice | AdviceError] = []
        for part in _bodies(requests):
            answers.extend(self._post(part, max(1e-3, deadline - time.monotonic())))
        return answers

    def _post(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        if self._http is None:
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            self._http = open_client(httpx.Client, self.url, headers=headers)
        body = {"requests": [_item(request) for request in requests], "within_s": service_share_s(timeout_s)}
        try:
            response = self._http.post(f"{self.url}/advise", json=body, timeout=timeout_s)
        except httpx.TimeoutException:
            reason = f"{self.url} did not answer within {timeout_s:.1f} s{proxy_words(self.url)}"
            raise BackendError(reason, retry=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackendError(f"{self.url} cannot be reached{proxy_words(self.url)}: {error}", retry=True) from error
        if response.status_code != 200:
            reason = f"{self.url} answered {response.status_code}: {response.text[:_SHOWN_CHARS]}"
            if response.status_code == _SPENT_STATUS:
                return [AdviceError(reason, fatal=True) for _ in requests]
            if response.status_code in _FAULTY_REQUESTS_STATUS:
                return [AdviceError(reason) for _ in requests]
            raise BackendError(reason, retry=response.status_code in _RETRIED_STATUS)
        try:
            return [_answer(item) for item in response.json()["advice"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"{self.url} answered something that is no advice: {error!r}", retry=False) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_http": None}

    def __repr__(self) -> str:
        return f"HttpBackend({self.url!r})"


def _bodies(requests: Sequence[AdviceRequest]) -> Iterator[Sequence[AdviceRequest]]:
    """Cut a list so that each part stays well below the size that a service accepts."""
    start, chars = 0, 0
    for index, request in enumerate(requests):
        size = len(request.rules) + len(request.state)
        if index > start and chars + size > _BODY_CHARS:
            yield requests[start:index]
            start, chars = index, 0
        chars += size
    yield requests[start:]


def _item(request: AdviceRequest) -> dict[str, Any]:
    """Return a request as JSON; a field that says nothing is left out."""
    return {name: value for name, value in asdict(request).items() if value != ()}


def _answer(item: dict[str, Any]) -> Advice | AdviceError:
    """Read one answer; unknown fields are left for newer clients."""
    invalid, tokens = int(item.get("invalid", 0)), int(item.get("tokens", 0))
    if item.get("reason") is not None:
        retry, fatal = bool(item.get("retry", False)), bool(item.get("fatal", False))
        return AdviceError(str(item["reason"]), retry, invalid, tokens, fatal)
    source = item["source"]
    if source not in ("model", "store"):
        raise ValueError(f"source {source!r}")
    probabilities = tuple(math.nan if value is None else float(value) for value in item["probabilities"])
    legal_mass, latency_ms = float(item["legal_mass"]), float(item["latency_ms"])
    try:
        return Advice(probabilities, legal_mass, source, latency_ms, invalid, tokens)
    except ValueError as error:
        return AdviceError(f"answer: {error}")
