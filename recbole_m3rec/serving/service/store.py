"""Where users' events are kept: a SQLite file, or a Redis server that replicas share."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from recbole_m3rec.serving.service.batching import Batcher

NEWEST = 1000  # events of a user that are read


class StoreError(ValueError):
    """A store that cannot be opened."""


class StoreUnavailableError(RuntimeError):
    """A store that does not answer at the moment; nothing was written."""


class Store(Protocol):
    """Users' events, oldest first."""

    async def history(self, user: str) -> list[str]:
        """Return the user's newest items, at most :data:`NEWEST`, oldest first."""

    async def append(self, user: str, items: Sequence[str]) -> None:
        """Append items; when this returns they survive the death of the process."""

    async def ready(self) -> bool:
        """Whether it can be used."""

    async def close(self) -> None:
        """Write what is to be written, and end."""


def open_store(address: str) -> Store:
    """Open ``redis://…``, or a SQLite file, which is made if need be.

    Raises:
        StoreError: it cannot be opened.
    """
    if address.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(address)
    return SQLiteStore(Path(address))


class SQLiteStore:
    """Events in a SQLite file with a write-ahead log, synced to the disk before they are answered.

    Events that arrive together are written in one transaction.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._executor = ThreadPoolExecutor(1, "store")
        try:
            self._writer = self._connect()
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS events ("
                "number INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, item TEXT NOT NULL,"
                " time REAL NOT NULL)"
            )
            self._writer.execute("CREATE INDEX IF NOT EXISTS of_user ON events (user, number)")
            self._reader = self._connect()
        except sqlite3.Error as error:
            raise StoreError(
                f"{path}: cannot be used as a SQLite file ({error}). Name another with --store"
            ) from error
        self._batcher: Batcher[tuple[str, Sequence[str]], None] = Batcher(
            self._write, self._executor, most=256, wait=0
        )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=10
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _write(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[None]:
        now = time.time()
        rows = [(user, item, now) for user, items in batch for item in items]
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("INSERT INTO events (user, item, time) VALUES (?, ?, ?)", rows)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise StoreUnavailableError(f"the store cannot write ({error})") from error
        return [None] * len(batch)

    async def history(self, user: str) -> list[str]:
        """Return the user's newest items, oldest first."""
        rows = self._reader.execute(
            "SELECT item FROM events WHERE user = ? ORDER BY number DESC LIMIT ?", (user, NEWEST)
        ).fetchall()
        return [row[0] for row in reversed(rows)]

    async def append(self, user: str, items: Sequence[str]) -> None:
        """Append items; when this returns they are on the disk."""
        await self._batcher.ask((user, items))

    async def ready(self) -> bool:
        """Whether the file can be read."""
        try:
            self._reader.execute("SELECT 1 FROM events LIMIT 1").fetchall()
        except sqlite3.Error:
            return False
        return True

    async def close(self) -> None:
        """Write what is to be written, and close the file."""
        await self._batcher.stop()
        await asyncio.get_running_loop().run_in_executor(self._executor, self._writer.close)
        self._reader.close()
        self._executor.shutdown()


class RedisStore:
    """Events in Redis, a list per user: replicas that share it agree.

    How safe they are is the server's setting: ``appendonly yes`` with ``appendfsync always`` keeps
    what was acknowledged.
    """

    def __init__(self, address: str) -> None:
        try:
            import redis.asyncio as redis
        except ImportError as error:
            raise StoreError(
                "--store redis:// needs the package redis: pip install 'recbole_m3rec[serving]'"
            ) from error
        try:
            self._client: Any = redis.from_url(address, decode_responses=True, socket_timeout=5)
            self._failures = (redis.RedisError, OSError)
        except ValueError as error:
            raise StoreError(f"--store {address}: {error}") from error

    async def history(self, user: str) -> list[str]:
        """Return the user's newest items, oldest first."""
        items: list[str] = await self._call(self._client.lrange(_key(user), -NEWEST, -1))
        return items

    async def append(self, user: str, items: Sequence[str]) -> None:
        """Append items."""
        await self._call(self._client.rpush(_key(user), *items))

    async def _call(self, waiting: Any) -> Any:
        try:
            return await waiting
        except self._failures as error:
            raise StoreUnavailableError(f"the store does not answer ({error})") from error

    async def ready(self) -> bool:
        """Whether the server answers."""
        try:
            return bool(await self._call(self._client.ping()))
        except StoreUnavailableError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _key(user: str) -> str:
    return f"recbole_m3rec:history:{user}"
