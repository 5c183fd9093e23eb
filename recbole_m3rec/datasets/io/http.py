"""One GET over HTTP(S): redirects, proxies, and deadlines that hold."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin

from recbole_m3rec.datasets.io.urls import (
    Address,
    RefusedAddressError,
    parse_address,
    refuse_private,
    resolve,
    shortened,
)

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
USER_AGENT = "recbole-m3rec"


class TooManyRedirectsError(http.client.HTTPException):
    """An address that leads to others without end."""


@contextmanager
def http_get(
    url: str,
    headers: Mapping[str, str],
    *,
    stall: float,
    deadline: float | None = None,
    allow_private: bool = False,
) -> Iterator[http.client.HTTPResponse]:
    """Ask for an address, following redirects.

    The connection goes to the very address that was checked; the name is not looked up again.

    Args:
        url: http or https.
        headers: of the request, besides the usual ones.
        stall: seconds that connecting or any one wait for data may take.
        deadline: the time of ``time.monotonic`` at which all has to be over.
        allow_private: also ask this machine and private networks.

    Raises:
        RefusedAddressError: the address or one it redirects to may not be asked.
        OSError: no connection, or one that broke off or took too long.
        TooManyRedirectsError: see there.
        http.client.HTTPException: the server does not speak HTTP.
    """
    address = parse_address(url)
    for _ in range(MOST_REDIRECTS + 1):
        timed = _Limits(stall, deadline)
        connection, target = _connection(address, timed, allow_private)
        try:
            connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
            usual = {
                "Host": address.host_header,
                "User-Agent": USER_AGENT,
                "Accept-Encoding": "identity",
                "Connection": "close",
            }
            for name, value in (usual | dict(headers)).items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            place = response.headers.get("Location")
            if response.status not in REDIRECTS or not place:
                yield response
                return
        finally:
            timed.close()
        with suppress(UnicodeError):  # http.client takes UTF-8 for Latin-1
            place = place.encode("latin-1").decode()
        try:
            following = parse_address(urljoin(str(address), place))
        except RefusedAddressError:
            raise
        except ValueError as error:
            why = f"redirects to no valid address ({shortened(place)!r}: {error})"
            raise RefusedAddressError(address, why) from error
        if address.scheme == "https" and following.scheme == "http":
            why = f"redirects to an address that is not encrypted ({shortened(following)})"
            raise RefusedAddressError(address, why)
        address = following
    raise TooManyRedirectsError(f"more than {MOST_REDIRECTS} redirects")


class _Limits:
    """The time limits of a connection, and the socket they hold for."""

    def __init__(self, stall: float, deadline: float | None) -> None:
        self._stall, self._deadline = stall, deadline
        self.socket: socket.socket | None = None

    def left(self) -> float:
        if self._deadline is None:
            return self._stall
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("took too long")
        return min(self._stall, left)

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()


class _TimedSocket:
    """A socket whose every wait is limited; it is closed by ``_Limits`` alone."""

    def __init__(self, inner: socket.socket, limits: _Limits) -> None:
        self._inner, self._limits = inner, limits
        limits.socket = inner

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(self._limits.left())
        self._inner.sendall(data)

    def makefile(self, mode: str, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._inner, self._limits), 1 << 16)

    def close(self) -> None:
        pass


class _TimedReader(io.RawIOBase):
    def __init__(self, inner: socket.socket, limits: _Limits) -> None:
        self._inner, self._limits = inner, limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._inner.settimeout(self._limits.left())
        return self._inner.recv_into(buffer)


class _Timed:
    """Mixed into a connection: connects to answers looked up before, within the limits."""

    limits: _Limits
    sock: Any

    def prepare(self, answers: list[tuple[Any, ...]], limits: _Limits) -> None:
        self.limits = limits

        def connect(*_: Any) -> socket.socket:
            problem: OSError = OSError("the host has no address")
            for family, kind, protocol, _, place in answers:
                inner = socket.socket(family, kind, protocol)
                limits.socket = inner
                try:
                    inner.settimeout(limits.left())
                    inner.connect(place)
                    return inner
                except OSError as error:
                    inner.close()
                    problem = error
            raise problem

        self._create_connection = connect

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock = _TimedSocket(self.sock, self.limits)


class _Plain(_Timed, http.client.HTTPConnection):
    pass


class _Encrypted(_Timed, http.client.HTTPSConnection):
    pass


def _connection(address: Address, limits: _Limits, allow_private: bool) -> tuple[Any, str]:
    """Return a connection, not made yet, to a host that may be asked, and what to ask it for."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme)
    if proxy and urllib.request.proxy_bypass(address.host):
        proxy = None
    try:
        answers = resolve(address.host, address.port)
    except OSError:
        if not proxy:
            raise
        answers = []  # only the proxy knows the name
    if not allow_private:
        refuse_private(address.host, answers)
    connection: Any
    target = address.target
    if proxy and answers and allow_private:
        try:
            refuse_private(address.host, answers)
        except RefusedAddressError:
            proxy = None  # nearer than the proxy
    if proxy:
        through = parse_address(proxy if "://" in proxy else f"http://{proxy}")
        answers = resolve(through.host, through.port)
        if address.scheme == "http":
            connection, target = _Plain(through.host, through.port), str(address)
        else:
            connection = _Encrypted(through.host, through.port, context=_context())
            connection.set_tunnel(address.host, address.port)
    elif address.scheme == "http":
        connection = _Plain(address.host, address.port)
    else:
        connection = _Encrypted(address.host, address.port, context=_context())
    connection.prepare(answers, limits)
    return connection, target


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
