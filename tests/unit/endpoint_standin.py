"""OpenAI-compatible endpoints that behave as public bug reports describe, each under a name, on a loopback port.

The stand-in prefers the second of two labels: A with probability 0.2, B with 0.8. A behaviour is a function of the
request's body and its number; it returns the body of the reply, or raises ``Refused``.
"""

from __future__ import annotations

import json
import math
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

Body = dict[str, Any]
TAGGED = "<action>B</action>"


class Refused(Exception):
    """An error reply.

    Args:
        status: HTTP status.
        body: What is sent; text as it is, everything else as JSON.
        headers: More headers.
    """

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


@dataclass
class Endpoint:
    """A running stand-in.

    Attributes:
        url: Its base address.
        bodies: Every request's body, in order.
        keys: Every request's Authorization header.
        paths: Every request's path, with its query.
    """

    url: str = ""
    bodies: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def rows(tokens: dict[str, float | None]) -> list[Body]:
    return [{"token": token, "logprob": number, "bytes": list(token.encode())} for token, number in tokens.items()]


def logprobs(tokens: dict[str, float | None]) -> Body:
    """Log-probabilities of one place; the first token stands there."""
    top = rows(tokens)
    return {"content": [{**top[0], "top_logprobs": top}]}


def likely(tokens: dict[str, float]) -> Body:
    return logprobs({token: math.log(probability) for token, probability in tokens.items()})


def reply(content: Any = None, scores: Any = None, **message: Any) -> Body:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51}
    return {"id": "x", "object": "chat.completion", "choices": [{**choice, "logprobs": scores}], "usage": usage}


def cut(content: str, **message: Any) -> Body:
    """A reply that breaks off for want of tokens."""
    body = reply(content, **message)
    body["choices"][0]["finish_reason"] = "length"
    return body


def error(message: Any) -> Body:
    return {"error": {"message": message, "type": "invalid_request_error"}}


def cap_of(body: Body) -> float:
    return body.get("max_completion_tokens", body.get("max_tokens", math.inf))


def good(body: Body, number: int) -> Any:
    return reply(TAGGED if cap_of(body) > 8 else "B", likely({"B": 0.8, "A": 0.2}) if body.get("logprobs") else None)


def without_logprobs(status: int, message: Any) -> Callable[[Body, int], Any]:
    """Refuse log-probabilities."""

    def behave(body: Body, number: int) -> Any:
        if "logprobs" in body or "top_logprobs" in body:
            raise Refused(status, message)
        return good(body, number)

    return behave


def in_words(content: Any, **message: Any) -> Callable[[Body, int], Any]:
    """Give no log-probabilities, and answers so."""
    return lambda body, number: reply(content, **message)


def scored(scores: Any, content: str = "B") -> Callable[[Body, int], Any]:
    """Give these log-probabilities when asked, else the tagged answer."""
    return lambda body, number: reply(content, scores) if body.get("logprobs") else reply(TAGGED)


def opening_with(mark: str) -> Callable[[Body, int], Any]:
    """Begin every answer with a mark, so that its label is no first token."""

    def behave(body: Body, number: int) -> Any:
        if not body.get("logprobs"):
            return reply(TAGGED)
        first = likely({mark: 0.98, "B": 0.01, "A": 0.01})["content"]
        second = likely({"B": 0.8, "A": 0.2})["content"] if cap_of(body) > 1 else []
        return reply(mark, {"content": [*first, *second]})

    return behave


def begun_with(token: str, **message: Any) -> Callable[[Body, int], Any]:
    """Begin with a token that is no answer, beside which labels are as good as impossible, and answer in words."""

    def behave(body: Body, number: int) -> Any:
        if body.get("logprobs"):
            return reply(token, logprobs({token: -1e-6, "A": -14.0, "B": -15.0}), **message)
        return reply(TAGGED)

    return behave


def refuses(field: str, status: int = 400, message: str = "nope") -> Callable[[Body, int], Any]:
    def behave(body: Body, number: int) -> Any:
        if field in body:
            raise Refused(status, error(message))
        return good(body, number)

    return behave


def reasons_only(body: Body, number: int) -> Any:
    if body.get("logprobs"):
        raise Refused(403, error("logprobs are not supported with reasoning models"))
    if body.get("temperature", 1) != 1:
        raise Refused(400, error("Only the default (1) is supported."))
    if "max_tokens" in body:
        raise Refused(400, error("Use 'max_completion_tokens' instead."))
    if cap_of(body) < 100:
        raise Refused(400, error("Could not finish the message because max_tokens was reached."))
    return reply(TAGGED)


def thinks_silently(body: Body, number: int) -> Any:
    """Take every limit, and spends it on a thought of 100 tokens first."""
    if cap_of(body) >= 100:
        return reply(TAGGED, reasoning_content="hm")
    return cut("", reasoning_content="hm")


def capped(most: int) -> Callable[[Body, int], Any]:
    def behave(body: Body, number: int) -> Any:
        if body.get("top_logprobs", 0) > most:
            raise Refused(400, error(f"top_logprobs must be at most {most}"))
        return good(body, number)

    return behave


