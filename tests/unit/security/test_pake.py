"""The exchange by a code: who knows it gets in, and whoever does not learns nothing from what it hears."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskengine.errors import KeysError
from taskengine.security.keys import new_pair
from taskengine.security.pake import CODE_S, TRIES, Guest, Host, PairingCode, digits, refusal

CODE = "0123-4567"


def exchange(code: PairingCode, guest: Guest, now: float = 1.0) -> tuple[Host, bytes]:
    """The first three lines: the engine's side, and the client's Proof."""
    host = Host(code)
    return host, guest.show(host.begin(guest.hello(), now))


def test_who_knows_the_code_is_let_in_and_knows_the_engine() -> None:
    engine, own = new_pair(), new_pair()
    guest = Guest("01 23 45 67", own.public)
    host, proof = exchange(PairingCode(CODE, 0.0), guest)
    assert host.admit(proof, 1.0) == own.public
    assert guest.accept(host.welcome(engine.public, "laptop")) == (engine.public, "laptop")
    assert own.secret.encode() not in proof


def test_a_code_is_good_once() -> None:
    code = PairingCode(CODE, 0.0)
    host, proof = exchange(code, Guest(CODE, "a"))
    other, late = exchange(code, Guest(CODE, "b"))
    host.admit(proof, 1.0)
    for again, line in ((other, late), (host, proof)):
        with pytest.raises(KeysError, match="was used"):
            again.admit(line, 1.0)
    with pytest.raises(KeysError, match="was used"):
        exchange(code, Guest(CODE, "a"))


def test_a_code_may_be_tried_three_times_also_at_once() -> None:
    code = PairingCode(CODE, 0.0)
    tries = [exchange(code, Guest("7654-3210", str(number))) for number in range(50)]
    right = exchange(code, Guest(CODE, "a"))
    for number, (host, proof) in enumerate(tries):
        said = f"{TRIES - 1 - number} more tries" if number < TRIES else "too often"
        with pytest.raises(KeysError, match=said):
            host.admit(proof, 1.0)
    with pytest.raises(KeysError, match="too often"):
        right[0].admit(right[1], 1.0)


def test_a_code_is_good_for_ten_minutes() -> None:
    code = PairingCode(CODE, 100.0)
    host, proof = exchange(code, Guest(CODE, "a"), 99.0 + CODE_S)
    with pytest.raises(KeysError, match="10 min"):
        host.admit(proof, 100.0 + CODE_S)
    with pytest.raises(KeysError, match="10 min"):
        exchange(code, Guest(CODE, "a"), 100.0 + CODE_S)


def test_a_false_engine_is_found_out_and_so_is_one_in_between() -> None:
    guest = Guest(CODE, "a")
    false = Host(PairingCode("1111-1111", 0.0))
    proof = guest.show(false.begin(guest.hello(), 1.0))
    with pytest.raises(KeysError, match="wrong code"):
        false.admit(proof, 1.0)
    with pytest.raises(KeysError, match="does not know the code"):
        guest.accept(false.welcome("engine", "laptop"))


@pytest.mark.parametrize("field", ["public", "name"])
def test_what_the_engine_says_cannot_be_changed_on_the_way(field: str) -> None:
    guest = Guest(CODE, "a")
    host, proof = exchange(PairingCode(CODE, 0.0), guest)
    host.admit(proof, 1.0)
    told = msgspec.json.decode(host.welcome("engine", "laptop"))
    with pytest.raises(KeysError, match="does not know the code"):
        guest.accept(msgspec.json.encode(told | {field: "other"}))


def test_the_clients_key_cannot_be_changed_on_the_way() -> None:
    host, proof = exchange(PairingCode(CODE, 0.0), Guest(CODE, "a"))
    told = msgspec.json.decode(proof)
    with pytest.raises(KeysError, match="wrong code"):
        host.admit(msgspec.json.encode(told | {"public": "b"}), 1.0)


def test_who_sends_a_line_back_gets_nowhere() -> None:
    guest, host = Guest(CODE, "a"), Host(PairingCode(CODE, 0.0))
    with pytest.raises(KeysError, match="malformed part"):
        guest.show(guest.hello())
    with pytest.raises(KeysError, match="malformed part"):
        host.begin(host.begin(guest.hello(), 1.0), 1.0)


def test_a_refusal_is_told_without_what_acts_on_a_terminal() -> None:
    with pytest.raises(KeysError, match=r"the engine says: no \\x1b") as said:
        Guest(CODE, "a").show(refusal(KeysError("no \x1b[2J")))
    assert str(said.value).isprintable()


@settings(max_examples=50)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(lambda part: msgspec.json.encode({"part": part}))))
def test_any_other_line_is_a_keys_error(line: bytes) -> None:
    code = PairingCode(CODE, 0.0)
    with pytest.raises(KeysError):
        Host(code).begin(line, 1.0)
    with pytest.raises(KeysError):
        Guest(CODE, "a").show(line)
    guest = Guest(CODE, "a")
    host, _ = exchange(code, guest)
    with pytest.raises(KeysError):
        host.admit(line, 1.0)
    with pytest.raises(KeysError):
        guest.accept(line)
    assert code.tries == TRIES, "what is no try costs none"


@pytest.mark.parametrize("text", ["", "1234", "123456789", "1234567a", "12345678a", "١٢٣٤٥٦٧٨"])
def test_what_is_no_code(text: str) -> None:
    with pytest.raises(KeysError, match="8 digits"):
        digits(text)
