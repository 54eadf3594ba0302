"""Where to listen: addresses as Prometheus exporters take them, and the sockets for them.

ListenError      an address cannot be listened on; the text says which and what to do
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_WHAT_TO_DO = {
    errno.EADDRINUSE: "another process listens there; stop it or choose another address",
    errno.EACCES: "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE); choose a higher port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own, or leave the host out for all",
}


class ListenError(Exception):
    """An address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host, empty for all of the machine's addresses, and a port, 0 for any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``:10058``, ``127.0.0.1:10058``, ``[::1]:10058`` or ``host:10058``; raises `ListenError`."""
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        raise ListenError(f"cannot listen on {text!r}: write it as host:port or :port, such as :10058")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ListenError(f"cannot listen on {text!r}: the port is a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ListenError(f"cannot listen on {text!r}: put an IPv6 address in brackets, such as [::1]:10058")
    return Address(host, int(port))


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, is only reached from the machine itself; an empty one is not."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


async def open_socket(address: Address) -> socket.socket:
    """Return a bound socket; without a host it takes IPv6 and IPv4, or IPv4 alone where there is no IPv6.

    A host name is looked up, and its first address, IPv4 before IPv6, is taken. Raises `ListenError`.
    """
    try:
        if address.host in {"", "::"}:
            return _open_everywhere(address)
        family, where = await _look_up(address)
        return _open(family, where)
    except OSError as error:
        what = _WHAT_TO_DO.get(error.errno or 0, "choose another address")
        reason = error.strerror or str(error)
        raise ListenError(f"cannot listen on {address}: {reason}: {what}") from None


def _open_everywhere(address: Address) -> socket.socket:
    try:
        return _open(socket.AF_INET6, ("::", address.port))
    except OSError as error:
        if address.host or error.errno not in _NO_IPV6:
            raise
        return _open(socket.AF_INET, ("0.0.0.0", address.port))  # noqa: S104 - no host means everywhere


async def _look_up(address: Address) -> tuple[socket.AddressFamily, Any]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, where = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, where


def _open(family: socket.AddressFamily, where: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
        sock.bind(where)
        sock.listen(1024)
        sock.setblocking(False)  # noqa: FBT003 - positional only
    except OSError:
        sock.close()
        raise
    return sock


def bound_address(sock: socket.socket) -> Address:
    """Return where a socket really listens."""
    host, port, *_ = sock.getsockname()
    return Address(str(host), int(port))
