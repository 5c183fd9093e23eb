"""Many addresses fetched at once, few per host."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from urllib.parse import urlsplit

from recbole_m3rec.datasets.images.report import Entry
from recbole_m3rec.datasets.io.download import LONG_WAIT


@dataclass(frozen=True)
class Politeness:
    """How many fetches run at once, in all and per host, from 1 on.

    Raises:
        ValueError: one of them is no whole number, or below 1.
    """

    at_once: int = 16
    per_host: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, found {value!r}")


def results_of(
    left: Mapping[str, Sequence[str]],
    politeness: Politeness,
    fetch: Callable[[str, Sequence[str]], list[Entry]],
) -> Iterator[list[Entry]]:
    """Yield what became of each address, as it comes: an entry for each of its items.

    A host that asks for a long wait is asked no more.

    Args:
        left: items by address.
        politeness: how many fetches at once.
        fetch: gets an address and its items.
    """
    waiting: dict[str, deque[str]] = defaultdict(deque)  # by host
    for url in left:
        waiting[_host(url)].append(url)
    free = dict.fromkeys(waiting, politeness.per_host)
    asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None ends a thread
    finished: queue.SimpleQueue[tuple[str, list[Entry] | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        while (url := asked.get()) is not None:
            try:
                finished.put((url, fetch(url, left[url])))
            except BaseException as error:
                finished.put((url, error))

    n_threads = n_idle = min(politeness.at_once, len(left))
    for _ in range(n_threads):
        # Daemons: an interrupted run does not wait for servers that stall.
        threading.Thread(target=work, daemon=True).start()
    try:
        while waiting or n_idle < n_threads:
            while n_idle and (host := next((h for h in waiting if free[h]), None)) is not None:
                urls = waiting.pop(host)
                asked.put(urls.popleft())
                if urls:
                    waiting[host] = urls  # to the end of the line, so that hosts take turns
                n_idle, free[host] = n_idle - 1, free[host] - 1
            url, result = finished.get()
            n_idle, free[_host(url)] = n_idle + 1, free[_host(url)] + 1
            if isinstance(result, BaseException):
                raise result
            yield result
            if result[0].reason.startswith(LONG_WAIT):
                for each in waiting.pop(_host(url), ()):
                    yield [replace(result[0], item_id=item, url=each) for item in left[each]]
    finally:
        for _ in range(n_threads):
            asked.put(None)


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
