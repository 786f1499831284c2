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

Advise = Callable[[list[AdviceRequest], float | None], Awaitable[list[Advice | AdviceError]]]

MAX_REQUESTS = 4096
"""Most requests in one HTTP call."""

_LARGEST_AT_A_TIME = 64
"""Bytes of all bodies that are held at a time, in multiples of the largest one: far more than students send."""


Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS)]


class RequestItem(BaseModel):
    """One question: see ``schema.AdviceRequest``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rules: str = Field(
        min_length=1, max_length=MAX_RULES_CHARS, description="The task's fixed text, the shared prefix."
    )
    state: str = Field(min_length=1, max_length=MAX_STATE_CHARS, description="What the student observes, in words.")
    actions: list[Label] = Field(
        min_length=2, max_length=MAX_ACTIONS, description="Labels of the legal actions; distinct."
    )
    synonyms: list[list[Label]] = Field(
        default=[], max_length=MAX_ACTIONS, description="Other words for each action, or nothing at all."
    )


class AdviseBody(BaseModel):
    """A list of questions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    requests: list[RequestItem] = Field(min_length=1, max_length=MAX_REQUESTS)
    within_s: float | None = Field(
        default=None, gt=0, description="Seconds after which what has no answer yet gets an error to try again."
    )


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


def build_app(
    tutor: str, advise: Advise, exposition: Callable[[], Awaitable[bytes]], access: AccessSettings
) -> FastAPI:
    """Return the ASGI application of one tutor.

    Args:
        tutor: Its name.
        advise: Answers a list of requests, within so many seconds.
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
        answers = await advise(requests, body.within_s)
        errors = [answer for answer in answers if isinstance(answer, AdviceError)]
        if len(errors) == len(answers):
            # What the status stands for comes first.
            errors.sort(key=lambda error: (not (error.fatal or error.retry), error.reason))
            reasons = list(dict.fromkeys(error.reason for error in errors))[:10]
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
        return Response(await exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(UnicodeError)
    async def not_unicode(request: Request, error: UnicodeError) -> JSONResponse:
        return JSONResponse({"detail": "the body is not valid UTF-8"}, 400)

    largest = access.max_body_bytes
    app.add_middleware(BodyLimit, max_bytes=largest, max_held_bytes=_LARGEST_AT_A_TIME * largest)
    return app


def _item(answer: Advice | AdviceError) -> dict[str, Any]:
    """Return an answer as JSON; thoughts are for people who ask a tutor, and travel by handle."""
    return {name: value for name, value in asdict(answer).items() if name != "thought"}


class BodyLimit:
    """Bound bodies, each and in all, declared or not, without reading them to the end (ASGI middleware).

    Args:
        app: What is asked where the body is small enough.
        max_bytes: Of one body; beyond, the answer is 413.
        max_held_bytes: Of all bodies whose calls are not answered yet; beyond, it is 503.
    """

    def __init__(self, app: Any, max_bytes: int, max_held_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Buffer the body up to the limits and hand it on in one piece."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body, more = b"", True
        refusal = self._refusal(int(declared)) if declared.isdigit() else None
        try:
            while more and refusal is None:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                chunk = message.get("body", b"")
                body += chunk
                self._held_bytes += len(chunk)
                more = message.get("more_body", False)
                refusal = self._refusal(len(body))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            pending = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Any:
                return pending.pop() if pending else await receive()

            await self._app(scope, replay, send)
        finally:
            self._held_bytes -= len(body)

    def _refusal(self, num_bytes: int) -> JSONResponse | None:
        """Return why a body of that size is not taken; None where it is."""
        if num_bytes > self._max_bytes:
            return JSONResponse({"detail": f"the body is larger than {self._max_bytes} bytes"}, 413)
        if self._held_bytes > self._max_held_bytes:
            return JSONResponse({"detail": "the bodies of calls under way are too large"}, 503, {"Retry-After": "1"})
        return None
