"""Loopback is never proxied, whoever opens the connection, and a proxy in between is named."""

from __future__ import annotations

import httpx
import pytest

from tests.unit.endpoint_standin import good, running
from tune_sweeps.cluster.dashboard import read_facts
from tutor_service import proxies
from tutor_service.client.backend import BackendError
from tutor_service.client.http import HttpBackend
from tutor_service.errors import UserError
from tutor_service.proxies import is_loopback, open_client, proxy_of, spare_loopback
from tutor_service.schema import AdviceRequest

NAMES = [name for base in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (base, base.lower())]
QUESTION = AdviceRequest("Rules.", "State.", ("a", "b"))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url", ["http://localhost:1/v1", "http://127.0.0.1", "https://127.8.8.8:2", "http://[::1]:3", "http://a.localhost"]
)
def test_what_loopback_is(url):
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://localhost.example.org", "http://10.0.0.1", "http://[::2]", "http://127.0.0.1.example.org", "x"]
)
def test_what_it_is_not(url):
    assert not is_loopback(url)


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "http://h/", None),
        ({"HTTP_PROXY": "http://user:secret@p:3128"}, "http://h/", "http://p:3128"),
        ({"http_proxy": "p:3128"}, "http://h/", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://h/", None),
        ({"ALL_PROXY": "socks5://p:1"}, "https://h/v1", "socks5://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "other,h"}, "https://h/v1", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:8000", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h, 10.0.0.0/8,fd00::/8"}, "http://10.1.2.3:8000/v1", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8,fd00::/8"}, "http://[fd00::1]/v1", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://11.1.2.3/v1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "a/b"}, "http://10.1.2.3/v1", "http://p:1"),
    ],
)
def test_the_proxy_before_an_address(monkeypatch, environ, url, proxy):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == proxy


def test_our_own_clients_reach_loopback_by_no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with running(good) as endpoint:
        (answer,) = (open_client(httpx.Client, endpoint.url).post(f"{endpoint.url}/chat/completions", json={}),)
        assert answer.status_code == 200
        with pytest.raises(BackendError, match="no advice"):  # reached, if not what was meant
            HttpBackend(endpoint.url).advise([QUESTION], 5)
        with pytest.raises(UserError, match="as no Ray dashboard does"):
            read_facts(endpoint.url.removesuffix("/v1"), None)


def test_networks_of_no_proxy_are_reached_directly(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://x")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    open_client(httpx.Client, "http://10.1.2.3:8000/v1").close()
    with pytest.raises(UserError, match="Check HTTP_PROXY"):
        open_client(httpx.Client, "http://11.1.2.3:8000/v1")


def test_a_proxy_in_between_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(BackendError, match=r"by way of the proxy http://127\.0\.0\.1:9"):
        HttpBackend("http://tutors.example.org").advise([QUESTION], 5)
    with pytest.raises(UserError, match=r"by way of the proxy http://127\.0\.0\.1:9"):
        read_facts("http://ray.example.org", None)


def test_certificates_that_cannot_be_read_are_a_users_error(monkeypatch, tmp_path):
    proxies._ssl_context.cache_clear()
    for content in (None, "no certificate"):
        file = tmp_path / "certificates.pem"
        if content is not None:
            file.write_text(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(UserError, match=r"SSL_CERT_FILE = '.*certificates\.pem': no certificates can be read"):
            open_client(httpx.Client, "https://llm.example.org")


def test_a_proxy_of_an_unknown_kind_is_a_users_error(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "nonsense://x")
    with pytest.raises(UserError, match="Check HTTP_PROXY"):
        open_client(httpx.Client, "https://llm.example.org")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, None),
        ({"HTTP_PROXY": "x"}, "localhost,127.0.0.1,::1"),
        ({"all_proxy": "x", "NO_PROXY": "a, b"}, "a,b,localhost,127.0.0.1,::1"),
        ({"HTTP_PROXY": "x", "no_proxy": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"HTTP_PROXY": "x", "NO_PROXY": "*"}, "*"),
    ],
)
def test_libraries_that_read_the_environment_spare_loopback_too(before, after):
    environ = dict(before)
    spare_loopback(environ)
    assert environ.get("no_proxy", environ.get("NO_PROXY")) == after
