"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from recbole_m3rec.serving.arguments import RequestError
from recbole_m3rec.serving.bundle.files import BundleOverwrittenError
from recbole_m3rec.serving.catalogue import UnknownItemError
from recbole_m3rec.serving.service.schemas import Problem
from recbole_m3rec.serving.service.store import StoreUnavailableError

MEDIA_TYPE = "application/problem+json"
STATUSES = {
    UnknownItemError: 404,
    RequestError: 422,
    StoreUnavailableError: 503,
    BundleOverwrittenError: 503,
}
_logger = logging.getLogger(__name__)


def problem(status: int, detail: str, headers: Any = None) -> Response:
    """Return an error with a status and one sentence."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail).model_dump()
    # ASCII, for a request may bring half a surrogate pair, which has no UTF-8.
    return Response(json.dumps(content), status, headers=headers, media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of errors with these statuses."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: schema},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Let an app answer every error so."""

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        parts = []
        for found in error.errors()[:5]:
            place = ".".join(str(part)[:80] for part in found["loc"])
            parts.append(f"{place}: {found['msg']}")
        return problem(422, "; ".join(parts)[:2000])

    async def refused(request: Request, error: Exception) -> Response:
        return problem(STATUSES[type(error)], str(error))

    for kind in STATUSES:
        app.add_exception_handler(kind, refused)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        _logger.exception("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "The service has a fault, which is in its log.")
