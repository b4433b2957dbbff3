"""Exchanges public keys between two machines that know a short code, safe from a machine between them. Pure.

SPAKE2 (RFC 9382, the library `spake2`) derives from the code a key that both sides have. A machine that does not know
the code gets one guess for each try, and learns nothing from what it has heard. Each message is a line of JSON:

client  Hello    its part of the exchange
engine  Hello    its own
client  Proof    its public key, and proof that it has the key derived from the code
engine  Welcome  the engine's public key, the client's name, and the same proof; or Refusal
"""

from __future__ import annotations

import hmac
from typing import Any, TypeVar

import msgspec

from taskengine.errors import KeysError, printable

CODE_S = 600.0
"""How long a code is valid, in s,"""
TRIES = 3
"""and for how many wrong tries; one right try uses it up."""
DIGITS = 8
LONGEST_LINE = 1024
_PART_BYTES = 33
_NAMES = {"idA": b"taskengine client", "idB": b"taskengine engine"}


class PairingHello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One side's part of the exchange."""

    part: bytes


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The client's public key, and the proof that it knows the code."""

    public: str
    proof: bytes


class Welcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The engine's public key, the client's name there, and the proof that the engine knows the code."""

    public: str
    name: str
    proof: bytes


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The reason of a refusal."""

    error: str


class PairingCode:
    """A code, made at `now`, monotonic s, and how many tries are left."""

    def __init__(self, text: str, now: float) -> None:
        self.text = text
        self.end = now + CODE_S
        self.tries = TRIES

    def check(self, now: float) -> None:
        """Raise KeysError if the code is not valid any more."""
        if now >= self.end:
            raise KeysError(f"the code was valid for {CODE_S / 60:g} min, and has expired")
        if not self.tries:
            raise KeysError("the code was used, or entered wrongly too often")

    def fail(self) -> None:
        """Count a wrong try."""
        self.tries -= 1

    def use_up(self) -> None:
        """End the code, which has been used."""
        self.tries = 0


class Host:
    """The engine's side of one try: `begin` answers the first line, `admit` checks the second, `welcome` answers it."""

    def __init__(self, code: PairingCode) -> None:
        self._code = code
        self._key = b""
        self._public = ""

    def begin(self, line: bytes, now: float) -> bytes:
        """Answer the client's Hello. Raises KeysError."""
        self._code.check(now)
        side, part = _side("B", self._code.text)
        self._key = _finish(side, _read(line, PairingHello).part)
        return _line(PairingHello(part))

    def admit(self, line: bytes, now: float) -> str:
        """Return the client's public key if it knows the code. Raises KeysError, and counts a wrong try."""
        self._code.check(now)
        shown = _read(line, Proof)
        if not hmac.compare_digest(shown.proof, _client_proof(self._key, shown.public)):
            self._code.fail()
            raise KeysError(f"wrong code; {self._code.tries} more tries are left")
        self._code.use_up()
        self._public = shown.public
        return shown.public

    def welcome(self, engine: str, name: str) -> bytes:
        """Return the answer to a client that was let in."""
        return _line(Welcome(engine, name, _engine_proof(self._key, engine, name, self._public)))


def refusal(error: KeysError) -> bytes:
    """Return the answer to a client that was refused."""
    return _line(Refusal(str(error)))


class Guest:
    """The client's side, with a typed `code` and its own `public` key: `hello`, `show`, then `accept`."""

    def __init__(self, code: str, public: str) -> None:
        self._public = public
        self._side, self._part = _side("A", digits(code))
        self._key = b""

    def hello(self) -> bytes:
        """Return the first line."""
        return _line(PairingHello(self._part))

    def show(self, line: bytes) -> bytes:
        """Return the second line, in answer to the engine's Hello. Raises KeysError."""
        self._key = _finish(self._side, _answer(line, PairingHello).part)
        return _line(Proof(self._public, _client_proof(self._key, self._public)))

    def accept(self, line: bytes) -> tuple[str, str]:
        """Return the engine's public key and our name there.

        Raises KeysError, also if the engine did not know the code.
        """
        welcome = _answer(line, Welcome)
        proof = _engine_proof(self._key, welcome.public, welcome.name, self._public)
        if not hmac.compare_digest(welcome.proof, proof):
            raise KeysError("the other side does not know the code and may not be the engine: make another code")
        return welcome.public, welcome.name


def digits(code: str) -> str:
    """Return a typed code without the characters between its digits. Raises KeysError for an invalid one."""
    found = "".join(character for character in code if character in "0123456789")
    if len(found) != DIGITS or any(character.isalpha() for character in code):
        raise KeysError(f"a code has {DIGITS} digits, such as 1234-5678; `taskengine keys pair NAME` shows it")
    return found


def _side(side: str, code: str) -> tuple[Any, bytes]:
    """Return one side of the exchange, and its part of it."""
    try:
        import spake2
    except ImportError:
        raise KeysError(
            "a code needs the library spake2: `pip install spake2`; without it, take the long line of "
            "`taskengine keys pair NAME --line`"
        ) from None
    made = (spake2.SPAKE2_A if side == "A" else spake2.SPAKE2_B)(digits(code).encode(), **_NAMES)
    part: bytes = made.start()
    return made, part


def _finish(side: Any, part: bytes) -> bytes:
    from spake2 import SPAKEError

    if len(part) != _PART_BYTES:
        raise KeysError("malformed part of a key exchange")
    try:
        key: bytes = side.finish(part)
    except (SPAKEError, ValueError):
        raise KeysError("malformed part of a key exchange") from None
    return key


def _client_proof(key: bytes, public: str) -> bytes:
    return hmac.digest(key, b"client\0" + public.encode(), "sha256")


def _engine_proof(key: bytes, engine: str, name: str, public: str) -> bytes:
    return hmac.digest(key, "\0".join(("engine", engine, name, public)).encode(), "sha256")


def _line(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message) + b"\n"


M = TypeVar("M", PairingHello, Proof, Welcome)


def _read(line: bytes, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, ValueError):
        raise KeysError("malformed message of a key exchange") from None


def _answer(line: bytes, kind: type[M]) -> M:
    """Read the engine's answer. Raises KeysError if it is a Refusal."""
    try:
        error = msgspec.json.decode(line, type=Refusal).error
    except (msgspec.MsgspecError, ValueError):
        return _read(line, kind)
    raise KeysError(f"the engine says: {printable(error)}")
