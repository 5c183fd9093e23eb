"""The service: one Recommender behind HTTP, for people (a page) and programs (JSON)."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from recbole_m3rec import __version__
from recbole_m3rec.serving.service import endpoints, problems
from recbole_m3rec.serving.service import schemas as s
from recbole_m3rec.serving.service.limits import Gate
from recbole_m3rec.serving.service.state import NOT_RELOADED, Service, Settings

_logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Return the service as an ASGI application.

    Raises:
        BundleError: the bundle cannot be read.
    """
    registry = CollectorRegistry()
    service = Service(settings, registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks: set[asyncio.Task[None]] = set()

        def on_hangup() -> None:
            task = asyncio.create_task(_reload_logged(service))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_Faults())
        with suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGHUP, on_hangup)
        yield
        await service.batcher.stop()
        await service.store.close()
        service.executor.shutdown()

    app = FastAPI(
        title="recbole_m3rec",
        version=__version__,
        description="Recommendations of an M3Rec model, and why.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        responses=problems.documented(400, 401, 408, 413, 422, 503),
    )
    app.state.service = service
    app.add_middleware(Gate, limits=settings.limits, registry=registry)  # type: ignore[arg-type]
    problems.install(app)
    endpoints.add_questions(app, service)
    endpoints.add_catalogue(app, service)
    endpoints.add_operation(app, service, registry)
    endpoints.add_page(app, service)
    _describe_problem(app)
    return app


def _describe_problem(app: FastAPI) -> None:
    """Name the errors' schema in OpenAPI, and no other error's."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = describe()
            schemas = schema["components"]["schemas"]
            schemas["Problem"] = s.Problem.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


class _Faults:
    """Logs what fails in the loop; that no connection can be taken, once a minute.

    The loop tells that 2,048 times a second, each with a traceback.
    """

    told = -60.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif loop.time() - self.told >= 60:
            self.told = loop.time()
            _logger.error("no connection can be taken: %s. Raise ulimit -n", error.strerror)


async def _reload_logged(service: Service) -> None:
    try:
        await service.reload()
    except NOT_RELOADED as error:
        _logger.error("the old bundle stays in use: %s", error)
