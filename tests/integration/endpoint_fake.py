"""An OpenAI-compatible endpoint on a local port: answers from a table, counts, and fails when told to."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml

from tests.unit.endpoint_standin import Server

ROOT = Path(__file__).parents[2]


@dataclass
class Endpoint:
    """What the endpoint does and did.

    Attributes:
        url: Its base address.
        logprobs: Whether it gives log-probabilities.
        text: What it answers in words, in turn; the last one again and again.
        status: HTTP status to answer with, other than 200.
        hold: Requests with these words in them wait; empty: none does.
        bodies: Every request's body.
        keys: Every request's Authorization header.
    """

    url: str = ""
    logprobs: bool = True
    text: list[str] = field(default_factory=lambda: ["<action>B</action>"])
    status: int = 200
    hold: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of the answer."""
        text = self.text[0] if len(self.text) == 1 else self.text.pop(0)
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        if body.get("logprobs") and self.logprobs:
            shown = {"A": 0.2, " A": 0.1, "B": 0.3, "C": 0.05}
            top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in shown.items()]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        usage = {"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    """The endpoint, for as long as the context is open."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.bodies.append(body)
            endpoint.keys.append(self.headers.get("Authorization"))
            while endpoint.hold and endpoint.hold in body["messages"][0]["content"]:
                time.sleep(0.02)
            failing = endpoint.status != 200
            reply = {"error": {"message": "as told"}} if failing else endpoint.reply(body)
            data = json.dumps(reply).encode()
            self.send_response(endpoint.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.hold = ""
        server.shutdown()
        server.server_close()
        thread.join()


def write_serve_file(folder: Path, endpoint: Endpoint, port: int, **changes: Any) -> Path:
    """A Serve file as those of ``deploy/serve``, of a tutor that needs no model; ``changes`` are the application's."""
    tutor = {"backend": "openai", "model": "m", "base_url": endpoint.url}
    (folder / "remote.yaml").write_text(yaml.safe_dump(tutor))
    content = yaml.safe_load((ROOT / "deploy" / "serve" / "smollm2.yaml").read_text())
    content["http_options"]["port"] = port
    application = content["applications"][0]
    application |= {"name": "tutor-remote", "route_prefix": "/remote", **changes}
    application["args"] = {
        "tutor": str(folder / "remote.yaml"),
        "token_env": "LLM_TUTORS_TOKEN",
        "scaling": {"num_cpus": 0},
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
