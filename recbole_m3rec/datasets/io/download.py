"""Downloads one file: resumed, retried, checked, and written whole or not at all."""

from __future__ import annotations

import email.utils
import http.client
import json
import logging
import os
import random
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from recbole_m3rec.datasets.io.http import TooManyRedirectsError, http_get
from recbole_m3rec.datasets.io.urls import RefusedAddressError
from recbole_m3rec.support.safe_write import CannotWriteError, open_alone

LONG_WAIT = "the host asks for a long wait"  # the reason of what is given up then
TOO_LARGE = "too large"

_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_PROGRESS = 1 << 20  # a try that gained this much does not count as failed
_PIECE = 1 << 18

_logger = logging.getLogger(__name__)


class DownloadError(Exception):
    """A file could not be fetched; ``reason`` says why in a word or two, such as ``HTTP 404``."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """How long and how much, in seconds and bytes.

    ``tries`` in a row may fail; between two of them the wait is ``first_wait`` and doubles up to
    ``longest_wait``. ``stall`` limits each wait for data, ``try_time`` a whole try.
    """

    max_bytes: int | None = None
    stall: float = 60.0
    try_time: float | None = None
    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0


class _TryAgainError(Exception):
    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str,
    path: Path,
    *,
    limits: Limits = Limits(),  # noqa: B008
    allow_private: bool = False,
    check: Callable[[Path], str | None] | None = None,
    show_progress: bool | None = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch a file. What has arrived stays in ``<path>.part``, from which the next call goes on.

    Args:
        url: http or https.
        path: replaced when the whole file is there, as long as the server says, and is checked.
        limits: of time and size.
        allow_private: also ask this machine and private networks.
        check: looks at the complete file, returns what is wrong with it or None.
        show_progress: whether a progress bar is shown; None shows it on terminals alone.
        sleep: waits between tries.

    Raises:
        RefusedAddressError: the address, or one it redirects to, may not be asked.
        DownloadError: the server does not have it, fails again and again, or sends something else.
        CannotWriteError: the disk is full, or the folder cannot be written.
        FileInUseError: another run fetches the same file.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_alone(part)
    except OSError as error:
        raise _cannot_write(path, error) from error
    transfer = _Transfer(url, part, file, limits, allow_private)
    hidden = None if show_progress is None else not show_progress
    with (
        file,
        tqdm(desc=path.name, unit="B", unit_scale=True, disable=hidden) as transfer.bar,
    ):
        try:
            transfer.run(sleep)
            problem = check(part) if check else None
            if problem:
                raise DownloadError(f"{url}: {problem}", "wrong content")
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # Windows renames closed files only
                file.close()
            os.replace(part, path)
            transfer.note.unlink(missing_ok=True)
        except (DownloadError, RefusedAddressError) as error:
            if transfer.size == 0 or not isinstance(error, _GaveUpError):
                transfer.forget()
            raise
        except OSError as error:
            raise _cannot_write(path, error) from error


class _GaveUpError(DownloadError):
    """Tried in vain; another time may do."""


class _Transfer:
    """One file on its way: the part that is there, and what is known of the whole."""

    bar: Any

    def __init__(
        self, url: str, part: Path, file: IO[bytes], limits: Limits, allow_private: bool
    ) -> None:
        self.url, self.part, self.file, self.limits = url, part, file, limits
        self.allow_private = allow_private
        self.note = part.with_name(part.name + ".json")
        self.size = self.file.seek(0, os.SEEK_END)

    def run(self, sleep: Callable[[float], None]) -> None:
        """Try until the file is complete."""
        failed = 0
        while True:
            before = self.size
            try:
                return self._attempt()
            except _TryAgainError as error:
                failed = 1 if self.size - before >= _PROGRESS else failed + 1
                wait = self.limits.first_wait * 2 ** (failed - 1) * random.uniform(0.75, 1.25)
                wait = max(min(wait, self.limits.longest_wait), error.wait or 0)
                is_too_long = wait > 2 * self.limits.longest_wait
                if failed >= self.limits.tries or is_too_long:
                    raise _GaveUpError(
                        f"{self.url}: {error}, {failed} times in a row. The same command goes on"
                        f" after the {self.size:,} bytes that are there",
                        f"{LONG_WAIT} ({error})" if is_too_long else str(error),
                    ) from error
                _logger.info("%s: %s; again in %.0f s", self.url, error, wait)
                sleep(wait)

    def forget(self) -> None:
        """Remove what has arrived."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _attempt(self) -> None:
        note = self._known()
        headers = {}
        if self.size and note.get("validator"):
            headers = {"Range": f"bytes={self.size}-", "If-Range": note["validator"]}
        else:
            self._cut()
        limits = self.limits
        deadline = None if limits.try_time is None else time.monotonic() + limits.try_time
        try:
            with http_get(
                self.url,
                headers,
                stall=limits.stall,
                deadline=deadline,
                allow_private=self.allow_private,
            ) as response:
                self._receive(response, note)
        except (CannotWriteError, DownloadError):
            raise
        except TooManyRedirectsError as error:
            raise DownloadError(f"{self.url}: {error}", "redirects without end") from error
        except ssl.SSLCertVerificationError as error:
            raise DownloadError(f"{self.url}: {error.verify_message}", "certificate") from error
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME:
                raise DownloadError(f"{self.url}: there is no such host", "no such host") from error
            raise _TryAgainError("the host's name cannot be looked up") from error
        except TimeoutError as error:
            raise _TryAgainError("the server takes too long") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise _TryAgainError(f"the connection broke ({reason})") from error

    def _receive(self, response: http.client.HTTPResponse, known: dict[str, Any]) -> None:
        status, headers = response.status, response.headers
        validator = headers.get("ETag", "")
        if not validator or validator.startswith("W/"):
            validator = headers.get("Last-Modified", "")
        held = headers.get("Content-Range", "").strip()
        place = re.fullmatch(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)", held)
        if status == 416 and place and place.group(2) == str(self.size):
            return  # all of it was there
        if status == 206 and place and place.group(1) == str(self.size):
            total = int(place.group(2)) if place.group(2) != "*" else None
            # Of both, an answer to If-Range has to repeat the former alone (RFC 9110, 15.3.7).
            before = known.get("validator", "")
            validator = validator or (before if not before.startswith('"') else "")
            changed = validator != before
        elif status == 200:
            length = headers.get("Content-Length", "").strip()
            total, changed = int(length) if re.fullmatch(r"\d{1,18}", length) else None, False
            self._cut()
        elif status in (206, 416):
            total, changed = None, True
        elif status in _TEMPORARY:
            raise _TryAgainError(f"HTTP {status}", _retry_after(headers.get("Retry-After", "")))
        else:
            raise DownloadError(f"{self.url}: HTTP {status}", f"HTTP {status}")
        if changed:
            self._cut()
            raise _TryAgainError("the file has changed on the server")
        self._remember(validator)
        self._refuse_size(total or 0)
        self.bar.total = total
        self.bar.update(self.size - self.bar.n)
        while piece := response.read1(_PIECE):
            self._refuse_size(self.size + len(piece))
            try:
                self.file.write(piece)
                self.file.flush()
            except OSError as error:
                raise _cannot_write(self.part, error) from error
            self.size += len(piece)
            self.bar.update(len(piece))
        if total is not None and self.size != total:
            if self.size > total:
                self._cut()
            raise _TryAgainError("the server sent another number of bytes than it told")

    def _known(self) -> dict[str, Any]:
        """Return what an earlier try, perhaps of an earlier run, noted about the same address."""
        with suppress(OSError, ValueError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if isinstance(note, dict) and note.get("url") == self.url:
                return note
        return {}

    def _remember(self, validator: str) -> None:
        note = {"url": self.url, "validator": validator}
        try:
            self.note.write_text(json.dumps(note), encoding="utf-8")
        except OSError as error:
            raise _cannot_write(self.part, error) from error

    def _cut(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.size = 0

    def _refuse_size(self, size: int) -> None:
        most = self.limits.max_bytes
        if most is not None and size > most:
            raise DownloadError(f"{self.url}: more than {most:,} bytes", too_large(most))


def too_large(most: int) -> str:
    """Return the reason of a file of more than so many bytes."""
    return f"{TOO_LARGE} (more than {most:,} bytes)"


def _retry_after(text: str) -> float | None:
    """Return the seconds that a server asks to wait: a number of them, or a date."""
    if text.strip().isdecimal():
        return float(text)
    with suppress(TypeError, ValueError):
        date = email.utils.parsedate_to_datetime(text)
        return max(0.0, date.timestamp() - time.time())
    return None


def _cannot_write(path: Path, error: OSError) -> CannotWriteError:
    if isinstance(error, CannotWriteError):
        return error
    return CannotWriteError(
        f"cannot write {path}: {error.strerror or error}. Make room, or name a folder that can be"
        " written; what has arrived is kept"
    )
