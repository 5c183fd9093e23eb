"""Which URLs may be downloaded: HTTP(S) only, nothing inside the own network."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Everything that an address may hold besides letters and digits, the escapes of others included.
_KEPT = "/%:@!$&'()*+,;=~-._?"


class RefusedAddressError(ValueError):
    """An address that is not asked; ``reason`` says why, without the address."""

    def __init__(self, address: object, reason: str) -> None:
        super().__init__(f"{shortened(address)}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Address:
    """The parts of an http(s) address; ``target`` is path and query, escaped."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_header}{self.target}"


DEFAULT_PORTS = {"http": 80, "https": 443}


def shortened(address: object) -> str:
    """Return an address as messages show it: one with data in it may be of any length."""
    text = str(address)
    return text if len(text) <= 300 else f"{text[:100]}…"


def parse_address(url: str) -> Address:
    """Take an address apart.

    Raises:
        RefusedAddressError: it is not of http or https, has no host, a password or a wrong port.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
        if host:
            host = host.encode("idna").decode() if not host.isascii() else host
    except ValueError as error:
        raise RefusedAddressError(url, f"no valid address ({error})") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise RefusedAddressError(url, "only http and https are fetched")
    if not host or parts.username is not None or any(sign <= " " for sign in host):
        raise RefusedAddressError(url, "expected http(s)://host/path, without user or password")
    target = quote(parts.path or "/", safe=_KEPT)
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT)
    return Address(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], target)


def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return what ``socket.getaddrinfo`` says of a host, for TCP.

    Raises:
        OSError: the name cannot be resolved.
    """
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError as error:  # a label that is empty or too long
        raise RefusedAddressError(host, "no valid host name") from error


def refuse_private(host: str, answers: list[tuple[Any, ...]]) -> None:
    """Raise where any address of a host is not one of the public internet."""
    for *_, place in answers:
        if not is_public(place[0]):
            where = "" if place[0] == host else f" ({place[0]})"
            raise RefusedAddressError(
                host,
                "an address of this machine or of a private network: add --allow-private if you"
                f" mean it{where}",
            )


def is_public(text: str) -> bool:
    """Say whether an IP address belongs to the public internet, also one that wraps another."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.teredo is not None:
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not (address.is_multicast or address.is_reserved)