def least(tokens: int) -> Callable[[Body, int], Any]:
    def behave(body: Body, number: int) -> Any:
        if cap_of(body) < tokens:
            raise Refused(400, error(f"Expected a value >= {tokens}"))
        return good(body, number)

    return behave


def needs_length(body: Body, number: int) -> Any:
    """Insist on max_tokens, takes no log-probabilities."""
    if "max_tokens" not in body:
        raise Refused(400, {"message": "max_tokens: Field required"})
    return without_logprobs(400, error("unknown"))(body, number)


def redirected(status: int, to: Callable[[], str]) -> Callable[[Body, int], Any]:
    """Send every first request elsewhere and answers every second one."""
    return lambda body, number: (
        good(body, number) if number % 2 == 0 else _raise(Refused(status, "", {"Location": to()}))
    )


def one_in(every: int, bad: Any) -> Callable[[Body, int], Any]:
    """Each so many-th reply is another one."""
    return lambda body, number: (bad() if callable(bad) else bad) if number % every == every - 1 else good(body, number)


def _raise(refusal: Refused) -> Any:
    raise refusal


def stream(body: Body, number: int) -> str:
    deltas = [{"role": "assistant"}, {"reasoning_content": "hm"}, {"content": "<action>"}, {"content": "B</action>"}]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


HTML = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
UNREADABLE: dict[str, Any] = {
    "empty body": "",
    "html with 200": HTML,
    "truncated json": '{"choices": [{"message": {"content": "B',
    "a list": "[]",
    "null": "null",
    "deep": "[" * 100_000,
    "huge number": '{"choices": ' + "9" * 5000 + "}",
    "null choices": {"choices": None},
    "no choices": {"choices": []},
    "choices of null": {"choices": [None]},
    "null message": {"choices": [{"message": None}]},
    "null content": reply(None),
    "empty content": reply("", None),
    "thought only": reply("", reasoning="The dealer is weak. I lean towards B."),
    "thought parts only": reply([{"type": "thinking", "thinking": [{"type": "text", "text": "maybe B"}]}]),
    "open thought": reply("<think>Maybe B"),
    "error with 200": {"error": {"message": "Provider returned error", "code": 502}},
    "error in choice": {"choices": [{"error": {"message": "overloaded"}, "message": {"content": ""}}]},
    "refusal": reply(None, refusal="I'm sorry, I can't assist with that."),
    "tool call": reply(None, tool_calls=[{"type": "function", "function": {"name": "f", "arguments": '{"a": "B"}'}}]),
    "two labels": reply("A or B"),
    "another word": reply("<action>fold</action>"),
    "lone surrogate": '{"choices": [{"message": {"content": "\\ud800"}}]}',
    "no label likely": reply("Sure", likely({"Sure": 0.6, "The": 0.3})),
    "logits": reply("hm", logprobs({"B": 12.5, "A": 9.0})),
    "only impossible": reply("", logprobs({"B": -math.inf, "A": -math.inf})),
}
"""Replies with status 200 that hold no answer."""

LOGPROBS_REFUSED = {
    "says_logprobs": without_logprobs(400, error("Logprobs is not enabled for models/stand-in")),
    "forbids_logprobs": without_logprobs(403, error("You are not allowed to request logprobs from this model")),
    "unknown_field": without_logprobs(
        422, error([{"type": "extra_forbidden", "loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted"}])
    ),
    "detail": without_logprobs(
        422, {"detail": [{"loc": ["body", "top_logprobs"], "msg": "extra fields not permitted"}]}
    ),
    "plain text": without_logprobs(400, "Bad Request"),
    "empty": without_logprobs(400, ""),
    "html": without_logprobs(400, "<html><title>Bad Request</title></html>"),
    "router": without_logprobs(404, error("No endpoints found that can handle the requested parameters.")),
    "not implemented": without_logprobs(501, error("not implemented")),
    "crash": without_logprobs(500, error("list index out of range")),
    "another language": without_logprobs(405, {"msg": "参数错误", "code": 1210}),
}

