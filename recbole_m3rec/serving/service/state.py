"""What a running service holds: the recommender at the moment, the store, the batches."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram

from recbole_m3rec.features.encoders.image_files import may_be_image
from recbole_m3rec.features.image_sources import ImageSourceError, images_in_folder
from recbole_m3rec.serving.bundle.files import BundleError, BundleOverwrittenError
from recbole_m3rec.serving.recommender import Recommender
from recbole_m3rec.serving.scoring.ranker import Answers, Question
from recbole_m3rec.serving.service import schemas as s
from recbole_m3rec.serving.service.batching import Batcher
from recbole_m3rec.serving.service.limits import RequestLimits
from recbole_m3rec.serving.service.store import open_store

_logger = logging.getLogger(__name__)

NOT_RELOADED = (BundleError, ImageSourceError, OSError)  # what a reload may end in

Asked = tuple["Recommender", Question, bool]


@dataclass
class Settings:
    """How a service runs.

    Attributes:
        bundle: its folder; read again on reload.
        store: where events are: a SQLite file, or ``redis://…``; opened once the bundle is read.
        images: folder of files ``<item id>.jpg``, or None; read again on reload.
        admin_token: that ``/admin/reload`` wants; None turns it off.
        limits: bounds of a request.
        most: most requests that are scored together.
        wait: seconds that a request waits for others at most.
        index: whether a bundle's index is used.
    """

    bundle: Path
    store: str
    images: Path | None = None
    admin_token: str | None = None
    limits: RequestLimits = field(default_factory=RequestLimits)
    most: int = 64
    wait: float = 0.002
    index: bool = True


class Service:
    """What the endpoints share: the recommender at the moment, the store, the batches."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self.settings = settings
        self.executor = ThreadPoolExecutor(1, "model")
        self._shop, self.pictures = _read(settings)
        self._is_told = False  # that the bundle was overwritten
        self.store = open_store(settings.store)
        _set_aside()
        self._loading = asyncio.Lock()
        sizes = Histogram(
            "m3rec_batch_size",
            "Requests scored together",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.items = Gauge("m3rec_items", "Items of the catalogue", registry=registry)
        self.items.set(len(self.shop.items))
        self.batcher: Batcher[Asked, tuple[Answers, int]] = Batcher(
            _answer, self.executor, settings.most, settings.wait, sizes.observe
        )

    @property
    def shop(self) -> Recommender:
        """The recommender at the moment.

        Raises:
            BundleOverwrittenError: files that it maps were written over; a reload mends it.
        """
        try:
            self._shop.bundle.mapped.check()
        except BundleOverwrittenError as error:
            if not self._is_told:
                _logger.error("%s", error)
            self._is_told = True
            raise
        return self._shop

    async def run(self, function: Any, *arguments: Any) -> Any:
        """Run what takes a while beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)

    async def reload(self) -> None:
        """Read bundle and pictures again; requests go on with the old ones until they are there.

        Raises:
            NOT_RELOADED: the old ones stay.
        """
        async with self._loading:
            self._shop, self.pictures = await asyncio.to_thread(_read, self.settings)
            self._is_told = False
            self.items.set(len(self.shop.items))
            _set_aside()
            _logger.info("bundle %s is in use", mark(self.shop))

    async def history(self, request: s.ForHistory) -> list[str]:
        """Return the history that a request is about."""
        if request.history is not None:
            return request.history
        user = str(request.user)
        return [*self.shop.history(user), *await self.store.history(user)]

    def show(self, shop: Recommender, number: int) -> dict[str, Any]:
        """Return an item as people see it, with its picture's address on this server."""
        shown = shop.items.show(number)
        shown.pop("image", None)  # on other people's servers
        if shown["item"] in self.pictures:
            # Browsers keep a picture: in another bundle the number is another item's.
            shown["picture"] = f"/pictures/{number}?of={mark(shop)}"
        return shown


def mark(shop: Recommender) -> str:
    """Return what tells a bundle from others, in addresses of pictures and in the log."""
    return shop.digest[:12]


def _read(settings: Settings) -> tuple[Recommender, dict[str, Path]]:
    """Read the bundle, and which item has which picture."""
    found = images_in_folder(settings.images) if settings.images else {}
    pictures = {item: path for item, path in found.items() if may_be_image(path)}
    if other := [path.name for item, path in found.items() if item not in pictures]:
        _logger.warning(
            "%s: %d pictures are not shown, as they are empty, HTML or cannot be read, such as %s",
            *(settings.images, len(other), other[0]),
        )
    return Recommender.load(settings.bundle, index=settings.index), pictures


def _set_aside() -> None:
    """Keep what is there for good out of garbage collections, which would stop all requests."""
    gc.collect()
    gc.freeze()


def _answer(asked: Sequence[Asked]) -> list[tuple[Answers, int]]:
    """Answer what was asked of one recommender or, around a reload, of several."""
    found: list[tuple[Answers, int] | None] = [None] * len(asked)
    for shop in {id(shop): shop for shop, _, _ in asked}.values():
        rows = [n for n, (its_shop, _, _) in enumerate(asked) if its_shop is shop]
        explain = any(asked[n][2] for n in rows)
        answers = shop.ranker.answer([asked[n][1] for n in rows], explain)
        shop.bundle.mapped.check()  # else some may be of the old bytes, some of the new
        for row, n in enumerate(rows):
            found[n] = answers, row
    return [answer for answer in found if answer is not None]
