"""The little of HTTP: what is answered, and that nothing that is sent does more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.supervisor.scrape import END, MAX_HEAD_BYTES, answer, is_whole

TOKEN = "s3cret"  # noqa: S105  # nobody's


def page(accept: str) -> tuple[bytes, str]:
    return b"up 1\n", "text/plain"


def status(request: str, token: str | None = None) -> int:
    assert is_whole(request.encode())
    return int(answer(request.encode(), page, token).split()[1])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("GET /metrics HTTP/1.1", 200),
        ("GET / HTTP/1.0", 200),
        ("GET /metrics?name[]=up HTTP/1.1", 200),
        ("HEAD /metrics HTTP/1.1", 200),
        ("POST /metrics HTTP/1.1", 405),
        ("GET /metrics/../x HTTP/1.1", 404),
        ("GET /etc/passwd HTTP/1.1", 404),
        ("GET /metrics", 400),
        ("GET /metrics HTTP/2", 400),
        ("", 400),
    ],
)
def test_one_page_is_served(line: str, code: int) -> None:
    assert status(f"{line}\r\nHost: robot\r\n\r\n") == code


def test_the_answer_is_whole_and_the_last() -> None:
    head, _, body = answer(b"GET /metrics HTTP/1.1\r\n\r\n", page, None).partition(END)
    assert body == b"up 1\n"
    assert {b"Content-Length: 5", b"Connection: close", b"Content-Type: text/plain"} < set(head.split(b"\r\n"))
    head, _, body = answer(b"HEAD /metrics HTTP/1.1\r\n\r\n", page, None).partition(END)
    assert (b"Content-Length: 5" in head, body) == (True, b"")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Authorization: Bearer s3cret", 200),
        ("authorization:bearer  s3cret ", 200),
        ("Authorization: Bearer s3cre", 401),
        ("Authorization: Bearer \xe9", 401),
        ("Authorization: Basic s3cret", 401),
        ("Authorization: s3cret", 401),
        ("X: y", 401),
    ],
)
def test_a_token_is_wanted_where_there_is_one(header: str, code: int) -> None:
    assert status(f"GET /metrics HTTP/1.1\r\n{header}\r\n\r\n", TOKEN) == code
    assert status(f"GET /nothing HTTP/1.1\r\n{header}\r\n\r\n", TOKEN) == (404 if code == 200 else 401)


def test_a_request_without_end_is_one() -> None:
    assert not is_whole(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 4000)
    assert status("GET /metrics HTTP/1.1\r\nX: " + "y" * MAX_HEAD_BYTES) == 431
    assert status("GET /metrics HTTP/1.1\r\nX: " + "y" * MAX_HEAD_BYTES + "\r\n\r\n") == 431


@given(st.binary(max_size=200))
def test_whatever_comes_is_answered(data: bytes) -> None:
    assert answer(data + END, page, TOKEN).startswith(b"HTTP/1.1 4")
    assert answer(data + END, page, None).startswith(b"HTTP/1.1 ")
