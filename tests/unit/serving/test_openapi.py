"""What the OpenAPI document promises, held against the application by generated requests.

GAD_RAY_SERVE_EXAMPLES sets their number per operation and kind, for a longer look than the suite takes.
"""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.serving.application.app import build_app
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.keys import KeyRing, digests_from
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.metrics import ServingMetrics
from gad_ray.serving.application.service import ScoringService
from tests.unit.serving.metric_library import MetricLibrary

KEY = "key-" + "k" * 30
EXAMPLES = int(os.environ.get("GAD_RAY_SERVE_EXAMPLES", "20"))
URL = "http://127.0.0.1:8000"
TIME_S = 30.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPERATIONS = [
    "POST /v1/score",
    "POST /v1/rerank",
    "POST /v1/compare",
    "POST /get_reward",
    "GET /v1/models",
    "GET /health",
    "GET /ready",
]


class Service:
    """The application with its schema, asked without a network; one event loop for all requests."""

    def __init__(self, served: ServedCritic) -> None:
        self.runner = asyncio.Runner()
        limits = Limits()
        batcher = Batcher(BatchSettings(), max_queued_tokens=10**6, max_queued_requests=100)
        self.service = ScoringService(served, name="critic", limits=limits, batcher=batcher)
        app = build_app(
            self.service,
            keys=KeyRing(digests_from({"GAD_RAY_SERVE_KEYS": KEY})),
            limits=limits,
            metrics=ServingMetrics(MetricLibrary()),
            echo_request_id=True,
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL)
        self.document: dict[str, Any] = app.openapi()
        self.schema = schemathesis.openapi.from_dict(self.document)
        self.statuses: dict[str, set[int]] = {}

    def operation(self, label: str) -> schemathesis.APIOperation:
        method, path = label.split()
        return self.schema[path][method]

    def send(self, case: schemathesis.Case, headers: dict[str, str]) -> httpx.Response:
        """Exactly the bytes that schemathesis would send."""
        given = case.as_transport_kwargs(base_url=URL, headers=headers)
        made = requests.Request(**{name: given.get(name) for name in ("method", "url", "headers", "params", "cookies", "data", "json", "files")}).prepare()  # fmt: skip
        content = made.body.encode() if isinstance(made.body, str) else made.body
        sent = self.http.request(str(made.method), str(made.url), headers=dict(made.headers), content=content)
        answer = self.runner.run(asyncio.wait_for(sent, TIME_S))
        self.statuses.setdefault(case.operation.label, set()).add(answer.status_code)
        return answer

    def close(self) -> None:
        self.runner.run(self.http.aclose())
        self.runner.run(self.service.close())
        self.runner.close()


@pytest.fixture(scope="module")
def service(served: ServedCritic) -> Iterator[Service]:
    made = Service(served)
    yield made
    made.close()


def examples(operation: schemathesis.APIOperation, *, valid: bool) -> st.SearchStrategy[schemathesis.Case]:
    mode = schemathesis.GenerationMode.POSITIVE if valid else schemathesis.GenerationMode.NEGATIVE
    return operation.as_strategy(generation_mode=mode)


def look(service: Service, label: str, *, valid: bool) -> None:
    @seed(7)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate,) if EXAMPLES <= 20 else (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=examples(service.operation(label), valid=valid))
    def hold(case: schemathesis.Case) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        case.validate_response(service.send(case, headers), checks=CHECKS)

    hold()


def test_every_operation_is_looked_at(service: Service):
    found = {f"{m.upper()} {path}" for path, methods in service.document["paths"].items() for m in methods}
    assert found == set(OPERATIONS)


def test_the_document_tells_where_a_key_is_needed_and_nothing_that_never_happens(service: Service):
    for path, methods in service.document["paths"].items():
        for operation in methods.values():
            is_open = path in ("/health", "/ready")
            assert ("security" in operation, "401" in operation["responses"]) == (not is_open, not is_open)
            assert "422" not in operation["responses"]
    assert service.document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


@pytest.mark.parametrize("label", OPERATIONS)
def test_requests_by_the_document_are_answered_by_the_document(service: Service, label: str):
    look(service, label, valid=True)
    # That a query begins with its prompt, or is in the critic's template, is more than a schema can tell.
    assert 200 in service.statuses[label] or label == "POST /get_reward"


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label.startswith("POST")])
def test_requests_against_the_document_are_refused_by_the_document(service: Service, label: str):
    look(service, label, valid=False)
    assert 400 in service.statuses[label]
