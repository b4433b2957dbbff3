from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.origins import Moment, Origins, is_near, latest_sending
from taskengine.broker.package import decode_head, encode_head
from taskengine.errors import ProtocolError
from taskengine.protocol.limits import MAX_TOKEN
from taskengine.protocol.messages import Request, RequestKind, decode_request, encode_request
from taskengine.runtime.clocks import MachineClock, boot_number

S = 10**9
SLEPT = 500 * S
"""For how long the machine has slept, which only CLOCK_BOOTTIME counts."""
NOW = Moment(1000 * S, 1000 * S + SLEPT)


def request(*, sent: int = 0, bound: int = 0, token: bytes = b"", since: int = 0) -> Request:
    return Request(RequestKind.PACKAGE, 1, "laptop", sent=sent, bound=bound, token=token, since=since)


def test_the_clients_clock_is_made_ours() -> None:
    asked = request(sent=990 * S + SLEPT, bound=2 * S, token=b"t", since=900 * S + SLEPT)
    origin = Origins(b"epoch").of("laptop", b"id", NOW, asked, is_local=False)
    assert (origin.client, origin.connection, origin.holder) == ("laptop", b"epochid", b"laptop\0t")
    assert (origin.sent, origin.bound, origin.since, origin.is_local) == (988 * S, 2 * S, 898 * S, False)
    assert latest_sending(origin) == 992


def test_what_says_no_time_is_as_old_as_its_reception() -> None:
    origins = Origins(b"")
    for asked in (None, request(), request(bound=S)):
        origin = origins.of("", b"id", NOW, asked)
        assert (origin.sent, origin.bound, origin.since) == (0, 0, 0)
        assert latest_sending(origin) == pytest.approx(1000)
        assert origin.holder == origin.connection


def test_a_time_in_the_future_is_that_of_the_reception() -> None:
    origin = Origins(b"").of(
        "", b"id", NOW, request(sent=2000 * S + SLEPT, bound=S, token=b"t", since=2000 * S + SLEPT)
    )
    assert origin.sent == origin.since == origin.received == NOW.monotonic
    assert latest_sending(origin) == 1000


def test_no_two_packages_have_the_same_order() -> None:
    origins = Origins(b"")
    orders = [origins.of("", b"id", NOW, None).received for _ in range(3)]
    orders.append(origins.next(NOW.monotonic))
    orders.append(origins.of("", b"id", Moment(NOW.monotonic - 5, 0), None).received)
    assert orders == [NOW.monotonic + number for number in range(5)]


def test_a_routers_connections_are_not_anothers() -> None:
    first, second = (Origins(epoch).of("", b"id", NOW, None) for epoch in (b"one", b"two"))
    assert first.connection != second.connection
    assert first.holder != second.holder


def test_a_holder_is_a_name_and_a_token() -> None:
    origins = Origins(b"")
    holders = {
        origins.of(name, identity, NOW, request(token=token)).holder
        for name, identity, token in [("a", b"1", b"t"), ("a", b"2", b"t"), ("b", b"1", b"t"), ("a", b"1", b"u")]
    }
    assert len(holders) == 3
    with pytest.raises(ProtocolError, match="token"):
        origins.of("a", b"1", NOW, request(token=bytes(MAX_TOKEN + 1)))


numbers = st.integers(-(2**63), 2**64 - 1)


@given(numbers, numbers, numbers, st.binary(max_size=MAX_TOKEN))
def test_whatever_a_client_says_is_a_time_that_has_been(sent: int, bound: int, since: int, token: bytes) -> None:
    asked = request(sent=sent, bound=bound, token=token, since=since)
    assert decode_request(encode_request(asked)) == asked
    origin = Origins(b"").of("", b"id", NOW, asked)
    assert 0 <= origin.sent <= origin.received
    assert 0 <= origin.since <= origin.received
    assert 0 <= latest_sending(origin) <= origin.received / S
    assert decode_head(encode_head("1", [], origin))[2] == origin


@pytest.mark.parametrize(
    ("peer", "near"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost:0:0:7127", True),
        ("", False),
        ("192.168.1.5", False),
        ("::ffff:192.168.1.5", False),
        ("fe80::1%eth0", False),
    ],
)
def test_who_is_near(peer: str, near: bool) -> None:
    assert is_near(peer) is near


def test_the_clock_tells_what_clients_are_told() -> None:
    clock = MachineClock()
    before, now, after = clock.told(), clock.now(), clock.told()
    assert before <= now.boottime <= after
    assert 0 < clock.boot < 2**63
    assert boot_number("ffffffff-ffff-ffff-0000-000000000000\n") == 2**63 - 1