READ_AS_WORDS: dict[str, Callable[[Body, int], Any]] = {
    **LOGPROBS_REFUSED,
    "reasons_only": reasons_only,
    "thinks_silently": thinks_silently,
    "needs_length": needs_length,
    "untagged": in_words("**B**"),
    "dot": in_words("B."),
    "sentence": in_words("The answer is B"),
    "boxed": in_words("So it is $\\boxed{B}$"),
    "json": in_words('{"action": "B"}'),
    "parts": in_words([{"type": "thinking", "thinking": [{"text": "A?"}]}, {"type": "text", "text": TAGGED}]),
    "parts of text": in_words(["<action>", {"type": "output_text", "text": "B</action>"}]),
    "thought in tags": in_words(f"<think>Surely <action>A</action></think>\n{TAGGED}"),
    "thought without its beginning": in_words(f"A is bad</think>{TAGGED}"),
    "thought in a vendor's tags": in_words("<seed:think>A is bad</seed:think>So B"),
    "thought beside": in_words(TAGGED, reasoning_content="<action>A</action>"),
    "text completion": lambda body, number: {"choices": [{"text": TAGGED}]},
    "stream": stream,
    "stream with numbers": lambda body, number: "retry: 3000\nid: 1\n" + stream(body, number),
    "null logprobs": scored({"content": None}),
    "null entries": scored({"content": [None]}),
    "empty logprobs": scored({"content": []}),
    "logprobs are a list": scored([1, 2]),
    "null numbers": scored(logprobs({"B": None, "A": None})),
    "raw logits": scored(logprobs({"B": 12.5, "A": 9.0})),
    "all certain": scored(logprobs({"B": 0.0, "A": 0.0})),
    "thought tag first": begun_with("<think>"),
    "thought beside first": begun_with("Okay", reasoning_content=""),
    "channel first": begun_with("<|channel|>"),
    "role first": begun_with("<|im_start|>"),
    "not a number": scored(logprobs({"B": math.nan, "A": math.nan})),
    "9999": scored(logprobs({"B": 9999.0, "A": 9999.0})),
}
"""Endpoints of which words are read: the answer is B."""

SCORED: dict[str, Callable[[Body, int], Any]] = {
    "good": good,
    "byte_level": scored(likely({"ĠB": 0.8, "▁A": 0.2}), "Ġ"),
    "leading spaces": scored(likely({" B": 0.8, "\nA": 0.2})),
    "small letters": scored(likely({"b": 0.8, "a": 0.2})),
    "marks": scored(likely({"**B": 0.8, "(A": 0.2})),
    "bytes only": scored({"content": [{"token": "?", "logprob": -0.3, "top_logprobs": [
        {"token": "?", "bytes": [66], "logprob": math.log(0.8)},
        {"token": "??", "bytes": [65], "logprob": math.log(0.2)}]}]}),
    "byte tokens": scored(likely({"<0x42>": 0.8, "<0x41>": 0.2})),
    "spellings": scored(likely({"B": 0.5, " B": 0.25, "b": 0.05, "A": 0.2})),
    "named twice": scored({"content": [{"token": "B", "logprob": math.log(0.8), "top_logprobs": [
        *rows({"B": math.log(0.8)}), *rows({"B": math.log(0.8), "A": math.log(0.2)})]}]}),
    "with a null": scored(logprobs({"B": math.log(0.8), "A": math.log(0.2), "C": None})),
    "impossible others": scored(logprobs({"B": math.log(0.8), "A": math.log(0.2), "x": -9999.0, "y": -math.inf})),
    "without bytes": scored({"content": [{"token": "B", "logprob": math.log(0.8), "top_logprobs": [
        {"token": "B", "logprob": math.log(0.8)}, {"token": "A", "logprob": math.log(0.2)}]}]}),
    "old form": scored({"tokens": ["B"], "token_logprobs": [math.log(0.8)], "top_logprobs": [
        {"B": math.log(0.8), "A": math.log(0.2)}]}),
    "answer on the second line": scored({"content": [
        {"token": "\n", "logprob": 0.0, "top_logprobs": rows({"\n": 0.0})},
        *likely({"B": 0.8, "A": 0.2})["content"]]}, "\nB"),
    "bold": opening_with("**"),
    "line break first": opening_with("\n"),
    "byte of a line break first": opening_with("<0x0A>"),
    "space first": opening_with("▁"),
    "curly quotes": scored(likely({"“B": 0.8, "“A": 0.2})),
    "at most 5": capped(5),
    "at most 2": capped(2),
    "at least 16": least(16),
    "no temperature": refuses("temperature"),
    "no max_tokens": refuses("max_tokens", 422, "unsupported"),
    "no seed": refuses("seed", 422, "Extra inputs are not permitted"),
    "no usage": lambda body, number: {**good(body, number), "usage": None},
    "odd usage": lambda body, number: {**good(body, number), "usage": {"total_tokens": "many", "prompt_tokens": -1}},
}  # fmt: skip
"""Endpoints of which log-probabilities are read: A 0.2, B 0.8."""


def self_signed(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 with its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(key.private_bytes(*form) + certificate.public_bytes(Encoding.PEM))
    return file


class Server(ThreadingHTTPServer):
    """A server that takes callers who come at once; one turned away would knock again a second later."""

    daemon_threads = True
    request_queue_size = 64


@contextmanager
def running(behave: Callable[[Body, int], Any], tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """A stand-in for as long as the context is open."""
    endpoint = Endpoint()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body waits 40 ms for the client's word that it has the headers

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                endpoint.bodies.append(body)
                endpoint.keys.append(self.headers.get("Authorization"))
                endpoint.paths.append(self.path)
                number = len(endpoint.bodies)
            try:
                status, content, headers = 200, behave(body, number), {}
            except Refused as refused:
                status, content, headers = refused.status, refused.body, refused.headers
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    endpoint.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
