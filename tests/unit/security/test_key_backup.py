from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

from taskengine.errors import KeysError
from taskengine.security import key_backup
from taskengine.security.key_backup import KeyBackup, backup_of, encode_backup, keys_of, read_backup, restore
from taskengine.security.keys import KeyRing, Known, Membership, Pair, new_pair
from taskengine.security.private_files import write_private

ADDRESS = "tcp://robot.local:9000"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_backup, "COST", 2**4)


@pytest.fixture
def robot(tmp_path: Path) -> KeyRing:
    """A robot with two clients, which knows another robot."""
    ring = KeyRing(tmp_path / "robot")
    ring.engine()
    ring.allow("laptop", new_pair().public)
    ring.allow("tablet", new_pair().public)
    ring.join("tcp://base:9000", new_pair().public, "rover")
    ring.make_metrics_token()
    return ring


def contents(ring: KeyRing) -> dict[str, bytes]:
    return {str(path.relative_to(ring.folder)): path.read_bytes() for path in ring.folder.rglob("*") if path.is_file()}


def saved(ring: KeyRing, file: Path, passphrase: str | None = None) -> Path:
    write_private(file, encode_backup(backup_of(ring), passphrase), replace=True)
    return file


@pytest.mark.parametrize("passphrase", [None, "correct horse", ""])
def test_a_new_folder_becomes_the_same(robot: KeyRing, tmp_path: Path, passphrase: str | None) -> None:
    file = saved(robot, tmp_path / "file", passphrase)
    assert file.stat().st_mode & 0o777 == 0o600
    made = KeyRing(tmp_path / "new")
    restore(made, keys_of(read_backup(file), passphrase), force=False)
    assert contents(made) == contents(robot)
    restore(made, keys_of(read_backup(file), passphrase), force=False)
    assert contents(made) == contents(robot)
    assert {path.stat().st_mode & 0o777 for path in made.folder.rglob("*") if path.is_file()} == {0o600}


def test_an_encrypted_file_tells_nothing_and_cannot_be_changed(robot: KeyRing, tmp_path: Path) -> None:
    file = saved(robot, tmp_path / "file", "hush")
    data = file.read_bytes()
    for secret in (robot.engine().secret, robot.engine().public, "laptop", "tcp://base"):
        assert secret.encode() not in data
    file.chmod(0o644)  # as on a stick for all systems
    with pytest.raises(KeysError, match="the passphrase is wrong"):
        keys_of(read_backup(file), "hash")
    changed = json.loads(data)
    changed["sealed"] = ("B" if changed["sealed"][0] == "A" else "A") + changed["sealed"][1:]
    file.write_text(json.dumps(changed))
    with pytest.raises(KeysError, match="or the file was changed"):
        keys_of(read_backup(file), "hush")


def test_a_plain_file_that_others_can_read_is_refused(robot: KeyRing, tmp_path: Path) -> None:
    file = saved(robot, tmp_path / "file")
    file.chmod(0o640)
    with pytest.raises(KeysError, match="chmod 600"):
        read_backup(file)


def test_other_keys_are_replaced_only_by_force_and_all_is_looked_at_first(robot: KeyRing, tmp_path: Path) -> None:
    backup = backup_of(robot)
    other = KeyRing(tmp_path / "other")
    other.engine()
    laptop, tablet = ({known.name: known for known in backup.clients}[name] for name in ("laptop", "tablet"))
    other.allow("laptop", new_pair().public)
    other.allow("slate", tablet.public)
    other.allow("guest", new_pair().public)
    other.join("tcp://base:9000", new_pair().public, "rover")
    other.make_metrics_token()
    before = contents(other)
    with pytest.raises(KeysError, match="--force") as refused:
        restore(other, backup, force=False)
    for whose in ("the engine", "client laptop", "client tablet", "engine tcp://base:9000", "the metrics"):
        assert whose in str(refused.value)
    assert contents(other) == before
    restore(other, backup, force=True)
    assert other.engine() == robot.engine()
    guest = next(public for public, name in other.allowed().items() if name == "guest")
    assert other.allowed() == {laptop.public: "laptop", tablet.public: "tablet", guest: "guest"}
    assert (other.memberships(), other.metrics_token()) == (robot.memberships(), robot.metrics_token())


@pytest.mark.parametrize(
    "wrong",
    [
        KeyBackup(engine=Pair("short", "x" * 40)),
        KeyBackup(clients=[Known("../laptop", "x" * 40)]),
        KeyBackup(clients=[Known("laptop", "short")]),
        KeyBackup(clients=[Known("schedule", "x" * 40)]),
        KeyBackup(engines=[Membership("robot", "x" * 40, "laptop", Pair("x" * 40, "x" * 40))]),
        KeyBackup(engines=[Membership(ADDRESS, "x" * 40, "laptop", Pair("x" * 40, "short"))]),
    ],
)
def test_invalid_keys_and_names_are_not_written(tmp_path: Path, wrong: KeyBackup) -> None:
    ring = KeyRing(tmp_path / "ring")
    sound = msgspec.structs.replace(wrong, clients=[*wrong.clients, Known("first", "y" * 40)])
    with pytest.raises(KeysError):
        restore(ring, sound, force=True)
    assert not ring.folder.exists()


@pytest.mark.parametrize("text", [b"", b"{}", b"taskengine-pair:abc", b"[1]", b'{"format":"x","version":1,"more":1}'])
def test_other_files_are_told_apart(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "file"
    write_private(file, text, replace=False)
    with pytest.raises(KeysError, match="keys export"):
        read_backup(file)
    with pytest.raises(KeysError, match="No such file"):
        read_backup(tmp_path / "none")


def test_a_newer_file_names_both_versions(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_private(file, b'{"format":"taskengine keys","version":7}', replace=False)
    with pytest.raises(KeysError, match=r"version 7.*version 1: import it with"):
        read_backup(file)


def test_no_keys_are_no_backup_and_none_are_made(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="no keys"):
        backup_of(KeyRing(tmp_path))
    assert contents(KeyRing(tmp_path)) == {}


def test_without_the_library_the_extra_is_named(robot: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.kdf.scrypt", None)
    with pytest.raises(KeysError, match=r"\.\[pair\]"):
        encode_backup(backup_of(robot), "hush")
    assert encode_backup(backup_of(robot))
