"""The application's OpenAPI document: what FastAPI makes of the routes, less what never happens, and the key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_KEY = "key"
_UNUSED_SCHEMAS = ("HTTPValidationError", "ValidationError")
_RETRY_AFTER = {
    "description": "Seconds after which to try again.",
    "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
}
_RETRIED = ("429", "503")


def document(app: FastAPI, *, open_to_all: tuple[str, ...]) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        app: The application, with its routes.
        open_to_all: Paths that need no key.
    """
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path, operations in made["paths"].items():
            for operation in operations.values():
                _correct(operation, is_open=path in open_to_all)
        components = made["components"]
        for name in _UNUSED_SCHEMAS:
            components["schemas"].pop(name, None)
        components["securitySchemes"] = {
            _KEY: {
                "type": "http",
                "scheme": "bearer",
                "description": "One of the service's keys. A service without keys answers its own machine alone.",
            }
        }
        app.openapi_schema = made
    return app.openapi_schema


def _correct(operation: dict[str, Any], *, is_open: bool) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # what is not valid gets 400, in the envelope
    for status in _RETRIED:
        responses[status]["headers"] = {"Retry-After": _RETRY_AFTER}
    if is_open:
        for status in ("401", "403"):
            responses.pop(status, None)
    else:
        # Also for nobody: whether keys are wanted is the service's choice.
        operation["security"] = [{_KEY: []}, {}]
