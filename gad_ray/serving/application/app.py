"""The endpoint as a FastAPI application: routes, strict bodies, and one envelope for everything that goes wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from gad_ray import __version__
from gad_ray.client.schema import (
    Answer,
    CompareRequest,
    CompareResponse,
    ErrorResponse,
    ModelList,
    RerankRequest,
    RerankResponse,
    RewardRequest,
    RewardResponse,
    ScoreRequest,
    ScoreResponse,
    Status,
)
from gad_ray.config.endpoint import Limits
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.guard import OPEN_TO_ALL, WORK, Guard
from gad_ray.serving.application.keys import KeyRing
from gad_ray.serving.application.metrics import ServingMetrics, Work
from gad_ray.serving.application.openapi import document
from gad_ray.serving.application.service import ScoringService
from gad_ray.serving.application.strict_json import parse_json

_MAX_TOLD = 3
_MAX_PARAM_CHARACTERS = 80
_REFUSALS = {
    400: "The request is wrong.",
    401: "The key is missing or wrong.",
    403: "No key is set and the request does not come from this machine, or it is addressed to another host.",
    404: "Another model is served.",
    408: "The request was too slow, or its answer did not come in time.",
    413: "The request is too long.",
    415: "The body is not JSON, or in an unknown encoding.",
    429: "Too much is waiting already; Retry-After tells when to try again.",
    500: "The critic failed.",
    503: "The service is shutting down.",
}


class _Refusal(HTTPException):
    """Carries an ApiError out of the reading of a body, where FastAPI lets nothing else through."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.status, error.message)
        self.error = error


def build_app(
    service: ScoringService,
    *,
    keys: KeyRing,
    limits: Limits,
    metrics: ServingMetrics,
    echo_request_id: bool,
    allowed_hosts: Sequence[str] = (),
    close: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """The application, with its guard before it.

    Args:
        service: Answers the requests.
        keys: Who may ask.
        limits: How much they may bring.
        metrics: Is told of every request.
        echo_request_id: Send the request's id back; Ray Serve's proxy does that itself.
        allowed_hosts: Names that requests may be addressed to besides loopback's.
        close: Called when the application ends, after its last request.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        yield
        if close is not None:
            await close()

    app = FastAPI(
        lifespan=lifespan,
        title="GAD-Ray critic",
        version=__version__,
        description="Scores of responses by a critic. A score compares only with others under the same prompt.",
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(_routes(service, limits))
    app.openapi = partial(document, app, open_to_all=OPEN_TO_ALL)
    app.add_middleware(
        cast("Any", Guard),
        keys=keys,
        limits=limits,
        metrics=metrics,
        echo_request_id=echo_request_id,
        allowed_hosts=allowed_hosts,
    )
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ApiError, _on_api_error)
    return app


def _routes(service: ScoringService, limits: Limits) -> APIRouter:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": text} for status, text in _REFUSALS.items()
    }
    router = APIRouter(route_class=_strict_route(limits.max_nesting), responses=refusals)

    async def score(request: Request, body: ScoreRequest) -> Response:
        answer = await service.score(body)
        return _scored(request, answer, num_pairs=len(answer.data))

    async def rerank(request: Request, body: RerankRequest) -> Response:
        return _scored(request, await service.rerank(body), num_pairs=len(body.documents))

    async def compare(request: Request, body: CompareRequest) -> Response:
        return _scored(request, await service.compare(body), num_pairs=2)

    async def get_reward(request: Request, body: RewardRequest) -> Response:
        answer = await service.reward(body)
        work: Work = request.scope[WORK]
        work.pairs, work.fingerprint = len(answer.rewards), answer.model_version.fingerprint
        return _json(answer)

    async def models() -> Response:
        return _json(service.models())

    async def health() -> Response:
        return _json(Status(status="ok"))

    async def ready() -> Response:
        service.check_ready()
        return _json(Status(status="ready", model_version=service.version))

    for path, handler, answer, summary in (
        ("/v1/score", score, ScoreResponse, "Score responses to prompts"),
        ("/v1/rerank", rerank, RerankResponse, "Put responses in order, best first"),
        ("/v1/compare", compare, CompareResponse, "Which of two responses is better"),
        ("/get_reward", get_reward, RewardResponse, "Rewards, in OpenRLHF's shape"),
    ):
        router.add_api_route(path, handler, methods=["POST"], response_model=answer, summary=summary)
    for path, handler, answer, summary in (
        ("/v1/models", models, ModelList, "The critic that is served"),
        ("/health", health, Status, "Whether the service lives"),
        ("/ready", ready, Status, "Whether weights are loaded and a first text was scored"),
    ):
        router.add_api_route(path, handler, methods=["GET"], response_model=answer, summary=summary)
    return router


def _scored(request: Request, answer: Answer, *, num_pairs: int) -> Response:
    work: Work = request.scope[WORK]
    work.pairs = num_pairs
    work.tokens = answer.usage.total_tokens
    work.fingerprint = answer.model_version.fingerprint
    return _json(answer)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _strict_route(max_nesting: int) -> type[APIRoute]:
    class StrictRequest(Request):
        async def json(self) -> Any:
            try:
                return parse_json(await self.body(), max_nesting=max_nesting)
            except ApiError as error:
                raise _Refusal(error) from error

    class StrictRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def strict(request: Request) -> Response:
                return await handle(StrictRequest(request.scope, request.receive))

            return strict

    return StrictRoute


# --- What goes wrong


def _refused(error: ApiError) -> Response:
    return Response(
        json.dumps(error.body),
        status_code=error.status,
        headers=error.headers,
        media_type="application/json",
    )


async def _on_api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _refused(error)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, _Refusal):
        return _refused(error.error)
    codes = {404: "not_found", 405: "method_not_allowed"}
    return _refused(
        ApiError(
            str(error.detail),
            status=error.status_code,
            code=codes.get(error.status_code, "http_error"),
            headers=error.headers,
        )
    )


async def _on_invalid(_request: Request, error: Exception) -> Response:
    """Tells fields and reasons, and never repeats what was in them."""
    assert isinstance(error, RequestValidationError)
    # Of a union every branch complains; the one that came furthest is the one that was meant.
    found = sorted(cast("list[dict[str, Any]]", list(error.errors())), key=lambda one: -len(one["loc"]))
    told = [f"{_param(one['loc'])}: {one['msg']}" for one in found[:_MAX_TOLD]]
    more = f" (and {len(found) - _MAX_TOLD} more)" if len(found) > _MAX_TOLD else ""
    return _refused(
        ApiError("; ".join(told) + more, code=str(found[0]["type"]), param=_param(found[0]["loc"]))
    )


def _param(location: tuple[int | str, ...]) -> str:
    """The field, without the words of pydantic for the branches of a union."""
    named = ".".join(str(part) for part in location[1:] if not str(part).startswith(("list[", "str")))
    shown = ascii(named or "body")[1:-1]
    return shown if len(shown) <= _MAX_PARAM_CHARACTERS else shown[:_MAX_PARAM_CHARACTERS] + "..."
