"""Keys in files: the engine's own, its allow-list, and our keys for the engines that we know.

FOLDER/engine.json           the engine's own pair, made when it is first needed
FOLDER/clients/NAME.json     a client's public key: this engine's allow-list
FOLDER/engines/HOST_PORT.json  an engine's public key, and our own pair and name there
FOLDER/metrics.token         the token that a scraper of the metrics has to show, if one is wanted

Files are JSON with keys as Z85 text, have mode 0600, and are refused if others can read them. The pairs are libzmq's
own (CURVE, libsodium).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import os
import re
import secrets
import time
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from taskengine.errors import KeysError
from taskengine.protocol.layouts import SCHEDULE_CLIENT
from taskengine.security.private_files import read_private, write_private

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_ADDRESS = re.compile(r"tcp://([^/]+):(\d{1,5})")
_LINE = "taskengine-pair:"
SETTLED_S = 2.0
"""A folder that has not changed for so many s is listed once more, and then not again."""
TOKEN_FILE = "metrics.token"  # noqa: S105  # a file's name


class Pair(msgspec.Struct, frozen=True):
    """A public and a secret key."""

    public: str
    secret: str

    @property
    def is_valid(self) -> bool:
        """Return whether both keys have the form of keys."""
        return bool(_KEY.fullmatch(self.public) and _KEY.fullmatch(self.secret))


class Known(msgspec.Struct, frozen=True):
    """A client as the engine knows it."""

    name: str
    public: str


class Membership(msgspec.Struct, frozen=True):
    """An engine as a client knows it: its address and public key, and the name and the pair that it lets in."""

    address: str
    engine: str
    name: str
    own: Pair


def default_folder() -> Path:
    """Return the platform's folder for configuration, where keys lie unless a folder is named.

    Raises KeysError without a home.
    """
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "taskengine" / "keys"
    except RuntimeError:
        user = f", and user {os.getuid()} has no entry in /etc/passwd" if hasattr(os, "getuid") else ""
        raise KeysError(
            f"there is no folder for keys: HOME and XDG_CONFIG_HOME are not set{user}. Set HOME, or name a folder: "
            "the setting KEYS of an engine, --keys, Client(keys=FOLDER)"
        ) from None


def known_folder(folder: Path | None) -> Path | None:
    """Return the named folder, or the default one; None if no folder is named and there is no home."""
    with contextlib.suppress(KeysError):
        return default_folder() if folder is None else folder
    return None


def new_pair() -> Pair:
    """Make a new pair."""
    public, secret = zmq.curve_keypair()
    return Pair(public.decode(), secret.decode())


def fingerprint(public: str) -> str:
    """Return a public key in a form to read aloud.

    It is the first 16 bytes of its SHA-256, in pairs of hexadecimal digits.
    """
    return hashlib.sha256(public.encode()).digest()[:16].hex(":", 2)


Stamp = tuple[tuple[str, int, int, int], ...]
"""For each client's file: name, times of modification and of change, size."""


