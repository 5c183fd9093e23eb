"""The endpoints: questions, catalogue, operation, page."""

from __future__ import annotations

import hmac
import json
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, Query, Request
from prometheus_client import CollectorRegistry, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from recbole_m3rec.serving.scoring.ranker import REPETITION
from recbole_m3rec.serving.service import problems
from recbole_m3rec.serving.service import schemas as s
from recbole_m3rec.serving.service.state import NOT_RELOADED, Service, mark

PAGE = Path(__file__).parent.parent / "page"
PAGE_FILES = {
    "app.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}


def add_questions(app: FastAPI, service: Service) -> None:
    @app.post("/recommend", response_model=s.RecommendAnswer)
    async def recommend(request: s.RecommendRequest) -> Response:
        """Recommend items to a user or to a history."""
        history, shop = await service.history(request), service.shop
        (question,), unknown = shop.questions(
            [history],
            request.k,
            request.exclude_seen,
            request.allowed,
            request.blocked,
            request.weights,
        )
        answers, row = await service.batcher.ask((shop, question, request.explain))
        items = []
        for rank in range(min(request.k, answers.items.shape[1])):
            score = float(answers.scores[row, rank])
            if score == -np.inf:
                break
            shown = service.show(shop, int(answers.items[row, rank]))
            shown |= {"rank": rank + 1, "score": score}
            if request.explain and answers.terms is not None and not answers.popular[row]:
                values = answers.terms[row, rank].tolist()
                terms = dict(zip(shop.ranker.names, values, strict=True))
                if not shop.has_repetition:
                    del terms[REPETITION]
                shown["terms"] = terms
            items.append(shown)
        source = "popular" if answers.popular[row] else "model"
        return _json(
            {
                "items": items,
                "source": source,
                "unknown_items": unknown,
                "bundle": shop.digest,
            }
        )

    @app.post("/events", response_model=s.EventsAnswer, responses=problems.documented(404))
    async def events(request: s.EventsRequest) -> Response:
        """Append to a user's history; an answer means that it is on the disk."""
        for item in request.items:
            service.shop.items.number(item)
        await service.store.append(request.user, request.items, request.id)
        return _json({"accepted": len(request.items)})

    @app.post("/explain", response_model=s.ExplainAnswer, responses=problems.documented(404))
    async def explain(request: s.ExplainRequest) -> Response:
        """Say why an item has its score."""
        history, shop = await service.history(request), service.shop
        found = (await service.run(shop.explain, history, request.item)).as_dict()
        number = shop.items.number
        found["item"] = service.show(shop, number(found["item"]))
        found["because"] = {
            name: [service.show(shop, number(e["item"])) | {"effect": e["effect"]} for e in effects]
            for name, effects in found["because"].items()
        }
        return _json(found)

    @app.post("/similar", response_model=s.SimilarAnswer, responses=problems.documented(404))
    async def similar(request: s.SimilarRequest) -> Response:
        """Find the items nearest to one."""
        shop = service.shop
        frame = await service.run(shop.similar, request.item, request.modality, request.k)
        return _json(
            {
                "items": [
                    service.show(shop, shop.items.number(item)) | {"rank": rank, "score": score}
                    for rank, item, score in zip(
                        *(frame[name].tolist() for name in ("rank", "item", "score")), strict=True
                    )
                ],
                "reason": frame.attrs.get("reason"),
            }
        )


def add_catalogue(app: FastAPI, service: Service) -> None:
    @app.get("/items", response_model=s.ItemsAnswer)
    async def items(
        q: Annotated[str, Query(max_length=s.LONGEST_ID)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        """Search items by words; without words, those that are used most."""
        shop = service.shop
        found = await service.run(shop.items.search, q, limit)
        return _json({"items": [service.show(shop, number) for number in found]})

    @app.post("/items", response_model=s.ItemsAnswer)
    async def items_by_id(request: s.ItemsRequest) -> Response:
        """Show items, in order, without ids that are not in the catalogue."""
        shop = service.shop
        numbers, _ = shop.items.numbers(request.items, "items")
        return _json({"items": [service.show(shop, int(n)) for n in numbers]})

    @app.get("/users", response_model=s.UsersAnswer)
    async def users(
        q: Annotated[str, Query(max_length=s.LONGEST_ID)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        """Name users whose histories the bundle has."""

        def search(users: list[str]) -> list[str]:
            found = [user for user in users if q.casefold() in user.casefold()]
            return sorted(found, key=lambda user: (user != q, len(user), user))

        found = await service.run(search, service.shop.users)
        return _json({"users": found[:limit]})

    @app.get("/history", response_model=s.HistoryAnswer)
    async def history(user: Annotated[str, Query(min_length=1, max_length=256)]) -> Response:
        """Return a user's history: the bundle's, then events."""
        shop = service.shop
        found = [*shop.history(user), *await service.store.history(user)]
        numbers, _ = shop.items.numbers(found)
        return _json({"items": [service.show(shop, int(n)) for n in numbers[-s.MOST_ITEMS :]]})

    @app.get("/pictures/{number}", responses=problems.documented(404))
    async def picture(
        request: Request, number: int, of: Annotated[str, Query(max_length=64)] = ""
    ) -> Response:
        """Return the picture of an item of a bundle, at the address that answers give."""
        ids, is_ours = service.shop.items.ids, of == mark(service.shop)
        path = service.pictures.get(ids[number]) if is_ours and 0 < number < len(ids) else None
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no picture of this item.")
        return _file(request, path)

    @app.get("/about", response_model=s.AboutAnswer)
    async def about() -> Response:
        """Say which model answers."""
        shop = service.shop
        return _json(
            {
                "model": str(shop.about.get("model", "M3Rec")),
                "dataset": str(shop.about.get("dataset", "")),
                "modalities": list(shop.modalities),
                "repetition": shop.has_repetition,
                "items": len(shop.items),
                "has_users": shop.bundle.histories is not None,
                "max_history": shop.max_history,
                "metrics": shop.metrics,
                "bundle": shop.digest,
            }
        )


def add_operation(app: FastAPI, service: Service, registry: CollectorRegistry) -> None:
    @app.get("/healthz", response_model=s.Status)
    async def healthz() -> Response:
        """Whether the process runs."""
        return _json({"status": "ok"})

    @app.get("/readyz", response_model=s.Status)
    async def readyz() -> Response:
        """Whether requests can be answered."""
        if not await service.store.ready():
            raise HTTPException(503, "The store of events cannot be read or written.")
        return _json({"status": "ready", "bundle": service.shop.digest})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.post("/admin/reload", response_model=s.Status, responses=problems.documented(403, 409))
    async def reload(authorization: Annotated[str, Header(max_length=1000)] = "") -> Response:
        """Take the bundle that is in the folder now; `Authorization: Bearer` and the token."""
        token = service.settings.admin_token
        wanted = f"Bearer {token}".encode()
        given = authorization.encode("utf-8", "replace")
        if token is None or not hmac.compare_digest(given, wanted):
            raise HTTPException(
                403, "Send the token of M3REC_ADMIN_TOKEN as Authorization: Bearer …"
            )
        try:
            await service.reload()
        except NOT_RELOADED as error:
            raise HTTPException(409, f"The old bundle stays in use: {error}") from error
        return _json({"status": "reloaded", "bundle": service.shop.digest})


def add_page(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return _file(request, PAGE / "index.html", "text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(request: Request, name: str) -> Response:
        if name not in PAGE_FILES:
            raise HTTPException(404, "The page has no such file.")
        return _file(request, PAGE / name, PAGE_FILES[name])


def _file(request: Request, path: Path, media_type: str | None = None) -> Response:
    """Return a file that browsers keep, and ask each time whether it is still the same."""
    headers = {"cache-control": "no-cache"}
    answer = FileResponse(path, headers=headers, media_type=media_type, stat_result=path.stat())
    tag = answer.headers["etag"]
    if tag in re.split(r"\s*,\s*", request.headers.get("if-none-match", "").replace("W/", "")):
        return Response(status_code=304, headers=headers | {"etag": tag})
    return answer


def _json(content: Any) -> Response:
    """Return JSON, made faster than by validating what was made here."""
    body = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Response(body, media_type="application/json")
