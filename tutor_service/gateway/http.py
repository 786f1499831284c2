"""Serve a tutor over HTTP: routes, access and the wire format. Knows no Ray; it is given a function that advises."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from tutor_service.gateway.access import AccessSettings
from tutor_service.prompts.labels import MAX_ACTIONS
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.validation import MAX_LABEL_CHARS, MAX_RULES_CHARS, MAX_STATE_CHARS

Advise = Callable[[list[AdviceRequest]], Awaitable[list[Advice | AdviceError]]]

MAX_REQUESTS = 4096
"""Most requests in one HTTP call."""


class RequestItem(BaseModel):
    """One question: see ``schema.AdviceRequest``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rules: str = Field(
        min_length=1, max_length=MAX_RULES_CHARS, description="The task's fixed text, the shared prefix."
    )
    state: str = Field(min_length=1, max_length=MAX_STATE_CHARS, description="What the student observes, in words.")
    actions: list[Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS)]] = Field(
        min_length=2, max_length=MAX_ACTIONS, description="Labels of the legal actions; distinct."
    )
    synonyms: list[list[Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS)]]] = Field(
        default=[], max_length=MAX_ACTIONS, description="Other words for each action, or nothing at all."
    )


class AdviseBody(BaseModel):
    """A list of questions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    requests: list[RequestItem] = Field(min_length=1, max_length=MAX_REQUESTS)


class AdviceItem(BaseModel):
    """One answer: see ``schema.Advice``."""

    probabilities: list[float]
    legal_mass: float
    source: Literal["model", "store"]
    latency_ms: float
    invalid: int
    tokens: int


class ErrorItem(BaseModel):
    """Say why one request of a list got no advice: see ``schema.AdviceError``."""

    reason: str
    retry: bool
    invalid: int
    tokens: int
    fatal: bool


class AdviseReply(BaseModel):
    """One answer per request, in order."""

    advice: list[AdviceItem | ErrorItem]


class Problem(BaseModel):
    """Say why a call was refused."""

    detail: Any


def build_app(tutor: str, advise: Advise, exposition: Callable[[], bytes], access: AccessSettings) -> FastAPI:
    """Return the ASGI application of one tutor.

    Args:
        tutor: Its name.
        advise: Answers a list of requests.
        exposition: Metrics in Prometheus' text format.
        access: Who and what is let in.
    """
    app = FastAPI(title=f"LLM tutor {tutor}", version="1", description="Advice as a distribution over legal actions.")
    bearer = HTTPBearer(auto_error=False, description="Needed where the service was started with a token.")

    def authorise(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if access.token_sha256 is None:
            return
        digest = hashlib.sha256((given.credentials if given else "").encode("utf-8", "surrogatepass")).digest()
        if not hmac.compare_digest(digest, access.token_sha256):
            raise HTTPException(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})

    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": Problem, "description": "Not one of the requests is valid."},
        401: {"model": Problem, "description": "No valid bearer token."},
        402: {"model": Problem, "description": "The tutor's budget is used up, and students are to end."},
        413: {"model": Problem, "description": "The body is too large."},
        422: {"model": Problem, "description": "The body has not the form that is asked for."},
        503: {"model": Problem, "description": "The tutor is overloaded or being restarted; try again."},
    }

    @app.post("/advise", responses=refusals, response_model=AdviseReply, dependencies=[Depends(authorise)])
    async def post_advise(body: AdviseBody) -> Any:
        """Answer a list of requests. Those that are invalid get a reason in their place."""
        requests = [
            AdviceRequest(item.rules, item.state, tuple(item.actions), tuple(map(tuple, item.synonyms)))
            for item in body.requests
        ]
        answers = await advise(requests)
        errors = [answer for answer in answers if isinstance(answer, AdviceError)]
        if len(errors) == len(answers):
            reasons = sorted({error.reason for error in errors})[:10]
            if any(error.fatal for error in errors):
                return JSONResponse({"detail": reasons}, 402)
            if any(error.retry for error in errors):
                return JSONResponse({"detail": reasons}, 503, {"Retry-After": "1"})
            return JSONResponse({"detail": reasons}, 400)
        return JSONResponse({"advice": [_item(answer) for answer in answers]})

    @app.get("/healthz")
    async def get_healthz() -> dict[str, str]:
        """Say that the gateway runs."""
        return {"status": "ok", "tutor": tutor}

    @app.get("/metrics", response_class=Response, dependencies=[Depends(authorise)], responses={401: refusals[401]})
    async def get_metrics() -> Response:
        """Return metrics in Prometheus' text format."""
        return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(UnicodeError)
    async def not_unicode(request: Request, error: UnicodeError) -> JSONResponse:
        return JSONResponse({"detail": "the body is not valid UTF-8"}, 400)

    app.add_middleware(BodyLimit, max_bytes=access.max_body_bytes)
    return app


def _item(answer: Advice | AdviceError) -> dict[str, Any]:
    """Return an answer as JSON; thoughts are for people who ask a tutor, and travel by handle."""
    return {name: value for name, value in asdict(answer).items() if name != "thought"}


class BodyLimit:
    """Answer 413 to bodies beyond a size, declared or not, without reading them to the end (ASGI middleware)."""

    def __init__(self, app: Any, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Buffer the body up to the limit and hands it on in one piece."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body, more = b"", True
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                await self._refuse(scope, receive, send)
                return
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Any:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        response = JSONResponse({"detail": f"the body is larger than {self._max_bytes} bytes"}, 413)
        await response(scope, receive, send)
