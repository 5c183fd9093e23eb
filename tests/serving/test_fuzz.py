"""Requests made up from the service's OpenAPI description get documented answers, never a 5xx."""

import pytest

from recbole_m3rec.serving.service.app import create_app
from recbole_m3rec.serving.service.state import Settings

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")


@pytest.mark.slow
def test_requests_from_the_description_get_documented_answers(write_made, tmp_path):
    app = create_app(Settings(write_made(), str(tmp_path / "events.sqlite")))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    n_operations = 0
    for operation in schema.get_all_operations():
        n_operations += 1
        check_operation(operation.ok())
    assert n_operations >= 12


def check_operation(operation):
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    # Of these that a valid body is accepted is left out: the description cannot say "one of both".
    kept = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]

    @hypothesis.settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def ask(case):
        response = case.call()
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=kept)

    ask()
