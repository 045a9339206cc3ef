"""A picture from the web, for servers that allow it: nothing but public addresses, checked at every hop.

A name is resolved once a hop; if any of its addresses is not public the hop is refused; the connection goes to the
address that was checked and not to the name, so that a name that changes its mind in between is of no use. Redirects
are followed by hand and checked again. No proxies, cookies or credentials; limits on size and on the time of all hops.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import SplitResult, urljoin, urlsplit

from mmcam.errors import UserError

__all__ = ["Connect", "Resolve", "fetch", "public", "resolve"]

PORTS = {"http": 80, "https": 443}
MOST_HOPS = 4
LONGEST_URL = 2000
REDIRECTS = (301, 302, 303, 307, 308)
CHUNK = 2**16

Resolve = Callable[[str, int], list[str]]
"""(host, port) → addresses."""
Connect = Callable[[str, int, float], socket.socket]
"""(address, port, seconds) → a connected socket."""


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def public(address: str) -> bool:
    """Tell whether an address is one of the open internet's: not private, loopback, link-local, multicast, reserved.

    An address of version 6 that carries one of version 4 (mapped, 6to4) is judged by that one too; Teredo's and NAT64's
    are reserved, and refused altogether.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # with a zone (fe80::1%eth0), or no address
        return False
    carried = None
    if isinstance(ip, ipaddress.IPv6Address):
        ip, carried = ip.ipv4_mapped or ip, ip.sixtofour
    return all(
        one.is_global and not (one.is_multicast or one.is_reserved or one.is_unspecified or one.is_private)
        for one in (ip, carried or ip)
    )


def fetch(
    url: str,
    *,
    most_bytes: int = 20_000_000,
    seconds: float = 15.0,
    resolver: Resolve = resolve,
    connect: Connect = lambda address, port, timeout: socket.create_connection((address, port), timeout),
) -> bytes:
    """Get what a URL names.

    Args:
        url: Begins with http:// or https://.
        most_bytes: Larger files are refused.
        seconds: For all hops together.
        resolver: Names to addresses.
        connect: To an address that was checked.

    Returns:
        The bytes; whether they are a picture is for `mmcam.image.read_image` to say.

    Raises:
        UserError: The URL is refused, nobody answers, or the answer is no file or too large.
    """
    deadline = time.monotonic() + seconds
    for _ in range(MOST_HOPS):
        parts = _checked(url)
        port = parts.port or PORTS[parts.scheme]
        address = _address(cast(str, parts.hostname), port, resolver)
        left = deadline - time.monotonic()
        if left <= 0:
            raise _late(seconds)
        try:
            status, where, data = _get(parts, address, port, left, most_bytes, connect)
        except UserError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline - 0.05:
                raise _late(seconds) from error
            raise UserError(
                f"{parts.hostname}: expected a file, but the connection failed; check the address"
            ) from error
        if status in REDIRECTS and where:
            url = urljoin(url, where)
            continue
        if time.monotonic() >= deadline:
            raise _late(seconds)
        if status != 200:
            raise UserError(f"{parts.hostname}: expected a file, got status {status}; check the address")
        return data
    raise UserError(f"expected at most {MOST_HOPS - 1} redirects, got more; give the address of the file itself")


def _checked(url: str) -> SplitResult:
    """Take a URL apart, if it is one that may be fetched."""
    if len(url) > LONGEST_URL or not url.isprintable() or " " in url:
        raise UserError("expected the address of a picture, got a text that is none; it begins with https://")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UserError(f"expected the address of a picture, got one that is malformed ({error})") from error
    if parts.scheme not in PORTS:
        raise UserError(f"expected an address with http:// or https://, got {parts.scheme or 'none'!r}; copy all of it")
    if not parts.hostname:
        raise UserError("expected an address with a host, got none; it looks like https://host/picture.jpg")
    if parts.username is not None or parts.password is not None:
        raise UserError("expected an address without a user's name in it; leave it out")
    if port not in (None, *PORTS.values()):
        raise UserError(f"expected port 80 or 443, got {port}; other ports are not fetched from")
    return parts


def _address(host: str, port: int, resolver: Resolve) -> str:
    """The first of a name's addresses, if all of them are public."""
    try:
        addresses = resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{host}: expected a host that is known, but it has no address; check the spelling") from error
    if not addresses or not all(public(address) for address in addresses):
        raise UserError(f"{host}: expected a host of the open internet, got one that is not; upload the picture")
    return addresses[0]


def _get(
    parts: SplitResult, address: str, port: int, seconds: float, most_bytes: int, connect: Connect
) -> tuple[int, str | None, bytes]:
    """One hop: status, where it redirects to, and the content of a status of 200."""
    host = cast(str, parts.hostname)
    host = host if host.isascii() else host.encode("idna").decode()
    opened = [connect(address, port, seconds)]
    # A server that sends one byte a second would never hit the socket's own limit.
    alarm = threading.Timer(seconds, _shut, [opened])
    alarm.daemon = True
    alarm.start()
    try:
        opened[0].settimeout(seconds)
        if parts.scheme == "https":
            tls = ssl.create_default_context()
            opened[0] = secure = tls.wrap_socket(opened[0], server_hostname=host, do_handshake_on_connect=False)
            secure.do_handshake()
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
        connection.sock = opened[0]
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        shown = f"[{host}]" if ":" in host else host
        headers = {
            "Host": shown if parts.port is None else f"{shown}:{port}",
            "User-Agent": "mmcam-demo",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        connection.request("GET", _quoted(path), headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return answer.status, answer.getheader("Location"), b""
        declared = answer.getheader("Content-Length", "")
        if declared.isdecimal() and int(declared) > most_bytes:
            raise _large(most_bytes)
        data = b""
        while chunk := answer.read(CHUNK):
            data += chunk
            if len(data) > most_bytes:
                raise _large(most_bytes)
        if declared.isdecimal() and len(data) < int(declared):
            raise http.client.IncompleteRead(data)
        return 200, None, data
    finally:
        alarm.cancel()
        opened[0].close()


def _quoted(path: str) -> str:
    return "".join(c if c.isascii() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in path)


def _shut(opened: list[socket.socket]) -> None:
    try:
        opened[0].shutdown(socket.SHUT_RDWR)
    except OSError:  # closed in the meantime
        return


def _late(seconds: float) -> UserError:
    return UserError(f"expected the file within {seconds:g} seconds, but it did not come; upload the picture")


def _large(most_bytes: int) -> UserError:
    return UserError(f"expected a file of at most {most_bytes / 1e6:g} MB, got a larger one; make it smaller first")
