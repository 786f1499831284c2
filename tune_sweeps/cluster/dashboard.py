"""Ask a cluster's dashboard what the cluster is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tutor_service.client.bounded_calls import BoundedCalls
from tutor_service.errors import UserError
from tutor_service.proxies import open_client, proxy_words

TIMEOUT_S = 8.0
"""For all that is asked, name look-ups and slow answers included: the user waits for it."""

HEAD = "node:__internal_head__"
"""Ray's own resource that stands for the head."""

_RUNNING = frozenset({"RUNNING", "UNHEALTHY"})


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What a cluster says of itself.

    Attributes:
        ray_version: Ray's version there.
        python_version: Python's version there, with the patch number.
        nodes: Resources of each node that is alive, by Ray's names.
        applications: Serve applications that run.
    """

    ray_version: str
    python_version: str
    nodes: tuple[dict[str, float], ...]
    applications: frozenset[str]

    @property
    def head_cpus(self) -> float:
        """CPUs that the head announces."""
        return sum(node.get("CPU", 0.0) for node in self.nodes if HEAD in node)


def read_facts(url: str, token: str | None, timeout_s: float = TIMEOUT_S) -> ClusterFacts:
    """Ask the dashboard.

    Args:
        url: Its base address: see ``address.dashboard_url``.
        token: Ray's token; None where the cluster asks for none.
        timeout_s: Most seconds for all of it.

    Raises:
        UserError: It does not answer, refuses the token, or is no Ray dashboard.
    """
    try:
        # httpx bounds each read and not their sum, and the look-up of a name not at all.
        return BoundedCalls(1).run(lambda: _ask(url, token, timeout_s), timeout_s)
    except (TimeoutError, httpx.TimeoutException):
        raise UserError(
            f"the cluster at {url} does not answer{proxy_words(url)} (waited {timeout_s:g} s). Is the address right, "
            "and is the way there open (`ray dashboard deploy/ray/cluster.yaml`, `kubectl port-forward`)?"
        ) from None


def _ask(url: str, token: str | None, timeout_s: float) -> ClusterFacts:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with open_client(httpx.Client, url, base_url=url, headers=headers, timeout=timeout_s) as client:
        version = _get(client, "/api/version", token)
        metadata = _get(client, "/api/v0/cluster_metadata", token).get("data", {})
        listing = _get(client, "/api/v0/nodes", token, params={"limit": 10_000}).get("data", {})
        serve = _get(client, "/api/serve/applications/", token)
    try:
        nodes = tuple(
            {str(name): float(amount) for name, amount in (node.get("resources_total") or {}).items()}
            for node in listing["result"]["result"]
            if node.get("state") == "ALIVE"
        )
        return ClusterFacts(
            ray_version=str(version["ray_version"]),
            python_version=str(metadata["pythonVersion"]),
            nodes=nodes,
            applications=frozenset(
                name for name, app in (serve.get("applications") or {}).items() if app.get("status") in _RUNNING
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{url} answers, but not as the dashboard of a Ray that is known here ({error!r}).") from error


def _get(client: httpx.Client, path: str, token: str | None, params: dict[str, Any] | None = None) -> dict[str, Any]:
    url = str(client.base_url).rstrip("/")
    try:
        response = client.get(path, params=params)
    except httpx.TimeoutException:
        raise
    except httpx.HTTPError as error:
        raise UserError(
            f"the cluster at {url} cannot be reached{proxy_words(url)}: {error}. Is the address right, and is the way "
            "there open (`ray dashboard deploy/ray/cluster.yaml`, `kubectl port-forward`)?"
        ) from error
    if response.status_code == 401:
        raise UserError(
            f"the cluster at {url} asks for a token and none was found. Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or "
            "put it into ~/.ray/auth_token."
        )
    if response.status_code == 403:
        raise UserError(
            f"the cluster at {url} refuses {'the token' if token else 'the call'}: it is another cluster's, or has "
            "been changed. Check RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token, in this order."
        )
    try:
        body = response.json() if response.status_code == 200 else None
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise UserError(
            f"{url} answers {path} with HTTP {response.status_code}, as no Ray dashboard does. Give the dashboard's "
            "address, by default port 8265."
        )
    return body
