"""What every request passes first: key, size, patience; and what is measured of it."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.responses import Response

from recbole_m3rec.serving.service.problems import problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Message, Receive, Send], Awaitable[None]]

# What needs no key: the page, which asks for it, and what a supervisor asks.
OPEN = ("/", "/page/app.js", "/page/style.css", "/page/icon.svg", "/healthz", "/readyz")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


@dataclass(frozen=True)
class RequestLimits:
    """Bounds of a request.

    Attributes:
        body_bytes: of its body.
        body_seconds: in which the body has to arrive.
        api_key: that requests bring in ``X-API-Key``; None for none.
    """

    body_bytes: int = 2**20
    body_seconds: float = 10.0
    api_key: str | None = None


class Gate:
    """ASGI middleware: reads the whole body within the limits, then lets the request through."""

    def __init__(self, app: ASGI, limits: RequestLimits, registry: CollectorRegistry) -> None:
        self.app, self.limits = app, limits
        self.requests = Counter(
            "m3rec_requests", "Requests answered", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "m3rec_request_seconds",
            "Time from the request's head to its answer",
            ["path"],
            registry=registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.3, 1, 3, 10),
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # answered as GET is; the server leaves out the body
            scope = {**scope, "method": "GET"}
        started, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        try:
            refused = self._refuse_key(scope)
            if refused is not None:
                await refused(scope, receive, answer)  # type: ignore[operator]
                return
            try:
                body = await asyncio.wait_for(self._read(receive), self.limits.body_seconds)
            except (asyncio.TimeoutError, TimeoutError):
                body = problem(408, "The body did not arrive in time.")
            if not isinstance(body, bytes):
                body.headers["connection"] = "close"  # the rest of the body is not read
                await body(scope, receive, answer)  # type: ignore[arg-type]
                return
            await self.app(scope, _replay(body, receive), answer)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self.requests.labels(path, str(status)).inc()
            self.seconds.labels(path).observe(time.perf_counter() - started)

    def _refuse_key(self, scope: Message) -> Any:
        path = scope["path"]
        if self.limits.api_key is None or path in OPEN or path.startswith("/pictures/"):
            return None
        given = next((value for name, value in scope["headers"] if name == b"x-api-key"), b"")
        if hmac.compare_digest(given, self.limits.api_key.encode()):
            return None
        return problem(401, "Send the key in the header X-API-Key.")

    async def _read(self, receive: Receive) -> bytes | Response:
        """Return the body, or the problem where it is too large or cut short."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return problem(400, "The body was cut short.")
            part = message.get("body", b"")
            size += len(part)
            if size > self.limits.body_bytes:
                return problem(413, f"The body is larger than {self.limits.body_bytes:,} bytes.")
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return the ``receive`` of a request whose body was read."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
