"""schemathesis over the HTTP surface: what it sends is answered as described, signed or not, and never with a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from schemathesis.core.result import Ok

from neurons.wire.base import Request
from neurons.wire.client import WIRES
from neurons.wire.routes import INFO
from tests.fuzz import signed
from tests.fuzz.openapi import description
from tests.fuzz.targets_http import OnSocket
from tests.neurons.wire.wirekit import NOW

SCHEMA = schemathesis.openapi.from_dict(description())
FOUND = [found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)]
OPERATIONS = {operation.label: operation for operation in FOUND}
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


class Alice(AuthBase):
    """Signs whatever is sent, as one of the three wires has it."""

    def __init__(self, wire: str) -> None:
        self.wire = wire

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        body = request.body or b""
        raw = body.encode() if isinstance(body, str) else body
        assert isinstance(raw, bytes)
        model = signed.read(signed.seeds(self.wire)[0])
        own = {name: value for name, value in model.headers.items() if not name.startswith(("content-", "x-testnet"))}
        made = signed.sign(self.wire, Request(request.method or "", request.path_url, own, raw, NOW))
        request.headers.update({name: value for name, value in made.headers.items() if name != signed.MARK})
        return request


@pytest.fixture(scope="module")
def server() -> Iterator[OnSocket]:
    service = OnSocket()
    yield service
    service.close()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        found.trust_env = False  # no proxy between here and here
        yield found


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_as_described(label: str, server: OnSocket, session: requests.Session) -> None:
    statuses = set()
    operation = OPERATIONS[label]
    modes = [operation.as_strategy(GenerationMode.POSITIVE)]
    if operation.body:
        modes.append(operation.as_strategy(GenerationMode.NEGATIVE))

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(modes), wire=st.sampled_from(("", *WIRES)))
    def drive(case: schemathesis.Case[Any], wire: str) -> None:
        auth = Alice(wire) if wire else None
        response = case.call(base_url=server.url, session=session, timeout=10, auth=auth)
        case.validate_response(response, checks=CHECKS)
        server.check()
        statuses.add(response.status_code)

    drive()
    # Signed requests come through the gate: they are refused for what they hold, or answered.
    if label in ("GET /", f"GET {INFO}"):
        assert 200 in statuses
    else:
        assert statuses & {200, 422}