def _state_of(folder: Path) -> tuple[int, ...]:
    """Return what changes with the names in a folder. Raises FileNotFoundError."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino, status.st_ctime_ns  # a time that nobody can set back


class KeyRing:
    """The keys in `folder`. Raises KeysError for files that cannot be trusted, read or written."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self._listed: tuple[tuple[int, ...], list[str]] | None = None
        """The state of the folder of clients when it was listed, and the names of its files,"""
        self._seen: tuple[tuple[int, ...], float] | None = None
        """and its state when it was first looked at after a change, and that time, in monotonic s."""

    @property
    def has_engine(self) -> bool:
        """Return whether the engine has a pair already."""
        return os.path.lexists(self.folder / "engine.json")

    def engine(self) -> Pair:
        """Return the engine's own pair; make it if there is none."""
        path = self.folder / "engine.json"
        if not os.path.exists(path):
            try:
                _write(path, new_pair(), replace=False)
            except KeysError:
                if not os.path.exists(path):  # if it exists now, another start was faster
                    raise
        return _read(path, Pair)

    def metrics_token(self) -> str | None:
        """The token that a scraper of the metrics has to show; None if anybody may read them."""
        path = self.folder / TOKEN_FILE
        return read_private(path).decode(errors="replace").strip() if os.path.lexists(path) else None

    def make_metrics_token(self) -> str:
        """Return the metrics token; make it if there is none."""
        path = self.folder / TOKEN_FILE
        if not os.path.lexists(path):
            self._set_token(secrets.token_urlsafe(32), replace=False)
        return self.metrics_token() or ""

    def set_metrics_token(self, token: str) -> None:
        """Take over a metrics token, in place of the one that is there."""
        self._set_token(token, replace=True)

    def _set_token(self, token: str, *, replace: bool) -> None:
        write_private(self.folder / TOKEN_FILE, f"{token}\n".encode(), replace=replace)

    def set_engine(self, pair: Pair) -> None:
        """Take over the engine's own pair, in place of the one that is there. Raises KeysError for an invalid one."""
        if not pair.is_valid:
            raise KeysError("expected a pair of keys, each 40 characters of Z85")
        _write(self.folder / "engine.json", pair, replace=True)

    def set_client(self, known: Known) -> None:
        """Add a client to the allow-list, in place of those that have its name or its key."""
        self.check_client(known.name, known.public)
        other = self.allowed().get(known.public)
        if other == known.name:
            return
        if other is not None:
            self.revoke(other)
        _write(self._client(known.name), known, replace=True)

    def check_client(self, name: str, public: str) -> None:
        """Raise KeysError for an invalid name or key of a client."""
        self._client(name)
        if name == SCHEDULE_CLIENT:
            raise KeysError(f"{name} is the name of the engine's own client, which calls periodic tasks: take another")
        if not _KEY.fullmatch(public):
            raise KeysError(f"a public key is 40 characters of Z85, not {public!r}")

    def allow(self, name: str, public: str) -> None:
        """Add a client to the allow-list."""
        self.check_client(name, public)
        other = self.allowed().get(public)
        if other not in (None, name):
            raise KeysError(f"that key is client {other}'s already")
        _write(self._client(name), Known(name, public), replace=False)

    def revoke(self, name: str) -> None:
        """Remove a client from the allow-list."""
        try:
            self._client(name).unlink()
        except FileNotFoundError:
            raise KeysError(f"no client is named {name!r}; `taskengine keys list` shows them") from None

    def allowed(self) -> dict[str, str]:
        """Return the names of the clients that are let in, by their public keys."""
        allowed, left_out = self.admitted()
        if left_out:
            raise left_out[0]
        return allowed

    def admitted(self) -> tuple[dict[str, str], list[KeysError]]:
        """Return the allow-list as `allowed` does, with an error for each file that cannot be used and is left out.

        Raises OSError if the system prevents all reading, for example when no descriptors are left.
        """
        allowed, left_out = {}, []
        for path in sorted(self.folder / "clients" / name for name in self._files()):
            try:
                known = _read(path, Known)
                allowed[known.public] = known.name
            except KeysError as error:
                if os.path.exists(path):  # else it was revoked this moment
                    left_out.append(error)
        return allowed, left_out

    def stamp(self) -> Stamp:
        """Return a value that changes when the allow-list does, or when one of its files becomes usable or unusable."""
        found = []
        for name in self._files():
            with contextlib.suppress(FileNotFoundError):  # it was revoked this moment
                status = os.stat(self.folder / "clients" / name)
                found.append((name, status.st_ctime_ns, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def changed(self, stamp: Stamp) -> list[str]:
        """Return the names of clients whose files have changed since the stamp; needs no descriptor."""
        found = []
        for name, *was in stamp:
            now: list[int] = []  # of one that was revoked
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(self.folder / "clients" / name)
                now = [status.st_ctime_ns, status.st_mtime_ns, status.st_size]
            if now != was:
                found.append(name.removesuffix(".json"))
        return found

    def _files(self) -> list[str]:
        """Return the names of the files of clients; needs no descriptor where there are the same as before."""
        folder = self.folder / "clients"
        try:
            state = _state_of(folder)
            if self._listed is not None and self._listed[0] == state:
                return self._listed[1]
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        except FileNotFoundError:
            return []
        # a file that comes in the tick of the clock in which the last one came does not change the folder's time
        now = time.monotonic()
        if self._seen is None or self._seen[0] != state:
            self._seen = (state, now)
        self._listed = (state, names) if now - self._seen[1] >= SETTLED_S else None
        return names

    def pair(self, name: str, address: str) -> str:
        """Make a client's key, let it in, and return the line that `accept` takes on the client's machine."""
        self._engine(address)
        own = new_pair()
        self.allow(name, own.public)
        data = msgspec.json.encode(Membership(address, self.engine().public, name, own))
        return _LINE + base64.urlsafe_b64encode(data).decode()

    def join(self, address: str, engine: str, name: str) -> Membership:
        """Make our own key for an engine whose public key is `engine`; the engine still has to allow it."""
        if not (_KEY.fullmatch(engine) and _NAME.fullmatch(name)):
            raise KeysError(f"a name and a public key of 40 characters are needed, not {name!r} and {engine!r}")
        membership = Membership(address, engine, name, new_pair())
        _write(self._engine(address), membership, replace=True)
        return membership

    def enter(self, membership: Membership) -> None:
        """Add an engine that lets us in. Raises KeysError for invalid keys and names."""
        self.check_membership(membership)
        _write(self._engine(membership.address), membership, replace=True)

    def check_membership(self, membership: Membership) -> None:
        """Raise KeysError for an invalid address, name or key."""
        self._engine(membership.address)
        if not (_NAME.fullmatch(membership.name) and _KEY.fullmatch(membership.engine) and membership.own.is_valid):
            raise KeysError("expected a name and a key of an engine")

    def check_free(self, name: str) -> None:
        """Raise KeysError if there is a client of that name."""
        if os.path.lexists(self._client(name)):
            raise KeysError(
                f"there is a client {name!r} already: `taskengine keys revoke {name}` first, or another name"
            )

    def accept(self, line: str) -> Membership:
        """Add the engine of a line from `pair`."""
        try:
            data = base64.urlsafe_b64decode(line.strip().removeprefix(_LINE).encode())
            membership = msgspec.json.decode(data, type=Membership)
        except (ValueError, msgspec.MsgspecError):
            raise KeysError("expected a line of `taskengine keys pair`") from None
        try:
            self.enter(membership)
        except KeysError as error:
            raise KeysError(f"expected a line of `taskengine keys pair`: {error}") from None
        return membership

    def membership(self, address: str) -> Membership | None:
        """Return our membership of the engine at `address`, None if there is none."""
        path = self._engine(address)
        return _read(path, Membership) if os.path.exists(path) else None

    def memberships(self) -> list[Membership]:
        """Return all engines that this folder knows."""
        engines = self.folder / "engines"
        return [_read(path, Membership) for path in sorted(engines.glob("*.json"))] if os.path.isdir(engines) else []

    def forget(self, address: str) -> None:
        """Remove our key for an engine."""
        try:
            self._engine(address).unlink()
        except FileNotFoundError:
            raise KeysError(f"there is no key for {address}; `taskengine keys list` shows them") from None

    def _client(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise KeysError(f"a client's name is up to 64 letters, digits, dots, dashes and underscores, not {name!r}")
        return self.folder / "clients" / f"{name}.json"

    def _engine(self, address: str) -> Path:
        found = _ADDRESS.fullmatch(address)
        if not found or not 0 < int(found[2]) < 2**16:
            raise KeysError(f"an engine's address is tcp://HOST:PORT, not {address!r}")
        host = "127.0.0.1" if found[1] == "localhost" else found[1]
        return self.folder / "engines" / f"{re.sub('[^A-Za-z0-9.-]', '_', host)}_{found[2]}.json"


def find_membership(
    address: str, folder: Path | None, engine: str = "", *, insecure: bool = False
) -> Membership | None:
    """Return our membership of the engine at `address`; None if no key is known for it, so that nothing is encrypted.

    `engine` selects one of several: a host, with or without its domain or port, or the fingerprint of its key. Without
    it the choice is the engine accepted at this address. Otherwise, off loopback or with a named folder, it is the only
    engine that is known, except that a client that may be `insecure` does not guess. Raises KeysError if none or
    several match.
    """
    is_tcp = _ADDRESS.fullmatch(address) is not None
    place = known_folder(folder)
    if not engine and folder is None and not (place and os.path.isdir(place) and is_tcp):
        return None
    ring = KeyRing(folder)
    known = ring.memberships()
    if engine:
        known = [membership for membership in known if engine in _names(membership)]
        if not known:
            raise KeysError(f"{ring.folder} has no key for engine {engine!r}; `taskengine keys list` shows the engines")
    elif (exact := ring.membership(address)) is not None:
        return exact
    elif folder is None and (insecure or is_loopback(address)):
        return None
    if len({(membership.engine, membership.own.public) for membership in known}) > 1:
        listed = ", ".join(membership.address for membership in known[:5])
        raise KeysError(
            f"{address} may be any of the engines at {listed}: say which, by Client(engine=HOST), or by --engine HOST"
        )
    if not known and folder is not None:
        raise KeysError(f"{folder} has no key for {address}: run `taskengine keys accept` with --keys {folder}")
    return known[0] if known else None


def _names(membership: Membership) -> set[str]:
    """Return the names by which a user may call an engine."""
    host, port = membership.address.removeprefix("tcp://").rsplit(":", 1)
    names = {membership.address, host, f"{host}:{port}", membership.engine, fingerprint(membership.engine)}
    return names if re.fullmatch(r"[0-9.]+|\[.*\]", host) else names | {host.partition(".")[0]}


def host_of(address: str) -> str:
    """Return the host of an engine's address, without brackets. Raises KeysError for an invalid address."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise KeysError(f"an engine's address is tcp://HOST:PORT, not {address!r}")
    return found[1].strip("[]")


def is_loopback(address: str) -> bool:
    """Return whether data sent to `address` stays on this machine, judged by the address alone."""
    found = re.fullmatch(r"tcp://(?:[^;]*;)?(.+):\d+", address)
    if found is None:
        return address.startswith(("ipc://", "inproc://"))
    host = found[1].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_encrypted(address: str, membership: Membership | None, *, insecure: bool) -> None:
    """Keep a client from talking unencrypted to other machines, where any program could pose as the engine.

    Raises KeysError off loopback if no key of the engine is known, unless `insecure`.
    """
    if membership is None and not insecure and not is_loopback(address):
        raise KeysError(
            f"no key is known for {address}, and only on loopback does a client speak unencrypted: run "
            f"`taskengine keys pair NAME` there and `taskengine keys accept {address}` here, or say insecure=True "
            "(--insecure)"
        )


def not_let_in(address: str, membership: Membership | None) -> str:
    """Return the message for a client whose handshake did not complete although an engine was there."""
    if membership is None:
        return (
            f"the engine at {address} lets only clients in whose key it knows: run `taskengine keys pair NAME` there "
            f"and `taskengine keys accept {address}` here"
        )
    return (
        f"the handshake with {address} did not complete: its key may have changed, or that of {membership.name!r} is "
        f"no longer allowed, or it does not encrypt. Expected an engine with the fingerprint "
        f"{fingerprint(membership.engine)} (`taskengine keys show` there). If it is another on purpose, run "
        f"`taskengine keys pair NAME` there and `taskengine keys accept {address}` here"
    )


T = TypeVar("T", Pair, Known, Membership)


def _write(path: Path, value: msgspec.Struct, *, replace: bool) -> None:
    write_private(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n", replace=replace)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(read_private(path), type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        if isinstance(error, KeysError):
            raise
        raise KeysError(f"{path}: no key file: {error}") from None
