"""Keys in one file, so that a new SD card is the same robot: the engine's pair, its clients by name, our memberships.

The file is a line of JSON. With a passphrase the keys in it are encrypted: scrypt (RFC 7914) makes a key from the
passphrase, and ChaCha20-Poly1305 (RFC 8439), both of the library `cryptography`, encrypts and authenticates. Without
one the file is as secret as the keys, and is refused if others can read it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from taskengine.errors import KeysError
from taskengine.security.keys import KeyRing, Known, Membership, Pair
from taskengine.security.private_files import check_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

FORMAT = "taskengine keys"
VERSION = 1
LARGEST = 2**24
"""The largest file that is read, in bytes."""
SALT_BYTES, NONCE_BYTES, KEY_BYTES = 16, 12, 32
COST = 2**15
"""The cost of scrypt with blocks of 8 KiB: 32 MiB, and some 0.1 s on a laptop."""
_MISSING = (
    "a passphrase needs the library cryptography, which the extra `pair` brings (in the clone: "
    "`.venv/bin/pip install '.[pair]'`)"
)


class KeyBackup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of a folder of keys; `metrics` is the token of the metrics, "" for none."""

    engine: Pair | None = None
    clients: list[Known] = []
    engines: list[Membership] = []
    metrics: str = ""


class BackupFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file: the keys as they are, or encrypted."""

    format: str
    version: int
    keys: KeyBackup | None = None
    salt: bytes = b""
    nonce: bytes = b""
    sealed: bytes = b""


def backup_of(ring: KeyRing) -> KeyBackup:
    """Return the keys in a folder. Raises KeysError if there are none, or one cannot be read."""
    backup = KeyBackup(
        engine=ring.engine() if ring.has_engine else None,
        clients=[Known(name, public) for public, name in sorted(ring.allowed().items(), key=lambda item: item[1])],
        engines=ring.memberships(),
        metrics=ring.metrics_token() or "",
    )
    if backup == KeyBackup():
        raise KeysError(f"there are no keys in {ring.folder}: --keys names another folder")
    return backup


def encode_backup(backup: KeyBackup, passphrase: str | None = None) -> bytes:
    """Return the contents of a file; encrypted if there is a passphrase. Raises KeysError."""
    if passphrase is None:
        return msgspec.json.encode(BackupFile(format=FORMAT, version=VERSION, keys=backup)) + b"\n"
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    sealed = _cipher(passphrase, salt).encrypt(nonce, msgspec.json.encode(backup), _header(salt))
    made = BackupFile(format=FORMAT, version=VERSION, salt=salt, nonce=nonce, sealed=sealed)
    return msgspec.json.encode(made) + b"\n"


def read_backup(path: Path) -> BackupFile:
    """Return a file, whose keys may be encrypted.

    Raises KeysError if it is none, or if it is not encrypted and others can read it.
    """
    try:
        with path.open("rb") as opened:
            file = _decoded(path, opened.read(LARGEST + 1))
            if file.keys is not None:
                check_private(path, opened.fileno())
            return file
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None


def _decoded(path: Path, data: bytes) -> BackupFile:
    try:
        file = msgspec.json.decode(data, type=BackupFile)
    except (msgspec.MsgspecError, ValueError):
        raise KeysError(f"{path}: expected a file of `taskengine keys export`") from None
    if file.format != FORMAT or file.version != VERSION:
        raise KeysError(
            f"{path}: it is {file.format!r} of version {file.version}, and this taskengine reads {FORMAT!r} of version "
            f"{VERSION}: import it with the taskengine that has exported it, or a newer one"
        )
    return file


def keys_of(file: BackupFile, passphrase: str | None) -> KeyBackup:
    """Return the keys of a file. Raises KeysError if the passphrase is wrong, or the file was changed."""
    if file.keys is not None:
        return file.keys
    cipher = _cipher(passphrase or "", file.salt)
    from cryptography.exceptions import InvalidTag

    try:
        return msgspec.json.decode(cipher.decrypt(file.nonce, file.sealed, _header(file.salt)), type=KeyBackup)
    except (InvalidTag, ValueError, msgspec.MsgspecError):
        raise KeysError("the passphrase is wrong, or the file was changed") from None


def restore(ring: KeyRing, backup: KeyBackup, *, force: bool) -> None:
    """Write the keys into a folder. Others that are there stay.

    Raises KeysError, before anything is written, if one is invalid, or if one would be replaced without `force`.
    """
    for known in backup.clients:
        ring.check_client(known.name, known.public)
    for membership in backup.engines:
        ring.check_membership(membership)
    if backup.engine is not None and not backup.engine.is_valid:
        raise KeysError("the engine's pair is no pair of keys")
    if not force and (taken := _conflicts(ring, backup)):
        raise KeysError(f"{ring.folder} has other keys already, of {', '.join(taken)}: --force replaces them")
    if backup.engine is not None:
        ring.set_engine(backup.engine)
    for known in backup.clients:
        ring.set_client(known)
    for membership in backup.engines:
        ring.enter(membership)
    if backup.metrics:
        ring.set_metrics_token(backup.metrics)


def _conflicts(ring: KeyRing, backup: KeyBackup) -> list[str]:
    """Return whose keys in the folder differ from those in the backup."""
    found = []
    if backup.engine is not None and ring.has_engine and ring.engine() != backup.engine:
        found.append("the engine")
    allowed = ring.allowed()
    publics = {name: public for public, name in allowed.items()}
    for known in backup.clients:
        if known.public != publics.get(known.name, known.public) or known.name != allowed.get(known.public, known.name):
            found.append(f"client {known.name}")
    for membership in backup.engines:
        if ring.membership(membership.address) not in (None, membership):
            found.append(f"engine {membership.address}")
    if backup.metrics and ring.metrics_token() not in (None, backup.metrics):
        found.append("the metrics")
    return found


def _cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    """Return the cipher whose key is made from a passphrase. Raises KeysError without the library."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError:
        raise KeysError(_MISSING) from None
    return ChaCha20Poly1305(Scrypt(salt, KEY_BYTES, COST, 8, 1).derive(passphrase.encode()))


def _header(salt: bytes) -> bytes:
    """Return what is authenticated beside the keys."""
    return f"{FORMAT} {VERSION} ".encode() + salt
