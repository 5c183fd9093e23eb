"""Where users' events are kept: a SQLite file, or a Redis server that replicas share."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from recbole_m3rec.serving.service.batching import Batcher

NEWEST = 1000  # events of a user that are read
TRUSTED = 10.0  # seconds for which a write says that the next one will do
ID_KEPT = 7 * 86_400  # seconds that Redis knows an event by its id


class StoreError(ValueError):
    """A store that cannot be opened."""


class StoreUnavailableError(RuntimeError):
    """A store that does not answer at the moment; what was to be written may have been."""


class Store(Protocol):
    """Users' events, oldest first."""

    async def history(self, user: str) -> list[str]:
        """Return the user's newest items, at most :data:`NEWEST`, oldest first."""

    async def append(self, user: str, items: Sequence[str], id: str | None = None) -> None:
        """Append items; when this returns they survive the death of the process.

        An id of the user's that was written before, in the last week at least, writes nothing.
        """

    async def ready(self) -> bool:
        """Whether it can be read and written."""

    async def close(self) -> None:
        """Write what is to be written, and end."""


def open_store(address: str) -> Store:
    """Open ``redis://…``, or a SQLite file, which is made if need be.

    Raises:
        StoreError: it cannot be opened. Names no password.
    """
    scheme = re.match(r"\w\w+:/", address)  # one letter is a disk
    if scheme is None:
        return SQLiteStore(Path(address))
    if not address.startswith(("redis://", "rediss://", "unix://")):
        raise StoreError(
            f"--store {scheme[0]}…: expected redis://, rediss://, unix:// or the path of a file"
        )
    return RedisStore(address)


class _Event(NamedTuple):
    user: str
    items: Sequence[str]
    id: str | None


_PROBE = _Event("", (), None)


class SQLiteStore:
    """Events in a SQLite file with a write-ahead log, synced to the disk before they are answered.

    Events that arrive together are written in one transaction. Those written into a file that was
    removed or replaced are not acknowledged.
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
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS ids (user TEXT, id TEXT, PRIMARY KEY (user, id))"
                " WITHOUT ROWID"
            )
            self._writer.execute("CREATE TABLE IF NOT EXISTS probe (filling BLOB)")
            self._reader = self._connect()
            self._opened = self._files()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{path}: cannot be used as a SQLite file ({error}). Name another with --store"
            ) from error
        self._is_written, self._when = False, float("-inf")  # how the latest write ended, and when
        self._batcher: Batcher[_Event, None] = Batcher(
            self._write, self._executor, most=256, wait=0
        )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=10
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _files(self) -> list[tuple[int, int]]:
        """Return which files are at the paths of the events and of the log ahead of them."""
        found = [os.stat(path) for path in (self.path, f"{self.path}-wal")]
        return [(each.st_dev, each.st_ino) for each in found]

    def _write(self, batch: Sequence[_Event]) -> list[None]:
        is_written = False
        try:
            self._commit(batch)
            self._check_place()
            is_written = True
        finally:
            self._is_written, self._when = is_written, time.monotonic()
        return [None] * len(batch)

    def _commit(self, batch: Sequence[_Event]) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for event in batch:
                self._insert(event)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise StoreUnavailableError(f"the store cannot write ({error})") from error

    def _insert(self, event: _Event) -> None:
        execute = self._writer.execute
        if event is _PROBE:  # as large as what fails where a disk is all but full
            execute("DELETE FROM probe")
            execute("INSERT INTO probe VALUES (zeroblob(16384))")
        if event.id is not None:
            added = execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (event.user, event.id))
            if not added.rowcount:
                return
        self._writer.executemany(
            "INSERT INTO events (user, item, time) VALUES (?, ?, ?)",
            [(event.user, item, time.time()) for item in event.items],
        )

    def _check_place(self) -> None:
        with suppress(OSError):
            if self._files() == self._opened:
                return
        raise StoreUnavailableError(
            f"{self.path} was removed or replaced, with its -wal or without, and what is written "
            "would be lost. Put it back and restart the service"
        )

    async def history(self, user: str) -> list[str]:
        """Return the user's newest items, oldest first."""
        try:
            rows = self._reader.execute(
                "SELECT item FROM events WHERE user = ? ORDER BY number DESC LIMIT ?",
                (user, NEWEST),
            ).fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"the store cannot be read ({error})") from error
        return [row[0] for row in reversed(rows)]

    async def append(self, user: str, items: Sequence[str], id: str | None = None) -> None:
        """Append items; when this returns they are on the disk."""
        await self._batcher.ask(_Event(user, items, id))

    async def ready(self) -> bool:
        """Whether the file can be read and, as the latest write or a new one says, written."""
        try:
            await self.history("")
            self._check_place()
            if time.monotonic() - self._when > TRUSTED:
                await self._batcher.ask(_PROBE)
        except StoreUnavailableError:
            return False
        return self._is_written

    async def close(self) -> None:
        """Write what is to be written, and close the file."""
        await self._batcher.stop()
        await asyncio.get_running_loop().run_in_executor(self._executor, self._writer.close)
        self._reader.close()
        self._executor.shutdown()


APPEND_ONCE = """
if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
    redis.call('SET', KEYS[2], 1, 'EX', ARGV[1])
end
"""


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
        self._failures, self._refusal = (redis.RedisError, OSError), redis.ResponseError
        try:
            self._client: Any = redis.from_url(address, decode_responses=True, socket_timeout=5)
            self._client.connection_pool.make_connection()  # which reads the options
        except (ValueError, TypeError, *self._failures) as error:
            # Not what the error says, which may be a part of the password.
            named = re.findall(r"'(\w+)'", str(error))
            wrong = [f"its option {name}" for name in named if re.search(rf"[?&]{name}=", address)]
            raise StoreError(
                f"--store {address.partition('://')[0]}://…: cannot use "
                f"{wrong[0] if wrong else 'the address'}. Expected "
                "redis://user:password@host:port/number?option=value, with options of the package "
                "redis, and signs such as / in a password as %2F"
            ) from None
        self._append_once = self._client.register_script(APPEND_ONCE)

    async def history(self, user: str) -> list[str]:
        """Return the user's newest items, oldest first."""
        items: list[str] = await self._call(self._client.lrange(_key(user), -NEWEST, -1))
        return items

    async def append(self, user: str, items: Sequence[str], id: str | None = None) -> None:
        """Append items."""
        if id is None:
            written = self._client.rpush(_key(user), *items)
        else:
            keys = [_key(user), f"recbole_m3rec:event:{len(user)}:{user}:{id}"]
            written = self._append_once(keys, [ID_KEPT, *items])
        try:
            await self._call(written)
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, self._refusal):
                raise  # the server said no
            again = "Send it again" if id else "Sent again it may count twice: give events an id"
            raise StoreUnavailableError(
                f"{error}; the event may have been written. {again}"
            ) from error

    async def _call(self, waiting: Any) -> Any:
        try:
            return await waiting
        except self._failures as error:
            raise StoreUnavailableError(f"the store does not answer ({error})") from error

    async def ready(self) -> bool:
        """Whether the server can be read and written."""
        try:
            return bool(await self._call(self._client.set("recbole_m3rec:ready", 1, ex=60)))
        except StoreUnavailableError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _key(user: str) -> str:
    return f"recbole_m3rec:history:{user}"
