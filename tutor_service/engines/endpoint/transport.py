"""Post a question to an endpoint and return what came back. Owns the connection; knows nothing of what is asked."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from tutor_service.engines.endpoint.reply import Received, error_words
from tutor_service.proxies import open_client, proxy_words

MAX_BODY_BYTES = 4 * 2**20
_MAX_CONNECT_S = 20.0


class Unanswered(Exception):
    """Say that no reply came.

    Args:
        reason: Why, for a person.
        late: Whether the time was up; the provider may have done the work all the same.
        paused: Whether nothing was sent, since the endpoint asks for a longer pause than an answer may take.
    """

    def __init__(self, reason: str, *, late: bool = False, paused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.late = late
        self.paused = paused


class Transport:
    """Call one endpoint's chat completions.

    Args:
        base_url: Its address, to which ``/chat/completions`` is added.
        key: Its API key; shown nowhere.
        timeout_s: Seconds for a whole reply.
        max_connections: Most requests at a time.

    Raises:
        UserError: The environment names a proxy that cannot be used.
    """

    def __init__(self, base_url: str, key: str | None, timeout_s: float, max_connections: int) -> None:
        self.url = f"{base_url.rstrip('/')}/chat/completions"
        self._key = key
        self._timeout_s = timeout_s
        self._client = open_client(
            httpx.AsyncClient,
            self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _MAX_CONNECT_S), pool=None),
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            follow_redirects=True,
        )

    async def post(self, body: dict[str, Any]) -> Received:
        """Post one body as JSON.

        Raises:
            Unanswered: The endpoint cannot be reached, breaks off, or takes longer than it may.
        """
        try:
            return await asyncio.wait_for(self._post(body), self._timeout_s)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            raise Unanswered(
                f"no answer within timeout_s = {self._timeout_s:g}{proxy_words(self.url)}", late=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            cause = str(error).strip() or type(error).__name__
            raise Unanswered(f"{cause}{proxy_words(self.url)}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, body: dict[str, Any]) -> Received:
        async with self._client.stream("POST", self.url, json=body) as response:
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk[: MAX_BODY_BYTES - len(content)]
                if len(content) >= MAX_BODY_BYTES:
                    break
        received = bytes(content)
        if response.status_code == 200:
            return Received(200, received)
        return Received(
            response.status_code,
            received,
            error_words(received, self._key) or response.reason_phrase,
            retry_after(response.headers.get("retry-after-ms"), response.headers.get("retry-after"), time.time()),
        )


def retry_after(milliseconds: str | None, value: str | None, now: float) -> float | None:
    """Return the seconds that a server asks to wait, from its headers: a number, or the date of RFC 9110.

    Args:
        milliseconds: ``retry-after-ms``, which some servers add.
        value: ``Retry-After``.
        now: Seconds since the epoch.
    """
    for text, factor in ((milliseconds, 1e-3), (value, 1.0)):
        try:
            seconds = float(text or "nan") * factor
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
