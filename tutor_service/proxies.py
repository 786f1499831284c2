"""Keep proxies away from loopback addresses, and name the one that a request would pass. Knows no service.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` are set for whole machines; without ``NO_PROXY`` they capture loopback
too, where no proxy can reach what is meant.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tutor_service.errors import UserError

Client = TypeVar("Client")

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that say which certificates are trusted; the first that is set counts."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(url: str) -> bool:
    """Tell whether an address is this machine's own loopback interface."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_spared(url: str) -> bool:
    """Tell whether no proxy belongs before an address: loopback, or an IP address in a network of ``NO_PROXY``.

    Hosts and domains of ``NO_PROXY`` are left to the libraries, which do not know networks such as 10.0.0.0/8.
    """
    if is_loopback(url):
        return True
    try:
        host = ipaddress.ip_address(urlsplit(url).hostname or "")
        return any(
            host in ipaddress.ip_network(item.strip(), strict=False)
            for item in getproxies().get("no", "").split(",")
            if "/" in item
        )
    except ValueError:
        return False


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment puts before an address, without user name and password; None: none."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if _is_spared(url) or not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    shown = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return f"{shown.scheme}://{shown.netloc.rpartition('@')[2]}"


def proxy_words(url: str) -> str:
    """Name the proxy before an address for an error message, after a space; empty where there is none."""
    proxy = proxy_of(url)
    return f" by way of the proxy {proxy} (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY; NO_PROXY exempts hosts)" if proxy else ""


def open_client(kind: Callable[..., Client], url: str, **options: Any) -> Client:
    """Open an httpx client for one address; loopback and networks of ``NO_PROXY`` are reached directly.

    Args:
        kind: ``httpx.Client`` or ``httpx.AsyncClient``.
        url: What it will call.
        options: More arguments of it.

    Raises:
        UserError: The environment names a proxy that httpx cannot use, or certificates that cannot be read.
    """
    import httpx  # takes longer than all else here, and most commands call nobody

    try:
        context = _ssl_context()
    except OSError as error:
        name = next((name for name in _CERTIFICATES if os.environ.get(name)), _CERTIFICATES[0])
        place = os.environ.get(name, "")
        raise UserError(
            f"{name} = '{place}': no certificates can be read there ({error}). Correct or unset it."
        ) from error
    # For these the environment is not even looked at: a proxy of an unknown kind would keep the client from starting.
    try:
        return kind(verify=context, trust_env=not _is_spared(url), **options)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise UserError(
            f"a proxy of the environment cannot be used for {url}: {error}. Check HTTP_PROXY, HTTPS_PROXY and "
            "ALL_PROXY, or exempt the host by NO_PROXY."
        ) from error


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    """Load the certificates that are trusted, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` heeded; once, since it is slow."""
    import httpx

    return httpx.create_ssl_context()


def spare_loopback(environ: MutableMapping[str, str]) -> None:
    """Exempt loopback from every proxy, for the libraries that read the environment themselves (MLflow, Ray, gRPC)."""
    if not any(name.lower().endswith("_proxy") and value for name, value in environ.items()):
        return
    named = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in named.split(",") if host.strip()]
    if "*" in hosts:
        return
    hosts += [host for host in LOOPBACK if host not in hosts]
    environ["no_proxy"] = environ["NO_PROXY"] = ",".join(hosts)
