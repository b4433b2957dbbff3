"""The part of HTTP/1.1 (RFC 9112) that Prometheus needs: one GET of /metrics a connection. Pure.

The head of a request comes in, up to its empty line, and the whole answer goes out.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from http import HTTPStatus

MAX_HEAD_BYTES = 8192
"""The most bytes of a request's head, up to its empty line."""
END = b"\r\n\r\n"
PATHS = ("/metrics", "/")
Page = Callable[[str], tuple[bytes, str]]
"""Returns the metrics and their content type, in a form that the header Accept allows."""


def is_whole(received: bytes | bytearray) -> bool:
    """Return whether the request can be answered: its head is whole, or too long."""
    return END in received or len(received) > MAX_HEAD_BYTES


def answer(received: bytes, page: Page, token: str | None) -> bytes:
    """Return the answer to a request. It has to carry `token` as a bearer token, unless that is None."""
    if END not in received[: MAX_HEAD_BYTES + len(END)]:
        return _reply(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    lines = received.partition(END)[0].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _reply(HTTPStatus.BAD_REQUEST)
    method, path, _ = words
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if token is not None and not _shows(headers, token):
        return _reply(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})
    if method not in ("GET", "HEAD"):
        return _reply(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
    if path.partition("?")[0] not in PATHS:
        return _reply(HTTPStatus.NOT_FOUND)
    body, kind = page(headers.get("accept", ""))
    return _reply(HTTPStatus.OK, {"Content-Type": kind}, body, has_body=method == "GET")


def _shows(headers: Mapping[str, str], token: str) -> bool:
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), token.encode())


def _reply(
    status: HTTPStatus, headers: Mapping[str, str] | None = None, body: bytes = b"", *, has_body: bool = True
) -> bytes:
    told = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    return "\r\n".join(lines).encode() + (body if has_body else b"")
